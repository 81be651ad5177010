"""The gRPC interface of TensorFlow Serving, with its official messages."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from kerastl.serving.connections import LARGEST_HEAD, address
from kerastl.serving.query import (
    Query,
    Rejected,
    Signature,
    check_shape,
    query_of,
    shown,
    signature_named,
)
from kerastl.serving.service import Service

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_AVAILABLE = 30  # ModelVersionStatus.State
_FIELDS = {
    tf.as_dtype(name).as_datatype_enum: f"{field}_val"
    for field, names in {
        "float": ("float32",),
        "double": ("float64",),
        "half": ("float16",),
        "int": ("uint8", "int8", "uint16", "int16", "int32"),
        "int64": ("int64",),
        "uint32": ("uint32",),
        "uint64": ("uint64",),
    }.items()
    for name in names
}
"""Where a `TensorProto` keeps the values of a type, if not as `tensor_content`."""
_GRACE = 5.0  # seconds that requests have to end


@contextlib.asynccontextmanager
async def serving_grpc(service: Service, host: str, port: int) -> AsyncIterator[int]:
    """Serve while the block runs; give it the port, which is a free one for 0."""
    options = [
        ("grpc.max_receive_message_length", service.limits.body_bytes),
        ("grpc.max_metadata_size", LARGEST_HEAD),
        ("grpc.so_reuseport", 0),  # else two servers would share a port, and answer by turns
    ]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=service.limits.connections)
    server.add_generic_rpc_handlers(_handlers(_Answers(service)))
    bound = server.add_insecure_port(address(host, port))
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(_GRACE)


def _version(service: Service, spec: Any) -> Any:
    number = spec.version.value if spec.HasField("version") else None
    return service.version(spec.name, number)


def _handlers(answers: "_Answers") -> list[Any]:
    """Return what is served, by the names of TensorFlow Serving; all else is UNIMPLEMENTED."""
    methods = {
        "PredictionService": {
            "Predict": (predict_pb2.PredictRequest, answers.predict),
            "GetModelMetadata": (get_model_metadata_pb2.GetModelMetadataRequest, answers.metadata),
        },
        "ModelService": {
            "GetModelStatus": (get_model_status_pb2.GetModelStatusRequest, answers.status),
        },
    }
    return [
        grpc.method_handlers_generic_handler(
            f"tensorflow.serving.{service}",
            {name: _handler(answers.service, *each) for name, each in served.items()},
        )
        for service, served in methods.items()
    ]


def _handler(service: Service, kind: Any, method: Callable[[Any], Awaitable[Any]]) -> Any:
    """Read a message, and answer what is rejected with its code and reason."""

    def read(content: bytes) -> Any:
        try:
            return kind.FromString(content)
        except DecodeError as error:
            raise Rejected(400, f"The message is not a {kind.__name__}.") from error

    async def answer(content: bytes, context: Any) -> Any:
        try:
            with service.held() as count:
                count(len(content))
                return await method(await service.apart(len(content), read, content))
        except Rejected as rejected:
            return await context.abort(_CODES[rejected.status], rejected.reason)

    return grpc.unary_unary_rpc_method_handler(
        answer, response_serializer=lambda message: message.SerializeToString()
    )


class _Answers:
    def __init__(self, service: Service):
        self.service = service

    async def predict(self, request: Any) -> Any:
        """Answer a `PredictRequest`."""
        service = self.service
        with service.measured("grpc"):
            version = _version(service, request.model_spec)
            asked = (request, version.signatures, service.limits.rows)
            query = await service.apart(request.ByteSize(), _query, *asked)
            outputs = await service.answer(version, query)
            return _response(request, service.name, version.number, query, outputs)

    async def metadata(self, request: Any) -> Any:
        """Answer what the signatures are."""
        version = _version(self.service, request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = self.service.name
        response.model_spec.version.value = version.number
        described = get_model_metadata_pb2.SignatureDefMap()
        for name, value in version.signature_proto.items():
            described.signature_def[name].CopyFrom(value)
        packed = AnyMessage()
        packed.Pack(described)
        response.metadata["signature_def"].CopyFrom(packed)
        return response

    async def status(self, request: Any) -> Any:
        """Answer which version is served."""
        version = _version(self.service, request.model_spec)
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.add(version=version.number, state=_AVAILABLE)
        return response


def _query(request: Any, signatures: dict[str, Signature], max_rows: int) -> Query:
    signature = signature_named(request.model_spec.signature_name, signatures)
    if set(request.inputs) != {signature.input}:
        raise Rejected(
            400,
            f"The only input must be {signature.input!r}. Received: {shown(list(request.inputs))}",
        )
    return query_of(
        signature, _values(request.inputs[signature.input], signature, max_rows), max_rows
    )


def _values(tensor: Any, signature: Signature, max_rows: int) -> Any:
    """Return the rows of a tensor, of which nothing is made before its shape fits its bytes."""
    kinds = {tf.string.as_datatype_enum: "string_val"} if signature.takes_bytes else _FIELDS
    if tensor.dtype not in kinds or tensor.tensor_shape.unknown_rank:
        kind = "encoded images, DT_STRING" if signature.takes_bytes else "pixels, DT_FLOAT"
        raise Rejected(400, f"{signature.input!r} takes a batch of {kind}.")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    wanted, field = check_shape(signature, shape, max_rows), kinds[tensor.dtype]
    if tensor.tensor_content and not signature.takes_bytes:
        held = len(tensor.tensor_content) / tf.as_dtype(tensor.dtype).size
    else:
        held = len(getattr(tensor, field))
    if held != wanted:
        raise Rejected(400, f"The shape {shape} needs {wanted} values. Received {held:g}.")
    return list(tensor.string_val) if signature.takes_bytes else tf.make_ndarray(tensor)


def _response(
    request: Any, name: str, version: int, query: Query, outputs: dict[str, np.ndarray]
) -> Any:
    unknown = sorted(set(request.output_filter) - set(outputs))
    if unknown:
        raise Rejected(400, f"There is no output {shown(unknown[0])}, only {', '.join(outputs)}.")
    response = predict_pb2.PredictResponse()
    response.model_spec.name = name
    response.model_spec.version.value = version
    response.model_spec.signature_name = query.signature.name
    for key in request.output_filter or outputs:
        response.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key]))
    return response
