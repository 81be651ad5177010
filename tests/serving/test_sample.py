import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerastl.data.decode import decode_image, resize
from kerastl.errors import ArgumentError, DataError
from kerastl.serving.export import _apart
from kerastl.serving.sample import GENERATED, MAX_IMAGES, take_sample

PIXELS = np.random.default_rng(0).integers(0, 256, (200, 10, 12, 3)).astype("uint8")


def assert_files_are_images(sample, size):
    for image, file in zip(sample.images, sample.files, strict=True):
        np.testing.assert_array_equal(resize(decode_image(tf.constant(file)), size), image)


def test_pixels_are_spread_and_resized():
    sample = take_sample((PIXELS, np.arange(200)), (8, 6))
    assert sample.images.shape == (MAX_IMAGES, 8, 6, 3)
    assert (sample.labels[0], sample.labels[-1]) == (0, 199)
    assert len(set(sample.labels.tolist())) == MAX_IMAGES
    assert sample.is_real
    assert_files_are_images(sample, (8, 6))


def test_gray_pixels_have_three_channels():
    sample = take_sample(PIXELS[:3, :, :, 0], (10, 12))
    np.testing.assert_array_equal(sample.images, np.repeat(PIXELS[:3, :, :, :1], 3, -1))
    assert sample.labels is None


def test_files_are_given_as_they_are(tmp_path):
    for index in range(3):
        Image.fromarray(PIXELS[index]).save(tmp_path / f"{index}.jpg")
    sample = take_sample([tmp_path], (20, 20))
    assert sample.files[1] == (tmp_path / "1.jpg").read_bytes()
    assert sample.labels is None
    assert_files_are_images(sample, (20, 20))


def test_what_only_pillow_reads_is_encoded_anew(tmp_path):
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.tiff")
    sample = take_sample([str(tmp_path)], (10, 12))
    np.testing.assert_array_equal(sample.images[0], PIXELS[0])
    assert_files_are_images(sample, (10, 12))


def test_a_split_has_labels(shapes_data):
    sample = take_sample(shapes_data.train, (32, 32))
    assert sample.labels.shape == (len(sample.images),)
    assert_files_are_images(sample, (32, 32))


def test_generated_images_are_not_real():
    sample = take_sample(None, (9, 7))
    assert (len(sample.images), sample.source, sample.is_real) == (GENERATED, "generated", False)
    assert_files_are_images(sample, (9, 7))


@pytest.mark.parametrize("data", ["folder", [], np.zeros((0, 4, 4, 3)), 7, [[1, 2]]])
def test_what_is_no_sample(data):
    with pytest.raises(ArgumentError, match="`parity_data` must be a split"):
        take_sample(data, (8, 8))


def test_no_images(tmp_path, shapes_data):
    with pytest.raises(ArgumentError, match="contains no images"):
        take_sample(shapes_data.train.subset([]), (8, 8))
    with pytest.raises(DataError):
        take_sample([tmp_path], (8, 8))


def test_ranges_of_integers_come_from_other_images_than_are_measured():
    images = PIXELS[:7]
    given = take_sample((images, np.arange(7)), (10, 12))
    ranges, measured = _apart(None, given)
    np.testing.assert_array_equal(ranges, given.images[[0, 2, 4, 6]])
    np.testing.assert_array_equal(measured.images, given.images[[1, 3, 5]])
    assert measured.labels.tolist() == [1, 3, 5]
    assert_files_are_images(measured, (10, 12))
    ranges, measured = _apart(PIXELS[10:13], given)
    assert (len(ranges), measured) == (3, given)
    for too_few in (take_sample(None, (10, 12)), take_sample(PIXELS[:1], (10, 12))):
        with pytest.raises(ArgumentError, match="and other images for the check. Received"):
            _apart(None, too_few)
