"""hw5_lab/vae: its data, evaluation, log p(x) by two routes, what is measured, figures, files of weights."""

import argparse
import math

import numpy as np
import pytest
import torch
from plain import assert_same_weights, sample, small_vae, train, zero
from torch import nn

import hw5_vae
from hw5_lab.likelihood import log_mean_exp
from hw5_lab.vae import LabVAE

LOG2 = math.log(2)


# ---- it is the homework's VAE


def test_an_epoch_gives_the_weights_of_the_homework_alone():
    models = []
    for kind in (hw5_vae.VAE, LabVAE):
        torch.manual_seed(3)
        models.append(small_vae(kind, num_epoches=2, limit=950, seed=3))
    alone, laboratory = models
    alone.train_images = sample()[0][:950]
    alone.train_epoch(0)
    laboratory.run_epoch(0, lambda: None)
    assert_same_weights(alone, laboratory)
    assert torch.equal(alone.noise.get_state(), laboratory.noise.get_state()), "measuring draws its own noise"
    assert torch.equal(alone.shuffle.get_state(), laboratory.shuffle.get_state())


def test_the_next_epochs_are_those_of_the_homework_too(capsys):
    torch.manual_seed(3)
    alone = small_vae(hw5_vae.VAE, num_epoches=3)
    alone.train_images = sample()[0][:250]
    alone.train()
    torch.manual_seed(3)
    laboratory = small_vae(num_epoches=3, limit=250)
    train(laboratory)
    assert_same_weights(alone, laboratory)


def test_history_has_a_row_for_each_epoch():
    vae = small_vae(num_epoches=3, limit=500, hidden_units=50)
    history = train(vae)
    assert [row["epoch"] for row in history] == [1, 2, 3] and all(tuple(row) == vae.columns for row in history)
    for split in ("train", "test"):
        assert history[0][f"{split}_elbo"] < history[-1][f"{split}_elbo"], "the bound must rise"
        for row in history:
            assert row[f"{split}_elbo"] == pytest.approx(row[f"{split}_reconstruction"] - row[f"{split}_kl"])


def test_steps_are_the_ticks_of_an_epoch():
    vae, ticks = small_vae(num_epoches=1, limit=250), []
    vae.train_epoch(0, lambda: ticks.append(1))
    assert len(ticks) == vae.steps == 3, "the short last batch counts"


# ---- data


def test_building_reads_no_data(monkeypatch):
    def forbidden(*_):
        raise AssertionError("read MNIST")

    monkeypatch.setattr("hw5_utils.mnist", forbidden)
    vae = small_vae()
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
    vae = small_vae(**settings)
    arrays = vae.train_images, vae.train_labels, vae.test_images, vae.test_labels
    for ours, whole, count in zip(arrays, sample(), (train_count, train_count, test_count, test_count)):
        assert torch.equal(ours, whole[:count])
    assert sum(map(len, vae.data_tensors())) == 2 * (train_count + test_count), "a checkpoint tells its data by all"


def test_wrong_data_dimension_is_refused():
    with pytest.raises(ValueError, match="data_dimension 100: the images have 784 pixels"):
        small_vae(data_dimension=100).train_images


# ---- evaluation


def test_zero_network_gives_784_log_2():
    metrics = zero(small_vae()).evaluate()
    assert metrics["test_reconstruction"] == pytest.approx(-784 * LOG2, rel=1e-6)
    assert metrics["test_kl"] == pytest.approx(0, abs=1e-6)
    assert metrics["test_elbo"] == pytest.approx(-784 * LOG2, rel=1e-6)


def test_evaluation_changes_nothing_and_weighs_by_images():
    vae = small_vae()
    vae.splits["test"][0] = vae.test_images.repeat(2, 1)[:1300]  # one whole and one short batch
    del vae.test_images
    assert len(vae.test_images) == len(vae.held_out_images) == 1300
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    generator = vae.noise.get_state()
    torch.manual_seed(5)
    first, second = vae.evaluate(), vae.evaluate()
    assert first == second, "the same noise at every look"
    assert torch.equal(generator, vae.noise.get_state()), "training's own random numbers must not move"
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5))
    assert torch.initial_seed() == 5 and torch.equal(torch.rand(3), expected), "nor the global ones"
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())
    assert all(parameter.grad is None for parameter in vae.parameters())
    with torch.no_grad():
        noise = vae.fresh_generator()
        values = [a - b for a, b in (vae.bound(x, noise) for x in vae.test_images.split(1000))]
    assert first["test_elbo"] == pytest.approx(torch.cat(values).mean().item(), rel=1e-6), "a mean over images"


def test_training_columns_mean_what_the_held_out_ones_mean():
    """With a vanishing learning rate the epoch's mean is the bound of the same images, up to the noise in z."""
    vae = small_vae(num_epoches=1, limit=1000, lr=1e-12, hidden_units=20)
    vae.encoder.fc2_mu.bias.data.fill_(1.0)  # so that the KL is about 1
    row, expected = train(vae)[0], vae.evaluate(vae.train_images)
    for part, tolerance in (("elbo", 0.5), ("reconstruction", 0.5), ("kl", 0.1)):
        assert row[f"train_{part}"] == pytest.approx(expected[f"test_{part}"], abs=tolerance)
    assert row["train_kl"] > 0.5


def test_unscaled_images_are_refused():
    vae = small_vae(num_epoches=1)
    with pytest.raises(ValueError, match="images has values from 0 to 255"):
        vae.evaluate(torch.linspace(0, 255, 784)[None])


# ---- log p(x) by two routes


def test_log_mean_exp():
    values = torch.tensor([[0.0, -1000.0], [math.log(3.0), -1000.0]])
    torch.testing.assert_close(log_mean_exp(values), torch.tensor([LOG2, -1000.0]))


@pytest.fixture
def steep_vae():
    """A model whose decoder depends on z and whose encoder is mediocre: all three values of log p(x) differ."""
    vae = small_vae(hidden_units=30)
    vae.test_images = vae.test_images[:40]
    vae.decoder.fc1.weight.data *= 2
    vae.decoder.fc2.weight.data *= 5
    vae.encoder.fc2_sigma.bias.data -= 0.5  # so that q(z|x) is not the prior
    vae.encoder.fc2_mu.bias.data += 0.7
    return vae


def test_importance_weighted_bound_rises_from_the_elbo_to_the_exact_value(steep_vae):
    images = steep_vae.test_images
    log_p_x, kl = steep_vae.bounds(images)
    exact, error, _ = steep_vae.log_likelihood_exact(images)
    sampled = [steep_vae.log_likelihood_sampled(images, count).mean() for count in (5, 50, 2000)]
    values = [(log_p_x - kl).mean(), *sampled, exact.mean()]
    assert values[0] < values[1] < values[2] < values[3] < values[4] + 0.02, "the bound must rise with the samples"
    assert values[4] - values[0] > 1, "else this test shows nothing"
    assert values[4] - values[3] < 0.5 and error.max() < 0.1


def test_one_importance_sample_is_the_elbo(steep_vae):
    log_p_x, kl = steep_vae.bounds(steep_vae.test_images)
    one = steep_vae.log_likelihood_sampled(steep_vae.test_images, 1)  # with the same noise
    torch.testing.assert_close(one, log_p_x - kl, atol=1e-3, rtol=0)


def test_all_routes_agree_where_the_encoder_knows_the_posterior(steep_vae):
    """A decoder that ignores z, an encoder that gives the prior: q(z|x) = p(z|x), so that every weight is p(x)."""
    zero(steep_vae.encoder)
    nn.init.zeros_(steep_vae.decoder.fc1.weight)
    images = steep_vae.test_images
    expected = hw5_vae.logpdf_bernoulli(images, steep_vae.decoder(torch.zeros(1, 2))[0])
    log_p_x, kl = steep_vae.bounds(images)
    for value in (log_p_x - kl, steep_vae.log_likelihood_sampled(images, 7)):
        torch.testing.assert_close(value, expected, atol=1e-2, rtol=0)
    exact, error, _ = steep_vae.log_likelihood_exact(images)
    torch.testing.assert_close(
        exact, expected, atol=2e-2, rtol=0, msg="the prior's mass outside four deviations is 1e-4"
    )
    assert error.max() < 1e-2


def test_exact_log_likelihood_against_another_quadrature(steep_vae):
    """Gauss-Hermite nodes, in double precision, another rule for the same integral."""
    steep_vae.double()
    nn.init.normal_(steep_vae.decoder.fc1.weight, std=0.2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    z = torch.cartesian_prod(*[torch.from_numpy(nodes)] * 2)
    weight = torch.from_numpy(weights / math.sqrt(2 * math.pi)).log()
    images = steep_vae.test_images[:5].double()
    p = steep_vae.decoder(z).detach()
    log_p_x = p.log() @ images.T + (1 - p).log() @ (1 - images).T  # [10000,5]
    expected = (log_p_x + torch.cartesian_prod(weight, weight).sum(1)[:, None]).logsumexp(0)
    steep_vae.encoder.fc2_mu.bias.data += 2  # which widens the grid
    exact, _, best_z = steep_vae.log_likelihood_exact(images)
    torch.testing.assert_close(exact, expected, atol=5e-3, rtol=0)
    best = hw5_vae.logpdf_bernoulli(images, steep_vae.decoder(best_z)) - (best_z**2).sum(1) / 2
    assert (best + 0.02 >= (log_p_x - (z**2).sum(1)[:, None] / 2).max(0).values).all(), "best z is p(z|x)'s mode"


def test_the_exact_likelihood_says_when_its_grid_is_coarse(steep_vae):
    images = steep_vae.test_images[:20]
    truth, coarse, error = steep_vae.log_likelihood_exact(images)[0], *steep_vae.log_likelihood_exact(images, 61)[:2]
    distance = (coarse - truth).abs()
    assert distance.max() > 0.1, "else this test shows nothing"
    assert distance.mean() < error.mean() < 30 * distance.mean(), "the error must not be called smaller than it is"


# ---- what is measured


def test_measure_reports_every_number(tmp_path, capsys):
    vae = small_vae(limit=60, iwae_samples=3, hidden_units=20)
    vae.folder = tmp_path
    metrics = vae.measure()
    assert set(metrics) == {
        "test_elbo",
        "test_elbo_stderr",
        "test_reconstruction",
        "test_kl",
        "test_log_likelihood",
        "test_log_likelihood_stderr",
        "iwae_samples",
        "test_log_likelihood_exact",
        "test_log_likelihood_exact_stderr",
        "test_log_likelihood_exact_error",
        "train_log_likelihood_exact",
        "test_elbo_ignoring_z",
    }
    assert metrics["test_elbo"] == vae.evaluate()["test_elbo"]
    means = vae.train_images.mean(0) * 0.98 + 0.01, torch.full((784,), 0.13)
    ignoring, constant = (hw5_vae.logpdf_bernoulli(vae.test_images, p).mean().item() for p in means)
    assert metrics["test_elbo_ignoring_z"] == pytest.approx(ignoring, abs=2)
    assert metrics["test_elbo_ignoring_z"] > constant
    for name, images in (("test", vae.test_images), ("train", vae.train_images)):
        exact = vae.log_likelihood_exact(images)[0]
        assert metrics[f"{name}_log_likelihood_exact"] == pytest.approx(exact.mean().item())
        if name == "test":
            assert metrics["test_log_likelihood_exact_stderr"] == pytest.approx(exact.std().item() / math.sqrt(60))
    assert (tmp_path / "gap.png").exists() and "collapse" in capsys.readouterr().err, "an untrained model ignores z"
    assert len(vae.summary(metrics)) == 4


def test_exact_values_are_for_planes_of_latents_only():
    vae = small_vae(limit=30, iwae_samples=2, latent_dimension=3)
    metrics = vae.measure()
    assert not any("exact" in name for name in metrics) and len(vae.summary(metrics)) == 3


# ---- figures


@pytest.fixture
def drawn(tmp_path):
    vae = small_vae(limit=300)
    vae.folder = tmp_path
    return vae


def test_history_figure(drawn):
    parts = [f"{split}_{part}" for split in ("train", "test") for part in ("elbo", "reconstruction", "kl")]
    drawn.record["history"] = [{"epoch": epoch, **dict.fromkeys(parts, float(epoch))} for epoch in (1, 2)]
    assert drawn.visualize_history() == drawn.record["history"]
    assert (drawn.folder / "elbo.png").exists()


def test_gap_figure_shows_the_worst_images(drawn, monkeypatch):
    """Gaps of a known order: each of the ten columns is an image and its reconstructions at two codes."""
    shown = []
    monkeypatch.setattr("hw5_lab.vae.tile", lambda images, *size: shown.append((images, size)) or np.zeros((90, 338)))
    exact = torch.arange(300.0) / 10
    best_z = torch.stack([torch.arange(300.0) / 100] * 2, 1)
    gap = drawn.visualize_gap(torch.zeros(300), exact, best_z)
    assert torch.equal(gap, exact), "log p(x) - ELBO"
    (images, size), worst = shown[0], torch.arange(299, 289, -1)
    assert size == (3, 10)
    x, at_mean, at_best = images.view(10, 3, 784).unbind(1)
    assert torch.equal(x, drawn.test_images[worst]), "the largest gaps first"
    with torch.no_grad():
        torch.testing.assert_close(at_mean, drawn.decoder(drawn.encoder(x)[0]))
        torch.testing.assert_close(at_best, drawn.decoder(best_z[worst]))


@pytest.mark.parametrize("settings", [dict(latent_dimension=1), dict(limit=1), dict(latent_dimension=5)])
def test_every_figure_of_odd_sizes(settings, tmp_path):
    vae = small_vae(**{"limit": 50, "num_epoches": 1, **settings})
    vae.folder = tmp_path
    train(vae)
    vae.visualize()
    assert {path.stem for path in tmp_path.iterdir()} == {
        "data_space",
        "latent_space",
        "inter_class_interpolation",
        "elbo",
    }


def test_without_a_folder_nothing_is_written(monkeypatch):
    monkeypatch.setattr("hw5_lab.model.write", lambda *_: pytest.fail("wrote a file"))
    assert small_vae(limit=20).visualize_data_space().shape == (307, 59)


# ---- files of weights


def test_course_weights_are_written_and_read(tmp_path):
    paths = {"e_path": str(tmp_path / "e.pt"), "d_path": str(tmp_path / "d.pt")}
    vae = small_vae(num_epoches=2, limit=100, **paths)
    vae.run_epoch(0, lambda: None)
    vae.after_epoch(1)
    assert not any(tmp_path.iterdir()), "the weights are written when they are trained"
    vae.run_epoch(1, lambda: None)
    vae.after_epoch(2)
    assert_same_weights(vae, small_vae(resume_training=True, **paths))
    assert_same_weights(vae, small_vae(hw5_vae.VAE, resume_training=True, **paths))


def test_resuming_without_names_of_files_is_for_a_checkpoint():
    torch.manual_seed(1)
    vae = small_vae(resume_training=True)
    torch.manual_seed(1)
    assert_same_weights(vae, small_vae())


def test_one_course_weight_file_alone_is_refused(tmp_path):
    small_vae(e_path=tmp_path / "e.pt").save_weights()
    before = (tmp_path / "e.pt").read_bytes()
    with pytest.raises(ValueError, match="--d_path: no such file; --resume_training reads --e_path and --d_path"):
        small_vae(resume_training=True, e_path=tmp_path / "e.pt")
    assert (tmp_path / "e.pt").read_bytes() == before


def test_course_weights_of_another_size_are_refused(tmp_path):
    paths = {"e_path": str(tmp_path / "e.pt"), "d_path": str(tmp_path / "d.pt")}
    vae = small_vae(**paths)
    vae.save_weights()
    with pytest.raises(ValueError, match="e.pt: holds other weights than those of this Encoder"):
        small_vae(hidden_units=9, resume_training=True, **paths)
    with pytest.raises(ValueError, match="nowhere: no such file"):
        small_vae(resume_training=True, e_path="nowhere", d_path="nowhere")
    nn.init.constant_(vae.decoder.fc2.bias, math.nan)
    vae.save_weights()
    with pytest.raises(ValueError, match="d.pt: holds NaN or infinite weights"):
        small_vae(resume_training=True, **paths)


def test_settings_that_are_not_given_are_those_of_the_edition():
    args = LabVAE(argparse.Namespace()).args
    assert (args.num_epoches, args.batch_size, args.hidden_units, args.latent_dimension, args.data_dimension) == (
        200,
        100,
        500,
        2,
        784,
    )
    assert (args.train_size, args.lr, args.seed, args.refine_encoder) == (10_000, 1e-3, 1234, 0)
