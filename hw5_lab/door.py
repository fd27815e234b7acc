"""The door, to which the scripts hand over. It knows which homework and experiment belong together, and all flags."""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from hw5_lab.runs import flags
from hw5_lab.runs.folder import RunFolder
from hw5_lab.runs.run import Run, run, source_of
from hw5_utils import Fault


class Script(NamedTuple):
    """What belongs to a script. Names are those of modules and classes, so that a run imports only its own."""

    experiment: str
    editions: dict  # {name: module of the homework's class}
    homework: str  # the class's name, in every one of these modules


SCRIPTS = {
    "hw5_vae": Script(
        "hw5_lab.experiments.vae:VAEExperiment",
        {
            "cs446": "hw5_vae",
            "uva": "hw5_lab.editions.uva_vae",
            "ese546": "hw5_lab.editions.ese546",
            "hw8": "hw5_lab.editions.hw8",
            "dynamic": "hw5_lab.editions.dynamic",
            "dynamic-deep": "hw5_lab.editions.dynamic_deep",
        },
        "VAE",
    ),
    "hw5_gan": Script(
        "hw5_lab.experiments.gan:GANExperiment",
        {"cs446": "hw5_gan", "cs446-tuned": "hw5_lab.editions.tuned", "uva": "hw5_lab.editions.uva_gan"},
        "GAN",
    ),
    "hw5_diffusion": Script(
        "hw5_lab.experiments.diffusion:DiffusionExperiment",
        {"cs446": "hw5_diffusion", "s24": "hw5_lab.editions.s24"},
        "ScoreMatching",
    ),
}


def enter(script, argv=None):
    """A run of a script with the laboratory. Returns its exit code; see hw5_lab/runs/run.py.

    In a notebook, Jupyter's or Colab's, sys.argv holds the kernel's own arguments: without an argv no flags are named.
    """
    if argv is None and Path(sys.argv[0]).stem.endswith("kernel_launcher"):
        argv = []
    return run(lambda: parse_args(script, argv), lambda args: build(script, args))


def load(folder):
    """The homework object of the run in a folder, with its trained weights, in evaluation mode."""
    try:
        script = Path(json.loads((Path(folder) / "run.json").read_text())["script"]).stem
        SCRIPTS[script]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise Fault(f"{str(folder)!r} holds no run; name the output folder of one") from None
    args = parse_args(script, ["--output_dir", str(folder), "--evaluate"])
    with RunFolder(folder, f"{script}.py") as run_folder:
        trained = Run(args, lambda args: build(script, args), run_folder)
        trained.load()
    if trained.origin.get("source") != source_of(trained.experiment.homework):
        print(f"{folder}: the script or its edition has changed since this run.", file=sys.stderr)
    for part in trained.experiment.parts.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    del trained.experiment.homework.save  # it draws to its own folder again, not to that of the run
    return trained.experiment.homework


def homework_class(script, edition):
    """The class of an edition's homework; Fault where there is none, for a run of an edition that is gone."""
    if not isinstance(edition, str) or edition not in SCRIPTS[script].editions:
        raise Fault(f"--edition {edition}: not known; there are {', '.join(SCRIPTS[script].editions)}")
    return getattr(importlib.import_module(SCRIPTS[script].editions[edition]), SCRIPTS[script].homework)


def build(script, args):
    """The experiment of these settings."""
    module, name = SCRIPTS[script].experiment.split(":")
    experiment = getattr(importlib.import_module(module), name)
    torch.manual_seed(args.seed)
    homework = homework_class(script, args.edition)
    if script == "hw5_gan":
        return experiment(homework(args.zdim, args.seed, args.device), args)
    return experiment(homework(argparse.Namespace(**{**vars(args), "resume_training": False})), args)


def parse_args(script, argv=None):
    """The settings of a run as a Namespace; exits with code 2 and one line where something is wrong."""
    module = importlib.import_module(script)
    parser, number = module.make_parser(), module.number
    extras = parser.add_argument_group("laboratory").add_argument
    {"hw5_vae": add_vae_flags, "hw5_gan": add_gan_flags, "hw5_diffusion": add_diffusion_flags}[script](extras, number)
    extras(
        "--edition",
        choices=SCRIPTS[script].editions,
        action=choose_edition(script),
        default="cs446",
        help="which course's homework, or a tuned one; named before --help, its defaults are shown",
    )
    flags.add_run_flags(parser, number, images=script != "hw5_diffusion")
    return flags.parse(parser, argv)


def choose_edition(script):
    """An argparse action: the settings of the chosen edition become the defaults of all other flags."""

    class ChooseEdition(argparse.Action):
        def __call__(self, parser, namespace, edition, option=None):
            if getattr(namespace, "edition", None) in SCRIPTS[script].editions:
                raise argparse.ArgumentError(self, "named twice; name one")
            settings = homework_class(script, edition).defaults
            parser.set_defaults(**{name: value for name, value in settings.items() if name != "device"})
            namespace.edition = edition

    return ChooseEdition


def add_vae_flags(flag, number):
    flag("--train_size", **number(int, 1, 60_000), default=10_000, help="the first N training images; 60,000 is all")
    flag(
        "--refine_encoder",
        **number(int, 0, 100_000),
        default=0,
        help="then train the encoder alone for N epochs, on deformed images",
    )
    flag(
        "--iwae_samples",
        **number(int, 1, 100_000),
        default=100,
        help="samples of the importance-weighted bound",
    )


def add_gan_flags(flag, number):
    flag(
        "--ema_decay",
        **number(float, 0, 0.99999),
        default=0.0,
        help="samples come from an average of G's weights, of which a step keeps this share; 0 for no average",
    )


def add_diffusion_flags(flag, number):
    flag(
        "--ema_decay",
        **number(float, 0, 0.99999),
        default=0.0,
        help="samples follow an average of the weights, of which a step keeps this share; 0 for no average",
    )
