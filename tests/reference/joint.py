"""A box painted by all tiles together, step by step, in memory: the whole field at every step."""

from __future__ import annotations

import numpy as np

from bigbox.painters.base import StepBatch, StepPainter
from bigbox.scheduler.tiling import Tiling


def paint_jointly(inputs: np.ndarray, tiling: Tiling, painter: StepPainter) -> np.ndarray:
    """T_b, float32, shape of the box. inputs: over the box, or (channels, ...) over the box."""
    n, m, shape = tiling.tile, painter.margin, tiling.shape
    z, x0 = np.zeros((2, *shape), np.float32)
    for step in range(painter.steps, 0, -1):
        new_z, new_x0 = np.full((2, *shape), np.nan, np.float32)
        for tile in range(tiling.size):
            origin = tiling.origin([tile])
            at, wide, core, inside = [], [], [], []
            for axis in range(3):
                first, i = int(origin[0, axis]), int(tiling.coords(tile)[axis])
                low, high = tiling.margins(axis)[i].tolist()
                at.append((first + np.arange(n)) % shape[axis])
                wide.append((first - m + np.arange(n + 2 * m)) % shape[axis])
                core.append((first + np.arange(low, n - high)) % shape[axis])
                inside.append(slice(low, n - high))
            batch = StepBatch(
                tiles=np.array([tile]),
                origin=origin,
                inputs=inputs[(..., *np.ix_(*wide))].reshape(1, -1, *(n + 2 * m,) * 3),
                z=z[np.ix_(*at)][None],
                previous=x0[np.ix_(*at)][None],
                step=np.array([step]),
            )
            made = painter.advance(batch)[0]
            new_z[np.ix_(*core)], new_x0[np.ix_(*core)] = made[(slice(None), *inside)]
        z, x0 = new_z, new_x0
    assert np.isfinite(z).all()
    return z
