"""hw5_lab/gan: the homework's training, what is kept of it, and how good its samples are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SAMPLE
from plain import assert_same_weights, small_gan, train, zero
from torch import nn

import hw5_gan
import hw5_utils as utils
from hw5_gan import tile
from hw5_lab.checkpoint import Difference
from hw5_lab.evaluator import Evaluator, frechet_distance, in_unit
from hw5_lab.gan import LabGAN, weights_of

# ---- it is the homework's GAN


@pytest.mark.parametrize("settings", [{}, dict(iter_d=2, iter_g=3, lr=1e-3, zdim=9, seed=5)])
def test_an_epoch_gives_the_weights_of_the_homework_alone(settings):
    gan = small_gan(**settings)
    alone = hw5_gan.GAN(gan.args.zdim, gan.args.seed)
    alone.train_images = torch.tensor(utils.mnist(SAMPLE)[0][:96]).unsqueeze(1)
    alone.prepare(gan.args.iter_d, gan.args.iter_g, 32, gan.args.lr)
    for epoch in range(2):
        row = alone.train_epoch(epoch)
        ours = gan.run_epoch(epoch, lambda: None)
        gan.record["history"].append({"epoch": epoch + 1, **ours})
        assert {name: ours[name] for name in row} == row
    for network in ("disc", "gen"):
        assert_same_weights(getattr(alone, network), getattr(gan, network))
    assert torch.equal(alone.noise.get_state(), gan.noise.get_state()), "measuring draws its own noise"
    assert torch.equal(alone.fixed_z, gan.fixed_z), "and shows the same samples"


def test_history_has_a_row_for_each_epoch():
    gan = small_gan()
    history = train(gan)
    assert [row["epoch"] for row in history] == [1, 2] and all(tuple(row) == gan.columns for row in history)


def test_data_are_cut_to_the_limit():
    gan, whole = small_gan(limit=30), utils.mnist(SAMPLE)
    for ours, theirs in zip(gan.data, whole):
        np.testing.assert_array_equal(ours.numpy().squeeze(), theirs[:30])
    assert torch.equal(gan.train_images, gan.data[0]) and len(small_gan(limit=None).train_images) == 4000
    assert gan.data[0].dtype == torch.uint8 and gan.data[1].dtype == torch.long


# ---- how good samples are


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A GAN with an evaluator that has learned the digits of the sample."""
    gan = small_gan(folder=tmp_path_factory.mktemp("judged"), limit=None)
    assert gan.evaluator.path == gan.folder / "classifier.pt"
    gan.get_ready()
    assert gan.evaluator.ready and gan.evaluator.path.exists(), "ready before the first epoch"
    return gan


class Copies(nn.Module):
    """A generator that hands out these images in turn."""

    def __init__(self, images):
        super().__init__()
        self.images = nn.Parameter(images)

    def forward(self, z):
        return self.images[torch.arange(len(z)) % len(self.images)]


def measured(gan, images):
    """What measure() says of a generator of `images`."""
    other = small_gan(folder=gan.folder, limit=None)
    other.data, other.evaluator, other.gen = gan.data, gan.evaluator, Copies(images)
    return other.measure()


def test_collapsed_and_memorising_generators_are_exposed(judged):
    images, digits, _, _ = judged.data
    real = in_unit(images)
    perfect, one, copied = (measured(judged, copies) for copies in (real[:2000], real[5:6], real[:2000] + 1e-6))
    assert perfect["frechet_distance"] < 3 * perfect["frechet_distance_real"], "real images are as good as real images"
    assert perfect["precision"] > 0.7 and perfect["recall"] > 0.7
    assert perfect["inception_score"] > 0.8 * perfect["inception_score_real"]
    shares = [perfect[f"share_{digit}"] for digit in range(10)]
    assert sum(shares) == pytest.approx(1) and min(shares) > 0.05
    assert one["frechet_distance"] > 20 * perfect["frechet_distance"] and one["recall"] < 0.01 and one["precision"] == 1
    assert one["inception_score"] == pytest.approx(1, abs=1e-3) and one[f"share_{digits[5]}"] == 1
    assert copied["nearest_distance"] < 0.1 < copied["nearest_distance_real"], "nothing but training images"
    assert perfect["classifier_accuracy"] > 0.9 and (judged.folder / "quality.png").exists()


def test_what_chooses_the_best_epoch_is_not_what_is_reported():
    """No noise of look() comes again in measure(), nor in the samples that figures show."""
    gan, seen = small_gan(limit=300), []
    generate = gan.generate
    gan.generate = lambda z, gen=None: seen.append(z.clone()) or generate(z, gen)
    gan.get_ready()
    gan.look()
    (choosing,) = seen
    seen.clear()
    gan.measure()
    reported = torch.cat(seen)
    assert choosing.shape == (300, 64) and reported.shape == (600, 64)
    assert torch.equal(*seen), "the best and the last generator are compared on the same noise"
    assert torch.cdist(choosing, reported).min() > 0.1, "noise that chose the epoch flatters it: REPORT must differ"
    assert torch.cdist(gan.fixed_z, torch.cat([choosing, reported])).min() > 0.1


def test_the_distance_of_an_epoch_is_to_the_training_images(judged):
    """With as many samples as training images, here the first thousand over and over."""
    real, judge = in_unit(judged.data[0][:1000]), judged.evaluator
    other = small_gan(limit=None)
    other.data, other.evaluator, other.gen = judged.data, judge, Copies(real)
    expected = frechet_distance(judge.look(real)[0], judge.train_features)
    assert other.look()["frechet_train"] == pytest.approx(expected.item(), rel=1e-6)


def test_the_best_epoch_is_kept_without_a_look_at_the_test_images(tmp_path):
    runs = []
    for blind in (False, True):
        gan = small_gan(folder=tmp_path / str(blind), limit=160, n_epochs=4, lr=3e-3)
        gan.folder.mkdir()
        if blind:
            gan.data[2].zero_(), gan.data[3].zero_()
        gan.get_ready()
        kept, history = {}, gan.record["history"]
        for epoch in range(4):
            row = gan.run_epoch(epoch, lambda: None)
            kept[row["frechet_train"]] = weights_of(gan.gen)
            history.append({"epoch": epoch + 1, **row})
        best, in_file = gan.record["best"], torch.load(gan.folder / "best.pt", weights_only=True)
        assert best["frechet_train"] == min(kept), "the smallest distance to the training images"
        assert best["epoch"] == 1 + [row["frechet_train"] for row in history].index(min(kept))
        assert {**best, "gen": None} == {**in_file, "gen": None}
        for name, value in kept[min(kept)].items():
            assert torch.equal(best["gen"][name], value) and torch.equal(in_file["gen"][name], value)
        runs.append(best["frechet_train"])
    assert runs[0] == runs[1], "the test images must not choose the epoch"


def test_the_best_generator_is_measured():
    gan = small_gan(n_epochs=1)
    row = train(gan)[0]
    before = weights_of(gan.gen)
    metrics = gan.measure()
    assert metrics["best_epoch"] == 1 and metrics["loss_d"] == row["loss_d"] and len(gan.summary(metrics)) == 4
    assert all(torch.equal(value, before[name]) for name, value in weights_of(gan.gen).items()), "measuring trains"
    assert metrics["frechet_distance"] == metrics["frechet_distance_last"]
    nn.init.zeros_(gan.gen.conv3.weight)
    again = gan.measure()
    assert again["frechet_distance"] == metrics["frechet_distance"], "what is measured is the best generator"
    assert again["frechet_distance_last"] != metrics["frechet_distance_last"]


def test_samples_that_are_not_finite_stop():
    gan = small_gan()
    gan.get_ready()
    nn.init.constant_(gan.gen.conv3.bias, torch.nan)
    with pytest.raises(FloatingPointError, match="samples of G are not finite; try a smaller --lr"):
        gan.look()
    assert gan.record["best"] is None


# ---- what is kept of the training


def test_snapshots_are_the_generator_as_it_was():
    gan, kept = small_gan(n_epochs=5, limit=32), {}
    gan.get_ready()
    for epoch in range(1, 6):
        gan.record["history"].append({"epoch": epoch, **gan.run_epoch(epoch - 1, lambda: None)})
        gan.after_epoch(epoch)
        kept[epoch] = {name: value.clone() for name, value in gan.gen.state_dict().items()}
    assert [epoch for epoch, _ in gan.record["snapshots"]] == [1, 2, 3, 5] == sorted(gan.snapshot_epochs)
    for epoch, weights in gan.record["snapshots"]:
        assert weights.keys() == kept[epoch].keys()
        for name, value in weights.items():
            assert torch.equal(value, kept[epoch][name]), f"snapshot of epoch {epoch}: a later generator's weights"


@pytest.mark.parametrize("epochs, expected", [(1, {1}), (3, {1, 2, 3}), (100, {3, 11, 25, 44, 69, 100})])
def test_snapshots_are_closer_together_in_the_beginning(epochs, expected):
    assert small_gan(n_epochs=epochs).snapshot_epochs == expected


def test_frames_are_the_samples_after_each_epoch():
    gan = small_gan()
    train(gan)
    assert len(gan.record["frames"]) == 2 and gan.record["frames"][0].shape == gan.grid_shape == (245, 245)
    grid = tile(gan.generate(gan.fixed_z))
    assert torch.equal(gan.record["frames"][1], torch.from_numpy(grid * 255).to(torch.uint8))
    assert not torch.equal(*gan.record["frames"])


def test_a_record_is_accepted_as_it_is_and_refused_where_it_is_another():
    gan = small_gan()
    train(gan)
    record = gan.record
    gan.check_record(record)
    best, snapshots = record["best"], record["snapshots"]
    for name, value in {"frames": record["frames"][:1], "snapshots": snapshots[:1], "best": None}.items():
        with pytest.raises(Difference):
            gan.check_record({**record, name: value})
    for name, value in {"epoch": 3, "frechet_train": torch.nan, "gen": {}}.items():
        with pytest.raises(Difference):
            gan.check_record({**record, "best": {**best, name: value}})
    with pytest.raises(Difference, match="snapshots/1/0 is 7, not 2"):
        gan.check_record({**record, "snapshots": [snapshots[0], (7, snapshots[1][1])]})


# ---- figures


def test_samples_are_drawn_every_ten_epochs_and_at_the_end(tmp_path):
    gan = small_gan(folder=tmp_path, limit=32, n_epochs=12)
    train(gan)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "goal.png",
        "samples_epoch_10.png",
        "samples_epoch_12.png",
    }


def test_looking_moves_no_random_numbers_of_training(tmp_path):
    gan = small_gan(folder=tmp_path)
    gan.get_ready()
    before = [gan.shuffle.get_state(), gan.noise.get_state(), torch.get_rng_state()]
    gan.visualize_samples(1), gan.visualize_goal(), gan.look(), gan.measure()
    after = [gan.shuffle.get_state(), gan.noise.get_state(), torch.get_rng_state()]
    assert all(map(torch.equal, before, after))


def test_figures_of_the_history(tmp_path):
    gan = small_gan(folder=tmp_path)
    history = train(gan)
    gan.visualize()
    assert gan.visualize_history() is history
    assert {"losses.png", "training.gif", "best.pt", "classifier.pt"} <= {path.name for path in tmp_path.iterdir()}


def test_quality_figure_shows_samples_above_their_neighbours(judged):
    """Gray values tell the images apart: 0.n for samples, 0.5 + 0.n for neighbours; the nearest are the last."""
    samples = (torch.arange(20.0) / 100).view(20, 1, 1, 1).expand(20, 1, 28, 28)
    shares = [torch.full((10,), 0.1)] * 2
    picture = judged.visualize_quality(shares, samples, torch.arange(20.0).flip(0), samples + 0.5)
    assert picture.shape == (4 * 28, 10 * 28)
    cells = torch.from_numpy(picture[14::28, 14::28])
    torch.testing.assert_close(cells[0], torch.arange(10.0) / 100)
    torch.testing.assert_close(cells[2], torch.arange(19.0, 9, -1) / 100, msg="the ten nearest, the nearest first")
    torch.testing.assert_close(cells[1::2], cells[::2] + 0.5)


def test_without_a_folder_nothing_is_written(monkeypatch):
    for name in ("hw5_lab.model.write", "hw5_lab.folder.write", "hw5_lab.evaluator.save_tensors"):
        monkeypatch.setattr(name, lambda *_: pytest.fail("wrote a file"))
    gan = small_gan(n_epochs=1)
    train(gan)
    gan.visualize()
    gan.measure()


def test_without_training_the_present_generator_is_measured():
    """As in --evaluate of weights alone: no history, no best epoch."""
    gan = small_gan()
    zero(gan.gen)
    metrics = gan.measure()
    assert "best_epoch" not in metrics and metrics["frechet_distance"] == metrics["frechet_distance_last"]


def test_settings_of_the_homework():
    assert LabGAN.settings == {name: hw5_gan.DEFAULTS[name] for name in ("zdim", "n_epochs", "batch_size")}
    assert isinstance(small_gan(folder=Path("x")).evaluator, Evaluator)
