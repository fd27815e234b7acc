"""A student's plain and right hw5_vae.py: the text that the mistakes of mistakes.py are edited into."""

import argparse
import math

import matplotlib.pyplot as plt
import torch
from torch import nn

from hw5_utils import array_to_image, batch_indices, concat_images, load_mnist


def logpdf_diagonal_gaussian(z, mu, sigma_square):
    terms = math.log(2 * math.pi) + torch.log(sigma_square) + (z - mu) ** 2 / sigma_square
    return (-0.5 * terms).sum(dim=-1)


def logpdf_bernoulli(x, p):
    terms = x * torch.log(p) + (1 - x) * torch.log(1 - p)
    return terms.sum(dim=-1)


def sample_diagonal_gaussian(mu, sigma_square):
    eps = torch.randn_like(mu)
    return mu + torch.sqrt(sigma_square) * eps


def sample_Bernoulli(p):
    u = torch.rand_like(p)
    return (u < p).float()


def elbo(sampled_z, mu, sigma_square, x, p):
    log_q = logpdf_diagonal_gaussian(sampled_z, mu, sigma_square)
    log_prior = logpdf_diagonal_gaussian(sampled_z, torch.zeros_like(mu), torch.ones_like(mu))
    log_p = logpdf_bernoulli(x, p)
    return (log_p + log_prior - log_q).mean()


def interpolate_mu(mua, mub, alpha=0.5):
    return alpha * mua + (1 - alpha) * mub


class Encoder(nn.Module):
    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super().__init__()
        self.fc1 = nn.Linear(data_dimension, hidden_units)
        self.fc2_mu = nn.Linear(hidden_units, latent_dimension)
        self.fc2_sigma = nn.Linear(hidden_units, latent_dimension)

    def forward(self, x):
        hidden = torch.tanh(self.fc1(x))
        return self.fc2_mu(hidden), torch.exp(self.fc2_sigma(hidden))


class Decoder(nn.Module):
    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super().__init__()
        self.fc1 = nn.Linear(latent_dimension, hidden_units)
        self.fc2 = nn.Linear(hidden_units, data_dimension)

    def forward(self, z):
        hidden = torch.tanh(self.fc1(z))
        return torch.sigmoid(self.fc2(hidden))


class VAE(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.args = args
        sizes = args.latent_dimension, args.hidden_units, args.data_dimension
        self.encoder, self.decoder = Encoder(*sizes), Decoder(*sizes)
        _, self.train_images, self.train_labels, _, _ = load_mnist()

    def train(self):
        optimizer = torch.optim.Adam(self.parameters())
        batches = math.ceil(len(self.train_images) / self.args.batch_size)
        for i in range(self.args.num_epoches * batches):
            x = self.train_images[batch_indices(i, batches, self.args.batch_size)]
            mu, sigma_square = self.encoder(x)
            z = sample_diagonal_gaussian(mu, sigma_square)
            loss = -elbo(z, mu, sigma_square, x, self.decoder(z))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def visualize_data_space(self):
        p = self.decoder(torch.randn(10, 2)).detach()
        images = [array_to_image(each) for each in torch.cat([p, sample_Bernoulli(p)])]
        plt.imshow(concat_images(images, 10, 2), cmap="gray")


def parse_args():
    parser = argparse.ArgumentParser()
    for name, default in (("latent_dimension", 2), ("hidden_units", 500), ("data_dimension", 784), ("batch_size", 100),
                          ("num_epoches", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def main():
    vae = VAE(parse_args())
    vae.train()
    vae.visualize_data_space()


if __name__ == "__main__":
    main()
