"""The recogniser: it learns what is known of real images, and chooses among images without deciding their pixels."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import phantoms
import pytest
import torch

from medisyn import making, recipe, synthesizer
from medisyn.data import records
from medisyn.data.provenance import Provenance
from medisyn.data.records import Record
from medisyn.models import checkpoint
from medisyn.models.recogniser import Recogniser, RecogniserConfig, doubt
from medisyn.training import batches, device, recogniser, run, stages
from medisyn.training.run import Stage

PROMPT = "chest X-ray with pneumonia"
CONFIG = RecogniserConfig(("chest_xray", "dermoscopy"), ("chest_xray/pneumonia",), 32, (32, 32, 32))


class Fake(Recogniser):
    """Says of each image in turn what it was told to say: (logit of chest X-ray, logit of pneumonia)."""

    def __init__(self, *told: tuple[float, float]):
        super().__init__(CONFIG)
        self.told, self.asked = told, 0

    def forward(self, image):
        kind, finding = self.told[min(self.asked, len(self.told) - 1)]
        self.asked += 1
        return torch.tensor([[kind, 0.0]]), torch.tensor([[finding]])


def looking(maker: synthesizer.Synthesizer, *told: tuple[float, float]) -> synthesizer.Synthesizer:
    return synthesizer.Synthesizer(dataclasses.replace(maker.model, recogniser=Fake(*told)), maker.version)


def test_it_learns_types_and_findings_of_phantoms(tmp_path):
    pixels = batches.pack([phantoms.collection(tmp_path / "c", n=60)], tmp_path / "pixels", 36)
    settings = recogniser.RecogniserSettings(n_images=1600, side=32, widths=(32, 32, 32), batch=16, log_images=1600)
    network = recogniser.fit(Stage(tmp_path, "recogniser"), pixels, 1, settings)
    assert network.config.image_types == ("chest_xray", "dermoscopy")
    assert "chest_xray/pneumonia" in network.config.findings
    found = recogniser.accuracy(network, pixels, np.arange(len(pixels.records)), 32)
    assert found["held_out_types"] > 0.95
    assert found["held_out_findings"] > 0.8


def test_with_a_stem_twice_the_pixels_are_told_at_the_same_size_within():
    config = dataclasses.replace(CONFIG, side=64, stem=2)
    seen = [Recogniser(c).trunk(torch.zeros(1, 3, c.side, c.side)).shape for c in (CONFIG, config)]
    assert seen[0] == seen[1]
    types, findings = Recogniser(config)(torch.zeros(2, 3, 100, 100))
    assert types.shape == (2, 2) and findings.shape == (2, 1)


def test_a_recipe_chooses_the_stem(tmp_path):
    pixels = batches.pack([phantoms.collection(tmp_path / "c", n=24)], tmp_path / "pixels", 36)
    settings = recogniser.RecogniserSettings(n_images=16, side=32, stem=2, widths=(32, 32, 32), batch=8, log_images=16)
    network = recogniser.fit(Stage(tmp_path, "recogniser"), pixels, 1, settings)
    assert network.config.stem == 2 and network.trunk[0].stride == (2, 2)


def test_in_bf16_it_learns_as_in_full_precision(tmp_path):
    pixels = batches.pack([phantoms.collection(tmp_path / "c", n=24)], tmp_path / "pixels", 36)
    settings = recogniser.RecogniserSettings(n_images=64, side=32, widths=(32, 32, 32), batch=8, log_images=64)
    full, half = (trained(tmp_path / how, pixels, settings, how) for how in ("fp32", "bf16"))
    assert full != half                               # bf16 was in use
    assert half == pytest.approx(full, rel=0.05)


def trained(folder: Path, pixels: batches.Pixels, settings: recogniser.RecogniserSettings, precision: str) -> float:
    """The last loss."""
    device.quicken(precision)
    recogniser.fit(Stage(folder, "recogniser"), pixels, 1, settings)
    lines = (folder / "recogniser" / "log.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["loss"]


def test_a_stopped_training_is_the_uninterrupted_one(tmp_path, monkeypatch):
    pixels = batches.pack([phantoms.collection(tmp_path / "c", n=24)], tmp_path / "pixels", 36)
    settings = recogniser.RecogniserSettings(n_images=64, side=32, widths=(32, 32, 32), batch=8, log_images=64)
    whole = recogniser.fit(Stage(tmp_path / "a", "recogniser"), pixels, 1, settings)
    usual, left = run.Stop.agreed, [3]

    def agreed(stop):
        left[0] -= 1
        return usual(stop) or left[0] < 0
    monkeypatch.setattr(run.Stop, "agreed", agreed)
    assert recogniser.fit(Stage(tmp_path / "b", "recogniser"), pixels, 1, settings) is None
    monkeypatch.setattr(run.Stop, "agreed", usual)
    again = recogniser.fit(Stage(tmp_path / "b", "recogniser"), pixels, 1, settings)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_questions_are_those_that_both_answers_are_known_of():
    def some(n, **findings):
        return [Record(f"{findings}{i}", "", "chest_xray", findings=findings) for i in range(n)]
    known = some(20, pneumonia=True) + some(20, pneumonia=False) + some(19, cardiomegaly=True) + some(30, cardiomegaly=False)
    types, findings = recogniser.questions(known)
    assert types == ("chest_xray",)
    assert "chest_xray/pneumonia" in findings and "chest_xray/cardiomegaly" not in findings


def test_unknown_findings_do_not_count():
    clear = Record("b", "", "chest_xray", findings={"pneumonia": False})
    kinds, states = recogniser.truth([Record("a", "", "dermoscopy"), clear], CONFIG)
    assert kinds.tolist() == [1, 0]
    assert math.isnan(states[0, 0]) and states[1, 0] == 0
    logits = torch.zeros(2, 2), torch.tensor([[100.0], [-100.0]])
    assert recogniser.loss(logits, kinds, states, torch.ones(1)) == pytest.approx(math.log(2))


def test_doubt_is_the_logarithm_of_what_it_believes():
    image = torch.zeros(3, 32, 32)
    right, total = doubt(Fake((0.0, 0.0)), image, "chest_xray", {"pneumonia": True, "cardiomegaly": True})
    assert total == pytest.approx(2 * math.log(2))
    assert doubt(Fake((3.0, 2.0)), image, "chest_xray", {"pneumonia": True})[0]
    assert not doubt(Fake((3.0, 2.0)), image, "chest_xray", {"pneumonia": False})[0]
    assert not doubt(Fake((-3.0, 2.0)), image, "chest_xray", {})[0]
    assert doubt(Fake((-3.0, 2.0)), image, "mri", {"glioma": True}) == (True, 0.0)


def test_an_image_type_must_be_recognised_surely():
    image = torch.zeros(3, 32, 32)
    assert not doubt(Fake((2.0, 0.0)), image, "chest_xray", {})[0]  # 0.88
    assert doubt(Fake((2.3, 0.0)), image, "chest_xray", {})[0]      # 0.91


def test_a_finding_is_told_at_the_limit_of_its_own(monkeypatch):
    image, fake = torch.zeros(3, 32, 32), Fake((3.0, -1.0))
    assert not doubt(fake, image, "chest_xray", {"pneumonia": True})[0]
    fake.config = dataclasses.replace(CONFIG, limits=(-2.0,))
    assert doubt(fake, image, "chest_xray", {"pneumonia": True})[0]
    assert not doubt(fake, image, "chest_xray", {"pneumonia": False})[0]


def test_the_best_limit_lies_between_two_kinds_of_images():
    present = np.repeat([False, True], 50)
    logits = np.concatenate([np.linspace(-4, -3, 50), np.linspace(-2, -1, 50)])
    assert recogniser.best_limit(logits, present) == pytest.approx(-2.5)
    assert recogniser.best_limit(logits[:59], present[:59]) == 0.0  # nine images show it: too few to say


def test_limits_come_from_held_out_images(tmp_path):
    pixels = batches.pack([phantoms.collection(tmp_path / "c", n=60)], tmp_path / "pixels", 36)
    torch.manual_seed(0)
    network = Recogniser(CONFIG).eval()
    rows = np.arange(len(pixels.records))
    before = recogniser.accuracy(network, pixels, rows, 32)["held_out_findings"]
    network = recogniser.calibrated(network, pixels, rows)
    assert len(network.config.limits) == 1 and network.config.limits[0] != 0
    assert recogniser.accuracy(network, pixels, rows, 32)["held_out_findings"] > max(before, 0.5)


def test_what_is_recognised_at_once_is_what_would_have_been_made(maker):
    plain, (looked,) = maker.generate(PROMPT, seed=3)[0], looking(maker, (5.0, 5.0)).generate(PROMPT, seed=3)
    assert np.array_equal(looked.image, plain.image)
    assert looked.record.id == plain.record.id
    assert (looked.record.provenance.drawn.recognised, looked.record.provenance.drawn.draw) == (True, 0)


def test_what_is_not_recognised_is_drawn_again_and_can_be_made_again(maker):
    again = looking(maker, (-5.0, 5.0), (5.0, -5.0), (5.0, 5.0))
    (made,) = again.generate(PROMPT, seed=3)
    how = made.record.provenance
    assert (how.drawn.recognised, how.drawn.draw) == (True, 2)
    assert how.seed != 3 and how.drawn.asked == maker.generate(PROMPT, seed=3)[0].record.id
    assert np.array_equal(again.remake(how).image, made.image)
    assert np.array_equal(maker.generate(PROMPT, seed=how.seed)[0].image, made.image)
    assert not np.array_equal(maker.generate(PROMPT, seed=3)[0].image, made.image)


def test_where_none_is_recognised_the_least_doubtful_is_taken_and_says_so(maker):
    told = [(-3.0, 5.0), (-1.0, 5.0), (-2.0, 5.0), (-4.0, 5.0)]
    (made,) = looking(maker, *told).generate(PROMPT, seed=3)
    assert (made.record.provenance.drawn.recognised, made.record.provenance.drawn.draw) == (False, 1)
    assert looking(maker, *told).model.recogniser.asked == 0 and synthesizer.DRAWS == len(told)


def test_a_prompt_without_a_known_image_type_is_not_looked_at(maker):
    (made,) = looking(maker, (-5.0, -5.0)).generate("something pleasant", seed=3)
    assert made.record.provenance.drawn is None


def test_what_was_drawn_again_is_not_made_again(maker, tmp_path, monkeypatch):
    asked = [(PROMPT, 2, 3)]
    again = looking(maker, (-5.0, 5.0), (5.0, 5.0))
    plans = {PROMPT: again.plan(PROMPT)}
    first = list(making.write(making.make_all(again, plans, asked, tmp_path), tmp_path))
    monkeypatch.setattr(again, "make", lambda *_: pytest.fail("made again"))
    second = list(making.write(making.make_all(again, plans, asked, tmp_path), tmp_path))
    assert [one.record for one in first] == [one.record for one in second] == list(records.read(tmp_path))


def test_what_was_said_of_an_image_survives_its_file(maker):
    how = looking(maker, (5.0, 5.0)).generate(PROMPT, seed=3)[0].record.provenance
    assert Provenance.from_dict(how.as_dict()) == how
    assert "drawn" not in maker.generate(PROMPT, seed=3)[0].record.provenance.as_dict()


def test_a_model_folder_holds_it_where_there_is_one(phantom_recipe, phantom_run, tmp_path):
    folder = shutil.copytree(phantom_run, tmp_path / "run")
    settings = recipe.read(phantom_recipe, ["recogniser.n_images=16", "recogniser.batch=8", "recogniser.side=32",
                                            "recogniser.widths=[32, 32, 32]"])
    stages.run(settings, folder, ["recogniser", "model"])
    with_one, without = checkpoint.load(folder / "model"), checkpoint.load(phantom_run / "model")
    assert with_one.recogniser.config.image_types == ("chest_xray", "dermoscopy")
    assert without.recogniser is None
    assert with_one.digest != without.digest
