"""User settings of `fine_tune` that Keras defines: callbacks, loss, metrics, class weights."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import keras
import numpy as np

from kerastl._checks import check_float
from kerastl._task import check_supports, find_task
from kerastl.data.load import ImageData
from kerastl.distribute import num_replicas
from kerastl.errors import ArgumentError
from kerastl.model.recipes import Phase, Recipe

_MEANS = ("sum_over_batch_size", "mean")
_SHORT = ("acc", "accuracy", "ce", "crossentropy")  # of metrics, which `compile` tells apart

Callbacks: TypeAlias = (
    keras.callbacks.Callback
    | Sequence[keras.callbacks.Callback]
    | Callable[[Phase], Sequence[keras.callbacks.Callback]]
    | None
)


@dataclass(frozen=True)
class Objective:
    """User settings for phases that train by gradients, besides the recipe.

    Args:
        callbacks: of all phases, each of which gets copies, or a function of the phase.
        loss: as `compile` takes it; None for the task's.
        metrics: beside the task's.
        class_weight: by the number of the class; None weighs all alike.
    """

    callbacks: Callbacks = None
    loss: Any = None
    metrics: Sequence[Any] = ()
    class_weight: dict[int, float] | None = field(default=None)

    def callbacks_of(self, phase: Phase) -> list[keras.callbacks.Callback]:
        """Return callbacks for one phase alone."""
        if callable(self.callbacks):
            return list(self.callbacks(phase))
        given = self.callbacks or ()
        return copy.deepcopy(list(given) if isinstance(given, Sequence) else [given])

    def check_recipe(self, recipe: Recipe) -> None:
        """Raise if a loss or metrics are given to a recipe that would not use them."""
        given = {"loss": self.loss is not None, "metrics": self.metrics}
        names = " and ".join(f"`{name}`" for name, value in given.items() if value)
        if names and all(phase.method == "probe" for phase in recipe.phases):
            raise ArgumentError(
                f"The recipe {recipe.name!r} fits the head in closed form, without {names}. "
                "Choose a recipe that trains by gradients, such as recipe='large_similar'."
            )

    def class_weights(
        self, recipe: Recipe, labels: np.ndarray, num_outputs: int
    ) -> dict[int, float] | None:
        """Return the weights of classes: as given, or from the balance of the recipe."""
        if self.class_weight is not None or not recipe.balance:
            return self.class_weight
        weights = find_task(recipe.task).class_weights(labels, num_outputs, recipe.balance)
        return dict(enumerate(weights.tolist()))

    def fresh_metrics(self) -> list[Any]:
        """Return metrics for one compilation alone."""
        return [
            type(one).from_config(one.get_config())
            if isinstance(one, keras.metrics.Metric)
            else one
            for one in self.metrics
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return what a resumed training must have again, as plain values."""
        loss = self.loss
        if isinstance(loss, keras.losses.Loss):
            loss = keras.losses.serialize(loss)
        elif callable(loss):
            loss = getattr(loss, "__name__", repr(loss))
        weights = None if self.class_weight is None else list(self.class_weight.values())
        found = {"loss": loss, "class_weight": weights}
        return {name: value for name, value in found.items() if value is not None}


def check_objective(
    model: Any, data: Any, callbacks: Any, loss: Any, metrics: Any, class_weight: Any
) -> Objective:
    """Return what a user gave to `fine_tune`, before any work.

    Raises:
        ArgumentError: an argument is of a type that cannot be meant, the task has no classes to
            weigh, or the loss cannot be shared by the devices of the model.
    """
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        metrics = [metrics]
    if loss is not None:
        _check_known("loss", loss, keras.losses)
    for metric in metrics:
        _check_known("metrics", metric, keras.metrics)
    reduction = getattr(loss, "reduction", _MEANS[0])
    if num_replicas(model) > 1 and reduction not in _MEANS:
        raise ArgumentError(
            "On several devices a loss must be the mean over the images of a batch. "
            f"Received: {type(loss).__name__}(reduction={reduction!r}). Leave `reduction` "
            "out, or train on one device."
        )
    weights = None if class_weight is None else _by_number(class_weight, data)
    return Objective(callbacks, loss, metrics, weights)


def _check_known(name: str, value: Any, module: Any) -> None:
    if isinstance(value, str) and value not in _SHORT:
        try:
            module.get(value)
        except ValueError as error:
            raise ArgumentError(f"{error}. Pass `{name}` as for `compile`.") from error
    elif not (isinstance(value, str) or callable(value)):
        raise ArgumentError(
            f"`{name}` must be a name, a function or one of `{module.__name__}`. Received: "
            f"{type(value).__name__}. `help(keras.Model.compile)` describes it."
        )


def _by_number(class_weight: Mapping[int | str, float], data: ImageData) -> dict[int, float]:
    """Return a weight for every class, by its number."""
    check_supports(data.task, "class_weight")
    numbers = {name: number for number, name in enumerate(data.class_names)}
    found = dict.fromkeys(range(data.num_classes), 1.0)
    for key, weight in class_weight.items():
        number = numbers.get(key, key) if isinstance(key, str) else int(key)
        if number not in found:
            raise ArgumentError(
                f"`class_weight` must map classes, by number or name, to weights. Received: {key!r}"
                f"; the classes are {data.class_names}."
            )
        found[int(number)] = check_float("class_weight", weight, 0.0)
    return found
