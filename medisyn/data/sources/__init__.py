"""Sources: one file a specialty, one function a dataset: raw folder -> Iterator[Record]; `own` reads anybody's."""

import difflib
from pathlib import Path

from medisyn.data.sources import (
    dermatology,
    gastroenterology,
    haematology,
    ophthalmology,
    otolaryngology,
    own,
    pathology,
    radiology,
    surgery,
)
from medisyn.data.sources.source import Found, Source, Unfit

__all__ = ["SOURCES", "Found", "Source", "Unfit", "called"]

SOURCES: dict[str, Source] = {
    source.name: source
    for specialty in (radiology, pathology, haematology, dermatology, ophthalmology, gastroenterology, otolaryngology,
                      surgery, own)
    for source in specialty.SOURCES
}


def called(name: str, folder: Path, mapping: Path | None = None) -> Source:
    """A source by its name, or somebody's own data under the name that its mapping gives."""
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, 1)
        raise ValueError(f"no source is called {name!r}; " + (f"did you mean {near[0]!r}? " if near else "")
                         + f"the sources are {', '.join(SOURCES)}")
    if SOURCES[name] in own.SOURCES:
        source = own.named(SOURCES[name], folder, mapping)
        if source.name in SOURCES:
            raise ValueError(f"{folder}: {source.name!r} is the name of a public dataset; give your data another name")
        return source
    if mapping is not None:
        raise ValueError(f"source {name} knows its own tables; a mapping is for "
                         f"{', '.join(one.name for one in own.SOURCES)}")
    return SOURCES[name]
