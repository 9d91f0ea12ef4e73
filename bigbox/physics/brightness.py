"""The 21 cm brightness temperature of neutral hydrogen (paper eq. 12).

T_b = 189 h (1 + z)^2 / E(z)  rho_HI / rho_c  mK        rho_c: today's critical density
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bigbox.physics.cosmology import CRITICAL_DENSITY, Cosmology

BRIGHTNESS = 189.0  # mK: the constant of equation 12, as in Villaescusa-Navarro et al. 2018, eq. 1
Density = TypeVar("Density", float, NDArray[np.floating])


def brightness_temperature(rho_hi: Density, redshift: float, cosmology: Cosmology) -> Density:
    """Return T_b in mK of a comoving HI density in M☉/h per (Mpc/h)³ (eq. 12)."""
    return rho_hi * (mean_brightness(1.0, redshift, cosmology) / CRITICAL_DENSITY)


def mean_brightness(omega_hi: float, redshift: float, cosmology: Cosmology) -> float:
    """Return the mean T_b in mK of a universe with Ω_HI = ρ_HI (comoving) / ρ_c (today)."""
    rate = (1.0 + redshift) ** 2 / cosmology.expansion(redshift)
    return BRIGHTNESS * cosmology.h * rate * omega_hi


def observed_omega_hi(redshift: float) -> float:
    """Return the observed Ω_HI, 4.0e-4 (1 + z)^0.6, for 0 < z < 5 (Crighton et al. 2015, eq. 6).

    At z = 0 ALFALFA measures 3.9e-4 ± 0.6e-4 (Jones et al. 2018), FASHI 4.5e-4 (Ma et al. 2025).
    """
    return float(4.0e-4 * (1.0 + redshift) ** 0.6)
