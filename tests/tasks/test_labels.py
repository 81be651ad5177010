import numpy as np
import pytest
from PIL import Image

from kerastl._task import find_task
from kerastl.data.load import load_data
from kerastl.errors import ArgumentError, DataError


@pytest.fixture
def table(tmp_path):
    """A function that writes a CSV of 40 images, a row each."""

    def write(header, cells, count=40):
        rows = [header]
        for index in range(count):
            Image.new("RGB", (8, 8), (index * 5, 0, 255 - index * 5)).save(
                tmp_path / f"{index}.png"
            )
            rows.append(f"{index}.png,{cells(index)}")
        path = tmp_path / "table.csv"
        path.write_text("\n".join(rows) + "\n")
        return str(path)

    return write


def test_labels_of_one_cell(table):
    path = table("path,label", lambda i: ["", "sea", "sea|sky", "sky | sand"][i % 4])
    data = load_data(path, task="multi_label", seed=3)
    assert data.task == "multi_label"
    assert data.class_names == ["sand", "sea", "sky"]
    expected = {0: [0, 0, 0], 1: [0, 1, 0], 2: [0, 1, 1], 3: [1, 0, 1]}
    for part in (data.train, data.validation, data.test):
        assert part.labels.dtype == np.float32
        for own, labels in zip(part.paths, part.labels, strict=True):
            index = int(own.rsplit("/", 1)[1].removesuffix(".png"))
            assert labels.tolist() == expected[index % 4]
        assert (part.labels.sum(0) > 0).all()  # each label is in each part


def test_labels_of_columns(table):
    path = table("path,sea,sky", lambda i: f"{i % 2},{i % 3 == 0:d}")
    data = load_data(path, task="multi_label", label_column=["sea", "sky"])
    assert data.class_names == ["sea", "sky"]
    assert set(map(tuple, data.train.labels.tolist())) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_numbers_of_columns(table):
    path = table("path,width,height", lambda i: f"{i / 2},{-i}")
    data = load_data(path, task="regression", label_column=["width", "height"])
    assert data.class_names == ["width", "height"]
    for own, values in zip(data.test.paths, data.test.labels, strict=True):
        index = int(own.rsplit("/", 1)[1].removesuffix(".png"))
        assert values.tolist() == [index / 2, -index]
    low, high = np.percentile(data.train.labels[:, 0], (10, 90))
    assert data.test.labels[:, 0].min() < low + 3  # small and large numbers are in each part
    assert data.test.labels[:, 0].max() > high - 3


@pytest.mark.parametrize("cell", ["", "wide", "nan", "inf"])
def test_what_is_no_number_is_named_with_its_row(table, cell):
    path = table("path,width", lambda i: cell if i == 7 else str(i))
    with pytest.raises(DataError, match=r"(?s)finite number.*'width'.*(7\.png|row|line)"):
        load_data(path, task="regression")


def test_a_column_of_a_label_holds_one_or_zero(table):
    path = table("path,sea,sky", lambda i: f"{i % 2},maybe" if i == 5 else f"{i % 2},1")
    with pytest.raises(
        DataError, match="must contain 1 .* or 0. Received: 'maybe' in column 'sky'"
    ):
        load_data(path, task="multi_label", label_column=["sea", "sky"])


@pytest.mark.parametrize(
    ("task", "y", "told"),
    [
        ("multi_label", np.full((20, 2), 2), "must contain only 0 and 1"),
        ("multi_label", np.zeros((20, 2)), "No training image has a label"),
        ("multi_label", np.arange(20), "must be numbers: 0 and 1"),
        ("regression", np.full(20, np.nan), "Targets must be finite"),
        ("regression", np.ones(20), "must differ between training images"),
        ("classification", np.linspace(0, 1, 20), "Labels must be|labels"),
    ],
)
def test_arrays_that_are_not_of_the_task(task, y, told):
    with pytest.raises(DataError, match=told):
        load_data((np.zeros((20, 8, 8, 3), "uint8"), y), task=task)


def test_folders_are_of_classes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    with pytest.raises((DataError, ArgumentError)):
        load_data(str(tmp_path), task="multi_label")
    with pytest.raises(DataError, match="There are no boxes in the folder"):
        load_data(str(tmp_path), task="detection")
    with pytest.raises(ArgumentError, match="`task` must be one of"):
        load_data(str(tmp_path), task="segmentation")


def test_the_task_and_the_targets_are_in_the_fingerprint():
    x = np.random.default_rng(0).integers(0, 255, (20, 8, 8, 3)).astype("uint8")
    y = np.arange(20) % 2
    one = load_data((x, y), seed=0).fingerprint()
    rows = np.stack([y, 1 - y], 1)
    two = load_data((x, rows), task="multi_label", seed=0).fingerprint()
    three = load_data((x, rows), task="regression", seed=0).fingerprint()
    other = load_data((x, rows + np.arange(20)[:, None]), task="regression", seed=0).fingerprint()
    assert len({one, two, three, other}) == 4


def test_strata_by_hand():
    labels = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], "float32")
    assert find_task("multi_label").stratification_groups(labels).tolist() == [0, 0, 1, -1]
    values = np.array([[5.0], [1], [4], [2], [3], [0], [9], [8], [7], [6]])
    groups = find_task("regression").stratification_groups(values)
    assert groups.tolist() == [1, 0, 0, 0, 0, 0, 1, 1, 1, 1]
