"""The HI-halo relation: the neutral hydrogen of a halo, its mass and its profile.

Where there is no gas to take the HI density from, haloes are given HI by the relation of
Villaescusa-Navarro et al. 2018 (ApJ 866, 135; arXiv:1804.09180), measured in IllustrisTNG. It is a
stand-in for hydrodynamics, and whatever is made from it says so.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigbox.errors import BadInput
from bigbox.noise import gaussian, philox
from bigbox.physics.cosmology import Cosmology

RELATION = "HI-halo relation (Villaescusa-Navarro et al. 2018): a stand-in for hydrodynamics"
"""How a field made from haloes is labelled wherever it goes."""

# Their table 1, FoF haloes: redshift, alpha, M0 (M☉/h), Mmin (M☉/h).
_RELATION = np.array(
    [
        (0.0, 0.24, 4.3e10, 2.0e12),
        (1.0, 0.53, 1.5e10, 6.0e11),
        (2.0, 0.60, 1.3e10, 3.6e11),
        (3.0, 0.76, 2.9e9, 6.7e10),
        (4.0, 0.79, 1.4e9, 2.1e10),
        (5.0, 0.74, 1.9e9, 2.0e10),
    ]
)
MAX_REDSHIFT = 5.0

SCATTER = 0.2  # dex: log-normal scatter of a halo's HI mass about the relation, with its mean kept
POINTS = 64  # points that stand for the HI of one halo
_WORD = 0x48490000  # of the noise's counter: "HI"


def hi_mass(halo_mass: ArrayLike, redshift: float) -> NDArray[np.float64]:
    """Return the mean HI mass of FoF haloes, M0 (M/Mmin)^α exp(-(Mmin/M)^0.35), masses in M☉/h.

    Between the redshifts of the table (theirs, 1) α and the logarithms of M0 and Mmin are linear in
    z. Raises BadInput beyond redshift 5.
    """
    if not 0 <= redshift <= MAX_REDSHIFT:
        raise BadInput(
            f"redshift {redshift:g}: the HI-halo relation (Villaescusa-Navarro et al. 2018) ends "
            f"at {MAX_REDSHIFT:g}; take the gas of a hydrodynamical run (--gas)"
        )
    z, alpha, m0, m_min = _RELATION.T
    slope = np.interp(redshift, z, alpha)
    low = 10 ** np.interp(redshift, z, np.log10(m_min))
    x = np.asarray(halo_mass, np.float64) / low
    mass = 10 ** np.interp(redshift, z, np.log10(m0)) * x**slope
    return np.asarray(mass * np.exp(-(x**-0.35)))


def hi_points(
    index: NDArray[np.int64],
    centres: NDArray[np.floating],
    masses: NDArray[np.floating],
    redshift: float,
    cosmology: Cosmology,
    seed: int,
    scatter: float = SCATTER,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw points that stand for the HI of haloes, each with a share of its halo's HI mass.

    Returns positions, float64 (M * POINTS, 3), Mpc/h, not wrapped, and masses (M * POINTS,), M☉/h.
    A pure function of the seed, the halo's index, its mass and its place. The mass scatters
    log-normally by `scatter`, dex. The profile is that of the matter, NFW out to 200 times the mean
    density with the concentration of Duffy et al. 2008: haloes of under 10¹² M☉/h are smaller than
    a voxel of 0.1 Mpc/h, and in larger ones most HI is in satellites.

    Parameters
    ----------
    index : (M,), of each halo in its catalogue.
    centres : (M, 3), comoving Mpc/h.
    masses : (M,), M☉/h, all > 0.
    """
    key = (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)
    words = np.full((len(masses), 1), _WORD, np.int64)
    halo = ((index & 0xFFFFFFFF)[:, None], (index >> 32)[:, None])
    draw = philox(key, (np.arange(POINTS + 1)[None, :], *halo, words))
    sigma = scatter * math.log(10)
    factor = np.exp(sigma * gaussian(draw[0][:, POINTS]) - 0.5 * sigma**2)
    mass = hi_mass(masses, redshift) * factor
    u, cos, phi = ((w[:, :POINTS] + 0.5) * 2.0**-32 for w in draw[:3])
    radius, concentration = halo_radius(masses, cosmology), concentration_200m(masses, redshift)
    # One point in each equal share of the mass: the profile has no shot noise of its own.
    share = (np.arange(POINTS) + u) / POINTS
    r = radius[:, None] * _nfw_radius(share, concentration[:, None])
    cos = 2.0 * cos - 1.0
    sin = np.sqrt(1.0 - cos**2)
    phi = 2.0 * math.pi * phi
    away = np.stack((r * sin * np.cos(phi), r * sin * np.sin(phi), r * cos), axis=-1)
    place = np.asarray(centres, np.float64)[:, None, :] + away
    return place.reshape(-1, 3), np.repeat(mass / POINTS, POINTS)


def halo_radius(masses: NDArray[np.floating], cosmology: Cosmology) -> NDArray[np.float64]:
    """Return R200m, comoving Mpc/h, of masses in M☉/h: 200 times the mean density of matter."""
    volume = np.asarray(masses, np.float64) / (200.0 * cosmology.matter_density)
    return np.cbrt(volume * 3.0 / (4.0 * math.pi))


def concentration_200m(masses: NDArray[np.floating], redshift: float) -> NDArray[np.float64]:
    """Return the concentration of R200m of masses in M☉/h (Duffy et al. 2008, table 1, full)."""
    mass = np.asarray(masses, np.float64) / 2e12
    return np.asarray(10.14 * mass**-0.081 * (1.0 + redshift) ** -1.01)


def _nfw_radius(share: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the radius, over the halo's, within which a share of an NFW halo's mass lies.

    m(x) = ln(1 + x) - x / (1 + x) is inverted by Newton steps, m'(x) = x / (1 + x)², from below
    x = c, where m is concave in ln x; eight steps reach 1e-12.
    """
    target = share * (np.log1p(c) - c / (1.0 + c))
    x = np.sqrt(2.0 * target) * (1.0 + np.sqrt(2.0 * target))
    for _ in range(12):
        m = np.log1p(x) - x / (1.0 + x)
        x = np.maximum(x + (target - m) * (1.0 + x) ** 2 / x, 0.1 * x)
    return np.minimum(x / c, 1.0)
