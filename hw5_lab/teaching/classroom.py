"""Grades a class: a platform's export in, a report folder out. It resumes where it was stopped.

raw/STUDENT.json        the verdict of every check; what is there is not run again, also under other points
feedback/STUDENT.txt    for the student
class.csv               a row each: points per question, total, status
class.html              the class on one page: distributions, mistakes, missing files, likeness
"""

import csv
import html
import io
import json
import keyword
import multiprocessing
import re
import signal
import sys
import tempfile
import tokenize
import zipfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.util import Finalize
from pathlib import Path

import torch
from tqdm import tqdm

from hw5_lab.teaching import grade, starter
from hw5_lab.teaching.export import students
from hw5_lab.teaching.judging import QUESTIONS
from hw5_lab.teaching.sandbox import ROOT, Refused, Sandbox, clean
from hw5_lab.teaching.submission import gather

BOX = None  # of a worker
MARK = ".hw5-report"  # an empty file in a report folder: its other files may be written again
GRAM = 12  # tokens that are compared at once
ALIKE = 0.6  # share of common sequences from which two submissions are shown
COMMON = 0.25  # share of a class from which a sequence is taken for given code


def start_worker(as_root):
    global BOX
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    torch.set_num_threads(1)  # a forked process cannot use its parent's threads: it would wait for them forever
    BOX = Sandbox(as_root)
    BOX.start()
    Finalize(None, BOX.__exit__, exitpriority=1)


def grade_student(submission, path, digest):
    """Grade one gathered submission, on all questions whatever their points; the raw results go to `path`."""
    raw = grade.grade(submission, BOX, list(QUESTIONS))
    grade.write(path, {"digest": digest, **raw})


def known(path, digest):
    """Whether `path` holds the raw results of exactly this submission, without a fault of the grader's own."""
    try:
        raw = json.loads(path.read_text())
        return raw["digest"] == digest and not raw["faults"] and set(raw["checks"]) == set(QUESTIONS)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def grade_class(args, scheme):
    """The exit code: 0 when all are graded, 2 for no students, 3 where the grader had a fault of its own."""
    report = args.report
    if not (args.export.is_dir() or zipfile.is_zipfile(args.export)):
        raise OSError(2, "no such folder or zip", str(args.export))
    if args.export.resolve() in (report.resolve(), *report.resolve().parents):
        raise OSError(2, "lies in the export, where it would be taken for a student; name another folder", str(report))
    if report.is_dir() and any(report.iterdir()) and not (report / MARK).exists():
        raise OSError(2, "holds other things than a report on a class; name a new folder", str(report))
    with tempfile.TemporaryDirectory(prefix="hw5-class-") as work:
        work = Path(work)
        found = students(args.export, work / "export")
        if not found:
            print(f"hw5_lab.grade: {args.export}: holds no folder, zip or script of a student", file=sys.stderr)
            return 2
        for name in ("raw", "feedback"):
            (report / name).mkdir(parents=True, exist_ok=True)
        (report / MARK).touch()
        gathered, taken = {}, set()
        for student, paths in found.items():
            name = file_name(student, taken)
            submission = gather(paths, work / "submissions" / name)
            gathered[student] = name, submission
        todo = {}
        for student, (name, submission) in gathered.items():
            path, digest = report / "raw" / f"{name}.json", submission.digest()
            if not submission.files:
                why = "; ".join(["there is no file to grade", *submission.left_out[:3]])
                grade.write(path, {"digest": digest, **grade.unfinished(list(QUESTIONS), clean(why))})
            elif not known(path, digest):
                todo[student] = submission, path, digest
        count = len(todo)
        run_all(todo, args, len(gathered))
        raws = {}
        for student, (name, _) in gathered.items():
            raws[student] = json.loads((report / "raw" / f"{name}.json").read_text())
        results = {student: scheme.results(raw) for student, raw in raws.items()}
        for student, (name, _) in gathered.items():
            text = grade.table(results[student], raws[student], clean(student))
            (report / "feedback" / f"{name}.txt").write_text(text + "\n")
        write_csv(report / "class.csv", results, raws)
        alike = likeness({student: texts(submission) for student, (_, submission) in gathered.items()})
        (report / "class.html").write_text(page(results, raws, alike))
    faults = sum(bool(raw["faults"]) for raw in raws.values())
    print(f"{len(raws)} students, {count} graded now: {report / 'class.csv'}, {report / 'class.html'}")
    return 3 if faults else 0


def file_name(student, taken):
    """A name for a student's files that every system takes, and no other student has."""
    name = re.sub(r"[^\w.() -]", "_", student).strip(" .")[:80] or "student"
    if re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", name.split(".")[0]):
        name = f"_{name}"
    base, number = name, 2
    while name.lower() in taken:
        name, number = f"{base} ({number})", number + 1
    taken.add(name.lower())
    return name


def run_all(todo, args, total):
    """Grade {student: arguments}, several at once. A worker that dies costs its students a second try, and no more."""
    failed, context = Counter(), multiprocessing.get_context("fork")
    with tqdm(total=total, initial=total - len(todo), desc="students", disable=None) as bar:
        while todo:
            try:
                with ProcessPoolExecutor(args.workers, context, start_worker, (args.as_root,)) as pool:
                    futures = {pool.submit(grade_student, *each): student for student, each in todo.items()}
                    try:
                        for future in as_completed(futures):
                            student = futures[future]
                            if error := future.exception():
                                if isinstance(error, (BrokenProcessPool, Refused)):
                                    raise error
                                give_up(*todo.pop(student), f"{type(error).__name__}: {error}")
                            else:
                                todo.pop(student)
                            bar.update()
                    except BaseException:
                        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C: it is over soon
                        for worker in multiprocessing.active_children():
                            worker.terminate()
                        pool.shutdown(cancel_futures=True)
                        signal.signal(signal.SIGINT, previous)
                        raise
            except BrokenProcessPool:
                todo = {student: each for student, each in todo.items() if not known(*each[1:])}
                for student in list(todo)[: args.workers]:  # those that may have been running
                    failed[student] += 1
                    if failed[student] == 2:
                        give_up(*todo.pop(student), "the process that graded it ended")


def give_up(submission, path, digest, why):
    raw = grade.unfinished(list(QUESTIONS), grade.OURS)
    files = {name: str(file) for name, file in submission.files.items()}
    grade.write(path, {"digest": digest, **raw, "files": files, "faults": [clean(why)]})


# -------------------------------------------------------------------------------------------------------- report


def status(raw):
    if raw["faults"]:
        return "grader's fault"
    return "graded" if raw["files"] else "no file"


def write_csv(path, results, raws):
    first = next(iter(results.values()))
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["student", *(result.question for result in first), "total", "out of", "status", "files"])
        for student, made in results.items():
            points = [result.points for result in made]
            total = [f"{each:g}" for each in (*points, sum(points), sum(result.out_of for result in made))]
            files = "; ".join(raws[student]["files"].values())
            rows.writerow([cell(student), *total, status(raws[student]), cell(files)])


def cell(text):
    """A text for a spreadsheet, which is to see no formula in it."""
    text = clean(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def texts(submission):
    return [(submission.folder / path).read_bytes() for path in submission.files.values()]


def sequences(sources):
    """All runs of tokens in these scripts, comments, strings and names aside."""
    found = set()
    for source in sources:
        tokens = []
        try:
            for token in tokenize.tokenize(io.BytesIO(source).readline):
                if token.type == tokenize.NAME:
                    tokens.append(token.string if keyword.iskeyword(token.string) else "name")
                elif token.type in (tokenize.OP, tokenize.NUMBER):
                    tokens.append(token.string)
        except (tokenize.TokenError, SyntaxError, ValueError, LookupError):  # a coding that is none of texts
            pass  # what came before the fault
        found |= {tuple(tokens[start : start + GRAM]) for start in range(len(tokens) - GRAM + 1)}
    return found


def likeness(sources):
    """[(share, student, student)]: how alike what two wrote is, besides the starter's text and what many have."""
    given = sequences([starter.make((ROOT / file).read_text(), file).encode() for file in starter.SCRIPTS])
    own = {student: sequences(each) - given for student, each in sources.items()}
    if len(own) >= 10:  # another course's starter
        counts = Counter(sequence for each in own.values() for sequence in each)
        common = {sequence for sequence, count in counts.items() if count > max(3, COMMON * len(own))}
        own = {student: each - common for student, each in own.items()}
    names, pairs = [student for student, each in own.items() if len(each) >= 40], []
    for place, one in enumerate(names):
        for other in names[:place]:
            share = len(own[one] & own[other]) / min(len(own[one]), len(own[other]))
            if share >= ALIKE:
                pairs.append((share, other, one))
    return sorted(pairs, reverse=True)


def histogram(values, most):
    """How many students have how many points, as at most 25 bars."""
    bins = min(round(most), 24) or 1
    counts = Counter(round(value / most * bins) if most else 0 for value in values)
    tallest = max(counts.values())
    bars = (
        f'<span title="about {each * most / bins:.3g} points: {counts[each]}" '
        f'style="height:{40 * counts[each] / tallest:.0f}px"></span>'
        for each in range(bins + 1)
    )
    return f'<div class="bars">{"".join(bars)}</div>'


PAGE = """<!doctype html><meta charset="utf-8"><title>The class</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ text-align: left; padding: .25em .8em; border-bottom: 1px solid #ddd }}
td:first-child, td.n {{ white-space: nowrap }} td.n {{ text-align: right }} h2 {{ margin-top: 2em }}
.bars {{ display: flex; align-items: flex-end; height: 42px; gap: 2px }}
.bars span {{ width: 12px; background: #4878a8; min-height: 1px }}
</style>
<h1>{count} students, mean {mean:.1f} of {most:g} points</h1>
<p>{statuses}</p>
<h2>Points</h2><p>From left to right: 0 points to all. The height says how many students have them.</p>
<table><tr><th>question<th><th>mean<th>all points<th>distribution</tr>{questions}</table>
<h2>The commonest mistakes</h2><table><tr><th>question<th>what is wrong<th>students</tr>{mistakes}</table>
<h2>Missing files</h2>{missing}
<h2>Alike</h2><p>The share of what the shorter of two wrote that the other wrote too, names, comments, strings and given
code aside. A hint, not a verdict: short answers to the same question look alike.</p>{alike}
"""


def page(results, raws, alike):
    """The class on one page of HTML."""
    say = lambda text: html.escape(clean(text, 1000))
    row = lambda *cells: (
        "<tr>" + "".join(f"<td{' class=n' if number else ''}>{cell}" for cell, number in cells) + "</tr>"
    )
    made, questions = list(results.values()), []
    for column in zip(*made):
        points, most = [result.points for result in column], column[0].out_of
        full = sum(each == most for each in points)
        mean = f"{sum(points) / len(points):.1f} of {most:g}"
        cells = (column[0].question, 0), (say(column[0].title), 0), (mean, 1), (f"{full} of {len(points)}", 1)
        questions.append(row(*cells, (histogram(points, most), 0)))
    totals = [sum(result.points for result in each) for each in made]
    most = sum(result.out_of for result in made[0])
    questions.append(
        row(
            ("total", 0),
            ("", 0),
            (f"{sum(totals) / len(totals):.1f} of {most:g}", 1),
            ("", 0),
            (histogram(totals, most), 0),
        )
    )
    counts = Counter()
    for student, each in results.items():
        wrong = {
            (result.question, re.sub(r"[\w./-]+\.py, line \d+", "a line", part.said))
            for result in each
            for part in result.parts
            if part.wrong and raws[student]["files"] and "there is no hw5_" not in part.wrong
        }
        whole = {sentence for _, sentence in wrong if sentence.startswith("importing ")}  # of a file: counted once
        counts.update({(number, sentence) for number, sentence in wrong if sentence not in whole})
        counts.update(("a file", sentence) for sentence in whole)
    commonest = sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:40]
    mistakes = "".join(row((say(number), 0), (say(wrong), 0), (count, 1)) for (number, wrong), count in commonest)
    missing = []
    for file in ("hw5_vae", "hw5_gan", "hw5_diffusion"):
        without = [say(student) for student, raw in raws.items() if file not in raw["files"]]
        if without:
            missing.append(f"<p><b>{file}.py</b> ({len(without)}): {', '.join(without)}</p>")
    pairs = "".join(row((f"{share:.0%}", 1), (say(one), 0), (say(other), 0)) for share, one, other in alike[:100])
    return PAGE.format(
        count=len(made),
        mean=sum(totals) / len(totals),
        most=most,
        statuses=", ".join(f"{count} {name}" for name, count in Counter(map(status, raws.values())).items()),
        questions="".join(questions),
        mistakes=mistakes,
        missing="".join(missing) or "<p>None.</p>",
        alike=f"<table>{pairs}</table>" if pairs else f"<p>No two share {ALIKE:.0%}.</p>",
    )
