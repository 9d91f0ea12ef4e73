"""The formats that `bigbox ingest` reads: a row for each, and its reader in a file beside.

A row says how a source is recognised and where its reader stands, which is imported when asked for:

    holds        its reader is called with      and returns
    particles    the paths of the files         a `bigbox.ingestion.snapshot.Snapshot`
    grid         a path and a data set's name   a context manager of an array: shape, dtype,
                 ("": the only one)             [region]; where it has them attrs, chunks, name
    haloes       the paths, "group" or          a `bigbox.ingestion.catalogue.Catalogue`
                 "subhalo"

Another package adds a row by an entry point of the group `bigbox.snapshot_formats`, whose value is
"module:ROW". It is imported where no row recognises a source by its content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bigbox.extensions import installed, load, load_installed

GROUP = "bigbox.snapshot_formats"
Content = Literal["particles", "grid", "haloes"]


@dataclass(frozen=True)
class SnapshotFormat:
    """One format of snapshots, density grids or halo catalogues."""

    name: str
    help: str  # one line
    holds: Content
    recognises: Callable[[Path], bool]  # cheap: by the name, or the beginning of the content
    reader: str  # "module:function"


def _is_zarr(path: Path) -> bool:
    names = ("zarr.json", ".zarray", ".zgroup")
    return path.is_dir() and (path.suffix == ".zarr" or any((path / n).exists() for n in names))


def _code_of(path: Path) -> str:
    from bigbox.ingestion.hdf5 import code_of

    return "" if _is_zarr(path) else code_of(path)


def _of_a_code(path: Path) -> bool:
    from bigbox.ingestion.hdf5 import of_a_code

    return of_a_code(path)


_HERE = "bigbox.ingestion.formats"
GADGET = SnapshotFormat(
    "gadget",
    "GADGET-4, GADGET, GIZMO or AREPO (CAMELS, IllustrisTNG)",
    "particles",
    lambda path: _code_of(path) == "GADGET",
    f"{_HERE}.gadget:open_snapshot",
)
SWIFT = SnapshotFormat(
    "swift",
    "SWIFT",
    "particles",
    lambda path: _code_of(path) == "SWIFT",
    f"{_HERE}.swift:open_snapshot",
)
NPY = SnapshotFormat(
    "npy",
    "grid.npy                a numpy array of shape (nx, ny, nz)",
    "grid",
    lambda path: path.suffix == ".npy",
    f"{_HERE}.grids:npy",
)
HDF5 = SnapshotFormat(
    "hdf5",
    "file.hdf5:/path/to/dm   an HDF5 (netCDF-4) data set; without :/path the only one of rank 3, 4",
    "grid",
    lambda path: path.suffix in (".hdf5", ".h5", ".hdf", ".nc", ".nc4"),
    f"{_HERE}.grids:hdf5",
)
ZARR = SnapshotFormat(
    "zarr",
    "grid.zarr               a zarr array, or group.zarr:/dm",
    "grid",
    _is_zarr,
    f"{_HERE}.grids:zarr",
)
GROUPS = SnapshotFormat(
    "groups",
    "FOF groups or SUBFIND subhaloes of the codes above (HDF5 with a Header)",
    "haloes",
    lambda path: not _is_zarr(path) and _of_a_code(path),
    f"{_HERE}.groups:open_groups",
)


def _later(name: str) -> Callable[[Path], bool]:
    """Return the function `recognises` of a module beside, imported when it is asked."""

    def recognises(path: Path) -> bool:
        found: bool = load(f"{_HERE}.{name}:recognises")(path)
        return found

    return recognises


ROCKSTAR = SnapshotFormat(
    "rockstar",
    "Rockstar (out_33.list, halos_33.0.ascii) and consistent-trees (hlist_1.00000.list)",
    "haloes",
    _later("rockstar"),
    f"{_HERE}.rockstar:open_catalogue",
)
AHF = SnapshotFormat(
    "ahf", "AHF (*.AHF_halos)", "haloes", _later("ahf"), f"{_HERE}.ahf:open_catalogue"
)
PINOCCHIO = SnapshotFormat(
    "pinocchio",
    "PINOCCHIO in text (*.catalog.out)",
    "haloes",
    _later("pinocchio"),
    f"{_HERE}.pinocchio:open_catalogue",
)
TABLES = SnapshotFormat(
    "tables",
    "columns x, y, z (Mpc/h), mass (M_sun/h) in .csv, .txt, .npz, .hdf5 (Uchuu), .fits",
    "haloes",
    _later("tables"),
    f"{_HERE}.tables:open_catalogue",
)
_FIRST = (SWIFT, GADGET, NPY, GROUPS, ROCKSTAR, AHF, PINOCCHIO)
_LAST = (TABLES, HDF5, ZARR)  # of which every file of that name is one
FORMATS = _FIRST + _LAST


def rows() -> Iterator[SnapshotFormat]:
    """Yield the formats in the order in which they are asked, those of other packages by name."""
    yield from _FIRST
    for name in sorted(installed(GROUP)):
        yield load_installed(GROUP, name)
    yield from _LAST


def find(paths: Sequence[Path], *holds: Content) -> SnapshotFormat | None:
    """Return the first format, of these contents, which recognises any of the paths."""
    there = [path for path in paths if path.exists()]
    for row in rows() if there else ():
        if row.holds in holds and any(map(row.recognises, there)):
            return row
    return None
