"""Gaussian smoothing of fields: a separable kernel in real space, block by block.

    |<-- m -->|<----------- n - 2m ----------->|<-- m -->|
    +---------+--------------------------------+---------+
    |  read   |             written            |  read   |      m = 4 R / voxel
    +---------+--------------------------------+---------+

A voxel's result is a sum over the same 2m + 1 neighbours in the same order wherever the block
begins, so cutting a box into blocks changes no bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from bigbox.errors import BadInput

TRUNCATE = 4.0  # standard deviations at which the kernel ends; a share of 6e-5 an axis lies beyond
DEFAULT_RADIUS = 0.2
"""Mpc/h: the radius R with which all maps of the paper are smoothed (§2.1.2, §2.2.2)."""


def gaussian_kernel(radius_mpch: float, voxel_mpch: float) -> NDArray[np.float64]:
    """Return exp(-r²/2R²) at the voxels' distances along one axis, float64 (2m + 1,), sum 1.

    Radius R and voxel in Mpc/h. It is sampled, not integrated over voxels; for R of at least one
    voxel its transform is exp(-k²R²/2) to the truncation's 6e-5. Radius 0 gives [1].
    """
    if not (math.isfinite(radius_mpch) and radius_mpch >= 0):
        raise BadInput(f"smoothing: radius {radius_mpch} Mpc/h must be a number of at least 0")
    if not (math.isfinite(voxel_mpch) and voxel_mpch > 0):
        raise BadInput(f"smoothing: voxel {voxel_mpch} Mpc/h must be a positive number")
    m = math.ceil(TRUNCATE * radius_mpch / voxel_mpch - 1e-9)
    if m == 0:
        return np.ones(1)
    offset = np.arange(-m, m + 1) * (voxel_mpch / radius_mpch)
    kernel: NDArray[np.float64] = np.exp(-0.5 * offset**2)
    return kernel / np.sum(kernel)


def smooth(
    block: NDArray[np.float32], kernel: NDArray[np.float64], step: int = 1
) -> NDArray[np.float32]:
    """Convolve the last three axes, "valid" only: (..., n, n, n) -> float32 (..., n - 2m, ...).

    step: take only every `step`-th voxel of the result on each axis, bit for bit, with less work.

    Axis by axis, sums in float64, float32 between the axes. The bits of a voxel depend on nothing
    but the values within m of it. Raises BadInput where an axis is shorter than the kernel.
    """
    m = len(kernel) // 2
    if len(kernel) != 2 * m + 1:
        raise BadInput(f"smoothing: a kernel has an odd number of values, not {len(kernel)}")
    if block.ndim < 3 or min(block.shape[-3:]) <= 2 * m:
        raise BadInput(f"smoothing: {block.shape} voxels are less than the kernel's {2 * m + 1}")
    out = np.ascontiguousarray(block, np.float32)
    if m == 0:
        return out[(..., *(slice(None, None, step),) * 3)].copy()
    for axis in (-3, -2, -1):
        whole = correlate1d(out, kernel, axis=axis, mode="constant")
        cut = [slice(None)] * out.ndim
        cut[axis] = slice(m, out.shape[axis] - m, step)
        out = np.ascontiguousarray(whole[tuple(cut)])
    return out


def band(kernel: NDArray[np.float64], n: int) -> NDArray[np.float32]:
    """Return the matrix that convolves an axis of n + 2m voxels to n, float32 (n, n + 2m)."""
    matrix = np.zeros((n, n + len(kernel) - 1), np.float32)
    for row in range(n):
        matrix[row, row : row + len(kernel)] = kernel
    return matrix


def smooth_periodic(field: NDArray[Any], kernel: NDArray[np.float64]) -> NDArray[np.float32]:
    """Smooth a whole periodic box in memory, any real dtype (..., X, Y, Z) -> float32, same shape.

    Bit for bit what `smooth` gives for its blocks.
    """
    m = len(kernel) // 2
    pad = [(0, 0)] * (np.ndim(field) - 3) + [(m, m)] * 3
    return smooth(np.pad(np.asarray(field, np.float32), pad, mode="wrap"), kernel)
