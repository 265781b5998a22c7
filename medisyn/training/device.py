"""The device that trains: a GPU gets half precision over full-precision weights, and compiled blocks.

On a CPU all of this is nothing at all: full precision, no compiler, so that a stopped and resumed run stays the
uninterrupted one bit for bit.
"""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

PEAKS = {  # dense bf16 matrix products in TFLOP/s, vendors' datasheets; the longer name comes first
    "H200": 989.0, "H100 PCIe": 756.0, "H100 NVL": 835.0, "H100": 989.0, "B200": 2250.0, "A100": 312.0, "A10G": 70.0, "A40": 150.0,
    "L40S": 362.0, "L4": 121.0, "RTX 4090": 165.0, "RTX 3090": 71.0,
}


def pick(name: str) -> torch.device:
    """"cpu", "cuda", or "auto": a GPU where there is one."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f'device should be "cpu", "cuda" or "auto", found {name!r}')
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError('device = "cuda", but torch sees no GPU here; use --set device=auto, or install a torch built for it')
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def settle(device: torch.device) -> None:
    """What has to be said once a process before a GPU trains."""
    if device.type != "cuda":
        return
    import torch._dynamo
    import torch._functorch.config
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.recompile_limit = 64         # convolutions meet a handful of sizes, each compiled once
    torch._dynamo.config.suppress_errors = True       # what cannot be compiled runs as it is
    torch._functorch.config.donated_buffer = False    # the adversary's balance walks one graph twice


def half(device: torch.device) -> contextlib.AbstractContextManager:
    """bf16 where it is fast; weights, losses and optimizer stay in full precision."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()


def compile_blocks(device: torch.device, network: nn.Module, *kinds: type, dynamic: bool = False) -> None:
    """Compile each block of the given classes in place: one compilation serves all blocks of a shape, or of a width where
    the sizes are `dynamic`."""
    if device.type == "cuda":
        for module in network.modules():
            if isinstance(module, kinds):
                module.compile(dynamic=dynamic)


def eager(device: torch.device) -> contextlib.AbstractContextManager:
    """Without the compiler: for figures and pictures, whose few shapes are not worth its time."""
    return torch.compiler.set_stance("force_eager") if device.type == "cuda" else contextlib.nullcontext()


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
