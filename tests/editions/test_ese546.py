"""hw5_lab/editions/ese546: halved images, so many of each digit, two draws of z, curves over the updates."""

import argparse
import math

import numpy as np
import pytest
import torch
from helpers import SAMPLE
from plain import small_vae, train

import hw5_vae
from hw5_lab.checkpoint import Difference
from hw5_lab.editions import ese546
from hw5_lab.editions.ese546 import VAE


def test_images_are_halved_by_hand():
    images = torch.zeros(2, 28, 28, dtype=torch.uint8)
    images[0, :2, :4] = torch.tensor([[128, 128, 255, 255], [128, 128, 3, 0]])  # means 128 and 128.25
    images[1, 2:4, :2] = 200
    halved = ese546.halve(images)
    assert halved.shape == (2, 196) and halved[0, :3].tolist() == [0, 1, 0], "1 where the mean of four exceeds 128"
    assert halved[1].nonzero().flatten().tolist() == [14], "row by row"


def test_first_of_each_digit(capsys):
    digits = torch.tensor([3, 1, 3, 3, 0, 1, *range(10)])
    images = torch.arange(16.0)[:, None]
    chosen, labels = ese546.first_of_each_digit(images, torch.eye(10)[digits], 1)
    assert chosen.flatten().tolist() == [0, 1, 4, 8, 10, 11, 12, 13, 14, 15] and capsys.readouterr().err == ""
    assert labels.argmax(1).tolist() == digits[chosen.flatten().long()].tolist()
    chosen, _ = ese546.first_of_each_digit(images, torch.eye(10)[digits], 2)
    expected = "1 images of some digits where 2 were asked for: using all there are.\n"
    assert len(chosen) == 13 and capsys.readouterr().err == expected


def test_training_images_are_as_many_of_each_digit():
    vae = VAE(argparse.Namespace(train_size=200, data_dir=SAMPLE))
    assert vae.train_labels.sum(0).tolist() == [20] * 10 and vae.train_images.shape == (200, 196)
    assert set(vae.train_images.unique().tolist()) == {0.0, 1.0} and vae.test_images.shape == (1000, 196)


def test_two_draws_average_likelihoods_not_z():
    vae = small_vae(VAE, latent_dimension=2, hidden_units=30, limit=20)
    vae.decoder.fc1.weight.data *= 5  # far from linear, so that the order matters
    x = vae.test_images
    log_p_x, _ = vae.bound(x, vae.fresh_generator())
    mu, variance = vae.encoder(x)
    noise = vae.fresh_generator()
    z = [hw5_vae.sample_diagonal_gaussian(mu, variance, noise) for _ in range(2)]
    each = [hw5_vae.logpdf_bernoulli(x, vae.decoder(one)) for one in z]
    torch.testing.assert_close(log_p_x, (each[0] + each[1]) / 2, rtol=1e-4, atol=1e-3)
    mean_z = hw5_vae.logpdf_bernoulli(x, vae.decoder((z[0] + z[1]) / 2))
    assert (log_p_x - mean_z).abs().max() > 0.1, "else this test shows nothing"


def test_small_images_are_shown_at_twice_their_size(tmp_path):
    vae = small_vae(VAE, limit=100)
    vae.folder = tmp_path
    grid = vae.visualize_reconstructions()
    assert grid.shape == (8 * 28 + 7 * 3, 2 * 28 + 3)
    np.testing.assert_array_equal(grid[31:59:2, :28:2], vae.test_images[1].view(14, 14))
    np.testing.assert_array_equal(grid[31:59:2, :28:2], grid[32:59:2, 1:28:2])
    with torch.no_grad():
        reconstruction = vae.decoder(vae.encoder(vae.test_images[1:2])[0]).view(14, 14)
    np.testing.assert_allclose(grid[31:59:2, 31::2], reconstruction, rtol=1e-6, err_msg="each beside its image")


def test_curves_over_updates(tmp_path):
    vae = small_vae(VAE, limit=1000, num_epoches=4)  # 32 updates an epoch
    vae.folder = tmp_path
    history = train(vae)
    updates, checks = vae.record["updates"], vae.record["checks"]
    assert len(updates) == 128 and [update for update, _ in checks] == [100]
    weights = [32] * 31 + [8]
    for column, part in enumerate(("reconstruction", "kl")):
        mean = sum(weight * update[column] for weight, update in zip(weights, updates)) / 1000
        assert mean == pytest.approx(history[0][f"train_{part}"], rel=1e-4)
    assert -196 * math.log(2) < checks[0][1] < 0, "log-likelihood, with its true sign"
    assert vae.visualize_updates() is updates
    vae.check_record(vae.record)
    for name, value in {"updates": updates + [updates[0]], "checks": [(100, math.nan)]}.items():
        with pytest.raises(Difference):
            vae.check_record({**vae.record, name: value})


def test_the_check_is_of_a_hundred_held_out_images(monkeypatch):
    monkeypatch.setattr(ese546, "CHECK_EVERY", 2)
    vae, seen = small_vae(VAE, limit=150, batch_size=50, num_epoches=1), []
    bounds = vae.bounds
    vae.bounds = lambda images: seen.append(images) or bounds(images)
    vae.train_epoch(0)
    assert len(seen) == 1 and torch.equal(seen[0], vae.test_images[:100])


def test_checking_does_not_change_the_training(monkeypatch):
    weights = []
    for every in (1, 1000):
        monkeypatch.setattr(ese546, "CHECK_EVERY", every)
        torch.manual_seed(1)
        vae = small_vae(VAE, limit=150, num_epoches=1)
        vae.train_epoch(0)
        weights.append(torch.cat([value.flatten() for value in vae.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("settings", [dict(limit=1), dict(limit=30, latent_dimension=1)])
def test_figures_of_odd_sizes(settings, tmp_path):
    vae = small_vae(VAE, num_epoches=1, **settings)
    vae.folder = tmp_path
    vae.visualize()  # before any update
    train(vae)
    vae.visualize()
    assert {path.stem for path in tmp_path.iterdir()} == {"updates", "reconstructions", "samples_epoch_1"}
