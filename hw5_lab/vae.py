"""The VAE in the laboratory: any data, what the model is worth, more figures, and the other courses' editions."""

import argparse
import math
import sys
from functools import cached_property
from pathlib import Path

import torch

import hw5_utils as utils
import hw5_vae
from hw5_lab import command_line, folder, refine
from hw5_lab.likelihood import Likelihood
from hw5_lab.model import Model, standard_error
from hw5_lab.run import run
from hw5_utils import Fault
from hw5_vae import draw_grid, logpdf_bernoulli, new_figure, tile


class LabVAE(Model, Likelihood, hw5_vae.VAE):
    """The homework's VAE with measurements. An edition is a subclass; `settings` are its defaults of flags."""

    kind, edition = "vae", "cs446"
    settings = dict(
        num_epoches=200, batch_size=100, hidden_units=500, latent_dimension=2, data_dimension=784, train_size=10_000
    )
    activation, scale, pixels = "tanh", "log_variance", "rounded"  # of the networks and the data, for explore.html
    held_out = "test"  # the split that each epoch is measured on
    tile = staticmethod(tile)

    def __init__(self, args):
        more = dict(iwae_samples=100, limit=None, data_dir=None, refine_encoder=0)
        super().__init__(argparse.Namespace(**{**more, **self.settings, **vars(args)}))
        self.parts = {"encoder": self.encoder, "decoder": self.decoder, "optimizer": self.optimizer}
        self.generators = {"shuffle": self.shuffle, "noise": self.noise}
        self.record = {"history": []}
        bounds = [f"{split}_{part}" for split in ("train", self.held_out) for part in ("elbo", "reconstruction", "kl")]
        self.columns = "epoch", *bounds, "seconds"
        self.shown = "train_elbo", f"{self.held_out}_elbo"
        if self.args.refine_encoder:
            self.parts["refiner"] = refine.make_optimizer(self.encoder, fused=self.device.type != "mps")

    # ---- data

    def read_data(self):
        """{split: (images [N,data] in [0,1], one-hot labels [N,10])} of all training and all test images."""
        _, *arrays = utils.load_mnist(self.args.data_dir, self.args.train_size)
        return {"train": arrays[:2], "test": arrays[2:]}

    @cached_property
    def splits(self):
        """What read_data() reads, cut to --train_size and --limit, on the device."""
        args, splits = self.args, self.read_data()
        width = splits["train"][0].shape[1]
        if width != args.data_dimension:
            raise Fault(f"data_dimension {args.data_dimension}: the images have {width} pixels; use that")
        limit = args.limit or max(len(images) for images, _ in splits.values())
        most = {"train": min(limit, args.train_size)}
        return {
            name: [
                torch.as_tensor(part[: most.get(name, limit)], dtype=torch.float32, device=self.device)
                for part in parts
            ]
            for name, parts in splits.items()
        }

    @cached_property
    def data(self):
        return [*self.splits["train"], *self.splits["test"]]

    @cached_property
    def test_images(self):
        return self.splits["test"][0]

    @cached_property
    def test_labels(self):
        return self.splits["test"][1]

    @cached_property
    def held_out_images(self):
        return self.splits[self.held_out][0]

    def data_tensors(self):
        return [part for parts in self.splits.values() for part in parts]

    def data_in_words(self):
        return f"{len(self.train_images):,} MNIST images"

    # ---- training

    @property
    def epochs(self):
        return self.args.num_epoches + self.args.refine_encoder

    @property
    def steps(self):
        """Minibatches of an epoch, the last of which may be short."""
        return math.ceil(len(self.train_images) / self.args.batch_size)

    def train_epoch(self, epoch, tick=lambda: None):
        """An epoch of the homework's training or, after it, of the encoder's refinement."""
        if epoch < self.args.num_epoches:
            return super().train_epoch(epoch, tick)
        return refine.train_epoch(self, epoch - self.args.num_epoches, tick)

    def look(self):
        return self.evaluate()

    def after_epoch(self, epoch):
        if epoch == self.epochs:
            self.save_weights()

    def save_weights(self):
        """As the homework's, but atomically."""
        for network, path in ((self.encoder, self.args.e_path), (self.decoder, self.args.d_path)):
            if path:
                utils.write_atomically(path, folder.tensor_bytes(network.state_dict()))

    def load_weights(self):
        """As the homework's, with a fault for files that hold something else; nothing where no files are named."""
        if not (self.args.e_path or self.args.d_path):
            return
        for name, path in (("e_path", self.args.e_path), ("d_path", self.args.d_path)):
            if not (path and Path(path).is_file()):
                raise Fault(
                    f"{path or f'--{name}'}: no such file; --resume_training reads --e_path and --d_path, "
                    "or a checkpoint"
                )
        for network, path in ((self.encoder, self.args.e_path), (self.decoder, self.args.d_path)):
            try:
                weights = folder.load_tensors(path)
                network.load_state_dict(weights)
                finite = all(value.isfinite().all() for value in weights.values())
            except (RuntimeError, TypeError, AttributeError):
                raise Fault(
                    f"{path}: holds other weights than those of this {type(network).__name__}; check the sizes"
                ) from None
            if not finite:
                raise Fault(f"{path}: holds NaN or infinite weights; name another file")

    def measure(self):
        """All that metrics.json says of the model, on the whole test split; with two latents also draws gap.png."""
        log_p_x, kl = self.bounds(self.test_images)  # one draw of z: evaluate() gives its means
        elbo = log_p_x - kl
        sampled = self.log_likelihood_sampled(self.test_images, self.args.iwae_samples)
        metrics = {
            **self.evaluate(self.test_images, "test"),
            "test_elbo_stderr": standard_error(elbo),
            "test_log_likelihood": sampled.mean().item(),
            "test_log_likelihood_stderr": standard_error(sampled),
            "iwae_samples": self.args.iwae_samples,
        }
        if self.args.latent_dimension == 2:
            exact, error, best_z = self.log_likelihood_exact(self.test_images)
            in_training = self.log_likelihood_exact(self.train_images)[0]
            metrics |= {
                "test_log_likelihood_exact": exact.mean().item(),
                "test_log_likelihood_exact_stderr": standard_error(exact),
                "test_log_likelihood_exact_error": error.mean().item(),
                "train_log_likelihood_exact": in_training.mean().item(),
            }
            self.gap = self.visualize_gap(elbo, exact, best_z)  # also for explore.html
        # What a decoder reaches that ignores z: the mean of the training images, with one pixel more of either colour
        p = (self.train_images.sum(0) + 1) / (len(self.train_images) + 2)
        metrics["test_elbo_ignoring_z"] = logpdf_bernoulli(self.test_images, p).mean().item()
        if metrics["test_kl"] < 0.5:
            print(
                "Posterior collapse: q(z|x) is the prior, so that z says nothing of x. The best decoder that ignores "
                f"z reaches {metrics['test_elbo_ignoring_z']:.1f} nats here.",
                file=sys.stderr,
            )
        return metrics

    def summary(self, metrics):
        """The results in words."""
        error = lambda name: f"(standard error {metrics[name + '_stderr']:.1f})"
        lines = [
            f"Measured on {len(self.test_images):,} test images, in nats per image; higher is better:",
            f"  ELBO                   {metrics['test_elbo']:8.1f} {error('test_elbo')}; "
            f"a decoder that ignores z has {metrics['test_elbo_ignoring_z']:.1f}",
            f"  bound, {metrics['iwae_samples']:4} samples    {metrics['test_log_likelihood']:8.1f} "
            f"{error('test_log_likelihood')}",
        ]
        if "test_log_likelihood_exact" in metrics:
            lines.append(
                f"  log p(x), by integral  {metrics['test_log_likelihood_exact']:8.1f} "
                f"{error('test_log_likelihood_exact')}; the ELBO's gap to it is the encoder's error"
            )
        return lines

    # ---- figures: each is saved in self.folder and returns what it drew

    def visualize(self):
        super().visualize()
        self.visualize_history()

    @torch.no_grad()
    def visualize_samples(self, epoch):
        """8x8 grid [245,245] of p(x|z) after this epoch, with z from the prior, the same in every epoch."""
        z = torch.randn(64, self.args.latent_dimension, generator=self.fresh_generator(), device=self.device)
        grid = self.tile(self.decoder(z), 8, 8)
        self.save(draw_grid(grid, f"p(x|z), z from the prior, epoch {epoch}"), f"samples_epoch_{epoch}.png")
        return grid

    def visualize_history(self):
        """The bound and its two parts over the epochs, training and held-out images, elbo.png."""
        history, held_out = self.record["history"], self.held_out
        figure = new_figure(12, 4)
        titles = {"elbo": "ELBO", "reconstruction": "Reconstruction E[log p(x|z)]", "kl": "KL(q(z|x) || p(z))"}
        labels = {"train": "training, mean over the epoch", held_out: f"{held_out}, after the epoch"}
        for axes, (part, title) in zip(figure.subplots(1, 3), titles.items()):
            for split, label in labels.items():
                axes.plot([row["epoch"] for row in history], [row[f"{split}_{part}"] for row in history], label=label)
            axes.set(xlabel="epoch", ylabel="nats per image", title=title)
            axes.grid(alpha=0.3)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)  # too long for a panel
        self.save(figure, "elbo.png")
        return history

    @torch.no_grad()
    def visualize_gap(self, elbo, exact, best_z):
        """How far the bound is below log p(x), [N] each: a histogram, and the ten worst images, gap.png.

        Below each of these its reconstructions at the encoder's mean and at the best z [N,2]. Returns the gaps [N].
        """
        gap = (exact - elbo).cpu()
        worst = gap.argsort(descending=True)[:10].to(self.device)
        x = self.test_images[worst]
        rows = [x, self.decoder(self.encoder(x)[0]), self.decoder(best_z[worst])]
        grid = tile(torch.stack(rows).transpose(0, 1).flatten(0, 1), 3, len(worst))
        figure = new_figure(9, 6)
        above, below = figure.subplots(2, 1)
        above.hist(gap, bins=100, log=True)
        above.set(
            xlabel="log p(x) - ELBO, nats",
            ylabel="test images",
            title="What the bound misses: mean "
            f"{gap.mean():.1f}, median {gap.median():.1f}, largest {gap.max():.0f} nats",
        )
        below.imshow(grid, cmap="gray", vmin=0, vmax=1)
        below.set_title("Largest gaps: image, reconstruction at the encoder's mean, at the best z", fontsize=9)
        below.axis("off")
        self.save(figure, "gap.png")
        return gap


# ----------------------------------------------------------------------------------------------------- command line


def editions():
    from hw5_lab.editions import ese546, hw8, uva  # here, for they stand on this module

    return {"cs446": LabVAE, "uva": uva.VAE, "ese546": ese546.VAE, "hw8": hw8.VAE}


def parse_args(argv=None):
    """The settings as a Namespace; exits with code 2 and one line where a value is out of range."""
    parser = hw5_vae.make_parser()
    flag = parser.add_argument_group("laboratory").add_argument
    flag("--train_size", type=int, metavar="1..60000", help="the first N training images; 60,000 is all")
    flag(
        "--refine_encoder",
        type=int,
        metavar="0..100000",
        default=0,
        help="then train the encoder alone for N epochs, on deformed images",
    )
    flag("--iwae_samples", type=int, metavar="1..100000", default=100, help="samples of the importance-weighted bound")
    command_line.add_run_flags(parser)
    command_line.choose_edition(parser, argv, editions())
    return command_line.parse(parser, argv)


def build(args):
    """The model of these settings."""
    if not args.evaluate:
        names = {
            "--e_path": hw5_vae.Encoder(1, 1, 1).state_dict().keys(),
            "--d_path": hw5_vae.Decoder(1, 1, 1).state_dict().keys(),
        }
        folder.check_weight_paths({"--e_path": args.e_path, "--d_path": args.d_path}, args.output_dir, names)
    torch.manual_seed(args.seed)
    return editions()[args.edition](args)


def main(argv=None):
    """Train, draw and measure. Returns the exit code: 0, 1 for a diverged run, 2 for bad input."""
    return run(parse_args, build, argv)
