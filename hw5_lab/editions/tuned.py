"""The homework's GAN, trained for better samples: its networks and losses stay.

Minibatches are smaller and rates larger, with more for D, and fall along a cosine. Samples come from an average of the
generator's weights over the last steps, for the weights themselves swing around it.
"""

import copy
import math

from hw5_lab.gan import LabGAN
from hw5_lab.model import update_average

DECAY = 0.9995  # share of the average that a step keeps: about two epochs


class GAN(LabGAN):
    edition = "cs446-tuned"
    settings = dict(zdim=64, n_epochs=50, batch_size=64, lr=0.001)

    def __init__(self, args):
        super().__init__(args)
        self.average = copy.deepcopy(self.gen).requires_grad_(False)
        self.parts["average"] = self.average

    @property
    def sampler(self):
        return self.average

    def train_epoch(self, epoch, tick=lambda: None):
        self.done = epoch * self.steps
        return super().train_epoch(epoch, tick)

    def step(self, real, z):
        """The homework's step at the rates of this moment, then the average."""
        share = (1 + math.cos(math.pi * self.done / (self.epochs * self.steps))) / 2
        self.optim_d.param_groups[0]["lr"] = share * self.args.lr
        self.optim_g.param_groups[0]["lr"] = share * self.args.lr / 2  # D has to keep up with G
        values = super().step(real, z)
        self.done += 1
        update_average(self.average, self.gen, DECAY, self.done)
        return values
