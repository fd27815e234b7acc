"""What a checkpoint holds: all that training needs to continue exactly, as tensors and plain values.

A checkpoint is compared as a whole with what the run expects, before anything of it is used.
"""

import copy
import math
import zlib

import numpy as np
import torch

from hw5_utils import Fault


def checksum(tensors):
    """Of all data that a result depends on; a checkpoint tells its data by it."""
    value = 0
    for tensor in tensors:
        value = zlib.crc32(np.ascontiguousarray(tensor.cpu()), value)
    return value


def snapshot(model, settings, environment):
    """The state of a model after an epoch."""
    return {
        "settings": settings,
        "environment": environment,
        "record": model.record,
        "parts": {name: part.state_dict() for name, part in model.parts.items()},
        "generators": {name: generator.get_state() for name, generator in model.generators.items()},
    }


def check(model, state, settings, path, where=()):
    """Fault unless `state` is a snapshot of such a model with these settings; those named in `where` are free."""

    def refuse(reason):
        raise Fault(
            f"{path}: not a checkpoint of this run ({reason}); a new run keeps this file, in a folder of another name"
        )

    sections = {"settings": dict, "environment": dict, "record": dict, "parts": dict, "generators": dict}
    if not isinstance(state, dict) or {name: type(part) for name, part in state.items()} != sections:
        refuse("its sections are others")
    saved = state["settings"]
    if saved.keys() != settings.keys():
        refuse("its settings are others")
    for name in sorted(settings, key=lambda name: name != "edition"):  # the one that explains others comes first
        value = settings[name]
        if type(saved[name]) is not type(value) or saved[name] != value:
            if name not in where:
                what = "other data" if name == "data" else f"--{name} {saved[name]}, not {value}"
                raise Fault(f"{path}: belongs to a run with {what}; use the same, or start a new run")
    try:
        compare_record(model, state["record"])
        compare(sorted(state["parts"]), sorted(model.parts), "parts")
        for name, part in model.parts.items():
            if not (where and isinstance(part, torch.optim.Optimizer)):  # to be measured, a model needs none
                compare(state["parts"][name], expected_state(part, state["parts"][name]), name)
        for name, generator in {} if where else model.generators.items():  # another device has other ones
            torch.Generator(generator.device).set_state(state["generators"][name])
    except (Difference, KeyError, RuntimeError, TypeError, AttributeError) as error:
        refuse(" ".join(str(error).split()) or type(error).__name__)


def restore(model, state, training=True):
    """Put a checked snapshot into the model; without training only what is measured."""
    for name, part in model.parts.items():
        if training or not isinstance(part, torch.optim.Optimizer):
            part.load_state_dict(state["parts"][name])
    for name, generator in model.generators.items() if training else ():
        generator.set_state(state["generators"][name])
    model.record = copy.deepcopy(state["record"])


class Difference(ValueError):
    """Where and how a value is not what is expected."""


def compare(found, expected, name):
    """Difference unless `found` is as expected: types, names, shapes, and values but for tensors and learning rates."""
    if type(found) is not type(expected):
        raise Difference(f"{name} is of type {type(found).__name__}, not {type(expected).__name__}")
    if isinstance(expected, dict):
        if found.keys() != expected.keys():
            raise Difference(f"{name} holds {', '.join(map(str, found))}, not {', '.join(map(str, expected))}")
        for key in expected:
            if key == "lr":
                check_number(found[key], f"{name}/lr", 0)
            elif key != "fused":  # of the device, not of the run
                compare(found[key], expected[key], f"{name}/{key}")
    elif isinstance(expected, (list, tuple)):
        if len(found) != len(expected):
            raise Difference(f"{name} has the length {len(found)}, not {len(expected)}")
        for number, pair in enumerate(zip(found, expected)):
            compare(*pair, f"{name}/{number}")
    elif isinstance(expected, torch.Tensor):
        if found.shape != expected.shape or found.dtype != expected.dtype:
            shapes = list(found.shape), list(expected.shape)
            raise Difference(f"{name} is {found.dtype} {shapes[0]}, not {expected.dtype} {shapes[1]}")
        if not found.isfinite().all():
            raise Difference(f"{name} is not finite")
    elif found != expected:
        raise Difference(f"{name} is {found!r}, not {expected!r}")


def expected_state(part, found):
    """A state_dict of this network or optimizer; of an optimizer as it is after a step, where `found` is after one."""
    if isinstance(part, torch.optim.Optimizer) and found["state"]:
        part = copy.deepcopy(part)  # with weights of its own
        for group in part.param_groups:
            for weight in group["params"]:
                weight.grad = torch.zeros_like(weight)
        part.step()
    return part.state_dict()


def check_number(value, name, low=-math.inf, high=math.inf):
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise Difference(f"{name} is {value!r}, not a number from {low} to {high}")


def compare_record(model, record):
    """The history is a row of finite numbers for each epoch; the rest of the record is the model's to judge."""
    compare(sorted(record), sorted(model.record), "record")
    history = record["history"]
    if not isinstance(history, list) or not 1 <= len(history) <= model.epochs:
        raise Difference(f"its history is no list of 1 to {model.epochs} rows")
    for number, row in enumerate(history, 1):
        if not isinstance(row, dict) or tuple(row) != model.columns or row["epoch"] != number:
            raise Difference(f"row {number} of its history is not that of epoch {number}")
        for name, value in row.items():
            check_number(value, f"row {number} of its history: {name}")
    model.check_record(record)
