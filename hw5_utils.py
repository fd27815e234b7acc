"""The ground floor of hw5: MNIST and tiled images, under the names of the course's own hw5_utils.

The results are the same as the course's. A grader may place the course's smaller module beside the scripts instead.
"""

import gzip
import io
import math
import os
import shutil
import socket
import struct
import sys
import tempfile
import time
import urllib.request
import zlib
from contextlib import redirect_stderr, redirect_stdout, suppress
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import one_hot
from torch.utils.data import Dataset

HERE = Path(__file__).resolve().parent
SAMPLE = HERE / "data" / "sample"  # 5,000 digits, for runs without a network
BASE_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
TRAIN = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
NETWORK_TIMEOUT = 10  # seconds without a byte
# AttributeError: a torchvision of another build; ValueError: a malformed redirect
DOWNLOAD_FAILS = ImportError, AttributeError, OSError, RuntimeError, HTTPException, ValueError
REFILLED = "data/ is downloaded anew where it holds no MNIST file"
UNREACHABLE = {}  # {folder: reason} of downloads that failed in this process, which are not tried again


class Fault(ValueError):
    """Something that the user can mend, in one line: what, where, what was expected, the remedy."""


# ---------------------------------------------------------------------------------------------------- files


def write_atomically(path, content, partial=None):
    """Write bytes so that `path` holds either its old content or all of the new, also after a crash or power cut.

    They are first written to the file `partial`, by default a hidden one beside `path` that no other process uses.
    """
    path = Path(path)
    partial = partial or path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise Fault(f"{path}: cannot be written ({error.strerror})") from None


def reason_of(error):
    """An error in one line. Of torchvision's two lines the second says why."""
    lines = str(error).splitlines() or [type(error).__name__]
    return next((line for line in lines if not line.endswith(":")), lines[0])


def download(url, filename):
    """Fetch `url` into ./data/`filename` unless it is there. The name appears only once the file is whole."""
    path = Path("data", filename)
    if path.exists():
        return
    try:
        path.parent.mkdir(exist_ok=True)
        with urllib.request.urlopen(url, timeout=NETWORK_TIMEOUT) as response:
            content = response.read()
    except (OSError, HTTPException, ValueError) as error:  # no network, no such file, a time-out, a malformed redirect
        raise Fault(
            f"{url}: cannot be fetched ({reason_of(error)}); run again, or place the file at {path} by hand"
        ) from None
    write_atomically(path, content)


def read_idx(path):
    """The uint8 array of an IDX file, gzipped or not; Fault if it is not exactly what its own header says."""
    path = Path(path)
    remedy = f"replace it ({REFILLED})"
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise Fault(f"{path}: damaged gzip file ({error}); {remedy}") from None
    except OSError as error:
        raise Fault(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(content) < 4 or content[:3] != b"\0\0\x08" or not 1 <= content[3] <= 3:
        start = content[:4].hex() or "nothing"
        raise Fault(f"{path}: not an IDX file of bytes (starts with {start}); {remedy}")
    dimensions = content[3]
    if len(content) < 4 + 4 * dimensions:
        raise Fault(f"{path}: ends inside its header, after {len(content)} bytes; {remedy}")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    expected, found = math.prod(shape), len(content) - 4 - 4 * dimensions
    if found != expected or not found:
        size = "x".join(map(str, shape))
        raise Fault(f"{path}: header says {size} = {expected} bytes of data, the file holds {found}; {remedy}")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy()


def read_images(path):
    """Images uint8 [N,28,28] of an IDX file; Fault if it holds something else."""
    images = read_idx(path)
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise Fault(f"{path}: holds an array of shape {images.shape}, expected images (N, 28, 28)")
    return images


def read_split(images_path, labels_path):
    """(images [N,28,28], labels [N]) of one split, both uint8; Fault if the two files do not fit each other."""
    images, labels = read_images(images_path), read_idx(labels_path)
    if labels.ndim != 1 or len(labels) != len(images):
        raise Fault(
            f"{labels_path}: holds an array of shape {labels.shape}, expected a label for each of the "
            f"{len(images)} images of {images_path}"
        )
    if labels.max() > 9:
        raise Fault(f"{labels_path}: holds the label {labels.max()}, expected digits 0 to 9")
    return images, labels


# ---------------------------------------------------------------------------------------------------- MNIST


def spelling(name):
    """A file's name as this module writes it: some unpackers write train-images.idx3-ubyte, or capitals."""
    return name.lower().removesuffix(".gz").replace(".", "-")


def find_files(folder):
    """{name: path} of the IDX files in `folder` or its MNIST/raw (where torchvision puts them), gzipped or not."""
    found = {}
    for place in (folder, folder / "MNIST" / "raw"):
        for path in sorted(place.iterdir(), reverse=True) if place.is_dir() else ():  # gzipped ones first
            name = spelling(path.name)
            if name in (*TRAIN, *TEST) and path.is_file():
                found.setdefault(name, path)
    return found


def download_mnist(folder):
    """Fetch the four files through torchvision (mirrors, MD5) into `folder`/MNIST/raw.

    Each process downloads into a folder of its own, which takes its final name when all four are verified: a cut or a
    second process leaves nothing half-written.
    """
    from torchvision.datasets import MNIST  # only here: the rest of the project runs without torchvision

    for left in folder.glob(".download-*"):  # of a process that was killed
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > 3600:
                shutil.rmtree(left)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as private:
            reasons = []
            for mirror in MNIST.mirrors:
                try:
                    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # its progress bars
                        type("MNIST", (MNIST,), {"mirrors": [mirror]})(private, download=True)
                    break
                except DOWNLOAD_FAILS as error:  # torchvision itself gives up where a mirror hangs
                    reasons.append(f"{mirror.split('/')[2]}: {reason_of(error)}")
            else:
                raise OSError("; ".join(reasons))
            try:
                with suppress(OSError):  # empty folders of an aborted download
                    (folder / "MNIST" / "raw").rmdir()
                    (folder / "MNIST").rmdir()
                os.rename(Path(private, "MNIST"), folder / "MNIST")
            except OSError as error:
                if not find_files(folder):  # else another process was first
                    raise Fault(
                        f"{folder / 'MNIST'}: in the way of a download ({error.strerror}); move it away"
                    ) from None
    finally:
        socket.setdefaulttimeout(patience)


def find_mnist(data_dir=None):
    """(folder, {name: path}): the four files in `data_dir`, by default data/ beside this module.

    Only to the default folder MNIST is downloaded; without a network the sample of 5,000 digits that comes with the
    project is taken, which is said on stderr. Fault where a named folder holds no MNIST, or only a part of it.
    """
    default = HERE / "data"
    folder = Path(data_dir or default)
    if folder.resolve() == default.resolve():
        with suppress(OSError):
            default.mkdir(exist_ok=True)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise Fault(f"{folder}: {what}; expected a folder with the four MNIST files")
    found = find_files(folder)
    if not found and folder.resolve() != default.resolve():
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        holds = f"holds {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}, but no" if others else "holds no"
        raise Fault(
            f"{folder}: {holds} MNIST files; expected {TRAIN[0]}, {TRAIN[1]}, {TEST[0]} and {TEST[1]}, gzipped or "
            "not; name their folder, or name none to download them"
        )
    if not found:
        try:
            if folder in UNREACHABLE:
                raise OSError(UNREACHABLE[folder])
            print(
                f"Downloading MNIST to {folder}, 12 MB; a mirror that is silent for {NETWORK_TIMEOUT} s is given up.",
                file=sys.stderr,
            )
            download_mnist(folder)
            found = find_files(folder)
        except Fault:
            raise
        except DOWNLOAD_FAILS as error:  # no torchvision, no network, no mirror that works
            reason = reason_of(error)
            if folder not in UNREACHABLE:
                print(
                    f"MNIST cannot be downloaded to {folder} ({reason}): using the 5,000 digits of data/sample.",
                    file=sys.stderr,
                )
            UNREACHABLE[folder] = reason
            folder, found = SAMPLE, find_files(SAMPLE) if SAMPLE.is_dir() else {}
            if not found:
                raise Fault(f"{default}: no MNIST, and no sample in {SAMPLE}; place the four files there") from None
    for name in (*TRAIN, *TEST):
        if name not in found:
            raise Fault(f"{folder / name}.gz: missing, though other MNIST files are there; add it ({REFILLED})")
    return folder, found


def mnist(data_dir=None):
    """(train_images [N,28,28], train_labels [N], test_images, test_labels), all uint8, from where find_mnist() says.

    Fault for files that are damaged, and for images that are all alike or hold 0 and 1 instead of 0 to 255.
    """
    _, found = find_mnist(data_dir)
    splits = [read_split(*(found[name] for name in names)) for names in (TRAIN, TEST)]
    for (images, _), (path, _) in zip(splits, (TRAIN, TEST)):
        low, high = images.min(), images.max()
        if high <= 1 and low < high:
            raise Fault(f"{found[path]}: pixels are {low} to {high}, expected 0 to 255; multiply them by 255")
        if low == high:
            raise Fault(f"{found[path]}: every pixel is {low}, so there is nothing to learn; replace the file")
    return (*splits[0], *splits[1])


def load_mnist(data_dir=None, size=10_000):
    """(N_data, train_images, train_labels, test_images, test_labels): the first `size` images of train, 10,000 of test.

    Tensors: images float32 [N,784], every pixel rounded to 0 or 1; labels one-hot float32 [N,10].
    N_data is the number of images in the whole train split.
    """
    arrays = mnist(data_dir)
    splits = [torch.from_numpy(array[:most]) for array, most in zip(arrays, (size, size, 10_000, 10_000))]
    images = [(part.flatten(1) / 255).round() for part in splits[::2]]
    labels = [one_hot(part.long(), 10).float() for part in splits[1::2]]
    return len(arrays[0]), images[0], labels[0], images[1], labels[1]


class GANDataset(Dataset):
    """One IDX image file, gzipped or not. An item is a float tensor [1,28,28] on `dev`.

    Its values are 0..255; `transform`, where there is one, is applied to each image once.
    """

    def __init__(self, data_f, dev, transform=None):
        images = torch.from_numpy(read_images(data_f)).unsqueeze(1).float()
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

    Column-major, as in the course: cell (i, j) is images[i + j*row]. ValueError for fewer than row*col images.
    """
    if len(images) < row * col:
        raise ValueError(f"concat_images: {len(images)} images, expected at least {row} * {col} = {row * col}")
    cells = np.zeros((row, 28 + padding, col, 28 + padding))
    tiles = np.stack([array_to_image(image) for image in images[: row * col]])
    cells[:, :28, :, :28] = tiles.reshape(col, row, 28, 28).transpose(1, 2, 0, 3)
    sheet = cells.reshape(row * (28 + padding), col * (28 + padding))
    return sheet[: sheet.shape[0] - padding, : sheet.shape[1] - padding]
