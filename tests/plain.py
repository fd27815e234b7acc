"""What several test files share: networks and steps as plain as can be, small models, a run without files."""

import argparse
from functools import cache

import torch
from helpers import SAMPLE
from torch import nn

import hw5_utils as utils
from hw5_diffusion import draw_word
from hw5_lab.diffusion import LabScoreMatching, optimal_score
from hw5_lab.gan import LabGAN
from hw5_lab.vae import LabVAE


def zero(network):
    """The network with all its weights at 0."""
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    return network


def assert_same_weights(ours, theirs, tolerance=0.0):
    """The same weights in the same order; with a tolerance, up to rounding."""
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


def train(model):
    """What hw5_lab.run.train does, without files. Returns the history."""
    model.get_ready()
    model.before_first_epoch()
    history = model.record["history"]
    for epoch in range(model.epochs):
        row = model.run_epoch(epoch, lambda: None)
        history.append({"epoch": epoch + 1, **row, "seconds": 0.0})
        model.after_epoch(epoch + 1)
    return history


# ---- VAE


@cache
def sample():
    """The sample's rounded images and labels: 4,000 for training and 1,000 for testing."""
    return utils.load_mnist(SAMPLE)[1:]


def small_vae(kind=LabVAE, **settings):
    """A VAE of the laboratory on the sample, with few hidden units."""
    return kind(argparse.Namespace(**{"hidden_units": 8, "data_dir": SAMPLE, **settings}))


# ---- GAN


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


def small_gan(kind=LabGAN, folder=None, **settings):
    """A GAN of the laboratory on 96 images of the sample, for 2 epochs of 3 steps."""
    gan = kind(
        argparse.Namespace(
            **{
                "zdim": 64,
                "seed": 2,
                "n_epochs": 2,
                "iter_d": 1,
                "iter_g": 1,
                "batch_size": 32,
                "lr": 2e-4,
                "limit": 96,
                "data_dir": SAMPLE,
                "device": "cpu",
                **settings,
            }
        )
    )
    gan.folder = folder
    return gan


# ---- diffusion


def small_model(kind=LabScoreMatching, **settings):
    """Score matching of the laboratory with these settings, and the defaults of its edition."""
    return kind(argparse.Namespace(**settings))


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
