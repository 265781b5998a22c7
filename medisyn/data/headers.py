"""Headers: what a DICOM header says of an image, in the words of the vocabulary.

Read by allow-list: the fields of `deidentify.ALLOWED`, and beside them the code values (never their meanings, which may
be anybody's words) of three coded sequences and the numbers of the functional groups. A word that is not in the tables
here stays unknown. Descriptions are free text and are not read.
"""

from collections.abc import Iterator, Mapping

from medisyn.data import deidentify, vocabulary

BODY_PARTS = {  # BodyPartExamined (PS3.16 annex L): anatomy
    "CHEST": "chest", "THORAX": "chest", "LUNG": "lung", "HEART": "heart", "BRAIN": "brain", "HEAD": "head", "SKULL": "head",
    "BREAST": "breast", "KIDNEY": "kidney", "LIVER": "liver", "ABDOMEN": "abdomen", "PELVIS": "pelvis",
    "GALLBLADDER": "gallbladder", "APPENDIX": "appendix", "PROSTATE": "prostate", "THYROID": "thyroid", "COLON": "colon",
    "STOMACH": "stomach", "ESOPHAGUS": "oesophagus", "RECTUM": "rectum", "RETINA": "retina", "LARYNX": "larynx",
    "SPINE": "spine", "CSPINE": "spine", "TSPINE": "spine", "LSPINE": "spine", "CTSPINE": "spine", "TLSPINE": "spine",
    "LSSPINE": "spine", "KNEE": "knee", "HIP": "hip", "WRIST": "wrist", "SHOULDER": "shoulder", "ELBOW": "elbow",
    "ANKLE": "ankle", "SKIN": "skin", "FACE": "face", "SCALP": "scalp", "NOSE": "nose", "EAR": "ear", "NECK": "neck",
    "BACK": "back", "ARM": "arm", "UPPERARM": "arm", "HUMERUS": "arm", "FOREARM": "forearm", "HAND": "hand", "THIGH": "thigh",
    "FEMUR": "thigh", "LEG": "leg", "LOWERLEG": "leg", "FOOT": "foot",
}
VIEW_POSITIONS = {  # ViewPosition: view
    "PA": "posteroanterior", "AP": "anteroposterior", "LL": "lateral", "RL": "lateral", "LAT": "lateral", "LATERAL": "lateral",
    "MLO": "mediolateral_oblique", "CC": "craniocaudal",
}
# Codes beside the vocabulary's own: left and right lateral (CID 4010); older codes of the abdomen, the fundus of the eye
VIEW_CODES = {"399173006": "lateral", "399198007": "lateral"}
ANATOMY_CODES = {"113345001": "abdomen", "818983003": "abdomen", "65784005": "retina"}
MODALITIES = {"CT": "ct", "MR": "mri", "US": "ultrasound", "MG": "mammography", "DMS": "dermoscopy", "OPT": "oct"}
RADIOGRAPHED = {"chest": "chest_xray"} | dict.fromkeys((
    "spine", "knee", "hip", "wrist", "shoulder", "elbow", "ankle", "hand", "foot", "forearm", "arm", "thigh", "leg", "pelvis"),
    "bone_xray")
SITES = {  # modality: {anatomy: image type}, where the modality alone does not tell
    "CR": RADIOGRAPHED, "DX": RADIOGRAPHED,
    "OP": {"retina": "fundus_photograph"},  # not the front of the eye
    "ES": {"colon": "gi_endoscopy", "stomach": "gi_endoscopy", "oesophagus": "gi_endoscopy", "rectum": "gi_endoscopy",
           "larynx": "laryngoscopy"},
    "XC": dict.fromkeys(("skin", "face", "scalp", "back"), "skin_photograph"),
}
MAY_BE = {  # modality: the image types that somebody may say it is, where the header does not decide; any other modality: all
    "CR": {"chest_xray", "bone_xray", "mammography"}, "DX": {"chest_xray", "bone_xray", "mammography"},
    "OP": {"fundus_photograph"}, "SM": {"histopathology", "blood_smear"}, "ES": {"gi_endoscopy", "laryngoscopy", "laparoscopy"},
    "NM": set(), "PT": set(), **{modality: {kind} for modality, kind in MODALITIES.items()},
}
FUNDUS_CAMERA = "1.2.840.10008.5.1.4.1.1.77.1.5.5"  # Wide Field Ophthalmic Photography, and its children, are fundus images
STAINS = {  # codes of the substances used (CID 8112): technique
    frozenset({"12710003", "36879007"}): "haematoxylin_eosin", frozenset({"104210008"}): "haematoxylin_eosin",
    frozenset({"255803006"}): "may_grunwald_giemsa",
}
STAINED = {"haematoxylin_eosin": "histopathology", "may_grunwald_giemsa": "blood_smear"}
CONTRASTS = {"T1": "t1", "T2": "t2", "FLUID_ATTENUATED": "flair"}  # AcquisitionContrast (PS3.3 C.8.13.2.1.1)
NOT_A_PICTURE = {  # SOP classes that hold pixels which are not looked at
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation (labels)", "1.2.840.10008.5.1.4.1.1.66.7": "a label map",
    "1.2.840.10008.5.1.4.1.1.481.2": "a radiotherapy dose",
}
PLANES = ("sagittal", "coronal", "axial")  # by the patient's axis (x, y, z) that stands on the image
UPRIGHT = 0.9                              # least cosine between the two; more oblique planes have no name


def facts(dataset: object, frame: int = 0, header: Mapping[str, object] | None = None) -> dict[str, object]:
    """The fields of a Record that a header tells, and `doubt`, why the image should wait until somebody has looked at it.

    dataset   a pydicom Dataset; pixels are not needed
    frame     counted from 0; enhanced objects say some things frame by frame
    header    `deidentify.facts_header(dataset)`, where it was read before

    `patient` is the raw key, to be hashed at once. What is unknown is left out; `doubt` is always there.
    """
    header = deidentify.facts_header(dataset) if header is None else header
    stain = technique_of_slide(dataset) if header.get("Modality") == "SM" else None
    anatomy = anatomy_of(header, dataset, frame)
    kind = image_type(header, anatomy) or STAINED.get(stain)
    found = {"image_type": kind, "anatomy": anatomy, "view": view(header, dataset, frame, kind),
             "technique": stain or technique(header, dataset, frame, kind), "laterality": laterality(header, dataset, frame),
             "age_years": age_years(header),
             "sex": {"F": "female", "M": "male"}.get(deidentify.word(header, "PatientSex")),
             "patient": deidentify.person(header)}
    return {**completed(fitting(found)), "doubt": deidentify.doubt(header)}


def fitting(found: Mapping[str, object]) -> dict[str, object]:
    """Facts without what is unknown, and without the words that do not apply to their image type."""
    kind = found.get("image_type")
    return {name: value for name, value in found.items() if value is not None
            and not (kind and name in vocabulary.FIELDS and value in vocabulary.TERMS
                     and not vocabulary.TERMS[value].applies_to(kind))}


def completed(found: Mapping[str, object]) -> dict[str, object]:
    """Facts with what their image type itself tells: the specialty, and the anatomy where it shows no other."""
    kind = vocabulary.IMAGE_TYPES.get(found.get("image_type"))
    told = {} if kind is None else {"specialty": kind.specialty, "anatomy": kind.default_anatomy}
    return {**{name: value for name, value in told.items() if value is not None}, **found}


def refusal(dataset: object) -> str | None:
    """Why an object with pixels is no picture to learn from; None where it may be one."""
    header = deidentify.facts_header(dataset)
    kinds = {str(value).upper() for value in header.get("ImageType", ())}
    if header.get("SOPClassUID") in NOT_A_PICTURE:
        return f"it holds {NOT_A_PICTURE[header['SOPClassUID']]}, not a picture"
    if deidentify.word(header, "SyntheticData") == "YES" or deidentify.word(header, "ConversionType") == "SYN":
        return "its header says that it is synthetic, and it does not say how it was made"
    if deidentify.word(header, "PresentationIntentType") == "FOR PROCESSING":
        return "it is a detector's raw image (FOR PROCESSING); export the one FOR PRESENTATION"
    if "LOCALIZER" in kinds:
        return "it is a localizer (scout)"
    if deidentify.word(header, "Modality") == "SM" and kinds & {"LABEL", "OVERVIEW", "THUMBNAIL"}:
        return "it shows the label of a slide, or all of it from afar"
    return None


def image_type(header: Mapping[str, object], anatomy: str | None) -> str | None:
    """The image type by modality, class and anatomy; None where they do not decide it."""
    modality = deidentify.word(header, "Modality")
    if deidentify.word(header, "SOPClassUID").startswith(FUNDUS_CAMERA):
        return "fundus_photograph"
    return MODALITIES.get(modality) or SITES.get(modality, {}).get(anatomy)


def age_years(header: Mapping[str, object]) -> float | None:
    """The age that a header states; "000Y" stands where nobody typed one: of infants it is told in days, weeks or months."""
    stated = deidentify.word(header, "PatientAge")
    return None if stated.endswith("Y") and not stated.strip("0Y") else deidentify.age_years(stated)


def may_be(dataset: object, kind: str) -> bool:
    """Whether an image type that somebody states goes with the modality of a header."""
    modality = deidentify.word(deidentify.facts_header(dataset), "Modality")
    return modality not in MAY_BE or kind in MAY_BE[modality]


def anatomy_of(header: Mapping[str, object], dataset: object, frame: int) -> str | None:
    stated = BODY_PARTS.get(deidentify.word(header, "BodyPartExamined").replace(" ", "").replace("_", ""))
    if stated:
        return stated
    group = functional(dataset, "FrameAnatomySequence", frame)
    for code in (*codes(dataset, "AnatomicRegionSequence"), *(codes(group, "AnatomicRegionSequence") if group else ())):
        if code in ANATOMY_CODES:
            return ANATOMY_CODES[code]
        for term in vocabulary.terms_of("anatomy"):
            if term.codes.get("SNOMED CT") == code:
                return term.name
    return None


def view(header: Mapping[str, object], dataset: object, frame: int, kind: str | None) -> str | None:
    """Projection of a radiograph, or plane of a slice."""
    if kind in ("ct", "mri"):
        group = functional(dataset, "PlaneOrientationSequence", frame)
        stated = deidentify.plain(group.get("ImageOrientationPatient"), tuple) if group is not None \
            else header.get("ImageOrientationPatient", ())
        return plane(stated)
    stated = VIEW_POSITIONS.get(deidentify.word(header, "ViewPosition"))
    if stated:
        return stated
    for code in codes(dataset, "ViewCodeSequence"):
        if code in VIEW_CODES:
            return VIEW_CODES[code]
        for term in vocabulary.terms_of("view"):
            if term.codes.get("SNOMED CT") == code:
                return term.name
    return None


def plane(orientation: tuple) -> str | None:
    """The name of a plane by the direction cosines of its rows and columns; None where it is oblique."""
    try:
        a, b, c, d, e, f = (float(value) for value in orientation)
    except (TypeError, ValueError):
        return None
    normal = (abs(b * f - c * e), abs(c * d - a * f), abs(a * e - b * d))
    upright = max(normal)
    return PLANES[normal.index(upright)] if UPRIGHT <= upright <= 1.01 else None  # NaN fails the comparison


def laterality(header: Mapping[str, object], dataset: object, frame: int) -> str | None:
    group = functional(dataset, "FrameAnatomySequence", frame)
    stated = deidentify.word(header, "ImageLaterality") or deidentify.word(header, "Laterality") \
        or (str(group.get("FrameLaterality") or "") if group is not None else "")
    return {"L": "left", "R": "right"}.get(stated)


def technique(header: Mapping[str, object], dataset: object, frame: int, kind: str | None) -> str | None:
    """MR weighting, or contrast of a CT; None where it is not certain."""
    contrast = bool(header.get("ContrastBolusAgent")) and bool(dataset.get("ContrastBolusAgent"))  # empty: not told
    if kind == "ct":
        return "contrast_enhanced" if contrast else None
    if kind != "mri":
        return None
    group = functional(dataset, "MRImageFrameTypeSequence", frame)
    stated = str(group.get("AcquisitionContrast") or "") if group is not None else deidentify.word(header, "AcquisitionContrast")
    found = CONTRASTS.get(stated) or weighting(header)
    return "t1_post_contrast" if found == "t1" and contrast else found


def weighting(header: Mapping[str, object]) -> str | None:
    """T1, T2 or FLAIR by sequence and times in ms, within bounds where textbooks agree; gradient echoes only where prepared."""
    sequence = {str(value).upper() for value in header.get("ScanningSequence", ())}
    repetition, echo, inversion = (header.get(name) or 0.0 for name in ("RepetitionTime", "EchoTime", "InversionTime"))
    if "EP" in sequence or not echo:
        return None
    if sequence == {"SE"}:
        if 250 <= repetition <= 800 and echo <= 25:
            return "t1"
        return "t2" if repetition >= 2000 and echo >= 80 else None
    if "IR" in sequence and "GR" not in sequence:
        return "flair" if repetition >= 5000 and echo >= 70 and 1500 <= inversion <= 3000 else None
    if sequence == {"GR", "IR"}:  # prepared rapid gradient echo: MPRAGE and its kin
        return "t1" if 600 <= inversion <= 1300 and echo <= 8 else None
    return None


def technique_of_slide(dataset: object) -> str | None:
    """The stain of a slide, by the codes of the substances in its preparation (PS3.3 C.7.6.22)."""
    used = set()
    for specimen in items(dataset, "SpecimenDescriptionSequence"):
        for step in items(specimen, "SpecimenPreparationSequence"):
            for content in items(step, "SpecimenPreparationStepContentItemSequence"):
                used |= set(codes(content, "ConceptCodeSequence"))
    return next((name for stain, name in STAINS.items() if stain <= used), None)


# Sequences

def items(dataset: object, keyword: str) -> list:
    """The items of a sequence; [] where there is none, or a broken one."""
    try:
        return [item for item in dataset.get(keyword) or () if hasattr(item, "get")]
    except Exception:  # whatever a broken sequence does to its reader, it says nothing
        return []


def functional(dataset: object, keyword: str, frame: int) -> object | None:
    """A functional group of a frame (PS3.3 C.7.6.16): its own, else the one that all frames share, else None."""
    for name, place in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        try:
            found = items(dataset.get(name)[place], keyword)
        except Exception:  # no such group, or a broken one
            continue
        if found:
            return found[0]
    return None


def codes(dataset: object, keyword: str) -> Iterator[str]:
    """The SNOMED CT codes of a coded sequence; older SNOMED RT codes are translated by pydicom's table."""
    for item in items(dataset, keyword):
        code, scheme = (str(item.get(name) or "").strip() for name in ("CodeValue", "CodingSchemeDesignator"))
        if scheme in ("SRT", "SNM3", "99SDM"):
            from pydicom.sr.coding import snomed_mapping

            code = snomed_mapping["SRT"].get(code, "")
        if scheme in ("SCT", "SRT", "SNM3", "99SDM") and code:
            yield code
