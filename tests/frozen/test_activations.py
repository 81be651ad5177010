import subprocess
import sys

import keras
import numpy as np
import pytest

from kerastl.data.augment import AUGMENTATIONS
from kerastl.data.load import load_data
from kerastl.errors import ArgumentError
from kerastl.frozen.activations import (
    extract_activations,
    extract_embeddings,
    extract_stage_embeddings,
)
from kerastl.frozen.fingerprint import graph_hash, network_hash
from kerastl.frozen.prefixes import embedding_network, image_size_of, prefix_at, suffix_at
from kerastl.frozen.runtime import open_runtime
from kerastl.frozen.store import ActivationStore
from kerastl.frozen.views import View, augmented_view, resolve_view
from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import backbone_of, freeze_to, stages

HALF = 2e-3  # of float16, and of engines


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (21, 32, 32, 3)).astype("uint8")
    data = load_data((images, np.arange(21) % 3), test_fraction=0, validation_fraction=0)
    return data.train


def pixels_of(split, flipped=False):
    images = np.concatenate(list(split.images((32, 32)).as_numpy_iterator())).astype("float32")
    return images[:, :, ::-1] if flipped else images


def expected(network, images):
    return np.asarray(network(images, training=False))


def assert_close(actual, wanted, tolerance=HALF):
    assert actual.shape == wanted.shape
    difference = np.abs(np.asarray(actual, np.float32) - wanted).max() / np.abs(wanted).max()
    assert difference <= tolerance


def counted(extract, *arguments, **options):
    given = {"store": "default", "batch_size": 32}
    given |= {name: options.pop(name) for name in list(options) if name in given}
    runtime = open_runtime(**given)
    result = extract(*arguments, runtime=runtime, **options)
    usage = runtime.usage
    return result, (usage.images_found, usage.images_derived, usage.images_computed)


def test_embeddings_are_what_the_head_reads(model, split):
    (x, y), counts = counted(extract_embeddings, model, split, batch_size=4)
    assert (x.dtype, y.dtype, x.shape) == (np.float32, np.int64, (21, 64))
    np.testing.assert_array_equal(y, split.labels)
    assert_close(x, expected(embedding_network(model), pixels_of(split)))
    assert counts == (0, 0, 21)
    again, counts = counted(extract_embeddings, model, split)
    np.testing.assert_array_equal(again.x, x)
    assert counts == (21, 0, 0)


def test_embeddings_are_found_in_a_pass_over_all_stages(model, split):
    ends = extract_stage_embeddings(model, split)
    embeddings, counts = counted(extract_embeddings, model, split)
    assert counts == (21, 0, 0)
    np.testing.assert_array_equal(embeddings.x, ends[-1].x)
    assert_close(embeddings.x, expected(embedding_network(model), pixels_of(split)))
    _, counts = counted(extract_embeddings, model, split, flipped=True)
    assert counts == (21, 0, 21)


def test_flipped_views_follow_the_others(model, split):
    plain = extract_embeddings(model, split)
    (x, y), counts = counted(extract_embeddings, model, split, flipped=True)
    assert counts == (21, 0, 21)
    np.testing.assert_array_equal(x[:21], plain.x)
    np.testing.assert_array_equal(y, np.tile(split.labels, 2))
    assert_close(x[21:], expected(embedding_network(model), pixels_of(split, flipped=True)))


def test_without_a_store(model, split, cache):
    (x, _), counts = counted(extract_embeddings, model, split, store=None, flipped=True)
    assert counts == (0, 0, 42)
    assert_close(x[:21], expected(embedding_network(model), pixels_of(split)))
    assert not (cache / "activations").exists()
    with pytest.raises(ArgumentError, match="`store` must be an ActivationStore, 'default' or"):
        extract_embeddings(model, split, store="here")


def test_usage_tells_whether_all_came_from_the_store(model, split):
    runtime = open_runtime("default", "tensorflow")
    assert not runtime.usage.from_store
    extract_embeddings(model, split, runtime=runtime)
    assert not runtime.usage.from_store
    assert runtime.usage.engine == "tensorflow"
    runtime = open_runtime("default")
    extract_embeddings(model, split, runtime=runtime)
    assert runtime.usage.from_store
    assert runtime.usage.seconds_saved > 0


def test_time_of_a_pass_is_counted_once(model, split):
    first, second = open_runtime("default"), open_runtime("default")
    extract_embeddings(model, split, flipped=True, runtime=first)
    extract_embeddings(model, split, flipped=True, runtime=second)
    assert 0 < second.usage.seconds_saved <= first.usage.seconds


def test_stage_embeddings_in_one_pass(model, split):
    found, counts = counted(extract_stage_embeddings, model, split)
    assert counts == (0, 0, 21)
    assert len(found) == len(stages(model))
    for stage, (x, y) in zip(stages(model), found, strict=True):
        activations = expected(prefix_at(model, stage.name), pixels_of(split))
        assert_close(x, activations.mean((1, 2)))
        np.testing.assert_array_equal(y, split.labels)
    assert counted(extract_stage_embeddings, model, split)[1] == (21, 0, 0)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_activations_at_every_depth(model, split, dtype):
    for depth, stage in enumerate(stages(model), 1):
        network = prefix_at(model, stage.name)
        for cut in (depth, stage, stage.name):
            store = None if cut is stage else "default"
            ((x,),), y = extract_activations(
                model, split, cut, dtype=dtype, runtime=open_runtime(store)
            )
            assert x.dtype == dtype
            np.testing.assert_array_equal(y, split.labels)
            assert_close(
                x, expected(network, pixels_of(split)), HALF if dtype == "float16" else 1e-5
            )


def test_under_a_head_of_all_stages(backbone, split):
    """The stages below a cut pass what the head reads of them beside its tensor."""
    model = build_transfer_model(backbone, 3, head="stages")
    chain = stages(model)
    rng = np.random.default_rng(0)
    head = model.get_layer("head")
    head.set_weights([0.1 * rng.normal(size=head.kernel.shape), np.zeros(3)])
    wanted = expected(model, pixels_of(split))
    for depth in range(1, len(chain) + 1):
        if depth < len(chain):
            (tensors,), _ = extract_activations(model, split, depth)
            assert [x.shape[1:] for x in tensors][-1] == chain[depth - 1].output_shapes[0]
            assert [len(x.shape) for x in tensors[:-1]] == [2] * (2 * (depth - 1))
        else:
            tensors = [extract_embeddings(model, split).x]
        given = tensors if len(tensors) > 1 else tensors[0]
        assert_close(expected(suffix_at(model, depth), given), wanted, 0.01)


def test_embeddings_for_a_head_of_all_stages_come_from_whatever_is_there(backbone, split):
    plain = build_transfer_model(backbone, 3)
    model = build_transfer_model(backbone, 3, head="stages")
    wanted = expected(embedding_network(model), pixels_of(split))
    extract_stage_embeddings(plain, split)  # as a diagnosis does, which knows of no head
    (x, _), counts = counted(extract_embeddings, model, split)
    assert counts == (21, 0, 0)
    assert_close(x, wanted)
    extract_activations(model, split, 1, views=("flip",))
    (x, _), counts = counted(extract_embeddings, model, split, flipped=True)
    assert counts == (21, 21, 0)
    assert_close(x[21:], expected(embedding_network(model), pixels_of(split, flipped=True)))
    extract_activations(model, split, 3)
    ((deeper,), _), counts = counted(extract_activations, model, split, 3, views=("flip",))
    assert counts == (0, 21, 0)
    prefix = prefix_at(model, stages(model)[2].name)
    for x, w in zip(deeper, prefix(pixels_of(split, flipped=True), training=False), strict=True):
        assert_close(x, np.asarray(w))


def test_a_plain_keras_model_has_activations_too(backbone, split):
    ((x,),), _ = extract_activations(backbone, split, 1)
    assert_close(x, expected(prefix_at(backbone, stages(backbone)[0].name), pixels_of(split)))
    with pytest.raises(ArgumentError, match="must have a layer named 'head'"):
        extract_embeddings(backbone, split)


def test_deeper_activations_come_from_shallower_ones(model, split):
    depth = len(stages(model))
    extract_activations(model, split, 1)
    (((x,),), _), counts = counted(extract_activations, model, split, depth)
    assert counts == (0, 21, 0)
    assert_close(x, expected(prefix_at(model, stages(model)[-1].name), pixels_of(split)))
    (embeddings, _), counts = counted(extract_embeddings, model, split, flipped=True)
    assert counts == (0, 21, 21)
    assert_close(embeddings[:21], expected(embedding_network(model), pixels_of(split)))
    assert counted(extract_activations, model, split, 1, dtype="float32")[1] == (0, 0, 21)


def test_cuts_of_two_tensors(split):
    a = inputs = keras.Input((32, 32, 3))
    a = keras.layers.Conv2D(4, 3, 4, name="a")(a)
    b = keras.layers.Conv2D(4, 1, name="b")(a)
    for step in range(4):  # each cell reads the two before, as in NASNet
        c = keras.layers.Add(name=f"add{step}")([keras.layers.Conv2D(4, 1)(a), b])
        a, b = b, keras.layers.ReLU(name=f"cell{step}")(c)
    model = build_transfer_model(keras.Model(inputs, keras.layers.Add(name="end")([a, b])), 3)
    for name in ("cell0", "cell2"):
        (tensors,), _ = extract_activations(model, split, name)
        wanted = prefix_at(model, name)(pixels_of(split), training=False)
        assert len(tensors) == len(wanted) == 2
        for x, w in zip(tensors, wanted, strict=True):
            assert_close(x, np.asarray(w))


def test_views_are_those_of_training(model, split):
    views = ("plain", "flip", "light:3:0", "light:3:1")
    (x, _), counts = counted(extract_activations, model, split, 1, views=views, dtype="float32")
    assert counts == (0, 0, 84)
    network = prefix_at(model, stages(model)[0].name)
    batches = split.batches(32, 21, seed=3, epochs=2, augmentation=AUGMENTATIONS["light"])
    for (activations,), (images, _) in zip(x[2:], batches, strict=True):
        assert_close(activations, expected(network, images), 1e-4)
    assert_close(x[1][0], expected(network, pixels_of(split, flipped=True)), 1e-5)
    swapped, counts = counted(
        extract_activations, model, split, 1, views=views[::-1], dtype="float32"
    )
    assert counts == (84, 0, 0)
    np.testing.assert_array_equal(swapped.x[0][0], x[3][0])


def test_a_view_of_the_users_own(model, split):
    dark = View("dark", lambda images, places: images // 2)
    (x, _), _ = counted(extract_activations, model, split, 1, views=[dark, "plain", dark])
    network = prefix_at(model, stages(model)[0].name)
    assert_close(x[0][0], expected(network, pixels_of(split) // 2))
    np.testing.assert_array_equal(x[0][0], x[2][0])


@pytest.mark.parametrize("name", ["mirror", "light", "light:a:0", "heavy:0:0", "light:0:-1"])
def test_unknown_views(name):
    with pytest.raises(ArgumentError, match=r"view must be|augmentation|epoch"):
        resolve_view(name)
    assert augmented_view("light", 0, 1).id != augmented_view("light", 1, 0).id


@pytest.mark.parametrize(
    ("cut", "message"), [(0, "With depth 0"), (9, "freeze_depth"), ("x", "`cut`")]
)
def test_unknown_cuts(model, split, cut, message):
    with pytest.raises(ArgumentError, match=message):
        extract_activations(model, split, cut)


def test_no_images(model, split):
    none = split.subset([])
    assert extract_embeddings(model, none).x.shape == (0, 64)
    (x,), y = extract_activations(model, none, 1)
    assert len(x[0]) == len(y) == 0


def test_when_nothing_can_hold_them(model, split, tmp_path, monkeypatch):
    monkeypatch.setattr("kerastl.frozen.activations.MEMORY_BYTES", 10)
    small = ActivationStore(tmp_path, max_bytes=10)
    with pytest.warns(UserWarning, match="are not stored"):
        assert extract_activations(model, split, 1, runtime=open_runtime(small)) is None
    with pytest.warns(UserWarning, match="keeps them in memory"):
        assert extract_embeddings(model, split, store=small).x.shape == (21, 64)


def test_large_activations_are_bfloat16(backbone, split):
    first = next(layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D))
    backbone.layers[2].moving_variance.assign(backbone.layers[2].moving_variance * 0)
    first.kernel.assign(first.kernel * 1e4)
    ((x,),), _ = extract_activations(backbone, split, 1)
    assert x.dtype.name == "bfloat16"
    wanted = expected(prefix_at(backbone, stages(backbone)[0].name), pixels_of(split))
    assert np.abs(wanted).max() > 65504
    assert_close(x, wanted, 2**-7)


def changed(model):
    backbone_of(model).layers[1].kernel.assign(backbone_of(model).layers[1].kernel * 1.001)


def test_everything_that_matters_is_in_the_key(model, split, build_backbone):
    def computed(model, split, **options):
        return counted(extract_activations, model, split, 1, **options)[1] == (0, 0, 21)

    assert computed(model, split)
    assert not computed(model, split)
    assert computed(model, split, dtype="float32")
    assert computed(model, split, views=["flip"])
    assert computed(model, split.subset(np.arange(21)[::-1]))
    freeze_to(model, 0)
    other_head = build_transfer_model(build_backbone(name="other"), 3, scenario="large_similar")
    assert not computed(model, split)
    assert not computed(other_head, split)
    changed(model)
    assert computed(model, split)


def test_hash_is_the_same_after_loading(model, tmp_path):
    model.save(tmp_path / "model.keras")
    keras.layers.Dense(3)  # Keras numbers layers without a name from here on
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert network_hash(embedding_network(again)) == network_hash(embedding_network(model))


@pytest.mark.faults
def test_hash_is_the_same_in_every_process(model, tmp_path):
    model.save(tmp_path / "model.keras")
    program = (
        "import sys, keras; keras.layers.Dense(3); from kerastl.frozen.fingerprint import *;"
        "from kerastl.frozen.prefixes import *;"
        "print(network_hash(embedding_network(keras.saving.load_model(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model.keras")],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == network_hash(embedding_network(model)), done.stderr


def variants():
    """Networks that all differ from one another."""

    def net(build, size=8):
        inputs = keras.Input((size, size, 3))
        return keras.Model(inputs, build(inputs))

    conv = keras.layers.Conv2D(3, 3, padding="same", kernel_initializer="ones")
    return [
        net(conv),
        net(conv, size=9),
        net(lambda x: conv(conv(x))),
        net(lambda x: conv(x) + x),
        net(lambda x: conv(x[..., ::-1])),
        net(lambda x: conv(x[..., ::1])),
        net(lambda x: keras.layers.ReLU()(conv(x))),
        net(lambda x: keras.layers.ReLU(max_value=6)(conv(x))),
        net(lambda x: keras.layers.Rescaling(1 / 255)(conv(x))),
        net(lambda x: keras.layers.Rescaling(1 / 127)(conv(x))),
        net(lambda x: keras.layers.Normalization(mean=[1, 2, 3], variance=[1, 1, 1])(conv(x))),
        net(lambda x: keras.layers.Normalization(mean=[1, 2, 4], variance=[1, 1, 1])(conv(x))),
        net(lambda x: keras.layers.BatchNormalization()(conv(x))),
        net(lambda x: keras.layers.BatchNormalization(epsilon=1e-5)(conv(x))),
        net(lambda x: net(conv)(x)),
        net(lambda x: keras.ops.mean(conv(x), axis=1)),
        net(lambda x: keras.ops.mean(conv(x), axis=2)),
    ]


def test_different_networks_have_different_hashes():
    hashes = [network_hash(network) for network in variants()]
    assert len(set(hashes)) == len(hashes)
    assert hashes == [network_hash(network) for network in variants()]


def test_hash_of_the_graph_leaves_the_weights_out(build_backbone):
    one, other = build_backbone(seed=0), build_backbone(seed=1)
    assert graph_hash(one) == graph_hash(other)
    assert network_hash(one) != network_hash(other)


@pytest.mark.parametrize("blocks", [3, pytest.param(7, marks=pytest.mark.slow)])
def test_efficientnet_with_its_dropout_is_computed_as_in_inference(blocks, split, monkeypatch):
    module = sys.modules[keras.applications.EfficientNetB0.__module__]
    monkeypatch.setattr(module, "DEFAULT_BLOCKS_ARGS", module.DEFAULT_BLOCKS_ARGS[:blocks])
    model = build_transfer_model("EfficientNetB0", 3, weights="random", image_size=32)
    freeze_to(model, 0)
    depth = len(stages(model))
    # Untrained, its numbers are too small for float16.
    options = {"runtime": open_runtime("default", "tensorflow"), "dtype": "float32"}
    ((x,),), _ = extract_activations(model, split.subset([0, 1]), depth, **options)
    network = prefix_at(model, stages(model)[-1].name)
    assert_close(x, expected(network, pixels_of(split)[:2]), 1e-4)


def test_image_size(model):
    assert image_size_of(model) == (32, 32)
