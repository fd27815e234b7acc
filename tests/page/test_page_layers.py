"""A network becomes a list of steps that compute the same, however it is written; or the reason is said."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hw5_diffusion
import hw5_gan
import hw5_vae
from hw5_lab.editions import s24
from hw5_lab.page import layers
from hw5_lab.page.layers import CannotRun, describe, run

SEQUENTIAL = nn.Sequential(
    nn.Linear(4, 8),
    nn.ReLU(inplace=True),
    nn.Dropout(),
    nn.Unflatten(1, (2, 2, 2)),
    nn.BatchNorm2d(2),
    nn.ConvTranspose2d(2, 3, 3, 2, 1, output_padding=1),
    nn.SiLU(),
    nn.Conv2d(3, 2, 2, stride=2),
    nn.ELU(),
    nn.SELU(),
    nn.Upsample(scale_factor=2),
    nn.AvgPool2d(2),
    nn.Flatten(),
    nn.BatchNorm1d(8),
    nn.Softplus(),
    nn.Softplus(2, 1),
    nn.Hardtanh(0.1, 2),
    nn.Linear(8, 3, bias=False),
    nn.LeakyReLU(0.3),
)


class Heads(nn.Module):
    """A residual layer, and one layer for both heads: nothing of it is in the order of its modules."""

    def __init__(self):
        super().__init__()
        self.last, self.first, self.unused = nn.Linear(4, 6), nn.Linear(4, 4), nn.Linear(3, 3)

    def forward(self, x):
        x = x + torch.tanh(self.first(x))
        mu, log_variance = self.last(x).chunk(2, 1)
        return mu, torch.exp(log_variance.clamp(-3, 2))


NETWORKS = {
    "Encoder": (hw5_vae.Encoder(2, 30, 784), [784]),
    "Decoder": (hw5_vae.Decoder(2, 30, 784), [2]),
    "DNet": (hw5_gan.DNet(), [1, 28, 28]),
    "GNet": (hw5_gan.GNet(64), [64]),
    "DiffusionModel": (hw5_diffusion.DiffusionModel(), [2], [1]),
    "ScoreNet": (s24.ScoreNet(4, 20), [2], [1]),
    "Sequential": (SEQUENTIAL, [4]),
    "Heads": (Heads(), [4]),
    "pooling as functions": (lambda x: F.avg_pool2d(F.max_pool2d(x, 2), (3, 3)).flatten(1), [1, 12, 12]),
    "a function": (lambda x: F.relu6(1 - 2 / (x[:, 1:3] ** 2 + 1)), [4]),
}


def inputs_of(shapes, count=20):
    return [torch.rand(count, *shape) + 0.05 for shape in shapes]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_steps_compute_what_the_network_computes(name):
    network, *shapes = NETWORKS[name]
    if isinstance(network, nn.Module):
        network.train()(*inputs_of(shapes))  # statistics of batch normalisation
        network = layers.on_cpu(network)
    program = describe("it", network, *inputs_of(shapes))
    x = inputs_of(shapes, 7)  # other images, and another number of them
    with torch.no_grad():
        expected = network(*x)
    for found, y in zip(run(program, *x), expected if isinstance(expected, tuple) else [expected], strict=True):
        assert found.shape == y.shape
        assert (found - y).abs().max() < 5e-3 * (1 + y.abs().max()), "more than rounded weights explain"


def test_a_written_out_softplus_becomes_one_step():
    program = describe("it", layers.on_cpu(s24.ScoreNet(4, 20)), *inputs_of([[2], [1]]))
    assert [op["op"] for op in program["ops"]][1:] == ["cat", *["linear", "softplus"] * 3, "linear", "div"]


def test_describing_changes_nothing_of_the_network():
    network = copy.deepcopy(SEQUENTIAL).train()
    before = copy.deepcopy(network.state_dict())
    describe("it", layers.on_cpu(network), torch.rand(20, 4))
    assert network.training and all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    "function, reason",
    [
        (nn.GELU(), "no step gelu"),
        (nn.LayerNorm(4), "no step layer_norm"),
        (lambda x: F.dropout(x), "dropout"),
        (lambda x: x + torch.rand_like(x), "no step rand_like"),
        (lambda x: x - x.mean(0), "no step mean"),
        (lambda x: x.sort(1)[0], "no step sort"),
        (lambda x: x.reshape(2, -1).reshape(-1, 4) if len(x) % 2 else x.flatten(), "mixes the images"),
        (lambda x: torch.zeros(len(x), 3), "does not depend on its input"),
        (lambda x: 2 * x if len(x) == 2 else 3 * x, "other values"),
        (lambda x: x / 0, "not finite"),
        (lambda x: F.linear(x, torch.full((3, 4), 1e6)), "rounded weights"),
    ],
)
def test_what_the_page_cannot_run_is_named(function, reason):
    with pytest.raises(CannotRun, match=f"^the net: .*{reason}"):
        describe("the net", function, torch.arange(80).view(20, 4) / 80 + 0.1)


@pytest.mark.parametrize("change", ["flip", "bias", "activation", "order"])
def test_another_network_than_described_is_noticed(change):
    """compare() is what stands between a wrong step and a wrong page: it must see one."""
    network = layers.on_cpu(hw5_vae.Encoder(2, 30, 784))
    x = torch.rand(20, 784)
    program = layers.record(network, x)
    if change == "flip":
        program["ops"][0]["weight"] = -program["ops"][0]["weight"]
    if change == "bias":
        program["ops"][0]["bias"] = program["ops"][0]["bias"] + 0.1
    if change == "activation":
        program["ops"][1] = {"op": "relu", "of": [1], "numbers": []}
    if change == "order":
        program["outputs"].reverse()
    with pytest.raises(CannotRun, match="other values"):
        layers.compare(run(program, x), network(x), 1e-3, "other values")


def test_weights_as_bytes_are_within_half_a_step():
    matrix = torch.randn(20, 30) * torch.logspace(-3, 2, 20)[:, None]
    error = (layers.restored(layers.Bytes(matrix)) - matrix).abs().amax(1)
    assert (error <= matrix.abs().amax(1) / 127 / 2 * 1.001).all()
