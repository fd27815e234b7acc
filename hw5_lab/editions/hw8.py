"""UIUC HW8, 2020: gray pixels, 20 latents, ReLU, and the bound with the exact KL, of 1(a); samples in every epoch."""

import torch
from torch import nn

import hw5_utils as utils
import hw5_vae
from hw5_vae import draw_grid, elbo_terms, evaluating, sample_diagonal_gaussian, tile


def reparameterize(mu, logvar):
    """1(g). z ~ N(mu, diag(exp(logvar))) of mu's shape, with noise of its own for every element, on mu's device."""
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)


def kl_divergence(mu, sigma_square):
    """KL(N(mu, diag(sigma_square)) || N(0, I)) in nats, [B]: the exact value that kl_estimate estimates.

    In the bound of HW8 1(a), in Eq. 1 of HW5, in Amsterdam 1.10 and in Penn 2(ii).
    """
    return 0.5 * (sigma_square + mu**2 - 1 - torch.log(sigma_square)).sum(-1)


class Encoder(hw5_vae.Encoder):
    """The homework's encoder with ReLU. The second head is a log-variance."""

    def forward(self, x):
        h = torch.relu(self.fc1(x))
        return self.fc2_mu(h), torch.exp(self.fc2_sigma(h))


class Decoder(hw5_vae.Decoder):
    """The homework's decoder with ReLU."""

    def logits(self, z):
        return self.fc2(torch.relu(self.fc1(z)))


class AnalyticVAE(hw5_vae.VAE):
    """A VAE that trains on the bound with the exact KL, and reads all of MNIST. What three editions have in common."""

    draws = 1  # of z, for each image
    tile = staticmethod(tile)

    def learning_rate(self, epoch):
        """Constant: no text of these courses states another."""
        return self.args.lr

    def terms(self, x, generator):
        """The ELBO of each image x [B,data] in its two terms, log p(x|z) and the exact KL, [B] each.

        HW8 1(a), Eq. 1 of HW5, Amsterdam 1.10, Penn 2(ii).
        """
        mu, sigma_square = self.encoder(x)
        log_p_x = torch.zeros(len(x), device=x.device, dtype=x.dtype)
        for _ in range(self.draws):
            z = sample_diagonal_gaussian(mu, sigma_square, generator)
            log_p_x = log_p_x + elbo_terms(z, mu, sigma_square, x, self.decoder.logits(z))[0] / self.draws
        return log_p_x, kl_divergence(mu, sigma_square)

    def prepare(self, images):
        """uint8 images [N,28,28] -> float [N,784] in [0,1], as they are."""
        return (images.float() / 255).flatten(1)

    def read_all(self, data_dir=None):
        """{"train" and "test": (images as prepare() makes them, one-hot labels [N,10])}."""
        arrays = [torch.as_tensor(array) for array in utils.mnist(data_dir)]
        train_images, train_labels, test_images, test_labels = arrays
        one_hot = lambda digits: nn.functional.one_hot(digits.long(), 10)
        return {
            "train": (self.prepare(train_images), one_hot(train_labels)),
            "test": (self.prepare(test_images), one_hot(test_labels)),
        }

    def read_data(self, data_dir=None, size=None):
        """What read_all() reads, with the first `size` images to train, by default train_size."""
        splits = self.read_all(data_dir)
        return {**splits, "train": tuple(part[: size or self.args.train_size] for part in splits["train"])}

    @evaluating
    def visualize_samples(self, epoch):
        """Amsterdam 1.14, Penn 2(v). 8x8 grid [245,245] of p(x|z) after this epoch, of the same z from the prior."""
        z = torch.randn(64, self.args.latent_dimension, generator=self.fresh_rng(), device=self.device)
        grid = self.tile(self.decoder(z), 8, 8)
        self.save(draw_grid(grid, f"p(x|z), z from the prior, epoch {epoch}"), f"samples_epoch_{epoch}.png")
        return grid


class VAE(AnalyticVAE):
    defaults = {
        **hw5_vae.DEFAULTS,
        "num_epoches": 30,
        "batch_size": 128,
        "hidden_units": 400,
        "latent_dimension": 20,
        "train_size": 60_000,
    }
    pixels = "gray"
    Encoder, Decoder = Encoder, Decoder
    reparameterize = staticmethod(reparameterize)

    def draw_epoch(self, epoch):
        """Samples after every epoch."""
        if epoch:
            self.visualize_samples(epoch)

    def visualize(self):
        """No figures but those of draw_epoch()."""
