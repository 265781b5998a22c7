"""Gastroenterology: endoscopy of the digestive tract."""

from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import UNCONFIRMED, Found, Source, shown

CVC = "metadata.csv (frame_id, sequence_id) beside PNG/Original/ or TIFF/Original/ with frames named by number"


def cvc_clinicdb(folder: Path) -> Iterator[Found]:
    """Colonoscopy frames, each with a polyp; where PNG and TIFF lie side by side the PNG is read."""
    table = files.table(folder, "metadata.csv")
    paths = [path for path in files.rasters(folder) if path.parent.name == "Original" and files.stem(path).isdigit()]
    files.expect(paths if table else [], folder, CVC)
    sequences = {row.get("frame_id"): row.get("sequence_id") or None for row in files.rows(table)}
    once = {files.stem(path): path for path in sorted(paths, key=lambda path: ("PNG" in path.parts, path))}
    for frame, path in sorted(once.items(), key=lambda pair: int(pair[0])):
        yield shown("cvc_clinicdb", path, "gi_endoscopy", anatomy="colon", findings={"polyp": True, "normal": False},
                    patient=sequences.get(frame))


SOURCES = (
    Source("cvc_clinicdb", "CVC-ClinicDB, colonoscopy frames with polyps", ("gi_endoscopy",), ("gastroenterology",),
           None, UNCONFIRMED, "Bernal et al. 2015; property of Hospital Clinic Barcelona, for research",
           "https://doi.org/10.1016/j.compmedimag.2015.02.007", "sequence", CVC, False, cvc_clinicdb,
           "612 frames", "CVC-ClinicDB with metadata.csv; registration needed."),
)
