"""What a detector is taught by boxes, and the boxes that its maps stand for."""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerastl.model.detector import NUM_SIDES

MOST_OBJECTS = 100  # that are answered in an image; COCO's
LEAST_SCORE = 0.02  # of an object that is answered at all
_MOST_OVERLAP = 0.5  # intersection over union of two objects of a class
_SPREAD = 0.09  # of a centre, as a share of the sides: TTFNet's 0.54 / 6
_REGION = 0.2  # the same of the cells that learn the sides
_LEAST_SPREAD = 0.3  # the same in cells
_LEAST_WEIGHT = 0.1  # of a cell that learns the sides of a box
_SIDES_COUNT = 5.0  # how much the loss of the sides counts, as TTFNet
_EPSILON = 1e-4


class Targets(NamedTuple):
    """What each cell of a map is to answer.

    Args:
        centres: how near it is to the centre of an object, 1 in the cell of the centre itself,
            `(batch, height, width, num_classes)`.
        weights: how much its sides count, `(batch, height, width)`.
        boxes: left, top, right, bottom of the object whose sides it answers,
            `(batch, height, width, 4)`.
    """

    centres: Any
    weights: Any
    boxes: Any


def targets_of(labels: Any, height: int, width: int, num_classes: int) -> Targets:
    """Return what the cells of a map are to answer.

    Bell curves around the centres, as wide as the object in each direction; where several reach,
    the sides are those of the smallest object (https://arxiv.org/abs/1909.00700).

    Args:
        labels: `(batch, most, 5)`, as `Task.has_boxes` says.
        height: of the map.
        width: of the map.
        num_classes: of the model.
    """
    left, top, right, bottom, number = (labels[..., place] for place in range(5))
    is_box = number >= 0
    across = _bells((left + right) / 2, right - left, width, _SPREAD)
    down = _bells((top + bottom) / 2, bottom - top, height, _SPREAD)
    bells = ops.where(is_box[..., None, None], down[..., :, None] * across[..., None, :], 0.0)
    # Keras' one_hot of -1 is all zeros.
    classes = ops.one_hot(ops.cast(number, "int32"), num_classes)[:, :, None, None, :]
    centres = ops.max(bells[..., None] * classes, axis=1)
    across = _bells((left + right) / 2, right - left, width, _REGION)
    down = _bells((top + bottom) / 2, bottom - top, height, _REGION)
    bells = ops.where(is_box[..., None, None], down[..., :, None] * across[..., None, :], 0.0)
    near = bells > _LEAST_WEIGHT
    area = ops.where(is_box, (right - left) * (bottom - top), 2.0)[..., None, None]
    own = ops.argmin(ops.where(near, area, 3.0), axis=1)
    is_own = ops.one_hot(own, labels.shape[1], axis=1)
    weights = ops.max(is_own * ops.where(near, bells, 0.0), axis=1)
    sides = labels[:, :, None, None, :NUM_SIDES]
    return Targets(centres, weights, ops.sum(is_own[..., None] * sides, axis=1))


def _bells(middle: Any, side: Any, cells: int, share: float) -> Any:
    """Return a bell curve over the cells of a direction, 1 in the cell of the middle."""
    places = (ops.arange(cells, dtype="float32") + 0.5) / cells
    middle = ((ops.floor(ops.clip(middle, 0.0, 0.9999) * cells) + 0.5) / cells)[..., None]
    spread = ops.maximum(share * side, _LEAST_SPREAD / cells)[..., None]
    return ops.exp(-((places - middle) ** 2) / (2 * spread**2))


def boxes_of(sides: Any) -> Any:
    """Return left, top, right, bottom of the distances `(batch, height, width, 4)` of cells."""
    height, width = sides.shape[1:3]
    x = ((ops.arange(width, dtype="float32") + 0.5) / width)[None, None, :]
    y = ((ops.arange(height, dtype="float32") + 0.5) / height)[None, :, None]
    left, top, right, bottom = (sides[..., place] for place in range(NUM_SIDES))
    return ops.stack([x - left, y - top, x + right, y + bottom], axis=-1)


def overlap(boxes: Any, others: Any) -> tuple[Any, Any]:
    """Return intersection over union of boxes `(..., 4)`, and GIoU.

    The latter falls further the further they lie apart (https://arxiv.org/abs/1902.09630).
    """
    inner = ops.minimum(boxes, others)[..., 2:] - ops.maximum(boxes, others)[..., :2]
    outer = ops.maximum(boxes, others)[..., 2:] - ops.minimum(boxes, others)[..., :2]
    shared = ops.prod(ops.maximum(inner, 0.0), axis=-1)
    areas = [ops.prod(one[..., 2:] - one[..., :2], axis=-1) for one in (boxes, others)]
    union = areas[0] + areas[1] - shared + 1e-9
    around = ops.prod(outer, axis=-1) + 1e-9
    return shared / union, shared / union - (around - union) / around


class DetectorLoss(keras.losses.Loss):  # type: ignore[misc]
    """Focal loss of the centres and GIoU of the sides, the mean over the objects of each image."""

    def __init__(self, name: str = "detector_loss", **options: Any):
        super().__init__(name=name, **options)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image, `(batch,)`."""
        height, width, outputs = y_pred.shape[1:]
        wanted = targets_of(y_true, height, width, outputs - NUM_SIDES)
        found = ops.clip(y_pred[..., :-NUM_SIDES], _EPSILON, 1 - _EPSILON)
        hits = (1 - found) ** 2 * ops.log(found)
        misses = (1 - wanted.centres) ** 4 * found**2 * ops.log(1 - found)
        focal = -ops.sum(ops.where(wanted.centres > 1 - _EPSILON, hits, misses), axis=(1, 2, 3))
        count = ops.maximum(ops.sum(ops.cast(y_true[..., 4] >= 0, "float32"), axis=1), 1.0)
        _, giou = overlap(boxes_of(y_pred[..., -NUM_SIDES:]), wanted.boxes)
        weight = ops.maximum(ops.sum(wanted.weights, axis=(1, 2)), _EPSILON)
        far = ops.sum((1 - giou) * wanted.weights, axis=(1, 2)) / weight
        return focal / count + _SIDES_COUNT * far


def box_overlap(y_true: Any, y_pred: Any) -> Any:
    """Return the mean overlap of the boxes that cells near centres answer, a number an image."""
    height, width, outputs = y_pred.shape[1:]
    wanted = targets_of(y_true, height, width, outputs - NUM_SIDES)
    iou, _ = overlap(boxes_of(y_pred[..., -NUM_SIDES:]), wanted.boxes)
    weight = ops.sum(wanted.weights, axis=(1, 2))
    return ops.sum(iou * wanted.weights, axis=(1, 2)) / ops.maximum(weight, _EPSILON)


def detect(maps: Any) -> Any:
    """Return the objects that maps stand for, the surest first.

    A cell answers an object where no cell beside it is surer; its sides are the mean of what the
    cells beside it answer, weighed by the squares of their scores, which are nearer to the truth
    than its own. Of two objects of a class that overlap by more than half the surer is kept.

    Args:
        maps: `(batch, height, width, num_classes + 4)`.

    Returns:
        float32 `(batch, MOST_OBJECTS, 6)`: left, top, right, bottom as shares of the image, the
        score, the number of the class; rows of 0 with class -1 fill up.
    """
    maps = tf.cast(maps, tf.float32)
    centres, sides = maps[..., :-NUM_SIDES], maps[..., -NUM_SIDES:]
    highest = tf.nn.max_pool2d(centres, 3, 1, "SAME")
    scores = tf.where(centres < highest, 0.0, centres)
    boxes = tf.clip_by_value(boxes_of(sides), 0.0, 1.0)
    weights = tf.reduce_max(centres, -1, keepdims=True) ** 2 + _EPSILON**4
    boxes = _beside(boxes * weights) / _beside(weights)
    left, top, right, bottom = tf.unstack(boxes, axis=-1)
    cells = tf.shape(centres)[1] * tf.shape(centres)[2]
    found = tf.image.combined_non_max_suppression(
        tf.reshape(tf.stack([top, left, bottom, right], -1), [-1, cells, 1, NUM_SIDES]),
        tf.reshape(scores, [-1, cells, centres.shape[-1]]),
        MOST_OBJECTS,
        MOST_OBJECTS,
        _MOST_OVERLAP,
        LEAST_SCORE,
    )
    boxes = tf.gather(found.nmsed_boxes, [1, 0, 3, 2], axis=-1)
    is_object = tf.sequence_mask(found.valid_detections, MOST_OBJECTS)
    number = tf.where(is_object, found.nmsed_classes, -1.0)
    return tf.concat([boxes, found.nmsed_scores[..., None], number[..., None]], axis=-1)


def _beside(maps: Any) -> Any:
    """Return the mean of each cell and those beside it."""
    return tf.nn.avg_pool2d(maps, 3, 1, "SAME")


def differences(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return how far each expected object is from its counterpart, `(n,)`; 0 of rows that fill up.

    That is the object of the same class and image that differs least in any side, or in its score;
    an object without any differs by its score.

    Args:
        got: of `detect`, `(num_images, most, 6)`.
        expected: the same.
    """
    found = []
    for mine, theirs in zip(got, expected, strict=True):
        for row in theirs[theirs[:, 5] >= 0]:
            same = mine[mine[:, 5] == row[5]]
            gaps = np.abs(same[:, :5] - row[:5]).max(1) if len(same) else np.empty(0)
            found.append(min([*gaps.tolist(), float(row[4])]))
    return np.array(found)
