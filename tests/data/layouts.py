"""Folder layouts and what becomes of each, as a table to read.

`LAYOUTS` maps a name to the files below a root and the outcome of `load_data` on that root, with
nothing split off. A path leads to the bytes of a file, to a link, or to a folder or pipe.
"""

import io
import os
from dataclasses import dataclass, field

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Link:
    """A symbolic link; `{root}` stands for the root, `{out}` for a folder outside with images."""

    target: str


FOLDER, PIPE = object(), object()


@dataclass(frozen=True)
class Loads:
    """Loaded: the classes, the images of each part, and what is left out, ignored, warned of."""

    classes: tuple[str, ...]
    parts: dict[str, int]
    bad: dict[str, str] = field(default_factory=dict)
    """Refused with these files and reasons, and loaded without them by `on_bad="skip"`."""
    skipped: dict[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """How each warning begins."""


@dataclass(frozen=True)
class Refused:
    """Refused for a reason that holds this text."""

    text: str


def png(number, size=(33, 34)):
    """A small PNG; other numbers give other pixels."""
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


_PNGS = [png(number) for number in range(24)]


def classes(prefix="", **counts):
    """So many different images in each class folder."""
    start = sum(map(ord, prefix)) % 7
    numbers = iter(range(start, 24))
    return {
        f"{prefix}{name}/{index}.png": _PNGS[next(numbers)]
        for name, count in counts.items()
        for index in range(count)
    }


def other(number):
    """Bytes of an image that `classes` does not make."""
    return png(100 + number)


AB = classes(a=3, b=2)
_TEXT = b"notes"
_A_B = ("a", "b")
_ALL = {"train": 5}
_NO_IMAGE = "not a known image format"


def split(first="train", second="test"):
    """Two classes in two parts, all images different."""
    mine = {f"{first}/{path}": data for path, data in AB.items()}
    return mine | {f"{second}/a/t.png": other(1), f"{second}/b/t.png": other(2)}


LAYOUTS = {
    # what is read
    "a folder per class": (AB, Loads(_A_B, _ALL)),
    "nested folders": (AB | {"a/x/y/z.png": other(0)}, Loads(_A_B, {"train": 6})),
    "names with spaces and accents": (
        classes(**{"chat noir": 2, "été": 2}), Loads(("chat noir", "été"), {"train": 4}),
    ),
    "a file name that is not UTF-8": (
        AB | {os.fsdecode(b"a/caf\xe9.png"): other(0)}, Loads(_A_B, {"train": 6}),
    ),
    "a file name with a newline": (AB | {"a/one\ntwo.png": other(0)}, Loads(_A_B, {"train": 6})),
    "a long file name": (AB | {f"a/{'x' * 250}.png": other(0)}, Loads(_A_B, {"train": 6})),
    "train and test": (split(), Loads(_A_B, {"train": 5, "test": 2})),
    "train and val": (split("train", "val"), Loads(_A_B, {"train": 5, "test": 2})),
    "Train and VALID": (split("Train", "VALID"), Loads(_A_B, {"train": 5, "test": 2})),
    "three parts": (
        split() | {"val/a/v.png": other(3), "val/b/v.png": other(4)},
        Loads(
            _A_B, {"train": 5, "validation": 2, "test": 2}, warnings=("only 2 validation images",)
        ),
    ),
    "train is a class": (classes(train=2, plane=2), Loads(("plane", "train"), {"train": 4})),
    "Training and Testing": (split("Training", "Testing"), Loads(_A_B, {"train": 5, "test": 2})),
    "train_set and test-images": (
        split("train_set", "test-images"), Loads(_A_B, {"train": 5, "test": 2}),
    ),
    "parts inside folders of their own": (
        split("seg_train/seg_train", "seg_test/seg_test"), Loads(_A_B, {"train": 5, "test": 2}),
    ),
    "parts inside a folder": (
        split("set/train2017", "set/val2017"),
        Loads(_A_B, {"train": 5, "test": 2}, warnings=("kerastl looks for the classes in",)),
    ),
    "parts inside the classes": (
        {f"{name}/{part}/{i}.png": png(i + 9 * (name == "b") + 30 * (part == "valid"))
         for name in "ab" for part in ("train", "valid") for i in range(2)},
        Loads(_A_B, {"train": 4, "test": 4}),
    ),
    "one folder too many": (
        classes("photos/all/", a=3, b=2),
        Loads(_A_B, _ALL, warnings=("kerastl looks for the classes in {root}/photos/all",)),
    ),
    "one folder too many, train": (classes("train/", a=3, b=2), Loads(_A_B, _ALL)),
    "one folder inside each class": (
        {f"{name}/images/{i}.png": png(i + 9 * (name == "b")) for name in "ab" for i in range(2)},
        Loads(_A_B, {"train": 4}),
    ),
    "whole numbers": (
        classes(**{"10": 1, "9": 2, "2": 1, "-1": 1}),
        Loads(("-1", "2", "9", "10"), {"train": 5}, warnings=("these classes have",)),
    ),
    "a name in two Unicode forms": (
        split() | {"train/e\u0301te\u0301/0.png": other(10), "test/\u00e9t\u00e9/0.png": other(11)},
        Loads(
            ("a", "b", "\u00e9t\u00e9"), {"train": 6, "test": 3}, warnings=("these classes have",)
        ),
    ),
    "two Unicode forms in one part": (
        AB | {"e\u0301/0.png": other(10), "\u00e9/0.png": other(11)},
        Loads(("a", "b", "\u00e9"), {"train": 7}, warnings=("{root}/e\u0301 and another",)),
    ),
    "names that differ by case and a blank": (
        AB | {"A /0.png": other(10), "A /1.png": other(11)},
        Loads(("A ", "a", "b"), {"train": 7}, warnings=("the classes 'A ' and 'a' look alike",)),
    ),
    "a test folder without labels": (
        {path: data for path, data in split().items() if path.startswith("train")}
        | {"test/0.png": other(6)},
        Loads(_A_B, _ALL, ignored=("test",), warnings=("{root}/test is left out: its images are",)),
    ),
    "a test folder of one folder without labels": (
        {path: data for path, data in split().items() if path.startswith("train")}
        | {"test/unknown/0.png": other(6)},
        Loads(_A_B, _ALL, ignored=("test",), warnings=("{root}/test is left out: its images are",)),
    ),
    "a folder of texts beside train": (
        classes("train/", a=3, b=2) | {"notes/a.txt": _TEXT},
        Loads(_A_B, _ALL, ignored=("notes",), warnings=("1 files or folders do not belong",)),
    ),
    "a link to a file of the set": (
        AB | {"a/again.png": Link("{root}/a/0.png")},
        Loads(_A_B, {"train": 6}, warnings=("1 pictures occur more than once",)),
    ),
    # what is ignored
    "resource forks": (
        AB | {"a/._0.png": b"\0\5\x16\7", "._a": b"\0"}, Loads(_A_B, _ALL),
    ),
    "__MACOSX": (AB | {"__MACOSX/a/._0.png": b"\0"}, Loads(_A_B, _ALL)),
    "system files": (
        AB | {".DS_Store": b"\0", "a/.DS_Store": b"\0", "b/Thumbs.db": b"\0", "a/desktop.ini": b""},
        Loads(_A_B, _ALL),
    ),
    "a repository": (AB | {".git/HEAD": b"ref:", ".git/objects/x.png": b"x"}, Loads(_A_B, _ALL)),
    "notebook checkpoints": (AB | {".ipynb_checkpoints/0.png": other(0)}, Loads(_A_B, _ALL)),
    "texts beside the images": (
        AB | {"LICENSE": _TEXT, "a/labels.json": _TEXT, "b/README.md": _TEXT},
        Loads(_A_B, _ALL, ignored=("LICENSE", "a/labels.json", "b/README.md")),
    ),
    "an image beside the class folders": (
        AB | {"loose.png": other(0)},
        Loads(
            _A_B, _ALL, ignored=("loose.png",),
            warnings=("1 files or folders do not belong to a class and are ignored",),
        ),
    ),
    "a folder beside train and test": (
        split() | {"extra/0.png": other(5)},
        Loads(
            _A_B, {"train": 5, "test": 2}, ignored=("extra",),
            warnings=("1 files or folders do not belong to a class and are ignored",),
        ),
    ),
    # what is named
    "an empty file": (AB | {"a/x.jpg": b""}, Loads(_A_B, _ALL, {"a/x.jpg": "an empty file"})),
    "a text with the name of an image": (
        AB | {"a/x.jpg": _TEXT}, Loads(_A_B, _ALL, {"a/x.jpg": _NO_IMAGE}),
    ),
    "a file that is no image by its name": (
        AB | {"a/model.bin": _TEXT}, Loads(_A_B, _ALL, {"a/model.bin": _NO_IMAGE}),
    ),
    "a bad file of a name that is not UTF-8": (
        AB | {os.fsdecode(b"a/caf\xe9.png"): _TEXT},
        Loads(_A_B, _ALL, {r"a/caf\xe9.png": _NO_IMAGE}),
    ),
    "a dead link": (
        AB | {"a/x.png": Link("{root}/nothing.png")}, Loads(_A_B, _ALL, {"a/x.png": "a dead link"}),
    ),
    "a link to itself": (
        AB | {"a/x.png": Link("{root}/a/x.png")}, Loads(_A_B, _ALL, {"a/x.png": "a dead link"}),
    ),
    "a link to a place outside the root": (
        AB | {"a/x.png": Link("{out}/0.png")},
        Loads(_A_B, _ALL, {"a/x.png": "a link to a place outside {root}"}),
    ),
    "a link to a folder above": (
        AB | {"a/loop": Link("{root}")}, Loads(_A_B, _ALL, {"a/loop": "a link to a folder"}),
    ),
    "a class that is a link": (
        AB | {"c": Link("{out}")}, Loads(_A_B, _ALL, {"c": "a link to a folder"}),
    ),
    "a pipe": (AB | {"a/x.png": PIPE}, Loads(_A_B, _ALL, {"a/x.png": "not a regular file"})),
    "a folder with the name of an image": (
        AB | {"a/x.png/0.png": other(0)}, Loads(_A_B, {"train": 6}),
    ),
    "an archive among the images": (
        AB | {"a/more.zip": b"PK\3\4" + bytes(60)}, Loads(_A_B, _ALL, {"a/more.zip": _NO_IMAGE}),
    ),
    # what is warned of
    "the same picture in two parts": (
        split() | {"test/a/copy.png": AB["a/0.png"]},
        Loads(
            _A_B, {"train": 5, "test": 3},
            warnings=("1 pictures are in more than one part of the data, so the test result",),
        ),
    ),
    "the same picture under two classes": (
        AB | {"b/copy.png": AB["a/0.png"]},
        Loads(_A_B, {"train": 6}, warnings=("1 pictures are in more than one class",)),
    ),
    "tiny images": (
        AB | {"a/x.png": png(200, (1, 1))},
        Loads(_A_B, {"train": 6}, warnings=("1 images: a side below 32 pixels",)),
    ),
    "a class of one image": (
        classes(a=3, b=1),
        Loads(_A_B, {"train": 4}, warnings=("these classes have only one training image: b",)),
    ),
    "a class that the test part lacks": (
        {path: data for path, data in split().items() if path != "test/b/t.png"},
        Loads(_A_B, {"train": 5, "test": 1}, warnings=("no image of b in test",)),
    ),
    # what is left out by the list
    "a bad file in the skip list": (
        AB | {"a/x.jpg": b"", "kerastl-skip.txt": b"# mine\na/x.jpg\tan empty file\n"},
        Loads(
            _A_B, _ALL, skipped={"a/x.jpg": "in kerastl-skip.txt: an empty file"},
            ignored=("kerastl-skip.txt",),
        ),
    ),
    "a skip list by hand": (
        AB | {"kerastl-skip.txt": b"\r\na/0.png\r\nnothing.png"},
        Loads(
            _A_B, {"train": 4}, skipped={"a/0.png": "in kerastl-skip.txt"},
            ignored=("kerastl-skip.txt",),
            warnings=("1 lines of kerastl-skip.txt do not match a file (such as nothing.png)",),
        ),
    ),
    # what is refused
    "nothing": ({}, Refused("needs one folder per class inside. Received: ")),
    "images alone": ({"0.png": other(0), "1.png": other(1)}, Refused("needs one folder per class")),
    "one class": (classes(a=3), Refused("Classification needs at least two classes. Received: a.")),
    "an empty class": (AB | {"c": FOLDER}, Refused("A class folder must contain images. Rec")),
    "a class of texts": (AB | {"c/a.txt": _TEXT}, Refused("A class folder must contain images.")),
    "parts without classes": (
        {"train/0.png": other(6), "test/0.png": other(7)},
        Refused("The training images need one folder per class. Received: "),
    ),
    "parts that are called something": (
        split("first", "second"), Refused("The folders first, second all contain the folders a, b"),
    ),
    "two parts to test on": (
        split("val", "test"), Refused("The folders test, val all contain the folders a, b, so it"),
    ),
    "images and masks": (
        {f"{name}/{kind}/0.png": other(n) for n, (name, kind) in enumerate(
            (name, kind) for name in "ab" for kind in ("images", "masks"))},
        Refused("all contain the folders images, masks, so it is not clear which are the classes"),
    ),
    "train beside a folder of images": (
        classes("train/", a=3, b=2) | {"more/0.png": other(6)},
        Refused("is not clear whether it is a class or the training part. Received next to it:"),
    ),
    "train and Training": (
        split("train", "Training") | {"test/a/0.png": other(6)},
        Refused("Each part of the data must have exactly one folder. Received: "),
    ),
    "a class of another case in test": (
        split() | {"test/B/0.png": other(6)}, Refused("Received none of: B. 'B' looks like 'b'."),
    ),
    "a class that only the test part has": (
        split() | {"test/c/0.png": other(7)},
        Refused("Every class needs at least one training image. Received none of: c."),
    ),
    "val and valid": (
        split("train", "val") | {"valid/a/0.png": other(8)},
        Refused("Each part of the data must have exactly one folder. Received: "),
    ),
    "a class name that is not UTF-8": (
        AB | {os.fsdecode(b"caf\xe9/0.png"): other(0)},
        Refused("must have a UTF-8 name. Received: "),
    ),
    "a class name with a newline": (
        AB | {"c\nd/0.png": other(0)}, Refused("Class names must be printable"),
    ),
    "a skip list that cannot be meant": (
        AB | {"kerastl-skip.txt": b"a\\0.png\n"}, Refused(r"Line 1 of "),
    ),
}  # fmt: skip


def build(root, files, outside):
    """Make a layout below `root`; `outside` is a folder with images that is no part of it."""
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is FOLDER:
            file.mkdir()
        elif content is PIPE:
            os.mkfifo(file)
        elif isinstance(content, Link):
            file.symlink_to(content.target.format(root=root, out=outside))
        else:
            file.write_bytes(content)
