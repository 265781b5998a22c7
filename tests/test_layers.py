"""Layers: shapes, invariances and what they are when nothing has been learnt."""

import pytest
import torch

from medisyn.models.layers import (
    Attention,
    ConvBlock,
    Down,
    SwiGLU,
    Up,
    rotary_1d,
    rotary_2d,
    rotate,
    wave_embedding,
)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_a_fresh_block_passes_its_input_on():
    x = torch.randn(2, 24, 8, 8)
    assert torch.equal(ConvBlock(24)(x), x)


def test_down_halves_and_up_doubles():
    x = torch.randn(2, 8, 16, 12)
    assert Down(8, 24)(x).shape == (2, 24, 8, 6)
    assert Up(8, 24)(x).shape == (2, 24, 32, 24)


def test_nothing_in_nothing_out_of_a_gate():
    layer = SwiGLU(8, 16)
    assert layer(torch.zeros(3, 8)).abs().max() == 0
    assert layer(torch.randn(2, 5, 8)).shape == (2, 5, 8)


def test_a_masked_token_is_never_seen():
    attention, x = Attention(16, 2), torch.randn(2, 6, 16)
    mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    other = x.clone()
    other[:, 4:] = 100 * torch.randn(2, 2, 16)
    assert torch.allclose(attention(x, mask=mask)[0][:, :4], attention(other, mask=mask)[0][:, :4], atol=1e-5)
    assert not torch.allclose(attention(x)[0][:, :4], attention(other)[0][:, :4], atol=1e-2)


def test_without_positions_attention_does_not_know_the_order():
    attention, x = Attention(16, 2), torch.randn(1, 6, 16)
    turned = torch.arange(6).flip(0)
    assert torch.allclose(attention(x)[0][:, turned], attention(x[:, turned])[0], atol=1e-5)
    rotary = rotary_1d(6, 8)
    assert not torch.allclose(attention(x, rotary)[0][:, turned], attention(x[:, turned], rotary)[0], atol=1e-4)


def test_the_first_value_is_mixed_in_by_half_at_the_start():
    attention, x, first = Attention(16, 2), torch.randn(1, 3, 16), torch.randn(1, 2, 3, 8)
    own = attention(x)[1]
    assert torch.allclose(attention(x, first_value=first)[1], (own + first) / 2, atol=1e-6)


def test_turning_keeps_lengths_and_sees_distances_alone():
    rotary = rotary_1d(12, 8)
    q, k = torch.randn(2, 8)
    turned_q, turned_k = rotate(q.expand(12, 8), rotary), rotate(k.expand(12, 8), rotary)
    assert torch.allclose(turned_q.norm(dim=1), q.norm().expand(12), atol=1e-5)
    products = turned_q @ turned_k.T
    assert torch.allclose(products[1:, 1:], products[:-1, :-1], atol=1e-5)
    assert torch.allclose(products[0, 0], q @ k, atol=1e-5)


def test_in_a_grid_rows_and_columns_turn_different_pairs():
    cos, sin = rotary_2d(3, 4, 16, prefix=2)
    assert cos.shape == sin.shape == (2 + 12, 8)
    assert torch.equal(sin[:2], torch.zeros(2, 8))
    grid = sin[2:].view(3, 4, 8)
    assert torch.equal(grid[:, 0, :4], grid[:, 3, :4])
    assert torch.equal(grid[0, :, 4:], grid[2, :, 4:])
    assert torch.equal(grid[1, 0, :4], grid[0, 1, 4:])


def test_a_wave_embedding_starts_at_cosine_one_and_sine_zero():
    waves = wave_embedding(torch.tensor([0.0, 0.5]), 16)
    assert torch.equal(waves[0], torch.tensor([1.0] * 8 + [0.0] * 8))
    assert torch.allclose(waves[1, [0, 8]], torch.tensor([0.5]).cos().item() * torch.tensor([1.0, 0.0])
                          + torch.tensor([0.5]).sin().item() * torch.tensor([0.0, 1.0]))
