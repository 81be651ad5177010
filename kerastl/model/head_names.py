"""The names of heads, as recipes, commands and calls spell them."""

from typing import Any

from kerastl._checks import check_choice
from kerastl.errors import ArgumentError

STAGES = "stages"
MLP = "mlp"
HEADS = ("linear", STAGES, MLP)
HIDDEN_UNITS = 512  # of fastai's `create_head` (https://docs.fast.ai/vision.learner.html)
MOST_UNITS = 65_536


def check_head(name: str, value: Any) -> str:
    """Return the name of a head: one of `HEADS`, or `"mlp:256,128"` with the hidden units."""
    if isinstance(value, str) and value.startswith(f"{MLP}:"):
        sizes = value.removeprefix(f"{MLP}:").split(",")
        if all(size.isdecimal() and 1 <= int(size) <= MOST_UNITS for size in sizes):
            return value
        raise ArgumentError(
            f"`{name}` lists the units of hidden layers, each from 1 to {MOST_UNITS:,}, such as "
            f"'mlp:256' or 'mlp:256,128'. Received: {name}={value!r}."
        )
    return check_choice(name, value, HEADS)


def hidden_units(head: str) -> list[int]:
    """Return the units of the hidden layers of a head, the first first."""
    kind, _, sizes = head.partition(":")
    if kind != MLP:
        return []
    return [int(size) for size in sizes.split(",")] if sizes else [HIDDEN_UNITS]


def mlp_of(units: list[int]) -> str:
    """Return the name of a head with these hidden units."""
    return MLP if units == [HIDDEN_UNITS] else f"{MLP}:{','.join(map(str, units))}"
