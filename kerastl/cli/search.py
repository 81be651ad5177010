"""`kerastl search`: how much to freeze, by short trials; then a run of the best."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from kerastl._checks import check_choice
from kerastl.cli import options
from kerastl.cli.console import (
    MEASURE_COLUMNS,
    measure_cells,
    print_json,
    print_table,
    say,
    start_tensorflow,
)
from kerastl.cli.train import EMBEDDED_BACKBONE, say_data
from kerastl.cli.unfinished import CHECKPOINTS, finish, working_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kerastl.training.search_result import SearchResult
    from kerastl.training.shared_tuner import Progress
    from kerastl.training.trials import Trial

COLUMNS = ["freeze depth", "rate", "epochs", "accuracy", "log loss", "seconds", "status"]


def search(
    data: options.Data,
    test: options.Test = None,
    backbone: options.Backbone = None,
    weights: Annotated[str, typer.Option(help="imagenet, embedded, or a file.")] = "imagenet",
    scenario: Annotated[
        str, typer.Option(help="Where the other numbers come from.")
    ] = "large_different",
    recipe: Annotated[
        Path | None, typer.Option(help="Another run, or its recipe.json, instead of --scenario.")
    ] = None,
    tuner: Annotated[str, typer.Option(help="halving, random, hyperband or bayesian.")] = "halving",
    max_trials: Annotated[int, typer.Option(min=1, help="The most trials.")] = 20,
    budget: Annotated[
        float | None, typer.Option(help="Seconds after which no trial starts.")
    ] = None,
    image_size: options.ImageSize = None,
    image_sizes: options.ImageSizes = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of the training of the best.")
    ] = None,
    seed: Annotated[int, typer.Option(help="One seed, one result.")] = 0,
    strategy: Annotated[
        str, typer.Option(help="none, or mirrored: all GPUs of this machine run each trial.")
    ] = "none",
    on_bad: options.OnBad = "error",
    output: options.Output = None,
    resume: options.Resume = False,
    workers: Annotated[
        int, typer.Option(min=0, help="So many processes of this machine run the trials.")
    ] = 0,
    json: options.Json = False,
) -> None:
    """Search the freeze depth and the rate for DATA, train the best, and write a run directory.

    The directory is that of `kerastl train`, and `trials.json`. A search that was stopped goes on
    with the same arguments and --resume. With --workers, this process hands out trials on a port of
    127.0.0.1, which has no authentication: whoever can log in to this machine can reach it.
    """
    check_choice("--strategy", strategy, ("none", "mirrored"))
    sizes = options.checked_sizes(image_sizes, image_size)
    devices = start_tensorflow(strategy=strategy)
    from kerastl.backbones.given_models import OWN_WEIGHTS
    from kerastl.backbones.saved_model_backbone import is_saved_model
    from kerastl.backbones.weights import resolve_name
    from kerastl.cli.local_workers import local_workers
    from kerastl.cli.runs import run_recipe
    from kerastl.data.load import load_data
    from kerastl.errors import DataError
    from kerastl.results.run_directory import read_recipe, write_json
    from kerastl.training import search as searching
    from kerastl.training.oracles import TUNERS
    from kerastl.training.workers import role_of_this_process

    role = role_of_this_process()
    check_choice("--tuner", tuner, TUNERS)
    name = backbone or (EMBEDDED_BACKBONE if weights == "embedded" else "MobileNetV2")
    resolve_name(name)
    if is_saved_model(name) and weights == "imagenet":
        weights = OWN_WEIGHTS
    pattern = read_recipe(recipe) if recipe else scenario
    if role.name and output is None:
        raise typer.BadParameter("a search over several processes needs --output.")
    with working_on(output, resume=resume, writes=not role.is_worker) as own:
        directory = output if role.is_worker and output else own
        images = load_data(data, test=test, seed=seed, on_bad=on_bad)
        if not role.is_worker:
            say_data(images)
        if images.test is None or not len(images.test):
            raise DataError(
                "There are no test images, so nothing could be said of the result. Give a set "
                "with `--test`, or a folder with `train/` and `test/`."
            )
        with _LiveTable() as table, local_workers(0 if role.name else workers, directory):
            result = searching.search(
                images, name, weights=weights, image_size=image_size, image_sizes=sizes,
                tuner=tuner, max_trials=max_trials, budget=budget, recipe=pattern,
                directory=directory, seed=seed, strategy=devices, train_best=False,
                on_progress=table.update, verbose=not table.is_live,
            )  # fmt: skip
        if role.is_worker:
            return
        say(result.summary())
        found = result.to_dict()
        write_json(directory / "trials.json", found)
        metrics = run_recipe(
            images,
            result.recipe,
            directory,
            source={"data": data, "test": test, "on_bad": on_bad},
            epochs=epochs,
            diagnosis=result.diagnosis,
            strategy=devices,
            checkpoints=directory / CHECKPOINTS,
        )
        finish(directory)
    if json:
        print_json({**metrics, "search": found})
        return
    _print(result, metrics, directory)


class _LiveTable:
    """The trials so far and the time left, on stderr where that is a terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self.is_live = console.is_terminal
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> "_LiveTable":
        if self.is_live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.is_live:
            self._live.stop()

    def update(self, progress: "Progress") -> None:
        """Draw the table again."""
        if self.is_live:
            self._live.update(_table(progress), refresh=True)


def _table(progress: "Progress") -> Table:
    title = (
        f"{progress.num_ended} of {progress.num_planned} trials, {progress.seconds_left:.0f} s left"
    )
    table = Table(title=title, title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for row in _rows(progress.trials):
        table.add_row(*row)
    return table


def _rows(trials: "Sequence[Trial]") -> list[list[str]]:
    return [
        [
            str(trial.freeze_depth) if trial.learning_rate else f"{trial.freeze_depth} (head)",
            f"{trial.learning_rate:.2g}" if trial.learning_rate else "-",
            str(trial.epochs or "-"),
            f"{trial.accuracy:.3f} ± {trial.standard_error:.3f}" if trial.is_completed else "-",
            f"{trial.loss:.3f}" if trial.is_completed else "-",
            f"{trial.seconds:.1f}",
            trial.status if trial.is_completed else trial.reason.splitlines()[0][:60],
        ]
        for trial in sorted(trials, key=lambda trial: -trial.score)
    ]


def _print(result: "SearchResult", metrics: dict[str, Any], directory: Path) -> None:
    print_table("Trials", COLUMNS, _rows(result.trials))
    rows = [
        [name, *measure_cells(metrics[name])]
        for name in ("validation", "test")
        if metrics[name] is not None
    ]
    print_table(f"Best, {directory}", ["", *MEASURE_COLUMNS], rows)
