"""An epoch of the suffix from stored activations against one of the whole model.

Both train the same layers of one network over the same frozen prefix, on batches of 32 with the
same flipped views: `whole` by `fit` on images (decoded once, then kept), `suffix` by `fit` on what
the store holds, `xla` the same with `jit_compile`. The first epoch, which is traced and compiled,
is thrown away (that of `xla` is in the table); then epochs alternate.

The bound is (1 + 2 S) / (3 S), where S is the suffix's share of the multiply-adds: a step over the
whole model is one forward pass through all of it, and two more of the suffix for its gradients.

    python benchmarks/suffix.py [--backbones MobileNetV2] [--targets 0.5 0.75 0.95]

Expected: the ratio at the bound or above at every depth.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common

NUM_IMAGES = {"MobileNetV2": 256, "ResNet50": 128, "EfficientNetB0": 256}


def main() -> None:
    parser = common.arguments(__doc__, rounds=5)
    parser.add_argument("--backbones", nargs="+", default=list(NUM_IMAGES))
    parser.add_argument("--images", type=int, help="to train on (default: 256; 128 for ResNet50)")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument(
        "--targets", nargs="+", type=float, default=[0.5, 0.75, 0.95],
        help="shares of the work below the cut; the nearest stage ends are taken",
    )  # fmt: skip
    parser.add_argument("--engine", default="auto", help="what fills the store")
    args = parser.parse_args()
    if args.smoke:
        args.images, args.image_size = 32, 64
    report, goals, rows, runs = common.Report(__file__, args), [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        for backbone in args.backbones:
            for row, seconds in run_backbone(args, backbone, Path(folder)):
                rows.append(row)
                name = f"{backbone}: {row['cut']}"
                runs[name] = seconds
                for key, shown in (("wall", "whole / suffix"), ("CPU", "the same, CPU")):
                    goals.append(
                        common.Goal(f"{name}, {key} / bound", row[shown] / row["bound"], 1)
                    )
    report.keep(runs=runs)
    report.table(f"An epoch at {args.image_size} pixels, batches of 32", rows)
    report.finish(goals)


def run_backbone(args: Any, backbone: str, folder: Path) -> Any:
    """Yield the row of each depth, and the seconds of each round."""
    import keras
    import tensorflow as tf

    from kerastl.data.load import load_data
    from kerastl.frozen.store import ActivationStore
    from kerastl.model.build import build_transfer_model
    from kerastl.model.freeze import stages

    count = args.images or NUM_IMAGES.get(backbone, 128)
    images = folder / f"{count}"
    if not images.is_dir():
        common.photographs(args, images, count, 8)
    keras.utils.clear_session()
    tf.get_logger().setLevel("ERROR")  # each depth is traced anew, as it must be
    data = load_data(images / "images")
    size = args.image_size
    weights = common.weights_of(args, backbone)
    store = ActivationStore(folder / f"store {backbone}", max_bytes=8 * 10**9)
    model = build_transfer_model(backbone, data.num_classes, weights=weights, image_size=size)
    for depth in chosen_depths([stage.macs_share for stage in stages(model)], args.targets):
        yield run_depth(args, backbone, model, data, depth, store)
    store.clear()


def chosen_depths(shares: list[float], targets: list[float]) -> list[int]:
    """Return the freeze depths, short of all stages, nearest to shares of the work."""
    below = [sum(shares[:depth]) for depth in range(len(shares))]
    chosen: list[int] = []
    for target in sorted(targets):
        free = [depth for depth in range(1, len(shares)) if depth not in chosen]
        if free:
            chosen.append(min(free, key=lambda depth: abs(below[depth] - target)))
    return sorted(chosen)


def run_depth(
    args: Any, backbone: str, model: Any, data: Any, depth: int, store: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure the arms at one freeze depth."""
    import keras

    from kerastl.data.augment import AUGMENTATIONS
    from kerastl.frozen.runtime import open_runtime
    from kerastl.model.freeze import freeze_to, inference_below, stages
    from kerastl.model.recipes import Phase, make_recipe
    from kerastl.training.stored import stored_phase

    chain = stages(model)
    recipe = make_recipe(
        "small_similar", num_stages=len(chain), num_images=len(data.train),
        num_classes=data.num_classes,
    )  # fmt: skip
    freeze_to(model, depth)
    size, runtime = args.image_size, open_runtime(store, args.engine, recipe.batch_size)
    stored = stored_phase(
        model, data, recipe, Phase("suffix", depth, epochs=1, learning_rate=1e-3), runtime
    )
    if stored is None:
        raise SystemExit(f"There is no room for the activations of {chain[depth - 1].name}.")
    batches = data.train.batches(
        size, recipe.batch_size, shuffle=True, seed=recipe.seed, epochs=1,
        augmentation=AUGMENTATIONS[recipe.augmentation], one_hot=True,
    )  # fmt: skip
    twin = keras.Model(stored.network.inputs, stored.network.outputs)
    arms = {
        "whole": (model, batches), "suffix": (stored.network, stored.train),
        "xla": (twin, stored.train),
    }  # fmt: skip
    seconds: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    with inference_below(model, depth):
        for arm, (network, epoch) in arms.items():
            compile_for(network, model, jit_compile=arm == "xla")
            first = common.timed(lambda n=network, e=epoch: n.fit(e, shuffle=False, verbose=0))
        for _, arm in common.interleaved(list(arms), common.num_rounds(args)):
            network, epoch = arms[arm]
            seconds[arm].append(
                common.timed(lambda n=network, e=epoch: n.fit(e, shuffle=False, verbose=0))
            )
    share = 1 - sum(stage.macs_share for stage in chain[:depth])
    row = {
        "backbone": backbone,
        "cut": chain[depth - 1].name,
        "depth": f"{depth}/{len(chain)}",
        "images": len(data.train),
        "S": share,
        "whole s": common.median(seconds["whole"], "wall"),
        "suffix s": common.median(seconds["suffix"], "wall"),
        "bound": (1 + 2 * share) / (3 * share),
        "whole / suffix": common.median_ratio(seconds["whole"], seconds["suffix"], "wall"),
        "the same, CPU": common.median_ratio(seconds["whole"], seconds["suffix"], "cpu"),
        "xla / suffix, CPU": common.median_ratio(seconds["xla"], seconds["suffix"], "cpu"),
        "first epoch of xla, CPU s": first["cpu"],
        "filling s": runtime.usage.seconds,
    }
    return row, seconds


def compile_for(network: Any, model: Any, *, jit_compile: bool) -> None:
    """Compile as `fine_tune` does; the rate is so small that no epoch changes what follows."""
    import keras

    from kerastl.model.optimizers import layerwise_optimizer

    network.compile(
        layerwise_optimizer(model, "adamw", learning_rate=1e-9, layer_decay=0.5, clipnorm=1.0),
        loss=keras.losses.CategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )


if __name__ == "__main__":
    main()
