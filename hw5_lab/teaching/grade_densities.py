"""The graded questions 2(b), 2(c) and 2(e)iii: densities, samples, the ELBO, the interpolation."""

import math

import torch

import hw5_lab.teaching.diagnoses as known
from hw5_lab.teaching.diagnoses import diagnose, same, unknown
from hw5_lab.teaching.grade_judge import (
    Question,
    call,
    calls,
    column,
    normal,
    per_example,
    pixels,
    reach,
    said,
    uniform,
)


def make_gaussian(generator):
    z, mu = normal(generator, 6, 2), normal(generator, 6, 2)
    sigma_square = torch.tensor([0.3, 2.5]) * uniform(generator, 6, 2, low=0.7, high=1.3)
    name, flat = "logpdf_diagonal_gaussian", (mu[0], sigma_square[0])
    return calls(
        call(name, z, mu, sigma_square, grad=(0, 1, 2)),
        call(name, z, *flat),
        call(name, z, *(each.repeat(6, 1) for each in flat)),
    )


def judge_density(formula, mistakes, names):
    """The judge of both densities of 2(b).

    The calls: everything in full, parameters [D], the same in every row, and for 2(b)ii p = 0 and 1.
    """

    def judge(requests, answers):
        first, flat, full, *edges = answers["answer"]["calls"]
        arguments = requests["answer"]["calls"][0]["args"]
        if sentence := said(first):
            return dict.fromkeys(("shape", "value", "gradient", "broadcasting", "p = 0 and 1"), sentence), []
        value = first["value"]
        found = diagnose(value, lambda **switches: formula(*arguments, **switches), mistakes)
        shape = "" if per_example(value, len(arguments[0])) else found or unknown(value, formula(*arguments))
        parts = {"shape": shape, "value": found, "gradient": reach(first["grads"], names), "broadcasting": said(flat)}
        if not parts["broadcasting"] and not ("value" in full and same(flat["value"], full["value"])):
            parts["broadcasting"] = "parameters [D] give another value than the same in every row of [B,D]"
        if edges:
            parts["p = 0 and 1"] = said(edges[0]) or judge_edges(edges[0]["value"])
        return parts, column(value)

    return judge


def judge_edges(value):
    """The log-likelihood where p is exactly 0 or 1 is log 0.5 where x agrees with it here, -inf where it does not."""
    if value.numel() != 2:
        return ""
    if value.isnan().any():
        return "nan where p is exactly 0 or 1"
    agreeing, other = value.flatten().tolist()
    if not math.isclose(agreeing, math.log(0.5), rel_tol=1e-3) or other != -math.inf:
        return f"{agreeing:.4g} and {other:.4g} where p is exactly 0 or 1: {math.log(0.5):.4g} and -inf are exact"
    return ""


def make_bernoulli(generator):
    x, p = pixels(generator, 6, 784), uniform(generator, 6, 784, low=0.1, high=0.9)
    name = "logpdf_bernoulli"
    edges = torch.tensor([[1.0, 0.0, 1.0]]).repeat(2, 1), torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.0, 0.5]])
    return calls(call(name, x, p, grad=(1,)), call(name, x, p[0]), call(name, x, p[0].repeat(6, 1)), call(name, *edges))


def make_sample(generator):
    mu = uniform(generator, 2, low=-2, high=2)
    sigma_square = torch.stack([uniform(generator, 1, low=0.15, high=0.3)[0], uniform(generator, 1, low=3, high=5)[0]])
    name = "sample_diagonal_gaussian"
    many = mu.repeat(4000, 1), sigma_square.repeat(4000, 1)
    few = normal(generator, 6, 2), many[1][:6].clone()
    return calls(call(name, *many, seed=3), call(name, *few, grad=(0, 1), seed=4))


def judge_sample(requests, answers):
    (mu, sigma_square), (few_mu, few_square) = (each["args"] for each in requests["answer"]["calls"])
    many, few = answers["answer"]["calls"]
    if sentence := said(many) or said(few):
        return dict.fromkeys(("shape", "distribution", "independence", "gradient", "seeded numbers"), sentence), []
    z, parts = many["value"].double(), {}
    parts["gradient"] = reach(few["grads"], ("mu", "sigma_square"))
    if parts["gradient"]:
        parts["gradient"] = f"no reparameterisation: {parts['gradient']}"
    if z.shape != mu.shape or few["value"].shape != few_mu.shape:
        sentence = f"shape {list(z.shape)}, mu's {list(mu.shape)} is asked"
        return {**dict.fromkeys(("shape", "distribution", "independence", "seeded numbers"), sentence), **parts}, []
    parts["shape"] = ""
    eps = (z - mu) / sigma_square.sqrt()
    parts["distribution"], parts["independence"] = judge_normal(z, eps, mu[0], sigma_square[0]), ""
    if z.std(0).max() < 1e-6:
        parts["independence"] = "the same for every row"
    elif abs(torch.corrcoef(eps.T)[0, 1]) > 0.1:
        parts["independence"] = "one random number per example for all its dimensions: they are not independent"
    torch.manual_seed(requests["answer"]["calls"][1]["seed"])
    right = few_mu + few_square.sqrt() * torch.randn(few_mu.shape)
    if not parts["distribution"] and not same(few["value"], right):
        parts["seeded numbers"] = "other numbers than one torch.randn of mu's shape gives with the same seed"
    return parts, []


def rounded(values):
    return [round(value, 3) for value in values.tolist()]


def judge_normal(z, eps, mu, sigma_square):
    """What the distribution of z [N,2] is, if it is not N(mu, sigma_square)."""
    mean, std, sigma = z.mean(0), z.std(0), sigma_square.double().sqrt()
    if std.max() < 1e-6:
        return (
            "no noise: mu itself is returned"
            if same(mean, mu)
            else "one random number for all examples: each needs its own"
        )
    if not eps.isfinite().all():
        return "nan or inf"
    sixth = 6 / math.sqrt(len(z))
    if (tails := (abs((z - mean) / std) > 2).double().mean()) < 0.02:  # 0.046 for a normal distribution
        return "not normal: " + ("uniform noise, torch.rand for torch.randn?" if tails == 0 else "too few in the tails")
    for sentence, other in (
        ("sigma_square is used where sigma, its square root, belongs", sigma**2),
        ("looks like log sigma_square where sigma_square is given", (sigma**2 / 2).exp()),
        ("looks like log sigma where sigma_square is given", (sigma**2).exp()),
        ("noise of variance 1: sigma_square is not used", torch.ones_like(sigma)),
    ):
        if ((std / other - 1).abs() < sixth).all() and ((std / sigma - 1).abs() > sixth).any():
            return sentence
    if ((std / sigma - 1).abs() > sixth).any():
        return f"standard deviations {rounded(std)}, {rounded(sigma)} is right"
    if ((mean / std).abs() < sixth).all() and (mean - mu).abs().max() > sixth:
        return "mu is not added"
    if ((mean - mu).abs() > sixth * sigma).any():
        return f"means {rounded(mean)}, {rounded(mu)} is right"
    return ""


def make_bits(generator):
    p = torch.tensor([0.1, 0.35, 0.8]) + uniform(generator, 3, low=-0.05, high=0.05)
    return calls(call("sample_Bernoulli", p.repeat(4000, 1), seed=5), call("sample_Bernoulli", p.repeat(2, 1), seed=6))


def judge_bits(requests, answers):
    p = requests["answer"]["calls"][0]["args"][0]
    answer = answers["answer"]["calls"][0]
    if sentence := said(answer) or said(answers["answer"]["calls"][1]):
        return dict.fromkeys(("type", "distribution", "independence"), sentence), []
    x, parts = answer["value"], dict.fromkeys(("type", "distribution", "independence"), "")
    if x.shape != p.shape:
        return dict.fromkeys(parts, f"shape {list(x.shape)}, p's {list(p.shape)} is asked"), []
    if same(x, p):
        return dict.fromkeys(parts, "p itself is returned, not a sample"), []
    if x.dtype != torch.float32:
        parts["type"] = f"{str(x.dtype).removeprefix('torch.')}, float32 is asked"
    x = x.double()
    if not ((x == 0) | (x == 1)).all():
        return dict.fromkeys(parts, f"values from {x.min():.4g} to {x.max():.4g}: a sample is 0 or 1"), []
    near = lambda q: ((x.mean(0) - q).abs() < 6 * (q * (1 - q) / len(x)).sqrt()).all()  # noqa: E731
    if x.std(0).max() == 0:
        threshold = torch.equal(x, (p > 0.5).double())
        parts["distribution"] = (
            "a threshold at 0.5: nothing is random"
            if threshold
            else "one random number per pixel for all examples: each needs its own"
        )
        parts["independence"] = "the same for every example"
        return parts, []
    if not near(p[0].double()):
        parts["distribution"] = (
            "1 with probability 1 - p"
            if near(1 - p[0].double())
            else "p is not used: 1 with probability 0.5"
            if near(torch.full_like(x[0], 0.5))
            else f"means {rounded(x.mean(0))}, {rounded(p[0])} is right"
        )
    if torch.corrcoef(x.T).fill_diagonal_(0).nan_to_num().abs().max() > 0.12:
        parts["independence"] = "one random number per example for all its pixels: they are not independent"
    return parts, []


def make_elbo(generator):
    mu, z = normal(generator, 6, 2), 2 * normal(generator, 6, 2)
    sigma_square = torch.tensor([0.3, 2.5]) * uniform(generator, 6, 2, low=0.7, high=1.3)
    x, p = pixels(generator, 6, 784), uniform(generator, 6, 784, low=0.1, high=0.9)
    density = "logpdf_diagonal_gaussian"
    return calls(
        call("elbo elbo_loss", z, mu, sigma_square, x, p, grad=(0, 1, 2, 4)),
        call("logpdf_bernoulli", x, p),
        call(density, z, torch.zeros(6, 2), torch.ones(6, 2)),
        call(density, z, mu, sigma_square),
    )


def judge_elbo(requests, answers):
    answer, *own = answers["answer"]["calls"]
    arguments = requests["answer"]["calls"][0]["args"]
    if sentence := said(answer):
        return dict.fromkeys(("scalar", "value", "gradient"), sentence), []
    value, remarks = answer["value"], []
    found = diagnose(value, lambda **switches: known.elbo(*arguments, **switches), known.ELBO)
    if found and not any(said(each) for each in own):
        terms = [each["value"].double() for each in own]
        own_found = diagnose(value, lambda **switches: known.combine(*terms, **switches), known.COMBINE)
        if not own_found:
            found, remarks = "", ["the formula is right, on log-densities that are not: see 2(b)"]
        elif own_found in dict(known.COMBINE) and found not in dict(known.ELBO):
            found = own_found
    scalar = "" if value.numel() == 1 else found
    gradient = reach(answer["grads"], ("z", "mu", "sigma_square", "p"))
    return {"scalar": scalar, "value": found, "gradient": gradient}, remarks


def make_interpolation(generator):
    a, b = normal(generator, 4, 2), normal(generator, 4, 2)
    return calls(*(call("interpolate_mu", a, b, *alpha) for alpha in ((0.3,), (0.0,), (1.0,), ())))


def judge_interpolation(requests, answers):
    parts = {"value": "", "default alpha": ""}
    for request, answer in zip(requests["answer"]["calls"], answers["answer"]["calls"]):
        a, b, *alpha = request["args"]
        part = "value" if alpha else "default alpha"

        def formula(**switches):
            return known.interpolation(a, b, *alpha or [0.5], **switches)

        parts[part] = parts[part] or said(answer) or diagnose(answer["value"], formula, known.INTERPOLATION)
    return parts, []


DENSITIES = [
    Question(
        "2(b)i",
        "logpdf_diagonal_gaussian",
        "hw5_vae",
        make_gaussian,
        judge_density(known.gaussian, known.GAUSSIAN, ("z", "mu", "sigma_square")),
    ),
    Question(
        "2(b)ii", "logpdf_bernoulli", "hw5_vae", make_bernoulli, judge_density(known.bernoulli, known.BERNOULLI, ("p",))
    ),
    Question("2(b)iii", "sample_diagonal_gaussian", "hw5_vae", make_sample, judge_sample),
    Question("2(b)iv", "sample_Bernoulli", "hw5_vae", make_bits, judge_bits),
    Question("2(c)", "elbo", "hw5_vae", make_elbo, judge_elbo),
    Question("2(e)iii", "interpolate_mu", "hw5_vae", make_interpolation, judge_interpolation),
]
