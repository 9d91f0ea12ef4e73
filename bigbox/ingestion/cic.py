"""How particles become a density grid: cloud-in-cell (CIC) deposit, in fixed point.

A particle is a cube of one voxel's size. Each voxel receives the share of that cube which lies in
it. Voxel i covers [i, i+1) voxel sizes, so its centre is at i + 1/2:

      |     i     |    i+1    |        u = x / voxel - 1/2,  i = floor(u),  f = u - i
      |     o-----|--x--o     |        voxel i   receives 1 - f
      |        [=====p====]   |        voxel i+1 receives f          (the same on each axis)

Sums of integers do not depend on the order of the particles.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 18
"""Particles deposited at once; bounds the working memory to about 50 MB beside the grid."""

PLACE_BITS = 23
PLACE = 1 << PLACE_BITS
"""Steps per voxel in which positions are given: an error of at most 6e-8 of a voxel."""


def deposit_fixed(
    grid: NDArray[np.int64],
    places: NDArray[np.uint32],
    weights: NDArray[Any] | None,
    exponent: int,
) -> None:
    """Add particles to a window of a grid in place, without wrap, in units of 2^-exponent.

    The same particles give the same bits in whatever order and in however many calls.

    Parameters
    ----------
    grid : int64 (nx, ny, nz), C-contiguous.
    places : uint32 (M, 3), (x / voxel - 1/2) * PLACE from the window's corner. The lower voxel is
        places // PLACE, at most n - 2.
    weights : (M,), 1 each if None.
    exponent : see `fixed_exponent`. Each share is rounded to the nearest unit.
    """
    flat = grid.reshape(-1)
    _, ny, nz = grid.shape
    along = np.ascontiguousarray(places.T)
    low, above = (along >> PLACE_BITS).astype(np.int64), (along & (PLACE - 1)) / PLACE
    share = 1.0 - above, above
    scaled = 2.0**exponent if weights is None else weights * 2.0**exponent
    for a, b, c in product((0, 1), repeat=3):
        part = share[a][0] * share[b][1] * share[c][2]
        part *= scaled
        voxel = ((low[0] + a) * ny + low[1] + b) * nz + low[2] + c
        np.add.at(flat, voxel, np.rint(part, out=part).astype(np.int64))


def fixed_exponent(count: int, heaviest: float) -> int:
    """Return the exponent at which the sum of ``count`` weights stays under 2^62 in any voxel."""
    return 61 - math.frexp(max(count, 1) * max(heaviest, 1e-300))[1]
