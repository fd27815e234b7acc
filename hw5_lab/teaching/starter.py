"""Writes the hand-out: what a student gets, with the questions where our scripts have the answers.

    python -m hw5_lab.starter FOLDER

The hand-out is made from the three scripts by their syntax trees. A docstring that begins with a question's number,
such as 2(b)ii, or a name in QUESTIONS marks an answer. Graded functions and figures keep their heads and get the
question as a docstring. Other functions of an answer are left out, and with them what mentions them; where the rest of
a script needs one, GIVEN has a replacement.
"""

import argparse
import ast
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from hw5_lab.teaching.starter_texts import GIVEN, HEADERS, QUESTIONS

ROOT = Path(__file__).resolve().parents[2]
HANDOUT = Path(__file__).with_name("handout")
SCRIPTS = ("hw5_vae.py", "hw5_gan.py", "hw5_diffusion.py")
NUMBER = re.compile(r"\d\([a-z]\)[ivx]*")
NEEDED = {"main", "parse_args", "train", "visualize", "save", "__init__"}  # which nothing takes along
AS_GIVEN = {"2(d)", "2(e)", "4(f)"}  # training, all figures at once, samples: code that the homework gives
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Stale(Exception):
    """The scripts and the texts of the starter no longer fit each other."""


def number_of(node):
    """The question's number with which a node's docstring begins, or None."""
    found = NUMBER.match(ast.get_docstring(node) or "")
    return found and found[0]


def answered(tree, file):
    """[(class or "", node, number)] of all functions of an answer: by their docstring, their class's, or their name."""
    questions, found = QUESTIONS[file], []
    by_name = {name: number for number, question in questions.items() for name in question.get("functions", {})}
    given = {name for question in questions.values() for name in question.get("given", [])}
    for owner, node in every_function(tree):
        classes = [each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == owner]
        of_class = next((number_of(each) for each in classes), None)
        number = number_of(node) or by_name.get(node.name) or of_class
        if number and number not in AS_GIVEN and node.name not in given:
            found.append((owner, node, number))
    return found


def is_asked(node, number, file):
    """Whether a student is asked for this function, by this name, rather than for what it is a part of."""
    asked = QUESTIONS[file].get(number, {})
    return node.name in ("__init__", "forward") and "class" in asked or node.name in asked.get("functions", {})


def names_in(node):
    """All names that a node mentions, and the attributes of self."""
    return {
        part.id if isinstance(part, ast.Name) else part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Name) or isinstance(part, ast.Attribute) and getattr(part.value, "id", "") == "self"
    }


def docstring(text, indent):
    """A question as the lines of a docstring."""
    lines = text.strip().split("\n")
    pad = " " * indent
    if len(lines) == 1:
        return [f'{pad}"""{lines[0]}"""']
    return [f'{pad}"""{lines[0]}', *(f"{pad}{line}".rstrip() for line in lines[1:]), f'{pad}"""']


def ask(node, number, file):
    """The lines that stand for a function's body: the question, the call of super().__init__(), the error."""
    indent = node.body[0].col_offset
    question = QUESTIONS[file][number].get("functions", {}).get(node.name)
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
    known, given, questions = answered(tree, file), dict(GIVEN[file]), QUESTIONS[file]
    asked = [each for each in known if is_asked(each[1], each[2], file)]
    for _, node, number in known:
        if number not in questions:
            raise Stale(f"{file}: {node.name} answers {number}, which starter_texts.py does not ask")
    expected = {name for question in questions.values() for name in question.get("functions", {})}
    if missing := expected - {node.name for _, node, _ in asked}:
        raise Stale(f"{file}: no function {', '.join(missing)} whose docstring begins with its question's number")
    functions = list(every_function(tree))
    if unknown := {key for key, text in given.items() if text} - {(owner, node.name) for owner, node in functions}:
        raise Stale(f"{file}: GIVEN replaces {', '.join(name for _, name in unknown)}, which is not there")
    kept = {id(node) for _, node, _ in asked} | {id(node) for owner, node in functions if given.get((owner, node.name))}
    dropped = {id(node) for _, node, _ in known if id(node) not in kept}
    dropped |= {id(node) for owner, node in functions if given.get((owner, node.name)) == ""}
    while more := mentioning(functions, kept, dropped):  # what needs something that is left out is left out as well
        for node in more:
            if node.name in NEEDED:
                raise Stale(f"{file}: {node.name} needs a part of an answer: GIVEN needs a replacement")
            dropped.add(id(node))
    for owner, node, number in asked:
        edits.append((node.body[0].lineno, node.end_lineno, ask(node, number, file)))
    for node in tree.body:
        number = isinstance(node, ast.ClassDef) and number_of(node)
        if number:
            question = f"{number}. {questions[number]['class'].strip()}"
            edits.append((node.body[0].lineno, node.body[0].end_lineno, docstring(question, 4)))
    for owner, node in functions:
        text = given.get((owner, node.name))
        if text:
            edits.append((first_line(node), node.end_lineno, text.strip("\n").split("\n")))
        elif id(node) in dropped:
            edits.append((first_line(node), node.end_lineno, None))
    edits += hand_over(tree, ("", "main") in given)
    edits.append((tree.body[0].lineno, tree.body[0].end_lineno, docstring(HEADERS[file], 0)))
    return apply(source, edits)


def mentioning(functions, kept, dropped):
    """The other functions that mention one that is left out."""
    gone = {node.name for _, node in functions if id(node) in dropped}
    gone -= {node.name for _, node in functions if id(node) in kept}
    return [node for _, node in functions if id(node) not in kept | dropped and names_in(node) & gone]


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
    """Write the hand-out to a folder, which is new or empty: all of it, or nothing."""
    new = folder.absolute()
    new.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=new.parent, prefix=".hw5-") as private:
        fill(Path(private))
        new.mkdir(exist_ok=True)
        for path in Path(private).iterdir():
            path.rename(new / path.name)


def fill(folder):
    texts = {file: make((ROOT / file).read_text(), file) for file in SCRIPTS}
    for file, text in texts.items():
        (folder / file).write_text(text)
    for file in (ROOT / "hw5_utils.py", ROOT / "requirements.txt", HANDOUT / "test_hw5.py"):
        shutil.copyfile(file, folder / file.name)
    shutil.copytree(ROOT / "data" / "sample", folder / "data" / "sample")
    rows = [
        f"| {number}{', diffusion' * (file == 'hw5_diffusion.py')} | {question['title']} |"
        for file in SCRIPTS
        for number, question in QUESTIONS[file].items()
    ]
    readme = (HANDOUT / "README.md").read_text()
    (folder / "README.md").write_text(readme.replace("{questions}", "\n".join(rows)))


def main(argv=None):
    """The exit code: 0, or 2 for a folder that cannot be written to."""
    parser = argparse.ArgumentParser("hw5_lab.starter", description="Write the homework as students get it.")
    parser.add_argument("folder", type=Path, help="a new or empty folder")
    folder = parser.parse_args(argv).folder
    try:
        if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
            print(f"hw5_lab.starter: {folder} is not an empty folder; name a new one", file=sys.stderr)
            return 2
        write(folder)
    except Stale as error:
        print(f"hw5_lab.starter: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"hw5_lab.starter: {folder}: {error.strerror or error}", file=sys.stderr)
        return 2
    print(f"The hand-out is in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
