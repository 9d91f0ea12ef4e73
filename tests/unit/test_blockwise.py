"""The map over blocks: order, bounds and errors."""

from __future__ import annotations

import sys
import threading
import time
import types

import dask
import numpy as np
import pytest

from bigbox import blockwise
from bigbox.blockwise import map_blocks


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_results_come_in_the_order_of_the_items(workers: int | None) -> None:
    def late_first(item: int) -> int:
        time.sleep(0.002 * (item % 3 == 0))
        return item * item

    assert list(map_blocks(late_first, range(50), workers=workers)) == [i * i for i in range(50)]


def test_no_more_are_worked_on_or_held_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "PER_WORKER", 2)
    lock, taken, working, most = threading.Lock(), [0], [0], [0]

    def items():
        for i in range(60):
            taken[0] += 1
            yield i

    def work(item: int) -> int:
        with lock:
            working[0] += 1
            most[0] = max(most[0], working[0])
        time.sleep(0.002)
        with lock:
            working[0] -= 1
        return item

    for done, item in enumerate(map_blocks(work, items(), workers=3)):
        assert item == done
        assert taken[0] - done <= 6
    assert taken[0] == 60
    assert 1 < most[0] <= 3


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_through_and_ends_the_work(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockwise, "PER_WORKER", 4 // workers)
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 5:
            raise ValueError("item 5")
        return item

    found = map_blocks(work, range(1000), workers=workers)
    assert [next(found) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="item 5"):
        next(found)
    assert max(begun) < 8


def test_blocks_of_a_dask_array_are_computed_first() -> None:
    import dask.array as da

    blocks = da.arange(12, chunks=4).to_delayed().ravel()
    assert list(map_blocks(np.sum, blocks, workers=2)) == [6, 22, 38]


def test_a_current_client_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:

    class Client:
        asynchronous = False
        calls = 0

        def get(self, graph, keys, **options):
            self.calls += 1
            return dask.get(graph, keys)

    client = Client()
    module = types.ModuleType("distributed")
    module.get_client = lambda: client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "distributed", module)
    assert list(map_blocks(abs, [-1, -2], workers=2)) == [1, 2]
    assert client.calls == 1
