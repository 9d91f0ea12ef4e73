"""Say who paints what: bricks of tiles, and the rank that owns each brick.

A brick is a cuboid of edge x edge x edge tiles that one rank paints and that is stored together;
the bricks at the high faces may be smaller. Bricks are strung along a Hilbert curve, which only
ever steps to a face neighbour, and each rank takes one run of it, so that its bricks hang together
and few of its tiles touch another rank's::

    +--+--+--+--+      curve      ranks
    |  |  |  |  |      1 2 F G    a a d d      slot of a tile in its brick: C order in
    +--+--+--+--+      4 3 E D    a a d d      edge x edge x edge, also where the brick is
    |  |  |  |  |      5 8 9 C    b b c c      smaller: the layout of its shard in the store
    +--+--+--+--+      6 7 A B    b b c c

The *address* of a tile is its brick's place on the curve times edge^3 plus its slot, so the tiles
of a rank are one contiguous range of addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigbox.scheduler.grid import Grid, Ints, triple
from bigbox.scheduler.tiling import Tiling

CellsT = TypeVar("CellsT", bound=Grid, covariant=True)


def hilbert(coords: ArrayLike, bits: int) -> Ints:
    """Place of each cell on a 3-D Hilbert curve: (M, 3) in [0, 2**bits) -> int64 (M,).

    Skilling 2004, "Programming the Hilbert curve" (AIP Conf. Proc. 707, 381): undo the excess
    rotations from the top bit down, Gray-encode, then interleave the bits.
    """
    x = [np.array(c, np.int64) for c in np.moveaxis(np.asarray(coords), -1, 0)]
    for level in range(bits - 1, 0, -1):
        q = 1 << level
        for i in range(3):
            inverted = (x[i] & q) != 0
            swap = np.where(inverted, 0, (x[0] ^ x[i]) & (q - 1))
            x[0] ^= np.where(inverted, q - 1, swap)
            x[i] ^= swap
    x[1] ^= x[0]
    x[2] ^= x[1]
    t = np.zeros_like(x[0])
    for level in range(bits - 1, 0, -1):
        q = 1 << level
        t ^= np.where(x[2] & q, q - 1, 0)
    place = np.zeros_like(t)
    for level in range(bits - 1, -1, -1):
        for i in range(3):
            place = (place << 1) | (((x[i] ^ t) >> level) & 1)
    return place


@dataclass(frozen=True)
class Bricks(Grid, Generic[CellsT]):
    """The tiles (or blocks) of a box in bricks of edge^3: a grid over tiles as others over voxels.

    Raises
    ------
    ValueError
        An edge below 1.
    """

    grid: CellsT
    edge: int

    def __post_init__(self) -> None:
        if self.edge < 1:
            raise ValueError(f"a brick has an edge of {self.edge} tiles: at least 1 is needed")
        object.__setattr__(self, "axes", Grid.regular(self.grid.counts, self.edge).axes)
        object.__setattr__(self, "shape", self.grid.counts)

    @property
    def slots(self) -> int:
        """Places for tiles in a brick, edge^3."""
        return self.edge**3

    @cached_property
    def cell_terms(self) -> tuple[Ints, Ints, Ints]:
        """Per axis, int64[n]: the three terms whose sum is brick * edge^3 + slot of a tile."""
        e, terms = self.edge, []
        for n, brick, slot in zip(self.shape, self.strides, (e * e, e, 1), strict=True):
            i = np.arange(n, dtype=np.int64)
            terms.append(i // e * brick * self.slots + i % e * slot)
            terms[-1].setflags(write=False)
        return triple(terms)

    def cell(self, tiles: ArrayLike) -> Ints:
        """Return brick * edge^3 + slot: (M,) -> int64 (M,)."""
        i, j, k = np.unravel_index(np.asarray(tiles, np.int64), self.grid.counts)
        x, y, z = self.cell_terms
        return x[i] + y[j] + z[k]

    def of_tile(self, tiles: ArrayLike) -> Ints:
        """Return the brick of each tile: (M,) -> int64 (M,)."""
        return self.cell(tiles) // self.slots

    def slot(self, tiles: ArrayLike) -> Ints:
        """Place of each tile in its brick, C order in edge^3: (M,) -> int64 (M,)."""
        return self.cell(tiles) % self.slots

    def tiles(self, bricks: ArrayLike) -> Ints:
        """Return the tiles of one brick or of several, each in order of its slots, int64."""
        at = self.coords(bricks)[..., None, :] * self.edge
        at = at + np.stack(np.unravel_index(np.arange(self.slots), (self.edge,) * 3), axis=-1)
        nx, ny, nz = self.grid.counts
        tile = (at[..., 0] * ny + at[..., 1]) * nz + at[..., 2]
        return tile[(at < (nx, ny, nz)).all(axis=-1)]

    def tile_counts(self) -> Ints:
        """Return the number of tiles in every brick, int64[size]."""
        x, y, z = (axis.length for axis in self.axes)
        return (x[:, None, None] * y[:, None] * z).ravel()

    @cached_property
    def curve(self) -> Ints:
        """All bricks in the order of the Hilbert curve, int64[size]."""
        bits = max(1, (max(self.counts) - 1).bit_length())
        order = np.argsort(hilbert(self.coords(np.arange(self.size)), bits), kind="stable")
        order.setflags(write=False)
        return order

    @cached_property
    def columns(self) -> Ints:
        """Bricks in columns along x, the columns along a Hilbert curve too: int64[bricks]."""
        at = self.coords(np.arange(self.size))
        bits = max(1, (max(self.counts[1:]) - 1).bit_length())
        across = hilbert(at * (0, 1, 1), bits)
        order = np.lexsort((at[:, 0], across))
        order.setflags(write=False)
        return order


@dataclass(frozen=True)
class Assignment:
    """Which rank paints which bricks: runs of a curve with equal numbers of tiles, to one brick.

    With more ranks than bricks some ranks have nothing to paint. columns: ranks have whole columns
    of bricks along x, so that a front can sweep through all ranks at once (see
    `bigbox.scheduler.steps`); else bricks of the Hilbert curve.

    Raises
    ------
    ValueError
        Fewer than one rank.
    """

    bricks: Bricks[Tiling]
    n_ranks: int
    columns: bool = False

    def __post_init__(self) -> None:
        if self.n_ranks < 1:
            raise ValueError(f"{self.n_ranks} ranks: at least 1 is needed")

    @property
    def tiling(self) -> Tiling:
        """The tiles that are assigned."""
        return self.bricks.grid

    @property
    def curve(self) -> Ints:
        """Bricks in the order that ranks have runs of, int64[bricks]."""
        return self.bricks.columns if self.columns else self.bricks.curve

    @cached_property
    def _through(self) -> Ints:
        """Tiles before each place on the curve, and all of them."""
        per_brick = self.bricks.tile_counts()[self.curve]
        return np.concatenate([[0], np.cumsum(per_brick)])

    @cached_property
    def starts(self) -> Ints:
        """First place on the curve of each rank, int64[n_ranks + 1], the last is the end."""
        # The cut nearest to the equal share, in integers so that every machine cuts alike.
        through = self._through
        share = 2 * through * self.n_ranks
        middle = (share[1:] + share[:-1]) // 2
        total = 2 * int(through[-1])
        cuts = np.searchsorted(middle, np.arange(self.n_ranks + 1, dtype=np.int64) * total)
        if self.columns:
            along = self.bricks.counts[0]
            cuts = (cuts + along // 2) // along * along
        cuts[0], cuts[-1] = 0, self.bricks.size
        cuts.setflags(write=False)
        return cuts.astype(np.int64)

    @cached_property
    def place(self) -> NDArray[np.int32]:
        """Place of each brick on the curve, int32[bricks], the inverse of `curve`."""
        place = np.empty(self.bricks.size, np.int32)
        place[self.curve] = np.arange(self.bricks.size, dtype=np.int32)
        place.setflags(write=False)
        return place

    @cached_property
    def brick_rank(self) -> NDArray[np.int32]:
        """Rank of each brick, int32[bricks]."""
        ranks = np.repeat(np.arange(self.n_ranks, dtype=np.int32), np.diff(self.starts))
        found = ranks[self.place]
        found.setflags(write=False)
        return found

    def rank_of(self, tiles: ArrayLike) -> NDArray[np.int32]:
        """Return the rank that paints each tile: (M,) -> int32 (M,)."""
        return self.brick_rank[self.bricks.of_tile(tiles)]

    def rank_of_middle(self, grid: Grid) -> NDArray[np.int32]:
        """Return the rank that paints the tile at the middle of each item: int32 (items,).

        It is the one writer of a shard.
        """
        tiles = zip(self.tiling.owned_grid.axes, grid.axes, self.bricks.cell_terms, strict=True)
        x, y, z = (term[own.holding(axis.middle)] for own, axis, term in tiles)
        cell = (x[:, None, None] + y[:, None] + z).ravel()
        return self.brick_rank[cell // self.bricks.slots]

    def address(self, tiles: ArrayLike) -> Ints:
        """Place of the brick on the curve * edge^3 + slot: (M,) -> int64 (M,)."""
        brick, slot = np.divmod(self.bricks.cell(tiles), self.bricks.slots)
        return self.place[brick] * np.int64(self.bricks.slots) + slot

    def bricks_of(self, rank: int) -> Ints:
        """Return the bricks of a rank in the order of the curve, int64."""
        return self.curve[self.starts[rank] : self.starts[rank + 1]]

    def tiles_of(self, rank: int) -> Ints:
        """Return the tiles of a rank, int64, in the order of their addresses."""
        return self.bricks.tiles(self.bricks_of(rank))

    def counts(self) -> Ints:
        """Return the number of tiles of every rank, int64[n_ranks]."""
        return np.diff(self._through[self.starts])


def default_edge(tiling: Tiling, n_ranks: int = 1) -> int:
    """Tiles along a brick, for a box that so many ranks will mostly paint.

    The largest of 8, 4, 2 that leaves 4 bricks on the longest axis and gives no rank more than
    1.05 times its share of the tiles; 1 where none does.
    """
    longest = max(tiling.counts)
    for edge in (8, 4, 2):
        if -(-longest // edge) < 4:
            continue
        most = int(Assignment(Bricks(tiling, edge), n_ranks).counts().max())
        if most * n_ranks <= 1.05 * tiling.size:
            return edge
    return 1


def default_shard(longest: int) -> tuple[int, int]:
    """Return (shard, inner chunk) edges in voxels of the arrays of a box of so many on an axis."""
    if longest <= 256:
        return 64, 32
    if longest <= 1024:
        return 128, 32
    return 256, 64
