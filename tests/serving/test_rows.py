import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerastl.data.decode import decode_image, resize
from kerastl.serving.rows import Limits, decode_batch

SIZE = (24, 32)
PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype("uint8")


def encoded(kind, **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


def with_a_flipped_byte(data, at):
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def animated_webp():
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    return file.getvalue()


def png_bomb(side=20_000):
    """A whole PNG of one bit a pixel: 49 kB that decode to 1.2 GB."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    packer = zlib.compressobj(9)
    row = b"\0" * (1 + side // 8)
    content = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


JPEG, PNG = encoded("JPEG"), encoded("PNG")
DAMAGED = {
    "zero bytes": b"",
    "HTML": b"<html><body>404</body></html>",
    "garbage": bytes(range(256)),
    "a cut JPEG": JPEG[: len(JPEG) // 2],
    "a JPEG without its end marker": JPEG[:-2],
    "a cut PNG": PNG[: len(PNG) // 2],
    "a bad PNG checksum": with_a_flipped_byte(PNG, len(PNG) // 2),
    "an animated WebP": animated_webp(),
    "a TIFF": encoded("TIFF"),
    "a PNG of 20000 x 20000": png_bomb(),
    "a PNG longer than max_bytes": PNG + b"\0" * 100_000,
}


LIMITS = Limits(max_bytes=100_000, max_pixels=1_000_000)


@pytest.fixture(scope="module")
def decode():
    return tf.function(
        lambda files: decode_batch(files, SIZE, LIMITS)[:2],
        input_signature=[tf.TensorSpec([None], tf.string)],
    )


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_row_leaves_its_neighbours(decode, name):
    images, valid = decode(tf.constant([JPEG, DAMAGED[name], PNG]))

    assert valid.numpy().tolist() == [True, False, True]
    np.testing.assert_array_equal(images[0], resize(decode_image(JPEG), SIZE))
    np.testing.assert_array_equal(images[1], np.zeros((*SIZE, 3)))
    np.testing.assert_array_equal(images[2], resize(decode_image(PNG), SIZE))


def test_many_rows_keep_their_order(decode):
    kinds = [encoded("JPEG"), encoded("PNG"), encoded("BMP"), encoded("GIF"), b"", b"BM"]
    rows = np.random.default_rng(0).integers(0, len(kinds), 200)
    images, valid = decode(tf.constant([kinds[row] for row in rows]))

    assert valid.numpy().tolist() == (rows < 4).tolist()
    pixels = [resize(decode_image(kind), SIZE).numpy() for kind in kinds[:4]]
    for row, image in zip(rows, images.numpy(), strict=True):
        np.testing.assert_array_equal(image, pixels[row] if row < 4 else 0)


def test_batches_of_damage_and_of_nothing(decode):
    images, valid = decode(tf.constant([b"", b"x"]))
    assert valid.numpy().tolist() == [False, False]
    assert images.shape == (2, *SIZE, 3)
    images, valid = decode(tf.constant([], tf.string))
    assert images.shape == (0, *SIZE, 3)
    assert valid.shape == (0,)


def test_a_bomb_is_never_decoded(decode):
    """Its header is read: 1.2 GB for the pixels would show in the peak of this process."""
    import resource

    decode(tf.constant([PNG]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not decode(tf.constant([DAMAGED["a PNG of 20000 x 20000"]]))[1].numpy().any()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
