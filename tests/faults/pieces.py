"""What is killed piece by piece: pieces.py extract|export|extract+export FOLDER PLACE.

Each piece can be run again where it was killed, and leaves `outcome.json` in PLACE, which a run
that was never killed leaves as well.
"""

import hashlib
import json
import sys
from pathlib import Path

import keras
import numpy as np

import kerastl
from kerastl.frozen.activations import extract_activations
from kerastl.frozen.runtime import open_runtime
from kerastl.frozen.store import ActivationStore

WHAT, FOLDER, PLACE = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])


def say(line):
    """Tell who kills where this stands."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def extract(model, data):
    """Extract at several depths; whatever lies in the store is whole, or is not found."""
    store = ActivationStore(PLACE / "store")
    seen = {}
    for entry in store.entries():
        found = store.get(entry.key)
        assert found is not None
        seen[entry.key] = [sha256(array) for array in found.arrays]
    outcome = []
    for depth in (1, 2, 3):
        say(f"depth {depth}")
        found = extract_activations(
            model, data.train, depth, views=("plain", "flip"),
            runtime=open_runtime(store, "tensorflow", 4),
        )  # fmt: skip
        outcome += [[sha256(array) for array in view] for view in found.x]
    after = {e.key: [sha256(a) for a in store.get(e.key).arrays] for e in store.entries()}
    assert all(after[key] == hashes for key, hashes in seen.items())
    return [outcome, sorted(after)]


def export(model, data):
    """Export the next version; every one that is there is whole."""
    served = PLACE / "served"
    before = [path.name for path in served.glob("[0-9]*")]
    for name in before:
        assert (served / name / "saved_model.pb").is_file()
        assert (served / name / "labels.txt").is_file()
        assert (served / name / "parity.json").is_file()
    say("export")
    if not before:
        kerastl.export_model(model, served, class_names=data.class_names, parity_data=data.test)
    version = next(served.glob("[0-9]*"))
    names = sorted(path.relative_to(version).as_posix() for path in version.rglob("*"))
    return [name for name in names if "fingerprint" not in name]


keras.utils.set_random_seed(0)
keras.config.disable_traceback_filtering()
DATA = kerastl.load_data(FOLDER / "images")
MODEL = kerastl.build_transfer_model(
    str(FOLDER / "backbone.keras"), 2, class_names=DATA.class_names
)
PLACE.mkdir(parents=True, exist_ok=True)
PIECES = {"extract": extract, "export": export}
FOUND = [PIECES[name](MODEL, DATA) for name in WHAT.split("+")]
(PLACE / "outcome.json").write_text(json.dumps(FOUND))
