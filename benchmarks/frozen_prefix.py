"""The head phase of kerastl against the pipeline of the Keras guide, and against its floor.

From JPEG files to validation accuracy, each arm in a fresh process, whose imports are not counted:

- `guide`: https://keras.io/guides/transfer_learning/ as published, with the reader for folders that
  it names: pixels cached after decoding, RandomFlip and RandomRotation, the frozen backbone called
  in the model with `training=False`, GlobalAveragePooling, Dropout 0.2, Dense; Adam at 1e-3, 10
  epochs with validation data, `jit_compile` as Keras chooses.
- `guide_plain`: the same without augmentation, the cheapest that the guide can be.
- `kerastl_none`, `kerastl_flip`: `load_data`, `build_transfer_model`, `fine_tune` with the recipe
  "small_similar", without augmentation and with the recipe's own (two views); an empty store.
- `floor`: one pass over the images: decoding, resizing and the engine that `kerastl_none` chose;
  reading the folder, building the network and the engine are not counted.

    python benchmarks/frozen_prefix.py [--backbones MobileNetV2] [--epochs-measured 2]

Where fewer than 10 epochs of the guide are measured (by default: 2 of ResNet50), the others are
taken to last as long as the mean of those after the first, which holds the tracing.
Goals in CPU seconds on two cores, 1,000 images: 15 times fewer than the guide for MobileNetV2, 10
for ResNet50, and at most 1.3 times the floor.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common

EPOCHS = 10
BATCH_SIZE = 32
GUIDE_ARMS = ("guide", "guide_plain")
KERASTL_ARMS = ("kerastl_none", "kerastl_flip")
ARMS = (*GUIDE_ARMS, *KERASTL_ARMS, "floor")
TIMES_FEWER = {"MobileNetV2": 15, "ResNet50": 10}
EPOCHS_MEASURED = {"MobileNetV2": EPOCHS, "ResNet50": 2}


def main() -> None:
    parser = common.arguments(__doc__, rounds=3)
    parser.add_argument("--backbones", nargs="+", default=["MobileNetV2", "ResNet50"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--epochs-measured", type=int, help="epochs of the guide that are run")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--validation-images", type=int, default=197)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--engine", default="auto")
    args = parser.parse_args()
    if args.smoke:
        args.images, args.validation_images, args.image_size = 40, 16, 96
    report, goals = common.Report(__file__, args), []
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        images = common.photographs(args, Path(folder), args.images, args.validation_images)
        for backbone in args.backbones:
            mine = runs[backbone] = run_backbone(args, backbone, images)
            title = (
                f"{backbone} at {args.image_size}, {args.images} photographs to train on and "
                f"{args.validation_images} to validate, {EPOCHS} epochs"
            )
            report.table(title, [row_of(arm, mine) for arm in args.arms])
            goals += goals_of(backbone, mine)
    report.keep(runs=runs)
    report.finish(goals)


def run_backbone(args: Any, backbone: str, images: Path) -> dict[str, list[dict[str, Any]]]:
    """Run all arms in turn; return what each reported in each round."""
    measured = args.epochs_measured or (2 if args.smoke else EPOCHS_MEASURED.get(backbone, 2))
    options = {
        "backbone": backbone,
        "weights": common.weights_of(args, backbone),
        "images": str(images),
        "size": args.image_size,
        "epochs_measured": min(EPOCHS, max(2, measured)),
        "engine": args.engine,
    }
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in args.arms}
    # The floor is told the engine that kerastl chose, so kerastl's arms run first.
    arms = sorted(args.arms, key=lambda arm: arm == "floor")
    engine = "auto"
    for index, arm in common.interleaved(arms, common.num_rounds(args)):
        given = {**options, "engine": engine} if arm == "floor" else options
        runs[arm].append(common.run_child(__file__, {**given, "arm": arm}))
        engine = runs[arm][-1].get("engine") or engine if arm == "kerastl_none" else engine
        wall, cpu = runs[arm][-1]["wall"], runs[arm][-1]["cpu"]
        print(f"{backbone} round {index + 1} {arm}: {wall:.1f} s, CPU {cpu:.1f} s", flush=True)
    return runs


def row_of(arm: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the table says of an arm: medians, and ratios within rounds."""
    mine = runs[arm]
    row: dict[str, Any] = {
        "arm": arm,
        "wall s": common.median(mine, "wall"),
        "CPU s": common.median(mine, "cpu"),
    }
    for key, name in (("wall", "guide / arm"), ("cpu", "guide / arm, CPU")):
        row[name] = common.median_ratio(runs["guide"], mine, key) if "guide" in runs else None
    row["arm / floor, CPU"] = (
        common.median_ratio(mine, runs["floor"], "cpu") if "floor" in runs else None
    )
    row["val accuracy"] = mine[-1].get("val_accuracy")
    row["engine"] = mine[-1].get("engine") or "-"
    count = mine[-1].get("epochs_measured")
    row["epochs run"] = (
        "-" if count is None else f"{count}{' (rest scaled)' if count < EPOCHS else ''}"
    )
    return row


def goals_of(backbone: str, runs: dict[str, list[dict[str, Any]]]) -> list[common.Goal]:
    """The goals, for each guide's arm and each of kerastl's that ran."""
    goals = []
    for guide in (arm for arm in GUIDE_ARMS if arm in runs):
        for arm in (arm for arm in KERASTL_ARMS if arm in runs):
            ratio = common.median_ratio(runs[guide], runs[arm], "cpu")
            wanted = TIMES_FEWER.get(backbone, 10)
            goals.append(common.Goal(f"{backbone}: {guide} / {arm}, CPU", ratio, wanted))
    for arm in (arm for arm in KERASTL_ARMS if arm in runs and "floor" in runs):
        ratio = common.median_ratio(runs[arm], runs["floor"], "cpu")
        goals.append(common.Goal(f"{backbone}: {arm} / floor, CPU", ratio, 1.3, at_least=False))
    return goals


def measure(options: dict[str, Any]) -> dict[str, Any]:
    """Run one arm in this process."""
    before = common.Seconds.now()
    import_all()
    imported = (common.Seconds.now() - before).to_dict()
    arm = options["arm"]
    run = (
        measure_guide
        if arm in GUIDE_ARMS
        else measure_kerastl
        if arm in KERASTL_ARMS
        else measure_floor
    )
    return {**run(options), "imports": imported}


def import_all() -> None:
    """Import what the arms use, so that none pays for it."""
    import keras  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import tensorflow as tf

    import kerastl.data.load
    import kerastl.training.fine_tune  # noqa: F401

    tf.constant(0)  # starts the device


def measure_guide(options: dict[str, Any]) -> dict[str, Any]:
    import keras

    from kerastl.backbones.weights import load_backbone
    from kerastl.model.build import preprocess_layer

    start = common.Seconds.now()
    keras.utils.set_random_seed(0)
    size = options["size"]

    def read(part: str) -> Any:
        batches = keras.utils.image_dataset_from_directory(
            Path(options["images"]) / part, image_size=(size, size), batch_size=BATCH_SIZE, seed=0,
            verbose=False,
        )  # fmt: skip
        return batches.cache().prefetch(10)

    train, validation = read("train"), read("val")
    # The weights and the scaling that kerastl has too, so that both run one network.
    loaded = load_backbone(options["backbone"], weights=options["weights"], image_size=size)
    num_classes = len(list((Path(options["images"]) / "train").iterdir()))
    scaling = preprocess_layer(loaded.preprocessing)
    model = guide_model(loaded.model, scaling, size, num_classes, plain=options["arm"] != "guide")
    ends: list[common.Seconds] = []
    after_epoch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append(common.Seconds.now())
    )
    epochs = options["epochs_measured"]
    history = model.fit(
        train, epochs=epochs, validation_data=validation, callbacks=[after_epoch], verbose=0
    ).history
    first, rest = ends[0] - start, ends[-1] - ends[0]
    scale = (EPOCHS - 1) / (epochs - 1)
    return {
        "wall": first.wall + scale * rest.wall,
        "cpu": first.cpu + scale * rest.cpu,
        "epochs_measured": epochs,
        "to_end_of_first_epoch": first.to_dict(),
        "later_epochs_measured": rest.to_dict(),
        "xla": bool(model.jit_compile),
        "val_accuracy": history["val_accuracy"][-1] if epochs == EPOCHS else None,
    }


def guide_model(
    base: Any, scaling: Any, size: int, num_classes: int, *, plain: bool = False
) -> Any:
    """Return the model of the guide, compiled, over a frozen backbone; `plain`: no augmentation."""
    import keras

    base.trainable = False
    inputs = keras.Input((size, size, 3))
    x = inputs
    if not plain:
        x = keras.layers.RandomFlip("horizontal")(x)
        x = keras.layers.RandomRotation(0.1)(x)
    x = base(scaling(x), training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    model = keras.Model(inputs, keras.layers.Dense(num_classes)(x))
    model.compile(
        keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def measure_kerastl(options: dict[str, Any]) -> dict[str, Any]:
    from kerastl.data.load import load_data
    from kerastl.frozen.store import ActivationStore
    from kerastl.model.build import build_transfer_model
    from kerastl.model.freeze import stages
    from kerastl.model.recipes import make_recipe
    from kerastl.training.fine_tune import fine_tune

    with tempfile.TemporaryDirectory() as folder:
        marks = [common.Seconds.now()]
        data = load_data(options["images"])
        marks.append(common.Seconds.now())
        model = build_transfer_model(
            options["backbone"], data.num_classes, weights=options["weights"],
            image_size=options["size"],
        )  # fmt: skip
        marks.append(common.Seconds.now())
        recipe = make_recipe(
            "small_similar", num_stages=len(stages(model)), num_images=len(data.train),
            num_classes=data.num_classes, batch_size=BATCH_SIZE,
            augmentation=options["arm"].removeprefix("kerastl_"),
        )  # fmt: skip
        history = fine_tune(
            model, data, recipe=recipe, store=ActivationStore(folder), engine=options["engine"],
            verbose=False,
        )  # fmt: skip
        marks.append(common.Seconds.now())
    parts = zip(("load_data", "build", "fine_tune"), marks[:-1], marks[1:], strict=True)
    return {
        **(marks[-1] - marks[0]).to_dict(),
        "parts": {name: (after - before).to_dict() for name, before, after in parts},
        "val_accuracy": history.history["val_accuracy"][-1],
        "engine": history.store.engine,
        "images_computed": history.store.images_computed,
    }


def measure_floor(options: dict[str, Any]) -> dict[str, Any]:
    from kerastl.data.load import load_data
    from kerastl.frozen.engines import make_engine
    from kerastl.frozen.prefixes import embedding_network
    from kerastl.model.build import build_transfer_model

    size = options["size"]
    data = load_data(options["images"])
    model = build_transfer_model(
        options["backbone"], data.num_classes, weights=options["weights"], image_size=size
    )
    sample = next(data.train.images(size, BATCH_SIZE).as_numpy_iterator())
    engine = make_engine(embedding_network(model), engine=options["engine"], sample=sample)
    engine(sample)

    def run() -> None:
        for split in (data.train, data.validation):
            for batch in split.images(size, BATCH_SIZE).as_numpy_iterator():
                engine(batch)

    return {**common.timed(run), "engine": engine.name}


if __name__ == "__main__" and not common.child_main(measure):
    main()
