"""Homework 5, part 1: a variational autoencoder (VAE) on binarised MNIST, with a latent space that is a plane.

    python hw5_vae.py --epochs 200          # trains, then writes figures and numbers to outputs/vae/

The encoder gives a diagonal Gaussian q(z|x), the decoder independent Bernoulli pixels p(x|z), the prior is N(0, I).
Training maximises the evidence lower bound (ELBO) of the course's 10,000 images. Beyond the course's loop, the images
are shuffled in every epoch, and the learning rate decays to 0 along a cosine.
Expect a held-out ELBO near -153 nats per image after 200 epochs, in two to four minutes on a laptop.
To find the answer to a question, search for its number with a full stop. The folder hw5_lab/, where it lies beside
this file, adds what the homework does not ask for: resuming, measurements, other courses' editions.
"""

import argparse
import importlib.util
import math
import os
import signal
import sys
from functools import cached_property
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # Ctrl-C while PyTorch loads ends without a traceback

import torch
import torch.nn.functional as F
from torch import nn

import hw5_utils as utils

DEFAULTS = dict(
    num_epoches=200,
    batch_size=100,
    lr=1e-3,
    hidden_units=500,
    latent_dimension=2,
    data_dimension=784,
    seed=1234,
    resume_training=False,
    e_path=None,
    d_path=None,
    device="cpu",
)

# ----------------------------------------------------------------------------------- densities, samples, the bound


def logpdf_diagonal_gaussian(z, mu, sigma_square):
    """2(b)i. log N(z; mu, diag(sigma_square)) in nats, [B].

    z [B,D]; mu and the variance sigma_square are [B,D], or [D] for all rows alike.
    """
    squared_distance = (z - mu) ** 2 / sigma_square
    return -0.5 * (math.log(2 * math.pi) + torch.log(sigma_square) + squared_distance).sum(-1)


def logpdf_bernoulli(x, p):
    """2(b)ii. log p(x) of independent Bernoulli pixels in nats, [B]; x [B,D] in [0,1], p [B,D] or [D] in [0,1].

    Exact at p = 0 and p = 1: finite where x agrees, -inf where it does not, never NaN (0 log 0 = 0).
    ValueError where x or p leave [0,1].
    """
    check_unit("x", x)
    check_unit("p", p)
    log_p = torch.log(torch.where(x == 0, 1.0, p))  # an outcome that did not occur costs nothing
    log_not_p = torch.log(torch.where(x == 1, 1.0, 1 - p))
    return (x * log_p + (1 - x) * log_not_p).sum(-1)


def sample_diagonal_gaussian(mu, sigma_square, generator=None):
    """2(b)iii. z ~ N(mu, diag(sigma_square)), of the shape to which the two broadcast.

    Reparameterised: the noise is drawn apart from mu and sigma_square, so that gradients reach both.
    """
    shape = torch.broadcast_shapes(mu.shape, sigma_square.shape)
    eps = torch.randn(shape, generator=generator, dtype=mu.dtype, device=mu.device)
    return mu + torch.sqrt(sigma_square) * eps


def sample_Bernoulli(p, generator=None):
    """2(b)iv. A float32 sample of p's shape: 1 with probability p in [0,1], else 0."""
    return torch.bernoulli(p, generator=generator).float()


def elbo(sampled_z, mu, sigma_square, x, p):
    """2(c). The evidence lower bound (Eq. 2) in nats, mean over the batch, to be MAXIMISED.

    sampled_z, mu, sigma_square [B,latent] of q(z|x); x [B,D] binary images; p [B,D] the decoder's pixel probabilities.
    ValueError for an empty batch, which has no mean.
    """
    if not len(x):
        raise ValueError("elbo: an empty batch has no mean; give at least one image")
    log_p_x = logpdf_bernoulli(x, p)  # [B]
    log_p_z = logpdf_diagonal_gaussian(sampled_z, torch.zeros_like(mu), torch.ones_like(mu))  # [B]
    log_q_z = logpdf_diagonal_gaussian(sampled_z, mu, sigma_square)  # [B]
    return (log_p_x + log_p_z - log_q_z).mean()


def elbo_from_logits(sampled_z, mu, sigma_square, x, logits):
    """2(c). What training uses: the same bound with p = sigmoid(logits), which is never rounded to 0 or 1.

    Returns its parts, log p(x|z) and the KL's estimate, both [B]. The ELBO is the mean of their difference.
    """
    log_p_x = -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
    return log_p_x, kl_estimate(sampled_z, mu, sigma_square)


def kl_estimate(z, mu, sigma_square):
    """2(c). log q(z|x) - log p(z) in nats, [B]: an estimate of KL(q(z|x) || N(0, I)) from one z ~ q(z|x)."""
    log_q_z = logpdf_diagonal_gaussian(z, mu, sigma_square)
    log_p_z = logpdf_diagonal_gaussian(z, torch.zeros_like(mu), torch.ones_like(mu))
    return log_q_z - log_p_z


def check_unit(name, values):
    """ValueError unless all values are in [0,1]: images of 0..255 would train without a complaint, to nonsense."""
    if not ((values >= 0) & (values <= 1)).all():  # in these words NaN is refused as well
        low, high = values.min().item(), values.max().item()
        raise ValueError(f"{name} has values from {low:.4g} to {high:.4g}; expected all in [0,1]")


def interpolate_mu(mua, mub, alpha=0.5):
    """2(e)iii. The point alpha*mua + (1-alpha)*mub between two codes of the same shape, alpha in [0,1]."""
    return alpha * mua + (1 - alpha) * mub


# -------------------------------------------------------------------------------------------------------- networks


class Encoder(nn.Module):
    """x [B,data] -> mean and variance of q(z|x), both [B,latent]. Given by the homework."""

    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super().__init__()
        self.fc1 = nn.Linear(data_dimension, hidden_units)
        self.fc2_mu = nn.Linear(hidden_units, latent_dimension)
        self.fc2_sigma = nn.Linear(hidden_units, latent_dimension)

    def forward(self, x):
        h = torch.tanh(self.fc1(x))
        return self.fc2_mu(h), torch.exp(self.fc2_sigma(h))


class Decoder(nn.Module):
    """2(a). z [B,latent] -> pixel probabilities p [B,data] in (0,1)."""

    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super().__init__()
        self.fc1 = nn.Linear(latent_dimension, hidden_units)
        self.fc2 = nn.Linear(hidden_units, data_dimension)

    def logits(self, z):
        """log(p / (1 - p)), [B,data]."""
        return self.fc2(torch.tanh(self.fc1(z)))

    def forward(self, z):
        return torch.sigmoid(self.logits(z))


# ------------------------------------------------------------------------------------------------ training, figures


class VAE(nn.Module):
    """Both networks, their training and the homework's figures. `args` needs only some of parse_args' fields.

    Building one reads no data. It draws only the first weights, encoder first, from torch's global generator.
    """

    folder = Path(__file__).resolve().parent / "outputs" / "vae"  # for figures
    Encoder, Decoder = Encoder, Decoder
    logpdf_diagonal_gaussian = staticmethod(logpdf_diagonal_gaussian)
    logpdf_bernoulli = staticmethod(logpdf_bernoulli)
    sample_diagonal_gaussian = staticmethod(sample_diagonal_gaussian)
    sample_Bernoulli = staticmethod(sample_Bernoulli)
    sample_z = staticmethod(sample_diagonal_gaussian)
    interpolate_mu = staticmethod(interpolate_mu)
    elbo_loss = staticmethod(elbo)

    def __init__(self, args):
        super().__init__()
        self.args = args = argparse.Namespace(**{**DEFAULTS, **vars(args)})
        sizes = args.latent_dimension, args.hidden_units, args.data_dimension
        self.encoder = self.Encoder(*sizes)
        self.decoder = self.Decoder(*sizes)
        if args.resume_training:
            self.load_weights()
        self.device = torch.device(args.device)
        self.to(self.device)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=args.lr, fused=self.device.type != "mps")
        self.shuffle, self.noise = torch.Generator().manual_seed(args.seed), self.fresh_generator()

    def fresh_generator(self):
        """Random numbers for looking at the model: the same at every look, and training draws none of them."""
        return torch.Generator(self.device).manual_seed(self.args.seed)

    @cached_property
    def data(self):
        """(train images [N,784] of 0 and 1, their one-hot labels [N,10], test images, labels), read when needed."""
        _, *arrays = utils.load_mnist()
        return [torch.as_tensor(array, dtype=torch.float32, device=self.device) for array in arrays]

    @cached_property
    def train_images(self):
        return self.data[0]

    @cached_property
    def train_labels(self):
        return self.data[1]

    def bound(self, x, generator):
        """The ELBO of each image x [B,data] in its two parts, log p(x|z) and the KL's estimate, with one z ~ q(z|x)."""
        mu, sigma_square = self.encoder(x)
        z = sample_diagonal_gaussian(mu, sigma_square, generator)
        return elbo_from_logits(z, mu, sigma_square, x, self.decoder.logits(z))

    def step(self, x):
        """2(d). One update of all weights with a minibatch x [B,data]; returns both parts of the bound, [B] each."""
        log_p_x, kl = self.bound(x, self.noise)
        loss = -(log_p_x - kl).mean()  # minus the ELBO
        self.optimizer.zero_grad()
        loss.backward()
        if not loss.isfinite():
            raise FloatingPointError(
                f"loss {loss:.4g} (reconstruction {log_p_x.mean():.4g}, KL {kl.mean():.4g}); try a smaller --lr"
            )
        self.optimizer.step()
        return log_p_x, kl

    def train_epoch(self, epoch, tick=lambda: None):
        """2(d). All images once, in a new order; calls `tick` after each step.

        `epoch` counts from 0. Returns the epoch's mean ELBO and its two parts, in nats per image.
        """
        images, args = self.train_images, self.args
        check_unit("images", images)
        self.optimizer.param_groups[0]["lr"] = args.lr * (1 + math.cos(math.pi * epoch / args.num_epoches)) / 2
        total_log_p_x = total_kl = 0.0
        for indices in torch.randperm(len(images), generator=self.shuffle).split(args.batch_size):
            log_p_x, kl = self.step(images[indices])
            total_log_p_x += log_p_x.sum().item()
            total_kl += kl.sum().item()
            tick()
        reconstruction, kl = total_log_p_x / len(images), total_kl / len(images)
        return {"train_elbo": reconstruction - kl, "train_reconstruction": reconstruction, "train_kl": kl}

    def train(self, mode=None):
        """2(d). Train for all epochs, a line each. With an argument: PyTorch's switch between its two modes."""
        if mode is not None:
            return super().train(mode)
        for path in filter(None, (self.args.e_path, self.args.d_path)):
            if not Path(path).absolute().parent.is_dir():  # better known now than after the training
                raise ValueError(f"{path}: cannot be written, there is no such folder; make it, or name another")
        for epoch in range(self.args.num_epoches):
            row = self.train_epoch(epoch)
            print(f"epoch {epoch + 1}: " + ", ".join(f"{name} {value:.2f}" for name, value in row.items()), flush=True)
        self.save_weights()
        return self

    def save_weights(self):
        """Write the weights of encoder and decoder to --e_path and --d_path, where these are given."""
        for network, path in ((self.encoder, self.args.e_path), (self.decoder, self.args.d_path)):
            if path:
                torch.save(network.state_dict(), path)

    def load_weights(self):
        """Read the weights from these two files."""
        for network, path in ((self.encoder, self.args.e_path), (self.decoder, self.args.d_path)):
            if not (path and Path(path).is_file()):
                raise ValueError(f"{path or '--e_path or --d_path'}: no such file; --resume_training reads both files")
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    @torch.no_grad()
    def visualize_data_space(self):
        """2(e)i. Ten samples from the model, data_space.png; returns the grid [307,59] of 10x2 images.

        Each row is one z from the prior. Column 1 is p(x|z), column 2 a sample x.
        """
        generator, prior_mean = self.fresh_generator(), torch.zeros(10, self.args.latent_dimension, device=self.device)
        z = sample_diagonal_gaussian(prior_mean, torch.ones_like(prior_mean), generator)
        p = self.decoder(z)
        x = sample_Bernoulli(p, generator)
        grid = tile(torch.cat([p, x]), 10, 2)
        self.save(draw_grid(grid, "z from the prior", ["p(x|z)", "sample"]), "data_space.png")
        return grid

    @torch.no_grad()
    def visualize_latent_space(self):
        """2(e)ii. Scatter of the means of q(z|x) of all training images, by class, latent_space.png; returns them.

        The means are [N,latent] as numpy. Points are drawn in random order; a digit stands at its class's median.
        """
        mu = self.encoder(self.train_images)[0].cpu()
        digits = self.train_labels.argmax(1).cpu()
        x, y = mu[:, 0], mu[:, 1] if mu.shape[1] > 1 else torch.zeros(len(mu))  # the first two latents
        order = torch.randperm(len(mu), generator=torch.Generator().manual_seed(self.args.seed))
        figure = new_figure(7, 6)
        axes = figure.subplots()
        axes.scatter(x[order], y[order], s=3, c=[f"C{digit}" for digit in digits[order]])
        for digit in digits.unique().tolist():
            axes.scatter([], [], color=f"C{digit}", label=str(digit))  # for the legend
            axes.text(
                x[digits == digit].median(),
                y[digits == digit].median(),
                str(digit),
                size=16,
                weight="bold",
                ha="center",
                va="center",
                bbox=dict(boxstyle="circle,pad=0.1", fc="white", alpha=0.7, lw=0),
            )
        axes.set(xlabel="$\\mu_1$", ylabel="$\\mu_2$", title="Means of q(z|x), training images", aspect="equal")
        axes.legend(title="digit", loc="center left", bbox_to_anchor=(1, 0.5))
        self.save(figure, "latent_space.png")
        return mu.numpy()

    @torch.no_grad()
    def visualize_inter_class_interpolation(self):
        """2(e)iii. p(x|z) on the way between digits of different classes, inter_class_interpolation.png.

        Returns the grid [90,338] of 3x11 images: a row is a pair, a column is alpha = 0, 0.1, ..., 1.
        """
        # Sample 3 pairs of training images with different classes
        order = torch.randperm(len(self.train_images), generator=torch.Generator().manual_seed(self.args.seed))
        digits = self.train_labels.argmax(1).cpu()
        a = order[torch.arange(3) % len(order)]
        others = [order[digits[order] != digits[i]] for i in a]
        b = torch.stack([other[k % len(other)] if len(other) else a[k] for k, other in enumerate(others)])
        # Encode each pair and take the means
        mua, mub = (self.encoder(self.train_images[ends])[0] for ends in (a, b))
        # Interpolate between the means
        z = torch.stack([interpolate_mu(mua, mub, step / 10) for step in range(11)])  # [11,3,latent]
        # Plot p(x|z) along the interpolation
        grid = tile(self.decoder(z.flatten(0, 1)), 3, 11)  # [33,data], column by column
        figure = draw_grid(grid, "p(x|z) between the means of two digits, by alpha", [k / 10 for k in range(11)])
        self.save(figure, "inter_class_interpolation.png")
        return grid

    def visualize(self):
        """2(e). All figures."""
        self.visualize_data_space()
        self.visualize_latent_space()
        self.visualize_inter_class_interpolation()

    def save(self, figure, name):
        """Write a matplotlib Figure to the folder for figures."""
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / name, dpi=120)


def tile(images, rows, columns):
    """Images [rows*columns,784] as a numpy grid, column by column."""
    return utils.concat_images([utils.array_to_image(image) for image in images.cpu()], rows, columns)


def new_figure(width, height):
    """An empty matplotlib Figure, in inches; without pyplot it needs no display."""
    from matplotlib.figure import Figure  # here: importing it with the module would slow down every start

    return Figure(figsize=(width, height), layout="constrained")


def draw_grid(grid, title, columns=()):
    """A Figure of a grid of images in [0,1], with a label above each of its columns where there are labels."""
    height, width = grid.shape
    figure = new_figure(max(width / 40, 2.6), height / 40 + 0.7)  # room for the title
    axes = figure.subplots()
    axes.imshow(grid, cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=9)
    axes.set_xticks([14 + 31 * column for column in range(len(columns))], columns, fontsize=8)
    axes.set_yticks([])
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure


# ----------------------------------------------------------------------------------------------------- command line


def make_parser():
    """The homework's flags, with their defaults. A metavar such as "1..100000" states a flag's range."""
    parser = argparse.ArgumentParser(
        "hw5_vae.py",
        description="Train a variational autoencoder on MNIST.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    flag = parser.add_argument
    flag("--epochs", "--num_epoches", dest="num_epoches", type=int, metavar="1..100000", help="passes over the images")
    flag("--batch_size", type=int, metavar="1..60000", help="images per step")
    flag("--lr", type=float, metavar="1e-7..1", help="Adam's first learning rate, decayed to 0 along a cosine")
    flag("--hidden_units", type=int, metavar="1..100000", help="width of both hidden layers")
    flag("--latent_dimension", type=int, metavar="1..10000", help="length of z")
    flag("--data_dimension", type=int, metavar="1..784", help="pixels of an image")
    flag("--seed", type=int, metavar="0..4294967295", help="of all random numbers")
    flag("--resume_training", "--resume", action="store_true", help="continue an earlier training")
    flag("--e_path", help="file for the encoder's weights")
    flag("--d_path", help="file for the decoder's weights")
    parser.set_defaults(**DEFAULTS)
    return parser


def parse_args(argv=None):
    """The homework's settings as a Namespace."""
    return make_parser().parse_args(argv)


def main(argv=None):
    """Train and draw as the flags say. Returns the exit code: 0, or 2 where something is wrong."""
    if importlib.util.find_spec("hw5_lab"):
        from hw5_lab.vae import main as run_in_laboratory

        return run_in_laboratory(argv)
    args = parse_args(argv)
    try:
        torch.manual_seed(args.seed)
        VAE(args).train().visualize()
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"hw5_vae.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
