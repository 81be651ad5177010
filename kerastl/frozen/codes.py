"""The output of any named layer of a network for each image."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from kerastl._cache import cache_directory
from kerastl._checks import check_choice, check_int
from kerastl.backbones.given_models import whole_model
from kerastl.backbones.loaded import LoadedBackbone
from kerastl.backbones.preprocessing import Preprocessing
from kerastl.backbones.weights import build_network, load_backbone, resolve_name, sides_of
from kerastl.data.split import Split
from kerastl.errors import ArgumentError
from kerastl.frozen.engines import ENGINES, make_engine
from kerastl.frozen.layers import Place, find_layer, network_to, unknown_layer
from kerastl.frozen.prefixes import HEAD, embedding_network, image_size_of
from kerastl.model.build import preprocess_layer
from kerastl.model.freeze import backbone_of

POOLS = ("avg", "max", "none")
Splits = Split | Sequence[Split]


def extract_codes(
    model: str | keras.Model,
    split: Splits,
    *,
    at: str | None = None,
    pool: str = "avg",
    weights: str | os.PathLike[str] = "imagenet",
    image_size: int | tuple[int, int] | None = None,
    batch_size: int = 32,
    engine: str = "auto",
) -> np.ndarray:
    """Return the output of any named layer for each image, in inference mode.

    For `"VGG16"`, `at="fc2"` gives the 4,096 rectified outputs of the second fully connected layer
    (https://cs231n.github.io/transfer-learning: "it is important for
    performance that these codes are ReLUd").

    Args:
        model: a name of `keras.applications` as for `build_transfer_model`, a model of
            `build_transfer_model`, or any Functional model for raw pixels. For a name, the
            preprocessing is included, and the classifier of 1,000 classes is loaded if the layer is
            part of it.
        split: `data.train`, or several splits, whose rows are concatenated.
        at: name of the layer, also in a nested model, or its path (`"backbone/block_5_add"`).
            Default: the pooled output of the backbone, which is the input of the head.
        pool: how a feature map is pooled: `"avg"` (default; as in all backbones of
            `keras.applications` except VGG), `"max"`, or `"none"`, which keeps the map.
        weights: for a name: `"imagenet"`, `"embedded"`, `"random"` or a file.
        image_size: height and width in pixels. Default: the backbone's native size.
        batch_size: images per step.
        engine: as in `extract_embeddings`.

    Returns:
        float32 `(num_images, dim)`, in the order of the split; `(num_images, height, width,
        channels)` for a map that is not pooled. `stream_codes` returns them batch by batch.

    Raises:
        ArgumentError: there is no such layer; the error lists similar names.
        WeightsError: the weights cannot be loaded or do not fit.

    Example:
        >>> codes = kerastl.extract_codes("VGG16", data.train, at="fc2")
        >>> codes.shape, codes.min()
        ((1000, 4096), 0.0)
    """
    network = code_network(model, at, pool=pool, weights=weights, image_size=image_size)
    count = sum(map(len, listed_splits(split)))
    codes = np.empty((count, *network.output_shape[1:]), np.float32)
    start = 0
    for batch in stream_codes(network, split, batch_size=batch_size, engine=engine):
        codes[start : start + len(batch)] = batch
        start += len(batch)
    return codes


def code_network(
    model: str | keras.Model,
    at: str | None = None,
    *,
    pool: str = "avg",
    weights: str | os.PathLike[str] = "imagenet",
    image_size: int | tuple[int, int] | None = None,
) -> keras.Model:
    """Return the network from raw pixels to the codes; arguments as `extract_codes` takes them."""
    check_choice("pool", pool, POOLS)
    if isinstance(model, (str, os.PathLike)):
        loaded, place = _named(os.fspath(model), at, weights, image_size)
    else:
        loaded = whole_model(model, weights, image_size)
        place = None if at is None else _place(loaded.model, at)
    channels = loaded.model.inputs[0].shape[-1]
    inputs = keras.Input((*loaded.image_size, channels), name="image")
    x = inputs
    if loaded.preprocessing != Preprocessing():
        x = preprocess_layer(loaded.preprocessing)(inputs)
    outputs = _below(loaded.model, place)(x)
    return keras.Model(inputs, _pooled(outputs, pool), name="codes")


def stream_codes(
    network: keras.Model, split: Splits, *, batch_size: int = 32, engine: str = "auto"
) -> Iterator[np.ndarray]:
    """Yield the codes of images batch by batch; nothing but a few batches is held.

    Args:
        network: of `code_network`.
        split: one split, or several, one after another.
        batch_size: images per step.
        engine: as in `extract_embeddings`.

    Yields:
        float32 `(batch, ...)`.
    """
    check_int("batch_size", batch_size, 1)
    check_choice("engine", engine, ENGINES)
    splits = listed_splits(split)
    run = None
    for part in splits:
        if not len(part):
            continue
        for pixels in part.images(image_size_of(network), batch_size).as_numpy_iterator():
            run = run or make_engine(
                network,
                engine=engine,
                sample=pixels,
                num_images=sum(map(len, splits)),
                directory=cache_directory(),
            )
            (codes,) = run(pixels)
            yield codes


def listed_splits(split: Splits) -> list[Split]:
    """Return one split, or several, as a list."""
    return list(split if isinstance(split, (list, tuple)) else [split])


class CodeSample:
    """Passes batches of codes on, and keeps the rows of some images and what is true of all.

    Args:
        rows: places of the images whose codes are kept, ascending.

    Attributes:
        lowest: the least of all numbers; 0 or more of codes that are rectified.
        num_zeros: how many of them are 0.
        num_values: how many there are.
    """

    def __init__(self, rows: np.ndarray):
        self._rows = rows
        self._kept: list[np.ndarray] = []
        self.lowest = float("inf")
        self.num_zeros = self.num_values = 0

    def passing(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the batches as they come."""
        start = 0
        for batch in batches:
            self.lowest = float(np.minimum(self.lowest, batch.min()))  # keeps what is no number
            self.num_zeros += int(batch.size - np.count_nonzero(batch))
            self.num_values += batch.size
            low, high = np.searchsorted(self._rows, (start, start + len(batch)))
            self._kept.append(batch[self._rows[low:high] - start])
            start += len(batch)
            yield batch

    @property
    def codes(self) -> np.ndarray:
        """The codes of the rows, float32 `(len(rows), dim)`; a map is one row."""
        kept = np.concatenate(self._kept)
        return kept.reshape(len(kept), -1)


def _named(
    name: str, at: str | None, weights: str | os.PathLike[str], image_size: Any
) -> tuple[LoadedBackbone, Place | None]:
    """Load a backbone, with its top only where the layer lies in there."""
    spec = resolve_name(name)
    if at is None or spec is None:
        loaded = load_backbone(name, weights=weights, image_size=image_size)
        return loaded, None if at is None else _place(loaded.model, at)
    graphs = []
    size = sides_of(spec, image_size)
    for include_top in (False, True):
        with keras.StatelessScope(initialize_variables=False):  # VGG's top fills half a gigabyte
            graph = build_network(spec, size, include_top=include_top)
        if (place := find_layer(graph, at)) is not None:
            loaded = load_backbone(
                name, weights=weights, image_size=image_size, include_top=include_top
            )
            return loaded, place
        graphs.append(graph)
    raise unknown_layer(at, name, graphs)


def _place(model: keras.Model, at: str) -> Place:
    place = find_layer(model, at)
    if place is None:
        raise unknown_layer(at, model.name, [model])
    return place


def _below(model: keras.Model, place: Place | None) -> Any:
    if place is not None:
        return network_to(model, place)
    has_head = any(layer.name == HEAD for layer in model.layers)
    return embedding_network(model) if has_head and backbone_of(model) is not model else model


def _pooled(x: Any, pool: str) -> Any:
    rank = len(x.shape)
    if rank == 2 or (pool == "none" and rank > 2):
        return x
    if rank < 2:
        raise ArgumentError(
            "A layer of codes must have an output of rank 2 or more, (batch, ..., dim). "
            f"Received one of shape {tuple(x.shape)}. Choose an earlier layer."
        )
    places = tuple(range(1, rank - 1))
    return keras.ops.mean(x, places) if pool == "avg" else keras.ops.max(x, places)
