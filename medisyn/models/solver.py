"""Solvers: for one number of steps, the coefficients of a multistep sampler that were fitted to a model.

    solver.json     in a model folder, where there is one: {"8": {"times": [...], "told": [[...], ...], "more": [[...], ...]}}

`samplers.fitted` steps by them, `training/solver.py` fits them.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

FILE = "solver.json"
HISTORY = 3   # velocities that a step is made of: its own and the two before


@dataclass(frozen=True)
class Solver:
    """One number of steps; a row a step in `told` and `more`, the latest velocity first.

    ValueError for rows that do not fit the times.
    """

    times: tuple[float, ...]                # (steps + 1,) from 0 to 1
    told: tuple[tuple[float, ...], ...]     # of the two velocities by the prompt before, as they differ from the step's own
    more: tuple[tuple[float, ...], ...]     # of what guidance adds, in this step and the two before

    def __post_init__(self):
        steps = len(self.times) - 1
        if steps < 1 or (self.times[0], self.times[-1]) != (0, 1) or sorted(set(self.times)) != list(self.times):
            raise ValueError(f"a solver's times should increase from 0 to 1, found {list(self.times)}")
        for name, rows, first in (("told", self.told, 0), ("more", self.more, 1)):
            lengths, wanted = [len(row) for row in rows], [min(k + first, HISTORY - 1 + first) for k in range(steps)]
            if lengths != wanted:
                raise ValueError(f"a solver of {steps} steps should have {wanted} numbers in the rows of {name!r}, found {lengths}")
            if not all(isinstance(value, (int, float)) and math.isfinite(value) for row in rows for value in row):
                raise ValueError(f"a solver's coefficients should be finite numbers; in {name!r} they are not")


def read(folder: Path) -> dict[int, Solver]:
    """The solvers of a model folder by number of steps; {} where it has none. ValueError for a file that is not one."""
    path = Path(folder) / FILE
    if not path.is_file():
        return {}
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        solvers = {int(steps): Solver(tuple(table["times"]), *(tuple(map(tuple, table[name])) for name in ("told", "more")))
                   for steps, table in written.items()}
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
        parts = [f'    "times": {json.dumps(solver.times)}']
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
    return dataclasses.replace(solver, times=tuple(round(t, digits) for t in solver.times),
                               **{name: tuple(tuple(round(v, digits) for v in row) for row in getattr(solver, name))
                                  for name in ("told", "more")})
