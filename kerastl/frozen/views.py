"""Views of images in a store, each with a name that defines it completely."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from kerastl._checks import check_choice, check_int
from kerastl.data.augment import AUGMENTATIONS, augment
from kerastl.errors import ArgumentError


class View(NamedTuple):
    """A view of images.

    Args:
        id: Enters the key of what is stored; equal ids give equal pixels.
        apply: From uint8 images `(batch, height, width, 3)` and their int64 places in the split
            `(batch,)` to images of the same shape.
    """

    id: str
    apply: Callable[[Any, Any], Any]


PLAIN = View("plain", lambda images, places: images)
FLIP = View("flip", lambda images, places: images[:, :, ::-1])


def augmented_view(augmentation: str, seed: int, epoch: int) -> View:
    """Return the random view that `Split.batches` gives of each image in an epoch.

    Args:
        augmentation: A name of `AUGMENTATIONS`, `"light"` for one.
        seed: As given to `batches`.
        epoch: Counted from 0.
    """
    check_choice("augmentation", augmentation, AUGMENTATIONS)
    key = tf.constant([check_int("seed", seed, 0), check_int("epoch", epoch, 0)], tf.int64)
    chosen = AUGMENTATIONS[augmentation]

    def apply(images: Any, places: Any) -> Any:
        def look(pair: Any) -> Any:
            return augment(pair[0], chosen, tf.random.fold_in(key, pair[1]))

        views = tf.map_fn(look, (images, places), fn_output_signature=tf.float32)
        return tf.ensure_shape(views, images.shape)

    return View(f"{augmentation}:{seed}:{epoch}:{chosen!r}", apply)


def resolve_view(view: "View | str") -> View:
    """Return the view that `"plain"`, `"flip"` or `"light:SEED:EPOCH"` names."""
    if isinstance(view, View):
        return view
    named = {"plain": PLAIN, "flip": FLIP}
    if view in named:
        return named[view]
    try:
        augmentation, seed, epoch = view.split(":")
        return augmented_view(augmentation, int(seed), int(epoch))
    except (AttributeError, ValueError) as error:
        names = ", ".join(repr(name) for name in AUGMENTATIONS)
        raise ArgumentError(
            "A view must be 'plain', 'flip', 'AUGMENTATION:SEED:EPOCH' or a `View`. Received: "
            f"{view!r}. AUGMENTATION is one of {names}, as in 'light:0:3'."
        ) from error
