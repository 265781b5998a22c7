"""Few: what a model learns from a few hundred images of a kind it never saw, whether it copies them, and what it forgets.

    python benchmarks/few.py --real data/research --open data/open -o out/few [--source cvc_clinicdb ...] [--n 100 300 1000]

For each source and number: that many training images at random (all, where there are fewer) are taught to the base by
recipes/finetune-few.toml; images are made for the sentences of unseen ones; `medisyn evaluate` judges them (training images:
those that were taught). What is forgotten is the flow loss on images of `--open` that the base knew, before and after.
`--no-prior` teaches without images of what the base could do. A finished step is not done again. Of a source whose groups of
near duplicates left fewer than FEWEST unseen images, other groups are held out here: the base was trained on none of them.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from medisyn import shipped
from medisyn.data import prompts, records
from medisyn.data.records import Record

RECIPE = Path(__file__).parent.parent / "recipes" / "finetune-few.toml"
FIGURES = ("fd_eye", "kd_eye", "precision_eye", "coverage_eye", "copy_rate", "copy_rate_planted", "copy_rate_unseen",
           "nn_closer_to_train")


FEWEST = 20     # unseen images, with fewer of which nothing can be judged
HELD_OUT = 0.2  # share of the images that is then held out, in groups


def split_anew(found: list[Record], seed: int = 1) -> list[Record]:
    """Groups at random, none of more than a tenth of all, become val and test in turns until enough images are held out."""
    groups: dict[str, list[Record]] = {}
    for record in found:
        groups.setdefault(record.patient or record.id, []).append(record)
    names = [name for name in sorted(groups) if len(groups[name]) <= len(found) / 10]
    split, left = dict.fromkeys(groups, "train"), HELD_OUT * len(found)
    for turn, k in enumerate(np.random.default_rng(seed).permutation(len(names))):
        if left <= 0:
            break
        split[names[k]] = ("val", "test")[turn % 2]
        left -= len(groups[names[k]])
    return [replace(record, split=split[record.patient or record.id]) for record in found]


def of_kind(real: Path, source: str, image_type: str) -> list[Record]:
    """The images of a source and type, with unseen ones among them."""
    found = [r for r in records.read(real) if r.source == source and r.image_type == image_type]
    return found if sum(r.split != "train" for r in found) >= FEWEST else split_anew(found)


def subset(real: Path, source: str, image_type: str, n: int, folder: Path, seed: int) -> Path:
    """A collection of n training images of a source and all its unseen ones; val stops the training, test and val judge."""
    if (folder / records.METADATA).is_file():
        return folder
    found = of_kind(real, source, image_type)
    train = [r for r in found if r.split == "train"]
    order = np.random.default_rng(seed).permutation(len(train))[:n]
    chosen = [train[k] for k in sorted(order)] + [r for r in found if r.split != "train"]
    for record in chosen:
        (folder / record.file_name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real / record.file_name, folder / record.file_name)
    records.write(chosen, folder)
    return folder


def sentences(found: list[Record], n: int, file: Path) -> Path:
    """A CSV of the unseen images' sentences, each as often as it occurs among them, n in all."""
    counted = Counter(prompts.canonical(record) for record in found)
    total = sum(counted.values())
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(["prompt", "n", "seed"])
        for text, count in counted.items():
            rows.writerow([text, max(1, round(n * count / total)), 0])
    return file


def medisyn(*words: object) -> None:
    print("medisyn", *words, file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "medisyn", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def known_loss(model: Path, opened: Path, out: Path, each: int = 8) -> dict[str, float]:
    """Flow loss by image type of val images that the base was not trained on, but whose kind it knew."""
    from medisyn.models import bases
    from medisyn.training import cache, tune
    from medisyn.training.finetune_settings import CacheSettings
    base, by_type = bases.load(model), {}
    for record in records.read(opened):
        if record.split == "val" and len(by_type.setdefault(record.image_type, [])) < each:
            by_type[record.image_type].append((opened, record))
    known = [pair for pairs in by_type.values() for pair in pairs]
    settings = CacheSettings(variants=1, captions=1)
    what = cache.plan(known, base, base.image_size, 0, settings)
    own = cache.fill(out / "cache", what, known, base, settings, torch.device("cpu"))
    lesson = tune.Lesson(own, [r for _, r in known])
    return {name: tune.watched_loss(base, lesson, [[e for e, entry in enumerate(what.entries)
                                                    if known[entry.row][1].image_type == name]], 0, torch.device("cpu"))
            for name in by_type}


def one(args: argparse.Namespace, source: str, image_type: str, n: int, before: dict[str, float]) -> dict:
    """All steps for one source and number."""
    name = f"{source}-{image_type}-{n}" + ("-no-prior" if args.no_prior else "") + (f"-{args.name}" if args.name else "")
    home = args.out / name
    taught = subset(args.real, source, image_type, n, home / "collection", args.seed)
    found = list(records.read(taught))
    counts = Counter(r.split for r in found)
    if not (home / "run" / "model" / "guard").is_dir():
        words = ["--set", f'data.collections=["{taught}"]', "--set", f'base="{args.base}"', "--set",
                 f"tune.n_images={args.images}", "--set", f"seed={args.seed}"]
        words += ["--set", "method.prior_images=0"] if args.no_prior else []
        words += [word for change in args.set or () for word in ("--set", change)]
        medisyn("train", RECIPE, "-o", home / "run", *words)
    unseen = [r for r in found if r.split != "train"]
    if not (home / "set" / "contact-sheet.png").is_file():
        medisyn("generate", "--prompts", sentences(unseen, args.made, home / "prompts.csv"), "--model", home / "run" / "model",
                "-o", home / "set", "--guard", "flag")
    if not (home / "report" / "report.json").is_file():
        real = home / "unseen"
        if not real.is_dir():
            shutil.copytree(taught, real)
            records.write([r if r.split == "train" else replace(r, split="test") for r in found], real)
        medisyn("evaluate", "--real", f"{real}:train", "--unseen", f"{real}:test", "--synthetic", home / "set", "-o",
                home / "report", "--only", "validity,fidelity,novelty")
    told = json.loads((home / "report" / "report.json").read_text())
    figures = {row["name"]: row for row in told["estimates"] if row["group"] == "all" and row["name"] in FIGURES}
    after = known_loss(home / "run" / "model", args.opened, args.out / "known")
    made = list(records.read(home / "set"))
    flagged = sum(r.provenance.guard is not None and r.provenance.guard.verdict == "flagged" for r in made)
    return {"name": name, "train": counts["train"], "unseen": len(unseen), "made": len(made), "flagged": flagged,
            "tune": json.loads((home / "run" / "tune" / "done.json").read_text()),
            "figures": figures,
            "forgotten": {t: after[t] / before[t] - 1 for t in before}}


def table(rows: list[dict]) -> str:
    """Markdown, a row a model."""
    def figure(row: dict, name: str) -> str:
        told = row["figures"].get(name)
        if not told or told["value"] is None:
            return "none"
        interval = "" if told["low"] is None else f" [{told['low']:.3g}, {told['high']:.3g}]"
        return f"{told['value']:.3g}{interval}" + (f" ({told['floor']:.3g})" if told["floor"] is not None else "")

    def near(row: dict) -> str:
        told = row["tune"].get("memorising", {}).get("nearest_ratio")
        return "not followed" if told is None else f"{told:.2f}"

    head = ["| taught | images | held-out loss, before -> kept | fd_eye (floor) | coverage_eye (floor) | called copies | of unseen "
            "| guard flags | nearest-neighbour ratio "
            "| nearer to train | known types: loss, mean (worst) |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    body = [f"| {r['name']} | {r['train']} | {r['tune']['before']['held_out']:.3f} -> {r['tune']['held_out']:.3f} at "
            f"{r['tune']['best_at']:,} | {figure(r, 'fd_eye')} | {figure(r, 'coverage_eye')} | {figure(r, 'copy_rate')} | "
            f"{figure(r, 'copy_rate_unseen')} | {r['flagged']} of {r['made']} | {near(r)} | {figure(r, 'nn_closer_to_train')} | "
            f"{100 * float(np.mean(list(r['forgotten'].values()))):+.1f} % ({100 * max(r['forgotten'].values()):+.1f} %) |"
            for r in rows]
    return "\n".join([*head, *body]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="a collection of kinds that the base never saw")
    parser.add_argument("--open", type=Path, required=True, dest="opened", help="a collection of kinds that it knew")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--base", default=str(shipped.folder("medisyn-xs")))
    parser.add_argument("--source", nargs="+", default=["unam_fundus_oct", "cvc_clinicdb", "head_ct", "kidney_ct"])
    parser.add_argument("--type", nargs="+", help="only these image types")
    parser.add_argument("--n", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--images", type=int, default=6000, help="to train on, repeats counted")
    parser.add_argument("--made", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1, help="which images are taken, in which order they are seen")
    parser.add_argument("--name", help="appended to a row's name, so that a row with other settings or seed stands beside it")
    parser.add_argument("--no-prior", action="store_true")
    parser.add_argument("--set", action="append", help="change another setting of the recipe")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    before = known_loss(Path(args.base), args.opened, args.out / "known")
    kinds = {r.source: set() for r in records.read(args.real)}
    for record in records.read(args.real):
        kinds[record.source].add(record.image_type)
    rows = []
    for source in args.source:
        for image_type in sorted(kinds[source] & set(args.type or kinds[source])):
            available = sum(r.split == "train" for r in of_kind(args.real, source, image_type))
            for n in dict.fromkeys(min(n, available) for n in args.n):
                row = one(args, source, image_type, n, before)
                file = args.out / f"{row['name']}.json"
                file.write_text(json.dumps(row, indent=2) + "\n")
                rows.append(row)
                done = [json.loads(file.read_text()) for file in sorted(args.out.glob("*.json"))]
                (args.out / "few.md").write_text(table(done))
                print(table(rows[-1:]), flush=True)


if __name__ == "__main__":
    main()
