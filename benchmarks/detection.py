"""What a detector reaches on frozen stages, in CPU seconds, and what opening them gains.

300 scenes to train on and 150 to test on: one to three hand signs cut out and pasted on photographs
(`cases/scenes.py` of the shared folder), at 160 pixels. For each seed the head alone is trained,
from a store that an epoch before has filled; then, for so many seeds as `--opened`, head and open
stages. The interval of the gain is of 1,000 draws of the test images, the same for both.

    python benchmarks/detection.py [--opened 3]

Goals: AP50 of 0.90 and AP of 0.50 or more in at most 60 CPU seconds from a warm store.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common
import numpy as np

BACKBONE = "MobileNetV2(alpha=0.35)"
SIZE = 160
SETS = ("sign_language_digits", "cats_vs_dogs_subset")


def main() -> None:
    parser = common.arguments(__doc__, rounds=3)
    parser.add_argument("--opened", type=int, default=3, help="seeds for which stages are opened")
    args = parser.parse_args()
    report, rows = common.Report(__file__, args), []
    with tempfile.TemporaryDirectory() as folder:
        scenes = make_scenes(args, Path(folder))
        os.environ["KERASTL_CACHE_DIR"] = str(Path(folder) / "store")
        for seed in range(common.num_rounds(args)):
            rows += measure(args, scenes, seed)
            print(rows[-2:], flush=True)
    report.table("Objects on 150 test scenes", rows)
    report.finish()


def make_scenes(args: Any, folder: Path) -> Path:
    """Write the scenes and return their folder."""
    for name in SETS:
        common.image_files(args, name, folder / "raw")
    counts = ["--train", "24", "--test", "12"] if args.smoke else []
    maker = common.shared_file(args, "cases/scenes.py")
    command = [sys.executable, str(maker), str(folder / "raw"), str(folder / "scenes"), *counts]
    subprocess.run(command, check=True)
    return folder / "scenes"


def measure(args: Any, scenes: Path, seed: int) -> list[dict[str, Any]]:
    """Return a row for the head alone, and one for open stages."""
    import kerastl
    from kerastl.results.evaluate import collect_predictions

    data = kerastl.load_data(
        scenes / "train.json", test=scenes / "test.json", task="detection", validation_fraction=0
    )
    rows, answers = [], []
    arms = [("small_similar", 1), ("small_similar", None), ("large_similar", None)]
    for scenario, epochs in arms[seed > 0 : 3 if seed < args.opened else 2]:
        model = kerastl.build_transfer_model(
            BACKBONE, data.num_classes, weights=common.weights_of(args, BACKBONE), image_size=SIZE,
            task="detection",
        )  # fmt: skip
        recipe = kerastl.make_recipe(
            scenario, num_stages=len(kerastl.stages(model)), num_images=len(data.train),
            num_classes=data.num_classes, task="detection", seed=seed,
        )  # fmt: skip
        epochs = 1 if args.smoke else epochs
        start = common.Seconds.now()
        kerastl.fine_tune(model, data, recipe=recipe, epochs=epochs, verbose=False)
        seconds = common.Seconds.now() - start
        found = collect_predictions(model, data.test)
        measures = found.measures()
        rows.append(
            {
                "seed": seed,
                "trained": "head" if scenario == "small_similar" else "head, open stages",
                **{name: round(measures[name], 3) for name in ("ap", "ap50", "ap75")},
                "cpu": round(seconds.cpu, 1),
            }
        )
        answers.append(found)
    if seed < args.opened:
        rows[-1] |= gain(answers[-2], answers[-1])
    return rows[seed == 0 :]


def gain(before: Any, after: Any) -> dict[str, float]:
    """Return how much AP rose, with the 95 % interval over draws of the test images."""
    from kerastl.tasks._average_precision import average_precisions, match

    num_classes, num_images = len(before.class_names), len(before)
    both = [match(one.labels, one.outputs, num_classes) for one in (before, after)]
    rng = np.random.default_rng(0)
    draws = rng.multinomial(num_images, np.full(num_images, 1 / num_images), 1000)
    gains = []
    for counts in [np.ones(num_images), *draws.astype("float64")]:
        ap = [np.nanmean([average_precisions(one, counts) for one in each]) for each in both]
        gains.append(ap[1] - ap[0])
    ends = np.quantile(gains[1:], [0.025, 0.975])
    found = zip(("gain", "low", "high"), (gains[0], *ends), strict=True)
    return {name: round(float(value), 3) for name, value in found}


if __name__ == "__main__":
    main()
