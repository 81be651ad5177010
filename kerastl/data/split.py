"""`Split`: the images and labels of one part of the data, as `tf.data`."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kerastl._checks import check_int
from kerastl._shown import Shown
from kerastl._task import DEFAULT_TASK, Task, find_task
from kerastl.data.augment import Augmentation, augment, augment_boxes, mixup
from kerastl.data.copies import sides
from kerastl.data.pixels import AS_IT_IS, FileSource, KeptSource, PixelSource
from kerastl.errors import ArgumentError

CACHE_BYTES = 2**30
"""The most memory that the decoded pixels of one split may take between epochs."""


class Split(Shown):
    """Images with their labels, in a fixed order.

    Args:
        source: Where the pixels come from.
        labels: ints `(n,)`, from 0 to `num_classes - 1`; of tasks without one class an image
            numbers `(n, num_classes)`, 0 and 1 where images have several labels.
        num_classes: how many classes (labels, targets) there are, whether they occur here or not.
        task: what the labels tell, or its name.
        groups: ints `(n,)`, equal for images that must stay on one side of a split. Default: those
            of equal pixels, and those that look alike.

    Attributes:
        task: the name of the task.
    """

    def __init__(
        self,
        source: PixelSource,
        labels: np.ndarray,
        num_classes: int,
        task: Task | str = DEFAULT_TASK,
        groups: np.ndarray | None = None,
    ):
        self._task = find_task(task) if isinstance(task, str) else task
        self.source = source
        self.labels = np.asarray(labels, np.int64 if self._task.has_one_class else np.float32)
        self.num_classes = num_classes
        self.task = self._task.name
        self._groups = groups
        self._kept: tuple[tuple[int, int], KeptSource] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def _in_short(self) -> str:
        return f"{len(self)} images, {self._task.count(self.num_classes)}"

    @property
    def paths(self) -> list[str] | None:
        """The files of the images, or None when they are no files."""
        if not isinstance(self.source, FileSource):
            return None
        return [report.path for report in self.source.reports]

    @property
    def channels(self) -> int:
        """How many channels the images have."""
        return self.source.rules.channels

    def subset(self, indices: Sequence[int] | np.ndarray) -> "Split":
        """Return the split of the images at `indices`, in that order."""
        rows = np.asarray(indices, np.int64)
        groups = None if self._groups is None else self._groups[rows]
        source = self.source.subset(rows)
        return Split(source, self.labels[rows], self.num_classes, self._task, groups)

    def groups(self) -> np.ndarray:
        """Return ints `(n,)`, equal for images that must stay on one side of a split."""
        if self._groups is None:
            looks = [one.look for one in self.source.prints()]
            self._groups = sides(self.source.contents(), looks, [""] * len(self))
        return self._groups

    def class_counts(self) -> list[int]:
        """Return how many images there are of each class (label, target)."""
        return self._task.count_images(self.labels, self.num_classes)

    def fingerprint(self) -> str:
        """Return a SHA-256 over every image and its label, whatever their order."""
        identities = zip(self.source.identities(), self.labels.tolist(), strict=True)
        digest = hashlib.sha256(str(self.num_classes).encode())
        digest.update(self._task.fingerprint.encode())
        for identity in sorted(f"{identity} {label}\n" for identity, label in identities):
            digest.update(identity.encode())
        return digest.hexdigest()

    def images(self, image_size: int | tuple[int, int], batch_size: int = 32) -> Any:
        """Return the images alone, in order.

        Args:
            image_size: Pixels of a side, or `(height, width)`.
            batch_size: Images in a batch, at least 1; the last batch has what remains.

        Returns:
            A `tf.data.Dataset` of uint8 `(batch, height, width, channels)`.
        """
        size, batch_size = both_sides(image_size), check_int("batch_size", batch_size, 1)
        kept = self._kept
        source = kept[1] if kept and kept[0] == size else self.source
        pixels = source.dataset(tf.data.Dataset.range(len(self)), size)
        counted = pixels.apply(tf.data.experimental.assert_cardinality(len(self)))
        return counted.batch(batch_size).prefetch(tf.data.AUTOTUNE)

    def batches(
        self,
        image_size: int | tuple[int, int],
        batch_size: int = 32,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epochs: int | None = None,
        start_epoch: int = 0,
        augmentation: Augmentation | None = None,
        drop_remainder: bool = False,
        one_hot: bool = False,
        cache: bool = True,
    ) -> Any:
        """Return images and labels for training or evaluation.

        By default each pass over the data set is one epoch with an order and random views of its
        own, as `fit(..., epochs=n)` wants it. With `epochs`, one pass gives that many epochs, no
        batch of which holds images of two; the order of an epoch then depends on `(seed, epoch)`
        alone and a random view on `(seed, epoch, index)` alone, so that `start_epoch` continues an
        interrupted run exactly.

        Args:
            image_size: Pixels of a side, or `(height, width)`.
            batch_size: Images in a batch, at least 1.
            shuffle: Whether each epoch has an order of its own.
            seed: Decides the orders and the random views.
            epochs: Where to end: `epochs - start_epoch` epochs in one pass. By default one epoch.
            start_epoch: The first epoch, counted from 0.
            augmentation: Random views in place of the images.
            drop_remainder: Whether to leave out the last batch of an epoch when it is short.
            one_hot: Whether labels are float32 `(batch, num_classes)`, not int64 `(batch,)`. Where
                an image has not one class they are so in any case.
            cache: Whether to decode the images once, now, and keep them in memory when they fit
                in a gigabyte; else they are decoded again in each epoch.

        Returns:
            A `tf.data.Dataset` of `(images, labels)`, the images float32
            `(batch, height, width, channels)` from 0 to 255.
        """
        size, batch_size = both_sides(image_size), check_int("batch_size", batch_size, 1)
        start_epoch = check_int("start_epoch", start_epoch, 0)
        if epochs is None:
            # One draw a pass, another one in the next pass: it stands for the epoch's number.
            numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
        else:
            epochs = check_int("epochs", epochs, start_epoch)
            numbers = tf.data.Dataset.range(start_epoch, epochs)
        view = augmentation or Augmentation()
        changes = view != Augmentation(mixup_alpha=view.mixup_alpha)
        has_one_class = self._task.has_one_class
        if view.mixup_alpha > 0 and has_one_class and not one_hot:
            raise ArgumentError(
                "Mixup mixes labels, so they must be one-hot. Received: "
                f"mixup_alpha={view.mixup_alpha}, one_hot=False. Pass `one_hot=True`."
            )
        source = self._keep(size) if cache else self.source
        labels = tf.constant(self.labels)

        def one_epoch(epoch: Any) -> Any:
            key = epoch_key(seed, epoch)

            def look(index: Any, image: Any, label: Any) -> Any:
                seed = tf.random.fold_in(key, index)
                if self._task.has_boxes:
                    label = augment_boxes(label, image.shape, view, seed)
                return index, augment(image, view, seed), label

            def finish(index: Any, images: Any, labels: Any) -> Any:
                images = tf.cast(images, tf.float32)
                if one_hot and has_one_class:
                    labels = tf.one_hot(labels, self.num_classes)
                if view.mixup_alpha > 0:
                    # The negative keeps the seed of a batch apart from those of its images.
                    batch_seed = tf.random.fold_in(key, -1 - index[0])
                    images, labels = mixup(images, labels, view.mixup_alpha, batch_seed)
                return images, labels

            order = epoch_order(len(self), key, shuffle)
            images = source.dataset(order, size)
            examples = tf.data.Dataset.zip(order, images, order.map(lambda i: labels[i]))
            if changes:
                examples = examples.map(look, num_parallel_calls=tf.data.AUTOTUNE)
            batches = examples.batch(batch_size, drop_remainder)
            return batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE)

        rounding = math.floor if drop_remainder else math.ceil
        num_epochs = 1 if epochs is None else epochs - start_epoch
        steps = rounding(len(self) / batch_size) * num_epochs
        batches = numbers.flat_map(AS_IT_IS(one_epoch))
        counted = batches.apply(tf.data.experimental.assert_cardinality(steps))
        return counted.prefetch(tf.data.AUTOTUNE)

    def _keep(self, size: tuple[int, int]) -> PixelSource | KeptSource:
        """Return the pixels at `size` from memory, or the source when they do not fit there."""
        if len(self) * size[0] * size[1] * self.channels > CACHE_BYTES:
            return self.source
        if self._kept is None or self._kept[0] != size:
            self._kept = None  # the old size makes room first
            pixels = np.empty((len(self), *size, self.channels), np.uint8)
            done = 0
            for batch in self.images(size, batch_size=64).as_numpy_iterator():
                pixels[done : done + len(batch)] = batch
                done += len(batch)
            with tf.device("CPU:0"):
                self._kept = size, KeptSource(tf.constant(pixels))
        return self._kept[1]


def epoch_key(seed: int, epoch: Any) -> Any:
    """Return the two ints on which the order of an epoch depends, and its views by `fold_in`."""
    return tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])


def epoch_order(length: int, key: Any, shuffle: bool) -> Any:
    """Return the places of the images of an epoch in their order, as a `tf.data.Dataset`."""
    indices = tf.range(length, dtype=tf.int64)
    if shuffle:
        indices = tf.random.experimental.stateless_shuffle(indices, key)
    return tf.data.Dataset.from_tensor_slices(indices)


def both_sides(image_size: Any, least: int = 1, advice: str = "") -> tuple[int, int]:
    """Return height and width of a side, or of (height, width), each an int from `least`."""
    sides = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(sides) != 2:
        raise ArgumentError(
            "`image_size` must be a side or (height, width) in pixels. Received: "
            f"image_size={image_size!r}. Remove the channels."
        )
    height, width = (check_int("image_size", side, least, advice=advice) for side in sides)
    return height, width
