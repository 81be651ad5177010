import asyncio
import threading

import numpy as np
import pytest

from kerastl.serving.batching import Batcher
from kerastl.serving.query import Query, Rejected, Signature

A, B = (Signature(name, "image", "float32", ()) for name in "ab")


class Doubles:
    """Doubles rows once it may; keeps the sizes of its batches."""

    def __init__(self, held=False):
        self.batches = []
        self.go = threading.Event()
        if not held:
            self.go.set()

    def run(self, signature, rows):
        assert self.go.wait(10)
        self.batches.append((signature, len(rows)))
        if (rows < 0).any():
            raise RuntimeError("negative")
        return {"twice": rows * 2}


def query(*values, signature=A):
    return Query(signature, np.array(values))


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario, 20))


async def held(batcher, model, queries):
    """Submit queries in their order while the model works on another, then let it go."""
    first = asyncio.create_task(batcher.submit(model, query(0)))
    await asyncio.sleep(0.01)
    tasks = [asyncio.create_task(batcher.submit(model, one)) for one in queries]
    await asyncio.sleep(0.01)
    model.go.set()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_waits_is_run_together_and_shared_out():
    model, sizes = Doubles(held=True), []
    batcher = Batcher(max_rows=4, observe=sizes.append)
    answers = run(held(batcher, model, [query(1), query(2, 3), query(4), query(5)]))
    assert [answer["twice"].tolist() for answer in answers] == [[2], [4, 6], [8], [10]]
    assert model.batches == [("a", 1), ("a", 4), ("a", 1)]
    assert sizes == [1, 4, 1]
    assert batcher.waiting_rows == 0


def test_signatures_are_apart_and_take_turns():
    model = Doubles(held=True)
    queries = [query(1), query(2), query(3), query(4, signature=B), query(5)]
    run(held(Batcher(max_rows=2), model, queries))
    assert model.batches == [("a", 1), ("a", 2), ("b", 1), ("a", 2)]


def test_a_request_larger_than_a_batch_is_one():
    model = Doubles(held=True)
    (answer,) = run(held(Batcher(max_rows=2), model, [query(1, 2, 3)]))
    assert answer["twice"].tolist() == [2, 4, 6]
    assert model.batches == [("a", 1), ("a", 3)]


def test_versions_are_apart():
    async def scenario():
        old, new, batcher = Doubles(held=True), Doubles(), Batcher()
        first = asyncio.create_task(batcher.submit(old, query(1)))
        await asyncio.sleep(0.01)
        others = [
            asyncio.create_task(batcher.submit(model, query(n)))
            for n, model in ((2, new), (3, old))
        ]
        await asyncio.sleep(0.01)
        old.go.set()
        await asyncio.gather(first, *others)
        return old.batches, new.batches

    assert run(scenario()) == ([("a", 1), ("a", 1)], [("a", 1)])


def test_a_full_queue_rejects():
    answers = run(held(Batcher(max_queue=2), Doubles(held=True), [query(1), query(2), query(3)]))
    assert isinstance(answers[2], Rejected)
    assert answers[2].status == 503
    assert "2 images wait already" in answers[2].reason
    assert answers[1]["twice"].tolist() == [4]


def test_an_error_reaches_all_of_its_batch_and_no_other():
    model = Doubles(held=True)
    answers = run(held(Batcher(max_rows=2), model, [query(1), query(-1), query(3)]))
    assert [str(answer) for answer in answers[:2]] == ["negative", "negative"]
    assert answers[2]["twice"].tolist() == [6]


def test_who_has_gone_is_left_out():
    async def scenario():
        model, batcher = Doubles(held=True), Batcher()
        first = asyncio.create_task(batcher.submit(model, query(1)))
        await asyncio.sleep(0.01)
        gone = asyncio.create_task(batcher.submit(model, query(2, 2)))
        await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(gone, 0.01)
        model.go.set()
        await first
        await batcher.submit(model, query(3))
        return model.batches, batcher.waiting_rows

    assert run(scenario()) == ([("a", 1), ("a", 1)], 0)
