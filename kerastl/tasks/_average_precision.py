"""COCO's average precision of boxes, with intervals over the images."""

import contextlib
import io
from typing import Any, NamedTuple

import numpy as np

from kerastl._checks import check_packages
from kerastl.results.measures import (
    Arrays,
    Measured,
    bootstrap,
    centred_interval,
    none_if_nan,
)

OVERLAPS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
_SIDE = 1000.0  # of images in the units of pycocotools; overlaps are the same on any scale


class ClassMatches(NamedTuple):
    """The answers of a class in all images, the surest first.

    Args:
        images: the image of each, ints `(num_answers,)`.
        is_right: whether it is an object at each overlap, bools `(10, num_answers)`.
        num_objects: of each image, ints `(num_images,)`.
    """

    images: np.ndarray
    is_right: np.ndarray
    num_objects: np.ndarray


def measure_boxes(
    labels: np.ndarray, answers: np.ndarray, num_classes: int, *, seed: int = 0
) -> Measured:
    """Return the measures of `evaluate` for boxes.

    Args:
        labels: `(num_images, most, 5)`, as `Task.has_boxes` says; at least one image.
        answers: of `detect`, `(num_images, most, 6)`.
        num_classes: of the model.
        seed: of the draws of the bootstrap.
    """
    classes = match(labels, answers, num_classes)

    def measure(counts: np.ndarray) -> Arrays:
        each = [[average_precisions(one, row) for one in classes] for row in counts]
        found = np.array(each)  # (draws, classes, overlaps)
        # Of a draw without a class, nothing.
        with np.errstate(invalid="ignore"):
            total = np.nansum(found, 1) / np.maximum((~np.isnan(found)).sum(1), 1)
        total[np.isnan(found).all(1)] = np.nan
        return {**_named(total), **{f"classes {k}": v for k, v in _named(found).items()}}

    found, draws = bootstrap(measure, len(labels), seed)
    names = list(_named(np.zeros((1, len(OVERLAPS)))))
    values = {name: none_if_nan(found[name]) for name in names}
    rows: list[Measured] = []
    for number, one in enumerate(classes):
        row: Measured = {"num_objects": int(one.num_objects.sum()), "num_answered": len(one.images)}
        for name in names:
            value = none_if_nan(found[f"classes {name}"][number])
            of_class = draws[f"classes {name}"][:, number]
            row |= {name: value, f"{name}_interval": centred_interval(of_class, value)}
        rows.append(row)
    intervals = {name: centred_interval(draws[name], values[name]) for name in names}
    return {**values, "num_images": len(labels), "intervals": intervals, "classes": rows}


def _named(precisions: np.ndarray) -> Arrays:
    """Return AP, AP50 and AP75 of precisions `(..., overlaps)`."""
    return {
        "ap": precisions.mean(-1), "ap50": precisions[..., 0], "ap75": precisions[..., 5],
    }  # fmt: skip


def match(labels: np.ndarray, answers: np.ndarray, num_classes: int) -> list[ClassMatches]:
    """Return which answers are right, by `pycocotools` (extra `detection`)."""
    check_packages("Measuring boxes", ["pycocotools"], "detection")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        truth, given = COCO(), COCO()
        truth.dataset = _as_coco(labels, num_classes)
        given.dataset = _as_coco(answers, num_classes)
        truth.createIndex()
        given.createIndex()
        judge = COCOeval(truth, given, "bbox")
        judge.params.areaRng, judge.params.areaRngLbl = judge.params.areaRng[:1], ["all"]
        judge.evaluate()
    order = [*range(num_classes)]
    num_images = len(labels)
    found = []
    for number in order:
        images = judge.evalImgs[number * num_images : (number + 1) * num_images]
        some = [(place, one) for place, one in enumerate(images) if one is not None]
        scores = np.concatenate([one["dtScores"] for _, one in some] or [np.empty(0)])
        where = [np.full(len(one["dtScores"]), place) for place, one in some]
        right = [one["dtMatches"] > 0 for _, one in some]
        surest = np.argsort(-scores, kind="mergesort")
        counts = np.zeros(num_images, int)
        for place, one in some:
            counts[place] = len(one["gtIds"])
        found.append(
            ClassMatches(
                np.concatenate([*where, np.empty(0, int)]).astype(int)[surest],
                np.concatenate([*right, np.empty((len(OVERLAPS), 0), bool)], axis=1)[:, surest],
                counts,
            )
        )
    return found


def _as_coco(rows: np.ndarray, num_classes: int) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for image, place in np.argwhere(rows[..., -1] >= 0).tolist():
        row = rows[image, place].astype("float64")
        left, top, right, bottom = (row[:4] * _SIDE).tolist()
        box = [left, top, right - left, bottom - top]
        numbers = {"id": len(annotations) + 1, "image_id": image, "category_id": int(row[-1])}
        told = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0, "score": float(row[4])}
        annotations.append(numbers | told)
    return {
        "images": [{"id": number} for number in range(len(rows))],
        "annotations": annotations,
        "categories": [{"id": number} for number in range(num_classes)],
    }


def average_precisions(one: ClassMatches, counts: np.ndarray) -> np.ndarray:
    """Return the average precision of a class at each overlap, `(10,)`; NaN without objects.

    As COCO has it: the mean over 101 recalls of the highest precision from there on.

    Args:
        one: the answers.
        counts: how often each image counts, `(num_images,)`.
    """
    num_objects = counts @ one.num_objects
    if not num_objects:
        return np.full(len(OVERLAPS), np.nan)
    weights = counts[one.images]
    right = np.cumsum(weights * one.is_right, axis=1)
    precision = right / np.maximum(np.cumsum(weights), 1e-12)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.concatenate([best, np.zeros((len(OVERLAPS), 1))], axis=1)
    recall = right / num_objects
    places = [np.searchsorted(row, _RECALLS, side="left") for row in recall]
    return np.array([row[at].mean() for row, at in zip(best, places, strict=True)])
