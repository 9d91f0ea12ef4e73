"""Haloes of a whole box in memory, one window after the other."""

from __future__ import annotations

import numpy as np

from bigbox.testing.painters import TrivialHaloes


def averaged(dm: np.ndarray, painter: TrivialHaloes) -> np.ndarray:
    """rho_h of the whole box, float32 (4, ...): one window after the other into whole arrays."""
    w, m, g = painter.window, painter.margin, painter.grid
    shape = tuple(n // g for n in dm.shape)
    sums = np.zeros((painter.channels, *shape), np.int64)
    weights = np.zeros(shape, np.int64)
    x, y, z = np.ix_(*[painter.weights] * 3)
    counts = [-(-n // painter.stride) for n in shape]
    for index in np.ndindex(*counts):
        origin = [i * n // c for i, n, c in zip(index, shape, counts, strict=True)]
        fine = np.arange(-m, g * w + m)
        wide = [(g * o + fine) % n for o, n in zip(origin, dm.shape, strict=True)]
        at = np.ix_(*[(o + np.arange(w)) % n for o, n in zip(origin, shape, strict=True)])
        logs = painter.predict(dm[np.ix_(*wide)][None])[0]
        fixed = np.rint(logs.astype(np.float64) * 2**24).astype(np.int64) * (x * y * z)
        sums[(slice(None), *at)] += fixed  # a window is never wider than the box: no voxel twice
        weights[at] += x * y * z
    mean = sums / (weights * 2.0**24)
    return np.where(mean >= 9.5, 10.0**mean, 0.0).astype(np.float32)
