"""The errors that kerastl raises.

KerastlError
├── ArgumentError      (also a ValueError) an argument cannot be meant
├── DataError          (also a ValueError) the images or labels are wrong
│   └── UnreadableImagesError   some files are no images; carries `bad_files`
├── WeightsError       weights cannot be loaded, or do not fit the network
├── TrainingError      training cannot go on
└── ExportError        an artifact could not be written

Every message says what arrived, what would do and the next step.
"""

from collections.abc import Sequence
from typing import NamedTuple


class KerastlError(Exception):
    """Base of all errors of kerastl.

    `exit_status` is what the command exits with: 2 when the arguments or the data are wrong,
    1 when the work failed.
    """

    exit_status = 1


class ArgumentError(KerastlError, ValueError):
    """An argument has a value that cannot be meant."""

    exit_status = 2


class DataError(KerastlError, ValueError):
    """The images or their labels are wrong."""

    exit_status = 2


class BadFile(NamedTuple):
    """A file that cannot be used, and why."""

    path: str
    reason: str


class UnreadableImagesError(DataError):
    """Some files are no readable images; `bad_files` names each with its reason."""

    def __init__(self, bad_files: Sequence[BadFile], num_files: int):
        self.bad_files = list(bad_files)
        listed = "\n".join(f"  {path}: {reason}" for path, reason in self.bad_files)
        super().__init__(
            f"{len(self.bad_files)} of {num_files} files are not readable images:\n{listed}\n"
            'Repair or remove them, or leave them out with `on_bad="skip"` (`--on-bad skip`).'
        )


class WeightsError(KerastlError):
    """Weights cannot be loaded, or do not fit the network."""

    exit_status = 2


class TrainingError(KerastlError):
    """Training cannot go on."""


class ExportError(KerastlError):
    """An artifact could not be written."""
