"""The background cosmology of a box: its parameters, expansion rate, and densities.

Matter and a cosmological constant only, flat or not: radiation and neutrinos are left out, which
changes H(z) by less than 0.1 % below redshift 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from bigbox.errors import BadInput

CRITICAL_DENSITY = 2.77536627e11
"""Today's critical density 3 H0² / (8 π G), in h² M☉ / Mpc³, which is M☉/h per (Mpc/h)³."""

PARAMETERS = ("omega_m", "omega_b", "h", "sigma8", "n_s")


@dataclass(frozen=True)
class Cosmology:
    """Parameters today; the defaults are those of the CAMELS CV set (paper §2.3)."""

    omega_m: float = 0.3  # matter over critical
    omega_b: float = 0.049  # baryons over critical
    h: float = 0.6711  # H0 / (100 km/s/Mpc)
    sigma8: float = 0.8  # linear rms of matter in spheres of 8 Mpc/h
    n_s: float = 0.9624  # slope of the primordial spectrum
    omega_lambda: float | None = None  # cosmological constant over critical; None: flat

    def __post_init__(self) -> None:
        for name in PARAMETERS:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"cosmology: {name} {value} must be a positive number")
        if self.omega_b > self.omega_m:
            raise BadInput(
                f"cosmology: omega_b {self.omega_b} is more than omega_m {self.omega_m}, of which "
                "it is a part"
            )

    def expansion(self, redshift: float) -> float:
        """Return E(z) = H(z) / H0."""
        a = 1.0 + redshift
        lam = 1.0 - self.omega_m if self.omega_lambda is None else self.omega_lambda
        return math.sqrt(self.omega_m * a**3 + (1.0 - self.omega_m - lam) * a**2 + lam)

    @property
    def matter_density(self) -> float:
        """Mean comoving density of matter, M☉/h per (Mpc/h)³."""
        return self.omega_m * CRITICAL_DENSITY

    @classmethod
    def from_header(cls, known: Mapping[str, Any]) -> Cosmology:
        """Read a box's attribute "cosmology" or any mapping of these names.

        What is missing is the default. Raises BadInput for a value that is no positive number.
        """
        names = [f.name for f in fields(cls)]
        return cls(**{name: float(known[name]) for name in names if known.get(name) is not None})
