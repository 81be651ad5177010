"""`kerastl serve`: serves an exported model over HTTP, by default on this machine only."""

import os
from pathlib import Path
from typing import Annotated

import typer

from kerastl._checks import check_packages
from kerastl.cli.console import say, start_tensorflow
from kerastl.cli.options import advanced

SERVE = ("starlette", "uvicorn", "httptools", "prometheus_client", "python_multipart")
GRPC = ("grpc", "tensorflow_serving")


def serve(
    model: Annotated[
        Path, typer.Argument(metavar="RUN|DIR", help="Run, or folder of numbered SavedModels.")
    ],
    name: Annotated[str | None, typer.Option(help="Model name; default: the folder.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free port.")] = 8501,
    grpc_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port for gRPC.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until a request fails.")] = 30.0,
    poll_seconds: Annotated[float, advanced(min=0.1, help="Seconds between version checks.")] = 2.0,
    max_body: Annotated[int, advanced(min=1, help="Maximum bytes of a request.")] = 32 * 2**20,
    max_pixels: Annotated[int, advanced(min=1, help="Maximum pixels of a request.")] = 55_000_000,
    max_batch: Annotated[int, advanced(min=1, help="Maximum images in a batch.")] = 32,
    max_queue: Annotated[int, advanced(min=1, help="Maximum waiting images.")] = 2048,
) -> None:
    """Serve a model over HTTP (and gRPC).

    Supports the REST interface of TensorFlow Serving (v1) and the open inference protocol (v2).
    Serves the newest version and switches when a newer one appears.

    Example: kerastl serve runs/1 --port 8501
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
        body_bytes=max_body, pixels=max_pixels, batch_rows=max_batch, queue_rows=max_queue,
        seconds=timeout,
    )  # fmt: skip
    directory = model / "saved_model" if (model / "saved_model").is_dir() else model
    chosen = name or (model if directory != model else directory).resolve().name
    run(
        directory, name=chosen, host=host, port=port, limits=limits, poll_seconds=poll_seconds,
        grpc_port=grpc_port,
        ready=lambda address: say(
            f"Serving {chosen} at {address}/v1/models/{chosen}\nIn a browser: {address}\n"
            f"From a shell: curl --data-binary @image.jpg {address}/predict"
        ),
    )  # fmt: skip
