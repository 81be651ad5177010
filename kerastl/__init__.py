"""Transfer learning for image classification on Keras 3 and TensorFlow.

`import kerastl` is quick: TensorFlow is imported with the first name that needs it. The public
names stand in `__init__.pyi`, for type checkers and for the lines below.
"""

import ast
import importlib
import os
from pathlib import Path
from typing import Any

# TensorFlow's start-up noise stays off the terminal, unless the user asked for it: at level 3, for
# it reports as errors that there is no GPU and that oneDNN has no kernel for bytes.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = "0.2.0"

_MODULE_OF = {
    alias.name: node.module
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom) and node.module
    for alias in node.names
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'kerastl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    if not isinstance(value, type):  # classes say so themselves, which others make too
        value = importlib.import_module("kerastl._typed").typed(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
