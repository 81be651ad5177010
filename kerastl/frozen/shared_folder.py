"""Checks whether all machines of a strategy see the same folder."""

import contextlib
import uuid
from pathlib import Path
from typing import Any

from kerastl.machines import all_true, broadcast_json, is_chief


def is_shared(folder: Path, strategy: Any) -> bool:
    """Return whether what the chief writes into a folder is there on every machine."""
    name = broadcast_json(strategy, f".shared-{uuid.uuid4().hex}")
    path = folder / name
    with contextlib.suppress(OSError):  # then nobody sees it
        if is_chief(strategy):
            folder.mkdir(parents=True, exist_ok=True)
            path.touch()
    all_true(strategy, True)  # it is written before anybody looks
    shared = all_true(strategy, path.exists())
    if is_chief(strategy):
        path.unlink(missing_ok=True)
    return shared
