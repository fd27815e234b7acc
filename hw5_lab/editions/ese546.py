"""Penn ESE 546, HW5, 2020: 14x14 pixels, 8 latents, two draws of z for each image; curves over the updates."""

import sys

import torch
import torch.nn.functional as F

import hw5_utils as utils
from hw5_lab.editions.hw8 import AnalyticVAE
from hw5_lab.model import check_pairs
from hw5_vae import draw_grid, new_figure

CHECK_EVERY = 100  # updates between two looks at CHECKED held-out images
CHECKED = 100


def halve(images):
    """uint8 images [N,28,28] -> float [N,196]: means of 2x2 pixels, 1 where they exceed 128 of 255, else 0."""
    return (F.avg_pool2d(images.float().unsqueeze(1), 2) > 128).float().flatten(1)


def first_of_each_digit(images, labels, count):
    """The first `count` images of every digit and their one-hot labels, in their order; says where there are fewer."""
    digits = labels.argmax(1)
    found = [(digits == digit).nonzero()[:count, 0] for digit in range(10)]
    if (least := min(map(len, found))) < count:
        print(f"{least} images of some digits where {count} were asked for: using all there are.", file=sys.stderr)
    chosen = torch.cat(found).sort().values
    return images[chosen], labels[chosen]


def tile(images, rows, columns):
    """14x14 images [rows*columns,196] as a numpy grid at twice their size, column by column."""
    large = F.interpolate(images.cpu().view(-1, 1, 14, 14), size=28)
    return utils.concat_images([utils.array_to_image(image) for image in large], rows, columns)


class VAE(AnalyticVAE):
    edition = "ese546"
    settings = dict(
        num_epoches=50, batch_size=32, hidden_units=128, latent_dimension=8, data_dimension=196, train_size=10_000
    )
    pixels = "halved"
    draws = 2
    tile = staticmethod(tile)

    def __init__(self, args):
        super().__init__(args)
        self.record |= {"updates": [], "checks": []}  # (log p(x|z), KL) of each; (updates so far, log p(x|z))

    def prepare(self, images):
        return halve(images)

    def read_data(self):
        splits = super().read_data()
        splits["train"] = first_of_each_digit(*splits["train"], max(1, self.args.train_size // 10))
        return splits

    def step(self, x):
        """An update, noted for the curves; every 100 also the held-out likelihood of 100 images."""
        log_p_x, kl = super().step(x)
        updates = self.record["updates"]
        updates.append((log_p_x.mean().item(), kl.mean().item()))
        if len(updates) % CHECK_EVERY == 0:
            held_out, _ = self.bounds(self.held_out_images[:CHECKED])
            self.record["checks"].append((len(updates), held_out.mean().item()))
        return log_p_x, kl

    def check_record(self, record):
        updates = self.steps * self.args.num_epoches
        check_pairs(record["updates"], "updates", updates)
        check_pairs(record["checks"], "checks", updates // CHECK_EVERY)

    def after_epoch(self, epoch):
        super().after_epoch(epoch)
        if epoch == self.epochs:
            self.visualize_samples(epoch)

    def visualize(self):
        self.visualize_updates()
        self.visualize_reconstructions()

    @torch.no_grad()
    def visualize_reconstructions(self):
        """8x2 grid [245,59] of the first held-out images, each beside p(x|z) at the mean of q(z|x)."""
        x = self.held_out_images[:8]
        grid = tile(torch.cat([x, self.decoder(self.encoder(x)[0])]), len(x), 2)
        self.save(draw_grid(grid, "held-out images", ["x", "p(x|z)"]), "reconstructions.png")
        return grid

    def visualize_updates(self):
        """Both terms of the bound over the updates; likelihoods of training and held-out images, updates.png."""
        updates, checks = self.record["updates"], self.record["checks"]
        figure = new_figure(12, 4)
        terms, likelihoods = figure.subplots(1, 2)
        steps, (log_p_x, kl) = range(1, len(updates) + 1), zip(*updates) if updates else ((), ())
        terms.plot(steps, log_p_x, lw=0.5, label="E[log p(x|z)]")
        terms.plot(steps, kl, lw=0.5, label="KL(q(z|x) || p(z))")
        terms.set_title("Both terms of the bound, each minibatch")
        likelihoods.plot(steps, log_p_x, lw=0.5, label="training, each minibatch")
        likelihoods.plot(*(zip(*checks) if checks else ((), ())), label="100 held-out images, every 100 updates")
        likelihoods.set_title("E[log p(x|z)]")
        for axes in (terms, likelihoods):
            axes.set(xlabel="update", ylabel="nats per image")
            axes.grid(alpha=0.3)
            axes.legend()
        self.save(figure, "updates.png")
        return updates
