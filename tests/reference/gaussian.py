"""The Gaussian painter's field g as it is known in closed form: its spectrum and covariance."""

from __future__ import annotations

import numpy as np

from bigbox.painters.gaussian import ORDER, SMOOTHING, axis_filter


def axis_power(k: np.ndarray) -> np.ndarray:
    """Return P(k) of g along one axis, k in radians per voxel; its mean over (-pi, pi) is 1."""
    a, innovation = axis_filter()
    b = SMOOTHING**2 / 4
    at_zero = innovation / a.sum() ** 2
    return np.asarray(at_zero * (1 + b * 2 * (1 - np.cos(k))) ** -float(ORDER))


def true_power(shape: tuple[int, int, int]) -> np.ndarray:
    """Return <|fftn(g)|^2> / N_voxels of every mode of g on a periodic box, float64 as fftn(g)."""
    px, py, pz = (axis_power(2 * np.pi * np.arange(n) / n) for n in shape)
    return np.asarray(px[:, None, None] * py[:, None] * pz)


def axis_covariance(tile: int) -> np.ndarray:
    """Return the covariance (tile, tile) of g along one axis, float64."""
    k = 2 * np.pi * np.arange(4096) / 4096
    c = np.fft.ifft(axis_power(k)).real
    return np.asarray(c[abs(np.arange(tile)[:, None] - np.arange(tile)[None])])
