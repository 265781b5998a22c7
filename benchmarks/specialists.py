"""Specialists: one model for several image types, or one for each, at the same budget in total?

    python benchmarks/specialists.py --real data/open -o out/specialists [--types chest_xray blood_smear dermoscopy]

Toy scale (64 pixels, minutes on two cores); each run resumes. Trains the generalist on all types with the whole budget and each
specialist (recipes/specialist.toml) on its type with an even share, makes as many images of each type with both, and sets hours
and the Frechet distance of the eye to unseen patients side by side. Real against real stands below.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from medisyn import synthesizer
from medisyn.data import images, prompts
from medisyn.estimates import Estimate, bootstrap
from medisyn.evaluation import cost, distances, features, sets
from medisyn.evaluation.sets import Images

RECIPE = Path(__file__).parent.parent / "recipes" / "specialist.toml"
STAGES = "text,vae,latents,decoder,dit,model"
SHARE = {"text": 2_400, "vae": 3_600, "dit": 9_600}   # images an image type, of each stage
SETTINGS = ("image_size=64", "data.packed_side=72", "vae.crop=64", "latents.each_type=1200", "decoder.n_images=0")


def train(real: Path, kinds: list[str], out: Path) -> None:
    """One model of these image types, with the budget of as many."""
    sizes = [f"{stage}.n_images={n * len(kinds)}" for stage, n in SHARE.items()]
    listed = ", ".join(f'"{kind}"' for kind in kinds)
    changes = [*SETTINGS, *sizes, f"data.image_types=[{listed}]", f'data.collections=["{real}"]', f"model.name={out.name}"]
    command = [sys.executable, "-m", "medisyn", "train", str(RECIPE), "-o", str(out), "--stages", STAGES]
    for change in changes:
        command += ["--set", change]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def made(model: Path, records: list, extractor: features.Extractor, n: int) -> np.ndarray:
    """Features of n images made from the canonical sentences of real records of one type: float32 (n, D)."""
    maker = synthesizer.load(model)
    texts = [prompts.canonical(records[k % len(records)]) for k in range(n)]
    plans = {text: maker.plan(text) for text in dict.fromkeys(texts)}
    wanted = ((plans[text], maker.settings(plans[text], k)) for k, text in enumerate(texts))
    return embedded(extractor, [np.asarray(images.square(one.picture, extractor.side).convert("RGB"))
                                for one in maker.many(wanted, look=False)])


def embedded(extractor: features.Extractor, squares: Sequence[np.ndarray]) -> np.ndarray:
    """float32 (n, D) of uint8 (side, side, 3) each."""
    return np.concatenate([extractor.apply(np.stack(squares[k:k + 64])) for k in range(0, len(squares), 64)])


def distance(real: np.ndarray, other: np.ndarray) -> Estimate:
    """fd_eye with its interval: both sides drawn again, which makes sets look farther apart than they are, alike for all."""
    n = min(len(real), len(other))
    return bootstrap(lambda rows: distances.frechet_distance(real[rows], other[rows]), n, name="fd_eye", better="lower", draws=200)


def some(rows: list, n: int) -> list:
    """n of them by lot: they lie ordered by source."""
    return [rows[k] for k in np.random.default_rng(0).permutation(len(rows))[:n]]


def of(found: Images, kind: str, extractor: features.Extractor, n: int) -> np.ndarray:
    rows = some([k for k, r in enumerate(found.records) if r.image_type == kind], n)
    return embedded(extractor, list(found.pixels(rows, extractor.side)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="a collection of real images")
    parser.add_argument("--types", nargs="+", default=["chest_xray", "blood_smear", "dermoscopy"])
    parser.add_argument("-n", type=int, default=150, help="images a type and a model")
    parser.add_argument("-o", "--out", type=Path, required=True)
    asked = parser.parse_args()
    real, runs = asked.real.absolute(), {kind: asked.out / kind for kind in asked.types}
    with ThreadPoolExecutor(2) as pool:
        whole = pool.submit(train, real, asked.types, asked.out / "generalist")
        for kind, run in runs.items():
            train(real, [kind], run)
        whole.result()
    extractor = features.load("eye")
    unseen, train_set = sets.open_images(f"{real}:test", "unseen"), sets.open_images(f"{real}:train", "train")
    quality, floors = {}, []
    for kind, run in runs.items():
        theirs = of(unseen, kind, extractor, asked.n)
        records = some([r for r in unseen.records if r.image_type == kind], asked.n)
        quality[kind] = tuple(distance(theirs, made(home / "model", records, extractor, len(theirs)))
                              for home in (run, asked.out / "generalist"))
        floors.append(f"{kind} {distance(theirs, of(train_set, kind, extractor, len(theirs))).text}")
    text = "# One generalist, or a specialist each\n\n" + cost.table(cost.compare(asked.out / "generalist", runs, quality))
    text += f"\nfd_eye at 64 pixels to unseen patients, lower is better; real training images reach {', '.join(floors)}.\n"
    (asked.out / "specialists.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
