"""hw5_diffusion: data, loss and sampler against closed forms, the networks, training, what is measured, refusals."""

import argparse
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import hw5_diffusion
from hw5_diffusion import DiffusionModel, ScoreMatching, ScoreNet, optimal_score

networks = pytest.mark.parametrize("network", [DiffusionModel, ScoreNet])
editions = pytest.mark.parametrize("edition", ["cs446", "s24"])


def model(folder=None, **settings):
    return ScoreMatching(argparse.Namespace(**settings), folder)


def word(text, count=2000, seed=0, height=(1.0, 1.0), width=6.0, centre=0.0):
    return hw5_diffusion.draw_word(text, count, torch.Generator().manual_seed(seed), height, width, centre)


class Optimal(nn.Module):
    """The closed-form score of `points` in the place of a network."""

    def __init__(self, points):
        super().__init__()
        self.points = nn.Parameter(points)

    def forward(self, x, sigma):
        return optimal_score(x, self.points, sigma)[0]


# ---- data


def test_the_word_is_centred_and_of_its_height():
    points, letters = word("CS446", 20_000)
    assert points.shape == (20_000, 2) and points.dtype == torch.float32 and letters.unique().tolist() == [0, 1, 2, 3, 4]
    for low, high, reach in zip(points.min(0).values, points.max(0).values, (2.08, 0.5)):
        assert high == pytest.approx(reach, abs=0.02) and low == pytest.approx(-reach, abs=0.02)
    points, _ = word("CS446", height=(0.1, 0.4), width=0.9, centre=0.5)
    assert points[:, 0].min() == pytest.approx(0.05, abs=0.01) and points[:, 0].max() == pytest.approx(0.95, abs=0.01)
    assert points[:, 1].mean() == pytest.approx(0.5, abs=0.01)


def test_points_fill_the_strokes_of_their_letter_only():
    """"O" has a hole, "II" two strokes of equal ink side by side; a letter's points lie beside the next one's."""
    ring, _ = word("O")
    assert ring.norm(dim=1).min() > 0.2, "the hole must stay empty"
    bars, letters = word("I I")
    assert letters.unique().tolist() == [0, 1], "a blank is no letter"
    assert bars[letters == 0, 0].max() < bars[letters == 1, 0].min()
    assert (letters == 0).float().mean() == pytest.approx(0.5, abs=0.05)
    for stroke in (bars[letters == 0], bars[letters == 1]):  # a uniform rectangle
        width, height = stroke.max(0).values - stroke.min(0).values
        assert stroke.std(0)[0] == pytest.approx(width.item() / math.sqrt(12), rel=0.05)
        assert stroke.std(0)[1] == pytest.approx(height.item() / math.sqrt(12), rel=0.05)


def test_data_depend_on_the_seed_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, same, other = word("CS446")[0], word("CS446")[0], word("CS446", seed=1)[0]
    assert torch.equal(first, same) and not torch.equal(first, other) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("text, words", [
    ("", "--word: empty"),
    ("  ", "--word: empty"),
    ("CS\u65e5\u672c", "DejaVu Sans has no '\u65e5', '\u672c'"),
    ("a\nb", "DejaVu Sans has no '\\n'"),
    ("a\u200b", "DejaVu Sans has no '\\u200b'"),
    ("CS446" * 4, "too long"),
])
@editions
def test_words_that_cannot_be_drawn_are_refused(edition, text, words, tmp_path, capsys):
    assert hw5_diffusion.main(["--edition", edition, "--word", text, "--quiet", "--output_dir", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert words in message and message.startswith("hw5_diffusion.py: --word") and message.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


# ---- maths


def test_noise_levels_are_geometric():
    for begin, end, levels in ((0.1, 0.01, 10), (0.3, 0.01, 10), (1.0, 0.5, 2)):
        sigmas = hw5_diffusion.generate_noise_levels(begin, end, levels)
        ratios = sigmas[1:] / sigmas[:-1]
        assert sigmas.shape == (levels,) and sigmas[0].item() == pytest.approx(begin) and sigmas[-1].item() == pytest.approx(end)
        torch.testing.assert_close(ratios, ratios[:1].expand(levels - 1), rtol=1e-5, atol=0)
    assert hw5_diffusion.generate_noise_levels(0.1, 0.01, 1).tolist() == [pytest.approx(0.1)]


@pytest.mark.parametrize("sigma", [0.05, 0.7])
def test_optimal_score_is_the_gradient_of_the_log_density(sigma):
    points, x = torch.rand(40, 2, dtype=torch.double), torch.randn(25, 2, dtype=torch.double, requires_grad=True)
    components = torch.distributions.Normal(points, torch.tensor(sigma, dtype=torch.double)).log_prob(x[:, None]).sum(2)
    log_density = components.logsumexp(1) - math.log(40)
    gradient, = torch.autograd.grad(log_density.sum(), x)
    score, ours = optimal_score(x.detach(), points, sigma)
    torch.testing.assert_close(score, gradient)
    torch.testing.assert_close(ours, log_density.detach())
    per_point, _ = optimal_score(x.detach(), points, torch.full((25,), sigma))
    torch.testing.assert_close(per_point, gradient)


def test_loss_by_hand(monkeypatch):
    """Zero noise and a network that says (3, 4): sigma^2 / 2 * 25."""
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.zeros(*shape))
    says = lambda x, sigma: torch.tensor([3.0, 4.0]).expand(len(x), 2)
    loss = hw5_diffusion.compute_denoising_loss(says, np.random.rand(7, 2), [0.2])
    assert loss.item() == pytest.approx(0.2**2 / 2 * 25)
    assert loss.shape == ()


def test_loss_of_known_scores():
    """For one data point the score is known to the network: no loss. A score of 0 costs |noise|^2 / 2, 1 in the mean."""
    points, sigmas = torch.tensor([[0.3, -0.2]]).expand(20_000, 2), hw5_diffusion.generate_noise_levels(0.3, 0.01, 10)
    exact = lambda x, sigma: (points[0] - x) / sigma**2
    assert hw5_diffusion.compute_denoising_loss(exact, points, sigmas).item() == pytest.approx(0, abs=1e-6)
    zero = hw5_diffusion.compute_denoising_loss(lambda x, sigma: 0 * x, points, sigmas)
    assert zero.item() == pytest.approx(1, abs=0.03), "both coordinates are summed, half of them taken"


def test_sigma_is_drawn_uniformly_for_each_point():
    sigmas = torch.tensor([0.3, 0.1, 0.01])
    noisy, sigma = hw5_diffusion.perturb(torch.zeros(30_000, 2), sigmas)
    assert sigma.shape == (30_000, 1)
    for level in sigmas:
        chosen = sigma[:, 0] == level
        assert chosen.float().mean() == pytest.approx(1 / 3, abs=0.02)
        assert noisy[chosen].std().item() == pytest.approx(level.item(), rel=0.03)


@editions
def test_no_network_has_less_loss_than_the_optimal_score(edition):
    """Untrained, trained for a while, and with its scores a little wrong: the same noise for all."""
    score_matching = model(edition=edition, n_epochs=1)
    points, sigmas = score_matching.train_data, score_matching.noise_levels
    loss = lambda network: hw5_diffusion.compute_denoising_loss(network, points, sigmas, torch.Generator().manual_seed(3)).item()
    best, before = loss(Optimal(points)), loss(score_matching.network)
    for _ in score_matching.fit():
        pass
    after = loss(score_matching.network)
    assert 0.2 < best < after < before, (best, after, before)
    for factor in (0.8, 1.2):
        assert best < loss(lambda x, sigma: factor * optimal_score(x, points, sigma)[0]), "the minimum is at factor 1"


# ---- sampling


@pytest.mark.parametrize("eps", [2e-5, 8e-5])
def test_samples_of_one_data_point(eps):
    """Langevin steps of size alpha on N(m, sigma^2) have the variance sigma^2 / (1 - alpha / (2 sigma^2)), exactly."""
    centre, sigmas = torch.tensor([[0.3, -0.2]]), hw5_diffusion.generate_noise_levels(0.3, 0.01, 10)
    torch.manual_seed(0)
    samples = hw5_diffusion.langevin_dynamics_sample(Optimal(centre), 20_000, sigmas, iterations=30, eps=eps)
    expected = 0.01**2 / (1 - eps / (2 * 0.01**2))
    assert samples.shape == (20_000, 2)
    torch.testing.assert_close(samples.mean(0), centre[0], atol=4e-4, rtol=0)
    torch.testing.assert_close(samples.var(0), torch.full((2,), expected), rtol=0.05, atol=0)
    clean = hw5_diffusion.denoise(Optimal(centre), samples, 0.01)
    torch.testing.assert_close(clean, centre.expand_as(clean), atol=1e-5, rtol=0)


def test_trajectories_hold_every_step_once():
    """Against the steps as the homework writes them, of one sample after the other's noise; no step overwrites another."""
    points, sigmas = word("I")[0], [0.3, 0.05, 0.01]
    torch.manual_seed(1)
    ways = hw5_diffusion.langevin_dynamics_sample(Optimal(points), 5, torch.tensor(sigmas), iterations=4, return_traj=True)
    torch.manual_seed(1)
    x, expected = torch.randn(5, 2), []
    for sigma in sigmas:
        alpha = 2e-5 * sigma**2 / sigmas[-1] ** 2
        for _ in range(4):
            x = x + alpha * optimal_score(x, points, sigma)[0] + math.sqrt(2 * alpha) * torch.randn(5, 2)
            expected.append(x)
    assert ways.shape == (5, 12, 2)
    torch.testing.assert_close(ways, torch.stack(expected, 1))
    assert all(not torch.equal(ways[:, a], ways[:, b]) for a, b in itertools.combinations(range(12), 2)), "aliased"
    torch.manual_seed(1)
    last = hw5_diffusion.langevin_dynamics_sample(Optimal(points), 5, torch.tensor(sigmas), iterations=4)
    torch.testing.assert_close(last, expected[-1])


def test_the_method_goes_from_where_it_is_told_with_the_averaged_network():
    """Of edition cs446: x_mod is the start, then the levels, steps at each, and their size at the last."""
    one, sigmas = model(), torch.tensor([0.2, 0.02])
    one.average = Optimal(one.train_data)
    x = start = torch.rand(4, 2)
    generator = torch.Generator().manual_seed(2)
    for sigma in (0.2, 0.02):
        for _ in range(3):
            step = 1e-5 * sigma**2 / 0.02**2
            x = x + step * optimal_score(x, one.train_data, sigma)[0] + math.sqrt(2 * step) * torch.randn(4, 2, generator=generator)
    ours = one.langevin_dynamics_sample(start, sigmas, 3, 1e-5, torch.Generator().manual_seed(2))
    torch.testing.assert_close(ours, x, atol=1e-5, rtol=0)


def test_samples_of_the_optimal_score_are_the_data():
    """The sampler alone, with a perfect score, and the measures of a model that has it."""
    perfect = model(edition="s24", samples=200, langevin_steps=30)
    perfect.average = Optimal(perfect.train_data)
    metrics = perfect.measure_samples()
    assert metrics["far_share"] < 0.01 and metrics["sliced_wasserstein"] < 0.25
    metrics = perfect.measure_field(200)
    assert metrics["cosine_lowest_from_0.03"] == pytest.approx(1) and metrics["outside_share_towards_data"] == 1
    perfect.average = lambda x, sigma: -optimal_score(x, perfect.train_data, sigma)[0]
    metrics = perfect.measure_field(200)
    assert metrics["cosine_lowest_from_0.03"] == pytest.approx(-1) and metrics["outside_share_towards_data"] == 0
    perfect.average = lambda x, sigma: optimal_score(x, perfect.train_data, sigma)[0] * (1 if sigma > 0.03 else -1)
    metrics = perfect.measure_field(200)
    assert metrics["cosine_lowest_from_0.03"] == pytest.approx(1) and metrics["cosine_0.0213"] == pytest.approx(-1)


def test_a_network_that_is_not_told_sigma_has_a_limit():
    """At each point it can follow the mean over the levels of sigma times the score; every other field has more loss."""
    one = model()
    points, sigmas = one.train_data, one.noise_levels

    def blind(x, sigma):
        scores, log_p = zip(*(optimal_score(x, points, level) for level in sigmas))
        shares = torch.stack(log_p).softmax(0)
        return torch.einsum("lnd,ln,l->nd", torch.stack(scores), shares, sigmas) / hw5_diffusion.column(sigma, x)

    loss = lambda network: hw5_diffusion.compute_denoising_loss(network, points, sigmas, torch.Generator().manual_seed(3)).item()
    assert loss(Optimal(points)) < loss(blind) < min(loss(lambda x, sigma: factor * blind(x, sigma)) for factor in (0.8, 1.2))
    one.average = blind
    metrics = one.measure_field(200)
    assert metrics["cosine_to_limit"] == pytest.approx(1)
    assert all(metrics[f"cosine_{sigma:.4f}"] == pytest.approx(metrics[f"cosine_{sigma:.4f}_limit"], abs=1e-4) for sigma in sigmas)
    one.average = lambda x, sigma: -blind(x, sigma)
    assert one.measure_field(200)["cosine_to_limit"] == pytest.approx(-1)


def test_sliced_wasserstein():
    """A shift by d moves projections by |d cos|, 2/pi |d| in the mean; the distance of a set to itself is 0, in any order."""
    a, shift = torch.randn(3000, 2), torch.tensor([0.6, -0.8])
    assert hw5_diffusion.sliced_wasserstein(a, a + shift).item() == pytest.approx(2 / math.pi, rel=1e-3)
    assert hw5_diffusion.sliced_wasserstein(a, a.flip(0)).item() == 0
    assert hw5_diffusion.sliced_wasserstein(a, a.repeat(2, 1)).item() == pytest.approx(0, abs=5e-3)


def test_measures_expose_a_missing_letter_and_stray_samples():
    good = model(edition="s24", samples=2000)
    points, letters = good.draw_data(2000, 9)
    good.trajectory = lambda: [points]
    metrics = good.measure_samples()
    shares = [value for name, value in metrics.items() if name.startswith("share_")]
    assert metrics["far_share"] < 0.002 and 0.8 < min(shares) and max(shares) < 1.2
    assert metrics["sliced_wasserstein"] < 3 * metrics["sliced_wasserstein_data"]
    good.trajectory = lambda: [torch.where((letters == 2)[:, None], points[letters == 0][:1], points)]
    metrics = good.measure_samples()
    assert metrics["share_3_4"] == 0 and metrics["share_1_C"] > 1.5
    assert metrics["sliced_wasserstein"] > 5 * metrics["sliced_wasserstein_data"]
    good.trajectory = lambda: [torch.where(torch.arange(2000)[:, None] < 500, points + 5, points)]
    assert good.measure_samples()["far_share"] == pytest.approx(0.25, abs=0.01)


# ---- networks


@pytest.mark.parametrize("network, count", [(DiffusionModel(), 26 * 200 + 200 * 400 + 400 * 200 + 200 * 2 + 802),
                                            (ScoreNet(), 3 * 128 + 6 * 128 * 128 + 128 * 2 + 7 * 128 + 2)])
def test_parameter_counts(network, count):
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@networks
def test_sigma_may_be_a_number_or_a_column(network):
    net, x = network(), torch.rand(5, 2)
    nn.init.normal_(list(net.parameters())[-2], std=0.1)  # ScoreNet's last weights start at 0
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
    net = ScoreNet()
    nn.init.constant_(net.layers[-1].bias, 2.0)  # the last weights start at 0
    torch.testing.assert_close(net(x, 0.1), torch.full((5, 2), 20.0))


def test_score_net_starts_wide():
    """Deviations of the first weights, ten times as large for sigma, of the others, and of the biases; none in the last layer."""
    torch.manual_seed(0)
    first, *hidden, last = ScoreNet().layers
    assert first.weight[:, :2].std().item() == pytest.approx(5 / math.sqrt(3), rel=0.2)
    assert first.weight[:, 2].std().item() == pytest.approx(50 / math.sqrt(3), rel=0.2)
    assert first.bias.std().item() == pytest.approx(4, rel=0.2)
    for layer in hidden:
        assert layer.weight.std().item() == pytest.approx(2.5 / math.sqrt(128), rel=0.05)
        assert layer.bias.std().item() == pytest.approx(2, rel=0.2)
    assert not last.weight.any()


# ---- training


@pytest.mark.parametrize("rows, columns", [(40, 40), (60, 20), (20, 60)])
def test_orthogonalize_keeps_directions_and_evens_out_lengths(rows, columns):
    u, sizes, v = torch.linalg.svd(torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)), full_matrices=False)
    for scale in (1e-6, 1.0, 1e6):
        x = hw5_diffusion.orthogonalize(scale * u @ sizes.clamp(min=sizes[0] / 30).diag() @ v)
        seen = u.T @ x @ v.T  # diagonal, where x has the same singular vectors
        assert (seen - seen.diagonal().diag()).abs().max() < 1e-3
        assert 0.65 < seen.diagonal().min() and seen.diagonal().max() < 1.25
    assert not hw5_diffusion.orthogonalize(torch.zeros(rows, columns)).any(), "no gradient, no step"


@editions
def test_training_is_the_plain_loop(edition):
    """Twenty steps in double precision, with Adam, and Muon for the hidden layers of s24, whose weights decay.

    Rates are on a cosine, points drawn with replacement, weights averaged.
    """
    trained, plain, average = (model(edition=edition, n_epochs=1, batch_size=30, ema_decay=0.9) for _ in range(3))
    x0, sigmas, network, average = trained.train_data, trained.noise_levels, plain.network, average.network
    for each in (trained.network, trained.average, network, average):
        each.double().register_forward_pre_hook(lambda network, inputs: tuple(value.double() for value in inputs))
    weights = dict(network.named_parameters())
    hidden = [] if edition == "cs446" else [f"layers.{number}.weight" for number in range(1, 7)]
    adam = torch.optim.Adam([weight for name, weight in weights.items() if name not in hidden])
    momenta, generator = {name: 0.0 for name in hidden}, torch.Generator().manual_seed(trained.args.seed)
    steps = trained.fit()
    for step in range(20):
        rate = 4e-3 * (1 + math.cos(math.pi * step / 100)) / 2
        x = x0[torch.randint(2000, (30,), generator=generator)]
        sigma = sigmas[torch.randint(10, (30, 1), generator=generator)]
        noise = torch.randn(30, 2, generator=generator)
        noisy = x + sigma * noise
        loss = (sigma**2 / 2 * (network(noisy, sigma) + (noisy - x) / sigma**2) ** 2).sum(1).mean()
        network.zero_grad()
        loss.backward()
        adam.param_groups[0]["lr"] = rate
        adam.step()
        for name in hidden:
            gradient = weights[name].grad
            momenta[name] = 0.95 * momenta[name] + 0.05 * gradient
            weights[name].data *= 1 - 0.02 * 5 * rate
            weights[name].data -= 5 * rate * hw5_diffusion.orthogonalize(0.05 * gradient + 0.95 * momenta[name])
        decay = min(0.9, (1 + step) / (10 + step))
        for a, b in zip(average.parameters(), network.parameters()):
            a.data = decay * a.data + (1 - decay) * b.data
        next(steps)
    for ours, theirs in ((trained.network, network), (trained.average, average)):
        for a, b in zip(ours.parameters(), theirs.parameters()):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_looking_changes_nothing_of_the_training(tmp_path):
    weights = []
    for looks in (False, True):
        one = model(tmp_path, n_epochs=1, batch_size=10, samples=20, langevin_steps=1)
        for step, _ in enumerate(one.fit()):
            if looks and step == 50:
                assert one.measure() == one.measure()
                one.visualize()
        weights.append([*one.network.state_dict().values(), *one.average.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*weights))


def test_non_finite_loss_stops():
    broken = model(n_epochs=1)
    nn.init.constant_(broken.network.fc4.bias, math.nan)
    with pytest.raises(FloatingPointError, match="epoch 1, step 1: loss nan"):
        next(broken.fit())


# ---- figures


@editions
def test_figures_return_what_they_drew(edition, tmp_path):
    one = model(tmp_path, edition=edition, samples=50, langevin_steps=2)
    one.visualize()
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"data.png", "score_field.png", "samples.png", "trajectories.png", "sampling.gif"}
    panels = one.plot_samples()
    assert [tuple(panel.shape) for panel in panels] == [(50, 2)] * 6
    start = one.initial_random_samples(50, one.fresh_generator(2))
    torch.testing.assert_close(panels[0], start)
    assert not torch.equal(panels[-1], panels[-2])
    assert one.plot_trajectories(3).shape == (3, 21, 2) and one.plot_points().shape == (2000, 2)


def test_the_drawn_score_is_that_of_the_averaged_network_at_its_sigma(tmp_path):
    one = model(tmp_path)
    one.average = Optimal(one.train_data)
    line = torch.linspace(0, 1, 100)
    x = torch.stack(torch.meshgrid(line, line, indexing="ij"), 2).reshape(10_000, 2)
    torch.testing.assert_close(one.plot_score(), optimal_score(x, one.train_data, 0.03)[0], atol=1e-2, rtol=1e-3)


def test_start_of_sampling():
    for edition, mean, deviation in (("cs446", 0.5, 1 / 3), ("s24", 0, 1)):
        x = model(edition=edition).initial_random_samples(20_000, torch.Generator().manual_seed(0))
        assert x.mean().item() == pytest.approx(mean, abs=0.02) and x.std().item() == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize("word", ["hello", "Hi", "a b", "f"])
def test_short_words_fit_every_edition(word):
    for edition in hw5_diffusion.EDITIONS.values():
        points, letters = hw5_diffusion.draw_word(word, 50, torch.Generator().manual_seed(0), edition["height"], edition["width"])
        assert len(points) == 50 and letters.max() < len(word)


def test_the_grid_fills_the_window():
    x = model(edition="s24").grid(11)
    assert x.shape == (44, 2) and (x[:, 0].min(), x[:, 0].max(), x[:, 1].min(), x[:, 1].max()) == (-2.5, 2.5, -1, 1)
