"""The eye: a small convolutional network whose features compare medical images; it ships with the project.

It was trained without labels (medisyn/training/eye.py) on patients that no generator of ours was trained on.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS = "model.safetensors"
SHIPPED = Path(__file__).parent.parent / "weights" / "eye"


@dataclass(frozen=True)
class EyeConfig:
    """The shape of an eye."""

    side: int = 128                                 # pixels a side of what it looks at
    widths: tuple[int, ...] = (32, 64, 96, 160)     # channels at 1/4, 1/8, 1/16 and 1/32 of the side
    levels: int = 2                                 # last so many of these become features: texture beside content

    @property
    def dims(self) -> int:
        return sum(self.widths[-self.levels:])


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut: (B, C, H, W) -> same. He et al. 2016, arXiv:1603.05027, fig. 1b."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
                                  nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Eye(nn.Module):
    """image -> features of about zero mean and unit variance over the images that it was trained on."""

    def __init__(self, config: EyeConfig):
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = nn.Conv2d(3, widths[0], 7, 4, 3, bias=False)
        self.blocks = nn.ModuleList(Residual(width) for width in widths)
        self.smaller = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.even = nn.BatchNorm1d(config.dims, affine=False)

    def forward(self, image: Tensor) -> Tensor:
        """image: float32 (B, 3, H, W) in [-1, 1], H and W at least 32 -> features: float32 (B, dims)."""
        x = self.stem(image)                                                # (B, w0, H/4, W/4)
        levels = []
        for i, block in enumerate(self.blocks):
            x = block(x if i == 0 else self.smaller[i - 1](x))              # (B, wi, H/2**(i+2), W/2**(i+2))
            levels.append(F.relu(x).mean((2, 3)))                           # (B, wi)
        return self.even(torch.cat(levels[-self.config.levels:], 1))


def save(eye: Eye, folder: Path) -> Path:
    """config.json and fp16 safetensors."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: (v.half() if v.is_floating_point() else v).contiguous().clone() for k, v in eye.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    written = {"_class_name": "Eye", **dataclasses.asdict(eye.config)}
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    return folder


def load(folder: Path = SHIPPED) -> Eye:
    """An eye from its folder, ready to look; ValueError or FileNotFoundError is one sentence."""
    folder = Path(folder)
    if not (folder / WEIGHTS).is_file() or not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no eye: expected config.json and {WEIGHTS}; "
                                "train one with `medisyn train recipes/eye.toml`")
    try:
        written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        network = Eye(EyeConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in written.items() if k[0] != "_"}))
        state = load_file(folder / WEIGHTS)
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except (SafetensorError, OSError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        told = " ".join(str(error).split())[:120]
        raise ValueError(f"{folder} holds no eye: expected config.json and {WEIGHTS} that fit each other, found {told}; "
                         "fetch or train it again") from None
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def digest(folder: Path = SHIPPED) -> str:
    """sha256 of the weights, 12 hex digits."""
    return hashlib.sha256((Path(folder) / WEIGHTS).read_bytes()).hexdigest()[:12]


def to_tensor(squares: object) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1], channels last in memory."""
    return torch.as_tensor(squares).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
