"""hw5_lab/experiments/vae: the homework's training, its data, what is measured, figures, files of weights."""

import argparse
import math

import pytest
import torch
from helpers import SAMPLE
from plain import (
    assert_same_weights,
    curves,
    figures_of,
    sample,
    settings_of,
    small_vae,
    train,
    without_drawing,
    zero,
)
from torch import nn

import hw5_vae
from hw5_lab.experiments.experiment import plot_epochs
from hw5_lab.fast.layers import fuse
from hw5_lab.measures.likelihood import log_likelihood_exact, log_likelihood_sampled

LOG2 = math.log(2)


def alone(images, **settings):
    """The homework without the laboratory, on the first images of the sample."""
    torch.manual_seed(settings["seed"])
    vae = hw5_vae.VAE(argparse.Namespace(**{"hidden_units": 8, **settings}))
    vae.splits = {"train": [part[:images] for part in sample()[:2]], "test": sample()[2:]}
    return vae


# ---- it is the homework's VAE


@pytest.mark.parametrize("settings", [{}, dict(batch_size=64, lr=0.01, latent_dimension=3, hidden_units=20)])
def test_training_gives_the_weights_of_the_homework_alone(settings):
    """Every bit of them with the same Adam kernel; up to rounding with the script's own."""
    settings = {"num_epoches": 3, "seed": 3, **settings}
    experiment = small_vae(limit=950, **settings)
    history, vae = train(experiment), experiment.homework
    same, plain = alone(950, **settings), alone(950, **settings)
    fuse(same.optimizer)
    for row, theirs, other in zip(history, same.epochs(), plain.epochs(), strict=True):
        assert {name: row[name] for name in theirs} == theirs
        assert theirs == pytest.approx(other, rel=1e-4)
    assert_same_weights(same, vae)
    assert_same_weights(plain, vae, 2e-5)
    assert torch.equal(plain.noise_rng.get_state(), vae.noise_rng.get_state()), "measuring draws its own noise"
    assert torch.equal(plain.shuffle_rng.get_state(), vae.shuffle_rng.get_state())


def test_epochs_from_the_middle_are_those_of_the_middle():
    """rows(first) is epochs(first): the rates are those of the epochs that are left."""
    experiment = small_vae(num_epoches=4, limit=200)
    rates = []
    for row in experiment.rows(2):
        rates.append((row["epoch"], experiment.homework.optimizer.param_groups[0]["lr"]))
    expected = [(k + 1, 1e-3 * (1 + math.cos(math.pi * k / 4)) / 2) for k in (2, 3)]
    assert rates == [(epoch, pytest.approx(rate)) for epoch, rate in expected]


def test_history_has_a_row_for_each_epoch():
    experiment = small_vae(num_epoches=3, limit=500, hidden_units=50)
    history = train(experiment)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert all(tuple(row) == experiment.columns for row in history)
    for split in ("train", "test"):
        assert history[0][f"{split}_elbo"] < history[-1][f"{split}_elbo"], "the bound must rise"
        for row in history:
            assert row[f"{split}_elbo"] == pytest.approx(row[f"{split}_reconstruction"] - row[f"{split}_kl"])


def test_steps_are_the_ticks_of_an_epoch():
    experiment, ticks = small_vae(num_epoches=2, limit=250, refine_encoder=1), []
    for optimizer in experiment.clocks:
        optimizer.register_step_post_hook(lambda *_: ticks.append(1))
    train(experiment)
    assert experiment.epochs == 3 and experiment.steps == 3, "the short last batch counts"
    assert len(ticks) == experiment.epochs * experiment.steps


def test_state_is_all_that_the_homework_has():
    experiment = small_vae(limit=30)
    assert set(experiment.parts) == {"encoder", "decoder", "optimizer"}
    assert set(experiment.generators) == {"shuffle_rng", "noise_rng", "torch"}
    assert set(small_vae(limit=30, refine_encoder=1).parts) == {"encoder", "decoder", "optimizer", "refiner"}


# ---- data


def test_building_a_homework_reads_no_data(monkeypatch):
    def forbidden(*_):
        raise AssertionError("read MNIST")

    monkeypatch.setattr("hw5_utils.mnist", forbidden)
    vae = hw5_vae.VAE(settings_of("hw5_vae"))
    with pytest.raises(AssertionError, match="read MNIST"):
        vae.train_images


@pytest.mark.parametrize(
    "settings, train_count, test_count",
    [
        ({}, 4000, 1000),
        (dict(limit=300), 300, 300),
        (dict(train_size=200), 200, 1000),
        (dict(train_size=200, limit=300), 200, 300),
        (dict(train_size=200, limit=50), 50, 50),
    ],
)
def test_limits_keep_the_first_images(settings, train_count, test_count):
    experiment = small_vae(**settings, data_dir=SAMPLE)
    vae = experiment.homework
    arrays = vae.train_images, vae.train_labels, experiment.test_images, experiment.test_labels
    for ours, whole, count in zip(arrays, sample(), (train_count, train_count, test_count, test_count)):
        assert torch.equal(ours, whole[:count]) and ours.dtype == torch.float32
    assert torch.equal(vae.held_out_images, experiment.test_images)
    assert sum(map(len, experiment.data_tensors())) == 2 * (train_count + test_count), (
        "a checkpoint tells its data by all"
    )
    assert experiment.data_in_words() == f"{train_count:,} of the digits of data/sample"


def test_wrong_data_dimension_is_refused():
    with pytest.raises(ValueError, match="data_dimension 100: the images have 784 pixels"):
        small_vae(data_dimension=100)


# ---- evaluation


def test_zero_network_gives_784_log_2():
    experiment = small_vae(limit=100)
    zero(experiment.homework)
    metrics = experiment.watch()
    assert metrics["test_reconstruction"] == pytest.approx(-784 * LOG2, rel=1e-6)
    assert metrics["test_kl"] == pytest.approx(0, abs=1e-6)
    assert metrics["test_elbo"] == pytest.approx(-784 * LOG2, rel=1e-6)


def test_watching_changes_nothing_and_weighs_by_images():
    experiment = small_vae()
    vae = experiment.homework
    images, labels = (part.repeat(2, 1)[:1300] for part in vae.splits["test"])  # one whole and one short batch
    vae.splits = {**vae.splits, "test": (images, labels)}
    assert len(experiment.test_images) == len(vae.held_out_images) == 1300
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    generator = vae.noise_rng.get_state()
    torch.manual_seed(5)
    first, second = experiment.watch(), experiment.watch()
    assert first == second, "the same noise at every look"
    assert torch.equal(generator, vae.noise_rng.get_state()), "training's own random numbers must not move"
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5))
    assert torch.initial_seed() == 5 and torch.equal(torch.rand(3), expected), "nor the global ones"
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())
    assert all(parameter.grad is None for parameter in vae.parameters()) and vae.training
    with torch.no_grad():
        noise = vae.fresh_rng()
        values = [a - b for a, b in (vae.terms(x, noise) for x in images.split(1000))]
    assert first["test_elbo"] == pytest.approx(torch.cat(values).mean().item(), rel=1e-6), "a mean over images"


def test_training_columns_mean_what_the_held_out_ones_mean():
    """With a vanishing learning rate the epoch's mean is the bound of the same images, up to the noise in z."""
    experiment = small_vae(num_epoches=1, limit=1000, lr=1e-12, hidden_units=20)
    vae = experiment.homework
    vae.encoder.fc2_mu.bias.data.fill_(1.0)  # so that the KL is about 1
    row = train(experiment)[0]
    log_p_x, kl = vae.evaluate(vae.train_images)
    expected = {"elbo": log_p_x - kl, "reconstruction": log_p_x, "kl": kl}
    for part, tolerance in (("elbo", 0.5), ("reconstruction", 0.5), ("kl", 0.1)):
        assert row[f"train_{part}"] == pytest.approx(expected[part].mean().item(), abs=tolerance)
    assert row["train_kl"] > 0.5


def test_unscaled_images_are_refused():
    with pytest.raises(ValueError, match="images has values from 0 to 255"):
        small_vae(limit=30).homework.evaluate(torch.linspace(0, 255, 784)[None])


# ---- what is measured


def test_measure_reports_every_number(tmp_path, coarse_integral):
    experiment = small_vae(limit=60, iwae_samples=3, hidden_units=20)
    experiment.folder = tmp_path
    vae, images = experiment.homework, experiment.test_images
    metrics, findings = experiment.measure("full")
    assert set(metrics) == {
        "test_elbo",
        "test_elbo_stderr",
        "test_reconstruction",
        "test_kl",
        "test_importance_weighted_bound",
        "test_importance_weighted_bound_stderr",
        "iwae_samples",
        "test_log_likelihood_exact",
        "test_log_likelihood_exact_stderr",
        "test_log_likelihood_exact_error",
        "train_log_likelihood_exact",
        "test_elbo_ignoring_z",
    }
    log_p_x, kl = vae.evaluate(images)
    assert (metrics["test_elbo"], metrics["test_kl"]) == ((log_p_x - kl).mean().item(), kl.mean().item())
    assert metrics["test_elbo"] == experiment.watch()["test_elbo"]
    assert metrics["test_elbo_stderr"] == pytest.approx((log_p_x - kl).std().item() / math.sqrt(60))
    sampled = log_likelihood_sampled(vae, images, 3)
    assert metrics["iwae_samples"] == 3 and metrics["test_importance_weighted_bound"] == pytest.approx(
        sampled.mean().item()
    )
    assert metrics["test_importance_weighted_bound_stderr"] == pytest.approx(sampled.std().item() / math.sqrt(60))
    means = vae.train_images.mean(0) * 0.98 + 0.01, torch.full((784,), 0.13)
    ignoring, constant = (hw5_vae.logpdf_bernoulli(images, p).mean().item() for p in means)
    assert metrics["test_elbo_ignoring_z"] == pytest.approx(ignoring, abs=2)
    assert metrics["test_elbo_ignoring_z"] > constant
    exact, error, best_z = log_likelihood_exact(vae, images, points=20)
    in_training = log_likelihood_exact(vae, vae.train_images, points=20)[0]
    assert metrics["test_log_likelihood_exact"] == pytest.approx(exact.mean().item())
    assert metrics["test_log_likelihood_exact_error"] == pytest.approx(error.mean().item())
    assert metrics["train_log_likelihood_exact"] == pytest.approx(in_training.mean().item())
    assert metrics["test_log_likelihood_exact_stderr"] == pytest.approx(exact.std().item() / math.sqrt(60))
    torch.testing.assert_close(findings["gap"], exact - (log_p_x - kl))
    torch.testing.assert_close(findings["best_z"], best_z)
    assert not any(tmp_path.iterdir()), "measuring draws nothing"
    experiment.visualize_findings(findings)
    assert {path.name for path in tmp_path.iterdir()} == {"gap.png"}


def test_less_is_measured_where_less_is_asked_for(coarse_integral):
    """With two latents the integral is the usual measure, with others the importance-weighted bound."""
    measured = lambda latents, how: set(small_vae(limit=30, latent_dimension=latents).measure(how)[0])
    quick = measured(2, "quick")
    assert quick == {"test_elbo", "test_elbo_stderr", "test_reconstruction", "test_kl", "test_elbo_ignoring_z"}
    exact = {f"test_log_likelihood_exact{end}" for end in ("", "_stderr", "_error")}
    bound = {"test_importance_weighted_bound", "test_importance_weighted_bound_stderr", "iwae_samples"}
    assert measured(2, "usual") == quick | exact
    assert measured(3, "usual") == measured(3, "full") == quick | bound
    assert measured(2, "full") == quick | exact | bound | {"train_log_likelihood_exact"}


def test_the_summary_says_what_was_measured_and_where_z_says_nothing(coarse_integral):
    experiment = small_vae(limit=60, iwae_samples=3)
    metrics, _ = experiment.measure("full")
    lines = experiment.summary(metrics)
    assert metrics["test_kl"] < 0.5, "an untrained model ignores z"
    assert len(lines) == 5 and lines[-1] == "Posterior collapse: q(z|x) is the prior, so that z says nothing of x."
    assert "60 test images, in nats per image" in lines[0] and f"{metrics['test_elbo']:.1f}" in lines[1]
    assert (
        f"{metrics['test_elbo_ignoring_z']:.1f}" in lines[1]
        and f"{metrics['test_importance_weighted_bound']:.1f}" in lines[2]
    )
    assert f"{metrics['test_log_likelihood_exact']:.1f}" in lines[3]
    assert experiment.summary({**metrics, "test_kl": 3.0}) == lines[:-1]


def test_exact_values_are_for_planes_of_latents_only(tmp_path):
    experiment = small_vae(limit=30, iwae_samples=2, latent_dimension=3)
    experiment.folder = tmp_path
    metrics, findings = experiment.measure("full")
    assert not any("exact" in name for name in metrics) and len(experiment.summary({**metrics, "test_kl": 3.0})) == 3
    assert findings == {} and experiment.visualize_findings(findings) is None and not any(tmp_path.iterdir())


def test_measuring_changes_nothing_of_the_training(tmp_path, coarse_integral, monkeypatch):
    """In the middle of two epochs, with all figures, or not at all: the same weights."""
    without_drawing(monkeypatch)
    weights = []
    for looks in (False, True):
        experiment = small_vae(limit=60, num_epoches=2, iwae_samples=2)
        experiment.folder = tmp_path
        for row in experiment.rows(0):
            experiment.record["history"].append({**row, "seconds": 0.0})
            if looks and row["epoch"] == 1:
                first, second = experiment.measure("full"), experiment.measure("full")
                assert first[0] == second[0] and all(torch.equal(first[1][name], second[1][name]) for name in first[1])
                experiment.visualize()
                experiment.visualize_findings(first[1])
        weights.append([value.clone() for value in experiment.homework.state_dict().values()])
    assert all(map(torch.equal, *weights))


# ---- figures


@pytest.fixture
def drawn(tmp_path):
    experiment = small_vae(limit=300)
    experiment.folder = tmp_path
    return experiment


@pytest.fixture
def pictures(monkeypatch):
    """All images that figures show while this test runs."""
    from matplotlib.axes import Axes

    shown, imshow = [], Axes.imshow
    keep = lambda axes, picture, **more: shown.append(torch.as_tensor(picture)) or imshow(axes, picture, **more)
    monkeypatch.setattr(Axes, "imshow", keep)
    return shown


def test_history_figure(drawn):
    figures, names = figures_of(drawn), ("elbo", "reconstruction", "kl")
    parts = [f"{split}_{part}" for split in ("train", "test") for part in names]
    values = [{part: 10.0 * epoch + place for place, part in enumerate(parts)} for epoch in (1, 2)]
    drawn.record["history"] = [{"epoch": epoch, **row} for epoch, row in enumerate(values, 1)]
    assert drawn.visualize_history() == drawn.record["history"]
    for axes, part in zip(figures["elbo.png"].axes, names, strict=True):
        assert curves(axes) == {
            "training, mean over the epoch": [row[f"train_{part}"] for row in values],
            "test, after the epoch": [row[f"test_{part}"] for row in values],
        }


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_curve_of_one_epoch_is_a_dot_and_ticks_are_whole_epochs(epochs):
    figure = hw5_vae.new_figure(12, 4)
    axes = figure.subplots()
    plot_epochs(axes, list(range(1, epochs + 1)), [0.5] * epochs, "a label")
    assert axes.lines[0].get_marker() == ("o" if epochs == 1 else "None")
    low, high = axes.get_xlim()
    assert all(tick == int(tick) for tick in axes.get_xticks() if low <= tick <= high)


def test_gap_figure_shows_the_worst_images(drawn, pictures, monkeypatch):
    """Gaps of a known order: each of the ten columns is an image and its reconstructions at two codes."""
    without_drawing(monkeypatch)
    findings = {"gap": torch.arange(300.0) / 10, "best_z": torch.stack([torch.arange(300.0) / 100] * 2, 1)}
    assert torch.equal(torch.as_tensor(drawn.visualize_findings(findings)), findings["gap"])
    figures, drawn.homework.draws = figures_of(drawn), 2  # as an edition has it
    drawn.visualize_findings(findings)
    title = figures["gap.png"].axes[0].get_title()
    assert title.startswith("What the bound misses, with 2 draws of z each: mean 14.9, median 14.9, largest 30"), title
    (picture, _), worst, vae = pictures, torch.arange(299, 289, -1), drawn.homework
    assert picture.shape == (3 * 28, 10 * 28)
    x, at_mean, at_best = picture.view(3, 28, 10, 28).transpose(1, 2).flatten(2)
    assert torch.equal(x, drawn.test_images[worst]), "the largest gaps first"
    with torch.no_grad():
        torch.testing.assert_close(at_mean, vae.decoder(vae.encoder(x)[0]))
        torch.testing.assert_close(at_best, vae.decoder(findings["best_z"][worst]))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [dict(latent_dimension=1), dict(limit=1), dict(latent_dimension=5)])
def test_every_figure_of_odd_sizes(settings, tmp_path):
    experiment = small_vae(**{"limit": 50, "num_epoches": 1, **settings})
    experiment.folder = tmp_path
    train(experiment)
    experiment.visualize()
    assert {path.stem for path in tmp_path.iterdir()} == {
        "data_space",
        "latent_space",
        "inter_class_interpolation",
        "elbo",
    }


def test_without_a_folder_nothing_is_written(monkeypatch, tmp_path, coarse_integral):
    monkeypatch.setattr("hw5_lab.experiments.experiment.write", lambda *_: pytest.fail("wrote a file"))
    monkeypatch.setattr(hw5_vae.VAE, "folder", tmp_path / "figures")
    experiment = small_vae(limit=20, num_epoches=1, iwae_samples=2)
    train(experiment)
    experiment.visualize()
    experiment.visualize_findings(experiment.measure("full")[1])
    assert experiment.homework.visualize_data_space().shape == (307, 59)
    assert not any(tmp_path.iterdir()), "an experiment's figures are its own"


# ---- files of weights


def test_course_weights_are_written_and_read(tmp_path):
    paths = {"e_path": str(tmp_path / "e.pt"), "d_path": str(tmp_path / "d.pt")}
    experiment = small_vae(num_epoches=2, limit=100, **paths)
    for row in experiment.rows(0):
        assert not any(tmp_path.iterdir()), "the weights are written when they are trained"
        experiment.after_epoch(row["epoch"])
    experiment.write_weights()
    again = small_vae(limit=100, seed=5, **paths)
    again.load_weights()
    assert_same_weights(experiment.homework, again.homework)
    alone = hw5_vae.VAE(argparse.Namespace(hidden_units=8, resume_training=True, **paths))
    assert_same_weights(experiment.homework, alone)


def test_weights_are_written_after_the_refinement_too(tmp_path):
    paths = {"e_path": str(tmp_path / "e.pt"), "d_path": str(tmp_path / "d.pt")}
    experiment = small_vae(num_epoches=1, refine_encoder=1, limit=100, **paths)
    train(experiment)
    experiment.write_weights()
    kept = torch.load(paths["e_path"], weights_only=True)
    assert all(torch.equal(value, kept[name]) for name, value in experiment.homework.encoder.state_dict().items())


def test_building_reads_no_weights():
    """Also with --resume_training: whether a checkpoint is there is not yet known."""
    assert_same_weights(small_vae(limit=30, resume_training=True).homework, small_vae(limit=30).homework)


def write_weights(experiment):
    for network, path in experiment.weights_files():
        torch.save(network.state_dict(), path)


def test_one_course_weight_file_alone_is_refused(tmp_path):
    experiment = small_vae(limit=30, e_path=str(tmp_path / "e.pt"))
    write_weights(experiment)
    before = (tmp_path / "e.pt").read_bytes()
    with pytest.raises(ValueError, match="--d_path: no such file; --resume_training reads --e_path and --d_path"):
        experiment.load_weights()
    assert (tmp_path / "e.pt").read_bytes() == before


def test_course_weights_of_another_size_are_refused(tmp_path):
    paths = {"e_path": str(tmp_path / "e.pt"), "d_path": str(tmp_path / "d.pt")}
    experiment = small_vae(limit=30, **paths)
    write_weights(experiment)
    with pytest.raises(ValueError, match="e.pt: holds other weights than those of this Encoder"):
        small_vae(limit=30, hidden_units=9, **paths).load_weights()
    with pytest.raises(ValueError, match="nowhere: no such file"):
        small_vae(limit=30, e_path=str(tmp_path / "nowhere"), d_path=str(tmp_path / "there")).load_weights()
    nn.init.constant_(experiment.homework.decoder.fc2.bias, math.nan)
    write_weights(experiment)
    with pytest.raises(ValueError, match="d.pt: holds NaN or infinite weights"):
        small_vae(limit=30, **paths).load_weights()


def test_settings_that_are_not_given_are_those_of_the_edition():
    args = settings_of("hw5_vae")
    assert (args.num_epoches, args.batch_size, args.hidden_units, args.latent_dimension, args.data_dimension) == (
        200,
        100,
        500,
        2,
        784,
    )
    assert (args.train_size, args.lr, args.seed, args.refine_encoder) == (10_000, 1e-3, 1234, 0)


def test_a_student_may_set_double_precision(coarse_integral):
    """As one looks for a wrong gradient. Images come as the weights are; pixels are 0 and 1 in both."""
    torch.set_default_dtype(torch.float64)
    try:
        experiment = small_vae(limit=30, num_epoches=1)
        (row,) = experiment.rows(0)
        metrics, _ = experiment.measure()
    finally:
        torch.set_default_dtype(torch.float32)
    assert experiment.homework.train_images.dtype == torch.float64
    assert math.isfinite(row["train_elbo"]) and math.isfinite(metrics["test_log_likelihood_exact"])
