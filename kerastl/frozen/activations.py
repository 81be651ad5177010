"""Computes the outputs of the frozen part of a model once."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np

from kerastl._checks import check_choice
from kerastl._task import check_supports
from kerastl.backbones.stages import Cut, Stage
from kerastl.data.split import Split
from kerastl.frozen.entry import DTYPES, Arrays
from kerastl.frozen.extraction import EMBEDDINGS, Extraction, ExtractionRequest, read_batches
from kerastl.frozen.prefixes import (
    cut_name,
    embedding_network,
    prefix_at,
    stage_embedding_network,
)
from kerastl.frozen.runtime import FrozenRuntime, StoreChoice, open_runtime
from kerastl.frozen.store import MEMORY_BYTES
from kerastl.frozen.views import FLIP, PLAIN, View, resolve_view
from kerastl.model.freeze import stages
from kerastl.model.heads import task_of

_ROWS_AT_A_TIME = 256
MAPS = "maps of the head"


class Embeddings(NamedTuple):
    """Embeddings `x`, float32 `(num_examples, dim)`, and labels `y`, as `Split` has them."""

    x: np.ndarray
    y: np.ndarray


class Activations(NamedTuple):
    """Activations of each view, and the labels of the images.

    `x[view][tensor]` is `(num_examples, ...)`, a read-only memory map where it is stored; there is
    one tensor at most cuts. `y` is int64 `(num_examples,)`.
    """

    x: list[Arrays]
    y: np.ndarray


def extract_embeddings(
    model: keras.Model,
    split: Split,
    *,
    batch_size: int = 32,
    flipped: bool = False,
    store: StoreChoice = "default",
    engine: str = "auto",
    runtime: FrozenRuntime | None = None,
) -> Embeddings:
    """Run preprocessing, backbone and pooling once over a split, in inference mode.

    The embeddings are stored as float16 and reused the next time.

    Args:
        model: a model of `build_transfer_model`.
        split: `data.train`, `data.validation` or `data.test`.
        batch_size: images per step.
        flipped: also return a mirrored view of each image, after all unmirrored views.
        store: an `ActivationStore`, `"default"` for the store in `KERASTL_CACHE_DIR`, or None.
        engine: `"auto"`, `"tensorflow"`, `"openvino"` or `"litert"`; see `make_engine`.
        runtime: replaces `batch_size`, `store` and `engine`; it also counts what came from the
            store, and runs on the devices of a strategy.

    Returns:
        `Embeddings(x, y)` in the order of the split.

    Raises:
        ArgumentError: an argument is invalid.

    Example:
        >>> embeddings = kerastl.extract_embeddings(model, data.train)
        >>> probe = kerastl.SoftmaxProbe().fit(embeddings.x, embeddings.y)
    """
    check_supports(task_of(model).name, "probe")
    views = [PLAIN, FLIP] if flipped else [PLAIN]
    request = ExtractionRequest(model, embedding_network(model), split, EMBEDDINGS)
    runtime = runtime or open_runtime(store, engine, batch_size)
    found = Extraction(request, runtime).run(views)
    return Embeddings(
        _as_float32([arrays[0] for arrays in found if arrays]),
        np.concatenate([split.labels] * len(views)),
    )


def extract_stage_embeddings(
    model: keras.Model,
    split: Split,
    *,
    batch_size: int = 32,
    store: StoreChoice = "default",
    engine: str = "auto",
    runtime: FrozenRuntime | None = None,
) -> list[Embeddings]:
    """Return the pooled activations at the end of every stage, from one pass over a split.

    One `Embeddings(x, y)` a stage, in the order of `stages(model)`; arguments as
    `extract_embeddings` takes them.
    """
    network = stage_embedding_network(model)
    what = "embeddings of all stages"
    request = ExtractionRequest(model, network, split, what)
    runtime = runtime or open_runtime(store, engine, batch_size)
    (found,) = Extraction(request, runtime).run([PLAIN])
    parts = iter(found or [])
    means = []
    for stage in stages(model):
        means.append(next(parts))
        if len(stage.output_shapes[-1]) > 1:
            next(parts)  # the deviation
    return [Embeddings(_as_float32([mean]), split.labels) for mean in means]


def extract_activations(
    model: keras.Model,
    split: Split,
    cut: int | str | Cut | Stage | None,
    *,
    views: Sequence[View | str] = ("plain",),
    dtype: str = "float16",
    runtime: FrozenRuntime | None = None,
) -> Activations | None:
    """Run everything below a cut once over views of a split, in inference mode.

    Where the store has the same of a shallower freeze depth, only what lies between is run.

    Args:
        model: a model of `build_transfer_model`, or any Functional model of raw pixels.
        split: `data.train`, `data.validation` or `data.test`.
        cut: a freeze depth from 1 to `len(stages(model))`, or a cut of the backbone; None for what
            the head reads: the pooled embeddings, or maps.
        views: `"plain"`, `"flip"`, `"light:SEED:EPOCH"` (the view that `split.batches` gives with
            that augmentation and seed in that epoch), or `View`s.
        dtype: `"float16"`, where numbers beyond 65504 make it bfloat16, or `"float32"`.
        runtime: as in `extract_embeddings`.

    Returns:
        `Activations(x, y)` in the order of the split; None when neither the disk nor a gigabyte of
        memory can hold them: run the prefix in each epoch then.

    Raises:
        ArgumentError: an argument is invalid.

    Example:
        >>> activations = extract_activations(model, data.train, 5, views=("plain", "flip"))
        >>> (plain,), (flipped,) = activations.x
    """
    check_choice("dtype", dtype, DTYPES)
    chosen = [resolve_view(view) for view in views]
    name = None if cut is None else cut_name(model, cut)
    network = embedding_network(model) if name is None else prefix_at(model, name)
    what = name or (EMBEDDINGS if len(network.outputs[0].shape) == 2 else MAPS)
    request = ExtractionRequest(model, network, split, what, dtype, name, MEMORY_BYTES)
    runtime = runtime or open_runtime("default")
    found = Extraction(request, runtime).run(chosen)
    whole = [arrays for arrays in found if arrays is not None]
    return Activations(whole, split.labels) if len(whole) == len(found) else None


def _as_float32(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of several arrays, one after another."""
    rows = sum(len(part) for part in parts)
    joined = np.empty((rows, *parts[0].shape[1:]), np.float32)
    start = 0
    for part in parts:
        for (batch,) in read_batches([part], _ROWS_AT_A_TIME):
            joined[start : start + len(batch)] = batch
            start += len(batch)
    return joined
