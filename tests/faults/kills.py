"""Real commands in child processes, killed at random moments, resumed, and compared in the end.

`test_kills.py` runs a few; by hand, `python -m tests.faults.kills --train 30 --search 20
--extract 20 --export 10` runs as many as docs/resume.md speaks of.
"""

import argparse
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

LIMIT = 600  # seconds after which a command counts as hung
KINDS = ("train", "search", "chain", "extract", "export")
SCRIPT = Path(__file__).with_name("pieces.py")


def write_images(folder, count=16, seed=0):
    """Write a folder of two classes that are hard to tell apart, so that every epoch matters."""
    rng = np.random.default_rng(seed)
    for part, number in (("train", count), ("test", 6)):
        for label, name in enumerate(("less", "more")):
            (folder / part / name).mkdir(parents=True)
            for index in range(number):
                pixels = rng.normal(110 + 25 * label, 60, (48, 48, 3)).clip(0, 255)
                Image.fromarray(pixels.astype("uint8")).save(folder / part / name / f"{index}.png")


def write_backbone(path):
    """Write a backbone of four stages that is quick to trace, and as large as a small real one."""
    import keras

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((48, 48, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    for index, filters in enumerate((8, 12, 24, 960)):
        x = keras.layers.Conv2D(filters, 3, 2, padding="same", name=f"conv_{index}")(x)
        x = keras.layers.BatchNormalization(name=f"bn_{index}")(x)
        x = keras.layers.ReLU(name=f"relu_{index}")(x)
    keras.Model(inputs, x).save(path)


def write_recipe(path, epochs=5):
    """Write a recipe of a probe, then stages over stored activations, then all over pixels.

    There are no validation images, so that the weights of the last epoch are kept. The backbone
    lies beside the recipe.
    """
    backbone = path.with_name("backbone.keras")
    write_backbone(backbone)
    rates = {"learning_rate": 1e-2, "warmup": 0.1}
    phases = [
        {"name": "head", "freeze_depth": 4, "method": "probe"},
        {"name": "above", "freeze_depth": 2, "epochs": epochs, **rates},
        {"name": "all", "freeze_depth": 0, "epochs": epochs, **rates},
    ]
    recipe = {
        "name": "kills", "phases": phases, "augmentation": "flip", "batch_size": 8,
        "backbone": str(backbone), "weights": "model", "image_size": [48, 48],
        "validation_fraction": 0.0,
    }  # fmt: skip
    path.write_text(json.dumps(recipe))


class Killer:
    """Runs one command again and again until it has been killed often enough, then to its end.

    Args:
        command: Its arguments; the same each time.
        environment: Variables beside those of this process.
        seconds: How long it takes undisturbed; kills come at random in that time.
        seed: Of the moments.
    """

    def __init__(self, command, environment, seconds, seed=0):
        self.command, self.seconds = command, seconds
        self.environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment
        self.rng = random.Random(seed)
        self.num_kills = 0
        self.told = []  # what each run said on stderr

    def run(self, after=None):
        """Run once, killed with all its children after some seconds; return the exit status."""
        process = subprocess.Popen(
            self.command, env=self.environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            _, told = process.communicate(timeout=LIMIT if after is None else after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, told = process.communicate()
            if after is None:
                raise
            self.num_kills += 1
        self.told.append(told)
        return process.returncode

    def run_to(self, line):
        """Run until a line on stderr begins so, and kill."""
        process = subprocess.Popen(
            self.command, env=self.environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        told = []
        for text in process.stderr:
            told.append(text)
            if text.startswith(line):
                break
        else:
            process.communicate()
            raise AssertionError(f"{line!r} was not told: {''.join(told)}")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        self.num_kills += 1
        self.told.append("".join(told))

    def run_until_done(self, kills, look=lambda killer: None):
        """Kill as often as asked and let it end; `look` is called after each kill."""
        goal = self.num_kills + kills
        while self.num_kills < goal:
            status = self.run(after=self.rng.uniform(0.15, 1.0) * self.seconds)
            assert status in (0, -signal.SIGKILL), self.told[-1]
            look(self)
            if status == 0:
                return
        assert self.run() == 0, self.told[-1]


def timed(command, environment):
    """Run a command undisturbed; return the seconds that it took."""
    started = time.monotonic()
    killer = Killer(command, environment, 0)
    assert killer.run() == 0, killer.told
    return time.monotonic() - started


def kerastl(*arguments):
    return [sys.executable, "-m", "kerastl", *map(str, arguments)]


def outcome(run):
    """Return all of a run directory that does not tell the time."""
    import keras

    weights = keras.saving.load_model(run / "model.keras", compile=False).get_weights()
    metrics = json.loads((run / "metrics.json").read_text())
    with open(run / "history.csv", newline="") as file:
        history = list(csv.reader(file))
    trials = []
    if (run / "trials.json").exists():
        trials = json.loads((run / "trials.json").read_text())["trials"]
        trials = sorted(
            json.dumps({k: v for k, v in trial.items() if k != "seconds"}) for trial in trials
        )
    kept = {name: metrics[name] for name in ("test", "validation", "recipe")}
    return weights, kept, history, trials, (run / "recipe.json").read_text()


def assert_same(run, undisturbed):
    weights, *others = outcome(run)
    expected, *their_others = outcome(undisturbed)
    assert others == their_others
    for one, other in zip(weights, expected, strict=True):
        assert np.array_equal(one, other)
    assert not (run / "checkpoints").exists()
    assert not list(run.glob("**/*.writing")) + list(run.glob("**/.writing*"))
    assert sorted(path.name for path in (run / "saved_model").iterdir()) == ["1"]


def last_epoch_told(told):
    """Return phase and epoch of the last line about an epoch, or None."""
    found = re.findall(r"^(above|all) epoch (\d+) ", told, re.MULTILINE)
    return found[-1] if found else None


def lost_no_epoch(folder):
    """Return a look at checkpoints: all epochs but that in flight are there."""

    def look(killer):
        told = last_epoch_told(killer.told[-1])
        kept = sorted((folder / "checkpoints").glob("[0-9]*.json"))
        if told is None or not kept:
            return
        record = json.loads(kept[-1].read_text())
        place = (record["phase"], record["epoch"])
        phase = {"above": 1, "all": 2}[told[0]]
        # A line is written just before its epoch is kept.
        assert place >= (phase, int(told[1]) - 1), (place, told)

    return look


def kill_train(folder, kills, seed=0, points=()):
    """Kill `kerastl train` at random, or at named lines; return how many kills there were."""
    write_images(folder / "images")
    write_recipe(folder / "recipe.json")
    environment = {"KERASTL_CACHE_DIR": str(folder / "cache")}

    def train(output):
        return kerastl(
            "train", folder / "images", "--recipe", folder / "recipe.json", "--output", output,
            "--resume",
        )  # fmt: skip

    undisturbed = folder / "undisturbed"
    seconds = timed(train(undisturbed), environment)
    done, number = 0, 0
    if points:
        run = folder / "points"
        killer = Killer(train(run), environment, seconds)
        for point in points:
            killer.run_to(point)
            lost_no_epoch(run)(killer)
        assert killer.run() == 0, killer.told[-1]
        done += killer.num_kills
        assert_same(run, undisturbed)
    while done < kills:
        run = folder / f"run{number}"
        number += 1
        killer = Killer(train(run), environment, seconds, seed + number)
        killer.run_until_done(min(5, kills - done), lost_no_epoch(run))
        done += killer.num_kills
        assert_same(run, undisturbed)
    return done


def kill_search(folder, kills, seed=0):
    """Kill `kerastl search`, in its trials and in the training of the best."""
    write_images(folder / "images")
    write_backbone(folder / "backbone.keras")
    environment = {"KERASTL_CACHE_DIR": str(folder / "cache")}

    def search(output):
        return kerastl(
            "search", folder / "images", "--backbone", folder / "backbone.keras", "--tuner",
            "random", "--max-trials", 4, "--epochs", 3, "--output", output, "--resume",
        )  # fmt: skip

    undisturbed = folder / "undisturbed"
    seconds = timed(search(undisturbed), environment)
    done, number = 0, 0
    while done < kills:
        run = folder / f"run{number}"
        number += 1
        trials = []

        def look(killer, run=run, trials=trials):
            there = sorted((run / "trials").glob("*.json"))
            for path in there:
                json.loads(path.read_text())  # whole
            assert len(there) >= len(trials), "a trial was lost"
            trials[:] = there

        killer = Killer(search(run), environment, seconds, seed + number)
        killer.run_until_done(min(5, kills - done), look)
        done += killer.num_kills
        assert_same(run, undisturbed)
    return done


def write_chain(folder):
    """Write a chain of two steps with their images; return the file."""
    for number, name in enumerate(("first", "second")):
        write_images(folder / name, seed=number)
    write_recipe(folder / "recipe.json", epochs=2)
    steps = "".join(
        f'[[step]]\nname = "{name}"\ndata = "{folder / name}"\nrecipe = "{folder}/recipe.json"\n'
        for name in ("first", "second")
    )
    (folder / "chain.toml").write_text(steps)
    return folder / "chain.toml"


def assert_same_chain(run, undisturbed):
    for place in ("1-first", "2-second", "compared/0-straight"):
        weights, kept, history, *_ = outcome(run / place)
        expected, their_kept, their_history, *_ = outcome(undisturbed / place)
        assert (kept["test"], history) == (their_kept["test"], their_history)
        for one, other in zip(weights, expected, strict=True):
            assert np.array_equal(one, other)
        assert (run / place / "report.html").is_file()
    found, expected = (json.loads((at / "chain.json").read_text()) for at in (run, undisturbed))
    assert found["brought"] == expected["brought"]
    assert found["paid"] == expected["paid"]
    assert not list(run.glob("**/checkpoints"))


def kill_chain(folder, kills, seed=0, points=()):
    """Kill `kerastl chain` at named lines and at random; two steps, and one to compare with."""
    steps = write_chain(folder)
    environment = {"KERASTL_CACHE_DIR": str(folder / "cache")}

    def chain(output):
        return kerastl("chain", steps, "--output", output, "--resume")

    undisturbed, run = folder / "undisturbed", folder / "run"
    seconds = timed(chain(undisturbed), environment)
    killer = Killer(chain(run), environment, seconds, seed)
    for point in points:
        killer.run_to(point)
    killer.run_until_done(kills)
    assert_same_chain(run, undisturbed)
    return killer.num_kills


def kill_piece(what, folder, kills, seed=0, points=()):
    """Kill the extraction into the store, the export, or both, of `pieces.py`."""
    write_images(folder / "images", count=60)
    write_backbone(folder / "backbone.keras")
    command = [sys.executable, SCRIPT, what, folder]
    undisturbed, done, number = folder / "undisturbed", 0, 0
    seconds = timed([*command, undisturbed], {})
    while done < max(kills, len(points)):
        place = folder / f"place{number}"
        number += 1
        killer = Killer([*command, place], {}, seconds, seed + number)
        for point in points:
            killer.run_to(point)
        killer.run_until_done(min(4, kills - done) if kills else 0)
        done += killer.num_kills
        one, other = (json.loads((p / "outcome.json").read_text()) for p in (place, undisturbed))
        assert one == other
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = {"train": kill_train, "search": kill_search, "chain": kill_chain}
    for name in KINDS:
        parser.add_argument(f"--{name}", type=int, default=0, metavar="KILLS")
    parser.add_argument("--seed", type=int, default=0)
    arguments = vars(parser.parse_args())
    for name in KINDS:
        if not (kills := arguments[name]):
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            kill = kinds.get(name) or (lambda *a, name=name: kill_piece(name, *a))
            done = kill(Path(folder), kills, arguments["seed"])
        print(f"{name}: {done} kills, all as undisturbed, {time.monotonic() - started:.0f} s")  # noqa: T201


if __name__ == "__main__":
    main()
