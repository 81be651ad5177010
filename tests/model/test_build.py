import subprocess
import sys

import keras
import numpy as np
import pytest

from kerastl.backbones.preprocessing import preprocessing_of
from kerastl.backbones.stages import split
from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model, preprocess_layer
from kerastl.model.freeze import batch_normalizations, stages

SMALL = "MobileNetV2(alpha=0.35)"


def pixels(size, count=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3)).astype("uint8")


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_each_kind_of_preprocessing_is_that_of_keras(mode):
    images = pixels(16).astype("float32")
    expected = keras.applications.imagenet_utils.preprocess_input(images.copy(), mode=mode)
    layer = preprocess_layer(preprocessing_of(mode))
    np.testing.assert_allclose(layer(images), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        (SMALL, keras.applications.mobilenet_v2),
        pytest.param("ResNet50", keras.applications.resnet, marks=pytest.mark.slow),
        pytest.param("DenseNet121", keras.applications.densenet, marks=pytest.mark.slow),
        pytest.param("MobileNetV3Small", keras.applications.mobilenet_v3, marks=pytest.mark.slow),
    ],
)
def test_preprocessing_is_inside(name, module):
    model = build_transfer_model(name, 3, weights="random", image_size=64)
    images = pixels(64)
    expected = model.get_layer("backbone")(
        module.preprocess_input(images.astype("float32")), training=False
    )
    through = keras.Model(model.input, model.get_layer("pool").input)
    np.testing.assert_allclose(through(images, training=False), expected, atol=2e-5, rtol=1e-4)


def test_layers_and_compilation():
    model = build_transfer_model(SMALL, 4, weights="random", image_size=(64, 96))
    assert [layer.name for layer in model.layers][1:] == ["preprocess", "backbone", "pool", "head"]
    assert model.input_shape == (None, 64, 96, 3)
    assert model.output_shape == (None, 4)
    assert model.compiled
    assert {v.path for v in model.trainable_variables} == {"head/kernel", "head/bias"}
    np.testing.assert_allclose(model.predict(pixels(96)[:, :64], verbose=0), 0.25, atol=1e-6)


@pytest.mark.parametrize("name", ["tiny", pytest.param("NASNetMobile", marks=pytest.mark.slow)])
def test_a_head_of_all_stages_reads_mean_and_deviation_of_each(tiny_backbone, name):
    backbone = tiny_backbone() if name == "tiny" else name
    plain, model = (
        build_transfer_model(
            backbone, 3, weights="imagenet" if name == "tiny" else "random", head=head
        )
        for head in ("linear", "stages")
    )
    model.get_layer("backbone").set_weights(plain.get_layer("backbone").get_weights())
    assert [layer.name for layer in model.layers][1:] == ["preprocess", "backbone", "pool", "head"]
    assert [(s.macs, s.output_shapes) for s in stages(model)] == [
        (s.macs, s.output_shapes) for s in stages(plain)
    ]
    images = pixels(model.input_shape[1])
    below = plain.get_layer("preprocess")(images)
    expected = []
    for stage in stages(plain):
        maps = split(plain.get_layer("backbone"), stage)[0](below, training=False)
        maps = np.asarray(maps[-1] if isinstance(maps, (list, tuple)) else maps, "float64")
        expected += [maps.mean((1, 2)), np.sqrt(maps.var((1, 2)) + 1e-6)]
    found = keras.Model(model.input, model.get_layer("head").input)(images, training=False)
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), atol=1e-3, rtol=1e-3)


def test_under_a_head_of_all_stages_dead_channels_keep_their_gradients_finite(tiny_backbone):
    model = build_transfer_model(tiny_backbone(), 3, head="stages", freeze_depth=0)
    for weight in model.get_layer("backbone").weights:
        weight.assign(0 * weight)
    model.get_layer("head").kernel.assign(np.ones(model.get_layer("head").kernel.shape))
    model.train_on_batch(pixels(model.input_shape[1], 6), np.arange(6) % 3)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_the_backbone_of_a_head_of_all_stages_is_given_on_alone(tiny_backbone):
    first = build_transfer_model(tiny_backbone(), 3, head="stages")
    for head, outputs in (("linear", 1), ("stages", 2 * 4 - 1)):
        model = build_transfer_model(first, 5, head=head)
        assert len(model.get_layer("backbone").outputs) == outputs
        assert [s.output_shapes for s in stages(model)] == [s.output_shapes for s in stages(first)]


@pytest.mark.parametrize(
    ("scenario", "open_stages", "of_tiny"),
    [
        ("small_similar", 0, 0),
        ("large_similar", 5, 3),
        ("small_different", 4, 2),
        ("large_different", 7, 4),
    ],
)
@pytest.mark.parametrize("network", ["tiny", pytest.param(SMALL, marks=pytest.mark.slow)])
def test_scenarios_set_depth_and_rates(tiny_backbone, network, scenario, open_stages, of_tiny):
    if network == "tiny":
        model, open_stages = build_transfer_model(tiny_backbone(), 3, scenario=scenario), of_tiny
        assert len(stages(model)) == 4
    else:
        model = build_transfer_model(SMALL, 3, weights="random", image_size=64, scenario=scenario)
        assert len(stages(model)) == 7
    rates = [float(one.learning_rate) for one in model.optimizer.optimizers]
    assert len(rates) == 1 + open_stages
    assert rates == sorted(rates, reverse=True)
    if scenario == "large_similar":
        assert rates[1] == pytest.approx(rates[0] / 10)


def test_freeze_depth_and_learning_rate_overrule_the_scenario(tiny_backbone):
    model = build_transfer_model(
        tiny_backbone(), 3, scenario="large_similar", freeze_depth=3, learning_rate=0.01
    )
    rates = [float(one.learning_rate) for one in model.optimizer.optimizers]
    assert rates == pytest.approx([0.01, 0.001])


def test_a_model_of_the_user():
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    for filters in (4, 8, 16, 32):
        x = keras.layers.Conv2D(filters, 3, 2, padding="same", activation="relu")(x)
    model = build_transfer_model(keras.Model(inputs, x), 3)
    assert model.output_shape == (None, 3)
    assert len(stages(model)) >= 2
    model.fit(pixels(32, 6), np.arange(6) % 3, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "`num_classes` must be an int of at least 2"),
        (
            {"freeze_depth": 5},
            r"`freeze_depth` must be an int from 0 to 4.*Use 4 to train the head",
        ),
        ({"scenario": "small_simlar"}, "Did you mean 'small_similar'"),
        ({"head": "dense"}, "`head` must be one of 'linear'"),
        ({"class_names": ["a"]}, "must name 3 classes. Received 1"),
        ({"learning_rate": -1.0}, "`learning_rate` must be a number above 0"),
    ],
)
def test_bad_arguments(tiny_backbone, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        build_transfer_model(tiny_backbone(), **{"num_classes": 3} | arguments)


@pytest.mark.parametrize("name", ["tiny", pytest.param("ResNet50", marks=pytest.mark.slow)])
def test_a_saved_model_loads_without_kerastl(tiny_backbone, name, tmp_path, monkeypatch):
    if name == "tiny":
        # As ResNet50 has it: channels reversed, each with a mean of its own.
        preprocessing = preprocessing_of("caffe")
        monkeypatch.setattr("kerastl.backbones.given_models.Preprocessing", lambda: preprocessing)
        model = build_transfer_model(tiny_backbone(), 3, scenario="large_similar")
    else:
        model = build_transfer_model(
            name, 3, weights="random", image_size=64, scenario="large_similar"
        )
    assert isinstance(model.get_layer("preprocess"), keras.Model)
    images = pixels(model.input_shape[1], 6)
    model.fit(images, np.arange(6) % 3, verbose=0)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "expected.npy", model.predict(images, verbose=0))
    program = (
        "import sys, keras, numpy as np\n"
        "sys.modules['kerastl'] = None\n"
        "model = keras.saving.load_model('model.keras')\n"
        "got = model.predict(np.load('images.npy'), verbose=0)\n"
        "assert np.abs(got - np.load('expected.npy')).max() <= 1e-6\n"
        "rates = [float(one.learning_rate) for one in model.optimizer.optimizers]\n"
        "assert np.isclose(rates[1], rates[0] / 10), rates\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_model_of_the_user_for_any_size_gets_one():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, 2)(inputs)
    x = keras.layers.Conv2D(8, 3, 2)(x)
    model = build_transfer_model(keras.Model(inputs, x), 3, image_size=(48, 40))
    assert model.input_shape == (None, 48, 40, 3)


def test_a_recipe_brings_its_optimizer(tiny_backbone):
    model = build_transfer_model(tiny_backbone(), 3, scenario="bit")
    assert isinstance(model.optimizer.optimizers[0], keras.optimizers.SGD)


def test_batch_normalization_trains_from_scratch(tiny_backbone):
    model = build_transfer_model(tiny_backbone(), 3, scenario="scratch")
    layers = list(batch_normalizations(model))
    before = [layer.moving_mean.numpy() for layer in layers]
    model.fit(pixels(32, 4), np.arange(4) % 3, verbose=0)
    assert not any(
        np.array_equal(old, layer.moving_mean.numpy())
        for old, layer in zip(before, layers, strict=True)
    )


def check_a_cut(build, cut, scale, offset):
    """Compare what is pooled with the end of that stage in the whole network."""
    whole = build()
    end = stages(whole)[cut - 1].name
    inner = whole.get_layer("backbone")
    model = build(cut=cut)
    assert model.count_params() < whole.count_params()
    images = pixels(whole.input_shape[1])
    upto = keras.Model(inner.inputs[0], inner.get_layer(end).output)
    expected = np.asarray(upto(images * scale + offset, training=False)).mean((1, 2))
    pooled = keras.Model(model.inputs[0], model.get_layer("pool").output)
    np.testing.assert_allclose(pooled(images, training=False), expected, atol=1e-5, rtol=1e-4)
    assert [layer.name for layer in model.layers][1:] == ["preprocess", "backbone", "pool", "head"]


@pytest.mark.parametrize("cut", [1, 3])
def test_a_cut_backbone_gives_the_end_of_that_stage(tiny_backbone, cut):
    backbone = tiny_backbone()
    check_a_cut(lambda **options: build_transfer_model(backbone, 3, **options), cut, 1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 3, 6])
def test_a_cut_of_a_network_of_keras(cut):
    def build(**options):
        keras.utils.set_random_seed(0)
        return build_transfer_model(SMALL, 3, weights="random", image_size=64, **options)

    check_a_cut(build, cut, 1 / 127.5, -1.0)


def test_all_stages_may_be_kept_by_number(tiny_backbone):
    whole = build_transfer_model(tiny_backbone(), 3)
    model = build_transfer_model(tiny_backbone(), 3, cut=4)
    assert model.count_params() == whole.count_params()


@pytest.mark.parametrize("cut", [0, 5, -1, 2.0, True])
def test_a_cut_out_of_range(tiny_backbone, cut):
    with pytest.raises(ArgumentError, match="`cut` must be an int from 1 to 4.*keep all 4 stages"):
        build_transfer_model(tiny_backbone(), 3, cut=cut)


def test_a_cut_where_two_tensors_leave():
    """Cells that read the two before them, as NASNet's do."""
    inputs = keras.Input((32, 32, 3))
    before, x = inputs, keras.layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    before = keras.layers.Conv2D(4, 1, name="side")(inputs)
    for index in range(4):
        wide = keras.layers.Conv2D(4, 3, padding="same", name=f"conv_{index}")(x)
        if index == 1:
            before = keras.layers.MaxPooling2D(name="shrink_before")(before)
            wide = keras.layers.MaxPooling2D(name="shrink")(wide)
        before, x = (
            keras.layers.MaxPooling2D(name="shrink_last")(x) if index == 1 else x,
            keras.layers.Add(name=f"add_{index}")([before, wide]),
        )
    backbone = keras.Model(inputs, x)
    ends = [len(stage.output_shapes) for stage in stages(build_transfer_model(backbone, 3))]
    double = ends.index(2) + 1
    with pytest.raises(ArgumentError, match=f"ends in 2 tensors.*Received: cut={double}"):
        build_transfer_model(backbone, 3, cut=double)


def test_a_cut_model_saved_loads_without_kerastl(tiny_backbone, tmp_path):
    model = build_transfer_model(tiny_backbone(), 3, cut=2)
    model.fit(pixels(32, 6), np.arange(6) % 3, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert "kerastl" not in model.to_json()
    images = pixels(32)
    np.testing.assert_allclose(
        again.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-6
    )
