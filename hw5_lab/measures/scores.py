"""How good a score field and its samples are. For a finite set of points the best possible score is known."""

import math

import torch

from hw5_diffusion import column


def optimal_score(x, points, sigma):
    """The score at x [B,2] of `points` [N,2] with noise sigma: the minimiser of the loss among all functions.

    (mean of the points, weighted by softmax(-|x - p|^2 / (2 sigma^2)), - x) / sigma^2; also the log density at x, [B].
    """
    scores, log_densities = [], []
    for x, sigma in zip(x.split(500), column(sigma, x).split(500)):
        squares = (x[:, :1] - points[:, 0]) ** 2 + (x[:, 1:] - points[:, 1]) ** 2  # [B,N]
        logits = -squares / (2 * sigma**2)
        largest = logits.amax(1, keepdim=True)
        # Once, for both results. Below -87 exp() takes thirty times as long, and e^-80 is nothing beside the largest, 1
        weights = (logits - largest).clamp_(min=-80).exp_()
        total = weights.sum(1, keepdim=True)
        scores.append((weights @ points / total - x) / sigma**2)
        log_densities.append((largest + (total / (2 * math.pi * len(points) * sigma**2)).log())[:, 0])
    return torch.cat(scores), torch.cat(log_densities)


def sliced_wasserstein(a, b, directions=100, quantiles=1000):
    """Mean over directions of the plane of the Wasserstein-1 distance between projections of a [N,2] and b [M,2]."""
    angles = torch.arange(directions) * math.pi / directions
    axes = torch.stack([angles.cos(), angles.sin()]).to(a)  # [2,directions]
    levels = (torch.arange(quantiles).to(a) + 0.5) / quantiles
    return (torch.quantile(a @ axes, levels, dim=0) - torch.quantile(b @ axes, levels, dim=0)).abs().mean()


@torch.no_grad()
def field_cosines(score, x, points, sigmas, lowest_sigma, knows_sigma):
    """How well the arrows score(x, sigma) point, as cosines to the optimal score of `points`, at x [N,2].

    At each level it is the mean over x, weighted by the density of the perturbed data there. A network that is not told
    sigma has its least loss with the best possible sigma-blind score: the mean of sigma times the optimal score over
    the levels that a point may come from. `..._limit` is the cosine of that field, `cosine_to_limit` that of the score
    to it. Then comes the lowest cosine of the levels from lowest_sigma on. Last come, of the arrows farther than
    lowest_sigma from all data, the mean cosine, without weights, and the share that points towards the data.
    """
    scores, log_p = zip(*(optimal_score(x, points, sigma) for sigma in sigmas))
    shares = torch.stack(log_p).softmax(0)[:, :, None]  # of the levels at each x, [L,N,1]
    blind = (shares * sigmas[:, None, None] * torch.stack(scores)).sum(0)
    metrics, seen = {}, []
    for sigma, best, log_density in zip(sigmas.tolist(), scores, log_p):
        cosine = lambda field: (log_density.softmax(0) @ torch.cosine_similarity(field, best)).item()
        metrics[f"cosine_{sigma:.4f}"] = cosine(score(x, sigma))
        if not knows_sigma:
            metrics[f"cosine_{sigma:.4f}_limit"] = cosine(blind)
        if sigma >= lowest_sigma:
            seen.append(metrics[f"cosine_{sigma:.4f}"])
    if not knows_sigma:
        weights = torch.stack(log_p).logsumexp(0).softmax(0)
        metrics["cosine_to_limit"] = (weights @ torch.cosine_similarity(score(x, 1.0), blind)).item()
    outside = x[torch.cdist(x, points).min(1).values > lowest_sigma]
    best = optimal_score(outside, points, lowest_sigma)[0]
    cosines = torch.cosine_similarity(score(outside, lowest_sigma), best)
    return {
        **metrics,
        f"cosine_lowest_from_{lowest_sigma}": min(seen),
        "outside_cosine": cosines.mean().item(),
        "outside_share_towards_data": (cosines > 0).float().mean().item(),
    }
