"""Images with boxes, as COCO, Pascal VOC, YOLO and Label Studio keep them, as a `Listing`."""

import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from kerastl._task import Task
from kerastl.data import exports, files, yolo
from kerastl.data.listing import Entry, Listing, is_junk
from kerastl.data.loaded import SourceParts, join_names
from kerastl.data.options import DataOptions
from kerastl.data.parts import part_of
from kerastl.data.tables import check_files, find_file
from kerastl.errors import DataError

_FORMS = (
    "a .json of COCO or Label Studio, or a folder of such; a folder of Pascal VOC with its .xml "
    "files; a folder of YOLO with its data.yaml; or a tuple (x, y) of arrays"
)
_BESIDE = ("", "images", "JPEGImages", "../images", "../JPEGImages", "..")
_LARGEST_XML = 2**22  # bytes; a real one has a few thousand


class Box(NamedTuple):
    """A box in an image: its class, and its sides as shares of the image, 0 to 1."""

    label: str
    left: float
    top: float
    right: float
    bottom: float


class _Picture(NamedTuple):
    folder: str
    name: str
    part: str
    boxes: list[Box]  # in pixels where `size` is known, else as shares
    size: tuple[float, float] | None = None  # width and height that the boxes are for


def read_boxes(
    source: str, class_names: Sequence[str] | None, on_bad: str, task: Task, options: DataOptions
) -> SourceParts:
    """Read images and their boxes.

    Boxes of no area, or outside their image, are an error; with `on_bad="skip"` they are left out.
    Those that reach over the edge of their image are cut there. A warning counts both.
    """
    names, pictures = _read(source)
    listing = Listing(source if os.path.isdir(source) else os.path.dirname(source), columns=names)
    count = _Count()
    for one in pictures:
        folders = [os.path.join(one.folder, os.path.expanduser(options.image_folder or ""))]
        folders += [] if options.image_folder else [os.path.join(one.folder, b) for b in _BESIDE]
        found = (find_file(folder, one.name, options.image_suffix or "") for folder in folders)
        paths = [os.path.normpath(path) for path in found]
        path = next(filter(os.path.lexists, paths), paths[0])
        if not listing.skips(path):
            boxes = tuple(count.checked(_as_shares(one), one.name))
            listing.entries.append(Entry(one.part, path, one.name, "", boxes, shape=one.size))
    if not listing.entries:
        raise DataError(f"There is no image in {source!r}. Give {_FORMS}.")
    count.report(listing, on_bad)
    check_files(listing)
    listing.warn_of_unused_skips()
    if listing.errors:
        raise DataError("\n".join(listing.errors))
    return files.load_listing(
        listing, task.table_names(listing, class_names), on_bad, task, options
    )


class _Count:
    """What is wrong with boxes, counted, with the first image of each kind."""

    def __init__(self) -> None:
        self._empty: list[str] = []
        self._cut: list[str] = []

    def checked(self, boxes: Iterable[Box], name: str) -> Iterator[Box]:
        """Yield the boxes that have an area inside their image, cut at its edges."""
        for box in boxes:
            sides = [min(1.0, max(0.0, side)) for side in box[1:]]
            whole = Box(box.label, *sides)
            if not (whole.right > whole.left and whole.bottom > whole.top):  # NaN too
                self._empty.append(f"{box.label!r} in {name}")
                continue
            if max(abs(a - b) for a, b in zip(sides, box[1:], strict=True)) > 0.01:
                self._cut.append(name)
            yield whole

    def report(self, listing: Listing, on_bad: str) -> None:
        """Note what was found in a listing."""
        if self._empty:
            text = (
                f"{len(self._empty)} boxes have no area inside their image (such as "
                f"{self._empty[0]})"
            )
            if on_bad == "skip":
                listing.warnings.append(f"{text}: they are left out")
            else:
                listing.errors.append(f"{text}. Correct them, or pass on_bad='skip'.")
        if self._cut:
            listing.warnings.append(
                f"{len(self._cut)} boxes reach over the edge of their image and are cut there "
                f"(such as in {self._cut[0]})"
            )


def _as_shares(one: _Picture) -> list[Box]:
    if one.size is None:
        return one.boxes
    width, height = one.size
    return [
        Box(b.label, b.left / width, b.top / height, b.right / width, b.bottom / height)
        for b in one.boxes
    ]


def _read(source: str) -> tuple[list[str], list[_Picture]]:
    """Return the names of the classes in the order of the source, and the images."""
    if os.path.isfile(source) and source.lower().endswith(yolo.ENDINGS):
        return _yolo(source)
    if os.path.isfile(source) and source.lower().endswith(".json"):
        return _json_files([source])
    if not os.path.isdir(source):
        raise DataError(f"With boxes, `source` must be {_FORMS}. Received: {source!r}.")
    if (description := yolo.description_in(source)) is not None:
        return _yolo(description)
    found = [
        os.path.join(folder, name)
        for folder, _, names in sorted(os.walk(source))
        for name in sorted(names)
        if not is_junk(name)
    ]
    if xml := [path for path in found if path.lower().endswith(".xml")]:
        return _voc(source, xml)
    if tables := [path for path in found if path.lower().endswith(".json")]:
        return _json_files(tables)
    raise DataError(
        f"There are no boxes in the folder {source!r}: it holds no .json, .xml or data.yaml. Give "
        f"{_FORMS}."
    )


def _json_files(paths: Sequence[str]) -> tuple[list[str], list[_Picture]]:
    names: dict[str, None] = {}
    pictures: list[_Picture] = []
    for path in paths:
        try:
            with open(path, encoding="utf-8-sig") as file:
                found = json.load(file)
            part = _part_of(path) if len(paths) > 1 else "train"
            read = _coco if isinstance(found, dict) else _label_studio
            mine, some = read(found, os.path.dirname(path), part)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"A JSON file of boxes must be an export of COCO or Label Studio. Received: "
                f"{path!r} ({type(error).__name__}: {error}). Export it again, or name the file "
                "that is meant."
            ) from None
        names |= dict.fromkeys(mine)
        pictures += some
    return list(names), pictures


def _part_of(path: str) -> str:
    """Return the part that a file is of: by its name, as `instances_val2017.json`, or folder."""
    stem = os.path.splitext(os.path.basename(path))[0].removeprefix("instances_")
    return part_of(stem) or part_of(os.path.basename(os.path.dirname(path))) or "train"


def _coco(found: Any, home: str, part: str) -> tuple[list[str], list[_Picture]]:
    """Read COCO's object detection; crowds, which are no objects, are left out."""
    classes = {one["id"]: str(one["name"]) for one in found["categories"]}
    boxes: dict[Any, list[Box]] = {one["id"]: [] for one in found["images"]}
    for one in found["annotations"]:
        if not one.get("iscrowd"):
            left, top, width, height = map(float, one["bbox"])
            label = classes[one["category_id"]]
            boxes[one["image_id"]].append(Box(label, left, top, left + width, top + height))
    pictures = []
    for one in found["images"]:
        size = (float(one["width"]), float(one["height"]))
        pictures.append(_Picture(home, one["file_name"], part, boxes[one["id"]], size))
    return list(classes.values()), pictures


def _label_studio(found: Any, home: str, part: str) -> tuple[list[str], list[_Picture]]:
    """Read the rectangles of Label Studio, whose sides are per cent."""
    names, pictures = set(), []
    for one in found:
        boxes = []
        results = (result for each in one["annotations"] for result in each["result"])
        for value in (r["value"] for r in results if r["type"] == "rectanglelabels"):
            left, top = value["x"] / 100, value["y"] / 100
            right, bottom = left + value["width"] / 100, top + value["height"] / 100
            if value.get("rotation"):
                raise ValueError("a rectangle is rotated, where boxes are upright")
            boxes += [Box(str(n), left, top, right, bottom) for n in value["rectanglelabels"]]
        names |= {box.label for box in boxes}
        pictures.append(_Picture(home, exports.uploaded_name(one["data"]["image"]), part, boxes))
    return sorted(names), pictures


def _yolo(description: str) -> tuple[list[str], list[_Picture]]:
    names = yolo.class_names(description)
    pictures = []
    for image in yolo.images_of(description):
        boxes = []
        for line in image.lines:
            label = names[int(line[0])] if line[0].isdecimal() and int(line[0]) in names else None
            try:
                sides = [float(cell) for cell in line[1:]]
            except ValueError:
                sides = []
            if label is None or len(sides) < 4:
                raise DataError(
                    "Each line of a label of YOLO has the number of a class of data.yaml and four "
                    f"numbers. Received: {' '.join(line)[:80]!r} in {image.labels!r}. Correct it."
                )
            if len(sides) == 4:
                x, y, width, height = sides
                corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            else:  # the outline of an object
                corners = (min(sides[::2]), min(sides[1::2]), max(sides[::2]), max(sides[1::2]))
            boxes.append(Box(label, *corners))
        pictures.append(_Picture(image.home, image.name, image.part, boxes))
    return list(names.values()), pictures


def _voc(root: str, paths: Sequence[str]) -> tuple[list[str], list[_Picture]]:
    """Read Pascal VOC; parts are told by `ImageSets/Main`, or by the folders."""
    listed: dict[str, str] = {}
    sets = os.path.join(root, "ImageSets", "Main")
    for part in ("train", "val", "test"):
        if os.path.isfile(file := os.path.join(sets, f"{part}.txt")):
            with open(file, encoding="utf-8") as lines:
                listed |= {line.split()[0]: part_of(part) or part for line in lines if line.strip()}
    names, pictures = set(), []
    for path in paths:
        stem = os.path.splitext(os.path.basename(path))[0]
        if listed and stem not in listed:
            continue
        part = listed.get(stem) or _part_of(path)
        try:
            picture = _voc_picture(path, part)
        except (ElementTree.ParseError, ValueError, AttributeError, TypeError) as error:
            raise DataError(
                f"An .xml file must be an annotation of Pascal VOC. Received: {path!r} "
                f"({type(error).__name__}: {error}). Correct or remove it."
            ) from None
        names |= {box.label for box in picture.boxes}
        pictures.append(picture)
    return sorted(names), pictures


def _voc_picture(path: str, part: str) -> _Picture:
    with open(path, "rb") as file:
        text = file.read(_LARGEST_XML)
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ValueError("it defines entities, which no annotation needs")
    root: Any = ElementTree.fromstring(text)  # noqa: S314  # has no entities
    size = root.find("size")
    width, height = float(size.find("width").text), float(size.find("height").text)
    boxes = []
    for one in root.iter("object"):
        corners = one.find("bndbox")
        sides = [float(corners.find(side).text) for side in ("xmin", "ymin", "xmax", "ymax")]
        boxes.append(Box(one.find("name").text.strip(), *sides))
    name = root.find("filename").text.strip()
    return _Picture(os.path.dirname(path), name, part, boxes, (width, height))


def check_shapes(entries: Sequence[Entry]) -> None:
    """Raise where boxes are for images of another shape than the files have.

    Such are photographs that were turned upright, or cropped, after they were annotated.
    """
    wrong = []
    for entry in entries:
        height, width = entry.size
        if entry.shape is not None:
            ratio = entry.shape[0] * height / max(1.0, entry.shape[1] * width)
            if not 0.95 < ratio < 1.05:
                wrong.append(f"{entry.name} ({width} x {height}, boxes for {entry.shape[0]:.0f} x "
                             f"{entry.shape[1]:.0f})")  # fmt: skip
    if wrong:
        raise DataError(
            f"Boxes must be for the images as they are. Received {len(wrong)} images of another "
            f"shape than their annotations say: {join_names(wrong, 3)}. Annotate the upright "
            "images, or leave them out by kerastl-skip.txt."
        )
