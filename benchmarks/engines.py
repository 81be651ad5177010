"""Images a second by engine and backbone, and how far each engine is from Keras.

Each network goes from decoded pixels to pooled embeddings. `keras` is the model in a plain
`tf.function`; the others are the engines of `kerastl.frozen.engines`. Passes over the same batches
of 32 alternate; decoding is not counted. The agreement is the largest difference on eight real
images, relative to the largest value; 1e-3 is the most that kerastl takes. `int8` is LiteRT with
weights and activations of 8 bits, their ranges from the first batch: too far from Keras for an
engine, and here for what it would gain. The accuracy is that of scikit-learn's logistic regression
on the embeddings, in five folds.

    python benchmarks/engines.py [--backbones MobileNetV2] [--images 128]
"""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common

BACKBONES = ("MobileNetV2", "MobileNetV2(alpha=0.35)", "ResNet50", "EfficientNetB0")
BATCH_SIZE = 32


def main() -> None:
    parser = common.arguments(__doc__, rounds=5)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--image-size", type=int, default=224)
    args = parser.parse_args()
    if args.smoke:
        args.images, args.image_size = 32, 96
    report, rows, runs = common.Report(__file__, args), [], {}
    with tempfile.TemporaryDirectory() as folder:
        images = common.photographs(args, Path(folder), args.images, 8)
        for backbone in args.backbones:
            found, runs[backbone] = run_backbone(args, backbone, images)
            rows += found
    report.keep(runs=runs)
    report.table(f"Engines at {args.image_size} pixels, batches of {BATCH_SIZE}", rows)
    report.finish()


def run_backbone(args: Any, backbone: str, images: Path) -> tuple[list[dict[str, Any]], Any]:
    """Return a row an engine, and the seconds of each round."""
    import keras
    import numpy as np

    from kerastl.data.load import load_data
    from kerastl.frozen.prefixes import embedding_network
    from kerastl.model.build import build_transfer_model

    keras.utils.clear_session()
    data = load_data(images)
    weights = common.weights_of(args, backbone)
    model = build_transfer_model(
        backbone, data.num_classes, weights=weights, image_size=args.image_size
    )
    batches = list(data.train.images(args.image_size, BATCH_SIZE).as_numpy_iterator())
    network = embedding_network(model)
    arms, about = start_all(network, batches[0])
    for run in arms.values():
        run(batches[0])
    seconds: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for _, arm in common.interleaved(list(arms), common.num_rounds(args)):
        seconds[arm].append(common.timed(lambda run=arms[arm]: [run(batch) for batch in batches]))
    rows = []
    for arm, details in about.items():
        mine = seconds.get(arm)
        kind = "random" if weights == "random" else "ImageNet"
        row: dict[str, Any] = {"backbone": backbone, "weights": kind, "engine": arm}
        row["accuracy"] = None
        if mine:
            embeddings = np.concatenate([np.concatenate(arms[arm](one)) for one in batches])
            row["accuracy"] = accuracy_of(embeddings, data.train.labels)
        row["images/s"] = len(data.train) / common.median(mine, "wall") if mine else None
        row["images/CPU s"] = len(data.train) / common.median(mine, "cpu") if mine else None
        for key, name in (("wall", "over keras"), ("cpu", "over keras, CPU")):
            row[name] = common.median_ratio(seconds["keras"], mine, key) if mine else None
        rows.append({**row, **details})
    return rows, seconds


def start_all(network: Any, sample: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return what runs the network by each engine, and what there is to say of each."""
    import numpy as np
    import tensorflow as tf

    from kerastl.errors import KerastlError
    from kerastl.frozen.engines import make_engine
    from kerastl.frozen.runners import available_runners

    call = tf.function(lambda x: network(tf.cast(x, tf.float32), training=False))
    arms: dict[str, Any] = {"keras": lambda batch: [np.asarray(call(batch))]}
    about: dict[str, dict[str, Any]] = {
        "keras": {
            "difference": 0.0,
            "build s": common.timed(lambda: call(sample))["wall"],
            "remark": "",
        }
    }
    for name in available_runners():
        made: list[Any] = []
        try:
            took = common.timed(
                lambda made=made, name=name: made.append(
                    make_engine(network, engine=name, sample=sample)
                )
            )
        except KerastlError as error:
            about[name] = {"difference": None, "build s": None, "remark": str(error)}
            continue
        arms[name] = made[0]
        difference = made[0].max_relative_difference
        about[name] = {"difference": difference, "build s": took["wall"], "remark": ""}
    took = common.timed(lambda: arms.update(int8=int8_runner(network, sample)))
    expected = arms["keras"](sample)[0]
    difference = float(np.abs(arms["int8"](sample)[0] - expected).max() / np.abs(expected).max())
    about["int8"] = {"difference": difference, "build s": took["wall"], "remark": "no engine"}
    return arms, about


def int8_runner(network: Any, sample: Any) -> Any:
    """Run a network in LiteRT with integers of 8 bits inside."""
    import numpy as np
    import tensorflow as tf

    from kerastl.frozen.runners import graph_of_constants

    images = np.asarray(sample, np.float32)
    concrete = graph_of_constants(network, 8).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([images[at : at + 8]] for at in range(0, 32, 8))
    interpreter = tf.lite.Interpreter(model_content=converter.convert(), num_threads=os.cpu_count())
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(batch: Any) -> list[Any]:
        outputs = []
        for at in range(0, len(batch), 8):
            part = np.asarray(batch[at : at + 8], np.float32)
            interpreter.set_tensor(
                source["index"], np.pad(part, [(0, 8 - len(part))] + [(0, 0)] * 3)
            )
            interpreter.invoke()
            outputs.append(interpreter.get_tensor(target["index"])[: len(part)])
        return [np.concatenate(outputs)]

    return run


def accuracy_of(x: Any, y: Any) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    return float(cross_val_score(probe, x, y, cv=5).mean())


if __name__ == "__main__":
    main()
