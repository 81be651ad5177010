"""The data that a run stores for its page."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from kerastl._atomic import atomic_path
from kerastl._task import find_task
from kerastl.data.load import ImageData
from kerastl.data.pixels import to_show
from kerastl.data.split import Split
from kerastl.frozen.prefixes import image_size_of
from kerastl.model.heads import task_of
from kerastl.results.explain import explain, overlay
from kerastl.results.predictions import BasePredictions, Predictions, spread
from kerastl.results.run_files import Json, RunFiles
from kerastl.results.run_shapes import StageMovement

NUM_SAMPLES = 24  # pictures of the training images, over all classes
NUM_WORST = 12
NUM_SUREST = 6
MOST_LISTED = 100  # files left out that are named
LONGEST_SIDE = 224  # of a kept picture, in pixels
JPEG_QUALITY = 85


def write_evaluation(
    files: RunFiles,
    model: keras.Model,
    data: ImageData,
    *,
    test: BasePredictions,
    calibration: Json | None = None,
    moved: Sequence[StageMovement] = (),
) -> None:
    """Write `evaluation.json`, `predictions.csv` and `pictures/` into a run directory.

    `evaluation.json` holds `task`, `data` (images a part, counts a class and part, what was left
    out), `samples`, `worst`, `calibration` (of `calibrate`), `moved` and, of classes, `confusion`,
    `most_confused`, `reliability`, and `surest` (rows as `worst` has them: of `top_losses`, with
    the names of their pictures); of numbers `answers`, the `truth` and the `values` answered for
    each target, of test images spread over all, and `data.spans`, the least, the quartiles and the
    greatest number of each target and part.
    """
    assert data.test is not None  # noqa: S101  the run was refused without test images
    pictures = files.make_folder(files.PICTURES)
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


def _keep_answers(pictures: Path, model: keras.Model, split: Split, test: BasePredictions) -> Json:
    """Return what there is to show of the answers, and keep the pictures for it."""
    worst = [row["index"] for row in test.top_losses(NUM_WORST)]
    kept = test.summary()
    if isinstance(test, Predictions):
        surest = list(test.surest(NUM_SUREST))
        names = [f"worst-{place:02}" for place in range(len(worst))]
        names += [f"surest-{place:02}" for place in range(len(surest))]
        rows = _keep_explained(pictures, names, model, split, test, [*worst, *surest])
        return {**kept, "worst": rows[: len(worst)], "surest": rows[len(worst) :]}
    pixels, task = _pixels(split.subset(worst), image_size_of(model)), task_of(model)
    drawn = [
        task.drawn(image, test.class_names, test.labels[index], test.outputs[index])
        for index, image in zip(worst, pixels, strict=True)
    ]
    kept["worst"] = [
        {**test.row(index), "file": _save(pictures, f"worst-{place:02}", image)}
        for place, (index, image) in enumerate(zip(worst, drawn, strict=True))
    ]
    return kept


def _describe(data: ImageData) -> Json:
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    splits = {name: split for name, split in parts.items() if split}
    task = find_task(data.task)
    spans = {name: task.describe_labels(split.labels) for name, split in splits.items()}
    return {
        **({"spans": spans} if all(spans.values()) else {}),
        "source": data.source,
        "sizes": {name: len(split) for name, split in splits.items()},
        "counts": {
            name: task.count_images(split.labels, data.num_classes)
            for name, split in splits.items()
        },
        "skipped": [bad._asdict() for bad in data.skipped[:MOST_LISTED]],
        "num_skipped": len(data.skipped),
        "ignored": data.ignored[:MOST_LISTED],
        "num_ignored": len(data.ignored),
        "warnings": data.warnings,
    }


def _keep_samples(pictures: Path, data: ImageData, size: tuple[int, int]) -> list[Json]:
    """Keep as many training images of each class as there is room for, spread over all."""
    task = find_task(data.task)
    a_class = max(1, min(4, NUM_SAMPLES // data.num_classes))
    rows: list[int] = []
    for class_id in range(data.num_classes):
        mine = task.images_of(data.train.labels, class_id)
        rows += mine[spread(len(mine), a_class)].tolist()
    rows = list(dict.fromkeys(rows))  # an image can have several labels
    rows = [rows[place] for place in spread(len(rows), NUM_SAMPLES)]
    chosen, names = data.train.subset(rows), data.class_names
    return [
        {
            "file": _save(
                pictures, f"sample-{place:02}", task.drawn(pixels, names, chosen.labels[place])
            ),
            "label": task.label_text(chosen.labels, place, names),
            "path": chosen.paths[place] if chosen.paths else None,
        }
        for place, pixels in enumerate(_pixels(chosen, size))
    ]


def _keep_explained(
    pictures: Path,
    names: Sequence[str],
    model: keras.Model,
    split: Split,
    predictions: Predictions,
    rows: Sequence[int],
) -> list[Json]:
    """Keep images, each beside what in it speaks for the model's answer."""
    if not rows:
        return []
    pixels = _pixels(split.subset(rows), image_size_of(model))
    found = explain(model, pixels, class_ids=predictions.answers[list(rows)])
    painted = overlay(pixels, found.heat)
    return [
        {
            **predictions.row(row),
            "file": _save(pictures, name, pixels[place]),
            "overlay": _save(pictures, f"{name}-{found.method}", painted[place]),
            "method": found.method,
            "stage": found.stage,
            "seen": bool(found.heat[place].any()),
        }
        for place, (name, row) in enumerate(zip(names, rows, strict=True))
    ]


def _pixels(split: Split, size: tuple[int, int]) -> np.ndarray:
    return np.concatenate(list(split.images(size).as_numpy_iterator()))


def _save(pictures: Path, name: str, pixels: np.ndarray) -> str:
    """Write a picture as JPEG, or as PNG where it is so small that each pixel counts."""
    image = Image.fromarray(to_show(pixels))
    ending = "png" if max(image.size) <= LONGEST_SIDE // 2 else "jpg"
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = f"{name}.{ending}"
    with atomic_path(pictures / file) as partial:
        image.save(partial, quality=JPEG_QUALITY)
    return file
