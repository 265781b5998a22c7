"""Fine-tuning: a pretrained base and a group's own images become a model, one stage after the other.

    cache     images -> latents, sentences -> what the denoiser is told; once
    prior     what the base could do before, made by itself; where the recipe asks for it
    tune      the weights that learn
    model     a model folder that `medisyn generate` and diffusers open
    guard     an index of the training images, in the model folder
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medisyn import samplers, velocities
from medisyn.data import images, prompts, records, sheets, vocabulary
from medisyn.data.records import Record
from medisyn.models import bases
from medisyn.models.adapters import readers
from medisyn.models.bases import Base
from medisyn.training import adapt, batches, cache, device, finetune_needs, frozen, keeping, nearness, prior, tune
from medisyn.training.adapt import Tuned
from medisyn.training.finetune_settings import FinetuneRecipe
from medisyn.training.nearness import Near, Nearness
from medisyn.training.run import Stage, counter, join_ranks, rank, say, wait, world, write_json

STAGES = ("cache", "prior", "tune", "model", "guard")
PREVIEWED = 4   # sentences of the sample sheet
GUARD_SIDE = 144


def run(recipe: FinetuneRecipe, folder: Path, stages: Sequence[str] = STAGES, resume: bool = True) -> Path | None:
    """Do the stages in order; the model folder, or None where a signal stopped it or `model` was not asked for."""
    join_ranks()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    device.quicken(recipe.precision, recipe.compiled)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if rank() == 0:
        write_json(folder / "recipe.json", recipe.model_dump(mode="json"))
    where = device.pick(recipe.device)
    held = frozen.kind(recipe.method.frozen, where.type)
    base, tuned = begun(recipe, where, held)
    known = taught(recipe)
    side = recipe.image_size or base.image_size
    lesson = prepared(recipe, folder, base, known, side, where)
    base = frozen.hold(base, tuned.parameters(), ["vae"], held)   # from here on it only draws previews
    stage, shards = Stage(folder, "tune"), recipe.parallel == "sharded" and world() > 1
    if "tune" in stages and not (resume and stage.finished()):
        near = real_images(recipe, known, folder) if recipe.tune.nearest and (rank() == 0 or shards) else None
        fitted = tune.fit(stage, base, tuned, lesson, recipe.seed, side, recipe.method, recipe.tune, where, resume,
                          lambda: preview(recipe, base, known, side, where), shards,
                          near and (lambda: measure(near, recipe, base, known, side, where)))
        if fitted is None:
            return None
        watch, state = fitted
        if rank() == 0:
            keeping.keep(stage, state, watch)
            say(f"tune: {watch.told()}")
    elif stage.finished():
        say("tune: done before, passed over")
    wait()
    if rank() == 0 and {"model", "guard"} & set(stages):
        if not stage.finished():
            raise ValueError(f"stage tune is not finished in {folder}; run it first, or leave --stages out to run all in order")
        if "model" in stages:
            if shards or (held != torch.float32 and not keeping.alone(recipe, base)):  # what is written whole is not rounded
                del base, tuned
                base, tuned = begun(recipe, torch.device("cpu"), torch.float32)
            keeping.restore(stage, tuned)
            keeping.export(recipe, base, [r for _, r in known], side, folder / "model")
        if "guard" in stages:
            guard(recipe, known, folder)
    wait()
    return folder / "model" if {"model", "guard"} & set(stages) else None


def opened(recipe: FinetuneRecipe, where: torch.device) -> Base:
    """The base on its device in float32, with another text encoder where the recipe names one."""
    base = bases.load(keeping.found_again(recipe.base))
    return placed(bases.replace_text(base, recipe.text_encoder) if recipe.text_encoder else base, where)


def begun(recipe: FinetuneRecipe, where: torch.device, held: torch.dtype) -> tuple[Base, Tuned]:
    """The base on its device with what is to learn in it, all else held in a type, the autoencoder aside.

    That is small (84 M weights of SDXL's 3,400 M) and computes the latents that are learnt: they are made in float32.
    """
    base = opened(recipe, torch.device("cpu"))
    if recipe.tune.checkpointing:
        adapt.spare(base)
    tuned = adapt.thaw(base, recipe.method, recipe.seed)
    return placed(frozen.hold(base, tuned.parameters(), [base.denoiser, *readers(base)], held), where), tuned


def placed(base: Base, where: torch.device) -> Base:
    """The base, its networks moved to a device."""
    for network in base.networks.values():
        network.to(where)
        if where.type == "cuda":
            network.to(memory_format=torch.channels_last)  # on the CPUs tried it gave nothing
    return base


def taught(recipe: FinetuneRecipe) -> list[tuple[Path, Record]]:
    """The records of train and val with their collections' folders, as many as the recipe takes."""
    folders = [Path(c).expanduser().absolute() for c in recipe.data.collections]
    found = [(home, r) for home, r in records.merge(*folders) if r.split in ("train", "val")
             and (not recipe.data.image_types or r.image_type in recipe.data.image_types)]
    if not any(r.split == "train" for _, r in found):
        only = f" of image type {' or '.join(recipe.data.image_types)}" if recipe.data.image_types else ""
        raise ValueError(f"no training image{only} in {', '.join(map(str, folders))}; fine-tuning needs a collection made by "
                         "`medisyn ingest`")
    if recipe.data.n is None:
        return found
    train = [pair for pair in found if pair[1].split == "train"]
    order = batches.generator(recipe.seed, "few", 0).permutation(len(train))[:recipe.data.n]
    return [train[k] for k in sorted(order)] + [pair for pair in found if pair[1].split == "val"]


def words_of(recipe: FinetuneRecipe, exact: bool = False) -> Callable[[Record, np.random.Generator], str]:
    """How a record is put into a sentence: new words are said of the records that show their finding.

    exact: every fact in one fixed wording, instead of a drawn one.
    """
    tokens = recipe.method.tokens

    def words(record: Record, rng: np.random.Generator) -> str:
        said = [word for word, how in tokens.items() if record.findings.get(how.finding)]
        known = {name: seen for name, seen in record.findings.items() if name in vocabulary.TERMS}
        plain = dataclasses.replace(record, findings=known)
        text = prompts.canonical(plain) if exact else prompts.describe(plain, rng, drop=recipe.cache.drop_fact)
        return ", ".join([text, *said])
    return words


def prepared(recipe: FinetuneRecipe, folder: Path, base: Base, known: list[tuple[Path, Record]], side: int,
             where: torch.device) -> tune.Lesson:
    """The caches, filled by the first process and read by all."""
    what = cache.plan(known, base, side, recipe.seed, recipe.cache, words_of(recipe))
    reads = recipe.method.text or bool(recipe.method.tokens) or "projection" in base.networks
    if rank() == 0:
        cache.fill(folder / "cache", what, known, base, recipe.cache, where, not reads, counter("cache", 500))
    wait()
    own = cache.Cache(folder / "cache", what, recipe.cache.shard)
    lesson_records = [r for _, r in known]
    if not recipe.method.prior_images:
        return tune.Lesson(own, lesson_records, read=reads)
    steps, guidance = recipe.model.steps, recipe.model.guidance
    asked, styles = prior.plan(base, lesson_records, side, recipe.method.prior_images, steps, guidance, recipe.seed)
    if rank() == 0:
        prior.fill(folder / "prior", asked, styles, base, steps, guidance, recipe.seed, recipe.cache.shard, where,
                   counter("prior", 50))
    wait()
    return tune.Lesson(own, lesson_records, cache.Cache(folder / "prior", asked, recipe.cache.shard), torch.tensor(styles), reads)


@torch.no_grad()
def drawn(recipe: FinetuneRecipe, base: Base, texts: Sequence[str], side: int, where: torch.device) -> torch.Tensor:
    """An image for each sentence by the weights as they are, noises counted from 0: (n, 3, side, side) in [-1, 1], on the CPU."""
    times, found = velocities.times(base, 12, side).to(where), []
    for start in range(0, len(texts), 8):
        mine = list(texts[start:start + 8])
        shape = (base.latent_channels, side // base.factor, side // base.factor)
        noise = samplers.seeded_noise([start + k for k in range(len(mine))], shape).to(where)
        drive = samplers.guided(velocities.velocity(base, base.read(mine)), velocities.velocity(base, base.read([""] * len(mine))),
                                recipe.model.guidance)
        latent = samplers.multistep(drive, velocities.start(base, noise, times), times)
        found += [base.decode(one[None]).clamp(-1, 1).float().cpu() for one in latent]   # an autoencoder takes much memory
    return torch.cat(found)


def preview(recipe: FinetuneRecipe, base: Base, known: list[tuple[Path, Record]], side: int, where: torch.device) -> Image.Image:
    """Two images of each of a few sentences by the weights as they are: the run folder's sample sheet."""
    texts = list(dict.fromkeys(prompts.canonical(strip(r)) for _, r in known))
    texts = [texts[k] for k in np.linspace(0, len(texts) - 1, min(PREVIEWED, len(texts))).astype(int)]
    made = drawn(recipe, base, [text for text in texts for _ in range(2)], side, where)
    pictures = [images.to_picture(m.numpy()) for m in made]
    return sheets.sheet([(text, pictures[2 * k:2 * k + 2]) for k, text in enumerate(texts)], columns=2)


def measure(near: Nearness, recipe: FinetuneRecipe, base: Base, known: list[tuple[Path, Record]], side: int,
          where: torch.device) -> Near | None:
    """What images made for training images' sentences show, types in turns."""
    by_type = {kind: [r for _, r in known if r.split == "train" and r.image_type == kind] for kind in near.known}
    each = -(-recipe.tune.nearest // len(by_type))
    chosen = [of[k] for of in by_type.values() for k in np.linspace(0, len(of) - 1, min(each, len(of))).astype(int)]
    said = words_of(recipe, exact=True)
    made = drawn(recipe, base, [said(r, np.random.default_rng(0)) for r in chosen], side, where)
    gray = torch.tensor([vocabulary.IMAGE_TYPES[r.image_type].gray for r in chosen]).view(-1, 1, 1, 1)
    made = torch.where(gray, made.mean(1, keepdim=True).expand_as(made), made)
    squares = ((made + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    return near.look(squares, [r.image_type for r in chosen])


def real_images(recipe: FinetuneRecipe, known: list[tuple[Path, Record]], folder: Path) -> Nearness | None:
    """The group's images as `nearness` looks at them; None, and a sentence, where no image type can be compared."""
    found = nearness.of(lambda rows: squares([known[r] for r in rows]), [r.image_type for _, r in known],
                        [r.patient or r.id for _, r in known], [r.split == "train" for _, r in known], recipe.seed,
                        folder / "nearness.npz")
    if found is None:
        say(f"nearness: no image type has {nearness.FEWEST} val images of two patients, no nearest-neighbour ratio is followed")
    return found


def squares(chosen: Sequence[tuple[Path, Record]]) -> np.ndarray:
    """Images as the judges look at them: uint8 (n, GUARD_SIDE, GUARD_SIDE, 3)."""
    return np.stack([np.asarray(images.square(images.decode(home / r.file_name), GUARD_SIDE).convert("RGB")) for home, r in chosen])


def strip(record: Record) -> Record:
    """The record with the findings that the vocabulary knows, and without age: as it is previewed."""
    return dataclasses.replace(record, age_years=None, findings={k: v for k, v in record.findings.items() if k in vocabulary.TERMS})


def guard(recipe: FinetuneRecipe, known: list[tuple[Path, Record]], folder: Path) -> None:
    """Index the training images into the model folder, so that generation can refuse to give one of them back."""
    from medisyn.evaluation import features
    from medisyn.evaluation import guard as guards
    train = [(home, r) for home, r in known if r.split == "train"]
    index = guards.index_of(lambda rows: squares([train[r] for r in rows]), [r.image_type for _, r in train],
                            [r.patient or r.id for _, r in train], features.load("eye"), seed=recipe.seed,
                            progress=counter("guard"))
    guards.build(folder / "model" / "guard", index)


def outlook(recipe: FinetuneRecipe) -> list[str]:
    """What a recipe would train: which weights, how much memory, how many latents, and roughly how long on this machine."""
    import time
    where = device.pick(recipe.device)
    base, tuned = begun(recipe, where, frozen.kind(recipe.method.frozen, where.type))
    known = taught(recipe)
    side = recipe.image_size or base.image_size
    what = cache.plan(known, base, side, recipe.seed, recipe.cache, words_of(recipe))
    learning, total = (sum(p.numel() for p in m) for m in (list(tuned.parameters()),
                                                          [p for n in base.networks.values() for p in n.parameters()]))
    latent = torch.randn(1, base.latent_channels, side // base.factor, side // base.factor, device=where)
    t = torch.full((1,), 0.5, device=where)

    def once() -> float:
        start = time.perf_counter()
        with device.half(where):
            loss = tune.losses(base, latent, torch.randn_like(latent), t, base.read([what.texts[-1]]), None).sum()
        loss.backward()
        return time.perf_counter() - start
    once()
    seconds = min(once(), once())
    per_latent = base.latent_channels * (side // base.factor) ** 2 * 2
    most, cached = finetune_needs.needs(recipe, where.type)[-1], per_latent * len(what.entries) / 2**20
    return [f"base: {base.source}, family {base.family}, {total / 1e6:,.1f} M weights, predicts {base.prediction}, {side} pixels",
            f"learning: {learning / 1e6:,.2f} M weights ({recipe.method.train})",
            f"memory: about {most.total(where.type) / 2**20:,.0f} MB in all, in stage {most.stage} at batch {most.batch}",
            f"cache: {len(what.entries):,} latents, {len(what.texts):,} sentences, {cached:,.0f} MB of latents",
            f"tune: {recipe.tune.n_images:,} images, about {seconds * recipe.tune.n_images / 3600:.1f} h on this machine as it "
            "is now, if one passes at a time"]
