"""hw5_lab/editions/hw8: reparameterisation, the exact KL, gray images, the bound of 1(a)."""

import argparse
import math

import numpy as np
import pytest
import torch
from helpers import SAMPLE
from plain import assert_same_weights, figures_of, small_vae
from torch import distributions as D

import hw5_utils as utils
import hw5_vae
from hw5_lab.editions import hw8


def test_reparameterize_takes_a_log_variance():
    mu, logvar = torch.tensor([1.0, -2.0]).expand(50_000, 2), torch.tensor([0.0, 1.5]).expand(50_000, 2)
    z = hw8.reparameterize(mu, logvar)
    torch.testing.assert_close(z.mean(0), mu[0], atol=0.03, rtol=0)
    torch.testing.assert_close(z.var(0), logvar[0].exp(), rtol=0.03, atol=0)
    assert torch.corrcoef(z.T)[0, 1].abs() < 0.02, "independent noise for every element"


@pytest.mark.parametrize("logvar", [-120.0, 0.0, 100.0])
def test_reparameterize_is_finite_where_the_variance_is_not(logvar):
    """The standard deviation exp(logvar / 2) is a float32 number also where exp(logvar) is 0 or infinite."""
    logvar = torch.full((3,), logvar, requires_grad=True)
    torch.manual_seed(1)
    z = hw8.reparameterize(torch.zeros(3), logvar)
    torch.manual_seed(1)
    torch.testing.assert_close(z.double(), (logvar.double() / 2).exp() * torch.randn(3), rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(z.sum(), logvar)
    torch.testing.assert_close(gradient, z.detach() / 2)


def test_kl_divergence_against_torch():
    mu, variance = torch.randn(6, 4), torch.rand(6, 4) + 0.1
    expected = D.kl_divergence(D.Normal(mu, variance.sqrt()), D.Normal(torch.zeros(4), torch.ones(4))).sum(1)
    torch.testing.assert_close(hw8.kl_divergence(mu, variance), expected)
    assert hw8.kl_divergence(mu[:0], variance[:0]).shape == (0,)
    assert hw8.reparameterize(mu[:0], variance[:0]).shape == (0, 4)


def test_reparameterize_is_also_a_method():
    """As a notebook of the homework asks for it; gradients reach both arguments."""
    vae = hw8.VAE(argparse.Namespace(hidden_units=8))
    mu, logvar = torch.zeros(3, 4, requires_grad=True), torch.full((3, 4), 0.5, requires_grad=True)
    torch.manual_seed(1)
    z = vae.reparameterize(mu, logvar)
    torch.manual_seed(1)
    torch.testing.assert_close(z, math.exp(0.25) * torch.randn(3, 4))
    z.sum().backward()
    torch.testing.assert_close(mu.grad, torch.ones(3, 4))
    torch.testing.assert_close(logvar.grad, z.detach() / 2)
    assert hw8.VAE.reparameterize is hw8.reparameterize


def test_the_sheet_of_samples():
    vae = hw8.VAE(argparse.Namespace(hidden_units=8))
    figures_of(vae)
    grid, z = vae.visualize_samples(1), torch.randn(64, 20, generator=vae.fresh_rng())
    with torch.no_grad():
        p = vae.decoder(z).view(64, 28, 28)
    for number in (0, 7, 8, 63):
        row, column = number % 8, number // 8
        np.testing.assert_allclose(grid[31 * row :][:28, 31 * column :][:, :28], p[number], atol=1e-6)


def test_gray_images_stay_as_they_are():
    images = torch.zeros(2, 28, 28, dtype=torch.uint8)
    images[0, 0, :3] = torch.tensor([128, 255, 3])
    vae, arrays = hw8.VAE(argparse.Namespace(hidden_units=8)), utils.mnist(SAMPLE)
    gray = vae.prepare(images)
    assert gray.shape == (2, 784) and gray[0, :4].tolist() == pytest.approx([128 / 255, 1, 3 / 255, 0])
    splits = vae.read_data(data_dir=SAMPLE)
    np.testing.assert_allclose(splits["train"][0], arrays[0].reshape(4000, 784) / 255, rtol=1e-6)
    assert torch.equal(splits["test"][1].argmax(1), torch.from_numpy(arrays[3]).long())


def test_training_is_default_adam_on_the_exact_kl():
    """Two epochs of ten steps in double precision, on the bound with the exact KL, at a constant rate."""
    vae, plain = (small_vae("hw8", limit=100, batch_size=10, num_epoches=2).homework.double() for _ in range(2))
    images = vae.train_images = vae.train_images.double()
    optimizer = torch.optim.Adam(plain.parameters())
    shuffle, noise = torch.Generator().manual_seed(1234), torch.Generator().manual_seed(1234)
    for _ in range(2):
        for indices in torch.randperm(100, generator=shuffle).split(10):
            x = images[indices]
            mu, sigma_square = plain.encoder(x)
            z = mu + sigma_square.sqrt() * torch.randn(mu.shape, generator=noise, dtype=torch.double)
            kl = D.kl_divergence(D.Normal(mu, sigma_square.sqrt()), D.Normal(0.0 * mu, 1.0 + 0 * mu)).sum(1)
            loss = (kl - hw5_vae.logpdf_bernoulli(x, plain.decoder(z))).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for _ in vae.epochs():
        pass
    assert_same_weights(vae, plain, 1e-9)


def test_a_gray_pixel_costs_its_cross_entropy():
    """x log p + (1-x) log(1-p), which is not a density: at p = x it is the negative entropy, its largest value."""
    x, p = torch.tensor([[0.3]]), torch.tensor([0.2, 0.3, 0.4])
    values = hw5_vae.logpdf_bernoulli(x, p[:, None])
    assert values.argmax() == 1 and values[1].item() == pytest.approx(0.3 * math.log(0.3) + 0.7 * math.log(0.7))
