"""Verbs on data: raw datasets become collections, a prompt becomes an understanding."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medisyn.cli.app import Json, ModelFolder, Out, app, show, tell, ticker


@app.command()
def sources(as_json: Json = False) -> None:
    """List the public datasets that `ingest` reads, with image types, licence, size and address.

    Example: medisyn sources --json
    """
    from medisyn.data.sources import SOURCES
    rows = [{"name": s.name, "title": s.title, "image_types": list(s.image_types), "specialties": list(s.specialties),
             "licence": s.licence, "licence_evidence": s.licence_evidence, "citation": s.citation, "address": s.address,
             "group": s.group, "layout": s.layout, "open": s.open, "size": s.size, "download": s.download}
            for s in SOURCES.values()]
    if as_json:
        return show(rows)
    for row in rows:
        print(f"{row['name']:<22} {', '.join(row['image_types']):<28} {row['licence'] or 'not stated':<22} {row['title']}")
        if row["download"]:
            print(f"{'':<22} {row['size'] or 'size not stated'}. {row['download']} {row['address'] or ''}".rstrip())
    tell("next: medisyn ingest SOURCE FOLDER -o COLLECTION")


@app.command()
def ingest(source: Annotated[str, typer.Argument(help="A name from `medisyn sources`.")],
           folder: Annotated[Path, typer.Argument(help="The dataset as it comes: a folder, or its zip or tar.")],
           out: Out,
           limit: Annotated[int | None, typer.Option(help="At most so many images, spread over the dataset.")] = None,
           size: Annotated[int, typer.Option(help="Short side in pixels; larger images are reduced, none enlarged.")] = 256,
           mapping: Annotated[Path | None, typer.Option(help="TOML that says what your columns and folders mean.")] = None,
           window: Annotated[str, typer.Option(help="Of deep pixels: auto, percentile, or CENTRE/WIDTH.")] = "auto",
           key_file: Annotated[Path | None, typer.Option(help="A secret for pseudonyms; your own data has one.")] = None,
           keep_text: Annotated[bool, typer.Option("--keep-text", help="Keep your tables' texts; they may name people.")] = False,
           workers: Annotated[int | None, typer.Option(help="Processes; left out: one a core.")] = None,
           engine: Annotated[str, typer.Option(help="processes of this machine, or ray: a cluster.")] = "processes",
           address: Annotated[str | None, typer.Option(help="Of an existing Ray cluster, for --engine ray.")] = None,
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
    if engine != "ray" and address is not None:
        raise typer.BadParameter("expected --engine ray beside it; an address is that of a Ray cluster", param_hint="--address")
    summary = reading.ingest(source, folder, out, limit=limit, size=size, workers=workers, mapping=mapping, progress=ticker(source),
                             window=window, run_on=engine, address=address, **secrecy(source, out, key_file, keep_text))
    images = {image_type: {name: dict(sorted(counted.items())) for name, counted in row.items()}
              for image_type, row in summary.counts.items()}
    if as_json:
        return show({"out": str(out), "source": summary.source, "n_images": summary.written, "quarantined": summary.quarantined,
                     "groups": summary.groups, "counts": images})
    for image_type, row in images.items():
        print(f"{image_type}: {', '.join(f'{split} {n:,}' for split, n in row['split'].items())}; present: "
              + ", ".join(f"{name} {n:,}" for name, n in row["present"].items()))
    if summary.quarantined:
        print(f"{summary.quarantined} files were not taken in; {out}/quarantine.jsonl says why")
    tell(f"wrote {out}; next: medisyn train recipes/medisyn-xs.toml -o out/run --set 'data.collections=[\"{out}\"]'")


def secrecy(source: str, out: Path, key_file: Path | None, keep_text: bool) -> dict[str, Any]:
    """Under which key a source is read and what is kept of it: one's own data always under a local secret."""
    import os
    from dataclasses import replace

    from medisyn.data import deidentify
    from medisyn.data.ingest import OWN
    if source not in OWN and key_file is None:
        return {}
    home = deidentify.home(os.environ.get("XDG_CONFIG_HOME"))
    key = deidentify.key(key_file or home / "key", collection=out)
    return {"key": key, "home": home, "policy": replace(deidentify.policy_of(key), free_text=keep_text)}


@app.command()
def review(collection: Annotated[Path, typer.Argument(help="A folder with metadata.jsonl.")],
           release: Annotated[list[str] | None, typer.Option(help="Let this image in; several may be given.")] = None,
           release_from: Annotated[Path | None, typer.Option(help="A file with a name a line: let them in.")] = None,
           retract: Annotated[list[str] | None, typer.Option(help="Hold this image again.")] = None) -> None:
    """Draw the page of what `ingest` holds back, for your eyes alone, or release images by the names on it.

    Example: medisyn review data/ours --release 0123456789abcdef
    """
    import os

    from medisyn.data import deidentify
    from medisyn.data import review as reviewing
    private = deidentify.private(deidentify.home(os.environ.get("XDG_CONFIG_HOME")), collection)
    names = [*(release or ()), *(release_from.read_text(encoding="utf-8").split() if release_from else ())]
    if names:
        reviewing.release(private, names)
    if retract:
        reviewing.retract(private, retract)
    tell(f"wrote {reviewing.page(private, collection, ticker('review'))}; next: the same `medisyn ingest` again")


@app.command()
def pack(collection: Annotated[Path, typer.Argument(help="A folder with metadata.jsonl.")], out: Out,
         shard_mib: Annotated[float, typer.Option(help="MiB of images a file.")] = 256) -> None:
    """Pack a collection into Parquet shards with the images inside, which `datasets` and every verb here can open.

    Example: medisyn pack data/open -o data/packed
    """
    from medisyn.data import packed
    n = packed.pack(collection, out, shard_mib, ticker("pack"))
    tell(f"wrote {n:,} records to {out}; next: datasets.load_dataset(\"parquet\", data_dir=\"{out}\")")


@app.command()
def unpack(packed: Annotated[Path, typer.Argument(help="A folder that `medisyn pack` wrote.")], out: Out) -> None:
    """Write a packed collection as files again: metadata.jsonl beside images/.

    Example: medisyn unpack data/packed -o data/open
    """
    from medisyn.data import packed as shards
    n = shards.unpack(packed, out, ticker("unpack"))
    tell(f"wrote {n:,} records to {out}; next: medisyn check {out}")


@app.command()
def check(collection: Annotated[Path, typer.Argument(help="A folder with metadata.jsonl.")],
          page: Annotated[Path | None, typer.Option(help="Also draw what is in it, as one HTML page.")] = None,
          real_images: Annotated[bool, typer.Option(help="Whether that page may show images of patients.")] = True,
          look: Annotated[bool, typer.Option("--look", help="Open and compare images that ingest left no notes of.")] = False,
          as_json: Json = False) -> None:
    """Look for missing images, unknown words, and patients and pictures that cross splits. Exit 1 when there are any.

    Example: medisyn check data/open --page out/open.html
    """
    from medisyn.data.check import check as problems_of
    problems = problems_of(collection, look, ticker("look") if look else None)
    show(problems) if as_json else [print(problem) for problem in problems]
    if page is not None:
        from medisyn.data import overview
        tell(f"wrote {overview.write(collection, page, problems, real_images=real_images)}")
    tell(f"{len(problems)} problems in {collection}")
    if problems:
        raise typer.Exit(1)


@app.command()
def understand(prompt: str, model: ModelFolder = None, as_json: Json = False) -> None:
    """Say what a prompt is understood to ask for, what is not, and how many training images support it.

    Example: medisyn understand "CXR, 4 y/o boy, viral pneumonia, no effusion"
    """
    import dataclasses

    from medisyn import shipped
    from medisyn.data import learnt, prompts
    from medisyn.data.understanding import nearest_known
    home = shipped.folder(model)
    table = learnt.support_of(home)
    if model is not None and table is None:
        raise FileNotFoundError(f"{model} is not a MediSyn model: it should hold support.json")
    understood = prompts.understand(prompt, table, learnt.words_of(home))
    if as_json:
        return show(dataclasses.asdict(understood) | {"not_understood": list(understood.not_understood)})
    print(prompts.sentence(understood))
    if understood.support == 0 and table:
        print(f"nearest known: {nearest_known(understood, table)}")
