import base64
import hashlib
import importlib
import json
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType

import pytest

from kerastl.errors import ArgumentError, ExportError
from kerastl.runs.chain import run_chain
from kerastl.runs.run import load_run
from kerastl.runs.search import run_search


class _Logged(dict):
    """What was logged, by the function that logged it."""

    def add(self, name, *values):
        self.setdefault(name, []).append(values)


@contextmanager
def _open(what):
    yield what


@pytest.fixture
def mlflow(monkeypatch):
    """The functions of MLflow that are called, where the package is not installed."""
    logged, module = _Logged(), ModuleType("mlflow")
    module.active_run = lambda: None
    module.start_run = lambda run_name, nested: _open(logged.add("run", run_name, nested))
    module.log_params = lambda params: logged.add("params", params)
    module.log_metrics = lambda values, step=None: logged.add("metrics", values, step)
    module.log_artifact = lambda path: logged.add("artifacts", path)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return logged


@pytest.fixture
def wandb(monkeypatch):
    """The same of Weights & Biases."""
    logged, module, run = _Logged(), ModuleType("wandb"), ModuleType("run")
    run.log = lambda values: logged.add("epochs", values)
    run.log_artifact = lambda artifact: logged.add("artifact", artifact.name)
    run.summary = ModuleType("summary")
    run.summary.update = lambda values: logged.add("summary", values)
    module.Artifact = lambda name, kind: artifact(name)
    module.init = lambda project, name, config: (
        logged.add("run", project, name, config),
        _open(run),
    )[1]

    def artifact(name):
        made = ModuleType(name)
        made.name, made.add_file = name, lambda path: logged.add("files", path)
        return made

    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return logged


def test_a_run_is_logged_to_mlflow(finished_run, mlflow):
    run = load_run(finished_run.directory)
    run.track("mlflow")
    assert mlflow["run"] == [("run", False)]
    ((params,),) = mlflow["params"]
    assert params["backbone"] == str(finished_run.backbone)
    assert params["head.method"] == "probe"
    *epochs, (measures, _) = mlflow["metrics"]
    assert [step for _, step in epochs] == list(range(len(run.history)))
    assert epochs[0][0]["accuracy"] == run.history[0]["accuracy"]
    assert measures["test/accuracy"] == run.metrics["test"]["accuracy"]
    names = [path.rsplit("/", 1)[1] for (path,) in mlflow["artifacts"]]
    assert names == ["model.keras", "labels.txt", "recipe.json", "report.html", "MODEL_CARD.md"]


def test_a_run_is_logged_to_wandb(finished_run, wandb):
    run = load_run(finished_run.directory)
    run.track("wandb")
    ((project, name, config),) = wandb["run"]
    assert (project, name, config["head.method"]) == ("kerastl", "run", "probe")
    assert len(wandb["epochs"]) == len(run.history)
    ((summary,),) = wandb["summary"]
    assert summary["test/num_images"] == run.metrics["test"]["num_images"]
    assert (len(wandb["files"]), wandb["artifact"]) == (5, [("run",)])


def test_training_ends_in_a_tracker_and_asks_for_it_first(finished_run, tmp_path, mlflow):
    import kerastl

    how = {"output": tmp_path / "run", "export": False, "page": False, "verbose": False}
    with pytest.raises(ArgumentError, match="'mlflow', 'wandb'. Received: track='tensorboard'"):
        kerastl.train(finished_run.images, finished_run.backbone, track="tensorboard", **how)
    assert not (tmp_path / "run").exists()
    kerastl.train(
        finished_run.images,
        str(finished_run.backbone),
        scenario="small_similar",
        track="mlflow",
        **how,
    )
    assert mlflow["run"] == [("run", False)]


@pytest.mark.parametrize("run", [run_search, run_chain])
def test_an_unknown_tracker_is_refused_before_a_search_or_chain_starts(run, tmp_path):
    with pytest.raises(ArgumentError, match="'mlflow', 'wandb'. Received: track='tensorboard'"):
        run(None, tmp_path / "run", track="tensorboard")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed(finished_run, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ArgumentError, match=rf"track='{name}' needs .* pip install 'kerastl\[{name}\]'"
    ):
        load_run(finished_run.directory).track(name)


def test_the_trackers_themselves(finished_run, tmp_path, monkeypatch):
    """Where they are installed: MLflow with files of this machine, wandb offline."""
    mlflow, wandb = pytest.importorskip("mlflow"), pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    run = load_run(finished_run.directory)
    run.track("mlflow")
    run.track("wandb")
    (found,) = mlflow.MlflowClient().search_runs(["0"])
    assert found.data.metrics["test/accuracy"] == run.metrics["test"]["accuracy"]
    assert found.data.params["head.method"] == "probe"
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert wandb.run is None


class _Hub(BaseHTTPRequestHandler):
    """What `huggingface_hub` asks of the hub to upload files, LFS among them."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(self.path)
        if self.headers["Authorization"] != "Bearer hf_mine":
            return self._answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            return self._answer({"url": f"{self.server.url}/me/flowers"})
        if "/preupload/" in self.path:
            modes = {True: "lfs", False: "regular"}
            files = [
                {
                    "path": f["path"],
                    "shouldIgnore": False,
                    "uploadMode": modes[f["path"].endswith("keras")],
                }
                for f in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        if self.path.endswith("/objects/batch"):
            (one,) = json.loads(body)["objects"]
            upload = {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}
            return self._answer({"transfer": "basic", "objects": [{**one, "actions": upload}]})
        self.server.commit = [json.loads(line) for line in body.splitlines()]
        return self._answer(
            {"commitUrl": f"{self.server.url}/me/flowers/commit/1", "commitOid": "1"}
        )

    def do_PUT(self):
        self.server.stored = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({})

    def _answer(self, value, status=200):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    """A server that answers as the hub does."""
    package = pytest.importorskip("huggingface_hub")
    constants = importlib.import_module("huggingface_hub.constants")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.url, server.asked = f"http://127.0.0.1:{server.server_port}", []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(package.HfApi, "__init__", _at(package.HfApi.__init__, server.url))
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _at(init, url):
    return lambda api, *args, **how: init(api, *args, **{"endpoint": url, **how})


# `huggingface_hub` sends bytes to a store of large files in a way that `httpx` warns of.
@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
def test_a_run_is_pushed_to_the_hub(finished_run, hub):
    run = load_run(finished_run.directory)
    assert run.push_to_hub("me/flowers", private=True) == "me/flowers"
    assert (hub.created["name"], hub.created["visibility"]) == ("flowers", "private")
    sent = {line["value"]["path"]: line["value"] for line in hub.commit if line["key"] != "header"}
    assert set(sent) == {"README.md", "model.keras", "labels.txt", "recipe.json", "metrics.json"}
    assert base64.b64decode(sent["labels.txt"]["content"]) == b"bright\ndark\n"
    assert base64.b64decode(sent["README.md"]["content"]).startswith(b"---\n")
    assert hub.stored == (finished_run.directory / "model.keras").read_bytes()
    assert sent["model.keras"]["oid"] == hashlib.sha256(hub.stored).hexdigest()


def test_what_the_hub_refuses(finished_run, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_others")
    with pytest.raises(ExportError, match="(?s)rejected 'me/flowers'.*HF_TOKEN"):
        load_run(finished_run.directory).push_to_hub("me/flowers")
