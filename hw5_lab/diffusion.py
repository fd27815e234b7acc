"""Score matching in the laboratory: averaged weights, how good field and samples are, an animation, and edition s24.

For a finite set of points the best possible score is known in closed form, so that the network can be compared with it.
"""

import argparse
import copy
import math
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

import hw5_diffusion
from hw5_diffusion import PLOTTED_SIGMA, POINTS, STEPS, column, perturb, weighted_error
from hw5_lab import command_line, folder
from hw5_lab.model import Model, update_average
from hw5_lab.run import run
from hw5_utils import Fault

PAIRS = 10  # of draws of data, whose distances are the yardstick for samples
DATA, PROBE, START, INK, DRAWS = range(5)  # offsets of the seed, each for random numbers of its own

# ---------------------------------------------------------------------------------------------------- maths


def optimal_score(x, points, sigma):
    """The score at x [B,2] of `points` [N,2] with noise sigma: the minimiser of the loss among all functions.

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


def sliced_wasserstein(a, b, directions=100, quantiles=1000):
    """Mean over directions of the plane of the Wasserstein-1 distance between projections of a [N,2] and b [M,2]."""
    angles = torch.arange(directions) * math.pi / directions
    axes = torch.stack([angles.cos(), angles.sin()]).to(a)  # [2,directions]
    levels = (torch.arange(quantiles).to(a) + 0.5) / quantiles
    return (torch.quantile(a @ axes, levels, dim=0) - torch.quantile(b @ axes, levels, dim=0)).abs().mean()


# ------------------------------------------------------------------------------------------------ the model


class LabScoreMatching(Model, hw5_diffusion.ScoreMatching):
    """The homework's score matching with measurements. An edition is a subclass; `settings` are its flags' defaults."""

    kind, edition = "diffusion", "cs446"
    settings = dict(n_epochs=60, batch_size=500, word="CS 446", ema_decay=0.0)
    steps = STEPS
    knows_sigma = False  # whether the network is told sigma
    shown = ("loss", "score_error")
    columns = ("epoch", "loss", "average_loss", "score_error", "seconds")

    def __init__(self, args=None):
        super().__init__(argparse.Namespace(**{**self.settings, **vars(args or argparse.Namespace())}))
        self.average = copy.deepcopy(self.network).requires_grad_(False)  # of the weights over training: it is measured
        self.parts = {"network": self.network, "average": self.average}
        self.parts |= {f"optimizer_{number}": optimizer for number, optimizer in enumerate(self.optimizers)}
        self.generators = {"noise": self.noise}
        self.record = {"history": []}
        self.epochs = self.args.n_epochs
        self.drawn = None, None

    def data_tensors(self):
        return self.data

    def data_in_words(self):
        return f"{POINTS:,} points that spell {self.args.word!r}"

    # ---- training

    def step(self):
        """The homework's step, then the average of the weights; without --ema_decay it is the weights themselves."""
        loss = super().step()
        self.done += 1
        update_average(self.average, self.network, self.args.ema_decay, self.done)
        return loss

    def train_epoch(self, epoch, tick=lambda: None):
        self.done = epoch * STEPS
        return super().train_epoch(epoch, tick)

    # ---- evaluation: changes nothing of the training, and looks at the average of the weights

    @torch.no_grad()
    def score(self, x, sigma):
        """The averaged network's score [N,2] at x [N,2]."""
        return self.average(x, sigma)

    @cached_property
    def probe(self):
        """x and x~ [2000,2], sigma [2000,1], the optimal score at x~: data with the same noise at every look."""
        x = self.train_data
        noisy, sigma = perturb(x, self.noise_levels, self.fresh_generator(PROBE))
        return x, noisy, sigma, optimal_score(noisy, x, sigma)[0]

    def look(self):
        """The averaged network's loss, and how much a perfect score would save: sigma^2/2 |s - optimal s|^2."""
        x, noisy, sigma, best = self.probe
        score = self.score(noisy, sigma)
        return {
            "average_loss": weighted_error(score, (x - noisy) / sigma**2, sigma).mean().item(),
            "score_error": weighted_error(score, best, sigma).mean().item(),
        }

    def trajectory(self):
        """As the homework's; figures and measures look at the same samples."""
        now = len(self.record["history"])
        if self.drawn[0] != now:
            steps = super().trajectory()
            if not steps[-1].isfinite().all():
                raise Fault("samples are not finite; try a smaller --langevin_eps, or train again with a smaller --lr")
            self.drawn = now, steps
        return self.drawn[1]

    @torch.no_grad()
    def measure_field(self, count=10000):
        """How well the network's arrows point, as cosines to the data's optimal score, on a grid of `count` points.

        At each level it is the mean over the grid, weighted by the density of the perturbed data there. A network that
        is not told sigma has its least loss with the best possible sigma-blind score: the mean of sigma times the
        optimal score over the levels that a point may come from. `..._limit` is the cosine of that field.
        Then comes the lowest cosine of the levels from PLOTTED_SIGMA on. Last comes the mean, without weights, of the
        arrows that are farther than PLOTTED_SIGMA from all data.
        """
        (left, right), (bottom, top) = self.window
        x, points = self.grid(round(math.sqrt(count * (right - left) / (top - bottom)))), self.train_data
        scores, log_p = zip(*(optimal_score(x, points, sigma) for sigma in self.noise_levels))
        shares = torch.stack(log_p).softmax(0)[:, :, None]  # of the levels at each x, [L,N,1]
        blind = (shares * self.noise_levels[:, None, None] * torch.stack(scores)).sum(0)
        metrics, seen = {}, []
        for sigma, score, log_density in zip(self.noise_levels.tolist(), scores, log_p):
            cosine = lambda field: (log_density.softmax(0) @ torch.cosine_similarity(field, score)).item()
            metrics[f"cosine_{sigma:.4f}"] = cosine(self.score(x, sigma))
            if not self.knows_sigma:
                metrics[f"cosine_{sigma:.4f}_limit"] = cosine(blind)
            if sigma >= PLOTTED_SIGMA:
                seen.append(metrics[f"cosine_{sigma:.4f}"])
        if not self.knows_sigma:
            weights = torch.stack(log_p).logsumexp(0).softmax(0)
            metrics["cosine_to_limit"] = (weights @ torch.cosine_similarity(self.score(x, 1.0), blind)).item()
        outside = x[torch.cdist(x, points).min(1).values > PLOTTED_SIGMA]
        best = optimal_score(outside, points, PLOTTED_SIGMA)[0]
        cosines = torch.cosine_similarity(self.score(outside, PLOTTED_SIGMA), best)
        return {
            **metrics,
            f"cosine_lowest_from_{PLOTTED_SIGMA}": min(seen),
            "outside_cosine": cosines.mean().item(),
            "outside_share_towards_data": (cosines > 0).float().mean().item(),
        }

    def measure_samples(self):
        """Do the samples follow the data? Distances are in units of the plane.

        The results: the sliced Wasserstein distance to the data; its mean over pairs of fresh draws, of as many points
        as there are samples and data; the share of samples farther than 3 sigma_L from every letter; and samples per
        letter, relative to its data. The letters are those of 10,000 fresh points.
        """
        samples = self.trajectory()[-1]
        ink, letters = self.draw_data(5 * POINTS, INK)
        pairs = [
            (self.draw_data(len(samples), DRAWS + 2 * pair)[0], self.draw_data(POINTS, DRAWS + 2 * pair + 1)[0])
            for pair in range(PAIRS)
        ]
        nearest = [torch.cdist(block, ink).min(1) for block in samples.split(1000)]
        distances, indices = (torch.cat(part) for part in zip(*nearest))
        names = [letter for letter in self.args.word if not letter.isspace()]
        drawn, given = (
            torch.bincount(which, minlength=len(names)) / len(which) for which in (letters[indices], self.data[1])
        )
        shares = {
            f"share_{number}_{name}": share
            for number, (name, share) in enumerate(zip(names, (drawn / given).tolist()), 1)
        }
        return {
            "sliced_wasserstein": sliced_wasserstein(samples, self.train_data).item(),
            "sliced_wasserstein_data": sum(sliced_wasserstein(a, b).item() for a, b in pairs) / PAIRS,
            "far_share": (distances > 3 * self.noise_levels[-1]).float().mean().item(),
            **shares,
        }

    def measure(self):
        """All that metrics.json says of the averaged network: its loss and the least possible one, field, samples."""
        x, noisy, sigma, best = self.probe
        optimal = weighted_error(best, (x - noisy) / sigma**2, sigma).mean().item()
        return {**self.look(), "optimal_loss": optimal, **self.measure_field(), **self.measure_samples()}

    def summary(self, metrics):
        """The results in words."""
        shares = [value for name, value in metrics.items() if name.startswith("share_")]
        lowest = metrics[f"cosine_lowest_from_{PLOTTED_SIGMA}"]
        return [
            f"Measured with {self.args.samples:,} samples; distances are in units of the plane:",
            f"  loss                                        {metrics['average_loss']:.3f}; "
            f"the least possible is {metrics['optimal_loss']:.3f}",
            f"  cosine to the best possible score           {lowest:.3f}; "
            f"the lowest of all sigma from {PLOTTED_SIGMA} on, 1 is best",
            f"  distance of samples to data                 {metrics['sliced_wasserstein']:.3f}; "
            f"of two draws of data {metrics['sliced_wasserstein_data']:.3f}",
            f"  samples of each letter, relative to data    {min(shares):.2f} to {max(shares):.2f}; 1 is best",
        ]

    # ---- figures

    def visualize(self):
        super().visualize()
        self.save_animation()

    def save_animation(self, frames=60, columns=300):
        """sampling.gif: about 60 frames [rows,columns] of where the samples are, dark on white."""
        trajectory, seen = self.trajectory(), []
        (left, right), (bottom, top) = self.window
        rows = round(columns * (top - bottom) / (right - left))
        for x in [*trajectory[:: max(1, len(trajectory) // frames)], trajectory[-1]]:
            x = x.cpu().numpy()
            counts, _, _ = np.histogram2d(-x[:, 1], x[:, 0], (rows, columns), ((-top, -bottom), (left, right)))
            seen.append(np.where(counts > 0, 0, 255).astype(np.uint8))
        if self.folder:
            folder.save_gif(seen, Path(self.folder) / "sampling.gif")
        return seen


# --------------------------------------------------------------------------------------------- command line


def editions():
    from hw5_lab.editions import s24  # here, for it stands on this module

    return {"cs446": LabScoreMatching, "s24": s24.ScoreMatching}


def parse_args(argv=None):
    """The settings as a Namespace; exits with code 2 and one line where a value is out of range."""
    parser = hw5_diffusion.make_parser()
    parser.add_argument(
        "--ema_decay",
        type=float,
        metavar="0..0.99999",
        help="share of the averaged weights that a step keeps; 0 for no average",
    )
    command_line.add_run_flags(parser, images=False)
    command_line.choose_edition(parser, argv, editions())
    args = command_line.parse(parser, argv)
    if args.samples * args.langevin_steps > 5e7:
        parser.error(
            f"--samples {args.samples} with --langevin_steps {args.langevin_steps}: more than 4 GB, for all "
            "steps are kept; use less of either"
        )
    return args


def build(args):
    """The model of these settings."""
    return editions()[args.edition](args)


def main(argv=None):
    """Train, sample, draw and measure. Returns the exit code: 0, 1 for a diverged run, 2 for bad input."""
    return run(parse_args, build, argv)
