"""Measure the cylindrical power spectrum P(k_parallel, k_perpendicular) out of core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from bigbox.analysis.spectra.modes import Axes, Shells, box_sides, power_unit
from bigbox.analysis.spectra.power import Options, mode_sums
from bigbox.analysis.spectra.spectrum import Float, jsonable
from bigbox.errors import BadInput


@dataclass(frozen=True)
class Cylinder:
    """P in bins of the wavenumber along the line of sight (rows) and across it (columns).

    power: (parallel, transverse), (Mpc/h)^3 x unit^2, NaN where a bin has no mode; modes: their
    number, a mode and its conjugate counted as two; k_parallel, k_transverse: mean of |k| along
    and across in each bin; edges in h/Mpc; axis: the line of sight, 0 to 2.
    """

    power: Float
    modes: npt.NDArray[np.int64]
    k_parallel: Float
    k_transverse: Float
    parallel_edges: Float
    transverse_edges: Float
    axis: int
    units: str

    def as_dict(self) -> dict[str, Any]:
        """Return the spectrum as JSON; NaN becomes null."""
        return {
            "axis": "xyz"[self.axis],
            "power": jsonable(self.power),
            "modes": self.modes.tolist(),
            "parallel_edges": self.parallel_edges.tolist(),
            "transverse_edges": self.transverse_edges.tolist(),
            "units": {"k": "h/Mpc", "power": self.units},
        }


class CylinderBins:
    """Bins of (|k_parallel|, |k_perpendicular|), numbered row by row; the zero mode is in none."""

    coordinates = 2

    def __init__(self, parallel: npt.ArrayLike, transverse: npt.ArrayLike, axis: int) -> None:
        self.parallel, self.transverse, self.axis = Shells(parallel), Shells(transverse), axis
        self.size = self.parallel.size * self.transverse.size

    def place(self, k: Axes) -> tuple[npt.NDArray[np.int64], tuple[Float, ...]]:
        """Return bin, |k_parallel| and |k_perpendicular| of each mode."""
        full = np.broadcast_arrays(k[0][:, None, None], k[1][None, :, None], k[2])
        first, second = (full[a].ravel() for a in range(3) if a != self.axis)
        along = np.asarray(abs(full[self.axis].ravel()), np.float64)
        width = np.asarray(np.sqrt(first**2 + second**2), np.float64)
        # The wavenumber 0 along or across belongs to the first bin, unlike the zero mode.
        i, j = (
            np.where((at == 0) & (shells.edges[0] == 0), 1, shells.number(at))
            for shells, at in ((self.parallel, along), (self.transverse, width))
        )
        inside = (i > 0) & (i <= self.parallel.size) & (j > 0) & (j <= self.transverse.size)
        inside &= (along > 0) | (width > 0)
        number = np.where(inside, (i - 1) * self.transverse.size + j, 0)
        return number.astype(np.int64), (along, width)


def cylinder(
    array: Any,
    box_size: float | Sequence[float],
    *,
    axis: int = 2,
    bins: int = 24,
    parallel_edges: npt.ArrayLike | None = None,
    transverse_edges: npt.ArrayLike | None = None,
    unit: str = "",
    **options: Unpack[Options],
) -> Cylinder:
    """Return the cylindrical spectrum of a periodic array (X, Y, Z), out of core.

    Parameters
    ----------
    axis : The line of sight.
    bins : Of equal width from 0 to Nyquist, where edges (h/Mpc) are not given.
    **options : See `bigbox.analysis.spectra.power.Options`.
    """
    if axis not in (0, 1, 2):
        raise BadInput(f"line of sight {axis}: must be axis 0, 1 or 2")
    sides = box_sides(array.shape, box_size)
    top = [np.pi * n / s for n, s in zip(array.shape, sides, strict=True)]
    # From just above the last mode, so that Nyquist itself is in.
    along = np.linspace(0, top[axis] * (1 + 1e-9), bins + 1)
    across = np.linspace(0, min(top[a] for a in range(3) if a != axis) * (1 + 1e-9), bins + 1)
    bins_ = CylinderBins(
        along if parallel_edges is None else parallel_edges,
        across if transverse_edges is None else transverse_edges,
        axis,
    )
    sums = mode_sums([array], box_size, bins_, **options)
    modes, (parallel, transverse), power = sums.means()
    shape = (bins_.parallel.size, bins_.transverse.size)
    return Cylinder(
        power=power[0].reshape(shape),
        modes=modes.reshape(shape),
        k_parallel=parallel.reshape(shape),
        k_transverse=transverse.reshape(shape),
        parallel_edges=bins_.parallel.edges,
        transverse_edges=bins_.transverse.edges,
        axis=axis,
        units=power_unit(unit, options.get("normalise", False)),
    )
