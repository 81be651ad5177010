"""Runs exported files on the images of a check, in this process or in a new one.

`python -m kerastl.serving.parity_child` imports what it needs, then reads from stdin what to do.
"""

import json
import sys
import warnings
from collections.abc import Mapping

import numpy as np

from kerastl._task import all_tasks
from kerastl.serving.artifacts import SavedModel, open_artifact

MAPS = "maps"
"""In the place of a format: a network that slides over larger images."""


EMBEDDED = 8  # images whose embeddings are compared: the function is that of the probabilities
Answers = dict[str, np.ndarray]


def run_artifacts(version: str, formats: list[str], given: Mapping[str, np.ndarray]) -> Answers:
    """Load and run each format of a version; return what it answers, an array an artifact.

    Args:
        version: the folder of the version.
        formats: names, or `[MAPS]`.
        given: `images`, and the encoded images one after another in `content`, which end at `ends`.
    """
    if formats == [MAPS]:
        return _maps(SavedModel(version), given)
    images, content, ends = given["images"], given["content"].tobytes(), given["ends"].tolist()
    files = [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    answers = {}
    for name in formats:
        if name != "saved_model":
            answers[name] = open_artifact(version, name)(images)
            continue
        served = SavedModel(version)
        answers["saved_model"] = served.classify(images)
        if files:
            answers["serving_bytes"] = served.classify_files(files)[served.answer]
        answers["embed"] = served.embed(images[:EMBEDDED])
    return answers


def main(version: str, sample: str, formats: list[str], result: str) -> None:
    """Run each format of a version on a `.npz` file, and write what it answers to another."""
    with np.load(sample) as given:
        np.savez(result, allow_pickle=False, **run_artifacts(version, formats, given))


def _maps(served: SavedModel, given: Mapping[str, np.ndarray]) -> Answers:
    file = np.array(given["content"].tobytes(), object)
    answers = served.run("serving_bytes", image_bytes=file, shorter=given["shorter"])
    return {
        "serving_default": served.classify(given["images"]),
        "serving_default, larger": served.classify(given["larger"]),
        "serving_bytes": answers["probabilities"],
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    all_tasks()  # imported while the artifacts are written
    if order := sys.stdin.read():  # nothing when the export has failed or was killed
        main(*json.loads(order))
