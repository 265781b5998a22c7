"""Radiological findings beyond the first list: chest, bone, brain, breast and abdomen, as public datasets name them."""

from medisyn.data.vocabulary.findings import BONE, CHEST, CT, MAMMO, MRI, at, finding
from medisyn.data.vocabulary.places import XRAYS

CHEST_CT = (*CHEST, *CT)

LUNGS = (
    finding("pulmonary_infiltration", "pulmonary infiltration", CHEST, "lung infiltration", typed=("infiltration",)),
    finding("lung_opacity", "lung opacity", CHEST_CT, "pulmonary opacity", typed=("opacity in the lung", "lung opacities")),
    finding("lung_lesion", "lung lesion", CHEST, "pulmonary lesion"),
    finding("lung_mass", "pulmonary mass", CHEST, "lung mass"),
    finding("lung_tumour", "lung tumour", CHEST, "pulmonary tumour", local={"lung cancer": CHEST, "lung neoplasm": CHEST}),
    finding("emphysema", "emphysema", CHEST_CT, "pulmonary emphysema", typed=("emphysematous",)),
    finding("pulmonary_fibrosis", "pulmonary fibrosis", CHEST_CT, "lung fibrosis", typed=("fibrotic lung",)),
    finding("interstitial_lung_disease", "interstitial lung disease", CHEST, "diffuse parenchymal lung disease",
            short=("ILD",), typed=("interstitial disease", "interstitial pattern")),
    finding("bronchiectasis", "bronchiectasis", CHEST_CT, "dilated bronchi", typed=("bronchiectases",)),
    finding("pleural_thickening", "pleural thickening", CHEST, "thickened pleura"),
    finding("enlarged_cardiomediastinum", "enlarged cardiomediastinum", CHEST, "widened mediastinum",
            typed=("mediastinal widening",)),
    finding("mediastinal_shift", "mediastinal shift", CHEST, "shift of the mediastinum"),
    finding("aortic_enlargement", "aortic enlargement", CHEST, "enlarged aorta", typed=("aortic dilatation",)),
    finding("hernia", "hiatal hernia", CHEST_CT, "diaphragmatic hernia", typed=("hiatus hernia", "hernia")),
    finding("lymphadenopathy", "lymphadenopathy", CHEST_CT, "enlarged lymph nodes", typed=("adenopathy",)),
    finding("chronic_obstructive_pulmonary_disease", "chronic obstructive pulmonary disease", CHEST,
            "chronic obstructive airways disease", short=("COPD",)),
    finding("scoliosis", "scoliosis", CHEST, "lateral curvature of the spine", typed=("scoliotic",)),
    finding("support_devices", "support devices", CHEST, "lines and tubes", abnormal=False,
            typed=("support device", "ng tube", "nasogastric tube", "chest tube", "chest drain", "central venous catheter",
                   "central line")),
    finding("pacemaker", "cardiac pacemaker", CHEST, "pacemaker", abnormal=False, typed=("pace maker",)),
    finding("covid_19_lung_changes", "COVID-19 lung changes", CT, "lung changes of COVID-19", local={"covid lung": CT}),
)

BONES = (
    finding("osteopenia", "osteopenia", BONE, "low bone density", typed=("osteopenic",)),
    finding("metal_implant", "metal implant", XRAYS, "orthopaedic hardware", abnormal=False,
            typed=("metalwork", "plate and screws", "osteosynthesis")),
    finding("plaster_cast", "plaster cast", BONE, "limb in a cast", abnormal=False, typed=("in plaster", "in a cast")),
)

HEADS = (
    finding("epidural_haemorrhage", "epidural haemorrhage", CT, "extradural haemorrhage", "epidural haematoma",
            short=("EDH",), implies=("intracranial_haemorrhage",), typed=("extradural haematoma", "extradural bleed")),
    finding("subdural_haemorrhage", "subdural haemorrhage", CT, "subdural haematoma", short=("SDH",),
            implies=("intracranial_haemorrhage",), typed=("subdural bleed", "subdural")),
    finding("subarachnoid_haemorrhage", "subarachnoid haemorrhage", CT, short=("SAH",),
            implies=("intracranial_haemorrhage",), typed=("subarachnoid bleed",)),
    finding("intraparenchymal_haemorrhage", "intraparenchymal haemorrhage", CT, "parenchymal haemorrhage",
            short=("IPH",), implies=("intracranial_haemorrhage",)),
    finding("intraventricular_haemorrhage", "intraventricular haemorrhage", CT, "ventricular haemorrhage",
            short=("IVH",), implies=("intracranial_haemorrhage",)),
)

HEARTS = (
    finding("dilated_cardiomyopathy", "dilated cardiomyopathy", MRI, "dilated ventricle with poor function"),
    finding("hypertrophic_cardiomyopathy", "hypertrophic cardiomyopathy", MRI, "hypertrophied myocardium"),
    finding("myocardial_infarction", "myocardial infarction", MRI, "infarcted myocardium"),
    finding("right_ventricular_abnormality", "abnormal right ventricle", MRI, "right ventricular abnormality"),
)

BREASTS = (
    finding("mammographic_mass", "mammographic mass", MAMMO, "mass on mammography"),
    finding("skin_thickening", "skin thickening", MAMMO, "thickened breast skin"),
    finding("nipple_retraction", "nipple retraction", MAMMO, "retracted nipple"),
)

RADIOLOGICAL = (*at(("chest", "lung"), LUNGS), *BONES, *at(("brain", "head"), HEADS), *at(("heart",), HEARTS),
                *at(("breast",), BREASTS))
