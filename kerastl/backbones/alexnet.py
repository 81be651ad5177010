"""AlexNet, in one column."""

import keras

from kerastl.errors import ArgumentError

MINIMUM_SIZE = 63  # below, nothing is left for the last pooling


def alexnet(
    include_top: bool = True,
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    name: str = "alexnet",
) -> keras.Model:
    """Build AlexNet with random weights; none are published for Keras.

    The variant in one column, without groups and local response normalization, of Krizhevsky,
    "One weird trick for parallelizing convolutional neural networks"
    (https://arxiv.org/abs/1404.5997), which is also torchvision's: 61,100,840 parameters with its
    top for 1000 classes at 224 pixels, 2,469,696 without. The network of 2012 (Krizhevsky,
    Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks",
    https://papers.nips.cc/paper/4824) in two columns has 60,965,224.

    Args:
        include_top: Whether to end in the three dense layers; else in the last pooling,
            `(batch, 6, 6, 256)` at 224 pixels.
        input_shape: (height, width, 3), from 63 pixels. Defaults to the paper's 224 x 224.
        classes: How many, of the top. Defaults to ImageNet's 1000.
        classifier_activation: Of the top. Defaults to softmax; `None` gives the scores.
        name: Of the model.

    Returns:
        A Functional `keras.Model` of standardised RGB images, with a stage at each pooling.

    Raises:
        ArgumentError: When the images are too small.

    Example:
        >>> alexnet(include_top=False).count_params()
        2469696
    """
    if len(input_shape) != 3 or input_shape[2] != 3 or min(input_shape[:2]) < MINIMUM_SIZE:
        raise ArgumentError(
            f"`input_shape` of AlexNet must be (height, width, 3) of at least {MINIMUM_SIZE} "
            f"pixels. Received: input_shape={input_shape!r}"
        )
    layers = keras.layers
    images = keras.Input(input_shape)
    x = layers.ZeroPadding2D(2, name="conv1_pad")(images)
    x = layers.Conv2D(64, 11, 4, activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = layers.Conv2D(192, 5, padding="same", activation="relu", name="conv2")(x)
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)
    x = layers.Conv2D(384, 3, padding="same", activation="relu", name="conv3")(x)
    x = layers.Conv2D(256, 3, padding="same", activation="relu", name="conv4")(x)
    x = layers.Conv2D(256, 3, padding="same", activation="relu", name="conv5")(x)
    x = layers.MaxPooling2D(3, 2, name="pool5")(x)
    if include_top:
        x = layers.Flatten(name="flatten")(x)
        for index in (6, 7):
            x = layers.Dropout(0.5, name=f"dropout{index}")(x)
            x = layers.Dense(4096, activation="relu", name=f"fc{index}")(x)
        x = layers.Dense(classes, activation=classifier_activation, name="predictions")(x)
    return keras.Model(images, x, name=name)
