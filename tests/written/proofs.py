"""What the proofs of the written answers share: distributions, a line of z, small models, and a game.

A distribution is a vector of probabilities with sum 1 everywhere, also on the line. Logarithms are natural.

How much is proved: sums over all outcomes are exact, sums over the line are integrals to many digits, symbolic.py
shows an identity for all values of its symbols. "For every q" is an identity or an inequality, checked for many random q. "Can"
is an example, beside an example where it is not so. Where sampling is the point, the seed is fixed (conftest.py) and
the bound is four standard errors.
"""

import math
from functools import cache

import torch

from hw5_lab.editions.hw8 import kl_divergence, reparameterize  # noqa: F401, the tests take both from here
from hw5_vae import elbo, logpdf_bernoulli, logpdf_diagonal_gaussian

LOG2, LOG4 = math.log(2), math.log(4)
STEP = 0.1
LINE = STEP * torch.arange(-120, 121, dtype=torch.float64)[:, None]  # z, [241,1]; half the step changes no result
Z = LINE[:, 0]
GAUSSIANS = [(mu, sigma) for mu in (0, 1, 2) for sigma in (0.5, 1, 1.5)]
X = torch.tensor([[1.0, 0.0]], dtype=torch.float64)  # an image of two pixels, made from z on the line, or z in {0,1,2}


def close(value, expected, message, atol=1e-8):
    torch.testing.assert_close(
        torch.as_tensor(value),
        torch.as_tensor(expected),
        rtol=0,
        atol=atol,
        check_dtype=False,
        msg=lambda difference: f"{message}\n{difference}",
    )


def standard_errors(samples, expected):
    """How many standard errors the mean of samples [N,...] is away from what is expected."""
    return (samples.mean(0) - expected).abs() / (samples.std(0) / math.sqrt(len(samples)))


def near(samples, expected, message):
    """What is sampled has the expected mean, as far as one can see: all within four standard errors."""
    errors = standard_errors(samples, expected)
    assert (errors < 4).all(), f"{message}\n{samples.mean(0)} is {errors} standard errors from {expected}"


def far(samples, rejected, message):
    """What is sampled has another mean for certain: all more than twenty standard errors away."""
    errors = standard_errors(samples, rejected)
    assert (errors > 20).all(), f"{message}\n{samples.mean(0)} is only {errors} standard errors from {rejected}"


def kl(q, p):
    """KL(q, p) along the last dimension: 0 log 0 = 0, and infinite where q has outcomes that p excludes."""
    return torch.where(q > 0, q * (q / p).log(), 0.0).sum(-1)


def entropy(q):
    return -torch.xlogy(q, q).sum(-1)


def simplex(outcomes, steps):
    """All distributions [M,outcomes] whose probabilities are multiples of 1/steps."""
    counts = torch.cartesian_prod(*[torch.arange(steps + 1)] * outcomes)
    return counts[counts.sum(1) == steps] / steps


def full(count, outcomes):
    """Random distributions [count,outcomes] that exclude nothing."""
    return (2 * torch.randn(count, outcomes)).softmax(1)


def distributions(count, outcomes):
    """Random distributions [count,outcomes], of which every third excludes some outcomes."""
    kept = torch.rand(count, outcomes) < 0.5
    kept[torch.arange(count), torch.randint(outcomes, (count,))] = True  # one at least
    kept[torch.arange(count) % 3 != 0] = True
    weights = full(count, outcomes) * kept
    return weights / weights.sum(1, keepdim=True)


def distance(q, p):
    """Half the sum of |q - p|: 0 for q = p, 1 where they share nothing."""
    return (q - p).abs().sum(-1) / 2


def binary(length):
    """All binary vectors [2**length,length]."""
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * length).view(-1, length)


def parameters(mu, sigma):
    """Mean and variance of a Gaussian on the line as hw5_vae takes them, both [1]."""
    return torch.as_tensor(mu).double().view(1), torch.as_tensor(sigma).double().view(1) ** 2


def gaussian(mu, sigma):
    """The Gaussian's probabilities [241] of the points of the line: by the trapezoid rule, density times step."""
    return STEP * logpdf_diagonal_gaussian(LINE, *parameters(mu, sigma)).exp()


def minimise(loss, *variables):
    """The least value of loss(), by LBFGS; the variables are left where it is reached."""
    optimizer = torch.optim.LBFGS(
        variables, max_iter=100, tolerance_grad=1e-10, tolerance_change=1e-13, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    return loss().item()


# ---- a model with z ~ N(0, 1): p(x) and the posterior are integrals over the line


def decode(z):
    """Probabilities [B,2] of the two pixels, for z [B,1]."""
    return torch.sigmoid(torch.cat([2 * z, 1 - z], 1))


def line_model():
    """p(z), log p(x|z) and p(z|x) on the line, all [241], and log p(x), for the image X."""
    prior, log_p_x_z = gaussian(0, 1), logpdf_bernoulli(X, decode(LINE))
    joint = prior * log_p_x_z.exp()
    return prior, log_p_x_z, joint / joint.sum(), joint.sum().log()


def moments(q):
    """Mean and deviation of a distribution on the line."""
    mean = q @ Z
    return mean.item(), (q @ (Z - mean) ** 2).sqrt().item()


@cache
def eq_2(mu, sigma):
    """elbo of one sample, for every z of the line as that sample, [241]; its mean under q is the bound."""
    q = [value[None] for value in parameters(mu, sigma)]
    return torch.stack([elbo(z, *q, X, decode(z)) for z in LINE.split(1)])


# ---- a model with z in {0,1,2}


def discrete_model(x=X):
    """p(z), log p(x|z), p(z|x), all [3], and log p(x), for an image x of two pixels."""
    prior = torch.tensor([0.5, 0.25, 0.25])
    log_p_x_z = logpdf_bernoulli(x.view(1, 2), torch.tensor([[0.2, 0.5], [0.4, 0.5], [0.8, 0.25]]))
    joint = prior * log_p_x_z.exp()
    return prior, log_p_x_z, joint / joint.sum(), joint.sum().log()


def random_model(outcomes=4):
    """The same for a random model with random z in {0, 1, ...}: p(z), log p(x|z), p(z|x), all [outcomes], log p(x)."""
    prior, log_p_x_z = full(1, outcomes)[0], torch.rand(outcomes).log()
    joint = prior * log_p_x_z.exp()
    return prior, log_p_x_z, joint / joint.sum(), joint.sum().log()


# ---- a game: D sees three kinds of images


REAL = torch.tensor([0, 1, 1, 1, 2, 2, 2, 2])  # a batch, each kind as often as it is likely
FAKE = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
P_DATA, P_G = REAL.bincount().double() / 8, FAKE.bincount().double() / 8


def value(d, p_data, p_g):
    """V = E_data[log D] + E_G[log(1 - D)] along the last dimension, D and both distributions given per kind."""
    return (torch.xlogy(p_data, d) + torch.xlogy(p_g, 1 - d)).sum(-1)


def best_value(p_g):
    """max_D V for each p_G [M,3], by trying 4001 values of D for each kind."""
    d = torch.linspace(0, 1, 4001)[:, None, None]
    return (torch.xlogy(P_DATA, d) + torch.xlogy(p_g, 1 - d)).max(0).values.sum(-1)
