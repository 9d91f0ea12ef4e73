"""Which rank computes which windows, in which order, and what earlier runs have done of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigbox.scheduler.bricks import Assignment, Bricks, hilbert
from bigbox.scheduler.tiling import Ints
from bigbox.scheduler.windows import Windows


class Done:
    """Blocks that are final, and sums over some of the windows that others need.

    Args:
        windows: all windows.
        final: bool[blocks].
        blocks: blocks that are not final and of which there are sums, ascending.
        included: bool[len(blocks), ordinals], the windows that are in them, see
            `Windows.ordinals_of`.
    """

    def __init__(
        self,
        windows: Windows,
        final: NDArray[np.bool_],
        blocks: ArrayLike = (),
        included: NDArray[np.bool_] | None = None,
    ) -> None:
        self.final = final
        self.blocks = np.asarray(blocks, np.int64)
        self.included = included
        self._windows = windows

    @property
    def anything(self) -> bool:
        """Whether anything is done."""
        return bool(self.final.any()) or len(self.blocks) > 0

    def awaited(self, windows: ArrayLike) -> NDArray[np.bool_]:
        """Whether each block of each window waits for it: (M,) -> bool (M, W) as `blocks_of`."""
        below = self._windows.blocks_of(windows)
        waits = (below >= 0) & ~self.final[below]
        if self.included is not None and len(self.blocks):
            place = np.searchsorted(self.blocks, below)
            place = np.minimum(place, len(self.blocks) - 1)
            here = self.blocks[place] == below
            ordinal = self._windows.ordinals_of(windows)
            waits &= ~(here & self.included[place, ordinal])
        return waits

    def of(self, block: int) -> NDArray[np.bool_] | None:
        """The windows that are in the sums of a block, by ordinal; None where there are none."""
        if self.included is None:
            return None
        place = int(np.searchsorted(self.blocks, block))
        here = place < len(self.blocks) and self.blocks[place] == block
        return self.included[place] if here else None

    def count(self, blocks: ArrayLike) -> Ints:
        """How many windows are in the sums of each block: (M,) -> int64 (M,)."""
        blocks = np.asarray(blocks, np.int64)
        found = np.zeros(len(blocks), np.int64)
        if self.included is not None and len(self.blocks):
            place = np.minimum(np.searchsorted(self.blocks, blocks), len(self.blocks) - 1)
            here = self.blocks[place] == blocks
            found[here] = self.included[place[here]].sum(axis=1)
        return found

    def left(self) -> int:
        """Number of windows that some block waits for."""
        left = self._windows.left(self.final)
        if len(self.blocks):
            # Only a window over blocks with sums can be one that no block waits for any more.
            over = self._windows.over(self.blocks)
            waits = ((below := self._windows.blocks_of(over)) >= 0) & ~self.final[below]
            left -= int((waits.any(axis=1) & ~self.awaited(over).any(axis=1)).sum())
        return left


class WindowOrder:
    """The windows that one rank computes, in the order in which it does.

    All windows stand in one row: bricks of tiles in the order of their curve, in each brick the
    windows whose middle lies in it, along a curve of their own. Each rank has an equal run of that
    row. So what it predicts lies under its own tiles or nearly so, few blocks are open at a time,
    and tiles can be painted early.

    Args:
        windows: all windows.
        assignment: which rank paints which bricks of tiles.
        rank: this rank.
        done: what earlier runs have done. A window that no block waits for is left out.
    """

    def __init__(
        self, windows: Windows, assignment: Assignment, rank: int, done: Done | None = None
    ) -> None:
        self.windows = windows
        self._done = done if done is not None and done.anything else None
        bricks, tiling = assignment.bricks, assignment.bricks.tiling
        # Per axis, the windows of every index of a brick.
        self._along: list[list[Ints]] = []
        for axis in range(3):
            middle = np.zeros((windows.counts[axis], 3), np.int64)
            middle[:, axis] = (windows.origins(axis) + windows.window // 2) % windows.shape[axis]
            brick = tiling.coords(tiling.owner(middle))[:, axis] // bricks.edge
            self._along.append([np.flatnonzero(brick == b) for b in range(bricks.counts[axis])])
        x, y, z = (np.array([len(part) for part in along]) for along in self._along)
        counts = (x[:, None, None] * y[:, None] * z).ravel()[bricks.curve]
        ends = np.cumsum(counts)
        low, high = (windows.size * r // assignment.n_ranks for r in (rank, rank + 1))
        places = np.flatnonzero((ends > low) & (ends - counts < high))
        self._bricks = bricks.coords(bricks.curve[places])
        # The windows of each brick that are this rank's, as a run of their order.
        begins = ends[places] - counts[places]
        self._low = np.maximum(low - begins, 0)
        self._high = np.minimum(high - begins, counts[places])
        self._whole = (self._high - self._low) == counts[places]
        self.total = sum(len(part) for part in self.parts())
        self._parts = self.parts()
        self._part = np.empty(0, np.int64)
        self.remaining = self.total

    def parts(self) -> Iterator[Ints]:
        """The windows of this rank brick by brick, each in order, int64."""
        for row in range(len(self._bricks)):
            part = self._part_of(row)
            if self._done is not None:
                part = part[self._done.awaited(part).any(axis=1)]
            yield part

    def _part_of(self, row: int) -> Ints:
        _, ny, nz = self.windows.counts
        x, y, z = (along[i] for along, i in zip(self._along, self._bricks[row], strict=True))
        part = ((x[:, None, None] * ny + y[:, None]) * nz + z).ravel()
        local = np.indices((len(x), len(y), len(z))).reshape(3, -1).T
        bits = max(1, int(max(len(x), len(y), len(z)) - 1).bit_length())
        part = part[np.argsort(hilbert(local, bits), kind="stable")]
        return part[self._low[row] : self._high[row]]

    def next_batch(self, k: int) -> Ints:
        """The next k windows, fewer at the end: int64[<= k]."""
        while len(self._part) < k and (more := next(self._parts, None)) is not None:
            self._part = np.concatenate([self._part, more])
        batch, self._part = self._part[:k], self._part[k:]
        self.remaining -= len(batch)
        return batch

    def contributions(self) -> tuple[Ints, Ints]:
        """Blocks that windows of this rank are still to be added to, ascending, and how many are:
        int64 each."""
        found: list[Ints] = [np.empty(0, np.int64)]
        counts: list[Ints] = [np.empty(0, np.int64)]
        for row in range(len(self._bricks)):
            whole = self._whole[row] and self._done is None
            blocks, times = self._whole_brick(row) if whole else self._part_brick(row)
            found.append(blocks)
            counts.append(times)
        blocks, place = np.unique(np.concatenate(found), return_inverse=True)
        total = np.zeros(len(blocks), np.int64)
        np.add.at(total, place, np.concatenate(counts))
        return blocks, total

    def _part_brick(self, row: int) -> tuple[Ints, Ints]:
        part = self._part_of(row)
        below = self.windows.blocks_of(part)
        awaited = below >= 0 if self._done is None else self._done.awaited(part)
        return np.unique(below[awaited], return_counts=True)

    def _whole_brick(self, row: int) -> tuple[Ints, Ints]:
        """The same as `_part_brick`, as a product over the axes."""
        hits = []
        for axis, index in enumerate(self._bricks[row].tolist()):
            below = self.windows.blocks_along(axis)[self._along[axis][index]]
            hits.append(np.unique(below[below >= 0], return_counts=True))
        (x, times_x), (y, times_y), (z, times_z) = hits
        _, ny, nz = self.windows.blocks.counts
        blocks = ((x[:, None, None] * ny + y[:, None]) * nz + z).ravel()
        return blocks, (times_x[:, None, None] * times_y[:, None] * times_z).ravel()


def shard_ranks(
    windows: Windows, edge: int, assignment: Assignment
) -> tuple[Bricks, NDArray[np.int32]]:
    """The blocks in shards of edge^3, and the rank of each: the one that paints the tile at the
    middle of the shard."""
    bricks, side = Bricks(windows.blocks, edge), edge * windows.block
    low = bricks.coords(np.arange(bricks.size)) * side
    high = np.minimum(low + side, windows.shape)
    return bricks, assignment.rank_of(assignment.bricks.tiling.owner((low + high) // 2))
