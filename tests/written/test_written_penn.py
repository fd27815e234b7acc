"""Proofs of the answers in written/penn.md, which names each of these tests."""

import math

import pytest
import sympy
import torch

from proofs import LOG2, binary, close, discrete_model, distance, distributions, entropy, kl, minimise


def boltzmann(phi, beta):
    """p(w) and log Z(beta), for energies phi [W]."""
    log_z = (-beta * phi).logsumexp(0)
    return (-beta * phi - log_z).exp(), log_z


def free_energy(q, phi, beta):
    """The text's F(q) = -beta sum q Phi - sum q log q, along the last dimension."""
    return -beta * (q @ phi) + entropy(q)


def test_1a_kl_is_energy_entropy_and_log_z():
    """KL(q, p) = beta sum q Phi + sum q log q + log Z, for every q, energy and beta."""
    for _ in range(50):
        phi, beta, q = 2 * torch.randn(5), 3 * torch.rand(()), distributions(200, 5)
        p, log_z = boltzmann(phi, beta)
        close(p, (-beta * phi).exp() / (-beta * phi).exp().sum(), "p = exp(-beta Phi) / Z")
        close(p.log(), -beta * phi - log_z, "log p")
        close(kl(q, p), torch.xlogy(q, q).sum(1) - q @ p.log(), "sum q log q - sum q log p")
        close(kl(q, p), beta * (q @ phi) + torch.xlogy(q, q).sum(1) + log_z, "the expression (2)")


def test_1a_largest_free_energy():
    """log Z - F(q) = KL(q, p) for every q: F is at most log Z, and reaches it at q = p alone."""
    for _ in range(50):
        phi, beta, q = 2 * torch.randn(5), 3 * torch.rand(()), distributions(200, 5)
        p, log_z = boltzmann(phi, beta)
        close(log_z - free_energy(q, phi, beta), kl(q, p), "is F's sign wrong?")
        close(free_energy(p, phi, beta), log_z, "F(p) = log Z")
        assert (log_z - free_energy(q, phi, beta) >= 2 * distance(q, p) ** 2 - 1e-12).all(), "every other q has less"
    logits = torch.zeros(5, requires_grad=True)
    largest = -minimise(lambda: -free_energy(logits.softmax(0), phi, beta), logits)
    close(largest, log_z, "gradients find the same largest F", atol=1e-6)
    close(logits.softmax(0), p, "at q = p", atol=1e-3)


def test_1a_mistakes():
    """E_q[Phi] - H(q)/beta of other texts is -F/beta: its least value is -log(Z)/beta, at q = p, found by searching."""
    for _ in range(10):
        phi, beta, q = 2 * torch.randn(5), 0.3 + torch.rand(()), distributions(500, 5)
        p, log_z = boltzmann(phi, beta)
        other = q @ phi - entropy(q) / beta
        close(other, -free_energy(q, phi, beta) / beta, "sign and scale differ")
        assert (other >= -log_z / beta - 1e-12).all(), "no q has less"
        logits = torch.zeros(5, requires_grad=True)
        least = minimise(lambda: logits.softmax(0) @ phi - entropy(logits.softmax(0)) / beta, logits)
        close(least, -log_z / beta, "its least value", atol=1e-6)
        close(logits.softmax(0), p, "is at q = p", atol=1e-3)


def test_1a_the_elbo_is_a_free_energy():
    """With Phi = -log p(x,z) and beta = 1, log Z is log p(x) and F is the ELBO, as the text notes."""
    prior, log_p_x_z, _, log_p_x = discrete_model()
    phi, q = -(prior.log() + log_p_x_z), distributions(300, 3)
    close(boltzmann(phi, 1)[1], log_p_x, "log Z")
    close(free_energy(q, phi, 1), q @ log_p_x_z - kl(q, prior), "F")


def test_1b_mean_energy_is_a_derivative_of_log_z():
    """E_p[Phi] = -d log Z / d beta, for every energy and beta: by symbols, by automatic and by finite differences."""
    beta, *phi = sympy.symbols("beta Phi_1:5", real=True)
    z = sum(sympy.exp(-beta * each) for each in phi)
    mean = sum(each * sympy.exp(-beta * each) for each in phi) / z
    assert sympy.simplify(sympy.diff(sympy.log(z), beta) + mean) == 0, "for four energies and a beta that are symbols"
    for _ in range(20):
        phi, beta, h = 2 * torch.randn(16), (3 * torch.rand(())).requires_grad_(), 1e-5
        p, log_z = boltzmann(phi, beta)
        (derivative,) = torch.autograd.grad(log_z, beta)
        close(p @ phi, -derivative, "is the sign wrong?")
        with torch.no_grad():
            slope = (boltzmann(phi, beta + h)[1] - boltzmann(phi, beta - h)[1]) / (2 * h)
        close(slope, derivative, "the slope of log Z", atol=1e-5)


def test_1b_mistakes():
    """The derivative of -log(Z)/beta is the entropy of p over beta^2, in general not the mean energy."""
    phi = torch.linspace(0.5, 3, 16)
    for beta in (0.2, 1.0, 3.0):
        beta = torch.tensor(beta, requires_grad=True)
        p, log_z = boltzmann(phi, beta)
        (slope,) = torch.autograd.grad(-log_z / beta, beta)
        close(slope, entropy(p) / beta**2, "the entropy over beta^2")
        assert abs(slope - p @ phi) > 0.1, "here it is not the mean energy"


def not_all_ones(n):
    """All binary w [2**n,n], and p(w) ~ 1 - prod w_i: equal for all but w = (1, ..., 1), which it excludes."""
    w = binary(n)
    weight = 1 - w.prod(1)
    return w, weight / weight.sum()


def mean_field(w, t):
    """q(w) = prod t_i^w_i (1 - t_i)^(1 - w_i), [M,2**n], for t [M,n]."""
    return (t[:, None] ** w * (1 - t[:, None]) ** (1 - w)).prod(-1)


def coin(t):
    """Entropy of a coin that shows 1 with probability t."""
    return -torch.xlogy(t, t) - torch.xlogy(1 - t, 1 - t)


def log_allowed(n):
    """log(2^n - 1), also for large n."""
    return n * LOG2 + math.log1p(-(2.0**-n))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 10])
def test_1c_mean_field_with_identical_factors(n):
    """Only t = 0 has a finite KL(q, p), log(2^N - 1); q* is p for N = 1, and shares one of 2^N - 1 vectors with it else."""
    w, p = not_all_ones(n)
    ts = torch.linspace(0, 1, 101)
    q = mean_field(w, ts[:, None].expand(101, n))
    close(q[:, -1], ts**n, "q(1, ..., 1) = t^N")
    divergence = kl(q, p)
    assert ts[divergence.isfinite()].tolist() == [0.0], "t > 0 has q(1, ..., 1) > 0, where p is 0"
    close(divergence[0], math.log(2**n - 1), "one w of 2^N - 1 equally likely ones")
    close(log_allowed(n), math.log(2**n - 1), "the same for large N")
    close(distance(q[0], p), 1 - 1 / (2**n - 1), "q* and p share no more than p's mass of one w")
    assert w[q[0] > 0].tolist() == [[0.0] * n], "all mass is on w = 0"


def test_1c_mistakes():
    """The marginal of p is the best t for KL(p, q); it and t = 1/2 have an infinite KL(q, p)."""
    for n in (2, 3, 4):
        w, p = not_all_ones(n)
        ts = torch.linspace(0, 1, 1001)[1:-1]
        marginal = p @ w
        close(marginal, torch.full((n,), (2 ** (n - 1) - 1) / (2**n - 1)), "p(w_i = 1)")
        other = kl(p, mean_field(w, ts[:, None].expand(999, n)))
        least = kl(p, mean_field(w, marginal[None]))
        assert (other >= least - 1e-12).all(), "no t has a smaller KL(p, q)"
        for t in (marginal, torch.full((n,), 0.5)):
            assert kl(mean_field(w, t[None]), p).item() == math.inf, "but impossible for KL(q, p)"


@pytest.mark.parametrize("n", [2, 3, 4, 10])
def test_1d_kl_is_log_allowed_minus_entropy(n):
    """KL is infinite unless some t_i = 0; then it is log(2^N - 1) - H(q), and H(q) is the sum of the coins' entropies."""
    w, p = not_all_ones(n)
    ts = torch.rand(60, n)
    ts[:40] *= torch.rand(40, n) < 0.7  # some factors at 0
    q = mean_field(w, ts)
    divergence = kl(q, p)
    assert torch.equal(divergence.isfinite(), (ts == 0).any(1)), "finite exactly where q(1, ..., 1) = 0"
    close(q[:, -1], ts.prod(1), "q(1, ..., 1) is the product of the t_i")
    finite = divergence.isfinite()
    assert finite.any() and not finite.all()
    close(entropy(q), coin(ts).sum(1), "independent coins: their entropies add up")
    close(divergence[finite], log_allowed(n) - entropy(q[finite]), "KL = log(2^N - 1) - H(q)")
    answer = torch.tensor([[0.0] + [0.5] * (n - 1)])
    close(kl(mean_field(w, answer), p)[0], math.log((2**n - 1) / 2 ** (n - 1)), "the answer's KL")
    close(distance(mean_field(w, answer)[0], p), (2 ** (n - 1) - 1) / (2**n - 1), "q* and p differ by less than half")
    assert (2 ** (n - 1) - 1) / (2**n - 1) < 0.5


def test_1d_a_coin_has_at_most_log_2():
    """A coin's entropy is log 2 minus KL(coin, fair coin): log 2 for t = 1/2 alone, 0 for t = 0."""
    t = torch.linspace(0, 1, 1001)
    both = torch.stack([t, 1 - t], 1)
    close(LOG2 - coin(t), kl(both, torch.tensor([0.5, 0.5])), "h(t) = log 2 - KL(t, 1/2)")
    assert (t[coin(t) > LOG2 - 1e-12] == 0.5).all() and coin(t[:1]).item() == 0, "log 2 for 1/2 alone, 0 for 0"


@pytest.mark.parametrize("n", [2, 3, 5, 30, 1000])
def test_1d_minimum_for_any_n(n):
    """With one factor at 0 no coins have a smaller KL than fair ones, log(2 - 2^(1-N)) < log 2; two zeros cost log 2."""

    def divergence(ts):
        """The KL by 1(d)'s formula, which needs no list of all w."""
        return log_allowed(n) - coin(ts).sum(-1)

    answer = torch.tensor([0.0] + [0.5] * (n - 1))
    least = divergence(answer)
    close(least, math.log(2 - 2.0 ** (1 - n)), "log((2^N - 1) / 2^(N-1))")
    assert least < LOG2 or n > 50, "below log 2 ..."
    assert 2 - sympy.Integer(2) ** (1 - n) < 2, "... for any N, exactly"
    ts = torch.rand(300, n)
    zeros = torch.rand(300, n).argsort(1) < torch.randint(1, n + 1, (300, 1))  # at least one, anywhere
    ts[zeros] = 0
    short = divergence(ts) - least
    fair = torch.where(zeros, 0.0, LOG2 - coin(ts)).sum(1) + (zeros.sum(1) - 1) * LOG2
    close(short, fair, "each unfair coin costs log 2 - h(t), each further zero log 2", atol=1e-7)
    assert (short >= -1e-9).all(), "no q is nearer"
    moved = answer[torch.randperm(n)]
    close(divergence(moved), least, "which factor is 0 does not matter: N minimisers")
    two = torch.tensor([0.0, 0.0] + [0.5] * (n - 2))
    close(divergence(two), least + LOG2, "a second factor at 0 halves the vectors that are left")
    close(log_allowed(n) - least, (n - 1) * LOG2, "closer than identical factors, by log 2 for each coin")


@pytest.mark.parametrize("n", [2, 3, 4])
def test_1d_search(n):
    """Of all t in steps of 1/10 exactly the N answers have the least KL; the text's q_1(w_1) = 1 - w_1 is one of them."""
    w, p = not_all_ones(n)
    ts = torch.cartesian_prod(*[torch.linspace(0, 1, 11)] * n)
    divergence = kl(mean_field(w, ts), p)
    best = ts[divergence < divergence.min() + 1e-9]
    assert len(best) == n, "N minimisers"
    close(best.sort(1).values, torch.tensor([0.0] + [0.5] * (n - 1)).expand(n, n), "one t_i is 0, the others 1/2")
    first = best[best[:, 0] == 0][0]
    close(first[0] ** w[:, 0] * (1 - first[0]) ** (1 - w[:, 0]), 1 - w[:, 0], "q_1(w_1) = 1 - w_1")
