"""The linear theory that a run starts from: growth in flat LCDM, CAMB's power spectrum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import hyp2f1

from bigbox.physics.cosmology import Cosmology

Spectrum = tuple[NDArray[np.float64], NDArray[np.float64]]  # k in h/Mpc, P in (Mpc/h)^3


@dataclass(frozen=True)
class Growth:
    """Growth of structure in flat LCDM without radiation, as N-body codes integrate it.

    Everything is a function of the scale factor a; time is in units of 1/H0, D(1) = 1.
    """

    omega_m: float

    def expansion(self, a: float) -> float:
        """Return H(a) / H0."""
        return math.sqrt(self.omega_m / a**3 + 1.0 - self.omega_m)

    def omega(self, a: float) -> float:
        """Return matter over critical density at a."""
        return self.omega_m / (a**3 * self.expansion(a) ** 2)

    def _grown(self, a: float) -> float:
        x = -(1.0 - self.omega_m) / self.omega_m * a**3
        return a * float(hyp2f1(1 / 3, 1.0, 11 / 6, x))

    def factor(self, a: float) -> float:
        """Return the linear growth factor D (Heath 1977; in closed form, Silveira & Waga 1994)."""
        return self._grown(a) / self._grown(1.0)

    def rate(self, a: float) -> float:
        """Return f = dlnD / dlna, from the first integral of the growth equation."""
        om = self.omega(a)
        return om * (2.5 * a / self._grown(a) - 1.5)

    def momentum(self, a: float) -> float:
        """Return a^3 E dD/da, the momentum a^2 dx/dt of a particle whose displacement is D."""
        return a**2 * self.expansion(a) * self.rate(a) * self.factor(a)


@lru_cache(maxsize=8)  # several runs of one kind take it once: it is seconds of work
def power_spectrum(cosmology: Cosmology, k_least: float, k_most: float) -> Spectrum:
    """Return CAMB's linear power spectrum of all matter at z = 0, scaled to sigma8.

    There are no massive neutrinos. k in h/Mpc goes from k_least to k_most (float64, logarithmic),
    P(k) is in (Mpc/h)^3. Both are read-only.
    """
    import camb

    h = cosmology.h
    parameters = camb.CAMBparams()
    parameters.set_cosmology(
        H0=100 * h,
        ombh2=cosmology.omega_b * h**2,
        omch2=(cosmology.omega_m - cosmology.omega_b) * h**2,
        mnu=0.0,
        num_massive_neutrinos=0,
    )
    parameters.InitPower.set_params(ns=cosmology.n_s)
    parameters.WantCls = False
    parameters.set_matter_power(redshifts=[0.0], kmax=k_most * 1.1)
    parameters.NonLinear = camb.model.NonLinear_none
    results = camb.get_results(parameters)
    k, _, power = results.get_matter_power_spectrum(k_least, k_most, npoints=512)
    scaled = power[0] * (cosmology.sigma8 / results.get_sigma8_0()) ** 2
    for values in (k, scaled):
        values.flags.writeable = False
    return k, scaled


def warm(spectrum: Spectrum, mass: float, cosmology: Cosmology) -> Spectrum:
    """Return the spectrum of warm dark matter, a thermal relic of `mass` keV: small scales are cut.

    T(k) = (1 + (alpha k)^(2 nu))^(-5 / nu), nu = 1.12 (Bode, Ostriker & Turok 2001), with alpha of
    Viel et al. 2005, eq. 7. sigma8 is that of the cold spectrum.
    """
    k, power = spectrum
    dark = cosmology.omega_m - cosmology.omega_b
    alpha = 0.049 * mass**-1.11 * (dark / 0.25) ** 0.11 * (cosmology.h / 0.7) ** 1.22  # Mpc/h
    transfer = (1 + (alpha * k) ** 2.24) ** (-5 / 1.12)
    return k, power * transfer**2
