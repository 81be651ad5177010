import dataclasses

import keras
import pytest
from matplotlib.figure import Figure

from kerastl.advice.diagnosis import diagnose
from kerastl.advice.plot import plot_diagnosis
from kerastl.advice.shift import LayerShift, Shift
from kerastl.model.build import build_transfer_model

TITLES = ["Linear probe by stage", "BatchNormalization shift", "Learning curve of the probe"]


@pytest.fixture
def found(tiny_backbone, shapes_data):
    keras.utils.set_random_seed(0)
    return diagnose(build_transfer_model(tiny_backbone(), 3), shapes_data)


def test_three_pictures_of_what_was_measured(found, tmp_path):
    layers = [LayerShift(f"bn_{index}", index, 0.1 * index, 0.05, 1.0) for index in range(4)]
    found = dataclasses.replace(found, shift=Shift(tuple(layers), 72))
    figure = found.plot()
    assert isinstance(figure, Figure)
    assert [axes.get_title() for axes in figure.axes] == TITLES
    assert figure.get_suptitle().startswith(found.scenario.replace("_", ", "))
    profile, shift, curve = figure.axes
    depth, accuracy = profile.containers[0].lines[0].get_data()
    assert list(depth) == [1, 2, 3, 4]
    assert list(accuracy) == [stage.score for stage in found.profile]
    assert list(shift.lines[0].get_ydata()) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert list(shift.lines[1].get_ydata()) == [0.05] * 4
    sizes = curve.lines[0].get_xdata()
    assert sizes[0] == pytest.approx(found.curve.num_images / 8)
    assert sizes[-1] == pytest.approx(4 * found.curve.num_images)
    for name in ("diagnosis.png", "diagnosis.svg"):
        figure.savefig(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000


def test_what_is_not_known_is_said(found):
    figure = plot_diagnosis(dataclasses.replace(found, shift=None, curve=None))
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [[], ["not available"], ["too few images"]]


def test_a_plot_opens_no_window(found):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    plot_diagnosis(found)
    assert plt.get_fignums() == before
