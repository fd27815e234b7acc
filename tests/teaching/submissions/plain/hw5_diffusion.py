"""A student's plain and right hw5_diffusion.py: the text that the mistakes of mistakes.py are edited into."""

import math

import torch
from torch import nn


def generate_noise_levels(begin, end, levels):
    return torch.exp(torch.linspace(math.log(begin), math.log(end), levels))


class DiffusionModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(26, 200)
        self.fc2 = nn.Linear(200, 400)
        self.fc3 = nn.Linear(400, 200)
        self.fc4 = nn.Linear(200, 2)

    def features(self, x):
        f = math.pi * 2 ** torch.linspace(0, 5, 6)
        a, b = x[:, :1] * f, x[:, 1:] * f
        return torch.cat([a.cos(), a.sin(), b.cos(), b.sin(), x], dim=1)

    def forward(self, x, sigma):
        h = torch.relu(self.fc1(self.features(x)))
        h = torch.relu(self.fc2(h))
        h = torch.relu(self.fc3(h))
        return self.fc4(h) / torch.as_tensor(sigma).reshape(-1, 1)


def compute_denoising_loss(scorenet, training_data, sigmas):
    x = training_data
    sigma = sigmas[torch.randint(len(sigmas), (len(x), 1))]
    noise = torch.randn_like(x)
    noisy = x + sigma * noise
    target = -(noisy - x) / sigma ** 2
    error = (scorenet(noisy, sigma) - target) ** 2
    return (sigma ** 2 / 2 * error).sum(dim=1).mean()


def langevin_dynamics(scorenet, x, sigmas, iterations, eps):
    for sigma in sigmas:
        alpha = eps * sigma ** 2 / sigmas[-1] ** 2
        for _ in range(iterations):
            noise = torch.randn_like(x)
            x = x + alpha * scorenet(x, sigma) + torch.sqrt(2 * alpha) * noise
            yield x
