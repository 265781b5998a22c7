"""Velocities of pretrained bases: the same steps as diffusers' own schedulers, and the same training losses."""

import diffusers
import pytest
import torch

from medisyn import flow, samplers, velocities
from medisyn.models.bases import Base
from medisyn.models.bases.timing import timing

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, with newer numpy

NOISE, DATA = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TABLES = {
    "scaled linear": SD,
    "linear": {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "no signal in the last": SD | {"rescale_betas_zero_snr": True},
}
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def network(x, timestep, told=None):
    """Something smooth, nonlinear and aware of its timestep."""
    at = (timestep / 300).reshape(-1, 1, 1, 1)
    return torch.tanh(1.3 * x.roll(1, -1) + torch.sin(at)) + 0.2 * torch.cos(at) * x


def base_of(scheduler, predict=network, sequence=lambda side: (side // 16)**2, even=False):
    known = timing(scheduler, sequence, even)
    return Base("sd", "", {}, "unet", known.prediction, known.sigmas, 512, 8, 4, known.shift, known.schedule, known.unit_start,
                None, predict, None, None, None, "", None)


def ours(base, steps, side=512, sampler=samplers.euler):
    times = velocities.times(base, steps, side)
    return sampler(velocities.velocity(base, {}), velocities.start(base, NOISE, times), times)


def theirs(scheduler, steps, **settings):
    """The loop of diffusers' pipelines."""
    scheduler.set_timesteps(steps, **settings)
    x = NOISE * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(scaled, t.float().expand(len(x))), t, x).prev_sample
    return x


def difference(found, expected):
    """The largest error, as a part of the largest value: a made-up network may lead far from 1."""
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("table", TABLES)
def test_euler_along_the_velocity_is_euler_in_sigma(table, prediction, spacing):
    scheduler = diffusers.EulerDiscreteScheduler(**TABLES[table], prediction_type=prediction, timestep_spacing=spacing,
                                                 steps_offset=1)
    noisiest = float(base_of(scheduler).sigmas[-1])
    rounding = noisiest * 1.2e-7 if spacing != "leading" and noisiest > 1000 else 0  # diffusers' x is that large, in float32
    assert difference(ours(base_of(scheduler), 6), theirs(scheduler, 6)) < max(1e-4, rounding)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("table", ["scaled linear", "linear", "cosine"])
def test_euler_along_the_velocity_is_ddim(table, prediction, spacing):
    scheduler = diffusers.DDIMScheduler(**TABLES[table], prediction_type=prediction, timestep_spacing=spacing, clip_sample=False,
                                        set_alpha_to_one=True)
    assert difference(ours(base_of(scheduler), 5), theirs(scheduler, 5)) < 1e-5


def test_the_last_step_without_signal_is_ddims_too():
    scheduler = diffusers.DDIMScheduler(**SD, rescale_betas_zero_snr=True, prediction_type="v_prediction", clip_sample=False,
                                        timestep_spacing="trailing")
    assert difference(ours(base_of(scheduler), 5), theirs(scheduler, 5)) < 5e-4  # DDIM's 0 signal is Euler's 2^-24, and ours


def test_a_folder_with_pndm_is_sampled_at_its_own_timesteps():
    """Stable Diffusion 1.5 as it came: PNDM, whose first step asked twice is asked once."""
    pndm = diffusers.PNDMScheduler(**SD, skip_prk_steps=True, steps_offset=1, timestep_spacing="leading")
    ddim = diffusers.DDIMScheduler(**SD, clip_sample=False, steps_offset=1, timestep_spacing="leading")
    assert difference(ours(base_of(pndm), 5), theirs(ddim, 5)) < 1e-4


@pytest.mark.parametrize("scheduler", [
    diffusers.DPMSolverMultistepScheduler(**SD, solver_order=1, timestep_spacing="trailing"),
    diffusers.DPMSolverMultistepScheduler(**SD, solver_order=1, timestep_spacing="linspace", algorithm_type="dpmsolver++"),
    diffusers.UniPCMultistepScheduler(**SD, solver_order=1, disable_corrector=list(range(6)))])
def test_solvers_of_first_order_are_euler(scheduler):
    assert difference(ours(base_of(scheduler), 6), theirs(scheduler, 6)) < 1e-4


def test_karras_sigmas_fall_between_the_training_steps():
    scheduler = diffusers.EulerDiscreteScheduler(**SD, use_karras_sigmas=True)
    assert difference(ours(base_of(scheduler), 6), theirs(scheduler, 6)) < 1e-4


def test_a_folder_with_heun_asks_each_time_once():
    heun, euler = (base_of(kind(**SD, timestep_spacing="trailing")) for kind in (diffusers.HeunDiscreteScheduler,
                                                                                  diffusers.EulerDiscreteScheduler))
    assert torch.allclose(velocities.times(heun, 5, 512), velocities.times(euler, 5, 512))


@pytest.mark.parametrize("settings", [{"shift": 1.0}, {"shift": 3.0}, {"use_dynamic_shifting": True},
                                      {"use_dynamic_shifting": True, "time_shift_type": "linear"},
                                      {"shift": 2.0, "shift_terminal": 0.02}, {"shift": 3.0, "use_karras_sigmas": True}])
def test_flow_steps_are_diffusers_flow_steps(settings):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**settings)
    base = base_of(scheduler)
    moving = {"mu": 0.5 + (1.15 - 0.5) * (32**2 - 256) / (4096 - 256)} if "use_dynamic_shifting" in settings else {}
    assert difference(ours(base, 6), theirs(scheduler, 6, **moving)) < 1e-4


def test_the_shift_of_flow_times_is_the_schedulers():
    still = base_of(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))
    moving = base_of(diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), even=True)
    assert still.shift(512) == 3.0
    assert moving.shift(256) == pytest.approx(torch.tensor(0.5).exp().item())
    assert moving.shift(1024) == pytest.approx(torch.tensor(1.15).exp().item())
    even = flow.times(4, shift=moving.shift(512))
    assert torch.allclose(velocities.times(moving, 4, 512), even, atol=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_a_network_that_knows_the_truth_has_the_true_velocity(prediction, t):
    t = torch.full((3,), t)
    alpha, sigma = (part / flow.length(t) for part in (t, 1 - t))
    truth = {"epsilon": NOISE, "sample": DATA, "v_prediction": alpha.view(-1, 1, 1, 1) * NOISE - sigma.view(-1, 1, 1, 1) * DATA}

    def predict(x, timestep, told):
        assert torch.allclose(x.square().mean(), torch.tensor(1.0), atol=0.1)  # noise and data are of unit variance
        return truth[prediction]

    base = base_of(diffusers.EulerDiscreteScheduler(**SD, prediction_type=prediction), predict)
    v = velocities.velocity(base, {})(flow.interpolate(NOISE, DATA, t), t)
    assert torch.allclose(v, DATA - NOISE, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("gamma", [None, 5.0])
def test_the_weighted_loss_of_the_velocity_is_the_networks_own(prediction, gamma):
    """Against the losses as diffusers' training scripts write them, in the variance-preserving coordinates."""
    scheduler = diffusers.DDPMScheduler(**SD, prediction_type=prediction)
    base = base_of(scheduler)
    steps = torch.tensor([20, 400, 950])
    t = flow.time_of(base.sigmas[steps])
    target = {"epsilon": NOISE, "sample": DATA, "v_prediction": scheduler.get_velocity(DATA, NOISE, steps)}[prediction]
    own = (network(scheduler.add_noise(DATA, NOISE, steps), steps.float()) - target).square().flatten(1).mean(1)
    if gamma:
        snr = scheduler.alphas_cumprod[steps] / (1 - scheduler.alphas_cumprod[steps])
        own *= snr.clamp(max=gamma) / {"epsilon": snr, "v_prediction": snr + 1, "sample": 1}[prediction]
    weighted = velocities.weight(base, t, gamma) * flow.loss(velocities.velocity(base, {}), DATA, NOISE, t)
    assert torch.allclose(weighted, own, rtol=1e-3)


def test_a_flow_is_its_own_loss_and_has_no_snr_to_clip():
    base = base_of(diffusers.FlowMatchEulerDiscreteScheduler())
    assert torch.equal(velocities.weight(base, torch.rand(4)), torch.ones(4))
    with pytest.raises(ValueError, match="leave min_snr out"):
        velocities.weight(base, torch.rand(4), 5.0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_before_the_noisiest_training_step_the_velocity_is_that_steps(prediction):
    base = base_of(diffusers.EulerDiscreteScheduler(**SD, prediction_type=prediction))
    v = velocities.velocity(base, {})
    first = flow.time_of(base.sigmas[-1]).expand(3)
    assert torch.allclose(v(NOISE, torch.zeros(3)), v(NOISE, first), atol=1e-4)
    assert v(NOISE, torch.ones(3)).isfinite().all()


@pytest.mark.parametrize("sampler", samplers.SAMPLERS.values())
def test_every_sampler_arrives_at_the_data(sampler):
    base = base_of(diffusers.EulerDiscreteScheduler(**SD), lambda x, timestep, told: NOISE)
    times = velocities.times(base, 8, 512)
    begin = flow.interpolate(NOISE, DATA, times[:1])
    assert torch.allclose(sampler(velocities.velocity(base, {}), begin, times), DATA, atol=1e-4)


@pytest.mark.parametrize("table", TABLES)
def test_every_training_step_is_found_again(table):
    """From its noise to its index, whole; between two of them as diffusers interpolates."""
    scheduler = diffusers.EulerDiscreteScheduler(**TABLES[table])
    sigmas = base_of(scheduler).sigmas
    assert torch.equal(flow.step_of(flow.time_of(sigmas), sigmas), torch.arange(1000.0))
    between = (sigmas[:-1] * sigmas[1:]).sqrt()
    expected = torch.from_numpy(scheduler._sigma_to_t(between.numpy(), sigmas.log().numpy())).float()
    assert torch.allclose(flow.step_of(flow.time_of(between), sigmas), expected, atol=2e-2)
    assert flow.step_of(torch.tensor([0.0, 1.0]), sigmas).tolist() == [999, 0]


def test_training_times_are_the_bases_own_steps_evenly():
    base = base_of(diffusers.EulerDiscreteScheduler(**SD))
    t = velocities.draw_times(base, 20_000, torch.Generator().manual_seed(0))
    steps = flow.step_of(t, base.sigmas)
    assert torch.equal(steps, steps.round())
    assert abs(steps.mean() - 499.5) < 10
    assert steps.min() < 5
    assert steps.max() > 994


def test_training_times_of_a_flow_are_shifted_for_the_image():
    base = base_of(diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True))
    small, large = (velocities.draw_times(base, 5000, torch.Generator().manual_seed(0), side) for side in (256, 1024))
    assert large.median() < small.median() < 0.5
    assert torch.allclose(small, flow.draw_times(5000, shift=base.shift(256), generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("scheduler", [diffusers.EulerDiscreteScheduler(**SD), diffusers.DDIMScheduler(**SD),
                                       diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)])
def test_times_rise_to_one(scheduler):
    times = velocities.times(base_of(scheduler), 7, 512)
    assert times.shape == (8,)
    assert (times.diff() > 0).all()
    assert times[-1] == 1
    with pytest.raises(ValueError, match="one step or more"):
        velocities.times(base_of(scheduler), 0, 512)


def test_schedulers_that_do_not_fit_say_so():
    with pytest.raises(ValueError, match="has no discrete noise steps"):
        timing(diffusers.EDMEulerScheduler(), lambda side: 1)
    with pytest.raises(ValueError, match="expected one of epsilon, v_prediction, sample"):
        timing(diffusers.DDPMScheduler(prediction_type="other"), lambda side: 1)
    with pytest.raises(ValueError, match="does not increase"):
        timing(diffusers.DDPMScheduler(trained_betas=[0.1, 0.0, 0.2]), lambda side: 1)
    with pytest.raises(ValueError, match="steps where 5 were asked for"):
        velocities.times(base_of(diffusers.PNDMScheduler(**SD)), 5, 512)
