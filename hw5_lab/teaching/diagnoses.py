"""The right values and those that known mistakes give, as formulas with switches: a mistake is known by its value.

Every formula is right by default. A mistake is a sentence and the switches that make it; `diagnose` looks for the one
mistake, or the two, whose value the student's code returned.
"""

import math
from functools import partial
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import nn

LOG_2PI = math.log(2 * math.pi)


def same(value, other, rtol=2e-4, atol=1e-4):
    """Whether two tensors agree and are finite; a last dimension of 1 may be missing, numbers in any precision."""
    value, other = value.double(), other.double()
    if value.shape != other.shape:
        value, other = (each.squeeze(-1) if each.dim() and each.shape[-1] == 1 else each for each in (value, other))
    close = value.shape == other.shape and torch.allclose(value, other, rtol=rtol, atol=atol)
    return close and bool(other.isfinite().all())


def diagnose(value, formula, mistakes, terms=(), rtol=2e-4):
    """ "" where value is the formula's, else the sentences of the mistakes that give it, else what is known of it.

    terms: those of a sum, as (name, its weight in the formula, its values), for a value that is another sum of them.
    """
    if same(value, formula(), rtol):
        return ""
    for count in (1, 2) if value.any() else ():  # nothing but zeros are no attempt
        for chosen in combinations(mistakes, count):
            switches = {key: each for _, mistake in chosen for key, each in mistake.items()}
            if len(switches) < sum(len(mistake) for _, mistake in chosen):
                continue  # two mistakes at the same place
            if same(value, formula(**switches), rtol):
                return "; and ".join(sentence for sentence, _ in chosen)
    return other_sum(value, terms) or unknown(value, formula())


def other_sum(value, terms):
    """What differs where the value is another weighted sum of these terms; "" where it is none."""
    if not terms or value.numel() != terms[0][2].numel() or not value.isfinite().all():
        return ""
    columns = torch.stack([each.double().flatten() for _, _, each in terms], 1)
    columns = columns / (size := columns.abs().max(0).values.clamp(min=1e-9))
    value = value.double().flatten()
    weights = torch.linalg.lstsq(columns, value[:, None], driver="gelsd").solution[:, 0]
    if not same(columns @ weights, value, rtol=1e-4, atol=1e-4):
        return ""
    weights = weights / size
    heavy = (weights[:, None] * columns.T * size[:, None]).abs().max(1).values > 1e-3
    if not any(there and each.double().std() > 1e-9 for (_, _, each), there in zip(terms, heavy)):
        return ""  # nothing but a constant
    said = []
    for (name, right, each), weight in zip(terms, weights.tolist()):
        if abs(weight - right) * each.abs().max().item() > 1e-4 * value.abs().max().item() + 1e-3:
            if f"{weight:.3g}" == f"{right:.3g}":
                return ""  # it fits too badly to say anything
            absent = abs(weight) < 1e-3
            belongs = (
                f"its weight is {weight:.3g}, {right:.3g} is asked"
                if right
                else f"does not belong (weight {weight:.3g})"
            )
            said.append(f"{name} is missing" if absent else f"{name}: {belongs}")
    return "; and ".join(said) if 0 < len(said) <= 4 else ""


def unknown(value, right):
    """What can be said of a wrong value without a right one."""
    if value.numel() and not value.isfinite().all():
        return "nan or inf where the right value is finite"
    if value.shape != right.shape and value.squeeze().shape != right.squeeze().shape:
        return f"shape {list(value.shape)}, {list(right.shape)} is asked"
    if value.numel() == 0:
        return "an empty tensor"
    if value.numel() > 1 and value.double().std() < 1e-9:
        return "the same value everywhere"
    return "another value than the definition gives, by a mistake that is not a known one"


# --------------------------------------------------------------------------------------------------- 2(b), 2(c)

REDUCE = {
    "sum": lambda x: x.sum(-1),
    "mean": lambda x: x.mean(-1),
    "none": lambda x: x,
    "all": lambda x: x.sum(),
    "mean of all": lambda x: x.mean(),
    "first": lambda x: x.sum(0),
    "mean of sums": lambda x: x.sum(-1).mean(),
}


def gaussian(
    z,
    mu,
    sigma_square,
    variance=lambda s: s,
    divisor=lambda s: s,
    constant=1.0,
    scale=0.5,
    distance=0.5,
    sign=1,
    reduce="sum",
    density=False,
):
    """log N(z; mu, sigma_square), [B], in double precision."""
    z, mu, sigma_square = z.double(), mu.double(), variance(sigma_square.double())
    constant = {"once": 1 / z.shape[-1], "of two": 2 / z.shape[-1]}.get(constant, constant)
    terms = -constant * 0.5 * LOG_2PI - scale * sigma_square.log() - distance * (z - mu) ** 2 / divisor(sigma_square)
    value = sign * REDUCE[reduce](terms)
    return value.exp() if density else value


PLANE = "log 2 pi is counted twice, which is right for 2 dimensions alone"
GAUSSIAN = [
    ("looks like sigma where sigma_square is given", {"variance": torch.square}),
    ("looks like log sigma_square where sigma_square is given", {"variance": torch.exp}),
    ("log 2 pi is missing", {"constant": 0.0}),
    ("log 2 pi is counted once, not once per dimension", {"constant": "once"}),
    (PLANE, {"constant": "of two"}),
    ("0.5 is missing before log 2 pi", {"constant": 2.0}),
    ("0.5 is missing before log sigma_square", {"scale": 1.0}),
    ("0.5 is missing before the squared distance", {"distance": 1.0}),
    ("log sigma_square is missing", {"scale": 0.0}),
    ("log sigma_square has the wrong sign", {"scale": -0.5}),
    ("the squared distance is missing", {"distance": 0.0}),
    ("the squared distance has the wrong sign", {"distance": -0.5}),
    ("the squared distance is not divided by sigma_square", {"divisor": torch.ones_like}),
    ("the squared distance is divided by sigma, not by sigma_square", {"divisor": torch.sqrt}),
    ("the squared distance is divided by sigma_square twice", {"divisor": torch.square}),
    ("the sign is turned: a negative log-likelihood", {"sign": -1}),
    ("mean over dimensions, not sum", {"reduce": "mean"}),
    ("not summed over dimensions: one number per example is asked", {"reduce": "none"}),
    ("summed over the examples as well: one number per example is asked", {"reduce": "all"}),
    ("mean over the examples: one number per example is asked", {"reduce": "mean of sums"}),
    ("mean over everything: one number per example is asked", {"reduce": "mean of all"}),
    ("summed over the examples (dim 0), not over the dimensions (dim 1)", {"reduce": "first"}),
    ("a density, not its logarithm", {"density": True}),
]


def gaussian_terms(z, mu, sigma_square):
    z, mu, s = z.double(), mu.double(), sigma_square.double()
    square = (z - mu) ** 2
    return [
        ("log 2 pi", -0.5, LOG_2PI * torch.full_like(z[:, 0], z.shape[-1])),
        ("log sigma_square", -0.5, s.log().sum(-1)),
        ("the squared distance over sigma_square", -0.5, (square / s).sum(-1)),
        ("the squared distance over sigma", 0, (square / s.sqrt()).sum(-1)),
        ("the squared distance over sigma_square squared", 0, (square / s**2).sum(-1)),
        ("the squared distance, not divided", 0, square.sum(-1)),
        ("sigma_square itself", 0, s.sum(-1)),
        ("the distance, not squared", 0, (z - mu).sum(-1)),
        ("the distance over sigma_square, not squared", 0, ((z - mu) / s).sum(-1)),
    ]


def bernoulli(
    x,
    p,
    positive=1,
    negative=1,
    sign=1,
    reduce="sum",
    squash=lambda p: p,
    swapped=False,
    turned=False,
    density=False,
    base=1.0,
):
    """log p(x) of Bernoulli pixels, [B], in double precision."""
    x, p = x.double(), squash(p.double())
    if reduce == "product":  # in single precision, as a student's code computes
        return torch.where(x == 1, p, 1 - p).float().prod(-1).log().double()
    if turned:
        p = 1 - p
    if swapped:  # the logarithms of both, as binary_cross_entropy clamps them
        terms = p * x.log().clamp(min=-100) + (1 - p) * (1 - x).log().clamp(min=-100)
    else:
        terms = (positive * x * p.log() + negative * (1 - x) * (1 - p).log()) / base
    value = sign * REDUCE[reduce](terms)
    return value.exp() if density else value


BERNOULLI = [
    ("mean over pixels, not sum", {"reduce": "mean"}),
    ("not summed over pixels: one number per example is asked", {"reduce": "none"}),
    ("summed over the examples as well: one number per example is asked", {"reduce": "all"}),
    ("mean over the examples: one number per example is asked", {"reduce": "mean of sums"}),
    ("mean over everything: one number per example is asked", {"reduce": "mean of all"}),
    ("summed over the examples (dim 0), not over the pixels (dim 1)", {"reduce": "first"}),
    ("the sign is turned: a loss, not a log-likelihood", {"sign": -1}),
    ("(1 - x) log(1 - p) is missing", {"negative": 0}),
    ("x log p is missing", {"positive": 0}),
    ("(1 - x) log(1 - p) has the wrong sign", {"negative": -1}),
    ("p is taken for a logit: it is a probability already", {"squash": torch.sigmoid}),
    ("the logarithm of a logit of p: p is a probability already", {"squash": torch.logit}),
    ("log2, not the natural logarithm", {"base": math.log(2)}),
    ("log10, not the natural logarithm", {"base": math.log(10)}),
    ("x and p are swapped", {"swapped": True}),
    ("p and 1 - p are swapped", {"turned": True}),
    ("a probability, not its logarithm", {"density": True}),
]


def bernoulli_terms(x, p):
    x, p = x.double(), p.double()
    one, zero = p.log(), (1 - p).log()
    return [
        ("x log p", 1, (x * one).sum(-1)),
        ("(1 - x) log(1 - p)", 1, ((1 - x) * zero).sum(-1)),
        ("x log(1 - p)", 0, (x * zero).sum(-1)),
        ("(1 - x) log p", 0, ((1 - x) * one).sum(-1)),
        ("x p, without a logarithm", 0, (x * p).sum(-1)),
        ("(1 - x)(1 - p), without a logarithm", 0, ((1 - x) * (1 - p)).sum(-1)),
        ("a constant", 0, torch.ones(len(x))),
    ]


def elbo(
    z,
    mu,
    sigma_square,
    x,
    p,
    likelihood=1,
    prior=1,
    posterior=1,
    sign=1,
    pixels="sum",
    kl="sampled",
    reduce="mean",
    prior_at="z",
):
    """Eq. 2: mean of log p(x|z) + log p(z) - log q(z|x), in double precision."""
    log_p_z = gaussian(mu if prior_at == "mu" else z, torch.zeros_like(mu), torch.ones_like(mu))
    log_q_z = gaussian(z, mu, sigma_square)
    if kl == "exact":
        log_p_z, log_q_z = 0, exact_kl(mu, sigma_square)
    return combine(bernoulli(x, p, reduce=pixels), log_p_z, log_q_z, likelihood, prior, posterior, sign, reduce)


def exact_kl(mu, sigma_square):
    mu, sigma_square = mu.double(), sigma_square.double()
    return 0.5 * (sigma_square + mu**2 - 1 - sigma_square.log()).sum(-1)


EXACT_KL = "the exact KL of Eq. 1, where Eq. 2 asks for log p(z) - log q(z|x) of the sample"


def combine(log_p_x, log_p_z, log_q_z, likelihood=1, prior=1, posterior=1, sign=1, reduce="mean"):
    """Eq. 2 of the three log-densities of each example."""
    terms = sign * (likelihood * log_p_x + prior * log_p_z - posterior * log_q_z)
    return {"mean": terms.mean, "sum": terms.sum, "none": lambda: terms}[reduce]()


ELBO = [
    ("the sign is turned: the ELBO itself is asked, which is maximised", {"sign": -1}),
    ("sum over the examples, not mean", {"reduce": "sum"}),
    ("no mean over the examples: a scalar is asked", {"reduce": "none"}),
    ("log p(z) is missing", {"prior": 0}),
    ("log q(z|x) is missing", {"posterior": 0}),
    ("log q(z|x) is added, not subtracted", {"posterior": -1}),
    ("log p(z) is subtracted, not added", {"prior": -1}),
    ("log p(z) and log q(z|x) are missing: the reconstruction alone", {"prior": 0, "posterior": 0}),
    ("the KL term has the wrong sign: log q(z|x) - log p(z) is added, not subtracted", {"prior": -1, "posterior": -1}),
    ("the KL term is counted twice", {"prior": 2, "posterior": 2}),
    ("half of the KL term", {"prior": 0.5, "posterior": 0.5}),
    ("log p(x|z) is missing: the KL term alone", {"likelihood": 0}),
    ("log p(x|z) is subtracted, not added", {"likelihood": -1}),
    ("mean over pixels, not sum, in log p(x|z)", {"pixels": "mean"}),
    (EXACT_KL, {"kl": "exact"}),
    ("log p(z) is taken at mu, not at the sample z", {"prior_at": "mu"}),
]


def elbo_terms(arguments):
    """The terms of several batches' bounds, each batch (z, mu, sigma_square, x, p)."""
    parts = []
    for z, mu, sigma_square, x, p in arguments:
        log_p_x, log_p_z = bernoulli(x, p), gaussian(z, torch.zeros_like(mu), torch.ones_like(mu))
        kl = exact_kl(mu, sigma_square)
        around_mu = gaussian(z, mu, torch.ones_like(mu))
        each = log_p_x, log_p_z, gaussian(z, mu, sigma_square), kl, around_mu
        parts.append([term.mean() for term in each])
    names = ("log p(x|z)", 1), ("log p(z)", 1), ("log q(z|x)", -1), ("the exact KL of Eq. 1", 0), ("log N(z; mu, I)", 0)
    return [(name, weight, torch.stack(column)) for (name, weight), column in zip(names, zip(*parts))]


def interpolation(a, b, alpha, swapped=False, of_a=None, of_b=None, bare=False):
    """alpha a + (1 - alpha) b."""
    if bare:
        return alpha * a.double() + 1 - alpha * b.double()
    alpha = 1 - alpha if swapped else alpha
    share_a, share_b = of_a(alpha) if of_a else alpha, of_b(alpha) if of_b else 1 - alpha
    return share_a * a.double() + share_b * b.double()


SHARES = [0.1, 0.2, 0.25, 1 / 3, 2 / 3, 0.75, 0.8, 0.9]
COMBINE = [(sentence, mistake) for sentence, mistake in ELBO if mistake.keys().isdisjoint(("pixels", "kl", "prior_at"))]
INTERPOLATION = [
    ("alpha and 1 - alpha are swapped: alpha = 1 gives mua", {"swapped": True}),
    ("alpha is not used: the middle is returned", {"of_a": lambda a: 0.5, "of_b": lambda a: 0.5}),
    ("the weights do not add up to 1: mub is not multiplied by 1 - alpha", {"of_b": lambda a: 1.0}),
    ("the weights do not add up to 1: mua is not multiplied by alpha", {"of_a": lambda a: 1.0}),
    ("the weights do not add up to 1: both are alpha", {"of_b": lambda a: a}),
    ("mub is subtracted, not added", {"of_b": lambda a: a - 1}),
    ("the parentheses of (1 - alpha) are missing", {"bare": True}),
    (
        "the weights are not alpha and 1 - alpha but their squares",
        {"of_a": lambda a: a**2, "of_b": lambda a: (1 - a) ** 2},
    ),
    ("the weights are square roots, as for noise", {"of_a": lambda a: a**0.5, "of_b": lambda a: (1 - a) ** 0.5}),
    ("mub alone is returned", {"of_a": lambda a: 0.0, "of_b": lambda a: 1.0}),
    ("mua alone is returned", {"of_a": lambda a: 1.0, "of_b": lambda a: 0.0}),
]

# ------------------------------------------------------------------------------------------------------ networks

IDENTITY = lambda x: x  # noqa: E731


ACTIVATIONS = {
    "nothing": IDENTITY,
    "ReLU": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "ELU": F.elu,
    "GELU": F.gelu,
    "SiLU": F.silu,
    **{
        f"LeakyReLU({slope:g})": partial(F.leaky_relu, negative_slope=slope)
        for slope in (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
    },
}


def instead(asked, places, where):
    """The mistakes of another activation than the asked one at these places."""
    return [
        (f"{where}: {asked} is asked, {name} is there", dict.fromkeys(places, function))
        for name, function in ACTIVATIONS.items()
        if name != asked
    ]


def decoder(weights, z, hidden=torch.tanh, last=torch.sigmoid):
    """p(x|z) of the layers' weights, biases included, in the order of use."""
    *first, (w, b) = weights
    for weight, bias in first:
        z = hidden(F.linear(z, weight, bias))
    return last(F.linear(z, w, b))


def deeper_decoder(weights, z, second=torch.sigmoid, last=torch.sigmoid, hidden=torch.tanh):
    """The decoder of those who read "two hidden layers" as two besides the last: 2-500-500-784."""
    (w1, b1), (w2, b2), (w3, b3) = weights
    return last(F.linear(second(F.linear(hidden(F.linear(z, w1, b1)), w2, b2)), w3, b3))


DECODER = [
    ("no sigmoid at the end: logits, not probabilities", {"last": IDENTITY}),
    ("softmax at the end: the pixels are independent, each with a sigmoid", {"last": lambda x: x.softmax(-1)}),
    ("softmax over the batch at the end: each pixel has a sigmoid", {"last": lambda x: x.softmax(0)}),
    ("tanh at the end: values in (-1, 1), not probabilities", {"last": torch.tanh}),
    ("two sigmoids at the end", {"last": lambda x: x.sigmoid().sigmoid()}),
    ("tanh before the sigmoid at the end", {"last": lambda x: x.tanh().sigmoid()}),
    ("ReLU before the sigmoid at the end: no probability is below 0.5", {"last": lambda x: x.relu().sigmoid()}),
    ("exp at the end, not sigmoid", {"last": torch.exp}),
    *instead("tanh", ["hidden"], "after the first layer"),
    *instead("sigmoid", ["last"], "at the end"),
]


def dnet(weights, x, first=F.relu, second=F.relu, third=F.relu, pool=F.max_pool2d, last=IDENTITY, flat=False):
    """Logits of Table 1."""
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = weights
    x = pool(first(F.conv2d(x, w1, b1, padding=1)), 2)
    x = pool(second(F.conv2d(x, w2, b2, padding=1)), 2)
    x = third(F.conv2d(x, w3, b3))
    return last(F.linear(x.permute(0, 2, 3, 1).flatten(1) if flat else x.flatten(1), w4, b4))


THREE = ("first", "second", "third")
DNET = [
    ("softmax at the end: of one output it is always 1; D gives logits", {"last": lambda x: x.softmax(-1)}),
    ("sigmoid at the end: Table 1 ends with Linear, so D gives logits", {"last": torch.sigmoid}),
    ("average pooling where Table 1 has MaxPool", {"pool": F.avg_pool2d}),
    ("flattened in another order than CHW", {"flat": True}),
    *instead("ReLU", THREE, "after all convolutions (layers 2, 5, 8)"),
    *instead("ReLU", ["first"], "after the first convolution (layer 2)"),
    *instead("ReLU", ["second"], "after the second convolution (layer 5)"),
    *instead("ReLU", ["third"], "after the third convolution (layer 8)"),
    *instead("nothing", ["last"], "at the end, where Table 1 has Linear alone"),
]
LEAKY = ACTIVATIONS["LeakyReLU(0.2)"]


def gnet(
    weights,
    z,
    first=LEAKY,
    second=LEAKY,
    third=LEAKY,
    last=torch.sigmoid,
    mode="nearest",
    reshape=lambda x: x.reshape(-1, 32, 7, 7),
    late=False,
    corners=None,
):
    """Images of Table 2."""
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = weights
    x = reshape(first(F.linear(z, w1, b1)))
    if x.shape[1:] != (32, 7, 7):
        return torch.zeros(0)
    double = lambda x: F.interpolate(x, scale_factor=2, mode=mode, align_corners=corners)
    for activation, w, b in ((second, w2, b2), (third, w3, b3)):
        x = (
            double(activation(F.conv2d(x, w, b, padding=1)))
            if late
            else activation(F.conv2d(double(x), w, b, padding=1))
        )
    return last(F.conv2d(x, w4, b4, padding=1))


GNET = [
    ("an activation between the last convolution and the sigmoid", {"last": lambda x: torch.sigmoid(LEAKY(x))}),
    ("ReLU between the last convolution and the sigmoid", {"last": lambda x: torch.sigmoid(F.relu(x))}),
    ("tanh at the end, moved to (0, 1): sigmoid (layer 10) is asked", {"last": lambda x: (torch.tanh(x) + 1) / 2}),
    ("two sigmoids at the end", {"last": lambda x: x.sigmoid().sigmoid()}),
    ("bilinear upsampling: Upsample's default, nearest, is asked", {"mode": "bilinear"}),
    ("bilinear upsampling with align_corners: nearest is asked", {"mode": "bilinear", "corners": True}),
    ("bicubic upsampling: Upsample's default, nearest, is asked", {"mode": "bicubic"}),
    ("upsampling after the convolution, not before it", {"late": True}),
    (
        "reshaped to (7, 7, 32) and permuted: (32, 7, 7), CHW, is asked (Remark 2)",
        {"reshape": lambda x: x.reshape(-1, 7, 7, 32).permute(0, 3, 1, 2)},
    ),
    (
        "reshaped to (7, 7, 32), and its axes moved: (32, 7, 7), CHW, is asked (Remark 2)",
        {"reshape": lambda x: x.reshape(-1, 7, 7, 32).permute(0, 3, 2, 1)},
    ),
    ("height and width are swapped after reshape", {"reshape": lambda x: x.reshape(-1, 32, 7, 7).transpose(2, 3)}),
    *instead("LeakyReLU(0.2)", THREE, "everywhere (layers 2, 5, 8)"),
    *instead("LeakyReLU(0.2)", ["first"], "after Linear (layer 2)"),
    *instead("LeakyReLU(0.2)", ["second"], "after the first convolution (layer 5)"),
    *instead("LeakyReLU(0.2)", ["third"], "after the second convolution (layer 8)"),
    *instead("sigmoid", ["last"], "at the end (layer 10)"),
]

# ------------------------------------------------------------------------------------------------ initialisation


def plain_layers(shapes, seed):
    """The layers that have weights of these shapes (biases included), built in this order from a seed."""
    torch.manual_seed(seed)
    layers = []
    for number, shape in enumerate(shapes):
        if len(shape) > 1:
            bias = number + 1 < len(shapes) and len(shapes[number + 1]) == 1
            outputs, inputs, *kernel = shape
            layers.append(
                nn.Conv2d(inputs, outputs, kernel, bias=bias) if kernel else nn.Linear(inputs, outputs, bias=bias)
            )
    return layers


def initialised(shapes, seed, init=nn.init.kaiming_uniform_, kinds=(nn.Conv2d, nn.Linear), fresh=True):
    """The layers' weights after `init`; with fresh=False as _weight_init makes them again, from the same seed."""
    with torch.random.fork_rng(devices=[]):
        layers = plain_layers(shapes, seed)
        if not fresh:
            torch.manual_seed(seed)
        for layer in layers:
            if isinstance(layer, kinds):
                init(layer.weight)
        return [layer.weight.detach() for layer in layers]


INIT = [
    (
        "fan_out instead of fan_in, the default of kaiming_uniform_",
        {"init": lambda w: nn.init.kaiming_uniform_(w, mode="fan_out")},
    ),
    ("kaiming_normal_, not kaiming_uniform_", {"init": nn.init.kaiming_normal_}),
    ("xavier_uniform_, not kaiming_uniform_", {"init": nn.init.xavier_uniform_}),
    ("xavier_normal_, not kaiming_uniform_", {"init": nn.init.xavier_normal_}),
    (
        "kaiming_uniform_ for a slope of 0.2: its defaults are asked",
        {"init": lambda w: nn.init.kaiming_uniform_(w, a=0.2)},
    ),
    (
        "kaiming_uniform_ with nonlinearity='linear' or 'sigmoid': its defaults are asked",
        {"init": lambda w: nn.init.kaiming_uniform_(w, nonlinearity="linear")},
    ),
    ("uniform_ on [0, 1], not kaiming_uniform_", {"init": nn.init.uniform_}),
    ("normal_, not kaiming_uniform_", {"init": nn.init.normal_}),
    (
        "normal_ with a standard deviation of 0.02, not kaiming_uniform_",
        {"init": lambda w: nn.init.normal_(w, 0, 0.02)},
    ),
    ("all weights 0: no unit could learn anything of its own", {"init": nn.init.zeros_}),
    ("all weights 1, not kaiming_uniform_", {"init": nn.init.ones_}),
    ("only the convolutions are initialised, Linear is left out", {"kinds": nn.Conv2d}),
    ("only Linear is initialised, the convolutions are left out", {"kinds": nn.Linear}),
    ("the weights are PyTorch's own: nothing is initialised", {"kinds": ()}),
]

# -------------------------------------------------------------------------------------------------------- losses


def cross_entropy(logits, label, reduce):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label), reduction=reduce)


def loss_d(
    real,
    fake,
    of_real=0.5,
    of_fake=0.5,
    real_label=1.0,
    fake_label=0.0,
    squash=IDENTITY,
    sign=1,
    reduce="mean",
    kind=cross_entropy,
):
    """(BCE(D(x), 1) + BCE(D(G(z)), 0)) / 2 of logits."""
    real, fake = squash(real), squash(fake)
    return sign * (of_real * kind(real, real_label, reduce) + of_fake * kind(fake, fake_label, reduce))


def least_squares(scores, label, reduce):
    return F.mse_loss(scores, torch.full_like(scores, label), reduction=reduce)


def wasserstein(scores, label, reduce):
    return {"mean": scores.mean(), "sum": scores.sum()}[reduce] * (1 - 2 * label)


def hinge(scores, label, reduce):
    terms = F.relu(1 + scores * (1 - 2 * label))
    return {"mean": terms.mean(), "sum": terms.sum()}[reduce]


KINDS = [
    ("the least-squares loss: BCE is asked", {"kind": least_squares}),
    ("the Wasserstein loss: BCE is asked", {"kind": wasserstein}),
    ("the hinge loss: BCE is asked", {"kind": hinge}),
]
LOSS_D = [
    ("the labels are swapped: 1 for real images, 0 for fakes", {"real_label": 0.0, "fake_label": 1.0}),
    ("both labels are 1: 0 is asked for fakes", {"fake_label": 1.0}),
    ("both labels are 0: 1 is asked for real images", {"real_label": 0.0}),
    ("the fakes are missing: the loss of the real images alone", {"of_fake": 0.0}),
    ("the real images are missing: the loss of the fakes alone", {"of_real": 0.0}),
    ("the fakes are missing: the loss of the real images alone", {"of_fake": 0.0, "of_real": 1.0}),
    ("the real images are missing: the loss of the fakes alone", {"of_real": 0.0, "of_fake": 1.0}),
    ("the fakes' loss is subtracted, not added", {"of_fake": -0.5}),
    ("the real images' loss is subtracted, not added", {"of_real": -0.5}),
    ("half of the sum is taken of one loss alone", {"of_real": 1.0}),
    ("half of the sum is taken of one loss alone", {"of_fake": 1.0}),
    ("sigmoid before BCEWithLogitsLoss, which applies it itself", {"squash": torch.sigmoid}),
    ("the sign is turned: D would learn to be wrong", {"sign": -1}),
    ("sum over the batch, not mean", {"reduce": "sum"}),
    *(
        (f"smoothed labels ({1 - s:g} for real images): 1 is asked", {"real_label": 1 - s})
        for s in (0.1, 0.05, 0.2, 0.3)
    ),
    *((f"smoothed labels ({s:g} for fakes): 0 is asked", {"fake_label": s}) for s in (0.1, 0.05, 0.2, 0.3)),
    ("a quarter of the sum: the mean is halved twice", {"of_real": 0.25, "of_fake": 0.25}),
    *KINDS,
]


def logit_terms(parts, name):
    """What losses of these batches of logits may be sums of. BCE against y is softplus(-l) + (1 - y) l."""
    column = lambda function: torch.stack([function(each.double()).mean() for each in parts])
    return [
        (f"softplus of minus the logits of {name}", column(lambda each: F.softplus(-each))),
        (f"the logits of {name}", column(IDENTITY)),
        (f"the squared logits of {name}", column(torch.square)),
    ]


def loss_g(fake, label=1.0, squash=IDENTITY, sign=1, reduce="mean", weight=1.0, kind=cross_entropy):
    """BCE(D(G(z)), 1) of logits."""
    return weight * sign * kind(squash(fake), label, reduce)


LOSS_G = [
    (
        "the saturating form, minus the BCE of fakes against 0: against 1 has a gradient where D is sure",
        {"label": 0.0, "sign": -1},
    ),
    ("the label is 0: G would learn to be recognised", {"label": 0.0}),
    ("the sign is turned: G would learn to be recognised", {"sign": -1}),
    ("sigmoid before BCEWithLogitsLoss, which applies it itself", {"squash": torch.sigmoid}),
    ("sum over the batch, not mean", {"reduce": "sum"}),
    ("half of the loss: 0.5 belongs to D's loss alone", {"weight": 0.5}),
    ("twice the loss", {"weight": 2.0}),
    *((f"smoothed labels ({1 - s:g}): 1 is asked", {"label": 1 - s}) for s in (0.1, 0.05, 0.2, 0.3)),
    *KINDS,
]

# ----------------------------------------------------------------------------------------------------- diffusion


def levels(begin, end, count, kind="geometric"):
    """Standard deviations [count] from begin to end, each the same multiple of the one before."""
    share = torch.arange(count).double() / (count - 1)
    return {
        "geometric": lambda: begin * (end / begin) ** share,
        "linear": lambda: begin + (end - begin) * share,
        "reversed": lambda: end * (begin / end) ** share,
        "linear reversed": lambda: end + (begin - end) * share,
        "open": lambda: begin * (end / begin) ** (torch.arange(count).double() / count),
        "exponents": lambda: 10 ** (begin + (end - begin) * share),
        "mixed logarithms": lambda: 10 ** (math.log(begin) + (math.log(end) - math.log(begin)) * share),
        "natural exponents": lambda: (begin + (end - begin) * share).exp(),
        "squares": lambda: (begin * (end / begin) ** share) ** 2,
        "logarithms": lambda: math.log(begin) + (math.log(end) - math.log(begin)) * share,
    }[kind]()


LEVELS = [
    ("linear, not geometric: each level is the same multiple of the one before", {"kind": "linear"}),
    ("from end to begin: begin is the first", {"kind": "reversed"}),
    ("linear, and from end to begin: geometric from begin is asked", {"kind": "linear reversed"}),
    ("end is not reached: both ends are levels", {"kind": "open"}),
    ("begin and end are taken for exponents of 10, as logspace does", {"kind": "exponents"}),
    ("begin and end are taken for exponents", {"kind": "natural exponents"}),
    ("10 to the power of natural logarithms: exp belongs to log", {"kind": "mixed logarithms"}),
    ("the squares of the levels: deviations are asked, not variances", {"kind": "squares"}),
    ("the logarithms of the levels: exp is missing", {"kind": "logarithms"}),
]


def denoising(noise, sigma, score, target=lambda n, s: -n / s**2, weight=lambda s: s**2 / 2, reduce="mean", power=2):
    """Mean of sigma^2/2 |s + (x~-x)/sigma^2|^2 for noise x~-x [N,2], sigma [N,1], score [N,2]."""
    noise, sigma, score = noise.double(), sigma.double(), score.double()
    squares = (score - target(noise, sigma)).abs() ** power
    if power == 1:
        squares = squares.sum(1, keepdim=True)
    terms = (weight(sigma) * squares).sum(1)
    return {"mean": terms.mean, "sum": terms.sum, "all": lambda: terms.mean() / 2}[reduce]()


WEIGHTS = [
    ("no weight: sigma^2/2 is asked", {"weight": torch.ones_like}),
    ("the weight is 1/2: sigma^2/2 is asked", {"weight": lambda s: torch.full_like(s, 0.5)}),
    ("the weight is sigma^2: sigma^2/2 is asked", {"weight": lambda s: s**2}),
    ("the weight is sigma: sigma^2/2 is asked", {"weight": lambda s: s}),
    ("the weight is sigma/2: sigma^2/2 is asked", {"weight": lambda s: s / 2}),
    ("the weight is sigma^4/2: sigma^2/2 is asked", {"weight": lambda s: s**4 / 2}),
    ("the weight is sigma^4: sigma^2/2 is asked", {"weight": lambda s: s**4}),
    ("the weight is 1/sigma^2: sigma^2/2 is asked", {"weight": lambda s: 1 / s**2}),
]
DENOISING = [
    ("the sign of the noise is turned: the score points back, -(x~ - x)/sigma^2", {"target": lambda n, s: n / s**2}),
    ("(x~ - x) is divided by sigma, not by sigma^2", {"target": lambda n, s: -n / s}),
    ("(x~ - x) is not divided by sigma^2", {"target": lambda n, s: -n}),
    ("(x~ - x) is multiplied by sigma^2, not divided", {"target": lambda n, s: -n * s**2}),
    ("(x~ - x) is divided by sigma, and its sign is turned", {"target": lambda n, s: n / s}),
    ("the noise is missing: the score alone is made small", {"target": lambda n, s: torch.zeros_like(n)}),
    ("2 sigma^2 in the place of sigma^2", {"target": lambda n, s: -n / (2 * s**2)}),
    ("mean over both coordinates, not their sum", {"reduce": "all"}),
    ("sum over the points, not mean", {"reduce": "sum"}),
    ("absolute values, not squares", {"power": 1}),
]
