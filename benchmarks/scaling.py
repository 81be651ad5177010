"""Time, peak memory and store on disk over ever more images.

CIFAR-10 JPEGs at 96 pixels through MobileNetV2(alpha=0.35), each number of images in a fresh
process with an empty store. There are 12,000 files; beyond that their crops, stored anew.

- `embeddings`: `extract_embeddings`, n x 1280 numbers in float32, which it returns.
- `train`: `kerastl.train` with the head alone, without export and page; a sixth is to test.

    python benchmarks/scaling.py [--sizes 1000 4000 16000 64000] [--arms embeddings]

Expected: time grows as n (exponent about 1); the peak of memory grows by less than 200 MB beyond
the embeddings that are returned.
"""

import csv
import math
import os
import random
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common

BACKBONE = "MobileNetV2(alpha=0.35)"
IMAGE_SIZE = 96
ARMS = ("embeddings", "train")


def main() -> None:
    parser = common.arguments(__doc__, rounds=3)
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 4000, 16000, 64000])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--engine", default="auto")
    args = parser.parse_args()
    if args.smoke:
        args.sizes = [120, 240]
    report, goals, kept = common.Report(__file__, args), [], {}
    weights = common.weights_of(args, BACKBONE)
    with tempfile.TemporaryDirectory() as folder:
        files = common.image_files(args, "cifar10_jpg_subset", Path(folder))
        tables = {str(size): write_table(files, size, Path(folder)) for size in args.sizes}
        for arm in args.arms:
            runs: dict[str, list[dict[str, Any]]] = {size: [] for size in tables}
            for index, size in common.interleaved(list(tables), common.num_rounds(args)):
                options = {"table": str(tables[size]), "weights": weights, "engine": args.engine}
                runs[size].append(common.run_child(__file__, {**options, "arm": arm}))
                print(f"{arm}, round {index + 1}, {size} images: {runs[size][-1]}", flush=True)
            kept[arm] = runs
            rows = [row_of(int(size), runs[size]) for size in runs]
            report.table(f"{arm}, {BACKBONE} at {IMAGE_SIZE}", rows)
            goals += goals_of(arm, rows)
    report.keep(runs=kept)
    report.finish(goals)


def write_table(files: list[tuple[Path, str]], size: int, folder: Path) -> Path:
    """Write a CSV of so many images, of all classes alike; where there are too few, of crops."""
    from PIL import Image

    path = folder / f"{size}.csv"
    step = max(1, len(files) // size)
    chosen, rng = files[::step], random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "part"])
        for index in range(size):
            image, label = chosen[index % len(chosen)]
            if index >= len(chosen):
                target = folder / "crops" / f"{index:06}.jpg"
                if not target.is_file():
                    target.parent.mkdir(exist_ok=True)
                    with Image.open(image) as whole:
                        left, top = (int(rng.random() * side / 4) for side in whole.size)
                        right, bottom = (left + whole.width * 3 // 4, top + whole.height * 3 // 4)
                        whole.crop((left, top, right, bottom)).save(target, quality=95)
                image = target
            part = "test" if index % 6 == 5 else "train"
            writer.writerow([image.relative_to(folder), label, part])
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
        "store MB": common.median(runs, "store_mb"),
        "returned MB": returned,
        "peak less returned MB": peak - returned,
        "peak before MB": common.median(runs, "peak_before_mb"),
        "engine": runs[-1]["engine"],
    }


def goals_of(arm: str, rows: list[dict[str, Any]]) -> list[common.Goal]:
    few, many = rows[0], rows[-1]
    if few["images"] == many["images"]:
        return []
    times = many["images"] / few["images"]
    exponent = math.log(many["wall s"] / few["wall s"]) / math.log(times)
    beyond = many["peak less returned MB"] - few["peak less returned MB"]
    span = f"{arm}, from {few['images']:,} to {many['images']:,} images"
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

    if options["arm"] == "train":
        return measure_train(options)
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
        stored = megabytes(Path(folder))
    return {
        **seconds,
        "store_mb": stored,
        "images": len(embeddings.x),
        "peak_mb": common.peak_megabytes(),
        "peak_before_mb": before,
        "returned_mb": embeddings.x.nbytes / 1e6,
        "engine": runtime.usage.engine,
    }


def measure_train(options: dict[str, Any]) -> dict[str, Any]:
    """Train a head in this process, imports not counted."""
    import kerastl
    from kerastl.runs import training  # noqa: F401  # with TensorFlow

    before, start = common.peak_megabytes(), common.Seconds.now()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KERASTL_CACHE_DIR"] = f"{folder}/cache"
        kerastl.train(
            options["table"], BACKBONE, weights=options["weights"], image_size=IMAGE_SIZE,
            scenario="small_similar", export=False, page=False, output=f"{folder}/run",
            options=kerastl.DataOptions(split_column="part"), verbose=False,
        )  # fmt: skip
        seconds = (common.Seconds.now() - start).to_dict()
        stored = megabytes(Path(folder) / "cache")
    return {
        **seconds,
        "store_mb": stored,
        "peak_mb": common.peak_megabytes(),
        "peak_before_mb": before,
        "returned_mb": 0.0,
        "engine": "-",
    }


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__" and not common.child_main(measure):
    main()
