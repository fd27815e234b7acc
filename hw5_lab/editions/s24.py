"""Edition s24: the word in larger letters, a network that is told sigma, and its own sampler.

At small sigma the best possible score of a finite set points to single points, which is hard to learn. Three things
help: the loss is averaged over all points that x~ may come from, the hidden layers take steps along their
orthogonalized momentum (Muon), and the weights are averaged.
"""

import math

import torch
from torch import nn

import hw5_diffusion
from hw5_diffusion import column, langevin_dynamics, perturb, weighted_error
from hw5_diffusion import compute_denoising_loss as compute_denoising_loss  # for importers


def langevin_dynamics_sample(scorenet, n_samples, sigmas, iterations=100, eps=2e-5, return_traj=False, generator=None):
    """Samples [n,2] by annealed Langevin dynamics from N(0, I); with return_traj all steps [n, L*iterations, 2].

    scorenet is a network, or any function of x and sigma.
    """
    parameters = scorenet.parameters() if isinstance(scorenet, nn.Module) else ()
    device = next((parameter.device for parameter in parameters), "cpu")
    x = torch.randn(n_samples, 2, generator=generator, device=device)
    steps = []
    for x in langevin_dynamics(scorenet, x, sigmas, iterations, eps, generator):
        if return_traj:
            steps.append(x)
    return torch.stack(steps, 1) if return_traj else x


def mean_denoising_loss(scorenet, samples, training_data, sigmas, generator=None):
    """compute_denoising_loss with less noise, a scalar: the same value and the same gradient on average.

    samples [N,2] are drawn uniformly from the points p of training_data [M,2]; x~ is a sample with noise. Given x~, the
    probability that it came from p is proportional to exp(-|x~ - p|^2 / (2 sigma^2)). The loss's target
    (p - x~)/sigma^2 is replaced by its mean over all p ("stable target field", Xu et al. 2023).
    ValueError for no samples.
    """
    x = torch.as_tensor(samples, dtype=training_data.dtype, device=training_data.device)
    if not len(x):
        raise ValueError("samples are empty: an empty batch has no mean loss; give at least one point")
    noisy, sigma = perturb(x, torch.as_tensor(sigmas, dtype=x.dtype, device=x.device), generator)
    # The mean gives the optimal score. optimal_score, precise also far from all data, takes three times as long.
    squares = training_data.square().sum(1)
    logits = (noisy @ training_data.T - squares / 2) / sigma**2  # [N,M]; |x~|^2 is the same for all p
    logits -= logits.amax(1, keepdim=True)
    weights = logits.clamp_(min=-80).softmax(1)  # below -87 exp() takes thirty times as long; e^-80 is nothing beside 1
    mean = weights @ training_data
    spread = (weights @ squares - mean.square().sum(1)) / (2 * sigma[:, 0] ** 2)  # the least possible loss at x~
    return (weighted_error(scorenet(noisy, sigma), (mean - noisy) / sigma**2, sigma) + spread).mean()


def softplus(x):
    """log(1 + e^x) = max(x, 0) - log sigmoid|x|. With F.softplus a training step takes a tenth longer."""
    distance = x.abs()
    return (x + distance) / 2 - distance.sigmoid().log()


class ScoreNet(nn.Module):
    """Score [N,2] at x [N,2], with sigma as a third input."""

    def __init__(self, n_layers=8, latent_dim=128):
        super().__init__()
        sizes = [3, *[latent_dim] * (n_layers - 1), 2]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes, sizes[1:]))
        # PyTorch's own weights let a signal shrink to a fourth in every such layer: after seven, little is left. Wide
        # biases put the bends of the units all over the plane, where there are details to learn.
        for number, layer in enumerate(self.layers[:-1]):
            nn.init.normal_(layer.weight, std=(2.5 if number else 5) / math.sqrt(layer.in_features))
            nn.init.normal_(layer.bias, std=2 if number else 4)
        with torch.no_grad():
            self.layers[0].weight[:, 2] *= 10  # sigma is small beside x, and the score changes faster with it
        nn.init.zeros_(self.layers[-1].weight)

    def forward(self, x, sigma):
        sigma = column(sigma, x)
        h = torch.cat([x, sigma], 1)
        for layer in self.layers[:-1]:
            h = softplus(layer(h))
        return self.layers[-1](h) / sigma


def orthogonalize(matrix, rounds=5):
    """About U V^T [M,N] for a matrix U S V^T [M,N]: its singular values, but for tiny ones, go to between 0.7 and 1.2.

    A round makes a singular value s, from 0 to 1, 3.4445 s - 4.775 s^3 + 2.0315 s^5 (Jordan 2024): no decomposition.
    """
    x = matrix / matrix.norm().clamp(min=1e-12)
    for _ in range(rounds):
        square = x @ x.T
        x = 3.4445 * x + (2.0315 * square @ square - 4.775 * square) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Steps of learning rate lr for weight matrices, along the orthogonalized momentum (Jordan 2024).

    Each step also shrinks the weights by the share lr * weight_decay. Without that they grow for as long as they are
    trained, and ripples of the score grow with them. torch.optim.Muon computes in bfloat16, which is slow on a CPU.
    """

    def __init__(self, parameters, lr, momentum=0.95, weight_decay=0.02):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:  # a frozen one
                    continue
                state, gradient = self.state[weight], weight.grad
                average = state.setdefault("average", torch.zeros_like(weight)).lerp_(gradient, 1 - group["momentum"])
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(group["lr"] * orthogonalize(gradient.lerp(average, group["momentum"])))


class ScoreMatching(hw5_diffusion.ScoreMatching):
    defaults = {
        **hw5_diffusion.DEFAULTS,
        "n_epochs": 110,
        "batch_size": 400,
        "word": "CS446",
        "ema_decay": 0.999,
    }
    Network = ScoreNet
    knows_sigma = True
    sigmas = 0.3, 0.01
    start = 0.0, 1.0
    canvas = dict(height=(1.0, 1.0), width=6.0, centre=0.0)
    half_window = 2.5, 1.0

    def denoising_loss(self, samples, noise_levels):
        """The loss of `samples` [N,2], points of the data, at noise_levels [L], a scalar; see mean_denoising_loss."""
        return mean_denoising_loss(self.network, samples, self.train_data, noise_levels, self.noise_rng)

    def make_optimizers(self):
        """Adam, and Muon at five times its rate for the matrices between hidden layers."""
        weights = list(self.network.parameters())
        matrices = [each for each in weights if each.ndim == 2][1:-1]
        others = [each for each in weights if not any(each is matrix for matrix in matrices)]
        adam = torch.optim.Adam(others, lr=self.args.lr)
        return [adam, Muon(matrices, lr=5 * self.args.lr)]
