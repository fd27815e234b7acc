"""What explore.html needs of a model: a plain dict of numbers, text, lists and numpy arrays.

These are the only functions that look at an experiment, its homework, and what was found in measuring. The type of an
array says how the page keeps it: float16 for weights, float32 where the last digits count, uint8 for images, bool for
binary images. A network that the page cannot run raises CannotRun.
"""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F

from hw5_lab.page.layers import CannotRun, describe, halves, on_cpu, products, restored, run, weights_of

HALVES = 1_250_000  # weights that fit as float16; a network with more keeps a byte for each
MOST = 8_000_000  # weights that a page holds at all


def check_size(*networks):
    """Whether a page keeps a byte for each weight of the networks; CannotRun for more than it can hold."""
    count = weights_of(*networks)
    if count > MOST:
        raise CannotRun(f"the networks have {count:,} weights, and a page holds {MOST:,} at most")
    return count > HALVES


def bytes_of_images(images):
    """Images with values in [0,1] as uint8 0..255."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


# ---------------------------------------------------------------------------------------------------------- VAE

SHOWN = 1800  # test codes in the latent plane
LOADABLE = 300  # test images that can be loaded where a pixel takes a byte
GAPS = 10  # test images with the largest gap
GRID = {1: 1024, 2: 128}  # points of the posterior's grid in each direction, for so many latents
STORED = 1.6e7  # numbers that the page keeps for all points of the grid
COMPUTED = 1e9  # products that it takes to compute these: about a second


@torch.no_grad()
def describe_vae(experiment, findings):
    """What the page needs of a VAE: both networks, test codes and images; for one or two latents also a grid.

    The homework has encoder(x) -> (mu, sigma_square), decoder(z) -> p, and `pixels`: how images are prepared.
    findings["gap"] [N], where there is one: how far the ELBO of each test image is below its log p(x).
    """
    from hw5_vae import evaluating  # here: the page of another script loads no VAE

    vae = experiment.homework
    encoder, decoder, binary = on_cpu(vae.encoder), on_cpu(vae.decoder), vae.pixels != "gray"
    small = check_size(encoder, decoder)
    images, digits = experiment.test_images.cpu(), experiment.test_labels.cpu().argmax(1)
    means, variances = (torch.cat(parts) for parts in zip(*map(encoder, images.split(1000))))
    mu, sigma, latent = means[:SHOWN], variances[:SHOWN].sqrt(), means.shape[1]
    batch = images[:50]
    missed = (decoder(mu[:50]) - batch).abs().sum(1) / batch.sum(1).clamp(min=1)
    missed[digits[:50] == 1] = math.inf  # a 1 is always reconstructed well
    some = torch.cat([mu[:50], torch.randn(50, latent, generator=torch.Generator().manual_seed(0))])
    kept = lambda images: images.numpy() > 0.5 if binary else bytes_of_images(images)
    described = {
        "latent": latent,
        "pixels": vae.pixels,
        "side": math.isqrt(images.shape[1]),
        "encoder": describe("the encoder", encoder, batch, small=small),
        "decoder": describe_logits(decoder, some, small),
        "labels": digits[:SHOWN].tolist(),
        "start": missed.argmin().item(),  # an image that is reconstructed well, to begin with
        "images": kept(images[: SHOWN if binary else LOADABLE]),
        # Which latents say something of an image: the mean KL of each, in nats
        "kl": (0.5 * (variances + means**2 - 1 - variances.log())).mean(0).tolist(),
    }
    if latent in GRID:
        reach = max(4.0, (mu.abs() + 4 * sigma).max().item())
        described |= {"codes": halves(mu), "grid": grid_of(described["decoder"], latent, reach)}
    if "gap" in findings:
        gap = findings["gap"].cpu()
        worst = gap.argsort(descending=True, stable=True)[:GAPS]
        counts, edges = np.histogram(gap, bins=50)
        described["gaps"] = {
            "counts": counts.tolist(),
            "low": float(edges[0]),
            "high": float(edges[-1]),
            "below": bool((gap < 0).any()),
            "largest": gap.max().item(),
            "draws": getattr(vae, "draws", 1),
            "mean": gap.mean().item(),
            "median": gap.median().item(),
            "images": kept(images[worst]),
            "labels": digits[worst].tolist(),
            "numbers": worst.tolist(),
        }
    told = []
    if not evaluating(kl_is_exact)(vae, encoder, batch):  # else it would move statistics of batch normalisation
        told.append("KL is an estimate from one draw of z for each image: the mean of such estimates may be negative.")
    if experiment.args.refine_encoder:
        told.append(
            f"From epoch {experiment.args.num_epoches + 1} on the encoder alone was trained, on deformed images, "
            "which are harder to explain."
        )
    return {"model": described, "small": small, "told": " ".join(told)}


def describe_logits(decoder, z, small):
    """The decoder as a program of its logits: of decoder.logits, or else of decoder up to its last sigmoid."""
    p = decoder(z)
    if hasattr(decoder, "logits"):
        if not torch.allclose(torch.sigmoid(decoder.logits(z)), p, atol=1e-4):
            raise CannotRun("the decoder: sigmoid(logits(z)) is not what it gives itself")
        return describe("the decoder", decoder.logits, z, small=small)
    program = before_sigmoid(whole := describe("the decoder", decoder, z, small=small))
    if program is whole:
        raise CannotRun(f"the decoder: it ends with {whole['ops'][-1]['op']}, and the page needs a sigmoid there")
    return program


def before_sigmoid(program):
    """A program without the sigmoid at its end; the program itself where there is none."""
    last = program["ops"][-1]
    if last["op"] != "sigmoid" or program["outputs"] != [len(program["ops"])]:
        return program
    return {**program, "ops": program["ops"][:-1], "outputs": last["of"]}


def kl_is_exact(vae, encoder, x):
    """Whether the KL of the training curves is the formula of Eq. 1, and no estimate from draws."""
    mu, sigma_square = encoder(x)
    exact = 0.5 * (sigma_square + mu**2 - 1 - sigma_square.log()).sum(1)
    _, kl = vae.terms(x.to(vae.device), vae.fresh_rng())
    return torch.allclose(kl.cpu(), exact, rtol=1e-2, atol=1e-2)


def grid_of(decoder, latent, reach):
    """What log p(x|z) = x . logits - sum of softplus(logits) needs on a grid of z, but for x: the sums, and the grid.

    With these the page finds log p(x|z) of any x at all points by one product with what the last layer is fed, `units`
    numbers a point; with the logits themselves where the last layer is not linear. Large networks have fewer points.
    """
    z = torch.zeros(1, latent)
    last, body = decoder["ops"][-1], decoder
    if last["op"] == "linear":
        body = {**decoder, "ops": decoder["ops"][:-1], "outputs": last["of"]}
    units = run(body, z)[0].numel()
    most = min(STORED / units, COMPUTED / max(1, products(body, z))) ** (1 / latent)
    points = max(8, min(GRID[latent], 2 * int(most / 2)))
    line = torch.linspace(-reach, reach, points)
    z = torch.cartesian_prod(*[line] * latent).view(-1, latent)
    sums = [F.softplus(run(decoder, part)[0]).sum(1) for part in z.split(2048)]
    return {"reach": reach, "points": points, "sums": torch.cat(sums).float().numpy()}


# ---------------------------------------------------------------------------------------------------------- GAN

REAL = 180  # training images that the page holds, and samples of the run's own noise
SAMPLES = 20  # of a grid
DIRECTIONS = 6


@torch.no_grad()
def describe_gan(experiment, findings):
    """What the page needs of a GAN: both networks, earlier generators, noise, directions, and some training images.

    The homework has sampler, the generator that draws; disc; draw_z(count, generator); and scale(uint8 images), which
    gives the range of values that D knows. The experiment has a record of snapshots.
    """
    gan, record = experiment.homework, experiment.record
    generator, discriminator, small = on_cpu(gan.sampler), on_cpu(gan.disc), check_size(gan.sampler, gan.disc)
    z = torch.cat([gan.fixed_z[:SAMPLES].cpu(), gan.draw_z(REAL, torch.Generator().manual_seed(1)).cpu()])[:REAL]
    real = gan.train_images[:REAL].cpu()
    black, white = (
        gan.scale(torch.full((1, 1, 28, 28), value, dtype=torch.uint8))[0, 0, 0, 0].item() for value in (0, 255)
    )
    x = black + (white - black) * real.float() / 255
    snapshots = {epoch: (f"after epoch {epoch}", weights) for epoch, weights in record["snapshots"]}
    if best := record["best"]:
        snapshots[best["epoch"]] = f"after epoch {best['epoch']}, the best", best["gen"]
    snapshots.pop(len(record["history"]), None)  # the end of the run, which is shown anyway
    fit = weights_of(generator, discriminator) + len(snapshots) * weights_of(generator) <= HALVES
    earlier = []
    for _, (name, weights) in sorted(snapshots.items()):
        gen = copy.deepcopy(generator)
        gen.load_state_dict(weights)
        if fit:
            earlier.append({"name": name, "network": describe("an earlier generator", gen, z[:SAMPLES])})
        else:
            images = (gen(z[:SAMPLES]).flatten(1) - black) / (white - black)
            earlier.append({"name": name, "images": bytes_of_images(images)})
    digits = experiment.data[3].cpu()
    described = {
        "zdim": z.shape[1],
        "range": [black, white],
        "z": halves(z),
        "earlier": earlier,
        "generator": describe("the generator", generator, z[:SAMPLES], small=small),
        "discriminator": describe_judge(discriminator, torch.cat([x[:SAMPLES], generator(z[:SAMPLES])]), small),
        "real": real.flatten(1).numpy(),
        "samples": SAMPLES,
        "digits": (torch.bincount(digits, minlength=10) / len(digits)).tolist(),
    }
    described["directions"] = directions_of(described["generator"], z.shape[1])
    note = ""
    if earlier and not fit:
        note = "Generators of earlier epochs do not fit; the page holds their images of the run's own noise."
    return {"model": described, "small": small, "note": note}


def describe_judge(discriminator, images, small):
    """The discriminator as a program of its logits, also where it ends with a sigmoid."""
    if discriminator(images).numel() != len(images):
        raise CannotRun("the discriminator: it gives several numbers for an image, and the page needs one")
    return before_sigmoid(describe("the discriminator", discriminator, images, small=small))


def directions_of(program, size):
    """Directions of z that change the first layer most, float32 [directions,zdim]; none where it is not linear."""
    noise = {0}  # the numbers of z, and of z in other shapes
    for number, op in enumerate(program["ops"], 1):
        if op["op"] == "reshape" and op["of"][0] in noise:
            noise.add(number)
    first = next((op for op in program["ops"] if op["op"] == "linear" and op["of"][0] in noise), None)
    if first is None or restored(first["weight"]).shape[1] != size:
        return np.zeros((0, size), np.float32)
    directions = torch.linalg.svd(restored(first["weight"]), full_matrices=False)[2][:DIRECTIONS]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return (directions * largest.sign()).float().numpy()  # else the sign would be an accident of the library


# ------------------------------------------------------------------------------------------------------ diffusion


@torch.no_grad()
def describe_diffusion(experiment, findings):
    """What the page needs of score matching: the network, the data, the noise levels, how sampling goes.

    The homework has sampler(x, sigma), the network that samples follow; train_data, noise_levels, window and start.
    """
    matching, args = experiment.homework, experiment.args
    network, data, levels = on_cpu(matching.sampler), matching.train_data.cpu(), matching.noise_levels.cpu()
    check_size(network)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(levels), (100, 1), generator=generator)
    chosen[:2] = torch.tensor([[0], [len(levels) - 1]])
    sigma = levels[chosen]
    x = data[:100] + sigma * torch.randn(100, 2, generator=generator)
    low, high = (level.expand(100, 1) for level in (levels[-1], levels[0]))
    scaled = [(sigma * network(x, sigma)).double() for sigma in (low, high)]
    described = {
        "network": describe("the network", network, x, sigma),
        "told": not torch.allclose(*scaled, rtol=1e-3, atol=1e-3),  # whether sigma does more than divide the result
        "data": data.float().numpy(),
        "levels": levels.double().tolist(),
        "window": [[float(end) for end in ends] for ends in matching.window],
        "word": args.word,
        "steps": args.langevin_steps,
        "eps": args.langevin_eps,
        "start": list(matching.start),
    }
    return {"model": described, "small": False}


DESCRIBE = {"vae": describe_vae, "gan": describe_gan, "diffusion": describe_diffusion}
