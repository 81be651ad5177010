"""Detection sets of YOLO are tables of the classes of their boxes."""

import numpy as np
import pytest
from PIL import Image

import kerastl
from kerastl.errors import DataError
from tests import command

X = np.random.default_rng(0).integers(0, 256, (30, 33, 34, 3), np.uint8)
NAMES = "names: [cat, dog]\nnc: 2\n"


def write(root, image="{part}/images", label="{part}/labels", names=NAMES, several=False):
    for n in range(30):
        part = "train" if n < 20 else "valid"
        folders = [root / one.format(part=part) for one in (image, label)]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(X[n]).save(folders[0] / f"{n}.x.jpg")
        boxes = [f"{n % 2} 0.5 0.5 0.2 0.2\n"] * 2
        boxes += ["0 0.1 0.1 0.1 0.1\n"] * several
        (folders[1] / f"{n}.x.txt").write_text("".join(boxes))
    (root / "data.yaml").write_text(f"path: /nowhere\ntrain: ../../etc\n{names}")
    return root


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("{part}/images", "{part}/labels"),
        ("images/{part}", "labels/{part}"),
        ("data/images/{part}/deep", "data/labels/{part}/deep"),
    ],
)
@pytest.mark.parametrize("names", [NAMES, "names:\n  0: cat\n  1: dog\n"])
def test_layouts(tmp_path, image, label, names):
    root = write(tmp_path, image, label, names)

    for source in (root, root / "data.yaml"):
        data = kerastl.load_data(source, validation_fraction=0)

        assert data.class_names == ["cat", "dog"]
        assert (len(data.train), len(data.test)) == (20, 10)
        numbers = [int(path.rsplit("/", 1)[1].split(".")[0]) for path in data.train.paths]
        assert data.train.labels.tolist() == [n % 2 for n in numbers]


def test_several_classes_in_an_image(tmp_path):
    root = write(tmp_path, several=True)
    (root / "train/labels/0.x.txt").unlink()

    data = kerastl.load_data(root, task="multi_label", validation_fraction=0)

    rows = {path.rsplit("/", 1)[1]: row for path, row in
            zip(data.train.paths, data.train.labels.tolist(), strict=True)}  # fmt: skip
    assert (rows["0.x.jpg"], rows["1.x.jpg"], rows["2.x.jpg"]) == ([0, 0], [1, 1], [1, 0])
    with pytest.raises(DataError, match="multi_label|needs an image and a label"):
        kerastl.load_data(root)
    assert "kerastl:" not in command.kerastl("scan", write(tmp_path / "one")).stderr


@pytest.mark.parametrize(
    ("names", "label", "message"),
    [
        ("nc: 2\n", "0 1 1 1 1", "must have `names`"),
        ("names: 3\n", "0 1 1 1 1", "must have `names`"),
        ("names: {a: b}\n", "0 1 1 1 1", "must have `names`"),
        ("names: !!python/object/apply:os.system [x]\n", "0 1 1 1 1", "must have `names`"),
        (NAMES, "7 1 1 1 1", "must start with the number of a class in data.yaml. Received: 7 in"),
        (NAMES, "cat 1 1 1 1", "must start with the number of a class"),
    ],
)
def test_what_is_refused(tmp_path, names, label, message):
    root = write(tmp_path)
    (root / "data.yaml").write_text(names)
    (root / "train/labels/3.x.txt").write_text(label)

    with pytest.raises(DataError, match=message):
        kerastl.load_data(root)
