"""The export formats, as a literal table."""

from collections.abc import Sequence
from dataclasses import dataclass

from kerastl._checks import check_choice, check_packages
from kerastl.errors import ArgumentError


@dataclass(frozen=True)
class Format:
    """A kind of file that a model is exported to.

    Args:
        name: what `formats` calls it.
        file: its path below the folder of the version.
        tolerance: the largest difference of a probability from the Keras model's.
        agreement: the least share of images that get the Keras model's label.
        extra: of `pip install 'kerastl[...]'`, where it needs one.
        packages: what that extra has to bring.
    """

    name: str
    file: str
    tolerance: float
    agreement: float = 0.0
    extra: str = ""
    packages: tuple[str, ...] = ()


# 1e-5 is what float32 loses when sums are reordered; a wrong layer or a lost preprocessing shows at
# 1e-2. What is rounded on purpose is held to its labels instead.
FORMATS: tuple[Format, ...] = (
    Format("saved_model", "saved_model.pb", 1e-5),
    Format("litert", "model.tflite", 1e-4),
    Format("litert_fp16", "model_fp16.tflite", 2e-2, 0.95),
    Format("litert_dynamic", "model_dynamic.tflite", 1.0, 0.85),
    Format("litert_int8", "model_int8.tflite", 1.0, 0.8),
    Format("onnx", "model.onnx", 1e-4, extra="onnx", packages=("onnx", "tf2onnx", "onnxruntime")),
    Format("openvino", "openvino/model.xml", 1e-4, extra="openvino", packages=("openvino",)),
)
BY_NAME = {format_.name: format_ for format_ in FORMATS}


def checked_formats(names: Sequence[str]) -> list[Format]:
    """Return the formats of those names, each once, in the order of the table.

    Raises:
        ArgumentError: a name is unknown, there is none, or a package is missing.
    """
    if isinstance(names, str):
        names = (names,)
    for name in names:
        check_choice("formats", name, BY_NAME)
    if not names:
        raise ArgumentError(
            f"`formats` must name at least one of {', '.join(BY_NAME)}. Received none."
        )
    chosen = [format_ for format_ in FORMATS if format_.name in names]
    for format_ in chosen:
        check_packages(f"The format {format_.name!r}", format_.packages, format_.extra)
    return chosen
