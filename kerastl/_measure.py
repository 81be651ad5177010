"""A measure, and how it is printed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Measure(NamedTuple):
    """A measure of answers, and how it is written.

    Its `kind` is `"share"`, which may be told in per cent; `"number"`, on a scale of its own; or
    `"quantity"`, in units of the labels.
    """

    key: str  # its name in what `evaluate` returns
    title: str  # its name in tables
    kind: str = "share"


class Headline(NamedTuple):
    """A measure as text."""

    title: str
    value: str
    interval: str


def headlines(
    row: Mapping[str, Any], measures: Sequence[Measure], *, percent: bool = True
) -> list[Headline]:
    """Return measures as text, with a dash for what could not be measured.

    Those that `row`, which `evaluate` returns, does not have are left out.
    """
    intervals = row.get("intervals") or {}
    return [
        _headline(
            one, row[one.key], intervals.get(one.key, row.get(f"{one.key}_interval")), percent
        )
        for one in measures
        if one.key in row
    ]


def _headline(
    measure: Measure, value: float | None, interval: Sequence[float] | None, percent: bool
) -> Headline:
    in_percent = percent and measure.kind == "share"

    def text(number: float) -> str:
        if measure.kind == "quantity":
            return f"{number:.4g}"
        return f"{100 * number:.1f}" if in_percent else f"{number:.3f}"

    unit = "\N{NO-BREAK SPACE}%" if in_percent else ""
    told = "–" if value is None else text(value) + unit
    span = "" if interval is None else f"{text(interval[0])} to {text(interval[1])}{unit}"
    return Headline(measure.title, told, span)
