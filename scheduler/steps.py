"""Order the denoising steps of tiles that are painted together: a node is a (tile, step).

All tiles are parts of one noisy field. A node takes a tile one denoising step on. It needs the
field under the tile's whole cube as the step before left it, and makes it anew in the tile's core::

    steps  2  .   #   .   .        # needs the three below it (27 in three dimensions). Tiles that
    done   1  #   #   #   .        touch differ by one step at most, so a tile keeps the field of
           0  o   o   o   o        two steps, until all that touch it have used it
              x ->

There are no objects for nodes. A node's number is tile * steps + (steps done before), and what it
waits for is arithmetic on the tile. A rank holds eleven bytes for each cell of the cuboid round
its tiles and those of others that touch them.

Which of the nodes that can run is taken first is a choice between two orders:

    by step   all tiles take one step after the other: all of a rank's field is alive, and ranks
              wait for one another least
    front     a front of `steps` tiles sweeps along x, finished behind it and untouched before it:
              only the field at the front, and at the place where it began, is alive. Ranks have
              columns of tiles, and go along x side by side
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.grid import Ints, distinct
from bigbox.scheduler.meeting import NONE, Gate
from bigbox.scheduler.orders import GatedOrder, Mail, Outcome, other_ranks
from bigbox.scheduler.together import Counts, Together


class _Cuboid:
    """The cells of a rank's tiles and of all tiles near them, numbered on their own.

    Only the indices that occur on each axis count, so a region that wraps round the box is as small
    as any. They begin behind the widest gap.
    """

    def __init__(self, together: Together, tiles: Ints) -> None:
        self.tiling = together.tiling
        axes = zip(self.tiling.counts, together.near.axes, strict=True)
        own = self.tiling.coords(tiles)
        self._at: list[Ints] = []  # of every index on an axis: the one here, -1 for none
        self._of: list[Ints] = []  # back
        self._near: list[Ints] = []  # of every index here: those near it, NONE for none
        for a, (count, axis) in enumerate(axes):
            near = axis.table[distinct(own[:, a])]
            index = distinct(near[near >= 0])
            gap = np.diff(index, append=index[:1] + count)
            index = np.roll(index, -1 - int(np.argmax(gap)) if len(gap) else 0)
            at = np.full(count + 1, -1, np.int64)  # the last one stands for none
            at[index] = np.arange(len(index))
            self._at.append(at)
            self._of.append(index)
            self._near.append(at[axis.table[index]])
        ny, nz = len(self._of[1]), len(self._of[2])
        self.strides = (ny * nz, nz, 1)
        self.size = len(self._of[0]) * ny * nz
        self._addends = [
            np.where(near < 0, NONE, near * step)
            for near, step in zip(self._near, self.strides, strict=True)
        ]

    def cells(self, tiles: ArrayLike) -> Ints:
        """Return the cell of each tile, below 0 for one that is not here: (M,) -> int64 (M,)."""
        at = self.tiling.coords(tiles)
        parts = [index[at[..., a]] for a, index in enumerate(self._at)]
        found = sum(p * step for p, step in zip(parts, self.strides, strict=True))
        return np.where(np.min(parts, axis=0) < 0, -1, found)

    def coords(self, cells: Ints) -> list[Ints]:
        """Return where cells are in the cuboid, x, y, z: three of (M,)."""
        x, rest = np.divmod(cells, self.strides[0])
        return [x, *np.divmod(rest, self.strides[1])]

    def tiles(self, cells: Ints) -> Ints:
        """Return the tile of each cell: (M,) -> int64 (M,)."""
        at = [index[i] for index, i in zip(self._of, self.coords(cells), strict=True)]
        return self.tiling.index(np.stack(at, axis=-1))

    def near(self, cells: Ints) -> Ints:
        """Return the cells near each, itself included, -1 for none: int64 (M, W)."""
        x, y, z = (t[i] for t, i in zip(self._addends, self.coords(cells), strict=True))
        found = np.maximum(x[:, :, None, None] + y[:, None, :, None] + z[:, None, None, :], -1)
        return found.reshape(len(cells), x.shape[1] * y.shape[1] * z.shape[1])


def _parts(cells: Ints) -> Iterator[Ints]:
    """Yield some cells at a time: each has up to 27 near it, in several temporary arrays."""
    for i in range(0, len(cells), 1 << 12):
        yield cells[i : i + (1 << 12)]


class StepOrder(GatedOrder):
    """One rank's nodes, each once what it needs is there.

    Parameters
    ----------
    together : which tiles share voxels.
    steps : of each tile.
    batch : nodes that are taken at once.
    goals : int16 (tiles of the box,), steps that each must take, see `Together.goals`.
    begun : int16 (tiles of the box,), steps that earlier runs have left of each; None: none.
    gate, reads : which tiles may begin, as chunks of the product `reads` become final.

    Where the assignment is in columns a front sweeps through them. greetings: begun nodes that
    other ranks have to be told of.
    """

    def __init__(
        self,
        together: Together,
        assignment: Assignment,
        rank: int,
        steps: int,
        batch: int,
        goals: Counts,
        begun: Counts | None = None,
        product: str = "painted",
        gate: Gate | None = None,
        reads: str = "",
    ) -> None:
        super().__init__(assignment, rank, gate, reads)
        self.steps, self.batch, self.product = steps, batch, product
        tiles = assignment.tiles_of(rank)
        tiles = tiles[goals[tiles] > 0]
        self._cuboid = cuboid = _Cuboid(together, tiles)
        self._goal = np.zeros(cuboid.size, np.int16)
        self._level = np.zeros(cuboid.size, np.int16)
        self._own = np.zeros(cuboid.size, bool)
        self._awaited = np.zeros(cuboid.size, bool)  # own tiles near those of other ranks
        self._missing = np.zeros(cuboid.size, np.int16)
        self._users = np.zeros(cuboid.size, np.int16)  # own tiles near it that are not finished
        own = np.sort(cuboid.cells(tiles))
        self._own[own] = True
        for cells in _parts(np.arange(cuboid.size)):
            there = cuboid.tiles(cells)
            self._goal[cells] = goals[there]
            if begun is not None:
                self._level[cells] = np.minimum(begun[there], self._goal[cells])
        self.greetings: list[Mail] = [] if begun is None else list(self._greet())
        self.alive = self.most_alive = 0  # tiles here, of any rank, whose field is kept
        self._left = int((self._goal - self._level)[own].sum())
        self._heap: list[int] = []
        self._unused: list[Ints] = []
        unfinished = self._own & (self._level < self._goal)
        for cells in _parts(own):
            near = cuboid.near(cells)
            self._missing[cells] = self._count_missing(cells, near)
            self._awaited[cells] = np.any((near >= 0) & ~self._own[near], axis=1)
        for cells in _parts(np.arange(cuboid.size)):
            near = cuboid.near(cells)
            self._users[cells] = np.sum((near >= 0) & unfinished[near], axis=1)
        self._closed = self._own.copy()
        for cells in _parts(own):
            there = cuboid.tiles(cells)
            self.opened(there if gate is None else there[gate.is_open(there)])

    @property
    def remaining(self) -> int:
        """Return the nodes of this rank that are not done."""
        return self._left

    @property
    def size(self) -> int:
        """Return the tiles, of any rank, whose field can come up here."""
        return int(np.count_nonzero(self._goal))

    def split(self, nodes: Ints) -> tuple[Ints, Ints]:
        """Return tile and steps done before of each node: int64 (M,) each."""
        tile, level = np.divmod(nodes, self.steps)
        return tile, level

    def next_batch(self, idle: bool) -> Ints:
        """Return the nodes that come first; a batch that is not full if `idle`."""
        if len(self._heap) < self.batch and not (idle and self._heap):
            return np.empty(0, np.int64)
        few = min(self.batch, len(self._heap))
        cells = np.array([heapq.heappop(self._heap) & _CELL for _ in range(few)], np.int64)
        return self._cuboid.tiles(cells) * self.steps + self._level[cells]

    def done(self, units: Ints) -> Outcome:
        """Note nodes that are done: tiles that are finished, and mail for ranks that wait."""
        tiles, level = self.split(units)
        cells = self._cuboid.cells(tiles)
        self._missing[cells] = _MANY  # whatever the others are; counted anew below
        self._advance(cells)
        self._left -= len(units)
        near = self._cuboid.near(cells)
        self._missing[cells] = self._count_missing(cells, near)
        self._push(cells)
        over = cells[self._level[cells] == self._goal[cells]]
        if len(over):
            used = self._cuboid.near(over)
            used = used[used >= 0]
            np.subtract.at(self._users, used, 1)
            used = distinct(used)
            free = used[self._users[used] == 0]
            self.alive -= int(np.count_nonzero(self._level[free] > 0))
            self._unused.append(free)
        return Outcome(tiles[level + 1 == self.steps], list(self._mail(units, cells, near)))

    def _mail(self, units: Ints, cells: Ints, near: Ints) -> Iterator[Mail]:
        """Yield the nodes that each other rank waits for."""
        some = np.flatnonzero(self._awaited[cells])
        if not len(some):
            return
        near, level = near[some], self._level[cells[some], None]
        wait = (near >= 0) & ~self._own[near] & (self._goal[near] > level)
        table = np.full(near.shape, -1, np.int64)
        table[wait] = self._cuboid.tiles(near[wait])
        rows, ranks = other_ranks(table, self.assignment.rank_of, self.rank)
        for rank in np.unique(ranks).tolist():
            yield Mail(rank, units[some[rows[ranks == rank]]])

    def _greet(self) -> Iterator[Mail]:
        """Yield begun nodes that other ranks need; take back as much of theirs, until they come."""
        begun = self._level.copy()
        # A tile at most once in a mail: its nodes come one after the other.
        mail: dict[tuple[int, int], list[int]] = defaultdict(list)
        for cells in _parts(np.flatnonzero(begun > 0)):
            near = self._cuboid.near(cells)
            across = (near >= 0) & (self._own[near] != self._own[cells, None])
            across &= begun[near] < self._goal[near]
            for row in np.flatnonzero(across.any(axis=1)).tolist():
                cell, readers = int(cells[row]), near[row, across[row]]
                tile = int(self._cuboid.tiles(cells[row : row + 1])[0])
                ranks = self.assignment.rank_of(self._cuboid.tiles(readers))
                if not self._own[cell]:
                    ranks[:] = self.rank
                for rank in np.unique(ranks).tolist():
                    first = max(1, int(begun[readers[ranks == rank]].min()))
                    if first > begun[cell]:
                        continue
                    if not self._own[cell]:
                        self._level[cell] = first - 1
                        continue
                    for number, level in enumerate(range(first, int(begun[cell]) + 1)):
                        mail[rank, number].append(tile * self.steps + level - 1)
        for (rank, _), nodes in sorted(mail.items()):
            yield Mail(rank, np.array(nodes, np.int64))

    @property
    def neighbours(self) -> list[int]:
        """Other ranks with tiles near those of this one."""
        others = np.flatnonzero(~self._own & (self._goal > 0))
        ranks = self.assignment.rank_of(self._cuboid.tiles(others))
        return sorted({*ranks.tolist()} - {self.rank})

    def waiting_on(self, rank: int, tile: int, level: int) -> Ints:
        """Return the tiles of another rank that need a tile's field after `level` steps."""
        near = self._cuboid.near(self._cuboid.cells([tile]))[0]
        near = near[(near >= 0) & ~self._own[near] & (self._goal[near] > level)]
        tiles = self._cuboid.tiles(near)
        return tiles[self.assignment.rank_of(tiles) == rank]

    def receive(self, what: Ints) -> Outcome:
        """Take note of nodes that another rank has done."""
        self._advance(self._cuboid.cells(self.split(what)[0]))
        return Outcome(np.empty(0, np.int64))

    def unused(self) -> Ints:
        """Return tiles, of any rank, whose field nobody here needs any more, each once."""
        free, self._unused = self._unused, []
        return self._cuboid.tiles(np.concatenate([np.empty(0, np.int64), *free]))

    def _advance(self, cells: Ints) -> None:
        """Take tiles one step on; own tiles that waited for just that may run."""
        self.alive += int(np.count_nonzero(self._level[cells] == 0))
        self.most_alive = max(self.most_alive, self.alive)
        self._level[cells] += 1
        near = self._cuboid.near(cells)
        hit = (near >= 0) & self._own[near] & (self._level[near] == self._level[cells, None])
        hit &= near != cells[:, None]
        found = near[hit]
        np.subtract.at(self._missing, found, 1)
        found = distinct(found)
        self._push(found)

    def _count_missing(self, cells: Ints, near: Ints) -> Counts:
        behind = (near >= 0) & (self._level[near] < self._level[cells, None])
        return behind.sum(axis=1, dtype=np.int16)

    def opened(self, tiles: Ints) -> None:
        """Note tiles whose input is final; those that are not here, or named again, do nothing."""
        cells = self._cuboid.cells(tiles)
        cells = cells[cells >= 0]
        cells = cells[self._closed[cells]]
        self._closed[cells] = False
        self._push(cells)

    def _push(self, cells: Ints) -> None:
        """Queue the next nodes of own tiles, where these can run."""
        cells = cells[(self._missing[cells] == 0) & (self._level[cells] < self._goal[cells])]
        cells = cells[~self._closed[cells]]
        for key in self._keys(cells):
            heapq.heappush(self._heap, key)

    def _keys(self, cells: Ints) -> list[int]:
        """Return what decides which node comes first; its low bits are the cell."""
        level = self._level[cells].astype(np.int64)
        x, y, z = self._cuboid.coords(cells)
        first = (x + level if self.assignment.columns else level) * 2 + ~self._awaited[cells]
        second = ((y + level) << 20) + z + level
        rows = zip(first.tolist(), second.tolist(), cells.tolist(), strict=True)
        return [a << 76 | b << 36 | cell for a, b, cell in rows]


# Bits of a key that are the cell.
_CELL = (1 << 36) - 1
_MANY = 1 << 14
