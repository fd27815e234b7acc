"""The answers in written/ and their proofs belong together, and the Markdown is safe for every renderer."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "written"
LETTERS = "1(a) 1(b) 1(c) 1(d) 1(e) 1(f) 1(g) 1(h) 1(i) 1(j)".split()
QUESTIONS = {  # all written questions of the texts, in the texts' order; in uiuc_hw8, 1(g) asks for a function's code
    "uiuc_hw5": LETTERS + "3(a) 3(b) 3(c) 3(d) 3(e)".split(),
    "uiuc_hw8": LETTERS[:7],
    "amsterdam": "1.1 1.2 1.3 1.4a 1.4b 1.5a 1.5b 1.6 1.7 1.8 1.9 1.10 1.11a 1.11b 1.11c 1.12 "
    "2.1 2.2 2.3 2.4 2.5 3.1".split(),
    "penn": LETTERS[:4],
}
PROSE = {"amsterdam": {"1.1", "1.12", "2.1", "2.5", "3.1"}}  # questions that ask for words only


def text(course):
    return (FOLDER / f"{course}.md").read_text(encoding="utf-8")


def answers(course):
    """The sections of a course: question -> text below its heading."""
    parts = re.split(r"^## (\S+) .*$", text(course), flags=re.MULTILINE)
    assert len(set(parts[1::2])) == len(parts[1::2]), "a question is answered twice"
    return dict(zip(parts[1::2], (re.split(r"^# ", part, flags=re.MULTILINE)[0].strip() for part in parts[2::2])))


def proofs_of(course):
    module = importlib.import_module(f"test_written_{course}")
    return {name: each for name, each in vars(module).items() if name.startswith("test_") and inspect.isfunction(each)}


def named(answer):
    """(course, test) of every proof that an answer names."""
    return re.findall(r"`tests/written/test_written_(\w+)\.py::(\w+)`", answer)


@pytest.mark.parametrize("course", QUESTIONS)
def test_every_question_has_an_answer(course):
    """The headings are the questions of the text, in its order; each has a question, an answer, a proof or prose."""
    found = answers(course)
    assert list(found) == QUESTIONS[course]
    for question, answer in found.items():
        assert answer.startswith("**Question.** "), f"{question}: begins with the question"
        assert "\n**Answer.**" in answer, f"{question}: has no answer"
        last = answer.split("\n\n")[-1]
        if question in PROSE.get(course, ()):
            assert last == "**Prose:** the question asks for words.", question
        else:
            assert re.fullmatch(r"\*\*Proof by computing:\*\*(\n`[^`]+`,?)+", last), f"{question}: ends with its proofs"
            assert last.count("`") == 2 * len(named(last)), f"{question}: a proof's name is not written as the others"


@pytest.mark.parametrize("course", QUESTIONS)
def test_every_named_proof_exists(course):
    for question, answer in answers(course).items():
        for other, name in named(answer):
            assert name in proofs_of(other), f"{question} names {name}, which is not in test_written_{other}.py"
        own = [name for other, name in named(answer) if other == course]
        begin = "test_" + re.sub(r"[()]", "", question).replace(".", "_") + "_"
        assert question in PROSE.get(course, ()) or own, f"{question} has no proof of its own"
        for name in own:
            assert name.startswith(begin), f"{question}: the name of {name} should begin with {begin}"


@pytest.mark.parametrize("course", QUESTIONS)
def test_every_proof_is_named_by_its_answer(course):
    own = [name for answer in answers(course).values() for other, name in named(answer) if other == course]
    assert sorted(own) == sorted(proofs_of(course)), "each proof in exactly one answer"
    for name, each in proofs_of(course).items():
        assert each.__doc__ and "\n" not in each.__doc__, f"{name}: one line says what is proved"


def formulas(markdown):
    """All formulas: those on lines of their own, and (before, LaTeX, after) of those in a line; code is left out."""
    markdown = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    markdown = re.sub(r"`[^`\n]*`", "code", markdown)
    blocks = r"\n\n\$\$\n(.*?)\n\$\$(?=\n\n)"
    display = re.findall(blocks, markdown, re.DOTALL)
    rest = re.sub(blocks, "", markdown, flags=re.DOTALL)
    assert "$$" not in rest, "a displayed formula has $$ on lines of their own, and blank lines around"
    inline = re.findall(r"(.?)\$([^$\n]+)\$(?=(.?))", rest)
    assert 2 * len(inline) == rest.count("$"), "a formula in a line begins and ends on this line"
    return display, inline


@pytest.mark.parametrize("course", QUESTIONS)
def test_formulas_survive_every_markdown(course):
    """Code hosts read formulas as Markdown to some degree. What Markdown would change in them is not used."""
    display, inline = formulas(text(course))
    for latex in display + [latex for _, latex, _ in inline]:
        place = f"in {latex!r}:"
        assert not re.search(r"\\[^A-Za-z]", latex), f"{place} Markdown eats a backslash before a sign; use a command"
        assert not re.search(r"[*`~<]", latex), f"{place} Markdown changes this sign; use \\ast or \\lt"
        assert not re.search(r"(^|[^A-Za-z0-9])_", latex), f"{place} emphasis may begin at this underscore"
        assert "](" not in latex, f"{place} Markdown makes a link of this"
        assert "\\operatorname" not in latex, f"{place} GitHub does not allow this command"
        assert latex.count("{") == latex.count("}"), f"{place} braces do not match"
    for latex in display:
        assert not re.search(r"^\s*([-+>#] |=|\d+[.)] )", latex, re.MULTILINE), f"{latex!r}: a line begins like a list"
    for before, latex, after in inline:
        assert before in ("", " ") and after in ("", *' .,;:)?"'), f"{latex}: a letter is too near to the $"
        assert latex == latex.strip(), f"{latex}: a space is too near to the $"
    for row in re.findall(r"^\|.*\|$", text(course), re.MULTILINE):
        assert all("|" not in latex for latex in re.findall(r"\$[^$]+\$", row)), f"{row}: a bar ends a cell; use \\mid"
