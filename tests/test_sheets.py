"""Sheets: every picture has its place, no caption leaves the paper."""

import numpy as np
from PIL import Image, ImageFont

from medisyn.data import sheets

RED, GREEN = Image.new("RGB", (20, 20), (200, 0, 0)), Image.new("RGB", (20, 20), (0, 200, 0))


def area(paper: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(paper) == colour).all(-1).sum())


def test_every_picture_is_drawn_at_its_size():
    paper = sheets.sheet([("one", [RED, GREEN]), ("two", [GREEN])], tile=20)
    assert area(paper, (200, 0, 0)) == 400
    assert area(paper, (0, 200, 0)) == 800


def test_a_long_row_goes_on_below():
    narrow, wide = (sheets.sheet([("many", [RED] * 6)], tile=20, columns=n) for n in (2, 6))
    assert area(narrow, (200, 0, 0)) == area(wide, (200, 0, 0)) == 6 * 400
    assert narrow.width < wide.width
    assert narrow.height > wide.height


def test_a_picture_keeps_its_aspect():
    tall = sheets.fitted(Image.new("L", (10, 40), 255), 20)
    pixels = np.asarray(tall)[..., 0]
    assert tall.size == (20, 20)
    assert (pixels == 255).sum() == 5 * 20


def test_captions_are_broken_at_the_width_and_lose_no_word():
    font, text = ImageFont.load_default(13), "a chest X-ray of a child with viral pneumonia, no effusion"
    lines = sheets.wrapped(text, font, 120)
    assert " ".join(lines) == text
    assert len(lines) > 2
    assert all(font.getlength(line) <= 120 for line in lines)
    assert sheets.wrapped("", font, 120) == [""]


def test_a_sheet_of_nothing_is_still_a_picture():
    assert sheets.sheet([], title="nothing").size[0] > 0
    titled, bare = (sheets.sheet([("a", [RED])], tile=20, title=title) for title in ("Title", None))
    assert titled.height > bare.height


def test_rows_may_stand_side_by_side_and_none_is_lost():
    rows = [(str(i), [RED] * 2) for i in range(5)]
    tall, broad = sheets.sheet(rows, tile=20, title="t"), sheets.sheet(rows, tile=20, title="t", across=2)
    assert area(tall, (200, 0, 0)) == area(broad, (200, 0, 0)) == 10 * 400
    assert broad.width > tall.width
    assert broad.height < tall.height


def test_accented_letters_are_drawn():
    """Pillow's own typeface draws an empty box for each."""
    unknown = sheets.font(13).getmask("\uffff")
    assert bytes(sheets.font(13).getmask("\u00fc")) != bytes(unknown)
