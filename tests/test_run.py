"""Nothing is lost, nothing wrong is believed: real kills, signals, full disks, damaged files and second processes."""

import http.server
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import MODULES, each, one_quickly, rows, small
from test_utils import mirror  # noqa: F401, a fixture

import hw5_utils as utils
import hw5_vae

# Processes that have torch imported but have computed nothing start at once and are as real as any other.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload([*MODULES, "matplotlib.figure", "matplotlib.backends.backend_agg",
                                  "torch._dynamo"])  # which the first optimizer imports

EPOCHS = {"hw5_vae": 20, "hw5_gan": 5, "hw5_diffusion": 5}


def enter(name, arguments, errors, file_size=None, user=None):
    """The body of a child process: the script's main() with its errors in a file."""
    sys.stderr = open(errors, "a", buffering=1)
    if user is not None:
        os.setuid(user)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    sys.exit(MODULES[name].main(arguments))


class Child:
    def __init__(self, name, arguments, **limits):
        self.errors = Path(f"{arguments[arguments.index('--output_dir') + 1]}.err")
        self.errors.parent.mkdir(parents=True, exist_ok=True)
        self.process = processes.Process(target=enter, args=(name, [str(word) for word in arguments], self.errors), kwargs=limits)
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
    assert same(utils.load_tensors(folder / "checkpoint.pt"), utils.load_tensors(reference / "checkpoint.pt"))
    drop_seconds = lambda table: [{key: value for key, value in row.items() if key != "seconds"} for row in table]
    assert drop_seconds(rows(folder)) == drop_seconds(rows(reference))
    assert {path.name for path in folder.iterdir()} == {path.name for path in reference.iterdir()}
    for path in (*reference.glob("*.png"), *reference.glob("*.gif")):
        assert (folder / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """An uninterrupted run of each script, made when it is first asked for; and the seconds it takes."""
    made = {}

    def make(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name) / "out"
            assert Child(name, arguments(name, folder.with_name("warm_up"))).wait() == 0  # starts the server of processes
            start = time.monotonic()
            assert Child(name, arguments(name, folder)).wait() == 0
            made[name] = folder, time.monotonic() - start
        return made[name]

    return make


# ---- kills and signals


@pytest.mark.slow
@each
def test_kill_at_20_random_moments_and_resume(name, tmp_path, references):
    reference, seconds = references(name)
    rng, kills, run = random.Random(0), 0, 0
    while kills < 20:
        run += 1
        folder, code = tmp_path / f"run{run}" / "out", None
        while code != 0:
            child = Child(name, arguments(name, folder, "--resume"))
            if kills < 20:
                child.process.join(rng.uniform(0.1, 0.5) * seconds)
                child.process.kill()
            code = child.wait()
            assert code in (0, -signal.SIGKILL), child.message()
            kills += code != 0
        assert_same_run(folder, reference)
    print(f"{name}: {kills} kills survived in {run} runs")


@one_quickly("hw5_gan", "hw5_diffusion")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)])
def test_stop_and_resume(name, number, code, tmp_path, references):
    reference, _ = references(name)
    folder = tmp_path / "out"
    child = Child(name, arguments(name, folder))
    wait_for(folder / "checkpoint.pt")
    child.signal(number)
    assert child.wait() == code, child.message()
    figures = {"hw5_vae": {"data_space.png", "elbo.png"}, "hw5_gan": {"losses.png", "training.gif"},
               "hw5_diffusion": {"score_field.png", "sampling.gif"}}[name]
    written = {path.name for path in folder.iterdir()}
    assert figures | {"checkpoint.pt", "history.csv"} <= written and "metrics.json" not in written
    assert Child(name, arguments(name, folder, "--resume")).wait() == 0
    assert_same_run(folder, reference)


def test_stop_comes_within_an_epoch(tmp_path, monkeypatch):
    """The checkpoint of a stop is that of its step, not of the last epoch."""
    stop_at, bound, calls = 6, hw5_vae.VAE.bound, []

    def bound_and_stop(self, x, generator, seen=None):
        calls.append(len(x))
        if len(calls) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return bound(self, x, generator, seen)

    monkeypatch.setattr(hw5_vae.VAE, "bound", bound_and_stop)
    assert hw5_vae.main(small("hw5_vae", tmp_path)) == 143
    progress = utils.load_tensors(tmp_path / "checkpoint.pt")["progress"]
    assert (progress["epoch"], progress["step"]) == (1, 1), "four steps and one evaluation an epoch: call 6 is step 1 of epoch 2"


def test_second_ctrl_c_ends_at_once(tmp_path, monkeypatch):
    def ctrl_c_twice(self, *_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("went on after the second Ctrl-C")

    handler = signal.getsignal(signal.SIGINT)  # another one where pytest runs in the background
    stop_early("hw5_vae", tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(hw5_vae.VAE, "bound", ctrl_c_twice)
    with pytest.raises(SystemExit) as stopped:
        hw5_vae.main(arguments("hw5_vae", tmp_path, "--resume"))
    assert stopped.value.code == 130
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert signal.getsignal(signal.SIGINT) is handler, "handlers are put back"


# ---- old work in the folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def stop_early(name, folder, *more):
    child = Child(name, arguments(name, folder, *more))
    work = folder / "unfinished" if (folder / "metrics.json").exists() else folder
    wait_for(work / "checkpoint.pt")
    child.process.kill()
    child.wait()


def test_fresh_start_moves_an_unfinished_run_away(tmp_path, capsys):
    folder = tmp_path / "out"
    for number in (1, 2):
        stop_early("hw5_vae", folder)
        before = contents(folder)
        assert hw5_vae.main([word for word in small("hw5_vae", folder) if word != "--quiet"]) == 0
        assert f"moved to {folder}.{number}" in capsys.readouterr().out
        assert contents(tmp_path / f"out.{number}") == {k: v for k, v in before.items() if k[0] != "."}
        shutil.rmtree(folder)


@one_quickly("hw5_gan")
def test_finished_run_stays_until_the_new_one_is_whole(name, tmp_path):
    folder = tmp_path / "out"
    assert MODULES[name].main(small(name, folder, "--device", "cpu")) == 0
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["files"]) == {path.name for path in folder.iterdir() if path.name != ".lock"}
    (folder / "samples_epoch_1.png").touch()
    metrics["files"].append("samples_epoch_1.png")  # as if the finished run had drawn it
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    stop_early(name, folder, "--seed", 99)
    assert contents(folder) == before, "a finished run's files must stay"
    assert MODULES[name].main(arguments(name, folder, "--seed", 99, "--resume")) == 0
    after = contents(folder)
    assert json.loads(after["metrics.json"])["seed"] == 99 and after["checkpoint.pt"] != before["checkpoint.pt"]
    assert after["notes.txt"] == b"mine" and "samples_epoch_1.png" not in after and not (folder / "unfinished").exists()


def test_a_run_killed_while_it_replaces_a_finished_one(tmp_path, monkeypatch):
    """At every point between the files: the next start completes the move."""
    folder = tmp_path / "out"
    assert hw5_vae.main(small("hw5_vae", folder)) == 0
    replace = os.replace
    for survived in (0, 1, 3, 6):
        line = small("hw5_vae", folder, "--seed", survived)
        moves = []

        def killed(source, target):
            if "unfinished" in str(source) and "partial" not in str(source):
                moves.append(source)
                if len(moves) > survived:
                    raise SystemExit(137)
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(utils.os, "replace", killed)
            with pytest.raises(SystemExit):
                hw5_vae.main(line)
        assert (folder / "unfinished" / "metrics.json").exists()
        with utils.RunFolder(folder, "hw5_vae.py"):
            pass
        assert {path.name for path in folder.iterdir()} == {*utils.RunFolder.read_metrics(folder)["files"], ".lock"}
        assert hw5_vae.main([*line, "--resume"]) == 0
        assert json.loads((folder / "metrics.json").read_text())["seed"] == survived
        assert utils.load_tensors(folder / "checkpoint.pt")["settings"]["seed"] == survived
        assert not (folder / "unfinished").exists()


def test_output_folder_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    stop_early("hw5_vae", tmp_path / "work")
    assert hw5_vae.main(small("hw5_vae", ".")) == 0
    assert (tmp_path / "work.1" / "checkpoint.pt").exists() and (tmp_path / "work" / "metrics.json").exists()


def test_bad_input_moves_nothing(tmp_path, tiny_mnist, capsys):
    folder = tmp_path / "out"
    stop_early("hw5_gan", folder)
    before = contents(folder)
    assert MODULES["hw5_gan"].main(arguments("hw5_gan", folder, "--batch_size", 401)) == 2
    (tiny_mnist / "train-labels-idx1-ubyte.gz").unlink()
    assert MODULES["hw5_gan"].main(arguments("hw5_gan", folder, "--data_dir", tiny_mnist)) == 2
    assert {k for k in contents(folder) if k[0] != "."} == {k for k in before if k[0] != "."}
    assert not (tmp_path / "out.1").exists(), "an unfinished run is moved only when another one really starts"


def test_files_of_others_survive_every_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for seed in (1, 2, 3):
        assert hw5_vae.main(small("hw5_vae", tmp_path, "--seed", seed)) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_files_of_others_stay_when_an_unfinished_run_is_moved(tmp_path):
    folder = tmp_path / "out"
    assert hw5_vae.main(small("hw5_vae", folder)) == 0
    (folder / "metrics.json").unlink()  # as if it had been killed at the very end
    (folder / "notes.txt").write_text("mine")
    (folder / "thesis").mkdir()
    assert hw5_vae.main(small("hw5_vae", folder)) == 0
    assert (folder / "notes.txt").exists() and (folder / "thesis").exists() and (tmp_path / "out.1" / "checkpoint.pt").exists()


def test_weights_in_the_output_folder_survive_the_next_run(tmp_path):
    paths = ["--e_path", tmp_path / "e.pt", "--d_path", tmp_path / "d.pt"]
    for _ in range(2):
        assert hw5_vae.main(small("hw5_vae", tmp_path, *paths)) == 0
        assert (tmp_path / "e.pt").exists() and (tmp_path / "d.pt").exists()


def test_finished_run_of_another_script_is_left_alone(tmp_path, capsys):
    assert hw5_vae.main(small("hw5_vae", tmp_path)) == 0
    before = contents(tmp_path)
    assert MODULES["hw5_gan"].main(small("hw5_gan", tmp_path)) == 2
    assert "not of hw5_gan.py" in capsys.readouterr().err and contents(tmp_path) == before


def test_new_run_killed_before_its_first_checkpoint_is_resumed(tmp_path):
    assert hw5_vae.main(small("hw5_vae", tmp_path)) == 0
    (tmp_path / "unfinished").mkdir()  # all that such a run leaves
    assert hw5_vae.main(small("hw5_vae", tmp_path, "--seed", 5, "--resume")) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["seed"] == 5


def test_killed_between_the_last_checkpoint_and_its_history(tmp_path, monkeypatch):
    def killed(history, path):
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(utils, "save_history", killed)
        with pytest.raises(SystemExit):
            hw5_vae.main(small("hw5_vae", tmp_path, "--epochs", 1))
    assert hw5_vae.main(small("hw5_vae", tmp_path, "--epochs", 1, "--resume")) == 0
    assert len(rows(tmp_path)) == 1


def test_resume_of_a_finished_run_changes_nothing(tmp_path, capsys):
    assert hw5_vae.main(small("hw5_vae", tmp_path)) == 0
    before = contents(tmp_path)
    assert hw5_vae.main([word for word in small("hw5_vae", tmp_path, "--resume") if word != "--quiet"]) == 0
    assert "is finished" in capsys.readouterr().out and contents(tmp_path) == before


@pytest.mark.parametrize("more, words", [
    (["--epochs", 3], "--num_epoches 2, not 3"),
    (["--seed", 5], "--seed 1234, not 5"),
    (["--hidden_units", 51], "--hidden_units 50, not 51"),
    (["--limit", 300], "--limit None, not 300"),
    (["--lr", 0.01], "--lr 0.001, not 0.01"),
])
def test_resume_with_other_settings_is_refused(more, words, tmp_path, capsys):
    assert hw5_vae.main(small("hw5_vae", tmp_path)) == 0
    (tmp_path / "metrics.json").unlink()  # as if it had been killed before the end
    before = contents(tmp_path)
    assert hw5_vae.main(small("hw5_vae", tmp_path, "--resume", *more)) == 2
    message = capsys.readouterr().err
    assert words in message and message.count("\n") == 1 and contents(tmp_path) == before


def test_resume_with_other_images_is_refused(tmp_path, tiny_mnist, capsys):
    folder = tmp_path / "out"
    assert hw5_vae.main(small("hw5_vae", folder)) == 0
    assert hw5_vae.main(small("hw5_vae", folder, "--resume", "--data_dir", tiny_mnist)) == 2
    assert "other training data" in capsys.readouterr().err


def test_resume_of_the_other_scripts_run_is_refused(tmp_path, capsys):
    assert MODULES["hw5_gan"].main(small("hw5_gan", tmp_path)) == 0
    (tmp_path / "metrics.json").unlink()
    before = contents(tmp_path)
    assert hw5_vae.main(small("hw5_vae", tmp_path, "--resume")) == 2
    assert "checkpoint.pt" in capsys.readouterr().err and contents(tmp_path) == before


# ---- damaged and hostile checkpoints


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_that_runs_code_is_refused(tmp_path, capsys):
    target, folder = tmp_path / "created", tmp_path / "out"
    folder.mkdir()
    for zipped in (True, False):
        torch.save({"settings": Evil(target)}, folder / "checkpoint.pt", _use_new_zipfile_serialization=zipped)
        assert hw5_vae.main(small("hw5_vae", folder, "--resume")) == 2
        message = capsys.readouterr().err
        assert str(folder / "checkpoint.pt") in message and message.count("\n") == 1
        assert not target.exists(), "the pickle ran"
        with pytest.raises(ValueError, match="no file of tensors"):
            hw5_vae.VAE(hw5_vae.argparse.Namespace(resume_training=True, e_path=folder / "checkpoint.pt", d_path="x"))
        assert not target.exists()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    assert hw5_vae.main(small("hw5_vae", folder, "--hidden_units", 2)) == 0
    return folder / "checkpoint.pt"


def test_every_truncation_of_a_checkpoint_is_refused(checkpoint, tmp_path):
    good, path = checkpoint.read_bytes(), tmp_path / "checkpoint.pt"
    for length in [*range(10), *range(10, len(good), len(good) // 150), len(good) - 1]:
        path.write_bytes(good[:length])
        with pytest.raises(utils.Fault, match="checkpoint.pt: damaged"):
            utils.load_tensors(path)


def test_flipped_bits_in_a_checkpoint_change_nothing_or_are_refused(checkpoint, tmp_path):
    good, path, refused = checkpoint.read_bytes(), tmp_path / "checkpoint.pt", 0
    expected = utils.load_tensors(checkpoint)
    positions = random.Random(0).sample(range(len(good)), 400)
    for position in positions:
        path.write_bytes(good[:position] + bytes([good[position] ^ 1 << position % 8]) + good[position + 1 :])
        try:
            assert same(utils.load_tensors(path), expected), f"byte {position}: other content was believed"
        except utils.Fault:
            refused += 1
    assert refused > len(positions) / 2


def test_a_content_marked_as_a_folder_is_refused(checkpoint, tmp_path):
    """One flipped bit in the list of contents: torch would then hand out uninitialised memory as weights."""
    good, path, start = checkpoint.read_bytes(), tmp_path / "checkpoint.pt", 0
    while (start := good.find(b"PK\x01\x02", start + 1)) > 0:
        position = start + 38  # the lowest byte of its external attributes
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        with pytest.raises(utils.Fault, match="not as it was written"):
            utils.load_tensors(path)


def test_a_damaged_checkpoint_is_named_and_kept(checkpoint, tmp_path, capsys):
    content = checkpoint.read_bytes()[:-100]
    (tmp_path / "checkpoint.pt").write_bytes(content)
    assert hw5_vae.main(small("hw5_vae", tmp_path, "--resume")) == 2
    message = capsys.readouterr().err
    assert "checkpoint.pt: damaged" in message and "without --resume" in message and message.count("\n") == 1
    assert (tmp_path / "checkpoint.pt").read_bytes() == content


# ---- disk


def one_line(child, *words):
    assert child.wait() == 2, child.message()
    message = child.message()
    assert message.count("\n") == 1 and all(word in message for word in words), message


@one_quickly("hw5_gan")
def test_full_disk_keeps_the_last_good_checkpoint(name, tmp_path, references):
    reference, _ = references(name)
    folder = tmp_path / "out"
    stop_early(name, folder)
    before = contents(folder)["checkpoint.pt"]
    one_line(Child(name, arguments(name, folder, "--resume"), file_size=10_000), str(folder), "File too large")
    assert contents(folder)["checkpoint.pt"] == before and not list(folder.glob(".*partial"))
    assert Child(name, arguments(name, folder, "--resume")).wait() == 0
    assert_same_run(folder, reference)


def test_vanished_folder(tmp_path):
    folder = tmp_path / "out"
    child = Child("hw5_vae", arguments("hw5_vae", folder, "--epochs", 10_000))
    wait_for(folder / "checkpoint.pt")
    folder.rename(tmp_path / "elsewhere")
    one_line(child, str(folder), "No such file or directory")
    utils.load_tensors(tmp_path / "elsewhere" / "checkpoint.pt")


def test_file_where_a_folder_is_expected(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        assert hw5_vae.main(small("hw5_vae", folder)) == 2
    assert (tmp_path / "file").read_text() == "mine"


def test_read_only_folder(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    folder.chmod(0o555)
    nobody = 65534 if os.getuid() == 0 else None  # root may write everywhere
    one_line(Child("hw5_vae", arguments("hw5_vae", folder), user=nobody), str(folder), "Permission denied")


def test_second_process_in_a_folder_is_refused(tmp_path, capsys):
    folder = tmp_path / "out"
    first = Child("hw5_vae", arguments("hw5_vae", folder, "--epochs", 10_000))
    wait_for(folder / "checkpoint.pt")
    assert hw5_vae.main(small("hw5_vae", folder)) == 2
    assert "another run is writing there" in capsys.readouterr().err
    first.process.kill()
    first.wait()
    assert hw5_vae.main(small("hw5_vae", folder)) == 0, "no stale lock"


def test_eight_concurrent_starts_give_one_run(tmp_path):
    children = [Child("hw5_vae", arguments("hw5_vae", tmp_path / "out")) for _ in range(8)]
    codes = sorted(child.wait() for child in children)
    assert codes.count(0) >= 1 and set(codes) <= {0, 2}
    assert len(rows(tmp_path / "out")) == EPOCHS["hw5_vae"]


def test_atomic_write_leaves_old_or_new(tmp_path, monkeypatch):
    path = tmp_path / "file"
    utils.write_atomically(path, b"old")
    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(utils.os, function, lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(utils.Fault, match="file: cannot be written .No space left on device"):
                utils.write_atomically(path, b"new")
        assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    utils.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


# ---- numbers


def test_non_finite_loss_ends_the_run_and_keeps_the_checkpoint(tmp_path, monkeypatch, capsys):
    real, calls = hw5_vae.logpdf_bernoulli_logits, []

    def poisoned(x, logits):
        calls.append(1)
        return real(x, logits) * (math.nan if len(calls) == 7 else 1)  # four steps and an evaluation: step 2 of epoch 2

    monkeypatch.setattr(hw5_vae, "logpdf_bernoulli_logits", poisoned)
    assert hw5_vae.main(small("hw5_vae", tmp_path)) == 1
    message = capsys.readouterr().err
    assert "epoch 2, step 2: loss nan (reconstruction nan, KL" in message and message.count("\n") == 1
    state = utils.load_tensors(tmp_path / "checkpoint.pt")
    assert state["progress"]["epoch"] == 1 and all(value.isfinite().all() for value in state["parts"]["encoder"].values())


def test_weights_that_diverge_in_the_last_step_are_not_kept(tmp_path, monkeypatch, capsys):
    assert hw5_vae.main(small("hw5_vae", tmp_path)) == 0
    (tmp_path / "metrics.json").unlink()
    evaluate = hw5_vae.VAE.evaluate

    def poison(self, images=None):
        self.encoder.fc1.weight.data[0, 0] = math.nan
        return evaluate(self, images)

    monkeypatch.setattr(hw5_vae.VAE, "evaluate", poison)
    code, message = hw5_vae.main(small("hw5_vae", tmp_path, "--seed", 9)), capsys.readouterr().err
    assert code == 1 and "is nan; try a smaller --lr" in message, message
    assert not (tmp_path / "checkpoint.pt").exists()
    assert (tmp_path.with_name(tmp_path.name + ".1") / "checkpoint.pt").exists()


@each
@pytest.mark.parametrize("library", ["torch", "numpy"])
def test_too_little_memory_is_said_in_one_line(name, library, tmp_path, monkeypatch, capsys):
    def greedy(model):
        torch.empty(2**60, dtype=torch.uint8) if library == "torch" else np.zeros(2**60, np.uint8)  # more than any machine has
        yield None

    model = MODULES[name].build(MODULES[name].parse_args(small(name, tmp_path)))
    monkeypatch.setattr(type(model), "fit", greedy)
    code, message = MODULES[name].main(small(name, tmp_path)), capsys.readouterr().err
    assert code == 2 and message.count("\n") == 1 and "not enough memory on cpu" in message, message


def test_a_fault_of_the_code_is_not_called_one_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(hw5_vae.VAE, "fit", lambda model: iter([torch.ones(2) @ torch.ones(3)]))
    with pytest.raises(RuntimeError, match="size"):
        hw5_vae.main(small("hw5_vae", tmp_path))


# ---- reproducible


def test_metrics_say_what_the_result_depends_on(tmp_path):
    line = small("hw5_vae", tmp_path, "--seed", 3)
    assert hw5_vae.main(line) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["threads"] == torch.get_num_threads() and metrics["torch"] == torch.__version__
    assert metrics["seed"] == 3 and metrics["device"] and "revision" in metrics
    assert metrics["command"] == "python hw5_vae.py " + " ".join(line)


def test_deterministic_is_enforced(tmp_path):
    try:
        assert hw5_vae.main(small("hw5_vae", tmp_path, "--deterministic")) == 0
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


# ---- downloads


def serve(behaviour):
    """A web server on this machine whose answers `behaviour(handler)` writes; returns its address and a way to stop it."""
    handler = type("Handler", (http.server.BaseHTTPRequestHandler,), {"do_GET": behaviour, "log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/", server


def cut(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(b"half")


def hang(handler):
    time.sleep(5)


@pytest.mark.parametrize("behaviour", [cut, hang])
def test_cut_and_hanging_downloads_leave_nothing(behaviour, mirror, tmp_path, monkeypatch, capsys):  # noqa: F811
    import torchvision

    address, server = serve(behaviour)
    good = torchvision.datasets.MNIST.mirrors
    monkeypatch.setattr(utils, "NETWORK_TIMEOUT", 0.5)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
    folder = tmp_path / "empty"
    folder.mkdir()
    assert len(utils.mnist(folder)[0]) == 4000 and "5,000 digits" in capsys.readouterr().err
    assert list(folder.iterdir()) == []
    with pytest.raises(utils.Fault, match="cannot be fetched"):
        monkeypatch.chdir(tmp_path)
        utils.download(address, "file")
    assert list((tmp_path / "data").iterdir()) == []
    assert socket.getdefaulttimeout() is None, "the time-out is put back"
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address, *good])
    assert len(utils.mnist(folder)[0]) == 60, "the next mirror, and the next start, must work"
    server.shutdown()


def fetch(mirrors, resources, folder, queue):
    import torchvision

    torchvision.datasets.MNIST.mirrors, torchvision.datasets.MNIST.resources = mirrors, resources
    queue.put(utils.mnist(folder)[0])


def test_downloads_at_once(mirror, tmp_path):  # noqa: F811
    import torchvision

    folder, queue = tmp_path / "empty", processes.Queue()
    folder.mkdir()
    source = torchvision.datasets.MNIST.mirrors, torchvision.datasets.MNIST.resources
    children = [processes.Process(target=fetch, args=(*source, folder, queue)) for _ in range(2)]
    for child in children:
        child.start()
    expected = utils.mnist(mirror)[0]
    for _ in children:
        np.testing.assert_array_equal(queue.get(timeout=60), expected)
    for child in children:
        child.join()
    assert [path.name for path in folder.iterdir()] == ["MNIST"], "no private folder is left"


def test_a_corrupt_file_is_named_and_left_alone(mirror, tmp_path):  # noqa: F811
    folder = tmp_path / "cache"
    folder.mkdir()
    utils.mnist(folder)
    path = folder / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    damaged = contents(path.parent)
    with pytest.raises(utils.Fault, match=f"{path}: damaged.*move the MNIST files away"):
        utils.mnist(folder)
    assert contents(path.parent) == damaged, "nothing is overwritten"
    (folder / "MNIST").rename(tmp_path / "MNIST")
    assert len(utils.mnist(folder)[0]) == 60
