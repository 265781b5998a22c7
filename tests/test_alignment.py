"""Alignment: images that show their sentences are told from images that do not, and nothing is figured of too few."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from medisyn.data.provenance import Provenance
from medisyn.data.records import Record
from medisyn.evaluation import alignment, classifier, concepts
from medisyn.evaluation.sets import Images, Sets

MADE = Provenance("p", "p", 1, 1, 1.0, "euler", None, "sha256:0", "phantom", "0")
QUICK = classifier.Settings(side=24, width=8, steps=80, batch=24, peak=1e-2)


def a_set(folder: Path, name: str, n: int, seed: int, finding_lies: bool = False) -> Images:
    """Chest: gray noise, bright middle where there is pneumonia. Skin: a red cast. `synthetic` ones carry a provenance."""
    rng, records, paths = np.random.default_rng(seed), [], []
    (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(n):
        chest, sick = i % 3 < 2, i % 3 == 0
        pixels = np.repeat(rng.integers(60, 110, (24, 24, 1)), 3, 2).astype(np.uint8)
        if chest and sick != finding_lies:
            pixels[7:17, 7:17] += 120
        if not chest:
            pixels[..., 0] += 100
        paths.append(folder / name / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
        facts = {"pneumonia": sick} if chest else {}
        records.append(Record(f"{name}-{i}", paths[-1].name, "chest_xray" if chest else "dermoscopy", findings=facts,
                              view=("anteroposterior" if sick else "posteroanterior") if chest else None, patient=f"{name}-{i}",
                              text=f"sentence {i % 12}", provenance=MADE if "synthetic" in name else None))
    return Images(name, tuple(records), tuple(paths))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("alignment")


@pytest.fixture(scope="module")
def three(home) -> Sets:
    return Sets(a_set(home, "train", 90, 0), a_set(home, "unseen", 45, 1), a_set(home, "synthetic", 60, 2))


@pytest.fixture(scope="module")
def rows(three, home) -> dict:
    return {(r.name, r.group): r for r in alignment.measure(three, settings=QUICK, cache=home / "cache")}


def test_images_that_show_their_sentences_are_recognised(rows):
    assert rows["image_type_accuracy", "all"].value > 0.95
    assert rows["image_type_accuracy", "all"].floor > 0.95
    assert rows["image_type_accuracy", "image_type=dermoscopy"].n == 20
    assert rows["finding_auroc", "finding=chest_xray/pneumonia"].value > 0.95
    assert rows["finding_f1", "finding=chest_xray/pneumonia"].value > 0.9
    assert rows["finding_auroc", "all"].value > 0.95
    assert rows["view_accuracy", "all"].value > 0.9
    assert rows["view_accuracy", "image_type=chest_xray"].n == 40
    assert rows["facts_shown", "all"].value > 0.9
    assert all(r.extractor.startswith("classifier ") for r in rows.values() if r.value is not None)


def test_what_cannot_be_figured_is_a_row_that_says_why(rows):
    assert "do not teach it" in rows["laterality_accuracy", "all"].missing
    assert "0 synthetic images ask for it" in rows["facts_shown", "combination=unseen"].missing
    assert "sentences are needed" in rows["retrieval_at_5", "all"].missing


def test_an_image_finds_its_own_sentence(rows):
    found = rows["retrieval_at_1", "all"]
    assert found.value > 0.9
    assert "among 2 other sentences; chance 0.33" in found.note


def test_findings_that_lie_are_found_out(three, home, rows):
    """The planted fault: pneumonia is drawn where the sentence denies it."""
    lying = dataclasses.replace(three, synthetic=a_set(home, "lying synthetic", 60, 3, finding_lies=True))
    found = {(r.name, r.group): r for r in alignment.measure(lying, settings=QUICK, cache=home / "cache")}
    assert found["finding_auroc", "all"].value < 0.2
    assert found["finding_auroc", "all"].floor > 0.95
    assert found["image_type_accuracy", "all"].value > 0.9
    assert found["retrieval_at_1", "all"].value < rows["retrieval_at_1", "all"].value - 0.3


def test_the_classifier_is_kept_and_not_taught_again(three, home, rows, monkeypatch):
    monkeypatch.setattr(classifier, "fit", lambda *_, **__: pytest.fail("taught again"))
    again = {(r.name, r.group): r for r in alignment.measure(three, settings=QUICK, cache=home / "cache")}
    assert again == rows


def test_a_killed_teaching_goes_on(three, home, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "SAVE_EVERY", 10)
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        if done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        concepts.taught(three.train, QUICK, tmp_path, stop)
    again = concepts.taught(three.train, QUICK, tmp_path, lambda done, total: seen.append(done))
    assert seen[0] == 21
    assert classifier.digest(again) == rows["facts_shown", "all"].extractor.split()[1]
    assert [p.suffixes for p in tmp_path.iterdir()] == [[".safetensors"]]


def test_unknown_is_neither_present_nor_absent():
    known = [Record("a", "", "chest_xray", findings={"pneumonia": True}), Record("b", "", "chest_xray"),
             Record("c", "", "chest_xray", findings={"normal": True}), Record("d", "", "dermoscopy")]
    (question,) = [classifier.Question("findings", ("chest_xray/pneumonia",), exclusive=False)]
    assert concepts.truths(known, [question])["findings"].ravel().tolist() == [1, -1, 0, -1]


def test_only_what_was_seen_often_enough_is_asked():
    known = [Record(str(i), "", "chest_xray", laterality="left" if i % 2 else "right", findings={"pneumonia": i < 9})
             for i in range(40)]
    assert [q.name for q in concepts.questions_of(known)] == ["laterality"]
    with pytest.raises(ValueError, match="alignment needs labelled real images"):
        concepts.taught(Images("train", tuple(known[:5]), (Path("x"),) * 5), QUICK)


def test_a_view_is_chosen_among_those_of_its_image_type():
    question = classifier.Question("view", ("chest_xray/pa", "mri/axial"))
    seen = concepts.Seen((question,), (Record("a", "", "chest_xray"),), np.array(["a"]), {"view": np.array([[0.2, 0.8]])},
                         {"view": np.array([0])})
    assert concepts.right_of(seen, "view")[0].tolist() == [True]


def test_f1_is_scikit_learns():
    rng = np.random.default_rng(0)
    said, truth = rng.random((2, 50)) > 0.6
    assert alignment.f1(said, truth) == pytest.approx(f1_score(truth, said))
    assert np.isnan(alignment.f1(said & False, truth & False))


def test_agreement_prefers_the_sentence_that_is_true_and_not_the_long_one():
    p = np.array([[0.9, 0.1], [0.1, 0.9]])
    match = alignment.agreement({"t": p}, {"t": np.array([0, 1, -1])})
    assert match[0, 0] > match[0, 2] > match[0, 1]
    assert match[:, 2].tolist() == [0, 0]
    each = alignment.agreement({"f": p}, {"f": np.array([[1, 0], [1, -1], [-1, -1]])})
    assert each[0, 0] > each[0, 1] > each[0, 2] == 0


def test_retrieval_by_chance_is_chance():
    rng = np.random.default_rng(0)
    own = rng.integers(0, 40, 2000)
    found = alignment.found_at(rng.random((2000, 40)), own, np.arange(40), 5, 15)
    assert found.mean() == pytest.approx(5 / 16, abs=0.04)
    level = alignment.found_at(np.zeros((50, 40)), own[:50], np.arange(40), 1, 15)
    assert level == pytest.approx(np.full(50, 1 / 16))
    perfect = np.zeros((50, 40))
    perfect[np.arange(50), own[:50]] = 1
    assert alignment.found_at(perfect, own[:50], np.arange(40), 1, 15).tolist() == [1.0] * 50
    assert np.isnan(alignment.found_at(np.zeros((2, 3)), np.array([0, 1]), np.zeros(3), 1, 15)).all()


def test_combinations_that_training_never_united_stand_apart(three, home, rows):
    odd = [dataclasses.replace(r, view="anteroposterior") if r.view == "posteroanterior" and i % 2 else r
           for i, r in enumerate(three.synthetic.records)]
    asked = dataclasses.replace(three, synthetic=dataclasses.replace(three.synthetic, records=tuple(odd)))
    found = {(r.name, r.group): r for r in alignment.measure(asked, settings=QUICK, cache=home / "cache")}
    assert found["facts_shown", "combination=unseen"].n == 10
    assert found["facts_shown", "combination=in training"].n == 50
    assert found["facts_shown", "combination=unseen"].value < rows["facts_shown", "all"].value
