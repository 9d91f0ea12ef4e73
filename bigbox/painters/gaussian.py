"""The oracle: a painter whose denoiser is exact, so that samplers and stitching can be judged.

T_b = m(x) + s g(x). The mean is local, m = T0 (G_R * (1 + delta)). The rest, g, is a stationary
Gaussian field of unit variance whose covariance is a product over the axes, C = c x c x c, each c
with the spectrum of an autoregressive process of order 4 = the overlap (paper section 2.4),

    P(k)  ~  [1 + (R^2 / 4) 2 (1 - cos k)]^-4   ->   exp(-k^2 R^2) for small k,

the Gaussian smoothing of the paper's maps (R = 0.2 Mpc/h, two voxels). Such a field is Markov: four
known voxels next to a face tell all that anything beyond them could tell. A box painted tile after
tile, each conditioned on its slabs, has exactly the law of g; what is left is the sampler's error.

The part to paint is a cuboid U and the known part is the rest of the tile. With Q = C^-1, which is
again a product, the law of U given the rest is closed and again a product:

    covariance  (Q_UU)^-1 = x_a (Q_a[U_a, U_a])^-1          mean  -x_a (Q_a[U_a, U_a])^-1 Q_a  known

Everything is a 32 x 32 matrix per axis, cached by the slab widths, zero-padded to the tile, so that
tiles of any mask run in one batched product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bigbox.diffusion.overlap import Known
from bigbox.diffusion.schedule import Schedule
from bigbox.errors import BadInput
from bigbox.painters.diffusion import DenoiserUnits, DiffusionPainter

MEAN_MK = 0.05  # T0: about the mean T_b at z = 0
SCATTER_MK = 0.02  # s
SMOOTHING = 2.0  # R in voxels: 0.2 Mpc/h at the reference resolution
ORDER = 4
MARGIN = 6  # the mean's kernel is cut at 3 R

# Chosen with the closed-form recursion, see bigbox.diffusion.schedule: the largest eigenvalue of
# C is 240, the smallest 1e-6, and modes of 0.24 and more are a thousandth of the peak power.
SCHEDULES: dict[str, dict[str, Any]] = {
    "dpmpp-sde": {"gamma_min": -8.0, "gamma_max": 9.0, "skew": 0.4, "to_zero": True},
    "dpmpp": {"gamma_min": -8.0, "gamma_max": 11.0, "skew": 0.5, "to_zero": True},
    "ancestral": {"gamma_min": -10.0, "gamma_max": 8.0, "skew": 0.0, "to_zero": False},
}


def axis_pole() -> float:
    """Return the process's fourfold pole z, of b (z + 1/z) = 1 + 2 b with b = R^2 / 4."""
    b = SMOOTHING**2 / 4
    return float((1 + 2 * b - np.sqrt(1 + 4 * b)) / (2 * b))


@lru_cache(maxsize=1)
def _axis_filter() -> tuple[np.ndarray, float]:
    """Return coefficients (5,) of (1 - pole z)^4, and the innovation's variance if g has 1."""
    a = np.ones(1)
    for _ in range(ORDER):
        a = np.convolve(a, [1.0, -axis_pole()])
    k = 2 * np.pi * np.arange(4096) / 4096
    response = abs(np.exp(-1j * np.outer(k, np.arange(ORDER + 1))) @ a) ** -2
    return a, float(1.0 / response.mean())


def axis_power(k: np.ndarray) -> np.ndarray:
    """Return P(k) of g along one axis, k in radians per voxel; its mean over (-pi, pi) is 1."""
    a, innovation = _axis_filter()
    b = SMOOTHING**2 / 4
    at_zero = innovation / a.sum() ** 2
    return np.asarray(at_zero * (1 + b * 2 * (1 - np.cos(k))) ** -float(ORDER))


def true_power(shape: tuple[int, int, int]) -> np.ndarray:
    """Return <|fftn(g)|^2> / N_voxels of every mode of g on a periodic box, float64 as fftn(g)."""
    px, py, pz = (axis_power(2 * np.pi * np.arange(n) / n) for n in shape)
    return np.asarray(px[:, None, None] * py[:, None] * pz)


def axis_precision(tile: int) -> np.ndarray:
    """Return the inverse of the covariance (tile, tile) of g along one axis, float64; tile >= 4.

    Gohberg-Semencul: banded (A A^T - B B^T) / innovation variance, no inversion needed. A and B are
    lower triangular Toeplitz matrices of the coefficients, and of them in reverse.
    """
    a, innovation = _axis_filter()
    forward, backward = np.zeros((tile, tile)), np.zeros((tile, tile))
    for lag in range(min(ORDER + 1, tile)):
        forward += a[lag] * np.eye(tile, k=-lag)
    for lag in range(max(0, tile - ORDER), tile):
        backward += a[tile - lag] * np.eye(tile, k=-lag)
    return np.asarray((forward @ forward.T - backward @ backward.T) / innovation)


def axis_covariance(tile: int) -> np.ndarray:
    """Return the covariance (tile, tile) of g along one axis, float64."""
    k = 2 * np.pi * np.arange(4096) / 4096
    c = np.fft.ifft(axis_power(k)).real
    return np.asarray(c[abs(np.arange(tile)[:, None] - np.arange(tile)[None])])


@dataclass(frozen=True)
class Axis:
    """One axis of the law of U given its slabs, all (t, t) or (t,), float64, zero outside U.

    vectors, values: eigenvectors (columns) and eigenvalues of the covariance; mean: -(Q_UU)^-1 Q
    on the known voxels (the product over the axes has the sign taken out).
    """

    vectors: np.ndarray
    values: np.ndarray
    mean: np.ndarray


@lru_cache(maxsize=256)
def axis_law(tile: int, low: int, high: int) -> Axis:
    """Return the law along one axis with known slabs of `low` and `high` voxels."""
    q = axis_precision(tile)
    u = slice(low, tile - high)
    precision, modes = np.linalg.eigh(q[u, u])
    vectors, values, inverse = np.zeros((tile, tile)), np.zeros(tile), np.zeros((tile, tile))
    vectors[u, u] = modes
    values[u] = 1.0 / precision
    inverse[u, u] = (modes / precision) @ modes.T
    return Axis(vectors, values, inverse @ q)


def apply_axes(x: Tensor, matrices: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Multiply each axis of x (B, n0, n1, n2) with matrices (B, n_a, m_a), x_a -> m_a.

    Each product takes the first axis away and appends the new one, so after three the axes are back
    in their order and all three are the same kind of matrix product, without a copy.
    """
    size = x.shape[0]
    for matrix in matrices:
        rest = x.shape[2:]
        x = torch.bmm(x.reshape(size, x.shape[1], -1).transpose(1, 2), matrix)
        x = x.view(size, *rest, matrix.shape[2])
    return x


class GaussianDenoiser:
    """E[x0 | z, known] for z = alpha x0 + sigma eps: the exact Denoiser of g.

    In the eigenbasis of the covariance each mode of variance v is shrunk by alpha v / (alpha^2 v +
    sigma^2) towards the conditional mean; known voxels come out as they are known.
    """

    def __init__(self, known: Known, schedule: Schedule) -> None:
        x0, tile = known.x0, known.x0.shape[-1]
        laws = [
            [axis_law(tile, int(low), int(high)) for low, high in known.width[:, a]]
            for a in range(3)
        ]
        self.schedule = schedule
        self.forward = _stack([[law.vectors for law in axis] for axis in laws], x0)
        self.backward = _stack([[law.vectors.T for law in axis] for axis in laws], x0)
        v0, v1, v2 = (np.stack([law.values for law in axis]) for axis in laws)
        variance = v0[:, :, None, None] * v1[:, None, :, None] * v2[:, None, None, :]
        self.variance = torch.from_numpy(variance).to(x0)
        self.base: Tensor | None = None
        if known.width.any():
            double = x0.double()
            mean = _stack([[law.mean.T for law in axis] for axis in laws], double)
            self.base = (double - apply_axes(double, mean)).to(x0.dtype)

    def denoise(self, z: Tensor, step: int) -> Tensor:
        """Return the estimate of x0, (B, t, t, t)."""
        alpha, sigma = float(self.schedule.alphas[step]), float(self.schedule.sigmas[step])
        rest = z if self.base is None else torch.sub(z, self.base, alpha=alpha)
        modes = apply_axes(rest, self.forward)
        shrink = torch.mul(self.variance, alpha).add_(sigma * sigma / alpha)
        torch.div(self.variance, shrink, out=shrink)
        modes.mul_(shrink)
        x0 = apply_axes(modes, self.backward)
        return x0 if self.base is None else x0.add_(self.base)


def _stack(axes: list[list[np.ndarray]], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = (torch.from_numpy(np.stack(axis)).to(like) for axis in axes)
    return first, second, third


@dataclass(frozen=True)
class GaussianPainter(DiffusionPainter):
    """Paints T_b = m + s g in mK with the exact denoiser; see PainterSettings for the arguments.

    double: compute in float64 (a reference for tests; the results are float32 all the same).
    """

    double: bool = False

    name: ClassVar[str] = "gaussian"
    input: ClassVar[str] = "dm"
    margin: ClassVar[int] = MARGIN
    channels: ClassVar[int] = 1
    # One tile fills a CPU's cache.
    TILES_PER_CALL: ClassVar[dict[str, int]] = {"cpu": 1, "cuda": 32}

    def __post_init__(self) -> None:
        if self.tile < ORDER:
            raise BadInput(f"gaussian painter: tile {self.tile} is below {ORDER}; use larger tiles")
        super().__post_init__()

    def _schedule_ends(self) -> dict[str, Any]:
        return SCHEDULES[self.sampler]

    def _own_identity(self) -> dict[str, Any]:
        return {
            "mean_mK": MEAN_MK,
            "scatter_mK": SCATTER_MK,
            "smoothing_voxels": SMOOTHING,
            "double": self.double,
        }

    def units(self, condition: Tensor) -> DenoiserUnits:
        """Return the units of these tiles from their density, (B, 1, n, n, n)."""
        matrix = self._kernel.expand(len(condition), -1, -1)
        mean = apply_axes(condition[:, 0], (matrix, matrix, matrix)).mul_(MEAN_MK)
        return DenoiserUnits(
            normalise=lambda brightness: (brightness - mean) / SCATTER_MK,
            brightness=lambda x: x.mul_(SCATTER_MK).add_(mean),
            denoiser=lambda known: GaussianDenoiser(known, self.schedule),
        )

    def _tensor(self, array: np.ndarray) -> Tensor:
        dtype = torch.float64 if self.double else torch.float32
        return torch.from_numpy(array).to(self.device, dtype)

    @cached_property
    def _kernel(self) -> Tensor:
        """(t + 2 margin, t): the Gaussian of R voxels, cut at the margin, of unit sum."""
        taps = np.exp(-(np.arange(-MARGIN, MARGIN + 1) ** 2) / (2 * SMOOTHING**2))
        taps /= taps.sum()
        matrix = np.zeros((self.tile + 2 * MARGIN, self.tile))
        for voxel in range(self.tile):
            matrix[voxel : voxel + 2 * MARGIN + 1, voxel] = taps
        return self._tensor(matrix)
