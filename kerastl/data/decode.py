"""Decodes a file to pixels; the only module that does.

Training, prediction and the exported SavedModel trace these very functions, so all three see the
same uint8 pixels: RGB as a viewer shows it, upright, transparency over white, and brought
to the asked size as `keras.utils.image_dataset_from_directory` does.

JPEG, PNG, BMP, GIF (first frame) and opaque WebP decode in TensorFlow. What only Pillow can
decode (TIFF, AVIF, WebP with transparency, unusual BMP), and tifffile (TIFF of other channels),
goes through `decode_with_pillow`, which runs in Python: the scan marks such files, and a SavedModel
refuses them.
"""

import functools
import io
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, cast

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from kerastl.data import _bytes
from kerastl.data.options import RGB

PILLOW_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""The formats that Pillow may open: those with no interpreter and no plug-in behind them."""

_BLOCK = 2**16  # pixels that are laid over white at a time: 60 million at once took 2 GB

_TURNS = (  # EXIF orientation 1 to 8: step down, step right, then the axes they are read along
    (1, 1, (0, 1)),
    (1, -1, (0, 1)),
    (-1, -1, (0, 1)),
    (-1, 1, (0, 1)),
    (1, 1, (1, 0)),
    (1, -1, (1, 0)),
    (-1, -1, (1, 0)),
    (-1, 1, (1, 0)),
)


def resize(image: Any, size: Any, how: str = "squash") -> Any:
    """Bring an image or a batch of images to `size`, rounded back to uint8.

    Bilinear without antialiasing.

    Args:
        image: tensor `(..., height, width, 3)` from 0 to 255 with at most one leading dimension.
        size: `(height, width)` in pixels.
        how: `"squash"` stretches the whole image, `"crop"` keeps its middle, of the largest area
            that has the asked shape, and `"pad"` the whole image between black margins.

    Returns:
        uint8 tensor `(..., *size, 3)`.
    """
    if how != "squash":
        # Vectors of height and width; int64, since the products are of thousands times millions.
        own, wanted = tf.shape(image, tf.int64)[-3:-1], tf.constant(size, tf.int64)
        # A slice of negative stride makes TensorFlow's optimizer of graphs give up.
        across, wanted_across = tf.reverse(own, [0]), tf.constant(size[::-1], tf.int64)
        batch = len(image.shape) - 3
    if how == "crop":
        inner = tf.clip_by_value(across * wanted // wanted_across, 1, own)
        start = tf.concat([[0] * batch, (own - inner) // 2, [0]], 0)
        image = tf.slice(image, start, tf.concat([[-1] * batch, inner, [-1]], 0))
    if how == "pad":  # after the resizing: before it, a line of pixels would fill a square
        sides = (2 * own * wanted_across + across) // (2 * across)
        inner = tf.clip_by_value(sides, 1, wanted)
        before = (wanted - inner) // 2
        margins = tf.stack([before, wanted - inner - before], 1)
        margins = tf.pad(margins, [[batch, 1], [0, 0]])
        padded = tf.pad(resize(image, tf.cast(inner, tf.int32)), margins)
        return tf.ensure_shape(padded, [*image.shape[:-3], *size, image.shape[-1]])
    resized = tf.image.resize(image, size, method="bilinear", antialias=False)
    return tf.cast(tf.round(resized), tf.uint8)


def decode_image(data: Any, *, jpeg_only: bool = False, bit_depth: int | None = None) -> Any:
    """Decode a JPEG, PNG, BMP, GIF or opaque WebP, in graph operations only.

    Args:
        data: String tensor `()`, the bytes of the file.
        jpeg_only: The data are known to be JPEG: the other formats, which cost every image half
            a millisecond, stay out of the graph.
        bit_depth: The values of images of more than 8 bits run from 0 to `2**bit_depth - 1`.
            Default: all that their format has.

    Returns:
        uint8 tensor `(height, width, 3)`: RGB, turned upright by the EXIF orientation,
        transparency over white, the first frame of an animation, the high byte of 16 bits.

    Raises:
        tf.errors.InvalidArgumentError: The bytes are no whole image of these formats.
    """
    decoder = _traced_decode_jpeg if jpeg_only else _traced_decode(bit_depth)
    return tf.ensure_shape(decoder(data), [None, None, 3])


def decode_with_pillow(data: Any, bit_depth: int | None = None, channels: int = RGB) -> Any:
    """Decode what TensorFlow cannot, by Pillow or tifffile, to the same rules as `decode_image`.

    It runs in Python, so it is for training and prediction only and never part of an export.

    Args:
        data: String tensor `()`, the bytes of the file.
        bit_depth: As `decode_image` takes it.
        channels: Of the pixels; of others than 3 the file is a TIFF.

    Returns:
        uint8 tensor `(height, width, channels)`.
    """
    decoder = functools.partial(pillow_pixels, bit_depth=bit_depth, channels=channels)
    image = tf.numpy_function(decoder, [data], tf.uint8, stateful=False)
    return tf.ensure_shape(image, [None, None, channels])


def is_deep(image: Image.Image) -> bool:
    """Whether the values of an image that Pillow has opened have more than 8 bits."""
    raw = image.mode
    if isinstance(image, PngImagePlugin.PngImageFile) and image.tile:
        raw = str(image.tile[0][3])  # where Pillow opens 16 bits of colour, its mode says 8
    return "16" in raw or image.mode in ("I", "F")


def needs_tifffile(image: Image.Image) -> bool:
    """Whether Pillow reads one channel of many, or one byte of two, of a file it has opened."""
    if image.format != "TIFF":
        return False
    tags = image.tag_v2  # type: ignore[attr-defined]
    count, bits = tags.get(277, 1), max(tags.get(258, (1,)))
    is_gray, has_alpha = tags.get(262) in (0, 1), tags.get(338, ())[:1] in ((1,), (2,))
    return (count == RGB and bits > 8) or (count > 1 and is_gray and not has_alpha)


def has_unread_channels(image: Image.Image) -> bool:
    """Whether a TIFF has channels besides R, G, B and transparency."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    extra = tags.get(338, ())
    return tags.get(262) == 2 and tags.get(277, 1) > RGB and extra not in ((1,), (2,))


def peak(path: str, channels: int = RGB) -> int:
    """Return the largest value of an image of more than 8 bits, rounded up."""
    if channels == RGB:
        with suppress(UnidentifiedImageError), Image.open(path, formats=PILLOW_FORMATS) as image:
            if image.format == "PNG":
                data = tf.io.read_file(os.fsencode(path))
                return int(tf.reduce_max(tf.io.decode_png(data, channels=3, dtype=tf.uint16)))
            if not needs_tifffile(image):
                return int(np.ceil(np.asarray(image).max()))
    return int(np.ceil(_tiff_values(path, channels).max()))


def to_eight_bits(values: np.ndarray, bit_depth: int) -> np.ndarray:
    """Scale values from 0 to `2**bit_depth - 1` to uint8; those beyond are clipped."""
    if not np.isfinite(values).all():
        raise ValueError("pixels that are not finite")
    scaled = np.rint(values * np.float64(255 / (2**bit_depth - 1)))
    return np.asarray(np.clip(scaled, 0, 255).astype(np.uint8))


def pillow_pixels(data: bytes, bit_depth: int | None = None, channels: int = RGB) -> np.ndarray:
    """Decode the bytes of an image to uint8 `(height, width, channels)` by Pillow or tifffile."""
    if channels != RGB:
        return _tiff_pixels(data, bit_depth, channels)
    try:
        with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as opened:
            if needs_tifffile(opened):
                return _tiff_pixels(data, bit_depth, channels)
            image = ImageOps.exif_transpose(opened)
    except UnidentifiedImageError:  # such as a TIFF of three times 32 bits
        return _tiff_pixels(data, bit_depth, channels)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        if bit_depth is not None:
            gray = to_eight_bits(np.asarray(image), bit_depth)
        elif image.mode in ("I", "F"):
            raise ValueError(
                f"pixels of 32 bits (mode {image.mode!r}) have no known range: pass `bit_depth`"
            )
        else:
            gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[..., np.newaxis], 3, axis=-1)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


class TiffHeader(NamedTuple):
    """The properties of a TIFF."""

    shape: tuple[int, ...]
    axes: str
    """A letter for each of the shape: Y and X, and one for the channels, wherever it stands."""
    dtype: np.dtype

    def axis_of(self, channels: int) -> int | None:
        """Return which axis holds so many channels: that of the file, else the last or first."""
        if len(self.shape) != 3:
            return None
        own = [at for at, axis in enumerate(self.axes) if axis not in "YX"]
        return next((at for at in (*own, 2, 0) if self.shape[at] == channels), None)

    @property
    def channels(self) -> int:
        """How many channels there are, as far as the file tells: else the shortest side."""
        if len(self.shape) < 3:
            return 1
        return self.shape[self.axes.index("S")] if "S" in self.axes else min(self.shape)


def read_tiff_header(file: Any) -> TiffHeader:
    """Read what a TIFF, a path or an open file, says of its first image."""
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        first = tiff.series[0]
        return TiffHeader(tuple(first.shape), first.axes, np.dtype(first.dtype))


def _tiff_pixels(data: bytes, bit_depth: int | None, channels: int) -> np.ndarray:
    values = _tiff_values(io.BytesIO(data), channels)
    if values.dtype == np.uint8:
        return values
    if bit_depth is not None:
        return to_eight_bits(values, bit_depth)
    if values.dtype != np.uint16:
        raise ValueError(f"pixels of {values.dtype} have no known range: pass `bit_depth`")
    return (values >> 8).astype(np.uint8)


def _tiff_values(file: Any, channels: int) -> np.ndarray:
    """Return the values `(height, width, channels)` of a TIFF, upright."""
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        first, page = tiff.series[0], cast(Any, tiff.pages[0])
        header = TiffHeader(tuple(first.shape), first.axes, np.dtype(first.dtype))
        values = first.asarray()
        orientation = page.tags.valueof("Orientation", 1)
        known = page.photometric not in (tifffile.PHOTOMETRIC.MINISWHITE, 3)  # 3: a palette
    axis = header.axis_of(channels)
    if axis is None and (values.ndim, channels) != (2, 1):
        raise ValueError(f"an array {header.shape}, which does not have {channels} channels")
    if not known:
        raise ValueError("a palette or inverted gray: convert it to plain values")
    values = values[..., np.newaxis] if axis is None else np.moveaxis(values, axis, -1)
    down, right, axes = _TURNS[orientation - 1] if orientation in range(1, 9) else _TURNS[0]
    return np.ascontiguousarray(values.transpose(*axes, 2)[::down, ::right])


def _decode_jpeg(data: Any) -> Any:
    # The default, the fast transform, is up to 2 levels a pixel away from what viewers show.
    image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
    return _orient(image, _bytes.orientation(_bytes.head(data), b"Exif\x00\x00"))


def _decode_whole(data: Any) -> Any:
    # channels=0 corrupts the heap on animated WebP; channels=3 refuses them.
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def _decode(data: Any, bit_depth: int | None) -> Any:
    is_jpeg = _bytes.starts_with(data, b"\xff\xd8")
    return tf.cond(is_jpeg, lambda: _decode_jpeg(data), lambda: _decode_other(data, bit_depth))


def _decode_other(data: Any, bit_depth: int | None) -> Any:
    return tf.case(
        [
            (_bytes.starts_with(data, b"\x89PNG\r\n\x1a\n"), lambda: _decode_png(data, bit_depth)),
            (_bytes.starts_with(data, b"GIF8"), lambda: _decode_gif(data)),
            (_bytes.starts_with(data, b"BM"), lambda: _decode_bmp(data)),
        ],
        default=lambda: _decode_whole(data),
    )


def _decode_png(data: Any, bit_depth: int | None) -> Any:
    head = _bytes.head(data)
    transparency, pixels = _bytes.find(head, b"tRNS"), _bytes.find(head, b"IDAT")
    has_table = (transparency >= 0) & (transparency < pixels)
    is_opaque = (head[25] & 4 == 0) & (pixels >= 0) & tf.logical_not(has_table)
    # Without transparency TensorFlow fills a fourth channel with `2 ** bit_depth - 1`, which means
    # opaque from 8 bits on, but not for the 1, 2 and 4 bits of palettes and gray levels.
    has_alpha = (head[24] >= 8) | has_table

    def decoded(decode: Callable[..., Any]) -> Any:
        def deep() -> Any:
            values = decode(dtype=tf.uint16)
            scaled = tf.round(tf.cast(values[..., :3], tf.float32) * (255 / (2.0**bit_depth - 1)))  # type: ignore[operator]
            color = tf.cast(tf.minimum(scaled, 255.0), tf.uint8)
            return tf.concat([color, tf.cast(values[..., 3:] // 256, tf.uint8)], -1)

        return decode() if bit_depth is None else tf.cond(head[24] == 16, deep, decode)

    def opaque() -> Any:
        return decoded(lambda **how: tf.io.decode_png(data, channels=3, **how))

    def transparent() -> Any:
        rgba = decoded(lambda **how: tf.io.decode_png(data, channels=4, **how))
        return _over_white(rgba, has_alpha)

    image = tf.cond(is_opaque, opaque, transparent)
    return _orient(image, _bytes.orientation(head, b"eXIf"))


def _over_white(rgba: Any, has_alpha: Any) -> Any:
    opaque = tf.logical_not(has_alpha) | tf.reduce_all(rgba[..., 3] == 255)
    flat = tf.reshape(rgba, [-1, 4])

    def mix(number: Any, mixed: Any) -> tuple[Any, Any]:
        block = tf.cast(flat[number * _BLOCK : (number + 1) * _BLOCK], tf.int32)
        color, alpha = tf.split(block, [3, 1], axis=-1)
        over = (color * alpha + 255 * (255 - alpha) + 127) // 255
        return number + 1, mixed.write(number, tf.cast(over, tf.uint8))

    def composite() -> Any:
        count = -(-tf.shape(flat)[0] // _BLOCK)
        mixed = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=[None, 3])
        is_left = lambda number, _: number < count  # noqa: E731
        _, mixed = tf.while_loop(is_left, mix, (0, mixed), parallel_iterations=1)
        return tf.reshape(mixed.concat(), tf.concat([tf.shape(rgba)[:2], [3]], 0))

    return tf.cond(opaque, lambda: rgba[..., :3], composite)


def _decode_gif(data: Any) -> Any:
    """Decode the first frame of a GIF; TensorFlow paints its transparent pixels black."""
    head = _bytes.head(data)
    blocks = 13 + _gif_table_size(head[10])
    control = blocks + _bytes.find(head[blocks:], b"\x21\xf9\x04")
    has_control = (control >= blocks) & (control + 17 < tf.size(head))
    return _decode_whole(
        tf.cond(has_control, lambda: _whiten_gif(data, head, control), lambda: data)
    )


def _whiten_gif(data: Any, head: Any, control: Any) -> Any:
    """Make the colour that the extension at `control` calls transparent an opaque white."""
    flags, index = head[control + 3], tf.cast(head[control + 6], tf.int32)
    frame = control + 8  # where the image that the extension belongs to is described
    own_size, size = _gif_table_size(head[frame + 9]), _gif_table_size(head[10])
    color = tf.where(own_size > 0, frame + 10, 13) + 3 * index
    known = 3 * index < tf.where(own_size > 0, own_size, size)
    opaque = tf.gather([bytes([value]) for value in range(256)], tf.cast(flags & 0xFE, tf.int32))
    return tf.cond(
        known & (flags & 1 == 1),
        lambda: _bytes.overwrite(_bytes.overwrite(data, control + 3, opaque), color, b"\xff" * 3),
        lambda: data,
    )


def _gif_table_size(packed: Any) -> Any:
    """Return the bytes of the colour table that a packed field announces."""
    return tf.where(packed >= 0x80, 3 * tf.bitwise.left_shift(2, tf.cast(packed & 7, tf.int32)), 0)


def _decode_bmp(data: Any) -> Any:
    """Decode a BMP; TensorFlow takes the indices of a palette for gray levels."""
    head = _bytes.head(data)
    size, depth, compression = (
        _bytes.number(head, at, length) for at, length in ((14, 4), (28, 2), (30, 4))
    )
    plain = (compression == 0) & ((depth == 8) | (depth == 24) | (depth == 32))
    known = (size >= 40) & (plain | ((compression == 3) & (depth == 32)))
    with tf.control_dependencies([tf.debugging.Assert(known, ["an unusual kind of BMP"])]):
        image = tf.io.decode_bmp(data, channels=3)
    return tf.cond(depth == 8, lambda: _look_up(image[..., 0], head), lambda: image)


def _look_up(indices: Any, head: Any) -> Any:
    """Return the colours `(height, width, 3)` of indices into the palette of a BMP."""
    table = head[14 + _bytes.number(head, 14, 4) : _bytes.number(head, 10, 4)]
    return tf.gather(tf.reshape(table, [-1, 4])[:, 2::-1], tf.cast(indices, tf.int32))


def _orient(image: Any, orientation: Any) -> Any:
    """Turn an image upright; `orientation` is the EXIF value, 1 to 8."""

    def turned() -> Any:
        columns = zip(*_TURNS, strict=True)
        down, right, axes = (tf.gather(column, orientation - 1) for column in columns)
        return tf.transpose(image, tf.concat([axes, [2]], 0))[::down, ::right]

    return tf.cond(orientation == 1, lambda: image, turned)


# Traced once, so that each pipeline need not trace them again.
_STRING = tf.TensorSpec([], tf.string)
_traced_decode_jpeg = tf.function(_decode_jpeg, [_STRING], autograph=False)


@functools.cache
def _traced_decode(bit_depth: int | None) -> Any:
    decode = functools.partial(_decode, bit_depth=bit_depth)
    return tf.function(decode, [_STRING], autograph=False)
