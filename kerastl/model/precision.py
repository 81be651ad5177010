"""The precision in which the layers of a model compute."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

FULL = "float32"


@contextlib.contextmanager
def building_in(policy: str | None) -> Iterator[None]:
    """Build layers of a dtype policy while the block runs; None for that of Keras' settings."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def policies_of(model: keras.Model) -> set[str]:
    """Return the names of the dtype policies of the layers of a model."""
    layers = model._flatten_layers(include_self=False)
    return {layer.dtype_policy.name.removeprefix("map_") for layer in layers}


def in_full_precision(model: keras.Model) -> keras.Model:
    """Return a copy of a model whose layers compute in float32, or the model if they all do.

    Converters know few operations of float16, and a device that serves may have none.
    """
    if not {name for name in policies_of(model) if name.endswith("float16")}:
        return model

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            if value.get("class_name") == "DTypePolicy":
                return keras.saving.serialize_keras_object(keras.DTypePolicy(FULL))
            return {name: plain(one) for name, one in value.items()}
        return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value

    with building_in(FULL):  # a model inside casts what it is given to the policy of its building
        copy = type(model).from_config(plain(model.get_config()))
    copy.set_weights(model.get_weights())
    return copy
