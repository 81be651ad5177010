"""The shift of images against the BatchNormalization statistics of a backbone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerastl._checks import check_int
from kerastl.advice.sample import sample_of
from kerastl.backbones.graph import is_graph, read_graph
from kerastl.data.split import Split
from kerastl.frozen.prefixes import image_size_of
from kerastl.frozen.runners import tensorflow_runner
from kerastl.model.freeze import stages
from kerastl.model.heads import task_of

# The mean shift of 128 images lies within 0.005 of that of 256 (three networks, five sets), where
# photographs gave at most 0.032 and images of other kinds at least 0.167.
MAX_COMPARED = 128
NUM_HALVINGS = 4
# Every third layer gives what all give, and leaves convolutions fused with the others.
_STRIDE, _FEW_LAYERS, _MANY_LAYERS = 3, 6, 18
# A channel whose remembered variance is not far above epsilon is dead: its ratio says nothing.
_LIVE_EPSILONS = 10
# Where the contrast of the first layer is beyond these, preprocessing is wrong. Five sets of images
# in three networks, preprocessed correctly, gave 0.30 to 1.03; pixels scaled to 0-1 and then
# preprocessed, or preprocessed as for another family by a factor of 50 or more, gave at most 0.04
# or at least 13. Mistakes by a factor of 2 (0-1 taken for -1 to 1) lie within 0.12 to 2.3, and a
# swap of red and blue does not show: neither is told from images of another contrast.
LEAST_CONTRAST, MOST_CONTRAST = 0.1, 4.0


@dataclass(frozen=True)
class Reference:
    """What a BatchNormalization layer remembers of its input: `(channels,)` each, and epsilon."""

    mean: np.ndarray
    variance: np.ndarray
    epsilon: float

    @property
    def is_trained(self) -> bool:
        """Whether the statistics have moved since they were made."""
        return bool(np.any(self.mean != 0) or np.any(self.variance != 1))


@dataclass(frozen=True)
class Moments:
    """Means and mean squares over the places of each image, `(n, channels)` each."""

    mean: np.ndarray
    mean_square: np.ndarray

    def pooled(self, rows: Any = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance over the places of all images (or of `rows`), `(channels,)`."""
        mean = self.mean[rows].mean(0, dtype=np.float64)
        variance = self.mean_square[rows].mean(0, dtype=np.float64) - mean**2
        return mean, np.maximum(variance, 0)


@dataclass(frozen=True)
class LayerShift:
    """How the input of one BatchNormalization layer differs from what the layer remembers.

    Args:
        name: The layer.
        stage: Number of the stage of the backbone that it is in, from 0.
        shift: D, the median over the channels, 0 or more.
        floor: value of D expected for this number of images if nothing differed.
        contrast: Standard deviation against the one remembered, the median over the channels that
            are not dead; nan when all are.
    """

    name: str
    stage: int
    shift: float
    floor: float
    contrast: float

    @property
    def excess(self) -> float:
        """The shift above its floor, 0 or more."""
        return max(self.shift - self.floor, 0.0)


@dataclass(frozen=True)
class Shift:
    """The shift over the depth of a backbone.

    Args:
        layers: The layers looked at, from the input upwards; the first one that has statistics is
            always the first here.
        num_images: How many images were looked at.
    """

    layers: tuple[LayerShift, ...]
    num_images: int

    @property
    def overall(self) -> float:
        """The mean excess of the layers."""
        return float(np.mean([layer.excess for layer in self.layers]))

    def by_depth(self, parts: int = 3) -> tuple[float, ...]:
        """Return the mean excess of each of `parts` equal runs of layers, input first.

        With fewer layers than parts there are as many as layers.
        """
        excess = np.array([layer.excess for layer in self.layers])
        runs = np.array_split(excess, min(parts, len(excess)))
        return tuple(float(run.mean()) for run in runs)


def channel_shifts(mean: np.ndarray, variance: np.ndarray, reference: Reference) -> np.ndarray:
    """Return (m - m_s)^2 / v_s + (sqrt(v / v_s) - 1)^2 of each channel, `(channels,)`.

    Epsilon is added to each variance, as the layer does: what it cannot see does not count.
    """
    remembered = reference.variance.astype(np.float64) + reference.epsilon
    ratio = np.sqrt((variance + reference.epsilon) / remembered)
    shifts: np.ndarray = (mean - reference.mean) ** 2 / remembered + (ratio - 1) ** 2
    return shifts


def layer_shift(moments: Moments, reference: Reference) -> float:
    """Return the median of `channel_shifts`, which dead channels cannot carry away."""
    return float(np.median(channel_shifts(*moments.pooled(), reference)))


def noise_floor(
    moments: Moments, reference: Reference, *, num_halvings: int = NUM_HALVINGS, seed: int = 0
) -> float:
    """Return the shift that so few images would show if they were drawn from the source.

    The shift between two random halves, scaled to the number of images: halves of k and l images
    differ with variance s (1/k + 1/l), all n from the source with s/n. The mean over a few
    halvings.

    Args:
        moments: Those of at least 2 images.
        reference: What the layer remembers; its variance is the unit.
        num_halvings: At least 1.
        seed: Decides the halves.
    """
    n = len(moments.mean)
    half, rng = n // 2, np.random.default_rng(seed)
    unit = reference.variance.astype(np.float64) + reference.epsilon
    medians = []
    for _ in range(num_halvings):
        order = rng.permutation(n)
        (mean, variance), (other_mean, other_variance) = (
            moments.pooled(order[:half]),
            moments.pooled(order[half:]),
        )
        roots = (np.sqrt((v + reference.epsilon) / unit) for v in (variance, other_variance))
        difference = next(roots) - next(roots)
        medians.append(np.median((mean - other_mean) ** 2 / unit + difference**2))
    return float(np.mean(medians)) * half * (n - half) / n**2


def contrast(moments: Moments, reference: Reference) -> float:
    """Return the median over live channels of the standard deviation against the remembered one."""
    live = reference.variance > _LIVE_EPSILONS * reference.epsilon
    if not live.any():
        return math.nan
    _, variance = moments.pooled()
    return float(np.median(np.sqrt(variance[live] / reference.variance[live])))


def preprocessing_lint(shift: Shift) -> str | None:
    """Return what is wrong with the scale of the pixels, or None when nothing is seen to be.

    It looks at the contrast of the first BatchNormalization layer, and sees pixels that were scaled
    to 0-1 before a model that scales them itself, and modes that differ by a factor of 50 or more
    ("caffe" for "tf" or "torch"). It does not see a factor of 2 ("tf" for "torch", 0 to 1 for -1 to
    1) or swapped colours, which other images look like too.

    Args:
        shift: What `measure_shift` gave.
    """
    first = shift.layers[0]
    if math.isnan(first.contrast) or LEAST_CONTRAST <= first.contrast <= MOST_CONTRAST:
        return None
    return (
        f"The images reach {first.name!r} with {first.contrast:.2g} times the contrast of the "
        "pretraining images (all kinds of images had 0.3 to 1 in our tests). The preprocessing "
        "is probably wrong: pass raw pixels from 0 to 255, so that the model scales them once, "
        "as its pretrained weights expect."
    )


@dataclass(frozen=True)
class _Tap:
    """The tensor that a BatchNormalization layer reads, in the graph of the model around it."""

    layer: Any
    path: tuple[str, ...]
    tensor: Any

    @property
    def reference(self) -> Reference:
        mean = np.asarray(self.layer.moving_mean)
        return Reference(mean, np.asarray(self.layer.moving_variance), float(self.layer.epsilon))


def measure_shift(
    model: keras.Model,
    split: Split,
    *,
    max_images: int = MAX_COMPARED,
    batch_size: int = 32,
    seed: int = 0,
) -> Shift | None:
    """Return the shift of images against the pretraining data, or None if it is unknown.

    Each BatchNormalization layer carries the mean and variance (m_s, v_s) that its input had over
    the images of the pretraining; over the images of the split it has (m, v). Their distance
    D = (m - m_s)^2 / v_s + (sqrt(v / v_s) - 1)^2, the median over the channels, needs neither
    labels nor source images. Every third layer is looked at, of deep networks 18, the first always.

    It tells of pixels more than of meaning: photographs of cats and dogs, shrunk to 32 pixels and
    enlarged again, are as far as CIFAR-10 is. What lies in the first layers rather than the last is
    sharpness and contrast.

    Args:
        model: A model of `build_transfer_model`.
        split: `data.train`; no label has a part but in drawing the sample.
        max_images: The size of the stratified sample that is measured, at least 2.
        batch_size: Images a step.
        seed: Decides the sample and the halves of the noise floor.

    Returns:
        A `Shift`; None for fewer than two images, for a network without BatchNormalization over
        channels that are last (VGG, ConvNeXt), and where its statistics were never trained.

    Example:
        >>> shift = measure_shift(model, data.train)
        >>> shift.overall
        0.027
    """
    check_int("batch_size", batch_size, 1)
    most = check_int("max_images", max_images, 2)
    sample = sample_of(task_of(model), split, most, seed)
    taps = _chosen([tap for tap in _taps(model) if tap.reference.is_trained])
    if len(sample) < 2 or not taps:
        return None
    stage_of = {name: stage.index for stage in stages(model) for name in stage.layers}
    measured = _moments(model, taps, sample, batch_size)
    layers = []
    for tap, moments in zip(taps, measured, strict=True):
        reference = tap.reference
        layers.append(
            LayerShift(
                name=tap.path[-1],
                stage=next((stage_of[name] for name in tap.path if name in stage_of), 0),
                shift=layer_shift(moments, reference),
                floor=noise_floor(moments, reference, seed=seed),
                contrast=contrast(moments, reference),
            )
        )
    return Shift(tuple(layers), len(sample))


def _taps(model: keras.Model, path: tuple[str, ...] = ()) -> Iterator[_Tap]:
    """Yield the inputs of the BatchNormalization layers of a model and of models inside it."""
    graph = read_graph(model)
    for node in graph.nodes:
        layer, where = node.operation, (*path, node.name)
        if isinstance(layer, keras.layers.BatchNormalization):
            tensor = graph.tensor(node.inputs[0])
            if layer.axis in (-1, len(tensor.shape) - 1):
                yield _Tap(layer, where, tensor)
        elif is_graph(layer) and (inner := list(_taps(layer, where))):
            # A model made of a list of one tensor wants a list.
            single = len(layer.inputs) == 1
            given = [graph.tensor(key) for key in node.inputs]
            inputs = layer.inputs[0] if single else layer.inputs
            network = keras.Model(inputs, [tap.tensor for tap in inner])
            reached = network(given[0] if single else given)
            for tap, tensor in zip(inner, keras.tree.flatten(reached), strict=True):
                yield _Tap(tap.layer, tap.path, tensor)


def _chosen(taps: list[_Tap]) -> list[_Tap]:
    """Return the first layer and every third (of deep networks 18 in all, of shallow ones 6)."""
    stride = max(1, min(_STRIDE, len(taps) // _FEW_LAYERS), math.ceil(len(taps) / _MANY_LAYERS))
    return taps[::stride]


def _moments(
    model: keras.Model, taps: list[_Tap], split: Split, batch_size: int
) -> Iterator[Moments]:
    """Yield the moments of each tap over a split, all from one pass."""
    network = keras.Model(model.inputs[0], [_moments_of(tap.tensor) for tap in taps])
    run = tensorflow_runner(network)
    images = split.images(image_size_of(model), batch_size)
    batches = [run([batch]) for batch in images.as_numpy_iterator()]
    for outputs in zip(*batches, strict=True):
        values = np.concatenate(outputs)
        yield Moments(values[:, 0], values[:, 1])


def _moments_of(tensor: Any) -> Any:
    """Return mean and mean square over the places of each image, `(batch, 2, channels)`."""
    values = keras.ops.cast(tensor, "float32")
    places = tuple(range(1, len(tensor.shape) - 1))
    both = [values, keras.ops.square(values)]
    if places:
        both = [keras.ops.mean(each, axis=places) for each in both]
    return keras.ops.stack(both, axis=1)
