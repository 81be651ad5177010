"""What a `kerastl train` costs, by purpose: CPU and wall seconds, the store empty and full.

Photographs of ants, bees, cats and dogs; beyond the 1,197 that there are, crops of them. Each run
is a fresh process in which the functions that serve a purpose count their own seconds, without
those of the others that they call.

    python benchmarks/run_cost.py [--sizes 100 400 1000 4000] [--backbones ...] [--head-only]

Expected: at most 10 CPU seconds beyond the forward passes for a head alone.
"""

import functools
import importlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common

PURPOSES = {
    "reading and checking images": ["kerastl.data.load:load_data"],
    "choosing and building the engine": ["kerastl.frozen.engines:make_engine"],
    "forward passes": ["kerastl.frozen.engines:Engine.__call__"],
    "decoding, store": ["kerastl.frozen.extraction:Extraction.run"],
    "probes": ["kerastl.advice.probe:SoftmaxProbe.fit", "kerastl.advice.blend:BlendProbe.fit"],
    "diagnosis, advice": ["kerastl.advice.diagnosis:diagnose"],
    "building the network": ["kerastl.model.build:build_transfer_model"],
    "training": ["kerastl.training.fine_tune:fine_tune"],
    "measuring": ["kerastl.results.evaluate:collect_predictions"],
    "export": ["kerastl.serving.export:export_model"],
    "proof": ["kerastl.serving.parity:certify"],
    "explaining": ["kerastl.results.explain:explain"],
    "page": ["kerastl.runs.training:TrainingJob._write_page"],
}


def main() -> None:
    parser = common.arguments(__doc__, rounds=1)
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 400, 1000, 4000])
    parser.add_argument(
        "--backbones", nargs="+", default=["MobileNetV2(alpha=0.35)", "MobileNetV2", "ResNet50"]
    )
    parser.add_argument("--head-only", action="store_true", help="scenario small_similar alone")
    args = parser.parse_args()
    if args.smoke:
        args.sizes, args.backbones = [40], args.backbones[:1]
    report = common.Report(__file__, args)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        images = {size: lay_out(args, Path(folder) / str(size), size) for size in args.sizes}
        for backbone in args.backbones:
            for size in args.sizes:
                for scenario in ["small_similar"] if args.head_only else ["small_similar", "auto"]:
                    for row in measured(args, backbone, images[size], scenario, Path(folder)):
                        runs.append({"backbone": backbone, "images": size, **row})
                        print(json.dumps(runs[-1]), flush=True)
                report.table(
                    f"CPU seconds, {backbone}, {size} images", table_of(runs, backbone, size)
                )
    report.keep(runs=runs)
    report.finish(goals_of(runs))


def lay_out(args: Any, folder: Path, size: int) -> Path:
    """Lay out so many photographs, a sixth of them to test, as `train/` and `test/`."""
    from PIL import Image

    found = [
        pair
        for name in ("cats_vs_dogs_subset", "hymenoptera")
        for pair in common.image_files(args, name, folder / "raw")
    ]
    rng = random.Random(0)
    rng.shuffle(found)
    for number in range(size):
        path, label = found[number % len(found)]
        part = "test" if number % 6 == 5 else "train"
        target = folder / "images" / part / label / f"{number:05}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image = image.convert("RGB")
            if number >= len(found):  # another picture: nothing is to be found in the store
                left, top = (int(rng.random() * side / 5) for side in image.size)
                width, height = (int(side * 4 / 5) for side in image.size)
                image = image.crop((left, top, left + width, top + height))
            image.save(target, quality=90)
    return folder / "images"


def measured(
    args: Any, backbone: str, images: Path, scenario: str, folder: Path
) -> Iterator[dict[str, Any]]:
    """Yield the seconds of a run with an empty store, and of another one with what it left."""
    rounds = common.num_rounds(args)
    for number in range(rounds):
        with tempfile.TemporaryDirectory(dir=folder) as own:
            for store in ("empty", "full"):
                options = {
                    "data": str(images),
                    "backbone": backbone,
                    "weights": common.weights_of(args, backbone),
                    "scenario": scenario,
                    "output": f"{own}/{store}",
                    "cache": f"{own}/cache",
                }
                before = common.Seconds.now()
                found = common.run_child(__file__, options)
                whole = (common.Seconds.now() - before).to_dict()
                yield {
                    "scenario": scenario,
                    "store": store,
                    "round": number,
                    "whole": whole,
                    **found,
                }


class Meter:
    """Counts the seconds of each purpose, without those of the purposes inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._open = ["rest"]
        self._last = common.Seconds.now()

    def _count(self) -> None:
        now = common.Seconds.now()
        passed, self._last = now - self._last, now
        total = self.seconds.setdefault(self._open[-1], [0.0, 0.0])
        total[0] += passed.cpu
        total[1] += passed.wall

    @contextmanager
    def inside(self, purpose: str) -> Iterator[None]:
        """Count what happens here for a purpose."""
        self._count()
        self._open.append(purpose)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def watch(self, purpose: str, path: str) -> None:
        """Count the calls of a function, `module:name`, wherever kerastl has imported it to."""
        module, _, name = path.partition(":")
        *outer, last = name.split(".")
        owner = functools.reduce(getattr, outer, importlib.import_module(module))
        function: Callable[..., Any] = getattr(owner, last)

        @functools.wraps(function)
        def counted(*given: Any, **named: Any) -> Any:
            with self.inside(purpose):
                return function(*given, **named)

        holders = [owner] + [each for key, each in sys.modules.items() if key.startswith("kerastl")]
        for holder in holders:
            if vars(holder).get(last) is function:
                setattr(holder, last, counted)


def run(options: dict[str, Any]) -> dict[str, Any]:
    """Train, in this process, and return the seconds of each purpose."""
    os.environ["KERASTL_CACHE_DIR"] = options["cache"]
    started = time.process_time()
    meter = Meter()
    with meter.inside("imports"):
        from kerastl.cli.console import start_tensorflow
        from kerastl.runs import training

        start_tensorflow(deterministic=True, strategy="none")
    for purpose, paths in PURPOSES.items():
        for path in paths:
            meter.watch(purpose, path)
    training.train(
        options["data"],
        options["backbone"],
        weights=options["weights"],
        scenario=options["scenario"],
        output=options["output"],
        verbose=False,
    )
    with meter.inside("rest"):
        pass
    return {"purposes": meter.seconds, "before": started, "peak_mb": common.peak_megabytes()}


def table_of(runs: list[dict[str, Any]], backbone: str, size: int) -> list[dict[str, Any]]:
    """Return the seconds of each purpose, a column a run."""
    chosen = [run for run in runs if (run["backbone"], run["images"]) == (backbone, size)]
    columns = {
        f"{run['scenario']}, store {run['store']} ({run['round'] + 1})": run for run in chosen
    }
    rows = [
        {"purpose": purpose}
        | {name: round(run["purposes"].get(purpose, [0.0])[0], 2) for name, run in columns.items()}
        for purpose in ["imports", *PURPOSES, "rest"]
    ]
    for key in ("cpu", "wall"):
        rows.append(
            {"purpose": f"all, {key} s"}
            | {name: run["whole"][key] for name, run in columns.items()}
        )
    return rows


def goals_of(runs: list[dict[str, Any]]) -> list[common.Goal]:
    """Hold a head alone, from an empty store, against its goal."""
    goals = []
    for found in runs:
        if (found["scenario"], found["store"]) == ("small_similar", "empty"):
            beyond = found["whole"]["cpu"] - found["purposes"]["forward passes"][0]
            name = f"{found['backbone']}, {found['images']} images: beyond the forward passes"
            goals.append(common.Goal(name, beyond, 10.0, at_least=False))
    return goals


if __name__ == "__main__":
    if not common.child_main(run):
        main()
