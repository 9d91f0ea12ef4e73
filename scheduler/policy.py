"""Decide in which order a rank paints its tiles: a pure object, fed with events, asked for batches.

::

      restore(tiles)  painted by an earlier run ---+
      done(tiles)     painted by this rank      ---+--> Policy --> next_batch(k)
      arrived(tiles)  painted by another rank   ---+
      opened(tiles)   their input is there      ---+    (only where tiles are gated)

A tile of this rank goes through four states::

      WAITING -- last predecessor in hand --> READY -- next_batch --> IN_FLIGHT -- done --> DONE
                 (and its input, if gated)

The order has three classes. First the tiles for which a starved rank waits, directly or through
others: one with few tiles that it can paint before others have painted theirs, as next to the last,
odd tile of a ring. Then the tiles for which any other rank waits, so that none is kept waiting for
long, and last the inner tiles, which are there to be painted while overlaps travel. Each class goes
brick by brick, so that whole chains are finished early and the front of tiles whose overlaps must
be kept stays short; in a brick first those with the longest chains of tiles behind them. A rank of
few tiles takes them as one brick: else the last ones come one by one, and its cores wait for full
batches (125 tiles in fours on two cores: 8 % of the time, so 2 %).

That order never changes, so it is the layout of the state itself: one byte per tile in order of
priority, and the next ready tile is the next byte of one value (`bytearray.find`). A tile waits on
a bit per predecessor, and one more for its input where that is still being made (`gated`);
clearing a bit twice does nothing, which makes repeated messages harmless.
Few tiles at a time are handled in plain Python, many in numpy: the results are the same.
"""

from __future__ import annotations

from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.grid import CHUNK, Ints, distinct, distinct_pairs, in_chunks
from bigbox.scheduler.stages import followers
from bigbox.scheduler.tables import tables_of

WAITING, READY, IN_FLIGHT, DONE = range(4)
STATES = ("waiting", "ready", "in flight", "done")

# Up to so many tiles, plain Python is faster than the fixed cost of numpy's calls.
FEW = 24

# A rank of so many tiles or fewer takes them as one brick; their overlaps are some 50 MB.
ONE_BRICK = 1024


class Policy:
    """The order in which one rank paints its tiles.

    Pure and deterministic: the batches depend on the events and on nothing else. Holds about ten
    bytes per tile of the rank, and nothing about the tiles of others.

    Parameters
    ----------
    gated : every tile also waits until it is named by `opened`.

    Attributes
    ----------
    ready, remaining : own tiles that could be painted now, and those that are not done.

    Raises
    ------
    ValueError
        A rank or a colouring that does not exist; later, an event that contradicts the state, as a
        tile of another rank that is done. The message names the tile, and nothing has changed.
    """

    def __init__(
        self, assignment: Assignment, rank: int, colouring: str = "levels", gated: bool = False
    ) -> None:
        if not 0 <= rank < assignment.n_ranks:
            raise ValueError(f"rank {rank} does not exist: there are {assignment.n_ranks} ranks")
        self.assignment = assignment
        self.rank = rank
        self._tables = tables_of(assignment, colouring)
        self._few = FEW
        self._slots = assignment.bricks.slots
        # Addresses of this rank: [first, first + span).
        start, stop = (int(s) for s in assignment.starts[rank : rank + 2])
        self._first = start * self._slots
        self._span = (stop - start) * self._slots
        tiles = assignment.tiles_of(rank)
        n = len(tiles)
        wait = np.empty(n, self._tables.wait_type)
        behind = np.empty(n, np.uint8)
        urgency = np.zeros(n, np.uint8)
        local = np.empty(n, np.int64)
        for i in range(0, n, CHUNK):
            part = slice(i, i + CHUNK)
            t = tiles[part]
            wait[part] = self._tables.initial(t)
            behind[part] = followers(self._tables.tiling, t)
            urgency[part] = self._urgency(t)
            local[part] = assignment.address(t) - self._first
        bricks_here = stop - start
        key = (urgency.max(initial=0) - urgency.astype(np.int64)) * bricks_here
        if n > ONE_BRICK:
            key += local // self._slots
        key = key * 8 - behind
        order = np.argsort(key, kind="stable")
        # From here on everything is indexed by priority; tiles before `_inner` are awaited.
        self._inner = int(np.count_nonzero(urgency))
        small = assignment.tiling.size < 2**31
        self._tile = tiles[order].astype(np.int32 if small else np.int64)
        self._at = np.full(self._span, -1, np.int32)
        self._at[local[order]] = np.arange(n)
        self._wait = wait[order] | (self._tables.gate if gated else self._tables.wait_type.type(0))
        self._state = bytearray(np.where(self._wait == 0, READY, WAITING).astype(np.uint8))
        self._states = np.frombuffer(self._state, np.uint8)
        self.ready = int(np.count_nonzero(self._wait == 0))
        self.remaining = n
        self._started = False
        # No tile before these is ready, in either class.
        self._low_awaited, self._low_inner = 0, self._inner
        self._at_view, self._wait_view = self._at.data, self._wait.data

    def readers(self, tiles: ArrayLike) -> tuple[Ints, NDArray[np.int32]]:
        """Return rows of own `tiles` and the other ranks that wait for them: int64, int32 (K,)."""
        tiles = np.asarray(tiles, np.int64)
        local, own = self._local(tiles)
        self._refuse(tiles, ~own, f"is not one of rank {self.rank}")
        outer = np.flatnonzero(self._at[local] < self._inner)
        if not outer.size:
            return outer, np.empty(0, np.int32)
        rows, cell, _ = self._tables.steps(tiles[outer])
        ranks = self.assignment.brick_rank[cell // self._slots]
        other = ranks != self.rank
        return distinct_pairs(outer[rows[other]], ranks[other])

    def restore(self, done: ArrayLike) -> None:
        """Note tiles of any rank painted by an earlier run, before the first batch.

        Tiles named twice, and tiles that are of no interest to this rank, have no further effect.
        """
        if self._started:
            raise ValueError("tiles can be restored only before the first batch is handed out")
        self.leave_out(done)
        for part in in_chunks(np.asarray(done, np.int64)):
            self._release(part[self._near[self.assignment.bricks.of_tile(part)]])

    def leave_out(self, tiles: ArrayLike) -> None:
        """Note tiles that are not to be painted, before the first batch; none waits for them."""
        for part in in_chunks(np.asarray(tiles, np.int64)):
            local, own = self._local(part)
            p = distinct(self._at[local[own]])
            before = self._states[p]
            self.ready -= int(np.count_nonzero(before == READY))
            self.remaining -= int(np.count_nonzero(before != DONE))
            self._states[p] = DONE

    def done(self, tiles: ArrayLike) -> None:
        """Note own tiles that are painted: handed out before, and each once."""
        tiles = np.asarray(tiles, np.int64)
        if len(tiles) <= self._few:
            self._done_few(tiles.tolist())
            return
        local, own = self._local(tiles)
        self._refuse(tiles, ~own, f"is done, but is not one of rank {self.rank}")
        p = self._at[local]
        for wrong in np.flatnonzero(self._states[p] != IN_FLIGHT)[:1]:
            self._contradict(int(tiles[wrong]), self._state[p[wrong]])
        if len(distinct(p)) != len(p):
            values, times = np.unique(tiles, return_counts=True)
            self._contradict(int(values[times > 1][0]), DONE)
        self._states[p] = DONE
        self.remaining -= len(p)
        self._release(tiles)

    def arrived(self, tiles: ArrayLike) -> None:
        """Note tiles of other ranks whose overlaps are in hand; named again, they do nothing."""
        tiles = np.asarray(tiles, np.int64)
        if len(tiles) <= self._few:
            numbers = tiles.tolist()
            cells = [self._cell(t) for t in numbers]
            for t, cell in zip(numbers, cells, strict=True):
                if 0 <= self._local_of(cell) < self._span:
                    raise ValueError(f"tile {t} arrived, but is rank {self.rank}'s own")
            for t, cell in zip(numbers, cells, strict=True):
                self._release_one(t, cell)
            return
        _, own = self._local(tiles)
        self._refuse(tiles, own, f"arrived, but is rank {self.rank}'s own")
        self._release(tiles)

    def opened(self, tiles: ArrayLike) -> None:
        """Note tiles whose input is there; those of other ranks, or named again, do nothing."""
        for part in in_chunks(np.asarray(tiles, np.int64)):
            local, own = self._local(part)
            p = self._at[local[own]]
            self._clear(p, np.full(len(p), self._tables.gate))

    def next_batch(self, k: int, partial: bool) -> Ints:
        """Return the k ready tiles of the highest priority, now in flight: int64[<= k].

        Empty if fewer than k are ready, unless `partial` takes what there is.
        """
        if k < 1:
            raise ValueError(f"a batch of {k} tiles was asked for: at least 1 is needed")
        if self.ready < k:
            if not partial or not self.ready:
                return np.empty(0, np.int64)
            k = self.ready
        self._started = True
        state, find = self._state, self._state.find
        picked: list[int] = []
        p = find(READY, self._low_awaited, self._inner)
        while p >= 0 and len(picked) < k:
            state[p] = IN_FLIGHT
            picked.append(p)
            p = find(READY, p + 1, self._inner)
        self._low_awaited = self._inner if p < 0 else p
        if len(picked) < k:
            p = self._low_inner - 1
            while len(picked) < k:
                p = find(READY, p + 1)
                state[p] = IN_FLIGHT
                picked.append(p)
            self._low_inner = p + 1
        self.ready -= k
        return self._tile[picked].astype(np.int64)

    @cached_property
    def _near(self) -> NDArray[np.bool_]:
        """Bricks that are this rank's or touch one of them, bool[bricks]."""
        bricks = self.assignment.bricks
        near = np.zeros(bricks.counts, bool)
        at = bricks.coords(self.assignment.bricks_of(self.rank))
        for step in product((-1, 0, 1), repeat=3):
            x, y, z = np.moveaxis((at + np.array(step)) % bricks.counts, -1, 0)
            near[x, y, z] = True
        return near.ravel()

    def _urgency(self, tiles: Ints) -> NDArray[np.uint8]:
        """2 where a starved rank waits for the tile, through others too, 1 where another does."""
        rank_of, starved = self.assignment.brick_rank, self._tables.starved
        found = np.zeros(len(tiles), np.uint8)
        if self.assignment.n_ranks == 1:
            return found
        if self._tables.colouring == "levels":
            waiting = self._tables.cone(tiles)
        else:
            rows, cell, _ = self._tables.steps(tiles)
            waiting = iter([(rows, cell)])
        for rows, cell in waiting:
            rank = rank_of[cell // self._slots]
            urgency = np.where(rank == self.rank, 0, 1 + starved[rank]).astype(np.uint8)
            np.maximum.at(found, rows, urgency)
        return found

    def _local(self, tiles: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """Address relative to the rank's first, and whether the tile is the rank's own."""
        local = self.assignment.address(tiles) - self._first
        return local, (local >= 0) & (local < self._span)

    def _cell(self, tile: int) -> int:
        nx, ny, nz = self._tables.tiling.counts
        if not 0 <= tile < nx * ny * nz:
            raise ValueError(f"tile {tile} does not exist: there are {nx * ny * nz} tiles")
        x, y, z = self._tables.cell_lists
        return int(x[tile // (ny * nz)] + y[tile // nz % ny] + z[tile % nz])

    def _local_of(self, cell: int) -> int:
        brick, slot = divmod(cell, self._slots)
        return self._tables.place[brick] * self._slots + slot - self._first

    def _refuse(self, tiles: Ints, wrong: NDArray[np.bool_], why: str) -> None:
        if wrong.any():
            raise ValueError(f"tile {tiles[wrong][0]} {why}")

    def _contradict(self, tile: int, state: int) -> None:
        if state == DONE:
            raise ValueError(f"tile {tile} is done twice")
        raise ValueError(f"tile {tile} is done, but was never handed out: it is {STATES[state]}")

    def _done_few(self, tiles: list[int]) -> None:
        cells, places = [], []
        for t in tiles:
            cell = self._cell(t)
            local = self._local_of(cell)
            if not 0 <= local < self._span:
                raise ValueError(f"tile {t} is done, but is not one of rank {self.rank}")
            p = self._at_view[local]
            if self._state[p] != IN_FLIGHT:
                self._contradict(t, self._state[p])
            if p in places:
                self._contradict(t, DONE)
            cells.append(cell)
            places.append(p)
        for t, cell, p in zip(tiles, cells, places, strict=True):
            self._state[p] = DONE
            self._release_one(t, cell)
        self.remaining -= len(tiles)

    def _release_one(self, tile: int, cell: int) -> None:
        """Clear the bit of one painted tile in the own tiles that wait for it."""
        place, slots, first, span = self._tables.place, self._slots, self._first, self._span
        for shift, bit in self._tables.steps_of(tile, cell):
            brick, slot = divmod(cell + shift, slots)
            local = place[brick] * slots + slot - first
            if not 0 <= local < span:
                continue
            p = self._at_view[local]
            left = self._wait_view[p] & ~bit
            self._wait_view[p] = left
            if not left and self._state[p] == WAITING:
                self._state[p] = READY
                self.ready += 1
                if self._inner <= p < self._low_inner:
                    self._low_inner = p
                elif p < self._low_awaited:
                    self._low_awaited = p

    def _release(self, tiles: Ints) -> None:
        """Do the same for many tiles."""
        _, cell, bit = self._tables.steps(tiles)
        brick, slot = np.divmod(cell, self._slots)
        local = self.assignment.place[brick] * np.int64(self._slots) + slot - self._first
        own = (local >= 0) & (local < self._span)
        self._clear(self._at[local[own]], bit[own])

    def _clear(self, p: NDArray[np.int32], bit: NDArray[np.unsignedinteger]) -> None:
        """Clear bits of what tiles wait for; tiles that wait for nothing more are ready."""
        np.bitwise_and.at(self._wait, p, ~bit)
        free = distinct(p[(self._wait[p] == 0) & (self._states[p] == WAITING)])
        if not free.size:
            return
        self._states[free] = READY
        self.ready += len(free)
        self._low_awaited = min(self._low_awaited, int(free[0]))
        inner = np.searchsorted(free, self._inner)
        if inner < len(free):
            self._low_inner = min(self._low_inner, int(free[inner]))
