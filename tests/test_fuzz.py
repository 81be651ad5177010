"""A few hundred mutated inputs, always the same; `tools/fuzz.py` runs as many as one likes."""

import importlib.util
import pathlib

import pytest

PATH = pathlib.Path(__file__).resolve().parents[1] / "tools" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("kerastl_fuzz", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mutated_images_are_accepted_or_named(fuzz, tmp_path):
    result = fuzz.run(256, 0, 1, tmp_path)

    assert result["failures"] == []
    assert sum(result["counts"].values()) == 256
    assert sum(count for kind, count in result["counts"].items() if "accepted" in kind) > 20


def test_mutated_texts_are_accepted_or_refused_in_words(fuzz, tmp_path):
    result = fuzz.run(0, 600, 1, tmp_path)

    assert result["failures"] == []
    kinds = {kind.split(":")[0] for kind in result["counts"]}
    assert kinds == {
        "recipe", "table", "labels", "skip list", "manifest", "backbone", "run directory"
    }  # fmt: skip


def test_mutated_requests_are_accepted_or_refused_in_words(fuzz, tmp_path):
    result = fuzz.run(0, 0, 1, tmp_path, requests=600)

    assert result["failures"] == []
    assert {"request v1: 400", "request v2: 400"} <= set(result["counts"])


@pytest.mark.faults
def test_commands_take_mutated_runs_or_refuse_them_in_words(
    fuzz, tmp_path, finished_run, monkeypatch
):
    monkeypatch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)
    runs = (40, finished_run.directory, finished_run.images)
    result = fuzz.run(seed=1, failures=tmp_path, runs=runs)

    assert result["failures"] == []
    commands = {kind.split(", ")[1] for kind in result["counts"]}
    assert commands == {"report", "predict", "evaluate", "export", "train", "top_losses"}


def test_a_failure_is_kept_and_named(fuzz, tmp_path):
    outcomes = fuzz.Outcomes(tmp_path / "failures")

    def read(data):
        raise KeyError("a traceback")

    fuzz._check_text("recipe", read, b"the input", outcomes)

    assert (tmp_path / "failures" / "failure-0").read_bytes() == b"the input"
    assert outcomes.failures == [f"{tmp_path}/failures/failure-0: recipe: KeyError: 'a traceback'"]


def test_a_file_that_the_scan_drops_is_a_failure(fuzz, tmp_path, monkeypatch):
    outcomes = fuzz.Outcomes(tmp_path)
    monkeypatch.setattr(fuzz.scan, "scan_files", lambda paths: ([], []))

    fuzz._check_block({"a": b"1"}, outcomes)

    assert outcomes.failures == [f"{tmp_path}/failure-0: named 0 times"]
