"""The files of a run: written once, read by every later command."""

import csv
import importlib.metadata
import io
import json
import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

import keras

from kerastl.backbones import hub
from kerastl.errors import DataError, ExportError
from kerastl.model.recipes import Recipe

VERSIONED = ("kerastl", "keras", "tensorflow", "numpy", "scikit-learn")


class Run(NamedTuple):
    """A trained model with the names of its classes."""

    model: keras.Model
    class_names: list[str]


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    found = {name: importlib.metadata.version(name) for name in VERSIONED}
    return {"python": platform.python_version(), **found}


def new_run_directory(output: str | Path | None) -> Path:
    """Return the folder for a new run, not made yet: `output`, or the next free `runs/N`.

    Raises:
        DataError: `output` holds files already.
    """
    if output is None:
        runs = Path("runs")
        taken = [int(path.name) for path in runs.glob("*") if path.name.isdecimal()]
        output = runs / str(max(taken, default=0) + 1)
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(
            f"The run directory {output} holds files already. Choose another `--output`, or remove "
            "it: a run is never written over."
        )
    return output


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is whole or not there."""
    partial = path.with_name(f".{path.name}.writing")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise ExportError(f"{path} could not be written: {error}.") from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON; numbers that are not finite are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_object(file: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where there is no such file.

    Raises:
        DataError: it is damaged.
    """
    if not file.exists():
        return None
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} could not be read: {error}. Restore it from a copy.") from error
    if not isinstance(value, dict):
        raise DataError(f"{file} must hold a JSON object. Received: {type(value).__name__}.")
    return value


def save_model(model: keras.Model, path: Path) -> None:
    """Save a `.keras` file, so that it is whole or not there."""
    partial = path.with_name(f".writing-{path.name}")
    try:
        model.save(partial)
        os.replace(partial, path)
    except OSError as error:
        raise ExportError(f"{path} could not be written: {error}.") from error


def write_run(
    directory: Path,
    *,
    model: keras.Model,
    class_names: list[str],
    recipe: dict[str, Any],
    history: dict[str, list[Any]],
) -> None:
    """Write model, labels, recipe and history of a run; its metrics come last, when all is done."""
    save_model(model, directory / "model.keras")
    write_text(directory / "labels.txt", "".join(f"{name}\n" for name in class_names))
    write_json(directory / "recipe.json", recipe)
    write_text(directory / "history.csv", _csv(history))


def _csv(history: dict[str, list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", *history])
    for epoch, row in enumerate(zip(*history.values(), strict=True), start=1):
        writer.writerow([epoch, *("" if value is None else value for value in row)])
    return text.getvalue()


def read_run(path: str | Path, labels: str | Path | None = None) -> Run:
    """Read the model of a run directory, or a `.keras` file, with its class names.

    Args:
        path: the directory or the file.
        labels: a file with a class name a line. Default: `labels.txt` beside the model.

    Raises:
        DataError: it is no finished run, or a file is missing or damaged.
    """
    file = _model_file(Path(path))
    names = read_labels(labels or file.with_name("labels.txt"))
    model = _read_keras(file)
    if model.output_shape[-1] != len(names):
        raise DataError(
            f"{path} is damaged: labels.txt names {len(names)} classes, the model tells "
            f"{model.output_shape[-1]} apart."
        )
    return Run(model, names)


def read_model(path: str | Path) -> keras.Model:
    """Read the model of a run directory, or a `.keras` file, whatever its output means.

    Raises:
        DataError: it is no finished run, or the file is damaged.
    """
    return _read_keras(_model_file(Path(path)))


def _model_file(path: Path) -> Path:
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            f"{path} is no finished run: it has no {file.name}. Give the folder that "
            "`kerastl train` wrote, or a .keras file."
        )
    return file


def read_labels(path: str | Path) -> list[str]:
    """Read class names, one a line.

    Raises:
        DataError: there is no such file, or it names none.
    """
    try:
        names = Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeError) as error:
        raise DataError(
            f"The class names could not be read from {path}: {error}. Give a file with a name a "
            "line (`--labels`)."
        ) from error
    if names == [""]:
        raise DataError(f"{path} names no class. Write one name a line.")
    return names


def _read_keras(file: Path) -> keras.Model:
    try:
        return hub.mend_configurations(keras.saving.load_model(file, compile=False))
    except Exception as error:  # a damaged file makes Keras raise all sorts
        if hub.needs_hub(error):
            raise DataError(
                f"{file} holds layers of KerasHub, not installed here. Install it: "
                "pip install 'kerastl[hub]'"
            ) from error
        raise DataError(
            f"{file} could not be read: {str(error).splitlines()[0]} "
            "Train again, or restore it from a copy."
        ) from error


def read_recipe(path: str | Path) -> Recipe:
    """Read the recipe of a run directory or its `recipe.json`, or of a file that holds it alone.

    Raises:
        DataError: there is no such file, or it is not JSON.
        ArgumentError: it is no recipe.
    """
    file = Path(path)
    file = file / "recipe.json" if file.is_dir() else file
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the last of brackets in brackets
        raise DataError(
            f"The recipe {file} could not be read: {error}. Give a run directory or its "
            "recipe.json; the name of a recipe goes where a scenario is asked for."
        ) from error
    if isinstance(values, dict) and isinstance(values.get("recipe"), dict):
        values = values["recipe"]
    return Recipe.from_dict(values)
