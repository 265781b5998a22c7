"""Sources of skin, eye, gut, operations, tissue, blood and arrays: what is said is present, what is denied absent."""

import numpy as np
import pytest
from layouts import absent, found, lay, present
from layouts_colour import LAYOUTS

from medisyn.data import ingest, parts, records
from medisyn.data.sources import SOURCES, Unfit, medmnist


@pytest.fixture
def read(tmp_path):
    return lambda name: found(name, tmp_path, LAYOUTS[name])


def test_a_lesion_is_one_of_seven_kinds_and_keeps_its_images_together(read):
    lesions = read("ham10000")
    assert present(lesions["ISIC_0027419"]) == {"benign_keratosis"} and len(absent(lesions["ISIC_0027419"])) == 6
    assert lesions["ISIC_0027419"].patient == lesions["ISIC_0025030"].patient == "HAM_0000118"
    assert lesions["ISIC_0024306"].sex is None and lesions["ISIC_0024306"].age_years is None


def test_the_codes_of_the_challenges_differ_by_year(read):
    assert present(read("isic2018")["ISIC_0024310"]) == {"actinic_keratosis_or_bowens_disease"}
    assert read("isic2018")["ISIC_0024306"].patient == "HAM_0000550"
    lesions = read("isic2019")
    assert present(lesions["ISIC_0053457"]) == {"squamous_cell_carcinoma"} and lesions["ISIC_0000000"].anatomy == "back"
    assert lesions["ISIC_0000002_downsampled"].findings == {}  # UNK
    lesions = read("isic2020")
    assert lesions["ISIC_2637011"].findings == {"melanoma": False, "malignant_skin_lesion": False, "benign_skin_lesion": True}
    assert present(lesions["ISIC_0052212"]) == {"naevus", "benign_skin_lesion"} and len(lesions) == 3


def test_a_wrongly_labelled_photograph_is_unfit(read):
    psoriasis, carcinoma, wrong = read("fitzpatrick17k").values()
    assert isinstance(wrong, Unfit) or isinstance(psoriasis, Unfit) or isinstance(carcinoma, Unfit)
    kept = {one.file_name[7:9]: one for one in (psoriasis, carcinoma, wrong) if not isinstance(one, Unfit)}
    assert present(kept["5e"]) == {"psoriasis", "fitzpatrick_3"} and kept["5e"].findings["malignant_skin_lesion"] is False
    assert "benign_skin_lesion" not in kept["5e"].findings  # an inflammation is neither
    assert present(kept["fa"]) == {"basal_cell_carcinoma", "malignant_skin_lesion"}  # skin type -1 is unknown


def test_a_skin_tone_of_two_types_is_not_kept(read):
    lesions = read("ddi")
    assert present(lesions["000001"]) == {"melanoma", "malignant_skin_lesion"}
    assert present(lesions["000002"]) == {"naevus", "benign_skin_lesion"}
    assert lesions["000003"].findings == {"malignant_skin_lesion": False, "benign_skin_lesion": True}


def test_a_case_has_a_photograph_and_a_dermoscopy_image(read):
    lesions = read("derm7pt")
    assert {name: record.image_type for name, record in lesions.items()} == {
        "NEL025": "skin_photograph", "Nel026": "dermoscopy", "Nhl001": "skin_photograph", "Nhl002": "dermoscopy"}
    assert present(lesions["NEL025"]) == {"naevus"} and lesions["NEL025"].findings["elevated_lesion"] is False
    assert present(lesions["Nhl002"]) == {"melanoma", "elevated_lesion"} and lesions["Nhl001"].patient == "2"


def test_no_retinopathy_is_not_yet_a_normal_eye(read):
    eyes = read("aptos2019")
    assert present(eyes["000c1434d8d7"]) == {"diabetic_retinopathy", "moderate_nonproliferative_retinopathy"}
    assert not present(eyes["0024cdab0c1e"]) and "normal" not in eyes["0024cdab0c1e"].findings and len(eyes) == 2
    both = read("eyepacs")
    assert present(both["10_right"]) == {"diabetic_retinopathy", "proliferative_retinopathy"}
    assert both["10_left"].patient == both["10_right"].patient and both["10_left"].laterality == "left"


def test_each_part_of_a_set_numbers_its_images_anew(read, tmp_path):
    eyes = {one.file_name: one for one in SOURCES["rfmid"].read(lay(tmp_path, LAYOUTS["rfmid"]))}
    assert present(eyes["Training_Set/Training/1.png"]) == {"diabetic_retinopathy", "retinal_vein_occlusion"}
    assert present(eyes["Test_Set/Test/1.png"]) == {"media_haze"}
    assert present(eyes["Training_Set/Training/2.png"]) == {"normal"}


def test_a_suspected_disease_is_unknown_and_each_eye_has_its_own(read):
    eyes = read("odir5k")
    assert eyes["0_left"].findings == {"cataract": True, "normal": False} and eyes["0_right"].findings == {"normal": True}
    assert present(eyes["1_left"]) == {"diabetic_retinopathy", "mild_nonproliferative_retinopathy"}
    assert eyes["1_right"].findings == {"normal": True} and (eyes["0_left"].sex, eyes["0_left"].age_years) == ("female", 69)
    assert eyes["0_right"].file_name.startswith("ODIR-5K/")  # the shrunk copy is left out


def test_an_ungradable_eye_is_unknown(read):
    eyes = read("deepdrid")
    assert eyes["2_l1"].findings == {} and len(eyes) == 3  # widefield images are left out
    assert present(eyes["1_r2"]) == {"diabetic_retinopathy", "severe_nonproliferative_retinopathy"}
    assert not present(eyes["1_l1"]) and eyes["1_l1"].laterality == "left"
    pair = read("messidor2")
    assert pair["20051020_43808_0100_PP"].patient == pair["20051020_43832_0100_PP"].patient is not None
    assert pair["20051020_43832_0100_PP"].findings["diabetic_macular_oedema"] is True
    assert pair["IM000001"].findings == {} and pair["IM000001"].patient is None


def test_oct_is_of_one_disease_or_normal(read):
    scans = read("oct2017")
    assert present(scans["CNV-1016042-1"]) == {"choroidal_neovascularisation"} and scans["CNV-1016042-1"].patient == "1016042"
    scans = read("octdl")
    assert scans["amd_1047099_1"].findings == {"age_related_macular_degeneration": True, "normal": False}
    assert (scans["amd_1047099_1"].laterality, scans["no_1"].findings) == ("right", {"normal": True})
    assert set(read("drive")) == {"21_training", "01_test"}


def test_a_landmark_tells_no_finding_and_a_grade_between_two_no_grade(read):
    frames = read("hyperkvasir")
    assert frames["2"].findings == {} and frames["2"].anatomy == "pylorus"
    assert present(frames["3"]) == {"ulcerative_colitis", "moderate_colitis"} and frames["4"].findings == {
        "ulcerative_colitis": True}
    assert present(frames["5"]) == {"dyed_lifted_polyp", "polyp"} and present(frames["1"]) == {"oesophagitis"}
    assert read("kvasir_v2")["1"].findings == {"normal": True}
    frames = read("gastrovision")
    assert present(frames["1"]) == {"polyp"} and frames["2"].findings == {} and frames["3"].anatomy == "oesophagus"


def test_an_image_that_lies_in_two_folders_is_read_once(read, tmp_path):
    every = list(SOURCES["limuc"].read(lay(tmp_path, LAYOUTS["limuc"])))
    assert [type(one) for one in every].count(Unfit) == 1 and len(every) == 3
    inactive, severe = (one for one in every if not isinstance(one, Unfit))
    assert present(inactive) == {"ulcerative_colitis", "inactive_colitis"} and "normal" not in inactive.findings
    assert severe.findings["normal"] is False and severe.patient == "10"


def test_frames_of_a_video_are_addresses(read):
    frames = read("cholec80")
    assert [name.rpartition("#")[2] for name in frames] == ["0", "250", "500"]
    assert [record.findings["surgical_tool"] for record in frames.values()] == [True, False, False]
    assert {record.patient for record in frames.values()} == {"video01"}
    assert set(read("cholecseg8k")) == {"frame_80_endo"}  # the masks are left out
    assert {record.anatomy for record in read("dsad").values()} == {"liver", "abdomen"}


def test_a_disorder_may_not_be_seen_in_a_frame(read):
    frames = read("bagls")
    assert frames["0"].findings == {"normal": True} and frames["0"].sex == "female"
    assert frames["1"].findings == {} and len(frames) == 2


def test_fat_and_muscle_are_not_abnormal_and_the_empty_slide_is_unfit(read):
    patches = read("nct_crc_he")
    assert isinstance(patches["BACK-AAAIMRKI"], Unfit)
    assert present(patches["ADI-AAAFLCLY"]) == {"adipose_tissue"} and "normal" not in patches["ADI-AAAFLCLY"].findings
    assert patches["TUM-TCGA-AAICEQFN"].findings["normal"] is False
    tumours = read("breakhis")
    assert present(tumours["SOB_B_A-14-22549AB-40-001"]) == {"benign_breast_tissue_lesion", "breast_adenosis"}
    assert tumours["SOB_M_DC-14-10926-100-001"].patient == "14-10926"
    assert present(read("mhist")["MHIST_aaa"]) == {"sessile_serrated_adenoma"}
    assert present(read("bach")["is001"]) == {"breast_carcinoma_tissue", "carcinoma_in_situ"}


def test_a_label_of_the_centre_says_nothing_of_the_rest(read):
    patches = read("lymph_node_patches")
    assert patches["f38a6374"].findings == {} and present(patches["c18f2d88"]) == {"lymph_node_metastasis"}


def test_cells_have_a_kind_and_a_stage(read):
    cells = read("aml_cytomorphology")
    assert present(cells["NGS_0001"]) == {"neutrophil", "segmented_neutrophil"}
    assert present(cells["PMB_0001"]) == {"immature_granulocyte", "promyelocyte"} and "myeloblast" in absent(cells["PMB_0001"])
    cells = read("c_nmc")
    assert present(cells["UID_11_10_1_all"]) == {"lymphoblast"} and cells["UID_H10_1_1_hem"].patient == "H10"
    cells = read("malaria_cells")
    assert len(cells) == 2 and {record.patient for record in cells.values()} == {"C33", "C1"}
    assert present(read("raabin_wbc")["20190526_162951_0"]) == {"basophil"}


@pytest.mark.parametrize("name", medmnist.SETS)
def test_a_row_of_an_array_is_an_image_in_the_split_of_its_array(name, tmp_path):
    folder = lay(tmp_path, LAYOUTS[name])
    rows = [one for one in SOURCES[name].read(folder) if not isinstance(one, Unfit)]
    assert {record.split for record in rows} == {"train", "val", "test"}
    assert all(record.file_name.startswith(f"{name}_64.npz#{record.split}_images:") for record in rows)  # the largest file
    assert parts.open_part(folder, rows[0].file_name).picture.size == (28, 28)


def test_labels_of_arrays_are_findings(read):
    tissue = read("pathmnist")
    assert isinstance(tissue["pathmnist_64.npz#train_images:1"], Unfit)
    assert present(tissue["pathmnist_64.npz#val_images:8"]) == {"adenocarcinoma"}
    chests = read("chestmnist")
    assert present(chests["chestmnist_64.npz#test_images:2"]) == {"pleural_effusion"}
    assert read("breastmnist")["breastmnist_64.npz#train_images:1"].findings == {"malignant_breast_lesion": False}
    kidney = read("organcmnist")["organcmnist_64.npz#train_images:5"]
    assert (kidney.anatomy, kidney.laterality, kidney.view) == ("kidney", "right", "coronal")


def test_arrays_are_taken_in_with_their_own_split(tmp_path):
    rng = np.random.default_rng(0)
    held = {f"{split}_{what}": pictures for split in ("train", "val", "test") for what, pictures in (
        ("images", rng.integers(0, 256, (2, 28, 28, 3), np.uint8)), ("labels", np.array([[0], [7]])))}
    folder = lay(tmp_path / "raw", {"bloodmnist.npz": held})
    summary = ingest.ingest("bloodmnist", folder, tmp_path / "out")
    kept = list(records.read(tmp_path / "out"))
    assert summary.written == len(kept) == 6
    assert sorted(record.split for record in kept) == ["test", "test", "train", "train", "val", "val"]
    assert {record.source for record in kept} == {"bloodmnist"} and kept[0].licence == "CC-BY-4.0"
