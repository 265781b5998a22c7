"""Cache: every training image through the autoencoder once and every sentence through the text encoder once, in shards.

    CACHE/plan.json                        what decides all that lies here; another plan begins anew
    CACHE/latents-<n>.safetensors          float16 latents of one size, in the plan's order
    CACHE/told-<n>.safetensors             what the denoiser is told of sentence after sentence

A shard appears whole or not at all, so that an interrupted start goes on where it stopped. Pixels stay float32 from the
file to the autoencoder: nothing is rounded to 8 bits on the way, and gray images have one channel until the base widens them.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from medisyn.data import images, prompts, vocabulary
from medisyn.data.records import Record
from medisyn.models.bases import Base, Told
from medisyn.training import batches, buckets
from medisyn.training.finetune_settings import CacheSettings
from medisyn.training.latents import Variation, draw_variation, mirror_words
from medisyn.training.run import write_json

Progress = Callable[[int, int], None]
Words = Callable[[Record, np.random.Generator], str]


@dataclass(frozen=True)
class Entry:
    """One latent: which image, how varied, how large, and the sentences that may go with it."""

    row: int                    # of the records
    variant: int                # 0: the whole frame
    size: tuple[int, int]       # (height, width) in pixels
    how: Variation | None
    texts: tuple[int, ...]      # of Plan.texts


@dataclass(frozen=True)
class Plan:
    """All that is to be computed, a function of records, settings and seed alone; entries of one size lie together."""

    entries: tuple[Entry, ...]
    texts: tuple[str, ...]      # the first is "", which says nothing
    key: str

    def shards(self, rows: int) -> list[list[int]]:
        """Entries a file: at most `rows`, all of one size."""
        found: list[list[int]] = []
        for number, entry in enumerate(self.entries):
            if not found or len(found[-1]) == rows or self.entries[found[-1][0]].size != entry.size:
                found.append([])
            found[-1].append(number)
        return found


def plan(known: Sequence[tuple[Path, Record]], base: Base, side: int, seed: int, settings: CacheSettings,
         words: Words | None = None) -> Plan:
    """What to compute for records with their collections' folders; ValueError where the size does not fit the base.

    words: how a record is put into a sentence; None: any register, with facts left out at random.
    """
    words = words or (lambda record, rng: prompts.describe(record, rng, drop=settings.drop_fact))
    among = buckets.sizes(side, 8 * base.factor) if settings.buckets else [(side, side)]
    texts: dict[str, int] = {"": 0}
    entries = []
    for row, (home, record) in enumerate(known):
        size = among[0]
        if settings.buckets:
            width, height = measured(Path(home) / record.file_name)
            size = among[buckets.nearest(height, width, among)]
        symmetry = vocabulary.IMAGE_TYPES[record.image_type].symmetry
        for variant in range(settings.variants if record.split == "train" else 1):
            rng = batches.generator(seed, f"variant {record.id}", variant)
            how = draw_variation(symmetry, rng) if variant else None
            told = mirror_words(record) if how and how.mirrored else record
            said = [words(told, rng) for _ in range(settings.captions)] if record.split == "train" else [prompts.canonical(record)]
            entries.append(Entry(row, variant, size, how, tuple(texts.setdefault(text, len(texts)) for text in said)))
    entries.sort(key=lambda entry: (entry.size, entry.row, entry.variant))
    told = hashlib.sha256(f"{base.digest} {base.family} {settings.model_dump_json()} {seed} {side}".encode())
    for home, record in known:
        told.update(f"{home} {record!r} {os.stat(Path(home) / record.file_name).st_size}".encode())
    told.update(json.dumps(list(texts)).encode())
    return Plan(tuple(entries), tuple(texts), told.hexdigest())


def measured(file: Path) -> tuple[int, int]:
    """Width and height of an image file, upright."""
    with Image.open(file) as opened:
        width, height = opened.size
        return (height, width) if opened.getexif().get(0x0112, 1) >= 5 else (width, height)


def framed(image: np.ndarray, size: tuple[int, int], how: Variation | None) -> np.ndarray:
    """float32 (C, H, W) in [-1, 1] as a varied frame (C, h, w) of a size: the largest central one of that aspect, cropped
    further by `how`, antialiased; None leaves it whole."""
    (height, width), (h, w) = image.shape[1:], size
    scale = min(height / h, width / w)
    frame_h, frame_w = scale * h, scale * w
    top, left = (height - frame_h) / 2, (width - frame_w) / 2
    if how:
        top, left = top + how.row * frame_h, left + how.column * frame_w
        frame_h, frame_w = how.extent * frame_h, how.extent * frame_w
    box = (left, top, min(left + frame_w, width), min(top + frame_h, height))
    planes = [np.asarray(Image.fromarray(plane, "F").resize((w, h), Image.Resampling.LANCZOS, box=box)) for plane in image]
    out = np.clip(np.stack(planes), -1, 1)
    if how:
        out = 2 * ((out + 1) / 2) ** math.exp(how.gamma) - 1
        if how.turns > 0:
            out = np.rot90(out, how.turns if h == w else 2 * (how.turns % 2), (1, 2))
        if how.mirrored:
            out = out[..., ::-1]
    return np.ascontiguousarray(out, np.float32)


@torch.no_grad()
def fill(folder: Path, what: Plan, known: Sequence[tuple[Path, Record]], base: Base, settings: CacheSettings,
         where: torch.device, texts: bool = True, progress: Progress = lambda done, total: None) -> "Cache":
    """Compute what is not there yet. texts: False where the text encoder learns too, and sentences are read at each step."""
    folder = begun(folder, what)
    groups = what.shards(settings.shard)
    for number, group in enumerate(groups):
        path = folder / f"latents-{number:05d}.safetensors"
        if not whole(path):
            found = [encoded(base, [what.entries[e] for e in group[k:k + settings.batch]], known, where)
                     for k in range(0, len(group), settings.batch)]
            put(path, {"latent": torch.cat(found)})
        progress(sum(map(len, groups[:number + 1])), len(what.entries))
    if texts:
        read_all(folder, what, base, settings.shard, progress)
    return Cache(folder, what, settings.shard)


def begun(folder: Path, what: Plan) -> Path:
    """The folder, emptied where what lies in it belongs to another plan."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / "plan.json"
    if not marker.is_file() or json.loads(marker.read_text(encoding="utf-8"))["key"] != what.key:
        for old in folder.glob("*.safetensors"):
            old.unlink()
        write_json(marker, {"key": what.key, "latents": len(what.entries), "sentences": len(what.texts)})
    return folder


@torch.no_grad()
def read_all(folder: Path, what: Plan, base: Base, rows: int, progress: Progress = lambda done, total: None) -> None:
    """Shards of what the denoiser is told of every sentence, those that are not there yet."""
    for start in range(0, len(what.texts), rows):
        path, mine = folder / f"told-{start // rows:05d}.safetensors", what.texts[start:start + rows]
        if not whole(path):
            read = [base.read(list(mine[k:k + 16])) for k in range(0, len(mine), 16)]
            put(path, {name: torch.cat([stored(one[name]) for one in read]) for name in read[0]})
        progress(start + len(mine), len(what.texts))


def encoded(base: Base, entries: list[Entry], known: Sequence[tuple[Path, Record]], where: torch.device) -> Tensor:
    """Latents of entries of one size: float16 (n, c, h, w)."""
    frames = []
    for entry in entries:
        home, record = known[entry.row]
        frames.append(torch.from_numpy(framed(images.read_fine(Path(home) / record.file_name), entry.size, entry.how)))
    if len({len(frame) for frame in frames}) > 1:  # gray and colour side by side
        frames = [frame.expand(3, -1, -1) for frame in frames]
    return base.encode(torch.stack(frames).to(where))[0].half().cpu().contiguous()


def stored(value: Tensor) -> Tensor:
    """As it is kept: half the bytes where it is floating point."""
    return (value.half() if value.is_floating_point() else value).cpu().contiguous()


def put(path: Path, tensors: dict[str, Tensor]) -> None:
    draft = path.with_suffix(".part")
    save_file(tensors, draft)
    os.replace(draft, path)


def whole(path: Path) -> bool:
    """Whether a shard lies there and can be opened."""
    try:
        with safe_open(path, "pt") as opened:
            return bool(list(opened.keys()))
    except (SafetensorError, OSError):
        return False


class Cache:
    """The shards of a plan, memory-mapped; rows are read when they are asked for."""

    def __init__(self, folder: Path, what: Plan, rows_a_shard: int):
        self.folder, self.plan, self.rows_a_shard = Path(folder), what, rows_a_shard
        self.place = {e: (number, k) for number, group in enumerate(what.shards(rows_a_shard)) for k, e in enumerate(group)}
        self.open: dict[str, object] = {}

    def shard(self, name: str) -> object:
        if name not in self.open:
            self.open[name] = safe_open(self.folder / name, "pt")
        return self.open[name]

    def latents(self, entries: Sequence[int]) -> Tensor:
        """float32 (n, c, h, w) of entries of one size."""
        rows = []
        for entry in entries:
            number, k = self.place[int(entry)]
            rows.append(self.shard(f"latents-{number:05d}.safetensors").get_slice("latent")[k:k + 1])
        return torch.cat(rows).float()

    def told(self, texts: Sequence[int]) -> Told:
        """What the denoiser is told of the sentences: every value (n, ...)."""
        read = []
        for text in texts:
            number, k = divmod(int(text), self.rows_a_shard)
            shard = self.shard(f"told-{number:05d}.safetensors")
            read.append({name: shard.get_slice(name)[k:k + 1] for name in shard.keys()})  # noqa: SIM118 no dict
        return {name: widened(torch.cat([one[name] for one in read])) for name in read[0]}

    @cached_property
    def size(self) -> np.ndarray:
        """The number of each entry's size among all sizes: (M,)."""
        names = {size: number for number, size in enumerate(sorted({e.size for e in self.plan.entries}))}
        return np.array([names[e.size] for e in self.plan.entries])


def widened(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
