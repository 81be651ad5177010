import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from kerastl.errors import ArgumentError, ExportError
from kerastl.serving.export import export_model
from kerastl.serving.parity import apply_temperature, digests
from kerastl.serving.versions import versions_in
from tests.serving.conftest import NAMES


@pytest.fixture(scope="module")
def signatures(each_exported):
    loaded = tf.saved_model.load(str(each_exported.path))
    yield loaded.signatures
    del loaded


@pytest.fixture
def tiny_model(tiny_backbone):
    from kerastl.model.build import build_transfer_model

    model = build_transfer_model(tiny_backbone(), 3, class_names=NAMES)
    rng = np.random.default_rng(0)
    model.layers[-1].set_weights([rng.normal(size=w.shape) for w in model.layers[-1].weights])
    return model


def test_pixels_and_bytes_answer_as_the_model_does(each_exported, signatures):
    expected = each_exported.expected
    images = tf.constant(each_exported.images, tf.float32)
    for got in (
        signatures["serving_default"](image=images),
        signatures["serving_bytes"](image_bytes=tf.constant(each_exported.files)),
    ):
        np.testing.assert_allclose(got["probabilities"], expected, atol=1e-6)
        assert got["class_id"].numpy().tolist() == expected.argmax(1).tolist()
        labels = [label.decode() for label in got["label"].numpy()]
        assert labels == [NAMES[index] for index in expected.argmax(1)]
        order = (-expected).argsort(1)
        assert got["top_k_class_id"].numpy().tolist() == order.tolist()
        assert got["top_k_label"].numpy()[0].tolist() == [NAMES[i].encode() for i in order[0]]
        np.testing.assert_allclose(
            got["top_k_probability"], np.take_along_axis(expected, order, 1), atol=1e-6
        )


def test_embeddings_are_what_the_head_sees(each_exported, signatures):
    head = each_exported.model.layers[-1]
    for got in (
        signatures["embed"](image=tf.constant(each_exported.images, tf.float32)),
        signatures["embed_bytes"](image_bytes=tf.constant(each_exported.files)),
    ):
        embedding = got["embedding"].numpy()
        assert embedding.shape == (12, head.input.shape[-1])
        np.testing.assert_allclose(head(embedding), each_exported.expected, atol=1e-5)


def test_a_damaged_row_says_so_and_its_neighbours_answer(each_exported, signatures):
    files = tf.constant([each_exported.files[0], b"<html>", each_exported.files[1][:90]])
    got = {k: v.numpy() for k, v in signatures["serving_bytes"](image_bytes=files).items()}
    assert got["valid"].tolist() == [True, False, False]
    np.testing.assert_allclose(got["probabilities"][0], each_exported.expected[0], atol=1e-6)
    assert got["probabilities"][1:].tolist() == np.zeros((2, 3)).tolist()
    assert got["class_id"][1:].tolist() == [-1, -1]
    assert got["top_k_class_id"][1].tolist() == [-1, -1, -1]
    assert got["label"][1:].tolist() == [b"", b""]
    embedded = signatures["embed_bytes"](image_bytes=files)
    assert embedded["valid"].numpy().tolist() == [True, False, False]
    assert not embedded["embedding"].numpy()[1:].any()


def nodes_of(path):
    """The operations of all functions of a SavedModel."""
    proto = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    graph = proto.meta_graphs[0].graph_def
    return [node for function in graph.library.function for node in function.node_def]


def test_nothing_of_training_is_in_the_graph(each_exported):
    operations = {node.op for node in nodes_of(each_exported.path)}
    assert "Conv2D" in operations
    assert not [name for name in operations if "Random" in name or "FusedBatchNormGrad" in name]
    assert b"optimizer" not in (each_exported.path / "saved_model.pb").read_bytes()


@pytest.mark.slow
def test_real_photographs_answer_as_in_training(tiny_model, real_photographs, tmp_path):
    from kerastl.data.load import load_data

    data = load_data(str(real_photographs), test_fraction=0.0, validation_fraction=0.0)
    path = export_model(tiny_model, tmp_path, parity_data=data.test)
    certificate = json.loads((path / "parity.json").read_text())
    assert certificate["sample"] == {"images": 64, "source": "given", "labelled": True}
    rows = {row["artifact"]: row for row in certificate["artifacts"]}
    assert set(rows) == {"saved_model", "serving_bytes", "embed"}
    assert rows["serving_bytes"]["largest_difference"] <= 1e-5
    assert rows["serving_bytes"]["accuracy"] == certificate["keras_accuracy"]


def convolutions(path):
    return len({node.name for node in nodes_of(path) if node.op == "Conv2D"})


def test_what_lies_above_a_cut_is_not_exported(exported, tiny_backbone, tmp_path):
    from kerastl.model.build import build_transfer_model

    model = build_transfer_model(tiny_backbone(), 3, class_names=NAMES, cut=2)
    path = export_model(model, tmp_path, formats=["saved_model"])
    assert convolutions(path) == 2
    assert convolutions(exported.path) == 4


def test_versions_labels_and_digests(each_exported):
    assert each_exported.path.name == "1"
    assert [path.name for path in each_exported.path.parent.iterdir()] == ["1"]
    assert (each_exported.path / "labels.txt").read_text(encoding="utf-8").splitlines() == NAMES
    certificate = json.loads((each_exported.path / "parity.json").read_text())
    assert certificate["sha256"] == digests(each_exported.path)
    assert {"saved_model.pb", "labels.txt", "variables/variables.index"} <= set(
        certificate["sha256"]
    )


def test_a_temperature_and_bytes_as_pixels(tiny_model, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("uint8")
    options = {"temperature": 2.5, "image_dtype": "uint8", "version": 7}
    path = export_model(tiny_model, tmp_path, **options)
    assert path.name == "7"
    got = tf.saved_model.load(str(path)).signatures["serving_default"](image=tf.constant(images))
    expected = apply_temperature(tiny_model.predict_on_batch(images), 2.5)
    np.testing.assert_allclose(got["probabilities"], expected, atol=1e-6)


def test_a_failed_export_leaves_nothing(tiny_model, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("full")

    monkeypatch.setattr("kerastl.serving.export.write_saved_model", full)
    with pytest.raises(ExportError, match="Cannot write.*full"):
        export_model(tiny_model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_that_differs_is_not_left(tiny_model, tmp_path, monkeypatch):
    """The weights change between the writing and the proof, as a lost preprocessing would."""
    from kerastl.serving import export

    write = export.write_saved_model

    def write_and_change(*args, **kwargs):
        write(*args, **kwargs)
        head = tiny_model.layers[-1]
        head.set_weights([weight * 0.9 for weight in head.get_weights()])

    monkeypatch.setattr(export, "write_saved_model", write_and_change)
    with pytest.raises(ExportError, match="'saved_model' does not predict the same as the model"):
        export_model(tiny_model, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("proof", "where"),
    [("here", ":"), pytest.param("process", " in a new process:", marks=pytest.mark.slow)],
)
def test_an_artifact_that_does_not_load_is_not_left(
    tiny_model, tmp_path, monkeypatch, proof, where
):
    from kerastl.serving import export

    write = export.write_saved_model

    def write_and_damage(network, names, path, **options):
        write(network, names, path, **options)
        (path / "saved_model.pb").write_bytes(b"torn")

    monkeypatch.setattr(export, "write_saved_model", write_and_damage)
    with pytest.raises(ExportError, match=f"cannot be loaded and run{where}"):
        export_model(tiny_model, tmp_path, proof=proof)
    assert list(tmp_path.iterdir()) == []


EXPORTS_FOR_EVER = """
    import numpy as np, keras, sys
    from kerastl.model.build import build_transfer_model
    from kerastl.serving.export import export_model
    inputs = keras.Input((32, 32, 3))
    network = keras.Model(inputs, keras.layers.Conv2D(4, 3, name="conv")(inputs))
    model = build_transfer_model(network, 2, class_names=["a", "b"])
    print("ready", flush=True)
    while True:
        export_model(model, sys.argv[1])
        print("exported", flush=True)
"""


@pytest.mark.faults
@pytest.mark.parametrize("seconds", [0.4, 2.5])
def test_a_kill_leaves_the_earlier_versions_and_no_half_one(tmp_path, seconds):
    program = textwrap.dedent(EXPORTS_FOR_EVER)
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        assert process.stdout.readline() == "exported\n"
        time.sleep(seconds)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert versions_in(tmp_path)[0] == 1
    for version in versions_in(tmp_path):
        certificate = json.loads((tmp_path / str(version) / "parity.json").read_text())
        assert certificate["sha256"] == digests(tmp_path / str(version))
    others = {path.name for path in tmp_path.iterdir() if not path.name.isdecimal()}
    assert all(name.startswith(".writing-") for name in others)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": ["a"]}, "must name 3 classes. Received 1"),
        ({"formats": ["tflite"]}, "must be one of 'saved_model', 'litert'"),
        ({"formats": []}, "must name at least one of saved_model"),
        ({"formats": ["litert_int8"]}, "Pass `representative_data=data.train`"),
        ({"temperature": 0.0}, "must be a number above 0"),
        ({"image_dtype": "int8"}, "must be one of 'float32', 'uint8'"),
        ({"proof": "elsewhere"}, "must be one of 'here', 'process'"),
        ({"version": 0}, "must be an int of at least 1"),
        ({"max_bytes": 0}, "must be an int of at least 1"),
    ],
)
def test_wrong_arguments(tiny_model, tmp_path, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        export_model(tiny_model, tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_version_is_never_written_over(tiny_model, exported):
    directory = Path(exported.path).parent
    with pytest.raises(ArgumentError, match="Version 1 exists in .* already"):
        export_model(tiny_model, directory, version=1)


def test_a_model_without_names(exported, tmp_path):
    with pytest.raises(ArgumentError, match="must name the 3 classes"):
        export_model(exported.model, tmp_path)
