"""A network as a list of operations that explore.html can run, recorded while the network itself runs.

    program = describe(network, x)      # x [B,...]: a batch of inputs
    run(program, x)                     # what the page computes, in double precision

A program is a dict: `inputs`, how many; `ops`, in their order; `outputs`, the numbers of the results. Inputs and
results of operations are numbered from 0 on. The operations are those of PyTorch below all modules and functions, so it
does not matter how a network is written: modules, functions, one class or several. maths.js has the same operations.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hw5_lab.fast import layers as fast


class CannotRun(Exception):
    """Why the page cannot run a network, as the end of a sentence."""


# ---------------------------------------------------------------------------------------------- operations

MAPS = {  # functions of one number, with the parameters that PyTorch gives them
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "exp": torch.exp,
    "log": torch.log,
    "abs": torch.abs,
    "neg": torch.neg,
    "sqrt": torch.sqrt,
    "cos": torch.cos,
    "sin": torch.sin,
    "reciprocal": torch.reciprocal,
    "silu": F.silu,
    "softplus": lambda x, beta=1, threshold=20: F.softplus(x, beta, threshold),
    "leaky_relu": lambda x, slope=0.01: F.leaky_relu(x, slope),
    "elu": lambda x, alpha=1, scale=1: scale * F.elu(x, alpha),  # also SELU
    "pow": torch.pow,
    "clamp": lambda x, low=None, high=None: x.clamp(low, high),
}
CLAMPS = {"hardtanh": [], "clamp_min": [], "clamp_max": [None]}  # other names of clamp, and what they leave out
WORDS = {"empty_like": "dropout, which should be off in evaluation mode", "native_layer_norm": "layer_norm"}
BINARY = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}
SAME = {"clone", "detach", "alias", "lift_fresh", "contiguous", "_to_copy"}
RESHAPES = {"view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten"}


def convolve(x, weight, bias, kernel, stride, padding, spread, extra):
    """A convolution of x [B,C,H,W]: its pixels first move `spread` apart, with zeros between and `extra` zeros below.

    weight [outputs,C*kernel*kernel]. With spread > 1 it is what PyTorch calls a transposed convolution.
    """
    count, channels, height, width = x.shape
    wide = x.new_zeros(count, channels, (height - 1) * spread + 1 + extra, (width - 1) * spread + 1 + extra)
    wide[:, :, : (height - 1) * spread + 1 : spread, : (width - 1) * spread + 1 : spread] = x
    return F.conv2d(wide, weight.view(len(weight), channels, kernel, kernel), bias, stride, padding)


def pool(x, how, size, stride):
    return F.max_pool2d(x, size, stride) if how == "max" else F.avg_pool2d(x, size, stride)


def run(program, *inputs):
    """The outputs of a program, in double precision, as maths.js computes them."""
    values = all_values(program, *inputs)
    return [values[number] for number in program["outputs"]]


def products(program, *inputs):
    """How many products of two numbers a program takes for one input each."""
    values = all_values(program, *(value[:1] for value in inputs))[program["inputs"] :]
    weighted = [(op["weight"], value) for op, value in zip(program["ops"], values) if "weight" in op]
    return sum(restored(weight)[0].numel() * value.numel() for weight, value in weighted)


def all_values(program, *inputs):
    """Inputs and results of all operations."""
    values = [value.double() for value in inputs]
    for op in program["ops"]:
        name, x = op["op"], [values[number] for number in op.get("of", [])]
        more = {key: restored(value) for key, value in op.items() if key not in ("op", "of")}
        if name == "linear":
            y = F.linear(x[0], more["weight"], more["bias"])
        elif name == "conv":
            y = convolve(x[0], **more)
        elif name == "upsample":
            y = x[0].repeat_interleave(op["factor"], 2).repeat_interleave(op["factor"], 3)
        elif name == "pool":
            y = pool(x[0], **more)
        elif name == "constant":
            y = more["value"]
        elif name == "reshape":
            y = x[0].reshape(len(x[0]), *op["shape"])
        elif name == "slice":
            y = x[0].narrow(op["dim"], op["start"], op["length"])
        elif name == "cat":
            y = torch.cat(x, op["dim"])
        elif name in BINARY:
            y = BINARY[name](*x)
        else:
            y = MAPS[name](x[0], *op["numbers"])
        values.append(y)
    return values


# ------------------------------------------------------------------------------------------------- recording


class Recorder(TorchDispatchMode):
    """Notes each operation on a tensor that depends on the inputs. All other tensors are constants."""

    def __init__(self, inputs):
        super().__init__()
        self.batch, self.ops, self.count = len(inputs[0]), [], len(inputs)
        self.numbers = {id(value): number for number, value in enumerate(inputs)}
        self.kept = list(inputs)  # else another tensor could get the same id

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [each for arg in args for each in (arg if isinstance(arg, (list, tuple)) else [arg])]
        if any(id(each) in self.numbers for each in tensors if isinstance(each, torch.Tensor)):
            results = result if isinstance(result, (list, tuple)) else [result]
            self.kept += [*tensors, *results]
            self.record(function.overloadpacket.__name__.rstrip("_"), args, kwargs or {}, results)
        return result

    def number(self, value):
        """The number of a tensor or a scalar; one that does not depend on the inputs becomes a constant."""
        if id(value) in self.numbers:
            return self.numbers[id(value)]
        return self.add("constant", value=torch.as_tensor(value, dtype=torch.float32))

    def add(self, name, result=None, **op):
        """Appends an operation, which computes `result`; returns its number."""
        self.ops.append({"op": name, **op})
        number = self.count + len(self.ops) - 1
        if result is not None:
            if not result.ndim or len(result) != self.batch:
                raise CannotRun(f"its step {name} mixes the images of a batch")
            self.numbers[id(result)] = number
        return number

    def record(self, name, args, kwargs, results):
        """One operation of PyTorch, in those that the page has."""
        y = results[0]
        if name in SAME or (name == "expand" and y.shape == args[0].shape):
            self.numbers[id(y)] = self.number(args[0])
        elif name in RESHAPES:
            self.add("reshape", y, of=[self.number(args[0])], shape=list(y.shape[1:]))
        elif name in ("addmm", "mm"):
            bias, x, weight = args if name == "addmm" else (torch.zeros(args[1].shape[1]), *args)
            self.need(name, kwargs == {} and id(weight) not in self.numbers and id(bias) not in self.numbers)
            self.add("linear", y, of=[self.number(x)], weight=weight.T.contiguous(), bias=bias)
        elif name == "convolution":
            self.convolution(y, *args)
        elif name == "upsample_nearest2d":
            factor = y.shape[2] // args[0].shape[2]
            self.need(name, [side * factor for side in args[0].shape[2:]] == list(y.shape[2:]))
            self.add("upsample", y, of=[self.number(args[0])], factor=factor)
        elif name in ("max_pool2d_with_indices", "avg_pool2d"):
            x, size, *more = args
            stride = (more.pop(0) if more else []) or size  # as F.max_pool2d leaves it out
            same = len(set(size)) == len(set(stride)) == 1
            self.need(name, same and not kwargs and more in ([], [[0, 0]]))
            how = "max" if name.startswith("max") else "mean"
            self.add("pool", y, of=[self.number(x)], how=how, size=size[0], stride=stride[0])
        elif name == "native_batch_norm":
            self.batch_norm(y, *args)
        elif name == "cat":
            dim = (args[1] if len(args) > 1 else 0) % y.ndim
            self.add("cat", y, of=[self.number(each) for each in args[0]], dim=dim)
        elif name in ("split", "slice", "split_with_sizes"):
            self.slices(name, args, results)
        elif name in BINARY and kwargs == {}:
            self.add(name, y, of=[self.number(each) for each in args])
        elif name == "rsub" and kwargs == {}:
            self.add("sub", y, of=[self.number(args[1]), self.number(args[0])])
        elif name in MAPS or name in CLAMPS:
            numbers = [*CLAMPS.get(name, []), *args[1:]]
            self.need(
                name, all(each is None or isinstance(each, (int, float)) for each in numbers) and len(numbers) < 3
            )
            self.add("clamp" if name in CLAMPS else name, y, of=[self.number(args[0])], numbers=numbers)
        else:
            raise CannotRun(f"the page has no step {WORDS.get(name, name)}")

    def need(self, name, condition):
        if not condition:
            raise CannotRun(f"the page has no step {name} with these settings")

    def convolution(self, y, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
        equal = all(len(set(each)) == 1 for each in (stride, padding, output_padding, weight.shape[2:]))
        self.need("convolution", equal and set(dilation) == {1} and groups == 1 and weight.ndim == 4)
        kernel, stride, padding = weight.shape[2], stride[0], padding[0]
        settings = dict(kernel=kernel, stride=stride, padding=padding, spread=1, extra=0)
        if transposed:
            weight = weight.flip(2, 3).transpose(0, 1)
            settings |= dict(stride=1, padding=kernel - 1 - padding, spread=stride, extra=output_padding[0])
            self.need("convolution", settings["padding"] >= 0)
        bias = torch.zeros(len(weight)) if bias is None else bias
        self.add("conv", y, of=[self.number(x)], weight=weight.flatten(1).contiguous(), bias=bias, **settings)

    def batch_norm(self, y, x, weight, bias, mean, variance, training, momentum, eps):
        """y = x * factor + shift, with the statistics of evaluation mode."""
        self.need("batch_norm", not training and mean is not None)
        factor = (1 if weight is None else weight) / torch.sqrt(variance + eps)
        shift = (0 if bias is None else bias) - mean * factor
        wide = lambda value: value.reshape(-1, *[1] * (x.ndim - 2))  # beside the pixels of a channel
        product = self.add("mul", of=[self.number(x), self.number(wide(factor))])
        self.add("add", y, of=[product, self.number(wide(shift))])

    def slices(self, name, args, results):
        """Parts of x along a dimension: of chunk() and split() several, of x[:, a:b] one."""
        x, where = args[0], 1 if name == "slice" else 2
        dim = (args[where] if len(args) > where else 0) % x.ndim
        self.need(name, len(args) < 5 and (dim > 0 or results[0].shape == x.shape))
        start = (args[2] or 0) % x.shape[dim] if name == "slice" and len(args) > 2 else 0
        for y in results:
            length = y.shape[dim]
            self.add("slice", y, of=[self.number(x)], dim=dim, start=start, length=length)
            start += length


def record(function, *inputs):
    """The program of what function(*inputs) does; the function returns a tensor or several."""
    inputs = [value.detach().clone() for value in inputs]
    with torch.no_grad(), Recorder(inputs) as recorder:
        results = function(*inputs)
    results = results if isinstance(results, (tuple, list)) else [results]
    if any(id(each) not in recorder.numbers for each in results):
        raise CannotRun("its result does not depend on its input")
    return {
        "inputs": len(inputs),
        "ops": recorder.ops,
        "outputs": [recorder.numbers[id(each)] for each in results],
    }


KNOWN = "softplus", "silu", "sigmoid", "tanh", "relu"  # maps that a network may write out itself


def simplified(program):
    """The same program, with one step where several on the same numbers are together a function that has a name.

    Such steps take one value, and scalars, apart from each other: their function of one number can be compared.
    """
    first, ops = program["inputs"], list(program["ops"])
    roots = list(range(first))  # of each value: the one from which such steps lead to it; None for a scalar
    for number, op in enumerate(ops, first):
        found = {roots[each] for each in op.get("of", [])} - {None}
        scalar = op["op"] == "constant" and op["value"].numel() == 1
        roots.append(None if scalar else found.pop() if op["op"] in {*MAPS, *BINARY} and len(found) == 1 else number)
    x = torch.linspace(-15, 15, 3001, dtype=torch.double)

    def value(number, root):
        if number == root:
            return x
        op = ops[number - first]
        if op["op"] == "constant":
            return op["value"].double().reshape(())
        return {**BINARY, **MAPS}[op["op"]](*(value(each, root) for each in op["of"]), *op.get("numbers", []))

    used = {each for op in ops if op["op"] not in {*MAPS, *BINARY} for each in op.get("of", [])}
    for number in used | set(program["outputs"]):
        root = roots[number]
        if root not in (number, None) and ops[number - first]["of"] != [root]:
            y = value(number, root)
            for name in KNOWN:
                if torch.allclose(y, MAPS[name](x), rtol=1e-6, atol=1e-6):
                    ops[number - first] = {"op": name, "of": [root], "numbers": []}
    return without_unused({**program, "ops": ops})


def without_unused(program):
    """A program without the steps that no result needs."""
    first, needed = program["inputs"], set(program["outputs"])
    for number in reversed(range(len(program["ops"]))):
        if first + number in needed:
            needed |= set(program["ops"][number].get("of", []))
    kept = [*range(first), *(number for number in sorted(needed) if number >= first)]
    new = {old: number for number, old in enumerate(kept)}
    moved = lambda op: {**op, "of": [new[each] for each in op["of"]]} if "of" in op else op
    ops = [moved(program["ops"][old - first]) for old in kept[first:]]
    return {"inputs": first, "ops": ops, "outputs": [new[each] for each in program["outputs"]]}


def on_cpu(network):
    """A copy of a network for looking: on the CPU, in evaluation mode, with the layers that fast ones stand for."""
    network = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    for module in network.modules():
        if type(module) in (fast.Conv2d, fast.Upsample):
            module.__class__ = type(module).__base__
    return network


@torch.no_grad()
def describe(name, function, *inputs, small=False):
    """The program of a function of a batch of inputs, as the page keeps it, once it was seen to compute the same.

    `name` is what CannotRun calls it. small: with a byte for each weight. Steps come from the first two inputs of the
    batch, and the results of all are compared, so a step that depends on the values or on the batch is found.
    """
    try:
        program = simplified(record(function, *(value[:2] for value in inputs)))
        expected = function(*inputs)
        expected = list(expected) if isinstance(expected, (tuple, list)) else [expected]
        compare(run(program, *inputs), expected, 1e-3, "other values")
        program = packed(program, small)
        compare(run(program, *inputs), expected, 0.05, "other values with rounded weights")
    except CannotRun as reason:
        raise CannotRun(f"{name}: {reason}") from None
    return program


def compare(found, expected, tolerance, what):
    """CannotRun where results differ by more, on average, than this share of their spread, or of 1 if that is more."""
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape or not b.isfinite().all() or not a.isfinite().all():
            raise CannotRun("its results are not finite, or of another shape than the page computes")
        size = max(b.double().square().mean().sqrt().item(), 0.1)
        if (error := (a - b).abs().mean().item()) > tolerance * size:
            raise CannotRun(f"the page would compute {what} (off by {error:.2g} on average)")


# ------------------------------------------------------------------------------------------------ numbers in a page


class Bytes:
    """A matrix with one signed byte for each weight; the weight is the byte times the scale of its row."""

    def __init__(self, matrix):
        largest = matrix.abs().amax(1).clamp(min=1e-30)
        self.scale = (largest / 127).numpy()
        self.values = (matrix / largest[:, None] * 127).round().to(torch.int8).numpy()


def halves(tensor):
    """float16 of a tensor; values too large for it become the largest that it has."""
    return tensor.detach().cpu().float().clamp(-65504, 65504).numpy().astype(np.float16)


def packed(program, small):
    """A program whose tensors are arrays: weights and biases in float16, or a byte each; constants in float32."""

    def pack(key, value):
        if not isinstance(value, torch.Tensor):
            return value
        value = value.detach().cpu().float()
        if key == "value":
            return value.numpy()
        return Bytes(value) if small and key == "weight" else halves(value)

    return {**program, "ops": [{key: pack(key, value) for key, value in op.items()} for op in program["ops"]]}


def restored(value):
    """What the page reads from an array, as a tensor in double precision; anything else as it is."""
    if isinstance(value, Bytes):
        return torch.from_numpy(value.values * value.scale[:, None]).double()
    return torch.as_tensor(value).double() if isinstance(value, (np.ndarray, torch.Tensor)) else value


def weights_of(*networks):
    return sum(weight.numel() for network in networks for weight in network.parameters())
