"""Sources: one file a specialty or image type, one function a dataset: raw folder -> Iterator[Record].

`own`, `clinical` and `shards` read anybody's.
"""

import difflib
from pathlib import Path

from medisyn.data.sources import (
    bones,
    breast,
    chest_xray,
    clinical,
    ct,
    dermatology,
    endoscopy,
    fundus,
    gastroenterology,
    haematology,
    lungs,
    medmnist,
    mri,
    ophthalmology,
    otolaryngology,
    own,
    pathology,
    radiology,
    shards,
    skin,
    sonography,
    surgery,
    tissue,
)
from medisyn.data.sources.source import Found, Source, Unfit

__all__ = ["SOURCES", "Found", "Source", "Unfit", "called"]

SOURCES: dict[str, Source] = {
    source.name: source
    for room in (radiology, chest_xray, lungs, bones, ct, mri, sonography, breast, pathology, tissue, haematology, dermatology,
                 skin, ophthalmology, fundus, gastroenterology, endoscopy, otolaryngology, surgery, medmnist, own, clinical, shards)
    for source in room.SOURCES
}

OWN = (*own.SOURCES, *clinical.SOURCES, *shards.SOURCES)  # anybody's own data, under a name of their own and read by a mapping


def called(name: str, folder: Path, mapping: Path | None = None) -> Source:
    """A source by its name, or somebody's own data under the name that its mapping gives."""
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, 1)
        raise ValueError(f"no source is called {name!r}; " + (f"did you mean {near[0]!r}? " if near else "")
                         + f"the sources are {', '.join(SOURCES)}")
    if SOURCES[name] in OWN:
        source = own.named(SOURCES[name], folder, mapping)
        if source.name in SOURCES and SOURCES[source.name] not in OWN:
            raise ValueError(f"{folder}: {source.name!r} is the name of a public dataset; give your data another name")
        return source
    if mapping is not None:
        raise ValueError(f"source {name} knows its own tables; a mapping is for "
                         f"{', '.join(one.name for one in OWN)}")
    return SOURCES[name]
