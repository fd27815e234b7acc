"""The GAN in the laboratory: any data, how good its samples are, its best epoch, more figures, and edition uva."""

import copy
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

import hw5_gan
import hw5_utils as utils
from hw5_gan import tile
from hw5_lab import command_line, folder
from hw5_lab.checkpoint import Difference, check_number, compare
from hw5_lab.evaluator import Evaluator, frechet_distance, in_unit, nearest_neighbours
from hw5_lab.model import Model
from hw5_lab.run import run
from hw5_vae import new_figure

LABELS = {"loss_d": "loss of D", "loss_g": "loss of G", "d_real": "real images, D(x)", "d_fake": "generated, D(G(z))"}
CHOOSE, REPORT = 1, 2  # offsets of the seed: what chooses the best epoch is not what is reported
SNAPSHOTS = 6  # epochs at which explore.html shows the generator, at most


class LabGAN(Model, hw5_gan.GAN):
    """The homework's GAN with an evaluator. An edition is a subclass; `settings` are its defaults of flags."""

    kind, edition = "gan", "cs446"
    settings = dict(zdim=64, n_epochs=100, batch_size=256)
    noise_kind = "uniform"

    def __init__(self, args):
        self.args, self.seed = args, args.seed
        super().__init__(args.zdim, args.seed, args.device)
        self.device = self._dev
        self.prepare(args.iter_d, args.iter_g, args.batch_size, args.lr)
        self.parts = {"disc": self.disc, "gen": self.gen, "optim_d": self.optim_d, "optim_g": self.optim_g}
        self.generators = {"shuffle": self.shuffle, "noise": self.noise}
        self.record = {"history": [], "frames": [], "snapshots": [], "best": None}
        self.columns = ("epoch", *self.shown, "frechet_train", "seconds")
        self.epochs = args.n_epochs

    @property
    def sampler(self):
        """The generator that draws, and that is measured."""
        return self.gen

    # ---- data

    @cached_property
    def data(self):
        """(train images, train digits, test images, test digits): images uint8 [N,1,28,28], digits [N]."""
        arrays = (torch.as_tensor(array)[: self.args.limit] for array in utils.mnist(self.args.data_dir))
        images, digits, test_images, test_digits = (array.to(self.device) for array in arrays)
        return images.unsqueeze(1), digits.long(), test_images.unsqueeze(1), test_digits.long()

    @property
    def train_images(self):
        return self.data[0]

    def data_tensors(self):
        return self.data

    def data_in_words(self):
        return f"{len(self.train_images):,} MNIST images"

    # ---- training

    @cached_property
    def evaluator(self):
        path = Path(self.folder) / "classifier.pt" if self.folder else None
        return Evaluator(*self.data[:2], path)

    def get_ready(self):
        self.evaluator.prepare()

    def before_first_epoch(self):
        self.visualize_goal()
        if 0 in self.sample_epochs:
            self.visualize_samples(0)

    @property
    def sample_epochs(self):
        """The epochs after which a grid of samples is drawn; 0 is before the first."""
        return {*range(10, self.epochs, 10), self.epochs}

    @property
    def snapshot_epochs(self):
        """A few epochs, early ones closer together."""
        return {max(1, round(self.epochs * (number / SNAPSHOTS) ** 2)) for number in range(1, SNAPSHOTS + 1)}

    def after_epoch(self, epoch):
        grid = self.visualize_samples(epoch) if epoch in self.sample_epochs else tile(self.generate(self.fixed_z))
        self.record["frames"].append(torch.from_numpy(grid * 255).to(torch.uint8))
        if epoch in self.snapshot_epochs:
            self.record["snapshots"].append((epoch, weights_of(self.sampler)))

    def check_record(self, record):
        compare(sorted(record), sorted(self.record), "record")
        epochs, gen = len(record["history"]), weights_of(self.sampler)
        blank = torch.zeros(self.grid_shape, dtype=torch.uint8)
        compare(record["frames"], [blank] * epochs, "frames")
        shown = [(epoch, gen) for epoch in sorted(self.snapshot_epochs) if epoch <= epochs]
        compare(record["snapshots"], shown, "snapshots")
        if not isinstance(record["best"], dict) or record["best"].keys() != {"epoch", "frechet_train", "gen"}:
            raise Difference("its best epoch is none")
        if type(record["best"]["epoch"]) is not int:
            raise Difference("the number of its best epoch is none")
        check_number(record["best"]["epoch"], "the best epoch", 1, epochs)
        check_number(record["best"]["frechet_train"], "the best distance", 0)
        compare(record["best"]["gen"], gen, "best")

    @property
    def grid_shape(self):
        side = self.grid_side * 28 + (self.grid_side - 1) * 3
        return side, side

    # ---- evaluation: changes nothing of the training

    def generate(self, z, gen=None):
        return super().generate(z, gen or self.sampler)

    def sample(self, count, offset, gen=None):
        """`count` generated images [N,1,28,28] in [0,1]; the noise is the same at every call with this offset."""
        return self.generate(self.draw_z(count, torch.Generator().manual_seed(self.seed + offset)), gen)

    def look(self):
        """The Frechet distance of samples to the training images; best.pt keeps the generator where it is smallest."""
        samples = self.sample(min(5000, len(self.train_images)), CHOOSE)
        if not samples.isfinite().all():
            raise FloatingPointError("samples of G are not finite; try a smaller --lr")
        distance = frechet_distance(self.evaluator.look(samples)[0], self.evaluator.train_features).item()
        best = self.record["best"]
        if not best or distance < best["frechet_train"]:
            epoch = len(self.record["history"]) + 1
            self.record["best"] = {"epoch": epoch, "frechet_train": distance, "gen": weights_of(self.sampler)}
            if self.folder:
                folder.save_tensors(self.record["best"], Path(self.folder) / "best.pt")
        return {"frechet_train": distance}

    def best_generator(self):
        """The generator of the best epoch, or the present one where there is none."""
        gen = copy.deepcopy(self.sampler)
        if self.record["best"]:
            gen.load_state_dict(self.record["best"]["gen"])
        return gen

    def measure(self):
        """How samples of the best generator, as many as there are test images, resemble these; draws quality.png.

        Also the last epoch's means: losses in nats, and D's mean probability of "real" for both kinds of images.
        `..._real` is how one half of the test images resembles the other: slightly pessimistic, as it is half as many.
        """
        judge, record = self.evaluator, self.record
        judge.prepare()
        metrics = {name: record["history"][-1][name] for name in self.shown} if record["history"] else {}
        if record["best"]:
            metrics["best_epoch"] = record["best"]["epoch"]
        images, _, test_images, test_digits = self.data
        images, test_images = in_unit(images), in_unit(test_images)
        generators = self.best_generator(), self.sampler
        samples, last_samples = (self.sample(len(test_images), REPORT, gen) for gen in generators)
        seen, last, real = map(judge.look, (samples, last_samples, test_images))
        # Halves at random, for the second half of MNIST's test images is easier than the first
        order = torch.randperm(len(test_images), generator=torch.Generator().manual_seed(self.seed))
        half = max(1, len(order) // 2)
        first, second = ([part[chosen] for part in real] for chosen in (order[:half], order[-half:]))
        metrics |= judge.compare(seen, real)
        metrics |= {f"{name}_real": value for name, value in judge.compare(first, second).items()}
        metrics["frechet_distance_last"] = frechet_distance(last[0], real[0]).item()
        metrics["classifier_accuracy"] = (real[1].argmax(1) == test_digits.cpu()).float().mean().item()

        shares = [torch.bincount(log_p.argmax(1), minlength=10) / len(log_p) for _, log_p in (seen, real)]
        metrics |= {f"share_{digit}": share.item() for digit, share in enumerate(shares[0])}
        distances, neighbours = nearest_neighbours(samples, images)
        metrics["nearest_distance"] = distances.median().item()
        metrics["nearest_distance_real"] = nearest_neighbours(test_images, images)[0].median().item()
        self.visualize_quality(shares, samples, distances, images[neighbours])
        return metrics

    def summary(self, metrics):
        """The results in words."""
        shares = [metrics[f"share_{digit}"] for digit in range(10)]
        return [
            f"Samples of the best epoch, {metrics['best_epoch']}, beside {len(self.data[2]):,} test images:",
            f"  Frechet distance in a classifier's features  {metrics['frechet_distance']:7.1f}; "
            f"of real images {metrics['frechet_distance_real']:.1f}, lower is better",
            f"  Inception-style score, from 1 to 10          {metrics['inception_score']:7.2f}; "
            f"of real images {metrics['inception_score_real']:.2f}, higher is better",
            f"  shares of the ten digits                     {min(shares):.3f} to {max(shares):.3f}; 0.1 each is best",
        ]

    # ---- figures: each is saved in self.folder and returns what it drew

    def visualize(self):
        self.visualize_history()
        if self.record["frames"] and self.folder:
            folder.save_gif(self.record["frames"], Path(self.folder) / "training.gif")

    def visualize_history(self):
        """Losses, and D's mean probabilities, over the epochs, losses.png."""
        history = self.record["history"]
        figure = new_figure(10, 4)
        left, right = figure.subplots(1, 2)
        epochs = [row["epoch"] for row in history]
        for axes, names in ((left, self.shown[:2]), (right, self.shown[2:])):
            for name in names:
                axes.plot(epochs, [row[name] for row in history], label=LABELS[name])
            axes.set_xlabel("epoch")
            axes.grid(alpha=0.3)
            axes.legend()
        left.set(ylabel="nats", title="Losses, mean over the epoch")
        right.set(ylabel='probability of "real"', title="D's opinion, mean over the epoch", ylim=(0, 1))
        self.save(figure, "losses.png")
        return history

    def visualize_quality(self, shares, samples, distances, neighbours):
        """Shares [10] of the digits among samples and real images; samples above their nearest training images.

        These are the first ten samples, and the ten nearest ones; quality.png.
        """
        nearest = distances.argsort()[:10]
        rows = [samples[:10], neighbours[:10], samples[nearest], neighbours[nearest]]
        picture = torch.cat([torch.cat(list(row[:, 0]), 1) for row in rows]).cpu().numpy()
        figure = new_figure(11, 4)
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        for share, label, side in zip(shares, ("samples", "test images"), (-0.2, 0.2)):
            left.bar(np.arange(10) + side, share.numpy(), width=0.4, label=label)
        left.set(
            xlabel="digit that the classifier sees", ylabel="share", title="Shares of the digits", xticks=range(10)
        )
        left.legend()
        right.imshow(picture, cmap="gray", vmin=0, vmax=1)
        right.set_title("Samples above their nearest training images: the first ten, the ten nearest")
        right.axis("off")
        self.save(figure, "quality.png")
        return picture


def weights_of(network):
    """A copy of all its weights and statistics, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


# ----------------------------------------------------------------------------------------------------- command line


def editions():
    from hw5_lab.editions import tuned, uva  # here, for they stand on this module

    return {"cs446": LabGAN, "cs446-tuned": tuned.GAN, "uva": uva.GAN}


def parse_args(argv=None):
    """The settings as a Namespace; exits with code 2 and one line where a value is out of range."""
    parser = hw5_gan.make_parser()
    command_line.add_run_flags(parser)
    command_line.choose_edition(parser, argv, editions())
    return command_line.parse(parser, argv)


def build(args):
    """The model of these settings."""
    return editions()[args.edition](args)


def main(argv=None):
    """Train, draw and measure. Returns the exit code: 0, 1 for a diverged run, 2 for bad input."""
    return run(parse_args, build, argv)
