"""Flow: straight lines, whose ends, slope and times are known in closed form."""

import pytest
import torch

from medisyn import flow, samplers

noise, data = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def true_velocity(x, t):
    return data - noise


def test_ends_of_time():
    assert torch.equal(flow.interpolate(noise, data, torch.zeros(3)), noise)
    assert torch.equal(flow.interpolate(noise, data, torch.ones(3)), data)


def test_every_image_of_a_batch_has_its_own_time():
    mixed = flow.interpolate(noise, data, torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(mixed[0], noise[0])
    assert torch.allclose(mixed[1], (noise[1] + data[1]) / 2, atol=1e-6)
    assert torch.equal(mixed[2], data[2])


def test_the_true_velocity_has_no_loss():
    assert flow.loss(true_velocity, data, noise, flow.draw_times(3)).max() == 0


def test_a_velocity_off_by_two_costs_four():
    loss = flow.loss(lambda x, t: true_velocity(x, t) + 2, data, noise, torch.full((3,), 0.3))
    assert torch.allclose(loss, torch.full((3,), 4.0))


def test_the_line_from_any_time_ends_at_the_data():
    t = torch.tensor([0.1, 0.5, 0.9])
    assert torch.allclose(flow.end(flow.interpolate(noise, data, t), data - noise, t), data, atol=1e-6)


def test_trainer_and_sampler_agree_on_time():
    """The sampler meets at each t the very points that training shows at that t."""
    def watched(x, t):
        assert torch.allclose(x, flow.interpolate(noise, data, t), atol=1e-5)
        return true_velocity(x, t)

    for sampler in samplers.SAMPLERS.values():
        assert torch.allclose(sampler(watched, noise, flow.times(5, shift=2.0)), data, atol=1e-5)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_the_shift_keeps_the_ends_and_the_order(shift):
    times = flow.times(8, shift)
    assert times.shape == (9,)
    assert times[0] == 0
    assert times[-1] == 1
    assert (times.diff() > 0).all()


def test_a_shift_moves_towards_noise_and_its_inverse_moves_back():
    t = torch.linspace(0.1, 0.9, 9)
    assert (flow.shifted(t, 3.0) < t).all()
    assert flow.shifted(torch.tensor(0.5), 3.0) == 0.25
    assert torch.allclose(flow.shifted(flow.shifted(t, 3.0), 1 / 3), t)


def test_drawn_times_depend_on_the_generator_alone():
    first, again = (flow.draw_times(5, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    other = flow.draw_times(5, generator=torch.Generator().manual_seed(5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_drawn_times_are_logit_normal():
    t = flow.draw_times(20_000, mean=0.5, std=0.8, generator=torch.Generator().manual_seed(0))
    logit = torch.log(t / (1 - t))
    assert t.min() > 0
    assert t.max() < 1
    assert abs(logit.mean() - 0.5) < 0.03
    assert abs(logit.std() - 0.8) < 0.03
