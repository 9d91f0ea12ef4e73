"""Gravity on a mesh: cloud-in-cell deposit, Poisson's equation by FFT, forces at the particles.

Mesh point i is at i cells; a particle at u cells shares itself between two points on each axis and
takes its force from the same two, with the same weights, so that it exerts none on itself:

      i-1         i          i+1        i+2
       o----------o-----x-----o----------o        u = i + f:  1 - f to i,  f to i+1

A CPU works through the mesh plane by plane, which a cache holds; a GPU, which would wait for the
launches of so many small kernels, on whole arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


class Mesh:
    """A periodic mesh of n^3 points (n even) over a box of `side` Mpc/h, for a CPU.

    Particles are float32 (3, M) in [0, side]; everything stays on `device`. Bits are the same for
    the same input on the same machine; on a GPU, where additions come in any order, to rounding.

    All is done plane by plane in memory that is taken once: on a CPU that halves the time.
    """

    chunk = 1 << 16  # particles whose mesh points are worked out at once: as a cache holds
    chunk_bytes = 280  # of each of these, meanwhile
    slab = 0  # bytes of the planes whose gradient is taken at once; at least one plane

    # Bytes for each mesh point: one grid, and three gradients in whose place the modes have been.
    point_bytes = 16

    def __init__(self, n: int, side: float, device: torch.device) -> None:
        self.n, self.side, self.device = n, side, device
        self._cell = side / n
        self._grid = torch.empty((n, n, n), device=device)
        self._gradients = torch.empty((n, n, n, 3), device=device)

    @property
    def planes(self) -> int:
        """Planes whose gradient is taken at once."""
        return max(1, self.slab // (4 * self.n**2))

    def density(self, positions: Tensor) -> Tensor:
        """Return 1 + delta of equal particles, float32 (n, n, n), until the mesh is used again."""
        grid = self._grid.zero_().view(-1)
        for _, points, weights in self._points(positions):
            for corner in range(8):
                grid.index_add_(0, points[corner], weights[corner])
        return self._grid.mul_(self.n**3 / positions.shape[1])

    def potential(self, positions: Tensor) -> Tensor:
        """Return phi with lap phi = delta of these particles, in (Mpc/h)^2, float32 (n, n, n).

        Good until the mesh is used again. Green's function is the exact -1/k^2: assignment and
        finite differences smooth the force over a cell or two, and undoing that was measured to
        bring nothing.
        """
        return self._solved(self.density(positions))

    def _solved(self, grid: Tensor) -> Tensor:
        """Return phi of a density on the mesh, which may be overwritten."""
        n, k2 = self.n, self._square_wave_numbers()
        modes = self._gradients.view(-1)[: n * n * (n + 2)].view(n, n, n // 2 + 1, 2)
        modes = torch.view_as_complex(modes)
        xz = k2.view(-1, 1) + k2[: n // 2 + 1]
        for x in range(n):
            modes[x] = torch.fft.rfft2(grid[x])
        for y in range(n):
            minus_k2 = -(xz + k2[y])
            if y == 0:
                minus_k2[0, 0] = torch.inf
            modes[:, y] = torch.fft.ifft(torch.fft.fft(modes[:, y], dim=0) / minus_k2, dim=0)
        for x in range(n):
            grid[x] = torch.fft.irfft2(modes[x], s=(n, n))
        return grid

    def _square_wave_numbers(self) -> Tensor:
        """Return k^2 along one axis, in the order of an FFT, (n,); the first half is an rfft's."""
        return (torch.fft.fftfreq(self.n, device=self.device) * (2 * np.pi / self._cell)).square()

    def at(self, field: Tensor, positions: Tensor) -> Tensor:
        """Return a mesh field, float32 (n, n, n, C), at each particle: (C, M)."""
        table = field.reshape(self.n**3, -1)
        found = torch.empty((table.shape[1], positions.shape[1]), device=self.device)
        for some, points, weights in self._points(positions):
            points, weights = points.t().contiguous(), weights.t().contiguous()
            bags = embedding_bag(points, table, per_sample_weights=weights, mode="sum")
            found[:, some] = bags.t()
        return found

    def kick(self, momenta: Tensor, positions: Tensor, amount: float) -> None:
        """Take amount * grad phi from the momenta, in place; both (3, M)."""
        gradient(self.potential(positions), self._gradients, self.planes)
        momenta.add_(self.at(self._gradients, positions), alpha=-amount / self._cell)

    def _points(self, positions: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield some particles, their 8 mesh points (flat index) and the weights, both (8, M)."""
        n = self.n
        for start in range(0, positions.shape[1], self.chunk):
            some = slice(start, start + self.chunk)
            u = positions[:, some] * (1.0 / self._cell)
            low = u.floor()
            above = u - low
            i = low.to(torch.int32 if n**3 < 2**31 else torch.int64)
            j = i + 1
            point = torch.where(i >= n, i - n, i), torch.where(j >= n, j - n, j)
            share = 1 - above, above
            points = torch.empty((2, 2, 2, u.shape[1]), dtype=i.dtype, device=u.device)
            weights = torch.empty((2, 2, 2, u.shape[1]), device=u.device)
            for a, b in product((0, 1), repeat=2):
                column = point[a][0] * (n * n) + point[b][1] * n
                weight = share[a][0] * share[b][1]
                for c in (0, 1):
                    torch.add(column, point[c][2], out=points[a, b, c])
                    torch.mul(weight, share[c][2], out=weights[a, b, c])
            yield some, points.view(8, -1), weights.view(8, -1)


class WholeMesh(Mesh):
    """The same for a GPU: FFTs of the whole mesh, and pieces that outlast a kernel's launch."""

    chunk = 1 << 22
    slab = 16_000_000  # what a GPU's cache holds with the intermediate results
    # One grid, three gradients and Green's function; in an FFT the modes, their copy that the
    # inverse takes, cuFFT's own, and the result.
    point_bytes = 48  # 47 measured

    def __init__(self, n: int, side: float, device: torch.device) -> None:
        super().__init__(n, side, device)
        k2 = self._square_wave_numbers()
        half = k2[: n // 2 + 1]
        self._minus_inverse = k2.view(-1, 1, 1) + k2.view(-1, 1) + half
        self._minus_inverse[0, 0, 0] = torch.inf
        self._minus_inverse.reciprocal_().neg_()

    def _solved(self, grid: Tensor) -> Tensor:
        modes = torch.fft.rfftn(grid)
        modes *= self._minus_inverse
        phi: Tensor = torch.fft.irfftn(modes, s=grid.shape)
        return phi


def kind_for(device: torch.device) -> type[Mesh]:
    """Return the kind of mesh that is fast on the device."""
    return WholeMesh if device.type == "cuda" else Mesh


def gradient(field: Tensor, out: Tensor, planes: int = 1) -> None:
    """Write the fourth-order gradient of a periodic field per cell into (n, n, n, 3); n >= 4.

    (8 (f[i+1] - f[i-1]) - (f[i+2] - f[i-2])) / 12 on each axis, so many planes at once.
    """
    for start in range(0, len(field), planes):
        some = slice(start, start + planes)
        here = field[some]
        for axis in range(3):
            padded = _between(field, some) if axis == 0 else _wrapped(here, axis)
            size = here.shape[axis]
            two_back, back, ahead, two = (padded.narrow(axis, i, size) for i in (0, 1, 3, 4))
            change = ahead - back
            torch.sub(two, change, alpha=8, out=change)
            torch.sub(two_back, change, out=change)
            torch.mul(change, 1 / 12, out=out[some, ..., axis])


def _wrapped(field: Tensor, axis: int) -> Tensor:
    """Two more layers at both ends of a periodic axis."""
    n = field.shape[axis]
    return torch.cat((field.narrow(axis, n - 2, 2), field, field.narrow(axis, 0, 2)), dim=axis)


def _between(field: Tensor, some: slice) -> Tensor:
    """Take planes of a periodic field, and two more on both sides: a view wherever it can be."""
    n, first, last = len(field), some.start - 2, min(some.stop, len(field)) + 2
    if first >= 0 and last <= n:
        return field[first:last]
    return field[torch.arange(first, last, device=field.device) % n]
