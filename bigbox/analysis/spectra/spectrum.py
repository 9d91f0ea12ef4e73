"""Hold a power spectrum and what is made of it: Delta^2, r(k), the transfer function."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """A power spectrum in bins of |k|; arrays of one value per bin.

    k: mean |k| of the bin's modes, h/Mpc. power: (Mpc/h)^3 x unit^2. modes: number of modes, a mode
    and its conjugate counted as two. edges: (bins + 1,) h/Mpc. errors: one standard deviation,
    like power, or None; error_kind says where they come from. A bin without modes has k and power
    NaN.
    """

    k: Float
    power: Float
    modes: npt.NDArray[np.int64]
    edges: Float
    units: str = "(Mpc/h)^3"
    errors: Float | None = None
    error_kind: str = ""
    k_nyquist: float = math.nan
    window: str = ""
    shot_noise: float = 0.0

    @property
    def delta2(self) -> Float:
        """Return the dimensionless power k^3 P / (2 pi^2), in the field's unit squared."""
        return self.k**3 * self.power / (2 * np.pi**2)

    @property
    def mode_errors(self) -> Float:
        """Return the scatter of a Gaussian field's auto spectrum: P sqrt(2 / modes)."""
        return np.abs(self.power) * np.sqrt(2.0 / np.maximum(self.modes, 1))

    def with_errors(self, errors: npt.ArrayLike, kind: str) -> Spectrum:
        """Return the spectrum with `errors` (one standard deviation per bin) and their origin."""
        return replace(self, errors=np.asarray(errors, np.float64), error_kind=kind)


@dataclass(frozen=True)
class Pair:
    """The spectra of two fields and their cross spectrum, in the same bins."""

    first: Spectrum
    second: Spectrum
    cross: Spectrum

    @property
    def correlation(self) -> Float:
        """Return r(k) = P12 / sqrt(P11 P22), NaN where an auto spectrum is not > 0."""
        product = self.first.power * self.second.power
        good = (product > 0) & (self.first.power > 0)
        return np.where(good, self.cross.power / np.sqrt(np.where(good, product, 1.0)), np.nan)

    @property
    def transfer(self) -> Float:
        """Return sqrt(P11 / P22), the amplitude of the first field over the second's."""
        one, two = self.first.power, self.second.power
        good = (two > 0) & (one >= 0)
        return np.where(good, np.sqrt(np.where(good, one / two, 0.0)), np.nan)


def jsonable(value: Any) -> Any:
    """Return arrays, lists, dictionaries and dataclasses as JSON; what is not finite is null."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: jsonable(v) for key, v in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
