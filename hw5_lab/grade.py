"""The command python -m hw5_lab.grade: one student by hw5_lab/teaching/grade.py, a class by classroom.py beside it."""

from hw5_lab.teaching import classroom, grade


def main(argv=None):
    return grade.main(argv, classroom.grade_class)


if __name__ == "__main__":
    raise SystemExit(main())
