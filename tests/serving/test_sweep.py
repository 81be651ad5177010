"""Every builder of `keras.applications` through the export and its proof; `-m sweep`."""

import importlib.util
import json

import keras
import numpy as np
import pytest

from kerastl.backbones.table import BACKBONES
from kerastl.model.build import build_transfer_model
from kerastl.serving.export import export_model
from kerastl.serving.sample import take_sample

pytestmark = pytest.mark.sweep

FAMILIES = (
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "NASNetMobile",
    "ResNet50",
    "VGG16",
    "Xception",
)
"""The first of each family, exported to LiteRT and ONNX too."""


@pytest.fixture
def model(request):
    """A network of random weights at its smallest input, whose head tells the sample apart."""
    keras.backend.clear_session()
    backbone = request.param
    keras.utils.set_random_seed(0)
    model = build_transfer_model(
        backbone.name, 3, weights="random", image_size=backbone.minimum_size
    )
    images = take_sample(None, (backbone.minimum_size,) * 2).images
    embedding = np.asarray(
        keras.Model(model.inputs, model.layers[-1].input).predict_on_batch(images)
    )
    scale = embedding.std(0).mean() or 1.0
    kernel = np.random.default_rng(0).normal(size=(embedding.shape[1], 3))
    kernel /= scale * np.sqrt(embedding.shape[1])
    model.layers[-1].set_weights([kernel, -(embedding.mean(0) @ kernel)])
    return model


@pytest.mark.parametrize(
    "model", [pytest.param(backbone, id=backbone.name) for backbone in BACKBONES], indirect=True
)
def test_every_builder_is_proved(model, request, tmp_path):
    name = request.node.callspec.id
    formats = ["saved_model"]
    if name in FAMILIES:
        assert importlib.util.find_spec("onnx")
        assert importlib.util.find_spec("tf2onnx")
        formats += ["litert", "onnx"]
    path = export_model(model, tmp_path, class_names=["a", "b", "c"], formats=formats)
    rows = json.loads((path / "parity.json").read_text())["artifacts"]
    assert {row["artifact"] for row in rows} == {*formats, "serving_bytes", "embed"}
    largest = {row["artifact"]: row["largest_difference"] for row in rows}
    print(name, {key: f"{value:.1e}" for key, value in largest.items()})  # noqa: T201


def test_there_are_forty():
    assert len(BACKBONES) == 40
    assert {backbone.name for backbone in BACKBONES} >= set(FAMILIES)
