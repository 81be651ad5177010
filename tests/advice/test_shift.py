import math

import keras
import numpy as np
import pytest

from kerastl.advice.shift import (
    LayerShift,
    Moments,
    Reference,
    Shift,
    _chosen,
    channel_shifts,
    contrast,
    layer_shift,
    measure_shift,
    noise_floor,
    preprocessing_lint,
)
from kerastl.data.load import load_data
from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import batch_normalizations


def reference(mean, variance, epsilon=0.0):
    return Reference(np.array(mean, "float32"), np.array(variance, "float32"), epsilon)


def gaussian_images(n, channels, places=50, seed=0, scale=1.0, offset=0.0):
    """Moments of images that differ from one another and within."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 1, channels)) + rng.normal(size=(n, places, channels))
    values = values / math.sqrt(2) * scale + offset
    return Moments(values.mean(1).astype("float32"), (values**2).mean(1).astype("float32"))


@pytest.mark.parametrize(
    ("mean", "variance", "remembered", "shift"),
    [
        (0.0, 1.0, (0.0, 1.0), 0.0),
        (2.0, 1.0, (0.0, 1.0), 4.0),
        (2.0, 4.0, (0.0, 4.0), 1.0),  # in units of the remembered spread
        (0.0, 9.0, (0.0, 1.0), 4.0),
        (0.0, 0.0, (0.0, 1.0), 1.0),
        (1.0, 4.0, (0.0, 1.0), 2.0),
    ],
)
def test_the_shift_of_a_channel(mean, variance, remembered, shift):
    found = channel_shifts(np.array([mean]), np.array([variance]), reference(*zip(remembered)))
    np.testing.assert_allclose(found, [shift])


def test_epsilon_hides_what_the_layer_cannot_see():
    dead = reference([0.0], [1e-9], epsilon=1e-3)
    assert channel_shifts(np.array([0.0]), np.array([1e-7]), dead)[0] < 1e-6


def test_variance_is_over_the_places_of_all_images():
    values = np.random.default_rng(0).normal(3, 2, (7, 11, 4))
    moments = Moments(values.mean(1), (values**2).mean(1))
    mean, variance = moments.pooled()
    np.testing.assert_allclose(mean, values.mean((0, 1)))
    np.testing.assert_allclose(variance, values.var((0, 1)))
    np.testing.assert_allclose(moments.pooled([1, 4])[1], values[[1, 4]].var((0, 1)))


def test_one_channel_gone_astray_does_not_carry_the_layer():
    moments = gaussian_images(200, 5)
    wild = reference([0, 0, 0, 0, 1e6], [1, 1, 1, 1, 1e-6])
    assert layer_shift(moments, wild) < 0.05


@pytest.mark.parametrize("n", [15, 60, 300])
def test_the_floor_is_the_shift_of_images_of_the_source(n):
    """Means over 40 data sets, each of which the layer's statistics are true of."""
    source = reference(np.zeros(64), np.ones(64))
    data = [gaussian_images(n, 64, seed=seed) for seed in range(40)]
    floors = [noise_floor(moments, source) for moments in data]
    shifts = [layer_shift(moments, source) for moments in data]
    assert np.mean(floors) == pytest.approx(np.mean(shifts), rel=0.25)


def test_two_images_have_a_floor():
    assert noise_floor(gaussian_images(2, 8), reference(np.zeros(8), np.ones(8))) > 0


def test_contrast_is_of_live_channels():
    moments = gaussian_images(300, 4, scale=3.0)
    found = contrast(moments, reference(np.zeros(4), [1, 1, 1e-4, 1e-5], epsilon=1e-3))
    assert found == pytest.approx(3, rel=0.1)
    assert math.isnan(contrast(moments, reference(np.zeros(4), np.full(4, 1e-4), epsilon=1e-3)))


def layers(*excesses, contrast=1.0):
    return tuple(
        LayerShift(f"bn_{i}", i, excess + 0.01, 0.01, contrast) for i, excess in enumerate(excesses)
    )


def test_means_over_the_depth():
    shift = Shift(layers(0.1, 0.3, 0.2, 0.4, 0.6, 0.8, 1.0), 100)
    assert shift.overall == pytest.approx(3.4 / 7)
    assert shift.by_depth() == pytest.approx((0.2, 0.5, 0.9))
    assert shift.by_depth(1) == pytest.approx((3.4 / 7,))
    assert Shift(layers(0.1, 0.3), 100).by_depth() == pytest.approx((0.1, 0.3))


def test_less_than_the_floor_is_nothing():
    assert LayerShift("bn", 0, 0.01, 0.02, 1.0).excess == 0


@pytest.mark.parametrize(
    ("contrast", "is_wrong"),
    [
        # Seen on real images, rightly preprocessed: five sets, three networks.
        (0.30, False),
        (0.43, False),
        (1.03, False),
        # And wrongly: 0-1 scaled again, "tf" for "caffe", "caffe" for "torch", raw for "tf".
        (0.04, True),
        (0.01, True),
        (24.0, True),
        (120.0, True),
        (0.0, True),
        (math.nan, False),
    ],
)
def test_the_lint_looks_at_the_contrast_of_the_first_layer(contrast, is_wrong):
    text = preprocessing_lint(Shift(layers(0.5, 0.5, contrast=contrast), 100))
    assert (text is not None) is is_wrong
    if text:
        assert text.startswith(f"The images reach 'bn_0' with {contrast:.2g} times the contrast")
        assert "raw pixels from 0 to 255" in text


@pytest.mark.parametrize(
    ("num_layers", "chosen"),
    [(0, 0), (1, 1), (4, 4), (11, 11), (12, 6), (27, 9), (52, 18), (53, 18), (155, 18), (16, 8)],
)
def test_every_third_layer_the_first_always(num_layers, chosen):
    taps = [f"bn_{i}" for i in range(num_layers)]
    found = _chosen(taps)
    assert len(found) == chosen
    assert found[:1] == taps[:1]


def set_statistics(model, seed=0):
    rng = np.random.default_rng(seed)
    for layer in batch_normalizations(model):
        layer.moving_mean.assign(rng.normal(size=layer.moving_mean.shape))
        layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))


def test_equals_what_the_layers_read(tiny_backbone, shapes_data):
    backbone = tiny_backbone()
    set_statistics(backbone)
    model = build_transfer_model(backbone, 3)
    shift = measure_shift(model, shapes_data.train, batch_size=7)
    assert shift.num_images == len(shapes_data.train)
    assert [layer.name for layer in shift.layers] == ["bn_0", "bn_1", "bn_2", "bn_3"]
    assert [layer.stage for layer in shift.layers] == sorted(layer.stage for layer in shift.layers)
    assert shift.layers[-1].stage > shift.layers[0].stage
    images = np.concatenate(list(shapes_data.train.images(32).as_numpy_iterator()))
    for index, found in enumerate(shift.layers):
        read = keras.Model(backbone.inputs[0], backbone.get_layer(f"conv_{index}").output)
        values = np.asarray(read(images.astype("float32"))).astype("float64")
        layer = backbone.get_layer(f"bn_{index}")
        unit = np.asarray(layer.moving_variance) + layer.epsilon
        ratio = np.sqrt((values.var((0, 1, 2)) + layer.epsilon) / unit)
        off = (values.mean((0, 1, 2)) - np.asarray(layer.moving_mean)) ** 2 / unit
        assert found.shift == pytest.approx(np.median(off + (ratio - 1) ** 2), rel=1e-3)


def test_a_sample_of_all_classes(tiny_backbone, shapes_data):
    backbone = tiny_backbone()
    set_statistics(backbone)
    model = build_transfer_model(backbone, 3)
    some = measure_shift(model, shapes_data.train, max_images=30, seed=1)
    assert some.num_images == 30
    assert some == measure_shift(model, shapes_data.train, max_images=30, seed=1)
    every = measure_shift(model, shapes_data.train)
    assert some.overall == pytest.approx(every.overall, rel=0.2)


def test_a_model_inside_the_backbone_and_vectors(tiny_backbone, shapes_data):
    images = keras.Input((32, 32, 3))
    inner = tiny_backbone()
    x = keras.layers.GlobalAveragePooling2D()(inner(images))
    x = keras.layers.Dense(6)(x)
    outputs = keras.layers.BatchNormalization(name="bn_vector")(x)
    backbone = keras.Model(images, outputs)
    set_statistics(backbone)
    alone = keras.Model(inner.inputs[0], inner.outputs[0])
    nested = measure_shift(build_transfer_model(backbone, 3), shapes_data.train)
    flat = measure_shift(build_transfer_model(alone, 3), shapes_data.train)
    assert [layer.name for layer in nested.layers] == [f"bn_{i}" for i in range(4)] + ["bn_vector"]
    for layer, same in zip(nested.layers, flat.layers, strict=False):
        assert layer.shift == pytest.approx(same.shift, rel=1e-4)
    assert nested.layers[-1].shift > 0


def without_batch_normalization():
    images = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, 2, activation="relu")(images)
    return keras.Model(images, keras.layers.LayerNormalization()(x))


def over_channels_first():
    images = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, 2)(images)
    return keras.Model(images, keras.layers.BatchNormalization(axis=1)(x))


@pytest.mark.parametrize("build", [without_batch_normalization, over_channels_first])
def test_not_available_without_batch_normalization(build, shapes_data):
    backbone = build()
    set_statistics(backbone)
    assert measure_shift(build_transfer_model(backbone, 3), shapes_data.train) is None


def test_not_available_where_statistics_were_never_trained(tiny_backbone, shapes_data):
    model = build_transfer_model(tiny_backbone(), 3)
    assert measure_shift(model, shapes_data.train) is None
    model.get_layer("backbone").get_layer("bn_2").moving_mean.assign(np.ones(16))
    shift = measure_shift(model, shapes_data.train)
    assert [layer.name for layer in shift.layers] == ["bn_2"]


def test_not_available_for_one_image(tiny_backbone, shapes_data):
    backbone = tiny_backbone()
    set_statistics(backbone)
    one = shapes_data.train.subset([0])
    assert measure_shift(build_transfer_model(backbone, 3), one) is None


@pytest.mark.parametrize(("name", "value"), [("max_images", 1), ("batch_size", 0)])
def test_arguments_are_checked(name, value, tiny_backbone, shapes_data):
    model = build_transfer_model(tiny_backbone(), 3)
    with pytest.raises(ArgumentError, match=f"`{name}` must be an int of at least"):
        measure_shift(model, shapes_data.train, **{name: value})


@pytest.fixture(scope="module")
def photographs(real_photographs):
    return load_data(str(real_photographs)).train


@pytest.fixture(scope="module")
def clothes(shared_file):
    with np.load(shared_file("data/fashion_mnist.npz")) as file:
        return load_data((file["x_test"][:200], file["y_test"][:200])).train


@pytest.mark.slow
def test_photographs_are_near_and_clothes_are_far(imagenet_weights, photographs, clothes):
    """Seen of 256 images: 0.023 and 0.310, other photographs up to 0.032, digits 0.26."""
    model = build_transfer_model("MobileNetV2(alpha=0.35)", 2, weights=str(imagenet_weights))
    near = measure_shift(model, photographs, max_images=64)
    far = measure_shift(model, clothes, max_images=64)
    assert len(near.layers) == 18
    assert near.layers[0].name == "bn_Conv1"
    assert 0.01 < near.overall < 0.05
    assert 0.2 < far.overall < 0.4
    assert preprocessing_lint(near) is None
    assert preprocessing_lint(far) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "offset", "low", "high"),
    [(1 / 127.5 / 255, -1.0, 0, 0.1), (1.0, 0.0, 50, 200), (1 / 127.5, -1.0, 0.7, 1.1)],
)
def test_the_lint_sees_wrong_scales_of_real_photographs(
    scale, offset, low, high, imagenet_weights, photographs
):
    """0-1 scaled again, raw pixels, and what is right."""
    images = keras.Input((96, 96, 3))
    base = keras.applications.MobileNetV2(
        (96, 96, 3), alpha=0.35, include_top=False, weights=str(imagenet_weights)
    )
    up_to = keras.Model(base.inputs, base.get_layer("block_2_add").output)
    backbone = keras.Model(images, up_to(keras.layers.Rescaling(scale, offset)(images)))
    shift = measure_shift(build_transfer_model(backbone, 2), photographs, max_images=40)
    assert low < shift.layers[0].contrast < high
    assert (preprocessing_lint(shift) is None) is (scale == 1 / 127.5)
