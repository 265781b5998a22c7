"""Samplers: exact where the path is straight, of their textbook order where it is curved."""

import math

import pytest
import torch

from medisyn import flow, samplers

noise, data = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
ORDERS = {"euler": 1, "heun": 2, "multistep": 2, "split_multistep": 2}
CALLS = {"euler": 1, "heun": 2, "multistep": 1, "split_multistep": 1}  # of the network, a step


def curved(x, t):
    """dx/dt = x (1 + t), so that x(1) = x(0) exp(3/2)."""
    return x * (1 + t).view(-1, 1, 1, 1)


def test_every_sampler_has_a_known_order():
    assert set(samplers.SAMPLERS) == set(ORDERS)


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_straight_line_is_followed_exactly(name, steps):
    made = samplers.SAMPLERS[name](lambda x, t: data - noise, noise, flow.times(steps))
    assert torch.allclose(made, data, atol=1e-5)


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_halving_the_steps_costs_what_the_order_says(name, shift):
    start = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    errors = []
    for steps in (100, 200, 400):
        times = flow.shifted(torch.linspace(0, 1, steps + 1, dtype=torch.float64), shift)
        errors.append(abs(float(samplers.SAMPLERS[name](curved, start, times)) - math.exp(1.5)))
    orders = [math.log2(a / b) for a, b in zip(errors[:-1], errors[1:], strict=True)]
    assert orders == pytest.approx([ORDERS[name]] * 2, abs=0.15)


@pytest.mark.parametrize("name", ORDERS)
def test_a_step_costs_the_calls_it_promises(name):
    calls = []
    samplers.SAMPLERS[name](lambda x, t: calls.append(t) or curved(x, t), noise, flow.times(6))
    assert len(calls) == 6 * CALLS[name]
    assert all(t.shape == (3,) for t in calls)


def test_an_image_depends_on_its_own_seed_alone():
    alone, = samplers.seeded_noise([7], (4, 8, 8))
    assert torch.equal(samplers.seeded_noise([1, 7, 9], (4, 8, 8))[1], alone)
    assert not torch.equal(samplers.seeded_noise([8], (4, 8, 8))[0], alone)


def test_guidance_of_one_is_the_plain_prompt():
    assert samplers.guided(curved, None, 1) is curved


def test_guidance_goes_beyond_the_prompt_by_its_share():
    t = torch.zeros(3)
    velocity = samplers.guided(lambda x, t: x + 1, lambda x, t: x, 3.0)
    assert torch.allclose(velocity(noise, t), noise + 3)
    assert torch.allclose(samplers.guided(lambda x, t: x + 1, lambda x, t: x, 0.0)(noise, t), noise)


def test_texture_is_noise_of_its_own_that_follows_from_the_seed():
    latent = torch.zeros(2, 4, 64, 64)
    assert samplers.textured(latent, [1, 2], 0.0) is latent
    made = samplers.textured(latent, [1, 2], 0.2)
    assert made.std() == pytest.approx(0.2, rel=0.02) and not torch.equal(made[0], made[1])
    assert torch.equal(made[1:], samplers.textured(latent[1:], [2], 0.2))          # whatever else is in the batch
    began = samplers.seeded_noise([1], (4, 64, 64))
    assert abs(float((made[0] * began[0]).mean())) < 0.01                         # not the noise that sampling began with


def test_guidance_between_two_times_calls_twice_there_and_once_elsewhere():
    calls = []

    def counted(name: str):
        def velocity(x, t):
            calls.append((name, float(t[0])))
            return torch.zeros_like(x) + (name == "told")
        return velocity
    drive = samplers.guided(counted("told"), counted("plain"), 3.0, 0.25, 0.5)
    made = samplers.euler(drive, torch.zeros(1, 1, 2, 2), flow.times(8))
    assert [t for name, t in calls if name == "plain"] == [0.25, 0.375, 0.5] and len(calls) == 8 + 3
    assert torch.allclose(made, torch.full_like(made, (5 * 1.0 + 3 * 3.0) / 8))


def test_guidance_that_begins_and_ends_has_a_history_of_its_own():
    """Its jumps are nobody's slope: what guidance adds counts from the first guided step to the last, once."""
    drive = samplers.guided(lambda x, t: torch.ones_like(x), lambda x, t: torch.zeros_like(x), 3.0,
                            torch.tensor([0.25, 0.5]), 0.5)   # the second image at one step alone
    times = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.6, 1.0])     # uneven steps: jumps up and down do not cancel
    made = samplers.split_multistep(drive, torch.zeros(2, 1, 2, 2), times)[:, 0, 0, 0]
    assert made.tolist() == pytest.approx([1 + 2 * (0.25 + 0.1), 1 + 2 * 0.1])
    assert samplers.multistep(drive, torch.zeros(2, 1, 2, 2), times)[0, 0, 0, 0] != pytest.approx(1.7, abs=0.1)


def test_guidance_at_all_times_needs_no_history_of_its_own():
    drive = samplers.guided(curved, lambda x, t: -curved(x, 1 - t), 3.0, along=0.5)
    both = [samplers.SAMPLERS[name](drive, noise, flow.times(9, 3.0)) for name in ("multistep", "split_multistep")]
    assert torch.allclose(both[0], both[1], rtol=1e-4)


def test_guidance_between_two_times_may_begin_at_another_one_for_each_image():
    until_then, t = torch.tensor([0.0, 0.5, 0.5]), torch.full((3,), 0.3)
    seen = samplers.guided(lambda x, t: data, lambda x, t: noise, 3, since=until_then)(noise, t)
    assert torch.allclose(seen[0], noise[0].lerp(data[0], 3))
    assert torch.equal(seen[1:], data[1:])


def test_what_only_stretches_the_predicted_image_may_be_left_out():
    x, told, t = noise, data - noise, torch.tensor([0.2, 0.5, 0.9])
    predicted = flow.end(x, told, t)
    stretched = told - 0.5 * predicted                       # guidance would push along the predicted image alone
    assert torch.allclose(samplers.further(told, stretched, x, t, 4, along=0), told, atol=1e-5)
    assert torch.allclose(samplers.further(told, stretched, x, t, 4, along=1), told + 1.5 * predicted, atol=1e-5)
    plain = torch.randn(data.shape, generator=torch.Generator().manual_seed(1))
    found = samplers.further(told, plain, x, t, 4, along=0) - told
    assert torch.allclose((found * predicted).sum((1, 2, 3)), torch.zeros(3), atol=1e-3)   # at a right angle
    assert found.abs().mean() > 1
    half = samplers.further(told, plain, x, t, 4, along=0.5)
    ends = [samplers.further(told, plain, x, t, 4, along=a) for a in (0, 1)]
    assert torch.allclose(half, (ends[0] + ends[1]) / 2, atol=1e-4)
