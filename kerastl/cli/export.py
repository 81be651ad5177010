"""`kerastl export`: exports a run or a `.keras` file for serving."""

import json as json_text
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow
from kerastl.data.options import DataOptions
from kerastl.serving.formats import BY_NAME


@options.with_data_options
def export(
    model: Annotated[Path, typer.Argument(metavar="RUN|FILE", help="Run or .keras file.")],
    format_: Annotated[
        list[str] | None,
        options.in_output(
            "--format",
            **options.choice(*BY_NAME, metavar="NAME"),
            help=f"{', '.join(BY_NAME)}; default: saved_model; can be repeated.",
        ),
    ] = None,
    output: Annotated[
        Path | None, options.to_path(help="Folder of versions; default: RUN/saved_model.")
    ] = None,
    version: Annotated[
        int | None,
        options.advanced(min=1, metavar="N", help="Version number; default: the next free one."),
    ] = None,
    labels: options.Labels = None,
    data: Annotated[
        str | None,
        options.in_data(
            metavar="DATA", help="Labelled images for the comparison, the accuracy and int8 ranges."
        ),
    ] = None,
    temperature: Annotated[
        float | None, options.advanced(metavar="NUMBER", help="Divide the scores by this number.")
    ] = None,
    calibrate: Annotated[
        bool,
        options.in_output(
            "--calibrate", help="Use the temperature that RUN fitted on its validation images."
        ),
    ] = False,
    image_dtype: Annotated[
        str,
        options.advanced(**options.choice("float32", "uint8"), help="Type of the input pixels."),
    ] = "float32",
    fully_convolutional: Annotated[
        bool,
        options.advanced(
            "--fully-convolutional",
            help="Write a SavedModel for larger images; default folder: RUN/fully_convolutional.",
        ),
    ] = False,
    proof: Annotated[
        str,
        options.advanced(
            **options.choice("here", "process"),
            help="Check the files in this process or in a new one.",
        ),
    ] = "here",
    json: options.Json = False,
    *,
    how: DataOptions,
) -> None:
    """Export a model for serving, and check that the files predict the same.

    Example: kerastl export runs/1 --format onnx --data photos/
    """
    start_tensorflow(deterministic=False)
    from kerastl.runs.exports import ExportSettings, export_files

    asked = ExportSettings(
        formats=format_ or ["saved_model"], data=data, labels=labels, options=how,
        temperature=temperature, calibrate=calibrate, fully_convolutional=fully_convolutional,
        image_dtype=image_dtype, version=version, proof=proof,
    )  # fmt: skip
    path = export_files(model, output, asked, say)
    certificate = json_text.loads((path / "parity.json").read_text(encoding="utf-8"))
    if json:
        print_json({"path": str(path), **certificate})
        return
    _print(path, certificate)


def _print(path: Path, certificate: Mapping[str, Any]) -> None:
    from kerastl.serving.parity import COLUMNS, cells_of

    sample = certificate["sample"]
    title = f"{path}: compared with Keras on {sample['images']} {sample['source']} images"
    print_table(title, COLUMNS, [*map(cells_of, certificate["artifacts"])])
    if not sample["labelled"] and "sizes" not in sample:
        say("Accuracy was not measured. Pass labelled images with `--data` to measure it.")
