"""Requests a second of `kerastl serve`, over calling the SavedModel directly at the same batch.

A head of random weights on MobileNetV2 is exported; photographs of about 500 x 375 pixels go to it
as JPEG files, one a request. The server is `kerastl serve` in a process of its own, with as many
clients as its largest batch, in this process: their work is on the same cores and counts against
it. `direct` calls the signature `serving_bytes` in this process, while the server is idle,
in batches of as many images as the server's had on average. Rounds alternate. All traffic stays on
127.0.0.1.

    python benchmarks/serving.py [--backbones "MobileNetV2(alpha=0.35)"] [--clients 32]
"""

import asyncio
import base64
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common

GOAL = 0.7
NAME = "photographs"
ARMS = ("v1", "v2", "v2 binary")


def main() -> None:
    parser = common.arguments(__doc__, rounds=5)
    parser.add_argument(
        "--backbones", nargs="+", default=["MobileNetV2", "MobileNetV2(alpha=0.35)"]
    )
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=480, help="of a round")
    args = parser.parse_args()
    if args.smoke:
        args.clients, args.requests = 8, 64
    report, rows, runs = common.Report(__file__, args), [], {}
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(common.photographs(args, Path(folder), 128, 4).glob("train/*/*"))
        contents = [path.read_bytes() for path in files]
        for number, backbone in enumerate(args.backbones):
            directory = export(args, backbone, Path(folder) / str(number) / NAME)
            found, runs[backbone] = run_backbone(args, backbone, directory, contents)
            rows += found
    report.keep(runs=runs)
    report.table(f"One photograph a request, {args.clients} clients", rows)
    goals = [
        common.Goal(f"{row['backbone']}, {row['protocol']}: of direct", row["of direct"], GOAL)
        for row in rows
    ]
    report.finish(goals)


def export(args: Any, backbone: str, directory: Path) -> Path:
    """Export a network with a random head, and return the folder of its versions."""
    import numpy as np

    from kerastl.model.build import build_transfer_model
    from kerastl.serving.export import export_model

    model = build_transfer_model(backbone, 4, weights=common.weights_of(args, backbone))
    rng = np.random.default_rng(0)
    head = model.layers[-1]
    head.set_weights([rng.normal(size=weight.shape) for weight in head.get_weights()])
    export_model(model, directory, class_names=["a", "b", "c", "d"])
    return directory


def run_backbone(
    args: Any, backbone: str, directory: Path, contents: list[bytes]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a row a protocol, and the seconds of each round."""
    from kerastl.serving.artifacts import SavedModel

    served = SavedModel(directory / "1")
    chosen = [contents[index % len(contents)] for index in range(args.requests)]
    seconds: dict[str, list[dict[str, float]]] = {}
    batches: dict[str, list[float]] = {arm: [] for arm in ARMS}
    with server(directory, args.clients) as port:
        bodies = {arm: [body_of(arm, content) for content in chosen] for arm in ARMS}
        for arm in ARMS:
            ask_all(port, args.clients, bodies[arm][: 2 * args.clients])  # warm
        direct(served, chosen[: args.clients], args.clients)
        for _, arm in common.interleaved(ARMS, common.num_rounds(args)):
            before = batch_counts(port)
            took = common.timed(lambda a=arm: ask_all(port, args.clients, bodies[a]))
            rows, count = (b - a for a, b in zip(before, batch_counts(port), strict=True))
            batches[arm].append(rows / count)
            seconds.setdefault(arm, []).append(took)
            size = max(1, round(rows / count))
            took = common.timed(lambda s=size: direct(served, chosen, s))
            seconds.setdefault(f"direct beside {arm}", []).append(took)
    rows = []
    for arm in ARMS:
        beside = seconds[f"direct beside {arm}"]
        rows.append(
            {
                "backbone": backbone,
                "protocol": arm,
                "requests/s": args.requests / common.median(seconds[arm], "wall"),
                "mean batch": sum(batches[arm]) / len(batches[arm]),
                "direct images/s": args.requests / common.median(beside, "wall"),
                "of direct": common.median_ratio(beside, seconds[arm], "wall"),
            }
        )
    return rows, seconds


def direct(served: Any, contents: list[bytes], batch_size: int) -> None:
    """Call the signature on all files."""
    for start in range(0, len(contents), batch_size):
        assert served.classify_files(contents[start : start + batch_size])["valid"].all()


@contextmanager
def server(directory: Path, max_batch: int) -> Iterator[int]:
    """Give the port of a server that runs meanwhile."""
    program = "from kerastl.cli.app import main; main()"
    command = [sys.executable, "-c", program, "serve", str(directory), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--max-batch", str(max_batch)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if match := re.search(r"127.0.0.1:(\d+)/", line):
                yield int(match[1])
                break
        else:
            common.stop("The server ended before it was ready.")
    finally:
        process.terminate()
        process.communicate(timeout=60)


def batch_counts(port: int) -> tuple[float, float]:
    """Return how many images and batches the server has run."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found = [
        re.search(rf"^kerastl_batch_rows_{what} (\S+)", text, re.M) for what in ("sum", "count")
    ]
    rows, count = (float(match[1]) for match in found if match)
    return rows, count


def body_of(arm: str, content: bytes) -> bytes:
    """Return a whole HTTP request."""
    text = {"b64": base64.b64encode(content).decode()} if arm != "v2 binary" else {}
    tensor: dict[str, Any] = {"name": "image_bytes", "shape": [1], "datatype": "BYTES"}
    rest, headers = b"", ""
    if arm == "v1":
        path = f"/v1/models/{NAME}:predict"
        asked: dict[str, Any] = {"signature_name": "serving_bytes", "instances": [text]}
    else:
        path = f"/v2/models/{NAME}/infer"
        if text:
            tensor["data"] = [text["b64"]]
        else:
            rest = struct.pack("<I", len(content)) + content
            tensor["parameters"] = {"binary_data_size": len(rest)}
        asked = {"inputs": [tensor]}
    body = json.dumps(asked).encode()
    if rest:
        headers = f"Inference-Header-Content-Length: {len(body)}\r\n"
    body += rest
    head = f"POST {path} HTTP/1.1\r\nHost: m\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def ask_all(port: int, clients: int, bodies: list[bytes]) -> None:
    """Send all requests over so many connections at once."""

    async def client(waiting: Iterator[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in waiting:
            writer.write(body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = re.search(r"content-length: (\d+)", head)
            assert length is not None
            answer = await reader.readexactly(int(length[1]))
            assert " 200 " in head.splitlines()[0], answer
        writer.close()

    async def crowd() -> None:
        waiting = iter(bodies)
        await asyncio.gather(*(client(waiting) for _ in range(clients)))

    asyncio.run(asyncio.wait_for(crowd(), 600))


if __name__ == "__main__":
    main()
