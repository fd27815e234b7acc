"""The written questions: each test asks one, states the answer in its docstring, and proves it by computing.

Everything is exact: sums over all outcomes, sums over a line of z that are integrals to many digits, and optimisation.
A distribution is a vector of probabilities with sum 1 everywhere, also on the line. Logarithms are natural.
"Rejected" names a tempting answer that is wrong, "published" one that can be found online; the test shows why.
"""

import math
from functools import cache
from itertools import permutations

import pytest
import torch
from torch.nn import functional as F

import hw5_gan
import hw5_vae

LOG2 = math.log(2)
STEP = 0.1
LINE = STEP * torch.arange(-120, 121, dtype=torch.float64)[:, None]  # z, [241,1]; with half the step all below stays true
GAUSSIANS = [(mu, sigma) for mu in (0, 1, 2) for sigma in (0.5, 1, 1.5)]
X = torch.tensor([[1.0, 0.0]], dtype=torch.float64)  # an image of two pixels, explained below by z on the line, or by z in {0,1,2}


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def close(value, expected, message, atol=1e-8):
    torch.testing.assert_close(torch.as_tensor(value), torch.as_tensor(expected), rtol=0, atol=atol, check_dtype=False,
                               msg=lambda difference: f"{message}\n{difference}")


def kl(q, p):
    """KL(q, p) along the last dimension: 0 log 0 = 0, and infinite where q has outcomes that p excludes."""
    return torch.where(q > 0, q * (q / p).log(), 0.0).sum(-1)


def simplex(outcomes, steps):
    """All distributions [M,outcomes] whose probabilities are multiples of 1/steps."""
    counts = torch.cartesian_prod(*[torch.arange(steps + 1)] * outcomes)
    return counts[counts.sum(1) == steps] / steps


def binary(length):
    """All binary vectors [2**length,length], for a length of at least 2."""
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * length)


def parameters(mu, sigma):
    """Mean and variance of a Gaussian on the line as hw5_vae takes them, both [1]."""
    return torch.as_tensor(mu).double().view(1), torch.as_tensor(sigma).double().view(1) ** 2


def gaussian(mu, sigma):
    """The Gaussian's probabilities [241] of the points of the line: by the trapezoid rule, density times step."""
    return STEP * hw5_vae.logpdf_diagonal_gaussian(LINE, *parameters(mu, sigma)).exp()


def minimise(loss, *variables):
    """The least value of loss(), by LBFGS; the variables are left where it is reached."""
    optimizer = torch.optim.LBFGS(variables, max_iter=100, tolerance_grad=1e-10, tolerance_change=1e-13, line_search_fn="strong_wolfe")

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
    prior, log_p_x_z = gaussian(0, 1), hw5_vae.logpdf_bernoulli(X, decode(LINE))
    joint = prior * log_p_x_z.exp()
    return prior, log_p_x_z, joint / joint.sum(), joint.sum().log()


def moments(q):
    """Mean and deviation of a distribution on the line."""
    mean = q @ LINE[:, 0]
    return mean.item(), (q @ (LINE[:, 0] - mean) ** 2).sqrt().item()


@cache
def eq_2(mu, sigma):
    """hw5_vae.elbo of one sample, for every z of the line as that sample, [241]; its mean under q is the bound."""
    return torch.stack([hw5_vae.elbo(z, *(value[None] for value in parameters(mu, sigma)), X, decode(z)) for z in LINE.split(1)])


# ---- a model with z in {0,1,2}


def discrete_model(x):
    """p(z), log p(x|z), p(z|x), all [3], and log p(x), for an image x of two pixels."""
    prior = torch.tensor([0.5, 0.25, 0.25])
    log_p_x_z = hw5_vae.logpdf_bernoulli(x.view(1, 2), torch.tensor([[0.2, 0.5], [0.4, 0.5], [0.8, 0.25]]))
    joint = prior * log_p_x_z.exp()
    return prior, log_p_x_z, joint / joint.sum(), joint.sum().log()


# ------------------------------------------------------------------------------------------- UIUC, question 1


def test_uiuc_1a_bernoulli_likelihood_is_a_product():
    """What is p(x|z) for binary pixels, independent given z? The product of p_i^x_i (1-p_i)^(1-x_i) over the pixels.

    Rejected: the mean over pixels of the binary cross entropy as -log p(x|z). Its probabilities do not sum to 1.
    """
    p, images = torch.tensor([0.1, 0.3, 0.6, 0.8]), binary(4)
    table = torch.ones(1)
    for p_i in p:  # the joint table of independent coins, a pixel more each time
        table = torch.kron(table, torch.stack([1 - p_i, p_i]))
    likelihood = hw5_vae.logpdf_bernoulli(images, p.expand(16, 4)).exp()
    close(likelihood, table, "x log p + (1-x) log(1-p), summed over the pixels: is a sign or a factor wrong?")
    close(likelihood.sum(), 1.0, "the 16 images must have the probability 1 together")

    mean = -F.binary_cross_entropy(p.expand(16, 4), images, reduction="none").mean(1)
    assert mean.exp().sum() > 2, "a mean over the pixels is no log-likelihood"


def test_uiuc_1b_encoder_gives_twice_the_latent_dimension():
    """How many numbers does the encoder give for a latent space of dimension 2? 4: a mean and a variance per dimension.

    None can be spared: changes of the four move log q(z|x), as a function of z, in four independent directions.
    Rejected: 2, "a point z of the latent space". The encoder gives a distribution, not a point.
    """
    mu, sigma_square = hw5_vae.Encoder(2, 500, 784)(torch.rand(1, 784))
    assert (sigma_square > 0).all(), "the second output is a variance"
    z = torch.randn(50, 2)
    moves = torch.autograd.functional.jacobian(lambda *q: hw5_vae.logpdf_diagonal_gaussian(z, *q), (mu[0], sigma_square[0]))
    directions = torch.linalg.matrix_rank(torch.cat(moves, 1)).item()
    assert mu.numel() + sigma_square.numel() == directions == 4, "one mean and one variance per latent dimension"
    assert directions != mu.numel(), "a mean alone does not say how sure the encoder is"


def test_uiuc_1c_the_bound():
    """Which bound is maximised instead of log p(x)? E_q[log p(x|z) + log p(z) - log q(z|x)] <= log p(x), for every q.

    It is tight where q(z|x) = p(z|x): near for the Gaussian with the posterior's mean and deviation, farther for others.
    """
    _, _, posterior, log_p_x = line_model()
    for mu, sigma in GAUSSIANS:
        assert gaussian(mu, sigma) @ eq_2(mu, sigma) < log_p_x - 0.01, "the ELBO exceeds log p(x): is the sign of a term wrong?"

    mu, sigma = moments(posterior)
    assert log_p_x - 0.01 < gaussian(mu, sigma) @ eq_2(mu, sigma) < log_p_x, "a q close to the posterior must nearly reach log p(x)"


def test_uiuc_1d_the_two_parts_of_the_bound():
    """Which two parts has the bound? E_q[log p(x|z)] (reconstruction) minus KL(q(z|x), p(z)) (stay near the prior).

    Reconstruction alone would shrink q onto the best z, the KL alone would make it the prior; the bound is a compromise.
    Rejected: reconstruction plus KL, as in "loss + KL" with the loss's sign forgotten. It exceeds log p(x).
    """
    prior, log_p_x_z, _, log_p_x = line_model()
    q = torch.stack([gaussian(*pair) for pair in GAUSSIANS])
    reconstruction, divergence = q @ log_p_x_z, kl(q, prior)
    bound = torch.stack([q_z @ eq_2(*pair) for q_z, pair in zip(q, GAUSSIANS)])
    close(bound, reconstruction - divergence, "ELBO = reconstruction - KL: is it + KL?")

    best = [GAUSSIANS[part.argmax()] for part in (reconstruction, -divergence, bound)]
    assert best == [(2, 0.5), (0, 1), (1, 1)], "the best q for the reconstruction, for the KL, and for both"
    assert (reconstruction + divergence).max() > log_p_x, "with + KL it is no lower bound"


def test_uiuc_1e_kl_is_not_negative_and_not_symmetric():
    """Which properties has KL(q, p)? It is >= 0, it is 0 only for q = p, and KL(q, p) differs from KL(p, q).

    Rejected: "KL is a distance, so the order does not matter". For (0.9, 0.1) and (0.5, 0.5) it is 0.368 and 0.511.
    """
    everything = simplex(3, 10)  # 66 distributions, of which 30 exclude some outcome
    table = kl(everything[:, None], everything)  # [66,66]
    equal = torch.eye(len(everything), dtype=bool)
    assert (table[equal] == 0).all() and (table[~equal] > 0.001).all(), "KL >= 0, and 0 on the diagonal only"

    q, p = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5])
    close(torch.stack([kl(q, p), kl(p, q)]), [0.368064, 0.510826], "KL(q, p) is the mean of log q - log p under q", atol=1e-6)

    prior = gaussian(0, 1)
    for mu, sigma in GAUSSIANS:
        estimate, q = hw5_vae.kl_estimate(LINE, *parameters(mu, sigma)), gaussian(mu, sigma)
        forward, reverse = q @ estimate, prior @ -estimate
        close(forward, kl(q, prior), "kl_estimate is log q - log p: is it the other way round?")
        if (mu, sigma) == (0, 1):
            close(forward, 0.0, "q is the prior")
        else:
            assert forward > 0.01 and reverse > 0.01, "log q - log p has a positive mean under q, a negative one under p"
            assert sigma == 1 or abs(forward - reverse) > 0.01, "KL(q, p) and KL(p, q) differ unless only the mean does"


def test_uiuc_1f_two_estimates_of_one_bound():
    """How do Eq. 1 (KL in closed form) and Eq. 2 (all of it sampled) differ? Same mean, different variance.

    Rejected: "Eq. 1 varies less, because it samples less". Near the posterior, Eq. 2 is nearly log p(x) whatever z is drawn.
    """
    prior, log_p_x_z, posterior, _ = line_model()
    variances = []
    for mu, sigma in (moments(posterior), (2, 0.5)):
        q = gaussian(mu, sigma)
        values = torch.stack([log_p_x_z - kl(q, prior), eq_2(mu, sigma)])  # Eq. 1, Eq. 2 as functions of z, [2,241]
        bound = values @ q
        close(bound[0], bound[1], "both estimate the same bound")
        variances.append(((values - bound[:, None]) ** 2 @ q).tolist())
    assert variances[0][1] < 0.1 * variances[0][0], "near the posterior, Eq. 2 hardly varies"
    assert variances[1][1] > 10 * variances[1][0], "far from it, log p(z) - log q(z|x) varies and Eq. 1 is spared that"


def test_uiuc_1g_with_the_prior_as_q_nothing_is_learned():
    """What if q(z|x) = N(0, I) for every x? The KL is 0, but z tells nothing of x and the best decoder ignores it.

    Two images of 8 equal pixels, black and white: the decoder can only say 1/2, 8 log 2 nats. A q that depends on x
    pays a KL and still does better. Rejected: "KL = 0 is the aim of training".
    """

    def train(mus, sigma):
        """The best ELBO of a decoder for q(z|black), q(z|white), and how far its pixels are from 1/2 on average."""
        decoder = hw5_vae.Decoder(1, 8, 8)
        images, q = torch.tensor([[0.0], [1.0]]).expand(2, 8), torch.stack([gaussian(mu, sigma) for mu in mus])
        cost = torch.stack([hw5_vae.kl_estimate(LINE, *parameters(mu, sigma)) for mu in mus])

        def loss():
            logits = decoder.logits(LINE)
            log_p_x_z = torch.stack([hw5_vae.logpdf_bernoulli_logits(x.expand(241, 8), logits) for x in images])
            return -(q * (log_p_x_z - cost)).sum() / 2

        value = minimise(loss, *decoder.parameters())
        return -value, (q.mean(0) @ (decoder(LINE) - 0.5).abs()).mean().item()

    collapsed, contrast = train((0, 0), 1)
    close(collapsed, -8 * LOG2, "with KL = 0 the bound is the best that constant pixels reach", atol=1e-6)
    assert contrast < 1e-3, "the decoder must have learned to ignore z"
    informed, contrast = train((-2, 2), 0.5)
    assert collapsed + 3 < informed < -LOG2 and contrast > 0.49, "a q that depends on x pays; log p(x) of two images is at most -log 2"


def test_uiuc_1h_kl_of_a_distribution_to_itself():
    """What is KL(q, q)? 0, and where q may be chosen freely, making KL(q, p) least gives q = p.

    Rejected (published): log(s_p/s_q) + (s_q^2 + (m_q-m_p)^2) / (2 s_p^2) as the KL of Gaussians. It is 1/2 for q = p.
    """
    mu, log_sigma = torch.tensor([1.5]).requires_grad_(), torch.tensor([-0.5]).requires_grad_()
    least = minimise(lambda: gaussian(mu, log_sigma.exp()) @ hw5_vae.kl_estimate(LINE, *parameters(mu, log_sigma.exp())), mu, log_sigma)
    close(least, 0.0, "KL(q, q) = 0")
    close(torch.cat([mu, log_sigma.exp()]), [0.0, 1.0], "the q nearest to N(0, 1) is N(0, 1)", atol=1e-5)

    def incomplete(m_q, s_q, m_p, s_p):
        return math.log(s_p / s_q) + (s_q**2 + (m_q - m_p) ** 2) / (2 * s_p**2)

    for q in GAUSSIANS:
        assert kl(gaussian(*q), gaussian(*q)) == 0 and incomplete(*q, *q) == 0.5, "a KL that is not 0 for q = p is none"
        for p in GAUSSIANS:
            close(kl(gaussian(*q), gaussian(*p)), incomplete(*q, *p) - 0.5, "the KL of two Gaussians")


def test_uiuc_1i_kl_of_gaussians_of_equal_width():
    """What is KL(N(m_q, s^2), N(m_p, s^2))? (m_q - m_p)^2 / (2 s^2).

    Rejected: ((z-m_p)^2 - (z-m_q)^2) / (2 s^2), which is log q(z)/p(z) before its mean under q is taken: it depends on z,
    and is negative for some.
    """
    for m_q, m_p, s in ((1, 0, 1), (-1, 2, 1), (2, 1.5, 0.5), (0, 3, 1.5)):
        q, p = gaussian(m_q, s), gaussian(m_p, s)
        close(kl(q, p), (m_q - m_p) ** 2 / (2 * s**2), "squared distance of the means over twice the variance")

        not_integrated = ((LINE[:, 0] - m_p) ** 2 - (LINE[:, 0] - m_q) ** 2) / (2 * s**2)
        assert not_integrated.min() < 0 < not_integrated.max(), "this is a function of z; a KL is one number"
        close(q @ not_integrated, kl(q, p), "only its mean under q is the KL")
    for mu in (-1, 0.5, 2):
        close(gaussian(mu, 1) @ hw5_vae.kl_estimate(LINE, *parameters(mu, 1)), mu**2 / 2, "kl_estimate has this mean for s = 1")


def test_uiuc_1j_the_best_q_is_the_posterior():
    """Which q makes the bound stationary, among all distributions of z? The posterior p(z|x), where it is log p(x).

    Rejected: q proportional to p(x|z). That leaves out the prior.
    """
    prior, log_p_x_z, posterior, log_p_x = discrete_model(X)
    q = simplex(3, 20)
    bounds = q @ log_p_x_z - kl(q, prior)
    close(q[bounds.argmax()], posterior, "of 231 distributions the posterior (0.2, 0.2, 0.6) has the best bound")
    close(bounds.max(), log_p_x, "at the posterior the bound is log p(x)")

    logits = torch.randn(3, requires_grad=True)
    minimise(lambda: kl(logits.softmax(0), prior) - logits.softmax(0) @ log_p_x_z, logits)
    close(logits.softmax(0), posterior, "gradients lead to the same q", atol=1e-6)

    likelihood = log_p_x_z.softmax(0)  # p(x|z), made to sum to 1
    assert likelihood @ log_p_x_z - kl(likelihood, prior) < log_p_x - 0.02, "without the prior q is not optimal"


# ------------------------------------------------------------------------------------------- UIUC, question 3


REAL = torch.tensor([0, 1, 1, 1, 2, 2, 2, 2])  # a batch of three kinds of images, each as often as it is likely
FAKE = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
P_DATA, P_G = REAL.bincount().double() / 8, FAKE.bincount().double() / 8


def value(d, p_data, p_g):
    """V = E_data[log D] + E_G[log(1 - D)] along the last dimension, D and both distributions given per outcome."""
    return (torch.xlogy(p_data, d) + torch.xlogy(p_g, 1 - d)).sum(-1)


def test_uiuc_3a_the_cost_function():
    """What do the players of a GAN optimise? min_G max_D V with V = E_x[log D(x)] + E_z[log(1 - D(G(z)))].

    discriminator_loss is -V/2. generator_loss, E[-log D(G(z))], also falls as D(G(z)) rises, but keeps its gradient.
    Rejected (published): E_z[1 - log D(G(z))] as the second term. D would make that as large as it likes; V is at most 0.
    """
    logits = torch.randn(3)
    loss = hw5_gan.discriminator_loss(logits[REAL, None], logits[FAKE, None])
    close(-2 * loss, value(logits.sigmoid(), P_DATA, P_G), "discriminator_loss is -V/2: is a sign wrong, or a label swapped?")

    for logit in (-10.0, 0.0, 3.0):  # how sure D is that a generated image is generated: very, not at all, mistaken
        fake_logit = torch.full((1, 1), logit, requires_grad=True)
        saturating, = torch.autograd.grad(-2 * hw5_gan.discriminator_loss(torch.zeros(1, 1), fake_logit), fake_logit)
        ours, = torch.autograd.grad(hw5_gan.generator_loss(fake_logit), fake_logit)
        assert saturating < 0 and ours < 0, "G lowers V, and its own loss, by raising D(G(z))"
        if logit == -10:
            assert abs(saturating) < 1e-4 and abs(ours) > 0.99, "where D is sure, V has hardly a gradient for G"

    d = torch.tensor([1e-3, 1e-6, 1e-9])  # D(G(z)), with D(x) = 1/2
    assert (math.log(0.5) + (1 - d).log() <= 0).all(), "V is a sum of logarithms of probabilities"
    misplaced = math.log(0.5) + 1 - d.log()
    assert (misplaced.diff() > 6).all() and misplaced[-1] > 20, "1 - log D has no maximum over D"


def test_uiuc_3b_the_same_cost_over_images():
    """How is it written with p_G, the distribution of G(z)? V = E_data[log D(x)] + E_(x ~ p_G)[log(1 - D(x))].

    A die as z, and a G that makes three images of its six faces: the mean over z is the mean over images.
    """
    images = torch.tensor([0, 2, 2, 1, 2, 0])  # G(z)
    p_g = images.bincount() / 6
    logits = torch.randn(3)
    over_z = -2 * hw5_gan.discriminator_loss(logits[REAL, None], logits[images, None])
    close(over_z, value(logits.sigmoid(), P_DATA, p_g), "E_z f(G(z)) = sum over x of p_G(x) f(x)")
    close(p_g, [2 / 6, 1 / 6, 3 / 6], "p_G(x) is the probability of all z that G maps to x")


def test_uiuc_3c_the_optimal_discriminator():
    """Which D is best for a fixed G? D*(x) = p_data(x) / (p_data(x) + p_G(x)).

    Rejected: D* = 1/2. That is D* for p_G = p_data only, the end of the training and not each step's optimum.
    """
    logits = torch.zeros(3, requires_grad=True)
    least = minimise(lambda: hw5_gan.discriminator_loss(logits[REAL, None], logits[FAKE, None]), logits)
    close(logits.sigmoid(), P_DATA / (P_DATA + P_G), "D is the probability that x is real: is it that of fake?", atol=1e-6)
    assert least < LOG2 - 0.01, "D = 1/2 has the loss log 2, the best D has less"


def test_uiuc_3d_the_optimal_generator():
    """Which G is best against the best D? max_D V = -log 4 + 2 JSD(p_data, p_G), which is least, -log 4, for p_G = p_data only.

    Rejected: -log 4 + JSD. JSD is half a sum of two KL, V contains both whole.
    """
    p_g = simplex(3, 8)
    d = torch.linspace(0, 1, 4001)[:, None, None]
    best = (torch.xlogy(P_DATA, d) + torch.xlogy(p_g, 1 - d)).max(0).values.sum(-1)  # max_D V by trying, for every p_G
    middle = (P_DATA + p_g) / 2
    jsd = (kl(P_DATA, middle) + kl(p_g, middle)) / 2
    close(best, -math.log(4) + 2 * jsd, "V(D*) = -log 4 + 2 JSD: is the factor 2 missing?", atol=1e-6)
    close(p_g[best.argmin()], P_DATA, "the best generator imitates the data")
    close(best.min(), -2 * hw5_gan.discriminator_loss(torch.zeros(1, 1), torch.zeros(1, 1)), "there D = 1/2, and V = -log 4", atol=1e-6)
    assert best.sort().values[1] > -math.log(4) + 0.001, "no other p_G reaches -log 4"
    assert (best - (-math.log(4) + jsd)).max() > 0.1, "-log 4 + JSD falls short"


def test_uiuc_3e_kl_and_wasserstein_distances_of_uniforms():
    """P1 = U[0,1], P2 = U[0.5,1.5], P3 = U[1,2]: KL(P1, P2) = KL(P1, P3) = infinity, W1(P1, P2) = 0.5, W1(P1, P3) = 1.

    Rejected: KL(P1, P2) = 0, from integrating where both are positive. P1 has mass where P2 has none, and log(1/0) counts.
    """
    starts = torch.arange(8) / 4  # cells of width 1/4 on [0,2], on which all three densities are constant
    p1, p2, p3 = (((starts >= low) & (starts < low + 1)) / 4.0 for low in (0, 0.5, 1))
    for p, outside in ((p2, 0.5), (p3, 1.0)):
        assert kl(p1, p).item() == math.inf, "p excludes what q does not"
        leaks = [kl(p1, (1 - leak) * p + leak / 8) for leak in (1e-6, 1e-9, 1e-12)]  # p with a little mass everywhere
        close(torch.stack(leaks).diff(), [outside * math.log(1000)] * 2, "the KL grows without end as the leak closes", atol=1e-4)
    overlap = (p1 > 0) & (p2 > 0)
    assert kl(p1[overlap], p2[overlap]) == 0 and not torch.equal(p1, p2), "a KL of 0 would say that P1 is P2"

    points = (torch.arange(6) + 0.5) / 6
    plans = torch.tensor(list(permutations(range(6))))
    for p, shift in ((p2, 0.5), (p3, 1.0)):
        work = (points - (points + shift)[plans]).abs().mean(1)  # of all 720 ways to move six grains of P1 to the other
        close(work.min(), shift, "W1 is the least mean distance that mass must move")
        close((p1.cumsum(0) - p.cumsum(0)).abs().sum() / 4, shift, "W1 is the area between the distribution functions")


# ------------------------------------------------------------------------------------------------- Amsterdam


def test_amsterdam_1_5_kl_to_the_standard_normal():
    """What is KL(N(m, s^2), N(0, 1))? log(1/s) + (s^2 + m^2 - 1) / 2.

    Rejected (published): the same with -m^2, from E[z^2] = s^2 - m^2. It is negative for m = 2.
    """
    for m, s in GAUSSIANS:
        answer = math.log(1 / s) + (s**2 + m**2 - 1) / 2
        close(gaussian(m, s) @ hw5_vae.kl_estimate(LINE, *parameters(m, s)), answer, "mean of log q - log p under q: a sign, or s for s^2?")
        close(gaussian(m, s) @ LINE[:, 0] ** 2, s**2 + m**2, "E[z^2] is variance plus squared mean")
    assert math.log(1 / 1) + (1**2 - 2**2 - 1) / 2 < 0 < kl(gaussian(2, 1), gaussian(0, 1)), "no KL is negative"


def test_amsterdam_1_6_log_likelihood_minus_kl_is_the_bound():
    """How far is the bound from log p(x)? log p(x) - KL(q(z|x), p(z|x)) = E_q[log p(x|z)] - KL(q(z|x), p(z)).

    Rejected: the gap as KL(p(z|x), q(z|x)), in the other order.
    """
    q = simplex(3, 20)
    log_evidence = []
    for x in binary(2):
        prior, log_p_x_z, posterior, log_p_x = discrete_model(x)
        close(log_p_x - kl(q, posterior), q @ log_p_x_z - kl(q, prior), "for every image and each of 231 q")
        log_evidence.append(log_p_x)
    close(torch.stack(log_evidence).exp().sum(), 1.0, "p(x) of all four images: is the sign of the log-likelihood wrong?")

    _, _, posterior, log_p_x = line_model()
    for mu, sigma in GAUSSIANS:
        q_z = gaussian(mu, sigma)
        gap = log_p_x - q_z @ eq_2(mu, sigma)
        close(gap, kl(q_z, posterior), "the bound's gap is KL(q(z|x), p(z|x))")
        assert abs(gap - kl(posterior, q_z)) > 0.001, "the other order is another number"


# ------------------------------------------------------------------------------------------------------ Penn


def entropy(q):
    return -torch.xlogy(q, q).sum(-1)


def not_all_ones(n):
    """All binary w [2**n,n], and p(w) proportional to 1 - prod w_i: equal for all but w = (1, ..., 1), which it excludes."""
    w = binary(n)
    weight = 1 - w.prod(1)
    return w, weight / weight.sum()


def test_penn_1a_free_energy():
    """p(w) = exp(-b Phi(w)) / Z and F(q) = E_q[Phi] - H(q) / b. Then KL(q, p) = b (F(q) - F(p)), and F(p) = -log(Z) / b.

    So p itself has the least free energy. Rejected: F = E[Phi] + H / b. Heat favours disorder.
    """
    phi, b, q = torch.tensor([0.3, 1.0, -0.5, 2.0]), 0.7, simplex(4, 10)
    z = (-b * phi).exp().sum()
    p = (-b * phi).exp() / z
    energy = q @ phi - entropy(q) / b
    close(kl(q, p), b * (energy + z.log() / b), "KL(q, p) = b (F(q) - F(p)), for each of 286 q")

    logits = torch.zeros(4, requires_grad=True)
    least = minimise(lambda: logits.softmax(0) @ phi - entropy(logits.softmax(0)) / b, logits)
    close(least, -z.log() / b, "the least free energy is -log(Z) / b")
    close(logits.softmax(0), p, "and p has it", atol=1e-6)
    assert q[(q @ phi + entropy(q) / b).argmin()].max() == 1, "with + H all mass on one w would be best, at any b"


def test_penn_1b_mean_energy_is_a_derivative_of_log_z():
    """What is E_p[Phi]? -d log Z / d b, for the same p. Rejected: dF/db, with F = -log(Z) / b. That is H(p) / b^2."""
    phi = torch.randn(16)
    for b in (0.2, 1.0, 3.0):
        b = torch.tensor(b, requires_grad=True)
        log_z = (-b * phi).exp().sum().log()
        p = ((-b * phi).exp() / (-b * phi).exp().sum()).detach()
        derivative, = torch.autograd.grad(log_z, b, retain_graph=True)
        close(p @ phi, -derivative, "E[Phi] = -d log Z / d b: is the sign wrong?")
        slope, = torch.autograd.grad(-log_z / b, b)
        close(slope, entropy(p) / b.item() ** 2, "dF/db is the entropy over b^2")
        assert abs(slope - p @ phi) > 0.1, "and not the mean energy"


@pytest.mark.parametrize("n", [2, 3, 4])
def test_penn_1c_mean_field_with_identical_factors(n):
    """p(w) proportional to 1 - prod w_i, q(w) = prod t^w_i (1-t)^(1-w_i): t = 0, all mass on w = 0, KL = log(2^N - 1).

    Any t > 0 gives w = (1, ..., 1), which p excludes. Rejected: the t whose factors are the marginals of p. Its KL(q, p) is
    infinite: it is what makes KL(p, q) least.
    """
    w, p = not_all_ones(n)
    ts = torch.linspace(0, 1, 1001)
    q = hw5_vae.logpdf_bernoulli(w, ts[:, None, None].expand(1001, 1, n)).exp()  # [1001,2**n]
    forward = kl(q, p)
    assert ts[forward.isfinite()].tolist() == [0.0], "t > 0 has q(1, ..., 1) > 0"
    close(forward.min(), math.log(2**n - 1), "one w of 2^N - 1 equally likely ones")

    marginal = (p @ w)[0]
    close(ts[kl(p, q).argmin()], marginal, "the marginals are the best t for KL(p, q)", atol=1e-3)
    assert kl(hw5_vae.logpdf_bernoulli(w, marginal.expand(n)).exp(), p).item() == math.inf, "but impossible for KL(q, p)"


@pytest.mark.parametrize("n", [2, 3, 4])
def test_penn_1d_mean_field_with_free_factors(n):
    """The same with a t_i for each factor: one t_i = 0, the others 1/2, in N ways; KL = log((2^N - 1) / 2^(N-1)).

    One w_i that is always 0 suffices to avoid (1, ..., 1); the others are then best left to chance.
    """
    w, p = not_all_ones(n)
    ts = torch.cartesian_prod(*[torch.linspace(0, 1, 11)] * n)
    divergence = kl(hw5_vae.logpdf_bernoulli(w, ts[:, None]).exp(), p)
    least = divergence.min()
    close(least, math.log((2**n - 1) / 2 ** (n - 1)), "q spreads over half of the 2^N vectors")
    best = ts[divergence < least + 1e-9].sort(1).values
    close(best, torch.tensor([0.0] + [0.5] * (n - 1)).expand(n, n), "one t_i is 0, the others 1/2, in N ways")
    assert least < math.log(2**n - 1) - 0.6, "free factors come closer than identical ones"
