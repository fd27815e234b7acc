"""What is graded is what runs: a run with the laboratory calls the script's own functions, and each as often as it should.

So a breakpoint in `_get_loss_d` or `GNet.forward` stops in every run of the homework, and a mistake there is a mistake of the run.
"""

import functools
import itertools

import pytest
from helpers import small
from plain import without_drawing

import hw5_diffusion
import hw5_gan
import hw5_vae


@pytest.fixture
def calls(monkeypatch):
    """A function that watches others: it returns the list of their names, one for each call, in their order.

    What is called while a step of the training is in progress stands in brackets, as in "[DNet.forward]".
    """
    without_drawing(monkeypatch)
    names, inside = [], []

    def watch(*functions, step):
        for owner, name in functions:
            function = getattr(owner, name)
            label = f"{owner.__name__}.{name}"

            @functools.wraps(function)
            def watched(*args, _function=function, _label=label, **options):
                names.append(f"[{_label}]" if inside else _label)
                if _label != step:
                    return _function(*args, **options)
                inside.append(_label)
                try:
                    return _function(*args, **options)
                finally:
                    inside.pop()

            monkeypatch.setattr(owner, name, watched)
        return names

    return watch


def steps_of(names, step):
    """Lists of what was called inside of each call of `step`."""
    found = []
    for name in names:
        if name == step:
            found.append([])
        elif name.startswith("["):
            found[-1].append(name.strip("[]"))
    return found


def test_a_run_of_the_vae(calls, tmp_path):
    """400 images in batches of 100, for 2 epochs; the encoder's refinement after them makes no step of the homework."""
    watched = [
        *((hw5_vae.VAE, name) for name in ("epochs", "step", "terms", "evaluate", "learning_rate")),
        *((hw5_vae.Encoder, name) for name in ("forward",)),
        *((hw5_vae.Decoder, name) for name in ("logits",)),
        *(
            (hw5_vae, name)
            for name in ("sample_diagonal_gaussian", "elbo_terms", "kl_estimate", "logpdf_diagonal_gaussian")
        ),
    ]
    names = calls(*watched, step="VAE.step")
    assert hw5_vae.main(small("hw5_vae", tmp_path / "run", "--refine_encoder", 1)) == 0
    assert names.count("VAE.epochs") == 1 and names.count("VAE.learning_rate") == 2
    assert names.count("VAE.evaluate") == 4, "after each of the three epochs, and at the end"
    steps = steps_of(names, "VAE.step")
    assert len(steps) == 2 * 4
    assert all(
        step
        == [
            "VAE.terms",
            "Encoder.forward",
            "hw5_vae.sample_diagonal_gaussian",
            "Decoder.logits",
            "hw5_vae.elbo_terms",
            "hw5_vae.kl_estimate",
            "hw5_vae.logpdf_diagonal_gaussian",
            "hw5_vae.logpdf_diagonal_gaussian",
        ]
        for step in steps
    )
    assert names.count("VAE.terms") >= 4 + 4, "of the refinement's four steps, and of the four evaluations"


@pytest.mark.parametrize("iter_d, iter_g", [(1, 1), pytest.param(2, 3, marks=pytest.mark.slow)])
def test_a_run_of_the_gan(calls, tmp_path, iter_d, iter_g):
    """400 images in batches of 32, 12 whole ones, for 2 epochs."""
    watched = [
        *((hw5_gan.GAN, name) for name in ("epochs", "step", "_get_loss_d", "_get_loss_g")),
        *((hw5_gan.GAN, name) for name in ("generate", "draw_epoch")),
        *((network, "forward") for network in (hw5_gan.DNet, hw5_gan.GNet)),
        *((hw5_gan, name) for name in ("discriminator_loss", "generator_loss")),
    ]
    names = calls(*watched, step="GAN.step")
    more = "--iter_d", iter_d, "--iter_g", iter_g
    assert hw5_gan.main(small("hw5_gan", tmp_path / "run", *more)) == 0
    assert names.count("GAN.epochs") == 1 and names.count("GAN.draw_epoch") == 3
    steps = steps_of(names, "GAN.step")
    assert len(steps) == 2 * 12
    of_d = ["GAN._get_loss_d", "GNet.forward", "DNet.forward", "DNet.forward", "hw5_gan.discriminator_loss"]
    of_g = ["GAN._get_loss_g", "GNet.forward", "DNet.forward", "hw5_gan.generator_loss"]
    assert all(step == iter_d * of_d + iter_g * of_g for step in steps)
    for name in ("GAN._get_loss_d", "GAN._get_loss_g", "hw5_gan.discriminator_loss", "hw5_gan.generator_loss"):
        assert name not in names, "outside of a step no loss is asked for"
    assert 0 < names.count("GAN.generate") <= names.count("GNet.forward"), "samples are of the same forward()"


def test_a_run_of_score_matching(calls, tmp_path, monkeypatch):
    """2 epochs of 100 steps; sampling follows the network too. Of the field few points are measured, for time."""
    grid = hw5_diffusion.ScoreMatching.grid
    monkeypatch.setattr(hw5_diffusion.ScoreMatching, "grid", lambda self, columns: grid(self, 10))
    watched = [
        *((hw5_diffusion.ScoreMatching, name) for name in ("epochs", "step", "denoising_loss", "score", "trajectory")),
        (hw5_diffusion.DiffusionModel, "forward"),
        *(
            (hw5_diffusion, name)
            for name in ("compute_denoising_loss", "perturb", "weighted_error", "langevin_dynamics")
        ),
    ]
    names = calls(*watched, step="ScoreMatching.step")
    assert hw5_diffusion.main(small("hw5_diffusion", tmp_path / "run")) == 0
    assert names.count("ScoreMatching.epochs") == 1
    steps = steps_of(names, "ScoreMatching.step")
    assert len(steps) == 2 * 100
    expected = ["perturb", "weighted_error"]
    for step in steps:
        assert step[:2] == ["ScoreMatching.denoising_loss", "hw5_diffusion.compute_denoising_loss"]
        assert sorted(step[2:]) == ["DiffusionModel.forward", *(f"hw5_diffusion.{name}" for name in expected)]
    assert names.count("ScoreMatching.trajectory") == names.count("hw5_diffusion.langevin_dynamics") == 1
    assert 10 * 2 + 1 <= names.count("ScoreMatching.score") <= names.count("DiffusionModel.forward")


SCRIPTS = {"hw5_vae": hw5_vae, "hw5_gan": hw5_gan, "hw5_diffusion": hw5_diffusion}
GRADED = {
    "hw5_vae": [(hw5_vae.VAE, "step"), (hw5_vae.VAE, "epochs"), (hw5_vae.VAE, "terms"), (hw5_vae.Decoder, "logits")],
    "hw5_gan": [
        (hw5_gan.GAN, "step"),
        (hw5_gan.GAN, "_get_loss_d"),
        (hw5_gan.GAN, "_get_loss_g"),
        (hw5_gan.DNet, "forward"),
        (hw5_gan.GNet, "forward"),
    ],
    "hw5_diffusion": [(hw5_diffusion.ScoreMatching, "step"), (hw5_diffusion.DiffusionModel, "forward")],
}


class Mine(Exception):
    """What a student's own function raises."""


@pytest.mark.parametrize(
    "script, owner, name", [(script, *function) for script, functions in GRADED.items() for function in functions]
)
def test_a_students_function_takes_the_place_of_ours(script, owner, name, monkeypatch, tmp_path):
    """Its exception comes through, with the student's own line: nothing has been computed past it."""

    def theirs(*_, **__):
        raise Mine

    monkeypatch.setattr(owner, name, theirs)
    with pytest.raises(Mine):
        SCRIPTS[script].main(small(script, tmp_path / "run"))


def test_every_graded_function_is_watched():
    """The names above are those of the scripts: none was renamed without this test."""
    for owner, name in itertools.chain(*GRADED.values()):
        assert callable(vars(owner)[name])
