"""The fresh process that runs exported files on the images of a parity check.

`python -m kerastl.serving.parity_child` imports what it needs, then reads from stdin what to do.
"""

import json
import sys
import warnings

import numpy as np

from kerastl.serving.artifacts import SavedModel, open_artifact


def main(version: str, sample: str, formats: list[str], result: str) -> None:
    """Run each format of a version, and write what it answers.

    Args:
        version: the folder of the version.
        sample: `.npz` with `images`, and the encoded images one after another in `content`, which
            end at `ends`.
        formats: names.
        result: `.npz` to write, an array an artifact.
    """
    given = np.load(sample)
    images, content, ends = given["images"], given["content"].tobytes(), given["ends"].tolist()
    files = [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    answers = {}
    for name in formats:
        if name != "saved_model":
            answers[name] = open_artifact(version, name)(images)
            continue
        served = SavedModel(version)
        answers["saved_model"] = served.classify(images)
        answers["serving_bytes"] = served.classify_files(files)[served.answer]
        answers["embed"] = served.embed(images)
    np.savez(result, allow_pickle=False, **answers)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if order := sys.stdin.read():  # nothing when the export has failed or was killed
        main(*json.loads(order))
