"""A run: a folder in which training leaves its log, its checkpoints, its pictures and its model.

    RUN/recipe.json            the settings, resolved
    RUN/<stage>/log.jsonl      one JSON line an interval
    RUN/<stage>/loss.png       the curve so far
    RUN/<stage>/samples.png    what the network can do by now
    RUN/<stage>/checkpoint-<n_images>.safetensors     the newest two

What a step does is a function of (seed, step) alone, and a checkpoint holds everything else, so a run
that was stopped and resumed is the uninterrupted run, bit for bit on a CPU.
"""

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Message = Callable[[str], None]
Tracker = Callable[[dict, str, int], None]  # a row of a log (figures, or pictures by path), its stage, its n_images
TRACKERS: list[Tracker] = []                # who else is told of every row; `tracking.tracked` fills it


def say(text: str) -> None:
    """One line on stderr, from one process of many: stdout belongs to results."""
    if rank() == 0:
        print(text, file=sys.stderr, flush=True)


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
        for path in (*self.checkpoints(), self.folder / "log.jsonl", self.folder / "done.json"):
            path.unlink(missing_ok=True)

    def forget(self, n_images: int) -> None:
        """Drop log lines beyond a checkpoint: what they tell of will be done again."""
        path = self.folder / "log.jsonl"
        if rank() == 0 and path.is_file():
            lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True)
                     if line.endswith("\n") and json.loads(line)["n_images"] <= n_images]
            path.write_text("".join(lines), encoding="utf-8")

    def save(self, trainee: Trainee, plan: Plan) -> Path:
        """Everything a later start needs, in one file that appears whole or not at all."""
        tensors = {f"module.{name}.{key}": value.detach().contiguous()
                   for name, module in trainee.modules.items() for key, value in module.state_dict().items()}
        for name, optimizer in trainee.optimizers.items():
            for index, slots in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{name}.{index}.{slot}": torch.as_tensor(value).contiguous()
                            for slot, value in slots.items()}
        path = self.folder / f"checkpoint-{trainee.done_steps * plan.batch:012d}.safetensors"
        draft = path.with_suffix(".part")
        save_file(unshared(tensors), draft, metadata={"done_steps": str(trainee.done_steps),
                                                     "batch": str(plan.batch), "seed": str(plan.seed)})
        os.replace(draft, path)
        for old in self.checkpoints()[:-2]:
            old.unlink()
        return path

    def checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*.safetensors"))

    def restore(self, trainee: Trainee, plan: Plan) -> bool:
        """Load the newest checkpoint that can be read; say which one, and which ones could not."""
        for path in reversed(self.checkpoints()):
            try:
                tensors, notes = load_file(path), read_notes(path)
            except (SafetensorError, OSError) as error:
                self.message(f"{self.name}: {path.name} is damaged ({error}); trying the one before it")
                continue
            if int(notes["batch"]) != plan.batch or int(notes["seed"]) != plan.seed:
                raise ValueError(f"{path} was made with batch {notes['batch']} and seed {notes['seed']}, the recipe says "
                                 f"{plan.batch} and {plan.seed}; use --resume never, or another run folder")
            load_tensors(trainee, tensors)
            trainee.done_steps = int(notes["done_steps"])
            self.forget(trainee.done_steps * plan.batch)
            self.message(f"{self.name}: resumed at {trainee.done_steps * plan.batch:,} images")
            return True
        self.forget(0)
        return False


def train(stage: Stage, plan: Plan, trainee: Trainee, resume: bool = True) -> bool:
    """Run a stage to its end; False when a signal stopped it earlier (all is saved)."""
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


def go_on(stage: Stage, plan: Plan, trainee: Trainee, stop: "Stop") -> bool:
    """Steps from where the trainee stands, until the end or until someone asks to stop."""
    started = saved_at = logged_at = time.monotonic()
    sums: dict[str, float | Tensor] = {}
    counted = 0
    interval = max(1, plan.log_images // plan.batch)
    while trainee.done_steps < plan.steps and not stop.agreed():
        losses = averaged(trainee.step(trainee.done_steps))
        trainee.done_steps += 1
        for name, value in losses.items():  # a GPU is not waited for at every step
            sums[name] = sums.get(name, 0.0) + (value.double() if value.is_cuda else float(value))
        counted += 1
        waits = not any(value.is_cuda for value in losses.values()) or trainee.done_steps % 50 == 0
        if waits and not all(math.isfinite(v) for v in sums.values()):
            raise RuntimeError(f"{stage.name}: the loss is no longer finite at {trainee.done_steps * plan.batch:,} images; "
                               "lower the learning rate and resume from the last checkpoint")
        if rank() == 0 and (trainee.done_steps % interval == 0 or trainee.done_steps == plan.steps):
            sums = {k: float(v) for k, v in sums.items()}
            now = time.monotonic()
            row = {"n_images": trainee.done_steps * plan.batch, **{k: round(v / counted, 6) for k, v in sums.items()},
                   "images_per_second": round(counted * plan.batch / (now - logged_at), 2)}
            if trainee.peak and trainee.flops:
                row["share_of_peak"] = round(row["images_per_second"] * trainee.flops / trainee.peak, 4)
            if trainee.validate is not None and stage.figures:
                row |= {k: round(v, 6) for k, v in trainee.validate().items()}
            stage.log(row)
            stage.message(progress_line(stage.name, row, plan, now - started))
            if stage.figures:
                draw_progress(stage, trainee)
                stage.show(row["n_images"])
            sums, counted, logged_at = {}, 0, time.monotonic()
            saved_at = 0.0
        if rank() == 0 and time.monotonic() - saved_at > plan.save_seconds:
            stage.save(trainee, plan)
            saved_at = time.monotonic()
    if rank() == 0:
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


def draw_progress(stage: Stage, trainee: Trainee) -> None:
    plot_log(stage.folder / "log.jsonl", stage.folder / "loss.png")
    if trainee.draw is not None:
        trainee.draw().save(stage.folder / "samples.png")


def plot_log(log: Path, picture: Path) -> None:
    """Every figure of a log against images, a panel a figure."""
    from matplotlib.figure import Figure
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    names = [k for k in rows[-1] if k not in ("n_images", "images_per_second", "share_of_peak")]
    figure = Figure(figsize=(3.2 * len(names), 2.8), layout="constrained")
    for index, name in enumerate(names):
        axis = figure.add_subplot(1, len(names), index + 1)
        points = [(r["n_images"] / 1000, r[name]) for r in rows if name in r]
        axis.plot([x for x, _ in points], [y for _, y in points], lw=1.2)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("thousand images", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


class Stop:
    """Notices SIGTERM and SIGINT, so that a loop can end between two steps."""

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
        if world() == 1:
            return self.asked
        asked = torch.tensor([float(self.asked)])
        torch.distributed.all_reduce(asked)
        return bool(asked > 0)


def unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """safetensors refuses tensors that share memory: give each its own."""
    return {key: value.clone() for key, value in tensors.items()}


def read_notes(path: Path) -> dict[str, str]:
    from safetensors import safe_open
    with safe_open(path, "pt") as opened:
        return opened.metadata()


def load_tensors(trainee: Trainee, tensors: dict[str, Tensor]) -> None:
    for name, module in trainee.modules.items():
        start = f"module.{name}."
        module.load_state_dict({k[len(start):]: v for k, v in tensors.items() if k.startswith(start)})
    for name, optimizer in trainee.optimizers.items():
        start, slots = f"optimizer.{name}.", {}
        for key, value in tensors.items():
            if key.startswith(start):
                index, slot = key[len(start):].split(".", 1)
                slots.setdefault(int(index), {})[slot] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})


def write_json(path: Path, value: object) -> None:
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(draft, path)


def learning_rate(peak: float, done: int, total: int, warmup: int, decay_share: float) -> float:
    """Warm up linearly, stay flat, fall linearly to zero over the last `decay_share`; counts are steps."""
    left = (total - done) / max(1.0, decay_share * total)
    return peak * min(1.0, (done + 1) / max(1, warmup), max(left, 0.0))


def rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def world() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def join_ranks() -> None:
    """Under `torchrun`, meet the other processes; alone, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def wait() -> None:
    """Until every rank has come this far."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def my_share(batch: int) -> slice:
    """The positions of the global batch that this rank trains on; the order is one for any number of ranks."""
    if batch % world():
        raise ValueError(f"a batch of {batch} cannot be shared by {world()} processes; choose a multiple")
    each = batch // world()
    return slice(rank() * each, (rank() + 1) * each)


def average(value: Tensor) -> Tensor:
    """The mean of a tensor over all ranks."""
    if world() == 1:
        return value
    value = value.detach().clone()
    torch.distributed.all_reduce(value)
    return value / world()


def averaged(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses of the global batch: each rank knows those of its share."""
    return dict(zip(losses, average(torch.stack(list(losses.values()))), strict=True))


def average_gradients(parameters: list[Tensor]) -> None:
    """The mean gradient over all ranks, in one message."""
    if world() == 1:
        return
    parameters = [p for p in parameters if p.grad is not None]  # the same ones on every rank
    flat = torch.cat([p.grad.reshape(-1) for p in parameters])
    torch.distributed.all_reduce(flat)
    flat /= world()
    offset = 0
    for p in parameters:
        p.grad.copy_(flat[offset:offset + p.numel()].view_as(p))
        offset += p.numel()
