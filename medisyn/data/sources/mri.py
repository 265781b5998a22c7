"""MRI as volumes: brain tumours, healthy brains, hearts; each yields the slices that show enough."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from medisyn.data.sources import files
from medisyn.data.sources.source import STATED, UNCONFIRMED, Found, Source, Unfit, part

BRATS = "folders such as BraTS2021_00000/ or BraTS-MEN-00004-000/ with a NIfTI file a sequence and the segmentation"
IXI = "files named like IXI002-Guys-0828-T1.nii.gz"
ACDC = "training/ and testing/ with patient001/, each with patient001_frame01.nii.gz and Info.cfg"
EACH = 5        # every fifth slice: neighbours are nearly alike
SEEN = 20       # voxels of tumour that a slice shows at least; fewer leave it unknown


def slices(folder: Path, path: PurePosixPath, each: int) -> Iterator[tuple[str, dict] | Unfit]:
    """(address, facts) of every `each`-th slice that shows enough; an unreadable volume is unfit."""
    from medisyn.data import nifti
    try:
        yield from nifti.parts(Path(folder) / path, each)
    except ValueError as error:
        yield Unfit(str(path), str(error))


SEQUENCES = {"flair": "flair", "t2f": "flair", "t1": "t1", "t1n": "t1", "t1ce": "t1_post_contrast", "t1c": "t1_post_contrast",
             "t2": "t2", "t2w": "t2"}
TUMOURS = {"MEN": "meningioma"}  # of a name such as BraTS-MEN-00004-000; GLI, SSA and the earlier years: glioma


def brats(folder: Path) -> Iterator[Found]:
    """Gliomas and meningiomas, skull-stripped; a slice shows a tumour where the experts' segmentation has one."""
    pattern = re.compile(r"(BraTS20_Training_\d{3}|BraTS2021_\d{5}|BraTS-(?:GLI|SSA|MEN)-\d{5}-\d{3})"
                         r"[-_](flair|t1|t1ce|t2|t1n|t1c|t2w|t2f)\.nii(?:\.gz)?")
    named = [(path, pattern.fullmatch(path.name)) for path in files.ending(folder, ".nii", ".nii.gz")]
    named = [(path, match) for path, match in named if match]
    files.expect(named, folder, BRATS)
    for path, match in named:
        kind = next((name for code, name in TUMOURS.items() if f"-{code}-" in match[1]), "glioma")
        drawn = segmented(Path(folder) / path.parent, match[1])
        for found in slices(folder, path, EACH):
            if isinstance(found, Unfit):
                yield found
                continue
            address, facts = found
            findings = {"skull_stripped": True}
            voxels = drawn.get(address) if drawn is not None else None
            if voxels is not None and (not voxels or voxels >= SEEN):
                findings |= {"brain_tumour": voxels > 0, kind: voxels > 0} | ({"normal": False} if voxels else {})
            yield part("brats", path, address, "mri", anatomy="brain", technique=SEQUENCES[match[2]], findings=findings,
                       patient=match[1].rpartition("-")[0] or match[1], **facts)


def segmented(folder: Path, name: str) -> dict[str, int] | None:
    """How many voxels of tumour each axial slice has, by its address; None where the segmentation is not there."""
    from medisyn.data import nifti
    found = next((path for path in sorted(folder.glob(f"{name}[-_]seg.nii*"))), None)
    if found is None:
        return None
    try:
        labels = nifti.read(found).stored[..., 0] > 0
    except ValueError:
        return None
    return {f"axial:{place}": int(count) for place, count in enumerate(labels.sum((0, 1)))}


def ixi(folder: Path) -> Iterator[Found]:
    """Brains of healthy volunteers from three London hospitals; angiograms and diffusion images are left out."""
    sequences = {"T1": "t1", "T2": "t2", "PD": "proton_density"}
    named = [(path, re.fullmatch(r"(IXI\d{3})-(?:Guys|HH|IOP)-\d+-(T1|T2|PD)\.nii(?:\.gz)?", path.name))
             for path in files.ending(folder, ".nii", ".nii.gz")]
    named = [(path, match) for path, match in named if match]
    files.expect(named, folder, IXI)
    for path, match in named:
        for found in slices(folder, path, EACH):
            if isinstance(found, Unfit):
                yield found
                continue
            yield part("ixi", path, found[0], "mri", anatomy="brain", technique=sequences[match[2]],
                       findings={"normal": True}, patient=match[1], **found[1])


GROUPS = {"DCM": "dilated_cardiomyopathy", "HCM": "hypertrophic_cardiomyopathy", "MINF": "myocardial_infarction",
          "NOR": "normal", "RV": "right_ventricular_abnormality"}


def acdc(folder: Path) -> Iterator[Found]:
    """Short-axis hearts of five groups of patients; the group is the patient's, so a slice has what its heart has not."""
    named = [(path, re.fullmatch(r"(patient\d{3})_frame\d\d\.nii(?:\.gz)?", path.name))
             for path in files.ending(folder, ".nii", ".nii.gz")]
    named = [(path, match) for path, match in named if match]
    files.expect(named, folder, ACDC)
    for path, match in named:
        told = Path(folder) / path.parent / "Info.cfg"
        text = told.read_text(encoding="utf-8", errors="replace") if told.is_file() else ""
        group = re.search(r"^Group:\s*(\w+)", text, re.MULTILINE)
        kind = GROUPS.get(group[1] if group else "")
        findings = {name: False for name in GROUPS.values() if name != kind} if kind else {}
        if kind == "normal":
            findings["normal"] = True
        else:
            findings.pop("normal", None)  # a slice away from the disease may look normal
        for found in slices(folder, path, 2):
            if isinstance(found, Unfit):
                yield found
                continue
            yield part("acdc", path, found[0], "mri", anatomy="heart", findings=dict(findings), patient=match[1])


SOURCES = tuple(Source(*row[:2], ("mri",), ("radiology",), *row[2:]) for row in (
    # name, title; licence, evidence; citation; address; group, layout, open, read; size, download
    ("brats", "BraTS brain tumours, 2020 to 2023", "CC-BY-4.0 (2021 and later); earlier years by registration", UNCONFIRMED,
     "Menze et al., IEEE Transactions on Medical Imaging 2015; Baid et al., arXiv 2107.02314",
     "https://www.synapse.org/brats", "patient", BRATS, False, brats, "1,251 people with 4 sequences (2021)",
     "The training data of a year; registration at Synapse needed."),
    ("ixi", "IXI brains", "CC-BY-SA-3.0", STATED, "IXI, Information eXtraction from Images, Imperial College London",
     "https://brain-development.org/ixi-dataset/", "patient", IXI, True, ixi, "600 people, 4.5 GB (T1)",
     "IXI-T1.tar, IXI-T2.tar, IXI-PD.tar; no registration."),
    ("acdc", "ACDC cardiac MRI", "CC-BY-NC-SA-4.0", UNCONFIRMED,
     "Bernard et al., IEEE Transactions on Medical Imaging 2018", "https://www.creatis.insa-lyon.fr/Challenge/acdc/",
     "patient", ACDC, False, acdc, "150 people", "ACDC.zip; no registration."),
))
