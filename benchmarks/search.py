"""The search against KerasTuner's RandomSearch over the same list of trials, and one fine-tuning.

Each arm in a fresh process, whose imports are not counted; the images are decoded beforehand:

- `naive`: RandomSearch as a user would write it: 6 freeze depths x 3 rates, 3 epochs each, the
  network of `keras.applications` with pooling, Dropout 0.2 and Dense, Adam, images cached, the
  whole network in each step, a checkpoint a trial. With `--trials-measured N` the first N that it
  draws are run and their seconds scaled up to 18; the accuracy is then that of the best of N.
- `same`: `kerastl.search` over the same list, all 18 trials with 3 epochs, and the full training.
- `search`: `kerastl.search` as it comes: depths by the profile, successive halving, full training.
  Of both, the seconds until the last trial has ended stand beside those in full: the naive list
  ends there.
- `fine_tune`: one naive fine-tuning of everything for 10 epochs (Adam 1e-5, the guide's rate).

    python benchmarks/search.py [--set sign_language_digits] [--trials-measured 6]

Goals in CPU seconds on two cores: the trials of `search` and `same` at least 8 times fewer than
`naive`, with a test accuracy no worse than 0.5 points below; `search` in full at most twice as many
as `fine_tune`.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common

ARMS = ("naive", "same", "search", "fine_tune")
DEPTHS = 6
RATES = (1e-4, 3e-4, 1e-3)
EPOCHS, FULL_EPOCHS = 3, 10
BATCH_SIZE = 32


def main() -> None:
    parser = common.arguments(__doc__, rounds=1)
    parser.add_argument("--backbone", default="MobileNetV2")
    parser.add_argument("--set", default="sign_language_digits")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--images", type=int, default=600, help="to train and validate on")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--trials-measured", type=int, help="of the 18 naive ones (default: all)")
    args = parser.parse_args()
    if args.smoke:
        args.images, args.image_size, args.trials_measured = 60, 96, 1
    args.trials_measured = args.trials_measured or DEPTHS * len(RATES)
    report = common.Report(__file__, args)
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in args.arms}
    with tempfile.TemporaryDirectory() as folder:
        common.image_files(args, args.set, Path(folder))
        options = {
            "images": str(Path(folder) / args.set),
            "backbone": args.backbone,
            "weights": common.weights_of(args, args.backbone),
            "count": args.images,
            "size": args.image_size,
            "trials_measured": args.trials_measured,
            "smoke": args.smoke,
        }
        for turn, arm in common.interleaved(args.arms, common.num_rounds(args)):
            found = common.run_child(__file__, {**options, "arm": arm, "seed": turn})
            runs[arm].append({**found, **found.pop("seconds")})
    title = f"{args.backbone} at {args.image_size}, {args.images} images of {args.set}"
    report.table(title, [row_of(arm, runs[arm]) for arm in args.arms])
    report.keep(runs=runs)
    report.finish(goals_of(runs))


def row_of(arm: str, mine: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "arm": arm,
        "CPU s": common.median(mine, "cpu"),
        "of trials": common.median(mine, "trials_cpu"),
        "wall s": common.median(mine, "wall"),
        "trials": mine[0]["trials"],
        "best": mine[0]["best"],
        "validation": common.median(mine, "validation"),
        "test": common.median(mine, "test"),
    }


def goals_of(runs: dict[str, list[dict[str, Any]]]) -> list[common.Goal]:
    goals = []
    for arm in ("same", "search"):
        if arm in runs and "naive" in runs:
            ratio = common.median(runs["naive"], "cpu") / common.median(runs[arm], "trials_cpu")
            whole = common.median_ratio(runs["naive"], runs[arm], "cpu")
            lead = common.median(runs[arm], "test") - common.median(runs["naive"], "test")
            goals.append(
                common.Goal(f"{arm}: trials, times fewer CPU seconds than naive", ratio, 8)
            )
            goals.append(common.Goal(f"{arm}: in full, times fewer than naive", whole, 8))
            goals.append(common.Goal(f"{arm}: test accuracy above naive", lead, -0.005))
    if "search" in runs and "fine_tune" in runs:
        times = common.median_ratio(runs["search"], runs["fine_tune"], "cpu")
        goals.append(common.Goal("search: times one fine-tuning", times, 2, at_least=False))
    return goals


def measure(options: dict[str, Any]) -> dict[str, Any]:
    """Run one arm in this process."""
    import keras

    import kerastl

    data = kerastl.load_data(options["images"], seed=0)
    kept = options["count"] / (len(data.train) + len(data.validation))
    data = reduced(data, kept)
    for split in (data.train, data.validation, data.test):
        split.batches(options["size"])  # decodes, and keeps the pixels
    keras.utils.set_random_seed(options["seed"])
    os.environ["KERASTL_CACHE_DIR"] = tempfile.mkdtemp()
    arm = {"naive": naive, "same": ours, "search": ours, "fine_tune": fine_tune}[options["arm"]]
    return arm(options, data)


def reduced(data: Any, share: float) -> Any:
    """Keep a share of the training and validation images, in their stratified order."""
    import dataclasses

    from kerastl.data.partition import stratified_split

    if share >= 1:
        return data
    parts = {}
    for part in ("train", "validation"):
        split = getattr(data, part)
        parts[part] = split.subset(stratified_split(split.labels, share, 0)[1])
    return dataclasses.replace(data, **parts)


def ours(options: dict[str, Any], data: Any) -> dict[str, Any]:
    import kerastl
    from kerastl.training.oracles import SearchSpace
    from kerastl.training.search import search
    from kerastl.training.search_result import describe_trial

    space = SearchSpace()
    if options["arm"] == "same":
        space = SearchSpace(tuple(depths_of(options)), RATES, EPOCHS, EPOCHS)
    start = common.Seconds.now()
    how: dict[str, Any] = {"weights": options["weights"], "image_size": options["size"]}
    result = search(
        data, options["backbone"], **how, space=space, max_trials=2 if options["smoke"] else 20,
        seed=options["seed"], train_best=False, verbose=False,
    )  # fmt: skip
    of_trials = common.Seconds.now() - start
    model = kerastl.build_transfer_model(options["backbone"], data.num_classes, **how)
    kerastl.fine_tune(model, data, recipe=result.recipe, verbose=False)
    seconds = common.Seconds.now() - start
    return {
        "seconds": seconds.to_dict(),
        "trials_cpu": of_trials.cpu,
        "trials": len(result.trials),
        "best": describe_trial(result.best),
        "validation": result.best.score,
        "corrected": result.corrected.score,
        "test": kerastl.evaluate(model, data.test)["accuracy"],
        "table": result.table(),
    }


def depths_of(options: dict[str, Any]) -> list[int]:
    """Return the depths of the list: from everything open to the last stages, evenly spread."""
    import kerastl

    model = kerastl.build_transfer_model(
        options["backbone"], 2, weights=options["weights"], image_size=options["size"]
    )
    num_stages = len(kerastl.stages(model))
    return sorted({round(i * (num_stages - 1) / (DEPTHS - 1)) for i in range(DEPTHS)})


def plain_model(options: dict[str, Any], num_classes: int, frozen: int, rate: float) -> Any:
    """A transfer model in plain Keras, as the official guide builds it."""
    import keras

    from kerastl.backbones.stages import find_stages
    from kerastl.backbones.weights import load_backbone

    # The weights are read by kerastl, since the published file may be absent.
    loaded = load_backbone(
        options["backbone"], weights=options["weights"], image_size=options["size"]
    )
    backbone = loaded.model
    names = {layer for stage in find_stages(backbone)[:frozen] for layer in stage.layers}
    for layer in backbone.layers:
        layer.trainable = layer.name not in names
    inputs = keras.Input((options["size"], options["size"], 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(backbone(x, training=False))
    x = keras.layers.Dropout(0.2)(x)
    model = keras.Model(inputs, keras.layers.Dense(num_classes, activation="softmax")(x))
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


def naive(options: dict[str, Any], data: Any) -> dict[str, Any]:
    import keras_tuner

    depths, size = depths_of(options), options["size"]

    def build(hp: Any) -> Any:
        depth, rate = hp.Choice("freeze_depth", depths), hp.Choice("rate", list(RATES))
        return plain_model(options, data.num_classes, depth, rate)

    whole, some = len(depths) * len(RATES), options["trials_measured"]
    start = common.Seconds.now()
    tuner = keras_tuner.RandomSearch(
        build, objective="val_accuracy", max_trials=min(some, whole), directory=tempfile.mkdtemp(),
        seed=options["seed"] + 1,
    )  # fmt: skip
    tuner.search(
        data.train.batches(size, BATCH_SIZE, shuffle=True),
        validation_data=data.validation.batches(size, BATCH_SIZE),
        epochs=EPOCHS, shuffle=False, verbose=0,
    )  # fmt: skip
    took = common.Seconds.now() - start
    model, best = tuner.get_best_models()[0], tuner.oracle.get_best_trials()[0]
    scale = whole / min(some, whole)
    return {
        "trials_cpu": took.cpu * scale,
        "seconds": common.Seconds(took.wall * scale, took.cpu * scale).to_dict(),
        "trials": min(some, whole),
        "best": str(best.hyperparameters.values),
        "validation": best.score,
        "test": model.evaluate(data.test.batches(size, BATCH_SIZE), verbose=0)[1],
    }


def fine_tune(options: dict[str, Any], data: Any) -> dict[str, Any]:
    size = options["size"]
    start = common.Seconds.now()
    model = plain_model(options, data.num_classes, 0, 1e-5)
    history = model.fit(
        data.train.batches(size, BATCH_SIZE, shuffle=True),
        validation_data=data.validation.batches(size, BATCH_SIZE),
        epochs=1 if options["smoke"] else FULL_EPOCHS, shuffle=False, verbose=0,
    ).history  # fmt: skip
    return {
        "seconds": (took := common.Seconds.now() - start).to_dict(),
        "trials_cpu": took.cpu,
        "trials": 1,
        "best": "everything open, rate 1e-05",
        "validation": history["val_accuracy"][-1],
        "test": model.evaluate(data.test.batches(size, BATCH_SIZE), verbose=0)[1],
    }


if __name__ == "__main__" and not common.child_main(measure):
    main()
