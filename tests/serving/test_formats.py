import json
import zipfile

import numpy as np
import pytest

from kerastl.errors import ArgumentError
from kerastl.serving.artifacts import open_artifact
from kerastl.serving.formats import BY_NAME, FORMATS, checked_formats
from tests.serving.conftest import NAMES


@pytest.mark.parametrize("name", [format_.name for format_ in FORMATS])
def test_each_format_answers_as_the_model_does(each_exported, name):
    if name not in each_exported.formats:
        pytest.skip(f"needs the packages of kerastl[{BY_NAME[name].extra}]")
    got = open_artifact(each_exported.path, name)(each_exported.images)
    assert got.shape == each_exported.expected.shape
    difference = np.abs(got - each_exported.expected).max()
    assert difference <= BY_NAME[name].tolerance
    assert (got.argmax(1) == each_exported.expected.argmax(1)).mean() >= BY_NAME[name].agreement
    quantised = name in ("litert_fp16", "litert_dynamic", "litert_int8")
    assert (difference > 1e-5) == quantised


def test_the_certificate_has_the_size_and_accuracy_of_each(each_exported):
    certificate = json.loads((each_exported.path / "parity.json").read_text())
    rows = {row["artifact"]: row for row in certificate["artifacts"]}
    assert set(rows) == {*each_exported.formats, "serving_bytes", "embed"}
    assert rows["litert"]["accuracy"] == certificate["keras_accuracy"] == 1.0
    sizes = {name: rows[name]["bytes"] for name in each_exported.formats}
    assert sizes["litert_dynamic"] < sizes["litert_fp16"] < sizes["litert"] < sizes["saved_model"]
    assert sizes["litert_int8"] < sizes["litert_fp16"]


@pytest.mark.parametrize("name", [f.name for f in FORMATS if f.name.startswith("litert")])
def test_litert_files_carry_the_labels(each_exported, name):
    with zipfile.ZipFile(each_exported.path / BY_NAME[name].file) as archive:
        assert archive.read("labels.txt").decode().splitlines() == NAMES


def test_int8_has_integers_at_both_ends(each_exported):
    import tensorflow as tf

    from kerastl.frozen.runners import silence

    with silence():
        interpreter = tf.lite.Interpreter(str(each_exported.path / "model_int8.tflite"))
    for details in (*interpreter.get_input_details(), *interpreter.get_output_details()):
        assert details["dtype"] is np.uint8


def test_onnx_has_nothing_of_training(each_exported):
    onnx = pytest.importorskip("onnx", reason="needs kerastl[onnx]")
    if "onnx" not in each_exported.formats:
        pytest.skip("needs tf2onnx")
    operations = {node.op_type for node in onnx.load(each_exported.path / "model.onnx").graph.node}
    assert "Conv" in operations
    assert not operations & {"BatchNormalization", "Dropout", "RandomUniform", "RandomNormal"}


def test_onnx_carries_the_labels_and_takes_any_batch(each_exported):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs kerastl[onnx]")
    if "onnx" not in each_exported.formats:
        pytest.skip("needs tf2onnx")
    session = onnxruntime.InferenceSession(str(each_exported.path / "model.onnx"))
    assert json.loads(session.get_modelmeta().custom_metadata_map["labels"]) == NAMES
    (given,), (wanted,) = session.get_inputs(), session.get_outputs()
    assert (given.name, wanted.name) == ("image", "probabilities")
    assert given.shape[1:] == [*each_exported.size, 3]
    answers = session.run(None, {"image": each_exported.images[:5].astype("float32")})[0]
    np.testing.assert_allclose(answers, each_exported.expected[:5], atol=1e-5)


def test_openvino_carries_the_labels(each_exported):
    if "openvino" not in each_exported.formats:
        pytest.skip("needs kerastl[openvino]")
    from kerastl.frozen.runners import import_openvino

    model = import_openvino().Core().read_model(str(each_exported.path / "openvino" / "model.xml"))
    assert model.get_rt_info(["model_info", "labels"]).astype(str) == "ant bee ä_wasp"
    assert [path.name for path in sorted((each_exported.path / "openvino").iterdir())] == [
        "model.bin",
        "model.xml",
    ]


def test_formats_come_once_and_in_order():
    names = [format_.name for format_ in checked_formats(["litert", "saved_model", "litert"])]
    assert names == ["saved_model", "litert"]
    assert [format_.name for format_ in checked_formats("litert")] == ["litert"]


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ArgumentError,
        match=r"'onnx' needs onnx, tf2onnx, onnxruntime, .*pip install 'kerastl\[onnx\]'",
    ):
        checked_formats(["onnx"])
    with pytest.raises(ArgumentError, match=r"pip install 'kerastl\[openvino\]'"):
        checked_formats(["openvino"])
