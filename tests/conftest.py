"""Fixtures that many rooms share: small images, small models, and the real ones where they are."""

import gc
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from tests.command import kerastl

pytest_plugins = ["tests.costs"]

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


@pytest.fixture(scope="session", autouse=True)
def _quick_collection():
    gc.freeze()  # what TensorFlow and Keras made is never looked through again: 0.7 s a module


def once_for_all_workers(tmp_path_factory, name, make):
    """Return a folder that the first worker to ask has filled by `make(folder)`."""
    basetemp = tmp_path_factory.getbasetemp()
    shared = basetemp.parent if "PYTEST_XDIST_WORKER" in os.environ else basetemp
    made = shared / f"{name}.made"  # in place: what is made may hold its own paths
    with FileLock(shared / f"{name}.lock"):
        if not made.exists():
            make(shared / name)
            made.touch()
    return shared / name


class FinishedRun(NamedTuple):
    """A run of `kerastl train` on a tiny backbone, to read; take a copy to change it."""

    directory: Path
    images: Path
    """`train/` (24 a class), `val/` (10) and `test/` (8) with `bright` and `dark`."""
    backbone: Path
    """`.keras`: four stages, 32 x 32 pixels."""
    stdout: str
    stderr: str

    @property
    def metrics(self):
        return json.loads(self.stdout)


def write_tiny_images(folder):
    """Write two classes of files, dark and bright.

    Two of the ten that watch training are in the wrong folder, so that no head is right about all
    of them, and everything trains.
    """
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 10), ("test", 8)):
        for name, lows in (("dark", (0, 128)), ("bright", (128, 0))):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                low = lows[part == "val" and index < 2]
                pixels = rng.integers(low, low + 100, (40, 36, 3)).astype("uint8")
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")


@pytest.fixture(scope="session")
def finished_run(tiny_backbone, tmp_path_factory) -> FinishedRun:
    """One run that all tests of commands share: diagnosed, trained, exported."""

    def make(folder):
        import keras

        write_tiny_images(folder / "images")
        keras.utils.set_random_seed(0)
        tiny_backbone().save(folder / "tiny.keras")
        told = kerastl(
            "train", folder / "images", "--backbone", folder / "tiny.keras", "--epochs", 2,
            "--output", folder / "run", "--json",
        )  # fmt: skip
        (folder / "told.json").write_text(json.dumps(told))

    folder = once_for_all_workers(tmp_path_factory, "finished_run", make)
    told = json.loads((folder / "told.json").read_text())
    return FinishedRun(folder / "run", folder / "images", folder / "tiny.keras", *told)


@pytest.fixture(scope="module")  # while playwright runs, no test can run an event loop
def browser():
    """Chromium by playwright, or a skip."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip(f"there is no {' or '.join(names)} on this machine")
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=options)
        yield opened
        opened.close()


@pytest.fixture(scope="module", autouse=True)
def _forget_models():
    """Free the models of a module: hundreds of them would fill the memory."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()
        gc.collect()


def build_tiny_backbone():
    """Return a backbone of four stages with BatchNormalization, quick to trace."""
    import keras

    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    for index, filters in enumerate((8, 12, 16, 24)):
        x = keras.layers.Conv2D(filters, 3, 2, padding="same", name=f"conv_{index}")(x)
        x = keras.layers.BatchNormalization(name=f"bn_{index}")(x)
        x = keras.layers.ReLU(name=f"relu_{index}")(x)
    return keras.Model(inputs, x)


@pytest.fixture(scope="session")
def tiny_backbone():
    """The function that builds it."""
    return build_tiny_backbone


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
