"""A self-check: python -m pytest. It takes some seconds, and says what is promised and what came back.

It looks at shapes, types, gradients, numbers that you can work out by hand, and means of many samples. It does not look
at everything that is graded: all green is a good sign, not a promise. What is not answered yet is skipped; with -rs
it says why.
"""

import argparse
import inspect
import math
import re
from unittest import mock

import pytest
import torch

import hw5_diffusion
import hw5_gan
import hw5_vae


def skip(error, name):
    """Skip what is not answered yet. Other errors of this kind are PyTorch's, about an answer."""
    if not re.fullmatch(r"\d\([a-z]\)[ivx]*", str(error)):
        raise error
    pytest.skip(f"not answered yet: {error}, which {name} needs")


def ask(function, *arguments):
    """What the function returns for copies of the arguments, which it has to leave as they are."""
    copies = [each.clone() if isinstance(each, torch.Tensor) else each for each in arguments]
    name = getattr(function, "__name__", type(function).__name__)
    try:
        value = function(*copies)
    except NotImplementedError as error:
        skip(error, name)
    assert value is not None, f"{name} returns nothing: is a return missing?"
    for number, (before, after) in enumerate(zip(arguments, copies), 1):
        if isinstance(before, torch.Tensor):
            assert torch.equal(before, after), f"{name} changes its argument number {number}: work on a copy"
    return value


def build(function, *arguments):
    """A network or a GAN. Where 4(c) alone is not answered, its layers keep the weights that PyTorch gives them."""
    try:
        return function(*arguments)
    except NotImplementedError as error:
        if str(error) != "4(c)":
            skip(error, function.__name__)
    nothing = lambda self: None
    try:
        with mock.patch.object(hw5_gan.DNet, "_weight_init", nothing):
            with mock.patch.object(hw5_gan.GNet, "_weight_init", nothing):
                return function(*arguments)
    except NotImplementedError as error:
        skip(error, function.__name__)


def promised(value, *shape):
    """The value is a float32 tensor of this shape."""
    assert isinstance(value, torch.Tensor), f"promised a tensor, a {type(value).__name__} came back"
    assert tuple(value.shape) == shape, f"promised the shape {list(shape)}, {list(value.shape)} came back"
    assert value.dtype == torch.float32, f"promised float32, {value.dtype} came back"


def close(value, expected, what):
    value = float(torch.as_tensor(value).detach())
    assert math.isclose(value, expected, rel_tol=1e-3, abs_tol=1e-4), (
        f"{what}: {expected:.5g} by hand, {value:.5g} came back"
    )


def constant(net, weight, *inputs):
    """What a network gives where all its weights and biases are this number: it shows what is between the layers."""
    for each in net.parameters():
        torch.nn.init.constant_(each, weight)
    return ask(net, *inputs).flatten()[0]


def reaches(value, **leaves):
    """A gradient reaches each of these inputs."""
    assert value.requires_grad, f"no gradient reaches {', '.join(leaves)}"
    for name, grad in zip(leaves, torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True)):
        assert grad is not None and grad.isfinite().all() and grad.any(), f"no (finite) gradient reaches {name}"


# ------------------------------------------------------------------------------------------------------ question 2


def test_2a_decoder():
    net = build(hw5_vae.Decoder, 2, 500, 784)
    z = torch.randn(3, 2, requires_grad=True)
    p = ask(net, z)
    promised(p, 3, 784)
    assert 0 <= p.min() and p.max() <= 1, f"promised probabilities, {p.min():.3g} to {p.max():.3g} came back"
    count = sum(each.numel() for each in net.parameters())
    assert count == (2 * 500 + 500) + (500 * 784 + 784), f"{count} parameters: count those of both layers by hand"
    reaches(p, z=z, **dict(net.named_parameters()))
    small = build(hw5_vae.Decoder, 2, 3, 1)
    close(
        constant(small, 0.5, torch.tensor([[1.0, -1.0]])), 0.7673, "p at (1, -1), all weights and biases 0.5, 3 units"
    )
    assert torch.allclose(p[:1], ask(net, z[:1]), atol=1e-6), "one example alone gives other values than in a batch"
    promised(ask(build(hw5_vae.Decoder, 3, 20, 50), torch.randn(4, 3)), 4, 50)


def test_2bi_log_density_of_a_gaussian():
    log_p = hw5_vae.logpdf_diagonal_gaussian
    z, mu, variance = torch.randn(5, 3), torch.randn(5, 3, requires_grad=True), torch.rand(5, 3) + 0.5
    promised(ask(log_p, z, mu, variance), 5)
    one = torch.ones(1, 1)
    close(ask(log_p, 0 * one, 0 * one, one), -0.9189, "the standard normal density at 0, in one dimension")
    close(ask(log_p, 2 * one, 0 * one, 4 * one), -0.9189 - math.log(2) - 0.5, "at 2 for mean 0 and variance 4")
    close(
        ask(log_p, torch.zeros(1, 3), torch.zeros(1, 3), torch.ones(1, 3)), 3 * -0.9189, "the same in three dimensions"
    )
    two = torch.tensor([[3.0, 0.0], [1.0, 2.0]]), torch.tensor([[1.0, 2.0]] * 2), torch.tensor([[4.0, 0.25]] * 2)
    for value, expected, place in zip(ask(log_p, *two), (-10.3379, -1.8379), ("(3, 0)", "the mean")):
        close(value, expected, f"at {place} for the mean (1, 2) and the variances (4, 0.25)")
    spread = variance.clone().requires_grad_()
    reaches(ask(log_p, z, mu, spread), mu=mu, sigma_square=spread)


def test_2bii_log_likelihood_of_pixels():
    log_p = hw5_vae.logpdf_bernoulli
    x, p = torch.randint(0, 2, (5, 784)).float(), torch.rand(5, 784) * 0.9 + 0.05
    p.requires_grad_()
    promised(ask(log_p, x, p), 5)
    close(ask(log_p, torch.ones(1, 1), torch.full((1, 1), 0.25)), math.log(0.25), "x = 1 for p = 0.25")
    close(ask(log_p, torch.zeros(1, 1), torch.full((1, 1), 0.25)), math.log(0.75), "x = 0 for p = 0.25")
    close(ask(log_p, torch.ones(1, 784), torch.full((1, 784), 0.5)), 784 * math.log(0.5), "784 pixels for p = 0.5")
    reaches(ask(log_p, x, p), p=p)


def test_2biii_sample_of_a_gaussian():
    sample = hw5_vae.sample_diagonal_gaussian
    mu, variance = torch.tensor([[1.0, -2.0]]).repeat(20_000, 1), torch.tensor([[0.25, 4.0]]).repeat(20_000, 1)
    z = ask(sample, mu, variance)
    promised(z, 20_000, 2)
    for column, (mean, deviation) in enumerate(((1, 0.5), (-2, 2))):
        part = z[:, column]
        assert part.std() > 0, "all rows get the same noise"
        assert abs(part.std() / deviation - 1) < 0.05, f"deviation {deviation} was asked, {part.std():.3g} came back"
        assert abs(part.mean() - mean) < 0.1 * deviation, f"mean {mean} was asked, {part.mean():.3g} came back"
        share = ((part - part.mean()).abs() > 2 * part.std()).float().mean()
        assert 0.03 < share < 0.06, f"4.6% of a normal sample are beyond two deviations, {share:.1%} came back"
    assert not torch.equal(z, ask(sample, mu, variance)), "two calls give the same sample"
    assert abs(torch.corrcoef(z.T)[0, 1]) < 0.05, "both dimensions get the same noise"
    mu, variance = torch.randn(6, 2, requires_grad=True), torch.rand(6, 2, requires_grad=True)
    reaches(ask(sample, mu, variance), mu=mu, sigma_square=variance)


def test_2biv_sample_of_pixels():
    p = torch.tensor([[0.1, 0.7]]).repeat(20_000, 1)
    x = ask(hw5_vae.sample_Bernoulli, p)
    promised(x, 20_000, 2)
    assert set(x.unique().tolist()) <= {0, 1}, f"promised 0 and 1, {x.unique()[:5].tolist()} came back"
    for column, mean in enumerate((0.1, 0.7)):
        assert abs(x[:, column].mean() - mean) < 0.03, (
            f"1 with probability {mean} was asked, {x[:, column].mean():.3g} came back"
        )
    assert abs(torch.corrcoef(x.T)[0, 1]) < 0.05, "all pixels of an image get the same random number"
    assert not torch.equal(x, ask(hw5_vae.sample_Bernoulli, p)), "two calls give the same sample"


def test_2c_the_bound():
    z, mu, variance = torch.randn(100, 2), torch.randn(100, 2), torch.rand(100, 2) + 0.5
    x, p = torch.randint(0, 2, (100, 784)).float(), torch.rand(100, 784) * 0.9 + 0.05
    for each in (mu, variance, p):
        each.requires_grad_()
    value = ask(hw5_vae.elbo, z, mu, variance, x, p)
    promised(value)
    assert value < 0, f"{value:.4g}: the bound on the log-likelihood of binary images is below 0; it is maximised"
    reaches(value, mu=mu, sigma_square=variance, p=p)
    # Where q is the prior itself, log p(z) - log q(z|x) is 0 and log p(x|z) alone is left
    zero, one, half = torch.zeros(100, 2), torch.ones(100, 2), torch.full((100, 784), 0.5)
    close(
        ask(hw5_vae.elbo, z, zero, one, x, half),
        784 * math.log(0.5),
        "the bound for p = 0.5, where q(z|x) is the prior",
    )
    # One pixel, and z = (3, 3) from q = N(1, 1): log p(z) - log q(z|x) = 2 (-9/2 + 4/2)
    white, half, mean = torch.ones(100, 1), torch.full((100, 1), 0.5), torch.ones(100, 2)
    value = ask(hw5_vae.elbo, 3 * mean, mean, mean, white, half)
    close(
        value, math.log(0.5) - 9 + 4, "log p(x|z) + log p(z) - log q(z|x) for p = 0.5 and z two deviations from mu = 1"
    )


def figure_of(tmp_path, method, name):
    """What a method of 2(e) returns for 40 images, and that it has written its figure."""
    vae = build(hw5_vae.VAE, argparse.Namespace())
    images = (torch.rand(40, 784) < 0.5).float(), torch.eye(10).repeat(4, 1)
    vae.folder, vae.splits = tmp_path, {"train": images, "test": images}
    try:
        shown = getattr(vae, method)()
    except NotImplementedError as error:
        skip(error, method)
    assert (tmp_path / name).is_file(), f"{name} was not written: self.save(figure, name) does it"
    return shown


def test_2e_i_samples(tmp_path):
    grid = figure_of(tmp_path, "visualize_data_space", "data_space.png")
    assert grid is not None and tuple(grid.shape) == (307, 59), "promised the grid that tile() makes of 10x2 images"
    assert grid[:, :28].max() < 1 and set(grid[:28, 31:].flatten().tolist()) <= {0, 1}, (
        "column 1 shows probabilities, column 2 samples, of 0 and 1"
    )


def test_2e_ii_latent_space(tmp_path):
    figure_of(tmp_path, "visualize_latent_space", "latent_space.png")


def test_2e_iii_interpolation_between_classes(tmp_path):
    grid = figure_of(tmp_path, "visualize_inter_class_interpolation", "inter_class_interpolation.png")
    assert grid is not None and tuple(grid.shape) == (90, 338), "promised the grid that tile() makes of 3x11 images"
    grid = torch.as_tensor(grid)
    for row in range(3):
        cells = torch.stack([grid[31 * row :][:28, 31 * column :][:, :28] for column in range(11)])
        bends = (cells[2:] - 2 * cells[1:-1] + cells[:-2]).abs().max()  # small where each column is the next alpha
        assert bends < 0.5 * (cells[10] - cells[0]).abs().max(), (
            "within a row the images do not change little by little"
        )


def test_2e_iii_interpolate_mu():
    a, b = torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, -1.0]])
    promised(ask(hw5_vae.interpolate_mu, a, b), 1, 2)
    for alpha, expected in ((1.0, a), (0.0, b)):
        value = ask(hw5_vae.interpolate_mu, a, b, alpha)
        assert torch.allclose(value, expected), (
            f"alpha = {alpha}: {expected.tolist()} was asked, {value.tolist()} came back"
        )
    assert torch.allclose(ask(hw5_vae.interpolate_mu, a, b), torch.tensor([[2.0, 2.0]])), (
        "alpha is 0.5 if it is not given"
    )


# ------------------------------------------------------------------------------------------------------ question 4


def check_network(net, shape, inputs, count):
    found = sum(each.numel() for each in net.parameters())
    assert found == count, f"{found} parameters, {count} in the table: count each layer's weights and biases"
    inputs.requires_grad_()
    value = ask(net, inputs)
    promised(value, *shape)
    reaches(value, input=inputs, **dict(net.named_parameters()))
    promised(ask(net, inputs[:1]), 1, *shape[1:])
    assert torch.allclose(value[:1], ask(net, inputs[:1]), atol=1e-5), (
        "one example alone gives other values than in a batch"
    )
    return value


def test_4a_discriminator():
    value = check_network(build(hw5_gan.DNet), (3, 1), torch.rand(3, 1, 28, 28), 593)
    big = ask(build(hw5_gan.DNet), 1000 * torch.randn(20, 1, 28, 28))
    assert big.abs().max() > 1 and value.dim() == 2, (
        "promised logits, which may be any number; only values up to 1 came back"
    )
    for weight, pixel, expected in ((-0.1, 1, -0.1), (0.1, -1, 9.3), (0.1, 1, 138.9)):  # by ReLUs, and by maxima
        value = constant(build(hw5_gan.DNet), weight, torch.full((1, 1, 28, 28), float(pixel)))
        close(value, expected, f"the logit where all pixels are {pixel}, all weights and biases {weight}")


def test_4b_generator():
    value = check_network(build(hw5_gan.GNet, 64), (3, 1, 28, 28), torch.randn(3, 64), 107_777)
    assert 0 <= value.min() and value.max() <= 1, (
        f"promised pixels from 0 to 1, {value.min():.3g} to {value.max():.3g} came back"
    )
    for noise, expected in ((1.0, 0.5007), (-1.0, 0.4825)):
        value = constant(build(hw5_gan.GNet, 64), -0.01, torch.full((1, 64), noise))
        close(value, expected, f"the pixel in the corner for z = {noise} where all weights and biases are -0.01")


@pytest.mark.parametrize("name, arguments", [("DNet", ()), ("GNet", (64,))])
def test_4c_initialisation(name, arguments):
    try:
        net = getattr(hw5_gan, name)(*arguments)
        getattr(hw5_gan, name)(*arguments)._weight_init()  # where __init__ does not call it
    except NotImplementedError as error:
        skip(error, name)
    for path, each in net.named_parameters():
        if each.dim() == 1:
            assert not each.any(), f"{path} is not 0"
        else:  # a uniform distribution of this bound, by the documentation of torch.nn.init
            bound = (6 / each[0].numel()) ** 0.5
            near = 0.99 if each.numel() > 1000 else 0.5
            assert near * bound < each.abs().max() <= bound * 1.0001, (
                f"{path}: the largest is {each.abs().max():.3g}, kaiming_uniform_ comes near to {bound:.3g} and not "
                "beyond it: is this layer initialised, with the defaults?"
            )


def check_loss(name, gan, part, arguments):
    """A loss is a number above 0, whose gradient reaches the weights of this part."""
    loss = ask(getattr(gan, name), *arguments)
    assert isinstance(loss, torch.Tensor), f"{name}: promised a tensor, a {type(loss).__name__} came back"
    assert loss.numel() == 1 and loss.dtype == torch.float32, (
        f"{name}: promised a number of float32, {list(loss.shape)} of {loss.dtype} came back"
    )
    assert loss > 0 and loss.isfinite(), f"{name}: {loss:.4g} came back, a cross entropy is above 0"
    assert all(each.grad is None for net in (gan.disc, gan.gen) for each in net.parameters()), (
        f"{name}: a loss is returned, backward() is for train()"
    )
    net = getattr(gan, part)
    reaches(loss, **{f"{part}.{name}": each for name, each in net.named_parameters() if "weight" in name})


class Answers(torch.nn.Module):
    """A discriminator with one logit for images that are all 1, and another for all other images."""

    def __init__(self, ones, others):
        super().__init__()
        self.ones, self.others = ones, others

    def forward(self, images):
        of_ones = (images == 1).flatten(1).all(1, keepdim=True)
        return torch.where(of_ones, self.ones, self.others).float()


def cross_entropy(logit, label):
    return math.log1p(math.exp(-logit if label else logit))


def test_4d_loss_of_the_discriminator():
    gan, x, z = build(hw5_gan.GAN), torch.rand(5, 1, 28, 28), torch.rand(5, 64) * 2 - 1
    check_loss("_get_loss_d", gan, "disc", (5, x, z))
    assert ask(gan._get_loss_d, 1, x[:1], z[:1]).isfinite()
    for real, fake in ((0.0, 0.0), (2.0, 0.5)):  # logits
        gan.disc = Answers(real, fake)
        value = ask(gan._get_loss_d, 5, torch.ones(5, 1, 28, 28), z).item()
        by_hand = (cross_entropy(real, 1) + cross_entropy(fake, 0)) / 2
        halves = value / by_hand  # the factor 1/2 changes no minimum
        assert min(abs(halves - 1), abs(halves - 2)) < 1e-3, (
            f"where D's logit is {real} for real and {fake} for generated images: {by_hand:.5g} by hand, "
            f"{value:.5g} came back"
        )


def test_4e_loss_of_the_generator():
    gan, z = build(hw5_gan.GAN), torch.rand(5, 64) * 2 - 1
    check_loss("_get_loss_g", gan, "gen", (5, z))
    assert ask(gan._get_loss_g, 1, z[:1]).isfinite()
    for fake in (0.0, 2.0):
        gan.disc = Answers(0.0, fake)
        close(ask(gan._get_loss_g, 5, z), cross_entropy(fake, 1), f"G's loss where D's logit is {fake}")


# -------------------------------------------------------------------------------- question 4 of the later edition


def unlike(pairs, otherwise):
    """Two columns of random numbers, [N,2], are independent."""
    assert pairs.std(0).min() > 0 and abs(torch.corrcoef(pairs.T)[0, 1]) < 0.1, otherwise


class Still(torch.nn.Module):
    """A network whose score is 0 everywhere, or points to the origin."""

    def __init__(self, strength=0.0):
        super().__init__()
        self.strength, self.asked, self.seen = torch.nn.Parameter(torch.tensor(strength)), [], []

    def forward(self, x, sigma):
        self.asked.append(torch.as_tensor(sigma).flatten()[0].item())
        self.seen.append((x.detach().clone(), sigma))
        return -self.strength * x


def test_noise_levels():
    levels = ask(hw5_diffusion.generate_noise_levels, 1.0, 0.01, 3)
    promised(levels, 3)
    for value, expected in zip(levels, (1.0, 0.1, 0.01)):
        close(value, expected, "a level of the geometric sequence 1, 0.1, 0.01")


def test_score_network():
    net = build(hw5_diffusion.DiffusionModel)
    x, sigma = torch.rand(5, 2), torch.rand(5, 1) + 0.1
    promised(ask(net, x, sigma), 5, 2)
    promised(ask(net, x, 0.3), 5, 2)
    count = sum(each.numel() for each in net.parameters())
    assert count == 26 * 200 + 200 + 200 * 400 + 400 + 400 * 200 + 200 + 200 * 2 + 2, (
        f"{count} parameters: count by hand"
    )
    assert torch.allclose(ask(net, x, sigma) / 2, ask(net, x, 2 * sigma), atol=1e-6), (
        "the score halves where sigma doubles"
    )
    reaches(ask(net, x, sigma), **dict(net.named_parameters()))
    for weight, place, expected in ((-0.01, 0.0, -0.01), (0.01, -50.0, 0.11)):
        value = constant(net, weight, torch.full((1, 2), place), torch.ones(1, 1))
        close(value, expected, f"the score at ({place:g}, {place:g}) where all weights and biases are {weight}")


def test_denoising_loss():
    x, network = torch.rand(50_000, 2), Still(0.5)
    loss = ask(hw5_diffusion.compute_denoising_loss, network, x, torch.tensor([0.5, 0.1]))
    promised(loss)
    reaches(loss, network=network.strength)
    quiet = Still()
    still = ask(hw5_diffusion.compute_denoising_loss, quiet, x, torch.tensor([0.5, 0.1]))
    assert abs(still - 1) < 0.05, (
        f"for the score 0, the mean of |noise|^2 / 2 in two dimensions is 1; {still:.3g} came back"
    )
    assert len(quiet.seen) == 1, f"the network is asked once, with all points; it was asked {len(quiet.seen)} times"
    noisy, sigma = quiet.seen[0]
    promised(sigma, len(x), 1)
    share = (sigma == 0.5).float().mean()
    assert abs(share - 0.5) < 0.02, f"each point has a sigma of its own: half of them 0.5; {share:.1%} have it"
    unlike((noisy - x) / sigma, "the two coordinates get the same noise")
    exact = ask(hw5_diffusion.compute_denoising_loss, Still(4.0), torch.zeros(100, 2), torch.tensor([0.5]))
    assert abs(exact) < 1e-4, f"all points are 0, sigma is 0.5: the score -4 x~ has the loss 0, {exact:.3g} came back"


def test_langevin_dynamics():
    network, start, levels = Still(), torch.zeros(4000, 2), torch.tensor([0.4, 0.1])
    steps = every_step(network, start, levels, 3, 1e-3)
    assert len(steps) == 6, f"3 steps for each of 2 levels were asked, {len(steps)} came back"
    promised(steps[-1], 4000, 2)
    assert [round(each, 3) for each in network.asked] == [0.4] * 3 + [0.1] * 3, (
        f"the network was asked at {network.asked}"
    )
    assert steps[0] is not steps[1], "all steps are one tensor, which is changed in place"
    assert not start.any(), "the x that is given is changed: work on a copy"
    unlike(steps[0], "the two coordinates get the same noise")
    moves = torch.stack([steps[0][:, 0], (steps[1] - steps[0])[:, 0]], 1)
    unlike(moves, "two steps get the same noise, or all points do")
    for step, alpha in ((steps[0], 1e-3 * 16), (steps[-1] - steps[-2], 1e-3)):
        deviation = (2 * alpha) ** 0.5
        assert abs(step.std() / deviation - 1) < 0.05, (
            f"noise of deviation {deviation:.3g} was asked, {step.std():.3g} came back"
        )
    (step,) = every_step(Still(1.0), torch.ones(40_000, 2), torch.tensor([0.1]), 1, 0.1)
    assert abs(step.mean() - 0.9) < 0.02, (
        f"from 1, with the score -x and alpha = 0.1: 0.9 is the mean by hand, {step.mean():.3g} came back"
    )


def every_step(*arguments):
    try:
        steps = hw5_diffusion.langevin_dynamics(*arguments)
        whole = not isinstance(steps, torch.Tensor) or steps.dim() == 3  # all steps in one tensor are good too
        assert steps is not None and whole, "yields nothing: is a yield missing?"
        return list(steps)
    except NotImplementedError as error:
        skip(error, "langevin_dynamics")


def test_names_and_arguments_are_kept():
    """Who grades calls the functions by these names, with these arguments."""
    for function, names in (
        (hw5_vae.logpdf_diagonal_gaussian, "z mu sigma_square"),
        (hw5_vae.logpdf_bernoulli, "x p"),
        (hw5_vae.elbo, "sampled_z mu sigma_square x p"),
        (hw5_vae.interpolate_mu, "mua mub alpha"),
        (hw5_gan.GAN._get_loss_d, "self batch_size batch_data z"),
        (hw5_gan.GAN._get_loss_g, "self batch_size z"),
        (hw5_diffusion.compute_denoising_loss, "scorenet training_data sigmas"),
    ):
        found = list(inspect.signature(function).parameters)
        assert found[: len(names.split())] == names.split(), (
            f"{function.__name__}({', '.join(found)}): {names} was given"
        )
