"""Batches of stored outputs of the frozen prefix, instead of batches of images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kerastl._task import find_task
from kerastl.data.augment import AUGMENTATIONS, augment_boxes, is_mirrored
from kerastl.data.load import ImageData
from kerastl.data.options import RGB
from kerastl.data.split import epoch_key, epoch_order
from kerastl.frozen.activations import Activations, extract_activations
from kerastl.frozen.prefixes import image_size_of, suffix_at
from kerastl.frozen.runtime import FrozenRuntime
from kerastl.frozen.views import FLIP, PLAIN, View, augmented_view
from kerastl.model.freeze import stages
from kerastl.model.recipes import Phase, Recipe


class PhaseBatches(NamedTuple):
    """What trains in a phase, sharing its layers with the model, and what it trains on.

    `train` is a `tf.data.Dataset` of all epochs, one after another, `validation` of one or None.
    """

    network: keras.Model
    train: Any
    validation: Any


def stored_views(recipe: Recipe) -> list[View] | None:
    """Return the views of each image that replace its augmentation, or None.

    A flip has two outcomes, so two views lose nothing. Of other augmentations `recipe.views` random
    views are kept, one for each epoch in turn; without that number, and with mixup, which mixes
    pixels, images have to go through the prefix in each epoch.
    """
    if recipe.mixup_alpha:
        return None
    if recipe.augmentation in ("none", "flip"):
        return [PLAIN, FLIP][: 1 + (recipe.augmentation == "flip")]
    if not recipe.views:
        return None
    return [augmented_view(recipe.augmentation, recipe.seed, k) for k in range(recipe.views)]


def stored_phase(
    model: keras.Model,
    data: ImageData,
    recipe: Recipe,
    phase: Phase,
    runtime: FrozenRuntime,
    *,
    start_epoch: int = 0,
    dtype: str = "float16",
) -> PhaseBatches | None:
    """Run the prefix of a phase once over all views, and return the suffix that trains from them.

    None where that cannot be done: nothing is frozen, the views are too many to keep, or there is
    no room for them.
    """
    views, depth = stored_views(recipe), phase.freeze_depth
    if depth == 0 or views is None:
        return None
    cut = None if depth == len(stages(model)) else depth
    train = extract_activations(model, data.train, cut, views=views, dtype=dtype, runtime=runtime)
    if train is None:
        return None
    validation = None
    if data.validation is not None and len(data.validation):
        held_out = extract_activations(model, data.validation, cut, dtype=dtype, runtime=runtime)
        if held_out is None:
            return None
        validation = stored_batches(held_out, recipe, data.num_classes)
    moved = image_size_of(model) if find_task(recipe.task).has_boxes else None
    batches = stored_batches(
        train, recipe, data.num_classes, epochs=phase.epochs, start_epoch=start_epoch,
        image_size=moved,
    )  # fmt: skip
    with model.distribute_strategy.scope():
        return PhaseBatches(suffix_at(model, depth), batches, validation)


def stored_batches(
    activations: Activations,
    recipe: Recipe,
    num_classes: int,
    *,
    epochs: int | None = None,
    start_epoch: int = 0,
    image_size: tuple[int, int] | None = None,
) -> Any:
    """Return batches of stored activations and one-hot labels.

    Order and views are those of `Split.batches` with the recipe's seed: by the seed and the epoch
    alone, the mirror image where `augment` would mirror.

    Args:
        activations: of one or more views.
        recipe: gives batch size, seed and augmentation.
        num_classes: classes.
        epochs: where the shuffled epochs end that come one after another; by default one pass in
            order.
        start_epoch: the first of them, counted from 0.
        image_size: of the images, where labels are boxes that move with the views.
    """
    count, views = len(activations.y), activations.x
    classes = activations.y.ndim == 1  # else rows of labels or numbers, as they are
    labels = tf.one_hot(activations.y, num_classes) if classes else tf.constant(activations.y)
    shapes = [array.shape[1:] for array in views[0]]

    def read(places: np.ndarray, chosen: np.ndarray) -> list[np.ndarray]:
        return [
            _rows([view[tensor] for view in views], places, chosen) for tensor in range(len(shapes))
        ]

    def move(pair: Any) -> Any:
        augmentation = AUGMENTATIONS[recipe.augmentation]
        return augment_boxes(pair[0], (*(image_size or ()), RGB), augmentation, pair[1])

    def load(places: Any, chosen: Any, seeds: Any) -> Any:
        tensors = tf.numpy_function(
            read, [places, chosen], [tf.float32] * len(shapes), stateful=False
        )
        for tensor, shape in zip(tensors, shapes, strict=True):
            tensor.set_shape((None, *shape))
        y = tf.gather(labels, places)
        if image_size is not None and epochs is not None:
            y = tf.map_fn(move, (y, seeds), fn_output_signature=y.dtype)
        return tuple(tensors) if len(tensors) > 1 else tensors[0], y

    def one_epoch(epoch: Any) -> Any:
        key = epoch_key(recipe.seed, epoch)
        order = epoch_order(count, key, shuffle=epochs is not None)
        drawn = epoch % len(views) if recipe.views else epoch  # of `augmented_view`, and of a flip
        seeds = epoch_key(recipe.seed, drawn)
        chosen = order.map(
            lambda place: (place, _view(key, place, epoch), tf.random.fold_in(seeds, place))
        )
        return chosen.batch(recipe.batch_size)

    def _view(key: Any, place: Any, epoch: Any) -> Any:
        if len(views) == 1:
            return tf.constant(0, tf.int64)
        if recipe.augmentation == "flip":
            return tf.cast(is_mirrored(tf.random.fold_in(key, place)), tf.int64)
        return epoch % len(views)

    steps = -(-count // recipe.batch_size) * ((epochs or 1) - start_epoch)
    batches = tf.data.Dataset.range(start_epoch, epochs or 1).flat_map(one_epoch)
    loaded = batches.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    counted = loaded.apply(tf.data.experimental.assert_cardinality(steps))
    return counted.prefetch(tf.data.AUTOTUNE)


def _rows(views: Sequence[np.ndarray], places: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the rows at `places`, each of the view that was chosen for it, as float32."""
    rows = np.empty((len(places), *views[0].shape[1:]), np.float32)
    for index, view in enumerate(views):
        here = chosen == index
        rows[here] = view[places[here]]
    return rows
