"""The page of a reader study: one HTML file, its style and drawings inside it, no outside resource."""

import html
import math
from collections.abc import Sequence
from pathlib import Path

from medisyn.data import vocabulary
from medisyn.estimates import Estimate
from medisyn.reader_study.analysis import Analysis
from medisyn.reader_study.equivalence import Test

ABOUT = {
    "all readers": "Figures of the population that these readers and these cases stand for: both vary (Obuchowski and Rockette).",
    "readers": "Each reader alone; the intervals tell how far their cases carry, not how other readers would do.",
    "image types": "The same figures by image type. Few cases each: read the intervals, not the order.",
    "concepts": "How often readers fully saw in a synthetic image what its sentence says, by each word that it names.",
    "agreement": "Kappa and alpha: 1 full agreement, 0 as by chance. Same answer and intra kappa: cases shown twice to one reader.",
    "time": "Median seconds from a case shown to its answer."}
WORDS = {
    "accuracy": "right answers", "sensitivity": "synthetic called synthetic", "specificity": "real called real",
    "dprime": "d': how well they tell", "criterion": "criterion: above 0 rather \"real\"", "auc": "area under the ROC curve",
    "fleiss_kappa": "readers with each other", "krippendorff_nominal": "Krippendorff's alpha, answers",
    "krippendorff_ordinal": "Krippendorff's alpha, ordered", "same_answer": "same answer when shown again",
    "intra_kappa": "Cohen's kappa of both showings", "seconds": "seconds a case",
    "shown_synthetic": "synthetic shows its sentence, 0 to 1", "shown_real": "real shows its sentence, 0 to 1",
    "shown_mismatch": "a wrong sentence is shown, 0 to 1", "yes_synthetic": "synthetic, full agreement",
    "yes_real": "real, full agreement", "yes_mismatch": "wrong sentence, full agreement",
    "rating_synthetic": "synthetic, 1 to 5", "rating_real": "real, 1 to 5", "shown_difference": "synthetic less real",
    "rating_difference": "synthetic less real", "preferred_real": "chance that real is put above synthetic"}
DRAWN = {"readers": ("accuracy", "shown_synthetic", "rating_synthetic"), "image types": ("accuracy", "shown_synthetic",
         "rating_difference"), "concepts": ("yes_synthetic",)}  # the figure that a part draws
CHANCE = {"accuracy": 0.5}


def draw(found: Analysis, told: dict) -> str:
    """The whole page; told: the report as JSON."""
    study, counts = told["study"], told["responses"]
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    parts = list(dict.fromkeys(part for part, _ in found.estimates))
    listed = "".join(f'<li class="{"grave" if one["grave"] else ""}">{text(one["text"])}</li>' for one in told["findings"])
    notes = "".join(f"<li>{text(note)}</li>" for note in told["notes"])
    links = "".join(f'<a href="#{anchor(part)}">{text(part)}</a>' for part in (*parts, "tests", "answers", "marks"))
    return "\n".join((
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{text(study['title'])}</title><style>{style}</style></head><body><main><h1>{text(study['title'])}</h1>",
        f"<p>{text(study['question'])}</p>",
        f'<p class="muted">Study {study["id"]}, design {text(study["design"])}: {study["cases"]} cases, {study["repeats"]} of them '
        f'shown twice, {len(counts["by_reader"])} of {study["readers"]} readers, {counts["n"]:,} responses; images of '
        f'{study["side"]} pixels a side; seed {study["seed"]}; margin of equivalence {study["margin"]:g}. '
        f'medisyn {told["medisyn"]}, {told["made"]}. Intervals are 95 %. Last hash <code>{counts["last_hash"][:16]}</code>.</p>',
        f"<nav>{links}</nav><h2>What stands out</h2><ul class=findings>{listed}</ul>", f"<ul>{notes}</ul>" if notes else "",
        *(section(part, [row for mine, row in found.estimates if mine == part]) + (roc(told["roc"]) if part == "readers" else "")
          for part in parts),
        tests(found.tests), answers(told["confusion"]), marks(found, told["marks"]), "</main></body></html>", ""))


def text(words: object) -> str:
    return html.escape(str(words))


def anchor(part: str) -> str:
    return part.replace(" ", "-")


def section(part: str, rows: Sequence[Estimate]) -> str:
    """One part: what it says, one figure drawn, and all figures in a table (folded where there are many)."""
    drawn = "".join(forest([row for row in rows if row.name == name], CHANCE.get(name)) for name in DRAWN.get(part, ()))
    whole = table(rows)
    if len(rows) > 16:
        whole = f"<details><summary>All {len(rows)} figures</summary>{whole}</details>"
    return f'<h2 id="{anchor(part)}">{text(part.capitalize())}</h2><p>{text(ABOUT.get(part, ""))}</p>{drawn}{whole}'


def table(rows: Sequence[Estimate]) -> str:
    grouped = any(row.group != "all" for row in rows)
    heads = (*(("of",) if grouped else ()), "figure", "value", "95 %", "n", "remarks")
    head = "".join(f"<th>{word}</th>" for word in heads)
    return f"<div class=wide tabindex=0><table><tr>{head}</tr>{''.join(line(row, grouped) for row in rows)}</table></div>"


def line(row: Estimate, grouped: bool) -> str:
    first = f"<td>{text(short(row.group))}</td>" if grouped else ""
    first += f"<td>{text(WORDS.get(row.name, row.name))}</td>"
    if row.value is None:
        return (f"<tr class=missing>{first}<td colspan=2>not computed: {text(row.missing)}</td><td class=n>{row.n:,}</td>"
                "<td></td></tr>")
    interval = "" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}"
    return (f"<tr>{first}<td class=n><b>{row.value:.3f}</b></td><td class=n>{interval}</td><td class=n>{row.n:,}</td>"
            f"<td class=muted>{text(row.note or '')}</td></tr>")


def short(group: str) -> str:
    """image_type=chest_xray as "chest X-ray"."""
    kind, _, word = group.partition("=")
    return word if kind == "reader" else vocabulary.label(word or kind)


def tests(found: Sequence[Test]) -> str:
    """What was asked of all readers and cases, and folded what was asked of parts of them."""
    whole, parts = [t for t in found if t.group == "all"], [t for t in found if t.group != "all"]
    folded = f"<details><summary>{len(parts)} tests of readers, image types or concepts</summary>{asked(parts)}</details>"
    return ('<h2 id="tests">Tests</h2><p>Two-sided at 5 %; equivalence by two one-sided tests. '
            'A family is judged by the p of Holm.</p>' + asked(whole) + (folded if parts else ""))


def asked(found: Sequence[Test]) -> str:
    heads = "".join(f"<th>{word}</th>" for word in ("of", "asked: is this refuted?", "p", "p in its family", "", "from"))
    lines = "".join(
        f"<tr><td>{text(short(t.group))}</td><td>{text(t.asked)}</td><td class=n>{p(t.p)}</td>"
        f"<td class=n>{'' if t.holm is None else p(t.holm)}</td><td>{'<b>refuted</b>' if t.refuted else 'not refuted'}</td>"
        f"<td class=muted>{text('; '.join(w for w in (t.statistic, t.note) if w))}</td></tr>" for t in found)
    return f"<div class=wide tabindex=0><table><tr>{heads}</tr>{lines}</table></div>"


def p(value: float) -> str:
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def answers(confusion: dict) -> str:
    """What was answered to each arm of each image type."""
    kinds = list(dict.fromkeys(a for arms in confusion.values() for counts in arms.values() for a in counts))
    kinds = sorted(kinds)
    head = "".join(f"<th>{text(word)}</th>" for word in ("image type", "arm", *(f'"{kind}"' for kind in kinds)))
    lines = []
    for kind, arms in confusion.items():
        for arm, counts in arms.items():
            total = sum(counts.values())
            cells = "".join(f'<td class=n style="background:color-mix(in srgb,var(--mark) {45 * counts.get(a, 0) / total:.0f}%,'
                            f'transparent)">{counts.get(a, 0)}</td>' for a in kinds)
            lines.append(f"<tr><td>{text(vocabulary.label(kind))}</td><td>{text(arm)}</td>{cells}</tr>")
    return ('<h2 id="answers">Answers</h2><p>First showings of all readers; the darker, the more of the row.</p>'
            f"<div class=wide tabindex=0><table><tr>{head}</tr>{''.join(lines)}</table></div>")


def marks(found: Analysis, counts: dict) -> str:
    """What readers marked as wrong, by arm."""
    arms = sorted(counts["responses"])
    head = "".join(f"<th>{text(word)}</th>" for word in ("marked", *arms))
    words = dict(found.study.question.marks)
    lines = "".join(
        f"<tr><td>{text(words.get(kind, kind))}</td>" + "".join(
            f"<td class=n>{row.get(arm, 0)} <span class=muted>({row.get(arm, 0) / counts['responses'][arm]:.0%})</span></td>"
            for arm in arms) + "</tr>" for kind, row in counts.items() if kind != "responses" and row)
    said = "" if lines else "<p class=muted>Nothing was marked.</p>"
    shown = f"<div class=wide tabindex=0><table><tr>{head}</tr>{lines}</table></div>" if lines else ""
    return f'<h2 id="marks">Marks</h2><p>In how many responses readers marked an error of each kind.</p>{said}{shown}'


def forest(rows: Sequence[Estimate], chance: float | None) -> str:
    """Values with intervals on one axis, a line a group, and chance as a dashed line; "" where nothing has a value."""
    known = [row for row in rows if row.value is not None and math.isfinite(row.value)]
    if not known:
        return ""
    ends = [v for row in known for v in (row.value, row.low, row.high, chance) if v is not None and math.isfinite(v)]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0
    left, width, step, top = 134, 262, 22, 26

    def x(value: float) -> float:
        return left + width * (value - low) / span
    drawn = []
    for k, row in enumerate(known):
        y = top + k * step
        bar = "" if row.low is None or row.high is None else (
            f'<line x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{y}" y2="{y}" stroke="var(--mark)" stroke-width="2"/>')
        drawn.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{text(short(row.group)[:22])}</text>{bar}'
                     f'<circle cx="{x(row.value):.1f}" cy="{y}" r="4" fill="var(--mark)"/>')
    bottom = top + len(known) * step
    if chance is not None:
        drawn.append(f'<line x1="{x(chance):.1f}" x2="{x(chance):.1f}" y1="{top - 12}" y2="{bottom}" stroke="var(--muted)" '
                     f'stroke-dasharray="4 3"/><text x="{x(chance):.1f}" y="11" text-anchor="middle">chance</text>')
    axis = (f'<line x1="{left}" x2="{left + width}" y1="{bottom}" y2="{bottom}" stroke="var(--line)"/>'
            f'<text x="{left}" y="{bottom + 16}">{low:.2f}</text>'
            f'<text x="{left + width}" y="{bottom + 16}" text-anchor="end">{high:.2f}</text>')
    name = WORDS.get(known[0].name, known[0].name)
    return (f'<figure><svg viewBox="0 0 {left + width + 10} {bottom + 22}" width="{left + width + 10}" role="img" '
            f'aria-label="{text(name)}">{"".join(drawn)}{axis}</svg><figcaption>{text(name)}, with 95 % intervals.</figcaption>'
            "</figure>")


def roc(curves: dict[str, list[list[float]]]) -> str:
    """Each reader's ROC curve."""
    if not curves:
        return ""
    size, edge = 260, 34

    def at(point: Sequence[float]) -> str:
        return f"{edge + size * point[0]:.1f},{10 + size * (1 - point[1]):.1f}"
    lines = "".join(f'<polyline points="{" ".join(at(pt) for pt in points)}" fill="none" stroke="var(--mark)" stroke-width="1.6" '
                    f'stroke-opacity="0.75"><title>{text(reader)}</title></polyline>' for reader, points in curves.items())
    frame = (f'<rect x="{edge}" y="10" width="{size}" height="{size}" fill="none" stroke="var(--line)"/>'
             f'<line x1="{edge}" y1="{size + 10}" x2="{edge + size}" y2="10" stroke="var(--muted)" stroke-dasharray="4 3"/>'
             f'<text x="{edge + size / 2}" y="{size + 28}" text-anchor="middle">real called synthetic</text>'
             f'<text transform="translate(16 {10 + size / 2}) rotate(-90)" text-anchor="middle">synthetic called synthetic</text>')
    return (f'<figure><svg viewBox="0 0 {size + edge + 12} {size + 38}" width="{size + edge + 12}" role="img" '
            f'aria-label="ROC curves of {len(curves)} readers">{frame}{lines}</svg>'
            "<figcaption>ROC curve of each reader, from answer and confidence; dashed: chance.</figcaption></figure>")
