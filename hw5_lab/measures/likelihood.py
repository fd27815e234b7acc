"""What a VAE is worth: the importance-weighted bound, and log p(x) itself. The ELBO is the model's own evaluate().

With two latents log p(x) is known: it is an integral over a plane. So the bound's gap can be measured.
Everything is in nats per image, [N], and changes nothing of a training.
"""

import math

import torch
import torch.nn.functional as F

from hw5_vae import (
    check_unit,
    elbo_terms,
    evaluating,
    logpdf_bernoulli,
    logpdf_diagonal_gaussian,
    sample_diagonal_gaussian,
)


def flat(images, model):
    """Images, numpy or tensor, with a channel or without, as the model takes them, [N,pixels]. ValueError for none."""
    weight = next(model.parameters())
    images = torch.as_tensor(images, dtype=weight.dtype, device=weight.device)
    if images.dim() < 2 or not len(images):
        raise ValueError(
            f"images are of shape {list(images.shape)}; expected [N,pixels], or with a channel, N at least 1"
        )
    images = images.flatten(1)
    check_unit("images", images)
    return images


def logits_of(decoder, z):
    """log(p / (1 - p)), [B,pixels]: decoder.logits, or of a decoder without it from p, where p is rounded."""
    if hasattr(decoder, "logits"):
        return decoder.logits(z)
    p = decoder(z)
    return torch.logit(p, eps=torch.finfo(p.dtype).eps)  # finite where p is 0 or 1


@evaluating
def log_likelihood_sampled(model, images, samples, progress=iter):
    """The importance-weighted bound on log p(x) with `samples` draws from q(z|x) (Burda et al. 2016, Eq. 8).

    With one sample its mean is the ELBO. It rises to log p(x) with their number. `progress` wraps the loop.
    """
    if samples < 1:
        raise ValueError(f"{samples} samples; expected at least 1")
    generator, values = getattr(model, "fresh_rng", torch.Generator)(), []
    for x in progress(flat(images, model).split(max(1, 20_000 // samples))):
        mu, sigma_square = (part.expand(samples, *part.shape) for part in model.encoder(x))
        z = sample_diagonal_gaussian(mu, sigma_square, generator)  # [samples,B,latent]
        logits = logits_of(model.decoder, z.flatten(0, 1)).view(samples, len(x), -1)
        log_p_x, kl = elbo_terms(z, mu, sigma_square, x.expand(samples, *x.shape), logits)
        values.append(log_mean_exp(log_p_x - kl))
    return torch.cat(values)


SCREEN = 4  # of the grid's points in each direction the first is looked at by all images
NEAR = 40.0  # nats: how far below an image's best such point the places are that can matter to it


@evaluating
def log_likelihood_exact(model, images, points=200, progress=iter):
    """log p(x) = log of the integral of p(x|z) p(z) over a plane of latents, by the trapezoid rule.

    Also the estimated error, [N]: the difference to every second point of the grid. And the best z, [N,2].
    The grid spans the prior and the codes of the images, each to four standard deviations. Most of it is empty for an
    image: only near places where the joint density is within NEAR nats of its largest value it is looked at closely.
    """
    images = flat(images, model)
    mu, sigma_square = model.encoder(images)
    if mu.shape[1] != 2:
        raise ValueError(f"the model has {mu.shape[1]} latents; the integral is over a plane, of two")
    reach = max(4.0, (mu.abs() + 4 * sigma_square.sqrt()).max().item())
    line = torch.linspace(-reach, reach, points).to(mu)
    z = torch.cartesian_prod(line, line)
    logits = torch.cat([logits_of(model.decoder, part) for part in z.split(2000)])
    log_prior = logpdf_diagonal_gaussian(z, torch.zeros_like(z), torch.ones_like(z))
    # log p(x,z) is the sum over pixels of x * logits - softplus(logits), and log p(z): one matrix product and this
    constant = log_prior - torch.cat([F.softplus(part).sum(1) for part in logits.split(2000)])
    number = torch.arange(points**2, device=mu.device).view(points, points)

    firsts = number[::SCREEN, ::SCREEN]
    seen = images @ logits[firsts.flatten()].T + constant[firsts.flatten()]  # [N,places]
    best, place = seen.max(1)
    best_z = z[firsts.flatten()[place]]
    near = (seen > best[:, None] - NEAR).float().view(len(images), 1, *firsts.shape)
    near = F.max_pool2d(near, 3, stride=1, padding=1).flatten(1).bool()  # and the places around them

    log_area = 2 * math.log(line[1] - line[0])
    fine = torch.full_like(mu[:, 0], -math.inf)
    coarse = fine.clone()
    for block in progress(range(firsts.numel())):
        chosen = near[:, block].nonzero()[:, 0]
        if not len(chosen):
            continue
        row, column = block // firsts.shape[1] * SCREEN, block % firsts.shape[1] * SCREEN
        inside = number[row : row + SCREEN, column : column + SCREEN]
        indices = inside.flatten()
        log_joint = images[chosen] @ logits[indices].T + constant[indices]
        fine[chosen] = torch.logaddexp(fine[chosen], log_joint.logsumexp(1) + log_area)
        second = ((indices // points % 2 == 0) & (indices % points % 2 == 0)).nonzero()[:, 0]
        summed = log_joint[:, second].logsumexp(1) + log_area + math.log(4)
        coarse[chosen] = torch.logaddexp(coarse[chosen], summed)
        value, place = log_joint.max(1)
        better = value > best[chosen]
        best_z[chosen[better]] = z[indices[place[better]]]
        best[chosen] = torch.maximum(best[chosen], value)
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
