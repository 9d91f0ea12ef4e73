"""Find errors of a spectrum from realizations, or from sub-volumes by jackknife.

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
from typing import Any

import numpy as np
import scipy.fft
from scipy.signal.windows import tukey

from bigbox.analysis.spectra import modes
from bigbox.analysis.spectra.modes import Float, ModeSums, Spectrum
from bigbox.errors import BadInput

# Width of a bin of the sub-volumes in their own fundamental modes: wider than the taper's.
WIDTH = 3


def scatter(spectra: Sequence[Spectrum]) -> Float:
    """Return the standard deviation of one realization about their mean, per bin.

    Raise BadInput where the bins differ.
    """
    if len(spectra) < 2:
        raise BadInput(f"{len(spectra)} realization: a scatter needs at least 2")
    edges = spectra[0].edges
    for one in spectra[1:]:
        if one.edges.shape != edges.shape or not np.allclose(one.edges, edges):
            raise BadInput("realizations: their spectra have different bins; use the same edges")
    return np.asarray(np.std([s.power for s in spectra], axis=0, ddof=1), np.float64)


def over_subvolumes(
    spectrum: Spectrum, array: Any, box_size: float | Sequence[float], *, pieces: int = 4
) -> Spectrum:
    """Return the spectrum of the box with jackknife errors from pieces^3 sub-volumes of its array.

    spectrum: of `array`, which is read one sub-volume at a time. Bins below the sub-volumes' reach
    take the inflation of the largest scales that they have.
    """
    if pieces < 2:
        raise BadInput(f"{pieces} pieces on an axis: at least 2 are needed")
    shape = tuple(int(n) // pieces for n in array.shape)
    if min(shape) < 16:
        raise BadInput(
            f"{pieces} pieces of {array.shape} voxels are {shape} each, at least 16 are needed;"
            f" use at most {min(array.shape) // 16} pieces on an axis"
        )
    inflation, k = _inflation(array, box_size, shape, pieces)
    factor = np.interp(spectrum.k, k, inflation)
    kind = f"jackknife over {pieces**3} sub-volumes"
    return spectrum.with_errors(factor * spectrum.mode_errors, kind)


def _inflation(
    array: Any, box_size: float | Sequence[float], shape: tuple[int, ...], pieces: int
) -> tuple[Float, Float]:
    """Scatter of the sub-volumes' spectra over a Gaussian field's, and where (k), per wide bin."""
    sides = modes.box_sides(array.shape, box_size)
    part = tuple(s * m / n for s, m, n in zip(sides, shape, array.shape, strict=True))
    tapers = [tukey(m, 0.5, sym=False) for m in shape]
    taper = tapers[0][:, None, None] * tapers[1][None, :, None] * tapers[2]
    # The volume that counts, (<w^2>)^2 / <w^4>, is less than the sub-volume's.
    effective = float((taper**2).mean() ** 2 / (taper**4).mean())
    sums = ModeSums(shape, part, modes.Shells(modes.default_edges(shape, part)))
    found = []
    for corner in itertools.product(range(pieces), repeat=3):
        at = tuple(slice(c * m, (c + 1) * m) for c, m in zip(corner, shape, strict=True))
        field = np.asarray(array[at], np.float64)
        # Less its own mean, which would show as power at the taper's scale.
        field = (field - (field * taper).sum() / taper.sum()) * taper
        if field.min() == field.max():
            raise BadInput(f"field: is constant ({field.flat[0]:g} everywhere): it has no spectrum")
        found.append(
            sums.means(sums.block(modes.EVERYTHING, [scipy.fft.rfftn(field - field.mean())]))
        )
    count, (k, _) = found[0]
    values = np.stack([power for _, (_, power) in found])
    mean = values.mean(axis=0)
    good = (mean > 0) & (count > 0)
    # Each fine bin over its mean, or the steep parts of a spectrum would drown the rest of a bin.
    weight = np.where(good, count, 0.0)
    level = np.where(good, values / np.where(good, mean, 1.0), 0.0)
    starts = np.arange(0, len(k), WIDTH)
    wide = np.add.reduceat(weight, starts)
    band = np.add.reduceat(level * weight, starts, axis=1) / wide
    centre = np.add.reduceat(np.where(good, k, 0.0) * weight, starts) / wide
    # Jackknife: the scatter of the means without one sub-volume each.
    n = len(band)
    without = (band.sum(axis=0) - band) / (n - 1)
    square = ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    relative = np.sqrt((n - 1) / n * square) * np.sqrt(n)
    return relative / np.sqrt(2 / (wide * effective)), centre
