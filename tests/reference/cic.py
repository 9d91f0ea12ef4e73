"""The cloud-in-cell deposit, particle by particle and voxel by voxel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def overlap_1d(x: float, voxel: int, n: int) -> float:
    """The length that [x-1/2, x+1/2] shares with [voxel, voxel+1], over all periodic images."""
    length = 0.0
    for image in (-n, 0, n):
        low, high = max(x - 0.5 + image, voxel), min(x + 0.5 + image, voxel + 1)
        length += max(0.0, high - low)
    return length


def slow_deposit(
    positions: NDArray[np.float64], shape: tuple[int, int, int], box: float, weights: NDArray
) -> NDArray[np.float64]:
    """Every particle on every voxel: the volume that the particle's cube shares with the voxel."""
    grid = np.zeros(shape)
    for p, w in zip(positions, weights, strict=True):
        u = [p[a] / box * shape[a] % shape[a] for a in range(3)]
        parts = [[overlap_1d(u[a], i, shape[a]) for i in range(shape[a])] for a in range(3)]
        grid += w * np.einsum("i,j,k->ijk", *map(np.array, parts))
    return grid
