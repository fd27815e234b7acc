"""The written questions of Penn's ESE 546, homework 5; test_written.py has the table and says how to read the tests."""

import math

import pytest
import torch

from proofs import double_precision  # noqa: F401, a fixture of every test below
from proofs import LOG2, binary, close, discrete_model, entropy, kl, minimise, simplex


def test_penn_1a_free_energy():
    """Prove KL(q, p) = b sum q Phi + sum q log q + log Z for p(w) = exp(-b Phi(w)) / Z.

    Answer: put log p = -b Phi - log Z into KL(q, p) = sum q log q - sum q log p.
    With the text's F(q) = -b sum q Phi - sum q log q this is KL(q, p) = log Z - F(q). So max F = log Z, at q = p.
    Rejected: F = E_q[Phi] - H(q)/b, as in other texts. Sign and scale differ: its least value is -log(Z)/b.
    """
    phi, b, q = torch.tensor([0.3, 1.0, -0.5, 2.0]), 0.7, simplex(4, 10)
    z = (-b * phi).exp().sum()
    p = (-b * phi).exp() / z

    def free_energy(q, phi, b):
        return -b * (q @ phi) - torch.xlogy(q, q).sum(-1)

    close(p.log(), -b * phi - z.log(), "log p")
    close(kl(q, p), b * (q @ phi) + torch.xlogy(q, q).sum(-1) + z.log(), "the expression, for each of 286 q")
    close(kl(q, p), z.log() - free_energy(q, phi, b), "KL(q, p) = log Z - F(q): is F's sign wrong?")
    assert (free_energy(q, phi, b) <= z.log()).all(), "F is a lower bound of log Z"
    logits = torch.zeros(4, requires_grad=True)
    largest = -minimise(lambda: -free_energy(logits.softmax(0), phi, b), logits)
    close(largest, z.log(), "the largest F is log Z")
    close(logits.softmax(0), p, "and p has it", atol=1e-6)
    rejected = p @ phi - entropy(p) / b
    close(rejected, -z.log() / b, "E[Phi] - H/b at q = p is -log(Z)/b")
    assert abs(z.log() - rejected) > 1, "log Z minus that is not KL(p, p) = 0"

    prior, log_p_x_z, _, log_p_x = discrete_model()  # the text's note: with Phi = -log p(x,z) and b = 1 ...
    phi = -(prior.log() + log_p_x_z)
    close((-phi).exp().sum().log(), log_p_x, "... log Z is log p(x)")
    q = simplex(3, 20)
    close(free_energy(q, phi, 1), q @ log_p_x_z - kl(q, prior), "... and F is the ELBO")


def test_penn_1b_mean_energy_is_a_derivative_of_log_z():
    """Prove E_p[Phi] = -d log Z / d b.

    Answer: d log Z / d b = (1/Z) sum -Phi exp(-b Phi) = -sum p Phi.
    Rejected: + d log Z / d b. Rejected: the derivative of -log(Z)/b. That is the entropy of p over b^2.
    """
    phi = torch.linspace(0.5, 3, 16)
    for b in (0.2, 1.0, 3.0):
        b = torch.tensor(b, requires_grad=True)
        log_z = (-b * phi).exp().sum().log()
        p = ((-b * phi).exp() / (-b * phi).exp().sum()).detach()
        (derivative,) = torch.autograd.grad(log_z, b, retain_graph=True)
        close(p @ phi, -derivative, "E[Phi] = -d log Z / d b: is the sign wrong?")
        (slope,) = torch.autograd.grad(-log_z / b, b)
        close(slope, entropy(p) / b.item() ** 2, "d/db (-log(Z)/b) is the entropy over b^2")
        assert abs(slope - p @ phi) > 0.1 and abs(derivative - p @ phi) > 0.1, "neither is the mean energy"


def not_all_ones(n):
    """All binary w [2**n,n], and p(w) ~ 1 - prod w_i: equal for all but w = (1, ..., 1), which it excludes."""
    w = binary(n)
    weight = 1 - w.prod(1)
    return w, weight / weight.sum()


def mean_field(w, t):
    """q(w) = prod t_i^w_i (1 - t_i)^(1 - w_i), [M,2**n], for t [M,n]."""
    return (t[:, None] ** w * (1 - t[:, None]) ** (1 - w)).prod(-1)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_penn_1c_mean_field_with_identical_factors(n):
    """Which q(w) = prod q(w_i), with the same factor for all i, is nearest to p(w) ~ 1 - prod w_i? Is it similar to p?

    Answer: all mass on w = 0; KL(q, p) = log(2^N - 1). Any factor with q(w_i = 1) = t > 0 gives mass to (1, ..., 1),
    which p excludes, and so an infinite KL. It is not similar: p is spread evenly over 2^N - 1 vectors.
    Rejected: t = the marginal of p, which is best for KL(p, q). Rejected: t = 1/2.
    """
    w, p = not_all_ones(n)
    ts = torch.linspace(0, 1, 1001)
    q = mean_field(w, ts[:, None].expand(1001, n))
    divergence = kl(q, p)
    assert ts[divergence.isfinite()].tolist() == [0.0], "t > 0 has q(1, ..., 1) > 0"
    close(divergence.min(), math.log(2**n - 1), "one w of 2^N - 1 equally likely ones")
    close((q[0] - p).abs().sum() / 2, 1 - 1 / (2**n - 1), "q* and p share no more than p's mass of one w")

    marginal = p @ w
    close(ts[kl(p, q).argmin()], marginal[0], "the marginals are the best t for KL(p, q)", atol=1e-3)
    for t in (marginal, torch.full((n,), 0.5)):
        assert kl(mean_field(w, t[None]), p).item() == math.inf, "but impossible for KL(q, p)"


@pytest.mark.parametrize("n", [2, 3, 4])
def test_penn_1d_mean_field_with_free_factors(n):
    """The same for q(w) = prod q_i(w_i), with a factor of its own for each i.

    Answer: one w_i is always 0, as with the text's q_1(w_1) = 1 - w_1, and the others are fair coins, in N ways;
    KL(q, p) = log((2^N - 1) / 2^(N-1)). q(1, ..., 1) = 0 is necessary, else the KL is infinite.
    It is more similar to p: even over half of the vectors, and the KL stays below log 2 for any N.
    Rejected: two factors at 0. That costs log 2 more.
    """
    w, p = not_all_ones(n)
    ts = torch.cartesian_prod(*[torch.linspace(0, 1, 11)] * n)
    q = mean_field(w, ts)
    divergence = kl(q, p)
    assert torch.equal(divergence.isfinite(), q[:, -1] == 0), "finite exactly where q(1, ..., 1) = 0"
    least = divergence.min()
    close(least, math.log((2**n - 1) / 2 ** (n - 1)), "q spreads over half of the 2^N vectors")
    best = ts[divergence < least + 1e-9].sort(1).values
    close(best, torch.tensor([0.0] + [0.5] * (n - 1)).expand(n, n), "one t_i is 0, the others 1/2, in N ways")
    assert least < LOG2, "below log 2 for any N"
    close(math.log(2**n - 1) - least, (n - 1) * LOG2, "closer than identical factors, by log 2 for each coin")
    close((q[divergence.argmin()] - p).abs().sum() / 2, 1 - 2 ** (n - 1) / (2**n - 1), "q* and p share about half")
    two = torch.tensor([0.0, 0.0] + [0.5] * (n - 2))[None]
    close(kl(mean_field(w, two), p)[0], least + LOG2, "a second factor at 0 halves the vectors that are left")
