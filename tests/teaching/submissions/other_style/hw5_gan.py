"""A right hw5_gan.py in another style: a Sequential, shared and functional activations, modes switched."""

import matplotlib
import matplotlib.pyplot as plt
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.utils import save_image
from tqdm import tqdm
from HW5_utils import *


class DNet(nn.Module):
    def __init__(self):
        super(DNet, self).__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, 2, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2),
            nn.Conv2d(2, 4, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2),
            nn.Conv2d(4, 8, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(200, 1))
        self._weight_init()

    def _weight_init(self):
        for child in self.children():
            for m in child:
                if hasattr(m, "weight"):
                    torch.nn.init.kaiming_uniform_(m.weight, nonlinearity="relu")
                    m.bias.data.fill_(0.0)

    def forward(self, x):
        return self.main(x)


class GNet(nn.Module):
    def __init__(self, zdim):
        super(GNet, self).__init__()
        self.first = nn.Linear(zdim, 1568)
        self.up = nn.Upsample(scale_factor=2)
        self.c1 = nn.Conv2d(32, 16, 3, padding=1)
        self.c2 = nn.Conv2d(16, 8, 3, padding=1)
        self.c3 = nn.Conv2d(8, 1, 3, padding=1)
        self.act = nn.LeakyReLU(0.2)
        self._weight_init()

    def _weight_init(self):
        for m in self.children():
            if m == self.up or m == self.act:
                continue
            nn.init.kaiming_uniform_(m.weight)
            m.bias.data.zero_()

    def forward(self, z):
        out = self.act(self.first(z)).view(z.size(0), 32, 7, 7)
        out = F.leaky_relu(self.c1(self.up(out)), 0.2)
        out = F.leaky_relu(self.c2(F.interpolate(out, scale_factor=2)), negative_slope=0.2)
        return torch.sigmoid(self.c3(out))


class GAN:
    def __init__(self, zdim=64):
        torch.manual_seed(2)
        self._dev = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._zdim = zdim
        self.disc = DNet().to(self._dev)
        self.gen = GNet(self._zdim).to(self._dev)
        self.criterion = nn.BCEWithLogitsLoss(pos_weight=torch.ones([1]))

    def _get_loss_d(self, batch_size, batch_data, z):
        self.gen.eval()
        self.disc.train()
        logits = torch.cat((self.disc(batch_data), self.disc(self.gen(z))))
        labels = torch.cat((torch.ones(batch_size, 1), torch.zeros(batch_size, 1))).to(self._dev)
        return 2 * self.criterion(logits, labels)

    def _get_loss_g(self, batch_size, z):
        self.gen.train()
        self.disc.eval()
        fooled = self.disc(self.gen(z))
        return self.criterion(-fooled, torch.zeros(batch_size, 1)).squeeze()


if __name__ == "__main__":
    gan = GAN()
