"""The reading room in headless Chromium: two readers at once, keyboard only, 390 px, dark and light, axe; then the analysis.

MEDISYN_SCREENSHOTS=FOLDER keeps its pictures there; docs/figures has two of them.
"""

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import studies
import studio

pytest.importorskip("fastapi")
HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MODULES = Path(os.environ.get("MEDISYN_TEST_NODE", HERE / "browser" / "node_modules"))
SHOTS = os.environ.get("MEDISYN_SCREENSHOTS")


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
@pytest.mark.skipif(not (MODULES / "playwright-core").is_dir() or not (MODULES / "axe-core").is_dir(),
                    reason="playwright-core and axe-core are missing; npm install in tests/browser, or name a node_modules "
                           "folder in MEDISYN_TEST_NODE")
def test_two_readers_finish_a_study_and_their_answers_come_through(tmp_path, command):
    import rooms

    from medisyn.reader_study import design, readers, responses
    shots = Path(SHOTS) if SHOTS else tmp_path / "shots"
    shots.mkdir(parents=True, exist_ok=True)
    made = {kind: studies.study(tmp_path, kind, n=10, cases=20, repeats=0.0 if kind == "real-or-synthetic" else 0.1, readers=2)
            for kind in ("real-or-synthetic", "two-alternatives", "alignment", "quality")}
    with contextlib.ExitStack() as servers:
        told = {"addresses": {kind: servers.enter_context(rooms.live(study.folder)) for kind, study in made.items()},
                "links": {kind: list(readers.issue(study).values()) for kind, study in made.items()}}
        (tmp_path / "links.json").write_text(json.dumps(told))
        done = subprocess.run(["node", HERE / "browser" / "room.mjs", tmp_path / "links.json", shots, MODULES, CHROMIUM,
                               tmp_path / "told.json"], text=True, capture_output=True, timeout=500, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("ok ") == 12
    studio.shrunk(shots, "room-*.png")
    study, pressed = made["real-or-synthetic"], json.loads((tmp_path / "told.json").read_text())["told"]
    given = responses.read(study)
    assert len(given) == 2 * len(study.cases) == 40
    for reader, keys in zip(study.readers, pressed, strict=True):
        mine = [one for one in given if one.reader == reader]
        assert [one.case for one in mine] == design.order(study, reader)
        assert [[one.answer, one.confidence] for one in mine] == keys
        assert all(0 < one.visible <= one.seconds + 1 for one in mine)
    first = next(one for one in given if one.reader == "reader-01")
    assert [mark["kind"] for mark in first.marks] == ["finding", "border"] and first.comment == "<b>grainy</b>, 100 % sure"
    assert (first.marks[0]["x"], first.marks[0]["y"]) == (0.52, 0.48) and first.marks[1]["x"] == 0.34
    analyzed = command("study", "analyze", study.folder, "-o", tmp_path / "report", "--json")
    assert analyzed.returncode == 0, analyzed.stderr
    report, truth = json.loads(analyzed.stdout), design.truth(study)
    assert report["responses"]["n"] == 40
    for reader in study.readers:
        right = sum(truth[one.case].answer == one.answer for one in given if one.reader == reader) / 20
        [row] = [row for row in report["estimates"] if row["name"] == "accuracy" and row["group"] == f"reader={reader}"]
        assert row["value"] == pytest.approx(right) and row["n"] == 20
