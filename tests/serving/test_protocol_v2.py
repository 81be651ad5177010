import base64
import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastl.serving import protocol_v2
from kerastl.serving.query import Rejected, Signature

SIGNATURES = {
    "serving_default": Signature("serving_default", "image", "float32", (1, 2, 3)),
    "serving_bytes": Signature("serving_bytes", "image_bytes", "string", ()),
    "embed": Signature("embed", "image", "float32", (1, 2, 3)),
}
TEXT = base64.b64encode(b"abc").decode()
FILES = {"name": "image_bytes", "shape": [2], "datatype": "BYTES", "data": [TEXT, TEXT]}
PIXELS = {"name": "image", "shape": [1, 1, 2, 3], "datatype": "FP32", "data": list(range(6))}


def read(tensor, **rest):
    body = json.dumps({"inputs": [tensor], **rest}).encode()
    return protocol_v2.parse_request(body, None, SIGNATURES, 8)


def read_binary(tensor, content, length=None):
    body = json.dumps({"inputs": [tensor]}).encode()
    return protocol_v2.parse_request(
        body + content, str(len(body) if length is None else length), SIGNATURES, 8
    )


def test_encoded_images():
    asked = read(FILES, id="7", outputs=[{"name": "label"}])
    assert asked.query.rows.tolist() == [b"abc", b"abc"]
    assert (asked.id, asked.outputs) == ("7", ["label"])


@pytest.mark.parametrize("datatype", ["FP32", "UINT8", "INT64"])
@pytest.mark.parametrize("nested", [False, True])
def test_pixels(datatype, nested):
    data = np.arange(6).reshape(1, 1, 2, 3).tolist() if nested else list(range(6))
    asked = read({**PIXELS, "datatype": datatype, "data": data})
    np.testing.assert_array_equal(asked.query.rows, np.arange(6).reshape(1, 1, 2, 3))
    assert asked.query.rows.dtype == "float32"


def test_a_parameter_chooses_the_signature():
    assert read(PIXELS, parameters={"signature_name": "embed"}).query.signature.name == "embed"


def test_tensors_as_bytes():
    content = b"".join(struct.pack("<I", 3) + one for one in (b"abc", b"\0\1\2"))
    parameters = {"binary_data_size": len(content)}
    tensor = {"name": "image_bytes", "shape": [2], "datatype": "BYTES", "parameters": parameters}
    assert read_binary(tensor, content).query.rows.tolist() == [b"abc", b"\0\1\2"]
    pixels = np.arange(6, dtype="u1")
    tensor = {**PIXELS, "datatype": "UINT8", "parameters": {"binary_data_size": 6}}
    np.testing.assert_array_equal(
        read_binary(tensor, pixels.tobytes()).query.rows.ravel(), np.arange(6)
    )


@pytest.mark.parametrize("content", [b"", b"\3\0\0\0ab", b"\3\0\0\0abc\1", b"\xff\xff\xff\xff"])
def test_bytes_that_are_cut(content):
    tensor = {**FILES, "shape": [1], "parameters": {"binary_data_size": len(content)}}
    with pytest.raises(Rejected, match="BYTES"):
        read_binary(tensor, content)


def test_answers():
    outputs = {
        "label": np.array([b"x", b"y"], object),
        "probabilities": np.array([[0.25, 0.75], [1, 0]], "float32"),
        "valid": np.array([True, True]),
    }
    answer = protocol_v2.format_response(read(FILES, id="7"), "m", 3, outputs)
    assert answer == {
        "model_name": "m",
        "model_version": "3",
        "id": "7",
        "outputs": [
            {"name": "label", "shape": [2], "datatype": "BYTES", "data": ["x", "y"]},
            {
                "name": "probabilities",
                "shape": [2, 2],
                "datatype": "FP32",
                "data": [0.25, 0.75, 1, 0],
            },
            {"name": "valid", "shape": [2], "datatype": "BOOL", "data": [True, True]},
        ],
    }
    one = protocol_v2.format_response(read(FILES, outputs=[{"name": "valid"}]), "m", 3, outputs)
    assert [output["name"] for output in one["outputs"]] == ["valid"]
    assert "id" not in one
    with pytest.raises(Rejected, match="There is no output 'other'"):
        protocol_v2.format_response(read(FILES, outputs=[{"name": "other"}]), "m", 3, outputs)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({}, "`shape` must be a list"),
        ({"shape": [1.5]}, "`shape` must be a list"),
        ({"shape": [-1]}, "`shape` must be a list"),
        ({"shape": [1], "name": "other"}, "must be named 'image' or 'image_bytes'"),
        ({**FILES, "datatype": "FP32"}, "must be BYTES. Received: 'FP32'"),
        ({**PIXELS, "datatype": "BYTES"}, "must be FP32, FP64"),
        ({**PIXELS, "datatype": "COMPLEX"}, "must be FP32, FP64"),
        ({**PIXELS, "shape": [2, 1, 2, 3]}, "does not fill the shape"),
        ({**PIXELS, "data": None}, "does not fill the shape"),
        ({**PIXELS, "data": [[1], [1, 2]]}, "does not fill the shape"),
        ({**PIXELS, "shape": [6]}, "of shape (1, 2, 3)"),
        ({**FILES, "data": [TEXT]}, "must hold 2 base64 strings"),
        ({**FILES, "parameters": {"binary_data_size": "3"}}, "`binary_data_size` is '3'"),
        ({**FILES, "parameters": {"binary_data_size": 3}}, "0 bytes follow"),
    ],
)
def test_what_is_rejected(tensor, message):
    with pytest.raises(Rejected) as caught:
        read(tensor)
    assert caught.value.status == 400
    assert message in caught.value.reason


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"inputs": {}}', b'{"inputs": []}', b'{"inputs": [1]}', b"\xff"]
)
def test_bodies_that_are_none(body):
    with pytest.raises(Rejected):
        protocol_v2.parse_request(body, None, SIGNATURES, 8)


def test_a_length_beyond_the_body():
    with pytest.raises(Rejected, match="the body has"):
        read_binary(FILES, b"", length=10_000)


def test_an_input_that_the_chosen_signature_does_not_take():
    with pytest.raises(Rejected, match="The signature 'embed' takes 'image'"):
        read(FILES, parameters={"signature_name": "embed"})


VALUES = st.none() | st.integers(-2, 3) | st.text(max_size=4) | st.lists(st.integers(-1, 4))


@given(
    st.dictionaries(
        st.sampled_from(["name", "shape", "datatype", "data", "parameters", "id", "outputs"]),
        VALUES
        | st.sampled_from(["image", "image_bytes", "BYTES", "FP32"])
        | st.dictionaries(st.sampled_from(["binary_data_size", "signature_name"]), VALUES),
    ),
    st.binary(max_size=9),
)
def test_any_tensor_is_read_or_rejected(tensor, content):
    rest = {name: tensor[name] for name in ("parameters", "outputs") if name in tensor}
    body = json.dumps({"inputs": [tensor], **rest}).encode()
    for whole, length in ((body, None), (body + content, str(len(body)))):
        with contextlib.suppress(Rejected):
            assert len(protocol_v2.parse_request(whole, length, SIGNATURES, 8).query.rows)


def test_metadata():
    listed = [SIGNATURES["serving_default"], SIGNATURES["serving_bytes"]]
    got = protocol_v2.metadata("m", 3, listed, {"label": ("string", [-1])})
    assert got["inputs"][0] == {"name": "image", "datatype": "FP32", "shape": [-1, 1, 2, 3]}
    assert got["inputs"][1] == {"name": "image_bytes", "datatype": "BYTES", "shape": [-1]}
    assert got["outputs"] == [{"name": "label", "datatype": "BYTES", "shape": [-1]}]
    assert (got["versions"], got["platform"]) == (["3"], "tensorflow_savedmodel")
