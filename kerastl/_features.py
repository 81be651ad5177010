"""The features that not every task supports."""

from typing import NamedTuple


class Feature(NamedTuple):
    """A feature that not every task supports."""

    name: str  # what is asked for, as a sentence begins
    instead: str  # what to do without it


_BY_SCENARIO = "Train with a named scenario, such as scenario='large_similar'."

FEATURES = {
    "class_weight": Feature("`class_weight`", "Pass a `loss` that weights the outputs."),
    "temperature": Feature("A temperature", "Export without one."),
    "thresholds": Feature("A choice of thresholds", "Use the outputs directly."),
    "map": Feature("A map of probabilities", "Predict windows of the image instead."),
    "probe": Feature("A probe (`diagnose`, `rank`)", _BY_SCENARIO),
    "search": Feature("`search`", "Compare the measures of runs with different `freeze_depth`."),
    "explain": Feature("`explain`", "See the boxes of `predict`."),
    "devices": Feature("A strategy of several devices", "Train on one device."),
    "formats": Feature("A format other than 'saved_model'", "Export as 'saved_model'."),
    "resize": Feature("A `resize` other than 'squash'", "Leave `resize` out."),
    "integers": Feature(
        "An 8-bit format, whose check compares labels,",
        "Export as 'litert' or 'litert_fp16'.",
    ),
}
"""All that a `Task` can name in `supports`."""

USUAL = frozenset({"probe", "search", "explain", "devices", "formats", "resize"})
"""What a task has whose head reads an embedding."""
