"""Measure maps: spectra of the density, one-point distributions, and what differs from the truth.

P(k) is of the density over the truth's mean, not of its logarithm, in (Mpc/h)^2: a map is two
dimensional, and its modes are those of one Fourier transform, for a map is periodic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Bins:
    """Bins of |k| in h/Mpc, one fundamental mode wide, to the Nyquist frequency."""

    edge: int  # pixels of a map
    side: float  # Mpc/h

    @property
    def fundamental(self) -> float:
        """The smallest k, h/Mpc."""
        return 2 * np.pi / self.side

    @property
    def nyquist(self) -> float:
        """The largest k along an axis, h/Mpc."""
        return np.pi * self.edge / self.side

    @property
    def k(self) -> Float:
        """Middles of the bins, h/Mpc."""
        return self.fundamental * np.arange(1.0, self.edge // 2 + 1)

    def mean(self, modes: Float) -> Float:
        """Return the mean of (N, n, n//2 + 1) numbers of modes in each bin, (N, bins)."""
        n = self.edge
        frequency = np.fft.fftfreq(n, 1 / n)
        half = np.arange(n // 2 + 1)
        number = np.rint(np.hypot(frequency[:, None], half)).astype(int)
        # A mode and its conjugate: those between count twice.
        weight = np.broadcast_to(np.where((half > 0) & (half < n // 2), 2.0, 1.0), number.shape)
        inside = (number >= 1) & (number <= n // 2)
        index, counted = number[inside] - 1, weight[inside]
        total = np.bincount(index, counted, n // 2)
        return np.stack(
            [np.bincount(index, one[inside] * counted, n // 2) / total for one in modes]
        )

    def power(self, first: NDArray[Any], second: NDArray[Any] | None = None) -> Float:
        """Return P(k) of contrasts (N, n, n), or the cross power of two, (N, bins), (Mpc/h)^2."""
        modes = scipy.fft.rfft2(np.asarray(first, np.float64))
        other = modes if second is None else scipy.fft.rfft2(np.asarray(second, np.float64))
        return self.mean((modes * other.conj()).real) * (self.side**2 / self.edge**4)


def contrast(maps: NDArray[Any], truth: NDArray[Any]) -> Float:
    """Return maps over the mean of their own truth, minus 1, each (N, n, n)."""
    mean = np.asarray(truth, np.float64).mean((1, 2), keepdims=True)
    return np.asarray(maps, np.float64) / mean - 1


def compare(maps: NDArray[Any], truth: NDArray[Any], bins: Bins) -> dict[str, Any]:
    """Compare decoded maps with their truths, (N, n, n) each: JSON values.

    "ratio": the mean P(k) over that of the truths, with "error" by a bootstrap over the maps; "r":
    the mean of the cross-correlation coefficient of each map with its truth.
    """
    mine, its = contrast(maps, truth), contrast(truth, truth)
    power, true, cross = bins.power(mine), bins.power(its), bins.power(mine, its)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(power), (200, len(power)))
    drawn = power[rows].mean(1) / true[rows].mean(1)
    quantiles = np.array([0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999])
    values = [np.quantile(np.log10((1 + one).clip(1e-3)), quantiles) for one in (mine, its)]
    return {
        "k": bins.k.tolist(),
        "truth": true.mean(0).tolist(),
        "power": power.mean(0).tolist(),
        "ratio": (power.mean(0) / true.mean(0)).tolist(),
        "error": drawn.std(0).tolist(),
        "r": (cross / np.sqrt(power * true).clip(1e-300)).mean(0).tolist(),
        "mean": float((1 + mine).mean()),
        "quantiles": quantiles.tolist(),
        "log10 density": [one.tolist() for one in values],
    }
