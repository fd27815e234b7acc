"""explore.html: one self-contained page, opened by a double click, in which the model of a run lives.

    write_explore(experiment, metrics, kept, folder, findings)   # what a run calls at its end

describe.py says what the page needs of a model, layers.py describes its networks and checks that the page computes what
they compute. explore.html is the frame of the page, explore.css its looks. maths.js and pieces.js serve all pages,
images.js those of images. Each model has a file of maths (vae_model.js) and one of panels (vae.js). The same run always
gives the same bytes.
"""

import base64
import hashlib
import html
import io
import json
import math
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import numpy as np

from hw5_lab.page.describe import DESCRIBE
from hw5_lab.page.layers import Bytes, CannotRun
from hw5_lab.runs.folder import FIGURE, write

HERE = Path(__file__).resolve().parent
FIGURES = {"vae": 350_000, "gan": 190_000, "diffusion": 118_000}  # bytes for the static figures, as base64
TITLES = {"vae": "Variational autoencoder", "gan": "Generative adversarial network", "diffusion": "Score matching"}
TASKS = {
    "vae": "Draw {a}, then add a stroke that does not belong to it: how many nats does it cost?",
    "gan": "Find the sample with the lowest D(x): which of its pixels give it away?",
    "diffusion": "Press Play: at which noise level σ can you first read the word?",
}
WORDS = {  # whether the data are digits: what their images and classes are called
    True: {"thing": "digit", "a": "a digit", "kinds": "digits"},
    False: {"thing": "image", "a": "an image", "kinds": "classes"},
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
        ("Loss", "mean over the epoch, and at its end", ("loss", "average_loss")),
        ("Excess loss", "σ²/2 |s − best|²", ("score_error",)),
    ],
}
GLOSSES = {  # readable names of the numbers of metrics.json that the page shows
    "vae": {
        "test_elbo": "ELBO of test images",
        "test_reconstruction": "reconstruction E[log p(x|z)]",
        "test_kl": "KL(q(z|x) || p(z))",
        "test_importance_weighted_bound": "importance-weighted bound",
        "iwae_samples": "draws of z for the importance-weighted bound",
        "test_log_likelihood_exact": "exact log p(x), by integral",
        "test_log_likelihood_exact_error": "numerical error of the integral",
        "train_log_likelihood_exact": "exact log p(x) of training images",
        "test_elbo_ignoring_z": "log p(x) of a decoder that ignores z",
    },
    "gan": {
        "loss_d": "loss of D, last epoch",
        "loss_g": "loss of G, last epoch",
        "d_real": "mean of D(x), last epoch",
        "d_fake": "mean of D(G(z)), last epoch",
        "best_epoch": "epoch of the measured samples, the best",
        "frechet_distance": "Fréchet distance to test images",
        "frechet_distance_real": "Fréchet distance between real images",
        "frechet_distance_last": "Fréchet distance to test images, last epoch",
        "inception_score": "Inception-style score, 1 to 10",
        "inception_score_real": "Inception-style score of real images",
        "precision": "precision: share of samples that lie near a real image (noise can reach 100% too)",
        "recall": "recall: share of real images that lie near a sample",
        "precision_real": "precision between two halves of the real images",
        "recall_real": "recall between two halves of the real images",
        "nearest_distance": "median distance of a sample to its nearest training image",
        "nearest_distance_real": "median distance of a test image to its nearest training image",
        "classifier_accuracy": "accuracy of the classifier that measures",
    },
    "diffusion": {
        "average_loss": "loss at the end",
        "optimal_loss": "least possible loss",
        "score_error": "excess over a perfect score, computed apart from both losses",
        "cosine_lowest_from_0.03": "lowest cosine to the best score, σ ≥ 0.03",
        "outside_cosine": "cosine to the best score, far from the data",
        "outside_share_towards_data": "share of the scores far from the data that point towards it",
        "sliced_wasserstein": "distance of samples to data",
        "sliced_wasserstein_data": "distance of two draws of data",
        "far_share": "share of samples far from every letter",
    },
}

CAPTIONS = {  # what the figures show, where no script runs
    "data": "The training data",
    "data_space": "Images decoded from z of the prior",
    "elbo": "The ELBO over the epochs",
    "gap": "The gap between log p(x) and the ELBO",
    "goal": "Training images",
    "inter_class_interpolation": "Paths between codes of two classes",
    "interpolation": "Paths between two z",
    "latent_space": "Means of q(z|x), training images",
    "losses": "Losses over the epochs",
    "manifold": "Decoded images all over the latent plane",
    "quality": "Shares of the classes, and samples above their nearest training images",
    "reconstructions": "Test images and their reconstructions",
    "samples": "Samples",
    "score_field": "The score that was learned",
    "trajectories": "Ways of samples from noise to data",
    "updates": "Both terms of the bound in each minibatch",
}

# ------------------------------------------------------------------------------------------------ numbers in a page

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


# ---------------------------------------------------------------------------------------------------------- the page


def write_explore(experiment, metrics, kept, folder, findings):
    """explore.html of a run: its model, metrics, `kept` (a dict of command, seed, ...), and the figures in `folder`.

    A model that the page cannot show, for whatever reason, is no fault of the run: the page says so, and shows figures.
    """
    names = [path.name for path in folder.glob("*.png") if FIGURE.fullmatch(path.name)]
    figures = [(name, (folder / name).read_bytes()) for name in in_order(names)]
    run = {
        "title": f"{TITLES[experiment.kind]}, edition {experiment.args.edition}",
        "command": kept["command"],
        "seed": kept["seed"],
        "metrics": metrics,
        "history": experiment.record["history"],
        "figures": figures,
        "digits": " the images of " not in kept["data"],
    }
    text = page(experiment.kind, description(experiment, findings), run)
    write(folder / "explore.html", text.encode("utf-8"))


def in_order(names):
    """Names of figures: the samples of the last epoch first, those of earlier epochs last."""
    grids = sorted((name for name in names if name.startswith("samples_epoch_")), key=lambda name: -epoch_of(name))
    return [*grids[:1], *sorted(set(names) - set(grids)), *grids[1:]]


def epoch_of(name):
    return float(re.search(r"\d+(\.\d+)?", name)[0])


def description(experiment, findings):
    """What describe.py says of the model, packed, or {"model": None, "reason": why the page cannot run it}."""
    try:
        found = DESCRIBE[experiment.kind](experiment, findings)
        found["model"] = pack(found["model"])
        json_in_html(found["model"])  # which refuses what is not finite
        return found
    except CannotRun as reason:
        return {"model": None, "reason": str(reason)}
    except Exception as error:  # a student's class may be anything; the run's results do not depend on the page
        reason = f"{type(error).__name__}: {error}"
        print(f"explore.html shows no model ({reason}).", file=sys.stderr)
        return {"model": None, "reason": reason}


def page(kind, description, run):
    """The page as text.

    kind: "vae", "gan" or "diffusion"; description: of describe_vae() and its like. run: a dict of title, command, seed,
    digits (whether the data are), metrics {name: value}, history [row, ...] and figures [(name, PNG bytes), ...], which
    show where no script runs.
    """
    read = lambda name: (HERE / name).read_text(encoding="utf-8")
    images = [] if kind == "diffusion" else ["images.js"]
    scripts = "maths.js", "pieces.js", *images, f"{kind}_model.js", f"{kind}.js", "start.js"
    script, style = (without_comments("\n".join(map(read, names))) for names in (scripts, ["explore.css"]))
    rows = [{name: round(value, 5) for name, value in numbers(row).items()} for row in run["history"]]
    columns = set().union(*rows) if rows else set()
    curves = [
        {"title": title, "unit": unit, "series": [name for name in names if name in columns]}
        for title, unit, names in CURVES[kind]
        if columns & set(names)
    ]
    words = WORDS[run["digits"]]
    shares = [run["metrics"].get(f"share_{digit}") for digit in range(10)]
    data = {
        "kind": kind,
        **words,
        "model": description["model"],
        "history": rows,
        "curves": curves,
        "told": description.get("told", ""),
        "shares": shares if None not in shares else None,
        "measured": run["metrics"].get("best_epoch"),
    }
    reason = description.get("reason")
    content = {
        # Nothing is loaded from anywhere, and no script or style runs but these two
        "policy": f"default-src 'none'; script-src '{sha256(script)}'; style-src '{sha256(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        "kind": kind,
        "title": html.escape(run["title"]),
        "task": html.escape("" if reason else TASKS[kind].format(**words)),
        "command": html.escape(without_folders(run["command"])),
        "seed": html.escape(str(run["seed"])),
        "metrics": metrics_list(run["metrics"], GLOSSES[kind]),
        "figures": figures_list(run["figures"], FIGURES[kind]),
        "reason": html.escape(
            f"This page cannot run the networks of this run. {reason[0].upper()}{reason[1:]}. So it shows the figures."
            if reason
            else "The panels of this page need JavaScript, which is blocked or switched off. These are the figures."
        ),
        "precision": "one byte for each weight" if description.get("small") else "float16 weights",
        "note": html.escape(description.get("note", "")),
        "data": json_in_html(data),
        "style": style,
        "script": script,
    }
    # In one pass, so that no text of the user's is taken for a place to fill in
    return re.sub(r"\[\[(\w+)\]\]", lambda place: content[place[1]], read("explore.html"))


def without_comments(text):
    """JavaScript or CSS without indentation and comments, which a page has no use for."""
    text = re.sub(r"/\*\*.*?\*/", "", text, flags=re.DOTALL)
    lines = (re.sub(r"(^|\s)// .*", "", line).strip() for line in text.splitlines())
    return "\n".join(filter(None, lines))


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
    shown = lambda word: shlex.quote(absolute.sub(r"\1\2", word) if absolute.fullmatch(word) else word)
    words = shlex.split(command)
    for index, following in enumerate(words[1:]):
        end = ";" if following == "python" and words[index].endswith(";") else ""  # of a run that was extended
        words[index] = shown(words[index].removesuffix(end)) + end
    return " ".join([*words[:-1], shown(words[-1])])


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
    """Readable names with the raw ones in small print. A number without a gloss is in metrics.json alone."""
    found = numbers(metrics)
    if "test_importance_weighted_bound" not in found:
        found.pop("iwae_samples", None)  # a setting of a bound that is not there
    rows = [
        f"<div><dt>{html.escape(glosses[name])} <small>{name}</small></dt><dd>{with_unit(name, found)}</dd></div>\n"
        for name in found
        if name in glosses
    ]
    return f'<dl class="metrics">\n{"".join(rows)}</dl>'


SHARES = ("d_real", "d_fake", "precision", "recall", "classifier_accuracy", "outside_share", "far_share")


def with_unit(name, found):
    """A number as its standard error, where there is one, lets it be known; nats of a VAE, percent of shares."""
    value, error = found[name], found.get(f"{name}_stderr", 0)
    if name.startswith(SHARES):
        return f"{100 * value:.3g}%"
    if isinstance(value, int):
        return f"{value:,}"
    minus = lambda text: text.replace("-", "−")
    unit = " nats" if name.startswith(("test_", "train_log")) else ""
    if not error:
        return minus(f"{value:.4g}{unit}")
    digits = max(0, -math.floor(math.log10(error)))
    return minus(f"{value:.{digits}f} ± {error:.{digits}f}{unit}")


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
        image, file, words = f"data:image/png;base64,{text}", html.escape(name), html.escape(caption(name))
        text = f"<figcaption><span>{words} <code>{file}</code></span></figcaption>"
        shown.append(f'<figure><img src="{image}" alt="{words}">{text}</figure>')
    if left:
        shown.append(f"<p>Also beside this file: {html.escape(', '.join(left))}</p>")
    return "\n".join(shown)


def caption(name):
    return f"Samples after epoch {epoch_of(name):g}" if "_epoch_" in name else CAPTIONS.get(name[:-4], name)


@cache  # the page is written twice
def smaller(content, width=500, colours=128):
    """A PNG figure of no more than this width and so many colours. An octree, unlike a median cut, keeps rare hues."""
    from PIL import Image  # comes with matplotlib

    image = Image.open(io.BytesIO(content)).convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
