"""The callbacks of a phase."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastl._steps import say, step
from kerastl.errors import TrainingError

Logs = dict[str, Any] | None

NOT_FINITE = (
    "The loss became {loss} in phase {phase!r}, epoch {epoch}. The model has the "
    "weights of the last good epoch. Lower the learning rate (it was {rate:.2g}), keep "
    "`clipnorm` at 1, and check for damaged images."
)


class StopOnNonFinite(keras.callbacks.Callback):  # type: ignore[misc]
    """Raise a `TrainingError` at the first loss or weight that is not finite, and undo the epoch.

    Weights are looked at as well as the loss: ReLU can hide weights that are not numbers behind a
    loss that falls.
    """

    def __init__(self, phase: str, learning_rate: float):
        super().__init__()
        self.phase = phase
        self.rate = learning_rate
        self._epoch = 0
        self._good: list[np.ndarray] = []

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Keep the weights of the last good epoch."""
        self._epoch = epoch
        self._good = self.model.get_weights()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Look at the loss."""
        loss = float((logs or {}).get("loss", 0.0))
        if not np.isfinite(loss):
            self._stop(loss)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Look at the weights."""
        if not all(np.isfinite(weights).all() for weights in self.model.get_weights()):
            self._stop(float("nan"))

    def _stop(self, loss: float) -> None:
        self.model.set_weights(self._good)
        raise TrainingError(
            NOT_FINITE.format(loss=loss, phase=self.phase, epoch=self._epoch + 1, rate=self.rate)
        )


class PhaseProgress(keras.callbacks.Callback):  # type: ignore[misc]
    """A bar on stderr with the time left of a phase, and a line of measures an epoch.

    Args:
        phase: its name.
        total_steps: batches of the whole phase.
    """

    def __init__(self, phase: str, total_steps: int):
        super().__init__()
        self.phase = phase
        self.total_steps = total_steps
        self._epoch = 0
        self._started = 0.0
        self._shown = contextlib.ExitStack()

    def on_train_begin(self, logs: Logs = None) -> None:
        """Draw the bar."""
        self._started = time.perf_counter()
        self._advance = self._shown.enter_context(step(f"Training, {self.phase}", self.total_steps))

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remember the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Move the bar; one call may stand for many steps."""
        steps = (self.params or {}).get("steps") or 1
        self._advance(self._epoch * steps + batch + 1)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Say what the epoch gave."""
        say_epoch(self.phase, epoch + 1, logs or {}, time.perf_counter() - self._started)

    def on_train_end(self, logs: Logs = None) -> None:
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """Give the terminal back, also after an error."""
        self._shown.close()


def say_epoch(phase: str, epoch: int, measures: dict[str, Any], seconds: float) -> None:
    """Write the measures of an epoch in one line to stderr, above the bar if there is one."""
    values = "  ".join(f"{name} {value:.4f}" for name, value in measures.items())
    say(f"{phase} epoch {epoch}  {values}  ({seconds:.0f} s)")


def least_worth_keeping(accuracy: float, num_images: int) -> float:
    """Return the accuracy above which new weights replace those that reached `accuracy`.

    The best of many epochs on few images is better by luck alone, so it has to be higher by a
    standard error (the rule of Breiman and others, 1984: Classification and Regression Trees;
    Laplace's estimate of the share). From 1 on, no weights can.
    """
    share = (accuracy * num_images + 1) / (num_images + 2)
    return accuracy + float((share * (1 - share) / num_images) ** 0.5)


class KeepBest(keras.callbacks.Callback):  # type: ignore[misc]
    """Put back the weights of the best validation accuracy, or those before the phase.

    `EarlyStopping(restore_best_weights=True)` does not know the weights a phase starts from, so a
    fine-tuning that helps nobody would still replace a good head. Accuracy comes before loss: a
    network that fine-tuning made more often right is also surer where it is wrong, and its loss
    rises. Among equal accuracies the lower loss wins.

    A schedule whose rate falls to nothing is made for its end: there the last epoch is kept, unless
    the phase stopped before it, since the best of many epochs on few images is so by luck.

    Args:
        least: what the score of an epoch has to rise above.
        patience: epochs without a better one after which the phase stops.
        score: from the logs of an epoch to what is to rise. Default: the validation accuracy.
        keep_last: keep the last epoch of a phase that did not stop early.

    Attributes:
        best_epoch: 0 for the weights before the phase, else the number of the epoch from 1.
        best: score to beat, and minus the loss.
        best_weights: of that epoch.
        first_weights: those before the phase.
    """

    def __init__(
        self,
        least: float,
        patience: int,
        score: Callable[[dict[str, Any]], float] = lambda logs: float(logs["val_accuracy"]),
        *,
        keep_last: bool = False,
    ):
        super().__init__()
        self._score = score
        self._keep_last = keep_last
        self._last_epoch = 0
        self.best = (least, 0.0)
        self.best_epoch = 0
        self.patience = patience
        self.best_weights: list[np.ndarray] = []
        self.first_weights: list[np.ndarray] = []

    def on_train_begin(self, logs: Logs = None) -> None:
        """Keep the weights before the phase, unless those of an earlier epoch were put back."""
        self.first_weights = self.first_weights or self.model.get_weights()
        self.best_weights = self.best_weights or self.first_weights

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Keep the weights when they are better; stop when they have not been for long."""
        logs = logs or {}
        self._last_epoch = epoch + 1
        this = (self._score(logs), -float(logs["val_loss"]))
        if this > self.best:
            self.best, self.best_epoch = this, epoch + 1
            self.best_weights = self.model.get_weights()
        elif epoch + 1 - self.best_epoch >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs: Logs = None) -> None:
        """Put the best weights back."""
        self.settle(self.model, self._last_epoch, stopped=self.model.stop_training)

    def settle(self, network: keras.Model, last_epoch: int, *, stopped: bool) -> None:
        """Give a network, which has the weights of the last epoch, those that are kept."""
        if self._keep_last and not stopped:
            self.best_epoch, self.best_weights = last_epoch, network.get_weights()
        network.set_weights(self.best_weights)


class Rows(keras.callbacks.Callback):  # type: ignore[misc]
    """Append the measures of each epoch to a list, which outlives the phase and a kill."""

    def __init__(self, phase: str, rows: list[dict[str, Any]]):
        super().__init__()
        self._phase, self._rows = phase, rows

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Append."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        self._rows.append({"phase": self._phase, **values})


def tensorboard(log_dir: Path | None, phase: str) -> list[keras.callbacks.Callback]:
    """Return the TensorBoard callback of a phase, or none without a folder."""
    if log_dir is None:
        return []
    return [keras.callbacks.TensorBoard(str(Path(log_dir) / phase), write_graph=False)]
