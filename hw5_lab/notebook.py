"""python -m hw5_lab.notebook [FILE]: writes hw5.ipynb, the notebook, from hw5_lab/teaching/notebook.txt.

A line "# %% ..." of the text begins a cell of code, "# %% [markdown]" one of words.
"""

import argparse
import json
import re
from pathlib import Path

from hw5_lab.runs.streams import forgiving_streams
from hw5_utils import HERE

TEXT = Path(__file__).parent / "teaching" / "notebook.txt"


def cells(text):
    """[(kind, source)] of the text, where kind is "markdown" or "code". The words of a code cell's mark stay in it."""
    for mark, body in re.findall(r"^# %% ?(.*)\n((?:(?!# %%).*\n)*)", text, re.MULTILINE):
        kind = "markdown" if mark == "[markdown]" else "code"
        words = f"# {mark}\n" if mark and kind == "code" else ""
        yield kind, (words + body).strip()


def notebook(text):
    """The content of an .ipynb file, of format 4.5, without outputs."""
    made = []
    for number, (kind, source) in enumerate(cells(text)):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": source.splitlines(keepends=True)}
        made.append({**cell, "execution_count": None, "outputs": []} if kind == "code" else cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    content = {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def main(argv=None):
    """Write a new file: a notebook that is there may hold somebody's work. The exit code is 0, 2 for no file."""
    parser = argparse.ArgumentParser("hw5_lab.notebook", description="Write the notebook.")
    parser.add_argument("file", type=Path, nargs="?", default=HERE / "hw5.ipynb", help="where it goes")
    path = parser.parse_args(argv).file
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(notebook(TEXT.read_text(encoding="utf-8")))
    except FileExistsError:
        parser.exit(2, f"hw5_lab.notebook: {path} is there already; remove it, or name another file\n")
    except OSError as error:
        parser.exit(2, f"hw5_lab.notebook: {path}: {error.strerror}\n")
    return 0


if __name__ == "__main__":
    with forgiving_streams():
        raise SystemExit(main())
