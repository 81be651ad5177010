"""Writes pictures of where in images a model looks, or of where it sees its classes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image

from kerastl._atomic import atomic_path
from kerastl._checks import check_choice
from kerastl.data.split import Split
from kerastl.data.unlabelled import load_unlabelled
from kerastl.errors import BadFile
from kerastl.frozen.prefixes import image_size_of
from kerastl.model.heads import task_of
from kerastl.results.class_map import ClassMapper
from kerastl.results.explain import METHODS, explain, overlay
from kerastl.results.run_files import Json, RunFiles, read_labelled_model
from kerastl.runs.telling import silent


class Painter(NamedTuple):
    """A model, images, and where the pictures go."""

    model: keras.Model
    class_names: list[str]
    split: Split
    skipped: list[BadFile]
    folder: Path

    def picture(self, place: int, pixels: np.ndarray) -> str:
        """Write the picture of the image at a place; return its path."""
        assert self.split.paths is not None  # noqa: S101  # the images are files
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{place:04}-{Path(self.split.paths[place]).stem}.png"
        with atomic_path(file) as partial:
            Image.fromarray(pixels).save(partial)
        return str(file)

    def class_id(self, class_name: str | None) -> int | None:
        """Return the number of a class; raise an `ArgumentError` if the model knows none such."""
        if class_name is None:
            return None
        return self.class_names.index(check_choice("--class", class_name, self.class_names))


def read_painter(
    run: Path,
    images: Sequence[Path],
    output: Path | None,
    name: str,
    on_bad: str = "error",
    tell: Callable[[str], None] = silent,
) -> Painter:
    """Read a model and images for pictures in `output`, or in a folder `name` of the run."""
    model, names = read_labelled_model(run)
    rules = RunFiles(run).rules(model)
    split, skipped = load_unlabelled([str(image) for image in images], on_bad=on_bad, rules=rules)
    for path, reason in skipped:
        tell(f"Left out {path}: {reason}")
    folder = output or (run if run.is_dir() else run.parent) / name
    return Painter(model, names, split, skipped, folder)


def paint_explanations(
    painter: Painter, class_name: str | None = None, method: str = "auto", stage: str | None = None
) -> list[Json]:
    """Paint over each image what speaks for a class, or for its answer; return a dict each.

    A dict has `path`, `label` and `probability` (of a regression `target` and `value`), `method`,
    `stage` and `overlay`, the path of the picture.
    """
    check_choice("--method", method, METHODS)
    wanted = painter.class_id(class_name)
    at = int(stage) if stage is not None and stage.isdecimal() else stage
    rows: list[Json] = []
    paths: list[str] = painter.split.paths or []
    _, label, number = task_of(painter.model).told_columns
    for pixels in painter.split.images(image_size_of(painter.model)).as_numpy_iterator():
        asked = None if wanted is None else np.full(len(pixels), wanted)
        found = explain(painter.model, pixels, class_ids=asked, method=method, stage=at)
        for place, painted in enumerate(overlay(pixels, found.heat)):
            class_id = int(found.class_ids[place])
            rows.append(
                {
                    "path": paths[len(rows)],
                    label: painter.class_names[class_id],
                    number: float(found.probabilities[place, class_id]),
                    "method": found.method,
                    "stage": found.stage,
                    "overlay": painter.picture(len(rows), painted),
                }
            )
    return rows


def paint_heatmaps(
    painter: Painter, class_name: str | None = None, size: int | None = None
) -> Json:
    """Slide a model over larger images, and paint where it sees a class, or the surest one.

    Returns:
        The `window` and `stride` in pixels, and `heatmaps`, a dict an image.
    """
    wanted, mapper = painter.class_id(class_name), ClassMapper(painter.model)
    rows: list[Json] = []
    for place, path in enumerate(painter.split.paths or []):
        one = painter.split.subset([place])
        height, width = (int(side) for side in one.source.sizes()[0])
        pixels = next(iter(one.images((height, width)).as_numpy_iterator()))[0]
        seen = mapper(pixels, size)
        class_id = int(seen.probabilities.max((0, 1)).argmax()) if wanted is None else wanted
        cell = seen.strongest(class_id)
        painted = overlay(pixels[None], seen.heat(class_id)[None])[0]
        rows.append(
            {
                "path": path,
                "label": painter.class_names[class_id],
                "probability": float(seen.probabilities[(*cell, class_id)]),
                "box": [round(side, 1) for side in seen.box(*cell)],
                "cells": list(seen.probabilities.shape[:2]),
                "looked_at": list(seen.looked_at),
                "overlay": painter.picture(place, painted),
            }
        )
    return {"window": mapper.window, "stride": mapper.stride, "heatmaps": rows}
