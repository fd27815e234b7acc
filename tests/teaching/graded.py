"""What the tests of the teaching kit share: submissions made by editing the plain one, and their raw results."""

import ast
from pathlib import Path

from helpers import ROOT

from hw5_lab.teaching import grade, scheme
from hw5_lab.teaching.submission import gather

SUBMISSIONS = Path(__file__).parent / "submissions"
PLAIN = {path.stem: path.read_text() for path in (SUBMISSIONS / "plain").glob("*.py")}
SCHEME = scheme.read()
POINTS = {
    number: {name: check.points for name, check in checks.items()} for number, (_, checks) in SCHEME.questions.items()
}


def edited(file, edits):
    """The plain submission's file with every old text replaced by the new one, wherever it stands."""
    text = PLAIN[file]
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        assert old in text, f"the plain submission has no {old!r}"
        text = text.replace(old, new)
    ast.parse(text)
    return text


def raw_of(box, folder, numbers=tuple(POINTS), **texts):
    """The raw results of these questions for a folder in which these files are written first."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    gathered = folder.parent / f"gathered-{folder.name}"
    raw = grade.grade(gather([folder], gathered), box, list(numbers))
    assert raw["faults"] == []
    return raw


def lost(raw):
    """{question: {check that lost points: why}}"""
    found = {
        result.question: {part.name: part.wrong for part in result.parts if part.wrong}
        for result in SCHEME.results(raw)
        if result.question in raw["checks"]
    }
    return {question: parts for question, parts in found.items() if parts}


def earned(raw):
    return sum(result.points for result in SCHEME.results(raw))


def said(raw):
    """All remarks and notes as one text."""
    remarks = [each for result in SCHEME.results(raw) if result.question in raw["checks"] for each in result.remarks]
    return " ".join(remarks + raw["notes"])


def of_file(file):
    """The numbers of a file's questions."""
    return [number for number in POINTS if scheme.QUESTIONS[number].file == file]


__all__ = ["PLAIN", "POINTS", "ROOT", "SCHEME", "SUBMISSIONS", "earned", "edited", "lost", "of_file", "raw_of", "said"]
