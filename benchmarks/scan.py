"""How many files a second a scan reads, beside the bare decoding that training needs anyway.

    python benchmarks/scan.py            # 4,000 small images of each kind, and 397 photographs
    python benchmarks/scan.py --smoke

Arms, in one process and in turn: the headers alone, on one thread; the scan of `load_data` (the
headers, then a full decode); that of `kerastl scan`, which hashes and looks for alike pictures
besides; Pillow's `verify()`, on one thread; and `decode_image` by tf.data, as
`keras.utils.image_dataset_from_directory` reads files. What the child process of a scan takes to
start is a row of its own.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
from PIL import Image

BARE = "tf.data, decode alone"


def main() -> None:
    """Run the benchmark from the command line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = common.arguments(__doc__, rounds=5)
    parser.add_argument("--images", type=int, default=4000, help="small images of each kind")
    args = parser.parse_args()
    if args.smoke:
        args.images = 64
    report = common.Report(__file__, args)
    rows, runs = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name, paths in image_sets(args, Path(folder)).items():
            found, runs[name] = run_set(args, name, paths)
            rows += found
        start = starting(paths[:1])
    report.keep(runs=runs)
    report.table("Reading files", rows)
    report.table("Starting the child process, and one file", [start])
    slowest = min(row["images/CPU s"] for row in rows if row["arm"] == "headers")
    report.finish([common.Goal("headers of images a second and core", slowest, 3000)])


def image_sets(args: Any, folder: Path) -> dict[str, list[str]]:
    """Return the paths of each set of images."""
    rng = np.random.default_rng(0)
    sets: dict[str, list[str]] = {}
    for kind, side in (("jpg", 32), ("png", 32), ("jpg", 96)):
        mine = folder / f"{kind}{side}"
        mine.mkdir()
        paths = [str(mine / f"{number}.{kind}") for number in range(args.images)]
        for path in paths:
            coarse = rng.integers(0, 256, (side // 4, side // 4, 3), np.uint8)
            Image.fromarray(coarse).resize((side, side)).save(path)
        sets[f"{side} x {side} {kind}"] = paths
    found = common.image_files(args, "hymenoptera", folder)
    sets["photographs"] = [str(path) for path, _ in found[: args.images]]
    return sets


def run_set(args: Any, name: str, paths: Sequence[str]) -> tuple[list[dict[str, Any]], Any]:
    """Return a row an arm, and the seconds of each round."""
    arms = make_arms(paths)
    for run in arms.values():
        run()
    seconds: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for _, arm in common.interleaved(list(arms), common.num_rounds(args)):
        seconds[arm].append(common.timed(arms[arm]))
    rows = [
        {
            "images": name,
            "arm": arm,
            "images/s": len(paths) / common.median(mine, "wall"),
            "images/CPU s": len(paths) / common.median(mine, "cpu"),
            "CPU, times decoding": common.median_ratio(mine, seconds[BARE], "cpu"),
        }
        for arm, mine in seconds.items()
    ]
    return rows, seconds


def make_arms(paths: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """Return what reads the files in each way, in this very process."""
    import tensorflow as tf

    from kerastl.data import examine, scan

    def verify() -> None:
        for path in paths:
            with Image.open(path) as image:
                image.verify()

    def bare() -> None:
        dataset = tf.data.Dataset.from_tensor_slices(list(paths)).map(
            lambda path: tf.shape(
                tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
            ),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        for _ in dataset:
            pass

    def headers() -> None:
        for path in paths:
            examine._read_header(path, examine.Asked(scan.MAX_PIXELS))

    read = partial(examine.examine_files, paths)
    return {
        "headers": headers,
        "scan of load_data": partial(read, examine.Asked(scan.MAX_PIXELS)),
        "kerastl scan": partial(read, examine.Asked(scan.MAX_PIXELS, sums=True)),
        "Pillow verify()": verify,
        BARE: bare,
    }


def starting(paths: Sequence[str]) -> dict[str, float]:
    """Return the seconds of a first scan of one file, which starts the child, and of a second."""
    from kerastl.data.scan_worker import Worker

    worker = Worker()
    first = common.timed(lambda: worker.examine(paths, (10**9,)))
    second = common.timed(lambda: worker.examine(paths, (10**9,)))
    before = common.Seconds.now()
    worker.close()  # whose CPU seconds are counted when it has ended
    cpu = (common.Seconds.now() - before).cpu
    return {"first, wall s": first["wall"], "second, wall s": second["wall"], "both, CPU s": cpu}


if __name__ == "__main__":
    main()
