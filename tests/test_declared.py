"""Declared: what a maker says of its guard is counted as it stands in the set, and no more."""

import dataclasses
import json

import judged
import pytest

from medisyn.data import records
from medisyn.data.provenance import Guarded, Provenance
from medisyn.evaluation import declared, findings
from medisyn.evaluation.sets import open_sets


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    home = tmp_path_factory.mktemp("real")
    return judged.collection(home / "train", range(12)), judged.collection(home / "unseen", range(100, 108), "test")


def made(folder, verdicts):
    """A synthetic set; of each image (verdict, images blocked before it), or None where no guard looked."""
    judged.collection(folder, range(200, 200 + len(verdicts)))
    found = []
    for seed, (record, told) in enumerate(zip(records.read(folder), verdicts, strict=True)):
        guard = told and Guarded(told[0], 1.0, 6.0, told[1], record.id, "0123456789ab")
        how = Provenance(record.text, record.text, seed, 8, 2.0, "euler", None, "sha256:0", "tiny", "0", guard)
        found.append(dataclasses.replace(record, provenance=how))
    records.write(found, folder)
    return folder


def rows(real, synthetic):
    return {row.name: row for row in declared.measure(open_sets(*real, synthetic))}


def test_what_was_blocked_flagged_and_refused_is_counted(real, tmp_path):
    folder = made(tmp_path / "made", [("passed", 0), ("passed", 2), ("flagged", 0), None])
    lines = [{"prompt": "a", "seed": 7, "tries": 4, "reason": "too alike", "guard": "0123456789ab"}] * 2  # asked for twice
    (folder / declared.REFUSED).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"prompt": "cut sh')
    found = rows(real, folder)
    assert found["guard_looked_share"].value == 0.75
    assert found["guard_blocked_share"].value == pytest.approx((2 + 4) / (3 + 2 + 4))
    assert found["guard_refused_share"].value == pytest.approx(1 / 4)
    assert found["guard_flagged_share"].value == pytest.approx(1 / 3)
    assert all(row.low <= row.value <= row.high for row in found.values())
    assert "6 images were too alike" in found["guard_blocked_share"].note and "0123456789ab" in found["guard_blocked_share"].note


def test_a_seed_refused_once_and_made_later_is_not_refused(real, tmp_path):
    folder = made(tmp_path / "made", [("passed", 0), ("passed", 0)])
    first = next(iter(records.read(folder))).provenance
    (folder / declared.REFUSED).write_text(json.dumps({"prompt": first.prompt, "seed": first.seed, "tries": 4}) + "\n")
    assert rows(real, folder)["guard_refused_share"].value == 0


def test_a_set_without_a_guard_has_a_row_that_says_so(real, tmp_path):
    (row,) = declared.measure(open_sets(*real, judged.collection(tmp_path / "other", range(300, 304))))
    assert row.value is None and "no synthetic image says that a guard looked" in row.missing


def test_the_report_says_first_that_flagged_images_were_kept(real, tmp_path):
    folder = made(tmp_path / "made", [("flagged", 0), ("passed", 1)])
    said = findings.guarding({(row.name, "all"): row for row in declared.measure(open_sets(*real, folder))})
    assert said[0].grave and "called them copies" in said[0].text
    assert any("blocked and drawn again" in one.text for one in said)
