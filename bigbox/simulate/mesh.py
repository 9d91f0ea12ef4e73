"""Gravity on a mesh: cloud-in-cell deposit, Poisson's equation by FFT, forces at the particles.

Mesh point i is at i cells; a particle at u cells shares itself between two points on each axis and
takes its force from the same two, with the same weights, so that it exerts none on itself:

      i-1         i          i+1        i+2
       o----------o-----x-----o----------o        u = i + f:  1 - f to i,  f to i+1
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

CHUNK = 1 << 16  # particles whose mesh points are worked out at once: some MB, which a cache holds
BYTES = 16
"""Bytes for each mesh point: one grid, and three gradients in whose place the modes have been."""


class Mesh:
    """A periodic mesh of n^3 points (n even) over a box of `side` Mpc/h.

    Particles are float32 (3, M) in [0, side]; everything stays on `device`. Bits are the same for
    the same input on the same machine; on a GPU, where additions come in any order, to rounding.

    All is done plane by plane, which a cache holds, in memory that is taken once: on a CPU that
    halves the time.
    """

    def __init__(self, n: int, side: float, device: torch.device) -> None:
        self.n, self.side, self.device = n, side, device
        self._cell = side / n
        self._grid = torch.empty((n, n, n), device=device)
        self._gradients = torch.empty((n, n, n, 3), device=device)
        modes = self._gradients.view(-1)[: n * n * (n + 2)].view(n, n, n // 2 + 1, 2)
        self._modes = torch.view_as_complex(modes)

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
        n, grid, modes = self.n, self.density(positions), self._modes
        full = torch.fft.fftfreq(n, device=self.device) * (2 * np.pi / self._cell)
        k2 = full.square()
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
        gradient(self.potential(positions), self._gradients)
        momenta.add_(self.at(self._gradients, positions), alpha=-amount / self._cell)

    def _points(self, positions: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield some particles, their 8 mesh points (flat index) and the weights, both (8, M)."""
        n = self.n
        for start in range(0, positions.shape[1], CHUNK):
            some = slice(start, start + CHUNK)
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


def gradient(field: Tensor, out: Tensor) -> None:
    """Write the fourth-order gradient of a periodic field per cell into (n, n, n, 3); n >= 4.

    (8 (f[i+1] - f[i-1]) - (f[i+2] - f[i-2])) / 12 on each axis.
    """
    n = len(field)
    for i in range(n):
        y = torch.cat((field[i, -2:], field[i], field[i, :2]))
        z = torch.cat((field[i, :, -2:], field[i], field[i, :, :2]), dim=1)
        for axis, (two_back, back, ahead, two) in enumerate(
            (
                (field[i - 2], field[i - 1], field[(i + 1) % n], field[(i + 2) % n]),
                (y[:-4], y[1:-3], y[3:-1], y[4:]),
                (z[:, :-4], z[:, 1:-3], z[:, 3:-1], z[:, 4:]),
            )
        ):
            change = ahead - back
            change.mul_(8).sub_(two).add_(two_back)
            torch.mul(change, 1 / 12, out=out[i, ..., axis])
