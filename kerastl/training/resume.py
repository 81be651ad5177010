"""Saves the state of a training, so that a killed training continues with the same result."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastl._atomic import atomic_write_bytes, atomic_write_text
from kerastl._hashing import sha256_of_bytes
from kerastl.errors import ArgumentError, DataError, ExportError, TrainingError
from kerastl.machines import broadcast_bytes, broadcast_json, is_chief
from kerastl.training.callbacks import KeepBest, Logs
from kerastl.training.trials import diff_settings

STATES_KEPT = 2  # a newest one that the disk lost leaves the one before
_FORMAT = 1
# All that Keras' callbacks change from epoch to epoch; to restore more of them (`min_delta`, which
# `ReduceLROnPlateau` turns negative once) would break them.
CALLBACK_STATE = ("best", "wait", "cooldown_counter", "best_epoch", "stopped_epoch")


@dataclass
class TrainingState:
    """The state of a training.

    Args:
        phase: index of the phase that trains.
        epoch: how many of its epochs are done.
        values: what else there is, as JSON has it.
        arrays: lists of arrays by name: `model`, `optimizer`, `best`.
    """

    phase: int = 0
    epoch: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, list[np.ndarray]] = field(default_factory=dict)


class Checkpoints:
    """The last states of one training in a folder, the newest first to be read.

    A state is a file of arrays and a JSON file with the hash of it, each written beside its place,
    flushed to the disk and renamed; without its JSON file it does not count.

    Args:
        directory: of nothing else; made when it is missing.
        about: all that the training depends on, as plain values two levels deep.

    Raises:
        DataError: the folder has the states of another training; the error tells what differs.
    """

    def __init__(self, directory: Path, about: dict[str, Any]):
        self.directory = directory
        self._about: dict[str, Any] = json.loads(json.dumps({"format": _FORMAT, **about}))

    def read(self, warn: Callable[[str], None]) -> TrainingState | None:
        """Return the newest state that is whole, or None where there is none.

        Args:
            warn: told of each that is damaged.

        Raises:
            DataError: there are states, and none is whole; or they are of another training.
        """
        records = self._records()
        for record in records:
            try:
                values = json.loads(record.read_text(encoding="utf-8"))
                data = record.with_suffix(".npz").read_bytes()
                if sha256_of_bytes(data) != values["sha256"]:
                    raise ValueError("its checksum differs")
                about = values["about"]
                arrays = _unpacked(data)
                state = TrainingState(values["phase"], values["epoch"], values["values"], arrays)
            except (OSError, ValueError, KeyError, TypeError) as error:
                warn(f"Warning: {record} is damaged ({error}); continuing from the one before.")
                continue
            self._check(about)
            return state
        if records:
            raise DataError(
                f"All {len(records)} checkpoints in {self.directory} are damaged. Remove the "
                "folder, and train again."
            )
        return None

    def write(self, state: TrainingState) -> None:
        """Add a state, and remove all but the last two.

        Raises:
            TrainingError: it could not be written; those before it are whole.
        """
        records = self._records()
        number = int(records[0].stem) + 1 if records else 0
        path = self.directory / f"{number:06}.npz"
        data = _packed(state.arrays)
        record = {
            "sha256": sha256_of_bytes(data), "phase": state.phase, "epoch": state.epoch,
            "values": state.values, "about": self._about,
        }  # fmt: skip
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            atomic_write_bytes(path, data)
            # As Python writes it: the `best` of a callback may be infinite.
            atomic_write_text(path.with_suffix(".json"), json.dumps(record))
        except (OSError, ExportError) as error:
            raise TrainingError(
                f"Cannot write a checkpoint to {self.directory}: {error.__cause__ or error}. "
                "Free some disk space, and resume: the earlier epochs are kept."
            ) from error
        for old in records[STATES_KEPT - 1 :]:
            for file in (old, old.with_suffix(".npz")):  # in this order a kill leaves no half one
                file.unlink(missing_ok=True)

    def _records(self) -> list[Path]:
        found = [path for path in self.directory.glob("*.json") if path.stem.isdecimal()]
        return sorted(found, reverse=True)

    def _check(self, about: dict[str, Any]) -> None:
        if differing := diff_settings(about, self._about):
            raise DataError(
                f"{self.directory} contains checkpoints of a different training. Its "
                + "; its ".join(differing)
                + ". To resume it, use the same arguments, images and versions; otherwise "
                "choose another folder."
            )


class SaveAndResume(keras.callbacks.Callback):  # type: ignore[misc]
    """Keep all that the epochs to come depend on, and give it back to a resumed phase.

    It stands last among the callbacks, behind what an epoch changes.

    Args:
        model: the whole model.
        network: the part of it that trains, with its optimizer.
        state: where the phase is taken up; at epoch 0 there is nothing to give back.
        best: what keeps the best epoch, or None.
        own: the user's callbacks.
        save: takes the state after each epoch; None keeps nothing.
    """

    def __init__(
        self,
        model: keras.Model,
        network: keras.Model,
        state: TrainingState,
        *,
        best: KeepBest | None,
        own: Sequence[Any],
        save: Callable[[TrainingState], None] | None,
    ):
        super().__init__()
        self._whole, self._network, self._state = model, network, state
        self._best, self._own, self._save = best, own, save

    def restore(self) -> None:
        """Give the optimizer, and what keeps the best epoch, what they had."""
        if not self._state.epoch:
            return
        values, arrays = self._state.values, self._state.arrays
        set_values(self._network.optimizer.variables, arrays["optimizer"])
        if self._best is not None:
            self._best.best, self._best.best_epoch = tuple(values["best"]), values["best_of"]
            self._best.best_weights, self._best.first_weights = arrays["best"], arrays["first"]

    def is_over(self, epochs: int) -> bool:
        """Whether the phase had done all its epochs, or had stopped early."""
        return self._state.epoch > 0 and (
            self._state.values["stopped"] or self._state.epoch == epochs
        )

    def on_train_begin(self, logs: Logs = None) -> None:
        """Put the counts of the user's callbacks back, behind their own `on_train_begin`."""
        if self._state.epoch:
            restore_callbacks(self._own, self._state.values["callbacks"])

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Save."""
        if self._save is None:
            return
        arrays = {
            "model": get_values(self._whole.variables),
            "optimizer": get_values(self._network.optimizer.variables),
        }
        stopped = bool(self._network.stop_training)
        values: dict[str, Any] = {
            "stopped": stopped, "callbacks": state_of_callbacks(self._own)
        }  # fmt: skip
        if self._best is not None:
            arrays |= {"best": self._best.best_weights, "first": self._best.first_weights}
            values |= {"best": self._best.best, "best_of": self._best.best_epoch}
        self._save(TrainingState(self._state.phase, epoch + 1, values, arrays))


def get_values(variables: Sequence[Any]) -> list[np.ndarray]:
    """Return the values of Keras variables."""
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def set_values(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    """Give variables the values that `get_values` read."""
    if [tuple(v.shape) for v in variables] != [value.shape for value in values]:
        raise DataError(
            "The checkpoint belongs to a network with different weights. Build the same "
            "model as before, or choose another folder."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def state_of_callbacks(callbacks: Sequence[Any]) -> list[dict[str, float]]:
    """Return what each of Keras' callbacks has counted, as plain numbers."""
    found = []
    for callback in callbacks:
        state = {name: getattr(callback, name, None) for name in CALLBACK_STATE}
        numbers = {n: v for n, v in state.items() if isinstance(v, (int, float, np.number))}
        found.append({name: float(value) for name, value in numbers.items()})
    return found


def restore_callbacks(callbacks: Sequence[Any], states: Sequence[dict[str, float]]) -> None:
    """Put back what `state_of_callbacks` returned, when `fit` has reset it.

    Raises:
        ArgumentError: there are more or fewer callbacks than then.
    """
    if len(callbacks) != len(states):
        raise ArgumentError(
            f"The training was started with {len(states)} callbacks in this phase, including "
            f"the internal ones. Received: {len(callbacks)}. Resume it with the same "
            "`callbacks`."
        )
    for callback, state in zip(callbacks, states, strict=True):
        for name, value in state.items():
            setattr(callback, name, value)


def broadcast_state(strategy: Any, state: TrainingState | None) -> TrainingState | None:
    """Return the chief's state in every process of a strategy; the others' are not looked at."""
    said = broadcast_json(strategy, state and [state.phase, state.epoch, state.values])
    if said is None:
        return None
    phase, epoch, values = said
    return TrainingState(
        phase, epoch, values, broadcast_arrays(strategy, state.arrays if state else {})
    )


def broadcast_arrays(
    strategy: Any, arrays: dict[str, list[np.ndarray]]
) -> dict[str, list[np.ndarray]]:
    """Return the chief's arrays in every process of a strategy."""
    return _unpacked(broadcast_bytes(strategy, _packed(arrays) if is_chief(strategy) else b""))


def _packed(arrays: dict[str, list[np.ndarray]]) -> bytes:
    file = io.BytesIO()
    named = {f"{name}:{i:06}": a for name, some in arrays.items() for i, a in enumerate(some)}
    np.savez(file, **named)  # type: ignore[arg-type]
    return file.getvalue()


def _unpacked(data: bytes) -> dict[str, list[np.ndarray]]:
    arrays: dict[str, list[np.ndarray]] = {}
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        for key in sorted(file.files):
            arrays.setdefault(key.split(":")[0], []).append(file[key])
    return arrays
