"""A study as it is drawn: balanced, blinded, the same for the same seed."""

import json
import os
from collections import Counter

import numpy as np
import pytest
import studies
from PIL import Image

from medisyn.data import images, records
from medisyn.reader_study import cases, design, drawing, questions, readers, stimuli


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    studies.study(folder)
    return folder


@pytest.fixture(scope="module")
def study(home):
    return design.read(home / "study-2")


def test_a_study_is_read_back_as_it_was_drawn(home):
    made = studies.study(home, cases=8)
    assert design.read(made.folder) == made
    for kind in questions.DESIGNS.values():
        assert questions.from_dict(json.loads(json.dumps(kind.as_dict()))) == kind


def test_arms_and_image_types_are_balanced(study):
    truth = [t for t in design.truth(study).values() if t.repeat_of is None]
    assert Counter((t.arm, t.image_type) for t in truth) == {
        (arm, kind): 10 for arm in ("real", "synthetic") for kind in ("chest_xray", "dermoscopy")}
    shown = Counter(t.arm for t in design.truth(study).values() if t.repeat_of)
    assert shown == {"real": 2, "synthetic": 2}


def test_real_images_show_what_the_synthetic_ones_show(study):
    truth = [t for t in design.truth(study).values() if t.repeat_of is None]
    sick = Counter((t.arm, t.image_type, any(t.findings.values())) for t in truth)
    for kind in ("chest_xray", "dermoscopy"):
        assert sick["real", kind, True] == sick["synthetic", kind, True]


def test_no_cue_in_size_bytes_mode_metadata_or_date(study):
    files = sorted((study.folder / "images").iterdir())
    assert len(files) == 44 and study.side == 48
    seen = set()
    for path in files:
        picture = studies.opened(path)
        seen.add((path.stat().st_size, path.stat().st_mtime, picture.mode, picture.size, tuple(picture.info), len(path.stem)))
    assert len(seen) == 1
    (size, date, mode, shape, info, _), = seen
    assert (date, mode, shape, info) == (stimuli.DATE, "RGB", (48, 48), ())


def test_nothing_that_is_shown_names_arm_or_origin(study):
    known = design.truth(study)
    shown = json.dumps([vars(case) for case in study.cases])
    assert not any(word in shown for word in ("real", "synth", "made/", "chest", "mole"))
    ids = [case.id for case in study.cases] + [image for case in study.cases for image in case.images]
    assert len(set(ids)) == len(ids) and all(len(i) == 16 and int(i, 16) >= 0 for i in ids)
    first = [known[case.id].arm for case in study.cases[:22]]
    assert 4 < first.count("real") < 18  # the list itself is in no telling order


def test_a_stimulus_is_the_central_square_of_its_image(study, home):
    known = design.truth(study)
    made = next(case for case in study.cases if known[case.id].arm == "synthetic")
    record = {r.id: r for r in records.read(home / "made")}[known[made.id].records[0]]
    shown, stored = studies.opened(design.picture(study, made.images[0])), studies.opened(home / "made" / record.file_name)
    assert np.array_equal(np.asarray(shown), np.asarray(images.square(stored.convert("RGB"), study.side)))


def test_every_image_loses_pixels_so_that_none_shows_that_it_alone_was_not_reduced():
    assert [stimuli.reduced(side) for side in (256, 128, 100, 64, 20)] == [192, 96, 72, 48, 15]


def test_the_same_seed_draws_the_same_study_and_another_another(home, study):
    again, other = studies.study(home), studies.study(home, seed=1)
    assert (again.cases, design.truth(again)) == (study.cases, design.truth(study))
    assert {c.id for c in other.cases}.isdisjoint({c.id for c in study.cases})


def test_every_reader_meets_all_cases_in_an_own_order_that_stays(study):
    orders = [design.order(study, reader) for reader in study.readers]
    assert orders[0] != orders[1] and orders[0] == design.order(study, study.readers[0])
    assert all(sorted(o) == [case.id for case in study.cases] for o in orders)


def test_the_two_showings_of_a_case_lie_apart_and_arms_are_spread(study):
    known = design.truth(study)
    for reader in study.readers:
        order = design.order(study, reader)
        gaps = [abs(order.index(name) - order.index(t.repeat_of)) for name, t in known.items() if t.repeat_of]
        assert min(gaps) > len(order) // 4 - 4
        arms = [known[name].arm for name in order if not known[name].repeat_of]
        assert 8 <= arms[:20].count("real") <= 12
        assert arms[:20] != arms[20:]


def test_an_order_cannot_be_foretold_from_what_came_before(home):
    firsts = Counter()
    for seed in range(6):
        made = studies.study(home, cases=20, seed=seed + 10, readers=9)
        known = design.truth(made)
        firsts.update(known[design.order(made, reader)[0]].arm for reader in made.readers)
    assert 15 < firsts["real"] < 39  # of 54


def test_a_repeated_pair_has_its_sides_swapped(home):
    made = studies.study(home, "two-alternatives", cases=20, repeats=0.5)
    known = design.truth(made)
    by_id = {case.id: case for case in made.cases}
    twice = [(name, t) for name, t in known.items() if t.repeat_of]
    assert len(twice) == 10
    for name, t in twice:
        first = known[t.repeat_of]
        assert {t.answer, first.answer} == {"left", "right"} and t.records == first.records[::-1]
        left = [design.picture(made, by_id[k].images[i]).read_bytes() for k, i in ((name, 0), (t.repeat_of, 1))]
        assert left[0] == left[1] and by_id[name].images[0] != by_id[t.repeat_of].images[1]
    sides = Counter(t.answer for t in known.values() if not t.repeat_of)
    assert abs(sides["left"] - sides["right"]) <= 1


def test_the_right_answer_of_a_pair_is_the_synthetic_side(home):
    made = studies.study(home, "two-alternatives", cases=12)
    for t in design.truth(made).values():
        assert t.records[("left", "right").index(t.answer)].startswith("made/")


def test_alignment_has_real_controls_and_wrong_sentences(home):
    made = studies.study(home, "alignment", cases=40, repeats=0)
    known, found = design.truth(made), Counter(t.arm for t in design.truth(made).values())
    assert found == {"synthetic": 24, "real": 8, "mismatch": 8}
    sources = Counter(t.records[0].split("/")[0] for t in known.values() if t.arm == "mismatch")
    assert set(sources) == {"made", "real"}  # so a wrong sentence tells nothing of the image
    for case in made.cases:
        t = known[case.id]
        shown = any(word in case.sentence for word in ("pneumonia", "melanoma"))
        if t.arm != "mismatch":
            assert shown is any(t.findings.values()) and "years" not in case.sentence
        else:
            assert t.answer == "no"


def test_quality_asks_of_both_arms_without_a_sentence(home):
    made = studies.study(home, "quality", cases=20, repeats=0)
    assert Counter(t.arm for t in design.truth(made).values()) == {"real": 10, "synthetic": 10}
    assert all(case.sentence is None for case in made.cases) and made.question.answers == (1, 2, 3, 4, 5)


def test_no_patient_comes_twice_while_there_are_others(study):
    found = [t.records[0] for t in design.truth(study).values() if t.arm == "real" and not t.repeat_of]
    assert len(set(found)) == len(found)


def test_places_are_shared_out_evenly_as_far_as_there_is_room():
    assert cases.allot(10, {"a": 2, "b": 9, "c": 9}) == {"a": 2, "b": 4, "c": 4}
    assert cases.allot(99, {"a": 2, "b": 3}) == {"a": 2, "b": 3}


@pytest.mark.parametrize("plan, said", [
    ({"design": "beauty"}, "expected a design of real-or-synthetic"), ({"cases": 2}, "4 or more"), ({"readers": 0}, "1 to 99"),
    ({"repeats": 1.5}, "0 to 1"), ({"margin": 0.0}, "margin"), ({"side": 65}, "at most 64"), ({"side": 8}, "16 to 4096")])
def test_a_plan_that_makes_no_sense_is_refused(home, tmp_path, plan, said):
    with pytest.raises(ValueError, match=said):
        drawing.new(drawing.Plan(**{"design": "quality"} | plan), home / "real", home / "made", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_arms_that_are_swapped_or_share_no_type_are_refused(home, tmp_path):
    with pytest.raises(ValueError, match="--real .*: expected real images, found 40 that are synthetic"):
        drawing.new(drawing.Plan("quality"), home / "made", home / "made", tmp_path / "out")
    chosen = [r for r in records.read(home / "made") if r.image_type == "chest_xray"]
    some = [(home / "made" / r.file_name, r) for r in chosen]
    with pytest.raises(ValueError, match="same image types"):
        cases.draw("quality", cases.open_arm(f"{home / 'real'}:test", False)[20:], some, 8, np.random.default_rng(0))
    with pytest.raises(ValueError, match="found none"):
        cases.open_arm(f"{home / 'real'}:val", False)


def test_a_full_folder_is_left_alone(home, study):
    with pytest.raises(ValueError, match="is not empty"):
        drawing.new(drawing.Plan("quality"), home / "real", home / "made", study.folder)


def test_a_missing_or_broken_image_is_named(tmp_path):
    studies.real(tmp_path / "real", 4), studies.synthetic(tmp_path / "made", 4)
    broken = next((tmp_path / "made" / "images").iterdir())
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match=f"{broken.name}: expected a readable image"):
        drawing.new(drawing.Plan("quality", cases=16), tmp_path / "real", tmp_path / "made", tmp_path / "out")
    broken.unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        drawing.new(drawing.Plan("quality", cases=16), tmp_path / "real", tmp_path / "made", tmp_path / "out")


def test_no_path_comes_from_outside(study):
    for name in ("../truth", "/etc/passwd", "", study.cases[0].id):
        with pytest.raises(ValueError, match="no case shows"):
            design.picture(study, name)
    with pytest.raises(ValueError, match="expected a reader of"):
        design.order(study, "../reader")


def test_a_folder_that_is_no_study_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="medisyn study new"):
        design.read(tmp_path)


def test_a_token_lets_its_reader_in_and_only_its_hash_is_kept(home):
    made = studies.study(home, cases=8)
    tokens = readers.issue(made)
    assert [readers.whose(made, tokens[reader]) for reader in made.readers] == list(made.readers)
    assert readers.whose(made, "") is readers.whose(made, tokens["reader-01"] + "x") is None
    assert not any(token in (made.folder / "readers.json").read_text() for token in tokens.values())
    readers.issue(made)
    assert readers.whose(made, tokens["reader-01"]) is None


def test_a_stimulus_is_as_long_whatever_it_shows(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (50, 40, 3), np.uint8)).save(tmp_path / "noise.png")
    Image.new("L", (90, 70), 7).save(tmp_path / "flat.png")
    noise, flat = (stimuli.encode(tmp_path / f"{name}.png", 40) for name in ("noise", "flat"))
    assert len(noise) == len(flat) and stimuli.common_side([tmp_path / "noise.png", tmp_path / "flat.png"]) == 40
    path = stimuli.write(flat, tmp_path / "a" / "b.png")
    assert np.all(images.read(path) == images.read(tmp_path / "flat.png")[0, 0, 0]) and os.stat(path).st_mtime == stimuli.DATE
