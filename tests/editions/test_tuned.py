"""hw5_lab/editions/tuned: the homework's step at falling rates, G at half of D's, and an averaged generator."""

import math

import torch
from plain import assert_same_weights, plain_networks, plain_step, small_gan, train

from hw5_lab.page.describe import describe_gan
from hw5_lab.page.layers import halves


def tuned(**settings):
    """The experiment and its homework."""
    experiment = small_gan("cs446-tuned", **settings)
    return experiment, experiment.homework


def test_training_is_the_plain_loop_at_falling_rates_with_an_average():
    """Two epochs in double precision, the average as a sum of all weights so far."""
    experiment, gan = tuned(lr=1e-3)
    gan.disc.double(), gan.gen.double(), gan.sampler.double()
    networks = [network.double() for network in plain_networks()]
    optimizers = [torch.optim.Adam(network.parameters(), lr=lr) for network, lr in zip(networks, (1e-3, 5e-4))]
    average = [weight.detach().clone() for weight in networks[1].parameters()]
    shuffle, noise = torch.Generator().manual_seed(2), torch.Generator().manual_seed(2)
    scale, draw_z = gan.scale, gan.draw_z
    gan.scale, gan.draw_z = lambda x: scale(x).double(), lambda *args: draw_z(*args).double()
    step, epochs = 0, gan.epochs()
    for _ in range(2):
        for indices in torch.randperm(96, generator=shuffle).split(32):
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"] * (1 + math.cos(math.pi * step / 6)) / 2
            x = gan.train_images[indices].float().div(255).double()
            plain_step(networks, optimizers, x, (2 * torch.rand(32, 64, generator=noise) - 1).double())
            step += 1
            keep = step / (9 + step)  # 0.1, 2/11, ...: less than 0.9995 for many steps
            average = [keep * mean + (1 - keep) * weight for mean, weight in zip(average, networks[1].parameters())]
        next(epochs)
    assert_same_weights(gan.disc, networks[0], 1e-6)  # the images pass through single precision
    assert_same_weights(gan.gen, networks[1], 1e-6)
    for ours, mean in zip(gan.sampler.parameters(), average, strict=True):
        torch.testing.assert_close(ours, mean, atol=1e-6, rtol=0)


def test_rates_of_the_middle_are_those_of_a_whole_run():
    """epochs(first) counts its steps from `first` on: so a resumed run goes on at the rate where it stopped."""
    _, gan = tuned(n_epochs=4)
    rates, step = [], gan.step

    def watched(real, z):
        values = step(real, z)
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in (gan.optim_d, gan.optim_g)])
        return values

    gan.step = watched
    for _ in gan.epochs(2):
        pass
    shares = [(1 + math.cos(math.pi * done / 12)) / 2 for done in range(6, 12)]
    torch.testing.assert_close(torch.tensor(rates), torch.tensor([[1e-3 * share, 5e-4 * share] for share in shares]))


def test_a_step_keeps_at_most_its_share_of_the_average():
    experiment, gan = tuned()
    before = experiment.sampler_weights()
    experiment.more_parts["average"].n_averaged.fill_(10**6)
    gan.done, gan.n_epochs = 0, 10**6  # so that the rate is not yet 0
    gan.step(gan.scale(gan.train_images[:32]), gan.draw_z(32, gan.noise_rng))
    after = experiment.sampler_weights()
    for name, weight in gan.gen.state_dict().items():
        torch.testing.assert_close(after[name], 0.9995 * before[name] + 0.0005 * weight)


def test_all_that_is_shown_comes_from_the_average():
    experiment, gan = tuned()
    train(experiment)
    average = gan.sampler
    assert not torch.equal(average.linear.weight, gan.gen.linear.weight)
    samples = gan.generate(gan.fixed_z)
    assert torch.equal(samples, gan.generate(gan.fixed_z, average))
    assert not torch.equal(samples, gan.generate(gan.fixed_z, gan.gen))
    snapshot = experiment.record["snapshots"][-1][1]
    assert all(torch.equal(snapshot[name], value) for name, value in average.state_dict().items())
    program = describe_gan(experiment, experiment.measure()[1])["model"]["generator"]
    first = next(op for op in program["ops"] if op["op"] == "linear")
    assert (first["weight"] == halves(average.linear.weight)).all()


def test_a_checkpoint_holds_the_average():
    experiment, gan = tuned()
    (name,) = set(experiment.parts) - {"disc", "gen", "optim_d", "optim_g"}
    kept = experiment.parts[name]
    assert gan.sampler in kept.modules() and "n_averaged" in kept.state_dict(), "and of how many steps it is"


def test_networks_are_those_of_the_homework():
    _, gan = tuned()
    for ours, theirs in zip((gan.disc, gan.gen, gan.sampler), [*plain_networks(), plain_networks()[1]]):
        assert_same_weights(ours, theirs)


def test_trained_again_it_draws_from_the_generator_that_learns():
    """A loaded model is in evaluation mode, and its average would not follow the new optimizer."""
    _, gan = tuned()
    gan.disc.eval(), gan.gen.eval()
    gan.draw_epoch = lambda epoch: None
    gan.train(n_epochs=1, batch_size=32)
    assert gan.disc.training and gan.gen.training and gan.sampler is gan.gen
