"""Arrays of images and labels, checked before anything is computed from them."""

import zipfile
from collections.abc import Sequence

import numpy as np

from kerastl.data.loaded import Loaded, listed
from kerastl.data.pixels import ArraySource
from kerastl.data.split import Split
from kerastl.data.targets import array_names, checked_array
from kerastl.data.tasks import NOUNS
from kerastl.errors import DataError

_LAYOUTS = (
    {
        "train": ("x_train", "y_train"),
        "validation": ("x_val", "y_val"),
        "test": ("x_test", "y_test"),
    },
    {
        "train": ("train_images", "train_labels"),
        "validation": ("val_images", "val_labels"),
        "test": ("test_images", "test_labels"),
    },
    {"train": ("x", "y")},
    {"train": ("images", "labels")},
)
_CHUNK = 1024  # images that are checked at a time, so that memory stays bounded


def read_npz(path: str, class_names: Sequence[str] | None, task: str = "classification") -> Loaded:
    """Read an `.npz` file with the names that Keras, MedMNIST or plain use gives to arrays."""
    try:
        with np.load(path, allow_pickle=False) as file:
            layout = _find_layout(file.files, path)
            arrays = {part: (file[x], file[y]) for part, (x, y) in layout.items()}
    except DataError:
        raise
    except (ValueError, zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"{path!r} is no readable .npz file of plain arrays: {error}. "
            "Write it again with `np.savez` from arrays of numbers."
        ) from None
    return read_arrays(arrays, class_names, task)


def read_arrays(
    arrays: dict[str, tuple[np.ndarray, np.ndarray]],
    class_names: Sequence[str] | None,
    task: str = "classification",
) -> Loaded:
    """Make splits of the images and labels of each part."""
    images = {part: check_images(np.asarray(x), part) for part, (x, _) in arrays.items()}
    found = {part: np.asarray(y) for part, (_, y) in arrays.items()}
    for part, x in images.items():
        if found[part].shape[:1] != (len(x),):
            raise DataError(
                f"Every image needs one label. Received: {len(x)} images and "
                f"labels of shape {found[part].shape} in {part}. Pass arrays of equal length."
            )
    labels, names = read_labels(found, class_names, task)
    sources = {part: ArraySource(x, np.arange(len(x))) for part, x in images.items()}
    parts = {
        part: Split(source, labels[part], len(names), task) for part, source in sources.items()
    }
    return Loaded(parts, names)


def read_labels(
    labels: dict[str, np.ndarray], class_names: Sequence[str] | None, task: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the labels of each part as `Split` wants them, and what they are called."""
    if task == "classification":
        return number_labels(labels, class_names)
    targets = {part: checked_array(values, task, part) for part, values in labels.items()}
    counts = {values.shape[1] for values in targets.values()}
    if len(counts) > 1:
        raise DataError(
            f"All parts must have as many {NOUNS[task]} an image. Received: {sorted(counts)}. Give "
            "each part the same columns."
        )
    return targets, array_names(counts.pop(), task, class_names)


def check_images(images: np.ndarray, part: str) -> np.ndarray:
    """Return `images` when they are raw pixels 0 to 255 of a shape that is known."""
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3)):
        raise DataError(
            "Images must have the shape (n, height, width) or (n, height, width, 1 or 3). "
            f"Received: {images.shape} in {part}. Put the channels last and leave alpha out."
        )
    if 0 in images.shape or images.dtype.kind not in "uif":
        raise DataError(
            "Images must be a non-empty array of numbers. Received: shape "
            f"{images.shape}, dtype {images.dtype} in {part}. Pass uint8 pixels from 0 to 255."
        )
    if images.dtype != np.uint8:
        chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
        low, high = min(chunk.min() for chunk in chunks), max(chunk.max() for chunk in chunks)
        check_range(float(low), float(high), images.dtype.kind == "f", part)
    return images


def check_range(low: float, high: float, is_float: bool, part: str) -> None:
    """Raise unless pixels from `low` to `high` are on the 0-255 scale."""
    received = f"Received: values from {low:g} to {high:g} in {part}."
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(
            f"Pixels must be finite. {received} Remove the images with NaN or infinity."
        )
    if low < 0 or high > 255:
        raise DataError(
            f"Pixels must be raw, from 0 to 255. {received} Undo the preprocessing: the model "
            "preprocesses inside."
        )
    if is_float and high <= 1:
        raise DataError(f"Pixels must be raw, from 0 to 255. {received} Multiply them by 255.")


def number_labels(
    labels: dict[str, np.ndarray], class_names: Sequence[str] | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Turn labels of any usual form into ints from 0, and say what they are called.

    Args:
        labels: For each part ints `(n,)` or `(n, 1)`, one-hot rows `(n, num_classes)`, or texts.
        class_names: The names of the ints in order, if they have any.

    Returns:
        The int64 labels `(n,)` of each part, and the names of the classes.
    """
    flat = {part: _flatten(values, part) for part, values in labels.items()}
    if any(values.dtype.kind == "U" for values in flat.values()):
        return _number_texts(flat, class_names)
    together = np.concatenate(list(flat.values()))
    least, most = int(together.min()), int(together.max())
    num_classes = len(class_names) if class_names is not None else most + 1
    if least < 0 or most >= num_classes:
        limit = "" if class_names is None else f", and below {num_classes}, as named"
        raise DataError(
            f"Labels must be ints from 0{limit}. Received: labels from {least} to {most}. "
            "Remove the unlabelled images, or number the classes from 0."
        )
    names = [str(number) for number in range(num_classes)] if class_names is None else class_names
    return flat, list(names)


def _number_texts(
    labels: dict[str, np.ndarray], class_names: Sequence[str] | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    texts = {part: values.astype(str) for part, values in labels.items()}
    names = sorted(set(np.concatenate(list(texts.values())).tolist()))
    names = names if class_names is None else list(class_names)
    unknown = sorted({text for values in texts.values() for text in values.tolist()} - {*names})
    if unknown:
        raise DataError(
            f"Labels must be among `class_names`. Received: {listed(unknown)}. Name them all."
        )
    numbers = {name: number for number, name in enumerate(names)}
    numbered = {
        part: np.array([numbers[text] for text in values.tolist()], np.int64)
        for part, values in texts.items()
    }
    return numbered, names


def _flatten(labels: np.ndarray, part: str) -> np.ndarray:
    """Return labels `(n,)` of ints or texts."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    one_hot = labels.ndim == 2 and labels.dtype.kind in "uifb"
    if one_hot and ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all():
        return labels.argmax(axis=1)
    if labels.ndim == 1 and labels.dtype.kind in "USO" and _are_texts(labels):
        return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in labels.tolist()])
    whole = labels.dtype.kind in "ui" or (
        labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels % 1 == 0).all()
    )
    if labels.ndim == 1 and whole:
        return labels.astype(np.int64)
    raise DataError(
        "Labels must be ints (n,), texts (n,) or one-hot rows (n, num_classes). Received: shape "
        f"{labels.shape}, dtype {labels.dtype} in {part}. Give each image exactly one class, or "
        "pass task='multi_label' (0 and 1, a column a label) or task='regression' (numbers)."
    )


def _are_texts(labels: np.ndarray) -> bool:
    return len(labels) > 0 and all(isinstance(value, (str, bytes)) for value in labels.tolist())


def _find_layout(keys: Sequence[str], path: str) -> dict[str, tuple[str, str]]:
    for layout in _LAYOUTS:
        if set(layout["train"]) <= set(keys):
            return {part: pair for part, pair in layout.items() if set(pair) <= set(keys)}
    expected = "; ".join(", ".join(layout["train"]) for layout in _LAYOUTS)
    raise DataError(
        f"{path!r} must hold images and labels under one of these pairs of names: {expected}. "
        f"Received: {listed(list(keys))}. Rename the arrays."
    )
