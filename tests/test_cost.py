"""Cost is read from what runs leave behind, and never guessed."""

import json
import time
from pathlib import Path

import pytest

from medisyn.data import records
from medisyn.estimates import Estimate
from medisyn.evaluation import cost


def log(folder: Path, *rows: tuple[int, float], **more: float) -> Path:
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps({"n_images": n, "images_per_second": rate, "loss": 1.0} | more) + "\n"
                                              for n, rate in rows))
    return folder


def test_hours_are_images_over_rates(tmp_path):
    log(tmp_path / "run" / "dit", (3600, 1.0), (10800, 2.0))
    (found,) = cost.read(tmp_path / "run")
    assert (found.name, found.n_images, found.seconds) == ("dit", 10800, 3600 + 3600)
    rows = {(r.name, r.group): r for r in cost.measure(run=tmp_path / "run")}
    assert rows["train_hours", "all"].value == rows["train_hours", "stage=dit"].value == 2.0
    assert rows["train_images_per_second", "stage=dit"].value == 1.5


def test_a_resumed_stage_pays_for_what_it_did_twice(tmp_path):
    log(tmp_path / "run" / "dit", (100, 10.0), (50, 10.0), (100, 10.0))
    assert cost.stage(tmp_path / "run" / "dit").n_images == 150


def test_lines_cut_short_are_passed_over(tmp_path):
    folder = log(tmp_path / "run" / "vae", (100, 10.0))
    with (folder / "log.jsonl").open("a") as out:
        out.write('{"n_images": 20')
    assert cost.stage(folder).seconds == 10.0


def test_energy_without_a_meter_is_a_row_that_says_so(tmp_path):
    log(tmp_path / "bare" / "dit", (100, 10.0))
    (row,) = [r for r in cost.measure(run=tmp_path / "bare") if r.name == "train_energy_kwh"]
    assert row.value is None and "no energy meter" in row.missing
    log(tmp_path / "metered" / "dit", (100, 10.0), (200, 10.0), joules=1.8e6)
    (row,) = [r for r in cost.measure(run=tmp_path / "metered") if r.name == "train_energy_kwh"]
    assert row.value == pytest.approx(1.0)


def test_a_meter_is_read_around_the_work(tmp_path):
    meter = tmp_path / "energy_uj"
    meter.write_text("5000000")

    stop = cost.clock(meter)
    meter.write_text("12000000")
    time.sleep(0.02)
    timing = stop(4)
    assert timing.joules == pytest.approx(7.0)
    assert timing.seconds >= 0.02
    rows = {r.name: r for r in cost.made(timing)}
    assert rows["generate_energy_wh_per_image"].value == pytest.approx(7 / 4 / 3600)
    assert cost.clock(tmp_path / "none")(1).joules is None
    meter.write_text("9000000")
    stop = cost.clock(meter)
    meter.write_text("1")  # it has wrapped around
    assert stop(1).joules is None


def test_what_images_took_is_noted_beside_them_and_summed(tmp_path):
    assert cost.noted(tmp_path) is None
    cost.note(tmp_path, cost.Timing(0, 5.0))
    assert cost.noted(tmp_path) is None
    cost.note(tmp_path, cost.Timing(4, 2.0, 7.0))
    cost.note(tmp_path, cost.Timing(2, 4.0, 1.0))
    assert cost.noted(tmp_path) == cost.Timing(6, 6.0, 8.0)
    with (tmp_path / cost.TIMING).open("a") as lines:
        lines.write('{"n_images": 9, "sec')  # cut short by a kill
    assert cost.noted(tmp_path) == cost.Timing(6, 6.0, 8.0)
    cost.note(tmp_path, cost.Timing(1, 1.0, 1.0))
    assert cost.noted(tmp_path) == cost.Timing(7, 7.0, 9.0)


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(ValueError, match="expected the folder of a training"):
        cost.read(tmp_path)
    assert cost.measure(run=tmp_path)[0].missing
    assert cost.measure()[0].missing == "no run folder was given"


def estimate(value: float, half: float = 0.05, better: str = "lower", name: str = "fd_eye") -> Estimate:
    return Estimate(name, value, value - half, value + half, 100, better=better)


def test_a_specialist_is_better_only_beyond_the_intervals(tmp_path):
    log(tmp_path / "all" / "dit", (7200, 1.0))
    log(tmp_path / "chest" / "dit", (3600, 1.0))
    runs = {"chest_xray": tmp_path / "chest", "mri": tmp_path / "none"}
    rows = cost.compare(tmp_path / "all", runs, {"chest_xray": (estimate(1.0), estimate(2.0))})
    assert (rows[0].specialist_hours, rows[0].generalist_hours) == (1.0, 1.0)
    assert rows[0].note == "fd_eye: the specialist is better"
    assert rows[1].specialist_hours is None and "expected the folder" in rows[1].note
    assert cost.judged(estimate(1.0), estimate(1.05)) == "fd_eye: no difference beyond the intervals"
    assert "generalist is better" in cost.judged(estimate(1.0, better="higher"), estimate(2.0, better="higher"))
    assert "cannot be compared" in cost.judged(estimate(1.0), estimate(2.0, name="kd_eye"))
    assert "hours alone" in cost.judged(None, estimate(1.0))
    text = cost.table(rows)
    assert text.count("\n") == 5
    assert "not read" in text and "1 of 2 specialists read" in text


def test_a_specialist_trains_on_its_image_type_alone(tmp_path):
    import phantoms

    from medisyn.training import batches
    home = phantoms.collection(tmp_path / "c", n=4)
    mixed = batches.pack([home], tmp_path / "p", 16)
    alone = batches.pack([home], tmp_path / "p", 16, image_types=("dermoscopy",))
    assert {r.image_type for r in mixed.records} == {"chest_xray", "dermoscopy"}
    assert {r.image_type for r in alone.records} == {"dermoscopy"}
    assert len(alone.array) == sum(r.image_type == "dermoscopy" for r in records.read(home))
    assert len(batches.pack([home], tmp_path / "p", 16, keep=True).records) == len(mixed.records)
    with pytest.raises(ValueError, match="no image of type 'ct'"):
        batches.pack([home], tmp_path / "q", 16, image_types=("ct",))


def test_a_pack_of_everything_is_known_again_as_before(tmp_path):
    """The setting is new: runs that were packed without it go on."""
    import phantoms

    from medisyn.training import batches
    home = phantoms.collection(tmp_path / "c", n=4)
    batches.pack([home], tmp_path / "p", 16)
    assert "image_types" not in json.loads((tmp_path / "p" / "done.json").read_text())
