"""Flags that every run has, and parsing: what the command names, which defaults it gets, one line for what is wrong."""

import argparse
import os
import shlex
import sys
from pathlib import Path

import torch

from hw5_utils import HERE

MEASURES = "quick", "usual", "full"


def folder_name(text):
    """A path from the command line; an empty one is that of an unset shell variable."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a folder")
    return Path(text)


def add_run_flags(parser, number, images=True):
    """The flags that every script shares; `number` is the script's, for numbers in a range.

    With images=False there is no data to read, so no --data_dir and --limit.
    """
    folder = HERE / "outputs" / Path(parser.prog).stem.removeprefix("hw5_")
    flag = parser.add_argument_group("run").add_argument
    flag("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    if images:
        flag("--data_dir", type=folder_name, default=HERE / "data", help="folder of the four MNIST files")
        flag("--limit", **number(int, 1, 60_000), help="use the first N training and the first N test images only")
    flag("--output_dir", type=folder_name, default=folder, help="folder of the run, for all that it writes")
    if "--resume_training" not in parser._option_string_actions:  # a flag of the VAE's homework
        flag("--resume_training", "--resume", action="store_true", help="continue the run in the output folder")
    flag("--evaluate", action="store_true", help="measure the model of the run in the output folder, without training")
    flag(
        "--rewrite",
        action="store_true",
        help="with --evaluate or --resume: also where the script was changed since the run began",
    )
    flag(
        "--measure",
        choices=MEASURES,
        default="usual",
        help="how much of a VAE to measure at the end: quick for a lecture, full for all numbers; of others always all",
    )
    flag("--threads", **number(int, 1, 1024), help="of the processor; without it as many as PyTorch takes")
    flag(
        "--deterministic",
        action="store_true",
        help="refuse operations whose result can differ between two runs on "
        "the same machine; on a CPU none do at the same number of threads",
    )
    flag("--quiet", action="store_true", help="print no progress and no results")


def parse(parser, argv=None):
    """The settings as a Namespace; what the command does not name has its default.

    `--device auto` is resolved here. `named` holds the names of the flags on the command line, `command` the command.
    """
    names = {action.dest for action in parser._actions if action.dest != "help"}
    unnamed = object()
    args = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(names, unnamed)))
    args.named = {name for name in names if getattr(args, name) is not unnamed}
    for name in names - args.named:
        setattr(args, name, parser.get_default(name))
    present = devices()
    if args.device == "auto":
        args.device = next(device for device in reversed(present) if computes(device))
    if args.device not in present:
        parser.error(f"argument --device: {args.device} is not available here, use one of {', '.join(present)}")
    if args.rewrite and not (args.evaluate or args.resume_training):
        parser.error("argument --rewrite: belongs to --evaluate or --resume")
    apply(args)
    args.command = shlex.join(["python", parser.prog, *(sys.argv[1:] if argv is None else map(str, argv))])
    return args


def devices():
    """What PyTorch has here: the CPU, and what is faster, the fastest last."""
    found = {"cpu": True, "mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
    return [device for device in found if found[device]]


BEFORE = {}  # what PyTorch had before a run of this process, in a notebook say, asked for something else


def apply(args):
    """Set PyTorch up as --threads and --deterministic say; without them as it was before the runs of this process."""
    if args.threads:
        BEFORE.setdefault("threads", torch.get_num_threads())
        torch.set_num_threads(args.threads)
    elif "threads" in BEFORE:
        torch.set_num_threads(BEFORE.pop("threads"))
    if args.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA's matrix products need for it
        BEFORE.setdefault("deterministic", torch.are_deterministic_algorithms_enabled())
        torch.use_deterministic_algorithms(True)
    elif "deterministic" in BEFORE:
        torch.use_deterministic_algorithms(BEFORE.pop("deterministic"))


def computes(device):
    """Whether PyTorch computes on this device: there are cards for which it has no kernels, which is said."""
    try:
        torch.ones(1, device=device).add(1).item()
    except RuntimeError as error:
        print(f"{device} is there, but computes nothing ({one_line(error)[:100]}): using the CPU.", file=sys.stderr)
        return False
    return True


def flag_of(name):
    """The flag of a setting, as a user types it."""
    return "--epochs" if name in ("num_epoches", "n_epochs") else f"--{name}"


def contrast(name, saved, now):
    """Two values of a setting in words: "with --lr 0.1, not 0.2", "without --limit, not with --limit 10"."""
    flag = flag_of(name)
    if not {type(saved), type(now)} & {type(None), bool}:
        return f"with {flag} {saved}, not {now}"
    words = {None: f"without {flag}", False: f"without {flag}", True: f"with {flag}"}
    return ", not ".join(words.get(value, f"with {flag} {value}") for value in (saved, now))


def count(number, thing):
    """A number of things in words: "1 epoch", "2 epochs"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def one_line(text):
    """Text of other origin, a file's name for instance, may hold ends of lines: a message has none."""
    return " ".join(str(text).splitlines())
