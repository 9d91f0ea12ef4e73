"""Power spectra by one FFT in memory, in the field's own precision: what the product must give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import scipy.fft

from bigbox.analysis.spectra.modes import (
    EVERYTHING,
    Conventions,
    ModeSums,
    Pair,
    Shells,
    Spectrum,
    default_edges,
    divisor,
    spectrum_unit,
)
from bigbox.errors import BadInput


def power_in_memory(
    field: npt.ArrayLike,
    box_size: float | Sequence[float],
    other: npt.ArrayLike | None = None,
    *,
    edges: npt.ArrayLike | None = None,
    workers: int = 1,
    **conventions: Unpack[Conventions],
) -> Spectrum:
    """Return the spectrum of a periodic field (X, Y, Z), or its cross spectrum with `other`.

    float64 arrays are transformed in float64, everything else in float32.

    Parameters
    ----------
    box_size : Mpc/h, one number for a box of cubic voxels (its x axis) or one per axis.
    edges : h/Mpc, ascending; None: bins of width 2 pi / L around its multiples, to Nyquist.
    **conventions : See `Conventions`.

    Raises
    ------
    BadInput
        For arrays that are not 3-D, not alike, not finite, or constant.
    """
    fields = [field] if other is None else [field, other]
    return _measure(fields, box_size, edges, workers, **conventions)[-1]


def pair_in_memory(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    box_size: float | Sequence[float],
    *,
    edges: npt.ArrayLike | None = None,
    workers: int = 1,
    **conventions: Unpack[Conventions],
) -> Pair:
    """Return the auto spectra of two fields and their cross spectrum."""
    return Pair(*_measure([first, second], box_size, edges, workers, **conventions))


def _measure(
    fields: Sequence[npt.ArrayLike],
    box_size: float | Sequence[float],
    edges: npt.ArrayLike | None,
    workers: int,
    *,
    window: str | None = None,
    shot_noise: float = 0.0,
    normalise: bool = False,
    unit: str = "",
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
    sums = ModeSums(shapes[0], box_size, shells, window, shot_noise)
    total = sums.block(EVERYTHING, modes)
    return sums.spectra(total, shells.edges, spectrum_unit(unit, normalise))


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
    mean = float(total) / values.size
    # The zero mode is left out anyway; without it the float32 transform loses no digits to it.
    values = values - values.dtype.type(mean)
    if normalise:
        values /= values.dtype.type(divisor(mean, name))
    return values
