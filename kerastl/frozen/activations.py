"""What the frozen part of a model makes of images, computed once."""

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kerastl._checks import check_choice, check_int
from kerastl.backbones.stages import Cut, Stage
from kerastl.data.split import Split
from kerastl.distribute import devices_of
from kerastl.errors import ArgumentError
from kerastl.frozen.engines import ENGINES, make_engine
from kerastl.frozen.entry import DTYPES, Arrays, drop_pages
from kerastl.frozen.fingerprint import network_hash, text_hash
from kerastl.frozen.prefixes import (
    between,
    cut_name,
    embedding_network,
    prefix_at,
    stage_embedding_network,
)
from kerastl.frozen.report import StoreReport
from kerastl.frozen.shared_folder import is_shared
from kerastl.frozen.store import MEMORY_BYTES, ActivationStore, Recorder, Stored
from kerastl.frozen.views import FLIP, PLAIN, View, resolve_view
from kerastl.machines import agreed, all_say, is_chief, place_of
from kerastl.model.freeze import backbone_of, stages

# Part of every key: raise it when stored activations may no longer be used.
_KEY_FORMAT = 1
_ROWS_AT_A_TIME = 256
EMBEDDINGS = "embeddings"

StoreChoice = ActivationStore | Literal["default"] | None


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


def image_size_of(model: keras.Model) -> tuple[int, int]:
    """Return the height and width that a model of `build_transfer_model` takes."""
    height, width = model.inputs[0].shape[1:3]
    return int(height), int(width)


def extract_embeddings(
    model: keras.Model,
    split: Split,
    *,
    batch_size: int = 32,
    flipped: bool = False,
    store: StoreChoice = "default",
    engine: str = "auto",
    report: StoreReport | None = None,
    strategy: Any = None,
) -> Embeddings:
    """Run preprocessing, backbone and pooling once over a split, in inference mode.

    What was computed is stored as float16, and found there the next time.

    Args:
        model: a model of `build_transfer_model`.
        split: `data.train`, `data.validation` or `data.test`.
        batch_size: images a step.
        flipped: add a mirrored view of each image behind all the unmirrored ones.
        store: an `ActivationStore`, `"default"` for that of `KERASTL_CACHE_DIR`, or None.
        engine: `"auto"`, `"tensorflow"`, `"openvino"` or `"litert"`; see `make_engine`.
        report: counts what came from the store.
        strategy: its devices share each batch (engine "tensorflow"). Several machines all make
            this call; where the folder of their stores is one, each runs its share of the images.

    Returns:
        `Embeddings(x, y)` in the order of the split.

    Raises:
        ArgumentError: an argument cannot be meant.

    Example:
        >>> embeddings = kerastl.extract_embeddings(model, data.train)
        >>> probe = kerastl.SoftmaxProbe().fit(embeddings.x, embeddings.y)
    """
    views = [PLAIN, FLIP] if flipped else [PLAIN]
    work = _Work(model, embedding_network(model), split, EMBEDDINGS, batch_size, engine)
    found = work.run_together(views, _store(store), report, strategy, memory_bytes=None)
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
    report: StoreReport | None = None,
) -> list[Embeddings]:
    """Return the pooled activations at the end of every stage, from one pass over a split.

    Args:
        model: a model of `build_transfer_model`.
        split: `data.train`, `data.validation` or `data.test`.
        batch_size: images a step.
        store: as in `extract_embeddings`.
        engine: as in `extract_embeddings`.
        report: counts what came from the store.

    Returns:
        One `Embeddings(x, y)` a stage, in the order of `stages(model)`.
    """
    network = stage_embedding_network(model)
    work = _Work(model, network, split, "embeddings of all stages", batch_size, engine)
    (found,) = work.run([PLAIN], _store(store), report, memory_bytes=None)
    return [Embeddings(_as_float32([array]), split.labels) for array in found or []]


def extract_activations(
    model: keras.Model,
    split: Split,
    cut: int | str | Cut | Stage | None,
    *,
    views: Sequence[View | str] = ("plain",),
    batch_size: int = 32,
    dtype: str = "float16",
    store: StoreChoice = "default",
    engine: str = "auto",
    report: StoreReport | None = None,
    strategy: Any = None,
) -> Activations | None:
    """Run everything below a cut once over views of a split, in inference mode.

    Where the store has the same of a shallower freeze depth, only what lies between is run.

    Args:
        model: a model of `build_transfer_model`, or any Functional model of raw pixels.
        split: `data.train`, `data.validation` or `data.test`.
        cut: a freeze depth from 1 to `len(stages(model))`, or a cut of the backbone; None for the
            pooled embeddings.
        views: `"plain"`, `"flip"`, `"light:SEED:EPOCH"` (the view that `split.batches` gives with
            that augmentation and seed in that epoch), or `View`s.
        batch_size: images a step.
        dtype: `"float16"`, where numbers beyond 65504 make it bfloat16, or `"float32"`.
        store: as in `extract_embeddings`.
        engine: as in `extract_embeddings`.
        report: counts what came from the store.
        strategy: as in `extract_embeddings`.

    Returns:
        `Activations(x, y)` in the order of the split; None when neither the disk nor a gigabyte of
        memory can hold them: run the prefix in each epoch then.

    Raises:
        ArgumentError: an argument cannot be meant.

    Example:
        >>> activations = extract_activations(model, data.train, 5, views=("plain", "flip"))
        >>> (plain,), (flipped,) = activations.x
    """
    check_choice("dtype", dtype, DTYPES)
    chosen = [resolve_view(view) for view in views]
    name = None if cut is None else cut_name(model, cut)
    network = embedding_network(model) if name is None else prefix_at(model, name)
    work = _Work(model, network, split, name or EMBEDDINGS, batch_size, engine, dtype, cut=name)
    found = work.run_together(chosen, _store(store), report, strategy)
    whole = [arrays for arrays in found if arrays is not None]
    return Activations(whole, split.labels) if len(whole) == len(found) else None


@dataclass
class _Work:
    """What one call wants: the outputs of a network on views of a split."""

    model: keras.Model
    network: keras.Model
    split: Split
    what: str
    batch_size: int
    engine: str
    dtype: str = "float16"
    cut: str | None = None
    devices: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_int("batch_size", self.batch_size, 1)
        check_choice("engine", self.engine, ENGINES)

    def run(
        self,
        views: Sequence[View],
        store: ActivationStore | None,
        report: StoreReport | None,
        memory_bytes: int | None = MEMORY_BYTES,
    ) -> list[Arrays | None]:
        """Return the outputs for each view, or None for one that nothing can hold."""
        if not len(self.split):
            shapes = [tensor.shape[1:] for tensor in self.network.outputs]
            return [[np.zeros((0, *shape), self.dtype) for shape in shapes] for _ in views]
        start = time.monotonic()
        run = _Run(self, store, StoreReport() if report is None else report, memory_bytes)
        outputs = run.outputs(views)
        run.report.seconds += time.monotonic() - start
        return outputs

    def run_together(
        self,
        views: Sequence[View],
        store: ActivationStore | None,
        report: StoreReport | None,
        strategy: Any,
        memory_bytes: int | None = MEMORY_BYTES,
    ) -> list[Arrays | None]:
        """Do as `run`, on all devices of a strategy; each machine runs its share of the images."""
        if strategy is None:
            return self.run(views, store, report, memory_bytes)
        place, self.devices = place_of(strategy), devices_of(strategy)
        if store is None or place.machines == 1 or not is_shared(store.directory, strategy):
            return self.run(views, store, report, memory_bytes)
        run = _Run(self, store, StoreReport(), memory_bytes)
        if agreed(strategy, run.needs_no_pixels(views)):
            return self.run(views, store, report, memory_bytes)
        rows = np.array_split(np.arange(len(self.split)), place.machines)
        shares = [dataclasses.replace(self, split=self.split.subset(some)) for some in rows]
        shares[place.number].run(views, store, report, memory_bytes)
        all_say(strategy, True)
        whole = not is_chief(strategy) or run.join(shares, views)
        if all_say(strategy, whole):
            report = None  # what is found now was counted when it was computed
        return self.run(views, store, report, memory_bytes)

    def images(self, views: Sequence[View]) -> Any:
        """Return a data set of tuples, a batch of each view; decoded while others are computed."""
        places = tf.data.Dataset.range(len(self.split)).batch(self.batch_size)
        images = self.split.images(image_size_of(self.model), self.batch_size)

        def look(batch: Any, where: Any) -> Any:
            return tuple(view.apply(batch, where) for view in views)

        pairs = tf.data.Dataset.zip(images, places)
        return pairs.map(look, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


class _Run:
    """How the outputs are had: found, derived from earlier layers, or computed from pixels."""

    def __init__(
        self,
        work: _Work,
        store: ActivationStore | None,
        report: StoreReport,
        memory_bytes: int | None,
    ):
        self.work, self.store, self.report = work, store, report
        self._memory_bytes = memory_bytes
        self._data = "" if store is None else _data_hash(work.split)

    def outputs(self, views: Sequence[View]) -> list[Arrays | None]:
        keys = self._keys(self.work.network, views)
        done: dict[str, Arrays | None] = {}
        for view in views:
            if self.store and (stored := self.store.get(keys[view.id]) or self._pooled(view)):
                self.report.images_found += len(self.work.split)
                self.report.seconds_saved += stored.seconds
                done[view.id] = stored.arrays
        for view in _missing(views, done):
            if (source := self._shallower(view)) is not None:
                done[view.id] = self._derive(keys[view.id], view, *source)
        if missing := _missing(views, done):
            done.update(self._compute(keys, missing))
        return [done[view.id] for view in views]

    def needs_no_pixels(self, views: Sequence[View]) -> bool:
        """Whether the store has for every view the outputs, or what they can be derived from."""
        keys = self._keys(self.work.network, views)
        return self.store is not None and all(
            keys[view.id] in self.store or self._pooled(view) or self._shallower(view)
            for view in views
        )

    def join(self, shares: "Sequence[_Work]", views: Sequence[View]) -> bool:
        """Store what the machines have for their shares as one; return whether it is there."""
        assert self.store is not None  # noqa: S101  # only what is stored can be joined
        runs = [_Run(share, self.store, StoreReport(), None) for share in shares]
        keys = [run._keys(run.work.network, views) for run in runs if len(run.work.split)]
        whole = self._keys(self.work.network, views)
        for view in views:
            parts = [stored for each in keys if (stored := self.store.get(each[view.id]))]
            if len(parts) < len(keys):
                return False
            with self._record(whole[view.id], view) as recorder:
                for part in parts:
                    for batch in _batches(part.arrays, self.work.batch_size):
                        recorder.append(batch)
                recorder.finish()
            for each in keys:
                self.store.remove(each[view.id])
        return self.needs_no_pixels(views)

    def _keys(self, network: keras.Model, views: Sequence[View]) -> dict[str, str]:
        """The keys of views: all on which the outputs depend."""
        if self.store is None:
            return {view.id: "" for view in views}
        size, computes = image_size_of(self.work.model), network_hash(network)
        return {
            view.id: text_hash([_KEY_FORMAT, computes, size, view.id, self._data, self.work.dtype])
            for view in views
        }

    def _pooled(self, view: View) -> Stored | None:
        """What a pass over the ends of all stages stored: embeddings are the last of them."""
        model = self.work.model
        if self.store is None or self.work.what != EMBEDDINGS or backbone_of(model) is model:
            return None
        (key,) = self._keys(stage_embedding_network(model), [view]).values()
        stored = self.store.get(key)
        return None if stored is None else Stored(stored.arrays[-1:], stored.seconds)

    def _shallower(self, view: View) -> tuple[Arrays, keras.Model] | None:
        """Stored activations of the deepest stage below, and the network from there."""
        if self.store is None or not self.store.entries():
            return None
        for stage in reversed(stages(self.work.model)):
            network = between(self.work.model, stage, self.work.cut)
            if network is None or _shapes(network.outputs) != _shapes(self.work.network.outputs):
                continue
            key = self._keys(prefix_at(self.work.model, stage.name), [view])[view.id]
            if stored := self.store.get(key):
                self.report.seconds_saved += stored.seconds
                return stored.arrays, network
        return None

    def _derive(self, key: str, view: View, source: Arrays, network: keras.Model) -> Arrays | None:
        self.report.images_derived += len(self.work.split)
        with self._record(key, view) as recorder:
            engine = None
            for batch in _batches(source, self.work.batch_size):
                engine = engine or self._engine(network, batch, 1)
                recorder.append(engine(batch))
            return self._finish(recorder)

    def _compute(self, keys: dict[str, str], views: Sequence[View]) -> dict[str, Arrays | None]:
        """Decode each image once, whatever the number of views."""
        self.report.images_computed += len(self.work.split) * len(views)
        with contextlib.ExitStack() as stack:
            recorders = [
                stack.enter_context(self._record(keys[v.id], v, len(views))) for v in views
            ]
            engine = None
            for batches in self.work.images(views).as_numpy_iterator():
                engine = engine or self._engine(self.work.network, [batches[0]], len(views))
                for recorder, batch in zip(recorders, batches, strict=True):
                    recorder.append(engine(batch))
            finished = [self._finish(recorder) for recorder in recorders]
        return {view.id: arrays for view, arrays in zip(views, finished, strict=True)}

    def _finish(self, recorder: Recorder) -> Arrays | None:
        arrays = recorder.finish()
        self.report.images_stored += len(self.work.split) * recorder.is_stored
        return arrays

    def _engine(self, network: keras.Model, sample: Arrays, num_views: int) -> Any:
        engine = make_engine(
            network,
            engine=self.work.engine,
            sample=sample,
            num_images=len(self.work.split) * num_views,
            directory=self.store.directory if self.store else None,
            devices=self.work.devices,
        )
        self.report.engine = engine.name
        return engine

    @contextlib.contextmanager
    def _record(self, key: str, view: View, shared_by: int = 1) -> Iterator[Recorder]:
        recorder = Recorder(
            self.store,
            key,
            len(self.work.split),
            dtype=self.work.dtype,
            description=f"{self.work.what} of {len(self.work.split)} images, view {view.id}",
            memory_bytes=self._memory_bytes,
            shared_by=shared_by,
        )
        with contextlib.closing(recorder):
            yield recorder


def _store(store: Any) -> ActivationStore | None:
    if store == "default":
        return ActivationStore()
    if store is None or isinstance(store, ActivationStore):
        return store
    raise ArgumentError(
        f"`store` must be an ActivationStore, 'default' or None. Received: store={store!r}. "
        "Write `ActivationStore(directory)` for a folder."
    )


def _data_hash(split: Split) -> str:
    """A hash over the images in their order; labels have no part in activations."""
    digest = hashlib.sha256()
    for identity in split.source.identities():
        digest.update(f"{identity}\n".encode())
    return digest.hexdigest()


def _missing(views: Sequence[View], done: dict[str, Arrays | None]) -> list[View]:
    return list({view.id: view for view in views if view.id not in done}.values())


def _shapes(tensors: Sequence[Any]) -> list[tuple[int | None, ...]]:
    return [tuple(tensor.shape[1:]) for tensor in tensors]


def _batches(arrays: Arrays, batch_size: int) -> Iterator[Arrays]:
    """Read arrays from the disk batch by batch, without keeping what was read."""
    for start in range(0, len(arrays[0]), batch_size):
        yield [np.asarray(array[start : start + batch_size], np.float32) for array in arrays]
        for array in arrays:
            drop_pages(array)


def _as_float32(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of several arrays, one after another."""
    rows = sum(len(part) for part in parts)
    joined = np.empty((rows, *parts[0].shape[1:]), np.float32)
    start = 0
    for part in parts:
        for (batch,) in _batches([part], _ROWS_AT_A_TIME):
            joined[start : start + len(batch)] = batch
            start += len(batch)
    return joined
