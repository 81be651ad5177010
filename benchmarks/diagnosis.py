"""What a diagnosis costs, in forward passes over the images that it looks at.

Each arm in a fresh process, from files, with a compiled graph, imports and reading the folder not
counted: `keras` is `predict` of the backbone over the images, `engine` one pass in the engine that
kerastl chose (with its building), `diagnose` all that `kerastl.diagnose` does, into an empty store.

    python benchmarks/diagnosis.py [--backbones MobileNetV2]

Goal: a diagnosis of 1,000 images costs at most 1.5 of Keras' passes in CPU seconds.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common

ARMS = ("keras", "engine", "diagnose")
BACKBONES = ("MobileNetV2", "MobileNetV2(alpha=0.35)")


def main() -> None:
    parser = common.arguments(__doc__, rounds=3)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--image-size", type=int, default=224)
    args = parser.parse_args()
    if args.smoke:
        args.images, args.image_size = 40, 96
    report, goals = common.Report(__file__, args), []
    with tempfile.TemporaryDirectory() as folder:
        images = common.photographs(args, Path(folder), args.images, 16)
        for backbone in args.backbones:
            runs = run_backbone(args, backbone, images)
            rows = [
                {
                    "arm": arm,
                    "wall s": common.median(runs[arm], "wall"),
                    "CPU s": common.median(runs[arm], "cpu"),
                    "in Keras' passes, CPU": common.median_ratio(runs[arm], runs["keras"], "cpu"),
                }
                for arm in ARMS
            ]
            report.table(f"{backbone} at {args.image_size}, {args.images} photographs", rows)
            ratio = common.median_ratio(runs["diagnose"], runs["keras"], "cpu")
            name = f"{backbone}: diagnose / a pass of Keras, CPU"
            goals.append(common.Goal(name, ratio, 1.5, at_least=False))
            report.keep(**{backbone: runs})
    report.finish(goals)


def run_backbone(args: Any, backbone: str, images: Path) -> dict[str, list[dict[str, Any]]]:
    """Run all arms in turn; return what each reported in each round."""
    options = {
        "backbone": backbone,
        "weights": common.weights_of(args, backbone),
        "images": str(images),
        "size": args.image_size,
    }
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for _, arm in common.interleaved(ARMS, common.num_rounds(args)):
        runs[arm].append(common.run_child(__file__, {**options, "arm": arm}))
        print(f"{backbone} {arm}: CPU {runs[arm][-1]['cpu']:.1f} s", flush=True)
    return runs


def measure(options: dict[str, Any]) -> dict[str, Any]:
    """Run one arm in this process."""
    import dataclasses

    import kerastl
    from kerastl.advice.diagnosis import diagnose
    from kerastl.frozen.activations import extract_embeddings
    from kerastl.frozen.store import ActivationStore

    size = options["size"]
    data = kerastl.load_data(options["images"])
    # The images alone are the matter: no others are compared with them.
    data = dataclasses.replace(data, validation=None)
    model = kerastl.build_transfer_model(
        options["backbone"], data.num_classes, weights=options["weights"], image_size=size
    )
    with tempfile.TemporaryDirectory() as folder:
        store = ActivationStore(folder)
        run = {
            "keras": lambda: model.predict(data.train.images(size), verbose=0),
            "engine": lambda: extract_embeddings(model, data.train, store=store),
            "diagnose": lambda: diagnose(model, data, store=store),
        }[options["arm"]]
        return common.timed(run)


if __name__ == "__main__" and not common.child_main(measure):
    main()
