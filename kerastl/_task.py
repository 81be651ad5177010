"""The `Task` record: everything that depends on the task of a model.

Each task is the object `TASK` of a file of its own, `kerastl/tasks/NAME.py`. The rooms below
that folder import nothing from it: `find_task` finds it there by the name that the user gave.
"""

from __future__ import annotations  # NumPy is not imported for hints: the help needs tasks

import abc
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kerastl._checks import check_choice
from kerastl._features import FEATURES, USUAL
from kerastl._label_columns import LabelColumns
from kerastl._measure import Measure
from kerastl.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np

DEFAULT_TASK = "classification"
_PACKAGE = "kerastl.tasks"


Labels = Mapping[str, "np.ndarray"]
"""The labels of each part of the data."""
Names = Sequence[str]
Told = dict[str, Any]
"""What `kerastl predict` tells of an output: its name, and its number."""
Tensors = dict[str, Any]
"""What a SavedModel answers, by the names of its outputs."""


class Task(abc.ABC):
    """Everything that depends on the task.

    A new task is a subclass in a file of its own in `kerastl/tasks/`; those whose labels are a row
    of numbers an image start from `kerastl.tasks._rows.RowTask`.
    """

    name: str  # as users write it
    singular: str  # what an output of the model is called
    plural: str
    supports: frozenset[str] = USUAL  # keys of `FEATURES`

    # Whether labels are boxes: float32 `(n, most, 5)`, a row a box, its left, top, right and bottom
    # side as shares of the image and the number of its class; rows of -1 fill up. The head then
    # reads maps of the backbone.
    has_boxes = False
    # Whether each image is of exactly one class. Its labels are then ints `(n,)`, which training
    # sees one-hot, and the images of each class are counted apart; otherwise labels are float32
    # `(n, num_outputs)`.
    has_one_class = False
    reads_folders = False  # whether folders, and data of tensorflow-datasets, name the labels
    columns: LabelColumns  # of a table

    least_outputs = 1  # that a model has
    activation: str  # of the last layer
    activation_in_0_1: str | None = None  # that of models which version 0.1.0 saved
    loss: str  # of a compiled model, as Keras names it
    score: Measure  # 1 at best; by it probes, and the trials of a search, are compared
    watched: str  # the name in `history` of the measure beside the loss
    watched_title: str  # of its plot
    takes_label_smoothing = True  # whether a recipe may smooth the labels
    usual_head = "linear"  # of a run that asks for none
    head_start: str  # what a head that is fitted in one go starts from, as a sentence goes on
    augmentation: str | None = None  # of a recipe that is given none; None leaves the recipe's
    batch_size: int | None = None  # likewise
    fine_tune_phase: Mapping[str, Any] = {}  # fields of it in a scenario's recipe

    predictions: Callable[..., Any]  # the class of `BasePredictions` that holds the answers
    measures: tuple[Measure, ...]  # the first of `evaluate`, in order, for the page and the card
    output_measures: tuple[Measure, ...]  # those of each output on the page
    output_bar: str | None = None  # the one of them that is drawn
    output_note = ""  # a sentence below them

    title: str  # of the page
    worst_note: str  # what wrong answers may point to
    page_part = "report_task.html.j2"  # the template of the page's sections about answers
    page_sections: tuple[tuple[str, str], ...] = (  # name and title of those
        ("results", "Results"),
        ("worst", "Worst answers"),
    )
    hub_pipeline: str | None = None  # Hugging Face's name of the task, for the card
    hub_tag: str  # of the card
    hub_metrics: tuple[tuple[str, str, str], ...] = ()  # our key, Hugging Face's name and title
    answers_with: str  # what the model gives, for the card
    limit: str  # a sentence for the card

    output_name = "probabilities"  # of the array that `predict` returns
    served_output = "probabilities"  # the output of a SavedModel that holds the answers
    served_names: frozenset[str]  # the outputs by which a SavedModel is known
    has_probabilities: bool = True  # else outputs are quantities, each on a scale of its own
    told_as: str  # the key of the answers in `kerastl predict --json`
    told_columns: tuple[str, str, str]  # title of the first, then the keys of name and number
    told_digits: tuple[str, str] = (".3f", ".6f")  # of the number in a table, and in a CSV
    told_nothing = "no label"  # of an image where nothing is told
    takes_top = True  # whether `kerastl predict --top` means something

    # What it is called.

    @property
    def model_name(self) -> str:
        """The name of a Keras model of this task."""
        return f"{self.name}_model"

    @property
    def fingerprint(self) -> str:
        """What the task adds to the fingerprint of the data."""
        return f" {self.name} "

    def num_names(self, width: int) -> int:
        """Return how many names belong to outputs `(..., width)` of a model."""
        return width

    def count(self, number: int) -> str:
        """Return how many outputs there are, as text."""
        return f"{number} {self.singular if number == 1 else self.plural}"

    @abc.abstractmethod
    def describe_names(self, class_names: Sequence[str]) -> str:
        """Return how many outputs there are, and, where it helps, what they are called."""

    def without(self, feature: str) -> ArgumentError:
        """Return the error that this task has not one of `FEATURES`."""
        return _refusal(self.name, feature)

    # The labels of data.

    @abc.abstractmethod
    def table_names(self, listing: Any, class_names: Names | None) -> list[str]:
        """Return the names of the outputs that a `Listing` of a table has; add warnings to it."""

    @abc.abstractmethod
    def table_labels(self, entries: Sequence[Any], names: Sequence[str]) -> np.ndarray:
        """Return the labels of entries of a `Listing`, as `Split` has them."""

    @abc.abstractmethod
    def array_labels(
        self, labels: Labels, class_names: Names | None, own_names: Names | None = None
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        """Return the labels of each part as `Split` has them, and the names of the outputs.

        Args:
            labels: of each part, in any usual form.
            class_names: the names in the order asked for; integers name those that are whole
                numbers by their value.
            own_names: the names that the source has, in the order of its numbers.
        """

    @abc.abstractmethod
    def given_labels(self, labels: Any, num_outputs: int) -> np.ndarray:
        """Return the labels of images that are evaluated, in the form of `Split`."""

    @abc.abstractmethod
    def check_labels(self, labels: Labels, names: Names, *, are_named: bool) -> list[str]:
        """Raise a `DataError` unless there is something to learn; return warnings.

        Outputs that the user named (`are_named`) may be absent.
        """

    @abc.abstractmethod
    def stratification_groups(self, labels: np.ndarray) -> np.ndarray:
        """Return ints `(n,)`: images of one number give up the same share to a split."""

    @abc.abstractmethod
    def images_of(self, labels: np.ndarray, output: int) -> np.ndarray:
        """Return the indices of the images that have the class or label of an output."""

    @abc.abstractmethod
    def count_images(self, labels: np.ndarray, num_outputs: int) -> list[int]:
        """Return how many images there are of each output."""

    def describe_labels(self, labels: np.ndarray) -> list[list[float]] | None:
        """Return numbers of each output for the page, in place of how many images it has."""
        return None

    # Training.

    def compiled_metrics(self, num_outputs: int) -> list[Any]:
        """Return the metrics of a compiled model, whose labels are those of `Split.batches`."""
        return [self.watched]

    @abc.abstractmethod
    def phase_loss(self, label_smoothing: float) -> Any:
        """Return the Keras loss of a phase, whose labels may be one-hot or mixed."""

    def phase_metrics(self) -> list[Any]:
        """Return the metrics of a phase, whose labels may be one-hot or mixed."""
        return [self.watched]

    def head_phase(self, num_images: int, batch_size: int) -> Mapping[str, Any] | None:
        """Return fields of the `Phase` that trains a head which no probe fits; None: one does."""
        return None

    def class_weights(self, labels: np.ndarray, num_outputs: int, balance: float) -> np.ndarray:
        """Return the weight of the images of each output, 1 on average, `(num_outputs,)`."""
        import numpy as np

        return np.ones(num_outputs)

    def fit_head(
        self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, seed: int, num_outputs: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return `kernel` `(dim, num_outputs)` and `bias` of a head fitted in one go.

        Args:
            x: embeddings `(num_examples, dim)`.
            y: labels.
            groups: `(num_examples,)`, the image of each example.
            seed: of the folds.
            num_outputs: of the head.
        """
        raise self.without("probe")

    def image_scores(self, labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return a number per image, `(n,)`: their mean is the score, their spread its error.

        Args:
            labels: as `Split` has them.
            outputs: of the model, or scores of a linear probe in their place.
        """
        raise self.without("probe")

    def scores_of_rows(self, rows: Sequence[Mapping[str, str]]) -> np.ndarray:
        """Return the `image_scores` of rows that `to_csv` wrote; a KeyError for a lost column."""
        raise self.without("probe")

    def guess(self, labels: np.ndarray) -> float:
        """Return the score of the best constant prediction."""
        raise self.without("probe")

    def beats_guess(self, scores: np.ndarray, labels: np.ndarray) -> bool:
        """Return whether the `image_scores` are better than a guess (99.9 %).

        Args:
            scores: of a sample.
            labels: of all images it was drawn from.
        """
        raise self.without("probe")

    def source_share(self, theta: np.ndarray, labels: np.ndarray) -> float | None:
        """Return the share of the entropy of labels that source probabilities explain, or None."""
        return None

    def head_measures(
        self, labels: np.ndarray, outputs: np.ndarray, train_labels: np.ndarray
    ) -> dict[str, float]:
        """Return what `history` says of a head that was fitted in one go."""
        raise self.without("probe")

    def target_scale(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return mean and deviation by which training labels are standardised, or None."""
        return None

    def keep_criterion(
        self, predict: Callable[[], tuple[np.ndarray, np.ndarray]]
    ) -> dict[str, Any]:
        """Return `score` and `least` of `KeepBest`; nothing to go by the accuracy.

        Args:
            predict: returns labels and outputs of the validation images before the phase.
        """
        return {}

    # Answers.

    def answers(self, outputs: Any) -> Any:
        """Return the answers that outputs of a model `(batch, ...)` stand for."""
        return outputs

    def in_pixels(self, answers: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Return answers for images of heights and widths `(n, 2)`."""
        return answers

    def drawn(
        self, pixels: np.ndarray, names: Names, labels: np.ndarray, answers: Any = None
    ) -> np.ndarray:
        """Return a picture for the page, with what is known of where things are in it."""
        return pixels

    def label_text(self, labels: np.ndarray, index: int, names: Names) -> str:
        """Return the truth about one image as text."""
        return str(self.predictions(labels, labels, list(names)).texts(index)[0])

    @abc.abstractmethod
    def measure_columns(self) -> list[str]:
        """Return the titles of `measure_cells`."""

    @abc.abstractmethod
    def measure_cells(self, measures: Mapping[str, Any]) -> list[str]:
        """Return what `evaluate` found as the cells of a row of a terminal of 80 columns."""

    @property
    def card_measures(self) -> tuple[Measure, ...]:
        """The measures in the table of the card."""
        return self.measures

    @abc.abstractmethod
    def what_it_does(self, class_names: Sequence[str], *, names_them: bool = False) -> str:
        """Return what a model does, as the rest of a sentence."""

    def test_sentence(self, measures: Mapping[str, Any]) -> str:
        """Return the first sentence of the page about the test images."""
        return f"Measured on {measures['num_images']:,} test images."

    def choose_settings(self, labels: np.ndarray, outputs: np.ndarray, cost: float | None) -> str:
        """Return settings for predictions, chosen on validation images; "" if there are none."""
        return ""

    def with_settings(self, settings: str | None) -> Task:
        """Return the task with the settings of `choose_settings`."""
        return self

    @abc.abstractmethod
    def describe_outputs(self, outputs: np.ndarray, names: Names, top: int | None) -> list[Told]:
        """Return what `kerastl predict` prints for one image with these outputs.

        At most `top` of them where that many are asked for.
        """

    # What is served.

    @abc.abstractmethod
    def serve(self, outputs: Any, class_names: list[str]) -> Tensors:
        """Return the output tensors of a SavedModel, from the outputs `(batch, num_outputs)`."""

    def in_served_pixels(self, tensors: Tensors, sizes: Any) -> Tensors:
        """Return what `serve` gave for images of heights and widths `(batch, 2)`."""
        return tensors

    def told_answers(self, served: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return what `describe_outputs` takes of each image, from what a SavedModel answers."""
        return served[self.served_output]

    def difference(self, got: np.ndarray, expected: np.ndarray) -> float:
        """Return the difference between the outputs of an artifact and of the model."""
        return float(abs(got - expected).max())

    @abc.abstractmethod
    def agreement(self, got: np.ndarray, expected: np.ndarray) -> float | None:
        """Return the fraction of equal predictions, or None if predictions cannot be equal."""

    @abc.abstractmethod
    def share_right(self, outputs: np.ndarray, labels: np.ndarray) -> float | None:
        """Return the fraction of correct predictions, or None if the task has no such measure."""


def task_names() -> list[str]:
    """Return the names of all tasks."""
    folders = importlib.import_module(_PACKAGE).__path__
    found = [module.name for module in pkgutil.iter_modules(folders)]
    return sorted(name for name in found if not name.startswith("_"))


def check_task(name: str) -> str:
    """Return `name` when it is that of a task; else raise an `ArgumentError` with near names."""
    return check_choice("task", name, task_names())


@functools.cache
def _load(name: str) -> Task:
    found: Task = importlib.import_module(f"{_PACKAGE}.{name}").TASK
    return found


def find_task(name: str) -> Task:
    """Return the task of a name, or raise an `ArgumentError`."""
    return _load(check_task(name))


def all_tasks() -> list[Task]:
    """Return all tasks."""
    return [_load(name) for name in task_names()]


def check_supports(task: str, feature: str) -> Task:
    """Return a task, or raise an `ArgumentError` unless it has one of `FEATURES`."""
    if feature not in find_task(task).supports:
        raise _refusal(task, feature)
    return find_task(task)


def _refusal(task: str, feature: str) -> ArgumentError:
    what, instead = FEATURES[feature]
    able = [f"task={one.name!r}" for one in all_tasks() if feature in one.supports]
    alone = " alone" if len(able) == 1 else ""
    return ArgumentError(
        f"{what} takes {' or '.join(able)}{alone}. Received: task={task!r}. {instead}"
    )
