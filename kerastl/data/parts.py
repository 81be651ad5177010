"""Names of the parts of a dataset, in folders, tables and arrays."""

import re

_WORDS = {
    "train": ("train", "training", "trn"),
    "validation": ("val", "valid", "validation", "validate", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst", "holdout"),
}
_PARTS = {word: part for part, words in _WORDS.items() for word in words}
_BESIDE = (
    "data", "dataset", "folder", "img", "image", "part", "photo", "picture", "private", "public",
    "sample", "seg", "set", "split", "subset",
)  # fmt: skip
_TOKEN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_]+")

WORDS = "train, val (valid, validation, dev) or test"
"""The usual words, for messages."""


def part_of(name: str) -> str | None:
    """Return the part with this name, or None.

    Example:
        >>> part_of("Training"), part_of("test_images"), part_of("seg_train"), part_of("trainset")
        ('train', 'test', 'train', 'train')
        >>> part_of("val2017"), part_of("trains"), part_of("test 2"), part_of("cat")
        ('validation', None, None, None)
    """
    tokens = [token.lower() for token in _TOKEN.findall(name)]
    rest = [token for token in tokens if token.rstrip("s") not in _BESIDE and not _is_year(token)]
    if len(rest) != 1:
        return None
    for word in (rest[0], re.sub(f"({'|'.join(_BESIDE)})s?$", "", rest[0])):
        if word in _PARTS:
            return _PARTS[word]
    return None


def _is_year(token: str) -> bool:
    return token.isdecimal() and len(token) == 4 and token[:2] in ("19", "20")
