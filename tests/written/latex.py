"""Computes formulas as the answers in written/ print them: a reader of the LaTeX that they use.

`names` maps LaTeX, such as p_\\theta(x|z), to a number or tensor. The longest name that fits is taken first. `axes` maps
the index of a sum, such as z, to its axis: all tensors broadcast, an index per axis. `weights` maps the subscript of an
E to its distribution and axis. A sum or a product reaches to the next plus or minus outside of brackets, an E to its
closing bracket, a log to the next factor.
"""

import re

import torch

RELATIONS = {
    "=": lambda a, b, atol: torch.allclose(a, b, rtol=0, atol=atol),
    r"\approx": lambda a, b, atol: torch.allclose(a, b, rtol=0, atol=0.1),
    r"\ge": lambda a, b, atol: bool((a >= b - atol).all()),
    r"\le": lambda a, b, atol: bool((a <= b + atol).all()),
    r"\lt": lambda a, b, atol: bool((a < b).all()),
}
BRACKETS = {"(": ")", "[": "]", "{": "}"}


class Formula:
    def __init__(self, latex, names, axes=None, weights=None):
        latex = re.sub(r"\\(left|right|thinspace|limits)(?![a-z])", "", latex)
        self.rest = latex.strip()
        self.names = sorted(names.items(), key=lambda item: -len(item[0]))
        self.axes, self.weights = axes or {}, weights or {}

    def skip(self, *heads):
        """The head that the rest begins with, which is taken off; None where it begins with none of them."""
        for head in heads:
            end = self.rest[len(head) :]
            if self.rest.startswith(head) and not (head[-1].isalpha() and end[:1].isalpha() and head[0] == "\\"):
                self.rest = end.lstrip()
                return head
        return None

    def expect(self, sign):
        assert self.skip(sign), f"{sign} expected at {self.rest!r}"

    def inside(self):
        """The text of {...}, or of one sign, which is taken off."""
        if self.rest[0] != "{":
            found = re.match(r"\\[a-zA-Z]+|.", self.rest)[0]
            self.rest = self.rest[len(found) :].lstrip()
            return found
        depth = 0
        for end, sign in enumerate(self.rest):
            depth += (sign == "{") - (sign == "}")
            if not depth:
                break
        found, self.rest = self.rest[1:end], self.rest[end + 1 :].lstrip()
        return found

    def chain(self):
        """[value, relation, value, ...] of the whole formula."""
        parts = [self.sum()]
        while self.rest:
            relation = self.skip(*RELATIONS)
            assert relation, f"cannot read {self.rest!r}"
            parts += [relation, self.sum()]
        return parts

    def sum(self):
        total = -self.product() if self.skip("-") else self.product()
        while sign := self.skip("+", "-"):
            total = total + self.product() if sign == "+" else total - self.product()
        return total

    def product(self):
        value = self.power()
        while self.rest and not re.match(r"[-+=,)\]}]|\\(approx|ge|le|lt|Vert|parallel)(?![a-z])", self.rest):
            if self.skip("/"):
                value = value / self.power()
            else:
                self.skip(r"\cdot")
                value = value * self.power()
        return value

    def power(self):
        base = self.base()
        return base ** self.read(self.inside()) if self.skip("^") else base

    def read(self, latex):
        """The value of a part."""
        part = Formula(latex, {}, self.axes, self.weights)
        part.names = self.names
        value = part.sum()
        assert not part.rest, f"cannot read {part.rest!r}"
        return value

    def scripts(self):
        found = self.inside() if self.skip("_") else ""
        if self.skip("^"):
            self.inside()
        return found.split("=")[0].split(":")[0].strip()

    def base(self):
        for name, value in self.names:
            if self.skip(name):
                return torch.as_tensor(value, dtype=torch.float64)
        if found := re.match(r"\d+(\.\d+)?", self.rest):
            self.rest = self.rest[found.end() :].lstrip()
            return torch.tensor(float(found[0]), dtype=torch.float64)
        if head := self.skip(*BRACKETS):
            value = self.sum()
            self.expect(BRACKETS[head])
            return value
        if self.skip(r"\frac"):
            return self.read(self.inside()) / self.read(self.inside())
        if self.skip(r"\log"):
            return self.power().log()
        if self.skip(r"\infty"):
            return torch.tensor(torch.inf, dtype=torch.float64)
        if head := self.skip(r"\sum", r"\prod", r"\int"):
            index = self.scripts() or "z"
            axis, size = self.axes[index]
            body = self.product()
            shape = list(torch.broadcast_shapes(body.shape, [1] * -axis))
            shape[axis] = size
            body = body.expand(shape)
            return body.prod(axis, keepdim=True) if head == r"\prod" else body.sum(axis, keepdim=True)
        if self.skip(r"\mathbb E"):
            distribution, axis = self.weights[self.inside() if self.skip("_") else ""]
            body = self.base() if self.rest.startswith("[") else self.product()
            return (distribution * body).sum(axis, keepdim=True)
        if self.skip(r"\mathrm{KL}", r"D_{\mathrm{KL}}"):
            self.expect("(")
            q = self.sum()
            assert self.skip(",", r"\Vert", r"\parallel"), self.rest
            p = self.sum()
            self.expect(")")
            return torch.where(q > 0, q * (q / p).log(), 0.0).sum(-1, keepdim=True)
        raise AssertionError(f"cannot read {self.rest!r}")


def pieces(latex):
    """The chains of a displayed formula: its columns, apart by \\qquad; lines of `aligned` are one chain."""
    latex = re.sub(r"\\(begin|end)\{aligned\}|&|\\cr(?![a-z])", " ", latex)
    latex = re.sub(r"(?<!\{)\\mathrm d (\\mathbf )?[a-z]", "", latex)  # of an integral
    return [" ".join(piece.split()) for piece in latex.split(r"\qquad")]


def holds(latex, names, axes=None, weights=None, bare=None, atol=1e-8):
    """Assert that a chain of equations and inequalities is true; a formula without any has to have the value `bare`."""
    parts = Formula(latex, names, axes, weights).chain()
    if len(parts) == 1:
        assert bare is not None, f"{latex}: says nothing"
        parts += ["=", bare]
    for left, relation, right in zip(parts[::2], parts[1::2], parts[2::2]):
        left, right = torch.broadcast_tensors(left, right)
        assert RELATIONS[relation](left, right, atol), f"{latex}\n{left} {relation} {right} is not true"
