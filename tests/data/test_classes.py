"""Which class a label names, whatever the source: the same image has the same label."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerastl.data.classes import class_places, look_alikes, order_classes
from kerastl.data.load import load_data
from kerastl.errors import DataError

NAMES = ["-1", "0", "1", "2", "9", "10", "11"]
VALUES = np.repeat([int(name) for name in NAMES], 2)
PICTURES = np.random.default_rng(0).integers(0, 256, (14, 33, 34, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("numbers")
    for number, (value, picture) in enumerate(zip(VALUES, PICTURES, strict=True)):
        (root / str(value)).mkdir(exist_ok=True)
        Image.fromarray(picture).save(root / str(value) / f"{number}.png")
    return root


def with_names(dataset, names):
    dataset.class_names = names
    return dataset


ROWS = np.eye(7)[np.arange(14) // 2]
TEXT_ORDER = sorted(NAMES)
PLACES = np.array([TEXT_ORDER.index(str(value)) for value in VALUES])
SOURCES = {
    "ints": (PICTURES, VALUES),
    "a column": (PICTURES, VALUES[:, None].astype("int16")),
    "floats": (PICTURES, VALUES.astype("float32")),
    "texts": (PICTURES, VALUES.astype(str)),
    "zeros before": (PICTURES, np.array([f"{value:02}" for value in VALUES])),
    "as pandas writes them": (PICTURES, VALUES.astype(float).astype(str)),
    "one-hot": (PICTURES, ROWS),
    "tf.data": tf.data.Dataset.from_tensor_slices((PICTURES, VALUES)),
    "tf.data with names of places": with_names(
        tf.data.Dataset.from_tensor_slices((PICTURES, PLACES)).batch(3), TEXT_ORDER
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_numbers_name_classes_by_value(folder, name):
    data = load_data(folder, test=SOURCES[name])

    assert data.class_names == NAMES
    assert data.test.labels.tolist() == (np.arange(14) // 2).tolist()
    doubts = [warning for warning in data.warnings if "no `class_names`" in warning]
    assert len(doubts) == (name == "tf.data")


def test_npz_and_folders_the_other_way_round(folder, tmp_path):
    np.savez(tmp_path / "a.npz", x=PICTURES, y=VALUES.astype(str))

    data = load_data(tmp_path / "a.npz", test=folder)

    assert data.class_names == NAMES
    assert np.bincount(data.test.labels).tolist() == [2] * 7


def test_a_number_that_is_no_class_is_refused(folder):
    with pytest.raises(DataError, match=r"must be -1, 0, .* Received in addition: 3, 4."):
        load_data(folder, test=(PICTURES, np.repeat([3, 4], 7)))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["01", "2", "10"], ["01", "2", "10"]),
        (["1", "01"], ["01", "1"]),
        (["10", "9", "a"], ["10", "9", "a"]),
        (["3.0", "20.0"], ["3.0", "20.0"]),
        (["e\u0301", "\u00e9"], ["\u00e9"]),
    ],
)
def test_the_order_of_classes(found, expected):
    assert order_classes(found, None) == expected


def test_names_that_look_like_a_class_are_pointed_out():
    assert class_places(["e\u0301"], ["a", "\u00e9"]) == {"e\u0301": 1}
    with pytest.raises(
        DataError, match=r"Received in addition: Cat , dog. 'Cat ' looks like 'cat'. R"
    ):
        class_places(["Cat ", "dog"], ["cat", "bee"])


def test_look_alikes():
    assert look_alikes(["cat", "Cat", "c at ", "dog"]) == [["cat", "Cat", "c at "]]
    assert look_alikes(["1", "01", "2"]) == [["1", "01"]]
    assert look_alikes(["\uff21", "a"]) == [["\uff21", "a"]]
