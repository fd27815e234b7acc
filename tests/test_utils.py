"""hw5_utils: reading MNIST and its faults, tiles and batches."""

import gzip
import hashlib
import http.server
import importlib.util
import os
import sys
import shutil
import socket
import struct
import threading

import numpy as np
import pytest
import torch
from helpers import ROOT, SAMPLE, idx_bytes

import hw5_utils as utils
from hw5_lab.experiments.experiment import name_of_data

spec = importlib.util.spec_from_file_location("course_utils", ROOT / "tests" / "course" / "hw5_utils.py")
course = importlib.util.module_from_spec(spec)
spec.loader.exec_module(course)

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


# ---- the course's names give the course's results


def test_every_name_of_the_course_is_there():
    assert {name for name in vars(course) if name[0] != "_"} - {"gzip", "np", "torch", "Dataset"} <= set(vars(utils))


def test_load_mnist_equals_the_course(tmp_path, monkeypatch):
    shutil.copytree(SAMPLE, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for ours, theirs in zip(utils.load_mnist(SAMPLE), course.load_mnist()):
        assert type(ours) is type(theirs), "student scripts feed these tensors to their networks"
        torch.testing.assert_close(torch.as_tensor(ours), torch.as_tensor(theirs), rtol=0, atol=0)
    for ours, theirs in zip(utils.mnist(SAMPLE), course.mnist()):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == np.uint8


def test_load_mnist_rounds_at_one_half(tiny_mnist):
    images = np.full((60, 28, 28), 127, np.uint8)
    images[:, 0, 0] = 128
    (tiny_mnist / TRAIN_IMAGES).write_bytes(gzip.compress(idx_bytes(images)))
    train = utils.load_mnist(tiny_mnist)[1]
    assert train.dtype == torch.float32 and train.shape == (60, 784)
    assert (train[:, 0] == 1).all() and (train[:, 1:] == 0).all(), "127/255 rounds to 0, 128/255 to 1"


def test_load_mnist_takes_the_first_and_counts_all(tiny_mnist):
    n, train, labels, test, _ = utils.load_mnist(tiny_mnist, size=20)
    assert (n, train.shape, test.shape) == (60, (20, 784), (30, 784))
    assert (labels.argmax(1) == torch.arange(20) % 10).all() and (labels.sum(1) == 1).all(), "labels must be one-hot"


def test_gan_dataset_equals_the_course(tiny_mnist):
    halve = lambda image: image / 2
    for transform in (None, halve):
        ours, theirs = (module.GANDataset(tiny_mnist / TRAIN_IMAGES, "cpu", transform) for module in (utils, course))
        assert len(ours) == len(theirs) == 60
        for index in (0, 59):
            assert ours[index].shape == (1, 28, 28) and torch.equal(ours[index], theirs[index])
    assert utils.GANDataset(tiny_mnist / TRAIN_IMAGES, "cpu")[0].max() > 1, "values stay 0..255"


def test_gan_dataset_refuses_labels(tiny_mnist):
    with pytest.raises(utils.Fault, match="expected images"):
        utils.GANDataset(tiny_mnist / TRAIN_LABELS, "cpu")


def test_too_few_images_for_a_grid_are_refused():
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"{count} images, expected at least 2 . 3 = 6"):
            utils.concat_images([np.zeros((28, 28))] * count, 2, 3)


@pytest.mark.parametrize("row, col, padding", [(10, 2, 3), (3, 11, 3), (8, 8, 3), (1, 1, 0), (2, 3, 0), (2, 3, 5)])
def test_concat_images_equals_the_course(row, col, padding):
    images = np.random.default_rng(0).random((row * col, 28, 28))
    ours, theirs = (module.concat_images(images, row, col, padding) for module in (utils, course))
    np.testing.assert_array_equal(ours, theirs)


def test_concat_images_is_column_major_with_zeros_between():
    images = [np.full((28, 28), 1.0 + k) for k in range(6)]
    grid = utils.concat_images(images, row=2, col=3)
    assert grid.shape == (28 * 2 + 3, 28 * 3 + 6)
    assert grid[0, 0] == 1 and grid[31, 0] == 2 and grid[0, 31] == 3, "cell (i, j) is images[i + j*row]"
    assert (grid[28:31] == 0).all() and (grid[:, 28:31] == 0).all(), "padding must be black"


def test_batch_indices_wrap_around():
    for iteration in range(25):
        assert utils.batch_indices(iteration, 10, 7) == course.batch_indices(iteration, 10, 7)


def test_array_to_image_takes_tensors():
    array = torch.arange(784.0)
    assert (utils.array_to_image(array) == course.array_to_image(array.numpy())).all()


# ---- the sample


def test_sample_is_balanced_and_shuffled():
    train_images, train_labels, test_images, test_labels = utils.mnist(SAMPLE)
    assert (np.bincount(train_labels) == 400).all() and (np.bincount(test_labels) == 100).all()
    assert np.abs(np.corrcoef(np.arange(4000), train_labels)[0, 1]) < 0.05, "the digits must not be sorted"
    assert len(np.unique(np.concatenate([train_images, test_images]), axis=0)) == 5000, "no image in both splits"


def test_sample_has_the_documented_checksums():
    readme = (ROOT / "data" / "README.md").read_text()
    for path in SAMPLE.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() in readme, f"data/README.md: checksum of {path.name}"


# ---- where the files are found


def test_files_are_found_plain_or_gzipped_in_the_folder_or_raw(tiny_mnist):
    expected = utils.mnist(tiny_mnist)
    raw = tiny_mnist / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (tiny_mnist / TRAIN_LABELS).rename(raw / TRAIN_LABELS)
    archive = tiny_mnist / TRAIN_IMAGES
    (raw / archive.stem).write_bytes(gzip.decompress(archive.read_bytes()))
    archive.unlink()
    for array, other in zip(expected, utils.mnist(tiny_mnist)):
        np.testing.assert_array_equal(array, other)


@pytest.fixture
def mirror(tiny_mnist, monkeypatch):
    """A web server on this machine that stands in for torchvision's mirrors and serves the tiny files."""
    datasets = pytest.importorskip(
        "torchvision.datasets", reason="torchvision does not match torch here", exc_type=(ImportError, RuntimeError)
    )
    handler = lambda *args: http.server.SimpleHTTPRequestHandler(*args, directory=tiny_mnist)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(
        datasets.MNIST,
        "resources",
        [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in tiny_mnist.glob("*.gz")],
    )
    yield tiny_mnist
    server.shutdown()
    server.server_close()


@pytest.fixture
def default_folder(tmp_path, monkeypatch):
    """An empty data/ beside the module: the only folder to which MNIST is downloaded."""
    monkeypatch.setattr(utils, "HERE", tmp_path / "project")
    monkeypatch.setattr(utils, "UNREACHABLE", {})
    folder = tmp_path / "project" / "data"
    folder.mkdir(parents=True)
    return folder


def test_a_missing_default_folder_is_made(mirror, default_folder):
    """Who copies the scripts alone has no data/."""
    default_folder.rmdir()
    assert len(utils.mnist()[0]) == len(utils.mnist(mirror)[0])
    assert (default_folder / "MNIST" / "raw").is_dir()


def test_download(mirror, default_folder):
    patience = socket.getdefaulttimeout()
    for array, other in zip(utils.mnist(), utils.mnist(mirror)):
        np.testing.assert_array_equal(array, other)
    written = {path.name for path in (default_folder / "MNIST" / "raw").iterdir()}
    assert {path.name for path in mirror.glob("*.gz")} <= written
    assert [path.name for path in default_folder.iterdir()] == ["MNIST"]
    assert socket.getdefaulttimeout() == patience


def test_download_with_wrong_checksum_leaves_nothing_and_takes_the_sample(mirror, default_folder, capsys):
    with open(mirror / TRAIN_IMAGES, "ab") as file:
        file.write(b"x")
    assert len(utils.mnist()[0]) == 4000
    assert list(default_folder.iterdir()) == [], "an unverified file must not get its final name"
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"MNIST cannot be downloaded to {default_folder} (")
    assert message.endswith("): using the 5,000 digits of data/sample.")


def test_every_mirrors_own_reason_is_said(mirror, default_folder, capsys, monkeypatch):
    """The first may be refused for a certificate or proxy, which a 404 of the last one must not hide."""
    import torchvision

    (mirror / TRAIN_IMAGES).unlink()
    address = torchvision.datasets.MNIST.mirrors[0]
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://[bad/", "http://127.0.0.1:9/", address])
    assert len(utils.mnist()[0]) == 4000
    message = capsys.readouterr().err.splitlines()[-1]
    for words in ("127.0.0.1:9: ", "refused", f"{address.split('/')[2]}: ", "404", "using the 5,000 digits"):
        assert words in message, message


@pytest.mark.parametrize("error", [ImportError("no torchvision"), AttributeError("no attribute 'extension'")])
def test_a_torchvision_that_is_not_there_or_of_another_build_is_no_traceback(
    error, default_folder, capsys, monkeypatch
):
    class Broken:
        def find_spec(self, name, *_):
            if name.startswith("torchvision"):
                raise error

    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        monkeypatch.delitem(sys.modules, name)
    assert len(utils.mnist()[0]) == 4000
    assert f"({error})" in capsys.readouterr().err


def test_download_to_a_malformed_address_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(utils.Fault, match=r"http://\[bad/: cannot be fetched \(.+\); run again, or place the file at"):
        utils.download("http://[bad/", "a.gz")


@pytest.mark.parametrize("error", [RuntimeError("no network"), ValueError("Invalid IPv6 URL"), OSError("disk full")])
def test_without_network_the_sample_is_taken_and_the_reason_said_once(error, default_folder, capsys, monkeypatch):
    tries = []

    def offline(folder):
        tries.append(folder)
        raise error

    monkeypatch.setattr(utils, "download_mnist", offline)
    assert len(utils.mnist()[0]) == 4000 and name_of_data() == "the digits of data/sample"
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"Downloading MNIST to {default_folder}, 12 MB; ")
    assert f"({error})" in second and "using the 5,000 digits of data/sample" in second
    assert len(tries) == 1, "one process waits for a network once"


def test_a_download_is_one_line_without_bars(mirror, default_folder, capfd):
    utils.mnist()
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and "\r" not in printed.err, printed.err


def test_what_a_killed_download_left_is_cleared(mirror, default_folder):
    old, young = default_folder / ".download-old", default_folder / ".download-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))
    utils.mnist()
    assert not old.exists() and young.exists(), "another process may be using the young one"


@pytest.mark.parametrize("names", [(), ("mnist_train.csv",), ("archive.zip", "FashionMNIST", "notes.txt", "x")])
def test_a_named_folder_without_mnist_is_a_fault(names, tmp_path, monkeypatch):
    """Nothing is downloaded into it, and nothing else is taken in its place."""
    for name in names:
        (tmp_path / name).write_text("other")
    monkeypatch.setattr(utils, "download_mnist", lambda folder: pytest.fail("a download into a named folder"))
    with pytest.raises(utils.Fault) as caught:
        utils.mnist(tmp_path)
    message = str(caught.value)
    assert all(name in message for name in sorted(names)[:3]) and "expected train-images-idx3-ubyte" in message


@pytest.mark.parametrize(
    "spell",
    [
        lambda name: name.replace("-idx", ".idx"),
        str.upper,
        lambda name: name.replace("-idx", ".idx") + ".gz",
        lambda name: name + ".GZ",
    ],
)
def test_other_spellings_are_read(spell, tiny_mnist, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    for path in tiny_mnist.glob("*.gz"):
        name = spell(path.stem)
        content = path.read_bytes()
        (folder / name).write_bytes(content if name.lower().endswith(".gz") else gzip.decompress(content))
    for array, other in zip(utils.mnist(folder), utils.mnist(tiny_mnist), strict=True):
        np.testing.assert_array_equal(array, other)


def test_data_are_named_by_their_content(tiny_mnist, tmp_path):
    assert name_of_data(SAMPLE) == "the digits of data/sample"
    copy = shutil.copytree(SAMPLE, tmp_path / "copy")
    assert name_of_data(copy) == "the digits of data/sample", "wherever they lie"
    assert name_of_data(tiny_mnist) == f"the images of {tiny_mnist}"


def test_course_download(mirror, tmp_path, monkeypatch):
    import torchvision

    monkeypatch.chdir(tmp_path)
    url = torchvision.datasets.MNIST.mirrors[0] + TRAIN_LABELS
    utils.download(url, TRAIN_LABELS)
    fetched = tmp_path / "data" / TRAIN_LABELS
    assert fetched.read_bytes() == (mirror / TRAIN_LABELS).read_bytes()
    fetched.write_bytes(b"mine")
    utils.download(url, TRAIN_LABELS)
    assert fetched.read_bytes() == b"mine", "a file that is there is not fetched again"
    with pytest.raises(utils.Fault, match="cannot be fetched"):
        utils.download(url + "x", "other")
    assert not (tmp_path / "data" / "other").exists()


# ---- faults: each names the file, what is wrong, and a remedy


def fault(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(utils.Fault) as caught:
        utils.mnist(folder)
    message = str(caught.value)
    assert name in message and "\n" not in message, f"the message must name the file in one line: {message}"
    return message


def test_missing_folder(tmp_path):
    (tmp_path / "mnist.csv").write_text("x")
    with pytest.raises(utils.Fault, match="mnist.csv: is a file; expected a folder"):
        utils.find_mnist(tmp_path / "mnist.csv")
    with pytest.raises(utils.Fault, match="no such folder"):
        utils.mnist(tmp_path / "nowhere")


def test_missing_file_among_others(tiny_mnist):
    (tiny_mnist / TRAIN_LABELS).unlink()
    with pytest.raises(utils.Fault, match=f"{TRAIN_LABELS}: missing"):
        utils.mnist(tiny_mnist)


def test_wrong_type_of_values(tiny_mnist):
    assert "not an IDX file of bytes" in fault(tiny_mnist, TRAIN_IMAGES, b"\0\0\x0d\x03" + bytes(100))


def test_other_content(tiny_mnist):
    assert "not an IDX file" in fault(tiny_mnist, TRAIN_IMAGES, b"<html>404 Not Found</html>")
    assert "not an IDX file" in fault(tiny_mnist, TRAIN_IMAGES, b"")


def test_labels_where_images_are_expected(tiny_mnist):
    assert "expected images (N, 28, 28)" in fault(tiny_mnist, TRAIN_IMAGES, (tiny_mnist / TRAIN_LABELS).read_bytes())


def test_images_of_another_size(tiny_mnist):
    assert "(60, 14, 14)" in fault(tiny_mnist, TRAIN_IMAGES, idx_bytes(np.zeros((60, 14, 14), np.uint8)))


def test_no_images(tiny_mnist):
    assert "0x28x28 = 0 bytes" in fault(tiny_mnist, TRAIN_IMAGES, idx_bytes(np.zeros((0, 28, 28), np.uint8)))


def test_a_header_of_huge_dimensions(tiny_mnist):
    """Also where one dimension is 0, so that the product is what the file holds."""
    for shape in ((2**32 - 1,) * 3, (0, 2**32 - 1, 2**32 - 1)):
        assert "of data" in fault(tiny_mnist, TRAIN_IMAGES, struct.pack(">4I", 0x0803, *shape))


def test_labels_that_do_not_match_the_images(tiny_mnist):
    assert "60 images" in fault(tiny_mnist, TRAIN_LABELS, idx_bytes(np.zeros(59, np.uint8)))


def test_labels_that_are_no_digits(tiny_mnist):
    assert "label 10" in fault(tiny_mnist, TRAIN_LABELS, idx_bytes(np.full(60, 10, np.uint8)))


@pytest.mark.parametrize("name", [TRAIN_IMAGES, "t10k-images-idx3-ubyte.gz"])
@pytest.mark.parametrize("value, words", [(0, "every pixel is 0"), (255, "every pixel is 255")])
def test_images_of_one_colour_are_refused(name, value, words, tiny_mnist):
    count = 60 if name == TRAIN_IMAGES else 30
    (tiny_mnist / name).write_bytes(idx_bytes(np.full((count, 28, 28), value, np.uint8)))
    with pytest.raises(utils.Fault, match=words):
        utils.mnist(tiny_mnist)


def test_pixels_of_0_and_1_are_refused(tiny_mnist):
    images = utils.mnist(tiny_mnist)[0] // 128
    assert "expected 0 to 255; multiply them by 255" in fault(tiny_mnist, TRAIN_IMAGES, idx_bytes(images))


def test_every_flipped_header_byte_is_refused(tiny_mnist):
    for name in (TRAIN_IMAGES, TRAIN_LABELS):
        good = gzip.decompress((tiny_mnist / name).read_bytes())
        for position in range(16 if "images" in name else 8):
            fault(tiny_mnist, name, good[:position] + bytes([good[position] ^ 0xFF]) + good[position + 1 :])
        (tiny_mnist / name).write_bytes(good)
    utils.mnist(tiny_mnist)  # and the good ones are good


def test_every_truncation_is_refused(tiny_mnist):
    archive = (tiny_mnist / TRAIN_IMAGES).read_bytes()
    plain = gzip.decompress(archive)
    for content in (archive, plain):
        for length in [*range(40), *range(40, len(content), 997), len(content) - 1]:
            fault(tiny_mnist, TRAIN_IMAGES, content[:length])
    assert "holds 47041" in fault(tiny_mnist, TRAIN_IMAGES, plain + b"x")


def test_flipped_bits_in_a_gzip_file_change_nothing_or_are_refused(tiny_mnist):
    expected = utils.mnist(tiny_mnist)[0]
    path = tiny_mnist / TRAIN_IMAGES
    good = path.read_bytes()
    refused = 0
    for position in [*range(20), *range(20, len(good), 499), *range(len(good) - 8, len(good))]:
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        try:
            np.testing.assert_array_equal(utils.mnist(tiny_mnist)[0], expected)  # a time stamp, for instance
        except utils.Fault as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > len(good) // 499


def test_unreadable_file(tiny_mnist):
    (tiny_mnist / TRAIN_IMAGES).unlink()
    (tiny_mnist / TRAIN_IMAGES).symlink_to(tiny_mnist / TRAIN_IMAGES)
    with pytest.raises(utils.Fault, match=TRAIN_IMAGES):
        utils.mnist(tiny_mnist)
