"""hw5_lab/diffusion: the best possible score, the homework's training with averages, and what is measured."""

import argparse
import math
from functools import partial

import pytest
import torch
from plain import Optimal, assert_same_weights, small_model, train, word

import hw5_diffusion
from hw5_lab import diffusion
from hw5_lab.diffusion import optimal_score, sliced_wasserstein
from hw5_lab.editions import s24

editions = pytest.mark.parametrize("kind", diffusion.editions().values(), ids=diffusion.editions())


# ---- maths


@pytest.mark.parametrize("sigma", [0.05, 0.7])
def test_optimal_score_is_the_gradient_of_the_log_density(sigma):
    points, x = torch.rand(40, 2, dtype=torch.double), torch.randn(25, 2, dtype=torch.double, requires_grad=True)
    components = torch.distributions.Normal(points, torch.tensor(sigma, dtype=torch.double)).log_prob(x[:, None]).sum(2)
    log_density = components.logsumexp(1) - math.log(40)
    (gradient,) = torch.autograd.grad(log_density.sum(), x)
    score, ours = optimal_score(x.detach(), points, sigma)
    torch.testing.assert_close(score, gradient)
    torch.testing.assert_close(ours, log_density.detach())
    per_point, _ = optimal_score(x.detach(), points, torch.full((25,), sigma))
    torch.testing.assert_close(per_point, gradient)


def test_optimal_score_far_from_the_data_and_in_blocks():
    """More points than a block holds, each with a sigma of its own, far enough for exp to underflow."""
    points, x = torch.rand(30, 2), 20 * torch.randn(1100, 2)
    sigma = torch.rand(1100, 1) + 0.01
    score, log_p = optimal_score(x, points, sigma)
    assert score.isfinite().all() and log_p.isfinite().all()
    for row in (0, 499, 500, 1099):
        alone = optimal_score(x[row : row + 1], points, sigma[row])
        torch.testing.assert_close(score[row : row + 1], alone[0])
        torch.testing.assert_close(log_p[row : row + 1], alone[1])


def test_sliced_wasserstein():
    """A shift by d moves projections by |d cos|, 2/pi |d| in the mean; a set is at no distance from itself."""
    a, shift = torch.randn(3000, 2), torch.tensor([0.6, -0.8])
    assert sliced_wasserstein(a, a + shift).item() == pytest.approx(2 / math.pi, rel=1e-3)
    assert sliced_wasserstein(a, a.flip(0)).item() == 0, "the order of points says nothing"
    assert sliced_wasserstein(a, a.repeat(2, 1)).item() == pytest.approx(0, abs=5e-3)


# ---- training


def test_an_epoch_gives_the_weights_of_the_homework_alone():
    settings = argparse.Namespace(n_epochs=2, batch_size=10, seed=3)
    alone, laboratory = hw5_diffusion.ScoreMatching(settings), diffusion.LabScoreMatching(settings)
    row = alone.train_epoch(0)
    assert laboratory.run_epoch(0, lambda: None)["loss"] == row["loss"]
    assert_same_weights(alone.network, laboratory.network)
    assert_same_weights(alone.network, laboratory.average)  # without --ema_decay it is the weights themselves
    assert torch.equal(alone.noise.get_state(), laboratory.noise.get_state()), "measuring draws its own noise"


def test_the_average_of_the_weights_is_the_plain_one():
    """Over two epochs, with a decay that grows with the steps: it forgets the random weights of the start."""
    one = small_model(n_epochs=2, batch_size=3, ema_decay=0.95)
    average = [weight.clone() for weight in one.network.parameters()]

    def update():
        update.steps += 1
        decay = min(0.95, update.steps / (9 + update.steps))
        for mean, weight in zip(average, one.network.parameters()):
            mean.data = decay * mean.data + (1 - decay) * weight.data

    update.steps = 0
    for epoch in range(2):
        one.train_epoch(epoch, update)
    for ours, theirs in zip(one.average.parameters(), average):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert not torch.equal(ours, next(reversed([*one.network.parameters()]))), "else this test shows nothing"


def test_history_has_a_row_for_each_epoch():
    one = small_model(n_epochs=2, batch_size=10)
    history = train(one)
    assert [row["epoch"] for row in history] == [1, 2] and all(tuple(row) == one.columns for row in history)
    assert history[-1]["score_error"] < history[0]["score_error"]


def test_looking_changes_nothing_of_the_training(tmp_path):
    weights = []
    for looks in (False, True):
        one = small_model(n_epochs=1, batch_size=10, samples=20, langevin_steps=1)
        one.folder, one.measure_field, ticks = tmp_path, partial(one.measure_field, 100), []

        def tick():
            ticks.append(1)
            if looks and len(ticks) == 50:
                assert one.measure() == one.measure()
                one.visualize()

        one.run_epoch(0, tick)
        weights.append([*one.network.state_dict().values(), *one.average.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*weights))


# ---- what is measured


def test_the_error_of_a_score_is_what_it_costs():
    """The loss exceeds the least one by the error, up to noise; the probe is the same at every look."""
    one = small_model()
    x, noisy, sigma, best = one.probe
    torch.testing.assert_close(best, optimal_score(noisy, one.train_data, sigma)[0])
    one.average = Optimal(one.train_data)
    perfect = one.look()
    assert perfect["score_error"] == pytest.approx(0, abs=1e-9)
    one.average = lambda x, sigma: optimal_score(x, one.train_data, sigma)[0] + 1 / sigma
    wrong = one.look()
    assert wrong["score_error"] == pytest.approx(1, rel=1e-4), "sigma^2 / 2 * 2 / sigma^2"
    assert wrong["average_loss"] - perfect["average_loss"] == pytest.approx(1, abs=0.15)
    assert one.look() == wrong


def test_samples_of_the_optimal_score_are_the_data(monkeypatch):
    """The sampler alone, with a perfect score, and the measures of a model that has it."""
    monkeypatch.setattr(diffusion, "PAIRS", 1)
    perfect = small_model(s24.ScoreMatching, samples=200, langevin_steps=20)
    perfect.average = Optimal(perfect.train_data)
    metrics = perfect.measure_samples()
    assert metrics["far_share"] < 0.01 and metrics["sliced_wasserstein"] < 0.25
    metrics = perfect.measure_field(200)
    assert metrics["cosine_lowest_from_0.03"] == pytest.approx(1) and metrics["outside_share_towards_data"] == 1
    assert metrics["outside_cosine"] == pytest.approx(1)
    perfect.average = lambda x, sigma: -optimal_score(x, perfect.train_data, sigma)[0]
    metrics = perfect.measure_field(200)
    assert metrics["cosine_lowest_from_0.03"] == pytest.approx(-1) and metrics["outside_share_towards_data"] == 0
    right = lambda x, sigma: optimal_score(x, perfect.train_data, sigma)[0]
    perfect.average = lambda x, sigma: right(x, sigma) * (1 if sigma > 0.03 else -1)
    metrics = perfect.measure_field(200)
    assert metrics["cosine_lowest_from_0.03"] == pytest.approx(1), "of the levels from 0.03 on"
    assert metrics["cosine_0.0213"] == pytest.approx(-1)


def test_a_network_that_is_not_told_sigma_has_a_limit():
    """It can follow the mean over the levels of sigma times the score; every other field has more loss."""
    one = small_model()
    points, sigmas = one.train_data, one.noise_levels

    def blind(x, sigma):
        scores, log_p = zip(*(optimal_score(x, points, level) for level in sigmas))
        shares = torch.stack(log_p).softmax(0)
        return torch.einsum("lnd,ln,l->nd", torch.stack(scores), shares, sigmas) / hw5_diffusion.column(sigma, x)

    x, noisy, sigma, best = one.probe
    direction = blind(noisy, 1.0)  # once, for all losses
    loss = lambda score: hw5_diffusion.weighted_error(score, (x - noisy) / sigma**2, sigma).mean().item()
    assert loss(best) < loss(direction / sigma) < min(loss(factor * direction / sigma) for factor in (0.8, 1.2))
    one.average = blind
    metrics = one.measure_field(200)
    assert metrics["cosine_to_limit"] == pytest.approx(1)
    for sigma in sigmas:
        assert metrics[f"cosine_{sigma:.4f}"] == pytest.approx(metrics[f"cosine_{sigma:.4f}_limit"], abs=1e-4)
    one.average = lambda x, sigma: -blind(x, sigma)
    assert one.measure_field(200)["cosine_to_limit"] == pytest.approx(-1)


def test_measures_expose_a_missing_letter_and_stray_samples(monkeypatch):
    monkeypatch.setattr(diffusion, "PAIRS", 2)
    good = small_model(samples=2000)
    points, letters = good.draw_data(2000, 9)
    good.trajectory = lambda: [points]
    metrics = good.measure_samples()
    shares = {name: value for name, value in metrics.items() if name.startswith("share_")}
    assert list(shares) == ["share_1_C", "share_2_S", "share_3_4", "share_4_4", "share_5_6"], "a blank is no letter"
    assert metrics["far_share"] < 0.002 and 0.8 < min(shares.values()) and max(shares.values()) < 1.2
    assert metrics["sliced_wasserstein"] < 3 * metrics["sliced_wasserstein_data"]
    good.trajectory = lambda: [torch.where((letters == 2)[:, None], points[letters == 0][:1], points)]
    metrics = good.measure_samples()
    assert metrics["share_3_4"] == 0 and metrics["share_1_C"] > 1.5
    assert metrics["sliced_wasserstein"] > 5 * metrics["sliced_wasserstein_data"]
    good.trajectory = lambda: [torch.where(torch.arange(2000)[:, None] < 500, points + 5, points)]
    assert good.measure_samples()["far_share"] == pytest.approx(0.25, abs=0.01)


def test_all_random_numbers_of_measuring_are_apart(monkeypatch):
    """Fresh draws of the word are neither the data nor each other, and no two purposes share a seed."""
    monkeypatch.setattr(diffusion, "PAIRS", 3)
    one, seeds = small_model(samples=10, langevin_steps=1), []
    draw_data, fresh_generator = one.draw_data, one.fresh_generator
    one.draw_data = lambda count, offset: seeds.append(offset) or draw_data(count, offset)
    one.fresh_generator = lambda offset=0: seeds.append(offset) or fresh_generator(offset)
    one.look()
    one.measure_samples()
    assert len(seeds) == 1 + 1 + 1 + 1 + 2 * 3, "data, probe, start, ink, pairs"
    assert len(set(seeds)) == len(seeds), "two things are drawn from the same random numbers"


def test_measure_reports_every_number(monkeypatch):
    monkeypatch.setattr(diffusion, "PAIRS", 1)
    one = small_model(samples=20, langevin_steps=1)
    one.measure_field = partial(one.measure_field, 100)
    metrics = one.measure()
    levels = [f"cosine_{sigma:.4f}" for sigma in one.noise_levels]
    assert set(metrics) == {
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
    assert metrics["optimal_loss"] < metrics["average_loss"] and len(one.summary(metrics)) == 5


def test_samples_are_drawn_anew_after_each_epoch():
    one = small_model(n_epochs=2, batch_size=3, samples=5, langevin_steps=1)
    first = one.trajectory()
    assert one.trajectory() is first, "figures and measures look at the same samples"
    train(one)
    last = one.trajectory()
    assert last is not first and torch.equal(last[0], first[0]) and not torch.equal(last[-1], first[-1])


def test_samples_that_are_not_finite_stop():
    one = small_model(samples=5, langevin_steps=1)
    one.average = lambda x, sigma: x * math.nan
    with pytest.raises(ValueError, match="samples are not finite; try a smaller --langevin_eps"):
        one.trajectory()


# ---- figures


@editions
def test_figures_and_the_animation(kind, tmp_path):
    one = small_model(kind, samples=50, langevin_steps=2)
    one.folder = tmp_path
    one.visualize()
    assert {path.name for path in tmp_path.iterdir()} == {
        "data.png",
        "score_field.png",
        "samples.png",
        "trajectories.png",
        "sampling.gif",
    }
    frames = one.save_animation(frames=5)
    rows = {"cs446": 300, "s24": 120}[kind.edition]
    assert len(frames) == 21 // 4 + 2 and frames[0].shape == (rows, 300)
    assert set(frames[0].flatten().tolist()) == {0, 255}


def test_the_animation_shows_the_samples_where_they_are():
    one = small_model()
    one.trajectory = lambda: [torch.tensor([[0.05, 0.95]])] * 3  # at the top left
    frame = one.save_animation()[-1]
    assert frame[15, 15] == 0 and (frame == 0).sum() == 1, "dark on white, the second coordinate upwards"


def test_the_drawn_score_is_that_of_the_averaged_network_at_its_sigma():
    one = small_model()
    one.average = Optimal(one.train_data)
    line = torch.linspace(0, 1, 30)
    x = torch.stack(torch.meshgrid(line, line, indexing="ij"), 2).reshape(900, 2)
    expected = optimal_score(x, one.train_data, 0.03)[0]
    torch.testing.assert_close(one.plot_score(30), expected, atol=1e-2, rtol=1e-3)


def test_a_long_word_widens_the_window():
    one = small_model(s24.ScoreMatching, word="CS446C")
    (left, right), (bottom, top) = one.window
    points = word("CS446C")[0]
    assert right == pytest.approx(1.1 * points[:, 0].abs().max().item(), rel=0.01) and left == -right and right > 2.5
    assert (bottom, top) == (-1, 1)


# ---- words


@pytest.mark.parametrize("text", ["hello", "Hi", "a b", "f"])
@editions
def test_short_words_fit_every_edition(kind, text):
    points, letters = word(text, 50, **kind.canvas)
    assert len(points) == 50 and letters.max() < len(text)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "--word: empty"),
        ("CS\u65e5\u672c", "DejaVu Sans has no '\u65e5', '\u672c'"),
        ("a\nb", "DejaVu Sans has no '\\n'"),
        ("CS446" * 4, "too long"),
    ],
)
@editions
def test_words_that_cannot_be_drawn_are_refused(kind, text, words, tmp_path, capsys):
    arguments = ["--edition", kind.edition, "--word", text, "--quiet", "--output_dir", str(tmp_path)]
    assert hw5_diffusion.main(arguments) == 2
    message = capsys.readouterr().err
    assert words in message and message.startswith("hw5_diffusion.py: --word") and message.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_the_words_of_the_editions():
    assert {name: kind.settings["word"] for name, kind in diffusion.editions().items()} == {
        "cs446": "CS 446",
        "s24": "CS446",
    }
