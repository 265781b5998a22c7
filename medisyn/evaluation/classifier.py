"""Classifiers: a small residual network learns from images what they show; the same seed gives the same network.

It is made for one CPU thread and a fixed number of steps, and shares no weights, losses or code with anything that
makes images. Training images are cropped, turned as far as their image type allows, blurred, and brightened, so that
softness and exposure decide little.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from medisyn.data.vocabulary import IMAGE_TYPES

SAVE_EVERY = 200  # steps between checkpoints
Truth = Mapping[str, np.ndarray]  # question: int (N,) a choice, or (N, choices) 1 present, 0 absent; -1 unknown
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Question:
    """What a network is asked about an image."""

    name: str
    choices: tuple[str, ...]
    exclusive: bool = True        # exactly one choice holds; False: each is present, absent or unknown by itself


@dataclass(frozen=True)
class Settings:
    """How a classifier is trained."""

    side: int = 64                # pixels a side, a multiple of 4
    width: int = 32               # channels of the first layer
    steps: int = 400
    batch: int = 32
    peak: float = 2e-3            # highest learning rate; AdamW, a tenth of warm-up, then a cosine down to nothing
    decay: float = 0.05           # weight decay
    seed: int = 0
    backbone: str = "small"       # or "timm:NAME", "transformers:FOLDER": optional extras


class Residual(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016, fig. 2); halves the side. (B, i, H, W) -> (B, o, H/2, W/2)."""

    def __init__(self, i: int, o: int):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
                                  nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o))
        self.shortcut = nn.Conv2d(i, o, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(F.avg_pool2d(x, 2, ceil_mode=True)))


class AverageAndMost(nn.Module):
    """What is everywhere beside what is anywhere: (B, C, H, W) -> (B, 2 C)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x.mean((2, 3)), x.amax((2, 3))), 1)


class Network(nn.Module):
    """image (B, 3, H, W) in [-1, 1] -> {question: logits (B, choices)}."""

    def __init__(self, questions: Sequence[Question], settings: Settings):
        super().__init__()
        self.questions, self.settings = tuple(questions), settings
        self.trunk, dims = trunk_of(settings)
        self.head = nn.Linear(dims, sum(len(q.choices) for q in questions))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        parts = self.head(self.trunk(image)).split([len(q.choices) for q in self.questions], 1)
        return {q.name: part for q, part in zip(self.questions, parts, strict=True)}


def trunk_of(settings: Settings) -> tuple[nn.Module, int]:
    """(image (B, 3, H, W) -> (B, D), D). ValueError where an optional library is wanted and not installed."""
    kind, _, name = settings.backbone.partition(":")
    if kind == "small":
        w = settings.width
        return nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(48, w, 3, padding=1, bias=False), nn.BatchNorm2d(w), nn.ReLU(),
            Residual(w, 2 * w), Residual(2 * w, 4 * w), Residual(4 * w, 4 * w), AverageAndMost()), 8 * w
    from medisyn.evaluation.backbones import BACKBONES
    if kind not in BACKBONES or not name:
        raise ValueError(f"expected the backbone small, timm:NAME or transformers:FOLDER, found {settings.backbone!r}")
    try:
        return BACKBONES[kind](name)
    except ImportError:
        raise ValueError(f"the backbone {settings.backbone!r} needs the library {kind}, which is not installed; "
                         "install it, or leave the backbone at small") from None


# ---- images ---------------------------------------------------------------------------------------------------------

def symmetries(image_types: Sequence[str], keep_sides: bool = False) -> np.ndarray:
    """How each image may be turned: "none", "mirror" or "dihedral", strings (N,).

    keep_sides: left and right are asked about, so that only what has no way up may be mirrored.
    """
    found = [IMAGE_TYPES[t].symmetry if t in IMAGE_TYPES else "none" for t in image_types]
    return np.array(["none" if keep_sides and s == "mirror" else s for s in found], dtype=str)


def scaled(pixels: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]."""
    own = torch.from_numpy(np.array(pixels))  # a copy: what is mapped from disk may not be written
    return (own.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def augmented(pixels: np.ndarray, symmetry: Sequence[str], rng: np.random.Generator) -> Tensor:
    """A random crop of 11/12, turned, brightened by gamma and gain, blurred.

    uint8 (B, S, S, 3) -> float32 (B, 3, C, C) in [-1, 1], C a multiple of 4.
    """
    b, side = pixels.shape[:2]
    crop = max(4, side * 11 // 12 // 4 * 4)
    out = np.empty((b, crop, crop, 3), np.uint8)
    levels = np.arange(256) / 255
    for k, square in enumerate(pixels):
        top, left = rng.integers(0, side - crop + 1, 2)
        part = square[top:top + crop, left:left + crop]
        turns, flip, gamma, gain = int(rng.integers(4)), rng.random() < 0.5, np.exp(rng.normal(0, 0.2)), rng.normal(1, 0.1)
        if symmetry[k] == "dihedral":
            part = np.rot90(part, turns)
        if symmetry[k] in ("dihedral", "mirror") and flip:
            part = part[:, ::-1]
        out[k] = np.rint((gain * levels**gamma).clip(0, 1) * 255).astype(np.uint8)[part]
    image = scaled(out)
    share = torch.from_numpy((rng.random(b) * (rng.random(b) < 0.5)).astype(np.float32)).view(-1, 1, 1, 1)
    return image.lerp(F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1), share)


# ---- training -------------------------------------------------------------------------------------------------------

@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread inside: the last bit of a sum depends on how many share it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def learning_rate(settings: Settings, step: int) -> float:
    """Of a step counted from 0."""
    warm = max(1, settings.steps // 10)
    if step < warm:
        return settings.peak * (step + 1) / warm
    return settings.peak * 0.5 * (1 + np.cos(np.pi * (step - warm) / max(1, settings.steps - warm)))


def losses(logits: dict[str, Tensor], questions: Sequence[Question], truth: Truth, rows: np.ndarray,
           weights: Mapping[str, Tensor]) -> Tensor:
    """The mean over questions of cross-entropy, or of binary cross-entropies; what is unknown costs nothing."""
    total = torch.zeros(())
    for q in questions:
        said = torch.from_numpy(np.asarray(truth[q.name][rows]).astype(np.int64))
        if q.exclusive:
            total = total + F.cross_entropy(logits[q.name], said, ignore_index=-1, reduction="sum") / len(rows)
        else:
            known = (said >= 0).float()
            each = F.binary_cross_entropy_with_logits(logits[q.name], said.clamp_min(0).float(), reduction="none",
                                                      pos_weight=weights[q.name])
            total = total + (each * known / known.sum(1, keepdim=True).clamp_min(1)).sum() / len(rows)
    return total


def balance(present: np.ndarray) -> Tensor:
    """How much a present finding weighs: sqrt(absent / present) in 1..4; present: (N, F) of 1, 0, -1."""
    ratio = (present == 0).sum(0) / (present == 1).sum(0).clip(1)
    return torch.from_numpy(np.sqrt(ratio).clip(1, 4).astype(np.float32))


def fit(pixels: np.ndarray, truth: Truth, questions: Sequence[Question], settings: Settings, *, symmetry: Sequence[str],
        p: np.ndarray | None = None, start: Network | None = None, checkpoint: Path | None = None,
        progress: Progress = lambda done, total: None) -> Network:
    """A network trained for exactly `settings.steps` batches; a pure function of its arguments.

    pixels      uint8 (N, S, S, 3); may be mapped from disk.
    truth       a question's choice (N,) or states (N, choices); -1 unknown.
    symmetry    (N,) of `symmetries`.
    p           (N,) how often each image is drawn, summing to 1; None: alike.
    start       go on from these weights (fine-tuning); they are copied.
    checkpoint  a file: written now and then, gone on from where it is there; a resumed run is the uninterrupted one.
    """
    if len(pixels) == 0:
        raise ValueError("a classifier needs images to learn from, found none; give a larger set")
    symmetry, n = np.asarray(symmetry), len(pixels)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = Network(questions, settings).to(memory_format=torch.channels_last).train()
        if start is not None:
            network.load_state_dict(start.state_dict())
        optimizer = torch.optim.AdamW(network.parameters(), settings.peak, weight_decay=settings.decay)
        weights = {q.name: balance(np.asarray(truth[q.name])) for q in questions if not q.exclusive}
        first = resume(network, optimizer, checkpoint) if checkpoint else 0
        for step in range(first, settings.steps):
            rng = np.random.default_rng([settings.seed, step])
            rows = rng.choice(n, settings.batch, p=p)
            image = augmented(pixels[rows], symmetry[rows], rng)
            loss = losses(network(image), questions, truth, rows, weights)
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step)
            optimizer.step()
            if checkpoint and (step + 1) % SAVE_EVERY == 0 and step + 1 < settings.steps:
                pause(network, optimizer, step + 1, checkpoint)
            progress(step + 1, settings.steps)
    return network.eval().requires_grad_(False)


def pause(network: Network, optimizer: torch.optim.Optimizer, step: int, file: Path) -> None:
    """Everything that the next step needs, whole or not at all."""
    held = {f"network.{name}": value for name, value in network.state_dict().items()}
    for i, parameter in enumerate(network.parameters()):
        held |= {f"optimizer.{i}.{name}": value for name, value in optimizer.state[parameter].items()}
    write(held, file, {"step": str(step)})


def resume(network: Network, optimizer: torch.optim.Optimizer, file: Path) -> int:
    """Take up what `pause` wrote; the next step, 0 where there is no such file."""
    if not file.is_file():
        return 0
    with safe_open(file, "pt") as opened:
        held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (not a dict)
        step = int(opened.metadata()["step"])
    network.load_state_dict({name[8:]: value for name, value in held.items() if name.startswith("network.")})
    for i, parameter in enumerate(network.parameters()):
        head = f"optimizer.{i}."
        optimizer.state[parameter] = {name[len(head):]: value for name, value in held.items() if name.startswith(head)}
    return step


def write(held: Mapping[str, Tensor], file: Path, told: dict[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".part")
    save_file({name: value.contiguous().clone() for name, value in held.items()}, draft, metadata=told)
    os.replace(draft, file)


def save(network: Network, file: Path) -> Path:
    """A trained network with what it is asked."""
    write(network.state_dict(), Path(file), {"questions": json.dumps([asdict(q) for q in network.questions]),
                                             "settings": json.dumps(asdict(network.settings))})
    return Path(file)


def load(file: Path) -> Network:
    """What `save` wrote; ValueError where it is something else."""
    try:
        with safe_open(file, "pt") as opened:
            told = opened.metadata() or {}
            held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        asked = [Question(q["name"], tuple(q["choices"]), q["exclusive"]) for q in json.loads(told["questions"])]
        network = Network(asked, Settings(**json.loads(told["settings"])))
        network.load_state_dict(held)
    except Exception as error:
        raise ValueError(f"{file}: expected a classifier that medisyn saved, found {type(error).__name__}; remove it, "
                         "and it is trained anew") from None
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def digest(network: Network) -> str:
    """12 hex digits over the weights."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode() + np.ascontiguousarray(value.numpy()).tobytes())
    return found.hexdigest()[:12]


# ---- asking ---------------------------------------------------------------------------------------------------------

@torch.no_grad()
def answers(network: Network, pixels: np.ndarray, batch: int = 64) -> dict[str, np.ndarray]:
    """Probabilities of each question's choices for uint8 (N, S, S, 3): {question: float32 (N, choices)}.

    They sum to 1 over the choices of an exclusive question.
    """
    parts: dict[str, list[np.ndarray]] = {q.name: [np.zeros((0, len(q.choices)), np.float32)] for q in network.questions}
    with one_thread():
        for at in range(0, len(pixels), batch):
            logits = network(scaled(pixels[at:at + batch]))
            for q in network.questions:
                found = logits[q.name].softmax(1) if q.exclusive else logits[q.name].sigmoid()
                parts[q.name].append(found.numpy())
    return {name: np.concatenate(found) for name, found in parts.items()}


@torch.no_grad()
def features(network: Network, pixels: np.ndarray, batch: int = 64) -> np.ndarray:
    """What it sees before it answers: float32 (N, D)."""
    with one_thread():
        found = [network.trunk(scaled(pixels[at:at + batch])).numpy() for at in range(0, len(pixels), batch)]
    return np.concatenate(found) if found else np.zeros((0, network.head.in_features), np.float32)
