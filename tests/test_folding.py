"""A denoiser that was to guide itself, and did not learn to, is guided by two calls."""

import json
from types import SimpleNamespace

import pytest
import torch

from medisyn import recipe
from medisyn.models import checkpoint
from medisyn.models.dit import Dit, DitConfig
from medisyn.training import folding, latents, stages
from medisyn.training.batches import Pixels


class Sharing:
    """A denoiser that gives in one call a share of the guidance of its own two calls."""

    def __init__(self, encoded: latents.Latents, share: float):
        self.config = SimpleNamespace(guided=2.0, n_styles=encoded.n_styles)
        self.last, self.share = SimpleNamespace(weight=torch.zeros(1)), share

    def __call__(self, x, t, tokens, pooled, style, geometry=None, w=None):
        told = (style != self.config.n_styles).float().view(-1, 1, 1, 1)
        guided = 0.0 if w is None else self.share * w.view(-1, 1, 1, 1) * 0.3
        return x + told * (0.3 + guided)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_what_one_call_gives_of_two_is_measured(phantom_run, share):
    encoded = latents.load(phantom_run / "latents")
    found = folding.learnt(Sharing(encoded, share), stages.reader(phantom_run), encoded, Pixels(phantom_run / "pixels").records, 3)
    assert found == pytest.approx(share, abs=1e-3)


def test_too_little_makes_it_a_denoiser_of_two_calls_and_is_said():
    dit, said = Dit(DitConfig(4, 8, 32, 2, 2, 16, 24, 3, 5, guided=1.5)).eval(), []
    assert folding.checked(dit, 0.5, 0.6, said.append) is dit
    assert folding.checked(dit, 0.5, 0.1, said.append).config.guided == 0
    assert "gives 60% of the guidance of two" in said[0]
    assert "gives 10% of the guidance of two, less than dit.guided_least = 0.5: the model takes two calls" in said[1]


@pytest.mark.parametrize(("least", "guided"), [(0.5, 0.0), (-9.0, 2.0)])
def test_a_model_says_whether_it_guides_itself_by_what_it_learnt(phantom_recipe, phantom_run, tmp_path, capsys, least, guided):
    """Trained from scratch for 12 steps: what reads w has hardly begun to matter."""
    start = f"start={json.dumps(str(phantom_run / 'model'))}"
    settings = recipe.read(phantom_recipe, [start, "dit.guided=2.0", "dit.n_images=16", f"dit.guided_least={least}"])
    stages.run(settings, tmp_path)
    model = checkpoint.load(tmp_path / "model")
    assert model.card.guided == model.dit.config.guided == guided
    assert ("guides itself" in (tmp_path / "model" / "README.md").read_text()) == bool(guided)
    assert json.loads((tmp_path / "dit" / "done.json").read_text())["guidance_learnt"] < 0.5
    assert "of the guidance of two" in capsys.readouterr().err
