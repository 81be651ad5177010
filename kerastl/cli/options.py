"""Arguments and options that several commands share."""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kerastl.data.options import RESIZES, DataOptions
from kerastl.model.head_names import HEADS
from kerastl.model.recipe_names import PUBLISHED, SCENARIOS

# One function for each panel of the help. `cli/app.py` prints those of "Advanced" last.
in_data, in_model, in_training, in_output, advanced = (
    functools.partial(typer.Option, rich_help_panel=panel)
    for panel in ("Data", "Model", "Training", "Output", "Advanced")
)
more_data, more_training, more_machine, more_output = (
    functools.partial(typer.Option, rich_help_panel=f"Advanced: {panel}")
    for panel in ("data", "training", "machine", "output")
)


def choice(*names: str, metavar: str | None = None) -> dict[str, Any]:
    """Return what an option with these values shows in the help and offers to the shell."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return {"metavar": metavar or "|".join(names), "autocompletion": complete}


Data = Annotated[str, typer.Argument(metavar="DATA", help="Folder, table, .npz or tfds:NAME.")]
Model = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory or .keras file.")]
Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files or folders.")]
ClassName = Annotated[
    str | None, typer.Option("--class", metavar="NAME", help="Class; default: the prediction.")
]
Labels = Annotated[
    Path | None,
    advanced(help="File of class names, one per line; default: labels.txt beside the model."),
]
MaxImages = Annotated[int, in_data(min=2, metavar="N", help="Use at most this many images.")]

Test = Annotated[str | None, in_data(metavar="DATA", help="Test images, in the same form as DATA.")]
_BAD = "Unreadable files: stop (default) or skip."
OnBad = Annotated[str, in_data(**choice("error", "skip"), show_default=False, help=_BAD)]

_NETWORKS = "Network of Keras or KerasHub, a run or a .keras file; default: MobileNetV2."
_SIZES = "Try several input sizes; use the smallest that is about as accurate as the best."
_HEADS = "stages (reads all stages; default), linear, mlp, or mlp:256,128 (hidden units)."
_WEIGHTS = "imagenet (default), embedded, random, FILE."
Backbone = Annotated[str | None, in_model("--backbone", "-b", metavar="NAME", help=_NETWORKS)]
_SEVERAL = "Network, as for train; repeat it to search over several."
Backbones = Annotated[list[str] | None, in_model("--backbone", "-b", metavar="NAME", help=_SEVERAL)]
Weights = Annotated[
    str | None,
    in_model(**choice("imagenet", "embedded", "random", metavar="NAME|FILE"), help=_WEIGHTS),
]
ImageSize = Annotated[int | None, in_model(min=1, metavar="N", help="Input size in pixels.")]
ImageSizes = Annotated[str | None, more_training(metavar="N,N,...", help=_SIZES)]
Head = Annotated[str | None, more_training(**choice(*HEADS, metavar="NAME"), help=_HEADS)]

_SCENARIOS = f"auto measures it (default); or {', '.join((*SCENARIOS, *PUBLISHED))}."
_EPOCHS = "Epochs of fine-tuning; default: automatic."
Scenario = Annotated[
    str | None,
    in_training(**choice("auto", *SCENARIOS, *PUBLISHED, metavar="NAME"), help=_SCENARIOS),
]
Epochs = Annotated[int | None, in_training("--epochs", "-e", min=1, metavar="N", help=_EPOCHS)]
_PATIENCE = "Stop a phase after this many epochs without improvement."
_FRACTIONS = "Fraction of the training images used for validation; default: 0.15."
BatchSize = Annotated[int | None, in_training(min=1, metavar="N", help="Images per step.")]
LearningRate = Annotated[float | None, more_training(metavar="RATE", help="Highest learning rate.")]
FreezeDepth = Annotated[
    int | None, more_training(min=0, metavar="N", help="Number of frozen stages.")
]
Patience = Annotated[int | None, more_training(min=1, metavar="N", help=_PATIENCE)]
ValidationFraction = Annotated[float | None, more_training(metavar="FRACTION", help=_FRACTIONS)]
Recipe = Annotated[Path | None, more_training(metavar="RUN|FILE", help="Recipe of a run, or file.")]
_seeds = functools.partial(in_training, "--seed", "-s", metavar="N")
Seed = Annotated[int | None, _seeds(help="Random seed; default: 0.")]
PlainSeed = Annotated[int, _seeds(help="Random seed.")]
_NAMES = ("classification", "multi_label", "regression", "detection")
_TASKS = "classification (default), multi_label, regression or detection."
Task = Annotated[
    str, in_training(**choice(*_NAMES, metavar="NAME"), show_default=False, help=_TASKS)
]

_DEVICES = "none, mirrored (all GPUs) or multi_worker (several machines)."
_HOSTS = "Machines of multi_worker, the same list on each; default: TF_CONFIG."
_INDEX = "Position of this machine in --worker-hosts, from 0."
Strategy = Annotated[
    str, more_machine(**choice("none", "mirrored", "multi_worker", metavar="NAME"), help=_DEVICES)
]
WorkerHosts = Annotated[str | None, more_machine(metavar="HOST:PORT,...", help=_HOSTS)]
WorkerIndex = Annotated[int | None, more_machine(min=0, metavar="N", help=_INDEX)]
Deterministic = Annotated[bool, more_machine(help="The same seed gives the same bits.")]

to_path = functools.partial(in_output, "--output", "-o", metavar="PATH")
Output = Annotated[Path | None, to_path(help="Run directory; default: next free runs/N.")]
Resume = Annotated[bool, in_output("--resume", help="Continue the run in --output, or start it.")]
Track = Annotated[str | None, more_output(**choice("mlflow", "wandb"), help="Log the run there.")]
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
            annotation=Annotated[
                _KINDS.get(name, str) | None,
                more_data(help=text, **(choice(*RESIZES) if name == "resize" else {})),
            ],
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
        raise typer.BadParameter(f"pass {word} or a number. Received: {text!r}") from None


def checked_sizes(image_sizes: str | None, image_size: int | None) -> tuple[int, ...] | None:
    """Return the whole numbers that `--image-sizes` lists; `--image-size` goes without them."""
    if image_sizes is None:
        return None
    if image_size is not None:
        raise typer.BadParameter("pass --image-size or --image-sizes, not both.")
    parts = image_sizes.replace(" ", "").split(",")
    if len(parts) < 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise typer.BadParameter(
            f"--image-sizes must be two or more whole numbers, such as 160,224. Received: "
            f"{image_sizes!r}"
        )
    return tuple(int(part) for part in parts)
