import csv
import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from kerastl.errors import ArgumentError
from kerastl.results.predictions import Predictions

NAMES = ["ant", "bee", "fly"]
LABELS = np.array([0, 0, 0, 1, 1, 2])
PROBABILITIES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.3, 0.6, 0.1],
        [0.2, 0.7, 0.1],
        [0.5, 0.4, 0.1],
        [0.1, 0.8, 0.1],
        [0.9, 0.0, 0.1],
    ]
)


@pytest.fixture
def predictions():
    return Predictions(LABELS, PROBABILITIES, NAMES, [f"{index}.jpg" for index in range(6)])


def test_the_confusion_matrix_is_scikit_learns(predictions):
    expected = confusion_matrix(LABELS, PROBABILITIES.argmax(1))
    assert (
        predictions.confusion().tolist() == expected.tolist() == [[1, 2, 0], [1, 1, 0], [1, 0, 0]]
    )


def test_the_most_confused_pairs(predictions):
    pairs = [(row["label"], row["answer"], row["count"]) for row in predictions.most_confused()]
    assert pairs == [("ant", "bee", 2), ("bee", "ant", 1), ("fly", "ant", 1)]
    first = predictions.most_confused(1)
    assert len(first) == 1
    assert first[0]["share"] == pytest.approx(2 / 3)
    low, high = first[0]["interval"]
    assert low < 2 / 3 < high


def test_top_losses_have_paths(predictions):
    worst = predictions.top_losses(2)
    assert [row["path"] for row in worst] == ["5.jpg", "2.jpg"]
    assert worst[0] == {
        "index": 5,
        "path": "5.jpg",
        "label": "fly",
        "answer": "ant",
        "probability": 0.9,
        "probability_of_label": 0.1,
        "loss": pytest.approx(-np.log(0.1)),
    }
    nameless = Predictions(LABELS, PROBABILITIES, NAMES)
    assert nameless.top_losses(1)[0]["path"] is None


def test_reliability_by_hand(predictions):
    rows = predictions.reliability()
    assert sum(row["num_images"] for row in rows) == 6
    sure = rows[-1]
    assert (sure["confidence"], sure["accuracy"], sure["num_images"]) == (0.9, 0.0, 1)
    good = rows[-2]
    assert (good["confidence"], good["accuracy"], good["num_images"]) == (0.8, 1.0, 2)


def test_a_row_an_image(predictions):
    rows = list(csv.DictReader(predictions.to_csv().splitlines()))
    assert [row["path"] for row in rows] == [f"{index}.jpg" for index in range(6)]
    assert float(rows[5]["loss"]) == pytest.approx(predictions.losses[5])


def test_a_data_frame_has_the_rows_of_the_csv(predictions, monkeypatch):
    if importlib.util.find_spec("pandas") is None:
        with pytest.raises(ArgumentError, match=r"needs pandas.*pip install 'kerastl\[pandas\]'"):
            predictions.to_frame()
        monkeypatch.setattr("kerastl.results.predictions.check_packages", lambda *_: None)
        monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda rows: rows))
        assert [row["path"] for row in predictions.to_frame()] == predictions.paths
        return
    assert predictions.to_frame().to_csv(index=False) == predictions.to_csv()


def test_a_probability_of_zero_has_a_finite_loss():
    predictions = Predictions(np.array([1]), np.array([[1.0, 0.0]]), ["a", "b"])
    assert 30 < predictions.losses[0] < 40
