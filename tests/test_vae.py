"""hw5_vae alone: values, identities and moments of its maths; networks; training as a plain loop; figures; refusals."""

import argparse
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from plain import assert_same_weights, figures_of, sample, zero
from torch import distributions as D
from torch import nn

import hw5_vae
from hw5_vae import VAE, Decoder, Encoder

LOG2 = math.log(2)


def small_vae(images=200, **settings):
    """The homework's VAE on the first images of the sample."""
    vae = VAE(argparse.Namespace(**{"hidden_units": 8, **settings}))
    vae.train_images, vae.train_labels = (part[:images] for part in sample()[:2])
    return vae


# ---- densities


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
    of_one_row = hw5_vae.logpdf_diagonal_gaussian(z, torch.zeros(5), torch.ones(5))
    torch.testing.assert_close(of_one_row, hw5_vae.logpdf_diagonal_gaussian(z, torch.zeros(7, 5), torch.ones(7, 5)))
    torch.testing.assert_close(of_one_row, D.Normal(0.0, 1.0).log_prob(z).sum(1))


def test_logpdf_bernoulli_by_hand_and_against_torch():
    x, p = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.25, 0.25]])
    assert hw5_vae.logpdf_bernoulli(x, p).item() == pytest.approx(math.log(0.25 * 0.75), rel=1e-6)
    x, p = torch.rand(7, 9).round(), torch.rand(7, 9)
    torch.testing.assert_close(hw5_vae.logpdf_bernoulli(x, p), D.Bernoulli(p).log_prob(x).sum(1))
    of_one_row = hw5_vae.logpdf_bernoulli(x, p[0])
    torch.testing.assert_close(of_one_row, D.Bernoulli(p[0]).log_prob(x).sum(1), msg="p of shape [D]")


def test_logpdf_bernoulli_at_certainty():
    x = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    p = torch.tensor([[0.0, 1.0]]).expand(4, 2).clone().requires_grad_()
    value = hw5_vae.logpdf_bernoulli(x, p)
    assert value.tolist() == [0.0, -math.inf, -math.inf, -math.inf], "finite where x agrees, else -inf, never NaN"
    value[0].backward()
    assert p.grad[0].isfinite().all(), "0 log 0 must not poison the gradient"
    assert p.grad[0].tolist() == [-1.0, 1.0]
    half = hw5_vae.logpdf_bernoulli(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 0.5]]))
    assert half.item() == pytest.approx(-LOG2), "the certain pixel adds exactly 0"


def test_empty_batches_give_empty_results():
    z, x = torch.zeros(0, 2), torch.zeros(0, 9)
    for value in (
        hw5_vae.logpdf_diagonal_gaussian(z, z, z + 1),
        hw5_vae.logpdf_bernoulli(x, x),
        hw5_vae.kl_estimate(z, z, z + 1),
    ):
        assert value.shape == (0,)
    assert hw5_vae.sample_diagonal_gaussian(z, z + 1).shape == (0, 2) and hw5_vae.sample_Bernoulli(x).shape == (0, 9)


# ---- samples


def test_sample_diagonal_gaussian_is_one_randn_of_the_right_shape():
    mu, sigma_square = torch.randn(3, 4), torch.rand(3, 4)
    torch.manual_seed(7)
    z = hw5_vae.sample_diagonal_gaussian(mu, sigma_square)
    torch.manual_seed(7)
    torch.testing.assert_close(z, mu + sigma_square.sqrt() * torch.randn(3, 4), rtol=0, atol=0)


def test_sample_diagonal_gaussian_moments():
    mu, sigma_square = torch.tensor([1.0, -2.0]), torch.tensor([4.0, 0.25])
    z = hw5_vae.sample_diagonal_gaussian(mu.expand(200_000, 2), sigma_square.expand(200_000, 2))
    torch.testing.assert_close(z.mean(0), mu, atol=0.02, rtol=0)  # standard error 0.0045
    torch.testing.assert_close(z.var(0), sigma_square, atol=0, rtol=0.02)  # standard error 0.3%
    assert abs(torch.corrcoef(z.T)[0, 1]) < 0.02, "the dimensions need noise of their own"


@pytest.mark.parametrize("mu_rows, variance_rows", [((), (50_000,)), ((50_000,), ()), ((1,), (50_000,)), ((), ())])
def test_a_shared_mean_or_variance_still_gives_every_row_its_own_noise(mu_rows, variance_rows):
    mu, sigma_square = torch.tensor([1.0, -2.0]), torch.tensor([4.0, 0.25])
    z = hw5_vae.sample_diagonal_gaussian(mu.expand(*mu_rows, 2), sigma_square.expand(*variance_rows, 2))
    assert z.shape == (*(mu_rows if len(mu_rows) and mu_rows[0] > 1 else variance_rows), 2)
    if z.ndim == 2:
        torch.testing.assert_close(
            z.var(0), sigma_square, atol=0, rtol=0.05, msg="noise of the smaller shape is the same in every row"
        )


def test_gradients_reach_both_parameters_through_the_sample():
    mu, sigma_square = torch.zeros(3, 2, requires_grad=True), torch.full((3, 2), 4.0, requires_grad=True)
    z = hw5_vae.sample_diagonal_gaussian(mu, sigma_square)
    z.sum().backward()
    assert torch.equal(mu.grad, torch.ones(3, 2))
    eps = z.detach() / 2
    torch.testing.assert_close(sigma_square.grad, eps / (2 * 2.0), msg="d z / d sigma^2 = eps / (2 sigma)")


def test_sample_bernoulli():
    p = torch.tensor([0.0, 0.3, 1.0]).expand(100_000, 3)
    x = hw5_vae.sample_Bernoulli(p)
    assert x.dtype == torch.float32 and set(x.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(x.mean(0), p[0], atol=0.01, rtol=0)
    assert x[:, 0].max() == 0 and x[:, 2].min() == 1


def test_interpolate_mu():
    mua, mub = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    assert hw5_vae.interpolate_mu(mua, mub).tolist() == [0.5, 1.0]
    assert hw5_vae.interpolate_mu(mua, mub, 1).tolist() == [1.0, 0.0], "alpha = 1 is the first point"
    assert hw5_vae.interpolate_mu(mua, mub, 0.25).tolist() == [0.25, 1.5]


def test_a_variance_may_be_a_number():
    z, mu = torch.randn(4, 3), torch.randn(4, 3)
    for value in (1, 0.3):
        expected = hw5_vae.logpdf_diagonal_gaussian(z, mu, torch.full((4, 3), float(value)))
        torch.testing.assert_close(hw5_vae.logpdf_diagonal_gaussian(z, mu, value), expected)
        torch.testing.assert_close(hw5_vae.logpdf_diagonal_gaussian(z.double(), mu.double(), value), expected.double())
    torch.manual_seed(1)
    drawn = hw5_vae.sample_diagonal_gaussian(mu, 0.25)
    torch.manual_seed(1)
    torch.testing.assert_close(drawn, mu + 0.5 * torch.randn(4, 3))


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


def test_elbo_of_no_images_is_refused():
    z, x = torch.zeros(0, 2), torch.zeros(0, 9)
    with pytest.raises(ValueError, match="elbo: an empty batch has no mean"):
        hw5_vae.elbo(z, z, z + 1, x, x)


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


def test_elbo_terms_agrees_and_stays_finite():
    mu, sigma_square, z = (values.double() for values in (torch.randn(7, 2), torch.rand(7, 2) + 0.1, torch.randn(7, 2)))
    x, logits = torch.rand(7, 9).round().double(), 5 * torch.randn(7, 9).double()
    log_p_x, kl = hw5_vae.elbo_terms(z, mu, sigma_square, x, logits)
    torch.testing.assert_close(log_p_x, hw5_vae.logpdf_bernoulli(x, logits.sigmoid()))
    torch.testing.assert_close((log_p_x - kl).mean(), hw5_vae.elbo(z, mu, sigma_square, x, logits.sigmoid()))
    one = torch.ones(1, 1)
    assert hw5_vae.elbo_terms(one, one, one, one, -1000 * one)[0].item() == -1000, "p rounds to 0, logits do not"


def test_training_maximises_the_graded_elbo():
    """The bound that training uses, from logits and in two parts, is the graded function of the probabilities."""
    vae = small_vae(hidden_units=20)
    x = vae.train_images[:50]
    log_p_x, kl = vae.terms(x, torch.Generator().manual_seed(3))
    mu, sigma_square = vae.encoder(x)
    z = VAE.sample_z(mu, sigma_square, torch.Generator().manual_seed(3))
    torch.testing.assert_close((log_p_x - kl).mean(), VAE.elbo_loss(z, mu, sigma_square, x, vae.decoder(z)))


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
        assert_same_weights(ours, theirs)
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

    monkeypatch.setattr(hw5_vae.utils, "load_mnist", forbidden)
    vae = VAE(argparse.Namespace(latent_dimension=2, hidden_units=5, data_dimension=784))
    with pytest.raises(AssertionError, match="read MNIST"):
        vae.train_images


def test_data_are_the_first_images_of_the_course(monkeypatch):
    data = sample()
    monkeypatch.setattr(hw5_vae.utils, "load_mnist", lambda: (60_000, *data))
    vae = VAE(argparse.Namespace(hidden_units=5))
    for ours, theirs in zip((*vae.splits["train"], *vae.splits["test"]), data, strict=True):
        assert torch.equal(ours, theirs)


def test_train_and_eval_keep_their_pytorch_meaning():
    vae = VAE(argparse.Namespace(hidden_units=5))
    assert vae.eval() is vae and not vae.training and not vae.encoder.training
    assert vae.train(True) is vae and vae.training and vae.encoder.training
    vae.train(mode=False)
    assert not vae.decoder.training


def test_training_raises_the_bound(capsys):
    vae = small_vae(500, num_epoches=3, hidden_units=50)
    rows, epochs = [], vae.epochs
    vae.epochs = lambda: (rows.append(row) or row for row in epochs())
    assert vae.train() is vae
    assert rows[0]["train_elbo"] < rows[1]["train_elbo"] < rows[2]["train_elbo"], "the bound must rise"
    assert all(row["train_elbo"] == pytest.approx(row["train_reconstruction"] - row["train_kl"]) for row in rows)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2", "epoch 3"]
    assert f"train_elbo {rows[-1]['train_elbo']:.2f}" in lines[-1]


@pytest.mark.parametrize("images, batch, epochs", [(200, 10, 1), (950, 100, 2)])
def test_training_is_default_adam_on_the_graded_elbo(images, batch, epochs):
    """Twenty steps, in double precision, with a short last batch and a rate on a cosine, written plainly."""
    vae, plain = (small_vae(images, num_epoches=epochs, batch_size=batch).double() for _ in range(2))
    vae.train_images = vae.train_images.double()
    plain.load_state_dict(vae.state_dict())
    optimizer = torch.optim.Adam(plain.parameters())
    shuffle, noise = (torch.Generator().manual_seed(1234) for _ in range(2))
    expected = []
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1.0, 0.5)[epoch]
        bounds = []
        for indices in torch.randperm(images, generator=shuffle).split(batch):
            x = vae.train_images[indices]
            mu, sigma_square = plain.encoder(x)
            z = mu + sigma_square.sqrt() * torch.randn(mu.shape, generator=noise, dtype=torch.double)
            elbo = hw5_vae.elbo(z, mu, sigma_square, x, plain.decoder(z))
            optimizer.zero_grad()
            (-elbo).backward()
            optimizer.step()
            bounds.append(elbo.item() * len(x))
        expected.append(sum(bounds) / images)
    rows = list(vae.epochs())
    assert [row["epoch"] for row in rows] == list(range(1, epochs + 1))
    assert_same_weights(vae, plain, 1e-9)
    assert [row["train_elbo"] for row in rows] == pytest.approx(expected), "a mean over images, not over batches"


def test_training_columns_are_the_bound_of_the_images():
    """With a vanishing learning rate the epoch's mean is the bound of the same images, up to the noise in z."""
    vae = small_vae(1000, num_epoches=1, lr=1e-12, hidden_units=20)
    vae.encoder.fc2_mu.bias.data.fill_(1.0)  # so that the KL is about 1
    (row,) = vae.epochs()
    log_p_x, kl = vae.evaluate(vae.train_images)
    assert row["train_reconstruction"] == pytest.approx(log_p_x.mean().item(), abs=0.5)
    assert row["train_kl"] == pytest.approx(kl.mean().item(), abs=0.1) and row["train_kl"] > 0.5


def test_training_goes_on_from_any_epoch():
    """epochs(first) leaves out the first epochs, and the rate is that of the epoch."""
    whole, parts = small_vae(num_epoches=3), small_vae(num_epoches=3)
    parts.load_state_dict(whole.state_dict())
    rows = list(whole.epochs())
    first = parts.epochs()
    assert next(first) == rows[0]
    assert list(parts.epochs(1)) == rows[1:]
    assert_same_weights(whole, parts)


def test_evaluation_changes_nothing_and_restores_the_mode():
    """Fresh noise at every call, evaluation mode, no gradients, no random number of the training."""
    vae = small_vae()
    vae.decoder.fc1 = nn.Sequential(nn.Dropout(0.5), vae.decoder.fc1)
    before = vae.noise_rng.get_state(), vae.shuffle_rng.get_state(), torch.get_rng_state()
    one, two = vae.evaluate(vae.train_images), vae.evaluate(vae.train_images)
    assert all(map(torch.equal, one, two)) and not one[0].requires_grad, "dropout must be off"
    assert vae.training and vae.decoder.fc1[0].training, "the mode is restored"
    after = vae.noise_rng.get_state(), vae.shuffle_rng.get_state(), torch.get_rng_state()
    assert all(map(torch.equal, before, after))


def test_figures_go_nowhere_near_a_run():
    """Called from Python, a figure is written beside the runs' folders, never into one."""
    assert VAE.folder.parts[-2:] == ("outputs", "figures")


def test_non_finite_loss_stops_with_its_parts():
    vae = small_vae(num_epoches=1)
    nn.init.constant_(vae.decoder.fc2.bias, math.nan)
    with pytest.raises(
        FloatingPointError, match=r"epoch 1, step 1: reconstruction nan, KL -?[\d.]+; try a smaller --lr"
    ):
        vae.train()


def test_course_weights_are_written_and_read(tmp_path):
    paths = {"e_path": str(tmp_path / "e.pt"), "d_path": str(tmp_path / "d.pt")}
    vae = small_vae(num_epoches=1, **paths)
    vae.train()
    again = small_vae(resume_training=True, **paths)
    assert_same_weights(vae, again)
    assert list(torch.load(paths["d_path"], weights_only=True)) == list(vae.decoder.state_dict())


def test_a_frozen_layer_stays_frozen():
    """Also one of a student's, in evaluation mode while the rest is trained."""
    vae = small_vae()
    vae.frozen = nn.Dropout().eval()
    vae.evaluate(torch.rand(3, 784).round())
    assert vae.training and vae.encoder.training and not vae.frozen.training


def test_ctrl_c_before_the_first_update_leaves_the_weights_that_are_there(tmp_path, monkeypatch):
    path = tmp_path / "e.pt"
    small_vae(e_path=str(path)).save_weights()
    before = path.read_bytes()

    def stopped(self, first=0):
        raise KeyboardInterrupt

    monkeypatch.setattr(hw5_vae.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(hw5_vae.VAE, "epochs", stopped)
    assert hw5_vae.main(["--e_path", str(path), "--hidden_units", "5"]) == 130
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["e.pt"]


def test_ctrl_c_keeps_what_an_optimizer_without_memory_has_learned(tmp_path, monkeypatch):
    """Plain SGD has no state that would tell of its updates."""
    path = tmp_path / "e.pt"

    def one_update(self, first=0):
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        self.step(torch.rand(3, 784).round())
        raise KeyboardInterrupt

    monkeypatch.setattr(hw5_vae.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(hw5_vae.VAE, "epochs", one_update)
    monkeypatch.setattr(hw5_vae.VAE, "visualize", lambda self: None)
    monkeypatch.setattr(hw5_vae.VAE, "held_out_images", torch.zeros(2, 784))
    assert hw5_vae.main(["--e_path", str(path), "--hidden_units", "5"]) == 130
    assert path.exists()


def test_weights_of_other_networks_are_refused(tmp_path):
    """Those of another size, the two files swapped, and a file that holds no weights."""
    paths = {"e_path": str(tmp_path / "e.pt"), "d_path": str(tmp_path / "d.pt")}
    small_vae(**paths).save_weights()
    torch.save([1], tmp_path / "list.pt")
    torch.save({1: torch.ones(2)}, tmp_path / "numbers.pt")
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "hello.pt").write_text("hello world")
    (tmp_path / "empty.pt").touch()
    whole = (tmp_path / "e.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    swapped = {"e_path": paths["d_path"], "d_path": paths["e_path"]}
    names = "list.pt", "numbers.pt", "text.pt", "hello.pt", "empty.pt", "half.pt"
    other = [{**paths, "e_path": str(tmp_path / name)} for name in names]
    for given in ({**paths, "hidden_units": 7}, swapped, *other):
        with pytest.raises(
            ValueError, match="holds no weights of this Encoder; use those of a run with the same sizes"
        ):
            small_vae(resume_training=True, **given)


def test_a_file_that_holds_anything_else_is_not_overwritten(tmp_path, monkeypatch):
    """A document and numpy's arrays are zips too; the other network's weights, and a path named twice."""
    paths = {"e_path": str(tmp_path / "e.pt"), "d_path": str(tmp_path / "d.pt")}
    small_vae(**paths).save_weights()
    np.savez(tmp_path / "data.npz", np.ones(3))
    (tmp_path / "thesis.txt").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    small_vae(**paths).check_paths()
    for name in ("d.pt", "data.npz", "thesis.txt"):
        with pytest.raises(ValueError, match=f"{name}: holds no weights of this Encoder, so it is not overwritten"):
            small_vae(e_path=str(tmp_path / name)).train()
    with pytest.raises(ValueError, match="new.pt: cannot hold both networks"):
        small_vae(e_path=str(tmp_path / "new.pt"), d_path=str(tmp_path / "new.pt")).train()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(
        ValueError, match="new.pt: cannot be written; name a file in a folder that is there and writable"
    ):
        small_vae(e_path=str(tmp_path / "new.pt")).train()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_link_to_weights_stays_a_link(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "e.pt").symlink_to(tmp_path / "kept" / "e.pt")
    small_vae(e_path=str(tmp_path / "e.pt")).save_weights()
    assert (tmp_path / "e.pt").is_symlink() and [path.name for path in (tmp_path / "kept").iterdir()] == ["e.pt"]


def test_the_script_alone_says_the_bound(monkeypatch, capsys):
    monkeypatch.setattr(hw5_vae.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(VAE, "train", lambda self, mode=None: self)
    monkeypatch.setattr(VAE, "visualize", lambda self: None)
    monkeypatch.setattr(VAE, "held_out_images", None)
    monkeypatch.setattr(VAE, "evaluate", lambda self, images: [torch.tensor([-90.0, -110.0]), torch.tensor([6.0, 8.0])])
    assert hw5_vae.main(["--hidden_units", "5"]) == 0
    assert "ELBO of 2 held-out images: -107.0 nats" in capsys.readouterr().out


def test_a_step_returns_numbers_without_a_history():
    assert not any(value.requires_grad for value in small_vae().step(torch.rand(3, 784).round()))


def test_a_full_disk_leaves_the_old_weights_and_nothing_else(tmp_path, monkeypatch):
    vae = small_vae(e_path=str(tmp_path / "e.pt"))
    vae.save_weights()
    before = (tmp_path / "e.pt").read_bytes()

    def full(self, content):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        vae.save_weights()
    assert [path.name for path in tmp_path.iterdir()] == ["e.pt"] and (tmp_path / "e.pt").read_bytes() == before


def test_a_loaded_model_is_trained_in_training_mode():
    """One in evaluation mode as a whole, that is: a frozen layer stays frozen."""
    vae = small_vae(num_epoches=1)
    vae.norm = nn.BatchNorm1d(8).eval()
    for mode in (True, False):
        nn.Module.train(vae, mode)
        vae.norm.eval()
        vae.train()
        assert vae.training and vae.encoder.training and vae.norm.training == (not mode)


def test_images_of_another_size_are_refused_before_the_training(monkeypatch):
    split = torch.zeros(5, 784), torch.zeros(5, 10)
    monkeypatch.setattr(hw5_vae.VAE, "read_data", lambda self: {"train": split, "test": split})
    with pytest.raises(ValueError, match="data_dimension 100: the images have 784 pixels; use that"):
        hw5_vae.VAE(argparse.Namespace(data_dimension=100, hidden_units=5)).train()


@pytest.mark.parametrize("given", [(), ("e_path",), ("d_path",)])
def test_resuming_without_both_files_is_refused(given, tmp_path):
    paths = {name: str(tmp_path / name) for name in given}
    small_vae(**paths).save_weights()
    with pytest.raises(ValueError, match="no such file; --resume_training reads both files"):
        small_vae(resume_training=True, **paths)


# ---- figures


@pytest.fixture
def drawn(tmp_path):
    vae = small_vae(300)
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


def test_data_space_is_of_the_prior(drawn):
    z = torch.randn(10, 2, generator=drawn.fresh_rng())
    with torch.no_grad():
        p = drawn.decoder(z).view(10, 28, 28).numpy()
    grid = drawn.visualize_data_space()
    for row in range(10):
        np.testing.assert_allclose(grid[31 * row : 31 * row + 28, :28], p[row], atol=1e-6)


def test_images_are_shown_upright_in_gray_with_the_right_labels(drawn):
    figures = figures_of(drawn)
    drawn.visualize_data_space(), drawn.visualize_inter_class_interpolation()
    labels = {
        "data_space.png": ["p(x|z)", "sample"],
        "inter_class_interpolation.png": [f"{step / 10}" for step in range(11)],
    }
    for name, expected in labels.items():
        (axes,) = figures[name].axes
        (image,) = axes.images
        assert (image.origin, image.get_cmap().name, image.get_clim()) == ("upper", "gray", (0, 1))
        assert [text.get_text() for text in axes.get_xticklabels()] == expected
        assert axes.get_xticks().tolist() == [14 + 31 * column for column in range(len(expected))]


def test_each_classs_digit_stands_at_its_median(drawn):
    figures, digits = figures_of(drawn), drawn.train_labels.argmax(1)
    means = torch.from_numpy(drawn.visualize_latent_space())
    (axes,) = figures["latent_space.png"].axes
    places = {text.get_text(): text.get_position() for text in axes.texts}
    expected = {str(digit): means[digits == digit].median(0).values.tolist() for digit in range(10)}
    assert {digit: pytest.approx(place) for digit, place in expected.items()} == places


def test_data_space_pairs_each_sample_with_its_probabilities(drawn):
    drawn.decoder.fc2.weight.data *= 100  # nearly certain pixels
    grid = drawn.visualize_data_space()
    left, right = grid[:, :28], grid[:, 31:]
    for row in range(10):
        rows = slice(31 * row, 31 * row + 28)
        assert np.abs(left[rows] - right[rows]).mean() < 0.1, "each row is one z"
    assert np.abs(left[:28] - left[31:59]).mean() > 0.01, "each row is a z of its own"


def test_latent_space(drawn):
    means = drawn.visualize_latent_space()
    torch.testing.assert_close(torch.from_numpy(means), drawn.encoder(drawn.train_images)[0].detach())
    assert (drawn.folder / "latent_space.png").exists()


def test_latent_space_has_the_colour_of_each_class(drawn, monkeypatch):
    figures = []
    monkeypatch.setattr(drawn, "save", lambda figure, name: figures.append(figure))
    means = drawn.visualize_latent_space()
    from matplotlib.colors import to_rgba

    (axes,) = figures[0].axes
    scatter = axes.collections[0]
    placed = {
        tuple(point): tuple(colour)
        for point, colour in zip(scatter.get_offsets().data.tolist(), scatter.to_rgba(scatter.get_array()))
    }
    for mean, digit in zip(means.tolist(), drawn.train_labels.argmax(1)):
        assert placed[tuple(mean)] == to_rgba(f"C{digit}"), "points and labels must be in the same order"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [str(digit) for digit in range(10)]


def test_a_line_of_latents_has_a_row_for_each_class(monkeypatch):
    vae, figures = small_vae(50, latent_dimension=1), []
    monkeypatch.setattr(vae, "save", lambda figure, name: figures.append(figure))
    means = vae.visualize_latent_space()
    (axes,) = figures[0].axes
    found = sorted(map(tuple, axes.collections[0].get_offsets().data.tolist()))
    expected = sorted(zip(means[:, 0].tolist(), vae.train_labels.argmax(1).tolist()))
    assert np.allclose(found, expected) and axes.get_ylabel() == "class" and axes.get_aspect() == "auto"


def test_inter_class_interpolation(drawn):
    drawn.encoder.fc1.weight.data *= 20  # spread the codes
    grid = drawn.visualize_inter_class_interpolation()
    assert grid.shape == (3 * 28 + 2 * 3, 11 * 28 + 10 * 3)
    with torch.no_grad():
        means = drawn.encoder(drawn.train_images)[0]
        images = drawn.decoder(means).numpy().reshape(-1, 28, 28)
    digits, pairs = drawn.train_labels.argmax(1), []
    cell = lambda row, column: grid[31 * row : 31 * row + 28, 31 * column : 31 * column + 28]
    for row in range(3):
        distances = [np.abs(images - cell(row, column)).max((1, 2)) for column in (0, 10)]
        assert max(distance.min() for distance in distances) < 1e-5, "the ends are training images at their means"
        b, a = (distance.argmin().item() for distance in distances)
        assert digits[a] != digits[b], "the ends are of different classes"
        with torch.no_grad():
            between = drawn.decoder(hw5_vae.interpolate_mu(means[a], means[b], 0.3)[None]).view(28, 28)
        np.testing.assert_allclose(cell(row, 3), between, atol=1e-5, err_msg="a column is an alpha, from 0 to 1")
        pairs += [a, b]
    assert len(set(pairs)) == 6, "six different images"


def test_interpolation_names_the_classes_at_its_ends(drawn, monkeypatch):
    """The digit on the left is that of alpha = 0, on the right that of alpha = 1."""
    figures = []
    monkeypatch.setattr(drawn, "save", lambda figure, name: figures.append(figure))
    drawn.visualize_inter_class_interpolation()
    digits = drawn.train_labels.argmax(1)
    pairs = drawn.pairs_of_different_classes(3)
    (axes,) = figures[0].axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [str(digits[b].item()) for _, b in pairs]
    assert [text.get_text() for text in axes.texts] == [str(digits[a].item()) for a, _ in pairs]


@pytest.mark.parametrize("seed", range(20))
def test_pairs_are_six_images_of_different_classes(seed):
    vae = small_vae(60, seed=seed)
    pairs = vae.pairs_of_different_classes(3)
    digits = vae.train_labels.argmax(1)[pairs]
    assert len(set(pairs.flatten().tolist())) == 6 and (digits[:, 0] != digits[:, 1]).all()


@pytest.mark.parametrize("images, settings", [(50, dict(latent_dimension=1)), (1, {}), (50, dict(latent_dimension=5))])
def test_every_figure_of_odd_sizes(images, settings, tmp_path):
    vae = small_vae(images, **settings)
    vae.folder = tmp_path
    vae.visualize()
    assert {path.stem for path in tmp_path.iterdir()} == {"data_space", "latent_space", "inter_class_interpolation"}


# ---- refusals


@pytest.mark.parametrize(
    "x, words",
    [
        (torch.full((2, 3), 255.0), "x has values from 255 to 255; expected all in [0,1]"),
        (torch.tensor([[0.0, -0.5, 1.0]]), "x has values from -0.5 to 1"),
        (torch.full((2, 3), math.nan), "x has values from nan to nan"),
        (torch.tensor([[1.0, 1.0000001]]), "x has values from 1 to 1.00000012"),
        (torch.full((2, 3), 255, dtype=torch.uint8), "x has values from 255 to 255"),
    ],
)
def test_other_things_than_images_are_refused(x, words):
    with pytest.raises(ValueError) as caught:
        hw5_vae.logpdf_bernoulli(x, torch.full((3,), 0.5))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "transform",
    [torch.func.vmap, lambda function: torch.compile(function, fullgraph=True, backend="eager")],
    ids=["vmap", "compile"],
)
def test_densities_work_in_transforms_of_pytorch(transform):
    x, p = (torch.rand(4, 5) > 0.5).float(), torch.rand(4, 5)
    torch.testing.assert_close(transform(hw5_vae.logpdf_bernoulli)(x, p), hw5_vae.logpdf_bernoulli(x, p))
    gaussian = hw5_vae.logpdf_diagonal_gaussian
    torch.testing.assert_close(transform(gaussian)(x, p, p + 1), gaussian(x, p, p + 1))


def test_gradients_of_single_images_by_vmap():
    x, p = (torch.rand(4, 5) > 0.5).float(), torch.rand(4, 5)
    found = torch.func.vmap(torch.func.grad(hw5_vae.logpdf_bernoulli, argnums=1))(x, p)
    torch.testing.assert_close(found, x / p - (1 - x) / (1 - p))


def test_a_probability_may_be_a_number():
    x = torch.tensor([[1.0, 0, 0], [1, 1, 1]])
    expected = torch.tensor([math.log(0.2) + 2 * math.log(0.8), 3 * math.log(0.2)])
    torch.testing.assert_close(hw5_vae.logpdf_bernoulli(x, 0.2), expected)
    with pytest.raises(ValueError, match="p has values from 1.5 to 1.5"):
        hw5_vae.logpdf_bernoulli(x, 1.5)


def test_probabilities_outside_their_range_are_refused():
    with pytest.raises(ValueError, match="p has values from -3 to 3"):
        hw5_vae.logpdf_bernoulli(torch.zeros(1, 2), torch.tensor([[-3.0, 3.0]]))


def test_training_on_unscaled_images_is_refused():
    vae = small_vae(num_epoches=1)
    vae.train_images = torch.linspace(0, 255, 784).repeat(3, 1)
    with pytest.raises(ValueError, match="images has values from 0 to 255"):
        vae.train()
