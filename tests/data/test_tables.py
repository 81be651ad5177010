"""Tables as people have them: headings, names of files, labels in cells and rows."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from kerastl.data.cells import split_labels
from kerastl.data.load import load_data
from kerastl.data.options import DataOptions
from kerastl.data.tables import find_file, list_table
from kerastl.errors import ArgumentError, DataError


@pytest.fixture
def folder(tmp_path):
    """Eight pictures, `images/0.jpg` and so on."""
    (tmp_path / "images").mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (34, 33, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.jpg")
    return tmp_path


def write(folder, header, cell, mark=",", name="table.csv"):
    rows = [header, *(cell(number) for number in range(8))]
    (folder / name).write_text("\n".join(rows).replace(",", mark) + "\n")
    return str(folder / name)


class Frame:
    """What is used of a `pandas.DataFrame`."""

    def __init__(self, **columns):
        self.columns, self._columns = list(columns), columns

    def to_dict(self, orient):
        assert orient == "list"
        return self._columns


FORMS = {
    "backslashes": ("path,label", lambda n: f"images\\{n}.jpg,{n % 2}", {}),
    "blanks": ("File Name , Class Name", lambda n: f" images/{n}.jpg ,{n % 2}", {}),
    "suffix and folder": (
        "image_id,category", lambda n: f"{n},{n % 2}",
        {"image_folder": "images", "image_suffix": ".jpg"},
    ),
    "any heading": (
        "id,breed,part", lambda n: f"images/{n}.jpg,{n % 2},training",
        {"image_column": "id", "label_column": "breed", "split_column": "part"},
    ),
    "a heading in other spelling": (
        "id,Dog Breed", lambda n: f"images/{n}.jpg,{n % 2}",
        {"image_column": "ID", "label_column": "dog_breed"},
    ),
    "more than one image column": (
        "image_id,label,filepath", lambda n: f"x{n},{n % 2},images/{n}.jpg", {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_table_in_another_form(folder, name):
    header, cell, how = FORMS[name]

    listing = list_table(write(folder, header, cell), DataOptions(**how))

    assert listing.errors == []
    assert [one.path for one in listing.entries] == [
        str(folder / "images" / f"{number}.jpg") for number in range(8)
    ]
    assert [one.label for one in listing.entries] == ["0", "1"] * 4


@pytest.mark.parametrize("heading", ["split", "Subset", "data set", "Usage", "partition"])
def test_columns_of_parts_are_known(folder, heading):
    words = ["Training", "train", "Validation", "dev", "Test", "PublicTest", "testing", "val"]
    table = write(folder, f"path,label,{heading}", lambda n: f"images/{n}.jpg,a,{words[n]}")

    parts = [one.part for one in list_table(table).entries]

    assert parts == ["train"] * 2 + ["validation"] * 2 + ["test"] * 3 + ["validation"]


def test_a_column_that_holds_other_words_is_no_split(folder):
    table = write(folder, "path,label,set", lambda n: f"images/{n}.jpg,{n % 2},{n}")

    assert {one.part for one in list_table(table).entries} == {"train"}


def test_a_frame(folder, monkeypatch):
    monkeypatch.chdir(folder)
    frame = Frame(
        path=[f"images/{n}.jpg" for n in range(8)], label=[0.0, 1.0] * 4, who=[*"aabbccdd"]
    )

    data = load_data(frame, group_column="who", test_fraction=0.25, validation_fraction=0)

    assert data.class_names == ["0.0", "1.0"]
    test = {path.rsplit("/", 1)[1] for path in data.test.paths}
    assert len(test) == 2
    assert len({int(name[0]) // 2 for name in test}) == 1  # both of one person
    with pytest.raises(DataError, match="in line 1 of the DataFrame"):
        load_data(Frame(path=["images/0.jpg"] * 2, label=["a", float("nan")]))


def test_files_are_found_by_other_spellings(tmp_path, monkeypatch):
    (tmp_path / unicodedata.normalize("NFD", "é.png")).touch()
    (tmp_path / "a b.png").touch()
    monkeypatch.setenv("HOME", str(tmp_path))

    found = [
        find_file(str(tmp_path), unicodedata.normalize("NFC", "é.png")),
        find_file(str(tmp_path), "a b", ".png"),
        find_file(str(tmp_path), "a b.PNG ", ".png"),
        find_file("", "~/a b.png"),
    ]

    assert found == [
        str(tmp_path / unicodedata.normalize("NFD", "é.png")),
        str(tmp_path / "a b.png"),
        str(tmp_path / "a b.PNG "),
        str(tmp_path / "a b.png"),
    ]


@pytest.mark.parametrize(
    ("header", "cell", "message"),
    [
        ("path,label", lambda n: f"{n},a", r"None of the 8 images .* `image_folder`, .*`image_suf"),
        ("path,label,label", lambda n: f"images/{n}.jpg,a,b", "Received twice: label in"),
        ("path,label", lambda n: f"images/{n}.jpg,sea,sky", "3 cells under 2 headings in line 2"),
        (
            "path,label", lambda n: f"images/{n % 4}.jpg,{n}",
            r"4 images are in several rows .* such as 'images/0.jpg': 0, 4. .*task='multi_label'",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_meant(folder, header, cell, message):
    with pytest.raises(DataError, match=message):
        load_data(write(folder, header, cell))


@pytest.mark.parametrize(
    ("cells", "separator", "expected", "found"),
    [
        (["sea|sky", "", "sea"], None, [("sea", "sky"), (), ("sea",)], "|"),
        (["sea; sky", "sea"], None, [("sea", "sky"), ("sea",)], ";"),
        (["sea,sky,sea", "sky,"], None, [("sea", "sky"), ("sky",)], ","),
        (['["sea", "sky"]', "[]", ""], None, [("sea", "sky"), (), ()], None),
        (["['sea', 'sky']"], None, [("sea", "sky")], None),
        (["[1, 2]"], None, [("1", "2")], None),
        (["sea sky", "sea"], " ", [("sea", "sky"), ("sea",)], None),
        (["polar bear", "sea"], "|", [("polar bear",), ("sea",)], None),
        (["sea", "sky"], None, [("sea",), ("sky",)], None),
        (["e\u0301te\u0301"], None, [("\u00e9t\u00e9",)], None),
    ],
)
def test_labels_of_a_cell(cells, separator, expected, found):
    assert split_labels(cells, separator, "labels") == (expected, found)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["sea", "sea sky boat"], r"blanks in column 'labels', such as 'sea sky boat'. .*=' '|' '"),
        (["sea;sky", "sea,boat"], r"';' and ',' in column"),
        (["['sea' 'sky']"], "Labels that are lists must be JSON"),
        (["[sea, sky]"], "Labels that are lists must be JSON"),
        (['["sea"]', "sky"], "in every row. Received: 'sky'"),
    ],
)
def test_labels_that_cannot_be_parted(cells, message):
    with pytest.raises(DataError, match=message):
        split_labels(cells, None, "labels")


def test_a_row_for_each_label(folder):
    rows = ["images/0.jpg,sea", "images/0.jpg,sky", "images/1.jpg,sky", "images/2.jpg,sea"]
    (folder / "t.csv").write_text("path,label\n" + "\n".join([*rows, rows[-1]]) + "\n")

    data = load_data(folder / "t.csv", task="multi_label", test_fraction=0, validation_fraction=0)

    assert data.class_names == ["sea", "sky"]
    assert data.train.labels.tolist() == [[1, 1], [0, 1], [1, 0]]
    assert "2 images are in several rows, which are joined" in data.warnings[0]


def test_indicators_as_pandas_writes_them(folder):
    table = write(folder, "path, sea ,sky", lambda n: f"images/{n}.jpg,{n % 2:.1f},{n > 2}")

    data = load_data(table, task="multi_label", test_fraction=0, validation_fraction=0)

    assert data.class_names == ["sea", "sky"]
    assert data.train.labels[:4].tolist() == [[0, 0], [1, 0], [0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"label_separator": ""}, "`label_separator` must not be empty"),
        ({"group_by": "("}, "`group_by` must be a regular expression"),
        ({"bit_depth": 0}, "`bit_depth` must be an int from 1 to 32"),
    ],
)
def test_options_that_cannot_be_meant(how, message):
    with pytest.raises(ArgumentError, match=message):
        DataOptions(**how)
