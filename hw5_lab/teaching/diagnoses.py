"""The right values and those that known mistakes give, as formulas with switches: a mistake is known by its value.

Every formula is right by default. A mistake is a sentence and the switches that make it; `diagnose` looks for the one
mistake, or the two, whose value the student's code returned.
"""

import math
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import nn

LOG_2PI = math.log(2 * math.pi)


def same(value, other, rtol=2e-4, atol=1e-4):
    """Whether two tensors agree; a last dimension of 1 may be missing, numbers in any precision."""
    value, other = value.double(), other.double()
    if value.shape != other.shape:
        value, other = (each.squeeze(-1) if each.dim() and each.shape[-1] == 1 else each for each in (value, other))
    return value.shape == other.shape and torch.allclose(value, other, rtol=rtol, atol=atol)


def diagnose(value, formula, mistakes):
    """ "" where value is the formula's, else the sentences of the mistakes that give it, else what is known of it."""
    if same(value, formula()):
        return ""
    for count in (1, 2):
        for chosen in combinations(mistakes, count):
            switches = {key: each for _, mistake in chosen for key, each in mistake.items()}
            if len(switches) < sum(len(mistake) for _, mistake in chosen):
                continue  # two mistakes at the same place
            with_mistake = formula(**switches)
            if with_mistake.isfinite().all() and same(value, with_mistake):
                return "; and ".join(sentence for sentence, _ in chosen)
    return unknown(value, formula())


def unknown(value, right):
    if value.numel() and not value.isfinite().all():
        return "nan or inf where the right value is finite"
    if value.shape != right.shape:
        return f"shape {list(value.shape)}, expected {list(right.shape)}"
    if value.numel() == 0:
        return "an empty tensor"
    first = (value.double() - right.double()).abs().flatten().argmax()
    return f"{value.flatten()[first].item():.5g} where {right.flatten()[first].item():.5g} is right"


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
    constant = 1 / z.shape[-1] if constant == "once" else constant
    terms = -constant * 0.5 * LOG_2PI - scale * sigma_square.log() - distance * (z - mu) ** 2 / divisor(sigma_square)
    value = sign * REDUCE[reduce](terms)
    return value.exp() if density else value


GAUSSIAN = [
    ("looks like sigma where sigma_square is given", {"variance": torch.square}),
    ("looks like log sigma_square where sigma_square is given", {"variance": torch.exp}),
    ("log 2 pi is missing", {"constant": 0.0}),
    ("log 2 pi is counted once, not once per dimension", {"constant": "once"}),
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


def bernoulli(
    x, p, positive=1, negative=1, sign=1, reduce="sum", squash=lambda p: p, swapped=False, turned=False, density=False
):
    """log p(x) of Bernoulli pixels, [B], in double precision."""
    x, p = x.double(), squash(p.double())
    if turned:
        p = 1 - p
    if swapped:  # the logarithms of both, as binary_cross_entropy clamps them
        terms = p * x.log().clamp(min=-100) + (1 - p) * (1 - x).log().clamp(min=-100)
    else:
        terms = positive * x * p.log() + negative * (1 - x) * (1 - p).log()
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
    ("x and p are swapped", {"swapped": True}),
    ("p and 1 - p are swapped", {"turned": True}),
    ("a probability, not its logarithm", {"density": True}),
]


def elbo(
    z, mu, sigma_square, x, p, likelihood=1, prior=1, posterior=1, sign=1, pixels="sum", kl="sampled", reduce="mean"
):
    """Eq. 2: mean of log p(x|z) + log p(z) - log q(z|x), in double precision."""
    log_p_z = gaussian(z, torch.zeros_like(mu), torch.ones_like(mu))
    log_q_z = gaussian(z, mu, sigma_square)
    if kl == "exact":
        mu, sigma_square = mu.double(), sigma_square.double()
        log_p_z, log_q_z = 0, 0.5 * (sigma_square + mu**2 - 1 - sigma_square.log()).sum(-1)
    return combine(bernoulli(x, p, reduce=pixels), log_p_z, log_q_z, likelihood, prior, posterior, sign, reduce)


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
    ("log p(x|z) is missing: the KL term alone", {"likelihood": 0}),
    ("log p(x|z) is subtracted, not added", {"likelihood": -1}),
    ("mean over pixels, not sum, in log p(x|z)", {"pixels": "mean"}),
    ("the exact KL of Eq. 1, where Eq. 2 asks for log p(z) - log q(z|x) of the sample", {"kl": "exact"}),
]


def interpolation(a, b, alpha, swapped=False, of_a=None, of_b=None):
    """alpha a + (1 - alpha) b."""
    alpha = 1 - alpha if swapped else alpha
    share_a, share_b = of_a(alpha) if of_a else alpha, of_b(alpha) if of_b else 1 - alpha
    return share_a * a.double() + share_b * b.double()


COMBINE = [(sentence, mistake) for sentence, mistake in ELBO if mistake.keys().isdisjoint(("pixels", "kl"))]
INTERPOLATION = [
    ("alpha and 1 - alpha are swapped: alpha = 1 gives mua", {"swapped": True}),
    ("alpha is not used: the middle is returned", {"of_a": lambda a: 0.5, "of_b": lambda a: 0.5}),
    ("the weights do not add up to 1: mub is not multiplied by 1 - alpha", {"of_b": lambda a: 1.0}),
    ("the weights do not add up to 1: mua is not multiplied by alpha", {"of_a": lambda a: 1.0}),
    ("the weights do not add up to 1: both are alpha", {"of_b": lambda a: a}),
    ("mub is subtracted, not added", {"of_b": lambda a: a - 1}),
]

# ------------------------------------------------------------------------------------------------------ networks

IDENTITY = lambda x: x  # noqa: E731


def decoder(weights, z, hidden=torch.tanh, last=torch.sigmoid):
    """p(x|z) of the two layers' weights, biases included, in the order of use."""
    (w1, b1), (w2, b2) = weights
    return last(F.linear(hidden(F.linear(z, w1, b1)), w2, b2))


DECODER = [
    ("no sigmoid at the end: logits, not probabilities", {"last": IDENTITY}),
    ("tanh at the end: values in (-1, 1), not probabilities", {"last": torch.tanh}),
    ("softmax at the end: the pixels are independent, each with a sigmoid", {"last": lambda x: x.softmax(-1)}),
    ("ReLU at the end, not sigmoid", {"last": F.relu}),
    ("ReLU after the first layer, not tanh", {"hidden": F.relu}),
    ("sigmoid after the first layer, not tanh", {"hidden": torch.sigmoid}),
    ("nothing after the first layer: tanh is asked", {"hidden": IDENTITY}),
]


def dnet(weights, x, first=F.relu, second=F.relu, third=F.relu, pool=F.max_pool2d, last=IDENTITY):
    """Logits of Table 1."""
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = weights
    x = pool(first(F.conv2d(x, w1, b1, padding=1)), 2)
    x = pool(second(F.conv2d(x, w2, b2, padding=1)), 2)
    return last(F.linear(third(F.conv2d(x, w3, b3)).flatten(1), w4, b4))


LEAKY = lambda x: F.leaky_relu(x, 0.2)  # noqa: E731
DNET = [
    ("sigmoid at the end: Table 1 ends with Linear, so D gives logits", {"last": torch.sigmoid}),
    ("ReLU at the end: Table 1 ends with Linear", {"last": F.relu}),
    ("no ReLU after the third convolution (layer 8)", {"third": IDENTITY}),
    ("no ReLU after the second convolution (layer 5)", {"second": IDENTITY}),
    ("no ReLU after the first convolution (layer 2)", {"first": IDENTITY}),
    ("LeakyReLU(0.2) where Table 1 has ReLU", dict.fromkeys(("first", "second", "third"), LEAKY)),
    ("LeakyReLU(0.01) where Table 1 has ReLU", dict.fromkeys(("first", "second", "third"), F.leaky_relu)),
    ("average pooling where Table 1 has MaxPool", {"pool": F.avg_pool2d}),
]


def gnet(
    weights,
    z,
    first=LEAKY,
    second=LEAKY,
    third=LEAKY,
    last=torch.sigmoid,
    mode="nearest",
    reshape=lambda x: x.reshape(-1, 32, 7, 7),
):
    """Images of Table 2."""
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = weights
    x = reshape(first(F.linear(z, w1, b1)))
    for activation, w, b in ((second, w2, b2), (third, w3, b3)):
        x = activation(F.conv2d(F.interpolate(x, scale_factor=2, mode=mode), w, b, padding=1))
    return last(F.conv2d(x, w4, b4, padding=1))


THREE = ("first", "second", "third")
GNET = [
    ("no sigmoid at the end (layer 10)", {"last": IDENTITY}),
    ("tanh at the end, not sigmoid (layer 10)", {"last": torch.tanh}),
    ("an activation between the last convolution and the sigmoid", {"last": lambda x: torch.sigmoid(LEAKY(x))}),
    ("LeakyReLU with its default slope 0.01, not 0.2", dict.fromkeys(THREE, F.leaky_relu)),
    ("ReLU where Table 2 has LeakyReLU(0.2)", dict.fromkeys(THREE, F.relu)),
    ("no LeakyReLU after Linear (layer 2)", {"first": IDENTITY}),
    ("no LeakyReLU after the first convolution (layer 5)", {"second": IDENTITY}),
    ("no LeakyReLU after the second convolution (layer 8)", {"third": IDENTITY}),
    ("bilinear upsampling: Upsample's default, nearest, is asked", {"mode": "bilinear"}),
    (
        "reshaped to (7, 7, 32) and permuted: (32, 7, 7), CHW, is asked (Remark 2)",
        {"reshape": lambda x: x.reshape(-1, 7, 7, 32).permute(0, 3, 1, 2)},
    ),
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
    real, fake, of_real=0.5, of_fake=0.5, real_label=1.0, fake_label=0.0, squash=IDENTITY, sign=1, reduce="mean"
):
    """(BCE(D(x), 1) + BCE(D(G(z)), 0)) / 2 of logits."""
    on_real, on_fake = cross_entropy(squash(real), real_label, reduce), cross_entropy(squash(fake), fake_label, reduce)
    return sign * (of_real * on_real + of_fake * on_fake)


LOSS_D = [
    ("the labels are swapped: 1 for real images, 0 for fakes", {"real_label": 0.0, "fake_label": 1.0}),
    ("both labels are 1: 0 is asked for fakes", {"fake_label": 1.0}),
    ("both labels are 0: 1 is asked for real images", {"real_label": 0.0}),
    ("the fakes are missing: the loss of the real images alone", {"of_fake": 0.0}),
    ("the real images are missing: the loss of the fakes alone", {"of_real": 0.0}),
    ("the fakes' loss is subtracted, not added", {"of_fake": -0.5}),
    ("sigmoid before BCEWithLogitsLoss, which applies it itself", {"squash": torch.sigmoid}),
    ("the sign is turned: D would learn to be wrong", {"sign": -1}),
    ("sum over the batch, not mean", {"reduce": "sum"}),
    ("smoothed labels (0.9 for real images): 1 is asked", {"real_label": 0.9}),
    ("a quarter of the sum: the mean is halved twice", {"of_real": 0.25, "of_fake": 0.25}),
]


def loss_g(fake, label=1.0, squash=IDENTITY, sign=1, reduce="mean", weight=1.0):
    """BCE(D(G(z)), 1) of logits."""
    return weight * sign * cross_entropy(squash(fake), label, reduce)


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
]
