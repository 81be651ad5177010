"""Backbones of KerasHub, built from configurations: small, with random weights, without network."""

import importlib.util
import json
import sys
import zipfile

import keras
import numpy as np
import pytest

from kerastl.backbones import hub
from kerastl.backbones.preprocessing import Preprocessing
from kerastl.backbones.stages import find_stages, split
from kerastl.backbones.weights import load_backbone, resolve_name
from kerastl.errors import ArgumentError, WeightsError
from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import batch_normalizations, freeze_to, inference_below, stages
from kerastl.model.recipes import Recipe, make_recipe
from kerastl.results.run_files import RunFiles, read_labelled_model
from kerastl.serving.export import export_model

keras_hub = pytest.importorskip("keras_hub", reason="needs the extra kerastl[hub]")
models = keras_hub.models
# Of KerasHub's Swin, whose attention calls its windows' offsets a mask.
pytestmark = pytest.mark.filterwarnings("ignore:Layer 'attn' .* was passed an input with a mask")

SHAPE = (32, 32, 3)
RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [3],
    "stackwise_num_filters": [64, 72, 80],
    "stackwise_num_blocks": [1, 2, 1],
    "stackwise_num_strides": [1, 2, 2],
    "image_shape": SHAPE,
}
TRANSFORMER = {
    "image_shape": SHAPE,
    "patch_size": 8,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
}
EFFICIENTNET = {
    "stackwise_kernel_sizes": [3, 3, 5],
    "stackwise_num_repeats": [1, 2, 2],
    "stackwise_input_filters": [8, 8, 16],
    "stackwise_output_filters": [8, 16, 24],
    "stackwise_expansion_ratios": [1, 4, 4],
    "stackwise_squeeze_and_excite_ratios": [0.25, 0.25, 0.25],
    "stackwise_strides": [1, 2, 2],
    "stackwise_block_types": ["v1", "v1", "v1"],
    "stackwise_width_coefficients": [1.0, 1.0, 1.0],
    "stackwise_depth_coefficients": [1.0, 1.0, 1.0],
    "stackwise_force_input_filters": [0, 0, 0],
    "stackwise_nores_option": [False, False, False],
    "num_features": 32,
    "input_shape": SHAPE,
}
MOBILENET = {
    "stackwise_expansion": [[16, 24], [24, 48]],
    "stackwise_num_blocks": [2, 2],
    "stackwise_num_filters": [[8, 8], [16, 16]],
    "stackwise_kernel_size": [[3, 3], [5, 5]],
    "stackwise_num_strides": [[2, 1], [2, 1]],
    "stackwise_se_ratio": [[None, None], [0.25, 0.25]],
    "stackwise_activation": [["relu", "relu"], ["hard_swish", "hard_swish"]],
    "stackwise_padding": [[1, 1], [2, 2]],
    "output_num_filters": 32,
    "input_num_filters": 8,
    "input_activation": "hard_swish",
    "output_activation": "hard_swish",
    "depthwise_filters": 8,
    "depthwise_stride": 2,
    "depthwise_residual": False,
    "squeeze_and_excite": 0.5,
    "last_layer_filter": 32,
    "image_shape": SHAPE,
}
MOBILENET_V5 = {
    "stackwise_block_types": [["er"], ["uir", "uir"]],
    "stackwise_num_blocks": [1, 2],
    "stackwise_num_filters": [[8], [16, 16]],
    "stackwise_strides": [[2], [2, 1]],
    "stackwise_act_layers": [["relu"], ["relu", "relu"]],
    "stackwise_exp_ratios": [[4.0], [6.0, 6.0]],
    "stackwise_se_ratios": [[0.0], [0.0, 0.0]],
    "stackwise_dw_kernel_sizes": [[0], [5, 5]],
    "stackwise_dw_start_kernel_sizes": [[0], [0, 0]],
    "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
    "stackwise_exp_kernel_sizes": [[3], [0, 0]],
    "stackwise_pw_kernel_sizes": [[1], [0, 0]],
    "stackwise_num_heads": [[0], [0, 0]],
    "stackwise_key_dims": [[0], [0, 0]],
    "stackwise_value_dims": [[0], [0, 0]],
    "stackwise_kv_strides": [[0], [0, 0]],
    "stackwise_use_cpe": [[False], [False, False]],
    "use_msfa": False,
    "image_shape": SHAPE,
}
CSPNET = {
    "stem_filters": 8,
    "stem_kernel_size": 3,
    "stem_strides": 1,
    "stackwise_depth": [1, 2, 1],
    "stackwise_strides": [1, 2, 2],
    "stackwise_num_filters": [8, 16, 24],
    "block_type": "dark_block",
    "stage_type": "dark",
    "image_shape": SHAPE,
}
MIT = {
    "layerwise_depths": [1, 1],
    "num_layers": 2,
    "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [2, 1],
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
    "hidden_dims": [8, 16],
    "max_drop_path_rate": 0.1,
    "image_shape": SHAPE,
}
HGNET = {
    "depths": [1, 1, 2],
    "embedding_size": 8,
    "hidden_sizes": [16, 24, 32],
    "stem_channels": [3, 8, 8],
    "hidden_act": "relu",
    "use_learnable_affine_block": False,
    "stackwise_stage_filters": [
        (8, 8, 16, 1, 1, 3),
        (16, 8, 24, 1, 1, 3),
        (24, 16, 32, 2, 1, 3),
    ],
    "apply_downsample": [False, True, True],
    "use_lightweight_conv_block": [False, False, False],
    "image_shape": SHAPE,
}

# Name, class, configuration, shape of the output, number of stages.
ARCHITECTURES = {
    "ResNet": (models.ResNetBackbone, {**RESNET, "block_type": "basic_block"}, (2, 2, 80), 4),
    "ResNetV2": (
        models.ResNetBackbone,
        {**RESNET, "block_type": "bottleneck_block", "use_pre_activation": True},
        (2, 2, 320),
        4,
    ),
    "ResNetVd": (
        models.ResNetBackbone,
        {
            **RESNET,
            "block_type": "bottleneck_block_vd",
            "input_conv_filters": [8, 8, 64],
            "input_conv_kernel_sizes": [3, 3, 3],
        },
        (2, 2, 320),
        4,
    ),
    "ViT": (models.ViTBackbone, {**TRANSFORMER, "mlp_dim": 32}, (16,), 3),
    # Its blocks return nothing beside their output, which Keras takes in no graph.
    "DeiT": (models.DeiTBackbone, {**TRANSFORMER, "intermediate_dim": 32}, (16,), 2),
    "DINOv2": (
        models.DINOV2Backbone,
        {
            **TRANSFORMER,
            "intermediate_dim": 32,
            "position_embedding_shape": (48, 48, 3),
            "num_register_tokens": 2,
        },
        (16,),
        3,
    ),
    # All blocks read the positions, so that three tensors are alive between them.
    "DINOv3": (models.DINOV3Backbone, {**TRANSFORMER, "intermediate_dim": 32}, (16,), 2),
    "EfficientNet": (models.EfficientNetBackbone, EFFICIENTNET, (4, 4, 32), 4),
    "MobileNet": (models.MobileNetBackbone, MOBILENET, (2, 2, 32), 5),
    "MobileNetV5": (models.MobileNetV5Backbone, MOBILENET_V5, (4, 4, 16), 3),
    "DenseNet": (
        models.DenseNetBackbone,
        {"stackwise_num_repeats": [2, 2, 2], "growth_rate": 8, "image_shape": SHAPE},
        (2, 2, 44),
        4,
    ),
    "CSPDarkNet": (models.CSPNetBackbone, CSPNET, (7, 7, 24), 5),
    "MiT": (models.MiTBackbone, MIT, (4, 4, 16), 3),
    "VGG": (
        models.VGGBackbone,
        {
            "stackwise_num_repeats": [1, 2, 2],
            "stackwise_num_filters": [8, 16, 24],
            "image_shape": SHAPE,
        },
        (4, 4, 24),
        4,
    ),
    "Xception": (
        models.XceptionBackbone,
        {
            "stackwise_conv_filters": [[8, 16], [16, 24], [24, 24]],
            "stackwise_pooling": [True, True, False],
            "image_shape": SHAPE,
        },
        (4, 4, 24),
        4,
    ),
    "Swin": (
        models.SwinTransformerBackbone,
        {
            "image_shape": SHAPE,
            "embed_dim": 8,
            "depths": (2,),
            "num_heads": (2,),
            "window_size": 4,
        },
        (64, 8),
        3,
    ),
    "HGNetV2": (models.HGNetV2Backbone, HGNET, (2, 2, 32), 6),
}
# One of each way in which a network is made ready: as it is, with its blocks laid open and a class
# token, with configurations that are mended. The others by `-m slow`, at some seconds each.
FIRST = ("ResNet", "ViT", "MobileNet")
EXPORTED = ("ResNet", "MobileNet", "Swin")


def each_architecture(first=FIRST, others=pytest.mark.slow):
    """Parametrize a test with the architectures, all but the first ones marked."""
    rows = [pytest.param(n, marks=() if n in first else others) for n in ARCHITECTURES]
    return pytest.mark.parametrize("name", rows)


def built(name, **changes):
    keras.utils.set_random_seed(1)
    kind, configuration, *_ = ARCHITECTURES[name]
    return kind(**configuration | changes)


def images(batch=2, size=32, low=0, high=255):
    return np.random.default_rng(0).uniform(low, high, (batch, size, size, 3)).astype("float32")


def own_output(name, backbone, pixels):
    """What KerasHub's backbone gives, and of it what is read out."""
    found = backbone(keras.tree.map_structure(lambda _: pixels, backbone.input))
    if isinstance(found, dict):
        found = found[backbone.stage_names[-1]]
    return np.asarray(found)[:, 0] if len(ARCHITECTURES[name][2]) == 1 else np.asarray(found)


@each_architecture()
def test_a_graph_of_the_blocks_gives_what_the_backbone_does(name, tmp_path):
    backbone, pixels = built(name), images(low=-1, high=1)
    expected = own_output(name, backbone, pixels)
    loaded = load_backbone(backbone)
    _, _, shape, num_stages = ARCHITECTURES[name]
    assert loaded.model.output.shape[1:] == shape
    assert (loaded.weights, loaded.image_size) == ("model", (32, 32))
    np.testing.assert_array_equal(loaded.model(pixels), expected)
    chain = find_stages(loaded.model)
    assert len(chain) == num_stages
    assert sum(stage.num_parameters for stage in chain) == loaded.model.count_params()
    for stage in chain:
        below, above = split(loaded.model, stage)
        np.testing.assert_array_equal(above(below(pixels)), expected, err_msg=stage.name)

    # A file holds it whole, and what was read from it can be saved again.
    for file in (tmp_path / "first.keras", tmp_path / "second.keras"):
        loaded.model.save(file)
        again = hub.mend_configurations(keras.saving.load_model(file))
        np.testing.assert_array_equal(again(pixels), expected)
        # Not the names: a constructor of MobileNet's lengthens that of its layer.
        counts = [stage.num_parameters for stage in find_stages(again)]
        assert counts == [stage.num_parameters for stage in chain]
        loaded = loaded.__class__(again, *list(vars(loaded).values())[1:])


# DINOv2 and DINOv3 have the token of their own training, which images without masks never reach.
@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables .*mask_token")
@each_architecture()
def test_it_trains_with_some_stages_open(name):
    model = build_transfer_model(built(name), 3)
    num_stages = len(stages(model))
    depth = num_stages // 2
    freeze_to(model, depth)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    frozen = {layer for stage in stages(model)[:depth] for layer in stage.layers}
    backbone = model.get_layer("backbone")
    held = [
        *[w for layer in backbone.layers if layer.name in frozen for w in layer.weights],
        *[w for layer in batch_normalizations(model) for w in layer.weights],
    ]
    before = [np.array(w) for w in held]
    open_before = [np.array(w) for w in backbone.trainable_weights]
    model.fit(images(8), np.arange(8) % 3, batch_size=4, epochs=1, shuffle=False, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, held, strict=True))
    if open_before:  # the head starts at zero: the first step alone leaves the backbone
        now = backbone.trainable_weights
        assert any(not np.array_equal(a, b) for a, b in zip(open_before, now, strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "ViT",
        *[pytest.param(name, marks=pytest.mark.slow) for name in EXPORTED],
        *[
            pytest.param(name, marks=pytest.mark.sweep)
            for name in ARCHITECTURES
            if name not in ("ViT", *EXPORTED)
        ],
    ],
)
def test_its_export_is_proved(name, tmp_path):
    model = build_transfer_model(built(name), 3)
    head = model.layers[-1]
    head.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in head.weights])
    path = export_model(model, tmp_path, class_names=["a", "b", "c"])
    rows = json.loads((path / "parity.json").read_text())["artifacts"]
    assert max(row["largest_difference"] for row in rows) < 1e-4


@pytest.mark.parametrize("name", ["MiT", pytest.param("Swin", marks=pytest.mark.slow)])
def test_stochastic_depth_of_frozen_stages_is_held_off(name):
    model = build_transfer_model(built(name), 3)
    head = model.layers[-1]
    head.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in head.weights])
    pixels = images(8)
    expected = np.asarray(model(pixels, training=False))
    assert np.abs(np.asarray(model(pixels, training=True)) - expected).max() > 0
    with inference_below(model, len(stages(model))):
        np.testing.assert_array_equal(model(pixels, training=True), expected)
    assert np.abs(np.asarray(model(pixels, training=True)) - expected).max() > 0


@pytest.fixture
def folder(tmp_path):
    """A preset on disk: a ResNet that takes any size, with its image converter."""
    keras.utils.set_random_seed(2)
    configuration = {**ARCHITECTURES["ResNet"][1], "image_shape": (None, None, 3)}
    backbone = models.ResNetBackbone(**configuration)
    backbone.save_to_preset(tmp_path / "preset")
    converter = keras_hub.layers.ResNetImageConverter(
        image_size=(40, 48), scale=[0.02, 0.03, 0.04], offset=[-1.0, -2.0, -3.0]
    )
    converter.save_to_preset(tmp_path / "preset")
    return tmp_path / "preset", backbone, converter


def test_a_preset_brings_its_weights_and_its_preprocessing(folder, tmp_path):
    path, backbone, converter = folder
    loaded = load_backbone(f"hub:{path}")
    assert (loaded.name, loaded.weights, loaded.image_size) == (
        f"hub:{path}", "imagenet", (40, 48),
    )  # fmt: skip
    assert loaded.model.input.shape == (None, 40, 48, 3)
    assert loaded.preprocessing == Preprocessing((0.02, 0.03, 0.04), (-1.0, -2.0, -3.0))

    model = build_transfer_model(f"hub:{path}", 3)
    pixels = np.random.default_rng(1).uniform(0, 255, (2, 40, 48, 3)).astype("float32")
    converted = np.asarray(converter(pixels))
    np.testing.assert_allclose(model.get_layer("preprocess")(pixels), converted, atol=1e-4)
    pooled = np.asarray(keras.Model(model.inputs[0], model.layers[-1].input)(pixels))
    expected = np.asarray(backbone(converted)).mean((1, 2))
    np.testing.assert_allclose(pooled, expected, rtol=1e-4, atol=1e-5)

    # As a run keeps it: read back, saved again, and read once more.
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    for _ in range(2):
        RunFiles(tmp_path).write_model(model)
        model, _ = read_labelled_model(tmp_path / "model.keras")
    again = keras.Model(model.inputs[0], model.layers[-1].input)
    np.testing.assert_allclose(again(pixels), expected, rtol=1e-4, atol=1e-5)


def test_the_architecture_alone_and_another_size(folder):
    path, backbone, _ = folder
    loaded = load_backbone(f"hub:{path}", weights="random", image_size=64)
    assert (loaded.weights, loaded.image_size) == ("random", (64, 64))
    assert loaded.model.count_params() == backbone.count_params()
    assert not np.allclose(loaded.model(images(size=64)), backbone(images(size=64)))
    recipe = make_recipe(
        "guide", num_stages=4, num_images=100, num_classes=3, backbone=f"hub:{path}"
    )
    recipe = Recipe.from_dict(recipe.to_dict())
    assert recipe.backbone == f"hub:{path}"
    resolve_name(recipe.backbone)


def test_a_transformer_of_another_size(tmp_path):
    for name, converter in (
        ("DINOv2", keras_hub.layers.DINOV2ImageConverter(scale=1 / 255)),
        ("ViT", keras_hub.layers.ViTImageConverter(scale=1 / 255)),
    ):
        built(name, num_layers=1).save_to_preset(tmp_path / name)
        converter.save_to_preset(tmp_path / name)
        assert load_backbone(f"hub:{tmp_path / name}").image_size == (32, 32)
    # DINOv2 interpolates the embeddings of the places; those of ViT are as many as its patches.
    loaded = load_backbone(f"hub:{tmp_path / 'DINOv2'}", image_size=48)
    assert loaded.model(images(size=48)).shape == (2, 16)
    with pytest.raises(WeightsError, match=r"has \(32, 32\) pixels.* Leave `image_size` out"):
        load_backbone(f"hub:{tmp_path / 'ViT'}", image_size=48)
    random = load_backbone(f"hub:{tmp_path / 'ViT'}", image_size=48, weights="random")
    assert random.model(images(size=48)).shape == (2, 16)


def test_handles_go_to_kerashub_as_they_are(monkeypatch):
    asked = []

    def backbone(handle, **arguments):
        asked.append((handle, arguments))
        return built("ResNet")

    monkeypatch.setattr(models.Backbone, "from_preset", backbone)
    monkeypatch.setattr(
        keras_hub.layers.ImageConverter,
        "from_preset",
        lambda handle: keras_hub.layers.ResNetImageConverter(scale=1 / 255),
    )
    handles = ("resnet_18_imagenet", "hf://timm/resnet18.a1_in1k", "kaggle://a/b/keras/c")
    for handle in handles:
        assert load_backbone(f"hub:{handle}").name == f"hub:{handle}"
    assert asked == [(handle, {"load_weights": True}) for handle in handles]


def test_kerashub_has_the_presets_and_the_converters_that_the_documentation_names():
    presets = keras_hub.layers.ImageConverter.presets
    for name in ("resnet_18_imagenet", "vit_base_patch16_224_imagenet", "dinov2_small"):
        assert name in presets
        resolve_name(f"hub:{name}")
    assert importlib.util.find_spec("keras_hub.src.utils.timm.convert_resnet")


@pytest.mark.parametrize(
    ("converter", "expected"),
    [
        ({}, Preprocessing()),
        ({"scale": 1 / 127.5, "offset": -1.0}, Preprocessing(1 / 127.5, -1.0)),
        (
            {"scale": 1 / 255, "offset": [-0.5, -0.4, -0.3]},
            Preprocessing(1 / 255, (-0.5, -0.4, -0.3)),
        ),
        (
            {"scale": 1 / 255, "mean": [0.5, 0.4, 0.2], "variance": [0.25, 0.04, 0.16]},
            Preprocessing((2 / 255, 5 / 255, 2.5 / 255), (-1.0, -2.0, -0.5)),
        ),
    ],
)
def test_preprocessing_is_that_of_the_converter(converter, expected):
    layer = keras_hub.layers.ImageConverter(**converter)
    found = hub.preprocessing_of_converter(layer)
    np.testing.assert_allclose(found.scale, expected.scale)
    np.testing.assert_allclose(found.offset, expected.offset)
    pixels = images()
    ours = pixels * np.asarray(found.scale) + np.asarray(found.offset)
    np.testing.assert_allclose(ours, layer(pixels), rtol=1e-5, atol=1e-5)


class Reversing(keras_hub.layers.ImageConverter):
    def call(self, inputs):
        return super().call(inputs)[..., ::-1]


def test_a_converter_that_does_more_is_refused():
    with pytest.raises(ArgumentError, match="Reversing of the preset does more than scale"):
        hub.preprocessing_of_converter(Reversing())


def test_handles_that_cannot_be_meant(tmp_path, folder):
    for backbone, message in (
        ("hub:resnet_18_imagenot", "Did you mean 'resnet_18_imagenet'"),
        ("hub:", "Received: backbone='hub:'"),
        (f"hub:{tmp_path / 'absent'}", "with its config.json"),
        ("hub:bert_base_en", "a preset of KerasHub for images"),
    ):
        with pytest.raises(ArgumentError, match=message):
            resolve_name(backbone)
    path = folder[0]
    with pytest.raises(ArgumentError, match="'random'. Received: weights='embedded'"):
        load_backbone(f"hub:{path}", weights="embedded")
    with pytest.raises(ArgumentError, match="an int of at least 1. Received: image_size=0"):
        load_backbone(f"hub:{path}", image_size=0)
    (path / "image_converter.json").unlink()
    with pytest.raises(ArgumentError, match=r"has no image_converter.json"):
        load_backbone(f"hub:{path}")


def test_a_preset_that_cannot_be_had_says_the_ways_out(monkeypatch, folder):
    def fail(*args, **kwargs):
        raise ConnectionError("no network\nat all")

    path = folder[0]
    (path / "model.weights.h5").write_bytes(b"\x89HDF half a download")
    with pytest.raises(WeightsError, match=r"failed to load: .*KAGGLEHUB_CACHE"):
        load_backbone(f"hub:{path}")
    monkeypatch.setattr(keras_hub.layers.ImageConverter, "from_preset", fail)
    with pytest.raises(WeightsError, match=r"'resnet_18_imagenet' .*ConnectionError: no network\."):
        load_backbone("hub:resnet_18_imagenet")


def test_a_network_of_text_is_refused():
    text = models.BertBackbone(
        vocabulary_size=10, num_layers=1, num_heads=1, hidden_dim=4, intermediate_dim=4
    )
    with pytest.raises(ArgumentError, match="one input of images.*BertBackbone of KerasHub"):
        load_backbone(text)


def test_without_kerashub_the_extra_is_named(monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "keras_hub" else found(name)
    )
    with pytest.raises(ArgumentError, match=r"keras_hub.*pip install 'kerastl\[hub\]'"):
        load_backbone("hub:resnet_18_imagenet")

    def fail(*args, **kwargs):
        raise TypeError("Could not deserialize class 'X': its parent module keras_hub.src.x")

    (tmp_path / "labels.txt").write_text("a\nb\n")
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    monkeypatch.setattr(keras.saving, "load_model", fail)
    with pytest.raises(WeightsError, match=r"pip install 'kerastl\[hub\]'"):
        read_labelled_model(tmp_path / "model.keras")


def test_kerashub_is_not_imported_without_need():
    assert "keras_hub" not in vars(hub)
    assert sys.modules["keras_hub"] is keras_hub
