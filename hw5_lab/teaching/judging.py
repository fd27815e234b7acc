"""What the judges of the questions share: the sheet they fill, and how they ask a submission.

A judge is a function of (ask, draw, sheet). It draws inputs, asks the submission for outputs, and says for each of its
checks "" (shown to be right) or what is wrong. A check of which it says nothing was not shown, and earns nothing.
"""

import re
from dataclasses import dataclass
from typing import Callable

import torch

from hw5_lab.teaching.sandbox import Failure, clean

NOT_SHOWN = "not shown"
UNNAMED = "another value", "shape", "nan", "the same", "an empty", "one random", "no parameters", "no noise"
SECONDS = 10  # of processor time that a question may take
QUESTIONS = {}  # number: Question, in the order of the homework


@dataclass
class Question:
    number: str
    file: str  # "hw5_vae", "hw5_gan" or "hw5_diffusion"
    checks: list
    judge: Callable


def question(number, file, checks):
    """Enters the judge that follows as the one of this question, with the names of its checks."""

    def enter(judge):
        QUESTIONS[number] = Question(number, file, checks.split(", "), judge)
        return judge

    return enter


class Sheet(dict):
    """{check: "" where shown to be right, else why not}, and remarks, which cost nothing."""

    def __init__(self, checks):
        super().__init__(dict.fromkeys(checks, NOT_SHOWN))
        self.remarks = []

    def all(self, why, *checks):
        """The same of these checks, or of all."""
        self.update(dict.fromkeys(checks or list(self), why))

    def placeholder(self, main, untouched, *minor, of=None):
        """Take the points of minor checks back where `main` is wrong and does not depend on these inputs.

        Not where it is wrong by a known mistake, unless it depends on nothing: `of` is how many inputs there are.
        """
        if self[main] and untouched and (self[main].startswith(UNNAMED) or of in (None, len(untouched))):
            for check in minor:
                self[check] = self[check] or f"does not depend on {', '.join(untouched)}: not an answer yet"


class Draw:
    """Random inputs."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.generator)

    def uniform(self, *shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(*shape, generator=self.generator)

    def pixels(self, *shape):
        return torch.bernoulli(torch.full(shape, 0.5), generator=self.generator)


def call(names, *args, grad=(), seed=0):
    return {"names": names.split(), "args": list(args), "grad": list(grad), "seed": seed}


class Ask:
    """Asks one file of a submission, through a sandbox. What it returns has the form that a judge may rely on."""

    def __init__(self, box, folder, file, shown, definitions_only=False):
        self.box, self.folder, self.file, self.shown = box, folder, file, shown
        self.definitions_only, self.remarks = definitions_only, {}

    def run(self, request, seconds=SECONDS):
        answer = self.box.run(self.folder, self.file, request, seconds, self.definitions_only)
        if why := self.said(answer):
            raise Failure(why)
        for each in answer.get("remarks", [])[:5]:
            self.remarks[f"{self.shown}: {clean(each)}"] = None
        return answer

    def said(self, answer):
        """The sentence for an answer that is an error, else ""."""
        error = answer.get("error", "")
        if not isinstance(error, str):
            raise Failure("gives no readable answer")
        if unanswered := re.match(r"NotImplementedError(?:: (\d\([a-z]\)\S*))?(?: \(|$)", error):
            return "not answered yet" + (f" ({unanswered[1]})" if unanswered[1] else "")
        if 'is missing the required "forward" function' in error:
            return "the network has no forward(): is its name misspelt?"
        if "all elements of input should be between 0 and 1" in error:
            return "BCELoss on logits: BCEWithLogitsLoss is meant for them"
        if "a NoneType is returned" in error:
            return "returns None: not answered yet, or without a return"
        return clean(error.replace(f"({self.file}.py,", f"({self.shown},"))

    def tidy(self, answer, **form):
        """The answer if it is an error or has these keys with values of these kinds; Failure if it has not."""
        if not isinstance(answer, dict):
            raise Failure("gives no readable answer")
        why = self.said(answer)
        if why:
            return {"error": why}
        for key, kind in form.items():
            value = answer.get(key)
            each = value if isinstance(value, list) else [value]
            kind = kind if isinstance(kind, tuple) else (kind,)
            if key not in answer or not all(isinstance(one, (*kind, list)) for one in each):
                raise Failure("gives no readable answer")
        return answer

    def many(self, answers, count, **form):
        if not isinstance(answers, list) or len(answers) != count:
            raise Failure("gives no readable answer")
        return [self.tidy(answer, **form) for answer in answers]

    def calls(self, *calls, stubs=None):
        """[{"error"} or {"value", "changed": numbers of arguments, "asked": of the stand-in, "grads"}]"""
        tensors = (torch.Tensor, type(None))
        answer = self.run({"job": "calls", "calls": list(calls), "stubs": stubs or {}})
        made = self.many(answer.get("calls"), len(calls), value=torch.Tensor, changed=int, grads=tensors, asked=list)
        for each, asked in zip(made, calls):
            scores = [arg for arg in asked["args"] if isinstance(arg, dict)]
            if "grads" in each and len(each["grads"]) != len(asked["grad"]) + 2 * len(scores):
                raise Failure("gives no readable answer")
            for record in each.get("asked", []):
                if len(record) != 3 or not all(isinstance(one, torch.Tensor) and one.dim() == 2 for one in record):
                    raise Failure("gives no readable answer")
        return made

    def network(self, name, init, weights, inputs=(), seed=11, other=None):
        """A network's first parameters, kinds of layers, outputs with the weights that weights_from() makes."""
        request = {"job": "network", "class": name, "init": init, "seed": seed, "weights": weights}
        answer = self.run({**request, "inputs": [list(each) for each in inputs], "other": other})
        answer = self.tidy(answer, parameters=torch.Tensor, kinds=str, init_error=(str, type(None)), forward=dict)
        count = len(inputs)
        answer["forward"] = self.many(answer["forward"], count, value=torch.Tensor, grads=(torch.Tensor, type(None)))
        for key, form in (("again", {"parameters": torch.Tensor}), ("other", {"value": torch.Tensor})):
            answer[key] = self.tidy(answer.get(key, {"error": "no answer"}), **form)
        return answer

    def loss(self, request):
        """Losses with the submission's own networks and with stand-ins, and what its own networks say."""
        answer = self.run({"job": "loss", **request})
        form = dict(value=torch.Tensor, trains=bool, changed=int, grads=(torch.Tensor, type(None)), of_d=int)
        made = {
            which: self.many(answer.get(which), len(request["calls"]), **form) for which in ("own", "column", "flat")
        }
        made["says"] = self.tidy(answer.get("says"), real=torch.Tensor, fake=torch.Tensor, far=torch.Tensor)
        return made


def reach(grads, names):
    """ "" if a gradient reaches all of the inputs, else which it does not reach."""
    missing = [name for grad, name in zip(grads, names) if grad is None or not grad.any()]
    if missing or not grads:
        return f"no gradient reaches {', '.join(missing or names)}"
    broken = [name for grad, name in zip(grads, names) if not grad.isfinite().all()]
    return f"the gradient for {', '.join(broken)} is not finite" if broken else ""


def changed_arguments(answer, names):
    """A sentence where arguments were changed in place, else ""."""
    found = [names[number] for number in answer["changed"] if 0 <= number < len(names)]
    return f"changes its argument {', '.join(found)} in place: a caller still needs it" if found else ""


def form(answer, names, shapes, asked):
    """A sentence unless the value is a float tensor of one of these shapes, and the arguments are left as they were."""
    value = answer["value"]
    if tuple(value.shape) not in shapes:
        return f"shape {list(value.shape)}, {asked} is asked"
    if not value.dtype.is_floating_point:
        return f"{str(value.dtype).removeprefix('torch.')} is returned, float32 is asked"
    return changed_arguments(answer, names)
