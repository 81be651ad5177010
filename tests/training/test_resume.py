import dataclasses
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

PROBE = Phase("head", freeze_depth=4, method="probe")
RATES = {"epochs": 3, "learning_rate": 1e-3, "layer_decay": 0.5, "schedule": "constant"}
STORED = Phase("above", freeze_depth=2, **RATES)
ALL = Phase("all", freeze_depth=0, **RATES)
RECIPE = Recipe("test", (PROBE, STORED, ALL), augmentation="light", batch_size=16, seed=5)


@pytest.fixture
def built(tiny_backbone):
    """A function that builds the same model again."""

    def build():
        keras.utils.set_random_seed(0)
        return build_transfer_model(tiny_backbone(), 3, dropout=0.2)

    return build


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


@pytest.fixture
def undisturbed(built, unsettled_data):
    def run(recipe=RECIPE, callbacks=plateau):
        model = built()
        history = fine_tune(
            model, unsettled_data, recipe=recipe, callbacks=callbacks, verbose=False
        )
        return outcome(model, history)

    return run


@pytest.mark.parametrize("phase", ["above", "all"])
@pytest.mark.parametrize(
    ("where", "epoch"), [("begin", 0), ("begin", 1), ("middle", 2), ("end", 0), ("end", 2)]
)
def test_a_killed_training_ends_as_if_it_had_not_been(
    built, unsettled_data, undisturbed, tmp_path, phase, where, epoch
):
    def killing(this):
        return plateau(this) + ([KillAt(where, epoch)] if this.name == phase else [])

    def harmless(this):
        return plateau(this) + ([KillAt("never", 0)] if this.name == phase else [])

    how = {"recipe": RECIPE, "checkpoints": tmp_path / "checkpoints", "verbose": False}
    with pytest.raises(Kill):
        fine_tune(built(), unsettled_data, callbacks=killing, **how)
    model = built()
    history = fine_tune(model, unsettled_data, callbacks=harmless, **how)
    assert same(outcome(model, history), undisturbed())
    assert len(list((tmp_path / "checkpoints").glob("*"))) == 4  # two states of two files


@pytest.mark.parametrize(
    ("step", "number"),
    [("fsync", 5), ("fsync", 7), ("replace", 5), ("replace", 6), ("unlink", 1), ("unlink", 2)],
)
def test_killed_while_a_state_is_saved(
    built, unsettled_data, undisturbed, tmp_path, monkeypatch, step, number
):
    """Each state is two files; from the third one on, an old one goes as well."""
    short = dataclasses.replace(RECIPE, phases=(PROBE, STORED))
    how = {"recipe": short, "checkpoints": tmp_path, "verbose": False}
    name = {"fsync": "os.fsync", "replace": "os.replace", "unlink": "Path.unlink"}[step]
    owner = Path if step == "unlink" else os
    done, calls = getattr(owner, step), []

    def kill_at(*arguments, **named):
        calls.append(arguments)
        if len(calls) == number:
            raise Kill
        return done(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(f"kerastl.training.resume.{name}", kill_at)
        with pytest.raises(Kill):
            fine_tune(built(), unsettled_data, callbacks=lambda _: [], **how)
    model = built()
    history = fine_tune(model, unsettled_data, callbacks=lambda _: [], **how)
    assert same(outcome(model, history), undisturbed(short, None))


def test_mixup_from_the_epoch_that_was_to_come(built, unsettled_data, undisturbed, tmp_path):
    mixed = dataclasses.replace(RECIPE, phases=(PROBE, ALL), mixup_alpha=0.3)
    how = {"recipe": mixed, "checkpoints": tmp_path, "verbose": False}
    with pytest.raises(Kill):
        fine_tune(built(), unsettled_data, callbacks=lambda _: [KillAt("middle", 1)], **how)
    model = built()
    history = fine_tune(model, unsettled_data, callbacks=lambda _: [KillAt("never", 0)], **how)
    assert same(outcome(model, history), undisturbed(mixed, None))


def test_a_phase_that_stopped_early_is_not_gone_on_with(
    built, unsettled_data, undisturbed, tmp_path
):
    early = dataclasses.replace(RECIPE, phases=(PROBE, STORED), patience=1)
    harm = dataclasses.replace(STORED, learning_rate=1e3, optimizer="sgd", warmup=0.0)
    early = dataclasses.replace(early, phases=(PROBE, harm))
    folder = tmp_path / "checkpoints"
    how = {"recipe": early, "checkpoints": folder, "verbose": False}
    model = built()
    history = fine_tune(model, unsettled_data, **how)
    assert len(history.history["loss"]) == 2
    newest = max(folder.glob("*.json"))
    newest.unlink()  # a kill before the end of the phase was kept
    model = built()
    again = fine_tune(model, unsettled_data, **how)
    assert same(outcome(model, again), undisturbed(early, None))


def test_a_finished_training_is_not_trained_again(built, unsettled_data, tmp_path):
    how = {"recipe": RECIPE, "checkpoints": tmp_path, "verbose": False}
    model = built()
    first = outcome(model, fine_tune(model, unsettled_data, **how))
    model = built()
    again = fine_tune(model, unsettled_data, callbacks=lambda _: [KillAt("begin", 0)], **how)
    assert same(outcome(model, again), first)


def damaged(folder, how):
    path = max(folder.glob(how[0]))
    path.write_bytes(how[1](path.read_bytes()))


@pytest.mark.parametrize(
    "how",
    [
        ("*.npz", lambda data: data[: len(data) // 2]),
        ("*.npz", lambda data: b""),
        ("*.npz", lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:]),
        ("*.json", lambda data: data[:-20]),
        ("*.json", lambda data: b"[]"),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    built, unsettled_data, undisturbed, tmp_path, how, capsys
):
    short = dataclasses.replace(RECIPE, phases=(PROBE, STORED))
    made = {"recipe": short, "checkpoints": tmp_path, "verbose": False}
    with pytest.raises(Kill):
        fine_tune(built(), unsettled_data, callbacks=lambda _: [KillAt("begin", 2)], **made)
    damaged(tmp_path, how)
    model = built()
    history = fine_tune(model, unsettled_data, callbacks=lambda _: [KillAt("never", 0)], **made)
    assert same(outcome(model, history), undisturbed(short, None))
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
    with pytest.raises(DataError, match="None of the 2 checkpoints .* is whole. Remove"):
        kept.read(lambda line: None)


def test_another_training_is_refused_with_what_differs(built, unsettled_data, tmp_path):
    short = dataclasses.replace(RECIPE, phases=(PROBE,))
    fine_tune(built(), unsettled_data, recipe=short, checkpoints=tmp_path, verbose=False)
    other = dataclasses.replace(short, batch_size=8)
    with pytest.raises(DataError, match=r"Its recipe\.batch_size is 16, not 8"):
        fine_tune(built(), unsettled_data, recipe=other, checkpoints=tmp_path, verbose=False)
    renamed = dataclasses.replace(unsettled_data, class_names=["a", "b", "z"])
    with pytest.raises(DataError, match=r"data\.classes is .*; its data\.fingerprint is"):
        fine_tune(built(), renamed, recipe=short, checkpoints=tmp_path, verbose=False)
    record = max(tmp_path.glob("*.json"))
    values = json.loads(record.read_text())
    values["about"]["versions"]["keras"] = "3.14.0"
    record.write_text(json.dumps(values))
    with pytest.raises(DataError, match=r'versions\.keras is "3\.14\.0", not'):
        fine_tune(built(), unsettled_data, recipe=short, checkpoints=tmp_path, verbose=False)


def test_a_full_disk_leaves_the_last_states_whole(tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path, {})
    kept.write(TrainingState(0, 1, arrays={"model": [np.arange(3)]}))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("kerastl.training.resume.os.fsync", full)
        with pytest.raises(TrainingError, match="No space left on device. Make room, and resume"):
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
