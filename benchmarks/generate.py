"""Generate: seconds an image and peak memory, beside the plain loop that a user of diffusers would write.

    python benchmarks/generate.py --model FOLDER -o OUTDIR

The plain loop has the same weights: 25 Euler steps, guidance as two network calls of batch 1 a step, one decoding; and once more
with a decoder of TAESD's shape, which small pipelines have, and random weights: its time counts. Beside them stands our loop with
just that work: guided at every step (in one call, where the network guides itself), no noise added to the latent; and our own
settings computed by OpenVINO, where it is installed, in full precision and, where the CPU has units for it, in bf16.
All ways take turns within one process a number of cores, so that a busy machine slows them alike. Ours are as users call them, one
thread an image and a second one in guided steps where a core is idle; the plain loop has as many torch threads as cores.
"""

import argparse
import dataclasses
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import intervals

PROMPT = "chest X-ray with pneumonia"
PLAIN_STEPS = 25
GOAL_STEPS = 8
OWN, FEWER, SAME_STEPS, PLAIN = ("medisyn, its own settings", f"medisyn, {GOAL_STEPS} steps", f"medisyn, {PLAIN_STEPS} Euler steps",
                                 f"plain loop, {PLAIN_STEPS} Euler steps")
PLAIN_TAESD = f"{PLAIN}, a decoder of TAESD's shape"


def plain_loop(model: object, understood_gray: bool, text: str, seed: int, style: int | None, guidance: float,
               steps: int = PLAIN_STEPS, decode: Callable | None = None) -> object:
    """What a tutorial would write: float32 (C, H, W) in [-1, 1]. decode: None is the model's own decoder."""
    import torch

    from medisyn.models.text import to_pieces
    config = model.dit.config
    with torch.no_grad():
        told, _, told_pooled = model.text(*to_pieces(model.tokenizer, [text], model.text.config.max_length))
        nothing, _, nothing_pooled = model.text(*to_pieces(model.tokenizer, [""], model.text.config.max_length))
        none = torch.tensor([config.n_styles])
        chosen = none if style is None else torch.tensor([style])
        x = torch.randn(1, config.latent_channels, config.latent_size, config.latent_size,
                        generator=torch.Generator().manual_seed(seed))
        for k in range(steps):
            t = torch.full((1,), k / steps)
            conditional = model.dit(x, t, told, told_pooled, chosen)
            unconditional = model.dit(x, t, nothing, nothing_pooled, none)
            x = x + (unconditional + guidance * (conditional - unconditional)) / steps
        image = (decode or model.vae.decode)(x).clamp(-1, 1)[0]
    return (image.mean(0, keepdim=True) if understood_gray else image).numpy()


def taesd_shaped(channels: int) -> Callable:
    """A decoder with the layers of TAESD (github.com/madebyollin/taesd): 64 channels, four groups of residual blocks, three times
    twice the side. Latent (B, channels, h, w) -> image (B, 3, 8h, 8w)."""
    from torch import nn
    from torch.nn.functional import relu

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
                                        nn.Conv2d(64, 64, 3, padding=1))

        def forward(self, x: object) -> object:
            return relu(x + self.layers(x))

    def larger() -> list[nn.Module]:
        return [Block(), Block(), Block(), nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 3, padding=1, bias=False)]
    return nn.Sequential(nn.Conv2d(channels, 64, 3, padding=1), nn.ReLU(), *larger(), *larger(), *larger(), Block(),
                         nn.Conv2d(64, 3, 3, padding=1)).eval()


def own(maker: object, *settings: object) -> Callable[[int], object]:
    """A synthesizer with its own settings, or (steps, guidance, sampler): seed -> pixels."""
    plan = maker.plan(PROMPT)

    def image(seed: int) -> object:
        (one,) = maker.many([(plan, maker.settings(plan, seed, *settings))], look=False)
        return one.image
    return image


def ways(maker: object, only: str | None = None) -> dict[str, Callable[[int], object]]:
    """Each way to make an image, or one of them: seed -> pixels. maker: one that torch computes.

    A model that takes GOAL_STEPS by itself has no row of its own for them.
    """
    from medisyn import synthesizer
    from medisyn.data import vocabulary
    from medisyn.models import backends
    plan = maker.plan(PROMPT)
    kind = vocabulary.IMAGE_TYPES.get(plan.understood.image_type)
    guidance = maker.model.card.guidance
    card = dataclasses.replace(maker.model.card, guidance_from=0.0, guidance_until=1.0, guidance_since={},
                               guidance_along=1.0, texture=0.0)
    same = synthesizer.Synthesizer(dataclasses.replace(maker.model, card=card), maker.version)

    def plain(decode: Callable | None = None) -> Callable[[int], object]:
        def image(seed: int) -> object:
            how = maker.settings(plan, seed)
            gray, noise = bool(kind and kind.gray), synthesizer.root(PROMPT, seed)
            return plain_loop(maker.model, gray, how.read_as, noise, how.style, guidance, decode=decode)
        return image

    def taken(maker: object, suffix: str = "") -> dict[str, Callable[[int], object]]:
        fewer = {} if maker.model.card.steps == GOAL_STEPS else {f"{FEWER}{suffix}": own(maker, GOAL_STEPS)}
        return {f"{OWN}{suffix}": own(maker)} | fewer

    found = taken(maker) | {SAME_STEPS: own(same, PLAIN_STEPS, None, "euler"), PLAIN: plain()}
    if only in (None, PLAIN_TAESD):
        found[PLAIN_TAESD] = plain(taesd_shaped(maker.model.dit.config.latent_channels))
    for name in backends.PRECISIONS:
        if only is None:
            try:
                found |= taken(synthesizer.Synthesizer(maker.model, maker.version, name), f", {name}")
            except ValueError as error:   # it is not installed, or the CPU has no such units
                tell(f"generate: {name} is left out: {error}")
    return found


def work(model: Path, cores: int, rounds: int, only: str | None) -> dict:
    """Measured inside a fresh process: seconds of each way in each round, peak memory, how far apart the pixels lie."""
    import torch
    torch.set_num_threads(cores)
    from medisyn import synthesizer
    from medisyn.models import backends
    before = peak_mib()
    started = time.perf_counter()
    backend = next((name for name in backends.PRECISIONS if only and only.endswith(f", {name}")), backends.DEFAULT)
    maker = synthesizer.load(model, backend=backend)
    loading = time.perf_counter() - started
    tried = {name: way for name, way in ways(maker, only).items() if only in (None, name)} if backend == backends.DEFAULT \
        else {only: own(maker, *([GOAL_STEPS] if only.startswith(FEWER) else []))}
    first = {name: way(0) for name, way in tried.items()}  # warm up; the seed on which they are compared
    seconds: dict[str, list[float]] = {name: [] for name in tried}
    for k in range(rounds):
        for name, way in tried.items():
            started = time.perf_counter()
            way(k + 1)
            seconds[name].append(time.perf_counter() - started)
    gap = None
    exact = maker.model.card.shift == 1 and not maker.model.dit.config.guided   # a network's own guidance is not that of two calls
    if {SAME_STEPS, PLAIN} <= set(first) and exact:
        gap = float(abs(first[SAME_STEPS] - first[PLAIN]).max() * 127.5)
    return {"seconds": seconds, "loading": loading, "peak_mib": peak_mib(), "imports_mib": before,
            "largest_gap_levels": gap}


def peak_mib() -> float:
    """The most memory that this process has held. Linux counts in `ru_maxrss` what the process that began it had held, too."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def fresh(model: Path, cores: int, rounds: int, only: str | None = None) -> dict:
    """`work` in a process of its own."""
    command = [sys.executable, __file__, "--model", str(model), "--rounds", str(rounds), "--worker", str(cores)]
    command += ["--only", only] if only else []
    done = subprocess.run(command, capture_output=True, text=True, **limited(cores))
    if done.returncode:
        raise RuntimeError(f"the measurement failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def cold(model: Path, cores: int, folder: Path, times: int, images: int) -> list[float]:
    """Seconds of `medisyn generate`, from the shell to the last file."""
    found = []
    for k in range(times):
        command = [sys.executable, "-m", "medisyn", "generate", PROMPT, "--seed", str(k * images), "-n", str(images),
                   "--model", str(model), "-o", str(folder / f"cold-{cores}-{time.time_ns()}")]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, **limited(cores))
        found.append(time.perf_counter() - started)
    return found


def limited(cores: int) -> dict:
    """How `subprocess` begins a process that may use so many cores, and imports from this repository."""
    home = str(Path(__file__).resolve().parent.parent)
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    found = {"env": {**os.environ, "OMP_NUM_THREADS": str(cores), "MKL_NUM_THREADS": str(cores),
                     "PYTHONPATH": os.pathsep.join(paths)}}
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))
        if cores > len(mine):
            raise ValueError(f"--cores {cores} expects so many processors, this process may use {len(mine)}; ask for fewer")
        found["preexec_fn"] = lambda: os.sched_setaffinity(0, mine[:cores])
    return found


def processor() -> str:
    """Its name, and the units for bf16 that it has: an image's seconds hang on them."""
    from medisyn.training.limits import model_of
    info = Path("/proc/cpuinfo")
    said = info.read_text() if info.is_file() else ""
    units = [unit for unit in ("amx_bf16", "avx512_bf16") if unit in said.split()]
    return f"{model_of(Path('/')) or platform.machine()} with {' and '.join(units) or 'no units for bf16'}"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f}, n {len(values)})"


def report(result: dict) -> str:
    lines = [f"# Speed and memory: {result['model']}\n",
             f"{result['machine']}; load average {result['load_average'][0]:.1f} when it began. {result['settings']}. "
             "Median (least to most) of runs in turns; how many times as fast is the median over the turns.\n"]
    for cores, found in result["cores"].items():
        turns, alone = found["turns"], found["alone"]
        rows = []
        for name in turns["seconds"]:
            mine = turns["seconds"][name]
            faster = (statistics.median(p / s for p, s in zip(turns["seconds"][than], mine, strict=True))
                      for than in (PLAIN, PLAIN_TAESD))
            rows.append((name, spread(mine), *(f"{times:.2f}" for times in faster), f"{alone[name]['peak_mib']:.0f}"))
        head = ("way", "seconds an image, warm", "times as fast as the plain loop", "as that with TAESD's shape",
                "peak memory, MiB")
        lines += [f"## {cores} core{'s' if cores != '1' else ''}\n", intervals.table(head, rows),
                  f"Cold, from the shell to the PNG: {spread(found['cold'])} s, four images {spread(found['cold_four'])} s. "
                  f"Loading the model: {turns['loading']:.2f} s. Imports alone: {turns['imports_mib']:.0f} MiB.\n"]
        if turns["largest_gap_levels"] is not None:
            lines.append(f"Same weights, same steps: the plain loop's pixels differ from medisyn's by at most "
                         f"{turns['largest_gap_levels']:.2f} of 255 levels.\n")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, default=Path("out/speed"))
    parser.add_argument("--rounds", type=int, default=9, help="warm images of each way")
    parser.add_argument("--cold", type=int, default=3, help="cold starts")
    parser.add_argument("--cores", default="1,2")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return print(json.dumps(work(args.model, args.worker, args.rounds, args.only)))
    from medisyn import painters, synthesizer
    args.out.mkdir(parents=True, exist_ok=True)
    model = synthesizer.load(args.model).model
    card = dataclasses.asdict(model.card)
    calls = "one network call" if card["guided"] else "up to two network calls"
    result = {"model": card["name"], "digest": model.digest, "machine": f"{processor()}, {os.cpu_count()} cores",
              "load_average": os.getloadavg(), "cores": {},
              "settings": f"Own settings: {card['steps']} steps, {painters.sampler_of(model, card['steps'])}, guidance "
                          f"{card['guidance']}, {card['image_size']} pixels, {calls} a step"}
    for cores in map(int, args.cores.split(",")):
        tell(f"generate: {cores} core(s)")
        turns = fresh(args.model, cores, args.rounds)
        result["cores"][str(cores)] = {
            "turns": turns, "alone": {name: fresh(args.model, cores, 1, name) for name in turns["seconds"]},
            "cold": cold(args.model, cores, args.out / "cold", args.cold, 1),
            "cold_four": cold(args.model, cores, args.out / "cold", args.cold, 4)}
    intervals.write(args.out, "speed", result, report(result))
    tell(f"wrote {args.out / 'speed.md'} and speed.json")


def tell(text: str) -> None:
    """A line of progress: stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        sys.exit(f"generate: {error}")
