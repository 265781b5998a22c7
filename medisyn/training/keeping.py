"""Keeping: what a fine-tuning leaves: its weights in the run, and a model folder that others open.

    MODEL/medisyn.json  support.json  training_data.json  README.md  LICENSE    as of every MediSyn model
    MODEL/base.json                                       which base it rests on; none where the base was MediSyn's own
    MODEL/pytorch_lora_weights.safetensors                low-rank updates alone, in diffusers' format; or
    MODEL/unet/ vae/ ...                                  all of a base of which all was taught, as diffusers writes it

A MediSyn model that was taught is again a MediSyn model folder: what it learnt is part of its weights.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from medisyn.data.records import Record
from medisyn.data.understanding import support_table
from medisyn.models import adapters, checkpoint
from medisyn.models.bases import Base
from medisyn.models.checkpoint import Card
from medisyn.painters import BASE
from medisyn.release import card as card_of_model
from medisyn.training import adapt
from medisyn.training.adapt import Tuned
from medisyn.training.finetune_settings import FinetuneRecipe
from medisyn.training.run import Stage, write_json
from medisyn.training.stages import training_data
from medisyn.training.watch import Watch


def keep(stage: Stage, state: dict[str, Tensor], watch: Watch) -> None:
    """The weights that learnt, beside the stage's checkpoints."""
    save_file({name: value.contiguous().clone() for name, value in state.items()}, stage.folder / "network.safetensors")
    stage.finish({"told": watch.told(), "best_at": int(watch.best_at), "held_out": float(watch.lowest),
                  "before": dict(zip(("train", "held_out"), watch.before.tolist(), strict=True)), "memorising": watch.published()})


def restore(stage: Stage, tuned: Tuned) -> None:
    """Put them back into the networks."""
    tuned.load_state_dict(load_file(stage.folder / "network.safetensors"))


def found_again(source: str) -> str:
    """A base by the name under which it is found from anywhere: a folder's absolute path, or a hub id as it is."""
    folder = Path(source).expanduser()
    return str(folder.absolute()) if folder.is_dir() else source


def alone(recipe: FinetuneRecipe, base: Base) -> bool:
    """Whether what was learnt is written alone, and rests on a base that stays as it is."""
    return base.family != "medisyn" and recipe.method.train == "lora" and "projection" not in base.networks


def export(recipe: FinetuneRecipe, base: Base, known: Sequence[Record], side: int, out: Path) -> Path:
    """The base as it was taught, as a model folder."""
    out.mkdir(parents=True, exist_ok=True)
    settings, train = recipe.model, [r for r in known if r.split == "train"]
    done = json.loads((out.parent / "tune" / "done.json").read_text())
    n_images = min(recipe.tune.n_images, done["best_at"])
    card = Card(settings.name, side, settings.steps, settings.guidance, settings.sampler, settings.licence, n_images,
                settings.shift, base=f"{base.family} {Path(recipe.base).name} ({base.digest[:19]})")
    support, data = [[*row, {}] for row in support_table(train)], training_data(train)
    if base.family == "medisyn":
        for name in base.networks:
            adapt.merged(base.networks[name])
        base.save(out)
        before = Path(base.source)
        old = checkpoint.settings_from(Card, json.loads((before / "medisyn.json").read_text()), before / "medisyn.json")
        card = dataclasses.replace(card, n_images=old.n_images + n_images, shift=old.shift, guided=old.guided, texture=old.texture,
                                   guidance_from=settings.guidance_from, guidance_until=settings.guidance_until,
                                   guidance_since=old.guidance_since, guidance_along=old.guidance_along,
                                   base=f"{old.name} ({base.digest[:19]})")
        support = json.loads((before / "support.json").read_text(encoding="utf-8")) + support
        if (before / "training_data.json").is_file():
            data = json.loads((before / "training_data.json").read_text(encoding="utf-8")) + data
    else:
        lora = alone(recipe, base)
        if lora:
            adapters.save(base, recipe.method.tokens, out)
        else:
            for name in base.networks:
                adapt.merged(base.networks[name])
            base.save(out)
        write_json(out / BASE, {"family": base.family, "source": found_again(recipe.base), "digest": base.digest, "adapters": lora,
                                "words": list(recipe.method.tokens)})
    checkpoint.put_json(out / "medisyn.json", dataclasses.asdict(card))
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in support)
    (out / "support.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    write_json(out / "training_data.json", data)
    write_json(out / card_of_model.MEMORISING, done["memorising"])
    card_of_model.write(out)
    return out

