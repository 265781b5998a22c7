"""Verbs of watching: how runs stand and compare, what a machine can do."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from medisyn.cli.app import Json, app, show, tell

ALIKE = (2, 4)   # so many run folders by name are compared; more of them are listed


@app.command()
def runs(folders: Annotated[list[Path] | None, typer.Argument(help="Run folders, or folders of runs; left out: out.")] = None,
         compare: Annotated[bool, typer.Option("--compare", help="Compare all that are found.")] = False,
         picture: Annotated[Path | None, typer.Option("--out", "-o", help="Draw the comparison into this PNG.")] = None,
         as_json: Json = False) -> None:
    """List training runs, or compare two to four that are named: settings, losses at equal images, samples.

    Example: medisyn runs out/first out/second -o out/compare.png
    """
    from medisyn.training import comparing
    from medisyn.training import runs as reading
    if not folders and not Path("out").is_dir():
        return show([]) if as_json else print("no runs yet: there is no folder out; `medisyn train RECIPE -o out/NAME` begins one")
    homes = reading.find(folders or [Path("out")])
    if not homes:
        where = ", ".join(map(str, folders or ["out"]))
        return show([]) if as_json else print(f"no runs in {where} yet; `medisyn train RECIPE -o out/NAME` begins one")
    found = [reading.read(home) for home in homes]
    named = len(homes) == len(folders or []) and ALIKE[0] <= len(homes) <= ALIKE[1]
    if not (compare or picture or named):
        if as_json:
            return show([reading.as_dict(run) for run in found])
        for run in sorted(found, key=lambda run: -run.written):
            print("\n".join(reading.table(run)))
        if len(found) > 1:
            tell(f"next: medisyn runs {found[0].folder} {found[1].folder} -o compare.png")
        return None
    if len(found) < 2:
        raise ValueError(f"a comparison needs two runs or more, found {homes[0]} alone; name another one")
    compared = comparing.compare(found)
    show(compared) if as_json else print("\n".join(comparing.table(compared)))
    if picture:
        tell(f"wrote {comparing.picture(found, picture)}")


@app.command()
def doctor(full: Annotated[bool, typer.Option("--full", help="Also compile a tiny function: up to a minute.")] = False,
           as_json: Json = False) -> None:
    """Say what this machine has, which recipes fit and what to set; without names or paths, fit for a bug report.

    Example: medisyn doctor --json
    """
    from medisyn.training import machine
    broken = machine.torch_works()
    if broken:
        rows = [machine.Row("torch", "works", None, broken), *machine.tried("python", machine.python)]
        show({"machine": [dataclasses.asdict(row) for row in rows]}) if as_json else say(rows)
        raise typer.Exit(1)
    from medisyn.training import advice
    rows = machine.examine(full)
    found = advice.as_dict(rows, [fit_of(path, rows) for path in sorted(Path("recipes").glob("*.toml"))])
    if as_json:
        return show(found)
    say(rows)
    fits = found["recipes"]["fits"]
    print(f"\nrecipes: {'estimated as ' + advice.HOW if fits else 'there is no recipes/*.toml in the current folder'}")
    for fit in fits:
        verdict = {True: "fits", False: "does not fit", None: "not known"}[fit["fits"]]
        print(f"    {fit['recipe']:<24} {verdict:<13} {fit['say']}")
    print()
    for line in found["settings"]:
        print(f"set {line['set']:<14} {line['why']}")


def say(rows: list) -> None:
    """The rows of a machine, for people."""
    for row in rows:
        why = f"  ({row.missing})" if row.missing else ""
        print(f"{row.part:<17}  {row.name:<24} {'-' if row.value is None else row.value}{why}")


def fit_of(path: Path, rows: list) -> Any:
    """Whether a recipe fits; where that cannot be said, why."""
    from medisyn import recipe as recipes
    from medisyn.training import advice, machine
    try:
        return advice.judged(path.name, recipes.read(path), rows)
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        return advice.Fit(path.name, None, None, None, None, f"not estimated: {machine.anonymous(said)}")
