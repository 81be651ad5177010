"""Shows which parts of an image support a prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib import colormaps

from kerastl._checks import check_choice, check_tensorflow, did_you_mean
from kerastl._shown import Shown
from kerastl._task import check_supports
from kerastl._typed import typed
from kerastl.backbones.stages import Stage, find_stages, split
from kerastl.data.pixels import to_show
from kerastl.distribute import on_one_device
from kerastl.errors import ArgumentError
from kerastl.frozen.prefixes import image_size_of
from kerastl.model.freeze import backbone_of
from kerastl.model.heads import task_of

METHODS = ("auto", "grad_cam", "occlusion")
COLORS = "inferno"  # told apart by its lightness alone
OPACITY = 0.65
GRID = 8  # patches of two cells of a grid of 8 x 8 hide an image bit by bit
_LARGEST_BATCH = 32


@typed
@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Shown):
    """Heat maps of the image parts that support a class (label, target).

    Args:
        heat: float32 `(num_images, height, width)`, 0 to 1, each image scaled to its maximum; all 0
            if nothing supports the class.
        class_ids: the class of each heat map, ints `(num_images,)`.
        probabilities: `(num_images, num_classes)`; for regression the values.
        method: `"grad_cam"` or `"occlusion"`.
        stage: name of the stage that Grad-CAM used; None for occlusion.
    """

    heat: np.ndarray
    class_ids: np.ndarray
    probabilities: np.ndarray
    method: str
    stage: str | None

    def _in_short(self) -> str:
        where = f" at the end of stage {self.stage!r}" if self.stage else ""
        return f"{len(self.heat)} images, {self.method}{where}"


def explain(
    model: keras.Model,
    images: Any,
    *,
    class_ids: Sequence[int] | np.ndarray | None = None,
    method: str = "auto",
    stage: str | int | None = None,
) -> Explanation:
    """Show which parts of each image support a class or label, or increase a target.

    Grad-CAM (https://arxiv.org/abs/1610.02391) weights the channels of a feature map at the end of
    a stage by the gradient of the score. Occlusion (https://arxiv.org/abs/1311.2901) covers one
    patch of the image after another with the mean colour, and measures how much the log-odds of the
    class (or the value of the target) fall. It works without a feature map and costs 49 forward
    passes.

    Args:
        model: a model of `build_transfer_model`.
        images: raw pixels 0-255 `(num_images, height, width, 3)` with the input size of the model.
        class_ids: one output of the model per image, ints from 0. Default: the most probable class
            or label; the first target.
        method: `"grad_cam"`, `"occlusion"`, or `"auto"`: Grad-CAM if there is a feature map of at
            least 2 x 2, otherwise occlusion.
        stage: for Grad-CAM: a stage by its name or index from 0 (`kerastl.stages(model)`); earlier
            stages show finer but less meaningful details. Default: the last stage with a feature
            map.

    Returns:
        An `Explanation`; `overlay(images, explanation.heat)` draws it on the images.

    Raises:
        ArgumentError: the images do not match the model, the class or stage does not exist, or the
            stage has no feature map.

    Example:
        >>> images = next(iter(data.test.images((224, 224)))).numpy()
        >>> found = kerastl.explain(model, images)
        >>> kerastl.overlay(images, found.heat).shape
        (32, 224, 224, 3)
    """
    check_tensorflow("`explain`")
    check_supports(task_of(model).name, "explain")
    check_choice("method", method, METHODS)
    pixels = _checked_images(model, images)
    chosen = _checked_classes(class_ids, len(pixels), model.output_shape[-1])
    at = None if method == "occlusion" else _stage_of(model, stage)
    if at is None and (method == "grad_cam" or stage is not None):
        chain = find_stages(backbone_of(model))
        ends = ", ".join(str(shape) for one in chain for shape in one.output_shapes)
        raise ArgumentError(
            "Grad-CAM needs a stage that ends in one map of at least 2 x 2 cells. Received "
            f"stage={stage!r} of a backbone whose stages end in {ends}. Use "
            "method='occlusion', which does not need a feature map."
        )
    if at is None:
        probabilities = _probabilities(model, pixels)
        chosen = _answered(model, probabilities) if chosen is None else chosen
        heat = [
            _occlusion(model, image, class_id)
            for image, class_id in zip(pixels, chosen, strict=True)
        ]
        return Explanation(np.stack(heat), chosen, probabilities, "occlusion", None)
    network = _Halves(model, at)
    starts = range(0, len(pixels), _LARGEST_BATCH)
    parts = [slice(start, start + _LARGEST_BATCH) for start in starts]
    found = [network.grad_cam(pixels[p], None if chosen is None else chosen[p]) for p in parts]
    maps, ids, probabilities = (np.concatenate(each) for each in zip(*found, strict=True))
    return Explanation(maps, ids, probabilities, "grad_cam", at.name)


def overlay(images: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return images with heat maps drawn over them; hotter areas are more opaque.

    Args:
        images: pixels 0-255 `(num_images, height, width, 3)`.
        heat: 0 to 1, `(num_images, height, width)`.

    Returns:
        uint8 `(num_images, height, width, 3)`.

    Raises:
        ArgumentError: there must be one heat map per image, of the same size.
    """
    if np.ndim(images) != 4 or np.shape(heat) != np.shape(images)[:3]:
        raise ArgumentError(
            "`heat` must be (num_images, height, width) for images (num_images, height, "
            f"width, 3). Received: heat of {np.shape(heat)}, images of {np.shape(images)}. "
            "Use `kerastl.explain(model, images).heat`."
        )
    colors = colormaps[COLORS](heat)[..., :3] * 255
    opacity = OPACITY * heat[..., None]
    mixed = (1 - opacity) * to_show(np.asarray(images, "float32")) + opacity * colors
    return np.rint(np.clip(mixed, 0, 255)).astype("uint8")


def _probabilities(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    alone = on_one_device(model)
    return np.asarray(alone.predict(pixels, batch_size=_LARGEST_BATCH, verbose=0))


def _answered(model: keras.Model, outputs: np.ndarray) -> np.ndarray:
    """Return the output that is explained of each image where none is named."""
    if task_of(model).has_probabilities:
        return np.asarray(outputs.argmax(1))
    return np.zeros(len(outputs), int)


def _checked_images(model: keras.Model, images: Any) -> np.ndarray:
    expected = (*image_size_of(model), model.inputs[0].shape[-1])
    try:
        pixels = np.asarray(images, "float32")
    except (TypeError, ValueError) as error:  # a path, a split
        raise ArgumentError(
            f"`images` must be pixels. Received: {images!r}. `load_data` reads files; of a split "
            f"give {_first_batch(expected)}."
        ) from error
    if pixels.ndim != 4 or pixels.shape[1:] != expected or not len(pixels):
        raise ArgumentError(
            f"`images` must be pixels of shape (num_images, {', '.join(map(str, expected))}). "
            f"Received shape {pixels.shape}. Of a split give {_first_batch(expected)}."
        )
    return pixels


def _first_batch(shape: tuple[int, int, int]) -> str:
    return f"`next(iter(split.images({shape[:2]}))).numpy()`"


def _checked_classes(class_ids: Any, num_images: int, num_classes: int) -> np.ndarray | None:
    if class_ids is None:
        return None
    chosen = np.asarray(class_ids)
    fits = chosen.shape == (num_images,) and np.issubdtype(chosen.dtype, np.integer)
    if not fits or chosen.min() < 0 or chosen.max() >= num_classes:
        raise ArgumentError(
            f"`class_ids` must be {num_images} ints from 0 to {num_classes - 1}, one per "
            f"image. Received: {class_ids!r}"
        )
    return chosen


def _stage_of(model: keras.Model, wanted: str | int | None) -> Stage | None:
    """Return the stage asked for if it ends in a map, else None; by default the last that does."""
    chain = find_stages(backbone_of(model))
    if wanted is None:
        return next((stage for stage in reversed(chain) if _is_map(stage)), None)
    by_name = {stage.name: stage for stage in chain} | {stage.index: stage for stage in chain}
    if wanted not in by_name:
        names = [stage.name for stage in chain]
        raise ArgumentError(
            f"`stage` must be one of {', '.join(names)}, or its number from 0. Received: "
            f"stage={wanted!r}.{did_you_mean(wanted, names)}"
        )
    return by_name[wanted] if _is_map(by_name[wanted]) else None


def _is_map(stage: Stage) -> bool:
    shapes = stage.output_shapes
    return len(shapes) == 1 and len(shapes[0]) == 3 and min(side or 2 for side in shapes[0][:2]) > 1


class _Halves:
    """A model split at the end of a stage: pixels to the map there, the map to class scores.

    `model.get_layer(...).output` of a nested backbone belongs to another graph than the model's
    input, so that no `keras.Model` can be made of the two; the halves are called one by one.
    """

    def __init__(self, model: keras.Model, stage: Stage):
        self.model, self.size = model, image_size_of(model)
        names = {layer.name for layer in model.layers}
        if not {"preprocess", "backbone", "pool", "head"} <= names:
            raise ArgumentError(
                "The model must have the layers preprocess, backbone, pool and head, like "
                f"the models of `build_transfer_model`. Received: {sorted(names)}. Build it "
                "with `build_transfer_model`, or use method='occlusion'."
            )
        self.preprocess, self.pool = model.get_layer("preprocess"), model.get_layer("pool")
        self.prefix, self.suffix = split(backbone_of(model), stage)
        head: Any = model.get_layer("head")
        layers: list[Any] = head.layers if isinstance(head, keras.Sequential) else [head]
        self.below, self.last = layers[:-1], layers[-1]
        if not isinstance(self.last, keras.layers.Dense):
            raise ArgumentError(
                f"The head must end in a dense layer. Received: {self.last!r}. Use "
                "method='occlusion'."
            )

    def grad_cam(
        self, images: np.ndarray, class_ids: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return heat maps, the classes that they are about, and the probabilities, in one pass.

        A map `(height, width)` is scaled to its highest value. Default of the classes: the most
        probable ones.
        """
        features = self.prefix(self.preprocess(images), training=False)
        with tf.GradientTape() as tape:
            tape.watch(features)
            scores = self._scores(features)
            if class_ids is None:
                class_ids = _answered(self.model, scores.numpy())
            chosen = tf.reduce_sum(tf.gather(scores, class_ids[:, None], batch_dims=1))
        # Under a head of all stages, earlier ones pass beside the map.
        features = keras.tree.flatten(features)[-1]
        gradients = tf.cast(tape.gradient(chosen, features), tf.float32)
        weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
        heat = tf.nn.relu(tf.reduce_sum(weights * tf.cast(features, tf.float32), -1, keepdims=True))
        probabilities = np.asarray(self.last.activation(scores), "float32")
        return _scaled(tf.image.resize(heat, self.size)[..., 0].numpy()), class_ids, probabilities

    def _scores(self, features: Any) -> Any:
        """Return what the softmax is taken of: a saturated one has no gradient left.

        In float32, whatever the policy.
        """
        x = self.pool(self.suffix(features, training=False))
        for layer in self.below:
            x = layer(x, training=False)
        scores = tf.matmul(tf.cast(x, tf.float32), tf.cast(self.last.kernel, tf.float32))
        return scores if self.last.bias is None else scores + tf.cast(self.last.bias, tf.float32)


def _scaled(heat: np.ndarray) -> np.ndarray:
    highest = heat.max(axis=(1, 2), keepdims=True)
    return np.divide(heat, highest, out=np.zeros_like(heat), where=highest > 0)


def _occlusion(model: keras.Model, image: np.ndarray, class_id: int) -> np.ndarray:
    """Return the mean loss of the class' evidence over the patches that hid each pixel."""
    rows, columns = (np.linspace(0, side, GRID + 1).astype(int) for side in image.shape[:2])
    places = [
        (slice(rows[i], rows[i + 2]), slice(columns[j], columns[j + 2]))
        for i in range(GRID - 1)
        for j in range(GRID - 1)
    ]
    hidden = np.repeat(image[None], len(places) + 1, axis=0)
    for copy, place in zip(hidden, places, strict=False):  # the last copy stays whole
        copy[place] = image.mean((0, 1))
    evidence = _probabilities(model, hidden)[:, class_id].astype("float64")
    if task_of(model).has_probabilities:  # which saturate
        evidence = np.clip(evidence, 1e-7, 1 - 1e-7)
        evidence = np.log(evidence / (1 - evidence))
    lost, times = np.zeros(image.shape[:2], "float32"), np.zeros(image.shape[:2], "float32")
    for place, after in zip(places, evidence, strict=False):
        lost[place] += evidence[-1] - after
        times[place] += 1
    return _scaled(np.maximum(lost / np.maximum(times, 1), 0)[None])[0]
