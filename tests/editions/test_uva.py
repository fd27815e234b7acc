"""hw5_lab/editions/uva_vae and uva_gan: drawn pixels, validation, the manifold; a dense GAN, where G learns first."""

import argparse
import copy
import math

import numpy as np
import pytest
import torch
from helpers import SAMPLE
from plain import BrightIsFake, assert_same_weights, figures_of, small_gan, small_vae, train, without_drawing, zero
from torch import distributions as D
from torch import nn

from hw5_lab.editions import uva_gan, uva_vae
from hw5_lab.measures.images import in_unit
from hw5_lab.runs.checkpoint import restore, snapshot

# ---- VAE


def test_a_scale_that_is_a_deviation_stays_positive():
    encoder = zero(uva_vae.Encoder(2, 3, 4))
    encoder.fc2_sigma.bias.data = torch.tensor([-3.0, 2.0])
    _, variance = encoder(torch.rand(5, 4))
    torch.testing.assert_close(variance, nn.functional.softplus(torch.tensor([-3.0, 2.0])).square().expand(5, 2))


def test_the_kl_of_equal_distributions_is_0_for_a_deviation_of_1():
    encoder = zero(uva_vae.Encoder(2, 3, 4))
    nn.init.constant_(encoder.fc2_sigma.bias, math.log(math.e - 1))  # softplus of it is 1
    torch.testing.assert_close(encoder(torch.rand(1, 4))[1], torch.ones(1, 2))


def plain_vae(**settings):
    return uva_vae.VAE(argparse.Namespace(hidden_units=8, **settings))


def test_drawn_pixels_are_drawn_once_for_all():
    images = torch.full((200, 28, 28), 51, dtype=torch.uint8)
    prepare = plain_vae().prepare
    torch.manual_seed(1)
    first = prepare(images)
    torch.manual_seed(2)
    assert torch.equal(first, prepare(images))
    assert set(first.unique().tolist()) == {0.0, 1.0} and first.mean().item() == pytest.approx(51 / 255, abs=0.005)
    assert (first[0] != first[1]).any()
    same = [plain_vae(seed=seed).read_data(data_dir=SAMPLE)["train"][0] for seed in (1, 2)]
    assert torch.equal(*same), "one draw, whatever the seed of the run"


def test_validation_images_never_train():
    weights = []
    for spoiled in (False, True):
        experiment = small_vae("uva", num_epoches=1, train_size=10**6)
        vae = experiment.homework
        assert len(vae.held_out_images) == 666 and len(vae.train_images) == 3334
        if spoiled:
            vae.held_out_images.fill_(0.5)
        history = train(experiment)
        weights.append([value.clone() for value in vae.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights))
    assert "validation_elbo" in history[0] and "test_elbo" not in history[0], "no epoch looks at the test images"


def test_no_image_is_in_two_splits():
    splits = plain_vae().read_data(data_dir=SAMPLE)
    assert set(splits) == {"train", "validation", "test"}
    images = torch.cat([parts[0] for parts in splits.values()])
    assert len(images) == 5000 == len(images.unique(dim=0))


def test_too_few_images_for_validation_are_refused(monkeypatch):
    arrays = torch.zeros(5, 28, 28, dtype=torch.uint8), torch.arange(5)
    monkeypatch.setattr("hw5_utils.mnist", lambda folder: (*arrays, *arrays))
    with pytest.raises(ValueError, match="5 training images leave none for validation; edition uva needs 6"):
        plain_vae().train_images


def test_manifold_has_no_infinite_border_and_the_right_order():
    vae, saved = plain_vae(latent_dimension=2), []
    vae.save = lambda figure, name: saved.append(name)
    grid = vae.visualize_manifold()
    assert grid.shape == (617, 617) and np.isfinite(grid).all() and saved == ["manifold.png"]
    quantile = lambda u: D.Normal(0, 1).icdf(torch.tensor(u)).item()
    with torch.no_grad():
        for row, column in ((0, 0), (19, 0), (4, 11)):
            z = torch.tensor([[quantile((column + 0.5) / 20), quantile((19 - row + 0.5) / 20)]])
            cell = grid[31 * row :][:28, 31 * column :][:, :28]
            np.testing.assert_allclose(cell, vae.decoder(z).view(28, 28), atol=1e-5)
    assert plain_vae().visualize_manifold() is None, "only a plane of latents can be shown"


def test_the_sheet_of_samples():
    """8x8 means from the prior, a blank column, a sample of each; column by column."""
    vae = plain_vae()
    figures_of(vae)
    grid, generator = vae.visualize_samples(3), vae.fresh_rng()
    z = torch.randn(64, 20, generator=generator)
    with torch.no_grad():
        p = vae.decoder(z)
    x = torch.bernoulli(p, generator=generator)
    assert grid.shape == (245, 524)
    for number in range(64):
        row, column = number % 8, number // 8
        for images, left in ((p, 0), (x, 9)):
            cell = grid[31 * row :][:28, 31 * (column + left) :][:, :28]
            np.testing.assert_allclose(cell, images[number].view(28, 28), atol=1e-6)
    assert not grid[:, 245:279].any()


# ---- GAN


def test_which_probability_is_that_of_real_images():
    _, gan = dense_gan(lr=1e-9)
    gan.disc = BrightIsFake(-0.4)
    row = next(gan.epochs())
    assert (row["d_real"], row["d_fake"]) == (pytest.approx(1 / (1 + math.exp(-2))), pytest.approx(1 / (1 + math.e**2)))
    assert (row["loss_d"], row["loss_g"]) == (pytest.approx(0.1269, abs=1e-4), pytest.approx(2.1269, abs=1e-4))


def dense_gan(folder=None, **settings):
    """The experiment and its homework."""
    experiment = small_gan("uva", folder, **{"zdim": 6, "limit": 200, "batch_size": 20, **settings})
    return experiment, experiment.homework


def plain_dense_networks(zdim):
    torch.manual_seed(2)
    disc = nn.Sequential(
        nn.Linear(784, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)
    )
    gen = nn.Sequential(
        nn.Linear(zdim, 128),
        nn.LeakyReLU(0.2),
        nn.Linear(128, 256),
        nn.BatchNorm1d(256),
        nn.LeakyReLU(0.2),
        nn.Linear(256, 512),
        nn.BatchNorm1d(512),
        nn.LeakyReLU(0.2),
        nn.Linear(512, 1024),
        nn.BatchNorm1d(1024),
        nn.LeakyReLU(0.2),
        nn.Linear(1024, 784),
        nn.Tanh(),
    )
    return disc, gen


def test_dense_networks():
    disc, gen = uva_gan.DenseD(), uva_gan.DenseG(100)
    count = lambda network: sum(parameter.numel() for parameter in network.parameters())
    assert count(disc) == 533_505 and count(gen) == 1_510_032
    assert gen(torch.randn(2, 100)).shape == (2, 1, 28, 28) and disc(torch.zeros(2, 1, 28, 28)).shape == (2, 1)
    gan, plain = dense_gan()[1], plain_dense_networks(6)
    for ours, theirs in zip((gan.disc, gan.gen), plain):
        assert_same_weights(ours, theirs)  # seed 2, then D, then G
    x, z = torch.rand(3, 1, 28, 28), torch.randn(3, 6)
    torch.testing.assert_close(gan.disc(x), plain[0](x.flatten(1)))
    torch.testing.assert_close(gan.gen(z).flatten(1), plain[1](z))


@pytest.mark.parametrize(
    "iter_d, iter_g", [(1, 1), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((2, 1), (2, 3)))]
)
def test_dense_training_is_the_plain_loop_with_the_generator_first(iter_d, iter_g):
    """Two epochs in double precision: z normal, pixels in [-1,1], the same fakes for both, G's update before D's."""
    _, gan = dense_gan(limit=80, iter_d=iter_d, iter_g=iter_g)
    gan.disc.double(), gan.gen.double()
    disc, gen = (network.double() for network in plain_dense_networks(6))
    optimizer_g, optimizer_d = (
        torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999)) for network in (gen, disc)
    )
    bce, ones, zeros = nn.BCEWithLogitsLoss(), torch.ones(20, 1).double(), torch.zeros(20, 1).double()
    shuffle, noise = torch.Generator().manual_seed(2), torch.Generator().manual_seed(2)
    scale, draw_z = gan.scale, gan.draw_z
    gan.scale, gan.draw_z = lambda x: scale(x).double(), lambda *args: draw_z(*args).double()
    epochs = gan.epochs()
    for _ in range(2):
        for indices in torch.randperm(80, generator=shuffle).split(20):
            x = gan.train_images[indices].flatten(1).float().div(255).mul(2).sub(1).double()
            z = torch.randn(20, 6, generator=noise).double()
            for update in range(iter_g):
                fake = gen(z)
                optimizer_g.zero_grad()
                bce(disc(fake), ones).backward()
                optimizer_g.step()
            for _ in range(iter_d):
                optimizer_d.zero_grad()
                (0.5 * (bce(disc(x), ones) + bce(disc(fake.detach()), zeros))).backward()
                optimizer_d.step()
        next(epochs)
    for ours, theirs in ((gan.disc, disc), (gan.gen, gen)):
        assert_same_weights(ours, theirs, 1e-6)  # the images pass through single precision
    for ours, theirs in zip(gan.gen.buffers(), gen.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_rows_hold_what_their_names_say():
    """Of a discriminator that calls everything real: the loss for fakes grows, both probabilities are 1."""
    _, gan = dense_gan(lr=1e-9)
    zero(gan.disc)
    epochs = gan.epochs()
    row = next(epochs)
    assert tuple(row) == ("epoch", "loss_d", "loss_g", "d_real", "d_fake")
    assert [row[name] for name in ("loss_d", "loss_g")] == pytest.approx([math.log(2)] * 2, abs=1e-4)
    assert [row[name] for name in ("d_real", "d_fake")] == pytest.approx([0.5] * 2, abs=1e-4)
    gan.set_up(n_epochs=2, batch_size=20, lr=1e-9)
    gan.disc.layers[-1].bias.data.fill_(100)
    row = next(gan.epochs(1))
    assert (row["epoch"], row["loss_g"], row["d_real"], row["d_fake"]) == (2, pytest.approx(0, abs=1e-6), 1, 1)
    assert row["loss_d"] == pytest.approx(50, rel=1e-4)


def test_batch_normalisation_samples_in_evaluation_mode_and_goes_back():
    experiment, gan = dense_gan()
    gan.gen(torch.randn(50, 6))  # moves the running statistics away from their start
    before = [buffer.clone() for buffer in gan.gen.buffers()]
    images = gan.generate(gan.fixed_z)
    assert gan.gen.training and all(module.training for module in gan.gen.modules()), "the mode is restored"
    assert all(torch.equal(a, b) for a, b in zip(before, gan.gen.buffers())), "sampling must not train"
    torch.testing.assert_close(images[:1], gan.generate(gan.fixed_z[:1])), "an image does not depend on its batch"
    assert 0 <= images.min() and images.max() <= 1
    gan.gen.eval()
    assert not torch.equal(experiment.sample(3, 1), experiment.sample(3, 2)), "other offsets, other samples"
    assert torch.equal(experiment.sample(3, 1), experiment.sample(3, 1)) and not gan.gen.training


def test_an_average_of_the_generator_has_the_statistics_of_the_last_step():
    """Those of the batch normalisation are averages already."""
    experiment, gan = dense_gan(limit=60, ema_decay=0.5)
    next(gan.epochs())
    for (name, ours), theirs in zip(gan.sampler.named_buffers(), gan.gen.buffers(), strict=True):
        assert torch.equal(ours, theirs), name
    assert not torch.equal(gan.sampler.layers[0].weight, gan.gen.layers[0].weight)
    assert experiment.sample(3, 1).isfinite().all()


def test_normal_noise():
    z = uva_gan.sample_normal_z(20_000, 5)
    assert z.mean().abs() < 0.02 and z.std().item() == pytest.approx(1, abs=0.02) and z.abs().max() > 3
    assert dense_gan()[1].fixed_z.abs().max() > 1, "of this noise are the samples that are shown"


def test_images_of_both_editions_reach_their_whole_range():
    for gan, low in ((small_gan().homework, 0), (dense_gan()[1], -1)):
        x = gan.scale(gan.train_images[:20])
        assert x.min() == low and x.max() == 1
        assert all(value.isfinite() for value in gan.step(x, gan.draw_z(20, gan.noise_rng)))
        gan.train_images = gan.train_images / 255
        with pytest.raises(ValueError, match="training images: torch.float32 .* expected uint8"):
            next(gan.epochs())


def test_interpolation_ends_at_digits_of_different_classes():
    """Of a judge that calls the first seven samples 3, and all others 8; without one it is the first two."""
    _, gan = dense_gan()
    seen, generate = [], gan.generate
    gan.generate = lambda z: seen.append(z) or generate(z)
    classes = torch.tensor([3] * 7 + [8] * 18)
    assert gan.visualize_interpolation(classes).shape == (28, 9 * 28 + 8 * 3)
    line = seen[-1]
    assert torch.equal(line[0], gan.fixed_z[0]), "from the first sample"
    assert torch.equal(line[8], gan.fixed_z[7]), "to the first of another class, the eighth"
    torch.testing.assert_close(line[4], (line[0] + line[8]) / 2)
    torch.testing.assert_close(line[1], line[0] + (line[8] - line[0]) / 8)
    for none in (None, torch.full((25,), 3)):
        gan.visualize_interpolation(none)
        assert torch.equal(seen[-1][8], gan.fixed_z[1]), "where all are alike, to the second"


def test_the_laboratory_tells_the_homework_the_classes(tmp_path, monkeypatch):
    experiment, gan = dense_gan(tmp_path, limit=40)
    given = []
    monkeypatch.setattr(gan, "visualize_interpolation", given.append)
    experiment.get_ready()
    experiment.visualize()
    expected = experiment.evaluator.classify(gan.generate(gan.fixed_z))[1].argmax(1)
    assert len(given) == 1 and torch.equal(given[0], expected) and len(expected) == 25


@pytest.mark.parametrize("epochs, expected", [(4, {0, 2, 4}), (200, {0, 100, 200})])
def test_samples_at_start_halfway_and_end(epochs, expected, tmp_path, monkeypatch):
    without_drawing(monkeypatch)
    experiment, gan = dense_gan(tmp_path, limit=40, n_epochs=epochs)
    assert gan.sample_epochs == expected
    if epochs == 4:
        train(experiment)
        experiment.visualize()
        names = {path.name for path in tmp_path.glob("samples*")}
        assert names == {f"samples_epoch_{epoch}.png" for epoch in expected}
        assert (tmp_path / "interpolation.png").exists() and (tmp_path / "losses.png").exists()
        assert (
            gan.visualize_samples(4).shape == experiment.record["frames"][0].shape == (5 * 28 + 4 * 3, 5 * 28 + 4 * 3)
        )


def test_dense_training_resumes_exactly():
    """Also the running statistics of the batch normalisation are part of the checkpoint."""
    (whole, _), (first, _), (second, _) = (dense_gan(limit=60) for _ in range(3))
    train(whole)
    first.get_ready()
    first.record["history"].append({**next(first.rows(0)), "seconds": 0.0})
    first.after_epoch(1)
    restore(second, copy.deepcopy(snapshot(first, {}, {})), {}, "checkpoint.pt")
    second.get_ready()
    for row in second.rows(1):
        second.record["history"].append({**row, "seconds": 0.0})
    for name, value in whole.homework.gen.state_dict().items():
        assert torch.equal(value, second.homework.gen.state_dict()[name]), name
    assert whole.record["history"] == second.record["history"]


def test_one_image_is_no_batch_for_batch_normalisation():
    with pytest.raises(ValueError, match="batch_size 1: batch normalisation"):
        dense_gan(batch_size=1)


def test_gray_values_of_the_evaluator_are_those_of_the_samples():
    """Samples come in [0,1] as the classifier's images do, not in the [-1,1] of training."""
    _, gan = dense_gan()
    torch.testing.assert_close((gan.scale(gan.train_images) + 1) / 2, in_unit(gan.train_images))
    assert gan.generate(gan.fixed_z).min() >= 0
