"""What the files of a run say, for its page and its card."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerastl.errors import DataError
from kerastl.results.findings import read_findings
from kerastl.results.lineage import CHAIN
from kerastl.results.run_directory import read_labels, read_object

TRANSFER = "transfer.json"


@dataclass(frozen=True)
class RunFacts:
    """What the files of a run say; a part that the run lacks is None or empty.

    Args:
        directory: of the run.
        class_names: of `labels.txt`.
        recipe: the recipe of `recipe.json`.
        source: what `recipe.json` keeps of where the data came from.
        versions: of `recipe.json`.
        metrics: of `metrics.json`; without it the run did not come to its end.
        history: a dict an epoch, of `history.csv`.
        diagnosis: of `diagnosis.json`.
        trials: of `trials.json`.
        findings: of `evaluation.json`.
        transfer: of `transfer.json`.
        lineage: of `recipe.json`: the trainings that the backbone had gone through before.
        chain: of `chain.json`: what the steps of a chain brought.
    """

    directory: Path
    class_names: list[str]
    recipe: dict[str, Any]
    source: dict[str, Any]
    versions: dict[str, str]
    metrics: dict[str, Any] | None
    history: list[dict[str, Any]]
    diagnosis: dict[str, Any] | None
    trials: dict[str, Any] | None
    findings: dict[str, Any] | None
    transfer: dict[str, Any] | None
    lineage: list[dict[str, Any]]
    chain: dict[str, Any] | None

    @property
    def task(self) -> str:
        """The task of the run; those of before there were several classified."""
        return str(self.recipe.get("task", "classification"))


def read_facts(directory: str | Path) -> RunFacts:
    """Read what is there of a run.

    Args:
        directory: of the run.

    Raises:
        DataError: it is no run, or a file is damaged.
    """
    directory = Path(directory)
    kept = read_object(directory / "recipe.json")
    if kept is None:
        raise DataError(
            f"{directory} is no run: it has no recipe.json. Give the folder that `kerastl train` "
            "or `kerastl search` wrote."
        )
    return RunFacts(
        directory=directory,
        class_names=read_labels(directory / "labels.txt"),
        recipe=kept.get("recipe", {}),
        source=kept.get("data", {}),
        versions=kept.get("versions", {}),
        metrics=read_object(directory / "metrics.json"),
        history=_read_history(directory / "history.csv"),
        diagnosis=read_object(directory / "diagnosis.json"),
        trials=read_object(directory / "trials.json"),
        findings=read_findings(directory),
        transfer=read_object(directory / TRANSFER),
        lineage=kept.get("lineage", []),
        chain=read_object(directory / CHAIN),
    )


def _read_history(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    try:
        with open(file, newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        return [{name: _value(name, cell) for name, cell in row.items()} for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{file} could not be read: {error}. Restore it from a copy.") from error


def _value(name: str, cell: str | None) -> Any:
    if name == "phase":
        return cell or ""
    return float(cell) if cell else None
