"""Terms: what a word of the vocabulary is, before any word is listed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

SPELLING = (("haem", "hem"), ("oedema", "edema"), ("oesoph", "esoph"), ("tumour", "tumor"), ("colour", "color"),
            ("naev", "nev"), ("seborrhoe", "seborrhe"), ("centred", "centered"), ("centre", "center"), ("grey", "gray"),
            ("orthopaed", "orthoped"), ("leuco", "leuko"), ("paed", "ped"), ("anaem", "anem"), ("fibre", "fiber"))
KINDS = ("specialty", "image_type", "anatomy", "view", "technique", "laterality", "sex", "finding")


@dataclass(frozen=True)
class Term:
    """One word of the vocabulary, with everything people type for it.

    Spelling variants (British, American), plurals, case and hyphens need no synonym of
    their own: reading folds them away.
    """

    name: str                                     # as records write it: "chest_xray"
    label: str                                    # as it stands in a sentence: "chest X-ray"
    kind: str                                     # one of KINDS
    synonyms: tuple[str, ...] = ()                # other wordings, fit for writing and for reading
    codes: Mapping[str, str] = field(default_factory=dict, hash=False)  # {"SNOMED CT": ..., "DICOM": ...}
    image_types: tuple[str, ...] = ()             # where the term applies; () everywhere
    implies: tuple[str, ...] = ()                 # findings that are present whenever this one is
    abbreviations: tuple[str, ...] = ()           # short forms: "CXR", "PNA"
    typed: tuple[str, ...] = ()                   # read, never written: loose wordings, frequent misspellings
    local: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)  # read only in these image types
    opposites: tuple[str, ...] = ()               # wordings that say the finding is absent: "abnormal" for normal
    local_opposites: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)  # such, in these image types only
    grades: Mapping[int, str] = field(default_factory=dict, hash=False)  # {4: what its severe form is called}, 1 to 4
    group: str | None = None                      # findings of one group exclude each other
    abnormal: bool = False                        # its presence says that the image is not normal
    sites: tuple[str, ...] = ()                   # anatomy where a finding is looked for; () anywhere
    shows: tuple[str, ...] = ()                   # other anatomy that an image of this one shows: a head, the brain

    def applies_to(self, image_type: str | None) -> bool:
        return image_type is None or not self.image_types or image_type in self.image_types


@dataclass(frozen=True)
class ImageType(Term):
    """A kind of image: how it is made and how it may be turned."""

    specialty: str = ""
    gray: bool = False                   # one channel
    symmetry: str = "none"               # "none", "mirror" (left and right change places, words too), "dihedral"
    default_anatomy: str | None = None   # what it always shows, unless a word says otherwise
    heads: tuple[str, ...] = ()          # words that name it only beside its anatomy: "X-ray" of the knee


def fold(word: str) -> str:
    """One spelling a word: lower case, American, singular."""
    word = word.lower()
    for british, american in SPELLING:
        word = word.replace(british, american)
    if len(word) > 3 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
