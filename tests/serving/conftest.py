"""A tiny model, exported once in every format, and a real one beside it."""

import importlib.util
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.conftest import once_for_all_workers

NAMES = ["ant", "bee", "ä wasp"]


class Exported(NamedTuple):
    """A version on disk, and what the Keras model says."""

    path: Path
    formats: list[str]
    images: np.ndarray
    """uint8 `(12, side, side, 3)`."""
    files: list[bytes]
    """The images as PNG."""
    expected: np.ndarray
    """Probabilities of the Keras model."""
    model: Any

    @property
    def size(self):
        return self.images.shape[1:3]

    @property
    def model_file(self):
        """The Keras model as it was exported."""
        return self.path.parents[1] / "model.keras"


def telling_head(model, images, seed=0):
    """Give a model a random head whose answers to the images differ."""
    import keras

    head = model.layers[-1]
    embedding = keras.Model(model.inputs, head.input).predict_on_batch(images)
    kernel = np.random.default_rng(seed).normal(size=head.kernel.shape)
    kernel *= 2 / (embedding @ kernel).std(0)
    head.set_weights([kernel, -(embedding.mean(0) @ kernel)])
    return model


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def coarse_images(side, count=12):
    """Coloured patterns on which the model's answers differ."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (count, 4, 4, 3)).astype("uint8")
    return np.stack([np.asarray(Image.fromarray(c).resize((side, side))) for c in coarse])


def exported_once(tmp_path_factory, name, build, side):
    """Export the model that `build()` makes in every format that can be had here."""
    import keras

    from kerastl.serving.export import export_model
    from kerastl.serving.formats import FORMATS

    images = coarse_images(side)
    formats = [
        format_.name
        for format_ in FORMATS
        if all(importlib.util.find_spec(package) for package in format_.packages)
    ]

    def make(folder):
        folder.mkdir()
        keras.utils.set_random_seed(0)
        model = telling_head(build(), images)
        model.save(folder / "model.keras")
        export_model(
            model,
            folder / "insects",
            class_names=NAMES,
            formats=formats,
            parity_data=(images, model.predict_on_batch(images).argmax(1)),
            representative_data=images[:, :, ::-1],
        )

    path = once_for_all_workers(tmp_path_factory, name, make) / "insects" / "1"
    model = keras.saving.load_model(path.parents[1] / "model.keras")
    expected = model.predict_on_batch(images)
    assert expected.std(0).min() > 0.1
    assert set(expected.argmax(1)) == {0, 1, 2}
    return Exported(path, formats, images, [encoded(i) for i in images], expected, model)


@pytest.fixture(scope="session")
def exported(tiny_backbone, tmp_path_factory) -> Exported:
    from kerastl.model.build import build_transfer_model

    return exported_once(
        tmp_path_factory, "exported", lambda: build_transfer_model(tiny_backbone(), 3), 32
    )


@pytest.fixture(scope="session")
def real_exported(tmp_path_factory) -> Exported:
    """Of the embedded network: for tests that are slow."""
    from kerastl.model.build import build_transfer_model

    def build():
        return build_transfer_model("MobileNetV2(alpha=0.35)", 3, weights="embedded")

    return exported_once(tmp_path_factory, "real_exported", build, 64)


@pytest.fixture(
    scope="session", params=["exported", pytest.param("real_exported", marks=pytest.mark.slow)]
)
def each_exported(request) -> Exported:
    """The tiny model, and in slow tests the real one."""
    return request.getfixturevalue(request.param)
