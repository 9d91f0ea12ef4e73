"""Power spectra of fields in memory: auto, cross, r(k), transfer function, and their conventions.

    P(k) = V <|delta_k|^2>,   delta_k = FFT(field) / N_voxels,   V the volume of the box

in (Mpc/h)^3 times the field's unit squared, k in h/Mpc, averaged over the modes of a bin of |k|.
The zero mode is left out. The mean |k| of a bin's modes is its k. A mode and its conjugate count as
two, so `modes / 2` are independent.

The field is not changed by default; `normalise=True` takes T_b / <T_b> (Mishra, Trotta & Viel 2025
(LODI), eqs. 15-16). `bigbox.analysis.large` makes the same spectra out of core.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from bigbox.analysis.shells import WINDOWS, Shells, Window, default_edges, label, log_edges
from bigbox.analysis.spectrum import Float, Pair, Spectrum, correlation, delta2, transfer
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
    shells, sums = _measure(fields, box_size, edges, window, shot_noise, normalise, workers)
    kind = "auto" if other is None else "cross"
    return shells.spectrum(sums[-1], kind, label(unit, normalise))


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
    shells, sums = _measure([first, second], box_size, edges, window, 0.0, normalise, workers)
    units = label(unit, normalise)
    return Pair(
        shells.spectrum(sums[0], "auto", units),
        shells.spectrum(sums[1], "auto", units),
        shells.spectrum(sums[2], "cross", units),
    )


def mean_of(total: float, count: int, normalise: bool, name: str) -> float:
    """The mean that `normalise` divides by; raises BadInput where it is zero."""
    mean = total / count
    if normalise and (mean == 0 or not math.isfinite(1.0 / mean)):
        raise BadInput(f"{name}: has mean {mean:g}; T_b / <T_b> needs a mean that is not zero")
    return mean


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
    mean = mean_of(float(total), values.size, normalise, name)
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
    workers: int,
) -> tuple[Shells, list[Float]]:
    """Binned sums of the products 11 (one field) or 11, 22, 12 (two fields)."""
    shapes = [np.shape(f) for f in fields]
    if len(set(shapes)) > 1:
        raise BadInput(f"fields have shapes {shapes[0]} and {shapes[1]}: they must be alike")
    products = 3 if len(fields) == 2 else 1
    modes = []
    for i, one in enumerate(fields):
        contrast = _contrast(one, normalise, f"field {i + 1}" if len(fields) > 1 else "field")
        modes.append(scipy.fft.rfftn(contrast, workers=workers, overwrite_x=True))
        del contrast
    shells = Shells(shapes[0], box_size, edges, window, shot_noise, products)
    sums = [np.zeros(len(shells.edges) - 1) for _ in range(products)]
    everything = slice(None)
    planes = max(1, (1 << 20) // modes[0][0].size)
    for first in range(0, shapes[0][0], planes):
        rows = slice(first, min(first + planes, shapes[0][0]))
        found = shells.add((rows, everything, everything), products_of([m[rows] for m in modes]))
        for total, part in zip(sums, found, strict=True):
            total += part
    return shells, sums


def products_of(modes: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """|FFT|^2 of one block of modes; of two: both, and Re(FFT1 FFT2*)."""
    autos = [m.real.astype(np.float64) ** 2 + m.imag.astype(np.float64) ** 2 for m in modes]
    if len(modes) == 1:
        return autos
    a, b = modes
    cross = a.real.astype(np.float64) * b.real + a.imag.astype(np.float64) * b.imag
    return [*autos, cross]
