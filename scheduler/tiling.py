"""How a box is cut into tiles: counts, origins, overlaps, neighbours, and the owner of every voxel.

A box of N voxels on an axis is covered by n tiles of `tile` voxels, whose strides differ by at most
one voxel so that they close a periodic box (or end flush with an open one)::

    periodic, n = 4                           open, n = 3

    |--- 0 ----|        |--- 2 ----|          |--- 0 ----|        |--- 2 ----|
    ==      |--- 1 ----|        |--- 3 ---    |       |--- 1 ----|           |
    ^^ the rest of tile 3 (wraps round)       0                              N

    0 0 0 0 0 0 0 0 1 1 1 2 2 2 2 2 2 2 ...   the owner of each voxel on this axis

On each axis a tile has a colour: its index modulo 2, and a third colour, 2, for the last tile of
a periodic axis with an odd count (the paper needs even counts, Mishra, Trotta & Viel 2025 (LODI),
section 2.4). Neighbours never share a colour. The owner of a voxel is, axis by axis, the tile of
the lowest colour that covers it: it is the first tile to paint the voxel, whichever colouring of
`bigbox.scheduler.stages` orders the tiles, and what a tile owns is a cuboid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigbox.scheduler.grid import Cover, Grid, Ints, Slices, Triple

AXES = "xyz"


class TilingError(ValueError):
    """A box that cannot be cut as asked; the message names the axis, the value and the way out."""


def _count(n_voxels: int, tile: int, overlap: int, periodic: bool) -> int:
    """Smallest number of tiles that cover an axis with at least `overlap` shared voxels."""
    stride = tile - overlap
    if periodic:
        return max(2, -(-n_voxels // stride))
    if n_voxels == tile:
        return 1
    return 1 + max(1, -(-(n_voxels - tile) // stride))


def _largest_overlap(n_voxels: int, tile: int, overlap: int, periodic: bool) -> int:
    n = _count(n_voxels, tile, overlap, periodic)
    if n == 1:
        return 0
    return tile - (n_voxels // n if periodic else (n_voxels - tile) // (n - 1))


def _fits(n_voxels: int, tile: int, overlap: int, periodic: bool) -> bool:
    if n_voxels < tile:
        return False
    return 2 * _largest_overlap(n_voxels, tile, overlap, periodic) < tile


def _nearest(n_voxels: int, tile: int, overlap: int, periodic: bool) -> str:
    """Return the closest sizes below and above that can be tiled, as words for a message."""
    # Tiles at the largest stride, more than half a tile, always fit: a size that works is never
    # more than two tiles away.
    above = max(n_voxels, tile) + 1 + np.arange(2 * tile)
    up = next(int(n) for n in above if _fits(int(n), tile, overlap, periodic))
    below = np.arange(n_voxels - 1, max(tile, n_voxels - 2 * tile) - 1, -1)
    down = [int(n) for n in below if _fits(int(n), tile, overlap, periodic)]
    return f"{down[0]} or {up}" if down else f"{up}"


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array


@dataclass(frozen=True)
class Tiling:
    """A box cut into overlapping tiles; everything else is arithmetic on it.

    Tiles are named by a linear index, int64, C order over `counts`; every method takes arrays of M
    of them. Nothing here holds an array over the tiles, only over the voxels of one axis.

    Parameters
    ----------
    shape : voxels of the box on x, y, z.
    tile : voxels of a tile on each axis (32 in the paper, section 2.4).
    overlap : the least number of voxels shared by neighbouring tiles (4 in the paper).
    periodic : whether the box wraps round, per axis.

    Raises
    ------
    TilingError
        Box smaller than a tile, or an overlap, asked for or resulting, that is
        negative or reaches half a tile (tiles would then overlap their second neighbours).
    """

    shape: Triple
    tile: int = 32
    overlap: int = 4
    periodic: tuple[bool, bool, bool] = (True, True, True)

    def __post_init__(self) -> None:
        for name, kind in (("shape", int), ("periodic", bool)):
            value = tuple(kind(v) for v in getattr(self, name))
            if len(value) != 3:
                raise TilingError(f"{name} has {len(value)} values, a box has 3 axes: give three")
            object.__setattr__(self, name, value)
        if self.tile < 2:
            raise TilingError(f"tile is {self.tile} voxels: at least 2 are needed")
        if self.overlap < 0:
            raise TilingError(f"overlap is {self.overlap} voxels: it cannot be negative")
        if 2 * self.overlap >= self.tile:
            raise TilingError(
                f"overlap of {self.overlap} voxels reaches half a tile ({self.tile} voxels): "
                f"at most {(self.tile - 1) // 2} are possible"
            )
        for axis, n in enumerate(self.shape):
            self._check_axis(axis, n)

    def _check_axis(self, axis: int, n: int) -> None:
        rule = (self.tile, self.overlap, self.periodic[axis])
        if n < self.tile:
            raise TilingError(
                f"box is {n} voxels on axis {AXES[axis]}, less than a tile of {self.tile}: "
                f"the nearest size that works is {_nearest(n, *rule)}"
            )
        if not _fits(n, *rule):
            raise TilingError(
                f"box of {n} voxels on axis {AXES[axis]} needs {_count(n, *rule)} tiles that "
                f"overlap by {_largest_overlap(n, *rule)} voxels, half a tile of {self.tile} or "
                f"more: the nearest sizes that work are {_nearest(n, *rule)}"
            )

    @cached_property
    def counts(self) -> Triple:
        """Number of tiles on x, y, z."""
        x, y, z = (
            _count(n, self.tile, self.overlap, p)
            for n, p in zip(self.shape, self.periodic, strict=True)
        )
        return x, y, z

    @property
    def size(self) -> int:
        """Number of tiles in the box."""
        nx, ny, nz = self.counts
        return nx * ny * nz

    @cached_property
    def _origins(self) -> tuple[Ints, Ints, Ints]:
        def one(axis: int) -> Ints:
            i = np.arange(self.counts[axis], dtype=np.int64)
            n, count = self.shape[axis], self.counts[axis]
            if self.periodic[axis]:
                return _frozen(i * n // count)
            return _frozen(i * (n - self.tile) // max(count - 1, 1))

        return one(0), one(1), one(2)

    def origins(self, axis: int) -> Ints:
        """First voxel of every tile along one axis, int64[n], ascending from 0."""
        return self._origins[axis]

    @cached_property
    def _widths(self) -> tuple[tuple[Ints, Ints], ...]:
        def one(axis: int) -> tuple[Ints, Ints]:
            start = self.origins(axis)
            stride = start - np.roll(start, 1)
            stride[0] += self.shape[axis]
            low = np.maximum(self.tile - stride, 0)
            if not self.periodic[axis]:
                low[0] = 0
            return _frozen(low), _frozen(np.roll(low, -1))

        return one(0), one(1), one(2)

    def widths(self, axis: int) -> tuple[Ints, Ints]:
        """Voxels shared with the previous and with the next tile, int64[n] each; 0 at open ends."""
        return self._widths[axis]

    @cached_property
    def _colours(self) -> tuple[NDArray[np.uint8], ...]:
        def one(axis: int) -> NDArray[np.uint8]:
            n = self.counts[axis]
            colour = (np.arange(n) % 2).astype(np.uint8)
            if self.periodic[axis] and n % 2:
                colour[-1] = 2
            return _frozen(colour)

        return one(0), one(1), one(2)

    def colours(self, axis: int) -> NDArray[np.uint8]:
        """Colour of every tile along one axis, uint8[n]: index % 2, or 2 to close an odd ring."""
        return self._colours[axis]

    @cached_property
    def _known(self) -> tuple[tuple[Ints, Ints], ...]:
        def one(axis: int) -> tuple[Ints, Ints]:
            colour, (low, high) = self.colours(axis), self.widths(axis)
            return (
                _frozen(np.where(np.roll(colour, 1) < colour, low, 0)),
                _frozen(np.where(np.roll(colour, -1) < colour, high, 0)),
            )

        return one(0), one(1), one(2)

    def known_widths(self, axis: int) -> tuple[Ints, Ints]:
        """Voxels at the low and high face painted before the tile itself, int64[n] each.

        They are those shared with a neighbour of lower colour; the tile owns the rest.
        """
        return self._known[axis]

    @cached_property
    def _owners(self) -> tuple[Ints, Ints, Ints]:
        def one(axis: int) -> Ints:
            # Painted from the highest colour down, so that the lowest colour has the last word;
            # tiles of one colour never meet.
            owner = np.full(self.shape[axis], -1, np.int64)
            colour = self.colours(axis)
            for c in (2, 1, 0):
                index = np.flatnonzero(colour == c)
                voxel = self.origins(axis)[index][:, None] + np.arange(self.tile)
                owner[voxel % self.shape[axis]] = index[:, None]
            return _frozen(owner)

        return one(0), one(1), one(2)

    @cached_property
    def grid(self) -> Grid:
        """The tiles as a grid."""
        x, y, z = (
            Cover.equal(n, o, self.tile) for n, o in zip(self.shape, self._origins, strict=True)
        )
        return Grid((x, y, z))

    @cached_property
    def owned_grid(self) -> Grid:
        """What each tile owns, a partition; its pieces are counted in voxels of the tile."""
        x, y, z = (
            axis.trimmed(low, high)
            for axis, (low, high) in zip(self.grid.axes, self._known, strict=True)
        )
        return Grid((x, y, z))

    def coords(self, tiles: ArrayLike) -> Ints:
        """Return the index of each tile on x, y, z: (M,) -> int64 (M, 3)."""
        return self.grid.coords(tiles)

    def index(self, coords: ArrayLike) -> Ints:
        """Return the linear index of tiles given on x, y, z: (M, 3) -> int64 (M,)."""
        return self.grid.index(coords)

    def origin(self, tiles: ArrayLike) -> Ints:
        """Return the lowest voxel of each tile: (M,) -> int64 (M, 3), in [0, N) on each axis."""
        return self.grid.origin(tiles)

    def neighbours(self, tiles: ArrayLike) -> Ints:
        """Face neighbours: (M,) -> int64 (M, 3, 2), side 0 low and 1 high; -1 past an open end."""
        tiles = np.asarray(tiles, np.int64)
        at = self.coords(tiles)
        found = np.empty((*tiles.shape, 3, 2), np.int64)
        step = (self.counts[1] * self.counts[2], self.counts[2], 1)
        for axis, n in enumerate(self.counts):
            here = at[..., axis]
            for side, there in enumerate((here - 1, here + 1)):
                near = tiles + (there % n - here) * step[axis]
                beyond = (there < 0) | (there >= n)
                open_end = not self.periodic[axis]
                found[..., axis, side] = np.where(beyond & open_end, -1, near)
        return found

    def owner(self, voxels: ArrayLike) -> Ints:
        """Return the tile that owns each voxel of the box: (M, 3) -> int64 (M,)."""
        at = np.asarray(voxels, np.int64)
        return self.index(np.stack([self._owners[a][at[..., a]] for a in range(3)], axis=-1))

    def owned(self, tile: int) -> Slices:
        """Return the cuboid of voxels a tile owns, as slices into the tile."""
        at = self.coords(tile)
        x, y, z = (
            slice(int(low[i]), self.tile - int(high[i]))
            for i, (low, high) in zip(at, self._known, strict=True)
        )
        return x, y, z

    def as_dict(self) -> dict[str, Any]:
        """Return the tiling as JSON."""
        return {
            "shape": list(self.shape),
            "tile": self.tile,
            "overlap": self.overlap,
            "periodic": list(self.periodic),
        }

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Tiling:
        """Return the inverse of `as_dict`."""
        return cls(tuple(d["shape"]), d["tile"], d["overlap"], tuple(d["periodic"]))

    def describe(self) -> str:
        """One line for a person: size, tiles, overlaps."""
        edges = "".join(
            f", open on {AXES[a]}" for a, periodic in enumerate(self.periodic) if not periodic
        )
        shared = np.concatenate(
            [
                width[width > 0] if self.overlap else width
                for axis in range(3)
                for width in self.widths(axis)
            ]
        )
        span = "no overlap"
        if shared.size:
            low, high = int(shared.min()), int(shared.max())
            span = f"overlap {low}" if low == high else f"overlap {low} to {high}"
        return (
            f"{' x '.join(map(str, self.shape))} voxels{edges or ', periodic'}: "
            f"{' x '.join(map(str, self.counts))} = {self.size:,} tiles of {self.tile}^3, "
            f"{span} voxels"
        )
