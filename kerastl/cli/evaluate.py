"""`kerastl evaluate`: how good the model of a run is on labelled images."""

from pathlib import Path
from typing import Annotated

import typer

from kerastl.cli import options
from kerastl.cli.console import (
    MEASURE_COLUMNS,
    measure_cells,
    print_json,
    print_table,
    start_tensorflow,
)


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="Labelled images, as for train.")],
    on_bad: options.OnBad = "error",
    json: options.Json = False,
) -> None:
    """Measure the model of RUN on DATA: its test part if it has one, else all of it."""
    start_tensorflow()
    from kerastl.data.load import load_data
    from kerastl.results.evaluate import evaluate as measure
    from kerastl.results.run_directory import read_run

    model, class_names = read_run(run)
    images = load_data(
        data,
        class_names=class_names,
        test_fraction=0.0,
        validation_fraction=0.0,
        on_bad=on_bad,
    )
    part = "all" if images.test is None else "test"
    measures = measure(model, images.train if images.test is None else images.test)
    if json:
        print_json({part: measures})
        return
    print_table(f"{run} on {data}", ["", *MEASURE_COLUMNS], [[part, *measure_cells(measures)]])
