import csv
import json
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medisyn.data import images, records, vocabulary
from medisyn.data.provenance import Provenance
from medisyn.data.records import Record

pydicom = pytest.importorskip("pydicom")
from medisyn.data import dicom, dicom_out  # noqa: E402

MADE = Provenance(prompt="CXR of Mrs Jane Roe, pneumonia", read_as="Chest X-ray, pneumonia.", seed=7, steps=16, guidance=3.0,
                  sampler="multistep", style=None, model="sha256:" + "ab" * 32, model_name="medisyn-xs", version="0.1.0")
CHEST = Record(id="0123456789abcdef", file_name="images/0123456789abcdef.png", image_type="chest_xray", specialty="radiology",
               anatomy="chest", view="posteroanterior", findings={"pneumonia": True, "pleural_effusion": False}, age_years=63.0,
               sex="female", text=MADE.prompt, provenance=MADE)
SKIN = Record(id="skin", file_name="images/skin.png", image_type="dermoscopy", anatomy="skin", findings={"melanoma": True},
              provenance=replace(MADE, prompt="dermoscopy, melanoma"))
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
ACQUIRED = ("KVP", "Exposure", "ExposureTime", "XRayTubeCurrent", "DetectorID", "DetectorType", "PlateID", "EchoTime",
            "RepetitionTime", "MagneticFieldStrength", "SliceThickness", "ConvolutionKernel", "ImagePositionPatient",
            "ImageOrientationPatient", "FrameOfReferenceUID", "PixelSpacing", "ImagerPixelSpacing", "TransducerType",
            "AcquisitionDate", "AcquisitionTime", "AcquisitionNumber", "ProtocolName", "StationName", "InstitutionName",
            "InstitutionAddress", "DeviceSerialNumber", "OperatorsName", "PerformedProcedureStepStartDate", "RescaleSlope")


def written(tmp_path: Path, record: Record = CHEST, image: np.ndarray | Image.Image | None = None) -> pydicom.Dataset:
    image = ramp() if image is None else image
    return pydicom.dcmread(dicom_out.write(record, image, tmp_path / "one.dcm", made=NOON))


def ramp(height: int = 9, width: int = 7, channels: int = 1) -> np.ndarray:
    """All of [-1, 1] in an odd number of pixels."""
    return np.linspace(-1, 1, channels * height * width, dtype=np.float32).reshape(channels, height, width)


def collection(folder: Path, *found: Record) -> Path:
    for record in found:
        images.write_png(ramp(channels=3 if record.image_type == "dermoscopy" else 1), folder / record.file_name)
    records.write(found, folder)
    return folder


def test_a_file_says_that_it_is_synthetic_in_every_place_that_the_standard_has_for_it(tmp_path):
    header = written(tmp_path)
    assert header.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert (header.SyntheticData, header.ConversionType, header.Modality) == ("YES", "SYN", "OT")
    assert list(header.ImageType) == ["DERIVED", "SECONDARY"]
    assert header.PatientName == "SYNTHETIC^MEDISYN"
    assert header.SeriesDescription == "SYNTHETIC chest X-ray: pneumonia"
    purpose = header.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0]
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning) == ("109100", "DCM", "Synthesizing Equipment")
    assert header.DerivationDescription.startswith("SYNTHETIC: ")


def test_the_code_for_the_maker_means_what_the_standard_says():
    from pydicom.sr.codedict import codes
    assert (codes.DCM.SynthesizingEquipment.value, codes.DCM.SynthesizingEquipment.meaning) == (
        dicom_out.PURPOSE[0], dicom_out.PURPOSE[2])
    assert "SynthesizingEquipment" in codes.CID7005.dir()


def test_the_derivation_names_model_seed_and_prompt_by_hash(tmp_path):
    said = written(tmp_path).DerivationDescription
    assert MADE.model in said and "seed 7" in said and "prompt sha256:" in said and "medisyn 0.1.0" in said


def test_the_prompt_is_nowhere_in_the_file(tmp_path):
    written(tmp_path)
    assert b"Jane" not in (tmp_path / "one.dcm").read_bytes()


def test_what_the_image_shows_is_said_in_words_of_the_vocabulary(tmp_path):
    header = written(tmp_path, replace(CHEST, laterality=None))
    assert (header.BodyPartExamined, header.ViewPosition, header.PatientSex, header.PatientAge) == ("CHEST", "PA", "F", "063Y")
    assert "pneumonia" in header.ImageComments and "Jane" not in header.ImageComments


def test_unknown_facts_are_left_out(tmp_path):
    header = written(tmp_path, replace(CHEST, anatomy=None, view="lateral", sex=None, age_years=None))
    assert not {"BodyPartExamined", "ViewPosition", "PatientAge", "ImageLaterality", "Laterality"} & set(header.dir())
    assert header.PatientSex == ""


def test_a_side_is_said_and_an_unknown_side_of_a_paired_part_is_empty(tmp_path):
    knee = replace(CHEST, image_type="bone_xray", anatomy="knee", view=None, findings={})
    assert written(tmp_path, replace(knee, laterality="right")).ImageLaterality == "R"
    assert written(tmp_path, knee).Laterality == ""


def test_no_field_of_an_acquisition_is_written(tmp_path):
    for record, image in ((CHEST, ramp()), (SKIN, ramp(channels=3))):
        assert not set(ACQUIRED) & set(written(tmp_path, record, image).dir())


def test_the_only_date_is_that_of_the_file(tmp_path):
    header = written(tmp_path)
    assert (header.InstanceCreationDate, header.InstanceCreationTime) == ("20260501", "120000")
    dates = {element.keyword: element.value for element in header if element.VR in ("DA", "TM", "DT")}
    assert {name for name, value in dates.items() if value} == {"InstanceCreationDate", "InstanceCreationTime"}


def test_every_level_of_8_bits_comes_back_and_the_file_says_how_it_was_scaled(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    header = written(tmp_path, image=Image.fromarray(levels, "L"))
    assert header.BitsStored == 16 and header.PhotometricInterpretation == "MONOCHROME2"
    assert np.array_equal(header.pixel_array // 257, levels) and header.pixel_array.max() == 65535
    assert "8-bit levels scaled to 16 bits" in header.DerivationDescription


def test_an_image_of_floats_comes_back_within_one_level_of_16_bits(tmp_path):
    rng = np.random.default_rng(3)
    image = rng.uniform(-1, 1, (1, 33, 17)).astype(np.float32)
    header = written(tmp_path, image=image)
    assert np.abs(header.pixel_array / 65535 * 2 - 1 - image[0]).max() <= 1 / 65535
    assert "8-bit" not in header.DerivationDescription


def test_the_window_shows_every_level(tmp_path):
    from pydicom.pixels import apply_windowing
    header = written(tmp_path)
    shown = apply_windowing(header.pixel_array, header)
    assert np.abs(shown - header.pixel_array).max() <= 1


def test_colours_come_back_exactly_also_in_an_odd_number_of_bytes(tmp_path):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (5, 3, 3), dtype=np.uint8), "RGB")
    header = written(tmp_path, SKIN, picture)
    assert header.PhotometricInterpretation == "RGB" and np.array_equal(header.pixel_array, np.asarray(picture))


def test_a_real_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match="images of patients are never written as DICOM"):
        dicom_out.write(replace(CHEST, provenance=None), ramp(), tmp_path / "one.dcm")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("image", [np.full((1, 2, 2), np.nan, np.float32), np.zeros((2, 4, 4)), np.zeros((1, 0, 4))])
def test_pixels_that_are_no_image_are_refused(tmp_path, image):
    with pytest.raises(ValueError, match="expected an image"):
        dicom_out.write(CHEST, image, tmp_path / "one.dcm")


def test_identifiers_are_the_same_each_time_and_another_pixel_is_another_image(tmp_path):
    first, again = written(tmp_path), written(tmp_path)
    other = written(tmp_path, image=-ramp())
    assert first.SOPInstanceUID == again.SOPInstanceUID != other.SOPInstanceUID
    assert first.SeriesInstanceUID == other.SeriesInstanceUID
    assert all(value.startswith("2.25.") and len(value) <= 64 for value in (
        first.SOPInstanceUID, first.SeriesInstanceUID, first.StudyInstanceUID))


def test_a_study_is_a_prompt_and_a_series_a_model(tmp_path):
    first = written(tmp_path)
    model = written(tmp_path, replace(CHEST, provenance=replace(MADE, model="sha256:" + "cd" * 32)))
    prompt = written(tmp_path, replace(CHEST, provenance=replace(MADE, prompt="another")))
    assert first.StudyInstanceUID == model.StudyInstanceUID != prompt.StudyInstanceUID
    assert first.SeriesInstanceUID != model.SeriesInstanceUID
    assert first.PatientID == model.PatientID != prompt.PatientID


def test_no_patient_has_two_ages(tmp_path):
    assert written(tmp_path).PatientID != written(tmp_path, replace(CHEST, age_years=20.0)).PatientID


def test_a_made_face_is_not_declared_unrecognizable(tmp_path):
    assert written(tmp_path).RecognizableVisualFeatures == "NO"
    face = replace(SKIN, image_type="skin_photograph", anatomy="face", findings={})
    assert "RecognizableVisualFeatures" not in written(tmp_path, face, ramp(channels=3))


def test_the_reader_refuses_to_take_a_synthetic_file_for_a_patients(tmp_path):
    path = dicom_out.write(CHEST, ramp(), tmp_path / "one.dcm")
    with pytest.raises(ValueError, match="synthetic"):
        list(dicom.parts(path))


def test_long_and_odd_words_still_make_a_valid_file(tmp_path):
    every = {term.name: True for term in vocabulary.applicable("finding", "chest_xray")}
    odd = replace(MADE, model_name="m" * 300, version="v" * 200, style=3)
    header = written(tmp_path, replace(CHEST, id="../../é\\x", findings=every, provenance=odd))
    assert len(header.SeriesDescription) <= 64 and len(header.DerivationDescription) <= 1024


def test_a_collection_is_exported_with_an_index_and_without_its_patients(tmp_path):
    real = replace(CHEST, id="real", file_name="images/real.png", provenance=None)
    home = collection(tmp_path / "syn", CHEST, real, SKIN)
    done = dicom_out.export(home, tmp_path / "out")
    assert (done.written, done.real, done.patients) == (2, 1, 2)
    with (tmp_path / "out/index.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["record"] for row in rows] == [CHEST.id, SKIN.id]
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.dcm")) == sorted(
        row["file"] for row in rows)
    for row in rows:
        assert pydicom.dcmread(tmp_path / "out" / row["file"]).SOPInstanceUID == row["sop_instance_uid"]


def test_images_of_a_series_are_numbered(tmp_path):
    home = collection(tmp_path / "syn", CHEST, replace(CHEST, id="b", file_name="images/b.png", provenance=replace(MADE, seed=8)))
    dicom_out.export(home, tmp_path / "out")
    assert sorted(pydicom.dcmread(path).InstanceNumber for path in (tmp_path / "out").rglob("*.dcm")) == [1, 2]


def test_a_limit_takes_the_first(tmp_path):
    home = collection(tmp_path / "syn", CHEST, SKIN)
    assert dicom_out.export(home, tmp_path / "out", limit=1).image_types == {"chest_xray": 1}
    with pytest.raises(ValueError, match="limit should be 1 or more"):
        dicom_out.export(home, tmp_path / "out", limit=0)


def test_a_collection_of_patients_alone_is_refused(tmp_path):
    home = collection(tmp_path / "real", replace(CHEST, provenance=None))
    with pytest.raises(ValueError, match="expected synthetic images, found none"):
        dicom_out.export(home, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_image_outside_the_collection_is_refused(tmp_path):
    images.write_png(ramp(), tmp_path / "secret.png")
    records.write([replace(CHEST, file_name="../secret.png")], tmp_path / "syn")
    with pytest.raises(ValueError, match="inside the collection"):
        dicom_out.export(tmp_path / "syn", tmp_path / "out")


def test_the_verb_exports(tmp_path):
    from typer.testing import CliRunner

    from medisyn.cli import app
    home = collection(tmp_path / "syn", CHEST, SKIN)
    ran = CliRunner().invoke(app, ["export", "dicom", str(home), "-o", str(tmp_path / "out"), "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["n_images"] == 2


@pytest.mark.parametrize("record,image", [
    (CHEST, ramp(16, 16)), (SKIN, ramp(16, 16, 3)), (replace(SKIN, laterality="left", anatomy="face"), ramp(15, 15, 3)),
    (replace(CHEST, image_type="bone_xray", anatomy="knee", view=None, findings={}), ramp(16, 16)),
    (replace(CHEST, image_type="mri", anatomy="brain", view="axial", technique="flair", findings={}), ramp(16, 16)),
    (replace(CHEST, image_type="fundus_photograph", anatomy="retina", view="macula_centred", findings={}), ramp(16, 16, 3))])
def test_the_validator_finds_no_error(tmp_path, record, image):
    """dciodvfy of dicom3tools; its dictionary of 2022 is older than Synthetic Data (0008,001C)."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    path = dicom_out.write(record, image, tmp_path / "one.dcm")
    said = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False).stderr
    assert "SCImage" in said
    assert [line for line in said.splitlines() if line.startswith("Error") and "(0008,001c)" not in line] == []


def test_highdicom_reads_it_and_would_write_the_same_object(tmp_path):
    highdicom = pytest.importorskip("highdicom")
    header = written(tmp_path)
    read = highdicom.imread(tmp_path / "one.dcm")
    assert np.array_equal(read.get_frame(1, apply_voi_transform=False, dtype=np.uint16), header.pixel_array)
    theirs = highdicom.sc.SCImage(
        header.pixel_array, "MONOCHROME2", 16, "PATIENT", header.StudyInstanceUID, header.SeriesInstanceUID, 1,
        header.SOPInstanceUID, 1, "MediSyn", patient_id=header.PatientID, patient_name=header.PatientName, patient_sex="F",
        patient_orientation=("L", "F"), pixel_spacing=(1, 1))
    declined = {"ContentDate", "ContentTime", "SeriesDate", "SeriesTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture",
                "PixelSpacing", "NominalScannedPixelSpacing"}
    ours = set(header.dir())
    assert {name for name in theirs.dir() if theirs[name].value not in (None, "")} - ours <= declined
    for name in ("SOPClassUID", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
                 "SamplesPerPixel", "PhotometricInterpretation", "PixelData"):
        assert theirs[name].value == header[name].value, name
