"""Say which tiles it takes to paint a region of a box, with the bytes of the whole box's painting.

::

    . . . . . . . .      # own voxels of the region: they are painted
    . o o o o o . .      o are what these wait for: where a tile takes over what finished neighbours
    . o # # # o . .        have painted, those too are painted; where all tiles go together, they
    . o o o o o . .        take as many steps as are needed
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bigbox.scheduler.grid import Cover, Grid, Triple, triple
from bigbox.scheduler.meeting import Meeting
from bigbox.scheduler.stages import predecessors
from bigbox.scheduler.tiling import AXES, Tiling, TilingError
from bigbox.scheduler.together import together_of

Bool = NDArray[np.bool_]


class RegionError(TilingError):
    """A region that is none of the box; the message says what it must be."""


@dataclass(frozen=True)
class Region:
    """A cuboid of voxels, [low, low + extent) on each axis; it wraps round the periodic box.

    Voxels are those of the tiling, on a painting grid of its own.
    """

    low: Triple
    extent: Triple

    @classmethod
    def read(cls, text: str, tiling: Tiling, voxel: float, grid: int = 1, reach: int = 0) -> Region:
        """Read x0:x1,y0:y1,z0:z1 in voxels of dm, or in Mpc/h where that stands behind it.

        voxel: of dm, Mpc/h; grid: voxels of dm for one of the tiling's. Voxels that lie in the
        region in part belong to it, and `reach` more on every side, of which dm's are interpolated.
        Raises RegionError.
        """
        words = text.strip().removesuffix("Mpc/h").strip()
        scale = 1.0 if words == text.strip() else voxel
        try:
            ends = [[float(end) / scale for end in part.split(":")] for part in words.split(",")]
            (x0, x1), (y0, y1), (z0, z1) = ends
        except ValueError:
            raise RegionError(
                f"region {text!r} is not understood: write x0:x1,y0:y1,z0:z1 in voxels, or in Mpc/h"
                " as in 0:10,0:10,0:5Mpc/h"
            ) from None
        tiny = 1e-6  # of a voxel, for numbers that were rounded
        low = triple(math.floor(end + tiny) for end in (x0, y0, z0))
        high = triple(math.ceil(end - tiny) for end in (x1, y1, z1))
        for a, (first, last, n) in enumerate(zip(low, high, tiling.shape, strict=True)):
            if not 0 < last - first <= n * grid:
                raise RegionError(
                    f"region {text}: {last - first} voxels on axis {AXES[a]}, must be 1 to "
                    f"{n * grid}, those of the box"
                )
        begin = triple(first // grid - reach for first in low)
        end = ((last - 1) // grid + 1 + reach for last in high)
        extent = (min(b - a, n) for a, b, n in zip(begin, end, tiling.shape, strict=True))
        return cls(begin, triple(extent))

    @property
    def voxels(self) -> int:
        """Voxels of the region."""
        return int(np.prod(self.extent, dtype=np.int64))

    def tiles(self, tiling: Tiling) -> Bool:
        """Return which tiles must be finished: bool (tiles,)."""
        here = Grid(triple(map(Cover.equal, tiling.shape, self.low, self.extent)))
        found = np.zeros(tiling.size, bool)
        found[Meeting(here, tiling.owned_grid).touched([0])] = True
        if tiling.halved:
            return found
        front = np.flatnonzero(found)
        while len(front):
            before = np.unique(predecessors(tiling, front))
            front = before[(before >= 0) & ~found[before]]
            found[front] = True
        return found


def tiles_needed(tiling: Tiling, wanted: Bool, done: Bool, steps: int) -> Bool:
    """Return the tiles whose input it takes to finish the wanted ones: bool (tiles,).

    done: those that are finished; steps: of tiles that go together.
    """
    left = wanted & ~done
    if not tiling.halved:
        return left
    goals = together_of(tiling).goals(left, steps)
    assert goals is not None  # nothing is begun
    return goals > 0
