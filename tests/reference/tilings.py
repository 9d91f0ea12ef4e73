"""The scheduler's arithmetic of tilings, voxel by voxel and tile by tile."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bigbox.scheduler import stages
from bigbox.scheduler.tiling import Tiling


def voxels(tiling: Tiling, tile: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The voxels of a tile, as an open mesh into the box."""
    origin = tiling.origin(np.array([tile]))[0]
    x, y, z = ((o + np.arange(tiling.tile)) % n for o, n in zip(origin, tiling.shape, strict=True))
    return np.ix_(x, y, z)


def owned(tiling: Tiling, tile: int) -> tuple[slice, slice, slice]:
    """The cuboid of voxels a tile owns, as slices into the tile."""
    x, y, z = (
        slice(int(low), tiling.tile - int(high))
        for low, high in (tiling.known_widths(a)[i] for a, i in enumerate(tiling.coords(tile)))
    )
    return x, y, z


def level(tiling: Tiling, tiles: ArrayLike) -> np.ndarray:
    """Sum of the three colours: (M,) -> uint8 (M,), 0 to 6."""
    at = tiling.coords(tiles)
    colours = [tiling.colours(a)[at[..., a]] for a in range(3)]
    return np.sum(colours, axis=0, dtype=np.uint8)


def cover(tiling: Tiling) -> list[set[int]]:
    """For each tile, the tiles (itself too) that share a voxel with it: every pair is compared."""

    def interval(tile: int, axis: int) -> set[int]:
        start = int(tiling.origin(np.array([tile]))[0, axis])
        return {(start + i) % tiling.shape[axis] for i in range(tiling.tile)}

    spans = [[interval(t, a) for a in range(3)] for t in range(tiling.size)]
    return [
        {u for u in range(tiling.size) if all(spans[t][a] & spans[u][a] for a in range(3))}
        for t in range(tiling.size)
    ]


def paint_in_order(tiling: Tiling, stage: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Paint the box tile by tile in order of the stages, and look at what each finds painted.

    Returns the first tile to paint each voxel, int64 of the box's shape, and for each tile the
    first painters (-1: none) of its voxels at the end of all EARLIER stages, (tile, tile, tile).
    """
    first = np.full(tiling.shape, -1, np.int64)
    found: list[np.ndarray] = [np.empty(0)] * tiling.size
    for s in range(int(stage.max()) + 1):
        before = first.copy()
        for t in np.flatnonzero(stage == s):
            mesh = voxels(tiling, int(t))
            found[t] = before[mesh]
            first[mesh] = np.where(first[mesh] < 0, t, first[mesh])
    return first, found


def longest_chains(tiling: Tiling) -> np.ndarray:
    """Tiles in the longest chain that waits behind each, of "levels", tile by tile."""
    tiles = np.arange(tiling.size)
    after = stages.successors(tiling, tiles)
    longest = np.zeros(tiling.size, int)
    for t in np.argsort(level(tiling, tiles), kind="stable")[::-1]:
        longest[t] = max((1 + longest[u] for u in after[t] if u >= 0), default=0)
    return longest
