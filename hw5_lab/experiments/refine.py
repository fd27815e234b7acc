"""Training the VAE's encoder alone. p(x) is the decoder's; the encoder is a tool to find z, and it overfits.

The decoder is frozen, so log p(x) stays. The encoder learns on the same bound, with images that are deformed a little:
any q(z|x) gives a lower bound, and so the ELBO of the images that are not in the training set rises. The deformations
shrink as the learning rate falls, for the images to come are not deformed.
"""

import math

import torch
import torch.nn.functional as F

from hw5_vae import cosine_decay

LR, LAST = 3e-3, 0.4  # the first rate of Adam, and what is left of the deformations at the end
ANGLE, SCALE, SHEAR, SHIFT, FIELD = 8.0, 0.05, 0.08, 1.0, 0.7  # the last two in pixels, the angle in degrees


def make_optimizer(encoder):
    return torch.optim.Adam(encoder.parameters(), lr=LR)


def epochs(vae, optimizer, count, first=0):
    """Refine for `count` epochs, from epoch `first` on. Yields the same numbers as VAE.epochs(), counted from 1."""
    images = vae.train_images
    binary = bool(((images == 0) | (images == 1)).all())
    vae.decoder.eval()  # its batch normalisation, too, stays as it is
    learning = [weight for weight in vae.encoder.parameters() if weight.requires_grad]
    for epoch in range(first, count):
        done = epoch / count
        optimizer.param_groups[0]["lr"] = LR * cosine_decay(done)
        totals = torch.zeros(2, dtype=torch.double)
        order = torch.randperm(len(images), generator=vae.shuffle_rng)
        for step, indices in enumerate(order.split(vae.args.batch_size), 1):
            x = deform(images[indices], vae.noise_rng, binary, strength=1 - (1 - LAST) * done)
            log_p_x, kl = vae.terms(x, vae.noise_rng)
            loss = (kl - log_p_x).mean()
            optimizer.zero_grad()
            loss.backward(inputs=learning)  # the decoder stays
            optimizer.step()
            totals += torch.stack([log_p_x.sum(), kl.sum()]).detach().cpu()
            if not totals.isfinite().all():
                raise FloatingPointError(
                    f"epoch {vae.args.num_epoches + epoch + 1}, step {step}: the loss is not finite while the encoder "
                    "is refined; train again with a smaller --lr"
                )
        reconstruction, kl = (totals / len(images)).tolist()
        yield {
            "epoch": epoch + 1,
            "train_elbo": reconstruction - kl,
            "train_reconstruction": reconstruction,
            "train_kl": kl,
        }


def deform(x, generator=None, binary=True, strength=1.0):
    """Images [B,side*side], each turned, scaled, sheared and shifted a little at random, and bent by a smooth field.

    `strength` scales all of it. Pixels are rounded to 0 and 1 again where they are `binary`.
    """
    side, count, device = math.isqrt(x.shape[1]), len(x), x.device
    uniform = lambda *shape: strength * (2 * torch.rand(shape, generator=generator, device=device) - 1)
    angle, zoom = math.radians(ANGLE) * uniform(count), 1 + SCALE * uniform(count)
    shear, shift = SHEAR * uniform(count), 2 / side * SHIFT * uniform(2, count)  # the image is 2 wide: from -1 to 1
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    rows = [[cos, shear * cos - sin, shift[0]], [sin, shear * sin + cos, shift[1]]]
    matrix = torch.stack([torch.stack(row, 1) for row in rows], 1)  # [B,2,3]
    grid = F.affine_grid(matrix, (count, 1, side, side), align_corners=False)
    # A field of independent displacements on a coarse lattice, smoothly interpolated
    coarse = strength * 2 / side * FIELD * torch.randn(count, 2, 5, 5, generator=generator, device=device)
    field = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True)
    grid = grid + field.permute(0, 2, 3, 1)
    moved = F.grid_sample(x.view(-1, 1, side, side), grid, align_corners=False).flatten(1)
    return moved.round() if binary else moved.clamp(0, 1)
