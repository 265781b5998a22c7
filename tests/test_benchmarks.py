"""The benchmarks: figures against closed forms, wordings against the vocabulary, copies planted and found."""

import csv
import io
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from medisyn import shipped, synthesizer
from medisyn.data import images, learnt, prompts, records, vocabulary
from medisyn.data.records import Record
from medisyn.estimates import Estimate, absent
from medisyn.training import batches

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

contrasts, few, generate, held_out, intervals, judging, novelty, precision, reading, recognition, texture, unseen = map(
    import_module, ("contrasts", "few", "generate", "held_out", "intervals", "judge", "novelty", "precision", "reading",
                    "recognition", "texture", "unseen"))


def test_the_area_under_the_curve_counts_pairs_in_order():
    score, truth = np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, True, False, True])
    assert intervals.auroc(score, truth) == pytest.approx(3.5 / 4)          # the tie counts half
    assert np.isnan(intervals.auroc(score, truth & False))


def test_an_interval_over_patients_is_wider_than_over_their_images():
    values = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    alone, grouped = (intervals.estimate(lambda r: values[r].mean(), 200, groups)
                      for groups in (None, np.repeat(np.arange(20), 10)))
    assert alone.value == grouped.value
    assert grouped.clusters == 20
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_all_of_a_few_is_still_uncertain():
    found = intervals.estimate(lambda rows: 1.0, 10, share=True)
    assert (found.low, found.high) == (pytest.approx(0.025**0.1), 1.0)      # Clopper and Pearson
    assert intervals.estimate(lambda rows: 1.0, 0).text == "no images"


def test_similarity_of_an_image_with_itself_is_one():
    image = np.random.default_rng(0).random((3, 32, 32))
    assert held_out.ssim(image, image) == pytest.approx(1)


def test_similarity_of_flat_images_has_a_closed_form():
    a, b, c1 = 0.3, 0.5, 0.01**2
    assert held_out.ssim(np.full((1, 24, 24), a), np.full((1, 24, 24), b)) == pytest.approx(
        (2 * a * b + c1) / (a * a + b * b + c1))


def test_similarity_of_independent_noise_is_low():
    a, b = np.random.default_rng(0).random((2, 1, 64, 64))
    assert held_out.ssim(a, b) < 0.1


def test_a_picture_for_the_documentation_is_small():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 700, 3), np.uint8))
    data = held_out.small_png(noise, "noise")
    assert len(data) <= held_out.LARGEST
    assert Image.open(io.BytesIO(data)).text["Description"] == "noise"


def test_every_prompt_of_a_contrast_asks_for_its_choice():
    for contrast in contrasts.CONTRASTS:
        for k, choice in enumerate(contrast.choices):
            for prompt in choice.prompts:
                said = prompts.understand(prompt)
                shown = Record("a", "a.png", said.image_type or "unknown", anatomy=said.anatomy, view=said.view,
                               technique=said.technique, findings=said.findings)
                assert contrast.of(shown) == k, prompt


def test_free_wordings_cover_every_image_type_of_the_contrasts():
    wordings = recognition.free_prompts()
    count = {kind: sum(t == kind for _, t in wordings) for kind in {t for _, t in wordings}}
    assert set(count) <= set(vocabulary.IMAGE_TYPES)
    assert {c.image_type for c in contrasts.CONTRASTS} <= set(count)
    assert all(4 <= n <= 6 for n in count.values())


def test_nearly_all_that_free_wording_states_is_found():
    rows, support = reading.stated(), learnt.support_of(shipped.folder(None))
    assert len(rows) == 600 and {row.of for row in rows} == set("ABCD")
    assert {row.image_type for row in rows} <= set(vocabulary.IMAGE_TYPES)
    assert {fact.lstrip("!") for row in rows for fact in row.facts} <= set(vocabulary.TERMS)
    reads = [reading.read(row, support, set()) for row in rows]
    assert sum(r.type_right for r in reads) >= 0.99 * len(rows)
    assert sum(len(r.missed) for r in reads) <= 0.02 * sum(len(row.facts) for row in rows)


def test_the_gallery_is_understood_to_the_last_word():
    with (ROOT / "recipes" / "gallery.csv").open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert sum(int(row["n"]) for row in rows) <= 100                        # the demo takes seconds
    understood = [prompts.understand(row["prompt"]) for row in rows]
    assert [u.not_understood for u in understood] == [()] * len(rows)
    assert len({u.image_type for u in understood}) == 12


def test_the_judge_is_asked_only_what_training_images_teach():
    def shown(i: int, **findings: bool) -> Record:
        return Record(str(i), "a.png", "fundus_photograph", view="macula_centred", findings=findings, source="one")
    known = [shown(i, hard_exudates=True) for i in range(12)] + [shown(i) for i in range(12, 30)]
    found = judging.questions_of(known)
    assert (found.findings, found.unmentioned) == (("fundus_photograph/hard_exudates",),) * 2
    assert found.contrasts == ("hard exudates",)
    assert judging.states(known, found.findings, found.unmentioned)[:, 0].tolist() == [1] * 12 + [0] * 18
    assert judging.questions_of(known[:20]).findings == ()                  # too few without


def test_a_judge_is_trained_once_and_kept(phantom_recipe, tmp_path):
    pixels = batches.pack([phantom_recipe.parent / "collection"], tmp_path / "pixels", judging.SIDE, unseen.SPLITS)
    first = judging.trained(pixels, tmp_path / "judge.safetensors", 2 * judging.BATCH)
    again = judging.trained(pixels, tmp_path / "judge.safetensors", 2 * judging.BATCH)
    a, b = (judging.answers(j, np.asarray(pixels.array[:3])) for j in (first, again))
    assert all(np.allclose(x, y, atol=1e-5) for x, y in zip(a, b, strict=True))
    rows = recognition.figures(first.questions, recognition.real_ones(first, pixels), None, None)
    assert [r["of"] for r in rows][:2] == ["chest_xray", "dermoscopy"]
    assert [r["real"].n for r in rows[:2]] == [len(unseen.unseen(pixels, r["of"])[0]) for r in rows[:2]]
    assert "no model given" in recognition.report(rows, {"model": None, "judge": "a judge"})


def test_planted_copies_are_found_and_nothing_else():
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (160, 16, 16, 3), np.uint8)
    squares = blocks.repeat(8, 1).repeat(8, 2)
    real = {"train": squares[:80], "unseen": squares[80:110], "val": squares[110:130],
            "comparable": np.ones(80, bool)}
    fresh, distance, _ = novelty.one_type(unseen.thumbnails, squares[130:], real)
    assert fresh["called copies"].value <= 0.1
    assert 0.2 < fresh["nearer to train"].value < 0.8
    assert all(fresh[f"planted copies found, {how}"].value == 1 for how in ("plain", "mirrored", "recompressed"))
    copied, distance, row = novelty.one_type(unseen.thumbnails, squares[:30, :, ::-1], real)
    assert copied["called copies"].value == 1
    assert (row == np.arange(30)).all()
    assert distance.max() < 0.1


def test_a_training_image_is_no_unseen_one_even_mirrored(tmp_path):
    rng = np.random.default_rng(0)
    blocks = [rng.integers(0, 256, (16, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(8)]
    squares = [*blocks, blocks[0], blocks[1][:, ::-1]]
    splits = ["train"] * 6 + ["test"] * 4
    for i, square in enumerate(squares):
        images.write_png(images.from_picture(Image.fromarray(square)), tmp_path / f"{i}.png")
    records.write((Record(str(i), f"{i}.png", "dermoscopy", patient=str(i), split=s) for i, s in enumerate(splits)),
                  tmp_path)
    pixels = batches.pack([tmp_path], tmp_path / "pixels", 128, unseen.SPLITS)
    rows, split = unseen.unseen(pixels, "dermoscopy")
    assert (rows.tolist(), split) == ([6, 7], "test, 2 doubles left out")
    assert unseen.unseen(pixels, "mri")[1] is None


def test_the_plain_loop_makes_the_same_pixels(maker):
    plan = maker.plan(generate.PROMPT)
    how = maker.settings(plan, 5, steps=6, sampler="euler")
    plain = generate.plain_loop(maker.model, True, how.read_as, synthesizer.root(how.prompt, 5), how.style, how.guidance, steps=6)
    assert maker.model.card.shift == 1
    assert np.abs(plain - maker.make(plan, how).image).max() < 1e-3
    assert torch.get_num_threads() == 1


def test_a_decoder_of_taesd_s_shape():
    decode = generate.taesd_shaped(4)
    assert sum(weight.numel() for weight in decode.parameters()) == 1_222_531   # as in diffusers' AutoencoderTiny
    assert decode(torch.zeros(1, 4, 2, 2)).shape == (1, 3, 16, 16)


def test_where_nothing_is_unseen_whole_groups_are_held_out_anew():
    def shown(i: int, group: int) -> Record:
        return Record(str(i), f"{i}.png", "ct", patient=f"g{group}", source="one", split="train")
    found = [shown(i, i // 5) for i in range(200)] + [shown(200 + i, 99) for i in range(60)]   # one group is too large to judge by
    split = few.split_anew(found)
    counted = {side: {r.patient for r in split if r.split == side} for side in ("train", "val", "test")}
    assert not counted["train"] & counted["val"] and not counted["train"] & counted["test"] and not counted["val"] & counted["test"]
    assert "g99" in counted["train"] and min(map(len, counted.values())) >= 5
    assert few.FEWEST < sum(r.split != "train" for r in split) <= few.HELD_OUT * len(found) + 5


def test_what_a_blur_takes_is_missing_from_fine_detail_first():
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    kinds = ["chest_xray", "dermoscopy"] * 3
    nothing = {"fine": 0.0, "middle": 0.0}
    assert texture.missing(real, real, kinds) == nothing
    assert texture.missing(np.concatenate([real, real]), real, kinds) == pytest.approx(nothing, abs=1e-9)
    blurred = np.stack([np.asarray(Image.fromarray(one).filter(ImageFilter.GaussianBlur(1))) for one in real])
    found = texture.missing(blurred, real, kinds)
    assert found["fine"] < found["middle"] - 3 < -3
    halved = texture.missing((real // 2), real, kinds)
    assert halved["fine"] == pytest.approx(-6.0, abs=0.1)                 # half the amplitude, a quarter of the power


def test_a_process_s_memory_is_its_own_and_not_that_of_who_began_it():
    held = bytearray(b"x") * 300 * 2**20
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import generate; print(generate.peak_mib())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(held) == 300 * 2**20 and 5 < float(found.stdout) < 290


def test_numbers_of_steps_are_compared_with_the_most_guided_always(maker):
    card = maker.model.card
    assert [way[0] for way in texture.ways_of(card, ())] == [card.steps] * len(texture.WAYS)
    own = (card.guidance_from, card.guidance_until, card.texture)
    assert texture.ways_of(card, (8, 50)) == [(8, *own), (50, *own), (50, 0.0, 1.0, card.texture)]


def test_each_turn_draws_the_same_sentences_with_other_styles_from_other_noise(maker):
    row = max(maker.model.support, key=lambda row: len(row[8]))
    chosen = [Record(str(k), "", row[0]) for k in range(20)]
    turns = [texture.asked(maker.model, chosen, turn) for turn in (0, 1, 0)]
    assert turns[0] == turns[2]
    assert [how.prompt for how in turns[0]] == [how.prompt for how in turns[1]]
    assert len({how.seed for turn in turns for how in turn}) == 40
    assert [how.style for how in turns[0]] != [how.style for how in turns[1]]


def test_ways_take_turns_and_the_first_turn_does_not_count():
    order = []
    rates = precision.turns({"a": (lambda: order.append("a"), 4), "b": (lambda: order.append("b"), 2)}, 3)
    assert order == ["a", "b"] * 4
    assert [len(found) for found in rates.values()] == [3, 3]
    assert all(rate > 0 for found in rates.values() for rate in found)


def test_every_way_of_training_a_network_gives_gradients_of_one_size(phantom_recipe):
    """What is timed is the same work: the ways that need no compiler, on one network."""
    from medisyn import recipe
    settings, found = recipe.read(phantom_recipe, []), []
    network = precision.denoiser(settings, 32)
    torch.nn.init.normal_(network.last.weight)
    given = precision.told(network, 4)
    for how, kernel in (("fp32", precision.layers.attended), ("bf16", precision.layers.attended), ("bf16", precision.torch_s)):
        precision.device.quicken(how)
        with precision.mock.patch.object(precision.layers, "attended", kernel), precision.device.half(precision.CPU):
            made = network(*given)
        made.float().square().mean().backward()
        found.append(float(network.patch.weight.grad.norm()))
        network.zero_grad()
    assert found[1:] == pytest.approx([found[0]] * 2, rel=0.05)


def test_the_distances_of_a_report_stand_in_a_table_with_their_floors(tmp_path):
    raised = "biased; train images as they come: 2.26; the set is mixed otherwise"
    rows = [("fd_eye", "all", 6.7, 3.3, 12.0, 4.6, raised), ("fd_eye", "image_type=mri", 59.2, 42.0, 83.1, 13.4, None),
            ("kd_eye", "image_type=mri", 0.5, -0.1, 1.0, 0.1, None), ("fd_eye", "finding=glioma", 9.0, 4.0, 15.0, 8.0, None),
            ("fd_eye", "finding=melanoma", 101.0, 57.0, 152.0, 28.0, None), ("fd_eye", "sex=female", 5.0, 4.0, 6.0, 5.0, None),
            ("coverage_eye", "finding=melanoma", 0.6, 0.4, 0.8, 0.9, None)]
    found = [Estimate(name, value, low, high, 40, group, floor, note=note) for name, group, value, low, high, floor, note in rows]
    found.append(absent("fd_eye", "fewer than 30 images", "image_type=ct"))
    report = {"estimates": [row.as_dict() | {"part": "fidelity"} for row in found]}
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text(json.dumps(report))
    command = [sys.executable, ROOT / "benchmarks" / "distances.py", "-o", tmp_path, "--report"]
    subprocess.run([*command, tmp_path / "report"], check=True, capture_output=True)
    text = (tmp_path / "distances.md").read_text()
    assert "| MRI | 59.2 [42.0, 83.1] (13.4), n 40 | 0.500 [-0.100, 1.000] (0.100), n 40 |  |  |" in text
    assert "Frechet distance of train images as they come: all 2.26." in text
    far = text.index("| melanoma | 101.0 [57.0, 152.0] (28.0), n 40 | 0.600 [0.400, 0.800] (0.900), n 40 |")
    assert far < text.index("| glioma |")
    assert "female" not in text
    assert "| CT |" not in text
    groups = {row["group"] for row in json.loads((tmp_path / "distances.json").read_text())["estimates"]}
    assert {"all", "image_type=ct"} <= groups
    failed = subprocess.run([*command, tmp_path / "none"], check=False, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "which `medisyn evaluate" in failed.stderr
