"""On a GPU: every script and edition runs, its numbers are those of the CPU, and --deterministic repeats a run.

A machine without one skips all of these, and says so.
"""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from children import Child, assert_same_run, stop_early
from helpers import MODULES, ROOT, blank, each, rows, run_script, small, small_sample

import hw5_diffusion
import hw5_gan
import hw5_vae
from hw5_lab import door
from hw5_lab.fast.layers import speed_up

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

EDITIONS = [(script, edition) for script in MODULES for edition in door.SCRIPTS[script].editions]


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


@blank
@pytest.mark.parametrize("name, edition", EDITIONS)
def test_a_run_and_its_evaluation_on_the_cpu(name, edition, tmp_path, capsys):
    """Both end, and metrics.json says of each where it was."""
    line = small(name, tmp_path, "--edition", edition, "--measure", "quick")
    assert MODULES[name].main(line) == 0, capsys.readouterr().err
    assert metrics_of(tmp_path)["device"] == "cuda" and len(rows(tmp_path)) == 2
    assert MODULES[name].main([*line, "--evaluate", "--device", "cpu"]) == 0, capsys.readouterr().err
    again = metrics_of(tmp_path)
    assert again["device"] == "cuda" and again["evaluation"]["device"] == "cpu"


@blank
def test_the_numbers_are_those_of_the_cpu(tmp_path):
    """log p(x) on the plane has no random numbers in it."""
    line = small("hw5_vae", tmp_path, "--latent_dimension", 2, "--measure", "full", "--refine_encoder", 1)
    assert hw5_vae.main(line) == 0
    before = metrics_of(tmp_path)
    assert hw5_vae.main([*line, "--evaluate", "--device", "cpu"]) == 0
    after = metrics_of(tmp_path)
    name = "test_log_likelihood_exact"
    assert before[name] == pytest.approx(after[name], rel=1e-4) and before[name] != 0


@each
def test_the_same_seed_is_the_same_run_also_after_a_kill(name, tmp_path):
    """With --deterministic, in three processes."""
    more = ["--epochs", 30, "--device", "cuda", "--deterministic"]
    whole, killed = tmp_path / "whole" / "out", tmp_path / "killed" / "out"
    child = Child(name, small(name, whole, *more))
    assert child.wait() == 0, child.message()
    stop_early(name, killed, *more)
    assert not (killed / "metrics.json").exists(), "it was not stopped"
    child = Child(name, small(name, killed, *more, "--resume"))
    assert child.wait() == 0, child.message()
    assert_same_run(killed, whole)


@blank
@each
def test_a_run_of_the_gpu_on_a_machine_without_one(name, tmp_path):
    """It is measured and loaded there, but does not go on."""
    assert MODULES[name].main(small(name, tmp_path / "out")) == 0
    without = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = run_script(f"{name}.py", "--evaluate", "--output_dir", tmp_path / "out", env=without)
    assert done.returncode == 0, done.stderr
    assert metrics_of(tmp_path / "out")["evaluation"]["device"] == "cpu"
    done = run_script(f"{name}.py", "--resume", "--epochs", 3, "--output_dir", tmp_path / "out", env=without)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "--device cuda, not cpu" in done.stderr, done.stderr
    load = f"import hw5_lab; hw5_lab.load({str(tmp_path / 'out')!r})"
    done = subprocess.run([sys.executable, "-c", load], cwd=ROOT, env=without, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_written_weights_need_no_gpu(tmp_path):
    """A laptop reads them without map_location."""
    line = small("hw5_vae", tmp_path / "out", "--e_path", tmp_path / "e.pt", "--d_path", tmp_path / "d.pt")
    assert hw5_vae.main(line) == 0
    for path in (tmp_path / "e.pt", tmp_path / "d.pt"):
        assert {value.device.type for value in torch.load(path, weights_only=True).values()} == {"cpu"}
    assert hw5_vae.main([*line, "--resume", "--output_dir", str(tmp_path / "fresh")]) == 0


def test_graded_functions_of_the_vae():
    """On tensors of the GPU: results there, the same numbers."""
    draw = torch.Generator().manual_seed(0)
    mu, z = torch.randn(2, 5, 3, generator=draw)
    variance, x, p = torch.rand(3, 5, 3, generator=draw)
    calls = [
        (hw5_vae.logpdf_diagonal_gaussian, (z, mu, variance)),
        (hw5_vae.logpdf_bernoulli, (x.round(), p)),
        (hw5_vae.elbo, (z, mu, variance, x.round(), p)),
        (hw5_vae.interpolate_mu, (mu, z, 0.3)),
        (hw5_vae.kl_estimate, (z, mu, variance)),
    ]
    for function, arguments in calls:
        moved = [value.cuda() if torch.is_tensor(value) else value for value in arguments]
        here, there = function(*arguments), function(*moved)
        assert there.device.type == "cuda", function.__name__
        torch.testing.assert_close(there.cpu(), here)
    sample = hw5_vae.sample_diagonal_gaussian(mu.cuda(), variance.cuda())
    assert sample.device.type == "cuda" and sample.shape == mu.shape
    sample = hw5_vae.sample_Bernoulli(torch.full((20000,), 0.3, device="cuda"))
    assert sample.device.type == "cuda" and sample.mean().item() == pytest.approx(0.3, abs=0.02)


def test_losses_and_gradients_of_the_gan(monkeypatch):
    """From the same z and images: as on the CPU, with the faster layers and without.

    By default convolutions there round to 10 binary digits, which gradients of weights show in the second digit.
    """
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    draw = torch.Generator().manual_seed(0)
    x, z = torch.rand(16, 1, 28, 28, generator=draw), hw5_gan.sample_z(16, 64, draw)
    found = []
    for device, fast in (("cpu", False), ("cuda", False), ("cuda", True)):
        gan = hw5_gan.GAN(64, dev=device)
        if fast:
            speed_up(gan.disc, gan.gen)
        losses = [gan._get_loss_d(16, x.to(device), z.to(device)), gan._get_loss_g(16, z.to(device))]
        for loss in losses:
            loss.backward()
        gradients = [weight.grad.cpu() for net in (gan.disc, gan.gen) for weight in net.parameters()]
        found.append((torch.stack([loss.detach().cpu() for loss in losses]), gradients))
    for losses, gradients in found[1:]:
        torch.testing.assert_close(losses, found[0][0], rtol=1e-5, atol=1e-6)
        for ours, theirs in zip(gradients, found[0][1], strict=True):
            assert (ours - theirs).norm() <= 2e-3 * theirs.norm() + 1e-6


def test_a_run_of_the_gan_has_the_layers_of_the_script():
    """The faster ones are for the CPU."""
    gan = door.build("hw5_gan", door.parse_args("hw5_gan", ["--data_dir", str(small_sample())])).homework
    layers = [layer for network in (gan.disc, gan.gen) for layer in network.modules()]
    assert {type(layer).__module__.split(".")[0] for layer in layers} == {"torch", "hw5_gan"}
    assert gan._dev.type == "cuda"


def test_the_score_and_the_langevin_chain():
    network = hw5_diffusion.DiffusionModel()
    there = copy.deepcopy(network).cuda()
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        there(x.cuda(), torch.tensor(0.1)).cpu(), network(x, torch.tensor(0.1)), rtol=1e-3, atol=1e-3
    )
    sigmas = hw5_diffusion.generate_noise_levels(1.0, 0.01, 3)
    generator = torch.Generator("cuda").manual_seed(0)
    *_, last = hw5_diffusion.langevin_dynamics(there, x.cuda(), sigmas.cuda(), 4, 2e-5, generator)
    assert last.device.type == "cuda" and last.isfinite().all()
