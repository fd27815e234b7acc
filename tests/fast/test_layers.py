"""hw5_lab/fast/layers: faster layers compute what the script's layers compute, also in a network that a student edited."""

import copy

import pytest
import torch
import torch.nn.functional as F
from plain import assert_same_weights
from torch import nn

from hw5_gan import DNet, GNet
from hw5_lab.editions.s24 import Muon
from hw5_lab.editions.uva_gan import DenseD, DenseG
from hw5_lab.fast import layers
from hw5_lab.fast.layers import fuse, speed_up


def assert_close(ours, theirs, message):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5, msg=lambda text: f"{message}: {text}")


def results(network, x):
    """The output for x, and the gradients with respect to x and all weights of a sum that weighs every output."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)  # of dropout
    output = network(x)
    weigh = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    gradients = torch.autograd.grad((weigh * output).sum(), [x, *network.parameters()])
    return [output, *gradients]


def assert_same_results(plain, fast, x):
    for number, (ours, theirs) in enumerate(zip(results(fast, x), results(plain, x), strict=True)):
        assert_close(ours, theirs, f"gradient {number}" if number else "output")


class Halved(nn.Module):
    """An operation that changes its input where it lies in memory."""

    def forward(self, x):
        x *= 0.5
        return x


class Twice(nn.Module):
    """Two convolutions of the same upsampled image."""

    def __init__(self):
        super().__init__()
        self.upsample = nn.Upsample(scale_factor=2)
        self.first, self.second = conv(), conv()

    def forward(self, x):
        large = self.upsample(x)
        return self.first(large) + self.second(large) + large.mean()


def conv(kernel_size=3, padding=1, **more):
    return nn.Conv2d(3, 4, kernel_size, padding=padding, **more)


def up(**more):
    return nn.Upsample(**(more or {"scale_factor": 2}))


NETWORKS = {
    "the script's": lambda: [up(), conv()],
    "no upsampling": lambda: [conv()],
    "upsampling alone": lambda: [up()],
    "upsampling twice": lambda: [up(), up(), conv()],
    "two convolutions": lambda: [up(), conv(), nn.Conv2d(4, 2, 3, padding=1)],
    "two convolutions of one image": lambda: [Twice()],
    "nothing between": lambda: [up(), nn.Identity(), conv()],
    "ReLU between": lambda: [up(), nn.LeakyReLU(0.2), conv()],
    "ReLU in place between": lambda: [up(), nn.LeakyReLU(0.2, inplace=True), conv()],
    "a factor in place between": lambda: [up(), Halved(), conv()],
    "dropout of channels between": lambda: [up(), nn.Dropout2d(0.5), conv()],
    "batch normalisation between": lambda: [up(), nn.BatchNorm2d(3), conv()],
    "batch normalisation after": lambda: [up(), conv(), nn.BatchNorm2d(4)],
    "a 5x5 kernel": lambda: [up(), conv(5, 2)],
    "a 1x1 kernel": lambda: [up(), conv(1, 0)],
    "a flat kernel": lambda: [up(), conv((3, 1), (1, 0))],
    "padding 0": lambda: [up(), up(), conv(3, 0)],
    "padding 2": lambda: [up(), conv(3, 2)],
    "padding same": lambda: [up(), conv(3, "same")],
    "reflected borders": lambda: [up(), conv(padding_mode="reflect")],
    "no bias": lambda: [up(), conv(bias=False)],
    "stride 2": lambda: [up(), conv(stride=2)],
    "dilation 2": lambda: [up(), conv(dilation=2)],
    "groups": lambda: [up(), nn.Conv2d(3, 6, 3, padding=1, groups=3)],
    "a factor of 3": lambda: [up(scale_factor=3), conv()],
    "two factors": lambda: [up(scale_factor=(2, 1)), conv()],
    "twice the factor": lambda: [up(scale_factor=(2, 2)), conv()],
    "a size": lambda: [up(size=(9, 8)), conv()],
    "bilinear": lambda: [up(scale_factor=2, mode="bilinear"), conv()],
    "a transposed convolution": lambda: [nn.ConvTranspose2d(3, 3, 4, 2, 1), conv()],
}
edits = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


def both(make):
    """A network, and a copy of it with faster layers; weights without any symmetry, in double precision."""
    torch.manual_seed(0)
    plain = nn.Sequential(*make()).double()
    for weight in plain.parameters():
        nn.init.normal_(weight)
    fast = copy.deepcopy(plain)
    speed_up(fast)
    return plain, fast


# ---- values and gradients: the script's layers are the oracle


@edits
def test_values_and_gradients_are_those_of_the_plain_layers(make):
    plain, fast = both(make)
    for size in ((2, 3, 7, 7), (1, 3, 6, 4), (3, 3, 2, 5), (1, 3, 2, 2)):
        assert_same_results(plain, fast, torch.randn(size, dtype=torch.double))


@pytest.mark.parametrize("size", [(1, 3, 1, 1), (1, 3, 1, 4), (5, 3, 3, 1), (0, 3, 4, 4)])
def test_the_smallest_images_and_no_images_at_all(size):
    plain, fast = both(NETWORKS["the script's"])
    assert_same_results(plain, fast, torch.randn(size, dtype=torch.double))


@pytest.mark.parametrize("size", [(2, 3, 5), (2, 3, 4, 3, 2)])
def test_upsampling_of_what_is_no_image(size):
    """Along a line, or in space: nn.Upsample does these as well."""
    plain, fast = both(NETWORKS["upsampling alone"])
    assert_same_results(plain, fast, torch.randn(size, dtype=torch.double))


def test_a_gradient_of_a_gradient_is_right():
    """As a gradient penalty needs it."""
    found = []
    for network in both(lambda: [up(), conv(), nn.Tanh()]):
        x = torch.linspace(-1, 1, 60, dtype=torch.double).view(1, 3, 4, 5).requires_grad_()
        (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), list(network.parameters())[:1])[0])
    assert_close(*found, "second derivative")


@pytest.mark.parametrize("batch", [1, 2, 33])
def test_the_homeworks_networks_give_the_same_in_single_precision(batch):
    torch.manual_seed(0)
    for plain, x in ((DNet(), torch.rand(batch, 1, 28, 28)), (GNet(64), 2 * torch.rand(batch, 64) - 1)):
        fast = copy.deepcopy(plain)
        speed_up(fast)
        x.requires_grad_()
        values = [network(x) for network in (fast, plain)]
        assert_close(*values, "output")
        slopes = [
            torch.autograd.grad(value.square().mean(), [x, *network.parameters()])
            for value, network in zip(values, (fast, plain))
        ]
        for ours, theirs in zip(*slopes):
            assert_close(ours, theirs, "gradient")


def between(operation):
    """GNet with another operation between its second upsampling and convolution, written in forward()."""

    class Edited(GNet):
        def forward(self, z):
            x = self.lrelu1(self.linear(z)).reshape(-1, 32, 7, 7)
            x = self.lrelu2(self.conv1(self.upsample1(x)))
            x = self.lrelu3(self.conv2(operation(self.upsample2(x))))
            return self.sigmoid(self.conv3(x))

    return Edited


def swapped(x):
    x[:, :8], x[:, 8:] = x[:, 8:].clone(), x[:, :8].clone()
    return x


OPERATIONS = {
    "a sum": lambda x: x + 0.1,
    "a sum in place": lambda x: x.add_(0.1),
    "a ramp in place": lambda x: x.mul_(torch.linspace(0, 1, 14 * 2)),
    "noise": lambda x: x + torch.randn(x.shape),
    "an image turned": lambda x: x.flip(3),
    "a view": lambda x: x.view_as(x),
    "a part": lambda x: F.pad(x[..., 1:], (1, 0)),
    "channels exchanged in place": swapped,
    "a detour": lambda x: x.detach().requires_grad_(),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_an_operation_in_forward_is_not_skipped(operation):
    torch.manual_seed(0)
    plain = between(operation)(5)
    fast = copy.deepcopy(plain)
    speed_up(fast)
    z, found = torch.rand(3, 5), []
    for network in (fast, plain):
        torch.manual_seed(1)
        output = network(z)
        slopes = torch.autograd.grad(output.square().mean(), network.parameters(), allow_unused=True)
        found.append([output, *(slope for slope in slopes if slope is not None)])
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, "an operation between was skipped, or its gradient is another")


@pytest.mark.parametrize("inplace", [False, True])
def test_dropout_between_is_not_skipped(inplace):
    """Which pixels are dropped follows their order in memory: so the witness is what the convolution was given."""
    _, fast = both(lambda: [up(), nn.Dropout(0.5, inplace), conv()])
    given = []
    fast[1].register_forward_hook(lambda layer, inputs, output: given.append(output.clone()))
    output = fast(torch.rand(2, 3, 5, 4, dtype=torch.double) + 1)
    assert 0.3 < (given[0] == 0).double().mean() < 0.7, "else this test shows nothing"
    assert_close(output, F.conv2d(given[0], fast[2].weight, fast[2].bias, padding=1), "dropout was skipped")
    fast.eval()
    x = torch.rand(2, 3, 5, 4, dtype=torch.double)
    assert_close(fast(x), fast[2](F.interpolate(x, scale_factor=2)), "in evaluation mode nothing is dropped")


def test_the_small_image_may_change_after_it_was_upsampled():
    class Cleared(nn.Sequential):
        def forward(self, x):
            x = (x * 1.0).contiguous(memory_format=torch.channels_last)
            large = self[0](x)
            x.zero_()
            return self[1](large)

    torch.manual_seed(0)
    plain = Cleared(up(), conv())
    fast = copy.deepcopy(plain)
    speed_up(fast)
    x = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        assert_close(fast(x), plain(x), "the convolution is of the image as it was")


# ---- it is the fast path


def test_the_homeworks_generator_convolves_small_images(monkeypatch):
    """Both pairs of upsampling and convolution; where an operation stands between, only the other one."""
    sizes, convolve = [], F.conv_transpose2d
    monkeypatch.setattr(
        F, "conv_transpose2d", lambda x, *more, **options: sizes.append(x.shape[2:]) or convolve(x, *more, **options)
    )
    gen = GNet(5)
    gen(torch.rand(2, 5))
    assert not sizes, "the script's own layers know nothing of it"
    speed_up(gen)
    gen(torch.rand(2, 5))
    assert sizes == [(7, 7), (14, 14)]
    sizes.clear()
    edited = between(lambda x: x + 0.1)(5)
    speed_up(edited)
    edited(torch.rand(2, 5))
    assert sizes == [(7, 7)]


def test_channels_are_last_in_memory():
    gen = GNet(5)
    speed_up(gen)
    seen = []
    for name in ("upsample1", "conv1", "upsample2", "conv2", "conv3"):
        getattr(gen, name).register_forward_hook(lambda module, inputs, output: seen.append(output))
    gen(torch.rand(2, 5))
    assert len(seen) == 5 and all(each.is_contiguous(memory_format=torch.channels_last) for each in seen)


# ---- what stays


MODELS = {"DNet": DNet, "GNet": lambda: GNet(6), "DenseD": DenseD, "DenseG": lambda: DenseG(6)}
models = pytest.mark.parametrize("name, make", MODELS.items(), ids=MODELS)


def example(name):
    return torch.rand(3, 1, 28, 28) if name.startswith("D") and not name.endswith("G") else torch.rand(3, 6)


@models
def test_parameters_keys_and_children_stay(name, make):
    network = make()
    children, parameters = dict(network.named_modules()), dict(network.named_parameters())
    state, shown = {key: value.clone() for key, value in network.state_dict().items()}, str(network)
    speed_up(network)
    assert {key: id(value) for key, value in network.named_modules()} == {
        key: id(value) for key, value in children.items()
    }
    assert all(isinstance(network.get_submodule(key), type(each)) for key, each in children.items())
    assert {key: id(value) for key, value in network.named_parameters()} == {
        key: id(value) for key, value in parameters.items()
    }, "an optimizer that was made before must still move these weights"
    assert list(network.state_dict()) == list(state) and str(network) == shown
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key]) and value.shape == state[key].shape
    other = make()
    other.load_state_dict(network.state_dict())
    network.load_state_dict(other.state_dict())
    assert_same_weights(network, other)


@models
@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
def test_every_layer_is_called_once_in_the_order_of_the_table(name, make, fast):
    """Hooks are the witnesses: a breakpoint in a layer stops in every run."""
    network, calls = make(), []
    leaves = [key for key, each in network.named_modules() if not list(each.children())]
    for key in leaves:
        layer = network.get_submodule(key)
        layer.register_forward_pre_hook(lambda *_, key=key: calls.append(f"before {key}"))
        layer.register_forward_hook(lambda *_, key=key: calls.append(f"after {key}"))
    if fast:
        speed_up(network)
    network(example(name))
    assert calls == [f"{when} {key}" for key in leaves for when in ("before", "after")]


@models
def test_hooks_see_what_they_see_in_the_plain_network(name, make):
    """All inputs and outputs of all layers, with hooks from before and from after the change."""
    torch.manual_seed(0)
    plain, seen = make(), ([], [])
    fast = copy.deepcopy(plain)
    for network, found in ((plain, seen[0]), (fast, seen[1])):
        for layer in network.children():
            layer.register_forward_hook(lambda layer, inputs, output, found=found: found.extend([*inputs, output]))
        if network is fast:
            speed_up(fast)
        for layer in network.children():
            layer.register_forward_pre_hook(lambda layer, inputs, found=found: found.extend(inputs))
    x = example(name)
    plain(x), fast(x)
    assert len(seen[0]) == len(seen[1]) == 3 * len(list(plain.children()))
    for theirs, ours in zip(*seen):
        assert_close(ours, theirs, "a layer's input or output")


def test_a_hook_may_change_what_a_layer_gives():
    torch.manual_seed(0)
    plain, z = GNet(5), torch.rand(3, 5)
    fast = copy.deepcopy(plain)
    speed_up(fast)
    for network in (plain, fast):
        network.upsample1.register_forward_hook(lambda layer, inputs, output: output * 2)
        network.conv2.register_forward_pre_hook(lambda layer, inputs: (inputs[0] - 1,))
        network.upsample2.register_full_backward_hook(lambda layer, before, after: (before[0] * 3,))
    assert_close(fast(z), plain(z), "a hook was passed over")
    slopes = [torch.autograd.grad(network(z).sum(), network.linear.weight)[0] for network in (fast, plain)]
    assert_close(*slopes, "a hook of the gradients was passed over")


def test_a_copy_and_a_second_time_change_nothing():
    torch.manual_seed(0)
    plain, z = GNet(5), torch.rand(3, 5)
    fast = copy.deepcopy(plain)
    speed_up(fast)
    expected = fast(z)
    speed_up(fast)
    assert torch.equal(fast(z), expected) and torch.equal(copy.deepcopy(fast)(z), expected)


def test_a_students_own_layers_stay_as_they_are():
    """Subclasses may do anything."""

    class Louder(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    class Shifted(nn.Upsample):
        def forward(self, x):
            return super().forward(x).roll(1, 3)

    plain, fast = both(lambda: [Shifted(scale_factor=2), conv(), up(), Louder(4, 2, 3, padding=1)])
    assert type(fast[0]) is Shifted and type(fast[3]) is Louder
    assert_same_results(plain, fast, torch.randn(2, 3, 5, 4, dtype=torch.double))


# ---- Adam in one kernel


def steps(make, fused):
    """Weights after some steps on a plain loss."""
    torch.manual_seed(0)
    network = nn.Linear(6, 5)
    optimizer, x = make(network.parameters()), torch.randn(20, 6)
    if fused:
        fuse(optimizer)
    for _ in range(5):
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()
    return network, optimizer


ADAMS = {
    "plain": {},
    "betas": dict(betas=(0.5, 0.9), eps=1e-3),
    "weight decay": dict(weight_decay=0.1),
    "amsgrad": dict(amsgrad=True),
    "maximize": dict(maximize=True),
    "foreach": dict(foreach=True),
    "one by one": dict(foreach=False),
    "a tensor as the rate": dict(lr=torch.tensor(1e-3)),
}


@pytest.mark.parametrize("settings", ADAMS.values(), ids=ADAMS)
def test_fused_adam_makes_the_same_steps(settings):
    make = lambda weights: torch.optim.Adam(weights, **settings)
    (plain, _), (fused, optimizer) = steps(make, False), steps(make, True)
    assert optimizer.param_groups[0]["fused"] is True
    assert_same_weights(fused, plain, 1e-6)


OTHERS = {
    "SGD": lambda weights: torch.optim.SGD(weights, lr=0.01, momentum=0.9),
    "AdamW": torch.optim.AdamW,
    "RMSprop": torch.optim.RMSprop,
    "Muon": lambda weights: Muon([weight for weight in weights if weight.ndim == 2], lr=0.01),
    "a student's": type("Mine", (torch.optim.Adam,), {}),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_no_other_optimizer_is_changed(make):
    (plain, before), (other, after) = steps(make, False), steps(make, True)
    assert_same_weights(plain, other)
    settings = [
        {key: value for key, value in each.param_groups[0].items() if key != "params"} for each in (before, after)
    ]
    assert settings[0] == settings[1] and not settings[1].get("fused")


def test_adam_is_fused_only_where_pytorch_can():
    """`meta` stands for a device without such a kernel; one weight there is enough."""
    here, there = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, device="meta"))
    optimizers = torch.optim.Adam([here]), torch.optim.Adam([{"params": [here]}, {"params": [there]}])
    fuse(*optimizers)
    assert [group["fused"] for each in optimizers for group in each.param_groups] == [True, True, False]
    fuse()


def test_the_classes_are_pytorchs_own_kinds():
    assert issubclass(layers.Upsample, nn.Upsample) and issubclass(layers.Conv2d, nn.Conv2d)


@edits
def test_inference_mode_gives_the_same(make):
    """Tensors that are made in it have no version."""
    plain, fast = both(make)
    with torch.inference_mode():
        x = torch.rand(2, 3, 4, 6, dtype=torch.double)
        values = []
        for network in (fast, plain):
            torch.manual_seed(1)
            values.append(network(x.clone()))
        assert_close(*values, "output")
