import dataclasses
import functools
import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest

from kerastl.errors import DataError, TrainingError
from kerastl.model.build import build_transfer_model
from kerastl.model.recipes import Phase, Recipe
from kerastl.training.fine_tune import fine_tune
from kerastl.training.resume import Checkpoints, TrainingState
from tests.training.small import small_backbone, small_data, unsettled

PROBE = Phase("head", freeze_depth=2, method="probe")
RATES = {"epochs": 3, "learning_rate": 1e-3, "layer_decay": 0.5, "schedule": "constant"}
STORED = Phase("above", freeze_depth=1, **RATES)  # over stored activations
ALL = Phase("all", freeze_depth=0, **RATES)  # over pixels
RECIPE = Recipe("test", (PROBE, STORED, ALL), augmentation="flip", batch_size=16, seed=5)
SHORT = dataclasses.replace(RECIPE, phases=(PROBE, STORED))


@pytest.fixture(scope="module")
def data():
    return unsettled(small_data())


def built():
    """Build the same model again."""
    keras.utils.set_random_seed(0)
    return build_transfer_model(small_backbone(), 3, dropout=0.2)


class Kill(BaseException):
    """What no `except Exception` catches, as a kill."""


class KillAt(keras.callbacks.Callback):
    def __init__(self, where, epoch, batch=1):
        super().__init__()
        self.where, self.epoch, self.batch = where, epoch, batch
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if self.where == "begin" and epoch == self.epoch:
            raise Kill

    def on_train_batch_end(self, batch, logs=None):
        if self.where == "middle" and self._epoch == self.epoch and batch >= self.batch:
            raise Kill

    def on_epoch_end(self, epoch, logs=None):
        if self.where == "end" and epoch == self.epoch:
            raise Kill


def plateau(phase):
    return [keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=10.0, factor=0.5)]


def outcome(model, history):
    return [*map(np.asarray, model.get_weights()), str(history.history), str(history.best_epoch)]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def killing(phase, where, epoch):
    """Return callbacks for each phase; those of one of them kill."""

    def callbacks(this):
        return [*plateau(this), KillAt(where if this.name == phase else "never", epoch)]

    return callbacks


def harmless(this):
    return killing("none", "never", 0)(this)


@pytest.fixture(scope="module")
def undisturbed(data):
    """A function that trains by a recipe without checkpoints, once for all tests."""

    @functools.cache
    def run(recipe=RECIPE, callbacks=plateau):
        model = built()
        history = fine_tune(model, data, recipe=recipe, callbacks=callbacks, verbose=False)
        return outcome(model, history)

    return run


@pytest.mark.faults
@pytest.mark.parametrize(
    "kills",
    [
        [("above", "begin", 0), ("above", "middle", 2), ("above", "end", 2),
         ("all", "end", 0), ("all", "begin", 1)],
        pytest.param(
            [("above", "end", 0), ("above", "begin", 1),
             ("all", "begin", 0), ("all", "middle", 2), ("all", "end", 2)],
            marks=pytest.mark.faults,
        ),
    ],
    ids=["some", "others"],
)  # fmt: skip
def test_a_training_killed_again_and_again_ends_as_if_it_had_not_been(
    data, undisturbed, tmp_path, kills
):
    how = {"recipe": RECIPE, "checkpoints": tmp_path / "checkpoints", "verbose": False}
    for kill in kills:
        with pytest.raises(Kill):
            fine_tune(built(), data, callbacks=killing(*kill), **how)
    model = built()
    history = fine_tune(model, data, callbacks=harmless, **how)
    assert same(outcome(model, history), undisturbed())
    assert len(list((tmp_path / "checkpoints").glob("*"))) == 4  # two states of two files


def kill_at(monkeypatch, step, number):
    """Kill at the n-th call of what writes a state: `fsync`, `replace` or `unlink`."""
    name = {"fsync": "os.fsync", "replace": "os.replace", "unlink": "pathlib.Path.unlink"}[step]
    done, calls = getattr(Path if step == "unlink" else os, step), []

    def killing_step(*arguments, **named):
        calls.append(arguments)
        if len(calls) == number:
            raise Kill
        return done(*arguments, **named)

    monkeypatch.setattr(name, killing_step)


@pytest.mark.parametrize(
    ("step", "number", "kept"),
    [
        *(("fsync", number, 1) for number in (1, 2, 3)),  # of the arrays, the folder, the record
        ("fsync", 4, 2), ("replace", 1, 1), ("replace", 2, 1), ("unlink", 1, 2), ("unlink", 2, 2),
    ],
)  # fmt: skip
def test_a_state_that_a_kill_broke_off_does_not_count(tmp_path, monkeypatch, step, number, kept):
    """A state is two files, each flushed with its folder; from the third one on an old one goes."""
    states = [TrainingState(0, epoch, {}, {"model": [np.full(3, epoch)]}) for epoch in range(4)]
    for state in states[:2]:
        Checkpoints(tmp_path, {}).write(state)
    with monkeypatch.context() as patch:
        kill_at(patch, step, number)
        with pytest.raises(Kill):
            Checkpoints(tmp_path, {}).write(states[2])
    found = Checkpoints(tmp_path, {}).read(pytest.fail)
    assert (found.epoch, found.arrays["model"][0].tolist()) == (kept, [kept] * 3)
    Checkpoints(tmp_path, {}).write(states[3])
    assert Checkpoints(tmp_path, {}).read(pytest.fail).epoch == 3


RARER = [("fsync", 5), ("fsync", 7), ("replace", 5), ("replace", 6), ("unlink", 1), ("unlink", 2)]


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("replace", 9),  # of the state that ends a phase
        *(pytest.param(*kill, marks=pytest.mark.faults) for kill in RARER),
    ],
)
def test_killed_while_a_state_is_saved(data, undisturbed, tmp_path, monkeypatch, step, number):
    how = {"recipe": SHORT, "checkpoints": tmp_path, "verbose": False}
    with monkeypatch.context() as patch:
        kill_at(patch, step, number)
        with pytest.raises(Kill):
            fine_tune(built(), data, callbacks=plateau, **how)
    model = built()
    history = fine_tune(model, data, callbacks=plateau, **how)
    assert same(outcome(model, history), undisturbed(SHORT))


@pytest.mark.slow
def test_mixup_from_the_epoch_that_was_to_come(data, undisturbed, tmp_path):
    mixed = dataclasses.replace(RECIPE, phases=(ALL,), augmentation="light", mixup_alpha=0.3)
    how = {"recipe": mixed, "checkpoints": tmp_path, "verbose": False}
    with pytest.raises(Kill):
        fine_tune(built(), data, callbacks=killing("all", "middle", 1), **how)
    model = built()
    history = fine_tune(model, data, callbacks=harmless, **how)
    assert same(outcome(model, history), undisturbed(mixed))


def test_a_phase_that_stopped_early_is_not_gone_on_with(data, tmp_path):
    harm = dataclasses.replace(STORED, learning_rate=1e3, optimizer="sgd", warmup=0.0, epochs=8)
    early = dataclasses.replace(RECIPE, phases=(PROBE, harm), patience=1)
    folder = tmp_path / "checkpoints"
    how = {"recipe": early, "checkpoints": folder, "verbose": False}
    model = built()
    history = fine_tune(model, data, **how)
    assert len(history.history["loss"]) < 1 + harm.epochs
    newest = max(folder.glob("*.json"))
    newest.unlink()  # a kill before the end of the phase was kept
    first, model = outcome(model, history), built()
    assert same(outcome(model, fine_tune(model, data, **how)), first)


def test_a_finished_training_is_not_trained_again(data, undisturbed, tmp_path):
    how = {"recipe": SHORT, "checkpoints": tmp_path, "verbose": False}
    fine_tune(built(), data, callbacks=plateau, **how)
    model = built()
    again = fine_tune(model, data, callbacks=lambda _: [KillAt("begin", 0)], **how)
    assert same(outcome(model, again), undisturbed(SHORT))


DAMAGES = {
    "half of the arrays": ("*.npz", lambda data: data[: len(data) // 2]),
    "no arrays": ("*.npz", lambda data: b""),
    "one bit": ("*.npz", lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:]),
    "half of the record": ("*.json", lambda data: data[:-20]),
    "another record": ("*.json", lambda data: b"[]"),
}


def damage(folder, how):
    pattern, change = DAMAGES[how]
    path = max(folder.glob(pattern))
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_state_gives_way_to_the_one_before(tmp_path, how):
    kept, told = Checkpoints(tmp_path, {"recipe": {}}), []
    for epoch in range(2):
        kept.write(TrainingState(0, epoch, arrays={"model": [np.full(9, epoch)]}))
    damage(tmp_path, how)
    state = kept.read(told.append)
    assert (state.epoch, state.arrays["model"][0].tolist()) == (0, [0] * 9)
    (line,) = told
    assert "000001.json is damaged" in line


def test_from_the_state_before_a_damaged_one_it_ends_the_same(data, undisturbed, tmp_path, capsys):
    made = {"recipe": SHORT, "checkpoints": tmp_path, "verbose": False}
    with pytest.raises(Kill):
        fine_tune(built(), data, callbacks=killing("above", "begin", 2), **made)
    damage(tmp_path, "one bit")
    model = built()
    history = fine_tune(model, data, callbacks=harmless, **made)
    assert same(outcome(model, history), undisturbed(SHORT))
    assert "is damaged" in capsys.readouterr().err


def test_no_whole_checkpoint_is_an_error(tmp_path):
    kept = Checkpoints(tmp_path, {"recipe": {}})
    for number in range(3):
        kept.write(TrainingState(number, arrays={"model": [np.ones(3)]}))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000001.json", "000001.npz", "000002.json", "000002.npz",
    ]  # fmt: skip
    for path in tmp_path.glob("*.npz"):
        path.unlink()
    with pytest.raises(DataError, match="All 2 checkpoints .* are damaged. Remove"):
        kept.read(lambda line: None)


def test_another_training_is_refused_with_what_differs(data, tmp_path):
    short = dataclasses.replace(RECIPE, phases=(PROBE,))
    fine_tune(built(), data, recipe=short, checkpoints=tmp_path, verbose=False)
    other = dataclasses.replace(short, batch_size=8)
    with pytest.raises(DataError, match=r"Its recipe\.batch_size is 16, not 8"):
        fine_tune(built(), data, recipe=other, checkpoints=tmp_path, verbose=False)
    renamed = dataclasses.replace(data, class_names=["a", "b", "z"])
    with pytest.raises(DataError, match=r"data\.classes is .*; its data\.fingerprint is"):
        fine_tune(built(), renamed, recipe=short, checkpoints=tmp_path, verbose=False)
    record = max(tmp_path.glob("*.json"))
    values = json.loads(record.read_text())
    values["about"]["versions"]["keras"] = "3.14.0"
    record.write_text(json.dumps(values))
    with pytest.raises(DataError, match=r'versions\.keras is "3\.14\.0", not'):
        fine_tune(built(), data, recipe=short, checkpoints=tmp_path, verbose=False)


def test_a_full_disk_leaves_the_last_states_whole(tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path, {})
    kept.write(TrainingState(0, 1, arrays={"model": [np.arange(3)]}))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(TrainingError, match="No space left on device. Free some disk"):
            kept.write(TrainingState(0, 2, arrays={"model": [np.arange(3)]}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000.json", "000000.npz"]
    state = kept.read(lambda line: None)
    assert state.epoch == 1
    assert np.array_equal(state.arrays["model"][0], np.arange(3))


def test_states_keep_names_order_and_dtypes(tmp_path):
    arrays = {
        "model": [np.full(2, i, np.float32) for i in range(12)],
        "optimizer": [np.array(7, np.int64), np.array([1, 2], np.uint32)],
    }
    kept = Checkpoints(tmp_path, {})
    kept.write(TrainingState(1, 2, {"rows": [{"loss": 0.1}]}, arrays))
    state = kept.read(lambda line: None)
    assert (state.phase, state.epoch, state.values) == (1, 2, {"rows": [{"loss": 0.1}]})
    for name, expected in arrays.items():
        for got, wanted in zip(state.arrays[name], expected, strict=True):
            assert got.dtype == wanted.dtype
            assert np.array_equal(got, wanted)
