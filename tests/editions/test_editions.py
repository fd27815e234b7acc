"""What all editions have in common, beside each other: sizes, bounds, data, rates, figures, flags, and no laboratory."""

import argparse
import inspect
import ast
import math

import pytest
import torch
from helpers import ROOT, SAMPLE
from plain import (
    assert_same_weights,
    sample,
    settings_of,
    small_diffusion,
    small_gan,
    small_vae,
    train,
    without_drawing,
    zero,
)

import hw5_vae
from hw5_lab import door
from hw5_lab.editions.hw8 import AnalyticVAE
from hw5_lab.fast.layers import fuse, speed_up

LOG2 = math.log(2)
VAES = list(door.SCRIPTS["hw5_vae"].editions)
GANS = list(door.SCRIPTS["hw5_gan"].editions)
DIFFUSIONS = list(door.SCRIPTS["hw5_diffusion"].editions)
editions = pytest.mark.parametrize("name", VAES)


def vae_class(name):
    return door.homework_class("hw5_vae", name)


# ---- VAE


@pytest.mark.parametrize(
    "name, latent, hidden, data",
    [
        ("cs446", 2, 500, 784),
        ("uva", 20, 500, 784),
        ("ese546", 8, 128, 196),
        ("hw8", 20, 400, 784),
        ("dynamic", 2, 500, 784),
    ],
)
def test_parameter_shapes(name, latent, hidden, data):
    model = vae_class(name)(argparse.Namespace())
    weights = {
        "encoder.fc1": (hidden, data),
        "encoder.fc2_mu": (latent, hidden),
        "encoder.fc2_sigma": (latent, hidden),
        "decoder.fc1": (hidden, latent),
        "decoder.fc2": (data, hidden),
    }
    expected = {f"{layer}.weight": shape for layer, shape in weights.items()}
    expected |= {f"{layer}.bias": shape[:1] for layer, shape in weights.items()}
    assert {parameter: tuple(value.shape) for parameter, value in model.named_parameters()} == expected


@pytest.mark.parametrize(
    "name, activation", [("cs446", torch.tanh), ("uva", torch.relu), ("ese546", torch.tanh), ("hw8", torch.relu)]
)
def test_activations(name, activation):
    model = vae_class(name)(argparse.Namespace(hidden_units=8))
    z, x = torch.randn(5, model.args.latent_dimension), torch.rand(5, model.args.data_dimension)
    h = activation(model.encoder.fc1(x))
    torch.testing.assert_close(model.encoder(x)[0], model.encoder.fc2_mu(h))
    scale = model.encoder.fc2_sigma(h)
    variance = torch.nn.functional.softplus(scale) ** 2 if name == "uva" else scale.exp()
    torch.testing.assert_close(model.encoder(x)[1], variance)
    torch.testing.assert_close(model.decoder.logits(z), model.decoder.fc2(activation(model.decoder.fc1(z))))
    torch.testing.assert_close(model.decoder(z), model.decoder.logits(z).sigmoid())


@editions
def test_zero_network(name):
    """p = 1/2 for every pixel, whatever x; q(z|x) = p(z) where the head is a log-variance, so that the KL is 0."""
    experiment = small_vae(name, limit=50)
    model, x = zero(experiment.homework), experiment.test_images
    log_p_x, kl = model.terms(x, model.fresh_rng())
    torch.testing.assert_close(log_p_x, torch.full((50,), -x.shape[1] * LOG2))
    variance = LOG2**2 if name == "uva" else 1.0  # softplus(0) = log 2
    expected = model.args.latent_dimension / 2 * (variance - 1 - math.log(variance))
    assert kl.mean().item() == pytest.approx(expected, abs=1e-5)


@editions
def test_both_estimators_agree_in_the_mean(name):
    """Eq. 1 and Eq. 2 on a fixed model, 4,000 draws for one image."""
    experiment = small_vae(name, limit=20)
    model, x = experiment.homework, experiment.test_images[:1].expand(4000, -1)
    log_p_x, kl = model.terms(x, model.fresh_rng())
    log_p_x_2, kl_2 = hw5_vae.VAE.terms(model, x, model.fresh_rng().manual_seed(77))
    exact = 0.5 * sum(part.sum(1) for part in (lambda mu, s: (s, mu**2, -1 - s.log()))(*model.encoder(x[:1])))
    for value in (log_p_x - kl, log_p_x_2 - kl_2):
        expected = torch.cat([log_p_x, log_p_x_2]).mean() - exact
        assert (value.mean() - expected).abs() < 5 * (value.std() + log_p_x.std()) / math.sqrt(4000)
    drawn = not issubclass(vae_class(name), AnalyticVAE)
    assert (kl_2.std() > 0.01) and (kl.std() > 0.01) == drawn, "Eq. 1 has the exact KL, Eq. 2 draws"


def test_images_of_every_edition(capsys):
    """The sample has 4,000 training images, 400 of each digit, and 1,000 test images."""
    homework = lambda name: vae_class(name)(argparse.Namespace())
    splits = {name: homework(name).read_data(data_dir=SAMPLE) for name in VAES}
    sizes = {name: {split: len(parts[0]) for split, parts in each.items()} for name, each in splits.items()}
    whole = {"train": 4000, "test": 1000}
    uva = {"train": 3334, "validation": 666, "test": 1000}
    assert sizes == {**dict.fromkeys(VAES, whole), "uva": uva}
    assert capsys.readouterr().err.count("\n") == 1, "fewer images per digit than asked: one line"
    for name, each in splits.items():
        for images, labels in each.values():
            assert images.shape[1] == settings_of("hw5_vae", name).data_dimension and labels.shape[1] == 10
            assert 0 <= images.min() and images.max() <= 1 and len(labels) == len(images)
            assert (labels.sum(1) == 1).all()


@editions
def test_test_images_are_those_of_the_test_files(name):
    """Also where another split is held out."""
    experiment = small_vae(name, limit=20)
    images, labels = experiment.homework.splits["test"]
    assert experiment.test_images is images and experiment.test_labels is labels


@pytest.mark.parametrize("name", ["uva", "ese546", "hw8", "dynamic"])
def test_train_size_holds_without_the_laboratory_too(name):
    splits = vae_class(name)(argparse.Namespace(train_size=50)).read_data(SAMPLE)
    assert [len(part) for part in splits["train"]] == [50, 50] and len(splits["test"][0]) == 1000
    assert name != "uva" or len(splits["validation"][0]) == 666


@editions
def test_the_first_images_are_the_same_in_every_edition(name):
    """Labels tell: they are those of the files, in their order; for validation the last sixth is put aside."""
    splits = vae_class(name)(argparse.Namespace()).read_data(data_dir=SAMPLE, size=1000)
    digits = splits["train"][1].argmax(1)
    labels = sample()[1].argmax(1)
    if name == "ese546":
        assert digits.bincount().tolist() == [100] * 10
    else:
        assert torch.equal(digits, labels[:1000])
    if name == "uva":
        assert torch.equal(splits["validation"][1].argmax(1), labels[3334:]), "`size` cuts the training images alone"
    assert torch.equal(splits["test"][1].argmax(1), sample()[3].argmax(1))


@pytest.mark.parametrize("name, constant", [("cs446", False), ("uva", True), ("ese546", True), ("hw8", True)])
def test_rates_are_constant_but_for_the_homeworks(name, constant):
    experiment, rates = small_vae(name, limit=40, num_epoches=4, lr=2e-3), []
    for _ in experiment.homework.epochs():
        rates.append(experiment.homework.optimizer.param_groups[0]["lr"])
    factors = [1, 1, 1, 1] if constant else [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]
    assert rates == pytest.approx([2e-3 * factor for factor in factors])


@pytest.mark.parametrize("name, epochs", [("uva", {0, 2, 4}), ("hw8", {1, 2, 3, 4}), ("ese546", {4}), ("cs446", set())])
def test_samples_at_the_epochs_that_the_edition_asks_for(name, epochs):
    experiment, saved = small_vae(name, limit=40, num_epoches=4), []
    experiment.homework.save = lambda figure, name: saved.append(name)
    train(experiment)
    assert saved == [f"samples_epoch_{epoch}.png" for epoch in sorted(epochs)]


slowly = lambda name: pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [slowly("uva"), "ese546", slowly("hw8")])
def test_every_edition_learns_draws_and_is_measured(name, tmp_path, monkeypatch):
    without_drawing(monkeypatch)
    experiment = small_vae(name, limit=300, num_epoches=3, iwae_samples=5)
    experiment.folder = tmp_path
    history = train(experiment)
    split = "validation" if name == "uva" else "test"
    assert experiment.columns[4] == f"{split}_elbo" and history[-1][f"{split}_elbo"] > history[0][f"{split}_elbo"]
    experiment.visualize()
    assert (tmp_path / "elbo.png").exists(), "the laboratory's curves come with every edition"
    metrics, findings = experiment.measure()
    log_p_x, kl = experiment.homework.evaluate(experiment.test_images)
    assert (metrics["test_elbo"], metrics["test_kl"]) == ((log_p_x - kl).mean().item(), kl.mean().item())
    assert len(experiment.summary({**metrics, "test_kl": 3.0})) == 3 and findings == {}


# ---- all scripts


def test_flags_override_the_edition():
    args = door.parse_args("hw5_vae", ["--edition", "uva", "--latent_dimension", "2"])
    assert (args.latent_dimension, args.num_epoches, args.batch_size, args.lr) == (2, 40, 128, 1e-3)
    args = door.parse_args("hw5_vae", ["--epochs", "3", "--edition=hw8"])
    assert (args.num_epoches, args.hidden_units, args.train_size) == (3, 400, 60_000)
    args = door.parse_args("hw5_gan", ["--edition", "uva", "--epochs", "7"])
    assert (args.n_epochs, args.zdim, args.batch_size, args.lr) == (7, 100, 64, 2e-4)
    args = door.parse_args("hw5_gan", ["--edition", "cs446-tuned", "--batch_size", "32"])
    assert (args.n_epochs, args.zdim, args.batch_size, args.lr) == (50, 64, 32, 1e-3)
    args = door.parse_args("hw5_diffusion", ["--edition", "s24", "--word", "AB"])
    assert (args.n_epochs, args.word, args.batch_size, args.lr) == (110, "AB", 400, 4e-3)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("cs446", (200, 100, 10_000)),
        ("uva", (40, 128, 50_000)),
        ("ese546", (50, 32, 10_000)),
        ("hw8", (30, 128, 60_000)),
        ("dynamic", (100, 100, 50_000)),
        ("dynamic-deep", (100, 100, 50_000)),
    ],
)
def test_default_settings(name, settings):
    args = settings_of("hw5_vae", name)
    assert (args.num_epoches, args.batch_size, args.train_size, args.lr) == (*settings, 1e-3)


@pytest.mark.parametrize("script, names", [("hw5_vae", VAES), ("hw5_gan", GANS), ("hw5_diffusion", DIFFUSIONS)])
def test_a_homework_alone_has_the_settings_of_its_edition(script, names):
    """What the class says when nobody asks the command line is what the command line says."""
    for name in names:
        homework, args = door.homework_class(script, name), vars(settings_of(script, name))
        if script == "hw5_gan":
            assert {setting: args[setting] for setting in homework.defaults} == homework.defaults
            gan, trained = homework(), inspect.signature(homework.train).parameters
            in_training = {name: parameter.default for name, parameter in trained.items() if name != "self"}
            assert {name: args[name] for name in in_training} == in_training
            assert {name: getattr(gan, name) for name in in_training} == in_training and gan._zdim == args["zdim"]
        else:
            alone = vars(homework(argparse.Namespace()).args)
            assert {setting: args[setting] for setting in alone} == alone


# ---- no laboratory


@pytest.mark.parametrize("path", sorted((ROOT / "hw5_lab" / "editions").glob("*.py")), ids=lambda path: path.name)
def test_editions_import_nothing_of_the_laboratory(path):
    """But other editions; and no script but their own."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what they name"
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names if node.module == "hw5_lab"}
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    laboratory = {name for name in found if name.split(".")[0] == "hw5_lab"}
    assert all(name.startswith("hw5_lab.editions.") for name in laboratory), laboratory
    scripts = found & {"hw5_vae", "hw5_gan", "hw5_diffusion"}
    assert len(scripts) == (0 if path.name in ("__init__.py", "dynamic_deep.py") else 1), scripts


def alone(script, name, args, experiment):
    """An edition's homework without the laboratory, on the data of this experiment."""
    torch.manual_seed(args.seed)
    homework = door.homework_class(script, name)
    if script == "hw5_gan":
        gan = homework(args.zdim, args.seed)
        gan.train_images = experiment.homework.train_images
        return gan
    homework = homework(args)
    if script == "hw5_vae":
        homework.splits = experiment.homework.splits
    return homework


SMALL = {
    "hw5_vae": lambda name: small_vae(name, limit=100, num_epoches=3, lr=1e-3),
    "hw5_gan": lambda name: small_gan(name),
    "hw5_diffusion": lambda name: small_diffusion(name, n_epochs=1, batch_size=4, samples=5, langevin_steps=1),
}
FIGURES = {  # of our own editions; another one draws what it likes
    ("hw5_vae", "cs446"): {"data_space", "latent_space", "inter_class_interpolation"},
    ("hw5_vae", "uva"): {"samples_epoch_0", "samples_epoch_1", "samples_epoch_3"},
    ("hw5_vae", "ese546"): {"samples_epoch_3", "updates", "reconstructions"},
    ("hw5_vae", "hw8"): {"samples_epoch_1", "samples_epoch_2", "samples_epoch_3"},
    ("hw5_vae", "dynamic"): {"data_space", "latent_space", "inter_class_interpolation"},
    ("hw5_vae", "dynamic-deep"): {"data_space", "latent_space", "inter_class_interpolation"},
    ("hw5_gan", "cs446"): {"goal", "samples_epoch_0", "samples_epoch_1", "samples_epoch_2"},
    ("hw5_gan", "cs446-tuned"): {"goal", "samples_epoch_0", "samples_epoch_1", "samples_epoch_2"},
    ("hw5_gan", "uva"): {"goal", "samples_epoch_0", "samples_epoch_1", "samples_epoch_2", "interpolation"},
    ("hw5_diffusion", "cs446"): {"data", "score_field", "samples", "trajectories"},
    ("hw5_diffusion", "s24"): {"data", "score_field", "samples", "trajectories"},
}


QUICK = {("hw5_vae", "ese546"), ("hw5_gan", "uva")}  # all others are slow
EDITIONS = [(script, name) for script, each in door.SCRIPTS.items() for name in each.editions]


@pytest.mark.parametrize(
    "script, name", [pytest.param(*each, marks=[] if each in QUICK else [pytest.mark.slow]) for each in EDITIONS]
)
def test_every_edition_trains_and_draws_alone_as_in_the_laboratory(script, name, tmp_path, monkeypatch, capsys):
    """train() and visualize() of the homework itself: the weights of a run, a line per epoch, its own figures."""
    without_drawing(monkeypatch)
    experiment = SMALL[script](name)
    train(experiment)
    homework = alone(script, name, experiment.args, experiment)
    homework.folder = tmp_path
    args = experiment.args
    if script == "hw5_gan":  # Adam is made by train()
        set_up = homework.set_up
        monkeypatch.setattr(
            homework, "set_up", lambda *given: set_up(*given) or fuse(homework.optim_d, homework.optim_g)
        )
        speed_up(homework.disc, homework.gen)
        homework.train(args.iter_d, args.iter_g, args.n_epochs, args.batch_size, args.lr)
        networks = "disc", "gen"
    else:
        fuse(*(homework.optimizers if script == "hw5_diffusion" else [homework.optimizer]))
        homework.train()
        networks = ("network",) if script == "hw5_diffusion" else ("encoder", "decoder")
    for network in networks:
        assert_same_weights(getattr(homework, network), getattr(experiment.homework, network))
    assert capsys.readouterr().out.count("\n") == experiment.epochs
    homework.visualize()
    drawn = {path.stem for path in tmp_path.iterdir()}
    assert drawn == FIGURES.get((script, name), drawn)
