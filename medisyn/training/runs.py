"""Runs seen from outside: what a run folder says of itself, however it was ended, and without torch.

Nothing is written and nothing raises but for a folder that is not there: a log cut short by a kill is read as far
as it goes, a recipe that cannot be read is a run without settings, and lines that mean nothing are counted.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FRESH = 360.0    # seconds: a stage is saved every two minutes; one that wrote nothing for three times as long has stopped
PLAIN = ("n_images", "images_per_second", "share_of_peak")   # of a row: not what was learnt


@dataclass(frozen=True)
class Seen:
    """One stage of a run."""

    name: str
    state: str                        # "done", "running": it wrote something lately, "stopped"
    rows: tuple[dict, ...]            # of its log, in the order of n_images
    damaged: int                      # lines that could not be read
    wanted: int | None                # images that the recipe asks for; None: not known
    written: float                    # seconds since the epoch when it last wrote something

    @property
    def last(self) -> dict:
        """The newest row; empty where nothing was logged."""
        return self.rows[-1] if self.rows else {}

    @property
    def n_images(self) -> int:
        """Images trained on, as far as was logged."""
        return self.last.get("n_images", 0)

    @property
    def loss(self) -> tuple[str, float] | None:
        """What is made small, by name: `loss`, or the first figure of the newest row."""
        return figure(self.last, next((name for name in ("loss", *self.last) if name in self.last and name not in PLAIN), None))

    @property
    def held_out(self) -> tuple[str, float] | None:
        """The figure on images that are not trained on, by name: the lowest of the moving averages' losses, or what there is."""
        names = [name for name in self.last if name.startswith("held_out")]
        averages = [name for name in names if name.startswith("held_out_ema")]
        best = min(averages, key=lambda name: self.last[name]) if averages else None
        return figure(self.last, best or next((n for n in (*names, "psnr_db") if n in self.last), None))


@dataclass(frozen=True)
class Run:
    """A run folder."""

    folder: Path
    name: str                         # of the model in the recipe, else of the folder
    kind: str                         # "model", "finetune", "eye", ... as in the recipe
    settings: dict                    # the recipe, resolved; empty where it cannot be read
    stages: tuple[Seen, ...]          # in the order in which they last wrote
    model: bool                       # whether it holds a finished model folder
    size: int                         # bytes on disk
    written: float                    # seconds since the epoch


def figure(row: dict, name: str | None) -> tuple[str, float] | None:
    """A named number of a row."""
    return (name, row[name]) if name is not None else None


def find(folders: Sequence[Path]) -> list[Path]:
    """The run folders among these and right inside them; FileNotFoundError for one that is not there."""
    found: list[Path] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}; give the -o of a `medisyn train`, or a folder of such")
        inside = [folder] if is_run(folder) else sorted(p for p in folder.iterdir() if p.is_dir() and is_run(p))
        found += [path for path in inside if path not in found]
    return found


def is_run(folder: Path) -> bool:
    """Whether a training left its log here, or has settled what it will do."""
    if any(folder.glob("*/log.jsonl")):
        return True
    return (folder / "recipe.json").is_file() and bool(settings_of(folder))


def read(folder: Path, now: float | None = None) -> Run:
    """What a run folder says; now: seconds since the epoch, None the clock's."""
    folder, now = Path(folder), time.time() if now is None else now
    settings = settings_of(folder)
    stages = tuple(sorted((stage_of(home, settings, now) for home in stage_folders(folder)), key=lambda s: s.written))
    kind = settings.get("kind") or ("model" if settings or len(stages) != 1 else stages[0].name)
    model = settings.get("model")
    named = model.get("name") if isinstance(model, dict) else None
    files = [status for path in folder.rglob("*") if (status := status_of(path))]
    return Run(folder, str(named or folder.absolute().name), str(kind), settings, stages,
               any((folder / "model" / name).is_file() for name in ("medisyn.json", "model_index.json", "eye.json", "config.json")),
               sum(size for size, _ in files), max((at for _, at in files), default=now))


def settings_of(folder: Path) -> dict:
    """The recipe, resolved; empty where there is none that can be read."""
    try:
        settings = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def stage_folders(folder: Path) -> Iterator[Path]:
    """The folders of what was trained: those with a log, a checkpoint, or the mark of an end."""
    for home in sorted(p for p in folder.iterdir() if p.is_dir() and p.name not in ("pixels", "model", "tracking")):
        if (home / "log.jsonl").is_file() or (home / "done.json").is_file() or any(home.glob("checkpoint-*")):
            yield home


def stage_of(home: Path, settings: dict, now: float) -> Seen:
    """What a stage's folder says."""
    rows, damaged = rows_of(home / "log.jsonl")
    written = max((at for path in home.iterdir() if (status := status_of(path)) for at in [status[1]]), default=0.0)
    own = settings.get(home.name)
    wanted = own.get("n_images") if isinstance(own, dict) else None
    state = "done" if (home / "done.json").is_file() else "running" if now - written < FRESH else "stopped"
    return Seen(home.name, state, rows, damaged, wanted if isinstance(wanted, int) else None, written)


def rows_of(log: Path) -> tuple[tuple[dict, ...], int]:
    """The rows of a log that count images, rising, and how many lines are damaged.

    A row that goes back, as a resume leaves it, takes the place of those it repeats.
    """
    rows, damaged = [], 0
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return (), 0
    for line in filter(str.strip, lines):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        n = row.get("n_images") if isinstance(row, dict) else None
        if isinstance(n, bool) or not isinstance(n, int):
            damaged += 1
            continue
        while rows and rows[-1]["n_images"] >= n:
            rows.pop()
        rows.append({name: value for name, value in row.items() if isinstance(value, int | float) and not isinstance(value, bool)
                     and math.isfinite(value)})
    return tuple(rows), damaged


def status_of(path: Path) -> tuple[int, float] | None:
    """Bytes and time of writing of a file; None where it is none, or is gone by now."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return None if path.is_symlink() or path.is_dir() else (status.st_size, status.st_mtime)


def as_dict(run: Run, now: float | None = None) -> dict:
    """For programs."""
    now = time.time() if now is None else now
    stages = [{key: value for key, value in asdict(s).items() if key not in ("rows", "written")} |
              {"n_images": s.n_images, "loss": named(s.loss), "held_out": named(s.held_out), "newest": s.last,
               "images_per_second": s.last.get("images_per_second"), "age_seconds": round(now - s.written, 1)} for s in run.stages]
    return {"folder": str(run.folder), "name": run.name, "kind": run.kind, "model": run.model, "bytes": run.size,
            "age_seconds": round(now - run.written, 1), "stages": stages}


def named(figure: tuple[str, float] | None) -> dict | None:
    """A named number, for programs."""
    return {"name": figure[0], "value": figure[1]} if figure else None


def table(run: Run, now: float | None = None) -> list[str]:
    """For people: the run, then a line a stage."""
    now = time.time() if now is None else now
    kind = "" if run.kind == "model" else f", {run.kind}"
    lines = [f"{run.folder}  {run.name}{kind}, {megabytes(run.size)}, last written {ago(now - run.written)} ago"
             + (", model finished" if run.model else "")]
    for s in run.stages:
        images = f"{s.n_images:,}" + (f" of {s.wanted:,}" if s.wanted else "") + " images" if s.n_images else ""
        rate = s.last.get("images_per_second")
        figures = "  ".join(f"{name} {value:.4g}" for name, value in filter(None, (s.loss, s.held_out)))
        said = [images, figures, f"{rate:.4g} images/s" if rate is not None else "",
                f"{s.damaged} damaged lines" if s.damaged else "", f"{ago(now - s.written)} ago" if s.state != "done" else ""]
        lines.append(f"    {s.name:<11} {s.state:<8} " + "  ".join(filter(None, said)))
    return lines if run.stages else [*lines, "    nothing trained yet"]


def flat(settings: dict, above: str = "") -> dict[str, object]:
    """Nested tables as dotted keys: {"dit": {"depth": 8}} -> {"dit.depth": 8}."""
    found: dict[str, object] = {}
    for name, value in settings.items():
        found |= flat(value, f"{above}{name}.") if isinstance(value, dict) and value else {f"{above}{name}": value}
    return found


def megabytes(size: int) -> str:
    """1234567 -> "1.2 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def ago(seconds: float) -> str:
    """4000 -> "1 h"."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (seconds >= length and unit != "min"):
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
