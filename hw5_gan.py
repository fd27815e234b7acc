"""Homework 5, part 2: a generative adversarial network (GAN) that learns to draw MNIST digits.

    python hw5_gan.py                       # trains, then writes samples and numbers to outputs/gan/

The discriminator D says how real an image looks (a logit), the generator G turns noise z into an image; each is trained
against the other with Adam, on all 60,000 images. Beyond the course's loop, the fake images of a step are drawn once,
for both players. Expect recognisable digits after 20 to 30 epochs, at about 13 s an epoch on two cores.

To find the answer to a question, search for its number with a full stop. The folder hw5_lab/, where it lies beside
this file, adds what the homework does not ask for: resuming, measurements, another course's edition.
"""

import argparse
import importlib.util
import os
import signal
import sys
from functools import cached_property, partial
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # Ctrl-C while PyTorch loads ends without a traceback

import torch
import torch.nn.functional as F
from torch import nn

import hw5_utils as utils

DEFAULTS = dict(n_epochs=100, iter_d=1, iter_g=1, batch_size=256, lr=0.0002, zdim=64, seed=2)

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

    This is the non-saturating form: log(1 - D(G(z))) would have no gradient where D is sure that the image is fake.
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
        if hasattr(layer, "weight"):
            nn.init.kaiming_uniform_(layer.weight)
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
        x = channels_last(self.lrelu1(self.linear(z)).reshape(-1, 32, 7, 7))
        x = self.lrelu2(upsample_convolve(self.upsample1, self.conv1, x))  # [B,16,14,14]
        x = self.lrelu3(upsample_convolve(self.upsample2, self.conv2, x))  # [B,8,28,28]
        return self.sigmoid(self.conv3(x))


def upsample_convolve(upsample, conv, x):
    """4(b). conv(upsample(x)), for a nearest upsampling by 2 and a 3x3 convolution with padding 1, in one convolution.

    At most 2x2 of the nine pixels under the kernel differ, so the 3x3 kernel becomes a transposed 4x4 one, of sums,
    with stride 2: 4 products a pixel instead of 9. So the first pair of these layers takes less than half as long.
    """
    sums = conv.weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    weight = (sums @ conv.weight @ sums.T).transpose(0, 1)  # [in,out,4,4]
    return F.conv_transpose2d(x, weight, conv.bias, stride=int(upsample.scale_factor), padding=1)


def channels_last(x):
    """x [B,C,H,W] in the layout of memory in which convolutions of few channels are fast; the values stay."""
    return x.contiguous(memory_format=torch.channels_last)


# --------------------------------------------------------------------------------------------- training and samples


class GAN:
    """Both networks and their training. Building one reads no data; the weights are those of seed 2, D before G."""

    folder = Path(__file__).resolve().parent / "outputs" / "gan"  # for figures
    DNet, GNet = DNet, GNet
    sample_z = staticmethod(sample_z)
    darkest = 0  # value of a black pixel; white is 1
    betas = 0.9, 0.999  # Adam's own
    grid_side = 8
    shown = ("loss_d", "loss_g", "d_real", "d_fake")

    def __init__(self, zdim=64, seed=DEFAULTS["seed"], dev="cpu"):
        torch.manual_seed(seed)
        self._dev = torch.device(dev)
        self._zdim = zdim
        self.disc = self.DNet().to(self._dev, memory_format=torch.channels_last)
        self.gen = self.GNet(zdim).to(self._dev, memory_format=torch.channels_last)
        self.shuffle, self.noise = torch.Generator().manual_seed(seed), torch.Generator(self._dev).manual_seed(seed)
        self.fixed_z = self.draw_z(self.grid_side**2, torch.Generator().manual_seed(seed))  # the same for all grids
        self.prepare()

    def prepare(self, iter_d=1, iter_g=1, batch_size=256, lr=0.0002):
        """Set up both optimizers; train() says what the settings mean."""
        self.iter_d, self.iter_g, self.batch_size = iter_d, iter_g, batch_size
        adam = partial(torch.optim.Adam, lr=lr, betas=self.betas, fused=self._dev.type != "mps")
        self.optim_d, self.optim_g = adam(self.disc.parameters()), adam(self.gen.parameters())

    def draw_z(self, count, generator):
        """z [count,zdim] on this device, from a generator on this device or the CPU."""
        return self.sample_z(count, self._zdim, generator, generator.device).to(self._dev)

    @cached_property
    def train_images(self):
        """uint8 [N,1,28,28], all training images, read when needed. A batch becomes float when it is used."""
        return torch.tensor(utils.mnist()[0]).unsqueeze(1).to(self._dev)

    def scale(self, images):
        """uint8 images [B,1,28,28] as float in [0,1], as the networks take them."""
        return channels_last(images.float().div_(255))

    def _get_loss_d(self, batch_size, batch_data, z):
        """4(d). The discriminator's loss, a scalar, for real images batch_data [B,1,28,28] and noise z [B,zdim].

        The fake images are detached, so that no gradient reaches G. ValueError for images of another shape or range.
        """
        if batch_data.shape[1:] != (1, 28, 28) or not ((batch_data >= self.darkest) & (batch_data <= 1)).all():
            raise ValueError(
                f"batch_data {list(batch_data.shape)}: expected images [B,1,28,28] of values in [{self.darkest},1]"
            )
        fake = self.gen(z).detach()
        return discriminator_loss(self.disc(batch_data), self.disc(fake))

    def _get_loss_g(self, batch_size, z):
        """4(e). The generator's loss, a scalar, for noise z [B,zdim]."""
        return generator_loss(self.disc(self.gen(z)))

    def step(self, real, z):
        """4(d), 4(e). Update D iter_d times, then G iter_g times, all with the same noise z.

        Returns both last losses, and the means of D(x) and of D(G(z)) that D learned from, as numbers.
        """
        fake = self.gen(z)  # drawn once, for both players
        loss_d, real_logits, fake_logits = self.step_d(real, fake.detach())
        loss_g = self.step_g(fake, z)
        return self.values(loss_d, loss_g, real_logits, fake_logits)

    @staticmethod
    def values(loss_d, loss_g, real_logits, fake_logits):
        """Both losses and the means of D(x) and D(G(z)), as numbers."""
        return torch.stack([loss_d, loss_g, real_logits.sigmoid().mean(), fake_logits.sigmoid().mean()]).tolist()

    def step_d(self, real, fake):
        """4(d). D: maximise log D(x) + log(1 - D(G(z)))."""
        for _ in range(self.iter_d):
            real_logits, fake_logits = self.disc(real), self.disc(fake)
            loss_d = discriminator_loss(real_logits, fake_logits)
            self.optim_d.zero_grad()
            loss_d.backward()
            self.optim_d.step()
        return loss_d, real_logits, fake_logits

    def step_g(self, fake, z):
        """4(e). G: maximise log D(G(z)); fake = G(z), which only G's own updates change."""
        for again in range(self.iter_g):
            loss_g = generator_loss(self.disc(self.gen(z) if again else fake))
            self.optim_g.zero_grad()
            loss_g.backward(inputs=list(self.gen.parameters()))  # D needs none
            self.optim_g.step()
        return loss_g

    @property
    def steps(self):
        """Whole minibatches of an epoch; the rest of the images, another each time, is left out."""
        if self.batch_size > len(self.train_images):
            raise ValueError(
                f"batch_size {self.batch_size}: more than the {len(self.train_images)} training images; "
                "use a smaller one"
            )
        return len(self.train_images) // self.batch_size

    def train_epoch(self, epoch, tick=lambda: None):
        """All images once, in a new order; calls `tick` after each step. `epoch` counts from 0.

        Returns the epoch's means of both losses, in nats, and of D(x) and D(G(z)).
        """
        totals = [0.0] * len(self.shown)
        order = torch.randperm(len(self.train_images), generator=self.shuffle)
        for indices in order.split(self.batch_size)[: self.steps]:
            real = self.scale(self.train_images[indices])
            values = self.step(real, self.draw_z(len(real), self.noise))
            if not torch.tensor(values).isfinite().all():
                raise FloatingPointError(f"loss of D {values[0]:.4g}, of G {values[1]:.4g}; try a smaller --lr")
            totals = [total + value for total, value in zip(totals, values)]
            tick()
        return {name: total / self.steps for name, total in zip(self.shown, totals)}

    def train(self, iter_d=1, iter_g=1, n_epochs=100, batch_size=256, lr=0.0002):
        """4(f). Train with Adam on all images, shuffled, in minibatches, a line per epoch.

        Each minibatch makes iter_d updates of D, then iter_g of G, all with the same z. Writes a grid of training
        images and, every 10 epochs and at the end, a grid of samples from the same noise.
        """
        self.prepare(iter_d, iter_g, batch_size, lr)
        self.visualize_goal()
        for epoch in range(n_epochs):
            row = self.train_epoch(epoch)
            print(f"epoch {epoch + 1}: " + ", ".join(f"{name} {row[name]:.4f}" for name in self.shown), flush=True)
            if (epoch + 1) % 10 == 0 or epoch + 1 == n_epochs:
                self.visualize_samples(epoch + 1)
        return self

    @torch.no_grad()
    def generate(self, z, gen=None):
        """Images [B,1,28,28] that G, or another generator, makes of z, in evaluation mode; the mode is restored."""
        gen = gen or self.gen
        training = gen.training
        gen.eval()
        images = torch.cat([gen(part) for part in z.split(1000)])
        gen.train(training)
        return images

    def visualize_goal(self):
        """A grid of training images, goal.png: what the samples should look like. Returns the grid, in [0,1]."""
        grid = tile(self.train_images[: len(self.fixed_z)].float() / 255)
        self.save(grid, "goal.png")
        return grid

    def visualize_samples(self, epoch):
        """4(f). The 8x8 grid [245,245] of samples from the fixed noise, in [0,1], samples_epoch_*.png; returns it."""
        grid = tile(self.generate(self.fixed_z))
        self.save(grid, f"samples_epoch_{epoch}.png")
        return grid

    def save(self, grid, name):
        """Write a grid of images to the folder for figures."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.render(grid, self.folder / name)

    @staticmethod
    def render(grid, file):
        """A grid as a PNG of three times its size."""
        from matplotlib.image import imsave  # here: importing it with the module would slow down every start

        imsave(file, grid.repeat(3, 0).repeat(3, 1), cmap="gray", vmin=0, vmax=1, format="png")


def tile(images):
    """Images [B,1,28,28] as the smallest square numpy grid that holds them, column by column, then black ones."""
    side = 1
    while side**2 < len(images):
        side += 1
    sheet = torch.zeros(side**2, 784)
    sheet[: len(images)] = images.flatten(1)
    return utils.concat_images([utils.array_to_image(image) for image in sheet], side, side)


# ----------------------------------------------------------------------------------------------------- command line


def make_parser():
    """The homework's flags, with their defaults. A metavar such as "1..100000" states a flag's range."""
    parser = argparse.ArgumentParser(
        "hw5_gan.py",
        description="Train a generative adversarial network on MNIST.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    flag = parser.add_argument
    flag("--epochs", "--n_epochs", dest="n_epochs", type=int, metavar="1..100000", help="passes over the images")
    flag("--iter_d", type=int, metavar="1..100", help="updates of D per minibatch")
    flag("--iter_g", type=int, metavar="1..100", help="updates of G per minibatch")
    flag("--batch_size", type=int, metavar="1..60000", help="images per step")
    flag("--lr", type=float, metavar="1e-7..1", help="Adam's learning rate for both networks")
    flag("--zdim", type=int, metavar="1..10000", help="length of z")
    flag("--seed", type=int, metavar="0..4294967295", help="of all random numbers")
    parser.set_defaults(**DEFAULTS)
    return parser


def parse_args(argv=None):
    """The homework's settings as a Namespace."""
    return make_parser().parse_args(argv)


def main(argv=None):
    """Train and draw as the flags say. Returns the exit code: 0, or 2 where something is wrong."""
    if importlib.util.find_spec("hw5_lab"):
        from hw5_lab.gan import main as run_in_laboratory

        return run_in_laboratory(argv)
    args = parse_args(argv)
    try:
        gan = GAN(args.zdim, args.seed)
        gan.train(args.iter_d, args.iter_g, args.n_epochs, args.batch_size, args.lr)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"hw5_gan.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
