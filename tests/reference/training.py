"""Sub-volumes for training, voxel by voxel."""

from __future__ import annotations

import numpy as np


def slow_cut(
    field: np.ndarray, corner: list[int], order: list[int], flip: list[bool], w: int, spacing: int
) -> np.ndarray:
    """A turned sub-volume of a periodic field (C, N, N, N): (C, w, w, w)."""
    n, cut = field.shape[-1], np.empty((len(field), w, w, w), field.dtype)
    for place in np.ndindex(w, w, w):
        at = list(corner)
        for axis in range(3):
            steps = w - 1 - place[axis] if flip[axis] else place[axis]
            at[order[axis]] += spacing * steps
        cut[(slice(None), *place)] = field[:, at[0] % n, at[1] % n, at[2] % n]
    return cut


def slow_any_within(field: np.ndarray, reach: int) -> np.ndarray:
    """Whether any voxel of the cube that begins at a voxel is true, in a periodic box."""
    found = np.empty_like(field)
    for corner in np.ndindex(field.shape):
        axes = [(c + np.arange(reach)) % n for c, n in zip(corner, field.shape, strict=True)]
        found[corner] = field[np.ix_(*axes)].any()
    return found
