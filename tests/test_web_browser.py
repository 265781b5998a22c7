"""The studio in headless Chromium: compose, generate, cancel, filter, download, keyboard, 390 px, dark and light, axe.

MEDISYN_SCREENSHOTS=FOLDER keeps its pictures there, with the model that ships instead of squares; docs/figures has three of them.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
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
def test_a_new_user_in_a_browser(tmp_path):
    from medisyn.web import app
    shots = Path(SHOTS) if SHOTS else tmp_path / "shots"
    shots.mkdir(parents=True, exist_ok=True)
    report = tmp_path / "evaluation"
    report.mkdir()
    style = (HERE.parent / "medisyn" / "evaluation" / "page.css").read_text()
    (report / "report.html").write_text(f"<!doctype html><title>Report</title><style>{style}</style><main>"
                                        "<h1>Evaluation of a set</h1><p>Every figure with its interval and its floor.</p></main>")
    told = studio.settings(tmp_path / "studio", shown=(report,))
    keeping = app.worker if SHOTS else lambda s: studio.working(s, 0.05)
    locked = studio.settings(tmp_path / "locked", token="a token that is long")
    with studio.live(told, keeping=keeping) as address, studio.live(locked) as other:
        done = subprocess.run(["node", HERE / "browser" / "studio.mjs", address, shots, MODULES, CHROMIUM, other, locked.token],
                              text=True, capture_output=True, timeout=500, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("ok ") == 19
    studio.shrunk(shots, "studio-*.png")
