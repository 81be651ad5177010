import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerastl.data import decode, scan, split
from kerastl.data.augment import AUGMENTATIONS, Augmentation
from kerastl.data.pixels import ArraySource, FileSource
from kerastl.data.split import Split
from kerastl.errors import ArgumentError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (10, 12, 14, 3), np.uint8)
LABELS = np.arange(10) % 3


def of_arrays(pixels=PIXELS):
    return Split(ArraySource(pixels, np.arange(len(pixels))), LABELS, 3)


@pytest.fixture
def of_files(tmp_path):
    paths = [str(tmp_path / f"{index}.png") for index in range(10)]
    for path, pixels in zip(paths, PIXELS, strict=True):
        Image.fromarray(pixels).save(path)
    reports, _ = scan.scan_files(paths)
    return Split(FileSource(reports, [pathlib.Path(path).name for path in paths]), LABELS, 3)


def gathered(dataset):
    batches = list(dataset.as_numpy_iterator())
    return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])


def test_images_come_in_order_resized(of_files):
    batches = list(of_files.images((8, 9), batch_size=4).as_numpy_iterator())

    assert [batch.shape for batch in batches] == [(4, 8, 9, 3), (4, 8, 9, 3), (2, 8, 9, 3)]
    np.testing.assert_array_equal(np.concatenate(batches), decode.resize(PIXELS, (8, 9)))


@pytest.mark.parametrize("cache", [True, False])
def test_files_and_arrays_give_the_same_batches(of_files, cache):
    for source in (of_files, of_arrays()):
        x, y = gathered(source.batches((8, 9), 4, cache=cache))

        assert x.dtype == np.float32
        np.testing.assert_array_equal(x, decode.resize(PIXELS, (8, 9)))
        np.testing.assert_array_equal(y, LABELS)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("name", ["none", "strong"])
def test_a_later_start_continues_exactly(cache, name):
    options = {
        "shuffle": True,
        "seed": 5,
        "epochs": 3,
        "augmentation": AUGMENTATIONS[name],
        "cache": cache,
    }
    whole = list(of_arrays().batches(8, 4, **options).as_numpy_iterator())
    again = list(of_arrays().batches(8, 4, **options).as_numpy_iterator())
    rest = list(of_arrays().batches(8, 4, start_epoch=1, **options).as_numpy_iterator())

    assert len(whole) == 9
    for first, second in zip(whole[3:] + whole, rest + again, strict=True):
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])


def test_each_epoch_has_every_image_once_in_its_own_order():
    marked = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None], (10, 4, 4))
    dataset = of_arrays(marked).batches(4, 4, shuffle=True, epochs=2)

    x, y = gathered(dataset)
    indices = x[:, 0, 0, 0].astype(int)

    assert sorted(indices[:10]) == sorted(indices[10:]) == list(range(10))
    assert indices[:10].tolist() != indices[10:].tolist()
    np.testing.assert_array_equal(y, LABELS[indices])


def test_the_seed_and_the_epoch_change_the_views():
    pixels = np.repeat(PIXELS[:1], 10, axis=0)
    options = {"augmentation": AUGMENTATIONS["strong"], "epochs": 2}
    first, _ = gathered(of_arrays(pixels).batches(8, **options))
    other, _ = gathered(of_arrays(pixels).batches(8, seed=1, **options))

    views = np.unique(np.concatenate([first, other]).reshape(40, -1), axis=0)

    assert len(views) == 40


@pytest.mark.parametrize(("drop", "steps"), [(True, 4), (False, 6)])
def test_no_batch_holds_images_of_two_epochs(drop, steps):
    dataset = of_arrays().batches(8, 4, epochs=2, drop_remainder=drop)

    sizes = [len(y) for _, y in dataset.as_numpy_iterator()]

    assert dataset.cardinality() == steps
    assert sizes == ([4, 4, 4, 4] if drop else [4, 4, 2, 4, 4, 2])


def test_one_hot_and_mixup():
    mixed = Augmentation(mixup_alpha=0.3)

    _, y = gathered(of_arrays().batches(8, one_hot=True))
    _, soft = gathered(of_arrays().batches(8, one_hot=True, augmentation=mixed))

    np.testing.assert_array_equal(y, np.eye(3, dtype=np.float32)[LABELS])
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)
    assert (soft != y).any()
    with pytest.raises(ArgumentError, match=r"mixup_alpha=0.3, one_hot=False. Pass `one_hot=True`"):
        of_arrays().batches(8, augmentation=mixed)


def test_what_does_not_fit_in_memory_is_decoded_again(monkeypatch):
    expected, _ = gathered(of_arrays().batches(8))
    monkeypatch.setattr(split, "CACHE_BYTES", 10 * 8 * 8 * 3 - 1)
    data = of_arrays()

    x, _ = gathered(data.batches(8))

    assert data._kept is None
    np.testing.assert_array_equal(x, expected)


def test_the_cache_holds_one_size(of_files):
    of_files.batches(8)
    kept = of_files._kept
    of_files.batches(8)

    assert of_files._kept is kept
    for path in of_files.paths:
        pathlib.Path(path).unlink()
    assert len(list(of_files.images(8))) == 1
    with pytest.raises(tf.errors.NotFoundError, match=r"0\.png"):
        of_files.batches(9)


@pytest.mark.parametrize("cache", [True, False])
def test_a_file_that_changes_after_the_scan_is_named(of_files, cache):
    path = pathlib.Path(of_files.paths[7])
    path.write_bytes(path.read_bytes()[:-30])

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"changed since .*\n?.*7\.png"):
        gathered(of_files.batches(8, cache=cache))


@pytest.mark.parametrize("make", ["files", "arrays"])
def test_a_subset_has_its_images_and_labels(of_files, make):
    data = {"files": of_files, "arrays": of_arrays()}[make]

    part = data.subset([4, 1]).subset([1, 0])

    x, y = gathered(part.batches((12, 14)))
    np.testing.assert_array_equal(x, PIXELS[[1, 4]])
    np.testing.assert_array_equal(y, LABELS[[1, 4]])
    assert len(part) == 2


def test_fingerprints_follow_content_and_labels_not_order(of_files):
    data, changed = of_arrays(), PIXELS.copy()
    changed[3, 0, 0, 0] ^= 1

    assert data.fingerprint() == data.subset(range(9, -1, -1)).fingerprint()
    assert data.fingerprint() != of_arrays(changed).fingerprint()
    assert data.fingerprint() != Split(data.source, LABELS[::-1], 3).fingerprint()
    assert data.fingerprint() != data.subset(range(9)).fingerprint()
    assert of_files.fingerprint() == of_files.subset(range(9, -1, -1)).fingerprint()
    assert of_files.fingerprint() != Split(of_files.source, LABELS[::-1], 3).fingerprint()


def test_files_that_pillow_reads_are_among_the_others(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.png", "b.tiff", "c.png")]
    for path, pixels in zip(paths, PIXELS[:3], strict=True):
        Image.fromarray(pixels).save(path)
    reports, _ = scan.scan_files(paths)

    batches = Split(FileSource(reports, paths), LABELS[:3], 3).images((12, 14))

    np.testing.assert_array_equal(next(iter(batches)), PIXELS[:3])


def test_keras_fits_it():
    model = keras.Sequential(
        [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(), loss)

    # Keras warns of its own default, shuffle=True, whenever it is given a data set.
    batches = of_arrays().batches((8, 8), 4, shuffle=True)
    history = model.fit(batches, epochs=2, shuffle=False, verbose=0)

    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize("size", [0, (8, 0), (8, 8, 3), (8.5, 8), True])
def test_image_size_is_checked(size):
    with pytest.raises(ArgumentError, match="`image_size` must be"):
        of_arrays().batches(size)


def test_a_split_tells_what_it_is(of_files):
    assert repr(of_arrays()) == "Split(10 images, 3 classes)"
    assert of_arrays().paths is None
    assert [pathlib.Path(path).name for path in of_files.paths][:2] == ["0.png", "1.png"]
