"""Fine-tune: images a second and memory of our training step, beside the loop of diffusers' text-to-image example.

    python benchmarks/finetune.py -o OUTDIR [--scale 4] [--size 256] [--batch 4] [--rounds 8] [--device auto]

No weights are needed: Stable Diffusion 1.5's networks are built from their configuration with every width divided by
`--scale` (1: the real size, for a GPU) and random weights. All ways train all of the UNet on the same images and sentences
with AdamW and clipping, in full precision on a CPU and bf16 autocast on a GPU; their steps take turns in one process. Memory
is measured in processes of their own.

    stock      what the example does: a DataLoader, autoencoder and text encoder at each step
    stock, cached   the same loop fed with latents and embeddings that somebody stored beforehand
    stock, averaged    `stock` with the example's `--use_ema`: a moving average of the weights, which ours always has
    ours       `medisyn train`: cached, the optimizer in one kernel, with a moving average of the weights
    ours, online    the same with autoencoder and text encoder at each step

On a CPU the processor's time is counted, which other programs disturb less than the clock's; on a GPU the clock's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from medisyn.data import images, prompts, records
from medisyn.data.records import Record

WAYS = ("stock", "stock, averaged", "stock, cached", "ours, online", "ours")
WORDS = ["chest x-ray with pneumonia", "normal chest x-ray", "dermoscopy of a melanoma", "benign naevus, dermoscopy"]


def base_folder(folder: Path, scale: int, size: int) -> Path:
    """Stable Diffusion 1.5 in its folder format, every width divided."""
    import diffusers
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    if (folder / "model_index.json").is_file():
        return folder
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-,."
    learner.train_from_iterator(WORDS, trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|startoftext|>", "<|endoftext|>"], show_progress=False, initial_alphabet=list(letters),
        end_of_word_suffix="</w>"))
    state = json.loads(learner.to_str())["model"]
    tokenizer = transformers.CLIPTokenizer(vocab=state["vocab"], merges=[tuple(m) for m in state["merges"]], model_max_length=77)
    torch.manual_seed(0)
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig(
        vocab_size=400, hidden_size=768 // scale, intermediate_size=3072 // scale, num_hidden_layers=12,
        num_attention_heads=max(1, 12 // scale), bos_token_id=0, eos_token_id=1, pad_token_id=1))
    vae = diffusers.AutoencoderKL(
        block_out_channels=tuple(n // scale for n in (128, 256, 512, 512)), latent_channels=4, layers_per_block=2,
        norm_num_groups=max(4, 32 // scale), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=size)
    unet = diffusers.UNet2DConditionModel(
        sample_size=size // 8, block_out_channels=tuple(n // scale for n in (320, 640, 1280, 1280)), layers_per_block=2,
        cross_attention_dim=768 // scale, attention_head_dim=8, norm_num_groups=max(4, 32 // scale))
    scheduler = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    pipe = diffusers.StableDiffusionPipeline(vae, text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def collection(folder: Path, n: int = 64, side: int = 300) -> Path:
    """Smooth random pictures with known facts."""
    if (folder / records.METADATA).is_file():
        return folder
    rng, found = np.random.default_rng(0), []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for k in range(n):
        picture = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(folder / "images" / f"{k}.png")
        kind, finding = ("chest_xray", "pneumonia") if k % 2 else ("dermoscopy", "melanoma")
        found.append(Record(str(k), f"images/{k}.png", kind, findings={finding: k % 4 < 2}, patient=str(k), licence="CC0-1.0"))
    records.write(found, folder)
    return folder


class Pictures(torch.utils.data.Dataset):
    """Pixels and word pieces, as the example's `preprocess_train` makes them."""

    def __init__(self, home: Path, tokenizer: object, size: int):
        self.home, self.records, self.tokenizer, self.size = home, list(records.read(home)), tokenizer, size

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        record = self.records[k]
        picture = images.square(images.decode(self.home / record.file_name).convert("RGB"), self.size)
        ids = self.tokenizer(prompts.canonical(record), max_length=77, padding="max_length", truncation=True, return_tensors="pt")
        return torch.from_numpy(images.from_picture(picture)), ids.input_ids[0]


def stock(base: Path, home: Path, size: int, batch: int, where: torch.device, cached: bool,
          averaged: bool) -> Callable[[int], None]:
    """The loop of diffusers' `train_text_to_image`, written down without accelerate, which adds nothing on one device."""
    import diffusers
    import diffusers.training_utils
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(base, local_files_only=True).to(where)
    scheduler = diffusers.DDPMScheduler.from_pretrained(base / "scheduler")
    for frozen in (pipe.vae, pipe.text_encoder):
        frozen.requires_grad_(False)
    unet = pipe.unet.train()
    average = diffusers.training_utils.EMAModel(unet.parameters()) if averaged else None
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    pictures = Pictures(home, pipe.tokenizer, size)
    loader = torch.utils.data.DataLoader(pictures, batch, shuffle=True, drop_last=True, num_workers=0 if where.type == "cpu" else 4)
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    @torch.no_grad()
    def encoded(pixels: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        latents = pipe.vae.encode(pixels.to(where)).latent_dist.sample() * pipe.vae.config.scaling_factor
        return latents, pipe.text_encoder(ids.to(where), return_dict=False)[0]

    if cached:
        kept = [encoded(*pair) for pair in loader]
    stream = iter(())

    def step(i: int) -> None:
        nonlocal stream
        with torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda"):
            if cached:
                latents, told = kept[i % len(kept)]
            else:
                pair = next(stream, None)
                if pair is None:
                    stream = iter(loader)
                    pair = next(stream)
                latents, told = encoded(*pair)
            noise = torch.randn_like(latents)
            t = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),), device=where).long()
            predicted = unet(scheduler.add_noise(latents, noise, t), t, told, return_dict=False)[0]
        F.mse_loss(predicted.float(), noise.float()).backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if average is not None:
            average.step(unet.parameters())
    return step


def ours(base: Path, home: Path, out: Path, size: int, batch: int, where: torch.device, online: bool) -> Callable[[int], None]:
    """The step of `medisyn train`."""
    from medisyn.training import adapt, cache, device, finetune, tune
    from medisyn.training.ema import Ema
    from medisyn.training.finetune_settings import FinetuneRecipe
    from medisyn.training.micro import Micro
    recipe = FinetuneRecipe(kind="finetune", base=str(base), image_size=size, device=where.type,
                            data={"collections": [str(home)]}, cache={"variants": 1, "captions": 1},
                            method={"train": "full", "min_snr": None}, tune={"batch": batch, "learning_rate": 1e-5})
    opened, known = finetune.opened(recipe, where), finetune.taught(recipe)
    what = cache.plan(known, opened, size, 1, recipe.cache)
    own = cache.fill(out / "cache", what, known, opened, recipe.cache, where)
    if online:
        own = Encoding(own, opened, known, where)
    lesson = tune.Lesson(own, [r for _, r in known], read=online)
    tuned = adapt.thaw(opened, recipe.method, 1)
    settings = recipe.tune
    optimizer = tune.optimizer_of(tuned, settings)
    network = opened.networks[opened.denoiser].train()
    device.compile_blocks(where, network, *{type(part) for part in network.modules() if type(part).__name__ in tune.BLOCKS})
    return tune.step_of(opened, lesson, tuned, Ema(tuned, settings.ema_width), optimizer, Micro(None), 1, size, recipe.method,
                        settings, 10_000, where)


class Encoding:
    """A cache that encodes at each step instead of reading: what the cache saves."""

    def __init__(self, cached: object, base: object, known: list, where: torch.device):
        self.plan, self.size, self.base, self.known, self.where = cached.plan, cached.size, base, known, where

    def latents(self, entries: np.ndarray) -> torch.Tensor:
        from medisyn.training import cache
        with torch.no_grad():
            return cache.encoded(self.base, [self.plan.entries[e] for e in entries], self.known, self.where).float()


def way(name: str, args: argparse.Namespace, where: torch.device) -> Callable[[int], None]:
    base, home = base_folder(args.out / "base", args.scale, args.size), collection(args.out / "collection")
    if name.startswith("stock"):
        return stock(base, home, args.size, args.batch, where, "cached" in name, "averaged" in name)
    return ours(base, home, args.out, args.size, args.batch, where, "online" in name)


def memory(name: str, args: argparse.Namespace) -> float:
    """Peak memory of a process that does three steps, in MiB: on a CPU libraries included, on a GPU what is allocated."""
    where = torch.device(args.device)
    step = way(name, args, where)
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for i in range(3):
        step(i)
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()   # getrusage would count the parent's, which a child inherits
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--scale", type=int, default=4, help="divides every width; 1 is the real size")
    parser.add_argument("--size", type=int, default=256, help="pixels a side")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    if args.memory_of:
        return print(json.dumps(memory(args.memory_of, args)))
    where = torch.device(args.device)
    if where.type == "cuda":
        from medisyn.training import device
        device.settle(where)
    steps = {name: way(name, args, where) for name in WAYS}
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    clock = time.perf_counter if where.type == "cuda" else time.process_time
    for i in range(args.rounds + 1):
        for name in WAYS if i % 2 else WAYS[::-1]:
            start = clock()
            steps[name](i)
            if where.type == "cuda":
                torch.cuda.synchronize()
            if i:                                   # the first round warms up
                seconds[name].append(clock() - start)
        print(f"round {i} of {args.rounds}", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "-o", str(args.out), "--scale", str(args.scale), "--size", str(args.size), "--batch",
               str(args.batch), "--device", args.device, "--memory-of"]
    held = {name: json.loads(subprocess.run([*command, name], check=True, text=True, capture_output=True).stdout.splitlines()[-1])
            for name in WAYS}
    table = ["| way | images/s (median) | to stock | to stock, cached | memory MiB | to stock | to stock, averaged |",
             "|---|---|---|---|---|---|---|"]
    found = {}
    for name in WAYS:
        ratios = {other: statistics.median(a / b for a, b in zip(seconds[other], seconds[name], strict=True))
                  for other in WAYS[:3]}
        found[name] = {"images_per_second": args.batch / statistics.median(seconds[name]), "ratios": ratios,
                       "memory_mib": held[name], "seconds": seconds[name]}
        table.append(f"| {name} | {found[name]['images_per_second']:.2f} | {ratios['stock']:.2f} | {ratios['stock, cached']:.2f} | "
                     f"{held[name]:,.0f} | {held[name] / held['stock']:.2f} | {held[name] / held['stock, averaged']:.2f} |")
    about = f"SD 1.5 with widths / {args.scale}, {args.size} px, batch {args.batch}, {where.type}, {args.rounds} rounds in turns"
    (args.out / "finetune.json").write_text(json.dumps({"about": about, "ways": found}, indent=2) + "\n")
    (args.out / "finetune.md").write_text(f"{about}\n\n" + "\n".join(table) + "\n")
    print((args.out / "finetune.md").read_text())


if __name__ == "__main__":
    main()
