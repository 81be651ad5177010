import json
import math

import numpy as np
import pytest

from kerastl._task import find_task
from kerastl.errors import ExportError
from kerastl.serving.parity import apply_temperature, compare_artifact, digests, raise_if_different

CLASSES = find_task("classification")
EXPECTED = np.array([[0.9, 0.1], [0.4, 0.6]], "float32")


def test_a_row_has_the_largest_difference_and_the_agreement():
    got = np.array([[0.9, 0.1], [0.6, 0.4]], "float32")
    row = compare_artifact(CLASSES, "litert", got, EXPECTED, np.array([0, 1]))
    assert row["largest_difference"] == pytest.approx(0.2)
    assert row["label_agreement"] == 0.5
    assert row["accuracy"] == 0.5
    assert (row["file"], row["tolerance"]) == ("model.tflite", 1e-4)
    assert compare_artifact(CLASSES, "serving_bytes", got, EXPECTED, None)["accuracy"] is None


@pytest.mark.parametrize(
    ("name", "difference", "agrees", "refused"),
    [
        ("saved_model", 9e-6, 1.0, False),
        ("saved_model", 2e-5, 1.0, True),
        ("saved_model", math.nan, 1.0, True),
        ("litert_int8", 0.3, 0.9, False),
        ("litert_int8", 0.3, 0.7, True),
    ],
)
def test_what_is_refused(name, difference, agrees, refused):
    row = compare_artifact(CLASSES, name, EXPECTED, EXPECTED, None)
    rows = [row | {"largest_difference": difference, "label_agreement": agrees}]
    if not refused:
        raise_if_different(rows)
        return
    with pytest.raises(ExportError, match="not predict the same as the model.*Nothing was written"):
        raise_if_different(rows)


def test_a_temperature_divides_the_scores():
    scores = np.log(EXPECTED)
    softened = np.exp(scores / 3)
    np.testing.assert_allclose(
        apply_temperature(EXPECTED, 3.0), softened / softened.sum(1, keepdims=True), rtol=1e-6
    )
    assert apply_temperature(EXPECTED, 1.0) is EXPECTED


def test_the_certificate_says_what_it_rests_on(exported):
    certificate = json.loads((exported.path / "parity.json").read_text())
    assert {
        "made",
        "sample",
        "temperature",
        "pixels",
        "keras_accuracy",
        "artifacts",
        "task",
        "versions",
        "sha256",
    } == set(certificate)
    assert {"keras", "tensorflow", "kerastl", "python"} <= set(certificate["versions"])
    if "onnx" in exported.formats:
        assert "onnxruntime" in certificate["versions"]


def test_digests_are_of_all_files_but_the_certificate(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"abc")
    (tmp_path / "parity.json").write_bytes(b"{}")
    assert digests(tmp_path) == {
        "deep/a": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }
