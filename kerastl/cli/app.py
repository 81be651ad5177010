"""The command `kerastl`: its subcommands, and how an error ends it."""

import importlib.metadata
import sys
from typing import Annotated

import typer

from kerastl.cli import (
    backbones,
    cache,
    chain,
    diagnose,
    embed,
    evaluate,
    explain,
    export,
    heatmap,
    predict,
    quickstart,
    rank,
    report,
    scan,
    search,
    serve,
    train,
)
from kerastl.data.changed import message_if_file_changed
from kerastl.errors import DataError, KerastlError

app = typer.Typer(
    name="kerastl",
    help="Transfer learning for image classification on Keras.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # a line break in a docstring is none on the screen
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("scan")(scan.scan)
app.command("diagnose")(diagnose.diagnose)
app.command("rank")(rank.rank)
app.command("train")(train.train)
app.command("chain")(chain.chain)
app.command("search")(search.search)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("embed")(embed.embed)
app.command("explain")(explain.explain)
app.command("heatmap")(heatmap.heatmap)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("backbones")(backbones.backbones)
app.command("cache")(cache.cache)
app.command("quickstart")(quickstart.quickstart)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(importlib.metadata.version("kerastl"))
        raise typer.Exit


@app.callback()
def _kerastl(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """Transfer learning for image classification on Keras."""


def main() -> None:
    """Run the command; exit 0 when done, 1 when the work failed, 2 when the input is wrong."""
    try:
        app()
    except KerastlError as error:
        typer.echo(f"kerastl: {error}", err=True)
        sys.exit(error.exit_status)
    except Exception as error:
        if (text := message_if_file_changed(error)) is None:
            raise
        typer.echo(f"kerastl: {text}", err=True)
        sys.exit(DataError.exit_status)
