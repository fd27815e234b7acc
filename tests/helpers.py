"""What several test files share: folders, small runs, the three scripts."""

import csv
import gzip
import struct
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

import hw5_diffusion
import hw5_gan
import hw5_utils
import hw5_vae

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "sample"


def idx_bytes(array):
    """A uint8 array as the content of an IDX file."""
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


@cache
def small_sample():
    """A folder of 400 training and 200 test images of the sample, so that a whole run is short."""
    folder = Path(tempfile.mkdtemp(prefix="hw5-sample-"))
    folder.chmod(0o755)  # for tests that run as another user
    for path in SAMPLE.glob("*.gz"):
        array = hw5_utils.read_idx(path)[: 400 if path.name.startswith("train") else 200]
        (folder / path.name).write_bytes(gzip.compress(idx_bytes(array)))
    return folder


def run_script(script, *args, cwd=ROOT, **options):
    """Run a script as a user does, on this Python; returns the finished process with its text output."""
    line = [sys.executable, str(ROOT / script), *map(str, args)]
    return subprocess.run(line, cwd=cwd, text=True, capture_output=True, timeout=300, **options)


def run_sooner(*line, cwd=ROOT):
    """The finished process of `python LINE`, started by one that has imported torch already."""
    from children import run_python  # here: Windows cannot have it

    return run_python(line, cwd)


EVERY = {"run.json", "history.csv", "metrics.json", "explore.html", "checkpoint.pt"}
FILES = {
    "hw5_vae": EVERY | {"data_space.png", "latent_space.png", "inter_class_interpolation.png", "elbo.png"},
    "hw5_gan": EVERY
    | {
        "goal.png",
        "samples_epoch_0.png",
        "samples_epoch_1.png",
        "samples_epoch_2.png",
        "losses.png",
        "quality.png",
        "training.gif",
        "classifier.pt",
        "best.pt",
    },
    "hw5_diffusion": EVERY | {"data.png", "score_field.png", "samples.png", "trajectories.png", "sampling.gif"},
}
COLUMNS = {
    "hw5_vae": "epoch,train_elbo,train_reconstruction,train_kl,test_elbo,test_reconstruction,test_kl,seconds",
    "hw5_gan": "epoch,loss_d,loss_g,d_real,d_fake,frechet_train,seconds",
    "hw5_diffusion": "epoch,loss,average_loss,score_error,seconds",
}
MODULES = {"hw5_vae": hw5_vae, "hw5_gan": hw5_gan, "hw5_diffusion": hw5_diffusion}
COURSE_NAMES = {
    "BASE_URL",
    "download",
    "mnist",
    "load_mnist",
    "batch_indices",
    "array_to_image",
    "concat_images",
    "GANDataset",
}
each = pytest.mark.parametrize("name", MODULES)
both = pytest.mark.parametrize("name", ["hw5_vae", "hw5_gan"])  # that train on MNIST


def one_quickly(*others):
    """The VAE's script and, marked slow, others, for what takes long and is nearly the same in each."""
    return pytest.mark.parametrize("name", first_quickly(["hw5_vae", *others]))


def first_quickly(values, quick=1):
    """The values for parametrize; all but the first are marked slow, for what is nearly the same in each."""
    return [pytest.param(value, marks=pytest.mark.slow if i >= quick else ()) for i, value in enumerate(values)]


blank = pytest.mark.usefixtures("blank_figures")  # see conftest.py


def small(name, folder, *more):
    """Arguments of a run of two epochs that takes a second."""
    data = [] if name == "hw5_diffusion" else ["--data_dir", small_sample()]
    sizes = {
        "hw5_gan": ["--batch_size", 32],
        "hw5_vae": ["--hidden_units", 50, "--latent_dimension", 3, "--iwae_samples", 2],
        "hw5_diffusion": ["--batch_size", 10, "--samples", 30, "--langevin_steps", 2],
    }[name]
    return [str(word) for word in [*data, "--epochs", 2, "--quiet", "--output_dir", folder, *sizes, *more]]


def rows(folder):
    return list(csv.DictReader((folder / "history.csv").open()))
