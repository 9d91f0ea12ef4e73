"""GADGET, AREPO and GIZMO snapshots and catalogues, HDF5.

Header       BoxSize, Redshift, Time (the scale factor), MassTable, NumPart_*
cosmology    in Header (Omega0, OmegaLambda, HubbleParam) or Parameters (GADGET-4)
units        in either or in Units, as EAGLE (UnitLength_in_cm, UnitMass_in_g): without h;
             GIZMO's UnitLength_In_CGS and UnitMass_In_CGS are divided by h;
             else kpc/h and 10^10 M☉/h
EAGLE        has a time in Time, and the scale factor in ExpansionFactor
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.ingestion.hdf5 import attributes, scalar
from bigbox.ingestion.headers import MPC, SOLAR_MASS, Header, common, first_of
from bigbox.ingestion.snapshot import open_hdf5

# GADGET and AREPO, then GIZMO since 2021.
_COSMOLOGY = {
    "omega_m": ("Omega0", "Omega_Matter"),
    "omega_b": ("OmegaBaryon", "Omega_Baryon"),
    "h": ("HubbleParam",),
    "omega_lambda": ("OmegaLambda", "Omega_Lambda"),
}


def read_header(path: Path, file: Any) -> Header:
    """Read the header of an open file. Raises BadInput where something needed is missing."""
    header = attributes(file, "Header")
    # GADGET-4 has its run's parameters in a group of their own; so has AREPO, beside the header's.
    known = attributes(file, "Units") | attributes(file, "Parameters") | header
    cosmology = first_of(known, _COSMOLOGY)
    length = _unit(known, "UnitLength_in_cm", "UnitLength_In_CGS", cosmology)
    mass = _unit(known, "UnitMass_in_g", "UnitMass_In_CGS", cosmology)
    # The code's sigma8 and slope count only where it has made its spectrum by them itself.
    if scalar(known.get("ReNormalizeInputSpectrum", 0)) == 1 and "Sigma8" in known:
        cosmology["sigma8"] = scalar(known["Sigma8"])
    a = next((scalar(header[n]) for n in ("ExpansionFactor", "Time") if n in header), None)
    own = str(known.get("Code", "")).startswith("bigbox")
    if (own or scalar(known.get("PowerSpectrumType", 0)) == 1) and "PrimordialIndex" in known:
        cosmology["n_s"] = scalar(known["PrimordialIndex"])
    return Header(
        code="GADGET",
        length=1e-3 if length is None else length / MPC,
        mass=1e10 if mass is None else mass / SOLAR_MASS,
        cosmology=cosmology,
        table=tuple(np.asarray(header.get("MassTable", ()), float).reshape(-1).tolist()),
        seed=int(scalar(known["Seed"])) if "Seed" in known else None,
        has_units=None not in (length, mass),
        velocity=scalar(known.get("UnitVelocity_in_cm_per_s", 1e5)),
        **common(path, header, a),
    )


def _unit(
    known: Mapping[str, Any], name: str, of_gizmo: str, cosmology: Mapping[str, float]
) -> float | None:
    """Return a unit in cgs, without its h; None where it is not told."""
    if name in known:
        return scalar(known[name])
    if of_gizmo in known and "h" in cosmology:
        return scalar(known[of_gizmo]) * cosmology["h"]
    return None


open_snapshot = partial(open_hdf5, read_header=read_header)
