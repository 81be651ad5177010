"""`kerastl train` beside what else people run on the same images with the same weights.

MobileNetV2 0.35 at 224 pixels. Each peer is a process, imports and all; peers take turns. A fifth
of the training images is for validation; the published test images are for the figures alone.

- `kerastl`: `kerastl train` by default; `kerastl_head`: with `--scenario small_similar`;
  `kerastl_bare`: that with `--no-export --no-page`, which is what the others do.
- `guide`: https://keras.io/guides/transfer_learning/, 10 epochs of the head and 10 of everything;
  `guide_head` is the same process after the first ten.
- `fastai`: the quick start of fastai, `fine_tune(8)`; `timm`: a script with layer decay
  (`peers_torch.py`), both in an environment that is made in `--environment` (torch: 7 GB); by
  default on hymenoptera alone.
- `keras_tuner`: RandomSearch as in `search.py`, 4 of its 18 trials run and the rest scaled.
- `autokeras`: `ImageClassifier`, one trial of 10 epochs, its own network (others need a download).

    python benchmarks/peers.py --rounds 3             # goes on where it ended
    python benchmarks/peers.py --peers keras_tuner autokeras --sets hymenoptera --rounds 1
    python benchmarks/peers.py --report               # the tables, from the lines

To begin anew, delete `results/peers.jsonl`. Goals in CPU seconds: hymenoptera 15 with the head
alone, 9 times fewer than fastai, and 25 by default; cats and dogs 3 times fewer than the guide's
ten head epochs.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common

BACKBONE, SIZE, BATCH_SIZE, EPOCHS = "MobileNetV2(alpha=0.35)", 224, 32, 10
OURS = {
    "kerastl": (),
    "kerastl_head": ("--scenario", "small_similar"),
    "kerastl_bare": ("--scenario", "small_similar", "--no-export", "--no-page"),
}
TORCH = ("fastai", "timm")
PEERS = (*OURS, "guide", *TORCH, "keras_tuner", "autokeras")
SETS = {"hymenoptera": "val", "cats_vs_dogs_subset": "test"}  # and the folder of its test images
USUAL = {"hymenoptera": (*OURS, "guide", *TORCH), "cats_vs_dogs_subset": (*OURS, "guide")}
TRIALS = 4
TOLERANCE = 1e-4
HERE = Path(__file__).parent


def main() -> None:
    parser = common.arguments(__doc__, rounds=3)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--peers", nargs="+", choices=PEERS)
    parser.add_argument("--environment", type=Path, default=common.ROOT / ".venv-peers")
    parser.add_argument("--lines", type=Path, help="default: benchmarks/results/peers.jsonl")
    parser.add_argument("--report", action="store_true", help="run nothing, print the tables")
    args = parser.parse_args()
    if args.smoke:
        args.sets, args.peers = args.sets[:1], ["kerastl_bare", "guide"]
    folder = tempfile.mkdtemp() if args.smoke else common.RESULTS
    args.lines = args.lines or Path(folder) / "peers.jsonl"
    if not args.report:
        run_all(args)
    report(args)


def run_all(args: argparse.Namespace) -> None:
    """Run what has no line yet."""
    lines = read_lines(args.lines)
    done = {(line["set"], line["peer"], line["round"]) for line in lines}
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {
            "weights": common.weights_of(args, BACKBONE), "smoke": args.smoke, "folder": folder,
        }  # fmt: skip
        peers = {name: args.peers or USUAL[name] for name in args.sets}
        if set(TORCH) & {peer for chosen in peers.values() for peer in chosen}:
            make_environment(args.environment)
            options |= carry_weights(args.environment, options)
        for name in args.sets:
            images = lay_out(args, name, Path(folder))
            for number, peer in common.interleaved(peers[name], common.num_rounds(args)):
                if (name, peer, number) in done:
                    continue
                given = {**options, "peer": peer, "images": str(images), "seed": number}
                about = {"set": name, "peer": peer, "round": number}
                line = about | {"load": round(os.getloadavg()[0], 2)} | run(args, given)
                print(line, flush=True)
                args.lines.parent.mkdir(parents=True, exist_ok=True)
                with args.lines.open("a") as file:
                    file.write(json.dumps(line) + "\n")


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def lay_out(args: argparse.Namespace, name: str, folder: Path) -> Path:
    """Lay out a set as `train/`, `val/` and `test/`, the same for all peers."""
    counts: dict[str, int] = {}
    for path, label in common.image_files(args, name, folder / "raw"):
        part = "test" if path.parent.parent.name == SETS[name] else "train"
        number = counts[f"{part}/{label}"] = counts.get(f"{part}/{label}", 0) + 1
        if args.smoke and number > 15:
            continue
        target = folder / name / ("val" if part == "train" and number % 5 == 0 else part) / label
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / path.name)
    return folder / name


def make_environment(folder: Path) -> None:
    """Make the environment of the peers that use torch, once."""
    if (folder / "ready").is_file():
        return
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "torch", "torchvision", "fastai", "timm"], check=True)
    (folder / "ready").touch()


def carry_weights(environment: Path, options: dict[str, Any]) -> dict[str, str]:
    """Write Keras' weights under timm's names, and check that the outputs are the same."""
    files = {name: f"{options['folder']}/{name}.npz" for name in ("weights", "sample")}
    common.run_child(__file__, {**options, "peer": "convert", "files": files})
    report = Path(options["folder"]) / "check.json"
    asked = json.dumps({"peer": "check", "report": str(report), **files})
    python = str(environment / "bin" / "python")
    subprocess.run([python, str(HERE / "peers_torch.py"), asked], check=True)
    difference = json.loads(report.read_text())["difference"]
    print(f"The outputs of Keras and torch differ by {difference:.1e}, relative to the largest.")
    if difference > TOLERANCE:
        common.stop(f"The weights were carried over wrongly: at most {TOLERANCE} is taken.")
    return {"torch_weights": files["weights"]}


def run(args: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    """Run a peer as a process; return its seconds, its memory and its answers."""
    peer = options["peer"]
    with tempfile.TemporaryDirectory(dir=options["folder"]) as own:
        report = Path(own) / "report.json"
        asked = {**options, "report": str(report), "own": own}
        command = [sys.executable, __file__, "--child", json.dumps(asked)]
        if peer in TORCH:
            asked["weights"] = asked["torch_weights"]
            python = str(args.environment / "bin" / "python")
            command = [python, str(HERE / "peers_torch.py"), json.dumps(asked)]
        elif peer in OURS:
            command = [
                sys.executable, "-m", "kerastl", "train", options["images"], "--backbone", BACKBONE,
                "--weights", options["weights"], "--seed", str(options["seed"]),
                "--output", f"{own}/run", *OURS[peer],
            ]  # fmt: skip
        elif peer == "autokeras":
            get_autokeras(args.environment.parent / f"{args.environment.name}-autokeras", asked)
            command[-1] = json.dumps(asked)
        seconds = metered(command, {**os.environ, "KERASTL_CACHE_DIR": f"{own}/cache"})
        if peer in OURS:
            test = json.loads((Path(own) / "run" / "metrics.json").read_text())["test"]
            tested = test["num_images"]
            return seconds | {"right": round(test["accuracy"] * tested), "tested": tested}
        found: dict[str, Any] = json.loads(report.read_text())
        aside = found.pop("aside", {})  # seconds of what is of no use to the peer
        return {key: value - aside.get(key, 0) for key, value in seconds.items()} | found


def metered(command: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    """Run a command; return its wall and CPU seconds and its peak, with those of its children."""
    start = common.Seconds.now()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
        _, status, use = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            print(said.read().decode(errors="replace")[-4000:], file=sys.stderr)
            raise SystemExit(f"Exit status {process.returncode}: {list(command)}")
    seconds = {"wall": common.Seconds.now().wall - start.wall, "cpu": use.ru_utime + use.ru_stime}
    return seconds | {"peak_mb": use.ru_maxrss / 1e3}


def get_autokeras(folder: Path, asked: dict[str, Any]) -> None:
    """Install AutoKeras beside what is installed here, once, without what it depends on."""
    asked["packages"] = str(folder)
    if not (folder / "autokeras").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        subprocess.run([*pip, str(folder), "autokeras"], check=True)


# One process: a peer that uses Keras


def measure(options: dict[str, Any]) -> dict[str, Any]:
    peers = {"convert": convert, "guide": guide, "keras_tuner": tuner, "autokeras": autokeras}
    return peers[options["peer"]](options)


def convert(options: dict[str, Any]) -> dict[str, Any]:
    """Write the weights as timm names them, and the pooled outputs of random images."""
    import keras
    import numpy as np

    base = network(options)
    state: dict[str, Any] = {}
    blocks = [(row, at) for row, count in enumerate((1, 2, 3, 4, 3, 3, 1)) for at in range(count)]
    names = {"Conv1": ("conv_stem", "bn1"), "Conv_1": ("conv_head", "bn2")}
    for number, (row, at) in enumerate(blocks):
        parts = ("expand", "depthwise", "project") if number else ("depthwise", "project")
        ours = ("conv_pw", "conv_dw", "conv_pwl") if number else ("conv_dw", "conv_pw")
        for turn, (part, conv) in enumerate(zip(parts, ours, strict=True), 1):
            prefix = f"block_{number}_" if number else "expanded_conv_"
            where = f"blocks.{row}.{at}"
            names[prefix + part] = (f"{where}.{conv}", f"{where}.bn{turn}")
    for name, (conv, norm) in names.items():
        (kernel,) = base.get_layer(name).get_weights()
        order = (2, 3, 0, 1) if "depthwise" in name else (3, 2, 0, 1)
        state[f"{conv}.weight"] = kernel.transpose(order)
        norms = {"Conv1": "bn_Conv1", "Conv_1": "Conv_1_bn"}
        values = base.get_layer(norms.get(name, f"{name}_BN")).get_weights()
        kinds = ("weight", "bias", "running_mean", "running_var")
        state |= {f"{norm}.{kind}": one for kind, one in zip(kinds, values, strict=True)}
    np.savez(options["files"]["weights"], **state)
    x = np.random.default_rng(0).uniform(0, 255, (8, SIZE, SIZE, 3)).astype("float32")
    pooled = keras.layers.GlobalAveragePooling2D()(base(x / 127.5 - 1, training=False))
    np.savez(options["files"]["sample"], x=x, y=np.asarray(pooled))
    return {}


def network(options: dict[str, Any]) -> Any:
    import keras

    return keras.applications.MobileNetV2(
        (SIZE, SIZE, 3), alpha=0.35, include_top=False, weights=options["weights"]
    )


def read(options: dict[str, Any], part: str, *, shuffle: bool = False) -> Any:
    import keras

    return keras.utils.image_dataset_from_directory(
        f"{options['images']}/{part}", image_size=(SIZE, SIZE), batch_size=BATCH_SIZE,
        shuffle=shuffle, seed=options["seed"], verbose=False,
    )  # fmt: skip


def guide(options: dict[str, Any]) -> dict[str, Any]:
    """Train as the guide does: the head, then everything."""
    import keras
    from frozen_prefix import guide_model

    keras.utils.set_random_seed(options["seed"])
    train = read(options, "train", shuffle=True).prefetch(-1)
    validation, test = (read(options, part).prefetch(-1) for part in ("val", "test"))
    base = network(options)
    model = guide_model(base, keras.layers.Rescaling(1 / 127.5, -1), SIZE, 2)
    epochs = 1 if options["smoke"] else EPOCHS
    model.fit(train, validation_data=validation, epochs=epochs, verbose=0)
    head = (before := common.Seconds.now()) - common.Seconds(START.wall, 0.0)
    after_head = right(model, test)
    aside = common.Seconds.now() - before
    base.trainable = True
    model.compile(keras.optimizers.Adam(1e-5), model.loss, metrics=["accuracy"])
    model.fit(train, validation_data=validation, epochs=epochs, verbose=0)
    return {"head": head.to_dict() | after_head, "aside": aside.to_dict(), **right(model, test)}


def right(model: Any, test: Any) -> dict[str, int]:
    """Return of how many of the test images the class was named."""
    import numpy as np

    labels = np.concatenate([y for _, y in test.as_numpy_iterator()])
    return counted(model.predict(test, verbose=0).argmax(1) == labels)


def counted(right: Any) -> dict[str, int]:
    return {"right": int(sum(right)), "tested": len(right)}


def tuner(options: dict[str, Any]) -> dict[str, Any]:
    """Run a few trials of KerasTuner's search, and count as many seconds as all would take."""
    import keras
    import search

    import kerastl

    keras.utils.set_random_seed(options["seed"])
    given = {"backbone": BACKBONE, "weights": options["weights"], "size": SIZE}
    given |= {"seed": options["seed"], "trials_measured": TRIALS}
    data = kerastl.load_data(options["images"])
    found = search.naive(given, data)
    measured = TRIALS / (search.DEPTHS * len(search.RATES))
    more = {key: -value * (1 - measured) for key, value in found["seconds"].items()}
    tested = len(data.test)
    return {"aside": more, "right": round(found["test"] * tested), "tested": tested}


def autokeras(options: dict[str, Any]) -> dict[str, Any]:
    """Run one trial of AutoKeras."""
    sys.path.insert(0, options["packages"])
    import autokeras as ak
    import keras
    import numpy as np

    keras.utils.set_random_seed(options["seed"])
    arrays = {}
    for part in ("train", "val", "test"):
        pairs = list(read(options, part).unbatch().as_numpy_iterator())
        arrays[part] = tuple(np.stack(column) for column in zip(*pairs, strict=True))
    classifier = ak.ImageClassifier(
        max_trials=1, directory=options["own"], seed=options["seed"], overwrite=True
    )
    classifier.fit(*arrays["train"], validation_data=arrays["val"], epochs=EPOCHS, verbose=0)
    x, y = arrays["test"]
    named = np.asarray(classifier.predict(x, verbose=0)).ravel().astype(int)
    return counted(named == y)


# The report


def report(args: argparse.Namespace) -> None:
    """Print and keep what the lines say."""
    lines = read_lines(args.lines)
    args.lines, args.environment = args.lines.name, args.environment.name
    if not lines:
        common.stop("There are no lines to report on. Run the peers first.")
    found = common.Report(__file__, args)
    goals: list[common.Goal] = []
    for name in SETS:
        runs: dict[str, list[dict[str, Any]]] = {}
        for line in (line for line in lines if line["set"] == name):
            runs.setdefault(line["peer"], []).append(line)
            if "head" in line:
                head = {"peak_mb": None, "load": line["load"], **line["head"]}
                runs.setdefault("guide_head", []).append(head)
        if runs:
            rows = [
                row_of(peer, runs[peer], runs) for peer in (*PEERS, "guide_head") if peer in runs
            ]
            tested = next(iter(runs.values()))[0]["tested"]
            found.table(f"{name}, {tested} test images, {BACKBONE} at {SIZE}", rows)
            goals += goals_of(name, runs)
    found.keep(lines=lines)
    found.finish(goals)


def row_of(
    peer: str, mine: list[dict[str, Any]], runs: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    share = statistics.mean(run["right"] / run["tested"] for run in mine)
    low, high = wilson(share, mine[0]["tested"])
    peaks = [run["peak_mb"] for run in mine if run["peak_mb"] is not None]
    ours = runs.get("kerastl")
    cpu = common.median(mine, "cpu")
    return {
        "peer": peer,
        "accuracy": round(share, 3),
        "95 %": f"{low:.3f} to {high:.3f}",
        "CPU s": round(cpu, 1),
        "of kerastl's": round(cpu / common.median(ours, "cpu"), 2) if ours else None,
        "wall s": round(common.median(mine, "wall"), 1),
        "peak MB": round(statistics.median(peaks)) if peaks else None,
        "rounds": len(mine),
        "load": round(common.median(mine, "load"), 1),
    }


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's interval of 95 % of a share of so many images."""
    z = statistics.NormalDist().inv_cdf(0.975)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + (z / (2 * count)) ** 2) ** 0.5
    return middle - half, middle + half


def goals_of(name: str, runs: dict[str, list[dict[str, Any]]]) -> list[common.Goal]:
    cpu = {peer: common.median(mine, "cpu") for peer, mine in runs.items()}
    goals = []
    if name == "hymenoptera":
        for peer, most in (("kerastl_head", 15), ("kerastl", 25)):
            if peer in cpu:
                goals.append(common.Goal(f"{name}: CPU s of {peer}", cpu[peer], most, False))
        if {"kerastl_head", "fastai"} <= cpu.keys():
            times = cpu["fastai"] / cpu["kerastl_head"]
            goals.append(common.Goal(f"{name}: fastai / kerastl_head", times, 9))
    elif {"kerastl", "guide_head"} <= cpu.keys():
        times = cpu["guide_head"] / cpu["kerastl"]
        goals.append(common.Goal(f"{name}: guide_head / kerastl", times, 3))
    return goals


START = common.Seconds.now()  # of this process, as near as it can be had
if __name__ == "__main__" and not common.child_main(measure):
    main()
