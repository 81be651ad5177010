"""`kerastl export`: a run or a `.keras` file as a new version of what is served."""

import json as json_text
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kerastl._steps import step
from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow
from kerastl.data.options import DataOptions
from kerastl.errors import ArgumentError

COLUMNS = ["artifact", "file", "MB", "largest difference", "same label", "accuracy"]


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
    temperature: Annotated[float, typer.Option(help="Divide the scores by this number.")] = 1.0,
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
    if output is None and not model.is_dir():
        raise ArgumentError(
            "`--output` must name the folder of the versions where a file is exported. "
            f"Received: {model} without it."
        )
    if fully_convolutional and (image_dtype != "float32" or format_ not in (None, ["saved_model"])):
        raise ArgumentError(
            "`--fully-convolutional` writes a SavedModel that takes float32 pixels. Leave "
            "`--format` and `--image-dtype` out."
        )
    start_tensorflow(deterministic=False)
    if calibrate:
        temperature = _fitted(model, temperature)
    from kerastl.model.heads import task_of
    from kerastl.results.run_files import read_labelled_model
    from kerastl.runs.run import Run, load_whole
    from kerastl.serving.export import export_model
    from kerastl.serving.fully_convolutional import export_fully_convolutional

    network, class_names = read_labelled_model(model, labels)
    images = training = None
    how = Run(model, model=network).reading(how)
    if data is not None:
        loaded = load_whole(data, class_names, task_of(network).name, options=how)
        images, training = (loaded.test, loaded.train) if loaded.test else (loaded.train, None)
    shared: Any = {
        "class_names": class_names, "version": version, "parity_data": images,
        "temperature": temperature, "bit_depth": how.bit_depth, "proof": proof,
    }  # fmt: skip
    with step("Exporting, and comparing with the model"):
        if fully_convolutional:
            folder = output or model / "fully_convolutional"
            path = export_fully_convolutional(network, folder, **shared)
        else:
            path = export_model(
                network, output or model / "saved_model", formats=format_ or ["saved_model"],
                representative_data=training, image_dtype=image_dtype, resize=how.resize,
                **shared,
            )  # fmt: skip
    certificate = json_text.loads((path / "parity.json").read_text(encoding="utf-8"))
    if json:
        print_json({"path": str(path), **certificate})
        return
    _print_certificate(path, certificate)


def _fitted(run: Path, temperature: float) -> float:
    """Return the temperature that a run fitted to its validation images."""
    from kerastl.runs.run import Run

    if temperature != 1.0:
        raise ArgumentError(
            f"Give `--calibrate` or `--temperature`, not both. Received: {temperature} besides."
        )
    fitted = Run(run).fitted_temperature()
    say(f"Scores are divided by {fitted:.3f}, fitted to validation images.")
    return fitted


def _print_certificate(path: Path, certificate: Mapping[str, Any]) -> None:
    sample = certificate["sample"]
    rows = [_row(artifact) for artifact in certificate["artifacts"]]
    title = f"{path}: compared with Keras on {sample['images']} {sample['source']} images"
    print_table(title, COLUMNS, rows)
    if not sample["labelled"] and "sizes" not in sample:
        say("Accuracy was not measured: give labelled images with `--data`.")


def _row(artifact: Mapping[str, Any]) -> list[str]:
    agreement, accuracy = artifact.get("label_agreement"), artifact.get("accuracy")
    size = artifact.get("bytes")
    return [
        artifact["artifact"],
        artifact["file"],
        "" if size is None else f"{size / 1e6:.2f}",
        f"{artifact['largest_difference']:.1e}",
        "" if agreement is None else f"{agreement:.0%}",
        "" if accuracy is None else f"{accuracy:.3f}",
    ]
