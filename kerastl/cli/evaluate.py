"""`kerastl evaluate`: measures the model of a run on labelled images."""

from pathlib import Path
from typing import Annotated

import typer

from kerastl._steps import step
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
    from kerastl.model.heads import task_of
    from kerastl.results.evaluate import evaluate as measure
    from kerastl.results.run_files import RunFiles, read_labelled_model
    from kerastl.runs.labelled import labelled_images
    from kerastl.runs.run import Run

    model, class_names = read_labelled_model(run)
    task = task_of(model)
    how = Run(run, model=model).reading(how)
    part, images = labelled_images(data, class_names, task.name, on_bad, how)
    for warning in RunFiles(run).warn_of_seen(images.source):
        say(f"Warning: {warning}")
    with step("Measuring"):
        measures = measure(model, images)
    if json:
        print_json({part: measures})
        return
    print_measures(f"{run} on {data}", {part: measures}, task)
