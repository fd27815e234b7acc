"""The networks of Davidson et al. 2018, with a Gaussian prior: ReLU, two hidden layers, on the data of dynamic.py."""

import torch
from torch import nn

from hw5_lab.editions.dynamic import VAE as DynamicVAE


class Encoder(nn.Module):
    """x [B,data] -> mean and variance of q(z|x), both [B,latent], through 2 * hidden_units and hidden_units."""

    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super().__init__()
        self.fc1 = nn.Linear(data_dimension, 2 * hidden_units)
        self.fc2 = nn.Linear(2 * hidden_units, hidden_units)
        self.fc3_mu = nn.Linear(hidden_units, latent_dimension)
        self.fc3_sigma = nn.Linear(hidden_units, latent_dimension)

    def forward(self, x):
        h = torch.relu(self.fc2(torch.relu(self.fc1(x))))
        return self.fc3_mu(h), torch.exp(self.fc3_sigma(h))


class Decoder(nn.Module):
    """z [B,latent] -> pixel probabilities p [B,data] in (0,1), through hidden_units and 2 * hidden_units."""

    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super().__init__()
        self.fc1 = nn.Linear(latent_dimension, hidden_units)
        self.fc2 = nn.Linear(hidden_units, 2 * hidden_units)
        self.fc3 = nn.Linear(2 * hidden_units, data_dimension)

    def logits(self, z):
        """log(p / (1 - p)), [B,data]."""
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(z)))))

    def forward(self, z):
        return torch.sigmoid(self.logits(z))


class VAE(DynamicVAE):
    defaults = {**DynamicVAE.defaults, "hidden_units": 128}
    Encoder, Decoder = Encoder, Decoder
