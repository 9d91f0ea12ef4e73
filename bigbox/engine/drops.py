"""The `latents` method: per-step latents are dropped when no tile needs them any more."""

from __future__ import annotations

import numpy as np

from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.stages import predecessors, successors
from bigbox.store.painting import Painting


class StepDrops:
    """Per-step latents that no tile needs any more (the `latents` method): dropped at once.

    A tile's latents are needed until every tile that waits for it is durable.
    """

    def __init__(self, painting: Painting, assignment: Assignment, rank: int):
        self._painting = painting
        self._tiling = assignment.bricks.tiling
        self._assignment = assignment
        self._rank = rank
        self._done = np.zeros(self._tiling.size, dtype=bool)

    def done(self, tiles: np.ndarray, drop: bool = True) -> None:
        """These tiles, of any rank, are durable: drops what that sets free on this rank."""
        self._done[tiles] = True
        if not drop:
            return
        before = predecessors(self._tiling, tiles)
        perhaps = np.unique(np.concatenate([tiles, before[before >= 0]]))
        perhaps = perhaps[self._done[perhaps] & (self._assignment.rank_of(perhaps) == self._rank)]
        if not len(perhaps):
            return
        waiting = successors(self._tiling, perhaps)
        free = np.all((waiting < 0) | self._done[np.maximum(waiting, 0)], axis=1)
        self._painting.drop_steps(perhaps[free])
