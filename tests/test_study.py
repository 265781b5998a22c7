"""A study from its drawing to its report: simulated readers whose skill is known, and what the analysis says of them."""

import csv
import html.parser
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import studies

from medisyn import estimates
from medisyn.reader_study import analysis, design, exports, power, report, responses, simulation
from medisyn.reader_study.mrmc import single
from medisyn.reader_study.responses import Response
from medisyn.reader_study.simulation import Skill
from medisyn.reader_study.table import crossed, table


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module")
def drawn(home):
    return {kind: studies.study(home, kind, n=40, cases=76, repeats=0.2) for kind in ("real-or-synthetic", "two-alternatives",
                                                                                   "alignment", "quality")}


def played(drawn, out, kind, *, readers=5, seed=0, **skill):
    study = simulation.play(drawn[kind], out, Skill(**{"dprime": 1.0} | skill), readers, seed)
    return analysis.analyze(study)


@pytest.fixture(scope="module")
def found(drawn, home):
    return {kind: played(drawn, home / f"played-{kind}", kind) for kind in drawn}


def rows(result, group="all"):
    return {row.name: row for _, row in result.estimates if row.group == group}


def truths(study, skill, seeds, names):
    """How often the intervals of `names` hold the truth, over simulated studies that never touch the disk."""
    known, held = design.truth(study), dict.fromkeys(names, 0)
    expected = simulation.expected(skill) | {"accuracy": simulation.expected(skill)[
        "pair_accuracy" if study.design == "two-alternatives" else "accuracy"]}
    from medisyn.reader_study import judging
    for seed in seeds:
        given = simulation.answered(study, known, skill, np.random.default_rng(seed))
        some, _ = crossed(table(study, known, given))
        for row in judging.of_all(study, some):
            if row.name in held:
                held[row.name] += row.low <= expected[row.name] <= row.high
    return {name: n / len(seeds) for name, n in held.items()}


def test_analysis_gives_the_skill_of_simulated_readers_back(drawn):
    study = replace(drawn["real-or-synthetic"], readers=tuple(f"reader-{k:02d}" for k in range(1, 5)))
    held = truths(study, Skill(0.8, 0.2, 0.2, 0.5), range(40), ("accuracy", "dprime", "criterion", "auc"))
    assert all(share >= 0.85 for share in held.values()), held
    wrong = truths(study, Skill(0.8, 0.2, 0.2, 0.5), range(3), ("accuracy",))
    assert wrong["accuracy"] >= 1 / 3


def test_analysis_gives_the_skill_in_pairs_back(drawn):
    study = replace(drawn["two-alternatives"], readers=tuple(f"reader-{k:02d}" for k in range(1, 5)))
    held = truths(study, Skill(0.8, 0, 0.2, 0.5), range(30), ("accuracy", "dprime"))
    assert all(share >= 0.83 for share in held.values()), held


def test_good_readers_are_found_and_equivalence_is_not_claimed(found):
    tests = {t.name: t for t in found["real-or-synthetic"].tests if t.group == "all"}
    assert tests["chance"].refuted and tests["chance_auc"].refuted and not tests["equivalence"].refuted


def test_every_figure_has_an_interval_that_holds_its_value_or_says_why_not(found):
    for result in found.values():
        for _, row in result.estimates:
            if row.value is None:
                assert row.missing
            elif row.low is not None:
                assert row.low - 1e-9 <= row.value <= row.high + 1e-9, row
            else:
                assert row.note


def test_a_repeat_counts_once_and_only_for_agreement(found):
    result = found["real-or-synthetic"]
    assert rows(result)["accuracy"].n == 5 * 76
    assert rows(result)["same_answer"].n == 5 * (len(result.study.cases) - 76)


def test_a_reader_who_answers_at_random_agrees_with_nobody(drawn, home):
    result = rows(played(drawn, home / "blind", "real-or-synthetic", dprime=0.0, case_sd=0.0, reader_sd=0.0))
    assert result["fleiss_kappa"].low < 0 < result["fleiss_kappa"].high
    assert abs(result["intra_kappa"].value) < 0.5 and result["accuracy"].low < 0.5 < result["accuracy"].high


def test_a_figure_of_one_reader_is_counted_by_hand(found):
    result = found["real-or-synthetic"]
    known = design.truth(result.study)
    first = {}
    for one in responses.read(result.study):
        if one.reader == "reader-01":
            first.setdefault(known[one.case].repeat_of or one.case, (known[one.case].arm, one.answer))
    right = sum(arm == answer for arm, answer in first.values())
    assert rows(result, "reader=reader-01")["accuracy"] == estimates.proportion(right, len(first), name="accuracy",
                                                                              group="reader=reader-01")
    counts = result.confusion["chest_xray"]
    assert sum(sum(row.values()) for row in counts.values()) == 5 * 38


def test_swapped_sides_of_a_repeated_pair_are_understood(drawn, home):
    result = played(drawn, home / "sure", "two-alternatives", dprime=8.0)
    assert rows(result)["accuracy"].value == 1 and rows(result)["same_answer"].value == 1


def test_alignment_is_judged_by_arm_and_by_concept(found):
    result = found["alignment"]
    whole = rows(result)
    assert whole["shown_synthetic"].value > whole["shown_mismatch"].value
    assert {t.name: t for t in result.tests if t.group == "all"}["controls"].refuted
    assert "concept=pneumonia" in {row.group for _, row in result.estimates}
    assert all(t.holm is not None for t in result.tests if t.group.startswith("concept="))


def test_quality_that_is_lower_is_found_and_equal_quality_is_not(found, drawn, home):
    worse, alike = found["quality"], played(drawn, home / "alike", "quality", dprime=0.0, reader_sd=0.0)
    tests = [{t.name: t for t in result.tests if t.group == "all"} for result in (worse, alike)]
    assert tests[0]["arms"].refuted and rows(worse)["rating_difference"].high < 0
    assert not tests[1]["arms"].refuted and rows(alike)["preferred_real"].low < 0.5 < rows(alike)["preferred_real"].high


def test_who_stopped_early_counts_alone_but_not_among_all(drawn, home):
    study = simulation.play(drawn["real-or-synthetic"], home / "early", Skill(1.0), 3)
    known = design.truth(study)
    given = [r for r in responses.read(study) if r.reader != "reader-03" or r.position < 10]
    some, notes = crossed(table(study, known, given))
    assert some.readers == ("reader-01", "reader-02") and "reader-03" in notes[0]
    assert some.given.shape == (2, 76)


def test_a_study_nobody_answered_says_so(drawn):
    with pytest.raises(ValueError, match="no responses yet"):
        analysis.analyze(drawn["quality"])


def test_marks_are_counted_by_arm_once_a_response(home):
    study = studies.study(home, cases=8, repeats=0)
    known = design.truth(study)
    for k, case in enumerate(study.cases):
        marks = ({"x": 0.1, "y": 0.2, "kind": "texture"},) * 2 if known[case.id].arm == "synthetic" else ()
        responses.append(study, Response(study.id, "reader-01", case.id, k, "real", None, marks))
    counted = analysis.analyze(study).marks
    assert counted["texture"] == {"synthetic": 4} and counted["responses"] == {"real": 4, "synthetic": 4}


class Page(html.parser.HTMLParser):
    """Tags that are opened and what they point to."""

    def __init__(self):
        super().__init__()
        self.open, self.points = [], []

    def handle_starttag(self, tag, attributes):
        self.points += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "br", "line", "circle", "rect", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("li", "p", "line", "circle", "rect", "polyline"):
            while self.open and self.open[-1] in ("li", "p"):
                self.open.pop()
        if tag in self.open:
            assert self.open.pop() == tag


@pytest.mark.parametrize("kind", ["real-or-synthetic", "two-alternatives", "alignment", "quality"])
def test_the_report_is_one_page_and_the_same_numbers_as_json(found, tmp_path, kind):
    page = report.write(found[kind], tmp_path).read_text()
    told = json.loads((tmp_path / "report.json").read_text())
    parsed = Page()
    parsed.feed(page)
    parsed.close()
    assert parsed.open == [] and all(point.startswith("#") for point in parsed.points)
    assert "http" not in re.sub(r"<title>.*?</title>", "", page) and "<script" not in page and ">nan" not in page
    for row in told["estimates"]:
        row = estimates.from_dict({k: v for k, v in row.items() if k != "part"})
        assert row.value is None or f"{row.value:.3f}" in page
    assert told["findings"] and all(one["text"].endswith(".") for one in told["findings"])
    assert told["responses"]["n"] == len(responses.read(found[kind].study))


def test_markup_in_a_title_stays_text(drawn, home, tmp_path):
    study = simulation.play(drawn["quality"], home / "title", Skill(1.0), 2)
    page = report.write(analysis.analyze(replace(study, title="<script>alert(1)</script>")), tmp_path).read_text()
    assert "<script" not in page and "&lt;script&gt;" in page


def test_the_imrmc_export_gives_the_areas_back(found):
    from sklearn.metrics import roc_auc_score
    result = found["real-or-synthetic"]
    head, _, body = exports.imrmc(result.study, result.whole).partition("BEGIN DATA:\n")
    assert "N0: 38\nN1: 38\nNR: 5\nNM: 1\n" in head
    lines = list(csv.reader(body.splitlines()))
    known = {case: int(score) for reader, case, modality, score in lines if reader == "-1"}
    assert len(known) == 76 and all(modality == "truth" for reader, _, modality, _ in lines if reader == "-1")
    given = {case: float(score) for reader, case, _, score in lines if reader == "reader-02"}
    area = roc_auc_score([known[c] for c in given], list(given.values()))
    assert rows(result, "reader=reader-02")["auc"].value == pytest.approx(area)
    with pytest.raises(ValueError, match="--format csv"):
        exports.imrmc(found["two-alternatives"].study, found["two-alternatives"].whole)


def test_the_plain_export_holds_every_response_and_no_formula(found):
    study = found["quality"].study
    given = responses.read(study)
    risky = [replace(given[0], comment="=HYPERLINK(1)"), *given[1:]]
    lines = list(csv.DictReader(exports.plain(study, design.truth(study), risky).splitlines()))
    assert len(lines) == len(given) and lines[0]["comment"] == "'=HYPERLINK(1)"
    assert [int(row["answer"]) for row in lines] == [one.answer for one in given]


def test_simulating_leaves_the_study_and_a_full_folder_alone(drawn, home):
    study = drawn["quality"]
    assert not (study.folder / "responses.jsonl").exists() and design.read(study.folder) == study
    with pytest.raises(ValueError, match="is not empty"):
        simulation.play(study, home / "played-quality", Skill(1.0), 2)
    with pytest.raises(ValueError, match="--reader-sd"):
        simulation.play(study, home / "never", Skill(1.0, reader_sd=-1), 2)


def test_the_fast_analysis_of_power_is_the_one_of_reports():
    value, se, df = power.played("real-or-synthetic", 4, 30, Skill(0.6), 3, 0)
    seen = simulation.evidence(np.repeat([1.0, -1.0], 15), np.arange(30), 4, Skill(0.6), np.random.default_rng([0, 4, 30]),
                               draws=3)
    from medisyn.reader_study import detection, mrmc
    truth = np.repeat([1, 0], 15)
    for k in range(3):
        values, strata = detection.accuracy((seen[k] > 0).astype(float), truth)
        one = single(values, mrmc.covariance(strata))
        assert (value[k], se[k]) == (pytest.approx(one.value), pytest.approx(one.se, rel=1e-5))
        assert df[k] == pytest.approx(one.df, rel=1e-4)


def test_power_rises_with_cases_and_readers_and_false_alarms_stay_few():
    small, large, many = (power.of("real-or-synthetic", r, n, 0.1, 400) for r, n in ((3, 40), (3, 400), (10, 400)))
    assert small.detected < large.detected < many.detected and many.equivalent > 0.8
    assert all(p.false < 0.12 for p in (small, large, many))


def test_exact_power_of_one_reader():
    from scipy import stats
    n, low = 50, 17  # two-sided at 5 %: 0..17 and 33..50 (P = 0.0328)
    assert stats.binom.cdf(low, n, 0.5) <= 0.025 < stats.binom.cdf(low + 1, n, 0.5)
    assert power.binomial(n, 0.7) == pytest.approx(stats.binom.cdf(low, n, 0.7) + stats.binom.sf(n - low - 1, n, 0.7))
    assert power.binomial(power.alone(0.7), 0.7) >= 0.8 > power.binomial(power.alone(0.7) - 1, 0.7)
    assert power.binomial(4, 0.9) == 0


def test_the_command_line_from_drawing_to_export(command, tmp_path):
    studies.real(tmp_path / "real"), studies.synthetic(tmp_path / "made")
    made = command("study", "new", "--real", f"{tmp_path / 'real'}:test", "--synthetic", tmp_path / "made", "--cases", 24,
                   "--readers", 3, "-o", tmp_path / "study")
    assert made.returncode == 0 and "80 % power" in made.stdout and "medisyn study serve" in made.stderr
    at = command("study", "simulate", tmp_path / "study", "--readers", 3, "--dprime", 2, "-o", tmp_path / "played", "--json")
    assert json.loads(at.stdout)["responses"] == 3 * 26
    told = command("study", "analyze", tmp_path / "played", "-o", tmp_path / "report")
    assert told.returncode == 0 and "! Readers told real from synthetic" in told.stdout and "last hash" in told.stdout
    assert command("study", "export", tmp_path / "played", "-o", tmp_path / "x.imrmc").returncode == 0
    assert (tmp_path / "x.imrmc").read_text().count("\n-1,") == 24
    wrong = command("study", "analyze", tmp_path / "study", "-o", tmp_path / "none")
    assert wrong.returncode == 1 and "no responses yet" in wrong.stderr and "Traceback" not in wrong.stderr


def test_every_verb_of_a_study_shows_an_example_and_explains_its_options():
    import typer

    from medisyn.cli import study
    for name, verb in typer.main.get_command(study.study).commands.items():
        assert f"Example: medisyn study {name}" in verb.help
        assert [p.name for p in verb.params if not p.help and p.name != "help"] == []


@pytest.mark.parametrize("kind", ["real-or-synthetic", "two-alternatives", "alignment", "quality"])
@pytest.mark.parametrize("kept", [0.001, 0.05, 0.5])
def test_a_study_hardly_begun_is_analyzed_as_far_as_it_goes(drawn, tmp_path, kind, kept):
    study = replace(drawn[kind], folder=tmp_path, readers=("reader-01", "reader-02", "reader-03"))
    known, rng = design.truth(drawn[kind]), np.random.default_rng(3)
    design.write(study, known)
    given = simulation.answered(study, known, Skill(1.0), rng)
    responses.extend(study, [one for one in given if rng.random() < kept] or given[:1])
    result = analysis.analyze(study)
    assert result.estimates and (report.write(result, tmp_path).stat().st_size > 1000)
    assert any(row.missing for _, row in result.estimates) or kept == 0.5
