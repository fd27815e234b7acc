"""Penn ESE 546, HW5, 2020: 14x14 pixels, 8 latents, two draws of z for each image; curves over the updates.

2(ii). Where the text leaves a choice or has a misprint:
- It writes log p(x|z) as a sum to 8. An image has 196 pixels, so the sum is to 196 here. 8 is the number of latents.
- It calls the encoder's last 8 outputs the standard deviation, and then sigma_u(x) the diagonal of the covariance. An
  output without a nonlinearity can be negative. So the outputs are log sigma^2 here, and sigma^2 is positive.
- Of two samples of z the two log-likelihoods are averaged, never the two z.
"""

import sys

import torch
import torch.nn.functional as F

import hw5_utils as utils
import hw5_vae
from hw5_lab.editions.hw8 import AnalyticVAE
from hw5_vae import draw_grid, evaluating, new_figure

CHECK_EVERY = 100  # updates between two looks at CHECKED held-out images
CHECKED = 100


def halve(images):
    """2(i). uint8 images [N,28,28] -> float [N,196]: means of 2x2 pixels, 1 where they exceed 128 of 255, else 0.

    "Sub-sample" is read as this mean. To keep every second pixel would be another reading; it can drop thin strokes.
    """
    return (F.avg_pool2d(images.float().unsqueeze(1), 2) > 128).float().flatten(1)


def first_of_each_digit(images, labels, count):
    """2(i). The first `count` images of every digit and their one-hot labels, in order; says where there are fewer."""
    digits = labels.argmax(1)
    found = [(digits == digit).nonzero()[:count, 0] for digit in range(10)]
    if (least := min(map(len, found))) < count:
        print(f"{least} images of some classes where {count} were asked for: using all there are.", file=sys.stderr)
    chosen = torch.cat(found).sort().values
    return images[chosen], labels[chosen]


def tile(images, rows, columns):
    """14x14 images [rows*columns,196] as a numpy grid at twice their size, column by column."""
    large = F.interpolate(images.cpu().view(-1, 1, 14, 14), size=28)
    return utils.concat_images([utils.array_to_image(image) for image in large], rows, columns)


class Curves:
    """What the curves show, as pairs: (log p(x|z), KL) of each update; (updates so far, held-out log p(x|z))."""

    def __init__(self):
        self.updates, self.checks = [], []

    def state_dict(self):
        return {"updates": self.updates, "checks": self.checks}

    def load_state_dict(self, state):
        self.updates = [(float(log_p_x), float(kl)) for log_p_x, kl in state["updates"]]
        self.checks = [(int(updates), float(log_p_x)) for updates, log_p_x in state["checks"]]


class VAE(AnalyticVAE):
    """2(ii). The homework's networks with the bound of Eq. 5."""

    defaults = {
        **hw5_vae.DEFAULTS,
        "num_epoches": 50,
        "batch_size": 32,
        "hidden_units": 128,
        "latent_dimension": 8,
        "data_dimension": 196,
        "train_size": 10_000,
    }
    pixels = "halved"
    draws = 2
    tile = staticmethod(tile)

    def __init__(self, args):
        super().__init__(args)
        self.curves = Curves()

    def prepare(self, images):
        return halve(images)

    def read_data(self, data_dir=None, size=None):
        """2(i). As the others' read_data(), with the first size/10 images of each digit to train."""
        splits = self.read_all(data_dir)
        size = size or self.args.train_size
        return {**splits, "train": first_of_each_digit(*splits["train"], max(1, size // 10))}

    def step(self, x):
        """2(iii), 2(vi). An update, noted for the curves; every 100 also the held-out likelihood of 100 images.

        The text asks for log p(x|z) of "100 synthesized images". An image that is drawn from the prior has no x to
        compare with. So they are read as reconstructions of the first 100 test images, with two z each.
        """
        log_p_x, kl = super().step(x)
        updates = self.curves.updates
        updates.append((log_p_x.mean().item(), kl.mean().item()))
        if len(updates) % CHECK_EVERY == 0:
            held_out, _ = self.evaluate(self.held_out_images[:CHECKED])
            self.curves.checks.append((len(updates), held_out.mean().item()))
        return log_p_x, kl

    def draw_epoch(self, epoch):
        """2(v). Samples at the end of the training."""
        if epoch == self.args.num_epoches:
            self.visualize_samples(epoch)

    def visualize(self):
        self.visualize_updates()
        self.visualize_reconstructions()

    @evaluating
    def visualize_reconstructions(self):
        """2(iv). 8x2 grid [245,59] of the first held-out images, each beside p(x|z) at the mean of q(z|x)."""
        x = self.held_out_images[:8]
        grid = tile(torch.cat([x, self.decoder(self.encoder(x)[0])]), len(x), 2)
        self.save(draw_grid(grid, "held-out images", ["x", "p(x|z)"]), "reconstructions.png")
        return grid

    def visualize_updates(self):
        """2(iii), 2(vi). Both terms of the bound over the updates; the first also of held-out images, updates.png."""
        updates, checks = self.curves.updates, self.curves.checks
        log_p_x, kl = zip(*updates) if updates else ((), ())
        steps = range(1, len(updates) + 1)
        figure = new_figure(15, 4)
        first, second, likelihoods = figure.subplots(1, 3)
        first.plot(steps, log_p_x, lw=0.5)
        first.set_title("First term, E[log p(x|z)], each minibatch")
        second.plot(steps, [-value for value in kl], lw=0.5)
        second.set_title("Second term, -KL(q(z|x) || p(z)), each minibatch")
        likelihoods.plot(steps, log_p_x, lw=0.5, label="training, each minibatch")
        if checks:
            likelihoods.plot(*zip(*checks), label="100 held-out images, every 100 updates")
        likelihoods.set_title("E[log p(x|z)]")
        likelihoods.legend()
        for axes in (first, second, likelihoods):
            axes.set(xlabel="update", ylabel="nats per image")
            axes.locator_params(axis="x", nbins=5)
            axes.grid(alpha=0.3)
        self.save(figure, "updates.png")
        return updates
