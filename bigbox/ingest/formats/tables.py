"""Halo catalogues as plain columns, of whatever program: text, npz, HDF5 and FITS tables.

    .csv .txt .dat    a line of names (with # before it or not), then a halo a line
    .npz              an array for each column
    .hdf5 .h5         a data set for each column in one group, or one table of compound type (so are
                      the Rockstar catalogues of Uchuu); other groups may be beside
    .fits             the first table, by astropy (pip install bigbox[fits])

Columns: x, y, z or positions (N, 3); mass, mvir, m200c, ...; pid or upid, which is -1 for a halo in
no other one; others, as velocities, may be there (`bigbox.ingest.columns`). Units: those that a
column tells (attribute units or unit, TUNIT), else Mpc/h and M☉/h. Box size, redshift and
cosmology: attributes, scalars, header keys or lines "box_size = 25" of these names, else options.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.ingest.catalogue import Catalogue, HaloType
from bigbox.ingest.columns import (
    ArrayCatalogue,
    Chosen,
    TextCatalogue,
    choose,
    only_numbers,
)
from bigbox.ingest.hdf5 import attributes, member, opened, readable, scalar
from bigbox.ingest.headers import Header, check_one_run, with_lacks
from bigbox.ingest.packing import read_values
from bigbox.ingest.stored import check_stored
from bigbox.ingest.text_table import TextTable

_TEXT = (".csv", ".txt", ".dat", ".ascii")
_ARRAYS = (".npz", ".hdf5", ".h5", ".fits", ".fit")
# Of the run, in lower case; the first that is told.
_TOLD = {
    "box": ("box_size", "boxsize", "lbox", "box size"),
    "redshift": ("redshift", "z_snap"),
    "omega_m": ("omega_m", "omega0", "om0", "omegam"),
    "omega_b": ("omega_b", "omegabaryon", "ob0"),
    "h": ("h", "hubbleparam"),
}
_LENGTHS = {"mpc/h": 1.0, "kpc/h": 1e-3}  # with h; without spaces, signs of comoving and brackets
_MASSES = {"msun/h": 1.0, "1e10msun/h": 1e10}


def recognises(path: Path) -> bool:
    """Return whether a file's name ends as those of tables do."""
    return path.is_file() and path.suffix.lower() in _TEXT + _ARRAYS


def open_catalogue(given: Sequence[Path], kind: HaloType) -> Catalogue:
    """Open the files of one catalogue, all of the same columns."""
    paths = sorted(set(given))
    for path in paths:
        if path.suffix.lower() != paths[0].suffix.lower() or not recognises(path):
            raise BadInput(f"{path}: is no {paths[0].suffix} table, as {paths[0].name} is")
    open_ = _open_text if paths[0].suffix.lower() in _TEXT else _open_arrays
    return open_(paths, kind)


def _open_text(paths: Sequence[Path], kind: HaloType) -> Catalogue:
    tables = tuple(TextTable.open(path) for path in paths)
    names = tables[0].names()
    chosen = choose(paths[0], names)
    if len(chosen.places) == 1:
        raise BadInput(f"{paths[0]}: a text column holds one number; name the places x, y and z")
    for table in tables:
        if table.names() != names:
            raise BadInput(f"{table.path}: its columns are not those of {paths[0].name}")
    at = tuple(map(names.index, chosen.names(kind)))
    headers = [_header(table.path, table.told(), {}, chosen) for table in tables]
    return TextCatalogue.of(tables, headers, kind, *_words(chosen), (at,) * len(tables))


def _open_arrays(paths: Sequence[Path], kind: HaloType) -> Catalogue:
    tables = tuple(_Table.open(path) for path in paths)
    chosen = choose(paths[0], [*tables[0].shapes])
    headers, counts = [], []
    for table in tables:
        if missing := {*chosen.names("group")} - table.shapes.keys():
            raise BadInput(f"{table.path}: has no column {', '.join(sorted(missing))}")
        counts.append(only_numbers(table.path, table.shapes, chosen))
        headers.append(_header(table.path, table.told, table.units, chosen))
    check_one_run(paths, headers, "catalogue")
    label, uncounted = _words(chosen)
    return ArrayCatalogue(
        tuple(paths), headers[0], kind, tuple(counts), label, uncounted, {}, chosen, tables
    )


def _words(chosen: Chosen) -> tuple[str, str]:
    """Return the label of a field, and what the haloes are that do not count."""
    return (
        f"catalogue: columns {chosen.label}",
        f"left out: haloes in another one ({chosen.parent} is not -1)",
    )


def _header(
    path: Path, told: Mapping[str, float], units: Mapping[str, str], chosen: Chosen
) -> Header:
    known = {
        name: next((told[key] for key in keys if key in told), None) for name, keys in _TOLD.items()
    }
    length = {_unit(path, name, units.get(name, ""), _LENGTHS) for name in chosen.places}
    mass = _unit(path, chosen.mass, units.get(chosen.mass, ""), _MASSES)
    if len(length) > 1:
        raise BadInput(f"{path}: its places are in several units; write them in one")
    (each,) = length
    box, z = known.pop("box"), known.pop("redshift")
    return with_lacks(
        Header(
            "columns",
            (box or 0.0) / each,
            each,
            mass,
            -1.0 if z is None else z,
            {name: value for name, value in known.items() if value is not None},
        ),
        "tells no box size (box_size, Mpc/h)",
        "tells no redshift (redshift)",
    )


def _unit(path: Path, name: str, unit: str, known: Mapping[str, float]) -> float:
    """Return a column's unit in Mpc/h or M☉/h, 1 where it tells none."""
    text = unit.lower().replace("10^10", "1e10").translate(str.maketrans("", "", " _[](){}*^"))
    text = text.replace("comoving", "").replace("h-1", "/h").replace("solmass", "msun")
    if not text:
        return 1.0
    for words, value in known.items():
        if text in (words, f"c{words}"):
            return value
    raise BadInput(
        f"{path}: column {name} is in {unit!r}; known are {', '.join(known)} (comoving); "
        "write it in one of these"
    )


@dataclass(frozen=True)
class _Table:
    """The columns of a npz, HDF5 or FITS file."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    told: dict[str, float]  # numbers about the run, by lower-case name
    units: dict[str, str]
    group: str = ""  # of an HDF5 file
    kept: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)  # of a npz: whole

    @classmethod
    def open(cls, path: Path) -> _Table:
        kind = path.suffix.lower()
        return (
            _of_npz(path) if kind == ".npz" else _of_fits(path) if "fit" in kind else _of_hdf5(path)
        )

    def read(self, names: Sequence[str], start: int, stop: int) -> list[NDArray[Any]]:
        """Read rows start .. stop of columns, from a file that is opened once."""
        if self.kept:
            return [self.kept[name][start:stop] for name in names]
        if "fit" in self.path.suffix.lower():
            with _fits_table(self.path) as table:
                return [np.asarray(table.data[name][start:stop]).astype(float) for name in names]
        with opened(self.path) as file:
            table = file[self.group] if self.group else file
            if hasattr(table, "dtype"):  # of compound type
                if start == 0:
                    check_stored(table)
                rows = table.fields(names)[start:stop]
                return [rows[name] for name in names]
            data = {name: member(table, name) for name in names}
            for column in data.values() if start == 0 else ():
                check_stored(column)
            some = slice(start, stop)
            return [read_values(f"{self.path}: {name}", one, some) for name, one in data.items()]


def _of_npz(path: Path) -> _Table:
    with readable(path, path):
        if not zipfile.is_zipfile(path):
            raise ValueError("no zip file")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    numbers = {k: v for k, v in arrays.items() if v.dtype.kind in "fiu"}
    told = {k.lower(): float(v) for k, v in numbers.items() if v.size == 1}
    columns = {k: v for k, v in numbers.items() if v.ndim}
    return _Table(path, {k: v.shape for k, v in columns.items()}, told, {}, "", columns)


def _of_hdf5(path: Path) -> _Table:
    import h5py

    with opened(path) as file:
        found: dict[str, dict[str, Any]] = {}
        for name, node in [("", file), *file.items()]:
            columns = _columns_of(node)
            if columns and _suits(path, columns):
                found[name] = columns
        if len(found) != 1:
            raise BadInput(
                f"{path}: {len(found)} of its groups have columns of places and masses"
                f"{': ' + ', '.join(found) if found else ' (x, y, z or positions; mass, mvir)'}; "
                "a catalogue has them in one"
            )
        ((group, columns),) = found.items()
        node = file[group] if group else file
        told = {**attributes(file, "/"), **attributes(file, "Header"), **dict(node.attrs)}
        numbers = {k.lower(): scalar(v) for k, v in told.items() if _is_number(v)}
        shapes = {name: tuple(shape) for name, shape in columns.items()}
        units = {}
        for name in columns if isinstance(node, h5py.Group) else ():
            unit = node[name].attrs.get("units", node[name].attrs.get("unit", ""))
            units[name] = unit.decode() if isinstance(unit, bytes) else str(unit)
        return _Table(path, shapes, numbers, units, group)


def _columns_of(node: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the columns of a group, or of a table of compound type."""
    if hasattr(node, "dtype"):
        dtype = node.dtype
        return {n: (*node.shape, *dtype[n].shape) for n in dtype.names or ()}
    items = ((name, node.get(name)) for name in node)
    return {n: d.shape for n, d in items if getattr(d, "dtype", None) is not None and d.shape}


def _suits(path: Path, columns: Mapping[str, Any]) -> bool:
    try:
        choose(path, [*columns])
    except BadInput:
        return False
    return True


def _is_number(value: Any) -> bool:
    return np.size(value) == 1 and np.asarray(value).dtype.kind in "fiu"


@contextmanager
def _fits_table(path: Path) -> Iterator[Any]:
    """Open the first table of a FITS file."""
    try:
        from astropy.io import fits
    except ImportError:
        raise BadInput(
            f"{path}: FITS tables need astropy, which is not installed: pip install astropy, or "
            "write the catalogue as .csv, .npz or .hdf5"
        ) from None
    with readable(path, path), fits.open(path, memmap=True) as file:
        table = next((hdu for hdu in file if isinstance(hdu, fits.BinTableHDU)), None)
        if table is None:
            raise BadInput(f"{path}: has no table")
        yield table


def _of_fits(path: Path) -> _Table:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "File may have been truncated")
        with _fits_table(path) as table:
            known = {k.lower(): float(v) for k, v in table.header.items() if _is_number(v)}
            names, dtype = table.columns.names, table.data.dtype
            shapes = {name: (*table.data.shape, *dtype[name].shape) for name in names}
            units = {column.name: column.unit or "" for column in table.columns}
    return _Table(path, shapes, known, units)
