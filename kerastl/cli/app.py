"""The command `kerastl`: its subcommands, and its exit status."""

import importlib
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from kerastl._streams import open_standard_streams
from kerastl.cli.options import as_options
from kerastl.data.changed import message_if_file_changed
from kerastl.errors import DataError, KerastlError

COMMANDS = {
    "Train": ("train", "search", "chain"),
    "Look at data": ("scan", "diagnose", "rank", "embed"),
    "Use a run": ("predict", "evaluate", "explain", "heatmap", "report", "next"),
    "Serve": ("export", "serve"),
    "More": ("quickstart", "backbones", "cache"),
}
"""By the groups of the help: each is a function in the module of its name."""

STOPPED = (130, 143)
"""The exit statuses of Ctrl-C and SIGTERM."""


class _Command(TyperCommand):
    """A command whose help ends with the rarely used options."""

    def get_params(self, ctx: Any) -> list[Any]:
        params = super().get_params(ctx)
        return sorted(params, key=lambda one: str(one.rich_help_panel).startswith("Advanced"))


app = typer.Typer(
    name="kerastl",
    help="Transfer learning for image classification on Keras.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # a line break in a docstring is none on the screen
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _panel, _names in COMMANDS.items():
    for _name in _names:
        _function = getattr(importlib.import_module(f"kerastl.cli.{_name}"), _name)
        app.command(_name, cls=_Command, rich_help_panel=_panel)(_function)


def _print_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(importlib.metadata.version("kerastl"))
        raise typer.Exit


@app.callback()
def _kerastl(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Transfer learning for image classification on Keras."""


def _in_words(error: Exception) -> str | None:
    """Return a message for an error that the user can fix; None for other errors."""
    if isinstance(error, UnicodeEncodeError):
        unknown = error.object[error.start : error.end]
        return (
            f"Standard output cannot print {unknown!a}: its encoding is {error.encoding}. Set "
            "PYTHONIOENCODING=utf-8, or use `--json`."
        )
    if isinstance(error, ImportError) and error.name == os.environ.get("KERAS_BACKEND"):
        return (
            f"KERAS_BACKEND={error.name} is not installed. The commands need "
            "KERAS_BACKEND=tensorflow."
        )
    if isinstance(error, OSError) and error.strerror is not None:
        where = "standard output" if error.filename is None else repr(error.filename)
        return f"Cannot read or write {where}: {error.strerror}."
    return None


def main() -> None:
    """Run the command; exit 0 when done, 1 when the work failed, 2 when the input is wrong."""
    open_standard_streams()
    try:
        try:
            app()
        except SystemExit as ended:
            sys.stdout.flush()
            sys.stderr.flush()
            if ended.code in STOPPED:
                # What kerastl had open is closed. TensorFlow's threads may be at work on a step
                # still, and taking the interpreter down beneath them ended one stop of 14 in a
                # crash.
                os._exit(int(ended.code))
            raise
    except KerastlError as error:
        typer.echo(f"kerastl: {as_options(str(error))}", err=True)
        sys.exit(error.exit_status)
    except Exception as error:
        if (text := message_if_file_changed(error)) is not None:
            typer.echo(f"kerastl: {text}", err=True)
            sys.exit(DataError.exit_status)
        if (text := _in_words(error)) is None:
            raise
        typer.echo(f"kerastl: {text}", err=True)
        os._exit(KerastlError.exit_status)  # what could not be written would be tried again
