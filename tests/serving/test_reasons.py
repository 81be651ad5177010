import io

import numpy as np
import pytest
from PIL import Image

from kerastl.serving.reasons import invalid_image_reason

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype("uint8")


def encoded(kind, **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


def animated():
    file, image = io.BytesIO(), Image.fromarray(PIXELS)
    image.save(file, "WEBP", save_all=True, append_images=[image.rotate(90)])
    return file.getvalue()


def transparent():
    file = io.BytesIO()
    Image.fromarray(np.dstack([PIXELS, PIXELS[..., :1]])).save(file, "WEBP")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "an empty file"),
        (b"  <html>", "HTML or XML"),
        (b"GIF", "not a known image format"),
        (encoded("JPEG")[:3000], "a damaged or incomplete JPEG: "),
        (encoded("PNG")[:3000], "a damaged or incomplete PNG: "),
        (encoded("TIFF"), "TIFF is not supported"),
        (animated(), "an animated WebP"),
        (transparent(), "a WebP with transparency"),
        (encoded("JPEG"), "a JPEG of 80 x 60 pixels in "),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, "image"),
    ],
)
def test_reasons(data, reason):
    assert reason in invalid_image_reason(data)
