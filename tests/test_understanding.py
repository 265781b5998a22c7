"""Free wording is read as people mean it, and what is not understood is said."""

import pytest

from medisyn.data.records import Record
from medisyn.data.understanding import count_support, nearest_known, sentence, support_table, understand

FREE = [  # prompt, then only what it must say; findings are compared whole
    ("knee radiograph with KL 3", {"image_type": "bone_xray", "anatomy": "knee",
                                   "findings": {"kellgren_lawrence_3": True, "osteoarthritis": True}}),
    ("mole under a dermatoscope", {"image_type": "dermoscopy", "findings": {"naevus": True}}),
    ("fundus with exudates", {"image_type": "fundus_photograph", "findings": {"hard_exudates": True}}),
    ("retinal photo", {"image_type": "fundus_photograph", "anatomy": "retina", "findings": {}}),
    ("white blood cell, eosinophil", {"image_type": "blood_smear", "findings": {"eosinophil": True}}),
    ("H&E of colon adenocarcinoma", {"image_type": "histopathology", "anatomy": "colon",
                                     "technique": "haematoxylin_eosin", "findings": {"adenocarcinoma": True}}),
    ("brain FLAIR", {"image_type": "mri", "anatomy": "brain", "technique": "flair"}),
    ("larynx with endotracheal tube", {"image_type": "laryngoscopy", "findings": {"endotracheal_tube": True}}),
    ("gallbladder surgery view", {"image_type": "laparoscopy", "anatomy": "gallbladder"}),
    ("chest film", {"image_type": "chest_xray", "anatomy": "chest"}),
    ("X-ray of a child's lungs", {"image_type": "chest_xray", "age_years": None}),
    ("breast sonogram", {"image_type": "ultrasound", "anatomy": "breast"}),
    ("mammo MLO dense breast", {"image_type": "mammography", "view": "mediolateral_oblique",
                                "findings": {"dense_breast": True}}),
    ("x-ray of the knee", {"image_type": "bone_xray"}),
    ("x-ray with pneumonia", {"image_type": "chest_xray"}),
    ("x-ray", {"image_type": None}),
    ("x ray hand fracture", {"image_type": "bone_xray", "anatomy": "hand", "findings": {"fracture": True}}),
    ("CXR AP 54F PNA w/o ETT", {"image_type": "chest_xray", "view": "anteroposterior", "age_years": 54.0,
                                "sex": "female", "findings": {"pneumonia": True, "endotracheal_tube": False}}),
    ("COVID-19 chest X-ray", {"findings": {"covid_19": True}}),
    ("chest X-ray, COVID-19 pneumonia", {"findings": {"covid_19": True, "pneumonia": True}}),
    ("Dermoscopy MM", {"findings": {"melanoma": True}}),
    ("SCC of the lung, H&E", {"image_type": "histopathology", "findings": {"squamous_cell_carcinoma": True}}),
    ("SCC on the ear, photograph", {"image_type": "skin_photograph", "anatomy": "ear",
                                    "findings": {"squamous_cell_carcinoma": True}}),
    ("melanoma on the back of a 67 year old man, smartphone photo", {
        "image_type": "skin_photograph", "anatomy": "back", "age_years": 67.0, "sex": "male"}),
    ("dermoscopy of a naevus on the chest", {"anatomy": "chest_skin"}),
    ("OD fundus, DR without DME", {"laterality": "right",
                                   "findings": {"diabetic_retinopathy": True, "diabetic_macular_oedema": False}}),
    ("fundus photo OS", {"laterality": "left"}),
    ("axial T2 MRI, RRMS", {"view": "axial", "technique": "t2",
                            "findings": {"relapsing_remitting_ms": True, "multiple_sclerosis": True}}),
    ("brain MRI w/ contrast, glioblastoma", {"technique": "t1_post_contrast",
                                             "findings": {"glioma": True, "brain_tumour": True}}),
    ("skull-stripped T1 MRI", {"technique": "t1", "findings": {"skull_stripped": True}}),
    ("colonoscopy with a sessile polyp in white light", {"image_type": "gi_endoscopy", "anatomy": "colon",
                                                         "technique": "white_light", "findings": {"polyp": True}}),
    ("kidney CT with stone, no cyst or tumour", {
        "image_type": "ct", "findings": {"kidney_stone": True, "kidney_cyst": False, "kidney_tumour": False}}),
    ("head CT with a bleed", {"anatomy": "head", "findings": {"intracranial_haemorrhage": True}}),
    ("breast ultrasound, benign", {"findings": {"benign_breast_lesion": True}}),
    ("Show US of the thyroid", {"image_type": "ultrasound", "anatomy": "thyroid"}),
    ("give us a knee x ray", {"image_type": "bone_xray"}),
    ("R knee xr OA gr 3", {"laterality": "right", "findings": {"kellgren_lawrence_3": True, "osteoarthritis": True}}),
    ("healthy retina", {"image_type": "fundus_photograph", "findings": {"normal": True}}),
    ("normal colon histology", {"image_type": "histopathology", "findings": {"normal": True}}),
    ("not normal chest x-ray", {"findings": {"normal": False}}),
    ("seborrheic keratosis with color, dermoscopy", {"findings": {"seborrhoeic_keratosis": True}}),
    ("May-Grünwald-Giemsa stained single cell: band neutrophil", {
        "technique": "may_grunwald_giemsa", "view": "single_cell",
        "findings": {"band_neutrophil": True, "neutrophil": True}}),
    ("pneumonai in dermosocpy", {"image_type": "dermoscopy", "findings": {"pneumonia": True}}),
]
FREE += [
    ("microlaryngoscopy, glottis", {"image_type": "laryngoscopy"}),
    ("severe right knee OA, plain film", {"image_type": "bone_xray", "laterality": "right",
                                          "findings": {"kellgren_lawrence_4": True, "osteoarthritis": True}}),
    ("knee: osteoarthritis, moderate", {"findings": {"kellgren_lawrence_3": True, "osteoarthritis": True}}),
    ("left knee, Kellgren Lawrence grade two", {"laterality": "left",
                                                "findings": {"kellgren_lawrence_2": True, "osteoarthritis": True}}),
    ("knee xr KL=0", {"findings": {"kellgren_lawrence_0": True}}),
    ("no severe osteoarthritis of the knee on x-ray", {"findings": {"kellgren_lawrence_4": False}}),
    ("severe pneumonia, chest x-ray", {"findings": {"pneumonia": True}, "not_understood": ("severe",)}),
    ("fundus, moderate non-proliferative retinopathy", {
        "findings": {"moderate_nonproliferative_retinopathy": True, "diabetic_retinopathy": True,
                     "retinal_haemorrhage_or_microaneurysm": True}}),
    ("RMLO, fatty breast", {"image_type": "mammography", "laterality": "right", "view": "mediolateral_oblique"}),
    ("right breast mammogram, biopsy proven carcinoma", {"image_type": "mammography",
                                                         "findings": {"malignant_breast_lesion": True}}),
    ("non-dermoscopic clinical image of a raised mole", {"image_type": "skin_photograph",
                                                         "findings": {"elevated_lesion": True, "naevus": True}}),
    ("photo of a mole on the arm, not dermoscopy", {"image_type": "skin_photograph", "findings": {"naevus": True}}),
    ("monocyte with a kidney-shaped nucleus", {"image_type": "blood_smear", "anatomy": "peripheral_blood"}),
    ("picture of a neutrophil", {"image_type": "blood_smear"}),
    ("ENT endoscope photo of the vocal folds with a polyp", {"image_type": "laryngoscopy",
                                                             "findings": {"vocal_folds": True, "laryngeal_lesion": True}}),
    ("slide of colon cancer", {"image_type": "histopathology", "anatomy": "colon", "findings": {"adenocarcinoma": True}}),
    ("breast ultrasound, no mass", {"findings": {"normal": True}}),
    ("breast ultrasound with a lump", {"findings": {"normal": False}}),
    ("mammogram, no mass, but calcifications", {"findings": {"calcification": True}}),
    ("kidney ultrasound with a cyst", {"anatomy": "kidney", "findings": {}, "not_understood": ("cyst",)}),
    ("ultrasound, cyst in the breast", {"findings": {"benign_breast_lesion": True}}),
    ("mole, it doesnt bleed or itch", {"findings": {"naevus": True, "bleeding_lesion": False, "itching_lesion": False}}),
    ("side=L, finding=OA, knee film", {"laterality": "left", "findings": {"osteoarthritis": True}}),
    ("fundus, DR=0", {"findings": {"diabetic_retinopathy": False}}),
    ("unenhanced brain MRI, T1", {"technique": "t1"}),
    ("knee x-ray, rheumatoid arthritis", {"findings": {}, "not_understood": ("rheumatoid arthritis",)}),
    ("knee arthritis, x-ray", {"findings": {"osteoarthritis": True}}),
    ("knee x-ray with effusion", {"image_type": "bone_xray", "anatomy": "knee", "findings": {}, "not_understood": ("effusion",)}),
    ("knee radiograph, joint effusion, KL 3", {"image_type": "bone_xray", "not_understood": ("joint effusion",)}),
    ("CT, pericardial effusion", {"findings": {}, "not_understood": ("pericardial effusion",)}),
    ("chest CT, effusion", {"image_type": "ct", "findings": {"pleural_effusion": True}}),
    ("bilateral effusions", {"image_type": "chest_xray", "findings": {"pleural_effusion": True}}),
    ("CXR, small left eff", {"findings": {"pleural_effusion": True}}),
    ("normal chest X-ray of a child with influenza", {"findings": {"normal": True}, "not_understood": ("influenza",)}),
    ("brain MRI, T2 gradient echo", {"image_type": "mri", "technique": "t2"}),
    ("liver metastasis, H&E", {"findings": {}, "not_understood": ("metastasis",)}),
    ("ultra wide field fundus photograph", {"image_type": "fundus_photograph", "view": None}),
    ("sinister looking mole, dermoscopy", {"laterality": None}),
    ("Re: fundus photo", {"laterality": None}),
    ("chest X-ray, left shift of the trachea", {"findings": {}}),
    ("chest x-ray with a malignant nodule", {"findings": {"lung_nodule": True}}),  # in a mammogram two words for one finding
    ("invasive lobular carcinoma, H&E", {"findings": {"lobular_carcinoma": True, "breast_carcinoma_tissue": True}}),
    ("invasive lobular carcinoma, mammogram", {"findings": {"malignant_breast_lesion": True}}),
    ("abdominal laparoscopy, liver", {"anatomy": "liver"}),
]
NEGATED = [
    ("no pneumonia, cardiomegaly", {"pneumonia": False, "cardiomegaly": False}),
    ("no pneumonia but cardiomegaly", {"pneumonia": False, "cardiomegaly": True}),
    ("no pneumonia; cardiomegaly", {"pneumonia": False, "cardiomegaly": True}),
    ("no pneumonia. Cardiomegaly.", {"pneumonia": False, "cardiomegaly": True}),
    ("no pneumonia, with cardiomegaly", {"pneumonia": False, "cardiomegaly": True}),
    ("no evidence of pneumonia or effusion", {"pneumonia": False, "pleural_effusion": False}),
    ("negative for pneumonia", {"pneumonia": False}),
    ("w/o pneumonia", {"pneumonia": False}),
    ("wtihout pneumonia", {"pneumonia": False}),
    ("free of pneumonia", {"pneumonia": False}),
    ("absent pneumonia", {"pneumonia": False}),
    ("pneumonia is absent, cardiomegaly is present", {"pneumonia": False, "cardiomegaly": True}),
    ("pneumonia and effusion not seen", {"pneumonia": False, "pleural_effusion": False}),
    ("cardiomegaly; pneumonia ruled out", {"pneumonia": False, "cardiomegaly": True}),
    ("pneumonia: no, cardiomegaly: yes", {"pneumonia": False, "cardiomegaly": True}),
    ("neither pneumonia nor effusion", {"pneumonia": False, "pleural_effusion": False}),
    ("pneumonia, not bacterial but viral", {"pneumonia": True, "bacterial_pneumonia": False, "viral_pneumonia": True}),
    ("I don't want pneumonia", {"pneumonia": False}),
    ("pneumonia-free", {"pneumonia": False}),
    ("no osteoarthritis, Kellgren-Lawrence grade 0", {"osteoarthritis": False, "kellgren_lawrence_0": True}),
    ("not Kellgren-Lawrence grade 4", {"kellgren_lawrence_4": False}),
    ("viral pneumonia, covid negative", {"viral_pneumonia": True, "pneumonia": True, "covid_19": False}),
    ("no pneumothorax, cardiomegaly present", {"pneumothorax": False, "cardiomegaly": True}),
    ("not pneumonia, atelectasis", {"pneumonia": False, "atelectasis": True}),
    ("does not show pneumonia, atelectasis or oedema", {"pneumonia": False, "atelectasis": False, "pulmonary_oedema": False}),
    ("non specific cardiomegaly", {"cardiomegaly": True}),
    ("effusion? no, just pneumonia", {"pleural_effusion": False, "pneumonia": True}),
    ("not consistent with pneumonia", {"pneumonia": False}),
]
AGES = [("54-year-old woman", 54.0, "female"), ("54 y/o F", 54.0, "female"), ("54yo", 54.0, None),
        ("aged 54", 54.0, None),
        ("F54", 54.0, "female"), ("54/M", 54.0, "male"), ("five-year-old boy", 5.0, "male"), ("M 54", 54.0, "male"),
        ("sixty-two year old lady", 62.0, "female"), ("6-month-old", 0.5, None), ("an elderly man", None, "male"),
        ("a child", None, None), ("a girl", None, "female")]
TABLE = support_table([
    Record("1", "1", "chest_xray", anatomy="chest", view="anteroposterior",
           findings={"bacterial_pneumonia": True, "pneumonia": True, "normal": False}),
    Record("2", "2", "chest_xray", anatomy="chest", view="anteroposterior",
           findings={"bacterial_pneumonia": True, "pneumonia": True, "normal": False}),
    Record("3", "3", "chest_xray", anatomy="chest", view="anteroposterior", findings={"normal": True}),
    Record("4", "4", "chest_xray", anatomy="chest", view="posteroanterior"),
    Record("5", "5", "mri", anatomy="brain", findings={"glioma": True, "brain_tumour": True}),
    Record("6", "6", "skin_photograph", anatomy="face", findings={"naevus": True})])


@pytest.mark.parametrize(("prompt", "said"), FREE, ids=[prompt for prompt, _ in FREE])
def test_free_wording_is_understood(prompt, said):
    read = understand(prompt)
    assert {name: getattr(read, name) for name in said} == said


@pytest.mark.parametrize(("words", "findings"), NEGATED, ids=[words for words, _ in NEGATED])
def test_a_no_reaches_what_it_is_meant_for(words, findings):
    assert understand(f"chest X-ray; {words}").findings == findings


@pytest.mark.parametrize(("words", "age", "sex"), AGES, ids=[words for words, _, _ in AGES])
def test_age_and_sex_are_read_in_many_forms(words, age, sex):
    read = understand(f"chest X-ray of {words}")
    assert (read.age_years, read.sex, read.not_understood) == (age, sex, ())


def test_a_grade_is_no_age():
    read = understand("KL grade 3 / F / knee X-ray")
    assert read.age_years is None and read.findings["kellgren_lawrence_3"]


def test_the_right_lobe_is_not_the_right_side_of_the_image():
    read = understand("chest X-ray, opacity in the right lower lobe")
    assert read.laterality is None and read.not_understood == ("opacity", "right lower lobe")
    assert "consolidation" in read.nearest["opacity"]


def test_an_understanding_is_said_aloud():
    read = understand("portable chest X-ray, PA view, bacterial pneumonia in a 54-year-old woman")
    assert sentence(read) == ('understood: chest X-ray, posteroanterior view, female, 54 years, bacterial pneumonia '
                              'present; not understood: "portable"')
    assert sentence(understand("chest X-ray", TABLE)) == "understood: chest X-ray; trained on 4 such images"


TAUGHT = ("<glow>", "sks", "<mole-2>", "glow")


@pytest.mark.parametrize(("prompt", "taught", "strange"), [
    ("chest X-ray with <glow>", {"<glow>": True}, ()), ("chest X-ray with <GLOW>, portable", {"<glow>": True}, ("portable",)),
    ("chest X-ray with glow", {"glow": True}, ()), ("a glowing chest X-ray", {}, ("glowing",)),
    ("SKS chest X-ray, <gleam>", {"sks": True}, ("gleam",)), ("chest X-ray, no <glow>", {"<glow>": False}, ()),
    ("chest X-ray without pneumonia, effusion or <glow>", {"<glow>": False}, ()),
    ("chest X-ray: pneumonia and <glow> not seen, but sks", {"<glow>": False, "sks": True}, ()),
    ("chest X-ray, no <glow>, but here <glow>", {"<glow>": True}, ()), ("chest X-ray<glow>", {"<glow>": True}, ()),
    ("chest X-ray of a 4 y/o boy, <mole-2>", {"<mole-2>": True}, ())])
def test_new_words_of_a_model_are_understood_whole_and_a_no_reaches_them(prompt, taught, strange):
    read = understand(prompt, None, TAUGHT)
    assert (read.image_type, read.taught, read.not_understood) == ("chest_xray", taught, strange)
    assert "naevus" not in read.findings and understand(prompt).taught == {}


def test_a_no_reaches_through_a_new_word():
    assert understand("chest X-ray: pneumonia and <glow> not seen", None, TAUGHT).findings == {"pneumonia": False}


def test_new_words_are_said_aloud():
    assert sentence(understand("chest X-ray, <glow>", TABLE, TAUGHT)) == \
        'understood: chest X-ray; trained on 4 such images; taught word: "<glow>"'
    assert sentence(understand("chest X-ray, sks, no <glow>, portable", None, TAUGHT)) == \
        'understood: chest X-ray; taught words: "sks", "<glow>" absent; not understood: "portable"'


@pytest.mark.parametrize("prompt", [
    "TAUGHT0WORD chest X-ray", "\uff34\uff21\uff35\uff27\uff28\uff34\uff10\uff37\uff2f\uff32\uff24 chest X-ray <glow>",
    "chest X-ray s\u212as", "chest X-ray <glow>" * 50])
def test_no_prompt_confuses_new_words(prompt):
    assert understand(prompt, None, TAUGHT).image_type == "chest_xray"


@pytest.mark.parametrize("prompt", ["", "  ", "!!!", "please generate a realistic image for teaching", "no", "without"])
def test_a_prompt_without_content_says_nothing(prompt):
    assert sentence(understand(prompt)) == "understood: nothing"
    assert sentence(understand(prompt, TABLE)) == "understood: nothing"


def test_foreign_words_are_not_guessed():
    read = understand("a dog playing football")
    assert read.image_type is None and read.not_understood == ("dog playing football",)


@pytest.mark.parametrize(("prompt", "count"), [
    ("chest X-ray", 4), ("chest X-ray with pneumonia", 2), ("chest X-ray with bacterial pneumonia", 2),
    ("chest X-ray, no pneumonia", 1), ("PA chest X-ray with pneumonia", 0), ("chest X-ray with melanoma", 0),
    ("MRI of the head, glioma", 1), ("skin photograph of a mole", 1), ("photo of a mole on the nose", 0),
    ("kidney CT", 0)])
def test_support_counts_the_images_that_are_known_to_show_it(prompt, count):
    assert understand(prompt, TABLE).support == count_support(understand(prompt), TABLE) == count


@pytest.mark.parametrize(("prompt", "image_type", "also"), [
    ("mole", "skin_photograph", ()), ("a mole under the dermatoscope", "dermoscopy", ()), ("pneumonia", "chest_xray", ()),
    ("knee", None, ()), ("left", None, ()), ("an X-ray", None, ())])
def test_where_a_prompt_leaves_the_image_type_open_training_decides(prompt, image_type, also):
    read = understand(prompt, TABLE)
    assert (read.image_type, read.also) == (image_type, also)


def test_where_several_image_types_would_fit_the_most_trained_is_taken_and_the_others_are_said():
    moles = [Record(str(i), str(i), "dermoscopy", anatomy="skin", findings={"naevus": True}) for i in range(3)]
    table = [*TABLE, *support_table(moles)]
    read = understand("a mole", table)
    assert (read.image_type, read.also, read.support) == ("dermoscopy", ("skin_photograph",), 3)
    assert sentence(read) == "understood: dermoscopy image or skin photograph, naevus present; trained on 3 such images"


def test_normal_is_the_grade_that_means_it_where_training_images_were_graded():
    graded = support_table([Record("0", "0", "bone_xray", anatomy="knee", findings={"kellgren_lawrence_0": True})])
    assert understand("healthy knee, x-ray", graded).findings == {"kellgren_lawrence_0": True}
    assert understand("healthy knee, x-ray", graded).support == 1
    assert understand("healthy knee, x-ray").findings == {"normal": True}
    called = [*graded, *support_table([Record("1", "1", "bone_xray", anatomy="hand", findings={"normal": True})])]
    assert understand("healthy knee, x-ray", called).findings == {"normal": True}


def test_the_nearest_trained_combination_is_named():
    assert nearest_known(understand("PA chest X-ray, pneumonia"), TABLE) == "chest X-ray, pneumonia present (2 images)"
    assert nearest_known(understand("kidney CT"), TABLE) is None
    assert nearest_known(understand("chest X-ray"), []) is None
