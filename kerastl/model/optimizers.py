"""An optimizer whose learning rate falls towards the input, stage by stage.

It is a `keras.optimizers.MultiOptimizer` with one inner optimizer a stage. The first of them, the
leader, belongs to the head; the others follow it in fixed ratios, whatever sets the rate: a
schedule, `LearningRateScheduler` or `ReduceLROnPlateau`. Saved, each is the plain Keras class with
the rate it had, so that a model loads without kerastl.
"""

import functools
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from kerastl._checks import check_choice, check_float
from kerastl.distribute import (
    check_accumulation,
    num_replicas,
    scope_of,
    summed_over_replicas,
)
from kerastl.errors import ArgumentError
from kerastl.model.freeze import stage_of_variables
from kerastl.model.precision import policies_of
from kerastl.model.recipes import Phase
from kerastl.model.weight_paths import paths_once_loaded

_WRAPPERS = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
OPTIMIZER_CLASSES = {
    name.lower(): found
    for name, found in vars(keras.optimizers).items()
    if isinstance(found, type)
    and issubclass(found, keras.optimizers.Optimizer)
    and name not in _WRAPPERS
} | {"sgd": functools.partial(keras.optimizers.SGD, momentum=0.9)}
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
    """Return an optimizer with a separate learning rate for each stage.

    The head trains at `learning_rate`, the last stage at `learning_rate * backbone_rate`, and each
    earlier stage at `layer_decay` times the rate of the next stage. Decoupled weight decay is
    scaled like the rate; biases and normalisation weights have no weight decay. Gradients are
    clipped by the norm of each stage.

    Keras saves and loads rates, state and stages, but not the connection between the rates and not
    the exclusions from weight decay: `LearningRateScheduler` sets the same rate for all stages of a
    loaded model. `layerwise_optimizer(model, model.optimizer)` restores both.

    Args:
        model: a model of `build_transfer_model`, after `freeze_to`.
        optimizer: a name as Keras writes it, such as `"adamw"`, `"rmsprop"` or `"sgd"` (momentum
            0.9); an unused Keras optimizer, whose configuration is copied, also inside a
            `LossScaleOptimizer`; or the `model.optimizer` of a loaded model, whose rates and state
            are kept (leave out the arguments below).
        learning_rate: learning rate of the head: a float above 0 or a `LearningRateSchedule`.
            Default: the configured rate of `optimizer`, 1e-3 for a name.
        layer_decay: above 0, at most 1. Default 0.5 (0.3-0.5 per stage of a CNN;
            https://arxiv.org/abs/2106.08254 uses 0.65-0.75 per transformer block).
        backbone_rate: above 0. Default 1.
        weight_decay: at least 0; default: the optimizer's own (0 for a name).
        clipnorm: largest gradient norm of a stage; default no clipping.

    Returns:
        A compiled-ready `keras.optimizers.MultiOptimizer` on the devices of the model.
        `.learning_rate` reads and sets the rate of the head; `.optimizers` contains the optimizer
        of the head, then one per trained stage, from the last to the first. It is the
        `inner_optimizer` of a `LossScaleOptimizer` if you passed one, or if layers of the model use
        mixed_float16.

    Raises:
        ArgumentError: a number is out of range, the schedule cannot be scaled, or no weight is
            trainable.

    Example:
        >>> kerastl.freeze_to(model, 3)
        >>> rates = kerastl.layerwise_optimizer(model, "adamw", learning_rate=3e-4)
        >>> model.compile(rates, "sparse_categorical_crossentropy")
    """
    check_float("layer_decay", layer_decay, 0.0, 1.0, exclusive=True)
    check_float("backbone_rate", backbone_rate, 0.0, exclusive=True)
    groups = stage_of_variables(model)
    if not groups:
        raise ArgumentError("No weight of the model is trainable. Call `freeze_to` first.")
    order = sorted(groups, key=lambda stage: float("-inf") if stage is None else -stage)
    groups = {stage: groups[stage] for stage in order}
    scaling = optimizer if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) else None
    inner = optimizer if scaling is None else scaling.inner_optimizer
    is_loaded = isinstance(inner, keras.optimizers.MultiOptimizer)
    with scope_of(model):
        if is_loaded:
            others = (learning_rate, layer_decay, backbone_rate, weight_decay, clipnorm)
            if others != (None, 0.5, 1.0, None, None):
                raise ArgumentError(
                    "The optimizer of a model already has learning rates: leave out the "
                    "other arguments, or pass the name of a new optimizer, such as 'adamw'."
                )
            parts = _loaded_parts(inner, groups)
        else:
            template = _template(inner, weight_decay, clipnorm)
            check_accumulation(template.gradient_accumulation_steps, model)
            parts = _new_parts(template, groups, learning_rate, backbone_rate, layer_decay)
        made = _LayerwiseOptimizer(model, parts)
        several = num_replicas(model) > 1
        scaler = _LossScaleOfReplicas if several else keras.optimizers.LossScaleOptimizer
        if scaling is not None:
            made = scaler(made, scaling.initial_scale, scaling.dynamic_growth_steps)
        elif "mixed_float16" in policies_of(model):  # as `compile` does, which builds it later
            made = scaler(made)
        # Left to `fit`, the slots are made while its graph is traced, which takes seconds longer,
        # and a model that is saved untrained would warn of missing slots when it loads.
        made.build(model.trainable_variables)
        if is_loaded:
            for new, old in zip(made.variables, optimizer.variables, strict=True):
                new.assign(old)
    return made


def phase_optimizer(
    model: keras.Model, phase: Phase, learning_rate: Any, accumulate: int = 1
) -> keras.optimizers.Optimizer:
    """Return the optimizer of a phase of a recipe for a model that is frozen for it."""
    return layerwise_optimizer(
        model,
        _named(phase.optimizer, gradient_accumulation_steps=accumulate if accumulate > 1 else None),
        learning_rate=learning_rate,
        layer_decay=phase.layer_decay,
        backbone_rate=phase.backbone_rate,
        weight_decay=phase.weight_decay,
        clipnorm=phase.clipnorm,
    )


def _named(name: str, **arguments: Any) -> Any:
    check_choice("optimizer", name, OPTIMIZER_CLASSES)
    return OPTIMIZER_CLASSES[name](learning_rate=1e-3, weight_decay=0.0, **arguments)


def _template(optimizer: Any, weight_decay: float | None, clipnorm: float | None) -> Any:
    """An optimizer whose configuration each stage takes."""
    if isinstance(optimizer, str):
        optimizer = _named(optimizer)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ArgumentError(
            "`optimizer` must be a name such as 'adamw' or a Keras optimizer. "
            f"Received: optimizer={optimizer!r}"
        )
    if optimizer.built:
        raise ArgumentError(
            f"`optimizer` {optimizer.name!r} was already used to train a model. Pass a new "
            "optimizer, or a name."
        )
    optimizer = type(optimizer).from_config(optimizer.get_config())  # the user's stays as it is
    if weight_decay is not None:
        optimizer.weight_decay = check_float("weight_decay", weight_decay, 0.0)
    if clipnorm:
        optimizer.global_clipnorm = check_float("clipnorm", clipnorm, 0.0)
    return optimizer


class _Part(NamedTuple):
    """The optimizer of a stage before it is made, and the weights that it trains."""

    plain: Any
    config: dict[str, Any]
    ratio: float
    variables: list[Any]


def _name(stage: int | None) -> str:
    return "head" if stage is None else f"stage_{stage}"


def _new_parts(
    template: Any,
    groups: dict[int | None, list[Any]],
    learning_rate: Any,
    backbone_rate: float,
    layer_decay: float,
) -> list[_Part]:
    if learning_rate is None:
        learning_rate = template._learning_rate
    elif not isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        check_float("learning_rate", learning_rate, 0.0, exclusive=True)
    last = max((stage for stage in groups if stage is not None), default=0)
    parts = []
    for stage, variables in groups.items():
        ratio = 1.0 if stage is None else backbone_rate * layer_decay ** (last - stage)
        changes = {"learning_rate": scaled_rate(learning_rate, ratio), "name": _name(stage)}
        parts.append(_Part(type(template), template.get_config() | changes, ratio, variables))
    return parts


def _loaded_parts(loaded: Any, groups: dict[int | None, list[Any]]) -> list[_Part]:
    """Return what the inner optimizers of a loaded model are, if they train the same weights."""
    found = {one.name: one for one in loaded.optimizers}
    trained = {name: set(map(id, one._trainable_variables)) for name, one in found.items()}
    if trained != {_name(stage): set(map(id, variables)) for stage, variables in groups.items()}:
        raise ArgumentError(
            "The optimizer of the model was created for other trainable weights than the "
            "model has now. Create a new one: `layerwise_optimizer(model, 'adamw')`."
        )
    head = _peak(loaded.optimizers[0]._learning_rate)
    parts = []
    for stage, variables in groups.items():
        one = found[_name(stage)]
        ratio = _peak(one._learning_rate) / head
        parts.append(_Part(one.__class__, one.get_config(), ratio, variables))
    return parts


def _peak(learning_rate: Any) -> float:
    """Return the highest rate that a rate or a Keras schedule names."""
    if not isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return float(keras.ops.convert_to_numpy(learning_rate))
    config = learning_rate.get_config()
    named = keras.tree.flatten([config[field] for field in RATE_FIELDS & config.keys()])
    return max((float(rate) for rate in named if rate is not None), default=1.0)


def scaled_rate(learning_rate: Any, ratio: float) -> Any:
    """Return `ratio` times a rate or a Keras schedule (as a schedule of the same class)."""
    if not isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return float(keras.ops.convert_to_numpy(learning_rate)) * ratio
    config = learning_rate.get_config()
    fields = RATE_FIELDS & config.keys()
    if not fields:
        raise ArgumentError(
            f"The schedule {type(learning_rate).__name__} has none of the known rates "
            f"({', '.join(sorted(RATE_FIELDS))}), so kerastl cannot scale it for each stage. "
            "Use one of keras.optimizers.schedules, or a float with "
            "`LearningRateScheduler`."
        )
    for field in fields:
        value = config[field]
        if isinstance(value, (list, tuple)):
            config[field] = [rate * ratio for rate in value]
        elif value is not None:
            config[field] = value * ratio
    return type(learning_rate).from_config(config)


def _grouped(plain: type, group: list[Any]) -> Any:
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


class _StageMap:
    """The optimizer of each weight, as `MultiOptimizer` asks for it."""

    def __init__(self, optimizers: Sequence[Any], parts: Sequence[_Part]):
        self._optimizers = optimizers
        self.variables = [part.variables for part in parts]
        pairs = zip(optimizers, self.variables, strict=True)
        self._of_variable = {id(v): one for one, variables in pairs for v in variables}

    def values(self) -> Sequence[Any]:
        return self._optimizers

    def __call__(self, variable: Any) -> Any:
        if id(variable) not in self._of_variable:
            raise ArgumentError(
                f"The weight {variable.path!r} was frozen when the optimizer was created. "
                "Call `layerwise_optimizer` again after `freeze_to`."
            )
        return self._of_variable[id(variable)]


class _LayerwiseOptimizer(keras.optimizers.MultiOptimizer):  # type: ignore[misc]
    """A `MultiOptimizer` with one rate to read and set: the head's."""

    def __init__(self, model: keras.Model, parts: Sequence[_Part]):
        group: list[Any] = []
        for part in parts:
            one = _grouped(part.plain, group).from_config(part.config)
            one._ratio = part.ratio
            one.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
            group.append(one)
        super().__init__(_StageMap(group, parts))
        trained = [variable for part in parts for variable in part.variables]
        self._paths_once_loaded = functools.cache(lambda: paths_once_loaded(model, trained))

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return keras.optimizers.MultiOptimizer

    @property
    def learning_rate(self) -> Any:
        return self.optimizers[0].learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.optimizers[0].learning_rate = value

    def get_config(self) -> dict[str, Any]:
        """Return what Keras' `MultiOptimizer` is made of, its weights told by their paths."""
        paths, stages = self._paths_once_loaded(), self._optimizer_map.variables
        once_loaded = [{paths.get(id(v), v.path) for v in variables} for variables in stages]
        taken = set().union(*once_loaded)
        shared = len(taken) < sum(map(len, once_loaded))
        if shared:
            warnings.warn(
                "After loading, weights of several stages will have the same path and train "
                "with the same learning rate. Use different names for the layers of nested "
                "models.",
                stacklevel=2,
            )
        known: set[str] = set()
        patterns = {}
        for one, variables, own in zip(self.optimizers, stages, once_loaded, strict=True):
            own = (own | ({v.path for v in variables} - taken)) - known
            known |= own
            patterns["|".join(map(re.escape, sorted(own)))] = one
        stage_of_path = keras.optimizers.OptimizerMap(self.optimizers[0], patterns)
        return {
            "optimizer_map": keras.saving.serialize_keras_object(stage_of_path),
            "loss_scale_factor": self.loss_scale_factor,
            "name": self.name,
        }


class _LossScaleOfReplicas(keras.optimizers.LossScaleOptimizer):  # type: ignore[misc]
    """A `LossScaleOptimizer` whose replicas skip a step together.

    Keras asks the first replica whether its gradients are finite, and lets those of others, which
    may not be, into all weights.
    """

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return keras.optimizers.LossScaleOptimizer

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        whole, replicas = summed_over_replicas(list(grads))
        shares = [grad if grad is None else grad / replicas for grad in whole]
        super().apply(shares, trainable_variables)
