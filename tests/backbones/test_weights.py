import os
import pathlib
import shutil
import sys

import h5py
import keras
import numpy as np
import pytest

from kerastl._hashing import sha256_of_file
from kerastl.backbones import weights as weights_module
from kerastl.backbones.preprocessing import Preprocessing
from kerastl.backbones.table import BACKBONES, parse_backbone
from kerastl.backbones.weight_files import LayerWeights, first_difference
from kerastl.backbones.weights import load_backbone
from kerastl.errors import ArgumentError, WeightsError

SMALL = "MobileNetV2(alpha=0.35)"
REAL_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"


def real_weights():
    """The folder of real ImageNet weights, beside the repository or where the variable says."""
    beside = pathlib.Path(__file__).resolve().parents[2].parent / "shared"
    folder = pathlib.Path(os.environ.get("KERASTL_TEST_SHARED", beside)) / "weights"
    if not (folder / REAL_FILE).is_file():
        pytest.skip(f"no real weights in {folder}")
    return folder


def file_utils():
    return sys.modules[keras.applications.MobileNetV2.__module__].file_utils


def apply(preprocessing, x):
    x = x[..., ::-1] if preprocessing.reverse_channels else x
    return x * np.asarray(preprocessing.scale) + np.asarray(preprocessing.offset)


def pixels(size, batch=2):
    return np.random.default_rng(0).uniform(0, 255, (batch, size, size, 3)).astype("float32")


def network(spec=SMALL, size=32):
    parsed = parse_backbone(spec)
    return getattr(keras.applications, parsed.record.name)(
        include_top=False, weights=None, input_shape=(size, size, 3), **dict(parsed.arguments)
    )


def write_legacy(model, path):
    """Write weights in the layout that Keras publishes."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            ordered = [*layer.trainable_weights, *layer.non_trainable_weights]
            group.attrs["weight_names"] = [f"{layer.name}/{w.name}:0" for w in ordered]
            for weight in ordered:
                group[f"{layer.name}/{weight.name}:0"] = weight.numpy()
    return path


@pytest.fixture(scope="module")
def small_network():
    """A network of `SMALL`, to read alone."""
    keras.utils.set_random_seed(1)
    return network()


@pytest.fixture(scope="module")
def published(small_network, tmp_path_factory):
    """Files of `SMALL` and of a wider one in the layout that Keras publishes, to copy."""
    folder = tmp_path_factory.mktemp("published")
    write_legacy(small_network, folder / "small.h5")
    write_legacy(network("MobileNetV2(alpha=0.5)"), folder / "wider.h5")
    return folder


@pytest.fixture
def small_file(small_network, published, tmp_path):
    """A file of `SMALL` under its published name in a folder of its own."""
    folder = tmp_path / "weights"
    folder.mkdir()
    return small_network, shutil.copy(published / "small.h5", folder / REAL_FILE)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    monkeypatch.delenv("KERASTL_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    def fail(name, origin, **kwargs):
        print(f"Downloading data from {origin}")  # noqa: T201
        raise Exception(f"URL fetch failure on {origin}: None -- no network")

    monkeypatch.setattr(file_utils(), "get_file", fail)


def same_weights(first, second):
    return all(
        np.array_equal(a.numpy(), b.numpy())
        for a, b in zip(first.weights, second.weights, strict=True)
    )


@pytest.mark.parametrize("record", BACKBONES, ids=lambda record: record.name)
def test_preprocessing_is_that_of_keras(record):
    module = sys.modules[getattr(keras.applications, record.name).__module__]
    ours = apply(weights_module.preprocessing_of(record.mode), pixels(4))
    np.testing.assert_allclose(ours, module.preprocess_input(pixels(4)), rtol=1e-5, atol=1e-4)


@pytest.fixture(params=["two blocks", pytest.param("whole", marks=pytest.mark.slow)])
def efficientnet(request, monkeypatch):
    """EfficientNet as Keras builds it, of two of its seven blocks, or whole."""
    module = sys.modules[keras.applications.EfficientNetB0.__module__]
    if request.param == "two blocks":
        monkeypatch.setattr(module, "DEFAULT_BLOCKS_ARGS", module.DEFAULT_BLOCKS_ARGS[:2])


@pytest.mark.usefixtures("efficientnet")
def test_efficientnet_from_its_published_file_is_what_keras_builds(tmp_path, monkeypatch):
    name = "EfficientNetB0"
    keras.utils.set_random_seed(2)
    model = network(name)
    normalization = next(x for x in model.layers if isinstance(x, keras.layers.Normalization))
    stored = [np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]) ** 2, np.array(1)]
    normalization.set_weights(stored)
    path = write_legacy(model, tmp_path / f"{name.lower()}_notop.h5")
    monkeypatch.setattr(file_utils(), "get_file", lambda *args, **kwargs: str(path))
    theirs = getattr(keras.applications, name)(include_top=False, input_shape=(32, 32, 3))
    monkeypatch.setenv("KERASTL_WEIGHTS_DIR", str(tmp_path))
    loaded = load_backbone(name, image_size=32)
    x = pixels(32)
    ours = loaded.model(apply(loaded.preprocessing, x)).numpy()
    expected = theirs(x).numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert np.abs(loaded.model(x).numpy() - expected).max() > 1e-2 * np.abs(expected).max()
    other_name = path.rename(tmp_path / "another.h5")  # what the file holds tells, not its name
    again = load_backbone(name, weights=other_name, image_size=32)
    assert again.preprocessing == loaded.preprocessing


@pytest.mark.usefixtures("efficientnet")
def test_efficientnet_by_keras_own_way_needs_no_preprocessing(tmp_path, monkeypatch):
    monkeypatch.delenv("KERASTL_WEIGHTS_DIR", raising=False)
    path = write_legacy(network("EfficientNetB0"), tmp_path / "any.h5")
    monkeypatch.setattr(file_utils(), "get_file", lambda *args, **kwargs: str(path))
    assert load_backbone("EfficientNetB0", image_size=32).preprocessing == Preprocessing()
    trained_anew = path.rename(tmp_path / "efficientnetb0_notop.h5")
    loaded = load_backbone("EfficientNetB0", weights=trained_anew, image_size=32)
    assert loaded.preprocessing == Preprocessing()


def test_random_weights_follow_the_seed():
    first, second = (
        (keras.utils.set_random_seed(seed), load_backbone(SMALL, weights="random", image_size=32))[
            1
        ]
        for seed in (3, 3)
    )
    assert same_weights(first.model, second.model)
    assert (first.weights, first.name) == ("random", SMALL)
    assert first.preprocessing == Preprocessing(1 / 127.5, -1.0)
    assert len(first.model.output.shape) == 4


def test_the_weights_folder_comes_first(small_file, no_network, monkeypatch):
    model, path = small_file
    monkeypatch.setenv("KERASTL_WEIGHTS_DIR", str(path.parent))
    # 40 pixels have no file of their own: that of 224 serves.
    loaded = load_backbone(SMALL, image_size=40)
    assert same_weights(loaded.model, model)
    assert loaded.image_size == (40, 40)
    assert loaded.weights == "imagenet"


def test_then_keras_own_cache(small_file, monkeypatch, tmp_path, capsys):
    model, path = small_file
    cache = tmp_path / "keras" / "models"
    cache.mkdir(parents=True)
    cached = path.rename(cache / path.name)
    monkeypatch.delenv("KERASTL_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(file_utils(), "get_file", lambda *args, **kwargs: str(cached))
    loaded = load_backbone(SMALL, image_size=(32, 40))
    assert same_weights(loaded.model, model)
    assert loaded.model.input.shape == (None, 32, 40, 3)


def test_a_failed_download_says_where_it_looked_and_the_ways_out(no_network, capsys, tmp_path):
    with pytest.raises(WeightsError) as caught:
        load_backbone(SMALL)
    text = str(caught.value)
    for part in (
        REAL_FILE,
        "KERASTL_WEIGHTS_DIR (not set)",
        str(tmp_path / "keras" / "models"),
        "no network",
        "weights='path/to/file.h5'",
        "weights='embedded'",
        "weights='random'",
    ):
        assert part in text
    output = capsys.readouterr()
    assert output.out == ""
    assert "Downloading" in output.err


def test_a_failed_download_names_the_weights_folder(no_network, monkeypatch, tmp_path):
    monkeypatch.setenv("KERASTL_WEIGHTS_DIR", str(tmp_path))
    with pytest.raises(WeightsError, match=r"KERASTL_WEIGHTS_DIR\)"):
        load_backbone(SMALL)


@pytest.mark.parametrize(
    "spec", ["MobileNetV2(alpha=0.4)", "MobileNet(depth_multiplier=2)", "MobileNetV3Small(alpha=2)"]
)
def test_arguments_without_imagenet_weights(spec, no_network):
    with pytest.raises(WeightsError, match=r"No ImageNet weights fit .* Keras says: If imagenet"):
        load_backbone(spec)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras, as it saves
def test_a_weights_h5_file(small_network, tmp_path):
    model = small_network
    path = tmp_path / "mine.weights.h5"
    model.save_weights(path)
    loaded = load_backbone(SMALL, weights=path, image_size=32)
    assert same_weights(loaded.model, model)
    assert loaded.weights == str(path)
    with pytest.raises(WeightsError, match=r"does not fit .*Keras says"):
        load_backbone("MobileNetV2", weights=path, image_size=32)


def test_a_file_of_another_alpha_names_the_layer(small_file):
    _, path = small_file
    with pytest.raises(WeightsError) as caught:
        load_backbone("MobileNetV2", weights=path, image_size=32)
    assert "layer 'Conv1': file has kernel (3, 3, 3, 16), network has kernel (3, 3, 3, 32)" in str(
        caught.value
    )
    assert "another alpha than MobileNetV2?" in str(caught.value)


def test_files_that_are_none(tmp_path):
    broken = tmp_path / "broken.h5"
    broken.write_bytes(b"\x89HDF half a download")
    other = tmp_path / "weights.bin"
    other.write_bytes(b"")
    for path, message in (
        (broken, "cannot be read as HDF5"),
        (other, "must end in '.h5'"),
        (tmp_path / "absent.h5", "The weight file"),
    ):
        with pytest.raises(WeightsError, match=message):
            load_backbone(SMALL, weights=path, image_size=32)


def test_a_source_that_is_none_lists_what_would_do():
    with pytest.raises(ArgumentError, match="Did you mean 'imagenet'"):
        load_backbone(SMALL, weights="imagnet")


def rows(*layers):
    return [LayerWeights(name, (("kernel", shape),)) for name, shape in layers]


@pytest.mark.parametrize(
    ("stored", "ours", "difference"),
    [
        (rows(("a", (1, 2))), rows(("b", (1, 2))), None),
        (None, rows(("b", (1, 2))), None),
        (
            rows(("a", (1, 2))),
            rows(("b", (1, 3))),
            "layer 'b/a': file has kernel (1, 2), network has kernel (1, 3)",
        ),
        (
            [LayerWeights("a", (("kernel", (1, 2)), ("bias", (2,))))],
            rows(("a", (1, 2))),
            "layer 'a': file has 2 weights, network has 1",
        ),
        (
            rows(("a", (1, 2)), ("predictions", (2, 1000))),
            rows(("a", (1, 2))),
            "the file has 1 more layers than the network, first 'predictions'",
        ),
        (
            rows(("a", (1, 2))),
            rows(("a", (1, 2)), ("b", (3,))),
            "the network has 1 more layers than the file, first 'b'",
        ),
    ],
)
def test_first_difference(stored, ours, difference):
    assert first_difference(stored, ours) == difference


@pytest.mark.parametrize(
    ("image_size", "message"),
    [
        (31, "an int of at least 32. Received: image_size=31"),
        ((64, 8), "an int of at least 32. Received: image_size=8"),
        ("64", "Received: image_size='64'"),
        ((64, 64, 3), "a side or \\(height, width\\)"),
        (0, "an int of at least 32"),
    ],
)
def test_sizes_that_cannot_be_meant(image_size, message):
    with pytest.raises(ArgumentError, match=message):
        load_backbone(SMALL, weights="random", image_size=image_size)


def test_the_native_size_is_the_default():
    assert load_backbone("MobileNetV3Small", weights="random").image_size == (224, 224)


@pytest.fixture
def embedded(small_network, tmp_path, monkeypatch):
    """A stand-in for the file that comes with kerastl."""

    def write(arrays=None):
        weights = small_network.weights
        own = {f"{i:03d}:{w.path}": w.numpy().astype("float16") for i, w in enumerate(weights)}
        path = tmp_path / "weights.npz"
        np.savez(path, **(own if arrays is None else arrays))
        monkeypatch.setattr(weights_module, "EMBEDDED_SHA256", sha256_of_file(path))
        return small_network

    monkeypatch.setattr(weights_module, "embedded_file", lambda: tmp_path / "weights.npz")
    return write


def test_embedded_weights(embedded):
    model = embedded()
    loaded = load_backbone(SMALL, weights="embedded")
    assert loaded.image_size == (64, 64)
    assert loaded.preprocessing == Preprocessing(1 / 127.5, -1.0)
    for ours, theirs in zip(loaded.model.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy().astype("float16"))
    assert load_backbone(SMALL, weights="embedded", image_size=96).image_size == (96, 96)


def test_embedded_weights_are_of_one_network(embedded):
    with pytest.raises(ArgumentError, match=r"fit only 'MobileNetV2\(alpha=0.35\)'"):
        load_backbone("ResNet50", weights="embedded")


def test_embedded_weights_that_are_missing_or_damaged(embedded):
    with pytest.raises(WeightsError, match="missing"):
        load_backbone(SMALL, weights="embedded")
    embedded({"000:a": np.zeros(3, "float16")})
    with pytest.raises(WeightsError, match="1 arrays for 260 variables"):
        load_backbone(SMALL, weights="embedded")
    embedded({f"{i:03d}:a": np.zeros(3, "float16") for i in range(260)})
    with pytest.raises(WeightsError, match=r"has shape \(3,\)"):
        load_backbone(SMALL, weights="embedded")


def test_one_flipped_byte_of_the_embedded_weights_is_seen(embedded, tmp_path):
    embedded()
    data = bytearray((tmp_path / "weights.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "weights.npz").write_bytes(data)

    with pytest.raises(WeightsError, match=r"damaged: the SHA-256 of .* Install kerastl again"):
        load_backbone(SMALL, weights="embedded")


def test_the_embedded_weights_are_those_that_are_known():
    assert sha256_of_file(weights_module.embedded_file()) == weights_module.EMBEDDED_SHA256


@pytest.fixture
def cached_file(small_file, monkeypatch, tmp_path):
    """The file where Keras keeps it, which Keras then does not download."""
    cache = tmp_path / "keras" / "models"
    cache.mkdir(parents=True)
    cached = small_file[1].rename(cache / REAL_FILE)
    monkeypatch.delenv("KERASTL_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(file_utils(), "get_file", lambda *args, **kwargs: str(cached))
    return cached


def cut(path, published):
    path.write_bytes(path.read_bytes()[:-5000])


def made_a_page(path, published):
    path.write_text("<html>404</html>")


def of_another_network(path, published):
    shutil.copy(published / "wider.h5", path)


@pytest.mark.parametrize("damage", [cut, made_a_page, of_another_network])
def test_a_cut_or_wrong_file_in_keras_cache_is_named_with_the_step(cached_file, published, damage):
    damage(cached_file, published)

    with pytest.raises(WeightsError) as caught:
        load_backbone(SMALL, image_size=32)

    text = str(caught.value)
    assert f"{str(cached_file)!r} exists, but cannot be read" in text
    assert "Remove the file, so that it is downloaded again" in text


@pytest.mark.parametrize("damage", [cut, made_a_page, of_another_network])
def test_a_cut_or_wrong_file_in_the_weights_folder_is_named(
    small_file, published, monkeypatch, damage
):
    _, path = small_file
    damage(path, published)
    monkeypatch.setenv("KERASTL_WEIGHTS_DIR", str(path.parent))

    with pytest.raises(WeightsError, match=r"cannot be read as HDF5|does not fit") as caught:
        load_backbone(SMALL, image_size=32)

    assert str(path) in str(caught.value)


def test_a_download_that_arrives_changed_is_named_with_the_step(monkeypatch, tmp_path):
    monkeypatch.delenv("KERASTL_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    served = tmp_path / "served.h5"
    served.write_bytes(b"half of a file")

    def download(name, origin, file_hash=None, cache_subdir=None, **_):
        # Keras' own, from a file in place of the network, with the hash that Keras knows.
        return keras.utils.get_file(
            name, served.as_uri(), file_hash=file_hash, cache_subdir=cache_subdir
        )

    utils = sys.modules[keras.applications.ResNet50.__module__].file_utils
    monkeypatch.setattr(utils, "get_file", download)

    with pytest.raises(WeightsError) as caught:
        load_backbone("ResNet50", image_size=32)

    text = str(caught.value)
    assert "'resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5' was downloaded to" in text
    assert "the file is incomplete or changed" in text


def users_model(shape=(32, 32, 3)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs), name="mine")


def test_a_users_model_is_taken_as_it_is():
    model = users_model()
    loaded = load_backbone(model)
    assert loaded.model is not model  # a copy: flags and weights of the user stay
    np.testing.assert_array_equal(loaded.model.weights[0], model.weights[0])
    assert (loaded.name, loaded.weights, loaded.image_size) == ("mine", "model", (32, 32))
    assert loaded.preprocessing == Preprocessing()
    assert load_backbone(users_model((None, None, 3))).image_size == (224, 224)
    assert load_backbone(users_model((None, None, 3)), image_size=48).image_size == (48, 48)


def test_a_built_sequential_is_taken():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    loaded = load_backbone(model)
    assert not isinstance(loaded.model, keras.Sequential)
    assert loaded.model.output.shape == (None, 192)


class Subclassed(keras.Model):
    def call(self, x):
        return x


def test_models_that_cannot_be_meant():
    row, inputs = keras.Input((8,)), keras.Input((8, 8, 3))
    flat = keras.Model(row, keras.layers.ReLU()(row))
    two = keras.Model(inputs, [keras.layers.ReLU()(inputs), keras.layers.Flatten()(inputs)])
    unbuilt = keras.Sequential([keras.layers.ReLU()])
    for model, message in (
        (Subclassed(), "Received: Subclassed"),
        (unbuilt, "start with `keras.Input`"),
        (flat, "one input of images"),
        (two, "one output"),
    ):
        with pytest.raises(ArgumentError, match=message):
            load_backbone(model)
    with pytest.raises(ArgumentError, match="Do not pass `weights`"):
        load_backbone(users_model(), weights="random")
    with pytest.raises(ArgumentError, match=r"must be \(32, 32\) or left out"):
        load_backbone(users_model(), image_size=64)
    with pytest.raises(ArgumentError, match="Received: 3 of type int"):
        load_backbone(3)


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ArgumentError, match="channels_last"):
            load_backbone(SMALL, weights="random")
    finally:
        keras.config.set_image_data_format("channels_last")


def test_real_imagenet_weights(monkeypatch):
    monkeypatch.setenv("KERASTL_WEIGHTS_DIR", str(real_weights()))
    loaded = load_backbone(SMALL, image_size=96)
    assert np.ptp(loaded.model(apply(loaded.preprocessing, pixels(96))).numpy()) > 1
    other = load_backbone("MobileNet(alpha=0.75)", image_size=128, weights=os.path.join(
        real_weights(), "mobilenet_7_5_224_tf_no_top.h5"))  # fmt: skip
    assert other.model.output.shape[-1] == 768


def test_a_real_file_with_its_top_says_so():
    path = real_weights() / "mobilenet_7_5_224_tf.h5"
    with pytest.raises(WeightsError, match=r"'conv_preds' \(does the file include the top"):
        load_backbone("MobileNet(alpha=0.75)", weights=path, image_size=128)


def test_the_file_of_224_pixels_serves_where_it_alone_is_there(small_file, no_network, monkeypatch):
    model, path = small_file
    monkeypatch.setenv("KERASTL_WEIGHTS_DIR", str(path.parent))
    assert parse_backbone(SMALL).weights_file((96, 96)) != path.name
    assert same_weights(load_backbone(SMALL, image_size=96).model, model)
