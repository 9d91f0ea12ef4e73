"""A batch that finds no memory is halved, with the same result; what is no such thing is raised."""

from __future__ import annotations

import numpy as np
import pytest

from bigbox.engine.memory import WithinMemory, out_of_memory
from bigbox.errors import BadInput
from bigbox.painters.base import StepBatch, TileBatch


def steps(count: int) -> StepBatch:
    """A batch in which only rows 1, 2 and 5 have inputs, the others have them kept."""
    rows = np.arange(count)
    given = np.array([1, 2, 5])
    z = np.zeros((count, 2, 2, 2), np.float32) + rows[:, None, None, None]
    inputs = 100 * given[:, None, None, None, None] + np.zeros((3, 1, 2, 2, 2), np.float32)
    corners = np.stack([rows] * 3, axis=1)
    return StepBatch(rows, corners, inputs, z, z, rows + 1, rows.copy(), given)


class Painter:
    """Paints rows that fit; remembers the sizes that it was asked for."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, list[int]()
        self.kept: dict[int, float] = {}

    def advance(self, batch: StepBatch) -> np.ndarray:
        self.asked.append(len(batch))
        assert batch.given is not None and batch.place is not None
        if len(batch) > self.most:
            raise MemoryError("too much")
        for row, inputs in zip(batch.given.tolist(), batch.inputs, strict=True):
            self.kept[int(batch.place[row])] = float(inputs.max())
        there = np.array([self.kept.get(place, 0.0) for place in batch.place.tolist()])
        return (batch.z + batch.step[:, None, None, None] + there[:, None, None, None])[:, None]


@pytest.mark.parametrize("most", [1, 2, 3, 5, 7])
def test_halves_give_what_the_whole_gives(most: int, caplog: pytest.LogCaptureFixture) -> None:
    batch, painter, within = steps(7), Painter(most), WithinMemory("painter")
    wanted = Painter(7).advance(batch)
    assert np.array_equal(within(painter.advance, batch), wanted)
    assert max(painter.asked[-2:]) <= most
    asked = len(painter.asked)
    assert np.array_equal(within(painter.advance, batch), wanted)
    assert max(painter.asked[asked:]) <= most  # it is not tried in vain again
    assert (most == 7) == (not caplog.records)


def test_without_memory_for_one_it_is_told() -> None:
    with pytest.raises(BadInput, match="not enough memory for one at a time"):
        WithinMemory("painter")(Painter(0).advance, steps(7))


def test_arrays_and_tiles_are_cut_alike() -> None:
    def paint(batch: TileBatch) -> np.ndarray:
        if len(batch) > 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return batch.known + batch.tiles[0]

    known, width = np.ones((3, 1, 2, 2, 2), np.float32), np.zeros((3, 3, 2), np.int64)
    rows = np.arange(3)
    batch = TileBatch(rows, np.zeros((3, 3), np.int64), known, known=known, width=width)
    assert np.array_equal(WithinMemory("p")(paint, batch)[:, 0, 0, 0, 0], [1, 2, 3])
    asked = WithinMemory("p")
    windows = np.arange(5.0, dtype=np.float32)
    assert np.array_equal(asked(lambda part: _few(part, 2), windows), 2 * windows)


def _few(part: np.ndarray, most: int) -> np.ndarray:
    if len(part) > most:
        raise MemoryError
    return 2 * part


def test_other_errors_are_raised() -> None:
    def broken(part: np.ndarray) -> np.ndarray:
        raise RuntimeError("a kernel is wrong")

    with pytest.raises(RuntimeError, match="kernel"):
        WithinMemory("p")(broken, np.zeros(4))
    assert not out_of_memory(RuntimeError("x")) and out_of_memory(MemoryError())
