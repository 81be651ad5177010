"""The measures of each task that are told first, with their titles."""

from typing import Any, NamedTuple

TITLES: dict[str, dict[str, str]] = {
    "multi_label": {
        "mean_average_precision": "mAP",
        "macro_f1": "macro F1",
        "micro_f1": "micro F1",
        "subset_accuracy": "all labels right",
        "hamming_loss": "Hamming loss",
        "log_loss": "log loss",
    },
    "regression": {
        "mean_absolute_error": "MAE",
        "root_mean_squared_error": "RMSE",
        "r2": "R²",
        "median_absolute_error": "median error",
    },
}
"""Of other tasks than classification, in the order of tables."""


class Headline(NamedTuple):
    """A measure as text."""

    title: str
    value: str
    interval: str


def headlines(measures: dict[str, Any], task: str) -> list[Headline]:
    """Return the first measures of `evaluate` as text; a dash for what cannot be measured.

    Args:
        measures: of `evaluate`.
        task: `"multi_label"` or `"regression"`.
    """
    return [
        Headline(title, number(measures[key]), span(measures["intervals"][key]))
        for key, title in TITLES[task].items()
    ]


def of_target(row: dict[str, Any]) -> list[Headline]:
    """Return the measures of one target of a regression as text."""
    return [
        Headline(title, number(row[key]), span(row[f"{key}_interval"]))
        for key, title in TITLES["regression"].items()
    ]


def number(value: float | None) -> str:
    """Return four significant digits; a dash for None."""
    return "–" if value is None else f"{value:.4g}"


def span(interval: list[float] | None) -> str:
    """Return an interval as text; nothing for None."""
    return "" if interval is None else f"{number(interval[0])} to {number(interval[1])}"
