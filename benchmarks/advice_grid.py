"""The cells of the grid of `advice.py`: what is in one, and its arms, run a few cells to a process.

Each arm of a cell is a line of JSON, with one character for each test image (1 where the answer was
right), so that arms can be compared image by image later. An arm that has a line is not run again.
"""

import argparse
import csv
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common
import numpy as np

WEIGHTS = {
    "MobileNetV2(alpha=0.35)": common.WEIGHTS["MobileNetV2(alpha=0.35)"],
    "MobileNet(alpha=0.75)": "mobilenet_7_5_224_tf_no_top.h5",
    "MobileNetV2": common.WEIGHTS["MobileNetV2"],
}
ARCHIVES = ("hymenoptera", "cats_vs_dogs_subset", "cifar10_jpg_subset", "sign_language_digits")
SETS = (*ARCHIVES, "fashion_mnist")
FIXED = ("head", "last_stage", "half", "all")
PUBLISHED = ("guide", "fastai")
PROFILE = "profile_head"
EVIDENCE = "evidence"
ARMS = (EVIDENCE, *FIXED, PROFILE, *PUBLISHED)
DEFAULT, HEAD_ALONE, LOGISTIC = "default", "head_alone", "logistic"  # of `accuracy.py`
MAX_TRAIN, MAX_TEST = 600, 400
BATCH_SIZE = 32
CELLS_A_PROCESS = 4  # Keras does not give back all the memory of the models it has dropped


@dataclass(frozen=True)
class Cell:
    """One set of conditions under which all arms are compared; `size` is images a class."""

    set: str
    network: str
    size: int
    seed: int


Work = tuple[Cell, tuple[str, ...]]


def grid_arguments(
    description: str | None, arms: Sequence[str], image_size: int, lines: str
) -> argparse.ArgumentParser:
    """Return a parser of what every benchmark over cells takes; `lines` is a file of results."""
    parser = common.arguments(description, rounds=1)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--networks", nargs="+", choices=list(WEIGHTS), default=list(WEIGHTS))
    parser.add_argument("--sizes", nargs="+", default=["5", "20", "100", "all"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=arms, default=list(arms))
    parser.add_argument("--image-size", type=int, default=image_size)
    parser.add_argument("--minutes", type=float, help="begin no arm after so many")
    parser.add_argument("--shard", default="1/1", help="I/N: every N-th cell, on one thread")
    parser.add_argument("--lines", type=Path, help=f"default: benchmarks/results/{lines}")
    parser.add_argument("--report", action="store_true", help="train nothing, print the tables")
    return parser


def run_grid(args: argparse.Namespace) -> None:
    """Run the arms that have no line yet, a few cells to a process."""
    deadline = time.time() + 60 * args.minutes if args.minutes else None
    index, count = (int(part) for part in args.shard.split("/"))
    if not 1 <= index <= count:
        common.stop(f"--shard must be I/N with I from 1 to N. Received: {args.shard}")
    if count > 1:
        os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        sources = {name: Source(args, name, Path(folder)) for name in args.sets}
        names = getattr(args, "names", {})
        done = {(cell_of(line), line["arm"]) for line in read_lines(args.lines)}
        mine = list(ordered(args, sources))[index - 1 :: count]
        left = [
            (cell, tuple(a for a in arms if (cell, names.get(a, a)) not in done))
            for cell, arms in mine
        ]
        left = [(cell, arms) for cell, arms in left if arms]
        print(f"{sum(len(arms) for _, arms in left)} arms in {len(left)} cells to run", flush=True)
        for start in range(0, len(left), CELLS_A_PROCESS):
            if deadline and time.time() > deadline:
                break
            work = left[start : start + CELLS_A_PROCESS]
            options = {
                "work": [
                    {"cell": asdict(cell), "arms": arms, "data": sources[cell.set].write(cell)}
                    for cell, arms in work
                ],
                "weights": {
                    cell.network: str(common.shared_file(args, f"weights/{WEIGHTS[cell.network]}"))
                    for cell, _ in work
                },
                "image_size": args.image_size,
                "epochs": 1 if args.smoke else None,
                "one_thread": count > 1,
                "names": names,
                "deadline": deadline,
                "lines": str(args.lines.absolute()),
            }
            for said in common.run_child(__file__, options)["said"]:
                print(said, flush=True)


def ordered(args: argparse.Namespace, sources: dict[str, "Source"]) -> Iterator[Work]:
    """Give all cells with their arms: what tells most first, and neighbours of a like size."""
    own = tuple(arm for arm in args.arms if arm not in PUBLISHED)
    published = tuple(arm for arm in args.arms if arm in PUBLISHED)
    networks = [name for name in WEIGHTS if name in args.networks]

    def cells(seed: int, network: str) -> list[Cell]:
        pairs = [(name, size) for name in args.sets for size in sources[name].sizes(args.sizes)]
        pairs.sort(key=lambda pair: sources[pair[0]].num_images(pair[1]))
        return [Cell(name, network, size, seed) for name, size in pairs]

    for seed in args.seeds:
        for network in networks:
            yield from ((cell, own) for cell in cells(seed, network))
        for network in networks:
            if seed in args.published_seeds and network in args.published_networks:
                yield from ((cell, published) for cell in cells(seed, network))


class Source:
    """A data set: which of its images a cell trains on, and the images that all are tested on."""

    def __init__(self, args: argparse.Namespace, name: str, folder: Path):
        self.name, self.folder = name, folder
        self.max_train = getattr(args, "max_train", MAX_TRAIN)
        if name in ARCHIVES:
            with zipfile.ZipFile(common.shared_file(args, f"data/{name}.zip")) as archive:
                archive.extractall(folder)
            files = (folder / name).glob("*/*/*")
            found = sorted(path for path in files if path.suffix.lower() in (".jpg", ".jpeg"))
            self.items: Any = np.array([str(path.relative_to(folder)) for path in found])
            self.labels = np.array([path.parent.name for path in found])
            train = np.array([path.parent.parent.name == "train" for path in found])
        else:
            with np.load(common.shared_file(args, f"data/{name}.npz")) as arrays:
                parts = [(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
            self.items, self.labels = (np.concatenate(both) for both in zip(*parts, strict=True))
            train = np.arange(len(self.items)) < len(parts[0][0])
        self.classes, self.counts = np.unique(self.labels[train], return_counts=True)
        self._train, test = np.flatnonzero(train), np.flatnonzero(~train)
        most = 20 if args.smoke else getattr(args, "max_test", MAX_TEST)
        self._test = self._drawn(test, most // len(self.classes), seed=0)

    def sizes(self, asked: Iterable[str]) -> list[int]:
        """Return the images a class that are asked for and can be had, each once."""
        most = min(self.max_train // len(self.classes), int(self.counts.max()))
        return sorted({most if size == "all" else min(int(size), most) for size in asked})

    def num_images(self, size: int) -> int:
        """Return how many images a cell of this size has to train on and to choose by."""
        return int(np.minimum(self.counts, size).sum())

    def write(self, cell: Cell) -> str:
        """Write what `load_data` reads for a cell, and return its name."""
        rows = {"train": self._drawn(self._train, cell.size, cell.seed), "test": self._test}
        name = self.folder / f"{cell.set}-{cell.size}-{cell.seed}"
        if self.name in ARCHIVES:
            with open(f"{name}.csv", "w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["image", "label", "split"])
                for part, chosen in rows.items():
                    table.writerows((self.items[row], self.labels[row], part) for row in chosen)
            return f"{name}.csv"
        arrays = {
            f"{letter}_{part}": values[chosen]
            for letter, values in (("x", self.items), ("y", self.labels))
            for part, chosen in rows.items()
        }
        np.savez(f"{name}.npz", **arrays)
        return f"{name}.npz"

    def _drawn(self, rows: np.ndarray, size: int, seed: int) -> np.ndarray:
        """Draw so many rows of each class; a larger size holds all of a smaller one."""
        shuffled = np.random.default_rng(seed).permutation(rows)
        drawn = [shuffled[self.labels[shuffled] == name][:size] for name in self.classes]
        return np.sort(np.concatenate(drawn))


def stage_embeddings(args: argparse.Namespace, name: str, network: str, folder: Path) -> list[Any]:
    """Return the embeddings of all stages, and labels, of the parts of a set with all its images.

    They are `train`, `validation` and `test`, as `extract_embeddings` returns them.
    """
    from kerastl.data.load import load_data
    from kerastl.frozen.activations import extract_embeddings
    from kerastl.model.build import build_transfer_model

    source = Source(args, name, folder)
    data = load_data(source.write(Cell(name, network, source.sizes(["all"])[0], 0)))
    model = build_transfer_model(
        network, data.num_classes, head="stages", image_size=args.image_size,
        weights=str(common.shared_file(args, f"weights/{WEIGHTS[network]}")),
    )  # fmt: skip
    parts = (data.train, data.validation, data.test)
    return [extract_embeddings(model, part) for part in parts if part is not None]


# One process: some cells


def measure(options: dict[str, Any]) -> dict[str, Any]:
    """Run the arms of some cells; write a line for each as it ends."""
    import tensorflow as tf

    if options["one_thread"]:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    said = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KERASTL_CACHE_DIR"] = folder
        for work in options["work"]:
            cell = Cell(**work["cell"])
            for line in run_cell(cell, work["arms"], work["data"], options):
                line["arm"] = options["names"].get(line["arm"], line["arm"])
                append(Path(options["lines"]), line)
                said.append(f"{cell} {line['arm']}: {line.get('accuracy')}, {line['seconds']}")
    return {"said": said}


def run_cell(
    cell: Cell, arms: Sequence[str], source: str, options: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Give the line of each arm of a cell."""
    import gc

    import keras

    from kerastl.data.load import load_data

    data = load_data(source, seed=cell.seed)
    for arm in arms:
        if options["deadline"] and time.time() > options["deadline"]:
            return
        start = common.Seconds.now()
        found = run_arm(cell, arm, data, options)
        seconds = (common.Seconds.now() - start).to_dict()
        keras.utils.clear_session()
        gc.collect()
        counts = {part: len(getattr(data, part)) for part in ("train", "validation", "test")}
        about = {"image_size": options["image_size"], "classes": data.num_classes, **counts}
        yield {**asdict(cell), "arm": arm, **about, **found, "seconds": seconds}


def run_arm(cell: Cell, arm: str, data: Any, options: dict[str, Any]) -> dict[str, Any]:
    import keras

    from kerastl.model.build import build_transfer_model
    from kerastl.model.freeze import stages
    from kerastl.model.recipe_changes import with_epochs
    from kerastl.results.evaluate import labels_and_probabilities
    from kerastl.training.fine_tune import fine_tune, is_head_only, refit_head

    keras.utils.set_random_seed(cell.seed)
    if arm in (DEFAULT, HEAD_ALONE):
        return whole_run(cell, arm, data, options)
    model = build_transfer_model(
        cell.network, data.num_classes, weights=options["weights"][cell.network],
        image_size=options["image_size"],
    )  # fmt: skip
    if arm == LOGISTIC:
        return logistic(model, data)
    if arm == PROFILE:
        return profile(model, data, cell.seed)
    if arm == EVIDENCE:
        return evidence(model, data, cell.seed)
    recipe = recipe_of(arm, len(stages(model)), len(data.train), data.num_classes, cell.seed)
    if options["epochs"]:
        recipe = with_epochs(recipe, options["epochs"])
    history = fine_tune(model, data, recipe=recipe, engine="tensorflow", verbose=False)
    if is_head_only(recipe, history):
        refit_head(model, data, recipe, engine="tensorflow")
    last = recipe.phases[-1]
    return {
        "stages": len(stages(model)),
        "freeze_depth": last.freeze_depth,
        "epochs": last.epochs,
        "best_epoch": history.best_epoch,
        "kept": kept(history),
        **answers(*labels_and_probabilities(model, data.test)),
    }


def whole_run(cell: Cell, arm: str, data: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return the answers of a run by default, or of one whose backbone stays frozen."""
    import kerastl
    from kerastl.results.evaluate import labels_and_probabilities

    with tempfile.TemporaryDirectory() as folder:
        run = kerastl.train(
            data, cell.network, weights=options["weights"][cell.network], seed=cell.seed,
            scenario=None if arm == DEFAULT else "small_similar", epochs=options["epochs"],
            image_size=options["image_size"], output=Path(folder) / "run", verbose=False,
        )  # fmt: skip
        last = run.recipe.phases[-1]
        return {
            "freeze_depth": last.freeze_depth,
            "method": last.method,
            "seconds_of": run.metrics["timing"]["phases"],
            **answers(*labels_and_probabilities(run.model, data.test)),
        }


def logistic(model: Any, data: Any) -> dict[str, Any]:
    """Return the answers of scikit-learn's logistic regression on the pooled top, as it is taught.

    Standardised features, the penalty by five folds, training and validation images together.
    """
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from kerastl.frozen.activations import extract_embeddings

    parts = [
        extract_embeddings(model, split, engine="tensorflow")
        for split in (data.train, data.validation, data.test)
    ]
    x, y = (np.concatenate(both) for both in zip(*parts[:2], strict=True))
    folds = int(min(5, np.bincount(y).min()))
    fitted = make_pipeline(
        StandardScaler(), LogisticRegressionCV(Cs=np.geomspace(1e-4, 1, 9), cv=folds, max_iter=1000)
    ).fit(x, y)
    return answers(parts[2].y, fitted.predict_proba(parts[2].x))


def recipe_of(arm: str, num_stages: int, num_images: int, num_classes: int, seed: int) -> Any:
    """Return the recipe of an arm that is trained."""
    from kerastl.model.recipes import Phase, Recipe, fine_tune_epochs, make_recipe

    if arm in (*PUBLISHED, "head"):
        return make_recipe(
            "small_similar" if arm == "head" else arm, num_stages=num_stages,
            num_images=num_images, num_classes=num_classes, batch_size=BATCH_SIZE, seed=seed,
        )  # fmt: skip
    depth = {"last_stage": num_stages - 1, "half": num_stages // 2, "all": 0}[arm]
    fine_tune = Phase(
        "fine_tune", freeze_depth=depth, epochs=fine_tune_epochs(num_images, BATCH_SIZE),
        learning_rate=3e-4, backbone_rate=1.0, layer_decay=1.0, schedule="cosine", warmup=0.1,
        clipnorm=1.0,
    )  # fmt: skip
    head = Phase("head", freeze_depth=num_stages, method="probe")
    return Recipe(arm, (head, fine_tune), batch_size=BATCH_SIZE, augmentation="flip", seed=seed)


def evidence(model: Any, data: Any, seed: int) -> dict[str, Any]:
    """Return what is measured before anything is trained."""
    from kerastl.advice.diagnosis import diagnose

    found = diagnose(model, data, seed=seed, engine="tensorflow")
    kept = {**asdict(found.evidence), "best_stage": found.best_stage, "stages": found.num_stages}
    kept["by_depth"] = None if found.shift is None else found.shift.by_depth()
    kept["profile"] = [stage.score for stage in found.profile]
    kept["curve"] = None if found.curve is None else [found.curve.a, found.curve.b]
    return kept


def profile(model: Any, data: Any, seed: int) -> dict[str, Any]:
    """Return the answers of a probe at the end of each stage, as lists over stages."""
    from kerastl.advice.probe import SoftmaxProbe
    from kerastl.frozen.activations import extract_stage_embeddings
    from kerastl.model.freeze import stages

    parts = [
        extract_stage_embeddings(model, split, engine="tensorflow")
        for split in (data.train, data.validation, data.test)
    ]
    found = []
    for train, validation, test in zip(*parts, strict=True):
        x, y = (np.concatenate(both) for both in zip(train, validation, strict=True))
        probe = SoftmaxProbe(seed=seed).fit(x, y)
        found.append(answers(test.y, probe.predict_proba(test.x)))
    names = [stage.name for stage in stages(model)]
    return {"stages": len(names), "names": names} | {
        name: [answer[name] for answer in found] for name in found[0]
    }


def answers(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Return accuracy, log loss and, for each image, 1 where the answer was right."""
    right = probabilities.argmax(1) == labels
    likelihood = probabilities[np.arange(len(labels)), labels]
    return {
        "accuracy": round(float(right.mean()), 4),
        "log_loss": round(float(-np.log(np.maximum(likelihood, 1e-7)).mean()), 4),
        "correct": "".join("01"[int(one)] for one in right),
    }


def kept(history: Any) -> dict[str, float]:
    """Return what was measured in the epoch whose weights were kept."""
    phases, row = history.history["phase"], 0
    for phase, best in history.best_epoch.items():
        row = phases.index(phase) + best - 1 if best else row
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    return {name: round(history.history[name][row], 4) for name in names if name in history.history}


def append(file: Path, line: dict[str, Any]) -> None:
    """Add a line in a single write, so that shards can share the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "ab", buffering=0) as lines:
        lines.write(json.dumps(line).encode() + b"\n")


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def cell_of(line: dict[str, Any]) -> Cell:
    return Cell(line["set"], line["network"], line["size"], line["seed"])


if __name__ == "__main__":
    common.child_main(measure)
