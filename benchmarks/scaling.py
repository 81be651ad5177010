"""Time and peak memory of `extract_embeddings` over ever more images.

CIFAR-10 JPEGs at 96 pixels through MobileNetV2(alpha=0.35), each number of images in a fresh
process with an empty store. There are 12,000 files; beyond that they are listed again.

    python benchmarks/scaling.py [--sizes 1000 4000 16000]

Expected: time grows as n (exponent about 1); the peak of memory grows by less than 200 MB beyond
the embeddings that are returned, which are n x 1280 numbers in float32.
"""

import csv
import math
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common

BACKBONE = "MobileNetV2(alpha=0.35)"
IMAGE_SIZE = 96


def main() -> None:
    parser = common.arguments(__doc__, rounds=3)
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 4000, 16000])
    parser.add_argument("--engine", default="auto")
    args = parser.parse_args()
    if args.smoke:
        args.sizes = [32, 64]
    report = common.Report(__file__, args)
    weights = common.weights_of(args, BACKBONE)
    with tempfile.TemporaryDirectory() as folder:
        files = common.image_files(args, "cifar10_jpg_subset", Path(folder))
        tables = {str(size): write_table(files, size, Path(folder)) for size in args.sizes}
        runs: dict[str, list[dict[str, Any]]] = {size: [] for size in tables}
        for index, size in common.interleaved(list(tables), common.num_rounds(args)):
            options = {"table": str(tables[size]), "weights": weights, "engine": args.engine}
            runs[size].append(common.run_child(__file__, options))
            print(f"round {index + 1}, {size} images: {runs[size][-1]['wall']:.1f} s", flush=True)
    report.keep(runs=runs)
    rows = [row_of(int(size), runs[size]) for size in runs]
    report.table(f"extract_embeddings, {BACKBONE} at {IMAGE_SIZE}", rows)
    report.finish(goals_of(rows))


def write_table(files: list[tuple[Path, str]], size: int, folder: Path) -> Path:
    """Write a CSV of so many images, of all classes alike, listed again when there are too few."""
    path = folder / f"{size}.csv"
    step = max(1, len(files) // size)
    chosen = files[::step]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label"])
        for index in range(size):
            image, label = chosen[index % len(chosen)]
            writer.writerow([image.relative_to(folder), label])
    return path


def row_of(size: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    wall, cpu, peak = (common.median(runs, key) for key in ("wall", "cpu", "peak_mb"))
    returned = runs[0]["returned_mb"]
    return {
        "images": size,
        "wall s": wall,
        "CPU s": cpu,
        "ms an image": 1000 * wall / size,
        "peak MB": peak,
        "returned MB": returned,
        "peak less returned MB": peak - returned,
        "peak before MB": common.median(runs, "peak_before_mb"),
        "engine": runs[-1]["engine"],
    }


def goals_of(rows: list[dict[str, Any]]) -> list[common.Goal]:
    few, many = rows[0], rows[-1]
    if few["images"] == many["images"]:
        return []
    times = many["images"] / few["images"]
    exponent = math.log(many["wall s"] / few["wall s"]) / math.log(times)
    beyond = many["peak less returned MB"] - few["peak less returned MB"]
    span = f"from {few['images']:,} to {many['images']:,} images"
    return [
        common.Goal(f"exponent of time {span}", exponent, 1.1, at_least=False),
        common.Goal(f"growth of the peak beyond what is returned {span}, MB", beyond, 200, False),
        common.Goal(
            f"growth of the peak {span}, MB", many["peak MB"] - few["peak MB"], 200, at_least=False
        ),
    ]


def measure(options: dict[str, Any]) -> dict[str, Any]:
    """Extract from one number of images in this process."""
    from kerastl.data.load import load_data
    from kerastl.frozen.activations import extract_embeddings
    from kerastl.frozen.runtime import open_runtime
    from kerastl.frozen.store import ActivationStore
    from kerastl.model.build import build_transfer_model

    data = load_data(options["table"], validation_fraction=0, test_fraction=0)
    model = build_transfer_model(
        BACKBONE, data.num_classes, weights=options["weights"], image_size=IMAGE_SIZE
    )
    before = common.peak_megabytes()
    with tempfile.TemporaryDirectory() as folder:
        start = common.Seconds.now()
        runtime = open_runtime(ActivationStore(folder), options["engine"])
        embeddings = extract_embeddings(model, data.train, runtime=runtime)
        seconds = (common.Seconds.now() - start).to_dict()
    return {
        **seconds,
        "images": len(embeddings.x),
        "peak_mb": common.peak_megabytes(),
        "peak_before_mb": before,
        "returned_mb": embeddings.x.nbytes / 1e6,
        "engine": runtime.usage.engine,
    }


if __name__ == "__main__" and not common.child_main(measure):
    main()
