"""The warm-up requests of TensorFlow Serving.

They are `PredictionLog` messages of tensorflow-serving-api, written here field by field: the
package would be a dependency of every export for these few bytes.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from kerastl.data.options import RGB

PATH = "assets.extra/tf_serving_warmup_requests"
BATCHES = (1, 8)

_LENGTH_DELIMITED = 2
# Field numbers: https://github.com/tensorflow/serving/blob/master/tensorflow_serving/apis
_LOG_PREDICT, _PREDICT_REQUEST = 6, 1
_REQUEST_MODEL, _REQUEST_INPUTS = 1, 2
_MODEL_NAME, _MODEL_SIGNATURE = 1, 3
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


def write_warmup(path: Path, name: str, shape: tuple[int, ...], image_dtype: str) -> None:
    """Write requests of one and of eight gray images to each classifying signature.

    The shape is that of an image, `(height, width, channels)`.
    """
    file = path / PATH
    file.parent.mkdir(parents=True, exist_ok=True)
    image = np.full(shape, 127, image_dtype)
    encoded = tf.io.encode_jpeg(np.full((*shape[:2], RGB), 127, "uint8")).numpy()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for count in BATCHES:
            for signature, key, value in (
                ("serving_default", "image", np.stack([image] * count)),
                ("serving_bytes", "image_bytes", np.array([encoded] * count, object)),
            )[: 2 if shape[-1] == RGB else 1]:
                tensor = tf.make_tensor_proto(value).SerializeToString()
                writer.write(_log(name.encode(), signature.encode(), key.encode(), tensor))


def _log(name: bytes, signature: bytes, key: bytes, tensor: bytes) -> bytes:
    model = _field(_MODEL_NAME, name) + _field(_MODEL_SIGNATURE, signature)
    entry = _field(_ENTRY_KEY, key) + _field(_ENTRY_VALUE, tensor)
    request = _field(_REQUEST_MODEL, model) + _field(_REQUEST_INPUTS, entry)
    return _field(_LOG_PREDICT, _field(_PREDICT_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """Return a field of a protocol buffer: its key, its length, its bytes."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Return a number seven bits at a time, the lowest first; the high bit says: more follow."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low]) if not rest else bytes([low | 0x80]) + _varint(rest)
