import gc
import gzip
import os
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from helpers import idx_bytes, small_sample

from hw5_lab.measures.likelihood import log_likelihood_exact

os.environ.pop("PYTHONPATH", None)  # pytest-xdist puts the project into it, for all processes that tests start


def pytest_collection_finish(session):
    """Before the first test. Says how long it will take; in a process of pytest-xdist nobody would read it."""
    gc.freeze()  # PyTorch's and the tests' own objects stay: the collector need not search them again and again
    printer = session.config.pluginmanager.get_plugin("terminalreporter")
    if printer and session.config.option.markexpr == "not slow" and len(session.items) > 500:
        printer.write_line(f"{len(session.items):,} tests, less than two minutes on two idle cores; -m '' runs all.")


def pytest_unconfigure():
    if small_sample.cache_info().currsize:
        shutil.rmtree(small_sample(), ignore_errors=True)


@pytest.fixture
def tiny_mnist(tmp_path):
    """A folder of four IDX files: 60 training and 30 test images of noise, every digit equally often."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "tiny"
    folder.mkdir()
    for split, size in (("train", 60), ("t10k", 30)):
        images = rng.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        labels = np.arange(size, dtype=np.uint8) % 10
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    return folder


@pytest.fixture
def blank_figures(monkeypatch):
    """Runs in this process draw gray pixels, measure a field at few points, and do not wait for the disk.

    These take most of a short run's time.
    """
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr("hw5_lab.experiments.diffusion.GRID", 400)
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: Image.new("L", (1, 1), 128).save(path, "PNG"))


@pytest.fixture
def coarse_integral(monkeypatch):
    """An integral over the plane of few points, where its value does not matter."""
    coarse = partial(log_likelihood_exact, points=20)
    monkeypatch.setattr("hw5_lab.experiments.vae.log_likelihood_exact", coarse)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
