import sys

import keras
import numpy as np
import pytest
from keras import layers

from kerastl.backbones.graph import live_after
from kerastl.backbones.grouping import CutCost, group_cuts
from kerastl.backbones.stages import find_cuts, find_stages, split
from kerastl.backbones.table import BACKBONES
from kerastl.errors import ArgumentError, KerastlError

# Places where one tensor alone is alive: the output counts, the input does not.
NUM_CUTS = {
    "MobileNetV2": 73,
    "ResNet50": 38,
    "EfficientNetB0": 82,
    "EfficientNetV2B0": 63,
    "DenseNet121": 78,
    "Xception": 24,
    "InceptionV3": 28,
    "ConvNeXtTiny": 24,
    "VGG16": 18,
    "MobileNetV3Small": 58,
    "NASNetMobile": 4,
}
STAGE_ENDS = {
    "ResNet50": (
        "pool1_pool",
        "conv2_block3_out",
        "conv3_block4_out",
        "conv4_block6_out",
        "conv5_block3_out",
    ),
    "MobileNetV2": (
        "expanded_conv_project_BN",
        "block_2_add",
        "block_5_add",
        "block_12_add",
        "block_15_add",
        "block_16_project_BN",
        "out_relu",
    ),
    "VGG16": ("block1_pool", "block2_pool", "block3_pool", "block4_pool", "block5_pool"),
    "EfficientNetB0": (
        "block1a_project_bn",
        "block2b_add",
        "block3b_add",
        "block5c_add",
        "block6d_add",
        "block7a_project_bn",
        "top_activation",
    ),
    "DenseNet169": ("pool1", "pool2_pool", "pool3_pool", "pool4_pool", "relu"),
}
# Those whose ends or cuts are written here and that are quick to build; the others are slow.
QUICK = ("MobileNetV2", "MobileNetV3Small", "ResNet50", "VGG16", "EfficientNetB0", "ConvNeXtTiny")
SPLIT_AT = {
    "MobileNetV2": 64,
    "MobileNetV3Small": 64,
    "ResNet50": 64,
    "DenseNet121": 64,
    "EfficientNetB0": 64,
    "ConvNeXtTiny": 64,
    "NASNetMobile": 64,
    "InceptionV3": 96,
    "VGG16": 32,
}


@pytest.fixture
def build():
    """Build a network without ever making its weights: the largest in under a second."""

    def build(name, size=224):
        with keras.StatelessScope(initialize_variables=False):
            return getattr(keras.applications, name)(
                include_top=False, weights=None, input_shape=(size, size, 3)
            )

    yield build
    keras.utils.clear_session()


def pixels(size, batch=2):
    return np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype("float32")


def residual_net(size=16):
    """Three levels, a residual block in each."""
    x = inputs = keras.Input((size, size, 3))
    for level in range(3):
        x = layers.Conv2D(8, 3, 2, "same", name=f"down{level}")(x)
        y = layers.Conv2D(8, 3, padding="same", name=f"conv{level}")(x)
        y = layers.BatchNormalization(name=f"bn{level}")(y)
        x = layers.Add(name=f"add{level}")([x, y])
    return keras.Model(inputs, x, name="residual_net")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(record.name, marks=() if record.name in QUICK else pytest.mark.slow)
        for record in BACKBONES
    ],
)
def test_every_backbone_has_stages(name, build):
    model = build(name)
    stages = find_stages(model)
    cuts = find_cuts(model)
    assert 4 <= len(stages) <= 12
    assert [stage.index for stage in stages] == list(range(len(stages)))
    assert sum(stage.num_parameters for stage in stages) == model.count_params()
    assert sum(stage.macs_share for stage in stages) == pytest.approx(1)
    assert max(stage.macs_share for stage in stages) <= 0.4
    held = [layer for stage in stages for layer in stage.layers]
    assert sorted(held) == sorted(layer.name for layer in model.layers)
    assert stages[-1].output_shapes == (model.output.shape[1:],)
    # A residual block has two tensors alive inside: stages end where one is.
    singles = {cut.name for cut in cuts}
    assert name.startswith("NASNet") or all(stage.name in singles for stage in stages)
    assert len(cuts) == NUM_CUTS.get(name, len(cuts))
    assert tuple(stage.name for stage in stages) == STAGE_ENDS.get(
        name, tuple(stage.name for stage in stages)
    )


def test_multiply_adds_are_the_published(build):
    assert sum(s.macs for s in find_stages(build("MobileNetV2"))) == pytest.approx(300e6, rel=0.02)
    assert sum(s.macs for s in find_stages(build("ResNet50"))) == pytest.approx(3.9e9, rel=0.02)
    assert sum(s.macs for s in find_stages(build("VGG16"))) == pytest.approx(15.3e9, rel=0.02)


@pytest.mark.slow
def test_nasnet_is_cut_between_pairs(build):
    stages = find_stages(build("NASNetMobile"))
    assert [len(stage.output_shapes) for stage in stages][-2:] == [2, 1]


def test_an_unknown_size_counts_as_224(build):
    with keras.StatelessScope(initialize_variables=False):
        unknown = keras.applications.MobileNetV2(include_top=False, weights=None)
    assert unknown.input.shape[1] is None
    ours = [(s.name, s.macs, s.bytes_per_image) for s in find_stages(unknown)]
    assert ours == [(s.name, s.macs, s.bytes_per_image) for s in find_stages(build("MobileNetV2"))]


def test_a_stage_tells_its_costs():
    stages = find_stages(residual_net())
    first = stages[0]
    assert (first.name, first.layers[1:]) == ("add0", ("down0", "conv0", "bn0", "add0"))
    assert first.output_shapes == ((8, 8, 8),)
    assert first.bytes_per_image == 2 * 8**3
    assert first.macs == 64 * (27 * 8 + 72 * 8)
    assert first.num_parameters == (27 * 8 + 8) + (72 * 8 + 8) + 4 * 8


def test_a_nested_model_counts_as_one_layer():
    inner = residual_net()
    inputs = keras.Input((16, 16, 3))
    outer = keras.Model(inputs, layers.ReLU(name="relu")(inner(inputs)))
    cuts = find_cuts(outer)
    assert [cut.name for cut in cuts] == ["residual_net", "relu"]
    assert cuts[0].macs == find_cuts(inner)[-1].macs


def test_a_nested_model_of_any_size_is_counted_at_the_size_it_gets():
    inner = residual_net(None)
    inputs = keras.Input((16, 16, 3))
    cuts = find_cuts(keras.Model(inputs, inner(inputs)))
    assert cuts[0].macs == find_cuts(residual_net(16))[-1].macs


def test_tokens_are_cut_into_equal_parts():
    x = inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 8, 8)(x)
    x = layers.Reshape((16, 8))(x)
    for block in range(8):
        y = layers.Dense(8)(layers.Dense(32)(x))
        x = layers.Add(name=f"block{block}")([x, y])
    stages = find_stages(keras.Model(inputs, x))
    assert len(stages) >= 3
    assert max(stage.macs_share for stage in stages) <= 0.5


def test_a_layer_in_two_stages_is_named():
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    x = inputs = keras.Input((16, 16, 3))
    for _ in range(3):
        x = layers.MaxPooling2D(2)(layers.ReLU()(shared(x)))
    with pytest.raises(KerastlError, match=r"Layer 'shared' of .* belongs to stages \[0, 1"):
        find_stages(keras.Model(inputs, x))


def assert_halves_compose(model, size):
    x = pixels(size)
    whole = model(x).numpy()
    assert np.ptp(whole) > 0
    for stage in find_stages(model):
        prefix, suffix = split(model, stage)
        np.testing.assert_array_equal(suffix(prefix(x)).numpy(), whole)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param(
            *row, marks=() if row[0] in ("MobileNetV3Small", "VGG16") else pytest.mark.slow
        )
        for row in SPLIT_AT.items()
    ],
)
def test_prefix_and_suffix_compose_exactly(name, size):
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(size, size, 3)
    )
    assert_halves_compose(model, size)
    keras.utils.clear_session()


def concatenating(x, level):
    """A block and a transition of DenseNet."""
    for step in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Concatenate(name=f"join{level}{step}")([x, layers.Conv2D(4, 3, 1, "same")(y)])
    return layers.AveragePooling2D(2)(layers.Conv2D(8, 1)(x))


def pre_activated(x, level):
    """A block of ResNetV2, whose activation comes first, as its stride does not."""
    y = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(8, 3, 2, "same", use_bias=False)(y)
    return layers.Add(name=f"sum{level}")([layers.MaxPooling2D(1, 2)(x), y])


def squeezing(x, level):
    """An inverted residual of EfficientNet, with squeeze and excitation."""
    x = layers.Conv2D(8, 1, 2)(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation="swish")(layers.Conv2D(16, 1)(x))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    y = layers.Multiply()([y, layers.Conv2D(16, 1, activation="sigmoid")(gate)])
    return layers.Add(name=f"sum{level}")([x, layers.Conv2D(8, 1)(y)])


def branching(x, level):
    """A block of Inception."""
    branches = [
        layers.Conv2D(4, 1, 2)(x),
        layers.Conv2D(4, 3, 2, "same")(layers.Conv2D(2, 1)(x)),
        layers.MaxPooling2D(2)(x),
    ]
    return layers.Concatenate(name=f"mixed{level}")(branches)


def scaling(x, level):
    """A block of ConvNeXt: normalization before, a scale for each channel after."""
    x = layers.Conv2D(8, 2, 2)(layers.LayerNormalization(epsilon=1e-6)(x))
    y = layers.Dense(8)(layers.Dense(32, "gelu")(layers.LayerNormalization()(x)))
    y = sys.modules[keras.applications.ConvNeXtTiny.__module__].LayerScale(0.5, 8)(y)
    return layers.Add(name=f"sum{level}")([x, y])


@pytest.mark.parametrize("block", [concatenating, pre_activated, squeezing, branching, scaling])
def test_halves_of_small_twins_compose_exactly(block):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((32, 32, 3))
    for level in range(3):
        x = block(layers.Conv2D(8, 1)(x) if level == 0 else x, level)
    model = keras.Model(inputs, x)
    assert len(find_stages(model)) >= 2
    assert_halves_compose(model, 32)


def test_halves_of_a_network_of_pairs_compose_exactly():
    """As in NASNet, where each cell reads the two before it: two tensors pass every cut."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    before = x = layers.Conv2D(4, 3, 2, "same")(inputs)
    for level in range(4):
        fitted = layers.Conv2D(4, 1)(before)
        cell = layers.Add(name=f"cell{level}")([fitted, layers.Conv2D(4, 3, padding="same")(x)])
        before, x = x, cell
    model = keras.Model(inputs, layers.Add(name="end")([before, x]))
    assert max(len(stage.output_shapes) for stage in find_stages(model)) == 2
    assert_halves_compose(model, 32)


def test_split_takes_a_name_a_cut_or_a_stage():
    model = residual_net()
    cut = find_cuts(model)[1]
    stage = find_stages(model)[0]
    assert cut.name == stage.name == "add0"
    for given in (cut, stage, "add0"):
        prefix, suffix = split(model, given)
        assert [layer.name for layer in prefix.layers[1:]] == list(stage.layers[1:])
        assert model.get_layer("conv2") in suffix.layers


def test_split_inside_a_residual_block_gives_two_tensors():
    model = residual_net()
    prefix, suffix = split(model, "conv1")
    x = pixels(16)
    assert len(prefix.outputs) == len(suffix.inputs) == 2
    np.testing.assert_array_equal(suffix(prefix(x)).numpy(), model(x).numpy())


def test_above_the_output_is_the_identity():
    model = residual_net()
    prefix, suffix = split(model, find_stages(model)[-1])
    x = pixels(16)
    np.testing.assert_array_equal(suffix(prefix(x)).numpy(), model(x).numpy())
    assert not suffix.weights


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras, as it saves
def test_split_works_again_after_training_and_leaves_the_model_whole(tmp_path):
    model, x = residual_net(), pixels(16)
    before = find_stages(model)
    _, suffix = split(model, "add0")
    suffix.compile("sgd", "mse")
    features = np.zeros((2, 8, 8, 8), "float32")
    suffix.fit(features, np.ones((2, 2, 2, 8), "float32"), verbose=0)
    for stage in find_stages(model):
        prefix, suffix = split(model, stage)
        np.testing.assert_array_equal(suffix(prefix(x)).numpy(), model(x).numpy())
    assert find_stages(model) == before
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x).numpy(), model(x).numpy())
    assert find_stages(again) == before


def test_a_half_can_be_cut_again():
    model, x = residual_net(), pixels(16)
    _, suffix = split(model, "add0")
    middle, last = split(suffix, "add1")
    prefix, _ = split(model, "add0")
    np.testing.assert_array_equal(last(middle(prefix(x))).numpy(), model(x).numpy())


@pytest.mark.parametrize(
    ("cut", "message"),
    [("ad0", "Did you mean 'add0'"), ("nowhere", "must be a Cut, a Stage or the name of a layer")],
)
def test_a_cut_that_is_none_says_what_would_do(cut, message):
    with pytest.raises(ArgumentError, match=message):
        split(residual_net(), cut)


def test_a_cut_of_another_model_is_refused():
    stage = find_stages(residual_net())[1]
    inputs = keras.Input((16, 16, 3))
    other = keras.Model(inputs, layers.ReLU()(inputs))
    with pytest.raises(ArgumentError, match="which is a different layer in this model"):
        split(other, stage)


def test_three_tensors_are_no_cut():
    x = inputs = keras.Input((8, 8, 3))
    branches = [layers.Conv2D(2, 1, name=f"branch{i}")(x) for i in range(3)]
    model = keras.Model(inputs, layers.Concatenate()(branches))
    with pytest.raises(ArgumentError, match="after which 3 are"):
        split(model, "branch2")


@pytest.mark.parametrize(
    ("inputs", "live"),
    [
        ([[], [(0, 0)], [(1, 0)]], [1, 1, 1]),
        ([[], [(0, 0)], [(0, 0), (1, 0)]], [1, 2, 1]),
        ([[], [(0, 0)], [(0, 0)], [(1, 0), (2, 0)]], [1, 2, 2, 1]),
        ([[], [(0, 0)], [(1, 0), (1, 1)]], [1, 2, 1]),  # one operation with two outputs
    ],
)
def test_live_after(inputs, live):
    frontiers = live_after(inputs, [(len(inputs) - 1, 0)])
    assert [len(frontier) for frontier in frontiers] == live


def costs(*rows):
    """(side, bytes, macs, parameters) of each cut."""
    return [CutCost((side, side), *row) for side, *row in rows]


@pytest.mark.parametrize(
    ("rows", "ends"),
    [
        # A chain of levels: each ends at its deepest cut.
        ([(8, 64, 30, 1), (4, 32, 60, 5), (2, 16, 100, 9)], [0, 1, 2]),
        # Equal bytes: the deepest; a pooling that adds no work and passes less: after it.
        ([(8, 64, 15, 1), (8, 64, 35, 1), (4, 16, 35, 1), (4, 32, 65, 5), (2, 16, 100, 9)],
         [2, 3, 4]),
        # A level with less than 2 % of work and parameters joins the next.
        ([(9, 64, 1, 0), (8, 64, 35, 100), (4, 32, 70, 500), (2, 16, 100, 900)], [1, 2, 3]),
        # ... and the last joins the one before.
        ([(8, 64, 35, 100), (4, 32, 70, 500), (2, 16, 100, 900), (1, 4, 100, 900)], [0, 1, 3]),
        # A bottleneck before a wide end.
        ([(8, 64, 35, 10), (4, 10, 60, 50), (4, 30, 75, 70), (4, 80, 100, 100)], [0, 1, 2, 3]),
        # Not a bottleneck: what lies after it weighs less than 10 %.
        ([(8, 64, 35, 10), (4, 30, 70, 95), (4, 80, 75, 100)], [0, 2]),
        # More than 40 % of the work: halved, at the cheapest cut about the middle.
        ([(8, 64, 30, 10), (4, 30, 45, 30), (4, 30, 65, 50), (4, 30, 85, 80), (4, 30, 100, 100)],
         [0, 2, 4]),
    ],
)  # fmt: skip
def test_group_cuts(rows, ends):
    assert group_cuts(costs(*rows)) == ends


def test_group_cuts_of_a_long_chain_stays_within_twelve():
    chain = [(4, 30, 1000 * (i + 1), i + 1) for i in range(200)]
    assert len(group_cuts(costs(*chain))) <= 12


def test_group_cuts_without_any_weights():
    assert group_cuts(costs((8, 64, 0, 0), (4, 16, 0, 0))) == [1]


def test_the_stages_of_a_model_are_found_once(tiny_backbone, monkeypatch):
    model = tiny_backbone()
    first = find_stages(model)
    monkeypatch.setattr("kerastl.backbones.stages.group_cuts", None)  # is not called again
    again = find_stages(model)
    assert again == first
    again.clear()
    assert find_stages(model) == first
