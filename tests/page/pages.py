"""Models and pages of all kinds, small and quickly made, for the tests of explore.html."""

import io
import math
from functools import cache

from PIL import Image
from helpers import SAMPLE

from hw5_lab import diffusion as lab_diffusion
from hw5_lab import gan as lab_gan
from hw5_lab import vae as lab_vae
from hw5_lab.page import explore
from hw5_lab.page.describe import DESCRIBE


@cache
def make_vae(edition="cs446", latent=2, epochs=3):
    """A VAE of the edition's size, trained for some epochs on the sample."""
    flags = "--edition", edition, "--latent_dimension", latent, "--epochs", epochs, "--data_dir", SAMPLE
    model = lab_vae.build(lab_vae.parse_args([*map(str, flags)]))
    for epoch in range(epochs):
        model.run_epoch(epoch, lambda: None)
    if latent == 2:
        log_p_x, kl = model.bounds(model.test_images)
        exact, _, _ = model.log_likelihood_exact(model.test_images, 60)  # as measure() does, but coarser
        model.gap = exact - log_p_x + kl
    return model


@cache
def make_gan(edition="cs446", steps=12):
    """A GAN of the edition's size after some steps, with two earlier generators and a best one."""
    model = lab_gan.build(lab_gan.parse_args(["--edition", edition, "--data_dir", str(SAMPLE)]))
    model.record["history"] = [{}] * 3
    for epoch in (1, 2, 3):
        for step in range(steps):
            real = model.scale(model.train_images[32 * step : 32 * step + 32])
            model.step(real, model.draw_z(32, model.noise))
        model.record["snapshots"].append((epoch, lab_gan.weights_of(model.gen)))
    model.record["best"] = {"epoch": 2, "gen": model.record["snapshots"][1][1]}
    return model


@cache
def make_diffusion(edition="cs446"):
    """A score network of the edition's size after 60 steps."""
    model = lab_diffusion.build(lab_diffusion.parse_args(["--edition", edition]))
    model.done = 0
    for _ in range(60):
        model.step()
    return model


MODELS = {
    "vae": make_vae,
    "line": lambda: make_vae("cs446", 1, 1),
    "vae20": lambda: make_vae("uva", 20, 1),
    "halved": lambda: make_vae("ese546", 8, 3),
    "gray": lambda: make_vae("hw8", 20, 1),
    "deviation": lambda: make_vae("uva", 2, 1),
    "gan": make_gan,
    "dense": lambda: make_gan("uva"),
    "diffusion": make_diffusion,
    "s24": lambda: make_diffusion("s24"),
}
KINDS = {"dense": "gan", "gan": "gan", "s24": "diffusion", "diffusion": "diffusion"}  # of all others: "vae"
LARGEST = {"vae": 3e6, "gan": 3.5e6, "diffusion": 0.8e6}  # bytes of a page


def kind_of(name):
    return KINDS.get(name, "vae")


@cache
def describe(name):
    """What describe.py says of a model; its arrays are not packed."""
    return DESCRIBE[kind_of(name)](MODELS[name]())


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
        "history": history,
        "metrics": {"test_elbo": -150.25, "device": "cpu", "bad": math.nan, "cosine_0.1": 0.5, **shares},
        "figures": [("samples.png", a_figure())],
        **more,
    }


def page_of(name, **run):
    """The text of a model's page."""
    return explore.page(kind_of(name), packed(name), a_run(**run))
