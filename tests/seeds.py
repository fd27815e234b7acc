"""The headline numbers of README.md over several seeds, and how far the classifier that measures a GAN decides them.

    python tests/seeds.py                                  # all rows, three seeds each: hours; stop and go on at will
    python tests/seeds.py vae diffusion --seeds 5          # some rows
    python tests/seeds.py --classifiers outputs/seeds/gan-2     # one GAN, measured by three trainings of the classifier

Each run goes to a folder of its own. A run that is finished is only read, one that was stopped goes on.
"""

import argparse
import csv
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ELBO = {"ELBO": "test_elbo", "log p(x)": "test_log_likelihood_exact"}
ENDS = {"bound, training": "train_elbo", "held-out": "test_elbo"}
BOUND = {**ELBO, "bound, 500 samples": "test_importance_weighted_bound"}
FRECHET = {"Fréchet distance": "frechet_distance", "of real images": "frechet_distance_real"}
DISTANCE = {"distance to the data": "sliced_wasserstein", "of two draws of data": "sliced_wasserstein_data"}
ROWS = {  # what is run, the first seed, the numbers
    "vae": ("hw5_vae.py", 1234, ELBO),
    "refined": ("hw5_vae.py --refine_encoder 400", 1234, ELBO),
    "all-images": ("hw5_vae.py --train_size 60000 --epochs 100 --refine_encoder 160", 1234, ELBO),
    "gan": ("hw5_gan.py", 2, FRECHET),
    "tuned": ("hw5_gan.py --edition cs446-tuned", 2, FRECHET),
    "diffusion": ("hw5_diffusion.py", 446, DISTANCE),
    "s24": ("hw5_diffusion.py --edition s24", 446, DISTANCE),
    "dynamic": ("hw5_vae.py --edition dynamic --iwae_samples 500 --measure full", 1234, BOUND),
    "dynamic-deep": ("hw5_vae.py --edition dynamic-deep --iwae_samples 500 --measure full", 1234, BOUND),
    "uva": ("hw5_vae.py --edition uva", 1234, {**ENDS, "held-out": "validation_elbo"}),
    "uva-2": ("hw5_vae.py --edition uva --latent_dimension 2", 1234, {**ENDS, "held-out": "validation_elbo"}),
    "ese546": ("hw5_vae.py --edition ese546", 1234, ENDS),
    "hw8": ("hw5_vae.py --edition hw8", 1234, ENDS),
    "uva-gan": ("hw5_gan.py --edition uva", 2, FRECHET),
}


def metrics_of(row, seed, args):
    """What a row's run with this seed came to, its last epoch and metrics.json; it is run, resumed, or only read."""
    folder = args.output_dir / f"{row}-{seed}"
    line = [*ROWS[row][0].split(), "--seed", seed, "--output_dir", folder, "--resume", "--quiet"]
    if args.data_dir and line[0] != "hw5_diffusion.py":
        line += ["--data_dir", args.data_dir]
    line = [str(word) for word in [*line, *args.flags]]
    if not (folder / "metrics.json").exists():
        code = subprocess.run([sys.executable, *line], cwd=ROOT).returncode
        if code:
            raise SystemExit(code)  # the run has said why
    metrics = json.loads((folder / "metrics.json").read_text())
    if metrics["command"] != shlex.join(["python", *line]):
        raise SystemExit(f"{folder}: holds another run, {metrics['command']}; name another --output_dir")
    with open(folder / "history.csv", newline="") as history:
        *_, last = csv.DictReader(history)
    return {**{name: float(value) for name, value in last.items() if value}, **metrics}


def seeds(first, count):
    """The first seed, then 1, 2, ... without it."""
    return [first, *(seed for seed in range(1, count + 1) if seed != first)][:count]


def spread(values):
    """Mean and standard deviation in words."""
    mean = statistics.mean(values)
    digits = 1 if abs(mean) >= 1 else 4
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{deviation}"


def table(args):
    """Run what is missing, and print a row of the README's table for each."""
    print("| command | mean ± standard deviation | seeds |\n|---|---|---|")
    revisions, threads = set(), set()
    for row in args.rows or ROWS:
        command, first, names = ROWS[row]
        command = " ".join([command, *args.flags])
        found = [metrics_of(row, seed, args) for seed in seeds(first, args.seeds)]
        numbers = ", ".join(f"{words} {spread([each[key] for each in found])}" for words, key in names.items())
        print(f"| `python {command}` | {numbers} | {len(found)} |", flush=True)
        revisions |= {each["revision"] for each in found}
        threads |= {each["threads"] for each in found}
    print(f"\nRevisions: {', '.join(map(str, sorted(revisions)))}. Threads: {', '.join(map(str, sorted(threads)))}.")


def classifiers(folder):
    """The Fréchet distance of one trained GAN, by three trainings of the classifier."""
    sys.path.insert(0, str(ROOT))
    from hw5_lab import door
    from hw5_lab.experiments.gan import REPORT
    from hw5_lab.measures.images import Evaluator, frechet_distance, in_unit
    from hw5_lab.runs.folder import RunFolder
    from hw5_lab.runs.run import Run

    args = door.parse_args("hw5_gan", ["--output_dir", str(folder), "--evaluate"])
    with RunFolder(folder, "hw5_gan.py") as run_folder:
        run = Run(args, lambda args: door.build("hw5_gan", args), run_folder)
        run.load()
    gan, values = run.experiment, []
    images, digits, test_images, _ = gan.data
    samples = gan.sample(len(test_images), REPORT, gan.best_generator())
    for seed in range(3):
        judge = Evaluator(images, digits, seed=seed)
        judge.fit()
        distance = frechet_distance(judge.classify(samples)[0], judge.classify(in_unit(test_images))[0]).item()
        print(f"classifier of seed {seed}, checksum {judge.checksum}: Fréchet distance {distance:.1f}", flush=True)
        values.append(distance)
    print(f"Fréchet distance by three classifiers: {spread(values)}")


def main(argv=None):
    parser = argparse.ArgumentParser("seeds.py", description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--seeds", type=int, default=3, help="how many: the homework's own, then 1, 2, ...")
    parser.add_argument("--data_dir", type=Path, help="folder of the four MNIST files")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "outputs" / "seeds", help="where the runs go")
    parser.add_argument("--classifiers", type=Path, metavar="FOLDER", help="measure the GAN of this run only")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="more flags for all runs, as the last")
    args = parser.parse_args(argv)
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f"no such row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    args.output_dir = args.output_dir.resolve()
    args.data_dir = args.data_dir and args.data_dir.resolve()
    classifiers(args.classifiers.resolve()) if args.classifiers else table(args)


if __name__ == "__main__":
    main()
