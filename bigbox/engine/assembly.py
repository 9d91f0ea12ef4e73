"""How finished tiles become the `tb` array: one shard when the last tile in it is durable.

Each shard of `tb` has one writer, the rank that owns the tile at the shard's centre. It counts
down the tiles whose owned voxels meet the shard.
"""

from __future__ import annotations

import numpy as np

from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.tiling import Tiling
from bigbox.store.painting import Painting


class Assembly:
    """The shards of `tb` that one rank writes: which are ready, and how many are left."""

    def __init__(self, painting: Painting, tiling: Tiling, assignment: Assignment, rank: int):
        self._painting = painting
        self._rank = rank
        shards = np.arange(painting.tb_shards)
        centres = np.array(
            [[(s.start + s.stop) // 2 for s in painting.tb_shard_slices(int(i))] for i in shards]
        )
        self._writer = assignment.rank_of(tiling.owner(centres)).astype(np.int32)
        self._missing = np.zeros(painting.tb_shards, dtype=np.int64)
        mine = np.flatnonzero(self._writer == rank)
        for shard in mine.tolist():
            self._missing[shard] = len(painting.tiles_of_tb_shard(shard))
        done = painting.done_shards()
        self._missing[done[self._writer[done] == rank]] = -1  # written by an earlier run
        self._ready: list[int] = []
        self.remaining = int((self._missing > 0).sum())

    def writers(self, tiles: np.ndarray) -> np.ndarray:
        """Ranks (M, W) that write a shard with voxels of each tile, padded with -1."""
        shards = self._painting.tb_shards_of_tiles(tiles)
        return np.where(shards >= 0, self._writer[np.maximum(shards, 0)], -1)

    def done(self, tiles: np.ndarray) -> None:
        """These tiles, of any rank, are durable."""
        shards = self._painting.tb_shards_of_tiles(tiles).ravel()
        shards = shards[shards >= 0]
        shards = shards[(self._writer[shards] == self._rank) & (self._missing[shards] > 0)]
        hit, times = np.unique(shards, return_counts=True)
        self._missing[hit] -= times
        self._ready += hit[self._missing[hit] == 0].tolist()

    def next(self) -> int | None:
        """A shard whose tiles are all durable; None when there is none."""
        return self._ready.pop(0) if self._ready else None

    def written(self) -> None:
        """One shard more is in the store."""
        self.remaining -= 1
