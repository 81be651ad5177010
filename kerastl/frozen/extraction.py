"""Finds, derives or computes the outputs of a network for views of images."""

import contextlib
import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kerastl.data.pixels import AS_IT_IS
from kerastl.data.split import Split
from kerastl.distribute import devices_of
from kerastl.frozen.engines import Engine, make_engine
from kerastl.frozen.entry import Arrays, drop_pages
from kerastl.frozen.fingerprint import network_hash, text_hash
from kerastl.frozen.prefixes import (
    between,
    image_size_of,
    prefix_at,
    stage_embedding_network,
)
from kerastl.frozen.runtime import FrozenRuntime, StoreUsage
from kerastl.frozen.shared_folder import is_shared
from kerastl.frozen.store import Recorder, Stored
from kerastl.frozen.views import View
from kerastl.machines import all_true, broadcast_json, is_chief, place_of
from kerastl.model.freeze import backbone_of, stages

# Part of every key: raise it when stored activations may no longer be used.
_KEY_FORMAT = 1
EMBEDDINGS = "embeddings"
# The engine made last, by what it was made of, with the number of images that it was chosen for:
# the parts of one data set ask for the same network one after another.
_latest_engine: dict[str, tuple[Engine, int]] = {}
_MORE_IMAGES = 2  # times as many are still run in it


class ExtractionRequest(NamedTuple):
    """What one call asks for: the outputs of `network`, a part of `model`, on a split.

    Args:
        what: the outputs in words, for listings of the store.
        dtype: of what is stored, `"float16"` or `"float32"`.
        cut: layer of the backbone after which the outputs lie; None for the embeddings.
        memory_bytes: the most that is kept in memory when the disk is full; None for any number.
    """

    model: keras.Model
    network: keras.Model
    split: Split
    what: str
    dtype: str = "float16"
    cut: str | None = None
    memory_bytes: int | None = None


@dataclass
class Extraction:
    """One request and how it is met."""

    request: ExtractionRequest
    runtime: FrozenRuntime

    def run(self, views: Sequence[View]) -> list[Arrays | None]:
        """Return the outputs for each view, or None for one that nothing can hold.

        Each of several machines runs its share of the images.
        """
        strategy, store = self.runtime.strategy, self.runtime.store
        machines = 1 if strategy is None else place_of(strategy).machines
        if store is None or machines == 1 or not is_shared(store.directory, strategy):
            return self._run_here(views)
        if broadcast_json(strategy, self._needs_no_pixels(views)):
            return self._run_here(views)
        rows = np.array_split(np.arange(len(self.request.split)), machines)
        splits = [self.request.split.subset(some) for some in rows]
        shares = [Extraction(self.request._replace(split=s), self.runtime) for s in splits]
        shares[place_of(strategy).number]._run_here(views)
        all_true(strategy, True)
        if all_true(strategy, not is_chief(strategy) or self._join(shares, views)):
            # What is found now was counted when it was computed.
            uncounted = dataclasses.replace(self.runtime, usage=StoreUsage())
            return Extraction(self.request, uncounted)._run_here(views)
        return self._run_here(views)

    def _run_here(self, views: Sequence[View]) -> list[Arrays | None]:
        """Return the outputs for each view, computed by this machine where they are missing."""
        num_images, usage = len(self.request.split), self.runtime.usage
        if not num_images:
            shapes = [tensor.shape[1:] for tensor in self.request.network.outputs]
            return [[np.zeros((0, *shape), self.request.dtype) for shape in shapes] for _ in views]
        start = time.monotonic()
        keys = self._keys(self.request.network, views)
        done: dict[str, Arrays | None] = {}
        for view in views:
            if stored := self._stored(keys[view.id], view):
                usage.images_found += num_images
                usage.seconds_saved += stored.seconds
                done[view.id] = stored.arrays
        for view in _missing(views, done):
            if (source := self._shallower(view)) is not None:
                usage.seconds_saved += source[0].seconds
                done[view.id] = self._derive(keys[view.id], view, source[0].arrays, source[1])
        if missing := _missing(views, done):
            done.update(self._compute(keys, missing))
        usage.seconds += time.monotonic() - start
        return [done[view.id] for view in views]

    def _needs_no_pixels(self, views: Sequence[View]) -> bool:
        """Whether the store has for every view the outputs, or what they can be derived from."""
        keys = self._keys(self.request.network, views)
        return self.runtime.store is not None and all(
            keys[view.id] in self.runtime.store or self._pooled(view) or self._shallower(view)
            for view in views
        )

    def _join(self, shares: "Sequence[Extraction]", views: Sequence[View]) -> bool:
        """Store what the machines have for their shares as one; return whether it is there."""
        store = self.runtime.store
        assert store is not None  # noqa: S101  # only what is stored can be joined
        filled = [share for share in shares if len(share.request.split)]
        keys = [share._keys(share.request.network, views) for share in filled]
        whole = self._keys(self.request.network, views)
        for view in views:
            parts = [stored for each in keys if (stored := store.get(each[view.id]))]
            if len(parts) < len(keys):
                return False
            with self._record(whole[view.id], view) as recorder:
                for part in parts:
                    for batch in read_batches(part.arrays, self.runtime.batch_size):
                        recorder.append(batch)
                recorder.finish()
            for each in keys:
                store.remove(each[view.id])
        return self._needs_no_pixels(views)

    def _keys(self, network: keras.Model, views: Sequence[View]) -> dict[str, str]:
        """The keys of views: all on which the outputs depend."""
        if self.runtime.store is None:
            return {view.id: "" for view in views}
        size, computes = image_size_of(self.request.model), self._hash(network)
        data, dtype = self._data_hash, self.request.dtype
        return {
            view.id: text_hash([_KEY_FORMAT, computes, size, view.id, data, dtype])
            for view in views
        }

    @functools.cached_property
    def _hash(self) -> Callable[[keras.Model], str]:
        """Hash a network, each only once: while an extraction runs, no weight changes."""
        return functools.cache(network_hash)

    @functools.cached_property
    def _all_stages(self) -> keras.Model:
        return stage_embedding_network(self.request.model)

    @functools.cached_property
    def _data_hash(self) -> str:
        """A hash over the images in their order; labels have no part in activations."""
        digest = hashlib.sha256()
        for identity in self.request.split.source.identities():
            digest.update(f"{identity}\n".encode())
        return digest.hexdigest()

    def _stored(self, key: str, view: View) -> Stored | None:
        if self.runtime.store is None:
            return None
        return self.runtime.store.get(key) or self._pooled(view)

    def _pooled(self, view: View) -> Stored | None:
        """What a pass over the ends of all stages stored: embeddings are all of it, or a part."""
        model, store = self.request.model, self.runtime.store
        if store is None or self.request.what != EMBEDDINGS or backbone_of(model) is model:
            return None
        (key,) = self._keys(self._all_stages, [view]).values()
        stored = store.get(key)
        if stored is None:
            return None
        if self._reads_all_stages():
            return Stored([np.concatenate(stored.arrays, axis=1)], stored.seconds)
        last = stored.arrays[-1 if len(stages(model)[-1].output_shapes[-1]) == 1 else -2]
        return Stored([last], stored.seconds)

    def _reads_all_stages(self) -> bool:
        """Whether what is asked for are the embeddings that a head of all stages reads."""
        return self.request.what == EMBEDDINGS and len(backbone_of(self.request.model).outputs) > 1

    def _shallower(self, view: View) -> tuple[Stored, keras.Model] | None:
        """Stored activations of the deepest stage below, and the network from there."""
        model, store = self.request.model, self.runtime.store
        stored_here = {entry.description for entry in store.entries()} if store else set()
        shapes = _shapes(self.request.network.outputs)
        for stage in reversed(stages(model)):
            if self._describe(stage.name, view) not in stored_here:
                continue  # spares building the network, to learn its key
            network = between(model, stage, self.request.cut)
            if network is None or _shapes(network.outputs) != shapes:
                continue
            key = self._keys(prefix_at(model, stage.name), [view])[view.id]
            if store and (stored := store.get(key)):
                return stored, network
        return None

    def _derive(self, key: str, view: View, source: Arrays, network: keras.Model) -> Arrays | None:
        self.runtime.usage.images_derived += len(self.request.split)
        with self._record(key, view) as recorder:
            engine = None
            for batch in read_batches(source, self.runtime.batch_size):
                engine = engine or self._engine(network, batch, 1)
                recorder.append(engine(batch))
            return self._finish(recorder)

    def _compute(self, keys: dict[str, str], views: Sequence[View]) -> dict[str, Arrays | None]:
        """Decode each image once, whatever the number of views."""
        self.runtime.usage.images_computed += len(self.request.split) * len(views)
        with contextlib.ExitStack() as stack:
            recorders = [
                stack.enter_context(self._record(keys[v.id], v, len(views))) for v in views
            ]
            engine, network = None, self.request.network
            if joined := self._reads_all_stages():  # by the engine that a diagnosis has made
                network = self._all_stages
            for batches in self._images(views).as_numpy_iterator():
                engine = engine or self._engine(network, [batches[0]], len(views))
                for recorder, batch in zip(recorders, batches, strict=True):
                    outputs = engine(batch)
                    recorder.append([np.concatenate(outputs, axis=1)] if joined else outputs)
            finished = [self._finish(recorder) for recorder in recorders]
        return {view.id: arrays for view, arrays in zip(views, finished, strict=True)}

    def _images(self, views: Sequence[View]) -> Any:
        """Return a data set of tuples, a batch of each view; decoded while others are computed."""
        split, batch_size = self.request.split, self.runtime.batch_size
        places = tf.data.Dataset.range(len(split)).batch(batch_size)
        images = split.images(image_size_of(self.request.model), batch_size)

        def look(batch: Any, where: Any) -> Any:
            return tuple(view.apply(batch, where) for view in views)

        pairs = tf.data.Dataset.zip(images, places)
        return pairs.map(AS_IT_IS(look), num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)

    def _finish(self, recorder: Recorder) -> Arrays | None:
        arrays = recorder.finish()
        self.runtime.usage.images_stored += len(self.request.split) * recorder.is_stored
        return arrays

    def _engine(self, network: keras.Model, sample: Arrays, num_views: int) -> Any:
        store, strategy = self.runtime.store, self.runtime.strategy
        devices = () if strategy is None else devices_of(strategy)
        num_images = len(self.request.split) * num_views
        key = text_hash([self._hash(network), self.runtime.engine, list(devices)])
        engine, enough_for = _latest_engine.get(key, (None, 0))
        if engine is None or num_images > _MORE_IMAGES * enough_for:
            engine = make_engine(
                network,
                engine=self.runtime.engine,
                sample=sample,
                num_images=num_images,
                directory=store.directory if store else None,
                devices=devices,
            )
            _latest_engine.clear()
            _latest_engine[key] = engine, num_images
        self.runtime.usage.engine = engine.name
        return engine

    def _describe(self, what: str, view: View) -> str:
        """Return a description of an entry of the store."""
        return f"{what} of {len(self.request.split)} images, view {view.id}"

    @contextlib.contextmanager
    def _record(self, key: str, view: View, shared_by: int = 1) -> Iterator[Recorder]:
        num_images = len(self.request.split)
        recorder = Recorder(
            self.runtime.store,
            key,
            num_images,
            dtype=self.request.dtype,
            description=self._describe(self.request.what, view),
            memory_bytes=self.request.memory_bytes,
            shared_by=shared_by,
        )
        with contextlib.closing(recorder):
            yield recorder


def _missing(views: Sequence[View], done: dict[str, Arrays | None]) -> list[View]:
    return list({view.id: view for view in views if view.id not in done}.values())


def _shapes(tensors: Sequence[Any]) -> list[tuple[int | None, ...]]:
    return [tuple(tensor.shape[1:]) for tensor in tensors]


def read_batches(arrays: Arrays, batch_size: int) -> Iterator[Arrays]:
    """Read arrays from the disk batch by batch, without keeping what was read."""
    for start in range(0, len(arrays[0]), batch_size):
        yield [np.asarray(array[start : start + batch_size], np.float32) for array in arrays]
        for array in arrays:
            drop_pages(array)
