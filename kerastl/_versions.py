"""The versions that a result depends on."""

import importlib.metadata
import platform

PACKAGES = ("kerastl", "keras", "tensorflow", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on, by name."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}
