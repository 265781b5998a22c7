"""Training the text encoder on text alone: captions in every wording, with the facts they state.

Two losses: the heads must say of every fact whether the caption states it present, absent or not at all;
and two wordings of the same facts must land on the same spot, other facts elsewhere (supervised
contrast, Khosla et al. 2020, arXiv:2004.11362, eq. 2). Half of the facts come from real records, half
are composed at random from the vocabulary, so that the encoder reads combinations no image shows.
"""


import json

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from medisyn.data import facts, prompts
from medisyn.data.records import Record
from medisyn.models.text import TextConfig, TextEncoder, to_pieces, train_tokenizer
from medisyn.training import batches
from medisyn.training.run import (
    Plan,
    Stage,
    Trainee,
    average_gradients,
    learning_rate,
    my_share,
    rank,
    train,
    wait,
    world,
    write_json,
)


class TextSettings(BaseModel):
    """The [text] table of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocabulary_size: int = 4096
    corpus: int = 60_000                # captions the word pieces are learnt from
    width: int = 192
    heads: int = 6
    layers: int = 3
    n_tokens: int = 8
    n_images: int = 300_000             # captions to train on (each in two wordings)
    batch: int = 128
    learning_rate: float = 1e-3
    noise: float = 0.3                  # share of captions with typos, filler words, odd case
    contrast: float = 0.2               # weight of the contrastive loss
    log_images: int = 20_000
    save_seconds: float = 120.0


def known_facts(stage: Stage) -> tuple[str, ...]:
    """The facts of this run: fixed when it starts, so that a larger vocabulary does not break a resumed one."""
    path = stage.folder / "facts.json"
    if rank() == 0 and not path.is_file():
        write_json(path, facts.names())
    wait()
    return tuple(json.loads(path.read_text(encoding="utf-8")))


def draw_captions(real: list[Record], p: np.ndarray, n: int, rng: np.random.Generator, noise: float,
                  names: tuple[str, ...]) -> tuple[list[str], list[str], np.ndarray]:
    """n captions, the same facts in other words, and the facts: two lists of n, int64 (n, len(names))."""
    first, second, stated_facts = [], [], []
    for index in np.searchsorted(np.cumsum(p), rng.random(n) * (1 - 1e-12)):
        record = real[index] if rng.random() < 0.5 else prompts.random_record(rng)
        text, stated = prompts.caption(record, rng, drop=float(rng.choice([0.0, 0.25, 0.5, 0.8])))
        other = prompts.describe(stated, rng, drop=0.0)
        first.append(prompts.noisy(text, rng, 0.03) if rng.random() < noise else text)
        second.append(prompts.noisy(other, rng, 0.03) if rng.random() < noise else other)
        stated_facts.append(facts.states(stated, names))
    return first, second, np.stack(stated_facts)


def contrastive_loss(pooled: Tensor, stated: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrast: pooled (N, D), stated (N, F); rows with equal facts attract, all others repel."""
    unit = F.normalize(pooled, dim=1)
    alike = (stated[:, None] == stated[None]).all(-1)
    itself = torch.eye(len(unit), dtype=torch.bool)
    logits = (unit @ unit.T / temperature).masked_fill(itself, -1e4)
    log_p = logits.log_softmax(1)
    positive = (alike & ~itself).float()
    return -((log_p * positive).sum(1) / positive.sum(1).clamp_min(1)).mean()


def gathered(mine: Tensor) -> Tensor:
    """The rows of all ranks, in the order of ranks; gradients reach one's own."""
    if world() == 1:
        return mine
    parts = [torch.empty_like(mine) for _ in range(world())]
    torch.distributed.all_gather(parts, mine.detach().contiguous())
    parts[rank()] = mine
    return torch.cat(parts)


def fit(stage: Stage, real: list[Record], seed: int, settings: TextSettings,
        resume: bool = True) -> tuple[TextEncoder, object] | None:
    """Train the encoder and its word pieces; None when it was stopped before its end."""
    from tokenizers import Tokenizer
    pieces_file = stage.folder / "tokenizer.json"
    if rank() == 0 and not resume:
        for file in (pieces_file, stage.folder / "facts.json"):
            file.unlink(missing_ok=True)
    names = known_facts(stage)
    p = batches.weights(real)
    if rank() == 0 and not pieces_file.is_file():
        stage.message(f"text: learning word pieces from {settings.corpus:,} captions")
        rng = batches.generator(seed, "corpus", 0)
        texts, others, _ = draw_captions(real, p, settings.corpus // 2, rng, settings.noise, names)
        train_tokenizer(texts + others, settings.vocabulary_size).save(str(pieces_file))
    wait()
    tokenizer = Tokenizer.from_file(str(pieces_file))
    torch.manual_seed(seed)
    config = TextConfig(tokenizer.get_vocab_size(), 64, settings.width, settings.heads, settings.layers,
                        settings.n_tokens, names)
    encoder = TextEncoder(config)
    optimizer = torch.optim.AdamW(encoder.parameters(), settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    plan = Plan(settings.n_images, settings.batch, seed, settings.log_images, settings.save_seconds)
    share = my_share(settings.batch)

    def step(i: int) -> dict[str, Tensor]:
        rng = batches.generator(seed, "captions", i)
        first, second, known = draw_captions(real, p, settings.batch, rng, settings.noise, names)
        stated = torch.from_numpy(known)[share].repeat(2, 1)                      # (2B, F)
        pooled = encoder(*to_pieces(tokenizer, first[share] + second[share], config.max_length))[2]
        reading = F.cross_entropy(encoder.read(pooled).flatten(0, 1), stated.flatten(), reduction="sum") / len(stated)
        contrast = contrastive_loss(gathered(pooled), gathered(stated))
        loss = reading + settings.contrast * world() * contrast  # the whole batch's, of which each rank moves its share
        optimizer.zero_grad()
        loss.backward()
        average_gradients(list(encoder.parameters()))
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings.learning_rate, i, plan.steps, 200, 0.5)
        optimizer.step()
        return {"reading": reading.detach(), "contrast": contrast.detach()}

    def validate() -> dict[str, float]:
        rng = batches.generator(seed, "validation", 0)
        return accuracy(encoder, tokenizer, *draw_captions(real, p, 512, rng, 0.0, names)[::2])

    trainee = Trainee(step, {"text": encoder}, {"adamw": optimizer}, None, validate)
    if not train(stage, plan, trainee, resume):
        return None
    return encoder.eval().requires_grad_(False), tokenizer


@torch.no_grad()
def accuracy(encoder: TextEncoder, tokenizer: object, texts: list[str], known: np.ndarray) -> dict[str, float]:
    """Share of stated facts read rightly, and share of captions read without any error or invention."""
    read = encoder.read(encoder(*to_pieces(tokenizer, texts, encoder.config.max_length))[2]).argmax(-1).numpy()
    stated = known > 0
    return {"stated_facts_read": float((read == known)[stated].mean()),
            "captions_without_error": float((read == known).all(1).mean())}


