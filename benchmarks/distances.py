"""Distances: how far a judged set lies from real images of other patients, how varied it is and what it copies, by image type.

    python benchmarks/distances.py --report OUT/report -o OUTDIR

A table of what `medisyn evaluate` wrote, each figure with its 95 % interval and, in brackets, the same figure of real images: of
training images against unseen ones, which a perfect generator would have. Image types and findings with fewer than 30 images a
side have no distance.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from intervals import table, write

from medisyn import estimates
from medisyn.data import vocabulary
from medisyn.estimates import Estimate
from medisyn.evaluation.fidelity import AS_THEY_COME

ALL, TYPE, FINDING = "all", "image_type=", "finding="
TABLES = {
    "Distance to unseen patients": (("fd_eye", "Frechet distance"), ("kd_eye", "kernel distance"),
                                    ("two_sample_eye", "a fresh classifier is right, features"),
                                    ("two_sample_pixels", "and pixels")),
    "Variety": (("precision_eye", "precision"), ("recall_eye", "recall"), ("coverage_eye", "coverage"),
                ("ms_ssim", "MS-SSIM within a prompt")),
    "Novelty": (("copy_rate", "called copies"), ("dcr", "nearest training image, over that of unseen images"),
                ("nn_closer_to_train", "nearer to train"), ("mia_auc", "membership, AUC")),
}
Known = dict[tuple[str, str], Estimate]


def known_of(report: dict) -> Known:
    """The estimates of a report.json by (name, group)."""
    found = [estimates.from_dict({key: value for key, value in row.items() if key != "part"}) for row in report["estimates"]]
    return {(row.name, row.group): row for row in found}


def cell(row: Estimate | None) -> str:
    """value [low, high] (floor), n"""
    if row is None or row.value is None:
        return ""
    digits = 3 if max(abs(row.value), abs(row.floor or 0.0)) < 10 else 1
    interval = "" if row.low is None or row.high is None else f" [{row.low:.{digits}f}, {row.high:.{digits}f}]"
    floor = "" if row.floor is None else f" ({row.floor:.{digits}f})"
    return f"{row.value:.{digits}f}{interval}{floor}, n {row.n:,}"


def label_of(group: str) -> str:
    """What a group is called."""
    return vocabulary.label(group.partition("=")[2]) or "all"


def by_type(known: Known, figures: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
    """A row for all images and one an image type: what it is, a cell a figure; only where some figure has a value."""
    groups = dict.fromkeys(group for _, group in known if group == ALL or group.startswith(TYPE))
    rows = [(label_of(group), *(cell(known.get((name, group))) for name, _ in figures)) for group in groups]
    return [row for row in rows if any(row[1:])]


def by_finding(known: Known) -> list[tuple[str, str, str]]:
    """The findings that have a distance, farthest first: what it is, its distance, its coverage."""
    far = [row for (name, group), row in known.items() if name == "fd_eye" and group.startswith(FINDING) and row.value is not None]
    return [(label_of(row.group), cell(row), cell(known.get(("coverage_eye", row.group))))
            for row in sorted(far, key=lambda row: -row.value)]


def remarks(known: Known) -> list[str]:
    """Where the mixture of the set has raised a floor: of what, and the distance of train images as they come."""
    said = [(label_of(group), row.note.split("; ")) for (name, group), row in known.items()
            if name == "fd_eye" and (group == ALL or group.startswith(TYPE)) and row.note]
    return [f"{name} {part.partition(': ')[2]}" for name, parts in said for part in parts if part.startswith(AS_THEY_COME)]


def markdown(known: Known, what: str) -> str:
    """distances.md"""
    text = [f"# Distances: {what}\n",
            "`medisyn evaluate`, intervals 95 %; in brackets the same figure of real images, which a perfect generator would have:",
            "train images against unseen ones, for distances and the fresh classifier in the mixture of the set; MS-SSIM and",
            "copies are of unseen images. A low distance does not imply that images are useful.\n"]
    for title, figures in TABLES.items():
        if rows := by_type(known, figures):
            text += [f"## {title}\n", table(("", *(heading for _, heading in figures)), rows)]
        if title.startswith("Distance") and (lines := remarks(known)):
            text.append("The set is mixed otherwise than the unseen images. "
                        f"Frechet distance of {AS_THEY_COME}: {', '.join(lines)}.\n")
    if rows := by_finding(known):
        text += ["## Findings, farthest first\n", table(("finding", "Frechet distance", "coverage"), rows)]
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, required=True, help="a folder that `medisyn evaluate` wrote")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--name", help="what was judged, for the heading; default: the report's folder")
    args = parser.parse_args()
    file = args.report / "report.json"
    if not file.is_file():
        raise FileNotFoundError(f"expected {file}, which `medisyn evaluate ... -o {args.report}` writes; found none")
    known = known_of(json.loads(file.read_text(encoding="utf-8")))
    args.out.mkdir(parents=True, exist_ok=True)
    rows = [row.as_dict() for (_, group), row in known.items() if group == ALL or group.startswith((TYPE, FINDING))]
    write(args.out, "distances", {"estimates": rows}, markdown(known, args.name or args.report.name))
    print(f"wrote {args.out / 'distances.md'} and distances.json", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"distances: {error}")
