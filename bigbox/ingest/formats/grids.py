"""Density grids in .npy files, HDF5 files and zarr stores, opened without being read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput


class _Mapped:
    """The array of a file, of which only what is asked for is in memory."""

    def __init__(self, path: Path) -> None:
        self._map = partial(np.load, path, mmap_mode="r", allow_pickle=False)
        array = self._map()
        self.shape, self.dtype, self._strides = array.shape, array.dtype, array.strides

    def __getitem__(self, region: tuple[Any, ...]) -> NDArray[Any]:
        # Plane by plane along the slowest axis, each from a mapping of its own: the pages of a
        # mapping count as memory of this process until it is closed.
        *index, x, y, z = region
        out = np.empty([cut.stop - cut.start for cut in (x, y, z)], self.dtype)
        slow = int(np.argmax(self._strides[-3:]))
        for i, plane in enumerate(np.moveaxis(out, slow, 0)):
            cuts = [x, y, z]
            cuts[slow] = cuts[slow].start + i
            plane[...] = self._map()[(*index, *cuts)]
        return out


@contextmanager
def npy(path: Path, dataset: str) -> Iterator[_Mapped]:
    """Open the array of a .npy file."""
    if dataset:
        raise BadInput(
            f"{path}:/{dataset}: a .npy file holds one array only; leave out ':{dataset}'"
        )
    yield _Mapped(path)


@contextmanager
def hdf5(path: Path, dataset: str) -> Iterator[Any]:
    """Open a data set of an HDF5 file; the only one of rank 3 or 4 where none is named."""
    import h5py

    ranks: dict[str, int] = {}

    def note(name: str, node: Any) -> None:
        ranks[name] = getattr(node, "ndim", 0)  # a group has none

    with h5py.File(path, "r") as file:
        if not dataset:
            file.visititems(note)
        yield file[dataset or _only_grid(path, ranks)]


@contextmanager
def zarr(path: Path, dataset: str) -> Iterator[Any]:
    """Open an array of a zarr store: the store itself, or the named or only one of its group."""
    import zarr as library

    node: Any = library.open(path, mode="r")
    if not dataset and isinstance(node, library.Group):
        dataset = _only_grid(path, {name: array.ndim for name, array in node.arrays()})
    yield node[dataset] if dataset else node


def _only_grid(path: Path, ranks: Mapping[str, int]) -> str:
    """Return the only one of a file's data sets, given with their ranks, that is a grid."""
    found = sorted(name for name, rank in ranks.items() if rank in (3, 4))
    if len(found) != 1:
        raise BadInput(
            f"{path}: name the data set, as in {path.name}:/dm; those of rank 3 or 4 are: "
            f"{', '.join(found) or 'none'}"
        )
    return found[0]
