"""A run of data that must be told how to read: it is read so wherever the run is used."""

import json
import shutil
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kerastl
from kerastl.data.options import PixelRules
from kerastl.errors import ArgumentError
from kerastl.runs.classifier import read_classifier
from kerastl.runs.settings import RunSettings
from tests import command

pytestmark = pytest.mark.slow  # a run with its export


@pytest.fixture(scope="module")
def folder(run_once, tiny_backbone):
    """A run of pictures of 12 bits, of a table with headings and names of its own."""

    def prepare(folder):
        rng, rows = np.random.default_rng(0), ["id,breed"]
        (folder / "images").mkdir()
        for number in range(40):
            pixels = rng.integers(0, 2048, (36, 80)) + 2048 * (number % 2)
            Image.fromarray(pixels.astype("uint16")).save(folder / "images" / f"{number:02}.png")
            rows.append(f"{number:02},{('husky', 'poodle')[number % 2]}")
        (folder / "labels.csv").write_text("\n".join(rows))
        keras.utils.set_random_seed(0)
        tiny_backbone().save(folder / "tiny.keras")
        return (
            "train", folder / "labels.csv", "--image-column", "id", "--label-column", "breed",
            "--image-folder", "images", "--image-suffix", ".png",
            "--bit-depth", 12, "--resize", "crop",
            "--backbone", folder / "tiny.keras", "--scenario", "small_similar",
            "--output", folder / "run", "--no-page", "--json",
        )  # fmt: skip

    folder, told = run_once("twelve_bits", prepare)
    assert "40 of 40 images are more than twice as long as wide" in told.stderr
    assert "`--resize pad`" in told.stderr
    return folder


def test_what_was_asked_stands_in_the_run(folder):
    run = kerastl.load_run(folder / "run")

    assert run.class_names == ["husky", "poodle"]
    assert run.files.options == kerastl.DataOptions(
        image_column="id", label_column="breed", image_folder="images", image_suffix=".png",
        bit_depth=12, resize="crop",
    )  # fmt: skip
    assert run.load_data().options == run.files.options
    assert run.recipe.resize == "crop"
    again = RunSettings("elsewhere/", recipe_path=str(folder / "run"))
    assert again.options == kerastl.DataOptions(resize="crop")


def test_files_are_read_alike_wherever_they_are_answered(folder, tmp_path):
    run = kerastl.load_run(folder / "run")
    files = [folder / "images" / f"{number:02}.png" for number in range(6)]
    expected = run.predict(files).outputs
    served = tf.saved_model.load(str(folder / "run" / "saved_model" / "1"))
    encoded = tf.constant([file.read_bytes() for file in files])
    alone = Path(shutil.copy(folder / "run" / "model.keras", tmp_path))
    shutil.copy(folder / "run" / "labels.txt", tmp_path)

    by_bytes = served.signatures["serving_bytes"](image_bytes=encoded)["probabilities"]
    told = json.loads(command.kerastl("predict", folder / "run", *files, "--json").stdout)
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])[..., None]

    np.testing.assert_allclose(by_bytes, expected, atol=1e-4)
    np.testing.assert_allclose(run.predict(np.repeat(pixels, 3, -1)).outputs, expected, atol=1e-4)
    found = [row["classes"][0]["probability"] for row in told["predictions"]]
    np.testing.assert_allclose(found, expected.max(1), atol=1e-4)
    for model in (alone, folder / "run" / "saved_model"):
        classifier = read_classifier(model)
        assert classifier.rules == PixelRules(12, "crop")
        np.testing.assert_allclose(classifier.predict_images(files).outputs, expected, atol=1e-4)
    assert (expected.argmax(1) == np.arange(6) % 2).all()  # dark and bright, so not in the dark


def test_images_that_a_run_has_seen_are_told(folder, tmp_path):
    options = ["--image-column", "id", "--label-column", "breed", "--image-suffix", ".png"]
    told = command.kerastl(
        "evaluate", folder / "run", folder / "labels.csv", *options, "--image-folder", "images"
    )
    run = kerastl.load_run(folder / "run")

    assert "the run used 32 of these 40 images for training or validation" in told.stderr
    data = run.load_data()
    with pytest.warns(UserWarning, match=f"the run used {len(data.train)} of these"):
        run.evaluate(data.train)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.evaluate(data)  # its test part
    other = kerastl.load_data(
        folder / "labels.csv", **{**run.files.options.to_dict(), "resize": "pad"}
    )
    with pytest.raises(ArgumentError, match="trained on images with resize='crop'. Received"):
        run.evaluate(other)
    with pytest.raises(ArgumentError, match="must have resize='crop', like the model"):
        run.export(tmp_path, parity_data=other.test)
