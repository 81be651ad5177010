"""Options for reading a source."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from kerastl._checks import check_choice, check_int
from kerastl._typed import typed
from kerastl.errors import ArgumentError

MOST_BITS = 32
RGB, MOST_CHANNELS = 3, 1024
RESIZES = ("squash", "pad", "crop")


@dataclass(frozen=True)
class PixelRules:
    """How an image becomes pixels for a model, in training and in every later use.

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


def _given(text: str) -> Any:
    """Return a field that may be left out, with the help of its option of the command."""
    return field(default=None, metadata={"help": text})


@typed
@dataclass(frozen=True)
class DataOptions:
    """The arguments of `load_data` that describe how to read a source; see `load_data`.

    Raises:
        ArgumentError: a value is invalid.
    """

    image_column: str | None = _given("Table column with the image paths.")
    label_column: str | tuple[str, ...] | None = _given(
        "Table column with the labels; can be repeated."
    )
    split_column: str | None = _given("Table column with train, val or test.")
    group_column: str | None = _given(
        "Table column with groups; a group is never split between parts."
    )
    label_separator: str | None = _given(
        "Character between labels in a cell; default: | ; or , if present."
    )
    image_folder: str | None = _given(
        "Folder of the table's images; default: the folder of the table."
    )
    image_suffix: str | None = _given("Suffix to add to file names in the table, such as .jpg.")
    group_by: str | None = _given("Regular expression; files with the same match form a group.")
    bit_depth: int | None = _given("Bits per pixel that are used, such as 12; default: 16.")
    resize: str | None = _given("How images get the shape of the input.")
    channels: int | None = _given("Channels per image in .npz and TIFF files; default: 3.")
    data_dir: str | None = _given("Data directory of tensorflow-datasets.")

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
