"""Reports: what a study shows, as a page for people and as JSON for programs, the same numbers in both."""

import dataclasses
import datetime
import json
import math
import os
from pathlib import Path

from medisyn.estimates import Estimate
from medisyn.reader_study import page
from medisyn.reader_study.analysis import Analysis
from medisyn.reader_study.equivalence import Test


def write(found: Analysis, folder: Path) -> Path:
    """report.json and report.html in `folder`; the path of the page."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    told = as_dict(found)
    whole(folder / "report.json", json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return whole(folder / "report.html", page.draw(found, told))


def whole(path: Path, text: str) -> Path:
    """A text file that appears whole or not at all."""
    draft = path.with_suffix(".part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
    return path


def as_dict(found: Analysis) -> dict:
    """The report as JSON; `estimates` in the shape of `medisyn.estimates`."""
    import medisyn
    study, table = found.study, found.whole
    read = {reader: sum(one is not None for one in row) + sum(r == k for r, _, _ in table.again)
            for k, (reader, row) in enumerate(zip(table.readers, table.given, strict=True))}
    return {
        "medisyn": medisyn.__version__,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "study": {"id": study.id, "title": study.title, "design": study.design, "question": study.question.text, "made": study.made,
                  "seed": study.seed, "side": study.side, "margin": study.margin, "cases": len(table.cases),
                  "repeats": len(study.cases) - len(table.cases), "readers": len(study.readers)},
        "responses": {"n": len(found.log.responses), "last_hash": found.log.last, "by_reader": read,
                      "crossed_readers": len(found.some.readers), "crossed_cases": len(found.some.cases)},
        "notes": list(found.notes),
        "findings": findings(found),
        "estimates": [{"part": part} | {key: finite(value) for key, value in row.as_dict().items()}
                      for part, row in found.estimates],
        "tests": [dataclasses.asdict(test) | {"p": finite(test.p), "refuted": test.refuted} for test in found.tests],
        "confusion": found.confusion, "marks": found.marks, "roc": found.roc}


def findings(found: Analysis) -> list[dict]:
    """What stands out, in sentences, and whether it is grave (synthetic images are told from real ones, controls failed)."""
    rows = {row.name: row for part, row in found.estimates if part in ("all readers", "agreement") and row.group == "all"}
    tests = {test.name: test for test in found.tests if test.group == "all"}
    said = judged(found, rows, tests) if "accuracy" in rows else rated(found, rows, tests)
    if (row := rows.get("fleiss_kappa")) is not None and row.value is not None:
        said.append((f"Readers agree with each other by a Fleiss kappa of {interval(row)}.", False))
    if (row := rows.get("same_answer")) is not None and row.value is not None:
        said.append((f"Shown a case again, readers gave the same answer in {row.value:.0%} of {row.n} repeats.", row.value < 0.6))
    if (row := tests.get("image_types")) is not None:
        said.append((f"Accuracy {'differs' if row.refuted else 'was not shown to differ'} between image types "
                     f"(p {p_said(row.p)}).", row.refuted))
    return [{"text": text, "grave": grave} for text, grave in said]


def judged(found: Analysis, rows: dict[str, Estimate], tests: dict[str, Test]) -> list[tuple[str, bool]]:
    """Of designs whose answers are right or wrong."""
    row, said, margin = rows["accuracy"], [], found.study.margin
    if row.value is None:
        return [(f"No figure of all readers: {row.missing}.", True)]
    chance, near = tests.get("chance"), tests.get("equivalence")
    if chance is not None:
        how = ("which differs from chance" if chance.refuted else
               "which is not shown to differ from chance (that alone proves nothing)")
        said.append((f"Readers told real from synthetic with an accuracy of {interval(row)}, {how} (p {p_said(chance.p)}).",
                     chance.refuted and row.value > 0.5))
    if near is not None:
        said.append((f"Accuracy lies within {0.5 - margin:g} to {0.5 + margin:g}: {'shown' if near.refuted else 'not shown'} "
                     f"(two one-sided tests, p {p_said(near.p)}).", not near.refuted))
    if "dprime" in rows and rows["dprime"].value is not None:
        said.append((f"Their d' is {interval(rows['dprime'])}; 0 means that they cannot tell.", False))
    return said


def rated(found: Analysis, rows: dict[str, Estimate], tests: dict[str, Test]) -> list[tuple[str, bool]]:
    """Of designs whose answers lie on a scale."""
    said, arms, near, controls = [], tests.get("arms"), tests.get("equivalence"), tests.get("controls")
    name = "shown" if found.study.design == "alignment" else "rating"
    scale = "0 no to 1 yes" if found.study.design == "alignment" else "1 to 5"
    made, real, gap = (rows.get(f"{name}_{end}") for end in ("synthetic", "real", "difference"))
    if made is not None and made.value is not None:
        said.append((f"Synthetic images were answered {interval(made)} on a scale of {scale}"
                     + (f", real ones {interval(real)}." if real is not None and real.value is not None else "."), False))
    if arms is not None and gap is not None and gap.value is not None:
        said.append((f"Synthetic less real: {interval(gap)}, {'a difference' if arms.refuted else 'no difference shown'} "
                     f"(p {p_said(arms.p)}).", arms.refuted and gap.value < 0))
    if near is not None:
        said.append((f"Equivalence of the arms within a margin of {found.study.margin:g} is "
                     f"{'shown' if near.refuted else 'not shown'} (p {p_said(near.p)}).", not near.refuted))
    if controls is not None:
        said.append(("Wrong sentences were noticed." if controls.refuted else
                     "Wrong sentences were not noticed: these answers say little about alignment.", not controls.refuted))
    return said


def interval(row: Estimate) -> str:
    between = "" if row.low is None else f" [{row.low:.2f}, {row.high:.2f}]"
    return f"{row.value:.2f}{between}"


def p_said(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def finite(value: object) -> object:
    """JSON knows no infinities."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
