"""The scripts as their users run them: whole runs, refusals, and the course's own utils module beside them."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch
from helpers import (
    COLUMNS,
    COURSE_NAMES,
    FILES,
    MODULES,
    ROOT,
    SAMPLE,
    blank,
    both,
    each,
    one_quickly,
    rows,
    run_script,
    run_sooner,
    small,
    small_sample,
)
import benchmark
import seeds

import hw5_diffusion
import hw5_gan
import hw5_utils as utils
import hw5_vae
from hw5_lab import door


def test_every_script_with_a_main_guard_has_an_end_to_end_run():
    scripts = {path.stem for path in ROOT.glob("*.py") if "__main__" in path.read_text()}
    assert scripts == set(FILES)


# ---- whole runs


@pytest.mark.slow
@each
def test_run_from_the_shell(name, tmp_path):
    folder = tmp_path / "a" / "b"
    start = run_script if name == "hw5_vae" else run_sooner
    done = start(ROOT / f"{name}.py", *small(name, folder), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == "", "--quiet"
    assert {path.name for path in folder.iterdir() if path.name[0] != "."} == FILES[name]
    assert (folder / "history.csv").read_text().splitlines()[0] == COLUMNS[name]
    metrics, history = json.loads((folder / "metrics.json").read_text()), rows(folder)
    assert [row["epoch"] for row in history] == ["1", "2"]
    assert metrics["seed"] == {"hw5_vae": 1234, "hw5_gan": 2, "hw5_diffusion": 446}[name] and metrics["device"] in (
        "cpu",
        "cuda",
        "mps",
    )
    assert metrics["command"].startswith(f"python {name}.py --") and metrics["threads"] >= 1
    if name == "hw5_vae":
        assert float(history[0]["test_elbo"]) < float(history[1]["test_elbo"]), "the bound must rise"
        assert metrics["test_elbo"] == pytest.approx(float(history[1]["test_elbo"]))


@pytest.mark.slow
@blank
def test_run_with_a_plane_of_latents(tmp_path):
    """The default sizes: log p(x) is integrated exactly, and --evaluate says the same of the checkpoint again."""
    line = small("hw5_vae", tmp_path, "--latent_dimension", 2, "--measure", "full", "--limit", 100)
    assert hw5_vae.main(line) == 0
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == FILES["hw5_vae"] | {"gap.png"}
    before = json.loads((tmp_path / "metrics.json").read_text())
    assert before["test_elbo"] < before["test_importance_weighted_bound"] < before["test_log_likelihood_exact"]
    assert before["test_log_likelihood_exact_error"] < 1e-3 and before["iwae_samples"] == 2
    checkpoint = (tmp_path / "checkpoint.pt").read_bytes()
    assert hw5_vae.main([*line, "--evaluate"]) == 0
    after = json.loads((tmp_path / "metrics.json").read_text())
    assert after.pop("evaluation")["command"] == before["command"] + " --evaluate"
    assert after == before, "how it was trained must stay on record"
    assert (tmp_path / "checkpoint.pt").read_bytes() == checkpoint


@pytest.mark.parametrize(
    "name, edition, figures",
    [
        pytest.param(
            "hw5_vae",
            "uva",
            {"elbo", "samples_epoch_0", "samples_epoch_1", "samples_epoch_2"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "hw5_vae", "ese546", {"elbo", "updates", "reconstructions", "samples_epoch_2"}, marks=pytest.mark.slow
        ),
        ("hw5_vae", "hw8", {"elbo", "samples_epoch_1", "samples_epoch_2"}),
        pytest.param(
            "hw5_gan",
            "uva",
            {"goal", "losses", "quality", "interpolation", "samples_epoch_0", "samples_epoch_1", "samples_epoch_2"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "hw5_gan",
            "cs446-tuned",
            {"goal", "losses", "quality", "samples_epoch_0", "samples_epoch_1", "samples_epoch_2"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_edition_runs_whole(name, edition, figures, tmp_path, capsys):
    assert MODULES[name].main(small(name, tmp_path, "--edition", edition)) == 0
    assert {path.stem for path in tmp_path.glob("*.png")} == figures
    metrics, warnings = json.loads((tmp_path / "metrics.json").read_text()), capsys.readouterr().err
    assert all(
        isinstance(value, (int, float))
        for key, value in metrics.items()
        if key.startswith(("test_", "loss_", "share_"))
    )
    assert ("images of some classes where 1000 were asked for" in warnings) == (edition == "ese546")
    if name == "hw5_vae":
        held_out = "validation" if edition == "uva" else "test"
        history = rows(tmp_path)
        assert float(history[0][f"{held_out}_elbo"]) < float(history[1][f"{held_out}_elbo"]), "the bound must rise"


@blank
def test_the_edition_of_another_checkpoint_is_named(tmp_path, capsys):
    assert hw5_vae.main(small("hw5_vae", tmp_path, "--edition", "hw8")) == 0
    (tmp_path / "metrics.json").unlink()  # as if it had been killed before the end
    assert hw5_vae.main(small("hw5_vae", tmp_path, "--edition", "cs446", "--resume")) == 2
    assert "--edition hw8, not cs446" in capsys.readouterr().err


@pytest.mark.slow
@blank
def test_diffusion_is_measured_again(tmp_path):
    """Of the other edition: --evaluate says the same of the checkpoint again, but of another number of samples."""
    assert hw5_diffusion.main(small("hw5_diffusion", tmp_path, "--edition", "s24", "--epochs", 1)) == 0
    before = json.loads((tmp_path / "metrics.json").read_text())
    assert before["optimal_loss"] < before["average_loss"] and before["score_error"] > 0
    assert hw5_diffusion.main(["--quiet", "--output_dir", str(tmp_path), "--evaluate", "--samples", "40"]) == 0
    more = json.loads((tmp_path / "metrics.json").read_text())
    assert (
        more["sliced_wasserstein"] != before["sliced_wasserstein"] and more["cosine_0.0100"] == before["cosine_0.0100"]
    )


@one_quickly("hw5_gan", "hw5_diffusion")
@blank
def test_evaluate_needs_no_other_flag(name, tmp_path, capsys):
    """Whatever the run's settings were, they are those of the checkpoint; those named on the command line must be the same."""

    def evaluate(*more):
        data = [] if name == "hw5_diffusion" else ["--data_dir", small_sample()]
        return MODULES[name].main([*map(str, data), "--quiet", "--output_dir", str(tmp_path), "--evaluate", *more])

    few = {
        "hw5_vae": ["--iwae_samples", "2"],
        "hw5_gan": [],
        "hw5_diffusion": ["--samples", "30", "--langevin_steps", "2"],
    }[name]
    assert MODULES[name].main(small(name, tmp_path, "--seed", 7, "--deterministic")) == 0
    torch.use_deterministic_algorithms(False)
    before = json.loads((tmp_path / "metrics.json").read_text())
    assert evaluate(*few) == 0
    after = json.loads((tmp_path / "metrics.json").read_text())
    assert after.pop("evaluation")["seed"] == 7 and after == before
    for flag, words in (("--epochs", " 2, not 3"), ("--seed", "--seed 7, not 3")):
        assert evaluate(*few, flag, "3") == 2
        message = capsys.readouterr().err
        assert words in message and message.count("\n") == 1


@pytest.mark.parametrize("flag", ["--evaluate", "--resume"])
@blank
def test_the_run_of_another_script_is_named(flag, tmp_path, capsys):
    assert hw5_vae.main(small("hw5_vae", tmp_path, "--edition", "ese546", "--epochs", 1)) == 0
    assert hw5_gan.main(small("hw5_gan", tmp_path, flag)) == 2
    assert "checkpoint.pt: belongs to a run of hw5_vae.py" in capsys.readouterr().err


@each
def test_evaluate_needs_a_checkpoint(name, tmp_path, capsys):
    assert MODULES[name].main(small(name, tmp_path, "--evaluate")) == 2
    assert "checkpoint.pt: no such file" in capsys.readouterr().err


@blank
def test_train_size(tmp_path):
    assert hw5_vae.main(small("hw5_vae", tmp_path, "--train_size", 150, "--batch_size", 150, "--epochs", 1)) == 0
    assert len(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["record"]["history"]) == 1
    args = door.parse_args("hw5_vae", ["--train_size", "150", "--data_dir", str(SAMPLE), "--device", "cpu"])
    assert len(door.build("hw5_vae", args).homework.train_images) == 150


@one_quickly("hw5_gan", "hw5_diffusion")
@blank
def test_a_loud_run_says_what_it_does_and_found(name, tmp_path, capsys, monkeypatch):
    """On what data and device, how long, the results in words, and where they are, relative to where the user stands."""
    monkeypatch.chdir(tmp_path)
    arguments = [word for word in small(name, tmp_path / "out") if word != "--quiet"]
    assert MODULES[name].main(arguments) == 0
    printed = capsys.readouterr()
    first, *results, last = printed.out.strip().splitlines()
    data = "2,000 points that spell 'CS 446'" if name == "hw5_diffusion" else f"400 of the images of {small_sample()}"
    assert first.startswith(f"Training on {data} with ") and re.search(r" about \d+ (second|minute)s?\.$", first)
    assert last == f"All numbers are in {os.path.join('out', 'metrics.json')}, the figures beside it."
    words = {"hw5_vae": "ELBO", "hw5_gan": "Frechet distance", "hw5_diffusion": "cosine"}[name]
    assert any(words in line for line in results)
    assert (
        "epoch 2/2" in printed.err
        and {"hw5_vae": "train_elbo", "hw5_gan": "loss_d", "hw5_diffusion": "loss"}[name] in printed.err
    )


@one_quickly("hw5_gan")
@blank
def test_same_seed_same_run_other_seed_other_run(name, tmp_path):
    runs = []
    for number, seed in enumerate((7, 7, 8)):
        assert MODULES[name].main(small(name, tmp_path / str(number), "--device", "cpu", "--seed", seed)) == 0
        parts = torch.load(tmp_path / str(number) / "checkpoint.pt", weights_only=True)["parts"]
        weights = [value for part in parts.values() for value in part.values() if isinstance(value, torch.Tensor)]
        history = [
            {key: value for key, value in row.items() if key != "seconds"} for row in rows(tmp_path / str(number))
        ]
        runs.append((weights, history))
    equal = lambda a, b: all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert equal(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1], "two runs with the same seed must be identical"
    assert not equal(runs[0][0], runs[2][0]) and runs[0][1] != runs[2][1], "--seed must do something"


def test_defaults_are_the_homeworks():
    """Of the scripts alone, and of the laboratory, whose own flags do nothing by default."""
    expected = dict(
        num_epoches=200,
        batch_size=100,
        hidden_units=500,
        latent_dimension=2,
        data_dimension=784,
        seed=1234,
        lr=1e-3,
        resume_training=False,
    )
    for parse_args in (hw5_vae.parse_args, partial(door.parse_args, "hw5_vae")):
        args = vars(parse_args([]))
        assert {name: args[name] for name in expected} == expected
    assert (args["edition"], args["train_size"], args["refine_encoder"]) == ("cs446", 10_000, 0)
    expected = dict(word="CS 446", n_epochs=60, langevin_steps=100, langevin_eps=2e-5, seed=446)
    for parse_args in (hw5_diffusion.parse_args, partial(door.parse_args, "hw5_diffusion")):
        args = vars(parse_args([]))
        assert {name: args[name] for name in expected} == expected
    assert args["ema_decay"] == 0
    expected = dict(n_epochs=100, iter_d=1, iter_g=1, batch_size=256, lr=0.0002, zdim=64, seed=2)
    for parse_args in (hw5_gan.parse_args, partial(door.parse_args, "hw5_gan")):
        args = vars(parse_args([]))
        assert {name: args[name] for name in expected} == expected
    assert args["data_dir"] == ROOT / "data" and args["output_dir"] == ROOT / "outputs" / "gan"
    assert (
        hw5_vae.parse_args(["--num_epoches", "3"]).num_epoches == hw5_vae.parse_args(["--epochs", "3"]).num_epoches == 3
    )


@pytest.mark.parametrize(
    "name, line, expected",
    [
        (
            "hw5_vae",
            "--edition uva --latent_dimension 2",
            dict(latent_dimension=2, num_epoches=40, batch_size=128),
        ),
        ("hw5_vae", "--epochs 3 --edition=hw8", dict(num_epoches=3, hidden_units=400, train_size=60_000)),
        (
            "hw5_vae",
            "--edition ese546",
            dict(num_epoches=50, batch_size=32, latent_dimension=8, data_dimension=196),
        ),
        ("hw5_gan", "--edition uva --epochs 7", dict(n_epochs=7, zdim=100, batch_size=64, lr=2e-4)),
        (
            "hw5_diffusion",
            "--edition s24 --lr 0.1",
            dict(n_epochs=110, batch_size=400, word="CS446", lr=0.1),
        ),
    ],
)
def test_flags_override_the_edition(name, line, expected):
    args = vars(door.parse_args(name, line.split()))
    assert {name: args[name] for name in expected} == expected


@each
def test_help_shows_every_default(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        MODULES[name].main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.count("--") and text.count("(default:") >= 13


# ---- refusals: one line, exit code 2, no traceback


@each
@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--epochs", "0"], ": 0 is outside 1..100000"),
        (["--batch_size", "-5"], "--batch_size: -5 is outside 1..60000"),
        (["--lr", "nan"], "--lr: nan is outside 1e-07..1"),
        (["--seed", "-1"], "--seed: -1 is outside 0..4294967295"),
        (["--epochs", "two"], "--epochs"),
        (["--device", "abacus"], "--device"),
        (["--edition", "mine"], "--edition"),
        (["--edition"], "--edition: expected one argument"),
        (["--epohcs", "3"], "--epohcs"),
    ],
)
def test_arguments_out_of_range(name, arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        MODULES[name].main(arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert words in message and message.count("\n") == 1


@both
def test_limit_out_of_range(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        MODULES[name].main(["--limit", "0"])
    assert stopped.value.code == 2 and "--limit: 0 is outside 1..60000" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--limit", "5"], "unrecognized arguments: --limit"),
        (["--data_dir", "data"], "unrecognized arguments: --data_dir"),
        (["--langevin_eps", "0.001"], "--langevin_eps: 0.001 is outside 1e-09..0.0001"),
        (["--samples", "0"], "--samples: 0 is outside 1..100000"),
        (["--ema_decay", "1"], "--ema_decay: 1 is outside 0..0.99999"),
    ],
)
def test_arguments_of_the_diffusion_script(arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        hw5_diffusion.main(arguments)
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and words in message and message.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device that should be absent")
@each
def test_absent_device(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        MODULES[name].main(["--device", "cuda"])
    assert stopped.value.code == 2 and "cuda is not available here" in capsys.readouterr().err


def test_a_card_without_kernels_is_not_used(monkeypatch, capsys):
    """PyTorch sees it, but was built for other ones."""
    ones = torch.ones

    def no_kernel(*sizes, device=None, **options):
        if device == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore lines")
        return ones(*sizes, device=device, **options)

    monkeypatch.setattr(torch, "ones", no_kernel)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert door.parse_args("hw5_vae", []).device == "cpu"
    error = capsys.readouterr().err
    assert error.startswith("cuda is there, but computes nothing (CUDA error: no kernel") and error.count("\n") == 1


@one_quickly("hw5_gan")
def test_faulty_data_stops_with_one_line(name, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(SAMPLE, data)
    path = data / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:5000])
    assert MODULES[name].main(small(name, tmp_path / "out", "--data_dir", data)) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith(f"{name}.py: {path}: damaged gzip file")


@both
def test_missing_data_folder(name, tmp_path, capsys):
    assert MODULES[name].main(small(name, tmp_path / "out", "--data_dir", tmp_path / "nowhere")) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_batch_larger_than_the_data(tmp_path, capsys):
    assert hw5_gan.main(small("hw5_gan", tmp_path / "out", "--batch_size", 401)) == 2
    assert "batch_size 401: more than the 400 training images" in capsys.readouterr().err


# ---- the course's own utils module beside the scripts


@pytest.fixture
def grader(tmp_path):
    """A grader's folder: the scripts without the laboratory, the course's hw5_utils, MNIST in data/."""
    for source in ("hw5_vae.py", "hw5_gan.py", "hw5_diffusion.py", "tests/course/hw5_utils.py"):
        shutil.copy(ROOT / source, tmp_path)
    shutil.copytree(small_sample(), tmp_path / "data")
    return tmp_path


@pytest.mark.parametrize(
    "name, line, figures",
    [
        pytest.param(
            "hw5_vae",
            "--epochs 2 --hidden_units 20",
            {"data_space", "latent_space", "inter_class_interpolation"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "hw5_gan",
            "--epochs 2 --batch_size 100",
            {"goal", "samples_epoch_0", "samples_epoch_1", "samples_epoch_2"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "hw5_diffusion",
            "--epochs 2 --langevin_steps 2",
            {"data", "score_field", "samples", "trajectories"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_script_alone_trains_and_draws(name, line, figures, grader):
    """A line per epoch, and the homework's figures; nothing of the laboratory."""
    start = run_script if name == "hw5_vae" else run_sooner
    done = start(grader / f"{name}.py", *line.split(), cwd=grader)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    *lines, last = done.stdout.splitlines()
    assert [text.split(":")[0] for text in lines] == ["epoch 1", "epoch 2"]
    assert last.endswith(f"Figures: {grader / 'outputs' / 'figures'}")
    assert bool(re.match(r"ELBO of 200 held-out images: -\d+\.\d nats", last)) == (name == "hw5_vae")
    assert {path.stem for path in (grader / "outputs" / "figures").iterdir()} == figures


def alone(grader, line, **options):
    """A script in a process of its own, without the laboratory."""
    from children import Python  # which Windows cannot have

    return Python(line.split(), grader, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line, words, left",
    [
        ("hw5_vae.py --epochs 5000 --hidden_units 5 --e_path e.pt", "ELBO of 200", {"data_space.png"}),
        (
            "hw5_gan.py --epochs 5000 --batch_size 100",
            "Stopped: samples",
            {"samples_epoch_10.png", "samples_epoch_stopped.png"},
        ),
        ("hw5_diffusion.py --epochs 5000 --batch_size 10 --langevin_steps 2", "figures are", {"score_field.png"}),
    ],
)
def test_ctrl_c_alone_keeps_what_was_learned(line, words, left, grader):
    process = alone(grader, line)
    while not process.stdout.readline().startswith("epoch 11:"):
        assert process.returncode is None
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate()
    assert process.returncode == 130 and errors == "" and "Stopped: " in out and words in out, errors
    assert left <= {path.name for path in (grader / "outputs" / "figures").iterdir()}
    assert (grader / "e.pt").exists() == ("e_path" in line)


@pytest.mark.slow
def test_alone_nobody_listens(grader):
    """A reader that ends early ends no training."""
    process = alone(grader, "hw5_vae.py --epochs 20 --hidden_units 5 --e_path e.pt")
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait() == 0 and errors == "" and (grader / "e.pt").exists(), errors
    assert (grader / "outputs" / "figures" / "latent_space.png").exists()


@pytest.mark.slow
def test_alone_nothing_of_others_is_overwritten(grader):
    (grader / "thesis.txt").write_text("mine")
    for path, words in (
        ("thesis.txt", "holds no weights"),
        (".", "cannot be written"),
        ("x/e.pt", "cannot be written"),
    ):
        out, errors = alone(grader, f"hw5_vae.py --epochs 1 --e_path {path}").communicate()
        assert words in errors and errors.count("\n") == 1 and out == "", errors
    assert (grader / "thesis.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit for the size of files")
def test_alone_a_full_disk_is_said_in_one_line(grader):
    process = alone(grader, "hw5_vae.py --epochs 1 --hidden_units 5 --e_path e.pt", file_size=1000)
    _, errors = process.communicate()
    assert process.returncode == 2 and "File too large" in errors and errors.count("\n") == 1, errors


@each
@pytest.mark.parametrize(
    "line, words",
    [
        ("--epochs -3", "--epochs/--n_epochs: -3 is outside 1..100000"),
        ("--batch_size 0", "--batch_size: 0 is outside 1..60000"),
        ("--lr 50", "--lr: 50 is outside 1e-07..1"),
        ("--seed -1", "--seed: -1 is outside 0..4294967295"),
        ("--lr high", "--lr: invalid float value: 'high'"),
    ],
)
def test_a_script_alone_refuses_what_its_help_refuses(name, line, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        MODULES[name].parse_args(line.split())
    message = capsys.readouterr().err
    words = words.replace("--n_epochs", "--num_epoches") if name == "hw5_vae" else words
    assert stopped.value.code == 2 and words in message and message.count("\n") == 1, message


@pytest.mark.parametrize(
    "name, line",
    [
        ("hw5_vae", "--hidden_units -1"),
        ("hw5_vae", "--latent_dimension 0"),
        ("hw5_gan", "--zdim -1"),
        ("hw5_gan", "--iter_d 0"),
        ("hw5_gan", "--iter_g 0"),
    ],
)
def test_sizes_out_of_range_are_refused_alone(name, line, capsys):
    with pytest.raises(SystemExit) as stopped:
        MODULES[name].parse_args(line.split())
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and line.split()[0] in message and message.count("\n") == 1


@pytest.mark.parametrize("laboratory", [True, False])
@pytest.mark.parametrize("name", ["hw5_vae", "hw5_gan", "hw5_diffusion"])
def test_a_diverged_training_has_one_exit_code(name, laboratory, tmp_path, capsys, monkeypatch):
    """1, with the laboratory and without it."""
    module = MODULES[name]
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self: [w.data.fill_(float("nan")) for g in self.param_groups for w in g["params"]],
    )
    if not laboratory:
        monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
        homework = getattr(module, {"hw5_vae": "VAE", "hw5_gan": "GAN", "hw5_diffusion": "ScoreMatching"}[name])
        monkeypatch.setattr(homework, "folder", tmp_path)
        monkeypatch.setattr(utils, "mnist", lambda data_dir=None, mnist=utils.mnist: mnist(small_sample()))
        line = {"hw5_vae": "--hidden_units 5", "hw5_gan": "--batch_size 32", "hw5_diffusion": "--batch_size 5"}[
            name
        ].split()
    else:
        line = small(name, tmp_path / "out")
    assert module.main(line) == 1
    message = capsys.readouterr().err
    assert (
        message.startswith(f"{name}.py: epoch 1, step ")
        and "try a smaller --lr" in message
        and message.count("\n") == 1
    )


@pytest.mark.slow
def test_a_grader_calls_everything_of_two_uploaded_files(grader):
    (grader / "hw5_diffusion.py").unlink()
    grade = """
import argparse, sys, torch, hw5_utils, hw5_vae, hw5_gan
assert not hasattr(hw5_utils, "Fault"), "this must be the course's module"
assert "matplotlib" not in sys.modules and "torchvision" not in sys.modules
args = argparse.Namespace(latent_dimension=2, hidden_units=20, data_dimension=784, resume_training=False, batch_size=100,
                          num_epoches=1, e_path="e.pt", d_path="d.pt")
vae = hw5_vae.VAE(args)
assert vae.train_images.shape == (400, 784) and vae.train_labels.shape == (400, 10)
vae.train()
assert vae.visualize_data_space().shape == (307, 59)
assert vae.visualize_latent_space().shape == (400, 2)
assert vae.visualize_inter_class_interpolation().shape == (90, 338)
assert hw5_vae.parse_args(["--epochs", "3"]).num_epoches == 3
args.resume_training = True
again = hw5_vae.VAE(args)
assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), again.parameters()))
gan = hw5_gan.GAN()
gan.train(n_epochs=1, batch_size=200)
assert hw5_gan.main(["--epochs", "1", "--batch_size", "200"]) == 0
for script, line in ((hw5_vae, "--resume"), (hw5_gan, "--batch_size 60000")):
    assert script.main(line.split()) == 2, line
assert not any(name.startswith("hw5_lab") for name in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", grade],
        cwd=grader,
        text=True,
        capture_output=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(grader)},
    )
    assert done.returncode == 0, done.stderr
    refusals = done.stderr.splitlines()
    assert len(refusals) == 2 and all(line.startswith("hw5_") for line in refusals), done.stderr


@pytest.mark.slow
def test_the_laboratory_beside_the_courses_utils_says_what_it_needs(grader):
    shutil.copytree(ROOT / "hw5_lab", grader / "hw5_lab")
    done = subprocess.run([sys.executable, "hw5_vae.py", "--epochs", "1"], cwd=grader, text=True, capture_output=True)
    assert done.returncode == 2 and done.stderr.startswith("hw5_lab: needs") and done.stderr.count("\n") == 1, (
        done.stderr
    )


# ---- the benchmark


@pytest.mark.slow
def test_the_benchmark_works_on_the_sample_and_says_so():
    line = ["--rounds", 0, "--vae_epochs", 1, "--gan_epochs", 1, "--data_dir", small_sample()]
    done = run_sooner(ROOT / "tests/benchmark.py", *line)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("400 training images of ")
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ") and "loop" not in line]
    assert [row[1].strip() for row in rows] == ["1", "9 of 9", "1", "7 of 50"]
    assert all(float(row[3]) < 0 for row in rows[:2]) and float(rows[2][3]) > float(rows[3][3]) > 0, "ours is better"
    for course, ours in (rows[:2], rows[2:]):
        seconds = [float(row[2].split()[0]) for row in (course, ours)]
        sooner = [float(number) for number in re.findall(r"[\d.]+", ours[4])]  # of one turn: median, smallest, largest
        assert course[4].strip() == "1" and sooner == pytest.approx([seconds[0] / seconds[1]] * 3, rel=0.02)


@pytest.mark.slow
def test_the_benchmark_times_epochs_and_whole_runs(capsys, monkeypatch):
    """For refinement nothing is trained but the encoder."""
    refined = "`hw5_vae.py --refine_encoder 400`, refining"
    flags = ["--refine_encoder", 400, "--hidden_units", 20]
    monkeypatch.setattr(benchmark, "EPOCHS", {refined: ("hw5_vae", flags)})
    monkeypatch.setattr(benchmark, "RUNS", ["hw5_vae.py --epochs 1 --hidden_units 20 --measure quick"])
    monkeypatch.setattr(hw5_vae.VAE, "epochs", None)
    benchmark.compare_epochs(small_sample(), 1)
    benchmark.compare_runs(small_sample(), 1)
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert [row[0].strip() for row in rows] == [refined, f"`python {benchmark.RUNS[0]}`"]
    for row in rows:
        middle, least, most = (float(number) for number in re.findall(r"[\d.]+", row[1]))
        assert 0 < least <= middle <= most


def test_no_seed_of_a_table_is_counted_twice():
    assert seeds.seeds(2, 4) == [2, 1, 3, 4] and seeds.seeds(1234, 3) == [1234, 1, 2] and seeds.seeds(1, 1) == [1]


def test_a_row_of_the_table_may_be_of_the_last_epoch(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", "nothing is run")
    for seed, bounds in ((1234, (-103, -104)), (1, (-105, -106))):
        folder = tmp_path / f"hw8-{seed}"
        folder.mkdir()
        line = f"python hw5_vae.py --edition hw8 --seed {seed} --output_dir {folder} --resume --quiet"
        metrics = {"command": line, "revision": "of a test", "threads": 1, "test_elbo": bounds[1]}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "history.csv").write_text(f"epoch,train_elbo,test_elbo\n1,-200,-200\n2,{bounds[0]},{bounds[1]}\n")
    seeds.main(["hw8", "--seeds", "2", "--output_dir", str(tmp_path)])
    assert "| bound, training -104.0 ± 1.4, held-out -105.0 ± 1.4 | 2 |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_table_of_seeds_is_made_once_and_read_again(tmp_path):
    line = ["tests/seeds.py", "vae", "--seeds", 2, "--output_dir", tmp_path, "--data_dir", small_sample()]
    line += ["--flags", "--hidden_units", 20, "--epochs", 1]
    first, second = run_sooner(*line), run_sooner(*line)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout and len(list(tmp_path.glob("*/metrics.json"))) == 2
    header, _, vae, *_ = first.stdout.splitlines()
    values = [json.loads((tmp_path / f"vae-{seed}" / "metrics.json").read_text())["test_elbo"] for seed in (1234, 1)]
    mean, deviation = sum(values) / 2, abs(values[0] - values[1]) / 2**0.5
    assert f"| ELBO {mean:.1f} ± {deviation:.1f}, log p(x) " in vae and "| 2 |" in vae
    assert vae.startswith("| `python hw5_vae.py --hidden_units 20 --epochs 1` |") and "Revisions: " in first.stdout
    other = run_sooner(*line[:-1], 2)
    assert other.returncode == 1 and "holds another run" in other.stderr and other.stderr.count("\n") == 1
    unknown = run_sooner(ROOT / "tests/seeds.py", "vea")
    assert unknown.returncode == 2 and "no such row vea; there are vae, " in unknown.stderr


@pytest.mark.slow
def test_one_gan_is_measured_by_three_classifiers(tmp_path):
    assert hw5_gan.main(small("hw5_gan", tmp_path / "out")) == 0
    done = run_sooner(ROOT / "tests/seeds.py", "--classifiers", tmp_path / "out")
    lines = done.stdout.splitlines()
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert len(lines) == 4 and f"checksum {metrics['classifier_checksum']}: " in lines[0], done.stderr
    assert lines[0].endswith(f"{metrics['frechet_distance']:.1f}"), "the run's own classifier is that of seed 0"


# ---- habits


def imports(path, everywhere):
    """Names of the modules that a file imports, anywhere or outside of its functions."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else tree.body
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    nodes = ast.walk(tree) if everywhere else tree.body
    return names | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}


@one_quickly("hw5_gan", "hw5_diffusion")
def test_importing_a_script_does_nothing(name, tmp_path):
    """No parsing, seeding, file access, slow imports, nor an import of the laboratory that lies beside it."""
    program = (
        f"import random, sys, torch; state = torch.get_rng_state(); sys.argv = ['x', '--nonsense']\n"
        f"import hw5_utils, {name}\n"
        f"assert torch.equal(state, torch.get_rng_state()), 'the import draws random numbers'\n"
        f"slow = {{'matplotlib', 'torchvision', 'PIL', 'hw5_lab'}} & set(sys.modules)\n"
        f"assert not slow, f'imports {{slow}}'"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert list(tmp_path.iterdir()) == []


@each
def test_scripts_stand_on_utils_alone(name):
    path = ROOT / f"{name}.py"
    assert not imports(path, everywhere=True) & {"matplotlib.pyplot", *MODULES}
    assert not any(module.startswith("hw5_lab") for module in imports(path, everywhere=False))
    used = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "utils"
    }
    assert used <= COURSE_NAMES, f"{used - COURSE_NAMES} is not among the eight names of the course's utils"


@each
def test_graded_functions_begin_with_their_question(name):
    """Every question of the coding parts is found by one search."""
    questions = {
        "hw5_vae": ["2(a)", "2(b)i", "2(b)ii", "2(b)iii", "2(b)iv", "2(c)", "2(d)", "2(e)i", "2(e)ii", "2(e)iii"],
        "hw5_gan": ["4(a)", "4(b)", "4(c)", "4(d)", "4(e)", "4(f)"],
        "hw5_diffusion": ["4(b)", "4(c)"],
    }[name]
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    starts = {(ast.get_docstring(node) or "").split(".")[0] for node in nodes}
    assert set(questions) <= starts


@each
def test_readme_lists_every_flag(name, capsys):
    readme = (ROOT / "README.md").read_text()
    with pytest.raises(SystemExit):
        MODULES[name].main(["--help"])
    flags = {
        word.strip(",")
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("  -")
        for word in line.split("  ")[1].split()
        if word.startswith("--")
    }
    assert {flag for flag in flags if f"`{flag}" not in readme} <= {"--help"}


def test_stub_offers_only_the_courses_names():
    names = COURSE_NAMES
    tree = ast.parse((ROOT / "tests" / "course" / "hw5_utils.py").read_text())
    defined = {node.name for node in tree.body if hasattr(node, "name")} | {"BASE_URL"}
    assert defined == names and names <= set(vars(utils))
