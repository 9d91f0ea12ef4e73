"""SWIFT snapshots and catalogues, HDF5: h-free, with units and cosmology in groups of their own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from bigbox.ingestion.hdf5 import attributes, number, scalar
from bigbox.ingestion.headers import Header, common, first_of
from bigbox.ingestion.snapshot import open_hdf5

MPC = 3.08567758149e24  # cm
SOLAR_MASS = 1.98841e33  # g

_COSMOLOGY = {
    "omega_m": ("Omega_m",),
    "omega_b": ("Omega_b",),
    "h": ("h",),
    "omega_lambda": ("Omega_lambda",),
}
_DATASETS = {
    "Density": "Densities",
    "InternalEnergy": "InternalEnergies",
    "StarFormationRate": "StarFormationRates",
    "Temperature": "Temperatures",
}


def read_header(path: Path, file: Any) -> Header:
    """Read the header of an open file. Raises BadInput where something needed is missing."""
    units, cosmology = attributes(file, "Units"), attributes(file, "Cosmology")
    a = cosmology.get("Scale-factor")
    h = number(path, cosmology, "h", "Cosmology")
    return Header(
        code="SWIFT",
        length=number(path, units, "Unit length in cgs (U_L)", "Units") / MPC * h,
        mass=number(path, units, "Unit mass in cgs (U_M)", "Units") / SOLAR_MASS * h,
        cosmology=first_of(cosmology, _COSMOLOGY),
        mpc=MPC,
        solar_mass=SOLAR_MASS,
        datasets=_DATASETS,
        **common(path, attributes(file, "Header"), scalar(a) if a is not None else None),
    )


open_snapshot = partial(open_hdf5, read_header=read_header)
