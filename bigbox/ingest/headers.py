"""What the headers of simulation codes say: units, box size, redshift, cosmology, counts.

    GADGET, AREPO,   Header: BoxSize, Redshift, MassTable, NumPart_*; cosmology in Header
    GIZMO            (Omega0, OmegaLambda, HubbleParam) or Parameters (GADGET-4); units in either
                     (UnitLength_in_cm, UnitMass_in_g), else kpc/h and 10^10 M☉/h
    SWIFT            Header: as above, but h-free; Units and Cosmology have groups of their own

`Header.length` and `Header.mass` turn the code's units into comoving Mpc/h and M☉/h.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.errors import BadInput
from bigbox.ingest.hdf5 import attributes, number, scalar

MPC = 3.085678e24
"""cm in a Mpc, as GADGET rounds it (SWIFT: 3.08567758e24, a difference of 1e-7)."""
SOLAR_MASS = 1.989e33
"""g in a solar mass, as GADGET rounds it."""
SWIFT_MPC = 3.08567758149e24
SWIFT_SOLAR_MASS = 1.98841e33

AGREE = 1e-4
"""Relative difference at which two numbers of a header are still the same run's."""

# GADGET and AREPO, then GIZMO since 2021.
_GADGET_COSMOLOGY = {
    "omega_m": ("Omega0", "Omega_Matter"),
    "omega_b": ("OmegaBaryon", "Omega_Baryon"),
    "h": ("HubbleParam",),
    "omega_lambda": ("OmegaLambda", "Omega_Lambda"),
}

_SWIFT_NAMES = {
    "Density": "Densities",
    "InternalEnergy": "InternalEnergies",
    "StarFormationRate": "StarFormationRates",
    "Temperature": "Temperatures",
}


@dataclass(frozen=True)
class Header:
    """A snapshot's or a catalogue's header; masses of 0 in the table are in a data set."""

    code: str  # "GADGET" (with AREPO) or "SWIFT"
    box: float  # side, in the code's unit of length
    length: float  # comoving Mpc/h per unit of length
    mass: float  # M☉/h per unit of mass
    redshift: float
    cosmology: dict[str, float] = field(default_factory=dict)
    table: tuple[float, ...] = ()
    totals: tuple[int, ...] = ()
    seed: int | None = None  # of the initial conditions
    told_units: bool = True  # False: kpc/h and 1e10 M☉/h are taken for granted
    mpc: float = MPC  # cm, as the code has it
    solar_mass: float = SOLAR_MASS  # g
    velocity: float = 1e5  # cm/s per unit of velocity; internal energies are its squares

    @property
    def box_size(self) -> float:
        """Side of the box, comoving Mpc/h."""
        return self.box * self.length

    def name(self, quantity: str) -> str:
        """The data set in which this code keeps a quantity, by GADGET's name of it."""
        return _SWIFT_NAMES.get(quantity, quantity) if self.code == "SWIFT" else quantity

    def difference(self, other: Header) -> str | None:
        """What makes another header one of another simulation or time; None where nothing does."""
        if abs(other.box_size - self.box_size) > AGREE * self.box_size:
            return f"box size {other.box_size:g} Mpc/h is another ({self.box_size:g} Mpc/h)"
        if abs(other.redshift - self.redshift) > 10 * AGREE * (1 + self.redshift):
            return f"redshift {other.redshift:.4g} is another ({self.redshift:.4g})"
        for name in sorted(self.cosmology.keys() & other.cosmology.keys()):
            a, b = self.cosmology[name], other.cosmology[name]
            if abs(a - b) > AGREE * abs(a):
                return f"{name} {b:g} is another ({a:g})"
        if None not in (self.seed, other.seed) and self.seed != other.seed:
            return f"the seed of the initial conditions, {other.seed}, is another ({self.seed})"
        if self.totals and other.totals and self.totals != other.totals:
            return f"NumPart_Total {list(other.totals)} is another ({list(self.totals)})"
        return None


def read(path: Path, file: Any) -> Header:
    """The header of an open snapshot or catalogue. BadInput where something needed is missing."""
    header = attributes(file, "Header")
    if not header:
        raise BadInput(f"{path}: has no group Header; is this a snapshot or a catalogue?")
    return _swift(path, file, header) if _is_swift(file, header) else _gadget(path, file, header)


def files_of(path: Path, header: dict[str, Any]) -> int:
    """How many files the snapshot or catalogue has."""
    for name in ("NumFilesPerSnapshot", "NumFiles"):
        if name in header:
            return max(1, int(scalar(header[name])))
    return 1


def counts_of(path: Path, file: Any) -> tuple[int, ...]:
    """Particles of each type in this file, as the header and the data sets say."""
    header = attributes(file, "Header")
    if "NumPart_ThisFile" not in header:
        raise BadInput(f"{path}: its Header has no NumPart_ThisFile; is this a snapshot?")
    counts = tuple(int(n) for n in np.asarray(header["NumPart_ThisFile"]).reshape(-1))
    for kind, count in enumerate(counts):
        group = file.get(f"PartType{kind}")
        if count and group is None:
            raise BadInput(
                f"{path}: its header says {count} particles of type {kind}, but it has no group "
                f"PartType{kind}"
            )
        data = None if group is None else group.get("Coordinates")
        if data is not None and data.shape != (count, 3):
            raise BadInput(
                f"{path}: PartType{kind}/Coordinates has shape {data.shape}, the header says "
                f"{count} particles; the file is damaged"
            )
    return counts


def _is_swift(file: Any, header: dict[str, Any]) -> bool:
    code = header.get("Code", attributes(file, "Code").get("Code", ""))
    return "SWIFT" in str(code)


def _gadget(path: Path, file: Any, header: dict[str, Any]) -> Header:
    # GADGET-4 has its run's parameters in a group of their own; so has AREPO, beside the header's.
    known = attributes(file, "Parameters") | header
    length, mass = known.get("UnitLength_in_cm"), known.get("UnitMass_in_g")
    cosmology = {
        name: scalar(known[theirs])
        for name, names in _GADGET_COSMOLOGY.items()
        for theirs in names
        if scalar(known.get(theirs, 0)) > 0
    }
    # The code's sigma8 and slope count only where it has made its spectrum by them itself.
    if scalar(known.get("ReNormalizeInputSpectrum", 0)) == 1 and "Sigma8" in known:
        cosmology["sigma8"] = scalar(known["Sigma8"])
    own = str(known.get("Code", "")).startswith("bigbox")
    if (own or scalar(known.get("PowerSpectrumType", 0)) == 1) and "PrimordialIndex" in known:
        cosmology["n_s"] = scalar(known["PrimordialIndex"])
    return Header(
        code="GADGET",
        box=_side(path, header),
        length=1e-3 if length is None else scalar(length) / MPC,
        mass=1e10 if mass is None else scalar(mass) / SOLAR_MASS,
        redshift=_redshift(path, header),
        cosmology=cosmology,
        table=tuple(np.asarray(header.get("MassTable", ()), float).reshape(-1).tolist()),
        totals=_totals(header),
        seed=int(scalar(known["Seed"])) if "Seed" in known else None,
        told_units=length is not None,
        velocity=scalar(known.get("UnitVelocity_in_cm_per_s", 1e5)),
    )


def _swift(path: Path, file: Any, header: dict[str, Any]) -> Header:
    units, cosmos = attributes(file, "Units"), attributes(file, "Cosmology")
    h = number(path, cosmos, "h", "Cosmology")
    cosmology = {
        name: scalar(cosmos[theirs])
        for name, theirs in (
            ("omega_m", "Omega_m"),
            ("omega_b", "Omega_b"),
            ("h", "h"),
            ("omega_lambda", "Omega_lambda"),
        )
        if scalar(cosmos.get(theirs, 0)) > 0
    }
    length = number(path, units, "Unit length in cgs (U_L)", "Units")
    mass = number(path, units, "Unit mass in cgs (U_M)", "Units")
    return Header(
        code="SWIFT",
        box=_side(path, header),
        length=length / SWIFT_MPC * h,
        mass=mass / SWIFT_SOLAR_MASS * h,
        redshift=_redshift(path, header),
        cosmology=cosmology,
        totals=_totals(header),
        mpc=SWIFT_MPC,
        solar_mass=SWIFT_SOLAR_MASS,
    )


def _side(path: Path, header: dict[str, Any]) -> float:
    number(path, header, "BoxSize")
    sides = np.asarray(header["BoxSize"], float).reshape(-1)
    if not (np.isfinite(sides) & (sides > 0)).all():
        raise BadInput(
            f"{path}: its BoxSize is {header['BoxSize']}; a periodic box has a positive size"
        )
    if sides.max() > sides.min() * (1 + AGREE):
        raise BadInput(f"{path}: its box of {sides.tolist()} is not a cube")
    return float(sides[0])


def _redshift(path: Path, header: dict[str, Any]) -> float:
    z = number(path, header, "Redshift")
    if not math.isfinite(z) or z < -AGREE:
        raise BadInput(f"{path}: its redshift {z:g} must be at least 0")
    return z if z > 1e-9 else 0.0  # 1/a - 1 at a = 1 is 2e-16 in GADGET-4


def _totals(header: dict[str, Any]) -> tuple[int, ...]:
    if "NumPart_Total" not in header:
        return ()
    low = [int(n) for n in np.asarray(header["NumPart_Total"]).reshape(-1)]
    high = [int(n) for n in np.asarray(header.get("NumPart_Total_HighWord", [0])).reshape(-1)]
    high += [0] * (len(low) - len(high))
    return tuple(a + (b << 32) for a, b in zip(low, high, strict=False))
