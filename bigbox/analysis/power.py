"""Power spectra of fields in memory: auto, cross, r(k), transfer function, and their conventions.

    P(k) = V <|delta_k|^2>,   delta_k = FFT(field) / N_voxels,   V the volume of the box

in (Mpc/h)^3 times the field's unit squared, k in h/Mpc, averaged over the modes of a bin of |k|.
The zero mode is left out. The mean |k| of a bin's modes is its k. A mode and its conjugate count as
two, so `modes / 2` are independent.

The field is not changed by default; `normalise=True` takes T_b / <T_b> (Mishra, Trotta & Viel 2025
(LODI), eqs. 15-16). `bigbox.analysis.large` makes the same spectra out of core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from bigbox.analysis.shells import (
    WINDOWS,
    ModeSums,
    Shells,
    Window,
    default_edges,
    label,
    log_edges,
    mean_of,
)
from bigbox.analysis.spectrum import Pair, Spectrum, correlation, delta2, transfer
from bigbox.errors import BadInput

__all__ = [
    "WINDOWS",
    "Pair",
    "Spectrum",
    "correlation",
    "default_edges",
    "delta2",
    "log_edges",
    "pair",
    "power",
    "transfer",
]


def power(
    field: npt.ArrayLike,
    box_size: float | Sequence[float],
    other: npt.ArrayLike | None = None,
    *,
    edges: npt.ArrayLike | None = None,
    window: Window | tuple[Window, Window] = None,
    shot_noise: float = 0.0,
    normalise: bool = False,
    unit: str = "",
    workers: int = 1,
) -> Spectrum:
    """Spectrum of a periodic field (X, Y, Z), or its cross spectrum with `other`.

    box_size    Mpc/h, one number for a box of cubic voxels (its x axis) or one per axis
    edges       h/Mpc, ascending; None: bins of width 2 pi / L around its multiples, to Nyquist
    window      "ngp", "cic" or "tsc": divide each mode by that mass assignment's window squared;
                two of them for a cross spectrum of fields that were assigned differently
    shot_noise  (Mpc/h)^3, 1 / number density of the particles: subtracted from each mode before
                the window is divided out, with the aliased shape of the window (Jing 2005, eq. 21)
    normalise   spectrum of field / <field>
    unit        the field's unit, for the label alone ("mK")

    float64 arrays are transformed in float64, everything else in float32. Raises BadInput for
    arrays that are not 3-D, not alike, not finite, or constant.
    """
    fields = [field] if other is None else [field, other]
    found = _measure(fields, box_size, edges, window, shot_noise, normalise, unit, workers)
    return found[-1]


def pair(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    box_size: float | Sequence[float],
    *,
    edges: npt.ArrayLike | None = None,
    window: Window | tuple[Window, Window] = None,
    normalise: bool = False,
    unit: str = "",
    workers: int = 1,
) -> Pair:
    """The auto spectra of two fields and their cross spectrum; arguments as in `power`."""
    found = _measure([first, second], box_size, edges, window, 0.0, normalise, unit, workers)
    return Pair(*found)


def _contrast(field: npt.ArrayLike, normalise: bool, name: str) -> npt.NDArray[Any]:
    values = np.asarray(field)
    if values.ndim != 3:
        raise BadInput(f"{name}: has {values.ndim} dimensions {values.shape}: spectra need 3")
    if values.dtype != np.float64:
        values = values.astype(np.float32, copy=False)
    total = values.sum(dtype=np.float64)
    if not np.isfinite(total):
        bad = ~np.isfinite(values)
        where = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), values.shape))
        raise BadInput(
            f"{name}: {int(bad.sum())} voxels are not finite, the first at {where};"
            " paint or repair them first"
        )
    if values.min() == values.max():
        raise BadInput(f"{name}: is constant ({values.flat[0]:g} everywhere): it has no spectrum")
    mean = mean_of(float(total) / values.size, normalise, name)
    # The zero mode is left out anyway; without it the float32 transform loses no digits to it.
    values = values - values.dtype.type(mean)
    if normalise:
        values /= values.dtype.type(mean)
    return values


def _measure(
    fields: Sequence[npt.ArrayLike],
    box_size: float | Sequence[float],
    edges: npt.ArrayLike | None,
    window: Window | tuple[Window, Window],
    shot_noise: float,
    normalise: bool,
    unit: str,
    workers: int,
) -> list[Spectrum]:
    """The auto spectrum of one field, or 11, 22 and 12 of two."""
    shapes = [np.shape(f) for f in fields]
    if len(set(shapes)) > 1:
        raise BadInput(f"fields have shapes {shapes[0]} and {shapes[1]}: they must be alike")
    names = ["field"] if len(fields) == 1 else ["first field", "second field"]
    modes = []
    for name, one in zip(names, fields, strict=True):
        contrast = _contrast(one, normalise, name)
        modes.append(scipy.fft.rfftn(contrast, workers=workers, overwrite_x=True))
        del contrast
    shells = Shells(default_edges(shapes[0], box_size) if edges is None else edges)
    sums = ModeSums(shapes[0], box_size, shells, window, shot_noise, 2 * len(fields) - 1)
    everything = slice(None)
    sums.add((everything, everything, everything), modes)
    return sums.spectra(shells.edges, label(unit, normalise))
