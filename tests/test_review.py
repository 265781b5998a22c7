"""Review: what is held is on one private page, and what was looked at passes."""

import base64
import io
import os
import re
import stat

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from medisyn.data import review

NAMES = ("00000000000000aa", "00000000000000bb", "00000000000000cc")


@pytest.fixture
def raw(tmp_path):
    """A raw folder with an image that names its patient, a plain one, and one that is none."""
    folder = tmp_path / "raw"
    (folder / "SMITH").mkdir(parents=True)
    picture = Image.fromarray(np.full((400, 500), 30, np.uint8))
    picture.save(folder / "SMITH/plain.png")
    ImageDraw.Draw(picture).text((10, 10), "SMITH^JOHN 1961", fill=255, font=ImageFont.load_default(20))
    picture.save(folder / "SMITH/named.png")
    (folder / "SMITH/broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def private(tmp_path, raw):
    folder = tmp_path / "private"
    folder.mkdir()
    review.hold(folder, [{"name": name, "file": f"SMITH/{file}.png", "source": "ward", "reason": reason} for name, file, reason in
                         zip(NAMES, ("named", "plain", "broken"), ("text <b>", "text <b>", "not readable"), strict=True)],
                source="ward", raw=raw)
    return folder


def test_a_run_replaces_what_its_source_held_before(private):
    review.hold(private, [{"name": "d" * 16, "file": "x.png", "source": "clinic", "reason": "text"}], source="clinic")
    assert len(review.held(private)) == 4
    review.hold(private, [], source="ward")
    assert [row["source"] for row in review.held(private)] == ["clinic"]


def test_a_released_image_passes_until_it_is_taken_back(private):
    assert review.released(private) == set()
    assert review.release(private, [NAMES[0], NAMES[0]]) == [NAMES[0]]
    assert review.release(private, [NAMES[0]]) == [] and review.released(private) == {NAMES[0]}
    review.hold(private, [], source="ward")                    # taken in, so held no more; the decision stays
    assert review.released(private) == {NAMES[0]} and review.release(private, [NAMES[0]]) == []
    review.retract(private, [NAMES[0]])
    assert review.released(private) == set()


def test_a_name_that_is_not_held_releases_nothing(private):
    with pytest.raises(ValueError, match="did you mean 00000000000000cc"):
        review.release(private, [NAMES[0], "00000000000000cd"])
    assert review.released(private) == set()


def test_the_page_shows_each_image_with_its_reason_and_loads_nothing_from_outside(private, tmp_path):
    seen = []
    path = review.page(private, tmp_path / "collection", progress=lambda done, total: seen.append((done, total)))
    page = path.read_text()
    assert path.parent == private and seen == [(1, 3), (2, 3), (3, 3)]
    assert all(name in page for name in NAMES) and page.count("<div class=card>") == 3
    assert "text &lt;b&gt; (2)" in page and "<b>" not in page  # what is said is escaped
    assert review.WARNING in page and "medisyn review" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert not re.search(r"url\(|//|@import", re.sub(r"base64,[^\"]+", "", page))
    assert page.count("<input type=checkbox") == 2                    # what cannot be read cannot be released


def test_found_text_is_shown_enlarged(private, tmp_path):
    page = review.page(private, tmp_path / "collection").read_text()
    cards = page.split("<div class=card>")[1:]
    pictures = [[Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]+)", card)]
                for card in cards]
    assert [len(held) for held in pictures] == [2, 1, 0]
    assert max(pictures[0][0].size) == review.THUMBNAIL and pictures[0][1].width > 300


def test_a_released_image_leaves_the_page(private, tmp_path):
    review.release(private, [NAMES[0]])
    page = review.page(private, tmp_path / "collection").read_text()
    assert NAMES[0] not in page and NAMES[1] in page and "1 were released before" in page
    review.hold(private, [], source="ward")
    assert "Nothing is held" in review.page(private, tmp_path / "collection").read_text()


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_everything_private_is_its_owners_alone(private, tmp_path):
    review.release(private, [NAMES[0]])
    review.page(private, tmp_path / "collection")
    assert {path.name for path in private.iterdir()} == {review.HELD, review.RELEASED, review.PAGE}
    assert {stat.S_IMODE(path.stat().st_mode) for path in private.iterdir()} == {0o600}
