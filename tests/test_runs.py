"""Runs seen from outside: however they were ended, they can be listed, compared and drawn."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from medisyn.training import comparing, runs

NOW = 1_000_000.0


def made(folder: Path, rows: list[dict], stage: str = "dit", settings: dict | None = None, done: bool = False,
         ago: float = 10.0, color: str | None = None) -> Path:
    """A run of one stage that last wrote so many seconds ago."""
    home = folder / stage
    home.mkdir(parents=True)
    (home / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if settings is not None:
        (folder / "recipe.json").write_text(json.dumps(settings))
    if done:
        (home / "done.json").write_text("{}")
    if color:
        Image.new("RGB", (64, 48), color).save(home / "samples.png")
    for path in (*home.iterdir(), *folder.glob("*.json")):
        os.utime(path, (NOW - ago, NOW - ago))
    return folder


def line(slope: float, *ns: int) -> list[dict]:
    return [{"n_images": n, "loss": slope * n, "held_out_ema_0.05": slope * n + 2, "held_out_ema_0.10": slope * n + 1,
             "images_per_second": 5.0} for n in ns]


RECIPE = {"seed": 1, "model": {"name": "first"}, "dit": {"n_images": 400, "batch": 8}, "data": {"collections": ["a", "b"]}}


# ---- one run ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("done", "ago", "state"), [(True, 9e5, "done"), (False, 10, "running"), (False, 3600, "stopped")])
def test_a_stage_is_done_running_or_stopped(tmp_path, done, ago, state):
    run = runs.read(made(tmp_path / "a", line(0.01, 100, 200), settings=RECIPE, done=done, ago=ago), NOW)
    seen, = run.stages
    assert (run.name, run.kind, seen.name, seen.state) == ("first", "model", "dit", state)
    assert (seen.n_images, seen.wanted) == (200, 400)
    assert seen.loss == ("loss", pytest.approx(2.0))
    assert seen.held_out == ("held_out_ema_0.10", pytest.approx(3.0))
    assert NOW - seen.written == ago
    text = "\n".join(runs.table(run, NOW))
    assert f"dit         {state}" in text
    assert "200 of 400 images  loss 2  held_out_ema_0.10 3  5 images/s" in text


def test_a_log_cut_short_is_read_as_far_as_it_goes(tmp_path):
    folder = made(tmp_path / "a", line(0.01, 100, 200))
    with (folder / "dit" / "log.jsonl").open("ab") as log:
        log.write(b'\xff\xfe\n[1]\n{"n_images": "many"}\n\n{"n_images": 300, "loss": NaN}\n{"n_images": 40')
    seen, = runs.read(folder, NOW).stages
    assert [row["n_images"] for row in seen.rows] == [100, 200, 300]
    assert seen.last == {"n_images": 300}
    assert seen.damaged == 4
    assert seen.loss is None
    assert "4 damaged lines" in "\n".join(runs.table(runs.read(folder, NOW), NOW))


def test_rows_that_a_resume_repeats_count_once(tmp_path):
    folder = made(tmp_path / "a", [*line(0.01, 100, 200, 300), *line(0.02, 200, 300)])
    assert [(row["n_images"], row["loss"]) for row in runs.read(folder).stages[0].rows] == [(100, 1.0), (200, 4.0), (300, 6.0)]


@pytest.mark.parametrize("recipe", ["", "{", "[]", "null", '{"model": 3, "dit": []}'])
def test_a_recipe_that_cannot_be_read_is_a_run_without_settings(tmp_path, recipe):
    folder = made(tmp_path / "a", line(0.01, 100))
    (folder / "recipe.json").write_text(recipe)
    run = runs.read(folder, NOW)
    assert run.name == "a"
    assert run.stages[0].wanted is None
    assert runs.as_dict(run, NOW)["stages"][0]["n_images"] == 100


def test_an_eye_and_a_fine_tuning_are_runs(tmp_path):
    eye = runs.read(made(tmp_path / "eye", [{"n_images": 64, "loss": 1.0, "recognised": 0.5}], stage="eye"), NOW)
    assert (eye.kind, eye.name, eye.stages[0].name) == ("eye", "eye", "eye")
    tuned = runs.read(made(tmp_path / "few", line(0.01, 64), stage="tune",
                           settings={"kind": "finetune", "model": {"name": "oct"}, "tune": {"n_images": 640}}), NOW)
    assert (tuned.kind, tuned.name, tuned.stages[0].wanted) == ("finetune", "oct", 640)
    assert "few  oct, finetune" in runs.table(tuned, NOW)[0]


def test_a_real_run_is_read_whole(phantom_run):
    run = runs.read(phantom_run)
    assert {"text", "vae", "latents", "decoder", "dit"} <= {s.name for s in run.stages}
    assert {s.state for s in run.stages} == {"done"}
    assert run.model
    assert run.size == sum(path.stat().st_size for path in phantom_run.rglob("*") if path.is_file())
    assert next(s for s in run.stages if s.name == "dit").n_images == run.settings["dit"]["n_images"]


def test_runs_are_found_in_folders_and_in_folders_of_them(tmp_path):
    a, b = made(tmp_path / "out" / "a", line(0.01, 100)), made(tmp_path / "out" / "b", [], settings=RECIPE)
    (tmp_path / "out" / "notes").mkdir()
    (tmp_path / "out" / "a.toml").write_text("")
    assert runs.find([tmp_path / "out"]) == [a, b]
    assert runs.find([b, tmp_path / "out"]) == [b, a]
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        runs.find([tmp_path / "nowhere"])


def test_ages_are_in_words():
    assert [runs.ago(s) for s in (0, 59, 60, 3599, 3600, 7300, 86400, 3e5)] == [
        "0 s", "59 s", "60 s", "60 min", "1 h", "2 h", "1 d", "3 d"]


# ---- runs beside each other ------------------------------------------------------------------------------------------

def two(tmp_path: Path) -> list[runs.Run]:
    other = RECIPE | {"seed": 2, "dit": {"n_images": 400, "batch": 16, "depth": 3}}
    return [runs.read(made(tmp_path / "a", line(0.01, 50, 100, 200, 300), settings=RECIPE, color="navy"), NOW),
            runs.read(made(tmp_path / "b", line(0.02, 80, 160, 240, 320, 400), settings=other, color="olive"), NOW)]


def test_settings_that_differ_are_those_that_both_have(tmp_path):
    assert comparing.differing(two(tmp_path)) == {"seed": [1, 2], "dit.batch": [8, 16]}


def test_losses_are_compared_at_equal_numbers_of_images(tmp_path):
    found = comparing.compare(two(tmp_path))
    rows = found["equal_images"]["dit"]["loss"]
    assert [row["n_images"] for row in rows] == [100, 200, 300]        # the coarser log's, where both have been
    for row in rows:
        assert row["values"] == [pytest.approx(0.01 * row["n_images"]), pytest.approx(0.02 * row["n_images"])]
    assert [last["n_images"] for last in found["final"]["dit"]] == [300, 400]
    assert "images_per_second" not in found["equal_images"]["dit"]
    text = "\n".join(comparing.table(found))
    assert "dit.batch" in text and "300 images" in text
    json.dumps(found, allow_nan=False)


def test_runs_that_never_meet_have_no_images_in_common(tmp_path):
    pair = [runs.read(made(tmp_path / "a", line(0.01, 50, 100))), runs.read(made(tmp_path / "b", line(0.01, 500)))]
    found = comparing.compare(pair)
    assert found["equal_images"]["dit"]["loss"] == []
    assert "no number of images in common" in "\n".join(comparing.table(found))


def test_a_long_log_gives_a_handful_of_numbers_and_its_end(tmp_path):
    pair = [runs.read(made(tmp_path / name, line(0.01, *range(10, 1010, 10)))) for name in "ab"]
    ns = [row["n_images"] for row in comparing.compare(pair)["equal_images"]["dit"]["loss"]]
    assert len(ns) <= comparing.POINTS
    assert (ns[0], ns[-1]) == (10, 1000)


def test_runs_of_one_folder_name_are_told_apart(tmp_path):
    pair = [runs.read(made(tmp_path / top / "run", line(0.01, 10))) for top in ("x", "y")]
    assert comparing.labels(pair) == [str(tmp_path / "x" / "run"), str(tmp_path / "y" / "run")]


def test_the_picture_shows_the_samples_of_both(tmp_path):
    pair = two(tmp_path)
    with Image.open(comparing.picture(pair, tmp_path / "new" / "compare.png")) as drawn:
        seen = {color for _, color in drawn.convert("RGB").getcolors(1 << 20)}
    assert {(0, 0, 128), (128, 128, 0)} <= seen
    inks = {tuple(bytes.fromhex(ink[1:])) for ink in comparing.INKS[:2]}
    assert inks <= seen


def test_a_picture_cut_short_is_left_out_and_nothing_is_said_so(tmp_path):
    pair = [runs.read(made(tmp_path / name, [], settings=RECIPE)) for name in "ab"]
    (tmp_path / "a" / "dit" / "samples.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(ValueError, match="nothing to draw"):
        comparing.picture(pair, tmp_path / "compare.png")


# ---- the verb --------------------------------------------------------------------------------------------------------

@pytest.fixture
def call(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return functools.partial(call, "runs")


def test_no_runs_is_a_friendly_sentence(call, tmp_path):
    assert call()[:2] == (0, "no runs yet: there is no folder out; `medisyn train RECIPE -o out/NAME` begins one\n")
    assert json.loads(call("--json")[1]) == []
    (tmp_path / "out").mkdir()
    assert call()[:2] == (0, "no runs in out yet; `medisyn train RECIPE -o out/NAME` begins one\n")
    assert call("nowhere")[0] == 1


def test_runs_are_listed_and_two_by_name_compared(call, tmp_path):
    for name in "ab":
        made(tmp_path / "out" / name, line(0.01, 100, 200), settings=RECIPE | {"seed": ord(name)}, color="navy")
    code, out, err = call()
    assert code == 0
    assert [text.split()[0] for text in out.splitlines() if not text.startswith(" ")] == ["out/a", "out/b"]
    assert err == "next: medisyn runs out/a out/b -o compare.png\n"
    assert [row["folder"] for row in json.loads(call("--json")[1])] == ["out/a", "out/b"]
    compared = json.loads(call("out/a", "out/b", "--json")[1])
    assert compared["settings"] == {"seed": [97, 98]}
    assert compared == json.loads(call("--compare", "--json")[1])
    code, out, err = call("out/a", "out/b", "-o", "compare.png")
    assert out.startswith("settings that differ")
    assert err == "wrote compare.png\n"
    assert (tmp_path / "compare.png").is_file()


def test_one_run_alone_is_not_compared(call, tmp_path):
    made(tmp_path / "out" / "a", line(0.01, 100))
    code, _, err = call("--compare")
    assert code == 1
    assert "needs two runs or more, found out/a alone" in err


def test_listing_needs_no_torch(phantom_run, environment, tmp_path):
    shutil.copytree(phantom_run / "dit", tmp_path / "out" / "a" / "dit")
    code = "import sys\nsys.argv = ['medisyn', 'runs']\nfrom medisyn import cli\ntry: cli.main()\nexcept SystemExit: pass\n" \
           "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
                          timeout=60)
    assert done.stdout.startswith("out/a")
    assert done.stdout.splitlines()[-1] == "False"
