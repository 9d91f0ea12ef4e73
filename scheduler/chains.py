"""Judge a simulated painting: tiles kept for others, and the longest chain of tiles."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bigbox.scheduler import stages
from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.costs import CostModel
from bigbox.scheduler.grid import CHUNK, Ints
from bigbox.scheduler.tiling import Tiling


def pending(
    assignment: Assignment, batch_of: NDArray[np.int32], batches: int, colouring: str
) -> tuple[int, int]:
    """Most tiles kept at one time, over all ranks and on one rank.

    A tile is kept from the batch that paints it to the last batch that paints a tile waiting for
    it; that batch still needs it.
    """
    tiling = assignment.tiling
    change = np.zeros(batches + 2, np.int64)
    most = 0
    for rank in range(assignment.n_ranks):
        own = assignment.tiles_of(rank)
        start = batch_of[own]
        last = np.full(len(own), -1, np.int32)
        for i in range(0, len(own), CHUNK):
            after = stages.successors(tiling, own[i : i + CHUNK], colouring)
            last[i : i + CHUNK] = np.where(after >= 0, batch_of[after], -1).max(axis=1)
        start, last = start[last >= 0], last[last >= 0]
        change += np.bincount(start, minlength=batches + 2)
        change -= np.bincount(last + 1, minlength=batches + 2)
        # On the rank's own clock: only its own batches add to what it keeps.
        clock = np.unique(start)
        mine = np.bincount(np.searchsorted(clock, start), minlength=len(clock) + 1)
        mine -= np.bincount(np.searchsorted(clock, last + 1), minlength=len(clock) + 1)
        most = max(most, int(np.cumsum(mine).max(initial=0)))
    return int(np.cumsum(change).max()), most


def _by_stage(tiling: Tiling, colouring: str) -> Iterator[Ints]:
    """All tiles in pieces, int64, no piece before the tiles that its own wait for."""
    for members in stages.triples(tiling, colouring):
        for triple in members:
            x, y, z = (np.flatnonzero(tiling.colours(a) == c) for a, c in enumerate(triple))
            step = max(1, CHUNK // (len(y) * len(z)))
            for i in range(0, len(x), step):
                yield tiling.cuboid(x[i : i + step], y, z)


def critical_path(assignment: Assignment, cost: CostModel, colouring: str = "levels") -> float:
    """Seconds of the longest chain of tiles that wait for one another.

    Every tile of it takes a batch, and `cost.latency` more where it and the next are on different
    ranks.
    """
    tiling = assignment.tiling
    seconds = np.array([cost.seconds(1, r) for r in range(assignment.n_ranks)])
    end = np.zeros(tiling.size, np.float32)
    for tiles in _by_stage(tiling, colouring):
        rank = assignment.rank_of(tiles)
        start = np.zeros(len(tiles))
        for before in stages.predecessors(tiling, tiles, colouring).T:
            some = np.flatnonzero(before >= 0)
            before = before[some]
            travel = np.where(assignment.rank_of(before) != rank[some], cost.latency, 0.0)
            start[some] = np.maximum(start[some], end[before] + travel)
        end[tiles] = start + seconds[rank]
    return float(end.max())
