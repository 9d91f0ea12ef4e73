"""How particles become a density grid: cloud-in-cell (CIC) deposit with periodic wrap.

A particle is a cube of one voxel's size; each voxel receives the share of that cube which lies in
it. Voxel i covers [i, i+1) voxel sizes, so its centre is at i + 1/2:

      |     i     |    i+1    |        u = x / voxel - 1/2,  i = floor(u),  f = u - i
      |     o-----|--x--o     |        voxel i   receives 1 - f
      |        [=====p====]   |        voxel i+1 receives f          (the same on each axis)

`deposit` adds to a whole periodic grid in memory, in float64. `deposit_fixed` adds to one window of
a larger one, in fixed point: sums of integers do not depend on the order of the particles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput

CHUNK = 1 << 18
"""Particles deposited at once; bounds the working memory to about 50 MB beside the grid."""

PLACE_BITS = 23
PLACE = 1 << PLACE_BITS
"""Steps per voxel in which `deposit_fixed` takes positions: an error of at most 6e-8 of a voxel."""


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
    _scatter(grid, index, share, weights)


def deposit_fixed(
    grid: NDArray[np.int64],
    places: NDArray[np.uint32],
    weights: NDArray[np.floating] | None,
    exponent: int,
) -> None:
    """Add particles to a window of a grid in place, in units of 2^-exponent.

    grid      int64 (nx, ny, nz), C-contiguous, without wrap
    places    uint32 (M, 3): (x / voxel - 1/2) * PLACE from the window's corner, so that the lower
              voxel is places // PLACE, at most n - 2
    weights   (M,), 1 each if None
    exponent  see `fixed_exponent`; each share is rounded to the nearest unit

    The same particles give the same bits in whatever order and in however many calls.
    """
    index: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    share: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for axis in range(3):
        low = (places[:, axis] >> PLACE_BITS).astype(np.int64)
        f = (places[:, axis] & (PLACE - 1)).astype(np.float64) / PLACE
        index.append((low, low + 1))
        share.append((1.0 - f, f))
    scaled = np.full(1, 2.0**exponent) if weights is None else weights * 2.0**exponent
    _scatter(grid, index, share, scaled)


def fixed_exponent(count: int, heaviest: float) -> int:
    """The exponent of `deposit_fixed` at which ``count`` weights of at most ``heaviest`` fit.

    Their sum stays under 2^62, whatever voxel they fall into.
    """
    return 61 - math.frexp(max(count, 1) * max(heaviest, 1e-300))[1]


def _scatter(
    grid: NDArray,
    index: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    share: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    weights: NDArray[np.floating] | None,
) -> None:
    """Each particle's eight shares into the voxels of its eight pairs of indices."""
    flat = grid.reshape(-1)
    _, ny, nz = grid.shape
    for a, b, c in product((0, 1), repeat=3):
        w = share[0][a] * share[1][b] * share[2][c]
        if weights is not None:
            w *= weights
        if grid.dtype == np.int64:
            w = np.rint(w, out=w).astype(np.int64)
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
