"""Halo catalogues of GADGET, AREPO and SWIFT, HDF5: FOF groups or SUBFIND subhaloes.

            group     places                 mass          left out
GADGET-4    Group     GroupCM, GroupPos      GroupMass
AREPO       Subhalo   SubhaloCM, SubhaloPos  SubhaloMass   SubhaloFlag 0: of no cosmological origin
SWIFT       Groups    Centres                Masses

Centre of mass, else the place of the most bound particle (GADGET-4 writes no centre of mass for
groups). https://www.tng-project.org/data/docs/specifications; SWIFT: src/fof_catalogue_io.c.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bigbox.errors import BadInput
from bigbox.ingestion.catalogue import Catalogue, Columns, HaloType
from bigbox.ingestion.formats import gadget, swift
from bigbox.ingestion.hdf5 import attributes, files_of_run, is_swift, member, opened, scalar
from bigbox.ingestion.headers import check_one_run, check_totals
from bigbox.ingestion.packing import read_values
from bigbox.ingestion.snapshot import GROUPS, Chunk
from bigbox.ingestion.stored import check_stored

_PLURAL = {"group": "groups", "subhalo": "subhaloes"}
# In the header; SWIFT's name for groups, and AREPO's for subhaloes.
_COUNTERS = {"group": ("Ngroups", "NumGroups"), "subhalo": ("Nsubhalos", "Nsubgroups")}
_FLAG = "SubhaloFlag"

# Group, data sets of the places, the first that the files have, and of the masses.
_LAYOUT: dict[str, dict[str, tuple[str, tuple[str, ...], str]]] = {
    "GADGET": {
        "group": ("Group", ("GroupCM", "GroupPos"), "GroupMass"),
        "subhalo": ("Subhalo", ("SubhaloCM", "SubhaloPos"), "SubhaloMass"),
    },
    "SWIFT": {"group": ("Groups", ("Centres",), "Masses")},
}


@dataclass(frozen=True)
class GroupCatalogue(Catalogue):
    """A catalogue in HDF5, with a group of data sets for each kind of halo."""

    section: str = ""
    places: str = ""  # data set of the positions
    masses: str = ""

    def columns(self, chunk: Chunk) -> Columns:
        """Read places, masses, and which haloes count."""
        some = slice(chunk.start, chunk.stop)
        with opened(self.files[chunk.file]) as file:
            data = [member(file, f"{self.section}/{n}") for n in (self.places, self.masses, _FLAG)]
            for one in data if chunk.start == 0 else ():
                if one is not None:
                    check_stored(one)
            counts = None if data[2] is None or self.kind == "group" else data[2][some] != 0
            name = f"{self.files[chunk.file]}: {self.section}"
            places, masses = (read_values(name, one, some) for one in data[:2])
            return places, masses, counts


def open_groups(given: Sequence[Path], kind: HaloType) -> Catalogue:
    """Open the catalogue that a folder, any one of its files, or all of its files name."""
    content = "a Header and Group or Subhalo"
    paths = files_of_run(given, "halo catalogue", content, _fault)
    parts, totals = zip(*(_part(path, kind) for path in paths), strict=True)
    counts = tuple(part.counts[0] for part in parts)
    check_one_run(paths, [part.header for part in parts], "catalogue")
    check_totals(paths, totals, sum(counts), _PLURAL[kind])
    if not any(counts):
        raise BadInput(f"{paths[0]}: the catalogue has no {_PLURAL[kind]}; {_way_out(kind)}")
    some: GroupCatalogue = max(parts, key=lambda part: part.counts)
    return replace(some, files=paths, header=parts[0].header, counts=counts)


def _fault(path: Path) -> str:
    """Why a file is no catalogue: it has neither a Header that counts groups, nor groups."""
    with opened(path) as file:
        counts = any(re.match("Ngroups|NumGroups", name) for name in attributes(file, "Header"))
        groups = "Header" in file and not GROUPS.isdisjoint(file)
        return "" if counts or groups else "has no Header with counts of groups: no halo catalogue"


def _part(path: Path, kind: HaloType) -> tuple[GroupCatalogue, int | None]:
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
        if scalar(known.get("Virtual", 0)) == 1:
            count = total  # a view of all parts
        group: Any = member(file, section)
        if group is None or member(group, masses) is None:
            # A file of several may well hold no halo at all.
            if count == 0 or (count is None and group is not None):
                return GroupCatalogue((path,), header, kind, (0,), ""), total
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
    what = "FOF groups" if kind == "group" else "SUBFIND subhaloes"
    label = f"catalogue: {what}, {section}/{masses} at {places}"
    uncounted = f"left out: subhaloes of no cosmological origin ({_FLAG} 0)"
    found = GroupCatalogue(
        (path,), header, kind, (expected,), label, uncounted, {}, section, places, masses
    )
    return found, total


def _way_out(kind: HaloType) -> str:
    other = "subhalo" if kind == "group" else "group"
    return f"has it {_PLURAL[other]}? then give --halo-type {other}"
