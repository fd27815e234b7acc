"""The GAN in the laboratory: any data, how good its samples are, its best epoch, averaged weights, more figures."""

import copy
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import hw5_utils as utils
from hw5_gan import tile
from hw5_lab.experiments.experiment import Experiment, averaged, images_in_words, plot_epochs
from hw5_lab.fast.layers import fuse, speed_up
from hw5_lab.measures.images import Evaluator, frechet_distance, in_unit, nearest_neighbours, resemblance
from hw5_lab.runs.checkpoint import load
from hw5_lab.runs.folder import save_gif, save_tensors

LABELS = {"loss_d": "loss of D", "loss_g": "loss of G", "d_real": "real images, D(x)", "d_fake": "generated, D(G(z))"}
CHOOSE, REPORT = 1, 2  # offsets of the seed: what chooses the best epoch is not what is reported
FEW = "With fewer than MNIST's images the distance is not comparable: few samples, and a weaker classifier."
SNAPSHOTS = 6  # epochs at which explore.html shows the generator, at most


class GANExperiment(Experiment):
    kind = "gan"
    shown = "loss_d", "loss_g", "d_real", "d_fake"
    columns = "epoch", *shown, "frechet_train", "seconds"

    def __init__(self, homework, args):
        super().__init__(homework, args)
        homework.set_up(args.iter_d, args.iter_g, args.n_epochs, args.batch_size, args.lr)
        homework.train_images = self.data[0]
        homework.check_data()
        self.epochs = args.n_epochs
        self.steps = homework.steps * args.iter_g
        if self.device.type == "cpu":  # on a GPU they take longer
            speed_up(homework.disc, homework.gen)
        fuse(homework.optim_d, homework.optim_g)
        if args.ema_decay:
            average = averaged(homework.gen, args.ema_decay)
            homework.average = average.module
            homework.optim_g.register_step_post_hook(lambda *_: average.update_parameters(homework.gen))
            self.more_parts["average"] = average
        self.record |= {"frames": [], "snapshots": [], "best": None}

    # ---- data

    @cached_property
    def data(self):
        """(train images, train digits, test images, test digits): images uint8 [N,1,28,28], digits [N]."""
        arrays = (torch.as_tensor(array)[: self.args.limit] for array in utils.mnist(self.args.data_dir))
        images, digits, test_images, test_digits = (array.to(self.device) for array in arrays)
        return images.unsqueeze(1), digits.long(), test_images.unsqueeze(1), test_digits.long()

    def data_tensors(self):
        return self.data

    def data_in_words(self):
        return images_in_words(self.data[0], self.args.data_dir)

    # ---- training

    @cached_property
    def evaluator(self):
        path = Path(self.folder) / "classifier.pt" if self.folder else None
        return Evaluator(*self.data[:2], path)

    def get_ready(self):
        self.evaluator.fit()

    @property
    def clocks(self):
        return [self.homework.optim_g]

    def watch(self):
        """The Frechet distance of samples to the training images; the generator where it is smallest is kept."""
        samples = self.sample(min(5000, len(self.data[0])), CHOOSE)
        if not samples.isfinite().all():
            raise FloatingPointError("samples of G are not finite; try a smaller --lr")
        distance = frechet_distance(self.evaluator.classify(samples)[0], self.evaluator.train_features).item()
        best = self.record["best"]
        if not best or distance < best["frechet_train"]:
            epoch = len(self.record["history"]) + 1
            self.record["best"] = {"epoch": epoch, "frechet_train": distance, "gen": self.sampler_weights()}
        return {"frechet_train": distance}

    @property
    def snapshot_epochs(self):
        """A few epochs, early ones closer together."""
        return {max(1, round(self.epochs * (number / SNAPSHOTS) ** 2)) for number in range(1, SNAPSHOTS + 1)}

    def after_epoch(self, epoch):
        super().after_epoch(epoch)
        best = self.record["best"]
        if self.folder and best and best["epoch"] == epoch:
            save_tensors(best, Path(self.folder) / "best.pt")
        if epoch:
            grid = tile(self.homework.generate(self.homework.fixed_z))
            self.record["frames"].append(torch.from_numpy(grid * 255).to(torch.uint8))
        if epoch in self.snapshot_epochs:
            self.record["snapshots"].append((epoch, self.sampler_weights()))

    def check_record(self, record):
        shape = tile(self.homework.fixed_z.new_zeros(len(self.homework.fixed_z), 1, 28, 28)).shape
        if [tuple(frame.shape) for frame in record["frames"]] != [shape] * len(record["history"]):
            raise ValueError("its frames are not one for each epoch")
        gen = copy.deepcopy(self.homework.sampler)
        for epoch, weights in [*record["snapshots"], (record["best"]["epoch"], record["best"]["gen"])]:
            if type(epoch) is not int:
                raise ValueError(f"an epoch is {epoch!r}")
            load(gen, weights)

    def sampler_weights(self):
        """A copy of all weights and statistics of the generator that draws, on the CPU."""
        state = self.homework.sampler.state_dict()
        return {name: value.detach().cpu().clone() for name, value in state.items()}

    def sample(self, count, offset, gen=None):
        """`count` generated images [N,1,28,28] in [0,1]; the noise is the same at every call with this offset."""
        generator = torch.Generator().manual_seed(self.args.seed + offset)
        return self.homework.generate(self.homework.draw_z(count, generator), gen).clamp(0, 1)  # as a figure shows it

    def best_generator(self):
        """The generator of the best epoch, or the present one where there is none."""
        gen = copy.deepcopy(self.homework.sampler)
        if self.record["best"]:
            gen.load_state_dict(self.record["best"]["gen"])
        return gen

    # ---- what comes out

    def measure(self, how="usual", progress=iter):
        """How samples of the best generator, as many as there are test images, resemble these.

        Also the last epoch's means: losses in nats, and D's mean probability of "real" for both kinds of images.
        `..._real` is how one half of the test images resembles the other: slightly pessimistic, as it is half as many.
        """
        judge, record = self.evaluator, self.record
        few = len(self.data[2]) < 10_000
        judge.fit()
        metrics = {name: record["history"][-1][name] for name in self.shown} if record["history"] else {}
        if record["best"]:
            metrics["best_epoch"] = record["best"]["epoch"]
        images, _, test_images, test_digits = self.data
        images, test_images = in_unit(images), in_unit(test_images)
        generators = self.best_generator(), self.homework.sampler
        samples, last_samples = (self.sample(len(test_images), REPORT, gen) for gen in generators)
        classified, last, real = map(judge.classify, (samples, last_samples, test_images))
        # Halves at random, for the second half of MNIST's test images is easier than the first
        order = torch.randperm(len(test_images), generator=torch.Generator().manual_seed(self.args.seed))
        half = max(1, len(order) // 2)
        first, second = ([part[chosen] for part in real] for chosen in (order[:half], order[-half:]))
        metrics |= resemblance(classified, real)
        metrics |= {f"{name}_real": value for name, value in resemblance(first, second).items()}
        metrics["frechet_distance_last"] = frechet_distance(last[0], real[0]).item()
        metrics["classifier_checksum"] = judge.checksum
        metrics["classifier_accuracy"] = (real[1].argmax(1) == test_digits.cpu()).float().mean().item()

        shares = [torch.bincount(log_p.argmax(1), minlength=10) / len(log_p) for _, log_p in (classified, real)]
        metrics |= {f"share_{digit}": share.item() for digit, share in enumerate(shares[0])}
        distances, neighbours = nearest_neighbours(samples, images)
        metrics["nearest_distance"] = distances.median().item()
        metrics["nearest_distance_real"] = nearest_neighbours(test_images, images)[0].median().item()
        nearest = distances.argsort()[:10]  # the samples most like a training image
        if few:
            metrics["comparable"] = False
        findings = {
            "shares": shares,
            "pictures": [samples[:10], images[neighbours[:10]], samples[nearest], images[neighbours[nearest]]],
        }
        return metrics, findings

    def summary(self, metrics):
        shares = [metrics[f"share_{digit}"] for digit in range(10)]
        return [
            f"Samples of the best epoch, {metrics['best_epoch']}, beside {len(self.data[2]):,} test images:",
            f"  Frechet distance in a classifier's features  {metrics['frechet_distance']:7.1f}; "
            f"of real images {metrics['frechet_distance_real']:.1f}, lower is better",
            f"  Inception-style score, from 1 to 10          {metrics['inception_score']:7.2f}; "
            f"of real images {metrics['inception_score_real']:.2f}, higher is better",
            f"  shares of the ten classes                    {min(shares):.3f} to {max(shares):.3f}; 0.1 each is best",
            *([FEW] if not metrics.get("comparable", True) else []),
        ]

    # ---- figures

    def visualize(self):
        classes = self.evaluator.classify(self.homework.generate(self.homework.fixed_z).clamp(0, 1))[1].argmax(1)
        self.homework.visualize(classes)
        self.visualize_history()
        if self.record["frames"] and self.folder:
            save_gif(self.record["frames"], Path(self.folder) / "training.gif")

    def visualize_history(self):
        """Losses, and D's mean probabilities, over the epochs, losses.png."""
        history = self.record["history"]
        figure = Figure(figsize=(10, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        epochs = [row["epoch"] for row in history]
        for axes, names in ((left, self.shown[:2]), (right, self.shown[2:])):
            for name in names:
                plot_epochs(axes, epochs, [row[name] for row in history], LABELS[name])
            axes.grid(alpha=0.3)
            axes.legend()
        left.set(ylabel="nats", title="Losses, mean over the epoch")
        right.set(ylabel='probability of "real"', title="D's opinion, mean over the epoch", ylim=(0, 1))
        self.save(figure, "losses.png")
        return history

    def visualize_findings(self, findings):
        """Shares of the classes in samples and real images; samples above their nearest training images, quality.png.

        These are the first ten samples, and the ten that are nearest to a training image.
        """
        picture = torch.cat([torch.cat(list(row[:, 0]), 1) for row in findings["pictures"]]).cpu().numpy()
        figure = Figure(figsize=(11, 4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        for share, label, side, ink in zip(findings["shares"], ("samples", "test images"), (0.2, -0.2), ("C1", "C0")):
            left.bar(np.arange(10) + side, share.numpy(), width=0.4, color=ink, label=label)
        left.set(
            xlabel="class that the classifier sees", ylabel="share", title="Shares of the classes", xticks=range(10)
        )
        left.margins(y=0.2)  # room for the legend
        left.legend(loc="upper center", ncols=2)
        right.imshow(picture, cmap="gray", vmin=0, vmax=1, origin="upper")
        right.set_title("Samples above their nearest training images: the first ten, the ten nearest")
        right.axis("off")
        self.save(figure, "quality.png")
        return picture
