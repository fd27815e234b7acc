"""hw5_diffusion alone: words of points, loss and sampler against closed forms, the network, training, figures."""

import argparse
import itertools
import math

import numpy as np
import pytest
import torch
from PIL import ImageFont
from plain import Optimal, assert_same_weights, figures_of, word
from torch import nn

import hw5_diffusion
from hw5_diffusion import DiffusionModel, ScoreMatching

CANVAS = ScoreMatching.canvas  # of the homework: words in [0.05,0.95]


def model(folder=None, **settings):
    """The homework's model with these settings."""
    one = ScoreMatching(argparse.Namespace(**settings))
    one.folder = folder
    return one


def box(points):
    """The sizes [2] and the centre [2] of the smallest box around points."""
    low, high = points.min(0).values, points.max(0).values
    return high - low, (low + high) / 2


# ---- words


def test_the_word_is_centred_and_of_its_height():
    points, letters = word("CS446", 20_000)
    assert points.shape == (20_000, 2) and points.dtype == torch.float32
    assert letters.unique().tolist() == [0, 1, 2, 3, 4]
    for low, high, reach in zip(points.min(0).values, points.max(0).values, (2.08, 0.5)):
        assert high == pytest.approx(reach, abs=0.02) and low == pytest.approx(-reach, abs=0.02)


@pytest.mark.parametrize("text, full", [("CS446", 0), ("CS 446", 0), ("I I I", 1), ("O", 1), ("ab cde f", 1)])
def test_the_word_fills_its_box(text, full):
    """The canvas of the homework is 0.9 wide and high: a long word fills its width, a tall one its height."""
    size, centre = box(word(text, 20_000, **CANVAS)[0])
    torch.testing.assert_close(centre, torch.full((2,), 0.5), atol=0.01, rtol=0, msg="the middle of the square")
    assert size[full].item() == pytest.approx(0.9, abs=0.01) and size[1 - full] < 0.91


def test_a_dash_is_not_blown_up():
    size, _ = box(word("-", 2000, **CANVAS)[0])
    assert size[1] < 0.2 and size[0] < 0.6


@pytest.mark.parametrize("text", ["CS 446", "i WW m", "a  bc  d"])
def test_a_space_begins_a_new_line_and_lines_are_centred(text):
    """Letters are numbered in reading order: from left to right, then from the top down."""
    points, letters = word(text, 20_000, **CANVAS)
    names = text.replace(" ", "")
    assert letters.unique().tolist() == list(range(len(names))), "a blank is no letter"
    lines, first, previous = text.split(), 0, None
    for line in lines:
        boxes = [box(points[letters == number]) for number in range(first, first + len(line))]
        places = [centre for _, centre in boxes]
        assert all(a[0] < b[0] for a, b in itertools.pairwise(places)), "letters from left to right"
        _, middle = box(points[(letters >= first) & (letters < first + len(line))])
        assert middle[0].item() == pytest.approx(0.5, abs=0.01), "every line is centred"
        if previous is not None:
            assert max(place[1] for place in places) < previous, "lines from the top down"
        previous, first = min(place[1] for place in places), first + len(line)


def test_points_fill_the_strokes_of_their_letter_only():
    """ "O" has a hole, "II" two strokes of equal ink side by side; a letter's points lie beside the next one's."""
    ring, _ = word("O")
    assert ring.norm(dim=1).min() > 0.2, "the hole must stay empty"
    bars, letters = word("II")
    assert letters.unique().tolist() == [0, 1]
    assert bars[letters == 0, 0].max() < bars[letters == 1, 0].min()
    assert (letters == 0).float().mean() == pytest.approx(0.5, abs=0.05)
    for stroke in (bars[letters == 0], bars[letters == 1]):  # a uniform rectangle
        size, _ = box(stroke)
        for side in (0, 1):
            assert stroke.std(0)[side] == pytest.approx(size[side].item() / math.sqrt(12), rel=0.05)


def test_data_depend_on_the_seed_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, same, other = word("CS446")[0], word("CS446")[0], word("CS446", seed=1)[0]
    assert torch.equal(first, same) and not torch.equal(first, other) and torch.equal(state, torch.get_rng_state())
    one, again, other = (model(seed=seed).train_data for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other) and one.shape == (2000, 2)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "--word: has 0 letters"),
        ("  ", "--word: has 0 letters"),
        ("a" * 101, "--word: has 101 letters"),
        ("a\u00a0", "DejaVu Sans has no '\\xa0'"),
        ("CS\u65e5\u672c", "DejaVu Sans has no '\u65e5', '\u672c'"),
        ("a\nb", "DejaVu Sans has no '\\n'"),
        ("a\u200b", "DejaVu Sans has no '\\u200b'"),
        ("CS446" * 4, "too long"),
    ],
)
def test_words_that_cannot_be_drawn_are_refused(text, words):
    with pytest.raises(ValueError) as caught:
        model(word=text).train_data
    assert words in str(caught.value)


@pytest.mark.parametrize("count", [7, 5000])
def test_all_points_of_ones_own_data_are_trained_on(count, monkeypatch):
    one, seen = model(batch_size=100_000), []
    one.data = torch.arange(2.0 * count).view(count, 2), torch.zeros(count, dtype=torch.long)
    monkeypatch.setattr(
        hw5_diffusion, "compute_denoising_loss", lambda network, x, *_: seen.append(x) or network(x[:2], 1.0).sum()
    )
    one.step()
    assert len(seen[0].unique(dim=0)) == count


def test_points_are_the_same_with_and_without_pillows_other_layout(monkeypatch):
    """Where the library FriBidi is missing, Pillow falls back to the plain one, which kerns otherwise."""
    images = []
    for present in (True, False):
        monkeypatch.setattr(ImageFont.core, "HAVE_RAQM", present and ImageFont.core.HAVE_RAQM)
        images.append(hw5_diffusion.ink("CS446 AVATAR"))
    assert np.array_equal(*images)


# ---- maths


def test_noise_levels_are_geometric():
    for begin, end, levels in ((0.1, 0.01, 10), (0.3, 0.01, 10), (1.0, 0.5, 2)):
        sigmas = hw5_diffusion.generate_noise_levels(begin, end, levels)
        ratios = sigmas[1:] / sigmas[:-1]
        assert sigmas.shape == (levels,)
        assert sigmas[0].item() == pytest.approx(begin) and sigmas[-1].item() == pytest.approx(end)
        torch.testing.assert_close(ratios, ratios[:1].expand(levels - 1), rtol=1e-5, atol=0)
    assert hw5_diffusion.generate_noise_levels(0.1, 0.01, 1).tolist() == [pytest.approx(0.1)]
    torch.testing.assert_close(model().noise_levels, hw5_diffusion.generate_noise_levels(0.1, 0.01, 10))


def test_loss_by_hand(monkeypatch):
    """Zero noise and a network that says (3, 4): sigma^2 / 2 * 25."""
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.zeros(*shape))
    says = lambda x, sigma: torch.tensor([3.0, 4.0]).expand(len(x), 2)
    loss = hw5_diffusion.compute_denoising_loss(says, np.random.rand(7, 2), [0.2])
    assert loss.item() == pytest.approx(0.2**2 / 2 * 25)
    assert loss.shape == ()


def test_loss_of_known_scores():
    """Of one data point the score is known: no loss. A score of 0 costs |noise|^2 / 2, 1 in the mean."""
    points = torch.tensor([[0.3, -0.2]]).expand(20_000, 2)
    sigmas = hw5_diffusion.generate_noise_levels(0.3, 0.01, 10)
    exact = lambda x, sigma: (points[0] - x) / sigma**2
    assert hw5_diffusion.compute_denoising_loss(exact, points, sigmas).item() == pytest.approx(0, abs=1e-6)
    zero = hw5_diffusion.compute_denoising_loss(lambda x, sigma: 0 * x, points, sigmas)
    assert zero.item() == pytest.approx(1, abs=0.03), "both coordinates are summed, half of them taken"


def test_no_points_have_no_loss():
    with pytest.raises(ValueError, match=r"training_data has shape \[2\]; expected \[N,2\]"):
        hw5_diffusion.compute_denoising_loss(lambda x, sigma: x, torch.zeros(2), [0.2])
    with pytest.raises(ValueError, match=r"expected \[N,2\] with at least one point"):
        hw5_diffusion.compute_denoising_loss(lambda x, sigma: x, torch.zeros(0, 2), [0.2])
    none, sigma = hw5_diffusion.perturb(torch.zeros(0, 2), torch.tensor([0.2]))
    assert none.shape == (0, 2) and sigma.shape == (0, 1) and DiffusionModel()(none, sigma).shape == (0, 2)
    assert hw5_diffusion.weighted_error(none, none, sigma).shape == (0,)


def test_the_mode_is_restored_after_an_error_too():
    model = ScoreMatching(argparse.Namespace())
    with pytest.raises(IndexError):
        model.score(torch.zeros(2), 0.1)
    assert model.network.training


def test_a_frozen_layer_stays_in_its_mode():
    one = model()
    one.network.frozen = nn.Dropout().eval()
    one.score(torch.zeros(1, 2), 0.1)
    assert one.network.training and not one.network.frozen.training


def test_sigma_is_drawn_uniformly_for_each_point():
    sigmas = torch.tensor([0.3, 0.1, 0.01])
    noisy, sigma = hw5_diffusion.perturb(torch.zeros(30_000, 2), sigmas)
    assert sigma.shape == (30_000, 1)
    for level in sigmas:
        chosen = sigma[:, 0] == level
        assert chosen.float().mean() == pytest.approx(1 / 3, abs=0.02)
        assert noisy[chosen].std().item() == pytest.approx(level.item(), rel=0.03)
    assert torch.corrcoef(noisy.T)[0, 1].abs() < 0.03


# ---- sampling


@pytest.mark.parametrize("eps", [2e-5, 8e-5])
def test_samples_of_one_data_point(eps):
    """Langevin steps of size alpha on N(m, sigma^2) have the variance sigma^2 / (1 - alpha / (2 sigma^2)), exactly."""
    centre, sigmas = torch.tensor([[0.3, -0.2]]), hw5_diffusion.generate_noise_levels(0.3, 0.01, 10)
    network = lambda x, sigma: (centre - x) / hw5_diffusion.column(sigma, x) ** 2
    torch.manual_seed(0)
    *_, x = hw5_diffusion.langevin_dynamics(network, torch.randn(20_000, 2), sigmas, 30, eps)
    expected = 0.01**2 / (1 - eps / (2 * 0.01**2))
    assert x.shape == (20_000, 2)
    torch.testing.assert_close(x.mean(0), centre[0], atol=4e-4, rtol=0)
    torch.testing.assert_close(x.var(0), torch.full((2,), expected), rtol=0.05, atol=0)
    clean = hw5_diffusion.denoise(network, x, 0.01)
    torch.testing.assert_close(clean, centre.expand_as(clean), atol=1e-5, rtol=0)


def test_steps_are_those_of_the_homework():
    """Against the steps written out; no step overwrites another."""
    points, sigmas = word("I", 200)[0], [0.3, 0.05, 0.01]
    network, start = Optimal(points), torch.randn(5, 2)
    ways = [
        *hw5_diffusion.langevin_dynamics(
            network, start, torch.tensor(sigmas), 4, 2e-5, torch.Generator().manual_seed(1)
        )
    ]
    generator, x, expected = torch.Generator().manual_seed(1), start, []
    for sigma in sigmas:
        alpha = 2e-5 * sigma**2 / sigmas[-1] ** 2
        for _ in range(4):
            x = x + alpha * network(x, sigma) + math.sqrt(2 * alpha) * torch.randn(5, 2, generator=generator)
            expected.append(x.detach())
    torch.testing.assert_close(torch.stack(ways), torch.stack(expected))
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(ways, 2)), "aliased"
    assert not ways[-1].requires_grad


def test_more_steps_than_can_be_kept_are_refused():
    model(samples=100_000, langevin_steps=500)
    with pytest.raises(ValueError, match="--samples 100000 with --langevin_steps 501: more than 4 GB"):
        model(samples=100_000, langevin_steps=501)


def test_the_method_goes_from_where_it_is_told():
    """x_mod is the start, then the levels, steps at each, and their size at the last."""
    one, sigmas = model(), torch.tensor([0.2, 0.02])
    network = one.network = Optimal(one.train_data)
    x = start = torch.rand(4, 2)
    generator = torch.Generator().manual_seed(2)
    for sigma in (0.2, 0.02):
        for _ in range(3):
            step = 1e-5 * sigma**2 / 0.02**2
            x = x + step * network(x, sigma) + math.sqrt(2 * step) * torch.randn(4, 2, generator=generator)
    ours = one.langevin_dynamics_sample(start, sigmas, 3, 1e-5, torch.Generator().manual_seed(2))
    torch.testing.assert_close(ours, x, atol=1e-5, rtol=0)


def test_start_of_sampling():
    x = model().initial_random_samples(20_000, torch.Generator().manual_seed(0))
    assert x.mean().item() == pytest.approx(0.5, abs=0.02) and x.std().item() == pytest.approx(1 / 3, rel=0.02)
    assert model(samples=7).initial_random_samples().shape == (7, 2)


def test_a_trajectory_starts_in_noise_and_ends_denoised():
    one = model(samples=6, langevin_steps=2)
    centre = torch.tensor([[0.3, 0.6]])
    one.network = Optimal(centre)
    steps = one.trajectory()
    assert len(steps) == 1 + 10 * 2 and all(x.shape == (6, 2) for x in steps)
    generator = one.fresh_rng(2)
    start = one.initial_random_samples(generator=generator)
    torch.testing.assert_close(steps[0], start)
    *_, last = hw5_diffusion.langevin_dynamics(one.network, start, one.noise_levels, 2, 2e-5, generator)
    torch.testing.assert_close(steps[-1], hw5_diffusion.denoise(one.network, last, 0.01).detach())
    torch.testing.assert_close(steps[-1], centre.expand(6, 2), atol=1e-5, rtol=0)
    assert not torch.equal(steps[-1], last) and torch.equal(steps[5], one.trajectory()[5]), "the same at every look"


# ---- the network


def test_parameter_count():
    count = sum(parameter.numel() for parameter in DiffusionModel().parameters())
    assert count == 26 * 200 + 200 * 400 + 400 * 200 + 200 * 2 + 802


def test_network_is_the_plain_one():
    torch.manual_seed(1)
    layers = [
        nn.Linear(26, 200),
        nn.ReLU(),
        nn.Linear(200, 400),
        nn.ReLU(),
        nn.Linear(400, 200),
        nn.ReLU(),
        nn.Linear(200, 2),
    ]
    plain = nn.Sequential(*layers)
    torch.manual_seed(1)
    net, x = DiffusionModel(), torch.rand(5, 2)
    assert_same_weights(net, plain)
    torch.testing.assert_close(net(x, 0.5), plain(net.features(x)) / 0.5)


def test_sigma_may_be_a_number_or_a_column():
    net, x = DiffusionModel(), torch.rand(5, 2)
    expected = net(x, torch.full((5, 1), 0.1))
    assert expected.shape == (5, 2)
    for sigma in (0.1, torch.tensor(0.1), torch.full((5,), 0.1), np.float32(0.1)):
        torch.testing.assert_close(net(x, sigma), expected)
    mixed = net(x, torch.tensor([0.1, 0.2, 0.3, 0.1, 0.01]))
    for row, sigma in enumerate([0.1, 0.2, 0.3, 0.1, 0.01]):
        torch.testing.assert_close(mixed[row : row + 1], net(x[row : row + 1], sigma), rtol=1e-4, atol=1e-3)


def test_features_are_the_homeworks():
    features = DiffusionModel().features(torch.tensor([[0.3, 0.7]]))[0]
    waves = [wave(math.pi * 2**power * x) for x in (0.3, 0.7) for wave in (math.cos, math.sin) for power in range(6)]
    torch.testing.assert_close(features, torch.tensor([*waves, 0.3, 0.7]), atol=1e-5, rtol=0)


def test_output_is_divided_by_sigma():
    net, x = DiffusionModel(), torch.rand(5, 2)
    torch.testing.assert_close(net(x, 0.1) * 0.1, net(x, 0.01) * 0.01)


# ---- training


def test_training_is_the_plain_loop():
    """An epoch of 100 steps in double precision, with Adam on a cosine and points drawn with replacement."""
    trained, plain = model(n_epochs=3, batch_size=30), model()
    x0, sigmas, network = trained.train_data, trained.noise_levels, plain.network
    for each in (trained.network, network):
        each.double().register_forward_pre_hook(lambda network, inputs: tuple(value.double() for value in inputs))
    adam, generator = torch.optim.Adam(network.parameters()), torch.Generator().manual_seed(446)
    losses = []
    for step in range(100):
        x = x0[torch.randint(2000, (30,), generator=generator)]
        sigma = sigmas[torch.randint(10, (30, 1), generator=generator)]
        noise = torch.randn(30, 2, generator=generator)
        noisy = x + sigma * noise
        loss = (sigma**2 / 2 * (network(noisy, sigma) + (noisy - x) / sigma**2) ** 2).sum(1).mean()
        network.zero_grad()
        loss.backward()
        adam.param_groups[0]["lr"] = 4e-3 * (1 + math.cos(math.pi * (100 + step) / 300)) / 2
        adam.step()
        losses.append(loss.item())
    row = next(trained.epochs(1))  # the second of three
    assert_same_weights(trained.network, network, 1e-5)
    assert row == {"epoch": 2, "loss": pytest.approx(sum(losses) / 100, rel=1e-4)}


def test_no_network_has_less_loss_than_the_optimal_score():
    """Untrained, trained for a while, and with its scores a little wrong: the same noise for all."""
    one = model(n_epochs=1)
    points, sigmas = one.train_data, one.noise_levels
    loss = lambda network: hw5_diffusion.compute_denoising_loss(
        network, points, sigmas, torch.Generator().manual_seed(3)
    ).item()
    perfect, before = Optimal(points), loss(one.network)
    best = loss(perfect)
    next(one.epochs())
    after = loss(one.network)
    assert 0.2 < best < after < before, (best, after, before)
    for factor in (0.8, 1.2):
        assert best < loss(lambda x, sigma: factor * perfect(x, sigma)), "the minimum is at factor 1"


def test_training_prints_a_line_per_epoch(capsys):
    one = model(n_epochs=2, batch_size=5)
    assert one.train() is one
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["epoch 1", "epoch 2"]


def test_non_finite_loss_stops():
    broken = model(n_epochs=1)
    nn.init.constant_(broken.network.fc4.bias, math.nan)
    with pytest.raises(FloatingPointError, match="epoch 1, step 1: loss nan; try a smaller --lr"):
        next(broken.epochs())


# ---- figures


def test_figures_return_what_they_drew(tmp_path):
    one = model(tmp_path, samples=50, langevin_steps=2)
    one.visualize()
    assert {path.name for path in tmp_path.iterdir()} == {
        "data.png",
        "score_field.png",
        "samples.png",
        "trajectories.png",
    }
    assert torch.equal(one.plot_points(), one.train_data)


def test_panels_show_every_fifth_of_the_steps(tmp_path):
    """Of 1,000 steps those of the homework: 0, 200, 400, 600, 800 and the last."""
    trajectory = [torch.full((3, 2), step / 1000) for step in range(1001)]
    panels = model(tmp_path).plot_samples(trajectory)
    assert [round(1000 * panel[0, 0].item()) for panel in panels] == [0, 200, 400, 600, 800, 1000]


def test_arrows_point_along_the_score():
    one = model()
    figures, x = figures_of(one), one.grid(20)
    score = one.plot_score(20)
    (arrows,) = [each for each in figures["score_field.png"].axes[0].collections if hasattr(each, "U")]
    drawn = torch.tensor(np.stack([arrows.U, arrows.V], 1))
    torch.testing.assert_close(torch.cosine_similarity(drawn, score.to(drawn)), torch.ones(len(x)).to(drawn))
    np.testing.assert_allclose(arrows.get_offsets(), x, atol=1e-6)
    np.testing.assert_allclose(arrows.get_array(), score.norm(dim=1).log10(), rtol=1e-4)


def test_panels_and_markers_show_the_points_of_their_steps():
    one = model()
    figures, trajectory = figures_of(one), [torch.tensor([[0.2, 0.3], [0.4, 0.5]]) + step / 100 for step in range(11)]
    one.plot_samples(trajectory), one.plot_trajectories(trajectory, 2)
    for axes, step in zip(figures["samples.png"].axes, (0, 2, 4, 6, 8, 10), strict=True):
        np.testing.assert_allclose(axes.collections[0].get_offsets(), trajectory[step], atol=1e-6)
    lines = figures["trajectories.png"].axes[0].lines
    for sample in range(2):
        way, start, end = (np.stack(line.get_data(), 1) for line in lines[3 * sample : 3 * sample + 3])
        np.testing.assert_allclose(way, torch.stack(trajectory)[:, sample], atol=1e-6)
        np.testing.assert_allclose(np.concatenate([start, end]), way[[0, -1]])
        assert [line.get_marker() for line in lines[3 * sample + 1 : 3 * sample + 3]] == ["x", "o"]


def test_trajectories_are_those_of_single_samples(tmp_path):
    trajectory = [torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]]) + step / 100 for step in range(7)]
    ways = model(tmp_path).plot_trajectories(trajectory, 3)
    assert ways.shape == (3, 7, 2)
    assert all(torch.equal(ways[k, step], trajectory[step][k]) for k in range(3) for step in range(7))


def test_the_drawn_score_is_that_of_the_network_at_its_sigma(tmp_path):
    one = model(tmp_path)
    line = torch.linspace(0, 1, 30)
    x = torch.stack(torch.meshgrid(line, line, indexing="ij"), 2).reshape(900, 2)
    with torch.no_grad():
        torch.testing.assert_close(one.plot_score(30), one.network(x, 0.03), atol=1e-4, rtol=1e-3)


def test_the_grid_fills_the_window():
    x = model().grid(11)
    assert x.shape == (121, 2) and (x.min(), x.max()) == (0, 1)
