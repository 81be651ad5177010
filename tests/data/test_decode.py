import io
import pathlib
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from kerastl.data import decode

RNG = np.random.default_rng(0)
PHOTO = np.kron(RNG.integers(0, 256, (6, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8)
ALPHA = RNG.integers(0, 256, (48, 72, 1), dtype=np.uint8)
RGBA = np.concatenate([PHOTO, ALPHA], axis=-1)
REAL = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_pillow_shows(data):
    """Pillow's pixels: upright, transparency over white."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"))


def rgb():
    return Image.fromarray(PHOTO)


def palette(colors=16):
    return rgb().quantize(colors)


def exif(orientation, order=b"II"):
    tags = Image.Exif()
    tags.endian = "<" if order == b"II" else ">"
    tags[0x010F] = "a camera"
    tags[0x0112] = orientation
    return tags


LOSSLESS = {
    "png_rgb": lambda: encoded(rgb(), "PNG"),
    "png_rgba": lambda: encoded(Image.fromarray(RGBA), "PNG"),
    "png_gray": lambda: encoded(rgb().convert("L"), "PNG"),
    "png_gray_alpha": lambda: encoded(Image.fromarray(RGBA).convert("LA"), "PNG"),
    "png_1_bit": lambda: encoded(rgb().convert("1"), "PNG"),
    "png_1_bit_transparent": lambda: encoded(rgb().convert("1"), "PNG", transparency=0),
    "png_palette_1_bit": lambda: encoded(palette(2), "PNG", bits=1),
    "png_palette_4_bits": lambda: encoded(palette(16), "PNG", bits=4),
    "png_palette_4_bits_transparent": lambda: encoded(palette(16), "PNG", transparency=3),
    "png_palette_8_bits": lambda: encoded(palette(200), "PNG"),
    "png_palette_8_bits_alpha": lambda: encoded(
        palette(200), "PNG", transparency=bytes(range(200))
    ),
    "png_rgb_transparent": lambda: encoded(
        rgb(), "PNG", transparency=tuple(int(v) for v in PHOTO[0, 0])
    ),
    "bmp_rgb": lambda: encoded(rgb(), "BMP"),
    "bmp_gray": lambda: encoded(rgb().convert("L"), "BMP"),
    "bmp_palette": lambda: encoded(palette(16), "BMP"),
    "bmp_32_bits": lambda: encoded(Image.fromarray(RGBA), "BMP"),
    "gif": lambda: encoded(palette(64), "GIF"),
    "gif_transparent": lambda: encoded(palette(64), "GIF", transparency=5),
    "gif_animated": lambda: encoded(
        palette(64), "GIF", save_all=True, append_images=[rgb().rotate(180).quantize(64)]
    ),
    "gif_animated_transparent": lambda: encoded(
        palette(64),
        "GIF",
        save_all=True,
        transparency=5,
        loop=0,
        append_images=[rgb().rotate(180).quantize(64)],
    ),
    "webp_opaque": lambda: encoded(rgb(), "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_equal_pillow(name):
    data = LOSSLESS[name]()

    pixels = decode.decode_image(data)

    assert pixels.dtype == tf.uint8
    np.testing.assert_array_equal(pixels, as_pillow_shows(data))


@pytest.mark.parametrize(
    ("mode", "options"),
    [("RGB", {}), ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True})],
    ids=["rgb", "gray", "cmyk", "progressive"],
)
def test_jpeg_is_near_pillow(mode, options):
    data = encoded(rgb().convert(mode), "JPEG", quality=90, **options)

    difference = np.abs(decode.decode_image(data).numpy() - as_pillow_shows(data).astype(float))

    assert difference.mean() <= 1.5


def test_sixteen_bits_keep_the_high_byte():
    deep = RNG.integers(0, 65_536, (5, 7)).astype(np.uint16)
    expected = np.repeat((deep >> 8).astype(np.uint8)[..., np.newaxis], 3, -1)

    png, tiff = (encoded(Image.fromarray(deep), kind) for kind in ("PNG", "TIFF"))

    np.testing.assert_array_equal(decode.decode_image(png), expected)
    np.testing.assert_array_equal(decode.decode_with_pillow(tiff), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", [b"II", b"MM"])
def test_exif_orientation_of_a_jpeg_is_honoured(orientation, order):
    data = encoded(rgb(), "JPEG", quality=95, exif=exif(orientation, order))

    pixels = decode.decode_image(data).numpy()

    assert order in data[:40]
    assert pixels.shape == ((48, 72, 3) if orientation < 5 else (72, 48, 3))
    assert np.abs(pixels - as_pillow_shows(data).astype(float)).mean() <= 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_png_is_honoured(orientation):
    data = encoded(rgb(), "PNG", exif=exif(orientation))

    np.testing.assert_array_equal(decode.decode_image(data), as_pillow_shows(data))


@pytest.mark.parametrize("cut", range(2, 60, 5))
def test_damaged_exif_leaves_the_image_as_it_is(cut):
    whole = exif(6).tobytes()
    data = encoded(rgb(), "JPEG", exif=whole[:cut])

    assert decode.decode_image(data).shape in ((48, 72, 3), (72, 48, 3))


def test_orientation_out_of_range_is_none():
    data = encoded(rgb(), "JPEG", exif=exif(9))

    assert decode.decode_image(data).shape == (48, 72, 3)


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "AVIF"])
def test_pillow_reads_what_tensorflow_cannot(kind):
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    data = encoded(Image.fromarray(RGBA), kind, **options.get(kind, {}))

    with pytest.raises(tf.errors.InvalidArgumentError):
        decode.decode_image(data)
    np.testing.assert_array_equal(decode.decode_with_pillow(data), as_pillow_shows(data))


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a", b"\xff\xd8\xff", b"<html></html>"]
)
def test_what_is_no_image_raises(data):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode.decode_image(data)


@pytest.mark.parametrize("frames", [[PHOTO, PHOTO[::-1]]])
def test_animated_webp_raises(frames):
    images = [Image.fromarray(frame) for frame in frames]
    data = encoded(images[0], "WEBP", save_all=True, append_images=images[1:])

    with pytest.raises(tf.errors.InvalidArgumentError):
        decode.decode_image(data)


def test_graph_and_eager_agree():
    traced = tf.function(decode.decode_image, input_signature=[tf.TensorSpec([], tf.string)])

    for make in LOSSLESS.values():
        np.testing.assert_array_equal(traced(make()), decode.decode_image(make()))


def test_jpeg_only_decodes_the_same_pixels():
    data = encoded(rgb(), "JPEG", exif=exif(6))

    pixels = decode.decode_image(data, jpeg_only=True)

    np.testing.assert_array_equal(pixels, decode.decode_image(data))


@pytest.mark.skipif(not REAL.exists(), reason="the real images are not beside the repository")
def test_photographs_equal_pillow():
    with zipfile.ZipFile(REAL / "hymenoptera.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][::20]
        photographs = [archive.read(name) for name in names]

    for data in photographs:
        np.testing.assert_array_equal(decode.decode_image(data), as_pillow_shows(data))


def test_resize_is_keras_resize_rounded():
    expected = np.round(tf.image.resize(PHOTO, (31, 50), method="bilinear").numpy())

    resized = decode.resize(PHOTO, (31, 50))

    assert resized.dtype == tf.uint8
    np.testing.assert_array_equal(resized, expected)
    np.testing.assert_array_equal(decode.resize(PHOTO, PHOTO.shape[:2]), PHOTO)
    np.testing.assert_array_equal(decode.resize(PHOTO[np.newaxis], (31, 50))[0], expected)
