"""Exports a model to files for serving, and checks that they predict the same."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastl._checks import check_choice, check_int
from kerastl._task import check_supports
from kerastl.data.options import AS_ALWAYS, PixelRules
from kerastl.data.scan import MAX_PIXELS
from kerastl.errors import ArgumentError
from kerastl.frozen.prefixes import image_size_of
from kerastl.model.heads import SETTINGS, task_of
from kerastl.model.kept_rules import rules_of
from kerastl.model.kept_words import class_names_of, words_of
from kerastl.model.precision import in_full_precision
from kerastl.serving.artifacts import ANSWERS
from kerastl.serving.formats import BY_NAME, checked_formats
from kerastl.serving.network import served_network
from kerastl.serving.parity import apply_temperature, certify, predict, proved_in
from kerastl.serving.parity_child import EMBEDDED
from kerastl.serving.rows import Limits
from kerastl.serving.sample import Sample, take_sample
from kerastl.serving.signatures import write_saved_model
from kerastl.serving.versions import version_path, written_beside
from kerastl.serving.warmup import write_warmup
from kerastl.serving.writers import write_format

MAX_BYTES = 16 * 2**20
LABELS = "labels.txt"


def export_model(
    model: keras.Model,
    directory: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    formats: Sequence[str] = ("saved_model",),
    version: int | None = None,
    parity_data: Any = None,
    representative_data: Any = None,
    temperature: float = 1.0,
    image_dtype: str = "float32",
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    bit_depth: int | None = None,
    resize: str | None = None,
    proof: str = "here",
) -> Path:
    """Write a model to `directory/<version>/`, ready to serve, and check that it predicts the same.

    The SavedModel has four signatures, all in inference mode. `serving_default(image)` takes raw
    RGB pixels 0-255 `[batch, height, width, 3]` with the input size of the model.
    `serving_bytes(image_bytes)`
    takes encoded JPEG, PNG, BMP, GIF or opaque WebP files, string `[batch]`, which are decoded,
    rotated (EXIF) and resized as in training. Both return `probabilities` (float32
    `[batch, num_classes]`), `class_id` (int64 `[batch]`), `label` (string `[batch]`) and the five
    most probable classes as `top_k_probability`, `top_k_class_id` and `top_k_label`. `embed(image)`
    and `embed_bytes(image_bytes)` return `embedding`, the input of the head. The signatures for
    bytes also return `valid` (bool `[batch]`): a damaged or too large image has `valid` false,
    probabilities 0, class -1 and no label, and does not affect the other images.

    A multi-label model returns `probabilities`, `present` (bool: above the threshold) and `label`
    (the names of all labels), each `[batch, num_labels]`; a regression model returns `values` and
    `target`, each `[batch, num_targets]`.

    Each artifact is loaded, run and compared with the model; `parity.json` contains the
    differences, the images used, the versions, and the SHA-256 of each file. The version is written
    to a temporary folder and then renamed, so a reader never sees an incomplete or wrong version. A
    model with mixed precision is exported and compared in float32.

    Args:
        model: a model of `build_transfer_model`.
        directory: the folder of the versions; created if it does not exist.
        class_names: one name per class. Default: the names in the model.
        formats: any of `"saved_model"`; `"litert"`, `"litert_fp16"`, `"litert_dynamic"` (8-bit
            weights) and `"litert_int8"` (only integers), which take a batch of one; `"onnx"` and
            `"openvino"`. All except the first take only pixels.
        version: a new version number, from 1. Default: the next free number.
        parity_data: images for the comparison, of which up to 64 are used: a split (`data.test`;
            its labels are used to measure the accuracy of each artifact), pixels, a pair of pixels
            and labels, or paths. Default: eight generated images.
        representative_data: images, as for `parity_data`, for the integer ranges of
            `"litert_int8"`; use training images, such as `data.train`. Default: every second image
            of `parity_data`, which is then not used for the comparison.
        temperature: temperature of a calibration, above 0. The scores are divided by it. Default 1.
        image_dtype: type of the pixels, `"float32"` or `"uint8"`.
        max_bytes: maximum size of an encoded image. Default 16 MiB.
        max_pixels: maximum height times width of an encoded image. Default 89 million.
        bit_depth: for encoded images with more than 8 bits, as for `load_data`. Default: the value
            of the training images of `fine_tune`, or of `parity_data`.
        resize: how encoded images are resized, with the same default; otherwise `"crop"` for
            classification.
        proof: where the artifacts are run: `"here"`, or `"process"`, a new process that has only
            the files and takes 4 seconds to start.

    Returns:
        The path of the version.

    Raises:
        ArgumentError: an argument is invalid, the package of a format is missing, or the version
            exists already.
        ExportError: the version cannot be written, or an artifact does not predict the same as the
            model.

    Example:
        >>> kerastl.export_model(model, "serving/flowers", parity_data=data.test)
        PosixPath('serving/flowers/1')
    """
    task = task_of(model)
    names = checked_names(model, class_names)
    chosen = checked_formats(formats)
    if any(format_.name != "saved_model" for format_ in chosen):
        check_supports(task.name, "formats")
    if any(format_.tolerance >= 1 for format_ in chosen):
        check_supports(task.name, "integers")
    check_choice("image_dtype", image_dtype, ("float32", "uint8"))
    rules = rules_for(model, parity_data, bit_depth, resize)
    limits = Limits(
        check_int("max_bytes", max_bytes, 1), check_int("max_pixels", max_pixels, 1), rules
    )
    settings = words_of(model).get(SETTINGS)
    sample = take_sample(parity_data, image_size_of(model), rules)
    ranges = sample.images
    if any(format_.name == "litert_int8" for format_ in chosen):
        ranges, sample = _apart(representative_data, sample, rules)
    model = in_full_precision(model)
    network = served_network(model, temperature)
    target = version_path(Path(directory), version)
    with written_beside(target) as partial, proved_in(proof) as prove:
        for format_ in chosen:
            if format_.name == "saved_model":
                write_saved_model(
                    network, names, partial, image_dtype=image_dtype, limits=limits, task=task
                )
                write_warmup(partial, target.parent.name, sample.images.shape[1:], image_dtype)
            else:
                write_format(format_, network, partial, class_names=names, representative=ranges)
        (partial / LABELS).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        if settings:
            (partial / ANSWERS).write_text(settings, encoding="utf-8")
        whole = keras.Model(model.inputs, [network.outputs[0], model.outputs[0]])  # traced once
        embeddings, plain = predict(whole, sample.images)
        answers = apply_temperature(task.answers(plain), temperature)
        expected = dict.fromkeys(("saved_model", "serving_bytes", *BY_NAME), answers)
        if any(format_.name == "saved_model" for format_ in chosen):
            expected["embed"] = embeddings[:EMBEDDED]
        right = None if sample.labels is None else task.share_right(answers, sample.labels)
        certify(
            task,
            partial,
            prove,
            chosen,
            given={
                "images": sample.images,
                "content": np.frombuffer(b"".join(sample.files), np.uint8),
                "ends": np.cumsum([len(file) for file in sample.files]),
            },
            expected=expected,
            labels=sample.labels,
            facts={
                "sample": {
                    "images": len(sample.images),
                    "source": sample.source,
                    "labelled": sample.labels is not None,
                },
                "task": task.name,
                "temperature": temperature,
                "pixels": dataclasses.asdict(rules),
                "keras_accuracy": right,
            },
        )
    return target


def _apart(
    representative_data: Any, sample: Sample, rules: PixelRules = AS_ALWAYS
) -> tuple[np.ndarray, Sample]:
    """Return the images that ranges of integers come from, and others to measure on."""
    if representative_data is not None:
        return take_sample(representative_data, sample.images.shape[1:3], rules).images, sample
    if not sample.is_real or len(sample.images) < 2:
        raise ArgumentError(
            "The format 'litert_int8' needs real images for its integer ranges, and other "
            f"images for the check. Received {len(sample.images)} {sample.source}. Pass "
            "`representative_data=data.train` and `parity_data=data.test` (`--data`)."
        )
    return sample.images[::2], sample.every_other()


def rules_for(
    model: keras.Model, data: Any, bit_depth: int | None = None, resize: str | None = None
) -> PixelRules:
    """Return how images become pixels for an artifact: as given, or as the model or `data` know."""
    known = rules_of(model, data)
    channels = model.inputs[0].shape[-1]
    return PixelRules(bit_depth or known.bit_depth, resize or known.resize, channels)


def checked_names(model: keras.Model, class_names: Sequence[str] | None) -> list[str]:
    """Return a name for each class, given or those of the model.

    Raises:
        ArgumentError: there are none, or not one a class.
    """
    names = class_names if class_names is not None else class_names_of(model)
    num_classes = task_of(model).num_names(model.output_shape[-1])
    if names is None:
        raise ArgumentError(
            f"`class_names` must name the {num_classes} classes, which are stored in the "
            "export. Received none, and the model has none. Pass "
            "`class_names=data.class_names`."
        )
    if len(names) != num_classes:
        raise ArgumentError(
            f"`class_names` must name {num_classes} classes. Received {len(names)}: {list(names)!r}"
        )
    return [str(name) for name in names]
