"""A right hw5_vae.py in another style: methods, torch.distributions, another number of the utils, data read at once."""

import sys
import argparse
import matplotlib.pyplot as plt
plt.rcParams["axes.grid"] = False
import matplotlib.image
import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim
from hw3_utils import *
from torch.distributions import Bernoulli, Normal


class Encoder(nn.Module):
    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super(Encoder, self).__init__()
        self.body = nn.Sequential(nn.Linear(data_dimension, hidden_units), nn.Tanh())
        self.mean_head = nn.Linear(hidden_units, latent_dimension)
        self.var_head = nn.Linear(hidden_units, latent_dimension)

    def forward(self, x):
        h = self.body(x)
        return self.mean_head(h), self.var_head(h).exp()


class Decoder(nn.Module):
    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super(Decoder, self).__init__()
        self.layers = nn.Sequential(nn.Linear(latent_dimension, hidden_units), nn.Tanh(),
                                    nn.Linear(hidden_units, data_dimension), nn.Sigmoid())

    def forward(self, z):
        return self.layers(z)


class VAE(nn.Module):
    def __init__(self, args):
        super(VAE, self).__init__()
        self.latent_dimension = args.latent_dimension
        self.hidden_units = args.hidden_units
        self.data_dimension = args.data_dimension
        self.resume_training = args.resume_training
        self.batch_size = args.batch_size
        self.num_epoches = args.num_epoches
        self.e_path = args.e_path
        self.d_path = args.d_path
        self.favourite = args.favourite_digit
        N_data, self.train_images, self.train_labels, test_images, test_labels = load_mnist()
        self.encoder = Encoder(self.latent_dimension, self.hidden_units, self.data_dimension)
        self.decoder = Decoder(self.latent_dimension, self.hidden_units, self.data_dimension)

    @staticmethod
    def sample_diagonal_gaussian(mu, sigma_square):
        return Normal(mu, sigma_square ** 0.5).rsample()

    @staticmethod
    def sample_Bernoulli(p):
        x = np.random.binomial(1, p.detach().numpy())
        return torch.from_numpy(x).to(torch.float32)

    def logpdf_diagonal_gaussian(self, z, mu, sigma_square):
        logprob = Normal(mu, torch.sqrt(sigma_square)).log_prob(z)
        return logprob.sum(1, keepdim=True)

    def logpdf_bernoulli(self, x, p):
        return torch.sum(Bernoulli(p).log_prob(x), dim=1).reshape(-1, 1)

    def sample_z(self, mu, sigma_square):
        return self.sample_diagonal_gaussian(mu, sigma_square)

    def elbo_loss(self, sampled_z, mu, sigma_square, x, p):
        log_q = self.logpdf_diagonal_gaussian(sampled_z, mu, sigma_square)
        z_mu = torch.FloatTensor([0] * self.latent_dimension).repeat(sampled_z.shape[0], 1)
        z_sigma = torch.FloatTensor([1] * self.latent_dimension).repeat(sampled_z.shape[0], 1)
        log_p_z = self.logpdf_diagonal_gaussian(sampled_z, z_mu, z_sigma)
        log_p = self.logpdf_bernoulli(x, p)
        return torch.mean(log_p_z - log_q + log_p)

    def train(self):
        adam_optimizer = optim.Adam(list(self.encoder.parameters()) + list(self.decoder.parameters()))
        num_batches = int(np.ceil(len(self.train_images) / self.batch_size))
        for i in range(self.num_epoches * num_batches):
            x = self.train_images[batch_indices(i, num_batches, self.batch_size), :]
            mu, sigma_square = self.encoder(x)
            zs = self.sample_z(mu, sigma_square)
            total_loss = -self.elbo_loss(zs, mu, sigma_square, x, self.decoder(zs))
            adam_optimizer.zero_grad()
            total_loss.backward()
            adam_optimizer.step()

    @staticmethod
    def interpolate_mu(mua, mub, alpha=0.5):
        return mub + alpha * (mua - mub)

    def visualize_latent_space(self):
        mu = self.encoder(self.train_images)[0].detach().numpy()
        labels = np.argmax(self.train_labels.numpy(), axis=1)
        plt.scatter(mu[:, 0], mu[:, 1], c=labels, cmap="tab10")
        plt.savefig("latent.png")


def parse_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--e_path", type=str, default="./e_params.pkl")
    parser.add_argument("--d_path", type=str, default="./d_params.pkl")
    parser.add_argument("--hidden_units", type=int, default=500)
    parser.add_argument("--latent_dimension", type=int, default="2")
    parser.add_argument("--data_dimension", type=int, default="784")
    parser.add_argument("--resume_training", action="store_true")
    parser.add_argument("--favourite_digit", type=int, default=7)
    parser.add_argument("--num_epoches", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=100)
    return parser.parse_args()


def main():
    args = parse_args()
    torch.manual_seed(1234)
    vae = VAE(args)
    vae.train()
    vae.visualize_latent_space()


if __name__ == "__main__":
    main()
