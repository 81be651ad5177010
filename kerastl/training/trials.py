"""The trials of a search, and their folder."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kerastl._atomic import atomic_write_json
from kerastl._records import from_dict
from kerastl.errors import ArgumentError, DataError, TrainingError

COMPLETED, FAILED = "completed", "failed"
SEARCH_FILE, DIAGNOSIS_FILE, TRIALS_FOLDER = "search.json", "diagnosis.json", "trials"
_FORMAT = 2  # raise it when the files of an older version may no longer be used

LEAST_SCORE = 1e-6
"""Less than one image of a million: trials of one score are ordered by their loss."""

Row = dict[str, str | float | None]
"""A row of the table of trials."""


class Setting(NamedTuple):
    """What a trial trains; of equal ones one is run."""

    freeze_depth: int
    learning_rate: float | None
    epochs: int


@dataclass(frozen=True)
class Trial:
    """One training of a search, and what it gave."""

    freeze_depth: int  # how many stages, from the input, did not train
    learning_rate: float | None  # the peak; None for the head alone, which is fitted in one go
    epochs: int  # passes over the training images; 0 for the head alone
    status: str  # "completed" or "failed"
    seconds: float  # wall-clock time
    score: float | None = None  # of the task, on the validation images after the last epoch
    loss: float | None = None  # of the task, on them; None, as the score, if it failed
    # What each validation image brings to the score, `(num_images,)`: of classes whether it was
    # answered right.
    image_scores: np.ndarray | None = field(default=None, repr=False, compare=False)
    reason: str = ""  # why it failed

    @property
    def key(self) -> Setting:
        """What was trained."""
        return Setting(self.freeze_depth, self.learning_rate, self.epochs)

    @property
    def is_completed(self) -> bool:
        """Whether it has a score."""
        return self.status == COMPLETED

    @property
    def standard_error(self) -> float | None:
        """Of the score; of classes binomial, sqrt(p (1 - p) / n)."""
        if self.image_scores is None:
            return None
        return float(self.image_scores.std()) / math.sqrt(len(self.image_scores))

    @property
    def rank(self) -> float:
        """The score, and next to nothing more for a lower loss."""
        if self.score is None or self.loss is None:
            return -math.inf
        return self.score + LEAST_SCORE / (1 + self.loss)

    def to_dict(self) -> Row:
        """Return a row of the table of trials: plain values, without the single images."""
        row = {name: value for name, value in asdict(self).items() if name != "image_scores"}
        return row | {"standard_error": self.standard_error}


def best_of(trials: Iterable[Trial]) -> Trial:
    """Return the completed trial with the best score, or raise the reasons why there is none."""
    trials = list(trials)
    completed = [trial for trial in trials if trial.is_completed]
    if completed:
        return max(completed, key=lambda trial: trial.rank)
    reasons = "\n".join(f"  {describe_trial(trial)}: {trial.reason}" for trial in trials)
    raise TrainingError(
        f"None of the {len(trials)} trials was completed, so there is no best "
        f"trial:\n{reasons}\nFix the cause, and search again in a new directory."
    )


def describe_trial(trial: Trial) -> str:
    """Return what was trained, in words."""
    if trial.learning_rate is None:
        return "head alone"
    epochs = "epoch" if trial.epochs == 1 else "epochs"
    return f"depth {trial.freeze_depth}, rate {trial.learning_rate:.2g}, {trial.epochs} {epochs}"


class TrialLog:
    """Trials in the order in which they ended, on disk where there is a folder.

    Each trial is a file of its own, written beside its place and renamed, so that a kill at any
    moment leaves whole trials alone. `search.json` says which search they belong to: plain values
    on which every trial depends, two levels deep. Of several processes that share the folder, each
    writes by a name of its own.

    Raises:
        DataError: The folder holds something else, or another search; the error tells what differs.
    """

    def __init__(self, directory: Path | None, search: Mapping[str, Any], writer: str = ""):
        self.directory = directory
        self.trials: list[Trial] = []
        self._known: set[str] = set()
        self._ending = f"-{writer}.json" if writer else ".json"
        if directory is None:
            return
        self._claim(directory, json.loads(json.dumps({"format": _FORMAT, **search})))
        (directory / TRIALS_FOLDER).mkdir(exist_ok=True)
        self.read_new()

    def read_new(self) -> list[Trial]:
        """Read, and return, what other processes have added.

        A worker that was late, and so was taken for lost, may end a trial that another one was
        given: the first of the two counts.
        """
        if self.directory is None:
            return []
        files = sorted(self.directory.glob(f"{TRIALS_FOLDER}/*.json"))
        new = []
        for trial in [_read_trial(path) for path in files if path.name not in self._known]:
            known = self.find(trial.key)
            if known is None or not known.is_completed:
                self.trials.append(trial)
                new.append(trial)
        self._known |= {path.name for path in files}
        return new

    def find(self, key: Setting) -> Trial | None:
        """Return the trial that was run with these values."""
        return next((trial for trial in self.trials if trial.key == key), None)

    def add(self, trial: Trial) -> None:
        """Keep a trial that has ended."""
        if self.directory is not None:
            values = asdict(trial)
            if trial.image_scores is not None:
                values["image_scores"] = trial.image_scores.tolist()
            folder = self.directory / TRIALS_FOLDER
            taken = (int(path.stem.split("-")[0]) for path in folder.glob("*.json"))
            name = f"{max(taken, default=-1) + 1:04}{self._ending}"
            self._known.add(name)
            atomic_write_json(folder / name, values, indent=None)
        self.trials.append(trial)

    def _claim(self, directory: Path, search: Mapping[str, Any]) -> None:
        file = directory / SEARCH_FILE
        if not file.exists():
            inside = directory.iterdir() if directory.is_dir() else ()
            others = [path.name for path in inside if not path.name.startswith(".")]
            if others or (directory.exists() and not directory.is_dir()):
                raise DataError(
                    f"The directory {directory} contains files but no search: {others[:5]}. "
                    "Choose another directory, or remove it."
                )
            directory.mkdir(parents=True, exist_ok=True)
            atomic_write_json(file, search)
            return
        differing = diff_settings(read_json(file), search)
        if differing:
            raise DataError(
                f"The directory {directory} contains a different search. Its "
                + "; its ".join(differing)
                + ". To resume it, use the same arguments and images; otherwise choose another "
                "directory."
            )  # fmt: skip


def read_json(path: Path) -> Any:
    """Read a JSON file of a search; raise a `DataError` if it was damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"Cannot read {path}: {error}. Restore it from a copy, or search in a new directory."
        ) from error


def _read_trial(path: Path) -> Trial:
    values = read_json(path)
    try:
        each = values.pop("image_scores")
        scores = None if each is None else check_scores(each)
        return dataclasses.replace(from_dict(Trial, values), image_scores=scores)
    except (ArgumentError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not a trial: {error}. Remove it to run the trial again."
        ) from error


def check_scores(values: list[float]) -> np.ndarray:
    """Return the numbers, or truth values, of images as they were written."""
    scores = np.array(values)
    if scores.ndim != 1 or scores.dtype.kind not in "bif" or not np.isfinite(scores).all():
        raise ValueError(f"image_scores must be a list of numbers. Received: {values!r:.80}")
    return scores


def diff_settings(was: Any, now: Mapping[str, Any]) -> list[str]:
    """Return a text for each setting that differs; nested dicts are compared key by key."""
    was = was if isinstance(was, dict) else {}
    found = []
    for name in sorted({*was, *now}):
        old, new = was.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            inner = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
            found += [
                f"{name}.{k} is {_short(old.get(k))}, not {_short(new.get(k))}" for k in inner
            ]
        elif old != new:
            found.append(f"{name} is {_short(old)}, not {_short(new)}")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
