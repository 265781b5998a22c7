"""Video: a frame is found by its number in the order of showing; playlists and broken films are refused."""

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from medisyn.data import video

av = pytest.importorskip("av")

RATE, SIZE = 25, 64


def gray(number):
    """The brightness of a frame: it tells its number, and jumps every ten."""
    return 20 + 9 * (number % 10) + 30 * (number // 10 % 6)


def film(path: Path, frames: int = 30, form: str = "mp4", codec: str = "mpeg4", still=None, shape=(SIZE, SIZE), b_frames: int = 0,
         aspect=None, metadata=None) -> Path:
    """A film of uniformly gray frames with a white left upper corner."""
    with av.open(str(path), "w", format=form) as out:
        out.metadata.update(metadata or {})
        stream = out.add_stream(codec, rate=RATE)
        stream.height, stream.width = shape
        stream.pix_fmt, stream.bit_rate = "yuvj420p" if codec == "mjpeg" else "yuv420p", 4_000_000
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 8, b_frames
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number in range(frames):
            pixels = np.full((*shape, 3), gray(0 if still and number in still else number), np.uint8)
            pixels[:16, :16] = 255
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("form, codec, suffix, b_frames", [
    ("mp4", "mpeg4", "mp4", 0), ("mp4", "mpeg4", "mp4", 2), ("matroska", "mpeg4", "mkv", 0), ("avi", "mpeg4", "avi", 0),
    ("mov", "mjpeg", "mov", 0), ("mpeg", "mpeg2video", "mpg", 2), ("mpegts", "mpeg2video", "ts", 0)])
def test_every_frame_is_found_by_its_number_in_any_order(tmp_path, form, codec, suffix, b_frames):
    try:
        path = film(tmp_path / f"a.{suffix}", form=form, codec=codec, b_frames=b_frames)
    except (av.error.FFmpegError, ValueError) as error:
        pytest.skip(f"this build of FFmpeg cannot write it ({type(error).__name__})")
    assert len(video.times(path)) == 30
    for number in (17, 3, 29, 0, 18):
        for file in (path, io.BytesIO(path.read_bytes())):
            picture, how = video.picture(file, str(number))
            pixels = np.asarray(picture.convert("L")).astype(int)
            assert picture.size == (SIZE, SIZE) and how is None
            assert abs(pixels[32:, 32:].mean() - gray(number)) <= 4, number
            assert pixels[2:10, 2:10].mean() > 235 > 200 > pixels[2:10, -10:].mean()


def test_frames_are_a_step_apart_and_still_stretches_are_taken_once(tmp_path):
    moving = film(tmp_path / "a.mp4", 60)
    chosen = video.Choice(step_seconds=5 / RATE)
    assert [int(part) for part, _ in video.parts(moving, choice=chosen)] == list(range(0, 60, 5))
    assert all(facts == {} for _, facts in video.parts(moving, choice=chosen))
    still = film(tmp_path / "b.mp4", 60, still=range(10, 50))
    assert [int(part) for part, _ in video.parts(still, choice=chosen)] == [0, 5, 10, 50, 55]
    few = [int(part) for part, _ in video.parts(moving, choice=video.Choice(step_seconds=1 / RATE, at_most=6))]
    assert len(few) == 6 and few[0] == 0 and np.ptp(np.diff(few)) <= 6


def test_every_so_many_frames_can_be_asked_for(tmp_path):
    assert [part for part, _ in video.parts(film(tmp_path / "a.mp4", 12), each=5)] == ["0", "5", "10"]


def test_pixels_that_are_not_square_become_square(tmp_path):
    path = film(tmp_path / "a.mp4", 3, shape=(48, 64), aspect=Fraction(1, 2))
    assert video.picture(path, "1")[0].size == (64, 96)


def test_texts_of_a_film_are_not_told(tmp_path):
    path = film(tmp_path / "SMITH_JOHN.mp4", 4, metadata={"title": "SECRET", "comment": "SECRET"})
    assert "SECRET" not in repr(list(video.parts(path))) and "SMITH" not in repr(list(video.parts(path)))
    path.write_bytes(path.read_bytes()[:60] + b"SECRET")
    with pytest.raises(ValueError) as caught:
        video.picture(path, "0")
    assert "SECRET" not in str(caught.value) and "SMITH" not in str(caught.value)


@pytest.mark.parametrize("part", ["-1", "a", "1.5", "9" * 12])
def test_a_part_that_cannot_be_meant_says_what_was_expected(tmp_path, part):
    path = film(tmp_path / "a.mp4", 3)
    with pytest.raises(ValueError, match="number of a frame"):
        video.picture(path, part)
    with pytest.raises(ValueError, match="the film has 3"):
        video.picture(path, "3")


@pytest.mark.parametrize("data", [b"", b"x" * 500, b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n",
                                  b"ffconcat version 1.0\nfile /etc/passwd\n" + b" " * 400,
                                  b"\0\0\0\x18ftypmp42" + b"\0" * 500, b"\x1a\x45\xdf\xa3" + b"\xff" * 500,
                                  b"RIFF\xff\xff\xff\xffAVI " * 40])
def test_what_is_no_film_is_refused_in_one_sentence(tmp_path, data):
    (tmp_path / "a.mp4").write_bytes(data)
    for read in (video.picture, lambda path: list(video.parts(path))):
        with pytest.raises(ValueError) as caught:
            read(tmp_path / "a.mp4")
        assert "\n" not in str(caught.value) and "a.mp4" not in str(caught.value) and "passwd" not in str(caught.value)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_film_cut_short_gives_what_is_there_or_a_reason(tmp_path, share):
    for form, suffix in (("mp4", "mp4"), ("matroska", "mkv")):
        path = film(tmp_path / f"a.{suffix}", form=form)
        path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])
        try:
            parts = list(video.parts(path, each=1))
            video.picture(path, parts[0][0])
        except ValueError as error:
            assert "\n" not in str(error)


def test_flipped_bits_raise_nothing_but_refusals(tmp_path):
    flips = np.random.default_rng(0)
    path = film(tmp_path / "a.mp4", 8)
    data = path.read_bytes()
    for _ in range(25):
        bad = bytearray(data)
        for at in flips.integers(0, len(data), 10):
            bad[at] ^= 1 << int(flips.integers(0, 8))
        path.write_bytes(bytes(bad))
        for read in (lambda: video.picture(path, "5"), lambda: list(video.parts(path))):
            try:
                read()
            except ValueError as error:
                assert "\n" not in str(error)


def test_a_frame_larger_than_can_be_read_is_refused(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", 3)
    monkeypatch.setattr(video.Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="larger than can be read"):
        video.picture(path, "0")


def test_what_looks_like_a_film_is_told_by_its_first_bytes(tmp_path):
    assert video.looks(film(tmp_path / "a.mp4", 3).read_bytes()[:1024])
    assert not video.looks(b"\xff\xd8\xff\xe0" + b"\0" * 500) and not video.looks(b"") and not video.looks(b"#EXTM3U\n" * 60)
