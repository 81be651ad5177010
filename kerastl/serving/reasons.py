"""Explains why an encoded image is not valid."""

import io
import warnings

import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from kerastl.data import decode
from kerastl.data.examine import first_line, what_it_is
from kerastl.serving.cost import decode_cost

SERVED = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP")
_SMALL = 4_000_000  # cost of what is decoded again only to learn what is wrong


def invalid_image_reason(data: bytes) -> str:
    """Say what is wrong with an encoded image that was refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about sizes: the answer tells
            with Image.open(io.BytesIO(data), formats=decode.PILLOW_FORMATS) as image:
                kind, size = str(image.format), image.size
                if kind == "WEBP" and getattr(image, "is_animated", False):
                    return "an animated WebP: send one of its frames as PNG"
                if kind == "WEBP" and image.mode == "RGBA":
                    return "a WebP with transparency: send PNG"
    except UnidentifiedImageError:
        return what_it_is(data)
    except Image.DecompressionBombError:
        return "more pixels than the exported model can decode"
    except Exception as error:  # a broken header makes Pillow raise all sorts
        return f"a broken header: {first_line(error)}"
    if kind not in SERVED:
        return f"{kind} is not supported: send JPEG or PNG"
    if decode_cost(data) <= _SMALL:
        try:
            decode.decode_image(tf.constant(data))
        except tf.errors.OpError as error:
            return f"a damaged or incomplete {kind}: {first_line(error)}"
    return (
        f"a {kind} of {size[0]} x {size[1]} pixels in {len(data):,} bytes: damaged, or "
        "larger than the exported model can decode"
    )
