"""Writes the trials of a search for TensorBoard's HParams page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.plugins.hparams import api

from kerastl.training.trials import Trial

LOGS_FOLDER = "logs"


def write_hparams(directory: Path, trials: Sequence[Trial]) -> None:
    """Write what was tried and what it gave, a folder a trial; those that are there stay.

    Args:
        directory: Of the search; `tensorboard --logdir DIRECTORY/logs` shows them.
        trials: Failed ones have no score and no loss.
    """
    for trial in trials:
        folder = directory / LOGS_FOLDER / "trials" / _name(trial)
        if folder.exists():
            continue
        writer = tf.summary.create_file_writer(str(folder))
        with writer.as_default(step=trial.epochs):
            api.hparams(_values(trial), trial_id=_name(trial))
            for name in ("score", "loss", "seconds"):
                value = getattr(trial, name)
                if value is not None:
                    tf.summary.scalar(name, value)
        writer.close()


def _values(trial: Trial) -> dict[str, Any]:
    rate = {} if trial.learning_rate is None else {"learning_rate": trial.learning_rate}
    return {"freeze_depth": trial.freeze_depth, "epochs": trial.epochs, **rate}


def _name(trial: Trial) -> str:
    rate = "head" if trial.learning_rate is None else f"rate-{trial.learning_rate:.6g}"
    return f"depth-{trial.freeze_depth}-{rate}-epochs-{trial.epochs}"
