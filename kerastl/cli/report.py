"""`kerastl report`: the page about a run, written again from what the run kept."""

from pathlib import Path
from typing import Annotated

import typer

from kerastl.cli import options
from kerastl.cli.console import print_json, say, start_tensorflow


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    data: Annotated[
        str | None,
        typer.Option(help="Where the images of the run are now, if they have been moved."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure again, though the run kept its answers.")
    ] = False,
    transfer: Annotated[
        bool,
        typer.Option("--transfer", help="Train the head alone and the recipe again, and compare."),
    ] = False,
    scratch: Annotated[
        bool,
        typer.Option("--scratch", help="With --transfer, and without pretrained weights, too."),
    ] = False,
    json: options.Json = False,
) -> None:
    """Write report.html and MODEL_CARD.md of RUN again.

    They are made from what the run kept, without its images. Where it kept no answers, its images
    are read and measured once more, if they are still there.
    """
    if scratch and not transfer:
        raise typer.BadParameter("--scratch is an arm of --transfer: give both.")
    start_tensorflow()
    from kerastl.errors import DataError
    from kerastl.runs.run import load_run

    found, wanted = load_run(run), measure or data is not None
    if wanted or found.files.evaluation is None:
        try:
            found.measure_again(found.load_data(data))
        except DataError as error:
            if wanted:
                raise
            say(f"The images could not be read, so the page has none: {error}")
    if transfer:
        for warning in found.compare_transfer(found.load_data(data), scratch=scratch):
            say(f"Warning: {warning}")
    page, card = found.report(), found.files.path(found.files.CARD)
    if json:
        print_json({"report": str(page), "card": str(card), "bytes": page.stat().st_size})
        return
    say(f"{page} ({page.stat().st_size / 1e6:.1f} MB), {card}")
