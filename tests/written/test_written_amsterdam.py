"""The written questions of Amsterdam's assignment 3; test_written.py has the table and says how to read the tests."""

import math

import torch

from hw5_gan import discriminator_loss, generator_loss
from hw5_vae import (
    elbo,
    kl_estimate,
    logpdf_bernoulli,
    logpdf_diagonal_gaussian,
    sample_Bernoulli,
    sample_diagonal_gaussian,
)
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
    simplex,
    value,
)

# ------------------------------------------------------------------------------------- variational autoencoders


def test_amsterdam_1_2_ancestral_sampling():
    """How is an image sampled from the model?

    Answer: draw z ~ N(0, I), compute f(z), draw each pixel m from Bernoulli(f(z)_m). The images then follow p(x), the
    integral of p(x|z) p(z).
    Rejected: pixels drawn from the mean of f(z). Each pixel alone is right, but they do not depend on each other.
    """
    images, prior, draws = binary(2), gaussian(0, 1), 100_000
    p_x = torch.stack([prior @ logpdf_bernoulli(x.expand(241, 2), decode(LINE)).exp() for x in images])
    close(p_x.sum(), 1.0, "p(x) of all four images")
    z = sample_diagonal_gaussian(torch.zeros(draws, 1), torch.ones(draws, 1))
    x = sample_Bernoulli(decode(z))
    drawn = torch.stack([(x == image).all(1) for image in images], 1).double()  # [draws,4], one 1 in each row
    near(drawn, p_x, "shares of the four images: is z a sample of the prior, are the pixels sampled?")

    pixels = prior @ decode(LINE)
    independent = logpdf_bernoulli(images, pixels.expand(4, 2)).exp()
    close(independent @ images, p_x @ images, "with the mean of f(z), the probability of each pixel is right")
    far(drawn, independent, "but not those of the images: the pixels have become independent")


def test_amsterdam_1_3_a_nonlinear_map_of_a_gaussian_is_not_restricted():
    """Why is z ~ N(0, I) no restrictive assumption?

    Answer: a nonlinear map of z can have any distribution. In one dimension Phi(z) is uniform, so that F^-1(Phi(z)) has
    whatever F is wanted; a network can learn such a map. Three F, by their first four moments.
    Rejected: a linear map is enough. It stays Gaussian: its fourth central moment is 3 variance^2.
    """
    prior, u = gaussian(0, 1), torch.special.ndtr(Z)
    maps = {  # F^-1(u); E[x^k] for k = 1, 2, 3, 4; fourth central moment over squared variance
        "uniform": (u, [1 / 2, 1 / 3, 1 / 4, 1 / 5], 1.8),
        "exponential": (-torch.special.log_ndtr(-Z), [1, 2, 6, 24], 9.0),  # -log(1 - u)
        "arcsine, densest at both ends of [-1,1]": (-torch.cos(math.pi * u), [0, 1 / 2, 0, 3 / 8], 1.5),
    }

    def kurtosis(x):
        centred = x - prior @ x
        return prior @ centred**4 / (prior @ centred**2) ** 2

    for name, (x, expected, shape) in maps.items():
        assert (x.diff() >= 0).all(), f"{name}: a quantile function does not fall"
        close(torch.stack([prior @ x**k for k in (1, 2, 3, 4)]), expected, f"{name}: moments of F^-1(Phi(z))")
        close(kurtosis(x), shape, f"{name}: this is not 3, so no linear map gives it")
    for a, b in ((0.5, 3.0), (-2.0, 1.0)):
        close(kurtosis(a * Z + b), 3.0, "a linear map of a Gaussian is a Gaussian")


def test_amsterdam_1_4a_monte_carlo_estimate_of_log_p_x():
    """How can log p(x) be approximated by sampling z?

    Answer: log(1/M sum_m p(x|z_m)), with M draws z_m from the prior.
    Rejected: 1/M sum_m log p(x|z_m). By Jensen it is too low, however many draws there are.
    """
    prior, log_p_x_z, _, log_p_x = line_model()
    draws = 10_000
    z = sample_diagonal_gaussian(torch.zeros(draws, 1), torch.ones(draws, 1))
    sampled = logpdf_bernoulli(X.expand(draws, 2), decode(z))
    estimate = sampled.exp().mean().log()
    near(sampled.exp(), log_p_x.exp(), "p(x) is the mean of p(x|z) over the prior")
    close(
        estimate,
        log_p_x,
        "so that its log is log p(x), but for four relative standard errors",
        atol=4 * (sampled.exp() / log_p_x.exp()).std().item() / math.sqrt(draws),
    )

    near(sampled, prior @ log_p_x_z, "the mean of the logs estimates E[log p(x|z)]")
    far(sampled, log_p_x, "and that is not log p(x)")
    assert sampled.mean() < log_p_x, "it is too low"


def test_amsterdam_1_4b_its_error_grows_with_the_latent_dimension():
    """Why is this estimate inefficient, and what does the dimension of z do to it?

    Answer: few z explain x, all others add nearly nothing. The number of draws needed grows exponentially with the
    dimension: for D copies of the model on the line, the weight p(x|z)/p(x) has the mean 1 and the variance r^D - 1,
    where r is the mean square of one copy's weight.
    Rejected: "twice the dimensions need twice the draws".
    """
    x, prior, draws = X.flip(1), gaussian(0, 1), 20_000
    log_p_x_z = logpdf_bernoulli(x, decode(LINE))
    log_p_x = (prior @ log_p_x_z.exp()).log()
    r = prior @ (log_p_x_z - log_p_x).exp() ** 2
    for d in (1, 2, 4):
        z = sample_diagonal_gaussian(torch.zeros(draws, d), torch.ones(draws, d))
        p = decode(z.view(-1, 1)).view(draws, 2 * d)
        weight = (logpdf_bernoulli(x.repeat(draws, d), p) - d * log_p_x).exp()
        near(weight, 1, f"mean weight for {d} latents")
        near((weight - 1) ** 2, r**d - 1, f"variance of the weight for {d} latents")

    def draws_needed(d):
        """For a relative error of 0.1 in p(x): M with variance / M = 0.1^2."""
        return (r**d - 1) / 0.01

    close(draws_needed(2) / draws_needed(1), r + 1, "twice the dimensions, r + 1 times the draws")
    assert r + 1 > 2.2, "which is more than twice"
    assert draws_needed(40) > 1e9 > 1e3 > draws_needed(3), "and hopeless for 40 latents"


def test_amsterdam_1_5a_a_small_and_a_large_kl():
    """Name a q whose KL to p = N(0, 1) is small and one whose KL is large.

    Answer: q = N(0, 1) has KL 0. q = N(0, s^2) has a KL that goes to infinity with s; so have a far mean and a tiny s.
    KL = log(s_p/s_q) + (s_q^2 + (m_q-m_p)^2) / (2 s_p^2) - 1/2.
    Rejected (student): log(s_p^2/s_q^2) as the first term. It holds for equal widths only, and is negative for s = 1.5.
    """

    def formula(m_q, s_q, m_p, s_p):
        return math.log(s_p / s_q) + (s_q**2 + (m_q - m_p) ** 2) / (2 * s_p**2) - 1 / 2

    def rejected(m_q, s_q, m_p, s_p):
        return math.log(s_p**2 / s_q**2) + (s_q**2 + (m_q - m_p) ** 2) / (2 * s_p**2) - 1 / 2

    for q in GAUSSIANS:
        for p in GAUSSIANS:
            exact = kl(gaussian(*q), gaussian(*p)).item()
            close(formula(*q, *p), exact, "the KL of two Gaussians: a sign, or s for s^2?")
            close(rejected(*q, *p) - exact, math.log(p[1] / q[1]), "the log of s^2 counts log(s_p/s_q) twice")
    assert rejected(0, 1.5, 0, 1) < -0.1, "no KL is negative"

    assert formula(0, 1, 0, 1) == 0 == kl_divergence(*parameters(0, 1)), "small: q = p"
    for m, s, least in ((0, 1000, 4e5), (1000, 1, 4e5), (0, 1e-9, 20)):
        close(kl_divergence(*parameters(m, s)), formula(m, s, 0, 1), "kl_divergence is the same formula")
        assert formula(m, s, 0, 1) > least, "large: much wider, far away, much narrower"


def test_amsterdam_1_5b_kl_to_the_standard_normal():
    """What is KL(N(m, s^2), N(0, 1))?

    Answer: log(1/s) + (s^2 + m^2) / 2 - 1/2. For several latent dimensions it is summed over them.
    Rejected: -m^2 for +m^2, from E[z^2] = s^2 - m^2. It is negative for m = 2.
    """
    for m, s in GAUSSIANS:
        answer = math.log(1 / s) + (s**2 + m**2) / 2 - 1 / 2
        close(kl(gaussian(m, s), gaussian(0, 1)), answer, "integral of q (log q - log p): a sign, or s for s^2?")
        close(gaussian(m, s) @ kl_estimate(LINE, *parameters(m, s)), answer, "kl_estimate has this mean under q")
        close(kl_divergence(*parameters(m, s)), answer, "kl_divergence: a sign, or the factor 1/2?")
        close(gaussian(m, s) @ Z**2, s**2 + m**2, "E[z^2] is variance plus squared mean")
        rejected = math.log(1 / s) + (s**2 - m**2) / 2 - 1 / 2
        close(answer - rejected, m**2, "with -m^2 the KL is too low by m^2")
        assert m < 2 or rejected < 0, "no KL is negative"
    mu, sigma = torch.randn(5, 3), 0.5 + torch.rand(5, 3)
    alone = torch.stack([kl_divergence(mu[:, j, None], sigma[:, j, None] ** 2) for j in range(3)])
    close(kl_divergence(mu, sigma**2), alone.sum(0), "a sum over the dimensions of z, one value for each image")


def test_amsterdam_1_6_log_likelihood_minus_kl_is_the_bound():
    """Write log p(x) - KL(q(z|x), p(z|x)) in another way. Why is it a lower bound of log p(x)?

    Answer: it is E_q[log p(x|z)] - KL(q(z|x), p(z)), and a lower bound because no KL is negative.
    Rejected (student): E_q[p(x|z)] without the log. It exceeds log p(x).
    Rejected: KL(p(z|x), q) as the gap, in the other order. It is another number.
    """
    q, log_evidence = simplex(3, 20), []
    for x in binary(2):
        prior, log_p_x_z, posterior, log_p_x = discrete_model(x)
        bound = q @ log_p_x_z - kl(q, prior)
        close(log_p_x - kl(q, posterior), bound, "for every image and each of 231 q")
        assert (bound <= log_p_x + 1e-12).all(), "the gap is a KL, so that the bound is never above log p(x)"
        close(prior @ log_p_x_z.exp() - kl(prior, prior), log_p_x.exp(), "without the log, q = p(z) gives p(x)")
        assert log_p_x.exp() > log_p_x, "which is above log p(x)"
        log_evidence.append(log_p_x)
    close(torch.stack(log_evidence).exp().sum(), 1.0, "p(x) of all four images: is the log-likelihood's sign wrong?")

    _, _, posterior, log_p_x = line_model()
    for mu, sigma in GAUSSIANS:
        q = gaussian(mu, sigma)
        gap = log_p_x - q @ eq_2(mu, sigma)
        close(gap, kl(q, posterior), "the gap of elbo's mean is KL(q(z|x), p(z|x))")
        assert abs(gap - kl(posterior, q)) > 0.001, "the other order is another number"


def test_amsterdam_1_7_the_bound_needs_no_posterior():
    """Why is the bound optimised and not log p(x) itself?

    Answer: log p(x) and p(z|x) need a sum over all z, which is intractable. The bound needs p(x|z), p(z), q(z|x) only.
    K switches z_k in {0,1} make x = sum a_k z_k + noise; q has independent means m_k. Then p(x) and p(z|x) are sums of
    2^K terms, but the bound has K terms, or is a mean over draws from q.
    Rejected: "the bound is as hard as log p(x)".
    """

    def log_p_x_z(a, z, x=1.0):
        return -((x - z @ a) ** 2) / 2 - math.log(2 * math.pi) / 2

    def bound(a, m, x=1.0):
        variance = (a**2 * m * (1 - m)).sum()  # of sum a_k z_k under q
        reconstruction = -((x - m @ a) ** 2 + variance) / 2 - math.log(2 * math.pi) / 2
        return reconstruction - (m * (2 * m).log() + (1 - m) * (2 * (1 - m)).log()).sum()

    for k in range(2, 11):  # here the posterior can still be had, as a check
        a, m, z = torch.randn(k), 0.1 + 0.8 * torch.rand(k), binary(k)
        q, prior = (m**z * (1 - m) ** (1 - z)).prod(1), torch.full((2**k,), 0.5**k)
        joint = prior * log_p_x_z(a, z).exp()
        close(bound(a, m), q @ log_p_x_z(a, z) - kl(q, prior), "K terms instead of 2^K: is one missing?")
        close(bound(a, m), joint.sum().log() - kl(q, joint / joint.sum()), "log p(x) - KL(q, p(z|x))")

    k, draws = 1000, 1000  # 2^1000 terms are beyond any computer
    a, m = torch.randn(k), 0.1 + 0.8 * torch.rand(k)
    z = sample_Bernoulli(m.expand(draws, k)).double()
    values = log_p_x_z(a, z) - k * LOG2 - logpdf_bernoulli(z, m.expand(draws, k))
    near(values, bound(a, m), "the bound of 1000 switches, from 1000 draws")


def test_amsterdam_1_8_what_a_higher_bound_means():
    """Which two things can happen when the bound is pushed up?

    Answer: log p(x) rises, or KL(q(z|x), p(z|x)) falls. A thousand random changes of model and q show each, and both.
    Rejected (student): making q(z|x) and p(z) similar until their KL is 0. From the posterior on, it lowers the bound.
    """
    prior, log_p_x_z, posterior, log_p_x = discrete_model()
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

    mixed = torch.lerp(posterior, prior, torch.linspace(0, 1, 11)[:, None])  # from the posterior to the prior
    assert (kl(mixed, prior).diff() < 0).all() and kl(mixed, prior)[-1] == 0, "KL(q, p(z)) falls to 0 on the way"
    bound = mixed @ log_p_x_z - kl(mixed, prior)
    close(bound[0], log_p_x, "the bound begins at log p(x)")
    assert (bound.diff() < 0).all(), "and falls too"


def test_amsterdam_1_9_reconstruction_and_regularisation_loss():
    """What are the two losses, and what does each do?

    Answer: L_recon = -E_q[log p(x|z)] and L_reg = KL(q(z|x), p(z)), both >= 0; their sum is minus the bound. L_recon
    alone puts q where z explains x best, L_reg alone makes q the prior, and the sum is a compromise.
    Rejected: E_q[log p(x|z)] as the loss, without the minus. It drives q to where z explains x badly.
    """
    prior, log_p_x_z, _, _ = line_model()
    q = torch.stack([gaussian(*pair) for pair in GAUSSIANS])
    reconstruction = -(q @ log_p_x_z)
    regularisation = torch.stack([kl_divergence(*parameters(*pair)) for pair in GAUSSIANS])
    bound = torch.stack([q_z @ eq_2(*pair) for q_z, pair in zip(q, GAUSSIANS)])
    close(reconstruction + regularisation, -bound, "L_recon + L_reg = -elbo: is a sign wrong?")
    close(regularisation, kl(q, prior), "L_reg is the KL from q to the prior, in this order")
    assert (reconstruction > 0).all() and (regularisation >= 0).all(), "pixels have probabilities; no KL is negative"

    best = [GAUSSIANS[loss.argmin()] for loss in (reconstruction, regularisation, reconstruction + regularisation)]
    assert best == [(2, 0.5), (0, 1), (1, 1)], "the best q for the reconstruction, for the prior, and for both"
    wrong = GAUSSIANS[(-reconstruction).argmin()]
    assert wrong == (0, 1.5), "without the minus: wide, and away from the z that explain x"


def test_amsterdam_1_10_loss_of_a_data_set():
    """Write out the loss of N images, with L draws z_nl ~ q(z|x_n) of each.

    Answer: 1/N sum_n (-1/L sum_l log p(x_n|z_nl) + KL_n), KL_n = -1/2 sum_j (1 + log s_nj^2 - m_nj^2 - s_nj^2).
    In the mean over draws it is minus elbo: images and draws are averaged, pixels and latent dimensions summed.
    Rejected (student): +1/2 sum_j (...), which is -KL. As a loss it drives q away from the prior, without end.
    Rejected (student): a factor p(x|z) before the KL. The loss is no longer minus the bound.
    """
    images, draws = binary(2), 7
    mu, sigma_square = torch.tensor([[-1.0], [0.0], [0.5], [2.0]]), torch.tensor([[0.25], [1.0], [0.5], [2.0]])
    regularisation = -1 / 2 * (1 + sigma_square.log() - mu**2 - sigma_square).sum(1)  # [N]
    close(kl_divergence(mu, sigma_square), regularisation, "KL_n: is the sign of a term wrong?")

    z = torch.randn(draws, 4, 1)  # the next line holds for any z
    reconstruction = -torch.stack([logpdf_bernoulli(images, decode(z_l)) for z_l in z])  # [L,N]
    estimate = torch.stack([kl_estimate(z_l, mu, sigma_square) for z_l in z])
    bounds = torch.stack([elbo(z_l, mu, sigma_square, images, decode(z_l)) for z_l in z])  # each a mean over the images
    close(-bounds.mean(), (reconstruction + estimate).mean(), "-elbo, means over draws and images: is it a sum?")

    losses, bound = [], []  # of each image, in the mean over all draws
    for x, m, v, reg in zip(images, mu, sigma_square, regularisation):
        q = STEP * logpdf_diagonal_gaussian(LINE, m, v).exp()
        log_p = logpdf_bernoulli(x.expand(241, 2), decode(LINE))
        losses.append(q @ -log_p + reg)
        assert reg == 0 or q @ log_p.exp() * reg < 0.8 * reg, "p(x|z) KL counts the KL too little"
        bound.append(q @ torch.stack([elbo(z, m[None], v[None], x[None], decode(z)) for z in LINE.split(1)]))
    close(torch.stack(losses).mean(), -torch.stack(bound).mean(), "in the mean over draws the loss is minus the bound")

    def rejected(mu, sigma_square):
        return 1 / 2 * (1 + sigma_square.log() - mu**2 - sigma_square).sum(1)

    close(rejected(mu, sigma_square), -regularisation, "the student's term is -KL")
    away = rejected(torch.tensor([[0.0], [1.0], [10.0], [100.0]]), torch.ones(4, 1))
    assert (away.diff() < 0).all() and away[-1] < -4999, "-KL falls without end as q moves away from the prior"


def encoder_bound(mu, log_sigma):
    """The bound for the image X as a function of the encoder's outputs: exact, with gradients."""
    _, log_p_x_z, _, _ = line_model()
    return gaussian(mu, log_sigma.exp()) @ log_p_x_z - kl_divergence(*parameters(mu, log_sigma.exp()))


def test_amsterdam_1_11a_gradient_trains_the_encoder():
    """Why is the gradient of the loss by phi needed?

    Answer: to train the encoder by gradient descent, so that q(z|x) comes near p(z|x).
    The model is left as it is, so log p(x) stays; a step up the gradient of the bound lowers KL(q, p(z|x)).
    Rejected: "the gradient by theta is enough". Without phi's the gap between bound and log p(x) stays open.
    """
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


def test_amsterdam_1_11b_no_gradient_through_a_plain_sample():
    """Why can the gradient by phi not be computed through a sampled z?

    Answer: drawing is a stochastic step without a derivative, so that log p(x|z) has no gradient by mu and sigma,
    although its mean depends on them.
    Rejected: "the KL's gradient remains, and trains the encoder". It only pulls q to the prior, whatever x is.
    """
    mu, sigma_square = torch.zeros(100, 1, requires_grad=True), torch.ones(100, 1, requires_grad=True)
    plain = torch.distributions.Normal(mu, sigma_square.sqrt()).sample()
    x = X.expand(100, 2)
    assert not logpdf_bernoulli(x, decode(plain)).requires_grad, "nothing leads back to mu and sigma"
    ours = logpdf_bernoulli(x, decode(sample_diagonal_gaussian(mu, sigma_square)))
    assert ours.requires_grad, "sample_diagonal_gaussian is no plain sample: is z detached?"
    assert all(part.abs().min() > 0 for part in torch.autograd.grad(ours.sum(), (mu, sigma_square))), "to both of them"

    phi = torch.tensor([0.0]).requires_grad_(), torch.tensor([0.0]).requires_grad_()  # q = p(z)
    true = torch.autograd.grad(encoder_bound(*phi), phi)
    left = torch.autograd.grad(-kl_divergence(phi[0], (2 * phi[1]).exp()), phi)
    assert true[0] > 0.5 and left[0] == left[1] == 0, "at q = p(z) the KL alone says stay, but the bound says move"


def test_amsterdam_1_11c_gradient_through_the_reparameterised_sample():
    """What is the reparameterisation trick?

    Answer: z = mu + sigma eps with eps ~ N(0, 1). The randomness is an input, and z has derivatives by mu and sigma.
    The mean of the gradients over draws is then the gradient of the mean.
    Rejected: mu + sigma^2 eps. Its z has another width, and its gradients have another mean.
    """
    _, log_p_x_z, _, _ = line_model()
    m, s, draws = 0.5, 0.6, 20_000
    mean, variance = (each.requires_grad_() for each in parameters(m, s))
    q = STEP * logpdf_diagonal_gaussian(LINE, mean, variance).exp()
    true = torch.cat(torch.autograd.grad(q @ log_p_x_z, (mean, variance)))  # of E_q[log p(x|z)], by the integral

    mu, sigma_square = (each.detach().expand(draws, 1).clone().requires_grad_() for each in (mean, variance))
    z = sample_diagonal_gaussian(mu, sigma_square)
    log_p = logpdf_bernoulli(X.expand(draws, 2), decode(z))
    by_draw = torch.cat(torch.autograd.grad(log_p.sum(), (mu, sigma_square)), 1)  # [draws,2]
    near(by_draw, true, "gradients by mean and variance: is the deviation sigma^2?")
    near(z, m, "mean of z")
    near((z - m) ** 2, s**2, "variance of z: is the deviation sigma^2?")
    far((z - m) ** 2, s**4, "with sigma^2 eps the variance would be sigma^4")

    def mean_gradient(deviation):
        """The same without sampling: eps is summed over the line."""
        log_p = logpdf_bernoulli(X.expand(241, 2), decode(mean + deviation * LINE))
        return torch.cat(torch.autograd.grad(gaussian(0, 1) @ log_p, (mean, variance)))

    close(mean_gradient(variance.sqrt()), true, "the mean of the gradients is the gradient of the mean")
    assert ((mean_gradient(variance) - true).abs() > 0.03).all(), "with sigma^2 eps it is not"


# ------------------------------------------------------------------------------ generative adversarial networks


def test_amsterdam_2_2_minimax_objective():
    """What is the objective of a GAN, and what do its two terms do?

    Answer: min_G max_D V, V = E_x[log D(x)] + E_z[log(1 - D(G(z)))]. The first term is highest, 0, where D calls data
    real, the second where D calls samples fake. G wants D to take samples for data. See also test_uiuc_hw5_3a.
    Rejected: log D(G(z)) in the second term. Then D would call everything real.
    """
    logits = torch.randn(3)
    loss = discriminator_loss(logits[REAL, None], logits[FAKE, None])
    close(-2 * loss, value(logits.sigmoid(), P_DATA, P_G), "V = -2 discriminator_loss: is a sign or a label wrong?")
    sure, blind = torch.full((4, 1), 20.0), torch.zeros(4, 1)
    close(-2 * discriminator_loss(sure, -sure), 0.0, "D is right about everything: both terms are 0", atol=1e-6)
    close(-2 * discriminator_loss(sure, blind), -LOG2, "the first term is 0, the second log 1/2", atol=1e-6)
    close(-2 * discriminator_loss(blind, -sure), -LOG2, "the first term is log 1/2, the second 0", atol=1e-6)
    assert -2 * discriminator_loss(sure, sure) < -19, "D takes samples for data: V is low, as G wants it"
    d = torch.tensor([[0.5], [0.9], [0.999], [1.0]])
    rejected = (P_DATA * d.log() + P_G * d.log()).sum(1)
    assert (rejected.diff() > 0).all() and rejected[-1] == 0, "with log D(G(z)) the best D is 1 everywhere"


def test_amsterdam_2_3_value_at_the_optimum():
    """What is V(D, G) at the optimum?

    Answer: -log 4, where p_G = p_data and D = 1/2. Neither player gains by leaving it.
    Rejected (student's words): "the minimum value of V(D, G)". It is the minimum over G of the maximum over D; a bad D
    makes V as low as one likes.
    """
    close(-2 * discriminator_loss(torch.zeros(5, 1), torch.zeros(5, 1)), -LOG4, "D = 1/2: log 1/2 + log 1/2")
    d = torch.cartesian_prod(*[torch.linspace(0.05, 0.95, 19)] * 3)  # all D on three kinds of images, in steps of 0.05
    values = value(d, P_DATA, P_DATA)
    close(values.max(), -LOG4, "no D does better against p_G = p_data")
    close(d[values.argmax()], [0.5, 0.5, 0.5], "and the best D is 1/2")
    p_g = simplex(3, 8)
    other = (p_g != P_DATA).any(1)
    assert (best_value(p_g)[other] > -LOG4 + 0.001).all(), "every other p_G has a higher V against its best D"
    assert value(torch.full((3,), 1e-9), P_DATA, P_DATA) < -20, "V itself has no minimum"


def test_amsterdam_2_4_saturation():
    """What goes wrong early in training, when D is sure, and how is it avoided?

    Answer: log(1 - D(G(z))) has hardly a gradient for G. So G maximises log D(G(z)) instead: generator_loss.
    D is the sigmoid of a logit a. d/da log(1 - D) = -D, which is near 0; d/da (-log D) = -(1 - D), which is near -1.
    Both have the same sign, so that G goes the same way.
    Rejected: "there is no gradient because D is near 0", as if by D. The slope by D is -1; the sigmoid is what is flat.
    """
    for logit in (-20.0, -10.0, 0.0, 3.0):  # how sure D is that a sample is generated: very, ..., mistaken
        a = torch.full((1, 1), logit, requires_grad=True)
        d = 1 / (1 + math.exp(-logit))
        v = -2 * discriminator_loss(torch.zeros(1, 1), a)  # log(1 - D(G(z))), and a constant
        (saturating,) = torch.autograd.grad(v, a)
        (ours,) = torch.autograd.grad(generator_loss(a), a)
        close(saturating, [[-d]], "d/da log(1 - D) = -D")
        close(ours, [[-(1 - d)]], "d/da (-log D) = -(1 - D): is generator_loss the saturating one?")
        close(generator_loss(a), -math.log(d), "generator_loss is -log D(G(z)), for G to minimise")
        if logit <= -10:
            assert abs(saturating) < 1e-4 and abs(ours) > 0.99, "where D is sure, only -log D has a gradient"
    d = torch.tensor([1e-6, 0.5], requires_grad=True)
    (slope,) = torch.autograd.grad(torch.log(1 - d).sum(), d)
    close(slope, [-1.0, -2.0], "by D itself log(1 - D) has the slope -1/(1 - D), also where D is near 0", atol=1e-5)
