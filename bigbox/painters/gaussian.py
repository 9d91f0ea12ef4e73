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

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bigbox.diffusion import Context, Known, Schedule, impose, sample, told
from bigbox.errors import BadInput
from bigbox.noise import Purpose, normal
from bigbox.painters.base import TileBatch, check_batch, paste_known

MEAN_MK = 0.05  # T0: about the mean T_b at z = 0
SCATTER_MK = 0.02  # s
SMOOTHING = 2.0  # R in voxels: 0.2 Mpc/h at the reference resolution
ORDER = 4
MARGIN = 6  # the mean's kernel is cut at 3 R

# Chosen with the closed-form recursion, see bigbox/diffusion/schedule.py: the largest eigenvalue of
# C is 240, the smallest 1e-6, and modes of 0.24 and more are a thousandth of the peak power.
SCHEDULES = {
    "dpmpp": {"gamma_min": -8.0, "gamma_max": 11.0, "skew": 0.5, "to_zero": True},
    "ancestral": {"gamma_min": -10.0, "gamma_max": 8.0, "skew": 0.0, "to_zero": False},
}

# Tiles that go through the denoiser together. On a CPU one tile fills the cache; on a GPU the batch
# is filled up, because the kernels that a library picks, hence the bits, depend on its size.
INNER_BATCH = {"cpu": 1, "cuda": 32}


def axis_pole() -> float:
    """The fourfold pole of the autoregressive process: b (z + 1/z) = 1 + 2 b, b = R^2 / 4."""
    b = SMOOTHING**2 / 4
    return (1 + 2 * b - np.sqrt(1 + 4 * b)) / (2 * b)


@lru_cache(maxsize=1)
def _axis_filter() -> tuple[np.ndarray, float]:
    """Coefficients (5,) of (1 - pole z)^4, and the innovation's variance for unit variance of g."""
    a = np.ones(1)
    for _ in range(ORDER):
        a = np.convolve(a, [1.0, -axis_pole()])
    k = 2 * np.pi * np.arange(4096) / 4096
    response = abs(np.exp(-1j * np.outer(k, np.arange(ORDER + 1))) @ a) ** -2
    return a, float(1.0 / response.mean())


def axis_power(k: np.ndarray) -> np.ndarray:
    """P(k) of g along one axis, k in radians per voxel; its mean over (-pi, pi) is 1."""
    a, innovation = _axis_filter()
    b = SMOOTHING**2 / 4
    at_zero = innovation / a.sum() ** 2
    return at_zero * (1 + b * 2 * (1 - np.cos(k))) ** -float(ORDER)


def true_power(shape: tuple[int, int, int]) -> np.ndarray:
    """Power <|fftn(g)|^2> / N_voxels of every mode of g on a periodic box, float64 like fftn(g)."""
    px, py, pz = (axis_power(2 * np.pi * np.arange(n) / n) for n in shape)
    return px[:, None, None] * py[None, :, None] * pz[None, None, :]


def axis_precision(tile: int) -> np.ndarray:
    """Inverse of the covariance (tile, tile) of g along one axis, float64; tile >= 4.

    Gohberg-Semencul: banded (A A^T - B B^T) / innovation variance, no inversion needed. A and B are
    lower triangular Toeplitz matrices of the coefficients, and of them in reverse.
    """
    a, innovation = _axis_filter()
    forward, backward = np.zeros((tile, tile)), np.zeros((tile, tile))
    for lag in range(min(ORDER + 1, tile)):
        forward += a[lag] * np.eye(tile, k=-lag)
    for lag in range(max(0, tile - ORDER), tile):
        backward += a[tile - lag] * np.eye(tile, k=-lag)
    return (forward @ forward.T - backward @ backward.T) / innovation


def axis_covariance(tile: int) -> np.ndarray:
    """Covariance (tile, tile) of g along one axis, float64."""
    k = 2 * np.pi * np.arange(4096) / 4096
    c = np.fft.ifft(axis_power(k)).real
    return c[abs(np.arange(tile)[:, None] - np.arange(tile)[None])]


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
    """The law along one axis with known slabs of `low` and `high` voxels."""
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
        """The estimate of x0, (B, t, t, t)."""
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
class GaussianPainter:
    """Paints T_b = m + s g in mK with the exact denoiser; see make_painter for the arguments.

    double: compute in float64 (a reference for tests; the results are float32 all the same).
    threads: tiles painted side by side on a CPU. One thread each, because products of 32 x 32
    matrices are too small to share: OpenMP's barriers cost more than they bring, and very much
    more on a machine that is busy with other work.
    """

    seed: int
    box_shape: tuple[int, int, int]
    realization: int = 0
    tile: int = 32
    overlap_method: str = "conditioned"
    sampler: str = "dpmpp"
    steps: int = 25
    device: str = "cpu"
    double: bool = False
    threads: int = 1
    schedule: Schedule = field(init=False)

    name: ClassVar[str] = "gaussian"
    input: ClassVar[str] = "dm"
    margin: ClassVar[int] = MARGIN

    def __post_init__(self) -> None:
        if self.tile < ORDER:
            raise BadInput(f"gaussian painter: tile {self.tile} is below {ORDER}; use larger tiles")
        settings: dict[str, Any] = SCHEDULES[self.sampler]
        object.__setattr__(self, "schedule", Schedule(self.steps, **settings))

    @property
    def fields(self) -> int:
        """T_b, and in the latents method z of the steps 1 .. T - 1 (step T is keyed noise)."""
        return self.steps if self.overlap_method == "latents" else 1

    def identity(self) -> dict[str, Any]:
        """Everything that decides the painted bytes, as JSON values."""
        return {
            "painter": self.name,
            "version": 1,
            "seed": self.seed,
            "realization": self.realization,
            "tile": self.tile,
            "box_shape": list(self.box_shape),
            "overlap_method": self.overlap_method,
            "sampler": self.sampler,
            "schedule": self.schedule.as_dict(),
            "mean_mK": MEAN_MK,
            "scatter_mK": SCATTER_MK,
            "smoothing_voxels": SMOOTHING,
            "device": self._device_name(),
            "double": self.double,
        }

    def _device_name(self) -> str:
        """The kind of device: the bytes are promised for one kind only."""
        device = torch.device(self.device)
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    def paint(self, batch: TileBatch) -> np.ndarray:
        """float32 (B, F, t, t, t): T_b in mK, then the step latents in units of g."""
        check_batch(self, batch, self.tile, channels=1)
        result = np.empty(batch.known.shape, np.float32)
        inner = INNER_BATCH[torch.device(self.device).type]

        def some(first: int) -> None:
            part = np.arange(first, min(first + inner, len(batch)))
            painted = self._paint(batch, np.resize(part, inner))
            for slot, b in enumerate(part):
                result[b] = paste_known(painted[slot], batch.known[b], batch.width[b])

        firsts = range(0, len(batch), inner)
        if self.threads > 1 and torch.device(self.device).type == "cpu":
            list(self._pool.map(some, firsts))
        else:
            for first in firsts:
                some(first)
        return result

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, "tile", torch.set_num_threads, (1,))

    @torch.inference_mode()
    def _paint(self, batch: TileBatch, part: np.ndarray) -> np.ndarray:
        """The tiles `part` of the batch, float32 (len(part), F, t, t, t), nothing pasted yet."""
        condition = self._tensor(batch.inputs[part])
        fields = self._tensor(batch.known[part])
        width = batch.width[part]
        mean = apply_axes(condition[:, 0], self._smoothing(len(part))).mul_(MEAN_MK)
        x0 = ((fields[:, 0] - mean) / SCATTER_MK).contiguous()
        known = Known(x0, width, fields[:, 1:] if self.fields > 1 else None)
        x0.masked_fill_(~known.mask, 0.0)

        def noise(purpose: Purpose, step: int) -> Tensor:
            shape = (self.tile, self.tile, self.tile)
            drawn = normal(
                self.seed,
                self.realization,
                purpose,
                step,
                batch.origin[part],
                shape,
                self.box_shape,
                self.device,
            )
            return drawn.to(mean.dtype)

        context = Context(condition, told(self.overlap_method, known))
        denoiser = GaussianDenoiser(context.known, self.schedule)
        imposition = impose(self.overlap_method, known, self.schedule, noise)
        painted = sample(denoiser, self.schedule, self.sampler, noise, imposition)
        brightness = painted.mul_(SCATTER_MK).add_(mean)
        latents = imposition.latents
        result = (
            brightness[:, None]
            if latents is None
            else torch.cat([brightness[:, None], latents], dim=1)
        )
        return result.float().cpu().numpy()

    def _tensor(self, array: np.ndarray) -> Tensor:
        dtype = torch.float64 if self.double else torch.float32
        return torch.from_numpy(array).to(self.device, dtype)

    def _smoothing(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        matrix = self._kernel.expand(size, -1, -1)
        return matrix, matrix, matrix

    @cached_property
    def _kernel(self) -> Tensor:
        """(t + 2 margin, t): the Gaussian of R voxels, cut at the margin, of unit sum."""
        taps = np.exp(-(np.arange(-MARGIN, MARGIN + 1) ** 2) / (2 * SMOOTHING**2))
        taps /= taps.sum()
        matrix = np.zeros((self.tile + 2 * MARGIN, self.tile))
        for voxel in range(self.tile):
            matrix[voxel : voxel + 2 * MARGIN + 1, voxel] = taps
        return self._tensor(matrix)
