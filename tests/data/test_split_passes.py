import numpy as np

from kerastl.data.augment import AUGMENTATIONS
from kerastl.data.load import load_data


def test_each_pass_has_an_order_and_views_of_its_own():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 3)).astype("uint8")
    data = load_data((images, np.arange(40) % 2))
    batches = data.train.batches(8, shuffle=True, augmentation=AUGMENTATIONS["strong"])
    passes = [np.concatenate([x for x, _ in batches.as_numpy_iterator()]) for _ in range(3)]
    assert not np.array_equal(passes[0], passes[1])
    assert not np.array_equal(passes[1], passes[2])
    assert len(batches) == 1
    again = data.train.batches(8, shuffle=True, augmentation=AUGMENTATIONS["strong"])
    first = np.concatenate([x for x, _ in again.as_numpy_iterator()])
    np.testing.assert_array_equal(first, passes[0])


def test_each_pass_holds_every_image_once():
    images = np.arange(50, dtype="uint8").reshape(50, 1, 1, 1) * np.ones((1, 4, 4, 3), "uint8")
    data = load_data((images, np.arange(50) % 2))
    batches = data.train.batches(4, 8, shuffle=True)
    passes = [
        np.concatenate([x[:, 0, 0, 0] for x, _ in batches.as_numpy_iterator()]) for _ in range(2)
    ]
    assert sorted(passes[0]) == sorted(passes[1])
    assert passes[0].tolist() != passes[1].tolist()
