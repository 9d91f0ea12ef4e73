"""Say which items of one grid touch which items of another, and with which voxels.

A *cover* is a row of intervals on one axis of n periodic voxels. A *grid* is three covers. Tiles,
windows, blocks, bricks, shards, chunks, cut-outs, and the voxels that a tile owns are all grids::

    windows   |--------0--------|                        may overlap, and wrap
                    |--------1--------|
    blocks    |===0===|===1===|===2===|===3===|==        may not: a partition

    pieces of window 0    block 0: voxels 0-7 of both    block 1: voxels 8-15, 0-7    block 2: ...

`Meeting(a, b)` says which items of the partition b each item of a touches, and back. It is worked
out axis by axis and never stored over the box: 10 240^3 voxels need a few thousand numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Triple = tuple[int, int, int]
Slices = tuple[slice, slice, slice]
# On one axis: an item of b, the voxels that are shared in the item of a, the same in that of b.
Piece = tuple[int, slice, slice]

T = TypeVar("T")
Number = TypeVar("Number", bound=np.integer)

# Items handled together where very many are passed over: bounds the temporary arrays.
CHUNK = 1 << 17

# Pieces that are kept by kind of item: about 10 MB.
MOST_CUTS = 1 << 16

# Stands for no item in tables whose numbers are added up: no sum with it reaches 0.
NONE = -(1 << 60)


def triple(values: Iterable[T]) -> tuple[T, T, T]:
    """Return three values, one per axis, as a tuple."""
    x, y, z = values
    return x, y, z


def in_chunks(items: NDArray[Number]) -> Iterator[NDArray[Number]]:
    """Yield `CHUNK` items at a time."""
    for i in range(0, len(items), CHUNK):
        yield items[i : i + CHUNK]


def distinct(values: NDArray[Number]) -> NDArray[Number]:
    """Return what `numpy.unique` does, for few values at a third of its fixed cost."""
    values = np.sort(values, axis=None)
    if len(values) < 2:
        return values
    keep = np.empty(len(values), bool)
    keep[0] = True
    np.not_equal(values[1:], values[:-1], out=keep[1:])
    return values[keep]


def distinct_pairs(a: Ints, b: NDArray[np.integer]) -> tuple[Ints, NDArray[np.int32]]:
    """Return the pairs (a, b) of numbers from 0, ascending, none twice: int64 and int32 (K,)."""
    base = np.int64(b.max(initial=0) + 1)
    first, second = np.divmod(distinct(a * base + b), base)
    return first, second.astype(np.int32)


def find(held: Ints, items: ArrayLike) -> tuple[Ints, NDArray[np.bool_]]:
    """Return places in `held`, ascending and not empty, and whether each item is there."""
    place = np.minimum(np.searchsorted(held, items), len(held) - 1)
    return place, held[place] == items


@dataclass(frozen=True, eq=False)
class Cover:
    """Intervals [first, first + length) on a periodic axis of n voxels.

    Parameters
    ----------
    n : voxels of the axis.
    first, length : int64 (items,). An interval may begin below 0 and end beyond n: it wraps.
    skip : int64 (items,), voxels that an item has before its interval. Pieces count from there.
    """

    n: int
    first: Ints
    length: Ints
    skip: Ints = field(default_factory=lambda: np.zeros(1, np.int64))

    def __post_init__(self) -> None:
        object.__setattr__(self, "skip", np.broadcast_to(self.skip, self.first.shape))

    @classmethod
    def regular(cls, n: int, edge: int) -> Cover:
        """Cut every `edge` voxels; the end of the axis cuts the last interval."""
        first = np.arange(0, n, edge, dtype=np.int64)
        return cls(n, first, np.minimum(edge, n - first))

    @classmethod
    def equal(cls, n: int, first: ArrayLike, length: int) -> Cover:
        """Make intervals of one length."""
        at = np.atleast_1d(np.asarray(first, np.int64))
        return cls(n, at, np.full(len(at), length, np.int64))

    @property
    def count(self) -> int:
        """Return the number of intervals."""
        return len(self.first)

    @property
    def middle(self) -> Ints:
        """Return the voxel in the middle of each interval, in [0, n): int64 (items,)."""
        return (self.first + self.length // 2) % self.n

    def grown(self, margin: int) -> Cover:
        """Widen every interval by `margin` voxels on both sides, to the whole axis at most."""
        return Cover(self.n, self.first - margin, np.minimum(self.length + 2 * margin, self.n))

    def trimmed(self, low: Ints, high: Ints) -> Cover:
        """Leave out the first `low` and last `high` voxels; pieces count from the old beginning."""
        return Cover(self.n, self.first + low, self.length - low - high, self.skip + low)

    @cached_property
    def _cuts(self) -> tuple[Ints, Ints]:
        """First voxels of a partition's intervals, ascending in [0, n), and whose each is."""
        starts = self.first % self.n
        order = np.argsort(starts, kind="stable")
        return starts[order], order

    def holding(self, voxels: ArrayLike) -> Ints:
        """Return the interval of a partition that holds each voxel in [0, n): int64, as `voxels`.

        The first of `_cuts` may lie behind a voxel: the last interval wraps round to it.
        """
        starts, order = self._cuts
        return order[np.searchsorted(starts, voxels, side="right") - 1]

    def pieces(self, item: int, parts: Cover) -> list[Piece]:
        """Cut an interval where the partition `parts` is cut, in order along the interval.

        A part is met twice where the interval wraps round it.
        """
        skip = int(self.skip[item])
        at, end, found = 0, int(self.length[item]), []
        while at < end:
            voxel = (int(self.first[item]) + at) % self.n
            part = int(parts.holding(voxel))
            inside = (voxel - int(parts.first[part])) % self.n
            take = min(int(parts.length[part]) - inside, self.n - voxel, end - at)
            into = inside + int(parts.skip[part])
            found.append((part, slice(skip + at, skip + at + take), slice(into, into + take)))
            at += take
        return found


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


class Grid:
    """A product of three covers, its items named by a linear index, C order over `counts`.

    Attributes
    ----------
    axes : the covers on x, y, z.
    shape : voxels of the box.
    """

    axes: tuple[Cover, Cover, Cover]
    shape: Triple

    def __init__(self, axes: tuple[Cover, Cover, Cover]) -> None:
        self.axes = axes
        self.shape = triple(axis.n for axis in axes)

    @staticmethod
    def regular(shape: Triple, edge: int) -> Grid:
        """Cut a box of `shape` voxels into cubes of `edge`; the box's end cuts the last ones."""
        return Grid(triple(Cover.regular(n, edge) for n in shape))

    @cached_property
    def counts(self) -> Triple:
        """Number of items on x, y, z."""
        return triple(axis.count for axis in self.axes)

    @property
    def strides(self) -> Triple:
        """Differences of the linear indices of next neighbours on x, y, z."""
        _, ny, nz = self.counts
        return ny * nz, nz, 1

    @property
    def size(self) -> int:
        """Number of items."""
        return math.prod(self.counts)

    def coords(self, items: ArrayLike) -> Ints:
        """Return the index of each item on x, y, z: (M,) -> int64 (M, 3)."""
        return np.stack(np.unravel_index(np.asarray(items, np.int64), self.counts), axis=-1)

    def index(self, coords: ArrayLike) -> Ints:
        """Return the linear index of items given on x, y, z: (M, 3) -> int64 (M,)."""
        at = np.asarray(coords, np.int64)
        return np.asarray(np.ravel_multi_index(triple(np.moveaxis(at, -1, 0)), self.counts))

    def cuboid(self, x: Ints, y: Ints, z: Ints) -> Ints:
        """Return all items with these indices on x, y, z: int64, C order."""
        step_x, step_y, _ = self.strides
        return (x[:, None, None] * step_x + y[:, None] * step_y + z).ravel()

    def origin(self, items: ArrayLike) -> Ints:
        """Return the first voxel of each item: (M,) -> int64 (M, 3)."""
        at = self.coords(items)
        return np.stack([axis.first[at[..., a]] for a, axis in enumerate(self.axes)], axis=-1)

    def holding(self, voxels: ArrayLike) -> Ints:
        """Return the item of a partition that holds each voxel of the box: (M, 3) -> int64 (M,)."""
        at = np.asarray(voxels, np.int64)
        held = [axis.holding(at[..., a]) for a, axis in enumerate(self.axes)]
        return self.index(np.stack(held, axis=-1))

    def slices(self, item: int) -> Slices:
        """Return the voxels of one item of a partition, as slices of the box."""
        low, extent = self.origin(item).tolist(), self.extent(item)
        return triple(slice(a, a + n) for a, n in zip(low, extent, strict=True))

    def extent(self, item: int) -> Triple:
        """Return the voxels of one item on x, y, z."""
        at = self.coords(item).tolist()
        return triple(int(axis.length[i]) for axis, i in zip(self.axes, at, strict=True))

    def grown(self, margin: int) -> Grid:
        """Widen every item by `margin` voxels on all sides."""
        return Grid(triple(axis.grown(margin) for axis in self.axes))


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
        _, ny, nz = self.a.counts
        x, y, z = self._rows
        (xs, kx), (ys, ky), (zs, kz) = x[item // (ny * nz)], y[item // nz % ny], z[item % nz]
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
        at = self.a.coords(item).tolist()
        rows = (axis.rows[i] for axis, i in zip(self.axes, at, strict=True))
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
