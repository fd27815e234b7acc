"""What several test files share: networks and steps as plain as can be, small experiments, a run without files."""

import argparse
import atexit
import io
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch
from helpers import SAMPLE, idx_bytes
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import hw5_utils as utils
from hw5_diffusion import draw_word
from hw5_lab import door
from hw5_lab.measures.images import Evaluator
from hw5_lab.measures.scores import optimal_score


def zero(network):
    """The network with all its weights at 0."""
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    return network


def assert_same_weights(ours, theirs, tolerance=0.0):
    """The same weights in the same order; with a tolerance, up to rounding."""
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


def settings_of(script, edition="cs446", **given):
    """The settings of a command that names this edition, on a CPU, with others in their place."""
    args = door.parse_args(script, ["--edition", edition, "--device", "cpu"])
    return argparse.Namespace(**{**vars(args), **given})


def figures_of(owner):
    """{name: figure} of what a homework or an experiment saves from now on; nothing is written."""
    saved = {}
    owner.save = lambda figure, name: saved.update({name: figure})
    return saved


def curves(axes):
    """{label: values} of the lines of a panel."""
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def without_drawing(monkeypatch):
    """Figures are made and saved, but of one pixel only: drawing takes longer than what is tested."""
    png = io.BytesIO()
    Image.new("L", (1, 1)).save(png, "PNG")

    def savefig(figure, file, **_):
        if hasattr(file, "write"):
            file.write(png.getvalue())
        else:
            Path(file).write_bytes(png.getvalue())

    monkeypatch.setattr(Figure, "savefig", savefig)


def train(experiment):
    """What Run.train of hw5_lab/runs/run.py does, without files. Returns the history."""
    experiment.get_ready()
    experiment.after_epoch(0)
    history = experiment.record["history"]
    for row in experiment.rows(0):
        history.append({**row, "seconds": 0.0})
        experiment.after_epoch(len(history))
    return history


# ---- VAE


@cache
def sample():
    """The sample's rounded images and labels: 4,000 for training and 1,000 for testing."""
    return utils.load_mnist(SAMPLE)[1:]


@cache
def thousand():
    """A folder of the first 1,000 training and test images of the sample, which are read in no time."""
    folder = Path(tempfile.mkdtemp(prefix="hw5-thousand-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for path in SAMPLE.glob("*.gz"):
        (folder / path.stem).write_bytes(idx_bytes(utils.read_idx(path)[:1000]))
    return folder


def small_vae(edition="cs446", limit=None, **settings):
    """An edition's VAE in the laboratory, with few hidden units, on the sample or, at most, 1,000 images of it."""
    small = {"hidden_units": 8, "limit": limit, "data_dir": thousand() if limit else SAMPLE}
    return door.build("hw5_vae", settings_of("hw5_vae", edition, **{**small, **settings}))


# ---- GAN


class BrightIsFake(nn.Module):
    """Logits 2 for images whose mean is below a limit, as that of the training images is, and -2 for others."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def forward(self, x):
        return torch.where(x.flatten(1).mean(1, keepdim=True) < self.limit, 2.0, -2.0).requires_grad_()


def plain_networks(zdim=64):
    """Both networks as Sequentials in the order of the homework's tables, initialised as the homework says."""
    torch.manual_seed(2)
    networks = []
    for layers in (
        lambda: [
            nn.Conv2d(1, 2, 3, 1, 1),
            nn.ReLU(),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(2, 4, 3, 1, 1),
            nn.ReLU(),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(4, 8, 3, 1, 0),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(200, 1),
        ],
        lambda: [
            nn.Linear(zdim, 1568),
            nn.LeakyReLU(0.2),
            nn.Unflatten(1, (32, 7, 7)),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(32, 16, 3, 1, 1),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 8, 3, 1, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8, 1, 3, 1, 1),
            nn.Sigmoid(),
        ],
    ):
        network = nn.Sequential(*layers())
        for layer in network:
            if hasattr(layer, "weight"):
                nn.init.kaiming_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        networks.append(network)
    return networks


def plain_step(networks, optimizers, x, z, iter_d=1, iter_g=1):
    """One minibatch as the homework describes it, with every loss computed afresh."""
    (disc, gen), (optimizer_d, optimizer_g), bce = networks, optimizers, nn.BCEWithLogitsLoss()
    ones, zeros = torch.ones(len(x), 1, dtype=x.dtype), torch.zeros(len(x), 1, dtype=x.dtype)
    for _ in range(iter_d):
        loss = 0.5 * bce(disc(x), ones) + 0.5 * bce(disc(gen(z).detach()), zeros)
        optimizer_d.zero_grad()
        loss.backward()
        optimizer_d.step()
    for _ in range(iter_g):
        loss = bce(disc(gen(z)), ones)
        optimizer_g.zero_grad()
        loss.backward()
        optimizer_g.step()


def small_gan(edition="cs446", folder=None, limit=96, **settings):
    """An edition's GAN in the laboratory, on 96 images of the sample, for 2 epochs of 3 steps."""
    small = {"n_epochs": 2, "batch_size": 32, "limit": limit, "data_dir": thousand() if limit else SAMPLE}
    experiment = door.build("hw5_gan", settings_of("hw5_gan", edition, **{**small, **settings}))
    experiment.folder = folder
    return experiment


@cache
def judge():
    """An evaluator that has learned the digits of the sample, and in how many steps."""
    images, digits = map(torch.from_numpy, utils.mnist(SAMPLE)[:2])
    evaluator = Evaluator(images.unsqueeze(1), digits.long())
    return evaluator, evaluator.fit()


# ---- diffusion


def small_diffusion(edition="cs446", **settings):
    """An edition's score matching in the laboratory."""
    return door.build("hw5_diffusion", settings_of("hw5_diffusion", edition, **settings))


def word(text, count=2000, seed=0, height=(1.0, 1.0), width=6.0, centre=0.0):
    """Points that spell `text`, and their letters, by default on the canvas of edition s24."""
    return draw_word(text, count, torch.Generator().manual_seed(seed), height, width, centre)


class Optimal(nn.Module):
    """The best possible score of `points` in the place of a network."""

    def __init__(self, points):
        super().__init__()
        self.points = nn.Parameter(points)

    def forward(self, x, sigma):
        return optimal_score(x, self.points, sigma)[0]
