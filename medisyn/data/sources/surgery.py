"""Surgery: laparoscopy."""

import re
from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import READ, Found, Source, Unfit, shown

LAPAROSCOPY = "images named like 00001-21711-frame-12190 (operation, video, frame), beside frames.csv (file, flag)"


def laparoscopy(folder: Path) -> Iterator[Found]:
    """Frames of appendectomies and cholecystectomies; black, menu and out-of-body frames are unfit."""
    named = [(path, re.fullmatch(r"(\d+)-(\d+)-frame-(\d+)", files.stem(path))) for path in files.rasters(folder)]
    named = [(path, match) for path, match in named if match]
    files.expect(named, folder, LAPAROSCOPY)
    table = files.table(folder, "frames.csv")
    flags = {files.stem(row.get("file", "")): row.get("flag", "") for row in files.rows(table)} if table else {}
    for path, match in named:
        flag = flags.get(files.stem(path)) or "ok"
        if flag != "ok":
            yield Unfit(str(path), f"no ordinary view ({flag.replace('_', ' ')})")
            continue
        yield shown("laparoscopy", path, "laparoscopy", anatomy="abdomen", patient=match[1])


SOURCES = (
    Source("laparoscopy", "Laparoscopic appendectomy and cholecystectomy, preliminary set", ("laparoscopy",),
           ("surgery",), "MIT", READ, "Intermountain-Stanford preliminary set", None, "operation", LAPAROSCOPY,
           True, laparoscopy),
)
