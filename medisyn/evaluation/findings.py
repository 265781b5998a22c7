"""Findings: what a reader of the report must be told first, in sentences, each from its figures."""

from collections.abc import Sequence
from dataclasses import dataclass

from medisyn.estimates import Estimate

MARGIN = 0.02      # by which a share must differ from its control besides the intervals being apart
FEW = 100          # synthetic images below which distances between sets say little


@dataclass(frozen=True)
class Finding:
    """One sentence, and whether it speaks against releasing or using the set."""

    text: str
    grave: bool
    names: tuple[str, ...]   # of the estimates it rests on


def found(rows: Sequence[Estimate]) -> list[Finding]:
    """What stands out, the grave first; a set without faults gives what was checked and held."""
    known = {(row.name, row.group): row for row in rows if row.value is not None}
    said = [sentence for rule in RULES for sentence in rule(known)]
    return sorted(said, key=lambda one: not one.grave)


Known = dict[tuple[str, str], Estimate]


def percent(row: Estimate) -> str:
    interval = "" if row.low is None else f" [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    return f"{100 * row.value:.1f} %{interval}"


def validity(known: Known) -> list[Finding]:
    said = []
    for name, ideal, text in (
            ("valid_share", 1, "{} of the synthetic images show anything at all; the others are one flat colour"),
            ("labelled_share", 1, "{} of the synthetic images carry labels of the vocabulary"),
            ("repeated_share", 0, "{} of the synthetic images repeat another one pixel for pixel"),
            ("found_in_train", 0, "{} of the synthetic images are training images, pixel for pixel"),
            ("found_in_unseen", 0, "{} of the synthetic images are real images of the unseen set, pixel for pixel")):
        row = known.get((name, "all"))
        if row and row.value != ideal:
            said.append(Finding(text.format(percent(row)), True, (name,)))
    row = known.get(("valid_share", "all"))
    if row and not said:
        said.append(Finding(f"all {row.n:,} synthetic images show something, and none repeats another one or a real one", False,
                            ("valid_share", "repeated_share", "found_in_train", "found_in_unseen")))
    return said


def guarding(known: Known) -> list[Finding]:
    looked, blocked, flagged = (known.get((f"guard_{name}_share", "all")) for name in ("looked", "blocked", "flagged"))
    said = []
    if flagged and flagged.value:
        said.append(Finding(f"{percent(flagged)} of the synthetic images were kept although the maker's own guard called them "
                            "copies", True, ("guard_flagged_share",)))
    if looked and looked.value < 1:
        said.append(Finding(f"the maker's guard looked at {percent(looked)} of the synthetic images only", False,
                            ("guard_looked_share",)))
    if blocked and blocked.value:
        said.append(Finding(f"the maker's guard had {percent(blocked)} of all that was drawn blocked and drawn again", False,
                            ("guard_blocked_share",)))
    return said


def copies(known: Known) -> list[Finding]:
    made, unseen = known.get(("copy_rate", "all")), known.get(("copy_rate_unseen", "all"))
    planted, said = known.get(("copy_rate_planted", "all")), []
    if planted and planted.value < 0.99:
        said.append(Finding(f"only {percent(planted)} of the copies that were planted were found: a copy rate of 0 proves "
                            "little here", True, ("copy_rate_planted",)))
    if not made or not unseen or made.low is None or unseen.high is None:
        return said
    types = [(group, row) for (name, group), row in known.items() if name == "copy_rate" and group.startswith("image_type=")
             and row.low is not None and (control := known.get(("copy_rate_unseen", group))) and control.high is not None
             and row.low > control.high and row.value > control.value + MARGIN]
    if made.low > unseen.high and made.value > unseen.value + MARGIN or types:
        where = f", above all {types[0][0].partition('=')[2]} ({percent(types[0][1])})" if types else ""
        said.append(Finding(f"{percent(made)} of the synthetic images are called copies of training images{where}; "
                            f"of unseen real ones {percent(unseen)} are", True, ("copy_rate", "copy_rate_unseen")))
    else:
        said.append(Finding(f"no more synthetic images are called copies ({percent(made)}) than unseen real ones "
                            f"({percent(unseen)})", False, ("copy_rate", "copy_rate_unseen")))
    return said


def nearness(known: Known) -> list[Finding]:
    row, soft = known.get(("nn_closer_to_train", "all")), known.get(("nn_closer_to_train_blurred_unseen", "all"))
    if not row or row.low is None:
        return []
    floor = max(value for value in (0.5, row.floor, soft.value if soft else None) if value is not None)
    if row.low > floor + MARGIN:
        return [Finding(f"{percent(row)} of the synthetic images lie nearer to a training image than to an unseen one, where "
                        f"{100 * floor:.0f} % would be expected", True, ("nn_closer_to_train",))]
    return []


def membership(known: Known) -> list[Finding]:
    row = known.get(("mia_auc", "all"))
    if row and row.low is not None and row.low > 0.5 + MARGIN:
        return [Finding(f"from the synthetic set alone one can tell who was trained on better than by chance (AUC "
                        f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}])", row.low > 0.6, ("mia_auc",))]
    return []


def narrowness(known: Known) -> list[Finding]:
    said = []
    for (name, group), row in known.items():
        if group == "all" and row.floor and name.startswith("coverage_") and row.high is not None and row.high < 0.5 * row.floor:
            said.append(Finding(f"the synthetic set reaches {100 * row.value:.0f} % of the real images' neighbourhoods "
                                f"({row.extractor}), other real images {100 * row.floor:.0f} %: it is narrow, or elsewhere", True,
                                (name,)))
    row = known.get(("ms_ssim", "all"))
    if row and row.floor is not None and row.low is not None and row.low > row.floor + 0.1:
        said.append(Finding(f"images of one prompt are more alike (MS-SSIM {row.value:.2f}) than real ones of one class "
                            f"({row.floor:.2f})", row.low > 0.9, ("ms_ssim",)))
    return said


def alignment(known: Known) -> list[Finding]:
    said = []
    for (name, group), row in known.items():
        if name == "image_type_accuracy" and row.high is not None and row.high < 0.8 * (row.floor or 1.0):
            kind = group.partition("=")[2] or "the synthetic images"
            said.append(Finding(f"a classifier trained on real images recognises {kind} in {percent(row)} of the cases only"
                                + (f"; real ones in {100 * row.floor:.0f} %" if row.floor is not None else ""), True, (name,)))
    return said


def told_apart(known: Known) -> list[Finding]:
    rows = [row for (name, group), row in known.items() if name.startswith("two_sample_") and group == "all"]
    if not rows:
        return []
    row = max(rows, key=lambda r: r.value)
    if row.low is not None and row.low > 0.55:
        return [Finding(f"a fresh classifier tells synthetic from real images in {percent(row)} of the cases (50 % would mean it "
                        "cannot): the set is not the real thing, whatever the other figures say", False, (row.name,))]
    return []


def smallness(known: Known) -> list[Finding]:
    row = known.get(("valid_share", "all"))
    if row and row.n < FEW:
        return [Finding(f"there are {row.n} synthetic images only: distances between sets are biased at this size, and intervals "
                        "are wide", False, ("valid_share",))]
    return []


RULES = (validity, guarding, copies, nearness, membership, alignment, narrowness, told_apart, smallness)
