"""Cost: what images took to learn from and to make, and one generalist against one specialist an image type.

Read from what runs leave behind (log.jsonl: n_images and images_per_second), so that no figure depends on how it is
asked for. Energy is a figure only where a meter was read; it is never guessed from hours.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from medisyn.estimates import Estimate, absent, bootstrap

TIMING = "timing.jsonl"   # in a synthetic collection: a line a call of `medisyn generate`
METER = Path("/sys/class/powercap/intel-rapl:0/energy_uj")   # microjoules of the processor, where its kernel shows them
NO_METER = "no energy meter could be read on this machine, and energy is not guessed"


@dataclass(frozen=True)
class Stage:
    """What one stage of a training took."""

    name: str
    n_images: int                  # trained on, repeats counted
    seconds: float                 # of work: waiting and stops are not in it
    rates: tuple[float, ...]       # images a second, an interval of the log each
    kwh: float | None = None       # None: no meter was read


@dataclass(frozen=True)
class Timing:
    """What making images took."""

    n_images: int
    seconds: float
    joules: float | None = None


def lines_of(log: Path) -> list[dict]:
    """The lines of a log.jsonl that count images; one cut short by a kill is passed over."""
    found = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and row.get("images_per_second") and "n_images" in row:
            found.append(row)
    return found


def stage(folder: Path) -> Stage | None:
    """What a stage's log.jsonl tells; None where it counted no images.

    A resumed stage repeats what it lost: a line that goes back counts from where its rate was measured.
    """
    rows, before, images, seconds, joules = lines_of(Path(folder) / "log.jsonl"), 0, 0, 0.0, 0.0
    if not rows:
        return None
    for row in rows:
        n = row["n_images"] - before
        if n > 0:
            images, seconds = images + n, seconds + n / row["images_per_second"]
        before, joules = row["n_images"], joules + row.get("joules", math.nan)
    kwh = joules / 3.6e6 if math.isfinite(joules) else None
    return Stage(Path(folder).name, images, seconds, tuple(float(r["images_per_second"]) for r in rows), kwh)


def read(run: Path) -> list[Stage]:
    """The stages of a run folder; ValueError where none left a log."""
    run = Path(run)
    found = [s for folder in sorted(p.parent for p in run.glob("*/log.jsonl")) if (s := stage(folder))]
    if not found:
        raise ValueError(f"{run}: expected the folder of a training with STAGE/log.jsonl, found none that counts images; "
                         "give the -o of `medisyn train`")
    return found


def clock(meter: Path = METER) -> Callable[[int], Timing]:
    """Starts now; called with the number of images made since, it says what they took."""
    joules, start = joules_now(meter), time.perf_counter()

    def stop(n_images: int) -> Timing:
        seconds, after = time.perf_counter() - start, joules_now(meter)
        spent = None if joules is None or after is None or after < joules else after - joules  # it wraps around
        return Timing(n_images, seconds, spent)
    return stop


def note(folder: Path, timing: Timing) -> None:
    """Add a line to the collection's timing.jsonl; nothing where no image was made."""
    if timing.n_images:
        with (Path(folder) / TIMING).open("a", encoding="utf-8") as lines:
            lines.write(f"\n{json.dumps(asdict(timing))}\n")  # the first ends a line that a kill cut short


def noted(folder: Path) -> Timing | None:
    """All that the collection's timing.jsonl tells, summed; None where there is none."""
    path, found = Path(folder) / TIMING, []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(json.JSONDecodeError, TypeError):
            found.append(Timing(**json.loads(line)))
    joules = [t.joules for t in found]
    return Timing(sum(t.n_images for t in found), sum(t.seconds for t in found),
                  None if None in joules else sum(joules)) if found else None


def joules_now(meter: Path) -> float | None:
    """The meter's reading; None where there is none or it may not be read."""
    try:
        return int(meter.read_text()) / 1e6
    except (OSError, ValueError):
        return None


# ---- figures --------------------------------------------------------------------------------------------------------

def measure(sets: object = None, *, run: Path | None = None, generation: Timing | None = None, seed: int = 0) -> list[Estimate]:
    """train_images, train_hours, train_images_per_second and train_energy_kwh a stage; generate_* of a timing.

    sets: passed over; images do not tell what they cost. run: the -o of `medisyn train`.
    """
    if run is None:
        return [absent("train_hours", "no run folder was given", better="lower"), *made(generation)]
    try:
        stages = read(run)
    except ValueError as error:
        return [absent("train_hours", str(error), better="lower"), *made(generation)]
    rows = []
    for s in stages:
        group, rates = f"stage={s.name}", np.array(s.rates)
        rows += [counted("train_images", s.n_images, group, s.n_images),
                 counted("train_hours", s.seconds / 3600, group, s.n_images),
                 bootstrap(lambda r, x=rates: float(x[r].mean()), len(rates), name="train_images_per_second", group=group,
                           seed=seed, better="higher", note="intervals of the log are drawn; n counts them"),
                 absent("train_energy_kwh", "the log holds no joules: " + NO_METER, group, better="lower") if s.kwh is None else
                 counted("train_energy_kwh", s.kwh, group, s.n_images)]
    total = sum(s.seconds for s in stages) / 3600
    return [counted("train_hours", total, "all", sum(s.n_images for s in stages)), *rows, *made(generation)]


def made(generation: Timing | None) -> list[Estimate]:
    """Figures of a timing."""
    if generation is None or generation.n_images == 0:
        return [absent("generate_seconds_per_image", "no images were made under the clock", better="lower")]
    n = generation.n_images
    energy = absent("generate_energy_wh_per_image", NO_METER, better="lower") if generation.joules is None else \
        counted("generate_energy_wh_per_image", generation.joules / n / 3600, "all", n)
    return [counted("generate_seconds_per_image", generation.seconds / n, "all", n), energy]


def counted(name: str, value: float, group: str, n: int) -> Estimate:
    """A figure that was counted, not drawn from a sample: its interval is itself."""
    return Estimate(name, float(value), float(value), float(value), n, group, better=None if name == "train_images" else "lower",
                    note="counted, not sampled")


# ---- one generalist, or a specialist each ---------------------------------------------------------------------------

@dataclass(frozen=True)
class Compared:
    """One image type: what its own specialist took, and its share of the generalist."""

    image_type: str
    specialist_hours: float | None
    generalist_hours: float | None      # an even share: the generalist's hours over the types it makes
    specialist_quality: Estimate | None
    generalist_quality: Estimate | None
    note: str | None = None


def compare(generalist: Path, specialists: Mapping[str, Path], quality: Mapping[str, tuple[Estimate, Estimate]] | None = None,
            ) -> list[Compared]:
    """A row an image type: hours of one generalist (an even share) beside hours of its specialist.

    quality: {image type: (specialist's, generalist's)}, the same metric of two reports. At equal quality the hours decide,
    at equal hours the quality; where intervals overlap neither is called better. A run that cannot be read is a row that
    says why. ValueError where the generalist's run cannot be read.
    """
    whole = sum(s.seconds for s in read(generalist)) / 3600
    rows = []
    for kind, run in specialists.items():
        good = (quality or {}).get(kind, (None, None))
        try:
            hours = sum(s.seconds for s in read(run)) / 3600
        except ValueError as error:
            rows.append(Compared(kind, None, whole / len(specialists), *good, str(error)))
            continue
        rows.append(Compared(kind, hours, whole / len(specialists), *good, judged(*good)))
    return rows


def judged(specialist: Estimate | None, generalist: Estimate | None) -> str:
    """Which is better, as far as the intervals tell."""
    if specialist is None or generalist is None or None in (specialist.low, generalist.low):
        return "quality was not measured on both: hours alone say nothing of which is better"
    if specialist.name != generalist.name or specialist.better is None:
        return f"{specialist.name} and {generalist.name} cannot be compared"
    if specialist.low <= generalist.high and generalist.low <= specialist.high:
        return f"{specialist.name}: no difference beyond the intervals"
    ahead = (specialist.value > generalist.value) == (specialist.better == "higher")
    return f"{specialist.name}: the {'specialist' if ahead else 'generalist'} is better"


def table(rows: Sequence[Compared]) -> str:
    """Markdown: one row an image type and the sums."""
    def hours(value: float | None) -> str:
        return "not read" if value is None else f"{value:.2f}"

    def good(found: Estimate | None) -> str:
        return "not measured" if found is None else found.text

    head = ["| image type | specialist, h | generalist, h (share) | specialist | generalist | reading |",
            "|---|---|---|---|---|---|"]
    body = [f"| {r.image_type} | {hours(r.specialist_hours)} | {hours(r.generalist_hours)} | {good(r.specialist_quality)} | "
            f"{good(r.generalist_quality)} | {r.note or ''} |" for r in rows]
    known = [r for r in rows if r.specialist_hours is not None]
    sums = f"| all | {hours(sum(r.specialist_hours for r in known))} | {hours(sum(r.generalist_hours for r in known))} | | | " \
           f"{len(known)} of {len(rows)} specialists read |"
    return "\n".join([*head, *body, sums]) + "\n"
