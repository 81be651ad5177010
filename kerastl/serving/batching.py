"""Requests that wait together are run together."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from kerastl.serving.query import Outputs, Query, Rejected


class Runs(Protocol):
    """A model that answers rows."""

    def run(self, signature: str, rows: np.ndarray) -> Outputs:
        """Return the outputs of a signature, each with as many rows."""


@dataclass(eq=False)
class _Waiting:
    query: Query
    answer: "asyncio.Future[Outputs]"

    @property
    def num_rows(self) -> int:
        return len(self.query.rows)


@dataclass(eq=False)
class Batcher:
    """Gathers what arrives while the model works, and runs it at once.

    Nothing waits when the model is idle: batches grow by themselves under load.

    Args:
        max_rows: of a batch; a request with more is a batch of its own.
        max_queue: rows that may wait; more are rejected with 503.
        workers: batches that run at the same time.
        observe: told the rows of each batch.
    """

    max_rows: int = 32
    max_queue: int = 2048
    workers: int = 1
    observe: Callable[[int], None] = field(default=lambda rows: None)

    def __post_init__(self) -> None:
        self.waiting_rows = 0
        self._lines: dict[tuple[Runs, str], deque[_Waiting]] = {}
        self._idle = self.workers
        self._pool = ThreadPoolExecutor(self.workers, "kerastl-batch")
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, model: Runs, query: Query) -> Outputs:
        """Return what a model answers to a query.

        Raises:
            Rejected: the queue is full.
        """
        waiting = _Waiting(query, asyncio.get_running_loop().create_future())
        if self.waiting_rows + waiting.num_rows > self.max_queue:
            raise Rejected(503, f"{self.waiting_rows} images wait already. Try again later.")
        self.waiting_rows += waiting.num_rows
        self._lines.setdefault((model, query.signature.name), deque()).append(waiting)
        self._start()
        return await waiting.answer

    def close(self) -> None:
        """End the threads when what runs is done."""
        self._pool.shutdown(wait=False)

    def _start(self) -> None:
        """Give the idle workers what waits, the line that began first before the others."""
        while self._idle and self._lines:
            key = next(iter(self._lines))
            batch = self._take(key)
            if batch:
                self._idle -= 1
                task = asyncio.create_task(self._run(key, batch))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    def _take(self, key: tuple[Runs, str]) -> list[_Waiting]:
        """Take as many requests of a line as fit; what remains goes behind the other lines."""
        line, rows = self._lines.pop(key), 0
        batch: list[_Waiting] = []
        while line and (not batch or rows + line[0].num_rows <= self.max_rows):
            waiting = line.popleft()
            self.waiting_rows -= waiting.num_rows
            if not waiting.answer.done():  # else the client's time was over
                batch.append(waiting)
                rows += waiting.num_rows
        if line:
            self._lines[key] = line
        return batch

    async def _run(self, key: tuple[Runs, str], batch: list[_Waiting]) -> None:
        model, signature = key
        rows = np.concatenate([waiting.query.rows for waiting in batch])
        self.observe(len(rows))
        loop = asyncio.get_running_loop()
        try:
            outputs = await loop.run_in_executor(self._pool, model.run, signature, rows)
        except Exception as error:  # whatever it is, those who wait have to hear of it
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
        else:
            _share(batch, outputs)
        finally:
            self._idle += 1
            self._start()


def _share(batch: list[_Waiting], outputs: Outputs) -> None:
    start = 0
    for waiting in batch:
        end = start + waiting.num_rows
        if not waiting.answer.done():
            waiting.answer.set_result({name: v[start:end] for name, v in outputs.items()})
        start = end
