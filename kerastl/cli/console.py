"""Shared by all commands: quiet start-up, tables, and JSON output."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kerastl._streams import held_stderr
from kerastl.cli.options import as_options

if TYPE_CHECKING:
    from kerastl._task import Task


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Keep what native libraries write to stderr, unless the block fails: then show it.

    On a terminal the wait has a name.
    """
    named, unnamed = ("Starting TensorFlow ...", "\r\x1b[2K") if sys.stderr.isatty() else ("", "")
    sys.stderr.write(named)
    sys.stderr.flush()
    try:
        with held_stderr(shown_if_failed=True):
            yield
    finally:
        sys.stderr.write(unnamed)


def start_tensorflow(*, deterministic: bool = True, strategy: str = "none") -> Any:
    """Import TensorFlow and look for devices without its noise; make its results repeatable.

    Return the strategy of a name, which several machines need before all else; None for "none".
    """
    with quiet_start():
        import keras
        import tensorflow as tf

        from kerastl.distribute import resolve_strategy

        found = None if strategy == "none" else resolve_strategy(strategy)
        tf.get_logger().setLevel("ERROR")  # it warns that each model is traced anew
        tf.config.list_physical_devices()
        keras.ops.zeros(1)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    return found


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def say(text: str) -> None:
    """Tell a person something on stderr."""
    Console(stderr=True, soft_wrap=True).print(as_options(text), highlight=False, markup=False)


def table_of(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table; the first column to the left, the others to the right."""
    table = Table(title=Text(title), title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # names of files and classes are no markup
    return table


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout."""
    Console().print(table_of(title, columns, rows))


def print_measures(title: str, parts: Mapping[str, Mapping[str, Any] | None], task: "Task") -> None:
    """Print measures as a table: a row for each part of the images, by its name."""
    rows = [[name, *task.measure_cells(part)] for name, part in parts.items() if part]
    print_table(title, ["", *task.measure_columns()], rows)
