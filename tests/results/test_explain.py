import keras
import numpy as np
import pytest

from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model
from kerastl.results.explain import explain, overlay

SIDE, HALF = 192, 96
FAMILIES = [
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("MobileNetV2(alpha=0.35)", "ResNet50", "Xception", "DenseNet121", "VGG16")
    ),
    pytest.param("ConvNeXtTiny", marks=pytest.mark.sweep),
]


def on_grey(quadrant, seed):
    """An image that is grey but for one quadrant, which is of coloured squares."""
    cells = np.random.default_rng(seed).integers(0, 256, (HALF // 12, HALF // 12, 3))
    image = np.full((SIDE, SIDE, 3), 128, "float32")
    image[part(quadrant)] = np.kron(cells, np.ones((12, 12, 1)))
    return image


def part(quadrant):
    row, column = divmod(quadrant, 2)
    return slice(row * HALF, (row + 1) * HALF), slice(column * HALF, (column + 1) * HALF)


def let_only_the_object_inform(model, images, quadrants):
    """Fit the head so that a cell of the last map adds 1 on the object and 0 elsewhere."""
    pixels = model.get_layer("preprocess")(images)
    cells = np.asarray(model.get_layer("backbone").predict_on_batch(pixels), "float64")
    inside = np.zeros((len(images), SIDE, SIDE))
    for place, quadrant in enumerate(quadrants):
        inside[place][part(quadrant)] = 1
    rows, columns = cells.shape[1:3]
    inside = inside.reshape(-1, rows, SIDE // rows, columns, SIDE // columns).mean((2, 4))
    flat = cells.reshape(-1, cells.shape[-1])
    weights = np.linalg.lstsq(flat, inside.ravel(), rcond=1e-3)[0]
    kernel = np.stack([np.zeros_like(weights), weights], axis=1)
    model.get_layer("head").set_weights([kernel, np.array([0.0, -0.1])])


def residual(x, filters):
    """As in ResNet50V2: activated before the convolutions, and added."""
    y = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    y = keras.layers.Conv2D(filters, 3, 2, padding="same")(y)
    y = keras.layers.Conv2D(filters, 3, padding="same")(keras.layers.ReLU()(y))
    return keras.layers.Add()([keras.layers.Conv2D(filters, 1, 2)(x), y])


def dense(x, filters):
    """As in DenseNet121: what is added stands beside what was there."""
    x = keras.layers.Conv2D(filters, 3, 2, padding="same")(x)
    for _ in range(2):
        y = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        x = keras.layers.Concatenate()([x, keras.layers.Conv2D(8, 3, padding="same")(y)])
    return x


def of_blocks(block):
    """A small network of four such blocks for images of SIDE pixels."""
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    for filters in (12, 16, 24, 32):
        x = block(x, filters)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, x)


@pytest.mark.parametrize("block", [residual, dense])
def test_the_heat_lies_on_the_object(block):
    """Random weights below a head for which only the object informs; images that it never saw."""
    keras.utils.set_random_seed(0)
    check_heat(build_transfer_model(of_blocks(block), 2))


def test_the_map_of_the_last_stage_under_a_head_of_all_stages():
    """What the head reads of earlier stages is a constant: the heat is that of the top alone."""
    keras.utils.set_random_seed(0)
    plain = build_transfer_model(of_blocks(residual), 2)
    model = build_transfer_model(plain, 2, head="stages")
    kernel = np.random.default_rng(0).normal(size=(32, 2))
    plain.get_layer("head").kernel.assign(kernel)
    rows = model.get_layer("head").kernel.shape[0]
    whole = np.random.default_rng(1).normal(size=(rows, 2))
    whole[-64:-32], whole[-32:] = kernel, 0  # means of the last stage, and deviations
    model.get_layer("head").kernel.assign(whole)
    images = np.stack([on_grey(quadrant, quadrant) for quadrant in range(4)])
    heats = [explain(one, images, class_ids=[1] * 4).heat for one in (plain, model)]
    np.testing.assert_allclose(heats[1], heats[0], atol=1e-4)
    assert heats[0].max() == pytest.approx(1)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_heat_lies_on_the_object_in_networks_of_keras(name):
    keras.utils.set_random_seed(0)
    check_heat(build_transfer_model(name, 2, weights="random", image_size=SIDE))


def check_heat(model):
    quadrants = [*range(4)] * 2
    fitted = np.stack([on_grey(quadrant, seed) for seed, quadrant in enumerate(quadrants)])
    let_only_the_object_inform(model, fitted, quadrants)
    images = np.stack([on_grey(quadrant, 100 + quadrant) for quadrant in range(4)])
    found = explain(model, images, class_ids=[1] * 4)
    assert found.method == "grad_cam"
    shares = [heat[part(quadrant)].sum() / heat.sum() for quadrant, heat in enumerate(found.heat)]
    assert min(shares) > 0.5, (found.stage, np.round(shares, 2))
    assert found.heat.max((1, 2)) == pytest.approx(1)


@pytest.fixture(scope="module")
def bright_corner():
    return looking_at_red("classification")


def looking_at_red(task):
    """Return a network that looks at one thing: how bright the red of a place is."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(2, 1, name="conv")(inputs)
    x = keras.layers.ReLU(name="relu")(x)
    backbone = keras.Model(inputs, keras.layers.AveragePooling2D(4, name="cells")(x))
    model = build_transfer_model(backbone, 2, task=task)
    kernel = np.zeros((1, 1, 3, 2), "float32")
    kernel[0, 0, 0, 1] = 1 / 255
    model.get_layer("backbone").get_layer("conv").set_weights([kernel, np.zeros(2)])
    model.get_layer("head").set_weights([np.array([[0.0, 0.0], [-4.0, 4.0]]), np.zeros(2)])
    return model


def corner(red=255):
    image = np.zeros((1, 16, 16, 3), "float32")
    image[0, :4, 12:, 0] = red
    return image


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_both_methods_find_what_speaks_for_a_class(bright_corner, method):
    found = explain(bright_corner, corner(), class_ids=[1], method=method)
    row, column = np.unravel_index(found.heat[0].argmax(), (16, 16))
    assert row < 4
    assert column >= 12
    assert found.heat[0, 12:, :4].max() < 0.05
    assert (found.method, found.stage is None) == (method, method == "occlusion")


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_what_speaks_against_a_class_is_not_shown(bright_corner, method):
    found = explain(bright_corner, corner(), class_ids=[0], method=method)
    assert found.heat[0, :4, 12:].max() < 0.5
    nothing = explain(bright_corner, corner(red=0), method="grad_cam")
    assert not nothing.heat.any()


def test_by_default_the_answer_is_explained(bright_corner):
    found = explain(bright_corner, np.concatenate([corner(), corner(0)]))
    expected = bright_corner.predict_on_batch(np.concatenate([corner(), corner(0)]))
    assert found.probabilities == pytest.approx(expected)
    assert found.class_ids.tolist() == expected.argmax(1).tolist()


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
@pytest.mark.parametrize(("task", "first"), [("multi_label", 1), ("regression", 0)])
def test_a_label_and_a_number_are_explained(task, first, method):
    model = looking_at_red(task)
    images = np.concatenate([corner(), corner()])
    found = explain(model, images, class_ids=[1, 0], method=method)
    assert found.heat[0, :4, 12:].mean() > 0.5
    assert found.heat[1, :4, 12:].max() < 0.5
    assert found.probabilities == pytest.approx(model.predict_on_batch(images))
    assert explain(model, images, method=method).class_ids.tolist() == [first] * 2


def test_a_saturated_answer_is_still_explained(bright_corner):
    kept = bright_corner.get_layer("head").get_weights()
    bright_corner.get_layer("head").set_weights([np.array([[0.0, 0.0], [-4e4, 4e4]]), np.zeros(2)])
    found = explain(bright_corner, corner(), class_ids=[1])
    bright_corner.get_layer("head").set_weights(kept)
    assert found.probabilities[0, 1] == 1
    assert found.heat[0, :4, 12:].mean() > 0.5


def test_a_stage_without_a_map_is_occluded(bright_corner):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Dense(4)(keras.layers.Flatten()(inputs))
    flat = keras.Model(inputs, keras.layers.Reshape((1, 1, 4))(x))
    model = build_transfer_model(flat, 2)
    with pytest.raises(ArgumentError, match="needs a stage that ends in one map.*occlusion"):
        explain(model, corner(), method="grad_cam", stage=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((1, 8, 8, 3))}, r"\(num_images, 16, 16, 3\). Received shape \(1, 8"),
        ({"class_ids": [2]}, "1 ints from 0 to 1, one per image. Received: .2"),
        ({"class_ids": [0, 1]}, "one per image"),
        ({"method": "gradcam"}, "Did you mean 'grad_cam'"),
        ({"stage": "no_such"}, "no_such"),
    ],
)
def test_wrong_arguments(bright_corner, changes, message):
    arguments = {"images": corner(), **changes}
    with pytest.raises(ArgumentError, match=message):
        explain(bright_corner, arguments.pop("images"), **arguments)


def test_an_overlay_leaves_the_cold_as_it_is():
    images = np.full((1, 2, 2, 3), 100, "uint8")
    heat = np.array([[[0.0, 1.0], [0.5, 0.0]]])
    painted = overlay(images, heat)
    assert painted.dtype == np.uint8
    assert painted[0, 0, 0].tolist() == [100, 100, 100]
    assert (painted[0, 0, 1] != 100).all()
    assert (
        abs(painted[0, 0, 1].astype(int) - 100).sum()
        > abs(painted[0, 1, 0].astype(int) - 100).sum()
    )
