"""The judges of the questions on networks: layers, what they compute with given weights, their first weights."""

import math

import torch

import hw5_lab.teaching.diagnoses as known
from hw5_lab.teaching.child import weights_from
from hw5_lab.teaching.diagnoses import diagnose, same
from hw5_lab.teaching.judging import question, reach

DECODER_SHAPES = [(500, 2), (500,), (784, 500), (784,)]
DEEPER_SHAPES = [(500, 2), (500,), (500, 500), (500,), (784, 500), (784,)]
DNET_SHAPES = [(2, 1, 3, 3), (2,), (4, 2, 3, 3), (4,), (8, 4, 3, 3), (8,), (1, 200), (1,)]
GNET_SHAPES = [(1568, 64), (1568,), (16, 32, 3, 3), (16,), (8, 16, 3, 3), (8,), (1, 8, 3, 3), (1,)]
EXTRA = ("Dropout", "Dropout2d", "BatchNorm1d", "BatchNorm2d", "LayerNorm", "InstanceNorm2d", "GroupNorm", "Softmax")


def layer(shape):
    outputs, inputs, *kernel = shape
    return f"Conv2d {inputs}->{outputs} {'x'.join(map(str, kernel))}" if kernel else f"Linear {inputs}->{outputs}"


def compare_layers(shapes, expected):
    """ "" if the layers have the expected weights and biases in any order, else how they differ."""
    if sorted(shapes) == sorted(expected):
        return ""
    layers, asked = ([layer(shape) for shape in every if len(shape) > 1] for every in (shapes, expected))
    if sorted(layers) == sorted(asked):
        kind = "without a bias" if len(shapes) < len(expected) else "with more parameters than weights and biases"
        count, right = (sum(map(math.prod, each)) for each in (shapes, expected))
        return f"layers {kind}: {count} parameters, {right} are asked"
    if not shapes:
        return "no parameters: layers in a plain list or dictionary are not registered, and would not be trained"
    if any(each.startswith("Linear 392") for each in layers):
        return "padding 1 in the third convolution, 0 is asked: Linear gets 392 inputs, not 200"
    return f"{len(layers)} layers with weights ({', '.join(layers[:6])}); asked: {', '.join(asked)}"


def pick(parameters, expected):
    """[(weight, bias)] in the expected order, whatever theirs is; None where a weight is missing."""
    pairs, left = [], list(range(len(parameters)))
    for shape in expected[::2]:
        found = [number for number in left if tuple(parameters[number].shape) == shape]
        if not found:
            return None
        left.remove(found[0])
        bias = parameters[found[0] + 1] if found[0] + 1 < len(parameters) else None
        fitting = bias is not None and bias.shape == shape[:1]
        pairs.append((parameters[found[0]].double(), bias.double() if fitting else torch.zeros(shape[0]).double()))
    return pairs


def judge_network(answer, weights, inputs, sheet, expected, shapes, formula, mistakes, again=True):
    """layers, form, value and gradient; `shapes` are those that the output may have. `again`: it was asked twice."""
    shapes_made = [tuple(each.shape) for each in answer["parameters"]]
    # A matrix of a student's own may be the transpose of a Linear's; a Linear that is one has its sizes swapped
    own = "Linear" not in answer["kinds"]
    turned = [own and len(each) == 2 and each not in expected and each[::-1] in expected for each in shapes_made]
    found = [each[::-1] if turn else each for each, turn in zip(shapes_made, turned)]
    made = [each.T if turn else each for each, turn in zip(weights_from(weights, shapes_made), turned)]
    sheet["layers"] = compare_layers(found, expected)
    forward = answer["forward"][0]
    if "error" in forward:
        return sheet.all(forward["error"], "form", "value", "gradient")
    value, pairs = forward["value"], pick(made, expected)
    fits = tuple(value.shape) in shapes and value.dtype.is_floating_point
    sheet["form"] = "" if fits else f"{value.dtype} of shape {list(value.shape)}, float32 {list(shapes[0])} is asked"
    sheet["form"] = sheet["form"].replace("torch.", "")
    sheet["value"] = sheet["layers"]
    if pairs is not None:
        doubles = [each.double() for each in inputs]
        right = lambda **switches: formula(pairs, *doubles, **switches)
        sheet["value"] = diagnose(
            value, right, mistakes, [("the output", 1, right()), ("a constant", 0, torch.ones(right().shape))]
        )
    second = answer["forward"][1].get("value") if again else None
    if second is not None and not same(value, second) and value.isfinite().all():
        sheet["value"] = (
            "the same input gives another value at each call: a random layer, such as dropout, is not asked"
        )
    extra = [kind for kind in answer["kinds"] if kind in EXTRA]
    if sheet["value"] and (extra or sheet["layers"]):
        sheet["value"] = f"{extra[0]} is no layer that is asked" if extra else sheet["layers"]
    names = [f"{'weights' if len(shape) > 1 else 'biases'} {list(shape)}" for shape in found]
    sheet["gradient"] = reach(forward["grads"], ["the input", *names])
    if len(forward["grads"]) != 1 + len(found):
        sheet["gradient"] = "no gradient"
    without = [] if found else ["any layer"]
    if not found or reach(forward["grads"][:1], ["its input"]):
        anything = 1 if sheet["layers"] else 2  # softmax in D, say, depends on nothing, and is a mistake like others
        sheet.placeholder("value", without or ["its input"], "form", "gradient", of=anything)


@question("2(a)", "hw5_vae", "layers, form, value, gradient, other sizes")
def decoder(ask, draw, sheet):
    z, weights, other = draw.normal(7, 2), draw.normal(5003), draw.normal(4, 3)
    answer = ask.network("Decoder", [2, 500, 784], weights, [[z], [z]], other=[[3, 20, 50], other])
    deeper = sorted(tuple(each.shape) for each in answer["parameters"]) == sorted(DEEPER_SHAPES)
    if deeper:
        sides = [("sigmoid", {}), *((name, {"second": each}) for name, each in known.ACTIVATIONS.items())]
        right = lambda pairs, z, **switches: known.deeper_decoder(pairs, z, **{"second": second, **switches})
        for _, switches in sides:  # the text names no activation for a layer between the two
            second = switches.get("second", torch.sigmoid)
            judge_network(answer, weights, [z], sheet, DEEPER_SHAPES, [(7, 784)], right, known.DECODER)
            if not sheet["value"]:
                break
        sheet["layers"] = (
            "three layers: the text has two, tanh after the first and sigmoid after the second, which gives p"
        )
    else:
        judge_network(answer, weights, [z], sheet, DECODER_SHAPES, [(7, 784)], known.decoder, known.DECODER)
    why = answer["other"].get("error", "")
    if not why and answer["other"]["value"].shape != (4, 50):
        why = f"its output has the shape {list(answer['other']['value'].shape)}"
    if why != answer["forward"][0].get("error"):  # else it works with no sizes
        why = why and f"Decoder(3, 20, 50) does not work, sizes are written into the code? {why}"
    sheet["other sizes"] = why


def judge_table(name, init, shape, expected, shapes, formula, mistakes):
    """The judge of 4(a) and 4(b): a table of layers."""

    def judge(ask, draw, sheet):
        for _ in range(50):  # until the last layer gives numbers of both signs
            x, weights = draw.uniform(3, *shape, low=-1), draw.normal(5003)
            last = formula(pick(weights_from(weights, expected), expected), x.double(), last=known.IDENTITY)
            if last.min() < -0.1 and last.max() > 0.1:
                break
        answer = ask.network(name, init, weights, [[x], [x]])
        judge_network(answer, weights, [x], sheet, expected, shapes, formula, mistakes)
        found = [tuple(each.shape) for each in answer["parameters"] if each.dim() > 1]
        sheet["order"] = sheet["layers"]
        if not sheet["layers"] and found != expected[::2]:
            sheet["order"] = f"layers in another order than asked: {', '.join(map(layer, found))}"

    return judge


TABLE_CHECKS = "layers, order, form, value, gradient"
question("4(a)", "hw5_gan", TABLE_CHECKS)(
    judge_table("DNet", [], (1, 28, 28), DNET_SHAPES, [(3, 1), (3,)], known.dnet, known.DNET)
)
question("4(b)", "hw5_gan", TABLE_CHECKS)(
    judge_table("GNet", [64], (64,), GNET_SHAPES, [(3, 1, 28, 28)], known.gnet, known.GNET)
)

# ------------------------------------------------------------------------------------------------ initialisation


@question("4(c)", "hw5_gan", "biases, DNet's weights, GNet's weights, seeded weights")
def initialisation(ask, draw, sheet):
    said = {"biases": [], "seeded weights": []}
    for name, init in (("DNet", []), ("GNet", [64])):
        answer = ask.network(name, init, draw.normal(100), seed=13)
        broken = answer["init_error"] and ask.said({"error": answer["init_error"]})
        biases, weights, seeded = (broken,) * 3 if broken else judge_weights(answer, seed=13)
        sheet[f"{name}'s weights"] = weights
        said["biases"].append(biases and f"{name}: {biases}")
        said["seeded weights"].append(seeded and f"{name}: {seeded}")
    for check, sentences in said.items():
        sheet[check] = next(filter(None, sentences), "")


def judge_biases(parameters):
    """Each layer's weights must be followed by biases that are 0."""
    weights = [number for number, each in enumerate(parameters) if each.dim() > 1]
    biases = [parameters[number + 1] for number in weights if number + 1 < len(parameters)]
    if len(biases) < len(weights) or any(each.dim() != 1 for each in biases):
        return "a layer has no bias"
    return "not 0" if any(each.any() for each in biases) else ""


def judge_weights(answer, seed):
    """Sentences on the biases, the distribution of the weights, and the weights themselves."""
    first = answer["parameters"]
    shapes = [tuple(each.shape) for each in first]
    weights = [each for each in first if each.dim() > 1]
    if not weights:
        return ("no layers with weights that could be initialised",) * 3
    biases = judge_biases(first)

    def drawn(parameters=first, **how):
        expected = known.initialised(shapes, seed, **how)
        found = [each for each in parameters if each.dim() > 1]
        return len(found) == len(expected) and all(same(a, b, 1e-5, 1e-6) for a, b in zip(found, expected))

    if drawn():
        return biases, "", ""
    again = answer["again"].get("parameters")
    if again and drawn(kinds=()) and drawn(again, fresh=False):
        return judge_biases(again), "", "__init__ does not call _weight_init"
    for sentence, how in known.INIT:
        if drawn(**how):
            return sentence if how.get("init") is torch.nn.init.zeros_ else biases, sentence, sentence
    for weight in weights:
        bound, std = math.sqrt(6 / weight[0].numel()), weight.double().std(correction=0).item()
        off = abs(std * math.sqrt(3) / bound - 1) > 2.5 / math.sqrt(weight.numel())  # five standard errors
        if off or weight.abs().max() > bound * (1 + 1e-5):
            sentence = f"{layer(tuple(weight.shape))} has weights of standard deviation {std:.3g}, " + (
                f"kaiming_uniform_ gives {bound / math.sqrt(3):.3g}"
            )
            return biases, sentence, sentence
    return biases, "", "of the right distribution, but not those of one kaiming_uniform_ per layer in their order"
