"""Loads images and labels from any source, and splits them."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kerastl._checks import check_choice, check_float, check_int
from kerastl._shown import Shown
from kerastl._task import Task, check_supports, find_task
from kerastl.data import arrays, files, remote, streams
from kerastl.data.boxes import read_boxes
from kerastl.data.copies import warn_of_leaks
from kerastl.data.exports import is_hugging_face, write_hugging_face
from kerastl.data.loaded import SourceParts, join_names
from kerastl.data.options import NO_OPTIONS, DataOptions, usual_resize
from kerastl.data.partition import stratified_split
from kerastl.data.pixels import FileSource, to_show, warnings_of_pixels
from kerastl.data.split import Split
from kerastl.data.tables import ENDINGS, is_frame, is_table
from kerastl.errors import ArgumentError, BadFile, DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DEFAULT_TEST_FRACTION = 0.2
_SHOWN = 160  # pixels of a side of an image in a figure
_FEW = 5  # images, by fewer of which nothing should be chosen
_TEST_STREAM, _VALIDATION_STREAM = 0, 1  # keep the two draws of one seed apart


@dataclass(frozen=True, repr=False)
class ImageData(Shown):
    """Labelled images in three parts: to train on, to choose by, and to report on.

    `validation` and `test` are None when there is no such part. `skipped` lists the files that
    were unreadable or that the skip list names, `ignored` those that are no images by their names,
    and `warnings` says what is unusual.
    """

    train: Split
    validation: Split | None
    test: Split | None
    class_names: list[str]
    source: str
    skipped: list[BadFile] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    options: DataOptions = NO_OPTIONS

    def _in_short(self) -> str:
        sizes = ", ".join(f"{len(split):,} {part}" for part, split in self._splits().items())
        names = find_task(self.task).describe_names(self.class_names)
        return f"{self.source!r}: {names}; {sizes} images"

    @property
    def num_classes(self) -> int:
        """How many classes (labels, targets) there are."""
        return len(self.class_names)

    @property
    def task(self) -> str:
        """The task, such as `"classification"` or `"detection"`."""
        return self.train.task

    @property
    def num_images(self) -> int:
        """How many images there are in all parts together."""
        return sum(len(split) for split in self._splits().values())

    def show(self, count: int = 12, *, seed: int = 0) -> "Figure":
        """Return a figure of `count` random training images with their labels."""
        from kerastl._figures import image_grid  # matplotlib takes half a second

        order = np.random.default_rng(seed).permutation(len(self.train))
        some, task = self.train.subset(np.sort(order[:count])), find_task(self.task)
        titles = [task.label_text(some.labels, row, self.class_names) for row in range(len(some))]
        pixels = to_show(np.concatenate(list(some.images((_SHOWN, _SHOWN)))))
        pairs = zip(pixels, some.labels, strict=True)
        drawn = [task.drawn(image, self.class_names, labels) for image, labels in pairs]
        return image_grid(np.stack(drawn), titles)

    def fingerprint(self) -> str:
        """Return a SHA-256 over the class names and every image and label of each part."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        for part, split in self._splits().items():
            digest.update(f"{part} {split.fingerprint()}".encode())
        return digest.hexdigest()

    def _splits(self) -> dict[str, Split]:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {part: split for part, split in parts.items() if split is not None}


def load_data(
    source: Any,
    *,
    test: Any = None,
    validation_fraction: float = 0.15,
    test_fraction: float | None = None,
    seed: int = 0,
    on_bad: str = "error",
    class_names: Sequence[str] | None = None,
    task: str = "classification",
    image_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    label_separator: str | None = None,
    image_folder: str | None = None,
    image_suffix: str | None = None,
    group_by: str | None = None,
    bit_depth: int | None = None,
    resize: str | None = None,
    channels: int | None = None,
    data_dir: str | None = None,
) -> ImageData:
    """Load labelled images and split them.

    The test images are never used for a choice. If the source has training, validation and test
    parts, they are kept. With training images and one other part, the other part is the test set,
    and the validation images are split off the training images. Without parts, both are split off.
    Splits are stratified, and every class keeps at least one training image. Copies of a picture,
    and images of the same group, stay in the same part. Files listed in `kerastl-skip.txt` in the
    folder (or next to the table) are left out and listed in `skipped`. `docs/data.md` shows an
    example of each format.

    Args:
        source: One of
            - a folder with one folder of images per class, or with parts that contain such folders,
              named `train` and `val` or `test` in any usual spelling (`Training`, `test_images`,
              ...); the parts can also be inside the classes;
            - a `.csv` or `.tsv` file, or a `pandas.DataFrame`, of image paths, relative to the
              folder of the file, and labels, and of the splits if it has a column `split`;
            - a `.parquet` file (extra `parquet`), or a folder of such files, with image paths or
              image bytes, as on Hugging Face; a `.json` export of COCO or Label Studio;
            - a WebDataset `.tar`, or a folder of such files; a YOLO folder with its `data.yaml`
              (extra `yolo`), of which only the classes of the boxes are read;
            - an `.npz` file as Keras or MedMNIST writes it, or with `x` and `y`;
            - a tuple `(x, y)` of arrays, the images `(n, height, width)` or
              `(n, height, width, 1 or 3)` of raw pixels 0 to 255; or two such tuples, for training
              and test, as returned by `keras.datasets`;
            - a `tf.data.Dataset` of `(image, label)`, batched or not, or two;
            - `"tfds:NAME"`, a dataset of tensorflow-datasets, or its builder; a `Dataset` or
              `DatasetDict` of Hugging Face (extra `parquet`);
            - a URL of a folder or file in a cloud store, such as `"gs://bucket/flowers"` (extra
              `cloud`).
        test: another source with the same classes, used as the test set. If it has parts, its test
            part is used.
        validation_fraction: fraction of the training images used for validation, from 0 (none) to
            0.9.
        test_fraction: fraction of the images used for the test if the source has no test part, from
            0 (none) to 0.9. Default: 0.2.
        seed: random seed of the splits.
        on_bad: `"error"` raises an error if a file is unreadable; `"skip"` leaves out such files
            and lists them in `skipped`.
        class_names: names of the classes in the order of their numbers; some can have no images.
            Default: the folder names or labels, sorted, or the names of the source. Class names
            that are whole numbers are sorted by value, and an integer label means the class with
            this number.
        task: `"classification"`: one class per image. `"multi_label"`: any number of labels per
            image, from a table with a column `labels` (an empty cell means no label), with one row
            per label, or with a column of 0 and 1 per label; or from `y` `(n, num_labels)` of 0 and
            1. `"regression"`: numbers, from a table with a column `target` or with several columns
            of numbers, or from `y` `(n,)` or `(n, num_targets)`. Without such a column and without
            `label_column`, all columns except those of images, splits and groups are used. Folders
            and `"tfds:NAME"` have only classes. `class_names` are then the names of the labels or
            targets. `"detection"`: boxes, from COCO, Pascal VOC, YOLO or Label Studio; or from `y`
            `(n, most, 5)`: sides as shares of the image and the number of the class, rows of -1
            fill up.
        image_column: table column with the image paths. Default: a column with a usual name.
        label_column: table column with the labels; several columns for other tasks than
            classification. Default: a column with a usual name.
        split_column: table column with the parts: `train`, `val` or `test`. Default: `split`, or a
            column with a usual name and only such words.
        group_column: table column with groups, such as the patient; images of a group stay in the
            same part.
        label_separator: separator of the labels in a cell. Default: the one of `|`, `;` and `,`
            that occurs; JSON lists are recognised.
        image_folder: folder of the images of a table. Default: the folder of the table.
        image_suffix: suffix that is missing from the names in a table, such as `".jpg"`.
        group_by: regular expression for the names of image files, such as `"^([^_]+)_"`; images
            with the same match (or the same groups of the match) stay in the same part.
        bit_depth: for images with more than 8 bits: their values are from 0 to `2**bit_depth - 1`;
            from 1 to 32. Default: 16. Files and arrays with 32 bits or floats need it; use 1 for
            floats from 0 to 1.
        resize: how images get the shape of the input: `"crop"` keeps the middle, `"squash"`
            stretches the image, `"pad"` adds black margins. Default: `"crop"` for classification,
            otherwise `"squash"`.
        channels: number of channels of images in arrays, `.npz` files, a `tf.data.Dataset` or TIFF
            files (extra `tiff`) that are not RGB, such as 4 with near infrared; 1 keeps gray images
            unchanged. Default: 3; gray images then get three equal channels.
        data_dir: data directory of tensorflow-datasets.

    Returns:
        An `ImageData`.

    Raises:
        UnreadableImagesError: some files are not complete images; the error lists them.
        DataError: the images or the labels are wrong.
        ArgumentError: an argument is invalid.

    Example:
        ```python
        data = kerastl.load_data("flowers/")
        model.fit(data.train.batches((224, 224), shuffle=True))
        ```
    """
    check_choice("on_bad", on_bad, ("error", "skip"))
    check_int("seed", seed, 0)
    check_float("validation_fraction", validation_fraction, 0, 0.9)
    if test_fraction is not None:
        check_float("test_fraction", test_fraction, 0, 0.9)
    found = find_task(task)
    columns = label_column if isinstance(label_column, str | None) else tuple(label_column)
    options = DataOptions(
        image_column=image_column, label_column=columns, split_column=split_column,
        group_column=group_column, label_separator=label_separator, image_folder=image_folder,
        image_suffix=image_suffix, group_by=group_by, bit_depth=bit_depth,
        resize=resize or usual_resize(found.has_one_class), channels=channels, data_dir=data_dir,
    )  # fmt: skip
    if options.rules.resize != usual_resize(found.has_one_class):
        check_supports(task, "resize")
    loaded = _read(source, class_names, on_bad, found, options)
    parts, warnings = dict(loaded.parts), list(loaded.warnings)
    skipped, ignored = list(loaded.skipped), list(loaded.ignored)
    if test is not None:
        other = _read(test, loaded.class_names, on_bad, found, options)
        if "test" in parts:
            warnings.append(
                f"the {len(parts['test'])} test images of the source are replaced by `test`"
            )
        parts["test"] = _test_part(other)
        warnings, skipped = warnings + other.warnings, skipped + other.skipped
        ignored += other.ignored
    in_listing = test is None and isinstance(parts["train"].source, FileSource)
    if len(parts) > 1:
        prints = {p: split.source.prints() for p, split in _without_lone_validation(parts).items()}
        warnings += warn_of_leaks(prints, are_told=in_listing)  # with names, where they are files
    parts = _arrange(parts, validation_fraction, test_fraction, seed)
    labels = {part: split.labels for part, split in parts.items()}
    if 0 < len(labels.get("validation", ())) < _FEW:
        count = len(labels["validation"])
        warnings.append(
            f"only {count} validation images: one more correct image changes the accuracy by "
            f"{100 / count:.0f} points, so the choices are hardly better than chance"
        )
    sizes = np.concatenate([split.source.sizes() for split in parts.values()])
    warnings += warnings_of_pixels(sizes, options.rules)
    named = class_names is not None
    warnings += found.check_labels(labels, loaded.class_names, are_named=named)
    return ImageData(
        parts["train"],
        parts.get("validation"),
        parts.get("test"),
        loaded.class_names,
        describe_source(source),
        skipped,
        ignored,
        warnings,
        options,
    )


def _read(
    source: Any, class_names: Sequence[str] | None, on_bad: str, task: Task, options: DataOptions
) -> SourceParts:
    if isinstance(source, tf.data.Dataset):
        return streams.read_datasets({"train": source}, class_names, task, options)
    if _are_datasets(source):  # a list where Keras returns both parts of a folder
        named = dict(zip(("train", "test"), source, strict=True))
        return streams.read_datasets(named, class_names, task, options)
    if isinstance(source, tuple) and len(source) == 2:
        pairs = all(isinstance(one, tuple) and len(one) == 2 for one in source)
        arrays_of = dict(zip(("train", "test"), source if pairs else (source,), strict=False))
        return arrays.read_arrays(arrays_of, class_names, task, options.rules)
    if is_frame(source):
        return files.read_table(source, class_names, on_bad, task, options)
    if is_hugging_face(source):
        folder = write_hugging_face(source)
        return files.read_table(folder, class_names, on_bad, task, options)
    if streams.is_builder(source):
        return streams.read_tfds(source, class_names, task, options)
    if not isinstance(source, (str, os.PathLike)):
        raise ArgumentError(
            "`source` must be a folder, a .csv or .npz file, a tuple (x, y) of arrays, a "
            f"tf.data.Dataset or 'tfds:NAME'. Received: {type(source).__name__}."
        )
    path = os.path.expanduser(os.fspath(source))
    path = remote.local_copy(path) if remote.is_remote(path) else path
    if task.has_boxes and not path.endswith(".npz"):
        return read_boxes(path, class_names, on_bad, task, options)
    is_folder = os.path.isdir(path) and not is_table(path)
    if not task.reads_folders and (path.startswith("tfds:") or is_folder):
        raise DataError(
            f"Folders and tensorflow-datasets have one class per image. Received: {path!r} "
            f"with task={task.name!r}. Pass a CSV of paths and {task.plural}, an .npz file, "
            "arrays or a tf.data.Dataset."
        )
    if path.startswith("tfds:"):
        return streams.read_tfds(path.removeprefix("tfds:"), class_names, task, options)
    if is_table(path):
        return files.read_table(path, class_names, on_bad, task, options)
    if os.path.isdir(path):
        return files.read_folder(path, class_names, on_bad, task, options)
    if not os.path.exists(path):
        raise DataError(
            f"There is no such folder or file: {path!r} (in {os.getcwd()}). Check the spelling."
        )
    ending = os.path.splitext(path)[1].lower()
    if ending == ".npz":
        return arrays.read_npz(path, class_names, task, options.rules)
    raise DataError(
        f"A data file must end in {', '.join(ENDINGS)} or .npz. Received: {path!r}. Unpack "
        "an archive first, and pass its folder."
    )


def _without_lone_validation(parts: dict[str, Split]) -> dict[str, Split]:
    """Return the parts; beside training images alone, those of validation are the test set."""
    if "test" in parts or "validation" not in parts:
        return parts
    return {"train": parts["train"], "test": parts["validation"]}


def _arrange(
    parts: dict[str, Split], validation_fraction: float, test_fraction: float | None, seed: int
) -> dict[str, Split]:
    """Apply the split rule of `load_data` to the parts that a source names."""
    parts = _without_lone_validation(parts)
    if "test" not in parts:
        fraction = _DEFAULT_TEST_FRACTION if test_fraction is None else test_fraction
        parts = _split_off(parts, "test", fraction, [seed, _TEST_STREAM])
    elif test_fraction:
        raise ArgumentError(
            "`test_fraction` is for data without a test part. Received: "
            f"test_fraction={test_fraction} with {len(parts['test'])} test images. Leave it out."
        )
    if "validation" not in parts:
        parts = _split_off(parts, "validation", validation_fraction, [seed, _VALIDATION_STREAM])
    return parts


def _split_off(
    parts: dict[str, Split], name: str, fraction: float, seed: Sequence[int]
) -> dict[str, Split]:
    train = parts["train"]
    strata = find_task(train.task).stratification_groups(train.labels)
    kept, held_out = stratified_split(strata, fraction, seed, train.groups() if fraction else None)
    if not len(held_out):
        return parts
    return {**parts, "train": train.subset(kept), name: train.subset(held_out)}


def _test_part(loaded: SourceParts) -> Split:
    if "test" not in loaded.parts and len(loaded.parts) > 1:
        raise DataError(
            "`test` must be a source without a split, or with a test part. Received the "
            f"parts: {join_names(list(loaded.parts))}. Pass the folder of the test images."
        )
    return loaded.parts.get("test", loaded.parts["train"])


def describe_source(source: Any) -> str:
    """Return where images come from as text."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, ImageData):
        return source.source
    if streams.is_builder(source):
        return f"tfds:{source.info.name}"
    if is_frame(source):
        return "DataFrame"
    if is_hugging_face(source):
        return "datasets.Dataset"
    is_dataset = isinstance(source, tf.data.Dataset) or _are_datasets(source)
    return "tf.data.Dataset" if is_dataset else "arrays"


def _are_datasets(source: Any) -> bool:
    """Whether a source is two data sets, to train on and to test on."""
    if not isinstance(source, (tuple, list)) or len(source) != 2:
        return False
    return all(isinstance(one, tf.data.Dataset) for one in source)
