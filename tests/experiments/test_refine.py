"""hw5_lab/experiments/refine: the decoder stays, training is a plain loop, images deform within bounds, ELBO rises."""

import math

import pytest
import torch
from plain import assert_same_weights, small_vae
from torch import nn
from torch.distributions import Normal

import hw5_vae
from hw5_lab.experiments import refine
from hw5_lab.experiments.refine import deform

PIXELS = torch.arange(28.0) - 13.5  # places along a row, from the centre


# ---- training


def weights(network):
    return [value.clone() for value in network.state_dict().values()]


def log_p_x(vae, images):
    """log p(x), by a sum over a lattice of the prior: it depends on the decoder alone."""
    z = torch.cartesian_prod(*[torch.linspace(-3, 3, 25)] * 2)
    with torch.no_grad():
        p = vae.decoder(z)
    log_p_x_z = p.log() @ images.T + (1 - p).log() @ (1 - images).T
    return (log_p_x_z + Normal(0, 1).log_prob(z).sum(1, keepdim=True)).logsumexp(0)


@pytest.mark.parametrize("edition", ["cs446", "uva", "ese546", "hw8"])
def test_the_encoder_moves_and_the_model_does_not(edition):
    experiment = small_vae(edition, limit=250, num_epoches=1, refine_encoder=2, latent_dimension=2)
    vae = experiment.homework
    assert experiment.epochs == 3, "the epochs of refinement come after those of training"
    rows = experiment.rows(0)
    next(rows)
    decoder, encoder, images = weights(vae.decoder), weights(vae.encoder), experiment.test_images[:50]
    before, optimizer = log_p_x(vae, images), str(vae.optimizer.state_dict())
    gradients = [parameter.grad.clone() for parameter in vae.decoder.parameters()]
    numbers = []
    for row in rows:
        numbers.append(row["epoch"])
        assert tuple(row) == experiment.columns[:-1]
        assert row["train_elbo"] == pytest.approx(row["train_reconstruction"] - row["train_kl"])
    assert numbers == [2, 3]
    assert all(torch.equal(a, b) for a, b in zip(decoder, weights(vae.decoder))), "the decoder must be frozen"
    left = [parameter.grad for parameter in vae.decoder.parameters()]
    assert all(map(torch.equal, gradients, left)), "the decoder needs no gradients: backward(inputs=...)"
    assert torch.equal(before, log_p_x(vae, images)), "log p(x) is the decoder's: not a bit of it may change"
    assert optimizer == str(vae.optimizer.state_dict()), "the refiner has an optimizer of its own"
    assert not any(torch.equal(a, b) for a, b in zip(encoder, weights(vae.encoder))), "the encoder must learn"


def test_without_the_flag_nothing_is_refined():
    experiment = small_vae(limit=100, num_epoches=3)
    assert experiment.epochs == 3 and "refiner" not in experiment.parts
    assert [row["epoch"] for row in experiment.rows(0)] == [1, 2, 3]


def test_refinement_begins_with_the_weights_of_plain_training():
    """The homework's epochs before it are the same with and without the flag."""
    models = []
    for epochs in (0, 4):
        experiment = small_vae(limit=250, num_epoches=2, refine_encoder=epochs)
        rows = experiment.rows(0)
        for _ in range(2):
            next(rows)
        models.append(experiment.homework)
    assert_same_weights(*models)


def test_refinement_goes_on_where_it_stopped():
    """rows(first) within the refinement: not again the homework's epochs, and the rate of the moment."""
    experiment = small_vae(limit=30, num_epoches=3, refine_encoder=4)
    before = weights(experiment.homework.decoder)
    numbers = [row["epoch"] for row in experiment.rows(5)]
    assert numbers == [6, 7] and all(map(torch.equal, before, weights(experiment.homework.decoder)))
    rate = experiment.parts["refiner"].param_groups[0]["lr"]
    assert rate == pytest.approx(3e-3 * (1 + math.cos(math.pi * 3 / 4)) / 2)


def test_refinement_is_the_plain_loop(monkeypatch):
    """Two epochs of 3 steps, in double precision: Adam on the bound of deformed images, rate and deformation falling."""
    single = lambda x, generator, binary, strength: deform(x.float(), generator, binary, strength).double()
    monkeypatch.setattr(refine, "deform", single)
    vae, plain = (small_vae(limit=250).homework.double() for _ in range(2))
    images = vae.train_images = vae.train_images.double()
    optimizer = torch.optim.Adam(plain.encoder.parameters(), lr=3e-3)
    shuffle, noise = (torch.Generator().manual_seed(1234) for _ in range(2))
    expected, rows = [], []
    refiner, ticks = refine.make_optimizer(vae.encoder), []
    refiner.register_step_post_hook(lambda *_: ticks.append(1))
    refining = refine.epochs(vae, refiner, 2)
    for epoch in range(2):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1.0, 0.5)[epoch]
        bounds = []
        for indices in torch.randperm(250, generator=shuffle).split(100):
            x = single(images[indices], noise, True, (1.0, 0.7)[epoch])
            mu, sigma_square = plain.encoder(x)
            z = mu + sigma_square.sqrt() * torch.randn(mu.shape, generator=noise, dtype=torch.double)
            elbo = hw5_vae.elbo(z, mu, sigma_square, x, plain.decoder(z))
            optimizer.zero_grad()
            (-elbo).backward()
            optimizer.step()
            bounds.append(elbo.item() * len(x))
        expected.append(sum(bounds) / 250)
        rows.append(next(refining))
    assert next(refining, None) is None and [row["epoch"] for row in rows] == [1, 2]
    assert_same_weights(vae, plain, 1e-9)
    assert [row["train_elbo"] for row in rows] == pytest.approx(expected), "of the deformed images, a mean over images"
    assert len(ticks) == 6


def test_a_students_frozen_layer_stays_and_so_do_the_decoders_statistics():
    vae = small_vae(limit=250).homework
    vae.encoder.fc1.requires_grad_(False)
    vae.decoder.fc1 = nn.Sequential(vae.decoder.fc1, nn.BatchNorm1d(8))
    first, heads, decoder = (weights(each) for each in (vae.encoder.fc1, vae.encoder.fc2_mu, vae.decoder))
    list(refine.epochs(vae, refine.make_optimizer(vae.encoder), 1))
    assert all(map(torch.equal, first, weights(vae.encoder.fc1)))
    assert all(map(torch.equal, decoder, weights(vae.decoder))), "log p(x) is the decoder's"
    assert not any(map(torch.equal, heads, weights(vae.encoder.fc2_mu)))


@pytest.mark.parametrize("edition", ["cs446", "uva", "ese546", "hw8"])
def test_pixels_stay_as_the_edition_has_them(edition, monkeypatch):
    seen = []
    monkeypatch.setattr(refine, "deform", lambda *args, **more: seen.append(deform(*args, **more)) or seen[-1])
    list(small_vae(edition, limit=50, num_epoches=1, refine_encoder=1).rows(1))
    assert (set(seen[0].unique().tolist()) == {0.0, 1.0}) == (edition != "hw8"), "gray stays gray, binary stays binary"


def test_rates_are_on_a_cosine():
    experiment, rates = small_vae(limit=30, num_epoches=3, refine_encoder=4), []
    for _ in experiment.rows(3):
        rates.append(experiment.parts["refiner"].param_groups[0]["lr"])
    assert rates == pytest.approx([3e-3 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])


def test_non_finite_loss_stops():
    experiment = small_vae(limit=100, num_epoches=1, refine_encoder=1)
    nn.init.constant_(experiment.homework.decoder.fc2.bias, math.nan)
    with pytest.raises(
        FloatingPointError, match="epoch 2, step 1: the loss is not finite while the encoder is refined"
    ):
        next(experiment.rows(1))


def test_refinement_raises_the_bound_of_images_that_were_not_trained_on(monkeypatch):
    """An encoder that has seen 100 images often overfits. Deformed images mend that, the same images do not."""
    settings = dict(train_size=100, batch_size=10, num_epoches=30, refine_encoder=15, hidden_units=64, lr=8e-3)
    experiment, plain = small_vae(**settings), small_vae(**settings)
    vae, held_out = experiment.homework, experiment.test_images
    elbo = lambda vae: torch.sub(*vae.evaluate(held_out)).mean().item()
    for _ in vae.epochs():
        pass
    plain.homework.load_state_dict(vae.state_dict())
    before = elbo(vae)
    for _ in refine.epochs(vae, experiment.more_parts["refiner"], 15):
        pass
    monkeypatch.setattr(refine, "deform", lambda x, *rest, **more: x)
    for _ in refine.epochs(plain.homework, plain.more_parts["refiner"], 15):
        pass
    after, without = elbo(vae), elbo(plain.homework)
    assert after > max(before, without) + 0.3, f"{before:.2f}, then {after:.2f}; {without:.2f} undeformed"


# ---- the deformation, measured on images whose gray is their place


def places(count, seed=0, strength=1.0):
    """Where each pixel [count,28,28] of deformed images comes from, across and down, in pixels from the centre.

    The images are ramps, which bilinear interpolation moves exactly. Pixels near the border see beyond it.
    """
    across, down = PIXELS.expand(28, 28), PIXELS[:, None].expand(28, 28)
    found = []
    for ramp in (across, down):
        x = (ramp / 28 + 0.5).flatten().expand(count, 784)
        moved = deform(x, torch.Generator().manual_seed(seed), binary=False, strength=strength)
        found.append(28 * (moved.view(count, 28, 28) - 0.5))
    return found


def affine(across, down):
    """The matrix [N,2,2] and shift [N,2] that explain the places of inner pixels, and what they leave, [N,2,M]."""
    inner = slice(6, 22)
    x, y = torch.meshgrid(PIXELS[inner], PIXELS[inner], indexing="xy")
    given = torch.stack([x.flatten(), y.flatten(), torch.ones(256)], 1).double()  # [M,3]
    seen = torch.stack([across, down], 1)[:, :, inner, inner].flatten(2).double()  # [N,2,M]
    fitted = seen @ given @ torch.linalg.inv(given.T @ given)  # [N,2,3]
    return fitted[..., :2], fitted[..., 2], seen - fitted @ given.T


def only(monkeypatch, **kept):
    """Deformations of these kinds alone."""
    for name in ("ANGLE", "SCALE", "SHEAR", "SHIFT", "FIELD"):
        monkeypatch.setattr(refine, name, kept.get(name, 0.0))


def assert_uniform(values, bound):
    """Between -bound and bound, all of it, with the deviation of a uniform distribution and a mean of 0."""
    assert values.abs().max() <= bound * 1.001 and values.max() > 0.98 * bound and values.min() < -0.98 * bound
    assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert abs(values.mean()) < 4 * bound / math.sqrt(3 * len(values)), "as often one way as the other"


def test_the_bounds_of_an_image(monkeypatch):
    """Without the bending field: 8 degrees, 5% of size, 8% of shear, a pixel of shift, all independent."""
    only(monkeypatch, ANGLE=refine.ANGLE, SCALE=refine.SCALE, SHEAR=refine.SHEAR, SHIFT=refine.SHIFT)
    matrix, shift, left = affine(*places(2000))
    assert left.abs().max() < 1e-3, "nothing but turns, scales, shears and shifts"
    (a, b), (c, d) = matrix.permute(1, 2, 0)
    zoom, angle = torch.hypot(a, c), torch.rad2deg(torch.atan2(c, a))
    shear = (a * b + c * d) / zoom**2
    torch.testing.assert_close(a * d - b * c, zoom**2, msg="an image must not be mirrored, nor stretched one way")
    parts = {
        "angle": (angle, 8.0),
        "zoom": (zoom - 1, 0.05),
        "shear": (shear, 0.08),
        "across": (shift[:, 0], 1.0),
        "down": (shift[:, 1], 1.0),
    }
    for values, bound in parts.values():
        assert_uniform(values, bound)
    together = torch.corrcoef(torch.stack([values for values, _ in parts.values()]))
    assert together.fill_diagonal_(0).abs().max() < 0.1, "each drawn by itself"


def test_a_turn_is_a_turn(monkeypatch):
    """Neither sheared nor mirrored: the matrix is a rotation."""
    only(monkeypatch, ANGLE=refine.ANGLE)
    matrix, shift, left = affine(*places(200))
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(2).double().expand(200, 2, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(200).double(), atol=1e-4, rtol=0)
    assert matrix[:, 0, 1].abs().max() > math.sin(math.radians(7)) and shift.abs().max() < 1e-3 > left.abs().max()


def test_the_field_bends_smoothly(monkeypatch):
    """Displacements of 0.7 pixels at the points of a 5x5 lattice, less between them, across and down apart."""
    only(monkeypatch, FIELD=refine.FIELD)
    across, down = places(1500)
    bends = torch.stack([across - PIXELS, down - PIXELS[:, None]])[:, :, 6:22, 6:22]  # [2,N,16,16]
    assert bends.mean((1, 2, 3)).abs().max() < 0.05
    lattice = bends[..., [1, 14]][..., [1, 14], :]  # pixels 7 and 20, the nearest to the points at 6.75 and 20.25
    assert lattice.std().item() == pytest.approx(0.7, rel=0.05)
    assert torch.corrcoef(bends[:, :, 8, 8])[0, 1].abs() < 0.1, "across and down are drawn apart"
    assert torch.corrcoef(bends[0][:, [1, 14], 1].T)[0, 1].abs() < 0.1, "far pixels move apart"
    steps = bends.diff(dim=3).std() / bends.std(), bends.diff(dim=2).std() / bends.std()
    assert max(steps) < 0.3, "neighbours move together"


@pytest.mark.parametrize("name", ["ANGLE", "SCALE", "SHEAR", "SHIFT", "FIELD"])
def test_half_the_strength_moves_pixels_half_as_far(name, monkeypatch):
    only(monkeypatch, **{name: getattr(refine, name)})
    start = torch.stack([PIXELS.expand(28, 28), PIXELS[:, None].expand(28, 28)])[:, None]
    whole, half, none = (torch.stack(places(5, 0, strength)) - start for strength in (1.0, 0.5, 0.0))
    inner = (..., slice(8, 20), slice(8, 20))
    torch.testing.assert_close(half[inner], whole[inner] / 2, atol=0.02, rtol=0.05)
    assert whole[inner].abs().max() > 0.1 and none[inner].abs().max() < 1e-3


@pytest.mark.parametrize("name", ["ANGLE", "SCALE", "SHEAR", "SHIFT", "FIELD"])
def test_every_image_its_own(name, monkeypatch):
    only(monkeypatch, **{name: getattr(refine, name)})
    across, down = places(4)
    both = torch.stack([across, down], 1)[:, :, 6:22, 6:22]
    for k in range(3):
        assert (both[k] - both[k + 1]).abs().max() > 1e-3, "all images are deformed alike"


def test_deformed_digits_stay_where_and_how_large_they_were():
    x = torch.zeros(2000, 28, 28)
    x[:, 8:20, 13:15] = 1  # an upright bar
    moved = deform(x.flatten(1), torch.Generator().manual_seed(0)).view(-1, 28, 28)
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    mass = moved.sum((1, 2))
    assert mass.mean().item() == pytest.approx(24, rel=0.05), "as often larger as smaller"
    for place in ((moved.sum(2) * PIXELS).sum(1) / mass, (moved.sum(1) * PIXELS).sum(1) / mass):
        assert place.mean().abs() < 0.05 and 0.4 < place.std() < 1.2 and place.abs().max() < 4
    slope = (moved * PIXELS[:, None] * PIXELS).sum((1, 2)) / (moved * PIXELS[:, None] ** 2).sum((1, 2))
    assert 0.05 < slope.std() < 0.25 and slope.mean().abs() < 0.02, "a little, either way"


def test_gray_stays_gray_and_binary_stays_binary():
    x = torch.rand(5, 784)
    gray = deform(x, binary=False)
    assert len(gray.unique()) > 100 and 0 <= gray.min() and gray.max() <= 1
    assert set(deform(x.round()).unique().tolist()) == {0.0, 1.0}


def test_nothing_moves_without_a_deformation(monkeypatch):
    only(monkeypatch)
    for side in (14, 28):
        x = torch.rand(5, side**2)
        torch.testing.assert_close(deform(x, binary=False), x, atol=1e-5, rtol=0)


def test_the_same_generator_gives_the_same_images():
    x = torch.rand(3, 196)
    state = torch.get_rng_state()
    first, same, other = (deform(x, torch.Generator().manual_seed(seed), False) for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other) and torch.equal(state, torch.get_rng_state())
