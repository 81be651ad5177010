import io
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

from kerastl.cli.export import export
from kerastl.errors import ArgumentError, DataError, ExportError
from kerastl.model.build import build_transfer_model
from kerastl.results.class_map import ClassMapper
from kerastl.serving import fully_convolutional
from kerastl.serving.fully_convolutional import export_fully_convolutional
from kerastl.serving.parity import digests, tempered
from kerastl.serving.repository import Version
from tests.serving.conftest import random_head

NAMES = ["ant", "bee", "ä wasp"]


def scene(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype("uint8")
    return np.asarray(Image.fromarray(coarse).resize((width, height)))


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return tf.constant(file.getvalue())


@pytest.fixture(scope="module")
def model():
    return random_head(build_transfer_model("MobileNetV2(alpha=0.35)", 3, weights="embedded"))


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
    images = np.stack([scene(64, 64, seed) for seed in range(3)])
    got = signatures["serving_default"](image=tf.constant(images, tf.float32))
    assert got["probabilities"].shape == (3, 1, 1, 3)
    np.testing.assert_allclose(got["probabilities"][:, 0, 0], model(images), atol=1e-5)
    assert [name.decode() for name in got["class_names"].numpy()] == NAMES


@pytest.mark.parametrize("size", [(96, 64), (128, 192)])
def test_larger_pixels_have_a_map(mapper, signatures, size):
    image = scene(*size)[None].astype("float32")
    got = signatures["serving_default"](image=tf.constant(image))
    np.testing.assert_allclose(got["probabilities"], mapper.network(image), atol=1e-5)
    assert got["window"].numpy().tolist() == [64, 64]
    assert got["stride"].numpy().tolist() == list(mapper.stride)
    assert got["looked_at"].numpy().tolist() == list(size)


@pytest.mark.parametrize(("size", "shorter"), [((90, 140), 100), ((300, 80), 128), ((64, 64), 64)])
def test_a_file_is_looked_at_as_the_mapper_does(mapper, signatures, size, shorter):
    pixels = scene(*size)
    got = signatures["serving_bytes"](
        image_bytes=encoded(pixels), shorter=tf.constant(shorter, tf.int64)
    )
    expected = mapper(pixels, shorter)
    assert tuple(got["looked_at"].numpy()) == expected.looked_at
    np.testing.assert_allclose(got["probabilities"][0], expected.probabilities, atol=1e-5)


def test_what_cannot_be_looked_at_fails_the_call(signatures):
    shorter = tf.constant(128, tf.int64)
    with pytest.raises(tf.errors.InvalidArgumentError):
        signatures["serving_bytes"](image_bytes=tf.constant(b"\x89PNG\r\n\x1a\n"), shorter=shorter)
    with pytest.raises(tf.errors.InvalidArgumentError, match="least `shorter`"):
        signatures["serving_bytes"](
            image_bytes=encoded(scene(90, 90)), shorter=tf.constant(63, tf.int64)
        )
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        signatures["serving_bytes"](
            image_bytes=encoded(scene(90, 90)), shorter=tf.constant(10**6, tf.int64)
        )
    with pytest.raises(tf.errors.InvalidArgumentError, match="least height and width"):
        signatures["serving_default"](image=tf.zeros((1, 32, 64, 3)))


def test_the_certificate_names_both_sizes_and_each_file(path):
    certificate = json.loads((path / "parity.json").read_text(encoding="utf-8"))
    assert certificate["sample"]["sizes"] == [[64, 64], [160, 160]]
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
        "assert run(image=tf.zeros((1, 96, 64, 3)))['probabilities'].shape == (1, 2, 1, 3)\n"
        "assert 'kerastl' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=path)


def test_a_temperature_divides_the_scores(model, tmp_path):
    path = export_fully_convolutional(model, tmp_path, class_names=NAMES, temperature=2.0)
    loaded = tf.saved_model.load(str(path))
    images = scene(64, 64)[None].astype("float32")
    got = loaded.signatures["serving_default"](image=tf.constant(images))["probabilities"]
    expected = tempered(model.predict_on_batch(images), 2.0)
    np.testing.assert_allclose(got[:, 0, 0], expected, atol=1e-5)


def test_what_differs_leaves_nothing(model, tmp_path, monkeypatch):
    def brighter(pixels, size):
        return tf.image.resize(tf.cast(pixels, tf.float32) * 1.1, size)

    monkeypatch.setattr(fully_convolutional, "resize", brighter)
    with pytest.raises(ExportError, match="'serving_bytes' does not answer as the model does"):
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

    with pytest.raises(DataError, match="gives a map for each"):
        read_classifier(path)
    with pytest.raises(DataError, match="slides over larger images"):
        Version(path)


def test_the_command(model, tmp_path):
    app = Typer()
    app.command()(export)
    model.save(tmp_path / "model.keras")
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES), encoding="utf-8")
    run = str(tmp_path)
    found = CliRunner().invoke(app, [run, "--fully-convolutional", "--json"])
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert told["path"] == str(tmp_path / "fully_convolutional" / "1")
    refused = CliRunner().invoke(app, [run, "--fully-convolutional", "--format", "onnx"])
    assert isinstance(refused.exception, ArgumentError)
