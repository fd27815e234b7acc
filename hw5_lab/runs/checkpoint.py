"""What a checkpoint holds: all that training needs to continue exactly, as tensors and plain values."""

import copy
import math
import zlib

import numpy as np
import torch

from hw5_lab.runs.flags import contrast
from hw5_utils import Fault


def checksum(tensors):
    """Of all data that a result depends on; a checkpoint tells its data by it."""
    value = 0
    for tensor in tensors:
        value = zlib.crc32(np.ascontiguousarray(tensor.cpu()), value)
    return value


def snapshot(experiment, settings, environment):
    """The state of an experiment after an epoch."""
    return {
        "settings": settings,
        "environment": environment,
        "record": experiment.record,
        "parts": {name: part.state_dict() for name, part in experiment.parts.items()},
        "generators": {name: generator.get_state() for name, generator in experiment.generators.items()},
    }


def restore(experiment, state, settings, path, training=True, free=()):
    """Put a checkpoint into an experiment of the same settings, but for those named in `free`; Fault for another.

    Without training only what is measured is restored: no optimizer, no random numbers, which another device lacks.
    """
    check_settings(state, settings, path, free)
    try:
        for name, part in experiment.parts.items():
            if training or not isinstance(part, torch.optim.Optimizer):
                load(part, state["parts"][name])
        for name, generator in experiment.generators.items() if training else ():
            generator.set_state(state["generators"][name])
        record = state["record"]
        dict(state["environment"])
        check_history(record["history"], experiment)
        if record.keys() != experiment.record.keys():
            raise ValueError(f"its record holds {', '.join(record)}")
        experiment.check_record(record)
        experiment.record = copy.deepcopy(record)
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Fault(
            f"{path}: not a checkpoint of this run ({reason}); a new run keeps this file, in a folder of another name"
        ) from None


def check_settings(state, settings, path, free):
    """Fault unless a checkpoint has these settings, but for those named in `free`."""
    saved = state.get("settings")
    if not isinstance(saved, dict) or saved.keys() != settings.keys():
        raise Fault(f"{path}: not a checkpoint of this version of the script; a new run keeps it, in another folder")
    for name in sorted(settings.keys() - set(free), key=lambda name: (name == "data", name != "edition", name)):
        if type(saved[name]) is not type(settings[name]) or saved[name] != settings[name]:
            what = "with other data" if name == "data" else contrast(name, saved[name], settings[name])
            raise Fault(f"{path}: belongs to a run {what}; use the same, or start a new run")


LIKE_WEIGHTS = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "average"}  # of Adam, SGD, our Muon


def load(part, state):
    """load_state_dict, with what it does not look at: shapes of an optimizer's state, and finite numbers."""
    if isinstance(part, torch.optim.Optimizer):
        weights = [weight for group in part.param_groups for weight in group["params"]]
        for number, kept in state["state"].items():
            for name, value in kept.items():
                if name in LIKE_WEIGHTS and torch.is_tensor(value) and value.shape != weights[number].shape:
                    raise ValueError(f"{name} is {list(value.shape)} beside a weight of {list(weights[number].shape)}")
        for group in state["param_groups"]:
            if not math.isfinite(group["lr"]) or group["lr"] < 0:
                raise ValueError(f"a learning rate is {group['lr']}")
    elif isinstance(part, torch.nn.Module):
        for name, value in state.items():
            if not value.isfinite().all():
                raise ValueError(f"{name} is not finite")
    fused = [group.get("fused") for group in getattr(part, "param_groups", ())]  # of this device, not of the run's
    part.load_state_dict(state)
    for group, value in zip(getattr(part, "param_groups", ()), fused):
        group["fused"] = value


def check_history(history, experiment):
    """ValueError unless it has a row of finite numbers for each epoch."""
    if not isinstance(history, list) or not 1 <= len(history) <= experiment.epochs:
        raise ValueError(f"its history is no list of 1 to {experiment.epochs} rows")
    for number, row in enumerate(history, 1):
        # A student's epochs() may yield more than the columns
        if not set(experiment.columns) <= row.keys() == history[0].keys() or row["epoch"] != number:
            raise ValueError(f"row {number} of its history is not that of epoch {number}")
        if not all(type(value) in (int, float) and math.isfinite(value) for value in row.values()):
            raise ValueError(f"row {number} of its history holds something else than finite numbers")
