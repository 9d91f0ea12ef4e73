"""The neutral fraction of gas in ionisation equilibrium with an ultraviolet background.

    α(T) n_e x_HII = [Γ + β(T) n_e] x_HI         recombination = photo- and collisional ionisation

α: case A, Hui & Gnedin 1997; β: Theuns et al. 1998; both as collected in appendix A of Rahmati et
al. 2013 (MNRAS 430, 2427). Densities in cm⁻³, rates in s⁻¹, temperatures in K.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigbox.errors import BadInput

HYDROGEN = 0.76
"""Share of hydrogen in the gas's mass, X_H of the paper's equation 11 (CAMELS, GADGET-4)."""

PROTON_MASS = 1.67262192e-24  # g
BOLTZMANN = 1.380649e-16  # erg/K

# Faucher-Giguère et al. 2009 (ApJ 703, 1416), update of December 2011, as IllustrisTNG and GADGET-4
# use it: log10 Γ_HI at log10(1 + z) = 0, 0.05 .. 0.80 (z = 0 .. 5.3), every tenth row of their
# table. Linear between them: within 3 % of the whole table below z = 3, 10 % at z = 5.
_BACKGROUND = (
    *(-13.518, -13.322, -13.146, -12.974, -12.806, -12.640, -12.477, -12.322, -12.186),
    *(-12.081, -12.016, -12.009, -12.078, -12.235, -12.538, -13.053, -13.860),
)
_BACKGROUND_STEP = 0.05
BACKGROUND = "Faucher-Giguere et al. 2009 (December 2011)"
"""Name of the background that is used when no other is given."""

# Mean photo-ionisation cross section of HI, 1e-18 cm², at z = 0 .. 5 for the background of Faucher-
# Giguère et al. 2009 (Rahmati et al. 2013, table 2).
_CROSS_SECTION = (2.59, 2.37, 2.27, 2.15, 2.02, 1.94)


def recombination(temperature: ArrayLike) -> NDArray[np.float64]:
    """Return the case-A recombination rate of HII, cm³/s (Hui & Gnedin 1997, appendix A)."""
    x = 315614.0 / np.asarray(temperature, np.float64)
    return 1.269e-13 * x**1.503 / (1.0 + (x / 0.522) ** 0.470) ** 1.923


def collisional_ionisation(temperature: ArrayLike) -> NDArray[np.float64]:
    """Return the collisional ionisation rate of HI, cm³/s (Theuns et al. 1998, table B1)."""
    t = np.asarray(temperature, np.float64)
    return 1.17e-10 * np.sqrt(t) * np.exp(-157809.1 / t) / (1.0 + np.sqrt(t / 1e5))


def neutral_fraction(
    hydrogen: ArrayLike,
    temperature: ArrayLike,
    rate: ArrayLike,
    electrons: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Return x_HI = n_HI / n_H in equilibrium, float64 of the arguments' shape, 0 .. 1.

    Parameters
    ----------
    hydrogen : n_H, cm⁻³, all nuclei.
    temperature : K.
    rate : Γ_HI, s⁻¹, of photo-ionisation.
    electrons : n_e / n_H where it is known (GADGET's ElectronAbundance). None: those of hydrogen
        alone, n_e = x_HII n_H, and the equation is quadratic.
    """
    n = np.asarray(hydrogen, np.float64)
    gamma = np.asarray(rate, np.float64)
    alpha, beta = recombination(temperature), collisional_ionisation(temperature)
    if electrons is not None:
        n_e = n * np.asarray(electrons, np.float64)
        lost, made = gamma + beta * n_e, alpha * n_e
        whole = lost + made
        # Neither electrons nor radiation: nothing ionises the gas.
        return np.divide(made, whole, out=np.ones_like(whole), where=whole > 0)
    # (α + β) n x² - (2 α n + β n + Γ) x + α n = 0, the smaller root, without cancellation.
    a, b = alpha * n, beta * n + gamma
    return np.asarray(2.0 * a / (2.0 * a + b + np.sqrt(b * b + 4.0 * a * gamma)))


def shielded(
    rate: float, hydrogen: ArrayLike, temperature: ArrayLike, redshift: float
) -> NDArray[np.float64]:
    """Return Γ_HI inside of gas that shields itself, s⁻¹ (Rahmati et al. 2013, eqs. 13 and 14).

    Their gas fraction is the cosmic one, f_g = 0.17.
    """
    n, t = np.asarray(hydrogen, np.float64), np.asarray(temperature, np.float64)
    sigma = np.interp(redshift, np.arange(len(_CROSS_SECTION)), _CROSS_SECTION)
    threshold = 6.73e-3 * (sigma / 2.49) ** (-2 / 3) * (t / 1e4) ** 0.17 * (rate / 1e-12) ** (2 / 3)
    x = n / threshold
    return np.asarray(rate * (0.98 * (1.0 + x**1.64) ** -2.28 + 0.02 * (1.0 + x) ** -0.84))


def temperature(energy: ArrayLike, electrons: ArrayLike) -> NDArray[np.float64]:
    """Return K, of an internal energy in (cm/s)² per mass and n_e / n_H, of a gas of H and He.

    T = (2/3) u μ m_p / k_B with μ = 4 / (1 + 3 X + 4 X n_e/n_H).
    """
    mean = 4.0 / (1.0 + 3.0 * HYDROGEN + 4.0 * HYDROGEN * np.asarray(electrons, np.float64))
    return np.asarray(energy, np.float64) * (2.0 / 3.0) * mean * (PROTON_MASS / BOLTZMANN)


def background_rate(redshift: float, table: Path | None = None) -> float:
    """Return Γ_HI of the ultraviolet background at a redshift, s⁻¹, linear in log Γ.

    The table is a file in TREECOOL format, whose first two columns are log10(1 + z) and Γ_HI, or
    None for that of BACKGROUND. Raises BadInput where it ends before the redshift.
    """
    if table is None:
        log_a = np.arange(len(_BACKGROUND)) * _BACKGROUND_STEP
        rates = 10.0 ** np.array(_BACKGROUND)
    else:
        log_a, rates = _read_table(table)
    at = math.log10(1.0 + redshift)
    above = int(np.searchsorted(log_a, at))
    if at < log_a[0] - 1e-9 or above == len(log_a) or rates[above] == 0:
        last = 10 ** log_a[np.flatnonzero(rates)[-1]] - 1
        raise BadInput(
            f"{table or BACKGROUND}: photo-ionisation rates from z = {10 ** log_a[0] - 1:.3g} to "
            f"{last:.3g}, the snapshot is at z = {redshift:.3g}; give a table that has it (--uvb)"
        )
    lit = rates > 0
    return float(10 ** np.interp(at, log_a[lit], np.log10(rates[lit])))


def _read_table(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        table = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise BadInput(f"{path}: no table in TREECOOL format ({why})") from None
    if table.shape[0] < 2 or table.shape[1] < 2:
        raise BadInput(f"{path}: {table.shape} numbers; TREECOOL has rows of log10(1+z) and rates")
    log_a, rates = table[:, 0], table[:, 1]
    if not (np.diff(log_a) > 0).all() or not (np.isfinite(rates) & (rates >= 0)).all():
        raise BadInput(f"{path}: log10(1+z) must grow from row to row, and rates be at least 0")
    if not (rates > 0).any() or rates.max() > 1e-6:
        raise BadInput(
            f"{path}: its largest rate is {rates.max():g} per second; HI is ionised at 1e-15 .. "
            "1e-11 per second; is the second column another quantity?"
        )
    return log_a, rates
