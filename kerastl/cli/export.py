"""`kerastl export`: a run or a `.keras` file as a new version of what is served."""

import json as json_text
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow
from kerastl.data.options import DataOptions


@options.with_data_options
def export(
    model: Annotated[Path, typer.Argument(metavar="RUN|FILE", help="Run or .keras file.")],
    format_: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="saved_model (default), litert, litert_fp16, litert_dynamic, litert_int8, onnx or "
            "openvino; can be repeated.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the versions; default: RUN/saved_model.")
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Version number; default: the next free one.")
    ] = None,
    labels: options.Labels = None,
    data: Annotated[
        str | None,
        typer.Option(help="Labelled images, to compare and measure on, and for int8 ranges."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Divide the scores by this number; default: 1.")
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Use the temperature that RUN fitted on its validation images."
        ),
    ] = False,
    image_dtype: Annotated[
        str, typer.Option(metavar="float32|uint8", help="Type of the input pixels.")
    ] = "float32",
    fully_convolutional: Annotated[
        bool,
        typer.Option(
            "--fully-convolutional",
            help="Write a SavedModel for larger images; default folder: RUN/fully_convolutional.",
        ),
    ] = False,
    proof: Annotated[
        str,
        typer.Option(
            metavar="here|process", help="Check the files in this process, or in a fresh one."
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
        say("Accuracy was not measured: give labelled images with `--data`.")
