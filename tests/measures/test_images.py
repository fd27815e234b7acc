"""hw5_lab/measures/images: measures against closed forms and by hand; the classifier, and where it is kept."""

import math

import pytest
import torch
from helpers import SAMPLE
from plain import judge

import hw5_utils as utils
from hw5_lab.measures import images as measures
from hw5_lab.measures.images import Evaluator, in_unit, resemblance
from hw5_lab.runs.folder import save_tensors

# ---- measures


def with_moments(mean, cov, count=400):
    """Features [count,D] whose mean and covariance are exactly these."""
    x = torch.randn(count, len(mean), dtype=torch.double)
    x = x - x.mean(0)
    whitened = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / count)).T
    return whitened @ torch.linalg.cholesky(cov).T + mean


def test_frechet_distance_of_known_gaussians():
    """Equal axes by hand; any two covariances against the closed form, by the eigenvalues of their product."""
    distance = measures.frechet_distance
    one = torch.ones(3, dtype=torch.double)
    narrow, wide = torch.diag(one), torch.diag(torch.tensor([1.0, 4, 9]).double())
    by_hand = distance(with_moments(0 * one, narrow), with_moments(2 * one, wide))
    assert by_hand.item() == pytest.approx(3 * 2**2 + (1 - 1) ** 2 + (2 - 1) ** 2 + (3 - 1) ** 2)
    for _ in range(3):
        roots = torch.randn(2, 3, 3, dtype=torch.double)
        a, b = roots @ roots.mT + 0.1 * torch.eye(3)
        expected = 3 * 0.5**2 + a.trace() + b.trace() - 2 * torch.linalg.eigvals(a @ b).sqrt().sum().real
        there = distance(with_moments(one, a), with_moments(1.5 * one, b))
        assert there.item() == pytest.approx(expected.item(), rel=1e-6)
        assert distance(with_moments(1.5 * one, b), with_moments(one, a)).item() == pytest.approx(there.item())


def test_frechet_distance_to_itself_is_0():
    for features in (torch.randn(200, 5), torch.randn(3, 5), torch.ones(1, 5)):  # of full rank, of less, of none
        assert measures.frechet_distance(features, features).item() == pytest.approx(0, abs=1e-6)


def test_inception_score_is_the_number_of_clear_classes():
    clear = torch.full((30, 10), -100.0)
    clear[torch.arange(30), torch.arange(30) % 3] = 0
    assert measures.inception_score(clear).item() == pytest.approx(3)
    assert measures.inception_score(clear[:1].expand(30, 10)).item() == pytest.approx(1), "always the same digit"
    vague = torch.full((30, 10), 0.1).log()
    assert measures.inception_score(vague).item() == pytest.approx(1), "never a clear digit"


def test_manifold_share_by_hand():
    points = torch.tensor([[0.0], [1.0], [3.0]])  # the nearest neighbours of each are 1, 1 and 2 away
    others = torch.tensor([[-1.1], [-0.9], [2.1], [4.9], [5.1]])
    share = measures.manifold_share
    assert share(points, others, k=1).item() == pytest.approx(3 / 5)
    assert share(points, others, k=2).item() == pytest.approx(5 / 5)
    assert share(points, points + 100).item() == 0
    assert share(points[:1], points).item() == pytest.approx(1 / 3), "a single point has no neighbours"


def test_nearest_neighbours():
    others = torch.rand(20, 1, 28, 28)
    images = others[[7, 3]].clone()
    images[1, 0, 0, 0] += 2
    distances, indices = measures.nearest_neighbours(images, others)
    assert indices.tolist() == [7, 3]
    torch.testing.assert_close(distances, torch.tensor([0.0, 2.0]), atol=0.02, rtol=0)


def test_precision_and_recall_are_not_swapped():
    """Generated points that are all among the real ones, but only at one of their two places."""
    real = torch.cat([torch.randn(100, 2), torch.randn(100, 2) + 50])
    log_p = torch.full((200, 10), 0.1).log()
    metrics = resemblance((real[:100] + 0.01, log_p[:100]), (real, log_p))
    assert metrics["precision"] > 0.95, "generated images inside the manifold of the real ones"
    assert 0.4 < metrics["recall"] < 0.55, "real images inside the manifold of the generated ones"
    assert metrics["frechet_distance"] == pytest.approx(
        measures.frechet_distance(real[:100] + 0.01, real).item()
    ) and metrics["inception_score"] == pytest.approx(1)


# ---- the classifier


@pytest.fixture(scope="module")
def data():
    """(images uint8 [N,1,28,28], digits [N], test images, test digits) of the sample."""
    images, digits, test_images, test_digits = map(torch.from_numpy, utils.mnist(SAMPLE))
    return images.unsqueeze(1), digits.long(), test_images.unsqueeze(1), test_digits.long()


@pytest.fixture(name="judge")
def trained():
    evaluator, steps = judge()
    assert steps == 3 * 32, "three epochs of 4,000 images in minibatches of 128"
    assert evaluator.fit() == 0, "once"
    return evaluator


def test_images_come_into_the_unit_interval(data):
    x = in_unit(data[0][:10])
    torch.testing.assert_close(x, data[0][:10] / 255)
    assert x.min() == 0 and x.max() == 1 and x.dtype == torch.float32


def test_classifier_knows_the_digits(judge, data):
    features, log_p = judge.classify(in_unit(data[2]))
    assert features.shape == (1000, 64) and (log_p.exp().sum(1) - 1).abs().max() < 1e-5
    assert (log_p.argmax(1) == data[3]).float().mean() > 0.9
    assert torch.equal(judge.train_features[:1000], judge.classify(in_unit(data[0][:1000]))[0])


def test_what_it_says_of_an_image_does_not_depend_on_the_others(judge, data):
    whole, alone = judge.classify(in_unit(data[2])), judge.classify(in_unit(data[2][700:703]))
    for a, b in zip(whole, alone):
        torch.testing.assert_close(a[700:703], b, rtol=1e-4, atol=1e-4)


@pytest.fixture
def kept(data, tmp_path):
    """An evaluator of 400 images that has kept its classifier in a file."""
    kept = Evaluator(data[0][:400], data[1][:400], tmp_path / "classifier.pt")
    assert kept.fit(epochs=1, batch_size=100) == 4
    return kept


def test_classifier_is_kept_for_the_same_images_only(kept):
    weights = kept.classifier.state_dict()
    again = Evaluator(kept.images, kept.digits, kept.path)
    assert again.fit() == 0, "read, not trained"
    assert all(torch.equal(value, weights[name]) for name, value in again.classifier.state_dict().items())
    content = kept.path.read_bytes()
    for other in ((kept.images[:128], kept.digits[:128]), (kept.images, kept.digits.flip(0))):
        assert Evaluator(*other, kept.path).fit(epochs=1, batch_size=100) > 0, "other data, another classifier"
        kept.path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[:-100], lambda content: content[:9000] + b"\1" + content[9001:]],
)
def test_a_damaged_classifier_is_trained_again(damage, kept):
    kept.path.write_bytes(damage(kept.path.read_bytes()))
    again = Evaluator(kept.images, kept.digits, kept.path)
    assert again.fit(epochs=1, batch_size=100) == 4
    assert Evaluator(kept.images, kept.digits, kept.path).fit() == 0, "and kept"


@pytest.mark.parametrize("name", ["nothing", "another classifier", "no tensors", "NaN"])
def test_a_file_that_holds_something_else_is_replaced(name, kept):
    content = torch.load(kept.path, weights_only=True)
    weights = content["classifier"]
    nan = {key: torch.full_like(value, math.nan) for key, value in weights.items()}
    other = {
        "nothing": {},
        "another classifier": {**content, "classifier": torch.nn.Linear(2, 3).state_dict()},
        "no tensors": {**content, "classifier": {key: "text" for key in weights}},
        "NaN": {**content, "classifier": nan},
    }[name]
    save_tensors(other, kept.path)
    again = Evaluator(kept.images, kept.digits, kept.path)
    assert again.fit(epochs=1, batch_size=100) == 4
    assert all(torch.equal(value, weights[key]) for key, value in again.classifier.state_dict().items())
    assert Evaluator(kept.images, kept.digits, kept.path).fit() == 0, "and kept"


def test_classifier_moves_no_random_numbers_of_training_and_is_the_same_for_every_seed(data):
    classifiers = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        judge = Evaluator(data[0][:400], data[1][:400])
        judge.fit(epochs=1, batch_size=100)
        assert torch.equal(before, torch.get_rng_state())
        classifiers.append(judge.classifier.state_dict())
    assert all(torch.equal(value, classifiers[1][name]) for name, value in classifiers[0].items())


def test_rates_fall_to_0(data, monkeypatch):
    rates, step = [], torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: rates.append(self.param_groups[0]["lr"]) or step(self))
    Evaluator(data[0][:100], data[1][:100]).fit(epochs=2, batch_size=50, lr=0.4)
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert math.isfinite(sum(rates))


def test_images_and_features_may_be_numpy_and_other_things_are_refused():
    images = torch.randint(0, 256, (30, 28, 28), dtype=torch.uint8)
    judge = Evaluator(images.numpy(), torch.arange(30).numpy() % 10)
    with pytest.raises(ValueError, match="call fit"):
        judge.classify(images)
    judge.fit(epochs=1)
    features, log_p = judge.classify(images.numpy() / 255)
    again = judge.classify((images / 255).unsqueeze(1))
    torch.testing.assert_close((features, log_p), again)
    assert measures.frechet_distance(features.numpy(), features) == pytest.approx(0, abs=1e-3)
    torch.testing.assert_close(judge.classify(images), again)
    with pytest.raises(ValueError, match="expected uint8"):
        Evaluator(images / 255, torch.arange(30) % 10)
    for wrong in (images.float(), images.long(), images / 127.5 - 1, images / 0 - images / 0):
        with pytest.raises(ValueError, match=r"images have values from .* to .*; expected \[0,1\], or uint8"):
            judge.classify(wrong)
