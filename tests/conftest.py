"""Fixtures that many rooms share: small images, small models, and the real ones where they are."""

import gc
import os
import sys
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest

SHARED = Path(os.environ.get("KERASTL_TEST_SHARED", Path(__file__).parents[1].parent / "shared"))
SMALL_WEIGHTS = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Keep the tests out of the user's cache of activations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERASTL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_file():
    """A function from a path below the shared folder to the file, or a skip."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.is_file():
            pytest.skip(f"needs {name} of the shared data ({SHARED} has none)")
        return path

    return find


@pytest.fixture(scope="session")
def real_photographs(shared_file, tmp_path_factory) -> Path:
    """hymenoptera: `train/` and `val/` with `ants` and `bees`, 397 JPEG photographs."""
    archive = shared_file("data/hymenoptera.zip")
    folder = tmp_path_factory.mktemp("hymenoptera")
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder / "hymenoptera"


@pytest.fixture(scope="session")
def imagenet_weights(shared_file) -> Path:
    """The ImageNet weights of `MobileNetV2(alpha=0.35)` without its top."""
    return shared_file(f"weights/{SMALL_WEIGHTS}")


@pytest.fixture(scope="module", autouse=True)
def _forget_models():
    """Free the models of a module: hundreds of them would fill the memory."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()
        gc.collect()


@pytest.fixture(scope="session")
def tiny_backbone():
    """A function to a backbone of four stages with BatchNormalization, quick to trace."""

    def build():
        import keras

        inputs = keras.Input((32, 32, 3))
        x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
        for index, filters in enumerate((8, 12, 16, 24)):
            x = keras.layers.Conv2D(filters, 3, 2, padding="same", name=f"conv_{index}")(x)
            x = keras.layers.BatchNormalization(name=f"bn_{index}")(x)
            x = keras.layers.ReLU(name=f"relu_{index}")(x)
        return keras.Model(inputs, x)

    return build


@pytest.fixture
def shapes_data():
    """Three classes of 32 x 32 images told apart by their colour: 60 for training, 30 held out."""
    from kerastl.data.load import load_data

    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.integers(0, 120, (120, 32, 32, 3))
    images[np.arange(120), :, :, labels] += 100
    return load_data((images.astype("uint8"), labels), class_names=["red", "green", "blue"], seed=0)


@pytest.fixture
def unsettled_data(shapes_data):
    """The same with a fifth of the validation labels wrong, so that no head is right about all."""
    import dataclasses

    from kerastl.data.split import Split

    held_out = shapes_data.validation
    wrong = (held_out.labels + (np.arange(len(held_out)) % 5 == 0)) % 3
    validation = Split(held_out.source, wrong, 3)
    return dataclasses.replace(shapes_data, validation=validation)
