"""Exports a run or a `.keras` file, compared with labelled images if available."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerastl._steps import step
from kerastl.data.options import NO_OPTIONS, DataOptions
from kerastl.errors import ArgumentError
from kerastl.model.heads import task_of
from kerastl.results.run_files import read_labelled_model
from kerastl.runs.labelled import load_whole
from kerastl.runs.run import Run
from kerastl.serving.export import export_model
from kerastl.serving.fully_convolutional import export_fully_convolutional


@dataclass(frozen=True)
class ExportSettings:
    """The settings of an export.

    Args:
        formats: as `export_model` takes them.
        data: labelled images to compare and measure on; those of training give the int8 ranges.
        labels: file of the class names. Default: the one of the run.
        options: how to read `data`.
        temperature: divides the scores. Default: 1.
        calibrate: whether the run's own temperature divides them.
        fully_convolutional: whether to write a SavedModel for larger images.
        image_dtype: of the pixels that the export takes.
        version: as `export_model` takes it, and `proof`.

    Raises:
        ArgumentError: the wishes do not go together.
    """

    formats: Sequence[str] = ("saved_model",)
    data: str | None = None
    labels: Path | None = None
    options: DataOptions = NO_OPTIONS
    temperature: float | None = None
    calibrate: bool = False
    fully_convolutional: bool = False
    image_dtype: str = "float32"
    version: int | None = None
    proof: str = "here"

    def __post_init__(self) -> None:
        plain = self.image_dtype == "float32" and list(self.formats) == ["saved_model"]
        if self.fully_convolutional and not plain:
            raise ArgumentError(
                "`--fully-convolutional` writes a SavedModel that takes float32 pixels. Leave "
                "out `--format` and `--image-dtype`."
            )
        if self.calibrate and self.temperature is not None:
            raise ArgumentError(
                "Pass `--calibrate` or `--temperature`, not both. Received: "
                f"{self.temperature} as well."
            )


def export_files(
    model: Path, output: Path | None, asked: ExportSettings, tell: Callable[[str], None]
) -> Path:
    """Export a run or a `.keras` file, and return the folder of the version.

    Args:
        model: a run, or a `.keras` file.
        output: folder of the versions. Default: one in the run.
        asked: what to export, and how.
        tell: is told what a person should know.

    Raises:
        ArgumentError: a file is exported, and `output` is missing.
    """
    if output is None and not model.is_dir():
        raise ArgumentError(
            "To export a file, pass the folder of the versions as `--output`. Received: "
            f"{model} without it."
        )
    temperature = 1.0 if asked.temperature is None else asked.temperature
    if asked.calibrate:
        temperature = Run(model).fitted_temperature()
        tell(
            f"The scores are divided by {temperature:.3f}, which was fitted to the "
            "validation images."
        )
    network, class_names = read_labelled_model(model, asked.labels)
    images = training = None
    options = Run(model, model=network).reading(asked.options)
    if asked.data is not None:
        loaded = load_whole(asked.data, class_names, task_of(network).name, options=options)
        images, training = (loaded.test, loaded.train) if loaded.test else (loaded.train, None)
    how: dict[str, Any] = {
        "class_names": class_names, "parity_data": images, "bit_depth": options.bit_depth,
        "temperature": temperature, "version": asked.version, "proof": asked.proof,
    }  # fmt: skip
    with step("Exporting and comparing with the model"):
        if asked.fully_convolutional:
            return export_fully_convolutional(
                network, output or model / "fully_convolutional", **how
            )
        return export_model(
            network, output or model / "saved_model", formats=asked.formats,
            representative_data=training, image_dtype=asked.image_dtype, resize=options.resize,
            **how,
        )  # fmt: skip
