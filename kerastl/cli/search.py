"""`kerastl search`: searches the freeze depth and learning rate, and trains the best."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.live import Live
from rich.table import Table

from kerastl._checks import check_choice
from kerastl.cli import options
from kerastl.cli.console import (
    print_json,
    print_measures,
    print_table,
    say,
    start_tensorflow,
    table_of,
)
from kerastl.cli.options import choice, in_training, more_machine, more_training
from kerastl.cli.stop import stopping_in_order
from kerastl.data.options import DataOptions
from kerastl.model.recipe_names import PUBLISHED, SCENARIOS

if TYPE_CHECKING:
    from kerastl.training.shared_tuner import Progress

_TUNERS = ("halving", "random", "hyperband", "bayesian")


@options.with_data_options
def search(
    data: options.Data,
    test: options.Test = None,
    backbone: options.Backbones = None,
    weights: options.Weights = None,
    scenario: Annotated[
        str | None,
        in_training(
            **choice(*SCENARIOS, *PUBLISHED, metavar="NAME"),
            help="Scenario of all settings that are not searched; default: large_different.",
        ),
    ] = None,
    recipe: options.Recipe = None,
    tuner: Annotated[
        str, more_training(**choice(*_TUNERS, metavar="NAME"), help=f"{', '.join(_TUNERS)}.")
    ] = "halving",
    max_trials: Annotated[int, in_training(min=1, metavar="N", help="Number of trials.")] = 20,
    budget: Annotated[float | None, in_training(metavar="SECONDS", help="Time for trials.")] = None,
    image_size: options.ImageSize = None,
    image_sizes: options.ImageSizes = None,
    head: options.Head = None,
    epochs: options.Epochs = None,
    seed: options.PlainSeed = 0,
    strategy: Annotated[
        str, more_machine(**choice("none", "mirrored"), help="mirrored: each trial uses all GPUs.")
    ] = "none",
    on_bad: options.OnBad = "error",
    task: options.Task = "classification",
    output: options.Output = None,
    resume: options.Resume = False,
    track: options.Track = None,
    workers: Annotated[int, more_machine(min=0, metavar="N", help="Worker processes.")] = 0,
    json: options.Json = False,
    *,
    how: DataOptions,
) -> None:
    """Search the freeze depth and learning rate, and train the best.

    Writes the same run directory as `kerastl train`, and `trials.json`. With --workers, this
    process gives out trials on a port of 127.0.0.1 without authentication: everyone who can log in
    to this machine can reach it.

    Example: kerastl search photos/ --max-trials 12
    """
    check_choice("--strategy", strategy, ("none", "mirrored"))
    sizes = options.checked_sizes(image_sizes, image_size)
    devices = start_tensorflow(strategy=strategy)
    from kerastl._task import find_task
    from kerastl.runs.search import run_search
    from kerastl.runs.settings import SearchSettings
    from kerastl.training.search_result import COLUMNS, cells_of
    from kerastl.training.workers import role_of_this_process

    first, *others = backbone or [""]
    settings = SearchSettings(
        data=data, test=test, on_bad=on_bad, options=how, backbone=first,
        more_backbones=tuple(others),
        weights=weights or "", scenario=scenario or "",
        recipe_path=None if recipe is None else str(recipe),
        image_size=image_size, image_sizes=sizes, head=head or "", epochs=epochs, seed=seed,
        task=task,
        tuner=tuner, max_trials=max_trials, budget=budget, workers=workers,
    )  # fmt: skip
    writes = not role_of_this_process().is_worker
    with stopping_in_order(output, resume=resume, writes=writes) as directory:
        run = run_search(
            settings, directory, strategy=devices, resume=resume, table=_live_table(), track=track,
            verbose=say,
            worker_command=[sys.executable, "-m", "kerastl", *sys.argv[1:]],
        )  # fmt: skip
    if run is None:
        return
    found = run.files.trials or {}
    if json:
        print_json({**run.metrics, "search": found})
        return
    print_table("Trials", COLUMNS, [cells_of(trial) for trial in found["trials"]])
    print_measures(f"Best, {run.directory}", run.measures(), find_task(run.task))


@contextmanager
def _live_table() -> "Iterator[Callable[[Progress], None] | None]":
    """Show the trials so far and the time left, on stderr where that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda progress: live.update(_table(progress), refresh=True)


def _table(progress: "Progress") -> Table:
    from kerastl.training.search_result import COLUMNS, cells_of

    title = (
        f"{progress.num_ended} of {progress.num_planned} trials, {progress.seconds_left:.0f} s left"
    )
    best_first = sorted(progress.trials, key=lambda trial: -trial.rank)
    return table_of(title, COLUMNS, [cells_of(trial.to_dict()) for trial in best_first])
