"""Pictures of more than 8 bits: those that do not fill their format are told, and scaled."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerastl.data import decode
from kerastl.data.load import load_data
from kerastl.errors import ArgumentError, DataError, UnreadableImagesError

RNG = np.random.default_rng(0)
TWELVE = RNG.integers(0, 4096, (24, 33, 34)).astype("uint16")
EXPECTED = np.rint(TWELVE * (255 / 4095)).astype("uint8")
SHARES = RNG.random((24, 33, 34)).astype("float32")


def write(folder, images, ending, mode=None):
    for number, image in enumerate(images):
        file = folder / "ab"[number % 2] / f"{number:02}{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return folder


def pixels(split):
    return np.concatenate(list(split.images((33, 34)).as_numpy_iterator()))


def numbers(split):
    return [int(Path(path).stem) for path in split.paths]


def load(source, **how):
    return load_data(source, test_fraction=0, validation_fraction=0, **how)


@pytest.mark.parametrize("ending", [".png", ".tiff"])
def test_twelve_bits_in_sixteen(tmp_path, ending):
    folder = write(tmp_path / "data", TWELVE, ending)

    dark, scaled = load(folder), load(folder, bit_depth=12)

    assert dark.warnings[-1].startswith("24 of 24 16-bit images have no value above 4,095, of ")
    assert "`bit_depth=12`" in dark.warnings[-1]
    assert f"(such as {folder}/a/00{ending}, " in dark.warnings[-1]
    assert pixels(dark.train).max() == 15
    order = numbers(scaled.train)
    np.testing.assert_array_equal(pixels(scaled.train)[..., 1], EXPECTED[order])
    assert not any("black" in warning for warning in scaled.warnings)
    assert dark.fingerprint() != scaled.fingerprint()
    assert "24 images have values above 1,023" in load(folder, bit_depth=10).warnings[-1]


def test_images_that_fill_sixteen_bits_are_as_before(tmp_path):
    folder = write(tmp_path, [np.full((33, 34), 40_000 + n, "uint16") for n in range(4)], ".png")

    assert not any("bits" in warning for warning in load(folder).warnings)


def test_one_bright_pixel_hides_no_darkness(tmp_path):
    images = TWELVE.copy()
    images[3, 0, 0] = 65_535

    assert "23 of 24 16-bit images" in load(write(tmp_path, images, ".png")).warnings[-1]


@pytest.mark.parametrize(("images", "bits"), [(SHARES, 1), (TWELVE.astype("int32"), 12)])
def test_values_of_32_bits_need_their_range(tmp_path, images, bits):
    folder = write(tmp_path, images, ".tiff")

    with pytest.raises(UnreadableImagesError, match="have no known range: pass `bit_depth`"):
        load(folder)
    data = load(folder, bit_depth=bits)

    order = numbers(data.train)
    expected = np.rint(images[order] * (255.0 / (2**bits - 1)))
    assert np.abs(pixels(data.train)[..., 0] - expected).max() <= 1


def test_colour_and_transparency_of_16_bits():
    rgba = np.zeros((4, 5, 4), "uint16")
    rgba[..., 0], rgba[..., 3], rgba[0, 0, 3] = 4095, 65_535, 0
    data = tf.io.encode_png(rgba)

    found = decode.decode_image(data, bit_depth=12).numpy()

    assert found[1, 1].tolist() == [255, 0, 0]
    assert found[0, 0].tolist() == [255, 255, 255]


def test_eight_bits_are_never_scaled():
    file = io.BytesIO()
    Image.fromarray(EXPECTED[0]).save(file, "PNG")

    found = decode.decode_image(tf.constant(file.getvalue()), bit_depth=12).numpy()

    np.testing.assert_array_equal(found[..., 0], EXPECTED[0])


def test_arrays_and_data_sets():
    y = np.arange(24) % 2
    for source in ((TWELVE, y), tf.data.Dataset.from_tensor_slices((TWELVE, y)).batch(5)):
        np.testing.assert_array_equal(pixels(load(source, bit_depth=12).train)[..., 2], EXPECTED)
        with pytest.raises(DataError, match="scanner, pass `bit_depth=12`"):
            load(source)
        with pytest.raises(DataError, match=r"must be from 0 to 1,023 with bit_depth=10. Received"):
            load(source, bit_depth=10)
    with pytest.raises(DataError, match="or pass `bit_depth=1`"):
        load((SHARES, y))
    with pytest.raises(ArgumentError, match="`bit_depth` must be an int"):
        load((TWELVE, y), bit_depth=12.0)
