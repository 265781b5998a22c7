"""PHI end to end: planted in every tag, chunk, extension, table, file name and pixel, it is found in nothing that ingest writes.

The search looks in every file and file name of the collection and in what the command printed, in several encodings, in
compressed chunks too. That it can find what was planted is shown on the raw files.
"""

import base64
import gzip
import io
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from medisyn.data import deidentify, records, review

NAME, UMLAUT, MRN, DATE, TIME = "Zqsmith", "Zqmüller", "47110815", "19610203", "235959.123456"
UID, WRITTEN_DATE, STREET = "1.2.826.0.1.3680043.99.47110815.1", "1961-02-03", "Zqstreet"
PLANTS = (NAME, UMLAUT, MRN, DATE, TIME, UID, WRITTEN_DATE, STREET)


# The search

def forms(word: str) -> set[bytes]:
    """A word as bytes may hold it: encodings, hexadecimal, and base64 at each of its three alignments."""
    plain = {word.encode(code) for code in ("utf-8", "latin-1", "utf-16-le", "utf-16-be")}
    packed = {base64.b64encode(bytes(at) + one)[-(-8 * at // 6):][:8 * len(one) // 6 - 1] for one in plain for at in range(3)}
    return plain | packed | {one.hex().encode() for one in plain} | {word[::-1].encode()}


FORMS = {form.lower(): word for word in PLANTS for form in forms(word) if len(form) >= 7}


def unfolded(data: bytes) -> Iterator[bytes]:
    """Bytes, and what is compressed in them: gzip, the chunks of a PNG, base64 in JSON."""
    yield data
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    if data[:4] == b"\x89PNG":
        at, pixels = 8, b""
        while at + 8 <= len(data):
            length, kind = struct.unpack(">I4s", data[at:at + 8])
            body, at = data[at + 8:at + 8 + length], at + 12 + length
            pixels += body if kind == b"IDAT" else b""
            if kind in (b"zTXt", b"iTXt"):
                for k in range(len(body)):
                    try:
                        yield zlib.decompress(body[k:])
                    except zlib.error:
                        continue
        yield zlib.decompressobj().decompress(pixels)
    for text in re.findall(rb"[A-Za-z0-9+/]{40,}={0,2}", data if data[:1] == b"{" else b""):
        yield base64.b64decode(text + b"=" * (-len(text) % 4))


def found(data: bytes) -> set[str]:
    """Which plants stand in some bytes."""
    return {word for inner in unfolded(data) for lower in [inner.lower()] for form, word in FORMS.items() if form in lower}


def leaks(folder: Path) -> dict[str, set[str]]:
    """Plants by file, in its bytes or its name."""
    every = {str(path.relative_to(folder)): found(str(path.relative_to(folder)).encode())
             | (found(path.read_bytes()) if path.is_file() else set()) for path in sorted(folder.rglob("*"))}
    return {name: words for name, words in every.items() if words}


# Raw files

def pixels(seed: int, side: int = 96) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(20, 200, (7, 7), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def named(seed: int) -> np.ndarray:
    """Pixels that name a patient."""
    picture = Image.fromarray(pixels(seed, 320))
    ImageDraw.Draw(picture).text((8, 8), f"{NAME.upper()}^JOHN {WRITTEN_DATE}", fill=255, font=ImageFont.load_default(20))
    return np.asarray(picture)


def value(vr: str) -> object:
    """A plant as an element of each text-capable kind can hold it."""
    return {"PN": f"{NAME}^{UMLAUT}", "DA": DATE, "DT": f"{DATE}{TIME}", "TM": TIME, "AS": "047Y", "IS": MRN, "DS": MRN, "UI": UID,
            "CS": NAME.upper(), "AE": NAME.upper(), "UR": f"https://{NAME}.example/{MRN}", "OB": NAME.encode() + b"\0",
            "UN": NAME.encode() + b"\0", "OW": NAME.encode() + b"\0"}.get(vr, f"{NAME} {UMLAUT} {MRN} {STREET}")


TEXTS = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT", "OB", "UN")
NEEDED = {"SpecificCharacterSet", "SOPClassUID", "Modality", "ImageType", "BodyPartExamined", "PhotometricInterpretation",
          "NumberOfFrames", "RescaleSlope", "RescaleIntercept", "RescaleType", "WindowCenter", "WindowWidth", "VOILUTFunction",
          "BurnedInAnnotation", "RecognizableVisualFeatures", "ConversionType", "PresentationIntentType", "SyntheticData",
          "PixelAspectRatio", "LossyImageCompression", "PatientAge", "PerFrameFunctionalGroupsSequence", "PixelPresentation",
          "SharedFunctionalGroupsSequence", "ModalityLUTSequence", "VOILUTSequence", "PresentationLUTShape"}


def dicom(path: Path, seed: int, spare: set[str] = NEEDED, image: np.ndarray | None = None, **said: object) -> Path:
    """A CT file with plants in every element of the standard that can hold text but the spared ones, in sequences within
    sequences, private elements, the file meta information, the preamble and after the pixels."""
    from pydicom import config
    from pydicom.datadict import DicomDictionary
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.sequence import Sequence
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", UID
    meta.TransferSyntaxUID, meta.SourceApplicationEntityTitle = "1.2.840.10008.1.2.1", NAME.upper()
    meta.PrivateInformationCreatorUID, meta.PrivateInformation = UID, NAME.encode() + b"\0"
    preamble = f"{NAME} {UMLAUT} {MRN}".encode("latin-1").ljust(128, b"\0")
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = FileDataset(None, {}, preamble=preamble, file_meta=meta)
        made.SpecificCharacterSet = "ISO_IR 100"
        for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
            if 0x00080000 <= tag < 0x60000000 and keyword and keyword not in spare and vr in TEXTS:
                made.add_new(tag, vr, value(vr))
        for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
            if vr == "SQ" and 0x00080000 <= tag < 0x60000000 and keyword not in spare and "LUT" not in keyword:
                inner, middle = Dataset(), Dataset()
                inner.PatientName, inner.StudyDate, inner.CodeMeaning, inner.CodeValue = value("PN"), DATE, NAME, MRN
                inner.CodingSchemeDesignator = "SCT"
                middle.PersonName, middle.RequestAttributesSequence = value("PN"), Sequence([inner])
                middle.CodeMeaning, middle.CodeValue, middle.CodingSchemeDesignator = NAME, MRN, "SCT"
                made.add_new(tag, "SQ", Sequence([middle]))
        block = made.private_block(0x0011, NAME, create=True)
        for k, vr in enumerate(TEXTS):
            block.add_new(k, vr, value(vr))
        made.add_new(0x60000022, "LO", NAME)
        made.add_new(0x60001500, "LO", f"{NAME} {MRN}")
        made.SOPClassUID, made.Modality, made.ImageType = meta.MediaStorageSOPClassUID, "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        if "BodyPartExamined" in spare:
            made.BodyPartExamined = "CHEST"
        made.PatientAge = "093Y"
        image = pixels(seed) if image is None else image
        made.Rows, made.Columns = image.shape
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
        made.PixelData = (image.astype(np.uint16) * 16).tobytes()
        made.add_new(0xFFFCFFFC, "OB", NAME.encode() + b"\0")
        for keyword, one in said.items():
            setattr(made, keyword, one)
        made.save_as(path, enforce_file_format=False)
    return path


def spoiled(source: Path, folder: Path) -> None:
    """The same file cut short, with flipped bits, and with a header that lies."""
    data, rng = source.read_bytes(), np.random.default_rng(7)
    (folder / f"{NAME}_cut.dcm").write_bytes(data[:len(data) // 3])
    (folder / f"{NAME}_short.dcm").write_bytes(data[:-9000])
    for k in range(3):
        flipped = bytearray(data)
        for at in rng.integers(132, len(data), 60):
            flipped[at] ^= 1 << int(rng.integers(8))
        (folder / f"{NAME}_flipped{k}.dcm").write_bytes(flipped)


def dicoms(folder: Path) -> tuple[Path, int]:
    """(a folder of planted DICOM files, how many of them may be taken in at the most)."""
    for k in range(3):
        first = dicom(folder / f"{NAME}_{MRN}" / DATE / f"{UMLAUT}{k}.dcm", k, PatientID=f"{MRN}{k}")
    dicom(folder / f"{NAME}/everything.dcm", 10, spare={"SpecificCharacterSet"})  # allowed fields lie, too
    dicom(folder / f"{NAME}/more.dcm", 14, spare={"SpecificCharacterSet", "NumberOfFrames"})
    dicom(folder / f"{NAME}/ultrasound.dcm", 11, Modality="US")
    dicom(folder / f"{NAME}/said.dcm", 12, BurnedInAnnotation="YES")
    dicom(folder / f"{NAME}/drawn.dcm", 13, image=named(13))
    spoiled(first, folder / NAME)
    return folder, 3 + 5


def rasters(folder: Path) -> tuple[Path, int]:
    home = folder / f"{NAME}_{DATE}"
    home.mkdir(parents=True)
    words = f"{NAME} {UMLAUT} {MRN} {WRITTEN_DATE}"
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x8298], exif[0x9C9B] = words, NAME, NAME, words.encode("utf-16-le")
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Patient", words)
    notes.add_text("Comment", words * 20, zip=True)
    notes.add_itxt("Description", words * 20, zip=True)
    notes.add_itxt("Title", words)
    Image.fromarray(pixels(20)).save(home / f"{MRN}.png", pnginfo=notes, exif=exif)
    Image.fromarray(pixels(21)).save(home / f"{NAME}1.jpg", exif=exif, comment=words.encode(), xmp=words.encode())
    Image.fromarray(pixels(22)).save(home / f"{NAME}2.webp", exif=exif, xmp=words.encode())
    Image.fromarray(pixels(23)).save(home / f"{NAME}3.tif", tiffinfo={270: words, 315: NAME, 305: NAME}, description=words)
    Image.fromarray(named(24)).save(home / f"{NAME}4.png")
    (home / f"{NAME}5.png").write_bytes(b"\x89PNG\r\n\x1a\n" + words.encode())
    (home / f"{NAME}6.jpg").write_bytes((home / f"{NAME}1.jpg").read_bytes()[:700])
    rows = [f"{home.name}/{path.name},{MRN}{k},93,{words},{NAME}" for k, path in enumerate(sorted(home.iterdir()))]
    rows.append(f"{NAME}/{MRN}_missing.png,{MRN},40,{words},{NAME}")
    (folder / "labels.csv").write_text("\n".join(["path,mrn,age,report,doctor", *rows]), encoding="utf-8")
    (folder / "medisyn.toml").write_text(
        'name = "ward"\ntable = "labels.csv"\nfile = {column = "path"}\nimage_type = "chest_xray"\npatient = {column = "mrn"}\n'
        'age_years = {column = "age"}\ntext = {column = "report"}\n')
    return folder, 4


def volumes(folder: Path) -> tuple[Path, int]:
    import nibabel
    home = folder / f"{NAME}_{DATE}"
    home.mkdir(parents=True)
    block = np.stack([pixels(30 + k, 40).astype(np.int16) * (1 + k) for k in range(6)], axis=2)
    for k, suffix in enumerate((".nii", ".nii.gz")):
        volume = nibabel.Nifti1Image(block + k, np.diag([1, 1, 5, 1]))
        volume.header["descrip"], volume.header["aux_file"] = f"{NAME} {MRN}".encode(), f"{NAME}.txt".encode()
        volume.header["intent_name"], volume.header["db_name"] = NAME.encode(), NAME.encode()
        for code in (4, 6, 16):
            volume.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, f"{NAME} {DATE} {UMLAUT}".encode()))
        volume.to_filename(home / f"{UMLAUT}{k}{suffix}")
    data = (home / f"{UMLAUT}0.nii").read_bytes()
    (home / f"{NAME}_cut.nii").write_bytes(data[:len(data) // 2])
    with gzip.GzipFile(home / f"{NAME}_named.nii.gz", "wb", mtime=0) as out:  # its header keeps the file's name
        out.write(data)
    (folder / "medisyn.toml").write_text(f'name = "scanner"\nimage_type = "mri"\npatient = {{name = "({NAME}[^/]*)"}}\n')
    return folder, 18


def noted(seed: int) -> bytes:
    """A PNG that names a patient beside its pixels."""
    out, notes = io.BytesIO(), PngImagePlugin.PngInfo()
    notes.add_text("Patient", f"{NAME} {MRN}")
    Image.fromarray(pixels(seed)).save(out, "PNG", pnginfo=notes)
    return out.getvalue()


def said(k: int) -> dict[str, str]:
    """Columns that name a record's own fields, full of plants."""
    return {"image_type": "mri", "text": f"{NAME} {MRN}", "patient": f"{MRN}{k}", "licence": f"{NAME} {UMLAUT}", "age_years": "93",
            "id": f"{MRN}{k}", "source": NAME, "reading": NAME, "doctor": NAME, "birth": WRITTEN_DATE}


def imagefolder(folder: Path) -> tuple[Path, int]:
    folder.mkdir()
    for k in range(4):
        (folder / f"{NAME}{k}.png").write_bytes(noted(40 + k))
    (folder / f"{NAME}4.png").write_bytes(f"{NAME} {MRN}".encode())
    rows = [{"file_name": f"{NAME}{k}.png", **said(k)} for k in range(6)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder, 4


def parquet(folder: Path) -> tuple[Path, int]:
    import pyarrow
    import pyarrow.parquet
    folder.mkdir()
    rows = [{"image": {"bytes": noted(50 + k) if k < 4 else NAME.encode(), "path": f"{NAME}{k}.png"}, **said(k)} for k in range(5)]
    table = pyarrow.Table.from_pylist(rows).replace_schema_metadata({"owner": NAME, "notes": f"{MRN} {DATE}"})
    pyarrow.parquet.write_table(table, folder / f"{NAME}.parquet")
    return folder, 4


def webdataset(folder: Path) -> tuple[Path, int]:
    folder.mkdir()
    with tarfile.open(folder / f"{NAME}.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": f"{NAME} {MRN}"}) as out:
        for k in range(5):
            for suffix, data in (("png", noted(60 + k) if k < 4 else NAME.encode()), ("json", json.dumps(said(k)).encode()),
                                 ("txt", f"{NAME} {DATE}".encode())):
                member = tarfile.TarInfo(f"{NAME}_{DATE}/{MRN}{k}.{suffix}")
                member.size, member.uname, member.gname = len(data), NAME, NAME
                out.addfile(member, io.BytesIO(data))
    return folder, 4


def arrays(folder: Path) -> tuple[Path, int]:
    folder.mkdir()
    np.savez(folder / f"{NAME}.npz", train_images=np.stack([pixels(70 + k) for k in range(4)] + [named(75)[:96, :96]]),
             train_labels=np.zeros((5, 1), int), notes=np.array(f"{NAME} {MRN}"), **{f"{NAME}_x": np.zeros(2)})
    (folder / f"{NAME}_cut.npz").write_bytes((folder / f"{NAME}.npz").read_bytes()[:5000])
    (folder / "medisyn.toml").write_text('name = "ward"\nimage_type = "mri"\n')
    return folder, 5


def films(folder: Path) -> tuple[Path, int]:
    import av
    folder.mkdir()
    for kind in ("mp4", "mkv", "avi"):
        with av.open(str(folder / f"{NAME}.{kind}"), "w") as film:
            for word in ("title", "comment", "artist", "date", "location"):
                film.metadata[word] = f"{NAME} {MRN} {DATE}"
            stream = film.add_stream("mpeg4", rate=2)
            stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
            stream.metadata["handler_name"] = NAME
            for k in range(24):
                picture = np.stack([pixels(80 + k // 4)] * 3, axis=2)
                film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            film.mux(stream.encode())
    (folder / f"{NAME}_cut.mp4").write_bytes((folder / f"{NAME}.mp4").read_bytes()[:3000])
    (folder / "medisyn.toml").write_text('name = "theatre"\nimage_type = "dermoscopy"\n')
    return folder, 60


CASES = {"dicom": dicoms, "table": rasters, "nifti": volumes, "imagefolder": imagefolder, "parquet": parquet,
         "webdataset": webdataset, "npz": arrays, "video": films}
NEEDS = {"dicom": "pydicom", "nifti": "nibabel", "parquet": "pyarrow", "video": "av"}


@pytest.mark.parametrize("source", CASES)
def test_nothing_that_was_planted_is_in_what_ingest_leaves(source, tmp_path):
    pytest.importorskip(NEEDS.get(source, "PIL"))
    raw, most = CASES[source](tmp_path / "raw")
    outside = tmp_path / "home"
    outside.mkdir()
    (tmp_path / "tmp").mkdir()
    done = subprocess.run([sys.executable, "-m", "medisyn", "ingest", source, str(raw), "-o", "out", "--workers", "1"],
                          cwd=outside, capture_output=True, timeout=300,
                          env={**os.environ, "XDG_CONFIG_HOME": str(outside / "config"), "TMPDIR": str(tmp_path / "tmp")})
    told, out = done.stdout + done.stderr, outside / "out"
    assert done.returncode == 0, told.decode()
    assert found(told) == set(), told.decode()
    assert leaks(out) == {}
    assert list((tmp_path / "tmp").iterdir()) == []
    kept = list(records.read(out))
    assert most >= len(kept) >= 3 and all((out / record.file_name).is_file() for record in kept)
    assert {record.age_years for record in kept} <= {90.0, None}
    assert {record.text for record in kept if NAME in (record.text or "")} == set()
    times = [path.stat().st_mtime for path in out.rglob("*.png")]
    assert min(times) > raw.stat().st_mtime - 60                      # nor are the raw files' dates copied
    private = deidentify.private(outside / "config" / "medisyn", out)
    held = review.held(private)
    assert len(held) == len((out / "quarantine.jsonl").read_text().splitlines()) > 0
    assert leaks(private), "the private folder names what is held, and it lies outside the collection"
    assert all(not found(row["reason"].encode()) for row in held), "a reason quotes what a file holds"
    page = review.page(private, out)
    assert page.is_relative_to(outside / "config") and not page.is_relative_to(out)


def test_pixels_that_name_a_patient_are_held_and_pass_when_somebody_has_looked(tmp_path):
    from medisyn.data import ingest
    raw, home, out = rasters(tmp_path / "raw")[0], tmp_path / "home", tmp_path / "out"
    key = deidentify.key(home / "key", collection=out)
    before = ingest.ingest("table", raw, out, workers=1, key=key, home=home)
    private = deidentify.private(home, out)
    drawn = [row for row in review.held(private) if "text" in row["reason"]]
    assert [Path(row["file"]).name for row in drawn] == [f"{NAME}4.png"]
    assert not list(out.rglob(f"{drawn[0]['name']}*"))
    review.release(private, [drawn[0]["name"]])
    after = ingest.ingest("table", raw, out, workers=1, key=key, home=home)
    assert after.written == before.written + 1 and after.quarantined == before.quarantined - 1


def test_the_search_finds_what_was_planted(tmp_path):
    pytest.importorskip("pydicom")
    pytest.importorskip("nibabel")
    for source, make in CASES.items():
        raw, _ = make(tmp_path / source)
        leaking = leaks(raw)
        files = [str(path.relative_to(raw)) for path in raw.rglob("*") if path.is_file() and path.name != "medisyn.toml"]
        assert set(files) <= set(leaking)
        in_bytes = [path for path in raw.rglob("*") if path.suffix in (".dcm", ".nii", ".gz", ".jpg", ".webp", ".tif", ".csv")]
        assert all(found(path.read_bytes()) for path in in_bytes)
    assert found((tmp_path / "dicom" / NAME / "everything.dcm").read_bytes()) >= {NAME, UMLAUT, MRN, DATE, TIME, UID, STREET}
    picture = next((tmp_path / "table").rglob(f"{MRN}.png")).read_bytes()
    compressed = [words for words in map(found, list(unfolded(picture))[1:]) if words]
    assert len(compressed) >= 2                                      # zTXt and iTXt
    for word in PLANTS:
        for hidden in (word.encode("utf-16-le"), base64.b64encode(b"ab" + word.encode() + b"c"), word.encode().hex().encode(),
                       word.lower().encode()):
            assert word in found(b"...." + hidden + b"...."), (word, hidden)
