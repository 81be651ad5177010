"""The labels that one cell of a table holds."""

import ast
import json
from collections.abc import Sequence

from kerastl.data.classes import normal
from kerastl.errors import DataError

DELIMITER = "|"  # fastai's usual `label_delim`, beside the space, which names have inside
_SEPARATORS = "|;,"


def split_labels(
    cells: Sequence[str], separator: str | None, column: str
) -> tuple[list[tuple[str, ...]], str | None]:
    """Part the labels of each cell, each label once.

    Args:
        cells: of one column.
        separator: what parts the labels. Default: the one of `|`, `;` and `,` that occurs, or
            nothing where cells are JSON lists. Blanks alone part labels or words of one label, so
            they must be asked for.
        column: its name, for errors.

    Returns:
        The labels of each cell, and the separator that was found if none was given.

    Raises:
        DataError: what parts the labels cannot be told.
    """
    if separator is None and any(cell.startswith("[") for cell in cells):
        return [_once(_parse_list(cell, column)) for cell in cells], None
    found = None
    if separator is None:
        found = separator = _recognise(cells, column)
    if separator is None:
        return [_once([cell]) for cell in cells], None
    return [_once(cell.split(separator)) for cell in cells], found


def _recognise(cells: Sequence[str], column: str) -> str | None:
    found = [mark for mark in _SEPARATORS if any(mark in cell for cell in cells)]
    if len(found) == 1:
        return found[0]
    doubtful = [cell for cell in cells if found or len(cell.split()) > 1]
    if not doubtful:
        return None
    marks = " and ".join(map(repr, found)) or "blanks"
    raise DataError(
        f"The separator of the labels is not clear. Received: {marks} in column {column!r}, "
        f"such as {max(doubtful, key=len)!r}. Pass the separator as `label_separator`, such "
        f"as {(found or [' '])[0]!r}; {DELIMITER!r} allows spaces in labels."
    )


def _parse_list(cell: str, column: str) -> list[str]:
    """Return the texts of a list as JSON or Python write it; an empty cell is an empty one."""
    if not cell:
        return []
    for parse in (json.loads, ast.literal_eval):
        try:
            values = parse(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        # Of 'a' 'b', as NumPy prints arrays, Python makes one text.
        if isinstance(values, list) and "' '" not in cell and '" "' not in cell:
            return [str(value) for value in values]
    raise DataError(
        f'Labels that are lists must be JSON, such as \'["sea", "sky"]\', in every row. '
        f"Received: {cell!r} in column {column!r}. Correct it, or pass `label_separator`."
    )


def _once(labels: Sequence[str]) -> tuple[str, ...]:
    stripped = (normal(label.strip()) for label in labels)
    return tuple(dict.fromkeys(label for label in stripped if label))
