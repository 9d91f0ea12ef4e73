"""Open what an ingest reads: the snapshot, catalogue or density grid that paths name.

A density grid is opened again for every region that is read: it holds no file, can be sent to any
dask worker, and never has more than one region in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.extensions import installed, load
from bigbox.ingestion import formats
from bigbox.ingestion.catalogue import Catalogue, HaloType
from bigbox.ingestion.hdf5 import beginning, readable
from bigbox.ingestion.headers import Header, Told
from bigbox.ingestion.packing import Packing, packing
from bigbox.ingestion.snapshot import Snapshot
from bigbox.ingestion.stored import check_stored
from bigbox.scheduler.grid import Slices, triple

QUICKSTART = "quickstart"  # the name that stands for the shipped grid
_NOTHING = Told()


@dataclass(frozen=True)
class GridSource:
    """A density grid on disk: shape (nx, ny, nz) voxels, any real dtype, any positive unit."""

    path: Path
    reader: str  # of a row of `bigbox.ingestion.formats`
    dataset: str  # inside the HDF5 file or the zarr group; "" for a .npy file or a bare array
    index: int | None  # which grid of a file of several, (n, nx, ny, nz)
    shape: tuple[int, int, int] = (0, 0, 0)
    dtype: np.dtype[Any] = np.dtype("f4")  # of the values
    chunk_bytes: int = 0  # what is decoded at once, even for a smaller region
    attributes: dict[str, Any] = field(default_factory=dict)
    packing: Packing = Packing()
    around: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())  # indices before and after x, y, z
    notes: tuple[str, ...] = ()  # what was taken for granted

    def __str__(self) -> str:
        name = f"{self.path}:{self.dataset}" if self.dataset else str(self.path)
        return name if self.index is None else f"{name}[{self.index}]"

    def read(self, region: Slices) -> NDArray[Any]:
        """Read a region, C-contiguous, of the source's dtype.

        Raises BadInput if it cannot be, or where a voxel of it has no value.
        """
        with self.opened() as array:
            raw = np.ascontiguousarray(array[(*self.around[0], *region, *self.around[1])])
        absent = self.packing.absent(raw)
        if absent.any():
            local = np.unravel_index(int(np.argmax(absent)), raw.shape)
            voxel = tuple(int(i) + cut.start for i, cut in zip(local, region, strict=True))
            raise BadInput(
                f"{self}: voxel {voxel} holds {raw[local]:g}, which its attributes (_FillValue, "
                "missing_value, valid_range) say is no value; a density has one in every voxel"
            )
        return self.packing.values(raw)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """Open the array; whatever the libraries raise about a damaged file becomes one line."""
        with (
            readable(self, self.path),
            load(self.reader)(self.path, self.dataset) as array,
        ):
            yield array


def open_source(text: str, index: int | None = None, *, empty_chunks: bool = False) -> GridSource:
    """Find the source that a command line names: a path, ``path:/data/set``, or ``quickstart``.

    empty_chunks: chunks that are not there hold the fill value; else they are refused. Raises
    BadInput when there is no such file or data set, when it is damaged or parts of it are not
    there, has the wrong rank, or does not hold real numbers.
    """
    if text == QUICKSTART:
        from bigbox.data import quickstart_grid

        text = str(quickstart_grid())
    path, dataset = Path(text), ""
    if not path.exists() and ":" in text:
        name, dataset = text.rsplit(":", 1)
        path, dataset = Path(name), dataset.strip("/")
    if not path.exists():
        raise BadInput(
            f"{path}: no such file; a source is a .npy file, an HDF5 file, a zarr array, or the "
            f"name '{QUICKSTART}'"
        )
    row = formats.find([path], "grid")
    if row is None:
        others = "".join(f", {name}" for name in installed(formats.GROUP))
        raise BadInput(
            f"{path}: must be a .npy file, an HDF5 file (.hdf5, .h5) or a zarr folder{others}"
        )
    with GridSource(path, row.reader, dataset, index).opened() as array:
        dtype, shape = np.dtype(array.dtype), tuple(array.shape or ())
        around = _around(text, shape, index)
        if dtype.kind not in "fiu":
            raise BadInput(
                f"{text}: holds {dtype}, but a density is a real number (float or integer)"
            )
        empty = check_stored(getattr(array, "stored", array), empty_chunks)
        packed = packing(text, array)
        chunks = getattr(array, "chunks", None) or ()
        dataset = str(getattr(array, "name", None) or dataset).strip("/")
        attributes = _plain(dict(getattr(array, "attrs", {})))
    first = len(around[0])
    return GridSource(
        path,
        row.reader,
        dataset,
        index,
        triple(shape[first : first + 3]),
        packed.dtype(dtype),
        math.prod(chunks) * dtype.itemsize,
        attributes,
        packed,
        around,
        (empty,) if empty else (),
    )


def _around(
    text: str, shape: tuple[int, ...], index: int | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the indices before and after the axes x, y, z; an axis of length 1 is no choice."""
    first, last = 0, len(shape)
    while last - first > 3 and shape[last - 1] == 1:
        last -= 1
    while last - first > (3 if index is None else 4) and shape[first] == 1:
        first += 1
    inner = shape[first:last]
    voxels = "x".join(map(str, inner[-3:]))
    if len(inner) not in (3, 4) or 0 in inner:
        raise BadInput(f"{text}: has shape {shape}; a density grid has shape (nx, ny, nz)")
    if len(inner) == 4 and index is None:
        raise BadInput(
            f"{text}: holds {inner[0]} grids of {voxels} voxels: "
            f"choose one with --index 0..{inner[0] - 1}"
        )
    if len(inner) == 3 and index is not None:
        raise BadInput(f"{text}: holds one grid of {voxels} voxels; leave out --index")
    if index is not None and not 0 <= index < inner[0]:
        raise BadInput(f"{text}: --index {index} is outside 0..{inner[0] - 1}")
    chosen = () if index is None else (index,)
    return (0,) * first + chosen, (0,) * (len(shape) - last)


def open_snapshot(given: Sequence[Path], told: Told = _NOTHING) -> Snapshot:
    """Open the snapshot that a folder, any one of its files, or all of its files name.

    told: what counts in the place of its headers. Raises BadInput where there is none, several, a
    file is missing, the files disagree, or something lacks that nobody tells.
    """
    row = formats.find(given, "particles") or formats.GADGET  # whose refusals say what is wrong
    snapshot: Snapshot = load(row.reader)(given)
    return replace(snapshot, header=told.of(snapshot.header, snapshot.files[0]))


def open_catalogue(
    given: Sequence[Path],
    kind: HaloType = "group",
    told: Told = _NOTHING,
    beside: Header | None = None,
) -> Catalogue:
    """Open the catalogue that a folder, any one of its files, or all of its files name.

    told: what counts in the place of its headers; beside: of the snapshot of the same run, which
    tells what the catalogue itself does not. Raises BadInput where there is none, several, a file
    is missing, the files disagree, or something lacks that nobody tells.
    """
    row = formats.find(given, "haloes")
    if row is None and given[0].is_file() and not beginning(given[0], 4).startswith(b"\x89HDF"):
        raise BadInput(
            f"{given[0]}: is no halo catalogue that bigbox knows (Rockstar's binary files: set "
            "OUTPUT_FORMAT to ASCII); write it as columns x, y, z, mass in .csv, .npz or .hdf5"
        )
    row = row or formats.GROUPS  # whose refusals say what is wrong
    found: Catalogue = load(row.reader)(given, kind)
    header = found.header
    if beside is not None:
        header = header.beside(beside)
    return replace(found, header=told.of(header, found.files[0]))


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes as JSON values."""
    plain: dict[str, Any] = {}
    for name, value in attributes.items():
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        elif isinstance(value, (np.generic, np.ndarray)):
            value = value.tolist()
        if isinstance(value, (str, int, float, bool, list)):
            plain[name] = value
    return plain
