"""Several processes: one, two or four, sharded or not, learn the same from the same images in the same order."""

import json
import os
import subprocess
import sys
from pathlib import Path

import crew
import pytest
import torch

from medisyn.training import run, sealed, sharded
from medisyn.training.run import Plan, Stage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo between processes is tried on Linux")
CREW = Path(crew.__file__)


def torchrun(n: int, *words: object) -> None:
    environment = os.environ | {"PYTHONPATH": str(CREW.parent.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-W", "error::UserWarning:medisyn", "-m", "torch.distributed.run", "--standalone",
                           "--nproc-per-node", str(n), str(CREW), *map(str, words)],
                          env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("crew")


@pytest.fixture(scope="module")
def alone(home) -> dict:
    """One process, as it would train without any of this, and its checkpoint."""
    draw, order = run.draw_progress, []
    try:
        found = {name: crew.trained(home / "1", name, shards=name == "sharded", order=order if name == "data" else None)[0]
                 for name in ("data", "sharded")}
    finally:
        run.draw_progress = draw
    return found | {"order": order, "curve": crew.curve(home / "1", "sharded"),
                    "checkpoint": Stage(home / "1", "sharded").checkpoints()[-1]}


@pytest.fixture(scope="module")
def crews(home, alone) -> dict[int, dict]:
    """Two processes, then four, each loading the checkpoints of those before."""
    checkpoints, found = [alone["checkpoint"]], {}
    for n in (2, 4):
        torchrun(n, home, *checkpoints)
        found[n] = json.loads((home / f"{n}.json").read_text())
        checkpoints.append(Stage(home / str(n), "cut").checkpoints()[-1])
    return found


def same(a: dict[str, list], b: dict[str, list], abs_: float = 0.0) -> None:
    assert set(a) == set(b)
    for name in a:
        assert a[name] == pytest.approx(b[name], abs=abs_, rel=0), name


@pytest.mark.parametrize("n", [2, 4])
def test_the_order_of_images_is_one_for_any_number_of_processes(alone, crews, n):
    joined = [sum((share[i] for share in crews[n]["shares"]), []) for i in range(crew.STEPS)]
    assert joined == alone["order"]
    assert len({tuple(share[0]) for share in crews[n]["shares"]}) == n


@pytest.mark.parametrize("kind", ["data", "sharded", "parts"])
@pytest.mark.parametrize("n", [2, 4])
def test_several_processes_learn_what_one_learns(alone, crews, n, kind):
    torch.testing.assert_close(torch.tensor(crews[n]["curves"][kind]), torch.tensor(alone["curve"]), atol=2e-5, rtol=0)
    same(crews[n][kind], alone["data"], abs_=2e-5)
    assert alone["curve"][-1][0] < alone["curve"][0][0]


@pytest.mark.parametrize("n", [2, 4])
def test_every_weight_is_sharded(crews, n):
    assert crews[n]["types"] == ["DTensor"]


@pytest.mark.parametrize("n", [2, 4])
def test_a_sharded_run_stopped_and_resumed_is_the_uninterrupted_one_bit_for_bit(crews, n):
    assert "cut: resumed at 24 images" in crews[n]["cut_said"]
    same(crews[n]["cut"], crews[n]["sharded"])


def test_a_sharded_checkpoint_is_loaded_by_any_number_of_processes(home, alone, crews):
    for n, others in ((2, [1]), (4, [1, 2])):
        expected = {1: alone["sharded"], 2: crews[2]["cut"]}
        for state, other in zip(crews[n]["loaded"].values(), others, strict=True):
            same(state, expected[other])                                        # 1 -> 2, 1 -> 4, 2 -> 4
    for n in (2, 4):                                                            # 2 -> 1, 4 -> 1
        path = Stage(home / str(n), "cut").checkpoints()[-1]
        assert len(list(path.glob("*.safetensors"))) == n
        same(crew.loaded(path), crews[n]["cut"])


@pytest.mark.parametrize("n", [2, 4])
def test_a_flipped_bit_in_one_shard_is_told_and_the_checkpoint_before_is_used(crews, n):
    told, = [text for text in crews[n]["again_said"] if "damaged" in text]
    assert told.startswith("sharded: checkpoint-000000000048.shards is damaged (shard-0000")
    assert told.endswith("is not what was written: its SHA-256 differs); trying the one before it")
    assert "sharded: resumed at 40 images" in crews[n]["again_said"]
    same(crews[n]["again"], crews[n]["sharded"])


@pytest.mark.parametrize("fault", ["a shard is missing", "the table is cut", "the table is changed", "the table is missing"])
def test_a_folder_that_is_not_whole_is_damaged(alone, tmp_path, fault):
    trainee, path = crew.trainee_of(True), tmp_path / "checkpoint-1.shards"
    sharded.write(run.tensors_of(trainee), path, {"done_steps": "0"})
    table = path / sharded.TABLE
    if fault == "a shard is missing":
        next(path.glob("*.safetensors")).unlink()
    elif fault == "the table is cut":
        table.write_text(table.read_text()[:-10])
    elif fault == "the table is changed":
        table.write_text(table.read_text().replace('"done_steps": "0"', '"done_steps": "9"'))
    else:
        table.unlink()
    with pytest.raises(sealed.Damaged):
        sharded.read(path, trainee)


def test_a_full_disk_leaves_no_half_written_folder(tmp_path, monkeypatch):
    trainee, plan = crew.trainee_of(True), Plan(8, 8)

    def full(path):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)  # each shard is flushed by torch.distributed.checkpoint, inside its own handling
    with pytest.raises(sealed.Full, match=r"a checkpoint needs \d+ MB; make room .*nothing has been saved so far"):
        Stage(tmp_path, "line", lambda text: None).save(trainee, plan)
    assert list((tmp_path / "line").iterdir()) == []


def test_a_whole_checkpoint_begins_a_sharded_run_and_the_other_way_round(home, alone):
    same(crew.loaded(Stage(home / "1", "data").checkpoints()[-1], shards=True), alone["data"])
    same(crew.loaded(alone["checkpoint"], shards=False), alone["sharded"])


def test_a_checkpoint_of_other_optimizers_is_refused_in_a_sentence(tmp_path):
    trainee = crew.trainee_of(True)
    trainee.step(0)
    Stage(tmp_path, "line", lambda text: None).save(trainee, Plan(8, 8))
    fewer = torch.optim.AdamW(list(trainee.modules["net"].last.parameters()))
    for optimizers in ({"muon": trainee.optimizers["adamw"]}, {"adamw": fewer}):
        trainee.optimizers = optimizers
        with pytest.raises(ValueError, match="made with other optimizers than this run has .* set parallel as it was"):
            Stage(tmp_path, "line", lambda text: None).restore(trainee, Plan(8, 8))
