"""A run: a folder in which training leaves its log, its checkpoints, its pictures and its model.

    RUN/recipe.json            the settings, resolved
    RUN/<stage>/log.jsonl      one JSON line an interval
    RUN/<stage>/loss.png       the curve so far
    RUN/<stage>/samples.png    what the network can do by now
    RUN/<stage>/checkpoint-<n_images>.safetensors     the newest two; `.shards`, a folder, where the network is sharded

What a step does is a function of (seed, step) alone, and a checkpoint holds everything else, so a run
that was stopped and resumed is the uninterrupted run, bit for bit on a CPU.
"""

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from medisyn.training import alone, curves, ranks, sealed
from medisyn.training.micro import Micro
from medisyn.training.ranks import (  # noqa: F401 (whoever trains finds all of it here)
    any_rank,
    average,
    average_gradients,
    averaged,
    my_share,
    rank,
    wait,
    world,
)

Message = Callable[[str], None]
Tracker = Callable[[dict, str, int], None]  # a row of a log (figures, or pictures by path), its stage, its n_images
TRACKERS: list[Tracker] = []                # who else is told of every row; `tracking.tracked` fills it


def say(text: str) -> None:
    """One line on stderr, from one process of many: stdout belongs to results."""
    if rank() == 0:
        print(text, file=sys.stderr, flush=True)


def counter(name: str, every: int = 5000, seconds: float = 30.0) -> Callable[[int, int], None]:
    """Progress of a stage that only counts, by ones or in strides: each time so many are done, or so many seconds have gone."""
    told, at = 0, time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told, at
        if done == total or done // every != told // every or time.monotonic() - at > seconds:
            say(f"{name}: {done:,} of {total:,}")
            at = time.monotonic()
        told = done
    return tell


def join_ranks() -> None:
    """Meet the other processes, where there are any."""
    ranks.join_ranks()
    if ranks.alone_by_mistake():
        say("this is the only process: `accelerate launch --cpu` starts several by MPI alone; use `torchrun --nproc-per-node N` "
            "or `accelerate launch --multi_gpu`, which works on CPUs too")


@dataclass(frozen=True)
class Plan:
    """How long a stage runs and how often it reports."""

    n_images: int                        # images to train on, counted over all ranks
    batch: int                           # images a step, over all ranks
    seed: int = 0
    log_images: int = 20_000             # an interval: images between two log lines
    save_seconds: float = 120.0          # a checkpoint at least so often, and at every interval

    @property
    def steps(self) -> int:
        return math.ceil(self.n_images / self.batch)


@dataclass
class Trainee:
    """What a loop needs of a stage: `step(i)` trains on batch number i and returns named losses."""

    step: Callable[[int], dict[str, Tensor]]
    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    draw: Callable[[], Image.Image] | None = None          # a picture of what it can do
    validate: Callable[[], dict[str, float]] | None = None  # figures on held-out patients
    done_steps: int = field(default=0)
    flops: float = 0.0                                     # floating-point operations of training on one image
    peak: float | None = None                              # FLOP/s of the device at its best; None: not known
    enough: Callable[[], bool] | None = None               # asked after every interval: whether to go on would do harm
    micro: Micro | None = None                             # how many images pass at once: kept, so that a resumed step is the same
    sharded: bool = False                                  # every rank holds a shard of the modules: all save, validate and draw


class Stage:
    """The folder of one stage of a run; rank 0 alone writes."""

    def __init__(self, run: Path, name: str, message: Message = say, figures: bool = True):
        self.folder, self.name, self.message = Path(run) / name, name, message
        self.figures = figures          # whether held-out figures are computed and pictures drawn at every interval
        self.folder.mkdir(parents=True, exist_ok=True)

    def finished(self) -> bool:
        return (self.folder / "done.json").is_file()

    def finish(self, facts: dict) -> None:
        write_json(self.folder / "done.json", facts)

    def log(self, row: dict) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        for tracker in TRACKERS:
            tracker(row, self.name, row["n_images"])

    def show(self, n_images: int) -> None:
        """Tell of the newest picture."""
        picture = self.folder / "samples.png"
        for tracker in TRACKERS if picture.is_file() else ():
            tracker({"samples": picture}, self.name, n_images)

    def clear(self) -> None:
        """Forget an earlier try: its checkpoints and its log."""
        for path in (*self.folder.glob("checkpoint-*"), self.folder / "log.jsonl", self.folder / "done.json"):
            sealed.remove(path)

    def forget(self, n_images: int) -> None:
        """Drop log lines beyond a checkpoint: what they tell of will be done again."""
        path = self.folder / "log.jsonl"
        if rank() == 0 and path.is_file():
            lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True)
                     if line.endswith("\n") and json.loads(line)["n_images"] <= n_images]
            path.write_text("".join(lines), encoding="utf-8")

    def save(self, trainee: Trainee, plan: Plan) -> Path:
        """Everything a later start needs, which appears whole or not at all; on a full disk the older checkpoint gives way."""
        path = self.folder / f"checkpoint-{trainee.done_steps * plan.batch:012d}{'.shards' if trainee.sharded else '.safetensors'}"
        write = sharded_files().write if trainee.sharded else sealed.write
        tensors, notes = tensors_of(trainee), {"done_steps": str(trainee.done_steps), "batch": str(plan.batch),
                                               "seed": str(plan.seed)}
        if trainee.micro is not None and trainee.micro.size is not None:
            notes["micro"] = str(trainee.micro.size)
        try:
            write(tensors, path, notes)
        except sealed.Full as error:
            *spare, newest = self.upto(path) or [None]
            spare += [old for old in self.checkpoints() if old.stem > path.stem]  # damaged: it was not resumed from them
            if not (any_rank(bool(spare)) if trainee.sharded else spare):
                kept = f"{newest.name} stays" if newest else "nothing has been saved so far"
                raise sealed.Full(f"{self.name}: {error}; make room and give the same command again ({kept})") from None
            self.message(f"{self.name}: {error}; {', '.join(old.name for old in spare)} gives way")
            drop(spare, trainee.sharded)
            return self.save(trainee, plan)
        drop(self.upto(path)[:-2], trainee.sharded)
        return path

    def upto(self, path: Path) -> list[Path]:
        """The checkpoints of no more images than one."""
        return [old for old in self.checkpoints() if old.stem <= path.stem]

    def checkpoints(self) -> list[Path]:
        """Files, or folders of shards, the newest last."""
        return sorted(path for path in self.folder.glob("checkpoint-*") if path.suffix in (".safetensors", ".shards"))

    def restore(self, trainee: Trainee, plan: Plan) -> bool:
        """Load the newest checkpoint that can be read; say which one, and which ones could not."""
        drop(self.folder.glob("checkpoint-*.part"), together=False)  # of a process that was killed while it wrote
        for path in reversed(self.checkpoints()):
            try:
                tensors, notes = sharded_files().read(path, trainee) if path.is_dir() else sealed.read(path)
            except sealed.Damaged as error:
                self.message(f"{self.name}: {path.name} is damaged ({error}); trying the one before it")
                continue
            if int(notes["batch"]) != plan.batch or int(notes["seed"]) != plan.seed:
                raise ValueError(f"{path} was made with batch {notes['batch']} and seed {notes['seed']}, the recipe says "
                                 f"{plan.batch} and {plan.seed}; use --resume never, or another run folder")
            load_tensors(trainee, tensors, path)
            trainee.done_steps = int(notes["done_steps"])
            if trainee.micro is not None and "micro" in notes:
                trainee.micro.size = int(notes["micro"])
            self.forget(trainee.done_steps * plan.batch)
            self.message(f"{self.name}: resumed at {trainee.done_steps * plan.batch:,} images")
            return True
        self.forget(0)
        return False


def train(stage: Stage, plan: Plan, trainee: Trainee, resume: bool = True) -> bool:
    """Run a stage to its end; False when a signal stopped it earlier (all is saved). ValueError where another run writes there."""
    try:
        with alone.within(stage.folder, stage.name, stage.message):
            if resume:
                stage.restore(trainee, plan)
            elif rank() == 0:
                stage.clear()
            wait()
            stop = Stop()
            try:
                return go_on(stage, plan, trainee, stop)
            finally:
                stop.release()
    except OSError as error:
        if sealed.is_full(error) and not isinstance(error, sealed.Full):
            raise sealed.Full(f"{stage.name}: the disk of {stage.folder} is full; make room, give the same command again") from None
        raise


def go_on(stage: Stage, plan: Plan, trainee: Trainee, stop: "Stop") -> bool:
    """Steps from where the trainee stands, until the end or until someone asks to stop."""
    started = saved_at = logged_at = time.monotonic()
    sums: dict[str, float | Tensor] = {}
    counted, saved = 0, -1
    interval = max(1, plan.log_images // plan.batch)

    def ended() -> bool:
        return trainee.enough is not None and trainee.done_steps % interval == 0 and any_rank(trainee.enough())

    while trainee.done_steps < plan.steps and not ended() and not stop.agreed():
        losses = averaged(trainee.step(trainee.done_steps))
        trainee.done_steps += 1
        for name, value in losses.items():  # a GPU is not waited for at every step
            sums[name] = sums.get(name, 0.0) + (value.double() if value.is_cuda else float(value))
        counted += 1
        waits = not any(value.is_cuda for value in losses.values()) or trainee.done_steps % 50 == 0
        if waits and not all(math.isfinite(v) for v in sums.values()):
            raise RuntimeError(f"{stage.name}: the loss is no longer finite at {trainee.done_steps * plan.batch:,} images; "
                               "lower the learning rate and resume from the last checkpoint")
        reports = trainee.done_steps % interval == 0 or trainee.done_steps == plan.steps
        if reports and (rank() == 0 or trainee.sharded):
            sums = {k: float(v) for k, v in sums.items()}
            now = time.monotonic()
            row = {"n_images": trainee.done_steps * plan.batch, **{k: round(v / counted, 6) for k, v in sums.items()},
                   "images_per_second": round(counted * plan.batch / (now - logged_at), 2)}
            if trainee.peak and trainee.flops:
                row["share_of_peak"] = round(row["images_per_second"] * trainee.flops / trainee.peak, 4)
            if trainee.validate is not None and stage.figures:
                row |= {k: round(v, 6) for k, v in trainee.validate().items()}
            if rank() == 0:
                stage.log(row)
                stage.message(progress_line(stage.name, row, plan, now - started))
            if stage.figures:
                draw_progress(stage, trainee)
            if stage.figures and rank() == 0:
                stage.show(row["n_images"])
            sums, counted, logged_at = {}, 0, time.monotonic()
            saved_at = 0.0
        if saves(trainee, rank() == 0 and time.monotonic() - saved_at > plan.save_seconds):
            stage.save(trainee, plan)
            saved_at, saved = time.monotonic(), trainee.done_steps
    if saved != trainee.done_steps and (rank() == 0 or trainee.sharded):
        stage.save(trainee, plan)
    stopped = stop.agreed()  # also when it was asked during the very last step
    if stopped:
        stage.message(f"{stage.name}: stopped at {trainee.done_steps * plan.batch:,} images, saved; "
                      "the same command goes on from here")
    return not stopped


def progress_line(name: str, row: dict, plan: Plan, seconds: float) -> str:
    left = (plan.n_images - row["n_images"]) / max(row["images_per_second"], 1e-9)
    figures = "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k not in ("n_images", "images_per_second"))
    return (f"{name}: {row['n_images']:,} of {plan.n_images:,} images  {figures}  "
            f"{row['images_per_second']:.0f} images/s  {seconds / 60:.0f} min gone, {max(left, 0) / 60:.0f} min left")


def saves(trainee: Trainee, due: bool) -> bool:
    """Whether this rank saves now: the first one, when it is due; with it all the others where each holds a shard."""
    return any_rank(due) if trainee.sharded else due


def draw_progress(stage: Stage, trainee: Trainee) -> None:
    if rank() == 0:
        curves.draw(stage.folder / "log.jsonl", stage.folder / "loss.png")
    if trainee.draw is not None:
        picture = trainee.draw()
        if rank() == 0:
            picture.save(stage.folder / "samples.png")


class Stop:
    """Notices SIGTERM and SIGINT, and the end of whoever launched the ranks, so that a loop can end between two steps."""

    def __init__(self):
        self.asked = False
        self.before: dict[int, object] = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                self.before[number] = signal.signal(number, self.ask)
        except ValueError:  # not the main thread: the caller owns the signals
            pass

    def ask(self, number: int, frame: object) -> None:
        self.asked = True

    def release(self) -> None:
        """Give the signals back: what is not a loop may be ended at once."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Whether any rank was asked: all stop after the same step."""
        return any_rank(self.asked or ranks.orphaned())


def drop(paths: Iterable[Path], together: bool) -> None:
    """Remove what is no longer needed; together: all ranks are here."""
    if together:
        wait()
    for path in paths if rank() == 0 else ():
        sealed.remove(path)
    if together:
        wait()


def sharded_files():
    """The module that reads and writes shards: it is not imported where nothing is sharded."""
    from medisyn.training import sharded
    return sharded


def tensors_of(trainee: Trainee) -> dict[str, Tensor]:
    """The state of a trainee, by flat names: module.<name>.<key>, optimizer.<name>.<index>.<slot>."""
    tensors = {f"module.{name}.{key}": value.detach()
               for name, module in trainee.modules.items() for key, value in module.state_dict().items()}
    for name, optimizer in trainee.optimizers.items():
        for index, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{name}.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    return tensors


def load_tensors(trainee: Trainee, tensors: dict[str, Tensor], path: Path) -> None:
    """Put the state of a trainee back; ValueError where it is of other optimizers."""
    for name in {key.rsplit(".", 2)[0] for key in tensors if key.startswith("optimizer.")}:
        ours = trainee.optimizers.get(name.removeprefix("optimizer."))
        theirs = {int(key.split(".")[-2]) for key in tensors if key.startswith(f"{name}.")}
        if ours is None or max(theirs) >= sum(len(group["params"]) for group in ours.param_groups):
            raise ValueError(f"{path} was made with other optimizers than this run has ({', '.join(trainee.optimizers)}); "
                             "set parallel as it was, or use --resume never")
    if trainee.sharded:
        tensors = sharded_files().spread(trainee, tensors)
    for name, module in trainee.modules.items():
        start = f"module.{name}."
        module.load_state_dict({k[len(start):]: v for k, v in tensors.items() if k.startswith(start)})
    for name, optimizer in trainee.optimizers.items():
        start, slots = f"optimizer.{name}.", {}
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for key, value in tensors.items():
            if key.startswith(start):
                index, slot = key[len(start):].split(".", 1)
                slots.setdefault(int(index), {})[slot] = value if trainee.sharded else laid_out(value, weights[int(index)])
        optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})


def laid_out(value: Tensor, weight: Tensor) -> Tensor:
    """An optimizer's slot with the strides of its weight: a fused optimizer walks both as they lie in memory."""
    if value.shape != weight.shape:
        return value
    return torch.empty_like(weight, dtype=value.dtype, device=value.device).copy_(value)


def write_json(path: Path, value: object) -> None:
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(draft, path)


def learning_rate(peak: float, done: int, total: int, warmup: int, decay_share: float) -> float:
    """Warm up linearly, stay flat, fall linearly to zero over the last `decay_share`; counts are steps."""
    left = (total - done) / max(1.0, decay_share * total)
    return peak * min(1.0, (done + 1) / max(1, warmup), max(left, 0.0))
