"""OCR: what a found line of writing says, so that a scale or a side marker need not wait for a person.

The program `tesseract` reads (apt install tesseract-ocr, brew install tesseract; no Python package is needed). It is asked
about lines that `burned_in` found, never instead of it: it takes half a second a line and finds little by itself in a
medical image. What it reads is judged and forgotten; no text leaves this file.
"""

import io
import os
import re
import shutil
import subprocess

import numpy as np
from PIL import Image

from medisyn.data import burned_in

PROGRAM = "tesseract"
HEIGHT, MARGIN = 48, 20  # a line is shown at this height, in this much empty ground, in pixels
SECONDS = 20             # most time for a line
HARMLESS = re.compile(  # words that name nobody: sides, views, units, numbers too short for a date or a patient's
    r"l|r|left|right|rt|lt|ap|pa|lat|ll|rl|mlo|cc|lmlo|rmlo|lcc|rcc|supine|erect|upright|portable|stand(ing)?|cm|mm|m|s|ms|hz|mhz|"
    r"khz|db|kv|kvp|ma|mas|fps|\d{1,3}([.,]\d)?(cm|mm|hz|mhz|db|kv|x|%)?|x\d", re.IGNORECASE)


def available() -> bool:
    return shutil.which(PROGRAM) is not None


def doubt(picture: Image.Image) -> str | None:
    """As `burned_in.doubt`, but lines that read as harmless do not count; those that cannot be read do."""
    found = burned_in.text_boxes(picture)
    told = [box for box in found if not harmless(line(picture, box))]
    return f"its pixels hold {len(told)} line{'s' * (len(told) > 1)} of text that may name somebody" if told else None


def harmless(words: str) -> bool:
    """Whether what was read names nobody: words of HARMLESS alone, one at least; what cannot be read may name somebody."""
    found = re.findall(r"[^\W_]+(?:[.,][^\W_]+)*", words)
    return bool(found) and all(HARMLESS.fullmatch(word) for word in found)


def line(picture: Image.Image, box: burned_in.Box) -> str:
    """What a line says, as far as it can be read; a line that stands upright is read both ways, and the longer reading holds."""
    margin = 4
    crop = picture.convert("L").crop((max(0, box.left - margin), max(0, box.top - margin),
                                      min(picture.width, box.right + margin), min(picture.height, box.bottom + margin)))
    turned = crop.height > 1.5 * crop.width
    ways = [crop.transpose(turn) for turn in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270)] if turned else [crop]
    return max((spoken(one) for one in ways), key=lambda said: sum(map(str.isalnum, said)))


def spoken(crop: Image.Image) -> str:
    """One line, dark on bright and of a size that the program likes, read by it."""
    shown = crop.resize((max(1, round(crop.width * HEIGHT / crop.height)), HEIGHT), Image.Resampling.BICUBIC)
    if np.median(np.asarray(shown)) < 128:
        shown = shown.point(lambda value: 255 - value)
    sheet = Image.new("L", (shown.width + 2 * MARGIN, shown.height + 2 * MARGIN), int(np.median(np.asarray(shown))))
    sheet.paste(shown, (MARGIN, MARGIN))
    out = io.BytesIO()
    sheet.save(out, "PNG")
    try:
        done = subprocess.run([PROGRAM, "stdin", "stdout", "--psm", "7"], input=out.getvalue(), capture_output=True,
                              timeout=SECONDS, env={**os.environ, "OMP_THREAD_LIMIT": "1"})
    except FileNotFoundError:
        raise ModuleNotFoundError(f"reading text in pixels needs the program {PROGRAM}; install it with "
                                  "apt install tesseract-ocr, or leave OCR out") from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"{PROGRAM} took more than {SECONDS} s for a line of text") from None
    return done.stdout.decode("utf-8", "replace").strip()
