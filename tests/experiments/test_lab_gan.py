"""hw5_lab/experiments/gan: the homework's training, what is kept of it, and how good its samples are."""

import copy
import re

import numpy as np
import pytest
import torch
from helpers import SAMPLE
from matplotlib.colors import to_rgba
from plain import (
    assert_same_weights,
    curves,
    figures_of,
    judge,
    settings_of,
    small_gan,
    train,
    without_drawing,
    zero,
)
from torch import nn

import hw5_gan
import hw5_utils as utils
from hw5_gan import tile
from hw5_lab.experiments.gan import LABELS
from hw5_lab.fast.layers import fuse, speed_up
from hw5_lab.measures.images import Evaluator, frechet_distance, in_unit
from hw5_lab.runs.checkpoint import restore, snapshot

# ---- it is the homework's GAN


def alone(args):
    """The homework without the laboratory, on the first images of the sample."""
    gan = hw5_gan.GAN(args.zdim, args.seed)
    gan.train_images = torch.tensor(utils.mnist(SAMPLE)[0][: args.limit]).unsqueeze(1)
    gan.set_up(args.iter_d, args.iter_g, args.n_epochs, args.batch_size, args.lr)
    return gan


@pytest.mark.parametrize(
    "settings", [{}, pytest.param(dict(iter_d=2, iter_g=3, lr=1e-3, zdim=9, seed=5), marks=pytest.mark.slow)]
)
def test_training_gives_the_weights_of_the_homework_alone(settings):
    """Every bit of them with the same layers and kernels; up to rounding with the script's own."""
    experiment = small_gan(**settings)
    gan, same, plain = experiment.homework, alone(experiment.args), alone(experiment.args)
    speed_up(same.disc, same.gen)
    fuse(same.optim_d, same.optim_g)
    history = train(experiment)
    for row, theirs, other in zip(history, same.epochs(), plain.epochs(), strict=True):
        assert {name: row[name] for name in theirs} == theirs
        assert theirs == pytest.approx(other, rel=1e-4)
    for network in ("disc", "gen"):
        assert_same_weights(getattr(same, network), getattr(gan, network))
        # Rounding turns Adam's step for a weight that has nearly no gradient: so the mean is compared
        pairs = zip(getattr(plain, network).parameters(), getattr(gan, network).parameters(), strict=True)
        assert all((a - b).abs().mean() < experiment.args.lr / 20 for a, b in pairs)
    assert torch.equal(plain.noise_rng.get_state(), gan.noise_rng.get_state()), "measuring draws its own noise"
    assert torch.equal(plain.shuffle_rng.get_state(), gan.shuffle_rng.get_state())
    assert torch.equal(plain.fixed_z, gan.fixed_z), "and shows the same samples"


def test_history_has_a_row_for_each_epoch():
    experiment = small_gan()
    history = train(experiment)
    assert [row["epoch"] for row in history] == [1, 2] and all(tuple(row) == experiment.columns for row in history)


@pytest.mark.parametrize("iter_d, iter_g", [(1, 1), (3, 2)])
def test_steps_are_the_ticks_of_an_epoch(iter_d, iter_g):
    experiment, ticks = small_gan(iter_d=iter_d, iter_g=iter_g), []
    for optimizer in experiment.clocks:
        optimizer.register_step_post_hook(lambda *_: ticks.append(1))
    train(experiment)
    assert len(ticks) == experiment.epochs * experiment.steps == 2 * 3 * iter_g


def test_state_is_all_that_the_homework_has():
    experiment = small_gan()
    assert set(experiment.parts) == {"disc", "gen", "optim_d", "optim_g"}
    assert set(experiment.generators) == {"shuffle_rng", "noise_rng", "torch"}
    assert set(experiment.record) == {"history", "frames", "snapshots", "best"}


def test_data_are_cut_to_the_limit():
    experiment, whole = small_gan(limit=40, data_dir=SAMPLE), utils.mnist(SAMPLE)
    for ours, theirs in zip(experiment.data, whole):
        np.testing.assert_array_equal(ours.numpy().squeeze(), theirs[:40])
    assert torch.equal(experiment.homework.train_images, experiment.data[0])
    assert len(small_gan(limit=None).homework.train_images) == 4000
    assert experiment.data[0].dtype == torch.uint8 and experiment.data[1].dtype == torch.long
    assert (
        experiment.data_in_words() == "40 of the digits of data/sample" and experiment.data_tensors() is experiment.data
    )


def test_too_few_images_for_a_batch_are_refused_before_the_training():
    with pytest.raises(ValueError, match="batch_size 32: more than the 30 training images; use less"):
        small_gan(limit=30)


# ---- how good samples are


def test_the_classifier_is_ready_before_the_first_epoch(tmp_path):
    experiment = small_gan(folder=tmp_path)
    assert experiment.evaluator.path == tmp_path / "classifier.pt"
    experiment.get_ready()
    assert experiment.evaluator.fitted and experiment.evaluator.path.exists()


@pytest.fixture(scope="module")
def judged():
    """A GAN on the whole sample, with an evaluator that has learned its digits."""
    experiment = small_gan(limit=None)
    experiment.evaluator, _ = judge()
    return experiment


class Copies(nn.Module):
    """A generator that hands out these images in turn."""

    def __init__(self, images):
        super().__init__()
        self.images = nn.Parameter(images)

    def forward(self, z):
        return self.images[torch.arange(len(z)) % len(self.images)]


def with_images(judged, images):
    """An experiment whose generator makes these images."""
    other = small_gan(limit=None)
    other.data, other.evaluator, other.homework.average = judged.data, judged.evaluator, Copies(images)
    return other


def test_collapsed_and_memorising_generators_are_exposed(judged):
    images, digits, _, _ = judged.data
    real = in_unit(images)
    perfect, one, copied = (
        with_images(judged, copies).measure()[0] for copies in (real[:2000], real[5:6], real[:2000] + 1e-6)
    )
    assert perfect["frechet_distance"] < 3 * perfect["frechet_distance_real"], "real images are as good as real images"
    assert perfect["precision"] > 0.7 and perfect["recall"] > 0.7
    assert perfect["inception_score"] > 0.8 * perfect["inception_score_real"]
    shares = [perfect[f"share_{digit}"] for digit in range(10)]
    assert sum(shares) == pytest.approx(1) and min(shares) > 0.05
    assert one["frechet_distance"] > 20 * perfect["frechet_distance"] and one["recall"] < 0.01 and one["precision"] == 1
    assert one["inception_score"] == pytest.approx(1, abs=1e-3) and one[f"share_{digits[5]}"] == 1
    assert copied["nearest_distance"] < 0.1 < copied["nearest_distance_real"], "nothing but training images"
    assert perfect["classifier_accuracy"] > 0.9


def test_what_chooses_the_best_epoch_is_not_what_is_reported():
    """No noise of watch() comes again in measure(), nor in the samples that figures show."""
    experiment, seen = small_gan(limit=300), []
    gan = experiment.homework
    generate = gan.generate
    gan.generate = lambda z, gen=None: seen.append(z.clone()) or generate(z, gen)
    experiment.get_ready()
    experiment.watch()
    (choosing,) = seen
    seen.clear()
    experiment.measure()
    reported = torch.cat(seen)
    assert choosing.shape == (300, 64) and reported.shape == (600, 64)
    assert torch.equal(*seen), "the best and the last generator are compared on the same noise"
    assert torch.cdist(choosing, reported).min() > 0.1, "noise that chose the epoch flatters it: REPORT must differ"
    assert torch.cdist(gan.fixed_z, torch.cat([choosing, reported])).min() > 0.1


def test_the_distance_of_an_epoch_is_to_the_training_images(judged):
    """With as many samples as training images, here the first thousand over and over."""
    real, judge = in_unit(judged.data[0][:1000]), judged.evaluator
    expected = frechet_distance(judge.classify(real)[0], judge.train_features)
    assert with_images(judged, real).watch()["frechet_train"] == pytest.approx(expected.item(), rel=1e-6)


def test_the_best_epoch_is_kept_without_a_look_at_the_test_images(tmp_path):
    runs = []
    for blind in (False, True):
        experiment = small_gan(folder=tmp_path / str(blind), limit=160, n_epochs=4, lr=3e-3)
        experiment.folder.mkdir()
        if blind:
            experiment.data[2].zero_(), experiment.data[3].zero_()
        experiment.get_ready()
        kept, history = {}, experiment.record["history"]
        for row in experiment.rows(0):
            kept[row["frechet_train"]] = experiment.sampler_weights()
            history.append(row)
            experiment.after_epoch(len(history))
        best, in_file = experiment.record["best"], torch.load(experiment.folder / "best.pt", weights_only=True)
        assert best["frechet_train"] == min(kept), "the smallest distance to the training images"
        assert best["epoch"] == 1 + [row["frechet_train"] for row in history].index(min(kept))
        assert {**best, "gen": None} == {**in_file, "gen": None}
        for name, value in kept[min(kept)].items():
            assert torch.equal(best["gen"][name], value) and torch.equal(in_file["gen"][name], value)
        runs.append(best["frechet_train"])
    assert runs[0] == runs[1], "the test images must not choose the epoch"


def test_the_best_generator_is_measured():
    experiment = small_gan(n_epochs=1)
    row = train(experiment)[0]
    gen, before = experiment.homework.gen, experiment.sampler_weights()
    metrics, _ = experiment.measure()
    assert metrics["best_epoch"] == 1 and metrics["loss_d"] == row["loss_d"]
    lines = experiment.summary(metrics)
    for line, name, digits in ((lines[1], "frechet_distance", 1), (lines[2], "inception_score", 2)):
        shown = [float(number) for number in re.findall(r"(?:  |images )(\d+\.\d+)", line)]
        assert shown == [round(metrics[each], digits) for each in (name, f"{name}_real")], line
    assert metrics["comparable"] is False and len(lines) == 5 and "not comparable" in lines[-1], "96 are few images"
    assert experiment.summary({name: value for name, value in metrics.items() if name != "comparable"}) == lines[:-1]
    after = experiment.sampler_weights()
    assert all(torch.equal(value, before[name]) for name, value in after.items()), "measuring trains"
    assert metrics["frechet_distance"] == metrics["frechet_distance_last"]
    nn.init.zeros_(gen.conv3.weight)
    again, _ = experiment.measure()
    assert again["frechet_distance"] == metrics["frechet_distance"], "what is measured is the best generator"
    assert again["frechet_distance_last"] != metrics["frechet_distance_last"]


def test_samples_that_are_not_finite_stop():
    experiment = small_gan()
    experiment.get_ready()
    nn.init.constant_(experiment.homework.gen.conv3.bias, torch.nan)
    with pytest.raises(FloatingPointError, match="samples of G are not finite; try a smaller --lr"):
        experiment.watch()
    assert experiment.record["best"] is None


# ---- what is kept of the training


def test_snapshots_are_the_generator_as_it_was():
    experiment, kept = small_gan(n_epochs=5, limit=32), {}
    experiment.get_ready()
    for row in experiment.rows(0):
        experiment.record["history"].append(row)
        experiment.after_epoch(row["epoch"])
        gen = experiment.homework.gen
        kept[row["epoch"]] = {name: value.clone() for name, value in gen.state_dict().items()}
    snapshots = experiment.record["snapshots"]
    assert [epoch for epoch, _ in snapshots] == [1, 2, 3, 5] == sorted(experiment.snapshot_epochs)
    for epoch, weights in snapshots:
        assert weights.keys() == kept[epoch].keys()
        for name, value in weights.items():
            assert torch.equal(value, kept[epoch][name]), f"snapshot of epoch {epoch}: a later generator's weights"


@pytest.mark.parametrize("epochs, expected", [(1, {1}), (3, {1, 2, 3}), (100, {3, 11, 25, 44, 69, 100})])
def test_snapshots_are_closer_together_in_the_beginning(epochs, expected):
    assert small_gan(n_epochs=epochs).snapshot_epochs == expected


def test_frames_are_the_samples_after_each_epoch():
    experiment = small_gan()
    train(experiment)
    frames, gan = experiment.record["frames"], experiment.homework
    assert len(frames) == 2 and frames[0].shape == (245, 245) and frames[0].dtype == torch.uint8
    assert torch.equal(frames[1], torch.from_numpy(tile(gan.generate(gan.fixed_z)) * 255).to(torch.uint8))
    assert not torch.equal(*frames)


# ---- an average of the generator's weights


def test_without_the_flag_nothing_is_averaged():
    experiment = small_gan()
    assert experiment.homework.sampler is experiment.homework.gen and "average" not in experiment.parts


def test_the_average_is_the_plain_one_and_draws_all_samples():
    """Over two epochs, with a share that grows with the steps: it forgets the random weights of the start."""
    experiment = small_gan(ema_decay=0.5)
    gan, average = experiment.homework, [weight.clone() for weight in experiment.homework.gen.parameters()]
    done = iter(range(1, 10**6))

    def update(*_):
        step = next(done)
        keep = min(0.5, step / (9 + step))
        for mean, weight in zip(average, gan.gen.parameters()):
            mean.data = keep * mean.data + (1 - keep) * weight.data

    gan.optim_g.register_step_post_hook(update)
    train(experiment)
    assert next(done) == 7, "after each of the 6 steps of G"
    for ours, theirs in zip(gan.sampler.parameters(), average, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert not torch.equal(gan.sampler.linear.weight, gan.gen.linear.weight), "else this test shows nothing"
    assert torch.equal(gan.generate(gan.fixed_z), gan.generate(gan.fixed_z, gan.sampler))
    assert not torch.equal(gan.generate(gan.fixed_z), gan.generate(gan.fixed_z, gan.gen))


@pytest.mark.slow
def test_training_is_the_same_with_and_without_an_average():
    runs = [small_gan(ema_decay=decay) for decay in (0.0, 0.9)]
    for experiment in runs:
        train(experiment)
    for network in ("disc", "gen"):
        assert_same_weights(*(getattr(experiment.homework, network) for experiment in runs))


def test_a_run_that_goes_on_has_the_average_of_a_whole_run():
    """Through a checkpoint: also how many steps it is the average of, for later ones move it less."""
    whole, first, second = (small_gan(ema_decay=0.999) for _ in range(3))
    train(whole)
    first.get_ready()
    first.record["history"].append({**next(first.rows(0)), "seconds": 0.0})
    first.after_epoch(1)
    restore(second, copy.deepcopy(snapshot(first, {}, {})), {}, "checkpoint.pt")
    second.get_ready()
    for row in second.rows(1):
        second.record["history"].append({**row, "seconds": 0.0})
    assert_same_weights(whole.homework.gen, second.homework.gen)
    assert_same_weights(whole.homework.sampler, second.homework.sampler)
    assert whole.record["history"] == second.record["history"]


# ---- figures


@pytest.mark.parametrize("epochs, drawn", [(22, [10, 20, 22]), (20, [7, 13, 20]), (6, [2, 4, 6]), (2, [0, 1, 2])])
def test_samples_are_drawn_every_ten_epochs_and_at_the_end(epochs, drawn):
    """Of a short run after each third. Before the first epoch comes what the samples should look like."""
    experiment, saved = small_gan(limit=32, n_epochs=epochs), []
    experiment.homework.save = lambda figure, name: saved.append(name)
    for epoch in range(epochs + 1):
        experiment.after_epoch(epoch)
    assert saved == ["goal.png", *(f"samples_epoch_{epoch}.png" for epoch in drawn)]


def test_looking_moves_no_random_numbers_of_training(tmp_path, monkeypatch):
    without_drawing(monkeypatch)
    experiment = small_gan(folder=tmp_path)
    experiment.get_ready()
    gan = experiment.homework
    states = lambda: [gan.shuffle_rng.get_state(), gan.noise_rng.get_state(), torch.get_rng_state()]
    before = states()
    experiment.after_epoch(0), experiment.after_epoch(1), experiment.watch()
    experiment.visualize(), experiment.visualize_findings(experiment.measure()[1])
    assert all(map(torch.equal, before, states()))


def test_curves_of_the_history():
    experiment = small_gan()
    figures, names = figures_of(experiment), experiment.shown
    values = [{name: epoch + place / 10 for place, name in enumerate(names)} for epoch in (1, 2)]
    experiment.record["history"] = [{"epoch": epoch, **row} for epoch, row in enumerate(values, 1)]
    experiment.visualize_history()
    left, right = figures["losses.png"].axes
    shown = {label: [row[name] for row in values] for name, label in LABELS.items()}
    assert {**curves(left), **curves(right)} == shown
    assert set(curves(left)) == {"loss of D", "loss of G"}


@pytest.mark.slow
def test_figures_of_the_history(tmp_path):
    experiment = small_gan(folder=tmp_path)
    history = train(experiment)
    experiment.visualize()
    assert experiment.visualize_history() is history
    assert {"losses.png", "training.gif", "best.pt", "classifier.pt"} <= {path.name for path in tmp_path.iterdir()}


def test_the_homework_is_told_what_the_classifier_sees_in_its_samples(judged, monkeypatch):
    """Of the fixed noise: the homework of another edition draws a line between two digits."""
    experiment, told = with_images(judged, in_unit(judged.data[0][:64])), []
    monkeypatch.setattr(experiment.homework, "visualize", told.append)
    experiment.visualize()
    (classes,) = told
    assert classes.shape == (64,) and (classes == judged.data[1][:64]).float().mean() > 0.85


def test_quality_figure_shows_samples_above_their_neighbours(judged):
    """A generator of training images, with one pixel brighter: each stands above its own original."""
    images = in_unit(judged.data[0][:1000]).clone()
    strength = torch.linspace(1, 0.3, 1000)[torch.randperm(1000)]
    images[:, 0, 0, 0] = strength  # how far each sample is from its original
    experiment = with_images(judged, images)
    metrics, findings = experiment.measure()
    picture = experiment.visualize_findings(findings)
    assert picture.shape == (4 * 28, 10 * 28)
    rows = torch.from_numpy(picture).view(4, 28, 10, 28).transpose(1, 2).unsqueeze(2)  # [4,10,1,28,28]
    originals, nearest = in_unit(judged.data[0]), strength.argsort()[:10]
    for row, expected in zip(rows, (images[:10], originals[:10], images[nearest], originals[nearest])):
        torch.testing.assert_close(row, expected, msg="samples above their originals: the first ten, the ten nearest")
    assert metrics["nearest_distance"] == pytest.approx(strength.median().item(), abs=0.02)
    shares = [share.sum().item() for share in findings["shares"]]
    assert shares == pytest.approx([1, 1])
    digits = judged.evaluator.classify(in_unit(judged.data[2]))[1].argmax(1).bincount(minlength=10) / 1000
    torch.testing.assert_close(findings["shares"][1], digits)
    assert metrics["share_3"] == pytest.approx(findings["shares"][0][3].item())


def test_the_bars_of_shares_have_the_colours_of_the_page(monkeypatch):
    """Real images blue, samples orange, and each bar as high as its share."""
    experiment, figures = small_gan(), []
    monkeypatch.setattr(experiment, "save", lambda figure, name: figures.append(figure))
    findings = experiment.measure()[1]
    experiment.visualize_findings(findings)
    bars = {group.get_label(): group.patches for group in figures[0].axes[0].containers}
    for (label, ink), shares in zip([("samples", "C1"), ("test images", "C0")], findings["shares"]):
        assert [bar.get_height() for bar in bars[label]] == pytest.approx(shares.tolist())
        assert {bar.get_facecolor() for bar in bars[label]} == {to_rgba(ink)}


def test_the_figure_of_what_was_found_is_drawn_when_it_is_asked_for(tmp_path):
    experiment = small_gan(folder=tmp_path)
    findings = experiment.measure()[1]
    assert not list(tmp_path.glob("*.png")), "measuring draws nothing"
    experiment.visualize_findings(findings)
    assert [path.name for path in tmp_path.glob("*.png")] == ["quality.png"]


def test_without_a_folder_nothing_is_written(monkeypatch, tmp_path):
    for name in ("experiments.experiment.write", "runs.folder.write", "measures.images.save_tensors"):
        monkeypatch.setattr(f"hw5_lab.{name}", lambda *_: pytest.fail("wrote a file"))
    monkeypatch.setattr(hw5_gan.GAN, "folder", tmp_path / "figures")
    experiment = small_gan(n_epochs=1)
    train(experiment)
    experiment.visualize()
    experiment.visualize_findings(experiment.measure()[1])
    assert not any(tmp_path.iterdir()), "an experiment's figures are its own"


def test_without_training_the_present_generator_is_measured():
    """As in --evaluate of weights alone: no history, no best epoch."""
    experiment = small_gan()
    zero(experiment.homework.gen)
    metrics, _ = experiment.measure()
    assert "best_epoch" not in metrics and metrics["frechet_distance"] == metrics["frechet_distance_last"]


def test_settings_of_the_homework():
    args = settings_of("hw5_gan")
    assert {name: getattr(args, name) for name in hw5_gan.DEFAULTS} == hw5_gan.DEFAULTS
    assert hw5_gan.DEFAULTS == {
        "n_epochs": 100,
        "iter_d": 1,
        "iter_g": 1,
        "batch_size": 256,
        "lr": 2e-4,
        "zdim": 64,
        "seed": 2,
    }
    assert args.ema_decay == 0 and isinstance(small_gan().evaluator, Evaluator)
