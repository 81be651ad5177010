"""`kerastl serve` as a process: real JPEG files over each protocol, and many clients at once."""

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serving.conftest import NAMES, telling_head

for package in ("starlette", "uvicorn", "prometheus_client"):
    pytest.importorskip(package, reason="needs kerastl[serve]")

REQUESTS = 20
MOST_REQUESTS = 4000  # of a client that still waits for the new version, which loads meanwhile
PAUSE = 0.2  # seconds between those that wait


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, request):
    """JPEG files: real ones where they are at hand, else encoded patterns."""
    try:
        folder = request.getfixturevalue("real_photographs")
        return sorted((folder / "val").rglob("*.jpg"))[::20]
    except pytest.skip.Exception:
        folder = tmp_path_factory.mktemp("jpegs")
        rng = np.random.default_rng(5)
        for index in range(8):
            coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3)).astype("uint8"))
            coarse.resize((200, 150)).save(folder / f"{index}.jpg", quality=95)
        return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def expected(exported, photographs):
    """The Keras model's probabilities of the photographs, by the pipeline of training."""
    from kerastl.data.unlabelled import load_unlabelled
    from kerastl.model.kept_rules import rules_of

    rules = rules_of(exported.model)
    split, _ = load_unlabelled([str(path) for path in photographs], rules=rules)
    found = np.concatenate(
        [exported.model.predict_on_batch(batch) for batch in split.images(exported.size)]
    )
    assert found.std(0).max() > 0.1
    assert len(set(found.argmax(1))) > 1
    return found


def versions_of(exported, folder):
    """Return a folder with version 1, and version 2, which has another head and other names."""
    import keras

    from kerastl.serving.export import export_model

    shutil.copytree(exported.path, folder / "insects" / "1")
    other = keras.saving.load_model(exported.model_file)
    telling_head(other, exported.images, seed=9)
    path = export_model(other, folder / "later", class_names=["x", "y", "z"], version=2)
    return folder / "insects", path


@contextlib.contextmanager
def serving(folder):
    """Serve a folder by the command, in a process; give its ports, of HTTP and gRPC, and its id."""
    grpc_port = _free_port()
    program = "from kerastl.cli.app import main; main()"
    command = [sys.executable, "-c", program, "serve", str(folder), "--port", "0"]
    command += ["--grpc-port", str(grpc_port), "--poll-seconds", "0.2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if match := re.search(r"Serving insects at http://127.0.0.1:(\d+)/", line):
                break
        else:
            pytest.fail("the server ended before it was ready")
        yield int(match[1]), grpc_port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM), stderr
    assert "Traceback" not in stderr


@pytest.fixture(scope="module")
def versions(exported, tmp_path_factory):
    return versions_of(exported, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(versions):
    """The ports and the id of a server of version 1."""
    with serving(versions[0]) as ports:
        yield ports


def _free_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def post(port, path, body):
    address = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(address, json.dumps(body).encode(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def b64(path):
    return base64.b64encode(Path(path).read_bytes()).decode()


def labels_of(probabilities):
    return [NAMES[index] for index in probabilities.argmax(1)]


def test_real_files_over_v1(server, photographs, expected):
    instances = [{"b64": b64(path)} for path in photographs]
    body = {"signature_name": "serving_bytes", "instances": instances}
    status, answer = post(server[0], "/v1/models/insects:predict", body)
    assert status == 200
    rows = answer["predictions"]
    np.testing.assert_allclose([row["probabilities"] for row in rows], expected, atol=1e-5)
    assert [row["label"] for row in rows] == labels_of(expected)


def test_real_files_over_v2(server, photographs, expected):
    data = [b64(path) for path in photographs]
    tensor = {"name": "image_bytes", "shape": [len(data)], "datatype": "BYTES", "data": data}
    status, answer = post(server[0], "/v2/models/insects/infer", {"inputs": [tensor]})
    assert status == 200
    outputs = {output["name"]: output for output in answer["outputs"]}
    got = np.reshape(outputs["probabilities"]["data"], outputs["probabilities"]["shape"])
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert outputs["label"]["data"] == labels_of(expected)


def test_real_files_over_grpc_with_the_official_messages(server, photographs, expected):
    grpc = pytest.importorskip("grpc", reason="needs kerastl[grpc]")
    pytest.importorskip("tensorflow_serving.apis", reason="needs kerastl[grpc]")
    import tensorflow as tf
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "insects", "serving_bytes"
    files = [path.read_bytes() for path in photographs]
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files))
    with grpc.insecure_channel(f"127.0.0.1:{server[1]}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        outputs = stub.Predict(request, timeout=60).outputs
        np.testing.assert_allclose(tf.make_ndarray(outputs["probabilities"]), expected, atol=1e-5)
        labels = [label.decode() for label in tf.make_ndarray(outputs["label"])]
        assert labels == labels_of(expected)

        asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        asked.model_spec.name = "insects"
        described = get_model_metadata_pb2.SignatureDefMap()
        packed = stub.GetModelMetadata(asked, timeout=60).metadata["signature_def"]
        assert packed.Unpack(described)
        assert "image_bytes" in described.signature_def["serving_bytes"].inputs

        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "insects"
        states = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status, timeout=60)
        assert [(one.version, one.state) for one in states.model_version_status] == [(1, 30)]

        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([files[0], b"<html>"]))
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request, timeout=60)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "image 1: HTML or XML" in caught.value.details()


async def ask(reader, writer, body):
    """Send a request on an open connection; return its status, version and answer."""
    head = "POST /v1/models/insects:predict HTTP/1.1\r\nHost: m\r\nContent-Length: "
    writer.write(head.encode() + str(len(body)).encode() + b"\r\n\r\n" + body)
    await writer.drain()
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    answer = json.loads(await reader.readexactly(int(headers["content-length"])))
    return int(lines[0].split()[1]), headers.get("x-model-version"), answer


async def client(port, first, bodies, damaged, answers, clients):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for index in range(MOST_REQUESTS):
        if index >= REQUESTS:
            if any(version == "2" for *_, version, _ in answers[-clients:]):
                break
            await asyncio.sleep(PAUSE)
        turn = first + index
        bad = turn % 10 == 3
        which = turn % (len(damaged) if bad else len(bodies))
        answer = await ask(reader, writer, (damaged if bad else bodies)[which])
        answers.append((bad, which, *answer))
    writer.close()
    await writer.wait_closed()


async def crowd(port, clients, bodies, damaged, land):
    """Let all clients ask at once; `land` a version once each has had an answer."""
    answers = []
    tasks = [
        asyncio.create_task(client(port, number * REQUESTS, bodies, damaged, answers, clients))
        for number in range(clients)
    ]
    while len(answers) < clients:
        await asyncio.sleep(0.01)
        assert not any(task.done() and task.exception() for task in tasks)
    land()
    await asyncio.gather(*tasks)
    return answers


def body_of(data):
    instances = [{"b64": base64.b64encode(data).decode()}]
    return json.dumps({"signature_name": "serving_bytes", "instances": instances}).encode()


def answers_of(path, files):
    """What a version says of files, by itself."""
    from kerastl.serving.artifacts import SavedModel

    got = SavedModel(path).classify_files(files)
    return [label.decode() for label in got["label"]], got["probabilities"]


def check_a_crowd(port, clients, versions, photographs):
    """Let clients ask while version 2 lands: each answer is right for the version it names."""
    files = [small_jpeg(path) for path in photographs]
    damage = [files[0][: len(files[0]) // 2], b"", b"<html></html>"]
    truth = {"1": answers_of(versions[0] / "1", files), "2": answers_of(versions[1], files)}

    answers = asyncio.run(
        asyncio.wait_for(
            crowd(
                port,
                clients,
                [body_of(file) for file in files],
                [body_of(file) for file in damage],
                lambda: os.rename(versions[1], versions[0] / "2"),
            ),
            400,
        )
    )

    assert len(answers) >= clients * REQUESTS
    assert {status for bad, _, status, _, _ in answers if bad} == {400}
    assert {status for bad, _, status, _, _ in answers if not bad} == {200}
    served = {version for bad, _, _, version, _ in answers if not bad}
    assert served == {"1", "2"}
    for bad, which, _, version, answer in answers:
        if bad:
            assert "1 of 1 images are bad: image 0: " in answer["error"]
            continue
        (row,) = answer["predictions"]
        labels, probabilities = truth[version]
        assert row["label"] == labels[which]
        np.testing.assert_allclose(row["probabilities"], probabilities[which], atol=1e-5)


@pytest.mark.slow
def test_eight_clients_while_a_version_lands(server, versions, photographs):
    """The last test of this server: it serves version 2 afterwards."""
    check_a_crowd(server[0], 8, versions, photographs)


@pytest.mark.slow
def test_two_hundred_clients_while_a_version_lands(real_exported, photographs, tmp_path):
    versions = versions_of(real_exported, tmp_path)
    with serving(versions[0]) as (port, *_):
        check_a_crowd(port, 200, versions, photographs)


def small_jpeg(path):
    import io

    with Image.open(path) as image:
        file = io.BytesIO()
        image.convert("RGB").resize((160, 120)).save(file, "JPEG")
    return file.getvalue()
