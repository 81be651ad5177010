"""Sends a finished run to MLflow, Weights & Biases or the Hugging Face hub."""

import importlib
import os
import re
from collections.abc import Iterator
from typing import Any

from kerastl._checks import check_choice
from kerastl.errors import ArgumentError, ExportError
from kerastl.results.model_card import write_card
from kerastl.results.run_files import Json, RunFiles

TRACKERS = ("mlflow", "wandb")
_PROJECT = "kerastl"  # of Weights & Biases, unless WANDB_PROJECT names one


def load_tracker(name: str) -> Any:
    """Import the package of a tracker.

    Raises:
        ArgumentError: there is no such tracker, or its package is not installed.
    """
    return _load(check_choice("track", name, TRACKERS), f"track={name!r}", name)


def track(files: RunFiles, name: str) -> None:
    """Log settings, measures, epochs, page and model of a run; `Run.track` describes it."""
    tracker = load_tracker(name)
    send = {"mlflow": _to_mlflow, "wandb": _to_wandb}[name]
    send(tracker, files, files.directory.resolve().name, _settings(files.recipe))


def push_to_hub(files: RunFiles, name: str, *, private: bool, page: bool) -> str:
    """Upload the model of a run; `Run.push_to_hub` describes it."""
    hub = _load("huggingface_hub", "`push_to_hub`", "huggingface")
    names = {kept: kept for kept in (files.MODEL, files.LABELS, files.RECIPE, files.METRICS)}
    names |= {write_card(files.directory).name: "README.md"}
    names |= {files.REPORT: files.REPORT} if page else {}
    missing = [kept for kept in names if not files.path(kept).exists()]
    if missing:
        raise ExportError(
            f"{files.directory} has no {', '.join(missing)}. Finish the run (`--resume`), or write "
            "the page (`kerastl report RUN`)."
        )
    added = [hub.CommitOperationAdd(there, files.path(here)) for here, there in names.items()]
    try:
        repository = hub.HfApi().create_repo(name, private=private, exist_ok=True).repo_id
        hub.HfApi().create_commit(repository, added, commit_message="Upload a run of kerastl")
    # Its bases are the error of the HTTP client, and OSError; a large file fails as RuntimeError.
    except (*hub.errors.HfHubHTTPError.__bases__, RuntimeError) as error:
        raise ExportError(
            f"The hub rejected {name!r}: {error}. Log in with `hf auth login`, or set "
            "HF_TOKEN to a token with write access."
        ) from error
    return str(repository)


def _load(package: str, who: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ArgumentError(
            f"{who} needs the package {package}, which cannot be imported ({error}). Install it: "
            f"pip install 'kerastl[{extra}]'."
        ) from error


def _to_mlflow(mlflow: Any, files: RunFiles, title: str, settings: Json) -> None:
    with mlflow.start_run(run_name=title, nested=mlflow.active_run() is not None):
        mlflow.log_params(settings)
        for step, values in enumerate(_epochs(files)):
            mlflow.log_metrics(values, step=step)
        mlflow.log_metrics(_measures(files))
        for name in _artifacts(files):
            mlflow.log_artifact(str(files.path(name)))


def _to_wandb(wandb: Any, files: RunFiles, title: str, settings: Json) -> None:
    project = os.environ.get("WANDB_PROJECT", _PROJECT)
    with wandb.init(project=project, name=title, config=settings) as run:
        for values in _epochs(files):
            run.log(values)
        run.summary.update(_measures(files))
        kept = wandb.Artifact(re.sub(r"[^\w.-]", "_", title), "model")
        for name in _artifacts(files):
            kept.add_file(str(files.path(name)))
        run.log_artifact(kept)


def _settings(recipe: Json) -> Json:
    """Return the fields of a recipe, and of its phases as `PHASE.FIELD`."""
    plain = {name: value for name, value in recipe.items() if name not in ("phases", "reason")}
    for phase in recipe.get("phases", []):
        plain |= {f"{phase['name']}.{field}": value for field, value in phase.items()}
    return plain


def _measures(files: RunFiles) -> dict[str, float]:
    """Return the measures that are one number, as `test/accuracy`."""
    return {
        f"{part}/{name}": float(value)
        for part in ("test", "validation")
        for name, value in ((files.metrics or {}).get(part) or {}).items()
        if isinstance(value, int | float)
    }


def _epochs(files: RunFiles) -> Iterator[dict[str, float]]:
    """Yield the numbers of each epoch."""
    for row in files.history:
        yield {name: value for name, value in row.items() if isinstance(value, int | float)}


def _artifacts(files: RunFiles) -> list[str]:
    names = [files.MODEL, files.LABELS, files.RECIPE, files.REPORT, files.CARD]
    names += [files.TRIALS, files.CHAIN]  # of a search, of a chain
    return [name for name in names if files.path(name).exists()]
