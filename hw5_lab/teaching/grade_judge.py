"""What the judges of the graded questions share.

A question makes its requests from a random generator. Its judge returns {part: "" where right, else what is wrong} and
remarks on what is right but could be better. Right values come from diagnoses.py, on the student's own weights.
"""

import re
from dataclasses import dataclass
from typing import Callable

import torch


@dataclass
class Question:
    number: str
    title: str
    file: str  # "hw5_vae" or "hw5_gan"
    make: Callable  # generator -> {name: request}
    judge: Callable  # (requests, answers) -> ({part: sentence}, [remark])


def said(answer):
    """The sentence for an answer that is an error, else ""."""
    error = answer.get("error", "")
    if "NotImplementedError" in error:
        question = re.search(r"NotImplementedError: (\S+)", error)
        return "not answered yet" + (f" ({question[1]})" if question else "")
    if "all elements of input should be between 0 and 1" in error:
        return "BCELoss on logits: BCEWithLogitsLoss is meant for them"
    return error


def reach(grads, names):
    """ "" if a gradient reaches all of the inputs, else which it does not reach."""
    missing = [name for grad, name in zip(grads, names) if grad is None or not grad.any()]
    if not grads or missing:
        return f"no gradient reaches {', '.join(missing or names)}"
    broken = [name for grad, name in zip(grads, names) if not grad.isfinite().all()]
    return f"the gradient for {', '.join(broken)} is not finite" if broken else ""


def column(value):
    """A remark where [B,1] was returned for [B]."""
    if value.dim() == 2 and value.shape[1] == 1:
        return ["[B,1] is returned, [B] is asked: beside a [B] it would broadcast to [B,B]"]
    return []


def per_example(value, count):
    return value.shape in ((count,), (count, 1))


def uniform(generator, *shape, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(*shape, generator=generator)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator)


def pixels(generator, *shape):
    return torch.bernoulli(torch.full(shape, 0.5), generator=generator)


def call(names, *args, grad=(), seed=0):
    return {"names": names.split(), "args": list(args), "grad": list(grad), "seed": seed}


def calls(*each):
    return {"answer": {"job": "call", "calls": list(each)}}
