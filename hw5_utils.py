"""The ground floor of hw5: MNIST, tiled images, the command line and the run folder. It knows nothing of models.

The first part has the names of the course's own hw5_utils, with the same results; the rest is what the scripts share.
A grader may place the course's smaller module beside the scripts instead: they then train and draw without run folders.
"""

import argparse
import csv
import gzip
import io
import json
import math
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import urllib.request
import zipfile
import zlib
from contextlib import redirect_stdout, suppress
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import one_hot
from torch.utils.data import Dataset
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
BASE_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FILES = {  # split -> (images, labels)
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
NETWORK_TIMEOUT = 20  # seconds without a byte


class Fault(ValueError):
    """Something that the user can mend, in one line: what, where, what was expected, the remedy."""


# ---------------------------------------------------------------------------------------------------- MNIST


def download(url, filename):
    """Fetch `url` into ./data/`filename` unless it is there. The name appears only once the file is whole."""
    path = Path("data", filename)
    if path.exists():
        return
    try:
        path.parent.mkdir(exist_ok=True)
        with urllib.request.urlopen(url, timeout=NETWORK_TIMEOUT) as response:
            content = response.read()
    except (OSError, HTTPException) as error:  # no network, no such file, a time-out, a broken connection
        raise Fault(f"{url}: cannot be fetched ({error}); run again, or place the file at {path} by hand") from None
    write_atomically(path, content)


def read_idx(path):
    """The uint8 array of an IDX file, gzipped or not; Fault if it is not exactly what its own header says."""
    path = Path(path)
    remedy = "replace it, or move the MNIST files away and run again to download them"
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise Fault(f"{path}: damaged gzip file ({error}); {remedy}") from None
    except OSError as error:
        raise Fault(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(content) < 4 or content[:3] != b"\0\0\x08" or not 1 <= content[3] <= 3:
        raise Fault(f"{path}: not an IDX file of bytes (starts with {content[:4].hex() or 'nothing'}); {remedy}")
    dimensions = content[3]
    if len(content) < 4 + 4 * dimensions:
        raise Fault(f"{path}: ends inside its header, after {len(content)} bytes; {remedy}")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    expected, found = math.prod(shape), len(content) - 4 - 4 * dimensions
    if found != expected:
        size = "x".join(map(str, shape))
        raise Fault(f"{path}: header says {size} = {expected} bytes of data, the file holds {found}; {remedy}")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy()


def read_split(images_path, labels_path):
    """(images [N,28,28], labels [N]) of one split, both uint8; Fault if the two files do not fit each other."""
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.shape[1:] != (28, 28) or not len(images):
        raise Fault(f"{images_path}: holds an array of shape {images.shape}, expected images (N, 28, 28)")
    if labels.ndim != 1 or len(labels) != len(images):
        raise Fault(f"{labels_path}: holds an array of shape {labels.shape}, expected a label for each of the "
                    f"{len(images)} images of {images_path}")
    if labels.max() > 9:
        raise Fault(f"{labels_path}: holds the label {labels.max()}, expected digits 0 to 9")
    return images, labels


def find_files(folder):
    """{name: path} of the IDX files in `folder` or its MNIST/raw (where torchvision puts them), gzipped or not."""
    found = {}
    for name in (name for names in FILES.values() for name in names):
        places = (place / (name + end) for place in (folder, folder / "MNIST" / "raw") for end in (".gz", ""))
        path = next(filter(Path.is_file, places), None)
        if path:
            found[name] = path
    return found


def download_mnist(folder):
    """Fetch the four files through torchvision (mirrors, MD5) into `folder`/MNIST/raw.

    Each process loads into a folder of its own, which takes its final name when all four are verified: a cut or a
    second process leaves nothing half-written.
    """
    from torchvision.datasets import MNIST  # only here: the rest of the project runs without torchvision

    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as private:
            for mirror in MNIST.mirrors:
                try:
                    with redirect_stdout(io.StringIO()):  # its progress bar goes to stderr and stays
                        type("MNIST", (MNIST,), {"mirrors": [mirror]})(private, download=True)
                    break
                except (OSError, RuntimeError, HTTPException):  # torchvision itself gives up where a mirror hangs
                    if mirror == MNIST.mirrors[-1]:
                        raise
            try:
                with suppress(OSError):  # empty folders of an aborted download
                    (folder / "MNIST" / "raw").rmdir()
                    (folder / "MNIST").rmdir()
                os.rename(Path(private, "MNIST"), folder / "MNIST")
            except OSError as error:
                if not find_files(folder):  # else another process was first
                    raise Fault(f"{folder / 'MNIST'}: in the way of a download ({error.strerror}); move it away") from None
    finally:
        socket.setdefaulttimeout(patience)


def mnist(data_dir=None):
    """(train_images [N,28,28], train_labels [N], test_images, test_labels), all uint8.

    From the IDX files in `data_dir` (default: data/ beside this module), else downloaded to it; without a network
    the sample of 5,000 digits that comes with the project, which is said on stderr. A faulty file is never replaced.
    """
    folder = Path(data_dir or HERE / "data")
    if not folder.is_dir():
        raise Fault(f"{folder}: no such folder; --data_dir takes a folder with the four MNIST files, or an empty one "
                    "to download them to")
    found = find_files(folder)
    if not found:
        try:
            download_mnist(folder)
            found = find_files(folder)
        except (ImportError, OSError, RuntimeError, HTTPException) as error:  # no torchvision, no network, no mirror that works
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            print(f"No MNIST in {folder} and none could be downloaded ({reason}): using the 5,000 digits of "
                  f"{HERE / 'data' / 'sample'}. For all 70,000 place the four files in {folder}, or go online and run again.",
                  file=sys.stderr)
            found = find_files(HERE / "data" / "sample")
    for name in (name for names in FILES.values() for name in names):
        if name not in found:
            raise Fault(f"{folder / name}.gz: missing, though other MNIST files are there; add it, or move those "
                        "away and run again to download all four")
    return (*read_split(*(found[name] for name in FILES["train"])), *read_split(*(found[name] for name in FILES["test"])))


def load_mnist(data_dir=None, size=10_000):
    """(N_data, train_images, train_labels, test_images, test_labels): the first `size` images of train, 10,000 of test.

    Tensors: images float32 [N, 784], every pixel rounded to 0 or 1; labels one-hot float32 [N, 10].
    N_data is the number of images in the whole train split.
    """
    arrays = mnist(data_dir)
    splits = [torch.from_numpy(array[:most]) for array, most in zip(arrays, (size, size, 10_000, 10_000))]
    images = [(part.flatten(1) / 255).round() for part in splits[::2]]
    labels = [one_hot(part.long(), 10).float() for part in splits[1::2]]
    return len(arrays[0]), images[0], labels[0], images[1], labels[1]


class GANDataset(Dataset):
    """One IDX image file (gzipped or not); an item is a float tensor [1,28,28] on `dev`, of values 0..255, transformed once."""

    def __init__(self, data_f, dev, transform=None):
        images = torch.from_numpy(read_idx(data_f)).unsqueeze(1).float()
        self.images = (torch.stack([transform(image) for image in images]) if transform else images).to(dev)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


# ------------------------------------------------------------------------------------------ batches and tiles


def batch_indices(iter, num_batches, batch_size):
    """The slice of minibatch `iter % num_batches`."""
    start = iter % num_batches * batch_size
    return slice(start, start + batch_size)


def array_to_image(array):
    """784 values (numpy or tensor) as numpy [28,28]."""
    return np.reshape(np.asarray(array), (28, 28))


def concat_images(images, row, col, padding=3):
    """Tile row*col images [28,28] into numpy [28*row + (row-1)*padding, 28*col + (col-1)*padding], zeros between.

    Column-major, as in the course: cell (i, j) is images[i + j*row].
    """
    cells = np.zeros((row, 28 + padding, col, 28 + padding))
    tiles = np.stack([array_to_image(image) for image in images[: row * col]])
    cells[:, :28, :, :28] = tiles.reshape(col, row, 28, 28).transpose(1, 2, 0, 3)
    sheet = cells.reshape(row * (28 + padding), col * (28 + padding))
    return sheet[: sheet.shape[0] - padding, : sheet.shape[1] - padding]


def check_unit(name, values, *shape):
    """ValueError unless `values` is a float tensor [..., *shape] within [0,1]. Costs a pass over the values."""
    expected = f"expected a float tensor [{', '.join(map(str, ('...', *shape)))}] of values in [0,1]"
    if not isinstance(values, torch.Tensor) or not values.is_floating_point():
        raise Fault(f"{name} is {getattr(values, 'dtype', type(values).__name__)}; {expected}")
    if values.shape[values.dim() - len(shape):] != shape or not values.numel():
        raise Fault(f"{name} has the shape {list(values.shape)}; {expected}")
    low, high = values.detach().aminmax()
    if not (low >= 0 and high <= 1):  # so that NaN is refused as well
        raise Fault(f"{name} has values from {low:.4g} to {high:.4g}; {expected}")


# --------------------------------------------------------------------------------------------- command line


def set_edition(parser, argv, editions, default):
    """Make the settings of the edition that --edition names in argv the defaults of all other flags."""
    only = argparse.ArgumentParser(add_help=False)
    only.add_argument("--edition", nargs="?", default=default)  # a missing value is the other parser's to name
    parser.set_defaults(**editions.get(only.parse_known_args(argv)[0].edition, {}))


def parse_run_args(parser, argv=None, images=True):
    """Parse with the flags that every script shares; refuse values outside the range that a flag's metavar states.

    A metavar such as "1..100000" is both the help text and the check. `--device auto` is resolved here. With images=False
    there are no --data_dir and --limit: for a script that makes its own data.
    """
    folder = HERE / "outputs" / Path(parser.prog).stem.removeprefix("hw5_")
    run = parser.add_argument_group("run")
    run.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    if images:
        run.add_argument("--data_dir", type=Path, default=HERE / "data", help="folder of the four MNIST files")
        run.add_argument("--limit", type=int, metavar="1..60000", help="train on the first N images only")
    run.add_argument("--output_dir", type=Path, default=folder, help="folder for all results")
    run.add_argument("--evaluate", action="store_true", help="measure the checkpoint in the output folder again, without training")
    run.add_argument("--deterministic", action="store_true", help="refuse operations whose result can differ between two runs "
                     "on the same machine; on a CPU none do at the same number of threads")
    run.add_argument("--quiet", action="store_true", help="no progress bar, no list of results")
    parser.usage = f"python {parser.prog} [flags]; --help explains them"
    parser.error = lambda message: parser.exit(2, f"{parser.prog}: {message}; --help lists all flags\n")
    args = parser.parse_args(argv)
    unnamed = object()
    named = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(vars(args), unnamed)))
    args.named = {name for name, value in vars(named).items() if value is not unnamed}  # on the command line

    for action in parser._actions:
        value, bounds = getattr(args, action.dest, None), re.fullmatch(r"(.+)\.\.(.+)", action.metavar or "")
        if bounds and value is not None and not float(bounds[1]) <= value <= float(bounds[2]):
            parser.error(f"argument {action.option_strings[0]}: {value} is outside {action.metavar}")
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if args.device == "auto":
        args.device = next(device for device in ("cuda", "mps", "cpu") if present[device])
    if not present[args.device]:
        parser.error(f"argument --device: {args.device} is not available here, use one of "
                     f"{', '.join(device for device in present if present[device])}")
    if args.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA's matrix products need for it
        torch.use_deterministic_algorithms(True)
    args.command = shlex.join(["python", parser.prog, *(sys.argv[1:] if argv is None else map(str, argv))])
    return args


class StopRequest:
    """Ctrl-C and SIGTERM set `signum`, so that training ends after its step; outside training, or again, they end at once."""

    def __init__(self):
        self.signum, self.training, self.previous = None, False, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # only there Python takes signals
            self.previous = {number: signal.signal(number, self.receive) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def receive(self, signum, frame):
        if self.signum or not self.training:
            raise SystemExit(128 + signum)
        self.signum = signum


# --------------------------------------------------------------------------------------------- files of a run


written = set()  # paths, by the present run: what it lists at its end, and what a later run may replace


def write_atomically(path, content):
    """Write bytes so that `path` holds either its old content or all of the new, also after a crash or power cut."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        written.add(path)
    except OSError as error:
        raise Fault(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        if partial.exists():
            partial.unlink()


def save_tensors(content, path):
    """torch.save, atomically."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load_tensors(path):
    """What save_tensors wrote, on the CPU. Runs no code from the file; Fault for a damaged or foreign one."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums that it writes
            damaged = archive.testzip()
            # A content marked as a folder is one that torch does not read: its tensor would be whatever lay in memory
            damaged = damaged or next((entry.filename for entry in archive.infolist() if entry.external_attr & 0x10), None)
        if damaged:
            raise Fault(f"{damaged} is not as it was written")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Fault(f"{path}: damaged, or no file of tensors ({reason})") from None


def save_figure(figure, path):
    """Write a matplotlib Figure as PNG, atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())


def save_gif(frames, path, seconds=8):
    """Write uint8 frames [H,W] as a looping GIF of about `seconds`, at twice their size; the last frame stays longer."""
    from PIL import Image  # comes with matplotlib

    images = [Image.fromarray(np.asarray(frame)).resize((2 * frame.shape[1], 2 * frame.shape[0]), 0) for frame in frames]
    pause = max(20, 1000 * seconds // len(images))  # milliseconds
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], loop=0,
                   duration=[pause] * (len(images) - 1) + [2000])
    write_atomically(path, buffer.getvalue())


def save_history(history, path):
    """Write a list of rows (dicts with the same keys) as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, text.getvalue().encode())


class RunFolder:
    """An output folder, locked for one process.

    `path` is where the run writes: the folder itself or, while that still holds a finished run, its subfolder
    unfinished/, whose files replace the finished ones in publish(). A finished run is one with a metrics.json.
    """

    def __init__(self, folder, program):
        self.folder, self.program = Path(os.path.abspath(folder)), program
        self.staging = self.folder / "unfinished"

    def __enter__(self):
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = open(self.folder / ".lock", "a")
        except OSError as error:
            raise Fault(f"--output_dir {self.folder}: {error.strerror}; name a folder that can be written") from None
        if not lock_file(self.lock):
            self.lock.close()
            raise Fault(f"--output_dir {self.folder}: another run is writing there; wait for it or name another folder")
        if (self.staging / "metrics.json").exists():  # a run that was whole, but killed while it moved in
            self.move_in()
        if self.finished and self.program not in (self.folder / "metrics.json").read_text():  # it holds the command
            self.lock.close()
            raise Fault(f"--output_dir {self.folder}: holds a finished run that is not of {self.program}; name another folder")
        self.path = self.staging if self.finished else self.folder
        written.clear()
        for partial in self.path.glob(".*.partial"):  # of a process killed while it wrote
            partial.unlink()
        return self

    def __exit__(self, *_):
        self.lock.close()  # the system drops the lock with the file, also when the process is killed

    @property
    def finished(self):
        return (self.folder / "metrics.json").exists()

    @staticmethod
    def read_metrics(folder):
        """What a finished run's metrics.json says; "files", the names of its files, at least."""
        try:
            metrics = json.loads((folder / "metrics.json").read_text())
            return {**metrics, "files": [Path(name).name for name in metrics["files"]]}
        except (OSError, ValueError, KeyError, TypeError):  # none, or not written by a run
            return {"files": []}

    def names(self):
        """Names of the files that this run wrote here; others' files are none of its business."""
        return sorted(path.name for path in written if path.parent == self.path and path.name != "metrics.json")

    def open_unfinished(self):
        """The checkpoint to resume (a finished run's where there is no other), or None."""
        if self.finished and not self.staging.exists():
            self.path = self.folder
        path = self.path / "checkpoint.pt"
        if not path.exists():
            return None
        try:
            return load_tensors(path)
        except Fault as fault:
            raise Fault(f"{fault}; without --resume a new run starts, and this file is kept") from None

    def clear(self):
        """Move the files of an unfinished run to the next free FOLDER.N and return that name; None if there are none."""
        if not (self.path / "checkpoint.pt").exists():
            self.path.mkdir(exist_ok=True)
            return None
        number = 1
        while (target := self.folder.with_name(f"{self.folder.name}.{number}")).exists():
            number += 1
        target.mkdir()
        try:
            names = {Path(name).name for name in load_tensors(self.path / "checkpoint.pt")["files"]}
        except (Fault, KeyError, TypeError):  # damaged: its own list cannot be read
            names = set()
        names |= {path.name for path in self.path.glob("*.png")}
        names |= {"history.csv", "best.pt", "classifier.pt", "training.gif", "sampling.gif"}
        for name in names - {"checkpoint.pt"}:
            if (self.path / name).exists():
                shutil.move(self.path / name, target / name)
        shutil.move(self.path / "checkpoint.pt", target / "checkpoint.pt")  # the mark comes last
        return target

    def publish(self, metrics):
        """Write metrics.json, the mark of a finished run, and return the paths of all its files in their final places."""
        metrics["files"] = sorted({*self.names(), "metrics.json"})
        write_atomically(self.path / "metrics.json", json.dumps(metrics, indent=2).encode() + b"\n")
        if self.path == self.staging:
            self.move_in()
        return [self.folder / name for name in metrics["files"]] + sorted(path for path in written if path.parent != self.path)

    def move_in(self):
        """Let the files of the whole run in unfinished/ take the place of the finished run's."""
        new = set(self.read_metrics(self.staging)["files"])
        fresh = {path.name for path in written if path.parent == self.folder}  # --e_path may point here
        for name in set(self.read_metrics(self.folder)["files"]) - new - fresh:
            (self.folder / name).unlink(missing_ok=True)
        left = {entry.name for entry in self.staging.iterdir()}  # a killed process may have moved some
        for name in sorted(new & left, key=lambda name: name == "metrics.json"):  # the mark comes last
            os.replace(self.staging / name, self.folder / name)
        shutil.rmtree(self.staging)


def lock_file(file):
    """Take an exclusive lock that ends with the process; False if another process holds it."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter is Windows'
        return False
    except OSError:  # a file system without locks
        pass
    return True


# ---------------------------------------------------------------------------------------------------- a run

NOT_SETTINGS = {"command", "named", "data_dir", "output_dir", "quiet", "resume_training", "evaluate", "e_path", "d_path",
                "iwae_samples", "samples", "langevin_steps", "langevin_eps"}
WHERE = {"device", "deterministic"}  # settings of training, which continues exactly; a checkpoint can be measured anywhere


def settings_of(args):
    """The flags that training depends on."""
    return {name: value for name, value in vars(args).items() if name not in NOT_SETTINGS}


def checksum(images):
    """Of a tensor; a checkpoint tells its training data by it."""
    return zlib.crc32(np.ascontiguousarray(images.cpu()))


def snapshot(model, settings, names):
    """All that training needs to continue exactly: tensors and plain values only."""
    return {
        "settings": settings,
        "files": names,
        "progress": model.progress,
        "parts": {name: part.state_dict() for name, part in model.parts.items()},
        "generators": {name: generator.get_state() for name, generator in model.generators.items()},
    }


def recall(args, state, path):
    """args with all settings that the command does not name as the snapshot has them: --evaluate needs no other flag."""
    try:
        saved = dict(state["settings"])
        del saved["data"]
    except (KeyError, TypeError, ValueError):
        saved = {}
    if saved.keys() != settings_of(args).keys():
        raise Fault(f"{path}: not a checkpoint of this script")
    return argparse.Namespace(**{**vars(args), **{name: saved[name] for name in saved.keys() - args.named - WHERE}})


def restore(model, state, settings, path, generators=True):
    """Put a snapshot back; Fault where it was made with other settings."""
    try:
        for name, value in settings.items():
            saved = state["settings"].get(name)
            if saved != value:
                what = "other training data" if name == "data" else f"--{name} {saved}, not {value}"
                raise Fault(f"{path}: belongs to a run with {what}; use the same, or start a new run")
        for name, part in model.parts.items():
            part.load_state_dict(state["parts"][name])
        for name, generator in model.generators.items() if generators else ():  # another device has other ones
            generator.set_state(state["generators"][name])
        model.progress.update(state["progress"])
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError) as error:  # whatever a file of another origin may lack
        raise Fault(f"{path}: not a checkpoint of this script ({error})") from None


def environment(args):
    """What else a result depends on."""
    git = shutil.which("git") and subprocess.run(["git", "-C", HERE, "rev-parse", "HEAD"], capture_output=True, text=True)
    revision = git.stdout.strip() if git and git.returncode == 0 else None
    return {"command": args.command, "seed": args.seed, "device": args.device, "threads": torch.get_num_threads(),
            "torch": torch.__version__, "revision": revision}


def run(args, build):
    """What main() of every script does around its model: resume, train, keep, draw, measure. Returns the exit code.

    `build(args, folder)` makes the model, which writes its figures to `folder` and has
      fit()        a generator that trains, and yields None after each step, a row of the history after each epoch, and {}
                   where it can be stopped before the first step
      progress     a dict of plain values and tensors, among them "epoch", "step" and "history"
      parts        {name: network or optimizer}, each with state_dict() and load_state_dict()
      generators   {name: torch.Generator} that training draws from
      train_data   the tensor that it learns from
      epochs, steps (per epoch), visualize() and measure(), which returns a dict of plain values
    """
    say = (lambda line: None) if args.quiet else print
    program = args.command.split()[1]
    try:
        with RunFolder(args.output_dir, program) as folder, StopRequest() as stop:
            return measure_again(args, build, folder, say) if args.evaluate else train_and_measure(args, build, folder, stop, say)
    except Fault as fault:
        print(f"{program}: {fault}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder that vanished, became read-only, ...
        print(f"{program}: {error.filename or args.output_dir}: {error.strerror or error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"{program}: {error}; no checkpoint was written since the last good epoch", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "alloc" not in str(error).lower():
            raise
        print(f"{program}: not enough memory on {args.device}; use smaller batches, networks or numbers of samples", file=sys.stderr)
        return 2


def train_and_measure(args, build, folder, stop, say):
    """A run, new or resumed; the exit code."""
    state = folder.open_unfinished() if args.resume_training else None
    fresh = {"resume_training": args.resume_training and state is None}  # a checkpoint holds all weights
    model = build(argparse.Namespace(**{**vars(args), **fresh}), folder.path)
    settings = {**settings_of(args), "data": checksum(model.train_data)}
    steps = model.steps  # with the data, the last of what can be wrong: until here no file is touched
    if state is None:
        if args.resume_training:
            say(f"{folder.folder} holds no checkpoint: starting with epoch 1.")
        if moved := folder.clear():
            say(f"{folder.folder} held an unfinished run: moved to {moved}.")
    else:
        restore(model, state, settings, folder.path / "checkpoint.pt")
        written.update(folder.path / name for name in (*state.get("files", ()), "checkpoint.pt", "history.csv"))
        if folder.finished and folder.path == folder.folder:
            say(f"The run in {folder.folder} is finished: nothing to resume.")
            return 0

    train(model, steps, settings, folder, stop, args.quiet)
    model.visualize()
    if stop.signum:
        again = args.command if args.resume_training else f"{args.command} --resume"
        say(f"Stopped after step {model.progress['step']} of epoch {model.progress['epoch'] + 1}. To go on: {again}")
        return 128 + stop.signum
    save_history(model.progress["history"], folder.path / "history.csv")  # a kill may have come before
    metrics = measure(model, say)
    seconds = sum(row["seconds"] for row in model.progress["history"])
    for path in folder.publish({**metrics, "seconds": seconds, **environment(args)}):
        say(path)
    return 0


def measure_again(args, build, folder, say):
    """--evaluate: what the checkpoint in the folder is worth; the exit code."""
    folder.path = folder.folder
    path = folder.path / "checkpoint.pt"
    state = folder.open_unfinished()
    if state is None:
        raise Fault(f"{path}: no such file; --evaluate needs the checkpoint of a run")
    args = recall(args, state, path)
    model = build(argparse.Namespace(**{**vars(args), "resume_training": False}), folder.path)
    settings = {name: value for name, value in settings_of(args).items() if name not in WHERE}
    restore(model, state, {**settings, "data": checksum(model.train_data)}, path, generators=False)
    metrics = measure(model, say)
    if folder.finished:  # then metrics.json is there, and says how it was trained
        before = folder.read_metrics(folder.folder)
        written.update(folder.path / name for name in before["files"])
        for file in folder.publish({**before, **metrics, "evaluation": environment(args)}):
            say(file)
    return 0


def measure(model, say):
    """The model's results, each said in a line."""
    metrics = model.measure()
    for name, value in metrics.items():
        say(f"{name} {value:.6g}")
    return metrics


def check_finite(model, row):
    """FloatingPointError where an epoch's values or the weights are not finite, so that no such checkpoint is written."""
    numbers = {**row, **{f"{part}.{name}": value.sum().item() for part, network in model.parts.items()
                         if isinstance(network, torch.nn.Module) for name, value in network.state_dict().items()}}
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise FloatingPointError(f"after epoch {model.progress['epoch']}: {name} is {value}; try a smaller --lr")


def train(model, steps, settings, folder, stop, quiet):
    """Run model.fit() with a progress bar, keeping checkpoint.pt and history.csv after every epoch and when stopped."""
    progress, stop.training = model.progress, True
    done = progress["epoch"] * steps + progress["step"]
    with tqdm(total=model.epochs * steps, initial=done, unit="step", disable=quiet, dynamic_ncols=True) as bar:
        bar.set_description(f"epoch {progress['epoch'] + 1}/{model.epochs}")
        for row in model.fit():
            if row is None:
                bar.update()
            elif row:
                bar.set_description(f"epoch {min(row['epoch'] + 1, model.epochs)}/{model.epochs}")
                bar.set_postfix({name: f"{row[name]:.4g}" for name in model.shown})
            if row or stop.signum:
                check_finite(model, row or {})
                save_tensors(snapshot(model, settings, folder.names()), folder.path / "checkpoint.pt")
                if progress["history"]:
                    save_history(progress["history"], folder.path / "history.csv")
            if stop.signum:
                break
    stop.training = False
