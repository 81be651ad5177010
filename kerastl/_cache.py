"""The cache directory of kerastl."""

import os
from pathlib import Path

CACHE_DIR = "KERASTL_CACHE_DIR"


def cache_directory() -> Path:
    """Return the folder that `KERASTL_CACHE_DIR` names, else `~/.cache/kerastl`."""
    named = os.environ.get(CACHE_DIR)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "kerastl"
