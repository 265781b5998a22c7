"""Headers: facts are words of the vocabulary, by fixed tables; what they do not tell stays unknown, and nothing else is read."""

import warnings

import numpy as np
import pytest

from medisyn.data import headers, vocabulary
from medisyn.data.records import Record

pydicom = pytest.importorskip("pydicom")

from dicoms import dataset, item  # noqa: E402

AXIAL, CORONAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]


def told(**tags):
    return headers.facts(dataset(np.zeros((4, 4), np.uint8), **tags))


def code(value, scheme="SCT"):
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning="SMITH^JOHN")


def test_a_ct_says_who_what_and_where():
    found = told(Modality="CT", BodyPartExamined="ABDOMEN", PatientAge="061Y", PatientSex="F", ImageOrientationPatient=AXIAL)
    assert found == {"image_type": "ct", "specialty": "radiology", "anatomy": "abdomen", "view": "axial", "age_years": 61.0,
                     "sex": "female", "patient": "patient/MRN-1", "doubt": None}


@pytest.mark.parametrize("tags, kind", [
    ({"Modality": "CT"}, "ct"), ({"Modality": "MR"}, "mri"), ({"Modality": "US"}, "ultrasound"),
    ({"Modality": "MG"}, "mammography"),
    ({"Modality": "DX", "BodyPartExamined": "CHEST"}, "chest_xray"), ({"Modality": "CR", "BodyPartExamined": "KNEE"}, "bone_xray"),
    ({"Modality": "CR", "BodyPartExamined": "LSPINE"}, "bone_xray"), ({"Modality": "CR", "BodyPartExamined": "ABDOMEN"}, None),
    ({"Modality": "DX"}, None), ({"Modality": "OT"}, None), ({"Modality": "NM"}, None), ({"Modality": "PT"}, None),
    ({"Modality": "SM"}, None), ({"Modality": "OPT"}, "oct"), ({"Modality": "DMS"}, "dermoscopy"), ({"Modality": "OP"}, None),
    ({"Modality": "OP", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.5.5"}, "fundus_photograph"),
    ({"Modality": "ES", "BodyPartExamined": "COLON"}, "gi_endoscopy"), ({"Modality": "ES"}, None),
    ({"Modality": "ES", "BodyPartExamined": "LARYNX"}, "laryngoscopy"),
    ({"Modality": "XC", "BodyPartExamined": "SKIN"}, "skin_photograph"), ({"Modality": "XC"}, None)])
def test_the_image_type_is_told_only_where_it_is_certain(tags, kind):
    assert told(**tags).get("image_type") == kind


@pytest.mark.parametrize("tags, anatomy", [
    ({"BodyPartExamined": "chest"}, "chest"), ({"BodyPartExamined": "LOWER LEG"}, "leg"), ({"BodyPartExamined": "SMITH"}, None),
    ({"AnatomicRegionSequence": [code("12738006")]}, "brain"), ({"AnatomicRegionSequence": [code("T-A0100", "SRT")]}, "brain"),
    ({"AnatomicRegionSequence": [code("T-D4000", "SNM3")]}, "abdomen"),
    ({"AnatomicRegionSequence": [code("12738006", "99LOCAL")]}, None), ({"AnatomicRegionSequence": [code("999")]}, None)])
def test_anatomy_comes_from_defined_terms_or_codes(tags, anatomy):
    assert told(Modality="MR", **tags).get("anatomy") == anatomy


def test_a_word_that_does_not_apply_to_the_image_type_is_left_out():
    assert "anatomy" not in told(Modality="CT", BodyPartExamined="KNEE")  # the vocabulary knows no CT of the knee
    assert "laterality" not in told(Modality="DX", BodyPartExamined="CHEST", Laterality="R")
    assert told(Modality="MG", BodyPartExamined="HAND")["anatomy"] == "breast"


@pytest.mark.parametrize("tags, view", [
    ({"ViewPosition": "PA"}, "posteroanterior"), ({"ViewPosition": "AP"}, "anteroposterior"), ({"ViewPosition": "LL"}, "lateral"),
    ({"ViewPosition": "RLO"}, None), ({"ViewCodeSequence": [code("R-10206", "SNM3")]}, "anteroposterior"),
    ({"ViewCodeSequence": [code("399173006")]}, "lateral"), ({}, None)])
def test_the_projection_of_a_radiograph(tags, view):
    assert told(Modality="DX", BodyPartExamined="CHEST", **tags).get("view") == view


def test_mammograms_tell_view_and_side():
    found = told(Modality="MG", ViewCodeSequence=[code("R-10226", "SRT")], ImageLaterality="R")
    assert (found["view"], found["laterality"], found["anatomy"]) == ("mediolateral_oblique", "right", "breast")
    assert told(Modality="MG", ViewPosition="CC", Laterality="L")["laterality"] == "left"
    assert "laterality" not in told(Modality="MG", ImageLaterality="B")


@pytest.mark.parametrize("orientation, plane", [
    (AXIAL, "axial"), (CORONAL, "coronal"), (SAGITTAL, "sagittal"), ([-1, 0, 0, 0, -1, 0], "axial"),
    ([0.9948, 0, 0, 0, 0.97, 0.22], "axial"), ([0.57, 0.82, 0, 0, 0, -1], None), ([1, 0, 0], None), ([0] * 6, None),
    (["nan"] * 6, None), ([9, 0, 0, 0, 9, 0], None), (None, None)])
def test_a_plane_has_a_name_where_it_is_upright(orientation, plane):
    assert headers.plane(orientation or ()) == plane


def test_frames_of_an_enhanced_object_tell_their_own_plane_and_side():
    groups = [item(PlaneOrientationSequence=[item(ImageOrientationPatient=plane)],
                   FrameAnatomySequence=[item(FrameLaterality="L", AnatomicRegionSequence=[code("72696002")])])
              for plane in (AXIAL, SAGITTAL)]
    made = dataset(np.zeros((2, 4, 4), np.uint8), 2, Modality="MR", PerFrameFunctionalGroupsSequence=groups)
    assert [headers.facts(made, frame).get("view") for frame in (0, 1, 2)] == ["axial", "sagittal", None]
    assert headers.facts(made, 0)["anatomy"] == "knee" and headers.facts(made, 0)["laterality"] == "left"


def mr(sequence, repetition, echo, inversion=None, **tags):
    times = {"RepetitionTime": str(repetition), "EchoTime": str(echo)} | ({"InversionTime": str(inversion)} if inversion else {})
    return told(Modality="MR", ScanningSequence=sequence, **times, **tags).get("technique")


@pytest.mark.parametrize("said, technique", [
    (("SE", 500, 12), "t1"), (("SE", 4000, 100), "t2"), (("SE", 2500, 20), None), (("SE", 1200, 50), None),
    ((["SE", "IR"], 9000, 120, 2500), "flair"), ((["SE", "IR"], 4000, 40, 150), None), ((["GR", "IR"], 2000, 3, 900), "t1"),
    (("GR", 200, 4), None), (("EP", 6000, 90), None), ((["SE", "EP"], 4000, 100), None), (("SE", 500, 0), None)])
def test_an_mr_sequence_is_told_by_its_physics_or_not_at_all(said, technique):
    assert mr(*said) == technique


def test_contrast_turns_t1_into_t1_post_contrast():
    assert mr("SE", 500, 12, ContrastBolusAgent="GADOLINIUM") == "t1_post_contrast"
    assert mr("SE", 4000, 100, ContrastBolusAgent="GADOLINIUM") == "t2"
    assert mr("SE", 500, 12, ContrastBolusAgent="") == "t1"
    assert told(Modality="CT", ContrastBolusAgent="IODINE")["technique"] == "contrast_enhanced"
    assert "technique" not in told(Modality="CT") and "technique" not in told(Modality="CT", ContrastBolusAgent="")


@pytest.mark.parametrize("contrast, technique", [("T1", "t1"), ("T2", "t2"), ("FLUID_ATTENUATED", "flair"), ("DIFFUSION", None)])
def test_enhanced_mr_says_its_contrast(contrast, technique):
    assert told(Modality="MR", AcquisitionContrast=contrast).get("technique") == technique
    shared = [item(MRImageFrameTypeSequence=[item(AcquisitionContrast=contrast)])]
    assert told(Modality="MR", SharedFunctionalGroupsSequence=shared).get("technique") == technique


def slide(*stains):
    steps = [item(SpecimenPreparationStepContentItemSequence=[item(ConceptCodeSequence=[code(*stain)])]) for stain in stains]
    return told(Modality="SM", SpecimenDescriptionSequence=[item(SpecimenPreparationSequence=steps)])


def test_a_stain_tells_what_kind_of_slide_it_is():
    found = slide(("12710003", "SCT"), ("36879007", "SCT"))
    assert (found["image_type"], found["technique"]) == ("histopathology", "haematoxylin_eosin")
    assert slide(("C-2281A", "SRT"))["image_type"] == "blood_smear"
    assert "image_type" not in slide(("12710003", "SCT")) and "image_type" not in slide()


@pytest.mark.parametrize("stated, years", [("045Y", 45.0), ("018M", 1.5), ("000Y", None), ("", None), ("45", None), ("XXXY", None)])
def test_an_age_is_a_number_or_unknown(stated, years):
    assert told(PatientAge=stated).get("age_years") == years


def test_an_unknown_sex_is_left_out():
    assert told(PatientSex="M")["sex"] == "male" and "sex" not in told(PatientSex="O") and "sex" not in told()


@pytest.mark.parametrize("tags, reason", [
    ({"SyntheticData": "YES"}, "synthetic"), ({"ConversionType": "SYN"}, "synthetic"),
    ({"PresentationIntentType": "FOR PROCESSING"}, "FOR PRESENTATION"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "scout"),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "segmentation"), ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2"}, "dose"),
    ({"Modality": "SM", "ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}, "label of a slide"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}, None), ({}, None)])
def test_some_objects_with_pixels_are_no_pictures_to_learn_from(tags, reason):
    found = headers.refusal(dataset(np.zeros((4, 4), np.uint8), **tags))
    assert found is None if reason is None else reason in found


def test_every_word_of_the_tables_is_in_the_vocabulary():
    words = {*headers.BODY_PARTS.values(), *headers.VIEW_POSITIONS.values(), *headers.VIEW_CODES.values(), *headers.PLANES,
             *headers.ANATOMY_CODES.values(), *headers.MODALITIES.values(), *headers.STAINS.values(), *headers.STAINED.values(),
             *headers.CONTRASTS.values(), *(kind for sites in headers.SITES.values() for kind in sites.values()),
             *(kind for kinds in headers.MAY_BE.values() for kind in kinds)}
    assert words <= set(vocabulary.TERMS)
    for modality, sites in headers.SITES.items():
        for anatomy, kind in sites.items():
            assert vocabulary.TERMS[anatomy].applies_to(kind), (modality, anatomy)
            assert kind in headers.MAY_BE.get(modality, {kind})


def test_facts_always_fit_the_vocabulary():
    for modality in ("CT", "MR", "US", "MG", "CR", "OP", "OPT", "ES", "XC", "DMS"):
        for part in headers.BODY_PARTS:
            found = told(Modality=modality, BodyPartExamined=part, Laterality="L", ViewPosition="AP", ImageOrientationPatient=AXIAL)
            found.pop("doubt")
            if "image_type" in found:
                assert vocabulary.check(Record(id="x", file_name="x", **found)) == []


def test_free_text_and_names_leave_no_trace():
    secret = "SECRET"
    found = told(Modality="MR", PatientName=secret, SeriesDescription="T2 SECRET", StudyDescription=secret, ProtocolName="SECRET",
                 BodyPartExamined="SECRET", PatientComments=secret, InstitutionName=secret, ContrastBolusAgent=secret,
                 AnatomicRegionSequence=[item(CodeValue=secret, CodingSchemeDesignator="SCT", CodeMeaning=secret)])
    assert secret not in repr(found)


def test_broken_values_are_unknown():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = dataset(np.zeros((4, 4), np.uint8), Modality="MR")
        made.add_new(0x00180081, "LO", "seven")
        made.add_new(0x00082218, "LO", "no sequence")
        made.add_new(0x52009229, "LO", "no sequence")
        assert headers.facts(made)["image_type"] == "mri"
