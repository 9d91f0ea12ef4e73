"""Particle snapshots: which files, what their headers say, and particles chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.ingestion.hdf5 import attributes, files_of_run, member, names, number, opened
from bigbox.ingestion.headers import Header, check_one_run, check_totals
from bigbox.ingestion.packing import read_values
from bigbox.ingestion.stored import check_stored

CHUNK = 1 << 19  # particles read at once

GAS, DARK = 0, 1

GROUPS = {"Group", "Groups", "Subhalo"}  # groups of HDF5 in a halo catalogue
OUTSIDE = 1e-5
"""Share of the box by which a position may lie outside of it: single precision, not an error."""

Points = tuple[NDArray[np.float64], NDArray[np.float32] | None]
"""Places in voxels from the box's corner (M, 3), and weights (M,) or None for 1 each."""


@dataclass(frozen=True)
class Chunk:
    """Particles, or haloes, start .. stop of one type in one file."""

    file: int
    kind: int
    start: int
    stop: int
    first: int  # the index of the first of them in all files


def chunks(counts: Sequence[int], size: int, kind: int = 0) -> Iterator[Chunk]:
    """Yield what the files hold in pieces of at most `size`."""
    before = 0
    for i, count in enumerate(counts):
        for start in range(0, count, size):
            yield Chunk(i, kind, start, min(start + size, count), before + start)
        before += count


@dataclass(frozen=True)
class Snapshot:
    """A snapshot on disk; nothing of it is in memory.

    `has` and `read` are those of HDF5 with groups PartType0, ...; other formats override them.
    """

    files: tuple[Path, ...]
    header: Header
    counts: tuple[tuple[int, ...], ...]  # particles of each type in each file

    def __str__(self) -> str:
        return names(self.files)

    def total(self, kind: int) -> int:
        """Return the particles of a type in all files."""
        return sum(sum(count[kind : kind + 1]) for count in self.counts)

    def one_mass(self, kind: int) -> float:
        """Return the mass of each particle of a type in the code's unit, 0 where they differ."""
        return float(sum(self.header.table[kind : kind + 1]))

    def chunks(self, kind: int, size: int = CHUNK) -> Iterator[Chunk]:
        """Yield the particles of a type in bounded pieces."""
        return chunks([count[kind] for count in self.counts], size, kind)

    def has(self, kind: int, quantity: str) -> bool:
        """Return whether the particles of a type, of which there are some, have a quantity."""
        first = next(i for i, count in enumerate(self.counts) if count[kind])
        with opened(self.files[first]) as file:
            return member(file, f"PartType{kind}/{self.header.dataset(quantity)}") is not None

    def read(self, chunk: Chunk, quantities: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Read quantities of some particles, by GADGET's names, in the code's units."""
        path, count = self.files[chunk.file], self.counts[chunk.file][chunk.kind]
        group = f"PartType{chunk.kind}"
        found = {}
        with opened(path) as file:
            for quantity in quantities:
                name = self.header.dataset(quantity)
                data = member(file, f"{group}/{name}")
                if data is None:
                    raise BadInput(f"{path}: {group} has no {name}")
                if len(data) != count:
                    raise BadInput(
                        f"{path}: {group}/{name} has {len(data)} particles, the header says "
                        f"{count}; the file is damaged"
                    )
                if chunk.start == 0:
                    check_stored(data)
                some = slice(chunk.start, chunk.stop)
                found[quantity] = read_values(f"{path}: {group}/{name}", data, some)
        return found

    def points(
        self, chunk: Chunk, voxels: int, more: Sequence[str] = ()
    ) -> tuple[Points, dict[str, NDArray[Any]]]:
        """Read places and masses in the code's unit, and more quantities.

        The masses are None where the header has one for all. Raises BadInput for a particle outside
        of the box, or whose mass is none.
        """
        own = () if self.one_mass(chunk.kind) > 0 else ("Masses",)
        data = self.read(chunk, ("Coordinates", *own, *more))
        who = f"{self.files[chunk.file]}: PartType{chunk.kind}: particle"
        place = in_voxels(data["Coordinates"], self.header.box, voxels, who, chunk.start)
        if not own:
            return (place, None), data
        mass = checked_masses(data["Masses"], who, chunk.start, "; the file is damaged")
        return (place, mass), data


def in_voxels(
    coordinates: NDArray[Any],
    side: float,
    voxels: int,
    who: str,
    first: int,
    outside: float = OUTSIDE,
) -> NDArray[np.float64]:
    """Return positions in the code's unit as voxels from the corner.

    Raises BadInput for one that is further outside of the box than a share of its side.
    """
    x = coordinates.astype(np.float64)
    x *= 1.0 / side
    # Written so that NaN fails it too.
    inside = (x >= -outside) & (x <= 1.0 + outside)
    if not inside.all():
        i = int(np.argmin(inside.all(axis=1)))
        where = ", ".join(f"{v:g}" for v in coordinates[i].tolist())
        raise BadInput(
            f"{who} {first + i} is at ({where}), outside of the box of 0 .. {side:g}; "
            f"{_likely(x)} (--box-size in Mpc/h)"
        )
    x *= voxels
    return x


def _likely(x: NDArray[np.float64]) -> str:
    """Return why positions, in sides of the box, may be outside of it."""
    least, most = float(np.nanmin(x, initial=0)), float(np.nanmax(x, initial=0))
    if -0.55 < least < -0.3 and most < 0.55:
        return "are positions counted from the middle of the box? add half of its side to them"
    if 20 < max(most, -least) < np.inf:
        return (
            f"positions reach to {max(most, -least):.3g} times its side: are they, or the box "
            "size, in another unit? give it"
        )
    return "is the file damaged, or the box size of another run?"


def checked_masses(
    masses: NDArray[Any], who: str, first: int, why: str = ""
) -> NDArray[np.float32]:
    """Return masses as float32. BadInput for one that is negative or not finite."""
    bad = ~(np.isfinite(masses) & (masses >= 0))
    if bad.any():
        i = int(np.argmax(bad))
        raise BadInput(f"{who} {first + i} has mass {masses[i]:g}, which is no mass{why}")
    return masses.astype(np.float32)


def open_hdf5(given: Sequence[Path], read_header: Callable[[Path, Any], Header]) -> Snapshot:
    """Open a snapshot in HDF5, with particles in groups PartType0, ..., whose headers agree."""
    paths = files_of_run(given, "snapshot", "a Header and PartType groups", _fault)
    headers, counts = [], []
    for path in paths:
        with opened(path) as file:
            headers.append(read_header(path, file))
            counts.append(_counts(path, file))
    check_one_run(paths, headers, "snapshot")
    found = Snapshot(paths, headers[0], tuple(counts))
    for kind, total in enumerate(headers[0].totals):
        said = [total] * len(paths)
        check_totals(paths, said, found.total(kind), f"particles of type {kind}")
    return found


def _fault(path: Path) -> str:
    """Why a file is no snapshot, and what it is instead."""
    with opened(path) as file:
        if "Header" not in file:
            return "has no group Header, so that it is no snapshot"
        known = file["Header"].attrs
        groups = any(name.startswith(("Ngroups", "NumGroups")) for name in known)
        particles = any(name.startswith("PartType") for name in file)
        if "NumPart_ThisFile" not in known or (groups and not particles):
            other = GROUPS.isdisjoint(file)
            what = "another file" if other else "a halo catalogue (give it with --halos)"
            return f"its Header counts no particles: not a snapshot but {what}"
    return ""


def _counts(path: Path, file: Any) -> tuple[int, ...]:
    """Particles of each type in a file, as the header and the data sets say."""
    header = attributes(file, "Header")
    number(path, header, "NumPart_ThisFile")
    counts = tuple(int(n) for n in np.asarray(header["NumPart_ThisFile"]).reshape(-1))
    for kind, count in enumerate(counts):
        group = member(file, f"PartType{kind}")
        if count and group is None:
            raise BadInput(
                f"{path}: its header says {count} particles of type {kind}, but it has no group "
                f"PartType{kind}"
            )
        data = None if group is None else member(group, "Coordinates")
        if data is not None and data.shape != (count, 3):
            raise BadInput(
                f"{path}: PartType{kind}/Coordinates has shape {data.shape}, the header says "
                f"{count} particles; the file is damaged"
            )
        if data is not None:
            check_stored(data)  # here too, before hours of sorting
    return counts


def check_dark_matter(snapshot: Snapshot) -> None:
    """Raise BadInput unless the snapshot has dark matter of one resolution (type 1)."""
    held = [kind for kind in range(len(snapshot.counts[0])) if snapshot.total(kind)]
    if DARK not in held:
        raise BadInput(
            f"{snapshot}: has no dark matter (PartType1), only type "
            f"{', '.join(map(str, held)) or 'none'}; give the snapshot of an N-body run"
        )
    for kind, mass in _other_matter(snapshot):
        own = _mean_mass(snapshot, DARK)
        if not 0 < mass < own:
            raise BadInput(
                f"{snapshot}: has {snapshot.total(kind)} particles of type {kind}, of "
                f"{mass * snapshot.header.mass:.3g} M_sun/h each where those of type {DARK} have "
                f"{own * snapshot.header.mass:.3g} (low resolution of a zoom run): bigbox needs a "
                "box of one resolution"
            )


def lighter_matter(snapshot: Snapshot) -> tuple[float, tuple[str, ...]]:
    """Return the mass (code units) of lighter species, as neutrinos are, and notes about them."""
    found = [(kind, mass * snapshot.total(kind)) for kind, mass in _other_matter(snapshot)]
    own = _mean_mass(snapshot, DARK) * snapshot.total(DARK)
    whole = own + sum(mass for _, mass in found)
    notes = tuple(
        f"{snapshot}: particles of type {kind}, {100 * mass / whole:.2g} % of the dark matter and "
        "lighter each, as neutrinos are, are left out: dm is of type 1"
        for kind, mass in found
    )
    return whole - own, notes


def _other_matter(snapshot: Snapshot) -> list[tuple[int, float]]:
    """Types of matter beside type 1 that is no gas, star or black hole, and their mean mass."""
    held = [k for k in (2, 3, 6) if k < len(snapshot.counts[0]) and snapshot.total(k)]
    # The tracers of IllustrisTNG (type 3) have no places.
    return [(k, _mean_mass(snapshot, k)) for k in held if snapshot.has(k, "Coordinates")]


def _mean_mass(snapshot: Snapshot, kind: int) -> float:
    """Return the mass of a particle of a type in the code's unit, of some of them; 0: not told."""
    if snapshot.one_mass(kind) > 0 or not snapshot.has(kind, "Masses"):
        return snapshot.one_mass(kind)
    some = next(snapshot.chunks(kind))
    return float(np.mean(snapshot.read(some, ("Masses",))["Masses"], dtype=np.float64))
