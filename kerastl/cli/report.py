"""`kerastl report`: the page about a run, written again from what the run kept."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kerastl.cli import options
from kerastl.cli.console import print_json, say, start_tensorflow

if TYPE_CHECKING:
    from kerastl.data.load import ImageData
    from kerastl.results.run_facts import RunFacts


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
    from kerastl.results.model_card import write_card
    from kerastl.results.report import write_report
    from kerastl.results.run_facts import read_facts

    facts = read_facts(run)
    if measure or data or facts.findings is None:
        _measure(facts, data, wanted=measure or data is not None)
    if transfer:
        _compare(facts, data, scratch)
    page, card = write_report(run), write_card(run)
    if json:
        print_json({"report": str(page), "card": str(card), "bytes": page.stat().st_size})
        return
    say(f"{page} ({page.stat().st_size / 1e6:.1f} MB), {card}")


def _measure(facts: "RunFacts", data: str | None, *, wanted: bool) -> None:
    """Keep the answers about the run's own images; where they are gone, say so unless wanted."""
    from kerastl.errors import DataError

    try:
        images = images_of(facts, data)
    except DataError as error:
        if wanted:
            raise
        say(f"The images could not be read, so the page has none: {error}")
        return
    measure_again(facts, images)


def _compare(facts: "RunFacts", data: str | None, scratch: bool) -> None:
    """Keep how the recipe of a run compares with other ways to train."""
    from kerastl.model.recipes import Recipe
    from kerastl.results.run_directory import write_json
    from kerastl.results.run_facts import TRANSFER
    from kerastl.results.transfer import compare_transfer

    recipe = Recipe.from_dict(facts.recipe)
    found = compare_transfer(images_of(facts, data), recipe, scratch=scratch)
    write_json(facts.directory / TRANSFER, found)
    for warning in found["warnings"]:
        say(f"Warning: {warning}")


def images_of(facts: "RunFacts", data: str | None = None) -> "ImageData":
    """Load the images of a run, split as they were.

    Raises:
        DataError: they are gone, or are others than those of the run.
    """
    from kerastl.data.load import load_data
    from kerastl.errors import DataError

    source = facts.source
    images = load_data(
        data or source.get("data", ""),
        test=source.get("test"),
        seed=facts.recipe["seed"],
        validation_fraction=facts.recipe["validation_fraction"],
        on_bad=source.get("on_bad", "error"),
        task=facts.task,
    )
    if images.fingerprint() != source.get("fingerprint"):
        raise DataError(
            f"The images in {data or source.get('data')} are others than those of the run "
            f"{facts.directory}: their fingerprint differs. Give the folder as it was with "
            "`--data`, or use `kerastl evaluate` for other images."
        )
    return images


def measure_again(facts: "RunFacts", images: "ImageData") -> dict[str, Any]:
    """Keep what the model of a run answers about the images of the run."""
    from kerastl.results.evaluate import collect_predictions
    from kerastl.results.findings import keep_findings
    from kerastl.results.run_directory import read_run

    model, names = read_run(facts.directory)
    how: dict[str, Any] = {"class_names": names}
    kept = facts.findings or {}
    # A head that was fitted again to the validation images gives no honest temperature.
    calibration = kept.get("calibration")
    return keep_findings(
        facts.directory,
        model,
        images,
        test=collect_predictions(model, images.test, **how),
        calibration=calibration,
        moved=kept.get("moved", ()),
    )
