"""De-identification: an allow-list, ages in bands, reasons for doubt, a key that stays secret."""

import inspect
import os
import re
import stat
import warnings
from pathlib import Path

import numpy as np
import pytest

from medisyn.data import deidentify, records
from medisyn.data.deidentify import ALLOWED, LOCAL, PUBLIC
from medisyn.data.provenance import Provenance
from medisyn.data.records import Record

pydicom = pytest.importorskip("pydicom")


class Watched:
    """A dataset that remembers which of its values were read."""

    def __init__(self, dataset):
        self.dataset, self.read = dataset, set()

    def __contains__(self, tag):
        return tag in self.dataset

    def __getitem__(self, tag):
        self.read.add(tag)
        return self.dataset[tag]


def full() -> pydicom.Dataset:
    """A header with allowed fields, and with others that name the patient."""
    made = pydicom.Dataset()
    made.PatientID, made.PatientName, made.PatientBirthDate = "4711", "SMITH^JOHN", "19610203"
    made.PatientAge, made.PatientSex, made.Modality = "047Y", "M", "CT"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.SOPInstanceUID = "1.2.3", "1.2.3.4", "1.2.3.4.5"
    made.ImageType, made.BodyPartExamined = ["ORIGINAL", "PRIMARY", "AXIAL"], "CHEST"
    made.ImageOrientationPatient, made.RepetitionTime = [1, 0, 0, 0, 1, 0], "2000"
    made.ContrastBolusAgent, made.SeriesDescription = "given by Dr. Brown", "SMITH chest"
    made.ReferencedStudySequence = [pydicom.Dataset()]
    made.private_block(0x0011, "Acme", create=True).add_new(1, "LO", "SMITH")
    return made


def test_the_list_is_the_standards_and_says_why():
    assert 20 <= len(ALLOWED) <= 30 and len({field.tag for field in ALLOWED}) == len(ALLOWED)
    for field in ALLOWED:
        assert pydicom.datadict.tag_for_keyword(field.keyword) == field.tag and field.why
        assert pydicom.datadict.dictionary_VR(field.tag) not in ("PN", "DA", "TM", "DT", "SQ", "LT", "ST", "UT")
        assert not pydicom.tag.Tag(field.tag).is_private


def test_nothing_but_the_list_is_touched():
    header = Watched(full())
    found = deidentify.facts_header(header)
    assert set(found) <= {field.keyword for field in ALLOWED}
    assert header.read <= {field.tag for field in ALLOWED}
    assert "SMITH" not in repr(found) and "1961" not in repr(found) and "Brown" not in repr(found)
    assert found["ImageType"] == ("ORIGINAL", "PRIMARY", "AXIAL") and found["RepetitionTime"] == 2000.0
    assert found["ContrastBolusAgent"] is True                       # that it is there, not what it says
    assert 0x00180010 not in header.read


def test_the_reader_of_headers_names_no_other_element():
    source = Path(deidentify.__file__).with_name("headers.py")
    if not source.is_file():
        pytest.skip("headers.py is absent")
    named = {word for word in re.findall(r'"([A-Z][A-Za-z]+)"', source.read_text()) if pydicom.datadict.tag_for_keyword(word)}
    assert named and named <= {field.keyword for field in ALLOWED} | set(deidentify.CODED)


def test_a_broken_or_empty_field_is_unknown():
    header = pydicom.Dataset()
    header.PatientSex, header.Modality, header.PatientID = "", None, " "
    header[0x00180080] = pydicom.dataelem.RawDataElement(pydicom.tag.Tag(0x00180080), "DS", 5, b"SMITH", 0, False, True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert deidentify.facts_header(header) == {}                 # "SMITH" is no number of milliseconds


def test_the_patients_number_groups_and_the_study_stands_in_for_it():
    header = {"PatientID": "7", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}
    assert deidentify.person(header) == "patient/7"
    assert deidentify.person({"StudyInstanceUID": "1.2"}) == "study/1.2"
    assert deidentify.person({}) is None


def test_keys_are_hashes_that_another_key_changes():
    header = {"PatientID": "7", "StudyInstanceUID": "7", "SeriesInstanceUID": "1.2.3"}
    ours, theirs = (deidentify.keys(header, "ward", key) for key in (b"a" * 32, b"b" * 32))
    assert set(ours) == {"patient", "study", "series"} and len(set(ours.values())) == 3
    assert not set(ours.values()) & set(theirs.values())
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in ours.values())


@pytest.mark.parametrize(("years", "kept"), [(0, 0), (0.9, 0), (1, 3), (4.9, 3), (5, 7), (47, 47), (45, 47), (49.9, 47), (50, 52),
                                             (89, 87), (90, 90), (103, 90), (None, None), (-1, None), (float("nan"), None)])
def test_an_age_falls_into_its_band(years, kept):
    assert deidentify.age(years) == kept


def test_an_age_over_89_is_capped_and_a_banded_age_stays():
    ages = [deidentify.age(years) for years in np.arange(0, 120, 0.25)]
    assert max(ages) == 90 and ages == sorted(ages)
    assert [deidentify.age(years) for years in ages] == ages
    assert len(set(ages)) == 20


@pytest.mark.parametrize(("stated", "years"), [("045Y", 45), ("018M", 1.5), ("052W", 0.9966), ("010D", 0.02738), ("45Y", 45)])
def test_a_dicom_age_is_read(stated, years):
    assert deidentify.age_years(stated) == pytest.approx(years, abs=1e-3)


@pytest.mark.parametrize("stated", ["", None, "Y", "45", "-45Y", "999Y", "SMITH", "4 5Y", "19610203", "²Y"])
def test_what_is_no_dicom_age_is_unknown(stated):
    assert deidentify.age_years(stated) is None


def test_a_local_policy_drops_free_text_and_a_public_one_keeps_what_is_public():
    raw = Record("a", "a.png", "chest_xray", age_years=93, text="Mr Smith, 93, cough since Friday", patient="7")
    kept = deidentify.deidentified(raw, LOCAL)
    assert (kept.age_years, kept.text, kept.patient) == (90, None, "7")
    assert deidentify.deidentified(raw, PUBLIC) == raw
    assert deidentify.policy_of(records.PUBLIC_KEY) == PUBLIC and deidentify.policy_of(b"x" * 32) == LOCAL


def test_a_synthetic_image_is_nobodys():
    made = Record("a", "a.png", "chest_xray", age_years=93, text="a chest X-ray", provenance=Provenance(
        **dict.fromkeys(inspect.signature(Provenance).parameters)))
    assert deidentify.deidentified(made, LOCAL) is made


# Doubt

CT = {"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "ImageType": ("ORIGINAL", "PRIMARY")}


@pytest.mark.parametrize("header", [
    CT | {"BurnedInAnnotation": "YES"}, CT | {"BurnedInAnnotation": "yes "}, CT | {"RecognizableVisualFeatures": "YES"},
    CT | {"RecognizableVisualFeatures": "YES", "BurnedInAnnotation": "NO"}, {"Modality": "US"}, {"Modality": "XA"},
    {"Modality": "ES"}, {"Modality": "OT"}, {"Modality": "SC"}, {"Modality": "RF"},
    {"Modality": "US", "BurnedInAnnotation": "MAYBE"},
    CT | {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, CT | {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"},
    CT | {"ConversionType": "WSD"}, CT | {"ImageType": ("DERIVED", "SECONDARY", "SCREEN SAVE")}])
def test_a_header_that_says_so_or_a_class_at_risk_is_doubted(header):
    assert deidentify.doubt(header)


@pytest.mark.parametrize("header", [{}, CT, CT | {"BurnedInAnnotation": "NO"}, {"Modality": "US", "BurnedInAnnotation": "NO"},
                                    {"Modality": "DX"}, {"Modality": "MG"}])
def test_others_are_not(header):
    assert deidentify.doubt(header) is None


def test_a_reason_never_quotes_the_header():
    for keyword in ("BurnedInAnnotation", "Modality", "ConversionType", "SOPClassUID"):
        header = CT | {keyword: "SMITH^JOHN"}
        assert "SMITH" not in str(deidentify.doubt(header))


def test_image_types_at_risk_are_words_of_the_vocabulary():
    from medisyn.data.vocabulary import IMAGE_TYPES
    assert set(deidentify.AT_RISK_TYPES) <= set(IMAGE_TYPES)
    assert deidentify.doubt_of_type("ultrasound") and deidentify.doubt_of_type("chest_xray") is None


# The key

def test_a_key_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "config" / "key"
    made = deidentify.key(path)
    assert len(made) == 2 * deidentify.KEY_BYTES and deidentify.key(path) == made
    assert deidentify.key(tmp_path / "other") != made
    assert [one.name for one in path.parent.iterdir()] == ["key"]  # no draft is left
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_of_two_who_make_a_key_both_find_the_first_ones(tmp_path):
    path = tmp_path / "key"
    deidentify.make_key(path)
    before = path.read_bytes()
    deidentify.make_key(path)
    assert path.read_bytes() == before


def test_a_key_inside_the_collection_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for place in ("out/key", "out/.ingest/key", "link/key"):
        with pytest.raises(ValueError, match="outside the collection"):
            deidentify.key(tmp_path / place, collection=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert deidentify.key(tmp_path / "output_key", collection=tmp_path / "out")


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_key_that_others_can_read_is_refused(tmp_path):
    deidentify.key(tmp_path / "key")
    os.chmod(tmp_path / "key", 0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        deidentify.key(tmp_path / "key")


def test_a_key_that_was_cut_short_is_refused(tmp_path):
    with open(tmp_path / "key", "x", opener=deidentify.owner_only) as out:
        out.write("short")
    with pytest.raises(ValueError, match="expected a key of 16 bytes or more, found 5"):
        deidentify.key(tmp_path / "key")


def test_the_private_folder_is_its_owners_and_one_a_collection(tmp_path):
    home = deidentify.home(str(tmp_path))
    one, other = deidentify.private(home, tmp_path / "a"), deidentify.private(home, tmp_path / "b")
    assert one != other and one == deidentify.private(home, tmp_path / "x/../a") and home == tmp_path / "medisyn"
    assert deidentify.home() == Path.home() / ".config" / "medisyn"
    if os.name == "posix":
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
