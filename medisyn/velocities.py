"""Any pretrained base as a rectified-flow velocity, whatever its network predicts and however its steps are counted.

    base = bases.load(folder)
    told, nothing = base.read([prompt]), base.read([""])
    times = velocities.times(base, steps=30, side=512)
    guided = samplers.guided(velocities.velocity(base, told), velocities.velocity(base, nothing), 7.5)
    latent = samplers.euler(guided, velocities.start(base, noise, times), times)

Exact: Euler's steps along this velocity are those of DDIM (eta 0; Song et al. 2020, arXiv:2010.02502) and of Euler in
sigma (Karras et al. 2022, arXiv:2206.00364, algorithm 2), since x_t = t * (data + sigma * noise) at sigma = (1 - t) / t
and both steps keep the predicted noise and data of their beginning.
"""

import torch
from torch import Tensor

from medisyn import flow
from medisyn.flow import Velocity
from medisyn.models.bases import Base, Told

THOUSAND = 1000  # flow networks are told 1000 times their share of noise
LAST = 1e-4      # a network that predicts data is not asked nearer to the data than this


def velocity(base: Base, told: Told) -> Velocity:
    """The base's velocity for B sentences: (x_t (B, c, h, w), t (B,)) -> (B, c, h, w).

    t in [0, 1]; below the time of the noisiest training step, the velocity is that step's.
    """
    if base.sigmas is None:
        return lambda x, t: -base.predict(x, THOUSAND * flow.noise_share(t), told)
    convert = {"epsilon": flow.from_noise, "v_prediction": flow.from_v, "sample": flow.from_data}[base.prediction]
    first = float(flow.time_of(base.sigmas[-1]))
    last = 1 - LAST if base.prediction == "sample" else 1.0

    def at(x: Tensor, t: Tensor) -> Tensor:
        t = t.clamp(first, last)
        return convert(x, base.predict(flow.preserving(x, t), flow.step_of(t, base.sigmas), told), t)
    return at


def times(base: Base, steps: int, side: int) -> Tensor:
    """The (steps + 1,) increasing times of a sampler, ending at 1, spaced as the base's own scheduler spaces them.

    side: pixels of the image, where the spacing depends on it.
    """
    if steps < 1:
        raise ValueError(f"expected one step or more, found {steps}")
    noise = base.schedule(steps, side)
    return flow.noise_share(noise) if base.sigmas is None else flow.time_of(noise)


def start(base: Base, noise: Tensor, times: Tensor) -> Tensor:
    """x at times[0] from unit noise (B, c, h, w), as the family's own pipeline begins."""
    if base.sigmas is None:
        return noise
    return noise * (flow.length(times[0]) if base.unit_start else flow.noise_share(times[0]))


def draw_times(base: Base, n: int, generator: torch.Generator | None = None, side: int | None = None) -> Tensor:
    """Training times (n,): uniform over the base's training steps, or for flow logit-normal, shifted for the image's side."""
    if base.sigmas is None:
        return flow.draw_times(n, shift=base.shift(side or base.image_size), generator=generator)
    return flow.time_of(base.sigmas[torch.randint(len(base.sigmas), (n,), generator=generator)])


def weight(base: Base, t: Tensor, min_snr: float | None = None) -> Tensor:
    """What the squared error of the velocity at t is multiplied with to be the base's own training loss: (n,).

    epsilon: (x - noise) / t has the error of noise over t, so t^2; v-prediction: t^2 + (1 - t)^2; sample: (1 - t)^2.
    min_snr: gamma of Hang et al. 2023, arXiv:2303.09556, section 3.4; None is the plain loss. Flow is its own loss.
    """
    if base.prediction == "flow":
        if min_snr is not None:
            raise ValueError("min-SNR weighs the steps of a diffusion model; this base is a flow, leave min_snr out")
        return torch.ones_like(t)
    own = {"epsilon": t.square(), "v_prediction": flow.length(t).square(), "sample": flow.noise_share(t).square()}[base.prediction]
    if min_snr is None:
        return own
    snr = flow.ratio(t).clamp(min=1e-6).pow(-2)
    kept = snr.clamp(max=min_snr)
    return own * {"epsilon": kept / snr, "v_prediction": kept / (snr + 1), "sample": kept}[base.prediction]
