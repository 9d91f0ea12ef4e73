"""Decide which rank predicts which windows, in which order, and when a block is complete."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigbox.scheduler.bricks import Assignment, Bricks, hilbert
from bigbox.scheduler.grid import Grid, Ints, find
from bigbox.scheduler.orders import Mail, Order, Outcome
from bigbox.scheduler.windows import Windows

Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class WindowsDone:
    """What earlier runs have done: final blocks, and sums over some of the windows of others.

    Parameters
    ----------
    final : bool (blocks,).
    blocks : blocks that are not final and of which there are sums, ascending.
    included : bool (len(blocks), windows.most_per_block), the windows that are in them, by
        `windows.meeting.places`.
    """

    windows: Windows
    final: Bool
    blocks: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    included: Bool = field(default_factory=lambda: np.empty((0, 0), bool))

    @classmethod
    def nothing(cls, windows: Windows) -> WindowsDone:
        """Return that nothing is done yet."""
        return cls(windows, np.zeros(windows.blocks.size, bool))

    @cached_property
    def anything(self) -> bool:
        """Whether anything is done."""
        return bool(self.final.any()) or len(self.blocks) > 0

    def awaited(self, windows: ArrayLike) -> Bool:
        """Return whether each block of each window waits for it: (M,) -> bool (M, W)."""
        below = self.windows.meeting.of(windows)
        waits = (below >= 0) & ~self.final[below]
        if len(self.blocks):
            place, here = find(self.blocks, below)
            waits &= ~(here & self.included[place, self.windows.meeting.places(windows)])
        return waits

    def count(self, blocks: Ints) -> Ints:
        """Return how many windows are in the sums of each block: (M,) -> int64 (M,)."""
        found = np.zeros(len(blocks), np.int64)
        if len(self.blocks):
            place, here = find(self.blocks, blocks)
            found[here] = self.included[place[here]].sum(axis=1)
        return found

    def left(self) -> int:
        """Return the number of windows that some block waits for."""
        left = self.windows.left(self.final)
        if len(self.blocks):
            # Only a window over blocks with sums can be one that no block waits for any more.
            over = self.windows.meeting.inverse.touched(self.blocks)
            waits = ((below := self.windows.meeting.of(over)) >= 0) & ~self.final[below]
            left -= int((waits.any(axis=1) & ~self.awaited(over).any(axis=1)).sum())
        return left


class WindowRow:
    """The windows that one rank predicts, in the order in which it does.

    All windows stand in one row: bricks of tiles in the order of their curve, in each brick the
    windows whose middle lies in it, along a curve of their own. Each rank has an equal run of that
    row. So what it predicts lies under its own tiles or nearly so, few blocks are open at a time,
    and tiles can be painted early. A window that no block waits for is left out.
    """

    def __init__(
        self, windows: Windows, assignment: Assignment, rank: int, done: WindowsDone | None = None
    ) -> None:
        self.windows = windows
        self._done = done if done is not None and done.anything else None
        bricks, owned = assignment.bricks, assignment.tiling.owned_grid
        # Per axis, the windows of every index of a brick.
        self._along: list[list[Ints]] = []
        for cover, own, count in zip(windows.axes, owned.axes, bricks.counts, strict=True):
            brick = own.holding(cover.middle) // bricks.edge
            self._along.append([np.flatnonzero(brick == b) for b in range(count)])
        x, y, z = (np.array([len(part) for part in along]) for along in self._along)
        counts = (x[:, None, None] * y[:, None] * z).ravel()[assignment.curve]
        ends = np.cumsum(counts)
        low, high = (windows.size * r // assignment.n_ranks for r in (rank, rank + 1))
        places = np.flatnonzero((ends > low) & (ends - counts < high))
        self._bricks = bricks.coords(assignment.curve[places])
        # The windows of each brick that are this rank's, as a run of their order.
        begins = ends[places] - counts[places]
        self._low = np.maximum(low - begins, 0)
        self._high = np.minimum(high - begins, counts[places])
        self._whole = (self._high - self._low) == counts[places]

    def parts(self) -> Iterator[Ints]:
        """Yield the windows of this rank brick by brick, each in order, int64."""
        for row in range(len(self._bricks)):
            part = self._part(row)
            if self._done is not None:
                part = part[self._done.awaited(part).any(axis=1)]
            yield part

    def total(self) -> int:
        """Return the number of windows of this rank."""
        if self._done is None:
            return int((self._high - self._low).sum())
        return sum(len(part) for part in self.parts())

    def _part(self, row: int) -> Ints:
        x, y, z = (along[i] for along, i in zip(self._along, self._bricks[row], strict=True))
        part = self.windows.cuboid(x, y, z)
        local = np.indices((len(x), len(y), len(z))).reshape(3, -1).T
        bits = max(1, int(max(len(x), len(y), len(z)) - 1).bit_length())
        part = part[np.argsort(hilbert(local, bits), kind="stable")]
        return part[self._low[row] : self._high[row]]

    def contributions(self) -> tuple[Ints, Ints]:
        """Return the blocks that these windows add to, ascending, and how many do: int64 each."""
        found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        for row in range(len(self._bricks)):
            whole = self._whole[row] and self._done is None
            found.append(self._whole_brick(row) if whole else self._part_brick(row))
        touched, counts = map(np.concatenate, zip(*found, strict=True))
        blocks, place = np.unique(touched, return_inverse=True)
        total = np.zeros(len(blocks), np.int64)
        np.add.at(total, place, counts)
        return blocks, total

    def _part_brick(self, row: int) -> tuple[Ints, Ints]:
        part = self._part(row)
        below = self.windows.meeting.of(part)
        awaited = below >= 0 if self._done is None else self._done.awaited(part)
        return np.unique(below[awaited], return_counts=True)

    def _whole_brick(self, row: int) -> tuple[Ints, Ints]:
        """Return the same as `_part_brick`, as a product over the axes."""
        hits = []
        for axis, index in enumerate(self._bricks[row].tolist()):
            below = self.windows.meeting.axes[axis].table[self._along[axis][index]]
            hits.append(np.unique(below[below >= 0], return_counts=True))
        (x, times_x), (y, times_y), (z, times_z) = hits
        blocks = self.windows.blocks.cuboid(x, y, z)
        return blocks, (times_x[:, None, None] * times_y[:, None] * times_z).ravel()


@lru_cache(maxsize=2)
def _shard_ranks(windows: Windows, shard_edge: int, assignment: Assignment) -> NDArray[np.int32]:
    """Ranks that write the shards, made once for all ranks of a simulation."""
    return assignment.rank_of_middle(Grid.regular(windows.shape, shard_edge * windows.block))


class WindowOrder(Order):
    """One rank's part in predicting windows and averaging them over blocks.

    Of a block of this rank all windows are awaited, of another rank's this rank's own. A block that
    is complete here is final where it is this rank's, else its sums are owed to its rank.
    `next_batch` is one thread's, all else may be another's.

    Parameters
    ----------
    shard_edge : blocks along a shard, which one rank writes.
    batch : windows that are predicted at once.
    done : what earlier runs have done.
    """

    product = "halo"

    def __init__(
        self,
        windows: Windows,
        assignment: Assignment,
        rank: int,
        shard_edge: int,
        batch: int,
        done: WindowsDone | None = None,
    ) -> None:
        self.windows, self.rank, self.batch = windows, rank, batch
        self.done_before = done = done or WindowsDone.nothing(windows)
        self._shards = Bricks(windows.blocks, shard_edge)
        self.shard_rank = _shard_ranks(windows, shard_edge, assignment)
        own = np.sort(self._shards.tiles(np.flatnonzero(self.shard_rank == rank)))
        row = WindowRow(windows, assignment, rank)
        touched, counts = row.contributions()
        self.blocks = np.union1d(touched, own)
        self.left = np.zeros(len(self.blocks), np.int64)
        if done.anything:
            row = WindowRow(windows, assignment, rank, done)
            touched, counts = row.contributions()
        self.left[np.searchsorted(self.blocks, touched)] = counts
        at = np.searchsorted(self.blocks, own)
        self.left[at] = windows.meeting.inverse.degree(own) - done.count(own)
        self.left[done.final[self.blocks]] = 0
        self._awaited = self.left.copy()
        unfinished = own[~done.final[own]]
        self.blocks_left = len(unfinished)
        # A run that was killed may have added all windows of a block, and not stored it.
        self.complete_before = unfinished[self.left[np.searchsorted(self.blocks, unfinished)] == 0]
        self.total = row.total()
        self._parts = row.parts()
        self._part = np.empty(0, np.int64)
        self._unasked = self.total
        self._opened: set[int] = set()
        self.most_open = 0

    @property
    def remaining(self) -> int:
        """Windows not yet handed out, and own blocks that are not final."""
        return self._unasked + self.blocks_left

    def rank_of(self, blocks: ArrayLike) -> NDArray[np.int32]:
        """Return the rank that writes each block: (M,) -> int32 (M,)."""
        return self.shard_rank[self._shards.of_tile(blocks)]

    def next_batch(self, idle: bool) -> Ints:
        """Return the next windows, fewer at the end: int64 (<= batch,)."""
        while len(self._part) < self.batch and (more := next(self._parts, None)) is not None:
            self._part = np.concatenate([self._part, more])
        batch, self._part = self._part[: self.batch], self._part[self.batch :]
        self._unasked -= len(batch)
        return batch

    def blocks_of(self, window: int) -> dict[int, int]:
        """Return the blocks that a window is to be added to, and its place in each."""
        blocks = self.windows.meeting.of(window)[0]
        awaited = self.done_before.awaited([window])[0]
        at, here = find(self.blocks, blocks)
        awaited &= here & (self.left[at] > 0)
        places = self.windows.meeting.places(window)[0]
        return dict(zip(blocks[awaited].tolist(), places[awaited].tolist(), strict=True))

    def add(self, blocks: ArrayLike, count: Ints | int = 1) -> list[int]:
        """Count windows as added to blocks, none named twice; return those that are complete."""
        blocks = np.asarray(blocks, np.int64)
        at = np.searchsorted(self.blocks, blocks)
        self.left[at] -= count
        self._opened.update(blocks.tolist())
        self.most_open = max(self.most_open, len(self._opened))
        complete: list[int] = blocks[self.left[at] == 0].tolist()
        self._opened.difference_update(complete)
        return complete

    def awaits(self, block: int, count: int) -> bool:
        """Return whether so many windows are still to be added to a block here."""
        at, here = find(self.blocks, block)
        return bool(here) and bool(self.left[at] >= count)

    def done(self, windows: Ints) -> Outcome:
        """Count windows as predicted: blocks that are final, and counts owed to other ranks."""
        below = self.windows.meeting.of(windows)
        complete = self.add(
            *np.unique(below[self.done_before.awaited(windows)], return_counts=True)
        )
        final, mail = [], []
        for block, owner in zip(complete, self.rank_of(complete).tolist(), strict=True):
            if owner == self.rank:
                final.append(block)
            else:
                count = self._awaited[np.searchsorted(self.blocks, block)]
                mail.append(Mail(owner, (block, int(count))))
        return self._final(final, mail)

    def receive(self, what: tuple[int, int]) -> Outcome:
        """Take the counts that another rank owed."""
        block, count = what
        return self._final(self.add([block], count), [])

    def _final(self, blocks: list[int], mail: list[Mail]) -> Outcome:
        self.blocks_left -= len(blocks)
        return Outcome(np.array(blocks, np.int64), mail)
