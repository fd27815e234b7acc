"""hw5_lab/measures/likelihood: log p(x) by two routes, and what a decoder reaches that ignores z."""

import argparse
import math

import numpy as np
import pytest
import torch
from plain import sample, settings_of, zero
from torch import nn

import hw5_vae
from hw5_lab.measures import likelihood
from hw5_lab.measures.likelihood import (
    log_likelihood_exact,
    log_likelihood_sampled,
    log_mean_exp,
    logits_of,
    standard_error,
)

LOG2 = math.log(2)


def test_log_mean_exp():
    values = torch.tensor([[0.0, -1000.0], [math.log(3.0), -1000.0]])
    torch.testing.assert_close(log_mean_exp(values), torch.tensor([LOG2, -1000.0]))


def test_standard_error():
    """Of the values 1 and 3: a deviation of sqrt(2), over sqrt(2)."""
    assert standard_error(torch.tensor([1.0, 3.0])) == pytest.approx(1.0)
    assert math.isnan(standard_error(torch.tensor([1.0]))), "a single value tells no error"


@pytest.fixture
def vae():
    """A model whose decoder depends on z and whose encoder is mediocre: all three values of log p(x) differ."""
    vae = hw5_vae.VAE(settings_of("hw5_vae", hidden_units=30))
    vae.decoder.fc1.weight.data *= 2
    vae.decoder.fc2.weight.data *= 5
    vae.encoder.fc2_sigma.bias.data -= 0.5  # so that q(z|x) is not the prior
    vae.encoder.fc2_mu.bias.data += 0.7
    return vae


@pytest.fixture
def images():
    return sample()[2][:40]


def test_importance_weighted_bound_rises_from_the_elbo_to_the_exact_value(vae, images):
    images = images[:20]
    log_p_x, kl = vae.evaluate(images)
    exact, error, _ = log_likelihood_exact(vae, images)
    sampled = [log_likelihood_sampled(vae, images, count).mean() for count in (5, 50, 2000)]
    values = [(log_p_x - kl).mean(), *sampled, exact.mean()]
    assert values[0] < values[1] < values[2] < values[3] < values[4] + 0.02, "the bound must rise with the samples"
    assert values[4] - values[0] > 1, "else this test shows nothing"
    assert values[4] - values[3] < 0.5 and error.max() < 0.1


def test_one_importance_sample_is_the_elbo(vae, images):
    log_p_x, kl = vae.evaluate(images)
    one = log_likelihood_sampled(vae, images, 1)  # with the same noise
    torch.testing.assert_close(one, log_p_x - kl, atol=1e-3, rtol=0)


def test_all_routes_agree_where_the_encoder_knows_the_posterior(vae, images):
    """A decoder that ignores z, an encoder that gives the prior: q(z|x) = p(z|x), so that every weight is p(x)."""
    zero(vae.encoder)
    nn.init.zeros_(vae.decoder.fc1.weight)
    expected = hw5_vae.logpdf_bernoulli(images, vae.decoder(torch.zeros(1, 2))[0])
    log_p_x, kl = vae.evaluate(images)
    for value in (log_p_x - kl, log_likelihood_sampled(vae, images, 7)):
        torch.testing.assert_close(value, expected, atol=1e-2, rtol=0)
    exact, error, _ = log_likelihood_exact(vae, images, 100)
    torch.testing.assert_close(
        exact, expected, atol=2e-2, rtol=0, msg="the prior's mass outside four deviations is 1e-4"
    )
    assert error.max() < 1e-2


def test_exact_log_likelihood_against_another_quadrature(vae, images):
    """Gauss-Hermite nodes, in double precision, another rule for the same integral."""
    vae.double()
    nn.init.normal_(vae.decoder.fc1.weight, std=0.2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    z = torch.cartesian_prod(*[torch.from_numpy(nodes)] * 2)
    weight = torch.from_numpy(weights / math.sqrt(2 * math.pi)).log()
    images = images[:5].double()
    p = vae.decoder(z).detach()
    log_p_x = p.log() @ images.T + (1 - p).log() @ (1 - images).T  # [10000,5]
    expected = (log_p_x + torch.cartesian_prod(weight, weight).sum(1)[:, None]).logsumexp(0)
    vae.encoder.fc2_mu.bias.data += 2  # which widens the grid
    exact, _, best_z = log_likelihood_exact(vae, images)
    torch.testing.assert_close(exact, expected, atol=5e-3, rtol=0)
    best = hw5_vae.logpdf_bernoulli(images, vae.decoder(best_z)) - (best_z**2).sum(1) / 2
    assert (best + 0.02 >= (log_p_x - (z**2).sum(1)[:, None] / 2).max(0).values).all(), "best z is p(z|x)'s mode"


def test_the_exact_likelihood_says_when_its_grid_is_coarse(vae, images):
    images = images[:20]
    truth = log_likelihood_exact(vae, images)[0]
    coarse, error, _ = log_likelihood_exact(vae, images, 61)
    distance = (coarse - truth).abs()
    assert distance.max() > 0.1, "else this test shows nothing"
    assert distance.mean() < error.mean() < 30 * distance.mean(), "the error must not be called smaller than it is"


@pytest.mark.parametrize(
    "steeper, wider", [(20, 0), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((1, 0), (5, 0), (5, 6)))]
)
def test_places_that_are_left_out_do_not_matter(vae, images, steeper, wider):
    """Against the sum over all points of the same grid, for decoders with ever narrower peaks, many for each image."""
    vae.decoder.fc1.weight.data *= steeper
    vae.encoder.fc2_mu.bias.data += wider
    exact, _, best_z = log_likelihood_exact(vae, images)
    with torch.no_grad():
        mu, sigma_square = vae.encoder(images)
        reach = max(4, (mu.abs() + 4 * sigma_square.sqrt()).max().item())
        assert reach > wider, "the grid spans the codes"
        line = torch.linspace(-reach, reach, 200)
        z = torch.cartesian_prod(line, line)
        logits = vae.decoder.logits(z)
        log_p_z = torch.distributions.Normal(0, 1).log_prob(z).sum(1)
        log_joint = images @ logits.T - nn.functional.softplus(logits).sum(1) + log_p_z
    expected = log_joint.logsumexp(1) + 2 * math.log(2 * reach / 199)
    torch.testing.assert_close(exact, expected, atol=1e-3, rtol=0)
    values = log_joint.gather(1, torch.cdist(best_z, z).argmin(1)[:, None])[:, 0]
    torch.testing.assert_close(values, log_joint.max(1).values, atol=1e-3, rtol=0)


def test_a_decoder_that_ignores_z_has_the_mean_of_the_training_images():
    """By hand: of 2 training images and one more of each colour; a pixel that is always 0 keeps a chance to be 1."""
    train = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])  # p = 1/4, 1/2, 3/4
    value = likelihood.log_likelihood_ignoring_z(train, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    expected = [math.log(1 / 4 * 1 / 2 * 3 / 4), math.log(3 / 4 * 1 / 2 * 1 / 4)]
    torch.testing.assert_close(value, torch.tensor(expected))


def test_measuring_moves_no_weights_and_no_random_numbers(vae, images):
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    states = vae.noise_rng.get_state(), vae.shuffle_rng.get_state(), torch.get_rng_state()
    first = log_likelihood_sampled(vae, images, 3), *log_likelihood_exact(vae, images, 40)
    second = log_likelihood_sampled(vae, images, 3), *log_likelihood_exact(vae, images, 40)
    assert all(map(torch.equal, first, second)), "the same noise at every call"
    assert all(
        map(torch.equal, states, (vae.noise_rng.get_state(), vae.shuffle_rng.get_state(), torch.get_rng_state()))
    )
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())
    assert all(parameter.grad is None for parameter in vae.parameters()) and not any(
        each.requires_grad for each in first
    )


def test_measures_are_of_the_evaluation_mode_which_they_leave_as_it_was(vae, images):
    """With dropout in the decoder: as a student may add it."""
    vae.decoder.fc1 = nn.Sequential(vae.decoder.fc1, nn.Dropout(0.5))
    vae.eval()
    expected = log_likelihood_sampled(vae, images, 3), *log_likelihood_exact(vae, images, 40)
    vae.train(True)
    for value, other in zip((log_likelihood_sampled(vae, images, 3), *log_likelihood_exact(vae, images, 40)), expected):
        torch.testing.assert_close(value, other, msg="measured while units are dropped")
    assert all(module.training for module in vae.modules())


def test_images_may_be_numpy_and_have_channels_and_other_things_are_refused():
    vae = hw5_vae.VAE(argparse.Namespace(hidden_units=5))
    x = (torch.rand(4, 784) > 0.5).float()
    for images in (x.numpy(), x.double().numpy(), x.view(4, 1, 28, 28), x.view(4, 28, 28)):
        for measure in (log_likelihood_exact(vae, images, 8)[0], log_likelihood_sampled(vae, images, 2)):
            assert measure.shape == (4,)
        torch.testing.assert_close(log_likelihood_exact(vae, images, 8), log_likelihood_exact(vae, x, 8))
    for measure in (log_likelihood_exact, log_likelihood_sampled):
        with pytest.raises(ValueError, match="images has values from 0 to 255"):
            measure(vae, 255 * x, 2)
        for wrong in (x[0], x[:0]):
            with pytest.raises(ValueError, match=r"images are of shape \[.*784\]; expected \[N,pixels\]"):
                measure(vae, wrong, 2)
    with pytest.raises(ValueError, match="0 samples; expected at least 1"):
        log_likelihood_sampled(vae, x, 0)
    with pytest.raises(ValueError, match="3 latents; the integral is over a plane"):
        log_likelihood_exact(hw5_vae.VAE(argparse.Namespace(hidden_units=5, latent_dimension=3)), x)


def test_a_decoder_of_probabilities_alone_is_measured_as_one_with_logits():
    """The homework asks for nothing but p. Where p is rounded to 0 or 1 the logits stay finite."""

    class Probabilities(nn.Module):
        def __init__(self, decoder):
            super().__init__()
            self.inner = decoder

        def forward(self, z):
            return self.inner(z)

    z, decoder = torch.randn(20, 2), hw5_vae.Decoder(2, 8, 784)
    torch.testing.assert_close(logits_of(Probabilities(decoder), z), decoder.logits(z), atol=1e-4, rtol=1e-3)
    decoder.fc2.weight.data *= 1e4
    assert logits_of(Probabilities(decoder), z).isfinite().all()
