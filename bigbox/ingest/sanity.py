"""Whether snapshot, catalogue and grid can be what they are said to be: one line each where not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.ingest.headers import Header
from bigbox.ingest.snapshot import GAS, Snapshot
from bigbox.physics.cosmology import CRITICAL_DENSITY
from bigbox.scheduler.tiling import Tiling, TilingError

MOST_EMPTY = 0.6
"""Share of voxels of density 0 above which it is said: 0.36 at one particle a voxel and z = 0."""
MOST_AT_ONE_POINT = 1e-3
"""Share of points at exactly the place of another one above which it is said."""
_LOOKED_AT = 1 << 12  # points of a chunk that are compared
LEAST_EXTENT = 0.5
"""Share of the box's side that the particles of a whole box reach over at least."""
LIGHTEST = 1e6
"""M☉/h: the heaviest halo of any simulation has more."""
_FEW = 64  # particles that may lie anywhere


class Spread:
    """Where the points of a source lie: noted chunk by chunk, in any thread."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.float64], NDArray[np.float64], int, float]] = []

    def note(self, place: NDArray[np.float64]) -> None:
        """Take note of places (M, 3)."""
        if len(place):
            some = place
            if len(place) > _LOOKED_AT:
                drawn = np.random.default_rng(len(place)).integers(0, len(place), _LOOKED_AT)
                some = place[np.unique(drawn)]
            rows = np.ascontiguousarray(some).view(f"V{3 * some.itemsize}")
            same = 1 - len(np.unique(rows)) / len(rows)
            # Axis by axis: ten times as fast as along the other one.
            least, most = (np.array([f(x) for x in place.T]) for f in (np.min, np.max))
            self._parts.append((least, most, len(place), same * len(place)))

    @property
    def points(self) -> int:
        """Points noted."""
        return sum(part[2] for part in self._parts)

    def extent(self) -> float:
        """Return the least of the sides that all points reach over."""
        least = np.min([part[0] for part in self._parts], axis=0)
        return float((np.max([part[1] for part in self._parts], axis=0) - least).min())

    def said(self, who: object, what: str) -> tuple[str, ...]:
        """Return what is odd: many points in one place, as values that were never written are."""
        same = sum(part[3] for part in self._parts)
        if same <= MOST_AT_ONE_POINT * max(self.points, 1):
            return ()
        return (
            f"{who}: about {same:.0f} of {self.points} {what} are exactly where another one is: "
            "are their positions whole?",
        )


def check_extent(who: object, what: str, header: Header, spread: Spread, voxels: int) -> None:
    """Raise BadInput where the points fill a part of the box only, as with mixed units.

    what: "particles" or "haloes".
    """
    share = spread.extent() / voxels if spread.points > _FEW else 1.0
    if share < LEAST_EXTENT:
        option = "--length-unit" if what == "particles" else "--halo-length-unit"
        raise BadInput(
            f"{who}: its {what} lie within {share:.3g} of the side of the box of "
            f"{header.box:g} ({header.box_size:g} Mpc/h): positions and box size are not in one "
            f"unit; give --box-size in Mpc/h, and {option}, the Mpc/h of a unit of positions"
        )


def empty_warnings(who: object, empty: float) -> tuple[str, ...]:
    """Return what is odd about the share of voxels whose density is exactly 0."""
    if empty <= MOST_EMPTY:
        return ()
    return (
        f"{who}: {100 * empty:.0f} % of the voxels have density 0: a part of the source may be "
        "missing, or the grid is finer than its particles",
    )


def odd_voxel(voxel: float) -> tuple[str, ...]:
    """Return what is odd about the side of a voxel, Mpc/h."""
    if 1e-3 <= voxel <= 10:
        return ()
    return (f"a voxel has {voxel:.3g} Mpc/h: is the box size in Mpc/h?",)


def redshift_in_name(path: Path) -> float | None:
    """Return the redshift that a name tells, as z=2.0, z0.5, z002p003; None where it tells none."""
    name = path.name
    for end in path.suffixes[::-1]:
        name = name.removesuffix(end) if end.lower() in _ENDINGS else name
    found = re.search(r"(?<![a-zA-Z0-9])z(?:=(\d+(?:[.p]\d+)?)|_?(\d+[.p]\d+))(?![\d.])", name)
    if found is None:
        return None
    return float((found[1] or found[2]).replace("p", "."))


_ENDINGS = (".hdf5", ".h5", ".hdf", ".nc", ".nc4", ".npy", ".zarr", ".npz", ".fits", ".csv", ".dat")


def name_warnings(path: Path, redshift: float) -> tuple[str, ...]:
    """Return what is odd about a redshift that is another than that in a name."""
    told = redshift_in_name(path)
    told = redshift_in_name(path.absolute().parent) if told is None else told
    if told is None or abs(told - redshift) <= 0.05 * (1 + redshift):
        return ()
    return (
        f"{path}: redshift {redshift:.4g} is taken, but its name, or its folder's, says {told:g}",
    )


def check_mass(
    snapshot: Snapshot, mass: float, omega_m: float | None, others: float = 0.0
) -> tuple[str, ...]:
    """Raise BadInput where the dark matter's mass (code units) is not that of such a box.

    others: mass of other species, neutrinos, that belong to omega_m. Where that is not known, what
    is odd is returned.
    """
    header = snapshot.header
    # With baryons of their own the dark matter is what they leave, at least a half.
    least = 0.5 if snapshot.total(GAS) else 0.95
    low, high = (least * omega_m, 1.05 * omega_m) if omega_m else (0.02, 2.0)

    def omega(length: float, mass_unit: float) -> float:
        return (mass + others) * mass_unit / (header.box * length) ** 3 / CRITICAL_DENSITY

    now = omega(header.length, header.mass)
    if low <= now <= high:
        return ()
    h = header.cosmology.get("h", 0.7)
    units = [
        (length, unit)
        for length in (header.length, 1.0, 1e-3, h, 1e-3 * h)
        for unit in (header.mass, 1e10, 1.0, 1e10 * h, h)
        if low <= omega(length, unit) <= high
    ]
    likely = (
        f"; with --length-unit {units[0][0]:g} --mass-unit {units[0][1]:g} it would be right"
        if units
        else "; give --length-unit and --mass-unit, the Mpc/h and M_sun/h of its units"
    )
    line = (
        f"{snapshot}: its dark matter in a box of {header.box_size:g} Mpc/h has the density "
        f"{now:.4g} over critical, but Omega_m is {omega_m or 'about 0.3'}: units other than "
        f"{header.length:g} Mpc/h and {header.mass:g} M_sun/h, or a part of the particles{likely}"
    )
    if omega_m is None:
        return (line,)
    raise BadInput(line)


def check_halo_mass(catalogue: object, mass: float, matter: float, unit: float) -> None:
    """Raise BadInput where haloes weigh more than the matter in the box (both M☉/h)."""
    if mass > 1.05 * matter:
        raise BadInput(
            f"{catalogue}: its haloes weigh {mass:.4g} M_sun/h, the matter in the box {matter:.4g}"
            f": their masses are not in units of {unit:g} M_sun/h, or haloes are counted more than "
            "once; give --halo-mass-unit, the M_sun/h of a unit"
        )


def halo_warnings(catalogue: object, heaviest: float, least: float) -> tuple[str, ...]:
    """Return what is odd about haloes that are all below the first mass bin (M☉/h).

    Raises BadInput where they are lighter than any halo.
    """
    if heaviest >= least:
        return ()
    if heaviest < LIGHTEST:
        raise BadInput(
            f"{catalogue}: its heaviest halo has {heaviest:.4g} M_sun/h, which is no halo; give "
            "--halo-mass-unit, the M_sun/h of a unit of its masses (often 1e10)"
        )
    return (
        f"{catalogue}: its heaviest halo has {heaviest:.4g} M_sun/h, below the first mass bin "
        f"({least:g}): halo is 0 everywhere; are its masses in M_sun/h?",
    )


def check_haloes(catalogue: str, dense: float, whole: float, volume: float) -> None:
    """Raise BadInput where the haloes are not in dense places: of other initial conditions.

    `dense` and `whole` are the halo mass in voxels above the mean density and in all, `volume` is
    the share of such voxels: of haloes strewn at random, a share like it is there.
    """
    if whole > 0 and dense / whole < 0.5 * (1.0 + volume):
        raise BadInput(
            f"{catalogue}: only {100 * dense / whole:.0f} % of the haloes' mass is where matter is "
            f"denser than its mean ({100 * volume:.0f} % of the volume is): a catalogue of another "
            "simulation"
        )


def tile_warnings(shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Return what a user should know of a box that the default tile does not fit into."""
    try:
        Tiling(shape)
    except TilingError as error:
        tile = tile_for(shape)
        smaller = (
            f"a painter without networks (--painter gaussian) takes a smaller tile (--tile {tile});"
            " for the networks "
            if tile
            else ""
        )
        return (f"{error}; {smaller}ingest a finer grid",)
    return ()


def tile_for(shape: tuple[int, int, int]) -> int:
    """Return the tile that paints such a small box at least cost, 0 where none can be laid."""
    costs = {}
    for tile in range(min(*shape, Tiling.tile), 1, -1):
        try:
            costs[tile] = Tiling(shape, tile).size * tile**3
        except TilingError:
            continue
    return min(costs, key=lambda tile: costs[tile], default=0)
