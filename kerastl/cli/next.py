"""`kerastl next`: chooses unlabelled images to label next."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kerastl._steps import step
from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow


def next(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    pool: Annotated[
        list[str], typer.Argument(metavar="POOL...", help="Folders and files without labels.")
    ],
    count: Annotated[int, typer.Option(min=1, metavar="N", help="Number of images.")] = 50,
    labelled: Annotated[
        str | None, typer.Option(metavar="DATA", help="Images that have labels already.")
    ] = None,
    rule: Annotated[
        str, options.advanced(**options.choice("typical", "margin"), help="How to choose.")
    ] = "typical",
    output: Annotated[
        Path | None, options.in_output("--output", "-o", help="Write a table to fill in.")
    ] = None,
    on_bad: options.OnBad = "error",
    seed: options.PlainSeed = 0,
    json: options.Json = False,
) -> None:
    """Choose the unlabelled images that are most worth labelling.

    Example: kerastl next runs/1 unlabelled/ --count 20 --output to_label.csv
    """
    start_tensorflow()
    from kerastl.runs.run import load_run

    with step("Running the network"):
        found = load_run(run).next(
            pool, count=count, labelled=labelled, rule=rule, on_bad=on_bad, seed=seed
        )
    if output is not None:
        found.write_csv(output)
    if json:
        print_json(asdict(found))
        return
    if found.num_known:
        say(f"{found.num_known:,} images of the run were left out.")
    rows = [[str(number + 1), path] for number, path in enumerate(found.paths)]
    print_table(f"To label next, of {found.num_images:,} images", ["", "image"], rows)
