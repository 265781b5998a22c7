"""The text encoder: what it is given, and that blanks around it change nothing."""

import pytest
import torch

from medisyn.models.text import STATES, TextConfig, TextEncoder, plain, to_pieces, train_tokenizer

CORPUS = ["Chest X-ray, left lower lobe pneumonia", "Dermoscopy of a melanoma on the back", "normal chest X-ray",
          "brain MRI, glioma, T1 post contrast", "no pneumonia, no effusion"] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(CORPUS, 180)


@pytest.fixture(scope="module")
def encoder(tokenizer):
    torch.manual_seed(0)
    config = TextConfig(tokenizer.get_vocab_size(), 16, width=32, heads=2, layers=2, n_tokens=3, facts=("chest", "melanoma"))
    return TextEncoder(config).eval().requires_grad_(False)


@pytest.mark.parametrize(("typed", "seen"), [
    ("Chest X-RAY", "chest x-ray"),
    ("cliché\tnaïve\n  Sjögren", "cliche naive sjogren"),
    ("X\u2013ray \u2014 PA", "x-ray - pa"),
    ("  ", ""),
    ("\ufb01lm", "film"),
])
def test_case_accents_dashes_and_blanks_are_folded(typed, seen):
    assert plain(typed) == seen
    assert plain(plain(typed)) == seen


def test_the_same_corpus_gives_the_same_pieces():
    first, *others = (train_tokenizer(CORPUS, 180).to_str() for _ in range(4))
    assert others == [first] * 3


def test_every_word_of_the_corpus_is_made_of_known_pieces(tokenizer):
    for text in CORPUS:
        pieces = tokenizer.encode(plain(text)).tokens
        assert "[UNK]" not in pieces
        assert "".join(p.removeprefix("##") for p in pieces) == plain(text).replace(" ", "")
    assert "[UNK]" in tokenizer.encode("☃").tokens


def test_pieces_are_padded_to_the_longest_and_cut_at_the_most(tokenizer):
    pieces, mask = to_pieces(tokenizer, ["normal", "", "pneumonia " * 50], 16)
    assert pieces.shape == mask.shape == (3, 16)
    assert mask.sum(1).tolist() == [1, 0, 16]
    assert pieces[~mask].abs().max() == 0
    assert to_pieces(tokenizer, [""], 16)[0].shape == (1, 1)


def test_padding_does_not_change_the_result(encoder, tokenizer):
    texts = ["normal chest X-ray", "Dermoscopy of a melanoma on the back, no pneumonia", ""]
    together = encoder(*to_pieces(tokenizer, texts, 16))
    for i, text in enumerate(texts):
        alone = encoder(*to_pieces(tokenizer, [text], 16))
        assert torch.allclose(together[0][i], alone[0][0], atol=1e-5)
        assert torch.allclose(together[2][i], alone[2][0], atol=1e-5)


def test_the_order_of_words_is_read(encoder, tokenizer):
    a, b = encoder(*to_pieces(tokenizer, ["melanoma, no pneumonia", "pneumonia, no melanoma"], 16))[2]
    assert not torch.allclose(a, b, atol=1e-3)


def test_shapes_for_the_denoiser(encoder, tokenizer):
    tokens, mask, pooled = encoder(*to_pieces(tokenizer, ["normal", "no effusion"], 16))
    assert tokens.shape == (2, 3, 32)
    assert mask.shape == (2, 3)
    assert mask.all()
    assert pooled.shape == (2, 32)
    assert encoder.read(pooled).shape == (2, 2, len(STATES))
