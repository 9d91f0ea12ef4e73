"""Neutral hydrogen of a hydrodynamical snapshot's gas, particle by particle (paper eq. 11).

    m_HI = m_gas X_H x_HI,   x_HI = 1 where stars form

x_HI is the snapshot's own where it has one (AREPO, CAMELS), else that of ionisation equilibrium
(see `bigbox.physics.ionisation`). Molecules are not taken off, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.ingest.headers import Header
from bigbox.ingest.snapshot import GAS, Chunk, Snapshot
from bigbox.physics import ionisation
from bigbox.physics.cosmology import Cosmology

NEUTRAL = "NeutralHydrogenAbundance"
ELECTRONS = "ElectronAbundance"
FORMATION = "StarFormationRate"

_IONISED = 1.158
"""n_e / n_H of ionised gas of 76 % hydrogen and 24 % helium, for temperatures without electrons."""


@dataclass(frozen=True)
class Gas:
    """How the HI of a snapshot's gas is found."""

    snapshot: Snapshot
    names: tuple[str, ...]  # the data sets that are read
    rate: float  # Γ_HI, 1/s; 0 where the snapshot has a neutral fraction
    self_shielding: bool
    density: float  # n_H in cm⁻³ per unit of density
    label: str

    def hydrogen(self, chunk: Chunk) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Read coordinates in the code's unit, (M, 3), and HI masses in its unit, float32 (M,)."""
        data = self.snapshot.read(chunk, self.names)
        table = self.snapshot.header.table
        mass = self.snapshot.mass(chunk, data.get("Masses"))
        weight = np.float64(table[GAS]) if mass is None else mass.astype(np.float64)
        neutral = self._neutral(chunk, data)
        if FORMATION in data:
            neutral = np.where(data[FORMATION] > 0, 1.0, neutral)
        hi = (weight * ionisation.HYDROGEN * neutral).astype(np.float32)
        return data["Coordinates"], hi

    def _neutral(self, chunk: Chunk, data: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
        if NEUTRAL in data:
            fraction = data[NEUTRAL].astype(np.float64)
            # Single precision writes 1 as up to 1.000001.
            self._check(chunk, NEUTRAL, fraction, 0.0, 1.0 + 1e-3)
            return np.minimum(fraction, 1.0)
        density = data["Density"].astype(np.float64) * self.density
        self._check(chunk, "Density", density, 0.0, np.inf)
        electrons = data.get(ELECTRONS)
        if electrons is not None:
            self._check(chunk, ELECTRONS, electrons, 0.0, 1.3)
        if "Temperature" in data:
            heat = data["Temperature"].astype(np.float64)
        else:
            velocity = self.snapshot.header.velocity or 0.0
            energy = data["InternalEnergy"].astype(np.float64) * velocity**2
            heat = ionisation.temperature(energy, _IONISED if electrons is None else electrons)
        self._check(chunk, "temperature", heat, 0.0, np.inf)
        heat = np.maximum(heat, 1.0)
        rate: Any = self.rate
        if self.self_shielding:
            # The snapshot's electrons are those of gas without shielding.
            rate = ionisation.shielded(self.rate, density, heat, self.snapshot.header.redshift)
            electrons = None
        return ionisation.neutral_fraction(density, heat, rate, electrons)

    def _check(
        self, chunk: Chunk, name: str, values: NDArray[Any], least: float, most: float
    ) -> None:
        good = (values >= least) & (values <= most) & np.isfinite(values)
        if not good.all():
            i = int(np.argmin(good))
            raise BadInput(
                f"{self.snapshot.files[chunk.file]}: gas particle {chunk.start + i} has {name} "
                f"{values[i]:g}, outside of {least:g} .. {most:g}; is the file damaged?"
            )


def open_gas(
    snapshot: Snapshot,
    *,
    h: float | None = None,
    table: Path | None = None,
    self_shielding: bool = False,
) -> Gas:
    """Find out how to find the HI of a snapshot's gas. Reads a header's worth.

    Raises BadInput where there is no gas, or not what its neutral fraction needs.

    Parameters
    ----------
    h : H0 / (100 km/s/Mpc); None: the header's, else the default of `Cosmology`.
    table : photo-ionisation rates in TREECOOL format; None: those that bigbox brings.
    self_shielding : dense gas sees less of the background (Rahmati et al. 2013).
    """
    if not snapshot.total(GAS):
        raise BadInput(
            f"{snapshot}: has no gas (PartType0); give --gas-from the hydrodynamical run, or take "
            "the HI from haloes (--halos CATALOGUE --hi-halo)"
        )
    header, has = snapshot.header, partial(snapshot.has, GAS)
    names = ["Coordinates"]
    if not (header.table and header.table[GAS] > 0):
        names.append("Masses")
    names += [FORMATION] if has(FORMATION) else []
    stars = "star-forming gas neutral" if has(FORMATION) else "no star formation in the snapshot"
    if has(NEUTRAL):
        if table is not None or self_shielding:
            raise BadInput(
                f"{snapshot}: has its own neutral fraction ({NEUTRAL}); leave --uvb and "
                "--self-shielding, which are for snapshots without"
            )
        label = f"gas: the snapshot's {NEUTRAL}, {stars}"
        return Gas(snapshot, (*names, NEUTRAL), 0.0, False, 0.0, label)
    heat = "Temperature" if has("Temperature") else "InternalEnergy"
    if header.velocity is None and heat != "Temperature":
        raise BadInput(
            f"{snapshot}: its gas has no Temperatures, which the neutral fraction needs; the run's "
            "output must have them"
        )
    for name in ("Density", heat):
        if not has(name):
            raise BadInput(
                f"{snapshot}: its gas has neither {NEUTRAL} nor {header.dataset(name)}, so that "
                "its neutral fraction cannot be found"
            )
    names += ["Density", heat, *([ELECTRONS] if has(ELECTRONS) else [])]
    rate = ionisation.background_rate(header.redshift, table)
    label = (
        f"gas: ionisation equilibrium at {rate:.3g} per second "
        f"({table.name if table else ionisation.BACKGROUND}), "
        f"{'with' if self_shielding else 'no'} self-shielding, {stars}"
    )
    h = Cosmology.from_header(header.cosmology).h if h is None else h
    return Gas(snapshot, tuple(names), rate, self_shielding, _hydrogen_density(header, h), label)


def _hydrogen_density(header: Header, h: float) -> float:
    """Physical n_H in cm⁻³ per unit of comoving density."""
    comoving = header.mass / header.length**3  # M☉/h per (Mpc/h)³
    grams = comoving * h**2 * (header.solar_mass / header.mpc**3) * (1.0 + header.redshift) ** 3
    return grams * ionisation.HYDROGEN / ionisation.PROTON_MASS
