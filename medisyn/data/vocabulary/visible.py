"""Findings seen in colour, beyond the first list: tissue, blood cells, skin, eye and gut, as public datasets name them."""

from medisyn.data.vocabulary.findings import GUT, SKIN, TISSUE, at, cell, finding
from medisyn.data.vocabulary.places import EYE, METASTASES

FUNDUS = ("fundus_photograph",)
OCT = ("oct",)
GRADES = ("mild", "moderate", "severe")

TISSUES = (
    finding("adipose_tissue", "adipose tissue", TISSUE, "fat tissue", abnormal=False, group="tissue"),
    finding("cellular_debris", "cellular debris", TISSUE, "necrotic debris", abnormal=False, group="tissue"),
    finding("lymphocytic_infiltrate", "lymphocytic infiltrate", TISSUE, "aggregated lymphocytes", abnormal=False,
            group="tissue"),
    finding("mucus", "mucus", TISSUE, "mucin pool", abnormal=False, group="tissue"),
    finding("smooth_muscle", "smooth muscle", TISSUE, "smooth muscle tissue", abnormal=False, group="tissue"),
    finding("tumour_stroma", "cancer-associated stroma", TISSUE, "tumour stroma", abnormal=False, group="tissue"),
    finding("hyperplastic_polyp", "hyperplastic polyp", TISSUE, "hyperplastic colorectal polyp", group="polyp"),
    finding("sessile_serrated_adenoma", "sessile serrated adenoma", TISSUE, "sessile serrated lesion", short=("SSA",),
            group="polyp"),
    finding("lymph_node_metastasis", "lymph node metastasis", TISSUE, "metastasis in a lymph node",
            typed=("nodal metastasis", *METASTASES)),
    finding("benign_breast_tissue_lesion", "benign breast tissue lesion", TISSUE, "benign lesion in breast tissue",
            group="breast_tissue"),
    finding("breast_carcinoma_tissue", "breast carcinoma tissue", TISSUE, "malignant breast tissue lesion",
            group="breast_tissue"),
    finding("carcinoma_in_situ", "carcinoma in situ", TISSUE, "in situ carcinoma", typed=("dcis",)),
    finding("invasive_carcinoma", "invasive carcinoma", TISSUE, "infiltrating carcinoma"),
    *(finding(name, label, TISSUE, *synonyms, implies=(f"{kind}",), group="breast_subtype")
      for name, label, kind, *synonyms in (
          ("breast_adenosis", "breast adenosis", "benign_breast_tissue_lesion"),
          ("breast_fibroadenoma", "fibroadenoma of breast tissue", "benign_breast_tissue_lesion"),
          ("phyllodes_tumour", "phyllodes tumour", "benign_breast_tissue_lesion", "phylloides tumour"),
          ("tubular_breast_adenoma", "tubular breast adenoma", "benign_breast_tissue_lesion"),
          ("ductal_carcinoma", "ductal carcinoma", "breast_carcinoma_tissue"),
          ("lobular_carcinoma", "lobular carcinoma", "breast_carcinoma_tissue"),
          ("mucinous_carcinoma", "mucinous carcinoma", "breast_carcinoma_tissue"),
          ("papillary_carcinoma", "papillary carcinoma", "breast_carcinoma_tissue"))),
)

CELLS = (
    cell("lymphoblast", "leukaemic lymphoblast", "lymphoblast", typed=("blast of acute lymphoblastic leukaemia",)),
    cell("myeloblast", "myeloblast", "myeloid blast"),
    cell("monoblast", "monoblast", "monocytic blast"),
    cell("atypical_lymphocyte", "atypical lymphocyte", "reactive lymphocyte"),
    cell("smudge_cell", "smudge cell", "Gumprecht shadow"),
    cell("malaria_parasite", "malaria parasite", "Plasmodium in a red blood cell", group=None,
         typed=("plasmodium", "parasitised red cell")),
)

SKINS = (
    finding("dermatofibroma", "dermatofibroma", SKIN, "fibrous histiocytoma", short=("DF",), group="lesion"),
    finding("vascular_skin_lesion", "vascular skin lesion", SKIN, "angioma", short=("VASC",), group="lesion"),
    finding("benign_keratosis", "benign keratosis", SKIN, "benign keratosis-like lesion", short=("BKL",), group="lesion"),
    finding("actinic_keratosis_or_bowens_disease", "actinic keratosis or Bowen's disease", SKIN,
            "keratinocytic intraepithelial lesion", short=("AKIEC",), group="lesion"),
    finding("benign_skin_lesion", "benign skin lesion", SKIN, "benign lesion of the skin", group="dignity", abnormal=False),
    finding("malignant_skin_lesion", "malignant skin lesion", SKIN, "skin malignancy", group="dignity",
            typed=("skin cancer",)),
    finding("psoriasis", "psoriasis", SKIN, "psoriatic plaque", typed=("psoriatic",)),
    finding("eczema", "eczema", SKIN, "eczematous dermatitis", typed=("eczematous",)),
    finding("lichen_planus", "lichen planus", SKIN, "lichen ruber planus"),
    finding("acne", "acne", SKIN, "acne vulgaris"),
    finding("vitiligo", "vitiligo", SKIN, "depigmented patch"),
    finding("rosacea", "rosacea", SKIN, "rosaceous redness"),
    finding("scabies", "scabies", SKIN, "infestation with Sarcoptes"),
)

EYES = (
    *(finding(f"{grade}_nonproliferative_retinopathy", f"{grade} non-proliferative diabetic retinopathy", FUNDUS,
              f"{grade} NPDR", implies=("diabetic_retinopathy", "retinal_haemorrhage_or_microaneurysm"),  # by definition
              group="retinopathy_grade") for grade in GRADES),
    finding("proliferative_retinopathy", "proliferative diabetic retinopathy", FUNDUS, "proliferative retinopathy",
            short=("PDR",), implies=("diabetic_retinopathy",), group="retinopathy_grade"),
    finding("drusen", "drusen", EYE, "drusenoid deposits", typed=("druse",)),
    finding("age_related_macular_degeneration", "age-related macular degeneration", EYE, "macular degeneration",
            short=("AMD", "ARMD")),
    finding("choroidal_neovascularisation", "choroidal neovascularisation", OCT, "choroidal neovascular membrane",
            short=("CNV",), typed=("choroidal neovascularization",)),
    finding("epiretinal_membrane", "epiretinal membrane", EYE, "macular pucker", short=("ERM",)),
    finding("retinal_vein_occlusion", "retinal vein occlusion", EYE, "occluded retinal vein", short=("RVO",)),
    finding("retinal_artery_occlusion", "retinal artery occlusion", EYE, "occluded retinal artery", short=("RAO",)),
    finding("vitreomacular_interface_disease", "vitreomacular interface disease", OCT, "vitreomacular traction",
            short=("VID",)),
    finding("pathological_myopia", "pathological myopia", FUNDUS, "myopic retinopathy", typed=("myopic fundus",)),
    finding("hypertensive_retinopathy", "hypertensive retinopathy", FUNDUS, "retinopathy due to hypertension"),
    finding("cataract", "cataract", FUNDUS, "clouded lens"),
    finding("media_haze", "media haze", FUNDUS, "hazy ocular media"),
    finding("tessellated_fundus", "tessellated fundus", FUNDUS, "tessellation of the fundus", abnormal=False),
    finding("laser_scars", "retinal laser scars", FUNDUS, "laser scars", typed=("photocoagulation scars",)),
    finding("central_serous_retinopathy", "central serous retinopathy", EYE, "central serous chorioretinopathy",
            short=("CSR",)),
    finding("optic_disc_cupping", "optic disc cupping", FUNDUS, "cupped optic disc",
            typed=("optic disk cupping", "cupped disc", "cupped disk")),
    finding("optic_disc_pallor", "optic disc pallor", FUNDUS, "pale optic disc", typed=("optic disk pallor",)),
    finding("optic_disc_oedema", "optic disc oedema", FUNDUS, "swollen optic disc", typed=("papilloedema",)),
    finding("chorioretinitis", "chorioretinitis", FUNDUS, "chorioretinal inflammation"),
    finding("retinitis_pigmentosa", "retinitis pigmentosa", FUNDUS, "pigmentary retinopathy"),
)

GUTS = (
    finding("ulcerative_colitis", "ulcerative colitis", GUT, "colitis ulcerosa", short=("UC",)),
    *(finding(f"{activity}_colitis", f"Mayo endoscopic subscore {grade}", GUT, f"Mayo score {grade}",
              short=(f"Mayo {grade}", f"MES {grade}"), group="mayo", abnormal=grade > 0)
      for grade, activity in enumerate(("inactive", *GRADES))),
    finding("oesophagitis", "oesophagitis", GUT, "reflux oesophagitis"),
    finding("barretts_oesophagus", "Barrett's oesophagus", GUT, "Barrett oesophagus", typed=("barretts",)),
    finding("oesophageal_varices", "oesophageal varices", GUT, "varices of the oesophagus"),
    finding("haemorrhoids", "haemorrhoids", GUT, "piles"),
    finding("gastrointestinal_ulcer", "gastrointestinal ulcer", GUT, "mucosal ulcer",
            typed=("gastric ulcer", "stomach ulcer", "peptic ulcer", "duodenal ulcer", "ulceration"), local={"ulcer": GUT}),
    finding("angiectasia", "angiectasia", GUT, "angiodysplasia"),
    finding("colorectal_cancer", "colorectal cancer", GUT, "colorectal carcinoma"),
    finding("diverticula", "colonic diverticula", GUT, "diverticulosis"),
    finding("mucosal_erythema", "mucosal erythema", GUT, "reddened mucosa"),
    finding("mucosal_inflammation", "mucosal inflammation", GUT, "inflamed mucosa"),
    finding("blood_in_lumen", "blood in the lumen", GUT, "luminal blood", local={"bleeding": GUT, "fresh blood": GUT}),
    finding("dyed_lifted_polyp", "dyed lifted polyp", GUT, "polyp lifted by dye", implies=("polyp",)),
    finding("dyed_resection_margins", "dyed resection margins", GUT, "dyed margins of a resection", abnormal=False),
    finding("impacted_stool", "impacted stool", GUT, "stool in the bowel", abnormal=False),
)

VISIBLE = (*TISSUES, *CELLS, *SKINS, *at(("retina", "macula"), EYES), *GUTS)
