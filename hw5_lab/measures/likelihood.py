"""What a VAE is worth: the importance-weighted bound, and log p(x) itself. The bound is the model's own evaluate().

With two latents log p(x) is known: it is an integral over a plane. So the bound's gap can be measured.
Everything is in nats per image, [N], and changes nothing of a training.
"""

import math

import torch
import torch.nn.functional as F

from hw5_vae import elbo_terms, evaluating, logpdf_bernoulli, logpdf_diagonal_gaussian, sample_diagonal_gaussian


@evaluating
def log_likelihood_sampled(model, images, samples):
    """The importance-weighted bound on log p(x) with `samples` draws from q(z|x) (Burda et al. 2016, Eq. 8).

    With one sample its mean is the ELBO. It rises to log p(x) with their number.
    """
    generator, values = model.fresh_rng(), []
    for x in images.split(max(1, 20_000 // samples)):
        mu, sigma_square = (part.expand(samples, *part.shape) for part in model.encoder(x))
        z = sample_diagonal_gaussian(mu, sigma_square, generator)  # [samples,B,latent]
        log_p_x, kl = elbo_terms(z, mu, sigma_square, x.expand(samples, *x.shape), model.decoder.logits(z))
        values.append(log_mean_exp(log_p_x - kl))
    return torch.cat(values)


@evaluating
def log_likelihood_exact(model, images, points=200):
    """log p(x) = log of the integral of p(x|z) p(z) over a plane of latents, by the trapezoid rule.

    Also the estimated error, [N]: the difference to every second point of the grid. And the best z, [N,2].
    The grid spans the prior and the codes of the images, each to four standard deviations.
    """
    mu, sigma_square = model.encoder(images)
    reach = max(4.0, (mu.abs() + 4 * sigma_square.sqrt()).max().item())
    line = torch.linspace(-reach, reach, points).to(mu)
    log_area = 2 * math.log(line[1] - line[0])
    fine = torch.full_like(mu[:, 0], -math.inf)
    coarse, best, best_z = fine.clone(), fine.clone(), torch.zeros_like(mu)
    for row, first in enumerate(line):
        z = torch.stack([first.expand(points), line], dim=1)
        logits = model.decoder.logits(z)
        # The sum over pixels of x * logits - softplus(logits), for all images and points in one matrix product
        log_p_x = images @ logits.T - F.softplus(logits).sum(1)  # [N,points]
        log_joint = log_p_x + logpdf_diagonal_gaussian(z, torch.zeros_like(z), torch.ones_like(z))
        fine = torch.logaddexp(fine, log_joint.logsumexp(1) + log_area)
        if row % 2 == 0:
            coarse = torch.logaddexp(coarse, log_joint[:, ::2].logsumexp(1) + log_area + math.log(4))
        value, place = log_joint.max(1)
        best_z = torch.where((value > best)[:, None], z[place], best_z)
        best = torch.maximum(best, value)
    return fine, (fine - coarse).abs(), best_z


def log_likelihood_ignoring_z(train_images, images):
    """log p(x) of the best decoder that ignores z: the training images' mean, one pixel more of each colour."""
    p = (train_images.sum(0) + 1) / (len(train_images) + 2)
    return logpdf_bernoulli(images, p)


def log_mean_exp(values, dim=0):
    """log of the mean of exp(values) along `dim`, without overflow."""
    return values.logsumexp(dim) - math.log(values.shape[dim])


def standard_error(values):
    """Of the mean of [N] values; NaN for a single one."""
    return values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
