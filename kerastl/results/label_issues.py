"""Finds labels that look wrong, with classifiers that were not trained on the image."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastl._atomic import atomic_write_text
from kerastl._checks import check_packages
from kerastl._shown import Shown
from kerastl._task import check_supports
from kerastl._typed import typed
from kerastl.advice.blend import BlendProbe
from kerastl.advice.ridge import stratified_folds
from kerastl.data.copies import sides
from kerastl.data.file_report import csv_cell
from kerastl.data.inspection import Finding
from kerastl.data.load import ImageData
from kerastl.data.split import Split
from kerastl.errors import ArgumentError
from kerastl.frozen.activations import extract_embeddings
from kerastl.frozen.runtime import StoreChoice, open_runtime
from kerastl.model.build import build_transfer_model
from kerastl.model.head_names import STAGES
from kerastl.results.code_page import sample_places, subsets, write_codes_page
from kerastl.results.neighbours import NUM_NEIGHBOURS, nearest_neighbours

NUM_FOLDS = 5
PARTS = ("train", "validation", "test")


@typed
@dataclass(frozen=True)
class LabelIssue:
    """An image whose label looks wrong.

    Args:
        path: the file, or None if the images are not files.
        part: `"train"`, `"validation"` or `"test"`.
        index: place in the part, from 0.
        label: name of the class that the image has.
        suggested: name of the class that the classifier gives.
        confidence: probability of `label`, 0 to 1; low is suspicious.
        suggested_confidence: probability of `suggested`, 0 to 1.
        neighbours: how many of the 5 most similar images have the label.
    """

    path: str | None
    part: str
    index: int
    label: str
    suggested: str
    confidence: float
    suggested_confidence: float
    neighbours: int


@typed
@dataclass(frozen=True, repr=False)
class LabelIssues(Shown):
    """Labels that look wrong, the most suspicious first.

    Args:
        issues: the images.
        data: the images that were checked.
        embeddings: of all of them, part after part, floats `(num_images, dim)`.
    """

    issues: tuple[LabelIssue, ...]
    data: ImageData
    embeddings: np.ndarray

    @property
    def num_images(self) -> int:
        """How many images were checked."""
        return len(self.embeddings)

    def __len__(self) -> int:
        return len(self.issues)

    def _in_short(self) -> str:
        return f"{len(self)} of {self.num_images:,} labels look wrong"

    def __str__(self) -> str:
        rows = [f"{one.path}: {one.reason}" for one in self.findings()]
        return "\n".join([f"{self._in_short()}.", *rows])

    def findings(self) -> tuple[Finding, ...]:
        """Return the images as findings of a scan."""
        return tuple(
            Finding(
                one.path or f"{one.part} {one.index}",
                "label",
                f"{one.label} ({one.confidence:.0%}) looks like {one.suggested} "
                f"({one.suggested_confidence:.0%})",
            )
            for one in self.issues
        )

    def to_frame(self) -> Any:
        """Return a `pandas.DataFrame` with one row per image (extra `pandas`)."""
        check_packages("`to_frame`", ["pandas"], "pandas")
        import pandas

        return pandas.DataFrame([asdict(one) for one in self.issues])

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one row per image. An existing file is replaced; no image is changed."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(LabelIssue.__dataclass_fields__)
        writer.writerows(map(csv_cell, astuple(one)) for one in self.issues)
        atomic_write_text(path, text.getvalue())

    def write_page(self, path: str | os.PathLike[str]) -> None:
        """Write an HTML page of the images, each next to its 5 most similar images."""
        parts = _parts(self.data)
        starts = dict(zip(parts, np.cumsum([0, *map(len, parts.values())]).tolist(), strict=False))
        found = np.array([starts[one.part] + one.index for one in self.issues], int)
        places = np.union1d(sample_places(*self.embeddings.shape), found)
        write_codes_page(
            Path(path),
            self.embeddings[places],
            subsets(parts.values(), places),
            class_names=self.data.class_names,
            title="Labels that look wrong",
            num_images=self.num_images,
            suspicious=np.searchsorted(places, found).tolist(),
        )


@typed
def find_label_issues(
    data: ImageData,
    backbone: str | os.PathLike[str] | keras.Model,
    *,
    weights: str | os.PathLike[str] = "imagenet",
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
    store: StoreChoice = "default",
    engine: str = "auto",
) -> LabelIssues:
    """Find images whose label looks wrong, with one forward pass over all of them.

    Each image is classified by a `BlendProbe` on the embeddings of all stages that was fitted to
    the other four fifths of the images; copies of an image stay together. Confident learning
    (Northcutt and others, 2021, https://arxiv.org/abs/1911.00068) counts how many labels look
    wrong. As many images are returned, those with the least probability of their own label first:
    where labels of 244 to 1,020 images were made wrong, this found about as many as the images
    that were counted, or more (`benchmarks/label_issues.py`).

    An issue is a reason to look at the image, not a proof: rare kinds of a class and images that
    fit two classes are found, too. A class with one image cannot be judged.

    Args:
        data: the result of `load_data`; all its parts are checked.
        backbone: as for `build_transfer_model`.
        weights: as for `build_transfer_model`.
        image_size: height and width. Default: the native size of the backbone.
        seed: random seed of the folds.
        store: as in `extract_embeddings`.
        engine: as in `extract_embeddings`.

    Returns:
        `LabelIssues`, the most suspicious first.

    Raises:
        ArgumentError: an argument is invalid, or there are too few images.

    Example:
        >>> found = kerastl.find_label_issues(data, "MobileNetV2")
        >>> found.write_csv("look_at.csv")
    """
    if not (task := check_supports(data.task, "probe")).has_one_class:
        raise ArgumentError(
            "`find_label_issues` needs data with one class per image. Received: data with "
            f"task={data.task!r}. Load it with `load_data(..., task='classification')`, or look at "
            "`evaluate(...).top_losses()`."
        )
    parts = _parts(data)
    model = build_transfer_model(
        backbone,
        data.num_classes,
        weights=str(weights),
        image_size=image_size,
        head=STAGES,
        channels=data.train.channels,
        task=task.name,
    )
    runtime = open_runtime(store, engine)
    found = [extract_embeddings(model, split, runtime=runtime) for split in parts.values()]
    x, labels = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    groups = groups_over_parts(list(parts.values()))
    probabilities = out_of_fold(x, labels, data.num_classes, groups, seed)
    chosen = suspicious(probabilities, labels)
    k = min(NUM_NEIGHBOURS, len(x) - 1)
    near = np.zeros((0, k + 1), int)
    if len(chosen):
        near = nearest_neighbours(x, x[chosen], k=k + 1).indices
    places = [(name, index) for name, split in parts.items() for index in range(len(split))]
    issues = []
    for row, mine in zip(chosen.tolist(), near, strict=True):
        name, index = places[row]
        paths, label = parts[name].paths, int(labels[row])
        suggested = int(
            np.where(np.arange(data.num_classes) == label, -1, probabilities[row]).argmax()
        )
        issues.append(
            LabelIssue(
                path=None if paths is None else paths[index],
                part=name,
                index=index,
                label=data.class_names[label],
                suggested=data.class_names[suggested],
                confidence=float(probabilities[row, label]),
                suggested_confidence=float(probabilities[row, suggested]),
                neighbours=int((labels[mine[mine != row][:k]] == label).sum()),
            )
        )
    return LabelIssues(tuple(issues), data, x)


def _parts(data: ImageData) -> dict[str, Split]:
    splits = {name: getattr(data, name) for name in PARTS}
    return {name: split for name, split in splits.items() if split is not None and len(split)}


def groups_over_parts(parts: Sequence[Split]) -> np.ndarray:
    """Return ints `(num_images,)`, equal for images that must not judge each other.

    Those are the groups of each part, and copies in any part.
    """
    contents = [one for part in parts for one in part.source.contents()]
    looks = [one.look for part in parts for one in part.source.prints()]
    named = [f"{place} {group}" for place, part in enumerate(parts) for group in part.groups()]
    return sides(contents, looks, named)


def out_of_fold(
    x: np.ndarray, labels: np.ndarray, num_classes: int, groups: np.ndarray, seed: int
) -> np.ndarray:
    """Return the probabilities `(n, num_classes)` that the other folds give each image."""
    folds = stratified_folds(labels, NUM_FOLDS, seed, groups)
    probabilities = np.zeros((len(x), num_classes))
    for fold in np.unique(folds):
        held_out = folds == fold
        if len(np.unique(labels[~held_out])) < 2:
            raise ArgumentError(
                "Labels can be checked where at least two classes have several images. Received: "
                f"{np.bincount(labels, minlength=num_classes).tolist()} images of the classes. "
                "Add images."
            )
        probe = BlendProbe(seed=seed).fit(x[~held_out], labels[~held_out])
        rows = np.flatnonzero(held_out)
        probabilities[np.ix_(rows, probe.classes_)] = probe.predict_proba(x[held_out])
    return probabilities


def suspicious(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the images whose label looks wrong, the least probable label first.

    Args:
        probabilities: `(n, num_classes)`, of classifiers that have not seen the image.
        labels: ints `(n,)`.
    """
    own = probabilities[np.arange(len(labels)), labels]
    # Only where another class is more probable, and the own class has been seen.
    is_judged = np.bincount(labels, minlength=probabilities.shape[1])[labels] > 1
    possible = np.flatnonzero((probabilities.argmax(1) != labels) & is_judged)
    order = possible[np.argsort(own[possible], kind="stable")]
    return order[: int(counted_by_confident_learning(probabilities, labels).sum())]


def counted_by_confident_learning(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return bool `(n,)`: off the diagonal of the confident joint; arguments as `suspicious`.

    Of the classes that reach their mean probability among their own images, another than the own is
    the most probable.
    """
    num_images, num_classes = probabilities.shape
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, probabilities[np.arange(num_images), labels], minlength=num_classes)
    usual = np.divide(sums, counts, out=np.full(num_classes, np.inf), where=counts > 0)
    confident = np.where(probabilities >= usual, probabilities, -1.0)
    counted: np.ndarray = (confident.max(1) >= 0) & (confident.argmax(1) != labels)
    return counted
