"""Stores in a model how images become pixels, and checks data against it."""

import dataclasses
import json
from typing import Any

import keras

from kerastl.data.options import PixelRules, usual_resize
from kerastl.data.split import Split
from kerastl.errors import ArgumentError
from kerastl.model.heads import task_of
from kerastl.model.kept_words import remember, words_of

_PIXELS = "pixels"


def remember_rules(model: keras.Model, rules: PixelRules) -> None:
    """Write into a model, as its class names are, how images become the pixels it is trained on."""
    if rules == _told_rules(model):
        return
    remember(model, _PIXELS, json.dumps(dataclasses.asdict(rules)))


def rules_of(model: keras.Model, data: Any = None) -> PixelRules:
    """Return how images become pixels for a model.

    Args:
        model: one that `fine_tune` has trained knows.
        data: a split whose rules are those of a model that knows none. Default: the usual ones.
    """
    if (told := _told_rules(model)) is not None:
        return told
    if isinstance(data, Split):
        return data.source.rules
    resize = usual_resize(task_of(model).has_one_class)
    return PixelRules(resize=resize, channels=model.inputs[0].shape[-1])


def _told_rules(model: keras.Model) -> PixelRules | None:
    told = words_of(model).get(_PIXELS)
    return PixelRules(**json.loads(told)) if told else None


def check_rules(model: keras.Model, split: Split) -> None:
    """Raise an `ArgumentError` where images are not shaped as those that a model is trained on."""
    check_channels(model, split)
    rules, given = _told_rules(model), split.source.rules
    if rules is not None and rules.resize != given.resize:
        raise ArgumentError(
            f"The model was trained on images with resize={rules.resize!r}. Received: data "
            f"with resize={given.resize!r}. Load the data with `load_data(..., "
            f"resize={rules.resize!r})`."
        )


def check_channels(model: keras.Model, split: Split) -> None:
    """Raise an `ArgumentError` where images have other channels than a model takes."""
    own, given = model.inputs[0].shape[-1], split.channels
    if own != given:
        raise ArgumentError(
            f"The model takes images with {own} channels. Received: data with {given}. Build "
            f"the model with channels={given}, or load data with {own} channels."
        )
