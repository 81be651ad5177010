"""The command `kerastl`: its subcommands, and how an error ends it."""

import importlib
import importlib.metadata
import os
import sys
from typing import Annotated

import typer

from kerastl.cli.options import as_options
from kerastl.data.changed import message_if_file_changed
from kerastl.errors import DataError, KerastlError

COMMANDS = (
    "scan", "diagnose", "rank", "train", "chain", "search", "evaluate", "predict", "embed",
    "explain", "heatmap", "report", "export", "serve", "backbones", "cache", "quickstart",
)  # fmt: skip
"""In the order of the help: each is a function in the module of its name."""

STOPPED = (130, 143)
"""The exit statuses of Ctrl-C and SIGTERM."""

app = typer.Typer(
    name="kerastl",
    help="Transfer learning for image classification on Keras.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # a line break in a docstring is none on the screen
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name in COMMANDS:
    app.command(_name)(getattr(importlib.import_module(f"kerastl.cli.{_name}"), _name))


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
    except SystemExit as ended:
        if ended.code in STOPPED:
            # What kerastl had open is closed. TensorFlow's threads may be at work on a step still,
            # and taking the interpreter down beneath them ended one stop of 14 in a crash.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(ended.code))
        raise
    except KerastlError as error:
        typer.echo(f"kerastl: {as_options(str(error))}", err=True)
        sys.exit(error.exit_status)
    except Exception as error:
        if (text := message_if_file_changed(error)) is None:
            raise
        typer.echo(f"kerastl: {text}", err=True)
        sys.exit(DataError.exit_status)
