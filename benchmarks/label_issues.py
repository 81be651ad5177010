"""How many labels that were made wrong `find_label_issues` finds.

    python benchmarks/label_issues.py
    python benchmarks/label_issues.py --smoke

On each open set (at most 1,020 images), 5 % and 20 % of the labels are replaced by other classes
at random. `precision` and `recall` are of the images that are returned; `counted` columns are of
the images that confident learning counts itself. `average precision` is of the whole ranking,
and `first 20` is the share of the first 20 images that are wrong. Labels that were wrong in the set
before count as right here, so precision is a lower bound.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common
import numpy as np
from advice_grid import SETS, stage_embeddings

NETWORK = "MobileNetV2(alpha=0.35)"
SHARES = (0.05, 0.2)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = common.arguments(__doc__, rounds=3)
    parser.add_argument("--image-size", type=int, default=224)
    args = parser.parse_args()
    args.max_train = 60 if args.smoke else 1020
    sets = SETS[:1] if args.smoke else SETS
    report = common.Report(__file__, args)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KERASTL_CACHE_DIR"] = folder
        for name in sets:
            parts = stage_embeddings(args, name, NETWORK, Path(folder))[:2]
            x, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
            for share in SHARES:
                found = [measure(x, labels, share, seed) for seed in range(common.num_rounds(args))]
                means = {key: round(float(np.mean([f[key] for f in found])), 3) for key in found[0]}
                rows.append({"set": name, "made wrong": share, "images": len(x), **means})
                report.keep(runs=rows)
    report.table("Labels made wrong, mean over seeds", rows)
    report.finish([])


def measure(x: np.ndarray, truth: np.ndarray, share: float, seed: int) -> dict[str, float]:
    """Return what is found of labels that are made wrong."""
    from sklearn.metrics import average_precision_score

    from kerastl.results.label_issues import counted_by_confident_learning, out_of_fold, suspicious

    rng = np.random.default_rng(seed)
    num_classes = int(truth.max()) + 1
    wrong = rng.random(len(truth)) < share
    others = (truth + rng.integers(1, num_classes, len(truth))) % num_classes
    labels = np.where(wrong, others, truth)
    start = common.Seconds.now()
    probabilities = out_of_fold(x, labels, num_classes, np.arange(len(x)), seed)
    seconds = common.Seconds.now() - start
    own = probabilities[np.arange(len(x)), labels]
    chosen = np.zeros(len(x), bool)
    chosen[suspicious(probabilities, labels)] = True
    counted = counted_by_confident_learning(probabilities, labels)
    return {
        "precision": wrong[chosen].mean() if chosen.any() else 0.0,
        "recall": chosen[wrong].mean(),
        "precision counted": wrong[counted].mean() if counted.any() else 0.0,
        "recall counted": counted[wrong].mean(),
        "average precision": average_precision_score(wrong, -own),
        "first 20": wrong[np.argsort(own)[:20]].mean(),
        "CPU s": seconds.cpu,
    }


if __name__ == "__main__":
    main()
