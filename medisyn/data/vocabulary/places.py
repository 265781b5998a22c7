"""Places: anatomy, views, techniques, sides and sexes, the facts beside the findings."""

from medisyn.data.vocabulary.terms import Term

XRAYS = ("chest_xray", "bone_xray")
SKIN = ("dermoscopy", "skin_photograph")
EYE = ("fundus_photograph", "oct")
ENDOSCOPIES = ("gi_endoscopy", "laryngoscopy", "laparoscopy")
LIMB = ("bone_xray", "mri", "ct", "skin_photograph", "dermoscopy", "ultrasound")
PAIRED = ("bone_xray", "ultrasound", "mammography", "ct", "mri", "histopathology", *SKIN, *EYE)  # one side may be shown
TRUNK = ("ct", "mri", "ultrasound")


def part(name: str, label: str, image_types: tuple[str, ...], *synonyms: str, snomed: str | None = None,
         radlex: str | None = None, typed: tuple[str, ...] = (), short: tuple[str, ...] = (),
         local: dict[str, tuple[str, ...]] | None = None, shows: tuple[str, ...] = ()) -> Term:
    codes = {"SNOMED CT": snomed, "RadLex": radlex}
    return Term(name, label, "anatomy", synonyms, {system: code for system, code in codes.items() if code},
                image_types, abbreviations=short, typed=typed, local=local or {}, shows=shows)


def way(kind: str, name: str, label: str, image_types: tuple[str, ...], *synonyms: str, short: tuple[str, ...] = (),
        typed: tuple[str, ...] = (), codes: dict[str, str] | None = None,
        local: dict[str, tuple[str, ...]] | None = None) -> Term:
    return Term(name, label, kind, synonyms, codes or {}, image_types, abbreviations=short, typed=typed,
                local=local or {})


ANATOMY = (
    part("chest", "chest", ("chest_xray", "ct", "mri", "ultrasound"), "thorax", snomed="51185008", radlex="RID1243",
         typed=("thoracic",), local={"lung": ("chest_xray",)}),
    part("lung", "lung", ("histopathology", "ct"), snomed="39607008", radlex="RID1301",
         typed=("pulmonary", "lungs", "bronchial"), shows=("chest",)),
    part("heart", "heart", TRUNK, snomed="80891009", radlex="RID1385", typed=("cardiac",), shows=("chest",)),
    part("brain", "brain", ("mri", "ct", "histopathology"), "cerebrum", snomed="12738006", radlex="RID6434",
         typed=("cerebral", "intracranial", "cranial"), shows=("head",)),
    part("head", "head", ("ct", "mri"), snomed="69536005", typed=("skull", "cranium"), shows=("brain",)),
    part("breast", "breast", ("ultrasound", "mammography", "mri", "histopathology"), "mammary gland", snomed="76752008",
         typed=("mammary",)),
    part("kidney", "kidney", ("ct", "mri", "ultrasound", "histopathology"), snomed="64033007", radlex="RID205",
         typed=("renal",), shows=("abdomen",)),
    part("liver", "liver", (*TRUNK, "histopathology", "laparoscopy"), snomed="10200004", radlex="RID58",
         typed=("hepatic",), shows=("abdomen",)),
    part("abdomen", "abdomen", (*TRUNK, "laparoscopy"), "abdominal cavity", snomed="818981001", radlex="RID56",
         typed=("abdominal", "abdo", "belly")),
    part("pelvis", "pelvis", ("bone_xray", *TRUNK), snomed="12921003", typed=("pelvic",)),
    part("gallbladder", "gallbladder", ("ultrasound", "laparoscopy", "ct"), snomed="28231008", typed=("gall bladder",),
         shows=("abdomen",)),
    part("appendix", "appendix", ("laparoscopy", "ct", "ultrasound"), snomed="66754008", shows=("abdomen",)),
    part("prostate", "prostate", ("mri", "ultrasound", "histopathology"), snomed="41216001"),
    part("thyroid", "thyroid", ("ultrasound", "ct", "histopathology"), "thyroid gland", snomed="69748006"),
    part("colon", "colon", ("histopathology", "gi_endoscopy", "ct"), "large bowel", "large intestine",
         snomed="71854001",
         typed=("colonic", "colorectal", "bowel", "colonoscopy", "colonoscopic", "colonoscope", "sigmoidoscopy"),
         shows=("abdomen",)),
    part("stomach", "stomach", ("gi_endoscopy", "histopathology"), snomed="69695003",
         typed=("gastric", "gastroscopy", "gastroscopic"), shows=("abdomen",)),
    part("oesophagus", "oesophagus", ("gi_endoscopy", "histopathology"), snomed="32849002", typed=("oesophageal",)),
    part("rectum", "rectum", ("gi_endoscopy", "histopathology"), snomed="34402009", typed=("rectal", "rectoscopy")),
    part("peripheral_blood", "peripheral blood", ("blood_smear",), snomed="87612001", typed=("blood",), short=("PB",)),
    part("retina", "retina", EYE, snomed="5665001", typed=("retinal",)),
    part("macula", "macula", EYE, typed=("macular", "fovea", "foveal"), shows=("retina",)),
    part("larynx", "larynx", ("laryngoscopy",), "voice box", snomed="4596009", typed=("laryngeal", "throat")),
    part("spine", "spine", ("bone_xray", "mri", "ct"), "vertebral column", snomed="421060004", typed=("spinal",)),
    part("knee", "knee", ("bone_xray", "mri"), "knee joint", snomed="72696002", typed=("tibiofemoral joint",)),
    part("hip", "hip", ("bone_xray", "mri"), "hip joint", snomed="29836001"),
    part("wrist", "wrist", ("bone_xray", "mri"), snomed="8205005"),
    part("shoulder", "shoulder", ("bone_xray", "mri"), snomed="16982005"),
    part("elbow", "elbow", ("bone_xray", "mri"), snomed="16953009"),
    part("ankle", "ankle", ("bone_xray", "mri"), snomed="70258002"),
    part("skin", "skin", (*SKIN, "histopathology"), snomed="39937001", typed=("cutaneous",)),
    part("face", "face", SKIN, snomed="89545001", typed=("facial", "cheek", "forehead", "chin"), shows=("skin",)),
    part("scalp", "scalp", SKIN, snomed="41695006", shows=("skin",)),
    part("nose", "nose", SKIN, snomed="45206002", typed=("nasal",), shows=("skin",)),
    part("lip", "lip", SKIN, snomed="48477009", shows=("skin",)),
    part("ear", "ear", SKIN, snomed="117590005", typed=("auricle",), shows=("skin",)),
    part("neck", "neck", (*SKIN, "ct", "ultrasound"), snomed="45048000", shows=("skin",)),
    part("chest_skin", "skin of the chest", SKIN, "chest skin", snomed="74160004",
         local={"chest": SKIN, "thorax": SKIN, "sternum": SKIN}, shows=("skin",)),
    part("abdomen_skin", "skin of the abdomen", SKIN, "abdominal skin", snomed="75093004",
         local={"abdomen": SKIN, "belly": SKIN, "abdominal": SKIN, "stomach": SKIN}, shows=("skin",)),
    part("back", "back", SKIN, snomed="77568009", typed=("upper back", "lower back", "dorsum"), shows=("skin",)),
    part("arm", "arm", LIMB, "upper arm", snomed="40983000", shows=("skin",)),
    part("forearm", "forearm", LIMB, snomed="14975008", shows=("skin",)),
    part("hand", "hand", LIMB, snomed="85562004", typed=("finger",), shows=("skin",)),
    part("thigh", "thigh", LIMB, snomed="68367000", shows=("skin",)),
    part("leg", "leg", LIMB, snomed="30021000", typed=("lower leg", "calf", "shin"), shows=("skin",)),
    part("foot", "foot", LIMB, snomed="56459004", typed=("feet", "toe"), shows=("skin",)),
)

VIEWS = (
    way("view", "posteroanterior", "posteroanterior", XRAYS, "postero-anterior", short=("PA",),
        codes={"SNOMED CT": "272479007", "DICOM": "PA"},
        typed=("p a", "posterior anterior", "posterior to anterior", "posteroanterior projection")),
    way("view", "anteroposterior", "anteroposterior", XRAYS, "antero-posterior", short=("AP",),
        codes={"SNOMED CT": "399348003", "DICOM": "AP"},
        typed=("a p", "anterior posterior", "anterior to posterior")),
    way("view", "anteroposterior_supine", "supine anteroposterior", XRAYS, "anteroposterior supine",
        short=("AP supine", "supine AP"), typed=("supine", "ap lying", "lying down", "bedside supine")),
    way("view", "lateral", "lateral", XRAYS, short=("lat",), codes={"SNOMED CT": "399067008"},
        typed=("side view", "lateral projection", "profile view")),
    way("view", "axial", "axial", ("ct", "mri"), "transverse", short=("ax",),
        codes={"SNOMED CT": "24422004"}, typed=("transaxial", "axial plane")),
    way("view", "coronal", "coronal", ("ct", "mri"), short=("cor",), codes={"SNOMED CT": "81654009"},
        typed=("coronal plane", "frontal plane")),
    way("view", "sagittal", "sagittal", ("ct", "mri"), short=("sag",), codes={"SNOMED CT": "30730003"},
        typed=("sagittal plane", "saggital", "sagital")),
    way("view", "mediolateral_oblique", "mediolateral oblique", ("mammography",), "medio-lateral oblique",
        short=("MLO",), codes={"SNOMED CT": "399368009", "DICOM": "MLO"}),
    way("view", "craniocaudal", "craniocaudal", ("mammography",), "cranio-caudal", short=("CC",),
        codes={"SNOMED CT": "399162004", "DICOM": "CC"}),
    way("view", "macula_centred", "macula-centred", EYE, "fovea-centred", short=("mac-centred",),
        codes={"DICOM": "111900"},
        typed=("macular centred", "centred on the macula", "centred at the macula", "field 2", "posterior pole")),
    way("view", "disc_centred", "disc-centred", EYE, "optic-disc-centred",
        short=("ONH-centred",), codes={"DICOM": "111901"},
        typed=("disk centred", "centred on the optic disc", "optic disk centred", "optic nerve centred",
               "centred on the disc", "centred on the optic disk")),
    way("view", "single_cell", "single-cell", ("blood_smear",), "single cell", "isolated cell", "one cell",
        typed=("cropped cell", "individual cell", "cell crop", "single wbc", "single white blood cell",
               "single blood cell")),
    way("view", "smear_field", "smear-field", ("blood_smear",), "whole-field", "field of view", "many-cell",
        short=("HPF",), typed=("many cells", "microscopic field", "whole field", "multiple cells", "field of cells")),
)

TECHNIQUES = (
    way("technique", "t1", "T1-weighted", ("mri",), "T1 weighted", "T1-weighted sequence", short=("T1", "T1w"),
        codes={"RadLex": "RID10794"}, typed=("t1wi", "t1 w", "t1 sequence", "unenhanced t1", "t1 native")),
    way("technique", "t1_post_contrast", "T1-weighted post-contrast", ("mri",), "contrast-enhanced T1-weighted",
        "post-contrast T1-weighted", "gadolinium-enhanced T1-weighted",
        short=("T1 post-contrast", "T1c", "T1 Gd", "T1+C"),
        typed=("t1 contrast", "t1ce", "t1 post", "t1w post contrast", "contrast enhanced t1", "t1 gadolinium",
               "t1 with contrast", "post contrast t1", "t1 ce", "t1 c", "t1km", "t1 weighted contrast enhanced",
               "t1 contrast enhanced",
               "t1 weighted with contrast", "contrast t1", "gd t1", "ce t1", "t1w with contrast"),
        local={"post contrast": ("mri",), "contrast enhanced": ("mri",), "gadolinium": ("mri",),
               "with contrast": ("mri",), "gadolinium enhanced": ("mri",)}),
    way("technique", "t2", "T2-weighted", ("mri",), "T2 weighted", "T2-weighted sequence", short=("T2", "T2w"),
        codes={"RadLex": "RID10795"}, typed=("t2wi", "t2 w", "t2 sequence")),
    way("technique", "flair", "FLAIR", ("mri",), "fluid-attenuated inversion recovery", "T2 FLAIR", short=("FLAIR",),
        codes={"RadLex": "RID35806"}, typed=("t2 weighted flair", "t2w flair", "flair sequence")),
    way("technique", "contrast_enhanced", "contrast-enhanced", ("ct",), "post-contrast", short=("C+", "CE"),
        codes={"RadLex": "RID28769"},
        typed=("enhanced", "with contrast", "with iv contrast", "iv contrast", "contrast", "intravenous contrast",
               "portal venous phase")),
    way("technique", "non_contrast", "non-contrast", ("ct", "mri"), "unenhanced", short=("NC", "C-"),
        codes={"RadLex": "RID28768"},
        typed=("no contrast", "without contrast", "plain ct", "noncontrast", "non enhanced", "native ct",
               "without iv contrast")),
    way("technique", "haematoxylin_eosin", "haematoxylin and eosin", ("histopathology",), "H&E", "haematoxylin-eosin",
        "H&E-stained", short=("H&E",), codes={"SNOMED CT": "104210008"},
        typed=("he", "haematoxylin eosin", "haematoxylin", "eosin stained", "h e", "h and e")),
    way("technique", "may_grunwald_giemsa", "May Grünwald-Giemsa", ("blood_smear",), "May-Grunwald-Giemsa",
        "May Grunwald Giemsa", "May-Grünwald-Giemsa-stained", short=("MGG",), codes={"SNOMED CT": "255803006"},
        typed=("pappenheim", "may gruenwald giemsa", "may grunwald", "giemsa")),
    way("technique", "wright_giemsa", "Wright-Giemsa", ("blood_smear",), "Wright Giemsa", "Wright-Giemsa-stained",
        short=("WG",), typed=("wright", "wrights")),
    way("technique", "white_light", "white-light", ENDOSCOPIES, "white light", short=("WLI", "WL"),
        typed=("white light imaging",)),
    way("technique", "narrow_band", "narrow-band", ENDOSCOPIES, "narrow-band imaging", "narrow band imaging",
        short=("NBI",)),
)

SIDES = (
    way("laterality", "left", "left", PAIRED, "left-sided", short=("L", "lt"), typed=("left side", "left hand side"),
        codes={"SNOMED CT": "7771000", "DICOM": "L"}, local={"os": EYE, "oi": EYE, "oculus sinister": EYE}),
    way("laterality", "right", "right", PAIRED, "right-sided", short=("R", "rt"),
        typed=("right side", "right hand side"),
        codes={"SNOMED CT": "24028007", "DICOM": "R"}, local={"od": EYE, "oculus dexter": EYE}),
)

SEXES = (
    way("sex", "female", "female", (), short=("F",), codes={"SNOMED CT": "248152002", "DICOM": "F"},
        typed=("woman", "women", "girl", "lady", "she", "her", "schoolgirl", "femal", "mother", "mrs")),
    way("sex", "male", "male", (), short=("M",), codes={"SNOMED CT": "248153007", "DICOM": "M"},
        typed=("man", "men", "boy", "gentleman", "he", "his", "schoolboy", "father")),
)
