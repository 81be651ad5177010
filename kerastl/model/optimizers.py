"""An optimizer whose rate falls from the head towards the input, stage by stage.

It is a `keras.optimizers.MultiOptimizer` with one inner optimizer a stage. The first of them, the
leader, belongs to the head; the others follow it in fixed ratios, whatever sets the rate: a
schedule, `LearningRateScheduler` or `ReduceLROnPlateau`. Saved, each is the plain Keras class with
the rate it had, so that a model loads without kerastl.
"""

import functools
from typing import Any

import keras

from kerastl._checks import check_choice, check_float
from kerastl.distribute import summed_over_replicas
from kerastl.errors import ArgumentError
from kerastl.model.freeze import stage_of_variables
from kerastl.model.recipes import Phase

OPTIMIZER_CLASSES = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": functools.partial(keras.optimizers.SGD, momentum=0.9),
}
# The fields of Keras' schedules that are learning rates, and so are scaled.
RATE_FIELDS = {"initial_learning_rate", "warmup_target", "end_learning_rate", "values"}


def layerwise_optimizer(
    model: keras.Model,
    optimizer: Any = "adamw",
    *,
    learning_rate: Any = None,
    layer_decay: float = 0.5,
    backbone_rate: float = 1.0,
    weight_decay: float | None = None,
    clipnorm: float | None = None,
) -> keras.optimizers.Optimizer:
    """Return an optimizer that trains each stage at a rate of its own.

    The head trains at `learning_rate`, the last stage at `learning_rate * backbone_rate`, and each
    stage before it at `layer_decay` times the rate of the stage above. Decoupled weight decay is
    scaled like the rate, and biases and normalisation weights are left out of it. Gradients are
    clipped by the norm of each stage.

    Args:
        model: a model of `build_transfer_model`, already frozen as wanted.
        optimizer: `"adam"`, `"adamw"`, `"sgd"` (momentum 0.9), or an unused Keras optimizer whose
            configuration is taken.
        learning_rate: float above 0 or a `LearningRateSchedule`: of the head. Default: the
            configured rate of `optimizer`, 1e-3 for a name.
        layer_decay: above 0, at most 1. Default 0.5 (0.3-0.5 a stage of a CNN;
            https://arxiv.org/abs/2106.08254 uses 0.65-0.75 a transformer block).
        backbone_rate: above 0. Default 1.
        weight_decay: at least 0; default: the optimizer's own (0 for a name).
        clipnorm: largest gradient norm of a stage; default no clipping.

    Returns:
        A compiled-ready `keras.optimizers.MultiOptimizer`. `.learning_rate` reads and sets the
        head's rate; `.optimizers` holds the head's optimizer first, then one a trained stage, from
        the last to the first.

    Raises:
        ArgumentError: a number out of range, a schedule that cannot be scaled, or nothing to train.

    Example:
        >>> kerastl.freeze_to(model, 3)
        >>> rates = kerastl.layerwise_optimizer(model, "adamw", learning_rate=3e-4)
        >>> model.compile(rates, "sparse_categorical_crossentropy")
    """
    check_float("layer_decay", layer_decay, 0.0, 1.0, exclusive=True)
    check_float("backbone_rate", backbone_rate, 0.0, exclusive=True)
    template = _template(optimizer, weight_decay, clipnorm)
    if learning_rate is None:
        learning_rate = template._learning_rate
    elif not isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        check_float("learning_rate", learning_rate, 0.0, exclusive=True)
    groups = stage_of_variables(model)
    if not groups:
        raise ArgumentError("No weight of the model is trainable. Call `freeze_to` first.")
    num_stages = max((stage for stage in groups if stage is not None), default=0) + 1
    inner: list[Any] = []
    paths: dict[str, Any] = {}
    one_of_group = _grouped(template.__class__, inner)
    for stage in sorted(groups, key=lambda s: -num_stages if s is None else -s):
        exponent = 0 if stage is None else num_stages - 1 - stage
        ratio = 1.0 if stage is None else backbone_rate * layer_decay**exponent
        config = template.get_config() | {
            "learning_rate": scaled_rate(learning_rate, ratio),
            "name": "head" if stage is None else f"stage_{stage}",
        }
        one = one_of_group(**config)
        one._ratio = ratio
        one.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
        for variable in groups[stage]:
            if variable.path in paths:
                raise ArgumentError(
                    f"Two trainable weights have the path {variable.path!r}. Rename a layer so "
                    "that each weight belongs to one stage."
                )
            paths[variable.path] = one
        inner.append(one)
    return _LayerwiseOptimizer(keras.optimizers.OptimizerMap(inner[0], paths))


def phase_optimizer(
    model: keras.Model, phase: Phase, learning_rate: Any
) -> keras.optimizers.Optimizer:
    """Return the optimizer of a phase of a recipe for a model that is frozen for it."""
    return layerwise_optimizer(
        model,
        phase.optimizer,
        learning_rate=learning_rate,
        layer_decay=phase.layer_decay,
        backbone_rate=phase.backbone_rate,
        weight_decay=phase.weight_decay,
        clipnorm=phase.clipnorm,
    )


def optimizer_variables(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Return all that an optimizer of `layerwise_optimizer` remembers, of every stage."""
    return [*optimizer.variables, *(v for one in optimizer.optimizers for v in one.variables)]


def _template(optimizer: Any, weight_decay: float | None, clipnorm: float | None) -> Any:
    """An optimizer whose configuration each stage takes."""
    if isinstance(optimizer, str):
        check_choice("optimizer", optimizer, OPTIMIZER_CLASSES)
        optimizer = OPTIMIZER_CLASSES[optimizer](learning_rate=1e-3, weight_decay=0.0)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ArgumentError(
            "`optimizer` must be 'adam', 'adamw', 'sgd' or a Keras optimizer. "
            f"Received: optimizer={optimizer!r}"
        )
    if optimizer.built:
        raise ArgumentError(
            f"`optimizer` {optimizer.name!r} has trained a model already. Give a new one or a name."
        )
    optimizer = type(optimizer).from_config(optimizer.get_config())  # the user's stays as it is
    if weight_decay is not None:
        optimizer.weight_decay = check_float("weight_decay", weight_decay, 0.0)
    if clipnorm:
        optimizer.global_clipnorm = check_float("clipnorm", clipnorm, 0.0)
    return optimizer


def scaled_rate(learning_rate: Any, ratio: float) -> Any:
    """Return `ratio` times a rate or a Keras schedule (as a schedule of the same class)."""
    if not isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return float(keras.ops.convert_to_numpy(learning_rate)) * ratio
    config = learning_rate.get_config()
    fields = RATE_FIELDS & config.keys()
    if not fields:
        raise ArgumentError(
            f"The schedule {type(learning_rate).__name__} names none of its rates "
            f"({', '.join(sorted(RATE_FIELDS))}), so it cannot be scaled by stage. Use one of "
            "keras.optimizers.schedules, or a float with `LearningRateScheduler`."
        )
    for field in fields:
        value = config[field]
        if isinstance(value, (list, tuple)):
            config[field] = [rate * ratio for rate in value]
        elif value is not None:
            config[field] = value * ratio
    return type(learning_rate).from_config(config)


def _grouped(plain: type, group: list[Any]) -> type:
    """A subclass of `plain` whose instances in `group` keep their rates in fixed ratios.

    The group is closed over, not an attribute: Keras would save what hangs on an optimizer.
    """

    class Grouped(plain):  # type: ignore[misc]
        _ratio = 1.0

        # Keras serialises `obj.__class__`: saved, this is the plain optimizer it stands for.
        @property  # type: ignore[misc]
        def __class__(self) -> type:
            return plain

        @property
        def learning_rate(self) -> Any:
            return self._get_current_learning_rate()

        @learning_rate.setter
        def learning_rate(self, value: Any) -> None:
            # Callbacks set one optimizer after another: the leader moves all, a follower none.
            if group and self is group[0]:
                for one in group:
                    plain.learning_rate.fset(  # type: ignore[attr-defined]
                        one, scaled_rate(value, one._ratio)
                    )

        def _clip_gradients(self, grads: list[Any]) -> Any:
            # Keras clips what each replica has before it sums them up, which is another rule. It
            # sums what is returned here too, so each replica gives its share of the whole.
            if not (self.clipnorm or self.global_clipnorm or self.clipvalue):
                return grads
            whole, replicas = summed_over_replicas(grads)
            clipped = super()._clip_gradients(whole)
            return [grad if grad is None else grad / replicas for grad in clipped]

    Grouped.__name__ = plain.__name__
    return Grouped


class _LayerwiseOptimizer(keras.optimizers.MultiOptimizer):  # type: ignore[misc]
    """A `MultiOptimizer` with one rate to read and set: the head's."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return keras.optimizers.MultiOptimizer

    @property
    def learning_rate(self) -> Any:
        return self.optimizers[0].learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.optimizers[0].learning_rate = value
