"""Hold the noisy field while all tiles of a box are painted together, in bounded memory.

    of a tile      two steps of z and the last estimate x0, float32 (3, c, c, c), in its core
    of another     the same, of it the part that a tile of this rank touches, as it was sent
    rank's tile

What does not fit into memory goes to the disk and comes back when it is needed. A tile's part of
the field goes when nothing needs it any more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from threading import Lock

import numpy as np

from bigbox.scheduler.bricks import Assignment, Bricks
from bigbox.scheduler.grid import Slices, triple
from bigbox.scheduler.tiling import Tiling
from bigbox.scheduler.together import Together, assignment_for
from bigbox.store.saved_field import OTHERS, FieldFile, level_of, level_tag
from bigbox.store.shards import Float

ARRAYS = 3  # z of even and of odd steps, x0


def latent_bytes(tiling: Tiling) -> int:
    """Return what a tile takes."""
    return 4 * ARRAYS * tiling.kept**3


def assignment_of(bricks: Bricks[Tiling], n_ranks: int, steps: int, limit_bytes: int) -> Assignment:
    """Return who paints what, with so much memory of a rank for the noisy field."""
    if not bricks.grid.halved:
        return Assignment(bricks, n_ranks)
    return assignment_for(bricks, n_ranks, steps, limit_bytes // latent_bytes(bricks.grid))


class Latents:
    """The field in the cores of tiles, at most `limit_bytes` of it in memory. Thread safe.

    level: steps done. together: the tiles and their cores; mine: whether a tile is of this rank;
    aside: takes what does not fit, and has what an earlier run has left; tiles: that can come up.
    """

    def __init__(
        self,
        together: Together,
        mine: Callable[[int], bool],
        aside: FieldFile,
        limit_bytes: int,
        tiles: int,
    ) -> None:
        self._tiling, self._cores = together.tiling, together.cores
        self._mine, self._aside = mine, aside
        places = max(1, min(limit_bytes // latent_bytes(self._tiling), tiles))
        # One array for all, used as far as it is needed: thousands of small ones that come and go
        # in several threads would leave twice their size in pieces.
        self._places = np.empty((places, ARRAYS, *(self._tiling.kept,) * 3), np.float32)
        self._arrays = [list(place) for place in self._places]
        self._roomy = places == tiles  # nothing ever goes to the disk for want of memory
        lengths = (axis.length.tolist() for axis in self._tiling.owned_grid.axes)
        self._inside = triple([slice(0, n) for n in axis] for axis in lengths)
        self._free = list(range(places))[::-1]
        self._open: OrderedDict[int, tuple[int, int]] = OrderedDict()  # level and place of a tile
        self._lock = Lock()

    def read(self, tile: int, level: int, z: Float, x0: Float) -> None:
        """Read z under the whole of a tile after `level` steps, and x0 of its core.

        They are put into z, float32 (t, t, t), and x0, float32 of the core's shape.
        """
        pieces, parity = list(self._cores.pieces(tile)), level % 2
        if not self._roomy:
            with self._lock:
                for other, here, there in pieces:
                    z[here] = self._held(other)[parity][there]
                x0[...] = self._held(tile)[2][self.inside(tile)]
            return
        # Places stay whose they are, and what is read does not change before this tile is a step
        # on: the lock need not be held while it is copied.
        with self._lock:
            under = [self._held(other)[parity] for other, _, _ in pieces]
            last = self._held(tile)[2]
        for (_, here, there), values in zip(pieces, under, strict=True):
            z[here] = values[there]
        x0[...] = last[self.inside(tile)]

    def field(self, tile: int, level: int) -> Float:
        """Return z of a tile's core after `level` steps, float32."""
        with self._lock:
            return self._held(tile)[level % 2][self.inside(tile)].copy()

    def inside(self, tile: int) -> Slices:
        """Return a tile's core in an array of (c, c, c)."""
        (x, y, z), (i, j, k) = self._inside, self._tiling.at(tile)
        return x[i], y[j], z[k]

    def put(self, tile: int, level: int, part: Slices, z: Float, x0: Float | None = None) -> None:
        """Take z of a part of a tile's core after `level` steps, and x0 of the last of them."""
        with self._lock:
            values = self._held(tile)
            values[level % 2][part] = z
            if x0 is not None:
                values[2][part] = x0
            self._open[tile] = level, self._open[tile][1]

    def forget(self, tiles: Iterable[int]) -> None:
        """Let go of tiles that nothing needs any more."""
        with self._lock:
            tiles = list(tiles)
            for tile in tiles:
                if tile in self._open:
                    self._free.append(self._open.pop(tile)[1])
            self._aside.forget(map(self._key, tiles))

    def save(self, number: int) -> None:
        """Make all of this rank's tiles durable, for a run that goes on from here."""
        with self._lock:
            held = (
                (tile, level_tag(level), self._places[place])
                for tile, (level, place) in self._open.items()
                if level and self._mine(tile)
            )
            self._aside.save_as(number, list(held))

    def _key(self, tile: int) -> int:
        return tile if self._mine(tile) else tile + OTHERS

    def _held(self, tile: int) -> list[Float]:
        """Return the arrays of a tile, in memory from now on; good until the next call."""
        entry = self._open.get(tile)
        if entry is not None:
            if not self._roomy:
                self._open.move_to_end(tile)
            return self._arrays[entry[1]]
        if not self._free:
            oldest, (level, place) = next(iter(self._open.items()))
            self._aside.put(self._key(oldest), level_tag(level), self._places[place])
            del self._open[oldest]
            self._free.append(place)
        found, place = self._aside.take(self._key(tile)), self._free.pop()
        # Never read as zero what is not there.
        self._places[place] = np.nan if found is None else found[1]
        self._open[tile] = 0 if found is None else level_of(found[0]), place
        return self._arrays[place]
