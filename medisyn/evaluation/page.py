"""The page of a report: one HTML file, its style and pictures inside it, no outside resource."""

import base64
import html
import math
from collections.abc import Sequence
from pathlib import Path

from medisyn.estimates import Estimate
from medisyn.evaluation.protocol import Part, Picture

ABOUT = {  # part: what it asks
    "validity": "Is the set what it claims to be? All else presumes that it is.",
    "fidelity": "Do the images look like real ones, and are they as varied? A low distance does not imply that a classifier "
                "learns anything from them (arXiv:2502.17160): see utility.",
    "alignment": "Does each image show what its sentence says? Judged by classifiers that were trained on real images, with "
                 "the same figure on unseen real ones as floor.",
    "novelty": "Are the images new, or training images in disguise? Every report plants copies to show that they would be found, "
               "and judges unseen real images to show how often the alarm is false.",
    "utility": "What does a classifier learn from them? Trained on synthetic or mixed images, tested on unseen patients.",
    "cost": "What did the images cost to make?"}
WORDS = {  # the beginning of a figure's name: what it means
    "valid_share": "images that show anything",
    "labelled_share": "images labelled in words of the vocabulary",
    "provenance_share": "images that say how they were made",
    "repeated_share": "images that repeat another one",
    "found_in_train": "images that are training images",
    "found_in_unseen": "images that are unseen real ones",
    "fd_": "Frechet distance",
    "kd_": "kernel distance (unbiased MMD, cubic)",
    "cmmd_": "CMMD (Gaussian kernel)",
    "precision_": "precision: synthetic images among real ones",
    "recall_": "recall: real images among synthetic ones",
    "density_": "density",
    "coverage_": "coverage: real images with a synthetic neighbour",
    "vendi_": "Vendi score: how many different images",
    "ms_ssim": "likeness of two images of one prompt",
    "two_sample_": "a fresh classifier tells them from real ones",
    "image_type_accuracy": "image type recognised",
    "finding_auroc": "finding recognised (AUROC)",
    "finding_f1": "finding recognised (F1)",
    "view_accuracy": "view recognised",
    "laterality_accuracy": "side recognised",
    "retrieval": "own prompt found among others",
    "unseen_combination": "facts never trained together",
    "copy_rate_planted": "planted copies found",
    "copy_rate_unseen": "unseen real images called copies",
    "copy_rate": "images called copies of training images",
    "nn_closer_to_train": "nearer to train than to unseen",
    "dcr": "distance to the closest training image",
    "nndr": "closest over second closest",
    "nnaa": "nearest-neighbour adversarial accuracy",
    "auth_pct": "authentic images",
    "c_t": "C_T data-copying statistic",
    "reidentification": "prompts of which one image is called a copy",
    "mia_auc": "membership inference, AUC",
    "mia_tpr": "members found at few false alarms",
    "mia_": "membership inference",
    "tstr_accuracy": "trained on synthetic, tested on real",
    "data_equivalence": "real images that n real + synthetic are worth, over n",
    "utility_gap": "largest gap between groups",
    "accuracy": "accuracy of an arm",
    "balanced_accuracy": "balanced accuracy of an arm",
    "auroc": "AUROC of an arm",
}
WARNING = ('<p class="real">This page shows images of patients (the panels of nearest training images). Treat it like the data '
           "itself, or evaluate again with --no-real-images.</p>")
ARROWS = {"lower": "&#8595; lower is better", "higher": "&#8593; higher is better", None: ""}

def draw(folder: Path, parts: Sequence[Part], told: dict) -> str:
    """The whole page. folder: where the pictures of the parts lie; told: the report as JSON."""
    title = text(f"Evaluation of {told['sets']['synthetic']['from'] or 'a synthetic set'}")
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{part.name}">{part.name}</a>' for part in parts)
    listed = "".join(f'<li class="{"grave" if one["grave"] else ""}">{text(one["text"])} '
                     f'<span class="muted">({", ".join(one["names"])})</span></li>' for one in told["findings"])
    return "\n".join((
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{title}</title><style>{style}</style></head><body><main><h1>{title}</h1>",
        f'<p class="muted">medisyn {told["medisyn"]}, {told["made"]}, seed {told["seed"]}; '
        f'features: {text(", ".join(told["extractors"]))}. Intervals are 95 %; the floor is the same figure of real images '
        "against real images.</p>",
        WARNING if any(picture.real for part in parts for picture in part.pictures) else "",
        f"<nav>{links}</nav>{sets_table(told['sets'])}<h2>What stands out</h2>",
        f'<ul class="findings">{listed or "<li>Nothing was measured that a finding could rest on.</li>"}</ul>',
        *(section(folder, part) for part in parts), "</main></body></html>", ""))


def text(words: object) -> str:
    return html.escape(str(words))


def sets_table(sets: dict) -> str:
    """What was judged."""
    rows = []
    for name, known in sets.items():
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in known["image_types"].items())
        rows.append(f"<tr><td>{name}</td><td>{text(known['from'] or '')}</td><td class=n>{known['n']:,}</td>"
                    f"<td class=n>{known['n_patients']:,}</td><td>{text(kinds)}</td></tr>")
    heads = "".join(f"<th>{word}</th>" for word in ("set", "from", "images", "patients (or images)", "image types"))
    return f"<div class=wide><table><tr>{heads}</tr>{''.join(rows)}</table></div>"


def section(folder: Path, part: Part) -> str:
    """One part: its question, pictures, the figures of all images, and a fold of figures by group for each name."""
    overall = [row for row in part.rows if row.group == "all"]
    grouped: dict[str, list[Estimate]] = {}
    for row in part.rows:
        if row.group != "all":
            grouped.setdefault(row.name, []).append(row)
    figures = "".join(figure(folder, one) for one in part.pictures)
    folds = "".join(f"<details><summary>{text(name)}: {text(meaning(name))}, by {text(groups_said(rows))}</summary>{forest(rows)}"
                    f"{table(rows, with_group=True)}</details>" for name, rows in grouped.items())
    return (f'<h2 id="{part.name}">{part.name.capitalize()}</h2><p>{text(ABOUT.get(part.name, ""))}</p>'
            f"{table(overall) if overall else ''}{figures}{folds}")


def groups_said(rows: Sequence[Estimate]) -> str:
    return ", ".join(dict.fromkeys(row.group.partition("=")[0].replace("_", " ") for row in rows))


def meaning(name: str) -> str:
    """What a figure's name means, in words."""
    fits = [key for key in WORDS if name.startswith(key)]
    return WORDS[max(fits, key=len)] if fits else name.replace("_", " ")


def table(rows: Sequence[Estimate], with_group: bool = False) -> str:
    first = ("group",) if with_group else ("figure", "meaning")
    head = "".join(f"<th>{word}</th>" for word in (*first, "value", "95 %", "floor", "n", "remarks"))
    return f"<div class=wide><table><tr>{head}</tr>{''.join(line(row, with_group) for row in rows)}</table></div>"


def line(row: Estimate, with_group: bool) -> str:
    first = (f"<td>{text(row.group)}</td>" if with_group else
             f"<td><code>{text(row.name)}</code></td><td>{text(meaning(row.name))}</td>")
    if row.value is None:
        return (f"<tr class=missing>{first}<td colspan=3>not computed: {text(row.missing)}</td><td class=n>{row.n:,}</td>"
                "<td></td></tr>")
    interval = "" if row.low is None or row.high is None else f"{number(row.low)} to {number(row.high)}"
    remarks = [ARROWS.get(row.better, ""), text(row.extractor or ""), text(row.note or ""),
               f"{row.patients:,} patients" if row.patients else ""]
    return (f"<tr>{first}<td class=n><b>{number(row.value)}</b></td><td class=n>{interval}</td>"
            f"<td class=n>{'' if row.floor is None else number(row.floor)}</td><td class=n>{row.n:,}</td>"
            f"<td class=muted>{'; '.join(r for r in remarks if r)}</td></tr>")


def number(value: float) -> str:
    """Three figures that matter."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def forest(rows: Sequence[Estimate]) -> str:
    """Values with intervals and floors on one axis, a line a group; "" where fewer than two have a value."""
    known = [row for row in rows if row.value is not None and math.isfinite(row.value)]
    if len(known) < 2:
        return ""
    ends = [v for row in known for v in (row.value, row.low, row.high, row.floor) if v is not None and math.isfinite(v)]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0
    left, width, step = 260, 420, 20

    def x(value: float) -> float:
        return left + width * (min(max(value, low), high) - low) / span
    marks = []
    for k, row in enumerate(known):
        y = 14 + k * step
        bar = "" if row.low is None or row.high is None else (
            f'<line x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{y}" y2="{y}" stroke="var(--mark)" stroke-width="2"/>')
        floor = "" if row.floor is None else (f'<line x1="{x(row.floor):.1f}" x2="{x(row.floor):.1f}" y1="{y - 7}" y2="{y + 7}" '
                                              'stroke="var(--muted)" stroke-width="2" stroke-dasharray="3 2"/>')
        marks.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{text(row.group[:38])}</text>{bar}{floor}'
                     f'<circle cx="{x(row.value):.1f}" cy="{y}" r="4" fill="var(--mark)"/>')
    bottom = 14 + len(known) * step
    axis = (f'<line x1="{left}" x2="{left + width}" y1="{bottom}" y2="{bottom}" stroke="var(--line)"/>'
            f'<text x="{left}" y="{bottom + 16}">{number(low)}</text>'
            f'<text x="{left + width}" y="{bottom + 16}" text-anchor="end">{number(high)}</text>')
    return (f'<svg viewBox="0 0 {left + width + 20} {bottom + 22}" width="{left + width + 20}" role="img" style="max-width:100%" '
            f'aria-label="{text(known[0].name)} by group">{"".join(marks)}{axis}</svg>'
            '<p class="muted">Dots are values, bars 95 % intervals, dashed marks the real-against-real floor.</p>')


def figure(folder: Path, picture: Picture) -> str:
    """A picture inside the page."""
    path = folder / picture.file
    if not path.is_file():
        return (f"<p class=muted>{text(picture.title)}: {text(path)} is missing; delete {text(folder / 'cache')} "
                "and evaluate again.</p>")
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    inside = base64.b64encode(path.read_bytes()).decode()
    return (f'<figure><img alt="{text(picture.title)}" src="data:image/{kind};base64,{inside}">'
            f"<figcaption><b>{text(picture.title)}.</b> {text(picture.caption)}"
            f"{' <span class=real>Holds images of patients.</span>' if picture.real else ''}</figcaption></figure>")
