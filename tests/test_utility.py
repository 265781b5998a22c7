"""Utility: the arms differ in their images alone, the figures can be computed again, and a planted worth is found."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from medisyn.data.provenance import Provenance
from medisyn.data.records import Record
from medisyn.evaluation import classifier, sets, tasks, trials, utility
from medisyn.evaluation.sets import Images, Sets
from medisyn.evaluation.tasks import Choice, Task

MADE = Provenance("p", "p", 1, 1, 1.0, "euler", None, "sha256:0", "phantom", "0")
PNEUMONIA = Task("chest_xray/pneumonia", "chest_xray",
                 (Choice("no pneumonia", "pneumonia", False), Choice("pneumonia", "pneumonia")))
QUICK = classifier.Settings(side=16, width=4, steps=30, batch=16, peak=1e-2)


def a_set(folder: Path, name: str, n: int, seed: int, wrong: bool = False) -> Images:
    """Noise, with a bright middle where there is pneumonia; `wrong`: the labels are swapped. A fake set is synthetic."""
    rng, records, paths = np.random.default_rng(seed), [], []
    (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(n):
        sick = i % 2 == 1
        pixels = rng.integers(60, 120, (16, 16)).astype(np.uint8)
        if sick != wrong:
            pixels[5:11, 5:11] += 110
        paths.append(folder / name / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
        records.append(Record(f"{name}-{i}", paths[-1].name, "chest_xray", findings={"pneumonia": sick}, patient=f"{name}-{i // 2}",
                              sex="female" if i % 4 < 2 else "male", provenance=MADE if "synthetic" in name else None))
    return Images(name, tuple(records), tuple(paths))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("utility")


@pytest.fixture(scope="module")
def three(home) -> Sets:
    return Sets(a_set(home, "train", 80, 0), a_set(home, "unseen", 40, 1), a_set(home, "synthetic", 24, 2))


@pytest.fixture(scope="module")
def outcome(three, home) -> trials.Outcome:
    return trials.run(PNEUMONIA, three, home / "trials", n=20, seeds=2, settings=QUICK)


# ---- arms -----------------------------------------------------------------------------------------------------------

def test_every_arm_is_trained_or_says_what_it_lacks(outcome):
    assert {t.arm for t in outcome.trials} | set(outcome.lacking) == {a.name for a in trials.ARMS}
    assert set(outcome.lacking) == {"real n + 2n synthetic", "real n + 5n synthetic"}
    assert "20 synthetic images of choice 1, there are 12" in outcome.lacking["real n + 2n synthetic"]
    sizes = {t.arm: (t.n_real, t.n_synthetic) for t in outcome.trials}
    assert sizes["real n/2"] == (10, 0)
    assert sizes["real n, each twice"] == (40, 0)
    assert sizes["synthetic only"] == (0, 24)
    assert sizes["real n + 0.5n synthetic"] == (20, 10)
    assert sizes["synthetic first, then real n"] == (20, 24)


def test_smaller_arms_lie_inside_larger_ones_and_seeds_differ():
    pools = {"real": [np.arange(0, 40), np.arange(40, 80)], "synthetic": [np.arange(9), np.arange(9, 20)]}
    half, one, two = (trials.drawn(arm, pools, 20, 3)[0] for arm in trials.ARMS[:3])
    assert set(half) < set(one) < set(two)
    assert [sum(k == c for _, k in one) for c in (0, 1)] == [10, 10]
    assert set(trials.drawn(trials.ARMS[1], pools, 20, 4)[0]) != set(one)
    assert sorted(trials.drawn(trials.ARMS[3], pools, 20, 3)[0]) == sorted(one * 2)
    assert len(trials.drawn(trials.ARMS[1], pools, 21, 0)[0]) == 21


def test_a_killed_run_goes_on_where_it_was(three, home, tmp_path, monkeypatch):
    arms, trained = trials.ARMS[:2], []
    whole = trials.run(PNEUMONIA, three, tmp_path / "a", n=8, seeds=2, settings=QUICK, arms=arms)
    lines = (tmp_path / "a" / "trials.jsonl").read_text().splitlines()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "trials.jsonl").write_text("\n".join(lines[:2]) + "\n" + lines[2][:50])
    real = trials.train
    monkeypatch.setattr(trials, "train", lambda arm, *rest: trained.append(arm.name) or real(arm, *rest))
    again = trials.run(PNEUMONIA, three, tmp_path / "b", n=8, seeds=2, settings=QUICK, arms=arms)
    assert trained == ["real n", "real n"]
    for a, b in zip(whole.trials, again.trials, strict=True):
        assert (a.arm, a.seed) == (b.arm, b.seed)
        assert a.probabilities == pytest.approx(b.probabilities)
    trials.run(PNEUMONIA, three, tmp_path / "b", n=8, seeds=2, settings=dataclasses.replace(QUICK, steps=2), arms=arms[:1])
    assert trained[2:] == ["real n/2", "real n/2"]


def test_what_cannot_be_tested_is_said(three, home):
    with pytest.raises(ValueError, match="expected at least 1 seed and n of 2 a choice"):
        trials.run(PNEUMONIA, three, home, n=3)
    healthy = three.unseen.take([i for i, r in enumerate(three.unseen.records) if not r.findings["pneumonia"]])
    with pytest.raises(ValueError, match="unseen patients should show every choice, found 1 of 2"):
        trials.run(PNEUMONIA, dataclasses.replace(three, unseen=healthy), home, n=8)


# ---- figures --------------------------------------------------------------------------------------------------------

def test_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, p = rng.integers(0, 3, 60), rng.dirichlet(np.ones(3), 60).round(1)
    p = p / p.sum(1, keepdims=True)
    ones = np.ones((1, 60))
    assert utility.measured("accuracy", p, truth, ones)[0] == pytest.approx((p.argmax(1) == truth).mean())
    assert utility.measured("balanced_accuracy", p, truth, ones)[0] == pytest.approx(balanced_accuracy_score(truth, p.argmax(1)))
    assert utility.measured("auroc", p, truth, ones)[0] == pytest.approx(roc_auc_score(truth, p, multi_class="ovr"))
    weights = rng.integers(0, 4, 60)
    repeated = np.repeat(np.arange(60), weights)
    two = truth > 0
    assert utility.auroc(p[:, 1], two) == pytest.approx(roc_auc_score(two, p[:, 1]))
    assert utility.aurocs(p[:, 1], two, weights[None])[0] == pytest.approx(roc_auc_score(two[repeated], p[repeated, 1]))
    assert np.isnan(utility.auroc(p[:, 1], np.ones(60, bool)))


def test_the_equivalent_of_a_known_curve_is_exact():
    assert utility.equivalent(0.7, [100, 200, 400], [0.6, 0.7, 0.8]) == (200, None)
    assert utility.equivalent(0.75, [100, 200, 400], [0.6, 0.7, 0.8])[0] == pytest.approx(200 * 2**0.5)
    assert utility.equivalent(0.5, [100, 200, 400], [0.6, 0.7, 0.8]) == (100, "below")
    assert utility.equivalent(0.9, [100, 200, 400], [0.6, 0.7, 0.8]) == (400, "above")
    assert utility.equivalent(0.7, [100, 200, 400], [0.6, 0.7, 0.65]) == (200, None)
    assert utility.equivalent(0.6, [1, 2], [0.6, 0.6]) == (1, None)


def told(arms: dict[str, float], seeds: int = 3, n: int = 400) -> trials.Outcome:
    """An outcome whose arms are right in just these shares of each choice."""
    truth = np.tile([0, 1], n // 2)
    found = []
    for name, share in arms.items():
        arm = next(a for a in trials.ARMS if a.name == name)
        for seed in range(seeds):
            right = np.random.default_rng(seed).permutation(n // 2) < share * n / 2
            right = np.repeat(right, 2)
            p = np.where(right == (truth == 1), 0.9, 0.1)
            found.append(trials.Trial(name, seed, round(arm.real * 100), 50, np.stack([1 - p, p], 1)))
    records = tuple(Record(f"{i}", "x.png", "chest_xray", sex="female" if i % 2 else "male") for i in range(n))
    return trials.Outcome(PNEUMONIA, 100, truth, np.arange(n).astype(str), Images("unseen", records, (Path("x"),) * n),
                          tuple(found), {})


def test_synthetic_images_worth_twice_the_real_ones_are_found_to_be():
    rows = {(r.name, r.group): r for r in utility.figures(told({"real n/2": 0.6, "real n": 0.7, "real 2n": 0.8,
                                                                "real n + 1n synthetic": 0.75, "synthetic only": 0.5}), draws=100)}
    found = rows["data_equivalence", "task=chest_xray/pneumonia"]
    assert found.value == pytest.approx(2**0.5, rel=0.02)
    assert found.low < found.value < found.high
    assert "real n + 1n synthetic" in found.note
    assert found.floor == 1.0
    only = rows["data_equivalence", "task=chest_xray/pneumonia; arm=synthetic only"]
    assert only.value == 0.5 and "a bound: it reaches less than real n/2" in only.note
    tstr = rows["tstr_accuracy", "task=chest_xray/pneumonia"]
    assert (tstr.value, tstr.floor) == pytest.approx((0.5, 0.7))


def test_useless_synthetic_images_are_worth_nothing():
    rows = utility.figures(told({"real n/2": 0.6, "real n": 0.7, "real 2n": 0.8, "real n + 1n synthetic": 0.7}), draws=50)
    found = next(r for r in rows if r.name == "data_equivalence" and r.group == "task=chest_xray/pneumonia")
    assert found.value == pytest.approx(1.0)


def test_what_was_not_trained_is_a_row_that_says_why():
    rows = utility.figures(told({"real n": 0.7}), draws=20)
    assert {r.name for r in rows if r.missing} >= {"tstr_accuracy", "data_equivalence"}
    lacking = dataclasses.replace(told({"real n/2": 0.6, "real n": 0.7}), lacking={"real n + 1n synthetic": "too few"})
    rows = utility.figures(lacking, draws=20)
    assert next(r for r in rows if r.name == "data_equivalence").missing == "too few"


def test_a_gap_between_the_sexes_is_found():
    found = told({"real n": 1.0})
    worse = [dataclasses.replace(t, probabilities=np.where((np.arange(400) % 2 == 1)[:, None] & (np.arange(400) % 10 < 4)[:, None],
                                                           t.probabilities[:, ::-1], t.probabilities)) for t in found.trials]
    rows = utility.figures(dataclasses.replace(found, trials=tuple(worse)), draws=50)
    gap = next(r for r in rows if r.name == "utility_gap" and "; sex;" in r.group)
    assert gap.value == pytest.approx(0.4)
    assert "female 0.60, male 1.00" in gap.note
    assert any(r.name == "utility_gap" and r.missing and "age" in r.group for r in rows)


def test_the_factor_can_be_computed_again_from_the_json(tmp_path):
    found = told({"real n/2": 0.6, "real n": 0.7, "real 2n": 0.8, "real n + 1n synthetic": 0.75})
    held = json.loads(utility.write(utility.figures(found, draws=50), [found], tmp_path).read_text())
    arms = {a["arm"]: np.mean([s["balanced_accuracy"] for s in a["seeds"]]) for a in held["tasks"][0]["arms"] if "seeds" in a}
    value, _ = utility.equivalent(arms["real n + 1n synthetic"], [0.5, 1, 2], [arms[a] for a in ("real n/2", "real n", "real 2n")])
    row = next(r for r in held["estimates"] if r["name"] == "data_equivalence" and r["group"] == "task=chest_xray/pneumonia")
    assert row["value"] == pytest.approx(value, abs=1e-3)
    assert (tmp_path / held["curves"][0]).stat().st_size > 10_000


def test_a_curve_that_does_not_rise_gives_no_factor():
    """An arm a hair above a flat curve would else be worth twice its images."""
    for flat in ({"real n/2": 0.70, "real n": 0.69, "real 2n": 0.70}, {"real n/2": 0.7, "real n": 0.7, "real 2n": 0.6}):
        rows = [r for r in utility.figures(told(flat | {"real n + 1n synthetic": 0.72}), draws=100) if r.name == "data_equivalence"]
        assert len(rows) == 1 and rows[0].value is None
        assert "does not rise beyond its interval" in rows[0].missing


def test_a_real_outcome_has_every_figure_or_its_reason(outcome, tmp_path):
    rows = utility.figures(outcome, draws=50)
    assert {"tstr_accuracy", "data_equivalence", "utility_auroc", "utility_gap"} <= {r.name for r in rows}
    assert all((r.value is None) == bool(r.missing) for r in rows)
    assert len(json.loads(utility.write(rows, [outcome], tmp_path).read_text())["tasks"][0]["arms"]) == len(trials.ARMS)


def test_labels_that_lie_are_found_out(three, home, outcome, tmp_path):
    """The planted fault: synthetic images that show the opposite of what they say."""
    lying = dataclasses.replace(three, synthetic=a_set(home, "lying synthetic", 24, 7, wrong=True))
    only = [a for a in trials.ARMS if a.name in ("synthetic only", "real n")]
    found = trials.run(PNEUMONIA, lying, tmp_path, n=20, seeds=2, settings=QUICK, arms=only)
    honest = {r.name: r for r in utility.figures(outcome, draws=20) if r.group == "task=chest_xray/pneumonia"}["tstr_accuracy"]
    tstr = {r.name: r for r in utility.figures(found, draws=20) if r.group == "task=chest_xray/pneumonia"}["tstr_accuracy"]
    assert tstr.value < 0.3 < 0.7 < honest.value


# ---- tasks ----------------------------------------------------------------------------------------------------------

def cells(kind: str, n: int, start: int = 0) -> list[Record]:
    return [Record(f"{kind}-{start + i}", "x.png", "blood_smear", view="single_cell", findings={kind: True}) for i in range(n)]


def test_tasks_are_found_in_the_records():
    train = cells("neutrophil", 50) + cells("monocyte", 50) + cells("basophil", 5)
    found = tasks.find(train, cells("neutrophil", 9) + cells("monocyte", 9) + cells("basophil", 9))
    assert [c.finding for c in found["blood_smear/cell"].choices] == ["neutrophil", "monocyte"]
    assert [t.name for t in tasks.chosen(found, train)] == ["blood_smear/cell"]
    assert tasks.find(train, []) == {}
    with pytest.raises(ValueError, match="did you mean 'blood_smear/cell'"):
        tasks.named(found, "blood_smear/cells")


def test_unknown_is_not_absent_in_real_images_and_silence_is_in_synthetic_ones():
    task = Task("blood_smear/cell", "blood_smear", (Choice("a", "neutrophil"), Choice("b", "monocyte")))
    field = Record("f", "x.png", "blood_smear", view="smear_field", findings={"neutrophil": True})
    assert task.of(field) == -1
    assert task.of(dataclasses.replace(field, view="single_cell")) == 0
    assert task.of(dataclasses.replace(field, provenance=MADE)) == task.of(field, asked=True) == 0
    assert task.of(dataclasses.replace(field, findings={"neutrophil": True, "monocyte": True}, provenance=MADE)) == -1
    assert task.of(dataclasses.replace(field, image_type="mri")) == -1


def test_a_name_nobody_knows_is_an_error_and_a_task_that_cannot_run_is_a_row(three, home):
    with pytest.raises(ValueError, match="no task 'chest_xray/fracture'"):
        utility.study(three, names=["chest_xray/fracture"], cache=home)
    rows = utility.measure(dataclasses.replace(three, unseen=sets.Images("unseen", (), ())), cache=home)
    assert {r.name for r in rows} == {"tstr_accuracy", "data_equivalence"} and all(r.missing for r in rows)


def test_tasks_that_the_synthetic_set_does_not_show_are_not_trained(three, home, monkeypatch):
    monkeypatch.setattr(trials, "train", lambda *_: pytest.fail("trained for nothing"))
    sick = [i for i, r in enumerate(three.synthetic.records) if r.findings.get("pneumonia")]
    rows = utility.measure(dataclasses.replace(three, synthetic=three.synthetic.take(sick)), cache=home / "none")
    assert [row.name for row in rows] == ["tstr_accuracy", "data_equivalence"]
    assert all("shows every choice of none" in row.missing for row in rows)
