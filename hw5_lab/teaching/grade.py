"""Grades a student's hw5_vae.py, hw5_gan.py and hw5_diffusion.py: a table of points, and in a line what is wrong.

    python -m hw5_lab.grade SUBMISSION [SUBMISSION]              # a folder, a zip, or files: one student
    python -m hw5_lab.grade --class EXPORT --report FOLDER       # a platform's export: all students

The student's code runs in child processes with limits (sandbox.py, child.py), which compute outputs for inputs that
they are sent. What is right is known here alone: the judges are in questions_*.py, the known mistakes in diagnoses.py,
the points in points.toml.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
import zlib
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from hw5_lab.teaching import scheme as points
from hw5_lab.teaching.judging import QUESTIONS, Ask, Draw, Sheet
from hw5_lab.teaching.sandbox import PACKAGES, Failure, Refused, Sandbox, clean
from hw5_lab.teaching.submission import gather

IMPORT_SECONDS = 10
LONG_IMPORT = 3  # seconds after which a file is taken to do more than define things
OURS = "a fault of the grader, not of this answer: tell your teacher"

# ------------------------------------------------------------------------------------------------------- grading


def try_import(ask):
    """(a note or "", why nothing can be imported or ""); sets whether only definitions are to be imported."""
    why = ""
    for ask.definitions_only in (False, True):
        try:
            answer = ask.run({"job": "import"}, IMPORT_SECONDS)
            reason = ""
            seconds = answer.get("seconds")
            if not ask.definitions_only and not (isinstance(seconds, float) and seconds <= LONG_IMPORT):
                reason = f"takes more than {LONG_IMPORT} s"
        except Failure as failure:
            reason = str(failure)
        if "SyntaxError" in reason:  # a newer Python may read what this one does not
            reason += f"; read by Python {sys.version_info[0]}.{sys.version_info[1]}"
        if not reason:
            remedy = "" if "ModuleNotFoundError" in why else ' What trains belongs under if __name__ == "__main__":'
            return why and f"importing {ask.shown} {why}: graded by its definitions alone.{remedy}", ""
        why = why or (reason if reason[0].islower() else f"fails, {reason.removeprefix('RuntimeError: ')}")
    return "", f"importing {ask.shown} {clean(why)}"


def grade(submission, box, numbers, progress=lambda raw: None):
    """The raw results of the questions with these numbers: every check's verdict, "" where it was shown to be right.

    progress(raw) is called after each question. A judge's own fault is in raw["faults"], for a teacher.
    """
    start, seed = time.monotonic(), submission.digest()
    raw = {
        "files": {name: str(path) for name, path in submission.files.items()},
        "notes": [f"not graded, for another file was: {each}" for each in submission.others[:5]],
        "checks": {},
        "remarks": {},
        "faults": [],
    }
    raw["notes"] += [clean(each) for each in submission.left_out[:5]]
    place = Path(tempfile.mkdtemp(prefix="hw5-submission-"))
    try:
        asks, broken = {}, {}
        for number in numbers:
            question = QUESTIONS[number]
            file, sheet = question.file, Sheet(question.checks)
            if file not in submission.files:
                sheet.all(f"there is no {file}.py")
            elif file not in asks:
                asks[file] = Ask(box, submission.place(place / file, file), file, submission.files[file].name)
                note, broken[file] = try_import(asks[file])
                raw["notes"] += [note] * bool(note)
            if file in asks and broken[file]:
                sheet.all(broken[file])
            elif file in asks:
                judge(question, asks[file], seed, sheet, raw["faults"])
            if file in asks:
                raw["notes"] += [each for each in asks[file].remarks if each not in raw["notes"]]
            raw["checks"][number] = {check: clean(why) for check, why in sheet.items()}
            raw["remarks"][number] = [clean(each) for each in sheet.remarks]
            raw["seconds"] = round(time.monotonic() - start, 1)
            progress(raw)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return raw


def judge(question, ask, seed, sheet, faults):
    """Fill a question's sheet. What a judge did not come to say stays "not shown", or gets the reason."""
    try:
        question.judge(ask, Draw(seed ^ zlib.crc32(question.number.encode())), sheet)
    except Failure as failure:
        why = str(failure)
        sheet.all(f"the code {why}" if why.split(" ")[0] in VERBS else why)
    except Exception as error:
        faults.append(f"{question.number}: {''.join(traceback.format_exception_only(error)).strip()}")
        sheet.all(OURS)
    for check in set(sheet) - set(question.checks):
        del sheet[check]


VERBS = {"does", "ends", "gives", "is", "aborts", "crashes", "uses", "starts"}  # with which a Failure of a job begins

# -------------------------------------------------------------------------------------------------------- report


def number(value):
    return f"{value:g}"


def table(results, raw, who=""):
    """The report as text, a line per question and per reason."""
    titles = max(len(result.title) for result in results)
    names = max(len(result.question) for result in results)
    rows = [f"graded: {', '.join(raw['files'].values()) or 'nothing'}{who and f' of {who}'}"]
    rows.append(f"{'question':<{names}}  {'':<{titles}}  points  what is wrong")
    for result in results:
        first, *rest = result.lines() or [""]
        score = f"{number(result.points)}/{number(result.out_of)}"
        rows.append(f"{result.question:<{names}}  {result.title:<{titles}}  {score:>6}  {first}".rstrip())
        rows += [f"{'':<{names}}  {'':<{titles}}  {'':>6}  {line}" for line in rest]
    score = "/".join(number(sum(each)) for each in zip(*((result.points, result.out_of) for result in results)))
    rows.append(f"{'total':<{names}}  {'':<{titles}}  {score:>6}")
    return "\n".join(rows + [f"(remark) {clean(note)}" for note in raw["notes"]])


def as_json(results, raw):
    """Points, and the raw results from which they were made."""
    return {
        "points": sum(result.points for result in results),
        "out_of": sum(result.out_of for result in results),
        "questions": [{**asdict(result), "points": result.points, "out_of": result.out_of} for result in results],
        "raw": raw,
    }


def as_gradescope(results, raw):
    """Gradescope's results.json: a test per part that is worth something, remarks with their question's first part."""
    tests = []
    for result in results:
        for place, part in enumerate(result.parts):
            lines = [part.said, *(f"(remark) {each}" for each in result.remarks if place == 0)]
            tests.append(
                {
                    "score": part.points,
                    "max_score": part.out_of,
                    "name": f"{result.title}: {part.name}",
                    "number": result.question,
                    "output": "\n".join(filter(None, lines)),
                    "status": "failed" if part.wrong else "passed",
                    "visibility": part.visibility,
                }
            )
    return {
        "score": sum(result.points for result in results),
        "execution_time": round(raw.get("seconds", 0)),
        "output": "\n".join([f"graded: {', '.join(raw['files'].values()) or 'nothing'}", *raw["notes"]]),
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
    }


def write(path, content):
    """Write JSON so that the file is whole at every moment."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps(content, indent=2) + "\n")
        os.replace(partial, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


EMPTY = {"files": {}, "checks": {}, "remarks": {}, "notes": [], "faults": []}


def unfinished(numbers, why):
    """Raw results that say of each question why it is not graded (yet)."""
    return {**EMPTY, "checks": {each: dict.fromkeys(QUESTIONS[each].checks, why) for each in numbers}}


def grade_one(args, scheme, outputs):
    """Grade one student; the outputs are written at once, and after every question."""
    numbers = list(scheme.questions)

    def put(raw):
        waiting = unfinished(numbers, "not graded yet: the grader was stopped before, by a time or memory limit?")
        whole = {**raw, "checks": {**waiting["checks"], **raw["checks"]}}
        for path, make in outputs:
            write(path, make(scheme.results(whole), whole))

    put(unfinished(numbers, "not graded yet: the grader was stopped before, by a time or memory limit?"))
    with tempfile.TemporaryDirectory(prefix="hw5-gathered-") as folder:
        submission = gather(args.submission, Path(folder) / "submission")
        if not submission.files:
            places = ", ".join(map(str, args.submission))
            why = f"{places}: none of hw5_vae.py, hw5_gan.py, hw5_diffusion.py is there"
            put(
                {
                    **unfinished(
                        numbers, f"there is no file to grade{''.join(f'; {each}' for each in submission.left_out[:3])}"
                    )
                }
            )
            print(f"hw5_lab.grade: {why}{''.join(f'; {each}' for each in submission.left_out[:3])}", file=sys.stderr)
            return 2
        text = b"".join((submission.folder / path).read_bytes() for path in submission.files.values())
        packages = [each for each in PACKAGES if each.split(".")[0].encode() in text]
        with Sandbox(args.as_root, packages) as box:
            box.start()
            raw = grade(submission, box, numbers, put)
    put(raw)
    print(table(scheme.results(raw), raw))
    for fault in raw["faults"]:
        print(f"hw5_lab.grade: a fault of the grader: {clean(fault)}", file=sys.stderr)
    return 3 if raw["faults"] else 0


def count(text):
    """A number from 1 on, of a flag."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return int(text)


def make_parser():
    parser = argparse.ArgumentParser("hw5_lab.grade", description="Grade hw5_vae.py, hw5_gan.py and hw5_diffusion.py.")
    flag = parser.add_argument
    flag("submission", nargs="*", type=Path, help="of one student: a folder, a zip, or files")
    flag("--class", dest="export", type=Path, metavar="EXPORT", help="a platform's export of a class, folder or zip")
    flag(
        "--report",
        type=Path,
        metavar="FOLDER",
        help="where the reports on a class go; what is there is not graded again",
    )
    flag("--points", type=Path, metavar="FILE", default=points.DEFAULT, help="what is graded and what it is worth")
    flag("--json", type=Path, metavar="FILE", help="write the whole report to FILE")
    flag("--gradescope", type=Path, metavar="FILE", help="write Gradescope's results.json to FILE")
    flag("--as-root", action="store_true", help="run students' code as root, where root cannot become another user")
    flag("--workers", type=count, default=os.cpu_count(), help="students of a class that are graded at once")
    return parser


def main(argv=None, grade_class=None):
    """The exit code: 0 when graded, 2 where nothing could be, 3 where the grader itself has a fault.

    `grade_class(args, scheme)` grades a class; see classroom.py, which stands on this module.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    if not hasattr(os, "fork"):
        print(
            "hw5_lab.grade: this system cannot fork processes; grade on Linux or macOS, on Windows in WSL",
            file=sys.stderr,
        )
        return 2
    if bool(args.export) == bool(args.submission) or bool(args.export) != bool(args.report):
        parser.error("expected files of one student, or --class EXPORT --report FOLDER")
    outputs = [(path, make) for path, make in ((args.json, as_json), (args.gradescope, as_gradescope)) if path]
    try:
        scheme = points.read(args.points)
        if args.export:
            return grade_class(args, scheme)
        return grade_one(args, scheme, outputs)
    except points.Fault as fault:
        print(f"hw5_lab.grade: {fault}", file=sys.stderr)
        return 2
    except (Refused, OSError) as error:
        why = error
        if isinstance(error, OSError):
            why = f"{error.filename or ''}: {error.strerror or error}"
        print(f"hw5_lab.grade: {why}", file=sys.stderr)
        with suppress(OSError):
            for path, make in outputs:
                raw = unfinished(list(scheme.questions), f"not graded: {clean(why)}")
                write(path, make(scheme.results(raw), raw))
        return 2
    except KeyboardInterrupt:
        again = "; what is graded is kept: run the same command again to go on" if args.export else ""
        print(f"hw5_lab.grade: stopped{again}", file=sys.stderr)
        return 130
