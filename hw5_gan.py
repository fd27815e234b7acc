"""Homework 5, part 2: a generative adversarial network that learns to draw MNIST digits.

    python hw5_gan.py                       # trains, then writes samples, curves and a GIF to outputs/gan/
    python hw5_gan.py --edition uva         # another course's homework; the table below says how they differ

The discriminator D says how real an image looks (a logit), the generator G turns noise z into an image; each is
trained against the other. Expect recognisable digits after 20 to 30 epochs, at about 13 s an epoch on two cores.
A digit classifier, trained once on the training images, then says how good they are (class Evaluator).
README.md maps the questions to the functions below.
"""

import argparse
import copy
import math
import sys
import time
import zlib
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import hw5_utils as utils

# Beside a course's own, smaller hw5_utils everything below works, only without run folders and shared flags.
Fault = getattr(utils, "Fault", ValueError)
check_unit = getattr(utils, "check_unit", lambda name, values, *shape: None)
parse_run_args = getattr(utils, "parse_run_args", argparse.ArgumentParser.parse_args)
set_edition = getattr(utils, "set_edition", lambda parser, argv, editions, default: parser.set_defaults(**editions[default]))
load_tensors = getattr(utils, "load_tensors", lambda path: torch.load(path, weights_only=True))
save_tensors = getattr(utils, "save_tensors", torch.save)
save_figure = getattr(utils, "save_figure", lambda figure, path: figure.savefig(path))

# ------------------------------------------------------------------------------------------------- editions

# noise is the distribution of z, darkest the value of a black pixel (white is 1), first the player that learns first with
# a minibatch, beta1 Adam's for both, grid, samples and figures what is drawn and when.
EDITIONS = {
    "cs446": dict(  # University of Illinois, 2022
        networks="convolutional", zdim=64, noise="uniform", darkest=0, first="D", beta1=0.9, n_epochs=100, batch_size=256,
        grid=8, samples="every 10 epochs", figures=("history",)),
    "uva": dict(  # University of Amsterdam, Deep Learning, assignment 3
        networks="dense", zdim=100, noise="normal", darkest=-1, first="G", n_epochs=200, batch_size=64,
        beta1=0.5,  # at 0.9, Adam's default, samples stay of a dozen kinds: after 17 epochs at a Frechet distance of 568, not 68
        grid=5, samples="start, half, end", figures=("history", "interpolation")),
}
DEFAULTS = dict(edition="cs446", iter_d=1, iter_g=1, lr=0.0002, seed=2, resume_training=False)

# ---------------------------------------------------------------------------------------------------- maths


def discriminator_loss(real_logits, fake_logits):
    """-(E[log D(x)] + E[log(1 - D(G(z)))]) / 2 in nats, to be minimised by D; logits [B,1], D = sigmoid(logits)."""
    on_real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    on_fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return 0.5 * (on_real + on_fake)


def generator_loss(fake_logits):
    """-E[log D(G(z))] in nats, to be minimised by G: the non-saturating form, which has a gradient where D is sure."""
    return F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))


def sample_z(batch_size, zdim, generator=None, device="cpu", noise="uniform"):
    """Noise [B,zdim], uniform in [-1,1], or standard "normal"."""
    if noise == "normal":
        return torch.randn(batch_size, zdim, generator=generator, device=device)
    return 2 * torch.rand(batch_size, zdim, generator=generator, device=device) - 1


def scale(images):
    """uint8 images [B,1,28,28] as float in [0,1], channels last: the layout in which convolutions of few channels are fast."""
    return images.float().div_(255).contiguous(memory_format=torch.channels_last)


def upsample_convolve(upsample, conv, x):
    """conv(upsample(x)), for a nearest upsampling by 2 and a 3x3 convolution with padding 1, as one transposed convolution.

    Of the nine pixels under the kernel at most 2x2 differ, so the 3x3 kernel becomes a 4x4 one, of sums, with stride 2:
    4 products a pixel instead of 9. Forward and backward of 256 images took 6.6 ms instead of 17 in the first such
    pair of layers and 8.9 instead of 12 in the second, on two cores.
    """
    sums = conv.weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    weight = (sums @ conv.weight @ sums.T).transpose(0, 1)  # [in,out,4,4]
    return F.conv_transpose2d(x, weight, conv.bias, stride=int(upsample.scale_factor), padding=1)


def frechet_distance(a, b):
    """Squared Frechet distance between the Gaussians fitted to features a [N,D] and b [M,D] (Dowson and Landau 1982).

    |mean(a) - mean(b)|^2 + tr(A + B - 2 (A B)^(1/2)) with the covariances A and B: 0 for equal sets.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T, correction=0), torch.cov(b.T, correction=0)
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # A B and root_a B root_a have the same eigenvalues, and the latter is symmetric
    trace_of_root = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + cov_a.trace() + cov_b.trace() - 2 * trace_of_root


def inception_score(log_p):
    """exp E[KL(p(y|x) || p(y))] for log p(y|x) [N,C] (Salimans et al. 2016): from 1 to C, if all are clear and all y occur."""
    log_p_y = log_p.logsumexp(0) - math.log(len(log_p))
    return (log_p.exp() * (log_p - log_p_y)).sum(1).mean().exp()


def manifold_share(points, others, k=3):
    """Share of `others` [M,D] that lie as near to one of `points` [N,D] as that one's k-th nearest neighbour.

    Of generated among real points this is the precision, of real among generated ones the recall (Kynkaanniemi et al. 2019).
    """
    k = min(k, len(points) - 1)
    radius = torch.cat([torch.cdist(block, points).kthvalue(k + 1).values for block in points.split(1000)])  # itself is the first
    return torch.cat([(torch.cdist(block, points) <= radius).any(1) for block in others.split(1000)]).float().mean()


def nearest_neighbours(images, others):
    """Euclidean distance over pixels from each of `images` [N,...] to the nearest of `others` [M,...], and its index, both [N]."""
    found = [torch.cdist(block, others.flatten(1)).min(1) for block in images.flatten(1).split(500)]
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])


def kaiming_init(network):
    """kaiming_uniform_ with its defaults on the weights of all children that have any, 0 on their biases."""
    for layer in network.children():
        if hasattr(layer, "weight"):
            nn.init.kaiming_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


# ------------------------------------------------------------------------------------------------- networks


class DNet(nn.Module):
    """Images [B,1,28,28] in [0,1] -> logits [B,1], positive where they look real."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, kernel_size=3, stride=1, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(kernel_size=2, stride=2)
        self.conv2 = nn.Conv2d(2, 4, kernel_size=3, stride=1, padding=1)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(kernel_size=2, stride=2)
        self.conv3 = nn.Conv2d(4, 8, kernel_size=3, stride=1, padding=0)
        self.relu3 = nn.ReLU()
        self.linear = nn.Linear(200, 1)
        self._weight_init()

    def _weight_init(self):
        kaiming_init(self)

    def forward(self, x):
        x = self.pool1(self.relu1(self.conv1(x)))  # [B,2,14,14]
        x = self.pool2(self.relu2(self.conv2(x)))  # [B,4,7,7]
        x = self.relu3(self.conv3(x))  # [B,8,5,5]
        return self.linear(x.flatten(1))


class GNet(nn.Module):
    """Noise z [B,zdim] -> images [B,1,28,28] in (0,1)."""

    def __init__(self, zdim):
        super().__init__()
        self.linear = nn.Linear(zdim, 1568)
        self.lrelu1 = nn.LeakyReLU(0.2)
        self.upsample1 = nn.Upsample(scale_factor=2)
        self.conv1 = nn.Conv2d(32, 16, kernel_size=3, stride=1, padding=1)
        self.lrelu2 = nn.LeakyReLU(0.2)
        self.upsample2 = nn.Upsample(scale_factor=2)
        self.conv2 = nn.Conv2d(16, 8, kernel_size=3, stride=1, padding=1)
        self.lrelu3 = nn.LeakyReLU(0.2)
        self.conv3 = nn.Conv2d(8, 1, kernel_size=3, stride=1, padding=1)
        self.sigmoid = nn.Sigmoid()
        self._weight_init()

    def _weight_init(self):
        kaiming_init(self)

    def forward(self, z):
        x = self.lrelu1(self.linear(z)).reshape(-1, 32, 7, 7).contiguous(memory_format=torch.channels_last)
        x = self.lrelu2(upsample_convolve(self.upsample1, self.conv1, x))  # [B,16,14,14]
        x = self.lrelu3(upsample_convolve(self.upsample2, self.conv2, x))  # [B,8,28,28]
        return self.sigmoid(self.conv3(x))


class DenseD(nn.Module):
    """Images [B,1,28,28] in [-1,1] -> logits [B,1]: the discriminator of edition uva."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1))

    def forward(self, x):
        return self.layers(x)


class DenseG(nn.Module):
    """Noise z [B,zdim] -> images [B,1,28,28] in (-1,1): the generator of edition uva."""

    def __init__(self, zdim):
        super().__init__()
        layers = [nn.Linear(zdim, 128), nn.LeakyReLU(0.2)]
        for narrow, wide in ((128, 256), (256, 512), (512, 1024)):
            layers += [nn.Linear(narrow, wide), nn.BatchNorm1d(wide), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(1024, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28)))

    def forward(self, z):
        return self.layers(z)


NETWORKS = {"convolutional": (DNet, GNet), "dense": (DenseD, DenseG)}


class Classifier(nn.Module):
    """Images [B,1,28,28] in [0,1] -> 64 features, and logits [B,10] of the digits. Not of the homework: it measures samples."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=5, stride=2, padding=2), nn.ReLU(),  # [B,16,14,14]
            nn.Conv2d(16, 32, kernel_size=5, stride=2, padding=2), nn.ReLU(),  # [B,32,7,7]
            nn.Flatten(), nn.Linear(1568, 64), nn.ReLU(),
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        return self.linear(self.features(x))


# ------------------------------------------------------------------------------------------------ the model


class Evaluator:
    """Compares images with real ones in the features of a digit classifier, trained once on the real training images.

    images uint8 [N,1,28,28], digits [N]. The classifier is kept in the file `path`, and read from there for the same images.
    """

    def __init__(self, images, digits, path):
        self.images, self.digits, self.path = images, digits, path
        with torch.random.fork_rng(devices=[]):  # the same classifier for every seed of the run
            torch.manual_seed(0)
            self.classifier = Classifier().to(images.device, memory_format=torch.channels_last)
        self.checksum = zlib.crc32(np.ascontiguousarray(images.cpu()), zlib.crc32(np.ascontiguousarray(digits.cpu())))

    def prepare(self, epochs=3, batch_size=128, lr=3e-3):
        """Read the classifier or train it, with a rate that falls to 0; a generator, to be interrupted after each step."""
        with suppress(ValueError, OSError, KeyError, RuntimeError, TypeError):  # none, damaged, of other images: trained again
            kept = load_tensors(self.path)
            if kept["checksum"] == self.checksum:
                self.classifier.load_state_dict(kept["classifier"])
                save_tensors(kept, self.path)  # now it is this run's file as well
                return
        optimizer = torch.optim.Adam(self.classifier.parameters(), lr=lr)
        generator, steps = torch.Generator().manual_seed(0), epochs * math.ceil(len(self.images) / batch_size)
        orders = (torch.randperm(len(self.images), generator=generator) for _ in range(epochs))
        batches = (batch for order in orders for batch in order.split(batch_size))
        for step, indices in enumerate(batches):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
            loss = F.cross_entropy(self.classifier(scale(self.images[indices])), self.digits[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield
        save_tensors({"checksum": self.checksum, "classifier": self.classifier.state_dict()}, self.path)

    @torch.no_grad()
    def look(self, images):
        """Features [N,64] and log p(digit) [N,10] of images [N,1,28,28] in [0,1], on the CPU."""
        features = torch.cat([self.classifier.features(x) for x in images.split(1000)])
        return features.cpu(), self.classifier.linear(features).log_softmax(1).cpu()

    @cached_property
    def train_features(self):
        return self.look(scale(self.images))[0]

    @staticmethod
    def compare(seen, real):
        """How images resemble real ones; both as look() returns them."""
        (features, log_p), (real_features, _) = seen, real
        return {"frechet_distance": frechet_distance(features, real_features).item(),
                "inception_score": inception_score(log_p).item(),
                "precision": manifold_share(real_features, features).item(),
                "recall": manifold_share(features, real_features).item()}


class GAN:
    """Both networks and their training. Building one reads no data; the weights are those of seed 2, D before G."""

    shown = ("loss_d", "loss_g", "d_real", "d_fake")  # what the progress bar shows of an epoch's row

    def __init__(self, zdim=64, seed=2, dev="cpu", data_dir=None, limit=None, folder=None, edition="cs446"):
        torch.manual_seed(seed)
        self.edition = argparse.Namespace(**EDITIONS[edition])
        make_disc, make_gen = NETWORKS[self.edition.networks]
        self._dev = torch.device(dev)
        self._zdim = zdim
        self.disc = make_disc().to(self._dev, memory_format=torch.channels_last)
        self.gen = make_gen(zdim).to(self._dev, memory_format=torch.channels_last)
        self.seed, self.data_dir, self.limit = seed, data_dir, limit
        self.folder = Path(folder or Path(__file__).resolve().parent / "outputs" / "gan")  # for figures
        self.fixed_z = self.noise(self.edition.grid**2, torch.Generator().manual_seed(seed))  # so that grids compare
        self.evaluator = None  # without one, training is the homework's alone
        self.prepare()

    def prepare(self, iter_d=1, iter_g=1, n_epochs=100, batch_size=256, lr=0.0002):
        """Set up a training from its first step, with the weights as they are; train() says what the settings mean."""
        self.iter_d, self.iter_g, self.epochs, self.batch_size = iter_d, iter_g, n_epochs, batch_size
        adam = partial(torch.optim.Adam, lr=lr, betas=(self.edition.beta1, 0.999), fused=self._dev.type != "mps")
        self.optim_d, self.optim_g = adam(self.disc.parameters()), adam(self.gen.parameters())
        self.parts = {"disc": self.disc, "gen": self.gen, "optim_d": self.optim_d, "optim_g": self.optim_g}
        self.generators = {"shuffle": torch.Generator().manual_seed(self.seed),
                           "z": torch.Generator(self._dev).manual_seed(self.seed)}
        self.progress = {"epoch": 0, "step": 0, "order": None, "totals": [0.0] * 4, "history": [], "frames": [], "best": None}

    def noise(self, count, generator):
        """z [count,zdim] on this device, from a generator on this device or the CPU."""
        return sample_z(count, self._zdim, generator, generator.device, self.edition.noise).to(self._dev)

    # ---- data

    @cached_property
    def data(self):
        """(train images, train digits, test images, test digits): images uint8 [N,1,28,28], digits [N]."""
        arrays = utils.mnist(self.data_dir) if self.data_dir else utils.mnist()
        images, digits, test_images, test_digits = (torch.as_tensor(array).to(self._dev) for array in arrays)
        return (images[: self.limit].unsqueeze(1), digits[: self.limit].long(), test_images.unsqueeze(1), test_digits.long())

    @property
    def train_images(self):
        """uint8 [N,1,28,28]; a batch of them becomes float in [0,1] when it is used."""
        return self.data[0]

    train_data = train_images

    @property
    def steps(self):
        """Whole minibatches of an epoch; the rest of the images, another each time, is left out."""
        if self.batch_size > len(self.train_images):
            raise Fault(f"batch_size {self.batch_size}: more than the {len(self.train_images)} training images; use a smaller one")
        if self.batch_size == 1 and self.edition.networks == "dense":
            raise Fault("batch_size 1: batch normalisation needs at least two images; use 2 or more")
        return len(self.train_images) // self.batch_size

    def as_trained(self, images):
        """uint8 images [B,1,28,28] in the edition's range of values, [darkest, 1]."""
        images = scale(images)
        return images if self.edition.darkest == 0 else 2 * images - 1

    def in_unit(self, images):
        """Images in the edition's range of values as images in [0,1]."""
        return images if self.edition.darkest == 0 else (images + 1) / 2

    @property
    def sample_epochs(self):
        """The epochs after which a grid of samples is drawn; 0 is before the first."""
        if self.edition.samples == "start, half, end":
            return {0, self.epochs // 2, self.epochs}
        return {*range(10, self.epochs, 10), self.epochs}

    # ---- training

    def _get_loss_d(self, batch_size, batch_data, z):
        """The discriminator's loss, a scalar; batch_data [B,1,28,28] real images in [darkest,1], z [B,zdim]. G gets no gradient."""
        check_unit("batch_data", self.in_unit(batch_data), 1, 28, 28)
        fake = self.gen(z).detach()
        return discriminator_loss(self.disc(batch_data), self.disc(fake))

    def _get_loss_g(self, batch_size, z):
        """The generator's loss, a scalar; z [B,zdim]."""
        return generator_loss(self.disc(self.gen(z)))

    def step(self, real, z):
        """Update D iter_d and G iter_g times; returns both last losses and the means of D(x) and D(G(z)) that D learned from."""
        fake = self.gen(z)  # drawn once, for both players
        if self.edition.first == "G":
            loss_g = self.step_g(fake, z)
        loss_d, real_logits, fake_logits = self.step_d(real, fake.detach())
        if self.edition.first == "D":
            loss_g = self.step_g(fake, z)
        return torch.stack([loss_d, loss_g, real_logits.sigmoid().mean(), fake_logits.sigmoid().mean()]).tolist()

    def step_d(self, real, fake):
        """D: maximise log D(x) + log(1 - D(G(z)))."""
        for _ in range(self.iter_d):
            real_logits, fake_logits = self.disc(real), self.disc(fake)
            loss_d = discriminator_loss(real_logits, fake_logits)
            self.optim_d.zero_grad()
            loss_d.backward()
            self.optim_d.step()
        return loss_d, real_logits, fake_logits

    def step_g(self, fake, z):
        """G: maximise log D(G(z)); fake = G(z), which only G's own updates change."""
        for again in range(self.iter_g):
            loss_g = generator_loss(self.disc(self.gen(z) if again else fake))
            self.optim_g.zero_grad()
            loss_g.backward(inputs=list(self.gen.parameters()))  # D needs none
            self.optim_g.step()
        return loss_g

    def fit(self):
        """Train as prepared; yields None after each step, a row of the history after each epoch, and {} while it gets ready."""
        images, steps, progress = self.train_images, self.steps, self.progress
        if self.evaluator:
            for _ in self.evaluator.prepare():
                yield {}
        if progress["epoch"] == progress["step"] == 0:
            self.visualize_goal()
            if 0 in self.sample_epochs:
                self.visualize_samples()
        while progress["epoch"] < self.epochs:
            start = time.perf_counter()
            if progress["step"] == 0:
                order = torch.randperm(len(images), generator=self.generators["shuffle"])
                progress.update(order=order, totals=[0.0] * 4)

            for indices in progress["order"].split(self.batch_size)[progress["step"] : steps]:
                real = self.as_trained(images[indices])
                values = self.step(real, self.noise(len(real), self.generators["z"]))
                if not torch.tensor(values).isfinite().all():
                    raise FloatingPointError(f"epoch {progress['epoch'] + 1}, step {progress['step'] + 1}: loss of D "
                                             f"{values[0]:.4g}, of G {values[1]:.4g}; try a smaller --lr")
                progress["totals"] = [total + value for total, value in zip(progress["totals"], values)]
                progress["step"] += 1
                yield None

            means = [total / steps for total in progress["totals"]]
            row = {"epoch": progress["epoch"] + 1, **dict(zip(self.shown, means)), **self.keep_best(),
                   "seconds": time.perf_counter() - start}
            progress["history"].append(row)
            progress.update(epoch=progress["epoch"] + 1, step=0, order=None)
            progress["frames"].append(torch.from_numpy(self.sample_grid() * 255).to(torch.uint8))
            if progress["epoch"] in self.sample_epochs:
                self.visualize_samples()
            yield row

    def train(self, iter_d=1, iter_g=1, n_epochs=100, batch_size=256, lr=0.0002):
        """Train with Adam on all images, shuffled, in minibatches, a line per epoch.

        Each minibatch makes iter_d updates of D, then iter_g of G, all with the same z. Writes goal.png and, every 10
        epochs and at the end, samples from the same noise to self.folder.
        """
        self.prepare(iter_d, iter_g, n_epochs, batch_size, lr)
        for row in self.fit():
            if row:
                print(f"epoch {row['epoch']}: " + ", ".join(f"{name} {row[name]:.4f}" for name in self.shown))
        return self

    # ---- evaluation: changes nothing of the training

    @torch.no_grad()
    def generate(self, z, gen=None):
        """Images [B,1,28,28] in [0,1] that G, or another generator, makes of z, in evaluation mode, with the mode restored."""
        gen = gen or self.gen
        training = gen.training
        gen.eval()
        images = torch.cat([gen(part) for part in z.split(1000)])
        gen.train(training)
        return self.in_unit(images)

    def sample(self, count, offset, gen=None):
        """`count` generated images [N,1,28,28] in [0,1], from noise that is the same at every call with the same offset."""
        return self.generate(self.noise(count, torch.Generator().manual_seed(self.seed + offset)), gen)

    def keep_best(self):
        """The Frechet distance of samples to the training images; keeps in best.pt the generator for which it is smallest."""
        if not self.evaluator:
            return {}
        samples = self.sample(min(5000, len(self.train_images)), offset=1)
        if not samples.isfinite().all():
            raise FloatingPointError(f"epoch {self.progress['epoch'] + 1}: samples of G are not finite; try a smaller --lr")
        distance = frechet_distance(self.evaluator.look(samples)[0], self.evaluator.train_features).item()
        best = self.progress["best"]
        if not best or distance < best["frechet_train"]:
            weights = {name: value.clone() for name, value in self.gen.state_dict().items()}
            self.progress["best"] = {"epoch": self.progress["epoch"] + 1, "frechet_train": distance, "gen": weights}
            save_tensors(self.progress["best"], self.folder / "best.pt")
        return {"frechet_train": distance}

    def measure(self):
        """The last epoch's means: losses in nats, and D's mean probability of "real" for real and for generated images.

        With an evaluator also how samples of the best generator, as many as there are test images, resemble these; in
        `..._real` how one half of the test images resembles the other, which is a little worse than it would be of whole
        sets. Draws quality.png.
        """
        metrics = {name: self.progress["history"][-1][name] for name in self.shown} if self.progress["history"] else {}
        if not self.evaluator:
            return metrics
        evaluator = self.evaluator
        for _ in evaluator.prepare():
            pass
        images, _, test_images, test_digits = self.data
        images, test_images = scale(images), scale(test_images)
        gen, best = copy.deepcopy(self.gen), self.progress["best"]
        if best:
            gen.load_state_dict(best["gen"])
            metrics["best_epoch"] = best["epoch"]
        samples, last_samples = (self.sample(len(test_images), 2, each) for each in (gen, self.gen))  # not what chose the epoch
        seen, last, real = map(evaluator.look, (samples, last_samples, test_images))
        # Halves at random, for the second half of MNIST's test images is easier than the first
        order = torch.randperm(len(test_images), generator=torch.Generator().manual_seed(self.seed))
        half = max(1, len(order) // 2)
        first, second = ([part[chosen] for part in real] for chosen in (order[:half], order[-half:]))
        metrics |= evaluator.compare(seen, real)
        metrics |= {f"{name}_real": value for name, value in evaluator.compare(first, second).items()}
        metrics["frechet_distance_last"] = frechet_distance(last[0], real[0]).item()
        metrics["classifier_accuracy"] = (real[1].argmax(1) == test_digits.cpu()).float().mean().item()

        shares = [torch.bincount(log_p.argmax(1), minlength=10) / len(log_p) for _, log_p in (seen, real)]
        metrics |= {f"share_{digit}": share.item() for digit, share in enumerate(shares[0])}
        distances, neighbours = nearest_neighbours(samples, images)
        metrics["nearest_distance"] = distances.median().item()
        metrics["nearest_distance_real"] = nearest_neighbours(test_images, images)[0].median().item()
        self.visualize_quality(shares, samples, distances, images[neighbours])
        return metrics

    # ---- figures: each is saved in self.folder and returns what it drew

    def save(self, figure, name):
        self.folder.mkdir(parents=True, exist_ok=True)
        save_figure(figure, self.folder / name)

    def sample_grid(self):
        """8x8 grid [245,245], or the edition's, of images generated from the fixed noise, in [0,1]."""
        return tile(self.generate(self.fixed_z), self.edition.grid, self.edition.grid)

    def visualize_goal(self):
        """A grid like that of training images: what the samples should look like."""
        grid = tile(scale(self.train_images[: len(self.fixed_z)]), self.edition.grid, self.edition.grid)
        self.save(draw_grid(grid, "training images"), "goal.png")
        return grid

    def visualize_samples(self):
        """The grid of samples from the fixed noise at this epoch."""
        grid, epoch = self.sample_grid(), self.progress["epoch"]
        self.save(draw_grid(grid, f"samples, epoch {epoch}"), f"samples_epoch_{epoch}.png")
        return grid

    def visualize_history(self):
        """Losses, and D's mean probabilities, over the epochs."""
        history = self.progress["history"]
        figure = new_figure(10, 4)
        left, right = figure.subplots(1, 2)
        epochs = [row["epoch"] for row in history]
        for axes, names in ((left, self.shown[:2]), (right, self.shown[2:])):
            for name in names:
                axes.plot(epochs, [row[name] for row in history], label=LABELS[name])
            axes.set_xlabel("epoch")
            axes.grid(alpha=0.3)
            axes.legend()
        left.set(ylabel="nats", title="Losses, mean over the epoch")
        right.set(ylabel="probability of \"real\"", title="D's opinion, mean over the epoch", ylim=(0, 1))
        self.save(figure, "losses.png")
        return history

    def visualize_quality(self, shares, samples, distances, neighbours):
        """Shares [10] of the digits among samples and real images; ten samples, and ten nearest ones, above their neighbours."""
        nearest = distances.argsort()[:10]
        rows = [samples[:10], neighbours[:10], samples[nearest], neighbours[nearest]]
        grid = tile(torch.stack([image for column in zip(*rows) for image in column]), 4, len(rows[0]))
        figure = new_figure(11, 4)
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        for share, label, side in zip(shares, ("samples", "test images"), (-0.2, 0.2)):
            left.bar(np.arange(10) + side, share.numpy(), width=0.4, label=label)
        left.set(xlabel="digit that the classifier sees", ylabel="share", title="Shares of the digits", xticks=range(10))
        left.legend()
        right.imshow(grid, cmap="gray", vmin=0, vmax=1)
        right.set_title("Samples above their nearest training images: the first ten, the ten nearest")
        right.axis("off")
        self.save(figure, "quality.png")
        return grid

    def visualize_interpolation(self):
        """1x9 grid [28,276]: two generated digits, of different classes if there is an evaluator, and seven between their z."""
        z, other = self.fixed_z, 1
        if self.evaluator:
            classes = self.evaluator.look(self.generate(z))[1].argmax(1)
            other = (classes != classes[0]).int().argmax().item() or other  # 1 where all are alike
        steps = torch.linspace(0, 1, 9, device=self._dev)[:, None]
        grid = tile(self.generate((1 - steps) * z[0] + steps * z[other]), 1, 9)
        self.save(draw_grid(grid, "G(z) on the line between two z"), "interpolation.png")
        return grid

    def visualize(self):
        """All figures of the edition but the samples, which fit() draws at their epochs."""
        for name in self.edition.figures:
            getattr(self, f"visualize_{name}")()
        if self.progress["frames"] and hasattr(utils, "save_gif"):
            utils.save_gif(self.progress["frames"], self.folder / "training.gif")


# -------------------------------------------------------------------------------------------------- figures

LABELS = {"loss_d": "loss of D", "loss_g": "loss of G", "d_real": "real images, D(x)", "d_fake": "generated images, D(G(z))"}


def tile(images, rows, columns):
    """Up to rows*columns images [N,1,28,28] as a numpy grid, column by column."""
    blank = torch.zeros(rows * columns - len(images), 1, 28, 28)
    return utils.concat_images([utils.array_to_image(image) for image in torch.cat([images.cpu(), blank])], rows, columns)


def new_figure(width, height):
    from matplotlib.figure import Figure  # here: importing it with the module would slow down every start

    return Figure(figsize=(width, height), layout="constrained")


def draw_grid(grid, title):
    """A matplotlib Figure of a grid of images in [0,1]."""
    height, width = grid.shape
    figure = new_figure(6, 6 * height / width + 0.4)  # room for the title
    axes = figure.subplots()
    axes.imshow(grid, cmap="gray", vmin=0, vmax=1)
    axes.set_title(title)
    axes.axis("off")
    return figure


# --------------------------------------------------------------------------------------------- command line


def parse_args(argv=None):
    """The settings as a Namespace; exits with code 2 and one line where a value is out of range."""
    parser = argparse.ArgumentParser("hw5_gan.py", description="Train a generative adversarial network on MNIST.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flag = parser.add_argument
    flag("--edition", choices=EDITIONS, help="which course's homework")
    flag("--epochs", "--n_epochs", dest="n_epochs", type=int, metavar="1..100000", help="passes over the images")
    flag("--iter_d", type=int, metavar="1..100", help="updates of D per minibatch")
    flag("--iter_g", type=int, metavar="1..100", help="updates of G per minibatch")
    flag("--batch_size", type=int, metavar="1..60000", help="images per step")
    flag("--lr", type=float, metavar="1e-7..1", help="Adam's learning rate for both networks")
    flag("--zdim", type=int, metavar="1..10000", help="length of z")
    flag("--seed", type=int, metavar="0..4294967295", help="of all random numbers")
    flag("--resume_training", "--resume", action="store_true", help="continue the run in the output folder")
    parser.set_defaults(**DEFAULTS)
    set_edition(parser, argv, EDITIONS, DEFAULTS["edition"])
    return parse_run_args(parser, argv)


def build(args, folder=None):
    gan = GAN(args.zdim, args.seed, args.device, args.data_dir, args.limit, folder, args.edition)
    gan.prepare(args.iter_d, args.iter_g, args.n_epochs, args.batch_size, args.lr)
    gan.evaluator = Evaluator(*gan.data[:2], gan.folder / "classifier.pt")
    return gan


def main(argv=None):
    """Train, draw and measure as the flags say. Returns the exit code: 0, 1 for a diverged run, 2 for bad input."""
    args = parse_args(argv)
    if hasattr(utils, "run"):
        return utils.run(args, build)
    if args.edition != DEFAULTS["edition"] or args.resume_training:
        print("hw5_gan.py: --edition and --resume need this project's own hw5_utils.py beside it", file=sys.stderr)
        return 2
    try:
        gan = GAN(args.zdim, args.seed)
        gan.train(args.iter_d, args.iter_g, args.n_epochs, args.batch_size, args.lr)
        gan.visualize_history()
    except Fault as fault:
        print(f"hw5_gan.py: {fault}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
