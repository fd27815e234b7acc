"""Runs in processes of their own, for tests that kill, starve and damage them."""

import multiprocessing
import os
import resource
import runpy
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from matplotlib.figure import Figure
from helpers import MODULES, ROOT, rows, small

import hw5_lab.experiments.diffusion

from hw5_lab.runs.folder import load_tensors

# Processes that have torch imported but have computed nothing start at once and are as real as any other.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    [
        *MODULES,
        "hw5_lab.door",
        "hw5_lab.experiments.vae",
        "hw5_lab.experiments.gan",
        "hw5_lab.experiments.diffusion",
        "matplotlib.figure",
        "matplotlib.style.core",
        "matplotlib.backends.backend_agg",
        "torch._dynamo",
        "torch.utils.serialization.config",
    ]
)  # which torch imports late

EPOCHS = {"hw5_vae": 20, "hw5_gan": 5, "hw5_diffusion": 5}


def make_figures_small():
    """Drawing, and measuring a field, would take most of a short run's time."""
    draw = Figure.savefig
    Figure.savefig = lambda self, path, **options: draw(self, path, **{**options, "dpi": 20})
    hw5_lab.experiments.diffusion.GRID = 400


def enter(name, arguments, errors, file_size=None, user=None):
    """The body of a child process: the script's main() with its errors in a file."""
    sys.stderr = open(errors, "a", buffering=1)
    if user is not None:
        os.setuid(user)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    make_figures_small()
    sys.exit(MODULES[name].main(arguments))


class Child:
    def __init__(self, name, arguments, **limits):
        self.errors = Path(f"{arguments[arguments.index('--output_dir') + 1]}.err")
        self.errors.parent.mkdir(parents=True, exist_ok=True)
        line = [str(word) for word in arguments]
        self.process = processes.Process(target=enter, args=(name, line, self.errors), kwargs=limits)
        self.process.start()

    def wait(self):
        self.process.join(120)
        return self.process.exitcode

    def signal(self, number):
        os.kill(self.process.pid, number)

    def message(self):
        return self.errors.read_text()


def arguments(name, folder, *more):
    """A run of some seconds with checkpoints, evaluations and frames in between."""
    return small(name, folder, "--device", "cpu", "--epochs", EPOCHS[name], *more)


def wait_for(path, seconds=60):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not appear"
        time.sleep(0.005)


def same(a, b):
    """Whether two trees of dicts, lists, tensors and plain values are equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a if key != "seconds")
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def assert_same_run(folder, reference):
    """Same weights, optimizers, generators and history (seconds aside), and every file of a whole run."""
    states = [load_tensors(path / "checkpoint.pt") for path in (folder, reference)]
    for state in states:
        del state["environment"]  # the command names the folder
    assert same(*states)
    drop_seconds = lambda table: [{key: value for key, value in row.items() if key != "seconds"} for row in table]
    assert drop_seconds(rows(folder)) == drop_seconds(rows(reference))
    assert {path.name for path in folder.iterdir()} == {path.name for path in reference.iterdir()}
    for path in (*reference.glob("*.png"), *reference.glob("*.gif")):
        assert (folder / path.name).read_bytes() == path.read_bytes(), path.name


OWN = {*MODULES, "hw5_utils", "hw5_lab"}
TESTS = ROOT / "tests"
FOREIGN_PATHS = [path for path in sys.path if Path(path).resolve() != ROOT and TESTS not in (Path(path) / "x").parents]


class Python:
    """What `python LINE` is in a folder, but that torch has been imported: sooner by the seconds which that takes.

    `stdout` can be read while it runs; see communicate() and wait().
    """

    def __init__(self, line, cwd, file_size=None):
        ends = [processes.Pipe(duplex=False) for _ in range(2)]
        self.stdout, self.stderr = (os.fdopen(os.dup(reader.fileno())) for reader, _ in ends)
        writers = [writer for _, writer in ends]
        words = [str(word) for word in line]
        arguments = words, str(cwd), writers, file_size
        self.process = processes.Process(target=become, args=arguments, daemon=True)  # none outlives the tests
        self.process.start()
        for end in (*writers, *(reader for reader, _ in ends)):
            end.close()

    @property
    def returncode(self):
        return self.process.exitcode

    def send_signal(self, number):
        os.kill(self.process.pid, number)

    def wait(self, seconds=120):
        self.process.join(seconds)
        if self.returncode is None:
            self.process.kill()
            raise TimeoutError(f"{seconds} s were too few")
        return self.returncode

    def communicate(self, seconds=120):
        """(what is left of stdout, stderr) when it has ended."""
        with ThreadPoolExecutor() as readers:
            texts = [readers.submit(stream.read) for stream in (self.stdout, self.stderr)]
            self.wait(seconds)
            return tuple(text.result() for text in texts)


def become(line, folder, writers, file_size):
    """The body of a child process: Python as it is started with this line in this folder, none of our modules loaded."""
    for number, writer in enumerate(writers, 1):
        os.dup2(writer.fileno(), number)
        writer.close()
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)
    for name in [name for name in sys.modules if name.split(".")[0] in OWN]:
        del sys.modules[name]
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    os.chdir(folder)
    first, *rest = line
    sys.path[:] = [folder if first in ("-m", "-c") else os.path.dirname(os.path.abspath(first)), *FOREIGN_PATHS]
    sys.argv = rest if first == "-m" else line
    if first == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        exec(rest[0], {"__name__": "__main__"})
    else:
        runpy.run_path(first, run_name="__main__")


def run_python(line, cwd=ROOT):
    """The finished process of `python LINE`; see Python."""
    process = Python(line, cwd)
    out, errors = process.communicate(300)
    return subprocess.CompletedProcess(line, process.returncode, out, errors)


def contents(folder):
    """{name: bytes} of all files in a folder, but for those of locks."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def stop_early(name, folder, *more):
    """Kill a run after its first epoch."""
    child = Child(name, arguments(name, folder, *more))
    wait_for(folder / "checkpoint.pt")
    child.process.kill()
    child.wait()
