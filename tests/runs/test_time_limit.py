import keras
import pytest

from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model
from kerastl.model.recipes import make_recipe
from kerastl.runs import time_limit
from kerastl.runs.time_limit import TimeLimit, seconds_of
from kerastl.training.fine_tune import fine_tune


@pytest.fixture
def setting(tiny_backbone, unsettled_data):
    model = build_transfer_model(tiny_backbone(), 3)
    recipe = make_recipe("large_different", num_stages=4, num_images=60, num_classes=3)
    return model, unsettled_data, recipe


@pytest.fixture
def clock(monkeypatch):
    """Seconds of a step, and of the clock that a limit looks at."""
    now = {"step": 0.0, "time": 0.0}
    monkeypatch.setattr(time_limit, "_seconds", lambda *_: now["step"])
    monkeypatch.setattr(time_limit.time, "monotonic", lambda: now["time"])
    return now


def test_what_fits(setting, clock):
    model, data, recipe = setting
    batches = len(data.train) / recipe.batch_size  # of one second each
    tests = time_limit.TEST_PASSES * len(data.test) / recipe.batch_size
    enough = time_limit.FIXED_SECONDS + tests + (1 + time_limit.EPOCH_PASSES) * batches
    clock["step"] = 1.0
    said = []
    assert TimeLimit(enough + 0.1, said.append).what_fits(recipe, model, data) == recipe
    assert TimeLimit(None, said.append).what_fits(recipe, model, data) is recipe
    assert not said
    less = TimeLimit(enough - 0.1, said.append).what_fits(recipe, model, data)
    assert [phase.method for phase in less.phases] == ["probe"]
    assert "Fine-tuning was skipped: an epoch takes about" in said[0]
    TimeLimit(1.0, said.append).what_fits(less, model, data)
    assert "more than the time limit" in said[1]


def test_fine_tuning_ends_when_the_time_is_up(setting, clock):
    model, data, recipe = setting
    said = []
    limit = TimeLimit(100.0, said.append)
    assert limit.what_fits(recipe, model, data) == recipe

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            clock["time"] = 60.0 * epoch

    history = fine_tune(
        model, data, recipe=recipe, verbose=False,
        callbacks=lambda phase: [Clock(), *limit.callbacks(phase)],
    )  # fmt: skip
    assert len(history.history["phase"]) < sum(phase.epochs for phase in recipe.phases)
    assert said == [f"The time limit stopped fine_tune in epoch 3 of {recipe.phases[-1].epochs}."]
    assert not TimeLimit(None, said.append).callbacks(recipe.phases[-1])


def test_a_limit_is_above_zero():
    with pytest.raises(ArgumentError, match="time_limit"):
        TimeLimit(0.0, print)


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("1.5s", 1.5), ("10m", 600), ("2h", 7200)]
)
def test_times(text, expected):
    assert seconds_of(text) == expected


@pytest.mark.parametrize("text", ["", "m", "-5", "1d", "1 h", "1e3", "0s"])
def test_what_is_no_time(text):
    with pytest.raises(ArgumentError, match="time_limit"):
        TimeLimit(text, print)
