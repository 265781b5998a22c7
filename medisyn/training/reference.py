"""The reference model on a lent GPU: one command, given again until it says that the model is finished.

`go` looks for what earlier calls left in RUN, measures what has not been measured, shares the minutes that are left out
among the stages that are left, trains until shortly before the call's end, and leaves what must come home in parts.
The minutes count from the first `go` in RUN, idle time between calls included. `adopt` makes a RUN, with its text encoder
and captions, go on from what came home when the machine is lost or lent again.
"""

import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from medisyn import making, synthesizer
from medisyn.models import checkpoint
from medisyn.models.dit import Dit, DitConfig, unguided
from medisyn.models.vae import Vae, VaeConfig
from medisyn.training import adversary, autoencoder, device, diffusion, latents, pnet, resident, shards, stages
from medisyn.training.batches import Pixels
from medisyn.training.latents import Latents
from medisyn.training.run import Stage, say, write_json
from medisyn.training.settings import Recipe

SHARES = {"pnet": 0.03, "vae": 0.20, "decoder": 0.10, "dit-first": 0.22, "dit": 0.45}  # of the time left for training
RESERVE = 75.0         # seconds kept for the model folder, a first gallery and the parts
OVERHEAD = 30.0        # seconds a stage takes beside its steps: data to the device, figures, pictures, checkpoints
LATENTS = 45.0         # seconds that the encoding of all variants takes
HOME_BYTES = 3.9 * shards.PART_BYTES  # what may come home of one call
MARGIN = 30.0          # seconds before a call's end at which a stage is asked to stop
LOG_LINES = 8          # of a stage
GALLERY = Path("recipes/gallery.csv")


class TimeUp(SystemExit):
    """The call's time is up outside a training loop; what is finished stays."""


# ---- rates -----------------------------------------------------------------------------------------------------------

def measure(recipe: Recipe, run: Path, steps: int) -> dict[str, float]:
    """Images a second of every stage, by training it for `steps` steps that count, after as many that do not.

    The networks are thrown away; the latents are noise. Run this before a network of worth exists, or after.
    """
    pixels, where, quiet = Pixels(run / "pixels"), device.pick(recipe.device), []
    array, rates = stages.squares_of(recipe, run), {}

    def short(settings: object, batch: int) -> dict:
        return {"n_images": 2 * steps * batch, "batch": batch, "log_images": steps * batch, "save_seconds": 1e9}

    def rate(folder: Path, name: str) -> float:
        row = json.loads((folder / name / "log.jsonl").read_text().splitlines()[-1])
        share = f", {row['share_of_peak']:.1%} of the device's peak" if "share_of_peak" in row else ""
        say(f"rates: {name} {row['images_per_second']:,.0f} images/s{share}")
        return row["images_per_second"]

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)

        def stage(name: str) -> Stage:
            return Stage(folder, name, quiet.append, figures=False)
        v = recipe.vae
        features = None
        if v.features:
            features = pnet.fit(stage("pnet"), array, pixels.records, 0, 4 * steps * v.batch, 2 * v.batch, v.crop)
            rates["pnet"] = rate(folder, "pnet")
        v = v.model_copy(update=short(v, v.batch))
        vae = autoencoder.fit(stage("vae"), pixels, recipe.image_size, 0, v, True, array, features)
        rates["vae"] = rate(folder, "vae")
        if recipe.decoder.n_images:
            d = recipe.decoder.model_copy(update=short(recipe.decoder, recipe.decoder.batch) | {"late": 0.0})
            adversary.fit(stage("decoder"), vae, pixels, recipe.image_size, 0, d, True, array)
            rates["decoder"] = rate(folder, "decoder")
        read, config = stages.reader(run), vae.config
        captions = stages.captions_of(recipe, run, pixels.records, read, where)
        for name, side, settings, changes in (("dit-first", recipe.dit.first_side, recipe.dit.first(), {}),
                                              ("dit", recipe.image_size, recipe.dit, {"guided_share": 0.0}),
                                              ("guided", recipe.image_size, recipe.dit, {"guided_share": 1.0})):
            if not side or (name == "guided" and not recipe.dit.guided):
                continue
            settings = settings.model_copy(update=short(settings, settings.batch) | changes)
            noise, seen = noisy_latents(pixels, config, side, recipe)
            feed = resident.feed(noise, pixels.records, captions, 0, settings, where, seen if name == "dit-first" else None)
            diffusion.fit(stage(name), noise, pixels.records, read, 0, settings, None, True, where, feed, recipe.image_size // 8,
                          seen.shape[1] if name == "dit-first" else 0)
            rates[name] = rate(folder, name)
    return rates


def noisy_latents(pixels: Pixels, config: VaeConfig, side: int, recipe: Recipe) -> tuple[Latents, np.ndarray]:
    """As many latents as there are images, of noise, and features of noise."""
    n, draw = len(pixels.records), np.random.default_rng(0)

    def noise(*shape: int) -> np.ndarray:
        return np.resize(draw.standard_normal((256, *shape), np.float32).astype(np.float16), (n, *shape))
    seen = noise(config.widths[2], recipe.dit.first_side // 16, recipe.dit.first_side // 16)
    latent = noise(config.latent_channels, side // 8, side // 8)
    return Latents(latent, np.arange(n), np.zeros(n, bool), np.zeros((n, 4), np.float32), np.zeros(n, np.int64), 1), seen


# ---- the plan --------------------------------------------------------------------------------------------------------

def share_out(recipe: Recipe, rates: dict[str, float], seconds: float, done: dict[str, int | None]) -> dict[str, int]:
    """Images of every stage that is left, so that all end in `seconds` together.

    done: images that a stage has behind it, None where it is finished. A stage half done keeps its full share, less
    what it has used of it, so that a call's end costs no stage its last quarter.
    """
    wanted = {name: share for name, share in SHARES.items() if name in rates and done.get(name, 0) is not None}
    behind = {name: (done.get(name) or 0) / speed(recipe, rates, name) for name in wanted}
    left = max(0.0, seconds - OVERHEAD * len(wanted)) + sum(behind.values())
    plan = {}
    for name, share in wanted.items():
        batch = batch_of(recipe, name)
        n = left * share / sum(wanted.values()) * speed(recipe, rates, name)
        plan[name] = max(batch, (done.get(name) or 0) + batch, round(n / batch) * batch)
    return plan


def speed(recipe: Recipe, rates: dict[str, float], name: str) -> float:
    """Images a second over the whole of a stage: the denoiser is slower while it learns to guide itself."""
    if name != "dit" or "guided" not in rates:
        return rates[name]
    share = recipe.dit.guided_share
    return 1 / ((1 - share) / rates["dit"] + share / rates["guided"])


def batch_of(recipe: Recipe, name: str) -> int:
    return {"pnet": 2 * recipe.vae.batch, "vae": recipe.vae.batch, "decoder": recipe.decoder.batch,
            "dit-first": recipe.dit.first().batch, "dit": recipe.dit.batch}[name]


def planned(recipe: Recipe, plan: dict[str, int]) -> Recipe:
    """The recipe with the plan's numbers of images."""
    def changed(settings: object, name: str, **more: int) -> object:
        n = plan.get(name)
        lines = {"log_images": max(batch_of(recipe, name), n // LOG_LINES), "n_images": n} if n else {}
        return settings.model_copy(update=lines | {k: plan[v] for k, v in more.items() if v in plan})
    dit = changed(recipe.dit, "dit", first_images="dit-first")
    if "dit" not in plan and "dit-first" in plan:
        dit = dit.model_copy(update={"log_images": max(batch_of(recipe, "dit-first"), plan["dit-first"] // LOG_LINES)})
    return recipe.model_copy(update={"vae": changed(recipe.vae, "vae", features_images="pnet"),
                                     "decoder": changed(recipe.decoder, "decoder"), "dit": dit})


def behind(run: Path, name: str) -> int | None:
    """Images a stage has behind it by its newest checkpoint; None when it is finished."""
    if (run / name / "done.json").is_file():
        return None
    found = sorted((run / name).glob("checkpoint-*.safetensors"))
    return int(found[-1].stem.split("-")[1]) if found else 0


def learnt(run: Path, rates: dict[str, float]) -> dict[str, float]:
    """The rates, corrected by what the stages' own logs say of their first lines' worth of training."""
    found = dict(rates)
    for name in rates:
        log = run / name / "log.jsonl"
        rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
        if len(rows) >= 3 and name != "guided":  # the first line holds the compiler's time
            found[name] = float(np.median([row["images_per_second"] for row in rows[1:]]))
    return found


# ---- one call --------------------------------------------------------------------------------------------------------

def go(recipe: Recipe, run: Path, minutes: float, call_seconds: float, home: Path | None, steps: int = 24) -> bool:
    """One call's worth of training; True when the model is finished."""
    started = time.monotonic()
    clock = run / "clock.json"
    if not clock.is_file():
        write_json(clock, {"started": time.time()})
    begun = json.loads(clock.read_text())["started"]
    before = signal.signal(signal.SIGTERM, up)
    alarm = threading.Timer(max(1.0, call_seconds - MARGIN), os.kill, (os.getpid(), signal.SIGTERM))
    alarm.daemon = True
    alarm.start()
    finished = False
    try:
        finished = train(recipe, run, lambda: minutes * 60 - (time.time() - begun) - RESERVE,
                         lambda: call_seconds - MARGIN - (time.monotonic() - started), steps)
    except TimeUp:
        say("reference: this call's time is up; give the same command again")
    finally:
        alarm.cancel()
        signal.signal(signal.SIGTERM, signal.SIG_IGN if home else before)
        if home:
            bring_home(recipe, run, home)
            signal.signal(signal.SIGTERM, before)
    say("reference: the model is finished" if finished else
        f"reference: {(time.time() - begun) / 60:.1f} of {minutes:g} minutes gone; give the same command again")
    return finished


def up(number: int, frame: object) -> None:
    raise TimeUp(0)


def train(recipe: Recipe, run: Path, left: Callable[[], float], call_left: Callable[[], float],
          steps: int) -> bool:
    """The stages in order, each with as many images as fit; False when the call ended before the model was finished."""
    path = run / "rates.json"
    if not path.is_file():
        write_json(path, measure(recipe, run, steps))
    for name in ("vae", "latents", "decoder", "dit"):
        if (run / name / "done.json").is_file():
            continue
        rates = learnt(run, json.loads(path.read_text()))
        encoding = 0.0 if (run / "latents" / "done.json").is_file() else LATENTS
        done = {stage: behind(run, stage) for stage in rates}
        done |= {"pnet": None} if done.get("vae", 0) is None else {}  # it serves the autoencoder alone
        plan = share_out(recipe, rates, left() - encoding, done)
        write_json(run / "plan.json", {"seconds_left": round(left()), "rates": rates, "n_images": plan})
        say(f"plan: {left():.0f} s left: " + ", ".join(f"{stage} {n:,}" for stage, n in plan.items()))
        stages.run(planned(recipe, plan), run, [name])
        if not (run / name / "done.json").is_file():
            if name == "decoder" and not recipe.decoder.n_images:
                continue
            return False
        if name in ("vae", "decoder"):
            report_gates(run, name)
    if call_left() < 10:
        return False
    stages.run(recipe, run, ["model"])
    gallery(run)
    return True


def report_gates(run: Path, name: str) -> None:
    """Whether the autoencoder reaches what it should, in the run folder and aloud."""
    last = json.loads((run / name / "log.jsonl").read_text().splitlines()[-1])
    said = autoencoder.report(last)
    say(f"{name}: {said}")
    path = run / "gates.json"
    write_json(path, (json.loads(path.read_text()) if path.is_file() else {}) | {name: said})


def gallery(run: Path, each: int = 2) -> None:
    """First pictures of the finished model: two of each prompt of the gallery."""
    if not GALLERY.is_file() or (run / "gallery.png").is_file():
        return
    maker = synthesizer.load(run / "model")
    asked = [(prompt, each, seed) for prompt, _, seed in making.read_prompts(GALLERY, each, 1)]
    plans = {prompt: maker.plan(prompt) for prompt, _, _ in asked}
    list(making.write(making.make_all(maker, plans, asked, run / "gallery"), run / "gallery"))
    shutil.copyfile(making.contact_sheet(run / "gallery"), run / "gallery.png")


# ---- home ------------------------------------------------------------------------------------------------------------

def bring_home(recipe: Recipe, run: Path, home: Path) -> list[Path]:
    """What must survive the machine, in parts: a model of the newest weights once there are any, else the autoencoder;
    logs, pictures, figures, and the index of the latents."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        for path in [one for kind in ("*.json", "*.png", "*/*.jsonl", "*/*.png", "*/done.json") for one in run.glob(kind)]:
            if path.parent.name in ("gallery", "pixels", "model"):
                continue
            (out / path.relative_to(run)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / path.relative_to(run))
        if (run / "latents" / "index.npz").is_file():
            shutil.copyfile(run / "latents" / "index.npz", out / "latents" / "index.npz")
        if (run / "model" / "medisyn.json").is_file():
            shutil.copytree(run / "model", out / "model")
        elif (dit := newest(run)) is not None:
            stages.export(recipe, run, Pixels(run / "pixels"), dit, out / "model")
        else:
            for name in ("vae", "decoder"):
                if (run / name / "network.safetensors").is_file():
                    state = load_file(run / name / "network.safetensors")
                    save_file({k: v.half() for k, v in state.items()}, out / name / "network.safetensors")
        drop_largest_pictures(out)
        parts = shards.split(out, home)
    size = sum(p.stat().st_size for p in parts) / 2**20
    say(f"home: {len(parts)} parts, {size:.1f} MiB in {home}; join them with `python -m medisyn.training.shards join`")
    return parts


def drop_largest_pictures(folder: Path) -> None:
    """Leave pictures out, the largest first, until what is left may come home."""
    def size() -> int:
        return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    for picture in sorted(folder.rglob("*.png"), key=lambda p: -p.stat().st_size):
        if size() > HOME_BYTES:
            picture.unlink()


def newest(run: Path) -> Dit | None:
    """The moving average of the newest checkpoint that can be read, as a denoiser that is guided by two calls."""
    for path in (*sorted((run / "dit").glob("checkpoint-*"), reverse=True), *sorted((run / "dit-first").glob("checkpoint-*"),
                                                                                    reverse=True)):
        if not (run / "latents" / "done.json").is_file():
            return None
        state, encoded = load_file(path), latents.load(run / "latents")
        start = f"module.{'ema_0.05'}."
        own = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        c = encoded.latent.shape
        text = json.loads((run / "text" / "done.json").read_text())["config"]
        settings = Recipe.model_validate(json.loads((run / "recipe.json").read_text())).dit
        config = DitConfig(c[1], c[2], settings.width, settings.heads, settings.depth, settings.stem, text["width"],
                           text["n_tokens"], encoded.n_styles, position_size=c[2] if settings.first_side else 0,
                           guided=settings.guided)
        dit = Dit(config).eval().requires_grad_(False)
        dit.load_state_dict(own)
        return unguided(dit)
    return None


def adopt(home: Path, run: Path) -> None:
    """Let a run go on from what came home: the autoencoder is finished, the denoiser begins from its moving average."""
    home, run = Path(home), Path(run)
    if not (home / "model" / "medisyn.json").is_file():
        for name in ("vae", "decoder"):
            if (home / name / "network.safetensors").is_file():
                shutil.copytree(home / name, run / name, dirs_exist_ok=True)
        return
    vae = checkpoint.load_part(home / "model", "vae")
    plain = VaeConfig(**{**vars(vae.config), "latent_mean": None, "latent_std": None})
    for name, config in (("vae", plain), ("decoder", vae.config)):
        same = Vae(config)
        same.load_state_dict(vae.state_dict())
        stages.keep(Stage(run, name), same, config)
    dit = checkpoint.load_part(home / "model", "transformer")
    (run / "dit-first").mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous().clone() for k, v in dit.state_dict().items()}, run / "dit-first" / "network.safetensors")
    card = json.loads((home / "model" / "medisyn.json").read_text())
    Stage(run, "dit-first").log({"n_images": card["n_images"]})
    write_json(run / "dit-first" / "done.json", {"n_images": card["n_images"]})
    (run / "latents").mkdir(exist_ok=True)
    shutil.copyfile(home / "latents" / "index.npz", run / "latents" / "before.npz")
    say(f"reference: {run} goes on from {card['n_images']:,} images")
