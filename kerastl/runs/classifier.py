"""Models that predict images: a run, a `.keras` file or an exported SavedModel."""

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from kerastl._shown import Shown
from kerastl._task import Task
from kerastl._typed import typed
from kerastl.data.arrays import check_images
from kerastl.data.file_report import csv_cell
from kerastl.data.options import AS_ALWAYS, PixelRules
from kerastl.data.pixels import ArraySource
from kerastl.data.split import Split
from kerastl.data.unlabelled import load_unlabelled
from kerastl.errors import ArgumentError, BadFile, DataError
from kerastl.frozen.prefixes import image_size_of
from kerastl.model.heads import task_of
from kerastl.model.kept_rules import rules_of
from kerastl.results.evaluate import predict_probabilities
from kerastl.results.run_files import Json, RunFiles, read_labelled_model, read_labels
from kerastl.serving.artifacts import SavedModel
from kerastl.serving.versions import rules_in, versions_in

_MOST_SHOWN = 10  # images that `repr` names


@typed
@dataclass(frozen=True, eq=False, repr=False)
class ImagePredictions(Shown):
    """Predictions of a model for images without labels.

    Args:
        outputs: floats `(num_images, num_outputs)`: probabilities, or values for regression.
        class_names: names of the outputs.
        task: task of the model.
        paths: one path per image, or None if the images are not files.
        skipped: skipped files, with the reason.
    """

    outputs: np.ndarray
    class_names: list[str]
    task: Task
    paths: list[str] | None = None
    skipped: list[BadFile] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.outputs)

    def _in_short(self) -> str:
        lines = str(self).splitlines()
        more = [f"... and {len(lines) - _MOST_SHOWN:,} more images"][: len(lines) > _MOST_SHOWN]
        return "\n".join([*lines[:_MOST_SHOWN], *more])

    __repr__ = _in_short  # the answers themselves

    def rows(self, top: int | None = None) -> list[Json]:
        """Return one dict per image: its `path`, and its `classes`, `labels` or `values`.

        Args:
            top: number of classes or labels. Default: the most probable class; all labels above
                their thresholds.

        Returns:
            Plain values; each class or label has `label` and `probability`, with the most probable
            first; each value has `target` and `value`.
        """
        task, names = self.task, self.class_names
        if top is not None and not task.takes_top:
            raise ArgumentError(
                f"`--top` needs classes or labels; this model predicts all {task.plural}."
            )
        paths: Any = self.paths or [None] * len(self)
        return [
            {"path": path, task.told_as: task.describe_outputs(row, names, top)}
            for path, row in zip(paths, self.outputs, strict=True)
        ]

    def table(self, top: int | None = None) -> list[tuple[str | None, int, str | None, Any]]:
        """Return one row per class, label or value, with the most probable first.

        A row has the path of the image, the rank from 1, the name, and the probability or value. An
        image without a label has one row with rank 0.
        """
        _, name, number = self.task.told_columns
        table: list[tuple[str | None, int, str | None, Any]] = []
        for row in self.rows(top):
            told = row[self.task.told_as]
            ranked = enumerate(told, start=1) if told else [(0, {})]
            table += [(row["path"], rank, one.get(name), one.get(number)) for rank, one in ranked]
        return table

    def cells(self, top: int | None = None, *, exact: bool = False) -> list[list[str]]:
        """Return the rows of `table` as text; exact numbers are those for a file."""
        digits = self.task.told_digits[exact]
        return [
            [path or "", str(rank), told or "", "" if value is None else f"{value:{digits}}"]
            for path, rank, told, value in self.table(top)
        ]

    def write(self, file: io.TextIOBase | TextIO, form: str, top: int | None = None) -> None:
        """Write to an open text file as `"csv"`, like `table`, or as `"jsonl"`, like `rows`."""
        if form == "jsonl":
            for row in self.rows(top):
                file.write(json.dumps(row, allow_nan=False) + "\n")
            return
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "rank", *self.task.told_columns[1:]])
        writer.writerows(map(csv_cell, row) for row in self.cells(top, exact=True))

    def __str__(self) -> str:
        task, lines = self.task, []
        (_, name, value), (digits, _) = task.told_columns, task.told_digits
        for number, row in enumerate(self.rows()):
            told = ", ".join(f"{one[name]} {one[value]:{digits}}" for one in row[task.told_as])
            lines.append(f"{row['path'] or f'image {number}'}: {told or task.told_nothing}")
        return "\n".join(lines)


class Classifier(NamedTuple):
    """A model that predicts pixels."""

    predict: Callable[[Any], np.ndarray]
    """Batches of pixels to probabilities `(num_images, num_classes)`; values of a regression."""
    class_names: list[str]
    size: tuple[int, int]
    task: Task
    rules: PixelRules = AS_ALWAYS
    """How images become pixels, as the model was trained."""

    def predict_images(self, images: Any, on_bad: str = "error") -> ImagePredictions:
        """Predict files, folders, encoded images or arrays; as `Run.predict`."""
        with tempfile.TemporaryDirectory() as folder:
            split, paths, skipped = _unlabelled(images, on_bad, Path(folder), self.rules)
            outputs = self.predict(split.images(self.size))
            outputs = self.task.in_pixels(outputs, split.source.sizes())
        return ImagePredictions(outputs, self.class_names, self.task, paths, skipped)


def images_at(images: Any, size: tuple[int, int], rules: PixelRules = AS_ALWAYS) -> np.ndarray:
    """Return images, as `Run.predict` takes them, as uint8 pixels `(n, *size, 3)`."""
    with tempfile.TemporaryDirectory() as folder:
        split, _, _ = _unlabelled(images, "error", Path(folder), rules)
        return np.concatenate(list(split.images(size).as_numpy_iterator()))


def _unlabelled(
    images: Any, on_bad: str, folder: Path, rules: PixelRules
) -> tuple[Split, list[str] | None, list[BadFile]]:
    """Return images as a split, their paths, and the files that were left out.

    Encoded images are written to the folder, and decoded as the files of training were.
    """
    if isinstance(images, (str, os.PathLike, bytes)):
        images = [images]
    if isinstance(images, (list, tuple)) and images:
        if all(isinstance(image, (str, os.PathLike)) for image in images):
            files = [os.fspath(image) for image in images]
            split, skipped = load_unlabelled(files, on_bad=on_bad, rules=rules)
            return split, split.paths, skipped
        if all(isinstance(image, bytes) for image in images):
            files = [str(folder / f"image {number:06}") for number in range(len(images))]
            for file, image in zip(files, images, strict=True):
                Path(file).write_bytes(image)
            split, skipped = load_unlabelled(files, on_bad=on_bad, rules=rules)
            return split, None, skipped
    if not hasattr(images, "__array__"):
        raise ArgumentError(
            "Images must be paths of files or folders, bytes of encoded images, or an array of raw "
            f"pixels 0-255 (n, height, width, 3). Received: {type(images).__name__}."
        )
    array = np.asarray(images)
    array = array[None] if array.ndim == 3 and array.shape[-1] == rules.channels else array
    pixels = check_images(array, "it", rules)
    source = ArraySource(pixels, np.arange(len(pixels)), rules)
    return Split(source, np.full(len(pixels), -1), 0), None, []


def classifier_of(
    model: Any, class_names: list[str], rules: PixelRules | None = None
) -> Classifier:
    """Return a Keras model as what predicts images."""
    predict = partial(predict_probabilities, model)
    size, task = image_size_of(model), task_of(model)
    return Classifier(predict, class_names, size, task, rules or rules_of(model))


def read_classifier(path: Path, labels: Path | None = None) -> Classifier:
    """Read a run, a `.keras` file, a version of a SavedModel or the folder of its versions.

    Raises:
        DataError: it is none, or its class names (`labels.txt` beside the model, or the file of
            `labels`) are not known.
        WeightsError: the model is damaged.
    """
    if path.is_dir() and not (path / RunFiles.MODEL).exists():
        if (path / "saved_model.pb").is_file():
            return _of_saved_model(path, labels)
        if numbers := versions_in(path):
            return _of_saved_model(path / str(numbers[-1]), labels)
        raise DataError(
            f"{path} is not a finished run: it has no model.keras and no SavedModel. Pass a "
            "run, a .keras file or an export of `kerastl export`."
        )
    model, names = read_labelled_model(path, labels)
    return classifier_of(model, names, RunFiles(path).rules(model))


def _of_saved_model(path: Path, labels: Path | None) -> Classifier:
    names = read_labels(labels or path / RunFiles.LABELS)
    try:
        served = SavedModel(path)
    except Exception as error:  # a damaged or foreign SavedModel makes TensorFlow raise all sorts
        raise DataError(
            f"Cannot read {path} as a SavedModel of `kerastl export`: "
            f"{(str(error) or repr(error)).splitlines()[0]}"
        ) from error
    if None in served.size:
        raise DataError(
            f"{path} is a model for larger images, and returns a map for each image. Pass "
            "the run itself, or use `kerastl heatmap`."
        )

    def predict(batches: Any) -> np.ndarray:
        return np.concatenate([served.classify(np.asarray(batch)) for batch in batches])

    return Classifier(predict, names, served.size, served.task, rules_in(path))
