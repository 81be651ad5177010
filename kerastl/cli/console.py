"""What all commands share: quiet start-up, tables for people, one JSON object for programs."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from kerastl.runs.run import Run


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Keep what native libraries write to stderr, unless the block fails: then show it.

    TensorFlow's C++ code writes before any log level is read, past Python's `sys.stderr`.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            noise.seek(0)
            sys.stderr.write(noise.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def start_tensorflow(*, deterministic: bool = True, strategy: str = "none") -> Any:
    """Import TensorFlow and look for devices without its noise; make its results repeatable.

    Returns:
        The `tf.distribute.Strategy` of a name, which several machines need before all else; None
        for "none".
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
    Console(stderr=True, soft_wrap=True).print(text, highlight=False, markup=False)


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table on stdout; the first column to the left, the others to the right."""
    table = Table(title=Text(title), title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # names of files and classes are no markup
    Console().print(table)


def measure_columns(task: str = "classification") -> list[str]:
    """Return the titles of `measure_cells`."""
    if task == "classification":
        return MEASURE_COLUMNS
    from kerastl.results.headlines import IN_A_ROW, TITLES

    first, *others = (TITLES[task][key] for key in IN_A_ROW[task])
    return [first, "95 % interval", *others, "images"]


def measure_cells(measures: dict[str, Any], task: str = "classification") -> list[str]:
    """Return the cells of a row of measures: accuracy, its interval, macro F1, log loss, ECE, n.

    Of other tasks the first measure, its interval, the others, n.
    """
    if task != "classification":
        from kerastl.results.headlines import IN_A_ROW, headlines

        first, *others = headlines(measures, task, keys=IN_A_ROW[task], percent=False)
        values = [one.value for one in others]
        return [first.value, first.interval, *values, f"{measures['num_images']:,}"]
    low, high = measures["accuracy_interval"]
    return [
        f"{measures['accuracy']:.3f}",
        f"{low:.3f}-{high:.3f}",
        f"{measures['macro_f1']:.3f}",
        f"{measures['log_loss']:.3f}",
        f"{measures['ece']:.3f}",
        f"{measures['num_images']:,}",
    ]


def print_measures(title: str, run: "Run") -> None:
    """Print the measures of a run as a table: a row for validation and for test images."""
    parts = {name: run.metrics[name] for name in ("validation", "test")}
    rows = [[name, *measure_cells(part, run.task)] for name, part in parts.items() if part]
    print_table(title, ["", *measure_columns(run.task)], rows)


MEASURE_COLUMNS = ["accuracy", "95 % interval", "macro F1", "log loss", "ECE", "images"]
