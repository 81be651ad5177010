"""Converts a classifier of fixed size into one for images of any larger size."""

from typing import Any

import keras
import numpy as np

from kerastl.backbones.saved_model_backbone import clone_at_size
from kerastl.errors import ArgumentError
from kerastl.model.freeze import BACKBONE

_POOLS = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
_ADVICE = (
    "Use a model of `build_transfer_model` with a convolutional backbone, or one of "
    "`keras.applications` with its top, such as VGG16(include_top=True)."
)


def to_fully_convolutional(model: keras.Model) -> keras.Model:
    """Return a network that computes a map of class scores for images of any larger size.

    Dense layers become convolutions, as in Long and others (https://arxiv.org/abs/1411.4038): the
    first layer after a flattened feature map gets a kernel of the size of the map, later layers get
    1 x 1 kernels. Global pooling becomes pooling over windows of the native map size, with stride
    1.

    At the native size the map has one cell, with the output of the original model. On a larger
    image, cell (i, j) is the output of the original model for the window whose corner is at (i, j)
    times the stride of the backbone, except for padding: the original model has zeros around the
    window, this network has the image.

    Args:
        model: a model of `build_transfer_model`, or a Functional model whose last feature map is
            flattened or pooled and followed by dense layers only (VGG16 and VGG19 with their top).
            Dropout is removed.

    Returns:
        A new `keras.Model` with copied weights, not compiled, that loads without kerastl: images
        `(batch, height, width, 3)`, at least as large as the model's, each side larger by a
        multiple of the stride, to probabilities `(batch, rows, columns, num_classes)`.

    Raises:
        ArgumentError: the model has no feature map, or no fixed size.

    Example:
        >>> network = kerastl.to_fully_convolutional(model)      # of 224 x 224
        >>> network.predict(images).shape                        # of 320 x 448
        (1, 4, 8, 5)
    """
    inputs = model.inputs
    size = inputs[0].shape[1:3] if len(inputs) == 1 else (None, None)
    if None in size or len(model.inputs[0].shape) != 4:
        raise ArgumentError(
            "The model must take images of one fixed size. Received inputs of shape "
            f"{[tuple(tensor.shape) for tensor in model.inputs]}. {_ADVICE}"
        )
    below, top = _parts(model)
    pixels = keras.Input((None, None, model.inputs[0].shape[-1]), name="image")
    x = clone_at_size(below, (None, None))(pixels)
    last_map = tuple(below.outputs[0].shape[1:])
    for layer in top:
        x = _converted(layer, last_map)(x)
    network = keras.Model(pixels, x, name="fully_convolutional")
    for layer in top:
        if isinstance(layer, keras.layers.Dense):
            _give_weights(network.get_layer(layer.name), layer)
    return network


def _parts(model: keras.Model) -> tuple[keras.Model, list[Any]]:
    """Return the network from pixels to the last map, and the layers above it in their order."""
    names = [layer.name for layer in model.layers]
    if BACKBONE in names:
        if len(model.get_layer(BACKBONE).outputs) > 1:
            raise ArgumentError(
                "A head on all stages uses the standard deviation of each channel over the "
                "whole image, which a convolution cannot compute. Train the model with "
                "`--head linear` (head='linear')."
            )
        flat = [model.get_layer("pool"), *_flattened(model.get_layer("head"))]
        tensor = model.get_layer("pool").input
    else:
        first = next((i for i, one in enumerate(model.layers) if _ends_the_map(one)), None)
        if first is None:
            raise ArgumentError(f"{model.name!r} has no flattening or pooling layer. {_ADVICE}")
        flat, tensor = model.layers[first:], model.layers[first].input
    if len(tensor.shape) != 4:
        raise ArgumentError(
            "The backbone must end in a feature map (batch, rows, columns, channels). "
            f"Received shape {tuple(tensor.shape)}. {_ADVICE}"
        )
    top = [one for one in flat if not isinstance(one, keras.layers.Dropout)]
    known = (keras.layers.Dense, keras.layers.Activation)
    wrong = [one.name for one in top[1:] if not isinstance(one, known)]
    if wrong or not _ends_the_map(top[0]):
        raise ArgumentError(
            "After the last feature map, there must be a flattening or pooling layer, and "
            f"then only dense layers. Received: {[one.name for one in top]}. {_ADVICE}"
        )
    return keras.Model(model.inputs[0], tensor), top


def _flattened(head: Any) -> list[Any]:
    return list(head.layers) if isinstance(head, keras.Sequential) else [head]


def _ends_the_map(layer: Any) -> bool:
    return isinstance(layer, (*_POOLS, keras.layers.Flatten))


def _converted(layer: Any, last_map: tuple[int, int, int]) -> Any:
    """Return a layer of the top as one over maps."""
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return keras.layers.AveragePooling2D(last_map[:2], strides=1, name=layer.name)
    if isinstance(layer, keras.layers.GlobalMaxPooling2D):
        return keras.layers.MaxPooling2D(last_map[:2], strides=1, name=layer.name)
    if isinstance(layer, keras.layers.Flatten):
        return keras.layers.Identity(name=layer.name)
    if isinstance(layer, keras.layers.Activation):
        return layer.__class__.from_config(layer.get_config())
    whole = layer.kernel.shape[0] == int(np.prod(last_map)) and int(np.prod(last_map[:2])) > 1
    return keras.layers.Conv2D(
        layer.units,
        last_map[:2] if whole else 1,
        activation=layer.activation,
        use_bias=layer.use_bias,
        dtype=layer.dtype_policy,
        name=layer.name,
    )


def _give_weights(convolution: Any, dense: Any) -> None:
    kernel, *bias = dense.get_weights()
    convolution.set_weights([kernel.reshape(convolution.kernel.shape), *bias])
