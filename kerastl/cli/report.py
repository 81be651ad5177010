"""`kerastl report`: the page about a run, written again from what the run kept."""

from pathlib import Path
from typing import Annotated

import typer

from kerastl.cli import options
from kerastl.cli.console import print_json, say, start_tensorflow


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    data: Annotated[
        str | None, typer.Option(help="Where the images are now, if they were moved.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure again, even if predictions are stored.")
    ] = False,
    transfer: Annotated[
        bool,
        typer.Option(
            "--transfer", help="Train the classifier alone and the recipe again, and compare."
        ),
    ] = False,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="With --transfer: also from random weights.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Write the page and the model card of a run again.

    They are made from what the run stored. If it stored no predictions, its images are measured
    again, if they still exist.

    Example: kerastl report runs/1 --transfer
    """
    if scratch and not transfer:
        raise typer.BadParameter("--scratch is an arm of --transfer: give both.")
    start_tensorflow()
    from kerastl.errors import DataError
    from kerastl.runs.run import load_run

    found = load_run(run)
    if measure or data is not None:
        found.measure_again(found.load_data(data))
    elif found.files.evaluation is None:
        try:
            found.measure_again(found.load_data())
        except DataError as error:
            say(f"The images could not be read, so the page has none: {error}")
    if transfer:
        for warning in found.compare_transfer(found.load_data(data), scratch=scratch):
            say(f"Warning: {warning}")
    page, card = found.report(), found.files.path(found.files.CARD)
    if json:
        print_json({"report": str(page), "card": str(card), "bytes": page.stat().st_size})
        return
    say(f"{page} ({page.stat().st_size / 1e6:.1f} MB), {card}")
