"""Sealed files: a changed bit is noticed, a full disk costs nothing but a sentence."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_run import quiet, small

from medisyn.training import run, sealed
from medisyn.training.run import Stage

TENSORS = {"a": torch.arange(12.0).view(3, 4), "b": torch.tensor(7), "c": torch.ones(5, dtype=torch.bfloat16), "d": torch.zeros(0)}


def flip(path: Path, at: int = -3) -> None:
    """One bit of a file's numbers."""
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def test_what_was_written_comes_back(tmp_path):
    sealed.write(TENSORS, tmp_path / "x.safetensors", {"done_steps": "3"})
    tensors, notes = sealed.read(tmp_path / "x.safetensors")
    assert notes == {"done_steps": "3"}
    assert set(tensors) == set(TENSORS) and all(torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)
    assert all(tensors[k].dtype == TENSORS[k].dtype for k in TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_every_bit_counts(tmp_path):
    path = tmp_path / "x.safetensors"
    sealed.write(TENSORS, path, {"done_steps": "3"})
    whole = path.read_bytes()
    begin = len(whole) - sum(value.nbytes for value in TENSORS.values())
    for at in range(begin, len(whole)):
        flip(path, at)
        load_file(path)                                   # safetensors itself sees nothing
        with pytest.raises(sealed.Damaged, match="its numbers are not those that were written"):
            sealed.read(path)
        path.write_bytes(whole)
    path.write_bytes(whole.replace(b'"done_steps":"3"', b'"done_steps":"4"'))
    with pytest.raises(sealed.Damaged):
        sealed.read(path)


def test_tensors_that_share_memory_are_written_each_for_itself(tmp_path):
    a = torch.arange(6.0)
    sealed.write({"a": a, "b": a, "c": a[2:]}, tmp_path / "x.safetensors", {})
    assert torch.equal(sealed.read(tmp_path / "x.safetensors")[0]["c"], a[2:])


def test_a_file_from_before_there_were_seals_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "x.safetensors", metadata={"done_steps": "1"})
    assert sealed.read(tmp_path / "x.safetensors")[1] == {"done_steps": "1"}


def test_a_flipped_bit_in_a_checkpoint_is_told_and_the_one_before_is_used(tmp_path):
    trainee, plan = small()
    run.train(quiet(tmp_path), plan, trainee)
    flip(quiet(tmp_path).checkpoints()[-1])
    again, said = small()[0], []
    assert run.train(Stage(tmp_path, "line", said.append), plan, again)
    assert [text for text in said if "damaged" in text] == [
        "line: checkpoint-000000000024.safetensors is damaged (its numbers are not those that were written: their SHA-256 "
        "differs); trying the one before it"]
    assert "line: resumed at 20 images" in said
    for a, b in zip(trainee.modules["line"].parameters(), again.modules["line"].parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_damaged_newest_checkpoint_does_not_push_out_good_ones(tmp_path):
    trainee, plan = small(6)
    run.train(quiet(tmp_path), plan, trainee)
    stage = quiet(tmp_path)
    flip(stage.checkpoints()[-1])
    trainee = small(6)[0]
    stage.restore(trainee, plan)
    trainee.done_steps = 5
    stage.save(trainee, plan)
    assert [sealed.read(path)[1]["done_steps"] for path in stage.checkpoints()[:1]] == ["5"]


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path):
    stage = quiet(tmp_path)
    (stage.folder / "checkpoint-000000000004.part").write_bytes(b"half")
    trainee, plan = small()
    run.train(stage, plan, trainee)
    assert not list(stage.folder.glob("*.part"))


# ---- a full disk -----------------------------------------------------------------------------------------------------

@pytest.fixture
def disk(tmp_path):
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.name == "posix" and os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False).returncode == 0
    if not mounted:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_newest_checkpoint_and_says_what_is_missing(disk):
    stage, said = Stage(disk, "line", lambda text: said.append(text), figures=False), []
    trainee, plan = small()
    trainee.modules["weight"] = torch.nn.Linear(260, 300)  # 0.3 MB: two fit, not three
    trainee.step(0)
    for done in (1, 2, 3):
        trainee.done_steps = done
        stage.save(trainee, plan)
    assert len(stage.checkpoints()) == 2 and not [text for text in said if "gives way"]
    (disk / "other").write_bytes(b"x" * 200_000)
    trainee.done_steps = 4
    stage.save(trainee, plan)                               # the older one gives way
    assert [path.name for path in stage.checkpoints()] == [f"checkpoint-{n:012d}.safetensors" for n in (12, 16)]
    assert "gives way" in said[-1]
    (disk / "more").write_bytes(b"x" * 100_000)
    trainee.modules["weight"] = torch.nn.Linear(260, 700)
    trainee.done_steps = 5
    with pytest.raises(sealed.Full, match=r"^line: .* has \d MB free, a checkpoint needs 1 MB; make room and give the same command "
                                          r"again \(checkpoint-000000000016.safetensors stays\)$"):
        stage.save(trainee, plan)
    assert [path.name for path in stage.folder.iterdir()] == ["checkpoint-000000000016.safetensors"]
    assert sealed.read(stage.checkpoints()[0])[1]["done_steps"] == "4"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Disk quota exceeded"),
                                   RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")])
def test_whoever_says_that_the_disk_is_full_is_understood(tmp_path, monkeypatch, error):
    def full(*args, **more):
        (tmp_path / "line" / "checkpoint-000000000004.part").write_bytes(b"half")
        raise error
    monkeypatch.setattr(sealed, "save_file", full)
    trainee, plan = small()
    with pytest.raises(sealed.Full, match=r"MB; make room and give the same command again \(nothing has been saved so far\)"):
        run.train(quiet(tmp_path), plan, trainee)
    assert not list(tmp_path.rglob("*.part"))


def test_a_log_that_finds_no_room_is_told_in_a_sentence(tmp_path, monkeypatch):
    stage = quiet(tmp_path)
    trainee, plan = small()

    def full(row):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(stage, "log", full)
    with pytest.raises(sealed.Full, match="line: the disk of .* is full; make room, give the same command again"):
        run.train(stage, plan, trainee)
    assert stage.checkpoints()  # those of the steps before
