import gzip
import shutil

import numpy as np
import pytest
import torch
from helpers import idx_bytes, small_sample


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


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What needs a browser, and whole runs of score matching, take long."""
    for item in items:
        if "open_page" in item.fixturenames or item.name.endswith(SLOW) or item.originalname.startswith(ALL_SLOW):
            item.add_marker(pytest.mark.slow)


ALL_SLOW = (
    "test_hostile_",
    "test_a_page_has_the_size",
    "test_the_benchmark_works",
    "test_a_run_leaves_a_page",
    "test_a_new_run_renames_the_folder",
    "test_full_disk_keeps",
    "test_evaluate_rewrites_its_own",
)
SLOW = (
    "[hw5_diffusion---epochs 2 --langevin_steps 2-figures2]",
    "[hw5_gan---epochs 2 --batch_size 100-figures1]",
    "[RUN 2>&-]",
    "evaluate_the_same[hw5_diffusion.py]",
    "evaluate_the_same[hw5_gan.py]",
    "no_other_flag[hw5_diffusion]",
    "what_it_does_and_found[hw5_diffusion]",
    "is_refused[hw5_diffusion-content0]",
    "test_diffusion_is_measured_again",
    "test_a_path_that_stdout_cannot_encode",
    "earlier_one[True]",
    "[RUN 2> /dev/full]",
    "[RUN > /dev/full-1]",
    "test_hostile_functions[never ends]",
    "test_the_announced_time_is_near_the_truth",
)
