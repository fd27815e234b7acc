"""How fast the scripts are, each number measured side by side: a program, not a test.

    python tests/benchmark.py                     # half an hour on two cores; --rounds 5 --data_dir DIR

All contenders of a table take turns, a few steps each, for some rounds; a number is the median over the rounds, in
brackets the smallest and the largest. An epoch's time is that of its steps, without evaluation and figures.
"""

import argparse
import gzip
import math
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import hw5_gan
import hw5_utils as utils
import hw5_vae
from hw5_lab import door
from hw5_lab.experiments import refine
from plain import plain_networks

# Flags, and the epochs after which the model is as good as the course's loop after all its epochs
RECIPES = {"vae": (["--epochs", "9", "--lr", "0.008"], 9), "gan": (["--edition", "cs446-tuned"], 7)}

# ------------------------------------------------------------------------------------- the course's plain loops
# Each is a generator that trains for ever and yields after each step.


def plain_vae(images, args, vae=None, shuffle=True):
    """DataLoader, Adam as it comes, sigmoid and then log, both densities and the losses written as the formulas."""
    vae = vae or hw5_vae.VAE(args)
    encoder, decoder = vae.encoder, vae.decoder
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=args.lr)
    loader = DataLoader(TensorDataset(images), args.batch_size, shuffle=shuffle)
    while True:
        for (x,) in loader:
            mu, sigma_square = encoder(x)
            z = mu + torch.sqrt(sigma_square) * torch.randn_like(mu)
            p = decoder(z)
            log_p_x = (x * torch.log(p + 1e-10) + (1 - x) * torch.log(1 - p + 1e-10)).sum(1)
            log_p_z = (-0.5 * math.log(2 * math.pi) - 0.5 * z**2).sum(1)
            log_q_z = (-0.5 * torch.log(2 * math.pi * sigma_square) - (z - mu) ** 2 / (2 * sigma_square)).sum(1)
            loss = -(log_p_x + log_p_z - log_q_z).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            yield


def plain_gan(images, batch_size, zdim=64, lr=0.0002, detach=False, networks=None):
    """DataLoader over float images, Adam as it comes, fakes generated for each player.

    D's loss is carried back through G too, for nothing, as in the public versions looked at, or the fakes are detached from it.
    """
    disc, gen = networks or plain_networks(zdim)
    optimizer_d, optimizer_g = (torch.optim.Adam(network.parameters(), lr=lr) for network in (disc, gen))
    loader = DataLoader(TensorDataset(images.float() / 255), batch_size, shuffle=True, drop_last=True)
    bce, one, zero = nn.BCEWithLogitsLoss(), torch.ones(batch_size, 1), torch.zeros(batch_size, 1)
    while True:
        for (x,) in loader:
            z = 2 * torch.rand(batch_size, zdim) - 1
            fake = gen(z).detach() if detach else gen(z)
            loss_d = 0.5 * (bce(disc(x), one) + bce(disc(fake), zero))
            optimizer_d.zero_grad()
            loss_d.backward()
            optimizer_d.step()
            loss_g = bce(disc(gen(z)), one)
            optimizer_g.zero_grad()
            loss_g.backward()
            optimizer_g.step()
            loss_d.item(), loss_g.item()
            yield


def plain_load(path):
    """One IDX image file, read image by image and row by row."""
    images = []
    with gzip.open(path) as file:
        _, count, rows, columns = struct.unpack(">4I", file.read(16))
        for _ in range(count):
            image = np.zeros((rows, columns), np.float32)
            for row in range(rows):
                image[row] = struct.unpack(f">{columns}B", file.read(columns))
            images.append(torch.from_numpy(image).unsqueeze(0))
    return images


# ------------------------------------------------------------------------------------------------------ ours


def experiment(script, data_dir, *flags):
    """What `python SCRIPT FLAGS` trains, on the CPU."""
    line = ["--device", "cpu", *map(str, flags)]
    if script != "hw5_diffusion":
        line += ["--data_dir", str(data_dir)]
    return door.build(script, door.parse_args(script, line))


def our_vae(data_dir, *flags):
    """The script's own step; where an epoch ends the next one begins."""
    vae = experiment("hw5_vae", data_dir, *flags).homework
    while True:
        order = torch.randperm(len(vae.train_images), generator=vae.shuffle_rng)
        for indices in order.split(vae.args.batch_size):
            log_p_x, kl = vae.step(vae.train_images[indices])
            log_p_x.sum().item(), kl.sum().item()
            yield


def our_networks(data_dir):
    """Both networks forward, backward and Adam through autograd: no noise, no likelihood, no KL."""
    vae = experiment("hw5_vae", data_dir).homework
    x = vae.train_images[: vae.args.batch_size]
    while True:
        mu, sigma_square = vae.encoder(x)
        loss = vae.decoder.logits(mu + sigma_square).sum()
        vae.optimizer.zero_grad()
        loss.backward()
        vae.optimizer.step()
        yield


def our_gan(data_dir, *flags):
    gan = experiment("hw5_gan", data_dir, *flags).homework
    while True:
        order = torch.randperm(len(gan.train_images), generator=gan.shuffle_rng)
        for indices in order.split(gan.batch_size)[: gan.steps]:
            real = gan.scale(gan.train_images[indices])
            torch.stack(gan.step(real, gan.draw_z(len(real), gan.noise_rng))).tolist()
            yield


# Other commands whose epochs are timed
EPOCHS = {
    "`hw5_vae.py --refine_encoder 400`, refining": ("hw5_vae", ["--refine_encoder", 400]),
    "`hw5_vae.py --train_size 60000`": ("hw5_vae", ["--train_size", 60_000]),
    "`hw5_vae.py --train_size 60000 --refine_encoder 160`, refining": (
        "hw5_vae",
        ["--train_size", 60_000, "--refine_encoder", 160],
    ),
    "`hw5_vae.py --edition dynamic`": ("hw5_vae", ["--edition", "dynamic"]),
    "`hw5_vae.py --edition dynamic-deep`": ("hw5_vae", ["--edition", "dynamic-deep"]),
    "`hw5_gan.py --edition cs446-tuned`": ("hw5_gan", ["--edition", "cs446-tuned"]),
    "`hw5_diffusion.py`": ("hw5_diffusion", []),
    "`hw5_diffusion.py --edition s24`": ("hw5_diffusion", ["--edition", "s24"]),
}

RUNS = "hw5_vae.py", "hw5_diffusion.py", "hw5_diffusion.py --edition s24"  # commands that are timed as a whole


def our_epochs(data_dir, script, flags):
    """The epochs of a run with these flags, of its refinement where it has one."""
    ours = experiment(script, data_dir, *flags)
    if "--refine_encoder" in flags:
        return refine.epochs(ours.homework, ours.more_parts["refiner"], ours.args.refine_encoder)
    return ours.homework.epochs()


# ------------------------------------------------------------------------------------------------- the floors
# Only the products of a step, forward and backward, and one fused pass of Adam over weights, gradients and moments.


def adam_pass(shapes):
    parameters = [nn.Parameter(torch.randn(*shape)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return torch.optim.Adam(parameters, lr=1e-4, fused=True).step


def vae_floor(batch_size=100, hidden=500, data=784, latent=2):
    """Products of a batch [B,I] with weights [I,O]: forward, for the weights' gradient, and (but for the first) for the input's."""
    layers = [(data, hidden), (hidden, 2 * latent), (latent, hidden), (hidden, data)]
    tensors = [(torch.randn(batch_size, i), torch.randn(i, o), torch.randn(batch_size, o)) for i, o in layers]
    outputs = [(torch.empty(batch_size, o), torch.empty(i, o), torch.empty(batch_size, i)) for i, o in layers]
    adam = adam_pass([shape for i, o in layers for shape in ((i, o), (o,))])
    while True:
        for number, ((x, w, dy), (y, dw, dx)) in enumerate(zip(tensors, outputs)):
            torch.mm(x, w, out=y)
            torch.mm(x.T, dy, out=dw)
            if number:
                torch.mm(dy, w.T, out=dx)
        adam()
        yield


def gan_floor(batch_size=256, zdim=64):
    """The convolutions and products of one step: D on real and on fake images, G forward, D and G backward for G's loss."""
    last = torch.channels_last
    random = lambda *shape: (
        torch.randn(*shape).contiguous(memory_format=last) if len(shape) == 4 else torch.randn(*shape)
    )
    layers_d = [((1, 28), (2, 28), 1), ((2, 14), (4, 14), 1), ((4, 7), (8, 5), 0)]
    layers_g = [((32, 7), (16, 14)), ((16, 14), (8, 28))]
    n = batch_size
    convs_d = [
        (random(n, ci, si, si), random(co, ci, 3, 3), random(n, co, so, so), p) for (ci, si), (co, so), p in layers_d
    ]
    convs_g = [(random(n, ci, si, si), random(ci, co, 4, 4), random(n, co, so, so)) for (ci, si), (co, so) in layers_g]
    x, w, dy = random(n, 8, 28, 28), random(1, 8, 3, 3), random(n, 1, 28, 28)
    h, v, dl = torch.randn(n, 200), torch.randn(200, 1), torch.randn(n, 1)
    z, u, dh = torch.randn(n, zdim), torch.randn(zdim, 1568), torch.randn(n, 1568)
    adam_d = adam_pass([tuple(p.shape) for p in hw5_gan.DNet().parameters()])
    adam_g = adam_pass([tuple(p.shape) for p in hw5_gan.GNet(zdim).parameters()])

    def backward(dy, x, w, stride, padding, transposed, mask):
        torch.ops.aten.convolution_backward(
            dy, x, w, [w.shape[0]], [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1, mask
        )

    while True:
        torch.mm(z, u)
        for x_g, w_g, _ in convs_g:
            F.conv_transpose2d(x_g, w_g, stride=2, padding=1)
        F.conv2d(x, w, padding=1)
        for use in ("D on real", "D on fake", "G"):
            for number, (x_d, w_d, dy_d, padding) in enumerate(convs_d):
                F.conv2d(x_d, w_d, padding=padding)
                backward(dy_d, x_d, w_d, 1, padding, False, [use == "G" or number > 0, use != "G", use != "G"])
            torch.mm(h, v), torch.mm(dl, v.T)
            if use != "G":
                torch.mm(h.T, dl)
        adam_d()
        backward(dy, x, w, 1, 1, False, [True] * 3)
        for x_g, w_g, dy_g in convs_g:
            backward(dy_g, x_g, w_g, 2, 1, True, [True] * 3)
        torch.mm(z.T, dh)
        adam_g()
        yield


# ------------------------------------------------------------------------------------------------- measuring


def interleave(contenders, steps, rounds):
    """{name: seconds of a step in each round}; a contender is an iterator over its steps. The first round warms up."""
    seconds = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, iterator in contenders.items():
            start = time.perf_counter()
            for _ in range(steps):
                next(iterator)
            if turn:
                seconds[name].append((time.perf_counter() - start) / steps)
    return seconds


def in_words(values, scale=1.0, unit=""):
    values = [scale * value for value in values]
    return f"{statistics.median(values):.3g}{unit} ({min(values):.3g} to {max(values):.3g})"


def ratios(above, below):
    return [a / b for a, b in zip(above, below)]


def print_table(title, header, rows):
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def seconds_of(*command):
    """Wall time of a process of its own."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def peak_memory(name, data_dir):
    """MiB that a process has used at most, which made 30 steps of one contender; on Linux.

    getrusage would also count what its parent had used when it started the process.
    """
    program = (
        f"import sys; sys.path.insert(0, 'tests'); import benchmark\n"
        f"steps = benchmark.contenders({str(data_dir)!r})[{name!r}]()\n"
        f"for _ in range(30): next(steps)\n"
        f"print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    return f"{int(done.stdout) / 1024:.0f} MiB"


def contenders(data_dir):
    """{name: function that starts it}."""
    images = lambda: torch.as_tensor(utils.mnist(data_dir)[0]).unsqueeze(1)
    args = hw5_vae.parse_args([])
    return {
        "vae course": lambda: plain_vae(utils.load_mnist(data_dir)[1], args),
        "vae ours": lambda: our_vae(data_dir),
        "vae networks alone": lambda: our_networks(data_dir),
        "vae floor": vae_floor,
        "gan course": lambda: plain_gan(images(), 256),
        "gan course, detached": lambda: plain_gan(images(), 256, detach=True),
        "gan ours": lambda: our_gan(data_dir),
        "gan floor": gan_floor,
    }


def course_vae(homework):
    """The course's loop over these networks: images unshuffled, a constant rate."""
    return plain_vae(homework.train_images, homework.args, homework, shuffle=False)


def course_gan(homework):
    """The course's loop; its networks, with the homework's first weights, take the place of these."""
    homework.disc, homework.gen = plain_networks(homework._zdim)
    return plain_gan(homework.train_images, homework.batch_size, networks=(homework.disc, homework.gen))


QUALITIES = {  # the course's loop, what is measured, and its name in a row of the history
    "vae": (course_vae, "held-out ELBO", "test_elbo"),
    "gan": (course_gan, "Fréchet distance to training images", "frechet_train"),
}


def time_to_quality(name, data_dir, epochs):
    """The course's loop for all its epochs, and ours with other flags for a few, in turns: how good and how soon.

    A turn is an epoch of the loop with fewer epochs, and as large a share of the other. Seconds are those of training.
    The quality is measured after it.
    """
    course, quality, column = QUALITIES[name]
    (flags, few), loops = RECIPES[name], []
    for line, count in (([], epochs), (flags, few)):
        ours = experiment(f"hw5_{name}", data_dir, *line)
        ours.get_ready()
        steps = ours.homework.epochs() if line else steps_in_epochs(course(ours.homework), ours.steps)
        loops.append((line, count, ours, steps, []))
    turns = min(few, epochs)
    for turn in range(turns):
        for _, count, _, steps, seconds in loops:
            start = time.perf_counter()
            for _ in range(count * turn // turns, count * (turn + 1) // turns):
                next(steps)
            seconds.append(time.perf_counter() - start)
    rows = []
    for line, count, ours, _, seconds in loops:
        title = f"`python hw5_{name}.py {' '.join(line)}`" if line else f"{name.upper()}, course"
        done = f"{count} of {ours.epochs}" if line else count
        sooner = in_words(ratios(loops[0][-1], seconds)) if line else 1
        rows.append([title, done, f"{sum(seconds):.3g} s", f"{ours.watch()[column]:.1f}", sooner])
    print_table("Time to quality", ["loop", "epochs", "training", quality, "times sooner"], rows)


def steps_in_epochs(steps, count):
    """An iterator over steps as one over epochs of `count` steps."""
    while True:
        for _ in range(count):
            next(steps)
        yield


def main(argv=None):
    parser = argparse.ArgumentParser(
        "benchmark.py", description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, default=ROOT / "data", help="folder of the four MNIST files")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender; 0 for time to quality alone")
    parser.add_argument("--vae_epochs", type=int, default=200, help="of the course's loop in a last table; 0 for none")
    parser.add_argument("--gan_epochs", type=int, default=30, help="the same for the GAN")
    args = parser.parse_args(argv)
    data_dir, rounds = args.data_dir.resolve(), args.rounds
    count = len(utils.mnist(data_dir)[0])
    if not utils.find_files(data_dir):  # without a network
        data_dir = utils.SAMPLE
    print(
        f"{count:,} training images of {data_dir.name}/; torch {torch.__version__}, {torch.get_num_threads()} threads; "
        f"{rounds} rounds: median (smallest to largest)"
    )
    if rounds:
        compare_speed(data_dir, rounds, count)
        compare_epochs(data_dir, rounds)
        compare_runs(data_dir, max(1, rounds // 2))
    for name, epochs in (("vae", args.vae_epochs), ("gan", args.gan_epochs)):
        if epochs:
            time_to_quality(name, data_dir, epochs)


def compare_epochs(data_dir, rounds):
    """A table of how long an epoch of other commands takes."""
    loops = {name: our_epochs(data_dir, *command) for name, command in EPOCHS.items()}
    seconds = interleave(loops, 1, rounds)
    rows = [[name, in_words(values, unit=" s")] for name, values in seconds.items()]
    print_table("Epochs of other commands", ["loop", "an epoch"], rows)


def compare_runs(data_dir, rounds):
    """A table of how long whole runs take, as a user waits: with the measurement, the figures and the page."""
    seconds = {command: [] for command in RUNS}
    for _ in range(rounds):
        for command, values in seconds.items():
            script, *flags = command.split()
            data = [] if script == "hw5_diffusion.py" else ["--data_dir", data_dir]
            with tempfile.TemporaryDirectory() as folder:
                output = ["--output_dir", Path(folder) / "run"]
                values.append(seconds_of(script, *flags, "--device", "cpu", "--quiet", *data, *output))
    rows = [[f"`python {command}`", in_words(values, unit=" s")] for command, values in seconds.items()]
    print_table("Whole runs", ["command", "time"], rows)


def compare_speed(data_dir, rounds, count):
    """The tables of what takes how long."""
    make = contenders(data_dir)

    rows = []
    for script, steps_an_epoch, turn in (("vae", min(10_000, count) // 100, 50), ("gan", count // 256, 8)):
        seconds = interleave({name: start() for name, start in make.items() if name.startswith(script)}, turn, rounds)
        for name, values in seconds.items():
            rows.append(
                [
                    f"`hw5_{script}.py`" if name.endswith("ours") else name.replace(script, f"{script.upper()},", 1),
                    in_words(values, steps_an_epoch, " s"),
                    in_words(ratios(seconds[f"{script} course"], values)),
                    in_words(ratios(values, seconds[f"{script} floor"])),
                    "" if name.endswith("floor") else peak_memory(name, data_dir),
                ]
            )
    print_table("Training", ["loop", "an epoch", "course / this", "this / floor", "peak memory"], rows)

    rows = []
    starts = {name: [] for name in ("torch", "hw5_vae", "hw5_gan")}
    for turn in range(rounds + 1):
        for name, values in starts.items():
            values.append(seconds_of("-c", f"import {name}"))
    for name, values in starts.items():
        rows.append(
            [f"`import {name}`", in_words(values[1:], 1, " s"), in_words(ratios(values[1:], starts["torch"][1:]))]
        )
    path = utils.find_files(data_dir)[utils.TRAIN[0]]
    loads = {"course": [], "ours": []}
    for turn in range(max(2, rounds // 2)):
        for name, load in (("course", lambda: plain_load(path)), ("ours", lambda: utils.read_idx(path))):
            start = time.perf_counter()
            load()
            loads[name].append(time.perf_counter() - start)
    rows.append(["the course's loop over the training images", in_words(loads["course"], 1, " s"), ""])
    rows.append(
        [
            "`read_idx` of the same",
            in_words(loads["ours"], 1, " s"),
            in_words(ratios(loads["course"], loads["ours"])) + " times faster",
        ]
    )
    print_table("Starting and loading", ["what", "time", "ratio"], rows)

    rows = []
    size = min(10_000, count // 2)
    for title, turn, base, others in (
        (
            "`hw5_vae.py`",
            50,
            lambda *flags: our_vae(data_dir, "--train_size", size, *flags),
            {
                f"2x images ({2 * size:,})": (("--train_size", 2 * size), 2),
                "2x batch (200)": (("--batch_size", 200), 0.5),
                "2x hidden units (1000)": (("--hidden_units", 1000), 1),
            },
        ),
        ("`hw5_gan.py`", 8, lambda *flags: our_gan(data_dir, *flags), {"2x batch (512)": (("--batch_size", 512), 0.5)}),
    ):
        seconds = interleave(
            {"default": base(), **{name: base(*settings) for name, (settings, _) in others.items()}}, turn, rounds
        )
        for name, (_, steps) in others.items():
            rows.append([title, name, in_words([steps * ratio for ratio in ratios(seconds[name], seconds["default"])])])
    print_table("How an epoch's time grows", ["script", "with", "time, times the default's"], rows)


if __name__ == "__main__":
    main()
