"""Verbs of making: sentences become images, an image is made again."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medisyn.cli.app import Backend, Json, ModelFolder, Out, app, show, tell, ticker


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
             engine: Annotated[str | None, typer.Option(help="For many images: processes of this machine, ray (a cluster started "
                                                             "here), or ray:HOST:PORT; left out: this process.")] = None,
             backend: Backend = "torch",
             as_json: Json = False) -> None:
    """Make images of a sentence: a collection with provenance, and an overview picture.

    Example: medisyn generate "dermoscopy of a melanoma" -n 8 --seed 7 -o out/melanoma

    In bulk: medisyn generate --prompts many.csv --engine ray:10.0.0.1:6379 -o /shared/images
    """
    if (prompt is None) == (prompts_file is None):
        raise typer.BadParameter("give one prompt, or --prompts FILE.csv", param_hint="PROMPT")
    import dataclasses

    import medisyn
    from medisyn import making, shipped, synthesizer
    from medisyn.evaluation import cost
    asked = [(prompt, n, seed)] if prompt is not None else making.read_prompts(prompts_file, n, seed)
    if guard not in (None, "block", "flag", "off"):
        raise typer.BadParameter(f"expected block, flag or off, found {guard!r}", param_hint="--guard")
    run_on, address = engine_of(engine)
    maker = medisyn.load(model, backend)
    guard, accept, index = guard_of(shipped.folder(model), guard)
    plans = announce(maker, [p for p, _, _ in asked], strict)
    total, rows, refused = sum(count for _, count, _ in asked), [], []
    tick = ticker("generate")
    there = {path.stem for path in (out / "images").glob("*.png")}
    stop = cost.clock()
    many, order = None, []
    if run_on is not None:
        from medisyn import bulk
        named = model is None or shipped.is_name(model)   # found by its name wherever it lies there
        where = model and str(model if named else model.absolute())
        opening = bulk.Opening(where, maker.model.digest, index, guard == "block", backend)
        many = bulk.many(opening, run_on, address, order)
    coming = making.make_all(maker, plans, asked, out, steps, guidance, accept, guard == "block", index, many)
    for made in making.write(coming, out):
        if isinstance(made, synthesizer.Refused):
            refused.append({"prompt": made.how.prompt, "seed": made.how.seed, "tries": len(made.verdicts), "reason": made.reason})
            tell(f"guard: {made.reason}")
        else:
            said = made.record.provenance.guard
            rows.append({"file": str(out / made.record.file_name), "prompt": made.record.text, "image_type": made.record.image_type,
                         "findings": made.record.findings, "seed": made.record.provenance.seed,
                         "guard": dataclasses.asdict(said) if said else None})
        tick(len(rows) + len(refused), total)
    if order:
        making.put_in_order(out, order)
    cost.note(out, stop(sum(Path(row["file"]).stem not in there for row in rows)))
    if refused and not rows:
        raise RuntimeError(f"all {len(refused)} images were refused by the guard; try other seeds or a lower guidance")
    overview = making.contact_sheet(out, sheet, f"{maker.model.card.name}: synthetic images")
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


def engine_of(word: str | None) -> tuple[str | None, str | None]:
    """The engine that makes the images, and the address of its cluster; None: this process."""
    if word is None or word in ("processes", "ray"):
        return word, None
    if word.startswith("ray://"):
        return "ray", word
    if word.startswith("ray:") and len(word) > 4:
        return "ray", word[4:]
    raise typer.BadParameter(f"expected processes, ray, ray:HOST:PORT or ray://HOST:PORT, found {word!r}", param_hint="--engine")


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


def told(found: dict, backend: str | None) -> str:
    """What `making.compare` found, in a line."""
    if found["same"]:
        return "the same image, pixel for pixel"
    if found["rounding"]:
        return (f"the same image but for rounding: {found['differing']:.4%} of its values lie a level of 255 apart, "
                "as another CPU or another version of torch leaves them")
    hint = "; bf16 images are the same on CPUs of one kind alone" if backend == "openvino-bf16" else ""
    return f"DIFFERS: {found['differing']:.2%} of the pixels, by up to {found['largest']} of 255 levels{hint}"


@app.command()
def verify(file: Annotated[Path, typer.Argument(help="A PNG made by `medisyn generate`.")], model: ModelFolder = None,
           as_json: Json = False) -> None:
    """Read the provenance in a PNG, make the image again and compare. Exit 1 when it differs by more than rounding.

    On the same machine it is the same pixel for pixel; another CPU or another version of torch rounds a few values by one level.

    Example: medisyn verify out/first/images/0123456789abcdef.png
    """
    import medisyn
    from medisyn import making, shipped
    from medisyn.data import images
    made = images.read_provenance(file)
    if made is None:
        raise ValueError(f"{file} carries no provenance: it was not made by medisyn, or was stripped on its way")
    if model is None and shipped.is_name(made.model_name):
        model = made.model_name
    found = making.compare(medisyn.load(model, made.backend or "torch"), file, made)
    if as_json:
        show({"file": str(file), "provenance": made.as_dict(), **found})
    else:
        for name, value in made.as_dict().items():
            print(f"{name:<11} {value}")
        print(told(found, made.backend))
    if not (found["same"] or found["rounding"]):
        raise typer.Exit(1)
