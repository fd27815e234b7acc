"""explore.html: one self-contained page, opened by a double click, in which the model of a run lives.

    write_explore(model, metrics, kept, folder)                  # what a run calls at its end
    write_page(folder / "explore.html", "vae", describe_vae(model), run)

describe_*() are the only functions that look at a model. They return a plain dict of numbers, text, lists and numpy
arrays. The type of an array says how the page keeps it: float16 for weights, float32 where the last digits count, uint8
for images, bool for binary images. The page computes in double precision with the weights that it holds.

explore.html is the frame of the page, explore.css its looks, explore.js what all pages share; explore_vae.js,
explore_gan.js and explore_diffusion.js are one model each.
"""

import base64
import copy
import hashlib
import html
import io
import json
import math
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from hw5_lab.runs.folder import FIGURE, write

HERE = Path(__file__).resolve().parent
HALVES = 1_250_000  # weights that fit as float16; a network with more keeps a byte for each
MOST = 8_000_000  # weights that a page holds at all
FIGURES = {"vae": 350_000, "gan": 250_000, "diffusion": 200_000}  # bytes for the static figures, as base64
TITLES = {"vae": "Variational autoencoder", "gan": "Generative adversarial network", "diffusion": "Score matching"}
LEADS = {
    "vae": "The encoder and the decoder of this run work on this page. Move through the latents, draw digits, and see "
    "what the bound that was trained (ELBO) says of them.",
    "gan": "The generator and the discriminator of this run work on this page. Draw samples, change them, and see what "
    "the discriminator thinks of them.",
    "diffusion": "The score network of this run works on this page. Follow Langevin sampling step by step, and compare "
    "the network with the best possible score, which is known in closed form.",
}
CURVES = {  # title, unit and columns of history.csv
    "vae": [
        ("ELBO", "nats per image", ("train_elbo", "test_elbo", "validation_elbo")),
        (
            "Reconstruction",
            "nats per image",
            ("train_reconstruction", "test_reconstruction", "validation_reconstruction"),
        ),
        ("KL(q(z|x) || p(z))", "nats per image", ("train_kl", "test_kl", "validation_kl")),
    ],
    "gan": [
        ("Losses of D and G", "nats", ("loss_d", "loss_g")),
        ('D\'s probability of "real"', "mean", ("d_real", "d_fake")),
        ("Fréchet distance", "to training images", ("frechet_train",)),
    ],
    "diffusion": [
        ("Loss", "with its own noise", ("loss", "average_loss")),
        ("Excess loss", "σ²/2 |s − best|²", ("score_error",)),
    ],
}
GLOSSES = {  # readable names of the main numbers of metrics.json
    "vae": {
        "test_elbo": "ELBO of test images",
        "test_elbo_stderr": "standard error of the ELBO",
        "test_reconstruction": "reconstruction E[log p(x|z)]",
        "test_kl": "KL(q(z|x) || p(z))",
        "test_importance_weighted_bound": "importance-weighted bound",
        "test_importance_weighted_bound_stderr": "standard error of that bound",
        "iwae_samples": "samples of that bound",
        "test_log_likelihood_exact": "exact log p(x), by integral",
        "test_log_likelihood_exact_stderr": "standard error of the exact log p(x)",
        "test_log_likelihood_exact_error": "numerical error of the integral",
        "train_log_likelihood_exact": "exact log p(x) of training images",
        "test_elbo_ignoring_z": "log p(x) of a decoder that ignores z",
    },
    "gan": {
        "loss_d": "loss of D, last epoch",
        "loss_g": "loss of G, last epoch",
        "d_real": "mean of D(x), last epoch",
        "d_fake": "mean of D(G(z)), last epoch",
        "best_epoch": "epoch of the measured samples",
        "frechet_distance": "Fréchet distance to test images",
        "frechet_distance_real": "Fréchet distance between real images",
        "frechet_distance_last": "Fréchet distance of the last epoch",
        "inception_score": "Inception-style score, 1 to 10",
        "inception_score_real": "Inception-style score of real images",
        "precision": "share of samples that look real",
        "recall": "share of real images that G covers",
        "precision_real": "that precision for real images",
        "recall_real": "that recall for real images",
        **{f"share_{digit}": f"share of the digit {digit}" for digit in range(10)},
        "nearest_distance": "distance to the nearest training image",
        "nearest_distance_real": "that distance for test images",
        "classifier_accuracy": "accuracy of the classifier that measures",
    },
    "diffusion": {
        "average_loss": "loss",
        "optimal_loss": "least possible loss",
        "score_error": "excess over a perfect score",
        "cosine_lowest_from_0.03": "lowest cosine to the best score, σ ≥ 0.03",
        "outside_cosine": "cosine to the best score, far from the data",
        "outside_share_towards_data": "share of arrows there that point to the data",
        "sliced_wasserstein": "distance of samples to data",
        "sliced_wasserstein_data": "distance of two draws of data",
        "far_share": "share of samples far from every letter",
    },
}

# ------------------------------------------------------------------------------------------------ numbers in a page


class Bytes(NamedTuple):
    """A matrix with one signed byte for each weight; the weight is the byte times the scale of its row."""

    values: np.ndarray  # int8 [rows,columns]
    scale: np.ndarray  # float32 [rows]


TYPES = {"float16": "f2", "float32": "f4", "uint8": "u1", "bool": "bits"}


def pack(value):
    """Arrays, also in lists or dicts, as {type, shape, data}: little-endian bytes in base64, 8 binary pixels a byte."""
    if isinstance(value, Bytes):
        data = base64_text(value.values.tobytes())
        return {"type": "i1", "shape": value.values.shape, "data": data, "scale": pack(value.scale)}
    if isinstance(value, np.ndarray):
        content = np.packbits(value) if value.dtype == bool else value.astype(value.dtype.newbyteorder("<"))
        return {"type": TYPES[value.dtype.name], "shape": value.shape, "data": base64_text(content.tobytes())}
    if isinstance(value, dict):
        return {name: pack(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [pack(each) for each in value]
    return value


def base64_text(content):
    return base64.b64encode(content).decode("ascii")


def halves(tensor):
    """float16 of a tensor; values too large for it become the largest that it has."""
    return tensor.detach().cpu().float().clamp(-65504, 65504).numpy().astype(np.float16)


def row_bytes(tensor):
    """A byte for each weight of a matrix [rows,columns], rounded to 1/127 of the largest of its row."""
    matrix = tensor.detach().cpu().float()
    scale = matrix.abs().amax(1).clamp(min=1e-30) / 127
    return Bytes((matrix / scale[:, None]).round().to(torch.int8).numpy(), scale.numpy())


def restored(value):
    """What the page reads from an array: float32."""
    return value.values * value.scale[:, None] if isinstance(value, Bytes) else value.astype(np.float32)


def linear(weight, bias, small=False):
    """A fully connected layer as the page has it; `small`: with a byte for each weight."""
    return {
        "kind": "linear",
        "inputs": weight.shape[1],
        "outputs": weight.shape[0],
        "weight": row_bytes(weight) if small else halves(weight),
        "bias": halves(bias),
    }


def layers_of(network, small=False):
    """The layers of a network whose modules run in the order in which they are registered, as a list of dicts.

    Batch normalisation is part of the layer before it, with the statistics of evaluation mode.
    """
    layers, last = [], None
    for module in network.modules():
        if isinstance(module, nn.Linear):
            last = module.weight, module.bias
            layers.append(linear(*last, small))
        elif isinstance(module, nn.BatchNorm1d):
            factor = module.weight / torch.sqrt(module.running_var + module.eps)
            bias = (last[1] - module.running_mean) * factor + module.bias
            layers[-1] = linear(last[0] * factor[:, None], bias, small)
        elif isinstance(module, nn.Conv2d):
            before = [each for each in layers if "weight" in each]
            if before and before[-1]["kind"] == "linear":  # whose outputs become images of so many channels
                before[-1]["channels"] = module.in_channels
            layers.append(
                {
                    "kind": "conv",
                    "inputs": module.in_channels,
                    "outputs": module.out_channels,
                    "padding": module.padding[0],
                    "weight": halves(module.weight),
                    "bias": halves(module.bias),
                }
            )
        elif isinstance(module, nn.LeakyReLU):
            layers.append({"kind": "leaky_relu", "slope": module.negative_slope})
        elif isinstance(module, (nn.ReLU, nn.Sigmoid, nn.Tanh, nn.Softplus)):
            layers.append({"kind": type(module).__name__.lower()})
        elif isinstance(module, nn.Upsample):
            layers.append({"kind": "upsample"})
        elif isinstance(module, nn.MaxPool2d):
            layers.append({"kind": "pool"})
        elif not list(module.children()) and not isinstance(module, (nn.Flatten, nn.Unflatten)):
            raise TypeError(f"explore.html cannot run a {type(module).__name__}")
    return layers


def weights_of(*networks):
    return sum(weight.numel() for network in networks for weight in network.parameters())


def bytes_of_images(images):
    """Images with values in [0,1] as uint8 0..255."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def too_large(count):
    return {
        "model": None,
        "precision": "nothing: it has no model",
        "note": f"The networks have {count:,} weights and a page holds {MOST:,} at most. So it shows no model.",
    }


def how_kept(small):
    return "one byte for each weight" if small else "float16 weights"


# ---------------------------------------------------------------------------------------------------------- VAE

SHOWN = 2000  # test codes in the latent plane
LOADABLE = 300  # test images that can be loaded where a pixel takes a byte
GAPS = 10  # test images with the largest gap
POINTS = 128  # of the posterior's grid in each direction


ACTIVATIONS = {"cs446": "tanh", "uva": "relu", "ese546": "tanh", "hw8": "relu"}
SCALES = {"cs446": "log_variance", "uva": "deviation", "ese546": "log_variance", "hw8": "log_variance"}


@torch.no_grad()
def describe_vae(experiment, findings):
    """What the page needs of a VAE: both networks, test codes and images; for two latents also the posterior's grid.

    findings["gap"] [N], for two latents: how far the bound of each test image is below its log p(x).
    """
    model = experiment.homework
    encoder, decoder, binary = model.encoder, model.decoder, model.pixels != "gray"
    count, latent = weights_of(encoder, decoder), experiment.args.latent_dimension
    if count > MOST:
        return {"edition": experiment.args.edition, **too_large(count)}
    small = count > HALVES
    activation = {"kind": ACTIVATIONS[experiment.args.edition]}
    layer = lambda part: linear(part.weight, part.bias, small)
    images, labels = experiment.test_images, experiment.test_labels.cpu().argmax(1)
    mu, sigma_square = (part.cpu() for part in encoder(images[:SHOWN]))
    images = images.cpu()
    shown = images[: SHOWN if binary else LOADABLE]
    described = {
        "latent": latent,
        "scale": SCALES[experiment.args.edition],
        "pixels": model.pixels,
        "side": math.isqrt(images.shape[1]),
        "encoder": [layer(encoder.fc1), activation],
        "mu": [layer(encoder.fc2_mu)],
        "sigma": [layer(encoder.fc2_sigma)],
        "decoder": [layer(decoder.fc1), activation, layer(decoder.fc2)],  # to logits
        "codes": halves(mu[: SHOWN if latent == 2 else LOADABLE]),
        "labels": labels[:SHOWN].to(torch.uint8).numpy(),
        "images": shown.numpy() > 0.5 if binary else bytes_of_images(shown),
        # Which latents say something of an image: the mean KL of each, in nats
        "kl": (0.5 * (sigma_square + mu**2 - 1 - sigma_square.log())).mean(0).tolist(),
    }
    if latent == 2:
        reach = min(12.0, max(4.0, (mu.abs() + 4 * sigma_square.sqrt()).max().item()))
        described |= grid_of(described["decoder"], reach)
        gap = findings.get("gap", torch.zeros(0))
        worst = gap.argsort(descending=True, stable=True)[:GAPS]
        described |= {
            "gap_images": images[worst].numpy() > 0.5 if binary else bytes_of_images(images[worst]),
            "gap_labels": labels[worst].to(torch.uint8).numpy(),
            "gap_numbers": worst.tolist(),
        }
    told = (
        f"From epoch {experiment.args.num_epoches + 1} on the encoder alone was trained, on deformed images, "
        "which are harder to explain."
    )
    return {
        "edition": experiment.args.edition,
        "model": described,
        "precision": how_kept(small),
        "note": "",
        "told": told if experiment.args.refine_encoder else "",
    }


def decoder_logits(layers, z):
    """The decoder's logits [N,D] at z [N,2], with the weights that the page holds."""
    first, activation, second = layers
    weights = [torch.from_numpy(restored(each[name])) for each in (first, second) for name in ("weight", "bias")]
    return F.linear(getattr(torch, activation["kind"])(F.linear(z, *weights[:2])), *weights[2:])


def grid_of(layers, reach):
    """What log p(x|z) = x . logits - sum of softplus(logits) needs on the grid, but for x: the sums [points*points].

    With these the page finds log p(x|z) of any x at all points by one product with the hidden units, in milliseconds.
    """
    line = torch.linspace(-reach, reach, POINTS)
    sums = [F.softplus(decoder_logits(layers, z)).sum(1) for z in torch.cartesian_prod(line, line).split(2048)]
    return {"reach": reach, "points": POINTS, "softplus_sums": torch.cat(sums).numpy()}


# ---------------------------------------------------------------------------------------------------------- GAN

NEIGHBOURS = 300  # training images that the page holds
SAMPLES = 20  # of the first grid
DIRECTIONS = 6


@torch.no_grad()
def describe_gan(experiment, findings):
    """What the page needs of a GAN: both networks, earlier generators, noise, directions, and some training images."""
    model = experiment.homework
    count = weights_of(model.sampler, model.disc)
    if count > MOST:
        return {"edition": experiment.args.edition, **too_large(count)}
    small = count > HALVES
    snapshots = {epoch: (f"after epoch {epoch}", weights) for epoch, weights in experiment.record["snapshots"]}
    if best := experiment.record["best"]:
        snapshots[best["epoch"]] = f"after epoch {best['epoch']}, the best", best["gen"]
    snapshots.pop(len(experiment.record["history"]), None)  # the end of the run, which is shown anyway
    fit = count + len(snapshots) * weights_of(model.sampler) <= HALVES
    z, earlier = model.fixed_z[:SAMPLES].cpu().float(), []
    for _, (name, weights) in sorted(snapshots.items()):
        gen = copy.deepcopy(model.sampler).cpu().eval()
        gen.load_state_dict(weights)
        if fit:
            earlier.append({"name": name, "layers": layers_of(gen)})
        else:
            earlier.append({"name": name, "images": bytes_of_images(model.generate(z, gen).flatten(1))})
    first = next(each for each in model.sampler.modules() if isinstance(each, nn.Linear))
    _, strengths, directions = torch.linalg.svd(first.weight.cpu().float(), full_matrices=False)
    directions = directions[:DIRECTIONS]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    directions = directions * largest.sign()  # else the sign would be an accident of the library
    described = {
        "zdim": model._zdim,
        "noise": "uniform" if model.fixed_z.abs().max() <= 1 else "normal",
        "darkest": round(model.scale(model.train_images[:1] * 0).min().item()),
        "z": z.numpy(),
        "earlier": earlier,
        "generator": layers_of(model.sampler, small),
        "discriminator": layers_of(model.disc, small),
        "directions": halves(directions),
        "strengths": (strengths / strengths.norm())[:DIRECTIONS].tolist(),
        "train": model.train_images[:NEIGHBOURS].cpu().flatten(1).numpy(),
    }
    note = "" if fit else "Generators of earlier epochs do not fit; the page holds their images of the run's own noise."
    return {"edition": experiment.args.edition, "model": described, "precision": how_kept(small), "note": note}


# ------------------------------------------------------------------------------------------------------ diffusion


@torch.no_grad()
def describe_diffusion(experiment, findings):
    """What the page needs of score matching: the averaged network, the data, the noise levels, how sampling goes."""
    model = experiment.homework
    network = model.sampler
    parts = [module for module in network.modules() if isinstance(module, nn.Linear)]
    between = {"kind": "relu" if hasattr(network, "frequencies") else "softplus"}
    layers = [layer for part in parts for layer in (linear(part.weight, part.bias), between)][:-1]
    described = {
        "layers": layers,
        "frequencies": network.frequencies.tolist() if hasattr(network, "frequencies") else None,
        "data": model.train_data.cpu().float().numpy(),
        "levels": model.noise_levels.cpu().double().tolist(),
        "window": [[float(end) for end in ends] for ends in model.window],
        "word": experiment.args.word,
        "steps": experiment.args.langevin_steps,
        "eps": experiment.args.langevin_eps,
        "start": list(model.start),
    }
    return {"edition": experiment.args.edition, "model": described, "precision": how_kept(False), "note": ""}


# ------------------------------------------------------------------------------------------------------- the page

DESCRIBE = {"vae": describe_vae, "gan": describe_gan, "diffusion": describe_diffusion}


def write_explore(experiment, metrics, kept, folder, findings):
    """explore.html of a run: its model, metrics, `kept` (a dict of command, seed, ...), and the figures in `folder`."""
    figures = [(path.name, path.read_bytes()) for path in sorted(folder.glob("*.png")) if FIGURE.fullmatch(path.name)]
    kind = experiment.kind
    run = {
        "title": f"{TITLES[kind]}, edition {experiment.args.edition}",
        "command": kept["command"],
        "seed": kept["seed"],
        "metrics": metrics,
        "history": experiment.record["history"],
        "figures": figures,
    }
    write_page(folder / "explore.html", kind, DESCRIBE[kind](experiment, findings), run)


def write_page(path, kind, description, run):
    """Write explore.html at `path`: the same run always gives the same bytes.

    kind: "vae", "gan" or "diffusion"; description: of describe_vae() and its like. run: a dict of title, command, seed,
    metrics {name: value}, history [row, ...] and figures [(name, PNG bytes), ...], which show without JavaScript.
    """
    write(path, page(kind, description, run).encode("utf-8"))


def page(kind, description, run):
    """The page as text."""
    read = lambda name: (HERE / name).read_text(encoding="utf-8")
    script, style = read("explore.js") + read(f"explore_{kind}.js") + "curves();\n", read("explore.css")
    rows = [{name: round(value, 5) for name, value in numbers(row).items()} for row in run["history"]]
    columns = set().union(*rows) if rows else set()
    curves = [
        {"title": title, "unit": unit, "series": [name for name in names if name in columns]}
        for title, unit, names in CURVES[kind]
        if columns & set(names)
    ]
    data = {
        "edition": description["edition"],
        "model": pack(description["model"]),
        "history": rows,
        "curves": curves,
        "told": description.get("told", ""),
    }
    content = {
        # Nothing is loaded from anywhere, and no script or style runs but these two
        "policy": f"default-src 'none'; script-src '{sha256(script)}'; style-src '{sha256(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        "kind": kind,
        "title": html.escape(run["title"]),
        "lead": html.escape(LEADS[kind]),
        "command": html.escape(without_folders(run["command"])),
        "seed": html.escape(str(run["seed"])),
        "metrics": metrics_list(run["metrics"], GLOSSES[kind]),
        "figures": figures_list(run["figures"], FIGURES[kind]),
        "precision": html.escape(description["precision"]),
        "note": html.escape(description["note"]),
        "data": json_in_html(data),
        "style": style,
        "script": script,
    }
    # In one pass, so that no text of the user's is taken for a place to fill in
    return re.sub(r"\[\[(\w+)\]\]", lambda place: content[place[1]], read("explore.html"))


def sha256(text):
    """As a content security policy names a script or a style."""
    return f"sha256-{base64_text(hashlib.sha256(text.encode('utf-8')).digest())}"


def json_in_html(data):
    """JSON that no HTML parser can leave: < and its like are written as \\u003c."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def without_folders(command):
    """A command with the last part alone of every absolute path: a page tells nobody where it was made."""
    absolute = re.compile(r"(--\w+=)?(?:[A-Za-z]:)?[\\/](?:.*[\\/])?(.+)")
    words = shlex.split(command)
    return shlex.join(absolute.sub(r"\1\2", word) if absolute.fullmatch(word) else word for word in words)


def numbers(row):
    """The finite numbers of a row but for times and threads, which differ from run to run."""
    left_out = {"seconds", "threads", "seed"}
    return {
        name: value
        for name, value in row.items()
        if name not in left_out
        and isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def metrics_list(metrics, glosses):
    """Readable names with the raw ones in small print; a number without a gloss has its raw name."""
    rows = []
    for name, value in numbers(metrics).items():
        raw = html.escape(name)
        words = f"{html.escape(glosses[name])} <small>{raw}</small>" if name in glosses else raw
        rows.append(f"<div><dt>{words}</dt><dd>{value:.6g}</dd></div>\n")
    return f'<dl class="metrics">\n{"".join(rows)}</dl>'


def figures_list(figures, room):
    """Figures as they fit into `room` bytes of base64, in their order; the others, and damaged ones, are named."""
    shown, left = [], []
    for name, content in figures:
        try:
            text = base64_text(smaller(content))
        except OSError:  # no image, or one that ends too soon
            text = None
        if text is None or len(text) > room:
            left.append(name)
            continue
        room -= len(text)
        image, name = f"data:image/png;base64,{text}", html.escape(name)
        shown.append(f'<figure><img src="{image}" alt="{name}"><figcaption>{name}</figcaption></figure>')
    if left:
        shown.append(f"<p>Also beside this file: {html.escape(', '.join(left))}</p>")
    return "\n".join(shown)


def smaller(content, width=640, colours=32):
    """A PNG figure of no more than this width and so many colours."""
    from PIL import Image  # comes with matplotlib

    image = Image.open(io.BytesIO(content)).convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.quantize(colours).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
