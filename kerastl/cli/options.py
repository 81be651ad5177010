"""The arguments and options that several commands take, each written once."""

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kerastl.data.options import DataOptions

# The groups of the help.
MODEL, TRAINING, MACHINE, OUTPUT = "Model", "Training", "Machine", "Output"
READING = "Reading the data"

Data = Annotated[
    str,
    typer.Argument(metavar="DATA", help="Folder, table (CSV, Parquet), .npz file or tfds:NAME."),
]
Model = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory or .keras file.")]
Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files or folders.")]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="imagenet (default), embedded, random or a file.",
        rich_help_panel=MODEL,
    ),
]
Recipe = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN|FILE",
        help="Use the recipe of a run, or a recipe file.",
        rich_help_panel=TRAINING,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        "-s",
        help="Random seed; the same seed gives the same result; default: 0.",
        rich_help_panel=TRAINING,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(help="File of class names, one per line; default: labels.txt beside the model."),
]
Test = Annotated[
    str | None, typer.Option(help="Test images, in the same form as DATA.", rich_help_panel=READING)
]
Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        "-b",
        metavar="NAME",
        help='Network of keras.applications, such as "MobileNetV2(alpha=0.35)", a KerasHub preset, '
        "or an earlier run or .keras file.",
        rich_help_panel=MODEL,
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PIXELS",
        help="Height and width of the input; default: that of the network.",
        rich_help_panel=MODEL,
    ),
]
ImageSizes = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE,SIZE,...",
        help="Compare these sizes with a linear probe; use the smallest that is about as good as "
        "the best.",
        rich_help_panel=MODEL,
    ),
]
Head = Annotated[
    str | None,
    typer.Option(
        metavar="stages|linear|mlp",
        help="Classifier: reads all stages (default), the pooled top, or the top with a hidden "
        "layer.",
        rich_help_panel=MODEL,
    ),
]
Strategy = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="none, mirrored (all GPUs), or multi_worker (several machines that each run this "
        "command).",
        rich_help_panel=MACHINE,
    ),
]
WorkerHosts = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT,...",
        help="Machines of multi_worker, the same list on each; default: TF_CONFIG.",
        rich_help_panel=MACHINE,
    ),
]
WorkerIndex = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Position of this machine in --worker-hosts, from 0.",
        rich_help_panel=MACHINE,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue the run in --output, or begin it if there is none.",
        rich_help_panel=OUTPUT,
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        help="Bit-identical results for one seed; slower on GPUs.", rich_help_panel=MACHINE
    ),
]
MaxImages = Annotated[int, typer.Option(min=2, metavar="N", help="Use at most this many images.")]
Task = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="classification, multi_label (a column `labels`, or 0/1 columns) or regression (a "
        "column `target`, or columns of numbers).",
        rich_help_panel=TRAINING,
    ),
]
OnBad = Annotated[
    str,
    typer.Option(
        metavar="error|skip",
        help="Unreadable files: stop, or leave them out.",
        rich_help_panel=READING,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Run directory; default: the next runs/N.",
        rich_help_panel=OUTPUT,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=OUTPUT)
]


_DATA_OPTIONS: dict[str, tuple[Any, str]] = {
    "image_column": (str, "Table column with the image paths."),
    "label_column": (list[str], "Table column with the labels; can be repeated."),
    "split_column": (str, "Table column with train, val or test."),
    "group_column": (str, "Table column; images of one group stay in the same part."),
    "label_separator": (str, "Separator of labels in a cell; default: | ; or , if it occurs."),
    "image_folder": (str, "Folder of a table's images; default: that of the table."),
    "image_suffix": (str, "Ending that a table's file names lack, such as .jpg."),
    "group_by": (str, "Regular expression on file names; equal matches stay in the same part."),
    "bit_depth": (int, "Used bits of images with more than 8, such as 12; default: 16."),
    "resize": (str, "squash, pad or crop: how images come to the shape of the input."),
    "channels": (int, "Channels of the images of an .npz file, other than RGB and gray."),
    "data_dir": (str, "Folder of tensorflow-datasets."),
}
"""The fields of `DataOptions` as options, with type and help."""


def with_data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `DataOptions`, which it gets as its argument `how`."""
    signature = inspect.signature(command)
    parameters = [one for one in signature.parameters.values() if one.name != "how"]
    parameters += [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind | None, typer.Option(help=text, rich_help_panel=READING)],
        )
        for name, (kind, text) in _DATA_OPTIONS.items()
    ]

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        given = {name: values.pop(name) for name in _DATA_OPTIONS}
        columns = given["label_column"] or None
        given["label_column"] = columns[0] if columns and len(columns) == 1 else columns
        command(**values, how=DataOptions(**given))

    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return wrapped


_ARGUMENT = re.compile(
    rf"`?\b({'|'.join([*_DATA_OPTIONS, 'task', 'on_bad', 'balance'])})(?:=('[^']*'|[^\s`,.;)]+))?`?"
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
    parts = [part.strip() for part in image_sizes.split(",")]
    if len(parts) < 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise typer.BadParameter(
            f"--image-sizes must be two or more whole numbers, such as 160,224. Received: "
            f"{image_sizes!r}"
        )
    return tuple(int(part) for part in parts)
