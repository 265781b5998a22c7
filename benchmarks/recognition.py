"""Recognition: does a network that learned from real images see in synthetic ones what their prompts asked for?

    python benchmarks/recognition.py --real data/open --model FOLDER -o OUTDIR

Every figure stands beside the same figure on real images of patients that the judge never saw. Stopped, it goes on
where it was: the judge and the images made so far are kept in OUTDIR.
"""

import argparse
import csv
import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch
from contrasts import CONTRASTS
from intervals import Estimate, auroc, balanced_accuracy, estimate, missing, table, write
from judge import SIDE, Questions, answers, choices, states, tell, trained
from PIL import Image
from unseen import NONE, SPLITS, unseen

from medisyn.data import images, sheets
from medisyn.data.records import Record
from medisyn.data.vocabulary import closed
from medisyn.training import batches

HERE = Path(__file__).parent
FIRST_SEED = 1000         # far from those of galleries


@dataclasses.dataclass(frozen=True)
class Judged:
    """Images with what they should show and what the judge saw. All arrays have a row an image."""

    records: list[Record]
    pixels: np.ndarray        # uint8 (N, SIDE, SIDE, 3)
    logits: list[np.ndarray]
    kind: np.ndarray          # image type, an index
    truth: np.ndarray         # findings: 1, 0, -1 unknown
    choice: np.ndarray        # contrasts: -1 none
    groups: np.ndarray        # patients, or images
    splits: dict[str, str]    # image type: the split it came from

    def pick(self, rows: np.ndarray) -> "Judged":
        return dataclasses.replace(self, records=[self.records[r] for r in rows], pixels=self.pixels[rows],
                                   logits=[a[rows] for a in self.logits], kind=self.kind[rows], truth=self.truth[rows],
                                   choice=self.choice[rows], groups=self.groups[rows])


def judged(judge: torch.nn.Module, records: list[Record], pixels: np.ndarray, splits: dict[str, str]) -> Judged:
    q: Questions = judge.questions
    place = {name: k for k, name in enumerate(q.image_types)}
    kind = np.array([place.get(r.image_type, -1) for r in records], np.int64)
    groups = np.array([r.patient or r.id for r in records])
    return Judged(records, pixels, answers(judge, pixels), kind, states(records, q.findings, q.unmentioned),
                  choices(records, q), groups, splits)


def real_ones(judge: torch.nn.Module, pixels: batches.Pixels) -> Judged:
    """The unseen images of every type that the judge knows."""
    rows, splits = [], {}
    for name in judge.questions.image_types:
        mine, split = unseen(pixels, name)
        if split:
            splits[name] = split
            rows += mine.tolist()
    tell(f"judge: asked about {len(rows):,} unseen real images")
    return judged(judge, [pixels.records[r] for r in rows], np.asarray(pixels.array[rows]), splits)


# ---- figures --------------------------------------------------------------------------------------------------------

def type_accuracy(found: Judged, kind: int) -> Estimate:
    mine = found.pick(np.flatnonzero(found.kind == kind))
    right = mine.logits[0].argmax(1) == kind
    return estimate(lambda rows: right[rows].mean(), len(right), mine.groups, share=True)


def all_types(found: Judged) -> Estimate:
    guess, truth = found.logits[0].argmax(1), found.kind
    return estimate(lambda rows: balanced_accuracy(guess[rows], truth[rows]), len(truth), found.groups, share=True)


def finding_auroc(found: Judged, column: int, note: str) -> Estimate:
    mine = found.pick(np.flatnonzero(found.truth[:, column] >= 0))
    score, truth = mine.logits[1][:, column], mine.truth[:, column] == 1
    return estimate(lambda rows: auroc(score[rows], truth[rows]), len(truth), mine.groups, note=note)


def contrast_accuracy(found: Judged, column: int) -> Estimate:
    mine = found.pick(np.flatnonzero(found.choice[:, column] >= 0))
    if len(set(mine.choice[:, column].tolist())) < found.logits[2 + column].shape[1]:
        return missing(NONE if len(mine.records) == 0 else "not every choice occurs")
    guess, truth = mine.logits[2 + column].argmax(1), mine.choice[:, column]
    return estimate(lambda rows: balanced_accuracy(guess[rows], truth[rows]), len(truth), mine.groups, share=True)


def figures(questions: Questions, real: Judged, made: Judged | None, shown: Judged | None) -> list[dict]:
    """One row a figure: of what, on synthetic images, on unseen real ones. made: free wordings, shown: contrasts."""
    nothing = missing("no model given")
    rows, one_in = [], 1 / len(questions.image_types)
    for k, name in enumerate(questions.image_types):
        rows.append({"figure": "image type recognised", "of": name, "chance": one_in,
                     "synthetic": type_accuracy(made, k) if made else nothing,
                     "real": type_accuracy(real, k) if name in real.splits else missing(NONE),
                     "real_split": real.splits.get(name)})
    rows.append({"figure": "image type recognised", "of": "all, each type counting alike", "chance": one_in,
                 "synthetic": all_types(made) if made else nothing, "real": all_types(real),
                 "real_split": "test, else val"})
    for k, (name, size) in enumerate(zip(questions.contrasts, questions.sizes, strict=True)):
        kind = next(c.image_type for c in CONTRASTS if c.name == name)
        rows.append({"figure": "contrast recognised", "of": f"{name} ({size} ways, {kind})", "chance": 1 / size,
                     "synthetic": contrast_accuracy(shown, k) if shown else nothing, "real": contrast_accuracy(real, k),
                     "real_split": real.splits.get(kind)})
        if rows[-1]["real"].value is None:
            rows[-1]["real_split"] = None
    for k, name in enumerate(questions.findings):
        note = "against not mentioned" if name in questions.unmentioned else ""
        kind = name.split("/")[0]
        rows.append({"figure": "finding, AUROC", "of": name, "chance": 0.5,
                     "synthetic": asked_auroc(shown, k, note) if shown else nothing,
                     "real": finding_auroc(real, k, note) if kind in real.splits else missing(NONE),
                     "real_split": real.splits.get(kind)})
    return rows


def asked_auroc(shown: Judged, column: int, note: str) -> Estimate:
    both = {0, 1} <= set(shown.truth[:, column].tolist())
    return finding_auroc(shown, column, note) if both else missing("not asked for")


def report(rows: list[dict], about: dict) -> str:
    """results.md"""
    text = [f"# Recognition: {about['model'] or 'the judge on real images'}\n",
            f"The judge: {about['judge']}. Intervals: 95 %, bootstrap over patients (real) or images (synthetic).",
            "Recognition is a low bar: soft images can pass it, and it says nothing of realism.\n"]
    if about.get("understood"):
        text.append(f"Free wordings whose image type was understood: {about['understood']}.\n")
    for figure in dict.fromkeys(row["figure"] for row in rows):
        lines = [(r["of"], f"{r['chance']:.2f}", r["synthetic"].text, r["real"].text, r["real_split"] or "")
                 for r in rows if r["figure"] == figure]
        text += [f"## {figure[0].upper()}{figure[1:]}\n",
                 table(("of", "chance", "synthetic", "unseen real", "split"), lines)]
    return "\n".join(text)


# ---- images ---------------------------------------------------------------------------------------------------------

def free_prompts() -> list[tuple[str, str]]:
    with (HERE / "free_prompts.csv").open(newline="", encoding="utf-8") as opened:
        return [(row["prompt"], row["image_type"]) for row in csv.DictReader(opened)]


def shared_out(prompts: list[str], each: int) -> list[tuple[str, int, int]]:
    """`each` images over several prompts: (prompt, seed, how many-th)."""
    return [(prompts[i % len(prompts)], FIRST_SEED + i // len(prompts), i) for i in range(each)]


def synthetic(maker: object, asked: list[tuple[str, int]], folder: Path) -> np.ndarray:
    """The images of (prompt, seed), each made once and kept: uint8 (N, SIDE, SIDE, 3)."""
    from medisyn import making
    wanted = list(dict.fromkeys(asked))
    plans = {prompt: maker.plan(prompt) for prompt, _ in wanted}
    rows = ((prompt, 1, seed) for prompt, seed in wanted)
    made: dict[tuple[str, int], np.ndarray] = {}
    for key, one in zip(wanted, making.write(making.make_all(maker, plans, rows, folder), folder), strict=True):
        made[key] = fitted(one.picture)  # its own seed is another one where it was drawn again
        if len(made) % 50 == 0 or len(made) == len(wanted):
            tell(f"images: {len(made):,} of {len(wanted):,}")
    return np.stack([made[key] for key in asked])


def fitted(picture: Image.Image) -> np.ndarray:
    return np.asarray(images.square(picture, SIDE).convert("RGB"))


def mistakes(found: Judged, questions: Questions, file: Path, most: int = 12) -> None:
    """The images whose type was not recognised, a row a type asked for; captions say what the judge took them for."""
    guess = found.logits[0].argmax(1)
    rows = []
    for k, name in enumerate(questions.image_types):
        wrong = np.flatnonzero((found.kind == k) & (guess != k))
        if len(wrong):
            taken = ", ".join(dict.fromkeys(questions.image_types[guess[w]] for w in wrong))
            rows.append((f"{name}: {len(wrong)} of {(found.kind == k).sum()} taken for {taken}",
                         [Image.fromarray(found.pixels[w]) for w in wrong[:most]]))
    sheets.sheet(rows or [("none", [])], title="image type not recognised", columns=most).save(file)


def confusions(found: Judged, questions: Questions, file: Path, most: int = 8) -> None:
    """The images of contrasts that were taken for another choice, a row a choice asked for."""
    rows = []
    for k, name in enumerate(questions.contrasts):
        labels = [c.label for c in next(c for c in CONTRASTS if c.name == name).choices]
        guess = found.logits[2 + k].argmax(1)
        for j, label in enumerate(labels):
            mine = found.choice[:, k] == j
            wrong = np.flatnonzero(mine & (guess != j))
            if len(wrong):
                taken = ", ".join(dict.fromkeys(labels[guess[w]] for w in wrong))
                rows.append((f"{name}: {label}, {len(wrong)} of {mine.sum()} taken for {taken}",
                             [Image.fromarray(found.pixels[w]) for w in wrong[:most]]))
    sheets.sheet(rows or [("none", [])], tile=96, title="choice not recognised", columns=most).save(file)


def of_prompts(judge: torch.nn.Module, maker: object, each: int, folder: Path) -> tuple[Judged, Judged, str]:
    """(free wordings, contrasts, how many of the wordings were understood)"""
    free, known = free_prompts(), maker.image_types
    by_type = {kind: [p for p, t in free if t == kind] for kind in dict.fromkeys(t for _, t in free) if kind in known}
    asked = [(p, s, kind) for kind, texts in by_type.items() for p, s, _ in shared_out(texts, each)]
    chosen = [(p, s, c, k) for c in CONTRASTS if c.image_type in known
              for k, choice in enumerate(c.choices) for p, s, _ in shared_out(list(choice.prompts), each)]
    pixels = synthetic(maker, [(p, s) for p, s, _ in asked] + [(p, s) for p, s, _, _ in chosen], folder)
    records = [Record(f"{p} {s}", "", kind) for p, s, kind in asked]
    made = judged(judge, records, pixels[:len(asked)], {})
    records = [labelled(maker, p, c.image_type, c.choices[k].shows, f"{p} {s}") for p, s, c, k in chosen]
    shown = judged(judge, records, pixels[len(asked):], {})
    column = {name: i for i, name in enumerate(judge.questions.contrasts)}
    shown.choice[:] = -1  # each image answers for the contrast it was made for, and for no other
    for i, (_, _, c, k) in enumerate(chosen):
        if c.name in column:
            shown.choice[i, column[c.name]] = k
    right = sum(maker.plan(p).understood.image_type == kind for p, kind in free if kind in by_type)
    return made, shown, f"{right} of {sum(map(len, by_type.values()))}"


def labelled(maker: object, prompt: str, image_type: str, shows: dict, name: str) -> Record:
    """What an image made for a contrast should show: what its prompt says and what its choice says."""
    findings = {f: v for f, v in shows.items() if isinstance(v, bool)}
    said = dict(maker.plan(prompt).understood.findings)
    return Record(name, "", image_type, findings={**said, **closed(findings, image_type, None), **findings})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, required=True, help="a collection of real images")
    parser.add_argument("--model", type=Path, help="a model folder; left out: only the judge, on real images")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--each", type=int, default=24, help="images a type and a choice")
    parser.add_argument("--judge", type=Path, help="default OUT/judge.safetensors; trained where it is not there")
    parser.add_argument("--backend", default="torch", help="what computes the images: torch, openvino, openvino-bf16")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.judge or args.out / "judge.safetensors"
    pixels = batches.pack([args.real.absolute()], file.parent / "pixels", SIDE, SPLITS,
                          lambda done, total: tell(f"real images: {done:,} of {total:,}") if done % 2000 == 0 else None)
    judge = trained(pixels, file)
    real, made, shown = real_ones(judge, pixels), None, None
    size = sum(p.numel() for p in judge.parameters())
    about = {"model": None, "judge": f"{file.name}, {size:,} parameters, at {SIDE} pixels"}
    mistakes(real, judge.questions, args.out / "real-mistakes.png")
    if args.model:
        from medisyn import synthesizer
        maker = synthesizer.load(args.model, backend=args.backend)
        made, shown, understood = of_prompts(judge, maker, args.each, args.out / "synthetic")
        card = maker.model.card
        about |= {"model": card.name, "digest": maker.model.digest, "steps": card.steps, "guidance": card.guidance,
                  "sampler": card.sampler, "backend": args.backend, "understood": understood}
        mistakes(made, judge.questions, args.out / "mistakes.png")
        confusions(shown, judge.questions, args.out / "confusions.png")
    tell("figures: bootstrapping")
    rows = figures(judge.questions, real, made, shown)
    write(args.out, "results", {"about": about, "figures": rows}, report(rows, about))
    tell(f"wrote {args.out / 'results.md'} and results.json")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        sys.exit(f"recognition: {error}")
