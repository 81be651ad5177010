"""TensorFlow Serving's gRPC, with its official messages, over the same model as the HTTP server."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.any_pb2 import Any as AnyMessage
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from kerastl.serving.query import Query, Rejected, Signature, query_of, signature_named
from kerastl.serving.service import Service

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_AVAILABLE = 30  # ModelVersionStatus.State
_GRACE = 5.0  # seconds that requests have to end


@contextlib.asynccontextmanager
async def serving_grpc(service: Service, host: str, port: int) -> AsyncIterator[int]:
    """Serve while the block runs; give it the port, which is a free one for 0."""
    most = [("grpc.max_receive_message_length", service.limits.body_bytes)]
    server = grpc.aio.server(options=most, maximum_concurrent_rpcs=service.limits.connections)
    servicer = _Servicer(service)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)
    bound = server.add_insecure_port(f"{host}:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(_GRACE)


def _version(service: Service, spec: Any) -> Any:
    number = spec.version.value if spec.HasField("version") else None
    return service.version(spec.name, number)


def _answered(method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any, Any], Any]:
    """Answer what is rejected with its code and reason."""

    async def answer(self: Any, request: Any, context: Any) -> Any:
        try:
            return await method(self, request)
        except Rejected as rejected:
            return await context.abort(_CODES[rejected.status], rejected.reason)

    return answer


class _Servicer(
    prediction_service_pb2_grpc.PredictionServiceServicer,  # type: ignore[misc]
    model_service_pb2_grpc.ModelServiceServicer,  # type: ignore[misc]
):
    def __init__(self, service: Service):
        self._service = service

    @_answered
    async def Predict(self, request: Any) -> Any:
        """Answer a `PredictRequest`."""
        service = self._service
        with service.measured("grpc"):
            version = _version(service, request.model_spec)
            query = _query(request, version.signatures, service.limits.rows)
            outputs = await service.answer(version, query)
            return _response(request, service.name, version.number, query, outputs)

    @_answered
    async def GetModelMetadata(self, request: Any) -> Any:
        """Answer what the signatures are."""
        version = _version(self._service, request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = self._service.name
        response.model_spec.version.value = version.number
        described = get_model_metadata_pb2.SignatureDefMap()
        for name, value in version.signature_proto.items():
            described.signature_def[name].CopyFrom(value)
        packed = AnyMessage()
        packed.Pack(described)
        response.metadata["signature_def"].CopyFrom(packed)
        return response

    @_answered
    async def GetModelStatus(self, request: Any) -> Any:
        """Answer which version is served."""
        version = _version(self._service, request.model_spec)
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.add(version=version.number, state=_AVAILABLE)
        return response


def _query(request: Any, signatures: dict[str, Signature], max_rows: int) -> Query:
    signature = signature_named(request.model_spec.signature_name, signatures)
    if set(request.inputs) != {signature.input}:
        raise Rejected(
            400, f"The inputs must be {signature.input!r} alone. Received: {sorted(request.inputs)}"
        )
    try:
        values = tf.make_ndarray(request.inputs[signature.input])
    except (TypeError, ValueError) as error:
        raise Rejected(400, f"The tensor could not be read: {error}") from error
    if signature.takes_bytes != (values.dtype == object) or values.ndim == 0:
        kind = "encoded images, DT_STRING" if signature.takes_bytes else "pixels"
        raise Rejected(400, f"{signature.input!r} takes a batch of {kind}.")
    rows = [bytes(value) for value in values.ravel()] if signature.takes_bytes else values
    return query_of(signature, rows, max_rows)


def _response(
    request: Any, name: str, version: int, query: Query, outputs: dict[str, np.ndarray]
) -> Any:
    unknown = sorted(set(request.output_filter) - set(outputs))
    if unknown:
        raise Rejected(400, f"There is no output {unknown[0]!r}, only {', '.join(outputs)}.")
    response = predict_pb2.PredictResponse()
    response.model_spec.name = name
    response.model_spec.version.value = version
    response.model_spec.signature_name = query.signature.name
    for key in request.output_filter or outputs:
        response.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key]))
    return response
