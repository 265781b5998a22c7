"""Stages: a recipe becomes a model, one stage after the other; finished ones are passed over.

    pixels    the collections as squares           text     captions -> text encoder
    vae       squares -> autoencoder               latents  squares -> latents, style clusters
    decoder   latents -> sharper squares           dit      latents + captions -> denoiser
    model     all of it as a model folder          guard    an index of the training images, in the model folder

The decoder and the denoiser need only the latents, not each other: two processes may train them at once.
"""

import dataclasses
import functools
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from medisyn.data import facts
from medisyn.data.records import Record
from medisyn.data.understanding import support_table
from medisyn.models import checkpoint
from medisyn.models.dit import Dit, DitConfig
from medisyn.models.recogniser import Recogniser, RecogniserConfig
from medisyn.models.text import TextConfig, TextEncoder
from medisyn.models.vae import Vae, VaeConfig
from medisyn.release import card as card_of_model
from medisyn.training import (
    adversary,
    autoencoder,
    batches,
    begin,
    device,
    diffusion,
    folding,
    latents,
    pnet,
    previews,
    recogniser,
    resident,
    shards,
    text,
)
from medisyn.training.batches import Pixels
from medisyn.training.diffusion import Reader
from medisyn.training.latents import Latents
from medisyn.training.results import keep, kept, reader, scaled_vae
from medisyn.training.run import Stage, counter, join_ranks, rank, say, wait, write_json
from medisyn.training.settings import Recipe

STAGES = ("text", "vae", "latents", "decoder", "dit", "recogniser", "model", "guard")


def run(recipe: Recipe, folder: Path, stages: Sequence[str] = STAGES, resume: bool = True) -> Path | None:
    """Do the stages in order; the model folder, or None where a signal stopped it or `model` was not asked for."""
    join_ranks()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    device.quicken(recipe.precision, recipe.compiled)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if rank() == 0:
        write_json(folder / "recipe.json", recipe.model_dump(mode="json"))
        pixels = packed(recipe, folder, keep=resume or "latents" not in stages)
    wait()
    pixels = pixels if rank() == 0 else Pixels(folder / "pixels")
    if recipe.start and rank() == 0:
        take_over(recipe, folder, pixels)
    wait()
    for name in STAGES:
        if name not in stages:
            continue
        stage = Stage(folder, name)
        if resume and name not in ("model", "guard") and stage.finished():
            say(f"{name}: done before, passed over")
            continue
        if not DO[name](recipe, folder, stage, pixels, resume):
            return None
        wait()
    return folder / "model" if {"model", "guard"} & set(stages) else None


def take_over(recipe: Recipe, folder: Path, pixels: Pixels) -> None:
    """Where the recipe starts from a model: what of it is kept stands in the run as if it had been trained there."""
    model = begin.opened(recipe.start)
    if model.card.image_size != recipe.image_size:
        raise ValueError(f"{recipe.start} makes images of {model.card.image_size} pixels, the recipe says {recipe.image_size}; "
                         "set image_size to the model's")
    whole = not recipe.dit.n_images
    if whole and not (latent := Stage(folder, "latents")).finished():
        latent.finish({"config": dataclasses.asdict(model.vae.config)})
    for name, network in begin.kept_of(model, denoiser=whole).items():
        if (name == "decoder" and recipe.decoder.further) or (name == "recogniser" and recipe.recogniser.n_images):
            continue   # trained here
        stage = Stage(folder, name)
        if not stage.finished():
            if name == "text":
                begin.words(recipe.start, stage.folder)
            if name == "recogniser" and not whole:
                network = recogniser.calibrated(network, pixels, pixels.of_split("val"))
            keep(stage, network, network.config)
            say(f"{name}: taken over from {recipe.start}")


def outlook(recipe: Recipe) -> list[str]:
    """What a recipe would train: networks, sizes, images, and roughly how long on this machine."""
    import time
    facts_known = len(facts.names())
    text_encoder = TextEncoder(TextConfig(recipe.text.vocabulary_size, 64, recipe.text.width, recipe.text.heads,
                                          recipe.text.layers, recipe.text.n_tokens, tuple(map(str, range(facts_known)))))
    vae = Vae(VaeConfig(recipe.vae.latent_channels, recipe.vae.widths, recipe.vae.encoder_blocks, recipe.vae.decoder_blocks))
    d = recipe.dit
    dit = Dit(DitConfig(recipe.vae.latent_channels, recipe.image_size // 8, d.width, d.heads, d.depth, d.stem,
                        recipe.text.width, recipe.text.n_tokens))
    crop = torch.zeros(recipe.vae.batch, 3, recipe.vae.crop, recipe.vae.crop)
    latent = torch.zeros(8, recipe.vae.latent_channels, recipe.image_size // 8, recipe.image_size // 8)
    tokens, pooled = torch.zeros(8, recipe.text.n_tokens, recipe.text.width), torch.zeros(8, recipe.text.width)
    pieces = torch.zeros(2 * recipe.text.batch, 32, dtype=torch.long)
    work = {  # name: (network, one training step's forward, images in it, images wanted)
        "text": (text_encoder, lambda: text_encoder(pieces, pieces == 0)[2], recipe.text.batch, recipe.text.n_images),
        "vae": (vae, lambda: vae.decode_raw(vae.moments(crop)[0]), recipe.vae.batch, recipe.vae.n_images),
        "dit": (dit, lambda: dit(latent, torch.rand(8), tokens, pooled), 8, d.n_images),
    }
    kept_too = "words and autoencoder" if d.n_images else "words, autoencoder and denoiser"
    lines = [f"{kept_too} are taken over from {recipe.start}"] if recipe.start else []
    lines += [f"decoder: trained on, {recipe.decoder.n_images:,} images"] if recipe.start and recipe.decoder.further else []
    for name, (network, forward, n, wanted) in work.items():
        if recipe.start and (name != "dit" or not wanted):
            continue
        forward().sum().backward()
        start = time.perf_counter()
        forward().sum().backward()
        seconds = (time.perf_counter() - start) / n * wanted
        weights = sum(p.numel() for p in network.parameters())
        lines.append(f"{name:<5} {weights / 1e6:6.2f} M weights, {16 * weights / 2**20:6.0f} MB with gradients and optimizer, "
                     f"{wanted:,} images, about {seconds / 3600:.1f} h on this machine as it is now")
    return lines


def adopt(old: Path, new: Path) -> None:
    """Start a run from another one's state: its folder is copied, the old one stays as it is."""
    if not (old / "recipe.json").is_file():
        raise ValueError(f"--resume expects auto, never or a run folder; {old} holds no recipe.json")
    if new.exists() and any(new.iterdir()):
        raise ValueError(f"{new} is not empty; --resume {old} needs a new run folder")
    shutil.copytree(old, new, dirs_exist_ok=True)


def packed(recipe: Recipe, folder: Path, keep: bool) -> Pixels:
    if shards.unpacked(folder / "pixels", recipe.data.packed_side):
        return Pixels(folder / "pixels")
    collections = [Path(c).expanduser().absolute() for c in recipe.data.collections]
    return batches.pack(collections, folder / "pixels", recipe.data.packed_side, progress=counter("pixels"),
                        keep=keep, message=say, image_types=recipe.data.image_types)


def do_text(recipe: Recipe, folder: Path, stage: Stage, pixels: Pixels, resume: bool) -> bool:
    known = [pixels.records[i] for i in pixels.of_split("train")]
    fitted = text.fit(stage, known, recipe.seed, recipe.text, resume)
    if fitted is None:
        return False
    keep(stage, fitted[0], fitted[0].config)
    return True


def do_vae(recipe: Recipe, folder: Path, stage: Stage, pixels: Pixels, resume: bool) -> bool:
    array, features = squares_of(recipe, folder), None
    if recipe.vae.features:
        features = features_of(recipe, Stage(folder, "pnet"), array, pixels, resume)
        if features is None:
            return False
    vae = autoencoder.fit(stage, pixels, recipe.image_size, recipe.seed, recipe.vae, resume, array, features)
    if vae is None:
        return False
    keep(stage, vae, vae.config)
    return True


@functools.lru_cache(maxsize=1)
def squares_on(folder: Path, where: torch.device) -> torch.Tensor:
    """Several stages look at the same squares: they are brought to the device once."""
    return resident.squares(Pixels(folder / "pixels"), where)


def squares_of(recipe: Recipe, folder: Path) -> torch.Tensor | None:
    """The squares on the device, or None where the recipe reads them from disk."""
    return squares_on(folder, device.pick(recipe.device)) if recipe.resident else None


def features_of(recipe: Recipe, stage: Stage, array: torch.Tensor, pixels: Pixels, resume: bool) -> pnet.PNet | None:
    """The P-net, trained before where it is finished; None when its training was stopped."""
    path = stage.folder / "network.safetensors"
    if resume and stage.finished():
        state = load_file(path)
        network = pnet.PNet(len(state["classes.weight"]))
        network.load_state_dict(state)
        return network.to(array.device, memory_format=torch.channels_last).eval().requires_grad_(False)
    network = pnet.fit(stage, array, pixels.records, recipe.seed, recipe.vae.features_images, 2 * recipe.vae.batch,
                       recipe.vae.crop, resume)
    if network is not None and rank() == 0:
        save_file({k: v.contiguous().clone() for k, v in network.state_dict().items()}, path)
        stage.finish({})
    return network


def do_latents(recipe: Recipe, folder: Path, stage: Stage, pixels: Pixels, resume: bool) -> bool:
    vae, array = kept(folder / "vae", Vae, VaeConfig), squares_of(recipe, folder)
    if array is not None:
        _, config = resident.encode(vae, pixels, array, stage.folder, recipe.image_size, recipe.dit.first_side, recipe.seed,
                                    recipe.latents, counter("latents"), keep_scale=recipe.start is not None)
    elif rank() == 0:
        _, config = latents.encode(vae, pixels, stage.folder, recipe.image_size, recipe.seed, recipe.latents,
                                   counter("latents"), keep_scale=recipe.start is not None)
    if rank() == 0:
        stage.finish({"config": dataclasses.asdict(config)})
    return True


def do_decoder(recipe: Recipe, folder: Path, stage: Stage, pixels: Pixels, resume: bool) -> bool:
    if recipe.decoder.n_images:
        soft = scaled_vae(folder, sharpened=False)
        vae = adversary.fit(stage, soft, pixels, recipe.image_size, recipe.seed, recipe.decoder, resume,
                            squares_of(recipe, folder))
        if vae is None:
            return False
        keep(stage, vae, vae.config)
    return True


def do_dit(recipe: Recipe, folder: Path, stage: Stage, pixels: Pixels, resume: bool) -> bool:
    read, settings, where = reader(folder), recipe.dit, device.pick(recipe.device)
    known, encoded = pixels.records, latents.load(folder / "latents")
    captions = captions_of(recipe, folder, known, read, where) if recipe.resident else None
    start, cells, before = None, 0, None
    if settings.first_side:
        cells = recipe.image_size // 8
        first = first_stretch(recipe, folder, Stage(folder, "dit-first"), known, read, captions, resume)
        if first is None:
            return False
        start, before = first
    if recipe.start:
        model = begin.opened(recipe.start)
        settings = begin.shaped(settings, model)
        if not (resume and stage.checkpoints()):
            same, tell = support_with_styles(pixels, encoded) == model.support, counter("style clusters", 20)
            start = model.dit.state_dict() if same else begin.denoiser(model, read, encoded, known, recipe.seed, tell)
    feed = None if captions is None else resident.feed(encoded, known, captions, recipe.seed, settings, where)
    real = previews.known(folder, pixels, recipe.seed) if settings.nearest and (
        rank() == 0 or recipe.parallel == "sharded") else None
    fitted = diffusion.fit(stage, encoded, known, read, recipe.seed, settings,
                           lambda dit: previews.sheet(recipe, folder, pixels, dit), resume, where, feed, cells, start=start,
                           shards=recipe.parallel == "sharded", before=before, near=real and (
                               lambda dit: previews.measure(real, recipe, folder, pixels, dit, settings.nearest, recipe.seed)))
    if fitted is None:
        return False
    watch, best, config = fitted
    say(f"dit: {watch.told()}")
    facts: dict = {"memorising": watch.published()}
    if config.guided and rank() == 0:
        facts["guidance_learnt"] = round(folding.learnt(best, read, encoded, known, recipe.seed), 4)
        config = (best := folding.checked(best, settings.guided_least, facts["guidance_learnt"], say)).config
    keep(stage, best, config, **facts)
    return True


def captions_of(recipe: Recipe, folder: Path, known: list[Record], read: Reader, where: torch.device) -> resident.Captions:
    """The wordings of every training image, read; they are worded first where nobody has done so."""
    path = folder / "captions.npz"
    if not path.is_file() and rank() == 0:
        resident.write_captions(path, [r for r in known if r.split == "train"], read.tokenizer, recipe.seed, recipe.dit.captions,
                                recipe.dit.drop_fact)
    wait()
    read = dataclasses.replace(read, encoder=read.encoder.to(where))
    return resident.Captions(path, known, read, where)


def first_stretch(recipe: Recipe, folder: Path, stage: Stage, known: list[Record], read: Reader,
                  captions: resident.Captions, resume: bool) -> tuple[dict[str, torch.Tensor], tuple[float, float] | None] | None:
    """The weights after training on smaller images, and the train and held-out loss that a gap is counted from (None where nothing
    is held out); None when it was stopped before its end."""
    path, settings = stage.folder / "network.safetensors", recipe.dit.first()
    if not (resume and stage.finished()):
        small, features = resident.first_stretch(folder / "latents")
        where, seed = device.pick(recipe.device), recipe.seed + 100
        feed = resident.feed(small, known, captions, seed, settings, where, features if settings.align else None)
        if diffusion.fit(stage, small, known, read, seed, settings, None, resume, where, feed, recipe.image_size // 8,
                         features.shape[1]) is None:
            return None
        if rank() == 0:
            last = load_file(stage.checkpoints()[-1])
            save_file({k.removeprefix("module.dit."): v for k, v in last.items() if k.startswith("module.dit.")}, path)
            stage.finish({"n_images": settings.n_images, "before": last["module.watch.before"].tolist()})
        wait()
    before = json.loads((stage.folder / "done.json").read_text(encoding="utf-8")).get("before", [0, 0])
    return load_file(path), tuple(before) if before[1] else None


def do_recogniser(recipe: Recipe, folder: Path, stage: Stage, pixels: Pixels, resume: bool) -> bool:
    if recipe.recogniser.n_images:
        network = recogniser.fit(stage, pixels, recipe.seed, recipe.recogniser, resume)
        if network is None:
            return False
        network = recogniser.calibrated(network, pixels, pixels.of_split("val"))
        keep(stage, network, network.config)
    return True


def do_model(recipe: Recipe, folder: Path, stage: Stage, pixels: Pixels, resume: bool) -> bool:
    if rank() == 0:
        export(recipe, folder, pixels, kept(folder / "dit", Dit, DitConfig), stage.folder)
    return True


def do_guard(recipe: Recipe, folder: Path, stage: Stage, pixels: Pixels, resume: bool) -> bool:
    """Index the training images into the model folder, so that generation can refuse to give one of them back."""
    if rank() == 0:
        from medisyn.evaluation import features, guard
        if not (folder / "model" / "medisyn.json").is_file():
            raise ValueError(f"the guard expects a model in {folder / 'model'}; run the stage model first")
        known = pixels.of_split("train")
        records = [pixels.records[i] for i in known]
        index = guard.index_of(lambda rows: pixels.array[known[rows]], [r.image_type for r in records],
                               [r.patient or r.id for r in records], features.load("eye"), seed=recipe.seed,
                               progress=counter("guard"))
        guard.build(folder / "model" / "guard", index)
    return True


DO = {"text": do_text, "vae": do_vae, "latents": do_latents, "decoder": do_decoder, "dit": do_dit, "recogniser": do_recogniser,
      "model": do_model, "guard": do_guard}


def support_with_styles(pixels: Pixels, encoded: Latents) -> list[list]:
    """The support table of the training images, each row with how often each style cluster occurs in it."""
    styles = {int(row): int(style) for row, style in zip(encoded.row[::-1], encoded.style[::-1], strict=True)}
    table: dict[str, list] = {}
    for i in pixels.of_split("train"):
        (row,) = support_table([pixels.records[i]])
        kept_row = table.setdefault(json.dumps(row), [*row[:7], 0, {}])
        kept_row[7] += 1
        kept_row[8][str(styles[int(i)])] = kept_row[8].get(str(styles[int(i)]), 0) + 1
    return list(table.values())


def images_seen(folder: Path) -> int:
    """The images that a run's denoiser has learnt from, in both stretches; 0 where it was not trained here."""
    first, log = folder / "dit-first" / "done.json", folder / "dit" / "log.jsonl"
    seen = json.loads(first.read_text())["n_images"] if first.is_file() else 0
    return seen + (json.loads(log.read_text().splitlines()[-1])["n_images"] if log.is_file() else 0)


def export(recipe: Recipe, folder: Path, pixels: Pixels, dit: Dit, out: Path) -> Path:
    """Everything trained so far as a model folder."""
    settings, n_images = recipe.model, images_seen(folder)
    n_images += (begun := begin.opened(recipe.start)).card.n_images if recipe.start else 0
    card = checkpoint.Card(settings.name, recipe.image_size, settings.steps, settings.guidance, settings.sampler, settings.licence,
                           n_images, settings.shift, dit.config.guided,
                           settings.guidance_from, settings.guidance_until, settings.guidance_since, settings.guidance_along,
                           settings.texture, begun.card.base if recipe.start else "")
    support = begun.support if recipe.start and not recipe.dit.n_images else \
        support_with_styles(pixels, latents.load(folder / "latents"))
    read, trained = reader(folder), (folder / "recogniser" / "network.safetensors").is_file()
    checkpoint.save(out, card, scaled_vae(folder), dit, read.encoder, read.tokenizer, support,
                    kept(folder / "recogniser", Recogniser, RecogniserConfig) if trained else None)
    seen = training_data([r for r in pixels.records if r.split == "train"])
    earlier = begin.sources_of(recipe.start) if recipe.start else []
    write_json(out / "training_data.json", begin.together(seen, earlier))
    marker = folder / "dit" / "done.json"
    if marker.is_file() and "memorising" in (done := json.loads(marker.read_text())):
        write_json(out / card_of_model.MEMORISING, done["memorising"])
    card_of_model.write(out)
    return out


def training_data(known: Iterable[Record]) -> list[dict]:
    """Sources of the training images: name, licence, images, image types."""
    table: dict[str, dict] = {}
    for record in known:
        row = table.setdefault(record.source or "unnamed", {"source": record.source or "unnamed", "licences": set(),
                                                            "image_types": set(), "n_images": 0, "patients": set()})
        row["licences"].add(record.licence or "not stated")
        row["image_types"].add(record.image_type)
        row["n_images"] += 1
        row["patients"].add(record.patient or record.id)
    return [{"source": row["source"], "licences": sorted(row["licences"]), "image_types": sorted(row["image_types"]),
             "n_images": row["n_images"], "n_patients": len(row["patients"])} for row in table.values()]
