"""The VAE in the laboratory: any data, what the model is worth, a refined encoder, more figures."""

import math
import os
from pathlib import Path

import numpy as np
import torch

from hw5_lab.experiments import refine
from hw5_lab.experiments.experiment import Experiment, images_in_words, plot_epochs
from hw5_lab.fast.layers import fuse
from hw5_lab.measures.likelihood import (
    log_likelihood_exact,
    log_likelihood_ignoring_z,
    log_likelihood_sampled,
    standard_error,
)
from hw5_lab.runs.folder import check_weight_paths, load_tensors, tensor_bytes
from hw5_utils import Fault, write_atomically
from hw5_vae import evaluating, new_figure


class VAEExperiment(Experiment):
    kind = "vae"

    def __init__(self, homework, args):
        super().__init__(homework, args)
        if not args.evaluate:
            paths = {"--e_path": args.e_path, "--d_path": args.d_path}
            networks = {"--e_path": homework.encoder, "--d_path": homework.decoder}
            names = {flag: network.state_dict().keys() for flag, network in networks.items()}
            check_weight_paths(paths, args.output_dir, names)
        self.held_out = homework.held_out
        splits = "train", self.held_out
        bounds = [f"{split}_{part}" for split in splits for part in ("elbo", "reconstruction", "kl")]
        self.columns = "epoch", *bounds, "seconds"
        self.shown = "train_elbo", f"{self.held_out}_elbo"
        homework.splits = self.read_splits()
        self.epochs = args.num_epoches + args.refine_encoder
        self.steps = math.ceil(len(homework.train_images) / args.batch_size)  # the last minibatch may be short
        if args.refine_encoder:
            self.more_parts["refiner"] = refine.make_optimizer(homework.encoder)
        fuse(*self.optimizers)

    # ---- data

    def read_splits(self):
        """{split: (images, labels)} of the homework, cut to --train_size and --limit, on the device."""
        args = self.args
        splits = self.homework.read_data(data_dir=args.data_dir, size=args.train_size)
        width = splits["train"][0].shape[1]
        if width != args.data_dimension:
            raise Fault(f"data_dimension {args.data_dimension}: the images have {width} pixels; use that")
        dtype = next(self.homework.parameters()).dtype
        to_device = lambda part: torch.as_tensor(part[: args.limit], dtype=dtype, device=self.device)
        return {name: tuple(map(to_device, parts)) for name, parts in splits.items()}

    @property
    def test_images(self):
        return self.homework.splits["test"][0]

    @property
    def test_labels(self):
        return self.homework.splits["test"][1]

    def data_tensors(self):
        return [part for parts in self.homework.splits.values() for part in parts]

    def data_in_words(self):
        return images_in_words(self.homework.train_images, self.args.data_dir)

    # ---- training

    def rows(self, first):
        """The homework's epochs and, after them, those of the encoder's refinement."""
        yield from super().rows(first)
        args = self.args
        refining = self.more_parts.get("refiner")
        for row in refine.epochs(self.homework, refining, args.refine_encoder, max(0, first - args.num_epoches)):
            yield {**row, "epoch": args.num_epoches + row["epoch"], **self.watch()}

    @property
    def clocks(self):
        refining = list(self.more_parts.values())
        own = [each for each in self.optimizers if each not in refining]
        return [*own[:1], *refining]  # a student may have one for each network

    def watch(self):
        return means(*self.homework.evaluate(self.homework.held_out_images), self.held_out)

    # ---- weights in files of their own

    def write_weights(self):
        for network, path in self.weights_files():
            weights = {name: value.cpu() for name, value in network.state_dict().items()}
            write_atomically(os.path.realpath(path), tensor_bytes(weights))  # a link stays one

    def weights_files(self):
        """(network, path) of --e_path and --d_path, where these are given."""
        return [(network, path) for network, path in self.homework.weights_files if path]

    def load_weights(self):
        """Start from the weights in --e_path and --d_path; Fault for files that hold something else."""
        for name in ("e_path", "d_path"):
            path = getattr(self.args, name)
            if not (path and Path(path).is_file()):
                raise Fault(
                    f"{path or f'--{name}'}: no such file; --resume_training reads --e_path and --d_path, "
                    "or a checkpoint"
                )
        for network, path in self.weights_files():
            try:
                weights = load_tensors(path)
                network.load_state_dict(weights)
                finite = all(value.isfinite().all() for value in weights.values())
            except (RuntimeError, TypeError, AttributeError):
                raise Fault(
                    f"{path}: holds other weights than those of this {type(network).__name__}; check the sizes"
                ) from None
            if not finite:
                raise Fault(f"{path}: holds NaN or infinite weights; name another file")

    # ---- what comes out

    def measure(self, how="usual", progress=iter):
        """What the model is worth on the whole test split: its ELBO and log p(x).

        With two latents log p(x) is an integral, and the gap of the ELBO to it is known. With others it is bounded by
        importance sampling. "quick" measures neither. "full" measures both, and the integral of the training images
        where these are binary or gray like the test images. Where --iwae_samples was named, the bound is measured too.
        """
        vae, images, samples = self.homework, self.test_images, self.args.iwae_samples
        log_p_x, kl = vae.evaluate(images)
        elbo = log_p_x - kl
        metrics = {**means(log_p_x, kl, "test"), "test_elbo_stderr": standard_error(elbo)}
        findings = {}
        plane = self.args.latent_dimension == 2
        if how == "full" or (how == "usual" and not plane) or "iwae_samples" in self.args.named:
            sampled = log_likelihood_sampled(vae, images, samples, progress)
            metrics |= {
                "test_importance_weighted_bound": sampled.mean().item(),
                "test_importance_weighted_bound_stderr": standard_error(sampled),
                "iwae_samples": samples,
            }
        if plane and how != "quick":
            exact, error, best_z = log_likelihood_exact(vae, images, progress=progress)
            metrics |= {
                "test_log_likelihood_exact": exact.mean().item(),
                "test_log_likelihood_exact_stderr": standard_error(exact),
                "test_log_likelihood_exact_error": error.mean().item(),
            }
            findings = {"gap": (exact - elbo).cpu(), "best_z": best_z}
        gray = lambda pixels: bool(((pixels > 0) & (pixels < 1)).any())
        comparable = gray(vae.train_images) == gray(images)  # not where gray pixels are tossed in training alone
        if plane and how == "full" and comparable:
            in_training, _, _ = log_likelihood_exact(vae, vae.train_images, progress=progress)
            metrics["train_log_likelihood_exact"] = in_training.mean().item()
        metrics["test_elbo_ignoring_z"] = log_likelihood_ignoring_z(vae.train_images, images).mean().item()
        return metrics, findings

    def summary(self, metrics):
        error = lambda name: f"(standard error {metrics[name + '_stderr']:.1f})"
        lines = [
            f"Measured on {len(self.test_images):,} test images, in nats per image; higher is better:",
            f"  ELBO                   {metrics['test_elbo']:8.1f} {error('test_elbo')}; "
            f"a decoder that ignores z has {metrics['test_elbo_ignoring_z']:.1f}",
        ]
        if "test_importance_weighted_bound" in metrics:
            lines.append(
                f"  bound, {metrics['iwae_samples']:4} samples    {metrics['test_importance_weighted_bound']:8.1f} "
                f"{error('test_importance_weighted_bound')}"
            )
        if "test_log_likelihood_exact" in metrics:
            lines.append(
                f"  log p(x), by integral  {metrics['test_log_likelihood_exact']:8.1f} "
                f"{error('test_log_likelihood_exact')}; the ELBO's gap to it is the encoder's error"
            )
        if metrics["test_kl"] < 0.5:
            lines.append("Posterior collapse: q(z|x) is the prior, so that z says nothing of x.")
        return lines

    # ---- figures

    def visualize(self):
        super().visualize()
        self.visualize_history()

    def visualize_history(self):
        """Amsterdam 1.13. The bound and its two parts over the epochs, training and held-out images, elbo.png."""
        history, held_out = self.record["history"], self.held_out
        figure = new_figure(12, 4)
        titles = {"elbo": "ELBO", "reconstruction": "Reconstruction E[log p(x|z)]", "kl": "KL(q(z|x) || p(z))"}
        labels = {"train": "training, mean over the epoch", held_out: f"{held_out}, after the epoch"}
        for axes, (part, title) in zip(figure.subplots(1, 3), titles.items()):
            for split, label in labels.items():
                epochs, values = [row["epoch"] for row in history], [row[f"{split}_{part}"] for row in history]
                plot_epochs(axes, epochs, values, label)
            axes.set(ylabel="nats per image", title=title)
            axes.grid(alpha=0.3)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)  # too long for a panel
        self.save(figure, "elbo.png")
        return history

    def visualize_findings(self, findings):
        """How far the bound is below log p(x): a histogram, and the ten worst images, gap.png. Returns the gaps [N].

        Below each of these its reconstructions at the encoder's mean and at the best z [N,2].
        """
        if not findings:
            return None
        gap = findings["gap"].numpy()
        worst = findings["gap"].argsort(descending=True)[:10].to(self.device)
        x = self.test_images[worst]
        rows = [x, *reconstructions(self.homework, x, findings["best_z"][worst])]
        side = math.isqrt(x.shape[1])
        picture = torch.cat([torch.cat(list(row.reshape(-1, side, side)), 1) for row in rows]).cpu().numpy()
        draws = getattr(self.homework, "draws", 1)
        draws = "one draw" if draws == 1 else f"{draws} draws"
        figure = new_figure(9, 6)
        above, below = figure.subplots(2, 1)
        above.hist(gap, bins=100, log=True)
        above.set(
            xlabel="log p(x) - ELBO, nats",
            ylabel="test images",
            title=f"What the bound misses, with {draws} of z each: mean "
            f"{gap.mean():.1f}, median {np.median(gap):.1f}, largest {gap.max():.0f} nats",
        )
        below.imshow(picture, cmap="gray", vmin=0, vmax=1, origin="upper")
        below.set_title("Largest gaps: image, reconstruction at the encoder's mean, at the best z", fontsize=9)
        below.axis("off")
        self.save(figure, "gap.png")
        return gap


@evaluating
def reconstructions(vae, x, best_z):
    """p(x|z) at the encoder's mean of each image x [B,data], and at best_z [B,latent]."""
    return vae.decoder(vae.encoder(x)[0]), vae.decoder(best_z)


def means(log_p_x, kl, split):
    """The ELBO and its two terms, [N] each, as means with the split's name."""
    return {
        f"{split}_elbo": (log_p_x - kl).mean().item(),
        f"{split}_reconstruction": log_p_x.mean().item(),
        f"{split}_kl": kl.mean().item(),
    }
