"""Shards: a collection's squares, compressed, in files small enough to be carried to another machine; results come home in parts.

Every shard is a fair sample of all image types, so that training may begin with fewer than all. Squares are WebP of
quality 90, gray image types with one channel: of 120 images at 256 pixels, 150 MiB for the whole open collection at 44 dB
(gray) and 42 dB (colour), where JPEG 90 takes 203 MiB at 44 and 40 dB, and PNG 802 MiB. The autoencoder's own error is 20
times larger.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

from medisyn.data import images, records, vocabulary
from medisyn.training.run import say, write_json

PART_BYTES = 16_000_000  # of a part that comes home: a little less than 16 MiB
QUALITY = 90


def pack(collections: Sequence[Path], folder: Path, side: int, mib: float, splits: Sequence[str] = ("train", "val"),
         workers: int = 1, limit: int | None = None) -> list[Path]:
    """Write the squares of the collections' splits as shards; those already there stay. Returns all of them."""
    chosen = [(home, r) for home, r in records.merge(*collections) if r.split in splits and not r.synthetic]
    if not chosen:
        raise ValueError(f"no image of split {' or '.join(splits)} in {', '.join(map(str, collections))}")
    chosen.sort(key=lambda one: hashlib.sha256(one[1].id.encode()).digest())  # each shard a fair sample
    chosen = chosen[:limit]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"side": side, "mib": mib, "quality": QUALITY, "splits": list(splits),
              "records": hashlib.sha256("".join(records.as_line(r) for _, r in chosen).encode()).hexdigest()}
    marker, done = folder / "packing.json", []
    if not marker.is_file() or json.loads(marker.read_text()) != wanted:
        for old in folder.glob("shard-*.safetensors"):
            old.unlink()
        write_json(marker, wanted)
    for path in sorted(folder.glob("shard-*.safetensors")):
        done += lines_of(load_file(path))
    held, lines, size = [], [], 0
    with ThreadPoolExecutor(workers) as pool:
        left = chosen[len(done):]
        for (_, record), coded in zip(left, pool.map(lambda one: encoded(*one, side), left), strict=True):
            if held and size + len(coded) > mib * 2**20 * 0.98:
                write_shard(folder, held, lines)
                held, lines, size = [], [], 0
            held.append(coded)
            lines.append(records.as_line(record))
            size += len(coded)
    if held:
        write_shard(folder, held, lines)
    shards = sorted(folder.glob("shard-*.safetensors"))
    write_json(folder / "shards.json", {"side": side, "shards": {path.name: digest(path) for path in shards}})
    return shards


def encoded(home: Path, record: records.Record, side: int) -> bytes:
    """A record's central square as WebP; gray where its image type is."""
    picture = images.square(images.decode(home / record.file_name), side)
    picture = picture.convert("L" if vocabulary.IMAGE_TYPES[record.image_type].gray else "RGB")
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=QUALITY, method=2)
    return out.getvalue()


def write_shard(folder: Path, held: list[bytes], lines: list[str]) -> Path:
    import zlib
    path = folder / f"shard-{len(list(folder.glob('shard-*.safetensors'))):03d}.safetensors"
    words = zlib.compress("".join(lines).encode(), 9)
    save_file({"bytes": np.frombuffer(b"".join(held), np.uint8), "ends": np.cumsum([len(h) for h in held]).astype(np.int64),
               "records": np.frombuffer(words, np.uint8)}, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)
    say(f"shards: {path.name} holds {len(held):,} images in {path.stat().st_size / 2**20:.1f} MiB")
    return path


def lines_of(shard: dict[str, np.ndarray]) -> list[str]:
    import zlib
    return zlib.decompress(shard["records"].tobytes()).decode().splitlines(keepends=True)


def known(folder: Path) -> list[records.Record]:
    """The records of all shards in a folder, in their order."""
    paths = sorted(Path(folder).glob("shard-*.safetensors"))
    return [records.from_line(line) for path in paths for line in lines_of(load_file(path))]


def unpack(folder: Path, run: Path, side: int, workers: int = 16, fewer: bool = False) -> Path:
    """RUN/pixels from the shards of a folder, each checked against shards.json; ValueError names what is missing."""
    folder, out = Path(folder), Path(run) / "pixels"
    told = json.loads((folder / "shards.json").read_text())
    if told["side"] != side:
        raise ValueError(f"the shards in {folder} hold squares of {told['side']} pixels, the recipe wants {side}; pack them anew")
    there = {name: folder / name for name in told["shards"] if (folder / name).is_file()}
    missing = sorted(set(told["shards"]) - set(there))
    if (missing and not fewer) or not there:
        raise ValueError(f"{folder} lacks {', '.join(missing)}; bring them first, or train on what is there with FEWER=1")
    wrong = [name for name, path in there.items() if digest(path) != told["shards"][name]]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} in {folder} came damaged (another SHA-256 than in shards.json); bring them again")
    if unpacked(out, side, sorted(there)):
        return out
    out.mkdir(parents=True, exist_ok=True)
    (out / "done.json").unlink(missing_ok=True)
    shards = [load_file(there[name]) for name in sorted(there)]
    n = sum(len(shard["ends"]) for shard in shards)
    array = np.lib.format.open_memmap(out / "pixels.npy", "w+", np.uint8, (n, side, side, 3))
    first = 0
    with ThreadPoolExecutor(workers) as pool:
        for shard in shards:
            ends = shard["ends"]

            def fill(k: int, shard: dict = shard, ends: np.ndarray = ends, first: int = first) -> None:
                coded = shard["bytes"][ends[k - 1] if k else 0:ends[k]].tobytes()
                array[first + k] = np.asarray(Image.open(io.BytesIO(coded)).convert("RGB"))
            list(pool.map(fill, range(len(ends))))
            first += len(ends)
    array.flush()
    (out / "records.jsonl").write_text("".join(line for shard in shards for line in lines_of(shard)), encoding="utf-8")
    write_json(out / "done.json", {"side": side, "shards": sorted(there)})
    say(f"shards: {n:,} images in {out}")
    return out


def unpacked(pixels: Path, side: int, names: list[str] | None = None) -> bool:
    """Whether a run's squares came from shards, at this side, and from these where names are given."""
    marker = Path(pixels) / "done.json"
    held = json.loads(marker.read_text()) if marker.is_file() else {}
    return held.get("side") == side and "shards" in held and names in (None, held["shards"])


def digest(path: Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def split(folder: Path, out: Path, limit: int = PART_BYTES) -> list[Path]:
    """A folder as one archive cut into parts of at most `limit` bytes, and parts.json with the checksum of each and of all."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("part-*"):
        old.unlink()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
            archive.add(path, path.relative_to(folder).as_posix())
    whole, parts = packed.getvalue(), []
    for start in range(0, len(whole), limit):
        parts.append(out / f"part-{len(parts):02d}")
        parts[-1].write_bytes(whole[start:start + limit])
    write_json(out / "parts.json", {"sha256": hashlib.sha256(whole).hexdigest(), "parts": {p.name: digest(p) for p in parts}})
    return parts


def join(parts: Path, folder: Path) -> Path:
    """What `split` cut, as a folder again; ValueError names the part that is missing or damaged. Other files there stay."""
    parts, folder = Path(parts), Path(folder)
    told = json.loads((parts / "parts.json").read_text())
    whole = b""
    for name, wanted in sorted(told["parts"].items()):
        if not (parts / name).is_file():
            raise ValueError(f"{parts} lacks {name}; bring it home as well")
        if digest(parts / name) != wanted:
            raise ValueError(f"{parts / name} came damaged (another SHA-256 than in parts.json); bring it home again")
        whole += (parts / name).read_bytes()
    if hashlib.sha256(whole).hexdigest() != told["sha256"]:
        raise ValueError(f"the parts in {parts} do not make the whole of parts.json; bring all of one call home")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(whole), mode="r:gz") as archive:
        archive.extractall(folder, filter="data")
    return folder
