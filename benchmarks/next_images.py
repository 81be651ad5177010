"""Accuracy for a number of labels, where `next_images` chooses the images, and with random ones.

    python benchmarks/next_images.py
    python benchmarks/next_images.py --smoke

Of each open set (at most 1,020 images without labels) 1, 2, 5, 10 and 20 images a class are chosen,
each time those that had been chosen and new ones. What is chosen is labelled, and a `BlendProbe`
on the embeddings of all stages is fitted and tested. `margin` starts with random images.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common
import numpy as np
from advice_grid import SETS, stage_embeddings

NETWORK = "MobileNetV2(alpha=0.35)"
LABELS = (1, 2, 5, 10, 20)  # a class
RULES = ("random", "typical", "margin")


def main() -> None:
    """Run the benchmark from the command line."""
    parser = common.arguments(__doc__, rounds=5)
    parser.add_argument("--image-size", type=int, default=224)
    args = parser.parse_args()
    args.max_train = 60 if args.smoke else 1020
    report = common.Report(__file__, args)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KERASTL_CACHE_DIR"] = folder
        for name in SETS[:1] if args.smoke else SETS:
            *pool, test = stage_embeddings(args, name, NETWORK, Path(folder))
            x, y = (np.concatenate(both) for both in zip(*pool, strict=True))
            for seed in range(common.num_rounds(args)):
                for rule in RULES:
                    found = grow(x, y, *test, rule, seed)
                    runs.append({"set": name, "seed": seed, "rule": rule, "accuracies": found})
            report.keep(runs=runs)
    rows = table(runs)
    report.table("Test accuracy, mean over sets and seeds", rows)
    report.finish([])


def table(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row a number of labels; the interval is over sets, each the mean of its seeds."""
    num_sets = len({run["set"] for run in runs})
    every = np.array([run["accuracies"] for run in runs])  # set by set, seed by seed, rule by rule
    means = every.reshape(num_sets, -1, len(RULES), len(LABELS)).mean(1)
    gains = 100 * (means[:, RULES.index("typical")] - means[:, RULES.index("random")])
    draws = np.random.default_rng(0).integers(num_sets, size=(10_000, num_sets))
    low, high = np.percentile(gains[draws].mean(1), [2.5, 97.5], axis=0)
    return [
        {"labels a class": labels}
        | {rule: round(float(means[:, row, place].mean()), 3) for row, rule in enumerate(RULES)}
        | {
            "typical - random": round(float(gains[:, place].mean()), 1),
            "95 %": f"{low[place]:+.1f} to {high[place]:+.1f}",
        }
        for place, labels in enumerate(LABELS)
    ]


def grow(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, rule: str, seed: int
) -> list[float]:
    """Return the test accuracy at each number of labels."""
    from kerastl.advice.blend import BlendProbe
    from kerastl.advice.probe import standardised_rows
    from kerastl.results.next_labels import least_sure_first, typical_first

    standard, num_classes = standardised_rows(x).x, int(y.max()) + 1
    rng = np.random.default_rng(seed)
    labelled, probe, found = np.zeros(0, int), None, []
    for labels in LABELS:
        left = np.setdiff1d(np.arange(len(x)), labelled)
        count = min(labels * num_classes - len(labelled), len(left))
        if rule == "typical":
            new = typical_first(standard[left], standard[labelled], count, seed=seed)
        elif rule == "margin" and probe is not None:
            new = least_sure_first(probe.predict_proba(x[left]), count)
        else:
            new = rng.permutation(len(left))[:count]
        labelled = np.concatenate([labelled, left[new]])
        if len(np.unique(y[labelled])) > 1:
            probe = BlendProbe().fit(x[labelled], y[labelled])
            found.append(float(probe.score(x_test, y_test)))
        else:
            found.append(float((y_test == y[labelled][0]).mean()))
    return found


if __name__ == "__main__":
    main()
