"""Whether snapshot, catalogue and disk can be what they are said to be: one line each where not."""

from __future__ import annotations

import shutil
from pathlib import Path

from bigbox.errors import BadInput
from bigbox.ingest.snapshot import GAS, Snapshot
from bigbox.physics.cosmology import CRITICAL_DENSITY


def check_room(folder: Path, arrays: float, sort: float) -> None:
    """BadInput where a folder has no room for a box and what is beside it for a while, in bytes."""
    free = shutil.disk_usage(folder).free
    if arrays + sort > free:
        raise BadInput(
            f"{folder}: the box needs {arrays / 1e9:.1f} GB, and {sort / 1e9:.1f} GB while it is "
            f"made, but {free / 1e9:.1f} GB are free: choose another folder or make room"
        )


def check_mass(snapshot: Snapshot, mass: float, omega_m: float | None) -> None:
    """BadInput where the dark matter's mass (code units) is not that of such a box."""
    header = snapshot.header
    if omega_m is None:
        return
    omega = mass * header.mass / header.box_size**3 / CRITICAL_DENSITY
    # With baryons of their own the dark matter is what they leave, at least a half.
    least = 0.5 if snapshot.total(GAS) else 0.95
    if not least * omega_m <= omega <= 1.05 * omega_m:
        raise BadInput(
            f"{snapshot}: its dark matter in a box of {header.box_size:g} Mpc/h has the density "
            f"{omega:.4g} over critical, but Omega_m is {omega_m:g}: units other than "
            f"{header.length:g} Mpc/h and {header.mass:g} M_sun/h, or a part of the particles"
        )


def check_haloes(catalogue: str, dense: float, whole: float, volume: float) -> None:
    """BadInput where the haloes are not in dense places: of other initial conditions.

    dense, whole: halo mass in voxels of more than the mean density, and in all; volume: the share
    of such voxels. Of haloes strewn at random a share like the volume's is in them.
    """
    if whole > 0 and dense / whole < 0.5 * (1.0 + volume):
        raise BadInput(
            f"{catalogue}: only {100 * dense / whole:.0f} % of the haloes' mass is where matter is "
            f"denser than its mean ({100 * volume:.0f} % of the volume is): a catalogue of another "
            "simulation"
        )
