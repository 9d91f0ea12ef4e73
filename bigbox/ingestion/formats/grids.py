"""Density grids in .npy files, HDF5 files and zarr stores, opened without being read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.ingestion.hdf5 import member, opened


class _Mapped:
    """The array of a file, of which only what is asked for is in memory."""

    def __init__(self, path: Path) -> None:
        self._map = partial(np.load, path, mmap_mode="r", allow_pickle=False)
        array = self._map()
        self.shape, self.dtype, self._strides = array.shape, array.dtype, array.strides

    def __getitem__(self, region: tuple[Any, ...]) -> NDArray[Any]:
        # Plane by plane along the slowest axis, each from a mapping of its own: the pages of a
        # mapping count as memory of this process until it is closed.
        first = next(i for i, cut in enumerate(region) if isinstance(cut, slice))
        index, (x, y, z), end = region[:first], region[first : first + 3], region[first + 3 :]
        out = np.empty([cut.stop - cut.start for cut in (x, y, z)], self.dtype)
        slow = int(np.argmax(self._strides[first : first + 3]))
        for i, plane in enumerate(np.moveaxis(out, slow, 0)):
            cuts = [x, y, z]
            cuts[slow] = cuts[slow].start + i
            plane[...] = self._map()[(*index, *cuts, *end)]
        return out


@contextmanager
def npy(path: Path, dataset: str) -> Iterator[_Mapped]:
    """Open the array of a .npy file."""
    if dataset:
        raise BadInput(
            f"{path}:/{dataset}: a .npy file holds one array only; leave out ':{dataset}'"
        )
    yield _Mapped(path)


class _Named:
    """An array of a file under the name by which the file has it: of a link, the link's."""

    def __init__(self, array: Any, name: str) -> None:
        self.stored, self.name = array, name
        self.shape, self.dtype, self.chunks = array.shape, array.dtype, array.chunks
        self.attrs = array.attrs

    def __getitem__(self, region: tuple[Any, ...]) -> Any:
        return self.stored[region]


@contextmanager
def hdf5(path: Path, dataset: str) -> Iterator[_Named]:
    """Open a data set of an HDF5 file; the only one of rank 3 or more where none is named."""
    with opened(path) as file:
        if not dataset:
            ranks, lost = _ranks_in(file)
            dataset = _only_grid(path, ranks, lost)
        array = member(file, dataset)
        if array is None or not hasattr(array, "ndim"):
            raise KeyError(dataset)
        yield _Named(array, dataset)


def _ranks_in(group: Any, before: str = "", seen: frozenset[Any] = frozenset()) -> Any:
    """Return the ranks of all data sets by name, links followed, and the links to nowhere."""
    import h5py

    ranks: dict[str, int] = {}
    lost: list[str] = []
    info = h5py.h5o.get_info(group.id)
    here = seen | {(info.fileno, info.addr)}
    for name in group:
        node = group.get(name)
        if node is None:
            lost.append(before + name)
        elif isinstance(node, h5py.Dataset):
            ranks[before + name] = node.ndim
        elif isinstance(node, h5py.Group):
            about = h5py.h5o.get_info(node.id)
            if (about.fileno, about.addr) not in here:  # a link may lead back
                more = _ranks_in(node, f"{before}{name}/", here)
                ranks |= more[0]
                lost += more[1]
    return ranks, lost


@contextmanager
def zarr(path: Path, dataset: str) -> Iterator[_Named]:
    """Open an array of a zarr store: the store itself, or the named or only one of its group."""
    import zarr as library

    node: Any = library.open(path, mode="r")
    if isinstance(node, library.Group):
        # Not by the summary of all metadata, which may be older than the arrays.
        node = library.open_group(path, mode="r", use_consolidated=False)
        dataset = dataset or _only_grid(path, _ranks_of(node))
    yield _Named(node[dataset] if dataset else node, dataset)


def _ranks_of(group: Any) -> dict[str, int]:
    """Return the ranks of all arrays in a zarr group, those of groups within it too."""
    members = group.members(max_depth=None)
    return {name: node.ndim for name, node in members if hasattr(node, "ndim")}


def _only_grid(path: Path, ranks: Mapping[str, int], lost: Sequence[str] = ()) -> str:
    """Return the only one of a file's data sets, given with their ranks, that is a grid."""
    found = sorted(name for name, rank in ranks.items() if 3 <= rank <= 5)
    if len(found) != 1:
        links = f"; links that lead nowhere: {', '.join(lost)}" if lost else ""
        raise BadInput(
            f"{path}: name the data set, as in {path.name}:/dm; those of rank 3 or more are: "
            f"{', '.join(found) or 'none'}{links}"
        )
    return found[0]
