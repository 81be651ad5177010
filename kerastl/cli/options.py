"""The arguments and options that several commands take, each written once."""

from pathlib import Path
from typing import Annotated

import typer

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
