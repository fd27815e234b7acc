"""University of Amsterdam, Deep Learning, assignment 3: a VAE with 20 latents, and a GAN of dense layers."""

import torch
import torch.nn.functional as F
from torch import nn

import hw5_vae
from hw5_lab.editions import hw8
from hw5_lab.gan import LabGAN
from hw5_utils import Fault
from hw5_vae import draw_grid

# ------------------------------------------------------------------------------------------------------------- VAE


class Encoder(hw5_vae.Encoder):
    """The homework's encoder with ReLU. The second head is a standard deviation before softplus."""

    def forward(self, x):
        h = torch.relu(self.fc1(x))
        return self.fc2_mu(h), F.softplus(self.fc2_sigma(h)) ** 2


class VAE(hw8.AnalyticVAE):
    """1.13-1.15. Pixels are drawn once from Bernoulli(gray value); a sixth of the training images is for validation."""

    edition = "uva"
    settings = dict(
        num_epoches=40, batch_size=128, hidden_units=500, latent_dimension=20, data_dimension=784, train_size=50_000
    )
    activation, scale, pixels = "relu", "deviation", "drawn"
    held_out = "validation"
    Encoder, Decoder = Encoder, hw8.Decoder

    def prepare(self, images):
        """Binary pixels, the same for every seed of a run."""
        return torch.bernoulli(super().prepare(images), generator=torch.Generator().manual_seed(0))

    def read_data(self):
        splits = super().read_data()
        train = splits["train"]
        kept = len(train[0]) - len(train[0]) // 6  # 50,000 of MNIST's 60,000
        if kept == len(train[0]):
            raise Fault(f"{self.args.data_dir}: {kept} training images leave none for validation; edition uva needs 6")
        return {
            "train": [part[:kept] for part in train],
            "validation": [part[kept:] for part in train],
            "test": splits["test"],
        }

    def before_first_epoch(self):
        self.visualize_samples(0)

    def after_epoch(self, epoch):
        super().after_epoch(epoch)
        if epoch in (self.epochs // 2, self.epochs):
            self.visualize_samples(epoch)

    def visualize(self):
        self.visualize_history()
        self.visualize_manifold()

    @torch.no_grad()
    def visualize_manifold(self):
        """1.15. 20x20 grid [617,617] of p(x|z) over a plane of latents, z being the normal quantiles of (i + 1/2) / 20.

        None where the latents are not a plane.
        """
        if self.args.latent_dimension != 2:
            return None
        quantiles = torch.special.ndtri((torch.arange(20, device=self.device) + 0.5) / 20)
        z = torch.cartesian_prod(quantiles, -quantiles)  # columns from left to right, each from the top down
        grid = hw5_vae.tile(self.decoder(z), 20, 20)
        title = "p(x|z) at the quantiles of the prior: first latent to the right, second upwards"
        self.save(draw_grid(grid, title), "manifold.png")
        return grid


# ------------------------------------------------------------------------------------------------------------- GAN


class DenseD(nn.Module):
    """2.6. Images [B,1,28,28] in [-1,1] -> logits [B,1]."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 256),
            nn.LeakyReLU(0.2),
            nn.Linear(256, 1),
        )

    def forward(self, x):
        return self.layers(x)


class DenseG(nn.Module):
    """2.6. Noise z [B,zdim] -> images [B,1,28,28] in (-1,1)."""

    def __init__(self, zdim):
        super().__init__()
        layers = [nn.Linear(zdim, 128), nn.LeakyReLU(0.2)]
        for narrow, wide in ((128, 256), (256, 512), (512, 1024)):
            layers += [nn.Linear(narrow, wide), nn.BatchNorm1d(wide), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(1024, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28)))

    def forward(self, z):
        return self.layers(z)


def sample_normal_z(batch_size, zdim, generator=None, device="cpu"):
    """Noise z ~ N(0, I), [B,zdim]."""
    return torch.randn(batch_size, zdim, generator=generator, device=device)


class GAN(LabGAN):
    """2.6. The generator learns first with each minibatch; images are in [-1,1]."""

    edition = "uva"
    settings = dict(zdim=100, n_epochs=200, batch_size=64)
    DNet, GNet = DenseD, DenseG
    sample_z = staticmethod(sample_normal_z)
    noise_kind, darkest, grid_side = "normal", -1, 5
    # At 0.9, Adam's default, samples stay of a dozen kinds: a Frechet distance of 568 after 17 epochs, not of 68
    betas = 0.5, 0.999

    def scale(self, images):
        return 2 * super().scale(images) - 1

    def generate(self, z, gen=None):
        return (super().generate(z, gen) + 1) / 2

    def step(self, real, z):
        fake = self.gen(z)
        loss_g = self.step_g(fake, z)
        loss_d, real_logits, fake_logits = self.step_d(real, fake.detach())
        return self.values(loss_d, loss_g, real_logits, fake_logits)

    @property
    def steps(self):
        if self.batch_size == 1:
            raise Fault("batch_size 1: batch normalisation needs at least two images; use 2 or more")
        return super().steps

    @property
    def sample_epochs(self):
        return {0, self.epochs // 2, self.epochs}

    def visualize(self):
        super().visualize()
        self.visualize_interpolation()

    def visualize_interpolation(self):
        """2.7. 1x9 grid [28,276]: two generated digits of different classes and seven between, interpolation.png."""
        z = self.fixed_z
        classes = self.evaluator.look(self.generate(z))[1].argmax(1)
        other = (classes != classes[0]).int().argmax().item() or 1  # where all are alike
        steps = torch.linspace(0, 1, 9, device=self._dev)[:, None]
        images = self.generate((1 - steps) * z[0] + steps * z[other])
        grid = hw5_vae.tile(images, 1, 9)
        self.save(draw_grid(grid, "G(z) on the line between two z"), "interpolation.png")
        return grid
