"""`kerastl evaluate`: measures the model of a run on labelled images."""

from pathlib import Path
from typing import Annotated

import typer

from kerastl.cli.console import print_json, print_measures, say, start_tensorflow
from kerastl.cli.options import Json, OnBad, with_data_options
from kerastl.data.options import DataOptions


@with_data_options
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="Labelled images, as for train.")],
    on_bad: OnBad = "error",
    json: Json = False,
    *,
    how: DataOptions,
) -> None:
    """Measure a run on other labelled images.

    DATA must have the classes (or labels, or targets) of the run. Its test part is used; without a
    test part, all images are used.

    Example: kerastl evaluate runs/1 more_photos/
    """
    start_tensorflow()
    from kerastl.runs.measuring import measure_model

    task, found = measure_model(run, data, on_bad, how, say)
    if json:
        print_json(found)
        return
    print_measures(f"{run} on {data}", found, task)
