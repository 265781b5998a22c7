"""The command line: a verb an arrow. Parse, call, print; imports inside the verb, so that --help is instant."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="MediSyn: from a clinical sentence to a medical image, and back to the data it came from.\n\n"
                       "Try first: medisyn generate \"chest X-ray of a child with pneumonia\" -n 4 -o out/first")

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")]
ModelFolder = Annotated[Path | None, typer.Option("--model", help="A model folder; left out: the model that ships.")]


def main() -> None:
    """Run a verb; exit 0 done, 1 the work failed, 2 wrong usage."""
    try:
        app(standalone_mode=True)
    except (ValueError, FileNotFoundError, RuntimeError, OSError) as error:
        tell(f"medisyn: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        tell("medisyn: stopped")
        sys.exit(130)


def tell(text: str) -> None:
    """A line for people: stderr."""
    print(text, file=sys.stderr, flush=True)


def show(value: Any) -> None:
    """A JSON document for programs: stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


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
    home = model or Path(__file__).parent / "weights" / "medisyn-xs"
    path = home / "support.json"
    if model is not None and not path.is_file():
        raise FileNotFoundError(f"{model} is not a MediSyn model: it should hold support.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


@app.command()
def train(recipe: Annotated[Path, typer.Argument(help="A TOML file; recipes/ has examples.")],
          out: Out,
          changes: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: table.key=value.")] = None,
          resume: Annotated[str, typer.Option(help="auto, never, or another run folder to go on from.")] = "auto",
          stages: Annotated[str | None, typer.Option(help="Only these, comma-separated: text,vae,latents,dit,model.")] = None,
          dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained and stop.")] = False) -> None:
    """Train a model by a recipe: text encoder, autoencoder, latents, denoiser, model folder.

    Example: medisyn train recipes/medisyn-xs.toml -o out/run --set dit.n_images=300_000

    On two cores: torchrun --nproc-per-node 2 -m medisyn train recipes/medisyn-xs.toml -o out/run
    """
    from medisyn import recipe as recipes
    from medisyn.training import stages as training
    settings = recipes.read(recipe, changes or [])
    wanted = tuple(stages.split(",")) if stages else training.STAGES
    for name in wanted:
        if name not in training.STAGES:
            raise typer.BadParameter(f"unknown stage {name!r}; the stages are {', '.join(training.STAGES)}", param_hint="--stages")
    if dry_run:
        return [print(line) for line in training.outlook(settings)] and None
    if resume not in ("auto", "never"):
        training.adopt(Path(resume), out)
    made = training.run(settings, out, wanted, resume != "never")
    if made is not None and training.rank() == 0:
        tell(f"wrote {made}; next: medisyn generate \"chest X-ray\" -n 4 --model {made} -o out/first")


@app.command()
def generate(prompt: Annotated[str | None, typer.Argument(help="A clinical sentence, in your own words.")] = None,
             n: Annotated[int, typer.Option("-n", min=1, help="Images a prompt.")] = 4,
             seed: Annotated[int, typer.Option(min=0, help="Of the first image; the next ones count on.")] = 0,
             out: Out = Path("out/images"),
             prompts_file: Annotated[Path | None, typer.Option("--prompts", help="CSV: prompt, and where wanted n, seed.")] = None,
             model: ModelFolder = None,
             steps: Annotated[int | None, typer.Option(help="Sampling steps; left out: the model's own.")] = None,
             guidance: Annotated[float | None, typer.Option(help="1 follows the prompt plainly, 2 to 4 harder.")] = None,
             strict: Annotated[bool, typer.Option("--strict", help="A warning about a prompt is an error.")] = False,
             sheet: Annotated[str, typer.Option(help="File name of the overview picture.")] = "contact-sheet.png",
             as_json: Json = False) -> None:
    """Make images of a sentence: a collection with provenance, and an overview picture.

    Example: medisyn generate "dermoscopy of a melanoma" -n 8 --seed 7 -o out/melanoma
    """
    if (prompt is None) == (prompts_file is None):
        raise typer.BadParameter("give one prompt, or --prompts FILE.csv", param_hint="PROMPT")
    import medisyn
    from medisyn import synthesizer
    asked = [(prompt, n, seed)] if prompt is not None else synthesizer.read_prompts(prompts_file, n, seed)
    maker = medisyn.load(model)
    plans = announce(maker, [p for p, _, _ in asked], strict)
    total, rows = sum(count for _, count, _ in asked), []
    tick = ticker("generate")
    for made in synthesizer.write(synthesizer.make_all(maker, plans, asked, out, steps, guidance), out):
        rows.append({"file": str(out / made.record.file_name), "prompt": made.record.text, "image_type": made.record.image_type,
                     "findings": made.record.findings, "seed": made.record.provenance.seed})
        tick(len(rows), total)
    overview = synthesizer.contact_sheet(out, sheet, f"{maker.model.card.name}: synthetic images")
    if as_json:
        return show({"out": str(out), "sheet": str(overview), "images": rows})
    print(f"{len(rows)} images in {out}; overview: {overview}")
    if rows:
        tell(f"next: medisyn verify {rows[0]['file']}")


def announce(maker: Any, asked: list[str], strict: bool) -> dict:
    """Say of each prompt what was understood; with `strict`, a doubt is an error."""
    from medisyn.data.prompts import sentence
    plans = {text: maker.plan(text) for text in dict.fromkeys(asked)}
    for plan in plans.values():
        tell(sentence(plan.understood))
        for warning in plan.warnings:
            if strict:
                raise ValueError(f"{warning}; leave --strict out to make it all the same")
            tell(f"warning: {warning}")
    return plans


@app.command()
def card(model: Annotated[Path, typer.Argument(help="A model folder.")],
         figures: Annotated[Path | None, typer.Option(help="A folder of tables (*.md) to include.")] = None) -> None:
    """Write the model card and the licence of a model folder anew, with tables of figures where there are some.

    Example: medisyn card out/medisyn-xs/model --figures docs/figures
    """
    from medisyn.release import card as cards
    if not (model / "medisyn.json").is_file():
        raise FileNotFoundError(f"{model} is not a MediSyn model: it should hold medisyn.json; train one with `medisyn train`")
    tell(f"wrote {cards.write(model, figures)}")


@app.command()
def verify(file: Annotated[Path, typer.Argument(help="A PNG made by `medisyn generate`.")], model: ModelFolder = None,
           as_json: Json = False) -> None:
    """Read the provenance in a PNG, make the image again and compare. Exit 1 when it differs.

    Example: medisyn verify out/first/images/0123456789abcdef.png
    """
    import medisyn
    from medisyn import synthesizer
    from medisyn.data import images
    made = images.read_provenance(file)
    if made is None:
        raise ValueError(f"{file} carries no provenance: it was not made by medisyn, or was stripped on its way")
    found = synthesizer.compare(medisyn.load(model), file, made)
    if as_json:
        show({"file": str(file), "provenance": made.as_dict(), **found})
    else:
        for name, value in made.as_dict().items():
            print(f"{name:<11} {value}")
        print("the same image, pixel for pixel" if found["same"] else
              f"DIFFERS: {found['differing']:.2%} of the pixels, by up to {found['largest']} of 255 levels")
    if not found["same"]:
        raise typer.Exit(1)


def ticker(name: str) -> Any:
    """Progress as a bar on a terminal, else a plain line now and then."""
    import time
    last = [0.0]

    def tick(done: int, total: int) -> None:
        if sys.stderr.isatty():
            filled = 30 * done // max(total, 1)
            print(f"\r{name}: {'#' * filled}{'.' * (30 - filled)} {done:,}/{total:,}", end="\n" if done == total else "",
                  file=sys.stderr, flush=True)
        elif done == total or time.monotonic() - last[0] > 10:
            last[0] = time.monotonic()
            tell(f"{name}: {done:,} of {total:,}")
    return tick
