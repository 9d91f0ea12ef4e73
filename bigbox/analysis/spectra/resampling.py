"""Find errors of a spectrum from realizations, or from sub-volumes by jackknife or bootstrap.

A sub-volume is not periodic: it is tapered to zero at its faces (a Tukey window, cosine over a
quarter at either end), or the power of large scales would leak into all others::

    box, 4 sub-volumes on an axis      |    .--.   |   .--.    |    .--.   |   .--.    |
    the taper                          | .-'    '-.|.-'    '-. | .-'    '-.|.-'    '-. |

The scatter of the sub-volumes' spectra, in bins a few of their own fundamental modes wide, over
that of a Gaussian field with as many modes is the inflation; the errors of the box are those of a
Gaussian field, P sqrt(2 / modes), times it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy.signal.windows import tukey

from bigbox.analysis.spectra.modes import EVERYTHING, ModeSums, Shells, box_sides
from bigbox.analysis.spectra.spectrum import Float, Spectrum
from bigbox.errors import BadInput

METHODS = ("jackknife", "bootstrap")

# Width of a bin of the sub-volumes in their own fundamental modes: wider than the taper's.
WIDTH = 3
DRAWS = 500


def over_realizations(spectra: Sequence[Spectrum]) -> Spectrum:
    """Return the mean spectrum of realizations; errors: of the mean, from their scatter.

    Raise BadInput where the bins differ.
    """
    values = _stack(spectra)
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    mean = replace(spectra[0], power=values.mean(axis=0))
    return mean.with_errors(error, f"scatter over {len(values)} realizations, of the mean")


def scatter(spectra: Sequence[Spectrum]) -> Float:
    """Return the standard deviation of one realization about their mean, per bin."""
    return np.asarray(_stack(spectra).std(axis=0, ddof=1), np.float64)


def over_subvolumes(
    spectrum: Spectrum,
    array: Any,
    box_size: float | Sequence[float],
    *,
    pieces: int = 4,
    method: str = "jackknife",
    seed: int = 0,
) -> Spectrum:
    """Return the spectrum of the box with errors from pieces^3 sub-volumes of its array.

    spectrum: the auto spectrum of `array`, numpy, zarr or dask. One sub-volume is read at a time.
    Bins below the sub-volumes' reach take the inflation of the largest scales that they have. Raise
    BadInput for sub-volumes of fewer than 16 voxels.
    """
    if method not in METHODS:
        raise BadInput(f"method {method!r} is not known: choose {' or '.join(METHODS)}")
    if pieces < 2:
        raise BadInput(f"{pieces} pieces on an axis: at least 2 are needed")
    shape = tuple(int(n) // pieces for n in array.shape)
    if min(shape) < 16:
        raise BadInput(
            f"{pieces} pieces of {array.shape} voxels are {shape} each, at least 16 are needed;"
            f" use at most {min(array.shape) // 16} pieces on an axis"
        )
    inflation, k = _inflation(array, box_size, shape, pieces, method, seed)
    factor = np.interp(spectrum.k, k, inflation)
    kind = f"{method} over {pieces**3} sub-volumes"
    return spectrum.with_errors(factor * spectrum.mode_errors, kind)


def _inflation(
    array: Any,
    box_size: float | Sequence[float],
    shape: tuple[int, ...],
    pieces: int,
    method: str,
    seed: int,
) -> tuple[Float, Float]:
    """Scatter of the sub-volumes' spectra over a Gaussian field's, and where (k), per wide bin."""
    sides = box_sides(array.shape, box_size)
    part = tuple(s * m / n for s, m, n in zip(sides, shape, array.shape, strict=True))
    tapers = [tukey(m, 0.5, sym=False) for m in shape]
    taper = tapers[0][:, None, None] * tapers[1][None, :, None] * tapers[2]
    # The volume that counts, (<w^2>)^2 / <w^4>, is less than the sub-volume's.
    effective = float((taper**2).mean() ** 2 / (taper**4).mean())
    found = []
    for corner in itertools.product(range(pieces), repeat=3):
        at = tuple(slice(c * m, (c + 1) * m) for c, m in zip(corner, shape, strict=True))
        field = np.asarray(array[at], np.float64)
        # Less its own mean, which would show as power at the taper's scale.
        field = (field - (field * taper).sum() / taper.sum()) * taper
        if field.min() == field.max():
            raise BadInput(f"field: is constant ({field.flat[0]:g} everywhere): it has no spectrum")
        sums = ModeSums(shape, part, Shells.of(shape, part))
        sums.add(EVERYTHING, [scipy.fft.rfftn(field - field.mean())])
        found.append(sums.means())
    modes, (k,), _ = found[0]
    values = np.stack([power for _, _, (power,) in found])
    mean = values.mean(axis=0)
    good = (mean > 0) & (modes > 0)
    # Each fine bin over its mean, or the steep parts of a spectrum would drown the rest of a bin.
    weight = np.where(good, modes, 0.0)
    level = np.where(good, values / np.where(good, mean, 1.0), 0.0)
    starts = np.arange(0, len(k), WIDTH)
    wide = np.add.reduceat(weight, starts)
    band = np.add.reduceat(level * weight, starts, axis=1) / wide
    centre = np.add.reduceat(np.where(good, k, 0.0) * weight, starts) / wide
    relative = _spread(band, method, seed) * np.sqrt(len(band))
    return relative / np.sqrt(2 / (wide * effective)), centre


def _spread(values: Float, method: str, seed: int) -> Float:
    """Return the standard deviation of the mean over sub-volumes, (bins,)."""
    n = len(values)
    if method == "jackknife":
        without = (values.sum(axis=0) - values) / (n - 1)
        square = ((without - without.mean(axis=0)) ** 2).sum(axis=0)
        return np.asarray(np.sqrt((n - 1) / n * square), np.float64)
    drawn = np.random.default_rng(seed).integers(0, n, (DRAWS, n))
    means: npt.NDArray[np.float64] = values[drawn].mean(axis=1)
    return np.asarray(means.std(axis=0, ddof=1) * np.sqrt(n / (n - 1)), np.float64)


def _stack(spectra: Sequence[Spectrum]) -> Float:
    if len(spectra) < 2:
        raise BadInput(f"{len(spectra)} realization: a scatter needs at least 2")
    for one in spectra[1:]:
        if one.edges.shape != spectra[0].edges.shape or not np.allclose(
            one.edges, spectra[0].edges
        ):
            raise BadInput("realizations: their spectra have different bins; use the same edges")
    return np.stack([s.power for s in spectra])
