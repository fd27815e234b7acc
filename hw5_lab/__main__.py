"""python -m hw5_lab runs [FOLDER]: the runs in a folder, by default outputs/, with what tells them apart."""

import argparse
import csv
import json
import sys
import time
from pathlib import Path

from hw5_lab.runs.flags import count
from hw5_lab.runs.streams import forgiving_streams
from hw5_utils import HERE

MAIN_NUMBERS = "test_elbo", "validation_elbo", "frechet_train", "score_error"  # of a history


def runs(folder):
    """A row for each run in the folder: its name, when it began, its epochs, its main number, its command."""
    rows = []
    for mark in folder.glob("*/run.json"):
        try:
            began, command = mark.stat().st_mtime, json.loads(mark.read_text())["command"]
            history = mark.with_name("history.csv")
            history = list(csv.DictReader(history.open())) if history.exists() else []
            main = next((name for name in MAIN_NUMBERS if history and name in history[-1]), None)
            number = f"{main} {float(history[-1][main]):.4g}" if main else "no epoch yet"
        except (OSError, ValueError, KeyError, TypeError, RecursionError, csv.Error):  # not of a run, or just moved
            continue
        if not isinstance(command, str):
            continue
        end = "" if mark.with_name("metrics.json").exists() else ", unfinished"
        rows.append((began, mark.parent.name, f"{count(len(history), 'epoch')}{end}", number, command))
    date = lambda began: time.strftime("%Y-%m-%d %H:%M", time.localtime(began))
    return [(name, date(began), *rest) for began, name, *rest in sorted(rows)]


def main(argv=None):
    """Print the runs; the exit code is 0, or 2 where there is no such folder."""
    parser = argparse.ArgumentParser("python -m hw5_lab", description="What the laboratory keeps.")
    parser.add_argument("what", choices=["runs"], help="list the runs")
    parser.add_argument("folder", type=Path, nargs="?", default=HERE / "outputs", help="where they are")
    folder = parser.parse_args(argv).folder
    if not folder.is_dir():
        print(f"{parser.prog}: {folder}: no such folder; name the one in which the runs' folders lie", file=sys.stderr)
        return 2
    rows = runs(folder)
    if not rows:
        print(f"{folder} holds no folder of a run.")
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip())
    return 0


if __name__ == "__main__":
    with forgiving_streams():
        raise SystemExit(main())
