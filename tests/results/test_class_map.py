import json

import keras
import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from kerastl.cli.heatmap import heatmap
from kerastl.errors import ArgumentError
from kerastl.results.class_map import ClassMap, ClassMapper

RED, BLUE = 0, 1


def colour_model(strides=4, padding="valid"):
    """Tells red from blue: averages of patches, pooled, and a head set by hand."""
    inputs = keras.Input((36, 36, 3))
    x = keras.layers.AveragePooling2D(4, strides, padding, name="patches")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="head")(x))
    kernel = np.array([[0.01, -0.01], [0, 0], [-0.01, 0.01]])
    model.get_layer("head").set_weights([kernel, np.zeros(2)])
    return model


def scene(height=120, width=200, top=60, left=120):
    """Grey, with a red square of 36 pixels and a blue one."""
    pixels = np.full((height, width, 3), 120, "uint8")
    pixels[top : top + 36, left : left + 36] = (250, 20, 20)
    pixels[4:40, 8:44] = (20, 20, 250)
    return pixels


def test_the_strongest_window_lies_on_the_object():
    mapper = ClassMapper(colour_model())
    assert mapper.stride == (4, 4)
    assert mapper.window == (36, 36)
    seen = mapper(scene(), shorter=120)
    assert seen.looked_at == (120, 200)
    assert seen.probabilities.shape == (22, 42, 2)
    assert seen.box(*seen.strongest(RED)) == (60, 120, 96, 156)
    assert seen.box(*seen.strongest(BLUE)) == (4, 8, 40, 44)
    heat = seen.heat(RED)
    assert heat.shape == (120, 200)
    assert heat[78, 138] > 0.95
    assert heat[22, 26] < 0.05
    assert heat[110, 20] == pytest.approx(0.5, abs=0.01)


def test_boxes_are_in_pixels_of_the_image_itself():
    large = np.repeat(np.repeat(scene(), 3, 0), 2, 1)
    mapper = ClassMapper(colour_model())
    seen = mapper(large, shorter=120)
    assert seen.image_size == (360, 400)
    top, left, bottom, right = seen.box(*seen.strongest(RED))
    down, along = (own / looked for own, looked in zip((360, 400), seen.looked_at, strict=True))
    assert abs((top + bottom) / 2 - 3 * 78) < 6 * down
    assert abs((left + right) / 2 - 2 * 138) < 6 * along
    assert seen.heat(RED).shape == (360, 400)


def test_each_cell_is_the_answer_for_its_window():
    model = colour_model()
    pixels = scene()
    seen = ClassMapper(model)(pixels, shorter=120)
    for row, column in ((0, 0), (3, 7), (21, 41)):
        top, left, bottom, right = map(int, seen.box(row, column))
        window = pixels[None, top:bottom, left:right].astype("float32")
        expected = model.predict(window, verbose=0)[0]
        np.testing.assert_allclose(seen.probabilities[row, column], expected, atol=1e-5)


@pytest.mark.parametrize(("strides", "padding"), [(1, "same"), (3, "valid"), (6, "same")])
def test_the_stride_is_found_in_the_network(strides, padding):
    assert ClassMapper(colour_model(strides, padding)).stride == (strides, strides)


def test_sizes_keep_the_aspect_and_are_filled_by_windows():
    mapper = ClassMapper(colour_model())
    assert mapper.size_for((100, 100)) == (72, 72)
    assert mapper.size_for((100, 250)) == (72, 180)
    assert mapper.size_for((30, 30), shorter=36) == (36, 36)
    height, width = mapper.size_for((333, 500), shorter=111)
    assert (height - 36) % 4 == (width - 36) % 4 == 0
    with pytest.raises(ArgumentError, match="shorter"):
        mapper.size_for((100, 100), shorter=20)
    with pytest.raises(ArgumentError, match=r"shape \(height, width, 3\)"):
        mapper(np.zeros((1, 40, 40, 3)))


def test_heat_of_one_window_is_even():
    probabilities = np.array([[[0.25, 0.75]]], "float32")
    seen = ClassMap(probabilities, (36, 36), (4, 4), (36, 36), (50, 60))
    np.testing.assert_allclose(seen.heat(1), np.full((50, 60), 0.75))


def test_the_command_paints_each_image(tmp_path):
    colour_model().save(tmp_path / "model.keras")
    (tmp_path / "labels.txt").write_text("red\nblue\n")
    for name in ("a", "b"):
        Image.fromarray(scene()).save(tmp_path / f"{name}.png")
    app = typer.Typer()
    app.command()(heatmap)
    how = [str(tmp_path / name) for name in ("model.keras", "a.png", "b.png")]
    result = CliRunner().invoke(app, [*how, "--class", "red", "--size", "120", "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    found = json.loads(result.stdout)
    assert found["stride"] == [4, 4]
    assert [row["box"] for row in found["heatmaps"]] == [[60, 120, 96, 156]] * 2
    with Image.open(found["heatmaps"][0]["overlay"]) as picture:
        assert picture.width > 2 * 200  # the image, and what was seen in it
    assert (tmp_path / "heatmaps" / "0001-b.png").is_file()
    table = CliRunner().invoke(app, [*how[:2], "--size", "120"]).stdout
    assert "36 x 36" in table
    assert "--class" in str(CliRunner().invoke(app, [*how, "--class", "green"]).exception)
