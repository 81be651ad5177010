import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from kerastl.errors import ArgumentError, KerastlError
from kerastl.frozen import engines, runners
from kerastl.frozen.engines import Engine, make_engine, max_relative_difference
from kerastl.frozen.runners import available_runners

NAMES = available_runners()


@pytest.fixture(autouse=True)
def forget_choices():
    engines._choices.clear()


@pytest.mark.parametrize(
    ("outputs", "expected", "difference"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0]], 0.0),
        ([[1.0, 2.5]], [[1.0, 2.0]], 0.25),
        ([[1.0], [3.0]], [[1.0], [4.0]], 0.25),
        ([[0.0]], [[0.0]], 0.0),
        ([[float("nan")]], [[1.0]], float("inf")),
        ([[1.0]], [[float("nan")]], float("inf")),
        ([[1.0, 2.0]], [[1.0]], float("inf")),
        ([], [[1.0]], float("inf")),
    ],
)
def test_difference_is_relative_to_the_largest_value(outputs, expected, difference):
    arrays = [np.array(output) for output in outputs], [np.array(value) for value in expected]
    assert max_relative_difference(*arrays) == difference


@pytest.mark.parametrize("name", NAMES)
def test_every_engine_agrees_with_keras_on_any_batch(name, backbone, pixels):
    engine = make_engine(backbone, engine=name, sample=pixels)
    assert engine.name == name
    assert engine.max_relative_difference <= 1e-5
    for batch in (pixels, pixels[:1], pixels[:8].astype("float32"), pixels[:3].astype("float16")):
        (output,) = engine(batch)
        expected = backbone.predict_on_batch(batch.astype("float32"))
        assert output.dtype == np.float32
        assert max_relative_difference([output], [np.asarray(expected)]) <= 1e-5


def test_tensorflow_shares_a_batch_among_devices(backbone, pixels, monkeypatch):
    used = []
    device = runners.tf.device
    monkeypatch.setattr(runners.tf, "device", lambda name: used.append(name) or device(name))
    names = ["CPU:0", "/device:CPU:0"]
    engine = make_engine(backbone, engine="tensorflow", sample=pixels, devices=names)
    alone = make_engine(backbone, engine="tensorflow", sample=pixels)
    used.clear()
    for count in (7, 2, 1):
        (output,) = engine(pixels[:count])
        assert max_relative_difference([output], alone(pixels[:count])) <= 1e-5
    assert used == [*names, *names, names[0]]  # no device is given nothing


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_off_and_flags_do_not_matter(name, backbone, pixels):
    backbone.trainable = True
    engine = make_engine(backbone, engine=name, sample=pixels)
    np.testing.assert_array_equal(engine(pixels)[0], engine(pixels)[0])


def mobilenet():
    return keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("build", [None, pytest.param(mobilenet, marks=pytest.mark.slow)])
def test_half_precision_agrees_as_closely(policy, build, build_backbone, pixels):
    """Against the graph that Keras predicts with; run eagerly, Keras itself differs by more."""
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        network = (build or build_backbone)()
        assert network.compute_dtype in policy
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    assert make_engine(network, engine="tensorflow", sample=pixels).max_relative_difference <= 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_several_outputs_and_inputs(name, pixels):
    first, second = keras.Input((32, 32, 3)), keras.Input((4,))
    x = layers.Conv2D(5, 3)(first)
    pooled = layers.GlobalAveragePooling2D()(x)
    model = keras.Model([first, second], [x, layers.Concatenate()([pooled, second]), pooled])
    inputs = [pixels, np.random.default_rng(1).normal(size=(11, 4))]
    outputs = make_engine(model, engine=name, sample=inputs)(inputs)
    expected = model([np.float32(value) for value in inputs])
    assert [output.shape for output in outputs] == [(11, 30, 30, 5), (11, 9), (11, 5)]
    assert max_relative_difference(outputs, [np.asarray(value) for value in expected]) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_the_start(name, backbone, pixels):
    engine = make_engine(backbone, engine=name, sample=pixels)
    before = engine(pixels)[0]
    for weight in backbone.weights:
        weight.assign(weight * 0.5)
    np.testing.assert_array_equal(engine(pixels)[0], before)


@pytest.mark.parametrize("name", NAMES)
def test_engine_that_disagrees_is_refused(name, backbone, pixels, monkeypatch):
    def wrong(network, **options):
        run = right(network, **options)
        return lambda arrays: [output * 1.01 for output in run(arrays)]

    right = runners.RUNNERS[name]
    monkeypatch.setitem(runners.RUNNERS, name, wrong)
    with pytest.raises(KerastlError, match=rf"{name}' disagrees with Keras .* 0\.01 of the lar"):
        make_engine(backbone, engine=name, sample=pixels)


def test_engine_that_fails_says_why(backbone, pixels, monkeypatch):
    def fail(network):
        raise RuntimeError("no such operation\nand much more")

    monkeypatch.setitem(runners.RUNNERS, "litert", fail)
    with pytest.raises(KerastlError, match="cannot run .*: no such operation Use engine='auto'"):
        make_engine(backbone, engine="litert", sample=pixels)


def test_unknown_and_absent_engines(backbone, pixels, monkeypatch):
    with pytest.raises(ArgumentError, match="`engine` must be one of 'auto', 'tensorflow', "):
        make_engine(backbone, engine="tflite", sample=pixels)
    monkeypatch.setattr(engines, "available_runners", lambda: ["tensorflow"])
    with pytest.raises(ArgumentError, match=r"pip install kerastl\[openvino\]"):
        make_engine(backbone, engine="openvino", sample=pixels)


class Clock:
    """Engines of given speeds, without measuring."""

    def __init__(self, monkeypatch, **images_per_second):
        self.started = []
        monkeypatch.setattr(engines, "available_runners", lambda: list(images_per_second))
        monkeypatch.setattr(engines, "_start", self.start)
        monkeypatch.setattr(engines, "_measured", self.measured)
        self.speeds = images_per_second

    def start(self, name, network, inputs, expected, devices=()):
        self.started.append(name)
        if not self.speeds[name]:
            raise KerastlError(f"Engine {name!r} cannot.")
        return Engine(name, lambda arrays: arrays, 0.0)

    def measured(self, engine, inputs):
        engine.images_per_second = self.speeds[engine.name]
        return engine


def test_auto_takes_the_fastest_and_remembers(build_backbone, pixels, monkeypatch, cache):
    clock = Clock(monkeypatch, tensorflow=10.0, openvino=12.0, litert=20.0)
    backbone = build_backbone()
    assert make_engine(backbone, sample=pixels, directory=cache).name == "litert"
    assert sorted(clock.started) == ["litert", "openvino", "tensorflow"]
    assert make_engine(backbone, sample=pixels).name == "litert"
    engines._choices.clear()
    assert list(json.loads((cache / "engines.json").read_text()).values()) == ["litert"]
    same_graph = build_backbone(seed=1)
    assert make_engine(same_graph, sample=pixels, directory=cache).name == "litert"
    assert clock.started[3:] == ["litert", "litert"]


def test_auto_raises_when_every_engine_fails(backbone, pixels, monkeypatch):
    Clock(monkeypatch, tensorflow=0.0, litert=0.0)
    with (
        pytest.warns(UserWarning, match="does not use it"),
        pytest.raises(KerastlError, match=r"Engine '\w+' cannot"),
    ):
        make_engine(backbone, sample=pixels)


def test_auto_skips_an_engine_that_fails_with_a_warning(backbone, pixels, monkeypatch):
    Clock(monkeypatch, tensorflow=10.0, openvino=0.0, litert=20.0)
    with pytest.warns(UserWarning, match=r"Engine 'openvino' cannot\. kerastl does not use it"):
        assert make_engine(backbone, sample=pixels).name == "litert"


def test_auto_measures_again_when_the_remembered_engine_fails(backbone, pixels, monkeypatch):
    Clock(monkeypatch, tensorflow=10.0, litert=20.0)
    make_engine(backbone, sample=pixels)
    Clock(monkeypatch, tensorflow=10.0, litert=0.0)
    with pytest.warns(UserWarning, match="litert"):
        assert make_engine(backbone, sample=pixels).name == "tensorflow"


@pytest.mark.parametrize(
    ("num_images", "started"),
    [
        (8, ["openvino"]),
        (400, ["litert"]),
        (40_000, ["litert", "openvino"]),
        (None, ["litert", "openvino", "tensorflow"]),
    ],
)
def test_auto_builds_no_engine_that_cannot_pay(backbone, pixels, monkeypatch, num_images, started):
    """Few images: what is quickly built. More: what should be quickest, then what might be."""
    monkeypatch.setattr(engines, "_has_depthwise", lambda network: True)
    clock = Clock(monkeypatch, tensorflow=100.0, openvino=120.0, litert=200.0)
    make_engine(backbone, sample=pixels, num_images=num_images)
    assert clock.started == started
    assert bool(engines._choices) == (len(started) == 3)


def test_auto_is_tensorflow_on_a_gpu(backbone, pixels, monkeypatch):
    clock = Clock(monkeypatch, tensorflow=10.0, litert=20.0)
    monkeypatch.setattr(engines.tf.config, "list_logical_devices", lambda kind: [kind])
    assert make_engine(backbone, sample=pixels).name == "tensorflow"
    assert clock.started == ["tensorflow"]


def test_auto_for_real(backbone, pixels):
    engine = make_engine(backbone, sample=pixels)
    assert engine.name in NAMES
    assert engine.images_per_second > 0


def test_a_torn_memory_of_choices_is_no_harm(backbone, pixels, monkeypatch, cache):
    Clock(monkeypatch, tensorflow=10.0, litert=20.0)
    cache.mkdir()
    for text in ("{", "[1]", '{"a": 1}'):
        (cache / "engines.json").write_text(text)
        engines._choices.clear()
        assert make_engine(backbone, sample=pixels, directory=cache).name == "litert"


@pytest.mark.skipif("openvino" not in NAMES, reason="needs openvino")
def test_openvino_runs_without_its_telemetry(backbone, pixels):
    make_engine(backbone, engine="openvino", sample=pixels)
    assert "openvino" in sys.modules
    assert "openvino_telemetry" not in sys.modules


@pytest.mark.faults
@pytest.mark.skipif("openvino" not in NAMES, reason="needs openvino")
def test_openvino_reports_to_nobody(tmp_path):
    program = (
        "from kerastl.frozen.runners import import_openvino; import sys;"
        "import_openvino().Core(); print('openvino_telemetry' in sys.modules)"
    )
    environment = {"HOME": str(tmp_path), "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr
    assert not (tmp_path / "intel").exists()


def test_a_very_large_network_keeps_its_weights_beside_the_graph(backbone, pixels, monkeypatch):
    expected = np.asarray(backbone.predict_on_batch(pixels.astype("float32")))
    monkeypatch.setattr(runners, "MOST_CONSTANTS", 0)
    monkeypatch.setattr(engines, "MOST_CONSTANTS", 0)
    engine = make_engine(backbone, sample=pixels)
    assert engine.name == "tensorflow"
    for weight in backbone.weights:  # what an engine runs are the weights that it was built with
        weight.assign(weight * 0)
    (output,) = engine(pixels)
    assert max_relative_difference([output], [expected]) <= 1e-5
