"""Nothing is lost: kills, signals, resuming, diverging runs, too little memory, and what a result depends on."""

import argparse
import csv
import itertools
import json
import math
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from children import Child, arguments, assert_same_run, contents, stop_early, wait_for
from helpers import blank, small_sample
from helpers import MODULES, ROOT, SAMPLE, each, first_quickly, one_quickly, rows, small

import hw5_lab.runs.flags
import hw5_lab.runs.progress
import hw5_utils
import hw5_lab.runs.run
import hw5_vae
from hw5_lab.experiments.vae import VAEExperiment
from hw5_lab.runs.folder import load_tensors, save_tensors

pytestmark = blank


# ---- kills and signals


@pytest.mark.slow
@each
def test_kill_at_random_moments_and_resume(name, tmp_path, references):
    """At 22 in all."""
    reference, seconds = references(name)
    rng, kills, run, most = random.Random(0), 0, 0, 12 if name == "hw5_vae" else 5
    while kills < most:
        run += 1
        folder, code = tmp_path / f"run{run}" / "out", None
        while code != 0:
            child = Child(name, arguments(name, folder, "--resume"))
            if kills < most:
                child.process.join(rng.uniform(0.15, 0.6) * seconds)
                child.process.kill()
            code = child.wait()
            assert code in (0, -signal.SIGKILL), child.message()
            kills += code != 0
        assert_same_run(folder, reference)
    print(f"{name}: {kills} kills survived in {run} runs")


@pytest.mark.parametrize(
    "name, number, code",
    [
        ("hw5_vae", signal.SIGINT, 130),
        pytest.param("hw5_gan", signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param("hw5_diffusion", signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_stop_and_resume(name, number, code, tmp_path, references):
    reference, _ = references(name)
    folder = tmp_path / "out"
    child = Child(name, arguments(name, folder))
    wait_for(folder / "checkpoint.pt")
    child.signal(number)
    assert child.wait() == code, child.message()
    figures = {
        "hw5_vae": {"data_space.png", "elbo.png"},
        "hw5_gan": {"losses.png", "training.gif"},
        "hw5_diffusion": {"score_field.png", "sampling.gif"},
    }[name]
    written = {path.name for path in folder.iterdir()}
    assert figures | {"run.json", "checkpoint.pt", "history.csv"} <= written and "metrics.json" not in written
    assert Child(name, arguments(name, folder, "--resume")).wait() == 0
    assert_same_run(folder, reference)


def stop_at_step(monkeypatch, number, *signals):
    """The VAE's `number`-th step sends these signals to the process."""
    step, calls = hw5_vae.VAE.step, []

    def step_and_stop(self, x):
        calls.append(len(x))
        if len(calls) == number:
            for each in signals:
                os.kill(os.getpid(), each)
        return step(self, x)

    monkeypatch.setattr(hw5_vae.VAE, "step", step_and_stop)
    return calls


def test_a_stop_comes_after_its_step_and_costs_the_epoch_in_progress(tmp_path, monkeypatch, capsys):
    calls = stop_at_step(monkeypatch, 6, signal.SIGTERM)
    line = [word for word in small("hw5_vae", tmp_path / "out") if word != "--quiet"]
    assert hw5_vae.main(line) == 143 and len(calls) == 6
    assert len(load_tensors(tmp_path / "out" / "checkpoint.pt")["record"]["history"]) == 1, "four steps an epoch"
    out = capsys.readouterr().out
    assert "Stopped: the first 1 of 2 epochs are kept. To go on: python hw5_vae.py" in out and out.endswith(
        "--resume\n"
    )


def test_a_stop_in_the_first_epoch_keeps_nothing_and_can_be_resumed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at_step(patch, 2, signal.SIGTERM)
        assert hw5_vae.main(small("hw5_vae", tmp_path / "out")) == 143
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"run.json", ".lock"}
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out", "--resume")) == 0 and len(rows(tmp_path / "out")) == 2
    assert not (tmp_path / "out.1").exists(), "it goes on in the same folder"


def test_second_ctrl_c_ends_at_once(tmp_path, monkeypatch):
    handler = signal.getsignal(signal.SIGINT)  # another one where pytest runs in the background
    stop_early("hw5_vae", tmp_path / "out")
    before = (tmp_path / "out" / "checkpoint.pt").read_bytes()
    calls = stop_at_step(monkeypatch, 1, signal.SIGINT, signal.SIGINT)
    with pytest.raises(SystemExit) as stopped:
        hw5_vae.main(arguments("hw5_vae", tmp_path / "out", "--resume"))
    assert stopped.value.code == 130 and len(calls) == 1, "went on after the second Ctrl-C"
    assert (tmp_path / "out" / "checkpoint.pt").read_bytes() == before
    assert signal.getsignal(signal.SIGINT) is handler, "handlers are put back"


def test_killed_between_the_last_checkpoint_and_its_history(tmp_path, monkeypatch):
    def killed(history, path):
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(hw5_lab.runs.run, "save_history", killed)
        with pytest.raises(SystemExit):
            hw5_vae.main(small("hw5_vae", tmp_path / "out", "--epochs", 1))
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out", "--epochs", 1, "--resume")) == 0
    assert len(rows(tmp_path / "out")) == 1


def test_resume_of_a_finished_run_changes_nothing(tmp_path, capsys):
    """Whatever lies beside it, and wherever the data are now."""
    folder = tmp_path / "out"
    assert hw5_vae.main(small("hw5_vae", folder)) == 0
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "metrics.json").write_text("mine")
    (folder / "checkpoint.pt").write_bytes(b"damaged")
    before = contents(folder)
    line = [word for word in small("hw5_vae", folder, "--resume", "--data_dir", tmp_path / "gone") if word != "--quiet"]
    assert hw5_vae.main(line) == 0
    assert "is finished: nothing to resume" in capsys.readouterr().out and contents(folder) == before


@pytest.mark.slow
def test_resume_of_a_finished_run_ignores_no_flag(tmp_path, capsys):
    """Neither other measures nor other data; the same data in another folder are no others."""
    folder = tmp_path / "out"
    assert hw5_vae.main(small("hw5_vae", folder)) == 0
    shutil.copytree(small_sample(), tmp_path / "same")
    shutil.copytree(SAMPLE, tmp_path / "other")
    before = contents(folder)
    for flags, words in (
        (("--measure", "full"), "with --measure usual, not full; --evaluate measures it again"),
        (("--iwae_samples", 9), "with --iwae_samples 2, not 9; --evaluate measures it again"),
        (("--data_dir", tmp_path / "other"), "with other data"),
        (("--data_dir", tmp_path / "same"), ""),
    ):
        capsys.readouterr()
        assert hw5_vae.main(small("hw5_vae", folder, "--resume", *flags)) == (2 if words else 0)
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == bool(words) and contents(folder) == before


def test_evaluate_keeps_what_it_would_not_measure(tmp_path, capsys):
    folder = tmp_path / "out"
    assert hw5_vae.main(small("hw5_vae", folder)) == 0
    before = contents(folder)
    line = [word for word in small("hw5_vae", folder, "--evaluate", "--measure", "quick") if word != "--quiet"]
    assert hw5_vae.main(line) == 0
    assert "The run was measured with --measure usual: nothing is written." in capsys.readouterr().out
    assert contents(folder) == before


@pytest.mark.slow
def test_evaluate_that_is_stopped_leaves_the_page_of_the_run(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    assert hw5_vae.main(small("hw5_vae", folder)) == 0
    before = contents(folder)

    def stopped(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(VAEExperiment, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        hw5_vae.main(small("hw5_vae", folder, "--evaluate"))
    assert contents(folder) == before


def test_pytorch_is_no_part_of_a_script(tmp_path, monkeypatch):
    """Its classes lie below the project too, where a virtual environment does."""
    homework = hw5_vae.VAE(argparse.Namespace(hidden_units=5))
    before = hw5_lab.runs.run.source_of(homework)
    monkeypatch.setattr(hw5_lab.runs.run, "HERE", Path("/"))
    assert hw5_lab.runs.run.source_of(homework) == before


@pytest.mark.slow
def test_what_a_run_asks_of_pytorch_is_not_left_to_the_next_one(tmp_path):
    """In a notebook."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    line = small("hw5_vae", tmp_path / "a", "--threads", 3 if before[0] != 3 else 2, "--deterministic")
    assert hw5_vae.main(line) == 0 and torch.are_deterministic_algorithms_enabled()
    assert hw5_vae.main(small("hw5_vae", tmp_path / "b")) == 0
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_resume_of_a_finished_run_with_other_settings_names_them(tmp_path, capsys):
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out")) == 0
    capsys.readouterr()
    for flag, value, words in (("--epochs", 1, "--epochs 2, not 1"), ("--seed", 5, "--seed 1234, not 5")):
        assert hw5_vae.main(small("hw5_vae", tmp_path / "out", "--resume", flag, value)) == 2
        assert f"holds a finished run with {words}" in capsys.readouterr().err


@one_quickly("hw5_gan", "hw5_diffusion")
@pytest.mark.parametrize("finished", [True, False])
def test_a_run_goes_on_to_more_epochs(name, finished, tmp_path, capsys):
    """Its first epochs stay, all flags that the command does not name are recalled, and its end is a run's end."""
    folder = tmp_path / "out"
    assert MODULES[name].main(small(name, folder, "--seed", 5)) == 0
    before = rows(folder)
    if not finished:
        (folder / "metrics.json").unlink()
    capsys.readouterr()
    line = ["--output_dir", str(folder), "--resume", "--epochs", "4"]
    assert MODULES[name].main(line) == 0
    printed = capsys.readouterr().out
    assert "Going on from epoch 2 to 4, at the learning rates of a run of 4 epochs." in printed
    after = rows(folder)
    assert after[:2] == before and [row["epoch"] for row in after] == ["1", "2", "3", "4"]
    assert json.loads((folder / "metrics.json").read_text())["seed"] == 5
    assert MODULES[name].main(line) == 0 and "is finished: nothing to resume" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "no other folder was made"


@pytest.mark.parametrize("killed", first_quickly([False, True]))
def test_more_epochs_are_not_forgotten_by_a_stop_before_the_first_of_them(killed, tmp_path, monkeypatch, capsys):
    """Ctrl-C in it, or a kill before the checkpoint says of how many epochs the run is now."""
    folder = tmp_path / "out"
    assert hw5_vae.main(small("hw5_vae", folder)) == 0
    line = ["--output_dir", str(folder), "--resume"]
    with monkeypatch.context() as patch:
        if killed:
            patch.setattr(hw5_lab.runs.run, "save_tensors", lambda *_: sys.exit(137))
            with pytest.raises(SystemExit):
                hw5_vae.main([*line, "--epochs", "4"])
        else:
            stop_at_step(patch, 2, signal.SIGINT)
            assert hw5_vae.main([*line, "--epochs", "4"]) == 130
            assert "Stopped: the first 2 of 4 epochs are kept" in capsys.readouterr().out
    assert hw5_vae.main(line) == 0 and len(rows(folder)) == 4


def test_evaluate_measures_no_other_weights_than_the_checkpoints(tmp_path, capsys):
    line = small("hw5_vae", tmp_path / "out", "--e_path", tmp_path / "e.pt")
    assert hw5_vae.main(line) == 0 and (tmp_path / "e.pt").exists()
    assert hw5_vae.main([*line, "--evaluate"]) == 2
    assert "--evaluate measures the weights in checkpoint.pt" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_whose_data_have_moved_takes_those_of_the_default_folder(tmp_path, monkeypatch):
    """As on another machine. That they are the same is checked."""
    shutil.copytree(small_sample(), tmp_path / "old")
    assert hw5_vae.main([*small("hw5_vae", tmp_path / "out"), "--data_dir", str(tmp_path / "old")]) == 0
    (tmp_path / "old").rename(tmp_path / "data")
    for module in (hw5_utils, hw5_lab.runs.flags):
        monkeypatch.setattr(module, "HERE", tmp_path)
    assert hw5_vae.main(["--output_dir", str(tmp_path / "out"), "--evaluate", "--quiet"]) == 0


@pytest.mark.slow
def test_gray_training_images_are_not_measured_as_if_they_were_tossed(tmp_path, coarse_integral):
    line = small("hw5_vae", tmp_path, "--latent_dimension", 2, "--measure", "full", "--edition", "dynamic")
    assert hw5_vae.main(line) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "test_log_likelihood_exact" in metrics and "train_log_likelihood_exact" not in metrics


def test_evaluate_measures_as_the_run_did(tmp_path):
    """With the run's own number of samples, where the command names none."""
    folder = tmp_path / "out"
    assert hw5_vae.main(small("hw5_vae", folder, "--iwae_samples", 7)) == 0
    before = json.loads((folder / "metrics.json").read_text())
    line = ["--data_dir", str(small_sample()), "--quiet", "--output_dir", str(folder), "--evaluate"]
    assert hw5_vae.main(line) == 0
    after = json.loads((folder / "metrics.json").read_text())
    assert after.pop("evaluation") and after == before and after["iwae_samples"] == 7
    assert hw5_vae.main([*line, "--iwae_samples", "3"]) == 0
    assert json.loads((folder / "metrics.json").read_text())["iwae_samples"] == 3


def test_evaluate_needs_no_optimizer(tmp_path):
    """Another version of PyTorch may know other settings of Adam."""
    folder = tmp_path / "out"
    assert hw5_vae.main(small("hw5_vae", folder)) == 0
    state = load_tensors(folder / "checkpoint.pt")
    state["parts"]["optimizer"]["param_groups"][0]["unheard_of"] = True
    save_tensors(state, folder / "checkpoint.pt")
    assert hw5_vae.main(small("hw5_vae", folder, "--evaluate")) == 0


def test_an_abbreviated_edition_is_refused(tmp_path, capsys):
    """Its defaults would not be those of the edition."""
    with pytest.raises(SystemExit) as stopped:
        hw5_vae.main(small("hw5_vae", tmp_path / "out", "--edit", "uva"))
    assert stopped.value.code == 2 and "--edit" in capsys.readouterr().err


# ---- numbers


def test_non_finite_loss_ends_the_run_and_keeps_the_checkpoint(tmp_path, monkeypatch, capsys):
    step, calls = hw5_vae.VAE.terms, []

    def poisoned(self, x, generator):
        calls.append(1)
        log_p_x, kl = step(self, x, generator)
        return log_p_x * (math.nan if len(calls) == 7 else 1), kl  # four steps and an evaluation: step 2 of epoch 2

    monkeypatch.setattr(hw5_vae.VAE, "terms", poisoned)
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out")) == 1
    message = capsys.readouterr().err
    assert "epoch 2, step 2: reconstruction nan, KL" in message and message.count("\n") == 1
    state = load_tensors(tmp_path / "out" / "checkpoint.pt")
    assert len(state["record"]["history"]) == 1
    assert all(value.isfinite().all() for value in state["parts"]["encoder"].values())


def test_weights_that_diverge_in_the_last_step_are_not_kept(tmp_path, monkeypatch, capsys):
    watch = VAEExperiment.watch

    def poison(self):
        self.homework.encoder.fc1.weight.data[0, 0] = math.nan
        return watch(self)

    monkeypatch.setattr(VAEExperiment, "watch", poison)
    code, message = hw5_vae.main(small("hw5_vae", tmp_path / "out")), capsys.readouterr().err
    assert code == 1 and "is nan; try a smaller --lr" in message, message
    assert not (tmp_path / "out" / "checkpoint.pt").exists()


@each
@pytest.mark.parametrize("library", ["torch", "numpy"])
def test_too_little_memory_is_said_in_one_line(name, library, tmp_path, monkeypatch, capsys):
    def greedy(run, _):
        run.args.device = "another"  # whose memory is not the one that ends
        torch.empty(2**60, dtype=torch.uint8) if library == "torch" else np.zeros(2**60, np.uint8)  # more than any has

    monkeypatch.setattr(hw5_lab.runs.run.Run, "train", greedy)
    code, message = MODULES[name].main(small(name, tmp_path / "out")), capsys.readouterr().err
    assert code == 2 and message.count("\n") == 1 and "not enough memory on cpu" in message, message


@pytest.mark.parametrize(
    "words",
    ["CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has ...", "MPS backend out of memory (MPS allocated"],
)
def test_too_little_memory_of_another_device_is_said(words, tmp_path, monkeypatch, capsys):
    def greedy(run, _):
        run.args.device = "it"
        raise RuntimeError(words)

    monkeypatch.setattr(hw5_lab.runs.run.Run, "train", greedy)
    assert hw5_vae.main(small("hw5_vae", tmp_path / "out")) == 2
    assert capsys.readouterr().err.startswith("hw5_vae.py: not enough memory on it; use")


def test_a_fault_of_the_code_is_not_called_one_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(hw5_vae.VAE, "step", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        hw5_vae.main(small("hw5_vae", tmp_path / "out"))


@pytest.mark.slow
def test_a_single_test_image_gives_null_not_nan(tmp_path, recwarn):
    """The standard error of one value is not a number, which JSON does not have."""
    assert (
        hw5_vae.main(small("hw5_vae", tmp_path / "out", "--limit", 1, "--batch_size", 1, "--latent_dimension", 2)) == 0
    )
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert metrics["test_elbo_stderr"] is None and metrics["test_elbo"] < 0
    assert not [str(warning.message) for warning in recwarn if "degrees of freedom" in str(warning.message)]


# ---- reproducible


def test_metrics_say_what_the_result_depends_on(tmp_path, monkeypatch):
    asked = []

    def git(command, **_):
        asked.append(command)
        return SimpleNamespace(stdout="5d4bd96-dirty\n")

    monkeypatch.setattr(hw5_lab.runs.run.shutil, "which", lambda name: name)
    monkeypatch.setattr(hw5_lab.runs.run.subprocess, "run", git)
    line = small("hw5_vae", tmp_path / "out", "--seed", 3)
    assert hw5_vae.main(line) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["revision"] == "5d4bd96-dirty" and "--dirty" in asked[0] and asked[0][:3] == ["git", "-C", ROOT]
    rows = list(csv.DictReader((tmp_path / "out" / "history.csv").read_text().splitlines()))
    seconds = [float(row["seconds"]) for row in rows]
    assert len(seconds) == 2 and min(seconds) > 0 and metrics["seconds"] == pytest.approx(sum(seconds))
    assert metrics["threads"] == torch.get_num_threads() and metrics["torch"] == torch.__version__
    assert metrics["seed"] == 3 and metrics["device"]
    assert metrics["command"] == "python hw5_vae.py " + " ".join(line)


def test_deterministic_is_enforced(tmp_path):
    try:
        assert hw5_vae.main(small("hw5_vae", tmp_path / "out", "--deterministic")) == 0
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "seconds, words",
    [(0.2, "1 second"), (80, "80 seconds"), (100, "2 minutes"), (3000, "50 minutes"), (7300, "2 hours")],
)
def test_durations_in_words(seconds, words):
    assert hw5_lab.runs.progress.duration(seconds) == words


@pytest.mark.parametrize("items, said", [(3, []), (60, ["Measuring, about 6 minutes."])])
def test_what_takes_long_to_measure_is_announced_once(items, said, monkeypatch):
    """Each item takes 6 s by this clock, or half of one."""
    clock = itertools.count(0, 6 if said else 0.5)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    lines = []
    assert list(hw5_lab.runs.progress.measuring(range(items), False, lines.append)) == list(range(items))
    assert lines == said


def test_the_announced_time_is_the_pace_times_the_steps(tmp_path, capsys, monkeypatch):
    """By this clock each step takes 5 s: 4 steps, 5 epochs."""
    clock, step = [0.0], hw5_vae.VAE.step
    monkeypatch.setattr(hw5_lab.runs.progress, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(hw5_vae.VAE, "step", lambda self, x: clock.append(clock.pop() + 5) or step(self, x))
    monkeypatch.setattr(
        VAEExperiment, "watch", lambda self: {f"test_{part}": 0.0 for part in ("elbo", "reconstruction", "kl")}
    )
    line = [word for word in small("hw5_vae", tmp_path / "out", "--epochs", 5) if word != "--quiet"]
    assert hw5_vae.main(line) == 0
    announced = capsys.readouterr().out.splitlines()[0]
    assert announced.endswith("about 2 minutes."), announced  # 100 s
    assert hw5_vae.main([*line, "--resume", "--epochs", "15"]) == 0
    told = [row for row in capsys.readouterr().out.splitlines() if row.startswith("Training on")]
    assert len(told) == 1 and told[0].endswith("about 3 minutes."), told  # 200 s, for the ten epochs that are left
