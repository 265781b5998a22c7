"""The device that trains: a GPU gets half precision over full-precision weights, and compiled blocks.

On a CPU nothing of this is done unasked: full precision, no compiler. `quicken` asks for it, as a recipe's `precision` and
`compiled` do: a CPU with bf16 units (Intel AMX, `lscpu` says amx_bf16) trains a denoiser several times as fast, one
without them is slower in bf16.
"""

import contextlib
import functools
import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor, nn

from medisyn.training import machine
from medisyn.training.run import say

PEAKS = {  # dense bf16 matrix products in TFLOP/s, vendors' datasheets; the longer name comes first
    "H200": 989.0, "H100 PCIe": 756.0, "H100 NVL": 835.0, "H100": 989.0, "B200": 2250.0, "A100": 312.0, "A10G": 70.0, "A40": 150.0,
    "L40S": 362.0, "L4": 121.0, "RTX 4090": 165.0, "RTX 3090": 71.0,
}
QUICK = {"half": False, "compiled": False}  # what a CPU may do; of the whole process, as its number of threads is


def quicken(precision: str = "auto", compiled: bool = False) -> None:
    """How this process trains on a CPU: precision "auto" and "fp32" are full precision, "bf16" is half over full-precision
    weights; compiled: transformer blocks go through torch's compiler, which needs a C++ compiler. A GPU has both unasked."""
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f'precision should be "auto", "fp32" or "bf16", found {precision!r}')
    if compiled and not (os.environ.get("CXX") or any(map(shutil.which, machine.COMPILERS))):
        raise ValueError("compiled = true expects a C++ compiler, found none; install g++, or take it out of the recipe")
    QUICK.update(half=precision == "bf16", compiled=compiled)


def pick(name: str) -> torch.device:
    """"cpu", "cuda", or "auto": a GPU where there is one."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f'device should be "cpu", "cuda" or "auto", found {name!r}')
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError('device = "cuda", but torch sees no GPU here; use --set device=auto, or install a torch built for it')
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def settle(device: torch.device) -> None:
    """What has to be said once a process before a GPU trains, or a CPU with compiled blocks."""
    if device.type != "cuda":
        if QUICK["half"]:
            warn_of_slow_half()
        if QUICK["compiled"]:
            import torch._dynamo
            torch._dynamo.config.recompile_limit = 64
        return
    import torch._dynamo
    import torch._functorch.config
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.recompile_limit = 64         # convolutions meet a handful of sizes, each compiled once
    torch._dynamo.config.suppress_errors = True       # what cannot be compiled runs as it is
    torch._functorch.config.donated_buffer = False    # the adversary's balance walks one graph twice


@functools.cache
def warn_of_slow_half() -> None:
    """Say, once a process, where a CPU is slower in the bf16 asked for than in full precision (without units by 60 times)."""
    ratio = next(row.value for row in machine.speed() if row.name == "cpu bf16 over fp32")
    if ratio < 1:
        say(f'precision = "bf16": this CPU multiplies in it at {ratio:.2g} times the speed of full precision; '
            "--set precision=fp32 is quicker here")


def half(device: torch.device) -> contextlib.AbstractContextManager:
    """bf16 where it is fast, or asked for; weights, losses and optimizer stay in full precision."""
    asked = device.type == "cuda" or QUICK["half"]
    return torch.autocast(device.type, torch.bfloat16) if asked else contextlib.nullcontext()


def layout(device: torch.device) -> torch.memory_format:
    """How convolutions like their images to lie; a CPU's group norm in bf16 is twice as slow with channels last."""
    return torch.contiguous_format if device.type == "cpu" and QUICK["half"] else torch.channels_last


def compile_blocks(device: torch.device, network: nn.Module, *kinds: type, dynamic: bool = False) -> None:
    """Compile each block of the given classes in place: one compilation serves all blocks of a shape, or of a width where
    the sizes are `dynamic`. Those are convolutions, from which a CPU gains nothing: there they stay as they are."""
    if device.type == "cuda" or QUICK["compiled"] and not dynamic:
        for module in network.modules():
            if isinstance(module, kinds):
                module.compile(dynamic=dynamic)


def eager(device: torch.device) -> contextlib.AbstractContextManager:
    """Without the compiler: for figures and pictures, whose few shapes are not worth its time."""
    return torch.compiler.set_stance("force_eager") if device.type == "cuda" or QUICK["compiled"] \
        else contextlib.nullcontext()


def adamw(parameters: object, rate: float, device: torch.device, **more: object) -> torch.optim.AdamW:
    """AdamW, in one kernel where there is one."""
    return torch.optim.AdamW(parameters, rate, **more, **({"fused": True} if device.type == "cuda" else {}))


def generator(seed: int, step: int, device: torch.device | None = None) -> torch.Generator:
    """Random numbers of a step: they depend on seed, step and the kind of device alone."""
    return torch.Generator(device or "cpu").manual_seed(seed * 1_000_003 + step)


def peak(device: torch.device) -> float | None:
    """FLOP/s of the device at its best in bf16; None where its name is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((tera * 1e12 for known, tera in PEAKS.items() if known in name), None)


def flops(training_step: Callable[[], Tensor]) -> float:
    """Floating-point operations of one forward and backward pass: matrix products, convolutions and attention, counted."""
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counted:
        training_step().sum().backward()
    return float(counted.get_total_flops())
