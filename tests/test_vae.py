"""hw5_vae: values, identities and moments of the maths; the networks; training and figures on small data."""

import argparse
import math

import numpy as np
import pytest
import torch
from conftest import SAMPLE
from torch import distributions as D
from torch import nn

import hw5_vae
from hw5_vae import VAE, Decoder, Encoder

LOG2 = math.log(2)


def small_vae(**settings):
    vae = VAE(argparse.Namespace(**{"hidden_units": 8, "data_dir": SAMPLE, **settings}))
    vae.test_images = vae.test_images[:200]
    return vae


def zero(network):
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    return network


# ---- distributions


def test_logpdf_diagonal_gaussian_by_hand():
    z, mu, sigma_square = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]]), torch.tensor([[1.0, 4.0]])
    # -(log 2 pi + 0 + 1)/2 - (log 2 pi + log 4 + 1)/2
    expected = -math.log(2 * math.pi) - LOG2 - 1
    assert hw5_vae.logpdf_diagonal_gaussian(z, mu, sigma_square).item() == pytest.approx(expected, rel=1e-6)


def test_logpdf_diagonal_gaussian_against_torch():
    z, mu, sigma_square = torch.randn(7, 5), torch.randn(7, 5), torch.rand(7, 5) + 0.1
    expected = D.Independent(D.Normal(mu, sigma_square.sqrt()), 1).log_prob(z)
    value = hw5_vae.logpdf_diagonal_gaussian(z, mu, sigma_square)
    assert value.shape == (7,)
    torch.testing.assert_close(value, expected, msg=lambda m: f"sigma_square is the variance, not its root or log: {m}")


def test_logpdf_diagonal_gaussian_broadcasts_a_prior():
    z = torch.randn(7, 5)
    one_dimensional = hw5_vae.logpdf_diagonal_gaussian(z, torch.zeros(5), torch.ones(5))
    torch.testing.assert_close(one_dimensional, hw5_vae.logpdf_diagonal_gaussian(z, torch.zeros(7, 5), torch.ones(7, 5)))
    torch.testing.assert_close(one_dimensional, D.Normal(0.0, 1.0).log_prob(z).sum(1))


def test_logpdf_bernoulli_by_hand_and_against_torch():
    x, p = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.25, 0.25]])
    assert hw5_vae.logpdf_bernoulli(x, p).item() == pytest.approx(math.log(0.25 * 0.75), rel=1e-6)
    x, p = torch.rand(7, 9).round(), torch.rand(7, 9)
    torch.testing.assert_close(hw5_vae.logpdf_bernoulli(x, p), D.Bernoulli(p).log_prob(x).sum(1))
    torch.testing.assert_close(hw5_vae.logpdf_bernoulli(x, p[0]), D.Bernoulli(p[0]).log_prob(x).sum(1), msg="p of shape [D]")


def test_logpdf_bernoulli_at_certainty():
    x = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    p = torch.tensor([[0.0, 1.0]]).expand(4, 2).clone().requires_grad_()
    value = hw5_vae.logpdf_bernoulli(x, p)
    assert value.tolist() == [0.0, -math.inf, -math.inf, -math.inf], "finite where x agrees with p, -inf elsewhere, never NaN"
    value[0].backward()
    assert p.grad[0].isfinite().all(), "0 log 0 must not poison the gradient"
    assert p.grad[0].tolist() == [-1.0, 1.0]
    half = hw5_vae.logpdf_bernoulli(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 0.5]]))
    assert half.item() == pytest.approx(-LOG2), "the certain pixel adds exactly 0"


def test_logpdf_bernoulli_logits_agrees_and_stays_finite():
    x, logits = torch.rand(7, 9).round().double(), 5 * torch.randn(7, 9).double()
    torch.testing.assert_close(hw5_vae.logpdf_bernoulli_logits(x, logits), hw5_vae.logpdf_bernoulli(x, logits.sigmoid()))
    assert hw5_vae.logpdf_bernoulli_logits(torch.ones(1, 1), torch.full((1, 1), -1000.0)).item() == -1000


# ---- samples


def test_sample_diagonal_gaussian_is_one_randn_of_the_right_shape():
    mu, sigma_square = torch.randn(3, 4), torch.rand(3, 4)
    torch.manual_seed(7)
    sample = hw5_vae.sample_diagonal_gaussian(mu, sigma_square)
    torch.manual_seed(7)
    torch.testing.assert_close(sample, mu + sigma_square.sqrt() * torch.randn(3, 4), rtol=0, atol=0)


def test_sample_diagonal_gaussian_moments():
    mu, sigma_square = torch.tensor([1.0, -2.0]), torch.tensor([4.0, 0.25])
    sample = hw5_vae.sample_diagonal_gaussian(mu.expand(200_000, 2), sigma_square.expand(200_000, 2))
    torch.testing.assert_close(sample.mean(0), mu, atol=0.02, rtol=0)  # standard error 0.0045
    torch.testing.assert_close(sample.var(0), sigma_square, atol=0, rtol=0.02)  # standard error 0.3%
    assert abs(torch.corrcoef(sample.T)[0, 1]) < 0.02, "the dimensions need noise of their own"


def test_gradients_reach_both_parameters_through_the_sample():
    mu, sigma_square = torch.zeros(3, 2, requires_grad=True), torch.full((3, 2), 4.0, requires_grad=True)
    z = hw5_vae.sample_diagonal_gaussian(mu, sigma_square)
    z.sum().backward()
    assert torch.equal(mu.grad, torch.ones(3, 2))
    eps = z.detach() / 2
    torch.testing.assert_close(sigma_square.grad, eps / (2 * 2.0), msg="d z / d sigma^2 = eps / (2 sigma)")


def test_sample_bernoulli():
    p = torch.tensor([0.0, 0.3, 1.0]).expand(100_000, 3)
    sample = hw5_vae.sample_Bernoulli(p)
    assert sample.dtype == torch.float32 and set(sample.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(sample.mean(0), p[0], atol=0.01, rtol=0)
    assert sample[:, 0].max() == 0 and sample[:, 2].min() == 1


def test_interpolate_mu():
    mua, mub = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    assert hw5_vae.interpolate_mu(mua, mub).tolist() == [0.5, 1.0]
    assert hw5_vae.interpolate_mu(mua, mub, 1).tolist() == [1.0, 0.0], "alpha = 1 is the first point"
    assert hw5_vae.interpolate_mu(mua, mub, 0.25).tolist() == [0.25, 1.5]


# ---- the bound


def test_elbo_by_hand():
    z, mu, sigma_square = torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([[0.25]])
    x, p = torch.tensor([[1.0]]), torch.tensor([[0.5]])
    log_p_z = -0.5 * math.log(2 * math.pi) - 0.5
    log_q_z = -0.5 * math.log(2 * math.pi * 0.25) - 0.5 * 1 / 0.25
    value = hw5_vae.elbo(z, mu, sigma_square, x, p)
    assert value.shape == () and value.item() == pytest.approx(-LOG2 + log_p_z - log_q_z, rel=1e-6)


def test_elbo_is_a_mean_over_the_batch():
    z, mu, sigma_square = torch.randn(6, 2), torch.randn(6, 2), torch.rand(6, 2) + 0.5
    x, p = torch.rand(6, 9).round(), torch.rand(6, 9)
    singles = [VAE.elbo_loss(*(tensor[i : i + 1] for tensor in (z, mu, sigma_square, x, p))) for i in range(6)]
    torch.testing.assert_close(VAE.elbo_loss(z, mu, sigma_square, x, p), torch.stack(singles).mean())


def test_elbo_is_log_p_x_where_q_is_the_posterior():
    """p(x|z) constant: log p(x) = log p(x|z) for every sample, when q is the prior."""
    mu, sigma_square = torch.zeros(50, 2), torch.ones(50, 2)
    z, x = torch.randn(50, 2), torch.rand(50, 9).round()
    p = torch.full((50, 9), 0.5)
    assert hw5_vae.elbo(z, mu, sigma_square, x, p).item() == pytest.approx(-9 * LOG2, rel=1e-6)


def test_kl_estimate_has_the_closed_form_as_its_mean():
    mu, sigma_square = torch.tensor([1.0, -0.5]), torch.tensor([0.25, 2.0])
    exact = D.kl_divergence(D.Normal(mu, sigma_square.sqrt()), D.Normal(0.0, 1.0)).sum().item()
    mu, sigma_square = mu.expand(400_000, 2), sigma_square.expand(400_000, 2)
    estimate = hw5_vae.kl_estimate(hw5_vae.sample_diagonal_gaussian(mu, sigma_square), mu, sigma_square)
    assert estimate.mean().item() == pytest.approx(exact, abs=0.02), "sign: log q - log p"


def test_zero_network_gives_784_log_2():
    vae = small_vae()
    zero(vae)
    metrics = vae.evaluate()
    assert metrics["test_reconstruction"] == pytest.approx(-784 * LOG2, rel=1e-6)
    assert metrics["test_kl"] == pytest.approx(0, abs=1e-6)
    assert metrics["test_elbo"] == pytest.approx(-784 * LOG2, rel=1e-6)


def test_training_maximises_the_graded_elbo():
    """The bound that training uses (from logits, in two parts) is the graded function of the decoder's probabilities."""
    vae = small_vae(hidden_units=20)
    x = vae.train_images[:50]
    log_p_x, kl = vae.bound(x, torch.Generator().manual_seed(3))
    mu, sigma_square = vae.encoder(x)
    z = VAE.sample_z(mu, sigma_square, torch.Generator().manual_seed(3))
    torch.testing.assert_close((log_p_x - kl).mean(), VAE.elbo_loss(z, mu, sigma_square, x, vae.decoder(z)))


# ---- log p(x) by two routes


def test_log_mean_exp():
    values = torch.tensor([[0.0, -1000.0], [math.log(3.0), -1000.0]])
    torch.testing.assert_close(hw5_vae.log_mean_exp(values), torch.tensor([LOG2, -1000.0]))


@pytest.fixture
def steep_vae():
    """A model whose decoder depends on z and whose encoder is mediocre: all three values of log p(x) differ."""
    vae = small_vae(hidden_units=30)
    vae.test_images = vae.test_images[:60]
    vae.decoder.fc1.weight.data *= 2
    vae.decoder.fc2.weight.data *= 5
    vae.encoder.fc2_sigma.bias.data -= 0.5  # so that q(z|x) is not the prior
    vae.encoder.fc2_mu.bias.data += 0.7
    return vae


def test_importance_weighted_bound_rises_from_the_elbo_to_the_exact_value(steep_vae):
    images = steep_vae.test_images
    log_p_x, kl = steep_vae.bounds(images)
    exact, error, _ = steep_vae.log_likelihood_exact(images)
    values = [(log_p_x - kl).mean()] + [steep_vae.log_likelihood_sampled(images, k).mean() for k in (5, 50, 2000)] + [exact.mean()]
    assert values[0] < values[1] < values[2] < values[3] < values[4] + 0.02, "the bound must rise with the number of samples"
    assert values[4] - values[0] > 1, "else this test shows nothing"
    assert values[4] - values[3] < 0.5 and error.max() < 0.1


def test_one_importance_sample_is_the_elbo(steep_vae):
    log_p_x, kl = steep_vae.bounds(steep_vae.test_images)
    one = steep_vae.log_likelihood_sampled(steep_vae.test_images, 1)  # with the same noise
    torch.testing.assert_close(one, log_p_x - kl, atol=1e-3, rtol=0)


def test_all_routes_agree_where_the_encoder_knows_the_posterior(steep_vae):
    """A decoder that ignores z, an encoder that gives the prior: q(z|x) = p(z|x), so that every weight is p(x)."""
    zero(steep_vae.encoder)
    nn.init.zeros_(steep_vae.decoder.fc1.weight)
    images = steep_vae.test_images
    expected = hw5_vae.logpdf_bernoulli(images, steep_vae.decoder(torch.zeros(1, 2))[0])
    log_p_x, kl = steep_vae.bounds(images)
    for value in (log_p_x - kl, steep_vae.log_likelihood_sampled(images, 7)):
        torch.testing.assert_close(value, expected, atol=1e-2, rtol=0)
    exact, error, _ = steep_vae.log_likelihood_exact(images)
    torch.testing.assert_close(exact, expected, atol=2e-2, rtol=0, msg="the prior's mass outside four deviations is 1e-4")
    assert error.max() < 1e-2


def test_exact_log_likelihood_against_adaptive_quadrature(steep_vae):
    """Gauss-Hermite nodes, in double precision, another rule for the same integral."""
    steep_vae.double()
    nn.init.normal_(steep_vae.decoder.fc1.weight, std=0.2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    z = torch.cartesian_prod(*[torch.from_numpy(nodes)] * 2)
    weight = torch.from_numpy(weights / math.sqrt(2 * math.pi)).log()
    images = steep_vae.test_images[:5].double()
    log_p_x = torch.stack([hw5_vae.logpdf_bernoulli(images, steep_vae.decoder(point)) for point in z])
    expected = (log_p_x + torch.cartesian_prod(weight, weight).sum(1)[:, None]).logsumexp(0)
    steep_vae.encoder.fc2_mu.bias.data += 2  # which widens the grid
    exact, _, best_z = steep_vae.log_likelihood_exact(images)
    torch.testing.assert_close(exact, expected.detach(), atol=5e-3, rtol=0)
    best = hw5_vae.logpdf_bernoulli_logits(images, steep_vae.decoder.logits(best_z)) - (best_z**2).sum(1) / 2
    assert (best + 0.02 >= (log_p_x - (z**2).sum(1)[:, None] / 2).max(0).values).all(), "best z is the mode of p(z|x)"


def test_measure_reports_every_number(tmp_path, capsys):
    vae = small_vae(limit=100, iwae_samples=3, hidden_units=20)
    vae.folder = tmp_path
    metrics = vae.measure()
    assert set(metrics) == {"test_elbo", "test_elbo_stderr", "test_reconstruction", "test_kl", "test_log_likelihood", "iwae_samples",
                            "test_log_likelihood_stderr", "test_log_likelihood_exact", "test_log_likelihood_exact_stderr",
                            "test_log_likelihood_exact_error", "train_log_likelihood_exact", "test_elbo_ignoring_z"}
    assert metrics["test_elbo"] == vae.evaluate()["test_elbo"]
    ignoring = [hw5_vae.logpdf_bernoulli(vae.test_images, p).mean() for p in (vae.train_images.mean(0) * 0.98 + 0.01, torch.full((784,), 0.13))]
    assert metrics["test_elbo_ignoring_z"] == pytest.approx(ignoring[0].item(), abs=2) and metrics["test_elbo_ignoring_z"] > ignoring[1]
    assert metrics["test_log_likelihood_exact"] - metrics["test_elbo"] == pytest.approx(
        vae.log_likelihood_exact(vae.test_images)[0].mean().item() - vae.evaluate()["test_elbo"])
    assert (tmp_path / "gap.png").exists() and "collapse" in capsys.readouterr().err, "an untrained model ignores z"


# ---- networks


def test_networks_are_the_plain_ones():
    class PlainEncoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2_mu, self.fc2_sigma = nn.Linear(784, 500), nn.Linear(500, 2), nn.Linear(500, 2)

        def forward(self, x):
            h = self.fc1(x).tanh()
            return self.fc2_mu(h), self.fc2_sigma(h).exp()

    class PlainDecoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(2, 500), nn.Linear(500, 784)

        def forward(self, z):
            return self.fc2(self.fc1(z).tanh()).sigmoid()

    torch.manual_seed(1234)
    plain = PlainEncoder(), PlainDecoder()
    torch.manual_seed(1234)
    vae = VAE(argparse.Namespace())
    for ours, theirs in zip((vae.encoder, vae.decoder), plain):
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters())), "draw the same weights"
    x, z = torch.rand(4, 784).round(), torch.randn(4, 2)
    for ours, theirs in zip(vae.encoder(x), plain[0](x)):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(vae.decoder(z), plain[1](z))
    assert vae.decoder(z).shape == (4, 784)


def test_encoder_gives_variances():
    encoder = zero(Encoder(3, 5, 7))
    mu, sigma_square = encoder(torch.rand(2, 7))
    assert torch.equal(mu, torch.zeros(2, 3)) and torch.equal(sigma_square, torch.ones(2, 3)), "exp(0) = 1"
    encoder.fc2_sigma.bias.data.fill_(-2)
    torch.testing.assert_close(encoder(torch.rand(2, 7))[1], torch.full((2, 3), math.exp(-2)))


def test_decoder_gives_probabilities():
    assert torch.equal(zero(Decoder(3, 5, 7))(torch.randn(2, 3)), torch.full((2, 7), 0.5))


# ---- the class


def test_building_reads_no_data(monkeypatch):
    def forbidden(*_):
        raise AssertionError("read MNIST")

    monkeypatch.setattr(hw5_vae.utils, "mnist", forbidden)
    vae = VAE(argparse.Namespace(latent_dimension=2, hidden_units=5, data_dimension=784))
    with pytest.raises(AssertionError, match="read MNIST"):
        vae.train_images


def test_train_and_eval_keep_their_pytorch_meaning():
    vae = VAE(argparse.Namespace(hidden_units=5))
    assert vae.eval() is vae and not vae.training and not vae.encoder.training
    assert vae.train(True) is vae and vae.training and vae.encoder.training
    vae.train(mode=False)
    assert not vae.decoder.training


def test_training_raises_the_bound(capsys):
    vae = small_vae(num_epoches=3, limit=500, hidden_units=50)
    assert vae.train() is vae
    history = vae.progress["history"]
    assert [row["epoch"] for row in history] == [1, 2, 3]
    for split in ("train", "test"):
        assert history[0][f"{split}_elbo"] < history[-1][f"{split}_elbo"], "the bound must rise"
        assert all(row[f"{split}_elbo"] == pytest.approx(row[f"{split}_reconstruction"] - row[f"{split}_kl"]) for row in history)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_steps_are_plain_adam_on_the_negative_bound():
    """Twenty steps with shuffling, short last batch, decaying rate and dropout give the weights of a plainly written loop."""
    vae, plain = small_vae(num_epoches=2, limit=950, input_dropout=0.25).double(), small_vae().double()
    vae.train_images, vae.evaluate = vae.train_images.double(), dict
    plain.load_state_dict(vae.state_dict())
    optimizer = torch.optim.Adam(plain.parameters())
    shuffle, noise, drop = (torch.Generator().manual_seed(1234) for _ in range(3))
    for epoch in range(2):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1.0, 0.5)[epoch]
        rate = 0.25 * (1.0, 0.5)[epoch]
        for indices in torch.randperm(950, generator=shuffle).split(100):
            x = vae.train_images[indices]
            numbers = torch.empty(x.numel() // 8, dtype=torch.int64).random_(-(2**63), None, generator=drop)
            kept = torch.from_numpy(numbers.numpy().view("uint8")).view(x.shape) >= 256 * rate
            mu, sigma_square = plain.encoder(x * kept / (1 - rate))
            z = mu + sigma_square.sqrt() * torch.randn(mu.shape, generator=noise, dtype=torch.double)
            loss = -hw5_vae.elbo(z, mu, sigma_square, x, plain.decoder(z))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert sum(1 for row in vae.fit() if row is None) == 20
    for ours, theirs in zip(vae.parameters(), plain.parameters()):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)


def test_training_in_logits_is_the_graded_elbo():
    """Twenty steps of fit(), in double precision, give the weights of default Adam on the formula of the homework."""
    vae, plain = small_vae(num_epoches=1, limit=200, batch_size=10, input_dropout=0).double(), small_vae().double()
    vae.train_images, vae.evaluate = vae.train_images.double(), dict
    plain.load_state_dict(vae.state_dict())
    optimizer = torch.optim.Adam(plain.parameters())
    shuffle, noise = torch.Generator().manual_seed(1234), torch.Generator().manual_seed(1234)
    for indices in torch.randperm(200, generator=shuffle).split(10):
        x = vae.train_images[indices]
        mu, sigma_square = plain.encoder(x)
        z = hw5_vae.sample_diagonal_gaussian(mu, sigma_square, noise)
        optimizer.zero_grad()
        (-hw5_vae.elbo(z, mu, sigma_square, x, plain.decoder(z))).backward()
        optimizer.step()
    steps = sum(1 for row in vae.fit() if row is None)
    assert steps == 20
    for ours, theirs in zip(vae.parameters(), plain.parameters()):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


def test_drop_pixels():
    x = (torch.rand(400, 784) < 0.3).float()
    seen = hw5_vae.drop_pixels(x, 0.25)
    assert set(seen.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()} and not seen[x == 0].any()
    assert (seen[x == 1] > 0).float().mean().item() == pytest.approx(0.75, abs=0.01)
    assert hw5_vae.drop_pixels(x, 0) is x
    few = hw5_vae.drop_pixels(torch.ones(3, 5), 0.5)  # pixels that are no multiple of eight
    assert few.shape == (3, 5) and set(few.unique().tolist()) <= {0.0, 2.0}
    dropped = hw5_vae.drop_pixels(torch.ones(2000, 8), 0.5) == 0
    assert torch.corrcoef(dropped.T.float()).fill_diagonal_(0).abs().max() < 0.12, "each pixel by itself"


def test_transform_turns_scales_and_shifts_a_little():
    x = torch.zeros(3000, 28, 28)
    x[:, 8:20, 13:15] = 1  # an upright bar
    moved = hw5_vae.transform(x.flatten(1), torch.Generator().manual_seed(0))
    assert moved.shape == (3000, 784) and set(moved.unique().tolist()) == {0.0, 1.0}
    assert moved.sum(1).mean().item() == pytest.approx(24, rel=0.05), "as often larger as smaller"
    moved, place = moved.view(-1, 28, 28), torch.arange(28.0) - 13.5
    mass = moved.sum((1, 2))
    down, right = (moved.sum(2) * place).sum(1) / mass, (moved.sum(1) * place).sum(1) / mass
    for offset in (down, right):
        assert offset.abs().max() < 2 and offset.mean().abs() < 0.05 and 0.3 < offset.std() < 0.9, "uniform in one pixel either way"
    slope = (moved * place[:, None] * place).sum((1, 2)) / (moved * place[:, None] ** 2).sum((1, 2))
    assert 0.02 < slope.std() < 0.12 and slope.mean().abs() < 0.02, "uniform within 8 degrees, either way"
    assert (moved[0] != moved[1]).any(), "every image its own"


def test_augmentation_trains_the_encoder_alone():
    gradients = []
    for augment in (False, True):
        torch.manual_seed(3)
        vae = small_vae(limit=100, num_epoches=1, augment=augment, input_dropout=0, lr=1e-12)
        next(vae.fit())
        gradients.append({name: parameter.grad for name, parameter in vae.named_parameters()})
    for name, plain in gradients[0].items():
        assert torch.equal(plain, gradients[1][name]) == name.startswith("decoder"), name
    x = hw5_vae.transform(vae.train_images[torch.randperm(100, generator=torch.Generator().manual_seed(1234))], vae.fresh_generator())
    log_p_x, kl = vae.bound(x, (noise := vae.fresh_generator(), torch.randn(100, 2, generator=noise))[0])  # the second z
    for name, expected in zip(vae.encoder.state_dict(), torch.autograd.grad((kl - log_p_x).mean(), vae.encoder.parameters())):
        torch.testing.assert_close(gradients[1][f"encoder.{name}"] - gradients[0][f"encoder.{name}"], expected, atol=1e-4, rtol=1e-3)


def test_evaluation_sees_whole_images():
    """Dropout and augmentation belong to training: the values of a model do not depend on them."""
    torch.manual_seed(3)
    plain = small_vae().evaluate()
    torch.manual_seed(3)
    assert small_vae(input_dropout=0.5, augment=True).evaluate() == plain


def test_evaluation_changes_nothing_and_weighs_by_images():
    vae = small_vae()
    vae.test_images = vae.data["test"][0].repeat(2, 1)[:1300]  # one whole and one short batch
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    generator = vae.generators["z"].get_state()
    torch.manual_seed(5)
    first, second = vae.evaluate(), vae.evaluate()
    assert first == second, "the same noise at every look"
    assert torch.equal(generator, vae.generators["z"].get_state()), "training's own random numbers must not move"
    assert torch.initial_seed() == 5 and torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())
    assert all(parameter.grad is None for parameter in vae.parameters())
    with torch.no_grad():
        noise = vae.fresh_generator()
        values = [a - b for a, b in (vae.bound(x, noise) for x in vae.test_images.split(1000))]
    assert first["test_elbo"] == pytest.approx(torch.cat(values).mean().item(), rel=1e-6)


def test_training_columns_mean_what_the_held_out_ones_mean():
    """With a vanishing learning rate the epoch's mean is the bound of the same images, up to the noise in z."""
    vae = small_vae(num_epoches=1, limit=1000, lr=1e-12, hidden_units=20)
    vae.encoder.fc2_mu.bias.data.fill_(1.0)  # so that the KL is about 1
    vae.train()
    row, expected = vae.progress["history"][0], vae.evaluate(vae.train_images)
    for part, tolerance in (("elbo", 0.5), ("reconstruction", 0.5), ("kl", 0.1)):
        assert row[f"train_{part}"] == pytest.approx(expected[f"test_{part}"], abs=tolerance)
    assert row["train_kl"] > 0.5


def test_non_finite_loss_stops_with_its_parts():
    vae = small_vae(num_epoches=1, limit=300)
    nn.init.constant_(vae.decoder.fc2.bias, math.nan)
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 1: loss nan \(reconstruction nan, KL [\d.]+\)"):
        vae.train()
    assert vae.progress["step"] == 0 and not vae.encoder.fc1.weight.isnan().any(), "the weights stay as they were"


def test_wrong_data_dimension_is_refused():
    with pytest.raises(ValueError, match="data_dimension 100: the images have 784 pixels"):
        VAE(argparse.Namespace(data_dimension=100, data_dir=SAMPLE)).train_images


def test_course_weights_are_written_and_read(tmp_path):
    paths = {"e_path": str(tmp_path / "e.pt"), "d_path": str(tmp_path / "d.pt")}
    vae = small_vae(num_epoches=1, limit=100, **paths)
    vae.train()
    again = small_vae(resume_training=True, **paths)
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), again.parameters()))


# ---- figures


@pytest.fixture
def drawn(tmp_path):
    vae = small_vae(limit=300)
    vae.folder = tmp_path
    return vae


def test_data_space(drawn):
    grid = drawn.visualize_data_space()
    assert grid.shape == (10 * 28 + 9 * 3, 2 * 28 + 3)
    assert (drawn.folder / "data_space.png").stat().st_size > 1000
    left, right = grid[:28, :28], grid[:28, 31:]
    assert 0 < left.min() and left.max() < 1, "column 1 shows probabilities"
    assert set(np.unique(right)) == {0, 1}, "column 2 shows a sample"
    np.testing.assert_array_equal(grid, drawn.visualize_data_space())


def test_data_space_pairs_each_sample_with_its_probabilities(drawn):
    drawn.decoder.fc2.weight.data *= 100  # nearly certain pixels
    grid = drawn.visualize_data_space()
    left, right = grid[:, :28], grid[:, 31:]
    for row in range(10):
        rows = slice(31 * row, 31 * row + 28)
        assert np.abs(left[rows] - right[rows]).mean() < 0.1, "each row is one z"


def test_latent_space(drawn):
    means = drawn.visualize_latent_space()
    torch.testing.assert_close(torch.from_numpy(means), drawn.encoder(drawn.train_images)[0].detach())
    assert (drawn.folder / "latent_space.png").exists()


def test_inter_class_interpolation(drawn):
    drawn.encoder.fc1.weight.data *= 20  # spread the codes
    grid = drawn.visualize_inter_class_interpolation()
    assert grid.shape == (3 * 28 + 2 * 3, 11 * 28 + 10 * 3)
    with torch.no_grad():
        images = drawn.decoder(drawn.encoder(drawn.train_images)[0]).numpy().reshape(-1, 28, 28)
    digits = drawn.train_labels.argmax(1).numpy()
    for row in range(3):
        ends = []
        for column in (0, 10):
            cell = grid[31 * row : 31 * row + 28, 31 * column : 31 * column + 28]
            distances = np.abs(images - cell).max((1, 2))
            assert distances.min() < 1e-5, "the ends are reconstructions of training images at their means"
            ends.append(digits[distances.argmin()])
        assert ends[0] != ends[1], "the ends are of different classes"


def test_history_figure(drawn):
    drawn.progress["history"] = [{"epoch": e, **{f"{s}_{p}": float(e) for s in ("train", "test") for p in
                                                ("elbo", "reconstruction", "kl")}} for e in (1, 2)]
    assert drawn.visualize_history() == drawn.progress["history"]
    assert (drawn.folder / "elbo.png").exists()


@pytest.mark.parametrize("settings", [dict(latent_dimension=1), dict(limit=1), dict(latent_dimension=5)])
def test_every_figure_of_odd_sizes(settings, tmp_path):
    vae = small_vae(**{"limit": 50, **settings})
    vae.folder = tmp_path
    vae.visualize()


def test_one_course_weight_file_alone_is_refused(tmp_path):
    small_vae(e_path=tmp_path / "e.pt").save_weights()
    before = (tmp_path / "e.pt").read_bytes()
    with pytest.raises(ValueError, match="reads both"):
        small_vae(resume_training=True, e_path=tmp_path / "e.pt")
    assert (tmp_path / "e.pt").read_bytes() == before


# ---- refusals


@pytest.mark.parametrize("x, words", [
    (torch.full((2, 3), 255.0), "x has values from 255 to 255"),
    (torch.tensor([[0.0, -0.5, 1.0]]), "x has values from -0.5 to 1"),
    (torch.full((2, 3), math.nan), "x has values from nan to nan"),
    (torch.zeros(2, 4), "x has the shape [2, 4]; expected a float tensor [..., 3]"),
    (torch.zeros(2, 3, dtype=torch.uint8), "x is torch.uint8; expected a float tensor"),
    (np.zeros((2, 3)), "x is float64; expected a float tensor"),
])
def test_other_things_than_images_are_refused(x, words):
    with pytest.raises(ValueError) as caught:
        hw5_vae.logpdf_bernoulli(x, torch.full((3,), 0.5))
    assert words in str(caught.value)


def test_probabilities_outside_their_range_are_refused():
    with pytest.raises(ValueError, match="p has values from -3 to 3"):
        hw5_vae.logpdf_bernoulli(torch.zeros(1, 2), torch.tensor([[-3.0, 3.0]]))


def test_evaluate_and_fit_refuse_unscaled_images():
    vae = small_vae(num_epoches=1)
    with pytest.raises(ValueError, match=r"images has values from 0 to 255; expected a float tensor \[..., 784\]"):
        vae.evaluate(torch.linspace(0, 255, 784)[None])
    vae.train_images = torch.linspace(0, 255, 784).repeat(3, 1)
    with pytest.raises(ValueError, match="images has values from 0 to 255"):
        vae.train()


def test_course_weights_of_another_size_are_refused(tmp_path):
    paths = {"e_path": str(tmp_path / "e.pt"), "d_path": str(tmp_path / "d.pt")}
    small_vae(**paths).save_weights()
    with pytest.raises(ValueError, match="e.pt: holds other weights than those of this Encoder"):
        small_vae(hidden_units=9, resume_training=True, **paths)
    with pytest.raises(ValueError, match="nowhere: no such file"):
        small_vae(resume_training=True, e_path="nowhere", d_path="nowhere")


# ---- the other editions

editions = pytest.mark.parametrize("edition", hw5_vae.EDITIONS)


@pytest.mark.parametrize("edition, latent, hidden, data", [
    ("cs446", 2, 500, 784), ("uva", 20, 500, 784), ("ese546", 8, 128, 196), ("hw8", 20, 400, 784)])
def test_parameter_shapes(edition, latent, hidden, data):
    shapes = {name: tuple(value.shape) for name, value in VAE(argparse.Namespace(edition=edition)).named_parameters()}
    weights = {"encoder.fc1": (hidden, data), "encoder.fc2_mu": (latent, hidden), "encoder.fc2_sigma": (latent, hidden),
               "decoder.fc1": (hidden, latent), "decoder.fc2": (data, hidden)}
    assert shapes == {f"{name}.{kind}": shape for name, shape in weights.items() for kind, shape in (("weight", shape), ("bias", shape[:1]))}


@editions
def test_zero_network_of_every_edition(edition):
    """p = 1/2 for every pixel, whatever x; q(z|x) = p(z) where the head is a log-variance, so that the KL is 0."""
    vae = zero(small_vae(edition=edition))
    x = vae.test_images[:50]
    log_p_x, kl = vae.bound(x, vae.fresh_generator())
    torch.testing.assert_close(log_p_x, torch.full((50,), -x.shape[1] * LOG2))
    variance = LOG2**2 if edition == "uva" else 1.0  # softplus(0) = log 2
    expected = vae.args.latent_dimension / 2 * (variance - 1 - math.log(variance))
    assert kl.mean().item() == pytest.approx(expected, abs=1e-5)


@editions
def test_both_estimators_agree_in_the_mean(edition):
    """Eq. 1 and Eq. 2 on a fixed model, 4,000 draws for one image."""
    vae = small_vae(edition=edition)
    x, values = vae.test_images[:1].expand(4000, -1), {}
    for vae.args.kl in ("sampled", "analytic"):
        log_p_x, kl = vae.bound(x, vae.fresh_generator())
        values[vae.args.kl] = (log_p_x - kl)
    exact, sampled = values["analytic"], values["sampled"]
    assert (exact - sampled).mean().abs() < 4 * (exact - sampled).std() / math.sqrt(4000)
    assert (exact - sampled).std() > 0.01, "the estimates of the KL vary"


def test_kl_divergence_against_torch():
    mu, variance = torch.randn(6, 4), torch.rand(6, 4) + 0.1
    expected = D.kl_divergence(D.Normal(mu, variance.sqrt()), D.Normal(torch.zeros(4), torch.ones(4))).sum(1)
    torch.testing.assert_close(hw5_vae.kl_divergence(mu, variance), expected)


def test_reparameterize_takes_a_log_variance():
    mu, logvar = torch.tensor([1.0, -2.0]).expand(50_000, 2), torch.tensor([0.0, 1.5]).expand(50_000, 2)
    z = hw5_vae.reparameterize(mu, logvar)
    torch.testing.assert_close(z.mean(0), mu[0], atol=0.03, rtol=0)
    torch.testing.assert_close(z.var(0), logvar[0].exp(), rtol=0.03, atol=0)
    assert torch.corrcoef(z.T)[0, 1].abs() < 0.02, "independent noise for every element"


def test_a_scale_that_is_a_deviation_stays_positive():
    encoder = Encoder(2, 3, 4, activation="relu", scale="deviation")
    zero(encoder)
    encoder.fc2_sigma.bias.data = torch.tensor([-3.0, 2.0])
    _, variance = encoder(torch.rand(5, 4))
    torch.testing.assert_close(variance, nn.functional.softplus(torch.tensor([-3.0, 2.0])).square().expand(5, 2))


def test_two_draws_average_likelihoods_not_z():
    vae = small_vae(edition="ese546", latent_dimension=2, hidden_units=30)
    vae.decoder.fc1.weight.data *= 5  # far from linear, so that the order matters
    x = vae.test_images[:20]
    log_p_x, _ = vae.bound(x, vae.fresh_generator())
    mu, variance = vae.encoder(x)
    noise = vae.fresh_generator()
    z = [hw5_vae.sample_diagonal_gaussian(mu, variance, noise) for _ in range(2)]
    each = [hw5_vae.logpdf_bernoulli_logits(x, vae.decoder.logits(one)) for one in z]
    torch.testing.assert_close(log_p_x, (each[0] + each[1]) / 2)
    mean_z = hw5_vae.logpdf_bernoulli_logits(x, vae.decoder.logits((z[0] + z[1]) / 2))
    assert (log_p_x - mean_z).abs().max() > 0.1, "else this test shows nothing"


def test_prepare_pixels_by_hand():
    images = torch.zeros(2, 28, 28, dtype=torch.uint8)
    images[0, :2, :4] = torch.tensor([[128, 128, 255, 255], [128, 128, 3, 0]])  # means 128 and 128.25
    halved = hw5_vae.prepare_pixels(images, "halved")
    assert halved.shape == (2, 196) and halved[0, :3].tolist() == [0, 1, 0], "1 where the mean of four exceeds 128"
    gray, rounded = hw5_vae.prepare_pixels(images, "gray"), hw5_vae.prepare_pixels(images, "rounded")
    assert gray[0, 2] == 1 and gray[0, 0].item() == pytest.approx(128 / 255) and rounded[0, 0] == 1 and rounded[0, 30] == 0


def test_drawn_pixels_are_drawn_once_for_all():
    images = torch.full((200, 28, 28), 51, dtype=torch.uint8)
    torch.manual_seed(1)
    first = hw5_vae.prepare_pixels(images, "drawn")
    torch.manual_seed(2)
    assert torch.equal(first, hw5_vae.prepare_pixels(images, "drawn"))
    assert set(first.unique().tolist()) == {0.0, 1.0} and first.mean().item() == pytest.approx(51 / 255, abs=0.005)
    assert (first[0] != first[1]).any()
    same = [small_vae(edition="uva", seed=seed).train_images for seed in (1, 2)]
    assert torch.equal(*same), "one draw, whatever the seed of the run"


def test_first_of_each_digit(capsys):
    digits = torch.tensor([3, 1, 3, 3, 0, 1, *range(10)])
    images = torch.arange(16.0)[:, None]
    chosen, labels = hw5_vae.first_of_each_digit(images, torch.eye(10)[digits], 1)
    assert chosen.flatten().tolist() == [0, 1, 4, 8, 10, 11, 12, 13, 14, 15] and capsys.readouterr().err == ""
    assert labels.argmax(1).tolist() == digits[chosen.flatten().long()].tolist()
    chosen, _ = hw5_vae.first_of_each_digit(images, torch.eye(10)[digits], 2)
    assert len(chosen) == 13 and capsys.readouterr().err == "1 images of some digits where 2 were asked for: using all there are.\n"


def test_images_of_every_edition(capsys):
    """The sample has 4,000 training images, 400 of each digit, and 1,000 test images."""
    sizes = {edition: len(VAE(argparse.Namespace(edition=edition, data_dir=SAMPLE)).train_images) for edition in hw5_vae.EDITIONS}
    assert sizes == {"cs446": 4000, "uva": 3334, "ese546": 4000, "hw8": 4000}
    assert capsys.readouterr().err.count("\n") == 1, "fewer images per digit than asked: one line"
    vae = VAE(argparse.Namespace(edition="ese546", train_size=200, data_dir=SAMPLE))
    assert vae.train_labels.sum(0).tolist() == [20] * 10 and vae.train_images.shape == (200, 196)


def test_validation_images_never_train(tmp_path):
    weights = []
    for spoiled in (False, True):
        torch.manual_seed(1)
        vae = VAE(argparse.Namespace(edition="uva", hidden_units=8, num_epoches=1, train_size=10**6, data_dir=SAMPLE), tmp_path)
        assert len(vae.held_out_images) == 666 and len(vae.train_images) == 3334
        if spoiled:
            vae.held_out_images.fill_(0.5)
        history = [row for row in vae.fit() if row]
        weights.append([value.clone() for value in vae.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights))
    assert "validation_elbo" in history[0] and "test_elbo" not in history[0], "no epoch looks at the test images"


def test_manifold_has_no_infinite_border_and_the_right_order(tmp_path):
    vae = small_vae(edition="uva", latent_dimension=2)
    vae.folder = tmp_path
    grid = vae.visualize_manifold()
    assert grid.shape == (617, 617) and np.isfinite(grid).all()
    quantile = lambda u: D.Normal(0, 1).icdf(torch.tensor(u)).item()
    with torch.no_grad():
        for row, column in ((0, 0), (19, 0), (4, 11)):
            z = torch.tensor([[quantile((column + 0.5) / 20), quantile((19 - row + 0.5) / 20)]])
            np.testing.assert_allclose(grid[31 * row :][:28, 31 * column :][:, :28], vae.decoder(z).view(28, 28), atol=1e-5)
    assert small_vae(edition="uva").visualize_manifold() is None, "only a plane of latents can be shown"


def test_small_images_are_shown_at_twice_their_size(tmp_path):
    vae = small_vae(edition="ese546", limit=100)
    vae.folder = tmp_path
    grid = vae.visualize_reconstructions()
    assert grid.shape == (8 * 28 + 7 * 3, 2 * 28 + 3)
    np.testing.assert_array_equal(grid[31:59:2, :28:2], vae.test_images[1].view(14, 14))
    np.testing.assert_array_equal(grid[31:59:2, :28:2], grid[32:59:2, 1:28:2])


def test_curves_over_updates(tmp_path):
    vae = small_vae(edition="ese546", limit=1000, num_epoches=4)  # 32 updates an epoch
    vae.folder = tmp_path
    vae.train()
    updates, checks = vae.progress["updates"], vae.progress["checks"]
    assert len(updates) == 128 and [update for update, _ in checks] == [100]
    epoch = vae.progress["history"][0]
    weights = [32] * 31 + [8]
    for column, part in enumerate(("reconstruction", "kl")):
        mean = sum(weight * update[column] for weight, update in zip(weights, updates)) / 1000
        assert mean == pytest.approx(epoch[f"train_{part}"], rel=1e-4)
    assert -196 * LOG2 < checks[0][1] < 0, "log-likelihood, with its true sign"
    assert vae.visualize_updates() is updates


@pytest.mark.parametrize("edition, epochs", [("uva", {0, 2, 4}), ("hw8", {1, 2, 3, 4}), ("ese546", {4}), ("cs446", set())])
def test_samples_at_the_epochs_that_the_edition_asks_for(edition, epochs, tmp_path):
    vae = small_vae(edition=edition, limit=40, num_epoches=4)
    vae.folder = tmp_path
    vae.train()
    assert {path.name for path in tmp_path.glob("samples*")} == {f"samples_epoch_{epoch}.png" for epoch in epochs}


def test_flags_override_the_edition():
    args = hw5_vae.parse_args(["--edition", "uva", "--latent_dimension", "2"])
    assert (args.latent_dimension, args.num_epoches, args.batch_size, args.lr) == (2, 40, 128, 1e-3)
    args = hw5_vae.parse_args(["--epochs", "3", "--edition=hw8"])
    assert (args.num_epoches, args.hidden_units, args.train_size) == (3, 400, 60_000)


def test_a_stop_in_the_first_epoch_keeps_the_picture_of_the_start(tmp_path):
    whole, stopped = (small_vae(edition="uva", limit=300, num_epoches=1) for _ in range(2))
    whole.folder, stopped.folder = tmp_path / "whole", tmp_path / "stopped"
    stopped.load_state_dict(whole.state_dict())
    list(whole.fit())
    for _ in zip(range(2), stopped.fit()):
        pass
    list(stopped.fit())  # as after a resume
    for name in ("samples_epoch_0.png", "samples_epoch_1.png"):
        assert (whole.folder / name).read_bytes() == (stopped.folder / name).read_bytes(), name


def test_transform_keeps_gray_images_gray():
    x = torch.rand(5, 784)
    assert len(hw5_vae.transform(x, binary=False).unique()) > 100 and set(hw5_vae.transform(x).unique().tolist()) == {0.0, 1.0}


def test_transform_turns_and_does_not_shear():
    """The same turn leans an upright bar to one side and a level one, seen in its own direction, to the other."""
    upright = torch.zeros(2000, 28, 28)
    upright[:, 6:22, 13:15] = 1
    place, slopes = torch.arange(28.0) - 13.5, []
    for x in (upright, upright.mT):
        moved = hw5_vae.transform(x.flatten(1), torch.Generator().manual_seed(0)).view(-1, 28, 28)
        across, down = (torch.einsum(f"nhw,{axis}->n", moved, place) / moved.sum((1, 2)) for axis in "wh")
        products = torch.einsum("nhw,h,w->n", moved, place, place) / moved.sum((1, 2)) - across * down
        slopes.append(products)
    assert torch.corrcoef(torch.stack(slopes))[0, 1] < -0.8
