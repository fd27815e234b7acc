"""The judges of the later edition's questions, on score matching and Langevin dynamics, with stand-in networks."""

import itertools
import math

import torch

import hw5_lab.teaching.diagnoses as known
from hw5_lab.teaching.diagnoses import diagnose, same
from hw5_lab.teaching.judging import call, changed_arguments, question, reach
from hw5_lab.teaching.questions_networks import judge_network

SCORE_SHAPES = [(200, 26), (200,), (400, 200), (400,), (200, 400), (200,), (2, 200), (2,)]


@question("4(b) levels", "hw5_diffusion", "value")
def noise_levels(ask, draw, sheet):
    settings = [(0.1, 0.01, 10), (round(draw.uniform(1).item() + 1, 3), 0.02, 7), (0.5, 0.25, 2)]
    name = "generate_noise_levels ScoreMatching.generate_noise_levels"
    found = []
    for (begin, end, count), answer in zip(settings, ask.calls(*(call(name, *each) for each in settings))):
        right = lambda **switches: known.levels(begin, end, count, **switches)
        found.append(answer.get("error") or diagnose(answer["value"].flatten(), right, known.LEVELS))
        if found[-1].startswith("another value") and answer["value"].numel() > 2:
            value = answer["value"].flatten()
            ratios = value[1:] / value[:-1]
            if ratios.isfinite().all() and ratios.std() < 1e-4:
                found[-1] = f"geometric, but from {value[0]:.3g} by the factor {ratios[0]:.3g}: end is the last"
    sheet["value"] = next(filter(None, found), "")


RELU = torch.relu


def score_net(weights, x, sigma, first=RELU, second=RELU, third=RELU, divide=lambda out, s: out / s):
    """The network of the homework, whose features are given: cos and sin of pi f x for six f, then x."""
    waves = x[:, :, None] * math.pi * 2 ** torch.linspace(0, 5, 6).double()
    h = torch.cat([torch.cat([waves.cos(), waves.sin()], 2).flatten(1), x], 1)
    *layers, (w, b) = weights
    for (weight, bias), hidden in zip(layers, (first, second, third)):
        h = hidden(torch.nn.functional.linear(h, weight, bias))
    return divide(torch.nn.functional.linear(h, w, b), sigma)


SCORE_NET = [
    ("the output is not divided by sigma", {"divide": lambda out, s: out}),
    ("the output is multiplied by sigma, not divided", {"divide": lambda out, s: out * s}),
    ("the output is divided by sigma^2, not by sigma", {"divide": lambda out, s: out / s**2}),
    ("the sign of the output is turned", {"divide": lambda out, s: -out / s}),
    ("ReLU after the last layer too", {"divide": lambda out, s: out.relu() / s}),
    ("the output is divided by the square root of sigma", {"divide": lambda out, s: out / s.sqrt()}),
    *known.instead("ReLU", ["first", "second", "third"], "between the layers"),
    *known.instead("ReLU", ["first"], "after the first layer"),
    *known.instead("ReLU", ["second"], "after the second layer"),
    *known.instead("ReLU", ["third"], "after the third layer"),
]


@question("4(b) network", "hw5_diffusion", "layers, form, value, division by sigma")
def score_network(ask, draw, sheet):
    x, sigma, weights = draw.uniform(9, 2), draw.uniform(9, 1, low=0.05, high=0.5), draw.normal(5003)
    answer = ask.network("DiffusionModel", [], weights, [[x, sigma], [x, 2 * sigma], [x, torch.tensor(0.3)]])
    *forward, number = answer["forward"]
    sheet["gradient"] = ""  # of no use here: the value is compared
    judge_network(answer, weights, [x, sigma], sheet, SCORE_SHAPES, [(9, 2)], score_net, SCORE_NET, again=False)
    del sheet["gradient"]
    if error := next((each["error"] for each in forward if "error" in each), ""):
        return sheet.all(error, "form", "division by sigma")
    value, other = (each["value"] for each in forward)
    divided = value.shape == (9, 2) and same(value / 2, other) and value.any()
    sheet["division by sigma"] = "" if divided else "the output does not halve where sigma doubles"
    if not answer["parameters"]:
        sheet.all(sheet["layers"])
    if "error" in number:
        sheet.remarks.append(f"with one number as sigma for all points it fails: {number['error']}")


@question("4(b) loss", "hw5_diffusion", "value, weighting, noise, gradient")
def denoising_loss(ask, draw, sheet):
    x, sigmas = draw.uniform(3000, 2), torch.tensor([0.4, 0.15, 0.05, 0.02])
    score = {"size": 1.0, "matrix": 3 * draw.normal(2, 2), "offset": draw.normal(2)}
    name = "compute_denoising_loss"
    first, second = ask.calls(*(call(name, score, x, sigmas, seed=seed) for seed in (1, 2)))
    if "error" in first:
        return sheet.all(first["error"])
    if all(all(map(torch.equal, each[:2], first["asked"][0][:2])) for each in first["asked"]):
        first["asked"] = first["asked"][:1]  # the same question, asked again
    if len(first["asked"]) != 1 or any(
        len(each) != len(x) or each.shape[1] != columns for each, columns in zip(first["asked"][0], (2, 1, 2))
    ):
        return sheet.all(
            f"the network is asked {len(first['asked'])} times: once is asked, for all points"
            if len(first["asked"]) != 1
            else "the network is asked for other points than one x~ for each x"
        )
    noisy, sigma, said = (each.double() for each in first["asked"][0])
    noise, value = noisy - x, first["value"].double()
    sheet["noise"] = judge_noise(noise, sigma[:, 0], sigmas.double())
    if not sheet["noise"] and second.get("asked") and same(second["asked"][0][0], noisy):
        sheet["noise"] = "the same at every call: a seed is set inside"
    elif not sheet["noise"] and second.get("asked") and same(second["asked"][0][1], sigma):
        sheet["noise"] = "the same levels at every call: each point's is to be drawn"
    weight, where = {}, ""
    for where, weight in [("", {}), *known.WEIGHTS]:
        right = lambda **switches: known.denoising(noise, sigma, said, **{**weight, **switches})
        if value.numel() == 1 and same(value.flatten()[0], right(), rtol=1e-3, atol=1e-6):
            break
    else:
        where = diagnose(
            value.squeeze(), lambda **s: known.denoising(noise, sigma, said, **s), [*known.DENOISING, *known.WEIGHTS]
        )
        sheet.all(where, "value", "weighting")
        if any(sentence in where for sentence, _ in known.DENOISING) and not any(s in where for s, _ in known.WEIGHTS):
            sheet["weighting"] = ""
        elif any(sentence in where for sentence, _ in known.WEIGHTS) and where in dict(known.WEIGHTS):
            sheet["value"] = ""
        sheet["gradient"] = reach(first["grads"], ["the network"])
        if where.startswith(("another", "shape", "the same")) and not (
            value.numel() == 1 and first["grads"][0] is not None
        ):
            sheet.all(where)
        return
    sheet["value"], sheet["weighting"] = "", where
    matrix, offset = (score[key].double().requires_grad_() for key in ("matrix", "offset"))
    again = torch.sin(noisy @ matrix + offset) / sigma
    rights = torch.autograd.grad(known.denoising(noise, sigma, again, **weight), [matrix, offset])
    sheet["gradient"] = reach(first["grads"], ["the network's weights"] * 2) or (
        "" if all(same(a, b, rtol=1e-2, atol=1e-4) for a, b in zip(first["grads"], rights)) else "not that of the loss"
    )
    if why := changed_arguments(first, ("scorenet", "training_data", "sigmas")):
        sheet["value"] = why


def judge_noise(noise, sigma, sigmas):
    """ "" for one level and two normal numbers of its size for each point, else what the noise is."""
    known_levels = (sigma[:, None] - sigmas).abs().min(1).values < 1e-5
    if not known_levels.all():
        return "sigma is none of the levels"
    shares = torch.stack([(sigma - level).abs() < 1e-5 for level in sigmas]).double().mean(1)
    if (shares == 1).any():
        return "one sigma for all points: each point needs its own"
    if (shares - 1 / len(sigmas)).abs().max() > 0.06:
        return "the levels are not drawn uniformly"
    eps = noise / sigma[:, None]
    if noise.abs().max() < 1e-9:
        return "no noise: the network is asked at the data itself"
    if (eps[0] - eps).abs().max() < 1e-3:
        return "one noise for all points: each point needs its own"
    std = eps.std(0)
    for sentence, other in (
        ("divided by sigma", sigma**-2),
        ("multiplied by sigma^2", sigma),
        ("without sigma", 1 / sigma),
        ("multiplied by the square root of sigma", sigma**-0.5),
    ):
        if (((eps / other[:, None]).std(0) - 1).abs() < 0.08).all() and ((std - 1).abs() > 0.08).any():
            return f"the noise is {sentence}: sigma times noise is asked"
    if eps.min() > -0.01 and eps.max() < 1.01:
        return "uniform noise, torch.rand for torch.randn?"
    if ((std - 1).abs() > 0.08).any() or (eps.mean(0).abs() > 0.11).any():
        return "the noise is not normal of deviation sigma"
    if abs(torch.corrcoef(eps.T)[0, 1]) > 0.12:
        return "one number for both coordinates: each needs its own"
    if (abs(eps) > 2).double().mean() < 0.03:
        return "the noise is not normal"
    return ""


@question("4(c) sampler", "hw5_diffusion", "steps, step, schedule, noise")
def langevin(ask, draw, sheet):
    """From what the stand-in is asked, each step can be seen, whatever the function returns."""
    count, sigmas, iterations, eps = 800, torch.tensor([0.4, 0.1, 0.02]), 6, 2e-5
    x = draw.uniform(count, 2)
    score = {"size": 3e3, "matrix": 20 * draw.normal(2, 2), "offset": draw.normal(2)}
    names = "langevin_dynamics ScoreMatching.langevin_dynamics"
    (answer,) = ask.calls(call(names, score, x, sigmas, iterations, eps, seed=1))
    own_start = "there is no function" in answer.get("error", "")
    if own_start:  # the other form
        (answer,) = ask.calls(call("langevin_dynamics_sample", score, count, sigmas, iterations, eps, seed=1))
    if "error" in answer:
        return sheet.all(answer["error"])
    asked, value = answer["asked"], answer["value"].double()
    if not asked:
        return sheet.all("the network is never asked")
    if any(tuple(each[0].shape) != (count, 2) or tuple(each[1].shape) != (count, 1) for each in asked):
        return sheet.all("the network is asked for other points than all samples")
    total = len(sigmas) * iterations
    last = (
        value[-1] if value.dim() == 3 and value.shape[1:] == (count, 2) else value[:, -1] if value.dim() == 3 else value
    )
    if not last.isfinite().any():
        return sheet.all("nan or inf")
    sheet["steps"] = changed_arguments(answer, ("scorenet", "x", "sigmas"))
    if len(asked) != total:
        sheet["steps"] = f"{len(asked)} steps: {iterations} for each of the {len(sigmas)} levels, {total}, are asked"
    elif not own_start and not same(asked[0][0], x):
        sheet["steps"] = "does not start from the x that is given"
    elif last.shape != (count, 2):
        sheet["steps"] = f"the last samples have the shape {list(last.shape)}, {[count, 2]} is asked"
    elif value.dim() == 3 and value.shape[1:] == (count, 2) and len(value) < total:
        sheet["steps"] = f"{len(value)} positions are given: x is asked after each of the {total} steps"
    elif value.dim() == 3 and len(value) == total + 1 and same(value[0], x):
        sheet["steps"] = "the start is given too: x is asked after each step"
    elif value.dim() == 3 and (value[1:] - value[:-1]).abs().max() == 0:
        sheet["steps"] = "all positions are the same: x is changed in place"
    sheet["schedule"] = judge_schedule([each[1][0].item() for each in asked], sigmas.tolist(), iterations)
    positions = [each[0].double() for each in asked] + ([last] if last.shape == (count, 2) else [])
    alphas = [eps * (each[1][0].item() / sigmas[-1].item()) ** 2 for each in asked]
    moves = list(zip(asked, alphas, positions, positions[1:]))
    if value.dim() == 3 and len(value) == total > 1 and same(value[0], x) and same(last, positions[-2]):
        sheet["steps"] = sheet["steps"] or "x is given before each step: after it is asked"
        moves.pop()  # the last step is not seen
    if len(asked) == total and all(same(each[0], x) for each in asked[::iterations]):
        sheet["steps"] = (
            sheet["steps"] or "each level starts anew from the x that is given: from where the last one ended"
        )
        moves = [each for number, each in enumerate(moves, 1) if number % iterations or number == total]
    drifts, noises, alphas = [], [], [alpha for _, alpha, *_ in moves]
    for (_, sigma, said), _, before, after in moves:
        move, said = after - before, said.double()
        centred = said - said.mean(0)
        drift = ((move * centred).sum() / (centred**2).sum().clamp(min=1e-12)).item()
        noises.append(move - drift * said)
        drifts.append(
            (drift, sigma[0].item(), noises[-1].std(0).mean().item(), (noises[-1].abs().max() < 1e-12).item())
        )
    sheet["step"] = judge_steps(drifts, alphas, eps, sigmas.tolist())
    if "no noise" in sheet["step"] and shared_noise(noises, alphas):
        sheet["step"], sheet["noise"] = "", "one noise for all samples: each needs its own"
    else:
        sheet["noise"] = sheet["step"] if "no noise" in sheet["step"] else judge_step_noise(noises)
    if len(noises) < total // 2 or value.dim() == 3 and len(value) == total and not same(value[0], positions[1]):
        sheet["steps"] = sheet["steps"] or "other positions are returned than the network is asked at"
    if sheet["step"] and all(abs(drift) < 1e-12 for drift, *_ in drifts):
        sheet.all(sheet["step"])


def shared_noise(noises, alphas):
    """Whether what is added to all samples alike is random and, over all steps, of about the right size."""
    eps = torch.stack([each.mean(0) / (2 * alpha) ** 0.5 for each, alpha in zip(noises, alphas)])
    return 0.4 < eps.square().mean().sqrt() < 2 and eps.std() > 0.4


def judge_schedule(asked, sigmas, iterations):
    right = [sigma for sigma in sigmas for _ in range(iterations)]
    close = lambda other: len(asked) == len(other) and all(abs(a - b) < 1e-4 for a, b in zip(asked, other))
    if close(right):
        return ""
    if close(right[::-1]):
        return "from the smallest sigma to the largest: the noise is to become smaller"
    if close([sigma for _ in range(iterations) for sigma in sigmas]):
        return "the loops are swapped: all steps of a level come before those of the next"
    if len(set(asked)) == 1:
        return "one sigma for all steps: each level has its own"
    return "other levels than sigmas gives, or in another order"


def judge_steps(drifts, alphas, eps, sigmas):
    """The size of the drift and of the noise at each step, against alpha = eps sigma^2 / sigma_L^2."""
    smallest = min(sigmas)
    sizes = (
        ("", alphas),
        ("half of alpha before the score: alpha is asked", [a / 2 for a in alphas]),
        ("alpha is not scaled: eps sigma^2 / sigma_L^2 is asked", [eps for _ in alphas]),
        ("alpha is half of eps", [eps / 2 for _ in alphas]),
        ("alpha is scaled by sigma / sigma_L: the ratio is to be squared", [eps * s / smallest for _, s, *_ in drifts]),
        ("alpha is eps sigma^2: it is to be divided by sigma_L^2", [eps * s**2 for _, s, *_ in drifts]),
        (
            "alpha is divided by the largest sigma: sigma_L is the last",
            [eps * (s / max(sigmas)) ** 2 for _, s, *_ in drifts],
        ),
        ("alpha is upside down: eps sigma^2 / sigma_L^2 is asked", [eps * (smallest / s) ** 2 for _, s, *_ in drifts]),
        ("the sign of the score is turned: x moves away from the data", [-a for a in alphas]),
        ("the square root of alpha before the score: alpha is asked", [a**0.5 for a in alphas]),
        ("twice alpha before the score: alpha is asked", [2 * a for a in alphas]),
        ("alpha is eps sigma / sigma_L^2: sigma is to be squared", [eps * s / smallest**2 for _, s, *_ in drifts]),
        ("alpha is missing before the score", [1.0 for _ in alphas]),
        ("the score is not used", [0.0 for _ in alphas]),
    )
    fits = lambda found, rights, rtol: all(abs(a - b) <= rtol * abs(b) + 1e-12 for a, b in zip(found, rights))
    found = [drift for drift, *_ in drifts]
    # The slope's standard error: the noise over the size of all scores
    said = next((sentence for sentence, rights in sizes if fits(found, rights, 0.06)), None)
    if said is None:
        return "another step before the score than alpha = eps sigma^2 / sigma_L^2"
    stds = [std for _, _, std, _ in drifts]
    if all(std < 1e-3 * (2 * a) ** 0.5 for std, a in zip(stds, alphas)):
        return said or "no noise: sqrt(2 alpha) noise is asked"
    if said:
        return said
    for sentence, rights in (
        ("", [(2 * a) ** 0.5 for a in alphas]),
        ("sqrt(alpha) noise: sqrt(2 alpha) is asked", [a**0.5 for a in alphas]),
        ("2 alpha noise: its square root is asked", [2 * a for a in alphas]),
        ("alpha noise: sqrt(2 alpha) is asked", alphas),
        ("the noise is not scaled: sqrt(2 alpha) is asked", [1.0 for _ in alphas]),
        ("sqrt(2) alpha noise: sqrt(2 alpha) is asked", [2**0.5 * a for a in alphas]),
        ("2 sqrt(alpha) noise: sqrt(2 alpha) is asked", [2 * a**0.5 for a in alphas]),
        (
            "the noise has the size sqrt(2 eps) at all levels: sqrt(2 alpha) is asked",
            [(2 * eps) ** 0.5 for _ in alphas],
        ),
        ("the noise has the size sigma: sqrt(2 alpha) is asked", [s for _, s, *_ in drifts]),
        ("uniform noise in [0, 1]: torch.randn is asked", [(2 * a / 12) ** 0.5 for a in alphas]),
    ):
        if fits(stds, rights, 0.12):
            return sentence
    return "the noise has another size than sqrt(2 alpha)"


def judge_step_noise(noises):
    """ "" for fresh normal noise at every step, point and coordinate."""
    if not all(each.isfinite().all() for each in noises):
        return "nan or inf"
    if any(each.std() < 1e-12 for each in noises):
        return "no noise"
    eps = [each / each.std() for each in noises]
    if any(abs(each.mean().item()) > 0.2 for each in eps):
        return "the mean of the noise is not 0: torch.rand for torch.randn?"
    if any(abs((a * b).mean().item()) > 0.15 for a, b in itertools.combinations(eps, 2)):
        return "the same noise at several steps: each needs its own"
    if any(abs(torch.corrcoef(each.T)[0, 1].item()) > 0.25 for each in eps):
        return "one number for both coordinates: each needs its own"
    if all((each - each[0]).abs().max() < 0.2 for each in eps):
        return "one noise for all samples: each needs its own"
    return ""
