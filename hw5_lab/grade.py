"""The command python -m hw5_lab.grade; hw5_lab/teaching/grade.py does the work."""

from hw5_lab.teaching.grade import main

if __name__ == "__main__":
    raise SystemExit(main())
