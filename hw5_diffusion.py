"""Homework 5, part 3: score matching and annealed Langevin dynamics on points of the plane that spell a word.

    python hw5_diffusion.py                 # trains, then writes figures, history and metrics to outputs/diffusion/

The network learns the score, the gradient of the log density, of the data with Gaussian noise of ten levels; sampling
follows it from pure noise to the data, level by level. Expect, after 6,000 steps in less than a minute, samples at a sliced
Wasserstein distance of 0.015 from the data, where two draws of the data are 0.006 apart; with --edition s24, after 20,000
larger steps in nine minutes, 0.026 where these are 0.027 apart. README.md maps the questions to the functions below.
"""

import argparse
import copy
import math
import time
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import hw5_utils as utils

# ------------------------------------------------------------------------------------------------- editions

# optimizer: "adam", or "muon" for the matrices between hidden layers; begin, end: the largest and the smallest sigma; start:
# mean and deviation of x before sampling; height: of the word, least and most; width: the word's at most; window: half the
# width and height that figures show
EDITIONS = {
    "cs446": dict(  # University of Illinois, 2022
        optimizer="adam", n_epochs=60, batch_size=500, begin=0.1, end=0.01, start=(0.5, 1 / 3), centre=0.5, height=(0.1, 0.4),
        width=0.9, window=(0.5, 0.5)),
    "s24": dict(
        optimizer="muon", n_epochs=200, batch_size=2000, begin=0.3, end=0.01, start=(0.0, 1.0), centre=0.0, height=(1.0, 1.0),
        width=6.0, window=(2.5, 1.0)),
}
DEFAULTS = dict(edition="cs446", word="CS446", lr=4e-3, ema_decay=0.999, samples=2000, langevin_steps=100, langevin_eps=2e-5,
                seed=446, resume_training=False)
LEVELS = 10  # of noise
POINTS = 2000  # of data
STEPS = 100  # of training between two checkpoints: an epoch, here
PLOTTED_SIGMA = 0.03  # of the score field
PAIRS = 10  # of draws of data, whose distances are the yardstick for samples

# ----------------------------------------------------------------------------------------------------- data


def draw_word(word, count, generator, height, width, centre=0.0):
    """`count` points [count,2], uniform over the strokes of `word`, and the index [count] of the letter that each is of.

    The word is centred and as high as height[1], or less to fit the width, but not less than height[0]. A letter's share
    of the points is that of its ink. ValueError for a word without ink, with unknown characters, or too long.
    """
    from matplotlib.font_manager import FontProperties, findfont, get_font  # here: matplotlib would slow down every start
    from matplotlib.path import Path as Outline
    from matplotlib.textpath import TextPath

    if not word.strip():
        raise utils.Fault("--word: empty; name at least one letter")
    font = FontProperties(family="DejaVu Sans")  # comes with matplotlib
    face = get_font(findfont(font))
    unknown = [letter for letter in word if not face.get_char_index(ord(letter))
               or not (letter.isspace() or face.load_char(ord(letter)).width)]  # the latter: a character without ink
    if unknown:
        raise utils.Fault(f"--word {word!r}: DejaVu Sans has no {', '.join(map(repr, unknown))}; use other characters")
    letters, right = [], 0.0  # each letter's closed outlines; in units of the font's size, as is all until the last lines
    for letter in word:
        if letter.isspace():
            right += 0.3
            continue
        outlines = TextPath((0, 0), letter, size=100, prop=font).to_polygons()  # exact to less than a unit: so size 100, not 1
        left = min(outline[:, 0].min() for outline in outlines)
        letters.append([outline / 100 + [right - left / 100, 0] for outline in outlines])
        right = max(outline[:, 0].max() for outline in letters[-1]) + 0.12
    corners = np.concatenate(sum(letters, []))
    low, high = corners.min(0), corners.max(0)
    extent = high - low
    tall = max(extent[1], 0.7)  # a dash is not to fill the canvas
    scale = min(height[1] / tall, width / extent[0])
    if scale * tall < height[0] * (1 - 1e-9):  # but for rounding
        raise utils.Fault(f"--word {word!r}: too long, {extent[0] / tall:.1f} times as wide as high where the canvas has room "
                          f"for {width / height[0]:g}; use fewer letters")

    def inked(outlines, x):
        """Whether x [N,2] is inside an odd number of the outlines: between the outer one of an O and the inner one."""
        return np.logical_xor.reduce([Outline(outline).contains_points(x) for outline in outlines])

    points, indices, found = [], [], 0
    while found < count:
        x = low + extent * torch.rand(4 * count, 2, generator=generator, dtype=torch.double).numpy()
        inside = np.stack([inked(outlines, x) for outlines in letters], 1)  # [4 count, letters]
        points.append(x[inside.any(1)])
        indices.append(inside.argmax(1)[inside.any(1)])
        found += len(points[-1])
    points = (np.concatenate(points)[:count] - (low + high) / 2) * scale + centre
    return torch.from_numpy(points).float(), torch.from_numpy(np.concatenate(indices)[:count])


# ---------------------------------------------------------------------------------------------------- maths


def generate_noise_levels(begin, end, levels):
    """Geometric sequence [levels] of standard deviations from begin to end, both included."""
    return begin * (end / begin) ** (torch.arange(levels) / max(levels - 1, 1))


def column(sigma, x):
    """sigma as [N,1] beside x [N,2]; it may be a number, a scalar tensor, [N] or [N,1]."""
    return torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1).expand(len(x), 1)


def perturb(x, sigmas, generator=None):
    """x [N,2] plus Gaussian noise, whose deviation is drawn for each point from sigmas [L]; the sum, and sigma [N,1]."""
    sigma = sigmas[torch.randint(len(sigmas), (len(x), 1), generator=generator, device=x.device)]
    return x + sigma * torch.randn(x.shape, generator=generator, device=x.device), sigma


def weighted_error(score, target, sigma):
    """sigma^2 / 2 * |score - target|^2 of each point, [N]: about as large at every sigma, as scores grow like 1/sigma."""
    return (sigma**2 / 2 * (score - target) ** 2).sum(1)


def compute_denoising_loss(scorenet, training_data, sigmas, generator=None):
    """Denoising score matching, to be minimised: mean of sigma^2/2 |s(x~,sigma) + (x~-x)/sigma^2|^2 for x~ = x + sigma noise.

    training_data [N,2], sigmas [L]; one sigma, drawn uniformly, and one noise for each point. Its minimum is above 0 and
    reached by the score of the perturbed data (Vincent 2011; weights of Song and Ermon 2019).
    """
    x = torch.as_tensor(training_data, dtype=torch.float32)
    noisy, sigma = perturb(x, torch.as_tensor(sigmas, dtype=x.dtype, device=x.device), generator)
    return weighted_error(scorenet(noisy, sigma), (x - noisy) / sigma**2, sigma).mean()


@torch.no_grad()
def langevin_dynamics(scorenet, x, sigmas, iterations, eps, generator=None):
    """Annealed Langevin dynamics from x [n,2]; yields x after each step, `iterations` of them for every level of sigmas [L].

    x + alpha s(x,sigma) + sqrt(2 alpha) noise with alpha = eps sigma^2 / sigma_L^2 (Song and Ermon 2019, who call alpha
    half of theirs). Stable for eps < 2 sigma_L^2; the variance is too large by the factor 1 / (1 - eps / (2 sigma_L^2)).
    """
    for sigma in sigmas:
        alpha = float(eps * (sigma / sigmas[-1]) ** 2)
        for _ in range(iterations):
            noise = torch.randn(x.shape, generator=generator, device=x.device)
            x = x + alpha * scorenet(x, sigma) + math.sqrt(2 * alpha) * noise
            yield x


def langevin_dynamics_sample(scorenet, n_samples, sigmas, iterations=100, eps=2e-5, return_traj=False, generator=None):
    """Samples [n,2] by annealed Langevin dynamics from N(0, I); with return_traj all steps [n, L*iterations, 2]."""
    device = next((parameter.device for parameter in scorenet.parameters()), "cpu")
    x = torch.randn(n_samples, 2, generator=generator, device=device)
    steps = []
    for x in langevin_dynamics(scorenet, x, sigmas, iterations, eps, generator):
        if return_traj:
            steps.append(x)
    return torch.stack(steps, 1) if return_traj else x


def denoise(scorenet, x, sigma):
    """The mean of the clean point given x [n,2] with noise sigma (Tweedie's formula): removes the noise that sampling leaves."""
    return x + column(sigma, x) ** 2 * scorenet(x, sigma)


def optimal_score(x, points, sigma):
    """The score at x [B,2] of `points` [N,2] with noise sigma: the minimiser of the loss among all functions, in closed form.

    (mean of the points, weighted by softmax(-|x - p|^2 / (2 sigma^2)), - x) / sigma^2; also the log density at x, [B].
    """
    scores, log_densities = [], []
    for x, sigma in zip(x.split(500), column(sigma, x).split(500)):
        squares = (x[:, :1] - points[:, 0]) ** 2 + (x[:, 1:] - points[:, 1]) ** 2  # [B,N]
        logits = -squares / (2 * sigma**2)
        largest = logits.amax(1, keepdim=True)
        weights = (logits - largest).exp()  # once, for both results
        total = weights.sum(1, keepdim=True)
        scores.append((weights @ points / total - x) / sigma**2)
        log_densities.append((largest + (total / (2 * math.pi * len(points) * sigma**2)).log())[:, 0])
    return torch.cat(scores), torch.cat(log_densities)


def orthogonalize(matrix, rounds=5):
    """About U V^T [M,N] for a matrix U S V^T [M,N]: its singular values, but for tiny ones, are brought to between 0.7 and 1.2.

    Each round makes a singular value s, from 0 to 1, 3.4445 s - 4.775 s^3 + 2.0315 s^5 (Jordan 2024); no decomposition is needed.
    """
    x = matrix / matrix.norm().clamp(min=1e-12)
    for _ in range(rounds):
        square = x @ x.T
        x = 3.4445 * x + (2.0315 * square @ square - 4.775 * square) @ x
    return x


def sliced_wasserstein(a, b, directions=100, quantiles=1000):
    """Mean over directions of the plane of the Wasserstein-1 distance between projections of a [N,2] and b [M,2], a scalar."""
    angles = torch.arange(directions) * math.pi / directions
    axes = torch.stack([angles.cos(), angles.sin()]).to(a)  # [2,directions]
    levels = (torch.arange(quantiles).to(a) + 0.5) / quantiles
    return (torch.quantile(a @ axes, levels, dim=0) - torch.quantile(b @ axes, levels, dim=0)).abs().mean()


# ------------------------------------------------------------------------------------------------- networks


class DiffusionModel(nn.Module):
    """Score [N,2] of edition cs446. Only the division by sigma tells the levels apart: the directions are the same at all."""

    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", math.pi * 2 ** torch.linspace(0, 5, 6), persistent=False)
        self.fc1 = nn.Linear(26, 200)
        self.fc2 = nn.Linear(200, 400)
        self.fc3 = nn.Linear(400, 200)
        self.fc4 = nn.Linear(200, 2)

    def features(self, x):
        waves = x[:, :, None] * self.frequencies  # [N,2,6]
        return torch.cat([torch.cat([waves.cos(), waves.sin()], 2).flatten(1), x], 1)  # [N,26]

    def forward(self, x, sigma):
        h = F.relu(self.fc1(self.features(x)))
        h = F.relu(self.fc2(h))
        h = F.relu(self.fc3(h))
        return self.fc4(h) / column(sigma, x)


class ScoreNet(nn.Module):
    """Score [N,2] of edition s24, with sigma as a third input."""

    def __init__(self, n_layers=8, latent_dim=128):
        super().__init__()
        sizes = [3, *[latent_dim] * (n_layers - 1), 2]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes, sizes[1:]))
        # PyTorch's own weights let a signal shrink to a fourth in every such layer, and what is left after seven teaches little.
        # Wide biases put the bends of the units all over the plane, where there are details to learn.
        for number, layer in enumerate(self.layers[:-1]):
            nn.init.normal_(layer.weight, std=(2.5 if number else 5) / math.sqrt(layer.in_features))
            nn.init.normal_(layer.bias, std=2 if number else 4)
        with torch.no_grad():
            self.layers[0].weight[:, 2] *= 10  # sigma is small beside x, and the score changes faster with it
        nn.init.zeros_(self.layers[-1].weight)

    def forward(self, x, sigma):
        sigma = column(sigma, x)
        h = torch.cat([x, sigma], 1)
        for layer in self.layers[:-1]:
            h = F.softplus(layer(h))
        return self.layers[-1](h) / sigma


class Muon(torch.optim.Optimizer):
    """Steps of learning rate lr for weight matrices, in all directions alike: along the orthogonalized momentum (Jordan 2024).

    Each also shrinks the weights by the share lr * weight_decay: else they grow for as long as they are trained, and with them
    ripples of the score. torch.optim.Muon computes in bfloat16, which takes many times as long on a processor.
    """

    def __init__(self, parameters, lr, momentum=0.95, weight_decay=0.02):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                state, gradient = self.state[weight], weight.grad
                average = state.setdefault("average", torch.zeros_like(weight)).lerp_(gradient, 1 - group["momentum"])
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(group["lr"] * orthogonalize(gradient.lerp(average, group["momentum"])))


# ------------------------------------------------------------------------------------------------ the model


class ScoreMatching:
    """A score network, its training, and samples from it. `args` needs only some of parse_args' fields; the rest are defaults."""

    shown = ("loss", "score_error")  # what the progress bar shows of an epoch's row
    steps = STEPS
    generate_noise_levels = staticmethod(generate_noise_levels)

    def __init__(self, args=None, folder=None):
        given = vars(args or argparse.Namespace())
        edition = given.get("edition", DEFAULTS["edition"])
        self.args = args = argparse.Namespace(**{**DEFAULTS, **EDITIONS[edition], **given})
        self.folder = Path(folder or Path(__file__).resolve().parent / "outputs" / "diffusion")  # for figures
        self.epochs = args.n_epochs
        self.device = torch.device(getattr(args, "device", "cpu"))
        torch.manual_seed(args.seed)
        self.network = {"cs446": DiffusionModel, "s24": ScoreNet}[args.edition]().to(self.device)
        self.average = copy.deepcopy(self.network).requires_grad_(False)  # of the weights over training: what is measured
        weights = list(self.network.parameters())
        matrices = [each for each in weights if each.ndim == 2][1:-1] if args.optimizer == "muon" else []  # between hidden layers
        others = [each for each in weights if not any(each is matrix for matrix in matrices)]
        self.optimizers = {"adam": torch.optim.Adam(others, lr=args.lr, fused=self.device.type != "mps")}
        if matrices:
            self.optimizers["muon"] = Muon(matrices, lr=5 * args.lr)
        self.noise_levels = generate_noise_levels(args.begin, args.end, LEVELS).to(self.device)
        self.parts = {"network": self.network, "average": self.average, **self.optimizers}
        self.generators = {"noise": self.fresh_generator()}
        self.progress = {"epoch": 0, "step": 0, "loss": 0.0, "history": []}
        self.drawn = None, None

    def fresh_generator(self, offset=0):
        """Random numbers of one's own for looking at the model: the same at every look, and training draws none of them."""
        return torch.Generator(self.device).manual_seed(self.args.seed + offset)

    # ---- data

    def draw_data(self, count, offset):
        """`count` points [count,2] of the word and their letters [count]: other ones for another offset."""
        args, generator = self.args, torch.Generator().manual_seed(self.args.seed + offset)
        points, letters = draw_word(args.word, count, generator, args.height, args.width, args.centre)
        return points.to(self.device), letters.to(self.device)

    @cached_property
    def data(self):
        return self.draw_data(POINTS, 0)

    @property
    def train_data(self):
        """[2000,2]"""
        return self.data[0]

    # ---- training

    def denoising_loss(self, samples, noise_levels):
        """The loss of `samples` [N,2] at noise_levels [L], a scalar; see compute_denoising_loss."""
        return compute_denoising_loss(self.network, samples, noise_levels, self.generators["noise"])

    def step(self):
        """One update of the weights with points drawn with replacement; returns the loss."""
        chosen = torch.randint(POINTS, (self.args.batch_size,), generator=self.generators["noise"], device=self.device)
        loss = self.denoising_loss(self.train_data[chosen], self.noise_levels)
        self.network.zero_grad()
        loss.backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        done = self.progress["epoch"] * self.steps + self.progress["step"]
        decay = min(self.args.ema_decay, (1 + done) / (10 + done))  # forgets the first, random weights sooner
        for average, weight in zip(self.average.parameters(), self.network.parameters()):
            average.lerp_(weight.detach(), 1 - decay)
        return loss.item()

    def fit(self):
        """Minimise the loss, with rates on a cosine; yields None after each step and a row of the history after each epoch."""
        progress = self.progress
        while progress["epoch"] < self.epochs:
            start = time.perf_counter()
            if progress["step"] == 0:
                progress["loss"] = 0.0
            while progress["step"] < self.steps:
                done = (progress["epoch"] + progress["step"] / self.steps) / self.epochs
                for optimizer in self.optimizers.values():
                    optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"] * (1 + math.cos(math.pi * done)) / 2
                loss = self.step()
                if not math.isfinite(loss):
                    raise FloatingPointError(f"epoch {progress['epoch'] + 1}, step {progress['step'] + 1}: loss {loss:.4g}; "
                                             "try a smaller --lr")
                progress["loss"] += loss
                progress["step"] += 1
                yield None
            row = {"epoch": progress["epoch"] + 1, "loss": progress["loss"] / self.steps, **self.evaluate(),
                   "seconds": time.perf_counter() - start}
            progress["history"].append(row)
            progress.update(epoch=progress["epoch"] + 1, step=0)
            yield row

    # ---- evaluation: changes nothing of the training, and looks at the average of the weights

    @cached_property
    def probe(self):
        """Data with noise that is the same at every look: x, x~ both [2000,2], sigma [2000,1], the optimal score at x~."""
        x = self.train_data
        noisy, sigma = perturb(x, self.noise_levels, self.fresh_generator(1))
        return x, noisy, sigma, optimal_score(noisy, x, sigma)[0]

    @torch.no_grad()
    def evaluate(self):
        """The averaged network's loss, and how much of it a perfect score would save: sigma^2/2 |s - optimal s|^2."""
        x, noisy, sigma, best = self.probe
        score = self.average(noisy, sigma)
        return {"average_loss": weighted_error(score, (x - noisy) / sigma**2, sigma).mean().item(),
                "score_error": weighted_error(score, best, sigma).mean().item()}

    @torch.no_grad()
    def initial_random_samples(self, count=None, generator=None):
        """Where sampling starts, [count,2]: for cs446 randn / 3 + 0.5, for s24 randn."""
        mean, deviation = self.args.start
        return mean + deviation * torch.randn(count or self.args.samples, 2, generator=generator, device=self.device)

    def langevin_dynamics_sample(self, x_mod, noise_levels, iterations, lr, generator=None):
        """Samples [n,2] by annealed Langevin dynamics from x_mod [n,2], with steps of lr sigma^2 / sigma_L^2."""
        for x_mod in langevin_dynamics(self.average, x_mod, noise_levels, iterations, lr, generator):
            pass
        return x_mod

    def trajectory(self):
        """Annealed Langevin dynamics of all samples: positions [1 + L*T][n,2], from the start on, the last one denoised."""
        now = self.progress["epoch"], self.progress["step"]
        if self.drawn[0] != now:  # figures and measures look at the same samples
            args, generator = self.args, self.fresh_generator(2)
            steps = [self.initial_random_samples(generator=generator)]
            steps += langevin_dynamics(self.average, steps[0], self.noise_levels, args.langevin_steps, args.langevin_eps,
                                       generator)
            with torch.no_grad():
                steps[-1] = denoise(self.average, steps[-1], self.noise_levels[-1])
            if not steps[-1].isfinite().all():
                raise FloatingPointError("samples are not finite; try a smaller --lr")
            self.drawn = now, steps
        return self.drawn[1]

    def grid(self, columns):
        """Points [rows*columns,2] of a lattice, as dense in both directions, over the window that figures show."""
        (left, right), (bottom, top) = self.window
        rows = round(columns * (top - bottom) / (right - left))
        x, y = torch.linspace(left, right, columns), torch.linspace(bottom, top, rows)
        return torch.cartesian_prod(x, y).to(self.device)

    @property
    def window(self):
        """((left, right), (bottom, top)) of the figures; wider for a long word."""
        centre, (half_width, half_height) = self.args.centre, self.args.window
        half_width = max(half_width, 1.1 * (self.train_data[:, 0] - centre).abs().max().item())
        return (centre - half_width, centre + half_width), (centre - half_height, centre + half_height)

    @torch.no_grad()
    def measure_field(self, count=10000):
        """How well the network's arrows point, as cosines to the optimal score of the data, on a grid of `count` points.

        At each level the mean over the grid, weighted by the density of the perturbed data there. A network that is not
        told sigma has its least loss with the mean, over the levels that a point may come from, of sigma times the optimal
        score: `..._limit` is the cosine of that field. Then the lowest cosine of the levels from PLOTTED_SIGMA on; last
        the arrows farther than PLOTTED_SIGMA from all data, without weights.
        """
        (left, right), (bottom, top) = self.window
        x, points = self.grid(round(math.sqrt(count * (right - left) / (top - bottom)))), self.train_data
        scores, log_p = zip(*(optimal_score(x, points, sigma) for sigma in self.noise_levels))
        shares = torch.stack(log_p).softmax(0)[:, :, None]  # of the levels at each x, [L,N,1]
        blind = (shares * self.noise_levels[:, None, None] * torch.stack(scores)).sum(0)
        metrics, seen = {}, []
        for sigma, score, log_density in zip(self.noise_levels.tolist(), scores, log_p):
            cosine = lambda field: (log_density.softmax(0) @ torch.cosine_similarity(field, score)).item()
            metrics[f"cosine_{sigma:.4f}"] = cosine(self.average(x, sigma))
            if isinstance(self.network, DiffusionModel):
                metrics[f"cosine_{sigma:.4f}_limit"] = cosine(blind)
            if sigma >= PLOTTED_SIGMA:
                seen.append(metrics[f"cosine_{sigma:.4f}"])
        if isinstance(self.network, DiffusionModel):
            weights = torch.stack(log_p).logsumexp(0).softmax(0)
            metrics["cosine_to_limit"] = (weights @ torch.cosine_similarity(self.average(x, 1.0), blind)).item()
        outside = x[torch.cdist(x, points).min(1).values > PLOTTED_SIGMA]
        cosines = torch.cosine_similarity(self.average(outside, PLOTTED_SIGMA), optimal_score(outside, points, PLOTTED_SIGMA)[0])
        return {**metrics, f"cosine_lowest_from_{PLOTTED_SIGMA}": min(seen), "outside_cosine": cosines.mean().item(),
                "outside_share_towards_data": (cosines > 0).float().mean().item()}

    def measure_samples(self):
        """Do the samples follow the data? Distances are in units of the plane; the letters are those of 10,000 fresh points.

        The sliced Wasserstein distance to the data; the mean of the same over pairs of fresh draws, of as many points as there
        are samples and data; the share of samples farther than 3 sigma_L from every letter; samples per letter, relative to
        its data.
        """
        samples = self.trajectory()[-1]
        ink, letters = self.draw_data(5 * POINTS, 3)
        pairs = [(self.draw_data(len(samples), 4 + 2 * pair)[0], self.draw_data(POINTS, 5 + 2 * pair)[0]) for pair in range(PAIRS)]
        nearest = [torch.cdist(block, ink).min(1) for block in samples.split(1000)]
        distances, indices = (torch.cat(part) for part in zip(*nearest))
        names = [letter for letter in self.args.word if not letter.isspace()]
        drawn, given = (torch.bincount(which, minlength=len(names)) / len(which) for which in (letters[indices], self.data[1]))
        shares = {f"share_{number}_{name}": share for number, (name, share) in enumerate(zip(names, (drawn / given).tolist()), 1)}
        return {"sliced_wasserstein": sliced_wasserstein(samples, self.train_data).item(),
                "sliced_wasserstein_data": sum(sliced_wasserstein(a, b).item() for a, b in pairs) / PAIRS,
                "far_share": (distances > 3 * self.noise_levels[-1]).float().mean().item(), **shares}

    def measure(self):
        """All that metrics.json says of the averaged network: its loss and the least possible one, its field, its samples."""
        x, noisy, sigma, best = self.probe
        optimal = weighted_error(best, (x - noisy) / sigma**2, sigma).mean().item()
        return {**self.evaluate(), "optimal_loss": optimal, **self.measure_field(), **self.measure_samples()}

    # ---- figures: each is saved in self.folder and returns what it drew

    def save(self, figure, name):
        self.folder.mkdir(parents=True, exist_ok=True)
        utils.save_figure(figure, self.folder / name)

    def plot_points(self):
        """The data [2000,2]."""
        figure, (axes,) = new_figure(self.window)
        draw_points(axes, self.train_data)
        axes.set_title(f"{POINTS:,} points")
        self.save(figure, "data.png")
        return self.train_data.cpu()

    @torch.no_grad()
    def plot_score(self, columns=100):
        """The network's score [columns*rows,2] on a grid at sigma 0.03, over the data."""
        x = self.grid(columns)
        score = self.average(x, PLOTTED_SIGMA).cpu()
        figure, (axes,) = new_figure(self.window)
        draw_points(axes, self.train_data)
        length = score.norm(dim=1, keepdim=True)
        # Far from the data a score is longer by orders of magnitude than between the strokes: all arrows of about one length
        arrow = score / length * (length / (length + length.median() / 4))
        spacing = x[:, 1].unique()[:2].diff().item()
        axes.quiver(*x.cpu().T, *arrow.T, length[:, 0].log10(), angles="xy", scale_units="xy", scale=1 / spacing,
                    width=0.0015, cmap="viridis_r")
        axes.set_title(f"score at $\\sigma$ = {PLOTTED_SIGMA}: direction, and length as colour")
        self.save(figure, "score_field.png")
        return score

    def plot_samples(self):
        """All samples at the start, after a fifth, two, three, four fifths of the steps, and the last, [6][n,2]."""
        trajectory = self.trajectory()
        total = len(trajectory) - 1
        steps = [fifth * total // 5 for fifth in range(6)]
        figure, panels = new_figure(self.window, rows=2, columns=3)
        for axes, step in zip(panels, steps):
            draw_points(axes, trajectory[step])
            axes.set_title(f"step {step}" if step < total else f"step {step}, denoised")
        self.save(figure, "samples.png")
        return [trajectory[step].cpu() for step in steps]

    def plot_trajectories(self, count=3):
        """The ways of the first few samples, [count,1+L*T,2], from a cross to a dot."""
        ways = torch.stack([x[:count] for x in self.trajectory()], 1).cpu()
        figure, (axes,) = new_figure(self.window)
        draw_points(axes, self.train_data, color="0.8")
        for number, way in enumerate(ways):
            axes.plot(*way.T, color=f"C{number}", linewidth=0.6, alpha=0.8)
            axes.plot(*way[0], "x", color=f"C{number}", markersize=8)
            axes.plot(*way[-1], "o", color=f"C{number}", markeredgecolor="black")
        axes.set_title("from noise (cross) to the data (dot)")
        self.save(figure, "trajectories.png")
        return ways

    def save_animation(self, frames=60, columns=300):
        """sampling.gif: about 60 frames [rows,columns] of where the samples are, dark on white."""
        trajectory, frames_seen = self.trajectory(), []
        (left, right), (bottom, top) = self.window
        rows = round(columns * (top - bottom) / (right - left))
        for x in [*trajectory[:: max(1, len(trajectory) // frames)], trajectory[-1]]:
            x = x.cpu().numpy()
            counts, _, _ = np.histogram2d(-x[:, 1], x[:, 0], (rows, columns), ((-top, -bottom), (left, right)))
            frames_seen.append(np.where(counts > 0, 0, 255).astype(np.uint8))
        utils.save_gif(frames_seen, self.folder / "sampling.gif")
        return frames_seen

    def visualize(self):
        """All figures."""
        self.plot_points()
        self.plot_score()
        self.plot_samples()
        self.plot_trajectories()
        self.save_animation()


# -------------------------------------------------------------------------------------------------- figures


def new_figure(window, rows=1, columns=1):
    """A matplotlib Figure and its panels, each of which shows `window` ((left, right), (bottom, top))."""
    from matplotlib.figure import Figure  # here: importing it with the module would slow down every start

    (left, right), (bottom, top) = window
    width = 8 if columns == 1 else 4
    figure = Figure(figsize=(columns * width, rows * (width * (top - bottom) / (right - left) + 0.4)), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels:
        axes.set(xlim=window[0], ylim=window[1], aspect="equal")
    return figure, panels


def draw_points(axes, points, color="C0"):
    axes.scatter(*points.cpu().T, s=3, color=color, linewidths=0)


# --------------------------------------------------------------------------------------------- command line


def parse_args(argv=None):
    """The settings as a Namespace; exits with code 2 and one line where a value is out of range."""
    parser = argparse.ArgumentParser("hw5_diffusion.py", description="Match the score of points that spell a word; sample it.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flag = parser.add_argument
    flag("--edition", choices=EDITIONS, help="which course's homework")
    flag("--word", help="what the points spell, in DejaVu Sans")
    flag("--epochs", "--n_epochs", dest="n_epochs", type=int, metavar="1..100000", help=f"times {STEPS} steps of training")
    flag("--batch_size", type=int, metavar="1..60000", help="points per step, drawn with replacement")
    flag("--lr", type=float, metavar="1e-7..1", help="Adam's first learning rate, a fifth of Muon's; both decay to 0 along a cosine")
    flag("--ema_decay", type=float, metavar="0..0.99999", help="share of the averaged weights that a step keeps; 0 for none")
    flag("--samples", type=int, metavar="1..100000", help="how many to draw")
    flag("--langevin_steps", type=int, metavar="1..100000", help="steps of sampling at each of the ten noise levels")
    flag("--langevin_eps", type=float, metavar="1e-9..1e-4", help="their size at the last level; larger ones would leave the data")
    flag("--seed", type=int, metavar="0..4294967295", help="of all random numbers")
    flag("--resume_training", "--resume", action="store_true", help="continue the run in the output folder")
    parser.set_defaults(**DEFAULTS)
    utils.set_edition(parser, argv, EDITIONS, DEFAULTS["edition"])
    args = utils.parse_run_args(parser, argv, images=False)
    if args.samples * args.langevin_steps > 5e7:
        parser.error(f"--samples {args.samples} with --langevin_steps {args.langevin_steps}: more than 4 GB, for all steps are kept; "
                     "use less of either")
    return args


def build(args, folder=None):
    return ScoreMatching(args, folder)


def main(argv=None):
    """Train, draw and measure as the flags say. Returns the exit code: 0, 1 for a diverged run, 2 for bad input."""
    return utils.run(parse_args(argv), build)


if __name__ == "__main__":
    raise SystemExit(main())
