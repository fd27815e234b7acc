"""Homework 5, part 1: a variational autoencoder on binarised MNIST, with a latent space that is a plane.

    python hw5_vae.py --epochs 200          # trains, then writes figures, history and metrics to outputs/vae/

The encoder gives a diagonal Gaussian q(z|x), the decoder independent Bernoulli pixels p(x|z), the prior is N(0, I);
training maximises the evidence lower bound (ELBO). Expect a held-out ELBO near -152 nats per image after 200 epochs
on the course's 10,000 images, in a few minutes on a laptop. README.md maps the questions to the functions below.
"""

import argparse
import math
import sys
import time
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import hw5_utils as utils

# Beside a course's own, smaller hw5_utils everything below works, only without run folders and shared flags.
Fault = getattr(utils, "Fault", ValueError)
check_unit = getattr(utils, "check_unit", lambda name, values, *shape: None)
parse_run_args = getattr(utils, "parse_run_args", argparse.ArgumentParser.parse_args)
load_tensors = getattr(utils, "load_tensors", lambda path: torch.load(path, weights_only=True))
save_tensors = getattr(utils, "save_tensors", torch.save)
save_figure = getattr(utils, "save_figure", lambda figure, path: figure.savefig(path))

# ------------------------------------------------------------------------------------------------- editions

EDITIONS = {
    "cs446": dict(num_epoches=200, batch_size=100, lr=1e-3, hidden_units=500, latent_dimension=2, data_dimension=784),
}
DEFAULTS = dict(EDITIONS["cs446"], edition="cs446", seed=1234, resume_training=False, e_path=None, d_path=None,
                train_size=10_000, input_dropout=0.2, augment=False, iwae_samples=100)

# ---------------------------------------------------------------------------------------------------- maths


def logpdf_diagonal_gaussian(z, mu, sigma_square):
    """log N(z; mu, diag(sigma_square)) in nats, [B], for z [B,D]; the parameters are [B,D], or [D] for all rows alike."""
    squared_distance = (z - mu) ** 2 / sigma_square
    return -0.5 * (math.log(2 * math.pi) + torch.log(sigma_square) + squared_distance).sum(-1)


def logpdf_bernoulli(x, p):
    """log p(x) of independent Bernoulli pixels in nats, [B]; x [B,D] in [0,1], p [B,D] or [D] in [0,1].

    Exact at p = 0 and p = 1: finite where x agrees, -inf where it does not, never NaN (0 log 0 = 0).
    ValueError where x or p leave [0,1] or differ in D.
    """
    check_unit("p", p)
    check_unit("x", x, *p.shape[-1:])
    log_p = torch.log(torch.where(x == 0, 1.0, p))  # an outcome that did not occur costs nothing
    log_not_p = torch.log(torch.where(x == 1, 1.0, 1 - p))
    return (x * log_p + (1 - x) * log_not_p).sum(-1)


def logpdf_bernoulli_logits(x, logits):
    """The same with p = sigmoid(logits), without ever rounding p to 0 or 1: the form to train with."""
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)


def sample_diagonal_gaussian(mu, sigma_square, generator=None):
    """z ~ N(mu, diag(sigma_square)), of mu's shape, reparameterised: gradients reach both parameters (question 2(b))."""
    eps = torch.randn(mu.shape, generator=generator, dtype=mu.dtype, device=mu.device)
    return mu + torch.sqrt(sigma_square) * eps


def sample_Bernoulli(p, generator=None):
    """0/1 float32 sample of p's shape, 1 with probability p in [0,1]."""
    return torch.bernoulli(p, generator=generator).float()


def kl_estimate(z, mu, sigma_square):
    """log q(z|x) - log p(z) in nats, [B]: one-sample estimate of KL(q(z|x) || N(0, I)) when z ~ q(z|x)."""
    log_q_z = logpdf_diagonal_gaussian(z, mu, sigma_square)
    log_p_z = logpdf_diagonal_gaussian(z, torch.zeros_like(mu), torch.ones_like(mu))
    return log_q_z - log_p_z


def elbo(sampled_z, mu, sigma_square, x, p):
    """The evidence lower bound (Eq. 2) in nats, mean over the batch, to be MAXIMISED: E[log p(x|z) + log p(z) - log q(z|x)].

    sampled_z, mu, sigma_square [B,latent] of q(z|x); x [B,D] binary images; p [B,D] the decoder's pixel probabilities.
    """
    log_p_x = logpdf_bernoulli(x, p)  # [B]
    log_p_z = logpdf_diagonal_gaussian(sampled_z, torch.zeros_like(mu), torch.ones_like(mu))  # [B]
    log_q_z = logpdf_diagonal_gaussian(sampled_z, mu, sigma_square)  # [B]
    return (log_p_x + log_p_z - log_q_z).mean()


def drop_pixels(x, probability, generator=None):
    """x [B,D] with every pixel 0 with this probability, and the others grown in proportion: dropout from a generator."""
    if probability == 0:
        return x
    return x * (torch.rand(x.shape, generator=generator, device=x.device) >= probability) / (1 - probability)


def transform(x, generator=None):
    """0/1 images [B,side*side], each turned by up to 8 degrees, scaled by up to 5% and shifted by up to a pixel at random."""
    side = math.isqrt(x.shape[1])
    angle, zoom, *shift = (2 * torch.rand(4, len(x), generator=generator, device=x.device) - 1).unbind()
    angle, zoom = math.radians(8) * angle, 1 + 0.05 * zoom
    rows = [[zoom * angle.cos(), -zoom * angle.sin(), 2 / side * shift[0]], [zoom * angle.sin(), zoom * angle.cos(), 2 / side * shift[1]]]
    grid = F.affine_grid(torch.stack([torch.stack(row, 1) for row in rows], 1), (len(x), 1, side, side), align_corners=False)
    return F.grid_sample(x.view(-1, 1, side, side), grid, align_corners=False).round().flatten(1)


def log_mean_exp(values, dim=0):
    """log of the mean of exp(values) along `dim`, without overflow."""
    return values.logsumexp(dim) - math.log(values.shape[dim])


def interpolate_mu(mua, mub, alpha=0.5):
    """The point alpha*mua + (1-alpha)*mub between two codes of the same shape, alpha in [0,1]."""
    return alpha * mua + (1 - alpha) * mub


# ------------------------------------------------------------------------------------------------- networks


class Encoder(nn.Module):
    """x [B,data] -> mean and variance of q(z|x), both [B,latent]."""

    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super().__init__()
        self.fc1 = nn.Linear(data_dimension, hidden_units)
        self.fc2_mu = nn.Linear(hidden_units, latent_dimension)
        self.fc2_sigma = nn.Linear(hidden_units, latent_dimension)

    def forward(self, x):
        h = torch.tanh(self.fc1(x))
        return self.fc2_mu(h), torch.exp(self.fc2_sigma(h))  # the second head is a log-variance


class Decoder(nn.Module):
    """z [B,latent] -> pixel probabilities p [B,data] in (0,1)."""

    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super().__init__()
        self.fc1 = nn.Linear(latent_dimension, hidden_units)
        self.fc2 = nn.Linear(hidden_units, data_dimension)

    def logits(self, z):
        return self.fc2(torch.tanh(self.fc1(z)))

    def forward(self, z):
        return torch.sigmoid(self.logits(z))


# ------------------------------------------------------------------------------------------------ the model


class VAE(nn.Module):
    """Encoder, decoder, and all that is done with them. `args` needs only some of parse_args' fields; the rest are defaults.

    Building one reads no data and draws only the initial weights, encoder first, from torch's global generator.
    """

    logpdf_diagonal_gaussian = staticmethod(logpdf_diagonal_gaussian)
    logpdf_bernoulli = staticmethod(logpdf_bernoulli)
    sample_diagonal_gaussian = staticmethod(sample_diagonal_gaussian)
    sample_Bernoulli = staticmethod(sample_Bernoulli)
    sample_z = staticmethod(sample_diagonal_gaussian)
    interpolate_mu = staticmethod(interpolate_mu)
    elbo_loss = staticmethod(elbo)

    shown = ("train_elbo", "test_elbo")  # what the progress bar shows of an epoch's row

    def __init__(self, args, folder=None):
        super().__init__()
        self.args = args = argparse.Namespace(**{**DEFAULTS, **vars(args)})
        self.folder = Path(folder or Path(__file__).resolve().parent / "outputs" / "vae")  # for figures
        sizes = args.latent_dimension, args.hidden_units, args.data_dimension
        self.encoder = Encoder(*sizes)
        self.decoder = Decoder(*sizes)
        if args.resume_training and (args.e_path or args.d_path):  # the course's way: weights only
            self.load_weights()
        self.device = torch.device(getattr(args, "device", "cpu"))
        self.to(self.device)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=args.lr, fused=self.device.type != "mps")
        self.parts = {"encoder": self.encoder, "decoder": self.decoder, "optimizer": self.optimizer}
        self.generators = {"shuffle": torch.Generator().manual_seed(args.seed), "z": self.fresh_generator(),
                           "noise": self.fresh_generator()}
        self.progress = {"epoch": 0, "step": 0, "order": None, "reconstruction": 0.0, "kl": 0.0, "history": []}

    def fresh_generator(self):
        """Random numbers of one's own for looking at the model: the same at every look, and training draws none of them."""
        return torch.Generator(self.device).manual_seed(self.args.seed)

    # ---- data

    @cached_property
    def data(self):
        """Binary images [N,784] and one-hot labels [N,10] of both splits: train, its labels, test, its labels."""
        where = {"data_dir": self.args.data_dir} if hasattr(self.args, "data_dir") else {}
        if self.args.train_size != 10_000:
            where["size"] = self.args.train_size
        _, *splits = utils.load_mnist(**where)
        tensors = [torch.as_tensor(split, dtype=torch.float32, device=self.device) for split in splits]
        if tensors[0].shape[1] != self.args.data_dimension:
            raise Fault(f"data_dimension {self.args.data_dimension}: the images have {tensors[0].shape[1]} pixels; use that")
        limit = getattr(self.args, "limit", None)
        return [*(tensor[:limit] for tensor in tensors[:2]), *tensors[2:]]

    @cached_property
    def train_images(self):
        return self.data[0]

    @cached_property
    def train_labels(self):
        return self.data[1]

    @cached_property
    def test_images(self):
        return self.data[2]

    # ---- training

    @property
    def epochs(self):
        return self.args.num_epoches

    @property
    def steps(self):
        """Minibatches of an epoch, the last of which may be short."""
        return math.ceil(len(self.train_images) / self.args.batch_size)

    def bound(self, x, generator, seen=None):
        """(log p(x|z), KL estimate) with one z ~ q(z|x) per image, both [B]; their difference is the ELBO of each image.

        `seen` is what the encoder is shown instead of x: any q(z|...) gives a lower bound on log p(x).
        """
        mu, sigma_square = self.encoder(x if seen is None else seen)
        z = sample_diagonal_gaussian(mu, sigma_square, generator)
        return logpdf_bernoulli_logits(x, self.decoder.logits(z)), kl_estimate(z, mu, sigma_square)

    def fit(self):
        """Maximise the mean ELBO with Adam; yields None after each step and a row of the history after each epoch."""
        images, args, progress = self.train_images, self.args, self.progress
        check_unit("images", images, args.data_dimension)
        while progress["epoch"] < self.epochs:
            start = time.perf_counter()
            if progress["step"] == 0:
                order = torch.randperm(len(images), generator=self.generators["shuffle"])
                progress.update(order=order, reconstruction=0.0, kl=0.0)
            # Both decay to 0 along a cosine: at a constant rate the held-out ELBO wanders by several nats to the end.
            decay = (1 + math.cos(math.pi * progress["epoch"] / self.epochs)) / 2
            self.optimizer.param_groups[0]["lr"] = args.lr * decay
            dropout = args.input_dropout * decay

            for indices in progress["order"].split(args.batch_size)[progress["step"]:]:
                x = images[indices]
                log_p_x, kl = self.bound(x, self.generators["z"], drop_pixels(x, dropout, self.generators["noise"]))
                loss = -(log_p_x - kl).mean()
                self.optimizer.zero_grad()
                loss.backward()
                if args.augment:
                    self.train_encoder(transform(x, self.generators["noise"]))
                if not loss.isfinite():
                    raise FloatingPointError(f"epoch {progress['epoch'] + 1}, step {progress['step'] + 1}: loss {loss:.4g} "
                                             f"(reconstruction {log_p_x.mean():.4g}, KL {kl.mean():.4g}); try a smaller --lr")
                self.optimizer.step()
                progress["reconstruction"] += log_p_x.sum().item()
                progress["kl"] += kl.sum().item()
                progress["step"] += 1
                yield None

            reconstruction, kl = progress["reconstruction"] / len(images), progress["kl"] / len(images)
            row = {"epoch": progress["epoch"] + 1, "train_elbo": reconstruction - kl, "train_reconstruction": reconstruction,
                   "train_kl": kl, **self.evaluate(), "seconds": time.perf_counter() - start}
            progress["history"].append(row)
            progress.update(epoch=progress["epoch"] + 1, step=0, order=None)
            yield row
        self.save_weights()

    def train_encoder(self, x):
        """Add the gradient of the same bound on images that are not in the training set, for the encoder alone.

        It learns to place digits that it has never seen, which is what it lacks on held-out ones (see gap.png); the
        decoder, and so the model p(x), learns from the training images only.
        """
        log_p_x, kl = self.bound(x, self.generators["z"])
        (kl - log_p_x).mean().backward(inputs=list(self.encoder.parameters()))

    def train(self, mode=None):
        """Run the training, a line per epoch. With an argument: PyTorch's switch between training and evaluation mode."""
        if mode is not None:
            return super().train(mode)
        for row in self.fit():
            if row:
                print(f"epoch {row['epoch']}: train ELBO {row['train_elbo']:.2f}, test ELBO {row['test_elbo']:.2f}")
        return self

    def save_weights(self):
        """Write the course's two files, where asked for: weights of the encoder and of the decoder."""
        for network, path in ((self.encoder, self.args.e_path), (self.decoder, self.args.d_path)):
            if path:
                save_tensors(network.state_dict(), path)

    def load_weights(self):
        """Read them back; ValueError where they belong to networks of other sizes."""
        for network, path in ((self.encoder, self.args.e_path), (self.decoder, self.args.d_path)):
            if not (path and Path(path).is_file()):
                raise Fault(f"{path or 'one of --e_path and --d_path'}: no such file; --resume_training reads both, or a checkpoint")
            try:
                network.load_state_dict(load_tensors(path))
            except (RuntimeError, TypeError):
                raise Fault(f"{path}: holds other weights than those of this {type(network).__name__}; check the sizes") from None

    # ---- evaluation: changes nothing of the training; everything in nats per image, [N]

    @torch.no_grad()
    def bounds(self, images):
        """log p(x|z) and the KL estimate of each image, with one z ~ q(z|x) each."""
        check_unit("images", images, self.args.data_dimension)
        generator = self.fresh_generator()
        return [torch.cat(part) for part in zip(*(self.bound(x, generator) for x in images.split(1000)))]

    def evaluate(self, images=None):
        """Means of the bound and its parts over whole splits (default: test)."""
        log_p_x, kl = self.bounds(self.test_images if images is None else images)
        return {"test_elbo": (log_p_x - kl).mean().item(), "test_reconstruction": log_p_x.mean().item(), "test_kl": kl.mean().item()}

    @torch.no_grad()
    def log_likelihood_sampled(self, images, samples):
        """The importance-weighted bound on log p(x) with `samples` draws from q(z|x) (Burda et al. 2016, Eq. 8).

        Equals the ELBO for one sample in the mean, and rises to log p(x) with their number.
        """
        generator, values = self.fresh_generator(), []
        for x in images.split(max(1, 20_000 // samples)):
            mu, sigma_square = (part.expand(samples, *part.shape) for part in self.encoder(x))
            z = sample_diagonal_gaussian(mu, sigma_square, generator)  # [samples,B,latent]
            log_p_x = logpdf_bernoulli_logits(x.expand(samples, *x.shape), self.decoder.logits(z))
            values.append(log_mean_exp(log_p_x - kl_estimate(z, mu, sigma_square)))
        return torch.cat(values)

    @torch.no_grad()
    def log_likelihood_exact(self, images, points=200):
        """log p(x) = log of the integral of p(x|z) p(z) over a plane of latents, by the trapezoid rule on points x points.

        Also the estimated error, [N]: the difference to every second point of the grid. And the best z, [N,2].
        The grid spans the prior and the codes of the images, each to four standard deviations.
        """
        mu, sigma_square = self.encoder(images)
        reach = max(4.0, (mu.abs() + 4 * sigma_square.sqrt()).max().item())
        line = torch.linspace(-reach, reach, points).to(mu)
        log_area = 2 * math.log(line[1] - line[0])
        fine = torch.full_like(mu[:, 0], -math.inf)
        coarse, best, best_z = fine.clone(), fine.clone(), torch.zeros_like(mu)
        for row, first in enumerate(line):
            z = torch.stack([first.expand(points), line], dim=1)
            logits = self.decoder.logits(z)
            # The sum over pixels of x * logits - softplus(logits), for all images and points in one matrix product
            log_p_x = images @ logits.T - F.softplus(logits).sum(1)  # [N,points]
            log_joint = log_p_x + logpdf_diagonal_gaussian(z, torch.zeros_like(z), torch.ones_like(z))
            fine = torch.logaddexp(fine, log_joint.logsumexp(1) + log_area)
            if row % 2 == 0:
                coarse = torch.logaddexp(coarse, log_joint[:, ::2].logsumexp(1) + log_area + math.log(4))
            value, column = log_joint.max(1)
            best_z = torch.where((value > best)[:, None], z[column], best_z)
            best = torch.maximum(best, value)
        return fine, (fine - coarse).abs(), best_z

    def measure(self):
        """All that metrics.json says of the model, on the whole test split; also draws gap.png."""
        log_p_x, kl = self.bounds(self.test_images)  # one draw of z: evaluate() gives its means
        elbo = log_p_x - kl
        sampled = self.log_likelihood_sampled(self.test_images, self.args.iwae_samples)
        metrics = {**self.evaluate(), "test_elbo_stderr": standard_error(elbo),
                   "test_log_likelihood": sampled.mean().item(), "test_log_likelihood_stderr": standard_error(sampled),
                   "iwae_samples": self.args.iwae_samples}
        if self.args.latent_dimension == 2:
            exact, error, best_z = self.log_likelihood_exact(self.test_images)
            metrics |= {"test_log_likelihood_exact": exact.mean().item(), "test_log_likelihood_exact_stderr": standard_error(exact),
                        "test_log_likelihood_exact_error": error.mean().item(),
                        "train_log_likelihood_exact": self.log_likelihood_exact(self.train_images)[0].mean().item()}
            self.visualize_gap(elbo, exact, best_z)
        if metrics["test_kl"] < 0.5:
            print("Posterior collapse: q(z|x) is the prior, so that z says nothing of x. The best decoder that ignores z "
                  "reaches -205.9 nats on binarised MNIST.", file=sys.stderr)
        return metrics

    # ---- figures: each is saved in self.folder and returns what it drew

    def save(self, figure, name):
        self.folder.mkdir(parents=True, exist_ok=True)
        save_figure(figure, self.folder / name)

    @torch.no_grad()
    def visualize_data_space(self):
        """10x2 grid [307,59]: each row a z ~ N(0, I), on the left p(x|z), on the right a sample of x."""
        generator = self.fresh_generator()
        p = self.decoder(torch.randn(10, self.args.latent_dimension, generator=generator, device=self.device))
        x = sample_Bernoulli(p, generator)
        grid = utils.concat_images([utils.array_to_image(image) for image in torch.cat([p, x]).cpu()], 10, 2)
        self.save(draw_grid(grid, "p(x|z)  and  x ~ p(x|z),\nz from the prior"), "data_space.png")
        return grid

    @torch.no_grad()
    def visualize_latent_space(self):
        """Scatter of the means of all training images, coloured by class; returns the means [N,latent] as numpy."""
        mu, _ = self.encoder(self.train_images)
        mu, digits = mu.cpu().numpy(), self.train_labels.argmax(1).cpu().numpy()
        x, y = mu[:, 0], mu[:, 1] if mu.shape[1] > 1 else 0 * mu[:, 0]  # the first two latents
        figure = new_figure(7, 6)
        axes = figure.subplots()
        for digit in range(10):
            axes.scatter(x[digits == digit], y[digits == digit], s=3, color=f"C{digit}", label=str(digit))
        axes.set(xlabel="$\\mu_1$", ylabel="$\\mu_2$", title="Means of q(z|x) of the training images", aspect="equal")
        axes.legend(title="digit", markerscale=4, loc="center left", bbox_to_anchor=(1, 0.5))
        self.save(figure, "latent_space.png")
        return mu

    @torch.no_grad()
    def visualize_inter_class_interpolation(self):
        """3x11 grid [90,338]: three pairs of digits of different classes, decoded at alpha = 0, 0.1, ..., 1 between their means."""
        order = torch.randperm(len(self.train_images), generator=torch.Generator().manual_seed(self.args.seed))
        digits = self.train_labels.argmax(1).cpu()
        a = order[torch.arange(3) % len(order)]
        others = [order[digits[order] != digits[i]] for i in a]
        others = [other if len(other) else order for other in others]  # where a small --limit leaves one class
        b = torch.stack([other[k % len(other)] for k, other in enumerate(others)])  # not always the same partner
        mua, mub = (self.encoder(self.train_images[ends])[0] for ends in (a, b))
        z = torch.stack([interpolate_mu(mua, mub, step / 10) for step in range(11)])  # [11,3,latent]
        images = self.decoder(z.flatten(0, 1)).cpu()  # [33,784], column by column
        grid = utils.concat_images([utils.array_to_image(image) for image in images], 3, 11)
        self.save(draw_grid(grid, "p(x|z) on the line between two means, alpha = 0, 0.1, ..., 1"), "inter_class_interpolation.png")
        return grid

    def visualize_history(self):
        """The bound and its two parts over the epochs, training and held-out images."""
        history = self.progress["history"]
        figure = new_figure(12, 4)
        titles = {"elbo": "ELBO", "reconstruction": "Reconstruction E[log p(x|z)]", "kl": "KL(q(z|x) || p(z))"}
        for axes, (part, title) in zip(figure.subplots(1, 3), titles.items()):
            for split, label in (("train", "training, mean over the epoch"), ("test", "held out, after the epoch")):
                axes.plot([row["epoch"] for row in history], [row[f"{split}_{part}"] for row in history], label=label)
            axes.set(xlabel="epoch", ylabel="nats per image", title=title)
            axes.grid(alpha=0.3)
        axes.legend()
        self.save(figure, "elbo.png")
        return history

    @torch.no_grad()
    def visualize_gap(self, elbo, exact, best_z):
        """How far the bound is below log p(x), [N] each: a histogram, and the ten images where it is farthest.

        Below each of these its reconstructions at the encoder's mean and at the best z [N,2]. Returns the gaps [N].
        """
        gap = (exact - elbo).cpu()
        worst = gap.argsort(descending=True)[:10].to(self.device)
        x = self.test_images[worst]
        rows = [x, self.decoder(self.encoder(x)[0]), self.decoder(best_z[worst])]
        images = torch.stack(rows).transpose(0, 1).flatten(0, 1).cpu()
        grid = utils.concat_images([utils.array_to_image(image) for image in images], 3, len(worst))
        figure = new_figure(9, 6)
        above, below = figure.subplots(2, 1)
        above.hist(gap, bins=100, log=True)
        above.set(xlabel="log p(x) - ELBO, nats", ylabel="test images",
                  title=f"What the bound misses: mean {gap.mean():.1f}, median {gap.median():.1f}, largest {gap.max():.0f} nats")
        below.imshow(grid, cmap="gray", vmin=0, vmax=1)
        below.set_title("Largest gaps: image, reconstruction at the encoder's mean, reconstruction at the best z", fontsize=9)
        below.axis("off")
        self.save(figure, "gap.png")
        return gap

    def visualize(self):
        """All figures of the training."""
        self.visualize_data_space()
        self.visualize_latent_space()
        self.visualize_inter_class_interpolation()
        self.visualize_history()


# -------------------------------------------------------------------------------------------------- figures


def new_figure(width, height):
    from matplotlib.figure import Figure  # here: importing it with the module would slow down every start

    return Figure(figsize=(width, height), layout="constrained")


def standard_error(values):
    """Of the mean of [N] values."""
    return values.std().item() / math.sqrt(len(values))


def draw_grid(grid, title):
    """A matplotlib Figure of a grid of images in [0,1]."""
    height, width = grid.shape
    figure = new_figure(max(width / 40, 2.6), height / 40 + 0.5)  # room for the title
    axes = figure.subplots()
    axes.imshow(grid, cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=9)
    axes.axis("off")
    return figure


# --------------------------------------------------------------------------------------------- command line


def parse_args(argv=None):
    """The settings as a Namespace; exits with code 2 and one line where a value is out of range."""
    parser = argparse.ArgumentParser("hw5_vae.py", description="Train a variational autoencoder on MNIST.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flag = parser.add_argument
    flag("--edition", choices=EDITIONS, help="which course's homework")
    flag("--epochs", "--num_epoches", dest="num_epoches", type=int, metavar="1..100000", help="passes over the images")
    flag("--batch_size", type=int, metavar="1..60000", help="images per step")
    flag("--lr", type=float, metavar="1e-7..1", help="Adam's first learning rate, decayed to 0 along a cosine")
    flag("--hidden_units", type=int, metavar="1..100000", help="width of both hidden layers")
    flag("--latent_dimension", type=int, metavar="1..10000", help="length of z")
    flag("--data_dimension", type=int, metavar="1..784", help="pixels of an image")
    flag("--train_size", type=int, metavar="1..60000", help="the first N training images; the course takes 10,000, 60,000 is all")
    flag("--input_dropout", type=float, metavar="0..0.9", 
         help="share of the pixels that the encoder does not see in training, decayed to 0 along a cosine")
    flag("--augment", action="store_true", help="train the encoder, not the decoder, also on turned, scaled and shifted images")
    flag("--iwae_samples", type=int, metavar="1..100000", help="samples per image of the importance-weighted bound")
    flag("--seed", type=int, metavar="0..4294967295", help="of all random numbers")
    flag("--resume_training", "--resume", action="store_true", help="continue the run in the output folder")
    flag("--e_path", help="also write the encoder's weights to this file; --resume_training reads it")
    flag("--d_path", help="the same for the decoder")
    parser.set_defaults(**DEFAULTS)
    return parse_run_args(parser, argv)


def build(args, folder=None):
    torch.manual_seed(args.seed)
    return VAE(args, folder)


def main(argv=None):
    """Train, draw and measure as the flags say. Returns the exit code: 0, 1 for a diverged run, 2 for bad input."""
    args = parse_args(argv)
    if hasattr(utils, "run"):
        return utils.run(args, build)
    vae = build(args)
    vae.train()
    vae.visualize()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
