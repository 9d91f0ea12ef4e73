"""Cloud-in-cell deposits in memory, float64: voxel by voxel, and in chunks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.ingestion.cic import CHUNK


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


def deposit(
    grid: NDArray[np.float64],
    positions: NDArray[np.floating],
    box_size: float | tuple[float, float, float],
    weights: NDArray[np.floating] | None = None,
) -> None:
    """Add particles to ``grid`` in place.

    grid       float64 (nx, ny, nz), C-contiguous; afterwards holds the sum of weights per voxel
    positions  (M, 3), any float type, in the units of box_size; wrapped into the box
    box_size   the box's side, or its three sides
    weights    (M,), 1 each if None: mass deposits give mass per voxel

    The sum of the grid grows by the sum of the weights (to rounding), and the order of addition is
    that of the particles, so the same input gives the same bytes. Raises BadInput for positions or
    weights that are not finite or not of these shapes.
    """
    if grid.dtype != np.float64 or grid.ndim != 3 or not grid.flags.c_contiguous:
        raise BadInput(
            f"deposit needs a C-contiguous float64 grid of rank 3, not {grid.dtype} "
            f"of rank {grid.ndim}"
        )
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise BadInput(f"particle positions must have shape (M, 3), not {positions.shape}")
    if weights is not None and weights.shape != positions.shape[:1]:
        raise BadInput(f"{len(positions)} particles but weights of shape {weights.shape}")
    sides = np.broadcast_to(np.asarray(box_size, dtype=np.float64), (3,))
    if not (np.isfinite(sides) & (sides > 0)).all():
        raise BadInput(f"box size {box_size} must be positive")
    for start in range(0, len(positions), CHUNK):
        part = slice(start, start + CHUNK)
        _deposit_chunk(
            grid, positions[part], sides, None if weights is None else weights[part], start
        )


def _deposit_chunk(
    grid: NDArray[np.float64],
    positions: NDArray[np.floating],
    sides: NDArray[np.float64],
    weights: NDArray[np.floating] | None,
    start: int,
) -> None:
    finite = np.isfinite(positions).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        raise BadInput(f"particle {start + bad} has position {positions[bad].tolist()}: not finite")
    if weights is not None and not np.isfinite(weights).all():
        bad = int(np.argmin(np.isfinite(weights)))
        raise BadInput(f"particle {start + bad} has weight {weights[bad]}: not finite")
    index: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    share: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for axis, n in enumerate(grid.shape):
        u = positions[:, axis].astype(np.float64) * (n / sides[axis]) - 0.5
        low = np.floor(u)
        f = u - low
        i = low.astype(np.int64) % n
        index.append((i, (i + 1) % n))
        share.append((1.0 - f, f))
    flat = grid.reshape(-1)
    _, ny, nz = grid.shape
    for a, b, c in product((0, 1), repeat=3):
        w = share[0][a] * share[1][b] * share[2][c]
        if weights is not None:
            w *= weights
        np.add.at(flat, (index[0][a] * ny + index[1][b]) * nz + index[2][c], w)


def density_contrast(
    chunks: Iterable[NDArray[np.floating]],
    shape: tuple[int, int, int],
    box_size: float | tuple[float, float, float],
) -> NDArray[np.float64]:
    """1 + delta, float64 of ``shape``, of equal-mass particles given in chunks of (M, 3).

    The mean is 1. Raises BadInput when there is no particle at all.
    """
    grid = np.zeros(shape)
    total = 0
    for positions in chunks:
        deposit(grid, positions, box_size)
        total += len(positions)
    if total == 0:
        raise BadInput("no particles to deposit")
    grid *= math.prod(shape) / total
    return grid
