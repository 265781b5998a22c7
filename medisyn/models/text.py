"""The text encoder: a clinical sentence becomes a few tokens and one pooled vector.

Word pieces pass a small transformer together with a handful of learned query tokens; what the
queries have gathered is the sentence's meaning, at a fixed cost to the denoiser however long the
prompt was. Heads on the pooled vector say which facts were read: trained on text alone, then frozen.
"""

import unicodedata
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medisyn.models.layers import Attention, SwiGLU, rotary_1d

STATES = ("unstated", "present", "absent")  # what a sentence says of a fact


@dataclass(frozen=True)
class TextConfig:
    vocabulary_size: int = 4096
    max_length: int = 64                  # word pieces read of a prompt; the rest is cut
    width: int = 192
    heads: int = 6
    layers: int = 3
    n_tokens: int = 8                     # query tokens handed to the denoiser
    facts: tuple[str, ...] = ()           # names the heads know, in their order


class TextBlock(nn.Module):
    """Pre-norm transformer layer. (B, L, D) -> (B, L, D)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.feed_forward = SwiGLU(width, (8 * width // 3 + 31) // 32 * 32)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), rotary, mask)[0]
        return x + self.feed_forward(self.norm2(x))


class TextEncoder(nn.Module):
    """pieces (B, L) int64, mask (B, L) bool -> tokens (B, n_tokens, D), mask (B, n_tokens), pooled (B, D)."""

    def __init__(self, config: TextConfig = TextConfig()):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.queries = nn.Parameter(torch.randn(config.n_tokens, config.width) * 0.02)
        self.blocks = nn.ModuleList(TextBlock(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.pool = nn.Linear(config.n_tokens * config.width, config.width)
        self.heads = nn.Linear(config.width, len(STATES) * len(config.facts))

    def forward(self, pieces: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, n = len(pieces), self.config.n_tokens
        x = torch.cat((self.queries.expand(b, -1, -1), self.embedding(pieces)), 1)     # (B, n + L, D)
        seen = torch.cat((torch.ones(b, n, dtype=torch.bool, device=mask.device), mask), 1)
        rotary = rotary_1d(x.shape[1], self.config.width // self.config.heads)
        for block in self.blocks:
            x = block(x, tuple(r.to(x.device) for r in rotary), seen)
        tokens = self.norm(x[:, :n])                                                   # (B, n, D)
        return tokens, seen[:, :n], self.pool(tokens.flatten(1))

    def read(self, pooled: Tensor) -> Tensor:
        """Log-odds of what the sentence says of each fact: (B, n_facts, 3), in the order of STATES."""
        return self.heads(pooled).unflatten(1, (-1, len(STATES)))


def plain(text: str) -> str:
    """Lower case, one kind of dash and blank, no accents: what the word pieces see."""
    text = unicodedata.normalize("NFKD", text).lower()
    text = "".join(c for c in text if not unicodedata.combining(c))
    return " ".join(text.replace("–", "-").replace("—", "-").split())


def train_tokenizer(texts: list[str], size: int) -> object:
    """Word pieces learnt from a corpus, as a `tokenizers.Tokenizer`: the same corpus gives the same pieces.

    The trainer numbers continuing letters in the random order of a hash map, and breaks ties by these numbers;
    naming them beforehand makes their order ours.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    texts = [plain(text) for text in texts]
    letters = sorted(set("abcdefghijklmnopqrstuvwxyz0123456789-/.,;:()+&%'").union(*texts) - {" "})
    special = ["[PAD]", "[UNK]"]

    def pieces_of(vocabulary: dict[str, int] | None) -> Tokenizer:
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=40))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return tokenizer

    learner = pieces_of(None)
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=special + [f"##{letter}" for letter in letters],
                                        initial_alphabet=letters, continuing_subword_prefix="##", show_progress=False)
    learner.train_from_iterator(texts, trainer)
    tokenizer = pieces_of(learner.get_vocab())
    tokenizer.add_special_tokens(special)
    return tokenizer


def to_pieces(tokenizer: object, texts: list[str], max_length: int) -> tuple[Tensor, Tensor]:
    """Word pieces of each text, padded to the longest: (B, L) int64 and its mask (B, L) bool; L >= 1."""
    rows = [e.ids[:max_length] for e in tokenizer.encode_batch([plain(t) for t in texts])]
    length = max(1, *map(len, rows)) if rows else 1
    pieces, mask = torch.zeros(len(rows), length, dtype=torch.long), torch.zeros(len(rows), length, dtype=torch.bool)
    for i, ids in enumerate(rows):
        pieces[i, :len(ids)] = torch.tensor(ids, dtype=torch.long)
        mask[i, :len(ids)] = True
    return pieces, mask
