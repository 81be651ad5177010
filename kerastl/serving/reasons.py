"""Why a SavedModel answered that an encoded image is not valid."""

import io
import warnings

import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from kerastl.data import decode
from kerastl.data.examine import first_line, what_it_is

SERVED = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP")
_SMALL = 4_000_000  # pixels that are decoded again only to learn what is wrong


def invalid_image_reason(data: bytes) -> str:
    """Say what is wrong with an encoded image that was refused.

    Args:
        data: the bytes of the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about sizes: the answer tells
            with Image.open(io.BytesIO(data), formats=decode.PILLOW_FORMATS) as image:
                kind, size = str(image.format), image.size
                unusual = _unusual_webp(image) if kind == "WEBP" else ""
    except UnidentifiedImageError:
        return what_it_is(data)
    except Image.DecompressionBombError:
        return "more pixels than the model was exported to decode"
    except Exception as error:  # a broken header makes Pillow raise all sorts
        return f"a broken header: {first_line(error)}"
    return unusual or _of_known(data, kind, size)


def _unusual_webp(image: Image.Image) -> str:
    if getattr(image, "is_animated", False):
        return "an animated WebP: send one of its frames as PNG"
    return "a WebP with transparency: send PNG" if image.mode == "RGBA" else ""


def _of_known(data: bytes, kind: str, size: tuple[int, int]) -> str:
    if kind not in SERVED:
        return f"{kind} is not served: send JPEG or PNG"
    if size[0] * size[1] <= _SMALL:
        try:
            decode.decode_image(tf.constant(data))
        except tf.errors.OpError as error:
            return f"a damaged or incomplete {kind}: {first_line(error)}"
    return (
        f"a {kind} of {size[0]} x {size[1]} pixels in {len(data):,} bytes: damaged, or larger than "
        "the model was exported to decode"
    )
