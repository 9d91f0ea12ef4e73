"""A box painted in memory, tile after tile by stages: one array, one mask."""

from __future__ import annotations

import numpy as np

from bigbox.painters.base import TileBatch
from bigbox.scheduler.stages import stage as stage_of
from bigbox.scheduler.stages import stages as stage_count
from bigbox.scheduler.tiling import Tiling
from bigbox.testing.painters import TrivialPainter


def paint_by_stages(
    dm: np.ndarray, tiling: Tiling, painter: TrivialPainter, colouring: str
) -> np.ndarray:
    """T_b as the paper's Algorithm 1 would build it, with no engine: float32, shape of the box.

    dm: the painter's input, over the box, or (channels, ...) over the box.
    """
    n, m = tiling.tile, painter.margin
    tb = np.zeros((painter.fields, *tiling.shape), np.float32)
    painted = np.zeros(tiling.shape, bool)
    tiles = np.arange(tiling.size)
    stage = stage_of(tiling, tiles, colouring)
    for s in range(stage_count(tiling, colouring)):
        new = []
        for tile in tiles[stage == s]:
            origin = tiling.origin(np.array([tile]))
            at = np.ix_(*((origin[0, a] + np.arange(n)) % tiling.shape[a] for a in range(3)))
            wide = [(origin[0, a] - m + np.arange(n + 2 * m)) % tiling.shape[a] for a in range(3)]
            mask = painted[at]
            known = np.where(mask, tb[(slice(None), *at)], np.float32(0))
            width = np.zeros((1, 3, 2), np.int64)
            for a in range(3):
                line = mask.all(axis=tuple({0, 1, 2} - {a}))
                width[0, a, 0] = np.argmin(line)
                width[0, a, 1] = np.argmin(line[::-1])
            batch = TileBatch(
                tiles=np.array([tile]),
                origin=origin,
                inputs=dm[(..., *np.ix_(*wide))].reshape(1, -1, *(n + 2 * m,) * 3),
                known=known[None],
                width=width,
            )
            new.append((at, mask, painter.paint(batch)[0]))
        for at, mask, fields in new:  # tiles of one stage do not see each other
            tb[(slice(None), *at)] = np.where(mask, tb[(slice(None), *at)], fields)
            painted[at] = True
    assert painted.all()
    return tb[0]
