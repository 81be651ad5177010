"""The models that commands take: a run, a `.keras` file or an exported SavedModel."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Classifier(NamedTuple):
    """A model that names what is on pixels."""

    predict: "Callable[[Any], np.ndarray]"
    """Batches of pixels to probabilities `(num_images, num_classes)`; values of a regression."""
    class_names: list[str]
    size: tuple[int, int]
    task: str


def read_classifier(path: Path, labels: Path | None = None) -> Classifier:
    """Read a run, a `.keras` file, a version of a SavedModel or the folder of its versions.

    Args:
        path: of it.
        labels: a file with a class name a line. Default: `labels.txt` beside the model.

    Raises:
        DataError: it is none, or its class names are not known.
    """
    from kerastl.errors import DataError
    from kerastl.serving.versions import versions_in

    if path.is_dir() and not (path / "model.keras").exists():
        if (path / "saved_model.pb").is_file():
            return _of_saved_model(path, labels)
        if numbers := versions_in(path):
            return _of_saved_model(path / str(numbers[-1]), labels)
        raise DataError(
            f"{path} is no finished run: it has no model.keras, and no SavedModel either. Give a "
            "run, a .keras file or what `kerastl export` wrote."
        )
    return _of_keras(path, labels)


def _of_keras(path: Path, labels: Path | None) -> Classifier:
    from functools import partial

    from kerastl.frozen.prefixes import image_size_of
    from kerastl.model.heads import task_of
    from kerastl.results.evaluate import predict_probabilities
    from kerastl.results.run_directory import read_run

    model, names = read_run(path, labels)
    return Classifier(
        partial(predict_probabilities, model), names, image_size_of(model), task_of(model)
    )


def _of_saved_model(path: Path, labels: Path | None) -> Classifier:
    import numpy as np

    from kerastl.errors import DataError
    from kerastl.results.run_directory import read_labels
    from kerastl.serving.artifacts import SavedModel

    names = read_labels(labels or path / "labels.txt")
    try:
        served = SavedModel(path)
    except Exception as error:  # a damaged or foreign SavedModel makes TensorFlow raise all sorts
        raise DataError(
            f"{path} could not be read as a SavedModel of `kerastl export`: "
            f"{(str(error) or repr(error)).splitlines()[0]}"
        ) from error

    if None in served.size:
        raise DataError(
            f"{path} slides over larger images, and gives a map for each. Give the run itself, or "
            "look at maps with `kerastl heatmap`."
        )

    def predict(batches: Any) -> np.ndarray:
        return np.concatenate([served.classify(np.asarray(batch)) for batch in batches])

    return Classifier(predict, names, served.size, served.task)
