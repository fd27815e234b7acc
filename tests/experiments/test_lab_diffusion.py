"""hw5_lab/experiments/diffusion: the homework's training with averages, what is measured, an animation."""

import argparse
import copy
import math

import pytest
import torch
from plain import Optimal, assert_same_weights, settings_of, small_diffusion, train, without_drawing, word

import hw5_diffusion
from hw5_lab import door
from hw5_lab.experiments import diffusion
from hw5_lab.fast.layers import fuse
from hw5_lab.measures.scores import optimal_score
from hw5_lab.runs.checkpoint import restore, snapshot

EDITIONS = door.SCRIPTS["hw5_diffusion"].editions
editions = pytest.mark.parametrize("edition", EDITIONS)


def coarse(experiment, columns=10):
    """The experiment with few points in its grid, for measuring takes long."""
    grid = experiment.homework.grid
    experiment.homework.grid = lambda _: grid(columns)
    return experiment


# ---- training


def test_an_epoch_gives_the_weights_of_the_homework_alone():
    """Every bit of them with the same Adam kernel; up to rounding with the script's own."""
    settings = dict(n_epochs=2, batch_size=10, seed=3)
    experiment = small_diffusion(**settings)
    same, plain = (hw5_diffusion.ScoreMatching(argparse.Namespace(**settings)) for _ in range(2))
    fuse(*same.optimizers)
    row = next(experiment.rows(0))
    assert {name: row[name] for name in ("epoch", "loss")} == next(same.epochs())
    assert next(plain.epochs())["loss"] == pytest.approx(row["loss"], rel=1e-4)
    model = experiment.homework
    assert_same_weights(same.network, model.network)
    assert_same_weights(plain.network, model.network, 1e-4)
    assert model.sampler is model.network, "without --ema_decay samples follow the weights themselves"
    assert torch.equal(plain.noise_rng.get_state(), model.noise_rng.get_state()), "measuring draws its own noise"


def test_the_average_of_the_weights_is_the_plain_one():
    """Over two epochs, with a decay that grows with the steps: it forgets the random weights of the start."""
    experiment = small_diffusion(n_epochs=2, batch_size=3, ema_decay=0.95)
    model = experiment.homework
    average = [weight.clone() for weight in model.network.parameters()]
    ready = iter(range(1, 10**6))

    def update(*_):
        steps = next(ready)
        decay = min(0.95, steps / (9 + steps))
        for mean, weight in zip(average, model.network.parameters()):
            mean.data = decay * mean.data + (1 - decay) * weight.data

    model.optimizers[-1].register_step_post_hook(update)
    for _ in experiment.rows(0):
        pass
    assert next(ready) == 201
    for ours, theirs in zip(model.sampler.parameters(), average):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert not torch.equal(ours, next(reversed([*model.network.parameters()]))), "else this test shows nothing"


@pytest.mark.slow
def test_training_is_the_same_with_and_without_an_average():
    runs = [small_diffusion(n_epochs=1, batch_size=3, ema_decay=decay) for decay in (0.0, 0.9)]
    for experiment in runs:
        next(experiment.rows(0))
    assert_same_weights(*(experiment.homework.network for experiment in runs))


@pytest.mark.slow
@editions
def test_a_run_that_goes_on_has_the_average_of_a_whole_run(edition):
    """Through a checkpoint: also how many steps it is the average of, for later ones move it less."""
    settings = dict(n_epochs=2, batch_size=3, ema_decay=0.999)
    whole, first, second = (small_diffusion(edition, **settings) for _ in range(3))
    train(whole)
    first.record["history"].append({**next(first.rows(0)), "seconds": 0.0})
    restore(second, copy.deepcopy(snapshot(first, {}, {})), {}, "checkpoint.pt")
    for row in second.rows(1):
        second.record["history"].append({**row, "seconds": 0.0})
    assert_same_weights(whole.homework.network, second.homework.network)
    assert_same_weights(whole.homework.sampler, second.homework.sampler)
    assert whole.record["history"] == second.record["history"]


def test_state_is_all_that_the_homework_has():
    experiment = small_diffusion()
    assert set(experiment.parts) == {"network", "optimizers_0"} and set(experiment.generators) == {"noise_rng", "torch"}
    averaged = set(small_diffusion("s24").parts) - {"network", "optimizers_0", "optimizers_1"}
    assert len(averaged) == 1, "a checkpoint holds the average, once"


@pytest.mark.parametrize("edition", ["cs446", pytest.param("s24", marks=pytest.mark.slow)])
def test_steps_are_the_ticks_of_an_epoch(edition):
    experiment, ticks = small_diffusion(edition, n_epochs=1, batch_size=2), []
    for optimizer in experiment.clocks:
        optimizer.register_step_post_hook(lambda *_: ticks.append(1))
    for _ in experiment.homework.epochs():
        pass
    assert len(ticks) == experiment.steps == 100


def test_history_has_a_row_for_each_epoch():
    experiment = small_diffusion(n_epochs=2, batch_size=10)
    history = train(experiment)
    assert [row["epoch"] for row in history] == [1, 2] and all(tuple(row) == experiment.columns for row in history)
    assert history[-1]["score_error"] < history[0]["score_error"]


@pytest.mark.slow
def test_looking_changes_nothing_of_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(diffusion, "PAIRS", 1)
    without_drawing(monkeypatch)
    weights = []
    for looks in (False, True):
        experiment = coarse(small_diffusion(n_epochs=1, batch_size=10, samples=20, langevin_steps=1, ema_decay=0.9))
        experiment.folder, model, ticks = tmp_path, experiment.homework, []

        def tick(*_):
            ticks.append(1)
            if looks and len(ticks) == 50:
                assert experiment.measure() == experiment.measure()
                experiment.visualize()

        model.optimizers[0].register_step_post_hook(tick)
        next(experiment.rows(0))
        weights.append([*model.network.state_dict().values(), *model.sampler.state_dict().values()])
    assert len(ticks) == 100 and all(torch.equal(a, b) for a, b in zip(*weights))


# ---- what is measured


def test_the_error_of_a_score_is_what_it_costs():
    """The loss exceeds the least one by the error, up to noise; the probe is the same at every look."""
    experiment = small_diffusion()
    model = experiment.homework
    x, noisy, sigma, best = experiment.probe
    torch.testing.assert_close(best, optimal_score(noisy, model.train_data, sigma)[0])
    optimal = Optimal(model.train_data)
    model.average = optimal
    perfect = experiment.watch()
    assert perfect["score_error"] == pytest.approx(0, abs=1e-9)
    model.score = lambda x, sigma: optimal(x, sigma).detach() + 1 / sigma
    wrong = experiment.watch()
    assert wrong["score_error"] == pytest.approx(1, rel=1e-4), "sigma^2 / 2 * 2 / sigma^2"
    assert wrong["average_loss"] - perfect["average_loss"] == pytest.approx(1, abs=0.15)
    assert experiment.watch() == wrong


@pytest.mark.slow
def test_samples_of_the_optimal_score_are_the_data(monkeypatch):
    """The sampler alone, with a perfect score, and the measures of a model that has it, and of its opposite."""
    monkeypatch.setattr(diffusion, "PAIRS", 1)
    experiment = coarse(small_diffusion("s24", samples=100, langevin_steps=15), 15)
    model = experiment.homework
    optimal = model.average = Optimal(model.train_data)
    metrics, findings = experiment.measure()
    assert metrics["far_share"] < 0.01 and metrics["sliced_wasserstein"] < 0.25
    assert metrics["cosine_lowest_from_0.03"] == pytest.approx(1) and metrics["outside_share_towards_data"] == 1
    assert metrics["outside_cosine"] == pytest.approx(1) and metrics["score_error"] == pytest.approx(0, abs=1e-9)
    assert metrics["average_loss"] == pytest.approx(metrics["optimal_loss"]) and findings == {}
    model.score = lambda x, sigma: -optimal(x, sigma).detach()
    experiment.measure_samples = lambda: {}
    metrics, _ = experiment.measure()
    assert metrics["cosine_lowest_from_0.03"] == pytest.approx(-1) and metrics["outside_share_towards_data"] == 0


def test_a_letters_share_is_that_of_the_samples_over_that_of_the_data(monkeypatch):
    monkeypatch.setattr(diffusion, "PAIRS", 1)
    experiment = small_diffusion(samples=100)
    points, letters = experiment.homework.data
    experiment.trajectory = lambda: [points[letters == 0][:100]]
    metrics = experiment.measure_samples()
    assert metrics["share_1_C"] == pytest.approx(len(letters) / (letters == 0).sum().item(), rel=0.05)
    assert metrics["share_3_4"] == 0


@pytest.mark.slow
def test_measures_expose_a_missing_letter_and_stray_samples():
    experiment = small_diffusion(samples=2000)
    points, letters = experiment.homework.draw_data(2000, 9)
    experiment.trajectory = lambda: [points]
    metrics = experiment.measure_samples()
    shares = {name: value for name, value in metrics.items() if name.startswith("share_")}
    assert list(shares) == ["share_1_C", "share_2_S", "share_3_4", "share_4_4", "share_5_6"], "a blank is no letter"
    assert metrics["far_share"] < 0.002 and 0.8 < min(shares.values()) and max(shares.values()) < 1.2
    assert metrics["sliced_wasserstein"] < 2 * metrics["sliced_wasserstein_data"]
    experiment.trajectory = lambda: [torch.where((letters == 2)[:, None], points[letters == 0][:1], points)]
    metrics = experiment.measure_samples()
    assert metrics["share_3_4"] == 0 and metrics["share_1_C"] > 1.5
    assert metrics["sliced_wasserstein"] > 5 * metrics["sliced_wasserstein_data"]
    experiment.trajectory = lambda: [torch.where(torch.arange(2000)[:, None] < 500, points + 5, points)]
    assert experiment.measure_samples()["far_share"] == pytest.approx(0.25, abs=0.01)


def test_all_random_numbers_of_measuring_are_apart(monkeypatch):
    """Fresh draws of the word are neither the data nor each other, and no two purposes share a seed."""
    monkeypatch.setattr(diffusion, "PAIRS", 3)
    experiment, seeds = small_diffusion(samples=10, langevin_steps=1), []
    model = experiment.homework
    draw_data, fresh_rng = model.draw_data, model.fresh_rng
    model.draw_data = lambda count, offset: seeds.append(offset) or draw_data(count, offset)
    model.fresh_rng = lambda offset=0: seeds.append(offset) or fresh_rng(offset)
    experiment.watch()
    experiment.measure_samples()
    assert len(seeds) == 1 + 1 + 1 + 1 + 2 * 3, "data, probe, start, ink, pairs"
    assert len(set(seeds)) == len(seeds), "two things are drawn from the same random numbers"


def test_measure_reports_every_number(monkeypatch):
    monkeypatch.setattr(diffusion, "PAIRS", 1)
    experiment = coarse(small_diffusion(samples=20, langevin_steps=1))
    metrics, findings = experiment.measure()
    levels = [f"cosine_{sigma:.4f}" for sigma in experiment.homework.noise_levels]
    assert findings == {} and set(metrics) == {
        *levels,
        *(f"{level}_limit" for level in levels),
        "cosine_to_limit",
        "cosine_lowest_from_0.03",
        "average_loss",
        "score_error",
        "optimal_loss",
        "outside_cosine",
        "outside_share_towards_data",
        "far_share",
        "sliced_wasserstein",
        "sliced_wasserstein_data",
        *(f"share_{k}_{name}" for k, name in enumerate("CS446", 1)),
    }
    assert metrics["optimal_loss"] < metrics["average_loss"] and len(experiment.summary(metrics)) == 5


def test_the_field_is_measured_on_ten_thousand_points_of_the_window(monkeypatch):
    seen = []
    monkeypatch.setattr(diffusion, "field_cosines", lambda score, x, *more: seen.append((x, *more)) or {})
    for edition in EDITIONS:
        experiment = small_diffusion(edition, samples=20, langevin_steps=1)
        model = experiment.homework
        experiment.measure_samples = lambda: {}
        experiment.measure()
        (x, points, sigmas, lowest, knows_sigma), (horizontal, vertical) = seen.pop(), model.window
        assert len(x) == pytest.approx(10_000, rel=0.02) and torch.equal(points, model.train_data)
        assert torch.equal(sigmas, model.noise_levels) and lowest == 0.03 and knows_sigma == (edition == "s24")
        for part, (low, high) in zip(x.T, (horizontal, vertical)):
            assert (part.min().item(), part.max().item()) == pytest.approx((low, high))


def test_samples_are_drawn_anew_after_each_epoch():
    experiment = small_diffusion(n_epochs=2, batch_size=3, samples=5, langevin_steps=1)
    first = experiment.trajectory()
    assert experiment.trajectory() is first, "figures and measures look at the same samples"
    train(experiment)
    last = experiment.trajectory()
    assert last is not first and torch.equal(last[0], first[0]) and not torch.equal(last[-1], first[-1])


def test_samples_that_are_not_finite_stop():
    experiment = small_diffusion(samples=5, langevin_steps=1)
    experiment.homework.score = lambda x, sigma: x * math.nan
    with pytest.raises(ValueError, match="samples are not finite; try a smaller --langevin_eps"):
        experiment.trajectory()


# ---- figures


@pytest.mark.slow
@pytest.mark.parametrize("edition", ["s24", "cs446"])
def test_figures_and_the_animation(edition, tmp_path):
    experiment = small_diffusion(edition, samples=50, langevin_steps=2)
    experiment.folder = tmp_path
    experiment.visualize()
    assert {path.name for path in tmp_path.iterdir()} == {
        "data.png",
        "score_field.png",
        "samples.png",
        "trajectories.png",
        "sampling.gif",
    }
    frames = experiment.save_animation(frames=5)
    rows = {"cs446": 300, "s24": 120}[edition]
    assert len(frames) == 21 // 4 + 2 and frames[0].shape == (rows, 300)
    assert set(frames[0].flatten().tolist()) == {0, 255}


def test_figures_and_measures_are_of_the_same_samples(monkeypatch):
    experiment = small_diffusion(samples=5, langevin_steps=1)
    given = []
    monkeypatch.setattr(experiment.homework, "visualize", given.append)
    experiment.visualize()
    assert given[0] is experiment.trajectory()


def test_the_animation_shows_the_samples_where_they_are():
    experiment = small_diffusion()
    experiment.trajectory = lambda: [torch.tensor([[0.05, 0.95]])] * 3  # at the top left
    frame = experiment.save_animation()[-1]
    assert frame[15, 15] == 0 and (frame == 0).sum() == 1, "dark on white, the second coordinate upwards"


def test_the_drawn_score_is_that_of_the_averaged_network_at_its_sigma():
    model = small_diffusion(ema_decay=0.9).homework
    model.average = Optimal(model.train_data)
    line = torch.linspace(0, 1, 30)
    x = torch.stack(torch.meshgrid(line, line, indexing="ij"), 2).reshape(900, 2)
    expected = optimal_score(x, model.train_data, 0.03)[0]
    torch.testing.assert_close(model.plot_score(30), expected, atol=1e-2, rtol=1e-3)


def test_a_long_word_widens_the_window():
    (left, right), (bottom, top) = small_diffusion("s24", word="CS446C").homework.window
    points = word("CS446C")[0]
    assert right == pytest.approx(1.1 * points[:, 0].abs().max().item(), rel=0.01) and left == -right and right > 2.5
    assert (bottom, top) == (-1, 1)


def test_without_a_folder_nothing_is_written(monkeypatch, tmp_path):
    for name in ("experiments.experiment.write", "runs.folder.write"):
        monkeypatch.setattr(f"hw5_lab.{name}", lambda *_: pytest.fail("wrote a file"))
    monkeypatch.setattr(hw5_diffusion.ScoreMatching, "folder", tmp_path / "figures")
    small_diffusion(samples=5, langevin_steps=1).visualize()
    assert not any(tmp_path.iterdir()), "an experiment's figures are its own"


# ---- words


@pytest.mark.parametrize("text", ["hello", "Hi", "a b", "f"])
@editions
def test_short_words_fit_every_edition(edition, text):
    canvas = door.homework_class("hw5_diffusion", edition).canvas
    points, letters = word(text, 50, **canvas)
    assert len(points) == 50 and letters.max() < len(text)
    width, height = (points.max(0).values - points.min(0).values).tolist()
    assert width <= canvas["width"] * 1.001 and height <= canvas["height"][1] * 1.001


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "--word: has 0 letters; expected 1 to 100"),
        ("CS\u65e5\u672c", "DejaVu Sans has no '\u65e5', '\u672c'"),
        ("CS446" * 4, "too long"),
        ("i" * 101, "--word: has 101 letters; expected 1 to 100"),
    ],
)
@editions
def test_words_that_cannot_be_drawn_are_refused(edition, text, words, tmp_path, capsys):
    arguments = ["--edition", edition, "--word", text, "--quiet", "--output_dir", str(tmp_path)]
    assert hw5_diffusion.main(arguments) == 2
    message = capsys.readouterr().err
    assert words in message and message.startswith("hw5_diffusion.py: --word") and message.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_the_words_of_the_editions():
    assert {edition: settings_of("hw5_diffusion", edition).word for edition in EDITIONS} == {
        "cs446": "CS 446",
        "s24": "CS446",
    }
