"""After a run: its model from Python, the list of runs, a changed script, notebooks, and folders of others."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from helpers import MODULES, ROOT, blank, one_quickly, rows, run_sooner, small

import hw5_diffusion
import hw5_lab.__main__
import hw5_utils as utils
import hw5_vae
from hw5_lab import door
from hw5_lab.runs import run
from hw5_lab.runs.folder import load_tensors


@one_quickly("hw5_gan", "hw5_diffusion")
@blank
def test_load_gives_the_trained_model(name, tmp_path):
    assert MODULES[name].main(small(name, tmp_path / "out")) == 0
    model = hw5_lab.load(tmp_path / "out")
    state = load_tensors(tmp_path / "out" / "checkpoint.pt")["parts"]
    network, key = {
        "hw5_vae": lambda: (model.decoder, "decoder"),
        "hw5_gan": lambda: (model.gen, "gen"),
        "hw5_diffusion": lambda: (model.network, "network"),
    }[name]()
    assert not network.training
    for weight, value in state[key].items():
        assert torch.equal(network.state_dict()[weight].cpu(), value)


@pytest.mark.parametrize(
    "name, draw, figure",
    [
        ("hw5_vae", lambda model: model.visualize_data_space(), "data_space.png"),
        pytest.param("hw5_gan", lambda model: model.visualize_goal(), "goal.png", marks=pytest.mark.slow),
        pytest.param("hw5_diffusion", lambda model: model.plot_points(), "data.png", marks=pytest.mark.slow),
    ],
)
@blank
def test_a_loaded_model_draws_to_its_own_folder(name, draw, figure, tmp_path):
    assert MODULES[name].main(small(name, tmp_path / "out")) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    model = hw5_lab.load(tmp_path / "out")
    assert model.folder == ROOT / "outputs" / "figures"
    model.folder = tmp_path / "figures"
    draw(model)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == [figure]
    assert {path: path.stat().st_mtime_ns for path in before} == before, "the run's figures stay"


def test_load_of_something_else_is_a_fault(tmp_path):
    for folder in (tmp_path, ""):
        with pytest.raises(utils.Fault, match=f"^{str(folder)!r} holds no run"):
            hw5_lab.load(folder)
    for mark in ('{"script": "json.py"}', "[" * 100_000):
        (tmp_path / "run.json").write_text(mark)
        with pytest.raises(utils.Fault, match="holds no run"):
            hw5_lab.load(tmp_path)


def test_runs_of_a_wrong_folder(tmp_path, capsys):
    assert hw5_lab.__main__.main(["runs", str(tmp_path / "gone")]) == 2
    error = capsys.readouterr().err
    assert "gone: no such folder" in error and error.count("\n") == 1
    assert hw5_lab.__main__.main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path} holds no folder of a run.\n"


@blank
def test_runs_are_listed_with_what_tells_them_apart(tmp_path, capsys):
    assert hw5_vae.main(small("hw5_vae", tmp_path / "vae", "--lr", 0.01)) == 0
    assert hw5_vae.main(small("hw5_vae", tmp_path / "vae", "--lr", 0.02)) == 0
    (tmp_path / "vae" / "metrics.json").unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("not JSON")
    for name, command, history in (("a", ["x"], ""), ("b", None, ""), ("c", "python x", 'test_elbo\n""\n')):
        (tmp_path / name).mkdir()  # of another tool, and a history that was cut off
        (tmp_path / name / "run.json").write_text(json.dumps({"command": command}))
        (tmp_path / name / "history.csv").write_text(history)
    assert hw5_lab.__main__.main(["runs", str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("vae.1 ") and "--lr 0.01" in first and "2 epochs  " in first and "test_elbo -" in first
    assert second.startswith("vae ") and "--lr 0.02" in second and "2 epochs, unfinished" in second


@blank
def test_a_changed_script_rewrites_nothing_unless_told(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "out"
    assert hw5_vae.main(small("hw5_vae", folder)) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}
    assert len(json.loads(before["metrics.json"])["source"]) == 16
    monkeypatch.setattr(run, "source_of", lambda homework: "another")
    line = ["--output_dir", str(folder), "--evaluate"]
    assert hw5_vae.main(line) == 0
    printed = capsys.readouterr().out
    assert "has changed since this run: nothing is written" in printed and "ELBO" in printed
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert hw5_vae.main([*line, "--rewrite"]) == 0
    assert json.loads((folder / "metrics.json").read_text())["evaluation"]["source"] == "another"


@blank
@pytest.mark.parametrize("epochs", [2, 3])
def test_a_changed_script_takes_no_old_weights_along_unless_told(epochs, tmp_path, monkeypatch, capsys):
    """A killed run, and one that is to get more epochs."""
    folder = tmp_path / "out"
    assert hw5_vae.main(small("hw5_vae", folder)) == 0
    if epochs == 2:
        (folder / "metrics.json").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}
    monkeypatch.setattr(run, "source_of", lambda homework: "another")
    line = ["--output_dir", str(folder), "--resume", "--epochs", str(epochs), "--quiet"]
    assert hw5_vae.main(line) == 2
    error = capsys.readouterr().err
    assert "has changed since this run began" in error and error.count("\n") == 1
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert hw5_vae.main([*line, "--rewrite"]) == 0
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["source"] == "another"
    for kept in (metrics, json.loads((folder / "run.json").read_text())):
        assert kept["command"].endswith("--rewrite")
    assert hw5_vae.main(["--output_dir", str(folder), "--evaluate"]) == 0  # the run is that of the changed script now
    assert "has changed" not in capsys.readouterr().out
    monkeypatch.setattr(run, "source_of", lambda homework: "the first again")
    assert hw5_vae.main(["--output_dir", str(folder), "--evaluate"]) == 0
    assert "has changed since this run: nothing is written" in capsys.readouterr().out


@blank
def test_a_finished_run_says_that_its_script_has_changed_since(tmp_path, monkeypatch, capsys):
    line = [word for word in small("hw5_vae", tmp_path / "out") if word != "--quiet"]
    assert hw5_vae.main(line) == hw5_vae.main([*line, "--resume"]) == 0
    assert capsys.readouterr().out.endswith("is finished: nothing to resume.\n")
    monkeypatch.setattr(run, "source_of", lambda homework: "another")
    assert hw5_vae.main([*line, "--resume"]) == 0
    assert "The script has changed since: without --resume a new run starts." in capsys.readouterr().out
    monkeypatch.setattr(door, "source_of", lambda homework: "another")
    hw5_lab.load(tmp_path / "out")
    assert "has changed since this run" in capsys.readouterr().err


@blank
def test_a_run_of_an_edition_that_is_gone_is_a_fault(tmp_path, monkeypatch, capsys):
    """As when one's own edition is on another branch."""
    editions = door.SCRIPTS["hw5_vae"].editions
    monkeypatch.setitem(editions, "mine", "hw5_lab.editions.hw8")
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out", "--edition", "mine")) == 0
    monkeypatch.delitem(editions, "mine")
    for more in (["--evaluate"], ["--resume", "--epochs", "3"]):
        assert hw5_vae.main(["--output_dir", str(tmp_path / "out"), "--quiet", *more]) == 2
        error = capsys.readouterr().err
        assert "--edition mine: not known; there are cs446, " in error and error.count("\n") == 1
    with pytest.raises(utils.Fault, match="--edition mine: not known"):
        hw5_lab.load(tmp_path / "out")


@blank
@one_quickly("hw5_gan", "hw5_diffusion")
def test_a_run_stopped_before_its_first_epoch_is_resumed_with_its_own_flags(name, tmp_path, monkeypatch, capsys):
    """There is no checkpoint yet: the settings are in run.json."""
    folder = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(run, "save_tensors", lambda *_: (_ for _ in ()).throw(SystemExit(137)))
        with pytest.raises(SystemExit):
            MODULES[name].main(small(name, folder, "--seed", 5, "--lr", 0.002))
    assert not (folder / "checkpoint.pt").exists()
    assert MODULES[name].main(["--output_dir", str(folder), "--resume", "--quiet", "--lr", "0.001"]) == 0
    settings = json.loads((folder / "run.json").read_text())["settings"]
    assert settings["seed"] == 5 and settings["lr"] == 0.001 and len(rows(folder)) == 2


@pytest.mark.slow
@blank
def test_more_samples_are_refused_with_the_steps_of_the_run(tmp_path, capsys):
    """The run's --langevin_steps, which the command does not name, decide."""
    assert hw5_diffusion.main(small("hw5_diffusion", tmp_path, "--epochs", 1, "--langevin_steps", 501)) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert hw5_diffusion.main(["--evaluate", "--samples", "100000", "--output_dir", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "--samples 100000 with --langevin_steps 501: more than 4 GB" in message and message.count("\n") == 1
    assert {path: path.read_bytes() for path in before} == before


@blank
def test_threads_and_determinism_are_recalled(tmp_path, capsys):
    threads, folder = torch.get_num_threads(), tmp_path / "out"
    try:
        assert hw5_vae.main(small("hw5_vae", folder, "--threads", threads + 1, "--deterministic")) == 0
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
        assert hw5_vae.main(["--output_dir", str(folder), "--resume", "--epochs", "3", "--quiet"]) == 0
        assert torch.get_num_threads() == threads + 1 and torch.are_deterministic_algorithms_enabled()
        line = ["--output_dir", str(folder), "--resume", "--epochs", "4", "--quiet", "--limit", "10"]
        assert hw5_vae.main(line) == 2
        assert "holds a finished run without --limit, not with --limit 10; without" in capsys.readouterr().err
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)


@blank
def test_a_run_that_has_kept_nothing_makes_no_folder_of_its_own(tmp_path, monkeypatch):
    """As each time that a debugger is left before the first epoch ends."""
    folder = tmp_path / "out"
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(hw5_vae.VAE, "step", lambda *_: (_ for _ in ()).throw(KeyError("as pdb's quit")))
            with pytest.raises(KeyError):
                hw5_vae.main(small("hw5_vae", folder))
    assert hw5_vae.main(small("hw5_vae", folder)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@blank
def test_the_command_of_a_run_with_more_epochs_is_both(tmp_path):
    first, more = (small("hw5_vae", tmp_path / "out", *words) for words in ((), ("--epochs", 3, "--resume")))
    assert hw5_vae.main(first) == hw5_vae.main(more) == 0
    for name in ("run.json", "metrics.json"):
        before, after = json.loads((tmp_path / "out" / name).read_text())["command"].split("; ")
        assert before.startswith("python hw5_vae.py ") and after.endswith("--epochs 3 --resume")


def test_rewrite_belongs_to_another_flag(capsys):
    with pytest.raises(SystemExit, match="2"):
        hw5_vae.main(["--rewrite"])
    assert "--rewrite: belongs to --evaluate or --resume" in capsys.readouterr().err


def test_the_source_is_that_of_script_and_edition():
    vae, hw8 = (door.homework_class("hw5_vae", edition) for edition in ("cs446", "hw8"))
    instance = lambda kind: kind.__new__(kind)
    assert run.source_of(instance(vae)) != run.source_of(instance(hw8))


@pytest.mark.parametrize("kernel", ["ipykernel_launcher.py", "colab_kernel_launcher.py"])
def test_a_notebooks_own_arguments_are_not_ours(kernel, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "argv", [f"/somewhere/{kernel}", "-f", "kernel.json"])
    monkeypatch.setattr(door, "run", lambda parse, build: seen.append(parse()) or 0)
    assert door.enter("hw5_vae") == 0
    assert seen[0].num_epoches == 200 and seen[0].named == set()


@pytest.mark.slow
def test_a_folder_of_somebody_else_named_hw5_lab_is_left_alone(tmp_path):
    """The script then trains alone."""
    for name in ("hw5_vae.py", "hw5_utils.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "data" / "sample", tmp_path / "data")
    (tmp_path / "hw5_lab").mkdir()
    (tmp_path / "hw5_lab" / "notes.py").write_text("")
    done = run_sooner("hw5_vae.py", "--epochs", 1, "--hidden_units", 5, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("epoch 1: "), done.stderr


@blank
def test_threads_are_set_and_kept(tmp_path):
    before = torch.get_num_threads()
    try:
        assert hw5_vae.main(small("hw5_vae", tmp_path / "out", "--threads", 1)) == 0
        assert json.loads((tmp_path / "out" / "metrics.json").read_text())["threads"] == 1
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@blank
def test_metrics_name_the_data(tmp_path):
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out")) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["data"].startswith("400 of the images of /")
    mark = json.loads((tmp_path / "out" / "run.json").read_text())
    assert mark["recalled"]["data_dir"] in metrics["data"]


@blank
def test_a_page_that_cannot_be_written_loses_no_numbers(tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise TypeError("a network of a kind\nthat no page knows")

    monkeypatch.setattr(run, "write_explore", broken)
    line = [word for word in small("hw5_vae", tmp_path / "out") if word != "--quiet"]
    assert hw5_vae.main(line) == 0
    assert "explore.html cannot be written: a network of a kind that no page knows" in capsys.readouterr().out
    assert (tmp_path / "out" / "metrics.json").exists()


@pytest.mark.slow
def test_a_users_matplotlibrc_changes_no_figure(tmp_path, monkeypatch):
    import matplotlib

    assert hw5_vae.main(small("hw5_vae", tmp_path / "plain")) == 0
    monkeypatch.setitem(matplotlib.rcParams, "image.origin", "lower")
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)
    assert hw5_vae.main(small("hw5_vae", tmp_path / "odd")) == 0
    assert matplotlib.rcParams["font.size"] == 30, "the user's settings are put back"
    for path in (tmp_path / "plain").glob("*.png"):
        assert (tmp_path / "odd" / path.name).read_bytes() == path.read_bytes(), path.name


@blank
def test_progress_in_a_log_is_a_line_per_epoch(tmp_path, capsys):
    line = [word for word in small("hw5_vae", tmp_path / "out") if word != "--quiet"]
    assert hw5_vae.main(line) == 0
    errors = capsys.readouterr().err
    assert "\r" not in errors and [text.split(":")[0] for text in errors.splitlines()] == ["epoch 1/2", "epoch 2/2"]


@pytest.mark.slow
def test_a_log_says_first_what_is_trained(tmp_path):
    """Both streams in one file, as a batch system writes them."""
    line = [word for word in small("hw5_vae", tmp_path / "out", "--epochs", 3) if word != "--quiet"]
    command = [sys.executable, str(ROOT / "hw5_vae.py"), *line]
    log = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300).stdout
    assert [text.split()[0] for text in log.splitlines()[:4]] == ["Training", "epoch", "epoch", "epoch"], log
