"""Measure the bispectrum of a few triangle shapes by FFT, out of core.

    B(k1, k2, k3) = V^2 <delta_q1 delta_q2 delta_q3>,  q1 + q2 + q3 = 0, q_i in the shell around k_i

The sum over all closed triangles of three shells is the mean over space of the product of three
fields, each made of one shell's modes (Scoccimarro 2000); the same with all modes 1 counts them.
Only the modes up to the largest k are needed: they are put on a grid just fine enough for their
triple product, which keeps the transforms small. Public codes for this (Pylians, PolyBin3D) need a
compiler to be installed, or cannot be installed as a dependency, hence these few lines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import scipy.fft

from bigbox.analysis.spectra.modes import (
    Float,
    Place,
    box_sides,
    nyquist,
    spectrum_unit,
    wavenumbers,
)
from bigbox.analysis.spectra.power import Resources, collect
from bigbox.errors import BadInput


@dataclass(frozen=True)
class Bispectrum:
    """One value per triangle.

    k: (n, 3) h/Mpc, as asked; value: (Mpc/h)^6 x unit^3; reduced: Q = B / (P1 P2 + P2 P3 + P3 P1);
    triangles: number of closed triples of modes (ordered, conjugates too); errors: of a Gaussian
    field with the shells' powers; width: of the shells, h/Mpc.
    """

    k: Float
    value: Float
    reduced: Float
    triangles: npt.NDArray[np.int64]
    errors: Float
    width: float
    units: str


def low_modes(
    shape: Sequence[int], most: Sequence[int], at: Place, modes: Sequence[npt.NDArray[Any]]
) -> npt.NDArray[np.complex128]:
    """Return the modes of a block of an rfftn with indices of at most `most` on each axis.

    They stand in an array (2 m + 1, 2 m + 1, m + 1): index i of the first two axes is the mode
    i - m. The zero mode is left out.
    """
    places, kept = [], []
    for axis, (where, n, m) in enumerate(zip(at, shape, most, strict=True)):
        rows = np.arange(*where.indices(n if axis < 2 else n // 2 + 1))
        index = (rows + n // 2) % n - n // 2 if axis < 2 else rows
        keep = np.flatnonzero(abs(index) <= m)
        kept.append(keep)
        places.append(index[keep] + (m if axis < 2 else 0))
    mx, my, mz = most
    low = np.zeros((2 * mx + 1, 2 * my + 1, mz + 1), np.complex128)
    low[np.ix_(*places)] = modes[0][np.ix_(*kept)]
    low[mx, my, 0] = 0
    return low


def bispectrum(
    array: Any,
    box_size: float | Sequence[float],
    triangles: npt.ArrayLike,
    *,
    width: float | None = None,
    normalise: bool = False,
    unit: str = "",
    **resources: Unpack[Resources],
) -> Bispectrum:
    """Return the bispectrum of a periodic array (X, Y, Z) for triangles (n, 3) of sides in h/Mpc.

    width: of the shells, h/Mpc; None: the fundamental mode. normalise: of field / <field>.
    Raise BadInput for sides that close no triangle or reach beyond Nyquist.
    """
    shape = tuple(int(n) for n in array.shape)
    sides = box_sides(shape, box_size)
    step = 2 * np.pi / max(sides)
    thick = step if width is None else float(width)
    k = np.atleast_2d(np.asarray(triangles, np.float64))
    _check_triangles(k, thick, nyquist(shape, sides))
    top = float(k.max()) + thick / 2
    most = [math.ceil(top * s / (2 * np.pi)) for s in sides]
    low = collect([array], partial(low_modes, shape, most), normalise=normalise, **resources)
    shells = _ShellFields(low, most, sides, thick)
    volume, count = math.prod(sides), math.prod(shape)
    rows = [shells.triangle(triple, volume, count) for triple in k]
    value, reduced, number, error = (np.array(c) for c in zip(*rows, strict=True))
    units = spectrum_unit(unit, normalise, 3)
    return Bispectrum(k, value, reduced, number.astype(np.int64), error, thick, units)


def _check_triangles(k: Float, width: float, top: float) -> None:
    if k.ndim != 2 or k.shape[1] != 3 or not np.isfinite(k).all() or not width > 0:
        raise BadInput("triangles: must be rows of three sides in h/Mpc, and shells of width > 0")
    for sides in k:
        longest, name = float(sides.max()), f"triangle {sides.round(5).tolist()} h/Mpc"
        if float(sides.min()) <= 0 or longest > sides.sum() - longest + 1.5 * width:
            raise BadInput(f"{name}: these sides close no triangle")
        if longest + width / 2 > top * (1 + 1e-9):
            raise BadInput(
                f"{name}: the longest side may be {top - width / 2:.4g}, Nyquist less half a shell"
            )


class _ShellFields:
    """Fields of one shell each, on a grid fine enough for products of three."""

    def __init__(
        self,
        low: npt.NDArray[np.complex128],
        most: Sequence[int],
        sides: Sequence[float],
        width: float,
    ) -> None:
        self.low, self.most, self.width = low, most, width
        # Sums of three indices reach 3 m: they must not come back as another sum's 0.
        self.grid = tuple(scipy.fft.next_fast_len(3 * m + 1, real=True) for m in most)
        kx, ky, _ = wavenumbers([2 * m + 1 for m in most], sides)
        kz = 2 * np.pi / sides[2] * np.arange(most[2] + 1)
        kx, ky = np.sort(kx), np.sort(ky)
        self._known: dict[float, tuple[Float, Float, float, float]] = {}
        self.length = np.sqrt(kx[:, None, None] ** 2 + ky[None, :, None] ** 2 + kz**2)

    def shell(self, k: float) -> tuple[Float, Float, float, float]:
        """Return the shell's field, that of modes all 1, number of modes, summed |mode|^2."""
        if k not in self._known:
            inside = (abs(self.length - k) < self.width / 2) & (self.length > 0)
            weight = np.where(np.arange(self.length.shape[2]) == 0, 1.0, 2.0) * inside
            squares = float((abs(self.low) ** 2 * weight).sum())
            field = self._field(np.where(inside, self.low, 0))
            ones = self._field(inside.astype(np.complex128))
            self._known[k] = field, ones, float(weight.sum()), squares
        return self._known[k]

    def _field(self, modes: npt.NDArray[Any]) -> Float:
        full = np.zeros((*self.grid[:2], self.grid[2] // 2 + 1), np.complex128)
        mx, my, mz = self.most
        rows = np.ix_(np.arange(-mx, mx + 1) % self.grid[0], np.arange(-my, my + 1) % self.grid[1])
        full[(*rows, slice(0, mz + 1))] = modes
        return np.asarray(scipy.fft.irfftn(full, s=self.grid, norm="forward", overwrite_x=True))

    def triangle(self, k: Float, volume: float, count: int) -> tuple[float, float, float, float]:
        """B, Q, number of triangles, Gaussian error."""
        shells = [self.shell(float(side)) for side in k]
        number = float(np.mean(shells[0][1] * shells[1][1] * shells[2][1]))
        if number < 0.5:
            return np.nan, np.nan, 0.0, np.nan
        total = float(np.mean(shells[0][0] * shells[1][0] * shells[2][0]))
        value = volume**2 * total / count**3 / number
        p = [volume * squares / count**2 / modes for _, _, modes, squares in shells]
        alike = {1: 6, 2: 2, 3: 1}[len(set(k.tolist()))]
        error = math.sqrt(alike * volume * p[0] * p[1] * p[2] / number)
        against = p[0] * p[1] + p[1] * p[2] + p[2] * p[0]
        return value, value / against if against > 0 else np.nan, round(number), error
