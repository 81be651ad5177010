"""The proof that exported files answer as the model does: `parity.json`."""

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kerastl
from kerastl._atomic import atomic_write_json
from kerastl._hashing import sha256_of_file
from kerastl._task import Task
from kerastl._versions import versions
from kerastl.distribute import on_one_device
from kerastl.errors import ExportError
from kerastl.model.heads import task_of
from kerastl.serving.formats import BY_NAME, Format
from kerastl.serving.parity_child import MAPS
from kerastl.serving.sample import Sample

FILE = "parity.json"
EMBEDDING_TOLERANCE = 1e-4  # relative to the largest number of an embedding, which has no scale
_SECONDS = 1800  # after which a child that still runs has hung


def certify(
    model: keras.Model,
    network: keras.Model,
    version: Path,
    *,
    process: "subprocess.Popen[str]",
    formats: Sequence[Format],
    sample: Sample,
    temperature: float,
) -> dict[str, Any]:
    """Run every artifact of a version in a fresh process, and write what it differs by.

    Args:
        model: the Keras model, whose own answers are the truth.
        network: pixels to `[embedding, probabilities]`, for the embeddings.
        version: the folder of the version.
        process: of `fresh_process`.
        formats: what was written there.
        sample: the images to compare on.
        temperature: that the answers were to be divided by.

    Returns:
        What `parity.json` holds.

    Raises:
        ExportError: an artifact does not load, or differs by more than its tolerance.
    """
    task = task_of(model)
    expected = apply_temperature(_predict(model, sample.images), temperature)
    answers = _run_afresh(process, version, formats, sample)
    embedding = answers.pop("embed", None)
    rows = [
        compare_artifact(task, name, got, expected, sample.labels) for name, got in answers.items()
    ]
    for row in rows:
        file = version / BY_NAME[_format_of(row["artifact"])].file
        row["bytes"] = _size(file)
    if embedding is not None:
        keras_embedding = np.asarray(
            keras.Model(network.inputs, network.outputs[0]).predict_on_batch(sample.images)
        )
        rows.append(_compared_embedding(embedding, keras_embedding))
    raise_if_different(rows)
    return _write_certificate(
        version,
        rows,
        formats,
        sample={
            "images": len(sample.images),
            "source": sample.source,
            "labelled": sample.labels is not None,
        },
        task=task.name,
        temperature=temperature,
        keras_accuracy=_share_right(task, expected, sample.labels),
    )


def certify_maps(
    task: Task,
    version: Path,
    *,
    process: "subprocess.Popen[str]",
    given: dict[str, Any],
    expected: dict[str, np.ndarray],
    temperature: float,
    source: str,
) -> None:
    """Do as `certify` for a network that slides over larger images.

    Args:
        task: of the network.
        version: the folder of the version.
        process: of `fresh_process`.
        given: pixels of the model's size as `images`, and `larger` ones; the first of these,
            encoded, as `content`, and the `shorter` that `serving_bytes` is asked for.
        expected: maps of probabilities `(n, rows, columns, num_classes)` by what answers them.
        temperature: that the answers were to be divided by.
        source: what the images are, in words.

    Raises:
        ExportError: it does not load, or differs by more than its tolerance.
    """
    answers = _answers_of(process, version, [MAPS], given)
    pixels = given["images"], given["larger"]
    rows = []
    for name, maps in expected.items():
        wanted, got = (cells.reshape(-1, cells.shape[-1]) for cells in (maps, answers[name]))
        rows.append(compare_artifact(task, name, got, apply_temperature(wanted, temperature), None))
        rows[-1]["bytes"] = _size(version / rows[-1]["file"])
    raise_if_different(rows)
    _write_certificate(
        version,
        rows,
        [],
        sample={
            "images": sum(map(len, pixels)),
            "sizes": [list(images.shape[1:3]) for images in pixels],
            "source": source,
            "labelled": False,
        },
        temperature=temperature,
    )


def _write_certificate(
    version: Path, rows: list[dict[str, Any]], formats: Sequence[Format], **facts: Any
) -> dict[str, Any]:
    """Write `parity.json`, the last file of a version, and return what it holds."""
    certificate = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        "artifacts": rows,
        "versions": _versions(formats),
        "sha256": digests(version),
    }
    atomic_write_json(version / FILE, certificate)
    return certificate


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities of scores divided by a temperature."""
    if temperature == 1.0:
        return probabilities
    scores = np.log(np.maximum(probabilities.astype("float64"), 1e-38)) / temperature
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), "float32")


def compare_artifact(
    task: Task, name: str, got: np.ndarray, expected: np.ndarray, labels: np.ndarray | None
) -> dict[str, Any]:
    """Return the row of an artifact in the certificate.

    Args:
        task: of the model.
        name: of the artifact.
        got: its outputs.
        expected: those of the model.
        labels: of the images, or None where they are not known.
    """
    format_ = BY_NAME[_format_of(name)]
    row = {
        "artifact": name,
        "file": format_.file,
        "largest_difference": task.difference(got, expected),
        "tolerance": format_.tolerance,
    }
    if (agreement := task.agreement(got, expected)) is None:
        return row
    return {
        **row,
        "label_agreement": agreement,
        "least_agreement": format_.agreement,
        "accuracy": _share_right(task, got, labels),
    }


def raise_if_different(rows: Sequence[dict[str, Any]]) -> None:
    """Raise when an artifact is out of tolerance; a number that is none is, too."""
    for row in rows:
        close = row["largest_difference"] <= row["tolerance"]
        agrees = row.get("label_agreement", 1.0) >= row.get("least_agreement", 0.0)
        if not close or not agrees:
            raise ExportError(
                f"The exported {row['artifact']!r} does not answer as the model does: a difference "
                f"of {row['largest_difference']:.2g} (at most {row['tolerance']:.2g}), the same "
                f"label for {row.get('label_agreement', 1.0):.0%} of the images (at least "
                f"{row.get('least_agreement', 0.0):.0%}). Nothing was left in place. Leave that "
                "format out, or, if it is quantised, give more images as `parity_data`."
            )


def digests(version: Path) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder, by its path there."""
    files = sorted(path for path in version.rglob("*") if path.is_file() and path.name != FILE)
    return {path.relative_to(version).as_posix(): sha256_of_file(path) for path in files}


def _predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    starts = range(0, len(images), 32)
    alone = on_one_device(model)
    return np.concatenate([alone.predict_on_batch(images[start : start + 32]) for start in starts])


@contextlib.contextmanager
def fresh_process() -> Iterator["subprocess.Popen[str]"]:
    """Start the process that will run the artifacts; it imports while they are written."""
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
            yield process
        finally:
            process.kill()


def _run_afresh(
    process: "subprocess.Popen[str]", version: Path, formats: Sequence[Format], sample: Sample
) -> dict[str, np.ndarray]:
    given = {
        "images": sample.images,
        "content": np.frombuffer(b"".join(sample.files), np.uint8),
        "ends": np.cumsum([len(file) for file in sample.files]),
    }
    return _answers_of(process, version, [format_.name for format_ in formats], given)


def _answers_of(
    process: "subprocess.Popen[str]", version: Path, names: list[str], given: dict[str, Any]
) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        sample, result = Path(folder) / "sample.npz", Path(folder) / "result.npz"
        np.savez(sample, allow_pickle=False, **given)
        _run_child(process, [str(version), str(sample), names, str(result)])
        with np.load(result) as answers:
            return {name: answers[name] for name in answers.files}


def _run_child(process: "subprocess.Popen[str]", arguments: list[Any]) -> None:
    """Have the process do its work, and wait for its end."""
    try:
        _, stderr = process.communicate(json.dumps(arguments), timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"The export did not run within {_SECONDS} s in a fresh process. Nothing was left in "
            "place. Leave out the format that hangs."
        ) from error
    if process.returncode:
        last = (stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise ExportError(
            f"The export could not be loaded and run in a fresh process: {last}. Nothing was left "
            "in place."
        )


def _compared_embedding(got: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    scale = max(float(np.abs(expected).max()), 1e-12)
    return {
        "artifact": "embed",
        "file": BY_NAME["saved_model"].file,
        "largest_difference": float(np.abs(got - expected).max()) / scale,
        "tolerance": EMBEDDING_TOLERANCE,
    }


def _format_of(artifact: str) -> str:
    """Return the format that an artifact is of: signatures belong to the SavedModel."""
    return "saved_model" if artifact.startswith("serving_") else artifact


def _share_right(task: Task, outputs: np.ndarray, labels: np.ndarray | None) -> float | None:
    return None if labels is None else task.share_right(outputs, labels)


def _size(file: Path) -> int:
    """Return the bytes that an artifact takes, with what lies beside it."""
    if file.name == "saved_model.pb":
        return sum(p.stat().st_size for p in [file, *file.parent.glob("variables/*")])
    if file.suffix == ".xml":
        return sum(path.stat().st_size for path in file.parent.iterdir())
    return file.stat().st_size


def _versions(formats: Sequence[Format]) -> dict[str, str]:
    packages = {package for format_ in formats for package in format_.packages}
    return {**versions(), **{name: importlib.metadata.version(name) for name in sorted(packages)}}
