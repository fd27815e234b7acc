"""hw5_lab/editions/s24: its sampler, its network, Muon, and training with both optimizers."""

import argparse
import itertools
import math

import numpy as np
import pytest
import torch
from plain import Optimal, assert_same_weights, settings_of, small_diffusion, word
from torch import nn

import hw5_diffusion
from hw5_lab.editions import s24
from hw5_lab.editions.s24 import ScoreMatching, ScoreNet


def homework(**settings):
    return ScoreMatching(argparse.Namespace(**settings))


# ---- sampling


def test_trajectories_hold_every_step_once():
    """Against the steps as the homework writes them, from N(0, I); no step overwrites another."""
    points, sigmas = word("I")[0], [0.3, 0.05, 0.01]
    network = Optimal(points)
    torch.manual_seed(1)
    ways = s24.langevin_dynamics_sample(network, 5, torch.tensor(sigmas), iterations=4, return_traj=True)
    torch.manual_seed(1)
    x, expected = torch.randn(5, 2), []
    for sigma in sigmas:
        alpha = 2e-5 * sigma**2 / sigmas[-1] ** 2
        for _ in range(4):
            x = x + alpha * network(x, sigma).detach() + math.sqrt(2 * alpha) * torch.randn(5, 2)
            expected.append(x)
    assert ways.shape == (5, 12, 2)
    torch.testing.assert_close(ways, torch.stack(expected, 1))
    assert all(not torch.equal(ways[:, a], ways[:, b]) for a, b in itertools.combinations(range(12), 2)), "aliased"
    torch.manual_seed(1)
    last = s24.langevin_dynamics_sample(network, 5, torch.tensor(sigmas), iterations=4)
    torch.testing.assert_close(last, expected[-1])


def test_samples_of_one_data_point():
    """Langevin steps of size alpha on N(m, sigma^2) have the variance sigma^2 / (1 - alpha / (2 sigma^2)), exactly."""
    centre, sigmas = torch.tensor([[0.3, -0.2]]), hw5_diffusion.generate_noise_levels(0.3, 0.01, 10)
    samples = s24.langevin_dynamics_sample(lambda x, sigma: (centre - x) / sigma**2, 8_000, sigmas, iterations=30)
    assert samples.shape == (8_000, 2)
    torch.testing.assert_close(samples.mean(0), centre[0], atol=5e-4, rtol=0)
    torch.testing.assert_close(samples.var(0), torch.full((2,), 0.01**2 / 0.9), rtol=0.05, atol=0)


def test_start_of_sampling():
    x = homework().initial_random_samples(20_000, torch.Generator().manual_seed(0))
    assert x.mean().item() == pytest.approx(0, abs=0.02) and x.std().item() == pytest.approx(1, rel=0.02)


def test_names_that_the_homework_imports():
    assert s24.compute_denoising_loss is hw5_diffusion.compute_denoising_loss
    one = homework()
    torch.testing.assert_close(one.noise_levels, hw5_diffusion.generate_noise_levels(0.3, 0.01, 10))
    assert one.knows_sigma and one.args.word == "CS446" and not one.args.word.count(" ")


def test_the_grid_fills_the_window():
    x = homework().grid(11)
    assert x.shape == (44, 2)
    assert (x[:, 0].min(), x[:, 0].max(), x[:, 1].min(), x[:, 1].max()) == (-2.5, 2.5, -1, 1)


# ---- the network


def test_parameter_count():
    count = sum(parameter.numel() for parameter in ScoreNet().parameters())
    assert count == 3 * 128 + 6 * 128 * 128 + 128 * 2 + 7 * 128 + 2
    assert sum(parameter.numel() for parameter in ScoreNet(3, 5).parameters()) == 3 * 5 + 5 + 5 * 5 + 5 + 5 * 2 + 2


def test_softplus_and_its_slope_are_right_everywhere():
    """Against PyTorch's in double precision, also at 0, where |x| has no slope, and where e^x overflows."""
    x = torch.tensor([-200.0, -30.0, -3.0, -1e-3, 0.0, 1e-3, 3.0, 30.0, 200.0], requires_grad=True)
    wide = x.detach().double().requires_grad_()
    value, expected = s24.softplus(x), nn.functional.softplus(wide, threshold=1e9)
    torch.testing.assert_close(value.double(), expected, atol=1e-6, rtol=1e-6)
    value.sum().backward(), expected.sum().backward()
    torch.testing.assert_close(x.grad.double(), wide.detach().sigmoid(), atol=1e-6, rtol=1e-6)


def test_sigma_may_be_a_number_or_a_column():
    net, x = ScoreNet(), torch.rand(5, 2)
    nn.init.normal_(net.layers[-1].weight, std=0.1)  # the last weights start at 0
    expected = net(x, torch.full((5, 1), 0.1))
    assert expected.shape == (5, 2)
    for sigma in (0.1, torch.tensor(0.1), torch.full((5,), 0.1), np.float32(0.1)):
        torch.testing.assert_close(net(x, sigma), expected)
    mixed = net(x, torch.tensor([0.1, 0.2, 0.3, 0.1, 0.01]))
    for row, sigma in enumerate([0.1, 0.2, 0.3, 0.1, 0.01]):
        torch.testing.assert_close(mixed[row : row + 1], net(x[row : row + 1], sigma), rtol=1e-4, atol=1e-3)


def test_network_is_the_plain_one():
    net, x = ScoreNet(), torch.rand(5, 2)
    nn.init.normal_(net.layers[-1].weight, std=0.1)
    layers = [part for layer in net.layers for part in (layer, nn.Softplus())][:-1]
    assert len(net.layers) == 8
    plain = nn.Sequential(*layers)(torch.cat([x, torch.full((5, 1), 0.2)], 1)) / 0.2
    torch.testing.assert_close(net(x, 0.2), plain)


def test_output_is_divided_by_sigma():
    net = ScoreNet()
    nn.init.constant_(net.layers[-1].bias, 2.0)  # the last weights start at 0
    torch.testing.assert_close(net(torch.rand(5, 2), 0.1), torch.full((5, 2), 20.0))


def test_score_net_starts_wide():
    """First weights, ten times as wide for sigma; the other weights; the biases; a last layer of 0."""
    torch.manual_seed(0)
    first, *hidden, last = ScoreNet().layers
    assert first.weight[:, :2].std().item() == pytest.approx(5 / math.sqrt(3), rel=0.2)
    assert first.weight[:, 2].std().item() == pytest.approx(50 / math.sqrt(3), rel=0.2)
    assert first.bias.std().item() == pytest.approx(4, rel=0.2)
    for layer in hidden:
        assert layer.weight.std().item() == pytest.approx(2.5 / math.sqrt(128), rel=0.05)
        assert layer.bias.std().item() == pytest.approx(2, rel=0.2)
    assert not last.weight.any()


# ---- the loss


def test_mean_denoising_loss_is_the_mean_over_all_points():
    """Against the loss of each pair of x~ and point, weighted as Bayes' rule has it; and its gradient."""
    torch.manual_seed(0)
    points, sigmas = word("I")[0][:50], torch.tensor([0.3, 0.05, 0.01])
    samples, net = points[torch.arange(60) % 50], ScoreNet()
    nn.init.normal_(net.layers[-1].weight, std=0.005)
    loss = s24.mean_denoising_loss(net, samples, points, sigmas, torch.Generator().manual_seed(1))
    gradient = torch.autograd.grad(loss, list(net.parameters()))
    noisy, sigma = hw5_diffusion.perturb(samples, sigmas, torch.Generator().manual_seed(1))
    expected = 0.0
    for x, level, score in zip(noisy, sigma, net(noisy, sigma)):
        shares = torch.distributions.Normal(points.double(), level.double()).log_prob(x.double()).sum(1).softmax(0)
        losses = level**2 / 2 * ((score + (x - points) / level**2) ** 2).sum(1)
        expected = expected + shares.float() @ losses / len(noisy)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    for ours, theirs in zip(gradient, torch.autograd.grad(expected, list(net.parameters()))):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3 * theirs.abs().max().item())


def test_mean_denoising_loss_has_the_homeworks_value_with_less_noise():
    one = homework()
    generator = torch.Generator().manual_seed(0)
    plain, ours = [], []
    with torch.no_grad():
        for _ in range(60):
            x = one.train_data[torch.randint(2000, (200,), generator=generator)]
            plain.append(hw5_diffusion.compute_denoising_loss(one.network, x, one.noise_levels, generator).item())
            ours.append(s24.mean_denoising_loss(one.network, x, one.train_data, one.noise_levels, generator).item())
    error = math.hypot(np.std(plain), np.std(ours)) / math.sqrt(60)
    assert np.mean(ours) == pytest.approx(np.mean(plain), abs=4 * error)
    assert np.std(ours) < 0.7 * np.std(plain)
    with pytest.raises(ValueError, match="at least one point"):
        one.denoising_loss(np.zeros((0, 2)), [0.2])


# ---- training


@pytest.mark.parametrize("rows, columns", [(40, 40), (60, 20), (20, 60)])
def test_orthogonalize_keeps_directions_and_evens_out_lengths(rows, columns):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    u, sizes, v = torch.linalg.svd(matrix, full_matrices=False)
    for scale in (1e-6, 1.0, 1e6):
        x = s24.orthogonalize(scale * u @ sizes.clamp(min=sizes[0] / 30).diag() @ v)
        seen = u.T @ x @ v.T  # diagonal, where x has the same singular vectors
        assert (seen - seen.diagonal().diag()).abs().max() < 1e-3
        assert 0.65 < seen.diagonal().min() and seen.diagonal().max() < 1.25
    assert not s24.orthogonalize(torch.zeros(rows, columns)).any(), "no gradient, no step"


def test_muon_leaves_a_frozen_matrix():
    one, other = (nn.Parameter(torch.ones(3, 3)) for _ in range(2))
    other.grad = torch.eye(3)
    s24.Muon([one, other], lr=0.1).step()
    assert torch.equal(one, torch.ones(3, 3)) and not torch.equal(other, torch.ones(3, 3))


def test_training_is_the_plain_loop():
    """Twenty steps in double precision: Muon for the hidden layers, whose weights decay, and Adam for the others.

    Rates are on a cosine, points drawn with replacement, weights averaged.
    """

    class Enough(Exception):
        pass

    def tick(*_):
        tick.steps += 1
        if tick.steps == 20:
            raise Enough

    tick.steps = 0
    settings = dict(n_epochs=1, batch_size=30, ema_decay=0.9)
    trained, plain, average = (small_diffusion("s24", **settings).homework for _ in range(3))
    trained.optimizers[-1].register_step_post_hook(tick)
    x0, sigmas, network, average = trained.train_data, trained.noise_levels, plain.network, average.network
    for each in (trained.network, trained.sampler, network, average):
        each.double().register_forward_pre_hook(lambda network, inputs: tuple(value.double() for value in inputs))
    weights = dict(network.named_parameters())
    hidden = [f"layers.{number}.weight" for number in range(1, 7)]
    adam = torch.optim.Adam([weight for name, weight in weights.items() if name not in hidden])
    momenta, generator = {name: 0.0 for name in hidden}, torch.Generator().manual_seed(trained.args.seed)
    for step in range(20):
        rate = 4e-3 * (1 + math.cos(math.pi * step / 100)) / 2
        x = x0[torch.randint(2000, (30,), generator=generator)]
        sigma = sigmas[torch.randint(10, (30, 1), generator=generator)]
        noise = torch.randn(30, 2, generator=generator)
        noisy = x + sigma * noise
        density = (-((noisy[:, None] - x0) ** 2).sum(2) / (2 * sigma**2)).exp()
        mean = density @ x0 / density.sum(1, keepdim=True)
        loss = (sigma**2 / 2 * (network(noisy, sigma) + (noisy - mean) / sigma**2) ** 2).sum(1).mean()
        network.zero_grad()
        loss.backward()
        adam.param_groups[0]["lr"] = rate
        adam.step()
        for name in hidden:
            gradient = weights[name].grad
            momenta[name] = 0.95 * momenta[name] + 0.05 * gradient
            weights[name].data *= 1 - 0.02 * 5 * rate
            weights[name].data -= 5 * rate * s24.orthogonalize(0.05 * gradient + 0.95 * momenta[name])
        decay = min(0.9, (1 + step) / (10 + step))
        for a, b in zip(average.parameters(), network.parameters()):
            a.data = decay * a.data + (1 - decay) * b.data
    with pytest.raises(Enough):
        next(trained.epochs())
    assert_same_weights(trained.network, network, 3e-5)
    assert_same_weights(trained.sampler, average, 3e-5)


@pytest.mark.slow
def test_no_network_has_less_loss_than_the_optimal_score():
    """Untrained, and trained for a while: the same noise for all."""
    one = small_diffusion("s24", n_epochs=1, batch_size=80).homework
    points, sigmas = one.train_data, one.noise_levels
    loss = lambda network: hw5_diffusion.compute_denoising_loss(
        network, points, sigmas, torch.Generator().manual_seed(3)
    ).item()
    best, before = loss(Optimal(points)), loss(one.network)
    next(one.epochs())
    after = loss(one.sampler)
    assert 0.2 < best < after < before, (best, after, before)


def test_default_settings():
    for args in (homework().args, settings_of("hw5_diffusion", "s24")):
        assert (args.n_epochs, args.batch_size, args.lr, args.ema_decay) == (110, 400, 4e-3, 0.999)
