"""A student's plain and right hw5_gan.py: the text that the mistakes of mistakes.py are edited into."""

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from tqdm import tqdm

from hw5_utils import BASE_URL, GANDataset, download


class DNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 3, 1, 1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(2, 4, 3, 1, 1)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2, 2)
        self.conv3 = nn.Conv2d(4, 8, 3, 1, 0)
        self.relu3 = nn.ReLU()
        self.fc = nn.Linear(200, 1)
        self._weight_init()

    def _weight_init(self):
        for layer in self.children():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x):
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.conv3(x))
        return self.fc(x.flatten(1))


class GNet(nn.Module):
    def __init__(self, zdim):
        super().__init__()
        self.fc = nn.Linear(zdim, 1568)
        self.leaky1 = nn.LeakyReLU(0.2)
        self.up1 = nn.Upsample(scale_factor=2)
        self.conv1 = nn.Conv2d(32, 16, 3, 1, 1)
        self.leaky2 = nn.LeakyReLU(0.2)
        self.up2 = nn.Upsample(scale_factor=2)
        self.conv2 = nn.Conv2d(16, 8, 3, 1, 1)
        self.leaky3 = nn.LeakyReLU(0.2)
        self.conv3 = nn.Conv2d(8, 1, 3, 1, 1)
        self.sigmoid = nn.Sigmoid()
        self._weight_init()

    def _weight_init(self):
        for layer in self.children():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, z):
        z = self.leaky1(self.fc(z))
        z = z.reshape(-1, 32, 7, 7)
        z = self.leaky2(self.conv1(self.up1(z)))
        z = self.leaky3(self.conv2(self.up2(z)))
        return self.sigmoid(self.conv3(z))


class GAN:
    def __init__(self, zdim=64):
        torch.manual_seed(2)
        self._dev = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._zdim = zdim
        self.disc = DNet().to(self._dev)
        self.gen = GNet(self._zdim).to(self._dev)

    def _get_loss_d(self, batch_size, batch_data, z):
        bce = nn.BCEWithLogitsLoss()
        real = self.disc(batch_data)
        fake = self.disc(self.gen(z).detach())
        real_loss = bce(real, torch.ones_like(real))
        fake_loss = bce(fake, torch.zeros_like(fake))
        return 0.5 * (real_loss + fake_loss)

    def _get_loss_g(self, batch_size, z):
        bce = nn.BCEWithLogitsLoss()
        fake = self.disc(self.gen(z))
        return bce(fake, torch.ones(batch_size, 1))

    def train(self, iter_d=1, iter_g=1, n_epochs=100, batch_size=256, lr=0.0002):
        name = "train-images-idx3-ubyte.gz"
        download(BASE_URL + name, name)
        data = GANDataset(f"./data/{name}", self._dev, transform=transforms.Normalize((0.0,), (255.0,)))
        loader = DataLoader(data, batch_size=batch_size, shuffle=True, drop_last=True)
        optim_d = torch.optim.Adam(self.disc.parameters(), lr=lr)
        optim_g = torch.optim.Adam(self.gen.parameters(), lr=lr)
        for _ in tqdm(range(n_epochs)):
            for x in loader:
                z = 2 * torch.rand(len(x), self._zdim, device=self._dev) - 1
                for optimizer, loss, repeats in ((optim_d, lambda: self._get_loss_d(len(x), x, z), iter_d),
                                                 (optim_g, lambda: self._get_loss_g(len(x), z), iter_g)):
                    for _ in range(repeats):
                        optimizer.zero_grad()
                        loss().backward()
                        optimizer.step()


if __name__ == "__main__":
    GAN().train()
