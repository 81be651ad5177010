"""`kerastl serve`: an exported model behind HTTP, on this machine alone unless told otherwise."""

import os
from pathlib import Path
from typing import Annotated

import typer

from kerastl._checks import check_packages
from kerastl.cli.console import say, start_tensorflow

SERVE = ("starlette", "uvicorn", "httptools", "prometheus_client")
GRPC = ("grpc", "tensorflow_serving")


def serve(
    model: Annotated[
        Path, typer.Argument(metavar="RUN|DIR", help="A run, or a folder of numbered SavedModels.")
    ],
    name: Annotated[
        str | None, typer.Option(help="Of the model in addresses; default: that of the folder.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8501,
    grpc_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="TensorFlow Serving's gRPC, too.")
    ] = None,
    poll_seconds: Annotated[
        float, typer.Option(min=0.1, help="After which new versions are looked for.")
    ] = 2.0,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = 32 * 2**20,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Pixels of the images of a request, by their headers.")
    ] = 100_000_000,
    max_batch: Annotated[int, typer.Option(min=1, help="Images that are run together.")] = 32,
    max_queue: Annotated[int, typer.Option(min=1, help="Images that may wait.")] = 2048,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for an answer.")] = 30.0,
) -> None:
    """Answer images over HTTP: TensorFlow Serving's REST (v1) and the open protocol (v2).

    The newest version is served, and a newer one as soon as it is there.
    """
    check_packages("`kerastl serve`", SERVE, "serve")
    if grpc_port is not None:
        check_packages("`--grpc-port`", GRPC, "grpc")
    # One costly image must not take the threads that run the operations of all others.
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(8 + (os.cpu_count() or 1)))
    start_tensorflow(deterministic=False)
    from kerastl.serving.server import serve as run
    from kerastl.serving.service import ServerLimits

    limits = ServerLimits(
        body_bytes=max_body,
        pixels=max_pixels,
        batch_rows=max_batch,
        queue_rows=max_queue,
        seconds=timeout,
    )
    directory = model / "saved_model" if (model / "saved_model").is_dir() else model
    chosen = name or (model if directory != model else directory).resolve().name
    run(
        directory,
        name=chosen,
        host=host,
        port=port,
        limits=limits,
        poll_seconds=poll_seconds,
        grpc_port=grpc_port,
        ready=lambda address: say(f"Serving {chosen} at {address}/v1/models/{chosen}"),
    )
