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


def test_a_request_larger_than_a_batch_is_run_in_pieces():
    model = Doubles(held=True)
    (answer,) = run(held(Batcher(max_rows=2), model, [query(1, 2, 3)]))
    assert answer["twice"].tolist() == [2, 4, 6]
    assert sorted(model.batches) == [("a", 1), ("a", 1), ("a", 2)]


def costly(*costs):
    return Query(A, np.array(costs), costs)


@pytest.mark.parametrize(
    ("costs", "sizes"),
    [
        ([3, 3, 3], [3]),
        ([10, 10, 1, 1], [1, 1, 2]),
        ([1, 30, 1], [1, 1, 1]),
        ([9, 1, 9, 1], [2, 2]),
    ],
)
def test_pieces_cost_no_more_than_a_batch_may(costs, sizes):
    model = Doubles()
    answer = run(Batcher(max_cost=10).submit(model, costly(*costs)))
    assert answer["twice"].tolist() == [2 * cost for cost in costs]
    assert [rows for _, rows in model.batches] == sizes


def test_batches_cost_no_more_than_a_batch_may():
    model = Doubles(held=True)
    run(held(Batcher(max_cost=10), model, [costly(6), costly(6), costly(4), costly(1)]))
    assert [rows for _, rows in model.batches] == [1, 1, 2, 1]


def test_a_costly_request_does_not_delay_others():
    """It holds its thread, and the others are answered meanwhile."""

    class Slow(Doubles):
        def run(self, signature, rows):
            if rows.max() > 10:
                assert self.go.wait(10)
            self.batches.append((signature, len(rows)))
            return {"twice": rows * 2}

    async def scenario():
        model, batcher = Slow(held=True), Batcher(max_cost=10)
        slow = asyncio.create_task(batcher.submit(model, costly(50, 50)))
        await asyncio.sleep(0.01)
        for value in range(5):
            answer = await batcher.submit(model, costly(value))
            assert answer["twice"].tolist() == [2 * value]
        model.go.set()
        await slow
        return model.batches

    assert run(scenario()) == [("a", 1)] * 7


def test_what_is_left_of_a_request_is_dropped_when_nobody_waits():
    async def scenario():
        model, batcher = Doubles(held=True), Batcher(max_cost=10)
        gone = asyncio.create_task(batcher.submit(model, costly(*[20] * 9)))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.01)
        model.go.set()
        await batcher.submit(model, costly(20))
        return model.batches, batcher.waiting_rows, batcher.waiting_cost

    assert run(scenario()) == ([("a", 1), ("a", 1)], 0, 0)


def test_pixels_that_wait_are_bounded():
    queries = [costly(60), costly(60), costly(1)]
    answers = run(held(Batcher(max_queue_cost=100, max_cost=10**3), Doubles(held=True), queries))
    assert answers[1].status == 503
    assert answers[0]["twice"].tolist() == [120]
    assert answers[2]["twice"].tolist() == [2]


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
    assert "2 images are waiting" in answers[2].reason
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
