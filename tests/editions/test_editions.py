"""What all editions of the VAE have in common, beside each other: sizes, bounds, data, figures, flags."""

import argparse
import math

import pytest
import torch
from helpers import SAMPLE
from plain import small_vae, train, zero

from hw5_lab import diffusion, gan, vae

LOG2 = math.log(2)
VAES = vae.editions()
editions = pytest.mark.parametrize("kind", VAES.values(), ids=VAES)


@pytest.mark.parametrize(
    "name, latent, hidden, data",
    [("cs446", 2, 500, 784), ("uva", 20, 500, 784), ("ese546", 8, 128, 196), ("hw8", 20, 400, 784)],
)
def test_parameter_shapes(name, latent, hidden, data):
    model = VAES[name](argparse.Namespace())
    weights = {
        "encoder.fc1": (hidden, data),
        "encoder.fc2_mu": (latent, hidden),
        "encoder.fc2_sigma": (latent, hidden),
        "decoder.fc1": (hidden, latent),
        "decoder.fc2": (data, hidden),
    }
    expected = {f"{layer}.weight": shape for layer, shape in weights.items()}
    expected |= {f"{layer}.bias": shape[:1] for layer, shape in weights.items()}
    assert {parameter: tuple(value.shape) for parameter, value in model.named_parameters()} == expected


@pytest.mark.parametrize(
    "name, activation", [("cs446", torch.tanh), ("uva", torch.relu), ("ese546", torch.tanh), ("hw8", torch.relu)]
)
def test_activations(name, activation):
    model = small_vae(VAES[name])
    z, x = torch.randn(5, model.args.latent_dimension), torch.rand(5, model.args.data_dimension)
    h = activation(model.encoder.fc1(x))
    torch.testing.assert_close(model.encoder(x)[0], model.encoder.fc2_mu(h))
    scale = model.encoder.fc2_sigma(h)
    variance = torch.nn.functional.softplus(scale) ** 2 if name == "uva" else scale.exp()
    torch.testing.assert_close(model.encoder(x)[1], variance)
    torch.testing.assert_close(model.decoder.logits(z), model.decoder.fc2(activation(model.decoder.fc1(z))))
    torch.testing.assert_close(model.decoder(z), model.decoder.logits(z).sigmoid())


@editions
def test_zero_network(kind):
    """p = 1/2 for every pixel, whatever x; q(z|x) = p(z) where the head is a log-variance, so that the KL is 0."""
    model = zero(small_vae(kind, limit=50))
    x = model.test_images
    log_p_x, kl = model.bound(x, model.fresh_generator())
    torch.testing.assert_close(log_p_x, torch.full((50,), -x.shape[1] * LOG2))
    variance = LOG2**2 if kind.edition == "uva" else 1.0  # softplus(0) = log 2
    expected = model.args.latent_dimension / 2 * (variance - 1 - math.log(variance))
    assert kl.mean().item() == pytest.approx(expected, abs=1e-5)


@editions
def test_both_estimators_agree_in_the_mean(kind):
    """Eq. 1 and Eq. 2 on a fixed model, 4,000 draws for one image."""
    model = small_vae(kind, limit=20)
    x = model.test_images[:1].expand(4000, -1)
    log_p_x, kl = model.bound(x, model.fresh_generator())
    log_p_x_2, kl_2 = vae.LabVAE.bound(model, x, model.fresh_generator().manual_seed(77))
    exact = 0.5 * sum(part.sum(1) for part in (lambda mu, s: (s, mu**2, -1 - s.log()))(*model.encoder(x[:1])))
    for value in (log_p_x - kl, log_p_x_2 - kl_2):
        expected = torch.cat([log_p_x, log_p_x_2]).mean() - exact
        assert (value.mean() - expected).abs() < 5 * (value.std() + log_p_x.std()) / math.sqrt(4000)
    assert (kl_2.std() > 0.01) and (kl.std() > 0.01) == (kind.edition == "cs446"), "Eq. 1 has the exact KL, Eq. 2 draws"


def test_images_of_every_edition(capsys):
    """The sample has 4,000 training images, 400 of each digit, and 1,000 test images."""
    sizes = {name: len(kind(argparse.Namespace(data_dir=SAMPLE)).train_images) for name, kind in VAES.items()}
    assert sizes == {"cs446": 4000, "uva": 3334, "ese546": 4000, "hw8": 4000}
    assert capsys.readouterr().err.count("\n") == 1, "fewer images per digit than asked: one line"


@pytest.mark.parametrize("name, epochs", [("uva", {0, 2, 4}), ("hw8", {1, 2, 3, 4}), ("ese546", {4}), ("cs446", set())])
def test_samples_at_the_epochs_that_the_edition_asks_for(name, epochs, tmp_path):
    model = small_vae(VAES[name], limit=40, num_epoches=4)
    model.folder = tmp_path
    train(model)
    assert {path.name for path in tmp_path.glob("samples*")} == {f"samples_epoch_{epoch}.png" for epoch in epochs}


@pytest.mark.parametrize("name", ["uva", "ese546", "hw8"])
def test_every_edition_learns_draws_and_is_measured(name, tmp_path):
    model = small_vae(VAES[name], limit=300, num_epoches=3)
    model.folder = tmp_path
    history = train(model)
    split = "validation" if name == "uva" else "test"
    assert model.columns[4] == f"{split}_elbo" and history[-1][f"{split}_elbo"] > history[0][f"{split}_elbo"]
    model.visualize()
    metrics = model.measure()
    expected = (model.evaluate(model.test_images, "test")[name] for name in ("test_elbo", "test_kl"))
    assert (metrics["test_elbo"], metrics["test_kl"]) == tuple(expected) and len(model.summary(metrics)) == 3


def test_flags_override_the_edition():
    args = vae.parse_args(["--edition", "uva", "--latent_dimension", "2"])
    assert (args.latent_dimension, args.num_epoches, args.batch_size, args.lr) == (2, 40, 128, 1e-3)
    args = vae.parse_args(["--epochs", "3", "--edition=hw8"])
    assert (args.num_epoches, args.hidden_units, args.train_size) == (3, 400, 60_000)
    args = gan.parse_args(["--edition", "uva", "--epochs", "7"])
    assert (args.n_epochs, args.zdim, args.batch_size, args.lr) == (7, 100, 64, 2e-4)
    args = gan.parse_args(["--edition", "cs446-tuned", "--batch_size", "32"])
    assert (args.n_epochs, args.zdim, args.batch_size, args.lr) == (50, 64, 32, 1e-3)
    args = diffusion.parse_args(["--edition", "s24", "--word", "AB"])
    assert (args.n_epochs, args.word, args.batch_size, args.lr) == (110, "AB", 400, 4e-3)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("cs446", (200, 100, 10_000)),
        ("uva", (40, 128, 50_000)),
        ("ese546", (50, 32, 10_000)),
        ("hw8", (30, 128, 60_000)),
    ],
)
def test_default_settings(name, settings):
    args = VAES[name](argparse.Namespace()).args
    assert (args.num_epoches, args.batch_size, args.train_size, args.lr) == (*settings, 1e-3)
