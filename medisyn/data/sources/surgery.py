"""Surgery: laparoscopy."""

import re
from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import READ, STATED, UNCONFIRMED, Found, Source, Unfit, part, shown

CHOLECSEG8K = "video01/video01_00080/ and on with frame_80_endo.png and its masks"
CHOLEC80 = "videos/video01.mp4 and on beside tool_annotations/video01-tool.txt (Frame, Grasper, ...)"
DSAD = "folders such as liver/ and colon/, each with 01/image00.png, mask00.png and on"
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


def cholecseg8k(folder: Path) -> Iterator[Found]:
    """Frames of seventeen gallbladder operations, 80 in a row each; the masks beside them are left out."""
    named = [(path, re.fullmatch(r"(video\d\d)_\d+", path.parent.name)) for path in files.rasters(folder)
             if re.fullmatch(r"frame_\d+_endo", files.stem(path))]
    named = [(path, match) for path, match in named if match]
    files.expect(named, folder, CHOLECSEG8K)
    for path, match in named:
        yield shown("cholecseg8k", path, "laparoscopy", anatomy="abdomen", patient=match[1])


TOOLS = ("Grasper", "Bipolar", "Hook", "Scissors", "Clipper", "Irrigator", "SpecimenBag")
EACH = 10  # of the labelled frames, which are one a second: neighbours are nearly alike


def cholec80(folder: Path) -> Iterator[Found]:
    """Videos of eighty gallbladder operations, a frame every ten seconds, with or without a tool."""
    tables = files.tables(folder, "video*-tool.txt")
    videos = {path.stem: path for path in files.ending(folder, ".mp4")}
    files.expect([table for table in tables if table.stem.removesuffix("-tool") in videos], folder, CHOLEC80)
    for table in tables:
        video = table.stem.removesuffix("-tool")
        if video not in videos:
            continue
        for row in list(files.rows(table, "\t"))[::EACH]:
            if row.get("Frame", "").isdigit():
                seen = [files.yes_no(row.get(tool, "")) for tool in TOOLS]
                findings = files.known(surgical_tool=True if any(seen) else None if None in seen else False)
                yield part("cholec80", videos[video], row["Frame"], "laparoscopy", anatomy="abdomen", findings=findings,
                           patient=video)


ORGANS = {"abdominal_wall": "abdomen", "colon": "abdomen", "inferior_mesenteric_artery": "abdomen", "liver": "liver",
          "intestinal_veins": "abdomen", "pancreas": "pancreas", "small_intestine": "abdomen", "spleen": "spleen",
          "stomach": "abdomen", "ureter": "abdomen", "vesicular_glands": "abdomen", "multilabel": "abdomen"}


def dsad(folder: Path) -> Iterator[Found]:
    """Frames of robot-assisted rectal operations by the organ that was segmented; the number below is the operation's."""
    paths = [path for path in files.rasters(folder) if re.fullmatch(r"image\d+", files.stem(path))
             and path.parent.parent.name in ORGANS]
    files.expect(paths, folder, DSAD)
    for path in paths:
        yield shown("dsad", path, "laparoscopy", anatomy=ORGANS[path.parent.parent.name], patient=path.parent.name)


SOURCES = (
    Source("laparoscopy", "Laparoscopic appendectomy and cholecystectomy, preliminary set", ("laparoscopy",),
           ("surgery",), "MIT", READ, "Intermountain-Stanford preliminary set", None, "operation", LAPAROSCOPY,
           True, laparoscopy,
           None, "The frames with frames.csv, from the authors."),
    Source("cholecseg8k", "CholecSeg8k", ("laparoscopy",), ("surgery",), "CC-BY-NC-SA-4.0", STATED,
           "Hong et al., arXiv 2012.12453", "https://www.kaggle.com/datasets/newslab/cholecseg8k", "operation", CHOLECSEG8K,
           False, cholecseg8k, "8,080 images, 3 GB", "The whole set; registration at Kaggle needed."),
    Source("cholec80", "Cholec80 videos", ("laparoscopy",), ("surgery",), "CC-BY-NC-SA-4.0", UNCONFIRMED,
           "Twinanda et al., EndoNet, IEEE Transactions on Medical Imaging 2017", "https://camma.unistra.fr/datasets/", "operation",
           CHOLEC80, False, cholec80, "80 videos",
           "The videos and tool annotations; registration needed."),
    Source("dsad", "Dresden surgical anatomy", ("laparoscopy",), ("surgery",), "CC-BY-4.0", UNCONFIRMED,
           "Carstens et al., Scientific Data 2023", "https://doi.org/10.6084/m9.figshare.21702600", "operation", DSAD, True, dsad,
           "13,195 images", "DSAD.zip; no registration."),
)
