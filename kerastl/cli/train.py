"""`kerastl train`: labelled images to a measured, exported classifier in a run directory."""

from typing import Annotated

import typer

from kerastl._task import find_task
from kerastl.cli import options
from kerastl.cli.console import print_json, print_measures, quiet_start, say, start_tensorflow
from kerastl.cli.stop import stopping_in_order
from kerastl.data.options import DataOptions

_SCENARIOS = (
    "auto measures it (default); or small_similar, large_similar, small_different, "
    "large_different, guide, fastai, bit, scratch."
)
_EPOCHS = "Epochs of fine-tuning; default: by the number of images."
_VIEWS = "none, flip, light, medium or strong; all but none use mirror images."
_BALANCE = "Weight of rare classes, from 0 (images alike) to 1 (classes alike), or auto."
_OBJECTIVES = "Keep what is best by accuracy (default), balanced_accuracy or macro_f1."
_PRECISIONS = "float32, mixed_float16 or mixed_bfloat16; exports are float32."


@options.with_data_options
def train(
    data: options.Data,
    test: options.Test = None,
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    scenario: Annotated[
        str | None, options.in_training(metavar="auto|NAME", help=_SCENARIOS)
    ] = None,
    recipe: options.Recipe = None,
    image_size: options.ImageSize = None,
    image_sizes: options.ImageSizes = None,
    head: options.Head = None,
    epochs: Annotated[
        int | None,
        options.in_training("--epochs", "-e", min=1, metavar="N", help=_EPOCHS),
    ] = None,
    augmentation: Annotated[str | None, options.in_training(metavar="NAME", help=_VIEWS)] = None,
    balance: Annotated[str | None, options.in_training(metavar="auto|N", help=_BALANCE)] = None,
    objective: Annotated[str | None, options.in_training(metavar="NAME", help=_OBJECTIVES)] = None,
    seed: options.Seed = None,
    strategy: options.Strategy = "none",
    worker_hosts: options.WorkerHosts = None,
    worker_index: options.WorkerIndex = None,
    deterministic: options.Deterministic = True,
    on_bad: options.OnBad = "error",
    task: options.Task = "classification",
    precision: Annotated[str | None, options.in_machine(metavar="NAME", help=_PRECISIONS)] = None,
    accumulate: Annotated[
        int | None,
        options.in_machine(
            min=1, metavar="N", help="Average the gradients of N steps; one device."
        ),
    ] = None,
    output: options.Output = None,
    export: Annotated[bool, options.in_output(help="Write a SavedModel; later: `export`.")] = True,
    page: Annotated[bool, options.in_output(help="Write the page; later: `report`.")] = True,
    resume: options.Resume = False,
    json: Annotated[
        bool, options.in_output("--json", help="Print metrics.json on stdout.")
    ] = False,
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
        _set_machines(strategy, worker_hosts, worker_index)
    devices = start_tensorflow(deterministic=deterministic, strategy=strategy)
    from kerastl.machines import is_chief
    from kerastl.runs import training

    chief = devices is None or is_chief(devices)
    with stopping_in_order(output, resume=resume, writes=chief) as directory:
        run = training.train(
            data, backbone, output=directory, test=test, weights=weights, scenario=scenario,
            recipe=recipe, image_size=image_size, image_sizes=sizes, head=head,
            epochs=epochs, augmentation=augmentation, balance=options.number_or(balance, "auto"),
            objective=objective, seed=seed, task=task, precision=precision, accumulate=accumulate,
            on_bad=on_bad, options=how, strategy=devices, export=export, page=page, resume=resume,
            verbose=say,
        )  # fmt: skip
    if not chief:
        return
    if json:
        print_json(run.metrics)
        return
    print_measures(f"{run.recipe.name}, {run.directory}", run.measures(), find_task(run.task))


def _set_machines(strategy: str, hosts: str | None, index: int | None) -> None:
    """Check what names the machines, and tell TensorFlow of them."""
    from kerastl._checks import check_choice
    from kerastl.distribute import STRATEGIES
    from kerastl.machines import set_cluster

    check_choice("--strategy", strategy, STRATEGIES)
    if (hosts is None) != (index is None):
        raise typer.BadParameter("--worker-hosts and --worker-index are given both, or neither.")
    if hosts is None or index is None:
        return
    if strategy != "multi_worker":
        raise typer.BadParameter("--worker-hosts goes with --strategy multi_worker.")
    set_cluster(hosts.split(","), index)
