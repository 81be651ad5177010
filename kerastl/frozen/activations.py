"""What the frozen part of a model makes of images: pooled embeddings."""

from typing import Any, NamedTuple

import keras
import numpy as np

from kerastl.data.split import Split


class Embeddings(NamedTuple):
    """Embeddings `x`, float32 `(num_examples, dim)`, and labels `y`, int64 `(num_examples,)`."""

    x: np.ndarray
    y: np.ndarray


def image_size_of(model: keras.Model) -> tuple[int, int]:
    """Return the height and width that a model of `build_transfer_model` takes."""
    height, width = model.inputs[0].shape[1:3]
    return int(height), int(width)


def extract_embeddings(
    model: keras.Model, split: Split, *, batch_size: int = 32, flipped: bool = False
) -> Embeddings:
    """Run preprocessing, backbone and pooling once over a split, in inference mode.

    Args:
        model: a model of `build_transfer_model`.
        split: `data.train`, `data.validation` or `data.test`.
        batch_size: images a step.
        flipped: add a mirrored view of each image behind all the unmirrored ones.

    Returns:
        `Embeddings(x, y)` in the order of the split.
    """
    to_embedding = keras.Model(model.input, _pooled(model))
    images = split.images(image_size_of(model), batch_size=batch_size)
    x = _predict(to_embedding, images)
    if not flipped:
        return Embeddings(x, split.labels)
    mirrored = _predict(to_embedding, images.map(lambda batch: batch[:, :, ::-1]))
    return Embeddings(np.concatenate([x, mirrored]), np.concatenate([split.labels] * 2))


def _pooled(model: keras.Model) -> Any:
    return model.get_layer("head").input


def _predict(model: keras.Model, images: Any) -> np.ndarray:
    return np.concatenate([np.asarray(model.predict_on_batch(batch)) for batch in images])
