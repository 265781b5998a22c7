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
          stages: Annotated[str | None, typer.Option(help="Only these: text,vae,latents,decoder,dit,model,guard.")] = None,
          dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained and stop.")] = False) -> None:
    """Train a model by a recipe: text encoder, autoencoder, latents, denoiser, model folder.

    Example: medisyn train recipes/medisyn-xs.toml -o out/run --set dit.n_images=300_000

    On two cores: torchrun --nproc-per-node 2 -m medisyn train recipes/medisyn-xs.toml -o out/run
    """
    from medisyn import recipe as recipes
    from medisyn.training import stages as training
    settings = recipes.read(recipe, changes or [])
    if isinstance(settings, recipes.EyeRecipe):
        return train_eye(settings, out, resume, stages, dry_run)
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


def train_eye(settings: Any, out: Path, resume: str, stages: str | None, dry_run: bool) -> None:
    """A recipe of kind "eye" has one stage, and is resumed where its folder stands."""
    from medisyn.training import eye, run
    if stages or resume not in ("auto", "never"):
        raise typer.BadParameter("an eye is trained in one stage; --stages and --resume FOLDER are for generators")
    if dry_run:
        return [print(line) for line in eye.outlook(settings)] and None
    made = eye.run(settings, out, resume != "never")
    if made is not None and run.rank() == 0:
        tell(f"wrote {made}; next: give it to `medisyn evaluate` as the extractor eye:{made}")


@app.command()
def generate(prompt: Annotated[str | None, typer.Argument(help="A clinical sentence, in your own words.")] = None,
             n: Annotated[int, typer.Option("-n", min=1, help="Images a prompt.")] = 4,
             seed: Annotated[int, typer.Option(min=0, help="Of the first image; the next ones count on.")] = 0,
             out: Out = Path("out/images"),
             prompts_file: Annotated[Path | None, typer.Option("--prompts", help="CSV: prompt, and where wanted n, seed.")] = None,
             model: ModelFolder = None,
             steps: Annotated[int | None, typer.Option(help="Sampling steps; left out: the model's own.")] = None,
             guidance: Annotated[float | None, typer.Option(help="1 follows the prompt plainly, 2 to 4 harder.")] = None,
             guard: Annotated[str | None, typer.Option(help="block what is too alike to a training image, flag it, or off; "
                                                            "left out: block where the model has a guard.")] = None,
             strict: Annotated[bool, typer.Option("--strict", help="A warning about a prompt is an error.")] = False,
             sheet: Annotated[str, typer.Option(help="File name of the overview picture.")] = "contact-sheet.png",
             as_json: Json = False) -> None:
    """Make images of a sentence: a collection with provenance, and an overview picture.

    Example: medisyn generate "dermoscopy of a melanoma" -n 8 --seed 7 -o out/melanoma
    """
    if (prompt is None) == (prompts_file is None):
        raise typer.BadParameter("give one prompt, or --prompts FILE.csv", param_hint="PROMPT")
    import dataclasses

    import medisyn
    from medisyn import synthesizer
    asked = [(prompt, n, seed)] if prompt is not None else synthesizer.read_prompts(prompts_file, n, seed)
    if guard not in (None, "block", "flag", "off"):
        raise typer.BadParameter(f"expected block, flag or off, found {guard!r}", param_hint="--guard")
    maker = medisyn.load(model)
    guard, accept, index = guard_of(model or synthesizer.SHIPPED, guard)
    plans = announce(maker, [p for p, _, _ in asked], strict)
    total, rows, refused = sum(count for _, count, _ in asked), [], []
    tick = ticker("generate")
    making = synthesizer.make_all(maker, plans, asked, out, steps, guidance, accept, guard == "block", index)
    for made in synthesizer.write(making, out):
        if isinstance(made, synthesizer.Refused):
            refused.append({"prompt": made.how.prompt, "seed": made.how.seed, "tries": len(made.verdicts), "reason": made.reason})
            tell(f"guard: {made.reason}")
        else:
            said = made.record.provenance.guard
            rows.append({"file": str(out / made.record.file_name), "prompt": made.record.text, "image_type": made.record.image_type,
                         "findings": made.record.findings, "seed": made.record.provenance.seed,
                         "guard": dataclasses.asdict(said) if said else None})
        tick(len(rows) + len(refused), total)
    if refused and not rows:
        raise RuntimeError(f"all {len(refused)} images were refused by the guard; try other seeds or a lower guidance")
    overview = synthesizer.contact_sheet(out, sheet, f"{maker.model.card.name}: synthetic images")
    summary = {"mode": guard, "blocked": sum(r["guard"]["blocked"] for r in rows if r["guard"]) + sum(r["tries"] for r in refused),
               "flagged": sum(r["guard"]["verdict"] == "flagged" for r in rows if r["guard"]), "refused": refused}
    if as_json:
        return show({"out": str(out), "sheet": str(overview), "guard": summary, "images": rows})
    print(f"{len(rows)} images in {out}; overview: {overview}")
    if accept is not None:
        told = (f"{summary['blocked']} blocked and drawn again, {len(refused)} refused" if guard == "block"
                else f"{summary['flagged']} flagged as too alike to a training image")
        print(f"guard: {told}")
    if rows:
        tell(f"next: medisyn verify {rows[0]['file']}")


def guard_of(model: Path, mode: str | None) -> tuple[str, Any, str | None]:
    """What to do with copies, the function that finds them, and the digest of its index; says so where there is none."""
    home = model / "guard"
    if mode == "off":
        return "off", None, None
    if not (home / "guard.json").is_file():
        if mode:
            raise FileNotFoundError(f"--guard {mode} expects an index in {home}; build it with `medisyn train --stages guard`, "
                                    "or pass --guard off")
        tell(f"guard: off, {model.name} holds no index of its training images")
        return "off", None, None
    from medisyn.evaluation import guard as guards
    return mode or "block", guards.load(home), guards.digest(home)


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


@app.command()
def evaluate(real: Annotated[str, typer.Option(help="What the maker was trained on: a collection, COLLECTION:train, "
                                                    "a folder of images with a CSV, or of images.")],
             unseen: Annotated[str, typer.Option(help="Real images of other patients, such as COLLECTION:test.")],
             synthetic: Annotated[str, typer.Option(help="The set to judge: anybody's, in any of these forms.")],
             out: Out,
             only: Annotated[str | None, typer.Option(help="validity,fidelity,alignment,novelty,utility,cost.")] = None,
             features: Annotated[str, typer.Option(help="Extractors, comma-separated: eye,dinov2:/folder,...")] = "eye",
             task: Annotated[list[str] | None, typer.Option(help="A task of utility; left out: one an image type.")] = None,
             n: Annotated[int, typer.Option("-n", help="Real images of utility's arm `real n`.")] = 200,
             seeds: Annotated[int, typer.Option(help="Classifiers an arm of utility.")] = 5,
             seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
             no_real_images: Annotated[bool, typer.Option("--no-real-images", help="Show no patient's image.")] = False,
             as_json: Json = False) -> None:
    """Judge a synthetic set: report.html and report.json, each figure with interval, n and real-against-real floor.

    Finished parts are kept in REPORT/cache: the same command goes on where it was stopped.

    Example: medisyn evaluate --real data/open:train --unseen data/open:test --synthetic out/images -o out/report

    Quick:   medisyn evaluate ... --only validity,novelty
    """
    from medisyn.evaluation import features as extractors
    from medisyn.evaluation import protocol, report, sets
    names = tuple(only.split(",")) if only else ()
    for name in names:
        if name not in protocol.PARTS:
            raise typer.BadParameter(f"expected parts of {', '.join(protocol.PARTS)}; found {name!r}", param_hint="--only")
    found = sets.open_sets(real, unseen, synthetic, ticker("reading"))
    ticks: dict[str, Any] = {}
    asked = protocol.Asked(found, out, tuple(extractors.load(name) for name in features.split(",")), seed, tuple(task or ()), n,
                           seeds, not no_real_images, lambda part, k, of: ticks.setdefault(part, ticker(part))(k, of))
    out.mkdir(parents=True, exist_ok=True)
    parts = protocol.judge(asked, names, tell)
    where = {"train": real, "unseen": unseen, "synthetic": synthetic}
    page = report.write(asked, parts, where)
    told = report.as_dict(asked, parts, where)
    if as_json:
        return show(told)
    for one in told["findings"]:
        print(f"{'!' if one['grave'] else '-'} {one['text']}")
    tell(f"wrote {page} and {out / 'report.json'}; next: open {page} in a browser")


@app.command()
def utility(real: Annotated[str, typer.Option(help="Real images to learn from: a collection, or COLLECTION:train.")],
            unseen: Annotated[str, typer.Option(help="Real images of other patients to be tested on, such as COLLECTION:test.")],
            synthetic: Annotated[str, typer.Option(help="The synthetic images: a collection, or a folder with a CSV.")],
            out: Out,
            task: Annotated[list[str] | None, typer.Option(help="Several may be given; left out: one an image type.")] = None,
            n: Annotated[int, typer.Option("-n", min=2, help="Real images of the arm `real n`.")] = 200,
            seeds: Annotated[int, typer.Option(min=1, help="Classifiers an arm.")] = 5,
            steps: Annotated[int, typer.Option(min=1, help="Batches that every classifier learns from.")] = 400,
            side: Annotated[int, typer.Option(help="Pixels a side, a multiple of 4.")] = 64,
            as_json: Json = False) -> None:
    """Measure what classifiers learn from synthetic images: arms of real, mixed and synthetic, tested on unseen patients.

    Stopped, it goes on where it was: each finished classifier is a line of OUT/trials.jsonl.

    Example: medisyn utility --real data/open:train --unseen data/open:test --synthetic out/many --task blood_smear/cell
    -n 200 -o out/utility
    """
    from medisyn.evaluation import classifier, sets, utility
    if side < 16 or side % 4:
        raise typer.BadParameter(f"expected a multiple of 4 from 16 on, found {side}", param_hint="--side")
    found = sets.open_sets(real, unseen, synthetic, ticker("reading"))
    rows, outcomes = utility.study(found, names=task or (), cache=out, n=n, seeds=seeds, progress=ticker("classifiers"),
                                   settings=classifier.Settings(side=side, steps=steps))
    path = utility.write(rows, outcomes, out)
    if as_json:
        return show({"out": str(out), "tasks": [utility.as_dict(o) for o in outcomes], "estimates": [r.as_dict() for r in rows]})
    for row in rows:
        if row.name in ("utility_balanced_accuracy", "tstr_accuracy", "data_equivalence"):
            print(f"{row.name:<26} {row.group:<60} {row.text}" + (f" ({row.note})" if row.name == "data_equivalence" else ""))
    tell(f"wrote {path}, and a learning curve a task beside it")


@app.command()
def select(synthetic: Annotated[str, typer.Argument(help="Synthetic images: a collection, or a folder with a CSV.")],
           out: Out,
           real: Annotated[str, typer.Option(help="What the maker was trained on, such as COLLECTION:train.")],
           unseen: Annotated[str, typer.Option(help="Real images of other patients, such as COLLECTION:test.")],
           per_class: Annotated[int, typer.Option(min=1, help="At most so many images of each class.")],
           steps: Annotated[int, typer.Option(min=1, help="Batches that the classifier learns from.")] = 2500,
           as_json: Json = False) -> None:
    """Keep the synthetic images that show their sentence, copy no training image, and differ from each other.

    OUT is a collection; OUT/rejected.jsonl says of every other image why not.

    Example: medisyn select out/many -o out/chosen --real data/open:train --unseen data/open:test --per-class 50
    """
    import dataclasses

    from medisyn.evaluation import concepts, selection, sets
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; give a new folder with -o")
    found = sets.open_sets(real, unseen, synthetic, ticker("reading"))
    settings = dataclasses.replace(concepts.SETTINGS, steps=steps)
    verdicts = selection.judge(found, per_class, settings=settings, cache=out.with_name(f"{out.name}-cache"),
                               progress=ticker("classifier"))
    told = selection.write(found.synthetic, verdicts, out)
    if as_json:
        return show(told)
    print(f"kept {told['kept']} of {told['images']}; held back: "
          + ", ".join(f"{n} by {sieve}" for sieve, n in told["rejected"].items()))
    for name, n in told["classes"].items():
        print(f"{n:>6}  {name}")
    tell(f"wrote {out}; {out}/rejected.jsonl says why the others were held back")


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
