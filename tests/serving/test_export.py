import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model
from kerastl.serving.export import export_model

NAMES = ["ant", "bee", "ä wasp"]


@pytest.fixture(scope="module")
def model():
    model = build_transfer_model("MobileNetV2(alpha=0.35)", 3, weights="embedded")
    rng = np.random.default_rng(0)
    head = model.get_layer("head")
    head.set_weights([rng.normal(size=w.shape) * 0.1 for w in head.get_weights()])
    return model


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("serving")
    return export_model(model, directory, class_names=NAMES)


def encoded(image, kind):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def test_pixels_and_bytes_answer_as_the_model_does(model, exported):
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3)).astype("uint8")
    expected = model.predict(images, verbose=0)
    loaded = tf.saved_model.load(str(exported))
    for _ in range(2):
        got = loaded.signatures["serving_default"](image=tf.constant(images, tf.float32))
        np.testing.assert_allclose(got["probabilities"], expected, atol=1e-6)
        files = tf.constant([encoded(image, "PNG") for image in images])
        got = loaded.signatures["serving_bytes"](image_bytes=files)
        np.testing.assert_allclose(got["probabilities"], expected, atol=1e-6)
        assert got["class_id"].numpy().tolist() == expected.argmax(1).tolist()
        labels = [label.decode() for label in got["label"].numpy()]
        assert labels == [NAMES[index] for index in expected.argmax(1)]


def test_real_photographs_answer_as_in_training(model, exported, real_photographs):
    from kerastl.data.load import load_data

    data = load_data(str(real_photographs), test_fraction=0.0, validation_fraction=0.0)
    split = data.test.subset(range(0, len(data.test), 15))
    expected = np.concatenate([model.predict_on_batch(batch) for batch in split.images((64, 64))])
    loaded = tf.saved_model.load(str(exported))
    files = tf.constant([Path(path).read_bytes() for path in split.paths])
    first = loaded.signatures["serving_bytes"](image_bytes=files)["probabilities"].numpy()
    second = loaded.signatures["serving_bytes"](image_bytes=files)["probabilities"].numpy()
    np.testing.assert_allclose(first, expected, atol=1e-5)
    np.testing.assert_array_equal(first, second)


def test_versions_count_up_and_nothing_else_is_left(model, exported):
    directory = exported.parent
    assert exported.name == "1"
    assert (exported / "labels.txt").read_text(encoding="utf-8").splitlines() == NAMES
    (directory / "7").mkdir()
    assert export_model(model, directory, class_names=NAMES).name == "8"
    assert sorted(path.name for path in directory.iterdir()) == ["1", "7", "8"]
    with pytest.raises(ArgumentError, match="Version 8 is in .* already"):
        export_model(model, directory, class_names=NAMES, version=8)


def test_a_failed_export_leaves_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "kerastl.serving.export._write_saved_model",
        lambda *a: (_ for _ in ()).throw(OSError("full")),
    )
    from kerastl.errors import ExportError

    with pytest.raises(ExportError, match="could not be written.*full"):
        export_model(model, tmp_path, class_names=NAMES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "message"),
    [(None, "must name the 3 classes"), (["a"], "must name 3 classes. Received 1")],
)
def test_names_must_fit(model, tmp_path, names, message):
    with pytest.raises(ArgumentError, match=message):
        export_model(model, tmp_path, class_names=names)
