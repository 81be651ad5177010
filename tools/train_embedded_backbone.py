"""Train kerastl's embedded backbone: MobileNetV2 (alpha 0.35) at 64 pixels, by distillation.

Two ImageNet networks (MobileNet 0.75 and MobileNetV2 1.0, at 224 pixels) look at crops of
real images; the small one learns to give the same pooled embeddings from the same crops
at 64 pixels. The sign-language digits are never read here, nor is the test part of any set, nor
scikit-learn's digits: they are what the result is measured on.

    python tools/train_embedded_backbone.py --data DATA --weights WEIGHTS

DATA holds `cifar10_jpg_subset.zip`, `cats_vs_dogs_subset.zip`, `hymenoptera.zip`,
`fashion_mnist.npz` and, for the evaluation only, `sign_language_digits.zip`; WEIGHTS holds the
teachers' `.h5` files. About 45 minutes on two cores.

Expected: linear-probe accuracy of the trained / the untrained network is printed at the end and
stands in `kerastl/backbones/embedded/MODEL_CARD.md`.
"""

import argparse
import io
import json
import os
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

STUDENT_SIZE = 64
TEACHER_SIZE = 224
# (archive, number of random crops an image): few-image sets give more crops each.
PHOTOGRAPHS = (
    ("cifar10_jpg_subset", 2),
    ("cats_vs_dogs_subset", 12),
    ("hymenoptera", 20),
)
NUM_FASHION = 6000
TEACHERS = (
    ("MobileNet", 0.75, "mobilenet_7_5_224_tf_no_top.h5"),
    (
        "MobileNetV2",
        1.0,
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.refolded.h5",
    ),
)


def archive_images(path: Path, split: str):
    """Yield `(image, class name)` of one split of an archive, in the order of the names."""
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            parts = name.split("/")
            if len(parts) == 4 and parts[1] == split and parts[3]:
                yield Image.open(io.BytesIO(archive.read(name))).convert("RGB"), parts[2]


def random_box(rng: np.random.Generator, width: int, height: int):
    """A random crop of 25-100 % of the area with an aspect of 3:4 to 4:3 (Inception's rule)."""
    for _ in range(10):
        area = width * height * rng.uniform(0.25, 1.0)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
            return int(left), int(top), int(left) + w, int(top) + h
    return 0, 0, width, height


def resized(image: Image.Image, box, size: int) -> np.ndarray:
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box), np.uint8)


def training_views(data: Path, rng: np.random.Generator):
    """Yield `(student view, teacher view)`; the first view of an image is the whole of it."""
    for name, num_views in PHOTOGRAPHS:
        for image, _ in archive_images(data / f"{name}.zip", "train"):
            for view in range(num_views):
                box = random_box(rng, *image.size) if view else (0, 0, *image.size)
                yield resized(image, box, STUDENT_SIZE), resized(image, box, TEACHER_SIZE)
    with np.load(data / "fashion_mnist.npz") as arrays:
        for pixels in arrays["x_train"][:NUM_FASHION]:
            image = Image.fromarray(pixels.reshape(28, 28)).convert("RGB")
            box = (0, 0, *image.size)
            yield resized(image, box, STUDENT_SIZE), resized(image, box, TEACHER_SIZE)


def teacher_targets(data: Path, weights: Path, seed: int, num_targets: int):
    """Student views (uint8) and the teachers' embeddings, rotated to their principal axes."""
    teachers = []
    for builder, alpha, file in TEACHERS:
        build = getattr(keras.applications, builder)
        teachers.append(
            build(
                input_shape=(TEACHER_SIZE, TEACHER_SIZE, 3),
                alpha=alpha,
                include_top=False,
                pooling="avg",
                weights=str(weights / file),
            )
        )
    inputs = keras.Input((TEACHER_SIZE, TEACHER_SIZE, 3))
    scaled = inputs / 127.5 - 1.0
    both = keras.Model(inputs, keras.layers.Concatenate()([t(scaled) for t in teachers]))
    views, embeddings, batch = [], [], []

    def flush():
        embeddings.append(both.predict_on_batch(np.stack(batch).astype("float32")))
        batch.clear()

    for student_view, teacher_view in training_views(data, np.random.default_rng(seed)):
        views.append(student_view)
        batch.append(teacher_view)
        if len(batch) == 64:
            flush()
            if len(views) % 6400 == 0:
                print(f"teachers: {len(views)} views", flush=True)
    if batch:
        flush()
    embeddings = np.concatenate(embeddings)
    embeddings = (embeddings - embeddings.mean(0)) / (embeddings.std(0) + 1e-6)
    axes = np.linalg.eigh(embeddings.T @ embeddings / len(embeddings))[1][:, ::-1]
    scores = embeddings @ axes[:, :num_targets]
    return np.stack(views), (scores / np.sqrt(np.mean(scores**2))).astype("float32")


def student(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.applications.MobileNetV2(
        input_shape=(STUDENT_SIZE, STUDENT_SIZE, 3),
        alpha=0.35,
        include_top=False,
        pooling="avg",
        weights=None,
    )


def training_dataset(views, targets, batch_size: int, seed: int) -> tf.data.Dataset:
    def augment(image, target):
        image = tf.image.random_flip_left_right(tf.cast(image, tf.float32))
        image = tf.pad(image, [[4, 4], [4, 4], [0, 0]], mode="REFLECT")
        image = tf.image.random_crop(image, (STUDENT_SIZE, STUDENT_SIZE, 3))
        image = tf.image.random_brightness(image, 25.0)
        image = tf.image.random_contrast(image, 0.8, 1.25)
        return tf.clip_by_value(image, 0.0, 255.0) / 127.5 - 1.0, target

    # Indices are shuffled and the arrays gathered by them: no copy of the images as constants.
    order = tf.data.Dataset.range(len(views)).shuffle(len(views), seed=seed).repeat()

    def gather(index):
        view, target = tf.numpy_function(
            lambda i: (views[i], targets[i]), [index], [tf.uint8, tf.float32]
        )
        return tf.ensure_shape(view, views.shape[1:]), tf.ensure_shape(target, targets.shape[1:])

    dataset = order.map(gather).map(augment, num_parallel_calls=2)
    return dataset.batch(batch_size, drop_remainder=True).prefetch(4)


def distil(views, targets, *, epochs: int, batch_size: int, seed: int) -> keras.Model:
    network = student(seed)
    outputs = keras.layers.Dense(targets.shape[1], name="to_teacher")(network.output)
    model = keras.Model(network.input, outputs)
    steps = len(views) // batch_size
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, epochs * steps, warmup_target=2e-3, warmup_steps=steps
    )
    model.compile(keras.optimizers.AdamW(rate, weight_decay=0.02), loss="mse", jit_compile=False)
    dataset = training_dataset(views, targets, batch_size, seed)
    model.fit(dataset, epochs=epochs, steps_per_epoch=steps, verbose=2)
    return network


def save(network: keras.Model, output: Path) -> None:
    """Write the weights as float16, moving statistics as float32, in the network's own order."""
    arrays = {}
    for index, (variable, value) in enumerate(
        zip(network.weights, network.get_weights(), strict=True)
    ):
        dtype = "float32" if "moving" in variable.path else "float16"
        arrays[f"{index:03d}:{variable.path}"] = value.astype(dtype)
    output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(output, **arrays)
    network.set_weights([a.astype("float32") for a in arrays.values()])
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB")


def split_arrays(data: Path, name: str):
    if name == "scikit-learn digits":
        digits = load_digits()
        images = np.repeat(np.uint8(digits.images * (255 / 16))[..., None], 3, axis=-1)
        resized_images = tf.image.resize(images, (STUDENT_SIZE, STUDENT_SIZE)).numpy()
        x, u, y, v = train_test_split(
            resized_images, digits.target, test_size=0.3, stratify=digits.target, random_state=0
        )
        return x, y, u, v
    parts = []
    for split in ("train", "val" if name == "hymenoptera" else "test"):
        images, labels = zip(*archive_images(data / f"{name}.zip", split), strict=True)
        whole = [resized(i, (0, 0, *i.size), STUDENT_SIZE) for i in images]
        parts += [np.stack(whole).astype("float32"), np.array(labels)]
    return parts


def evaluate(network: keras.Model, data: Path) -> dict[str, dict[str, float]]:
    """Linear-probe test accuracy, trained against untrained (mean of 3 seeds)."""
    names = [
        "scikit-learn digits",
        "sign_language_digits",
        "cats_vs_dogs_subset",
        "hymenoptera",
        "cifar10_jpg_subset",
    ]
    table = {}
    for name in names:
        x, y, u, v = split_arrays(data, name)

        def accuracy(model, x=x, y=y, u=u, v=v):
            train, test = (model.predict(a / 127.5 - 1, verbose=0) for a in (x, u))
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
            return probe.fit(train, y).score(test, v)

        table[name] = {
            "trained": accuracy(network),
            "untrained": float(np.mean([accuracy(student(s)) for s in (101, 102, 103)])),
        }
        print(name, {k: round(v, 3) for k, v in table[name].items()}, flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument(
        "--output", type=Path, default=Path("kerastl/backbones/embedded/weights.npz")
    )
    parser.add_argument("--cache", type=Path, help="keep the teachers' work here between runs")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--targets", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.cache and arguments.cache.exists():
        with np.load(arguments.cache) as arrays:
            views, targets = arrays["views"], arrays["targets"]
    else:
        views, targets = teacher_targets(
            arguments.data, arguments.weights, arguments.seed, arguments.targets
        )
        if arguments.cache:
            np.savez(arguments.cache, views=views, targets=targets)
    print(f"{len(views)} views, {targets.shape[1]} targets", flush=True)
    network = distil(
        views,
        targets,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
    )
    save(network, arguments.output)
    print(json.dumps(evaluate(network, arguments.data), indent=2))


if __name__ == "__main__":
    main()
