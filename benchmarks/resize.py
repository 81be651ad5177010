"""How photographs of other shapes are best brought to the square of a network.

For each set, network and size: the embeddings that the default head reads (all stages), with images
squashed, padded and cropped, and a probe fitted to halves drawn by each round and measured on the
other half. The same images and halves in each arm; the interval is of the difference to `squash`,
by the corrected resampled t of Nadeau and Bengio (2003), since halves overlap.

    python benchmarks/resize.py [--networks "MobileNetV2(alpha=0.35)"] [--sizes 224]

Sets whose images are square (fashion-mnist, CIFAR-10, sign language) come out the same in all arms.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common
import numpy as np
from scipy import stats

ARMS = ("squash", "pad", "crop")
SETS = ("hymenoptera", "cats_vs_dogs_subset")


def main() -> None:
    parser = common.arguments(__doc__, rounds=10)
    parser.add_argument("--networks", nargs="+", default=list(common.WEIGHTS)[::-1])
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 224])
    args = parser.parse_args()
    if args.smoke:
        args.networks, args.sizes = args.networks[:1], [96]
    report, rows = common.Report(__file__, args), []
    differences: dict[str, list[np.ndarray]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        for name in SETS:
            common.image_files(args, name, Path(folder))
            for network in args.networks:
                for size in args.sizes:
                    found = measure(args, Path(folder) / name, network, size)
                    for arm in ARMS:
                        differences[arm].append(found[arm] - found["squash"])
                        rows.append(
                            {"set": name, "network": network, "size": size} | row(found, arm)
                        )
    report.table("Test accuracy, in points", rows)
    overall = {arm: np.mean(differences[arm], axis=0) for arm in ARMS}
    report.table("Over all", [row(overall, arm) for arm in ARMS])
    report.finish()


def measure(args: Any, folder: Path, network: str, size: int) -> dict[str, np.ndarray]:
    """Return the accuracies of each arm, one a round, in points."""
    import kerastl
    from kerastl.advice.probe import LinearProbe
    from kerastl.data.partition import stratified_split
    from kerastl.frozen.activations import extract_embeddings

    found = {}
    for arm in ARMS:
        data = (
            kerastl.load_data(folder / "train", test_fraction=0, validation_fraction=0, resize=arm),
            kerastl.load_data(
                next(folder.glob("[vt][ae][ls]*")),
                test_fraction=0,
                validation_fraction=0,
                resize=arm,
            ),
        )
        model = kerastl.build_transfer_model(
            network, data[0].num_classes, head="stages", image_size=size,
            weights=common.weights_of(args, network),
        )  # fmt: skip
        both = [extract_embeddings(model, each.train, store=None) for each in data]
        x, y = (np.concatenate([getattr(one, part) for one in both]) for part in ("x", "y"))
        scores = []
        for seed in range(common.num_rounds(args)):
            train, test = stratified_split(y, 0.5, seed)
            probe = LinearProbe(seed=seed).fit(x[train], y[train])
            scores.append(100 * float(np.mean(probe.predict(x[test]) == y[test])))
        found[arm] = np.array(scores)
        print(f"{folder.name} {network} {size} {arm}: {found[arm].mean():.2f}", flush=True)
    return found


def row(found: dict[str, np.ndarray], arm: str) -> dict[str, Any]:
    """Return the mean of an arm, and its difference to `squash` with the 95 % interval."""
    gains = found[arm] - found["squash"]
    count = len(gains)
    # Half of the images test, half train: their ratio is 1.
    error = float(gains.std(ddof=1) * np.sqrt(1 / count + 1)) if count > 1 else float("nan")
    half = float(stats.t.ppf(0.975, max(1, count - 1))) * error
    return {
        "arm": arm,
        "mean": round(float(found[arm].mean()), 3),
        "gain": round(float(gains.mean()), 3),
        "low": round(float(gains.mean()) - half, 3),
        "high": round(float(gains.mean()) + half, 3),
    }


if __name__ == "__main__":
    main()
