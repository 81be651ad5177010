import keras
import numpy as np
import pytest

from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model
from kerastl.model.fully_convolutional import to_fully_convolutional


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def random_head(model, rng):
    """A head that does not start at zero."""
    for layer in model.layers:
        if layer.name == "head":
            weights = [rng.normal(0, 0.5, value.shape) for value in layer.get_weights()]
            layer.set_weights(weights)
    return model


def with_depthwise_convolutions():
    """A stride of 32 as the MobileNets come to it: explicit padding, depthwise, a residual."""
    inputs = keras.Input((96, 96, 3))
    x = keras.layers.Conv2D(8, 3, 4, padding="same", use_bias=False)(inputs)
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization()(x))
    for filters in (8, 12):
        x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
        x = keras.layers.DepthwiseConv2D(3, 2, use_bias=False)(x)
        x = keras.layers.Conv2D(filters, 1)(keras.layers.BatchNormalization()(x))
    y = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = keras.layers.Conv2D(12, 1, activation="hard_sigmoid")(y)
    x = keras.layers.Multiply()([x, y])  # squeeze and excitation
    y = keras.layers.DepthwiseConv2D(3, padding="same", activation="swish")(x)
    x = keras.layers.Add()([x, y])
    return keras.Model(inputs, keras.layers.Conv2D(16, 3, 2, padding="same")(x))


@pytest.mark.parametrize(
    "backbone",
    [
        "tiny",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("MobileNetV2(alpha=0.35)", "EfficientNetB0", "MobileNetV3Small")
        ),
    ],
)
def test_a_pooled_head_at_the_native_size(backbone, rng):
    keras.utils.set_random_seed(0)
    if backbone == "tiny":
        model = build_transfer_model(with_depthwise_convolutions(), 4)
    else:
        model = build_transfer_model(backbone, 4, weights="random", image_size=96)
    network = to_fully_convolutional(random_head(model, rng))
    images = rng.integers(0, 256, (2, 96, 96, 3)).astype("float32")
    expected = model.predict(images, verbose=0)
    found = network.predict(images, verbose=0)
    assert found.shape == (2, 1, 1, 4)
    assert np.ptp(expected) > 0.01  # the head tells something
    np.testing.assert_allclose(found[:, 0, 0], expected, atol=1e-5)
    larger = network.predict(rng.integers(0, 256, (1, 128, 192, 3)), verbose=0)
    assert larger.shape == (1, 2, 4, 4)
    np.testing.assert_allclose(larger.sum(-1), 1.0, atol=1e-5)


def without_padding(top):
    """A network whose windows see no padding: 2 valid convolutions, a stride of 4."""
    inputs = keras.Input((36, 36, 3))
    x = keras.layers.Conv2D(6, 4, strides=2, activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    for layer in top:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    "top",
    [
        lambda: [keras.layers.Flatten(), keras.layers.Dense(7, activation="relu"),
                 keras.layers.Dropout(0.5), keras.layers.Dense(3, activation="softmax")],
        lambda: [keras.layers.Flatten(), keras.layers.Dense(3, use_bias=False),
                 keras.layers.Activation("softmax")],
        lambda: [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)],
        lambda: [keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(3)],
    ],
)  # fmt: skip
def test_each_cell_is_the_answer_for_its_window(top, rng):
    keras.utils.set_random_seed(1)
    model = without_padding(top())
    network = to_fully_convolutional(model)
    image = rng.normal(size=(1, 52, 44, 3)).astype("float32")
    scores = network.predict(image, verbose=0)
    assert scores.shape == (1, 5, 3, 3)
    for row in range(5):
        for column in range(3):
            window = image[:, 4 * row : 4 * row + 36, 4 * column : 4 * column + 36]
            expected = model.predict(window, verbose=0)
            np.testing.assert_allclose(scores[:, row, column], expected, atol=1e-5)


def tiny_vgg(classes):
    """Two blocks of padded convolutions and the top of VGG16: a stride of 4, a map of 4 x 4."""
    inputs = x = keras.Input((16, 16, 3))
    for filters in (6, 8):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for name in ("fc1", "fc2"):
        x = keras.layers.Dense(12, activation="relu", name=name)(x)
    x = keras.layers.Dense(classes, activation="softmax", name="predictions")(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("name", ["tiny", pytest.param("VGG16", marks=pytest.mark.slow)])
def test_vgg_with_its_top(name, rng):
    keras.utils.set_random_seed(0)
    if name == "tiny":
        model, stride = tiny_vgg(10), 4
    else:
        model, stride = keras.applications.VGG16(weights=None, classes=10), 32
    network = to_fully_convolutional(model)
    side = model.input_shape[1]
    images = rng.normal(0, 60, (1, side, side, 3)).astype("float32")
    expected = model.predict(images, verbose=0)
    assert np.ptp(expected) > 0.01
    found = network.predict(images, verbose=0)
    np.testing.assert_allclose(found[:, 0, 0], expected, atol=1e-5)
    # VGG16 pads so often that no window of 224 is away from it; what its top makes of each part of
    # the larger map is the same.
    large = rng.normal(0, 60, (1, side + stride, side + 2 * stride, 3)).astype("float32")
    scores = network.predict(large, verbose=0)
    assert scores.shape == (1, 2, 3, 10)
    flat = network.get_layer("flatten")
    maps = keras.Model(network.inputs, flat.output).predict(large, verbose=0)
    cells, filters = side // stride, maps.shape[-1]
    part = top = keras.Input((cells, cells, filters))
    for layer in ("flatten", "fc1", "fc2", "predictions"):
        top = model.get_layer(layer)(top)
    answer = keras.Model(part, top)
    for row in range(2):
        for column in range(3):
            window = maps[:, row : row + cells, column : column + cells]
            np.testing.assert_allclose(
                scores[:, row, column], answer.predict(window, verbose=0), atol=1e-5
            )


def test_it_saves_and_has_weights_of_its_own(tmp_path, rng):
    model = without_padding([keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")])
    network = to_fully_convolutional(model)
    image = rng.normal(size=(1, 40, 40, 3)).astype("float32")
    before = network.predict(image, verbose=0)
    network.save(tmp_path / "map.keras")
    loaded = keras.models.load_model(tmp_path / "map.keras")
    np.testing.assert_allclose(loaded.predict(image, verbose=0), before, atol=1e-6)
    model.set_weights([0 * value for value in model.get_weights()])
    np.testing.assert_array_equal(network.predict(image, verbose=0), before)


def test_a_head_of_all_stages_is_refused(tiny_backbone):
    with pytest.raises(ArgumentError, match="Train the model with `--head linear`"):
        to_fully_convolutional(build_transfer_model(tiny_backbone(), 2, head="stages"))


def test_what_has_no_map_is_refused():
    inputs = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(inputs)
    normal = keras.layers.Dense(2)(keras.layers.LayerNormalization()(flat))
    with pytest.raises(ArgumentError, match="only dense layers"):
        to_fully_convolutional(keras.Model(inputs, normal))
    conv = keras.layers.Conv2D(2, 3)(inputs)
    with pytest.raises(ArgumentError, match="no flattening or pooling layer"):
        to_fully_convolutional(keras.Model(inputs, conv))
    free = keras.Input((None, None, 3))
    pooled = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(free))
    with pytest.raises(ArgumentError, match="one fixed size"):
        to_fully_convolutional(keras.Model(free, pooled))
