"""Writes measures, pictures and settings of a run for TensorBoard."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.plugins.hparams import api

from kerastl.results.run_files import Json, RunFiles

FOLDER = "results"  # below the logs


def write_summaries(files: RunFiles) -> None:
    """Write the scalars and pictures of the page, and the recipe as HParams.

    They go to `logs/results` of a run that came to its end, and are not written twice:
    `tensorboard --logdir RUN/logs` shows them.
    """
    folder = files.path(files.LOGS) / FOLDER
    if folder.exists() or files.metrics is None:
        return
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=0):
        api.hparams(_settings(files.recipe), trial_id=files.directory.resolve().name)
        for part in ("test", "validation"):
            for name, value in (files.metrics.get(part) or {}).items():
                if isinstance(value, float):
                    tf.summary.scalar(f"{part}/{name}", value)
        for kind in ("worst", "surest"):
            for place, row in enumerate((files.evaluation or {}).get(kind, [])):
                pair = [
                    _pixels(files.path(files.PICTURES) / row[key])
                    for key in ("file", "overlay")
                    if key in row
                ]
                said = f"{row['label']}, answered {row['answer']}"
                beside = np.concatenate(pair, axis=1)[None]
                tf.summary.image(f"{kind}/{place:02}", beside, description=said)
    writer.close()


def _settings(recipe: Json) -> Json:
    """Return the fields that HParams can hold, and those of the last phase."""
    last = recipe.get("phases", [{}])[-1]
    fields = {**{k: v for k, v in recipe.items() if k not in ("reason", "phases")}, **last}
    fields["name"] = recipe.get("name")
    return {k: v for k, v in fields.items() if isinstance(v, (bool, int, float, str))}


def _pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))
