"""Images and labels from any source, split so that the test part is never chosen by."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kerastl._checks import check_choice, check_float, check_int
from kerastl._shown import Shown
from kerastl._task import Task, find_task
from kerastl.data import arrays, files, remote, streams
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
        """What is told of an image: `"classification"`, `"multi_label"` or `"regression"`."""
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
        pixels = np.concatenate(list(some.images((_SHOWN, _SHOWN))))
        return image_grid(to_show(pixels), titles)

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

    What is called test is never used for a choice. A source with training, validation and test
    parts keeps them. With training images and one other part, that one is the test set, and
    validation images are split off the training ones. Without any split, both are split off.
    Splits are stratified, and every class keeps an image to train on. Copies of a picture, and
    images of one group, stay on one side. Files that `kerastl-skip.txt` in the folder (or beside
    the table) names are left out, and listed in `skipped`. `docs/data.md` shows every form.

    Args:
        source: One of
            - a folder with a folder of images per class, or with parts that hold those, named
              `train` and `val` or `test` in any usual spelling (`Training`, `test_images`, ...);
              the parts may lie inside the classes;
            - a `.csv` or `.tsv` file, or a `pandas.DataFrame`, of image paths, relative to the
              folder of the file, and labels, and of the splits if it has a column `split`;
            - a `.parquet` file (extra `parquet`), or a folder of such, of image paths or of images
              as bytes, as Hugging Face keeps them; a `.json` export of COCO or Label Studio;
            - a `.tar` of WebDataset, or a folder of such; a folder of YOLO with its `data.yaml`
              (extra `yolo`), of which the classes of the boxes are read;
            - an `.npz` file as Keras or MedMNIST writes it, or with `x` and `y`;
            - a tuple `(x, y)` of arrays, the images `(n, height, width)` or
              `(n, height, width, 1 or 3)` of raw pixels 0 to 255; two such tuples, to train on and
              to test on, as `keras.datasets` gives;
            - a `tf.data.Dataset` of `(image, label)`, batched or not, or two;
            - `"tfds:NAME"`, a data set of tensorflow-datasets, or its builder; a `Dataset` or
              `DatasetDict` of Hugging Face (extra `parquet`);
            - a URL of a folder or file elsewhere, such as `"gs://bucket/flowers"` (extra `cloud`).
        test: Another source of these classes, taken as the test set. Of a source that is
            split itself, the test part is taken.
        validation_fraction: Share of the training images to choose by, from 0 (none) to 0.9.
        test_fraction: Share of the images to report on when the source has no test part, from 0
            (none) to 0.9; 0.2 by default.
        seed: Decides which images are split off.
        on_bad: `"error"` refuses the data when a file is unreadable; `"skip"` leaves such files
            out and lists them in `skipped`.
        class_names: The names of the classes in the order of their numbers; some of them may have
            no images. By default folder names or labels, sorted, or those of the source. Classes
            that are whole numbers are sorted by value, and integers name them by value.
        task: What is told of an image. `"classification"`: one class. `"multi_label"`: any number
            of labels, of a table with a column `labels` that holds them (an empty cell: none), with
            a row for each label, or with a column of 0 and 1 for each label; of `y`
            `(n, num_labels)` of 0 and 1. `"regression"`: numbers, of a table with a column
            `target` or with several columns of numbers; of `y` `(n,)` or `(n, num_targets)`.
            Without a column of such a name or a `label_column`, all columns but those of images,
            splits and groups are taken. Folders and `"tfds:NAME"` hold classes alone. `class_names`
            then name the labels or the targets.
        image_column: The column of a table that holds the paths. Default: one of a usual name.
        label_column: The column of a table that holds the labels; several where the task is
            another than classification. Default: one of a usual name.
        split_column: The column of a table that holds the parts: `train`, `val` or `test`.
            Default: `split`, or one of a usual name that holds such words alone.
        group_column: The column of a table by which images stay on one side, such as the patient.
        label_separator: What parts the labels in a cell. Default: the one of `|`, `;` and `,` that
            occurs; JSON lists are read as such.
        image_folder: The folder of the images of a table. Default: that of the table.
        image_suffix: The ending that the names in a table leave out, such as `".jpg"`.
        group_by: A regular expression that is searched in the names of image files; images in
            which it, or its groups, find the same stay on one side, such as `"^([^_]+)_"`.
        bit_depth: Of images of more than 8 bits: their values run from 0 to `2**bit_depth - 1`,
            from 1 to 32. Default: the 16 bits of their format; files and arrays of 32 bits or
            floats need it, and 1 is for floats from 0 to 1.
        resize: How images of another shape than the model's are brought to it: `"crop"` keeps
            their middle, `"squash"` stretches them, `"pad"` puts them between black margins.
            Default: `"crop"` where images have one class, else `"squash"`.
        channels: Of images in arrays, an `.npz` file, a `tf.data.Dataset` or TIFF files (extra
            `tiff`) that are neither RGB nor gray, such as 4 with near infrared; 1 leaves gray
            images as they are. Default: 3, and gray images get three equal channels.
        data_dir: Where tensorflow-datasets keeps its data.

    Returns:
        An `ImageData`.

    Raises:
        UnreadableImagesError: Some files are no whole images; the error names each.
        DataError: The images or the labels are wrong.
        ArgumentError: An argument cannot be meant.

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
    loaded = _read(source, class_names, on_bad, found, options)
    parts, warnings = dict(loaded.parts), list(loaded.warnings)
    skipped, ignored = list(loaded.skipped), list(loaded.ignored)
    if test is not None:
        other = _read(test, loaded.class_names, on_bad, found, options)
        if "test" in parts:
            warnings.append(
                f"the {len(parts['test'])} test images of the source give way to `test`"
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
            f"only {count} images to choose by: one of them more is {100 / count:.0f} points of "
            "accuracy, so what they choose is little better than chance"
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
    is_folder = os.path.isdir(path) and not is_table(path)
    if not task.reads_folders and (path.startswith("tfds:") or is_folder):
        raise DataError(
            f"A folder and a data set of tensorflow-datasets name one class an image. Received: "
            f"{path!r} with task={task.name!r}. Give a CSV of paths and {task.plural}, an .npz "
            "file, arrays or a tf.data.Dataset."
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
        f"A data file must end in {', '.join(ENDINGS)} or .npz. Received: {path!r}. Unpack an "
        "archive first, then name its folder."
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
            "`test` must be a source without a split, or with a test part. Received the parts: "
            f"{join_names(list(loaded.parts))}. Name the folder of the test images itself."
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
