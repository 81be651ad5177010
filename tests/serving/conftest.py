"""One small model, exported once in every format, for all tests of the room."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

NAMES = ["ant", "bee", "ä wasp"]
EXTRAS = {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "openvino": ("openvino",)}


class Exported(NamedTuple):
    """A version on disk, and what the Keras model says."""

    path: Path
    formats: list[str]
    images: np.ndarray
    """uint8 `(n, 64, 64, 3)`."""
    files: list[bytes]
    """The images as PNG."""
    expected: np.ndarray
    """Probabilities of the Keras model."""
    model: Any


def random_head(model, seed=0):
    """Give a model a head that tells images apart."""
    head, rng = model.layers[-1], np.random.default_rng(seed)
    head.set_weights([rng.normal(size=weight.shape) for weight in head.get_weights()])
    return model


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def coarse_images(count=12, side=64):
    """Coloured patterns on which the model's answers differ."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (count, 4, 4, 3)).astype("uint8")
    return np.stack([np.asarray(Image.fromarray(c).resize((side, side))) for c in coarse])


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    import importlib.util

    from kerastl.model.build import build_transfer_model
    from kerastl.serving.export import export_model
    from kerastl.serving.formats import FORMATS

    model = random_head(build_transfer_model("MobileNetV2(alpha=0.35)", 3, weights="embedded"))
    images = coarse_images()
    expected = model.predict_on_batch(images)
    formats = [
        format_.name
        for format_ in FORMATS
        if all(importlib.util.find_spec(package) for package in format_.packages)
    ]
    path = export_model(
        model,
        tmp_path_factory.mktemp("serving") / "insects",
        class_names=NAMES,
        formats=formats,
        parity_data=(images, expected.argmax(1)),
    )
    return Exported(path, formats, images, [encoded(i) for i in images], expected, model)
