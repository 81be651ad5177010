import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerastl.errors import ArgumentError, DataError
from kerastl.results.evaluate import collect_predictions, evaluate


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((2, 2, 3))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(inputs)
    model = keras.Model(inputs, keras.layers.Softmax()(x))
    return model


def test_arrays_and_datasets_agree(model):
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(50, 2, 2, 3)).astype("float32"), rng.integers(0, 3, 50)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(7)
    one_hot = tf.data.Dataset.from_tensor_slices((images, np.eye(3)[labels])).batch(7)
    of_arrays = evaluate(model, (images, labels))
    for other in (dataset, one_hot):
        measured = evaluate(model, other)
        assert measured["accuracy_interval"] == of_arrays["accuracy_interval"]
        assert measured["log_loss"] == pytest.approx(of_arrays["log_loss"])
        assert measured["intervals"]["log_loss"] == pytest.approx(
            of_arrays["intervals"]["log_loss"]
        )
    assert of_arrays["num_images"] == 50
    table = of_arrays._repr_html_()
    assert f"<tr><th>Accuracy</th><td>{of_arrays['accuracy']:.3f}</td>" in table
    assert "50 images" in table
    shown = repr(of_arrays).splitlines()
    low, high = of_arrays["accuracy_interval"]
    assert shown[0].split() == [
        "Accuracy",
        f"{of_arrays['accuracy']:.3f}",
        f"{low:.3f}",
        "to",
        f"{high:.3f}",
    ]
    assert shown[-1] == "50 images, intervals of 95 %"
    assert json.loads(json.dumps(of_arrays)) == of_arrays
    assert of_arrays["log_loss"] > 0.5


def test_answers_are_in_the_order_of_the_images(model, shapes_data):
    images = np.concatenate(list(shapes_data.test.images((2, 2)).as_numpy_iterator()))
    answers = collect_predictions(model, shapes_data.test, class_names=shapes_data.class_names)
    expected = model.predict(images, verbose=0)
    assert answers.probabilities == pytest.approx(expected, abs=1e-6)
    assert answers.labels.tolist() == shapes_data.test.labels.tolist()
    assert answers.class_names == ["red", "green", "blue"]
    assert answers.paths is None
    assert collect_predictions(model, shapes_data.test).class_names == ["0", "1", "2"]


def test_names_are_one_a_class(model):
    images = np.zeros((1, 2, 2, 3), "float32")
    with pytest.raises(ArgumentError, match="must name 3 classes. Received 2"):
        collect_predictions(model, (images, [0]), class_names=["a", "b"])


@pytest.mark.parametrize("nothing", [None, 3])
def test_what_cannot_be_evaluated(model, nothing):
    with pytest.raises(ArgumentError, match="must be a split"):
        evaluate(model, nothing)


def test_no_images(model):
    with pytest.raises(DataError, match="no images to evaluate"):
        evaluate(model, (np.zeros((0, 2, 2, 3)), np.zeros(0)))
