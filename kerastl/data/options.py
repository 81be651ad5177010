"""Options for reading a source."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from kerastl._checks import check_choice, check_int
from kerastl._typed import typed
from kerastl.errors import ArgumentError

MOST_BITS = 32
RGB, MOST_CHANNELS = 3, 1024
RESIZES = ("squash", "pad", "crop")


@dataclass(frozen=True)
class PixelRules:
    """How an image becomes the pixels that a model sees: alike in training and ever after.

    Args:
        bit_depth: of images of more than 8 bits, as `load_data` takes it.
        resize: how an image of another shape than the model's is brought to it, the same.
        channels: of the pixels, the same.
    """

    bit_depth: int | None = None
    resize: str = "squash"
    channels: int = RGB

    def fits(self, channels: int) -> bool:
        """Return whether images with this number of channels can be read."""
        return channels in ((1, RGB) if self.channels == RGB else (self.channels,))

    @property
    def channels_in_words(self) -> str:
        """How many channels images can have."""
        return "1 or 3" if self.channels == RGB else str(self.channels)

    def __post_init__(self) -> None:
        if self.bit_depth is not None:
            check_int("bit_depth", self.bit_depth, 1, MOST_BITS)
        check_choice("resize", self.resize, RESIZES)
        check_int("channels", self.channels, 1, MOST_CHANNELS)


AS_ALWAYS = PixelRules()
"""Those of runs that do not say."""


def usual_resize(has_one_class: bool) -> str:
    """Return how images are resized where nothing is said.

    The middle tells the class of a photograph better than the squashed whole (1.0 point, 0.2 to
    1.8: `benchmarks/resize.py`); where several things are told, some may lie at the edge.
    """
    return "crop" if has_one_class else "squash"


@typed
@dataclass(frozen=True)
class DataOptions:
    """The arguments of `load_data` that describe how to read a source; see `load_data`.

    Raises:
        ArgumentError: a value is invalid.
    """

    image_column: str | None = None
    label_column: str | tuple[str, ...] | None = None
    split_column: str | None = None
    group_column: str | None = None
    label_separator: str | None = None
    image_folder: str | None = None
    image_suffix: str | None = None
    group_by: str | None = None
    bit_depth: int | None = None
    resize: str | None = None
    channels: int | None = None
    data_dir: str | None = None

    def __post_init__(self) -> None:
        if self.label_column is not None and not isinstance(self.label_column, str):
            object.__setattr__(self, "label_column", tuple(self.label_column))
        self.rules  # noqa: B018  # which checks them
        if self.label_separator == "":
            raise ArgumentError("`label_separator` must not be empty. Received: ''.")
        try:
            re.compile(self.group_by or "")
        except re.error as error:
            raise ArgumentError(
                f"`group_by` must be a regular expression, such as '^([^_]+)_'. Received: "
                f"{self.group_by!r} ({error})."
            ) from None

    @property
    def rules(self) -> PixelRules:
        """How images become pixels."""
        channels = RGB if self.channels is None else self.channels
        return PixelRules(self.bit_depth, self.resize or AS_ALWAYS.resize, channels)

    def to_dict(self) -> dict[str, Any]:
        """Return what was given, as plain values that JSON can hold."""
        return {name: value for name, value in asdict(self).items() if value is not None}


NO_OPTIONS = DataOptions()
