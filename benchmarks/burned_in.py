"""Burned-in text: how much planted writing is found, how often there is a false alarm, and what the search costs.

    python benchmarks/burned_in.py data/open            # figures for docs/deidentification.md
    python benchmarks/burned_in.py data/open --fit      # new WEIGHTS and BIAS for medisyn/data/burned_in.py

The folder holds raw datasets, a subfolder each. Writing is planted by Pillow's fonts and whatever --fonts finds; half of
the files (by a hash of their names) serve to fit, the other half to measure. Sources with writing of their own
(--written) are measured, never fitted on.
"""

import argparse
import hashlib
import io
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medisyn.data import burned_in, images
from medisyn.estimates import proportion

TEXTS = ("SMITH^JOHN 1961-02-03", "MRN 4711-0815", "Maria Kowalska", "DOB: 03.02.1961", "St. Mary Hospital", "ID 8812345",
         "12:45:07", "Dr. Brown", "KIM, SOO-JIN  F 47Y", "14-MAR-2019")
SIZES = (8, 10, 12, 16, 20, 24, 32, 40)
COLOURS = {"white": (255, 255, 255), "black": (0, 0, 0), "yellow": (255, 255, 0), "gray": (160, 160, 160), "green": (0, 255, 0)}
SEEN = 60   # gray levels between writing and its ground; what people cannot read is not planted
SIDES = (256, 512, 1024)  # short side that an image is brought to before writing is planted


def files(folder: Path, n: int, fitting: bool) -> list[Path]:
    """Up to n images of a source, of one half of its files."""
    found = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in images.RASTERS and path.is_file()]
    half = [path for path in found if (hashlib.sha256(path.name.encode()).digest()[0] % 2 == 0) == fitting]
    return sorted(half, key=lambda path: hashlib.sha256(path.as_posix().encode()).digest())[:n]


def resized(picture: Image.Image, side: int, rng: random.Random) -> Image.Image:
    """A picture at a short side, with the noise that enlarging takes away."""
    scale = side / min(picture.size)
    pixels = np.asarray(picture.convert("RGB").resize([round(n * scale) for n in picture.size], Image.Resampling.BICUBIC), float)
    noise = np.random.default_rng(rng.randrange(2**31)).normal(0, rng.choice((0, 2, 5)), (*pixels.shape[:2], 1))
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def plant(picture: Image.Image, rng: random.Random, fonts: list[Path | None],
          turned: float = 0.2) -> tuple[Image.Image, tuple, dict] | None:
    """A picture with a line of writing, its box, and what was planted; None where it does not fit or could not be seen."""
    size, text, font, turned = rng.choice(SIZES), rng.choice(TEXTS), rng.choice(fonts), rng.random() < turned
    face = ImageFont.truetype(str(font), size) if font else ImageFont.load_default(size)
    right, bottom = face.getbbox(text)[2:]
    ink = Image.new("L", (int(right) + 4, int(bottom) + 4))
    ImageDraw.Draw(ink).text((2, 2), text, fill=255, font=face)
    ink = ink.transpose(rng.choice((Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270))) if turned else ink
    spare = picture.width - ink.width - 4, picture.height - ink.height - 4
    if min(spare) < 0:
        return None
    left, top = (rng.choice((2, n + 2)) if rng.random() < 0.7 else 2 + rng.randint(0, n) for n in spare)
    box = (left, top, left + ink.width, top + ink.height)
    ground = np.asarray(picture.crop(box).convert("L")).mean()
    seen = [name for name, colour in COLOURS.items() if abs(np.dot(colour, (0.299, 0.587, 0.114)) - ground) >= SEEN]
    if not seen:
        return None
    colour, planted = rng.choice(seen), picture.copy()
    planted.paste(Image.new("RGB", ink.size, COLOURS[colour]), box[:2], ink)
    quality = rng.choice((None, None, 90, 75))
    if quality:
        out = io.BytesIO()
        planted.save(out, "JPEG", quality=quality)
        planted = Image.open(out)
        planted.load()
    return planted, box, {"size": size, "turned": turned, "colour": colour, "quality": quality, "side": min(picture.size),
                          "corner": left in (2, spare[0] + 2) and top in (2, spare[1] + 2)}


def inside(box: np.ndarray, planted: tuple) -> bool:
    """Whether most of a found box lies within the planted one."""
    width = min(box[2], planted[2]) - max(box[0], planted[0])
    height = min(box[3], planted[3]) - max(box[1], planted[1])
    return bool(width > 0 and height > 0 and 2 * width * height > (box[2] - box[0]) * (box[3] - box[1]))


def cases(folder: Path, n: int, fitting: bool, fonts: list[Path | None], seed: int) -> Iterator[tuple]:
    """(source, path, what was planted or None, (upright, features, score, in the planted box) of each line, CPU seconds)."""
    for source in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in files(source, n, fitting):
            rng = random.Random(f"{seed}/{source.name}/{path.name}")
            plain = images.decode(path).convert("RGB")
            yield source.name, path, None, *lines(plain)
            grown = resized(plain, rng.choice(SIDES), rng)
            yield source.name, path, None, *lines(grown)
            planted = plant(grown, rng, fonts, 0.5 if fitting else 0.2)
            if planted:
                yield source.name, path, planted[2], *lines(planted[0], planted[1])


def lines(picture: Image.Image, planted: tuple | None = None) -> tuple[list[tuple], float]:
    began = time.process_time()
    found = burned_in.lines_of(picture)
    spent = time.process_time() - began
    return [(upright, one, score, planted is not None and inside(box, planted)) for upright, boxes, features in found
            for box, one, score in zip(boxes, features, burned_in.scores(features, upright), strict=True)], spent


def fit(rows: list[tuple], written: set[str], upright: bool) -> tuple[np.ndarray, float]:
    """Logistic weights over the features of lines: in the planted box, or of an image without writing."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    true = [line[1] for row in rows if row[2] and row[2]["turned"] != upright for line in row[3] if line[0] == upright and line[3]]
    false = [line[1] for row in rows if not row[2] and row[0] not in written for line in row[3] if line[0] == upright]
    both, label = np.array(true + false), np.arange(len(true) + len(false)) < len(true)
    scaler = StandardScaler().fit(both)
    model = LogisticRegression(max_iter=5000).fit(scaler.transform(both), label)
    weights = model.coef_[0] / scaler.scale_
    return weights, float(model.intercept_[0] - weights @ scaler.mean_)


def best(row: tuple) -> float:
    """The highest score of a picture's lines; of those in the planted box where something was planted."""
    return max((line[2] for line in row[3] if line[3] or not row[2]), default=-99.0)


def told(name: str, hits: list[bool]) -> str:
    estimate = proportion(sum(hits), len(hits), name=name) if hits else None
    return f"{name:<28} {estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f}), n {len(hits)}" if hits else name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=60, help="of each source")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts/truetype"))
    parser.add_argument("--written", default="busi,laparoscopy,mini_mias,covid_cxr_open,kermany_cxr,brain_tumor_mri")
    asked = parser.parse_args()
    fonts = [None, *sorted(path for path in asked.fonts.rglob("*.ttf") if "emoji" not in path.name.lower()
                           and any(word in path.name for word in ("DejaVuSans", "LiberationSans", "LiberationSerif-R")))]
    rows = list(cases(asked.folder, asked.images, asked.fit, fonts, asked.seed))
    written = set(asked.written.split(","))
    if asked.fit:
        for upright in (True, False):
            weights, bias = fit(rows, written, upright)
            print(f"{upright}: WEIGHTS np.array((" + ", ".join(f"{one:.3g}" for one in weights) + f")), BIAS {bias:.3g}")
        return
    print("false alarms by source (written: the source has writing of its own)")
    plain = [row for row in rows if row[2] is None]
    for source in sorted({row[0] for row in rows}):
        print(told(source + (" (written)" if source in written else ""),
                   [best(row) > burned_in.THRESHOLD for row in plain if row[0] == source]))
    print(told("all but written", [best(row) > burned_in.THRESHOLD for row in plain if row[0] not in written]))
    planted = [(row[2], best(row) > burned_in.THRESHOLD) for row in rows if row[2]]
    print("planted writing found")
    print(told("all", [hit for _, hit in planted]))
    for kind in ("size", "side", "colour", "turned", "quality", "corner"):
        for value in sorted({info[kind] for info, _ in planted}, key=str):
            print(told(f"{kind} {value}", [hit for info, hit in planted if info[kind] == value]))
    print("threshold: false alarms, found")
    for threshold in np.arange(-1, 6, 0.5):
        alarms = np.mean([best(row) > threshold for row in plain if row[0] not in written])
        found = np.mean([best(row) > threshold for row in rows if row[2]])
        print(f"{threshold:4.1f} {alarms:.4f} {found:.3f}")
    print(f"CPU ms an image, median: {1000 * np.median([row[4] for row in plain]):.1f}")


if __name__ == "__main__":
    main()
