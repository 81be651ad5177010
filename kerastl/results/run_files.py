"""The files of a run: names, reading and writing."""

import base64
import contextlib
import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
from jinja2 import TemplateError

from kerastl._atomic import atomic_path, atomic_write_json, atomic_write_text
from kerastl._reading import parse_json, read_regular, read_text, reading
from kerastl._records import check, from_dict
from kerastl._task import DEFAULT_TASK
from kerastl.backbones.saved_model_backbone import read_saved
from kerastl.data.copies import copies_of
from kerastl.data.near_duplicates import Print
from kerastl.data.options import AS_ALWAYS, DataOptions, PixelRules
from kerastl.data.pixels import PixelSource
from kerastl.errors import DataError, ExportError, KerastlError
from kerastl.model.heads import task_of
from kerastl.model.kept_rules import rules_of
from kerastl.model.recipes import Recipe
from kerastl.results import run_shapes as shapes

LARGEST_PICTURE = 2**22  # bytes; those that a run keeps have at most 224 pixels a side
LARGEST_TABLE = 2**30  # bytes of `predictions.csv`, which has a row an image

_SEEN = re.compile(r"(\S+) ([0-9a-f]{32})?")  # of `Print`

Json = dict[str, Any]
"""The content of a JSON file of a run."""


def _object_of(
    name: str, shape: Any, advice: str = "Restore it from a copy."
) -> "cached_property[Json | None]":
    """Return a property that reads a JSON file of a run, and checks its shape."""
    return cached_property(lambda files: read_object(files.path(name), advice, shape))


class RunFiles:
    """The files of a run directory; each is read when it is first used.

    A file that the run lacks reads as None, or as empty; a damaged one raises a `DataError`.

    Args:
        directory: the run directory; it need not exist yet.
    """

    MODEL, LABELS, RECIPE = "model.keras", "labels.txt", "recipe.json"
    HISTORY, METRICS, DIAGNOSIS = "history.csv", "metrics.json", "diagnosis.json"
    EVALUATION, PREDICTIONS, PICTURES = "evaluation.json", "predictions.csv", "pictures"
    TRIALS, TRANSFER, CHAIN = "trials.json", "transfer.json", "chain.json"
    REPORT, CARD = "report.html", "MODEL_CARD.md"
    SEEN = "seen_images.txt"  # a text an image that was trained on or chosen by
    SAVED_MODEL, LOGS, CHECKPOINTS = "saved_model", "logs", "checkpoints"

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)

    def path(self, name: str) -> Path:
        """Return the path of a file or folder of the run."""
        return self.directory / name

    def make_folder(self, name: str) -> Path:
        """Make a folder of the run if it is missing; return its path.

        Raises:
            ExportError: a link stands in its place, which would lead what is written elsewhere.
        """
        folder = self.path(name)
        if folder.is_symlink():
            raise ExportError(
                f"{folder} is a link, and kerastl does not write through links. Remove it, "
                "and run the command again."
            )
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def picture(self, name: str) -> str | None:
        """Return a picture of the run as a `data:` URL, or None if the run has no such picture.

        Nothing but a JPEG or PNG in the folder of pictures itself is read: a run may be a
        stranger's, and its page goes to others.
        """
        folder = self.path(self.PICTURES)
        if name in ("", ".", "..") or name != Path(name).name or folder.is_symlink():
            return None
        try:
            content = read_regular(folder / name, LARGEST_PICTURE)
        except (OSError, ValueError):
            return None
        kind = {b"\xff\xd8\xff": "jpeg", b"\x89PN": "png"}.get(content[:3])
        if kind is None:
            return None
        return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

    @cached_property
    def class_names(self) -> list[str]:
        """The names of the classes (labels, targets), of `labels.txt`."""
        return read_labels(self.path(self.LABELS))

    @cached_property
    def _kept(self) -> Json:
        kept = read_object(self.path(self.RECIPE), shape=shapes.RecipeFile)
        if kept is None:
            raise DataError(
                f"{self.directory} is not a run: it has no recipe.json. Pass the folder that "
                "`kerastl train` or `kerastl search` wrote."
            )
        return kept

    @property
    def recipe(self) -> Json:
        """The recipe, of `recipe.json`."""
        return self._kept.get("recipe", {})

    @property
    def source(self) -> Json:
        """Where the data came from: `data`, `test`, `on_bad`, `options` and `fingerprint`."""
        return self._kept.get("data", {})

    @property
    def options(self) -> DataOptions:
        """How the data were read; the defaults where there is no `recipe.json`."""
        if not self.path(self.RECIPE).exists():
            return DataOptions()
        return from_dict(DataOptions, self.source.get("options") or {})

    def rules(self, model: keras.Model) -> PixelRules:
        """Return how images become pixels: as the run read them, or as a model alone knows."""
        if self.path(self.RECIPE).exists():
            return self.options.rules
        return rules_of(model)

    @property
    def versions(self) -> dict[str, str]:
        """The versions of Python and the packages that trained the model."""
        return self._kept.get("versions", {})

    @property
    def lineage(self) -> list[Json]:
        """The trainings that the backbone had gone through before this one, the oldest first."""
        return self._kept.get("lineage", [])

    @property
    def task(self) -> str:
        """The task of the run; runs of before there were several tasks classified."""
        return str(self.recipe.get("task", DEFAULT_TASK))

    metrics = _object_of(METRICS, shapes.Metrics)
    """The measures; None for a run that did not come to its end."""
    diagnosis = _object_of(DIAGNOSIS, shapes.DiagnosisFile)
    """What was measured before training."""
    trials = _object_of(TRIALS, shapes.TrialsFile)
    """The trials of a search."""
    evaluation = _object_of(
        EVALUATION, shapes.EvaluationFile, "Remove it, and run `kerastl report` to measure again."
    )
    """What the run keeps of its images and predictions."""
    transfer = _object_of(TRANSFER, shapes.TransferFile)
    """The recipe against other ways to train."""
    chain = _object_of(CHAIN, shapes.ChainFile)
    """What the steps of a chain brought."""

    @cached_property
    def history(self) -> list[Json]:
        """A dict an epoch, of `history.csv`: the `phase` as text, all else as numbers or None."""
        file = self.path(self.HISTORY)
        if not os.path.lexists(file):
            return []
        with reading(file, "Restore it from a copy."):
            rows = _read_rows(file)
            return [
                {
                    name: cell or "" if name == "phase" else float(cell) if cell else None
                    for name, cell in row.items()
                }
                for row in rows
            ]

    def prediction_rows(self) -> list[dict[str, str]]:
        """Read `predictions.csv`: a dict an image, as text."""
        advice = f"`kerastl report {self.directory} --measure` writes them again."
        with reading(f"the predictions of {self.directory}", advice):
            return _read_rows(self.path(self.PREDICTIONS))

    def write_seen(self, sources: Iterable[PixelSource]) -> None:
        """Write what the images looked like that the run has seen."""
        prints = (one for source in sources for one in source.prints())
        self.write(self.SEEN, "".join(f"{one.picture} {one.look}\n" for one in prints))

    def seen(self, source: PixelSource) -> tuple[np.ndarray, np.ndarray]:
        """Return bool `(n,)` twice: images that the run has seen, and others that look like one."""
        path = self.path(self.SEEN)
        if not path.exists():  # as in runs of before
            return np.zeros(len(source), bool), np.zeros(len(source), bool)
        with reading(path, "Remove it to skip this check."):
            lines = read_text(path, LARGEST_TABLE).splitlines()
        known = [Print(*found.groups("")) for line in lines if (found := _SEEN.fullmatch(line))]
        if not known:  # a run of 0.2.0
            return np.isin(source.contents(), lines), np.zeros(len(source), bool)
        return copies_of(source.prints(), known)

    def warn_of_seen(self, source: PixelSource) -> list[str]:
        """Warn if images are among those that the run has seen, or look like one."""
        exact, near = (int(found.sum()) for found in self.seen(source))
        return [
            f"the run used{what} {count:,} of these {len(source):,} images for training or "
            "validation, so the figures are too good"
            for count, what in ((exact, ""), (near, " images that look like"))
            if count
        ]

    def write_model(self, model: keras.Model) -> None:
        """Write `model.keras`; a loss that Keras does not know is left out of it."""
        compiled = model.compiled
        model.compiled = compiled and isinstance(task_of(model).loss, str)
        try:
            with atomic_path(self.path(self.MODEL)) as partial:
                model.save(partial)
        finally:
            model.compiled = compiled

    def write_labels(self, class_names: Sequence[str]) -> None:
        """Write `labels.txt`."""
        self.write(self.LABELS, "".join(f"{name}\n" for name in class_names))

    def write_history(self, history: dict[str, list[Any]]) -> None:
        """Write `history.csv`, a row an epoch."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["epoch", *history])
        for epoch, row in enumerate(zip(*history.values(), strict=True), start=1):
            writer.writerow([epoch, *row])
        self.write(self.HISTORY, text.getvalue())

    def write(self, name: str, content: str | Json) -> Path:
        """Write a text file, or a JSON object, as a whole; return its path."""
        path = self.path(name)
        if isinstance(content, str):
            atomic_write_text(path, content)
        else:
            atomic_write_json(path, content)
        self.__dict__ = {"directory": self.directory}  # what was read before may be out of date
        return path


def new_run_directory(output: str | Path | None) -> Path:
    """Return the folder for a new run, not made yet: `output`, or the next free `runs/N`."""
    if output is None:
        runs = Path("runs")
        taken = [int(path.name) for path in runs.glob("*") if path.name.isdecimal()]
        output = runs / str(max(taken, default=0) + 1)
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(
            f"The run directory {output} contains files already. Choose another `--output`, "
            "or remove it: kerastl does not overwrite a run."
        )
    return output


@contextlib.contextmanager
def in_words(directory: Path) -> Iterator[None]:
    """Say that the files of a run contradict each other, in place of what that makes of them.

    Each of them has its shape; it is their numbers that do not go together, as those of a matrix of
    three classes in a run of two.
    """
    try:
        yield
    except KerastlError:
        raise
    except (
        ArithmeticError, AttributeError, LookupError, TypeError, ValueError, TemplateError
    ) as error:  # fmt: skip
        raise DataError(
            f"The files of {directory} do not fit together: {error!r:.200}. Restore them from a "
            "copy, or train again."
        ) from error


def read_object(
    file: Path, advice: str = "Restore it from a copy.", shape: Any = Json
) -> Json | None:
    """Read a JSON object of a shape; None where there is no such file.

    Raises:
        DataError: it is damaged, or is of another shape.
    """
    if not os.path.lexists(file):
        return None
    with reading(file, advice):
        value = parse_json(read_text(file))
        if not isinstance(value, dict):
            raise ValueError(f"it contains a {type(value).__name__}, not a JSON object")
        check(shape, _in_new_words(value), file.stem)
    return value


def _in_new_words(value: Json) -> Json:
    """Give what probes, trials, arms and steps of before version 0.3 call accuracy its new name."""
    names = ("profile", "sizes", "trials", "arms", "steps", "lineage")
    rows = [row for name in names if isinstance(value.get(name), list) for row in value[name]]
    for row in [*rows, value.get("best"), value.get("corrected")]:
        if isinstance(row, dict) and "accuracy" in row:
            row["score"] = row.pop("accuracy")
    return value


def _read_rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(read_regular(file, LARGEST_TABLE).decode("utf-8"))))


def read_labelled_model(
    path: str | Path, labels: str | Path | None = None
) -> tuple[keras.Model, list[str]]:
    """Read the model of a run directory, or a `.keras` file, with its class names.

    They stand in `labels.txt` beside the model, or in the file of `labels`, one a line.

    Raises:
        DataError: it is no finished run, or the names do not fit the model.
        WeightsError: the model is damaged.
    """
    file = _model_file(Path(path))
    names = read_labels(labels or file.with_name(RunFiles.LABELS))
    model = read_saved(file)
    num_names = task_of(model).num_names(model.output_shape[-1])
    if num_names != len(names):
        raise DataError(
            f"{path} is damaged: labels.txt names {len(names)} classes, the model has {num_names}."
        )
    return model, names


def read_model(path: str | Path) -> keras.Model:
    """Read the model of a run directory, or a `.keras` file, whatever its output means."""
    return read_saved(_model_file(Path(path)))


def _model_file(path: Path) -> Path:
    file = path / RunFiles.MODEL if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            f"{path} is not a finished run: it has no {file.name}. Pass the folder that "
            "`kerastl train` wrote, or a .keras file."
        )
    return file


def read_labels(path: str | Path) -> list[str]:
    """Read class names, one a line; raise a `DataError` where there are none."""
    try:
        names = read_text(path).removesuffix("\n").split("\n")
    except (OSError, UnicodeError) as error:
        raise DataError(
            f"Cannot read the class names from {path}: {error}. Pass a file with one name "
            "per line (`--labels`)."
        ) from error
    if names == [""]:
        raise DataError(f"{path} contains no class names. Write one name per line.")
    return names


def recipe_file(path: str | Path) -> Path:
    """Return `recipe.json` of a run directory, or the file itself."""
    return Path(path) / RunFiles.RECIPE if Path(path).is_dir() else Path(path)


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a run directory, its `recipe.json`, or a file with only a recipe.

    Raises:
        DataError: there is no such file, or it is not JSON.
        ArgumentError: it is no recipe.
    """
    file = recipe_file(path)
    advice = (
        "Pass a run directory or its recipe.json. To use a recipe by name, pass it as `scenario`."
    )
    with reading(f"the recipe {file}", advice):
        values = parse_json(read_text(file))
    if isinstance(values, dict) and isinstance(values.get("recipe"), dict):
        # Runs of before there were several ways to resize squashed.
        values = {"resize": AS_ALWAYS.resize, **values["recipe"]}
    return Recipe.from_dict(values)
