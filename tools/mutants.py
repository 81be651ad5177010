"""Put deliberate faults into copies of kerastl, and see which test of the default suite fails.

    python tools/mutants.py                 # all; about ten minutes
    python tools/mutants.py split_leaks     # one

A fault is first looked for by the test files that should find it, then by the whole default suite.
The table goes into CONTRIBUTING.md. The exit status is 1 when a fault was not found.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("kerastl", "tests", "tools", "examples", "docs", "benchmarks", "pyproject.toml")
COPIED_TOO = ("README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md")


@dataclass(frozen=True)
class Mutant:
    """A fault: texts of files that are replaced by others, and where it should be found."""

    fault: str
    edits: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]


MUTANTS = {
    "batch_norm_open": Mutant(
        "BatchNormalization of an open stage trains",
        (
            (
                "kerastl/model/freeze.py",
                "        if isinstance(leaf, keras.layers.BatchNormalization):\n"
                "            leaf.trainable = False\n",
                "        pass\n",
            ),
        ),
        ("tests/model/test_freeze.py", "tests/model", "tests/training/test_fine_tune.py"),
    ),
    "preprocessed_twice": Mutant(
        "pixels are preprocessed twice",
        (
            (
                "kerastl/model/build.py",
                "    x = preprocess(inputs)\n",
                "    x = preprocess(preprocess(inputs))\n",
            ),
        ),
        ("tests/model/test_build.py", "tests/model", "tests/backbones"),
    ),
    "split_leaks": Mutant(
        "images that are held out stay in training too",
        (
            (
                "kerastl/data/load.py",
                '"train": train.subset(kept), name:',
                '"train": train, name:',
            ),
        ),
        ("tests/data/test_load.py",),
    ),
    "key_without_size": Mutant(
        "the key of stored activations leaves out the image size",
        (
            ("kerastl/frozen/extraction.py", "computes, size, view.id", "computes, view.id"),
            (
                "kerastl/frozen/fingerprint.py",
                "[list(tensor.shape[1:]) for tensor in network.inputs]",
                "[list(tensor.shape[3:]) for tensor in network.inputs]",
            ),
            (
                "kerastl/frozen/fingerprint.py",
                "[list(tensor.shape[1:]) for tensor in node.outputs]",
                "[list(tensor.shape[3:]) for tensor in node.outputs]",
            ),
            (
                "kerastl/frozen/fingerprint.py",
                '_NO_PART = ("name", ',
                '_NO_PART = ("batch_shape", "name", ',
            ),
        ),
        ("tests/frozen/test_activations.py", "tests/frozen"),
    ),
    "key_without_data": Mutant(
        "the key of stored activations leaves out the images",
        (("kerastl/frozen/extraction.py", "view.id, data, dtype", "view.id, dtype"),),
        ("tests/frozen/test_activations.py", "tests/frozen"),
    ),
    "labels_in_another_order": Mutant(
        "the export answers with the names of the classes in another order",
        (
            (
                "kerastl/tasks/classification.py",
                "        names = tf.constant(class_names)\n",
                "        names = tf.constant(class_names[::-1])\n",
            ),
        ),
        ("tests/serving/test_export.py", "tests/serving"),
    ),
    "rates_rise_to_the_input": Mutant(
        "learning rates rise towards the input",
        (
            (
                "kerastl/model/optimizers.py",
                "* layer_decay ** (last - stage)",
                "/ layer_decay ** (last - stage)",
            ),
        ),
        ("tests/model/test_optimizers.py",),
    ),
    "temperature_upside_down": Mutant(
        "the exported scores are multiplied by the temperature",
        (
            (
                "kerastl/serving/network.py",
                "np.asarray(weight) / temperature",
                "np.asarray(weight) * temperature",
            ),
        ),
        ("tests/serving/test_network.py",),
    ),
    "parity_accepts_all": Mutant(
        "an export that answers otherwise than the model is accepted",
        (("kerastl/serving/parity.py", "if not close or not agrees:", "if not rows:"),),
        ("tests/serving/test_parity.py", "tests/serving/test_export.py"),
    ),
    "resume_without_optimizer": Mutant(
        "a resumed training has lost what its optimizer remembered",
        (
            (
                "kerastl/training/resume.py",
                'set_values(self._network.optimizer.variables, arrays["optimizer"])',
                "pass",
            ),
        ),
        ("tests/training/test_resume.py",),
    ),
    "last_epoch_kept": Mutant(
        "the weights of the last epoch are kept, not those of the best",
        (
            (
                "kerastl/training/callbacks.py",
                "        network.set_weights(self.best_weights)\n",
                "        pass\n",
            ),
        ),
        ("tests/training/test_callbacks.py", "tests/training/test_fine_tune.py"),
    ),
    "orientation_ignored": Mutant(
        "photographs are not turned upright",
        (
            (
                "kerastl/data/decode.py",
                "lambda: image, turned)",
                "lambda: image, lambda: image)",
            ),
        ),
        ("tests/data/test_decode.py",),
    ),
    "dropout_in_frozen_stages": Mutant(
        "dropout in frozen stages is active while the others train",
        (
            (
                "kerastl/model/freeze.py",
                "        setattr(layer, name, 0.0)\n",
                "        setattr(layer, name, getattr(layer, name))\n",
            ),
        ),
        ("tests/model/test_freeze.py", "tests/training"),
    ),
}


def copy_of_the_tree(folder: Path) -> None:
    """Copy what the tests need."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
        else:
            shutil.copy(ROOT / name, folder)
    for name in COPIED_TOO:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder)


def replaced(text: str, before: str, after: str, file: str) -> str:
    """Return a text with a part replaced, which must stand in it once."""
    if text.count(before) != 1:
        raise SystemExit(f"{file} holds {before!r} {text.count(before)} times, not once.")
    return text.replace(before, after)


def failing_test(tree: Path, tests: tuple[str, ...]) -> str | None:
    """Return the first test of the default suite that fails, or None where all pass."""
    shared = os.environ.get("KERASTL_TEST_SHARED", str(ROOT.parent / "shared"))
    environment = os.environ | {"PYTHONPATH": str(tree), "KERASTL_TEST_SHARED": shared}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=tree, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if found is None:
        raise SystemExit(f"pytest could not run {tests}:\n{done.stdout[-3000:]}{done.stderr}")
    return found[1]


def found_by(mutant: Mutant) -> str | None:
    """Return the test that finds a fault."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_of_the_tree(tree)
        for file, before, after in mutant.edits:
            path = tree / file
            path.write_text(replaced(path.read_text(), before, after, file))
        for tests in [*((test,) for test in mutant.tests), ()]:
            if (test := failing_test(tree, tests)) is not None:
                return test
    return None


def main() -> None:
    """Print a row a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MUTANTS))
    names = parser.parse_args().names or list(MUTANTS)
    if unknown := set(names) - set(MUTANTS):
        parser.error(f"There is no fault {sorted(unknown)}.")
    missed = 0
    print("| fault | found by |\n| --- | --- |")
    for name in names:
        test = found_by(MUTANTS[name])
        missed += test is None
        print(f"| {MUTANTS[name].fault} | {f'`{test}`' if test else 'nothing'} |", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
