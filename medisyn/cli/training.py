"""Verbs of training: a recipe becomes a model, a model gets its card."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from medisyn.cli.app import Backend, Out, app, tell, ticker


@app.command()
def train(recipe: Annotated[Path, typer.Argument(help="A TOML file; recipes/ has examples.")],
          out: Out,
          changes: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: table.key=value.")] = None,
          resume: Annotated[str, typer.Option(help="auto, never, or another run folder to go on from.")] = "auto",
          stages: Annotated[str | None, typer.Option(help="Only these, by commas; a wrong one is told which there are.")] = None,
          track: Annotated[list[str] | None, typer.Option(help="Log to tensorboard, wandb, mlflow or trackio as well; "
                                                               "several by commas.")] = None,
          dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained and stop.")] = False) -> None:
    """Train a model by a recipe: from nothing, or (kind = "finetune") from a pretrained base.

    Example: medisyn train recipes/medisyn-xs.toml -o out/run --set dit.n_images=300_000

    On your own images: medisyn train recipes/finetune-few.toml -o out/mine --set 'data.collections=["data/mine"]'

    On two cores: torchrun --nproc-per-node 2 -m medisyn train recipes/medisyn-xs.toml -o out/run
    """
    from medisyn import recipe as recipes
    from medisyn.training import finetune
    from medisyn.training import stages as training
    settings, watched = recipes.read(recipe, changes or []), watching(track or [], out, resume)
    if isinstance(settings, recipes.EyeRecipe):
        return train_eye(settings, out, resume, stages, dry_run, watched)
    trainer = finetune if isinstance(settings, recipes.FinetuneRecipe) else training
    wanted = tuple(stages.split(",")) if stages else trainer.STAGES
    for name in wanted:
        if name not in trainer.STAGES:
            raise typer.BadParameter(f"unknown stage {name!r}; the stages are {', '.join(trainer.STAGES)}", param_hint="--stages")
    if dry_run:
        return [print(line) for line in trainer.outlook(settings)] and None
    if resume not in ("auto", "never"):
        training.adopt(Path(resume), out)
    from medisyn.training import ranks
    with watched(settings):
        made = trainer.run(settings, out, wanted, resume != "never")
    if made is not None and training.rank() == 0:
        tell(f"wrote {made}; next: medisyn generate \"chest X-ray\" -n 4 --model {made} -o out/first")
    ranks.leave()


def watching(words: list[str], out: Path, resume: str) -> Callable[[Any], AbstractContextManager[None]]:
    """Settings -> what trains within is tracked; says before anything begins what cannot be."""
    import os

    from medisyn.training import tracking
    try:
        names = tracking.chosen(words)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--track") from None
    return lambda settings: tracking.tracked(out, names, settings.model_dump(mode="json"), os.environ, resume != "auto")


def train_eye(settings: Any, out: Path, resume: str, stages: str | None, dry_run: bool, watched: Callable) -> None:
    """A recipe of kind "eye" has one stage, and is resumed where its folder stands."""
    from medisyn.training import eye, run
    if stages or resume not in ("auto", "never"):
        raise typer.BadParameter("an eye is trained in one stage; --stages and --resume FOLDER are for generators")
    if dry_run:
        return [print(line) for line in eye.outlook(settings)] and None
    with watched(settings):
        made = eye.run(settings, out, resume != "never")
    if made is not None and run.rank() == 0:
        tell(f"wrote {made}; next: give it to `medisyn evaluate` as the extractor eye:{made}")


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
def solver(model: Annotated[Path, typer.Argument(help="A model folder, or the name of one that ships; gets a solver.json.")],
           steps: Annotated[int, typer.Option(min=2, max=50, help="The number of steps to fit.")] = 8,
           images: Annotated[int, typer.Option("--images", "-n", min=8, help="Images to fit to; every fourth only tells how near "
                                                                             "it comes.")] = 120,
           shift: Annotated[float | None, typer.Option(min=0.1, help="Of its times towards noise; left out: 1.5 times the "
                                                                     "model's own.")] = None,
           backend: Backend = "torch") -> None:
    """Fit a sampler of few steps to a model: `generate --steps 8` then comes nearer to what many steps give, at no cost.

    Its images in so many steps are others afterwards, and say so; all other numbers of steps give the same ones. Two cores take a
    quarter of an hour for MediSyn-S.

    Example: medisyn solver out/run/model --steps 8
    """
    import os

    from medisyn import shipped, synthesizer
    from medisyn.models import solver as solvers
    from medisyn.training import solver as fitting
    home = shipped.folder(model)
    maker = synthesizer.load(home, backend)
    if not os.access(home, os.W_OK):
        raise RuntimeError(f"{home} cannot be written, so no {solvers.FILE} could lie there; copy the folder and name the copy")
    found = fitting.fitted(maker, steps, images, shift, ticker("solver"))
    tell(f"{steps} steps end {found.distance:.3f} of the latents' spread from {fitting.EXACT * steps} steps, where split_multistep "
         f"ends {found.plain_distance:.3f} ({found.n_held} images that were not learnt from)")
    if found.distance >= found.plain_distance:
        raise RuntimeError(f"the fitted steps come no nearer, so {home / solvers.FILE} was not changed; try more --images or "
                           "another --shift")
    tell(f"wrote {solvers.write(home, {**maker.model.solvers, steps: found.solver})}; next: medisyn generate \"chest X-ray\" "
         f"--steps {steps} --model {model} -o out/first")
