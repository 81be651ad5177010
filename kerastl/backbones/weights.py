"""Loads a backbone by its name, with its weights."""

import contextlib
import dataclasses
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastl._checks import did_you_mean
from kerastl._hashing import sha256_of_bytes
from kerastl.backbones import hub
from kerastl.backbones.alexnet import alexnet
from kerastl.backbones.given_models import load_given, load_saved
from kerastl.backbones.loaded import LoadedBackbone
from kerastl.backbones.preprocessing import (
    IMAGENET_MEAN,
    efficientnet_file_preprocessing,
    preprocessing_of,
)
from kerastl.backbones.saved_model_backbone import is_saved_model, saved_file
from kerastl.backbones.table import EFFICIENTNET, OWN, BackboneSpec, is_hub, parse_backbone
from kerastl.backbones.weight_files import load_file
from kerastl.data.split import both_sides
from kerastl.errors import ArgumentError, WeightsError

WEIGHTS_DIR = "KERASTL_WEIGHTS_DIR"
SOURCES = ("imagenet", "embedded", "random")
EMBEDDED_SPEC = "MobileNetV2(alpha=0.35)"
EMBEDDED_SIZE = 64
_KERAS_MISMATCH = "Incomplete or corrupted file detected"  # what Keras' check of its hash says
# Of the file that comes with kerastl; tools/train_embedded_backbone.py writes another one.
EMBEDDED_SHA256 = "c0a607494d82292da88de2d9109e4aceef167a9bb98d1a8183a32567222ee4ec"


def load_backbone(
    backbone: str | keras.Model,
    *,
    weights: str | os.PathLike[str] = "imagenet",
    image_size: int | tuple[int, int] | None = None,
    include_top: bool = False,
) -> LoadedBackbone:
    """Return a backbone with its weights; random weights only if requested.

    Args:
        backbone: One of
            - a name of `keras.applications`, as in `"MobileNetV2(alpha=0.35)"`, or `"AlexNet"`;
            - `"hub:"` and a preset of KerasHub (see `hub.check_handle`);
            - the directory of an earlier run, or a `.keras` file;
            - a Functional model with one image input and one output of rank 2 to 4, which must
              take raw pixels of 0-255 or bring its own preprocessing; so must a backbone of
              KerasHub, which is made a graph of its blocks (`hub.as_graph`).
            A model is taken with the weights it has, and without its classifier; one of
            `build_transfer_model` is copied, with its preprocessing.
        weights: `"imagenet"`: a file of Keras' published name in the folder that
            `KERASTL_WEIGHTS_DIR` names (MobileNet and MobileNetV2 have a file for each size; that
            of 224 pixels serves where it alone is there), else Keras' own cache and download.
            `"embedded"`: the small network that comes with kerastl, for
            `"MobileNetV2(alpha=0.35)"`. `"random"`.
            Else the path of a `.h5` or `.weights.h5` file. EfficientNet whose Normalization has the
            mean of ImageNet is taken as trained on it (see
            `preprocessing.efficientnet_file_preprocessing`). Of a preset of KerasHub
            `"imagenet"`, its own whatever they were trained on, or `"random"`.
        image_size: Side, or (height, width), in pixels. Defaults to the size that the network was
            trained at (64 for `"embedded"`).
        include_top: Whether a name stands for the whole classifier of 1,000 classes, as for the
            layers `fc1` and `fc2` of VGG16. Its published file is another one, and where dense
            layers read all places it fits the native size alone. Nothing for a Functional model.

    Returns:
        A `LoadedBackbone`.

    Raises:
        ArgumentError: When an argument cannot be meant.
        WeightsError: When the weights are missing and downloading fails, or they do not fit.
    """
    if isinstance(backbone, keras.Model):
        return load_given(backbone, weights, image_size)
    if isinstance(backbone, str) and is_saved_model(backbone):
        return load_saved(backbone, weights, image_size)
    if not isinstance(backbone, str):
        raise ArgumentError(
            "`backbone` must be a name of keras.applications or a Functional keras.Model. "
            f"Received: {backbone!r} of type {type(backbone).__name__}"
        )
    if is_hub(backbone):
        return hub.load_preset(backbone, os.fspath(weights), image_size)
    spec, source = parse_backbone(backbone), os.fspath(weights)
    if source == "embedded":
        if include_top:
            raise ArgumentError(
                "The embedded weights do not include the top. Received: include_top=True with "
                "weights='embedded'. Use other `weights`, or a layer below the top."
            )
        return _embedded(spec, sides_of(spec, image_size or EMBEDDED_SIZE))
    size = sides_of(spec, image_size)
    if source == "imagenet":
        return _imagenet(spec, size, include_top)
    if source == "random":
        network = build_network(spec, size, include_top=include_top)
        return _loaded(spec, network, size, source)
    return _from_file(spec, size, Path(source), include_top=include_top)


def embedded_file() -> Traversable:
    """Return the file of kerastl's own weights."""
    return resources.files("kerastl.backbones") / "embedded" / "weights.npz"


def sides_of(spec: BackboneSpec, image_size: int | tuple[int, int] | None) -> tuple[int, int]:
    """Return the requested (height, width), or the backbone's native size."""
    record = spec.record
    advice = f"It is the side in pixels; {spec} was trained at {record.image_size}."
    wanted = record.image_size if image_size is None else image_size
    return both_sides(wanted, record.minimum_size, advice)


def build_network(
    spec: BackboneSpec,
    size: tuple[int, int],
    weights: str | None = None,
    *,
    include_top: bool = False,
) -> keras.Model:
    """Return the network that a builder of `keras.applications` makes for (height, width)."""
    if keras.config.image_data_format() != "channels_last":
        raise ArgumentError(
            "kerastl needs Keras' image data format 'channels_last'. Received: "
            f"{keras.config.image_data_format()!r}. Call "
            "`keras.config.set_image_data_format('channels_last')` first."
        )
    if spec.record in OWN:
        return alexnet(include_top, input_shape=(*size, 3))
    builder = getattr(keras.applications, spec.record.name)
    with warnings.catch_warnings():
        # Other sizes than the published take the file of 224 pixels, as is meant here.
        warnings.filterwarnings("ignore", message=".*`input_shape` is undefined or non-square")
        return builder(
            include_top=include_top, weights=weights, input_shape=(*size, 3), **dict(spec.arguments)
        )


def _loaded(
    spec: BackboneSpec, model: keras.Model, size: tuple[int, int], source: str
) -> LoadedBackbone:
    return LoadedBackbone(model, str(spec), preprocessing_of(spec.record.mode), size, source)


def _imagenet(spec: BackboneSpec, size: tuple[int, int], include_top: bool) -> LoadedBackbone:
    if not spec.record.weights_file:
        raise WeightsError(
            f"Keras has no ImageNet weights for {spec}. Use `weights='random'`, or pass a file "
            "with `weights='path/to/file.weights.h5'`."
        )
    file = spec.weights_file(size, include_top=include_top)
    folder = os.environ.get(WEIGHTS_DIR)
    if folder and (path := in_folder(spec, size, Path(folder), include_top=include_top)):
        return _from_file(spec, size, path, source="imagenet", include_top=include_top)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras prints the progress of downloads
            model = build_network(spec, size, weights="imagenet", include_top=include_top)
    except ArgumentError:
        raise
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise WeightsError(_missing_weights_message(spec, error, file)) from error
    return _loaded(spec, model, size, "imagenet")


def _missing_weights_message(spec: BackboneSpec, error: Exception, file: str) -> str:
    caches = list(in_keras_cache(file))
    ways_out = (
        "pass a file with `weights='path/to/file.h5'`, or use `weights='embedded'` (with "
        f"{EMBEDDED_SPEC!r}) or `weights='random'`."
    )
    if _KERAS_MISMATCH in str(error):
        return (
            f"ImageNet weights of {spec} failed to load: {file!r} was downloaded to "
            f"{str(caches[0].parent)!r}, but the file is incomplete or changed. Keras says: "
            f"{error} Try again to download it, copy the file there yourself, {ways_out}"
        )
    cached = next((path for path in caches if path.is_file()), None)
    if cached is not None:
        return (
            f"ImageNet weights of {spec} failed to load: {str(cached)!r} exists, but cannot be "
            f"read ({error}). The download may be incomplete. Remove the file, so that it is "
            f"downloaded again, {ways_out}"
        )
    if isinstance(error, ValueError):
        return (
            f"No ImageNet weights fit {spec}. Keras says: {error} Choose other arguments, pass a "
            "file with `weights='path/to/file.h5'`, or use `weights='random'`."
        )
    folder = os.environ.get(WEIGHTS_DIR)
    looked = f"{folder!r} ({WEIGHTS_DIR})" if folder else f"{WEIGHTS_DIR} (not set)"
    return (
        f"ImageNet weights of {spec} failed to load: no file {file!r} in {looked}, none in Keras' "
        f"cache {str(caches[0].parent)!r}, and the download failed ({error}).\n"
        f"Put the file into one of these folders, {ways_out}"
    )


def in_folder(
    spec: BackboneSpec, size: tuple[int, int], folder: Path, *, include_top: bool = False
) -> Path | None:
    """The file for that size, else the one for the native size, which fits every size."""
    native = (spec.record.image_size, spec.record.image_size)
    files = [folder / spec.weights_file(side, include_top=include_top) for side in (size, native)]
    return next((path for path in files if path.is_file()), None)


def in_keras_cache(file: str) -> Iterator[Path]:
    """Where Keras keeps the file, and where it does when that folder cannot be written."""
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    yield Path(home).expanduser() / "models" / file
    yield Path(tempfile.gettempdir()) / ".keras" / "models" / file


def _from_file(
    spec: BackboneSpec,
    size: tuple[int, int],
    path: Path,
    source: str | None = None,
    *,
    include_top: bool = False,
) -> LoadedBackbone:
    if not path.is_file() and not path.suffix:
        raise ArgumentError(
            f"`weights` must be 'imagenet', 'embedded', 'random' or the path of a file. Received: "
            f"weights={str(path)!r}.{did_you_mean(str(path), SOURCES)}"
        )
    model = build_network(spec, size, include_top=include_top)
    arguments = "/".join(name for name, _ in spec.record.arguments)
    hint = (
        f"Does the file have another {arguments} than {spec}?"
        if arguments
        else f"Is it a file of {spec}?"
    )
    if include_top:
        hint += f" The file must include the top, for images of {spec.record.image_size} pixels."
    load_file(model, path, hint)
    loaded = _loaded(spec, model, size, source or str(path))
    if spec.record.paper != EFFICIENTNET:
        return loaded
    layer = next(x for x in model.layers if isinstance(x, keras.layers.Normalization))
    mean = [float(m) for m in np.ravel(layer.mean)]
    if not np.allclose(mean, IMAGENET_MEAN, atol=1e-3):  # that of another pretraining, or of none
        return loaded
    return dataclasses.replace(loaded, preprocessing=efficientnet_file_preprocessing(mean))


def _embedded(spec: BackboneSpec, size: tuple[int, int]) -> LoadedBackbone:
    if str(spec) != EMBEDDED_SPEC:
        raise ArgumentError(
            f"The embedded weights fit only {EMBEDDED_SPEC!r}. Received: "
            f"backbone={str(spec)!r}. Use backbone={EMBEDDED_SPEC!r}, or other `weights`."
        )
    file = embedded_file()
    if not file.is_file():
        raise WeightsError(
            f"kerastl's own weights are missing: no file {str(file)!r}. Install kerastl again."
        )
    digest = sha256_of_bytes(file.read_bytes())
    if digest != EMBEDDED_SHA256:
        raise WeightsError(
            f"kerastl's own weights are damaged: the SHA-256 of {str(file)!r} is {digest}, not "
            f"{EMBEDDED_SHA256}. Install kerastl again."
        )
    model = build_network(spec, size)
    with file.open("rb") as stream:
        _assign(model, stream)
    return _loaded(spec, model, size, "embedded")


def _assign(model: keras.Model, stream: Any) -> None:
    """Set the weights from an npz of `"000:path/of/variable"` in the order of `model.weights`."""
    with np.load(stream, allow_pickle=False) as archive:
        keys = sorted(archive.files, key=lambda key: int(key.split(":")[0]))
        values = [archive[key].astype("float32") for key in keys]
    wrong = (
        f"{key!r} has shape {value.shape}, {variable.path!r} has {tuple(variable.shape)}"
        for key, value, variable in zip(keys, values, model.weights, strict=False)
        if value.shape != tuple(variable.shape)
    )
    count = f"{len(keys)} arrays for {len(model.weights)} variables"
    if problem := count if len(keys) != len(model.weights) else next(wrong, None):
        raise WeightsError(f"kerastl's own weights are damaged: {problem}. Install kerastl again.")
    model.set_weights(values)


def resolve_name(backbone: str) -> BackboneSpec | None:
    """Return what is known of a backbone that is named, or None of another zoo's or an earlier one.

    Nothing is loaded or downloaded.

    Raises:
        ArgumentError: It is no name of `keras.applications` or of a preset of KerasHub.
        WeightsError: It is a path, and there is no model.
    """
    if is_saved_model(backbone):
        saved_file(backbone)
        return None
    if is_hub(backbone):
        hub.check_handle(backbone)
        return None
    return parse_backbone(backbone)
