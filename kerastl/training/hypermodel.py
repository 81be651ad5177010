"""A search space of transfer models for any KerasTuner tuner."""

import os
from collections.abc import Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf
from keras_tuner.errors import FatalError

from kerastl._checks import check_choice, check_float, check_int
from kerastl._task import DEFAULT_TASK, check_supports
from kerastl._typed import typed
from kerastl.advice.sizes import check_mutually_exclusive
from kerastl.data.augment import AUGMENTATIONS, Augmentation, augmented_batches
from kerastl.data.decode import resize
from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import freeze_to, stages
from kerastl.model.head_names import HEADS, check_head
from kerastl.model.optimizers import layerwise_optimizer

Range = tuple[float, float]
OneOrRange = float | Range


@typed
class TransferHyperModel(keras_tuner.HyperModel):  # type: ignore[misc]
    """A search space of transfer models for any KerasTuner tuner.

    A plain `keras_tuner.HyperModel` for `RandomSearch`, `Hyperband`, `BayesianOptimization` and
    `GridSearch`. Each trial runs the whole network in each epoch; `kerastl.search` runs the frozen
    stages once for all trials.

    Its hyperparameters are `freeze_depth`, `learning_rate` (of the head), `backbone_rate` (of the
    last stage, as a fraction of the head's), `layer_decay` (per stage), `weight_decay`, `head`,
    `dropout` (of the head), `augmentation` (of the batches that you pass to `search`, in `fit`).
    With several backbones there are also `backbone` and a `freeze_depth` for each, and with several
    sizes `image_size`, to which `fit` resizes the training and validation batches.

    Args:
        backbone: as for `build_transfer_model`, or a sequence of names. A `keras.Model` is copied
            for each trial.
        num_classes: number of classes, at least 2; for several labels and regression at least 1.
        weights: as for `build_transfer_model`; with several backbones one value for all, or a
            sequence with one value for each.
        image_size: height and width in pixels. Default: the backbone's native size.
        image_sizes: several sizes instead of one. Pass batches of the largest size to `search`.
        channels: as for `build_transfer_model`.
        task: as for `build_transfer_model`; models have its loss and metrics, such as
            `"val_auc_pr"` for several labels and `"val_mean_absolute_error"` for regression.
        freeze_depths: several depths, or one. Default: all from 0 to the number of stages.
        learning_rates: minimum and maximum, on a log scale. You can pass one number here and below;
            it is then not searched. Default: 1e-4 to 1e-2, around 1e-3, the default of Keras' Adam.
        layer_decays: minimum and maximum. Default 0.3 to 1 (see `layerwise_optimizer`).
        weight_decays: minimum and maximum, on a log scale. Default 1e-6 to 1e-2.
        heads: heads of `build_transfer_model`. Default: both.
        dropouts: minimum and maximum rate. Default: 0 to 0.5, the value of fastai.
        augmentations: names of augmentations. Default: `"none"`, `"flip"`, `"light"`,
            `"medium"` and `"strong"`, for regression only `"none"`, because the others mirror
            images. With `("none",)` batches are not changed.
        name: name of the hypermodel.
        tunable: as in `keras_tuner.HyperModel`.

    Raises:
        ArgumentError: an argument is invalid.

    Example:
        >>> space = kerastl.TransferHyperModel("MobileNetV2", num_classes=5)
        >>> tuner = keras_tuner.RandomSearch(space, "val_accuracy", max_trials=20)
        >>> size = (224, 224)
        >>> tuner.search(data.train.batches(size), validation_data=data.validation.batches(size))
    """

    def __init__(
        self,
        backbone: str | keras.Model | Sequence[str],
        num_classes: int,
        *,
        weights: str | os.PathLike[str] | Sequence[str] = "imagenet",
        image_size: int | tuple[int, int] | None = None,
        image_sizes: Sequence[int] | None = None,
        channels: int = 3,
        task: str = DEFAULT_TASK,
        freeze_depths: int | Sequence[int] | None = None,
        learning_rates: OneOrRange = (1e-4, 1e-2),
        layer_decays: OneOrRange = (0.3, 1.0),
        weight_decays: OneOrRange = (1e-6, 1e-2),
        heads: str | Sequence[str] = HEADS,
        dropouts: OneOrRange = (0.0, 0.5),
        augmentations: str | Sequence[str] | None = None,
        name: str | None = None,
        tunable: bool = True,
    ):
        super().__init__(name, tunable)
        self.task = check_supports(task, "search")
        self.num_classes = check_int("num_classes", num_classes, self.task.least_outputs)
        self.backbones = [backbone] if isinstance(backbone, (str, keras.Model)) else list(backbone)
        self.weights = _one_each(weights, len(self.backbones))
        self.image_size, self.channels = image_size, channels
        self.image_sizes = [check_int("image_sizes", size, 1) for size in image_sizes or ()]
        if self.image_sizes:
            check_mutually_exclusive(image_size, image_sizes)
        self.freeze_depths: list[int] | None = None
        if freeze_depths is not None:
            depths = [freeze_depths] if isinstance(freeze_depths, int) else freeze_depths
            self.freeze_depths = [check_int("freeze_depths", depth, 0) for depth in depths]
        self.learning_rates = _range("learning_rates", learning_rates)
        self.layer_decays = _range("layer_decays", layer_decays, 1.0)
        self.weight_decays = _range("weight_decays", weight_decays)
        self.heads = [check_head("heads", head) for head in _listed(heads)]
        self.dropouts = _range("dropouts", dropouts, 0.99, least=0.0)
        self.augmentations = [
            check_choice("augmentations", name, tuple(AUGMENTATIONS))
            for name in _listed(augmentations or self.task.augmentation or tuple(AUGMENTATIONS))
        ]
        self._num_stages: dict[int, int] = {}

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Return the compiled model for the hyperparameters.

        It takes raw pixels and labels (integers for classes), as from `split.batches(size)`.
        """
        index = 0
        if len(self.backbones) > 1:
            index = self.backbones.index(hp.Choice("backbone", self.backbones))
        head, dropout = hp.Choice("head", self.heads), _float(hp, "dropout", self.dropouts)
        hp.Choice("augmentation", self.augmentations)
        model = self._model(index, self._image_size(hp), head=head, dropout=dropout)
        self._num_stages[index] = len(stages(model))
        freeze_to(model, self._freeze_depth(hp, index))
        optimizer = layerwise_optimizer(
            model,
            "adamw",
            learning_rate=_float(hp, "learning_rate", self.learning_rates, 1e-3, "log"),
            backbone_rate=_float(hp, "backbone_rate", (0.1, 1.0), 1.0, "log"),
            layer_decay=_float(hp, "layer_decay", self.layer_decays, 1.0),
            weight_decay=_float(hp, "weight_decay", self.weight_decays, 0.0, "log"),
            clipnorm=1.0,
        )
        metrics = self.task.compiled_metrics(self.num_classes)
        model.compile(optimizer, self.task.loss, metrics=metrics)
        return model

    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any
    ) -> Any:
        """Train a model of `build` with `model.fit`, on random views of the images.

        Args:
            hp: the hyperparameters, for the augmentation.
            model: the result of `build`.
            *args: as for `model.fit`: images and labels, or a `tf.data.Dataset` of batches.
            **kwargs: as for `model.fit`.
        """
        augmentation = AUGMENTATIONS[hp.get("augmentation")]
        if augmentation == Augmentation() and not self.image_sizes:
            return super().fit(hp, model, *args, **kwargs)
        given = dict(zip(("x", "y"), args, strict=False)) | kwargs
        x, held_out = given.pop("x"), given.pop("validation_data", None)
        if not isinstance(x, tf.data.Dataset):
            y, batch_size = given.pop("y", None), given.pop("batch_size", None) or 32
            if share := given.pop("validation_split", 0.0):  # the last ones, as Keras takes them
                first = int(len(x) * (1 - share))
                x, y, held_out = x[:first], y[:first], (x[first:], y[first:])
            if isinstance(held_out, (tuple, list)):
                held_out = _batches(held_out[0], held_out[1], batch_size)
            x = _batches(x, y, batch_size, shuffle=bool(given.get("shuffle", True)))
            given["shuffle"] = False
        batches = self._sized(hp, x)
        if augmentation != Augmentation():
            batches = augmented_batches(batches, augmentation, 0)
        if held_out is not None:
            given["validation_data"] = self._sized(hp, held_out)
        return super().fit(hp, model, batches, **given)

    def _sized(self, hp: keras_tuner.HyperParameters, batches: Any) -> Any:
        """Return batches of the size that was chosen."""
        if not self.image_sizes:
            return batches
        size = (hp.get("image_size"),) * 2
        return batches.map(lambda images, *others: (resize(images, size), *others))

    def _image_size(self, hp: keras_tuner.HyperParameters) -> Any:
        if not self.image_sizes:
            return self.image_size
        return hp.Choice("image_size", self.image_sizes, default=self.image_sizes[0])

    def _model(
        self, index: int, image_size: Any, weights: str | None = None, **head: Any
    ) -> keras.Model:
        backbone, weights = self.backbones[index], weights or self.weights[index]
        if isinstance(backbone, keras.Model):  # which has its own
            weights = self.weights[index]
        return build_transfer_model(
            backbone,
            self.num_classes,
            weights=weights,
            image_size=image_size,
            channels=self.channels,
            task=self.task.name,
            **head,
        )

    def _freeze_depth(self, hp: keras_tuner.HyperParameters, chosen: int) -> int:
        """Return the depth; those of all backbones are declared, as tuners want it."""
        if len(self.backbones) == 1:
            return self._depth(hp, "freeze_depth", chosen)
        depth = 0
        for index, name in enumerate(self.backbones):
            with hp.conditional_scope("backbone", [name]):
                value = self._depth(hp, f"freeze_depth of {name}", index)
                depth = value if index == chosen else depth
        return depth

    def _depth(self, hp: keras_tuner.HyperParameters, name: str, index: int) -> int:
        if self.freeze_depths is not None:
            return int(hp.Choice(name, self.freeze_depths, default=max(self.freeze_depths)) or 0)
        if index not in self._num_stages:
            size = self.image_sizes[0] if self.image_sizes else self.image_size
            self._num_stages[index] = len(stages(self._model(index, size, "random")))
        num_stages = self._num_stages[index]
        return int(hp.Int(name, 0, num_stages, default=num_stages) or 0)


def _batches(x: Any, y: Any, batch_size: int, *, shuffle: bool = False) -> Any:
    """Return arrays as a `tf.data.Dataset` of batches, in an order that each epoch draws anew."""
    if y is None or not hasattr(x, "__getitem__"):
        raise FatalError(
            "Augmentation and resizing need images and labels as arrays, or a "
            f"tf.data.Dataset of batches. Received: {type(x).__name__}. Pass "
            "`data.train.batches(size)`, or build the TransferHyperModel with "
            "augmentations='none' and without image_sizes."
        )
    whole = tf.data.Dataset.from_tensor_slices((np.asarray(x), np.asarray(y)))
    return (whole.shuffle(len(x)) if shuffle else whole).batch(batch_size)


def _float(
    hp: keras_tuner.HyperParameters,
    name: str,
    span: Range,
    default: float = 0.0,
    sampling: str = "linear",
) -> float:
    """Return a hyperparameter in a range, or fixed where its ends are one number."""
    low, high = span
    if low == high:
        return float(hp.Fixed(name, low))
    default = min(max(default, low), high)
    return float(hp.Float(name, low, high, sampling=sampling, default=default))


def _listed(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def _one_each(weights: str | os.PathLike[str] | Sequence[str], count: int) -> list[str]:
    if isinstance(weights, (str, os.PathLike)):
        return [os.fspath(weights)] * count
    if len(weights) != count:
        raise ArgumentError(
            f"`weights` must be one value for all backbones, or one for each of the {count}. "
            f"Received {len(weights)}: {list(weights)!r}"
        )
    return [os.fspath(one) for one in weights]


def _range(
    name: str, given: OneOrRange, most: float = float("inf"), least: float | None = None
) -> Range:
    span = (given, given) if isinstance(given, (int, float)) else given
    is_pair = isinstance(span, (tuple, list)) and len(span) == 2
    if not is_pair or not span[0] <= span[1] <= most or not (span[0] > 0 or span[0] == least):
        lower = "above 0" if least is None else f"from {least:g}"
        upper = "" if most == float("inf") else f", at most {most:g}"
        raise ArgumentError(
            f"`{name}` must be a number or (least, largest), {lower}{upper}. Received: "
            f"{name}={given!r}"
        )
    return check_float(name, span[0], 0.0), check_float(name, span[1], 0.0)
