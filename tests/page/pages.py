"""Models and pages of all kinds, small and quickly made, for the tests of explore.html."""

import io
import math
from functools import cache

import pytest
from PIL import Image
from helpers import SAMPLE
from torch import nn

import hw5_diffusion
import hw5_gan
from hw5_lab import door
from hw5_lab.measures.likelihood import log_likelihood_exact
from hw5_lab.page import explore
from hw5_lab.page.describe import DESCRIBE


class Made:
    """An experiment and what was found of it; its attributes are those of the experiment, then of its homework."""

    def __init__(self, experiment, findings=None):
        self.experiment, self.findings = experiment, findings or {}

    def __getattr__(self, name):
        if name in ("experiment", "findings") or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.experiment if hasattr(self.experiment, name) else self.experiment.homework, name)


def build(script, *flags):
    return door.build(script, door.parse_args(script, ["--device", "cpu", *map(str, flags)]))


class NarrowGenerator(hw5_gan.GNet):
    """The homework's with a quarter of its channels."""

    def __init__(self, zdim):
        super().__init__(zdim)
        self.conv1, self.conv2 = nn.Conv2d(32, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.conv3 = nn.Conv2d(2, 1, 3, padding=1)
        self._weight_init()


class NarrowNetwork(hw5_diffusion.DiffusionModel):
    """The homework's with a quarter of its units."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(26, 50), nn.Linear(50, 100)
        self.fc3, self.fc4 = nn.Linear(100, 50), nn.Linear(50, 2)


@cache
def make_vae(edition="cs446", latent=2, epochs=3, hidden=100):
    """A VAE, trained for some epochs on the sample."""
    flags = "--edition", edition, "--latent_dimension", latent, "--epochs", epochs, "--data_dir", SAMPLE
    experiment = build("hw5_vae", *flags, "--hidden_units", hidden)
    list(experiment.rows(0))
    if latent != 2:
        return Made(experiment)
    log_p_x, kl = experiment.homework.evaluate(experiment.test_images)
    exact, _, _ = log_likelihood_exact(experiment.homework, experiment.test_images, 60)  # coarser than measure()
    return Made(experiment, {"gap": exact - log_p_x + kl})


@cache
def make_gan(edition="cs446", steps=12, generator=NarrowGenerator):
    """A GAN after some steps, with two earlier generators and a best one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hw5_gan.GAN, "GNet", generator)
        experiment = build("hw5_gan", "--edition", edition, "--data_dir", SAMPLE)
    gan, record = experiment.homework, experiment.record
    record["history"] = [{}] * 3
    for epoch in (1, 2, 3):
        for step in range(steps):
            real = gan.scale(gan.train_images[32 * step : 32 * step + 32])
            gan.step(real, gan.draw_z(32, gan.noise_rng))
        record["snapshots"].append((epoch, experiment.sampler_weights()))
    record["best"] = {"epoch": 2, "gen": record["snapshots"][1][1]}
    return Made(experiment)


@cache
def make_diffusion(edition="cs446", network=NarrowNetwork):
    """A score network after 60 steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hw5_diffusion.ScoreMatching, "Network", network)
        experiment = build("hw5_diffusion", "--edition", edition)
    for _ in range(60):
        experiment.homework.step()
    return Made(experiment)


MODELS = {  # pages of narrow networks open sooner; the wide ones are the homework's
    "vae": make_vae,
    "wide vae": lambda: make_vae(hidden=500),
    "line": lambda: make_vae("cs446", 1, 1),
    "vae20": lambda: make_vae("uva", 20, 1),
    "halved": lambda: make_vae("ese546", 8, 3),
    "gray": lambda: make_vae("hw8", 20, 1),
    "deviation": lambda: make_vae("uva", 2, 1),
    "gan": make_gan,
    "wide gan": lambda: make_gan(generator=hw5_gan.GNet),
    "dense": lambda: make_gan("uva"),
    "diffusion": make_diffusion,
    "wide diffusion": lambda: make_diffusion(network=hw5_diffusion.DiffusionModel),
    "s24": lambda: make_diffusion("s24"),
}
KINDS = {"dense": "gan", "s24": "diffusion"}  # of all others it is their name's last word, or "vae"
LARGEST = {"vae": 3e6, "gan": 3.5e6, "diffusion": 0.8e6}  # bytes of a page


def kind_of(name):
    word = name.split()[-1]
    return KINDS.get(word, word if word in LARGEST else "vae")


@cache
def describe(name):
    """What describe.py says of a model; its arrays are not packed."""
    made = MODELS[name]()
    return DESCRIBE[kind_of(name)](made.experiment, made.findings)


def packed(name):
    return {**describe(name), "model": explore.pack(describe(name)["model"])}


def a_figure():
    """A PNG of a hundred pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (10, 10), "red").save(buffer, "PNG")
    return buffer.getvalue()


def a_run(title="A run", command="python hw5.py", epochs=5, **more):
    history = [
        {
            "epoch": epoch,
            "train_elbo": -200 + 10 * epoch,
            "test_elbo": -201 + 10 * epoch,
            "train_kl": -0.0844 + epoch / 10,
            "loss_d": 0.7,
            "loss_g": 0.7 + epoch / 10,
            "loss": 1 / epoch,
            "score_error": 0.1,
            "seconds": 1.5,
        }
        for epoch in range(1, epochs + 1)
    ]
    shares = {f"share_{digit}": 0.02 if digit == 4 else 0.98 / 9 for digit in range(10)}
    return {
        "title": title,
        "command": command,
        "seed": 1234,
        "digits": True,
        "history": history,
        "metrics": {"test_elbo": -150.25, "device": "cpu", "bad": math.nan, "cosine_0.1": 0.5, **shares},
        "figures": [("samples.png", a_figure())],
        **more,
    }


def page_of(name, **run):
    """The text of a model's page."""
    return explore.page(kind_of(name), packed(name), a_run(**run))
