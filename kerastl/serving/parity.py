"""Checks that exported files predict the same as the model: `parity.json`."""

import contextlib
import functools
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

import keras
import numpy as np

import kerastl
from kerastl._atomic import atomic_write_json
from kerastl._checks import check_choice
from kerastl._hashing import sha256_of_file
from kerastl._task import Task
from kerastl._versions import versions
from kerastl.distribute import on_one_device
from kerastl.errors import ExportError
from kerastl.serving.formats import BY_NAME, Format
from kerastl.serving.parity_child import MAPS, Answers, run_artifacts
from kerastl.serving.versions import CERTIFICATE

PROOFS = ("here", "process")
Prover = Callable[[Path, list[str], Mapping[str, np.ndarray]], Answers]
"""From a version's folder, its formats and images to what its artifacts answer."""
EMBEDDING_TOLERANCE = 1e-4  # relative to the largest number of an embedding, which has no scale
_SECONDS = 1800  # after which a child that still runs has hung


class ArtifactRow(TypedDict, total=False):
    """What the certificate says of one artifact; the agreement is of labels alone."""

    artifact: str
    file: str
    largest_difference: float
    tolerance: float
    label_agreement: float
    least_agreement: float
    accuracy: float | None
    bytes: int


COLUMNS = ("artifact", "file", "MB", "largest difference", "same label", "accuracy")


def cells_of(row: Mapping[str, Any]) -> list[str]:
    """Return what a table of a certificate's artifacts shows in `COLUMNS`."""
    numbers = {
        "megabytes": ".2f", "largest_difference": ".1e", "label_agreement": ".0%", "accuracy": ".3f"
    }  # fmt: skip
    values = {**row, "megabytes": row["bytes"] / 1e6 if "bytes" in row else None}
    shown = [
        "" if values.get(name) is None else f"{values[name]:{form}}"
        for name, form in numbers.items()
    ]
    return [row["artifact"], row["file"], *shown]


def certify(
    task: Task,
    version: Path,
    prove: Prover,
    formats: Sequence[Format],
    *,
    given: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    facts: Mapping[str, object],
) -> None:
    """Load and run every artifact of a version, and write what it differs by.

    Args:
        task: of the model.
        version: the folder of the version; `parity.json` is its last file.
        prove: of `proved_in`.
        formats: what was written there; none for a network that slides over larger images.
        given: what `run_artifacts` runs them on.
        expected: what the Keras model itself answers, by the name of the artifact: outputs
            `(n, num_outputs)`, maps of them, or embeddings as `"embed"`.
        labels: of the images, or None where they are not known.
        facts: what else the certificate says.

    Raises:
        ExportError: an artifact does not load, or differs by more than its tolerance.
    """
    answers = prove(version, [each.name for each in formats] or [MAPS], given)
    rows = []
    for name in [name for name in expected if name in answers]:
        wanted, got = (x.reshape(-1, x.shape[-1]) for x in (expected[name], answers[name]))
        row = compare_artifact(task, name, got, wanted, labels)
        if name != "embed":
            row["bytes"] = _size(version / row["file"])
        rows.append(row)
    raise_if_different(rows)
    packages = {package for format_ in formats for package in format_.packages}
    found = {name: importlib.metadata.version(name) for name in sorted(packages)}
    certificate = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        "artifacts": rows,
        "versions": {**versions(), **found},
        "sha256": digests(version),
    }
    atomic_write_json(version / CERTIFICATE, certificate)


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities of scores divided by a temperature."""
    if temperature == 1.0:
        return probabilities
    scores = np.log(np.maximum(probabilities.astype("float64"), 1e-38)) / temperature
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), "float32")


def compare_artifact(
    task: Task, name: str, got: np.ndarray, expected: np.ndarray, labels: np.ndarray | None
) -> ArtifactRow:
    """Return the row of an artifact in the certificate; `labels` where they are known."""
    # Signatures belong to the SavedModel.
    signature = name == "embed" or name.startswith("serving_")
    format_ = BY_NAME["saved_model" if signature else name]
    row = ArtifactRow(artifact=name, file=format_.file)
    if name == "embed":
        scale = max(float(np.abs(expected).max()), 1e-12)
        difference = float(np.abs(got - expected).max()) / scale
        return {**row, "largest_difference": difference, "tolerance": EMBEDDING_TOLERANCE}
    row |= {"largest_difference": task.difference(got, expected), "tolerance": format_.tolerance}
    if (agreement := task.agreement(got, expected)) is None:
        return row
    return {
        **row,
        "label_agreement": agreement,
        "least_agreement": format_.agreement,
        "accuracy": None if labels is None else task.share_right(got, labels),
    }


def raise_if_different(rows: Sequence[ArtifactRow]) -> None:
    """Raise when an artifact is out of tolerance; a number that is none is, too."""
    for row in rows:
        close = row["largest_difference"] <= row["tolerance"]
        agrees = row.get("label_agreement", 1.0) >= row.get("least_agreement", 0.0)
        if not close or not agrees:
            raise ExportError(
                f"The exported {row['artifact']!r} does not predict the same as the model: a "
                f"difference of {row['largest_difference']:.2g} (at most "
                f"{row['tolerance']:.2g}), the same label for "
                f"{row.get('label_agreement', 1.0):.0%} of the images (at least "
                f"{row.get('least_agreement', 0.0):.0%}). Nothing was written. Leave out "
                "this format, or, if it is quantised, pass more images as `parity_data`."
            )


def digests(version: Path) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder, by its path there."""
    files = sorted(
        path for path in version.rglob("*") if path.is_file() and path.name != CERTIFICATE
    )
    return {path.relative_to(version).as_posix(): sha256_of_file(path) for path in files}


def predict(model: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    """Return the outputs of a Keras model of several, which are the truth for its artifacts.

    As a graph, which rounds as they do: layer by layer, MobileNetV2 differs by more than 1e-5.
    """
    return list(on_one_device(model).predict(images, batch_size=32, verbose=0))


@contextlib.contextmanager
def proved_in(proof: str) -> Iterator[Prover]:
    """Give what loads and runs artifacts: in this process, or in a fresh one.

    A fresh process imports TensorFlow, 4 seconds, while the artifacts are written.

    Args:
        proof: of `PROOFS`.
    """
    check_choice("proof", proof, PROOFS)
    if proof == "here":
        yield _run_here
        return
    root = str(Path(kerastl.__file__).parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen(  # noqa: S603  # ourselves, without a shell
        [sys.executable, "-m", f"{__package__}.parity_child"],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield functools.partial(_run_afresh, process)
        finally:
            process.kill()


def _run_here(version: Path, names: list[str], given: Mapping[str, np.ndarray]) -> Answers:
    try:
        return run_artifacts(str(version), names, given)
    except Exception as error:  # each library has errors of its own
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ExportError(
            f"The export cannot be loaded and run: {last}. Nothing was written."
        ) from error


def _run_afresh(
    process: "subprocess.Popen[str]",
    version: Path,
    names: list[str],
    given: Mapping[str, np.ndarray],
) -> Answers:
    with tempfile.TemporaryDirectory() as folder:
        sample, result = Path(folder) / "sample.npz", Path(folder) / "result.npz"
        np.savez(sample, allow_pickle=False, **given)
        order = json.dumps([str(version), str(sample), names, str(result)])
        _wait_for(process, order)
        with np.load(result) as answers:
            return dict(answers)


def _wait_for(process: "subprocess.Popen[str]", order: str) -> None:
    try:
        _, stderr = process.communicate(order, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"The export did not run within {_SECONDS} s in a new process. Nothing was "
            "written. Leave out the format that hangs."
        ) from error
    if process.returncode:
        last = (stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise ExportError(
            f"The export cannot be loaded and run in a new process: {last}. Nothing was written."
        )


def _size(file: Path) -> int:
    """Return the bytes that an artifact takes, with what lies beside it."""
    if file.name == "saved_model.pb":
        return sum(p.stat().st_size for p in [file, *file.parent.glob("variables/*")])
    if file.suffix == ".xml":
        return sum(path.stat().st_size for path in file.parent.iterdir())
    return file.stat().st_size
