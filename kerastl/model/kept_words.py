"""Stores class names and the origin of the backbone in a model file.

The dtype policy of its first layer holds them, as a map: the one place of a plain layer for free
words that `save`, `load_model` and `clone_model` keep. Its keys are patterns for the paths of
layers, which these match none of.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from kerastl.backbones.given_models import OWN_WEIGHTS


class Origin(NamedTuple):
    """Backbone, weights and cut as `build_transfer_model` took them."""

    backbone: str
    weights: str
    cut: int | None = None


def policy_that_keeps(
    origin: Origin, class_names: Sequence[str] | None
) -> keras.dtype_policies.DTypePolicyMap:
    """Return the dtype policy of Keras' settings as one whose map holds words."""
    words = {name: str(value) for name, value in origin._asdict().items() if value is not None}
    words |= {f"class {index}": name for index, name in enumerate(class_names or ())}
    policy = keras.config.dtype_policy()
    keys = [f"{key}: {re.escape(value)}" for key, value in words.items()]
    return keras.dtype_policies.DTypePolicyMap(policy, dict.fromkeys(keys, policy))


def class_names_of(model: keras.Model) -> list[str] | None:
    """Return the names of a model's classes, also of a loaded or cloned one; None without any."""
    if (own := getattr(model, "class_names", None)) is not None:
        return list(own)
    words = words_of(model)
    return [word for key, word in words.items() if key.startswith("class ")] or None


def origin_of(model: keras.Model) -> Origin:
    """Return what a model was built from; of a model that does not tell, its own name."""
    words = words_of(model)
    if "backbone" not in words:
        return Origin(model.name, OWN_WEIGHTS)
    cut = words.get("cut")
    return Origin(words["backbone"], words["weights"], None if cut is None else int(cut))


def remember(model: keras.Model, name: str, words: str) -> None:
    """Keep words in the file of a model, in place of others of that name."""
    policy = policy_of_words(model)
    if policy is None:  # of a model that is not ours
        layers = [one for one in model.layers if not isinstance(one, keras.layers.InputLayer)]
        layer: Any = next((one for one in layers if one.name == "preprocess"), layers[0])
        layer = layer.layers[-1] if isinstance(layer, keras.Model) else layer
        layer.dtype_policy = policy = keras.dtype_policies.DTypePolicyMap(layer.dtype_policy)
    for key in [key for key in policy if key.startswith(f"{name}: ")]:
        del policy[key]
    policy[f"{name}: {re.escape(words)}"] = policy.default_policy


def words_of(model: keras.Model) -> dict[str, str]:
    """Return the words that a model keeps, by their keys."""
    pairs = (key.partition(": ") for key in policy_of_words(model) or ())
    return {name: re.sub(r"(?s)\\(.)", r"\1", word) for name, _, word in pairs}


def policy_of_words(model: keras.Model) -> keras.dtype_policies.DTypePolicyMap | None:
    """Return the dtype policy whose keys are the words of a model; None where it has none."""
    for layer in model._flatten_layers(include_self=False):
        policy = layer.dtype_policy
        if isinstance(policy, keras.dtype_policies.DTypePolicyMap) and policy:
            return policy
    return None
