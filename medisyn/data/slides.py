"""Slides: whole-slide images as square tiles of tissue at a given size of their pixels.

Read by tiffslide; formats that it lacks by OpenSlide, and DICOM slides (`dicom_slides` finds them) by wsidicom, where these
are installed. Only the pyramid is read: the label and the macro image, which show the patient's name, are never opened.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from medisyn.data import dicom_slides, handles
from medisyn.data.dicom_file import quiet
from medisyn.data.windows import Refused

MICRONS = 0.5          # a pixel: a 20x objective
SIDE = 256             # pixels of a tile
LEAST_TISSUE = 0.5     # of a tile's area
LEAST_SATURATION = 18  # of 255: glass and paper stay below, whatever Otsu's threshold says of a slide without tissue
MASK_MICRONS = 32.0    # a pixel of the tissue mask
MOST_PIXELS = 2**34    # of the level that the mask is made from: 131,072 a side, an hour's decoding
MOST_SQUEEZED = 2000   # bytes of pixels a byte of the file: deflate and JPEG reach 1000 where nothing is to be seen
APART = (".mrxs", ".vms", ".vmu")  # their pixels lie in other files
BLOCK = 2048           # pixels a side that are read at a time for the mask
FINER = 0.98           # a tile may be this much finer than the slide: scanners state 0.2527 for 0.25
FACTS = {"image_type": "histopathology", "technique": "haematoxylin_eosin"}  # the routine stain; a mapping says another


@dataclass(frozen=True)
class Level:
    """One floor of the pyramid."""

    number: int
    size: tuple[int, int]  # width, height in pixels
    scale: float           # pixels of level 0 a pixel


class Slide:
    """An open slide, whoever reads it."""

    def __init__(self, path: Path) -> None:
        self.held, self.levels, self.microns = opened(path)

    def region(self, level: Level, left: int, top: int, width: int, height: int) -> Image.Image:
        """A part of a level as "RGB"; left and top in its own pixels. What lies outside is white."""
        x, y = max(0, left), max(0, top)
        w, h = min(left + width, level.size[0]) - x, min(top + height, level.size[1]) - y
        picture = Image.new("RGB", (width, height), "white")
        if w > 0 and h > 0:
            if hasattr(self.held, "level_downsamples"):
                place = round(x * level.scale), round(y * level.scale)
                found = self.held.read_region(place, level.number, (w, h)).convert("RGBA")
                picture.paste(found, (x - left, y - top), found)
            else:
                with quiet():
                    picture.paste(self.held.read_region((x, y), level.number, (w, h)).convert("RGB"), (x - left, y - top))
        return picture

    def close(self) -> None:
        self.held.close()


def opened(path: Path) -> tuple[Any, list[Level], float]:
    """A reader of a slide, the levels of its pyramid, and the micrometres a pixel of level 0; ValueError where there is none."""
    dicom = dicom_slides.is_dicom(path)
    held = (dicom_slide if dicom else tiff_slide)(path)
    try:
        if dicom:
            found = sorted(held.levels, key=lambda level: level.level)
            base = found[0]
            levels = [Level(one.level, (one.size.width, one.size.height), base.size.width / one.size.width) for one in found]
            return held, levels, float(base.mpp.width)
        microns = held.properties.get("tiffslide.mpp-x") or held.properties.get("openslide.mpp-x")
        if not microns or not 0.01 < float(microns) < 100:
            raise Refused("the slide does not say how many micrometres a pixel is wide")
        levels = [Level(number, size, scale) for number, (size, scale)
                  in enumerate(zip(held.level_dimensions, held.level_downsamples, strict=True))]
        if path.suffix.lower() not in APART and 3 * levels[0].size[0] * levels[0].size[1] > MOST_SQUEEZED * path.stat().st_size:
            raise Refused("its header says more pixels than its bytes can hold")
        return held, levels, float(microns)
    except BaseException:
        held.close()
        raise


def tiff_slide(path: Path) -> Any:
    """A slide by tiffslide, else by OpenSlide."""
    try:
        from tiffslide import TiffSlide
    except ImportError:
        raise Refused("a whole slide needs tiffslide, which is not installed; pip install medisyn[slides]") from None
    try:
        return TiffSlide(path)
    except Exception as error:
        try:
            from openslide import OpenSlide
        except Exception:  # the library that it loads may be missing, too
            raise Refused(f"not a slide that tiffslide reads ({type(error).__name__}); OpenSlide, which reads more, "
                          "is not installed") from None
        try:
            return OpenSlide(path)
        except Exception as other:
            raise Refused(f"not a readable slide ({type(error).__name__}, {type(other).__name__})") from None


def dicom_slide(path: Path) -> Any:
    """A slide in DICOM by wsidicom: the floors of its pyramid, and no other file of its folder."""
    try:
        from wsidicom import WsiDicom
    except ImportError:
        raise Refused("a DICOM slide needs wsidicom, which is not installed; pip install medisyn[wsi]") from None
    logging.getLogger("wsidicom").setLevel(logging.CRITICAL)  # it quotes headers
    floors = dicom_slides.floors(path)
    if not floors:
        raise Refused("it shows the label of a slide, or all of it from afar")
    try:
        with quiet():
            return WsiDicom.open(floors)
    except Exception as error:
        raise Refused(f"not a readable DICOM slide ({type(error).__name__})") from None


def parts(file: Path | BinaryIO, each: int = 1, microns: float = MICRONS, side: int = SIDE) -> Iterator[tuple[str, dict]]:
    """The part and the facts of each tile that holds tissue, row by row; every `each`-th of them.

    microns: micrometres a pixel of the tile; side: its pixels.
    """
    slide = held(file)
    try:
        yield from tiles(slide, each, microns, side)
    except Refused:
        raise
    except Exception as error:  # whatever a damaged slide does to its reader
        raise ValueError(f"not a readable slide ({type(error).__name__})") from None


def tiles(slide: Slide, each: int, microns: float, side: int) -> Iterator[tuple[str, dict]]:
    """`parts` of an open slide."""
    expect_coarser(slide, microns)
    wide = side * microns / slide.microns  # pixels of level 0
    tissue, scale = mask(slide)            # scale: pixels of level 0 a pixel of the mask
    count = 0
    for row in range(int(slide.levels[0].size[1] // wide)):
        for column in range(int(slide.levels[0].size[0] // wide)):
            left, top = round(column * wide), round(row * wide)
            inside = tissue[int(top / scale):max(int(top / scale) + 1, round((top + wide) / scale)),
                            int(left / scale):max(int(left / scale) + 1, round((left + wide) / scale))]
            if inside.size and inside.mean() >= LEAST_TISSUE:
                if count % each == 0:
                    yield f"{left},{top},{side},{microns:g}", dict(FACTS)
                count += 1


def picture(file: Path | BinaryIO, part: str, reading: object = None) -> tuple[Image.Image, None]:
    """The tile that a part names: "left,top,side,microns", left and top in pixels of level 0."""
    if not part:
        raise ValueError("a whole slide is read as tiles; its address should end in #left,top,side,microns")
    left, top, side = (int(number) for number in part.split(",")[:3])
    microns = float(part.split(",")[3])
    slide = held(file)
    expect_coarser(slide, microns)
    if not 0 < side <= 8192 or left >= slide.levels[0].size[0] or top >= slide.levels[0].size[1]:
        raise ValueError("the tile does not lie on the slide, or is more than 8192 pixels wide")
    scale = microns / slide.microns
    level = max((one for one in slide.levels if one.scale <= scale / FINER), key=lambda one: one.scale, default=slide.levels[0])
    wide = max(1, round(side * scale / level.scale))
    if wide * wide > Image.MAX_IMAGE_PIXELS:
        raise ValueError("the tile covers more pixels than are read at once: the slide has no level that is coarse enough")
    try:
        found = slide.region(level, round(left / level.scale), round(top / level.scale), wide, wide)
    except Exception as error:
        raise ValueError(f"the tile is not readable ({type(error).__name__})") from None
    return found if wide == side else found.resize((side, side), Image.Resampling.LANCZOS), None


def held(file: Path | BinaryIO) -> Slide:
    """An open slide; ValueError where it is none."""
    if not isinstance(file, Path):
        raise ValueError("a whole slide inside an archive cannot be read in place; unpack it")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it quotes file names
    try:
        return handles.kept(Slide, file)
    except Refused:
        raise
    except Exception as error:  # tiffslide's own ValueError among them: it quotes the file
        raise ValueError(f"not a readable slide ({type(error).__name__})") from None


def expect_coarser(slide: Slide, microns: float) -> None:
    if not microns >= slide.microns * FINER:
        raise Refused(f"the slide has {slide.microns:g} micrometres a pixel; tiles of {microns:g} would be enlarged")


def mask(slide: Slide) -> tuple[np.ndarray, float]:
    """Where the slide shows tissue, bool (H, W), and how many pixels of level 0 a pixel of it stands for.

    Tissue is stained and glass is not: the saturation of the colours, parted by Otsu's threshold.
    """
    wanted = max(1.0, MASK_MICRONS / slide.microns)
    level = max((one for one in slide.levels if one.scale <= wanted * 1.01), key=lambda one: one.scale)
    step = max(1, round(wanted / level.scale))
    if level.size[0] * level.size[1] > MOST_PIXELS:
        raise Refused(f"its header says {level.size[0]} x {level.size[1]} pixels and no smaller view, more than can be read")
    width, height = (max(1, n // step) for n in level.size)
    saturation = np.zeros((height, width), np.uint8)
    block = max(step, BLOCK // step * step)
    for top in range(0, height * step, block):
        for left in range(0, width * step, block):
            w, h = min(block, width * step - left), min(block, height * step - top)
            small = slide.region(level, left, top, w, h).reduce(step).convert("HSV").getchannel("S")
            saturation[top // step:top // step + small.height, left // step:left // step + small.width] = np.asarray(small)
    return saturation > max(otsu(saturation), LEAST_SATURATION), step * level.scale


def otsu(values: np.ndarray) -> int:
    """The threshold (0 to 255; above it is the one class) that parts uint8 values best (Otsu 1979, eq. 18)."""
    share = np.bincount(values.ravel(), minlength=256) / values.size
    below, mean = np.cumsum(share), np.cumsum(share * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean[-1] * below - mean) ** 2 / (below * (1 - below))
    return int(np.argmax(np.nan_to_num(between, nan=0, posinf=0)))
