"""Verbs of judging: collections become reports, classifiers, and chosen sets."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medisyn.cli.app import Json, Out, app, show, tell, ticker


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
             run: Annotated[Path | None, typer.Option(help="The maker's training folder, for what it cost.")] = None,
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
    asked = protocol.Asked(found, out, tuple(extractors.load(name) for name in features.split(",")), 0, tuple(task or ()), n,
                           seeds, run, not no_real_images, lambda part, k, of: ticks.setdefault(part, ticker(part))(k, of))
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
