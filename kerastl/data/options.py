"""How to read a source where it does not say so itself."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kerastl._checks import check_int
from kerastl.errors import ArgumentError

MOST_BITS = 32


@dataclass(frozen=True)
class DataOptions:
    """The arguments of `load_data` about one source; each is described there.

    Raises:
        ArgumentError: a value cannot be meant.
    """

    image_column: str | None = None
    label_column: str | Sequence[str] | None = None
    split_column: str | None = None
    group_column: str | None = None
    label_separator: str | None = None
    image_folder: str | None = None
    image_suffix: str | None = None
    group_by: str | None = None
    bit_depth: int | None = None
    data_dir: str | None = None

    def __post_init__(self) -> None:
        if self.label_column is not None and not isinstance(self.label_column, str):
            object.__setattr__(self, "label_column", tuple(self.label_column))
        if self.bit_depth is not None:
            check_int("bit_depth", self.bit_depth, 1, MOST_BITS)
        if self.label_separator == "":
            raise ArgumentError("`label_separator` must hold a character. Received: ''.")
        try:
            re.compile(self.group_by or "")
        except re.error as error:
            raise ArgumentError(
                f"`group_by` must be a regular expression, such as '^([^_]+)_'. Received: "
                f"{self.group_by!r} ({error})."
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """Return what was given, as plain values that JSON can hold."""
        return {name: value for name, value in asdict(self).items() if value is not None}


NO_OPTIONS = DataOptions()
