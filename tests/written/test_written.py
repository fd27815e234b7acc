"""The written questions: each test asks one, states the answer in its docstring, and proves it by computing.

Almost everything is exact: sums over all outcomes, sums over a line of z that are integrals to many digits, and
optimisation. Where sampling is the point, the seed is fixed (conftest.py) and the bound is four standard errors.
"Rejected" is a wrong answer, and the test shows that it fails. "Graded copy" is a student's HW5 with the marks that it
got; "student" is one of the other two solutions that were published with the texts, without marks.

Homework   | question | test
UIUC HW5   | 1(a)     | test_uiuc_hw5_1a_likelihood_is_a_product
UIUC HW5   | 1(b)     | test_uiuc_hw5_1b_encoder_has_two_outputs
UIUC HW5   | 1(c)     | test_uiuc_hw5_1c_bound_by_jensen_and_its_two_parts
UIUC HW5   | 1(d)     | test_uiuc_hw5_1d_kl_is_not_negative_and_not_symmetric
UIUC HW5   | 1(e)     | test_uiuc_hw5_1e_two_estimates_of_one_bound
UIUC HW5   | 1(f)     | test_uiuc_hw5_1f_with_the_prior_as_q_nothing_is_learned
UIUC HW5   | 1(g)     | test_uiuc_hw5_1g_kl_of_a_gaussian_to_itself
UIUC HW5   | 1(h)     | test_uiuc_hw5_1h_kl_of_gaussians_of_equal_width
UIUC HW5   | 1(i)     | test_uiuc_hw5_1i_stationary_point_of_the_lagrangian
UIUC HW5   | 1(j)     | test_uiuc_hw5_1j_q_should_be_the_posterior
UIUC HW5   | 3(a)     | test_uiuc_hw5_3a_cost_function
UIUC HW5   | 3(b)     | test_uiuc_hw5_3b_the_same_game_over_distributions
UIUC HW5   | 3(c)     | test_uiuc_hw5_3c_optimal_discriminator
UIUC HW5   | 3(d)     | test_uiuc_hw5_3d_optimal_generator
UIUC HW5   | 3(e)     | test_uiuc_hw5_3e_kl_and_wasserstein_distances_of_uniforms
UIUC HW8   | 1(a)     | test_uiuc_hw8_1a_bound_for_a_discrete_z
UIUC HW8   | 1(b)     | test_uiuc_hw8_1b_kl_of_gaussians_is_zero_only_for_equal_ones
UIUC HW8   | 1(c)     | test_uiuc_hw8_1c_kl_of_any_distribution_to_itself
UIUC HW8   | 1(d)     | test_uiuc_hw8_1d_kl_of_gaussians_of_equal_width
UIUC HW8   | 1(e)     | test_uiuc_hw8_1e_stationary_point_found_by_gradients
UIUC HW8   | 1(f)     | test_uiuc_hw8_1f_the_stationary_point_is_the_posterior
UIUC HW8   | 1(g)     | test_uiuc_hw8_1g_reparameterize
Amsterdam  | 1.2      | test_amsterdam_1_2_ancestral_sampling
Amsterdam  | 1.3      | test_amsterdam_1_3_a_nonlinear_map_of_a_gaussian_is_not_restricted
Amsterdam  | 1.4a     | test_amsterdam_1_4a_monte_carlo_estimate_of_log_p_x
Amsterdam  | 1.4b     | test_amsterdam_1_4b_its_error_grows_with_the_latent_dimension
Amsterdam  | 1.5a     | test_amsterdam_1_5a_a_small_and_a_large_kl
Amsterdam  | 1.5b     | test_amsterdam_1_5b_kl_to_the_standard_normal
Amsterdam  | 1.6      | test_amsterdam_1_6_log_likelihood_minus_kl_is_the_bound
Amsterdam  | 1.7      | test_amsterdam_1_7_the_bound_needs_no_posterior
Amsterdam  | 1.8      | test_amsterdam_1_8_what_a_higher_bound_means
Amsterdam  | 1.9      | test_amsterdam_1_9_reconstruction_and_regularisation_loss
Amsterdam  | 1.10     | test_amsterdam_1_10_loss_of_a_data_set
Amsterdam  | 1.11a    | test_amsterdam_1_11a_gradient_trains_the_encoder
Amsterdam  | 1.11b    | test_amsterdam_1_11b_no_gradient_through_a_plain_sample
Amsterdam  | 1.11c    | test_amsterdam_1_11c_gradient_through_the_reparameterised_sample
Amsterdam  | 2.2      | test_amsterdam_2_2_minimax_objective
Amsterdam  | 2.3      | test_amsterdam_2_3_value_at_the_optimum
Amsterdam  | 2.4      | test_amsterdam_2_4_saturation
Penn       | 1(a)     | test_penn_1a_free_energy
Penn       | 1(b)     | test_penn_1b_mean_energy_is_a_derivative_of_log_z
Penn       | 1(c)     | test_penn_1c_mean_field_with_identical_factors
Penn       | 1(d)     | test_penn_1d_mean_field_with_free_factors

UIUC is in this file, Amsterdam in test_written_amsterdam.py, Penn in test_written_penn.py.
UIUC HW5 is the edition of 2022. The later edition, that of the graded copy, has the same 1(a)-(j) and 3(a)-(d).
Prose only, so no test: Amsterdam 1.1, 1.12, 2.1, 2.5, 3.1.
Code and figures, tested with their scripts: UIUC HW5 2(a)-(e), 4(a)-(f), in the later edition 2(e), 4(b), 4(c);
Amsterdam 1.13, 1.14, 1.15, 2.6, 2.7; Penn 2(i)-(vi).
"""

import inspect
import math
import re
from itertools import permutations

import torch
from torch.nn import functional as F

from hw5_gan import discriminator_loss
from hw5_vae import Encoder, elbo, kl_estimate, logpdf_bernoulli, logpdf_diagonal_gaussian, sample_diagonal_gaussian
from proofs import double_precision  # noqa: F401, a fixture of every test below
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
    eq_2,
    far,
    gaussian,
    kl,
    kl_divergence,
    line_model,
    minimise,
    moments,
    near,
    parameters,
    reparameterize,
    simplex,
    value,
)

# --------------------------------------------------------------------------------------- UIUC HW5, question 1


def test_uiuc_hw5_1a_likelihood_is_a_product():
    """Write p(x|z) for G independent Bernoulli pixels.

    Answer: prod_j y_j^x_j (1 - y_j)^(1 - x_j), where y is the decoder's output.
    Rejected (graded copy, 0 points): theta^x_j (1 - theta)^(1 - x_j). The product over j is missing: the values of all
    images do not sum to 1. And one theta for all pixels cannot give each its own probability.
    Rejected: the mean over pixels of the binary cross entropy as -log p(x|z). Its probabilities do not sum to 1 either.
    """
    y, images = torch.tensor([0.1, 0.3, 0.6, 0.8]), binary(4)
    table = torch.ones(1)
    for y_j in y:  # the joint table of independent coins, a pixel more each time
        table = torch.kron(table, torch.stack([1 - y_j, y_j]))
    answer = (y**images * (1 - y) ** (1 - images)).prod(1)
    close(answer, table, "each pixel multiplies by y_j if it is 1, by 1 - y_j if it is 0: are the two exchanged?")
    close(answer.sum(), 1.0, "the 16 images must have the probability 1 together")
    close(
        logpdf_bernoulli(images, y.expand(16, 4)).exp(),
        answer,
        "logpdf_bernoulli is x log p + (1-x) log(1-p), summed over the pixels: is a sign or a factor wrong?",
    )

    thetas = torch.linspace(0, 1, 101)[:, None, None]
    factors = thetas**images * (1 - thetas) ** (1 - images)  # [101,16,4]
    close(factors.sum(1), torch.full((101, 4), 8.0), "one factor alone has the sum 8 over the 16 images, not 1")
    assert ((factors.prod(2) - table).abs().amax(1) > 0.1).all(), "no single theta gives the four pixels' probabilities"
    mean = -F.binary_cross_entropy(y.expand(16, 4), images, reduction="none").mean(1)
    close(4 * mean, answer.log(), "the mean over pixels is a quarter of the log-likelihood of four")
    assert mean.exp().sum() > 2, "taken for a log-likelihood, its probabilities do not sum to 1"


def test_uiuc_hw5_1b_encoder_has_two_outputs():
    """q(z|x) is a Gaussian in R^2 whose covariance is the identity. What is the encoder's output dimension?

    Answer: 2. The two numbers are the mean; the covariance is given.
    The coding part learns a diagonal covariance, so its encoder gives 4 numbers: two means and two variances.
    Rejected (here): 4. Two of the four numbers would not change q(z|x).
    """
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


def test_uiuc_hw5_1c_bound_by_jensen_and_its_two_parts():
    """Bound log p(x) by Jensen's inequality and split the bound in two parts, one of them a KL.

    Answer: log p(x) = log sum_z q p(x,z)/q >= sum_z q log(p(x,z)/q) = E_q[log p(x|z)] - KL(q(z|x), p(z)), as log is
    concave. There is equality where p(x,z)/q does not depend on z, that is for q(z|x) = p(z|x).
    Rejected: E_q[log p(x|z)] + KL. It exceeds log p(x).
    """
    prior, log_p_x_z, posterior, log_p_x = line_model()
    plus = []
    for mu, sigma in GAUSSIANS:
        q = gaussian(mu, sigma)
        ratio = prior * log_p_x_z.exp() / q
        close((q @ ratio).log(), log_p_x, "the log of the mean of p(x,z)/q is log p(x), for every q")
        bound = q @ ratio.log()
        assert bound < log_p_x - 0.01, "the mean of the log is below the log of the mean"
        reconstruction, divergence = q @ log_p_x_z, kl(q, prior)
        close(bound, reconstruction - divergence, "bound = reconstruction - KL: is it + KL?")
        close(q @ eq_2(mu, sigma), bound, "elbo has this mean: is the sign of a term wrong?")
        plus.append(reconstruction + divergence)
    assert max(plus) > log_p_x, "with + KL it is no lower bound"

    ratio = prior * log_p_x_z.exp() / posterior
    close(posterior @ ratio.log(), log_p_x, "with the posterior as q, the bound is log p(x)")
    mu, sigma = moments(posterior)
    assert log_p_x - 0.01 < gaussian(mu, sigma) @ eq_2(mu, sigma) < log_p_x, "a q near the posterior is near log p(x)"


def test_uiuc_hw5_1d_kl_is_not_negative_and_not_symmetric():
    """State two properties of KL(q, p).

    Answer: it is >= 0, and 0 only for q = p. It is not symmetric: KL(q, p) differs from KL(p, q).
    Rejected (student, Amsterdam 1.6): "KL is a distance metric". Symmetry and the triangle inequality are missing.
    """
    everything = simplex(3, 10)  # 66 distributions, of which 30 exclude some outcome
    table = kl(everything[:, None], everything)  # [66,66]
    equal = torch.eye(len(everything), dtype=bool)
    assert (table[equal] == 0).all() and (table[~equal] > 0.001).all(), "KL >= 0, and 0 on the diagonal only"

    q, p, r = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    close(torch.stack([kl(q, p), kl(p, q)]), [0.368064, 0.510826], "KL(q, p) is the mean of log q - log p", atol=1e-6)
    close(kl(q, r), 1.757780, "the direct way from q to r", atol=1e-6)
    close(kl(q, p) + kl(p, r), 0.878890, "the way over p is shorter, which no distance allows", atol=1e-6)

    prior = gaussian(0, 1)
    for mu, sigma in GAUSSIANS:
        estimate, q = kl_estimate(LINE, *parameters(mu, sigma)), gaussian(mu, sigma)
        forward, reverse = q @ estimate, prior @ -estimate
        close(forward, kl(q, prior), "kl_estimate is log q - log p: is it the other way round?")
        if (mu, sigma) == (0, 1):
            close(forward, 0.0, "q is the prior")
        else:
            assert forward > 0.01 and reverse > 0.01, "log q - log p: positive mean under q, negative under p"
            assert sigma == 1 or abs(forward - reverse) > 0.01, "the order matters, unless only the means differ"


def test_uiuc_hw5_1e_two_estimates_of_one_bound():
    """In practice, is training with Eq. 1 (KL exact) the same as with Eq. 2 (everything sampled)? Why use one of them?

    Answer: no. Both estimates have the same mean, but another variance. Eq. 1 needs a KL in closed form; it varies less
    where q is far from the posterior. Eq. 2 needs densities only; near the posterior it hardly varies, for it is nearly
    log p(x) whatever z is drawn.
    Rejected: "the same, for both are the ELBO". One draw of each differs. Rejected: "Eq. 1 always varies less".
    """
    _, log_p_x_z, posterior, _ = line_model()
    variances, draws = [], 10_000
    for mean, deviation in (moments(posterior), (2, 0.5)):
        q, (mu, sigma_square) = gaussian(mean, deviation), parameters(mean, deviation)
        values = torch.stack([log_p_x_z - kl_divergence(mu, sigma_square), eq_2(mean, deviation)])  # as functions of z
        bound = values @ q
        close(bound[0], bound[1], "both estimate the same bound: is the KL's sign wrong, or a term missing?")
        variance = (values - bound[:, None]) ** 2 @ q
        assert (values[0] - values[1]).abs().max() > 0.5, "for one z the two equations differ"
        variances.append(variance.tolist())

        mu, sigma_square = mu.expand(draws, 1), sigma_square.expand(draws, 1)
        z = sample_diagonal_gaussian(mu, sigma_square)
        x, p = X.expand(draws, 2), decode(z)
        costs = torch.stack([kl_divergence(mu, sigma_square), kl_estimate(z, mu, sigma_square)], 1)
        sampled = logpdf_bernoulli(x, p)[:, None] - costs  # Eq. 1 and Eq. 2 for each draw, [draws,2]
        near(sampled, bound, "both estimates have the bound as mean")
        near((sampled - bound) ** 2, variance, "and these variances")
        close(elbo(z, mu, sigma_square, x, p), sampled[:, 1].mean(), "elbo is the mean of Eq. 2 over the batch")
    assert variances[0][1] < 0.1 * variances[0][0], "near the posterior, Eq. 2 hardly varies"
    assert variances[1][1] > 10 * variances[1][0], "far from it, log p(z) - log q(z|x) varies; Eq. 1 is spared that"


def test_uiuc_hw5_1f_with_the_prior_as_q_nothing_is_learned():
    """Is it a good idea to choose q(z|x) = N(0, I)? Why is an encoder necessary?

    Answer: no. z then says nothing of x, so the best decoder ignores z, and nothing is learned of x beyond its mean.
    Two images of 8 equal pixels, black and white: that decoder can only say 1/2, which costs 8 log 2 nats. An encoder
    pays a KL, and still does better.
    Rejected: "it is best, for the bound holds for any q and the KL is 0".
    """

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
    assert collapsed + 3 < informed < -LOG2, "a q that depends on x pays; log p(x) of two images is at most -log 2"
    assert (pixels.diff() >= 0).all() and pixels[0] < 1e-6 < 1 - 1e-6 < pixels[-1], "its decoder reads x from z"

    prior, _, posterior, log_p_x = line_model()
    gap = log_p_x - prior @ eq_2(0, 1)
    close(gap, kl(prior, posterior), "the bound does hold for q = p(z)")
    assert gap > 0.4, "but it is far below log p(x)"


def test_uiuc_hw5_1g_kl_of_a_gaussian_to_itself():
    """What is KL(q(z|x), q(z|x)) for a Gaussian q, and why?

    Answer: 0, because log(q/q) = log 1 = 0 at every z.
    Rejected: log(s_p/s_q) + (s_q^2 + (m_q-m_p)^2) / (2 s_p^2) as the KL of Gaussians. Its value here would be 1/2.
    Rejected as a reason (graded copy): -sum q log(q/p) as the definition. It is 0 here too, but negative for p != q.
    """

    def incomplete(m_q, s_q, m_p, s_p):
        return math.log(s_p / s_q) + (s_q**2 + (m_q - m_p) ** 2) / (2 * s_p**2)

    for mu, sigma in GAUSSIANS:
        q = gaussian(mu, sigma)
        density = (-((Z - mu) ** 2) / (2 * sigma**2)).exp() / math.sqrt(2 * math.pi * sigma**2)
        close(q, STEP * density, "logpdf_diagonal_gaussian is this density's log: is sigma_square a variance there?")
        assert ((q / q).log() == 0).all() and kl(q, q) == 0, "the log of 1, at every z"
        assert incomplete(mu, sigma, mu, sigma) == 0.5, "a KL that is not 0 for q = p is none"
        for p in GAUSSIANS:
            close(kl(q, gaussian(*p)), incomplete(mu, sigma, *p) - 0.5, "the KL of two Gaussians")
            assert p == (mu, sigma) or -kl(q, gaussian(*p)) < -0.01, "with a minus the KL would be negative"
    close(kl_estimate(LINE, *parameters(0, 1)), torch.zeros(241), "log q - log p with q = p")
    close(kl_divergence(*parameters(0, 1)), 0.0, "kl_divergence with q = p: is the -1 missing?")


def test_uiuc_hw5_1h_kl_of_gaussians_of_equal_width():
    """What is KL(q(z|x), p(z)) for Gaussians with means mu_phi, mu_p and the same sigma?

    Answer: (mu_phi - mu_p)^2 / (2 sigma^2).
    Rejected (student): q(z) ((z-mu_p)^2 - (z-mu_phi)^2) / (2 sigma^2), without the sum over z. It depends on z.
    Rejected (graded copy, 1 point of 3.5): log[exp(-(z-mu_p)^2 / 2s^2) + (z-mu_phi)^2 / 2s^2] as log(p/q). The second
    term belongs into the exponent. The copy's last sum is right again, but it is not worked out.
    """
    for mu_phi, mu_p, sigma, copied in ((1, 0, 1, 0.11547), (-1, 2, 1, 1.53432), (0, 3, 1.5, 0.79120)):
        q, p = gaussian(mu_phi, sigma), gaussian(mu_p, sigma)
        answer = (mu_phi - mu_p) ** 2 / (2 * sigma**2)
        close(kl(q, p), answer, "squared distance of the means over twice the variance")

        to_p, to_phi = (Z - mu_p) ** 2 / (2 * sigma**2), (Z - mu_phi) ** 2 / (2 * sigma**2)
        close(q @ (to_p - to_phi), answer, "the mean under q of log q - log p")
        not_summed = q / STEP * (to_p - to_phi)
        assert not_summed.min() < -0.01 < 0.01 < not_summed.max(), "this is a function of z; a KL is one number"
        close(-q @ (-to_p + to_phi).exp().log(), answer, "log(p/q) has both terms in the exponent")
        close(-q @ ((-to_p).exp() + to_phi).log(), copied, "the graded copy's line", atol=1e-5)
        assert abs(copied - answer) > 0.1, "exp(a + b) is not exp(a) + b"
    for mu in (-1, 0.5, 2):
        close(gaussian(mu, 1) @ kl_estimate(LINE, *parameters(mu, 1)), mu**2 / 2, "mean of kl_estimate for sigma = 1")
        close(kl_divergence(*parameters(mu, 1)), mu**2 / 2, "kl_divergence for sigma = 1: is there -mu^2?")


def test_uiuc_hw5_1i_stationary_point_of_the_lagrangian():
    """Which q makes sum q log p(x|z) - KL(q, p(z)) stationary, subject to sum q = 1?

    Answer: q(z|x) = p(x|z) p(z) / sum_z' p(x|z') p(z').
    L = sum q log p(x|z) - sum q log(q/p(z)) + lambda (sum q - 1); dL/dq = log p(x|z) + log p(z) - log q - 1 + lambda.
    It is 0 for q = p(x,z) exp(lambda - 1), and the constraint makes lambda = 1 - log p(x).
    Rejected: p(x|z) / sum p(x|z). It leaves out the prior.
    Rejected: p(x,z), with the multiplier dropped and not solved for. Its sum is p(x).
    """
    prior, log_p_x_z, _, log_p_x = discrete_model()

    def gradient(q, multiplier):
        """Derivatives of the Lagrangian: by the three q, [3], and by the multiplier."""
        q, multiplier = q.clone().requires_grad_(), torch.as_tensor(multiplier).clone().requires_grad_()
        lagrangian = q @ log_p_x_z - kl(q, prior) + multiplier * (q.sum() - 1)
        return torch.autograd.grad(lagrangian, (q, multiplier))

    joint = log_p_x_z.exp() * prior
    answer = joint / joint.sum()
    by_q, by_multiplier = gradient(answer, 1 - log_p_x)
    close(by_q, torch.zeros(3), "the Lagrangian is flat at the answer: is a term's sign wrong?")
    close(by_multiplier, 0.0, "the answer sums to 1")
    q, multiplier = torch.tensor([0.3, 0.3, 0.4]), 0.7
    close(gradient(q, multiplier)[0], log_p_x_z + prior.log() - q.log() - 1 + multiplier, "dL/dq, at any q")

    everything = simplex(3, 20)
    bounds = everything @ log_p_x_z - kl(everything, prior)
    close(everything[bounds.argmax()], answer, "of 231 distributions the answer (0.2, 0.2, 0.6) has the best bound")
    close(bounds.max(), log_p_x, "there the bound is log p(x)")

    likelihood = log_p_x_z.softmax(0)
    assert gradient(likelihood, 0.0)[0].std() > 0.1, "without the prior no multiplier makes all three derivatives 0"
    by_q, by_multiplier = gradient(joint, 1.0)
    close(by_q, torch.zeros(3), "p(x,z) solves the first equation, with lambda = 1")
    close(by_multiplier, log_p_x.exp() - 1, "but it sums to p(x), not to 1")


def test_uiuc_hw5_1j_q_should_be_the_posterior():
    """Which of these should q(z|x) be equal to: (1) p(z), (2) p(x|z), (3) p(z|x), (4) p(x,z)?

    Answer: (3), p(z|x).
    Rejected (graded copy, 0 points): "(3) p(x|z)". The number is right, but the term is that of (2). It is no
    distribution of z: its sum over z is not 1. The same holds for (4). (1) is one, but its bound is below log p(x).
    """
    for x in binary(2):
        prior, log_p_x_z, posterior, log_p_x = discrete_model(x)
        terms = {1: prior, 2: log_p_x_z.exp(), 3: posterior, 4: prior * log_p_x_z.exp()}
        close(terms[2] * prior / log_p_x.exp(), terms[3], "Bayes: p(z|x) is p(x|z) p(z) / p(x)")
        close(terms[4].sum(), log_p_x.exp(), "p(x,z) sums to p(x)")
        proper = [number for number, q in terms.items() if abs(q.sum() - 1) < 1e-9]
        assert proper == [1, 3], "p(x|z) and p(x,z) do not sum to 1 over z"
        bounds = {number: terms[number] @ log_p_x_z - kl(terms[number], prior) for number in proper}
        close(bounds[3], log_p_x, "the posterior's bound is log p(x)")
        assert bounds[1] < log_p_x - 0.01, "the prior's bound is lower"


# --------------------------------------------------------------------------------------- UIUC HW5, question 3


def test_uiuc_hw5_3a_cost_function():
    """What is the cost function of a classical GAN, with D_omega and G_theta?

    Answer: min_theta max_omega V, V = E_x[log D(x)] + E_z[log(1 - D(G(z)))]. discriminator_loss is -V/2. The graded
    copy's max_theta min_omega of -V is the same game.
    Rejected: E_z[1 - log D(G(z))] as the second term. D would make that as large as it likes; V is at most 0.
    Rejected: max_theta min_omega of V, the players exchanged. D would make V as low as it likes.
    """
    logits = torch.randn(3)
    real, fake = logits[REAL, None], logits[FAKE, None]
    close(
        -2 * discriminator_loss(real, fake),
        real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean(),
        "discriminator_loss is -V/2: is a sign wrong, or a label swapped?",
    )

    def v(d_real, d_fake):
        """V for a batch of one image of each kind."""
        d_real, d_fake = (torch.as_tensor(d).view(1, 1) for d in (d_real, d_fake))
        return -2 * discriminator_loss(d_real.logit(), d_fake.logit())

    close(v(0.8, 0.3), math.log(0.8) + math.log(0.7), "log D(x) + log(1 - D(G(z)))")
    assert v(0.8, 0.3) > v(0.7, 0.3), "D raises V by a higher D(x)"
    assert v(0.8, 0.3) > v(0.8, 0.4), "D raises V by a lower D(G(z)); G lowers V by a higher one"
    d = torch.tensor([1e-3, 1e-6, 1e-9])  # D(G(z)), with D(x) = 1/2
    assert all(v(0.5, each) <= 0 for each in d), "V is a sum of logarithms of probabilities"
    misplaced = math.log(0.5) + 1 - d.log()
    assert (misplaced.diff() > 6).all() and misplaced[-1] > 20, "1 - log D has no maximum over D"
    assert v(1e-9, 1 - 1e-9) < -40, "V has no minimum over D"


def test_uiuc_hw5_3b_the_same_game_over_distributions():
    """State an equivalent problem with D(x) and p_G(x), the distribution of G(z), for arbitrary capacity.

    Answer: min over p_G, max over D, of E_(x ~ p_data)[log D(x)] + E_(x ~ p_G)[log(1 - D(x))].
    A die of 8 faces is z, all 6561 maps of its faces to three images are G. Value and best p_G are the same in both.
    Rejected (graded copy, 0 points): min_D of -V alone. Nobody chooses p_G any more, and each p_G has another value.
    """
    maps = torch.cartesian_prod(*[torch.arange(3)] * 8)  # G(z) for each face z, [6561,8]
    distributions = F.one_hot(maps, 3).double().mean(1)  # p_G(x) is the probability of all z that G maps to x
    logits = torch.randn(3)
    over_z = (P_DATA * logits.sigmoid().log()).sum() + (1 - logits[maps].sigmoid()).log().mean(1)
    close(over_z, value(logits.sigmoid(), P_DATA, distributions), "E_z f(G(z)) = sum over x of p_G(x) f(x)")
    for g, expected in zip(maps[::500], over_z[::500]):
        close(-2 * discriminator_loss(logits[REAL, None], logits[g, None]), expected, "discriminator_loss is -V/2")

    p_g = simplex(3, 8)
    kinds, which = distributions.unique(dim=0, return_inverse=True)
    by_map, by_distribution = best_value(kinds)[which], best_value(p_g)
    close(by_map.min(), by_distribution.min(), "min over G of max over D is min over p_G of max over D")
    close(distributions[by_map.argmin()], p_g[by_distribution.argmin()], "and the same p_G is best")
    assert by_distribution.max() - by_distribution.min() > 0.5, "without a min over p_G the problem has no one value"


def test_uiuc_hw5_3c_optimal_discriminator():
    """Which D is best for a fixed G?

    Answer: D*(x) = p_data(x) / (p_data(x) + p_G(x)). There p_data/D - p_G/(1-D), the derivative of V, is 0.
    Rejected: D* = 1/2. That is D* for p_G = p_data only, the end of the training.
    Rejected: p_G / (p_data + p_G). That is the probability of "generated".
    """
    answer = P_DATA / (P_DATA + P_G)
    close(P_DATA / answer - P_G / (1 - answer), torch.zeros(3), "the derivative of p_data log D + p_G log(1-D) by D")
    logits = torch.zeros(3, requires_grad=True)
    least = minimise(lambda: discriminator_loss(logits[REAL, None], logits[FAKE, None]), logits)
    close(logits.sigmoid(), answer, "D is the probability that x is real: is it that of fake?", atol=1e-6)
    close(-2 * least, value(answer, P_DATA, P_G), "V(D*)")
    for rejected in (torch.full((3,), 0.5), 1 - answer):
        assert value(rejected, P_DATA, P_G) < value(answer, P_DATA, P_G) - 0.01, "this D has a lower V than the best"


def test_uiuc_hw5_3d_optimal_generator():
    """Show that against D* the best generator has p_G = p_data.

    Answer: V(D*) = -log 4 + 2 JSD(p_data, p_G). It is least, -log 4, for p_G = p_data and nothing else.
    The graded copy's -2 JSD + log 4 is -V(D*), which G maximises.
    Rejected: -log 4 + JSD. JSD is half a sum of two KL; V contains both whole.
    """
    p_g = simplex(3, 8)
    best, middle = best_value(p_g), (P_DATA + p_g) / 2
    jsd = kl(P_DATA, middle) / 2 + kl(p_g, middle) / 2
    close(best, -LOG4 + 2 * jsd, "V(D*) = -log 4 + 2 JSD: is the factor 2 missing?", atol=1e-6)
    close(p_g[best.argmin()], P_DATA, "the best generator imitates the data")
    close(best.min(), -LOG4, "there JSD = 0", atol=1e-6)
    assert best.sort().values[1] > -LOG4 + 0.001, "no other p_G reaches -log 4"
    rejected = -LOG4 + jsd
    close(best - rejected, jsd, "-log 4 + JSD falls short by another JSD", atol=1e-6)
    assert jsd.max() > 0.1, "which is not nothing"


def test_uiuc_hw5_3e_kl_and_wasserstein_distances_of_uniforms():
    """What are KL and W1 from P1 = U[0,1] to P2 = U[0.5,1.5] and to P3 = U[1,2]?

    Answer: KL(P1, P2) = KL(P1, P3) = infinity. W1(P1, P2) = 0.5, W1(P1, P3) = 1.
    Rejected: KL(P1, P2) = 0, from integrating where both are positive. P1 has mass where P2 has none: log(1/0) counts.
    """
    starts = torch.arange(8) / 4  # cells of width 1/4 on [0,2], on which all three densities are constant
    p1, p2, p3 = (((starts >= low) & (starts < low + 1)) / 4.0 for low in (0, 0.5, 1))
    for p, outside in ((p2, 0.5), (p3, 1.0)):
        assert kl(p1, p).item() == math.inf, "p excludes what q does not"
        leaky = [(1 - leak) * p + leak / 8 for leak in (1e-6, 1e-9, 1e-12)]  # p with a little mass everywhere
        growth = torch.stack([kl(p1, each) for each in leaky]).diff()
        close(growth, [outside * math.log(1000)] * 2, "the KL grows without end as the leak closes", atol=1e-4)
    overlap = (p1 > 0) & (p2 > 0)
    assert kl(p1[overlap], p2[overlap]) == 0 and not torch.equal(p1, p2), "a KL of 0 would say that P1 is P2"

    points = (torch.arange(6) + 0.5) / 6
    plans = torch.tensor(list(permutations(range(6))))
    for p, answer in ((p2, 0.5), (p3, 1.0)):
        shift = (p @ starts - p1 @ starts).item()
        work = (points - (points + shift)[plans]).abs().mean(1)  # of all 720 ways to move six grains of P1 to the other
        close(work.min(), answer, "W1 is the least mean distance that mass must move")
        close((p1.cumsum(0) - p.cumsum(0)).abs().sum() / 4, answer, "W1 is the area between the distribution functions")


# --------------------------------------------------------------------------------------------------- UIUC HW8


def test_uiuc_hw8_1a_bound_for_a_discrete_z():
    """Bound log p(x) by Jensen's inequality and split the bound in two parts, one of them a KL.

    Answer: log p(x) >= sum_z q(z|x) log p(x|z) - KL(q(z|x), p(z)), as in HW5 1(c), see test_uiuc_hw5_1c.
    Here for z in {0,1,2}, for every image, and for q of any form. Rejected: + KL.
    """
    q = simplex(3, 20)
    for x in binary(2):
        prior, log_p_x_z, posterior, log_p_x = discrete_model(x)
        bound = q @ log_p_x_z - kl(q, prior)
        close(bound, -kl(q, prior * log_p_x_z.exp()), "sum q log(p(x,z)/q), split in two: is it + KL?")
        assert (bound <= log_p_x + 1e-12).all(), "a lower bound, for each of 231 q"
        close(posterior @ log_p_x_z - kl(posterior, prior), log_p_x, "with equality for q = p(z|x)")
        assert (q @ log_p_x_z + kl(q, prior)).max() > log_p_x, "with + KL it is no lower bound"


def test_uiuc_hw8_1b_kl_of_gaussians_is_zero_only_for_equal_ones():
    """State two properties of KL(q, p).

    Answer: it is not negative; it is 0 if q = p, and only then. For the missing symmetry see test_uiuc_hw5_1d.
    Rejected: "0 where the means agree". The widths must agree too.
    """
    q = torch.stack([gaussian(*pair) for pair in GAUSSIANS])
    table, equal = kl(q[:, None], q), torch.eye(len(q), dtype=bool)  # [9,9]
    assert (table[equal] == 0).all() and (table[~equal] > 0.05).all(), "KL >= 0, and 0 on the diagonal only"
    assert kl(gaussian(1, 0.5), gaussian(1, 1)) > 0.3, "equal means, KL not 0"


def test_uiuc_hw8_1c_kl_of_any_distribution_to_itself():
    """What is KL(q(z|x), q(z|x)), and why?

    Answer: 0, because the two distributions are identical: log(q/q) = 0. For rejected answers see test_uiuc_hw5_1g.
    """
    q = simplex(3, 20)
    assert (kl(q, q) == 0).all(), "log 1 = 0, and 0 log 0 = 0"
    assert (kl(q[1:], q[:-1]) > 0.001).all(), "two different distributions do not have it"
    assert all(kl(gaussian(*pair), gaussian(*pair)) == 0 for pair in GAUSSIANS), "for Gaussians, as in the text"


def test_uiuc_hw8_1d_kl_of_gaussians_of_equal_width():
    """What is KL(q(z|x), p(z)) for Gaussians with means mu_q, mu_p and the same sigma?

    Answer: (mu_q - mu_p)^2 / (2 sigma^2). Here against PyTorch's own formula; for the integral see test_uiuc_hw5_1h.
    Rejected: the same without the 2; the same with sigma for sigma^2.
    """
    mu_q, mu_p, sigma = torch.randn(50), torch.randn(50), 0.2 + torch.rand(50)
    oracle = torch.distributions.kl_divergence(*(torch.distributions.Normal(mu, sigma) for mu in (mu_q, mu_p)))
    close((mu_q - mu_p) ** 2 / (2 * sigma**2), oracle, "squared distance of the means over twice the variance")
    close((mu_q - mu_p) ** 2 / sigma**2, 2 * oracle, "without the 2 it is twice too large")
    close((mu_q - mu_p) ** 2 / (2 * sigma), sigma * oracle, "with sigma for sigma^2 it is wrong but for sigma = 1")
    distance = ((mu_q - mu_p) / sigma)[:, None]  # shifted and scaled so that p is N(0, 1)
    close(kl_divergence(distance, torch.ones(50, 1)), oracle, "kl_divergence: is the factor 1/2 missing?")


def test_uiuc_hw8_1e_stationary_point_found_by_gradients():
    """Which q maximises sum q log p(x|z) - KL(q, p(z)), subject to sum q = 1?

    Answer: q(z|x) = p(x|z) p(z) / sum_z' p(x|z') p(z'). Here gradients search for it, from q = 1/3.
    For the Lagrangian and the rejected answers see test_uiuc_hw5_1i.
    """
    for x in binary(2):
        prior, log_p_x_z, _, log_p_x = discrete_model(x)
        answer = log_p_x_z.exp() * prior / (log_p_x_z.exp() * prior).sum()
        logits = torch.zeros(3, requires_grad=True)
        least = minimise(lambda: kl(logits.softmax(0), prior) - logits.softmax(0) @ log_p_x_z, logits)
        close(logits.softmax(0), answer, "gradients lead to the same q: is the prior missing?", atol=1e-6)
        close(-least, log_p_x, "where the objective is log p(x)")


def test_uiuc_hw8_1f_the_stationary_point_is_the_posterior():
    """Which of these should q(z|x) be equal to: (1) p(z), (2) p(x|z), (3) p(z|x), (4) p(x,z)?

    Answer: (3), p(z|x), which Bayes gives as in 1(e). Here p(z|x) comes from the table of all pairs (x, z).
    Rejected: (1); (2), also when made to sum to 1. For (2) and (4) as they are see test_uiuc_hw5_1j.
    """
    images = binary(2)
    joint = torch.stack([prior * log_p_x_z.exp() for prior, log_p_x_z, *_ in map(discrete_model, images)])  # [4,3]
    close(joint.sum(), 1.0, "all pairs of x and z")
    close(joint.sum(0), [0.5, 0.25, 0.25], "summed over x, the prior of z")
    for pairs, x in zip(joint, images):
        prior, log_p_x_z, _, log_p_x = discrete_model(x)
        counted = pairs / pairs.sum()  # of the pairs with this x
        close(counted @ log_p_x_z - kl(counted, prior), log_p_x, "p(z|x) makes the bound log p(x)")
        for wrong in (prior, log_p_x_z.softmax(0)):
            assert wrong @ log_p_x_z - kl(wrong, prior) < log_p_x - 0.005, "the bound is lower"


def test_uiuc_hw8_1g_reparameterize():
    """Give the code of reparameterize(mu, logvar).

    Answer: mu + exp(logvar / 2) * eps, where eps ~ N(0, I) has mu's shape.
    Rejected: exp(logvar) * eps. The deviation is the root of the variance.
    Rejected: one eps for a whole row, or for the whole batch.
    """
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
    squares = ((z - mu) / logvar.exp()).flatten() ** 2
    far(squares, 1, "were exp(logvar) the deviation, this would be eps^2, with mean 1")

    mu, logvar = mu.requires_grad_(), logvar.requires_grad_()
    by_mu, by_logvar = torch.autograd.grad(reparameterize(mu, logvar).sum(), (mu, logvar))
    close(by_mu, torch.ones(rows, 3), "dz/dmu = 1: is the sample detached?")
    assert (by_logvar != 0).all(), "dz/dlogvar = (z - mu) / 2: is the sample detached?"


# -------------------------------------------------------------------------------------------------- the table


def test_the_table_names_every_test():
    """The questions of the texts, the rows of the table above and the tests in the three files agree, in order."""
    import test_written_amsterdam
    import test_written_penn

    asked = [("UIUC HW5", f"1({letter})") for letter in "abcdefghij"]
    asked += [("UIUC HW5", f"3({letter})") for letter in "abcde"]
    asked += [("UIUC HW8", f"1({letter})") for letter in "abcdefg"]
    asked += [
        ("Amsterdam", number)
        for number in "1.2 1.3 1.4a 1.4b 1.5a 1.5b 1.6 1.7 1.8 1.9 1.10 1.11a 1.11b 1.11c 2.2 2.3 2.4".split()
    ]
    asked += [("Penn", f"1({letter})") for letter in "abcd"]
    rows = re.findall(r"^(\S[^|]*?) +\| (\S+) +\| (test_\w+)$", __doc__, re.MULTILINE)
    assert [row[:2] for row in rows] == asked, "the table must list every written question of the texts"

    tests = {}
    for names in (globals(), vars(test_written_amsterdam), vars(test_written_penn)):
        tests |= {name: each for name, each in names.items() if name.startswith("test_") and inspect.isfunction(each)}
    del tests["test_the_table_names_every_test"]
    assert [name for _, _, name in rows] == list(tests), "the table must name the tests, each once, in their order"
    for homework, question, name in rows:
        begin = re.sub(r"[ .]", "_", re.sub(r"[()]", "", f"test_{homework}_{question}_".lower()))
        assert name.startswith(begin), f"{name}: the name must begin with homework and letter, {begin}"
        assert "Answer: " in tests[name].__doc__, f"{name}: the docstring must give the answer"
