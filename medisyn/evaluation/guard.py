"""The guard: an index of the training images, by which generation refuses to give one of them back.

The index lies in a model folder, goes where the model goes, and holds no picture: for each training image int8 features
of an extractor, and the signs of 143 coarse frequencies of it and of ten parts of it (198 bytes, from which nobody is
known again; features are not anonymous in the strict sense, so the index deserves the care that the weights deserve).
Both likenesses are counted in spreads of what images of other patients reach, and added: a copy is alike in both to one
and the same training image. The limit of each image type lets 99 % of other patients' images pass.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

from medisyn.data.duplicates import ORIENTATIONS, turned
from medisyn.data.provenance import Verdict
from medisyn.evaluation import copies
from medisyn.evaluation.copies import BLOCK, CROPS, FALSE_ALARMS, LOW, Limit
from medisyn.evaluation.features import Extractor

SHARD = 250_000         # images a file
OTHERS = 300            # training images of each type that are compared with other patients' to set its limit
LOOKS = (0, 1)          # orientations that the extractor looks at: as it lies and mirrored; the signs are tried in all eight
WORDS = 3               # 64-bit words that hold the 144 signs of a part
KEPT = 128              # directions of the features that are kept
MARGIN = 0.5            # spreads above the limit so found: whitening was fitted to the very images that set it
NOTHING = -1.0          # spreads: no likeness counts for less
FEWEST = 4              # images with other patients in their type, without which a type has no limit of its own
Accept = Callable[[Sequence[np.ndarray], Sequence[str | None]], list[Verdict]]
Pixels = Callable[[np.ndarray], np.ndarray]  # rows (m,) -> uint8 (m, side, side, 3)


@dataclass(frozen=True)
class Scale:
    """How alike images of one type are to those of other patients, and from where on one is a copy."""

    n: int                           # training images of the type
    features: tuple[float, float]    # median and spread of the largest cosine with another patient's image
    signs: tuple[float, float]       # the same of the largest agreement of signs, in [-1, 1]
    limit: Limit                     # of the two together


@dataclass(frozen=True)
class Index:
    """What is kept of the training images."""

    features: np.ndarray             # int8 (N, W): whitened features, each row at its own scale
    mean: np.ndarray                 # float32 (D,): of the features
    whitening: np.ndarray            # float32 (D, W): (features - mean) @ whitening vary alike in all directions
    signs: np.ndarray                # uint64 (parts, N, WORDS)
    kind: np.ndarray                 # uint8 (N,), a place in `kinds`
    kinds: tuple[str, ...]
    scales: dict[str, Scale]         # by image type
    extractor: str                   # name and hash


def signs_of(sketch: np.ndarray) -> np.ndarray:
    """The signs of sketches (..., 144) in words: uint64 (..., 3)."""
    bits = np.packbits(sketch > 0, axis=-1)
    padded = np.zeros((*bits.shape[:-1], WORDS * 8), np.uint8)
    padded[..., :bits.shape[-1]] = bits
    return padded.view(np.uint64)


def agreement(mine: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How well signs (o, n, 3) in several orientations agree with parts (p, N, 3) at best: float32 (n, N) in [-1, 1]."""
    apart = np.full((mine.shape[1], others.shape[1]), 255, np.uint8)
    for turn in mine:
        for part in others:
            differing = np.zeros_like(apart)
            for word in range(WORDS):
                differing += np.bitwise_count(turn[:, None, word] ^ part[None, :, word])
            np.minimum(apart, differing, out=apart)
    return 1 - apart.astype(np.float32) * (2 / (LOW * LOW - 1))


def turned_signs(sketch: np.ndarray) -> np.ndarray:
    """The signs of sketches (n, 144) in all orientations: uint64 (8, n, 3)."""
    low = sketch.reshape(-1, LOW, LOW)
    return np.stack([signs_of(np.ascontiguousarray(turned(low, how, copies._ODD)).reshape(len(low), -1))
                     for how in range(ORIENTATIONS)])


def fitted(pixels: np.ndarray, side: int) -> np.ndarray:
    """uint8 (n, s, s, 3) at the side that an extractor looks at."""
    if pixels.shape[1] == side:
        return pixels
    return np.stack([np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.LANCZOS)) for p in pixels])


def seen(pixels: np.ndarray, extractor: Extractor, looks: Sequence[int] = LOOKS) -> np.ndarray:
    """Features of images (n, s, s, 3) in each orientation looked at: float32 (looks, n, D)."""
    fit = fitted(pixels, extractor.side)
    turns = [np.ascontiguousarray(np.moveaxis(turned(np.moveaxis(fit, 3, 1), how), 1, 3)) for how in looks]
    found = extractor.apply(np.concatenate(turns))
    return np.asarray(found, np.float32).reshape(len(looks), len(pixels), -1)


@dataclass(frozen=True)
class Alike:
    """How alike images are to each training image, in both ways, before anything is counted in spreads."""

    features: np.ndarray             # float32 (n, N): cosine, the best look
    signs: np.ndarray                # float32 (n, N)


def alike(pixels: np.ndarray, unit_features: np.ndarray, index: Index, extractor: Extractor) -> Alike:
    """Compare images uint8 (n, side, side, 3) with all of an index; unit_features: float32 (N, D) of it."""
    looks = (seen(pixels, extractor) - index.mean) @ index.whitening
    cosine = np.stack([copies.unit(look) @ unit_features.T for look in looks]).max(0)
    sketch = copies.frequencies(copies.reliefs(copies.grays(pixels))).reshape(len(pixels), -1)
    return Alike(cosine, agreement(turned_signs(sketch), index.signs))


def likeness(found: Alike, index: Index) -> np.ndarray:
    """Both likenesses in spreads, added: float32 (n, N); each training image counts in the spreads of its type.

    What one of the two does not see, such as another contrast or a turn, does not outweigh what the other sees.
    """
    table = np.array([[*index.scales[k].features, *index.scales[k].signs] for k in index.kinds], np.float32)[index.kind]
    features, signs = (found.features - table[:, 0]) / table[:, 1], (found.signs - table[:, 2]) / table[:, 3]
    return np.maximum(features, NOTHING) + np.maximum(signs, NOTHING)


def spread(values: Sequence[float], least: float) -> tuple[float, float]:
    """Median and interquartile range, at least `least`."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(middle), float(max(high - low, least))


def index_of(pixels: Pixels, kinds: Sequence[str], patients: Sequence[str], extractor: Extractor, *,
             false_alarms: float = FALSE_ALARMS, seed: int = 0,
             progress: Callable[[int, int], None] | None = None) -> Index:
    """Index N training images: what they look like, and from which likeness on an image of their type is a copy.

    kinds, patients: of each image (N,). The limit is set on training images against those of other patients: as alike as
    images are that are no copies. Where a type has too few of them, the strictest limit of the others stands in.
    """
    kinds, patients = np.asarray(kinds, dtype=object).astype(str), np.asarray(patients, dtype=object).astype(str)
    names, kind = np.unique(kinds, return_inverse=True)
    if not len(kinds):
        raise ValueError("a guard expects training images, found none")
    raw, signs = [], np.zeros((len(CROPS), len(kinds), WORDS), np.uint64)
    chosen = np.sort(np.concatenate([np.random.default_rng([seed, k]).permutation(np.flatnonzero(kind == k))[:OTHERS]
                                     for k in range(len(names))]))
    for start in range(0, len(kinds), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(kinds)))
        block = pixels(rows)
        raw.append(seen(block, extractor, (0,))[0])
        against = copies.library(copies.shown(lambda r, block=block: block[r], len(block)))
        signs[:, rows] = signs_of(against.crops)
        if progress:
            progress(len(rows) + start, len(kinds) + len(chosen))
    features = np.concatenate(raw)
    mean, whitening = whitened(features)
    features = (features - mean) @ whitening
    packed = np.rint(features * (127 / np.maximum(np.abs(features).max(1, keepdims=True), 1e-9))).astype(np.int8)
    nothing = Limit(0.0, false_alarms, 0, 0, "")
    blank = {str(name): Scale(int((kind == k).sum()), (0.0, 1.0), (0.0, 1.0), nothing) for k, name in enumerate(names)}
    index = Index(packed, mean, whitening, signs, kind.astype(np.uint8), tuple(map(str, names)), blank,
                  f"{extractor.name} {extractor.weights}")
    told = None if progress is None else lambda done: progress(len(kinds) + done, len(kinds) + len(chosen))
    return dataclasses.replace(index, scales=scales_of(index, pixels, chosen, patients, extractor, false_alarms, told))


def whitened(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and whitening (D, at most 128) of features (N, D): else a few directions in which all images differ drown the
    many by which one is known again (Pizzi et al. 2022, arXiv 2202.10261, section 3.4)."""
    mean = features.mean(0)
    spread, axes = np.linalg.eigh(np.cov(features - mean, rowvar=False, bias=True).reshape(len(mean), -1).astype(np.float64))
    keep = np.arange(len(spread))[::-1][:KEPT]
    return mean, (axes[:, keep] / np.sqrt(np.maximum(spread[keep], 0) + 1e-3 * spread.mean() + 1e-12)).astype(np.float32)


def scales_of(index: Index, pixels: Pixels, chosen: np.ndarray, patients: np.ndarray, extractor: Extractor, false_alarms: float,
              progress: Callable[[int], None] | None) -> dict[str, Scale]:
    """The scales of an index from some of its own images, each against those of its type that are not of its patient."""
    of_index = copies.unit(index.features)
    scales, done = {}, 0
    for k, name in enumerate(index.kinds):
        mine = np.flatnonzero(index.kind == k)
        part = dataclasses.replace(index, features=index.features[mine], signs=index.signs[:, mine], kind=index.kind[mine])
        found = []
        rows = chosen[index.kind[chosen] == k]
        for start in range(0, len(rows), 16):
            one = alike(pixels(rows[start:start + 16]), of_index[mine], part, extractor)
            for row, f, s in zip(rows[start:start + 16], one.features, one.signs, strict=True):
                others = patients[mine] != patients[row]
                if others.any():
                    found.append(Alike(f[others], s[others]))
            done += len(rows[start:start + 16])
            if progress:
                progress(done)
        if len(found) >= FEWEST:
            features, signs = spread([f.features.max() for f in found], 0.005), spread([f.signs.max() for f in found], 0.02)
            scale = Scale(len(mine), features, signs, index.scales[name].limit)
            measured = dataclasses.replace(index, scales=index.scales | {name: scale})
            together = [likeness(f, dataclasses.replace(measured, kind=np.full(len(f.signs), k))).max() for f in found]
            limit = copies.limit(together, false_alarms, -np.inf, lambda z: z)
            limit = dataclasses.replace(limit, score=limit.score + MARGIN)
            said = limit.note.replace("unseen images", "training images against other patients'")
            scales[name] = dataclasses.replace(scale, limit=dataclasses.replace(limit, note=said))
    strictest = max((one.limit.score for one in scales.values()), default=8.0)
    pooled = [(one.features, one.signs) for one in scales.values()] or [((0.5, 0.1), (0.5, 0.1))]
    for name in index.kinds:
        if name not in scales:
            f, s = (tuple(np.median([pair[i] for pair in pooled], axis=0).tolist()) for i in (0, 1))
            scales[name] = Scale(index.scales[name].n, f, s, Limit(strictest, false_alarms, 0, 0, "no images of other patients: "
                                 "the strictest limit of the other types stands in"))
    return scales


def build(folder: Path, index: Index) -> Path:
    """Write an index to a folder: safetensors in shards, and guard.json."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("index-*.safetensors"):
        old.unlink()
    shards = max(1, -(-len(index.kind) // SHARD))
    files = [f"index-{k + 1:05d}-of-{shards:05d}.safetensors" for k in range(shards)]
    for k, name in enumerate(files):
        rows = slice(k * SHARD, (k + 1) * SHARD)
        save_file({"features": np.ascontiguousarray(index.features[rows]), "kind": np.ascontiguousarray(index.kind[rows]),
                   "signs": np.ascontiguousarray(index.signs[:, rows]).view(np.int64), "mean": index.mean,
                   "whitening": np.ascontiguousarray(index.whitening)}, folder / name)
    written = {"about": "features and coarse signs of training images; generation refuses what is too alike",
               "n_images": len(index.kind), "extractor": index.extractor, "files": files, "image_types": list(index.kinds),
               "scales": {name: dataclasses.asdict(scale) for name, scale in index.scales.items()}}
    draft = folder / "guard.json.part"
    draft.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    os.replace(draft, folder / "guard.json")
    return folder


def read(folder: Path) -> Index:
    """The index that `build` wrote; FileNotFoundError or ValueError is one sentence."""
    path = Path(folder) / "guard.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no guard: expected guard.json; build one with `medisyn train --stages guard`")
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        parts = [load_file(Path(folder) / name) for name in written["files"]]
        scales = {name: Scale(row["n"], tuple(row["features"]), tuple(row["signs"]), Limit(**row["limit"]))
                  for name, row in written["scales"].items()}
        index = Index(np.concatenate([p["features"] for p in parts]), parts[0]["mean"], parts[0]["whitening"],
                      np.concatenate([p["signs"] for p in parts], 1).view(np.uint64), np.concatenate([p["kind"] for p in parts]),
                      tuple(written["image_types"]), scales, written["extractor"])
    except Exception as error:
        raise ValueError(f"{folder}: expected a guard, found {type(error).__name__}: {' '.join(str(error).split())[:100]}; "
                         "build it again with `medisyn train --stages guard`") from None
    if len(index.kind) != written["n_images"]:
        raise ValueError(f"{folder}: expected {written['n_images']:,} images, found {len(index.kind):,}; fetch or build it again")
    return index


def digest(folder: Path) -> str:
    """sha256 of guard.json and the files that it names, 12 hex digits."""
    total = hashlib.sha256()
    for path in sorted(Path(folder).glob("index-*.safetensors")) + [Path(folder) / "guard.json"]:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:12]


def load(folder: Path, extractor: Extractor | None = None) -> Accept:
    """A guard ready to judge: images float32 (C, H, W) in [-1, 1] and their image types (None unknown) -> verdicts.

    extractor: None loads the one the index names; ValueError where its weights are others than the index was built with.
    """
    index = read(folder)
    if extractor is None:
        from medisyn.evaluation import features
        extractor = features.load(index.extractor.split(" ")[0])
    if f"{extractor.name} {extractor.weights}" != index.extractor:
        raise ValueError(f"{folder} was built with {index.extractor}, found {extractor.name} {extractor.weights}; "
                         "build the guard again with `medisyn train --stages guard`")
    return accepting(index, extractor, digest(folder))


def accepting(index: Index, extractor: Extractor, name: str = "") -> Accept:
    """An index in memory as a function."""
    of_index = copies.unit(index.features)

    def accept(images: Sequence[np.ndarray], image_types: Sequence[str | None]) -> list[Verdict]:
        verdicts = []
        for image, _ in zip(images, image_types, strict=True):
            total = likeness(alike(to_uint8(image)[None], of_index, index, extractor), index)[0]
            limits = np.array([index.scales[k].limit.score for k in index.kinds], np.float32)[index.kind]
            worst = int((total - limits).argmax())
            verdicts.append(Verdict(bool(total[worst] < limits[worst]), round(float(total[worst]), 3),
                                    round(float(limits[worst]), 3), name))
        return verdicts
    return accept


def to_uint8(image: np.ndarray) -> np.ndarray:
    """float32 (C, H, W) in [-1, 1], or uint8 (H, W, 3) as it is, to uint8 (H, W, 3): as the PNG will hold it."""
    if image.dtype == np.uint8:
        return image
    pixels = np.rint((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0))
