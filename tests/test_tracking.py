"""Tracking: every row once, through kills, resumes and trackers that fail; each library for real where it is installed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from medisyn.training import run, tracking
from medisyn.training.run import Stage

SETTINGS = {"seed": 1, "dit": {"width": 192, "betas": [0.9, 0.99]}}


def recorder(seen: list, fails: set[int] = frozenset()) -> tracking.Maker:
    """A tracker that writes down what it is told."""
    @contextlib.contextmanager
    def make(told):
        def track(row, stage, n_images):
            if n_images in fails:
                raise ConnectionError("the network is gone")
            seen.append((told.id, stage, n_images, row))
        yield track
        seen.append((told.id, "closed", None, told.resumed))
    return make


@pytest.fixture
def seen(monkeypatch) -> list:
    found: list = []
    monkeypatch.setitem(tracking.MAKERS, "wandb", recorder(found))
    return found


def tracked(folder: Path, *rows: int, stage: str = "vae", fresh: bool = False, names: tuple[str, ...] = ("wandb",),
            said: list | None = None) -> None:
    """A process that logs so many images, each with a loss of its own."""
    with tracking.tracked(folder, names, SETTINGS, {}, fresh, (said if said is not None else []).append):
        for n in rows:
            Stage(folder, stage).log({"n_images": n, "loss": 1 / n})


def told_rows(seen: list) -> list[int]:
    return [n for _, stage, n, _ in seen if stage != "closed"]


# ---- every row once --------------------------------------------------------------------------------------------------

def test_a_tracker_is_told_what_the_log_holds(seen, tmp_path):
    tracked(tmp_path, 8, 16)
    assert [(stage, n) for _, stage, n, _ in seen] == [("vae", 8), ("vae", 16), ("closed", None)]
    assert [row for _, stage, _, row in seen if stage == "vae"] == list(tracking.rows_of(tmp_path / "vae" / "log.jsonl")[0])


def test_outside_nobody_is_told(seen, tmp_path):
    tracked(tmp_path, 8)
    Stage(tmp_path, "vae").log({"n_images": 16, "loss": 0.5})
    assert told_rows(seen) == [8]
    assert run.TRACKERS == []


def test_a_resumed_run_goes_on_under_its_id_and_tells_no_row_twice(seen, tmp_path):
    tracked(tmp_path, 8, 16, 24)
    Stage(tmp_path, "vae").forget(8)           # killed; the newest checkpoint stands at 8
    tracked(tmp_path, 16, 24, 32)
    assert told_rows(seen) == [8, 16, 24, 32]
    assert len({identity for identity, *_ in seen}) == 1
    assert [resumed for _, stage, _, resumed in seen if stage == "closed"] == [False, True]


def test_rows_from_before_it_was_asked_for_are_told_first(seen, tmp_path):
    tracked(tmp_path, 8, 16, names=())
    tracked(tmp_path, 8, 16, stage="text", names=())
    Stage(tmp_path, "text").finish({})
    tracked(tmp_path, 24)
    assert [(stage, n) for _, stage, n, _ in seen if n] == [("text", 8), ("text", 16), ("vae", 8), ("vae", 16), ("vae", 24)]


def test_a_run_that_begins_anew_is_another_one(seen, tmp_path):
    tracked(tmp_path, 8, 16)
    Stage(tmp_path, "vae").clear()
    tracked(tmp_path, 8, fresh=True)
    assert told_rows(seen) == [8, 16, 8]
    assert len({identity for identity, *_ in seen}) == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"wandb": 3}'])
def test_damaged_marks_are_no_marks(seen, tmp_path, damage):
    tracked(tmp_path, 8)
    (tmp_path / "vae" / "tracked.json").write_text(damage)
    (tmp_path / "tracking" / "wandb.json").write_text(damage)
    tracked(tmp_path, 16)
    assert told_rows(seen) == [8, 8, 16]
    assert len({identity for identity, *_ in seen}) == 2


# ---- pictures --------------------------------------------------------------------------------------------------------

def test_pictures_of_patients_stay_in_the_run_folder(seen, tmp_path):
    with tracking.tracked(tmp_path, ("wandb",), SETTINGS, {}):
        for name in ("vae", "decoder", "dit"):
            stage = Stage(tmp_path, name)
            stage.show(8)                       # none yet
            Image.new("RGB", (8, 8)).save(stage.folder / "samples.png")
            stage.show(8)
            stage.show(8)
    assert [(stage, n, row) for _, stage, n, row in seen if n] == [("dit", 8, {"samples": tmp_path / "dit" / "samples.png"})]


# ---- trackers that fail ----------------------------------------------------------------------------------------------

def test_a_tracker_that_fails_says_so_once_and_catches_up_later(monkeypatch, tmp_path):
    seen, said = [], []
    monkeypatch.setitem(tracking.MAKERS, "wandb", recorder(seen, fails={16}))
    tracked(tmp_path, 8, 16, 24, said=said)
    assert told_rows(seen) == [8]
    sentence, = said
    assert sentence == ("tracking: wandb failed (the network is gone); training goes on without it, log.jsonl holds every row")
    assert [row["n_images"] for row in list(tracking.rows_of(tmp_path / "vae" / "log.jsonl")[0])] == [8, 16, 24]
    monkeypatch.setitem(tracking.MAKERS, "wandb", recorder(seen))
    tracked(tmp_path, 32)
    assert told_rows(seen) == [8, 16, 24, 32]


def test_a_tracker_that_cannot_begin_or_end_stops_nothing(monkeypatch, tmp_path):
    @contextlib.contextmanager
    def stillborn(told):
        raise OSError("no route to host\nand a page of what else")
        yield

    @contextlib.contextmanager
    def endless(told):
        yield lambda row, stage, n_images: None
        raise TimeoutError
    said: list = []
    monkeypatch.setitem(tracking.MAKERS, "mlflow", stillborn)
    monkeypatch.setitem(tracking.MAKERS, "trackio", endless)
    tracked(tmp_path, 8, 16, names=("mlflow", "trackio"), said=said)
    assert [sentence.split(";")[0] for sentence in said] == ["tracking: mlflow failed (no route to host)",
                                                             "tracking: trackio failed (TimeoutError)"]
    assert len(list(tracking.rows_of(tmp_path / "vae" / "log.jsonl")[0])) == 2


def test_what_stops_a_training_still_does(seen, tmp_path):
    with pytest.raises(KeyboardInterrupt), tracking.tracked(tmp_path, ("wandb",), SETTINGS, {}):
        raise KeyboardInterrupt
    assert run.TRACKERS == []
    assert seen[-1][1] == "closed"


# ---- what is asked for -----------------------------------------------------------------------------------------------

def test_names_may_be_given_again_or_by_commas(monkeypatch):
    monkeypatch.setattr(tracking, "installed", lambda library: True)
    assert tracking.chosen(["wandb,mlflow", "wandb", " trackio ,"]) == ("wandb", "mlflow", "trackio")
    assert tracking.chosen([]) == ()


def test_a_folder_is_no_library(tmp_path, monkeypatch):
    (tmp_path / "surely_not_installed").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not tracking.installed("surely_not_installed")
    assert tracking.installed("json")


def test_the_command_line_says_what_cannot_be_tracked_before_it_begins(call, monkeypatch, phantom_recipe, tmp_path):
    monkeypatch.setattr(tracking, "installed", lambda library: False)
    words = ["train", phantom_recipe, "-o", tmp_path / "run", "--track"]
    code, _, err = call(*words, "wand")
    assert code == 2
    assert "did you mean 'wandb'?" in err
    code, _, err = call(*words, "mlflow")
    assert (code, err) == (1, "medisyn: --track mlflow needs mlflow and sqlalchemy and alembic, not installed here; "
                              "pip install 'medisyn[mlflow]'\n")
    assert not (tmp_path / "run").exists()


def test_every_tracker_can_be_installed():
    import tomllib
    extras = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(tracking.MAKERS) == set(tracking.NEEDS) <= set(extras)


def test_a_training_tracked_from_the_command_line(call, seen, monkeypatch, phantom_recipe, phantom_run, tmp_path):
    import shutil
    monkeypatch.setattr(tracking, "installed", lambda library: True)
    for name in ("pixels", "text", "latents", "vae", "decoder"):
        shutil.copytree(phantom_run / name, tmp_path / name)
    words = ["train", phantom_recipe, "-o", tmp_path, "--stages", "dit", "--track", "wandb"]
    assert call(*words)[0] == 0
    rows = list(tracking.rows_of(tmp_path / "dit" / "log.jsonl")[0])
    assert [row for _, stage, _, row in seen if stage == "dit" and "samples" not in row] == rows
    assert [row["n_images"] for row in rows] == [n for _, stage, n, row in seen if stage == "dit" and "samples" in row]
    assert {stage for _, stage, _, _ in seen} == {"text", "vae", "decoder", "dit", "closed"}


# ---- each library for real -------------------------------------------------------------------------------------------

def lines(folder: Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """What TensorBoard holds: (stage, figure) -> points."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    found = {}
    for home in folder.iterdir():
        events = EventAccumulator(str(home), size_guidance={"scalars": 0})
        events.Reload()
        found |= {(home.name, tag): [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        found |= {(home.name, tag): [(e.step, e.width) for e in events.Images(tag)] for tag in events.Tags()["images"]}
        found |= {(home.name, tag): [] for tag in events.Tags()["tensors"]}
    return found


def points(ns: list[int]) -> list[tuple[int, float]]:
    return [(n, pytest.approx(1 / n)) for n in ns]


def made(folder: Path, name: str, *rows: int, ending: str = "") -> None:
    """A process of its own that logs to a library, and is killed at the end where that is asked for."""
    code = f"""
import os, sys, time
from pathlib import Path
from PIL import Image
from medisyn.training import tracking
from medisyn.training.run import Stage
run = Path({str(folder)!r})
with tracking.tracked(run, [{name!r}], {SETTINGS!r}, os.environ):
    stage = Stage(run, "dit")
    for n in {rows!r}:
        stage.log({{"n_images": n, "loss": 1 / n}})
    Image.new("RGB", (12, 8), (200, 30, 30)).save(stage.folder / "samples.png")
    stage.show(n)
    {ending or 'pass'}
"""
    here = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]),
                         "OMP_NUM_THREADS": "1"}
    here.pop("WANDB_MODE", None)
    here.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run([sys.executable, "-c", code], env=here, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == ""
    assert "tracking:" not in done.stderr, done.stderr
    assert done.returncode == (-signal.SIGKILL if ending else 0), done.stderr


def killed_and_resumed(folder: Path, name: str, ending: str = "os.kill(os.getpid(), 9)") -> None:
    made(folder, name, 8, 16, 24, ending=ending)
    Stage(folder, "dit").forget(16)
    made(folder, name, 24, 32)


def test_tensorboard_holds_every_row_once(tmp_path):
    pytest.importorskip("tensorboard")
    killed_and_resumed(tmp_path, "tensorboard")
    held = lines(tmp_path / "tensorboard")
    assert held["dit", "loss"] == points([8, 16, 24, 32])
    assert held["dit", "samples"] == [(24, 12), (32, 12)]
    assert ("settings", "recipe/text_summary") in held


def test_mlflow_holds_every_row_once(tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    killed_and_resumed(tmp_path, "mlflow")
    asked = f"""
import json
from mlflow.tracking import MlflowClient
client = MlflowClient("sqlite:///{tmp_path}/mlflow/mlflow.db")
only, = client.search_runs([client.get_experiment_by_name("medisyn").experiment_id])
print(json.dumps([[m.step, m.value] for m in client.get_metric_history(only.info.run_id, "dit/loss")]))
print(json.dumps([only.data.params, only.info.run_name, only.info.status]))
"""
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=120).stdout
    said = said.splitlines()
    assert [tuple(point) for point in json.loads(said[0])] == points([8, 16, 24, 32])
    assert json.loads(said[1]) == [{"seed": "1", "dit.width": "192", "dit.betas": "[0.9, 0.99]"}, tmp_path.name, "FINISHED"]
    assert len(list((tmp_path / "mlflow" / "pictures").rglob("samples.png"))) == 2


def test_mlflow_tells_its_maker_nothing(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    for name in ("PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL"):
        monkeypatch.delenv(name, raising=False)   # in a test it is silent anyway
    made(tmp_path, "mlflow", 8, ending="from mlflow.telemetry.utils import is_telemetry_disabled\n"
         "    os.kill(os.getpid(), 9) if is_telemetry_disabled() else sys.exit(1)")


def test_trackio_holds_every_row_once(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    killed_and_resumed(tmp_path / "run", "trackio", ending="time.sleep(3); os.kill(os.getpid(), 9)")
    asked = "import json; from trackio.sqlite_storage import SQLiteStorage as S; r, = S.get_runs('medisyn'); " \
            "print(json.dumps([[row['step'], row.get('dit/loss')] for row in S.get_logs('medisyn', r)]))"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=120).stdout
    held = json.loads(said.splitlines()[-1])
    assert [tuple(point) for point in held if point[1] is not None] == points([8, 16, 24, 32])
    assert len(list((tmp_path / "trackio" / "media").rglob("*.png"))) == 2


def test_wandb_writes_offline_under_one_id(tmp_path):
    pytest.importorskip("wandb")
    killed_and_resumed(tmp_path, "wandb", ending="time.sleep(3); os.kill(os.getpid(), 9)")
    identity = json.loads((tmp_path / "tracking" / "wandb.json").read_text())["id"]
    written = sorted((tmp_path / "wandb").glob(f"offline-run-*-{identity}/run-{identity}.wandb"))
    assert len(written) == 2                    # a start each, joined by `wandb sync`
    stored = [path.read_bytes() for path in written]
    assert [blob.count(b"dit/loss") > 0 for blob in stored] == [True, True]
    assert len(list((tmp_path / "wandb").rglob("media/**/*.png"))) == 2
    for blob in stored:
        assert str(Path.home()).encode() + b"/" not in blob
        assert bytes([len(os.uname().nodename)]) + os.uname().nodename.encode() not in blob


def test_a_server_that_is_not_there_stops_nothing(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    for name, value in (("TRACKING_URI", "http://127.0.0.1:9"), ("HTTP_REQUEST_MAX_RETRIES", "1"), ("HTTP_REQUEST_TIMEOUT", "2")):
        monkeypatch.setenv(f"MLFLOW_{name}", value)
    said: list = []
    with tracking.tracked(tmp_path, ("mlflow",), SETTINGS, os.environ, message=said.append):
        Stage(tmp_path, "dit").log({"n_images": 8, "loss": 1.0})
    assert len(said) == 1 and said[0].startswith("tracking: mlflow failed (")
    assert len(list(tracking.rows_of(tmp_path / "dit" / "log.jsonl")[0])) == 1
