"""Findings: what an image may show, lack, or be silent about."""

from dataclasses import replace

from medisyn.data.vocabulary.places import BOWEL, ENDOSCOPIES, EYE, SKIN, XRAYS
from medisyn.data.vocabulary.terms import Term

CHEST = ("chest_xray",)
BONE = ("bone_xray",)
MRI = ("mri",)
CT = ("ct",)
BREAST = ("ultrasound", "mammography")
MAMMO = ("mammography",)
TISSUE = ("histopathology",)
BLOOD = ("blood_smear",)
LARYNX = ("laryngoscopy",)
GUT = ("gi_endoscopy",)
BI_RADS = ("BI-RADS", "BIRADS", "BI-RADS category", "BIRADS category", "BI-RADS grade", "BI-RADS score")
JOINTS = ("knee", "hip", "hand", "shoulder", "ankle", "wrist", "elbow")
BY_SIGHT = {4: ("bone on bone", "obliterated joint space", "complete loss of joint space")}   # grades by what they look like
ROMAN = ("0", "I", "II", "III", "IV", "V", "VI")


def finding(name: str, label: str, image_types: tuple[str, ...], *synonyms: str, short: tuple[str, ...] = (),
            typed: tuple[str, ...] = (), snomed: str | None = None, radlex: str | None = None,
            implies: tuple[str, ...] = (), local: dict[str, tuple[str, ...]] | None = None,
            opposites: tuple[str, ...] = (), group: str | None = None, abnormal: bool = True,
            sites: tuple[str, ...] = (), local_opposites: dict[str, tuple[str, ...]] | None = None,
            grades: dict[int, str] | None = None) -> Term:
    codes = {"SNOMED CT": snomed, "RadLex": radlex}
    return Term(name, label, "finding", synonyms, {system: code for system, code in codes.items() if code}, image_types,
                implies, short, typed, local or {}, opposites, local_opposites or {}, grades or {}, group, abnormal, sites)


ANY = (
    finding("normal", "normal", (), "healthy", "unremarkable", "no abnormality", "without abnormality",
            short=("nl", "WNL", "NAD"), abnormal=False, opposites=("abnormal", "pathological", "diseased"),
            snomed="17621005", radlex="RID13173",
            typed=("no abnormalities", "within normal limits", "no disease", "no pathology", "no abnormal findings",
                   "no pathological findings", "disease free", "nothing abnormal", "no significant abnormality",
                   "normally", "non diseased", "no acute findings", "no acute abnormality", "benign tissue",
                   "without pathology", "without disease", "no tumour or lesion", "clear lungs", "no acute disease",
                   "no acute cardiopulmonary disease", "no visible abnormality", "no abnormality detected", "nothing suspicious",
                   "nothing to see", "lungs are clear", "lungs clear", "clear lung field", "no sign of disease"),
            local=dict.fromkeys((*(f"benign {part} tissue" for part in ("lung", "pulmonary", "colon", "colonic", "bowel")),
                                 "benign lung", "benign colon", "benign mucosa", "benign colonic mucosa"), TISSUE) |
            dict.fromkeys(("BI-RADS 1", "BIRADS 1", "BI-RADS category 1"), BREAST),
            local_opposites=dict.fromkeys(("lesion", "breast lesion", "focal lesion", "suspicious lesion", "mass", "breast mass",
                                           "lump", "breast lump", "tumour", "nodule", "abnormality"), BREAST) |
            dict.fromkeys(("cancer", "malignancy", "tumour", "carcinoma", "neoplasia", "dysplasia"), TISSUE)),
)

LUNGS = (
    finding("pneumonia", "pneumonia", CHEST, "pulmonary infection", "lung infection", "pneumonic infiltrate",
            short=("PNA",), typed=("pnemonia", "pneumonic", "bronchopneumonia", "numonia",
                                   "chest infection", "lower respiratory tract infection", "LRTI"),
            local={"infiltrate": CHEST}, snomed="233604007", radlex="RID5350"),
    finding("bacterial_pneumonia", "bacterial pneumonia", CHEST, "pneumonia of bacterial origin",
            "bacterial lung infection",
            "pneumonia caused by bacteria", short=("bact PNA", "bacterial PNA"), implies=("pneumonia",),
            snomed="53084003", typed=("bacterial", "bacteria pneumonia", "lobar pneumonia", "pneumonia bacterial",
                   "streptococcal pneumonia", "pneumococcal", "pneumococcal pneumonia", "staphylococcal pneumonia",
                   "infected with bacteria", "bacterial infection", "bacterial chest infection", "klebsiella pneumonia",
                   "staph aureus pneumonia", "staphylococcus aureus pneumonia", "staph pneumonia",
                   "haemophilus pneumonia", "mycoplasma pneumonia", "legionella pneumonia")),
    finding("viral_pneumonia", "viral pneumonia", CHEST, "pneumonia of viral origin", "viral lung infection",
            "pneumonia caused by a virus", short=("viral PNA",), implies=("pneumonia",), snomed="75570004",
            radlex="RID34769", typed=("viral", "virus pneumonia", "pneumonia viral", "pneumonitis viral", "viral pneumonitis",
                   "viral infection", "viral chest infection", "influenza pneumonia", "RSV pneumonia",
                   "adenovirus pneumonia", "metapneumovirus pneumonia", "flu pneumonia", "infected with a virus")),
    finding("covid_19", "COVID-19", CHEST, "COVID-19 infection", "SARS-CoV-2 infection", short=("COVID",),
            abnormal=False, snomed="840539006",  # the disease may leave the image clear
            typed=("coronavirus", "coronavirus disease", "sars cov 2", "corona", "corona virus", "corona virus disease",
                   "sars cov2", "covid lung", "ncov")),
    finding("acute_respiratory_distress_syndrome", "acute respiratory distress syndrome", CHEST,
            "adult respiratory distress syndrome", short=("ARDS",), snomed="67782005", radlex="RID5319",
            typed=("respiratory distress syndrome", "ards pattern")),
    finding("pneumocystis_pneumonia", "Pneumocystis pneumonia", CHEST, "Pneumocystis jirovecii pneumonia",
            short=("PCP", "PJP"), implies=("pneumonia",), snomed="415125002",
            typed=("pneumocystis", "pneumocystis carinii pneumonia")),
    finding("tuberculosis", "tuberculosis", CHEST, "pulmonary tuberculosis", short=("TB",),
            snomed="154283005", radlex="RID29116"),
    finding("pleural_effusion", "pleural effusion", CHEST, "pleural fluid", "fluid in the pleural space",
            typed=("hydrothorax", *(f"{side} effusion" for side in ("bilateral", "left sided", "right sided"))),
            local=dict.fromkeys(("effusion", "eff"), (*CHEST, *CT)), snomed="60046008", radlex="RID34539"),
    finding("cardiomegaly", "cardiomegaly", CHEST, "enlarged heart", "cardiac enlargement", snomed="8186001",
            typed=("big heart", "enlarged cardiac silhouette", "heart enlargement")),
    finding("consolidation", "consolidation", CHEST, "airspace consolidation", "lobar consolidation",
            typed=("airspace opacity", "air space opacification"), snomed="95436008", radlex="RID43255"),
    finding("pneumothorax", "pneumothorax", CHEST, "collapsed lung", short=("PTX",), snomed="36118008",
            radlex="RID5352", typed=("pneumothoraces",)),
    finding("atelectasis", "atelectasis", CHEST, "atelectatic change", snomed="46621007",
            radlex="RID28493", typed=("atelectases", "lung collapse", "lobar collapse")),
    finding("pulmonary_oedema", "pulmonary oedema", CHEST, "lung oedema", "interstitial oedema", snomed="19242006",
            radlex="RID4866", local={"oedema": CHEST}, typed=("pulmonary congestion",)),
    finding("lung_nodule", "pulmonary nodule", (*CHEST, "ct"), "lung nodule", typed=("nodule", "coin lesion"),
            snomed="786838002", radlex="RID50149"),
)

BONES = (
    finding("osteoarthritis", "osteoarthritis", BONE, "degenerative joint disease", "osteoarthrosis",
            "degenerative arthritis", short=("OA", "DJD"), snomed="396275006", radlex="RID3555",
            sites=JOINTS, grades={grade: f"kellgren_lawrence_{grade}" for grade in range(1, 5)},
            typed=("arthrosis", "gonarthrosis", "osteo arthritis", "osteoarthritic", "osteoarthitis", "arthritis", "arthritic",
                   "degenerative change", "degenerative joint change", "degenerative knee", "wear and tear arthritis",
                   "osteoarthritic change")),
    *(finding(f"kellgren_lawrence_{grade}", f"Kellgren-Lawrence grade {grade}", BONE, f"Kellgren-Lawrence {grade}",
              f"Kellgren and Lawrence grade {grade}", *([f"Kellgren-Lawrence grade {ROMAN[grade]}"] if grade else []),
              short=(f"KL {grade}", f"KL grade {grade}", f"KL{grade}"), group="kellgren_lawrence",
              implies=("osteoarthritis",) if grade > 1 else (), abnormal=grade > 1,
              typed=(f"k l {grade}", f"kl {ROMAN[grade]}", f"grade {grade} osteoarthritis", f"grade {grade} oa",
                     f"oa grade {grade}", f"osteoarthritis grade {grade}", f"kellgren lawrence score {grade}",
                     f"kellgren lawrence score of {grade}", f"kl grade {ROMAN[grade]}", f"kl score {grade}",
                     f"klg {grade}",
                     f"kellgren {grade}", f"k l grade {grade}", f"osteoarthritis of grade {grade}", f"klg{grade}",
                     f"grade {ROMAN[grade]} osteoarthritis", f"osteoarthritis kl {grade}",
                     f"kellgren lawrence {ROMAN[grade]}", f"grade {grade} kellgren lawrence", f"kl stage {grade}",
                     f"grade {grade} kellgren and lawrence", f"k l grade {ROMAN[grade]}", f"k l {ROMAN[grade]}",
                     f"kellgren lawrence stage {grade}", f"arthrosis grade {grade}", f"grade {grade} arthrosis",
                     f"gonarthrosis grade {grade}", f"grade {grade} gonarthrosis"),
              local=dict.fromkeys((f"grade {grade}", f"grade {ROMAN[grade]}", *BY_SIGHT.get(grade, ())), BONE),
              sites=JOINTS)
      for grade in range(5)),
    finding("fracture", "fracture", XRAYS, "broken bone", short=("fx",), typed=("fractured", "broken"),
            snomed="125605004", radlex="RID4650"),
)

BRAIN = (
    finding("brain_tumour", "brain tumour", MRI, "intracranial tumour", "brain neoplasm", "cerebral tumour",
            snomed="126952004", typed=("brain mass", "brain cancer", "intracranial neoplasm", "intracranial mass"),
            local={"tumour": MRI, "neoplasm": MRI, "mass": MRI, "cancer": MRI}),
    finding("glioma", "glioma", MRI, "glial tumour", "glial neoplasm", implies=("brain_tumour",), snomed="393564001",
            radlex="RID4026", group="brain_tumour",
            typed=("glioblastoma", "glioblastoma multiforme", "astrocytoma", "gliomata", "glial brain tumour", "gbm",
                   "oligodendroglioma", "low grade glioma", "high grade glioma", "low grade astrocytoma", "anaplastic astrocytoma",
                   "lgg", "hgg")),
    finding("meningioma", "meningioma", MRI, "meningeal tumour", implies=("brain_tumour",), group="brain_tumour",
            snomed="302820008", radlex="RID4088", typed=("meningiomata",)),
    finding("pituitary_tumour", "pituitary tumour", MRI, "pituitary adenoma", "pituitary neoplasm",
            "hypophyseal tumour", implies=("brain_tumour",), group="brain_tumour", snomed="127024001",
            typed=("pituitary", "pituitary mass", "macroadenoma", "microadenoma", "hypophyseal adenoma", "prolactinoma",
                   "pituitary macroadenoma", "pituitary microadenoma", "sellar mass", "sellar tumour", "adenoma of the pituitary",
                   "tumour of the pituitary", "pituitary gland tumour", "pituitary gland adenoma", "hypophysis adenoma"),
            local={"adenoma": MRI}),
    finding("multiple_sclerosis", "multiple sclerosis", MRI, "demyelinating lesions of multiple sclerosis",
            "MS lesions", short=("MS",), snomed="24700007", radlex="RID28801",
            typed=("demyelination", "ms plaques", "demyelinating disease", "disseminated sclerosis",
                   "demyelinating plaques", "demyelinating lesions", "MS lesion", "MS plaque", "multiple sclerosis plaques",
                   "multiple sclerosis lesions", "Dawson's fingers", "Dawson fingers")),
    finding("relapsing_remitting_ms", "relapsing-remitting multiple sclerosis", MRI, "relapsing-remitting MS",
            short=("RRMS", "RR-MS"), implies=("multiple_sclerosis",), snomed="426373005",
            typed=("relapsing remitting", "relapsing multiple sclerosis", "relapsing MS", "relapsing remitting disease")),
    finding("skull_stripped", "skull stripping", MRI, "brain extraction", "skull removal", abnormal=False,
            opposites=("with the skull", "skull in place", "unstripped"),
            typed=("skull strip", "skull stripped", "skullstripped", "brain extracted", "skull removed", "brain only")),
    finding("intracranial_haemorrhage", "intracranial haemorrhage", CT, "intracranial bleed",
            "intracerebral haemorrhage", "brain haemorrhage", short=("ICH",), snomed="1386000",
            typed=("brain bleed", "head bleed", "cerebral haemorrhage", "haemorrhagic stroke", "intracranial bleeding",
                   "subdural haematoma", "brain bleeding"), local={"haemorrhage": CT, "bleed": CT, "bleeding": CT}),
)

KIDNEYS = (
    finding("kidney_cyst", "kidney cyst", CT, "renal cyst", snomed="722223000", radlex="RID35811",
            typed=("cystic kidney", "cyst of the kidney", "cyst in the kidney"), local={"cyst": CT}, group="kidney"),
    finding("kidney_stone", "kidney stone", CT, "renal stone", "renal calculus", "nephrolithiasis", snomed="95570007",
            typed=("kidney calculus", "renal calculi", "urolithiasis", "stone in the kidney", "stone of the kidney"),
            radlex="RID38586", local={"stone": CT, "calculus": CT, "calculi": CT}, group="kidney"),
    finding("kidney_tumour", "kidney tumour", CT, "renal tumour", "renal mass", "kidney neoplasm",
            typed=("renal cell carcinoma", "rcc", "kidney mass", "kidney cancer", "renal neoplasm",
                   "tumour of the kidney", "tumour in the kidney"),
            snomed="126880001", local={"tumour": CT, "mass": CT}, group="kidney"),
)

BREASTS = (
    finding("benign_breast_lesion", "benign breast lesion", BREAST, "benign lesion of the breast", "benign breast mass",
            "benign breast tumour", typed=("fibroadenoma", "benign breast", "benign lump", "benign breast lump",
                                           "fibroadenoma of the breast", "breast cyst", "simple breast cyst", "cyst of the breast"),
            local=dict.fromkeys(("benign", "benign lesion", "benign mass", "benign tumour", "benign nodule",
                                 "benign abnormality", "benign finding", "cyst", "phyllodes tumour", "benign phyllodes tumour",
                                 "breast fibroadenoma",
                                 "papilloma", "lipoma",
                                 *(f"{system} {grade}" for system in BI_RADS for grade in (2, 3))), BREAST)),
    finding("malignant_breast_lesion", "malignant breast lesion", BREAST, "breast cancer", "malignant breast mass",
            "malignant breast tumour", short=("breast CA",), snomed="254837009",
            typed=("breast carcinoma", "breast malignancy", "malignant breast", "cancer of the breast",
                   "malignant lesion of the breast"),
            local=dict.fromkeys(("malignant", "malignancy", "cancer", "malignant lesion", "malignant mass",
                                 "malignant tumour", "cancerous", "carcinoma", "malignant abnormality", "invasive ductal carcinoma",
                                 "ductal carcinoma", "lobular carcinoma", "invasive lobular carcinoma", "invasive carcinoma",
                                 "DCIS", "carcinoma in situ", "ductal carcinoma in situ", "IDC", "ILC", "malignant finding",
                                 "malignant lump", "cancerous lump", "malignant nodule",
                                 *(f"{system} {grade}" for system in BI_RADS for grade in (5, 6))), BREAST)),
    finding("fatty_breast", "fatty breast tissue", MAMMO, "almost entirely fatty breast", "fatty breast",
            snomed="129716005", abnormal=False, group="density",
            local={"fatty": MAMMO, "fatty tissue": MAMMO, "low density": MAMMO, "almost entirely fat": MAMMO,
                   "entirely fatty": MAMMO, "almost entirely fatty": MAMMO, "density A": MAMMO, "ACR A": MAMMO,
                   "ACR density A": MAMMO}),
    finding("fatty_glandular_breast", "fatty-glandular breast tissue", MAMMO, "fatty glandular breast", abnormal=False,
            group="density", typed=("scattered fibroglandular", "fatty glandular tissue", "fatty glandular",
                                    "scattered fibroglandular densities"),
            snomed="129717001", local={"fibroglandular": MAMMO, "scattered density": MAMMO, "density B": MAMMO, "ACR B": MAMMO,
                                                "ACR density B": MAMMO}),
    finding("dense_breast", "dense breast tissue", MAMMO, "dense-glandular breast", "dense breast", abnormal=False,
            group="density", typed=("dense glandular", "dense glandular tissue", "dense glandular breast tissue"),
            local={"dense": MAMMO, "dense tissue": MAMMO, "extremely dense": MAMMO, "heterogeneously dense": MAMMO,
                   "extremely dense breast": MAMMO, "heterogeneously dense breast": MAMMO, "very dense": MAMMO, **dict.fromkeys(
                       (f"{said} {grade}" for said in ("density", "ACR", "ACR density") for grade in "CD"), MAMMO)}),
    finding("calcification", "calcification", MAMMO, "microcalcification", "calcified lesion", short=("calc",),
            snomed="309587003", radlex="RID5196", typed=("calcium deposits", "micro calcifications", "calcified", "calcs",
                   "microcalcs",
                                               "microcalc")),
    finding("circumscribed_mass", "circumscribed mass", MAMMO, "well-defined mass", "well-circumscribed mass",
            short=("circ mass",), snomed="129738007",
            typed=("round mass", "circumscribed lesion", "well circumscribed mass"),
            local=dict.fromkeys(("circumscribed", "well circumscribed", "well defined"), MAMMO)),
    finding("spiculated_mass", "spiculated mass", MAMMO, "spiculated lesion", "stellate mass", short=("spic mass",),
            snomed="129742005", typed=("stellate lesion", "spiculated tumour"),
            local={"spiculated": MAMMO, "spiculation": MAMMO, "stellate": MAMMO}),
    finding("ill_defined_mass", "ill-defined mass", MAMMO, "indistinct mass", "poorly defined mass",
            snomed="129741003", typed=("ill defined lesion",),
            local=dict.fromkeys(("ill defined", "ill defined margins", "indistinct margins", "poorly defined"), MAMMO)),
    finding("architectural_distortion", "architectural distortion", MAMMO, "distorted architecture",
            short=("arch dist",), typed=("parenchymal distortion",), local={"distortion": MAMMO},
            snomed="129792006", radlex="RID34261"),
    finding("breast_asymmetry", "breast asymmetry", MAMMO, "asymmetric breast tissue", "focal asymmetry",
            short=("asym",), snomed="129790003", radlex="RID34265",
            typed=("asymmetric density",), local=dict.fromkeys(("asymmetry", "asymmetrical", "asymmetric"), MAMMO)),
)

TUMOURS = (
    finding("adenocarcinoma", "adenocarcinoma", TISSUE, "glandular carcinoma", short=("ACA", "adenoca"),
            snomed="35917007", group="lesion",
            typed=("adeno carcinoma", "adeno ca", "adenocarcinomas", "glandular cancer"),
            local={"adeno": TISSUE} | {f"{part} {kind}": TISSUE for kind in ("cancer", "carcinoma")  # nearly all of them are
                                       for part in BOWEL}),
    finding("squamous_cell_carcinoma", "squamous cell carcinoma", (*TISSUE, *SKIN), "squamous carcinoma",
            short=("SCC",), snomed="28899001", group="lesion",
            typed=("squamous cell cancer", "squamous cell ca", "epidermoid carcinoma", "spinalioma", "squamous cell",
                   "squamous cancer", "squamous ca", "squamous lung cancer"), local={"squamous": TISSUE}),
    finding("melanoma", "melanoma", SKIN, "malignant melanoma", "cutaneous melanoma", short=("MEL", "MM"),
            snomed="93655004", group="lesion", typed=("melanomata", "black skin cancer")),
    finding("naevus", "naevus", SKIN, "melanocytic naevus", "mole", short=("NEV", "NV"), group="lesion", abnormal=False,
            snomed="400096001", typed=("naevi", "benign mole", "melanocytic naevi", "birthmark", "benign naevus")),
    finding("seborrhoeic_keratosis", "seborrhoeic keratosis", SKIN, "seborrhoeic wart", short=("SK", "SEK"),
            group="lesion", snomed="25499005",
            typed=("seborrhoeic keratoses", "basal cell papilloma", "senile wart", "seb k", "seb keratosis", "seborrhoeic warts",
                   "seb ker")),
    finding("basal_cell_carcinoma", "basal cell carcinoma", SKIN, "rodent ulcer", "basalioma", short=("BCC",),
            group="lesion", snomed="254701007", typed=("basal cell cancer", "basal cell ca", "basal cell")),
    finding("actinic_keratosis", "actinic keratosis", SKIN, "solar keratosis", short=("AK", "ACK"), group="lesion",
            snomed="201101007", typed=("actinic keratoses", "solar keratoses")),
    *(finding(f"fitzpatrick_{step}", f"Fitzpatrick skin type {ROMAN[step]}", SKIN, f"Fitzpatrick type {ROMAN[step]}",
              f"skin phototype {ROMAN[step]}", f"Fitzpatrick skin type {step}",
              short=(f"FST {step}", f"FST {ROMAN[step]}"), group="fitzpatrick", abnormal=False,
              typed=(f"fitzpatrick {step}", f"fitzpatrick {ROMAN[step]}", f"fitzpatrick type {step}",
                     f"phototype {step}", f"phototype {ROMAN[step]}", f"skin type {step}", f"skin type {ROMAN[step]}",
                     f"skin phototype {step}", f"fitz {step}", f"fst{step}", f"fitzpatrick phototype {step}",
                     f"fitzpatrick phototype {ROMAN[step]}"))
      for step in range(1, 7)),
    finding("elevated_lesion", "elevated lesion", SKIN, "raised lesion", "palpable elevation", abnormal=False,
            opposites=("flat lesion",), local_opposites={"flat": SKIN}, typed=("nodular lesion",),
            local=dict.fromkeys(("elevated", "raised", "elevation", "palpable", "protruding"), SKIN)),
    finding("bleeding_lesion", "bleeding lesion", SKIN, "lesion that bleeds", "lesion that has bled", abnormal=False,
            snomed="297968009", local=dict.fromkeys(("bleeding", "bleed", "bleeds", "bled"), SKIN)),
    finding("itching_lesion", "itching lesion", SKIN, "itchy lesion", "pruritic lesion", abnormal=False,
            snomed="418363000", typed=("itching", "itchy", "itch", "itches", "pruritus", "pruritic")),
)


def cell(name: str, label: str, *synonyms: str, group: str | None = "cell", **more) -> Term:
    return finding(name, label, BLOOD, *synonyms, group=group, abnormal=False, **more)


CELLS = (
    cell("neutrophil", "neutrophil", "neutrophil granulocyte", "polymorphonuclear neutrophil", short=("PMN", "neut"),
         typed=("polymorph", "neutrophilic granulocyte", "neutrophilic", "polys")),
    cell("segmented_neutrophil", "segmented neutrophil", "segmented granulocyte", short=("seg", "SNE"),
         implies=("neutrophil",), group="neutrophil", snomed="80153006",
         typed=("seg neutrophil", "segs", "neutrophil segmented", "mature neutrophil")),
    cell("band_neutrophil", "band neutrophil", "band cell", "stab cell", short=("band", "BNE"), implies=("neutrophil",),
         snomed="702697008", group="neutrophil",
         typed=("stab neutrophil", "rod neutrophil", "band form", "neutrophil band")),
    cell("eosinophil", "eosinophil", "eosinophil granulocyte", short=("eos", "EO"), snomed="14793004",
         typed=("eosinophilic granulocyte", "acidophil")),
    cell("basophil", "basophil", "basophil granulocyte", short=("baso", "BA"), snomed="30061004",
         typed=("basophilic granulocyte",)),
    cell("lymphocyte", "lymphocyte", "lymphoid cell", short=("lymph", "LY"), snomed="56972008",
         typed=("lymphs", "b cell", "t cell")),
    cell("monocyte", "monocyte", "monocytic cell", short=("mono", "MO"), snomed="55918008"),
    cell("immature_granulocyte", "immature granulocyte", "granulocyte precursor", short=("IG",), snomed="726594001",
         typed=("left shift cell", "immature white cell"), local={"left shift": BLOOD}),
    cell("promyelocyte", "promyelocyte", "neutrophil promyelocyte", short=("PMY",), implies=("immature_granulocyte",),
         group="granulocyte", snomed="43446009", typed=("progranulocyte",)),
    cell("myelocyte", "myelocyte", "neutrophil myelocyte", short=("MY",), implies=("immature_granulocyte",),
         group="granulocyte", snomed="4717004"),
    cell("metamyelocyte", "metamyelocyte", "neutrophil metamyelocyte", short=("MMY",),
         implies=("immature_granulocyte",), group="granulocyte", snomed="50134008"),
    cell("erythroblast", "erythroblast", "nucleated red blood cell", "normoblast", short=("NRBC", "ERB"),
         typed=("nucleated red cell", "nucleated erythrocyte", "nucleated rbc")),
    cell("platelet", "platelet", "thrombocyte", short=("PLT",), snomed="16378004", typed=("giant platelet",)),
)

EYES = (
    finding("hard_exudates", "hard exudates", EYE, "lipid exudates", "hard retinal exudates", short=("HEx",),
            typed=("exudate", "exudates", "hard exudate", "exudation", "yellow exudates", "lipid deposits",
                   "hard retinal exudate", "hard yellow exudates")),
    finding("retinal_haemorrhage_or_microaneurysm", "retinal haemorrhages or microaneurysms", EYE,
            "haemorrhages or microaneurysms", short=("MA/H", "HMA"),
            typed=("retinal haemorrhage", "microaneurysm", "retinal haemorrhage or microaneurysm",
                   "dot and blot haemorrhages", "dot blot haemorrhage", "haemorrhages and microaneurysms",
                   "microaneurysms and haemorrhages", "microaneurysms or haemorrhages", "retinal bleeding",
                   "micro aneurysm", "haemorrhages microaneurysms", "retinal bleed", "flame haemorrhage",
                   "flame shaped haemorrhage", "blot haemorrhage", "dot haemorrhage", "retinal microaneurysm"),
            local={"haemorrhage": EYE, "bleeding": EYE, "ma": EYE}),
    finding("diabetic_retinopathy", "diabetic retinopathy", EYE, "retinopathy due to diabetes", short=("DR",),
            snomed="4855003", grades={2: "mild_nonproliferative_retinopathy", 3: "moderate_nonproliferative_retinopathy",
                                      4: "severe_nonproliferative_retinopathy"},
            typed=("diabetic eye disease", "retinopathy", "npdr", "diabetic retina", "diabetic fundus",
                   "nonproliferative retinopathy", "non proliferative retinopathy", "non proliferative diabetic retinopathy",
                   "background retinopathy",
                   "nonproliferative diabetic retinopathy", "background diabetic retinopathy", "non proliferative dr")),
    finding("diabetic_macular_oedema", "diabetic macular oedema", EYE, "macular oedema due to diabetes",
            "macular oedema", short=("DME", "DMO"), snomed="312912001",
            typed=("diabetic maculopathy", "csme", "cystoid macular oedema", "swollen macula")),
    finding("glaucoma", "glaucoma", EYE, "glaucomatous optic neuropathy", snomed="23986001"),
)

SCOPES = (
    finding("endotracheal_tube", "endotracheal tube", (*CHEST, *LARYNX), "tracheal tube", "breathing tube",
            short=("ETT",), abnormal=False, snomed="26412008", radlex="RID5557",
            typed=("intubation tube", "et tube", "intubated", "intubation", "endotracheal intubation", "tube in the trachea"),
            local={"tube": LARYNX}),
    finding("polyp", "polyp", GUT, "polypoid lesion", "mucosal polyp",
            typed=("polypoid", "adenomatous polyp", "sessile polyp", "polypous"),
            snomed="441456002", radlex="RID3881"),
    finding("vocal_folds", "vocal folds", LARYNX, "vocal cords", short=("VF", "VC"), abnormal=False,
            snomed="46105003", radlex="RID7673", typed=("vocal fold", "vocal cord", "glottic folds", "vocal chord"),
            local={"cord": LARYNX, "chord": LARYNX, "vocal": LARYNX}),
    finding("glottal_space", "glottal space", LARYNX, "glottal gap", "open glottis", "rima glottidis", abnormal=False,
            typed=("glottis", "glottal opening", "glottic space", "glottic opening", "glottic gap")),
    finding("surgical_tool", "surgical tool", ENDOSCOPIES, "surgical instrument", "instrument", abnormal=False,
            typed=("tool", "forceps", "grasper", "scissors", "surgical instruments", "laparoscopic instrument",
                   "clip applier", "laparoscopic tool", "operating instrument", "laparoscopic grasper", "dissector",
                   "hook dissector", "maryland dissector", "trocar", "stapler", "needle holder", "electrocautery", "cautery",
                   "diathermy hook",
                   "electrocautery hook", "grasping forceps", "biopsy forceps", "microforceps", "suction irrigator", "clipper",
                   "L hook", "bipolar forceps", "harmonic scalpel"),
            local=dict.fromkeys(("hook", "clip", "bipolar", "suction", "scalpel", "retractor", "probe", "needle", "device"),
                   ENDOSCOPIES),
            snomed="37759000"),
    finding("laryngeal_lesion", "laryngeal lesion", LARYNX, "lesion of the larynx", "laryngeal pathology",
            typed=("laryngeal tumour", "laryngeal cancer", "laryngeal mass", "pathology of the larynx", "laryngeal papilloma",
                   "laryngeal polyp", "papillomatosis", "laryngeal carcinoma", "glottic carcinoma", "glottic cancer",
                   "Reinke's oedema", "Reinke oedema"),
            local=dict.fromkeys(("lesion", "tumour", "nodule", "polyp", "mass", "growth", "cyst", "granuloma", "leukoplakia",
                                 "papilloma", "cancer", "carcinoma", "SCC", "squamous cell carcinoma"), LARYNX)),
)


def at(sites: tuple[str, ...], terms: tuple[Term, ...]) -> tuple[Term, ...]:
    return tuple(replace(term, sites=sites) for term in terms)


FINDINGS = (*ANY, *at(("chest", "lung"), LUNGS), *BONES, *at(("brain", "head"), BRAIN),
            *at(("kidney", "abdomen"), KIDNEYS), *at(("breast",), BREASTS), *TUMOURS, *CELLS, *EYES, *SCOPES)
STRANGE = (  # wordings that end in a known word and mean something else
    *(f"{kind} arthritis" for kind in (
        "rheumatoid", "septic", "psoriatic", "gouty", "reactive", "infectious", "infective", "inflammatory", "juvenile idiopathic"
    )),
    "pericardial effusion", "joint effusion", "middle ear effusion")
