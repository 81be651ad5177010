"""Random views of an image, in the input pipeline only.

Each view is a function of the image and a seed, so the same seed, epoch and index give the same
view again. Pixels are on the 0-255 scale before and after.
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Augmentation:
    """How much a random view may differ from its image.

    Args:
        flip: Whether to mirror left and right, every second time.
        min_crop_area: Least share of the area that a crop keeps, above 0 and at most 1;
            1 does not crop.
        brightness: Most that is added or taken away, as a share of 255.
        contrast: Most that contrast is raised or lowered, as a share.
        saturation: Most that saturation is raised or lowered, as a share.
        mixup_alpha: Parameter of the Beta distribution that mixes two images of a batch
            (`mixup`); 0 does not mix.
    """

    flip: bool = False
    min_crop_area: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    mixup_alpha: float = 0.0


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(),
    # Two views hold all of it, so a frozen prefix still runs once.
    "flip": Augmentation(flip=True),
    # A mirror image, as in the Keras transfer-learning guide, and a gentle crop in place of its
    # rotation, which would leave corners to invent.
    "light": Augmentation(flip=True, min_crop_area=0.8),
    # Half way: crops of half the area and up, and half the jitter of "strong".
    "medium": Augmentation(
        flip=True, min_crop_area=0.5, brightness=0.2, contrast=0.2, saturation=0.2
    ),
    # The jitter of 0.4 that fb.resnet.torch trained ResNets with, and crops that stay well above
    # the 0.08 of Inception (Szegedy et al., 2015), which is for a million images.
    "strong": Augmentation(
        flip=True, min_crop_area=0.35, brightness=0.4, contrast=0.4, saturation=0.4
    ),
}
"""The augmentations that a recipe can name."""

_LEAST_IN_VIEW = 0.4  # of a box
_ASPECTS = (3 / 4, 4 / 3)  # of crops, as in Inception's (Szegedy et al., 2015)


def augment(image: Any, augmentation: Augmentation, seed: Any) -> Any:
    """Return one random view of an image.

    Args:
        image: uint8 or float tensor `(height, width, 3)`, pixels 0 to 255.
        augmentation: How far to go.
        seed: Two ints `(2,)`; equal seeds give equal views.

    Returns:
        float32 tensor of the same shape, pixels 0 to 255.
    """
    image = tf.cast(image, tf.float32)
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 6))
    if augmentation.min_crop_area < 1:
        image = _crop(image, augmentation.min_crop_area, seeds[0])
    if augmentation.flip:
        image = tf.image.stateless_random_flip_left_right(image, seeds[2])
    return _jitter(image, augmentation, seeds[3:])


def augment_boxes(boxes: Any, shape: Any, augmentation: Augmentation, seed: Any) -> Any:
    """Return the boxes of the view that `augment` gives of their image with the same seed.

    Args:
        boxes: float32 tensor `(most, 5)`: left, top, right and bottom as shares of the image, and
            the number of the class; rows of -1 are none.
        shape: height, width and channels of the image.
        augmentation: As `augment` has it.
        seed: Likewise.

    Returns:
        A tensor of the same shape. A box of which less than 40 % is in the view is none.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 6))
    sides, number = boxes[:, :4], boxes[:, 4:]
    if augmentation.min_crop_area < 1:
        whole = tf.constant(list(shape))
        window = _crop_window(whole, augmentation.min_crop_area, seeds[0])
        whole, corner, size = (
            tf.cast(tf.gather(one, [1, 0, 1, 0]), tf.float32) for one in (whole, *window)
        )
        moved = (sides * whole - corner) / size
        sides = tf.clip_by_value(moved, 0.0, 1.0)
        areas = [tf.reduce_prod(one[:, 2:] - one[:, :2], 1) for one in (sides, moved)]
        gone = areas[0] < _LEAST_IN_VIEW * areas[1]
        number = tf.where(gone[:, None], -1.0, number)
    if augmentation.flip:
        turned = tf.gather(sides, [2, 1, 0, 3], axis=1) * [-1.0, 1, -1, 1] + [1.0, 0, 1, 0]
        sides = tf.where(is_mirrored(seed), turned, sides)
    return tf.where(number < 0, -1.0, tf.concat([sides, number], 1))


def augmented_batches(batches: Any, augmentation: Augmentation, seed: int) -> Any:
    """Return batches of `(images, ...)` with random views of the images, other ones in each pass.

    For batches that are not of `Split.batches`, whose views depend on epoch and index alone.

    Args:
        batches: `tf.data.Dataset` of tuples, the images `(batch, height, width, 3)` first.
        augmentation: How far to go; it does not mix images.
        seed: Int.
    """
    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)

    def views(batch: Any, pair: Any) -> Any:
        images, *rest = batch
        keys = tf.random.experimental.stateless_split(pair, tf.shape(images)[0])
        shape = tf.TensorSpec(images.shape[1:], tf.float32)
        viewed = tf.map_fn(
            lambda one: augment(one[0], augmentation, one[1]), (images, keys),
            fn_output_signature=shape,
        )  # fmt: skip
        return viewed, *rest

    zipped = tf.data.Dataset.zip((batches, seeds))
    return zipped.map(views, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def is_mirrored(seed: Any) -> Any:
    """Return whether `augment` mirrors with this seed when it flips: a bool tensor."""
    pair = tf.constant([[[0.0], [1.0]]])
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 6))
    return tf.image.stateless_random_flip_left_right(pair, seeds[2])[0, 0, 0] > 0


def mixup(images: Any, labels: Any, alpha: float, seed: Any) -> tuple[Any, Any]:
    """Mix each image of a batch and its label with another image and label.

    Args:
        images: float32 tensor `(batch, height, width, 3)`.
        labels: float32 tensor `(batch, num_classes)`, one-hot.
        alpha: Parameter of the symmetric Beta distribution of the share, above 0
            ([Zhang et al., 2018](https://arxiv.org/abs/1710.09412) take 0.1 to 0.4).
        seed: Two ints `(2,)`.

    Returns:
        The mixed images and labels. The larger share is the image's own.
    """
    first, second, third = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
    batch = tf.shape(images)[0]
    gammas = [tf.random.stateless_gamma([batch], key, alpha) for key in (first, second)]
    share = gammas[0] / tf.maximum(gammas[0] + gammas[1], 1e-30)
    share = tf.maximum(share, 1 - share)
    others = tf.random.experimental.stateless_shuffle(tf.range(batch), third)
    return _blend(images, others, share[:, None, None, None]), _blend(
        labels, others, share[:, None]
    )


def _blend(values: Any, others: Any, share: Any) -> Any:
    return share * values + (1 - share) * tf.gather(values, others)


def _crop(image: Any, min_area: float, seed: Any) -> Any:
    shape = tf.shape(image)
    start, size = _crop_window(shape, min_area, seed)
    view = tf.image.resize(tf.slice(image, start, size), shape[:2], method="bilinear")
    return tf.ensure_shape(view, image.shape)


def _crop_window(shape: Any, min_area: float, seed: Any) -> tuple[Any, Any]:
    start, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.zeros([1, 0, 4]),
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=_ASPECTS,
        area_range=(min_area, 1.0),
        use_image_if_no_bounding_boxes=True,
    )
    return start, size


def _jitter(image: Any, augmentation: Augmentation, seeds: Any) -> Any:
    """Change the colours, in the order brightness, contrast, saturation."""
    if augmentation.brightness > 0:
        image = tf.image.stateless_random_brightness(image, 255 * augmentation.brightness, seeds[0])
    if augmentation.contrast > 0:
        low, high = 1 - augmentation.contrast, 1 + augmentation.contrast
        image = tf.image.stateless_random_contrast(image, low, high, seeds[1])
    image = tf.clip_by_value(image, 0.0, 255.0)
    if augmentation.saturation > 0 and image.shape[-1] == 3:  # other channels are no colours
        low, high = 1 - augmentation.saturation, 1 + augmentation.saturation
        image = tf.image.stateless_random_saturation(image, low, high, seeds[2])
    return tf.clip_by_value(image, 0.0, 255.0)
