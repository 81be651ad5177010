"""Exports a run or a `.keras` file, compared with labelled images if available."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kerastl._steps import step
from kerastl.data.options import DataOptions
from kerastl.errors import ArgumentError
from kerastl.model.heads import task_of
from kerastl.results.run_files import read_labelled_model
from kerastl.runs.labelled import load_whole
from kerastl.runs.run import Run
from kerastl.serving.export import export_model
from kerastl.serving.fully_convolutional import export_fully_convolutional


def export_files(
    model: Path,
    output: Path | None,
    *,
    formats: Sequence[str] | None,
    data: str | None,
    labels: Path | None,
    options: DataOptions,
    tell: Callable[[str], None],
    temperature: float | None = None,
    calibrate: bool = False,
    fully_convolutional: bool = False,
    image_dtype: str = "float32",
    **how: Any,
) -> Path:
    """Export as `kerastl export` is asked to, and return the folder of the version.

    Args:
        model: a run, or a `.keras` file.
        output: folder of the versions. Default: one in the run.
        formats: as `export_model` takes them. Default: a SavedModel.
        data: labelled images to compare and measure on; those of training give the int8 ranges.
        labels: file of the class names. Default: the one of the run.
        options: how to read `data`.
        tell: is told what a person should know.
        temperature: divides the scores. Default: 1.
        calibrate: whether the run's own temperature divides them.
        fully_convolutional: whether to write a SavedModel for larger images.
        image_dtype: of the pixels that the export takes.
        **how: `version` and `proof`, as `export_model` takes them.

    Raises:
        ArgumentError: the wishes do not go together.
    """
    if output is None and not model.is_dir():
        raise ArgumentError(
            "To export a file, pass the folder of the versions as `--output`. Received: "
            f"{model} without it."
        )
    if fully_convolutional and (image_dtype != "float32" or formats not in (None, ["saved_model"])):
        raise ArgumentError(
            "`--fully-convolutional` writes a SavedModel that takes float32 pixels. Leave "
            "out `--format` and `--image-dtype`."
        )
    if calibrate and temperature is not None:
        raise ArgumentError(
            f"Pass `--calibrate` or `--temperature`, not both. Received: {temperature} as well."
        )
    if calibrate:
        temperature = Run(model).fitted_temperature()
        tell(
            f"The scores are divided by {temperature:.3f}, which was fitted to the "
            "validation images."
        )
    network, class_names = read_labelled_model(model, labels)
    images = training = None
    options = Run(model, model=network).reading(options)
    if data is not None:
        loaded = load_whole(data, class_names, task_of(network).name, options=options)
        images, training = (loaded.test, loaded.train) if loaded.test else (loaded.train, None)
    if temperature is not None:
        how["temperature"] = temperature
    how |= {"class_names": class_names, "parity_data": images, "bit_depth": options.bit_depth}
    with step("Exporting and comparing with the model"):
        if fully_convolutional:
            folder = output or model / "fully_convolutional"
            return export_fully_convolutional(network, folder, **how)
        return export_model(
            network, output or model / "saved_model", formats=formats or ["saved_model"],
            representative_data=training, image_dtype=image_dtype, resize=options.resize, **how,
        )  # fmt: skip
