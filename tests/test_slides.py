"""Slides: tiles of tissue at the size of a pixel that was asked for; labels stay unread."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import test_phi
import whole_slides
from PIL import Image

from medisyn.data import handles, ingest, parts, records, slides

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("tiffslide")
WIDTH, HEIGHT, MICRONS = 1536, 1024, 0.5
LEFT, TOP, RIGHT, BOTTOM = 384, 256, 1152, 768  # of the tissue
PINK, GLASS = (200, 80, 160), (243, 242, 244)


@pytest.fixture(autouse=True)
def nothing_stays_open():
    yield
    handles.close()


def pixels(tissue: bool = True) -> np.ndarray:
    """Glass with a rectangle of tissue, whose red tells the column."""
    found = np.full((HEIGHT, WIDTH, 3), GLASS, np.uint8)
    if not tissue:
        return found + np.random.default_rng(0).integers(0, 4, found.shape, np.uint8)
    found[TOP:BOTTOM, LEFT:RIGHT] = PINK
    found[TOP:BOTTOM, LEFT:RIGHT, 0] = np.linspace(150, 250, RIGHT - LEFT).astype(np.uint8)
    return found


def slide(path: Path, levels: int = 3, microns: float | None = MICRONS, tissue: bool = True) -> Path:
    """A pyramid in TIFF, as scanners write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    base = pixels(tissue)
    settings = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib", "metadata": None}
    if microns:
        settings |= {"resolution": (10_000 / microns, 10_000 / microns), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as out:
        out.write(base, subifds=levels - 1, **settings)
        for level in range(1, levels):
            out.write(base[::2 ** level, ::2 ** level], subfiletype=1, **settings)
    return path


def test_tiles_hold_tissue_and_lie_side_by_side(tmp_path):
    tiles = [part for part, _ in slides.parts(slide(tmp_path / "a.tif"), microns=0.5, side=128)]
    places = [tuple(int(n) for n in part.split(",")[:2]) for part in tiles]
    assert set(places) == {(x, y) for x in range(LEFT, RIGHT, 128) for y in range(TOP, BOTTOM, 128)}
    assert len(places) == len(set(places)) == 24 and all(part.endswith(",128,0.5") for part in tiles)
    assert [part for part, _ in slides.parts(tmp_path / "a.tif", each=5, side=128)] == tiles[::5]


@pytest.mark.parametrize("microns, side", [(0.5, 128), (1.0, 100), (2.0, 64), (0.8, 90)])
def test_a_tile_shows_the_same_place_at_every_scale(tmp_path, microns, side):
    slide(tmp_path / "a.tif")
    read = parts.open_part(tmp_path, f"a.tif#{LEFT},{TOP},{side},{microns}")
    assert read.picture.size == (side, side) and read.picture.mode == "RGB" and read.how is None
    step = microns / MICRONS
    truth = pixels()[TOP:TOP + round(side * step), LEFT:LEFT + round(side * step)]
    rows, columns = (np.clip(((np.arange(side) + 0.5) * step).astype(int), 0, n - 1) for n in truth.shape[:2])
    assert np.abs(np.asarray(read.picture, int) - truth[rows][:, columns]).max() <= 12


def test_a_tile_at_the_edge_is_filled_with_white(tmp_path):
    slide(tmp_path / "a.tif")
    tile = np.asarray(parts.open_part(tmp_path, f"a.tif#{WIDTH - 100},{HEIGHT - 50},256,0.5").picture)
    assert (tile[60:, 110:] == 255).all() and (tile[:40, :90] == GLASS).all()


def test_a_slide_of_one_level_is_searched_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "BLOCK", 256)
    assert len(list(slides.parts(slide(tmp_path / "a.tif", levels=1), side=128))) == 24


def test_glass_alone_has_no_tiles(tmp_path):
    assert list(slides.parts(slide(tmp_path / "a.tif", tissue=False), side=128)) == []


@pytest.mark.parametrize("part, message", [
    ("", "is read as tiles"), ("0,0,256,0.1", "would be enlarged"), ("9999,0,256,0.5", "not lie on"), ("0,0,0,0.5", "not lie on"),
    ("0,0,99999,0.5", "not lie on"), ("0,0,8192,500", "more pixels")])
def test_a_tile_that_cannot_be_had_says_why(tmp_path, part, message):
    slide(tmp_path / "a.tif", levels=1)
    with pytest.raises(ValueError, match=message):
        slides.picture(tmp_path / "a.tif", part)


def test_a_slide_that_claims_more_pixels_than_its_bytes_can_hold_is_refused_at_once(tmp_path):
    path = slide(tmp_path / "a.tif", levels=1)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["ImageWidth"].overwrite(10_000_000)
    with pytest.raises(ValueError, match="more pixels than its bytes"):
        list(slides.parts(path))


def test_a_slide_without_a_scale_is_refused(tmp_path):
    with pytest.raises(ValueError, match="how many micrometres"):
        list(slides.parts(slide(tmp_path / "a.tif", microns=None)))


@pytest.mark.parametrize("data", [b"", b"no slide", b"II*\0" + bytes(60)])
def test_what_is_no_slide_says_so(tmp_path, data):
    (tmp_path / "a.svs").write_bytes(data)
    with pytest.raises(ValueError, match="slide") as caught:
        list(slides.parts(tmp_path / "a.svs"))
    assert str(tmp_path) not in str(caught.value)


def test_otsu_parts_two_heaps_between_them():
    values = np.concatenate([np.full(900, 20), np.full(100, 200)]).astype(np.uint8)
    assert 20 <= slides.otsu(values) < 200
    assert slides.otsu(np.full(50, 7, np.uint8)) == 0


def test_the_label_of_a_slide_is_never_opened(tmp_path, monkeypatch):
    base = pixels()
    settings = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "a.svs") as out:
        tiled = settings | {"tile": (256, 256), "compression": "zlib"}
        out.write(base, description=f"Aperio Image Library v1\n{WIDTH}x{HEIGHT}|AppMag = 20|MPP = {MICRONS}", **tiled)
        out.write(base[::16, ::16], description="Aperio\nthumbnail", **settings)
        out.write(np.zeros((64, 64, 3), np.uint8), subfiletype=1, description="Aperio\nlabel 64x64", **settings)
        out.write(np.zeros((64, 128, 3), np.uint8), subfiletype=9, description="Aperio\nmacro 128x64", **settings)
    import tiffslide
    opened = property(lambda self: pytest.fail("the label was opened"))
    monkeypatch.setattr(tiffslide.TiffSlide, "associated_images", opened)
    tiles = [part for part, _ in slides.parts(tmp_path / "a.svs", side=128)]
    assert len(tiles) == 24 and slides.picture(tmp_path / "a.svs", tiles[0])[0].size == (128, 128)


def test_slides_become_a_collection_in_which_a_slide_stays_in_one_split(tmp_path):
    slide(tmp_path / "raw/ward/a.tif"), slide(tmp_path / "raw/ward/b.tif")
    (tmp_path / "raw/medisyn.toml").write_text('name = "ward"\nanatomy = "colon"\n')
    summary = ingest.ingest("slides", tmp_path / "raw", tmp_path / "out", workers=1)
    found = list(records.read(tmp_path / "out"))
    assert summary.written == len(found) > 8 and summary.groups == 2
    assert {(r.image_type, r.technique, r.anatomy) for r in found} == {("histopathology", "haematoxylin_eosin", "colon")}
    assert all(len({r.split for r in found if r.patient == patient}) == 1 for patient in {r.patient for r in found})


# DICOM slides, by wsidicom, and what OpenSlide reads

def command(source: str, raw: Path, out: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "medisyn", "ingest", source, raw, "-o", out, "--workers", "1", *words],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_dicom_slide_becomes_tiles_and_nothing_of_its_names_comes_out(tmp_path, monkeypatch):
    pytest.importorskip("wsidicom")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    whole_slides.written(tmp_path / "raw/ward", pixels())
    whole_slides.written(tmp_path / "raw/ward", pixels()[:, ::-1].copy())  # beside it in the same folder
    said = command("slides", tmp_path / "raw", tmp_path / "out")
    found = list(records.read(tmp_path / "out"))
    assert len(found) == 2 * 8 and len({r.patient for r in found}) == 1 and {r.reading for r in found} == {None}
    assert {(r.image_type, r.technique, r.age_years, r.sex) for r in found} == {
        ("histopathology", "haematoxylin_eosin", 90.0, "female")}
    reds = {tuple(np.asarray(Image.open(tmp_path / "out" / r.file_name))[128, (20, -20), 0].tolist()) for r in found}
    assert len(reds) >= 6  # tiles of different columns, of both slides
    assert (tmp_path / "out/quarantine.jsonl").read_text() == ""
    for name, data in [("said", said.encode())] + [(str(p), p.read_bytes()) for p in (tmp_path / "out").rglob("*") if p.is_file()]:
        for plant in (whole_slides.NAME, whole_slides.MRN, "20180403", "19340229"):
            assert not any(plant.lower().encode() in inner.lower() for inner in test_phi.unfolded(data)), (name, plant)
            assert plant not in name
    raw = b"".join(path.read_bytes() for path in (tmp_path / "raw/ward").iterdir())
    assert all(plant.encode() in raw for plant in (whole_slides.NAME, whole_slides.MRN, "20180403", "19340229"))


def test_the_label_of_a_dicom_slide_is_not_opened(tmp_path, monkeypatch):
    wsidicom = pytest.importorskip("wsidicom")
    paths, seen = whole_slides.written(tmp_path, pixels()), []
    opened = wsidicom.WsiDicom.open
    monkeypatch.setattr(wsidicom.WsiDicom, "open", lambda files: seen.extend(files) or opened(files))
    tiles = [part for part, _ in slides.parts(paths[0], side=128)]
    assert len(tiles) == 24 and seen == paths[:3]
    for label in paths[3:]:
        with pytest.raises(ValueError, match="label of a slide"):
            list(slides.parts(label))


@pytest.mark.parametrize("microns, side", [(0.5, 128), (1.0, 100), (2.0, 64)])
def test_a_tile_of_a_dicom_slide_shows_the_same_place_at_every_scale(tmp_path, microns, side):
    pytest.importorskip("wsidicom")
    path = whole_slides.written(tmp_path, pixels())[0]
    found, _ = slides.picture(path, f"{LEFT},{TOP},{side},{microns}")
    step = microns / MICRONS
    rows, columns = (np.clip(((np.arange(side) + 0.5) * step).astype(int), 0, None) for _ in range(2))
    truth = pixels()[TOP:, LEFT:][rows][:, columns]
    assert found.size == (side, side) and np.abs(np.asarray(found, int) - truth).max() <= 12


def test_a_dicom_slide_whose_header_doubts_waits_and_one_of_another_stain_is_not_called_routine(tmp_path, monkeypatch):
    pytest.importorskip("wsidicom")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    whole_slides.written(tmp_path / "raw", pixels(), BurnedInAnnotation="YES")
    other = [whole_slides.item(SpecimenPreparationSequence=[whole_slides.item(SpecimenPreparationStepContentItemSequence=[])])]
    whole_slides.written(tmp_path / "raw/b", pixels(), SpecimenDescriptionSequence=other)
    command("slides", tmp_path / "raw", tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    assert len(rows) == 8 and all(re.fullmatch("[0-9a-f]{16}", row["file"]) and "text" in row["reason"] for row in rows)
    assert [r.technique for r in records.read(tmp_path / "out")] == [None] * 8


def test_a_ct_among_slides_and_a_broken_dicom_slide_are_said(tmp_path):
    pytest.importorskip("wsidicom")
    import dicoms
    path = whole_slides.written(tmp_path / "raw", pixels())[0]
    dicoms.written(dicoms.dataset(dicoms.smooth()), tmp_path / "raw/ct.dcm")
    (tmp_path / "raw/cut").mkdir()
    (tmp_path / "raw/cut/a.dcm").write_bytes(path.read_bytes()[:9000])
    summary = ingest.ingest("slides", tmp_path / "raw", tmp_path / "out", workers=1)
    reasons = {row["file"]: row["reason"] for row in ingest.quarantined(tmp_path / "out")}
    assert summary.written == 8 and set(reasons) == {"ct.dcm", "cut/a.dcm"}
    assert "no whole slide" in reasons["ct.dcm"] and "\n" not in "".join(reasons.values())


@pytest.mark.parametrize("tags, message", [
    ({"TotalPixelMatrixColumns": 2**31 - 1}, "more pixels than its tiles hold"), ({"TotalPixelMatrixRows": 0}, "does not describe"),
    ({"NumberOfFrames": 3}, "more pixels than its tiles hold"), ({"Columns": 0}, "does not describe")])
def test_a_header_that_claims_more_than_its_tiles_is_refused(tmp_path, tags, message):
    pytest.importorskip("wsidicom")
    path = whole_slides.written(tmp_path, pixels(), levels=1, label=False, **tags)[0]
    with pytest.raises(ValueError, match=message):
        list(slides.parts(path))
    summary = ingest.ingest("slides", tmp_path, tmp_path / "out", workers=1)
    assert (summary.written, summary.quarantined) == (0, 1)


def test_what_tiffslide_cannot_read_openslide_reads(tmp_path, monkeypatch):
    pytest.importorskip("openslide")
    import openslide
    import tiffslide
    slide(tmp_path / "raw/a.tif")
    by_tiffslide = [(part, slides.picture(tmp_path / "raw/a.tif", part)[0].tobytes())
                    for part, _ in slides.parts(tmp_path / "raw/a.tif", side=128)]
    handles.close()

    def refuse(path):
        raise tiffslide.TiffFileError("another make")
    monkeypatch.setattr(tiffslide, "TiffSlide", refuse)
    held = slides.opened(tmp_path / "raw/a.tif")[0]
    assert isinstance(held, openslide.OpenSlide)
    held.close()
    by_openslide = [(part, slides.picture(tmp_path / "raw/a.tif", part)[0].tobytes())
                    for part, _ in slides.parts(tmp_path / "raw/a.tif", side=128)]
    assert by_openslide == by_tiffslide and len(by_openslide) == 24
    assert ingest.ingest("slides", tmp_path / "raw", tmp_path / "out", workers=1).written == 8
