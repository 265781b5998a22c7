"""A run: stopped, killed, damaged or shared, it ends in the same weights, bit for bit."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from medisyn import recipe
from medisyn.training import alone, ranks, run, stages
from medisyn.training.run import Plan, Stage, Trainee

STOPS = {"text": (1, 3, 6), "vae": (1, 7, 11), "decoder": (1, 2, 5), "dit": (1, 6, 12)}
# STOPS: steps after which a stage is stopped; 6 of text and 12 of dit are all they have


def without(finished: Path, stage: str, new: Path) -> Path:
    """A copy of a run in which one stage has not begun."""
    return Path(shutil.copytree(finished, new, ignore=lambda home, names: [stage] if Path(home) == finished else []))


def same_tensors(a: Path, b: Path) -> bool:
    ours, theirs = load_file(a), load_file(b)
    assert set(ours) == set(theirs)
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def logged(stage: Path) -> list[dict]:
    """The lines of a log, without the clock."""
    rows = [json.loads(line) for line in (stage / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


@pytest.mark.parametrize("name", STOPS)
def test_a_stage_stopped_and_resumed_is_the_uninterrupted_one(name, phantom_recipe, phantom_run, tmp_path, terminated_after,
                                                              capsys):
    folder = without(phantom_run, name, tmp_path / "run")
    settings, done = recipe.read(phantom_recipe), 0
    for stop in STOPS[name]:
        terminated_after(stop - done)
        assert stages.run(settings, folder, [name]) is None
        assert not (folder / name / "done.json").exists()
        assert re.search(rf"{name}: stopped at [\d,]+ images, saved", capsys.readouterr().err)
        done = stop
    terminated_after(-1)
    stages.run(settings, folder, [name])
    batch = getattr(settings, name).batch
    assert f"{name}: resumed at {done * batch:,} images" in capsys.readouterr().err
    assert same_tensors(folder / name / "network.safetensors", phantom_run / name / "network.safetensors")
    last = sorted(path.name for path in (phantom_run / name).glob("checkpoint-*"))[-1]
    assert same_tensors(folder / name / last, phantom_run / name / last)
    assert [row["n_images"] for row in logged(folder / name)] == [row["n_images"] for row in logged(phantom_run / name)]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(phantom_recipe, phantom_run, tmp_path, capsys):
    folder = Path(shutil.copytree(phantom_run, tmp_path / "run"))
    for left in ("done.json", "network.safetensors"):
        (folder / "dit" / left).unlink()
    older, newest = sorted((folder / "dit").glob("checkpoint-*"))
    newest.write_bytes(newest.read_bytes()[:-1000])
    stages.run(recipe.read(phantom_recipe), folder, ["dit"])
    said = capsys.readouterr().err
    assert f"{newest.name} is damaged" in said
    assert "dit: resumed at 48 images" in said
    assert older.name in {path.name for path in (folder / "dit").glob("checkpoint-*")}
    assert same_tensors(folder / "dit" / "network.safetensors", phantom_run / "dit" / "network.safetensors")
    assert logged(folder / "dit") == logged(phantom_run / "dit")


def test_where_all_checkpoints_are_damaged_it_starts_anew(phantom_recipe, phantom_run, tmp_path, capsys):
    folder = Path(shutil.copytree(phantom_run, tmp_path / "run"))
    (folder / "text" / "done.json").unlink()
    for path in (folder / "text").glob("checkpoint-*"):
        path.write_bytes(b"")
    stages.run(recipe.read(phantom_recipe), folder, ["text"])
    assert capsys.readouterr().err.count("is damaged") == 2
    assert same_tensors(folder / "text" / "network.safetensors", phantom_run / "text" / "network.safetensors")
    assert logged(folder / "text") == logged(phantom_run / "text")


def test_a_finished_stage_is_passed_over(phantom_recipe, phantom_run, tmp_path, capsys):
    folder = Path(shutil.copytree(phantom_run, tmp_path / "run"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert stages.run(recipe.read(phantom_recipe), folder, ["text", "vae", "latents", "decoder", "dit"]) is None
    assert capsys.readouterr().err.count("done before, passed over") == 5
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before


def test_a_checkpoint_of_another_batch_is_refused(phantom_recipe, phantom_run, tmp_path):
    folder = Path(shutil.copytree(phantom_run, tmp_path / "run"))
    (folder / "text" / "done.json").unlink()
    with pytest.raises(ValueError, match="was made with batch 16 and seed 3, the recipe says 8 and 3"):
        stages.run(recipe.read(phantom_recipe, ["text.batch=8"]), folder, ["text"])


def test_a_run_goes_on_in_a_new_folder_and_the_old_one_stays(phantom_run, tmp_path):
    before = sorted(path.relative_to(phantom_run) for path in phantom_run.rglob("*"))
    stages.adopt(phantom_run, tmp_path / "new")
    assert sorted(path.relative_to(tmp_path / "new") for path in (tmp_path / "new").rglob("*")) == before
    with pytest.raises(ValueError, match="is not empty"):
        stages.adopt(phantom_run, tmp_path / "new")
    with pytest.raises(ValueError, match=r"holds no recipe\.json"):
        stages.adopt(tmp_path, tmp_path / "other")


def test_a_stage_needs_the_one_before(phantom_recipe, phantom_run, tmp_path):
    folder = without(phantom_run, "vae", tmp_path / "run")
    (folder / "latents" / "done.json").unlink()
    with pytest.raises(ValueError, match=r"stage vae is not finished in .*; run it first"):
        stages.run(recipe.read(phantom_recipe), folder, ["latents"])


# ---- a process of its own, ended from outside ------------------------------------------------------------------------

LONGER = ["vae.n_images=640", "vae.save_seconds=0", "vae.log_images=320"]


@pytest.fixture(scope="module")
def longer(phantom_recipe, phantom_run, tmp_path_factory) -> Path:
    """An autoencoder trained for longer, never interrupted."""
    folder = tmp_path_factory.mktemp("longer")
    shutil.copytree(phantom_run / "pixels", folder / "pixels")
    stages.run(recipe.read(phantom_recipe, LONGER), folder, ["vae"])
    return folder


def test_a_process_killed_then_stopped_then_left_alone_ends_in_the_same_weights(longer, phantom_recipe, tmp_path, environment):
    words = [sys.executable, "-m", "medisyn", "train", str(phantom_recipe), "-o", str(tmp_path), "--stages", "vae"]
    words += [word for change in LONGER for word in ("--set", change)]
    shutil.copytree(longer / "pixels", tmp_path / "pixels")

    def ended_by(ending: signal.Signals) -> tuple[int, str]:
        """Start the command, end it after its next checkpoint."""
        before = set(tmp_path.glob("vae/checkpoint-*.safetensors"))
        process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while set(tmp_path.glob("vae/checkpoint-*.safetensors")) <= before and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(ending)
        said = process.communicate(timeout=60)[1]
        assert not (tmp_path / "vae" / "done.json").exists(), said
        return process.returncode, said

    assert ended_by(signal.SIGKILL)[0] == -signal.SIGKILL
    code, said = ended_by(signal.SIGTERM)
    assert code == 0, said
    assert "vae: resumed at" in said
    assert "saved; the same command goes on from here" in said
    last = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert last.returncode == 0, last.stderr
    assert "vae: resumed at" in last.stderr
    assert same_tensors(tmp_path / "vae" / "network.safetensors", longer / "vae" / "network.safetensors")


def test_training_longer_makes_better_images(longer):
    first, last = (row["psnr_db"] for row in logged(longer / "vae"))
    assert last > first + 0.5


def test_two_processes_train_what_one_trains(phantom_recipe, phantom_run, tmp_path, environment):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "medisyn", "train",
             str(phantom_recipe), "-o", str(tmp_path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in STOPS:
        for ours, theirs in zip(logged(tmp_path / name), logged(phantom_run / name), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3), name
    assert (tmp_path / "model" / "medisyn.json").is_file()


def test_accelerate_launch_shards_the_denoiser_over_two_processes(phantom_recipe, phantom_run, tmp_path, environment):
    pytest.importorskip("accelerate")
    alone, folder = without(phantom_run, "dit", tmp_path / "alone"), without(phantom_run, "dit", tmp_path / "two")
    stages.run(recipe.read(phantom_recipe, ["parallel=sharded"]), alone, ["dit"])
    words = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
             "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "medisyn", "train", str(phantom_recipe), "-o", str(folder),
             "--stages", "dit,model", "--set", "parallel=sharded"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("AdamW trains all weights, as Muon is not defined on shards") == 1
    assert "Warning" not in done.stderr
    for ours, theirs in zip(logged(folder / "dit"), logged(alone / "dit"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3)
    checkpoint = Stage(folder, "dit").checkpoints()[-1]
    assert checkpoint.name == "checkpoint-000000000096.shards" and len(list(checkpoint.glob("shard-*"))) == 2
    ours, theirs = (load_file(home / "dit" / "network.safetensors") for home in (folder, alone))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in theirs) and set(ours) == set(theirs)
    assert (folder / "model" / "medisyn.json").is_file()


def test_a_process_that_accelerate_left_alone_says_so(monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    run.join_ranks()
    assert "this is the only process" in capsys.readouterr().err
    monkeypatch.delenv("MASTER_ADDR")
    run.join_ranks()
    assert capsys.readouterr().err == ""


# ---- parts -----------------------------------------------------------------------------------------------------------

def small(steps: int = 6, plan: Plan | None = None) -> tuple[Trainee, Plan]:
    """A line fitted to points by a network of two weights."""
    torch.manual_seed(0)
    layer = nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), 0.1)

    def step(i: int) -> dict[str, torch.Tensor]:
        x = torch.randn(4, 1, generator=torch.Generator().manual_seed(i))
        loss = (layer(x) - 3 * x - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}
    return Trainee(step, {"line": layer}, {"adamw": optimizer}), plan or Plan(4 * steps, 4, 0, 8, 0.0)


def quiet(folder: Path) -> Stage:
    return Stage(folder, "line", lambda text: None)


def test_the_newest_two_checkpoints_are_kept(tmp_path):
    trainee, plan = small()
    assert run.train(quiet(tmp_path), plan, trainee)
    assert [path.name for path in quiet(tmp_path).checkpoints()] == [f"checkpoint-{n:012d}.safetensors" for n in (20, 24)]
    assert not list(tmp_path.rglob("*.part"))


def test_the_log_counts_images_and_averages_the_interval(tmp_path):
    trainee, plan = small()
    seen, step = [], trainee.step
    trainee.step = lambda i: seen.append(step(i)) or seen[-1]
    run.train(quiet(tmp_path), plan, trainee)
    expected = [(n, (float(seen[k]["loss"]) + float(seen[k + 1]["loss"])) / 2) for n, k in ((8, 0), (16, 2), (24, 4))]
    found = [(row["n_images"], row["loss"]) for row in logged(tmp_path / "line")]
    assert [n for n, _ in found] == [n for n, _ in expected]
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected], abs=1e-5)


def test_resume_never_forgets_the_earlier_try(tmp_path):
    trainee, plan = small()
    run.train(quiet(tmp_path), plan, trainee)
    shorter, fewer = small(2)
    run.train(quiet(tmp_path), fewer, shorter, resume=False)
    assert [row["n_images"] for row in logged(tmp_path / "line")] == [8]
    assert [path.name for path in quiet(tmp_path).checkpoints()] == [f"checkpoint-{n:012d}.safetensors" for n in (4, 8)]


def test_log_lines_that_no_checkpoint_stands_behind_are_dropped(tmp_path):
    stage = quiet(tmp_path)
    stage.log({"n_images": 8, "loss": 1.0})
    with (stage.folder / "log.jsonl").open("a") as log:
        log.write('{"n_images": 16, "lo')  # a crash
    trainee, plan = small()
    run.train(stage, plan, trainee)
    assert [row["n_images"] for row in logged(stage.folder)] == [8, 16, 24]


def test_signals_are_given_back_after_a_loop(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    trainee, plan = small()
    run.train(quiet(tmp_path), plan, trainee)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_loss_that_is_no_number_stops_with_advice(tmp_path):
    trainee, plan = small()
    trainee.step = lambda i: {"loss": torch.tensor(float("nan"))}
    with pytest.raises(RuntimeError, match="no longer finite at 4 images; lower the learning rate"):
        run.train(quiet(tmp_path), plan, trainee)


def test_a_learning_rate_rises_stays_and_falls_to_nothing():
    rates = [run.learning_rate(2.0, i, 100, 10, 0.5) for i in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[49] == 2.0
    assert rates[75] == pytest.approx(1.0)
    assert rates[100] == 0.0


def test_shares_of_a_batch_join_to_the_whole(monkeypatch):
    monkeypatch.setattr(ranks, "world", lambda: 3)
    held = []
    for mine in range(3):
        monkeypatch.setattr(ranks, "rank", lambda mine=mine: mine)
        held += list(range(12))[run.my_share(12)]
    assert held == list(range(12))
    with pytest.raises(ValueError, match="a batch of 13 cannot be shared by 3 processes"):
        run.my_share(13)


def test_a_fused_optimizer_goes_on_bit_for_bit_where_weights_lie_channels_last(tmp_path):
    """It walks weights and averages as they lie in memory, so a restored average must lie as its weight does."""
    def trainee() -> Trainee:
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), 1e-2, fused=True)

        def step(i: int) -> dict[str, torch.Tensor]:
            loss = network(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(i))).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return {"loss": loss.detach()}
        return Trainee(step, {"network": network}, {"adamw": optimizer})
    whole, cut, again = trainee(), trainee(), trainee()
    assert run.train(Stage(tmp_path, "whole", figures=False), Plan(12, 2, save_seconds=0), whole)
    assert run.train(Stage(tmp_path, "cut", figures=False), Plan(6, 2, save_seconds=0), cut)
    assert run.train(Stage(tmp_path, "cut", figures=False), Plan(12, 2, save_seconds=0), again)
    assert torch.equal(whole.modules["network"].weight, again.modules["network"].weight)


def test_two_trainings_do_not_share_a_folder(tmp_path, monkeypatch):
    said, seen = [], []
    first, plan = small()
    step = first.step

    def meanwhile(i: int) -> dict[str, torch.Tensor]:
        if i == 1:
            with pytest.raises(ValueError, match="line: another process trains in .*; end it first, or use another run folder"):
                run.train(Stage(tmp_path, "line", said.append), plan, small()[0])
            seen.append(len(quiet(tmp_path).checkpoints()))
        return step(i)
    first.step = meanwhile
    monkeypatch.setattr(alone, "PATIENCE", 0.3)
    assert run.train(quiet(tmp_path), plan, first)
    assert seen == [1] and "waiting for its end" in said[0]
    assert run.train(Stage(tmp_path, "line", said.append), plan, small()[0])    # the hold ends with the training
    assert said[-1] == "line: resumed at 24 images"


def test_ranks_whose_launcher_was_killed_save_and_end(tmp_path, monkeypatch):
    trainee, plan = small()
    monkeypatch.setattr(ranks, "orphaned", lambda: trainee.done_steps == 2)
    assert run.train(quiet(tmp_path), plan, trainee) is False
    assert quiet(tmp_path).checkpoints()[-1].name == "checkpoint-000000000008.safetensors"
