"""Pathology: stained tissue."""

from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import READ, Found, Source, shown

LC25000 = "folders lung_n, lung_aca, lung_scc, colon_n and colon_aca of images"
KINDS = {"n": "normal", "aca": "adenocarcinoma", "scc": "squamous_cell_carcinoma"}
TISSUES = {"lung_n", "lung_aca", "lung_scc", "colon_n", "colon_aca"}


def lc25000(folder: Path) -> Iterator[Found]:
    """Lung and colon tissue, haematoxylin and eosin; each source tile appears in many rotations."""
    paths = [path for path in files.rasters(folder) if path.parent.name in TISSUES]
    files.expect(paths, folder, LC25000)
    table = files.table(folder, "groups.csv")
    rows = files.rows(table) if table else ()
    tiles = {files.key(row.get("file", ""), 2): row.get("source_tile") or None for row in rows}
    for path in paths:
        organ, _, kind = path.parent.name.partition("_")
        excluded = ("normal", "adenocarcinoma") + (("squamous_cell_carcinoma",) if organ == "lung" else ())
        yield shown("lc25000", path, "histopathology", anatomy=organ, technique="haematoxylin_eosin",
                    findings=files.one_of(KINDS[kind], excluded), patient=tiles.get(files.key(path, 2)))


SOURCES = (
    Source("lc25000", "Lung and colon cancer histopathology", ("histopathology",), ("pathology",),
           "freely available to be used by AI researchers in any way they see fit", READ,
           "Borkowski et al., arXiv 1912.12142", "https://arxiv.org/abs/1912.12142", "source tile", LC25000, True,
           lc25000,
           "25,000 images, 1.9 GB", "LC25000.zip; no registration."),
)
