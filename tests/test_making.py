"""Making: a collection grows without doubles, images are compared with those made again, prompts are read from a table."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from medisyn import making, synthesizer
from medisyn.data import images, records

PROMPT = "chest X-ray with pneumonia"


def test_a_png_carries_its_provenance(maker, tmp_path):
    made, = maker.generate(PROMPT, seed=2)
    path = images.write_png(made.image, tmp_path / "a.png", made.record.provenance)
    assert images.read_provenance(path) == made.record.provenance
    with Image.open(path) as opened:
        opened.load()
        assert opened.text["Description"] == PROMPT
    assert np.array_equal(images.read(path), images.from_picture(made.picture))
    assert making.compare(maker, path, made.record.provenance) == {"same": True, "rounding": False, "differing": 0.0, "largest": 0}


def test_one_level_of_one_pixel_is_noticed(maker, tmp_path):
    made, = maker.generate(PROMPT, seed=2)
    pixels = np.asarray(made.picture).copy()
    pixels[3, 4] ^= 1
    path = tmp_path / "a.png"
    path.write_bytes(images.png_bytes(Image.fromarray(pixels), made.record.provenance))
    found = making.compare(maker, path, made.record.provenance)
    assert found == {"same": False, "rounding": False, "differing": 1 / 32**2, "largest": 1}


@pytest.mark.parametrize(("levels", "values", "rounding"), [(1, 5, True), (1, 6, False), (2, 1, False)])
def test_few_values_one_level_apart_are_rounding(levels, values, rounding, maker, tmp_path, monkeypatch):
    picture = np.full((100, 100), 100, np.uint8)
    picture[0, :values] += levels
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    again = synthesizer.Synthetic(images.from_picture(Image.new("L", (100, 100), 100)), None)
    monkeypatch.setattr(maker, "remake", lambda how: again)
    found = making.compare(maker, path, None)
    assert found == {"same": False, "rounding": rounding, "differing": values / 10_000, "largest": levels}


def test_an_image_of_another_size_differs_altogether(maker, tmp_path):
    made, = maker.generate(PROMPT, seed=2)
    path = tmp_path / "a.png"
    path.write_bytes(images.png_bytes(made.picture.resize((16, 16)), made.record.provenance))
    assert making.compare(maker, path, made.record.provenance)["same"] is False


def held(folder) -> list[records.Record]:
    return list(records.read(folder))


def test_a_collection_grows_without_doubles(maker, tmp_path):
    first = list(making.write(maker.generate(PROMPT, n=2, seed=0), tmp_path))
    more = list(making.write(maker.generate(PROMPT, n=3, seed=1), tmp_path))
    assert held(tmp_path) == [first[0].record, *(one.record for one in more)]
    for record in held(tmp_path):
        assert images.read_provenance(tmp_path / record.file_name) == record.provenance
    assert len(list((tmp_path / "images").iterdir())) == 4


def test_a_line_that_says_otherwise_is_replaced_not_doubled(maker, tmp_path):
    made, = making.write(maker.generate(PROMPT), tmp_path)
    other, = making.write(maker.generate("dermoscopy"), tmp_path)
    records.write([dataclasses.replace(made.record, findings={}), other.record], tmp_path)
    list(making.write([made], tmp_path))
    assert held(tmp_path) == [made.record, other.record]


def test_images_that_are_there_are_not_made_again(maker, tmp_path, monkeypatch):
    plans, asked = {PROMPT: maker.plan(PROMPT)}, [(PROMPT, 3, 0)]
    begun = making.write(making.make_all(maker, plans, asked, tmp_path), tmp_path)
    next(begun)
    next(begun)
    begun.close()  # interrupted
    kept, calls, make = held(tmp_path), [], synthesizer.Synthesizer.make
    monkeypatch.setattr(synthesizer.Synthesizer, "make", lambda self, plan, how: calls.append(how.seed) or make(self, plan, how))
    done = list(making.write(making.make_all(maker, plans, asked, tmp_path), tmp_path))
    assert len(kept) == 2
    assert calls == [2]
    assert held(tmp_path) == [one.record for one in done]
    (tmp_path / kept[0].file_name).unlink()
    list(making.write(making.make_all(maker, plans, asked, tmp_path), tmp_path))
    assert calls == [2, 0]
    assert (tmp_path / kept[0].file_name).is_file()


def test_an_overview_shows_a_row_a_prompt(maker, tmp_path):
    list(making.write(maker.generate(PROMPT, n=2), tmp_path))
    one = making.contact_sheet(tmp_path, "one.png")
    list(making.write(maker.generate("dermoscopy", n=1), tmp_path))
    with Image.open(one) as small, Image.open(making.contact_sheet(tmp_path, "two.png")) as large:
        assert large.height > small.height
        assert large.width == small.width


def test_larger_images_are_larger_on_an_overview(maker, tmp_path):
    widths = {}
    for side in (16, 150, 300):
        list(making.write(maker.generate(PROMPT, n=1), tmp_path / str(side)))
        (file,) = (tmp_path / str(side) / "images").glob("*.png")
        images.write_png(np.zeros((1, side, side), np.float32), file)
        with Image.open(making.contact_sheet(tmp_path / str(side))) as paper:
            widths[side] = paper.width
    assert widths[150] - widths[16] == 3 * (150 - making.SMALL) and widths[300] - widths[16] == 3 * (making.LARGE - making.SMALL)


def test_a_csv_fills_its_gaps(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("prompt,n,seed\nchest X-ray,3,\n\"dermoscopy, melanoma\",,9\n", encoding="utf-8-sig")
    assert making.read_prompts(path, 2, 5) == [("chest X-ray", 3, 5), ("dermoscopy, melanoma", 2, 9)]


@pytest.mark.parametrize(("text", "said"), [("text\nchest\n", "found text"), ("", "found no rows"),
                                            ("prompt,n\nchest,three\n", "whole numbers"),
                                            ("prompt\ndermoscopy, melanoma\n", "row 2: more cells than columns.*quotes")])
def test_a_csv_of_another_form_is_refused(tmp_path, text, said):
    path = tmp_path / "prompts.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        making.read_prompts(path, 1, 0)
