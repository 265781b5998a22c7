"""Otolaryngology: laryngoscopy."""

import json
from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import READ, STATED, Found, Source, shown

VOCAL_FOLDS = "patient1/seq1/ and on with frames (in img/ or not), beside frames.csv (path, classes_present)"
BAGLS = "training/ and test/ with 0.png, 0_seg.png, 0.meta and on"
STRUCTURES = {"vocal folds": "vocal_folds", "glottal space": "glottal_space", "surgical tool": "surgical_tool",
              "pathology": "laryngeal_lesion", "intubation": "endotracheal_tube"}


def vocal_folds(folder: Path) -> Iterator[Found]:
    """Frames of laryngeal surgery; every pixel was labelled, so a structure that is not listed is absent."""
    paths = [path for path in files.rasters(folder)
             if path.parent.name.startswith("seq") and path.parent.parent.name.startswith("patient")
             and path.parent.parent.parent.name in ("", "img")]
    files.expect(paths, folder, VOCAL_FOLDS)
    table = files.table(folder, "frames.csv")
    facts = {files.key(row.get("path", ""), 3): row for row in files.rows(table)} if table else {}
    for path in paths:
        listed = facts.get(files.key(path, 3), {}).get("classes_present", "")
        present = {word.strip() for word in listed.split("|") if word.strip()}
        findings = {name: word in present for word, name in STRUCTURES.items()} if present else {}
        yield shown("vocal_folds", path, "laryngoscopy", anatomy="larynx", findings=findings,
                    patient=path.parent.parent.name)


def bagls(folder: Path) -> Iterator[Found]:
    """Frames of high-speed videoendoscopy; a healthy person's are normal, a disorder may not be seen in a frame."""
    paths = [path for path in files.rasters(folder) if files.stem(path).isdigit()]
    told = {str(path.with_suffix("")): path for path in files.ending(folder, ".meta")}
    files.expect(paths if told else [], folder, BAGLS)
    for path in paths:
        facts = read_meta(Path(folder) / told[name]) if (name := str(path.with_suffix(""))) in told else {}
        healthy = str(facts.get("Subject disorder status", "")).strip().lower() == "healthy"
        sex = str(facts.get("Subject sex", "")).strip().lower()
        yield shown("bagls", path, "laryngoscopy", anatomy="larynx", findings={"normal": True} if healthy else {},
                    sex="female" if sex == "w" else files.sex(sex))


def read_meta(path: Path) -> dict:
    """The JSON beside a frame; {} where it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


SOURCES = (
    Source("vocal_folds", "Vocal folds segmentation, laryngoscopy", ("laryngoscopy",), ("otolaryngology",), "CC-BY-4.0",
           READ, "Laves et al., IJCARS 2019", "https://doi.org/10.1007/s11548-018-01910-0", "patient", VOCAL_FOLDS,
           True, vocal_folds, "536 images", "The repository of the authors; no registration."),
    Source("bagls", "BAGLS, high-speed videoendoscopy", ("laryngoscopy",), ("otolaryngology",), "CC-BY-NC-SA-4.0", STATED,
           "Gomez et al., BAGLS, Scientific Data 2020", "https://zenodo.org/records/3762320", "near_duplicates", BAGLS, False,
           bagls, "59,250 images", "training.zip and test.zip; no registration."),
)
