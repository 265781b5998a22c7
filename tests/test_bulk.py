"""Bulk: processes and machines make what one process makes, pixel for pixel, whoever dies on the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import clusters
import pytest

from medisyn import bulk, making, synthesizer
from medisyn.data import records
from medisyn.data.records import Record
from medisyn.evaluation import guard

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="processes are killed otherwise there"),
              pytest.mark.filterwarnings("ignore")]  # Ray warns of its own settings
ASKED = [("chest X-ray with pneumonia", 16, 5), ("dermoscopy of a melanoma", 16, 9)]
STEPS = 100   # so that somebody can be killed on the way


def verb(environment: dict, model: Path, out: Path, engine: str) -> subprocess.Popen:
    prompts = out.with_suffix(".csv")
    prompts.write_text("\n".join(["prompt,n,seed", *(",".join(map(str, row)) for row in ASKED)]))
    return subprocess.Popen([sys.executable, "-m", "medisyn", "generate", "--prompts", str(prompts), "--model", str(model), "-o",
                             str(out), "--steps", str(STEPS), "--engine", engine],
                            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def held(out: Path) -> dict[str, bytes | list[Record]]:
    """Every image and line of a collection."""
    pictures = {path.name: path.read_bytes() for path in (out / "images").iterdir()}
    return pictures | {"lines": list(records.read(out))}


def when_made(out: Path, n: int, process: subprocess.Popen) -> None:
    """Wait until n images are there with their lines: one without a line is made again."""
    lines = out / "metadata.jsonl"
    while process.poll() is None and (not lines.is_file() or lines.read_bytes().count(b"\n") < n):
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]


@pytest.fixture(scope="module")
def model(phantom_run) -> Path:
    return phantom_run / "model"


@pytest.fixture(scope="module")
def whole(maker, model, tmp_path_factory) -> Path:
    """What one process makes, under the guard."""
    folder = tmp_path_factory.mktemp("whole")
    plans = {prompt: maker.plan(prompt) for prompt, _, _ in ASKED}
    coming = making.make_all(maker, plans, ASKED, folder, STEPS, None, guard.load(model / "guard"), True)
    assert len(list(making.write(coming, folder))) == 32
    return folder


def test_processes_make_what_one_process_makes_and_go_on_where_they_were_killed(whole, model, tmp_path, environment):
    process = verb(environment, model, tmp_path / "out", "processes")
    when_made(tmp_path / "out", 3, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / r.file_name for r in records.read(tmp_path / "out"))}
    process = verb(environment, model, tmp_path / "out", "processes")
    said, _ = process.communicate()
    assert process.returncode == 0 and "Traceback" not in said, said
    assert 3 <= len(kept) < 32 and {path: path.stat().st_mtime_ns for path in kept} == kept   # not made again
    ours, theirs = held(tmp_path / "out"), held(whole)
    assert sorted(ours.pop("lines"), key=lambda r: r.id) == sorted(theirs.pop("lines"), key=lambda r: r.id)
    assert ours == theirs


def test_two_machines_one_of_them_killed_make_what_one_process_makes(whole, model, tmp_path, environment, monkeypatch):
    with clusters.two_machines(monkeypatch) as (cluster, other):
        process = verb(environment, model, tmp_path / "out", f"ray:{cluster.address}")
        when_made(tmp_path / "out", 2, process)
        cluster.remove_node(other, allow_graceful=False)
        said, _ = process.communicate()
    assert process.returncode == 0 and "Traceback" not in said, said
    assert held(tmp_path / "out") == held(whole)                                # nothing lost, nothing doubled, in the same order
    assert "32 images in" in said and "guard:" in said


# ---- parts -----------------------------------------------------------------------------------------------------------

def test_another_model_or_guard_under_the_same_name_is_refused(model, maker):
    bulk.opened.cache_clear()
    with pytest.raises(ValueError, match="give all machines the same model under the same name"):
        bulk.opened(bulk.Opening(str(model), "sha256:other", None))
    with pytest.raises(ValueError, match="the guard in .* differs between the machines"):
        bulk.opened(bulk.Opening(str(model), maker.model.digest, "other"))


def test_an_image_whose_process_dies_each_time_is_named_and_the_others_are_made(maker, tmp_path, monkeypatch):
    plan = maker.plan("dermoscopy")
    wanted = [(plan, maker.settings(plan, seed)) for seed in range(3)]
    made = {how.seed: synthesizer.Synthetic(None, None) for _, how in wanted}

    def lossy(function, tasks, *rest):
        for task in tasks:
            yield task, (bulk.engine.Lost() if task[2].seed == 1 else made[task[2].seed])
    monkeypatch.setattr(bulk.engine, "map", lossy)
    order: list[str] = []
    coming = bulk.many(bulk.Opening(None, "d", None), "processes", order=order)(wanted)
    assert [next(coming), next(coming)] == [made[0], made[2]]
    with pytest.raises(RuntimeError, match="1 of 3 images were not made, the first of them seed 1 of 'dermoscopy'"):
        next(coming)
    assert order == [synthesizer.name_of(how) for _, how in wanted]


def test_lines_are_put_in_the_order_that_was_asked_for(tmp_path):
    known = [Record(name, f"images/{name}.png", "ct") for name in "edcba"]
    records.write(known, tmp_path)
    making.put_in_order(tmp_path, ["a", "b", "c"])
    assert [r.id for r in records.read(tmp_path)] == ["e", "d", "a", "b", "c"]


@pytest.mark.parametrize(("word", "expected"), [(None, (None, None)), ("processes", ("processes", None)), ("ray", ("ray", None)),
                                                ("ray:10.0.0.1:6379", ("ray", "10.0.0.1:6379")), ("ray:auto", ("ray", "auto")),
                                                ("ray://head:10001", ("ray", "ray://head:10001"))])
def test_an_engine_is_a_word(word, expected):
    from medisyn.cli.making import engine_of
    assert engine_of(word) == expected


@pytest.mark.parametrize("word", ["rey", "ray:", "process", "RAY"])
def test_another_word_is_wrong_usage(word):
    import typer

    from medisyn.cli.making import engine_of
    with pytest.raises(typer.BadParameter, match="expected processes, ray, ray:HOST:PORT"):
        engine_of(word)
