"""The judge: a small network that learns from real training images what an image shows.

A residual network with batch norm: another architecture, another seed and other losses than anything that made the
images. Training images are mirrored, blurred and brightened at random, so that softness alone decides little.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from contrasts import CONTRASTS
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medisyn.data import vocabulary
from medisyn.data.records import Record
from medisyn.evaluation.classifier import Settings, trunk_of
from medisyn.training import batches, run
from medisyn.training.batches import Pixels

N_IMAGES = 100_000       # it trains on, repeats counted: about five minutes of one core
SIDE = 96                # pixels a side of what it sees
CROP = 88                # of what it trains on
BATCH, PEAK = 32, 2e-3    # images a step, highest learning rate
FEWEST = 10              # training images that must show a finding, and lack it, for the judge to learn it
SEED = 90210
TURNABLE = ("histopathology", "blood_smear", "dermoscopy")  # no way is up


@dataclass(frozen=True)
class Questions:
    """What the judge is asked."""

    image_types: tuple[str, ...]
    findings: tuple[str, ...]            # "mri/glioma"
    unmentioned: tuple[str, ...]         # findings never said to be absent: the silence of their source stands in
    contrasts: tuple[str, ...]
    sizes: tuple[int, ...]               # choices of each contrast


class Judge(nn.Module):
    """image (B, 3, H, W) in [-1, 1] -> logits of image types, findings and contrasts."""

    def __init__(self, questions: Questions, width: int = 32):
        super().__init__()
        self.questions = questions
        self.trunk, dims = trunk_of(Settings(width=width))
        sizes = [len(questions.image_types), len(questions.findings), *questions.sizes]
        self.head, self.sizes = nn.Linear(dims, sum(sizes)), sizes

    def forward(self, image: Tensor) -> list[Tensor]:
        """[(B, types), (B, findings), (B, choices of contrast 1), ...]"""
        return list(self.head(self.trunk(image)).split(self.sizes, 1))


def questions_of(known: Sequence[Record]) -> Questions:
    """Everything that the training images can teach."""
    count: Counter = Counter()
    for r in known:
        count.update((f"{r.image_type}/{name}", seen) for name, seen in r.findings.items())
    names = [n for n in dict.fromkeys(n for n, _ in count) if count[n, True] >= FEWEST]
    silent = {n for n in names if not count[n, False] and (states(known, [n], {n}) == 0).sum() >= FEWEST}
    findings = tuple(sorted(n for n in names if count[n, False] >= FEWEST or n in silent))
    contrasts = [c for c in CONTRASTS
                 if min(np.bincount([c.of(r) + 1 for r in known], minlength=len(c.choices) + 1)[1:]) >= FEWEST]
    return Questions(tuple(t for t in vocabulary.IMAGE_TYPES if any(r.image_type == t for r in known)), findings,
                     tuple(sorted(silent)), tuple(c.name for c in contrasts), tuple(len(c.choices) for c in contrasts))


def states(known: Sequence[Record], findings: Sequence[str], unmentioned: Sequence[str]) -> np.ndarray:
    """1 present, 0 absent, -1 unknown for each record and finding: int8 (N, F)."""
    found = np.full((len(known), len(findings)), -1, np.int8)
    sources = {n: {r.source for r in known if f"{r.image_type}/{m}" == n and r.findings.get(m)}
               for n in unmentioned for m in [n.split("/")[1]]}
    for k, name in enumerate(findings):
        kind, finding = name.split("/")
        for i, r in enumerate(known):
            if r.image_type == kind:
                seen = r.findings.get(finding)
                if seen is None and name in sources and r.source in sources[name]:
                    seen = False
                found[i, k] = -1 if seen is None else int(seen)
    return found


def choices(known: Sequence[Record], questions: Questions) -> np.ndarray:
    """The choice of each record in each contrast, -1 where none: int64 (N, contrasts)."""
    asked = [c for c in CONTRASTS if c.name in questions.contrasts]
    return np.array([[c.of(r) for c in asked] for r in known], np.int64).reshape(len(known), len(asked))


def squares(image: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]."""
    own = torch.from_numpy(np.array(image))  # a copy: what is mapped from disk may not be written
    return (own.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def augmented(pixels: np.ndarray, turnable: np.ndarray, rng: np.random.Generator) -> Tensor:
    """A random crop, mirrored, blurred, brightened: uint8 (B, S, S, 3) -> float32 (B, 3, CROP, CROP)."""
    out = np.empty((len(pixels), CROP, CROP, 3), np.uint8)
    for k, square in enumerate(pixels):
        top, left = rng.integers(0, square.shape[0] - CROP + 1, 2)
        part = square[top:top + CROP, left:left + CROP]
        if turnable[k]:
            part = np.rot90(part, int(rng.integers(4)))
        out[k] = part[:, ::-1] if rng.random() < 0.5 else part
    image = squares(out)
    b = len(out)
    share = torch.from_numpy((rng.random(b) * (rng.random(b) < 0.7)).astype(np.float32)).view(-1, 1, 1, 1)
    image = image.lerp(F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1), share)
    gain, lift = (torch.from_numpy(rng.normal(mean, 0.12, b).astype(np.float32)).view(-1, 1, 1, 1) for mean in (1, 0))
    return (image * gain + lift).clamp(-1, 1)


def fit(pixels: Pixels, questions: Questions, folder: Path, n_images: int = N_IMAGES) -> Judge:
    """Train on the split `train`, image types and what they show drawn almost alike often; goes on where it stopped."""
    torch.manual_seed(SEED)
    rows = pixels.of_split("train")
    known = [pixels.records[r] for r in rows]
    kind = torch.tensor([questions.image_types.index(r.image_type) for r in known])
    truth = states(known, questions.findings, questions.unmentioned)
    choice = torch.from_numpy(choices(known, questions))
    turnable = np.array([r.image_type in TURNABLE for r in known])
    balance = torch.from_numpy(((truth == 0).sum(0) / (truth == 1).sum(0).clip(1)).clip(0.5, 3).astype(np.float32))
    truth, p = torch.from_numpy(truth), batches.weights(known, 0.3)
    judge = Judge(questions).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(judge.parameters(), PEAK, weight_decay=0.05)
    plan = run.Plan(n_images, BATCH, SEED, log_images=max(BATCH, n_images // 10), save_seconds=60)

    def step(i: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([SEED, i])
        drawn = rng.choice(len(rows), BATCH, p=p)
        types, findings, *picks = judge(augmented(pixels.array[rows[drawn]], turnable[drawn], rng))
        said = truth[drawn]
        known_of_it = (said >= 0).sum(1, keepdim=True).clamp_min(1)  # an image counts once, however much is known of it
        each = F.binary_cross_entropy_with_logits(findings, said.clamp_min(0).float(), pos_weight=balance,
                                                  reduction="none")
        losses = {"type": F.cross_entropy(types, kind[drawn]),
                  "findings": (each * (said >= 0) / known_of_it).sum() / BATCH}
        losses["contrasts"] = sum((F.cross_entropy(logits, choice[drawn, k], ignore_index=-1, reduction="sum") / BATCH
                                   for k, logits in enumerate(picks)), torch.zeros(()))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        for group in optimizer.param_groups:
            group["lr"] = run.learning_rate(PEAK, i, plan.steps, plan.steps // 10, 0.8)
        optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    trainee = run.Trainee(step, {"judge": judge}, {"adamw": optimizer})
    if not run.train(run.Stage(folder, "judge-training", tell), plan, trainee):
        raise RuntimeError(f"the judge was stopped before its end; the same command goes on in {folder}")
    return judge.eval().requires_grad_(False)


def trained(pixels: Pixels, file: Path, n_images: int = N_IMAGES) -> Judge:
    """The judge in a file, or a new one that is then kept there."""
    known = [pixels.records[r] for r in pixels.of_split("train")]
    questions = questions_of(known)
    asked = json.loads(json.dumps(asdict(questions)))
    if file.is_file():
        with safe_open(file, "pt") as opened:
            told = json.loads(opened.metadata()["questions"])
        if told != asked:
            raise ValueError(f"{file} was trained on other questions than this collection asks; "
                             "remove it and judge-training beside it, or pass another --judge")
        judge = Judge(questions)
        judge.load_state_dict(load_file(file))
        return judge.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    judge = fit(pixels, questions, file.parent, n_images)
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous().clone() for name, value in judge.state_dict().items()}
    save_file(state, file, metadata={"questions": json.dumps(asked), "n_images": str(n_images), "seed": str(SEED)})
    return judge


@torch.no_grad()
def answers(judge: Judge, pixels: np.ndarray, batch: int = 64) -> list[np.ndarray]:
    """Its logits for squares uint8 (N, SIDE, SIDE, 3), averaged over each and its mirror image."""
    parts = []
    for at in range(0, len(pixels), batch):
        image = squares(pixels[at:at + batch])
        parts.append([(a + b) / 2 for a, b in zip(judge(image), judge(image.flip(3)), strict=True)])
    if not parts:
        return [np.zeros((0, n), np.float32) for n in judge.sizes]
    return [torch.cat(column).numpy() for column in zip(*parts, strict=True)]


@torch.no_grad()
def features(judge: Judge, pixels: np.ndarray, batch: int = 64) -> np.ndarray:
    """What it sees before it answers: float32 (N, D)."""
    return np.concatenate([judge.trunk(squares(pixels[at:at + batch])).numpy() for at in range(0, len(pixels), batch)])


def tell(text: str) -> None:
    """A line of progress: stderr."""
    print(text, file=sys.stderr, flush=True)
