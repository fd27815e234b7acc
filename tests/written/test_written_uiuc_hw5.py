"""Proofs of the answers in written/uiuc_hw5.md, which names each of these tests."""

import math
from itertools import permutations

import sympy
import torch
from torch.nn import functional as F

import symbolic
from hw5_gan import discriminator_loss
from hw5_vae import Encoder, elbo, kl_estimate, logpdf_bernoulli, logpdf_diagonal_gaussian, sample_diagonal_gaussian
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

# ------------------------------------------------------------------------------- 1: variational autoencoders


def bernoulli_table(y):
    """The joint distribution [2**G] of independent coins y [G], built coin by coin; images in the order of binary(G)."""
    table = torch.ones(1)
    for y_j in y:
        table = torch.kron(table, torch.stack([1 - y_j, y_j]))
    return table


def test_1a_likelihood_is_a_product():
    """The product of y_j^x_j (1-y_j)^(1-x_j) is the joint probability of independent pixels, and sums to 1."""
    for g in range(1, 9):
        images = binary(g)
        for y in (torch.rand(g), torch.rand(g).round()):  # any probabilities; and 0 or 1, where 0^0 = 1
            answer = (y**images * (1 - y) ** (1 - images)).prod(1)
            close(answer, bernoulli_table(y), "each pixel multiplies by y_j if it is 1, by 1 - y_j if it is 0")
            close(answer.sum(), 1.0, "all images together have the probability 1")
            log_p = (torch.xlogy(images, y) + torch.xlogy(1 - images, 1 - y)).sum(1)
            close(log_p, answer.log(), "the log is x log y + (1-x) log(1-y), summed over the pixels")
            close(logpdf_bernoulli(images, y.expand(len(images), g)), log_p, "logpdf_bernoulli is this logarithm")


def test_1a_mistakes():
    """One factor sums to 2^(G-1), one theta for all pixels needs equal y_j, the mean over pixels sums to more than 1."""
    for g in range(1, 7):
        images, y = binary(g), torch.rand(g)
        factors = y**images * (1 - y) ** (1 - images)  # [2**g,g]
        close(factors.sum(0), torch.full((g,), 2.0 ** (g - 1)), "one factor, summed over all images")

        for theta in torch.linspace(0, 1, 11):
            one = bernoulli_table(theta.expand(g))
            close(one @ images, theta.expand(g), "with one theta each pixel is 1 with probability theta")
            close(bernoulli_table(y) @ images, y, "the answer has y_j for pixel j, so theta must be every y_j")

        mean = factors.log().mean(1)
        close(
            -mean, F.binary_cross_entropy(y.expand(2**g, g), images, reduction="none").mean(1), "the mean over pixels"
        )
        close(g * mean, logpdf_bernoulli(images, y.expand(2**g, g)), "is the log-likelihood over G")
        assert g == 1 or mean.exp().sum() > 1 + 1e-6, "taken for a log-likelihood its probabilities exceed 1 together"
    close(bernoulli_table(torch.full((1,), 0.3)).sum(), 1.0, "for G = 1 one factor is the whole product")


def test_1b_encoder_has_two_outputs():
    """q(z|x) with covariance I moves in two directions only; with two learned variances, in four."""
    (mu,), (sigma_square,) = Encoder(2, 500, 784)(torch.rand(1, 784))
    z = torch.randn(50, 2)

    def identity_covariance(mu, unused):
        return logpdf_diagonal_gaussian(z, mu, torch.ones(2))

    def diagonal_covariance(mu, sigma_square):
        return logpdf_diagonal_gaussian(z, mu, sigma_square)

    def directions(log_q):
        """In how many independent directions do changes of the four outputs move log q(z|x), as a function of z?"""
        jacobian = torch.autograd.functional.jacobian(log_q, (mu, sigma_square))
        return torch.linalg.matrix_rank(torch.cat(jacobian, 1)).item()

    density = (-((z - mu) ** 2).sum(1) / 2).exp() / (2 * math.pi)
    close(identity_covariance(mu, None).exp(), density, "logpdf_diagonal_gaussian of N(mu, I)")
    assert directions(identity_covariance) == len(mu) == 2, "a mean for each of the two latent dimensions, and no more"
    assert directions(diagonal_covariance) == len(mu) + len(sigma_square) == 4, "the coding part: also two variances"
    assert (sigma_square > 0).all(), "the second output is a variance"


def test_1c_jensen():
    """The mean of the log is at most the log of the mean, for every q, and equal for the posterior alone."""
    u = symbolic.sigma
    assert sympy.diff(sympy.log(u), u, 2) == -1 / u**2, "log is concave"
    for _ in range(20):
        prior, log_p_x_z, posterior, log_p_x = random_model(5)
        joint = prior * log_p_x_z.exp()
        close(joint.sum().log(), log_p_x, "log p(x)")
        q = full(200, 5)
        close((q * (joint / q)).sum(1).log(), log_p_x.expand(200), "log of the mean of p(x,z)/q, which is log p(x)")
        close((q * (joint / q).log()).sum(1), -kl(q, joint), "mean of the log of p(x,z)/q")
        q = torch.cat([q, distributions(200, 5)])  # also q that exclude some z
        gap = log_p_x + kl(q, joint)
        close(gap, kl(q, posterior), "the gap is KL(q(z|x), p(z|x))")
        assert (gap >= (q - posterior).abs().sum(1) ** 2 / 2 - 1e-12).all(), (
            "never below 0, and 0 for the posterior alone"
        )
        close(-kl(posterior, joint), log_p_x, "with the posterior as q, the bound is log p(x)")


def test_1c_two_parts():
    """The bound is E_q[log p(x|z)] - KL(q(z|x), p(z)), for every q; elbo of one sample has this mean."""
    for _ in range(20):
        prior, log_p_x_z, _, _ = random_model(5)
        q = distributions(200, 5)
        close(-kl(q, prior * log_p_x_z.exp()), q @ log_p_x_z - kl(q, prior), "reconstruction - KL: is it + KL?")
    prior, log_p_x_z, _, log_p_x = line_model()
    for mu, sigma in GAUSSIANS:
        q = gaussian(mu, sigma)
        bound = q @ log_p_x_z - kl(q, prior)
        close(q @ eq_2(mu, sigma), bound, "elbo has this mean: is the sign of a term wrong?")
        assert bound < log_p_x, "and no Gaussian is the posterior of this model"


def test_1c_plus_kl_can_exceed_log_p_x():
    """E_q + KL exceeds log p(x) exactly where 2 KL(q, p(z)) > KL(q, p(z|x)): for N(2, 0.5^2), not for N(0, 1)."""
    for _ in range(20):
        prior, log_p_x_z, posterior, log_p_x = random_model(5)
        q = distributions(200, 5)
        excess = q @ log_p_x_z + kl(q, prior) - log_p_x
        close(excess, 2 * kl(q, prior) - kl(q, posterior), "what E_q + KL exceeds log p(x) by")
    prior, log_p_x_z, _, log_p_x = line_model()
    exceeds = {each: bool(gaussian(*each) @ log_p_x_z + kl(gaussian(*each), prior) > log_p_x) for each in GAUSSIANS}
    assert exceeds[2, 0.5] and not exceeds[0, 1], "it can exceed log p(x), and need not"


def test_1d_not_negative_and_0_for_equal_distributions_only():
    """KL(q, p) >= 0 for every q and p, by log's concavity; it is 0 for q = p alone, infinite where p excludes more."""
    q, p = distributions(3000, 4), distributions(3000, 4)
    allowed = torch.where(q > 0, p, 0.0).sum(1)
    divergence = kl(q, p)
    assert (-divergence <= allowed.log() + 1e-12).all() and (allowed <= 1 + 1e-12).all(), "-KL <= log sum p <= log 1"
    assert (divergence >= (q - p).abs().sum(1) ** 2 / 2 - 1e-12).all(), "KL is larger the more q and p differ"
    assert torch.equal(divergence.isinf(), ((q > 0) & (p == 0)).any(1)), (
        "infinite exactly where p excludes what q does not"
    )
    assert divergence.isinf().any() and divergence.isfinite().any()
    assert (kl(q, q) == 0).all(), "0 for equal distributions"
    assert kl(torch.tensor([0.5, 0.5]), torch.tensor([0.5 + 1e-4, 0.5 - 1e-4])) > 0, "also for a small difference"


def test_1d_not_symmetric():
    """KL(q, p) can differ from KL(p, q), and need not; the triangle inequality can fail."""
    q, p, r = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    close(torch.stack([kl(q, p), kl(p, q)]), [0.368064, 0.510826], "another number in the other order", atol=1e-6)
    close(kl(q, r), kl(r, q), "the same number in the other order")
    close(kl(q, r), 1.757780, "the direct way from q to r", atol=1e-6)
    close(kl(q, p) + kl(p, r), 0.878890, "the way over p is shorter, which no distance allows", atol=1e-6)


def test_1d_kl_estimate():
    """kl_estimate is log q - log p: its mean under q is KL(q, p), under p it is -KL(p, q)."""
    prior = gaussian(0, 1)
    for mu, sigma in GAUSSIANS:
        estimate, q = kl_estimate(LINE, *parameters(mu, sigma)), gaussian(mu, sigma)
        close(q @ estimate, kl(q, prior), "kl_estimate is log q - log p: is it the other way round?")
        close(prior @ -estimate, kl(prior, q), "the other order")


def both_equations(mean, deviation, log_p_x_z):
    """Eq. 1 and Eq. 2 of one sample, for every z of the line as that sample, [2,241]."""
    k = kl_estimate(LINE, *parameters(mean, deviation))
    return torch.stack([log_p_x_z - kl_divergence(*parameters(mean, deviation)), log_p_x_z - k])


def variance(q, values):
    """Along the last dimension, which q [241] weighs."""
    return (values - (values @ q)[..., None]) ** 2 @ q


def test_1e_same_mean_other_values():
    """Both equations estimate the same bound, draw by draw with other values; Eq. 2's variance is Eq. 1's plus two terms."""
    _, log_p_x_z, _, _ = line_model()
    draws = 10_000
    for mean, deviation in GAUSSIANS:
        q, values = gaussian(mean, deviation), both_equations(mean, deviation, log_p_x_z)
        close(values[1], eq_2(mean, deviation), "elbo is Eq. 2: is the sign of a term wrong?")
        bound, k = values @ q, kl_estimate(LINE, *parameters(mean, deviation))
        close(bound[0], bound[1], "both estimate the same bound: is the KL's sign wrong, or a term missing?")
        assert (mean, deviation) == (0, 1) or (values[0] - values[1]).abs().max() > 0.5, "for one z they differ"
        of_eq_1, of_eq_2 = variance(q, values)
        covariance = q @ ((log_p_x_z - q @ log_p_x_z) * (k - q @ k))
        close(of_eq_2, of_eq_1 + variance(q, k) - 2 * covariance, "variance of a difference")
        close(of_eq_1, variance(q, log_p_x_z), "in Eq. 1 only log p(x|z) varies")

    mu, sigma_square = (each.expand(draws, 1) for each in parameters(mean, deviation))
    z = sample_diagonal_gaussian(mu, sigma_square)
    x, p = X.expand(draws, 2), decode(z)
    costs = torch.stack([kl_divergence(mu, sigma_square), kl_estimate(z, mu, sigma_square)], 1)
    sampled = logpdf_bernoulli(x, p)[:, None] - costs  # Eq. 1 and Eq. 2 for each draw, [draws,2]
    near(sampled, bound, "draws of both estimates have the bound as mean")
    near((sampled - bound) ** 2, variance(q, values), "and these variances")
    close(elbo(z, mu, sigma_square, x, p), sampled[:, 1].mean(), "elbo is the mean of Eq. 2 over the batch")


def test_1e_same_gradient_for_the_decoder():
    """By theta both equations have the same gradient, draw by draw; by phi only the means over the draws agree."""
    theta = torch.randn(2, requires_grad=True)
    eps, weights = LINE, gaussian(0, 1)
    mu, sigma_square = (each.requires_grad_() for each in parameters(2, 0.5))
    z = mu + sigma_square.sqrt() * eps  # [241,1]
    log_p = logpdf_bernoulli(X.expand(241, 2), torch.sigmoid(theta * z))
    one = log_p - kl_divergence(mu, sigma_square)
    two = log_p - kl_estimate(z, mu, sigma_square)

    def gradients(values, by):
        """The gradient of each value, [241,...]."""
        return torch.stack([torch.autograd.grad(each, by, retain_graph=True)[0] for each in values])

    close(gradients(one, theta), gradients(two, theta), "by theta, for every draw")
    for by in (mu, sigma_square):
        of_one, of_two = gradients(one, by), gradients(two, by)
        assert (of_one - of_two).abs().max() > 0.1, "by phi the gradients of one draw differ"
        close(weights @ of_one, weights @ of_two, "by phi, in the mean over the draws")


def test_1e_neither_always_varies_less():
    """Eq. 2 does not vary where q is the posterior; near it and far from it either equation can vary less."""
    prior, log_p_x_z, posterior, log_p_x = line_model()
    close(
        log_p_x_z + prior.log() - posterior.log(), log_p_x.expand(241), "with q = p(z|x), Eq. 2 is log p(x) at every z"
    )

    mean, deviation = moments(posterior)
    of_eq_1, of_eq_2 = variance(gaussian(mean, deviation), both_equations(mean, deviation, log_p_x_z))
    assert of_eq_2 < 0.1 * of_eq_1, "near the posterior Eq. 2 hardly varies"
    blind, q = (
        torch.full((241,), -2.0),
        gaussian(0.1, 1),
    )  # log p(x|z) of a decoder that ignores z: its posterior is the prior
    close(kl(q, prior), 0.005, "q is near the posterior")
    close(variance(q, both_equations(0.1, 1, blind)), [0.0, 0.01], "and Eq. 2 varies more")
    q = gaussian(2, 0.5)
    close(
        torch.stack([kl(q, posterior), *variance(q, both_equations(2, 0.5, log_p_x_z))]),
        [1.11, 0.03, 0.92],
        "Eq. 1 varies less",
        0.005,
    )

    white = 8 * F.logsigmoid(2 * Z - 2)  # log p(x|z) of eight white pixels with p = sigmoid(2z - 2)
    posterior = prior * white.exp() / (prior @ white.exp())
    q = gaussian(0.5, 1)
    close(
        torch.stack([kl(q, posterior), *variance(q, both_equations(0.5, 1, white))]),
        [9.5, 118, 108],
        "Eq. 2 varies less",
        0.2,
    )


def test_1f_the_best_decoder_ignores_z():
    """With q = N(0, I) every decoder falls short of the constant mean image by E_z KL(mean image, its pixels)."""
    prior = gaussian(0, 1)
    for _ in range(20):
        images = (torch.rand(30, 5) < torch.rand(5)).double()
        mean = images.mean(0)

        def bound(pixels):
            """Mean over the images of E_z[log p(x|z)] for pixels [241,5]; the KL to the prior is 0."""
            return prior @ torch.stack([logpdf_bernoulli(x.expand(241, 5), pixels) for x in images]).mean(0)

        pixels = torch.sigmoid(
            torch.tanh(LINE @ torch.randn(1, 8)) @ torch.randn(8, 5)
        )  # a decoder with a hidden layer
        shortfall = kl(torch.stack([mean, 1 - mean], -1), torch.stack([pixels, 1 - pixels], -1)).sum(1)  # [241]
        close(bound(mean.expand(241, 5)) - bound(pixels), prior @ shortfall, "a KL for every pixel, in the mean over z")
        assert (shortfall > 0).all(), "so nothing is better than the mean image"


def test_1f_an_encoder_pays():
    """Two images, black and white: with q = N(0, I) the bound is at most -8 log 2, with an encoder it is above -2.5."""

    def best(mus, sigma):
        """The bound with the best of all decoders, for q(z|black), q(z|white); and that decoder's pixels, [241]."""
        log_q = torch.stack([logpdf_diagonal_gaussian(LINE, *parameters(mu, sigma)) for mu in mus])
        logits = (log_q[1] - log_q[0]).requires_grad_()  # p(white|z) of each pixel is the share of white in q at this z
        log_p_x_z = 8 * torch.stack([F.logsigmoid(-logits), F.logsigmoid(logits)])
        divergence = torch.stack([kl_divergence(*parameters(mu, sigma)) for mu in mus])
        bound = (STEP * (log_q.exp() * log_p_x_z).sum(1) - divergence).mean()
        (slope,) = torch.autograd.grad(bound, logits, retain_graph=True)
        close(slope, torch.zeros(241), "the bound is concave in the logits and flat here: no decoder is better")
        return bound, logits.sigmoid()

    collapsed, pixels = best((0, 0), 1)
    close(collapsed, -8 * LOG2, "with KL = 0 the bound is the best that constant pixels reach")
    close(pixels, torch.full((241,), 0.5), "the best decoder ignores z")
    informed, pixels = best((-1, 1), 0.5)
    assert -2.5 < informed < -LOG2, "a q that depends on x pays; the mean log p(x) of two images is at most -log 2"
    assert (pixels.diff() >= 0).all() and pixels[0] < 1e-6 < 1 - 1e-6 < pixels[-1], "its decoder reads x from z"
    far_away = kl_divergence(*parameters(10, 0.5))
    assert far_away > 50, "a q that is far from the prior pays more than it can win: log p(x|z) is at most 0"

    for _ in range(20):
        p = distributions(1, 4)[0]
        assert (p[0].log() + p[1].log()) / 2 <= -LOG2 + 1e-12, "no model gives two images more"


def test_1f_the_bound_is_loose():
    """With q = p(z) the bound holds, and lies KL(p(z), p(z|x)) below log p(x): by 0 where the decoder ignores z."""
    prior, _, posterior, log_p_x = line_model()
    close(log_p_x - prior @ eq_2(0, 1), kl(prior, posterior), "the gap for q = p(z)")
    assert kl(prior, posterior) > 0.01, "of a decoder that uses z"
    constant = logpdf_bernoulli(X, torch.tensor([[0.7, 0.4]]).expand(241, 2))
    joint = prior * constant.exp()
    close(kl(prior, joint / joint.sum()), 0.0, "of one that ignores z")
    for _ in range(20):
        prior, log_p_x_z, posterior, log_p_x = random_model()
        close(log_p_x - prior @ log_p_x_z, kl(prior, posterior), "the gap for q = p(z)")


def test_1g_kl_of_a_gaussian_to_itself():
    """KL(q, q) is 0 for all mu and sigma, for log(q/q) is 0 at every z."""
    s = symbolic
    log_q = s.log_density(s.mu_q, s.sigma_q)
    assert s.expectation(log_q - log_q, s.mu_q, s.sigma_q) == 0, "the integral of q log(q/q)"
    for mu, sigma in GAUSSIANS:
        q = gaussian(mu, sigma)
        density = (-((Z - mu) ** 2) / (2 * sigma**2)).exp() / math.sqrt(2 * math.pi * sigma**2)
        close(q, STEP * density, "logpdf_diagonal_gaussian is this density's log: is sigma_square a variance there?")
        assert ((q / q).log() == 0).all() and kl(q, q) == 0, "the log of 1, at every z"
    close(kl_estimate(LINE, *parameters(0, 1)), torch.zeros(241), "log q - log p with q = p")
    close(kl_divergence(*parameters(0, 1)), 0.0, "kl_divergence with q = p: is the -1 missing?")


def test_1g_mistakes():
    """Without its -1/2 the KL of Gaussians would be 1/2 for q = p; with -log(q/p) it would be negative for q != p."""
    s = symbolic
    kl_formula = sympy.log(s.sigma_p / s.sigma_q) + (s.sigma_q**2 + (s.mu_q - s.mu_p) ** 2) / (2 * s.sigma_p**2)
    log_ratio = s.log_density(s.mu_q, s.sigma_q) - s.log_density(s.mu_p, s.sigma_p)
    divergence = s.expectation(log_ratio, s.mu_q, s.sigma_q)
    assert s.same(divergence, kl_formula - sympy.Rational(1, 2)), "the KL of two Gaussians"
    equal = {s.mu_p: s.mu_q, s.sigma_p: s.sigma_q}
    assert kl_formula.subs(equal) == sympy.Rational(1, 2), "a KL that is not 0 for q = p is none"
    q, p = full(1000, 4), full(1000, 4)
    assert ((q * -(q / p).log()).sum(1) < 0).all(), "with a minus the KL is negative for q != p"


def test_1h_kl_of_gaussians_of_equal_width():
    """KL = (mu_phi - mu_p)^2 / (2 sigma^2), for all means and every sigma, step by step and in either order."""
    s = symbolic
    log_ratio = s.log_density(s.mu_q, s.sigma) - s.log_density(s.mu_p, s.sigma)
    squares = ((s.z - s.mu_p) ** 2 - (s.z - s.mu_q) ** 2) / (2 * s.sigma**2)
    answer = (s.mu_q - s.mu_p) ** 2 / (2 * s.sigma**2)
    assert s.same(log_ratio, squares), "log q - log p: the normalisers cancel"
    assert s.same(s.expectation((s.z - s.mu_q) ** 2, s.mu_q, s.sigma), s.sigma**2), "E(z-mu_phi)^2"
    to_p = s.expectation((s.z - s.mu_p) ** 2, s.mu_q, s.sigma)
    assert s.same(to_p, s.sigma**2 + (s.mu_q - s.mu_p) ** 2), "E(z-mu_p)^2"
    assert s.same(s.expectation(log_ratio, s.mu_q, s.sigma), answer), "squared distance of the means over 2 sigma^2"
    assert s.same(s.expectation(-log_ratio, s.mu_p, s.sigma), answer), "here the order does not matter"
    for mu_phi, mu_p, sigma in ((1, 0, 1), (-1, 2, 1), (0, 3, 1.5)):
        q, p = gaussian(mu_phi, sigma), gaussian(mu_p, sigma)
        close(kl(q, p), (mu_phi - mu_p) ** 2 / (2 * sigma**2), "the sum over a line of z")
    for mu in (-1, 0.5, 2):
        close(gaussian(mu, 1) @ kl_estimate(LINE, *parameters(mu, 1)), mu**2 / 2, "mean of kl_estimate for sigma = 1")
        close(kl_divergence(*parameters(mu, 1)), mu**2 / 2, "kl_divergence for sigma = 1: is there -mu^2?")


def test_1h_mistakes():
    """Without the sum over z it depends on z and has both signs; log[exp(a) + b] for log exp(a + b) is another number."""
    s = symbolic
    bracket = ((s.z - s.mu_p) ** 2 - (s.z - s.mu_q) ** 2) / (2 * s.sigma**2)
    assert s.same(sympy.diff(bracket, s.z), (s.mu_q - s.mu_p) / s.sigma**2), (
        "a line in z: both signs if the means differ"
    )
    for mu_phi, mu_p, sigma, copied in ((1, 0, 1, 0.11547), (-1, 2, 1, 1.53432), (0, 3, 1.5, 0.79120)):
        q = gaussian(mu_phi, sigma)
        answer = (mu_phi - mu_p) ** 2 / (2 * sigma**2)
        to_p, to_phi = (Z - mu_p) ** 2 / (2 * sigma**2), (Z - mu_phi) ** 2 / (2 * sigma**2)
        not_summed = q / STEP * (to_p - to_phi)
        assert not_summed.min() < -0.01 < 0.01 < not_summed.max(), "this is a function of z; a KL is one number"
        close(STEP * not_summed.sum(), answer, "its integral is the KL")
        close(-q @ (-to_p + to_phi).exp().log(), answer, "log(p/q) has both terms in the exponent")
        close(-q @ ((-to_p).exp() + to_phi).log(), copied, "with one term outside", atol=1e-5)
        assert abs(copied - answer) > 0.1, "exp(a + b) is not exp(a) + b"


def lagrangian_gradient(q, multiplier, model):
    """Derivatives of the Lagrangian by q [K] and by the multiplier, and the matrix of second derivatives by q."""
    prior, log_p_x_z, *_ = model

    def lagrangian(q, multiplier):
        return q @ log_p_x_z - kl(q, prior) + multiplier * (q.sum() - 1)

    q, multiplier = torch.as_tensor(q).clone().requires_grad_(), torch.as_tensor(multiplier).clone().requires_grad_()
    by_q, by_multiplier = torch.autograd.grad(lagrangian(q, multiplier), (q, multiplier))
    return (
        by_q,
        by_multiplier,
        torch.autograd.functional.hessian(lambda q: lagrangian(q, multiplier.detach()), q.detach()),
    )


def test_1i_stationary_point_of_the_lagrangian():
    """The Lagrangian is stationary at p(x|z) p(z) / sum p(x|z') p(z') with lambda = 1 - log p(x), for every model."""
    for _ in range(20):
        model = prior, log_p_x_z, _, log_p_x = random_model(4)
        answer = log_p_x_z.exp() * prior / (log_p_x_z.exp() * prior).sum()
        by_q, by_multiplier, _ = lagrangian_gradient(answer, 1 - log_p_x, model)
        close(by_q, torch.zeros(4), "the Lagrangian is flat at the answer: is a term's sign wrong?")
        close(by_multiplier, 0.0, "the answer sums to 1")
        q, multiplier = 0.1 + torch.rand(4), torch.randn(())  # any positive numbers
        by_q, by_multiplier, curvature = lagrangian_gradient(q, multiplier, model)
        close(by_q, log_p_x_z + prior.log() - q.log() - 1 + multiplier, "dL/dq, at any q")
        close(by_multiplier, q.sum() - 1, "dL/dlambda")
        close(curvature, torch.diag(-1 / q), "the second derivatives are -1/q: concave")
        of_multiplier = log_p_x_z.exp() * prior * (multiplier - 1).exp()
        close(lagrangian_gradient(of_multiplier, multiplier, model)[0], torch.zeros(4), "flat by q, for any lambda")
        close(of_multiplier.sum(), (log_p_x + multiplier - 1).exp(), "its sum, which lambda = 1 - log p(x) makes 1")


def test_1i_it_is_the_maximum():
    """No distribution has a larger objective than this point, where it is log p(x)."""
    for _ in range(20):
        prior, log_p_x_z, posterior, log_p_x = random_model(4)
        q = distributions(300, 4)
        objective = q @ log_p_x_z - kl(q, prior)
        close(posterior @ log_p_x_z - kl(posterior, prior), log_p_x, "the largest value is log p(x)")
        close(log_p_x - objective, kl(q, posterior), "every other q falls short by KL(q, answer)")
        assert (posterior > 0).all(), "the non-negativity that was ignored holds"


def test_1i_mistakes():
    """p(x|z) / sum p(x|z) leaves out the prior and is in general not stationary; p(x,z) sums to p(x)."""
    model = prior, log_p_x_z, _, log_p_x = discrete_model()
    likelihood = log_p_x_z.softmax(0)
    assert lagrangian_gradient(likelihood, 0.0, model)[0].std() > 0.1, "no multiplier makes all three derivatives 0"
    even = torch.full((3,), 1 / 3), log_p_x_z
    slopes = lagrangian_gradient(likelihood, 0.0, even)[0]
    close(slopes, slopes[0].expand(3), "with an even prior it happens to be right")
    joint = prior * log_p_x_z.exp()
    by_q, by_multiplier, _ = lagrangian_gradient(joint, 1.0, model)
    close(by_q, torch.zeros(3), "p(x,z) solves the first equation, with lambda = 1")
    close(by_multiplier, log_p_x.exp() - 1, "but it sums to p(x), not to 1")


def test_1j_q_should_be_the_posterior():
    """(3) p(z|x) is 1(i)'s answer by Bayes; (2) and (4) need not sum to 1 over z; (1) is in general a worse q."""
    for _ in range(20):
        prior, log_p_x_z, posterior, log_p_x = random_model()
        terms = {1: prior, 2: log_p_x_z.exp(), 3: posterior, 4: prior * log_p_x_z.exp()}
        close(terms[2] * prior / log_p_x.exp(), terms[3], "Bayes: p(z|x) is p(x|z) p(z) / p(x)")
        close(terms[4].sum(), log_p_x.exp(), "p(x,z) sums to p(x)")
        close(terms[3] @ log_p_x_z - kl(terms[3], prior), log_p_x, "the posterior's bound is log p(x)")
        close(log_p_x - prior @ log_p_x_z, kl(prior, posterior), "the prior's is lower by KL(p(z), p(z|x))")
    for x in binary(2):
        prior, log_p_x_z, posterior, log_p_x = discrete_model(x)
        terms = {1: prior, 2: log_p_x_z.exp(), 3: posterior, 4: prior * log_p_x_z.exp()}
        proper = [number for number, q in terms.items() if abs(q.sum() - 1) < 1e-9]
        assert proper == [1, 3], "here p(x|z) and p(x,z) do not sum to 1 over z"
        assert kl(prior, posterior) > 0.01, "and the prior's bound is lower"
    prior, useless = full(1, 4)[0], torch.full((4,), 0.3)
    close(prior * useless / (prior @ useless), prior, "where p(x|z) does not depend on z, the posterior is the prior")


# -------------------------------------------------------------------- 3: generative adversarial networks


def test_3a_cost_function():
    """V = E log D(x) + E log(1 - D(G(z))) is -2 discriminator_loss, at most 0; D raises it, G lowers it."""
    for _ in range(20):
        logits = 3 * torch.randn(3)
        real, fake = logits[REAL, None], logits[FAKE, None]
        v = real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean()
        close(-2 * discriminator_loss(real, fake), v, "discriminator_loss is -V/2: is a sign or a label wrong?")
        assert v <= 0, "V is a sum of logarithms of probabilities"
    d_real, d_fake = torch.rand(100, requires_grad=True), torch.rand(100, requires_grad=True)
    v = d_real.log() + (1 - d_fake).log()
    by_real, by_fake = torch.autograd.grad(v.sum(), (d_real, d_fake))
    assert (by_real > 0).all(), "D raises V by a higher D(x)"
    assert (by_fake < 0).all(), "D raises V by a lower D(G(z)); G lowers V by a higher one"
    game = torch.randn(50, 6, 7)  # V of 6 generators and 7 discriminators, 50 times
    close(-(-game).min(2).values.max(1).values, game.max(2).values.min(1).values, "max min of -V is the same game")


def test_3a_mistakes():
    """With 1 - log D(G(z)) as the second term V is 1 for p_G = p_data, else without a maximum; V itself has no minimum."""
    d = 0.1 ** torch.arange(3.0, 12)

    def misplaced(d, p_data, p_g):
        return (p_data * d.log()).sum(-1) + (p_g * (1 - d.log())).sum(-1)

    for p_data, p_g in zip(full(20, 3), full(20, 3)):
        close(misplaced(torch.rand(5, 3), p_data, p_data), torch.ones(5), "p_G = p_data: 1 for every D")
        d_low = torch.where(p_g > p_data, d[:, None], 0.5)
        rise = (p_g - p_data).clamp(min=0).sum() * math.log(10)
        assert rise > 0, "another p_G exceeds p_data somewhere"
        close(misplaced(d_low, p_data, p_g).diff(), rise.expand(8), "each step of D towards 0 there adds as much")
    v = d.log() + math.log(0.5)
    assert (v.diff() < -2.3).all(), "with D(G(z)) = 1/2: each step of D(x) towards 0 takes log 10 away"


def test_3b_expectation_over_p_g():
    """E_z f(G(z)) is the sum over x of p_G(x) f(x): V is the same number for z and for x, for every D and G."""
    maps = torch.cartesian_prod(*[torch.arange(3)] * 8)  # z is a die of 8 faces; all 6561 maps of faces to three images
    distributions = F.one_hot(maps, 3).double().mean(1)  # p_G(x) is the probability of all z that G maps to x
    for _ in range(5):
        logits = 2 * torch.randn(3)
        over_z = (P_DATA * logits.sigmoid().log()).sum() + (1 - logits[maps].sigmoid()).log().mean(1)
        close(over_z, value(logits.sigmoid(), P_DATA, distributions), "E_z f(G(z)) = sum over x of p_G(x) f(x)")
        for g, expected in zip(maps[::500], over_z[::500]):
            close(-2 * discriminator_loss(logits[REAL, None], logits[g, None]), expected, "discriminator_loss is -V/2")


def test_3b_the_same_game_over_distributions():
    """Over all maps G and over all p_G the game has the same value and the same best p_G; max_D alone has no one value."""
    maps = torch.cartesian_prod(*[torch.arange(3)] * 8)
    p_g = simplex(3, 8)
    kinds, which = F.one_hot(maps, 3).double().mean(1).unique(dim=0, return_inverse=True)
    assert len(kinds) == len(p_g), "every p_G in eighths is the distribution of some G"
    by_map, by_distribution = best_value(kinds)[which], best_value(p_g)
    close(by_map.min(), by_distribution.min(), "min over G of max over D is min over p_G of max over D")
    close(kinds[which][by_map.argmin()], p_g[by_distribution.argmin()], "and the same p_G is best")
    assert by_distribution.max() - by_distribution.min() > 0.5, "without a min over p_G the problem has no one value"


def test_3c_derivative_and_concavity():
    """p_data log D + p_G log(1-D) is strictly concave in D, and flat at p_data / (p_data + p_G) alone."""
    a, b = symbolic.sigma_p, symbolic.sigma_q  # p_data(x), p_G(x) > 0
    d = sympy.Symbol("D")
    f = a * sympy.log(d) + b * sympy.log(1 - d)
    assert symbolic.same(sympy.diff(f, d), a / d - b / (1 - d)), "the first derivative"
    assert symbolic.same(sympy.diff(f, d, 2), -a / d**2 - b / (1 - d) ** 2), "the second, which is negative"
    assert [sympy.simplify(each - a / (a + b)) for each in sympy.solve(sympy.diff(f, d), d)] == [0], "its only zero"


def test_3c_optimal_discriminator():
    """No D has a larger V than D*, for every p_data and p_G, also where one of them is 0; gradients find D*."""
    for _ in range(100):
        p_data, p_g, d = *distributions(2, 4), torch.rand(4)
        both = p_data + p_g
        answer = torch.where(both > 0, p_data / both, 0.5)
        shortfall = both * kl(torch.stack([answer, 1 - answer], 1), torch.stack([d, 1 - d], 1))
        close(value(answer, p_data, p_g) - value(d, p_data, p_g), shortfall.sum(), "V(D*) - V(D) is a sum of KLs")
        assert (shortfall[both > 0] > 0).all(), "so every D that differs where x can occur is worse"
    answer = P_DATA / (P_DATA + P_G)
    logits = torch.zeros(3, requires_grad=True)
    least = minimise(lambda: discriminator_loss(logits[REAL, None], logits[FAKE, None]), logits)
    close(logits.sigmoid(), answer, "D is the probability that x is real: is it that of fake?", atol=1e-6)
    close(-2 * least, value(answer, P_DATA, P_G), "V(D*)")


def test_3c_mistakes():
    """D = 1/2 is D* for p_G = p_data only; p_G / (p_data + p_G) is the probability of a sample."""
    for _ in range(100):
        p_data, p_g = full(2, 4)
        answer, half = p_data / (p_data + p_g), torch.full((4,), 0.5)
        assert value(half, p_data, p_g) < value(answer, p_data, p_g), "1/2 is worse where p_G differs from p_data"
        assert value(1 - answer, p_data, p_g) < value(answer, p_data, p_g), "so is p_G / (p_data + p_G)"
        close(p_data / (p_data + p_data), half, "for p_G = p_data D* is 1/2")


def test_3d_steps():
    """V(D*) = KL(p_data, M) + KL(p_G, M) - 2 log 2 = 2 JSD - log 4, line by line, for every p_data and p_G."""
    for p_data, p_g in zip(distributions(500, 4), distributions(500, 4)):
        both, middle = p_data + p_g, (p_data + p_g) / 2
        inserted = (torch.where(p_data > 0, p_data * (p_data / both).log(), 0.0)).sum()
        inserted = inserted + (torch.where(p_g > 0, p_g * (p_g / both).log(), 0.0)).sum()
        d = torch.where(both > 0, p_data / both, 0.5)
        close(inserted, value(d, p_data, p_g), "D* inserted into V")
        close(inserted, kl(p_data, middle) + kl(p_g, middle) - 2 * LOG2, "p_data + p_G = 2 M: is a log 2 missing?")
        jsd = kl(p_data, middle) / 2 + kl(p_g, middle) / 2
        close(inserted, 2 * jsd - LOG4, "2 JSD - log 4: is the factor 2 missing?")


def test_3d_optimal_generator():
    """V(D*) is -log 4 for p_G = p_data, and larger for every other p_G."""
    for p_data, p_g in zip(distributions(500, 4), distributions(500, 4)):
        middle = (p_data + p_g) / 2
        jsd = kl(p_data, middle) / 2 + kl(p_g, middle) / 2
        assert jsd >= (p_data - p_g).abs().sum() ** 2 / 8 - 1e-12, (
            "JSD grows with the difference: 0 for p_G = p_data alone"
        )
        close(kl(p_data, p_data), 0.0, "for p_G = p_data, M is p_data and JSD is 0")
    p_g = simplex(3, 8)
    best = best_value(p_g)  # by trying values of D, not by D*
    close(p_g[best.argmin()], P_DATA, "the best generator imitates the data")
    close(best.min(), -LOG4, "with the value -log 4", atol=1e-6)
    assert best.sort().values[1] > -LOG4 + 0.001, "no other p_G reaches it"


def test_3d_mistakes():
    """-log 4 + JSD falls short of V(D*) by another JSD, which is 0 for p_G = p_data only."""
    p_g = simplex(3, 8)
    middle = (P_DATA + p_g) / 2
    jsd = kl(P_DATA, middle) / 2 + kl(p_g, middle) / 2
    close(best_value(p_g) - (-LOG4 + jsd), jsd, "JSD is half a sum of two KL; V contains both whole", atol=1e-6)
    assert torch.equal(jsd > 1e-9, (p_g != P_DATA).any(1)), "which is nothing for p_G = p_data only"


def uniforms():
    """Starts of eight cells of width 1/4 on [0,2], and P1, P2, P3 on these cells."""
    starts = torch.arange(8) / 4
    return starts, *(((starts >= low) & (starts < low + 1)) / 4.0 for low in (0, 0.5, 1))


def test_3e_kl_of_uniforms():
    """KL(P1, P2) and KL(P1, P3) are infinite: with a leak e for the cells that P2 or P3 excludes they grow like log 1/e."""
    _, p1, p2, p3 = uniforms()
    for p, outside in ((p2, 0.5), (p3, 1.0)):
        close(p1[p == 0].sum(), outside, "mass of P1 where the other has none")
        assert kl(p1, p).item() == math.inf, "p excludes what q does not"
        leaky = [(1 - leak) * p + leak / 8 for leak in (1e-6, 1e-9, 1e-12)]  # p with a little mass everywhere
        growth = torch.stack([kl(p1, each) for each in leaky]).diff()
        close(growth, [outside * math.log(1000)] * 2, "the KL grows without end as the leak closes", atol=1e-4)
    overlap = (p1 > 0) & (p2 > 0)
    assert kl(p1[overlap], p2[overlap]) == 0 and not torch.equal(p1, p2), "a KL of 0 would say that P1 is P2"


def test_3e_wasserstein_distance_of_uniforms():
    """W1 is 0.5 and 1: moving every point by the shift costs that much, and no plan costs less than the means differ."""
    starts, p1, p2, p3 = uniforms()
    points = (torch.arange(6) + 0.5) / 6
    plans = torch.tensor(list(permutations(range(6))))
    for p, answer in ((p2, 0.5), (p3, 1.0)):
        shift = (p @ starts - p1 @ starts).item()
        close(shift, answer, "the other distribution is P1, moved by this much")
        work = (points - (points + shift)[plans]).abs().mean(1)  # of all 720 ways to move six grains of P1 to the other
        close(work.min(), answer, "W1 is the least mean distance that mass must move")
        close((p1.cumsum(0) - p.cumsum(0)).abs().sum() / 4, answer, "W1 is the area between the distribution functions")
        for _ in range(100):  # random plans between the cells: p1 moved by any table of conditional probabilities
            plan = p1[:, None] * full(8, 8)
            moved = (plan * (starts[:, None] - starts).abs()).sum()
            assert moved >= abs(plan.sum(0) @ starts - p1 @ starts) - 1e-12, "no plan is cheaper than the means differ"
