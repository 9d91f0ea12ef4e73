"""Halo catalogues: FOF groups or SUBFIND subhaloes of GADGET, AREPO and SWIFT, chunk by chunk."""

from __future__ import annotations

import re
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
from bigbox.ingest.headers import Header, Told, check_one_run, check_totals
from bigbox.ingest.snapshot import GROUPS, Chunk, checked_masses, chunks, in_voxels
from bigbox.ingest.stored import check_stored

HaloType = Literal["group", "subhalo"]

CHUNK = 1 << 13  # haloes read at once; with 64 points for the HI of each, half a million points

_PLURAL = {"group": "groups", "subhalo": "subhaloes"}
# In the header; SWIFT's name for groups, and AREPO's for subhaloes.
_COUNTERS = {"group": ("Ngroups", "NumGroups"), "subhalo": ("Nsubhalos", "Nsubgroups")}

_FINGERPRINT = 4096  # haloes
_NOTHING = Told()

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
        return chunks(self.counts, size)

    def read(self, chunk: Chunk, voxels: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Read places in voxels, float64 (M, 3), and masses in the code's unit, float32 (M,)."""
        path, some = self.files[chunk.file], slice(chunk.start, chunk.stop)
        with opened(path) as file:
            section = file[self.section]
            if chunk.start == 0:
                check_stored(section[self.places])
                check_stored(section[self.masses])
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


def open_catalogue(
    given: Sequence[Path],
    kind: HaloType = "group",
    told: Told = _NOTHING,
    beside: Header | None = None,
) -> Catalogue:
    """Open the catalogue that a folder, any one of its files, or all of its files name.

    told: what counts in the place of its headers; beside: of the snapshot of the same run, whose
    units it has where it tells none itself. Raises BadInput where there is none, several, a file is
    missing, the files disagree, or something lacks that nobody tells.
    """
    content = "a Header and Group or Subhalo"
    paths = files_of_run(given, "halo catalogue", content, _fault)
    parts, totals = zip(*(_part(path, kind) for path in paths), strict=True)
    counts = tuple(part.counts[0] for part in parts)
    check_one_run(paths, [part.header for part in parts], "catalogue")
    check_totals(paths, totals, sum(counts), _PLURAL[kind])
    if not any(counts):
        raise BadInput(f"{paths[0]}: the catalogue has no {_PLURAL[kind]}; {_way_out(kind)}")
    some: Catalogue = max(parts, key=lambda part: part.counts)
    header = parts[0].header
    if beside is not None and not header.has_units:
        header = replace(header, length=beside.length, mass=beside.mass)
    header = told.of(header, paths[0])
    return replace(some, files=paths, header=header, counts=counts)


def _fault(path: Path) -> str:
    """Why a file is no catalogue: it has neither a Header that counts groups, nor groups."""
    with opened(path) as file:
        counts = any(re.match("Ngroups|NumGroups", name) for name in attributes(file, "Header"))
        groups = "Header" in file and not GROUPS.isdisjoint(file)
        return "" if counts or groups else "has no Header with counts of groups: no halo catalogue"


def _part(path: Path, kind: HaloType) -> tuple[Catalogue, int | None]:
    """One file of a catalogue, and the haloes in all files as its header says."""
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
                return Catalogue((path,), header, kind, section, "", masses, (0,)), total
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
        return Catalogue((path,), header, kind, section, places, masses, (expected,)), total


def _way_out(kind: HaloType) -> str:
    other = "subhalo" if kind == "group" else "group"
    return f"has it {_PLURAL[other]}? then give --halo-type {other}"
