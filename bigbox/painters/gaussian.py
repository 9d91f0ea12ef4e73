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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bigbox.diffusion.overlap import Known
from bigbox.diffusion.schedule import STRAIGHT_PATH, Schedule
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
    **STRAIGHT_PATH,
}


@lru_cache(maxsize=1)
def axis_filter() -> tuple[np.ndarray, float]:
    """Return coefficients (5,) of (1 - pole z)^4, and the innovation's variance if g has 1.

    The fourfold pole is that of b (z + 1/z) = 1 + 2 b with b = R^2 / 4.
    """
    b = SMOOTHING**2 / 4
    pole = float((1 + 2 * b - np.sqrt(1 + 4 * b)) / (2 * b))
    a = np.ones(1)
    for _ in range(ORDER):
        a = np.convolve(a, [1.0, -pole])
    k = 2 * np.pi * np.arange(4096) / 4096
    response = abs(np.exp(-1j * np.outer(k, np.arange(ORDER + 1))) @ a) ** -2
    return a, float(1.0 / response.mean())


def axis_precision(tile: int) -> np.ndarray:
    """Return the inverse of the covariance (tile, tile) of g along one axis, float64; tile >= 4.

    Gohberg-Semencul: banded (A A^T - B B^T) / innovation variance, no inversion needed. A and B are
    lower triangular Toeplitz matrices of the coefficients, and of them in reverse.
    """
    a, innovation = axis_filter()
    forward, backward = np.zeros((2, tile, tile))
    for lag in range(ORDER + 1):
        forward += a[lag] * np.eye(tile, k=-lag)
        backward += a[lag] * np.eye(tile, k=lag - tile)
    return np.asarray((forward @ forward.T - backward @ backward.T) / innovation)


class AxisLaw(NamedTuple):
    """One axis of the law of U given its slabs, float64, zero outside U."""

    vectors: np.ndarray  # (t, t), eigenvectors of the covariance, as columns
    values: np.ndarray  # (t,), its eigenvalues
    mean: np.ndarray  # (t, t), (Q_UU)^-1 Q: the product over the axes has the mean's sign


@lru_cache(maxsize=256)
def axis_law(tile: int, low: int, high: int) -> AxisLaw:
    """Return the law along one axis with known slabs of `low` and `high` voxels."""
    q = axis_precision(tile)
    u = slice(low, tile - high)
    precision, modes = np.linalg.eigh(q[u, u])
    vectors, inverse, values = *np.zeros((2, tile, tile)), np.zeros(tile)
    vectors[u, u], values[u] = modes, 1.0 / precision
    inverse[u, u] = (modes / precision) @ modes.T
    return AxisLaw(vectors, values, inverse @ q)


def apply_axes(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply each axis of x (B, n0, n1, n2) with matrices (B, n_a, m_a), x_a -> m_a.

    Each product takes the first axis away and appends the new one, so after three the axes are back
    in their order and all three are the same kind of matrix product, without a copy.
    """
    for matrix in matrices:
        rows = x.flatten(2).transpose(1, 2)
        x = torch.bmm(rows, matrix).view(len(x), *x.shape[2:], matrix.shape[2])
    return x


class GaussianDenoiser:
    """E[x0 | z, known] for z = alpha x0 + sigma eps: the exact Denoiser of g.

    In the eigenbasis of the covariance each mode of variance v is shrunk by alpha v / (alpha^2 v +
    sigma^2) towards the conditional mean; known voxels come out as they are known.
    """

    def __init__(self, known: Known, schedule: Schedule) -> None:
        x0, tile = known.x0, known.x0.shape[-1]
        widths = known.width.transpose(1, 0, 2).tolist()
        laws = [[axis_law(tile, low, high) for low, high in axis] for axis in widths]
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

    def denoise(self, z: Tensor, step: int | np.ndarray) -> Tensor:
        """Return the estimate of x0, (B, t, t, t)."""
        alpha, noise = self.schedule.alphas[step], self.schedule.sigmas[step] ** 2
        rest = z if self.base is None else torch.sub(z, self.base, alpha=float(alpha))
        modes = apply_axes(rest, self.forward)
        shrink = torch.mul(self.variance, _each(alpha, z)).add_(_each(noise / alpha, z))
        torch.div(self.variance, shrink, out=shrink)
        modes.mul_(shrink)
        x0 = apply_axes(modes, self.backward)
        return x0 if self.base is None else x0.add_(self.base)


def _each(values: np.ndarray, like: Tensor) -> Tensor:
    """Return numbers, of all tiles or of each, to multiply `like` (B, t, t, t) with."""
    return torch.from_numpy(np.atleast_1d(values)).to(like)[:, None, None, None]


def _stack(axes: list[list[np.ndarray]], like: Tensor) -> list[Tensor]:
    return [torch.from_numpy(np.stack(axis)).to(like) for axis in axes]


@dataclass(frozen=True)
class GaussianPainter(DiffusionPainter):
    """Paints T_b = m + s g in mK with the exact denoiser; see PainterSettings for the arguments.

    double: compute in float64 (a reference for tests; the results are float32 all the same).
    """

    double: bool = False
    grid: int = 1

    name: ClassVar[str] = "gaussian"
    input: ClassVar[str] = "dm"
    margin: ClassVar[int] = MARGIN
    channels: ClassVar[int] = 1
    # One tile fills a CPU's cache.
    TILES_PER_CALL: ClassVar[dict[str, int]] = {"cpu": 1, "cuda": 32}

    def __post_init__(self) -> None:
        if self.tile < ORDER:
            raise BadInput(f"gaussian painter: tile {self.tile} is below {ORDER}; use larger tiles")

    @cached_property
    def schedule(self) -> Schedule:
        """The noise levels."""
        return Schedule(self.steps, **SCHEDULES[self.sampler])

    def _own_identity(self) -> dict[str, Any]:
        return {
            "mean_mK": MEAN_MK,
            "scatter_mK": SCATTER_MK,
            "smoothing_voxels": SMOOTHING,
            "double": self.double,
        }

    def units(self, condition: Tensor) -> DenoiserUnits:
        """Return the units of these tiles from their density, (B, 1, n, n, n)."""
        matrices = [self._kernel.expand(len(condition), -1, -1)] * 3
        mean = apply_axes(condition[:, 0], matrices).mul_(MEAN_MK)
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
        edge = self.tile + 2 * MARGIN
        matrix = np.zeros((edge, self.tile))
        for place, tap in enumerate(taps / taps.sum()):
            matrix += tap * np.eye(edge, self.tile, k=-place)
        return self._tensor(matrix)
