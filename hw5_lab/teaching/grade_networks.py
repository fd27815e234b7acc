"""The graded questions 2(a), 4(a), 4(b) and 4(c): layers, what they compute, and their first weights."""

import math

import torch

import hw5_lab.teaching.diagnoses as known
from hw5_lab.teaching.diagnoses import diagnose, same
from hw5_lab.teaching.grade_judge import Question, normal, reach, said, uniform

DECODER_SHAPES = [(500, 2), (500,), (784, 500), (784,)]
DNET_SHAPES = [(2, 1, 3, 3), (2,), (4, 2, 3, 3), (4,), (8, 4, 3, 3), (8,), (1, 200), (1,)]
GNET_SHAPES = [(1568, 64), (1568,), (16, 32, 3, 3), (16,), (8, 16, 3, 3), (8,), (1, 8, 3, 3), (1,)]


def make_decoder(generator):
    return {
        "answer": {
            "job": "network",
            "class": "Decoder",
            "init": [2, 500, 784],
            "seed": 11,
            "input": normal(generator, 7, 2),
            "other": {"init": [3, 20, 50], "input": normal(generator, 4, 3)},
        }
    }


def layer(shape):
    outputs, inputs, *kernel = shape
    return f"Conv2d {inputs}->{outputs} {'x'.join(map(str, kernel))}" if kernel else f"Linear {inputs}->{outputs}"


def compare_layers(parameters, expected):
    """ "" if the layers have the expected weights and biases in any order, else how they differ."""
    shapes = [tuple(each.shape) for each in parameters]
    if sorted(shapes) == sorted(expected):
        return ""
    layers, asked = ([layer(shape) for shape in every if len(shape) > 1] for every in (shapes, expected))
    if sorted(layers) == sorted(asked):
        kind = "without a bias" if len(shapes) < len(expected) else "with more parameters than weights and biases"
        count, right = sum(each.numel() for each in parameters), sum(map(math.prod, expected))
        return f"layers {kind}: {count} parameters, {right} are asked"
    if not parameters:
        return "no parameters: layers in a plain list or dictionary are not registered, and would not be trained"
    if any(each.startswith("Linear 392") for each in layers):
        return "padding 1 in the third convolution, 0 is asked: Linear gets 392 inputs, not 200"
    return f"{len(layers)} layers with weights ({', '.join(layers[:6])}); asked: {', '.join(asked)}"


def pick(parameters, expected):
    """[(weight, bias)] in the expected order, whatever theirs is; None where a weight is missing."""
    pairs = []
    for shape in expected[::2]:
        found = [number for number, each in enumerate(parameters) if tuple(each.shape) == shape]
        if not found:
            return None
        bias = parameters[found[0] + 1] if found[0] + 1 < len(parameters) else None
        fitting = bias is not None and bias.shape == shape[:1]
        pairs.append((parameters[found[0]].double(), bias.double() if fitting else torch.zeros(shape[0]).double()))
    return pairs


EXTRA = ("Dropout", "Dropout2d", "BatchNorm1d", "BatchNorm2d", "LayerNorm", "InstanceNorm2d", "Softmax")


def judge_network(formula, mistakes, expected, output_shape):
    """The judge of 2(a), 4(a) and 4(b)."""

    def judge(requests, answers):
        request, answer = requests["answer"], answers["answer"]
        forward = answer["forward"]
        layers = compare_layers(answer["parameters"], expected)
        order = layers
        weights = [tuple(each.shape) for each in answer["parameters"] if each.dim() > 1]
        if not layers and weights != expected[::2]:
            order = f"layers in another order than asked: {', '.join(map(layer, weights))}"
        parts = {"layers": layers, "order": order}
        if sentence := said(forward):
            parts |= dict.fromkeys(("shape", "value", "gradient"), sentence)
        else:
            value, pairs = forward["value"], pick(answer["moved"], expected)
            x, shape, asked = request["input"].double(), list(value.shape), [len(request["input"]), *output_shape]
            right = shape == asked or (output_shape == [1] and shape == asked[:1])
            parts["shape"] = "" if right else f"shape {shape}, {asked} is right"
            parts["value"] = layers
            if pairs is not None:
                parts["value"] = diagnose(value, lambda **switches: formula(pairs, x, **switches), mistakes)
            extra = [kind for kind in answer["kinds"] if kind in EXTRA]
            if parts["value"] and (extra or layers):
                parts["value"] = f"{extra[0]} is no layer that is asked" if extra else layers
            names = [f"{'weights' if each.dim() > 1 else 'biases'} {list(each.shape)}" for each in answer["parameters"]]
            parts["gradient"] = reach(forward["grads"], ["the input", *names])
        if "other" in request:
            parts |= judge_decoder(request, answer)
        return parts, []

    return judge


def judge_decoder(request, answer):
    """The parts of 2(a) that the networks of 4 do not have."""
    shapes = [tuple(each.shape) for each in answer["parameters"]]
    if sorted(shapes) == sorted(DECODER_SHAPES):  # else they are judged as what they are
        shapes = DECODER_SHAPES
    layers = known.plain_layers(shapes, request["seed"])
    expected = [each.detach() for layer in layers for each in layer.parameters()]
    seeded = len(expected) == len(answer["parameters"]) and all(map(same, answer["parameters"], expected))
    other = said(answer["other"])
    if not other and answer["other"]["value"].shape != (4, 50):
        other = f"its output has the shape {list(answer['other']['value'].shape)}"
    return {
        "seeded weights": "" if seeded else "other weights than those of Linear layers, built in order of use",
        "other sizes": other and f"Decoder(3, 20, 50) does not work, sizes are written into the code? {other}",
    }


def make_network(name, init, input_shape):
    return lambda generator: {
        "answer": {
            "job": "network",
            "class": name,
            "init": init,
            "seed": 12,
            "input": uniform(generator, 3, *input_shape, low=-1),
        }
    }


def make_init(generator):
    return {
        name: {"job": "network", "class": name, "init": init, "seed": 13}
        for name, init in (("DNet", []), ("GNet", [64]))
    }


def judge_init(requests, answers):
    parts, remarks = {"biases": "", "DNet's weights": "", "GNet's weights": "", "seeded weights": ""}, []
    for name, answer in answers.items():
        broken = said(answer) or (answer["init_error"] and said({"error": answer["init_error"]}))
        found = (broken,) * 3 if broken else judge_weights(answer, requests[name]["seed"])
        for part, sentence in zip(("biases", f"{name}'s weights", "seeded weights"), found):
            parts[part] = parts[part] or (sentence and (sentence if name in part else f"{name}: {sentence}"))
    return parts, remarks


def weights_of(parameters):
    return [each for each in parameters if each.dim() > 1]


def judge_biases(parameters):
    """Those that follow a layer's weights must be 0."""
    biases = [b for a, b in zip(parameters, parameters[1:]) if a.dim() > 1 and b.shape == a.shape[:1]]
    return "not 0" if any(each.any() for each in biases) else ""


def judge_weights(answer, seed):
    """Sentences on the biases, the distribution of the weights, and the weights themselves."""
    first = answer["parameters"]
    shapes = [tuple(each.shape) for each in first]
    weights, biases = weights_of(first), judge_biases(first)

    def drawn(parameters=first, **how):
        expected = known.initialised(shapes, seed, **how)
        return all(same(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(weights_of(parameters), expected))

    if drawn():
        return biases, "", ""
    again = answer.get("again", {}).get("parameters")
    if again and drawn(kinds=()) and drawn(again, fresh=False):
        return judge_biases(again), "", "__init__ does not call _weight_init"
    for sentence, how in known.INIT:
        if drawn(**how):
            return biases, sentence, sentence
    for weight in weights:
        fan_in = weight[0].numel()
        bound, std = math.sqrt(6 / fan_in), weight.double().std(correction=0).item()
        off = abs(std * math.sqrt(3) / bound - 1) > 2.5 / math.sqrt(weight.numel())  # five standard errors
        if off or weight.abs().max() > bound * (1 + 1e-5):
            sentence = (
                f"{layer(tuple(weight.shape))} has weights of standard deviation {std:.3g}, "
                f"kaiming_uniform_ gives {bound / math.sqrt(3):.3g}"
            )
            return biases, sentence, sentence
    return biases, "", "of the right distribution, but not those of one kaiming_uniform_ per layer in their order"


NETWORKS = [
    Question(
        "2(a)", "Decoder", "hw5_vae", make_decoder, judge_network(known.decoder, known.DECODER, DECODER_SHAPES, [784])
    ),
    Question(
        "4(a)",
        "DNet",
        "hw5_gan",
        make_network("DNet", [], (1, 28, 28)),
        judge_network(known.dnet, known.DNET, DNET_SHAPES, [1]),
    ),
    Question(
        "4(b)",
        "GNet",
        "hw5_gan",
        make_network("GNet", [64], (64,)),
        judge_network(known.gnet, known.GNET, GNET_SHAPES, [1, 28, 28]),
    ),
    Question("4(c)", "_weight_init", "hw5_gan", make_init, judge_init),
]
