"""Reports: the figures of an evaluation as a page for people and as JSON for programs, the same numbers in both."""

import dataclasses
import datetime
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from medisyn.evaluation import findings, page
from medisyn.evaluation.protocol import Asked, Part
from medisyn.evaluation.sets import Images, patients


def write(asked: Asked, parts: Sequence[Part], where: dict[str, str]) -> Path:
    """report.json and report.html in `asked.out`; the path of the page. where: what each set was opened from."""
    told = as_dict(asked, parts, where)
    whole(asked.out / "report.json", json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return whole(asked.out / "report.html", page.draw(asked.out, parts, told))


def whole(path: Path, text: str) -> Path:
    """A text file that appears whole or not at all."""
    draft = path.with_suffix(".part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
    return path


def as_dict(asked: Asked, parts: Sequence[Part], where: dict[str, str]) -> dict:
    """The report as JSON."""
    import medisyn
    rows = [(part.name, row) for part in parts for row in part.rows]
    return {
        "medisyn": medisyn.__version__,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": asked.seed,
        "extractors": [extractor.label for extractor in asked.extractors],
        "sets": {name: about(images) | {"from": where.get(name)} for name, images in asked.sets.items()},
        "findings": [dataclasses.asdict(one) for one in findings.found([row for _, row in rows])],
        "parts": [part.name for part in parts],
        "estimates": [{"part": part} | {key: finite(value) for key, value in row.as_dict().items()} for part, row in rows],
        "details": {part.name: part.details for part in parts if part.details}}


def finite(value: object) -> object:
    """JSON knows no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def about(images: Images) -> dict:
    """How many images, patients and image types a set has."""
    kinds: dict[str, int] = {}
    for record in images.records:
        kinds[record.image_type or "unlabelled"] = kinds.get(record.image_type or "unlabelled", 0) + 1
    return {"n": len(images), "n_patients": len(set(patients(images).tolist())), "image_types": dict(sorted(kinds.items()))}
