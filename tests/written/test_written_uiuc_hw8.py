"""Proofs of the answers in written/uiuc_hw8.md, which names each of these tests."""

import re
from pathlib import Path

import torch

import symbolic
from proofs import (
    GAUSSIANS,
    binary,
    close,
    discrete_model,
    distributions,
    far,
    full,
    gaussian,
    kl,
    kl_divergence,
    minimise,
    near,
    random_model,
    reparameterize,
)

ANSWERS = Path(__file__).resolve().parents[2] / "written" / "uiuc_hw8.md"


def test_1a_bound_for_a_discrete_z():
    """sum q log(p(x,z)/q) is at most log p(x) for every q, equal for the posterior alone, and splits into the two parts."""
    for _ in range(20):
        prior, log_p_x_z, posterior, log_p_x = random_model(6)
        q = distributions(300, 6)
        bound = -kl(q, prior * log_p_x_z.exp())
        close(bound, q @ log_p_x_z - kl(q, prior), "sum q log(p(x,z)/q), split in two: is it + KL?")
        assert (log_p_x - bound >= (q - posterior).abs().sum(1) ** 2 / 2 - 1e-12).all(), "log p(x) is above it"
        close(-kl(posterior, prior * log_p_x_z.exp()), log_p_x, "with equality for q = p(z|x)")


def test_1a_plus_kl():
    """E_q + KL is above log p(x) for some q and below it for others, so it is no lower bound."""
    prior, log_p_x_z, _, log_p_x = discrete_model()
    q = distributions(300, 3)
    above = q @ log_p_x_z + kl(q, prior) > log_p_x
    assert above.any() and not above.all(), "with + KL it is no lower bound"


def test_1b_kl_of_gaussians_is_zero_only_for_equal_ones():
    """KL >= 0 for every pair of Gaussians, 0 for equal ones alone; equal means are not enough."""
    mu_q, mu_p, sigma_q, sigma_p = torch.randn(1000), torch.randn(1000), 0.2 + torch.rand(1000), 0.2 + torch.rand(1000)
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(normal(mu_q, sigma_q), normal(mu_p, sigma_p))
    ratio = sigma_q / sigma_p
    parts = torch.stack([(mu_q - mu_p) ** 2 / (2 * sigma_p**2), (ratio**2 - 1) / 2 - ratio.log()])
    close(divergence, parts.sum(0), "a part for the means and a part for the widths")
    assert (parts >= 0).all(), "r^2 - 1 >= 2 log r"
    assert (parts[1][(ratio - 1).abs() > 1e-3] > 0).all(), "0 for r = 1 alone; the first part for equal means alone"
    q = torch.stack([gaussian(*pair) for pair in GAUSSIANS])
    table, equal = kl(q[:, None], q), torch.eye(len(q), dtype=bool)  # [9,9]
    assert (table[equal] == 0).all() and (table[~equal] > 0.05).all(), "KL >= 0, and 0 on the diagonal only"
    assert kl(gaussian(1, 0.5), gaussian(1, 1)) > 0.3, "equal means, KL not 0"


def test_1c_kl_of_any_distribution_to_itself():
    """KL(q, q) = 0 for every q, for log(q/q) is 0 wherever q is positive."""
    q = distributions(1000, 4)
    assert ((q / q).log()[q > 0] == 0).all(), "log 1 = 0"
    assert (kl(q, q) == 0).all(), "the mean of 0"
    assert all(kl(gaussian(*pair), gaussian(*pair)) == 0 for pair in GAUSSIANS), "for Gaussians, as in the text"


def test_1d_kl_of_gaussians_of_equal_width():
    """KL = (mu_q - mu_p)^2 / (2 sigma^2) for all means and every sigma; with sigma for sigma^2 it needs sigma = 1."""
    s = symbolic
    answer = (s.mu_q - s.mu_p) ** 2 / (2 * s.sigma**2)
    log_ratio = s.log_density(s.mu_q, s.sigma) - s.log_density(s.mu_p, s.sigma)
    assert s.same(s.expectation(log_ratio, s.mu_q, s.sigma), answer), "squared distance of the means over 2 sigma^2"

    mu_q, mu_p, sigma = torch.randn(50), torch.randn(50), 0.2 + torch.rand(50)
    oracle = torch.distributions.kl_divergence(*(torch.distributions.Normal(mu, sigma) for mu in (mu_q, mu_p)))
    close((mu_q - mu_p) ** 2 / sigma**2, 2 * oracle, "without the 2 it is twice too large")
    close((mu_q - mu_p) ** 2 / (2 * sigma), sigma * oracle, "with sigma for sigma^2 it is sigma times the KL")
    distance = ((mu_q - mu_p) / sigma)[:, None]  # shifted and scaled so that p is N(0, 1)
    close(kl_divergence(distance, torch.ones(50, 1)), oracle, "kl_divergence: is the factor 1/2 missing?")


def test_1e_stationary_point():
    """The Lagrangian is flat at p(x|z) p(z) / sum p(x|z') p(z') with lambda = 1 - log p(x), for every model."""
    for _ in range(20):
        prior, log_p_x_z, _, log_p_x = random_model(4)
        joint = log_p_x_z.exp() * prior
        q, multiplier = (joint / joint.sum()).requires_grad_(), (1 - log_p_x).requires_grad_()
        lagrangian = q @ log_p_x_z - (q * (q / prior).log()).sum() + multiplier * (q.sum() - 1)
        by_q, by_multiplier = torch.autograd.grad(lagrangian, (q, multiplier))
        close(by_q, torch.zeros(4), "log p(x|z) + log p(z) - log q - 1 + lambda")
        close(by_multiplier, 0.0, "the constraint")


def test_1e_gradients_find_it():
    """Gradients that start at an even q end at the answer, and no other distribution has a larger objective."""
    for x in binary(2):
        prior, log_p_x_z, _, log_p_x = discrete_model(x)
        answer = log_p_x_z.exp() * prior / (log_p_x_z.exp() * prior).sum()
        logits = torch.zeros(3, requires_grad=True)
        least = minimise(lambda: kl(logits.softmax(0), prior) - logits.softmax(0) @ log_p_x_z, logits)
        close(logits.softmax(0), answer, "gradients lead to the same q: is the prior missing?", atol=1e-6)
        close(-least, log_p_x, "where the objective is log p(x)")
        q = distributions(300, 3)
        close(log_p_x - (q @ log_p_x_z - kl(q, prior)), kl(q, answer), "every q falls short by KL(q, answer)")


def test_1f_the_stationary_point_is_the_posterior():
    """p(z|x), counted in the table of all pairs (x, z), is 1(e)'s answer; p(z) and p(x|z) are in general worse."""
    images = binary(2)
    joint = torch.stack([prior * log_p_x_z.exp() for prior, log_p_x_z, *_ in map(discrete_model, images)])  # [4,3]
    close(joint.sum(), 1.0, "all pairs of x and z")
    close(joint.sum(0), [0.5, 0.25, 0.25], "summed over x, the prior of z")
    for pairs, x in zip(joint, images):
        prior, log_p_x_z, _, log_p_x = discrete_model(x)
        counted = pairs / pairs.sum()  # of the pairs with this x
        close(counted, log_p_x_z.exp() * prior / (log_p_x_z.exp() * prior).sum(), "the answer of 1(e)")
        close(counted @ log_p_x_z - kl(counted, prior), log_p_x, "p(z|x) makes the bound log p(x)")
        for wrong in (prior, log_p_x_z.softmax(0)):
            assert wrong @ log_p_x_z - kl(wrong, prior) < log_p_x - 0.005, "the bound is lower"
        assert abs(log_p_x_z.exp().sum() - 1) > 0.05 and pairs.sum() < 0.9, "(2) and (4) do not sum to 1 here"
    same = full(1, 4)[0]
    close(same * 0.3 / (same * 0.3).sum(), same, "where p(x|z) does not depend on z, p(z) is p(z|x)")


def test_1g_reparameterize():
    """reparameterize gives mu + exp(logvar / 2) eps, with eps ~ N(0, 1) of its own for every element, and has gradients."""
    rows = 20_000
    mu, logvar = torch.randn(rows, 3), torch.randn(rows, 3)
    torch.manual_seed(1)
    eps = reparameterize(torch.zeros_like(mu), torch.zeros_like(logvar))
    torch.manual_seed(1)
    z = reparameterize(mu, logvar)
    close(z, mu + torch.exp(logvar / 2) * eps, "same seed, same eps: is the deviation exp(logvar)?")

    assert eps.unique().numel() == eps.numel(), "every element has its own noise"
    near(eps, 0, "the mean of eps")
    near(eps[:, :, None] * eps[:, None], torch.eye(3), "variance 1 of each latent, and independent of the others")
    near(eps[1:] * eps[:-1], 0, "images have independent noise")
    near(eps**4, 3, "the fourth moment of a normal")
    squares = ((z - mu) / logvar.exp()).flatten() ** 2
    far(squares, 1, "were exp(logvar) the deviation, this would be eps^2, with mean 1")

    answer = {"torch": torch}
    exec(re.search(r"```python\n(.*?)```", ANSWERS.read_text(encoding="utf-8"), re.DOTALL)[1], answer)
    torch.manual_seed(1)
    close(answer["reparameterize"](mu, logvar), z, "the code in the answer")

    mu, logvar = mu.requires_grad_(), logvar.requires_grad_()
    torch.manual_seed(1)
    by_mu, by_logvar = torch.autograd.grad(reparameterize(mu, logvar).sum(), (mu, logvar))
    close(by_mu, torch.ones(rows, 3), "dz/dmu = 1: is the sample detached?")
    close(by_logvar, (z - mu).detach() / 2, "dz/dlogvar = (z - mu) / 2: is the sample detached?")
