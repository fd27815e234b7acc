"""A student changes the script, and the laboratory runs what is there: to the end, with all results.

Each edit is a class in the place of the script's, and a whole run through main(): the exit code is 0, metrics.json is
written, all numbers are finite, and the model is measured again from its checkpoint with the same results.
"""

import csv
import json
import math

import numpy as np
import pytest
import torch
from helpers import small
from plain import without_drawing
from torch import nn

import hw5_diffusion
import hw5_gan
import hw5_vae
from hw5_lab.page import explore

SCRIPTS = {"hw5_vae": hw5_vae, "hw5_gan": hw5_gan, "hw5_diffusion": hw5_diffusion}

# ---- VAE


class ReluEncoder(hw5_vae.Encoder):
    def forward(self, x):
        h = torch.relu(self.fc1(x))
        return self.fc2_mu(h), torch.exp(self.fc2_sigma(h))


class ReluDecoder(hw5_vae.Decoder):
    def logits(self, z):
        return self.fc2(torch.relu(self.fc1(z)))


class WideDecoder(hw5_vae.Decoder):
    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super().__init__(latent_dimension, 3 * hidden_units, data_dimension)


class DeepEncoder(hw5_vae.Encoder):
    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super().__init__(latent_dimension, hidden_units, data_dimension)
        self.fc3 = nn.Linear(hidden_units, hidden_units)

    def forward(self, x):
        h = torch.tanh(self.fc3(torch.tanh(self.fc1(x))))
        return self.fc2_mu(h), torch.exp(self.fc2_sigma(h))


class DeepDecoder(hw5_vae.Decoder):
    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super().__init__(latent_dimension, hidden_units, data_dimension)
        self.fc3 = nn.Linear(hidden_units, hidden_units)

    def logits(self, z):
        return self.fc2(torch.tanh(self.fc3(torch.tanh(self.fc1(z)))))


class SequentialDecoder(nn.Sequential):
    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super().__init__(
            nn.Linear(latent_dimension, hidden_units),
            nn.Tanh(),
            nn.Linear(hidden_units, data_dimension),
            nn.Sigmoid(),
        )

    def logits(self, z):
        for layer in list(self)[:3]:
            z = layer(z)
        return z


class DropoutEncoder(hw5_vae.Encoder):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x):
        return super().forward(self.dropout(x))


class NormalisedDecoder(hw5_vae.Decoder):
    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super().__init__(latent_dimension, hidden_units, data_dimension)
        self.norm = nn.BatchNorm1d(hidden_units)

    def logits(self, z):
        return self.fc2(torch.tanh(self.norm(self.fc1(z))))


class ConvolutionalEncoder(nn.Module):
    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 5, stride=3)
        self.linear = nn.Linear(4 * 8 * 8, 2 * latent_dimension)

    def forward(self, x):
        mu, logvar = self.linear(torch.relu(self.conv(x.view(-1, 1, 28, 28))).flatten(1)).chunk(2, 1)
        return mu, logvar.exp()


class SgdVAE(hw5_vae.VAE):
    def __init__(self, args):
        super().__init__(args)
        self.optimizer = torch.optim.SGD(self.parameters(), lr=self.args.lr, momentum=0.9)


class ScheduledVAE(hw5_vae.VAE):
    def __init__(self, args):
        super().__init__(args)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)

    def epochs(self, first=0):
        for row in super().epochs(first):
            self.scheduler.step()
            yield row


class ShiftedVAE(hw5_vae.VAE):
    """With a weight of its own, in neither network."""

    def __init__(self, args):
        super().__init__(args)
        self.shift = nn.Parameter(torch.zeros(self.args.latent_dimension))
        self.optimizer = torch.optim.Adam(self.parameters(), lr=0.1)

    def terms(self, x, generator):
        mu, sigma_square = self.encoder(x)
        z = hw5_vae.sample_diagonal_gaussian(mu, sigma_square, generator)
        return hw5_vae.elbo_terms(z, mu, sigma_square, x, self.decoder.logits(z + self.shift))


class PlainDecoder(nn.Module):
    """Of probabilities only, as the homework asks for it."""

    def __init__(self, latent_dimension, hidden_units, data_dimension):
        super().__init__()
        self.fc1 = nn.Linear(latent_dimension, hidden_units)
        self.fc2 = nn.Linear(hidden_units, data_dimension)

    def forward(self, z):
        return torch.sigmoid(self.fc2(torch.tanh(self.fc1(z))))


class PlainVAE(hw5_vae.VAE):
    """It trains on the graded densities, with an optimizer for each network."""

    Decoder = PlainDecoder

    def __init__(self, args):
        super().__init__(args)
        networks = {"encoder": self.encoder, "decoder": self.decoder}
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=self.args.lr) for name, network in networks.items()
        }
        del self.optimizer

    def terms(self, x, generator):
        mu, sigma_square = self.encoder(x)
        z = hw5_vae.sample_diagonal_gaussian(mu, sigma_square, generator)
        return hw5_vae.logpdf_bernoulli(x, self.decoder(z)), hw5_vae.kl_estimate(z, mu, sigma_square)

    def step(self, x):
        log_p_x, kl = self.terms(x, self.noise_rng)
        self.zero_grad()
        (kl - log_p_x).mean().backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        return log_p_x.detach(), kl.detach()

    def epochs(self, first=0):
        for epoch in range(first, self.args.num_epoches):
            log_p_x, kl = map(torch.cat, zip(*map(self.step, self.train_images.split(self.args.batch_size))))
            row = {"epoch": epoch + 1, "train_elbo": (log_p_x - kl).mean(), "train_reconstruction": log_p_x.mean()}
            yield {**row, "train_kl": kl.mean()}


class TalkativeVAE(hw5_vae.VAE):
    """With another optimizer, whose state is not like the weights, and a number more in each row, of numpy."""

    def __init__(self, args):
        super().__init__(args)
        if hasattr(torch.optim, "Adafactor"):  # since PyTorch 2.5
            self.optimizer = torch.optim.Adafactor(self.parameters(), lr=self.args.lr)

    def epochs(self, first=0):
        for row in super().epochs(first):
            yield {**row, "norm": np.float32(sum(weight.norm().item() for weight in self.parameters()))}


VAES = {
    "Adafactor and a number": TalkativeVAE,
    "ReLU for tanh": {"Encoder": ReluEncoder, "Decoder": ReluDecoder},
    "a wider decoder": {"Decoder": WideDecoder},
    "one more layer": {"Encoder": DeepEncoder, "Decoder": DeepDecoder},
    "a Sequential": {"Decoder": SequentialDecoder},
    "dropout": {"Encoder": DropoutEncoder},
    "batch normalisation": {"Decoder": NormalisedDecoder},
    "a convolution": {"Encoder": ConvolutionalEncoder},
    "SGD": SgdVAE,
    "a scheduler": ScheduledVAE,
    "a weight of its own": ShiftedVAE,
    "probabilities, and two optimizers": PlainVAE,
}

# ---- GAN


class DropoutD(hw5_gan.DNet):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.dropout(self.pool2(self.relu2(self.conv2(x))))
        return self.linear(self.dropout(self.relu3(self.conv3(x))).flatten(1))


class DropoutG(hw5_gan.GNet):
    """Dropout between upsampling and convolution, in place."""

    def __init__(self, zdim):
        super().__init__(zdim)
        self.dropout = nn.Dropout(0.3, inplace=True)

    def forward(self, z):
        x = self.lrelu1(self.linear(z)).reshape(-1, 32, 7, 7)
        x = self.lrelu2(self.conv1(self.dropout(self.upsample1(x))))
        x = self.lrelu3(self.conv2(self.upsample2(x)))
        return self.sigmoid(self.conv3(x))


class NormalisedD(hw5_gan.DNet):
    """The layers are there when the weights are initialised."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self._weight_init()

    def forward(self, x):
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.norm(self.conv2(x))))
        return self.linear(self.relu3(self.conv3(x)).flatten(1))


class NormalisedG(hw5_gan.GNet):
    def __init__(self, zdim):
        super().__init__(zdim)
        self.norm1 = nn.BatchNorm2d(16)
        self.norm2 = nn.BatchNorm2d(8)
        self._weight_init()

    def forward(self, z):
        x = self.lrelu1(self.linear(z)).reshape(-1, 32, 7, 7)
        x = self.lrelu2(self.norm1(self.conv1(self.upsample1(x))))
        x = self.lrelu3(self.norm2(self.conv2(self.upsample2(x))))
        return self.sigmoid(self.conv3(x))


class LargeKernelD(hw5_gan.DNet):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, kernel_size=5, padding=2)


class LargeKernelG(hw5_gan.GNet):
    def __init__(self, zdim):
        super().__init__(zdim)
        self.conv1 = nn.Conv2d(32, 16, kernel_size=5, padding=2)
        self.conv3 = nn.Conv2d(8, 1, kernel_size=5, padding=2, bias=False)
        self._weight_init()


class DeepG(hw5_gan.GNet):
    def __init__(self, zdim):
        super().__init__(zdim)
        self.conv4 = nn.Conv2d(8, 8, kernel_size=3, padding=1)

    def forward(self, z):
        x = self.lrelu1(self.linear(z)).reshape(-1, 32, 7, 7)
        x = self.lrelu2(self.conv1(self.upsample1(x)))
        x = self.lrelu3(self.conv2(self.upsample2(x)))
        return self.sigmoid(self.conv3(torch.relu(self.conv4(x))))


class SequentialG(nn.Sequential):
    def __init__(self, zdim):
        super().__init__(
            nn.Linear(zdim, 1568),
            nn.ReLU(),
            nn.Unflatten(1, (32, 7, 7)),
            nn.Upsample(scale_factor=4),
            nn.Conv2d(32, 1, 3, padding=1),
            nn.Sigmoid(),
        )


class SgdGAN(hw5_gan.GAN):
    def set_up(self, *settings, **more):
        super().set_up(*settings, **more)
        self.optim_d = torch.optim.SGD(self.disc.parameters(), lr=self.lr)
        self.optim_g = torch.optim.SGD(self.gen.parameters(), lr=self.lr, momentum=0.5)


class ScheduledGAN(hw5_gan.GAN):
    def set_up(self, *settings, **more):
        super().set_up(*settings, **more)
        optimizers = self.optim_d, self.optim_g
        self.schedulers = [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5) for optimizer in optimizers]

    def epochs(self, first=0):
        for row in super().epochs(first):
            for scheduler in self.schedulers:
                scheduler.step()
            yield row


GANS = {
    "dropout": {"DNet": DropoutD, "GNet": DropoutG},
    "batch normalisation": {"DNet": NormalisedD, "GNet": NormalisedG},
    "a 5x5 kernel": {"DNet": LargeKernelD, "GNet": LargeKernelG},
    "one more layer": {"GNet": DeepG},
    "a Sequential": {"GNet": SequentialG},
    "SGD": SgdGAN,
    "schedulers": ScheduledGAN,
}

# ---- score matching


class SmoothNetwork(hw5_diffusion.DiffusionModel):
    """Narrower, with SiLU and dropout."""

    def __init__(self):
        super().__init__()
        self.fc2, self.fc3 = nn.Linear(200, 30), nn.Linear(30, 200)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x, sigma):
        h = nn.functional.silu(self.fc1(self.features(x)))
        h = nn.functional.silu(self.fc3(self.dropout(nn.functional.silu(self.fc2(h)))))
        return self.fc4(h) / hw5_diffusion.column(sigma, x)


class SgdScoreMatching(hw5_diffusion.ScoreMatching):
    def make_optimizers(self):
        return [torch.optim.SGD(self.network.parameters(), lr=self.args.lr)]


DIFFUSIONS = {"another network": {"Network": SmoothNetwork}, "SGD": SgdScoreMatching}

# ---- runs

EDITS = {"hw5_vae": VAES, "hw5_gan": GANS, "hw5_diffusion": DIFFUSIONS}
OWNERS = {"hw5_vae": "VAE", "hw5_gan": "GAN", "hw5_diffusion": "ScoreMatching"}


@pytest.fixture
def shown(monkeypatch):
    """What the page of each run shows: its model, or the reason why it cannot. Figures are not drawn."""
    without_drawing(monkeypatch)
    found, description = [], explore.description
    monkeypatch.setattr(explore, "description", lambda *args: found.append(description(*args)) or found[-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "script, name",
    [(script, name) for script, edits in EDITS.items() for name in edits],
)
def test_an_edited_script_runs_to_its_end(script, name, monkeypatch, tmp_path, shown, coarse_integral):
    module, edit, owner = SCRIPTS[script], EDITS[script][name], OWNERS[script]
    edited = edit if isinstance(edit, type) else type(owner, (getattr(module, owner),), edit)
    monkeypatch.setattr(module, owner, edited)
    more = ["--latent_dimension", 2] if script == "hw5_vae" else []  # so that all is measured
    if script == "hw5_diffusion":
        grid = edited.grid
        monkeypatch.setattr(edited, "grid", lambda self, columns: grid(self, 10))  # measuring takes long
    folder = tmp_path / "run"
    assert module.main(small(script, folder, *more)) == 0
    metrics = json.loads((folder / "metrics.json").read_text())
    numbers = {key: value for key, value in metrics.items() if isinstance(value, float) and key != "seconds"}
    assert len(numbers) >= 10 and all(map(math.isfinite, numbers.values()))
    if script == "hw5_vae":  # to draw figures and the page changes no model
        *_, last = csv.DictReader((folder / "history.csv").read_text().splitlines())
        assert metrics["test_elbo"] == pytest.approx(float(last["test_elbo"]), rel=1e-6)
    assert module.main([*small(script, folder, *more), "--evaluate"]) == 0
    again = json.loads((folder / "metrics.json").read_text())
    assert {key: again[key] for key in numbers} == pytest.approx(numbers, rel=1e-6), "a part is not in the checkpoint"
    assert shown and (folder / "explore.html").exists()
    assert all(each["model"] for each in shown), f"the page shows no model: {shown[0].get('reason')}"


@pytest.mark.slow
@pytest.mark.parametrize("edits", [{"GNet": NormalisedG}, {"DNet": DropoutD}], ids=["statistics", "dropout"])
def test_an_edited_run_goes_on_exactly(edits, monkeypatch, tmp_path, shown):
    """With schedulers: one epoch and a second one are two epochs. Dropout draws from PyTorch's global generator."""
    monkeypatch.setattr(hw5_gan, "GAN", type("GAN", (ScheduledGAN,), edits))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert hw5_gan.main(small("hw5_gan", whole)) == 0

    def stop(self, epoch):
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hw5_gan.GAN, "draw_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            hw5_gan.main(small("hw5_gan", broken))
    torch.rand(3)  # of another process there is nothing left
    assert hw5_gan.main([*small("hw5_gan", broken), "--resume"]) == 0
    states = [torch.load(folder / "checkpoint.pt", weights_only=True)["parts"] for folder in (whole, broken)]
    assert {"schedulers_0", "schedulers_1"} <= states[0].keys() and states[0].keys() == states[1].keys()
    for network in ("disc", "gen"):
        for name, value in states[0][network].items():
            torch.testing.assert_close(states[1][network][name], value, msg=f"{network}.{name}")
    assert states[0]["schedulers_0"]["last_epoch"] == states[1]["schedulers_0"]["last_epoch"] == 2
