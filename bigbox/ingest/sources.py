"""Open what an ingest reads: the snapshot or density grid that paths name, of any format.

A density grid is opened again for every region that is read: it holds no file, can be sent to any
dask worker, and never has more than one region in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.extensions import installed, load
from bigbox.ingest import formats
from bigbox.ingest.hdf5 import readable
from bigbox.ingest.snapshot import Snapshot
from bigbox.scheduler.grid import Slices

QUICKSTART = "quickstart"  # the name that stands for the shipped grid


@dataclass(frozen=True)
class GridSource:
    """A density grid on disk: shape (nx, ny, nz) voxels, any real dtype, any positive unit."""

    path: Path
    reader: str  # of a row of `bigbox.ingest.formats`
    dataset: str  # inside the HDF5 file or the zarr group; "" for a .npy file or a bare array
    index: int | None  # which grid of a file of several, (n, nx, ny, nz)
    shape: tuple[int, int, int] = (0, 0, 0)
    dtype: np.dtype[Any] = np.dtype("f4")
    chunk_bytes: int = 0  # what is decoded at once, even for a smaller region
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        name = f"{self.path}:{self.dataset}" if self.dataset else str(self.path)
        return name if self.index is None else f"{name}[{self.index}]"

    def read(self, region: Slices) -> NDArray[Any]:
        """Read a region, C-contiguous, of the source's dtype. Raises BadInput if it cannot be."""
        with self.opened() as array:
            cut = region if self.index is None else (self.index, *region)
            return np.ascontiguousarray(array[cut])

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """Open the array; whatever the libraries raise about a damaged file becomes one line."""
        with readable(self), load(self.reader)(self.path, self.dataset) as array:
            yield array


def open_source(text: str, index: int | None = None) -> GridSource:
    """Find the source that a command line names: a path, ``path:/data/set``, or ``quickstart``.

    Raises BadInput when there is no such file or data set, when it is damaged, has the wrong rank,
    or does not hold real numbers.
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
        shape, dtype = tuple(array.shape), np.dtype(array.dtype)
        chunks = getattr(array, "chunks", None) or ()
        dataset = str(getattr(array, "name", None) or dataset).strip("/")
        attributes = _plain(dict(getattr(array, "attrs", {})))
    voxels = "x".join(map(str, shape[-3:]))
    if dtype.kind not in "fiu":
        raise BadInput(f"{text}: holds {dtype}, but a density is a real number (float or integer)")
    if len(shape) == 4 and index is None:
        raise BadInput(
            f"{text}: holds {shape[0]} grids of {voxels} voxels: "
            f"choose one with --index 0..{shape[0] - 1}"
        )
    if len(shape) == 3 and index is not None:
        raise BadInput(f"{text}: holds one grid of {voxels} voxels; leave out --index")
    if len(shape) not in (3, 4) or 0 in shape:
        raise BadInput(f"{text}: has shape {shape}; a density grid has shape (nx, ny, nz)")
    if index is not None and not 0 <= index < shape[0]:
        raise BadInput(f"{text}: --index {index} is outside 0..{shape[0] - 1}")
    chunk_bytes = math.prod(chunks) * dtype.itemsize
    return GridSource(path, row.reader, dataset, index, shape[-3:], dtype, chunk_bytes, attributes)


def open_snapshot(given: Sequence[Path]) -> Snapshot:
    """Open the snapshot that a folder, any one of its files, or all of its files name.

    Raises BadInput where there is none, several, a file is missing, or the files disagree.
    """
    row = formats.find(given, "particles") or formats.GADGET  # whose refusals say what is wrong
    snapshot: Snapshot = load(row.reader)(given)
    return snapshot


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
