"""Hold the noisy field while all tiles of a box are painted together, in bounded memory.

    of a tile      two steps of z and the last estimate x0, float32 (3, c, c, c), in its core
    of another     the same, of it the part that a tile of this rank touches, as it was sent
    rank's tile

What does not fit into memory goes to the disk and comes back when it is needed. A tile's part of
the field goes when nothing needs it any more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock

import numpy as np

from bigbox.scheduler.grid import Slices, triple
from bigbox.scheduler.steps import Together
from bigbox.store.shards import Float
from bigbox.store.slots import Held, SlotFile, Tag

ARRAYS = 3  # z of even and of odd steps, x0
LEVEL_BITS = 64


def level_tag(level: int) -> Tag:
    """Return the steps that a tile has taken, as the tag of its arrays on the disk."""
    return np.array([level], "<u8").view(np.uint8)


class Latents:
    """The field in the cores of tiles, at most `limit_bytes` of it in memory. Thread safe.

    level: steps done. together: the tiles and their cores; aside: takes what does not fit.
    """

    def __init__(self, together: Together, aside: SlotFile, limit_bytes: int) -> None:
        self._tiling, self._cores = together.tiling, together.cores
        self._aside, self._limit = aside, limit_bytes
        self._shape = (ARRAYS, *(self._tiling.kept,) * 3)
        self._open: OrderedDict[int, tuple[int, Float]] = OrderedDict()
        self._lock = Lock()

    def under(self, tile: int, level: int) -> Float:
        """Return z under the whole of a tile after `level` steps, float32 (t, t, t)."""
        found = np.empty((self._tiling.tile,) * 3, np.float32)
        with self._lock:
            for other, here, there in self._cores.pieces(tile):
                found[here] = self._held(other)[1][(level % 2, *there)]
        return found

    def estimate(self, tile: int) -> Float:
        """Return x0 of a tile's last step, float32, of its core; not to be changed."""
        with self._lock:
            return self._held(tile)[1][(2, *self.inside(tile))]

    def inside(self, tile: int) -> Slices:
        """Return a tile's core in an array of (c, c, c)."""
        return triple(slice(0, n) for n in self._tiling.owned_grid.extent(tile))

    def put(self, tile: int, level: int, part: Slices, z: Float, x0: Float | None = None) -> None:
        """Take z of a part of a tile's core after `level` steps, and x0 of the last of them."""
        with self._lock:
            values = self._held(tile)[1]
            values[(level % 2, *part)] = z
            if x0 is not None:
                values[(2, *part)] = x0
            self._open[tile] = level, values

    def forget(self, tiles: Iterable[int]) -> None:
        """Let go of tiles that nothing needs any more."""
        with self._lock:
            tiles = list(tiles)
            for tile in tiles:
                self._open.pop(tile, None)
            self._aside.forget(tiles)

    def held(self) -> list[Held]:
        """Return what is in memory, by tile."""
        with self._lock:
            return [
                (tile, level_tag(level), values) for tile, (level, values) in self._open.items()
            ]

    def _held(self, tile: int) -> tuple[int, Float]:
        entry = self._open.get(tile)
        if entry is not None:
            self._open.move_to_end(tile)
            return entry
        found = self._aside.take(tile)
        if found is None:
            # Never read as zero what is not there.
            entry = 0, np.full(self._shape, np.nan, np.float32)
        else:
            entry = int(found[0].view("<u8")[0]), found[1]
        self._open[tile] = entry
        while len(self._open) > 1 and len(self._open) * entry[1].nbytes > self._limit:
            oldest, (level, values) = self._open.popitem(last=False)
            self._aside.put(oldest, level_tag(level), values)
        return entry
