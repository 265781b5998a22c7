"""The guard: what copies a training image is not handed out, what does not is, and every file says so."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from medisyn import making, synthesizer
from medisyn.data import images, records
from medisyn.data.provenance import Guarded, Provenance, Verdict
from medisyn.evaluation import guard
from medisyn.evaluation.features import Extractor
from medisyn.models import checkpoint

SIDE = 48
PROMPT = "chest X-ray with pneumonia"


def projected(pixels: np.ndarray) -> np.ndarray:
    cells = pixels.reshape(len(pixels), 8, SIDE // 8, 8, SIDE // 8, 3).mean((2, 4)).reshape(len(pixels), -1)
    return (cells @ np.random.default_rng(0).normal(size=(192, 24)) / 100).astype(np.float32)


EXTRACTOR = Extractor("test", "0" * 12, SIDE, 24, projected)


def scenes(n: int, seed: int, side: int = 64) -> np.ndarray:
    light = gaussian_filter(np.random.default_rng(seed).normal(size=(n, side, side, 3)), (0, 4, 4, 0))
    light /= light.std((1, 2, 3), keepdims=True)
    return np.clip(128 + 45 * light, 0, 255).astype(np.uint8)


TRAIN, KINDS = scenes(120, 0), ["chest_xray", "dermoscopy"] * 60
PATIENTS = [f"p{i // 4}" for i in range(120)]


@pytest.fixture(scope="module")
def index() -> guard.Index:
    return guard.index_of(lambda rows: TRAIN[rows], KINDS, PATIENTS, EXTRACTOR)


@pytest.fixture(scope="module")
def accept(index) -> guard.Accept:
    return guard.accepting(index, EXTRACTOR, "abc")


def passed(accept: guard.Accept, pixels: np.ndarray) -> float:
    return float(np.mean([v.accepted for v in accept(list(pixels), [None] * len(pixels))]))


# ---- the index -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("change", [lambda x: x, lambda x: x[:, :, ::-1], lambda x: x[:, ::-1], lambda x: x.swapaxes(1, 2),
                                    lambda x: np.rot90(x, 1, (1, 2)), lambda x: (x * 0.8 + 20).astype(np.uint8),
                                    lambda x: gaussian_filter(x, (0, 1, 1, 0))],
                         ids=["plain", "mirrored", "upside down", "transposed", "turned", "paler", "softer"])
def test_a_training_image_is_blocked_however_it_lies(accept, change):
    assert passed(accept, np.ascontiguousarray(change(TRAIN[:24]))) == 0


def test_unseen_images_pass(accept):
    assert passed(accept, scenes(150, 9)) >= 0.97


def test_floats_of_a_synthesizer_are_judged_as_the_pixels_of_its_file(accept):
    as_float = [images.from_picture(Image.fromarray(p)) for p in TRAIN[:2]]
    assert accept(as_float, [None, None]) == accept(list(TRAIN[:2]), [None, None])
    gray = images.from_picture(Image.fromarray(TRAIN[0, :, :, 0]))
    assert accept([gray], ["chest_xray"])[0].limit > 0


def test_an_index_is_the_same_after_a_trip_to_the_disk(index, accept, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "SHARD", 50)
    guard.build(tmp_path, index)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["guard.json", *(f"index-0000{k}-of-00003.safetensors" for k in (1, 2, 3))]
    again = guard.load(tmp_path, EXTRACTOR)
    mixed = list(TRAIN[:3]) + list(scenes(3, 4))
    there, here = ([(v.accepted, v.likeness) for v in judge(mixed, [None] * 6)] for judge in (again, accept))
    assert there == here
    assert again(mixed[:1], [None])[0].guard == guard.digest(tmp_path)


def test_an_index_holds_no_picture(index, tmp_path):
    """Less than 400 bytes an image, however large it was; the signs of at most 143 frequencies of any part."""
    guard.build(tmp_path, index)
    large = guard.index_of(lambda rows: np.repeat(np.repeat(TRAIN[rows], 4, 1), 4, 2), KINDS, PATIENTS,
                           dataclasses.replace(EXTRACTOR, apply=lambda x: projected(x)))
    for one in (index, large):
        a_row = one.features[:1].nbytes + one.signs[:, :1].nbytes + one.kind[:1].nbytes
        assert a_row < 450
        assert one.signs.shape[0] == len(guard.CROPS)


def test_another_extractor_is_refused(index, tmp_path):
    guard.build(tmp_path, index)
    with pytest.raises(ValueError, match="was built with test 000000000000, found test 111111111111; build the guard again"):
        guard.load(tmp_path, dataclasses.replace(EXTRACTOR, weights="1" * 12))


def test_a_broken_index_says_what_to_do(index, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected guard.json; build one with"):
        guard.load(tmp_path, EXTRACTOR)
    guard.build(tmp_path, index)
    shard = next(tmp_path.glob("index-*"))
    shard.write_bytes(shard.read_bytes()[:-40])
    with pytest.raises(ValueError, match="expected a guard, found SafetensorError"):
        guard.load(tmp_path, EXTRACTOR)
    shard.unlink()
    with pytest.raises(ValueError, match="expected a guard"):
        guard.load(tmp_path, EXTRACTOR)


def test_a_type_of_one_patient_takes_the_strictest_limit():
    kinds = ["chest_xray"] * 40 + ["laryngoscopy"] * 6
    one = guard.index_of(lambda rows: TRAIN[rows], kinds, [f"p{min(i, 40)}" for i in range(46)], EXTRACTOR)
    assert "the strictest limit" in one.scales["laryngoscopy"].limit.note
    assert passed(guard.accepting(one, EXTRACTOR), TRAIN[:46]) == 0


def test_whitened_features_vary_alike():
    features = np.random.default_rng(0).normal(size=(400, 6)) * [1, 2, 3, 10, 50, 100]
    mean, whitening = guard.whitened(features.astype(np.float32))
    assert ((features - mean) @ whitening)[:, :3].std(0) == pytest.approx(np.ones(3), abs=0.05)


# ---- generation under a guard ----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def maker(maker) -> synthesizer.Synthesizer:
    """The phantom model without its recogniser: what is drawn again here, a guard had drawn again."""
    return synthesizer.Synthesizer(dataclasses.replace(maker.model, recogniser=None), maker.version)


def refusing(blocked: set[int], seeds: list[int]):
    """A guard that refuses the tries of these numbers, in the order they come."""
    count = [0]

    def accept(made, kinds):
        seeds.append(count[0])
        count[0] += 1
        return [Verdict(count[0] - 1 not in blocked, 3.0, 2.0, "index-a")]
    return accept


def alone(maker, accept, seed: int = 5, block: bool = True):
    plan = maker.plan(PROMPT)
    return synthesizer.guarded(maker, accept, block)(plan, maker.settings(plan, seed))


def test_a_blocked_image_is_drawn_again_from_a_seed_that_follows(maker):
    first = alone(maker, refusing({0, 1}, []))
    again = alone(maker, refusing({0, 1}, []))
    assert np.array_equal(first.image, again.image)
    assert first.record == again.record
    how = first.record.provenance
    assert how.seed == synthesizer.another_seed(5, "again", 2) < 2**62
    assert how.guard == Guarded("passed", 3.0, 2.0, 2, synthesizer.name_of(maker.settings(maker.plan(PROMPT), 5)), "index-a")


def test_a_guard_that_passes_changes_no_pixel_and_no_name(maker):
    under, = maker.generate(PROMPT, seed=5, accept=refusing(set(), []))
    free, = maker.generate(PROMPT, seed=5)
    assert np.array_equal(under.image, free.image)
    assert under.record.id == free.record.id
    assert dataclasses.replace(under.record.provenance, guard=None) == free.record.provenance


def test_four_tries_and_no_more(maker):
    seen: list[int] = []
    refused = alone(maker, refusing(set(range(9)), seen))
    assert isinstance(refused, synthesizer.Refused)
    assert len(seen) == len(refused.verdicts) == synthesizer.TRIES == 4
    assert "seed 5 of 'chest X-ray with pneumonia' was refused: 4 tries, each too alike to a training image" in refused.reason
    assert maker.generate(PROMPT, n=2, accept=refusing(set(range(9)), [])) == []


def test_flagging_blocks_nothing(maker):
    made = alone(maker, refusing({0}, []), block=False)
    assert made.record.provenance.seed == 5
    assert made.record.provenance.guard.verdict == "flagged"


def test_a_planted_maker_is_blocked_every_time_and_unseen_ones_pass(maker, accept, monkeypatch):
    """A maker that returns a training image, whatever it is asked for."""
    make = synthesizer.Synthesizer.make

    def planted(source):
        def give(self, plan, how):
            one = make(self, plan, how)
            return synthesizer.Synthetic(images.from_picture(Image.fromarray(source[how.seed % len(source)])), one.record)
        return give
    monkeypatch.setattr(synthesizer.Synthesizer, "make", planted(TRAIN))
    assert maker.generate(PROMPT, n=6, accept=accept) == []
    monkeypatch.setattr(synthesizer.Synthesizer, "make", planted(scenes(20, 9)))
    assert len(maker.generate(PROMPT, n=6, accept=accept)) == 6


def test_a_drawn_again_image_is_made_again_from_its_file(maker, tmp_path):
    made = alone(maker, refusing({0}, []))
    path = images.write_png(made.image, tmp_path / "a.png", made.record.provenance)
    assert images.read_provenance(path) == made.record.provenance
    assert making.compare(maker, path, made.record.provenance)["same"] is True


def test_files_of_before_there_was_a_guard_are_read(maker):
    how = maker.settings(maker.plan(PROMPT), 5)
    row = how.as_dict()
    assert "guard" not in row
    assert Provenance.from_dict(json.loads(json.dumps(row))) == how
    under = dataclasses.replace(how, guard=Guarded("passed", 1.0, 2.0, 0, "x", "y"))
    assert Provenance.from_dict(json.loads(json.dumps(under.as_dict()))) == under


def test_images_that_were_drawn_again_are_not_made_again(maker, tmp_path, monkeypatch):
    plans, asked = {PROMPT: maker.plan(PROMPT)}, [(PROMPT, 2, 0)]

    def all_of(accept, block=True, name="index-a"):
        return list(making.write(making.make_all(maker, plans, asked, tmp_path, None, None, accept, block, name), tmp_path))
    monkeypatch.setattr(synthesizer, "cores", lambda: 1)
    first = all_of(refusing({0}, []))
    calls, make = [], synthesizer.Synthesizer.make
    monkeypatch.setattr(synthesizer.Synthesizer, "make", lambda self, plan, how: calls.append(how.seed) or make(self, plan, how))
    again = all_of(refusing({0}, []))
    assert calls == []
    assert [one.record for one in again] == [one.record for one in first]
    all_of(refusing(set(), []), name="index-b")  # another guard: looked at again
    assert calls == [0, 1]
    calls.clear()
    all_of(None)                                 # no guard: what passed at once may stay
    assert calls == []
    assert len(list(records.read(tmp_path))) == 3


def test_the_digest_of_a_model_does_not_depend_on_its_guard(phantom_run, index, tmp_path):
    import shutil
    shutil.copytree(phantom_run / "model", tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "guard", ignore_errors=True)
    before = checkpoint.digest(tmp_path / "model")
    guard.build(tmp_path / "model" / "guard", index)
    assert checkpoint.digest(tmp_path / "model") == before


# ---- the command line ------------------------------------------------------------------------------------------------

@pytest.fixture
def call(call, monkeypatch, maker):
    """With the phantom model."""
    import medisyn
    monkeypatch.setattr(medisyn, "load", lambda asked=None, backend="torch": maker)
    return call


@pytest.fixture
def model(index, tmp_path, monkeypatch):
    """A folder with an index, whose verdicts a test decides."""
    folder = tmp_path / "model"
    guard.build(folder / "guard", index)

    def decide(accept) -> None:
        monkeypatch.setattr(guard, "load", lambda home: accept)
    decide(refusing(set(), []))
    monkeypatch.setattr(synthesizer, "cores", lambda: 1)
    return folder, decide


def test_generate_blocks_where_there_is_a_guard_and_says_so(call, model, tmp_path):
    folder, decide = model
    decide(refusing({1}, []))
    code, out, err = call("generate", PROMPT, "-n", 2, "--model", folder, "-o", tmp_path / "out", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["guard"] == {"mode": "block", "blocked": 1, "flagged": 0, "refused": []}
    assert [image["guard"]["blocked"] for image in found["images"]] == [0, 1]
    assert found["images"][1]["guard"]["likeness"] == 3.0
    for record in records.read(tmp_path / "out"):
        assert images.read_provenance(tmp_path / "out" / record.file_name).guard.verdict == "passed"


def test_what_is_refused_is_counted_and_nothing_at_all_is_a_failure(call, model, tmp_path):
    folder, decide = model
    decide(refusing({0, 1, 2, 3}, []))
    code, out, err = call("generate", PROMPT, "-n", 2, "--model", folder, "-o", tmp_path / "out")
    assert code == 0, err
    assert "1 images in" in out
    assert "guard: 4 blocked and drawn again, 1 refused" in out
    assert "was refused: 4 tries" in err
    (line,) = map(json.loads, (tmp_path / "out" / "refused.jsonl").read_text().splitlines())
    assert (line["prompt"], line["seed"], line["tries"], line["guard"]) == (PROMPT, 0, 4, "index-a")
    decide(refusing(set(range(99)), []))
    code, out, err = call("generate", PROMPT, "-n", 2, "--seed", 9, "--model", folder, "-o", tmp_path / "none")
    assert code == 1
    assert "all 2 images were refused by the guard" in err
    assert not list((tmp_path / "none" / "images").glob("*.png"))


def test_flag_and_off(call, model, tmp_path):
    folder, decide = model
    decide(refusing({0}, []))
    code, out, _ = call("generate", PROMPT, "-n", 2, "--model", folder, "-o", tmp_path / "flag", "--guard", "flag")
    assert code == 0
    assert "guard: 1 flagged as too alike to a training image" in out
    code, out, _ = call("generate", PROMPT, "-n", 1, "--model", folder, "-o", tmp_path / "off", "--guard", "off", "--json")
    assert json.loads(out)["guard"]["mode"] == "off"
    assert json.loads(out)["images"][0]["guard"] is None


def test_without_an_index_the_guard_is_off_and_says_so(call, tmp_path):
    code, _, err = call("generate", PROMPT, "-n", 1, "--model", tmp_path, "-o", tmp_path / "out")
    assert code == 0
    assert "guard: off, " in err
    code, _, err = call("generate", PROMPT, "-n", 1, "--model", tmp_path, "-o", tmp_path / "out", "--guard", "block")
    assert code == 1
    assert "build it with `medisyn train --stages guard`" in err
    code, _, err = call("generate", PROMPT, "--guard", "maybe")
    assert code == 2
    assert "expected block, flag or off" in err
