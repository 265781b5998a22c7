"""Texture: what is missing from images in power by spatial frequency and in distance, by how they are sampled and decoded.

    python benchmarks/texture.py --model FOLDER [FOLDER ...] --real data/open -o OUTDIR [--each 48] [--draws 3] [--steps 4 8 12 50]

Images are made for the sentences of validation images, up to `--each` a type, each with a style drawn from the training images of
its type, without a recogniser's second look; and compared with those very validation images: power in dB of theirs (of log
power, mean over image types; fine: 0.31 to 0.5 cycles a pixel, middle: 0.12 to 0.31), Frechet and kernel distance among the
eye's features.
The last row of a model is the validation images through its autoencoder: no sampling gets nearer. --draws: images for each
sentence, from other noise and with other styles; which of them are drawn moves the distance far more than how they are sampled
(docs/log.md). --steps: instead of ways to guide, numbers of steps with the model's own settings, and the largest of them with
guidance at every step, as a plain loop has it.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from intervals import table, write
from judge import tell

from medisyn import cores, painters, synthesizer
from medisyn.data import images, prompts, records, vocabulary
from medisyn.data.provenance import Provenance
from medisyn.data.records import Record
from medisyn.evaluation import features
from medisyn.evaluation.distances import frechet_distance, kernel_distance
from medisyn.models.checkpoint import Card
from medisyn.training.autoencoder import to_tensor

BANDS = {"fine": (10, 16), "middle": (4, 10)}   # of RINGS rings between 0 and 0.5 cycles a pixel
RINGS = 16
WAYS = ((0.0, 1.0, 0.0), (0.1, 0.6, 0.0), (0.1, 0.6, 0.15), (0.1, 0.6, 0.25))   # guided from, until; noise on the latent
Way = tuple[int, float, float, float]                                           # steps, and these


def power(squares: np.ndarray) -> np.ndarray:
    """Log power in dB by ring of spatial frequency: uint8 (n, s, s, 3) -> (n, RINGS)."""
    side = squares.shape[1]
    gray = squares.mean(3)
    window = np.hanning(side + 1)[:side]
    found = np.abs(np.fft.fft2((gray - gray.mean((1, 2), keepdims=True)) * window[:, None] * window)) ** 2
    across = np.fft.fftfreq(side)
    ring = (np.hypot(across[:, None], across) * 2 * RINGS).astype(int)
    return np.stack([10 * np.log10(found[:, ring == k].mean(1) + 1e-3) for k in range(RINGS)], 1)


def missing(made: np.ndarray, real: np.ndarray, kinds: Sequence[str]) -> dict[str, float]:
    """Power of images, some for each real one, over that of real ones by band in dB, the mean over image types."""
    kinds = np.asarray(kinds)
    drawn = np.tile(kinds, len(made) // len(kinds))
    apart = np.mean([power(made[drawn == k]).mean(0) - power(real[kinds == k]).mean(0) for k in sorted(set(kinds))], 0)
    return {name: float(apart[a:b].mean()) for name, (a, b) in BANDS.items()}


def to_squares(made: torch.Tensor, kinds: Sequence[str]) -> np.ndarray:
    """(n, 3, s, s) in [-1, 1] -> uint8 (n, s, s, 3); gray image types are gray."""
    gray = torch.tensor([vocabulary.IMAGE_TYPES[kind].gray for kind in kinds]).view(-1, 1, 1, 1)
    made = torch.where(gray, made.mean(1, keepdim=True).expand_as(made), made)
    return ((made + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def asked(model: object, chosen: Sequence[Record], turn: int = 0) -> list[Provenance]:
    """How an image for each record is made; turn: which one of it, with another style and from other noise."""
    card, styles, draw = model.card, {}, np.random.default_rng(turn)
    for row in model.support:
        for style, n in row[8].items():
            styles.setdefault(row[0], []).extend([int(style)] * n)
    return [Provenance(text := prompts.canonical(record), text, turn * len(chosen) + k, card.steps, card.guidance, card.sampler,
                       int(draw.choice(styles[record.image_type])), model.digest, card.name, "")
            for k, record in enumerate(chosen)]


def ways_of(card: Card, steps: Sequence[int]) -> list[Way]:
    """Ways to guide with the model's own number of steps; or numbers of steps with its own guidance, and the most of them guided
    always."""
    if not steps:
        return [(card.steps, *way) for way in WAYS]
    return [*((n, card.guidance_from, card.guidance_until, card.texture) for n in steps), (max(steps), 0.0, 1.0, card.texture)]


def rows_of(folder: Path, chosen: Sequence[Record], real: np.ndarray, backend: str, steps: Sequence[int] = (),
            draws: int = 1) -> list[dict]:
    """A row a way of sampling, and one for the autoencoder."""
    model, eye = synthesizer.load(folder).model, features.load("eye")
    kinds, rows = [r.image_type for r in chosen], []
    hows = [how for turn in range(draws) for how in asked(model, chosen, turn)]
    seen = eye.apply(real)
    guided = (model.card.guidance_from, model.card.guidance_until)   # as coefficients were fitted, where there are any

    def row(way: str, squares: np.ndarray) -> None:
        told = eye.apply(squares)
        rows.append({"model": folder.name, "way": way, "frechet": frechet_distance(seen, told),
                     "kernel": kernel_distance(seen, told)} | missing(squares, real, kinds))
        tell(f"texture: {rows[-1]}")
    for n, since, until, noise in ways_of(model.card, steps):
        own = model.card.guidance_since if since == model.card.guidance_from else {}   # other ways are the same for all types
        card = dataclasses.replace(model.card, guidance_from=since, guidance_until=until, guidance_since=own, texture=noise)
        paint = painters.own(dataclasses.replace(model, card=card), backend).paint
        with ThreadPoolExecutor(cores.cores()) as pool:
            sampler = painters.sampler_of(model, n) if (since, until) == guided else model.card.sampler
            exact = [dataclasses.replace(how, steps=n, sampler=sampler) for how in hows]
            made = torch.stack(list(pool.map(paint, exact, [how.seed for how in hows])))
        named = "" if sampler == model.card.sampler else f", {sampler}"
        row(f"{n} steps{named}, guidance {card.guidance:g} from {since:g} to {until:g}, noise {noise:g}",
            to_squares(made, kinds * draws))
    with torch.no_grad():
        back = torch.cat([model.vae.decode(model.vae.encode(to_tensor(real[k:k + 16]))).clamp(-1, 1)
                          for k in range(0, len(real), 16)])
    row("validation images through the autoencoder", to_squares(back, kinds))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, nargs="+", required=True, help="MediSyn's own model folders, of one image size")
    parser.add_argument("--real", type=Path, required=True, help="a collection with validation images")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--each", type=int, default=48, help="images a type")
    parser.add_argument("--draws", type=int, default=1, help="images for each validation image's sentence")
    parser.add_argument("--backend", default="torch", help="what computes the images: torch, openvino, openvino-bf16")
    parser.add_argument("--steps", type=int, nargs="+", default=(), help="numbers of steps to compare, instead of ways to guide")
    args = parser.parse_args()
    if args.draws < 1:
        raise ValueError(f"--draws is {args.draws}, expected 1 or more images for each sentence")
    torch.set_num_threads(1)
    known = synthesizer.load(args.model[0])
    by_type: dict[str, list[Record]] = {}
    for record in records.read(args.real):
        if record.split == "val" and record.image_type in known.image_types:
            by_type.setdefault(record.image_type, []).append(record)
    draw = np.random.default_rng(0)
    chosen = [mine[k] for mine in by_type.values() for k in draw.permutation(len(mine))[:args.each]]
    if not chosen:
        raise ValueError(f"{args.real} holds no validation image of a type that {args.model[0]} knows")
    side = known.model.card.image_size
    real = np.stack([np.asarray(images.square(images.decode(args.real / r.file_name), side).convert("RGB")) for r in chosen])
    rows = [row for folder in args.model for row in rows_of(folder, chosen, real, args.backend, args.steps, args.draws)]
    each = f", {args.draws} for each" if args.draws > 1 else ""
    about = (f"{args.draws * len(chosen)} images of {len(by_type)} types for the sentences of validation images of {args.real}"
             f"{each}, by {args.backend}")
    lines = [(r["model"], r["way"], f"{r['frechet']:.1f}", f"{r['kernel']:.3f}", f"{r['fine']:.1f}", f"{r['middle']:.1f}")
             for r in rows]
    write(args.out, "texture", {"about": about, "rows": rows}, f"# Texture\n\n{about}.\n\n" + table(
        ("model", "way", "Frechet distance", "kernel distance", "fine detail, dB", "middle, dB"), lines))
    print((args.out / "texture.md").read_text())


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"texture: {error}")
