"""Writes the hand-out: what a student gets, with the questions where our scripts have the answers.

    python -m hw5_lab.starter FOLDER

The hand-out is made from hw5_vae.py and hw5_gan.py by their syntax trees. A docstring that begins with a question's
number, such as 2(b)ii, marks an answer. Graded functions and figures keep their heads and get the question as a
docstring. Other functions of an answer are left out; where the rest of a script needs them, GIVEN has a replacement.
"""

import argparse
import ast
import re
import shutil
import sys
from pathlib import Path

from hw5_lab.teaching.starter_texts import GIVEN, HEADERS, QUESTIONS, README

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("hw5_vae.py", "hw5_gan.py")
NUMBER = re.compile(r"\d\([a-z]\)[ivx]*")
AS_GIVEN = {"2(d)", "2(e)", "4(f)"}  # training, all figures at once, samples: code that the homework gives
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Stale(Exception):
    """The scripts and the texts of the starter no longer fit each other."""


def number_of(node):
    """The question's number with which a node's docstring begins, or None."""
    found = NUMBER.match(ast.get_docstring(node) or "")
    return found and found[0]


def answered(tree):
    """[(class or "", node, number)] of all functions of an answer: by their docstring, or their class's."""
    found = []
    for node in tree.body:
        if isinstance(node, FUNCTIONS) and number_of(node):
            found.append(("", node, number_of(node)))
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, FUNCTIONS) and (number_of(method) or number_of(node)):
                    found.append((node.name, method, number_of(method) or number_of(node)))
    return [each for each in found if each[2] not in AS_GIVEN]


def is_asked(owner, node, number):
    """Whether a student is asked for this function, by this name, rather than for what it is a part of."""
    return node.name in ("__init__", "forward") or node.name in QUESTIONS.get(number, {}).get("functions", {})


def names_in(node):
    """All names and attributes that a node mentions."""
    return {getattr(part, "id", getattr(part, "attr", None)) for part in ast.walk(node)}


def docstring(text, indent):
    """A question as the lines of a docstring."""
    lines = text.strip().split("\n")
    pad = " " * indent
    if len(lines) == 1:
        return [f'{pad}"""{lines[0]}"""']
    return [f'{pad}"""{lines[0]}', *(f"{pad}{line}".rstrip() for line in lines[1:]), f'{pad}"""']


def ask(node, number):
    """The lines that stand for a function's body: the question, the call of super().__init__(), the error."""
    indent = node.body[0].col_offset
    question = QUESTIONS[number].get("functions", {}).get(node.name)
    lines = docstring(f"{number}. {question.strip()}", indent) if question else []
    for statement in node.body:
        if "super().__init__" in ast.unparse(statement):
            lines.append(f"{' ' * indent}{ast.unparse(statement)}")
            break
    return [*lines, f'{" " * indent}raise NotImplementedError("{number}")']


def first_line(node):
    """The number of a definition's first line, its decorators included."""
    return min([node.lineno, *(each.lineno for each in node.decorator_list)])


def make(source, file):
    """The starter's text of a script."""
    tree = ast.parse(source)
    edits = []  # (first line, last line, new lines), both inclusive, from 1
    known = answered(tree)
    asked = [each for each in known if is_asked(*each)]
    given = dict(GIVEN[file])
    dropped = [(owner, node) for owner, node, number in known if (owner, node, number) not in asked]
    gone = {node.name for owner, node in dropped if not given.get((owner, node.name))}
    gone |= {name for (_, name), text in given.items() if not text}
    inside = {id(node) for _, node, _ in known}
    for owner, node, number in known:
        if number not in QUESTIONS:
            raise Stale(f"{file}: {node.name} answers {number}, which starter_texts.py does not ask")
    chapter = "2" if "vae" in file else "4"
    expected = {
        name for number, question in QUESTIONS.items() if number[0] == chapter for name in question.get("functions", {})
    }
    if missing := expected - {node.name for _, node, _ in asked}:
        raise Stale(f"{file}: no function {', '.join(missing)} whose docstring begins with its question's number")
    for owner, node, number in asked:
        edits.append((node.body[0].lineno, node.end_lineno, ask(node, number)))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and number_of(node):
            question = f"{number_of(node)}. {QUESTIONS[number_of(node)]['class'].strip()}"
            edits.append((node.body[0].lineno, node.body[0].end_lineno, docstring(question, 4)))
    for owner, node in every_function(tree):
        text = given.pop((owner, node.name), None)
        if text is not None:
            edits.append((first_line(node), node.end_lineno, text.strip("\n").split("\n") if text else None))
        elif (owner, node) in dropped:
            edits.append((first_line(node), node.end_lineno, None))
        elif id(node) not in inside and names_in(node) & gone:
            used = ", ".join(names_in(node) & gone)
            raise Stale(f"{file}: {node.name} uses {used}, a part of an answer: GIVEN needs a replacement")
    if given:
        raise Stale(f"{file}: GIVEN replaces {', '.join(name for _, name in given)}, which is not there")
    edits += hand_over(tree, ("", "main") in GIVEN[file])
    edits.append((tree.body[0].lineno, tree.body[0].end_lineno, docstring(HEADERS[file], 0)))
    return apply(source, edits)


def every_function(tree):
    for node in tree.body:
        if isinstance(node, FUNCTIONS):
            yield "", node
        elif isinstance(node, ast.ClassDef):
            yield from ((node.name, method) for method in node.body if isinstance(method, FUNCTIONS))


def hand_over(tree, replaced):
    """Edits that take out where main() hands over to the laboratory, and the import that only this needs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "hw5_lab" in ast.unparse(node) and not replaced:
            yield node.lineno, node.end_lineno, None
        elif isinstance(node, ast.Import) and node.names[0].name.startswith("importlib"):
            yield node.lineno, node.end_lineno, None


def apply(source, edits):
    """The text with these lines replaced; a definition that is taken out takes the blank lines before it along."""
    lines = source.split("\n")
    for first, last, new in sorted(edits, key=lambda edit: edit[0], reverse=True):
        if new is None and lines[first - 1].lstrip().startswith(("def ", "@")):
            while not lines[first - 2].strip():
                first -= 1
        lines[first - 1 : last] = new or []
    return "\n".join(lines)


def write(folder):
    """Write the hand-out to a folder, which is new or empty."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in SCRIPTS:
        (folder / file).write_text(make((ROOT / file).read_text(), file))
    for file in ("hw5_utils.py", "requirements.txt"):
        shutil.copyfile(ROOT / file, folder / file)
    shutil.copytree(ROOT / "data" / "sample", folder / "data" / "sample")
    rows = [f"| {number} | {question['title']} |" for number, question in QUESTIONS.items()]
    (folder / "README.md").write_text(README.replace("{questions}", "\n".join(rows)))


def main(argv=None):
    """The exit code: 0, or 2 for a folder that cannot be written to."""
    parser = argparse.ArgumentParser("hw5_lab.starter", description="Write the homework as students get it.")
    parser.add_argument("folder", type=Path, help="a new or empty folder")
    folder = parser.parse_args(argv).folder
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        print(f"hw5_lab.starter: {folder} is not an empty folder; name a new one", file=sys.stderr)
        return 2
    try:
        write(folder)
    except OSError as error:
        print(f"hw5_lab.starter: {folder}: {error.strerror or error}", file=sys.stderr)
        return 2
    print(f"The hand-out is in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
