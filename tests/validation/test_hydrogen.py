"""Brightness temperature by hand, the HI-halo relation, points of a halo, neutral fraction."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from bigbox.errors import BadInput
from bigbox.physics import brightness, hi_halo, ionisation
from bigbox.physics.cosmology import CRITICAL_DENSITY, Cosmology

MODEL = Cosmology()


def test_brightness_by_hand() -> None:
    """189 h (1+z)² H0/H(z) ρ_HI/ρ_c: at z = 1 with omega_m 0.3 H/H0 = sqrt(0.3 8 + 0.7)."""
    rho = 5e-4 * CRITICAL_DENSITY
    assert brightness.brightness_temperature(rho, 0.0, MODEL) == pytest.approx(
        189 * 0.6711 * 5e-4, rel=1e-12
    )
    assert brightness.brightness_temperature(rho, 1.0, MODEL) == pytest.approx(
        189 * 0.6711 * 5e-4 * 4 / math.sqrt(3.1), rel=1e-12
    )
    assert brightness.mean_brightness(5e-4, 1.0, MODEL) == pytest.approx(
        float(brightness.brightness_temperature(rho, 1.0, MODEL)), rel=1e-12
    )


def test_hubble_and_headers() -> None:
    assert MODEL.expansion(0) == pytest.approx(1)
    open_model = Cosmology.from_header({"omega_m": 0.3, "omega_lambda": 0.0, "h": 0.7})
    assert open_model.expansion(1) == pytest.approx(math.sqrt(0.3 * 8 + 0.7 * 4))
    assert Cosmology.from_header(asdict(MODEL)) == MODEL
    assert MODEL.omega_lambda is None and open_model.omega_lambda == 0.0
    with pytest.raises(BadInput, match="omega_m -1.0 must be a positive number"):
        Cosmology(omega_m=-1.0)
    with pytest.raises(BadInput, match="omega_b 0.4 is more than omega_m 0.3"):
        Cosmology(omega_b=0.4)


def test_relation_at_the_tables_redshifts() -> None:
    """At M = Mmin the mass is M0 / e."""
    for z, m0, m_min in (
        (0, 4.3e10, 2e12),
        (1, 1.5e10, 6e11),
        (3, 2.9e9, 6.7e10),
        (5, 1.9e9, 2e10),
    ):
        assert hi_halo.hi_mass(m_min, z) == pytest.approx(m0 / math.e, rel=1e-12)
    between = math.sqrt(2e12 * 6e11), math.sqrt(4.3e10 * 1.5e10) / math.e
    assert hi_halo.hi_mass(between[0], 0.5) == pytest.approx(between[1], rel=1e-12)
    masses = np.logspace(8, 15, 50)
    assert (np.diff(hi_halo.hi_mass(masses, 0)) > 0).all()
    with pytest.raises(BadInput, match="ends at 5; take the gas"):
        hi_halo.hi_mass(1e12, 5.5)


def points(index: np.ndarray, seed: int = 1, mass: float = 1e13) -> tuple[np.ndarray, np.ndarray]:
    centres = np.full((len(index), 3), 2.0) + index[:, None]
    return hi_halo.hi_points(index, centres, np.full(len(index), mass), 0.0, MODEL, seed)


def test_points_are_a_pure_function_of_the_haloes_index() -> None:
    place, mass = points(np.arange(10))
    some, of_some = points(np.array([7, 3]))
    n = hi_halo.POINTS
    assert some[:n].tobytes() == place[7 * n : 8 * n].tobytes()
    assert of_some[n:].tobytes() == mass[3 * n : 4 * n].tobytes()
    assert not np.array_equal(points(np.arange(10), seed=2)[1], mass)
    far = np.array([5 + (1 << 33)])
    assert not np.array_equal(
        hi_halo.hi_points(far, np.zeros((1, 3)), np.array([1e13]), 0.0, MODEL, 1)[1],
        points(np.array([5]))[1],
    )


def test_scatter_keeps_the_mean_and_is_0_2_dex() -> None:
    _, mass = points(np.arange(20000))
    halo = mass.reshape(-1, hi_halo.POINTS).sum(axis=1) / hi_halo.hi_mass(1e13, 0.0)
    assert halo.mean() == pytest.approx(1, abs=4 * 0.49 / math.sqrt(20000))
    assert np.log10(halo).std() == pytest.approx(0.2, rel=0.02)


def test_profile_is_nfw_inside_the_haloes_radius() -> None:
    index = np.arange(400)
    place, _ = points(index)
    away = place.reshape(400, -1, 3) - (2.0 + index)[:, None, None]
    r = np.linalg.norm(away, axis=-1)
    radius = float(hi_halo.halo_radius(np.array([1e13]), MODEL)[0])
    assert radius == pytest.approx((3e13 / (800 * math.pi * 0.3 * CRITICAL_DENSITY)) ** (1 / 3))
    assert r.max() <= radius * (1 + 1e-12)
    c = float(hi_halo.concentration_200m(np.array([1e13]), 0.0)[0])
    x = np.linspace(0.05, 1, 20)

    def mass_within(s: np.ndarray) -> np.ndarray:
        return np.log1p(s) - s / (1 + s)

    want = mass_within(x * c) / mass_within(np.array(c))
    got = (r.reshape(-1, 1) < x * radius).mean(axis=0)
    np.testing.assert_allclose(got, want, atol=0.003)
    np.testing.assert_allclose(away.mean(axis=(0, 1)) / radius, 0, atol=0.01)  # no direction


T, N = 1e4, 1e-4  # K, cm⁻³


def test_neutral_fraction_limits() -> None:
    x = ionisation.neutral_fraction
    assert x(N, T, 0.0, 0.0) == 1  # nothing ionises
    assert x(N, 100.0, 0.0) == pytest.approx(1)  # cold and dark
    assert x(N, 1e7, 0.0) < 1e-5  # hot: collisions
    assert x(N, T, 1e-12) == pytest.approx(
        float(ionisation.recombination(T)) * N / 1e-12, rel=1e-3
    )  # thin: α n_e / Γ
    left = math.sqrt(1e-12 / (float(ionisation.recombination(T)) * 1e4))
    assert 1 - x(1e4, T, 1e-12) == pytest.approx(left, rel=0.1)  # dense: (1 - x)² = Γ / α n
    grid = x(np.logspace(-8, 4, 30)[:, None], np.logspace(1, 9, 20), 3e-14)
    assert ((grid >= 0) & (grid <= 1)).all() and (np.diff(grid, axis=0) >= 0).all()


@pytest.mark.parametrize("rate", [0.0, 3e-14, 1e-11])
def test_neutral_fraction_solves_its_equation(rate: float) -> None:
    """α n_e x_HII = (Γ + β n_e) x_HI, with the electrons of hydrogen alone, and with given ones."""
    n, t = np.logspace(-6, 2, 40)[:, None], np.logspace(3.5, 7, 20)
    alpha, beta = ionisation.recombination(t), ionisation.collisional_ionisation(t)
    x = ionisation.neutral_fraction(n, t, rate)
    made, lost = alpha * n * (1 - x) ** 2, x * (rate + beta * n * (1 - x))
    rounding = 1e-15 * alpha * n * ((1 - x) + 1e-15)  # of 1 - x where x is nearly 1
    assert (np.abs(made - lost) <= 1e-6 * made + rounding + 1e-9 * rate * x).all()
    given = ionisation.neutral_fraction(n, t, rate, 0.7)
    made, lost = alpha * 0.7 * n * (1 - given), given * (rate + beta * 0.7 * n)
    assert (np.abs(made - lost) <= 1e-9 * made + 1e-15 * alpha * n).all()


def test_rates_are_those_of_the_papers() -> None:
    """Case A at 10⁴ K is 4.2e-13 cm³/s (Osterbrock & Ferland 2006, table 2.1: 4.18e-13)."""
    assert ionisation.recombination(1e4) == pytest.approx(4.18e-13, rel=0.01)
    at = 1.17e-10 * 10**2.5 * math.exp(-1.578091) / 2
    assert ionisation.collisional_ionisation(1e5) == pytest.approx(at, rel=1e-9)


def test_self_shielding() -> None:
    """At the threshold density 0.98 2^-2.28 + 0.02 2^-0.84 of the rate is left; far below, all."""
    threshold = 6.73e-3 * (2.15 / 2.49) ** (-2 / 3)  # z = 3, 1e4 K, 1e-12 per second
    left = 0.98 * 2**-2.28 + 0.02 * 2**-0.84
    got = ionisation.shielded(1e-12, [1e-9, threshold, 1e3], 1e4, 3.0)
    np.testing.assert_allclose(got[:2], [1e-12, left * 1e-12], rtol=1e-6)
    assert got[2] < 1e-15


def test_temperature_of_energy() -> None:
    """Neutral gas of mean mass 4 / (1 + 3 X): (3/2) k T / (μ m_p)."""
    mean = 4 / (1 + 3 * 0.76)
    u = 1.5 * 1.380649e-16 * 5000 / (mean * 1.67262192e-24)
    assert ionisation.temperature(u, 0.0) == pytest.approx(5000, rel=1e-12)


def test_background_and_its_file(tmp_path: Path) -> None:
    assert ionisation.background_rate(0.0) == pytest.approx(3.035e-14, rel=1e-3)
    assert ionisation.background_rate(3.0) == pytest.approx(8.3e-13, rel=0.02)
    with pytest.raises(BadInput, match=r"from z = 0 to 5.31, the snapshot is at z = 6"):
        ionisation.background_rate(6.0)
    table = tmp_path / "TREECOOL"
    table.write_text(
        "# log(1+z) rates\n0.0 1e-14 0 0 0 0 0\n0.3 4e-14 0 0 0 0 0\n0.4 0 0 0 0 0 0\n"
    )
    assert ionisation.background_rate(10**0.15 - 1, table) == pytest.approx(2e-14)
    for text, match in (
        ("0 1e-14\n", "rows of log10"),
        ("0 x\n1 2\n", "no table in TREECOOL format"),
        ("0 1e-14\n0 2e-14\n", "must grow"),
        ("0 -1\n1 1\n", "at least 0"),
        ("0 25\n1 26\n", "is the second column another quantity"),
    ):
        table.write_text(text)
        with pytest.raises(BadInput, match=match):
            ionisation.background_rate(0.1, table)
    with pytest.raises(BadInput, match="no table"):
        ionisation.background_rate(0.1, tmp_path / "none")
