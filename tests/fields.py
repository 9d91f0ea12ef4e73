"""Fields whose spectrum is known exactly, and seams of known strength to plant in them."""

from __future__ import annotations

import numpy as np
import scipy.fft

from bigbox.scheduler.tiling import Tiling
from tests.reference.tilings import level

PLANTED = ("step", "offset", "dip", "gain")


def autoregressive(shape: tuple[int, int, int], smoothing: float = 2.0) -> np.ndarray:
    """The separable spectrum of the Gaussian painter (mean 1): <|fftn|^2> / voxels, rfftn modes.

    [1 + R^2/4 2 (1 - cos k)]^-4 on each axis, R voxels.
    """

    def axis(n: int) -> np.ndarray:
        p = (1 + smoothing**2 / 4 * 2 * (1 - np.cos(2 * np.pi * np.arange(n) / n))) ** -4.0
        return p / p.mean()

    px, py, pz = (axis(n) for n in shape)
    return px[:, None, None] * py[None, :, None] * pz[None, None, : shape[2] // 2 + 1]


def isotropic(
    shape: tuple[int, int, int], smoothing: float = 1.5, slope: float = -1.5
) -> np.ndarray:
    """|k|^slope exp(-k^2 R^2), R voxels, unit variance, on the modes of rfftn."""
    kx, ky = (2 * np.pi * np.fft.fftfreq(n) for n in shape[:2])
    kz = 2 * np.pi * np.fft.rfftfreq(shape[2])
    k2 = kx[:, None, None] ** 2 + ky[None, :, None] ** 2 + kz**2
    k2[0, 0, 0] = 1.0
    p = k2 ** (slope / 2) * np.exp(-k2 * smoothing**2)
    p[0, 0, 0] = 0.0
    weight = np.full(len(kz), 2.0)
    weight[0] = 1.0
    if shape[2] % 2 == 0:
        weight[-1] = 1.0
    return p * (np.prod(shape) / (p * weight).sum())


def draw(spectrum: np.ndarray, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """One exact periodic Gaussian field, float32 (X, Y, Z), of the given power of rfftn modes."""
    white = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    modes = scipy.fft.rfftn(white, overwrite_x=True)
    modes *= np.sqrt(spectrum).astype(np.float32)
    return scipy.fft.irfftn(modes, s=shape, overwrite_x=True)


def plant(
    field: np.ndarray, tiling: Tiling, kind: str, strength: float, seed: int = 0
) -> np.ndarray:
    """The field with seams of `strength` (a fraction of its rms) at the owners' boundaries.

    step    tiles of even and odd level lie apart by strength x rms
    offset  every tile is shifted by its own normal number of strength x rms
    dip     the two voxels on either side of a seam have an amplitude lower by that fraction
    gain    tiles of even and odd level differ in amplitude by that fraction
    """
    owner = [tiling.owner(_line(n, a)) for a, n in enumerate(tiling.shape)]
    at = [tiling.coords(o)[:, a] for a, o in enumerate(owner)]
    grid = np.ix_(*at)
    tiles = np.arange(tiling.size)
    if kind == "dip":
        factors = []
        for a in range(3):
            first = np.flatnonzero(at[a] != np.roll(at[a], 1))
            f = np.ones(tiling.shape[a])
            for d in (-2, -1, 0, 1):
                f[(first + d) % tiling.shape[a]] = 1 - strength
            factors.append(f)
        x, y, z = np.ix_(*factors)
        return (field * np.minimum(np.minimum(x, y), z)).astype(np.float32)
    if kind == "offset":
        of_tile = strength * np.random.default_rng(seed).standard_normal(tiling.size)
    elif kind in ("step", "gain"):
        of_tile = strength * (level(tiling, tiles).astype(np.float64) % 2 - 0.5)
    else:
        raise ValueError(f"kind {kind!r} is not known: choose {', '.join(PLANTED)}")
    box = of_tile.reshape(tiling.counts)[grid]
    if kind == "gain":
        return (field * (1 + box)).astype(np.float32)
    return (field + field.std() * box).astype(np.float32)


def _line(n: int, axis: int) -> np.ndarray:
    voxels = np.zeros((n, 3), np.int64)
    voxels[:, axis] = np.arange(n)
    return voxels
