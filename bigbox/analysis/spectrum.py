"""A power spectrum and what is made of it: Delta^2, r(k), the transfer function."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """A power spectrum in bins of |k|; arrays of one value per bin.

    k: mean |k| of the bin's modes, h/Mpc. power: (Mpc/h)^3 x unit^2. modes: number of modes, a mode
    and its conjugate counted as two. edges: (bins + 1,) h/Mpc. errors: one standard deviation,
    like power, or None; error_kind says where they come from. kind: "auto" or "cross". A bin
    without modes has k and power NaN.
    """

    k: Float
    power: Float
    modes: npt.NDArray[np.int64]
    edges: Float
    kind: str = "auto"
    units: str = "(Mpc/h)^3"
    errors: Float | None = None
    error_kind: str = ""
    k_nyquist: float = math.nan
    window: str = ""
    shot_noise: float = 0.0

    @property
    def delta2(self) -> Float:
        """Dimensionless power k^3 P / (2 pi^2), in the field's unit squared."""
        return delta2(self.k, self.power)

    @property
    def mode_errors(self) -> Float:
        """Scatter of a Gaussian field's auto spectrum: P sqrt(2 / modes)."""
        return np.abs(self.power) * np.sqrt(2.0 / np.maximum(self.modes, 1))

    def with_errors(self, errors: npt.ArrayLike, kind: str) -> Spectrum:
        """The same spectrum with `errors` (one standard deviation per bin) and their origin."""
        return replace(self, errors=np.asarray(errors, np.float64), error_kind=kind)

    def as_dict(self) -> dict[str, Any]:
        """The spectrum as JSON; NaN becomes null."""
        return {
            "kind": self.kind,
            "k": numbers(self.k),
            "power": numbers(self.power),
            "errors": None if self.errors is None else numbers(self.errors),
            "error_kind": self.error_kind,
            "modes": self.modes.tolist(),
            "edges": self.edges.tolist(),
            "units": {"k": "h/Mpc", "power": self.units},
            "k_nyquist": self.k_nyquist,
            "window": self.window,
            "shot_noise": self.shot_noise,
        }


@dataclass(frozen=True)
class Pair:
    """The spectra of two fields and their cross spectrum, in the same bins."""

    first: Spectrum
    second: Spectrum
    cross: Spectrum

    @property
    def correlation(self) -> Float:
        """r(k) = P12 / sqrt(P11 P22)."""
        return correlation(self.first, self.second, self.cross)

    @property
    def cross_errors(self) -> Float:
        """Scatter of the cross spectrum of Gaussian fields: sqrt((P11 P22 + P12^2) / modes)."""
        square = abs(self.first.power * self.second.power) + self.cross.power**2
        return np.asarray(np.sqrt(square / np.maximum(self.cross.modes, 1)), np.float64)

    @property
    def correlation_errors(self) -> Float:
        """Scatter of r(k) of Gaussian fields: (1 - r^2) / sqrt(modes)."""
        return (1 - self.correlation**2) / np.sqrt(np.maximum(self.cross.modes, 1))

    @property
    def transfer(self) -> Float:
        """sqrt(P11 / P22): the amplitude of the first field over the second's."""
        return transfer(self.first, self.second)


def delta2(k: npt.ArrayLike, p: npt.ArrayLike) -> Float:
    """Dimensionless power k^3 P(k) / (2 pi^2)."""
    return np.asarray(k, np.float64) ** 3 * np.asarray(p, np.float64) / (2 * np.pi**2)


def correlation(auto1: Spectrum, auto2: Spectrum, cross: Spectrum) -> Float:
    """Correlation coefficient r(k) = P12 / sqrt(P11 P22), NaN where an auto spectrum is not > 0."""
    product = auto1.power * auto2.power
    good = (product > 0) & (auto1.power > 0)
    return np.where(good, cross.power / np.sqrt(np.where(good, product, 1.0)), np.nan)


def transfer(auto1: Spectrum, auto2: Spectrum) -> Float:
    """Transfer function sqrt(P11 / P22), NaN where the ratio does not exist."""
    good = (auto2.power > 0) & (auto1.power >= 0)
    return np.where(good, np.sqrt(np.where(good, auto1.power / auto2.power, 0.0)), np.nan)


def numbers(values: npt.NDArray[Any]) -> list[float | None]:
    """An array (n,) as JSON: what is not finite becomes null."""
    return [float(v) if math.isfinite(v) else None for v in values]
