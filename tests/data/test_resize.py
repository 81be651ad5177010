"""How an image of another shape than the model's is brought to it, alike in every way in."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerastl.data import decode
from kerastl.data.load import load_data
from kerastl.data.options import RESIZES, PixelRules
from kerastl.errors import ArgumentError
from kerastl.serving.rows import Limits, decode_batch

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(1, 256, (8, 30, 50, 3)).astype("uint8")
SIZE = (24, 20)


def smooth(height, width):
    """Return the pixels of a photograph, more or less: no black in them."""
    coarse = RNG.uniform(20, 255, (4, 5, 3)).astype("float32")
    return tf.cast(tf.image.resize(coarse, (height, width)), tf.uint8)


@pytest.mark.parametrize(
    "shape", [(30, 50), (50, 30), (24, 20), (48, 40), (1, 90), (90, 1), (7, 3)]
)
@pytest.mark.parametrize("size", [(20, 20), (24, 20), (15, 40)])
def test_crop_is_as_keras_crops(shape, size):
    image = smooth(*shape)

    found = decode.resize(image, size, "crop").numpy()

    expected = keras.preprocessing.image.smart_resize(image.numpy().astype("float32"), size)
    np.testing.assert_array_equal(found, np.rint(expected))


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((30, 50), slice(4, 16), slice(0, 20)),
        ((50, 30), slice(0, 20), slice(4, 16)),
        ((1, 90), slice(9, 10), slice(0, 20)),
        ((90, 1), slice(0, 20), slice(9, 10)),
        ((5, 5), slice(0, 20), slice(0, 20)),
    ],
)
def test_padding_is_the_whole_image_between_black_margins(shape, rows, columns):
    image = smooth(*shape)

    found = decode.resize(image, (20, 20), "pad").numpy()

    inner = found[rows, columns]
    np.testing.assert_array_equal(inner, decode.resize(image, inner.shape[:2]))
    assert found.sum(dtype=int) == inner.sum(dtype=int)


@pytest.mark.parametrize("how", RESIZES)
def test_a_batch_is_resized_as_its_images_are(how):
    found = decode.resize(tf.constant(IMAGES), SIZE, how)

    assert found.shape == (8, *SIZE, 3)
    for image, alone in zip(found, IMAGES, strict=True):
        np.testing.assert_array_equal(image, decode.resize(tf.constant(alone), SIZE, how))
    same = tf.image.resize(tf.constant(IMAGES), (30, 50))
    np.testing.assert_array_equal(decode.resize(tf.constant(IMAGES), (30, 50), how), same)


@pytest.mark.parametrize("how", RESIZES)
def test_files_arrays_data_sets_and_exports_see_the_same_pixels(tmp_path, how):
    labels = np.arange(8) // 4
    for number, image in enumerate(IMAGES):
        file = tmp_path / "ab"[labels[number]] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(file)
    sources = [tmp_path, (IMAGES, labels), tf.data.Dataset.from_tensor_slices((IMAGES, labels))]
    files = [file.read_bytes() for file in sorted(tmp_path.glob("*/*.png"))]
    limits = Limits(10**6, 10**6, PixelRules(resize=how))

    expected = decode.resize(tf.constant(IMAGES), SIZE, how).numpy()

    for source in sources:
        data = load_data(source, test_fraction=0, validation_fraction=0, resize=how)
        pixels = np.concatenate(list(data.train.images(SIZE).as_numpy_iterator()))
        np.testing.assert_array_equal(pixels, expected)
        usual = load_data(source, test_fraction=0, validation_fraction=0)
        assert (usual.fingerprint() == data.fingerprint()) == (how == "crop")
        assert usual.train.source.contents() == data.train.source.contents()
    served, valid, _ = tf.function(decode_batch)(tf.constant(files), SIZE, limits)
    np.testing.assert_array_equal(served, expected)
    assert valid.numpy().all()


def test_long_images_that_are_cropped_are_told():
    images = np.zeros((8, 20, 50, 3), "uint8")
    warnings = [
        load_data((images, np.arange(8) % 2), **how).warnings
        for how in ({}, {"resize": "crop"}, {"resize": "pad"})
    ]

    assert "8 of 8 images are more than twice as long as wide" in warnings[0][-1]
    assert warnings[1] == warnings[0]
    assert not any("twice" in one for one in warnings[2])


def test_what_is_no_way_to_resize():
    with pytest.raises(ArgumentError, match=r"`resize` must be one of .*'pad'.* Received: .*'fit'"):
        load_data((IMAGES, np.arange(8) % 2), resize="fit")
