"""The cases of `../shared/cases`, on which an early kerastl went wrong, end as they should."""

import importlib.util
import re

import numpy as np
import pytest
import tensorflow as tf

import kerastl
from kerastl.data.inspection import inspect_images
from kerastl.errors import DataError
from tests import command


@pytest.fixture(scope="module")
def cases(shared_file, tmp_path_factory):
    """The folder of all cases, made by their makers."""
    spec = importlib.util.spec_from_file_location("cases", shared_file("cases/make.py"))
    makers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(makers)
    folder = tmp_path_factory.mktemp("cases")
    for make in makers.CASES:
        (folder / make.__name__).mkdir()
        make(folder / make.__name__)
    assert {path.name for path in folder.iterdir()} == {*LOADED, *LABELS, *REFUSED, *OTHERS}
    return folder


NAMED = {
    "image_column": "id",
    "label_column": "breed",
    "image_folder": "images",
    "image_suffix": ".jpg",
}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in NAMED.items()]
LOADED = {  # case: its data, how it is read, the classes, how many images, and what is said
    "split_words": ("", {}, ["glioma", "healthy"], 32, 16, None),
    "one_folder_too_many": ("", {}, ["cat", "dog"], 24, None, "looks for the classes in"),
    "two_forms_of_a_name": ("", {}, ["강아지", "고양이"], 16, 8, None),
    "flat_test": ("", {}, ["cat", "dog"], 24, None, "flat_test/test is left out"),
    "twelve_bits": ("", {}, ["dark", "light"], 24, None, r"4,095.* `bit_depth=12`"),
    "few_of_one": ("", {}, ["common", "rare"], 89, None, r"uneven: .* 85 .* rare has 4.*`balance"),
    "other_headings": ("labels.csv", NAMED, ["husky", "poodle"], 24, None, None),
}  # fmt: skip
LABELS, REFUSED, OTHERS = ("labels_in_a_cell",), ("other_headings",), ("whole_numbers",)


@pytest.mark.parametrize("case", LOADED)
def test_a_case_is_loaded(cases, case):
    file, how, classes, num_train, num_test, told = LOADED[case]
    source = cases / case / file

    data = kerastl.load_data(
        source, validation_fraction=0, **({} if num_test else {"test_fraction": 0}), **how
    )

    assert data.class_names == classes
    assert (len(data.train), data.test and len(data.test)) == (num_train, num_test)
    said = " ".join(data.warnings)
    assert not said if told is None else re.search(told, said)
    scanned = inspect_images(str(source), options=kerastl.DataOptions(**how))
    assert scanned.is_accepted
    assert scanned.warnings == data.warnings


def test_whole_numbers_name_the_same_class_from_folders_and_arrays(cases):
    folder = cases / "whole_numbers"

    data = kerastl.load_data(folder / "folders", test=folder / "same.npz", validation_fraction=0)

    assert data.class_names == [str(number) for number in range(12)]
    pictures = {
        image.tobytes(): label
        for image, label in zip(
            np.concatenate(list(data.train.images(48))), data.train.labels, strict=True
        )
    }
    test = np.concatenate(list(data.test.images(48)))
    assert [pictures[image.tobytes()] for image in test] == data.test.labels.tolist()
    told = command.kerastl("scan", folder / "folders").stderr
    assert "(0 6, 1 6, 2 6, 3 6, 4 6, 5 6, 6 6, 7 6, 8 6, 9 6, 10 6, 11 6)" in told


def test_labels_in_a_cell(cases):
    file = cases / "labels_in_a_cell" / "labels.csv"

    with pytest.raises(DataError, match=r"Pass the separator as `label_separator`, such as ' '"):
        kerastl.load_data(file, task="multi_label")
    data = kerastl.load_data(file, task="multi_label", label_separator=" ")

    assert data.class_names == ["boat", "sea", "sky"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], [*NAMED]),
        (OPTIONS[:1], ["label_column"]),
        (OPTIONS[:2], ["image_folder", "image_suffix"]),
        (OPTIONS[:3], ["image_suffix"]),
    ],
)
def test_other_headings_are_asked_for_by_their_options(cases, options, named):
    file = cases / "other_headings" / "labels.csv"

    told = command.kerastl("scan", file, *options, status=2)

    said = told.stderr.replace("`--", "`").replace("-", "_")  # `main` makes options of arguments
    assert all(f"`{name}`" in said for name in named)


def test_a_folder_beside_its_table_is_told_of(cases):
    for case in ("other_headings", "labels_in_a_cell"):
        with pytest.raises(DataError, match="such as .*labels.csv"):
            kerastl.load_data(cases / case)


def test_what_stands_in_no_file():
    x, y = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8), np.arange(20) % 2
    endless = tf.data.Dataset.from_tensor_slices((x, y)).repeat()

    with pytest.raises(DataError, match=r"must end.*Remove `repeat\(\)`"):
        kerastl.load_data(endless)
    assert len(kerastl.load_data(((x, y), (x[:6], y[:6]))).test) == 6
