"""hw5_lab/editions/ese546: halved images, so many of each digit, two draws of z, curves over the updates."""

import argparse
import copy
import math

import numpy as np
import pytest
import torch
from helpers import SAMPLE
from plain import assert_same_weights, small_vae, train

import hw5_vae
from hw5_lab.editions import ese546
from hw5_lab.editions.ese546 import VAE
from hw5_lab.runs.checkpoint import restore, snapshot


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
    expected = "1 images of some classes where 2 were asked for: using all there are.\n"
    assert len(chosen) == 13 and capsys.readouterr().err == expected


def test_training_images_are_as_many_of_each_digit():
    splits = VAE(argparse.Namespace()).read_data(data_dir=SAMPLE, size=200)
    images, labels = splits["train"]
    assert labels.sum(0).tolist() == [20] * 10 and images.shape == (200, 196)
    assert set(images.unique().tolist()) == {0.0, 1.0} and splits["test"][0].shape == (1000, 196)
    few = VAE(argparse.Namespace(train_size=100)).read_data(data_dir=SAMPLE)["train"][1]
    assert few.sum(0).tolist() == [10] * 10, "without the laboratory it is the setting of the homework"
    assert VAE(argparse.Namespace()).read_data(data_dir=SAMPLE, size=3)["train"][1].sum(0).tolist() == [1] * 10


def test_two_draws_average_likelihoods_not_z():
    experiment = small_vae("ese546", latent_dimension=2, hidden_units=30, limit=20)
    vae, x = experiment.homework, experiment.test_images
    vae.decoder.fc1.weight.data *= 5  # far from linear, so that the order matters
    log_p_x, _ = vae.terms(x, vae.fresh_rng())
    mu, variance = vae.encoder(x)
    noise = vae.fresh_rng()
    z = [hw5_vae.sample_diagonal_gaussian(mu, variance, noise) for _ in range(2)]
    each = [hw5_vae.logpdf_bernoulli(x, vae.decoder(one)) for one in z]
    torch.testing.assert_close(log_p_x, (each[0] + each[1]) / 2, rtol=1e-4, atol=1e-3)
    mean_z = hw5_vae.logpdf_bernoulli(x, vae.decoder((z[0] + z[1]) / 2))
    assert (log_p_x - mean_z).abs().max() > 0.1, "else this test shows nothing"


def test_training_is_adam_at_a_constant_rate_on_the_exact_kl_and_two_draws():
    """Twelve steps of two epochs in double precision; the last batch is short."""
    vae, plain = (small_vae("ese546", limit=170, num_epoches=2).homework.double() for _ in range(2))
    images = vae.train_images = vae.train_images.double()
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    shuffle, noise = torch.Generator().manual_seed(1234), torch.Generator().manual_seed(1234)
    for _ in range(2):
        for indices in torch.randperm(170, generator=shuffle).split(32):
            x = images[indices]
            mu, sigma_square = plain.encoder(x)
            terms = []
            for _ in range(2):
                z = mu + sigma_square.sqrt() * torch.randn(mu.shape, generator=noise, dtype=torch.double)
                terms.append(hw5_vae.logpdf_bernoulli(x, plain.decoder(z)))
            normal = torch.distributions.Normal
            kl = torch.distributions.kl_divergence(normal(mu, sigma_square.sqrt()), normal(0.0 * mu, 1.0 + 0.0 * mu))
            loss = (kl.sum(1) - sum(terms) / 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for _ in vae.epochs():
        pass
    assert_same_weights(vae, plain, 1e-9)


def test_small_images_are_shown_at_twice_their_size():
    experiment = small_vae("ese546", limit=100)
    vae, x = experiment.homework, experiment.test_images
    grid = vae.visualize_reconstructions()
    assert grid.shape == (8 * 28 + 7 * 3, 2 * 28 + 3)
    np.testing.assert_array_equal(grid[31:59:2, :28:2], x[1].view(14, 14))
    np.testing.assert_array_equal(grid[31:59:2, :28:2], grid[32:59:2, 1:28:2])
    with torch.no_grad():
        reconstruction = vae.decoder(vae.encoder(x[1:2])[0]).view(14, 14)
    np.testing.assert_allclose(grid[31:59:2, 31::2], reconstruction, rtol=1e-6, err_msg="each beside its image")
    assert vae.visualize_samples(1).shape == (245, 245)


# ---- curves over the updates


def test_curves_over_updates():
    experiment = small_vae("ese546", limit=1000, num_epoches=4)  # 32 updates an epoch
    history, vae = train(experiment), experiment.homework
    updates, checks = vae.curves.updates, vae.curves.checks
    assert len(updates) == 128 and [update for update, _ in checks] == [100]
    weights = [32] * 31 + [8]
    for column, part in enumerate(("reconstruction", "kl")):
        mean = sum(weight * update[column] for weight, update in zip(weights, updates)) / 1000
        assert mean == pytest.approx(history[0][f"train_{part}"], rel=1e-4)
    assert -196 * math.log(2) < checks[0][1] < 0, "log-likelihood, with its true sign"
    assert vae.visualize_updates() is updates


def test_before_the_first_check_the_figure_names_none():
    vae, kept = VAE(argparse.Namespace()), []
    vae.curves.updates = [(-90.0, 3.0)]
    vae.save = lambda figure, name: kept.append(figure)
    vae.visualize_updates()
    legend = kept[0].axes[2].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["training, each minibatch"]


def test_the_figure_has_three_panels_of_the_right_signs(monkeypatch):
    """The first term, minus the KL, and both likelihoods: what the ELBO is the sum of, each of its own."""
    from matplotlib.axes import Axes

    vae = VAE(argparse.Namespace())
    vae.curves.updates = [(-90.0, 3.0), (-80.0, 4.0), (-70.0, 5.0)]
    vae.curves.checks = [(2, -85.0)]
    kept = []
    vae.save = lambda figure, name: kept.append((figure, name))
    vae.visualize_updates()
    ((figure, name),) = kept
    lines = [[(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines] for axes in figure.axes]
    assert name == "updates.png" and all(isinstance(axes, Axes) for axes in figure.axes)
    steps = [1, 2, 3]
    assert lines == [
        [(steps, [-90, -80, -70])],
        [(steps, [-3, -4, -5])],
        [(steps, [-90, -80, -70]), ([2], [-85])],
    ]
    assert {axes.get_ylabel() for axes in figure.axes} == {"nats per image"}


def test_curves_are_part_of_a_checkpoint():
    """A state is taken back as it was; one that holds something else is refused."""
    experiment = small_vae("ese546", limit=40, num_epoches=1)
    train(experiment)
    assert experiment.parts["curves"] is experiment.homework.curves
    again, state = ese546.Curves(), experiment.homework.curves.state_dict()
    again.load_state_dict({**copy.deepcopy(state), "checks": [(100, -90.0)]})
    assert again.updates == state["updates"] and again.checks == [(100, -90.0)] and len(again.updates) == 2
    for damaged in (
        {},
        {"updates": 3, "checks": []},
        {"updates": [(1.0,)], "checks": []},
        {"updates": [], "checks": [("a", 1)]},
    ):
        with pytest.raises((KeyError, TypeError, ValueError)):
            ese546.Curves().load_state_dict(damaged)


def test_a_run_that_goes_on_has_the_curves_of_a_whole_run(monkeypatch):
    """Through a checkpoint: the number of updates, from which the checks are counted, comes with it."""
    monkeypatch.setattr(ese546, "CHECK_EVERY", 3)
    whole, first, second = (small_vae("ese546", limit=60, num_epoches=3) for _ in range(3))
    train(whole)
    rows = first.rows(0)
    first.record["history"].append({**next(rows), "seconds": 0.0})
    state = copy.deepcopy(snapshot(first, {}, {}))
    restore(second, state, {}, "checkpoint.pt")
    for row in second.rows(1):
        second.record["history"].append({**row, "seconds": 0.0})
    assert second.homework.curves.state_dict() == whole.homework.curves.state_dict()
    assert [update for update, _ in second.homework.curves.checks] == [3, 6]
    assert second.record["history"] == whole.record["history"]


def test_the_check_is_of_a_hundred_held_out_images(monkeypatch):
    monkeypatch.setattr(ese546, "CHECK_EVERY", 2)
    experiment, seen = small_vae("ese546", limit=150, batch_size=50, num_epoches=1), []
    vae = experiment.homework
    evaluate = vae.evaluate
    vae.evaluate = lambda images: seen.append(images) or evaluate(images)
    next(vae.epochs())
    assert len(seen) == 1 and torch.equal(seen[0], experiment.test_images[:100])
    log_p_x, _ = evaluate(experiment.test_images[:100])
    assert vae.curves.checks[0][0] == 2 and vae.curves.checks[0][1] != pytest.approx(log_p_x.mean().item(), rel=1e-6)


def test_checking_does_not_change_the_training(monkeypatch):
    weights = []
    for every in (1, 1000):
        monkeypatch.setattr(ese546, "CHECK_EVERY", every)
        vae = small_vae("ese546", limit=150, num_epoches=1).homework
        next(vae.epochs())
        assert vae.training and len(vae.curves.checks) == (5 if every == 1 else 0)
        weights.append(torch.cat([value.flatten() for value in vae.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [dict(limit=1), dict(limit=30, latent_dimension=1)])
def test_figures_of_odd_sizes(settings, tmp_path):
    experiment = small_vae("ese546", num_epoches=1, **settings)
    experiment.folder = tmp_path
    experiment.visualize()  # before any update
    train(experiment)
    experiment.visualize()
    assert {path.stem for path in tmp_path.iterdir()} == {"updates", "reconstructions", "samples_epoch_1", "elbo"}
