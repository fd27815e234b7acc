"""More mistakes and right solutions than the grader was made with: no false verdict, and most mistakes are named."""

from itertools import zip_longest

import pytest
from graded import edited, lost, raw_of
from submissions import fresh

from hw5_lab.teaching.scheme import QUESTIONS

NAMELESS = "not a known one", "another value than the middle", "Error", "nan or inf"


def combined(cases):
    """Submissions that hold one case of each question: [([(question, edits)], {file: text})]."""
    by_question = {}
    for question, *edits in cases:
        by_question.setdefault(question, []).append(edits)
    for row in zip_longest(*by_question.values()):
        chosen = [(question, edits) for question, edits in zip(by_question, row) if edits]
        files = {}
        for question, edits in chosen:
            files.setdefault(QUESTIONS[question].file, []).extend(edits)
        yield chosen, {file: edited(file, edits) for file, edits in files.items()}


@pytest.mark.slow
def test_fresh_mistakes_lose_points_and_most_are_named(box, tmp_path):
    named = total = 0
    for number, (chosen, files) in enumerate(combined(fresh.MISTAKES)):
        found = lost(raw_of(box, tmp_path / f"{number}", [question for question, _ in chosen], **files))
        for question, edits in chosen:
            assert question in found, edits
            total += 1
            named += any(not any(words in why for words in NAMELESS) for why in found[question].values())
    assert total >= 40 and named >= 0.8 * total, (named, total)


@pytest.mark.slow
def test_fresh_right_solutions_lose_nothing(box, tmp_path):
    total = 0
    for number, (chosen, files) in enumerate(combined(fresh.RIGHT)):
        found = lost(raw_of(box, tmp_path / f"{number}", [question for question, _ in chosen], **files))
        assert found == {}, files
        total += len(chosen)
    assert total >= 20
