"""How the columns of a table hold labels."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class LabelColumns(NamedTuple):
    """The label columns of a table.

    `parse` turns the text by column, and where the row stands, into what `Entry.targets` holds.
    """

    plural: str  # what the columns hold
    names: tuple[str, ...]  # in lower case: by these a column is found when none is asked for
    are_several: bool  # whether there can be several; else one with an empty cell is an error
    parse: Callable[[Mapping[str, str], str], tuple[Any, ...]]
    is_parted: bool = False  # whether one alone holds any number of labels, which go past `parse`


_CLASS_COLUMNS = ("label", "class", "target", "category", "class_name", "label_name")
ONE_CLASS = LabelColumns("classes", _CLASS_COLUMNS, False, lambda *_: ())
"""One class an image: a scan reads tables so too."""
