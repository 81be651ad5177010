"""`kerastl train`: trains a model on labelled images and writes a run directory."""

from typing import Annotated

from kerastl.cli import options
from kerastl.cli.console import (
    print_json,
    print_measures,
    print_table,
    quiet_start,
    say,
    start_tensorflow,
)
from kerastl.cli.options import choice, in_output, more_machine, more_output, more_training
from kerastl.cli.stop import stopping_in_order
from kerastl.data.options import DataOptions
from kerastl.model.recipe_names import AUGMENTATION_NAMES, OBJECTIVES, PRECISIONS

_VIEWS = "none, flip, light, medium or strong; all but none mirror images."
_BALANCE = "Weight of rare classes: 0 (all images equal) to 1 (all classes equal), or auto."
_OBJECTIVES = "Metric that selects the model: accuracy (default), balanced_accuracy or macro_f1."
_LIMIT = "Time limit, such as 90s, 10m or 2h."
_STEPS = "Average the gradients of N steps; one device only."
_PRECISIONS = "float32, mixed_float16 or mixed_bfloat16; exports are float32."


@options.with_data_options
def train(
    data: options.Data,
    test: options.Test = None,
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    scenario: options.Scenario = None,
    recipe: options.Recipe = None,
    image_size: options.ImageSize = None,
    image_sizes: options.ImageSizes = None,
    head: options.Head = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    freeze_depth: options.FreezeDepth = None,
    patience: options.Patience = None,
    validation_fraction: options.ValidationFraction = None,
    augmentation: Annotated[
        str | None, more_training(**choice(*AUGMENTATION_NAMES, metavar="NAME"), help=_VIEWS)
    ] = None,
    balance: Annotated[str | None, more_training(metavar="auto|N", help=_BALANCE)] = None,
    objective: Annotated[
        str | None, more_training(**choice(*OBJECTIVES, metavar="NAME"), help=_OBJECTIVES)
    ] = None,
    seed: options.Seed = None,
    strategy: options.Strategy = "none",
    worker_hosts: options.WorkerHosts = None,
    worker_index: options.WorkerIndex = None,
    deterministic: options.Deterministic = True,
    on_bad: options.OnBad = "error",
    task: options.Task = "classification",
    precision: Annotated[
        str | None, more_machine(**choice(*PRECISIONS, metavar="NAME"), help=_PRECISIONS)
    ] = None,
    accumulate: Annotated[int | None, more_machine(min=1, metavar="N", help=_STEPS)] = None,
    output: options.Output = None,
    export: Annotated[bool, more_output(help="Write a SavedModel; later: `export`.")] = True,
    page: Annotated[bool, more_output(help="Write the page; later: `report`.")] = True,
    time_limit: Annotated[str | None, in_output(metavar="TIME", help=_LIMIT)] = None,
    track: options.Track = None,
    resume: options.Resume = False,
    verbose: Annotated[bool, in_output("--verbose", "-v", help="Also print all reasons.")] = False,
    json: options.Json = False,
    *,
    how: DataOptions,
) -> None:
    """Train a model on labelled images and write a run directory.

    DATA is a folder with one folder per class, or with train/ and test/ (or val/) above them. Test
    images are never used for a choice.

    Example: kerastl train photos/ --backbone MobileNetV2 --output runs/photos
    """
    sizes = options.checked_sizes(image_sizes, image_size)
    with quiet_start():
        from kerastl.distribute import join_cluster

        join_cluster(strategy, worker_hosts, worker_index)
    devices = start_tensorflow(deterministic=deterministic, strategy=strategy)
    from kerastl._task import find_task
    from kerastl.machines import is_chief
    from kerastl.runs import training

    chief = devices is None or is_chief(devices)
    with stopping_in_order(output, resume=resume, writes=chief) as directory:
        run = training.train(
            data, backbone, output=directory, test=test, weights=weights, scenario=scenario,
            recipe=recipe, image_size=image_size, image_sizes=sizes, head=head,
            epochs=epochs, augmentation=augmentation, balance=options.number_or(balance, "auto"),
            batch_size=batch_size, learning_rate=learning_rate, freeze_depth=freeze_depth,
            patience=patience, validation_fraction=validation_fraction,
            objective=objective, seed=seed, task=task, precision=precision, accumulate=accumulate,
            on_bad=on_bad, options=how, strategy=devices, export=export, page=page, track=track,
            resume=resume, time_limit=time_limit, verbose=say,
        )  # fmt: skip
    if not chief:
        return
    if json:
        print_json(run.metrics)
        return
    if verbose and run.diagnosis:
        rows = [[r["name"], str(r["value"]), r["why"]] for r in run.diagnosis["advice"]["reasons"]]
        print_table("Recipe", ["", "value", "why"], rows)
    print_measures(f"{run.recipe.name}, {run.directory}", run.measures(), find_task(run.task))
