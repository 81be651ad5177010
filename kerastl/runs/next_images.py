"""Chooses which unlabelled images to label next."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kerastl._atomic import atomic_write_text
from kerastl._checks import check_choice, check_int
from kerastl._shown import Shown
from kerastl._task import find_task
from kerastl._typed import typed
from kerastl.advice.probe import standardised_rows
from kerastl.data.load import ImageData
from kerastl.data.options import NO_OPTIONS
from kerastl.data.split import Split
from kerastl.data.unlabelled import load_unlabelled
from kerastl.errors import ArgumentError, DataError
from kerastl.frozen.activations import extract_embeddings
from kerastl.results.evaluate import predictions_of_head
from kerastl.results.next_labels import least_sure_first, typical_first
from kerastl.runs.labelled import load_whole

if TYPE_CHECKING:
    from kerastl.runs.run import Run

RULES = ("typical", "margin")


@typed
@dataclass(frozen=True, repr=False)
class NextImages(Shown):
    """Images to label next, the most useful first.

    Args:
        paths: the files.
        rule: how they were chosen, `"typical"` or `"margin"`.
        num_images: how many images without label there were.
        num_known: how many others the run was trained on already.
    """

    paths: tuple[str, ...]
    rule: str
    num_images: int
    num_known: int

    def __len__(self) -> int:
        return len(self.paths)

    def _in_short(self) -> str:
        return f"{len(self):,} of {self.num_images:,} images to label next, by {self.rule!r}"

    def __str__(self) -> str:
        return "\n".join([f"{self._in_short()}.", *self.paths])

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a table of two columns, `image` (absolute path) and an empty `label`.

        `load_data` reads the table when each row has a label; remove the rows that have none.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([("image", "label"), *((os.path.abspath(one), "") for one in self.paths)])
        atomic_write_text(path, text.getvalue())


def next_images(
    run: "Run",
    pool: str | Path | Sequence[str],
    *,
    count: int = 50,
    labelled: str | Path | ImageData | None = None,
    rule: str = "typical",
    on_bad: str = "error",
    seed: int = 0,
) -> NextImages:
    """Choose the unlabelled images that are most worth labelling.

    `"typical"` is TypiClust (Hacohen and others, 2022, https://arxiv.org/abs/2202.02794) on the
    embeddings of the run: one typical image of each group of similar images. With 1 to 20 labels
    per class it was 17 to 1 points more accurate than random images, mean of five open sets
    (`benchmarks/next_images.py`). `"margin"` takes the images whose two most probable classes are
    closest (Scheffer and others, 2001); with up to 20 labels per class it was no better than random
    images.

    Images that the run was trained on, and their near copies, are left out.

    Args:
        run: a finished run.
        pool: a folder, or paths of folders and files; no labels are needed.
        count: how many images to choose. Default 50.
        labelled: the images that have labels already, as for `load_data` or from it, so that no
            similar ones are chosen. Default: none are known.
        rule: `"typical"` or `"margin"`.
        on_bad: what to do with unreadable files: `"error"`, or `"skip"` to leave them out.
        seed: random seed of the groups.

    Returns:
        `NextImages`.

    Raises:
        ArgumentError: an argument is invalid, or the rule does not fit the task of the run.
        DataError: no image is left.

    Example:
        >>> run.next("unlabelled/", count=20).write_csv("to_label.csv")
    """
    check_choice("rule", rule, RULES)
    check_int("count", count, 1)
    if rule == "margin" and not find_task(run.task).has_one_class:
        raise ArgumentError(
            "rule='margin' needs a run with one class per image. Received: a run with "
            f"task={run.task!r}. Use rule='typical'."
        )
    paths = [os.fspath(pool)] if isinstance(pool, (str, os.PathLike)) else [*pool]
    split, _ = load_unlabelled(paths, on_bad=on_bad, rules=run.rules)
    left = np.flatnonzero(~np.logical_or(*run.files.seen(split.source)))
    if not len(left):
        raise DataError(
            f"The run was trained on all {len(split):,} images of {', '.join(paths)}. Pass images "
            "without labels."
        )
    unknown = split.subset(left)
    count = min(count, len(left))
    if rule == "margin":
        answers = predictions_of_head(run.model, unknown).outputs
        chosen = least_sure_first(answers, count)
    else:
        have = [_embeddings(run, one) for one in _parts(run, labelled, on_bad)]
        whole = standardised_rows(np.concatenate([*have, _embeddings(run, unknown)])).x
        num_labelled = len(whole) - len(left)
        chosen = typical_first(whole[num_labelled:], whole[:num_labelled], count, seed=seed)
    names = unknown.paths or []
    return NextImages(
        tuple(names[row] for row in chosen.tolist()), rule, len(left), len(split) - len(left)
    )


def _parts(run: "Run", labelled: str | Path | ImageData | None, on_bad: str) -> list[Split]:
    if labelled is None:
        return []
    data = labelled
    if not isinstance(data, ImageData):  # read as the run reads images
        options = run.reading(NO_OPTIONS)
        data = load_whole(data, run.class_names, run.task, on_bad, options)
    return [part for part in (data.train, data.validation, data.test) if part is not None]


def _embeddings(run: "Run", split: Split) -> np.ndarray:
    return extract_embeddings(run.model, split).x
