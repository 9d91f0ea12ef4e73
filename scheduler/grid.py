"""Cut a box into items: covers of an axis, and grids, which are three covers.

A *cover* is a row of intervals on one axis of n periodic voxels. A *grid* is three covers. Tiles,
windows, blocks, bricks, shards, chunks, cut-outs, and the voxels that a tile owns are all grids.
Which items of one touch which of another: `bigbox.scheduler.meeting`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
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

    def at(self, item: int) -> Triple:
        """Return the index of one item on x, y, z: as `coords`, without the cost of numpy."""
        _, ny, nz = self.counts
        return item // (ny * nz), item // nz % ny, item % nz

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
