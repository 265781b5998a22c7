"""Codestreams: compressed pixels tell their size before they are decoded."""

import io

import numpy as np
import pytest
from PIL import Image

from medisyn.data import codestreams


@pytest.mark.parametrize("form, settings", [("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG2000", {"no_jp2": True}),
                                            ("JPEG2000", {})])
@pytest.mark.parametrize("shape", [(37, 61), (37, 61, 3)])
def test_the_declared_size_is_the_real_one(form, settings, shape):
    out = io.BytesIO()
    Image.fromarray(np.zeros(shape, np.uint8)).save(out, form, **settings)
    assert codestreams.declared(out.getvalue()) == (37, 61)


def test_a_jpeg_ls_tells_its_size():
    jpeg_ls = pytest.importorskip("jpeg_ls")
    assert codestreams.declared(bytes(jpeg_ls.encode_array(np.zeros((20, 33), np.uint8)))) == (20, 33)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\0\0" * 3, b"\xff\xd8" + b"\xff" * 40, b"RLE", bytes(5000),
                                  b"\xff\x4f\xff\x51\0\0"])
def test_bytes_that_are_no_codestream_declare_nothing(data):
    assert codestreams.declared(data) is None
