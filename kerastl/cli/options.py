"""The arguments and options that several commands take, each written once."""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kerastl.data.options import DataOptions

# The groups of the help, each as what makes an option of it.
in_model, in_training, in_machine, in_output, in_reading = (
    functools.partial(typer.Option, rich_help_panel=panel)
    for panel in ("Model", "Training", "Machine", "Output", "Reading the data")
)

Data = Annotated[
    str,
    typer.Argument(metavar="DATA", help="Folder, table (CSV, Parquet), .npz file or tfds:NAME."),
]
Model = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory or .keras file.")]
Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files or folders.")]
Labels = Annotated[
    Path | None,
    typer.Option(help="File of class names, one per line; default: labels.txt beside the model."),
]
MaxImages = Annotated[int, typer.Option(min=2, metavar="N", help="Use at most this many images.")]

Test = Annotated[str | None, in_reading(help="Test images, in the same form as DATA.")]
OnBad = Annotated[
    str, in_reading(metavar="error|skip", help="Unreadable files: stop, or leave them out.")
]

_NETWORKS = (
    'Network of keras.applications, such as "MobileNetV2(alpha=0.35)", a KerasHub preset, or an '
    "earlier run or .keras file."
)
_SIZES = "Compare these sizes with a linear probe; use the smallest about as good as the best."
_HEADS = "stages (reads all stages; default), linear, mlp, or mlp:256,128 (hidden units)."
Backbone = Annotated[str | None, in_model("--backbone", "-b", metavar="NAME", help=_NETWORKS)]
Weights = Annotated[
    str | None,
    in_model(metavar="NAME|FILE", help="imagenet (default), embedded, random or a file."),
]
ImageSize = Annotated[
    int | None,
    in_model(
        min=1, metavar="PIXELS", help="Height and width of the input; default: the network's."
    ),
]
ImageSizes = Annotated[str | None, in_model(metavar="SIZE,SIZE,...", help=_SIZES)]
Head = Annotated[str | None, in_model(metavar="NAME", help=_HEADS)]

_TASKS = (
    "classification, multi_label (a column `labels`, or 0/1 columns) or regression (a column "
    "`target`, or columns of numbers)."
)
_SCENARIOS = (
    "auto measures it (default); or small_similar, large_similar, small_different, "
    "large_different, guide, fastai, bit, scratch."
)
_EPOCHS = "Epochs of fine-tuning; default: by the number of images."
Scenario = Annotated[str | None, in_training(metavar="auto|NAME", help=_SCENARIOS)]
Epochs = Annotated[int | None, in_training("--epochs", "-e", min=1, metavar="N", help=_EPOCHS)]
_BATCHES, _PATIENCE = "Images in a step.", "Epochs without progress that end a phase."
_RATES, _DEPTHS = "Peak rate of fine-tuning.", "Stages that fine-tuning leaves frozen."
_FRACTIONS = "Share of the training images to choose by; default: 0.15."
BatchSize = Annotated[int | None, in_training(min=1, metavar="N", help=_BATCHES)]
LearningRate = Annotated[float | None, in_training(metavar="RATE", help=_RATES)]
FreezeDepth = Annotated[int | None, in_training(min=0, metavar="N", help=_DEPTHS)]
Patience = Annotated[int | None, in_training(min=1, metavar="N", help=_PATIENCE)]
ValidationFraction = Annotated[float | None, in_training(metavar="SHARE", help=_FRACTIONS)]
Recipe = Annotated[
    Path | None, in_training(metavar="RUN|FILE", help="Use the recipe of a run, or a recipe file.")
]
Seed = Annotated[
    int | None,
    in_training("--seed", "-s", help="Random seed; the same gives the same result; default: 0."),
]
Task = Annotated[str, in_training(metavar="NAME", help=_TASKS)]

_STRATEGIES = "none, mirrored (all GPUs), or multi_worker (machines that each run this command)."
_HOSTS = "Machines of multi_worker, the same list on each; default: TF_CONFIG."
_INDEX = "Position of this machine in --worker-hosts, from 0."
Strategy = Annotated[str, in_machine(metavar="NAME", help=_STRATEGIES)]
WorkerHosts = Annotated[str | None, in_machine(metavar="HOST:PORT,...", help=_HOSTS)]
WorkerIndex = Annotated[int | None, in_machine(min=0, metavar="N", help=_INDEX)]
Deterministic = Annotated[
    bool, in_machine(help="Bit-identical results for one seed; slower on GPUs.")
]

Output = Annotated[
    Path | None,
    in_output("--output", "-o", metavar="DIR", help="Run directory; default: the next runs/N."),
]
Resume = Annotated[
    bool,
    in_output("--resume", help="Continue the run in --output, or begin it if there is none."),
]
Json = Annotated[bool, in_output("--json", help="Print one JSON object on stdout.")]


_KINDS: dict[str, Any] = {"label_column": list[str], "bit_depth": int, "channels": int}
_DATA_OPTIONS = {one.name: one.metadata["help"] for one in dataclasses.fields(DataOptions)}


def with_data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the fields of `DataOptions` as options; it gets them as its argument `how`."""
    signature = inspect.signature(command)
    parameters = [one for one in signature.parameters.values() if one.name != "how"]
    parameters += [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[_KINDS.get(name, str) | None, in_reading(help=text)],
        )
        for name, text in _DATA_OPTIONS.items()
    ]

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        given = {name: values.pop(name) for name in _DATA_OPTIONS}
        columns = given["label_column"] or None
        given["label_column"] = columns[0] if columns and len(columns) == 1 else columns
        command(**values, how=DataOptions(**given))

    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return wrapped


_NAMED_IN_MESSAGES = (
    "task", "on_bad", "balance", "scenario", "epochs", "learning_rate", "freeze_depth",
    "time_limit",
)  # fmt: skip
_ARGUMENT = re.compile(
    rf"`?\b({'|'.join([*_DATA_OPTIONS, *_NAMED_IN_MESSAGES])})(?:=('[^']*'|[^\s`,.;)]+))?`?"
)


def as_options(text: str) -> str:
    """Return a message of the library with options in place of the arguments it names.

    Example:
        >>> as_options("Name it with `image_column`, or pass task='multi_label'.")
        'Name it with `--image-column`, or pass `--task multi_label`.'
    """

    def option(found: "re.Match[str]") -> str:
        if not found[0].startswith("`") and found[2] is None:
            return found[0]  # a word, no argument
        value = "" if found[2] is None else " " + found[2]
        value = value.replace("'", "") if value.strip(" '").isidentifier() else value
        return f"`--{found[1].replace('_', '-')}{value}`"

    return _ARGUMENT.sub(option, text)


def number_or(text: str | None, word: str) -> float | str | None:
    """Return an option that is a number or a word."""
    if text in (None, word):
        return text
    try:
        return float(text or "")
    except ValueError:
        raise typer.BadParameter(f"give {word} or a number. Received: {text!r}") from None


def checked_sizes(image_sizes: str | None, image_size: int | None) -> tuple[int, ...] | None:
    """Return the whole numbers that `--image-sizes` lists; `--image-size` goes without them."""
    if image_sizes is None:
        return None
    if image_size is not None:
        raise typer.BadParameter("give --image-size or --image-sizes, not both.")
    parts = image_sizes.replace(" ", "").split(",")
    if len(parts) < 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise typer.BadParameter(
            f"--image-sizes must be two or more whole numbers, such as 160,224. Received: "
            f"{image_sizes!r}"
        )
    return tuple(int(part) for part in parts)
