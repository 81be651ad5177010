"""`kerastl train`: labelled images to a measured, exported classifier in a run directory."""

from typing import Annotated

import typer

from kerastl._task import find_task
from kerastl.cli import options
from kerastl.cli.console import print_json, print_measures, quiet_start, start_tensorflow
from kerastl.cli.stop import stopping_in_order
from kerastl.data.options import DataOptions


@options.with_data_options
def train(
    data: options.Data,
    test: options.Test = None,
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            help="auto (measured), small_similar, large_similar, "
            "small_different, large_different, guide, fastai, bit or scratch."
        ),
    ] = None,
    recipe: options.Recipe = None,
    image_size: options.ImageSize = None,
    image_sizes: options.ImageSizes = None,
    head: options.Head = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of each phase that trains by gradients.")
    ] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(
            help="none, flip, light, medium or strong, all of which but none mirror images; "
            "default: the recipe's."
        ),
    ] = None,
    seed: options.Seed = None,
    strategy: options.Strategy = "none",
    worker_hosts: options.WorkerHosts = None,
    worker_index: options.WorkerIndex = None,
    deterministic: options.Deterministic = True,
    on_bad: options.OnBad = "error",
    task: options.Task = "classification",
    precision: Annotated[
        str | None,
        typer.Option(help="float32, mixed_float16 or mixed_bfloat16; exports are in float32."),
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(min=1, help="Steps whose gradients are averaged; one device only."),
    ] = None,
    output: options.Output = None,
    export: Annotated[
        bool, typer.Option(help="Write a SavedModel, which `kerastl export` does later.")
    ] = True,
    page: Annotated[
        bool, typer.Option(help="Write the page, which `kerastl report` does later.")
    ] = True,
    resume: options.Resume = False,
    json: Annotated[bool, typer.Option("--json", help="metrics.json on stdout.")] = False,
    *,
    how: DataOptions,
) -> None:
    """Train a classifier (or what `--task` says) on DATA and write a run directory.

    A folder per class, or `train/` and `test/` (or `val/`) holding one: what is held out is the
    test set, and the images that watch training are split off from `train/`.

    A run that was stopped, or killed, goes on with the same arguments, --output and --resume, and
    ends as if it had not been. With multi_worker each machine is given this command; the first one
    writes the run directory.
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
            epochs=epochs, augmentation=augmentation, seed=seed, task=task,
            precision=precision, accumulate=accumulate, on_bad=on_bad, options=how,
            strategy=devices, export=export, page=page, resume=resume,
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
