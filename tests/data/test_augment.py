import numpy as np
import pytest
import tensorflow as tf

from kerastl.data import augment
from kerastl.data.augment import AUGMENTATIONS, Augmentation

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
EACH = {
    **AUGMENTATIONS,
    "brightness": Augmentation(brightness=0.9),
    "contrast": Augmentation(contrast=0.9),
    "saturation": Augmentation(saturation=0.9),
    "crop": Augmentation(min_crop_area=0.1),
}


@pytest.mark.parametrize("name", EACH)
def test_views_are_float_pixels_of_the_same_shape(name):
    view = augment.augment(IMAGE, EACH[name], [1, 2])

    assert view.dtype == tf.float32
    assert view.shape == IMAGE.shape
    assert tf.reduce_min(view) >= 0
    assert tf.reduce_max(view) <= 255


@pytest.mark.parametrize("name", [name for name in EACH if name != "none"])
def test_the_seed_alone_decides(name):
    views = [augment.augment(IMAGE, EACH[name], [1, seed]).numpy() for seed in (0, 0, 1, 2, 3)]

    np.testing.assert_array_equal(views[0], views[1])
    assert any(np.abs(views[0] - view).max() > 1 for view in views[2:])


def test_none_changes_nothing():
    np.testing.assert_array_equal(augment.augment(IMAGE, Augmentation(), [0, 0]), IMAGE)


def test_float_and_uint8_pixels_give_the_same_view():
    strong = AUGMENTATIONS["strong"]

    np.testing.assert_array_equal(
        augment.augment(IMAGE, strong, [3, 4]),
        augment.augment(IMAGE.astype(np.float32), strong, [3, 4]),
    )


def test_flip_mirrors_half_the_time():
    views = [augment.augment(IMAGE, Augmentation(flip=True), [0, n]).numpy() for n in range(64)]
    mirrored = [np.array_equal(view, IMAGE[:, ::-1]) for view in views]

    assert all(
        flip or np.array_equal(view, IMAGE) for flip, view in zip(mirrored, views, strict=True)
    )
    assert 16 < sum(mirrored) < 48


def test_a_crop_keeps_at_least_its_area():
    height, width = 48, 60
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    image = np.stack([rows, columns, rows], -1).astype(np.float32)

    for n in range(20):
        view = augment.augment(image, Augmentation(min_crop_area=0.8), [0, n]).numpy()
        spans = [np.ptp(view[..., channel]) + 1 for channel in (0, 1)]
        assert spans[0] * spans[1] >= 0.8 * height * width - (height + width)


def test_mixup_is_one_blend_of_images_and_labels():
    labels = np.eye(4, dtype=np.float32)
    images = np.arange(4, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 2, 3))

    mixed, soft = augment.mixup(images.astype(np.float32), labels, 0.4, [1, 2])

    np.testing.assert_allclose(tf.reduce_sum(soft, 1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(soft.numpy() @ np.arange(4), mixed[:, 0, 0, 0], rtol=1e-5)
    assert (np.diag(soft) >= 0.5 - 1e-6).all()
    again = augment.mixup(images.astype(np.float32), labels, 0.4, [1, 2])
    np.testing.assert_array_equal(mixed, again[0])


def test_presets_grow():
    areas = [AUGMENTATIONS[name].min_crop_area for name in ("none", "light", "medium", "strong")]

    assert list(AUGMENTATIONS) == ["none", "flip", "light", "medium", "strong"]
    assert areas == sorted(areas, reverse=True)
