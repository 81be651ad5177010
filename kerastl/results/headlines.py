"""The measures of each task that are told first, with their titles."""

from collections.abc import Sequence
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

IN_A_ROW: dict[str, tuple[str, ...]] = {
    "multi_label": ("mean_average_precision", "macro_f1", "subset_accuracy"),
    "regression": tuple(TITLES["regression"]),
}
"""Those that a terminal of 80 columns holds beside each other."""

_IN_UNITS_OF_THE_TARGET = (
    "mean_absolute_error",
    "root_mean_squared_error",
    "median_absolute_error",
)
_ON_SCALES_OF_THEIR_OWN = ("log_loss", "r2")


class Headline(NamedTuple):
    """A measure as text."""

    title: str
    value: str
    interval: str


def headlines(
    measures: dict[str, Any], task: str, *, keys: Sequence[str] = (), percent: bool = True
) -> list[Headline]:
    """Return the first measures of `evaluate` as text; a dash for what cannot be measured.

    Args:
        measures: of `evaluate`.
        task: `"multi_label"` or `"regression"`.
        keys: the names of those asked for. Default: all of `TITLES`.
        percent: whether shares are told in per cent.
    """
    titles = TITLES[task]
    return [
        _headline(titles[key], key, measures[key], measures["intervals"][key], percent)
        for key in keys or titles
    ]


def of_target(row: dict[str, Any]) -> list[Headline]:
    """Return the measures of one target of a regression as text."""
    return [
        _headline(title, key, row[key], row[f"{key}_interval"], percent=False)
        for key, title in TITLES["regression"].items()
    ]


def _headline(
    title: str, key: str, value: float | None, interval: list[float] | None, percent: bool
) -> Headline:
    as_share = percent and key not in (*_IN_UNITS_OF_THE_TARGET, *_ON_SCALES_OF_THEIR_OWN)

    def text(number: float) -> str:
        if key in _IN_UNITS_OF_THE_TARGET:
            return f"{number:.4g}"
        return f"{100 * number:.1f}" if as_share else f"{number:.3f}"

    unit = "\N{NO-BREAK SPACE}%" if as_share else ""
    told = "–" if value is None else text(value) + unit
    span = "" if interval is None else f"{text(interval[0])} to {text(interval[1])}{unit}"
    return Headline(title, told, span)
