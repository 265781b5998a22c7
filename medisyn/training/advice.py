"""Advice: what of the recipes fits a machine, and what to set there, each with its reason."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

from medisyn.training import finetune_needs, needs
from medisyn.training.finetune_settings import FinetuneRecipe
from medisyn.training.machine import GIB, Row, value
from medisyn.training.needs import MARGIN, SHARE, TORCH, Need

HOW = ("16 bytes a weight, 4 a moving average, and what autograd keeps of a batch, counted on shapes in full precision "
       f"({SHARE['cuda']} of it on a GPU, in bf16); of a fine-tuning 4 or 2 bytes a frozen weight and 24 one that learns; "
       f"times {MARGIN}, and {TORCH / GIB:.1f} GiB for torch; images and latents held in memory are not in it")
QUICKER = 1.5   # times as fast as full precision, from which on bf16 is worth its other numbers
KEYS = {"dit": "dit.micro", "dit-first": "dit.first_micro"}   # where is set how many pass at once, if not in STAGE.batch


@dataclass(frozen=True)
class Fit:
    """Whether a recipe can be trained here."""

    recipe: str
    fits: bool | None              # None: not known
    needs_gib: float | None
    stage: str | None              # the one that takes most
    where: str | None              # "cpu" or "cuda"
    say: str                       # in a sentence

    def as_dict(self) -> dict:
        """For programs."""
        return asdict(self)


def judged(name: str, recipe: object, rows: Iterable[Row]) -> Fit:
    """A recipe of any kind against this machine; ValueError or FileNotFoundError where it cannot be counted."""
    rows, device = list(rows), getattr(recipe, "device", "cpu")
    where = place(device, rows)
    if not isinstance(recipe, FinetuneRecipe):
        return fit(name, device, needs.needs(recipe), rows)
    if where is None:
        return fit(name, device, [], rows)
    found = finetune_needs.needs(recipe, where)
    return fit(name, device, found, rows, lambda memory: finetune_needs.instead(recipe, where, found, memory))


def place(device: str, rows: Iterable[Row]) -> str | None:
    """Where a recipe for "cpu", "cuda" or "auto" trains here: "cpu" or "cuda"; None: nowhere."""
    gpu = value(rows, "gpu 0", "free GiB") is not None
    return "cpu" if device == "cpu" or (device == "auto" and not gpu) else "cuda" if gpu else None


def fit(name: str, device: str, needs: list[Need], rows: Iterable[Row], instead: Callable[[float], list[str]] | None = None) -> Fit:
    """A recipe against this machine; device: as in the recipe, "cpu", "cuda" or "auto".

    instead: bytes -> settings with which it would fit them; None: a smaller batch.
    """
    rows = list(rows)
    where = place(device, rows)
    if where is None:
        return Fit(name, False, None, None, None, "asks for a GPU, and torch sees none; --set device=auto")
    free = value(rows, "gpu 0" if where == "cuda" else "memory", "free GiB")
    most = max(needs, key=lambda need: need.total(where))
    takes = round(most.total(where) / GIB, 1)
    told = f"stage {most.stage}: {most.weights / 1e6:.1f} M weights{most.more}, {takes} GiB at {most.batch} at once"
    if free is None:
        return Fit(name, None, takes, most.stage, where, f"{told}; the free memory is not known")
    if takes <= free:
        return Fit(name, True, takes, most.stage, where, f"{told}, of {free} GiB free on the {where}")
    if instead is not None:
        ways = ", or ".join(instead(free * GIB))
        would = f"what would fit: {ways} (the batch of the training stays)" if ways else \
            "no setting makes it fit; use smaller images, a smaller base or another machine"
        return Fit(name, False, takes, most.stage, where, f"{told}, but {free} GiB are free on the {where}; {would}")
    smaller = []
    for need in (need for need in needs if need.total(where) / GIB > free):
        room = need.largest(free * GIB, where)
        smaller.append(f"no batch of {need.stage}" if not room else f"{KEYS[need.stage]}={room} (the batch of the training stays)"
                       if need.stage in KEYS else f"{need.stage}.batch={room} (another batch is another training)")
    return Fit(name, False, takes, most.stage, where, f"{told}, but {free} GiB are free on the {where}; what would fit: "
               + ", ".join(smaller))


def settings(rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
    """(what to set, why), for this machine."""
    rows = list(rows)
    rates = {row.name.split(":")[0]: row.value for row in rows if row.part == "threads" and row.value is not None}
    if rates:
        best = max(rates, key=rates.get)
        measured = ", ".join(f"{n}: {rate}" for n, rate in rates.items())
        more = "; for more cores start a process each with torchrun" if best == "1" and len(rates) > 1 else ""
        yield f"threads = {best}", f"images/s of a small denoiser's training step by threads, measured now: {measured}{more}"
    gpu = value(rows, "gpu", "count")
    if gpu:
        yield "device = auto", f"torch sees {gpu} GPU{'s' if gpu > 1 else ''}: {value(rows, 'gpu 0', 'name')}"
        half = value(rows, "gpu 0", "bf16 in hardware")
        yield "precision", ("bf16 over fp32 weights, which device = auto takes by itself" if half else
                            "this GPU has no bf16 in hardware, and training uses it all the same: expect it to be slow")
    elif gpu == 0:
        yield "device = cpu", "torch sees no GPU"
    ratio = value(rows, "speed", "cpu bf16 over fp32")
    if ratio is not None and not gpu:
        if ratio > QUICKER:
            compiler = value(rows, "compile", "C++ compiler")
            yield 'precision = "bf16"', (f"bf16 products are {ratio:.1f} times as fast as full ones here; on one machine a run "
                                         "in it is resumed bit for bit, on another it ends a little elsewhere")
            yield "compiled = true", ((f"with {compiler}" if compiler else "once a C++ compiler is installed")
                                      + ": a denoiser's blocks are compiled, which bf16 gains by most")
        else:
            yield "precision", f"full, as it is: bf16 products are no faster here ({ratio:.2f} times)"
    for part in dict.fromkeys(row.part for row in rows if row.name == "whole" and row.value is False):
        yield part, "it ships, but its files are not those of its card; install or fetch it again"
    if value(rows, "current folder", "writable") is False:
        yield "-o", "name a folder elsewhere; the current one cannot be written into"


def as_dict(rows: Iterable[Row], fits: Iterable[Fit]) -> Mapping[str, object]:
    """All of it, for programs."""
    rows = list(rows)
    return {"machine": [asdict(row) for row in rows], "recipes": {"estimated": HOW, "fits": [f.as_dict() for f in fits]},
            "settings": [{"set": what, "why": why} for what, why in settings(rows)]}
