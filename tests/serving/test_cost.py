import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerastl.data.header import num_pixels
from kerastl.serving.cost import TRANSPARENT, UNBOUNDED, decode_cost
from kerastl.serving.rows import Limits, decode_batch, num_scans
from tests.data.crafted import FILES, Good


def encoded(kind, size=(64, 48), mode="RGB", **options):
    file = io.BytesIO()
    Image.effect_noise(size, 50).convert(mode).save(file, kind, **options)
    return file.getvalue()


def with_scans(count):
    """Return a progressive JPEG of 64 x 48 pixels whose last scan is there so often again."""
    data = encoded("JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


def gif(frames, screen=(8, 8)):
    """Return a GIF of frames, by their sizes, without pixels."""
    pixels = b"\0\x02\x02\x4c\x01\0"
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0, 0, 0)
    return head + b"".join(
        b"\x21\xf9\x04" + bytes(5) + b"\x2c" + struct.pack("<HHHH", 0, 0, *size) + pixels
        for size in frames
    )


@pytest.mark.parametrize(
    "name", [name for name, (_, outcome) in FILES.items() if isinstance(outcome, Good)]
)
def test_it_reads_the_header_that_the_decoder_reads(name):
    data, outcome = FILES[name]
    if outcome.by_pillow:
        return
    factor = 2 if "animated" in name else TRANSPARENT if data.startswith(b"\x89PNG") else 1
    assert decode_cost(data) in {int(num_pixels(tf.constant(data))) * n for n in (1, factor)}


@pytest.mark.parametrize(
    ("data", "cost"),
    [
        (encoded("JPEG"), 64 * 48),
        (encoded("JPEG", progressive=True), 64 * 48),
        (with_scans(60), 64 * 48 * 70 // 10),
        (encoded("JPEG").replace(b"\xff\xe0", b"\xff" * 5000 + b"\xe0", 1), 64 * 48),
        (b"\xff\xd8" + b"\xff\xe1\0\2" * 10_000 + encoded("JPEG")[2:], UNBOUNDED),
        (b"\xff\xd8" + b"\xff" * 10**6, 0),
        (gif([(8, 8)]), 64),
        (gif([(65_535, 65_535)] * 3), 3 * 65_535**2),
        (gif([(8, 8)] * 50), 50 * 64),
        (gif([(8, 8)])[:-1] + b"\1\0" * 300_000, UNBOUNDED),
        (b"BM" + bytes(16) + struct.pack("<ii", 70_000, -70_000), 70_000**2),
        (encoded("PNG", (9400, 3), bits=1), 9400 * 3),
        (encoded("PNG", mode="RGBA"), 64 * 48 * TRANSPARENT),
        (encoded("PNG", mode="LA"), 64 * 48 * TRANSPARENT),
        (encoded("PNG", mode="P", transparency=0), 64 * 48 * TRANSPARENT),
        (encoded("PNG", mode="P"), 64 * 48),
        (b"", 0),
        (b"\xff\xd8", 0),
        (b"GIF8", 0),
        (b"RIFF", 0),
        (b"<html>", 0),
    ],
)  # fmt: skip
def test_what_a_decoder_goes_through(data, cost):
    assert decode_cost(data) == cost


@pytest.mark.parametrize("seed", range(3))
def test_no_bytes_break_it(seed):
    rng = np.random.default_rng(seed)
    seeds = [data for data, _ in FILES.values() if data]
    for _ in range(400):
        data = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(len(data))] = rng.integers(256)
        assert decode_cost(bytes(data[: rng.integers(1, len(data) + 1)])) >= 0


def test_the_exported_graph_counts_scans_too():
    assert [int(num_scans(tf.constant(with_scans(count)))) for count in (0, 60)] == [10, 70]
    assert int(num_scans(tf.constant(encoded("PNG")))) == 0
    limits = Limits(10**6, 64 * 48 * 2)
    _, valid, _ = decode_batch(tf.constant([with_scans(0), with_scans(60)]), (8, 8), limits)
    assert valid.numpy().tolist() == [True, False]
