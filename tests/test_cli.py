"""The scripts as their users run them: whole runs, refusals, and the course's own utils module beside them."""

import ast
import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, SAMPLE, run_script, small_sample

import hw5_diffusion
import hw5_gan
import hw5_utils as utils
import hw5_vae

FILES = {
    "hw5_vae": {"data_space.png", "latent_space.png", "inter_class_interpolation.png", "elbo.png", "history.csv", "metrics.json",
                "checkpoint.pt"},
    "hw5_gan": {"goal.png", "samples_epoch_2.png", "losses.png", "history.csv", "metrics.json", "checkpoint.pt", "training.gif",
                "classifier.pt", "best.pt", "quality.png"},
    "hw5_diffusion": {"data.png", "score_field.png", "samples.png", "trajectories.png", "history.csv", "metrics.json",
                      "checkpoint.pt", "sampling.gif"},
}
COLUMNS = {
    "hw5_vae": "epoch,train_elbo,train_reconstruction,train_kl,test_elbo,test_reconstruction,test_kl,seconds",
    "hw5_gan": "epoch,loss_d,loss_g,d_real,d_fake,frechet_train,seconds",
    "hw5_diffusion": "epoch,loss,average_loss,score_error,seconds",
}
MODULES = {"hw5_vae": hw5_vae, "hw5_gan": hw5_gan, "hw5_diffusion": hw5_diffusion}
each = pytest.mark.parametrize("name", MODULES)
both = pytest.mark.parametrize("name", ["hw5_vae", "hw5_gan"])  # that train on MNIST


def one_quickly(*others):
    """The VAE's script and, marked slow, others, for what takes long and is nearly the same in each."""
    return pytest.mark.parametrize("name", ["hw5_vae", *(pytest.param(name, marks=pytest.mark.slow) for name in others)])


def small(name, folder, *more):
    """Arguments of a run of two epochs that takes a second."""
    data = [] if name == "hw5_diffusion" else ["--data_dir", small_sample()]
    sizes = {"hw5_gan": ["--batch_size", 32], "hw5_vae": ["--hidden_units", 50, "--latent_dimension", 3, "--iwae_samples", 2],
             "hw5_diffusion": ["--batch_size", 10, "--samples", 30, "--langevin_steps", 2]}[name]
    return [str(word) for word in [*data, "--epochs", 2, "--quiet", "--output_dir", folder, *sizes, *more]]


def rows(folder):
    return list(csv.DictReader((folder / "history.csv").open()))


def test_every_script_with_a_main_guard_has_an_end_to_end_run():
    scripts = {path.stem for path in ROOT.glob("*.py") if "__main__" in path.read_text()}
    assert scripts == set(FILES)


# ---- whole runs


@one_quickly("hw5_gan", "hw5_diffusion")
def test_run_from_the_shell(name, tmp_path):
    folder = tmp_path / "a" / "b"
    done = run_script(f"{name}.py", *small(name, folder), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == "", "--quiet"
    assert {path.name for path in folder.iterdir() if path.name[0] != "."} == FILES[name]
    assert (folder / "history.csv").read_text().splitlines()[0] == COLUMNS[name]
    metrics, history = json.loads((folder / "metrics.json").read_text()), rows(folder)
    assert [row["epoch"] for row in history] == ["1", "2"]
    assert metrics["seed"] == {"hw5_vae": 1234, "hw5_gan": 2, "hw5_diffusion": 446}[name] and metrics["device"] in ("cpu", "cuda", "mps")
    assert metrics["command"].startswith(f"python {name}.py --") and metrics["threads"] >= 1
    if name == "hw5_vae":
        assert float(history[0]["test_elbo"]) < float(history[1]["test_elbo"]), "the bound must rise"
        assert metrics["test_elbo"] == pytest.approx(float(history[1]["test_elbo"]))


def test_run_with_a_plane_of_latents(tmp_path):
    """The default sizes: log p(x) is integrated exactly, and --evaluate says the same of the checkpoint again."""
    line = small("hw5_vae", tmp_path, "--latent_dimension", 2)
    assert hw5_vae.main(line) == 0
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == FILES["hw5_vae"] | {"gap.png"}
    before = json.loads((tmp_path / "metrics.json").read_text())
    assert before["test_elbo"] < before["test_log_likelihood"] < before["test_log_likelihood_exact"]
    assert before["test_log_likelihood_exact_error"] < 1e-3 and before["iwae_samples"] == 2
    checkpoint = (tmp_path / "checkpoint.pt").read_bytes()
    assert hw5_vae.main([*line, "--evaluate"]) == 0
    after = json.loads((tmp_path / "metrics.json").read_text())
    assert after.pop("evaluation")["command"] == before["command"] + " --evaluate"
    assert after == before, "how it was trained must stay on record"
    assert (tmp_path / "checkpoint.pt").read_bytes() == checkpoint


@pytest.mark.parametrize("name, edition, figures", [
    ("hw5_vae", "uva", {"elbo", "samples_epoch_0", "samples_epoch_1", "samples_epoch_2"}),
    ("hw5_vae", "ese546", {"updates", "reconstructions", "samples_epoch_2"}),
    ("hw5_vae", "hw8", {"elbo", "samples_epoch_1", "samples_epoch_2"}),
    ("hw5_gan", "uva", {"goal", "losses", "quality", "interpolation", "samples_epoch_0", "samples_epoch_1", "samples_epoch_2"}),
])
def test_every_edition_runs_whole(name, edition, figures, tmp_path, capsys):
    assert MODULES[name].main(small(name, tmp_path, "--edition", edition)) == 0
    assert {path.stem for path in tmp_path.glob("*.png")} == figures
    metrics, warnings = json.loads((tmp_path / "metrics.json").read_text()), capsys.readouterr().err
    assert all(isinstance(value, (int, float)) for key, value in metrics.items() if key.startswith(("test_", "loss_", "share_")))
    assert ("images of some digits where 1000 were asked for" in warnings) == (edition == "ese546")
    if name == "hw5_vae":
        held_out = "validation" if edition == "uva" else "test"
        history = rows(tmp_path)
        assert float(history[0][f"{held_out}_elbo"]) < float(history[1][f"{held_out}_elbo"]), "the bound must rise"


def test_the_editions_of_another_checkpoint_are_named(tmp_path, capsys):
    assert hw5_vae.main(small("hw5_vae", tmp_path, "--edition", "hw8")) == 0
    assert hw5_vae.main(small("hw5_vae", tmp_path, "--edition", "cs446", "--resume")) == 2
    assert "--edition hw8, not cs446" in capsys.readouterr().err


def test_diffusion_is_measured_again(tmp_path):
    """Of the other edition: --evaluate says the same of the checkpoint again, but of another number of samples."""
    assert hw5_diffusion.main(small("hw5_diffusion", tmp_path, "--edition", "s24", "--epochs", 1)) == 0
    before = json.loads((tmp_path / "metrics.json").read_text())
    assert before["optimal_loss"] < before["average_loss"] and before["score_error"] > 0
    assert hw5_diffusion.main(["--quiet", "--output_dir", str(tmp_path), "--evaluate", "--samples", "40"]) == 0
    more = json.loads((tmp_path / "metrics.json").read_text())
    assert more["sliced_wasserstein"] != before["sliced_wasserstein"] and more["cosine_0.0100"] == before["cosine_0.0100"]


@each
def test_evaluate_needs_no_other_flag(name, tmp_path, capsys):
    """Whatever the run's settings were, they are those of the checkpoint; those named on the command line must be the same."""
    def evaluate(*more):
        data = [] if name == "hw5_diffusion" else ["--data_dir", small_sample()]
        return MODULES[name].main([*map(str, data), "--quiet", "--output_dir", str(tmp_path), "--evaluate", *more])

    few = {"hw5_vae": ["--iwae_samples", "2"], "hw5_gan": [], "hw5_diffusion": ["--samples", "30", "--langevin_steps", "2"]}[name]
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


def test_evaluate_refuses_the_other_scripts_checkpoint(tmp_path, capsys):
    assert hw5_vae.main(small("hw5_vae", tmp_path, "--edition", "ese546", "--epochs", 1)) == 0
    (tmp_path / "metrics.json").unlink()
    assert hw5_gan.main(small("hw5_gan", tmp_path, "--evaluate")) == 2
    assert "checkpoint.pt: not a checkpoint of this script" in capsys.readouterr().err


@each
def test_evaluate_needs_a_checkpoint(name, tmp_path, capsys):
    assert MODULES[name].main(small(name, tmp_path, "--evaluate")) == 2
    assert "checkpoint.pt: no such file" in capsys.readouterr().err


def test_folders_of_weights_are_looked_for_before_the_training(tmp_path, capsys):
    assert hw5_vae.main(small("hw5_vae", tmp_path, "--e_path", tmp_path / "nowhere" / "e.pt")) == 2
    assert "nowhere/e.pt: cannot be written, there is no such folder" in capsys.readouterr().err
    assert not (tmp_path / "checkpoint.pt").exists()


def test_train_size(tmp_path):
    assert hw5_vae.main(small("hw5_vae", tmp_path, "--train_size", 150, "--batch_size", 150, "--epochs", 1)) == 0
    assert len(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progress"]["history"]) == 1
    assert len(hw5_vae.VAE(hw5_vae.parse_args(["--train_size", "150", "--data_dir", str(SAMPLE)])).train_images) == 150


@each
def test_a_loud_run_lists_what_it_wrote(name, tmp_path, capsys):
    arguments = [word for word in small(name, tmp_path / "out") if word != "--quiet"]
    assert MODULES[name].main(arguments) == 0
    printed = capsys.readouterr()
    for file in FILES[name]:
        assert str(tmp_path / "out" / file) in printed.out
    assert "epoch 2/2" in printed.err and {"hw5_vae": "train_elbo", "hw5_gan": "loss_d", "hw5_diffusion": "loss"}[name] in printed.err


@one_quickly("hw5_gan")
def test_same_seed_same_run_other_seed_other_run(name, tmp_path):
    runs = []
    for number, seed in enumerate((7, 7, 8)):
        assert MODULES[name].main(small(name, tmp_path / str(number), "--device", "cpu", "--seed", seed)) == 0
        parts = torch.load(tmp_path / str(number) / "checkpoint.pt", weights_only=True)["parts"]
        weights = [value for part in parts.values() for value in part.values() if isinstance(value, torch.Tensor)]
        history = [{key: value for key, value in row.items() if key != "seconds"} for row in rows(tmp_path / str(number))]
        runs.append((weights, history))
    equal = lambda a, b: all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert equal(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1], "two runs with the same seed must be identical"
    assert not equal(runs[0][0], runs[2][0]) and runs[0][1] != runs[2][1], "--seed must do something"


def test_defaults_are_the_homeworks():
    args = vars(hw5_vae.parse_args([]))
    expected = dict(num_epoches=200, batch_size=100, hidden_units=500, latent_dimension=2, data_dimension=784, seed=1234,
                    lr=1e-3, resume_training=False)
    assert {name: args[name] for name in expected} == expected
    args = vars(hw5_diffusion.parse_args([]))
    assert (args["edition"], args["word"], args["langevin_steps"], args["langevin_eps"]) == ("cs446", "CS446", 100, 2e-5)
    args = vars(hw5_gan.parse_args([]))
    expected = dict(n_epochs=100, iter_d=1, iter_g=1, batch_size=256, lr=0.0002, zdim=64, seed=2)
    assert {name: args[name] for name in expected} == expected
    assert args["data_dir"] == ROOT / "data" and args["output_dir"] == ROOT / "outputs" / "gan"
    assert hw5_vae.parse_args(["--num_epoches", "3"]).num_epoches == hw5_vae.parse_args(["--epochs", "3"]).num_epoches == 3


@each
def test_help_shows_every_default(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        MODULES[name].main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.count("--") and text.count("(default:") >= 13


# ---- refusals: one line, exit code 2, no traceback


@each
@pytest.mark.parametrize("arguments, words", [
    (["--epochs", "0"], "--epochs: 0 is outside 1..100000"),
    (["--batch_size", "-5"], "--batch_size: -5 is outside 1..60000"),
    (["--lr", "nan"], "--lr: nan is outside 1e-7..1"),
    (["--seed", "-1"], "--seed: -1 is outside 0..4294967295"),
    (["--epochs", "two"], "--epochs"),
    (["--device", "abacus"], "--device"),
    (["--edition", "mine"], "--edition"),
    (["--edition"], "--edition: expected one argument"),
    (["--epohcs", "3"], "--epohcs"),
])
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


@pytest.mark.parametrize("arguments, words", [
    (["--limit", "5"], "unrecognized arguments: --limit"),
    (["--data_dir", "data"], "unrecognized arguments: --data_dir"),
    (["--langevin_eps", "0.001"], "--langevin_eps: 0.001 is outside 1e-9..1e-4"),
    (["--samples", "0"], "--samples: 0 is outside 1..100000"),
    (["--ema_decay", "1"], "--ema_decay: 1.0 is outside 0..0.99999"),
    (["--samples", "100000", "--langevin_steps", "1000"], "more than 4 GB"),
])
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


@one_quickly("hw5_gan")
def test_faulty_data_stops_with_one_line(name, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(SAMPLE, data)
    path = data / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:5000])
    done = run_script(f"{name}.py", *small(name, tmp_path / "out", "--data_dir", data))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"{name}.py: {path}: damaged gzip file") and done.stderr.count("\n") == 1


@both
def test_missing_data_folder(name, tmp_path, capsys):
    assert MODULES[name].main(small(name, tmp_path / "out", "--data_dir", tmp_path / "nowhere")) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_batch_larger_than_the_data(tmp_path, capsys):
    assert hw5_gan.main(small("hw5_gan", tmp_path / "out", "--batch_size", 401)) == 2
    assert "batch_size 401: more than the 400 training images" in capsys.readouterr().err


# ---- the course's own utils module beside the scripts


def test_with_the_courses_utils(tmp_path):
    """A grader's folder: our two scripts, its hw5_utils, MNIST in data/; everything that it may call works."""
    for source in ("hw5_vae.py", "hw5_gan.py", "tests/course/hw5_utils.py"):
        shutil.copy(ROOT / source, tmp_path)
    shutil.copytree(small_sample(), tmp_path / "data")
    grade = """
import argparse, sys, torch, hw5_utils, hw5_vae, hw5_gan
assert not hasattr(hw5_utils, "run"), "this must be the course's module"
assert "matplotlib" not in sys.modules and "torchvision" not in sys.modules
args = argparse.Namespace(latent_dimension=2, hidden_units=20, data_dimension=784, resume_training=False, batch_size=100,
                          num_epoches=1, e_path="e.pt", d_path="d.pt")
vae = hw5_vae.VAE(args)
assert vae.train_images.shape == (400, 784) and vae.train_labels.shape == (400, 10)
vae.train()
assert vae.visualize_data_space().shape == (307, 59)
assert vae.visualize_latent_space().shape == (400, 2)
assert vae.visualize_inter_class_interpolation().shape == (90, 338)
vae.visualize()
assert hw5_vae.parse_args(["--epochs", "3"]).num_epoches == 3
gan = hw5_gan.GAN()
gan.train(n_epochs=1, batch_size=200)
assert hw5_gan.main(["--epochs", "1", "--batch_size", "200"]) == 0
assert hw5_vae.main(["--epochs", "1", "--hidden_units", "20"]) == 0
for script, line in ((hw5_vae, "--resume"), (hw5_vae, "--edition hw8"), (hw5_vae, "--data_dimension 5"), (hw5_gan, "--resume"),
                     (hw5_gan, "--edition uva"), (hw5_gan, "--batch_size 60000")):
    assert script.main(line.split()) == 2, line
"""
    done = subprocess.run([sys.executable, "-c", grade], cwd=tmp_path, text=True, capture_output=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    refusals = [line for line in done.stderr.splitlines() if line.startswith("hw5_")]
    assert len(refusals) == 6 and "Traceback" not in done.stderr, done.stderr
    written = {path.name for path in (tmp_path / "outputs").rglob("*") if path.is_file()}
    assert written == {"data_space.png", "latent_space.png", "inter_class_interpolation.png", "elbo.png", "goal.png",
                       "samples_epoch_1.png", "losses.png"}
    assert (tmp_path / "e.pt").exists() and (tmp_path / "d.pt").exists()


# ---- habits


def test_importing_does_nothing(tmp_path):
    """No parsing, seeding, file access or slow imports."""
    program = "import importlib, random, sys, torch; state = torch.get_rng_state(); sys.argv = ['x', '--nonsense']\n"
    for name in ("hw5_utils", *MODULES):
        program += (f"importlib.import_module('{name}'); assert torch.equal(state, torch.get_rng_state()), '{name} draws'; "
                    f"assert not {{'matplotlib', 'torchvision', 'PIL'}} & set(sys.modules), '{name} imports what it need not'\n")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, text=True, capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert list(tmp_path.iterdir()) == []


@each
def test_no_pyplot_and_no_import_of_siblings(name):
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & {"matplotlib.pyplot", *MODULES}


@each
def test_readme_lists_every_flag(name, capsys):
    readme = (ROOT / "README.md").read_text()
    with pytest.raises(SystemExit):
        MODULES[name].main(["--help"])
    flags = {word.strip(",") for line in capsys.readouterr().out.splitlines() if line.startswith("  -")
             for word in line.split("  ")[1].split() if word.startswith("--")}
    assert {flag for flag in flags if f"`{flag}" not in readme} <= {"--help"}


def test_stub_offers_only_the_courses_names():
    names = {"BASE_URL", "download", "mnist", "load_mnist", "batch_indices", "array_to_image", "concat_images", "GANDataset"}
    tree = ast.parse((ROOT / "tests" / "course" / "hw5_utils.py").read_text())
    defined = {node.name for node in tree.body if hasattr(node, "name")} | {"BASE_URL"}
    assert defined == names and names <= set(vars(utils))
