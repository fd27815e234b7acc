"""The graded questions 4(d) and 4(e): the losses of the GAN, on networks that stand in for the student's."""

from functools import partial

import torch

import hw5_lab.teaching.diagnoses as known
from hw5_lab.teaching.diagnoses import diagnose, same, unknown
from hw5_lab.teaching.grade_judge import Question, normal, reach, said, uniform


def make_loss(method, with_data):
    def make(generator):
        x, z = uniform(generator, 5, 1, 28, 28), uniform(generator, 5, 64, low=-1)
        data = lambda images: [images] if with_data else []  # noqa: E731
        batches = [
            {"args": [len(noise), *data(images), noise], "seed": seed}
            for images, noise, seed in ((x, z, 1), (x, z, 2), (x[:1], z[:1], 1))
        ]
        # Weights of the stand-ins, for logits of about -3 to 3
        disc, gen = 0.12 * normal(generator, 784, 1), 0.12 * normal(generator, 64, 784)
        return {
            "answer": {
                "job": "loss",
                "method": method,
                "calls": batches,
                "x": x,
                "far": 1000 * uniform(generator, 20, 1, 28, 28),
                "disc": disc,
                "gen": gen,
            }
        }

    return make


def logits_of(request, number):
    """What the stand-ins say, with gradients: ({"real": ..., "fake": ...}, [disc, gen])."""
    disc, gen = (request[name].double().requires_grad_() for name in ("disc", "gen"))
    *data, z = request["calls"][number]["args"][1:]
    logits = {"real": data[0].double().flatten(1) @ disc} if data else {}
    return {**logits, "fake": z.double() @ gen @ disc}, [disc, gen]


def judge_loss(formula, mistakes, player, factors):
    """The judge of 4(d) (player 0, D) and 4(e) (player 1, G). `factors` of the loss count as right."""

    def judge(requests, answers):
        request, (first, second, single) = requests["answer"], answers["answer"]["calls"]
        parts, remarks = {}, []
        wrapped = judge_own(formula, mistakes, answers["answer"].get("own", {}), factors)
        if sentence := said(first):
            return wrapped or (dict.fromkeys(("value", "batch of one", "gradient", "detached fakes"), sentence), [])
        logits, leaves = logits_of(request, 0)
        values = [factor * formula(**logits) for factor in factors]
        factor = next((factor for factor, value in zip(factors, values) if same(first["value"], value)), None)
        if wrapped and not factor:
            return wrapped
        parts["value"] = "" if factor else diagnose(first["value"].squeeze(), partial(formula, **logits), mistakes)
        if first["value"].isfinite().all() and "value" in second and not same(first["value"], second["value"]):
            parts["value"] = "draws numbers of its own: the z that is given is not used"
        if factor and factor != 1:
            remarks.append("the sum of both losses, not half of it")
        one = [factor * formula(**logits_of(request, 2)[0]) for factor in factors]
        parts["batch of one"] = said(single) and f"one example alone: {said(single)}"
        if not parts["batch of one"] and not parts["value"] and not any(same(single["value"], value) for value in one):
            parts["batch of one"] = unknown(single["value"].squeeze(), one[0])
        grads = first["grads"] or [None, None]
        parts["gradient"] = reach([grads[player]], ["DG"[player]])
        if first["trains"]:
            parts["gradient"] = (
                "the discriminator's loss trains the generator: " if player == 0 else ""
            ) + "it calls backward() or a step itself, which is for train() to do"
        elif factor and not parts["gradient"]:
            right = torch.autograd.grad(factor * formula(**logits), leaves)[player]
            if not same(grads[player], right, rtol=1e-3, atol=1e-6):
                parts["gradient"] = f"a part of the gradient for {'DG'[player]} is missing: something is detached"
        if player == 0:
            parts["detached fakes"] = (
                ""
                if grads[1] is None
                else "right, but the fakes are not detached: the loss carries a gradient through G for nothing"
            )
        return parts, remarks

    return judge


def judge_own(formula, mistakes, own, factors):
    """The verdict on a loss that takes D to end with a sigmoid, as the submission's own D does; or None."""
    if "value" not in own or own["far"].min() < 0 or own["far"].max() > 1:
        return None
    names = ("real", "fake") if formula is known.loss_d else ("fake",)
    logits = {name: own[name].double().logit() for name in names}
    found = [diagnose(own["value"].squeeze() / factor, partial(formula, **logits), mistakes) for factor in factors]
    if all(each.abs().max() < 0.2 for each in logits.values()):  # probabilities of about 0.5: labels would not show
        return None
    if "" in found:
        return {}, ["right for a D that ends with a sigmoid: see 4(a)"]
    named = [sentence for sentence in found if sentence in dict(mistakes)]
    return ({"value": named[0]}, ["judged with a D that ends with a sigmoid: see 4(a)"]) if named else None


LOSSES = [
    Question(
        "4(d)",
        "_get_loss_d",
        "hw5_gan",
        make_loss("_get_loss_d", True),
        judge_loss(known.loss_d, known.LOSS_D, 0, (1, 2)),
    ),
    Question(
        "4(e)",
        "_get_loss_g",
        "hw5_gan",
        make_loss("_get_loss_g", False),
        judge_loss(known.loss_g, known.LOSS_G, 1, (1,)),
    ),
]
