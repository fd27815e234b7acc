"""Score matching in the laboratory: averaged weights, how good field and samples are, an animation."""

import math
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from hw5_diffusion import PLOTTED_SIGMA, POINTS, STEPS, perturb, weighted_error
from hw5_lab.experiments.experiment import Experiment, averaged
from hw5_lab.fast.layers import fuse
from hw5_lab.measures.scores import field_cosines, optimal_score, sliced_wasserstein
from hw5_lab.runs.folder import save_gif
from hw5_utils import Fault

GRID = 10_000  # points at which the field is measured
PAIRS = 10  # of draws of data, whose distances are the yardstick for samples
PROBE, INK, DRAWS = 1, 3, 4  # offsets of the seed, each for random numbers of its own; the homework has 0 and 2


class DiffusionExperiment(Experiment):
    kind = "diffusion"
    steps = STEPS
    shown = "loss", "score_error"
    columns = "epoch", "loss", "average_loss", "score_error", "seconds"

    def __init__(self, homework, args):
        super().__init__(homework, args)
        self.epochs = args.n_epochs
        self.drawn = None, None  # the samples' trajectory, and after how many epochs
        fuse(*homework.optimizers)
        if args.ema_decay:
            average = averaged(homework.network, args.ema_decay)
            homework.average = average.module
            homework.optimizers[-1].register_step_post_hook(lambda *_: average.update_parameters(homework.network))
            self.more_parts["average"] = average

    def data_tensors(self):
        return self.homework.data

    def data_in_words(self):
        return f"{POINTS:,} points that spell {self.args.word!r}"

    @cached_property
    def probe(self):
        """x and x~ [2000,2], sigma [2000,1], the optimal score at x~: data with the same noise at every look."""
        x = self.homework.train_data
        noisy, sigma = perturb(x, self.homework.noise_levels, self.homework.fresh_rng(PROBE))
        return x, noisy, sigma, optimal_score(noisy, x, sigma)[0]

    @property
    def clocks(self):
        return self.homework.optimizers[:1]

    def watch(self):
        """The loss of what is sampled from, and how much a perfect score would save: sigma^2/2 |s - optimal s|^2."""
        x, noisy, sigma, best = self.probe
        score = self.homework.score(noisy, sigma)
        return {
            "average_loss": weighted_error(score, (x - noisy) / sigma**2, sigma).mean().item(),
            "score_error": weighted_error(score, best, sigma).mean().item(),
        }

    def trajectory(self):
        """The homework's; figures and measures look at the same samples."""
        now = len(self.record["history"])
        if self.drawn[0] != now:
            steps = self.homework.trajectory()
            if not steps[-1].isfinite().all():
                raise Fault("samples are not finite; try a smaller --langevin_eps, or train again with a smaller --lr")
            self.drawn = now, steps
        return self.drawn[1]

    # ---- what comes out

    def measure(self, how="usual", progress=iter):
        """What the sampled network is worth: its loss and the least possible one, field, samples."""
        model = self.homework
        x, noisy, sigma, best = self.probe
        optimal = weighted_error(best, (x - noisy) / sigma**2, sigma).mean().item()
        (left, right), (bottom, top) = model.window
        grid = model.grid(round(math.sqrt(GRID * (right - left) / (top - bottom))))
        field = field_cosines(model.score, grid, x, model.noise_levels, PLOTTED_SIGMA, model.knows_sigma)
        return {**self.watch(), "optimal_loss": optimal, **field, **self.measure_samples()}, {}

    def measure_samples(self):
        """Do the samples follow the data? Distances are in units of the plane.

        The results: the sliced Wasserstein distance to the data; its mean over pairs of fresh draws, of as many points
        as there are samples and data; the share of samples farther than 3 sigma_L from every letter; and samples per
        letter, relative to its data. The letters are those of 10,000 fresh points.
        """
        model, samples = self.homework, self.trajectory()[-1]
        ink, letters = model.draw_data(5 * POINTS, INK)
        pairs = [
            (model.draw_data(len(samples), DRAWS + 2 * pair)[0], model.draw_data(POINTS, DRAWS + 2 * pair + 1)[0])
            for pair in range(PAIRS)
        ]
        nearest = [torch.cdist(block, ink).min(1) for block in samples.split(1000)]
        distances, indices = (torch.cat(part) for part in zip(*nearest))
        names = [letter for letter in self.args.word if not letter.isspace()]
        drawn, given = (
            torch.bincount(which, minlength=len(names)) / len(which) for which in (letters[indices], model.data[1])
        )
        shares = {
            f"share_{number}_{name}": share
            for number, (name, share) in enumerate(zip(names, (drawn / given).tolist()), 1)
        }
        return {
            "sliced_wasserstein": sliced_wasserstein(samples, model.train_data).item(),
            "sliced_wasserstein_data": sum(sliced_wasserstein(a, b).item() for a, b in pairs) / PAIRS,
            "far_share": (distances > 3 * model.noise_levels[-1]).float().mean().item(),
            **shares,
        }

    def summary(self, metrics):
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
        self.homework.visualize(self.trajectory())
        self.save_animation()

    def save_animation(self, frames=60, columns=300):
        """sampling.gif: about 60 frames [rows,columns] of where the samples are, dark on white."""
        trajectory, seen = self.trajectory(), []
        (left, right), (bottom, top) = self.homework.window
        rows = round(columns * (top - bottom) / (right - left))
        for x in [*trajectory[:: max(1, len(trajectory) // frames)], trajectory[-1]]:
            x = x.cpu().numpy()
            counts, _, _ = np.histogram2d(-x[:, 1], x[:, 0], (rows, columns), ((-top, -bottom), (left, right)))
            seen.append(np.where(counts > 0, 0, 255).astype(np.uint8))
        if self.folder:
            save_gif(seen, Path(self.folder) / "sampling.gif")
        return seen
