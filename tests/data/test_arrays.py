import numpy as np
import pytest

from kerastl.data.load import load_data
from kerastl.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (30, 5, 6, 3), np.uint8)
Y = np.arange(30) % 3


def load(x=X, y=Y, **options):
    return load_data((x, y), validation_fraction=0, test_fraction=0, **options)


def pixels(data, size=(5, 6)):
    return np.concatenate(list(data.train.images(size).as_numpy_iterator()))


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (X, X),
        (X[..., 0], np.repeat(X[..., :1], 3, -1)),
        (X[..., :1], np.repeat(X[..., :1], 3, -1)),
        (X.astype(np.float32), X),
        (X.astype(np.int64), X),
        (X.astype(np.float64) * 0.5, np.rint(X * 0.5).astype(np.uint8)),
    ],
    ids=["rgb", "gray", "one_channel", "float", "int", "fractions"],
)
def test_images_become_rgb_of_eight_bits(x, expected):
    np.testing.assert_array_equal(pixels(load(x)), expected)


@pytest.mark.parametrize(
    "y",
    [Y, Y[:, None], Y.astype(np.uint8), Y.astype(float), np.eye(3)[Y], np.eye(3, dtype=bool)[Y]],
    ids=["ints", "column", "bytes", "floats", "one_hot", "bools"],
)
def test_labels_of_any_form(y):
    np.testing.assert_array_equal(load(y=y).train.labels, Y)


@pytest.mark.parametrize("kind", [str, object, bytes])
def test_labels_that_are_texts(kind):
    texts = np.array(["cat", "ant", "bee"])[Y].astype("S3" if kind is bytes else kind)

    data = load(y=texts)

    assert data.class_names == ["ant", "bee", "cat"]
    np.testing.assert_array_equal(data.train.labels, np.array([2, 0, 1])[Y])


NAN = X.astype(np.float32)
NAN[3, 0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X / 255, Y, r"from 0 to 255. Received: values from 0 to 1 in train. Multiply them by 255"),
        (NAN, Y, r"Pixels must be finite. Received: values from nan to nan"),
        (np.where(NAN > 0, np.inf, 1.0), Y, "Pixels must be finite"),
        (X / 127.5 - 1, Y, r"values from -1 to 1 in train. Remove your preprocessing"),
        (X.astype(np.uint16) * 257, Y, "Remove your preprocessing"),
        (X[0, 0], Y, r"must have the shape .* Received: \(6, 3\)"),
        (np.moveaxis(X, -1, 1), Y, r"Received: \(30, 3, 5, 6\) in train. Put the channels last"),
        (np.concatenate([X, X[..., :1]], -1), Y, "remove alpha"),
        (X[:0], Y[:0], r"non-empty array of numbers. Received: shape \(0, 5, 6, 3\)"),
        (X > 3, Y, "dtype bool"),
        (X, Y[:5], r"Received: 30 images and labels of shape \(5,\)"),
        (X, Y - 1, r"ints from 0. Received: labels from -1 to 1. Remove the unlabelled"),
        (X, Y + 1, r"Received none of: 0. Add images of these classes, or remove"),
        (X, Y * 2, r"Received none of: 1, 3"),
        (X, Y * 0, "at least two classes"),
        (X, Y + 0.5, r"Labels must be ints .* dtype float64"),
        (X, np.ones((30, 3)), "Pass exactly one class per image"),
        (X, np.full(30, None), "dtype object"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything(x, y, message):
    with pytest.raises(DataError, match=message):
        load(x, y)


def test_class_names_of_ints():
    assert load(class_names=["a", "b", "c"]).class_names == ["a", "b", "c"]
    with pytest.raises(DataError, match=r"and below 2, as named. Received: labels from 0 to 2"):
        load(class_names=["a", "b"])
    with pytest.raises(DataError, match="Received in addition: bee"):
        load(y=np.array(["ant", "bee", "ant"])[Y], class_names=["ant", "cow"])


LAYOUTS = {
    "keras": ({"x_train": X, "y_train": Y, "x_test": X[:6], "y_test": Y[:6]}, [26, 4, 6]),
    "medmnist": (
        {
            "train_images": X[..., 0],
            "train_labels": Y[:, None],
            "val_images": X[:3, ..., 0],
            "val_labels": Y[:3, None],
            "test_images": X[:6, ..., 0],
            "test_labels": Y[:6, None],
        },
        [30, 3, 6],
    ),
    "plain": ({"x": X, "y": Y}, [20, 4, 6]),
    "images": ({"images": X, "labels": Y}, [20, 4, 6]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_npz(tmp_path, name):
    arrays, sizes = LAYOUTS[name]
    np.savez(tmp_path / "a.npz", **arrays)

    data = load_data(tmp_path / "a.npz")

    found = [len(split) for split in (data.train, data.validation, data.test)]
    assert sum(found) == sum(sizes)
    assert found[2] == sizes[2]
    assert data.num_classes == 3


def test_npz_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, pixels=X)
    with pytest.raises(DataError, match=r"x_train, y_train; .*Received: pixels. Rename the arrays"):
        load_data(path)
    np.savez(path, x=np.array([{}, None]), y=Y)
    with pytest.raises(DataError, match="Object arrays cannot be loaded when allow_pickle=False"):
        load_data(path)
    path.write_bytes(b"garbage")
    with pytest.raises(DataError, match="as an .npz file"):
        load_data(path)
