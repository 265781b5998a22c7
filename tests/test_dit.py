"""The denoiser: silent at first, and later moved by everything that it is told."""

import pytest
import torch

from medisyn.models.dit import Dit, DitConfig

CONFIG = DitConfig(latent_channels=4, latent_size=8, width=32, heads=2, depth=2, stem=16, text_width=24, n_tokens=3, n_styles=5)


def told() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {"latent": torch.randn(2, 4, 8, 8, generator=draw), "t": torch.tensor([0.3, 0.7]),
            "tokens": torch.randn(2, 3, 24, generator=draw), "pooled": torch.randn(2, 24, generator=draw),
            "style": torch.tensor([0, 4]), "geometry": torch.zeros(2, 4)}


def network(perturbed: bool = True) -> Dit:
    torch.manual_seed(0)
    dit = Dit(CONFIG).eval().requires_grad_(False)
    for parameter in dit.parameters() if perturbed else ():
        parameter += 0.1 * torch.randn(parameter.shape)
    return dit


def test_it_predicts_nothing_before_it_has_learnt():
    made = network(perturbed=False)(**told())
    assert made.shape == (2, 4, 8, 8)
    assert made.abs().max() == 0


@pytest.mark.parametrize(("name", "change"), [
    ("latent", lambda x: x + 0.5), ("t", lambda t: t + 0.1), ("tokens", lambda x: x.flip(0)), ("pooled", lambda x: x.flip(0)),
    ("style", lambda s: (s + 1) % 5), ("geometry", lambda g: g + 1)])
def test_all_that_it_is_told_changes_what_it_predicts(name, change):
    dit, given = network(), told()
    before, after = dit(**given), dit(**given | {name: change(given[name])})
    assert (before - after).abs().amax((1, 2, 3)).min() > 1e-4


def test_what_is_left_out_is_no_style_and_the_whole_frame():
    dit, given = network(), told()
    none = dit(**given | {"style": torch.full((2,), CONFIG.n_styles), "geometry": torch.zeros(2, 4)})
    left_out = dit(**{name: value for name, value in given.items() if name not in ("style", "geometry")})
    assert torch.equal(none, left_out)


def test_images_of_a_batch_do_not_see_each_other():
    dit, given = network(), told()
    alone = dit(**{name: value[:1] for name, value in given.items()})
    assert torch.allclose(dit(**given)[:1], alone, atol=1e-5)


def test_it_knows_where_a_cell_lies():
    dit, given = network(), told()
    turned = dit(**given | {"latent": given["latent"].roll(2, 3)})
    assert not torch.allclose(dit(**given).roll(2, 3)[..., 4], turned[..., 4], atol=1e-3)


@pytest.mark.parametrize(("name", "shape"), [
    ("latent", (2, 4, 16, 16)), ("latent", (2, 3, 8, 8)), ("tokens", (2, 4, 24)), ("tokens", (2, 3, 32)), ("pooled", (2, 32)),
    ("geometry", (2, 3)), ("t", (3,))])
def test_a_wrong_shape_is_an_error(name, shape):
    with pytest.raises(RuntimeError):
        network()(**told() | {name: torch.zeros(shape)})


def test_an_unknown_style_is_an_error():
    with pytest.raises(IndexError):
        network()(**told() | {"style": torch.tensor([0, CONFIG.n_styles + 1])})
