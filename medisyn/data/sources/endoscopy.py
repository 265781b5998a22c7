"""Endoscopy of the digestive tract, a folder a finding."""

import re
from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import STATED, UNCONFIRMED, Found, Source, Unfit, shown

HYPERKVASIR = ("labeled-images/ with upper-gi-tract/ and lower-gi-tract/, each with groups of folders such as "
               "pathological-findings/polyps")
KVASIR = "folders dyed-lifted-polyps, esophagitis, normal-cecum, polyps, ulcerative-colitis and on"
GASTROVISION = "folders such as Colon polyps, Normal stomach and Gastroesophageal_junction_normal z-line"
LIMUC = "folders Mayo 0 to Mayo 3 of images named like UC_patient_10_2, in a folder a patient or not"
UC = {"ulcerative_colitis": True, "normal": False}
MAYO = ("inactive_colitis", "mild_colitis", "moderate_colitis", "severe_colitis")


def mayo(grade: int) -> dict[str, bool]:
    """Findings of a Mayo endoscopic subscore, 0 to 3: the disease is known, activity and mucosa are what is graded."""
    return {"ulcerative_colitis": True} | files.one_of(MAYO[grade], MAYO) | files.known(normal=False if grade else None)


KVASIR_KINDS: dict[str, tuple[str | None, dict[str, bool]]] = {  # folder: anatomy, findings; landmarks alone tell no finding
    "cecum": ("caecum", {}), "ileum": ("small_bowel", {}), "retroflex-rectum": ("rectum", {}), "pylorus": ("pylorus", {}),
    "retroflex-stomach": ("stomach", {}), "z-line": ("oesophagus", {}), "hemorrhoids": ("rectum", {"haemorrhoids": True,
                                                                                                  "normal": False}),
    "bbps-0-1": ("colon", {}), "bbps-2-3": ("colon", {}), "impacted-stool": ("colon", {"impacted_stool": True}),
    "polyps": ("colon", {"polyp": True, "normal": False}),
    "dyed-lifted-polyps": ("colon", {"dyed_lifted_polyp": True, "polyp": True, "normal": False}),
    "dyed-resection-margins": ("colon", {"dyed_resection_margins": True}),
    "barretts": ("oesophagus", {"barretts_oesophagus": True, "normal": False}),
    "barretts-short-segment": ("oesophagus", {"barretts_oesophagus": True, "normal": False}),
    "esophagitis": ("oesophagus", {"oesophagitis": True, "normal": False}),
    "esophagitis-a": ("oesophagus", {"oesophagitis": True, "normal": False}),
    "esophagitis-b-d": ("oesophagus", {"oesophagitis": True, "normal": False}),
    "ulcerative-colitis": ("colon", UC),
    **{f"ulcerative-colitis-grade-{grade}": ("colon", mayo(grade)) for grade in (1, 2, 3)},
    **{f"ulcerative-colitis-grade-{grades}": ("colon", UC) for grades in ("1-2", "2-3")},
    "ulcerative-colitis-grade-0-1": ("colon", {"ulcerative_colitis": True}),
    "normal-cecum": ("caecum", {"normal": True}), "normal-pylorus": ("pylorus", {"normal": True}),
    "normal-z-line": ("oesophagus", {"normal": True}),
}


def folders(name: str, kinds: dict[str, tuple[str | None, dict[str, bool]]], layout: str, folder: Path) -> Iterator[Found]:
    """Images whose folder tells where they were taken and what they show."""
    paths = [path for path in files.rasters(folder) if path.parent.name in kinds]
    files.expect(paths, folder, layout)
    for path in paths:
        anatomy, findings = kinds[path.parent.name]
        yield shown(name, path, "gi_endoscopy", anatomy=anatomy, findings=dict(findings))


def hyperkvasir(folder: Path) -> Iterator[Found]:
    """The labelled images; grades between two of the Mayo score are ulcerative colitis without a grade."""
    yield from folders("hyperkvasir", {kind: facts for kind, facts in KVASIR_KINDS.items() if not kind.startswith("normal-")},
                       HYPERKVASIR, folder)


def kvasir_v2(folder: Path) -> Iterator[Found]:
    """Eight kinds of a thousand images each; many are in HyperKvasir too."""
    eight = ("dyed-lifted-polyps", "dyed-resection-margins", "esophagitis", "normal-cecum", "normal-pylorus", "normal-z-line",
             "polyps", "ulcerative-colitis")
    yield from folders("kvasir_v2", {kind: KVASIR_KINDS[kind] for kind in eight}, KVASIR, folder)


def abnormal(name: str) -> dict[str, bool]:
    return {name: True, "normal": False}


GASTROVISION_KINDS: dict[str, tuple[str | None, dict[str, bool]]] = {
    "Accessory tools": (None, {"surgical_tool": True}), "Angiectasia": (None, abnormal("angiectasia")),
    "Barrett's esophagus": ("oesophagus", abnormal("barretts_oesophagus")),
    "Barretts esophagus": ("oesophagus", abnormal("barretts_oesophagus")),
    "Blood in lumen": (None, abnormal("blood_in_lumen")), "Cecum": ("caecum", {}),
    "Colon diverticula": ("colon", abnormal("diverticula")), "Colon polyps": ("colon", abnormal("polyp")),
    "Colorectal cancer": ("colon", abnormal("colorectal_cancer")), "Duodenal bulb": ("duodenum", {}),
    "Dyed-lifted-polyps": ("colon", abnormal("dyed_lifted_polyp") | {"polyp": True}),
    "Dyed-resection-margins": ("colon", {"dyed_resection_margins": True}), "Erythema": (None, abnormal("mucosal_erythema")),
    "Esophageal varices": ("oesophagus", abnormal("oesophageal_varices")),
    "Esophagitis": ("oesophagus", abnormal("oesophagitis")), "Gastric polyps": ("stomach", abnormal("polyp")),
    "Gastroesophageal_junction_normal z-line": ("oesophagus", {"normal": True}), "Ileocecal valve": ("caecum", {}),
    "Mucosal inflammation large bowel": ("colon", abnormal("mucosal_inflammation")),
    "Normal esophagus": ("oesophagus", {"normal": True}), "Normal stomach": ("stomach", {"normal": True}),
    "Normal mucosa and vascular pattern in the large bowel": ("colon", {"normal": True}), "Pylorus": ("pylorus", {}),
    "Resected polyps": ("colon", {}), "Resection margins": ("colon", {}), "Retroflex rectum": ("rectum", {}),
    "Small bowel_terminal ileum": ("small_bowel", {}), "Ulcer": (None, abnormal("gastrointestinal_ulcer")),
}


def gastrovision(folder: Path) -> Iterator[Found]:
    """Twenty-seven kinds from two hospitals; landmarks tell no finding."""
    yield from folders("gastrovision", GASTROVISION_KINDS, GASTROVISION, folder)


def limuc(folder: Path) -> Iterator[Found]:
    """Ulcerative colitis by the Mayo endoscopic subscore; the same images come by patient and by set, they are read once."""
    named = [(path, re.fullmatch(r"Mayo ([0-3])", path.parent.name), re.fullmatch(r"UC_patient_(\d+)_\d+", files.stem(path)))
             for path in files.rasters(folder)]
    named = [(path, grade, name) for path, grade, name in named if grade and name]
    files.expect(named, folder, LIMUC)
    once: set[str] = set()
    for path, grade, name in named:
        if name[0] in once:
            yield Unfit(str(path), "the same image lies in another folder of the set")
            continue
        once.add(name[0])
        yield shown("limuc", path, "gi_endoscopy", anatomy="colon", findings=mayo(int(grade[1])), patient=name[1])


SOURCES = tuple(Source(*row[:2], ("gi_endoscopy",), ("gastroenterology",), *row[2:]) for row in (
    # name, title; licence, evidence; citation; address; group, layout, open, read; size, download
    ("hyperkvasir", "HyperKvasir, labelled images", "CC-BY-4.0", STATED, "Borgli et al., HyperKvasir, Scientific Data 2020",
     "https://datasets.simula.no/hyper-kvasir/", "near_duplicates", HYPERKVASIR, True, hyperkvasir,
     "10,662 labelled images", "hyper-kvasir-labeled-images.zip; no registration."),
    ("kvasir_v2", "Kvasir, version 2", "research and education only", UNCONFIRMED, "Pogorelov et al., Kvasir, ACM MMSys 2017",
     "https://datasets.simula.no/kvasir/", "near_duplicates", KVASIR, False, kvasir_v2, "8,000 images, 2.3 GB",
     "kvasir-dataset-v2.zip; no registration."),
    ("gastrovision", "GastroVision", "CC-BY-4.0", STATED, "Jha et al., GastroVision, ML4MHD 2023", "https://osf.io/84e7f/",
     "near_duplicates", GASTROVISION, True, gastrovision, "8,000 images, 1.8 GB", "Gastrovision.zip; no registration."),
    ("limuc", "LIMUC, labelled images for ulcerative colitis", "CC-BY-4.0", UNCONFIRMED,
     "Polat et al., Inflammatory Bowel Diseases 2023", "https://zenodo.org/records/5827695", "patient", LIMUC, True, limuc,
     "11,276 images", "patient_based_classified_images.zip; no registration."),
))
