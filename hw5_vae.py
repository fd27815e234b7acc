"""Homework 5, part 1: a variational autoencoder on binarised MNIST, with a latent space that is a plane.

    python hw5_vae.py --epochs 200          # trains, then writes figures, history and metrics to outputs/vae/
    python hw5_vae.py --edition uva         # another course's homework; the table below says how they differ

The encoder gives a diagonal Gaussian q(z|x), the decoder independent Bernoulli pixels p(x|z), the prior is N(0, I);
training maximises the evidence lower bound (ELBO). Expect a held-out ELBO near -149 nats per image after 200 epochs
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
set_edition = getattr(utils, "set_edition", lambda parser, argv, editions, default: parser.set_defaults(**editions[default]))
load_tensors = getattr(utils, "load_tensors", lambda path: torch.load(path, weights_only=True))
save_tensors = getattr(utils, "save_tensors", torch.save)
save_figure = getattr(utils, "save_figure", lambda figure, path: figure.savefig(path))

# ------------------------------------------------------------------------------------------------- editions

# pixels, train_size and held_out say what the data are (see prepare_pixels and VAE.data), activation and scale what the
# networks do, kl and draws how the bound is estimated (see VAE.bound), samples and figures what is drawn (see VAE.visualize).
EDITIONS = {
    "cs446": dict(  # University of Illinois, 2022
        pixels="rounded", data_dimension=784, train_size=10_000, held_out="test", hidden_units=500, activation="tanh",
        scale="log_variance", latent_dimension=2, kl="sampled", draws=1, input_dropout=0.2, batch_size=100, num_epoches=200,
        samples="never", figures=("data_space", "latent_space", "inter_class_interpolation", "history")),
    "uva": dict(  # University of Amsterdam, Deep Learning, assignment 3
        pixels="drawn", data_dimension=784, train_size=50_000, held_out="validation", hidden_units=500, activation="relu",
        scale="deviation", latent_dimension=20, kl="analytic", draws=1, input_dropout=0.0, batch_size=128, num_epoches=40,
        samples="thrice", figures=("history", "manifold")),
    "ese546": dict(  # University of Pennsylvania
        pixels="halved", data_dimension=196, train_size=10_000, held_out="test", hidden_units=128, activation="tanh",
        scale="log_variance", latent_dimension=8, kl="analytic", draws=2, input_dropout=0.0, batch_size=32, num_epoches=50,
        samples="once", figures=("updates", "reconstructions")),
    "hw8": dict(  # University of Illinois, 2020
        pixels="gray", data_dimension=784, train_size=60_000, held_out="test", hidden_units=400, activation="relu",
        scale="log_variance", latent_dimension=20, kl="analytic", draws=1, input_dropout=0.0, batch_size=128, num_epoches=30,
        samples="always", figures=("history",)),
}
DEFAULTS = dict(edition="cs446", lr=1e-3, seed=1234, resume_training=False, e_path=None, d_path=None, augment=False,
                iwae_samples=100)

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


def reparameterize(mu, logvar):
    """z ~ N(mu, diag(exp(logvar))) of mu's shape: the same with a log-variance, under the name of edition hw8."""
    return sample_diagonal_gaussian(mu, torch.exp(logvar))


def sample_Bernoulli(p, generator=None):
    """0/1 float32 sample of p's shape, 1 with probability p in [0,1]."""
    return torch.bernoulli(p, generator=generator).float()


def kl_estimate(z, mu, sigma_square):
    """log q(z|x) - log p(z) in nats, [B]: one-sample estimate of KL(q(z|x) || N(0, I)) when z ~ q(z|x)."""
    log_q_z = logpdf_diagonal_gaussian(z, mu, sigma_square)
    log_p_z = logpdf_diagonal_gaussian(z, torch.zeros_like(mu), torch.ones_like(mu))
    return log_q_z - log_p_z


def kl_divergence(mu, sigma_square):
    """KL(N(mu, diag(sigma_square)) || N(0, I)) in nats, [B]: the exact value of which kl_estimate is one sample (Eq. 1)."""
    return 0.5 * (sigma_square + mu**2 - 1 - torch.log(sigma_square)).sum(-1)


def elbo(sampled_z, mu, sigma_square, x, p):
    """The evidence lower bound (Eq. 2) in nats, mean over the batch, to be MAXIMISED: E[log p(x|z) + log p(z) - log q(z|x)].

    sampled_z, mu, sigma_square [B,latent] of q(z|x); x [B,D] binary images; p [B,D] the decoder's pixel probabilities.
    """
    log_p_x = logpdf_bernoulli(x, p)  # [B]
    log_p_z = logpdf_diagonal_gaussian(sampled_z, torch.zeros_like(mu), torch.ones_like(mu))  # [B]
    log_q_z = logpdf_diagonal_gaussian(sampled_z, mu, sigma_square)  # [B]
    return (log_p_x + log_p_z - log_q_z).mean()


def prepare_pixels(images, how):
    """uint8 images [N,28,28] -> float [N,D] in [0,1].

    "rounded" to 0 or 1; "drawn" from Bernoulli(gray value), once and for all, whatever the seed of a run; "halved" to the
    means of 2x2 pixels, 1 where these exceed 128 of 255; "gray" as they are.
    """
    x = images.float()
    if how == "halved":
        return (F.avg_pool2d(x.unsqueeze(1), 2) > 128).float().flatten(1)  # [N,196]
    x = (x / 255).flatten(1)
    if how == "drawn":
        return torch.bernoulli(x, generator=torch.Generator().manual_seed(0))
    return x.round() if how == "rounded" else x


def drop_pixels(x, probability, generator=None):
    """x [B,D] with every pixel 0 with this probability, to 1/256, and the others grown in proportion: dropout from a generator."""
    threshold = round(256 * probability)
    if threshold == 0:
        return x
    # A byte for each pixel, eight from each random number: with a number for each, these took a tenth of a training step
    numbers = torch.empty(math.ceil(x.numel() / 8), dtype=torch.int64, device=x.device).random_(-(2**63), None, generator=generator)
    seen = numbers.view(torch.uint8)[: x.numel()].view(x.shape) >= threshold
    return x * seen * (256 / (256 - threshold))


def first_of_each_digit(images, labels, count):
    """The first `count` images of every digit and their one-hot labels, in their order; says where there are fewer."""
    digits = labels.argmax(1)
    found = [(digits == digit).nonzero()[:count, 0] for digit in range(10)]
    if (least := min(map(len, found))) < count:
        print(f"{least} images of some digits where {count} were asked for: using all there are.", file=sys.stderr)
    chosen = torch.cat(found).sort().values
    return images[chosen], labels[chosen]


def transform(x, generator=None, binary=True):
    """Images [B,side*side], each turned by up to 8 degrees, scaled by up to 5% and shifted by up to a pixel at random.

    Their pixels are rounded to 0 and 1 again, where they are `binary`.
    """
    side = math.isqrt(x.shape[1])
    angle, zoom, *shift = (2 * torch.rand(4, len(x), generator=generator, device=x.device) - 1).unbind()
    angle, zoom = math.radians(8) * angle, 1 + 0.05 * zoom
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    rows = [[cos, -sin, 2 / side * shift[0]], [sin, cos, 2 / side * shift[1]]]
    grid = F.affine_grid(torch.stack([torch.stack(row, 1) for row in rows], 1), (len(x), 1, side, side), align_corners=False)
    moved = F.grid_sample(x.view(-1, 1, side, side), grid, align_corners=False).flatten(1)
    return moved.round() if binary else moved


def log_mean_exp(values, dim=0):
    """log of the mean of exp(values) along `dim`, without overflow."""
    return values.logsumexp(dim) - math.log(values.shape[dim])


def interpolate_mu(mua, mub, alpha=0.5):
    """The point alpha*mua + (1-alpha)*mub between two codes of the same shape, alpha in [0,1]."""
    return alpha * mua + (1 - alpha) * mub


# ------------------------------------------------------------------------------------------------- networks


class Encoder(nn.Module):
    """x [B,data] -> mean and variance of q(z|x), both [B,latent].

    The second head is a log-variance or, where scale is "deviation", a standard deviation before softplus.
    """

    def __init__(self, latent_dimension, hidden_units, data_dimension, activation="tanh", scale="log_variance"):
        super().__init__()
        self.activation, self.scale = getattr(torch, activation), scale
        self.fc1 = nn.Linear(data_dimension, hidden_units)
        self.fc2_mu = nn.Linear(hidden_units, latent_dimension)
        self.fc2_sigma = nn.Linear(hidden_units, latent_dimension)

    def forward(self, x):
        h = self.activation(self.fc1(x))
        head = self.fc2_sigma(h)
        return self.fc2_mu(h), F.softplus(head) ** 2 if self.scale == "deviation" else torch.exp(head)


class Decoder(nn.Module):
    """z [B,latent] -> pixel probabilities p [B,data] in (0,1)."""

    def __init__(self, latent_dimension, hidden_units, data_dimension, activation="tanh"):
        super().__init__()
        self.activation = getattr(torch, activation)
        self.fc1 = nn.Linear(latent_dimension, hidden_units)
        self.fc2 = nn.Linear(hidden_units, data_dimension)

    def logits(self, z):
        return self.fc2(self.activation(self.fc1(z)))

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

    def __init__(self, args, folder=None):
        super().__init__()
        edition = getattr(args, "edition", DEFAULTS["edition"])
        self.args = args = argparse.Namespace(**{**DEFAULTS, **EDITIONS[edition], **vars(args)})
        self.shown = "train_elbo", f"{args.held_out}_elbo"  # what the progress bar shows of an epoch's row
        self.folder = Path(folder or Path(__file__).resolve().parent / "outputs" / "vae")  # for figures
        sizes = args.latent_dimension, args.hidden_units, args.data_dimension
        self.encoder = Encoder(*sizes, args.activation, args.scale)
        self.decoder = Decoder(*sizes, args.activation)
        if args.resume_training and (args.e_path or args.d_path):  # the course's way: weights only
            self.load_weights()
        self.device = torch.device(getattr(args, "device", "cpu"))
        self.to(self.device)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=args.lr, fused=self.device.type != "mps")
        self.parts = {"encoder": self.encoder, "decoder": self.decoder, "optimizer": self.optimizer}
        self.generators = {"shuffle": torch.Generator().manual_seed(args.seed), "z": self.fresh_generator(),
                           "noise": self.fresh_generator()}
        self.progress = {"epoch": 0, "step": 0, "order": None, "reconstruction": 0.0, "kl": 0.0, "history": [],
                         "updates": [], "checks": []}

    def fresh_generator(self):
        """Random numbers of one's own for looking at the model: the same at every look, and training draws none of them."""
        return torch.Generator(self.device).manual_seed(self.args.seed)

    # ---- data

    @cached_property
    def data(self):
        """{split: (images [N,data] in [0,1], one-hot labels [N,10])} of train and test, and validation where there is one."""
        args = self.args
        where = {"data_dir": args.data_dir} if hasattr(args, "data_dir") else {}
        if args.pixels == "rounded":  # the course's own preparation, which its smaller utils has as well
            size = {} if args.train_size == 10_000 else {"size": args.train_size}
            _, *arrays = utils.load_mnist(**where, **size)
            train, test = arrays[:2], arrays[2:]
        else:
            images, digits, test_images, test_digits = (torch.as_tensor(array) for array in utils.mnist(**where))
            pairs = (images, digits), (test_images, test_digits)
            train, test = ((prepare_pixels(x, args.pixels), F.one_hot(y.long(), 10)) for x, y in pairs)
        splits = {"train": train, "test": test}
        if args.held_out == "validation":  # the last sixth of the training images, which is 10,000 of MNIST's
            kept = len(train[0]) - len(train[0]) // 6
            splits = {"train": [part[:kept] for part in train], "validation": [part[kept:] for part in train], "test": test}
        if args.edition == "ese546":
            splits["train"] = first_of_each_digit(*train, max(1, args.train_size // 10))
        limit = min(args.train_size, getattr(args, "limit", None) or args.train_size)
        splits["train"] = [part[:limit] for part in splits["train"]]
        if train[0].shape[1] != args.data_dimension:
            raise Fault(f"data_dimension {args.data_dimension}: the images have {train[0].shape[1]} pixels; use that")
        as_float = lambda part: torch.as_tensor(part, dtype=torch.float32, device=self.device)
        return {name: [as_float(part) for part in parts] for name, parts in splits.items()}

    @cached_property
    def train_images(self):
        return self.data["train"][0]

    @property
    def train_data(self):
        return self.train_images

    @cached_property
    def train_labels(self):
        return self.data["train"][1]

    @cached_property
    def test_images(self):
        return self.data["test"][0]

    @cached_property
    def held_out_images(self):
        """What each epoch is measured on: the test images, or validation images where the edition keeps some."""
        return self.test_images if self.args.held_out == "test" else self.data["validation"][0]

    # ---- training

    @property
    def epochs(self):
        return self.args.num_epoches

    @property
    def steps(self):
        """Minibatches of an epoch, the last of which may be short."""
        return math.ceil(len(self.train_images) / self.args.batch_size)

    def bound(self, x, generator, seen=None):
        """(log p(x|z), KL) with z ~ q(z|x), both [B]; their difference is the ELBO of each image.

        The KL is estimated with the same z (Eq. 2) or exact (Eq. 1), as the edition asks. `seen` is what the encoder is
        shown instead of x: any q(z|...) gives a lower bound on log p(x).
        """
        mu, sigma_square = self.encoder(x if seen is None else seen)
        draws = [sample_diagonal_gaussian(mu, sigma_square, generator) for _ in range(self.args.draws)]
        log_p_x = sum(logpdf_bernoulli_logits(x, self.decoder.logits(z)) for z in draws)  # averaged are these, never the z
        if self.args.kl == "analytic":
            kl = kl_divergence(mu, sigma_square)
        else:
            kl = sum(kl_estimate(z, mu, sigma_square) for z in draws) / len(draws)
        return log_p_x / len(draws), kl

    def fit(self):
        """Maximise the mean ELBO with Adam; yields None after each step and a row of the history after each epoch."""
        images, args, progress = self.train_images, self.args, self.progress
        check_unit("images", images, args.data_dimension)
        if progress["epoch"] == progress["step"] == 0 and 0 in self.sample_epochs:
            self.visualize_samples()
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
                    self.train_encoder(transform(x, self.generators["noise"], binary=args.pixels != "gray"))
                if not loss.isfinite():
                    raise FloatingPointError(f"epoch {progress['epoch'] + 1}, step {progress['step'] + 1}: loss {loss:.4g} "
                                             f"(reconstruction {log_p_x.mean():.4g}, KL {kl.mean():.4g}); try a smaller --lr")
                self.optimizer.step()
                progress["reconstruction"] += log_p_x.sum().item()
                progress["kl"] += kl.sum().item()
                self.note_update(log_p_x, kl)
                progress["step"] += 1
                yield None

            reconstruction, kl = progress["reconstruction"] / len(images), progress["kl"] / len(images)
            row = {"epoch": progress["epoch"] + 1, "train_elbo": reconstruction - kl, "train_reconstruction": reconstruction,
                   "train_kl": kl, **self.evaluate(), "seconds": time.perf_counter() - start}
            progress["history"].append(row)
            progress.update(epoch=progress["epoch"] + 1, step=0, order=None)
            if progress["epoch"] in self.sample_epochs:
                self.visualize_samples()
            yield row
        self.save_weights()

    @property
    def sample_epochs(self):
        """The epochs after which samples are drawn; 0 is before the first."""
        return {"never": (), "once": (self.epochs,), "thrice": (0, self.epochs // 2, self.epochs),
                "always": range(1, self.epochs + 1)}[self.args.samples]

    def note_update(self, log_p_x, kl):
        """For the curves over updates: both terms of each, and every 100 the held-out likelihood of 100 images."""
        if "updates" in self.args.figures:
            updates = self.progress["updates"]
            updates.append((log_p_x.mean().item(), kl.mean().item()))
            if len(updates) % 100 == 0:
                log_p_x, _ = self.bounds(self.held_out_images[:100])
                self.progress["checks"].append((len(updates), log_p_x.mean().item()))

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
                print(f"epoch {row['epoch']}: " + ", ".join(f"{name} {row[name]:.2f}" for name in self.shown))
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
        """log p(x|z) and the KL of each image, as bound() estimates them."""
        check_unit("images", images, self.args.data_dimension)
        generator = self.fresh_generator()
        return [torch.cat(part) for part in zip(*(self.bound(x, generator) for x in images.split(1000)))]

    def evaluate(self, images=None, split=None):
        """Means of the bound and its parts over whole splits (default: the held-out one), under the split's name."""
        split = split or self.args.held_out
        log_p_x, kl = self.bounds(self.held_out_images if images is None else images)
        return {f"{split}_elbo": (log_p_x - kl).mean().item(), f"{split}_reconstruction": log_p_x.mean().item(),
                f"{split}_kl": kl.mean().item()}

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
        metrics = {**self.evaluate(self.test_images, "test"), "test_elbo_stderr": standard_error(elbo),
                   "test_log_likelihood": sampled.mean().item(), "test_log_likelihood_stderr": standard_error(sampled),
                   "iwae_samples": self.args.iwae_samples}
        if self.args.latent_dimension == 2:
            exact, error, best_z = self.log_likelihood_exact(self.test_images)
            metrics |= {"test_log_likelihood_exact": exact.mean().item(), "test_log_likelihood_exact_stderr": standard_error(exact),
                        "test_log_likelihood_exact_error": error.mean().item(),
                        "train_log_likelihood_exact": self.log_likelihood_exact(self.train_images)[0].mean().item()}
            self.visualize_gap(elbo, exact, best_z)
        # What a decoder reaches that ignores z: the mean of the training images, with one pixel more of either colour
        p = (self.train_images.sum(0) + 1) / (len(self.train_images) + 2)
        metrics["test_elbo_ignoring_z"] = logpdf_bernoulli(self.test_images, p).mean().item()
        if metrics["test_kl"] < 0.5:
            print("Posterior collapse: q(z|x) is the prior, so that z says nothing of x. The best decoder that ignores z "
                  f"reaches {metrics['test_elbo_ignoring_z']:.1f} nats here.", file=sys.stderr)
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
        grid = tile(torch.cat([p, x]), 10, 2)
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
        grid = tile(self.decoder(z.flatten(0, 1)), 3, 11)  # [33,data], column by column
        self.save(draw_grid(grid, "p(x|z) on the line between two means, alpha = 0, 0.1, ..., 1"), "inter_class_interpolation.png")
        return grid

    @torch.no_grad()
    def visualize_samples(self):
        """8x8 grid [245,245] of p(x|z) at this epoch, with z from the prior, the same at every epoch."""
        z = torch.randn(64, self.args.latent_dimension, generator=self.fresh_generator(), device=self.device)
        grid, epoch = tile(self.decoder(z), 8, 8), self.progress["epoch"]
        self.save(draw_grid(grid, f"p(x|z), z from the prior, epoch {epoch}"), f"samples_epoch_{epoch}.png")
        return grid

    @torch.no_grad()
    def visualize_manifold(self):
        """20x20 grid [617,617] of p(x|z) over a plane of latents, z being the normal quantiles of (i + 1/2) / 20."""
        if self.args.latent_dimension != 2:
            return None
        quantiles = torch.special.ndtri((torch.arange(20, device=self.device) + 0.5) / 20)
        z = torch.cartesian_prod(quantiles, -quantiles)  # columns from left to right, each from the top down
        grid = tile(self.decoder(z), 20, 20)
        self.save(draw_grid(grid, "p(x|z) at the quantiles of the prior: first latent to the right, second upwards"), "manifold.png")
        return grid

    @torch.no_grad()
    def visualize_reconstructions(self):
        """8x2 grid [245,59] of the first held-out images, each beside p(x|z) at the mean of q(z|x)."""
        x = self.held_out_images[:8]
        grid = tile(torch.cat([x, self.decoder(self.encoder(x)[0])]), len(x), 2)
        self.save(draw_grid(grid, "held-out images and\nreconstructions"), "reconstructions.png")
        return grid

    def visualize_updates(self):
        """Both terms of the bound over the updates, and the likelihoods of training and held-out images."""
        updates, checks = self.progress["updates"], self.progress["checks"]
        figure = new_figure(12, 4)
        terms, likelihoods = figure.subplots(1, 2)
        steps, (log_p_x, kl) = range(1, len(updates) + 1), zip(*updates) if updates else ((), ())
        terms.plot(steps, log_p_x, lw=0.5, label="E[log p(x|z)]")
        terms.plot(steps, kl, lw=0.5, label="KL(q(z|x) || p(z))")
        terms.set_title("Both terms of the bound, each minibatch")
        likelihoods.plot(steps, log_p_x, lw=0.5, label="training, each minibatch")
        likelihoods.plot(*(zip(*checks) if checks else ((), ())), label="100 held-out images, every 100 updates")
        likelihoods.set_title("E[log p(x|z)]")
        for axes in (terms, likelihoods):
            axes.set(xlabel="update", ylabel="nats per image")
            axes.grid(alpha=0.3)
            axes.legend()
        self.save(figure, "updates.png")
        return updates

    def visualize_history(self):
        """The bound and its two parts over the epochs, training and held-out images."""
        history, held_out = self.progress["history"], self.args.held_out
        noisy = ", with input dropout" if self.args.input_dropout else ""
        figure = new_figure(12, 4)
        titles = {"elbo": "ELBO", "reconstruction": "Reconstruction E[log p(x|z)]", "kl": "KL(q(z|x) || p(z))"}
        for axes, (part, title) in zip(figure.subplots(1, 3), titles.items()):
            for split, label in (("train", f"training, mean over the epoch{noisy}"), (held_out, f"{held_out}, after the epoch")):
                axes.plot([row["epoch"] for row in history], [row[f"{split}_{part}"] for row in history], label=label)
            axes.set(xlabel="epoch", ylabel="nats per image", title=title)
            axes.grid(alpha=0.3)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)  # too long for a panel
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
        grid = tile(torch.stack(rows).transpose(0, 1).flatten(0, 1), 3, len(worst))
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
        """All figures of the edition but the samples, which fit() draws at their epochs."""
        for name in self.args.figures:
            getattr(self, f"visualize_{name}")()


# -------------------------------------------------------------------------------------------------- figures


def new_figure(width, height):
    from matplotlib.figure import Figure  # here: importing it with the module would slow down every start

    return Figure(figsize=(width, height), layout="constrained")


def tile(images, rows, columns):
    """images [N,data] as a numpy grid, column by column; 14x14 images at twice their size."""
    side = math.isqrt(images.shape[1])
    pictures = F.interpolate(images.cpu().view(-1, 1, side, side), size=28)
    return utils.concat_images([utils.array_to_image(picture) for picture in pictures], rows, columns)


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
    flag("--train_size", type=int, metavar="1..60000", help="the first N training images; 60,000 is all")
    flag("--input_dropout", type=float, metavar="0..0.9",
         help="share of the pixels that the encoder does not see in training, decayed to 0 along a cosine")
    flag("--augment", action="store_true", help="train the encoder, not the decoder, also on turned, scaled and shifted images")
    flag("--iwae_samples", type=int, metavar="1..100000", help="samples per image of the importance-weighted bound")
    flag("--seed", type=int, metavar="0..4294967295", help="of all random numbers")
    flag("--resume_training", "--resume", action="store_true", help="continue the run in the output folder")
    flag("--e_path", help="also write the encoder's weights to this file; --resume_training reads it")
    flag("--d_path", help="the same for the decoder")
    parser.set_defaults(**DEFAULTS)
    set_edition(parser, argv, EDITIONS, DEFAULTS["edition"])
    return parse_run_args(parser, argv)


def build(args, folder=None):
    for path in filter(None, (args.e_path, args.d_path)):
        if not Path(path).absolute().parent.is_dir():  # better said now than after the training
            raise Fault(f"{path}: cannot be written, there is no such folder; make it, or name another")
    torch.manual_seed(args.seed)
    return VAE(args, folder)


def main(argv=None):
    """Train, draw and measure as the flags say. Returns the exit code: 0, 1 for a diverged run, 2 for bad input."""
    args = parse_args(argv)
    if hasattr(utils, "run"):
        return utils.run(args, build)
    resume = args.resume_training and not (args.e_path and args.d_path)
    if resume or args.edition != DEFAULTS["edition"] or args.train_size != 10_000:
        print("hw5_vae.py: --edition, --train_size, and --resume without --e_path and --d_path need this project's own "
              "hw5_utils.py beside it", file=sys.stderr)
        return 2
    try:
        vae = build(args)
        vae.train()
        vae.visualize()
    except Fault as fault:
        print(f"hw5_vae.py: {fault}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
