"""The head that finds objects: maps of a backbone at up to three strides in, boxes a cell out.

Top-down sums as of a feature pyramid (https://arxiv.org/abs/1612.03144), then for each cell of the
finest map how probable it is that the centre of an object of each class lies there
(https://arxiv.org/abs/1904.07850), and how far away the four sides of its box are
(https://arxiv.org/abs/1904.01355).
"""

from collections.abc import Sequence
from typing import Any

import keras

from kerastl.backbones.graph import read_graph
from kerastl.backbones.stages import Cut, find_cuts
from kerastl.errors import ArgumentError

NUM_SIDES = 4
STRIDES = (8, 16)  # of the maps beside the end of the backbone, which has 32 as a rule
CHANNELS = 80
CELLS = 4.0  # the unit in which a layer tells the distance of a side
DILATIONS = (1, 2)  # of the convolutions of 3 x 3: the second looks as far as the sides of objects
_MOMENTUM = 0.9  # of statistics that follow within tens of steps
_RARE = -4.0  # the score of a centre at the start: most cells are none
_WIDEST = 1.3  # how far the stride of a map may be from the one that is looked for


def map_levels(backbone: keras.Model) -> list[Any]:
    """Return the tensors of a backbone that the head reads, the finest first.

    The deepest of those that alone are alive, at strides 8 and 16 as near as there is one; then the
    end of the backbone.

    Raises:
        ArgumentError: the backbone does not end in maps.
    """
    end = backbone.outputs[0]
    if len(end.shape) != 4 or None in end.shape[1:3]:
        raise ArgumentError(
            "To find objects, the backbone must end in maps (batch, height, width, channels) of a "
            f"known size. Received: {backbone.name!r}, which ends in {tuple(end.shape)}. Choose a "
            "convolutional backbone, or cut it at an earlier stage by `cut`."
        )
    graph, side, last = read_graph(backbone), backbone.inputs[0].shape[1], end.shape[1]
    frontiers = graph.frontiers()
    known = [cut for cut in find_cuts(backbone) if len(cut.output_shapes[0]) == 3]
    levels = []
    for stride in STRIDES:
        wanted = side / stride
        near = [cut for cut in known if _ratio(_height(cut), wanted) <= _WIDEST]
        if near and wanted > last * _WIDEST:
            best = min(_ratio(_height(cut), wanted) for cut in near)
            deepest = [cut for cut in near if _ratio(_height(cut), wanted) == best][-1]
            tensor = graph.tensor(frontiers[deepest.position][-1])
            # Beside the trunk, which could not be cut above a tensor that has to stay alive.
            levels.append(keras.layers.Rescaling(1.0, name=f"map_{stride}")(tensor))
    return [*levels, end]


def _height(cut: Cut) -> float:
    return float(cut.output_shapes[0][0] or 1)


def _ratio(one: float, other: float) -> float:
    return max(one, other) / min(one, other)


def detector_head(levels: Sequence[Any], num_classes: int) -> keras.Model:
    """Return the layers above the maps as one that is named `head`.

    Its output is float32 `(batch, height, width, num_classes + 4)`: the probability of a centre of
    each class, then the distance to the left, top, right and bottom side as shares of the image.
    """
    inputs = [keras.Input(tensor.shape[1:], dtype=tensor.dtype) for tensor in levels]
    narrow = [_normalised(each, 1) for each in inputs]
    x = narrow[-1]
    for finer in narrow[-2::-1]:
        x = _resized(keras.layers.ReLU()(x), finer.shape[1:3])
        x = keras.layers.Add()([x, finer])
    x = keras.layers.ReLU()(x)
    for dilation in DILATIONS:
        x = keras.layers.ReLU()(_normalised(x, 3, dilation))
    height, width = x.shape[1:3]
    rare = keras.initializers.Constant(_RARE)
    centres = keras.layers.Dense(
        num_classes, "sigmoid", bias_initializer=rare, dtype="float32", name="centres"
    )(x)
    sides = keras.layers.Dense(NUM_SIDES, "softplus", dtype="float32", name="sides")(x)
    unit = [CELLS / width, CELLS / height] * 2
    sides = keras.layers.Rescaling(unit, dtype="float32", name="shares")(sides)
    cells = keras.layers.Concatenate(dtype="float32")([centres, sides])
    return keras.Model(inputs, cells, name="head")


def _normalised(x: Any, size: int, dilation: int = 1) -> Any:
    how = {"padding": "same", "dilation_rate": dilation, "use_bias": False}
    x = keras.layers.Conv2D(CHANNELS, size, **how)(x)
    return keras.layers.BatchNormalization(momentum=_MOMENTUM)(x)


def _resized(x: Any, size: Sequence[int]) -> Any:
    if tuple(2 * side for side in x.shape[1:3]) == tuple(size):
        return keras.layers.UpSampling2D(interpolation="bilinear")(x)
    return keras.layers.Resizing(*size)(x)
