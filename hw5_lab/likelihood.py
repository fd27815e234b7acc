"""What a VAE is worth: the bound, the importance-weighted bound, and log p(x) itself.

With two latents log p(x) is known: it is an integral over a plane. So the bound's gap can be measured.
"""

import math

import torch
import torch.nn.functional as F

from hw5_vae import check_unit, elbo_from_logits, logpdf_diagonal_gaussian

IMAGES_AT_ONCE = 1000


class Likelihood:
    """Methods of a VAE that change nothing of its training. Everything is in nats per image, [N]."""

    @torch.no_grad()
    def bounds(self, images):
        """log p(x|z) and the KL of each image, as bound() estimates them."""
        check_unit("images", images)
        generator = self.fresh_generator()
        parts = [self.bound(x, generator) for x in images.split(IMAGES_AT_ONCE)]
        return [torch.cat(part) for part in zip(*parts)]

    def evaluate(self, images=None, split=None):
        """Means of the bound and its parts over whole splits (default: the held-out one), under the split's name."""
        split = split or self.held_out
        log_p_x, kl = self.bounds(self.held_out_images if images is None else images)
        return {
            f"{split}_elbo": (log_p_x - kl).mean().item(),
            f"{split}_reconstruction": log_p_x.mean().item(),
            f"{split}_kl": kl.mean().item(),
        }

    @torch.no_grad()
    def log_likelihood_sampled(self, images, samples):
        """The importance-weighted bound on log p(x) with `samples` draws from q(z|x) (Burda et al. 2016, Eq. 8).

        With one sample its mean is the ELBO. It rises to log p(x) with their number.
        """
        generator, values = self.fresh_generator(), []
        for x in images.split(max(1, 20_000 // samples)):
            mu, sigma_square = (part.expand(samples, *part.shape) for part in self.encoder(x))
            z = self.sample_z(mu, sigma_square, generator)  # [samples,B,latent]
            log_p_x, kl = elbo_from_logits(z, mu, sigma_square, x.expand(samples, *x.shape), self.decoder.logits(z))
            values.append(log_mean_exp(log_p_x - kl))
        return torch.cat(values)

    @torch.no_grad()
    def log_likelihood_exact(self, images, points=200):
        """log p(x) = log of the integral of p(x|z) p(z) over a plane of latents, by the trapezoid rule.

        Also the estimated error, [N]: the difference to every second point of the grid. And the best z, [N,2].
        The grid spans the prior and the codes of the images, each to four standard deviations.
        """
        mu, sigma_square = self.encoder(images)
        reach = max(4.0, (mu.abs() + 4 * sigma_square.sqrt()).max().item())
        line = torch.linspace(-reach, reach, points).to(mu)
        log_area = 2 * math.log(line[1] - line[0])
        fine = torch.full_like(mu[:, 0], -math.inf)
        coarse, best, best_z = fine.clone(), fine.clone(), torch.zeros_like(mu)
        for row, first in enumerate(line):
            z = torch.stack([first.expand(points), line], dim=1)
            logits = self.decoder.logits(z)
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


def log_mean_exp(values, dim=0):
    """log of the mean of exp(values) along `dim`, without overflow."""
    return values.logsumexp(dim) - math.log(values.shape[dim])
