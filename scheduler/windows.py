"""How a box is covered by overlapping windows, what a window adds to, and what waits for it.

A network that sees windows of `window` voxels is slid over the periodic box at a stride, and what
it says of a voxel is averaged over all windows that cover it (Mishra, Trotta & Viel 2025 (LODI),
section 2.1: 64^3 at a stride of 16). The sums are kept in blocks, cubes of `block` voxels that are
also what the result is stored and read in::

    windows   |--------0--------|                    on one axis, window 18, stride 6
                    |--------1--------|
                          |--------2--------|
    blocks    |===0===|===1===|===2===|===3===|==    block 8: the last may be cut by the box's end

A block is *final* when every window that touches it has been added; nothing is ever added to it
again, so it can be stored, and the tiles above it can be painted. Everything is arithmetic on the
index of a window, a block or a tile, axis by axis; there is no object for any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigbox.scheduler.tiling import AXES, Ints, Tiling, TilingError, Triple

# On one axis: a block, the voxels of a window that lie in it, and the same voxels in the block.
Piece = tuple[int, slice, slice]


@dataclass(frozen=True)
class Windows:
    """Windows over a periodic box, named by a linear index, int64, C order over `counts`.

    Args:
        shape: voxels of the box on x, y, z.
        window: voxels of a window on each axis.
        stride: the most voxels between the origins of neighbouring windows; they are spread evenly,
            so that strides differ by one voxel at most and close the box.
        block: voxels of a block on each axis; the last blocks are cut by the box's end.

    Raises:
        TilingError: a box smaller than a window, a stride below 1 or above the window.
    """

    shape: Triple
    window: int = 64
    stride: int = 16
    block: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.window:
            raise TilingError(
                f"windows of {self.window} voxels at a stride of {self.stride}: a stride must be"
                f" 1 to {self.window}, or voxels are left out"
            )
        if self.block < 1:
            raise TilingError(f"block is {self.block} voxels: at least 1 is needed")
        for axis, n in enumerate(self.shape):
            if n < self.window:
                raise TilingError(
                    f"box is {n} voxels on axis {AXES[axis]}, less than a window of {self.window}:"
                    f" haloes are predicted in windows of {self.window}^3 voxels; ingest the box"
                    f" with --grid {self.window} or more"
                )

    @cached_property
    def counts(self) -> Triple:
        """Number of windows on x, y, z."""
        x, y, z = (-(-n // self.stride) for n in self.shape)
        return x, y, z

    @property
    def size(self) -> int:
        """Number of windows."""
        nx, ny, nz = self.counts
        return nx * ny * nz

    @cached_property
    def blocks(self) -> Tiling:
        """The blocks as a tiling without overlaps; it ends behind the box where blocks are cut."""
        x, y, z = (-(-n // self.block) * self.block for n in self.shape)
        return Tiling((x, y, z), self.block, 0, (False, False, False))

    def origins(self, axis: int) -> Ints:
        """First voxel of every window along one axis, int64[n], ascending from 0."""
        n = self.counts[axis]
        return np.arange(n, dtype=np.int64) * self.shape[axis] // n

    def coords(self, windows: ArrayLike) -> Ints:
        """Index of each window on x, y, z: (M,) -> int64 (M, 3)."""
        return np.stack(np.unravel_index(np.asarray(windows, np.int64), self.counts), axis=-1)

    def origin(self, windows: ArrayLike) -> Ints:
        """First voxel of each window: (M,) -> int64 (M, 3), in [0, N) on each axis."""
        at = self.coords(windows)
        return np.stack([self.origins(a)[at[..., a]] for a in range(3)], axis=-1)

    # ---- windows and blocks ------------------------------------------------------------------

    @cached_property
    def _pieces(self) -> tuple[list[list[Piece]], ...]:
        def one(axis: int) -> list[list[Piece]]:
            found = []
            for origin in self.origins(axis).tolist():
                at, pieces = 0, []
                while at < self.window:
                    voxel = (origin + at) % self.shape[axis]
                    block, inside = divmod(voxel, self.block)
                    take = min(self.block - inside, self.shape[axis] - voxel, self.window - at)
                    pieces.append((block, slice(at, at + take), slice(inside, inside + take)))
                    at += take
                found.append(pieces)
            return found

        return one(0), one(1), one(2)

    def pieces(self, axis: int, index: int) -> list[Piece]:
        """Where a window of this index on one axis meets the blocks.

        A block is met twice where a window reaches round the whole box.
        """
        return self._pieces[axis][index]

    @cached_property
    def _blocks_of(self) -> tuple[Ints, Ints, Ints]:
        def one(axis: int) -> Ints:
            rows = [sorted({b for b, _, _ in pieces}) for pieces in self._pieces[axis]]
            table = np.full((len(rows), max(map(len, rows))), -1, np.int64)
            for row, found in zip(table, rows, strict=True):
                row[: len(found)] = found
            return table

        return one(0), one(1), one(2)

    def blocks_along(self, axis: int) -> Ints:
        """The blocks that windows of each index meet on one axis: int64 (n, K), -1 padded."""
        return self._blocks_of[axis]

    def blocks_of(self, windows: ArrayLike) -> Ints:
        """The blocks that each window adds to: (M,) -> int64 (M, W), -1 padded, none twice."""
        at = self.coords(windows)
        x, y, z = (table[at[:, a]] for a, table in enumerate(self._blocks_of))
        return _linear(x, y, z, self.blocks.counts)

    @cached_property
    def ordinals(self) -> Triple:
        """Most windows that touch one block, per axis."""
        x, y, z = (int(self._touching[axis].max()) for axis in range(3))
        return x, y, z

    @cached_property
    def _ordinals_of(self) -> tuple[Ints, Ints, Ints]:
        def one(axis: int) -> Ints:
            table = self._blocks_of[axis]
            found = np.full_like(table, -1)
            row, column = np.nonzero(table >= 0)
            order = np.argsort(table[row, column], kind="stable")
            row, column = row[order], column[order]
            block = table[row, column]
            found[row, column] = np.arange(len(block)) - np.searchsorted(block, block)
            return found

        return one(0), one(1), one(2)

    def ordinals_of(self, windows: ArrayLike) -> Ints:
        """Which of the windows that touch a block each one is, for its blocks in the order of
        `blocks_of`: (M,) -> int64 (M, W), 0 up to the product of `ordinals`, -1 padded."""
        at = self.coords(windows)
        x, y, z = (table[at[:, a]] for a, table in enumerate(self._ordinals_of))
        return _linear(x, y, z, self.ordinals)

    @cached_property
    def _touching(self) -> tuple[Ints, Ints, Ints]:
        def one(axis: int) -> Ints:
            table = self._blocks_of[axis]
            return np.bincount(table[table >= 0], minlength=self.blocks.counts[axis])

        return one(0), one(1), one(2)

    def touching(self, blocks: ArrayLike) -> Ints:
        """Number of windows that add to each block: (M,) -> int64 (M,)."""
        at = self.blocks.coords(blocks)
        x, y, z = (table[at[..., a]] for a, table in enumerate(self._touching))
        return x * y * z

    def over(self, blocks: ArrayLike) -> Ints:
        """All windows that add to any of these blocks, ascending, int64."""
        at = self.blocks.coords(blocks)
        x, y, z = (table[at[:, a]] for a, table in enumerate(self._over))
        found = np.unique(_linear(x, y, z, self.counts))
        return found[found >= 0]

    @cached_property
    def _over(self) -> tuple[Ints, Ints, Ints]:
        x, y, z = (_inverse(self._blocks_of[a], self.blocks.counts[a]) for a in range(3))
        return x, y, z

    def left(self, final: NDArray[np.bool_]) -> int:
        """Number of windows that touch a block that is not final; final: bool[blocks]."""
        found = ~final.reshape(self.blocks.counts)
        for axis in range(3):  # along one axis after the other: a window touches a cuboid of blocks
            table = self.blocks_along(axis)
            moved = np.moveaxis(found, axis, 0)
            below = moved[table] & (table >= 0).reshape(*table.shape, 1, 1)
            found = np.moveaxis(np.logical_or.reduce(below, axis=1), 0, axis)
        return int(np.count_nonzero(found))

    def coverage(self, axis: int, weights: ArrayLike) -> Ints:
        """Sum of the weights with which windows cover each voxel of one axis: int64[N].

        weights: int64[window]. The weight of a voxel of the box is the product over the axes.
        """
        total = np.zeros(self.shape[axis], np.int64)
        reach = np.arange(self.window)
        for origin in self.origins(axis).tolist():
            np.add.at(total, (origin + reach) % self.shape[axis], np.asarray(weights, np.int64))
        return total

    def inside(self, block: int) -> tuple[slice, slice, slice]:
        """The part of a block that lies in the box, as slices of the block."""
        at = self.blocks.coords(block)
        x, y, z = (
            slice(0, min(self.block, n - int(i) * self.block))
            for i, n in zip(at, self.shape, strict=True)
        )
        return x, y, z

    def describe(self) -> str:
        """One line for a person."""
        return (
            f"{' x '.join(map(str, self.counts))} = {self.size:,} windows of {self.window}^3 "
            f"voxels at a stride of {self.stride}, blocks of {self.block}^3"
        )


def _linear(x: Ints, y: Ints, z: Ints, counts: Triple) -> Ints:
    """Tables of one axis each, (M, K) with -1 where unused -> linear indices (M, Kx Ky Kz)."""
    x, y, z = x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]
    found = np.where((x < 0) | (y < 0) | (z < 0), -1, (x * counts[1] + y) * counts[2] + z)
    return found.reshape(len(found), found[:1].size if len(found) else 0)


class Gate:
    """Which tiles may be painted, as blocks become final.

    A tile waits for every block under it, `margin` voxels round it included. Whether it may be
    painted is asked of the blocks each time, so that a block named twice does no harm.

    Args:
        tiling: the tiles.
        windows: the blocks.
        margin: voxels round a tile that its painter reads.
        final: bool[blocks], those that are final already; kept up to date here.
    """

    def __init__(
        self, tiling: Tiling, windows: Windows, margin: int, final: NDArray[np.bool_]
    ) -> None:
        self._tiling = tiling
        self._grid = windows.blocks
        self.final = final
        edge = tiling.tile + 2 * margin
        self._under = [
            self._below(axis, edge, margin, windows.shape[axis], windows.block) for axis in range(3)
        ]
        self._over = [
            _inverse(table, n) for table, n in zip(self._under, self._grid.counts, strict=True)
        ]

    def _below(self, axis: int, edge: int, margin: int, n: int, block: int) -> Ints:
        reach = np.arange(min(edge, n)) - margin
        rows = [np.unique((o + reach) % n // block) for o in self._tiling.origins(axis).tolist()]
        table = np.full((len(rows), max(map(len, rows))), -1, np.int64)
        for row, found in zip(table, rows, strict=True):
            row[: len(found)] = found
        return table

    def blocks_under(self, tiles: ArrayLike) -> Ints:
        """The blocks that each tile waits for: (M,) -> int64 (M, W), -1 padded."""
        at = self._tiling.coords(tiles)
        x, y, z = (table[at[:, a]] for a, table in enumerate(self._under))
        return _linear(x, y, z, self._grid.counts)

    def tiles_over(self, blocks: ArrayLike) -> Ints:
        """The tiles that wait for each block: (M,) -> int64 (M, W), -1 padded."""
        at = self._grid.coords(blocks)
        x, y, z = (table[at[:, a]] for a, table in enumerate(self._over))
        return _linear(x, y, z, self._tiling.counts)

    def is_open(self, tiles: ArrayLike) -> NDArray[np.bool_]:
        """Whether all blocks under each tile are final: (M,) -> bool (M,)."""
        under = self.blocks_under(tiles)
        return np.all((under < 0) | self.final[under], axis=1)

    def close_blocks(self, blocks: ArrayLike) -> Ints:
        """These blocks are final: the tiles, ascending int64, that may be painted from here on."""
        self.final[np.asarray(blocks, np.int64)] = True
        over = np.unique(self.tiles_over(blocks))
        over = over[over >= 0]
        return over[self.is_open(over)]


def _inverse(table: Ints, count: int) -> Ints:
    """Of a table (n, K) of blocks, -1 padded: (count, L) of the rows that have each block."""
    row, column = np.nonzero(table >= 0)
    block = table[row, column]
    order = np.argsort(block, kind="stable")
    block, row = block[order], row[order]
    first = np.searchsorted(block, block)
    place = np.arange(len(block)) - first
    found = np.full((count, int(place.max()) + 1), -1, np.int64)
    found[block, place] = row
    return found
