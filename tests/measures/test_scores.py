"""hw5_lab/measures/scores: the best possible score, the distance of two sets of points, cosines of a field."""

import math

import pytest
import torch
from plain import Optimal, word

import hw5_diffusion
from hw5_lab.measures.scores import field_cosines, optimal_score, sliced_wasserstein


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


# ---- the cosines of a field

LEVELS = hw5_diffusion.generate_noise_levels(0.3, 0.01, 10)


POINTS = word("CS446", 300)[0]


def cosines(field, knows_sigma=True):
    """Of field(x, sigma) to the optimal score of a word, on a coarse grid around it."""
    x = torch.cartesian_prod(torch.linspace(-2.5, 2.5, 20), torch.linspace(-1, 1, 10))
    return field_cosines(field, x, POINTS, LEVELS, 0.03, knows_sigma)


@pytest.fixture(scope="module")
def perfect():
    return Optimal(POINTS)


def test_a_perfect_score_and_its_opposite(perfect):
    metrics = cosines(perfect)
    assert metrics["cosine_lowest_from_0.03"] == pytest.approx(1) and metrics["outside_share_towards_data"] == 1
    assert metrics["outside_cosine"] == pytest.approx(1)
    assert [metrics[f"cosine_{sigma:.4f}"] for sigma in LEVELS] == pytest.approx([1] * 10)
    assert not any("limit" in name for name in metrics), "a network that is told sigma has no other limit"
    metrics = cosines(lambda x, sigma: -perfect(x, sigma))
    assert metrics["cosine_lowest_from_0.03"] == pytest.approx(-1) and metrics["outside_share_towards_data"] == 0
    assert metrics["outside_cosine"] == pytest.approx(-1)


def test_cosines_are_weighted_by_the_density_of_the_perturbed_data(perfect):
    """Of a field that is right on the left and reversed on the right: the difference of the two densities' shares."""
    x = torch.cartesian_prod(torch.linspace(-2.5, 2.5, 20), torch.linspace(-1, 1, 10))
    x = x[x[:, 0] < 1]
    sign = torch.where(x[:, :1] < 0, 1.0, -1.0)
    densities = [optimal_score(x, POINTS, sigma)[1].double().exp() for sigma in LEVELS]
    share = lambda density: ((sign[:, 0] * density).sum() / density.sum()).item()
    metrics = field_cosines(
        lambda x_, sigma: sign * perfect(x, sigma) if len(x_) == len(x) else perfect(x_, sigma),
        x,
        POINTS,
        LEVELS,
        0.03,
        True,
    )
    for sigma, density in zip(LEVELS[:6], densities):
        assert metrics[f"cosine_{sigma:.4f}"] == pytest.approx(share(density), abs=1e-3)
    assert abs(share(densities[0]) - sign.mean().item()) > 0.05, "else this test shows nothing"
    scores = torch.stack([optimal_score(x, POINTS, sigma)[0] for sigma in LEVELS])
    blind = torch.einsum("lnd,ln,l->nd", scores.double(), torch.stack(densities), LEVELS.double()).float()
    told = lambda x_, sigma: sign * blind if len(x_) == len(x) else x_
    found = field_cosines(told, x, POINTS, LEVELS, 0.03, False)["cosine_to_limit"]
    assert found == pytest.approx(share(sum(densities)), abs=1e-3)


def test_the_lowest_cosine_is_that_of_the_levels_that_count(perfect):
    right_above = lambda limit: lambda x, sigma: perfect(x, sigma) * (1 if sigma > limit else -1)
    metrics = cosines(right_above(0.03))
    assert metrics["cosine_lowest_from_0.03"] == pytest.approx(1), "of the levels from 0.03 on"
    assert metrics["cosine_0.0213"] == pytest.approx(-1)
    assert cosines(right_above(0.04))["cosine_lowest_from_0.03"] == pytest.approx(-1), "one wrong level is enough"


def test_a_network_that_is_not_told_sigma_has_a_limit():
    """It can follow the mean over the levels of sigma times the score; every other field has more loss."""
    points = POINTS

    def blind(x, sigma):
        scores, log_p = zip(*(optimal_score(x, points, level) for level in LEVELS))
        shares = torch.stack(log_p).softmax(0)
        return torch.einsum("lnd,ln,l->nd", torch.stack(scores), shares, LEVELS) / hw5_diffusion.column(sigma, x)

    noisy, sigma = hw5_diffusion.perturb(points, LEVELS, torch.Generator().manual_seed(0))
    best, direction = optimal_score(noisy, points, sigma)[0], blind(noisy, 1.0)
    loss = lambda score: hw5_diffusion.weighted_error(score, (points - noisy) / sigma**2, sigma).mean().item()
    assert loss(best) < loss(direction / sigma) < min(loss(factor * direction / sigma) for factor in (0.8, 1.2))
    metrics = cosines(blind, knows_sigma=False)
    assert metrics["cosine_to_limit"] == pytest.approx(1)
    for sigma in LEVELS:
        assert metrics[f"cosine_{sigma:.4f}"] == pytest.approx(metrics[f"cosine_{sigma:.4f}_limit"], abs=1e-4)
    assert metrics["cosine_0.0100_limit"] < 0.99, "else this test shows nothing"
    assert cosines(lambda x, sigma: -blind(x, sigma), knows_sigma=False)["cosine_to_limit"] == pytest.approx(-1)
