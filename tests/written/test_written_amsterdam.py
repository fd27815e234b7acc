"""Proofs of the answers in written/amsterdam.md, which names each of these tests."""

import math

import sympy
import torch
from torch.nn import functional as F

import symbolic
from hw5_gan import discriminator_loss, generator_loss
from hw5_vae import (
    elbo,
    kl_estimate,
    logpdf_bernoulli,
    logpdf_diagonal_gaussian,
    sample_Bernoulli,
    sample_diagonal_gaussian,
)
from proofs import (
    FAKE,
    GAUSSIANS,
    LINE,
    LOG2,
    LOG4,
    P_DATA,
    P_G,
    REAL,
    STEP,
    X,
    Z,
    best_value,
    binary,
    close,
    decode,
    discrete_model,
    distributions,
    eq_2,
    far,
    full,
    gaussian,
    kl,
    kl_divergence,
    line_model,
    minimise,
    moments,
    near,
    parameters,
    random_model,
    simplex,
    value,
)

# ------------------------------------------------------------------------------------- 1: variational autoencoders


def normal(count, latents):
    """z ~ N(0, I), [count,latents]."""
    return sample_diagonal_gaussian(torch.zeros(count, latents), torch.ones(count, latents))


def test_1_2_ancestral_sampling():
    """Images drawn as z, f(z), pixels follow p(x), the integral of p(x|z) p(z)."""
    images, prior, draws = binary(2), gaussian(0, 1), 100_000
    p_x = torch.stack([prior @ logpdf_bernoulli(x.expand(241, 2), decode(LINE)).exp() for x in images])
    close(p_x.sum(), 1.0, "p(x) of all four images")
    x = sample_Bernoulli(decode(normal(draws, 1)))
    drawn = torch.stack([(x == image).all(1) for image in images], 1).double()  # [draws,4], one 1 in each row
    near(drawn, p_x, "shares of the four images: is z a sample of the prior, are the pixels sampled?")


def test_1_2_mistakes():
    """Pixels drawn from the mean of f(z) have the right probability each, and are independent; those of p(x) need not be."""
    images, prior = binary(2), gaussian(0, 1)
    p_x = torch.stack([prior @ logpdf_bernoulli(x.expand(241, 2), decode(LINE)).exp() for x in images])
    pixels = prior @ decode(LINE)
    independent = logpdf_bernoulli(images, pixels.expand(4, 2)).exp()
    close(independent @ images, p_x @ images, "the probability of each pixel is right")
    assert ((independent - p_x).abs() > 0.02).all(), "those of the images are not"
    drawn = torch.stack([(sample_Bernoulli(pixels.expand(100_000, 2)) == x).all(1) for x in images], 1).double()
    near(drawn, independent, "draws of such pixels")
    far(drawn, p_x, "do not follow p(x)")


def exponential(u):
    return -torch.log1p(-u)


QUANTILES = {  # F^-1(u), F(x): smooth, with two humps, with jumps, and with a jump and a slope
    "uniform": (lambda u: u, lambda x: x.clamp(0, 1)),
    "exponential": (exponential, lambda x: 1 - (-x.clamp(min=0)).exp()),
    "arcsine": (lambda u: -torch.cos(math.pi * u), lambda x: torch.acos(-x.clamp(-1, 1)) / math.pi),
    "coin": (lambda u: (u > 0.7).double(), lambda x: 0.7 * (x >= 0) + 0.3 * (x >= 1)),
    "often 0": (lambda u: exponential(2 * u - 1).nan_to_num() * (u > 0.5), lambda x: (x >= 0) * (1 - (-x).exp() / 2)),
}


def test_1_3_one_dimension():
    """F^-1(Phi(z)) <= x exactly where Phi(z) <= F(x), so it has the distribution function F, also with jumps."""
    z, x = 2 * torch.randn(300), torch.cat([torch.randn(300), 3 * torch.rand(300)])
    phi = torch.special.ndtr(z)
    for name, (quantile, f) in QUANTILES.items():
        below = quantile(phi)[:, None] <= x
        assert torch.equal(below, phi[:, None] <= f(x)), f"{name}: the event is that Phi(z) is at most F(x)"
    u = torch.rand(300)
    edge = torch.special.ndtri(u)  # Phi(z) <= u where z <= edge, and z is normal
    close((1 + torch.special.erf(edge / math.sqrt(2))) / 2, u, "Phi(z) is at most u with probability u: it is uniform")


def test_1_3_any_number_of_dimensions():
    """x_i = F^-1(Phi(z_i) | x_1, ..., x_(i-1)) has the joint distribution wanted: its density in R^3, its table in {0,1,2}^3."""

    def chain(z):
        """x_1 exponential, x_2 logistic around x_1^2, x_3 Cauchy around sin x_2 with a width that depends on x_1."""
        u = torch.special.ndtr(z)
        x_1 = exponential(u[0])
        x_2 = x_1**2 + (1 + x_1) * (u[1] / (1 - u[1])).log()
        x_3 = x_2.sin() + x_1.exp() * torch.tan(math.pi * (u[2] - 0.5))
        return torch.stack([x_1, x_2, x_3])

    def log_density(x):
        r_2, r_3 = (x[1] - x[0] ** 2) / (1 + x[0]), (x[2] - x[1].sin()) / x[0].exp()
        of_x_2 = -r_2 - 2 * F.softplus(-r_2) - (1 + x[0]).log()
        return -x[0] + of_x_2 - math.log(math.pi) - x[0] - (1 + r_3**2).log()

    for z in torch.randn(100, 3):
        jacobian = torch.autograd.functional.jacobian(chain, z)
        close(jacobian.triu(1), torch.zeros(3, 3), "x_i depends on z_1, ..., z_i only")
        normal_density = -(z**2).sum() / 2 - 1.5 * math.log(2 * math.pi)
        close(log_density(chain(z)) + jacobian.det().log(), normal_density, "change of variables", atol=1e-6)

    table = distributions(3, 27)[1].view(3, 3, 3)  # any joint distribution of three numbers in {0, 1, 2}
    first, second = table.sum((1, 2)), table.sum(2)
    given = second / first[:, None], table / second[..., None]  # of the second; of the third
    u = torch.special.ndtr(normal(100_000, 3))

    def quantile(p, u):
        return (u[:, None] > p.cumsum(-1)).sum(1).clamp(max=2)

    a = quantile(first, u[:, 0])
    b = quantile(given[0][a], u[:, 1])
    c = quantile(given[1][a, b], u[:, 2])
    drawn = F.one_hot(9 * a + 3 * b + c, 27).double()
    near(drawn, table.flatten(), "shares of the 27 outcomes")


def test_1_3_a_network_can_learn_the_map():
    """Hidden layers of more tanh units come closer to a continuous map, here the exponential's for |z| <= 3."""
    z = torch.linspace(-3, 3, 601)[:, None]
    wanted = exponential(torch.special.ndtr(z))
    errors = []
    for units in (2, 8, 32):
        hidden = torch.cat([torch.tanh(2 * (z - torch.linspace(-3, 3, units))), torch.ones_like(z)], 1)
        errors.append(
            (hidden @ torch.linalg.lstsq(hidden, wanted, driver="gelsd").solution - wanted).abs().max().item()
        )
    assert errors[0] > 10 * errors[1] > 100 * errors[2], f"largest errors {errors}: wider networks are closer"


def test_1_3_mistakes():
    """A linear map of a Gaussian, in any dimension, is Gaussian: kurtosis 3; the exponential has 9, the uniform 1.8."""
    a, b, t = torch.randn(3, 3), torch.randn(3), torch.randn(20, 3)
    prior = gaussian(0, 1)
    waves = torch.exp(1j * (t @ a)[..., None] * Z)  # E exp(i t (A z + b)) is a product over the coordinates of z
    characteristic = (waves @ prior.to(waves.dtype)).prod(1) * torch.exp(1j * (t @ b))
    covariance = a @ a.T
    expected = torch.exp(1j * (t @ b) - ((t @ covariance) * t).sum(1) / 2)
    close(
        torch.view_as_real(characteristic), torch.view_as_real(expected), "the characteristic function of N(b, A A^T)"
    )

    def kurtosis(x):
        centred = x - prior @ x
        return prior @ centred**4 / (prior @ centred**2) ** 2

    close(kurtosis(-2 * Z + 1), 3.0, "a Gaussian")
    close(kurtosis(torch.special.ndtr(Z)), 1.8, "the uniform")
    close(kurtosis(-torch.special.log_ndtr(-Z)), 9.0, "the exponential")


def test_1_4a_monte_carlo_estimate_of_log_p_x():
    """The mean of p(x|z_m) has the mean p(x); its log is on average too low, by less and less for more draws."""
    prior, log_p_x_z, _, log_p_x = line_model()
    draws = 10_000
    sampled = logpdf_bernoulli(X.expand(draws, 2), decode(normal(draws, 1)))
    near(sampled.exp(), log_p_x.exp(), "p(x) is the mean of p(x|z) over the prior")
    spread = (sampled.exp() / log_p_x.exp()).std().item()
    close(sampled.exp().mean().log(), log_p_x, "within four standard errors", atol=4 * spread / math.sqrt(draws))

    for _ in range(5):
        prior, log_p_x_z, _, log_p_x = random_model(3)
        expected = []
        for m in (1, 2, 4, 8, 16, 32):
            shares = simplex(3, m)  # how often each z was drawn
            log_multinomial = math.lgamma(m + 1) - torch.lgamma(m * shares + 1).sum(1) + (m * shares) @ prior.log()
            expected.append(log_multinomial.exp() @ (shares @ log_p_x_z.exp()).log())
        close(log_multinomial.exp().sum(), 1.0, "all ways to draw m times")
        expected = torch.stack(expected)
        assert (expected.diff() > 0).all() and (expected < log_p_x).all(), "too low for every M, and rising with M"
        assert log_p_x - expected[-1] < (log_p_x - expected[0]) / 8, "towards log p(x)"


def test_1_4a_mistakes():
    """The mean of log p(x|z_m) estimates E[log p(x|z)], which is KL(p(z), p(z|x)) below log p(x) for any number of draws."""
    prior, log_p_x_z, posterior, log_p_x = line_model()
    sampled = logpdf_bernoulli(X.expand(10_000, 2), decode(normal(10_000, 1)))
    near(sampled, prior @ log_p_x_z, "the mean of the logs estimates E[log p(x|z)]")
    close(log_p_x - prior @ log_p_x_z, kl(prior, posterior), "which is too low by a KL")
    far(sampled, log_p_x, "and is not log p(x)")


def bump(z):
    """One factor of f(z), the probability of the only pixel: near 1 for z near 1, near 0 elsewhere."""
    return (-2 * (z - 1) ** 2).exp()


def test_1_4b_variance_is_that_of_posterior_over_prior():
    """p(x|z)/p(x) is p(z|x)/p(z): mean 1, variance sum p(z|x)^2/p(z) - 1; M draws divide it by M."""
    for _ in range(20):
        prior, log_p_x_z, posterior, log_p_x = random_model()
        weight = (log_p_x_z - log_p_x).exp()
        close(weight, posterior / prior, "Bayes")
        close(prior @ weight, 1.0, "mean")
        close(prior @ (weight - 1) ** 2, (posterior**2 / prior).sum() - 1, "variance")
    weights = weight[torch.multinomial(prior, 20_000 * 8, replacement=True)].view(-1, 8).mean(1)
    near((weights - 1) ** 2, prior @ (weight - 1) ** 2 / 8, "variance of the mean of eight draws")


def test_1_4b_grows_with_the_latent_dimension():
    """One pixel, D latents that it depends on: the variance is r^D - 1 with r > 1, so draws grow exponentially with D."""
    prior, draws = gaussian(0, 1), 20_000
    r = prior @ bump(Z) ** 2 / (prior @ bump(Z)) ** 2
    for d in (1, 2, 4):
        weight = (bump(normal(draws, d)) / (prior @ bump(Z))).prod(1)  # p(x=1|z) / p(x=1)
        near(weight, 1, f"mean weight for {d} latents")
        near((weight - 1) ** 2, r**d - 1, f"variance of the weight for {d} latents")
    assert r > 1, "a mean square is larger than the square of the mean"

    def draws_needed(d):
        """For a relative error of 0.1 in p(x): M with variance / M = 0.1^2."""
        return (r**d - 1) / 0.01

    close(r, 2.38, "mean square of one factor over the square of its mean", atol=0.005)
    close(draws_needed(1), 138.0, "draws for one latent", atol=0.5)
    close(draws_needed(20), 3.4e9, "draws for twenty", atol=0.05e9)
    for d in range(1, 11):
        close(
            draws_needed(2 * d) / draws_needed(d), r**d + 1, "twice the dimensions, r^D + 1 times the draws", atol=1e-6
        )
        assert r**d + 1 > 2, "which is more than twice"


def test_1_4b_latents_that_are_not_used_cost_nothing():
    """The same pixel with 1, 2 or 4 latents of which it depends on one: the variance is r - 1 each time."""
    prior, draws = gaussian(0, 1), 20_000
    r = prior @ bump(Z) ** 2 / (prior @ bump(Z)) ** 2
    for d in (1, 2, 4):
        weight = bump(normal(draws, d)[:, 0]) / (prior @ bump(Z))
        near((weight - 1) ** 2, r - 1, f"variance of the weight for {d} latents")


def kl_of_gaussians():
    """KL(N(mu_q, sigma_q^2), N(mu_p, sigma_p^2)) as the integral, in symbols."""
    s = symbolic
    log_ratio = s.log_density(s.mu_q, s.sigma_q) - s.log_density(s.mu_p, s.sigma_p)
    return s.expectation(log_ratio, s.mu_q, s.sigma_q)


def test_1_5a_a_small_and_a_large_kl():
    """KL to N(0, 1) is 0 for (0, 1), and grows without end for a far mean, a wide and a narrow q."""
    s = symbolic
    divergence = kl_of_gaussians().subs({s.mu_p: 0, s.sigma_p: 1})
    assert sympy.simplify(divergence.subs({s.mu_q: 0, s.sigma_q: 1})) == 0, "small: q = p"
    narrow_or_wide = sympy.simplify(divergence.subs(s.mu_q, 0))
    for limit in (
        sympy.limit(divergence.subs(s.sigma_q, 1), s.mu_q, sympy.oo),
        sympy.limit(divergence.subs(s.sigma_q, 1), s.mu_q, -sympy.oo),
        sympy.limit(narrow_or_wide, s.sigma_q, sympy.oo),
        sympy.limit(narrow_or_wide, s.sigma_q, 0, "+"),
    ):
        assert limit == sympy.oo, "large: far away, much wider, much narrower"
    for m, sigma, expected in ((0, 1, 0), (0, 1000, 499_992.6), (1000, 1, 500_000), (0, 1e-9, 20.2)):
        close(kl_divergence(*parameters(m, sigma)), expected, "kl_divergence", atol=0.05)


def test_1_5a_mistakes():
    """log(s_p^2/s_q^2) as the first term counts it twice: right for equal widths only, and negative for q = N(0, 1.5^2)."""
    s = symbolic
    squares = (s.sigma_q**2 + (s.mu_q - s.mu_p) ** 2) / (2 * s.sigma_p**2)
    rejected = sympy.log(s.sigma_p**2 / s.sigma_q**2) + squares - sympy.Rational(1, 2)
    assert s.same(rejected - kl_of_gaussians(), sympy.log(s.sigma_p / s.sigma_q)), "too large by log(s_p/s_q)"
    wide = rejected.subs({s.mu_q: 0, s.sigma_q: 1.5, s.mu_p: 0, s.sigma_p: 1})
    assert wide < -0.1, "no KL is negative"


def test_1_5b_kl_to_the_standard_normal():
    """KL(N(m, s^2), N(0, 1)) = (s^2 + m^2 - 1 - log s^2) / 2 for every m and s; over independent latents it is a sum."""
    s = symbolic
    half = sympy.Rational(1, 2)
    general = sympy.log(s.sigma_p / s.sigma_q) + (s.sigma_q**2 + (s.mu_q - s.mu_p) ** 2) / (2 * s.sigma_p**2) - half
    assert s.same(kl_of_gaussians(), general), "the KL of two Gaussians"
    answer = (s.sigma_q**2 + s.mu_q**2 - 1 - sympy.log(s.sigma_q**2)) / 2
    assert s.same(general.subs({s.mu_p: 0, s.sigma_p: 1}), answer), "to the standard normal"
    assert s.same(s.expectation(s.z**2, s.mu_q, s.sigma_q), s.sigma_q**2 + s.mu_q**2), "E[z^2]"
    for m, sigma in GAUSSIANS:
        expected = float(answer.subs({s.mu_q: m, s.sigma_q: sigma}))
        close(gaussian(m, sigma) @ kl_estimate(LINE, *parameters(m, sigma)), expected, "mean of kl_estimate under q")
        close(kl_divergence(*parameters(m, sigma)), expected, "kl_divergence: a sign, or the factor 1/2?")
    mu, sigma = torch.randn(5, 3), 0.5 + torch.rand(5, 3)
    alone = torch.stack([kl_divergence(mu[:, j, None], sigma[:, j, None] ** 2) for j in range(3)])
    close(kl_divergence(mu, sigma**2), alone.sum(0), "a sum over the dimensions of z, one value for each image")
    for q, p, r, t in zip(*(distributions(50, 3) for _ in range(4))):
        close(kl(torch.kron(q, r), torch.kron(p, t)), kl(q, p) + kl(r, t), "of independent parts the KLs add up")


def test_1_5b_mistakes():
    """With -m^2 for +m^2 the KL is too low by m^2, and negative for N(2, 1)."""
    for m, sigma in GAUSSIANS:
        rejected = math.log(1 / sigma) + (sigma**2 - m**2) / 2 - 1 / 2
        close(kl(gaussian(m, sigma), gaussian(0, 1)) - rejected, m**2, "too low by m^2")
        assert (m, sigma) != (2, 1) or rejected < 0, "no KL is negative"


def test_1_6_log_likelihood_minus_kl_is_the_bound():
    """log p(x) - KL(q, p(z|x)) = E_q[log p(x|z)] - KL(q, p(z)) for every q and model, so the bound is at most log p(x)."""
    for _ in range(20):
        prior, log_p_x_z, posterior, log_p_x = random_model(5)
        q = distributions(300, 5)
        bound = q @ log_p_x_z - kl(q, prior)
        close(log_p_x - kl(q, posterior), bound, "is the sign of a KL wrong?")
        assert (log_p_x - bound >= (q - posterior).abs().sum(1) ** 2 / 2 - 1e-12).all(), "equal for the posterior alone"
        close(posterior @ log_p_x_z - kl(posterior, prior), log_p_x, "equal for the posterior")
    _, _, posterior, log_p_x = line_model()
    for mu, sigma in GAUSSIANS:
        q = gaussian(mu, sigma)
        close(log_p_x - q @ eq_2(mu, sigma), kl(q, posterior), "the gap of elbo's mean")


def test_1_6_mistakes():
    """E_q[p(x|z)] - KL, without the log, can exceed log p(x), and need not; KL(p(z|x), q) is in general another gap."""
    for _ in range(20):
        prior, log_p_x_z, _, log_p_x = random_model(5)
        close(prior @ log_p_x_z.exp() - kl(prior, prior), log_p_x.exp(), "for q = p(z) it is p(x)")
        assert log_p_x.exp() > log_p_x, "which is above log p(x)"
    prior, log_p_x_z, posterior, log_p_x = line_model()
    for each in ((2, 0.5), (2, 1.5)):
        assert gaussian(*each) @ log_p_x_z.exp() - kl(gaussian(*each), prior) < log_p_x, "here it is below"
    q = gaussian(2, 0.5)
    assert abs(kl(q, posterior) - kl(posterior, q)) > 1, "the other order is another number"
    assert kl(posterior, posterior) == 0, "but for the posterior itself"


def test_1_7_the_bound_needs_no_posterior():
    """K switches, x = Az + noise: p(x) is a sum of 2^K terms; the bound is a closed form, or a mean over draws from q."""
    noise = torch.distributions.Normal(0, 1)

    def log_p_x_z(a, z):  # of x = (1, ..., 1)
        return noise.log_prob(1 - z @ a.T).sum(-1)

    def bound(a, m):
        variance = (m * (1 - m) * (a**2).sum(0)).sum()  # of A z under q, summed
        reconstruction = -(((1 - a @ m) ** 2).sum() + variance + len(m) * math.log(2 * math.pi)) / 2
        return reconstruction - (m * (2 * m).log() + (1 - m) * (2 * (1 - m)).log()).sum()

    for k in range(2, 11):  # here the posterior can still be had, as a check
        a, m, z = torch.randn(k, k), 0.1 + 0.8 * torch.rand(k), binary(k)
        q, prior = (m**z * (1 - m) ** (1 - z)).prod(1), torch.full((2**k,), 0.5**k)
        joint = prior * log_p_x_z(a, z).exp()
        close(bound(a, m), q @ log_p_x_z(a, z) - kl(q, prior), "a closed form instead of 2^K terms: is one missing?")
        close(bound(a, m), joint.sum().log() - kl(q, joint / joint.sum()), "log p(x) - KL(q, p(z|x))")

    k, draws = 1000, 1000  # 2^1000 terms are beyond any computer
    a, m = torch.randn(k, k), 0.1 + 0.8 * torch.rand(k)
    z = sample_Bernoulli(m.expand(draws, k)).double()
    values = log_p_x_z(a, z) - k * LOG2 - logpdf_bernoulli(z, m.expand(draws, k))
    near(values, bound(a, m), "the bound of 1000 switches, from 1000 draws")


def test_1_8_what_a_higher_bound_means():
    """A rise of the bound is a rise of log p(x) plus a fall of KL(q, p(z|x)): at least one of them, each alone possible."""
    prior = discrete_model()[0]
    p, q = torch.rand(2, 1000, 3, 2), torch.randn(2, 1000, 3).softmax(-1)  # a decoder and a q, before and after
    log_p = logpdf_bernoulli(X.expand(6000, 2), p.view(6000, 2)).view(2, 1000, 3)
    log_evidence = (log_p + prior.log()).logsumexp(-1)
    bound, gap = (q * log_p).sum(-1) - kl(q, prior), kl(q, (log_p + prior.log()).softmax(-1))
    rise, better, closer = bound[1] - bound[0], log_evidence[1] - log_evidence[0], gap[0] - gap[1]
    close(rise, better + closer, "bound = log p(x) - KL(q, p(z|x)): is it + KL?")
    raised = rise > 0
    assert ((better > 0) | (closer > 0))[raised].all(), "one of the two at least"
    for case in ((better > 0) & (closer < 0), (better < 0) & (closer > 0), (better > 0) & (closer > 0)):
        assert case[raised].any(), "each of the two alone can do it, and both together"


def test_1_8_with_one_network_fixed():
    """With the model fixed the bound rises by as much as the gap falls; with q = p(z|x) and a better model, log p(x) rises."""
    for _ in range(20):
        prior, log_p_x_z, posterior, log_p_x = random_model()
        q = distributions(2, 4)
        bound = q @ log_p_x_z - kl(q, prior)
        close(bound[1] - bound[0], kl(q[0], posterior) - kl(q[1], posterior), "only the gap can change")
        better = log_p_x_z / 2  # every p(x|z) is larger
        improved = posterior @ better - kl(posterior, prior)
        assert (prior * better.exp()).sum().log() >= improved > log_p_x, (
            "with no gap to close, log p(x) itself has risen"
        )


def test_1_8_mistakes():
    """Making q like p(z) lowers the bound all the way from the posterior; from another q it can raise it."""
    for _ in range(20):
        prior, log_p_x_z, posterior, log_p_x = random_model()
        mixed = torch.lerp(posterior, prior, torch.linspace(0, 1, 11)[:, None])  # from the posterior to the prior
        assert (kl(mixed, prior).diff() < 0).all() and kl(mixed, prior)[-1] < 1e-12, "KL(q, p(z)) falls to 0 on the way"
        bound = mixed @ log_p_x_z - kl(mixed, prior)
        close(bound[0], log_p_x, "the bound begins at log p(x)")
        assert (bound.diff() < 0).all(), "and falls too"
    q = torch.stack([torch.eye(4)[log_p_x_z.argmin()], prior])
    bound = q @ log_p_x_z - kl(q, prior)
    assert bound[1] > bound[0], "a q on the worst z gains by becoming the prior"


def test_1_9_reconstruction_and_regularisation_loss():
    """Both losses are >= 0 and sum to minus the bound; the first is least on the best z, the second for p(z), the sum for p(z|x)."""
    for _ in range(20):
        prior, log_p_x_z, posterior, log_p_x = random_model()
        q = distributions(300, 4)
        reconstruction, regularisation = -(q @ log_p_x_z), kl(q, prior)
        assert (reconstruction >= 0).all() and (regularisation >= 0).all(), "p(x|z) <= 1; no KL is negative"
        best = torch.eye(4)[log_p_x_z.argmax()]  # all mass on the z that explains x best
        assert (reconstruction >= -(best @ log_p_x_z) - 1e-12).all(), "no q reconstructs better"
        assert kl(prior, prior) == 0, "L_reg is least for the prior"
        close(
            reconstruction + regularisation + log_p_x, kl(q, posterior), "the sum is least for p(z|x), with -log p(x)"
        )
        close(-(posterior @ log_p_x_z) + kl(posterior, prior), -log_p_x, "there it is -log p(x)")
    prior, log_p_x_z, posterior, _ = line_model()
    assert (log_p_x_z.diff() > 0).all(), "an infimum only: for every z there is one that explains x better"
    assert kl(gaussian(*moments(posterior)), posterior) > 1e-4, "the Gaussian of its moments is not the posterior"
    for pair in GAUSSIANS:
        losses = kl_divergence(*parameters(*pair)) - gaussian(*pair) @ log_p_x_z
        close(losses, -(gaussian(*pair) @ eq_2(*pair)), "L_recon + L_reg = -elbo: is a sign wrong?")


def test_1_9_mistakes():
    """E_q[log p(x|z)] as a loss, without the minus, falls as mass moves to a z that explains x worse, to the worst of all."""
    for _ in range(20):
        _, log_p_x_z, _, _ = random_model()
        q = distributions(300, 4)
        order = log_p_x_z.argsort()
        moved = q.clone()
        moved[:, order[0]] += q[:, order[1]]
        moved[:, order[1]] = 0
        assert (moved @ log_p_x_z <= q @ log_p_x_z + 1e-12).all(), "mass on a worse z"
        worst = torch.eye(4)[log_p_x_z.argmin()]
        assert (q @ log_p_x_z >= worst @ log_p_x_z - 1e-12).all(), "no q has less"


def regularisation_loss(mu, sigma_square):
    """KL_n of 1.10, [N]."""
    return -1 / 2 * (1 + sigma_square.log() - mu**2 - sigma_square).sum(1)


MU, SIGMA_SQUARE = (
    torch.tensor([[-1.0], [0.0], [0.5], [2.0]]).double(),
    torch.tensor([[0.25], [1], [0.5], [2]]).double(),
)


def test_1_10_loss_of_a_data_set():
    """1/N sum_n (-1/L sum_l log p(x_n|z_nl) + KL_n) is on average minus elbo: means over n and l, sums over m and j."""
    images, draws = binary(2), 7
    regularisation = regularisation_loss(MU, SIGMA_SQUARE)
    close(kl_divergence(MU, SIGMA_SQUARE), regularisation, "KL_n: is the sign of a term wrong?")

    z = torch.randn(draws, 4, 1)  # the next lines hold for any z
    reconstruction = -torch.stack([logpdf_bernoulli(images, decode(z_l)) for z_l in z])  # [L,N]
    estimate = torch.stack([kl_estimate(z_l, MU, SIGMA_SQUARE) for z_l in z])
    bounds = torch.stack([elbo(z_l, MU, SIGMA_SQUARE, images, decode(z_l)) for z_l in z])  # each a mean over the images
    pixels = decode(z.view(-1, 1)).view(draws, 4, 2)
    by_sums = -(images * pixels.log() + (1 - images) * (1 - pixels).log()).sum() / (4 * draws)
    close(reconstruction.mean(), by_sums, "sum over the pixels, mean over images and draws")
    close(-bounds.mean(), (reconstruction + estimate).mean(), "-elbo, means over draws and images: is it a sum?")

    losses, bound = [], []  # of each image, in the mean over all draws
    for x, m, v, reg in zip(images, MU, SIGMA_SQUARE, regularisation):
        q = STEP * logpdf_diagonal_gaussian(LINE, m, v).exp()
        losses.append(q @ -logpdf_bernoulli(x.expand(241, 2), decode(LINE)) + reg)
        bound.append(q @ torch.stack([elbo(z, m[None], v[None], x[None], decode(z)) for z in LINE.split(1)]))
    close(
        torch.stack(losses), -torch.stack(bound), "of each image, in the mean over draws, the loss is minus the bound"
    )


def test_1_10_mistakes():
    """+1/2 sum (...) is -KL, which has no least value; a factor p(x|z) before the KL makes it too small where KL > 0."""
    rejected = 1 / 2 * (1 + SIGMA_SQUARE.log() - MU**2 - SIGMA_SQUARE).sum(1)
    close(rejected, -kl_divergence(MU, SIGMA_SQUARE), "the other sign is -KL")
    away = -kl_divergence(torch.tensor([[0.0], [1.0], [10.0], [100.0]]), torch.ones(4, 1))
    assert (away.diff() < 0).all() and away[-1] < -4999, "-KL falls without end as q moves away from the prior"
    prior, log_p_x_z, _, _ = line_model()
    for pair in GAUSSIANS:
        divergence = kl_divergence(*parameters(*pair))
        assert divergence == 0 or gaussian(*pair) @ log_p_x_z.exp() * divergence < divergence, (
            "p(x|z) KL is less than KL"
        )


def encoder_bound(mu, log_sigma):
    """The bound for the image X as a function of the encoder's outputs: exact, with gradients."""
    _, log_p_x_z, _, _ = line_model()
    return gaussian(mu, log_sigma.exp()) @ log_p_x_z - kl_divergence(*parameters(mu, log_sigma.exp()))


def test_1_11a_gradient_trains_the_encoder():
    """A step against the loss's gradient by phi lowers KL(q, p(z|x)) and leaves log p(x); training by it closes the gap."""
    _, _, posterior, log_p_x = line_model()
    phi = torch.tensor([2.0]).requires_grad_(), torch.tensor([-0.7]).requires_grad_()  # mean and log deviation of q
    before = encoder_bound(*phi)
    gradient = torch.autograd.grad(before, phi)
    assert all(abs(part.item()) > 0.1 for part in gradient), "the bound depends on both outputs"
    moved = [each + 0.1 * part for each, part in zip(phi, gradient)]
    after = encoder_bound(*moved)
    assert after > before + 0.05, "a step up the gradient raises the bound: is its sign wrong?"
    gaps = [kl(gaussian(mu, log_sigma.exp()), posterior) for mu, log_sigma in (phi, moved)]
    close(after - before, gaps[0] - gaps[1], "by as much as KL(q, p(z|x)) falls")

    assert log_p_x - before > 0.3, "untrained, the gap is wide"
    trained = -minimise(lambda: -encoder_bound(*phi), *phi)
    assert 0 < log_p_x - trained < 0.01, "trained, the bound nearly reaches log p(x)"
    close(torch.cat([phi[0], phi[1].exp()]), moments(posterior), "q has about the posterior's moments", atol=0.05)


def test_1_11b_no_gradient_through_a_plain_sample():
    """log p(x|z) of a drawn z has no gradient by mu and sigma, though its mean has; the KL's gradient only leads to the prior."""
    mu, sigma_square = torch.zeros(100, 1, requires_grad=True), torch.ones(100, 1, requires_grad=True)
    plain = torch.distributions.Normal(mu, sigma_square.sqrt()).sample()
    x = X.expand(100, 2)
    assert not logpdf_bernoulli(x, decode(plain)).requires_grad, "nothing leads back to mu and sigma"

    phi = torch.tensor([0.0]).requires_grad_(), torch.tensor([0.0]).requires_grad_()  # q = p(z)
    true = torch.autograd.grad(encoder_bound(*phi), phi)
    left = torch.autograd.grad(-kl_divergence(phi[0], (2 * phi[1]).exp()), phi)
    assert true[0] > 0.5 and left[0] == left[1] == 0, "at q = p(z) the KL alone says stay, but the bound says move"
    phi = torch.tensor([2.0]).requires_grad_(), torch.tensor([-0.7]).requires_grad_()
    minimise(lambda: kl_divergence(phi[0], (2 * phi[1]).exp()), *phi)
    close(torch.cat(phi), [0.0, 0.0], "trained by the KL alone, q becomes the prior, whatever x is", atol=1e-4)


def test_1_11b_score_function():
    """E_q[log p(x|z) d log q(z)] is the same gradient without a derivative by z; here its draws vary more."""
    _, log_p_x_z, _, _ = line_model()
    mean, variance = (each.requires_grad_() for each in parameters(0.5, 0.6))
    log_q = logpdf_diagonal_gaussian(LINE, mean, variance)
    q = STEP * log_q.exp()
    by_score = {}
    for name, parameter in (("mean", mean), ("variance", variance)):
        (true,) = torch.autograd.grad(q @ log_p_x_z, parameter, retain_graph=True)
        score = torch.stack([torch.autograd.grad(each, parameter, retain_graph=True)[0] for each in log_q])[:, 0]
        by_score[name] = log_p_x_z * score
        close(q.detach() @ by_score[name], true[0], f"by the {name}: the mean over draws is the gradient")
    q, z = q.detach(), LINE.clone().requires_grad_()
    (slope,) = torch.autograd.grad(logpdf_bernoulli(X.expand(241, 2), decode(z)).sum(), z)  # dz/dmean is 1
    by_trick = slope[:, 0]
    close(q @ by_trick, q @ by_score["mean"], "so is that of the reparameterised draws")
    spread = [q @ (each - q @ each) ** 2 for each in (by_score["mean"], by_trick)]
    assert spread[0] > 2 * spread[1], "variances of the two"


def test_1_11c_gradient_through_the_reparameterised_sample():
    """z = mu + sigma eps has q's mean and variance, and the mean of its gradients is the gradient of the mean."""
    _, log_p_x_z, _, _ = line_model()
    m, s, draws = 0.5, 0.6, 20_000
    mean, variance = (each.requires_grad_() for each in parameters(m, s))
    q = STEP * logpdf_diagonal_gaussian(LINE, mean, variance).exp()
    true = torch.cat(torch.autograd.grad(q @ log_p_x_z, (mean, variance)))  # of E_q[log p(x|z)], by the integral

    mu, sigma_square = (each.detach().expand(draws, 1).clone().requires_grad_() for each in (mean, variance))
    z = sample_diagonal_gaussian(mu, sigma_square)
    log_p = logpdf_bernoulli(X.expand(draws, 2), decode(z))
    by_draw = torch.cat(torch.autograd.grad(log_p.sum(), (mu, sigma_square)), 1)  # [draws,2]
    near(by_draw, true, "gradients by mean and variance: is z detached, is the deviation sigma^2?")
    near(z, m, "mean of z")
    near((z - m) ** 2, s**2, "variance of z: is the deviation sigma^2?")
    near((z - m) ** 4, 3 * s**4, "fourth moment of a Gaussian")


def test_1_11c_mistakes():
    """mu + sigma^2 eps has the variance sigma^4, and here gradients with another mean; with a jump in z so has mu + sigma eps."""
    _, log_p_x_z, _, _ = line_model()
    eps = gaussian(0, 1)
    for s in (0.6, 1.0):
        mean, variance = (each.requires_grad_() for each in parameters(0.5, s))
        q = STEP * logpdf_diagonal_gaussian(LINE, mean, variance).exp()
        true = torch.cat(torch.autograd.grad(q @ log_p_x_z, (mean, variance)))

        def mean_gradient(deviation):
            """Without sampling: eps is summed over the line."""
            log_p = logpdf_bernoulli(X.expand(241, 2), decode(mean + deviation * LINE))
            return torch.cat(torch.autograd.grad(eps @ log_p, (mean, variance), retain_graph=True))

        close(mean_gradient(variance.sqrt()), true, "the mean of the gradients is the gradient of the mean")
        close(eps @ (variance.detach() * Z) ** 2, s**4, "variance of sigma^2 eps")
        by_mean, by_variance = (mean_gradient(variance) - true).abs()
        assert by_variance > 0.03, "with sigma^2 eps the gradient by the variance is another"
        assert (by_mean > 0.03) == (s != 1), "by the mean too, unless sigma is 1"

    mu = torch.tensor(0.3, requires_grad=True)  # p(x|z) is 0.9 for z > 0, else 0.1, and z = mu + eps
    (true,) = torch.autograd.grad(torch.special.ndtr(mu) * math.log(0.9 / 0.1), mu)
    (by_draw,) = torch.autograd.grad(torch.where(mu + Z > 0, 0.9, 0.1).log().sum() + 0 * mu, mu)
    assert true > 0.8 and by_draw == 0, "a jump has no slope that a draw could see"


# ------------------------------------------------------------------------ 2: generative adversarial networks


def test_2_2_minimax_objective():
    """V = E log D(x) + E log(1 - D(G(z))): each term is at most 0, and 0 where D is right; V is low where G deceives D."""
    for _ in range(20):
        logits = 3 * torch.randn(3)
        loss = discriminator_loss(logits[REAL, None], logits[FAKE, None])
        close(-2 * loss, value(logits.sigmoid(), P_DATA, P_G), "V = -2 discriminator_loss: is a sign or a label wrong?")
        assert (logits.sigmoid().log() < 0).all() and ((1 - logits.sigmoid()).log() < 0).all(), "logs of probabilities"
    sure, blind = torch.full((4, 1), 20.0), torch.zeros(4, 1)
    close(-2 * discriminator_loss(sure, -sure), 0.0, "D is right about everything: both terms are 0", atol=1e-6)
    close(-2 * discriminator_loss(sure, blind), -LOG2, "the first term is 0, the second log 1/2", atol=1e-6)
    close(-2 * discriminator_loss(blind, -sure), -LOG2, "the first term is log 1/2, the second 0", atol=1e-6)
    assert -2 * discriminator_loss(sure, sure) < -19, "D takes samples for data: V is low, as G wants it"


def test_2_2_mistakes():
    """With log D(G(z)) as the second term V is largest, 0, for D = 1 everywhere, for every p_data and p_G."""
    for _ in range(20):
        p_data, p_g, d = *full(2, 3), torch.rand(3)
        rejected = (p_data * d.log() + p_g * d.log()).sum()
        assert rejected < 0, "D = 1 has the value 0; this D has less"


def test_2_3_steps():
    """For p_G = p_data the best D is 1/2 everywhere, and V there is log 1/2 + log 1/2 = -log 4."""
    for _ in range(20):
        p = full(1, 3)[0]
        close(p / (p + p), torch.full((3,), 0.5), "D*")
        close(value(torch.full((3,), 0.5), p, p), -LOG4, "V")
    close(-2 * discriminator_loss(torch.zeros(5, 1), torch.zeros(5, 1)), -LOG4, "discriminator_loss is -V/2")


def test_2_3_neither_player_gains():
    """At p_G = p_data, D = 1/2 no other D raises V, no other p_G lowers it; every other p_G has a larger max over D."""
    for _ in range(100):
        p_data, p_g = distributions(2, 3)
        d, half = torch.rand(3), torch.full((3,), 0.5)
        close(value(half, p_data, p_g), -LOG4, "against D = 1/2 every p_G has the same V: G gains nothing")
        rise = value(d, p_data, p_data) + LOG4
        coins = torch.stack([d, 1 - d], 1)
        close(
            rise, -2 * p_data @ kl(half[:, None].expand(3, 2), coins), "against p_G = p_data V falls by 2 E KL(1/2, D)"
        )
        assert rise < 0, "D gains nothing"
        both = p_data + p_g
        best = value(torch.where(both > 0, p_data / both, 0.5), p_data, p_g)
        assert best >= -LOG4 + (p_data - p_g).abs().sum() ** 2 / 4 - 1e-12, "-log 4 + 2 JSD, JSD > 0 for other p_G"
    p_g = simplex(3, 8)
    assert (best_value(p_g)[(p_g != P_DATA).any(1)] > -LOG4 + 0.001).all(), "with D found by trying values"


def test_2_3_mistakes():
    """-log 4 is the minimum over G of the maximum over D; V itself has no minimum."""
    d = (0.1 ** torch.arange(3.0, 12))[:, None].expand(9, 3)
    values = value(d, P_DATA, P_DATA)
    assert (values.diff() < -2).all() and values[-1] < -20, "D towards 0: V falls without end"


def test_2_4_saturation():
    """By D's logit log(1 - D) has the slope -D, near 0 where D is sure, -log D has -(1 - D): the same sign, but not over a batch."""
    a = sympy.Symbol("a", real=True)
    d = 1 / (1 + sympy.exp(-a))
    assert sympy.simplify(sympy.diff(sympy.log(1 - d), a) + d) == 0, "d/da log(1 - D) = -D"
    assert sympy.simplify(sympy.diff(-sympy.log(d), a) + 1 - d) == 0, "d/da (-log D) = -(1 - D)"
    for logit in (-20.0, -10.0, 0.0, 3.0):  # how sure D is that a sample is generated: very, ..., mistaken
        a = torch.full((1, 1), logit, requires_grad=True)
        d = 1 / (1 + math.exp(-logit))
        v = -2 * discriminator_loss(torch.zeros(1, 1), a)  # log(1 - D(G(z))), and a constant
        (saturating,) = torch.autograd.grad(v, a)
        (ours,) = torch.autograd.grad(generator_loss(a), a)
        close(saturating, [[-d]], "d/da log(1 - D) = -D")
        close(ours, [[-(1 - d)]], "d/da (-log D) = -(1 - D): is generator_loss the saturating one?")
        close(generator_loss(a), -math.log(d), "generator_loss is -log D(G(z)), for G to minimise")
        assert saturating < 0 and ours < 0, "both want a higher D(G(z))"
        if logit <= -10:
            assert abs(saturating) < 1e-4 and abs(ours) > 0.99, "where D is sure, only -log D has a gradient"

    for rates, opposite in (((1.0, 1.0), False), ((1.0, -1.0), True)):  # of the logits, as a parameter of G moves
        theta = torch.zeros(1, requires_grad=True)
        fakes = (torch.tensor([-10.0, -3.0]) + torch.tensor(rates) * theta)[:, None]
        v = -2 * discriminator_loss(torch.zeros(2, 1), fakes)
        (saturating,), (ours,) = (
            torch.autograd.grad(v, theta, retain_graph=True),
            torch.autograd.grad(generator_loss(fakes), theta),
        )
        assert (saturating * ours < 0) == opposite, "the two weigh the samples of a batch differently"


def test_2_4_the_slope_by_d():
    """By D itself log(1 - D) has the slope -1/(1 - D), which is -1 where D is near 0: the sigmoid is what is flat."""
    d = torch.tensor([1e-6, 0.5], requires_grad=True)
    (slope,) = torch.autograd.grad(torch.log(1 - d).sum(), d)
    close(slope, -1 / (1 - d.detach()), "-1/(1 - D)")
    close(slope[0], -1.0, "near D = 0", atol=1e-5)
    a = torch.tensor(-10.0, requires_grad=True)
    (flat,) = torch.autograd.grad(a.sigmoid(), a)
    assert flat < 1e-4, "D's slope by its logit"
