"""An MLServer runtime for SavedModels of kerastl, which needs only MLServer and TensorFlow.

MLServer wants another protobuf than kerastl's environment may have, so it runs in one of its own,
with a copy of this file beside `model-settings.json`:

    {"name": "flowers", "implementation": "mlserver_runtime.SavedModelRuntime",
     "parameters": {"uri": "./1"}}
"""

import asyncio
import base64
from typing import Any

import numpy as np
import tensorflow as tf
from mlserver import MLModel
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse, RequestInput, ResponseOutput
from mlserver.utils import get_model_uri

_BY_INPUT = {"image": "serving_default", "image_bytes": "serving_bytes"}
_DATATYPES = {"f": "FP32", "i": "INT64", "b": "BOOL", "O": "BYTES"}


class SavedModelRuntime(MLModel):  # type: ignore[misc]
    """Answers `image` (pixels) and `image_bytes` (encoded images, base64 in JSON)."""

    async def load(self) -> bool:
        """Load the SavedModel at `parameters.uri`."""
        self._loaded = tf.saved_model.load(await get_model_uri(self._settings))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        if len(payload.inputs) != 1 or payload.inputs[0].name not in _BY_INPUT:
            raise InferenceError("Give one input, named 'image' or 'image_bytes'.")
        given = payload.inputs[0]
        signature = self._loaded.signatures[_BY_INPUT[given.name]]
        tensor = _tensor(given, signature.structured_input_signature[1][given.name].dtype)
        outputs = await asyncio.to_thread(lambda: signature(**{given.name: tensor}))
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            id=payload.id,
            outputs=[_output(name, value.numpy()) for name, value in outputs.items()],
        )


def _tensor(given: RequestInput, dtype: Any) -> Any:
    data = getattr(given.data, "root", given.data)
    if given.name == "image":
        pixels = np.asarray(data, dtype.as_numpy_dtype).reshape(given.shape)
        return tf.constant(pixels)
    return tf.constant([_decoded(text) for text in data], tf.string)


def _decoded(value: Any) -> bytes:
    """Return an encoded image; MLServer gives bytes where they came as binary data."""
    try:
        return bytes(value) if isinstance(value, bytes) else base64.b64decode(value, validate=True)
    except ValueError as error:
        raise InferenceError(f"An encoded image must be base64: {error}") from error


def _output(name: str, values: np.ndarray) -> ResponseOutput:
    flat: list[Any] = values.ravel().tolist()
    if values.dtype.kind == "O":
        flat = [text.decode("utf-8", "replace") for text in flat]
    return ResponseOutput(
        name=name, shape=list(values.shape), datatype=_DATATYPES[values.dtype.kind], data=flat
    )
