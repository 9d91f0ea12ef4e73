"""Cut a box into tiles: counts, origins, overlaps, neighbours, and the owner of every voxel.

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

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigbox.scheduler.grid import Cover, Grid, Ints, Triple, triple

AXES = "xyz"


class TilingError(ValueError):
    """A box that cannot be cut as asked; the message names the axis, the value and the way out."""


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array


@dataclass(frozen=True)
class _Row:
    """The tiles of one axis, of `n` voxels."""

    n: int
    tile: int
    overlap: int
    periodic: bool
    halved: bool = False

    @cached_property
    def count(self) -> int:
        """Smallest number of tiles that cover the axis with at least `overlap` shared voxels."""
        stride = self.tile - self.overlap
        if self.periodic:
            return max(2, -(-self.n // stride))
        if self.n == self.tile:
            return 1
        return 1 + max(1, -(-(self.n - self.tile) // stride))

    @property
    def largest_overlap(self) -> int:
        """Most voxels that two neighbours share."""
        if self.count == 1:
            return 0
        span, strides = (self.n, 0) if self.periodic else (self.n - self.tile, 1)
        return self.tile - span // (self.count - strides)

    @property
    def fits(self) -> bool:
        """Whether no tile meets itself and, where that matters, its second neighbours."""
        return self.n >= self.tile and (self.halved or 2 * self.largest_overlap < self.tile)

    def nearest(self) -> str:
        """Return the closest sizes below and above that can be tiled, as words for a message."""
        # Tiles at the largest stride, more than half a tile, always fit: a size that works is never
        # more than two tiles away.
        reach = 2 * self.tile
        above = range(max(self.n, self.tile) + 1, max(self.n, self.tile) + 1 + reach)
        below = range(self.n - 1, max(self.tile, self.n - reach) - 1, -1)
        found = [next((n for n in r if replace(self, n=n).fits), None) for r in (below, above)]
        return " or ".join(str(n) for n in found if n is not None)

    @cached_property
    def origins(self) -> Ints:
        """First voxel of every tile."""
        i = np.arange(self.count, dtype=np.int64)
        if self.periodic:
            return _frozen(i * self.n // self.count)
        return _frozen(i * (self.n - self.tile) // max(self.count - 1, 1))

    @cached_property
    def widths(self) -> Ints:
        """Voxels shared with the tiles on both sides, int64 (count, 2)."""
        stride = np.diff(self.origins, append=self.n)
        high = np.maximum(self.tile - stride, 0)
        if not self.periodic:
            high[-1] = 0
        return _frozen(np.stack([np.roll(high, 1), high], axis=-1))

    @cached_property
    def colours(self) -> NDArray[np.uint8]:
        """Colour of every tile."""
        colour = (np.arange(self.count) % 2).astype(np.uint8)
        if self.periodic and self.count % 2:
            colour[-1] = 2
        return _frozen(colour)

    @cached_property
    def known(self) -> Ints:
        """Voxels at both faces that a tile of lower colour has, int64 (count, 2)."""
        colour = self.colours
        lower = np.stack([np.roll(colour, 1) < colour, np.roll(colour, -1) < colour], axis=-1)
        return _frozen(np.where(lower, self.widths, 0))

    @cached_property
    def margins(self) -> Ints:
        """Voxels at both faces that another tile owns, int64 (count, 2)."""
        low, high = self.widths.T
        return (
            _frozen(np.stack([low // 2, high - high // 2], axis=-1)) if self.halved else self.known
        )


@dataclass(frozen=True)
class Tiling(Grid):
    """A box cut into overlapping tiles; everything else is arithmetic on it.

    It is a grid: tiles are named by a linear index, int64, C order over `counts`. Nothing here
    holds an array over the tiles, only over those of one axis.

    Parameters
    ----------
    shape : voxels of the box on x, y, z.
    tile : voxels of a tile on each axis (32 in the paper, section 2.4).
    overlap : the least number of voxels shared by neighbouring tiles (4 in the paper).
    periodic : whether the box wraps round, per axis.
    halved : whether each of two neighbours owns half of what they share, its *core*, as where all
        tiles are painted together step by step; else the first to paint a voxel owns it.

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
    halved: bool = False

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
        most = self.tile - 1 if self.halved else (self.tile - 1) // 2
        if self.overlap > most:
            reach = "" if self.halved else "half "
            raise TilingError(
                f"overlap of {self.overlap} voxels reaches {reach}a tile ({self.tile} voxels): "
                f"at most {most} are possible"
            )
        for name, axis in zip(AXES, self._rows, strict=True):
            if axis.n < self.tile:
                raise TilingError(
                    f"box is {axis.n} voxels on axis {name}, less than a tile of {self.tile}: "
                    f"the nearest size that works is {axis.nearest()}"
                )
            if not axis.fits:
                raise TilingError(
                    f"box of {axis.n} voxels on axis {name} needs {axis.count} tiles that "
                    f"overlap by {axis.largest_overlap} voxels, half a tile of {self.tile} or "
                    f"more: the nearest sizes that work are {axis.nearest()}"
                )
        covers = triple(Cover.equal(row.n, row.origins, self.tile) for row in self._rows)
        object.__setattr__(self, "axes", covers)

    @cached_property
    def _rows(self) -> tuple[_Row, _Row, _Row]:
        rules = zip(self.shape, self.periodic, strict=True)
        return triple(_Row(n, self.tile, self.overlap, wraps, self.halved) for n, wraps in rules)

    def origins(self, axis: int) -> Ints:
        """First voxel of every tile along one axis, int64[n], ascending from 0."""
        return self._rows[axis].origins

    def widths(self, axis: int) -> tuple[Ints, Ints]:
        """Voxels shared with the previous and with the next tile, int64[n] each; 0 at open ends."""
        low, high = self._rows[axis].widths.T
        return low, high

    def colours(self, axis: int) -> NDArray[np.uint8]:
        """Colour of every tile along one axis, uint8[n]: index % 2, or 2 to close an odd ring."""
        return self._rows[axis].colours

    def known_widths(self, axis: int) -> Ints:
        """Voxels at the low and high face painted before the tile itself, int64 (n, 2).

        They are those shared with a neighbour of lower colour; the tile owns the rest.
        """
        return self._rows[axis].known

    @cached_property
    def owned_grid(self) -> Grid:
        """What each tile owns, a partition; its pieces are counted in voxels that are kept of it.

        Those are all of the tile, or its core where tiles are `halved`.
        """
        found = []
        for cover, row in zip(self.axes, self._rows, strict=True):
            owned = cover.trimmed(*row.margins.T)
            found.append(Cover(row.n, owned.first, owned.length) if self.halved else owned)
        return Grid(triple(found))

    @cached_property
    def kept(self) -> int:
        """Edge of what is kept of each tile once it is painted, voxels; a core may have less."""
        return max(int(c.length.max()) for c in self.owned_grid.axes) if self.halved else self.tile

    def margins(self, axis: int) -> Ints:
        """Voxels at the low and high face that other tiles own, int64 (n, 2)."""
        return self._rows[axis].margins

    def neighbours(self, tiles: ArrayLike) -> Ints:
        """Face neighbours: (M,) -> int64 (M, 3, 2), side 0 low and 1 high; -1 past an open end."""
        tiles = np.asarray(tiles, np.int64)
        counts, strides, wraps = (
            np.array(v)[:, None] for v in (self.counts, self.strides, self.periodic)
        )
        here = self.coords(tiles)[..., None]
        there = here + (-1, 1)
        near = tiles[..., None, None] + (there % counts - here) * strides
        return np.where(wraps | ((there >= 0) & (there < counts)), near, -1)

    def owner(self, voxels: ArrayLike) -> Ints:
        """Return the tile that owns each voxel of the box: (M, 3) -> int64 (M,)."""
        return self.owned_grid.holding(voxels)

    def as_dict(self) -> dict[str, Any]:
        """Return the tiling as JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Tiling:
        """Return the inverse of `as_dict`."""
        halved = d.get("halved", False)
        return cls(tuple(d["shape"]), d["tile"], d["overlap"], tuple(d["periodic"]), halved)

    def describe(self) -> str:
        """One line for a person: size, tiles, overlaps."""
        edges = "".join(
            f", open on {AXES[a]}" for a, periodic in enumerate(self.periodic) if not periodic
        )
        shared = np.concatenate([row.widths.ravel() for row in self._rows])
        shared = shared[shared > 0] if self.overlap else shared
        span = "no overlap"
        if shared.size:
            low, high = int(shared.min()), int(shared.max())
            span = f"overlap {low}" if low == high else f"overlap {low} to {high}"
        return (
            f"{' x '.join(map(str, self.shape))} voxels{edges or ', periodic'}: "
            f"{' x '.join(map(str, self.counts))} = {self.size:,} tiles of {self.tile}^3, "
            f"{span} voxels"
        )
