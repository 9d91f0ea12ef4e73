"""What the header of a snapshot or a catalogue says: units, box size, redshift, cosmology, counts.

`Header.length` and `Header.mass` turn the code's units into comoving Mpc/h and M☉/h. What is read
from where stands in the file of each format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.errors import BadInput
from bigbox.ingest.hdf5 import scalar

MPC = 3.085678e24  # cm in a Mpc, as GADGET rounds it (SWIFT: 3.08567758e24, a difference of 1e-7)
SOLAR_MASS = 1.989e33  # g in a solar mass, as GADGET rounds it
AGREE = 1e-4  # relative difference at which two numbers of a header are still the same run's


@dataclass(frozen=True)
class Header:
    """A snapshot's or a catalogue's header; masses of 0 in the table are in a data set."""

    code: str  # "GADGET" (with AREPO), "SWIFT" or another's name
    box: float  # side, in the code's unit of length
    length: float  # comoving Mpc/h per unit of length
    mass: float  # M☉/h per unit of mass
    redshift: float
    cosmology: dict[str, float] = field(default_factory=dict)
    table: tuple[float, ...] = ()
    totals: tuple[int, ...] = ()
    seed: int | None = None  # of the initial conditions
    has_units: bool = True  # False: kpc/h and 1e10 M☉/h are taken for granted
    mpc: float = MPC  # cm, as the code has it
    solar_mass: float = SOLAR_MASS  # g
    velocity: float | None = None  # cm/s per unit of velocity; internal energies are its squares
    datasets: Mapping[str, str] = field(default_factory=dict)  # by GADGET's names, where others
    scale_factor: float | None = None  # that the header tells beside the redshift
    lacks: Mapping[str, str] = field(default_factory=dict)  # "box", "redshift": why it is not known

    @property
    def box_size(self) -> float:
        """Side of the box, comoving Mpc/h."""
        return self.box * self.length

    def dataset(self, quantity: str) -> str:
        """Return the data set in which this code keeps a quantity, by GADGET's name of it."""
        return self.datasets.get(quantity, quantity)

    def beside(self, snapshot: Header) -> Header:
        """Return a catalogue's header with what that of its snapshot tells and it does not."""
        known = self
        if not self.has_units:
            known = replace(known, length=snapshot.length, mass=snapshot.mass)
        if "box" in self.lacks:
            known = replace(known, box=snapshot.box_size / known.length)
        if "redshift" in self.lacks:
            known = replace(known, redshift=snapshot.redshift)
        left = {name: why for name, why in self.lacks.items() if name == "units"}
        return replace(known, lacks=left, scale_factor=None)  # the redshifts are compared

    def difference(self, other: Header) -> str | None:
        """Return what makes another header one of another simulation or time, None for nothing."""
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
        # SWIFT's catalogues say that they hold no particle.
        if any(self.totals) and any(other.totals) and self.totals != other.totals:
            return f"NumPart_Total {list(other.totals)} is another ({list(self.totals)})"
        return None


@dataclass(frozen=True)
class Told:
    """What the user tells of a run, in the place of what its headers tell."""

    box_size: float | None = None  # Mpc/h
    redshift: float | None = None
    length: float | None = None  # Mpc/h per unit of length
    mass: float | None = None  # M☉/h per unit of mass

    def of(self, header: Header, who: object) -> Header:
        """Return a header with what was told. Raises BadInput where something still lacks."""
        header = replace(
            header,
            length=self.length or header.length,
            mass=self.mass or header.mass,
            has_units=header.has_units or None not in (self.length, self.mass),
        )
        if self.box_size is not None:
            header = replace(header, box=self.box_size / header.length)
        elif "box" in header.lacks:
            raise BadInput(f"{who}: {header.lacks['box']}; if it has one, give --box-size in Mpc/h")
        if "units" in header.lacks and None in (self.length, self.mass):
            raise BadInput(f"{who}: {header.lacks['units']}")
        if self.redshift is not None:
            return replace(header, redshift=self.redshift)
        if "redshift" in header.lacks:
            raise BadInput(f"{who}: {header.lacks['redshift']}; give --redshift Z")
        a = header.scale_factor
        if a is not None and abs(a * (1 + header.redshift) - 1) > 10 * AGREE:
            raise BadInput(
                f"{who}: its redshift {header.redshift:g} and its scale factor {a:g} (redshift "
                f"{1 / a - 1:.4g}) do not go together; give --redshift Z"
            )
        return header


def with_lacks(header: Header, box: str, redshift: str) -> Header:
    """Return a header that lacks what is not positive, or no redshift; why is told by texts."""
    lacks = {}
    if not (math.isfinite(header.box) and header.box > 0):
        lacks["box"] = box
    if not (math.isfinite(header.redshift) and header.redshift > -AGREE):
        lacks["redshift"] = redshift
    z = header.redshift
    return replace(
        header,
        box=math.nan if "box" in lacks else header.box,
        redshift=math.nan if "redshift" in lacks else 0.0 if z <= 1e-6 else z,
        lacks=lacks,
    )


def check_one_run(paths: Sequence[Path], headers: Sequence[Header], what: str) -> None:
    """Raise BadInput where the headers of a snapshot's or catalogue's files disagree."""
    for path, header in zip(paths, headers, strict=True):
        for name in sorted(header.lacks.keys() ^ headers[0].lacks.keys()):
            this, that = (path, paths[0]) if name in header.lacks else (paths[0], path)
            why = {**header.lacks, **headers[0].lacks}[name]
            raise BadInput(f"{this}: {why}, other than in {that.name}")
        if wrong := headers[0].difference(header):
            raise BadInput(f"{path}: {wrong} than in {paths[0].name}: not of the same {what}")


def check_totals(paths: Sequence[Path], said: Sequence[int | None], held: int, what: str) -> None:
    """Raise BadInput where the files hold other counts than a header of theirs says."""
    for path, total in zip(paths, said, strict=True):
        if total not in (None, held):
            raise BadInput(
                f"{path}: its header says {total} {what} in all, its {len(paths)} files hold "
                f"{held}; a file is missing or of another run"
            )


def first_of(known: Mapping[str, Any], names: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """Return parameters by our names, each by the last of the code's names that is above 0.

    A cosmological constant of 0 is told where the density of matter is.
    """
    found = {
        name: scalar(known[theirs])
        for name, all_theirs in names.items()
        for theirs in all_theirs
        if scalar(known.get(theirs, 0)) > 0
    }
    if "omega_m" in found and any(theirs in known for theirs in names.get("omega_lambda", ())):
        found.setdefault("omega_lambda", 0.0)
    return found


def common(path: Path, header: Mapping[str, Any], scale_factor: float | None) -> dict[str, Any]:
    """Return what all codes write alike: side, redshift, particles in all.

    scale_factor: as the file tells it. What lacks is told by `Header.lacks`, for an option may
    tell it. Raises BadInput where there is no header, or the box is not a cube.
    """
    if not header:
        raise BadInput(f"{path}: has no group Header; is this a snapshot or a catalogue?")
    lacks = {}
    sides = np.asarray(header.get("BoxSize", ()), float).reshape(-1)
    if not sides.size:
        lacks["box"] = "its Header has no BoxSize"
    elif not (np.isfinite(sides) & (sides > 0)).all():
        lacks["box"] = f"its BoxSize is {header['BoxSize']}; a periodic box has a positive size"
    elif sides.max() > sides.min() * (1 + AGREE):
        raise BadInput(f"{path}: its box of {sides.tolist()} is not a cube")
    if scale_factor is not None and not 0 < scale_factor < 1.1:
        scale_factor = None  # a time, of a run without expansion
    z = math.nan
    if np.size(header.get("Redshift", ())):
        z = scalar(header["Redshift"])
        if not math.isfinite(z) or z < -AGREE:
            lacks["redshift"] = f"its redshift {z:g} must be at least 0"
    elif scale_factor is not None:
        z = 1.0 / scale_factor - 1.0
    else:
        lacks["redshift"] = "its Header has neither Redshift nor a scale factor (Time)"
    low = np.asarray(header.get("NumPart_Total", ())).reshape(-1).tolist()
    high = np.asarray(header.get("NumPart_Total_HighWord", ())).reshape(-1).tolist()
    high += [0] * (len(low) - len(high))
    return {
        "box": math.nan if "box" in lacks else float(sides[0]),
        "redshift": 0.0 if z <= 1e-9 else z,  # 1/a - 1 at a = 1 is 2e-16 in GADGET-4
        "scale_factor": scale_factor,
        "lacks": lacks,
        "totals": tuple(int(a) + (int(b) << 32) for a, b in zip(low, high, strict=False)),
    }
