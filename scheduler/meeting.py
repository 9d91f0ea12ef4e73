"""Say which items of one grid touch which items of another, and with which voxels.

    windows   |--------0--------|                        may overlap, and wrap
                    |--------1--------|
    blocks    |===0===|===1===|===2===|===3===|==        may not: a partition

    pieces of window 0    block 0: voxels 0-7 of both    block 1: voxels 8-15, 0-7    block 2: ...

`Meeting(a, b)` says which items of the partition b each item of a touches, and back. It is worked
out axis by axis and never stored over the box: 10 240^3 voxels need a few thousand numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigbox.scheduler.grid import (
    Grid,
    Ints,
    Piece,
    Slices,
    Triple,
    distinct,
    find,
    in_chunks,
    triple,
)

# Pieces that are kept by kind of item: about 10 MB.
MOST_CUTS = 1 << 16

# Stands for no item in tables whose numbers are added up: no sum with it reaches 0.
NONE = -(1 << 60)


@dataclass(frozen=True, eq=False)
class AxisMeeting:
    """Which intervals of one cover touch which of another, on one axis.

    Parameters
    ----------
    rows : pieces of each item of a.
    count : items of b.
    """

    rows: list[list[Piece]]
    count: int

    @cached_property
    def table(self) -> Ints:
        """int64 (items of a, most that one touches): sorted items of b, none twice, -1 padded."""
        found = [sorted({j for j, _, _ in row}) for row in self.rows]
        table = np.full((len(found), max(map(len, found), default=0)), -1, np.int64)
        for row, items in zip(table, found, strict=True):
            row[: len(items)] = items
        table.setflags(write=False)
        return table

    @cached_property
    def inverse(self) -> AxisMeeting:
        """The same seen from b."""
        rows: list[list[Piece]] = [[] for _ in range(self.count)]
        for i, row in enumerate(self.rows):
            for j, here, there in row:
                rows[j].append((i, there, here))
        return AxisMeeting(rows, len(self.rows))

    @cached_property
    def degree(self) -> Ints:
        """int64 (items of a,): how many items of b each touches."""
        return np.sum(self.table >= 0, axis=1, dtype=np.int64)

    @cached_property
    def place(self) -> Ints:
        """As `table`: which of those that touch the same item of b each is, -1 padded."""
        found = np.full_like(self.table, -1)
        row, column = np.nonzero(self.table >= 0)
        back = self.inverse.table[self.table[row, column]]
        found[row, column] = np.argmax(back == row[:, None], axis=1)
        return found


class Meeting:
    """Which items of the partition b each item of a touches; `inverse` turns it round."""

    def __init__(self, a: Grid, b: Grid, axes: tuple[AxisMeeting, ...] = ()) -> None:
        self.a, self.b = a, b
        self.axes = axes or tuple(
            AxisMeeting([one.pieces(i, parts) for i in range(one.count)], parts.count)
            for one, parts in zip(a.axes, b.axes, strict=True)
        )
        self._cuts: dict[Triple, tuple[list[Slices], list[Slices]]] = {}

    @cached_property
    def inverse(self) -> Meeting:
        """The same seen from b."""
        return Meeting(self.b, self.a, tuple(axis.inverse for axis in self.axes))

    def of(self, items: ArrayLike) -> Ints:
        """Return the items of b that each touches: (M,) -> int64 (M, W), -1 padded, none twice."""
        return self._sums(self._tables, items)

    def touched(self, items: ArrayLike) -> Ints:
        """Return all items of b that any of these touches, ascending, int64."""
        found = self.of(items)
        return distinct(found[found >= 0])

    @cached_property
    def most(self) -> Triple:
        """Most items of a that touch one item of b, per axis."""
        return triple(int(axis.inverse.degree.max()) for axis in self.axes)

    def places(self, items: ArrayLike) -> Ints:
        """Return which of the items that touch the same item of b each is, as `of`.

        (M,) -> int64 (M, W), 0 up to the product of `most`, -1 padded.
        """
        return self._sums(self._orders, items)

    def degree(self, items: ArrayLike) -> Ints:
        """Return how many items of b each touches: (M,) -> int64 (M,)."""
        at = self.a.coords(items)
        x, y, z = (axis.degree[at[..., k]] for k, axis in enumerate(self.axes))
        return x * y * z

    def pieces(self, item: int) -> Iterator[tuple[int, Slices, Slices]]:
        """Yield (item of b, the shared voxels in the item of a, the same in that of b)."""
        x, y, z = self._rows
        at_x, at_y, at_z = self.a.at(item)
        (xs, kx), (ys, ky), (zs, kz) = x[at_x], y[at_y], z[at_z]
        cuts = self._cuts.get((kx, ky, kz)) or self._cut(item, (kx, ky, kz))
        return zip([i + j + k for i in xs for j in ys for k in zs], *cuts, strict=True)

    @cached_property
    def _rows(self) -> list[list[tuple[list[int], int]]]:
        """Of each item on each axis: addends of the linear indices it touches, and its kind.

        Items of one kind are cut at the same places. There are few kinds.
        """
        found = []
        for axis, step in zip(self.axes, self.b.strides, strict=True):
            kinds: dict[tuple[int, ...], int] = {}
            rows = []
            for row in axis.rows:
                ends = tuple(n for _, a, b in row for n in (a.start, a.stop, b.start, b.stop))
                rows.append(([i * step for i, _, _ in row], kinds.setdefault(ends, len(kinds))))
            found.append(rows)
        return found

    def _cut(self, item: int, kinds: Triple) -> tuple[list[Slices], list[Slices]]:
        """Return the shared voxels of an item with each that it touches, in both; keep them."""
        rows = (axis.rows[i] for axis, i in zip(self.axes, self.a.at(item), strict=True))
        parts = list(product(*rows))
        here = [triple(piece[1] for piece in part) for part in parts]
        there = [triple(piece[2] for piece in part) for part in parts]
        if sum(len(pieces) for pieces, _ in self._cuts.values()) > MOST_CUTS:
            self._cuts.clear()
        self._cuts[kinds] = here, there
        return here, there

    @cached_property
    def _tables(self) -> tuple[Ints, ...]:
        return _addends([axis.table for axis in self.axes], self.b.counts)

    @cached_property
    def _orders(self) -> tuple[Ints, ...]:
        return _addends([axis.place for axis in self.axes], self.most)

    def _sums(self, tables: tuple[Ints, ...], items: ArrayLike) -> Ints:
        at = np.unravel_index(np.atleast_1d(np.asarray(items, np.int64)), self.a.counts)
        x, y, z = (table[i] for table, i in zip(tables, at, strict=True))
        found = x[:, :, None, None] + y[:, None, :, None] + z[:, None, None, :]
        return np.maximum(found, -1).reshape(len(x), x.shape[1] * y.shape[1] * z.shape[1])


def _addends(tables: list[Ints], counts: Triple) -> tuple[Ints, ...]:
    """Tables per axis whose sum is a linear index over `counts`, below 0 where one has none."""
    steps = (counts[1] * counts[2], counts[2], 1)
    return tuple(np.where(t < 0, NONE, t * step) for t, step in zip(tables, steps, strict=True))


class Gate:
    """Which items of a, of some of interest, may be worked on, as items of b become final.

    Whether an item is open is asked of b each time, so that a part named twice does no harm. Only
    the parts that the items of interest touch are held.

    Parameters
    ----------
    meeting : of the items that wait with the parts that they wait for.
    items : int64 (M,), the items of interest.
    final : returns of parts, int64 (K,), which are final already, bool (K,).
    """

    def __init__(
        self, meeting: Meeting, items: Ints, final: Callable[[Ints], NDArray[np.bool_]]
    ) -> None:
        self.meeting = meeting
        found = [meeting.touched(part) for part in in_chunks(items)]
        self._parts = distinct(np.concatenate([np.empty(0, np.int64), *found]))
        self._final = final(self._parts)
        if not len(self._parts):  # nothing is of interest: one part that is never named
            self._parts, self._final = np.array([-2]), np.zeros(1, bool)

    def is_open(self, items: ArrayLike) -> NDArray[np.bool_]:
        """Return whether all parts under each item are final: (M,) -> bool (M,)."""
        under = self.meeting.of(items)
        place, known = find(self._parts, under)
        return np.all((under < 0) | (known & self._final[place]), axis=1)

    def open(self, parts: ArrayLike) -> Ints:
        """Note that parts are final; return the items that may be worked on since, ascending."""
        parts = np.asarray(parts, np.int64)
        place, known = find(self._parts, parts)
        self._final[place[known]] = True
        over = self.meeting.inverse.touched(parts[known])
        return over[self.is_open(over)]
