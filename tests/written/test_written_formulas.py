"""The formulas that the answers print, read from the Markdown and computed: a wrong sign or factor there fails here."""

import math
import re

import pytest
import torch
from torch.nn import functional as F

from hw5_vae import logpdf_bernoulli, sample_diagonal_gaussian
from latex import holds, pieces
from proofs import Z, decode, entropy, full, gaussian, kl, kl_divergence, line_model, parameters, random_model
from proofs import LINE, X, value
from test_written_answers import QUESTIONS, answers
from test_written_penn import boltzmann, mean_field, not_all_ones

LITERAL = {  # what defines or names something, and so is neither true nor false
    r"\min_\theta \max_\omega V(D_\omega, G_\theta)",
    r"\min_G \max_D V(D, G)",
    r"x_1 = F_1^{-1}(\Phi(z_1))",
    r"x_i = F_i^{-1}(\Phi(z_i) | x_1, \dots, x_{i-1})",
    r"i = 2, \dots, d",
    r"\epsilon \sim \mathcal N(0, 1)",
    r"q^\ast(w) = 1 \text{ for } w = (0, \dots, 0), \text{ else } 0",
}


class Meaning:
    """What the names of an answer stand for; `also`: formulas in a line that are checked; `bare`: the value of what has no `=`."""

    def __init__(self, names, axes=None, weights=None, also=(), bare=None, atol=1e-8):
        self.names, self.axes, self.weights, self.also = names, axes or {}, weights or {}, also
        self.bare, self.atol = bare, atol


def bernoulli():
    x, y = (torch.rand(6) < 0.5).double(), torch.rand(6)
    names = {r"p_\theta(x|z)": logpdf_bernoulli(x[None], y[None]).exp(), r"\hat y_j": y, "x_j": x, "G": 6}
    return Meaning(names, {"j": (-1, 6)}, also=[r"\prod_j (\hat y_j + 1 - \hat y_j) = 1"])


def bound(q="q_\\phi(z|x)", also=(), at_the_answer=False):
    """A random model with five z: any q, or the one of 1(i), with its multiplier."""
    prior, log_p_x_z, posterior, log_p_x = random_model(5)
    q_z = posterior if at_the_answer else full(1, 5)[0]
    multiplier = 1 - log_p_x
    names = {q: q_z, "p(z)": prior, r"p_\theta(z|x)": posterior, r"p_\theta(x)": log_p_x.exp()}
    for z in ("z", "z'", r"\hat z"):
        names |= {rf"p_\theta(x|{z})": log_p_x_z.exp(), f"p({z})": prior}
    names |= {r"p_\theta(x,z)": prior * log_p_x_z.exp(), r"\lambda": multiplier, "e": math.e}
    of_q = q_z.clone().requires_grad_()
    lagrangian = of_q @ log_p_x_z - (of_q * (of_q / prior).log()).sum() + multiplier * (of_q.sum() - 1)
    names[r"\frac{\partial L}{\partial q_\phi(z|x)}"] = torch.autograd.grad(lagrangian, of_q)[0]
    axes = {z: (-1, 5) for z in ("z", "z'", r"\hat z")}
    return Meaning(names, axes, {q: (q_z, -1)}, also)


def lagrangian(q):
    """Any positive numbers as q, for the constraint is a term of its own, and any multiplier."""
    meaning = bound(q)
    prior, log_p_x_z = meaning.names["p(z)"], meaning.names[r"p_\theta(x|z)"].log()
    numbers, multiplier = 0.1 + torch.rand(5), torch.randn(())
    meaning.bare = numbers @ log_p_x_z - kl(numbers, prior) + multiplier * (numbers.sum() - 1)
    meaning.names |= {q: numbers, r"\lambda": multiplier, "L": meaning.bare}
    return meaning


def optimum(q, also):
    return lambda: bound(q, also, at_the_answer=True)


NOT_NEGATIVE = r"-\mathrm{KL}(q, p) = \sum_z q(z) \log \frac{p(z)}{q(z)} \le \log \sum_z p(z) \le 0"


def two_distributions(also=()):
    """q(z) and p(z) are those of the three z that q allows; p allows two more."""
    q, p = torch.cat([full(1, 3)[0], torch.zeros(2)]), full(1, 5)[0]
    return Meaning({"q(z)": q[:3], "p(z)": p[:3], "q": q, "p": p}, {"z": (-1, 3)}, also=also)


def estimates():
    prior, log_p_x_z, posterior, log_p_x = random_model(5)
    q = full(1, 5)[0]
    k = q.log() - prior.log()

    def covariance(a, b):
        return q @ ((a - q @ a) * (b - q @ b))

    names = {r"\log p_\theta(x|z)": log_p_x_z, "p(z)": prior, r"p_\theta(z|x)": posterior}
    names |= {r"p_\theta(x)": log_p_x.exp(), r"\mathrm{Var} [k(z)]": covariance(k, k)}
    names |= {r"\mathrm{Var} [\log p_\theta(x|z)]": covariance(log_p_x_z, log_p_x_z)}
    names |= {r"\mathrm{Cov} [\log p_\theta(x|z), k(z)]": covariance(log_p_x_z, k)}
    names |= {"V_1": covariance(log_p_x_z, log_p_x_z), "V_2": covariance(log_p_x_z - k, log_p_x_z - k)}
    return Meaning(names, {"z": (-1, 5)})


def prior_as_q():
    prior, images = gaussian(0, 1), (torch.rand(7, 1, 4) < 0.5).double()  # [n,z,j]
    pixels = torch.sigmoid(torch.tanh(LINE @ torch.randn(1, 8)) @ torch.randn(8, 4))[None]  # [1,241,4]
    names = {r"x_j^{(n)}": images, r"\bar x_j": images.mean(0, keepdim=True), r"\hat y_j(z)": pixels, "N": 7}
    bare = prior @ torch.stack([logpdf_bernoulli(x.expand(241, 4), pixels[0]) for x in images]).mean(0)
    return Meaning(
        names, {"j": (-1, 4), "n": (-3, 7)}, {r"z \sim \mathcal N(0, I)": (prior[None, :, None], -2)}, bare=bare
    )


def equal_widths(q=r"q_\phi(z|x)", mean=r"\mu_\phi"):
    (mu, mu_p), sigma = 2 * torch.rand(2) - 1, 0.6 + torch.rand(())
    names = {q: gaussian(mu, sigma), "p(z)": gaussian(mu_p, sigma), mean: mu, r"\mu_p": mu_p, r"\sigma": sigma, "z": Z}
    return Meaning(names, {"z": (-1, 241)}, {r"q_\phi": (names[q], -1)})


def widths_in_a_line():
    meaning = equal_widths()
    meaning.also = [
        r"\mathbb E_{q_\phi} [(z - \mu_\phi)^2] = \sigma^2",
        r"\mathbb E_{q_\phi} [(z - \mu_p)^2] = \sigma^2 + (\mu_\phi - \mu_p)^2",
        r"z - \mu_p = (z - \mu_\phi) + (\mu_\phi - \mu_p)",
    ]
    return meaning


def game():
    """D sees five kinds of images; G maps eight z to them."""
    p_data, d, g = full(1, 5)[0], torch.rand(5), torch.randint(5, (8,))
    p_g = F.one_hot(g, 5).double().mean(0)
    v = value(d, p_data, p_g)
    names = {"V(D, G)": v, "V": v, r"p_{\text{data}}(x)": p_data, "p_G(x)": p_g, "D(x)": d, "D(X)": d}
    names |= {r"D_\omega(x)": d, r"D_\omega(G_\theta(z))": d[g], "D(G(Z))": d[g]}
    even = torch.full((8,), 1 / 8)
    weights = {r"x \sim p_{\text{data}}": (p_data, -1), r"p_{\text{data}}(x)": (p_data, -1)}
    weights |= {r"z \sim p(z)": (even, -1), "p_z(z)": (even, -1)}
    return Meaning(names, {"x": (-1, 5)}, weights, bare=v)


def one_pixel_of_the_game():
    a, b = torch.rand(2)
    d = torch.rand(()).requires_grad_()
    f = a * d.log() + b * (1 - d).log()
    (first,) = torch.autograd.grad(f, d, create_graph=True)
    (second,) = torch.autograd.grad(first, d)
    names = {"a": a, "b": b, "D": d.detach(), "f(D)": f.detach(), "f'(D)": first.detach(), "f''(D)": second}
    names |= {r"D^\ast(x)": a / (a + b), r"p_{\text{data}}(x)": a, "p_G(x)": b}
    return Meaning(names)


def optimal_discriminator():
    p_data, p_g = full(2, 5)
    d, middle = p_data / (p_data + p_g), (p_data + p_g) / 2
    v = value(d, p_data, p_g)
    names = {r"V(D^\ast, p_G)": v, r"V(D^\ast, G)": v, "M(x)": middle, "M": middle, r"D^\ast(x)": d}
    names |= {r"p_{\text{data}}(x)": p_data, r"p_{\text{data}}": p_data, "p_G(x)": p_g, "p_G": p_g}
    names[r"\mathrm{JSD}(p_{\text{data}}, p_G)"] = (kl(p_data, middle) + kl(p_g, middle)) / 2
    return Meaning(names, {"x": (-1, 5)})


def uniforms():
    edges = torch.arange(200) / 100  # cells on [0,2]
    p = [((edges >= low) & (edges < low + 1)) / 100.0 for low in (0, 0.5, 1)]
    names = {rf"\mathbb P_{k + 1}": each for k, each in enumerate(p)}
    for k in (1, 2):  # the area between the distribution functions
        names[rf"\mathbb W_1(\mathbb P_1, \mathbb P_{k + 1})"] = (p[0].cumsum(0) - p[k].cumsum(0)).abs().sum() / 100
    return Meaning(names)


def any_distribution():
    """A random F on four points, and the share of z with F^-1(Phi(z)) <= x, counted over a million even u = Phi(z)."""
    f, u = full(1, 4)[0].cumsum(0), (torch.arange(1_000_000) + 0.5) / 1_000_000
    names = {"F(x)": f[1], r"P(\Phi(z) \le F(x))": (u <= f[1]).double().mean()}
    names[r"P(F^{-1}(\Phi(z)) \le x)"] = (torch.searchsorted(f, u) <= 1).double().mean()
    return Meaning(names, atol=2e-6)


def draws():
    prior, log_p_x_z, posterior, log_p_x = random_model(4)
    drawn = torch.multinomial(prior, 100_000, replacement=True)
    names = {r"p(\mathbf x_n)": log_p_x.exp(), r"p(\mathbf x_n | \mathbf z)": log_p_x_z.exp(), "K": 100_000}
    names |= {r"p(\mathbf x_n | \mathbf z^{(k)})": log_p_x_z.exp()[drawn]}
    return Meaning(names, {"k": (-1, 100_000)}, {r"p(\mathbf z)": (prior, -1)})


def variance_of_a_draw():
    prior, log_p_x_z, posterior, log_p_x = random_model(4)
    weight = (log_p_x_z - log_p_x).exp()
    names = {r"p(\mathbf z | \mathbf x_n)": posterior, r"p(\mathbf z)": prior}
    names[r"\mathrm{Var} [ \frac{p(\mathbf x_n | \mathbf z)}{p(\mathbf x_n)} ]"] = prior @ (weight - 1) ** 2
    g = torch.rand(4)  # of one latent, of which there are three
    product = torch.cartesian_prod(g, g, g).prod(1)
    weights = torch.cartesian_prod(prior, prior, prior).prod(1)
    mean = weights @ product
    names |= {r"\mathrm{Var}": weights @ (product / mean - 1) ** 2, "D": 3, "g(z)": g}
    names["r"] = (prior @ g**2) / (prior @ g) ** 2
    return Meaning(names, {"z": (-1, 4)}, {"": (prior, -1)})


def two_gaussians(standard):
    (mu, mu_p), (sigma, sigma_p) = 2 * torch.rand(2) - 1, 0.6 + torch.rand(2)
    if standard:
        mu_p, sigma_p = torch.tensor(0.0), torch.tensor(1.0)
    q, p = gaussian(mu, sigma), gaussian(mu_p, sigma_p)
    names = {"q(z)": q, "p(z)": p, "q": q, "p": p, "z": Z, r"\mu_q": mu, r"\mu_p": mu_p}
    names |= {r"\sigma_q": sigma, r"\sigma_p": sigma_p}
    also = [
        r"\mathbb E_q [(z - \mu_q)^2] = \sigma_q^2",
        r"\mathbb E_q [(z - \mu_p)^2] = \sigma_q^2 + (\mu_q - \mu_p)^2",
    ]
    return Meaning(names, {}, {"q": (q, -1)}, also)


def lower_bound():
    prior, log_p_x_z, posterior, log_p_x = random_model(5)
    q = full(1, 5)[0]
    names = {r"q(Z | \mathbf x_n)": q, r"p(Z | \mathbf x_n)": posterior, "p(Z)": prior}
    names |= {r"p(\mathbf x_n | Z)": log_p_x_z.exp(), r"p(\mathbf x_n)": log_p_x.exp()}
    also = [r"\log p(Z | \mathbf x_n) = \log p(\mathbf x_n | Z) + \log p(Z) - \log p(\mathbf x_n)"]
    return Meaning(names, {}, {r"q(z | \mathbf x_n)": (q, -1)}, also)


def two_losses():
    prior, log_p_x_z, _, _ = line_model()
    m, s = 2 * torch.rand(()) - 1, 0.6 + torch.rand(())
    q = gaussian(m, s)
    names = {r"q_\phi(Z | \mathbf x_n)": q, "p(Z)": prior, r"p_\theta(\mathbf x_n | Z)": log_p_x_z.exp()}
    names |= {
        r"\mathcal L_n^{\text{recon}}": -(q @ log_p_x_z),
        r"\mathcal L_n^{\text{reg}}": kl_divergence(*parameters(m, s)),
    }
    return Meaning(names, {}, {r"q_\phi(\mathbf z | \mathbf x_n)": (q, -1)})


def data_set():
    """Axes n, l, then pixels m or latents j: three images, four draws, two pixels, one latent."""
    x, z = (torch.rand(3, 1, 2) < 0.5).double(), torch.randn(3, 4, 1)
    mu, variance = torch.randn(3, 1, 5), 0.5 + torch.rand(3, 1, 5)
    pixels = decode(z.view(-1, 1)).view(3, 4, 2)
    log_p = logpdf_bernoulli(x.expand(3, 4, 2).reshape(12, 2), pixels.view(12, 2)).view(3, 4, 1)
    names = {r"x_n^{(m)}": x, r"f_\theta(\mathbf z_n^l)^{(m)}": pixels, "N": 3, "L": 4}
    names |= {r"p_\theta(\mathbf x_n | \mathbf z_n^l)": log_p.exp(), r"\mu_{nj}": mu, r"\sigma_{nj}": variance.sqrt()}
    names[r"\mathcal L"] = (-log_p.mean(1) + kl_divergence(mu, variance)).mean()
    return Meaning(names, {"n": (-3, 3), "l": (-2, 4), "m": (-1, 2), "j": (-1, 5)})


def trick():
    mean, variance = (each.requires_grad_() for each in parameters(0.5, 0.6))
    _, log_p_x_z, _, _ = line_model()
    density = gaussian(0.5, 0.6)
    score = (Z - 0.5) / 0.36  # of log q by its mean
    slopes = LINE.clone().requires_grad_()
    (slope,) = torch.autograd.grad(logpdf_bernoulli(X.expand(241, 2), decode(0.5 + 0.6 * slopes)).sum(), slopes)
    torch.manual_seed(3)
    eps = torch.randn(1)
    torch.manual_seed(3)
    names = {"z": sample_diagonal_gaussian(mean, variance).detach(), r"\mu": 0.5, r"\sigma": 0.6, r"\epsilon": eps}
    names[r"\nabla_\phi \mathbb E_{q_\phi} [\log p_\theta(\mathbf x_n | z)]"] = density @ (log_p_x_z * score)
    names[r"\nabla_\phi \log p_\theta(\mathbf x_n | \mu + \sigma \epsilon)"] = slope[:, 0] / 0.6  # dz/dmu = 1
    return Meaning(names, {}, {r"\epsilon": (gaussian(0, 1), -1)})


def slopes():
    a = torch.randn(()).requires_grad_()
    d = a.sigmoid()
    names = {"D": d.detach()}
    names[r"\frac{\mathrm d}{\mathrm d a} \log (1 - D)"] = torch.autograd.grad((1 - d).log(), a, retain_graph=True)[0]
    names[r"\frac{\mathrm d}{\mathrm d a} (-\log D)"] = torch.autograd.grad(-d.log(), a)[0]
    return Meaning(names)


def energies():
    phi, q, beta = torch.randn(6), full(1, 6)[0], (0.3 + torch.rand(())).requires_grad_()
    p, log_z = boltzmann(phi, beta)
    (slope,) = torch.autograd.grad(log_z, beta)
    p, log_z, beta = p.detach(), log_z.detach(), beta.detach()
    names = {
        "q(w)": q,
        "q": q,
        "p(w)": p,
        "p": p,
        r"\Phi(w)": phi,
        r"\beta": beta,
        r"Z(\beta)": log_z.exp(),
        "e": math.e,
    }
    names[r"\frac{\partial \log Z(\beta)}{\partial \beta}"] = slope
    names[r"\frac{\partial}{\partial \beta} e^{-\beta \Phi(w)}"] = -phi * (-beta * phi).exp()
    names[r"\mathcal F(q)"] = -beta * (q @ phi) + entropy(q)
    return Meaning(names, {"w": (-1, 6)}, {r"w \sim p(w)": (p, -1)})


def free_energy():
    meaning = energies()
    meaning.also = [r"\log p(w) = -\beta \Phi(w) - \log Z(\beta)", r"\sum_w q(w) = 1"]
    meaning.also += [r"\mathrm{KL}(q \parallel p) = \log Z(\beta) - \mathcal F(q)", r"\mathcal F(q) \le \log Z(\beta)"]
    return meaning


def mean_fields(same):
    """N = 4: the best q with equal or with free factors, q^*; any q whose first factor is at 0; coins t_i."""
    w, p = not_all_ones(4)
    t = torch.cat([torch.zeros(1), torch.rand(3)])
    q = mean_field(w, t[None])[0]
    best = mean_field(w, torch.tensor([[0.0] + [0.0 if same else 0.5] * 3]))[0]
    coins = -torch.xlogy(t, t) - torch.xlogy(1 - t, 1 - t)
    names = {r"q^\ast": best, "p": p, "q": q, "N": 4, "H(q)": entropy(q), "h(t_i)": coins}
    names |= {r"\sum_w q(w) \log q(w)": -entropy(q), "h(t)": coins[1:], "t": t[1:]}
    return Meaning(names, {"i": (-1, 4)}, also=() if same else [r"H(q) \le (N - 1) \log 2"])


OPTIMUM = [
    r"q_\phi(z|x) = p_\theta(x|z) p(z) e^{\lambda - 1}",
    r"e^{1 - \lambda} = \sum_{z'} p_\theta(x|z') p(z') = p_\theta(x)",
    r"\lambda = 1 - \log p_\theta(x)",
]
OPTIMUM_HW8 = [r"e^{1 - \lambda} = \sum_{\hat z} p_\theta(x|\hat z) p(\hat z)", OPTIMUM[2]]

MEANINGS = {  # of each question: one for all of its displayed formulas, or one for each
    "uiuc_hw5": {
        "1(a)": [bernoulli],
        "1(c)": [bound],
        "1(d)": [two_distributions],
        "1(e)": [estimates],
        "1(f)": [prior_as_q],
        "1(h)": [widths_in_a_line],
        "1(i)": [lambda: lagrangian(r"q_\phi(z|x)"), *[optimum(r"q_\phi(z|x)", OPTIMUM)] * 2],
        "1(j)": [lambda: bound(also=[r"\frac{p_\theta(x|z) p(z)}{p_\theta(x)} = p_\theta(z|x)"])],
        "3(a)": [game],
        "3(b)": [game],
        "3(c)": [one_pixel_of_the_game],
        "3(d)": [optimal_discriminator],
        "3(e)": [uniforms],
    },
    "uiuc_hw8": {
        "1(a)": [lambda: bound("q(z|x)")],
        "1(b)": [lambda: two_distributions([NOT_NEGATIVE])],
        "1(d)": [lambda: equal_widths("q(z|x)", r"\mu_q")],
        "1(e)": [lambda: lagrangian("q(z|x)"), *[optimum("q(z|x)", OPTIMUM_HW8)] * 2],
        "1(f)": [lambda: bound("q(z|x)")],
    },
    "amsterdam": {
        "1.3": [any_distribution],
        "1.4a": [draws],
        "1.4b": [variance_of_a_draw],
        "1.5b": [lambda: two_gaussians(standard=False), lambda: two_gaussians(standard=True)],
        "1.6": [lower_bound],
        "1.9": [two_losses],
        "1.10": [data_set],
        "1.11c": [trick],
        "2.2": [game],
        "2.3": [optimal_discriminator],
        "2.4": [slopes],
    },
    "penn": {
        "1(a)": [free_energy],
        "1(b)": [energies],
        "1(c)": [lambda: mean_fields(same=True)],
        "1(d)": [lambda: mean_fields(same=False)],
    },
}


def displayed(answer):
    return re.findall(r"^\$\$\n(.*?)\n\$\$$", answer, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("course", QUESTIONS)
def test_printed_formulas_are_true(course):
    """Every displayed formula of every answer, and those in a line that `also` names, for ten random meanings."""
    for question, answer in answers(course).items():
        formulas, meanings = displayed(answer), MEANINGS[course].get(question, [])
        assert len(meanings) == 1 or len(meanings) == len(formulas), f"{question}: what do its formulas mean?"
        for _ in range(10):
            for make, formula in zip(meanings * (len(formulas) if len(meanings) == 1 else 1), formulas):
                meaning = make()
                known = meaning.names, meaning.axes, meaning.weights
                for piece in pieces(formula):
                    if piece in LITERAL:
                        continue
                    piece = piece.removeprefix(r"\min_{p_G} \max_D ")
                    holds(piece, *known, meaning.bare, meaning.atol)
            for meaning in (make() for make in meanings):
                for formula in meaning.also:
                    assert f"${formula}$" in answer, f"{question}: the answer does not say {formula}"
                    holds(formula, meaning.names, meaning.axes, meaning.weights, atol=meaning.atol)
