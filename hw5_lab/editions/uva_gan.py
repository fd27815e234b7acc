"""University of Amsterdam, Deep Learning, assignment 3, part 2: a GAN of dense layers.

2.5. The text is a report, and describes its author's networks: LeakyReLU before batch normalisation, a sigmoid in D,
new fake images for D. Here batch normalisation comes before LeakyReLU, and D puts out a logit. D learns from the fake
images of G's last update: none are drawn for D.
"""

import torch
from torch import nn

import hw5_gan
import hw5_utils as utils
from hw5_gan import discriminator_loss, draw_grid, generator_loss


class DenseD(nn.Module):
    """2.5. Images [B,1,28,28] in [-1,1] -> logits [B,1]."""

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
    """2.5. Noise z [B,zdim] -> images [B,1,28,28] in (-1,1)."""

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


class GAN(hw5_gan.GAN):
    """2.5. The generator learns first with each minibatch; images are in [-1,1]."""

    defaults = {**hw5_gan.DEFAULTS, "zdim": 100, "n_epochs": 200, "batch_size": 64}
    DNet, GNet = DenseD, DenseG
    sample_z = staticmethod(sample_normal_z)
    grid_side = 5
    # At 0.9, Adam's default, samples stay of a dozen kinds: a Frechet distance of 568 after 17 epochs, not of 68
    betas = 0.5, 0.999

    def __init__(self, zdim=defaults["zdim"], seed=defaults["seed"], dev="cpu"):
        super().__init__(zdim, seed, dev)

    def train(self, iter_d=1, iter_g=1, n_epochs=200, batch_size=64, lr=0.0002):
        return super().train(iter_d, iter_g, n_epochs, batch_size, lr)

    def scale(self, images):
        """uint8 images [B,1,28,28] as float in [-1,1]."""
        return 2 * super().scale(images) - 1

    def generate(self, z, gen=None):
        """Images [B,1,28,28] in [0,1], as figures and measures take them."""
        return (super().generate(z, gen) + 1) / 2

    def step(self, real, z):
        """2.5. Update G iter_g times, then D iter_d times with the fakes of G's last update.

        _get_loss_d and _get_loss_g, which draw fakes of their own, are not called.
        """
        for _ in range(self.iter_g):
            fake = self.gen(z)
            loss_g = generator_loss(self.disc(fake))
            self.optim_g.zero_grad()
            loss_g.backward()
            self.optim_g.step()
        for _ in range(self.iter_d):
            real_logits = self.disc(real)
            fake_logits = self.disc(fake.detach())
            loss_d = discriminator_loss(real_logits, fake_logits)
            self.optim_d.zero_grad()
            loss_d.backward()
            self.optim_d.step()
        real_probability, fake_probability = real_logits.sigmoid().mean(), fake_logits.sigmoid().mean()
        return loss_d.detach(), loss_g.detach(), real_probability.detach(), fake_probability.detach()

    def check_data(self):
        super().check_data()
        if self.batch_size == 1:
            raise ValueError("batch_size 1: batch normalisation needs at least two images; use 2 or more")

    @property
    def sample_epochs(self):
        """2.6. Before the training, halfway and at its end."""
        return {0, self.n_epochs // 2, self.n_epochs}

    def visualize(self, classes=None):
        self.visualize_interpolation(classes)

    def visualize_interpolation(self, classes=None):
        """2.7. 1x9 grid [28,276]: two generated digits of different classes and seven between, interpolation.png.

        `classes` are those of the samples of the fixed noise, [25], as a classifier sees them; without any the first
        two samples are taken.
        """
        z = self.fixed_z
        other = 1 if classes is None else (classes != classes[0]).int().argmax().item() or 1  # where all are alike
        steps = torch.linspace(0, 1, 9, device=self._dev)[:, None]
        images = self.generate((1 - steps) * z[0] + steps * z[other])
        grid = utils.concat_images([utils.array_to_image(image) for image in images.cpu()], 1, 9)
        ends = "" if classes is None else f", from a {classes[0].item()} to a {classes[other].item()}"
        self.save(draw_grid(grid, f"G(z) on the line between two z{ends}"), "interpolation.png")
        return grid
