"""A folder's scheduler as numbers: what is predicted, the noise of each training step, the spacing of sampling steps.

diffusers' own scheduler objects are asked for their spacing, so that it is theirs whatever their settings are.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

PREDICTIONS = ("epsilon", "v_prediction", "sample")
LEAST_SIGNAL = 2.0**-24  # alpha-bar of a step that is all noise: diffusers' EulerDiscreteScheduler takes the same


@dataclass(frozen=True)
class Timing:
    """See `Base`, whose fields these become."""

    prediction: str
    sigmas: Tensor | None
    shift: Callable[[int], float]
    schedule: Callable[[int, int], Tensor]
    unit_start: bool


def timing(scheduler: Any, sequence: Callable[[int], int], even: bool = False) -> Timing:
    """The timing of a diffusers scheduler.

    sequence: image side -> tokens of the image, where the shift depends on it. even: the family's pipeline
    hands the scheduler the even flow times 1, ..., 1/steps, instead of leaving them to it (Flux).
    """
    if is_flow(scheduler):
        return flow_timing(scheduler, sequence, even)
    return discrete_timing(scheduler)


def is_flow(scheduler: Any) -> bool:
    return "FlowMatch" in type(scheduler).__name__ or scheduler.config.get("prediction_type") == "flow_prediction"


def discrete_timing(scheduler: Any) -> Timing:
    """Variance-preserving steps: sigma = sqrt((1 - alpha-bar) / alpha-bar), noise over signal."""
    name, prediction = type(scheduler).__name__, scheduler.config.get("prediction_type", "epsilon")
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(f"the scheduler {name} has no discrete noise steps; expected one of Stable Diffusion's, such as "
                         "EulerDiscreteScheduler or DDIMScheduler, or a FlowMatch one")
    if prediction not in PREDICTIONS:
        raise ValueError(f"scheduler_config.json: prediction_type is {prediction!r}; expected one of {', '.join(PREDICTIONS)}")
    signal = scheduler.alphas_cumprod.double().cpu()
    signal = torch.where(signal == 0, LEAST_SIGNAL, signal)
    sigmas = ((1 - signal) / signal).sqrt().float()
    if not (sigmas.diff() > 0).all():
        raise ValueError(f"the noise of {name}'s {len(sigmas)} training steps does not increase from step to step; "
                         "check the betas in scheduler_config.json")

    def schedule(steps: int, side: int) -> Tensor:
        fresh = spaced(scheduler, steps)
        if getattr(fresh, "sigmas", None) is not None:
            found = torch.as_tensor(fresh.sigmas).float()[:-1].unique()
        else:
            found = sigmas[torch.as_tensor(fresh.timesteps).long().unique()]
        return ending(found, steps, name)

    unit = float(scheduler.init_noise_sigma) == 1 or scheduler.config.get("timestep_spacing") == "leading"
    return Timing(prediction, sigmas, lambda side: 1.0, schedule, unit)


def flow_timing(scheduler: Any, sequence: Callable[[int], int], even: bool) -> Timing:
    """Flow steps: sigma is the share of noise, the network's timestep 1000 sigma."""
    config = scheduler.config
    moving = config.get("use_dynamic_shifting", False)

    def mu(side: int) -> float:
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        return least + (most - least) * (sequence(side) - low) / (high - low)

    def shift(side: int) -> float:
        if not moving:
            return float(config.get("shift") or config.get("flow_shift") or 1.0)
        return mu(side) if config.get("time_shift_type") == "linear" else math.exp(mu(side))

    def schedule(steps: int, side: int) -> Tensor:
        given = {"sigmas": np.linspace(1.0, 1 / steps, steps)} if even and not config.get("use_flow_sigmas") else {}
        fresh = spaced(scheduler, steps, **given, **({"mu": mu(side)} if moving else {}))
        return ending(torch.as_tensor(fresh.sigmas).float()[:-1].unique(), steps, type(scheduler).__name__)

    return Timing("flow", None, shift, schedule, True)


def spaced(scheduler: Any, steps: int, **settings: Any) -> Any:
    """A new scheduler of the same settings with so many sampling steps; the one in the pipeline stays as it is."""
    fresh = type(scheduler).from_config(scheduler.config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # diffusers' way of making arrays, with newer numpy
        fresh.set_timesteps(steps, **settings)
    return fresh


def ending(found: Tensor, steps: int, name: str) -> Tensor:
    """Increasing sigmas of the steps, turned round and ended with 0: (steps + 1,)."""
    if len(found) != steps:
        raise ValueError(f"the scheduler {name} makes {len(found)} steps where {steps} were asked for; "
                         f"ask for {len(found)}, or put an EulerDiscreteScheduler in the folder's scheduler/")
    return torch.cat((found.flip(0), torch.zeros(1)))
