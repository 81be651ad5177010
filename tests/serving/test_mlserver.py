"""MLServer, in an environment of its own, on an exported version: real JPEG files over V2."""

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from kerastl.data.unlabelled import load_unlabelled
from kerastl.model.kept_rules import rules_of
from tests.serving.conftest import NAMES

pytestmark = pytest.mark.serving

HERE = Path(__file__).parent
RUNTIME = HERE.parents[1] / "kerastl" / "serving" / "mlserver_runtime.py"
READY_SECONDS = 120


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The folder of MLServer's environment; `KERASTL_TEST_MLSERVER` names one to keep."""
    given = os.environ.get("KERASTL_TEST_MLSERVER")
    folder = Path(given) if given else tmp_path_factory.mktemp("mlserver") / "venv"
    script = HERE / "mlserver_environment.sh"
    done = subprocess.run([script, folder], capture_output=True, text=True, timeout=900)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("needs a package index that has MLServer 1.7.1")
    assert done.returncode == 0, done.stderr
    yield folder
    if not given:
        shutil.rmtree(folder)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def settings(folder, exported):
    """Write what MLServer reads, as docs/serving.md shows it; return the port of HTTP."""
    http, grpc, metrics = free_ports(3)
    server = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": 0,
    }
    (folder / "settings.json").write_text(json.dumps(server))
    model = {
        "name": "insects",
        "implementation": "mlserver_runtime.SavedModelRuntime",
        "parameters": {"uri": str(exported.path)},
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    shutil.copy(RUNTIME, folder)
    return http


@pytest.fixture(scope="module")
def server(environment, exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    port = settings(folder, exported)
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [environment / "bin" / "mlserver", "start", folder], stdout=log, stderr=log, cwd=folder
        )
    try:
        wait_until_ready(port, process, folder / "log")
        yield port
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(port, process, log):
    end = time.monotonic() + READY_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        try:
            address = f"http://127.0.0.1:{port}/v2/models/insects/ready"
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)


def infer(port, tensor):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/insects/infer",
        json.dumps({"inputs": [tensor]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        outputs = {output["name"]: output for output in json.load(answer)["outputs"]}
    return {name: np.reshape(one["data"], one["shape"]) for name, one in outputs.items()}


def files_tensor(files):
    data = [base64.b64encode(file).decode() for file in files]
    return {"name": "image_bytes", "shape": [len(data)], "datatype": "BYTES", "data": data}


def test_real_files_get_the_model_s_labels_and_probabilities(server, exported, real_photographs):
    paths = sorted(str(path) for path in (real_photographs / "val").rglob("*.jpg"))[::15]
    split, _ = load_unlabelled(paths, rules=rules_of(exported.model))
    expected = np.concatenate(
        [exported.model.predict_on_batch(batch) for batch in split.images(exported.size)]
    )
    got = infer(server, files_tensor([Path(path).read_bytes() for path in paths]))
    np.testing.assert_allclose(got["probabilities"], expected, atol=1e-5)
    assert got["label"].tolist() == [NAMES[index] for index in expected.argmax(1)]
    assert got["valid"].all()


def test_pixels_and_damage(server, exported):
    tensor = {"name": "image", "shape": [2, *exported.size, 3], "datatype": "FP32"}
    got = infer(server, {**tensor, "data": exported.images[:2].ravel().tolist()})
    np.testing.assert_allclose(got["probabilities"], exported.expected[:2], atol=1e-5)
    got = infer(server, files_tensor([exported.files[0], b"<html>"]))
    assert got["valid"].tolist() == [True, False]
    np.testing.assert_allclose(got["probabilities"][0], exported.expected[0], atol=1e-5)


def test_what_is_no_base64_is_an_error_of_the_client(server):
    with pytest.raises(urllib.error.HTTPError) as caught:
        infer(server, {**files_tensor([b""]), "data": ["@@@"]})
    assert 400 <= caught.value.code < 500
    caught.value.close()
