"""The arguments and options that several commands take, each written once."""

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kerastl.data.options import DataOptions

Data = Annotated[str, typer.Argument(metavar="DATA", help="Folder, CSV, .npz or tfds:NAME.")]
Model = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a .keras file.")]
Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")
]
Weights = Annotated[
    str | None, typer.Option(help="imagenet (default), embedded, random, or a file.")
]
Recipe = Annotated[
    Path | None,
    typer.Option(help="Another run, or its recipe.json: its recipe in place of a scenario."),
]
Seed = Annotated[
    int | None, typer.Option(help="Random seed; the same seed gives the same result; default: 0.")
]
Labels = Annotated[
    Path | None, typer.Option(help="A class name a line; default: labels.txt beside the model.")
]
Test = Annotated[str | None, typer.Option(help="Test images, as DATA.")]
Backbone = Annotated[
    str | None,
    typer.Option(
        help='Of keras.applications, such as "MobileNetV2(alpha=0.35)"; an earlier run or a .keras '
        "file."
    ),
]
ImageSize = Annotated[
    int | None, typer.Option(min=1, help="Height and width in pixels; default: the backbone's own.")
]
ImageSizes = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE,SIZE,...",
        help="Sizes to choose from, by a probe at each: the smallest within a standard error of "
        "the best.",
    ),
]
Head = Annotated[
    str | None,
    typer.Option(
        help="stages: reads all stages of the backbone; linear: its pooled top; mlp: that, with a "
        "hidden layer; default: the recipe's, or stages to tell one class an image."
    ),
]
Strategy = Annotated[
    str,
    typer.Option(
        help="none: one device; mirrored: all GPUs of this machine share each batch; "
        "multi_worker: those of several machines, each of which runs this command."
    ),
]
WorkerHosts = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT,...",
        help="The machines of multi_worker, the same list on each; default: TF_CONFIG.",
    ),
]
WorkerIndex = Annotated[
    int | None, typer.Option(min=0, help="Which of --worker-hosts this machine is, from 0.")
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with the run in --output, or begin it where none is."),
]
Deterministic = Annotated[
    bool, typer.Option(help="One seed, one result, to the bit; GPUs are faster without.")
]
MaxImages = Annotated[int, typer.Option(min=2, help="The most images to look at.")]
Task = Annotated[
    str,
    typer.Option(
        help="classification: one class an image; multi_label: any number of labels, of a CSV with "
        "a column `labels` parted by | or a column of 0 and 1 each; regression: numbers, of a CSV "
        "with a column `target` or several of numbers."
    ),
]
OnBad = Annotated[str, typer.Option(help="Unreadable files: error, or skip to leave them out.")]
Output = Annotated[Path | None, typer.Option(help="Run directory; default: the next runs/N.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


_DATA_OPTIONS: dict[str, tuple[Any, str]] = {
    "image_column": (str, "Of a table: the column of the paths."),
    "label_column": (list[str], "Of a table: the column of the labels; may be given again."),
    "split_column": (str, "Of a table: the column of train, val or test."),
    "group_column": (str, "Of a table: the column by which images stay on one side of a split."),
    "label_separator": (str, "What parts the labels in a cell; default: | ; or , if it occurs."),
    "image_folder": (str, "The folder of the images of a table; default: that of the table."),
    "image_suffix": (str, "The ending that names in a table leave out, such as .jpg."),
    "group_by": (str, "A pattern in file names; images with the same find stay on one side."),
    "bit_depth": (int, "Bits in use of images of more than 8, such as 12; default: all 16."),
    "data_dir": (str, "Where tensorflow-datasets keeps its data."),
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
            annotation=Annotated[
                kind | None, typer.Option(help=text, rich_help_panel="How to read DATA")
            ],
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
    rf"`?\b({'|'.join([*_DATA_OPTIONS, 'task', 'on_bad'])})(?:=('[^']*'|[^\s`,.;)]+))?`?"
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
