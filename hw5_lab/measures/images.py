"""How good generated images are: compared with real ones in the features of a digit classifier."""

import copy
import math
from contextlib import suppress
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import nn

from hw5_lab.runs.checkpoint import checksum
from hw5_lab.runs.folder import load_tensors, save_tensors
from hw5_utils import Fault

# --------------------------------------------------------------------------------------------------- measures


def frechet_distance(a, b):
    """Squared Frechet distance between the Gaussians fitted to features a [N,D] and b [M,D] (Dowson and Landau 1982).

    |mean(a) - mean(b)|^2 + tr(A + B - 2 (A B)^(1/2)) with the covariances A and B: 0 for equal sets.
    """
    a, b = (torch.as_tensor(features, dtype=torch.float64) for features in (a, b))
    cov_a, cov_b = torch.cov(a.T, correction=0), torch.cov(b.T, correction=0)
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # A B and root_a B root_a have the same eigenvalues, and the latter is symmetric
    trace_of_root = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + cov_a.trace() + cov_b.trace() - 2 * trace_of_root


def inception_score(log_p):
    """exp E[KL(p(y|x) || p(y))] for log p(y|x) [N,C] (Salimans et al. 2016).

    From 1 to C: it is C where every image is clear and all classes occur alike.
    """
    log_p_y = log_p.logsumexp(0) - math.log(len(log_p))
    return (log_p.exp() * (log_p - log_p_y)).sum(1).mean().exp()


def manifold_share(points, others, k=3):
    """Share of `others` [M,D] inside the k-nearest-neighbour ball of at least one of `points` [N,D].

    Of generated among real points this is the precision, of real among generated ones the recall (Kynkaanniemi 2019).
    """
    k = min(k, len(points) - 1)
    radius = torch.cat(
        [
            torch.cdist(block, points).kthvalue(k + 1).values  # the nearest is the point itself
            for block in points.split(1000)
        ]
    )
    inside = [(torch.cdist(block, points) <= radius).any(1) for block in others.split(1000)]
    return torch.cat(inside).float().mean()


def nearest_neighbours(images, others):
    """Euclidean distance over pixels of each of `images` [N,...] to the nearest of `others` [M,...], and its index."""
    found = [torch.cdist(block, others.flatten(1)).min(1) for block in images.flatten(1).split(500)]
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])


# ------------------------------------------------------------------------------------------------- classifier


class Classifier(nn.Module):
    """Images [B,1,28,28] in [0,1] -> 64 features, and logits [B,10] of the digits."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=5, stride=2, padding=2),
            nn.ReLU(),  # [B,16,14,14]
            nn.Conv2d(16, 32, kernel_size=5, stride=2, padding=2),
            nn.ReLU(),  # [B,32,7,7]
            nn.Flatten(),
            nn.Linear(1568, 64),
            nn.ReLU(),
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        return self.linear(self.features(x))


def in_unit(images):
    """uint8 images [N,1,28,28] as float in [0,1], with their channels last in memory."""
    return images.float().div_(255).contiguous(memory_format=torch.channels_last)


def as_channels(images):
    """A tensor [N,1,28,28] of images that may be numpy, and without a channel."""
    images = torch.as_tensor(images)
    return images.unsqueeze(1) if images.dim() == 3 else images


class Evaluator:
    """A classifier that is trained once on the real training images, and what it says of images.

    images uint8 [N,1,28,28] or [N,28,28], digits [N], numpy or tensors. The classifier is kept in the file `path`,
    where there is one, and read from there for the same images.
    """

    def __init__(self, images, digits, path=None, seed=0):
        images, digits = as_channels(images), torch.as_tensor(digits).long()
        if images.dtype != torch.uint8:
            raise ValueError(f"images are {images.dtype}; expected uint8, from 0 to 255")
        self.images, self.digits, self.path, self.seed, self.fitted = images, digits, path, seed, False
        with torch.random.fork_rng(devices=[]):  # the same classifier for every seed of the run
            torch.manual_seed(seed)
            self.classifier = Classifier().to(images.device, memory_format=torch.channels_last)

    def fit(self, epochs=3, batch_size=128, lr=3e-3):
        """Read the classifier, or train it with a rate that falls to 0. Returns the number of training steps."""
        if self.fitted:
            return 0
        self.fitted = True
        source = checksum([self.images, self.digits])
        # No file, a damaged one, one of other images or of another classifier: trained again
        with suppress(Fault, LookupError, TypeError, AttributeError, RuntimeError):
            kept = load_tensors(self.path or "")
            if kept["checksum"] == source and all(weight.isfinite().all() for weight in kept["classifier"].values()):
                classifier = copy.deepcopy(self.classifier)  # of a file that fits in part nothing is taken
                classifier.load_state_dict(kept["classifier"])
                self.classifier = classifier
                return 0
        optimizer = torch.optim.Adam(self.classifier.parameters(), lr=lr)
        generator, steps = torch.Generator().manual_seed(self.seed), epochs * math.ceil(len(self.images) / batch_size)
        orders = (torch.randperm(len(self.images), generator=generator) for _ in range(epochs))
        batches = (batch for order in orders for batch in order.split(batch_size))
        for step, indices in enumerate(batches):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
            loss = F.cross_entropy(self.classifier(in_unit(self.images[indices])), self.digits[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if self.path:
            save_tensors({"checksum": source, "classifier": self.classifier.state_dict()}, self.path)
        return steps

    @property
    def checksum(self):
        """Of the classifier's weights: distances of two runs can be compared where it is the same."""
        return f"{checksum(list(self.classifier.state_dict().values())):08x}"

    @torch.no_grad()
    def classify(self, images):
        """Features [N,64] and log p(digit) [N,10], on the CPU, of images [N,1,28,28] or [N,28,28] in [0,1] or uint8.

        ValueError for other values, or before fit().
        """
        if not self.fitted:
            raise ValueError("the classifier is not trained; call fit() first")
        images = as_channels(images)
        images = in_unit(images) if images.dtype == torch.uint8 else images.float()
        if not ((images >= 0) & (images <= 1)).all():
            raise ValueError(
                f"images have values from {images.min():.9g} to {images.max():.9g}; expected [0,1], or uint8"
            )
        features = torch.cat([self.classifier.features(x) for x in images.split(1000)])
        return features.cpu(), self.classifier.linear(features).log_softmax(1).cpu()

    @cached_property
    def train_features(self):
        return self.classify(in_unit(self.images))[0]


def resemblance(classified, real):
    """How images resemble real ones; both as Evaluator.classify() returns them."""
    (features, log_p), (real_features, _) = classified, real
    return {
        "frechet_distance": frechet_distance(features, real_features).item(),
        "inception_score": inception_score(log_p).item(),
        "precision": manifold_share(real_features, features).item(),
        "recall": manifold_share(features, real_features).item(),
    }
