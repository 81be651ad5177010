import base64
import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastl.serving import protocol_v1
from kerastl.serving.query import Rejected, Signature

SIGNATURES = {
    "serving_default": Signature("serving_default", "image", "float32", (1, 1, 3)),
    "serving_bytes": Signature("serving_bytes", "image_bytes", "string", ()),
}
B64 = {"b64": base64.b64encode(b"abc").decode()}
OUTPUTS = {"label": np.array([b"x", b"y"], object), "class_id": np.array([0, 1])}


def read(**body):
    return protocol_v1.parse_request(json.dumps(body).encode(), SIGNATURES, 8)


@pytest.mark.parametrize("named", [{}, {"signature_name": "serving_bytes"}])
@pytest.mark.parametrize(
    "body",
    [
        {"instances": [B64, B64]},
        {"instances": [{"image_bytes": B64}, B64]},
        {"inputs": [B64, B64]},
        {"inputs": {"image_bytes": [B64, B64]}},
    ],
)
def test_encoded_images_in_all_their_forms(body, named):
    asked = read(**body, **named)
    assert asked.query.rows.tolist() == [b"abc", b"abc"]
    assert asked.query.signature.name == "serving_bytes"
    assert asked.by_row == ("instances" in body)


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [[[[1, 2, 3]]]]},
        {"instances": [{"image": [[[1, 2, 3]]]}]},
        {"inputs": [[[[1, 2, 3]]]]},
        {"inputs": {"image": [[[[1, 2, 3]]]]}},
    ],
)
def test_pixels_in_all_their_forms(body):
    np.testing.assert_array_equal(read(**body).query.rows, [[[[1, 2, 3]]]])


def test_answers_by_row_and_by_column():
    rows = protocol_v1.format_response(read(instances=[[[[1, 2, 3]]]]), OUTPUTS)
    assert rows == {"predictions": [{"label": "x", "class_id": 0}, {"label": "y", "class_id": 1}]}
    columns = protocol_v1.format_response(read(inputs=[[[[1, 2, 3]]]]), OUTPUTS)
    assert columns == {"outputs": {"label": ["x", "y"], "class_id": [0, 1]}}


def test_a_single_output_has_no_name():
    outputs = {"embedding": np.array([[1.0], [2.0]])}
    assert protocol_v1.format_response(read(instances=[[[[1, 2, 3]]]]), outputs) == {
        "predictions": [[1.0], [2.0]]
    }
    assert protocol_v1.format_response(read(inputs=[[[[1, 2, 3]]]]), outputs) == {
        "outputs": [[1.0], [2.0]]
    }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "must be a JSON object"),
        (b"{}", "either `instances` or `inputs`"),
        (b'{"instances": [1], "inputs": [1]}', "either `instances` or `inputs`"),
        (b'{"instances": [], "signature_name": "no"}', "must be one of serving_default"),
        (b'{"instances": [{"other": 1}]}', "must contain only 'image'. Received: ['other']"),
        (b'{"inputs": {"other": 1}}', "must contain only 'image'"),
        (b'{"signature_name": "serving_default", "instances": [{"b64": "AA=="}]}', "takes pixels"),
        (b'{"instances": ["AA=="], "signature_name": "serving_bytes"}', "the file in base64"),
        (b'{"instances": 3}', "no rows"),
        (b'{"inputs": {"b64": "AA=="}, "signature_name": "serving_bytes"}', "no rows"),
    ],
)
def test_what_is_rejected(body, message):
    with pytest.raises(Rejected) as caught:
        protocol_v1.parse_request(body, SIGNATURES, 8)
    assert caught.value.status == 400
    assert message in caught.value.reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.sampled_from(["instances", "inputs"]), JSON, JSON)
def test_any_body_is_read_or_rejected(key, value, name):
    for chosen in (name, "serving_bytes"):
        body = json.dumps({key: value, "signature_name": chosen}).encode()
        with contextlib.suppress(Rejected):
            assert len(protocol_v1.parse_request(body, SIGNATURES, 8).query.rows)


@pytest.mark.parametrize(
    ("path", "target"),
    [("m:predict", ("m", None)), ("m/versions/3:predict", ("m", 3))],
)
def test_targets(path, target):
    assert protocol_v1.target_of(path) == target


@pytest.mark.parametrize("path", ["m", "m:classify", "a/b:predict", ":", "m/versions/:predict"])
def test_targets_that_are_none(path):
    with pytest.raises(Rejected, match="only method is NAME:predict"):
        protocol_v1.target_of(path)
