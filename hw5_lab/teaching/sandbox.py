"""The parent's side of running a student's code: a child process, a fresh folder per job, limits, and wary reading."""

import json
import os
import re
import select
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("child.py")
USERS = 60578, 61184  # numbers of users that no system gives out: for root, each box takes one of them
PACKAGES = "matplotlib.pyplot", "torchvision", "tqdm"  # imported once, where a submission mentions them
NEEDED_MB = 450  # that a grading takes with PyTorch for CPUs; measured in a cgroup
MEMORY = 2 * 2**30  # bytes that a job may use on top of what torch and its friends reserve
LARGEST_ANSWER = 64 * 2**20
MOST_VALUES, MOST_NUMBERS = 100_000, 20_000_000  # of an answer: plain values, and numbers of all its tensors
NO_ANSWER = 70  # the exit code of a job that could not save its answer
SIGNALS = {-6: "aborts", -9: "is killed", -11: "crashes (segmentation fault)", -24: "uses too much processor time"}


class Failure(Exception):
    """Why a job gave no answer, in a line: the fault of the code that was graded."""


class Refused(Exception):
    """Why no student's code can be run here, in a line, with the remedy."""


def clean(text, most=300):
    """Text from a student's process without what a terminal would obey."""
    return re.sub(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\uffff\U00010000-\U0010ffff]", "?", str(text))[:most]


def read_answer(path):
    """The dictionary that a job has saved. Failure for anything else than a regular, small file of plain values."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        raise Failure("ends without an answer") from None
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode) or state.st_size > LARGEST_ANSWER:
        os.close(descriptor)
        raise Failure("gives no readable answer")
    with os.fdopen(descriptor, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > LARGEST_ANSWER:
                    raise Failure("gives an answer that is too large")
            file.seek(0)
            answer = torch.load(file, weights_only=True, map_location="cpu")
        except Failure:
            raise
        except Exception:  # whatever a forged file may cause
            raise Failure("gives no readable answer") from None
    check(answer)
    if not isinstance(answer, dict):
        raise Failure("gives no readable answer")
    return answer


def check(value, left=None, depth=0):
    """Failure unless value consists of plain values and of tensors, and of no more than is `left`.

    A small file can hold one list a thousand times in another, and one number as a tensor of millions.
    """
    left = left or {"values": MOST_VALUES, "numbers": MOST_NUMBERS}
    left["values"] -= 1
    left["numbers"] -= value.numel() if isinstance(value, torch.Tensor) else 0
    if min(left.values()) < 0:
        raise Failure("gives an answer that is too large")
    if isinstance(value, dict) and depth < 6 and len(value) < 1000 and all(isinstance(key, str) for key in value):
        for each in value.values():
            check(each, left, depth + 1)
    elif isinstance(value, (list, tuple)) and depth < 6 and len(value) < 1000:
        for each in value:
            check(each, left, depth + 1)
    elif isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            raise Failure("gives no readable answer")
    elif not (value is None or isinstance(value, (bool, int, float)) or isinstance(value, str) and len(value) < 10_000):
        raise Failure("gives no readable answer")


def sweep(user):
    """Remove what a job has left where all users may write: the next job needs the room. Nobody else has its user."""
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        with suppress(OSError, RecursionError):
            for entry in os.scandir(folder):
                if entry.stat(follow_symlinks=False).st_uid != user:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


class Sandbox:
    """One child process, which runs one job after another; a context manager. See child.py.

    as_root: where root cannot become another user, run a student's code as root rather than refuse.
    """

    def __init__(self, as_root=False, packages=PACKAGES):
        self.folder = Path(tempfile.mkdtemp(prefix="hw5-grade-"))
        self.folder.chmod(0o711)
        self.process, self.user, self.as_root, self.packages = None, None, as_root, packages
        self.jobs = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        """Start the child process, which imports torch meanwhile."""
        self.folder.mkdir(0o711, exist_ok=True)
        child = self.folder / "child.py"
        shutil.copyfile(CHILD, child)
        # Of the environment only what Python needs: no secrets, no path to this project, no GPU
        environment = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        environment |= dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR"), str(self.folder))
        environment |= {
            "MPLBACKEND": "Agg",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "TORCHDYNAMO_DISABLE": "1",  # torch.compile takes longer than there is time, and computes the same
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(child), json.dumps(USERS), *self.packages],
            cwd=self.folder,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.greeted, self.said = False, b""

    def greet(self):
        """Wait until the child process is ready. Refused where it could only run a student's code as root."""
        try:
            said = json.loads(self.line(300))
        except ValueError:
            self.stop()
            raise Refused(
                f"the child process does not start, for want of memory? It needs {NEEDED_MB} MB with PyTorch for CPUs, "
                f"and more with PyTorch for GPUs. See why with {sys.executable} {CHILD} [1,2]"
            ) from None
        self.greeted, self.user = True, said["user"]
        if said["why"]:
            self.user = None
            if not self.as_root:
                self.stop()
                raise Refused(
                    f"root cannot run a student's code as another user ({said['why']}): use a Python whose packages "
                    "all users can read, with all folders above them; or grade as a user who is not root; or, in a "
                    "container that may be lost, say --as-root"
                )

    def stop(self):
        if self.process:
            with suppress(OSError):
                os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None

    def line(self, seconds):
        """The child's next line, "" if it has ended, is late, or says too much."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self.said:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            more = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            if not more or len(self.said) > 10_000:
                return ""
            self.said += more
        line, _, self.said = self.said.partition(b"\n")
        return line.decode(errors="replace")

    def run(self, folder, file, request, seconds, definitions_only=False):
        """The answer of one job on a copy of a submission's folder; Failure if there is none.

        `seconds` are of processor time; asleep, or on a busy machine, a job may take 2.5 times as long.
        """
        if self.process is None or self.process.poll() is not None:
            self.stop()
            self.start()
        if not self.greeted:
            self.greet()
        self.folder.mkdir(0o711, exist_ok=True)  # a student's code may have deleted it
        place = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            shutil.copytree(folder, place / "submission")
            torch.save(request, place / "request")
            if self.user is not None:
                for path in (place, *place.rglob("*")):
                    os.chown(path, self.user, self.user)
            self.jobs += 1
            job = {
                "number": self.jobs,
                "folder": str(place / "submission"),
                "request": str(place / "request"),
                "answer": str(place / "answer"),
                "file": file,
                "seconds": seconds,
                "memory": MEMORY,
                "definitions_only": definitions_only,
                "user": self.user,
            }
            try:
                self.process.stdin.write(json.dumps(job) + "\n")
                self.process.stdin.flush()
                ended = json.loads(self.line(2.5 * seconds + 20))
                if ended["number"] != self.jobs:
                    raise ValueError("the answer of another job")
            except (OSError, ValueError, KeyError, TypeError):  # the child has been killed, or answers nonsense
                self.stop()
                raise Failure("ends the process that runs it") from None
            except BaseException:  # Ctrl-C: this job's answer must not be read as that of the next one
                self.stop()
                raise
            if not ended["clear"]:
                self.stop()
                raise Failure("starts processes that cannot be ended")
            if ended["timed_out"] or ended["code"] == -24:
                raise Failure(f"does not end within {seconds:g} s")
            if ended["code"] not in (0, NO_ANSWER) and not (place / "answer").is_file():
                raise Failure(SIGNALS.get(ended["code"], f"ends its process with code {ended['code']}"))
            return read_answer(place / "answer")
        finally:
            with suppress(RecursionError):  # a thousand folders in each other
                shutil.rmtree(place, ignore_errors=True)
            if self.user is not None:
                sweep(self.user)
