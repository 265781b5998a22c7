"""Solvers: for one number of steps, the coefficients of a multistep sampler that were fitted to a model.

    solver.json     in a model folder, where there is one: {"8": {"times": [...], "keep": [...], "told": [[...], ...], "more": ...}}

`samplers.fitted` steps by them, `training/solver.py` fits them. A solver's name, in the provenance of an image, follows from its
coefficients, so the folder's own sha256 does not count them: its other images stay what they were.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

FILE = "solver.json"
KIND = "fitted"   # what names of solvers begin with
HISTORY = 3   # velocities that a step is made of: its own and the two before


@dataclass(frozen=True)
class Solver:
    """One number of steps: x at the next time is keep * x + told @ velocities by the prompt + more @ what guidance adds to them.

    A number or a row a step; in a row the latest velocity comes first.

    ValueError for rows that do not fit the times.
    """

    times: tuple[float, ...]                # (steps + 1,) from 0 to 1
    keep: tuple[float, ...]
    told: tuple[tuple[float, ...], ...]     # of the step's own velocity and the two before
    more: tuple[tuple[float, ...], ...]

    def __post_init__(self):
        steps = len(self.times) - 1
        if steps < 1 or (self.times[0], self.times[-1]) != (0, 1) or sorted(set(self.times)) != list(self.times):
            raise ValueError(f"a solver's times should increase from 0 to 1, found {list(self.times)}")
        wanted = [min(k + 1, HISTORY) for k in range(steps)]
        for name, rows, lengths in (("keep", (self.keep,), [steps]), ("told", self.told, wanted), ("more", self.more, wanted)):
            if (found := [len(row) for row in rows]) != lengths:
                raise ValueError(f"a solver of {steps} steps should have {lengths} numbers in {name!r}, found {found}")
            if not all(isinstance(value, (int, float)) and math.isfinite(value) for row in rows for value in row):
                raise ValueError(f"a solver's coefficients should be finite numbers; in {name!r} they are not")

    @property
    def name(self) -> str:
        """fitted:1a2b3c4d, by all its numbers."""
        numbers = json.dumps([self.times, self.keep, self.told, self.more])
        return f"{KIND}:{hashlib.sha256(numbers.encode()).hexdigest()[:8]}"


def read(folder: Path) -> dict[int, Solver]:
    """The solvers of a model folder by number of steps; {} where it has none. ValueError for a file that is not one."""
    path = Path(folder) / FILE
    if not path.is_file():
        return {}
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        solvers = {int(steps): Solver(tuple(table["times"]), tuple(table["keep"]), tuple(map(tuple, table["told"])),
                                      tuple(map(tuple, table["more"]))) for steps, table in written.items()}
        wrong = [steps for steps, solver in solvers.items() if len(solver.times) != steps + 1]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} holds no solvers ({error}); make it again with `medisyn solver {folder}`") from None
    if wrong:
        raise ValueError(f"{path}: the solver for {wrong[0]} steps has times for another number; make it again with "
                         f"`medisyn solver {folder} --steps {wrong[0]}`")
    return solvers


def write(folder: Path, solvers: dict[int, Solver]) -> Path:
    """Write all solvers of a model folder, a row a line."""
    def table(solver: Solver) -> str:
        parts = [f'    "{name}": {json.dumps(getattr(solver, name))}' for name in ("times", "keep")]
        for name in ("told", "more"):
            rows = ",\n      ".join(json.dumps(row) for row in getattr(solver, name))
            parts.append(f'    "{name}": [\n      {rows}\n    ]')
        return "{\n" + ",\n".join(parts) + "\n  }"
    path, part = Path(folder) / FILE, Path(folder) / f"{FILE}.part"
    part.write_text("{\n" + ",\n".join(f'  "{steps}": {table(solvers[steps])}' for steps in sorted(solvers)) + "\n}\n",
                    encoding="utf-8")
    part.replace(path)
    return path


def rounded(solver: Solver, digits: int = 6) -> Solver:
    """The same with so many digits after the point."""
    def cut(row: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(round(value, digits) for value in row)
    return Solver(cut(solver.times), cut(solver.keep), tuple(map(cut, solver.told)), tuple(map(cut, solver.more)))
