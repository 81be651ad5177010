"""Runs waiting requests together, and expensive requests separately."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
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

    Nothing waits when the model is idle: batches grow by themselves under load. A request that is
    more than a batch has a thread of its own with its like, and is run piece by piece, so that the
    others wait for none of it; what is left of it is dropped when nobody waits for the answer.

    Args:
        max_rows: of a batch.
        max_cost: pixels that are decoded for a batch; a costlier image is a batch of its own.
        max_queue: rows that may wait; more are rejected with 503.
        max_queue_cost: pixels that may wait to be decoded; the same.
        observe: told the rows of each batch.
    """

    max_rows: int = 32
    max_cost: int = 4_000_000
    max_queue: int = 2048
    max_queue_cost: int = 1_000_000_000
    observe: Callable[[int], None] = field(default=lambda rows: None)

    def __post_init__(self) -> None:
        self.waiting_rows = 0
        self.waiting_cost = 0
        self._quick, self._costly = _Lane(self), _Lane(self)

    async def submit(self, model: Runs, query: Query) -> Outputs:
        """Return what a model answers to a query.

        Raises:
            Rejected: the queue is full.
        """
        waiting = _Waiting(query, asyncio.get_running_loop().create_future())
        if (
            self.waiting_rows + waiting.num_rows > self.max_queue
            or self.waiting_cost + query.cost > self.max_queue_cost
        ):
            raise Rejected(503, f"{self.waiting_rows} images are waiting. Try again later.")
        fits = waiting.num_rows <= self.max_rows and query.cost <= self.max_cost
        self.count(waiting, 1)
        (self._quick if fits else self._costly).put(model, waiting)
        return await waiting.answer

    def count(self, waiting: _Waiting, sign: int) -> None:
        """Count a request among those that wait, or no longer."""
        self.waiting_rows += sign * waiting.num_rows
        self.waiting_cost += sign * waiting.query.cost

    def close(self) -> None:
        """End the threads when what runs is done."""
        self._quick.close()
        self._costly.close()


class _Lane:
    """Requests before one thread, in a line for each model and signature."""

    def __init__(self, batcher: Batcher):
        self._batcher = batcher
        self._lines: dict[tuple[Runs, str], deque[_Waiting]] = {}
        self._pool = ThreadPoolExecutor(1, "kerastl-batch")
        self._running: asyncio.Task[None] | None = None

    def put(self, model: Runs, waiting: _Waiting) -> None:
        self._lines.setdefault((model, waiting.query.signature.name), deque()).append(waiting)
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    def close(self) -> None:
        self._pool.shutdown(wait=False)

    async def _run(self) -> None:
        """Run what waits, the line that began first before the others, until nothing does."""
        try:
            while self._lines:
                key = next(iter(self._lines))
                if batch := self._take(key):
                    await self._answer(*key, batch)
        finally:
            self._running = None

    def _take(self, key: tuple[Runs, str]) -> list[_Waiting]:
        """Take as many requests of a line as fit; what remains goes behind the other lines."""
        limits, line = self._batcher, self._lines.pop(key)
        batch: list[_Waiting] = []
        rows = cost = 0
        while line:
            rows, cost = rows + line[0].num_rows, cost + line[0].query.cost
            if batch and (rows > limits.max_rows or cost > limits.max_cost):
                break
            waiting = line.popleft()
            limits.count(waiting, -1)
            if waiting.answer.done():  # the client went, or its time was over
                rows, cost = rows - waiting.num_rows, cost - waiting.query.cost
            else:
                batch.append(waiting)
        if line:
            self._lines[key] = line
        return batch

    async def _answer(self, model: Runs, signature: str, batch: list[_Waiting]) -> None:
        rows = np.concatenate([waiting.query.rows for waiting in batch])
        costs = [cost for waiting in batch for cost in waiting.query.costs]
        loop, parts = asyncio.get_running_loop(), []
        try:
            for start, end in self._pieces(len(rows), costs):
                if all(waiting.answer.done() for waiting in batch):
                    return
                self._batcher.observe(end - start)
                run = loop.run_in_executor(self._pool, model.run, signature, rows[start:end])
                parts.append(await run)
        except Exception as error:  # whatever it is, those who wait have to hear of it
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
        else:
            _share(batch, parts)

    def _pieces(self, count: int, costs: list[int]) -> Iterator[tuple[int, int]]:
        """Yield the ends of the batches that rows are run in, each of one row at least."""
        start = cost = 0
        for row in range(count):
            mine = costs[row] if costs else 0
            full = row - start >= self._batcher.max_rows or cost + mine > self._batcher.max_cost
            if row > start and full:
                yield start, row
                start, cost = row, 0
            cost += mine
        yield start, count


def _share(batch: list[_Waiting], parts: list[Outputs]) -> None:
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    start = 0
    for waiting in batch:
        end = start + waiting.num_rows
        if not waiting.answer.done():
            waiting.answer.set_result({name: v[start:end] for name, v in outputs.items()})
        start = end
