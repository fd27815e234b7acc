"""Homework 5, part 1: a variational autoencoder (VAE) on binarised MNIST, with a latent space that is a plane.

    python hw5_vae.py --epochs 200          # trains, then writes figures and numbers to outputs/vae/

The encoder gives a diagonal Gaussian q(z|x), the decoder independent Bernoulli pixels p(x|z), the prior is N(0, I).
Training maximises the evidence lower bound (ELBO) of the course's 10,000 images. Beyond the course's loop, the images
are shuffled in every epoch, and the learning rate decays to 0 along a cosine.
Expect a held-out ELBO near -153 nats per image after 200 epochs, in about two minutes on two cores.

Each answer begins with the number of its question: search for "2(b)ii". The folder hw5_lab/, where it lies beside this
file, adds what the homework does not ask for: resuming, measurements, other courses' editions. Without it the figures
go to outputs/figures/.
"""

import argparse
import functools
import importlib.util
import io
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

DEFAULTS = {
    "num_epoches": 200,
    "batch_size": 100,
    "lr": 1e-3,
    "hidden_units": 500,
    "latent_dimension": 2,
    "data_dimension": 784,
    "seed": 1234,
    "resume_training": False,
    "e_path": None,
    "d_path": None,
    "device": "cpu",
}

# ----------------------------------------------------------------------------------- densities, samples, the bound


def logpdf_diagonal_gaussian(z, mu, sigma_square):
    """2(b)i. log N(z; mu, diag(sigma_square)) in nats, [B].

    z [B,D]; mu and the variance sigma_square are [B,D], or [D] for all rows alike; the variance may be a number.
    The variance must be positive: the result is NaN or infinite where it is not.
    """
    sigma_square = as_tensor(sigma_square, like=z)
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
    """2(b)iii. z ~ N(mu, diag(sigma_square)), of the shape to which the two broadcast; the variance may be a number.

    Reparameterised: the noise is drawn apart from mu and sigma_square, so that gradients reach both.
    """
    sigma_square = as_tensor(sigma_square, like=mu)
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


def elbo_terms(sampled_z, mu, sigma_square, x, logits):
    """2(c). What training uses: both terms of the same bound, with p = sigmoid(logits), never rounded to 0 or 1.

    Returns log p(x|z) and the estimate log q(z|x) - log p(z) of the KL, both [B]: the ELBO is their mean difference.
    """
    log_p_x = -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
    return log_p_x, kl_estimate(sampled_z, mu, sigma_square)


def kl_estimate(z, mu, sigma_square):
    """2(c). log q(z|x) - log p(z) in nats, [B]: an estimate of KL(q(z|x) || N(0, I)) from one z ~ q(z|x)."""
    log_q_z = logpdf_diagonal_gaussian(z, mu, sigma_square)
    log_p_z = logpdf_diagonal_gaussian(z, torch.zeros_like(mu), torch.ones_like(mu))
    return log_q_z - log_p_z


def interpolate_mu(mua, mub, alpha=0.5):
    """2(e)iii. The point alpha*mua + (1-alpha)*mub between two codes of the same shape, alpha in [0,1]."""
    return alpha * mua + (1 - alpha) * mub


def as_tensor(value, like):
    """A number as a tensor with the type and the device of another; a tensor as it is."""
    return value if torch.is_tensor(value) else torch.as_tensor(value, dtype=like.dtype, device=like.device)


def check_unit(name, values):
    """ValueError unless all values are in [0,1]: images of 0..255 would train without a complaint, to nonsense.

    Within torch.compile and the transforms of torch.func, such as vmap, which see no values, nothing is checked.
    """
    values = torch.as_tensor(values)
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(values):
        return
    if not ((values >= 0) & (values <= 1)).all():  # in these words NaN is refused as well
        low, high = values.min().item(), values.max().item()
        raise ValueError(f"{name} has values from {low:.9g} to {high:.9g}; expected all in [0,1]")


def cosine_decay(done):
    """The learning rate's factor when the share `done` of the training is done: from 1 to 0 along a cosine."""
    return (1 + math.cos(math.pi * done)) / 2


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
        """What figures and measures take. Training takes logits(): see elbo_terms."""
        return torch.sigmoid(self.logits(z))


# ------------------------------------------------------------------------------------------------ training, figures


def evaluating(method):
    """A decorator: the method runs without gradients, in evaluation mode; the modes of all modules are restored."""

    @functools.wraps(method)
    @torch.no_grad()
    def wrapped(self, *args, **options):
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            return method(self, *args, **options)
        finally:
            for module, training in modes:
                module.training = training

    return wrapped


class VAE(nn.Module):
    """Both networks, their training and the homework's figures. `args` needs only some of parse_args' fields.

    Building one reads no data. It draws only the first weights, encoder first, from torch's global generator.
    """

    defaults = DEFAULTS
    held_out = "test"  # the split that is not trained on
    pixels = "rounded"  # what becomes of gray pixels
    folder = Path(__file__).resolve().parent / "outputs" / "figures"
    Encoder, Decoder = Encoder, Decoder
    logpdf_diagonal_gaussian = staticmethod(logpdf_diagonal_gaussian)
    logpdf_bernoulli = staticmethod(logpdf_bernoulli)
    sample_diagonal_gaussian = staticmethod(sample_diagonal_gaussian)
    sample_Bernoulli = staticmethod(sample_Bernoulli)
    sample_z = staticmethod(sample_diagonal_gaussian)
    interpolate_mu = staticmethod(interpolate_mu)
    elbo = elbo_loss = staticmethod(elbo)

    def __init__(self, args):
        super().__init__()
        self.args = args = argparse.Namespace(**{**self.defaults, **vars(args)})
        sizes = args.latent_dimension, args.hidden_units, args.data_dimension
        self.encoder = self.Encoder(*sizes)
        self.decoder = self.Decoder(*sizes)
        if args.resume_training:
            self.load_weights()
        self.device = torch.device(args.device)
        self.to(self.device)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=args.lr)
        self.shuffle_rng = torch.Generator().manual_seed(args.seed)
        self.noise_rng = self.fresh_rng()

    def fresh_rng(self):
        """Random numbers for looking at the model: the same at every look. Training has a generator of its own."""
        return torch.Generator(self.device).manual_seed(self.args.seed)

    def read_data(self, **where):
        """{"train" and "test": (images [N,784] of 0 and 1, one-hot labels [N,10])}; `where` goes to load_mnist."""
        _, train_images, train_labels, test_images, test_labels = utils.load_mnist(**where)
        return {"train": (train_images, train_labels), "test": (test_images, test_labels)}

    @cached_property
    def splits(self):
        """What read_data() returns, on this device, read when it is asked for."""
        data = self.read_data()
        pixels = data["train"][0].shape[1]
        if pixels != self.args.data_dimension:
            raise ValueError(f"data_dimension {self.args.data_dimension}: the images have {pixels} pixels; use that")
        dtype = next(self.parameters()).dtype
        to_device = lambda array: torch.as_tensor(array, dtype=dtype, device=self.device)
        return {name: tuple(map(to_device, arrays)) for name, arrays in data.items()}

    @cached_property
    def train_images(self):
        return self.splits["train"][0]

    @cached_property
    def train_labels(self):
        return self.splits["train"][1]

    @cached_property
    def held_out_images(self):
        return self.splits[self.held_out][0]

    def terms(self, x, generator):
        """2(c). The ELBO of each image x [B,data] in its two terms, log p(x|z) and the KL's estimate, for one z."""
        mu, sigma_square = self.encoder(x)
        z = sample_diagonal_gaussian(mu, sigma_square, generator)
        return elbo_terms(z, mu, sigma_square, x, self.decoder.logits(z))

    def step(self, x):
        """2(d). One update of all weights with a minibatch x [B,data]; returns both terms of its ELBO, [B] each."""
        log_p_x, kl = self.terms(x, self.noise_rng)
        loss = -(log_p_x - kl).mean()  # minus the ELBO
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return log_p_x.detach(), kl.detach()

    def learning_rate(self, epoch):
        """Adam's rate in this epoch, counted from 0: it decays to 0 along a cosine."""
        return self.args.lr * cosine_decay(epoch / self.args.num_epoches)

    def epochs(self, first=0):
        """2(d). The training, from epoch `first` on, counted from 0. Yields a row after each epoch.

        A row holds the epoch's number, counted from 1, its mean ELBO and both terms, in nats per image.
        FloatingPointError where the loss is not finite.
        """
        images, args = self.train_images, self.args
        check_unit("images", images)
        for epoch in range(first, args.num_epoches):
            self.optimizer.param_groups[0]["lr"] = self.learning_rate(epoch)
            total_log_p_x = total_kl = 0.0
            order = torch.randperm(len(images), generator=self.shuffle_rng)
            for step, indices in enumerate(order.split(args.batch_size), 1):
                log_p_x, kl = self.step(images[indices])
                total_log_p_x += log_p_x.sum().item()
                total_kl += kl.sum().item()
                if not math.isfinite(total_log_p_x - total_kl):
                    raise FloatingPointError(
                        f"epoch {epoch + 1}, step {step}: reconstruction {log_p_x.mean():.4g}, KL {kl.mean():.4g}; "
                        "try a smaller --lr"
                    )
            reconstruction, kl = total_log_p_x / len(images), total_kl / len(images)
            yield {
                "epoch": epoch + 1,
                "train_elbo": reconstruction - kl,
                "train_reconstruction": reconstruction,
                "train_kl": kl,
            }

    def train(self, mode=None):
        """2(d). Train for all epochs, a line each. With an argument: PyTorch's switch between its two modes."""
        if mode is not None:
            return super().train(mode)
        if not any(module.training for module in self.modules()):
            super().train()  # a loaded model is in evaluation mode
        self.check_paths()
        self.draw_epoch(0)
        for row in self.epochs():
            numbers = ", ".join(f"{name} {value:.2f}" for name, value in row.items() if name != "epoch")
            say(f"epoch {row['epoch']}: {numbers}")
            self.draw_epoch(row["epoch"])
        self.save_weights()
        return self

    @evaluating
    def evaluate(self, images):
        """Both terms of the ELBO of each image, [N], as terms() estimates them, with the same noise at every call."""
        check_unit("images", images)
        generator = self.fresh_rng()
        parts = [self.terms(x, generator) for x in images.split(1000)]
        return [torch.cat(part) for part in zip(*parts)]

    @property
    def weights_files(self):
        """(network, path) for --e_path and --d_path; the path is None where the flag is not given."""
        named = (self.encoder, self.args.e_path), (self.decoder, self.args.d_path)
        return [(network, Path(path).absolute() if path else None) for network, path in named]

    def check_paths(self):
        """ValueError where --e_path or --d_path cannot be written, or holds anything but weights of its network."""
        files = [(network, path) for network, path in self.weights_files if path]
        for network, path in files:
            if path.is_dir() or not os.access(path.parent, os.W_OK):
                raise ValueError(f"{path}: cannot be written; name a file in a folder that is there and writable")
            if path.exists() and read_weights(path).keys() != network.state_dict().keys():
                name = type(network).__name__
                raise ValueError(
                    f"{path}: holds no weights of this {name}, so it is not overwritten; name another file"
                )
        if len(files) > len({path for _, path in files}):
            raise ValueError(f"{files[0][1]}: cannot hold both networks; name two files")

    def save_weights(self):
        """Write the weights of encoder and decoder to --e_path and --d_path, where these are given."""
        for network, path in self.weights_files:
            if path:
                content, path = io.BytesIO(), path.resolve()
                torch.save({name: weight.cpu() for name, weight in network.state_dict().items()}, content)
                partial = path.with_name(f".{path.name}.partial")  # a full disk leaves the old file whole
                try:
                    partial.write_bytes(content.getvalue())
                    partial.replace(path)
                finally:
                    partial.unlink(missing_ok=True)

    def load_weights(self):
        """Read the weights from these two files."""
        for network, path in self.weights_files:
            if not (path and path.is_file()):
                raise ValueError(f"{path or '--e_path or --d_path'}: no such file; --resume_training reads both files")
            try:
                network.load_state_dict(read_weights(path))
            except (RuntimeError, TypeError, AttributeError):
                name = type(network).__name__
                raise ValueError(
                    f"{path}: holds no weights of this {name}; use those of a run with the same sizes"
                ) from None

    # ---- figures: each is saved in self.folder and returns what it drew

    @evaluating
    def visualize_data_space(self):
        """2(e)i. Ten samples from the model, data_space.png; returns the grid [307,59] of 10x2 images.

        Each row is one z from the prior. Column 1 is p(x|z), column 2 a sample x.
        """
        generator = self.fresh_rng()
        prior_mean = torch.zeros(10, self.args.latent_dimension, device=self.device)
        z = sample_diagonal_gaussian(prior_mean, torch.ones_like(prior_mean), generator)
        p = self.decoder(z)
        x = sample_Bernoulli(p, generator)
        grid = tile(torch.cat([p, x]), 10, 2)
        self.save(draw_grid(grid, "z from the prior", ["p(x|z)", "sample"]), "data_space.png")
        return grid

    @evaluating
    def visualize_latent_space(self):
        """2(e)ii. Scatter of the means of q(z|x) of all training images, by class, latent_space.png; returns them.

        The means are [N,latent] as numpy. Points are drawn in random order; a class's digit stands at its median.
        """
        mu = self.encoder(self.train_images)[0].cpu()
        digits = self.train_labels.argmax(1).cpu()
        plane = mu.shape[1] > 1  # of more latents the first two; of one latent a row for each class
        x, y = mu[:, 0], mu[:, 1] if plane else digits
        order = torch.randperm(len(mu), generator=torch.Generator().manual_seed(self.args.seed))
        figure = new_figure(7, 6)
        axes = figure.subplots()
        points = axes.scatter(x[order], y[order], s=3, c=digits[order], cmap="tab10", vmin=0, vmax=9)
        for digit in digits.unique().tolist():
            axes.text(
                x[digits == digit].median(),
                y[digits == digit].median(),
                str(digit),
                size=16,
                weight="bold",
                ha="center",
                va="center",
                bbox={"boxstyle": "circle,pad=0.1", "fc": "white", "alpha": 0.7, "lw": 0},
            )
        axes.set(xlabel="$\\mu_1$", ylabel="$\\mu_2$" if plane else "class", aspect="equal" if plane else "auto")
        axes.set_title("Means of q(z|x), training images")
        handles, labels = points.legend_elements(num=None, fmt="{x:.0f}")
        axes.legend(handles, labels, title="class", loc="center left", bbox_to_anchor=(1, 0.5))
        self.save(figure, "latent_space.png")
        return mu.numpy()

    @evaluating
    def visualize_inter_class_interpolation(self):
        """2(e)iii. p(x|z) on the way between images of different classes, inter_class_interpolation.png.

        Returns the grid [90,338] of 3x11 images: a row is a pair, a column is alpha = 0, 0.1, ..., 1.
        """
        # Sample 3 pairs of training images with different classes
        pairs = self.pairs_of_different_classes(3)
        digits = self.train_labels.argmax(1)[pairs].tolist()
        # Encode each pair and take the means
        mua, mub = (self.encoder(self.train_images[ends])[0] for ends in pairs.T)
        # Interpolate between the means
        alphas = [step / 10 for step in range(11)]
        z = torch.stack([interpolate_mu(mua, mub, alpha) for alpha in alphas])  # [11,3,latent]
        # Plot p(x|z) along the interpolation
        grid = tile(self.decoder(z.flatten(0, 1)), 3, 11)  # [33,data], column by column
        figure = draw_grid(
            grid,
            "p(x|z) between the means of two classes, by alpha",
            alphas,
            left=[b for a, b in digits],  # alpha = 0
            right=[a for a, b in digits],
        )
        self.save(figure, "inter_class_interpolation.png")
        return grid

    def pairs_of_different_classes(self, count):
        """2(e)iii. Indices [count,2] of training images, all different, of different classes within a pair.

        Of too few images some stand twice. Where no image of another class is left, a pair is of one class.
        """
        digits = self.train_labels.argmax(1).tolist()
        order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(self.args.seed)).tolist()
        if len(order) < 2 * count:
            order = order * (2 * count)
        pairs = []
        for _ in range(count):
            a = order.pop(0)
            b = next((index for index in order if digits[index] != digits[a]), order[0])
            order.remove(b)
            pairs.append((a, b))
        return torch.tensor(pairs)

    def draw_epoch(self, epoch):
        """The figures that a homework asks for after this epoch; 0 is before the first. This one asks for none."""

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


def read_weights(path):
    """The weights in a file, {name: tensor}; empty for a file that holds something else. Runs no code from it."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None
    except Exception:  # a damaged file can raise anything
        content = None
    return content if isinstance(content, dict) else {}


def new_figure(width, height):
    """An empty matplotlib Figure, in inches; without pyplot it needs no display."""
    from matplotlib.figure import Figure  # here: importing it with the module would slow down every start

    return Figure(figsize=(width, height), layout="constrained")


def draw_grid(grid, title, columns=(), left=(), right=()):
    """A Figure of a grid of images in [0,1], with labels above its columns and beside its rows where there are any."""
    height, width = grid.shape
    figure = new_figure(max(width / 40, 2.6), height / 40 + 0.5)  # room for the title
    axes = figure.subplots()
    axes.imshow(grid, cmap="gray", vmin=0, vmax=1, origin="upper")
    axes.set_title(title, fontsize=9)
    axes.set_xticks([14 + 31 * column for column in range(len(columns))], columns, fontsize=8)
    axes.set_yticks([14 + 31 * row for row in range(len(left))], left, fontsize=8)
    for row, label in enumerate(right):
        axes.text(width + 3, 14 + 31 * row, label, fontsize=8, va="center")
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure


# ----------------------------------------------------------------------------------------------------- command line


def number(kind, low, high):
    """Options of an argparse flag: an int or a float from low to high."""

    def convert(text):
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is outside {low}..{high}")
        return value

    convert.__name__ = kind.__name__  # argparse names it where the text is no number
    return {"type": convert, "metavar": f"{low}..{high}"}


def say(line):
    """Print a line at once. Where nobody reads any more, the training goes on in silence."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")


def make_parser():
    """The homework's flags, with their ranges and defaults. A fault is one line, with exit code 2."""
    parser = argparse.ArgumentParser(
        "hw5_vae.py",
        usage="python hw5_vae.py [flags]",
        description="Train a variational autoencoder on MNIST.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.error = lambda message: parser.exit(
        2, f"{parser.prog}: {' '.join(message.split())}; --help lists all flags\n"
    )
    flag = parser.add_argument_group("training").add_argument
    flag("--epochs", "--num_epoches", dest="num_epoches", **number(int, 1, 100_000), help="passes over the images")
    flag("--batch_size", **number(int, 1, 60_000), help="images per step")
    flag("--lr", **number(float, 1e-7, 1), help="Adam's learning rate at the beginning")
    flag("--hidden_units", **number(int, 1, 100_000), help="width of both hidden layers")
    flag("--latent_dimension", **number(int, 1, 10_000), help="length of z")
    flag("--data_dimension", **number(int, 1, 784), help="pixels of an image")
    flag("--seed", **number(int, 0, 2**32 - 1), help="of all random numbers")
    flag("--resume_training", "--resume", action="store_true", help="continue an earlier training")
    flag("--e_path", help="file for the encoder's weights")
    flag("--d_path", help="file for the decoder's weights")
    parser.set_defaults(**DEFAULTS)
    return parser


def parse_args(argv=None):
    """The homework's settings as a Namespace."""
    return make_parser().parse_args(argv)


def main(argv=None):
    """Train and draw as the flags say. Ctrl-C ends the training early.

    Returns the exit code: 0, 1 where training diverged, 2 for bad input, 130 for Ctrl-C.
    """
    if importlib.util.find_spec("hw5_lab") and importlib.util.find_spec("hw5_lab.door"):
        from hw5_lab.door import enter

        return enter("hw5_vae", argv)
    args = parse_args(argv)
    if __name__ == "__main__":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # from now on Ctrl-C only ends the training
    code = 0
    try:
        torch.manual_seed(args.seed)
        vae = VAE(args)
        first = [weight.clone() for weight in vae.parameters()]
        try:
            vae.train()
        except KeyboardInterrupt:
            if all(map(torch.equal, first, vae.parameters())):
                raise  # no update yet: weights in --e_path and --d_path stay
            say("Stopped: figures, and weights in --e_path and --d_path, are those of the training so far.")
            vae.save_weights()
            code = 130
        vae.visualize()
        log_p_x, kl = vae.evaluate(vae.held_out_images)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"hw5_vae.py: {error}", file=sys.stderr)
        return 1 if isinstance(error, FloatingPointError) else 2
    except KeyboardInterrupt:  # before the first update, or while the figures are drawn
        return 130
    say(f"ELBO of {len(kl):,} held-out images: {(log_p_x - kl).mean():.1f} nats. Figures: {vae.folder}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
