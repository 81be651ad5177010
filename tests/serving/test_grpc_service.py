"""The tensors of gRPC, of which nothing is made before their shape fits their bytes."""

import numpy as np
import pytest

pytest.importorskip("grpc", reason="needs kerastl[grpc]")
pytest.importorskip("tensorflow_serving.apis", reason="needs kerastl[grpc]")
pytest.importorskip("prometheus_client", reason="needs kerastl[serve]")

import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import predict_pb2

from kerastl.serving.grpc_service import _query
from kerastl.serving.query import Rejected, Signature

SIGNATURES = {
    "serving_default": Signature("serving_default", "image", "float32", (1, 2, 3)),
    "serving_bytes": Signature("serving_bytes", "image_bytes", "string", ()),
}


def request(tensor, signature="serving_default"):
    asked = predict_pb2.PredictRequest()
    asked.model_spec.signature_name = signature
    asked.inputs[SIGNATURES[signature].input].CopyFrom(tensor)
    return asked


def tensor(dtype, shape, **values):
    proto = tf.make_tensor_proto(0.0).__class__(dtype=dtype, **values)
    for length in shape:
        proto.tensor_shape.dim.add(size=length)
    return proto


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int32", "int64"])
@pytest.mark.parametrize("packed", [True, False])
def test_pixels_of_every_type(dtype, packed):
    pixels = np.arange(12).reshape(2, 1, 2, 3).astype(dtype)
    proto = tf.make_tensor_proto(pixels)
    if not packed and dtype != "float16":
        proto = tf.make_tensor_proto(pixels.tolist(), dtype)
    np.testing.assert_array_equal(_query(request(proto), SIGNATURES, 4).rows, pixels)


def test_encoded_images():
    proto = tf.make_tensor_proto([b"a", b""])
    assert _query(request(proto, "serving_bytes"), SIGNATURES, 4).rows.tolist() == [b"a", b""]


FLOAT, STRING = types_pb2.DT_FLOAT, types_pb2.DT_STRING
ROW = (1, 2, 3)


@pytest.mark.parametrize(
    ("proto", "signature", "status"),
    [
        (tensor(FLOAT, [2**28], float_val=[1]), "serving_default", 400),
        (tensor(FLOAT, [2**28, *ROW], float_val=[1]), "serving_default", 413),
        (tensor(FLOAT, [4, *ROW], float_val=[1]), "serving_default", 400),
        (tensor(FLOAT, [1, *ROW], tensor_content=b"1234"), "serving_default", 400),
        (tensor(FLOAT, [1, *ROW], tensor_content=bytes(25)), "serving_default", 400),
        (tensor(FLOAT, [1, *ROW]), "serving_default", 400),
        (tensor(FLOAT, [-1, *ROW], float_val=[1]), "serving_default", 400),
        (tensor(FLOAT, [0, *ROW]), "serving_default", 400),
        (tensor(FLOAT, [1, *ROW], double_val=[1] * 6), "serving_default", 400),
        (tensor(STRING, [2**28], string_val=[b"a"]), "serving_bytes", 413),
        (tensor(STRING, [2], string_val=[b"a"]), "serving_bytes", 400),
        (tensor(STRING, [1, 2], string_val=[b"a"] * 2), "serving_bytes", 400),
        (tensor(STRING, [], string_val=[b"a"]), "serving_bytes", 400),
        *(
            (tensor(dtype, [1, *ROW], tensor_content=bytes(24)), signature, 400)
            for dtype in types_pb2.DataType.values()
            for signature in SIGNATURES
            if dtype not in (FLOAT, STRING, types_pb2.DT_INT32, types_pb2.DT_UINT32)
        ),
    ],
)
def test_what_is_rejected(proto, signature, status):
    with pytest.raises(Rejected) as caught:
        _query(request(proto, signature), SIGNATURES, 4)
    assert caught.value.status == status
    assert len(caught.value.reason) < 300


def test_another_input():
    asked = request(tf.make_tensor_proto([b"a"]), "serving_bytes")
    asked.inputs["x" * 10**5].CopyFrom(tf.make_tensor_proto([1.0]))
    with pytest.raises(Rejected, match="The only input must be 'image_bytes'") as caught:
        _query(asked, SIGNATURES, 4)
    assert len(caught.value.reason) < 300
