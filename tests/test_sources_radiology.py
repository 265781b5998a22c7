"""Radiological sources: what a table says is present, what it denies absent, and the rest unknown."""

import pytest
from layouts import absent, found, lay, present
from layouts_radiology import LAYOUTS

from medisyn.data.sources import SOURCES, Unfit


@pytest.fixture
def read(tmp_path):
    return lambda name: found(name, tmp_path, LAYOUTS[name])


def test_no_finding_of_fourteen_is_not_yet_normal(read):
    records = read("nih_chestxray14")
    first, second, third = (records[f"0000000{n}_000"] for n in (1, 2, 3))
    assert present(first) == {"cardiomegaly", "emphysema"} and len(absent(first)) == 13  # the other twelve, and normal
    assert first.age_years == 58 and (first.view, first.sex) == ("posteroanterior", "male")
    assert len(absent(second)) == 14 and "normal" not in second.findings and second.age_years is None
    assert third.findings == {} and third.patient == "00000003"  # no row


def test_an_uncertain_or_unmentioned_finding_is_unknown(read):
    records = read("chexpert")
    lateral, frontal = records["view2_lateral"], records["view1_frontal"]
    assert lateral.view == "lateral" and lateral.findings == {}
    assert frontal.findings == {"lung_opacity": True, "normal": False, "pneumothorax": False}  # -1: neither heart nor pneumonia
    assert frontal.age_years is None and frontal.patient == "patient00002"


def test_a_report_without_findings_is_normal(read):
    records = read("mimic_cxr_jpg")
    assert records["02aa804e-bde0"].findings == {"normal": True} and records["02aa804e-bde0"].view == "posteroanterior"
    second = records["096052b7-d256"]
    assert second.findings == {"atelectasis": True, "support_devices": True, "normal": False} and second.view == "lateral"
    assert second.patient == "10000764"


def test_what_a_report_does_not_name_is_unknown(read):
    records = read("padchest")
    assert records["1_a"].findings == {"pulmonary_fibrosis": True, "normal": False}
    assert (records["1_a"].view, records["1_a"].age_years) == ("lateral", 84)
    assert records["2_b"].findings == {"normal": True}
    assert isinstance(records["3_c"], Unfit)  # a view of the ribs
    assert records["4_d"].findings == {"pacemaker": True} and records["4_d"].view == "anteroposterior_supine"


def test_radiologists_who_disagree_leave_it_to_the_majority_or_unknown(read):
    records = read("vindr_cxr")
    two_of_three, none, unread = (records[f"{name}.dicom"] for name in ("aaa", "bbb", "ccc"))
    assert present(two_of_three) == {"aortic_enlargement"} and "fracture" not in two_of_three.findings  # one of three
    assert absent(two_of_three) == {"pneumonia", "normal"}
    assert present(none) == {"normal"} and unread.findings == {}


def test_an_opacity_is_not_yet_pneumonia(read):
    records = read("rsna_pneumonia")
    assert records["00436515.dcm"].findings == {"normal": False, "lung_opacity": True}
    assert records["0004cfab.dcm"].findings == {"normal": False, "lung_opacity": False}
    assert records["00313ee0.dcm"].patient == "00313ee0"


def test_a_header_tells_what_the_table_leaves_out(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    folder = lay(tmp_path, LAYOUTS["rsna_pneumonia"])
    header = pydicom.Dataset()
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    header.Modality, header.BodyPartExamined, header.ViewPosition = "CR", "CHEST", "PA"
    header.PatientID, header.PatientSex, header.PatientAge = "00436515", "F", "051Y"
    header.Rows = header.Columns = 4
    header.SamplesPerPixel, header.PhotometricInterpretation, header.PixelRepresentation = 1, "MONOCHROME2", 0
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PixelData = 7, bytes(16)
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.save_as(folder / "stage_2_train_images/00436515.dcm", enforce_file_format=True)
    (record,) = (one for one in SOURCES["rsna_pneumonia"].read(folder) if "00436515" in one.file_name)
    assert (record.view, record.sex, record.age_years, record.patient) == ("posteroanterior", "female", 51, "00436515")
    assert record.findings["lung_opacity"] is True


def test_a_pneumothorax_is_drawn_or_denied(read):
    records = read("siim_acr_pneumothorax")
    assert records["1.2.1.dcm"].findings == {"pneumothorax": False}  # another disease may be there
    assert present(records["1.2.2.dcm"]) == {"pneumothorax"} and records["1.2.3.dcm"].findings == {}


def test_age_and_sex_come_from_the_reading_beside_a_film(read):
    normal, ill = (read("shenzhen_tb")[name] for name in ("CHNCXR_0001_0", "CHNCXR_0327_1"))
    assert (normal.age_years, normal.sex, ill.sex) == (45, "male", "female") and ill.age_years == pytest.approx(0.67)
    assert present(normal) == {"normal"} and present(ill) == {"tuberculosis"}
    records = read("montgomery_tb")
    assert (records["MCUCXR_0001_0"].age_years, records["MCUCXR_0001_0"].sex) == (27, "female")
    assert len(records) == 2 and records["MCUCXR_0104_1"].age_years is None  # the masks are left out


def test_covid_19_may_leave_a_film_clear(read):
    records = read("covid_radiography")
    assert records["COVID-1"].findings == {"covid_19": True} and len(records) == 4
    assert present(records["Viral Pneumonia-1"]) == {"viral_pneumonia", "pneumonia"}


def test_an_image_of_an_abnormal_study_may_be_normal(read):
    records = read("mura")
    assert records["image1"].findings == {"normal": True} and records["image1"].anatomy == "elbow"
    assert records["image2"].findings == {} and records["image2"].anatomy == "hand"


def test_an_uncertain_fracture_is_unknown(read):
    records = read("grazpedwri_dx")
    first, second, third = (records[name] for name in sorted(records))
    assert present(first) == {"fracture"} and (first.view, first.laterality, first.age_years) == ("anteroposterior", "left", 14.1)
    assert present(second) == {"plaster_cast"} and "fracture" not in second.findings
    assert absent(third) == {"fracture", "osteopenia", "plaster_cast", "metal_implant"} and third.view == "oblique"


def test_a_picture_of_two_views_has_none(read):
    records = read("fracatlas")
    assert (records["IMG0000000"].anatomy, records["IMG0000000"].view) == ("leg", None)
    assert (records["IMG0000019"].anatomy, records["IMG0000019"].view) == ("hand", "oblique")
    assert present(records["IMG0000019"]) == {"fracture", "metal_implant"}


def test_the_age_of_bones_is_no_age(read):
    records = read("rsna_bone_age")
    assert [record.age_years for record in records.values()] == [None, None]
    assert [record.sex for record in records.values()] == ["female", "male"]


def test_kinds_of_haemorrhage_are_present_or_absent(read):
    records = read("rsna_ich")
    assert present(records["ID_12cadc6af.dcm"]) == {"subdural_haemorrhage", "intracranial_haemorrhage"}
    assert len(absent(records["ID_000012eaf.dcm"])) == 6 and "normal" not in records["ID_000012eaf.dcm"].findings
    assert records["ID_00000test.dcm"].findings == {}


def test_what_a_volume_has_a_slice_may_not_show(read):
    records = read("ct_rate")
    assert records and all(record.findings == {"emphysema": False, "hernia": False} for record in records.values())
    one = next(iter(records.values()))
    assert (one.age_years, one.sex, one.patient) == (60, "female", "train_1") and "train_1_a_1.nii.gz#" in one.file_name


def test_only_the_ct_of_a_download_is_read(read):
    records = read("lidc_idri")
    assert [record.patient for record in records.values()] == ["LIDC-IDRI-0001"] and "3000566" in records["1-001.dcm"].file_name


def test_a_key_slice_has_a_lesion_and_a_neighbour_is_left_out(read):
    records = read("deep_lesion")
    assert set(records) == {"109", "014", "001"} and isinstance(records["001"], Unfit)
    assert records["109"].anatomy == "chest" and records["014"].anatomy is None
    assert (records["109"].age_years, records["109"].sex, records["109"].patient) == (62, "female", "000001")
    assert records["014"].age_years is None


def test_covid_19_of_a_person_is_not_seen_in_every_slice(read):
    assert read("sars_cov_2_ct")["Covid (1)"].findings == {}
    assert present(read("covid_ct")["2020.01.24.919183-p27-132"]) == {"covid_19_lung_changes"}


def test_a_slice_shows_a_tumour_where_it_was_segmented(read):
    records = read("brats")
    flair = {int(name.rpartition(":")[2]): record for name, record in records.items() if "_flair." in name}
    assert len(flair) > 1 and all(record.view == "axial" and record.technique == "flair" for record in flair.values())
    for place, record in flair.items():
        assert record.findings["brain_tumour"] is (abs(place - 10) < 4) is record.findings["glioma"]
    assert any(record.findings["glioma"] for record in flair.values())
    bare = [record for name, record in records.items() if "t2w" in name]
    assert bare and all(record.findings == {"skull_stripped": True} for record in bare)  # no segmentation: unknown
    assert bare[0].patient == "BraTS-MEN-00004" and next(iter(flair.values())).patient == "BraTS2021_00000"


def test_volunteers_are_healthy_and_a_patients_slice_may_look_normal(read):
    assert {record.technique for record in read("ixi").values()} == {"t1", "proton_density"}
    assert all(record.findings == {"normal": True} for record in read("ixi").values())
    records = read("acdc")
    ill = [record for record in records.values() if record.patient == "patient001"]
    well = [record for record in records.values() if record.patient == "patient061"]
    assert ill and well and all("dilated_cardiomyopathy" not in record.findings for record in ill)
    assert all("normal" not in record.findings and not present(record) for record in ill)
    assert all(present(record) == {"normal"} for record in well)
    assert not any("_gt" in name for name in records)


def test_ultrasound_of_the_unborn_the_breast_and_the_heart(read):
    assert set(read("hc18")) == {"000_HC", "010_2HC"}  # the outlines are left out
    planes = read("fetal_planes")
    assert [record.anatomy for record in planes.values()] == [None, "fetal_head"]
    assert absent(read("bus_bra")["bus_0001-l"]) == {"malignant_breast_lesion", "normal"}
    hearts = read("camus")
    assert len(hearts) == 2 and {record.view for record in hearts.values()} == {"two_chamber", "four_chamber"}
    two = next(record for record in hearts.values() if record.view == "two_chamber")
    assert (two.age_years, two.sex, two.patient) == (56, "female", "patient0001")


def test_lesions_of_one_film_are_put_together_and_crops_left_out(read):
    records = read("cbis_ddsm")
    assert set(records) == {"1-1.dcm", "1-001"}
    film = records["1-1.dcm"]
    assert present(film) == {"dense_breast", "spiculated_mass", "circumscribed_mass", "architectural_distortion",
                             "malignant_breast_lesion", "benign_breast_lesion"}
    assert (film.view, film.laterality, film.patient) == ("craniocaudal", "left", "P_00001")
    assert present(records["1-001"]) == {"fatty_glandular_breast", "calcification", "benign_breast_lesion"}
    assert records["1-001"].file_name.startswith("jpeg/1.3.9/")


def test_bi_rads_1_alone_is_normal(read):
    records = read("vindr_mammo")
    assert present(records["i1.dicom"]) == {"dense_breast", "mammographic_mass", "skin_thickening"}
    assert records["i1.dicom"].findings["normal"] is False and "calcification" not in records["i1.dicom"].findings
    assert present(records["i2.dicom"]) == {"fatty_breast", "normal"} and records["i2.dicom"].laterality == "right"
    films = read("inbreast")
    second, first = sorted(films.values(), key=lambda record: record.laterality == "right")
    assert present(first) == {"dense_breast"} and first.findings["normal"] is False  # BI-RADS 2
    assert present(second) == {"fatty_breast", "normal"} and second.view == "mediolateral_oblique"
    assert first.patient == "6c613a14b80a8591"
