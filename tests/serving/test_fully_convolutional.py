import io
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerastl.errors import ArgumentError, DataError, ExportError
from kerastl.model.build import build_transfer_model
from kerastl.results.class_map import ClassMapper
from kerastl.serving import fully_convolutional
from kerastl.serving.fully_convolutional import export_fully_convolutional
from kerastl.serving.parity import apply_temperature, digests
from kerastl.serving.repository import Version
from tests.command import kerastl
from tests.serving.conftest import NAMES, coarse_images, telling_head


def scene(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype("uint8")
    return np.asarray(Image.fromarray(coarse).resize((width, height)))


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return tf.constant(file.getvalue())


def tells(model):
    return telling_head(model, coarse_images(model.input_shape[1]))


@pytest.fixture(scope="module")
def model(tiny_backbone):
    """Of 32 x 32 pixels and a stride of 16."""
    keras.utils.set_random_seed(0)
    return tells(build_transfer_model(tiny_backbone(), 3))


@pytest.fixture(scope="module")
def mapper(model):
    return ClassMapper(model)


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    return export_fully_convolutional(model, folder, class_names=NAMES)


@pytest.fixture(scope="module")
def signatures(path):
    loaded = tf.saved_model.load(str(path))
    yield loaded.signatures
    del loaded


def test_the_native_size_has_one_cell_with_the_model_s_answer(model, signatures):
    images = np.stack([scene(32, 32, seed) for seed in range(3)])
    got = signatures["serving_default"](image=tf.constant(images, tf.float32))
    assert got["probabilities"].shape == (3, 1, 1, 3)
    np.testing.assert_allclose(got["probabilities"][:, 0, 0], model(images), atol=1e-5)
    assert [name.decode() for name in got["class_names"].numpy()] == NAMES


@pytest.mark.parametrize("size", [(48, 32), (64, 96)])
def test_larger_pixels_have_a_map(mapper, signatures, size):
    image = scene(*size)[None].astype("float32")
    got = signatures["serving_default"](image=tf.constant(image))
    np.testing.assert_allclose(got["probabilities"], mapper.network(image), atol=1e-5)
    assert got["window"].numpy().tolist() == [32, 32]
    assert got["stride"].numpy().tolist() == list(mapper.stride)
    assert got["looked_at"].numpy().tolist() == list(size)


@pytest.mark.parametrize(("size", "shorter"), [((45, 70), 50), ((150, 40), 64), ((32, 32), 32)])
def test_a_file_is_looked_at_as_the_mapper_does(mapper, signatures, size, shorter):
    pixels = scene(*size)
    got = signatures["serving_bytes"](
        image_bytes=encoded(pixels), shorter=tf.constant(shorter, tf.int64)
    )
    expected = mapper(pixels, shorter)
    assert tuple(got["looked_at"].numpy()) == expected.looked_at
    np.testing.assert_allclose(got["probabilities"][0], expected.probabilities, atol=1e-5)


def test_what_cannot_be_looked_at_fails_the_call(signatures):
    shorter = tf.constant(64, tf.int64)
    with pytest.raises(tf.errors.InvalidArgumentError):
        signatures["serving_bytes"](image_bytes=tf.constant(b"\x89PNG\r\n\x1a\n"), shorter=shorter)
    with pytest.raises(tf.errors.InvalidArgumentError, match="minimum `shorter`"):
        signatures["serving_bytes"](
            image_bytes=encoded(scene(45, 45)), shorter=tf.constant(31, tf.int64)
        )
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        signatures["serving_bytes"](
            image_bytes=encoded(scene(45, 45)), shorter=tf.constant(10**6, tf.int64)
        )
    with pytest.raises(tf.errors.InvalidArgumentError, match="minimum height and width"):
        signatures["serving_default"](image=tf.zeros((1, 16, 32, 3)))


def test_the_certificate_names_both_sizes_and_each_file(path):
    certificate = json.loads((path / "parity.json").read_text(encoding="utf-8"))
    assert certificate["sample"]["sizes"] == [[32, 32], [80, 80]]
    assert certificate["sample"]["source"] == "generated"
    artifacts = [row["artifact"] for row in certificate["artifacts"]]
    assert artifacts == ["serving_default", "serving_default, larger", "serving_bytes"]
    assert all(row["largest_difference"] <= 1e-5 for row in certificate["artifacts"])
    assert certificate["sha256"] == digests(path)
    assert (path / "labels.txt").read_text(encoding="utf-8").split("\n")[:3] == NAMES


def test_it_loads_without_keras_or_kerastl(path):
    program = (
        "import sys, tensorflow as tf\n"
        f"run = tf.saved_model.load({str(path)!r}).signatures['serving_default']\n"
        "assert run(image=tf.zeros((1, 48, 32, 3)))['probabilities'].shape == (1, 2, 1, 3)\n"
        "assert 'kerastl' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=path)


def test_a_temperature_divides_the_scores(model, tmp_path):
    path = export_fully_convolutional(model, tmp_path, class_names=NAMES, temperature=2.0)
    loaded = tf.saved_model.load(str(path))
    images = scene(32, 32)[None].astype("float32")
    got = loaded.signatures["serving_default"](image=tf.constant(images))["probabilities"]
    expected = apply_temperature(model.predict_on_batch(images), 2.0)
    np.testing.assert_allclose(got[:, 0, 0], expected, atol=1e-5)


def test_what_differs_leaves_nothing(model, tmp_path, monkeypatch):
    def brighter(pixels, size):
        return tf.image.resize(tf.cast(pixels, tf.float32) * 1.1, size)

    monkeypatch.setattr(fully_convolutional, "resize", brighter)
    with pytest.raises(ExportError, match="'serving_bytes' does not predict the same as the model"):
        export_fully_convolutional(model, tmp_path, class_names=NAMES)
    assert not list(tmp_path.iterdir())


def test_arguments_are_checked_before_anything_is_written(model, tmp_path):
    with pytest.raises(ArgumentError, match="class_names"):
        export_fully_convolutional(model, tmp_path / "new", class_names=NAMES[:2])
    with pytest.raises(ArgumentError, match="temperature"):
        export_fully_convolutional(model, tmp_path / "new", class_names=NAMES, temperature=0.0)
    assert not list(tmp_path.iterdir())


def test_doors_that_take_one_size_say_so(path):
    from kerastl.runs.classifier import read_classifier

    with pytest.raises(DataError, match="returns a map for each"):
        read_classifier(path)
    with pytest.raises(DataError, match="is a model for larger images"):
        Version(path)


def test_the_command(model, tmp_path):
    model.save(tmp_path / "model.keras")
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES), encoding="utf-8")
    told = json.loads(kerastl("export", tmp_path, "--fully-convolutional", "--json").stdout)
    assert told["path"] == str(tmp_path / "fully_convolutional" / "1")
    refused = kerastl("export", tmp_path, "--fully-convolutional", "--format", "onnx", status=2)
    assert "writes a SavedModel that takes float32 pixels" in refused.stderr


@pytest.mark.slow
def test_a_real_network_answers_as_its_mapper(tmp_path):
    """Depthwise convolutions, and windows of 64 pixels with a stride of 32."""
    model = tells(build_transfer_model("MobileNetV2(alpha=0.35)", 3, weights="embedded"))
    mapper = ClassMapper(model)
    path = export_fully_convolutional(model, tmp_path, class_names=NAMES)
    signatures = tf.saved_model.load(str(path)).signatures
    image = scene(128, 192)[None].astype("float32")
    got = signatures["serving_default"](image=tf.constant(image))
    np.testing.assert_allclose(got["probabilities"], mapper.network(image), atol=1e-5)
    pixels = scene(300, 80)
    got = signatures["serving_bytes"](
        image_bytes=encoded(pixels), shorter=tf.constant(128, tf.int64)
    )
    expected = mapper(pixels, 128)
    assert tuple(got["looked_at"].numpy()) == expected.looked_at
    np.testing.assert_allclose(got["probabilities"][0], expected.probabilities, atol=1e-5)
