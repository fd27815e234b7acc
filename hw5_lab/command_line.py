"""The command line that all scripts share: their flags for a run, the ranges of all flags, and editions."""

import argparse
import os
import re
import shlex
import sys
from pathlib import Path

import torch

from hw5_utils import HERE


def choose_edition(parser, argv, editions):
    """Add --edition; the settings of the edition that it names in argv become the defaults of all other flags."""
    parser.allow_abbrev = False
    parser.add_argument("--edition", choices=editions, default="cs446", help="which course's homework, or a tuned one")
    only = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    only.add_argument("--edition", nargs="?")  # a missing value is the other parser's to name
    chosen = editions.get(only.parse_known_args(argv)[0].edition, editions["cs446"])
    parser.set_defaults(**chosen.settings)


def folder_name(text):
    """A path from the command line; an empty one is that of an unset shell variable."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a folder")
    return Path(text)


def add_run_flags(parser, images=True):
    """The flags that every script shares. With images=False there is no data to read, so no --data_dir and --limit."""
    folder = HERE / "outputs" / Path(parser.prog).stem.removeprefix("hw5_")
    flag = parser.add_argument_group("run").add_argument
    flag("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    if images:
        flag("--data_dir", type=folder_name, default=HERE / "data", help="folder of the four MNIST files")
        flag("--limit", type=int, metavar="1..60000", help="use the first N training and the first N test images only")
    flag("--output_dir", type=folder_name, default=folder, help="folder of the run, for all that it writes")
    if "--resume_training" not in parser._option_string_actions:  # a flag of the VAE's homework
        flag("--resume_training", "--resume", action="store_true", help="continue the run in the output folder")
    flag("--evaluate", action="store_true", help="measure the model of the run in the output folder, without training")
    flag(
        "--deterministic",
        action="store_true",
        help="refuse operations whose result can differ between two runs on "
        "the same machine; on a CPU none do at the same number of threads",
    )
    flag("--quiet", action="store_true", help="print no progress and no results")


def parse(parser, argv=None):
    """The settings as a Namespace; exits with code 2 and one line for a value outside its metavar's range.

    `--device auto` is resolved here. `named` holds the names of the flags on the command line, `command` the command.
    """
    parser.usage = f"python {parser.prog} [flags]; --help explains them"
    refusal = lambda message: one_line(f"{parser.prog}: {message}; --help lists all flags") + "\n"
    parser.error = lambda message: parser.exit(2, refusal(message))
    args = parser.parse_args(argv)
    unnamed = object()
    named = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(vars(args), unnamed)))
    args.named = {name for name, value in vars(named).items() if value is not unnamed}
    for action in parser._actions:
        value, bounds = getattr(args, action.dest, None), re.fullmatch(r"(.+)\.\.(.+)", action.metavar or "")
        if bounds and value is not None and not float(bounds[1]) <= value <= float(bounds[2]):
            parser.error(f"argument {action.option_strings[0]}: {value} is outside {action.metavar}")
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if args.device == "auto":
        args.device = next(device for device in ("cuda", "mps", "cpu") if present[device])
    if not present[args.device]:
        parser.error(
            f"argument --device: {args.device} is not available here, use one of "
            f"{', '.join(device for device in present if present[device])}"
        )
    if args.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA's matrix products need for it
        torch.use_deterministic_algorithms(True)
    args.command = shlex.join(["python", parser.prog, *(sys.argv[1:] if argv is None else map(str, argv))])
    return args


def one_line(text):
    """Text of other origin, a file's name for instance, may hold ends of lines: a message has none."""
    return " ".join(str(text).splitlines())
