"""Held out: how well the autoencoder gives back images of patients it never saw, and what the model draws.

    python benchmarks/held_out.py --model FOLDER --real data/open -o docs/figures

Tables and synthetic images go to -o, into the open; the sheet of real images beside their reconstructions goes to
--private alone.
"""

import argparse
import csv
import io
import sys
from pathlib import Path

import numpy as np
import torch
from intervals import Estimate, estimate, missing, table, write
from PIL import Image, PngImagePlugin
from scipy.ndimage import gaussian_filter
from unseen import NONE, SPLITS, unseen

from medisyn import synthesizer
from medisyn.data import images, sheets, vocabulary
from medisyn.models.vae import Vae
from medisyn.training import autoencoder, batches
from medisyn.training.batches import Pixels

LARGEST = 400_000      # bytes of a picture for the documentation
FIGURES = ("psnr_db", "ssim", "sharpness_left")
SIGMA, RADIUS = 1.5, 5  # an 11 x 11 window


def ssim(made: np.ndarray, image: np.ndarray) -> float:
    """Structural similarity, Wang et al. 2004, eq. 13, Gaussian window, mean over channels: (C, H, W) in [0, 1]."""
    c1, c2 = 0.01**2, 0.03**2

    def blur(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, (0, SIGMA, SIGMA), radius=(0, RADIUS, RADIUS))[:, RADIUS:-RADIUS, RADIUS:-RADIUS]

    a, b = made.astype(np.float64), image.astype(np.float64)
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, both = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    like = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(like.mean())


def sharpness(image: np.ndarray) -> float:
    """The mean absolute step between neighbouring pixels: (C, H, W)."""
    return float(np.abs(np.diff(image, axis=1)).mean() + np.abs(np.diff(image, axis=2)).mean())


def reconstructed(vae: Vae, pixels: Pixels, rows: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """PSNR in dB, SSIM and sharpness left (1: as sharp as the original), a value a row."""
    found: dict[str, list] = {"psnr_db": [], "ssim": [], "sharpness_left": []}
    for at in range(0, len(rows), 16):
        image, made = autoencoder.reconstruct(vae, pixels, rows[at:at + 16], size)
        found["psnr_db"] += autoencoder.psnr(made, image).tolist()
        for a, b in zip(((made + 1) / 2).numpy(), ((image + 1) / 2).numpy(), strict=True):
            found["ssim"].append(ssim(a, b))
            found["sharpness_left"].append(sharpness(a) / max(sharpness(b), 1e-6))
    return {name: np.array(values) for name, values in found.items()}


def figures(vae: Vae, pixels: Pixels, size: int, known: tuple[str, ...]) -> list[dict]:
    """A row an image type, and one for all: {image_type, split, psnr_db, ssim, sharpness_left}."""
    rows, everything = [], []
    for name in known:
        mine, split = unseen(pixels, name)
        if split is None:
            rows.append({"image_type": name, "split": None} | dict.fromkeys(FIGURES, missing(NONE)))
            continue
        tell(f"held out: {name}, {len(mine)} images of {split}")
        values, patients = reconstructed(vae, pixels, mine, size), patients_of(pixels, mine)
        everything.append((values, patients))
        rows.append({"image_type": name, "split": split} | {k: mean(v, patients) for k, v in values.items()})
    if everything:
        patients = np.concatenate([p for _, p in everything])
        rows.append({"image_type": "all images", "split": "test, else val"}
                    | {k: mean(np.concatenate([v[k] for v, _ in everything]), patients) for k in everything[0][0]})
    return rows


def mean(values: np.ndarray, groups: np.ndarray) -> Estimate:
    return estimate(lambda rows: values[rows].mean(), len(values), groups)


def patients_of(pixels: Pixels, rows: np.ndarray) -> np.ndarray:
    return np.array([pixels.records[i].patient or pixels.records[i].id for i in rows])


def private_sheet(vae: Vae, pixels: Pixels, size: int, known: tuple[str, ...], each: int = 8) -> Image.Image:
    """Real images above their reconstructions, a pair of rows an image type. Holds patients' images."""
    rows = []
    for name in known:
        mine = unseen(pixels, name)[0][:each]
        if len(mine):
            pair = autoencoder.reconstruct(vae, pixels, mine, size)
            for label, batch in zip((f"{name}: real", f"{name}: reconstructed"), pair, strict=True):
                rows.append((label, [images.to_picture(x.numpy()) for x in batch]))
    return sheets.sheet(rows or [(NONE, [])], columns=each)


def samples(maker: synthesizer.Synthesizer, name: str, prompts: list[str], seeds: int = 8) -> Image.Image:
    """What the model draws: a row a prompt, seeds from 0."""
    tell(f"samples: {name}")
    rows = [(f"{prompt} (seeds 0 to {seeds - 1})", [one.picture for one in maker.generate(prompt, seeds)])
            for prompt in prompts]
    title = f"{vocabulary.IMAGE_TYPES[name].label}: synthetic images by {maker.model.card.name}"
    return sheets.sheet(rows, title=title, columns=seeds)


def small_png(picture: Image.Image, note: str) -> bytes:
    """A picture as PNG of at most LARGEST bytes: in a palette, then smaller, where it must be."""
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("Description", note)
    while True:
        for form in (picture, picture.quantize(256)):
            out = io.BytesIO()
            form.save(out, "PNG", optimize=True, pnginfo=notes)
            if out.tell() <= LARGEST or min(picture.size) < 64:
                return out.getvalue()
        picture = picture.resize([round(0.8 * n) for n in picture.size], Image.Resampling.LANCZOS)


def report(rows: list[dict], about: str) -> str:
    return (f"# Reconstruction of held-out patients\n\n{about}. Mean over images with 95 % intervals, bootstrap over "
            "patients. PSNR and SSIM favour softness; sharpness left is 1 where a reconstruction is "
            "as sharp as its original.\n\n"
            + table(("image type", "PSNR in dB", "SSIM", "sharpness left", "split"),
                    [(r["image_type"], *(r[name].text for name in FIGURES), r["split"] or "") for r in rows]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True, help="tables and synthetic images, for all to see")
    parser.add_argument("--private", type=Path, default=Path("out/held-out"), help="what holds real images")
    args = parser.parse_args()
    if args.private.resolve().is_relative_to(args.out.resolve()):
        raise ValueError(f"--private {args.private} lies within {args.out}; real images stay out of what is published")
    torch.set_num_threads(1)
    maker = synthesizer.load(args.model)
    model, known = maker.model, maker.image_types
    size = model.card.image_size
    pixels = batches.pack([args.real.absolute()], args.private / "pixels", size, SPLITS,
                          lambda done, total: tell(f"real images: {done:,} of {total:,}") if done % 2000 == 0 else None)
    rows = figures(model.vae, pixels, size, known)
    about = f"{model.card.name}, {model.digest[:19]}, at {size} pixels"
    write(args.out, "reconstruction", {"about": about, "rows": rows}, report(rows, about))
    private_sheet(model.vae, pixels, size, known).save(args.private / "real-and-reconstructed.png")
    with (Path(__file__).parent / "free_prompts.csv").open(newline="", encoding="utf-8") as opened:
        prompts = [(row["prompt"], row["image_type"]) for row in csv.DictReader(opened)]
    for name in known:
        mine = [p for p, t in prompts if t == name][:2] or [vocabulary.IMAGE_TYPES[name].label]
        drawn = small_png(samples(maker, name, mine), f"Synthetic images made by {about}")
        (args.out / f"samples-{name}.png").write_bytes(drawn)
    tell(f"wrote reconstruction.md, .json and samples-*.png in {args.out}; real images only in {args.private}")


def tell(text: str) -> None:
    """A line of progress: stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"held_out: {error}")
