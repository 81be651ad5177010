"""The fresh process that runs exported files on the images of a parity check.

`python -m kerastl.serving.parity_child VERSION SAMPLE.npz FORMATS RESULT.npz`
"""

import sys
import warnings


def main(version: str, sample: str, formats: str, result: str) -> None:
    """Run each format of a version, and write what it answers.

    Args:
        version: the folder of the version.
        sample: `.npz` with `images`, and the encoded images one after another in `content`, which
            end at `ends`.
        formats: names, separated by commas.
        result: `.npz` to write, an array an artifact.
    """
    import numpy as np

    from kerastl.serving.artifacts import SavedModel, open_artifact

    given = np.load(sample)
    images = given["images"]
    content = given["content"].tobytes()
    ends = given["ends"].tolist()
    files = [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    answers = {}
    for name in formats.split(","):
        if name != "saved_model":
            answers[name] = open_artifact(version, name)(images)
            continue
        served = SavedModel(version)
        answers["saved_model"] = served.classify(images)
        answers["serving_bytes"] = served.classify_files(files)["probabilities"]
        answers["embed"] = served.embed(images)
    np.savez(result, allow_pickle=False, **answers)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
