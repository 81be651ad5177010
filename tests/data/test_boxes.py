"""Boxes as COCO, Pascal VOC, YOLO and Label Studio keep them, and what is wrong with some."""

import json

import numpy as np
import pytest
from PIL import Image

from kerastl.data.load import load_data
from kerastl.errors import ArgumentError, DataError

SIZE = (40, 20)  # width and height that boxes are for; the images were enlarged since
# Of each image the boxes in pixels.
SCENES = {
    "a.png": [("cat", 4, 2, 20, 12), ("dog", 20, 10, 40, 20)],
    "b.png": [("dog", 0, 0, 10, 10)],
    "c.png": [],
    "d.png": [("cat", 10, 5, 30, 15)],
}
LABELS = {
    "a.png": [[0.1, 0.1, 0.5, 0.6, 0], [0.5, 0.5, 1, 1, 1]],
    "b.png": [[0, 0, 0.25, 0.5, 1]],
    "c.png": [],
    "d.png": [[0.25, 0.25, 0.75, 0.75, 0]],
}


def write_images(folder, size=(2 * SIZE[0], 2 * SIZE[1])):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in SCENES:
        pixels = rng.integers(0, 255, (size[1], size[0], 3)).astype("uint8")
        Image.fromarray(pixels).save(folder / name)


def coco(folder):
    write_images(folder / "images")
    images, annotations = [], []
    for number, (name, boxes) in enumerate(SCENES.items()):
        images.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for label, left, top, right, bottom in boxes:
            annotations.append(
                {
                    "id": len(annotations), "image_id": number,
                    "category_id": {"cat": 3, "dog": 7}[label],
                    "bbox": [left, top, right - left, bottom - top],
                }
            )  # fmt: skip
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    found = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "boxes.json").write_text(json.dumps(found))
    return folder / "boxes.json"


def voc(folder):
    write_images(folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for name, boxes in SCENES.items():
        objects = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{left}</xmin><ymin>{top}</ymin>"
            f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
            for label, left, top, right, bottom in boxes
        )
        size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{name}</filename>{size}{objects}</annotation>"
        (folder / "Annotations" / f"{name[0]}.xml").write_text(text)
    return folder


def yolo(folder):
    write_images(folder / "train" / "images")
    (folder / "train" / "labels").mkdir()
    (folder / "data.yaml").write_text("names: [cat, dog]\n")
    for name, boxes in LABELS.items():
        lines = []
        for place, (left, top, right, bottom, number) in enumerate(boxes):
            sides = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
            if place:  # as the outline of an object
                sides = [left, top, right, top, right, bottom, left, bottom]
            lines.append(f"{number} {' '.join(map(str, sides))}\n")
        (folder / "train" / "labels" / f"{name[0]}.txt").write_text("".join(lines))
    return folder


def label_studio(folder):
    write_images(folder)
    tasks = []
    for name, boxes in LABELS.items():
        results = [
            {
                "type": "rectanglelabels",
                "value": {
                    "x": 100 * left, "y": 100 * top, "width": 100 * (right - left),
                    "height": 100 * (bottom - top), "rectanglelabels": [["cat", "dog"][number]],
                },
            }
            for left, top, right, bottom, number in boxes
        ]  # fmt: skip
        image = f"/data/upload/1/{name}"
        tasks.append({"data": {"image": image}, "annotations": [{"result": results}]})
    (folder / "project.json").write_text(json.dumps(tasks))
    return folder


FORMATS = {"coco": coco, "voc": voc, "yolo": yolo, "label_studio": label_studio}


def load(source, **how):
    return load_data(source, task="detection", test_fraction=0, validation_fraction=0, **how)


@pytest.mark.parametrize("form", FORMATS)
def test_all_say_the_same(form, tmp_path):
    data = load(FORMATS[form](tmp_path / "set"))
    assert data.class_names == ["cat", "dog"]
    found = {path.rsplit("/", 1)[1]: rows for path, rows in
             zip(data.train.paths, data.train.labels, strict=True)}  # fmt: skip
    assert found.keys() == LABELS.keys()
    for name, wanted in LABELS.items():
        rows = found[name][found[name][:, 4] >= 0]
        np.testing.assert_allclose(rows, np.array(wanted).reshape(-1, 5), atol=1e-6)
    assert data.train.class_counts() == [2, 2]
    assert not data.warnings


def test_parts_are_told_by_the_names_of_files(tmp_path):
    table = coco(tmp_path)
    for part in ("train", "val"):
        (tmp_path / f"instances_{part}2017.json").write_text(table.read_text())
    table.unlink()
    with pytest.raises(DataError, match="There are no boxes"):
        load(tmp_path / "images")
    data = load(tmp_path)
    assert (len(data.train), len(data.test)) == (4, 4)
    assert any("test" in text for text in data.warnings)  # a leak, since both are the same


def test_voc_names_its_parts(tmp_path):
    folder = voc(tmp_path)
    sets = folder / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("a\nb\n")
    (sets / "test.txt").write_text("d\n")
    data = load(folder)
    assert (len(data.train), len(data.test)) == (2, 1)


def changed(folder, **changes):
    """A COCO file of which the second annotation, and images, are changed."""
    table = coco(folder)
    found = json.loads(table.read_text())
    found["annotations"][1] |= {k: v for k, v in changes.items() if k != "width"}
    for image in found["images"]:
        image["width"] = changes.get("width", image["width"])
    table.write_text(json.dumps(found))
    return table


def test_a_box_over_the_edge_is_cut(tmp_path):
    data = load(changed(tmp_path, bbox=[20, 10, 100, 100]))
    assert data.train.labels[0, 1].tolist() == [0.5, 0.5, 1, 1, 1]
    (told,) = data.warnings
    assert told == "1 boxes reach over the edge of their image and are cut there (such as in a.png)"


@pytest.mark.parametrize("box", [[20, 10, 0, 5], [50, 10, 5, 5], [20, 10, -5, 5]])
def test_a_box_without_area(box, tmp_path):
    table = changed(tmp_path, bbox=box)
    with pytest.raises(DataError, match=r"1 boxes have no area inside .*'dog' in a\.png"):
        load(table)
    data = load(table, on_bad="skip")
    assert (data.train.labels[0, :, 4] >= 0).sum() == 1
    assert any("left out" in text for text in data.warnings)


def test_crowds_are_no_objects(tmp_path):
    data = load(changed(tmp_path, iscrowd=1))
    assert (data.train.labels[0, :, 4] >= 0).sum() == 1


WRONG = {
    "an unknown class": ({"category_id": 9}, "KeyError: 9"),
    "an unknown image": ({"image_id": 9}, "KeyError: 9"),
    "no box": ({"bbox": [1, 2]}, "export of COCO"),
    "another shape": ({"width": 48}, r"another shape .*a\.png \(80 x 40, boxes for 48 x 20\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_coco(name, tmp_path):
    changes, told = WRONG[name]
    with pytest.raises(DataError, match=told):
        load(changed(tmp_path, **changes))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<annotation>", "ParseError"),
        ("<annotation><filename>a.png</filename></annotation>", "AttributeError"),
        ('<!DOCTYPE x [<!ENTITY y "z">]><annotation/>', "it defines entities"),
    ],
)
def test_wrong_voc(text, told, tmp_path):
    folder = voc(tmp_path)
    (folder / "Annotations" / "a.xml").write_text(text)
    with pytest.raises(DataError, match=f"annotation of Pascal VOC.*{told}"):
        load(folder)


@pytest.mark.parametrize("line", ["7 0.5 0.5 0.1 0.1", "0 0.5 0.5", "cat 0.5 0.5 0.1 0.1"])
def test_wrong_yolo(line, tmp_path):
    folder = yolo(tmp_path)
    (folder / "train" / "labels" / "a.txt").write_text(line)
    with pytest.raises(DataError, match="Each line of a label of YOLO"):
        load(folder)


def test_a_folder_without_boxes(tmp_path):
    write_images(tmp_path / "cat")
    with pytest.raises(DataError, match="There are no boxes in the folder"):
        load(tmp_path)


def test_names_decide_the_order_and_may_be_more(tmp_path):
    data = load(coco(tmp_path), class_names=["dog", "cat", "cow"])
    assert data.train.labels[1, 0, 4] == 0
    with pytest.raises(DataError, match=r"The classes must be dog.*Received in addition: cat"):
        load(tmp_path / "boxes.json", class_names=["dog"])


def test_the_split_gives_each_part_of_a_rare_class():
    labels = np.full((40, 2, 5), -1, "float32")
    labels[:, 0] = [0.1, 0.1, 0.5, 0.5, 0]
    labels[::10, 1] = [0.2, 0.2, 0.6, 0.6, 1]
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 3)).astype("uint8")
    data = load_data((images, labels), task="detection", validation_fraction=0.25)
    counts = [part.class_counts()[1] for part in (data.train, data.validation, data.test)]
    assert min(counts) >= 1


def test_a_table_of_boxes_is_still_one_of_labels(tmp_path):
    data = load_data(
        coco(tmp_path), task="multi_label", test_fraction=0, validation_fraction=0,
        image_folder="images",
    )  # fmt: skip
    assert data.class_names == ["cat", "dog"]
    with pytest.raises(ArgumentError, match="`task` must be one of"):
        load_data(tmp_path, task="objects")
