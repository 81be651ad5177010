"""`kerastl report`: writes the page of a run again."""

from pathlib import Path
from typing import Annotated

import typer

from kerastl.cli.console import print_json, say, start_tensorflow
from kerastl.cli.options import Json


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    data: Annotated[str | None, typer.Option(help="New location of moved images.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure the images again.")] = False,
    transfer: Annotated[
        bool, typer.Option("--transfer", help="Train the recipe and the head only, and compare.")
    ] = False,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="With --transfer: also train from random weights.")
    ] = False,
    json: Json = False,
) -> None:
    """Write the page and the model card of a run again.

    Both are written from the files of the run. If the run has no predictions, its images are
    measured again, if they still exist.

    Example: kerastl report runs/1 --transfer
    """
    if scratch and not transfer:
        raise typer.BadParameter("--scratch needs --transfer.")
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
            say(f"Cannot read the images, so the page has none: {error}")
    if transfer:
        for warning in found.compare_transfer(found.load_data(data), scratch=scratch):
            say(f"Warning: {warning}")
    page, card = found.report(), found.files.path(found.files.CARD)
    if json:
        print_json({"report": str(page), "card": str(card), "bytes": page.stat().st_size})
        return
    say(f"{page} ({page.stat().st_size / 1e6:.1f} MB), {card}")
