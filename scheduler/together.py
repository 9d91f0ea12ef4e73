"""Say which tiles share voxels where all are painted together, how far each goes, and whose it is.

A tile sees its whole cube, and owns its core: the middle, to where the next core begins::

    |<------- tile 1 ------->|
    |..|<----- core 1 ---->|..|          what tile 1 needs of tile 0's core are the dots
                  |..|<----- core 2 ---->|..|

"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bigbox.scheduler.bricks import Assignment, Bricks
from bigbox.scheduler.grid import triple
from bigbox.scheduler.meeting import AxisMeeting, Meeting
from bigbox.scheduler.tiling import Tiling

Bool = NDArray[np.bool_]
Counts = NDArray[np.int16]


def assignment_for(bricks: Bricks[Tiling], n_ranks: int, steps: int, limit: int) -> Assignment:
    """Return who paints what; columns, with a front, where a rank's field is too much at once.

    limit: tiles whose field a rank can keep in memory.
    """
    plain = Assignment(bricks, n_ranks)
    if int(plain.counts().max()) <= limit or bricks.grid.counts[0] <= front_layers(steps):
        return plain
    columns = Assignment(bricks, n_ranks, columns=True)
    even = int(columns.counts().max()) * n_ranks <= 1.05 * bricks.grid.size
    return columns if even else plain


def front_layers(steps: int) -> int:
    """Return the layers of tiles on x that are alive at once, at most, where a front sweeps.

    So many are between its beginning and its end: at the place where it began, which is finished
    last, and where it is now.
    """
    return 2 * steps + 2


def alive_tiles(assignment: Assignment, steps: int) -> int:
    """Return the tiles of which one rank holds the field at one time, at most.

    They are its own n tiles, or n / layers x front_layers of them where a front sweeps through
    columns, and those of others that touch them: with an area of w x w tiles, for each of the
    layers 6 w + 9 where columns meet columns, else 9 w^2 + 18 w + 12 round a region of w^3 (half as
    much again as round a cube: runs of a curve are no cubes).
    """
    own = int(assignment.counts().max())
    if assignment.columns:
        along = assignment.tiling.counts[0]
        layers = min(along, front_layers(steps))
        area = own / along
        return int(layers * (area + 6 * area**0.5 + 9))
    w = own ** (1 / 3)
    return min(assignment.tiling.size, int(own + 9 * w**2 + 18 * w + 12))


class Together:
    """Which tiles of a `halved` tiling share voxels: `cores` for what, `near` for which.

    Attributes
    ----------
    cores : of the tiles with the cores of all tiles.
    near : of the tiles with those whose core they touch, or that touch theirs; themselves too.
    """

    def __init__(self, tiling: Tiling) -> None:
        self.tiling = tiling
        self.cores = Meeting(tiling, tiling.owned_grid)
        axes = []
        for axis in self.cores.axes:
            both = zip(axis.table.tolist(), axis.inverse.table.tolist(), strict=True)
            rows = [sorted({j for j in (*a, *b) if j >= 0}) for a, b in both]
            whole = slice(None)
            axes.append(AxisMeeting([[(j, whole, whole) for j in row] for row in rows], axis.count))
        self.near = Meeting(tiling, tiling, triple(axes))

    def goals(self, wanted: Bool, steps: int, begun: Counts | None = None) -> Counts | None:
        """Return how many steps each tile must take so that the wanted ones are finished.

        Others take part as far as a wanted one needs what they hold: a tile that is d tiles away
        steps - d times.

        Parameters
        ----------
        wanted : bool (tiles,).
        begun : int16 (tiles,), steps that earlier runs have left of each; the field of these and of
            one step less is there. A tile that only lends what is there has them for a goal.

        Returns
        -------
        int16 (tiles,); None where what is left of a tile is too late a step for its neighbours, so
        that nothing begun can be used.
        """
        have = np.zeros(len(wanted), np.int16) if begun is None else begun
        taking = wanted & (have < steps)
        goal = np.where(taking, steps, 0).astype(np.int16)
        for level in range(steps - 1, 0, -1):
            if not taking.any() or (begun is None and taking.all()):
                break
            needed = self._near(taking)
            if np.any(needed & (have > level + 1)):
                return None
            lending = needed & (have >= level)
            goal[lending] = np.maximum(goal[lending], have[lending])
            taking = needed & ~lending
            goal[taking] = np.maximum(goal[taking], np.int16(level))
        return goal

    def _near(self, tiles: Bool) -> Bool:
        """Return the tiles near any of these: bool (tiles,)."""
        found = tiles.reshape(self.tiling.counts)
        for a, axis in enumerate(self.near.axes):
            found = np.logical_or.reduce(
                [np.take(found, np.maximum(c, 0), a) & _along(c >= 0, a) for c in axis.table.T]
            )
        return found.ravel()


@lru_cache(maxsize=2)
def together_of(tiling: Tiling) -> Together:
    """Return which tiles share voxels, made once for all ranks in a process."""
    return Together(tiling)


def _along(values: Bool, axis: int) -> Bool:
    shape = [1, 1, 1]
    shape[axis] = -1
    return values.reshape(shape)
