"""Otolaryngology: laryngoscopy."""

from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import READ, Found, Source, shown

VOCAL_FOLDS = "patient1/seq1/ and on with frames (in img/ or not), beside frames.csv (path, classes_present)"
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


SOURCES = (
    Source("vocal_folds", "Vocal folds segmentation, laryngoscopy", ("laryngoscopy",), ("otolaryngology",), "CC-BY-4.0",
           READ, "Laves et al., IJCARS 2019", "https://doi.org/10.1007/s11548-018-01910-0", "patient", VOCAL_FOLDS,
           True, vocal_folds),
)
