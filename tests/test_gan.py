"""hw5_gan: the networks against plainly written ones, both losses and their gradients, training and figures."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SAMPLE
from torch import nn

import hw5_gan
import hw5_utils as utils
from hw5_gan import GAN, DNet, GNet

LOG2 = math.log(2)


def plain_networks(zdim=64):
    """Both networks as plain Sequentials in the order of the tables, initialised as the homework says."""
    torch.manual_seed(2)
    networks = []
    for layers in (
        lambda: [nn.Conv2d(1, 2, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Conv2d(2, 4, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2),
                 nn.Conv2d(4, 8, 3, 1, 0), nn.ReLU(), nn.Flatten(), nn.Linear(200, 1)],
        lambda: [nn.Linear(zdim, 1568), nn.LeakyReLU(0.2), nn.Unflatten(1, (32, 7, 7)), nn.Upsample(scale_factor=2),
                 nn.Conv2d(32, 16, 3, 1, 1), nn.LeakyReLU(0.2), nn.Upsample(scale_factor=2), nn.Conv2d(16, 8, 3, 1, 1),
                 nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 3, 1, 1), nn.Sigmoid()],
    ):
        network = nn.Sequential(*layers())
        for layer in network:
            if hasattr(layer, "weight"):
                nn.init.kaiming_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        networks.append(network)
    return networks


def zero(network):
    for parameter in network.parameters():
        nn.init.zeros_(parameter)


def small_gan(folder, limit=96, **settings):
    gan = GAN(data_dir=SAMPLE, limit=limit, folder=folder)
    gan.prepare(**{"batch_size": 32, "n_epochs": 2, **settings})
    return gan


# ---- networks


@pytest.mark.parametrize("network, count", [(DNet(), 593), (GNet(64), 107_777)])
def test_parameter_counts(network, count):
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_children_are_the_rows_of_the_tables():
    kinds = lambda network: [type(child).__name__ for child in network.children()]
    assert kinds(DNet()) == ["Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "Linear"]
    assert kinds(GNet(5)) == ["Linear", "LeakyReLU", "Upsample", "Conv2d", "LeakyReLU", "Upsample", "Conv2d", "LeakyReLU",
                              "Conv2d", "Sigmoid"]


@pytest.mark.parametrize("zdim", [64, 3])
def test_networks_are_the_plain_ones(zdim):
    gan, plain = GAN(zdim), plain_networks(zdim)
    for ours, theirs in zip((gan.disc, gan.gen), plain):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b), "seed 2, then D, then G must draw the course's weights"
    x, z = torch.rand(5, 1, 28, 28), torch.randn(5, zdim)
    torch.testing.assert_close(gan.disc(x), plain[0](x))
    torch.testing.assert_close(gan.gen(z), plain[1](z))
    assert gan.disc(x).shape == (5, 1) and gan.gen(z).shape == (5, 1, 28, 28)


@pytest.mark.parametrize("make", [DNet, lambda: GNet(64)])
def test_kaiming_bounds(make):
    """kaiming_uniform_ draws from [-b, b] with b = sqrt(6 / fan_in)."""
    torch.manual_seed(0)
    network = make()
    for layer in network.children():
        if hasattr(layer, "weight"):
            bound = math.sqrt(6 / layer.weight[0].numel())
            largest = layer.weight.abs().max().item()
            assert largest <= bound * (1 + 1e-6) and largest > (0.99 if layer.weight.numel() > 500 else 0.75) * bound
            assert not layer.bias.any()


@pytest.mark.parametrize("index", [1, 2])
def test_upsample_convolve_is_the_two_layers(index):
    """Values and gradients, in double precision, with a kernel of no symmetry."""
    gen = GNet(4).double()
    upsample, conv = getattr(gen, f"upsample{index}"), getattr(gen, f"conv{index}")
    nn.init.normal_(conv.bias)
    x = torch.randn(3, conv.in_channels, 7, 5, dtype=torch.double, requires_grad=True)
    weigh = torch.randn(3, conv.out_channels, 14, 10, dtype=torch.double)
    results = []
    for output in (conv(upsample(x)), hw5_gan.upsample_convolve(upsample, conv, x)):
        results.append([output, *torch.autograd.grad((weigh * output).sum(), [x, conv.weight, conv.bias])])
    for plain, fast in zip(*results):
        torch.testing.assert_close(fast, plain)


# ---- losses


def test_losses_by_hand():
    real, fake = torch.tensor([[1.0], [2.0]]), torch.tensor([[-1.0], [0.5]])
    log_d, log_not_d = F.logsigmoid(real).mean(), F.logsigmoid(-fake).mean()
    torch.testing.assert_close(hw5_gan.discriminator_loss(real, fake), -(log_d + log_not_d) / 2)
    torch.testing.assert_close(hw5_gan.generator_loss(fake), -F.logsigmoid(fake).mean())


@pytest.mark.parametrize("batch_size", [1, 7])
def test_zero_logits_give_log_2(batch_size):
    gan = GAN()
    zero(gan.disc)
    x, z = torch.rand(batch_size, 1, 28, 28), torch.randn(batch_size, 64)
    assert gan._get_loss_d(batch_size, x, z).item() == pytest.approx(LOG2)
    assert gan._get_loss_g(batch_size, z).item() == pytest.approx(LOG2)


def test_losses_of_the_class_are_the_formulas():
    gan = GAN()
    x, z = torch.rand(6, 1, 28, 28), torch.randn(6, 64)
    real, fake = gan.disc(x), gan.disc(gan.gen(z))
    bce = nn.BCEWithLogitsLoss()
    torch.testing.assert_close(gan._get_loss_d(6, x, z), 0.5 * (bce(real, torch.ones(6, 1)) + bce(fake, torch.zeros(6, 1))))
    torch.testing.assert_close(gan._get_loss_g(6, z), bce(fake, torch.ones(6, 1)))


def test_the_loss_of_d_gives_g_no_gradient():
    gan = GAN()
    gan._get_loss_d(4, torch.rand(4, 1, 28, 28), torch.randn(4, 64)).backward()
    assert all(parameter.grad is None for parameter in gan.gen.parameters()), "detach the fake images"
    assert all(parameter.grad.abs().sum() > 0 for parameter in gan.disc.parameters())


def test_the_loss_of_g_reaches_g():
    gan = GAN()
    gan._get_loss_g(4, torch.randn(4, 64)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in gan.gen.parameters())


# ---- training


def plain_step(networks, optimizers, x, z, iter_d=1, iter_g=1):
    """One minibatch as the homework describes it, with every loss computed afresh."""
    (disc, gen), (optimizer_d, optimizer_g), bce = networks, optimizers, nn.BCEWithLogitsLoss()
    one, zero = torch.ones(len(x), 1, dtype=x.dtype), torch.zeros(len(x), 1, dtype=x.dtype)
    for _ in range(iter_d):
        loss = 0.5 * bce(disc(x), one) + 0.5 * bce(disc(gen(z).detach()), zero)
        optimizer_d.zero_grad()
        loss.backward()
        optimizer_d.step()
    for _ in range(iter_g):
        loss = bce(disc(gen(z)), one)
        optimizer_g.zero_grad()
        loss.backward()
        optimizer_g.step()


def assert_same_weights(gan, plain, **tolerance):
    for ours, theirs in zip((gan.disc, gan.gen), plain):
        for a, b in zip(ours.parameters(), theirs.parameters()):
            torch.testing.assert_close(a, b, rtol=0, **tolerance)


@pytest.mark.parametrize("iter_d, iter_g", [(1, 1), (2, 3)])
def test_steps_are_the_plain_steps(iter_d, iter_g):
    """One z for both players and fakes drawn once give the weights of a loop that computes every loss afresh."""
    gan, plain = GAN(), [network.double() for network in plain_networks()]
    gan.disc.double(), gan.gen.double()
    gan.prepare(iter_d, iter_g)
    optimizers = [torch.optim.Adam(network.parameters(), lr=2e-4) for network in plain]
    for _ in range(20):
        x, z = torch.rand(8, 1, 28, 28).double(), torch.rand(8, 64).double() * 2 - 1
        values = gan.step(x, z)
        plain_step(plain, optimizers, x, z, iter_d, iter_g)
    assert_same_weights(gan, plain, atol=1e-10)
    assert len(values) == 4


def test_training_is_the_plain_loop(tmp_path):
    """Two epochs of shuffled minibatches in [0,1], the short last one dropped."""
    gan, plain = small_gan(tmp_path, limit=110), plain_networks()  # 110 = 3 * 32 + 14
    optimizers = [torch.optim.Adam(network.parameters(), lr=2e-4) for network in plain]
    shuffle, noise = torch.Generator().manual_seed(2), torch.Generator().manual_seed(2)
    images = gan.train_images.float() / 255
    for epoch in range(2):
        order = torch.randperm(110, generator=shuffle)
        for step in range(3):
            plain_step(plain, optimizers, images[order[32 * step :][:32]], torch.rand(32, 64, generator=noise) * 2 - 1)
    gan.train(n_epochs=2, batch_size=32)
    assert_same_weights(gan, plain, atol=1e-5)


def test_sample_z_is_uniform():
    z = hw5_gan.sample_z(20_000, 5)
    assert z.shape == (20_000, 5) and -1 <= z.min() < -0.99 and 0.99 < z.max() <= 1
    assert z.mean().abs() < 0.01 and z.var().item() == pytest.approx(1 / 3, rel=0.02)


def test_history_holds_what_its_columns_say(tmp_path, capsys):
    gan = small_gan(tmp_path)
    zero(gan.disc)
    gan.train(n_epochs=1, batch_size=32, lr=1e-9)
    row, = gan.progress["history"]
    assert row["loss_d"] == pytest.approx(LOG2, abs=1e-4) and row["loss_g"] == pytest.approx(LOG2, abs=1e-4)
    assert row["d_real"] == pytest.approx(0.5, abs=1e-4) and row["d_fake"] == pytest.approx(0.5, abs=1e-4)
    gan.disc.linear.bias.data.fill_(100)  # D now takes everything for real
    gan.train(n_epochs=1, batch_size=32, lr=1e-9)
    row, = gan.progress["history"]
    assert row["d_real"] == pytest.approx(1) and row["d_fake"] == pytest.approx(1)
    assert row["loss_d"] == pytest.approx(50, rel=1e-3) and row["loss_g"] == pytest.approx(0, abs=1e-3)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_d_learns_to_tell_real_from_fake(tmp_path):
    gan = small_gan(tmp_path, limit=512, n_epochs=4, lr=2e-3)
    for _ in gan.fit():
        pass
    last = gan.progress["history"][-1]
    assert last["d_real"] > last["d_fake"], "D(x) must exceed D(G(z)): labels swapped?"


def test_non_finite_loss_stops(tmp_path):
    gan = small_gan(tmp_path)
    nn.init.constant_(gan.gen.linear.bias, math.nan)
    with pytest.raises(FloatingPointError, match="epoch 1, step 1: loss of D nan, of G nan"):
        gan.train(n_epochs=1, batch_size=32)


def test_too_large_a_batch_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size 97: more than the 96 training images"):
        small_gan(tmp_path).train(batch_size=97)


# ---- how good samples are


def with_moments(mean, cov, count=400):
    """Features [count,D] whose mean and covariance are exactly these."""
    x = torch.randn(count, len(mean), dtype=torch.double)
    x = x - x.mean(0)
    whitened = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / count)).T
    return whitened @ torch.linalg.cholesky(cov).T + mean


def test_frechet_distance_of_known_gaussians():
    """Against the closed form: any two covariances, by the eigenvalues of their product; and equal deviations by hand."""
    distance = hw5_gan.frechet_distance
    one = torch.ones(3, dtype=torch.double)
    by_hand = distance(with_moments(0 * one, torch.diag(one)), with_moments(2 * one, torch.diag(torch.tensor([1.0, 4, 9]).double())))
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
        assert hw5_gan.frechet_distance(features, features).item() == pytest.approx(0, abs=1e-6)


def test_inception_score_is_the_number_of_clear_classes():
    clear = torch.full((30, 10), -100.0)
    clear[torch.arange(30), torch.arange(30) % 3] = 0
    assert hw5_gan.inception_score(clear).item() == pytest.approx(3)
    assert hw5_gan.inception_score(clear[:1].expand(30, 10)).item() == pytest.approx(1), "always the same digit"
    assert hw5_gan.inception_score(torch.full((30, 10), 0.1).log()).item() == pytest.approx(1), "never a clear digit"


def test_manifold_share_by_hand():
    points = torch.tensor([[0.0], [1.0], [3.0]])  # the nearest neighbours of each are 1, 1 and 2 away
    others = torch.tensor([[-1.1], [-0.9], [2.1], [4.9], [5.1]])
    assert hw5_gan.manifold_share(points, others, k=1).item() == pytest.approx(3 / 5)
    assert hw5_gan.manifold_share(points, others, k=2).item() == pytest.approx(5 / 5)
    assert hw5_gan.manifold_share(points, points + 100).item() == 0
    assert hw5_gan.manifold_share(points[:1], points).item() == pytest.approx(1 / 3), "a single point has no neighbours"


def test_nearest_neighbours():
    others = torch.rand(20, 1, 28, 28)
    images = others[[7, 3]].clone()
    images[1, 0, 0, 0] += 2
    distances, indices = hw5_gan.nearest_neighbours(images, others)
    assert indices.tolist() == [7, 3]
    torch.testing.assert_close(distances, torch.tensor([0.0, 2.0]), atol=0.02, rtol=0)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A GAN with an evaluator that has learned the digits of the sample."""
    gan = GAN(data_dir=SAMPLE, folder=tmp_path_factory.mktemp("judged"))
    gan.evaluator = hw5_gan.Evaluator(*gan.data[:2], gan.folder / "classifier.pt")
    assert sum(1 for _ in gan.evaluator.prepare()) == 3 * 32, "three epochs of 4,000 images"
    return gan


def test_classifier_knows_the_digits(judged):
    _, _, images, digits = judged.data
    features, log_p = judged.evaluator.look(hw5_gan.scale(images))
    assert features.shape == (1000, 64) and (log_p.exp().sum(1) - 1).abs().max() < 1e-5
    assert (log_p.argmax(1) == digits).float().mean() > 0.9


def test_classifier_is_kept_for_the_same_images_only(judged):
    images, digits, _, _ = judged.data
    path, weights = judged.folder / "classifier.pt", judged.evaluator.classifier.state_dict()
    again = hw5_gan.Evaluator(images, digits, path)
    assert list(again.prepare()) == [], "read, not trained"
    assert all(torch.equal(value, weights[name]) for name, value in again.classifier.state_dict().items())
    next(hw5_gan.Evaluator(images[:128], digits[:128], path).prepare())  # trains: StopIteration otherwise
    next(hw5_gan.Evaluator(images, digits.flip(0), path).prepare())
    for damage in (b"", path.read_bytes()[:-100]):
        broken = path.with_name("broken.pt")
        broken.write_bytes(damage)
        next(hw5_gan.Evaluator(images, digits, broken).prepare())


def test_classifier_moves_no_random_numbers_of_training(judged):
    before = torch.get_rng_state()
    next(hw5_gan.Evaluator(*judged.data[:2], judged.folder / "none.pt").prepare())
    assert torch.equal(before, torch.get_rng_state())


class Copies(nn.Module):
    """A generator that hands out these images in turn."""

    def __init__(self, images):
        super().__init__()
        self.images = nn.Parameter(images)

    def forward(self, z):
        return self.images[torch.arange(len(z)) % len(self.images)]


def measured(gan, images):
    """What measure() says of a generator of `images`."""
    other = GAN(data_dir=SAMPLE, folder=gan.folder)
    other.evaluator, other.gen = gan.evaluator, Copies(images)
    return other.measure()


def test_collapsed_and_memorising_generators_are_exposed(judged):
    images, digits, _, _ = judged.data
    real = hw5_gan.scale(images)
    perfect, one, copied = measured(judged, real[:2000]), measured(judged, real[5:6]), measured(judged, real[:2000] + 1e-6)
    assert perfect["frechet_distance"] < 3 * perfect["frechet_distance_real"], "real images are as good as real images"
    assert perfect["precision"] > 0.7 and perfect["recall"] > 0.7 and perfect["inception_score"] > 0.8 * perfect["inception_score_real"]
    shares = [perfect[f"share_{digit}"] for digit in range(10)]
    assert sum(shares) == pytest.approx(1) and min(shares) > 0.05
    assert one["frechet_distance"] > 20 * perfect["frechet_distance"] and one["recall"] < 0.01 and one["precision"] == 1
    assert one["inception_score"] == pytest.approx(1, abs=1e-3) and one[f"share_{digits[5]}"] == 1
    assert copied["nearest_distance"] < 0.1 < copied["nearest_distance_real"], "nothing but training images"
    assert perfect["classifier_accuracy"] > 0.9 and (judged.folder / "quality.png").exists()


def test_the_best_epoch_is_kept_without_a_look_at_the_test_images(tmp_path):
    runs = []
    for blind in (False, True):
        gan = small_gan(tmp_path / str(blind), limit=160, n_epochs=4, lr=3e-3)
        gan.folder.mkdir()
        gan.evaluator = hw5_gan.Evaluator(*gan.data[:2], gan.folder / "classifier.pt")
        if blind:
            gan.data[2].zero_(), gan.data[3].zero_()
        kept = {}
        for row in gan.fit():
            if row:
                kept[row["frechet_train"]] = {name: value.clone() for name, value in gan.gen.state_dict().items()}
        best = torch.load(gan.folder / "best.pt", weights_only=True)
        assert best["frechet_train"] == min(kept), "the smallest distance to the training images"
        assert all(torch.equal(value, kept[min(kept)][name]) for name, value in best["gen"].items())
        assert best["epoch"] == 1 + [row["frechet_train"] for row in gan.progress["history"]].index(min(kept))
        runs.append(best["frechet_train"])
        before = {name: value.clone() for name, value in gan.gen.state_dict().items()}
        metrics = gan.measure()
        assert metrics["best_epoch"] == best["epoch"]
        assert all(torch.equal(value, before[name]) for name, value in gan.gen.state_dict().items()), "measuring changes nothing"
        nn.init.zeros_(gan.gen.conv3.weight)
        again = gan.measure()
        assert again["frechet_distance"] == metrics["frechet_distance"], "what is measured is the best generator"
        assert again["frechet_distance_last"] != metrics["frechet_distance_last"]
    assert runs[0] == runs[1]


# ---- figures


def test_grids_show_their_images_from_fixed_noise(tmp_path):
    gan = small_gan(tmp_path)
    goal, first, second = gan.visualize_goal(), gan.sample_grid(), gan.sample_grid()
    assert goal.shape == first.shape == (8 * 28 + 7 * 3, 8 * 28 + 7 * 3)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(goal[31:59, :28], gan.train_images[1, 0].numpy() / 255, rtol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(first[:28, 31:59], gan.gen(gan.fixed_z)[8, 0].numpy(), rtol=1e-5)


def test_sampling_moves_no_random_numbers_of_training(tmp_path):
    gan = small_gan(tmp_path)
    before = {name: generator.get_state() for name, generator in gan.generators.items()}, torch.get_rng_state()
    gan.visualize_samples(), gan.visualize_goal()
    assert all(torch.equal(before[0][name], generator.get_state()) for name, generator in gan.generators.items())
    assert torch.equal(before[1], torch.get_rng_state())


def test_samples_are_drawn_every_ten_epochs_and_at_the_end(tmp_path):
    small_gan(tmp_path, limit=32).train(n_epochs=12, batch_size=32)
    assert {path.name for path in tmp_path.glob("*.png")} == {"goal.png", "samples_epoch_10.png", "samples_epoch_12.png"}


# ---- edition uva


def dense_gan(folder, limit=200, **settings):
    gan = GAN(zdim=6, data_dir=SAMPLE, limit=limit, folder=folder, edition="uva")
    gan.prepare(**{"batch_size": 20, "n_epochs": 2, **settings})
    return gan


def plain_dense_networks(zdim):
    torch.manual_seed(2)
    disc = nn.Sequential(nn.Linear(784, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1))
    gen = nn.Sequential(
        nn.Linear(zdim, 128), nn.LeakyReLU(0.2), nn.Linear(128, 256), nn.BatchNorm1d(256), nn.LeakyReLU(0.2),
        nn.Linear(256, 512), nn.BatchNorm1d(512), nn.LeakyReLU(0.2), nn.Linear(512, 1024), nn.BatchNorm1d(1024), nn.LeakyReLU(0.2),
        nn.Linear(1024, 784), nn.Tanh())
    return disc, gen


def test_dense_networks(tmp_path):
    disc, gen = hw5_gan.DenseD(), hw5_gan.DenseG(100)
    count = lambda network: sum(parameter.numel() for parameter in network.parameters())
    assert count(disc) == 533_505 and count(gen) == 1_510_032
    assert gen(torch.randn(2, 100)).shape == (2, 1, 28, 28) and disc(torch.zeros(2, 1, 28, 28)).shape == (2, 1)
    for plain, ours in zip(plain_dense_networks(6), (lambda gan: (gan.disc, gan.gen))(dense_gan(tmp_path))):
        for a, b in zip(plain.parameters(), ours.parameters(), strict=True):
            assert torch.equal(a, b), "seed 2, then D, then G"


def test_dense_training_is_the_plain_loop_with_the_generator_first(tmp_path):
    """Twenty steps in double precision: z normal, pixels in [-1,1], the same fakes for both, G's update before D's."""
    gan = dense_gan(tmp_path)
    gan.disc.double(), gan.gen.double()
    disc, gen = (network.double() for network in plain_dense_networks(6))
    optimizer_g, optimizer_d = (torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999)) for network in (gen, disc))
    bce, one, zero = nn.BCEWithLogitsLoss(), torch.ones(20, 1).double(), torch.zeros(20, 1).double()
    shuffle, noise = torch.Generator().manual_seed(2), torch.Generator().manual_seed(2)
    as_trained, normal = gan.as_trained, gan.noise
    gan.as_trained, gan.noise = lambda x: as_trained(x).double(), lambda *args: normal(*args).double()
    gan.fixed_z = gan.fixed_z.double()
    for _ in range(2):
        for indices in torch.randperm(200, generator=shuffle).split(20):
            x = gan.train_images[indices].flatten(1).float().div(255).mul(2).sub(1).double()
            fake = gen(torch.randn(20, 6, generator=noise).double())
            optimizer_g.zero_grad()
            bce(disc(fake), one).backward()
            optimizer_g.step()
            optimizer_d.zero_grad()
            (0.5 * (bce(disc(x), one) + bce(disc(fake.detach()), zero))).backward()
            optimizer_d.step()
    assert sum(1 for row in gan.fit() if row is None) == 20
    for ours, theirs in zip((*gan.disc.parameters(), *gan.gen.parameters()), (*disc.parameters(), *gen.parameters())):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)  # the images pass through single precision
    for ours, theirs in zip(gan.gen.buffers(), gen.buffers()):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_batch_normalisation_samples_in_evaluation_mode_and_goes_back(tmp_path):
    gan = dense_gan(tmp_path)
    gan.gen(torch.randn(50, 6))  # moves the running statistics away from their start
    before = [buffer.clone() for buffer in gan.gen.buffers()]
    images = gan.generate(gan.fixed_z)
    assert gan.gen.training and all(module.training for module in gan.gen.modules()), "the mode is restored"
    assert all(torch.equal(a, b) for a, b in zip(before, gan.gen.buffers())), "sampling must not train"
    torch.testing.assert_close(images[:1], gan.generate(gan.fixed_z[:1])), "an image does not depend on its batch"
    assert 0 <= images.min() and images.max() <= 1
    gan.gen.eval()
    assert not torch.equal(gan.sample(3, 1), gan.sample(3, 2)), "what chooses the epoch is not what is reported"
    assert not gan.gen.training


def test_normal_noise():
    z = hw5_gan.sample_z(20_000, 5, noise="normal")
    assert z.mean().abs() < 0.02 and z.std().item() == pytest.approx(1, abs=0.02) and z.abs().max() > 3


def test_images_of_both_editions_reach_their_whole_range(tmp_path):
    for gan, low in ((small_gan(tmp_path), 0), (dense_gan(tmp_path), -1)):
        x = gan.as_trained(gan.train_images[:20])
        assert x.min() == low and x.max() == 1
        assert gan._get_loss_d(20, x, gan.noise(20, gan.generators["z"])).isfinite()


def test_interpolation_ends_at_digits_of_different_classes(tmp_path, judged):
    gan = dense_gan(tmp_path)
    real = hw5_gan.scale(judged.data[0])
    gan.evaluator = judged.evaluator
    gan.generate = lambda z: real[:1].expand(len(z), -1, -1, -1).clone() if len(z) == 9 else torch.cat(
        [real[:1].expand(7, -1, -1, -1), real[judged.data[1] != judged.data[1][0]][:18]])
    seen = []
    generate = gan.generate
    gan.generate = lambda z: seen.append(z) or generate(z)
    assert gan.visualize_interpolation().shape == (28, 9 * 28 + 8 * 3)
    line = seen[-1]
    assert torch.equal(line[0], gan.fixed_z[0]) and torch.equal(line[8], gan.fixed_z[7]), "the first of another class is the eighth"
    torch.testing.assert_close(line[4], (line[0] + line[8]) / 2)


def test_samples_at_start_halfway_and_end(tmp_path):
    dense_gan(tmp_path, limit=40).train(n_epochs=4, batch_size=20)
    assert {path.name for path in tmp_path.glob("samples*")} == {f"samples_epoch_{epoch}.png" for epoch in (0, 2, 4)}
    assert dense_gan(tmp_path).sample_grid().shape == (5 * 28 + 4 * 3, 5 * 28 + 4 * 3)


def test_dense_training_resumes_exactly(tmp_path):
    """Also the running statistics of the batch normalisation are part of the checkpoint."""
    whole, first, second = (dense_gan(tmp_path) for _ in range(3))
    list(whole.fit())
    for step, _ in zip(range(13), first.fit()):  # ten steps and a row, then two of the second epoch
        pass
    utils.restore(second, copy.deepcopy(utils.snapshot(first, {}, [])), {}, "checkpoint")
    list(second.fit())
    for name, value in whole.gen.state_dict().items():
        assert torch.equal(value, second.gen.state_dict()[name]), name
    assert [row["loss_d"] for row in whole.progress["history"]] == [row["loss_d"] for row in second.progress["history"]]


def test_flags_override_the_edition():
    args = hw5_gan.parse_args(["--edition", "uva", "--epochs", "7"])
    assert (args.n_epochs, args.zdim, args.batch_size, args.lr) == (7, 100, 64, 2e-4)


def test_one_image_is_no_batch_for_batch_normalisation(tmp_path):
    with pytest.raises(ValueError, match="batch_size 1: batch normalisation"):
        dense_gan(tmp_path, batch_size=1).steps


# ---- refusals


@pytest.mark.parametrize("x, words", [
    (torch.full((2, 1, 28, 28), 255.0), "values from 255 to 255"),
    (torch.zeros(2, 784), "shape [2, 784]; expected a float tensor [..., 1, 28, 28]"),
    (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), "batch_data is torch.uint8"),
])
def test_other_things_than_images_are_refused(x, words):
    with pytest.raises(ValueError) as caught:
        GAN()._get_loss_d(2, x, torch.zeros(2, 64))
    assert words in str(caught.value)
