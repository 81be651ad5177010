import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerastl.data.header import num_pixels

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 53, 3)).astype("uint8")


def encoded(kind, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "L", {"progressive": True}),
        ("PNG", "RGBA", {}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGB", {"lossless": False}),
        ("WEBP", "RGBA", {"lossless": False}),
    ],
)
def test_the_size_of_each_format(kind, mode, options):
    assert int(num_pixels(encoded(kind, mode, **options))) == 37 * 53


def test_rows_of_a_bmp_that_run_downwards():
    data = bytearray(encoded("BMP"))
    data[22:26] = (-37).to_bytes(4, "little", signed=True)
    assert int(num_pixels(bytes(data))) == 37 * 53


@pytest.mark.parametrize("data", [b"", b"<html>", b"RIFF", b"RIFF1234WEBPVP8?", b"II*\0"])
def test_what_is_no_image_has_no_size(data):
    assert int(num_pixels(data)) == -1


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM"])
def test_a_cut_header_has_no_pixels(data):
    assert int(num_pixels(data)) == 0


def test_a_jpeg_without_a_frame_raises():
    with pytest.raises(tf.errors.InvalidArgumentError):
        num_pixels(b"\xff\xd8\xff")


def test_sizes_beyond_32_bits_are_negative_or_exact():
    header = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR"
    assert int(num_pixels(header + b"\x7f\xff\xff\xff" * 2)) == (2**31 - 1) ** 2
    assert int(num_pixels(header + b"\0\0\0\1\xff\xff\xff\xff")) < 2**31
