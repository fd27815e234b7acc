"""hw5_lab/editions/tuned: the homework's step at falling rates, G at half of D's, and an averaged generator."""

import math

import torch
from plain import assert_same_weights, plain_networks, plain_step, small_gan, train

from hw5_lab.page import explore
from hw5_lab.editions import tuned
from hw5_lab.gan import weights_of


def test_training_is_the_plain_loop_at_falling_rates_with_an_average():
    """Two epochs in double precision, the average as a sum of all weights so far."""
    gan = small_gan(tuned.GAN, lr=1e-3)
    gan.disc.double(), gan.gen.double(), gan.average.double()
    networks = [network.double() for network in plain_networks()]
    optimizers = [torch.optim.Adam(network.parameters(), lr=lr) for network, lr in zip(networks, (1e-3, 5e-4))]
    average = [weight.detach().clone() for weight in networks[1].parameters()]
    shuffle, noise = torch.Generator().manual_seed(2), torch.Generator().manual_seed(2)
    scale, draw_z = gan.scale, gan.draw_z
    gan.scale, gan.draw_z = lambda x: scale(x).double(), lambda *args: draw_z(*args).double()
    step = 0
    for epoch in range(2):
        for indices in torch.randperm(96, generator=shuffle).split(32):
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"] * (1 + math.cos(math.pi * step / 6)) / 2
            x = gan.train_images[indices].float().div(255).double()
            plain_step(networks, optimizers, x, (2 * torch.rand(32, 64, generator=noise) - 1).double())
            step += 1
            keep = step / (9 + step)  # 0.1, 2/11, ...: less than 0.9995 for many steps
            average = [keep * mean + (1 - keep) * weight for mean, weight in zip(average, networks[1].parameters())]
        gan.train_epoch(epoch)
    assert_same_weights(gan.disc, networks[0], 1e-6)  # the images pass through single precision
    assert_same_weights(gan.gen, networks[1], 1e-6)
    for ours, mean in zip(gan.average.parameters(), average, strict=True):
        torch.testing.assert_close(ours, mean, atol=1e-6, rtol=0)


def test_a_step_keeps_at_most_its_share_of_the_average():
    gan = small_gan(tuned.GAN)
    gan.done, before = 10**6, weights_of(gan.average)
    gan.epochs = 10**6  # so that the rate is not yet 0
    gan.step(gan.scale(gan.train_images[:32]), gan.draw_z(32, gan.noise))
    for name, weight in weights_of(gan.gen).items():
        torch.testing.assert_close(gan.average.state_dict()[name], 0.9995 * before[name] + 0.0005 * weight)


def test_all_that_is_shown_comes_from_the_average():
    gan = small_gan(tuned.GAN)
    train(gan)
    assert not torch.equal(gan.average.linear.weight, gan.gen.linear.weight)
    expected = weights_of(gan.average)
    samples = gan.generate(gan.fixed_z)
    assert torch.equal(samples, gan.generate(gan.fixed_z, gan.average))
    assert not torch.equal(samples, gan.generate(gan.fixed_z, gan.gen))
    assert all(torch.equal(gan.record["snapshots"][-1][1][name], value) for name, value in expected.items())
    layers = explore.describe_gan(gan)["model"]["generator"]
    assert (layers[0]["weight"] == explore.halves(gan.average.linear.weight)).all()


def test_a_checkpoint_holds_the_average():
    assert set(small_gan(tuned.GAN).parts) == {"disc", "gen", "average", "optim_d", "optim_g"}


def test_networks_are_those_of_the_homework():
    gan = small_gan(tuned.GAN)
    for ours, theirs in zip((gan.disc, gan.gen, gan.average), [*plain_networks(), plain_networks()[1]]):
        assert_same_weights(ours, theirs)
