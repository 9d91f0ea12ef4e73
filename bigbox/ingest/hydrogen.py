"""Neutral hydrogen as points with their HI mass: of a snapshot's gas, or of haloes.

Gas, particle by particle (paper eq. 11):   m_HI = m_gas X_H x_HI,   x_HI = 1 where stars form

x_HI is the snapshot's own where it has one (AREPO, CAMELS), else that of ionisation equilibrium
(see `bigbox.physics.ionisation`). Molecules are not taken off, as in the paper. Where there is no
gas, haloes have HI by the relation of `bigbox.physics.hi_halo`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.ingest.catalogue import Catalogue
from bigbox.ingest.headers import Header
from bigbox.ingest.snapshot import GAS, Chunk, Points, Snapshot
from bigbox.physics import hi_halo, ionisation
from bigbox.physics.cosmology import Cosmology

NEUTRAL = "NeutralHydrogenAbundance"
ELECTRONS = "ElectronAbundance"
FORMATION = "StarFormationRate"

_IONISED = 1.158
"""n_e / n_H of ionised gas of 76 % hydrogen and 24 % helium, for temperatures without electrons."""


@dataclass(frozen=True)
class Hydrogen:
    """What tb is made of: points, read in chunks, whose weights are HI masses."""

    label: str
    unit: float  # M☉/h per unit of weight
    count: int  # points in all
    chunks: Callable[[], Iterator[Chunk]]
    points: Callable[[Chunk, int], Points]  # of so many voxels on a side
    attributes: dict[str, Any] = field(default_factory=dict)  # for tb to keep


def of_haloes(
    catalogue: Catalogue, cosmology: Cosmology, draw: int, scatter: float = hi_halo.SCATTER
) -> Hydrogen:
    """Give haloes HI by the HI-halo relation; draws 0, 1, ... of its scatter are independent.

    scatter: dex, of the mass.
    """
    header, seed = catalogue.header, catalogue.fingerprint() + (draw << 32)

    def points(chunk: Chunk, voxels: int) -> Points:
        voxel = header.box_size / voxels
        place, mass = catalogue.read(chunk, voxels)
        heavy = np.flatnonzero(mass > 0)  # the relation's logarithm; a halo of no mass has none
        found, hi = hi_halo.hi_points(
            chunk.first + heavy,  # a point depends on its halo's place in the catalogue
            place[heavy] * voxel,
            mass[heavy].astype(np.float64) * header.mass,
            header.redshift,
            cosmology,
            seed,
            scatter,
        )
        return found / voxel, hi.astype(np.float32)

    count = hi_halo.POINTS * sum(catalogue.counts)
    attributes = {"hi_seed": seed}
    return Hydrogen(hi_halo.RELATION, 1.0, count, catalogue.chunks, points, attributes)


@dataclass(frozen=True)
class _Gas:
    """How the HI of a snapshot's gas is found."""

    snapshot: Snapshot
    names: tuple[str, ...]  # the data sets that are read, beside places and masses
    rate: float = 0.0  # Γ_HI, 1/s; 0 where the snapshot has a neutral fraction
    self_shielding: bool = False
    density: float = 0.0  # n_H in cm⁻³ per unit of density

    def points(self, chunk: Chunk, voxels: int) -> Points:
        (place, mass), data = self.snapshot.points(chunk, voxels, self.names)
        weight = self.snapshot.one_mass(GAS) if mass is None else mass.astype(np.float64)
        neutral = self._neutral(chunk, data)
        if FORMATION in data:
            neutral = np.where(data[FORMATION] > 0, 1.0, neutral)
        return place, (weight * ionisation.HYDROGEN * neutral).astype(np.float32)

    def _neutral(self, chunk: Chunk, data: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
        if NEUTRAL in data:
            fraction = data[NEUTRAL].astype(np.float64)
            # Single precision writes 1 as up to 1.000001.
            self._check(chunk, NEUTRAL, fraction, 1.0 + 1e-3)
            return np.minimum(fraction, 1.0)
        header = self.snapshot.header
        density = data["Density"].astype(np.float64) * self.density
        self._check(chunk, "Density", density)
        electrons = data.get(ELECTRONS)
        if electrons is not None:
            self._check(chunk, ELECTRONS, electrons, 1.3)
        if "Temperature" in data:
            heat = data["Temperature"].astype(np.float64)
        else:
            energy = data["InternalEnergy"].astype(np.float64) * (header.velocity or 0.0) ** 2
            heat = ionisation.temperature(energy, _IONISED if electrons is None else electrons)
        self._check(chunk, "temperature", heat)
        heat = np.maximum(heat, 1.0)
        if not self.self_shielding:
            return ionisation.neutral_fraction(density, heat, self.rate, electrons)
        # The snapshot's electrons are those of gas without shielding.
        rate = ionisation.shielded(self.rate, density, heat, header.redshift)
        return ionisation.neutral_fraction(density, heat, rate)

    def _check(self, chunk: Chunk, name: str, values: NDArray[Any], most: float = np.inf) -> None:
        good = (values >= 0.0) & (values <= most) & np.isfinite(values)
        if not good.all():
            i = int(np.argmin(good))
            raise BadInput(
                f"{self.snapshot.files[chunk.file]}: gas particle {chunk.start + i} has {name} "
                f"{values[i]:g}, outside of 0 .. {most:g}; is the file damaged?"
            )


def of_gas(
    snapshot: Snapshot,
    *,
    h: float | None = None,
    table: Path | None = None,
    self_shielding: bool = False,
) -> Hydrogen:
    """Find out how to find the HI of a snapshot's gas. Reads a header's worth.

    Without `h` or a table of photo-ionisation rates, in TREECOOL format, the header's h and the
    rates that bigbox brings are taken. Raises BadInput where there is no gas, or not what its
    neutral fraction needs.
    """
    if not snapshot.total(GAS):
        raise BadInput(
            f"{snapshot}: has no gas (PartType0); give --gas-from the hydrodynamical run, or take "
            "the HI from haloes (--halos CATALOGUE --hi-halo)"
        )
    header, has = snapshot.header, partial(snapshot.has, GAS)
    names = tuple(filter(has, (FORMATION,)))
    stars = "star-forming gas neutral" if names else "no star formation in the snapshot"
    if has(NEUTRAL):
        if table is not None or self_shielding:
            raise BadInput(
                f"{snapshot}: has its own neutral fraction ({NEUTRAL}); leave --uvb and "
                "--self-shielding, which are for snapshots without"
            )
        label = f"gas: the snapshot's {NEUTRAL}, {stars}"
        return _of_gas(label, _Gas(snapshot, (*names, NEUTRAL)))
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
    rate = ionisation.background_rate(header.redshift, table)
    label = (
        f"gas: ionisation equilibrium at {rate:.3g} per second "
        f"({table.name if table else ionisation.BACKGROUND}), "
        f"{'with' if self_shielding else 'no'} self-shielding, {stars}"
    )
    h = Cosmology.from_header(header.cosmology).h if h is None else h
    names = (*names, "Density", heat, *filter(has, (ELECTRONS,)))
    return _of_gas(label, _Gas(snapshot, names, rate, self_shielding, hydrogen_density(header, h)))


def _of_gas(label: str, gas: _Gas) -> Hydrogen:
    snapshot = gas.snapshot
    count, chunks = snapshot.total(GAS), partial(snapshot.chunks, GAS)
    return Hydrogen(label, snapshot.header.mass, count, chunks, gas.points)


def hydrogen_density(header: Header, h: float) -> float:
    """Return physical n_H in cm⁻³ per unit of comoving density."""
    comoving = header.mass / header.length**3  # M☉/h per (Mpc/h)³
    grams = comoving * h**2 * (header.solar_mass / header.mpc**3) * (1.0 + header.redshift) ** 3
    return grams * ionisation.HYDROGEN / ionisation.PROTON_MASS
