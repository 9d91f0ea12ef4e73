"""Measure the cylindrical power spectrum P(k_parallel, k_perpendicular) out of core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from bigbox.analysis.spectra.modes import CylinderBins, box_sides, spectrum_unit
from bigbox.analysis.spectra.power import Options, mode_sums
from bigbox.analysis.spectra.spectrum import Float
from bigbox.errors import BadInput


@dataclass(frozen=True)
class Cylinder:
    """P in bins of the wavenumber along the line of sight (rows) and across it (columns).

    power: (parallel, transverse), (Mpc/h)^3 x unit^2, NaN where a bin has no mode; modes: their
    number, a mode and its conjugate counted as two; edges in h/Mpc; axis: the line of sight, 0 to
    2.
    """

    axis: int
    power: Float
    modes: npt.NDArray[np.int64]
    parallel_edges: Float
    transverse_edges: Float
    units: str


def cylinder(
    array: Any,
    box_size: float | Sequence[float],
    *,
    axis: int = 2,
    bins: int = 24,
    **options: Unpack[Options],
) -> Cylinder:
    """Return the cylindrical spectrum of a periodic array (X, Y, Z), out of core.

    Parameters
    ----------
    axis : The line of sight.
    bins : Of equal width from 0 to Nyquist, on either axis.
    **options : See `bigbox.analysis.spectra.power.Options`.
    """
    if axis not in (0, 1, 2):
        raise BadInput(f"line of sight {axis}: must be axis 0, 1 or 2")
    sides = box_sides(array.shape, box_size)
    # From just above the last mode, so that Nyquist itself is in.
    top = [np.pi * n / s * (1 + 1e-9) for n, s in zip(array.shape, sides, strict=True)]
    along = np.linspace(0, top.pop(axis), bins + 1)
    across = np.linspace(0, min(top), bins + 1)
    found, sums = mode_sums([array], box_size, CylinderBins(along, across, axis), **options)
    modes, _, (power,) = found.means(sums)
    return Cylinder(
        axis=axis,
        power=power.reshape(bins, bins),
        modes=modes.reshape(bins, bins),
        parallel_edges=along,
        transverse_edges=across,
        units=spectrum_unit(options.get("unit", ""), options.get("normalise", False)),
    )
