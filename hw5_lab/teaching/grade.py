"""Grades a student's hw5_vae.py and hw5_gan.py: a table of points, and in a line what is wrong.

    python -m hw5_lab.grade SUBMISSION [SUBMISSION]     # a folder, or one or two files

The student's code runs in child processes with limits (grade_sandbox.py, grade_child.py), which compute outputs for
inputs that they are sent. What is right is known here alone: the questions and their judges are in grade_densities.py,
grade_networks.py and grade_losses.py, the known mistakes in diagnoses.py. A grading takes about 10 s on two cores.
"""

import argparse
import json
import re
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue

import torch
from tqdm import tqdm

from hw5_lab.teaching.grade_densities import DENSITIES
from hw5_lab.teaching.grade_judge import said
from hw5_lab.teaching.grade_losses import LOSSES
from hw5_lab.teaching.grade_networks import NETWORKS
from hw5_lab.teaching.grade_sandbox import Failure, Sandbox, Submission, clean

# What every part of a question is worth. A part worth 0 costs nothing: what is wrong with it is said as a remark.
POINTS = {
    "2(a)": {"layers": 1, "shape": 1, "value": 2, "gradient": 1, "seeded weights": 1, "other sizes": 0},
    "2(b)i": {"shape": 1, "value": 3, "gradient": 1, "broadcasting": 1},
    "2(b)ii": {"shape": 1, "value": 3, "gradient": 1, "broadcasting": 1, "p = 0 and 1": 0},
    "2(b)iii": {"shape": 1, "distribution": 2, "independence": 1, "gradient": 2, "seeded numbers": 0},
    "2(b)iv": {"type": 1, "distribution": 2, "independence": 1},
    "2(c)": {"scalar": 1, "value": 3, "gradient": 1},
    "2(e)iii": {"value": 2, "default alpha": 1},
    "4(a)": {"layers": 1, "order": 1, "shape": 1, "value": 2, "gradient": 1},
    "4(b)": {"layers": 1, "order": 1, "shape": 1, "value": 2, "gradient": 1},
    "4(c)": {"biases": 1, "DNet's weights": 1, "GNet's weights": 1, "seeded weights": 2},
    "4(d)": {"value": 3, "batch of one": 1, "gradient": 1, "detached fakes": 0},
    "4(e)": {"value": 3, "batch of one": 1, "gradient": 1},
}
QUESTIONS = sorted([*DENSITIES, *NETWORKS, *LOSSES], key=lambda question: list(POINTS).index(question.number))
IMPORT_SECONDS, SECONDS = 10, 8  # that importing a file, and a question, may take
LONG_IMPORT = 3  # seconds after which a file is taken to do more than define things


@dataclass
class Part:
    name: str
    points: int
    out_of: int
    wrong: str  # "" where right


@dataclass
class Result:
    """A question's parts, and remarks on what costs nothing."""

    question: str
    title: str
    parts: list
    remarks: list

    @property
    def points(self):
        return sum(part.points for part in self.parts)

    @property
    def out_of(self):
        return sum(part.out_of for part in self.parts)

    def lines(self):
        """What is wrong: a line for each reason, with the parts that it costs; then the remarks."""
        reasons = {}
        for part in self.parts:
            if part.wrong and part.out_of:
                reasons.setdefault(part.wrong, []).append(part.name)
        return [
            *(f"{', '.join(parts)}: {reason}" for reason, parts in reasons.items()),
            *(f"(remark) {each}" for each in self.remarks),
        ]


# -------------------------------------------------------------------------------------------------- submissions


def find_submission(paths):
    """The Submission that these paths hold. A file is known by its name, or else by the classes that it defines."""
    paths = [Path(path) for path in paths]
    folder = paths[0] if len(paths) == 1 and paths[0].is_dir() else None
    files = [path for path in paths if path.is_file()]
    if folder:
        files = sorted(folder.glob("*.py")) or sorted(folder.glob("*/*.py"))
    found = {}
    for name, defines in (("hw5_vae", b"class VAE"), ("hw5_gan", b"class GAN")):
        kind = name.removeprefix("hw5_")
        by_name = [path for path in files if re.search(rf"(?i)hw\d*[-_ ]*{kind}", path.stem)]
        by_content = [path for path in files if path.stat().st_size < 2**20 and defines in path.read_bytes()]
        exact = [path for path in by_name if path.stem == name]
        if chosen := exact or by_name or by_content:
            found[name] = chosen[0]
    if folder and found:
        folder = next(iter(found.values())).parent
    return Submission(found, folder)


def inputs_for(submission):
    """A generator of the inputs: others for every submission, the same whenever it is graded again."""
    content = b"".join(path.read_bytes() for path in submission.files.values())
    return torch.Generator().manual_seed(zlib.crc32(content))


# ------------------------------------------------------------------------------------------------------ grading


def try_import(box, submission, file):
    """(whether only definitions can be imported, a remark or "", why nothing can be imported or "")."""
    why = ""
    for definitions_only in (False, True):
        try:
            answer = box.run(submission, file, {"job": "import"}, IMPORT_SECONDS, definitions_only)
            reason = said(answer)
            if not reason and not definitions_only and answer["seconds"] > LONG_IMPORT:
                reason = f"takes {answer['seconds']:.0f} s"
        except Failure as failure:
            reason = str(failure)
        if not reason:
            remark = (
                f"importing {file}.py {why}: graded by its definitions alone. What trains belongs under "
                'if __name__ == "__main__":'
            )
            return definitions_only, why and remark, ""
        why = why or (reason if reason[0].islower() else f"fails, {reason.removeprefix('RuntimeError: ')}")
    return False, "", f"importing {file}.py {clean(why)}"


def ask(box, submission, question, requests, definitions_only):
    """The question's answers, or what went wrong in all of them."""
    answers = {}
    for name, request in requests.items():
        try:
            answers[name] = box.run(submission, question.file, request, SECONDS, definitions_only)
        except Failure as failure:
            answers[name] = {"error": f"the code {failure}"}
    return answers


def verdict(question, requests, answers):
    """The Result of a question. A forged or broken answer that the judge cannot read earns nothing."""
    sentences = [said(answer) for answer in answers.values()]
    if sentences[0] and len(sentences) == 1:
        parts, remarks = dict.fromkeys(POINTS[question.number], sentences[0]), []
    else:
        try:
            parts, remarks = question.judge(requests, answers)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
            parts, remarks = dict.fromkeys(POINTS[question.number], f"no readable answer ({type(error).__name__})"), []
    return as_result(question, parts, remarks)


def as_result(question, parts, remarks=()):
    remarks, made = list(remarks), []
    for name, out_of in POINTS[question.number].items():
        wrong = clean(parts.get(name, ""))
        made.append(Part(name, 0 if wrong else out_of, out_of, wrong))
    earned = any(part.points for part in made)
    remarks += [part.wrong for part in made if part.wrong and not part.out_of and earned]
    return Result(question.number, question.title, made, [clean(remark) for remark in remarks])


def grade(submission, boxes, numbers=tuple(POINTS), progress=lambda: None):
    """([Result], [remark]) of the questions with these numbers; the boxes are used side by side."""
    generator = inputs_for(submission)
    made = [(question, question.make(generator)) for question in QUESTIONS]  # all: inputs do not depend on `numbers`
    asked = [(question, requests) for question, requests in made if question.number in numbers]
    free = Queue()
    for box in boxes:
        free.put(box)

    def with_box(function, *arguments):
        box = free.get()
        try:
            return function(box, *arguments)
        finally:
            free.put(box)
            progress()

    with ThreadPoolExecutor(len(boxes)) as pool:
        files = sorted({question.file for question, _ in asked} & set(submission.files))
        imports = dict(zip(files, pool.map(lambda file: with_box(try_import, submission, file), files)))

        def one(pair):
            question, requests = pair
            if question.file not in imports:
                return as_result(question, dict.fromkeys(POINTS[question.number], f"there is no {question.file}.py"))
            definitions_only, _, broken = imports[question.file]
            if broken:
                return as_result(question, dict.fromkeys(POINTS[question.number], broken))
            return verdict(question, requests, with_box(ask, submission, question, requests, definitions_only))

        results = list(pool.map(one, asked))
    return results, [remark for _, remark, _ in imports.values() if remark]


# ------------------------------------------------------------------------------------------------------- report


def table(results, remarks):
    """The report as text, a line per question and per reason."""
    titles = max(len(result.title) for result in results)
    rows = [f"{'question':<8}  {'':<{titles}}  points  what is wrong"]
    for result in results:
        first, *rest = result.lines() or [""]
        score = f"{result.points}/{result.out_of}"
        rows.append(f"{result.question:<8}  {result.title:<{titles}}  {score:>6}  {first}".rstrip())
        rows += [f"{'':<8}  {'':<{titles}}  {'':>6}  {line}" for line in rest]
    score = f"{sum(result.points for result in results)}/{sum(result.out_of for result in results)}"
    rows.append(f"{'total':<8}  {'':<{titles}}  {score:>6}")
    return "\n".join(rows + [f"(remark) {clean(remark)}" for remark in remarks])


def as_json(results, remarks, seconds):
    return {
        "points": sum(result.points for result in results),
        "out_of": sum(result.out_of for result in results),
        "seconds": round(seconds, 1),
        "remarks": remarks,
        "questions": [
            {
                "question": result.question,
                "title": result.title,
                "points": result.points,
                "out_of": result.out_of,
                "parts": [asdict(part) for part in result.parts],
                "remarks": result.remarks,
            }
            for result in results
        ],
    }


def as_gradescope(results, remarks, seconds):
    """Gradescope's results.json: a test per part that is worth something, remarks with their question's first part."""
    tests = []
    for result in results:
        parts = [part for part in result.parts if part.out_of]
        for number, part in enumerate(parts):
            lines = [part.wrong, *(f"(remark) {each}" for each in result.remarks if number == 0)]
            tests.append(
                {
                    "score": part.points,
                    "max_score": part.out_of,
                    "name": f"{result.title}: {part.name}",
                    "number": result.question,
                    "output": "\n".join(filter(None, lines)),
                    "status": "failed" if part.wrong else "passed",
                    "visibility": "visible",
                }
            )
    return {
        "score": sum(result.points for result in results),
        "execution_time": round(seconds),
        "output": "\n".join(remarks),
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
    }


def main(argv=None):
    """The exit code: 0 when graded, 2 where there is no submission."""
    parser = argparse.ArgumentParser("hw5_lab.grade", description="Grade a student's hw5_vae.py and hw5_gan.py.")
    parser.add_argument("submission", nargs="+", type=Path, help="a folder, or one or two files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report to FILE")
    parser.add_argument("--gradescope", type=Path, metavar="FILE", help="write Gradescope's results.json to FILE")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args(argv)
    start = time.monotonic()
    submission = find_submission(args.submission)
    if not submission.files:
        places = ", ".join(map(str, args.submission))
        print(f"hw5_lab.grade: {places}: neither hw5_vae.py nor hw5_gan.py is there", file=sys.stderr)
        return 2
    jobs = len(submission.files) + sum(question.file in submission.files for question in QUESTIONS)
    with ExitStack() as stack, tqdm(total=jobs, desc="grading", leave=False, disable=args.quiet or None) as bar:
        boxes = [stack.enter_context(Sandbox()) for _ in range(2)]
        results, remarks = grade(submission, boxes, progress=bar.update)
    seconds = time.monotonic() - start
    print(table(results, remarks))
    for path, make in ((args.json, as_json), (args.gradescope, as_gradescope)):
        if path:
            path.write_text(json.dumps(make(results, remarks, seconds), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
