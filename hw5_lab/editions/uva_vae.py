"""University of Amsterdam, Deep Learning, assignment 3, part 1: a VAE with 20 latents.

For the manifold of question 1.15 train with `--latent_dimension 2`.
"""

import torch
import torch.nn.functional as F

import hw5_vae
from hw5_lab.editions.hw8 import AnalyticVAE, Decoder
from hw5_vae import draw_grid, evaluating, sample_Bernoulli


class Encoder(hw5_vae.Encoder):
    """1.12. The homework's encoder with ReLU. The second head is a standard deviation before softplus."""

    def forward(self, x):
        h = torch.relu(self.fc1(x))
        return self.fc2_mu(h), F.softplus(self.fc2_sigma(h)) ** 2


class VAE(AnalyticVAE):
    """1.12. Pixels are drawn once from Bernoulli(gray value); a sixth of the training images is for validation.

    1.13. The run draws the bounds of both splits over the epochs, elbo.png.
    """

    defaults = {
        **hw5_vae.DEFAULTS,
        "num_epoches": 40,
        "batch_size": 128,
        "latent_dimension": 20,
        "train_size": 50_000,
    }
    held_out = "validation"
    pixels = "drawn"
    Encoder, Decoder = Encoder, Decoder

    def prepare(self, images):
        """Binary pixels, the same for every seed of a run. Training and test images get the same coins."""
        return torch.bernoulli(super().prepare(images), generator=torch.Generator().manual_seed(0))

    def read_data(self, data_dir=None, size=None):
        """As the others' read_data(); "validation" holds the last sixth of the training images."""
        splits = self.read_all(data_dir)
        train = splits["train"]
        kept = len(train[0]) - len(train[0]) // 6  # 50,000 of MNIST's 60,000
        if kept == len(train[0]):
            raise ValueError(f"{kept} training images leave none for validation; edition uva needs 6")
        return {
            "train": tuple(part[:kept][: size or self.args.train_size] for part in train),
            "validation": tuple(part[kept:] for part in train),
            "test": splits["test"],
        }

    def draw_epoch(self, epoch):
        """1.14. Samples before the training, halfway and at its end."""
        if epoch in (0, self.args.num_epoches // 2, self.args.num_epoches):
            self.visualize_samples(epoch)

    @evaluating
    def visualize_samples(self, epoch):
        """1.14. 8x8 samples x beside their means p(x|z), with z from the prior; the grid [245,524] of both.

        A sample is a draw of the pixels, as 1.2 says. The draws are the same in every epoch, but for p.
        """
        generator = self.fresh_rng()
        z = torch.randn(64, self.args.latent_dimension, generator=generator, device=self.device)
        p = self.decoder(z)
        x = sample_Bernoulli(p, generator)
        blank = torch.zeros(8, p.shape[1], device=self.device)
        grid = self.tile(torch.cat([p, blank, x]), 8, 17)
        title = f"means p(x|z), and a sample x of each; z from the prior, epoch {epoch}"
        self.save(draw_grid(grid, title), f"samples_epoch_{epoch}.png")
        return grid

    def visualize(self):
        self.visualize_manifold()

    @evaluating
    def visualize_manifold(self):
        """1.15. 20x20 grid [617,617] of p(x|z) over a plane of latents, z being the normal quantiles of (i + 1/2) / 20.

        None where the latents are not a plane.
        """
        if self.args.latent_dimension != 2:
            return None
        quantiles = torch.special.ndtri((torch.arange(20, device=self.device) + 0.5) / 20)
        z = torch.cartesian_prod(quantiles, -quantiles)  # columns from left to right, each from the top down
        grid = self.tile(self.decoder(z), 20, 20)
        title = "p(x|z) at the quantiles of the prior: first latent to the right, second upwards"
        self.save(draw_grid(grid, title), "manifold.png")
        return grid
