"""Homework 5, part 2: a generative adversarial network (GAN) that learns to draw MNIST digits.

    python hw5_gan.py                       # trains, then writes samples and numbers to outputs/gan/

The discriminator D says how real an image looks (a logit), the generator G turns noise z into an image; each is trained
against the other with Adam, on all 60,000 images.
Expect recognisable digits after 20 to 30 epochs, at about 12 s an epoch on two cores.

Each answer begins with the number of its question: search for "4(d)". The folder hw5_lab/, where it lies beside this
file, adds what the homework does not ask for: faster layers, resuming, measurements, other editions of the homework.
Without it the samples go to outputs/figures/.
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

DEFAULTS = {"n_epochs": 100, "iter_d": 1, "iter_g": 1, "batch_size": 256, "lr": 0.0002, "zdim": 64, "seed": 2}

# ------------------------------------------------------------------------------------------------- both losses


def discriminator_loss(real_logits, fake_logits):
    """4(d). -(E[log D(x)] + E[log(1 - D(G(z)))]) / 2 in nats, to be minimised by D; logits [B,1], D = sigmoid(logits).

    ValueError for an empty batch, which has no mean.
    """
    on_real = cross_entropy(real_logits, torch.ones_like(real_logits))
    on_fake = cross_entropy(fake_logits, torch.zeros_like(fake_logits))
    return 0.5 * (on_real + on_fake)


def generator_loss(fake_logits):
    """4(e). -E[log D(G(z))] in nats, to be minimised by G.

    This is the non-saturating form: log(1 - D(G(z))) would have hardly a gradient where D is sure that the image is
    fake.
    """
    return cross_entropy(fake_logits, torch.ones_like(fake_logits))


def cross_entropy(logits, labels):
    """4(d). -E[y log D + (1-y) log(1-D)] in nats, y being the labels."""
    if not len(logits):
        raise ValueError("an empty batch has no mean loss; give at least one image")
    return F.binary_cross_entropy_with_logits(logits, labels)


def sample_z(batch_size, zdim, generator=None, device="cpu"):
    """Noise [B,zdim], uniform in [-1,1]."""
    return 2 * torch.rand(batch_size, zdim, generator=generator, device=device) - 1


# ---------------------------------------------------------------------------------------------------- networks


def kaiming_init(network):
    """4(c). kaiming_uniform_ with its defaults on the weights of all children that have any, 0 on their biases."""
    for layer in network.children():
        if hasattr(layer, "weight") and layer.weight.dim() > 1:  # not a batch normalisation's
            nn.init.kaiming_uniform_(layer.weight)
            if getattr(layer, "bias", None) is not None:
                nn.init.zeros_(layer.bias)


class DNet(nn.Module):
    """4(a). Images [B,1,28,28] in [0,1] -> logits [B,1], positive where they look real."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, kernel_size=3, stride=1, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(kernel_size=2, stride=2)
        self.conv2 = nn.Conv2d(2, 4, kernel_size=3, stride=1, padding=1)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(kernel_size=2, stride=2)
        self.conv3 = nn.Conv2d(4, 8, kernel_size=3, stride=1, padding=0)
        self.relu3 = nn.ReLU()
        self.linear = nn.Linear(200, 1)
        self._weight_init()

    def _weight_init(self):
        """4(c). Initialise all layers."""
        kaiming_init(self)

    def forward(self, x):
        x = self.pool1(self.relu1(self.conv1(x)))  # [B,2,14,14]
        x = self.pool2(self.relu2(self.conv2(x)))  # [B,4,7,7]
        x = self.relu3(self.conv3(x))  # [B,8,5,5]
        return self.linear(x.flatten(1))


class GNet(nn.Module):
    """4(b). Noise z [B,zdim] -> images [B,1,28,28] in (0,1)."""

    def __init__(self, zdim):
        super().__init__()
        self.linear = nn.Linear(zdim, 1568)
        self.lrelu1 = nn.LeakyReLU(0.2)
        self.upsample1 = nn.Upsample(scale_factor=2)
        self.conv1 = nn.Conv2d(32, 16, kernel_size=3, stride=1, padding=1)
        self.lrelu2 = nn.LeakyReLU(0.2)
        self.upsample2 = nn.Upsample(scale_factor=2)
        self.conv2 = nn.Conv2d(16, 8, kernel_size=3, stride=1, padding=1)
        self.lrelu3 = nn.LeakyReLU(0.2)
        self.conv3 = nn.Conv2d(8, 1, kernel_size=3, stride=1, padding=1)
        self.sigmoid = nn.Sigmoid()
        self._weight_init()

    def _weight_init(self):
        """4(c). Initialise all layers."""
        kaiming_init(self)

    def forward(self, z):
        x = self.lrelu1(self.linear(z)).reshape(-1, 32, 7, 7)
        x = self.lrelu2(self.conv1(self.upsample1(x)))  # [B,16,14,14]
        x = self.lrelu3(self.conv2(self.upsample2(x)))  # [B,8,28,28]
        return self.sigmoid(self.conv3(x))


# --------------------------------------------------------------------------------------------- training and samples


class GAN:
    """Both networks and their training. Building one reads no data; the weights are those of seed 2, D before G."""

    defaults = DEFAULTS
    folder = Path(__file__).resolve().parent / "outputs" / "figures"
    DNet, GNet = DNet, GNet
    sample_z = staticmethod(sample_z)
    betas = 0.9, 0.999  # Adam's own
    grid_side = 8
    average = None  # a generator with averaged weights, where a caller keeps one

    def __init__(self, zdim=64, seed=DEFAULTS["seed"], dev="cpu"):
        torch.manual_seed(seed)
        self._dev = torch.device(dev)
        self._zdim = zdim
        self.disc = self.DNet().to(self._dev)
        self.gen = self.GNet(zdim).to(self._dev)
        self.shuffle_rng = torch.Generator().manual_seed(seed)
        self.noise_rng = torch.Generator(self._dev).manual_seed(seed)
        self.fixed_z = self.draw_z(self.grid_side**2, torch.Generator().manual_seed(seed))  # the same for all grids
        self.set_up()

    def set_up(self, iter_d=None, iter_g=None, n_epochs=None, batch_size=None, lr=None):
        """The settings of training, which train() explains, and both optimizers. None stands for that of `defaults`.

        ValueError unless both networks are updated.
        """
        given = {"iter_d": iter_d, "iter_g": iter_g, "n_epochs": n_epochs, "batch_size": batch_size, "lr": lr}
        for name, value in given.items():
            setattr(self, name, self.defaults[name] if value is None else value)
        if min(self.iter_d, self.iter_g) < 1:
            raise ValueError(f"iter_d {self.iter_d}, iter_g {self.iter_g}: each network needs an update; use 1 or more")
        self.optim_d = torch.optim.Adam(self.disc.parameters(), lr=self.lr, betas=self.betas)
        self.optim_g = torch.optim.Adam(self.gen.parameters(), lr=self.lr, betas=self.betas)
        self.average = None  # one that was kept would not follow this optimizer

    def draw_z(self, count, generator):
        """z [count,zdim] on this device, from a generator on this device or the CPU."""
        return self.sample_z(count, self._zdim, generator, generator.device).to(self._dev)

    @cached_property
    def train_images(self):
        """uint8 [N,1,28,28], all training images, read when needed. A batch becomes float when it is used."""
        return torch.tensor(utils.mnist()[0]).unsqueeze(1).to(self._dev)

    def scale(self, images):
        """uint8 images [B,1,28,28] as float in [0,1], as the networks take them."""
        return images.float() / 255

    def _get_loss_d(self, batch_size, batch_data, z):
        """4(d). The discriminator's loss, a scalar, for real images batch_data [B,1,28,28] and noise z [B,zdim].

        No gradient reaches G. batch_size is the course's argument: the data tell their number themselves.
        """
        with torch.no_grad():  # for D, the fake images are data
            fake = self.gen(z)
        real_logits = self.disc(batch_data)
        fake_logits = self.disc(fake)
        self.d_real = real_logits.detach().sigmoid().mean()  # D(x) and D(G(z)), for the log
        self.d_fake = fake_logits.detach().sigmoid().mean()
        return discriminator_loss(real_logits, fake_logits)

    def _get_loss_g(self, batch_size, z):
        """4(e). The generator's loss, a scalar, for noise z [B,zdim]."""
        return generator_loss(self.disc(self.gen(z)))

    def step(self, real, z):
        """4(d), 4(e). Update D iter_d times, then G iter_g times, with real images and the same noise z.

        Returns both last losses, and the means of D(x) and of D(G(z)) that D learned from.
        """
        # D: maximise log D(x) + log(1 - D(G(z)))
        for _ in range(self.iter_d):
            loss_d = self._get_loss_d(len(real), real, z)
            self.optim_d.zero_grad()
            loss_d.backward()
            self.optim_d.step()
        # G: maximise log D(G(z))
        for _ in range(self.iter_g):
            loss_g = self._get_loss_g(len(real), z)
            self.optim_g.zero_grad()
            loss_g.backward()  # D's gradients too, which D's next update clears
            self.optim_g.step()
        return loss_d.detach(), loss_g.detach(), self.d_real, self.d_fake

    @property
    def sampler(self):
        """The generator that figures and measures draw from."""
        return self.gen if self.average is None else self.average

    @property
    def steps(self):
        """Whole minibatches of an epoch; the rest of the images, another each time, is left out."""
        return len(self.train_images) // self.batch_size

    def check_data(self):
        """ValueError unless the training images are as scale() expects them, and enough for a minibatch."""
        images = self.train_images
        if images.dtype != torch.uint8 or images.shape[1:] != (1, 28, 28):
            raise ValueError(f"training images: {images.dtype} {list(images.shape)}; expected uint8 [N,1,28,28]")
        if not self.steps:
            raise ValueError(f"batch_size {self.batch_size}: more than the {len(images)} training images; use less")

    def epochs(self, first=0):
        """4(f). The training, from epoch `first` on, counted from 0. Yields a row after each epoch.

        A row holds the epoch's number, counted from 1, the means of both losses, in nats, and of D(x) and D(G(z)).
        Halfway through a single epoch of two steps or more it calls draw_epoch(0.5).
        FloatingPointError where a loss is not finite.
        """
        self.check_data()
        for epoch in range(first, self.n_epochs):
            totals = [0.0] * 4
            order = torch.randperm(len(self.train_images), generator=self.shuffle_rng)
            for step, indices in enumerate(order.split(self.batch_size)[: self.steps], 1):
                real = self.scale(self.train_images[indices])
                z = self.draw_z(len(real), self.noise_rng)
                values = torch.stack(self.step(real, z)).tolist()
                if not all(map(math.isfinite, values)):
                    raise FloatingPointError(
                        f"epoch {epoch + 1}, step {step}: loss of D {values[0]:.4g}, of G {values[1]:.4g}; "
                        "try a smaller --lr"
                    )
                totals = [total + value for total, value in zip(totals, values)]
                if self.n_epochs == 1 and step == self.steps // 2:
                    self.draw_epoch(0.5)  # so that a single epoch, too, leaves three grids
            loss_d, loss_g, d_real, d_fake = (total / self.steps for total in totals)
            yield {"epoch": epoch + 1, "loss_d": loss_d, "loss_g": loss_g, "d_real": d_real, "d_fake": d_fake}

    def train(self, iter_d=1, iter_g=1, n_epochs=100, batch_size=256, lr=0.0002):
        """4(f). Train with Adam on all images, shuffled, in minibatches, a line per epoch.

        Each minibatch makes iter_d updates of D, then iter_g of G, all with the same z. Writes a grid of training
        images, and grids of samples from the same noise after sample_epochs.
        """
        self.set_up(iter_d, iter_g, n_epochs, batch_size, lr)
        for network in self.disc, self.gen:
            if not any(module.training for module in network.modules()):
                network.train()  # a loaded one is in evaluation mode
        self.draw_epoch(0)
        for row in self.epochs():
            numbers = ", ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "epoch")
            say(f"epoch {row['epoch']}: {numbers}")
            self.draw_epoch(row["epoch"])
        return self

    # ---- figures: each is saved in self.folder and returns what it drew

    @property
    def sample_epochs(self):
        """4(f). The epochs after which a grid of samples is drawn: every tenth and the last.

        4(f) asks for three grids: up to 20 epochs they come after each third. Of 1 or 2, see draw_epoch().
        """
        if self.n_epochs <= 20:
            return {max(1, round(self.n_epochs * third / 3)) for third in (1, 2, 3)}
        return {*range(10, self.n_epochs, 10), self.n_epochs}

    def draw_epoch(self, epoch):
        """4(f). The figures that the homework asks for after this epoch; 0 is before the first, 0.5 halfway in it."""
        if epoch == 0:
            self.visualize_goal()
        if epoch in self.sample_epochs or self.n_epochs < 3:  # of a run so short also the beginning is shown
            self.visualize_samples(epoch)

    def visualize(self, classes=None):
        """Figures of the end: none but those of draw_epoch(). `classes` are those of the last samples, if known."""

    @torch.no_grad()
    def generate(self, z, gen=None):
        """Images [B,1,28,28] that G, or another generator, makes of z, in evaluation mode; the mode is restored."""
        gen = self.sampler if gen is None else gen
        modes = [(module, module.training) for module in gen.modules()]
        gen.eval()
        try:
            return torch.cat([gen(part) for part in z.split(1000)])
        finally:
            for module, training in modes:
                module.training = training

    def visualize_goal(self):
        """A grid of training images, goal.png: what the samples should look like. Returns the grid, in [0,1]."""
        grid = tile(self.train_images[: len(self.fixed_z)].float() / 255)
        self.save(draw_grid(grid, "training images"), "goal.png")
        return grid

    def visualize_samples(self, epoch):
        """4(f). The 8x8 grid [245,245] of samples from the fixed noise, in [0,1], samples_epoch_*.png; returns it."""
        grid = tile(self.generate(self.fixed_z))
        self.save(draw_grid(grid, f"G(z), epoch {epoch}"), f"samples_epoch_{epoch}.png")
        return grid

    def save(self, figure, name):
        """Write a matplotlib Figure to the folder for figures."""
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / name, dpi=120)


def tile(images):
    """Images [B,1,28,28] as the smallest square numpy grid that holds them, column by column, then black ones."""
    side = math.isqrt(len(images) - 1) + 1
    sheet = torch.zeros(side**2, 784)
    sheet[: len(images)] = images.flatten(1)
    return utils.concat_images([utils.array_to_image(image) for image in sheet], side, side)


def draw_grid(grid, title):
    """A matplotlib Figure of a grid of images in [0,1]."""
    from matplotlib.figure import Figure  # here: importing it with the module would slow down every start

    height, width = grid.shape
    figure = Figure(figsize=(max(width / 40, 2.6), height / 40 + 0.3), layout="constrained")  # room for the title
    axes = figure.subplots()
    axes.imshow(grid, cmap="gray", vmin=0, vmax=1, origin="upper")
    axes.set_title(title, fontsize=9)
    axes.axis("off")
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
        "hw5_gan.py",
        usage="python hw5_gan.py [flags]",
        description="Train a generative adversarial network on MNIST.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.error = lambda message: parser.exit(
        2, f"{parser.prog}: {' '.join(message.split())}; --help lists all flags\n"
    )
    flag = parser.add_argument_group("training").add_argument
    flag("--epochs", "--n_epochs", dest="n_epochs", **number(int, 1, 100_000), help="passes over the images")
    flag("--iter_d", **number(int, 1, 100), help="updates of D per minibatch")
    flag("--iter_g", **number(int, 1, 100), help="updates of G per minibatch")
    flag("--batch_size", **number(int, 1, 60_000), help="images per step")
    flag("--lr", **number(float, 1e-7, 1), help="Adam's learning rate for both networks")
    flag("--zdim", **number(int, 1, 10_000), help="length of z")
    flag("--seed", **number(int, 0, 2**32 - 1), help="of all random numbers")
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

        return enter("hw5_gan", argv)
    args = parse_args(argv)
    if __name__ == "__main__":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # from now on Ctrl-C only ends the training
    code = 0
    try:
        gan = GAN(args.zdim, args.seed)
        try:
            gan.train(args.iter_d, args.iter_g, args.n_epochs, args.batch_size, args.lr)
        except KeyboardInterrupt:
            say("Stopped: samples_epoch_stopped.png is what G draws now.")
            gan.visualize_samples("stopped")
            code = 130
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"hw5_gan.py: {error}", file=sys.stderr)
        return 1 if isinstance(error, FloatingPointError) else 2
    except KeyboardInterrupt:  # a second one
        return 130
    say(f"Figures: {gan.folder}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
