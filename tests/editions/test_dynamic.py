"""Editions dynamic and dynamic-deep: what is tossed, when, and the networks of the published table."""

import argparse

import pytest
import torch
from helpers import SAMPLE
from torch import nn

import hw5_utils as utils
import hw5_vae
from hw5_lab.editions import dynamic, dynamic_deep


def seen_by_the_encoder(vae, x, generator):
    seen = []
    hook = vae.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    vae.terms(x, generator)
    hook.remove()
    return seen[0]


def test_gray_pixels_are_tossed_anew_and_their_mean_is_the_gray_value():
    vae, gray = dynamic.VAE(argparse.Namespace(hidden_units=5)), torch.linspace(0, 1, 784).repeat(500, 1)
    first, second = (seen_by_the_encoder(vae, gray, vae.noise_rng) for _ in range(2))
    for tossed in (first, second):
        assert set(tossed.unique().tolist()) == {0.0, 1.0}
        assert (tossed.mean(0) - gray[0]).abs().max() < 5 * 0.5 / 500**0.5
    assert not torch.equal(first, second)


def test_the_decoder_is_asked_for_the_tosses_that_the_encoder_saw():
    """log p(x|z) is that of the tossed x, not of the gray values."""
    vae, gray = dynamic.VAE(argparse.Namespace(hidden_units=5)), torch.full((50, 784), 0.5)
    x = seen_by_the_encoder(vae, gray, torch.Generator().manual_seed(1))
    log_p_x, kl = vae.terms(gray, torch.Generator().manual_seed(1))
    noise = torch.Generator().manual_seed(1)
    torch.bernoulli(gray, generator=noise)  # the tosses come first
    expected = hw5_vae.VAE.terms(vae, x, noise)
    torch.testing.assert_close((log_p_x, kl), expected)


def test_binary_images_stay_as_they_are():
    vae, x = dynamic.VAE(argparse.Namespace(hidden_units=5)), (torch.rand(20, 784) > 0.5).float()
    assert torch.equal(seen_by_the_encoder(vae, x, vae.noise_rng), x)


def test_training_images_are_gray_and_test_images_are_tossed_once_for_all_seeds():
    splits = [dynamic.VAE(argparse.Namespace(seed=seed)).read_data(SAMPLE) for seed in (1, 2)]
    gray = torch.as_tensor(utils.mnist(SAMPLE)[2]).flatten(1) / 255
    for each in splits:
        assert len(each["train"][0].unique()) > 100 and set(each["test"][0].unique().tolist()) == {0.0, 1.0}
        torch.testing.assert_close(each["train"][0], torch.as_tensor(utils.mnist(SAMPLE)[0]).flatten(1) / 255)
        uncertain = (gray > 0) & (gray < 1)
        assert torch.equal(each["test"][0][~uncertain], gray[~uncertain])
        assert abs((each["test"][0] - gray)[uncertain].mean()) < 0.01
    assert torch.equal(splits[0]["test"][0], splits[1]["test"][0])


@pytest.mark.parametrize("latent", [2, 5])
def test_the_deep_networks_are_the_published_ones(latent):
    """784-256-128-z and back, with ReLU."""
    vae = dynamic_deep.VAE(argparse.Namespace(latent_dimension=latent))
    sizes = [tuple(each.weight.shape) for each in vae.modules() if isinstance(each, nn.Linear)]
    assert sizes == [(256, 784), (128, 256), (latent, 128), (latent, 128), (128, latent), (256, 128), (784, 256)]
    x = torch.rand(3, 784)
    weights = {name: value for name, value in vae.named_parameters()}
    layer = lambda x, name: x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    h = layer(layer(x, "encoder.fc1").clamp(min=0), "encoder.fc2").clamp(min=0)
    torch.testing.assert_close(vae.encoder(x), (layer(h, "encoder.fc3_mu"), layer(h, "encoder.fc3_sigma").exp()))
    z = torch.randn(3, latent)
    h = layer(layer(z, "decoder.fc1").clamp(min=0), "decoder.fc2").clamp(min=0)
    torch.testing.assert_close(vae.decoder(z), 1 / (1 + (-layer(h, "decoder.fc3")).exp()))
