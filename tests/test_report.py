"""Reports: page and JSON tell the same, need nothing from outside, and are kept part by part."""

import html.parser
import json
import re

import judged
import numpy as np
import pytest

from medisyn.estimates import Estimate, absent
from medisyn.evaluation import page, protocol, report
from medisyn.evaluation.features import Extractor
from medisyn.evaluation.protocol import Asked, Part, Picture
from medisyn.evaluation.sets import open_sets

THUMBS = Extractor("thumbs", "0" * 12, 16, 256, lambda squares: squares.mean(3, dtype=np.float32).reshape(len(squares), -1))
ROWS = (Estimate("fd_eye", 12.345, 10.0, 14.5, 200, "all", 1.5, "lower", "eye 0123"),
        Estimate("copy_rate", 0.25, 0.2, 0.3, 80, "image_type=mri", None, "lower"),
        Estimate("copy_rate", 0.5, 0.4, 0.6, 90, "image_type=ct", 0.01, "lower", None, None, "a <note> & more"),
        Estimate("data_equivalence", float("inf"), None, None, 10), absent("mia_auc", "fewer than 10 unseen images"))


@pytest.fixture
def asked(tmp_path):
    home = tmp_path / "sets"
    found = open_sets(judged.collection(home / "train", range(12)), judged.collection(home / "unseen", range(100, 108), "test"),
                      judged.collection(home / "made", range(200, 210)))
    out = tmp_path / "report"
    out.mkdir()
    return Asked(found, out, (THUMBS,))


def written(asked, parts) -> tuple[str, dict]:
    path = report.write(asked, parts, {"train": "a", "unseen": "b", "synthetic": "<c>"})
    return path.read_text(encoding="utf-8"), json.loads((asked.out / "report.json").read_text(encoding="utf-8"))


def test_page_and_json_hold_the_same_numbers(asked):
    shown, told = written(asked, [Part("novelty", ROWS)])
    assert [(row["name"], row["group"]) for row in told["estimates"]] == [(row.name, row.group) for row in ROWS]
    for row in told["estimates"]:
        if row["value"] is not None:
            assert page.number(row["value"]) in shown
    assert "12.3" in shown and "fewer than 10 unseen images" in shown
    assert told["sets"]["synthetic"]["n"] == 10
    assert told["sets"]["train"]["image_types"] == {"chest_xray": 6, "dermoscopy": 6}


def test_infinity_is_no_json(asked):
    _, told = written(asked, [Part("utility", ROWS)])
    assert next(row for row in told["estimates"] if row["name"] == "data_equivalence")["value"] is None


class Outside(html.parser.HTMLParser):
    """Collects what a browser would fetch, and the tags that were left open."""

    def __init__(self):
        super().__init__()
        self.fetched, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.fetched += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass  # closes itself

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_fetches_nothing(asked):
    (asked.out / "pictures").mkdir()
    from PIL import Image
    Image.new("RGB", (4, 4)).save(asked.out / "pictures" / "x.png")
    shown, _ = written(asked, [Part("novelty", ROWS, (Picture("A <b>", "pictures/x.png", "caption", real=True),
                                                      Picture("gone", "pictures/none.png")))])
    reader = Outside()
    reader.feed(shown)
    assert reader.open == []
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in reader.fetched)
    assert not re.search(r"url\(|@import|<script|https?://", shown)
    assert "&lt;c&gt;" in shown and "a &lt;note&gt; &amp; more" in shown and "pictures/none.png is missing" in shown


def test_patients_images_are_announced(asked):
    told = report.as_dict(asked, [], {})
    assert "images of patients" not in page.draw(asked.out, [Part("novelty", ROWS)], told)
    assert "images of patients" in page.draw(asked.out, [Part("novelty", ROWS, (Picture("t", "x.png", real=True),))], told)


def test_groups_are_drawn_on_one_axis():
    drawn = page.forest([row for row in ROWS if row.name == "copy_rate"])
    assert drawn.count("<circle") == 2 and "image_type=mri" in drawn
    assert page.forest(ROWS[:1]) == ""


def test_finished_parts_are_read_and_not_computed_again(asked, monkeypatch):
    first = protocol.judge(asked, ["validity"])
    monkeypatch.setitem(protocol.PARTS, "validity", lambda asked: pytest.fail("computed again"))
    said = []
    again = protocol.judge(asked, ["validity"], said.append)
    assert again == first
    assert "done before" in said[0]


def test_other_images_settings_or_meanings_are_computed_anew(asked, tmp_path, monkeypatch):
    key = protocol.fingerprint(asked)
    assert protocol.fingerprint(protocol.Asked(asked.sets, asked.out, asked.extractors, seed=1)) != key
    others = open_sets(tmp_path / "sets" / "train", tmp_path / "sets" / "unseen",
                       judged.collection(tmp_path / "other", range(300, 310)))
    assert protocol.fingerprint(protocol.Asked(others, asked.out, asked.extractors)) != key
    monkeypatch.setattr(protocol, "MEANING", protocol.MEANING + 1)
    assert protocol.fingerprint(asked) != key


def test_a_part_that_cannot_be_computed_is_a_row_that_says_why(asked, monkeypatch):
    def fails(asked):
        raise ValueError("expected labels, found none.")
    monkeypatch.setitem(protocol.PARTS, "cost", fails)
    (part,) = protocol.judge(asked, ["cost"])
    assert part.rows == (absent("cost", "expected labels, found none"),)


def test_a_cache_cut_short_is_computed_again(asked):
    first = protocol.judge(asked, ["validity"])
    (asked.cache / "validity.json").write_text('{"key": "')
    assert protocol.judge(asked, ["validity"]) == first


def test_an_unknown_part_is_named(asked):
    with pytest.raises(ValueError, match="found 'beauty'"):
        protocol.judge(asked, ["beauty"])
