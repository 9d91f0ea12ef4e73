"""A box painted by all tiles together, step by step, in memory: the whole field at every step."""

from __future__ import annotations

import numpy as np

from bigbox.painters.base import StepBatch, StepPainter
from bigbox.scheduler.tiling import Tiling


def paint_jointly(
    inputs: np.ndarray, tiling: Tiling, painter: StepPainter, batch: int = 1
) -> np.ndarray:
    """T_b, float32, shape of the box. inputs: over the box, or (channels, ...) over the box."""
    n, m, shape = tiling.tile, painter.margin, tiling.shape
    z, x0 = np.zeros((2, *shape), np.float32)

    def under(first: np.ndarray, edge: int) -> tuple[np.ndarray, ...]:
        return np.ix_(*((first[a] + np.arange(edge)) % shape[a] for a in range(3)))

    for step in range(painter.steps, 0, -1):
        new_z, new_x0 = np.full((2, *shape), np.nan, np.float32)
        for begin in range(0, tiling.size, batch):
            tiles = np.arange(begin, min(begin + batch, tiling.size))
            origin = tiling.origin(tiles)
            seen = [inputs[(..., *under(o - m, n + 2 * m))] for o in origin]
            made = painter.advance(
                StepBatch(
                    tiles=tiles,
                    origin=origin,
                    inputs=np.stack(seen).reshape(len(tiles), -1, *(n + 2 * m,) * 3),
                    z=np.stack([z[under(o, n)] for o in origin]),
                    previous=np.stack([x0[under(o, n)] for o in origin]),
                    step=np.full(len(tiles), step),
                )
            )
            for tile, o, result in zip(tiles.tolist(), origin, made, strict=True):
                at = tiling.coords(tile).tolist()
                ends = [tiling.margins(a)[i].tolist() for a, i in enumerate(at)]
                inside = tuple(slice(low, n - high) for low, high in ends)
                core = tuple((o[a] + np.arange(n)[cut]) % shape[a] for a, cut in enumerate(inside))
                new_z[np.ix_(*core)], new_x0[np.ix_(*core)] = result[(slice(None), *inside)]
        z, x0 = new_z, new_x0
    assert np.isfinite(z).all()
    return z
