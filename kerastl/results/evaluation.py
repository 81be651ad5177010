"""What a run keeps of its images and answers, so that its page can be built without them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from kerastl.data.load import ImageData
from kerastl.data.split import Split
from kerastl.frozen.prefixes import image_size_of
from kerastl.results.explain import explain, overlay
from kerastl.results.predictions import Predictions
from kerastl.results.run_files import RunFiles
from kerastl.results.task_predictions import LabelPredictions, TaskPredictions, ValuePredictions

NUM_SAMPLES = 24  # pictures of the training images, over all classes
NUM_WORST = 12
NUM_SUREST = 6
MOST_LISTED = 100  # files left out that are named
MOST_POINTS = 500  # test images whose numbers are drawn
LONGEST_SIDE = 224  # of a kept picture, in pixels
JPEG_QUALITY = 85


def write_evaluation(
    files: RunFiles,
    model: keras.Model,
    data: ImageData,
    *,
    test: Predictions | TaskPredictions,
    calibration: dict[str, Any] | None = None,
    moved: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Write `evaluation.json`, `predictions.csv` and `pictures/` into a run directory.

    Args:
        files: of the run.
        model: as it was evaluated.
        data: of `load_data`, with a test split.
        test: the model's answers about `data.test`.
        calibration: of `calibrate`.
        moved: of `how_far_moved`.

    Returns:
        What `evaluation.json` holds: `task`, `data` (images a part, counts a class and part, what
        was left out), `samples`, `worst`, `calibration`, `moved` and, of classes, `confusion`,
        `most_confused`, `reliability`, and `surest` (rows as `worst` has them: of `top_losses`,
        with the names of their pictures); of numbers `answers`, the `truth` and the `values`
        answered for each target, of test images spread over all, and `data.spans`, the least, the
        quartiles and the greatest number of each target and part.
    """
    assert data.test is not None  # noqa: S101  the run was refused without test images
    pictures = files.path(files.PICTURES)
    pictures.mkdir(parents=True, exist_ok=True)
    found = {
        "task": data.task,
        "class_names": data.class_names,
        "data": _describe(data),
        "samples": _keep_samples(pictures, data, image_size_of(model)),
        **_keep_answers(pictures, model, data.test, test),
        "calibration": calibration,
        "moved": list(moved),
    }
    files.write(files.PREDICTIONS, test.to_csv())
    files.write(files.EVALUATION, found)
    return found


def _keep_answers(
    pictures: Path, model: keras.Model, split: Split, test: Predictions | TaskPredictions
) -> dict[str, Any]:
    """Return what there is to show of the answers, and keep the pictures for it."""
    worst = [int(row["index"]) for row in test.top_losses(NUM_WORST)]
    if isinstance(test, TaskPredictions):
        pixels = _pixels(split.subset(worst), image_size_of(model))
        rows = zip(worst, pixels, strict=True)
        kept: dict[str, Any] = {
            "worst": [
                {**test.row(index), "file": _save(pictures, f"worst-{place:02}", image)}
                for place, (index, image) in enumerate(rows)
            ]
        }
        if isinstance(test, ValuePredictions):
            some = _spread(len(test), MOST_POINTS)
            truth, values = test.labels[some].T.tolist(), test.outputs[some].T.tolist()
            kept["answers"] = [
                {"truth": own, "values": answered}
                for own, answered in zip(truth, values, strict=True)
            ]
        return kept
    return {
        "confusion": test.confusion().tolist(),
        "most_confused": test.most_confused(),
        "reliability": test.reliability(),
        "worst": _keep_explained(pictures, "worst", model, split, test, worst),
        "surest": _keep_explained(pictures, "surest", model, split, test, _surest(test)),
    }


def _describe(data: ImageData) -> dict[str, Any]:
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    spans = {} if data.task != "regression" else {"spans": _spans(parts)}
    return {
        **spans,
        "source": data.source,
        "sizes": {name: len(split) for name, split in parts.items() if split},
        "counts": {
            name: _counts(split) for name, split in parts.items() if split is not None and split
        },
        "skipped": [bad._asdict() for bad in data.skipped[:MOST_LISTED]],
        "num_skipped": len(data.skipped),
        "ignored": data.ignored[:MOST_LISTED],
        "num_ignored": len(data.ignored),
        "warnings": data.warnings,
    }


def _spans(parts: dict[str, Split | None]) -> dict[str, list[list[float]]]:
    """Return the least, the quartiles and the greatest number of each target in each part."""
    return {
        name: np.percentile(split.labels.astype("float64"), [0, 25, 50, 75, 100], axis=0).T.tolist()
        for name, split in parts.items()
        if split is not None and split
    }


def _counts(split: Split) -> list[int]:
    """Return how many images there are of each class, with each label, with each target."""
    if split.task == "classification":
        return np.bincount(split.labels, minlength=split.num_classes).tolist()
    if split.task == "multi_label":
        return split.labels.sum(0).astype(int).tolist()
    return [len(split)] * split.num_classes


def _label_text(split: Split, row: int, names: Sequence[str]) -> str:
    if split.task == "classification":
        return names[int(split.labels[row])]
    kind = LabelPredictions if split.task == "multi_label" else ValuePredictions
    return kind(split.labels, split.labels, list(names)).texts(row)[0]


def _rows_of(split: Split, class_id: int) -> np.ndarray:
    """Return the images of a class or with a label; of targets all, by their size."""
    if split.task == "classification":
        return np.flatnonzero(split.labels == class_id)
    if split.task == "multi_label":
        return np.flatnonzero(split.labels[:, class_id])
    return np.argsort(split.labels[:, class_id], kind="stable")


def _keep_samples(pictures: Path, data: ImageData, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Keep as many training images of each class as there is room for, spread over all."""
    a_class = max(1, min(4, NUM_SAMPLES // data.num_classes))
    rows: list[int] = []
    for class_id in range(data.num_classes):
        mine = _rows_of(data.train, class_id)
        rows += mine[_spread(len(mine), a_class)].tolist()
    rows = list(dict.fromkeys(rows))  # an image can have several labels
    rows = [rows[place] for place in _spread(len(rows), NUM_SAMPLES)]
    chosen = data.train.subset(rows)
    kept = []
    for place, pixels in enumerate(_pixels(chosen, size)):
        kept.append(
            {
                "file": _save(pictures, f"sample-{place:02}", pixels),
                "label": _label_text(chosen, place, data.class_names),
                "path": chosen.paths[place] if chosen.paths else None,
            }
        )
    return kept


def _keep_explained(
    pictures: Path,
    name: str,
    model: keras.Model,
    split: Split,
    predictions: Predictions,
    rows: Sequence[int],
) -> list[dict[str, Any]]:
    """Keep images, each beside what in it speaks for the model's answer."""
    if not rows:
        return []
    pixels = _pixels(split.subset(rows), image_size_of(model))
    found = explain(model, pixels, class_ids=predictions.answers[list(rows)])
    painted = overlay(pixels, found.heat)
    return [
        {
            **predictions.row(row),
            "file": _save(pictures, f"{name}-{place:02}", pixels[place]),
            "overlay": _save(pictures, f"{name}-{place:02}-{found.method}", painted[place]),
            "method": found.method,
            "stage": found.stage,
            "seen": bool(found.heat[place].any()),
        }
        for place, row in enumerate(rows)
    ]


def _surest(predictions: Predictions) -> list[int]:
    """Return the rows of the surest right answers, of as many classes as there are."""
    certainty = predictions.probabilities.max(1)
    right = np.flatnonzero(predictions.answers == predictions.labels)
    right = right[np.argsort(-certainty[right], kind="stable")]
    _, first = np.unique(predictions.labels[right], return_index=True)
    others = np.setdiff1d(np.arange(len(right)), first)
    return right[np.concatenate([np.sort(first), others])][:NUM_SUREST].tolist()


def _spread(count: int, most: int) -> np.ndarray:
    """Return up to `most` different places, evenly from `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _pixels(split: Split, size: tuple[int, int]) -> np.ndarray:
    return np.concatenate(list(split.images(size).as_numpy_iterator()))


def _save(pictures: Path, name: str, pixels: np.ndarray) -> str:
    """Write a picture as JPEG, or as PNG where it is so small that each pixel counts."""
    image = Image.fromarray(pixels)
    ending = "png" if max(image.size) <= LONGEST_SIDE // 2 else "jpg"
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = f"{name}.{ending}"
    image.save(pictures / file, quality=JPEG_QUALITY)
    return file
