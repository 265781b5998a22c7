"""Verbs on data: raw datasets become collections, a prompt becomes an understanding."""

import json
from pathlib import Path
from typing import Annotated

import typer

from medisyn.cli.app import Json, ModelFolder, Out, app, show, tell, ticker


@app.command()
def sources(as_json: Json = False) -> None:
    """List the public datasets that `ingest` reads, with image types, licence and address.

    Example: medisyn sources --json
    """
    from medisyn.data.sources import SOURCES
    rows = [{"name": s.name, "title": s.title, "image_types": list(s.image_types), "specialties": list(s.specialties),
             "licence": s.licence, "licence_evidence": s.licence_evidence, "citation": s.citation, "address": s.address,
             "group": s.group, "layout": s.layout, "open": s.open} for s in SOURCES.values()]
    if as_json:
        return show(rows)
    for row in rows:
        print(f"{row['name']:<18} {', '.join(row['image_types']):<28} {row['licence'] or 'not stated':<22} {row['title']}")
    tell("next: medisyn ingest SOURCE FOLDER -o COLLECTION")


@app.command()
def ingest(source: Annotated[str, typer.Argument(help="A name from `medisyn sources`.")],
           folder: Annotated[Path, typer.Argument(help="The dataset, in its own layout.")],
           out: Out,
           limit: Annotated[int | None, typer.Option(help="At most so many images, spread over the dataset.")] = None,
           size: Annotated[int, typer.Option(help="Short side in pixels; larger images are reduced, none enlarged.")] = 256,
           mapping: Annotated[Path | None, typer.Option(help="TOML that maps columns, for the source `table`.")] = None,
           workers: Annotated[int | None, typer.Option(help="Processes; left out: one a core.")] = None,
           as_json: Json = False) -> None:
    """Read a public or local dataset into a collection; several sources may share one.

    Example: medisyn ingest busi Dataset_BUSI_with_GT -o data/open
    """
    from medisyn.data import ingest as reading
    from medisyn.data.sources import SOURCES
    if source not in SOURCES:
        import difflib
        near = difflib.get_close_matches(source, SOURCES, 1)
        raise typer.BadParameter(f"unknown source {source!r}" + (f"; did you mean {near[0]!r}?" if near else "")
                                 + " `medisyn sources` lists them", param_hint="SOURCE")
    summary = reading.ingest(source, folder, out, limit=limit, size=size, workers=workers, mapping=mapping, progress=ticker(source))
    images = {image_type: {name: dict(sorted(counted.items())) for name, counted in row.items()}
              for image_type, row in summary.counts.items()}
    if as_json:
        return show({"out": str(out), "source": source, "n_images": summary.written, "quarantined": summary.quarantined,
                     "groups": summary.groups, "counts": images})
    for image_type, row in images.items():
        print(f"{image_type}: {', '.join(f'{split} {n:,}' for split, n in row['split'].items())}; present: "
              + ", ".join(f"{name} {n:,}" for name, n in row["present"].items()))
    if summary.quarantined:
        print(f"{summary.quarantined} files were not taken in; {out}/quarantine.jsonl says why")
    tell(f"wrote {out}; next: medisyn train recipes/medisyn-xs.toml -o out/run --set 'data.collections=[\"{out}\"]'")


@app.command()
def check(collection: Annotated[Path, typer.Argument(help="A folder with metadata.jsonl.")], as_json: Json = False) -> None:
    """Look for missing images, unknown words and patients that cross splits. Exit 1 when there are any.

    Example: medisyn check data/open
    """
    from medisyn.data import ingest as reading
    problems = reading.check(collection)
    show(problems) if as_json else [print(problem) for problem in problems]
    tell(f"{len(problems)} problems in {collection}")
    if problems:
        raise typer.Exit(1)


@app.command()
def understand(prompt: str, model: ModelFolder = None, as_json: Json = False) -> None:
    """Say what a prompt is understood to ask for, what is not, and how many training images support it.

    Example: medisyn understand "CXR, 4 y/o boy, viral pneumonia, no effusion"
    """
    import dataclasses

    from medisyn.data import prompts
    from medisyn.data.understanding import nearest_known
    table = support_of(model)
    understood = prompts.understand(prompt, table)
    if as_json:
        return show(dataclasses.asdict(understood) | {"not_understood": list(understood.not_understood)})
    print(prompts.sentence(understood))
    if understood.support == 0 and table:
        print(f"nearest known: {nearest_known(understood, table)}")


def support_of(model: Path | None) -> list | None:
    """The support table of a model, without loading its weights."""
    home = model or Path(__file__).parent.parent / "weights" / "medisyn-xs"
    path = home / "support.json"
    if model is not None and not path.is_file():
        raise FileNotFoundError(f"{model} is not a MediSyn model: it should hold support.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
