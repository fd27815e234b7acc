"""explore.html as a file: what a run leaves, what stands in it, and what it says of networks that it cannot run."""

import copy
import io
import math
import re
import shlex
import time

import matplotlib
import numpy as np
import pytest
import torch
from pages import LARGEST, MODELS, a_figure, a_run, describe, kind_of, make_diffusion, make_gan, make_vae, page_of
from PIL import Image
from torch import nn

import hw5_vae

from hw5_lab.page import explore
from hw5_lab.page.describe import MOST, describe_gan, describe_vae
from hw5_lab.page.layers import CannotRun, restored, run
from hw5_lab.runs.folder import FIGURE
from helpers import MODULES, ROOT, blank, each, small

KEPT = {"command": "python hw5.py", "seed": 0, "data": "10,000 images of MNIST"}


def test_the_same_run_writes_the_same_bytes():
    made = make_vae()
    first, second = (
        explore.page("vae", explore.description(made.experiment, made.findings), a_run()) for _ in range(2)
    )
    assert first == second


def test_a_page_tells_neither_folders_nor_times():
    command = [
        "python",
        "hw5_vae.py",
        "--data_dir=/home/Grete/mnist",
        "--output_dir",
        "C:\\Users\\Grete\\my out",
        "--epochs",
        "3",
        "--e_path",
        "../e.pt",
    ]
    text = page_of("vae", command=shlex.join(command))
    assert "python hw5_vae.py --data_dir=mnist --output_dir &#x27;my out&#x27; --epochs 3 --e_path ../e.pt" in text
    assert "/home/" not in text and "Grete" not in text
    two = "python hw5_vae.py --output_dir /a/b --epochs 1; python hw5_vae.py --resume --epochs 2"
    assert explore.without_folders(two) == two.replace("/a/b", "b"), "a run that was extended"
    assert '"seconds"' not in text, "times differ from run to run: the same run would write other bytes"


@pytest.mark.slow
@blank
@each
def test_a_run_leaves_a_page_and_evaluate_the_same(name, tmp_path):
    main, line = MODULES[name].main, small(name, tmp_path / "run", "--epochs", 1)
    assert main(line) == 0
    page = (tmp_path / "run" / "explore.html").read_bytes()
    (tmp_path / "run" / "explore.html").write_text("another")
    assert main([*line, "--evaluate"]) == 0
    assert (tmp_path / "run" / "explore.html").read_bytes() == page
    assert str(tmp_path).encode() not in page and b"data:image/png" in page and b'"model":{' in page


@pytest.mark.parametrize("data, task", [("10,000 images of MNIST", "a digit"), ("5 of the images of /a", "an image")])
def test_a_page_knows_by_the_run_whether_its_data_are_digits(data, task, tmp_path):
    explore.write_explore(make_vae().experiment, {}, {**KEPT, "data": data}, tmp_path, {})
    assert f"Draw {task}, then add a stroke" in (tmp_path / "explore.html").read_text(encoding="utf-8")


def test_a_page_shows_all_grids_of_a_single_epoch(tmp_path):
    for name in ("samples_epoch_0.png", "samples_epoch_0.5.png", "samples_epoch_1.png"):
        (tmp_path / name).write_bytes(a_figure())
    explore.write_explore(make_gan().experiment, {}, KEPT, tmp_path, {})
    page = (tmp_path / "explore.html").read_text(encoding="utf-8")
    found = re.findall(r'alt="Samples after epoch ([\d.]+)"', page)
    assert found == ["1", "0.5", "0"], "from the last to the first"


def test_a_page_is_replaced_at_once(tmp_path):
    path = tmp_path / "explore.html"
    path.write_text("old")
    explore.write_explore(make_diffusion().experiment, {}, KEPT, tmp_path, {})
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [each.name for each in tmp_path.iterdir()] == ["explore.html"], "a half-written file was left"


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_page_has_the_size_that_it_may_have(name):
    kind = kind_of(name)
    assert len(page_of(name)) < LARGEST[kind] - explore.FIGURES[kind], "with the largest figures the page is too large"


# ---- any network of a student's


class Deep(nn.Module):
    """A decoder with a third layer, ReLU and dropout, and no logits()."""

    def __init__(self, latent, hidden, data):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.ReLU(),
            nn.BatchNorm1d(hidden),
            nn.Linear(hidden, hidden),
            nn.Dropout(),
            nn.Tanh(),
        )
        self.last = nn.Linear(hidden, data)

    def forward(self, z):
        return self.last(self.layers(z)).sigmoid()


class Convolutional(nn.Module):
    """A decoder that does not end with a linear layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 8 * 49)
        self.a, self.b = nn.ConvTranspose2d(8, 4, 4, 2, 1), nn.ConvTranspose2d(4, 1, 4, 2, 1)

    def logits(self, z):
        return self.b(torch.relu(self.a(torch.relu(self.first(z)).view(-1, 8, 7, 7)))).flatten(1)

    def forward(self, z):
        return torch.sigmoid(self.logits(z))


class Liar(hw5_vae.Decoder):
    """A forward that its author changed, and logits() that they forgot."""

    def forward(self, z):
        return torch.sigmoid(2 * self.logits(z) + 1)


class Gaussian(nn.Linear):
    """A decoder without a sigmoid at its end."""

    def __init__(self):
        super().__init__(2, 784)

    def forward(self, z):
        return (super().forward(z) / 10).clamp(0, 1)


def vae_with(decoder):
    """The experiment of a VAE whose decoder was exchanged, as a student might, with random weights."""
    experiment, vae = copy.copy(make_vae().experiment), copy.copy(make_vae().homework)
    object.__setattr__(vae, "_modules", {**vae._modules, "decoder": decoder})
    object.__setattr__(vae, "terms", lambda x, generator: (None, torch.zeros(len(x))))  # it asks for decoder.logits
    experiment.homework = vae
    return experiment


@pytest.mark.parametrize("decoder", [Deep(2, 30, 784), pytest.param(Convolutional(), marks=pytest.mark.slow)])
def test_a_changed_decoder_is_described_as_it_is(decoder):
    described = describe_vae(vae_with(decoder.train()), {})["model"]
    z = torch.randn(9, 2)
    with torch.no_grad():
        expected = decoder.eval()(z)
    assert (run(described["decoder"], z)[0].sigmoid() - expected).abs().max() < 0.01
    assert len(described["grid"]["sums"]) == described["grid"]["points"] ** 2


@pytest.mark.parametrize(
    "decoder, reason",
    [
        (nn.Sequential(nn.Linear(2, 784), nn.GELU(), nn.Sigmoid()), "The decoder: the page has no step gelu."),
        (Liar(2, 30, 784), r"The decoder: sigmoid\(logits\(z\)\) is not what it gives itself."),
        (Gaussian(), "The decoder: it ends with clamp, and the page needs a sigmoid there."),
        (Deep(2, 8000, 784), f"The networks have .* weights, and a page holds {MOST:,} at most."),
        (nn.Linear(3, 784), "RuntimeError: .*shapes"),
    ],
)
def test_a_network_that_no_page_can_run_is_said_and_figures_stay(decoder, reason, tmp_path, capsys):
    (tmp_path / "samples.png").write_bytes(a_figure())
    explore.write_explore(vae_with(decoder), {"test_elbo": -150.0}, KEPT, tmp_path, {})
    text = (tmp_path / "explore.html").read_text(encoding="utf-8")
    assert re.search(f"This page cannot run the networks of this run. {reason}", text)
    assert '"model":null' in text and 'alt="Samples"' in text and "−150" in text
    said = capsys.readouterr().err
    assert ("explore.html shows no model" in said) == reason.startswith("Runtime"), (
        "a surprise is said in the terminal too"
    )


def test_numbers_that_are_not_finite_are_no_page(tmp_path, capsys):
    decoder = Convolutional()
    decoder.b.bias.data[:] = math.nan
    explore.write_explore(vae_with(decoder), {}, KEPT, tmp_path, {})
    assert "The decoder: " in (tmp_path / "explore.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_wide_network_gets_a_coarser_grid():
    """What the page computes for each grid stays the same work, whatever --hidden_units."""
    wide = hw5_vae.Decoder(2, 2000, 784), Deep(2, 400, 784), Convolutional()
    sizes = [describe_vae(vae_with(decoder), {})["model"]["grid"]["points"] for decoder in wide]
    assert sizes[0] == 88, "16 million hidden units at most"
    assert sizes[1] == 78, "a billion products at most"
    assert 60 < sizes[2] < 128


def test_a_figure_keeps_the_hues_of_all_classes(tmp_path):
    """Points of ten colours, one class a hundred times rarer than another. The two most alike differ by 106."""
    figure = hw5_vae.new_figure(7, 6)
    rng = np.random.default_rng(0)
    labels = rng.choice(10, 4000, p=[0.5, 0.2, 0.1, 0.07, 0.05, 0.03, 0.02, 0.015, 0.01, 0.005])
    figure.subplots().scatter(*rng.normal(size=(2, 4000)), s=3, c=labels, cmap="tab10", vmin=0, vmax=9)
    figure.savefig(tmp_path / "a.png", dpi=120)
    kept = Image.open(io.BytesIO(explore.smaller((tmp_path / "a.png").read_bytes()))).convert("RGB")
    colours = np.array(kept).reshape(-1, 3).astype(int)
    wanted = (255 * np.array(matplotlib.colormaps["tab10"].colors)).astype(int)
    nearest = np.abs(colours[:, None] - wanted).sum(2)
    for colour, distance in enumerate(nearest.min(0)):
        assert distance < 50, f"the colour of class {colour} is lost: the nearest differs by {distance}"


def student_gan(**networks):
    """What a page needs of the homework's GAN with other networks in it."""
    experiment, gan = copy.copy(make_gan().experiment), copy.copy(make_gan().homework)
    for name, network in networks.items():
        setattr(gan, name, network)
    experiment.homework, experiment.record = gan, {"history": [], "snapshots": [], "best": None}
    return describe_gan(experiment, {})["model"]


def test_a_student_s_gan_is_described_as_it_is():
    gen = nn.Sequential(
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Unflatten(1, (2, 8, 8)),
        nn.Upsample(scale_factor=4),
        nn.Conv2d(2, 1, 5),
        nn.Sigmoid(),
    )
    described, z = student_gan(gen=gen), torch.randn(3, 64)
    with torch.no_grad():
        assert (run(described["generator"], z)[0] - gen(z)).abs().max() < 0.01


def test_directions_of_a_generator_that_first_reshapes_or_convolves_its_noise():
    linear = nn.Linear(64, 784)
    reshaped = nn.Sequential(nn.Flatten(), linear, nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28)))
    convolved = nn.Sequential(nn.Unflatten(1, (64, 1, 1)), nn.Upsample(scale_factor=28), nn.Conv2d(64, 1, 1))
    first = torch.from_numpy(student_gan(gen=reshaped)["directions"][0])
    assert (linear.weight @ first).norm().item() == pytest.approx(
        torch.linalg.matrix_norm(linear.weight, 2).item(), rel=1e-3
    )
    assert student_gan(gen=convolved)["directions"].shape == (0, 64)


def test_a_discriminator_that_ends_with_a_sigmoid_is_shown_by_its_logits():
    disc = nn.Sequential(nn.Flatten(), nn.Linear(784, 1))
    x = torch.rand(5, 1, 28, 28)
    for network in (disc, nn.Sequential(disc, nn.Sigmoid())):
        found = run(student_gan(disc=network)["discriminator"], x)[0]
        torch.testing.assert_close(found.float(), disc(x).detach(), atol=2e-2, rtol=1e-2)
    with pytest.raises(CannotRun, match="several numbers for an image"):
        student_gan(disc=nn.Sequential(nn.Flatten(), nn.Linear(784, 2)))


@pytest.mark.parametrize("edition, exact", [("cs446", False), ("hw8", True)])
def test_curves_of_an_estimated_kl_say_so(edition, exact):
    told = describe({"cs446": "vae", "hw8": "gray"}[edition])["told"]
    assert ("KL is an estimate" in told) != exact


# ---- what stands in the page


def test_a_byte_for_each_weight_changes_little():
    """The bound stated for edition uva: pixels within 0.05 of 1 in the mean, logits of D within 0.1."""
    model, described, z = make_gan("uva"), describe("dense")["model"], torch.randn(200, 100)
    assert describe("dense")["small"] and not describe("gan")["small"]
    with torch.no_grad():
        expected = model.gen.eval()(z)
        kept = run(described["generator"], z)[0]
        assert (kept - expected).abs().mean() / 2 < 0.05
        assert (run(described["discriminator"], kept)[0] - model.disc.eval()(expected)).abs().mean() < 0.1


def test_figures_beyond_the_room_and_damaged_ones_are_named():
    room = 1.5 * len(explore.base64_text(explore.smaller(a_figure())))
    figures = [("cut.png", a_figure()[:40]), ("text.png", b"text"), ("a.png", a_figure()), ("b.png", a_figure())]
    text = explore.figures_list(figures, room)
    assert text.count("<img") == 1 and "cut.png, text.png, b.png" in text


def test_gaps_are_those_of_gap_png():
    model, gaps = make_vae(), describe("vae")["model"]["gaps"]
    gap = make_vae().findings["gap"]
    worst = gap.argsort(descending=True)[:10]
    assert torch.equal(torch.from_numpy(gaps["images"]).float(), model.test_images[worst])
    assert gaps["labels"] == model.test_labels[worst].argmax(1).tolist()
    assert sum(gaps["counts"]) == len(model.test_images)
    assert math.isclose(gaps["high"], gap.max().item(), rel_tol=1e-5)


def drawn(experiment, draw):
    """The figure that draw(experiment) saves."""
    experiment, saved = copy.copy(experiment), []
    object.__setattr__(experiment, "save", lambda figure, name: saved.append(figure))
    draw(experiment)
    saved[0].draw_without_rendering()
    return saved[0]


def test_axes_of_epochs_count_whole_ones():
    vae, gan = copy.copy(make_vae().experiment), copy.copy(make_gan().experiment)
    parts = [f"{split}_{part}" for split in ("train", vae.held_out) for part in ("elbo", "reconstruction", "kl")]
    for experiment, names in ((vae, parts), (gan, gan.shown)):
        experiment.record = {"history": [{"epoch": epoch, **dict.fromkeys(names, 0.5)} for epoch in (1, 2)]}
        for axes in drawn(experiment, lambda it: it.visualize_history()).axes:
            assert all(tick == round(tick) for tick in axes.get_xticks())


def test_the_legend_of_the_shares_covers_no_bar():
    shares = torch.full((2, 10), 0.05)
    shares[0, 1], shares[0, 3], shares[1, 5], shares[0, 8] = 0.15, 0.24, 0.2, 0.25
    findings = {"shares": shares, "pictures": torch.zeros(2, 20, 1, 28, 28)}
    figure = drawn(make_gan().experiment, lambda it: it.visualize_findings(findings))
    legend = figure.axes[0].get_legend().get_window_extent()
    assert not any(legend.overlaps(bar.get_window_extent()) for bar in figure.axes[0].patches)


def test_captions_say_what_the_figures_say():
    source = (ROOT / "hw5_vae.py").read_text(encoding="utf-8")
    assert f'set_title("{explore.caption("latent_space.png")}")' in source
    shown = explore.caption("quality.png").lower()
    assert "shares of the classes" in shown and "nearest training images" in shown and "epoch" not in shown


def test_only_figures_of_the_run_get_into_the_page(tmp_path):
    for name in ("holiday.png", "samples_epoch_20.png", "data.png"):
        (tmp_path / name).write_bytes(a_figure())
    explore.write_explore(make_diffusion().experiment, {}, KEPT, tmp_path, {})
    page = (tmp_path / "explore.html").read_text(encoding="utf-8")
    assert "holiday" not in page and 'alt="Samples after epoch 20"' in page and 'alt="The training data"' in page
    sources = [*ROOT.glob("hw5_*.py"), *(ROOT / "hw5_lab").rglob("*.py")]
    saved = {name for path in sources for name in re.findall(r'save\(.*"([\w{}]+\.png)"', path.read_text())}
    assert len(saved) > 10
    assert [name for name in saved if not FIGURE.fullmatch(name.replace("{epoch}", "20"))] == [], "not in FIGURE"
    assert [name for name in saved if explore.caption(name.replace("{epoch}", "20")).endswith(".png")] == [], "no words"


def test_the_last_samples_are_the_first_figure():
    names = ["goal.png", "samples_epoch_100.png", "samples_epoch_20.png", "samples_epoch_3.png"]
    ordered = ["samples_epoch_100.png", "goal.png", "samples_epoch_20.png", "samples_epoch_3.png"]
    assert explore.in_order(names) == ordered


def test_draws_of_a_bound_are_shown_beside_that_bound_alone():
    both = {"iwae_samples": 100, "test_importance_weighted_bound": -140.0}
    shown = [explore.metrics_list(metrics, explore.GLOSSES["vae"]) for metrics in (both, {"iwae_samples": 100})]
    assert "iwae_samples" in shown[0] and "iwae_samples" not in shown[1]


def test_numbers_have_units_and_the_digits_that_their_errors_leave():
    metrics = {
        "test_elbo": -152.99926,
        "test_elbo_stderr": 0.6431,
        "test_kl": 6.779747,
        "precision": 0.503,
        "loss_d": 0.61,
    }
    found = {name: explore.with_unit(name, metrics) for name in metrics}
    assert [found[name] for name in ("test_elbo", "test_kl", "precision", "loss_d")] == [
        "−153.0 ± 0.6 nats",
        "6.78 nats",
        "50.3%",
        "0.61",
    ]


def test_a_page_begins_with_an_image_that_is_reconstructed_well():
    vae, described = make_vae(), describe("vae")["model"]
    x = vae.test_images[:50]
    missed = (vae.decoder(vae.encoder(x)[0]) - x).abs().sum(1) / x.sum(1)
    missed[vae.test_labels[:50].argmax(1) == 1] = math.inf
    assert missed[described["start"]] == missed.min()


def test_main_numbers_have_readable_names_and_others_are_left_out():
    page = page_of("vae")
    assert "<dt>ELBO of test images <small>test_elbo</small></dt>" in page and "cosine_0.1" not in page
    assert "look real" not in page_of("gan"), "noise can have a high precision"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wide vae", "wide gan", "wide diffusion"])
def test_a_page_is_written_in_a_moment(name, tmp_path):
    """A loose bound in s, for a machine under load. At rest it is less than one second."""
    model = MODELS[name]()
    start = time.perf_counter()
    explore.write_explore(model.experiment, {}, KEPT, tmp_path, model.findings)
    took = time.perf_counter() - start
    print(f"{name}: {took:.2f} s")
    assert took < 8


def test_packed_arrays_keep_their_values():
    for array in (np.float16([1, -2.5]), np.float32([[0.1], [3]]), np.uint8([0, 255]), np.array([True, False] * 5)):
        packed = explore.pack({"of": [array]})["of"][0]
        assert list(packed["shape"]) == list(array.shape) and len(packed["data"]) >= 4
    assert restored(np.float16([1.5])).item() == 1.5


def test_comments_are_left_out_and_nothing_else():
    text = explore.without_comments("// z\n/** A\n *  b */\nx = 1; // c\n\n  y = a / b / c;\n* { color: red; }\n")
    assert text == "x = 1;\ny = a / b / c;\n* { color: red; }"
