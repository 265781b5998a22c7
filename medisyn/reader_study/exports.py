"""Exports: the responses of a study in the form that iMRMC reads, and as one plain CSV.

iMRMC (Gallas et al., github.com/DIDSR/iMRMC): a free header, `BEGIN DATA:`, then rows reader, case, modality, score; the truth
of a case is a row of reader -1 with score 0 or 1.
"""

import csv
import io
import json

from medisyn.reader_study.design import Study, Truth
from medisyn.reader_study.responses import Response
from medisyn.reader_study.table import Table, ratings, values

COLUMNS = ("reader", "case", "position", "arm", "image_type", "repeat_of", "right_answer", "answer", "confidence", "seconds",
           "visible", "marks", "comment", "at")


def imrmc(study: Study, whole: Table) -> str:
    """First showings as iMRMC takes them; the signal (1) is: synthetic (detection), real (alignment, quality: their answers)."""
    if study.design == "two-alternatives":
        raise ValueError("iMRMC takes one score a case; a study of two alternatives has none, export it with --format csv")
    signal = "synthetic" if study.design == "real-or-synthetic" else "real"
    scores = ratings(whole) if study.design == "real-or-synthetic" else values(whole, study.design)
    kept = [k for k, t in enumerate(whole.truths) if t.arm in ("real", "synthetic")]
    ones = sum(whole.truths[k].arm == signal for k in kept)
    lines = [f"MediSyn reader study {study.id}: {study.design}; 1 = {signal}", f"N0: {len(kept) - ones}", f"N1: {ones}",
             f"NR: {len(whole.readers)}", "NM: 1", "BEGIN DATA:"]
    lines += [f"-1,{whole.cases[k]},truth,{int(whole.truths[k].arm == signal)}" for k in kept]
    lines += [f"{reader},{whole.cases[k]},images,{scores[row, k]:g}" for row, reader in enumerate(whole.readers) for k in kept
              if whole.given[row, k] is not None]
    return "\n".join(lines) + "\n"


def plain(study: Study, truth: dict[str, Truth], given: list[Response]) -> str:
    """Every response with what was true of its case."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for one in given:
        known = truth[one.case]
        table.writerow([one.reader, one.case, one.position, known.arm, known.image_type, known.repeat_of or "", known.answer or "",
                        one.answer, one.confidence or "", "" if one.seconds is None else one.seconds,
                        "" if one.visible is None else one.visible, json.dumps(list(one.marks)) if one.marks else "",
                        safe(one.comment), one.at])
    return out.getvalue()


def safe(text: str) -> str:
    """Free text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
