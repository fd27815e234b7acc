"""hw5_lab/runs/folder: a folder is one run; nothing of others is touched; disks that are full, read-only or gone."""

import errno
import json
import os
import tempfile
from pathlib import Path

import pytest
import torch
from children import EPOCHS, Child, arguments, assert_same_run, contents, stop_early, wait_for
from helpers import blank, first_quickly, MODULES, one_quickly, rows, small

import hw5_utils as utils
import hw5_vae
from hw5_lab.experiments.gan import GANExperiment
from hw5_lab.experiments.vae import VAEExperiment
from hw5_lab.runs import folder as files
from hw5_lab.runs import run
from hw5_lab.runs.folder import RunFolder
from hw5_lab.runs.progress import Stopped

pytestmark = blank


def loud(*line):
    return [word for word in line if word != "--quiet"]


def one_line(capsys, *words):
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and all(word in message for word in words), message


# ---- a folder is one run


@pytest.mark.parametrize("kind", first_quickly(["soft", "none"]))
def test_file_systems_without_locks(kind, tmp_path, monkeypatch):
    """A lock is then a file that is not empty, or there is none."""

    class NoLock:
        def __init__(self, path):
            pass

        def acquire(self, blocking):
            raise NotImplementedError("no locks here")

    monkeypatch.setattr(files.filelock, "FileLock", files.filelock.SoftFileLock if kind == "soft" else NoLock)
    for _ in range(2):
        assert hw5_vae.main(small("hw5_vae", tmp_path / "out")) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.1"}


@pytest.mark.slow
@pytest.mark.parametrize("finished", [True, False])
def test_a_new_run_renames_the_folder_of_an_earlier_one(finished, tmp_path, capsys):
    folder = tmp_path / "out"
    for number in (1, 2):
        if finished:
            assert hw5_vae.main(small("hw5_vae", folder)) == 0
        else:
            stop_early("hw5_vae", folder)
        (folder / "notes.txt").write_text("mine")
        before = contents(folder)
        capsys.readouterr()
        assert hw5_vae.main(loud(*small("hw5_vae", folder))) == 0
        assert f"{folder} held an earlier run, which is now {folder}.{number}." in capsys.readouterr().out
        assert contents(tmp_path / f"out.{number}") == before and "notes.txt" not in contents(folder)
        os.rename(folder, tmp_path / f"done{number}")


@pytest.mark.slow
def test_the_run_of_another_script_is_renamed_too(tmp_path):
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out")) == 0
    before = contents(tmp_path / "out")
    assert MODULES["hw5_gan"].main(small("hw5_gan", tmp_path / "out", "--epochs", 1)) == 0
    assert contents(tmp_path / "out.1") == before
    assert json.loads((tmp_path / "out" / "run.json").read_text())["script"] == "hw5_gan.py"


@pytest.mark.parametrize(
    "name",
    [
        "history.csv",
        "data_space.png",
        "unfinished/thesis.tex",
        "metrics.json",
        "checkpoint.pt",
        "run.json",
        ".partial.old",
        ".lock",
        ".partial",
        "notes.txt",
    ],
)
@pytest.mark.parametrize("flags", [(), ("--resume",)])
def test_a_foreign_folder_is_refused_and_stays_byte_for_byte(name, flags, tmp_path, capsys):
    folder = tmp_path / "out"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text('{"script": "mine"}')
    assert hw5_vae.main(small("hw5_vae", folder, *flags)) == 2
    one_line(capsys, f"--output_dir {folder}: holds {name.split('/')[0]}, which is not of a run")
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()] == [name]
    assert (folder / name).read_text() == '{"script": "mine"}' and os.listdir(tmp_path) == ["out"]


def test_the_mark_is_written_first_and_names_script_and_settings(tmp_path, monkeypatch):
    monkeypatch.setattr("hw5_lab.runs.run.Run.train", lambda *_: (_ for _ in ()).throw(SystemExit(137)))
    with pytest.raises(SystemExit):
        hw5_vae.main(small("hw5_vae", tmp_path / "out", "--seed", 7))
    assert set(contents(tmp_path / "out")) == {"run.json"}
    mark = json.loads((tmp_path / "out" / "run.json").read_text())
    assert mark["script"] == "hw5_vae.py" and mark["settings"]["seed"] == 7 and "--seed 7" in mark["command"]


def test_a_process_killed_before_its_mark_leaves_a_folder_that_can_be_used(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").touch()
    (tmp_path / "out" / ".partial").write_bytes(b'{\n  "script": "hw5_vae.py",\n  "comm')
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out")) == 0


@pytest.mark.slow
def test_evaluate_rewrites_its_own_results_only(tmp_path):
    line = small("hw5_vae", tmp_path / "out", "--latent_dimension", 2)
    assert hw5_vae.main(line) == 0
    for name in ("elbo.png", "data_space.png"):
        (tmp_path / "out" / name).write_bytes(b"edited")
    before = contents(tmp_path / "out")
    assert hw5_vae.main([*line, "--evaluate"]) == 0
    changed = {name for name, content in contents(tmp_path / "out").items() if before.get(name) != content}
    assert changed <= {"metrics.json", "gap.png", "explore.html"} and "metrics.json" in changed


def test_evaluate_of_an_unfinished_run_only_prints(tmp_path, capsys):
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out")) == 0
    (tmp_path / "out" / "metrics.json").unlink()  # as after a kill
    before = contents(tmp_path / "out")
    line = loud(*small("hw5_vae", tmp_path / "out", "--evaluate"))
    assert hw5_vae.main(line) == 0 and "ELBO" in capsys.readouterr().out
    assert contents(tmp_path / "out") == before


def test_a_lost_or_cut_metrics_file_is_made_again_from_the_checkpoint(tmp_path):
    line = small("hw5_vae", tmp_path / "out")
    assert hw5_vae.main(line) == 0
    path = tmp_path / "out" / "metrics.json"
    whole = json.loads(path.read_text())
    for damage in (path.read_bytes()[:200], b"\xff\xfe not UTF-8", b"[]"):
        path.write_bytes(damage)
        assert hw5_vae.main([*line, "--evaluate"]) == 0
        again = json.loads(path.read_text())
        assert again.pop("evaluation")["command"].endswith("--evaluate") and again == whole


def test_output_folder_here(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert hw5_vae.main(small("hw5_vae", ".")) == 0
    assert hw5_vae.main(small("hw5_vae", tmp_path / "work")) == 0
    assert (tmp_path / "work.1" / "checkpoint.pt").exists() and (tmp_path / "work" / "metrics.json").exists()


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--batch_size", 401), "batch_size 401"),
        (("--data_dir", "nowhere"), "no such folder"),
    ],
)
def test_a_refused_command_leaves_and_moves_nothing(flags, words, tmp_path, tiny_mnist, capsys):
    gan = MODULES["hw5_gan"]
    assert gan.main(small("hw5_gan", tmp_path / "new" / "out", *flags)) == 2
    one_line(capsys, words)
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    assert gan.main(small("hw5_gan", tmp_path / "empty", *flags)) == 2 and not os.listdir(tmp_path / "empty")
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out")) == 0
    (tmp_path / "out" / ".lock").unlink()
    before = sorted(os.listdir(tmp_path / "out"))
    assert gan.main(small("hw5_gan", tmp_path / "out", *flags)) == 2
    assert sorted(os.listdir(tmp_path / "out")) == before and not (tmp_path / "out.1").exists()


@pytest.mark.parametrize("flag", ["--output_dir", "--data_dir"])
def test_an_empty_folder_name_is_that_of_an_unset_variable(flag, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        hw5_vae.main([flag, ""])
    assert stopped.value.code == 2 and not os.listdir(tmp_path)
    one_line(capsys, f"argument {flag}: is empty; name a folder")


def test_a_message_is_one_line_whatever_a_name_holds(tmp_path, capsys):
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out", "--data_dir", tmp_path / "a\nb\r\nc")) == 2
    one_line(capsys, "a b c: no such folder")
    with pytest.raises(SystemExit):
        hw5_vae.main(["--device", "a\nb"])
    one_line(capsys, "--device")
    with pytest.raises(SystemExit):
        hw5_vae.main(["one\ntwo"])
    one_line(capsys, "one two")


# ---- files for weights


@pytest.fixture
def weights(tmp_path):
    """Files that --e_path and --d_path may name."""
    return ["--e_path", tmp_path / "e.pt", "--d_path", tmp_path / "d.pt"]


@pytest.mark.slow
def test_weights_are_written_again_and_read(weights, tmp_path):
    for _ in range(2):
        assert hw5_vae.main(small("hw5_vae", tmp_path / "out", *weights)) == 0
    encoder = torch.load(tmp_path / "e.pt", weights_only=True)
    state = files.load_tensors(tmp_path / "out" / "checkpoint.pt")
    assert all(torch.equal(value, encoder[name]) for name, value in state["parts"]["encoder"].items())
    assert hw5_vae.main(small("hw5_vae", tmp_path / "fresh", "--resume", *weights, "--lr", 1e-7)) == 0
    moved = files.load_tensors(tmp_path / "fresh" / "checkpoint.pt")["parts"]["encoder"]["fc1.weight"]
    torch.testing.assert_close(moved, encoder["fc1.weight"], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "path, words",
    [
        ("", "is a folder"),
        ("nowhere/e.pt", "there is no such folder"),
        ("thesis.txt", "holds no such weights, so it is not overwritten"),
        ("out/sub/e.pt", "there is no such folder"),
        ("out", "is a folder"),
        ("out/checkpoint.pt", "the run itself writes a file of this name"),
        ("out/data_space.png", "the run itself writes a file of this name"),
        ("out/run.json", "the run itself writes a file of this name"),
        ("d.pt", "name the same file"),
    ],
)
def test_paths_for_weights_are_checked_before_the_training(path, words, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    line = small("hw5_vae", tmp_path / "out", "--e_path", tmp_path / path, "--d_path", tmp_path / "d.pt")
    assert hw5_vae.main(line) == 2
    one_line(capsys, words)
    assert os.listdir(tmp_path) == ["thesis.txt"] and (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_link_to_weights_stays_a_link(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "e.pt").symlink_to(tmp_path / "kept" / "e.pt")
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out", "--e_path", tmp_path / "e.pt")) == 0
    assert (tmp_path / "e.pt").is_symlink() and files.load_tensors(tmp_path / "kept" / "e.pt")


def test_weights_of_other_networks_are_not_overwritten(tmp_path, capsys):
    torch.save({"resnet.conv": torch.zeros(3)}, tmp_path / "e.pt")
    before = (tmp_path / "e.pt").read_bytes()
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out", "--e_path", tmp_path / "e.pt")) == 2
    one_line(capsys, "e.pt: holds no such weights")
    assert (tmp_path / "e.pt").read_bytes() == before


def test_weights_go_to_files_only(tmp_path, capsys):
    """A pipe would wait for ever, /dev/full be read without an end."""
    os.mkfifo(tmp_path / "pipe")
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out", "--e_path", tmp_path / "pipe")) == 2
    one_line(capsys, "pipe: is no file that can be replaced")


def test_a_pickle_of_code_is_refused_without_advice_to_run_it(tmp_path):
    torch.save({"a": print}, tmp_path / "code.pt")
    with pytest.raises(utils.Fault, match="code.pt: holds something else than tensors and plain values, so it is not"):
        files.load_tensors(tmp_path / "code.pt")


def test_a_file_beside_the_weights_stays(weights, tmp_path):
    (tmp_path / ".partial").write_text("mine")
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out", *weights, "--epochs", 1)) == 0
    assert (tmp_path / ".partial").read_text() == "mine"


@pytest.mark.slow
def test_a_run_that_was_killed_early_does_not_start_from_the_weights_of_an_earlier_one(weights, tmp_path, capsys):
    """Unless it began from weights: then it begins from them again."""
    assert hw5_vae.main(small("hw5_vae", tmp_path / "first", *weights)) == 0
    for flags, words in (((), "starting with epoch 1"), (("--resume",), "starting with the weights of")):
        folder = tmp_path / f"out{len(flags)}"
        assert hw5_vae.main(small("hw5_vae", folder, *weights, *flags)) == 0
        for name in ("checkpoint.pt", "metrics.json"):
            (folder / name).unlink()
        capsys.readouterr()
        assert hw5_vae.main(loud(*small("hw5_vae", folder, *weights, "--resume"))) == 0
        assert words in capsys.readouterr().out


def test_a_run_that_came_first_is_not_overwritten(tmp_path):
    """Both looked at the folder when it was not there."""
    first, second = (RunFolder(tmp_path / "out", "hw5_vae.py").__enter__() for _ in range(2))
    first.begin({"script": "hw5_vae.py", "settings": {"seed": 1}})
    first.__exit__(None, None, None)
    with pytest.raises(utils.Fault, match="another run has just written there"):
        second.begin({"script": "hw5_vae.py", "settings": {"seed": 2}})
    second.__exit__(None, None, None)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"] == {"seed": 1}


def open_to_others(folder):
    """Open a test's folder and those above it to another user, up to the system's for temporary files."""
    top = Path(tempfile.gettempdir()).resolve()
    for each in [folder, *folder.parents]:
        if top in each.parents:
            each.chmod(0o755)


@pytest.mark.slow
def test_paths_for_weights_that_cannot_be_written(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    nobody = 65534 if os.getuid() == 0 else None  # root may write everywhere
    open_to_others(tmp_path)
    line = arguments("hw5_vae", tmp_path / "out", "--e_path", tmp_path / "closed" / "e.pt")
    one_child_line(Child("hw5_vae", line, user=nobody), "closed/e.pt: cannot be written")


# ---- disks, folders that vanish, second processes


@pytest.mark.parametrize("case", first_quickly(["hw5_vae watch", "hw5_vae visualize", "hw5_gan watch"]))
def test_a_folder_that_takes_the_place_of_a_running_runs_is_left_alone(case, tmp_path, capsys, monkeypatch):
    """During training, and while the model is measured."""
    name, when = case.split()
    out, kept, calls = tmp_path / "out", tmp_path / "kept", []
    experiment = {"hw5_vae": VAEExperiment, "hw5_gan": GANExperiment}[name]
    real = getattr(experiment, when)

    def moved(self, *arguments):
        if not calls:
            calls.append(os.rename(out, kept))
            out.mkdir()
            (out / "run.json").write_text("of another run")
        return real(self, *arguments)

    monkeypatch.setattr(experiment, when, moved)
    assert MODULES[name].main(small(name, out)) == 2
    one_line(capsys, f"{out}: the run's folder was moved away")
    held = {path.name for path in out.iterdir() if path.suffix in (".json", ".pt", ".csv", ".html")}
    assert held == {"run.json"} and (out / "run.json").read_text() == "of another run"
    monkeypatch.undo()
    assert MODULES[name].main(small(name, kept, "--resume")) == 0 and (kept / "metrics.json").exists()


def test_ctrl_c_draws_nothing_to_a_folder_that_took_the_runs_place(tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"

    def stopped(self, stop):
        os.rename(out, tmp_path / "kept")
        out.mkdir()
        raise Stopped

    monkeypatch.setattr(run.Run, "train", stopped)
    assert hw5_vae.main(small("hw5_vae", out)) == 2
    one_line(capsys, f"{out}: the run's folder was moved away")
    assert not any(out.iterdir())


def test_a_run_whose_folder_was_moved_leaves_the_lock_of_the_one_that_is_there(tmp_path):
    out = tmp_path / "out"
    first, second = (RunFolder(out, "hw5_vae.py") for _ in range(2))
    with pytest.raises(utils.Fault, match="moved away"), first:
        first.begin({"script": "hw5_vae.py", "settings": {}})
        os.rename(out, tmp_path / "kept")
        second.__enter__()
        second.begin({"script": "hw5_vae.py", "settings": {}})
        first.refuse_another()
    assert (out / ".lock").exists()
    with pytest.raises(utils.Fault, match="another run is writing there"), RunFolder(out, "hw5_vae.py"):
        pass
    second.__exit__(None, None, None)


@pytest.mark.parametrize("number", first_quickly([errno.ENOLCK, errno.EOPNOTSUPP]))
def test_a_file_system_without_locks_can_be_written(number, tmp_path, monkeypatch):
    def acquire(self, **_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.filelock.FileLock, "acquire", acquire)
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out")) == 0


def test_a_mount_point_with_a_run_says_what_to_do(tmp_path, capsys, monkeypatch):
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out")) == 0

    def busy(*_):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "rename", busy)
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out")) == 2
    one_line(capsys, f"name a folder inside it, {tmp_path / 'out' / '2'}")


def one_child_line(child, *words):
    assert child.wait() == 2, child.message()
    message = child.message()
    assert message.count("\n") == 1 and all(word in message for word in words), message


@pytest.mark.slow
@one_quickly("hw5_gan")
def test_full_disk_keeps_the_last_good_checkpoint(name, tmp_path, references):  # noqa: F811
    reference, _ = references(name)
    folder = tmp_path / "out"
    stop_early(name, folder)
    before = contents(folder)["checkpoint.pt"]
    child = Child(name, arguments(name, folder, "--resume"), file_size=10_000)
    one_child_line(child, str(folder), "File too large")
    assert contents(folder)["checkpoint.pt"] == before and not (folder / ".partial").exists()
    assert Child(name, arguments(name, folder, "--resume")).wait() == 0
    assert_same_run(folder, reference)


@pytest.mark.slow
def test_vanished_folder(tmp_path):
    folder = tmp_path / "out"
    child = Child("hw5_vae", arguments("hw5_vae", folder, "--epochs", 10_000))
    wait_for(folder / "checkpoint.pt")
    folder.rename(tmp_path / "elsewhere")
    one_child_line(child, str(folder), "No such file or directory")
    files.load_tensors(tmp_path / "elsewhere" / "checkpoint.pt")


def test_file_where_a_folder_is_expected(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        assert hw5_vae.main(small("hw5_vae", folder)) == 2
        one_line(capsys, "Not a directory")
    assert (tmp_path / "file").read_text() == "mine"


def test_read_only_folders(tmp_path):
    """A new run is refused; --evaluate of a run only prints; all as a user who is not root."""
    folder, nobody = tmp_path / "out", 65534 if os.getuid() == 0 else None
    assert hw5_vae.main(small("hw5_vae", folder)) == 0
    (folder / ".lock").unlink()
    folder.chmod(0o555)
    open_to_others(tmp_path)
    before = contents(folder)
    one_child_line(Child("hw5_vae", small("hw5_vae", folder), user=nobody), str(folder), "Permission denied")
    child = Child("hw5_vae", small("hw5_vae", folder, "--evaluate"), user=nobody)
    assert child.wait() == 0, child.message()
    assert contents(folder) == before and not (folder / ".lock").exists()
    (tmp_path / "empty").mkdir(mode=0o555)
    (tmp_path / "empty.err").touch()
    (tmp_path / "empty.err").chmod(0o666)
    one_child_line(Child("hw5_vae", small("hw5_vae", tmp_path / "empty"), user=nobody), "Permission denied")


def test_second_process_in_a_folder_is_refused(tmp_path, capsys):
    folder = tmp_path / "out"
    first = Child("hw5_vae", arguments("hw5_vae", folder, "--epochs", 10_000))
    wait_for(folder / "checkpoint.pt")
    for flag in ((), ("--resume",), ("--evaluate",)):
        assert hw5_vae.main(small("hw5_vae", folder, *flag)) == 2
        one_line(capsys, "another run is writing there")
    first.process.kill()
    first.wait()
    assert hw5_vae.main(small("hw5_vae", folder)) == 0, "no stale lock"


@pytest.mark.slow
def test_eight_concurrent_starts_give_whole_runs(tmp_path):
    children = [Child("hw5_vae", arguments("hw5_vae", tmp_path / "out")) for _ in range(8)]
    codes = sorted(child.wait() for child in children)
    assert codes.count(0) >= 1 and set(codes) <= {0, 2}
    assert len(rows(tmp_path / "out")) == EPOCHS["hw5_vae"]


def test_a_lock_ends_with_its_context(tmp_path):
    files.write(tmp_path / "run.json", files.as_json({"script": "hw5_vae.py", "settings": {}}))
    for _ in range(2):
        with RunFolder(tmp_path, "hw5_vae.py") as first:
            assert first.mark["script"] == "hw5_vae.py"
            with pytest.raises(utils.Fault, match="another run is writing there"):
                with RunFolder(tmp_path, "hw5_vae.py"):
                    pass


def test_atomic_write_leaves_old_or_new(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write(path, b"old")
    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(utils.os, function, lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(utils.Fault, match="file: cannot be written .No space left on device"):
                files.write(path, b"new")
        assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    files.write(path, b"new")
    assert path.read_bytes() == b"new"


def test_json_has_no_nan():
    values = json.loads(files.as_json({"a": float("nan"), "b": float("inf"), "c": 1.5, "d": None, "e": "nan"}))
    assert values == {"a": None, "b": None, "c": 1.5, "d": None, "e": "nan"}


def test_gif_shows_its_frames(tmp_path):
    from PIL import Image

    frames = [torch.full((4, 6), value, dtype=torch.uint8) for value in (0, 100, 255)]
    files.save_gif(frames, tmp_path / "a.gif", seconds=3)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.size == (12, 8) and image.n_frames == 3 and image.info["loop"] == 0
        for number, value in enumerate((0, 100, 255)):
            image.seek(number)
            assert image.convert("L").getpixel((5, 5)) == value
