"""Halo catalogues: FOF groups or SUBFIND subhaloes of GADGET, AREPO and SWIFT, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.ingest.formats import gadget, swift
from bigbox.ingest.hdf5 import attributes, files_of_run, is_swift, names, opened, scalar
from bigbox.ingest.headers import Header, check_one_run, check_totals
from bigbox.ingest.snapshot import Chunk, checked_masses, chunks, in_voxels

HaloType = Literal["group", "subhalo"]

CHUNK = 1 << 13
"""Haloes read at once; with 64 points for the HI of each, half a million points."""

_KINDS: tuple[HaloType, ...] = ("group", "subhalo")
_PLURAL = {"group": "groups", "subhalo": "subhaloes"}
# In the header; SWIFT's name for groups, and AREPO's for subhaloes.
_COUNTERS = {"group": ("Ngroups", "NumGroups"), "subhalo": ("Nsubhalos", "Nsubgroups")}

_FINGERPRINT = 4096  # haloes

# Group and data sets of each kind, the first that the files have: centre of mass, else the place
# of the most bound particle (GADGET-4 writes no centre of mass for groups).
_LAYOUT: dict[str, dict[str, tuple[str, tuple[str, ...], str]]] = {
    "GADGET": {
        "group": ("Group", ("GroupCM", "GroupPos"), "GroupMass"),
        "subhalo": ("Subhalo", ("SubhaloCM", "SubhaloPos"), "SubhaloMass"),
    },
    "SWIFT": {"group": ("Groups", ("Centres",), "Masses")},
}


@dataclass(frozen=True)
class Catalogue:
    """A halo catalogue on disk."""

    files: tuple[Path, ...]
    header: Header
    kind: HaloType
    section: str
    places: str  # data set of the positions
    masses: str
    counts: tuple[int, ...]

    def __str__(self) -> str:
        return names(self.files)

    @property
    def label(self) -> str:
        """Label of a field made of it: the haloes, their masses and centres."""
        what = "FOF groups" if self.kind == "group" else "SUBFIND subhaloes"
        return f"catalogue: {what}, {self.section}/{self.masses} at {self.places}"

    def chunks(self, size: int = CHUNK) -> Iterator[Chunk]:
        """Yield the haloes in bounded pieces."""
        return chunks(self.counts, _KINDS.index(self.kind), size)

    def read(self, chunk: Chunk, voxels: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Read places in voxels, float64 (M, 3), and masses in the code's unit, float32 (M,)."""
        path, some = self.files[chunk.file], slice(chunk.start, chunk.stop)
        with opened(path) as file:
            section = file[self.section]
            places, masses = section[self.places][some], section[self.masses][some]
        who = f"{path}: {self.section}: halo"
        return (
            in_voxels(places, self.header.box, voxels, who, chunk.start),
            checked_masses(masses, f"{path}: halo", chunk.start),
        )

    def fingerprint(self) -> int:
        """Return a number that tells catalogues apart: the checksum of the first haloes."""
        number = 0
        for chunk in self.chunks(_FINGERPRINT):
            left = _FINGERPRINT - chunk.first
            if left > 0:
                some = replace(chunk, stop=min(chunk.stop, chunk.start + left))
                place, mass = self.read(some, 1)
                number = google_crc32c.extend(number, np.column_stack((place, mass)).tobytes())
        return int(number)


def open_catalogue(given: Sequence[Path], kind: HaloType = "group") -> Catalogue:
    """Open the catalogue that a folder, any one of its files, or all of its files name.

    Raises BadInput where there is none, several, a file is missing, or the files disagree.
    """
    content, wrong = "a Header and Group or Subhalo", "has no Header with counts of groups"
    paths = files_of_run(
        given,
        "halo catalogue",
        content,
        _is_catalogue,
        lambda path: "" if _is_catalogue(path) else f"{wrong}: no halo catalogue",
    )
    headers, counts, totals, held = zip(*(_part(path, kind) for path in paths), strict=True)
    check_one_run(paths, headers, "catalogue")
    check_totals(paths, totals, sum(counts), _PLURAL[kind])
    if not any(counts):
        raise BadInput(f"{paths[0]}: the catalogue has no {_PLURAL[kind]}; {_way_out(kind)}")
    return Catalogue(paths, headers[0], kind, *held[np.flatnonzero(counts)[0]], counts)


def _is_catalogue(path: Path) -> bool:
    """Whether an HDF5 file has a Header that counts groups, or groups themselves."""
    with opened(path) as file:
        return any(
            name.startswith(("Ngroups", "NumGroups")) for name in attributes(file, "Header")
        ) or ("Header" in file and any(name in file for name in ("Group", "Groups", "Subhalo")))


def _part(path: Path, kind: HaloType) -> tuple[Header, int, int | None, tuple[str, str, str]]:
    """Header, haloes in this file, haloes in all, and where their places and masses are."""
    with opened(path) as file:
        header = (swift if is_swift(file) else gadget).read_header(path, file)
        known = attributes(file, "Header")
        layout = _LAYOUT[header.code].get(kind)
        if layout is None:
            raise BadInput(
                f"{path}: {header.code} catalogues have no {_PLURAL[kind]}; leave --halo-type"
            )
        section, choices, masses = layout
        total, count = (
            next((int(scalar(known[c + of])) for c in _COUNTERS[kind] if c + of in known), None)
            for of in ("_Total", "_ThisFile")
        )
        group: Any = file.get(section)
        if group is None or masses not in group:
            # A file of several may well hold no halo at all.
            if count == 0 or (count is None and group is not None):
                return header, 0, total, (section, "", masses)
            raise BadInput(
                f"{path}: has no {section}/{masses}, the mass of its {_PLURAL[kind]}; "
                f"{_way_out(kind)}"
            )
        places = next((name for name in choices if name in group), None)
        if places is None:
            raise BadInput(f"{path}: {section} has no {' or '.join(choices)}, the haloes' places")
        shapes = group[places].shape, group[masses].shape
        expected = len(group[masses]) if count is None else count
        if shapes != ((expected, 3), (expected,)):
            raise BadInput(
                f"{path}: {section} has {places} of shape {shapes[0]} and {masses} of shape "
                f"{shapes[1]}, the header says {expected} {_PLURAL[kind]}; the file is damaged"
            )
        return header, expected, total, (section, places, masses)


def _way_out(kind: HaloType) -> str:
    other = "subhalo" if kind == "group" else "group"
    return f"has it {_PLURAL[other]}? then give --halo-type {other}"
