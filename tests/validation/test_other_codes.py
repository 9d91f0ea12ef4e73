"""Halo relations against colossus, spectra and bispectra against Pylians where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from bigbox.analysis.spectra.bispectrum import bispectrum
from bigbox.analysis.spectra.power import power
from bigbox.physics.cosmology import Cosmology
from bigbox.physics.hi_halo import concentration_200m, halo_radius, hi_mass

MASSES = np.geomspace(1e11, 1e15, 9)  # M_sun/h, where Duffy et al. 2008 is given
SIDE = 100.0  # Mpc/h


@pytest.fixture(scope="module")
def colossus() -> None:
    """colossus with CAMELS' cosmology."""
    pytest.importorskip("colossus", reason="colossus is not installed: pip install bigbox[dev]")
    from colossus.cosmology import cosmology

    mine = Cosmology()
    known = {"flat": True, "H0": 100 * mine.h, "Om0": mine.omega_m, "Ob0": mine.omega_b}
    known |= {"sigma8": mine.sigma8, "ns": mine.n_s, "relspecies": False}
    cosmology.setCosmology("camels", **known, persistence="")


@pytest.mark.parametrize("redshift", [0.0, 0.5, 2.0])
def test_concentrations_are_those_of_colossus(colossus: None, redshift: float) -> None:
    from colossus.halo import concentration

    theirs = concentration.concentration(MASSES, "200m", redshift, model="duffy08")
    np.testing.assert_allclose(concentration_200m(MASSES, redshift), theirs, rtol=1e-6)


def test_radii_are_those_of_colossus(colossus: None) -> None:
    from colossus.halo import mass_so

    physical = mass_so.M_to_R(MASSES, 0.0, "200m") / 1e3  # kpc/h, at z = 0 also comoving
    np.testing.assert_allclose(halo_radius(MASSES, Cosmology()), physical, rtol=2e-4)


def test_expansion_is_that_of_colossus(colossus: None) -> None:
    from colossus.cosmology import cosmology

    redshifts = np.array([0.0, 1.0, 5.0])
    mine = [Cosmology().expansion(z) for z in redshifts]
    np.testing.assert_allclose(mine, cosmology.getCurrent().Ez(redshifts), rtol=1e-6)


# Villaescusa-Navarro et al. 2018, table 1 (FoF): z, alpha, M0 and Mmin in M_sun/h.
@pytest.mark.parametrize(
    ("z", "alpha", "m0", "least"), [(0, 0.24, 4.3e10, 2.0e12), (3, 0.76, 2.9e9, 6.7e10)]
)
def test_hi_masses_are_those_of_the_papers_formula(
    z: float, alpha: float, m0: float, least: float
) -> None:
    for mass in (least, 1e13):
        by_hand = m0 * (mass / least) ** alpha * np.exp(-((least / mass) ** 0.35))
        assert hi_mass(mass, z) == pytest.approx(by_hand, rel=1e-12)
    assert hi_mass(least, z) == pytest.approx(m0 / np.e)


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    return np.random.default_rng(5).gamma(2.0, 0.5, (32, 32, 32)).astype(np.float32)


def test_power_is_that_of_pylians(field: np.ndarray) -> None:
    library = pytest.importorskip("Pk_library", reason="Pylians is not installed")
    contrast = field / field.mean() - 1
    theirs = library.Pk(contrast.copy(), SIDE, 0, "None", 1, False)
    mine = power(contrast, SIDE)
    both = min(len(theirs.k3D), len(mine.k))
    np.testing.assert_allclose(mine.k[:both], theirs.k3D[:both], rtol=1e-3)
    np.testing.assert_allclose(mine.power[:both], theirs.Pk[:both, 0], rtol=1e-3)


def test_bispectrum_is_that_of_pylians(field: np.ndarray) -> None:
    library = pytest.importorskip("Pk_library", reason="Pylians is not installed")
    contrast = field / field.mean() - 1
    theirs = library.Bk(contrast.copy(), SIDE, 0.5, 0.5, np.array([np.pi / 3]), "None", 1)
    mine = bispectrum(contrast, SIDE, [[0.5, 0.5, 0.5]])
    assert mine.value[0] == pytest.approx(theirs.B[0], rel=0.05)
