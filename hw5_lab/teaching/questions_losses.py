"""The judges of 4(d) and 4(e), the losses of the GAN: what counts is a student's own networks with their own losses."""

from functools import partial

import torch

import hw5_lab.teaching.diagnoses as known
from hw5_lab.teaching.diagnoses import diagnose, same
from hw5_lab.teaching.judging import question, reach

LOSS_CHECKS = "value, own networks, batch of one, gradient, detached fakes"


def make_request(draw, method, with_data):
    """Batches of five, of one, and the first again with another seed; weights of the stand-ins and of own networks."""
    batches = [(draw.uniform(5, 1, 28, 28), draw.uniform(5, 64, low=-1)) for _ in range(8)]
    batches += [(draw.uniform(1, 1, 28, 28), draw.uniform(1, 64, low=-1)), batches[0]]
    data = lambda images: [images] if with_data else []
    calls = [{"args": [len(z), *data(x), z], "seed": seed} for seed, (x, z) in enumerate(batches)]
    return {
        "method": method,
        "calls": calls,
        "x": batches[0][0],
        "far": 1000 * draw.uniform(20, 1, 28, 28),
        "weights": draw.normal(5003),
        # Weights of the stand-ins, for logits of about -3 to 3
        "disc": 0.12 * draw.normal(784, 1),
        "gen": 0.12 * draw.normal(64, 784),
    }


def logits_of(request, number):
    """What the stand-ins say, with gradients: ({"real": ..., "fake": ...}, [disc, gen])."""
    disc, gen = (request[name].double().requires_grad_() for name in ("disc", "gen"))
    *data, z = request["calls"][number]["args"][1:]
    logits = {"real": data[0].double().flatten(1) @ disc} if data else {}
    return {**logits, "fake": z.double() @ gen @ disc}, [disc, gen]


def labels(answers, request):
    """The sentence for labels or weights that only the values of several batches tell; "" where they do not."""
    values = [each["value"].double().flatten() for each in answers[:8] if "value" in each]
    if len(values) < 8 or any(each.numel() != 1 for each in values):
        return ""
    logits = [logits_of(request, number)[0] for number in range(8)]
    terms = []
    for name, who, right in (("real", "real images", 1), ("fake", "fakes", 0 if "real" in logits[0] else 1)):
        if name in logits[0]:
            terms += [(who, right, column) for _, column in known.logit_terms([each[name] for each in logits], who)[:2]]
    columns = torch.stack([column.detach() for *_, column in terms], 1)
    value = torch.cat(values)
    weights = torch.linalg.lstsq(columns, value[:, None], driver="gelsd").solution[:, 0]
    if not same(columns @ weights, value) or not value.isfinite().all():
        return ""
    said = []
    for (who, right, _), (size, shift) in zip(terms[::2], weights.reshape(-1, 2).tolist()):
        if abs(size) < 1e-3:
            said.append(f"the loss of {who} is missing" if abs(shift) < 1e-3 else f"no BCE of {who}")
            continue
        if abs(1 - shift / size - right) > 1e-2:
            said.append(f"the label of {who} is {1 - shift / size:.3g}: {right} is asked")
        asked = 1 / len(terms[::2])
        if abs(size - asked) > 1e-3:
            said.append(f"the weight of the loss of {who} is {size:.3g}: {asked:g} is asked")
    return "; and ".join(said)


def judge_loss(formula, mistakes, player, factors, ask, request, sheet):
    """The judge of 4(d) (player 0, D) and 4(e) (player 1, G). `factors` of the loss count as right."""
    made = ask.loss(request)
    says, own, both = made["says"], made["own"], [made["column"], made["flat"]]
    logits, leaves = logits_of(request, 0)
    right = lambda answer, number: next(
        (f for f in factors if same(answer["value"], f * formula(**logits_of(request, number)[0]))), None
    )
    fitting = next((each for each in both if "value" in each[0] and right(each[0], 0)), None)
    answers = fitting or next((each for each in both if "value" in each[0]), both[0])
    first, single, again = answers[0], answers[8], answers[9]
    probabilities, own_right = judge_own(formula, mistakes, says, own[0], factors)
    if "error" in first:
        if probabilities is None:
            return sheet.all(own[0].get("error") if "error" not in says and "error" in own[0] else first["error"])
        sheet["value"], single, answers = probabilities, own[8], own  # a D that ends with a sigmoid, and BCELoss
    else:
        factor = right(first, 0)
        whole = lambda **switches: torch.stack(
            [formula(**logits_of(request, each)[0], **switches) for each in range(8)]
        )
        values = [each["value"].double().flatten() for each in answers[:8] if "value" in each]
        several = len(values) == 8 and all(each.numel() == 1 for each in values)
        value, right_one = (
            (torch.cat(values), whole) if several else (first["value"].squeeze(), partial(formula, **logits))
        )
        found = [diagnose(value / f, right_one, mistakes) for f in factors]
        sheet["value"] = "" if factor else next((each for each in found if not each.startswith("another")), found[0])
        if sheet["value"].startswith("another value"):
            sheet["value"] = labels(answers, request) or sheet["value"]
        if not factor and probabilities is not None and not sheet["value"] == "":
            sheet["value"], single, answers = probabilities, own[8], own
    if sheet["value"] and probabilities is None and "value" in first and first["value"].isnan().any():
        sheet["value"] = "nan: the logarithm of logits, which may be below 0? BCEWithLogitsLoss takes logits"
    drawn = "value" in again and "value" in first and not same(first["value"], again["value"])
    if drawn and first["value"].isfinite().all():
        sheet["value"] = "draws numbers of its own: the z that is given, or the labels, are not all that is used"
    if not sheet["value"] and "value" in first and right(first, 0) not in (1, None):
        sheet.remarks.append("the sum of both losses, not half of it")
    if answers is own and not sheet["value"]:
        sheet.remarks.append("right for a D that ends with a sigmoid: see 4(a)")
    # With the student's own networks, where they work
    if "error" in says:
        sheet["own networks"] = sheet["value"]
    else:
        single = own[8]
        sheet["own networks"] = own[0].get("error") or (
            "" if own_right else sheet["value"] or "another value than with D's logits"
        )
        if "error" in own[0]:
            sheet["own networks"] = f"with the networks of this file: {own[0]['error']}"
    sheet["batch of one"] = f"one example alone: {single['error']}" if "error" in single else ""
    judge_gradient(formula, sheet, answers[0], logits, leaves, player, factors if "value" in first else ())
    if changed := answers[0].get("changed"):
        sheet["value"] = sheet["value"] or f"changes its argument number {changed[0]} in place"
    if sheet["value"] and "value" in answers[0] and reach(answers[0]["grads"], ["D"]) and not answers[0]["trains"]:
        sheet.all(sheet["value"], "batch of one", "own networks", "gradient")


def judge_gradient(formula, sheet, first, logits, leaves, player, factors):
    grads, who = first["grads"], "DG"[player]
    mine = grads[: first["of_d"]] if player == 0 else grads[first["of_d"] :]
    theirs = grads[first["of_d"] :]
    sheet["gradient"] = reach([next((each for each in mine if each is not None and each.any()), None)], [who])
    if first["trains"]:
        sheet["gradient"] = (
            "the discriminator's loss trains the generator: " if player == 0 else ""
        ) + "it calls backward() or a step itself, which is for train() to do"
    elif not sheet["value"] and not sheet["gradient"] and len(grads) == 2:
        rights = [torch.autograd.grad(f * formula(**logits), leaves, retain_graph=True)[player] for f in factors]
        if rights and not any(same(mine[0], each, rtol=1e-3, atol=1e-6) for each in rights):
            sheet["gradient"] = f"a part of the gradient for {who} is missing: something is detached"
    if player == 0:
        alone = all(each is None for each in theirs)
        sheet["detached fakes"] = "" if alone else "the fakes are not detached: the loss carries a gradient through G"
        if sheet["value"]:
            sheet["detached fakes"] = ""
    else:
        sheet["detached fakes"] = ""


def judge_own(formula, mistakes, says, own, factors):
    """(the verdict on a loss for a D that ends with a sigmoid, or None; whether it fits what own networks say)."""
    if "error" in says or "error" in own:
        return None, False
    names = ("real", "fake") if formula is known.loss_d else ("fake",)
    scores = {name: says[name].double().reshape(-1, 1) for name in names}
    value = own["value"].squeeze()
    fits = any(same(value, f * formula(**scores)) for f in factors)
    if says["far"].min() < 0 or says["far"].max() > 1:
        return None, fits
    logits = {name: each.logit() for name, each in scores.items()}
    if all(each.abs().max() < 0.2 or not each.isfinite().all() for each in logits.values()):
        return None, fits  # probabilities of about 0.5, where labels would not show, or of 0 and 1
    found = [diagnose(value / f, partial(formula, **logits), mistakes) for f in factors]
    if "" in found:
        return "", True
    named = [sentence for sentence in found if sentence in dict(mistakes)]
    return (named[0] if named else None), fits


@question("4(d)", "hw5_gan", LOSS_CHECKS)
def loss_d(ask, draw, sheet):
    judge_loss(known.loss_d, known.LOSS_D, 0, (1, 2), ask, make_request(draw, "_get_loss_d", True), sheet)


@question("4(e)", "hw5_gan", LOSS_CHECKS.removesuffix(", detached fakes"))
def loss_g(ask, draw, sheet):
    judge_loss(known.loss_g, known.LOSS_G, 1, (1,), ask, make_request(draw, "_get_loss_g", False), sheet)
    sheet.pop("detached fakes", None)
