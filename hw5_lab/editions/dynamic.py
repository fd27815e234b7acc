"""The homework's VAE on the data of published tables: a gray pixel is a coin, tossed anew whenever an image is used.

Davidson et al. 2018, "Hyperspherical variational auto-encoders", Table 1, has a Gaussian VAE with two latents on these
data: 50,000 training images, 10,000 test images. See dynamic_deep.py for their networks.
"""

import torch

import hw5_vae
from hw5_lab.editions.hw8 import AnalyticVAE
from hw5_vae import sample_Bernoulli


class VAE(hw5_vae.VAE):
    """Dynamic binarisation. The pixels of test images are tossed once, the same for all seeds."""

    defaults = {**hw5_vae.DEFAULTS, "num_epoches": 100, "train_size": 50_000}
    pixels = "drawn"
    prepare, read_all, read_gray = AnalyticVAE.prepare, AnalyticVAE.read_all, AnalyticVAE.read_data

    def read_data(self, data_dir=None, size=None):
        """{"train" and "test": (images [N,784], one-hot labels [N,10])}: gray to train, of 0 and 1 to test."""
        splits = self.read_gray(data_dir, size)
        images, labels = splits["test"]
        return {**splits, "test": (sample_Bernoulli(images, torch.Generator().manual_seed(0)), labels)}

    def terms(self, x, generator):
        """Both terms of the ELBO for new tosses of the pixels x [B,784]; those of 0 and 1 stay."""
        return super().terms(sample_Bernoulli(x, generator), generator)
