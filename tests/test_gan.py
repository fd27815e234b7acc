"""hw5_gan alone: the networks against plainly written ones, both losses and their gradients, training, samples."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import SAMPLE, blank
from plain import BrightIsFake, assert_same_weights, figures_of, plain_networks, plain_step, zero
from torch import nn

import hw5_gan
import hw5_utils as utils
from hw5_gan import GAN, DNet, GNet, kaiming_init

LOG2 = math.log(2)


def small_gan(folder=None, images=96, **settings):
    """The homework's GAN on the first images of the sample, in minibatches of 32."""
    gan = GAN()
    gan.train_images = torch.tensor(utils.mnist(SAMPLE)[0][:images]).unsqueeze(1)
    gan.folder = folder
    gan.set_up(**{"batch_size": 32, **settings})
    return gan


# ---- networks


@pytest.mark.parametrize("make, count", [(DNet, 593), (partial(GNet, 64), 107_777)])
def test_parameter_counts(make, count):
    assert sum(parameter.numel() for parameter in make().parameters()) == count


def test_children_are_the_rows_of_the_tables():
    kinds = lambda network: [type(child).__name__ for child in network.children()]
    assert kinds(DNet()) == ["Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "Linear"]
    assert kinds(GNet(5)) == [
        "Linear",
        "LeakyReLU",
        "Upsample",
        "Conv2d",
        "LeakyReLU",
        "Upsample",
        "Conv2d",
        "LeakyReLU",
        "Conv2d",
        "Sigmoid",
    ]


@pytest.mark.parametrize("zdim", [64, 3])
def test_networks_are_the_plain_ones(zdim):
    gan, plain = GAN(zdim), plain_networks(zdim)
    for ours, theirs in zip((gan.disc, gan.gen), plain):
        assert_same_weights(ours, theirs)  # seed 2, then D, then G must draw the course's weights
    x, z = torch.rand(5, 1, 28, 28), torch.randn(5, zdim)
    torch.testing.assert_close(gan.disc(x), plain[0](x))
    torch.testing.assert_close(gan.gen(z), plain[1](z))
    assert gan.disc(x).shape == (5, 1) and gan.gen(z).shape == (5, 1, 28, 28)


@pytest.mark.parametrize("make", [DNet, partial(GNet, 64)])
def test_kaiming_bounds(make):
    """kaiming_uniform_ draws from [-b, b] with b = sqrt(6 / fan_in)."""
    torch.manual_seed(0)
    network = make()
    for layer in network.children():
        if hasattr(layer, "weight"):
            bound = math.sqrt(6 / layer.weight[0].numel())
            largest = layer.weight.abs().max().item()
            assert largest <= bound * (1 + 1e-6) and largest > (0.99 if layer.weight.numel() > 500 else 0.75) * bound
            assert not layer.bias.any()


def test_layers_without_a_bias_are_initialised():
    network = nn.Sequential(nn.Embedding(10, 16), nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2))
    before = [weight.clone() for weight in network.parameters()]
    kaiming_init(network)
    changed = [not torch.equal(old, new) for old, new in zip(before, network.parameters())]
    assert changed == [True, True, False, False]


# ---- losses


def test_losses_by_hand():
    real, fake = torch.tensor([[1.0], [2.0]]), torch.tensor([[-1.0], [0.5]])
    log_d, log_not_d = F.logsigmoid(real).mean(), F.logsigmoid(-fake).mean()
    torch.testing.assert_close(hw5_gan.discriminator_loss(real, fake), -(log_d + log_not_d) / 2)
    torch.testing.assert_close(hw5_gan.generator_loss(fake), -F.logsigmoid(fake).mean())


def test_losses_of_no_images_are_refused():
    none, one = torch.zeros(0, 1), torch.zeros(1, 1)
    for loss in (
        lambda: hw5_gan.discriminator_loss(none, one),
        lambda: hw5_gan.discriminator_loss(one, none),
        lambda: hw5_gan.generator_loss(none),
    ):
        with pytest.raises(ValueError, match="an empty batch has no mean loss"):
            loss()


def test_networks_of_no_images_give_none():
    assert DNet()(torch.zeros(0, 1, 28, 28)).shape == (0, 1) and GNet(3)(torch.zeros(0, 3)).shape == (0, 1, 28, 28)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_zero_logits_give_log_2(batch_size):
    gan = GAN()
    zero(gan.disc)
    x, z = torch.rand(batch_size, 1, 28, 28), torch.randn(batch_size, 64)
    assert gan._get_loss_d(batch_size, x, z).item() == pytest.approx(LOG2)
    assert gan._get_loss_g(batch_size, z).item() == pytest.approx(LOG2)


def test_losses_of_the_class_are_the_formulas():
    gan = GAN()
    x, z = torch.rand(6, 1, 28, 28), torch.randn(6, 64)
    real, fake = gan.disc(x), gan.disc(gan.gen(z))
    bce = nn.BCEWithLogitsLoss()
    expected = 0.5 * (bce(real, torch.ones(6, 1)) + bce(fake, torch.zeros(6, 1)))
    torch.testing.assert_close(gan._get_loss_d(6, x, z), expected)
    torch.testing.assert_close(gan._get_loss_g(6, z), bce(fake, torch.ones(6, 1)))


def test_the_loss_of_d_gives_g_no_gradient():
    gan = GAN()
    gan._get_loss_d(4, torch.rand(4, 1, 28, 28), torch.randn(4, 64)).backward()
    assert all(parameter.grad is None for parameter in gan.gen.parameters()), "detach the fake images"
    assert all(parameter.grad.abs().sum() > 0 for parameter in gan.disc.parameters())


def test_the_loss_of_g_reaches_g():
    gan = GAN()
    gan._get_loss_g(4, torch.randn(4, 64)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in gan.gen.parameters())


# ---- training


@pytest.mark.parametrize("iter_d, iter_g", [(1, 1), (2, 3)])
def test_steps_are_the_plain_steps(iter_d, iter_g):
    """One z for both players and fakes drawn once give the weights of a loop that computes every loss afresh."""
    gan, plain = GAN(), [network.double() for network in plain_networks()]
    gan.disc.double(), gan.gen.double()
    gan.set_up(iter_d, iter_g)
    optimizers = [torch.optim.Adam(network.parameters(), lr=2e-4) for network in plain]
    for _ in range(4):
        x, z = torch.rand(8, 1, 28, 28).double(), torch.rand(8, 64).double() * 2 - 1
        with torch.no_grad():
            d_fake = plain[0](plain[1](z)).sigmoid().mean()
        values = gan.step(x, z)
        plain_step(plain, optimizers, x, z, iter_d, iter_g)
        assert len(values) == 4
        if iter_d == 1:
            assert values[3] == pytest.approx(d_fake.item()), "D(G(z)) before the update"
    for ours, theirs in zip((gan.disc, gan.gen), plain):
        assert_same_weights(ours, theirs, 1e-10)


def test_training_is_the_plain_loop(tmp_path):
    """Two epochs of shuffled minibatches in [0,1], the short last one dropped."""
    gan, plain = small_gan(tmp_path, 110), plain_networks()  # 110 = 3 * 32 + 14
    optimizers = [torch.optim.Adam(network.parameters(), lr=2e-4) for network in plain]
    shuffle, noise = torch.Generator().manual_seed(2), torch.Generator().manual_seed(2)
    images = gan.train_images.float() / 255
    for epoch in range(2):
        order = torch.randperm(110, generator=shuffle)
        for step in range(3):
            x, z = images[order[32 * step :][:32]], torch.rand(32, 64, generator=noise) * 2 - 1
            plain_step(plain, optimizers, x, z)
    gan.train(n_epochs=2, batch_size=32)
    for ours, theirs in zip((gan.disc, gan.gen), plain):
        assert_same_weights(ours, theirs, 1e-5)


def test_sample_z_is_uniform():
    z = hw5_gan.sample_z(20_000, 5)
    assert z.shape == (20_000, 5) and -1 <= z.min() < -0.99 and 0.99 < z.max() <= 1
    assert z.mean().abs() < 0.01 and z.var().item() == pytest.approx(1 / 3, rel=0.02)


def test_rows_hold_what_their_names_say():
    gan = small_gan(lr=1e-9)
    zero(gan.disc)
    epochs = gan.epochs()
    row = next(epochs)
    assert tuple(row) == ("epoch", "loss_d", "loss_g", "d_real", "d_fake") and row["epoch"] == 1
    assert row["loss_d"] == pytest.approx(LOG2, abs=1e-4) and row["loss_g"] == pytest.approx(LOG2, abs=1e-4)
    assert row["d_real"] == pytest.approx(0.5, abs=1e-4) and row["d_fake"] == pytest.approx(0.5, abs=1e-4)
    gan.disc.linear.bias.data.fill_(100)  # D now takes everything for real
    row = next(epochs)
    assert row["epoch"] == 2
    assert row["d_real"] == pytest.approx(1) and row["d_fake"] == pytest.approx(1)
    assert row["loss_d"] == pytest.approx(50, rel=1e-3) and row["loss_g"] == pytest.approx(0, abs=1e-3)


@blank
def test_training_prints_a_line_per_epoch(tmp_path, capsys):
    gan = small_gan(tmp_path)
    assert gan.train(n_epochs=2, batch_size=32) is gan
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2"] and "loss_d 0." in lines[0]


def test_d_learns_to_tell_real_from_fake():
    rows = list(small_gan(images=512, lr=2e-3, n_epochs=4).epochs())
    assert rows[-1]["d_real"] > rows[-1]["d_fake"], "D(x) must exceed D(G(z)): labels swapped?"


def test_non_finite_loss_stops(tmp_path):
    gan = small_gan(tmp_path)
    nn.init.constant_(gan.gen.linear.bias, math.nan)
    with pytest.raises(FloatingPointError, match="epoch 1, step 1: loss of D nan, of G nan; try a smaller --lr"):
        gan.train(n_epochs=1, batch_size=32)


def test_too_large_a_batch_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size 97: more than the 96 training images"):
        small_gan(tmp_path).train(batch_size=97)


@pytest.mark.parametrize("settings", [{"iter_d": 0}, {"iter_g": 0}])
def test_each_network_needs_an_update(tmp_path, settings):
    with pytest.raises(ValueError, match="each network needs an update; use 1 or more"):
        small_gan(tmp_path).train(**settings)


def test_the_mode_is_restored_after_an_error_too():
    gan = small_gan()
    gan.gen.lrelu1.eval()  # a layer that stays in evaluation mode
    with pytest.raises(RuntimeError):
        gan.generate(torch.zeros(2, 3))
    assert gan.gen.training and gan.gen.conv1.training and not gan.gen.lrelu1.training


def test_building_reads_no_data(monkeypatch):
    images = np.full((3, 28, 28), 7, np.uint8)
    monkeypatch.setattr(hw5_gan.utils, "mnist", lambda: (images, None, None, None))
    gan = GAN()
    assert "train_images" not in vars(gan), "the images are read when they are needed"
    assert torch.equal(gan.train_images, torch.from_numpy(images).unsqueeze(1)), "all of them, as bytes"


# ---- samples


def test_which_probability_is_that_of_real_images():
    gan = small_gan(lr=1e-9)
    zero(gan.gen), setattr(gan, "disc", BrightIsFake(0.3))
    row = next(gan.epochs())
    assert (row["d_real"], row["d_fake"]) == (pytest.approx(1 / (1 + math.exp(-2))), pytest.approx(1 / (1 + math.e**2)))
    assert (row["loss_d"], row["loss_g"]) == (pytest.approx(0.1269, abs=1e-4), pytest.approx(2.1269, abs=1e-4))


def test_a_step_returns_numbers_without_a_history():
    gan = small_gan()
    assert not any(value.requires_grad for value in gan.step(torch.rand(32, 1, 28, 28), torch.rand(32, 64)))


def test_grids_are_shown_upright_in_gray():
    gan = small_gan()
    figures = figures_of(gan)
    gan.visualize_goal(), gan.visualize_samples(1)
    for figure in figures.values():
        ((image,),) = [axes.images for axes in figure.axes]
        assert (image.origin, image.get_cmap().name, image.get_clim()) == ("upper", "gray", (0, 1))


def test_grids_show_their_images_from_fixed_noise(tmp_path):
    gan = small_gan(tmp_path)
    goal, first, second = gan.visualize_goal(), gan.visualize_samples(10), gan.visualize_samples(20)
    assert goal.shape == first.shape == (8 * 28 + 7 * 3, 8 * 28 + 7 * 3)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(goal[31:59, :28], gan.train_images[1, 0].numpy() / 255, rtol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(first[:28, 31:59], gan.gen(gan.fixed_z)[8, 0].numpy(), rtol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {"goal.png", "samples_epoch_10.png", "samples_epoch_20.png"}


@pytest.mark.parametrize("count, side", [(1, 1), (2, 2), (4, 2), (10, 4), (64, 8)])
def test_tile_is_the_smallest_square(count, side):
    images = torch.rand(count, 1, 28, 28) + 1
    sheet = hw5_gan.tile(images)
    assert sheet.shape == (31 * side - 3, 31 * side - 3)
    for number in range(side**2):
        row, column = number % side, number // side
        cell = sheet[31 * row :][:28, 31 * column :][:, :28]
        assert np.array_equal(cell, images[number, 0]) if number < count else not cell.any()


def test_sampling_moves_no_random_numbers_of_training(tmp_path):
    gan = small_gan(tmp_path)
    before = gan.shuffle_rng.get_state(), gan.noise_rng.get_state(), torch.get_rng_state()
    gan.visualize_samples(1), gan.visualize_goal()
    after = gan.shuffle_rng.get_state(), gan.noise_rng.get_state(), torch.get_rng_state()
    assert all(map(torch.equal, before, after))


@pytest.mark.parametrize(
    "epochs, drawn",
    [(1, {0, 0.5, 1}), (2, {0, 1, 2}), (3, {1, 2, 3}), (12, {4, 8, 12}), (20, {7, 13, 20}), (21, {10, 20, 21})],
)
@blank
def test_samples_are_drawn_every_ten_epochs_and_at_the_end(epochs, drawn, tmp_path, monkeypatch):
    """Three at least, which are to be handed in: of one epoch its beginning, its middle and its end."""
    gan = small_gan(tmp_path, 64)
    monkeypatch.setattr(gan, "step", lambda real, z: [torch.zeros(())] * 4)
    gan.train(n_epochs=epochs, batch_size=32)
    assert {path.stem for path in tmp_path.glob("*.png")} == {"goal", *(f"samples_epoch_{epoch}" for epoch in drawn)}


def test_a_grid_names_its_epoch(tmp_path, monkeypatch):
    gan, seen = small_gan(tmp_path), []
    monkeypatch.setattr(gan, "save", lambda figure, name: seen.append((figure.axes[0].get_title(), name)))
    gan.visualize_samples(30)
    assert seen == [("G(z), epoch 30", "samples_epoch_30.png")]


# ---- refusals


def test_images_of_any_range_have_a_loss():
    """An autograder may feed noise; only training asks for images as they are in the files."""
    gan = GAN()
    for batch in (torch.randn(4, 1, 28, 28), 255 * torch.rand(4, 1, 28, 28)):
        assert gan._get_loss_d(4, batch, torch.rand(4, 64)).isfinite()


@pytest.mark.parametrize("images", [torch.rand(40, 1, 28, 28), torch.zeros(40, 28, 28, dtype=torch.uint8)])
def test_training_on_other_things_than_images_is_refused(images):
    gan = small_gan()
    gan.train_images = images
    with pytest.raises(ValueError, match="expected uint8"):
        next(gan.epochs())
