"""Catalogues as columns: which are the places, the masses, and the haloes that another one holds.

Names are compared without case, without a leading "halo_" and without what is in brackets: a unit
or the number of the column, as in "x [Mpc/h]" and "mvir(10)".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.errors import BadInput
from bigbox.ingest.catalogue import Catalogue, Columns, HaloType
from bigbox.ingest.headers import Header, check_one_run
from bigbox.ingest.snapshot import Chunk
from bigbox.ingest.text_table import TextTable

VECTORS = ("positions", "position", "pos", "coordinates", "xyz", "centres", "centers")
SCALARS = (("x", "y", "z"), ("xc", "yc", "zc"), ("pos_x", "pos_y", "pos_z"))
# The first that is there; bound mass first, as it is counted once.
MASSES = (
    *("mass", "masses", "m", "mvir", "mhalo", "m_vir", "mfof", "m_fof", "fof_halo_mass"),
    *("m200m", "m200b", "m200c", "m200", "m_200m", "m_200b", "m_200c"),
)
PARENTS = ("pid", "upid", "hosthalo", "parent_id", "parentid")


def plain(name: str) -> str:
    """Return a column's name as it is compared."""
    return re.sub(r"\s*[\[(].*$", "", name).strip().lower().removeprefix("halo_")


@dataclass(frozen=True)
class Chosen:
    """The columns that a catalogue is read from, by their own names."""

    places: tuple[str, ...]  # one of (N, 3), or three
    mass: str
    parent: str = ""

    @property
    def label(self) -> str:
        """How a field made of them is called."""
        return f"{self.mass} at {', '.join(self.places)}"

    def names(self, kind: HaloType) -> tuple[str, ...]:
        """Return what is read: places, mass and, where subhaloes do not count, the parent."""
        of_parent = (self.parent,) if self.parent and kind == "group" else ()
        return (*self.places, self.mass, *of_parent)


def choose(path: Path, names: Sequence[str]) -> Chosen:
    """Choose the columns of places, mass and parent. Raises BadInput where there are none."""
    known: dict[str, str] = {}
    for name in names:
        known.setdefault(plain(name), name)
    vector = next(((known[v],) for v in VECTORS if v in known), None)
    scalars = next((tuple(known[s] for s in xyz) for xyz in SCALARS if set(xyz) <= set(known)), ())
    places, mass = vector or scalars, next((known[m] for m in MASSES if m in known), "")
    if not places or not mass:
        raise BadInput(
            f"{path}: has no column of {'masses (mass, mvir, m200c)' if places else 'places'}"
            f"{'' if places else ' (x, y, z; or positions)'}; its columns are "
            f"{', '.join(names[:20]) or 'none'}: rename them"
        )
    return Chosen(places, mass, next((known[p] for p in PARENTS if p in known), ""))


def choose_in_each(
    tables: Sequence[TextTable], kind: HaloType
) -> tuple[Chosen, tuple[tuple[int, ...], ...]]:
    """Choose the columns of a catalogue in several files, and where they stand in each of them.

    Files may be of several versions of a program: each is read by its own names. Raises BadInput
    where one does not have what the first is read from.
    """
    chosen, at = choose(tables[0].path, tables[0].names()), []
    wanted = [plain(name) for name in chosen.names("group")]
    for table in tables:
        names = table.names()
        found = [plain(name) for name in choose(table.path, names).names("group")]
        if found != wanted:
            raise BadInput(
                f"{table.path}: would be read from its columns {', '.join(found)}, and "
                f"{tables[0].path.name} from {', '.join(wanted)}: not of one catalogue, or of "
                "several versions of the program"
            )
        at.append(tuple(map(names.index, choose(table.path, names).names(kind))))
    return chosen, tuple(at)


@dataclass(frozen=True)
class TextCatalogue(Catalogue):
    """A catalogue in text files, one halo a line."""

    tables: tuple[TextTable, ...] = ()
    # In each file: the columns of x, y, z, mass and, perhaps, of the parent's number.
    at: tuple[tuple[int, ...], ...] = ()
    no_parent: tuple[float, ...] = (-1.0,)  # what stands there for a halo that is in no other one

    @classmethod
    def of(
        cls,
        tables: tuple[TextTable, ...],
        headers: Sequence[Header],
        kind: HaloType,
        label: str,
        uncounted: str,
        at: tuple[tuple[int, ...], ...],
        granted: str = "",
    ) -> TextCatalogue:
        """Make it of the tables of all files. Raises BadInput where their headers disagree."""
        files = tuple(table.path for table in tables)
        check_one_run(files, headers, "catalogue")
        return cls(
            files,
            headers[0],
            kind,
            tuple(table.rows for table in tables),
            label,
            uncounted,
            tables=tables,
            at=at,
            granted=granted,
        )

    def columns(self, chunk: Chunk) -> Columns:
        """Read places, masses, and which haloes count."""
        data = self.tables[chunk.file].read(chunk.start, chunk.stop, self.at[chunk.file])
        counts = np.isin(data[:, 4], self.no_parent) if data.shape[1] > 4 else None
        return data[:, :3], data[:, 3], counts


@dataclass(frozen=True)
class ArrayCatalogue(Catalogue):
    """A catalogue of columns that are read by name and range."""

    chosen: Chosen = Chosen((), "")
    tables: tuple[Any, ...] = field(default=(), repr=False)  # with read(names, start, stop)

    def columns(self, chunk: Chunk) -> Columns:
        """Read places, masses, and which haloes count."""
        names = self.chosen.names(self.kind)
        data = self.tables[chunk.file].read(names, chunk.start, chunk.stop)
        axes = len(self.chosen.places)
        places = data[0] if axes == 1 else np.stack(data[:axes], axis=-1)
        return places, data[axes], data[-1] == -1 if len(data) > axes + 1 else None


def only_numbers(path: Path, shapes: Mapping[str, tuple[int, ...]], chosen: Chosen) -> int:
    """Return how many haloes columns of these shapes hold. Raises BadInput where they disagree."""
    count = shapes[chosen.mass][0] if shapes[chosen.mass] else 0
    for name in (*chosen.places, chosen.mass, *filter(None, (chosen.parent,))):
        vector = name in chosen.places and len(chosen.places) == 1
        if shapes[name] != ((count, 3) if vector else (count,)):
            raise BadInput(
                f"{path}: column {name} has shape {shapes[name]}, where {chosen.mass} has {count} "
                "haloes"
            )
    if not count:
        raise BadInput(f"{path}: the catalogue has no haloes")
    return count
