"""What a run leaves on disk: a snapshot and a FOF catalogue as GADGET-4 writes them, in HDF5.

    OUT/snapdir_000/snapshot_000.hdf5         Header, Parameters, PartType1
    OUT/groups_000/fof_subhalo_tab_000.hdf5   Header, Parameters, Group

Units are GADGET's: comoving kpc/h, 10^10 M_sun/h; velocities of particles are peculiar km/s over
sqrt(a), those of groups peculiar km/s times a. Particles are in the order of their groups, largest
first. The catalogue is of groups alone: Nsubhalos is 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from bigbox import __version__
from bigbox.simulation.groups import Groups
from bigbox.simulation.options import LINKING, START, Options

SNAPSHOT = Path("snapdir_000") / "snapshot_000.hdf5"
CATALOGUE = Path("groups_000") / "fof_subhalo_tab_000.hdf5"

DARK = 1
_UNITS = {
    "UnitLength_in_cm": 3.085678e21,
    "UnitMass_in_g": 1.989e43,
    "UnitVelocity_in_cm_per_s": 1e5,
}
CHUNK = 1 << 20


def write(
    folder: Path,
    options: Options,
    positions: NDArray[np.float32],
    velocities: NDArray[np.float32],
    groups: Groups,
) -> None:
    """Write both files into `folder`, of positions in Mpc/h, in [0, side), and velocities in km/s.

    Both are (M, 3). Row i is grid point i of the initial conditions.
    """
    order, count, side = groups.order, options.particles, np.float32(1e3 * options.side)
    counts = {
        "MassTable": _of_dark(options.particle_mass / 1e10, np.float64),
        "NumFilesPerSnapshot": np.int32(1),
        "NumPart_ThisFile": _of_dark(count, np.uint64),
        "NumPart_Total": _of_dark(count, np.uint64),
    }
    with _new(folder / SNAPSHOT, options, counts) as file:
        part = file.create_group(f"PartType{DARK}")
        places = part.create_dataset("Coordinates", (count, 3), "f4")
        places.attrs.update(_scaling("UnitLength_in_cm", a=1.0, h=-1.0, length=1.0))
        speeds = part.create_dataset("Velocities", (count, 3), "f4")
        speeds.attrs.update(_scaling("UnitVelocity_in_cm_per_s", a=0.5, velocity=1.0))
        ids = part.create_dataset("ParticleIDs", (count,), "u4" if count < 2**32 else "u8")
        for start in range(0, count, CHUNK):
            some = order[start : start + CHUNK]
            place = positions[some] * np.float32(1e3)
            place[place >= side] = 0.0  # rounding
            places[start : start + CHUNK] = place
            speeds[start : start + CHUNK] = velocities[some] / np.float32(options.scale**0.5)
            ids[start : start + CHUNK] = some + 1
    _write_catalogue(folder / CATALOGUE, options, groups)


def _write_catalogue(path: Path, options: Options, groups: Groups) -> None:
    lengths, count = groups.lengths, len(groups.lengths)
    mass = (lengths * (options.particle_mass / 1e10)).astype(np.float32)
    offsets = np.cumsum(lengths, dtype=np.int64) - lengths
    of_all = {"Ngroups": count, "Nids": int(lengths.sum(dtype=np.int64)), "Nsubhalos": 0}
    counts = {
        f"{name}_{of}": np.uint64(n) for name, n in of_all.items() for of in ("ThisFile", "Total")
    }
    with _new(path, options, {"NumFiles": np.int32(1)} | counts) as file:
        group = file.create_group("Group")
        for name, values in {
            "GroupAscale": np.full(count, options.scale, np.float32),
            "GroupFirstSub": np.full(count, -1, np.int64),
            "GroupLen": lengths,
            "GroupLenType": _of_dark(lengths, lengths.dtype),
            "GroupMass": mass,
            "GroupMassType": _of_dark(mass, mass.dtype),
            "GroupNsubs": np.zeros(count, np.int32),
            "GroupOffsetType": _of_dark(offsets, offsets.dtype),
            "GroupPos": (1e3 * groups.positions).astype(np.float32),
            "GroupVel": (options.scale * groups.velocities).astype(np.float32),
        }.items():
            group.create_dataset(name, data=values)


def _new(path: Path, options: Options, counts: dict[str, Any]) -> h5py.File:
    """Make a file, its folder, header and parameters."""
    path.parent.mkdir()
    file = h5py.File(path, "w")
    common = {
        "BoxSize": 1e3 * options.side,
        "Redshift": options.redshift,
        "Time": options.scale,
        "Code": f"bigbox simulate {__version__}",
    }
    file.create_group("Header").attrs.update(common | counts)
    c = options.cosmology
    parameters = {
        "BoxSize": 1e3 * options.side,
        "ComovingIntegrationOn": 1,
        "Omega0": c.omega_m,
        "OmegaLambda": 1 - c.omega_m,
        "OmegaBaryon": c.omega_b,
        "HubbleParam": c.h,
        "Hubble": 0.1,
        "Sigma8": c.sigma8,
        "PrimordialIndex": c.n_s,
        "ReNormalizeInputSpectrum": 1,
        "PowerSpectrumType": 2,
        "GridSize": options.grid,
        "Seed": options.seed,
        **_UNITS,
        "SimulationCode": "bigbox simulate: 2LPT, particle-mesh, friends of friends",
        "TimeBegin": 1 / (1 + START),
        "TimeMax": options.scale,
        "MeshSize": options.mesh,
        "MeshCell": 1e3 * options.side / options.mesh,
        "Steps": options.steps,
        "LinkingLength": LINKING,
    }
    file.create_group("Parameters").attrs.update(parameters)
    return file


def _of_dark(values: Any, dtype: DTypeLike) -> NDArray[Any]:
    """Give values to dark matter, of GADGET's six types: (...) -> (..., 6)."""
    table = np.zeros((*np.shape(values), 6), dtype)
    table[..., DARK] = values
    return table


def _scaling(unit: str, **powers: float) -> dict[str, float]:
    """GADGET-4's attributes of a data set: the powers that lead to physical units."""
    names = ("a", "h", "length", "mass", "velocity")
    return {f"{name}_scaling": powers.get(name, 0.0) for name in names} | {"to_cgs": _UNITS[unit]}
