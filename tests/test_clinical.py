"""Clinical files: folders of DICOM, NIfTI and videos become records; a mapping fills what headers leave unknown."""

from pathlib import Path

import numpy as np
import pytest

from medisyn.data import vocabulary
from medisyn.data.records import Record
from medisyn.data.sources import SOURCES, called, clinical
from medisyn.data.sources.source import Unfit

pydicom = pytest.importorskip("pydicom")

from dicoms import dataset, smooth, written  # noqa: E402

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"


def laid(folder: Path, **files) -> Path:
    for name, made in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(made, str):
            path.write_text(made)
        else:
            written(made, path)
    return folder


def read(name, folder, mapping=None):
    found = list(SOURCES[name].read(folder, mapping=mapping))
    for one in found:
        record = one if isinstance(one, Record) else one.record
        assert record is None or vocabulary.check(record) == []
    return {one.file_name: one for one in found}


def ct(**tags):
    return dataset(smooth(), Modality="CT", BodyPartExamined="CHEST", **tags)


def test_a_folder_of_dicom_is_read_whatever_its_files_are_called(tmp_path):
    folder = laid(tmp_path, IM0001=ct(), deep__er__x=ct(PatientID="MRN-2"), **{"notes.txt": "no DICOM", ".hidden": "x"})
    found = read("dicom", folder)
    assert set(found) == {"IM0001", "deep/er/x", "notes.txt"}
    assert (found["IM0001"].image_type, found["IM0001"].patient) == ("ct", "patient/MRN-1")
    assert found["notes.txt"] == Unfit("notes.txt", "it is not a DICOM file")


def test_what_headers_leave_unknown_a_mapping_fills(tmp_path):
    folder = laid(tmp_path, a=dataset(smooth(), Modality="OT", BurnedInAnnotation="NO", PatientSex="F"),
                  b=ct(PatientID=None), **{"medisyn.toml": 'name = "st_marys"\nimage_type = "mri"\nanatomy = "brain"\nsex = "M"\n'
                                                          'patient = {name = "([ab])"}\n[findings]\nnormal = true\n'})
    found = read("dicom", folder)
    assert (found["a"].image_type, found["a"].anatomy, found["a"].sex) == ("mri", "brain", "female")
    assert found["a"].findings == {"normal": True} and found["a"].patient == "patient/MRN-1"
    assert (found["b"].image_type, found["b"].anatomy) == ("ct", "chest"), "the header comes first"
    assert called("dicom", folder).name == "st_marys"


def test_a_mapping_does_not_make_a_radiograph_a_ct(tmp_path):
    mapping = tmp_path / "my.toml"
    folder = laid(tmp_path / "in", a=dataset(smooth(), Modality="CR"), b=dataset(smooth(), Modality="PT"), c=ct())
    mapping.write_text('image_type = "ct"\n')
    found = read("dicom", folder, mapping)
    assert "not one of ct" in found["a"].reason and "not one of ct" in found["b"].reason and found["c"].image_type == "ct"
    mapping.write_text('image_type = "chest_xray"\n')
    found = read("dicom", folder, mapping)
    assert (found["a"].image_type, found["a"].anatomy, found["c"].image_type) == ("chest_xray", "chest", "ct")


def test_an_unknown_image_type_says_what_to_do(tmp_path):
    found = read("dicom", laid(tmp_path, a=dataset(smooth(), Modality="NM")))
    assert found["a"].reason == clinical.UNKNOWN_TYPE and found["a"].record is None


def test_an_image_in_doubt_waits_with_its_record(tmp_path):
    folder = laid(tmp_path, a=dataset(smooth(), Modality="US"), b=ct(BurnedInAnnotation="YES"))
    found = read("dicom", folder)
    assert all(isinstance(one, Unfit) for one in found.values())
    assert found["a"].record.image_type == "ultrasound" and "burned" in found["b"].reason


def test_of_a_loop_a_few_frames_are_taken_and_of_a_volume_all(tmp_path):
    frames = np.zeros((100, 8, 8), np.uint8)
    folder = laid(tmp_path, a=dataset(frames, 100, Modality="US", BurnedInAnnotation="NO"), b=dataset(frames, 100, Modality="MR"))
    found = list(read("dicom", folder).values())
    loop = [int(one.file_name.split("#")[1]) for one in found if one.image_type == "ultrasound"]
    assert len(loop) == clinical.SHARE.frames and np.ptp(np.diff(loop)) <= 1 and 0 < loop[0] and loop[-1] < 99
    assert sum(one.image_type == "mri" for one in found) == 100


def test_a_dicomdir_tells_what_is_missing(tmp_path):
    source = BUNDLED / "dicomdirtests" / "DICOMDIR"
    (tmp_path / "DICOMDIR").write_bytes(source.read_bytes())
    found = read("dicom", tmp_path)
    assert len(found) == 31 and all("no such file lies in the folder" in one.reason for one in found.values())
    assert read("dicom", tmp_path / "DICOMDIR").keys() == found.keys()
    whole = read("dicom", source.parent)
    assert len([one for one in whole.values() if isinstance(one, Record)]) >= 20
    assert not [one for one in whole.values() if isinstance(one, Unfit) and "no such file" in one.reason]


def test_a_linked_file_is_read_and_a_linked_folder_is_not(tmp_path):
    outside = laid(tmp_path / "outside", a=ct())
    folder = laid(tmp_path / "in", b=ct())
    (folder / "link").symlink_to(outside / "a")
    (folder / "round").symlink_to(folder)
    assert set(read("dicom", folder)) == {"b", "link"}


def test_a_rule_by_column_needs_a_table(tmp_path):
    folder = laid(tmp_path, a=ct(), **{"medisyn.toml": 'image_type = {column = "type"}\n'})
    with pytest.raises(ValueError, match="image_type needs a table"):
        read("dicom", folder)


@pytest.mark.parametrize("name", ["dicom", "nifti", "video"])
def test_an_empty_folder_says_what_was_expected(tmp_path, name):
    with pytest.raises(ValueError, match="expected .*found nothing"):
        read(name, tmp_path)


# NIfTI

def volume(path: Path, values=None):
    nib = pytest.importorskip("nibabel")
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (20, 24, 40)), indexing="ij")
    data = (((x ** 2 + y ** 2 + z ** 2) < 0.9) * (300 + 100 * z + 50 * x)).astype(np.int16)
    nib.save(nib.Nifti1Image(data if values is None else values, np.diag([1, 1, 2, 1])), path)


@pytest.mark.parametrize("name, technique", [("sub-01_T1w", "t1"), ("x_FLAIR", "flair"), ("BraTS_001_t1ce", "t1_post_contrast"),
                                             ("BraTS-GLI-00002-000-t2f", "flair")])
def test_sequences_that_names_tell_by_convention_are_mri(tmp_path, name, technique):
    volume(tmp_path / f"{name}.nii.gz")
    found = list(read("nifti", tmp_path).values())
    assert len(found) == clinical.SHARE.slices
    assert {(one.image_type, one.technique, one.view) for one in found} == {("mri", technique, "axial")}
    assert len({one.patient for one in found}) == 1


def test_a_volume_of_an_unknown_kind_needs_a_mapping(tmp_path):
    volume(tmp_path / "scan.nii.gz")
    assert {one.reason for one in read("nifti", tmp_path).values()} == {clinical.UNKNOWN_TYPE}
    (tmp_path / "medisyn.toml").write_text('image_type = "ct"\nanatomy = "abdomen"\n')
    assert {(one.image_type, one.anatomy) for one in read("nifti", tmp_path).values()} == {("ct", "abdomen")}


def test_what_a_mapping_says_comes_before_what_a_name_suggests(tmp_path):
    volume(tmp_path / "t2.nii.gz")
    (tmp_path / "medisyn.toml").write_text('image_type = "ct"\npatient = "P"\n')
    assert {(one.image_type, one.technique, one.patient) for one in read("nifti", tmp_path).values()} == {("ct", None, "P")}


def test_masks_beside_volumes_are_left_out(tmp_path):
    volume(tmp_path / "case1" / "case1_t1.nii.gz")
    volume(tmp_path / "case1" / "case1_seg.nii.gz")
    mask = np.zeros((20, 24, 40), np.uint8)
    mask[5:10, 5:10, 5:30] = 2
    volume(tmp_path / "case1" / "case1_other.nii.gz", mask)
    found = read("nifti", tmp_path)
    assert "mask" in found["case1/case1_seg.nii.gz"].reason and "labels" in found["case1/case1_other.nii.gz"].reason
    assert {one.patient for one in found.values() if isinstance(one, Record)} == {"case1"}


def test_subjects_are_told_by_bids_else_by_folders():
    from pathlib import PurePosixPath as P

    assert clinical.person(P("sub-07/ses-1/anat/sub-07_ses-1_T1w.nii.gz")) == "sub-07"
    assert clinical.person(P("case3/t1.nii.gz")) == "case3" and clinical.person(P("case3_t1.nii.gz")) == "case3_t1"


# Video

def test_a_video_is_one_patients_and_needs_an_image_type(tmp_path):
    pytest.importorskip("av")
    from test_video import film

    film(tmp_path / "op.mp4", 60)
    assert {one.reason for one in read("video", tmp_path).values()} == {clinical.UNKNOWN_TYPE}
    (tmp_path / "medisyn.toml").write_text('image_type = "laparoscopy"\n')
    found = read("video", tmp_path)
    assert set(found) == {"op.mp4#0", "op.mp4#50"}
    assert {(one.image_type, one.specialty, one.patient) for one in found.values()} == {("laparoscopy", "surgery", "op.mp4")}
