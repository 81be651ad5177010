"""Objects in an image: each output is a box, its class, and how sure the model is of it."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastl._label_columns import LabelColumns
from kerastl._measure import Measure, headlines
from kerastl._task import Labels, Names, Task, Tensors, Told
from kerastl.data.boxes import check_shapes
from kerastl.data.classes import check_printable, class_places, order_classes
from kerastl.data.loaded import join_names
from kerastl.data.pixels import to_show
from kerastl.errors import ArgumentError, DataError
from kerastl.model.detector import NUM_SIDES
from kerastl.results.measures import Measured
from kerastl.results.predictions import BasePredictions
from kerastl.tasks._average_precision import measure_boxes
from kerastl.tasks._boxes import (
    MOST_OBJECTS,
    DetectorLoss,
    box_overlap,
    detect,
    differences,
)
from kerastl.tasks._drawing import draw_boxes

LEAST_TOLD = 0.3  # the score of an object that `predict` tells where no number is asked for
HEAD_EPOCHS, MOST_EPOCHS, HEAD_STEPS = 10, 40, 190
_RIGHT = 0.5  # the overlap of an answer that is right
_AP = Measure("ap", "AP")
_AP50 = Measure("ap50", "AP50")
_AP75 = Measure("ap75", "AP75")


class BoxPredictions(BasePredictions):
    """Which objects a model answered: `outputs` are of `detect`."""

    @cached_property  # each row asks for it
    def losses(self) -> np.ndarray:
        """How many objects were missed or answered wrongly, by their scores, `(num_images,)`."""
        pairs = zip(self.labels, self.outputs, strict=True)
        return np.array([_mistakes(label, answer) for label, answer in pairs])

    def measures(self) -> Measured:
        """Return what `evaluate` returns."""
        return measure_boxes(self.labels, self.outputs, len(self.class_names))

    def texts(self, index: int) -> tuple[str, str]:
        """Return how many objects of each class an image has, and how many were answered."""
        answers = self.outputs[index]
        surest = answers[answers[:, 4] >= LEAST_TOLD]
        return self._counted(self.labels[index]), self._counted(surest)

    def _counted(self, rows: np.ndarray) -> str:
        numbers = rows[:, -1].astype(int)
        counts = np.bincount(numbers[numbers >= 0], minlength=len(self.class_names))
        named = zip(self.class_names, counts.tolist(), strict=True)
        return ", ".join(f"{count} {name}" for name, count in named if count) or "no object"


def _mistakes(label: np.ndarray, answer: np.ndarray) -> float:
    """Return the objects that were not found, by 1 less the best score, and the false answers."""
    truth, told = label[label[:, 4] >= 0], answer[answer[:, 5] >= 0]
    if not len(truth) or not len(told):
        return float(len(truth) + told[:, 4].sum())
    pair = truth[:, None, :4], told[None, :, :4]
    shared = np.prod(np.clip(_span(np.minimum(*pair), np.maximum(*pair)), 0, None), -1)
    union = sum(np.prod(_span(one, one), -1) for one in pair) - shared
    hits = (shared >= _RIGHT * union) & (truth[:, None, 4] == told[None, :, 5])
    best = np.where(hits, told[:, 4], 0.0).max(1)
    return float((1 - best).sum() + told[~hits.any(0), 4].sum())


def _span(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Return width and height between the right and bottom sides and the left and top ones."""
    return np.asarray(upper[..., 2:] - lower[..., :2])


class Detection(Task):
    """Any number of objects an image, each with a box and a class."""

    name = "detection"
    singular, plural = "class", "classes"
    supports = frozenset()
    has_boxes = True
    columns = LabelColumns("boxes", ("boxes",), True, lambda *_: ())

    activation = "sigmoid"  # of the centres
    loss = DetectorLoss()
    watched, watched_title = "box_overlap", "Overlap of boxes"
    takes_label_smoothing = False
    augmentation = "flip"
    batch_size = 16
    # Ten times what a classifier's open stages take: maps have to learn where things end.
    fine_tune_phase: Mapping[str, Any] = {
        "epochs": 8, "learning_rate": 2e-3, "backbone_rate": 1.0, "layer_decay": 0.7,
        "weight_decay": 0.01,
    }  # fmt: skip
    score = _AP
    head_start = "random weights"

    predictions: Callable[..., Any] = BoxPredictions
    measures = (_AP, _AP50, _AP75)
    output_measures = (_AP, _AP50, _AP75)
    output_bar = "ap"
    output_note = (
        "Average precision of COCO: the precision over all recalls, of boxes that overlap the true "
        "one by half or more (AP50), by three quarters (AP75), and the mean from 0.5 to 0.95 (AP)."
    )
    title = "objects in images"
    worst_note = "objects without a box"
    hub_pipeline, hub_tag = "object-detection", "detection"
    answers_with = "boxes, each with a class and a score"
    limit = "It knows no classes but these."

    output_name = "detections"
    served_output = "detections"
    served_names = frozenset({"boxes", "scores", "detections"})
    told_as, told_columns = "objects", ("object", "label", "score")
    told_nothing = "no object"

    def num_names(self, width: int) -> int:
        """Return the number of classes: the other outputs of a cell are the sides of a box."""
        return width - NUM_SIDES

    def describe_names(self, class_names: Sequence[str]) -> str:
        """Return how many classes there are, and their names."""
        return f"{self.count(len(class_names))} of objects ({join_names(class_names)})"

    def table_names(self, listing: Any, class_names: Names | None) -> list[str]:
        """Return the classes of boxes, in the order of the source; warn of those without any."""
        found = {box.label for entry in listing.entries for box in entry.targets}
        if class_names is not None:
            return order_classes(found, class_names)
        if unused := [name for name in listing.columns if name not in found]:
            listing.warnings.append(f"no boxes of {join_names(unused)}, which are left out")
        return [name for name in dict.fromkeys(listing.columns) if name in found]

    def table_labels(self, entries: Sequence[Any], names: Names) -> np.ndarray:
        """Return the boxes of entries, as `has_boxes` says."""
        check_shapes(entries)
        places = class_places({box.label for entry in entries for box in entry.targets}, names)
        most = max([1, *(len(entry.targets) for entry in entries)])
        rows = np.full((len(entries), most, NUM_SIDES + 1), -1, np.float32)
        for row, entry in zip(rows, entries, strict=True):
            for place, box in enumerate(entry.targets):
                row[place] = [*box[1:], places[box.label]]
        return rows

    def array_labels(
        self, labels: Labels, class_names: Names | None, own_names: Names | None = None
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        """Return the boxes of each part, and the names given or the numbers of the classes."""
        rows = {part: self._checked_rows(values, part) for part, values in labels.items()}
        num_classes = 1 + int(max(values[..., 4].max(initial=-1) for values in rows.values()))
        names = class_names if class_names is not None else own_names
        if names is None:
            return rows, [str(number) for number in range(num_classes)]
        if num_classes > len(names):
            raise DataError(
                f"`class_names` must name each class. Received {len(names)} names, and boxes of "
                f"class {num_classes - 1}. Add names."
            )
        return rows, [str(name) for name in names]

    def _checked_rows(self, values: np.ndarray, part: str) -> np.ndarray:
        received = f"Received: shape {values.shape}, dtype {values.dtype} in {part}."
        if values.ndim != 3 or values.shape[-1] != NUM_SIDES + 1 or values.dtype.kind not in "iuf":
            raise DataError(
                "With task='detection', `y` must be numbers (n, most, 5): of each box the left, "
                "top, right and bottom side as shares of the image and the number of its class; "
                f"rows of -1 fill up. {received}"
            )
        rows = values.astype(np.float32)
        boxes = rows[rows[..., 4] >= 0]
        sides, number = boxes[:, :NUM_SIDES], boxes[:, 4]
        inside = ((sides >= 0) & (sides <= 1)).all(1)
        good = inside & (sides[:, 2:] > sides[:, :2]).all(1) & (number == np.floor(number))
        if not good.all() or not np.isfinite(rows).all():
            wrong = boxes[~good].tolist()[:1]
            raise DataError(
                "Boxes must lie inside their image, from 0 to 1, and have an area, and classes "
                f"must be whole numbers. {received} Such as {wrong}. Divide pixels by the width "
                "and height of the image."
            )
        return rows

    def given_labels(self, labels: Any, num_outputs: int) -> np.ndarray:
        """Return boxes that are given beside images, of classes that the model knows."""
        rows = self._checked_rows(np.asarray(labels), "the data")
        if rows[..., 4].max(initial=-1) >= num_outputs:
            raise ArgumentError(
                f"The model knows {self.count(num_outputs)}. Received: boxes of class "
                f"{int(rows[..., 4].max())}. Give boxes of its classes."
            )
        return rows

    def check_labels(self, labels: Labels, names: Names, *, are_named: bool) -> list[str]:
        """Raise unless there is a box to learn from; warn of classes that a part has none of."""
        check_printable(names)
        if not (labels["train"][..., 4] >= 0).any():
            raise DataError("No image to train on has a box. Add images that have some.")
        counts = {part: self.count_images(rows, len(names)) for part, rows in labels.items()}
        return [
            f"no object of {join_names(absent)} in {part}"
            for part, of_each in counts.items()
            if (absent := [n for n, count in zip(names, of_each, strict=True) if not count])
        ]

    def stratification_groups(self, labels: np.ndarray) -> np.ndarray:
        """Return the rarest class in an image, so that it is in each part; -1 without objects."""
        has = _classes_in(labels, 1 + int(labels[..., 4].max(initial=0)))
        rarity = np.where(has, has.sum(0), np.inf)
        return np.where(has.any(1), rarity.argmin(1), -1)

    def images_of(self, labels: np.ndarray, output: int) -> np.ndarray:
        """Return the images that have an object of a class."""
        return np.flatnonzero((labels[..., 4] == output).any(1))

    def count_images(self, labels: np.ndarray, num_outputs: int) -> list[int]:
        """Return how many images have an object of each class."""
        found: list[int] = _classes_in(labels, num_outputs).sum(0).tolist()
        return found

    def phase_loss(self, label_smoothing: float) -> keras.losses.Loss:
        """Return the loss of centres and sides."""
        return DetectorLoss()

    def head_phase(self, num_images: int, batch_size: int) -> Mapping[str, Any]:
        """Return what trains the head: 10 epochs, or about 190 steps of fewer images.

        More of them learn the training images by heart (300 scenes, 14 and 21 epochs: AP50 0.92 and
        0.89).
        """
        steps = -(-num_images // batch_size)
        epochs = max(HEAD_EPOCHS, min(MOST_EPOCHS, round(HEAD_STEPS / steps)))
        rates = {"learning_rate": 4e-3, "weight_decay": 0.01, "clipnorm": 10.0}
        return {"epochs": epochs, **rates}

    def compiled_metrics(self, num_outputs: int) -> list[Any]:
        """Return the overlap of the boxes that cells near centres answer."""
        return self.phase_metrics()

    def phase_metrics(self) -> list[Any]:
        """Return the same."""
        return [box_overlap]

    def keep_criterion(
        self, predict: Callable[[], tuple[np.ndarray, np.ndarray]]
    ) -> dict[str, Any]:
        """Go by the loss of the validation images, which must fall by a standard error."""
        labels, maps = predict()
        losses = np.asarray(DetectorLoss(reduction=None)(labels, maps), "float64")
        least = float(losses.std() / len(losses) ** 0.5 - losses.mean())
        return {"score": lambda logs: -float(logs["val_loss"]), "least": least}

    def answers(self, outputs: Any) -> np.ndarray:
        """Return the objects that maps stand for."""
        return np.asarray(detect(outputs))

    def in_pixels(self, answers: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Return answers whose sides are in pixels."""
        scale = np.ones((len(answers), 1, answers.shape[-1]), np.float32)
        scale[:, 0, :NUM_SIDES] = sizes[:, [1, 0, 1, 0]]
        return answers * scale

    def drawn(
        self, pixels: np.ndarray, names: Names, labels: np.ndarray, answers: Any = None
    ) -> np.ndarray:
        """Return a picture with boxes, of the answers those that `predict` tells."""
        if answers is not None:
            answers = answers[answers[:, 4] >= LEAST_TOLD]
        return draw_boxes(to_show(pixels), names, labels, answers)

    def measure_columns(self) -> list[str]:
        """Return the titles of `measure_cells`."""
        return ["AP", "95 % interval", "AP50", "AP75", "images"]

    def measure_cells(self, measures: Mapping[str, Any]) -> list[str]:
        """Return AP, its interval, the others, and how many images there are."""
        first, *others = headlines(measures, self.measures, percent=False)
        values = [one.value for one in others]
        return [first.value, first.interval, *values, f"{measures['num_images']:,}"]

    def what_it_does(self, class_names: Sequence[str], *, names_them: bool = False) -> str:
        """Return what a model does, as the rest of a sentence."""
        return f"finds objects of {len(class_names)} classes in an image"

    def describe_outputs(self, outputs: np.ndarray, names: Names, top: int | None) -> list[Told]:
        """Return the objects of a score of 0.3 or more, or as many of the surest as asked for."""
        kept = outputs[outputs[:, 5] >= 0]
        kept = kept[:top] if top is not None else kept[kept[:, 4] >= LEAST_TOLD]
        return [
            {"label": names[int(row[5])], "score": float(row[4]), "box": row[:4].tolist()}
            for row in kept
        ]

    def serve(self, outputs: Any, class_names: list[str]) -> Tensors:
        """Return boxes as shares of the image, scores, and the classes by number and name."""
        found = detect(outputs)
        number = tf.cast(found[..., 5], tf.int64)
        names = tf.constant(["", *class_names])
        return {
            "detections": found,
            "boxes": found[..., :NUM_SIDES],
            "scores": found[..., 4],
            "class_id": number,
            "label": tf.gather(names, number + 1),
        }

    def in_served_pixels(self, tensors: Tensors, sizes: Any) -> Tensors:
        """Return `boxes` in pixels of the image."""
        scale = tf.cast(tf.gather(sizes, [1, 0, 1, 0], axis=1), tf.float32)
        return {**tensors, "boxes": tensors["boxes"] * scale[:, None]}

    def told_answers(self, served: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the detections with boxes in pixels."""
        return np.concatenate([served["boxes"], served["detections"][..., NUM_SIDES:]], axis=-1)

    def difference(self, got: np.ndarray, expected: np.ndarray) -> float:
        """Return the largest difference of an object's side or score."""
        shape = (-1, MOST_OBJECTS, NUM_SIDES + 2)
        both = [differences(a.reshape(shape), b.reshape(shape)) for a, b in
                ((got, expected), (expected, got))]  # fmt: skip
        return float(max([0.0, *np.concatenate(both).tolist()]))

    def agreement(self, got: np.ndarray, expected: np.ndarray) -> None:
        """Return None: objects are compared by `difference`."""

    def share_right(self, outputs: np.ndarray, labels: np.ndarray) -> None:
        """Return None: an image has no one answer."""


def _classes_in(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return which classes images `(n, most, 5)` have, bools `(n, num_classes)`."""
    return np.asarray((labels[:, :, 4, None] == np.arange(num_classes)).any(1))


TASK = Detection()
