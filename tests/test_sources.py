"""Sources: every public dataset is read in the layout that its download has, and nothing is guessed."""

import json
import zipfile
from pathlib import Path

import layouts_colour
import layouts_first
import layouts_radiology
import pytest
from layouts import absent, lay, present
from layouts import found as read_layout

from medisyn.data import parts, trees, vocabulary
from medisyn.data.records import Record
from medisyn.data.sources import OWN, SOURCES, Unfit, called, files
from medisyn.data.sources.source import READ, STATED, UNCONFIRMED

LAYOUTS = layouts_first.LAYOUTS | layouts_radiology.LAYOUTS | layouts_colour.LAYOUTS


@pytest.fixture
def found(tmp_path):
    return lambda name: read_layout(name, tmp_path, LAYOUTS[name])


def test_every_public_source_has_a_layout_here():
    assert set(LAYOUTS) | {source.name for source in OWN} == set(SOURCES)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_source_reads_its_own_layout_in_the_words_of_the_vocabulary(name, tmp_path):
    source, folder = SOURCES[name], lay(tmp_path, LAYOUTS[name])
    first, second = list(source.read(folder)), list(source.read(folder))
    taken = [one for one in first if isinstance(one, Record)]
    assert first == second and taken
    assert [problem for record in taken for problem in vocabulary.check(record)] == []
    assert len({record.id for record in taken}) == len(taken)
    for record in taken:
        assert parts.locate(folder, record.file_name).path.is_file()
        assert record.image_type in source.image_types and record.specialty in source.specialties


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_archive_is_read_as_the_folder_that_it_unpacks_to(name, tmp_path):
    folder = lay(tmp_path / "raw", LAYOUTS[name])
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    with trees.tree(name, tmp_path / "raw.zip") as (source, seen):
        assert list(trees.found(source, seen)) == list(source.read(folder))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_wrong_folder_is_one_sentence_that_says_the_layout(name, tmp_path):
    (tmp_path / "holiday.txt").write_text("no images here")
    with pytest.raises(ValueError, match="expected .*found holiday.txt") as error:
        list(SOURCES[name].read(tmp_path))
    assert SOURCES[name].layout in str(error.value)
    with pytest.raises(ValueError, match="no folder there"):
        list(SOURCES[name].read(tmp_path / "nowhere"))


def test_every_source_says_its_licence_and_how_it_is_known():
    for source in SOURCES.values():
        assert source.licence_evidence in (READ, STATED, UNCONFIRMED)
        assert source.citation and source.layout and source.title and source.group
        assert source.address is None or source.address.startswith("https://")
        assert source.licence or not source.open
        assert source in OWN or (source.download.endswith(".") and (source.size is None or source.size[0].isdigit()))


def test_pneumonia_is_bacterial_or_viral_by_the_name(found):
    records = found("kermany_cxr")
    assert len(records) == 4  # one archive holds the set twice
    bacterial = records["person1946_bacteria_4874"]
    assert present(bacterial) == {"pneumonia", "bacterial_pneumonia"}
    assert absent(bacterial) == {"normal", "viral_pneumonia"}
    assert records["IM-0115-0001"].findings == {"normal": True, "pneumonia": False}
    assert records["IM-0115-0001"].patient != records["NORMAL2-IM-0115-0001"].patient  # train and test
    assert bacterial.age_years is None


def test_a_chest_radiograph_without_an_open_licence_is_unfit(found):
    records = found("covid_cxr_open")
    assert "CC BY-NC-SA" in records["four"].reason and "none stated" in records["five"].reason
    assert records["b343e657"].licence == "CC-BY-3.0" and records["two"].licence == "CC-BY-SA"
    assert records["b343e657"].findings == {"covid_19": True}  # whether it is seen, nobody said
    assert present(records["two"]) == {"pneumonia", "viral_pneumonia", "covid_19", "endotracheal_tube"}
    assert records["three"].findings == {"normal": True, "pneumonia": False, "endotracheal_tube": False}
    assert records["three"].age_years is None and records["three"].view == "lateral"
    assert all(record.text is None for record in records.values() if isinstance(record, Record))


def test_a_doubtful_knee_is_neither_arthritic_nor_not(found):
    records = found("knee_oa_xray")
    assert records["9003175L"].findings["osteoarthritis"] is False and records["9003175L"].laterality == "left"
    assert "osteoarthritis" not in records["9003175R"].findings and records["9003175R"].laterality == "right"
    assert present(records["9011053L"]) == {"kellgren_lawrence_3", "osteoarthritis"}
    assert records["9003175L"].patient == records["9003175R"].patient


def test_no_tumour_is_not_yet_normal(found):
    records = found("brain_tumor_mri")
    assert absent(records["Te-no_0102"]) == {"glioma", "meningioma", "pituitary_tumour", "brain_tumour"}
    assert not present(records["Te-no_0102"])
    assert present(records["Tr-pi_0010"]) == {"pituitary_tumour", "brain_tumour"}
    assert isinstance(records["Te-no_0040"], Unfit)  # a head CT among the MRI


def test_an_unstated_kind_of_multiple_sclerosis_is_unknown(found):
    records = found("open_ms_mri")
    assert present(records["a_z051"]) == {"multiple_sclerosis", "relapsing_remitting_ms", "skull_stripped"}
    assert records["a_z051"].technique == "t1_post_contrast" and records["a_z051"].age_years == 53
    assert "relapsing_remitting_ms" not in records["b_z051"].findings
    assert records["b_z051"].findings["skull_stripped"] is False


def test_ultrasound_masks_are_left_out(found):
    assert set(found("busi")) == {"benign (1)", "malignant (1)", "normal (1)"}


def test_several_lesions_of_one_film_are_merged(found):
    records = found("mini_mias")
    assert present(records["mdb002"]) == {"fatty_glandular_breast", "calcification", "spiculated_mass",
                                          "benign_breast_lesion", "malignant_breast_lesion"}
    assert records["mdb001"].patient == records["mdb002"].patient != records["mdb003"].patient
    assert (records["mdb001"].laterality, records["mdb002"].laterality) == ("left", "right")
    assert "spiculated_mass" not in records["mdb001"].findings  # not listed is not absent
    assert present(records["mdb003"]) == {"dense_breast", "normal"} and "calcification" in absent(records["mdb003"])
    assert present(records["mdb216"]) == {"dense_breast", "calcification", "malignant_breast_lesion"}
    assert records["mdb004"].findings == {}  # no row, so nothing is known


def test_a_tile_keeps_its_group_whatever_the_suffix(found):
    records = found("lc25000")
    assert records["colonn1"].patient == "colon_n_7" and records["lungaca1"].patient is None
    assert "squamous_cell_carcinoma" not in records["colonn1"].findings  # nobody looked for it in the colon
    assert absent(records["lungaca1"]) == {"normal", "squamous_cell_carcinoma"}


def test_the_maturity_of_a_blood_cell_comes_from_its_prefix(found):
    records = found("pbc_blood")
    assert present(records["BNE_495078"]) == {"neutrophil", "band_neutrophil"}
    assert present(records["NEUTROPHIL_1"]) == {"neutrophil"}
    assert "band_neutrophil" not in records["NEUTROPHIL_1"].findings
    assert present(records["PMY_1"]) == {"immature_granulocyte", "promyelocyte"}
    assert present(records["PLATELET_1"]) == {"platelet"} and "normal" not in records["PLATELET_1"].findings


def test_a_naevus_is_what_both_tables_deny(found):
    records = found("isic2017")
    assert "ISIC_0000000_superpixels" not in records
    assert present(records["ISIC_0000000"]) == {"naevus"} and records["ISIC_0000000"].age_years is None
    assert present(records["ISIC_0000002"]) == {"melanoma"}
    assert present(records["ISIC_0000003"]) == {"seborrhoeic_keratosis"}
    assert records["ISIC_0001769"].findings == {"melanoma": False}  # naevus or keratosis: the table does not say
    assert records["ISIC_0012086"].findings == {}


def test_what_a_patient_could_not_tell_is_unknown(found):
    records = found("pad_ufes_20")
    first, second, third = (records[f"PAT_{n}_{n}_{n}"] for n in (1, 2, 3))
    assert "bleeding_lesion" not in first.findings and first.findings["itching_lesion"] is True
    assert present(first) == {"basal_cell_carcinoma", "fitzpatrick_3", "itching_lesion"}
    assert first.anatomy == "chest_skin"
    assert second.sex is None and not any(name.startswith("fitzpatrick") for name in second.findings)
    assert third.findings == {} and third.patient == "PAT_3" and third.anatomy == "skin"


def test_a_structure_that_is_not_labelled_is_absent_and_a_frame_without_labels_unknown(found):
    records = found("vocal_folds")
    assert present(records["0001_l"]) == {"vocal_folds", "laryngeal_lesion", "endotracheal_tube"}
    assert absent(records["0001_l"]) == {"glottal_space", "surgical_tool"}
    assert records["0002_l"].findings == {} and len(records) == 2  # the label images are left out


def test_frames_out_of_the_body_are_unfit(found):
    records = found("laparoscopy")
    assert "blue menu" in records["00001-21711-frame-0"].reason
    assert records["00001-21711-frame-9"].patient == "00001" and records["00002-1-frame-9"].patient == "00002"


def test_no_lesion_box_is_unknown(found):
    records = found("idrid")
    assert records["0001"].findings == {"retinal_haemorrhage_or_microaneurysm": True, "normal": False}
    assert records["0002"].findings == {} and records["0002"].patient == "v2"
    assert records["0003"].patient is None


def test_eyes_have_a_side_and_a_grade(found):
    assert {record.laterality for record in found("chasedb1").values()} == {"left", "right"}
    records = found("unam_fundus_oct")
    assert records["0736_OI_f_1"].findings == {"diabetic_macular_oedema": True, "normal": False}
    assert records["0736_OI_f_1"].laterality == "left"
    assert records["0001_od_f_1"].findings["diabetic_retinopathy"] is True
    assert records["1222_OD_O_2"].image_type == "oct" and not present(records["1222_OD_O_2"])


def test_a_polyp_frame_is_taken_once(found):
    records = found("cvc_clinicdb")
    assert len(records) == 2 and records["1"].file_name.endswith("PNG/Original/1.png")
    assert (records["1"].patient, records["100"].patient) == ("1", "5")


def test_head_ct_is_labelled_by_number(found):
    records = found("head_ct")
    assert present(records["000"]) == {"intracranial_haemorrhage"} and present(records["100"]) == {"normal"}


def test_files_are_found_by_stem_whatever_the_suffix():
    assert files.stem("a/b/Image_01.PNG") == files.stem("Image_01.webp") == files.stem("Image_01") == "Image_01"
    assert files.stem("scan.v2.png") == "scan.v2" and files.stem("scan.v2") == "scan.v2"
    assert files.key("img\\patient1\\seq4\\0001_l.png", 3) == files.key("patient1/seq4/0001_l.webp", 3)


def test_numbers_of_a_table_are_numbers_or_unknown():
    assert files.number("45.0") == 45 and files.number("unknown") is None and files.number("nan") is None
    assert files.age("999") is None and files.age("-1") is None and files.age("0") == 0
    assert [files.years(word) for word in ("060Y", "45yrs", "6M", "073W", "58", "999Y", "")] == [60, 45, 0.5, 1.4, 58, None, None]


def test_a_complete_list_denies_what_it_leaves_out_and_another_does_not():
    names = {"Mass": "lung_mass", "Nodule": "lung_nodule"}
    assert files.listed(["Mass", "Scar"], names) == {"lung_mass": True, "lung_nodule": False}
    assert files.mentioned(["Mass", "Scar"], names) == {"lung_mass": True}
    assert files.stated({"a": "0", "b": "1.0", "c": "-1"}, {"a": "fracture", "b": "fracture", "c": "pneumonia"}) == {
        "fracture": True}


MAPPING = """
name = "St Mary's chest"
table = "exports/labels.csv"
file = {column = "path"}
image_type = "chest_xray"
view = {column = "ViewPosition", values = {PA = "posteroanterior", AP = "anteroposterior"}}
patient = {column = "mrn"}
age_years = {column = "age"}
sex = {column = "sex"}
laterality = {name = "_(L|R)[.]", values = {L = "left", R = "right"}}
[findings]
pneumonia = {column = "pneumonia"}
pleural_effusion = {column = "labels", split = "|", holds = "Effusion"}
cardiomegaly = {column = "labels", split = "|", holds = "Cardiomegaly"}
normal = {folder = 1, values = {healthy = true, ill = false}}
"""
TABLE = """path,mrn,age,sex,ViewPosition,pneumonia,labels
ill/one_L.png,17,54,F,PA,1,Effusion|Mass
healthy/two.dcm.png,18,999,U,??,,
ill/gone.png,19,1,M,AP,0,Mass
../../outside.png,20,1,M,AP,0,Mass
ill/one_L.png,17,54,F,PA,0,
"""


@pytest.fixture
def own(tmp_path):
    return lay(tmp_path / "own", {"exports/labels.csv": TABLE, "medisyn.toml": MAPPING, "ill/one_L.webp": None,
                                  "healthy/two.dcm.png": None, "../outside.png": None})


def test_a_table_of_ones_own_is_read_by_a_mapping(own):
    source = called("table", own)
    assert source.name == "st_mary_s_chest"
    one, two, gone, outside = source.read(own)
    assert one.findings == {"pneumonia": True, "pleural_effusion": True, "cardiomegaly": False, "normal": False}
    assert (one.view, one.laterality, one.sex) == ("posteroanterior", "left", "female")
    assert (one.age_years, one.patient) == (54, "17")
    assert two.findings == {"normal": True}  # an empty column is unknown
    assert (two.view, two.sex, two.age_years) == (None, None, None)
    assert isinstance(gone, Unfit) and isinstance(outside, Unfit)


def test_a_table_may_be_jsonl(own):
    (own / "exports/labels.csv").unlink()
    row = {"path": "ill/one_L.png", "mrn": 17, "pneumonia": False}
    (own / "exports/labels.jsonl").write_text(json.dumps(row) + "\n\n")
    (own / "medisyn.toml").write_text(MAPPING.replace("labels.csv", "labels.jsonl"))
    (one,) = called("table", own).read(own)
    assert one.patient == "17" and one.findings["pneumonia"] is False


@pytest.mark.parametrize("before, after, message", [
    ("[findings]", "[finding]", "did you mean 'findings'"),
    ('column = "mrn"', 'colum = "mrn"', "patient: unknown key 'colum'; did you mean 'column'"),
    ('{column = "pneumonia"}', '"yes"', "finding pneumonia should be true, false"),
    ('file = {column = "path"}', "", "lacks file"),
    ("folder = 1", 'folder = "up"', "folder should be a whole number"),
    ("_(L|R)[.]", "_(L|R", "name should be a regular expression"),
    ('column = "mrn"', 'column = "mrn", folder = 1', "one of column, folder or name"),
    ("name = ", "name = = ", "expected a mapping in TOML"),
    ("labels.csv", "lables.csv", "expected the table exports/lables.csv"),
])
def test_a_wrong_mapping_is_named(own, before, after, message):
    (own / "medisyn.toml").write_text(MAPPING.replace(before, after, 1))
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        list(called("table", own).read(own))


def test_an_imagefolder_keeps_what_its_metadata_says(tmp_path):
    rows = [{"file_name": "a.png", "image_type": "mri", "text": "a brain", "findings": {"glioma": True}, "unheard": 1},
            {"file_name": "gone.png", "image_type": "mri"}]
    folder = lay(tmp_path / "mine", {"a.png": None, "b.png": None,
                                     "metadata.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
    gone, a, b = called("imagefolder", folder).read(folder)
    assert (a.image_type, a.text, a.findings) == ("mri", "a brain", {"glioma": True})
    assert isinstance(gone, Unfit) and "image type is unknown" in b.reason


def test_folders_of_classes_are_read_by_a_mapping(tmp_path):
    folder = lay(tmp_path / "skin", {"melanoma/PAT1_a.png": None, "naevus/PAT2_b.png": None, "medisyn.toml": """
image_type = "dermoscopy"
patient = {name = "(PAT[0-9]+)_"}
[findings]
melanoma = {folder = 1, values = {melanoma = true, naevus = false}}
"""})
    first, second = called("imagefolder", folder).read(folder)
    assert (first.findings, first.patient) == ({"melanoma": True}, "PAT1")
    assert (second.findings, second.patient) == ({"melanoma": False}, "PAT2")


def test_an_imagefolder_without_metadata_or_mapping_says_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match="metadata.jsonl or metadata.csv"):
        list(called("imagefolder", lay(tmp_path, {"a.png": None})).read(tmp_path))


def test_an_unknown_source_is_an_error_that_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'isic2017'"):
        called("isic_2017", tmp_path)
    with pytest.raises(ValueError, match="a mapping is for table, imagefolder"):
        called("busi", tmp_path, tmp_path / "medisyn.toml")


def test_own_data_may_not_take_the_name_of_a_public_dataset(tmp_path):
    (tmp_path / "busi").mkdir()
    with pytest.raises(ValueError, match="the name of a public dataset"):
        called("imagefolder", tmp_path / "busi")


def test_every_public_source_stands_in_the_docs_with_its_size():
    text = (Path(__file__).parent.parent / "docs" / "sources.md").read_text(encoding="utf-8")
    named = [source for source in SOURCES.values() if source not in OWN]
    assert f"knows {len(named)} public datasets" in text
    for source in named:
        assert f"| `{source.name}` |" in text and (source.size is None or source.size in text), source.name


def test_every_image_type_has_several_public_sources():
    held = [kind for source in SOURCES.values() if source not in OWN for kind in source.image_types]
    assert all(held.count(kind) >= 2 for kind in vocabulary.IMAGE_TYPES)
