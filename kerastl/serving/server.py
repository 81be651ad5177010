"""An HTTP server for an exported model, with the protocols of TensorFlow Serving and KServe."""

import asyncio
import contextlib
import functools
import gc
import importlib.metadata
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kerastl.errors import ArgumentError
from kerastl.serving import front_door, protocol_v1, protocol_v2
from kerastl.serving.connections import address, backlog, guarded
from kerastl.serving.query import Outputs, Rejected, version_number
from kerastl.serving.repository import Repository
from kerastl.serving.service import CONTENT_TYPE, ServerLimits, Service

HOST, PORT, POLL_SECONDS = "127.0.0.1", 8501, 2.0
_logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]


def serve(
    directory: str | Path,
    *,
    name: str | None = None,
    host: str = HOST,
    port: int = PORT,
    limits: ServerLimits | None = None,
    poll_seconds: float = POLL_SECONDS,
    grpc_port: int | None = None,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve the newest version of a model until SIGINT or SIGTERM; finish running requests.

    Args:
        directory: that holds the versions.
        name: of the model in addresses. Default: that of the directory.
        host: address to listen on. Default: this machine alone.
        port: to listen on; 0 takes a free one.
        limits: of the server.
        poll_seconds: after which new versions are looked for.
        grpc_port: to listen on for TensorFlow Serving's gRPC, 0 a free one. Default: not at all.
        ready: called once with the address, when requests are answered.

    Raises:
        ArgumentError: an address cannot be listened on.
        DataError: there is no version that loads.
    """
    _check_free("--port", host, port)
    if grpc_port is not None:
        _check_free("--grpc-port", host, grpc_port)
    directory = Path(directory)
    gc.collect()
    gc.freeze()  # to look through all of TensorFlow again takes the interpreter half a second
    repository = Repository(directory)
    repository.start()
    service = Service(name or directory.resolve().name, repository, limits or ServerLimits())
    app = make_app(service, poll_seconds=poll_seconds, grpc=(host, grpc_port))
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        http=guarded(service.limits),
        ws="none",
        backlog=backlog(),
        lifespan="on",
        timeout_graceful_shutdown=int(service.limits.seconds) + 1,
    )
    _Server(config, ready).run()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[str], None]):
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready(f"http://{address(*self.servers[0].sockets[0].getsockname()[:2])}")


def _check_free(option: str, host: str, port: int) -> None:
    """Raise unless an address can be listened on."""
    try:
        family, kind, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
    except OSError as error:
        raise ArgumentError(
            f"`{option}` cannot be used: cannot listen on {address(host, port)}: "
            f"{error.strerror or error}. Choose another port, or 0 for a free one, or "
            "another `--host`."
        ) from error


def make_app(
    service: Service,
    *,
    poll_seconds: float = POLL_SECONDS,
    grpc: tuple[str, int | None] = ("", None),
) -> Starlette:
    """Return the ASGI application of a service.

    Args:
        service: whose repository is started.
        poll_seconds: after which new versions are looked for.
        grpc: host and port of TensorFlow Serving's gRPC; no port: none.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        polling = asyncio.create_task(_poll(service, poll_seconds))
        async with contextlib.AsyncExitStack() as stack:
            if grpc[1] is not None:
                from kerastl.serving.grpc_service import serving_grpc

                app.state.grpc_port = await stack.enter_async_context(
                    serving_grpc(service, grpc[0], grpc[1])
                )
            yield
        polling.cancel()
        service.close()

    routes = _routes(service)
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={Rejected: _rejected})


async def _poll(service: Service, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            if await asyncio.to_thread(service.repository.refresh):
                _logger.warning("Serving version %d", service.repository.served.number)
        except OSError as error:  # the folder may come back
            _logger.error("Cannot look for new versions: %s", error)


def _routes(service: Service) -> list[Route]:
    endpoints, name = _Endpoints(service), service.name
    ready_v2 = endpoints.telling(lambda version: {"name": name, "ready": True})
    metadata_v2 = endpoints.telling(
        lambda version: protocol_v2.metadata(
            name,
            version.number,
            [version.signatures[each] for each in ("serving_default", "serving_bytes")],
            version.output_specs,
        )
    )
    get: dict[str, Handler] = {
        "/v1/models/{name}": endpoints.telling(lambda version: protocol_v1.status(version.number)),
        "/v1/models/{name}/metadata": endpoints.telling(
            lambda version: protocol_v1.metadata(name, version.number, version.signature_proto)
        ),
        "/v2": endpoints.server_v2,
        "/v2/health/live": endpoints.healthy,
        "/v2/health/ready": endpoints.healthy,
        "/v2/models/{name}": metadata_v2,
        "/v2/models/{name}/ready": ready_v2,
        "/v2/models/{name}/versions/{version}": metadata_v2,
        "/v2/models/{name}/versions/{version}/ready": ready_v2,
        "/metrics": endpoints.metrics,
        **dict.fromkeys(front_door.FILES, endpoints.page),
        "/docs": endpoints.docs,
        "/openapi.json": endpoints.openapi,
    }
    post: dict[str, Handler] = {
        "/predict": endpoints.predict_files,
        "/v1/models/{target:path}": endpoints.predict_v1,
        "/v2/models/{name}/infer": endpoints.infer_v2,
        "/v2/models/{name}/versions/{version}/infer": endpoints.infer_v2,
    }
    methods = {"GET": get, "POST": post}
    return [
        Route(path, endpoint, methods=[method])
        for method, paths in methods.items()
        for path, endpoint in paths.items()
    ]


async def _rejected(request: Request, rejected: Any) -> Response:
    """Answer what is rejected with its status and reason."""
    headers = {"Retry-After": "1"} if rejected.status == 503 else None
    return _json({"error": rejected.reason}, rejected.status, headers)


class _Endpoints:
    def __init__(self, service: Service):
        self._service = service

    async def predict_v1(self, request: Request) -> Response:
        service = self._service
        with service.measured("v1"):
            version = service.version(*protocol_v1.target_of(request.path_params["target"]))
            return await self._answer(
                request, version, protocol_v1.parse_request, protocol_v1.format_response
            )

    async def predict_files(self, request: Request) -> Response:
        service = self._service
        with service.measured("files"):
            version = service.version(service.name)
            top = request.query_params.get("top")
            if top is not None and not re.fullmatch(r"[1-9][0-9]{0,8}", top):
                raise Rejected(400, "`top` must be a whole number, 1 or more.")
            return await self._answer(
                request,
                version,
                functools.partial(front_door.parse_files, request.headers),
                functools.partial(
                    front_door.format_files, version=version, top=None if top is None else int(top)
                ),
            )

    async def page(self, request: Request) -> Response:
        return front_door.page_file(request.url.path)

    async def docs(self, request: Request) -> Response:
        return front_door.docs_page(self._service.name, str(request.base_url).rstrip("/"))

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(front_door.openapi(self._service.name))

    async def infer_v2(self, request: Request) -> Response:
        service = self._service
        with service.measured("v2"):
            version = self._asked_version(request)
            length = request.headers.get(protocol_v2.BINARY_HEADER)
            return await self._answer(
                request,
                version,
                lambda body, *rest: protocol_v2.parse_request(body, length, *rest),
                lambda asked, outputs: protocol_v2.format_response(
                    asked, service.name, version.number, outputs
                ),
            )

    def telling(self, tell: Callable[[Any], object]) -> Handler:
        async def answer(request: Request) -> Response:
            return JSONResponse(tell(self._asked_version(request)))

        return answer

    async def server_v2(self, request: Request) -> Response:
        version, extensions = importlib.metadata.version("kerastl"), ["binary_tensor_data"]
        return JSONResponse({"name": "kerastl", "version": version, "extensions": extensions})

    async def healthy(self, request: Request) -> Response:
        return JSONResponse({"live": True, "ready": True})

    async def metrics(self, request: Request) -> Response:
        return Response(self._service.metrics_text(), media_type=CONTENT_TYPE)

    def _asked_version(self, request: Request) -> Any:
        parameters = request.path_params
        number = parameters.get("version")
        return self._service.version(
            parameters["name"], None if number is None else version_number(number)
        )

    async def _answer(
        self,
        request: Request,
        version: Any,
        parse: Callable[..., Any],
        format_response: Callable[[Any, Outputs], dict[str, object]],
    ) -> Response:
        """Read a request, and return what the version answers to it."""
        service = self._service
        with service.held() as count:
            body = await self._body(request, count)
            size, arguments = len(body), (body, version.signatures, service.limits.rows)
            asked = await service.apart(size, parse, *arguments)
            del body, arguments
            outputs = await _unless_gone(request, service.answer(version, asked.query))
            size = sum(values.nbytes for values in outputs.values())
            answer = await service.apart(size, format_response, asked, outputs)
            return _json(answer, headers={"X-Model-Version": str(version.number)})

    async def _body(self, request: Request, count: Callable[[int], None]) -> bytes:
        """Read the body, but no more of it than is allowed."""
        seconds, parts = self._service.limits.seconds, []
        try:
            async with asyncio.timeout(seconds):
                async for part in request.stream():
                    count(len(part))
                    parts.append(part)
        except TimeoutError as error:
            raise Rejected(408, f"The request did not arrive within {seconds:g} s.") from error
        except ClientDisconnect as error:
            raise _gone() from error
        return b"".join(parts)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Outputs]) -> Outputs:
    """Return what the work returns; end it when the client goes."""

    async def disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, leaving = asyncio.create_task(work), asyncio.create_task(disconnect())
    try:
        await asyncio.wait((answer, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise _gone()
        return answer.result()
    finally:
        answer.cancel()
        leaving.cancel()


def _gone() -> Rejected:
    return Rejected(499, "The client disconnected before the answer.")


def _json(
    answer: dict[str, object], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    # All but ASCII escaped: a text of JSON may hold half a surrogate pair, which no UTF-8 can.
    content = json.dumps(answer, allow_nan=False, separators=(",", ":"))
    return Response(content, status, headers, media_type="application/json")
