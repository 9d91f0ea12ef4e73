"""What a density grid can be read from: .npy, an HDF5 data set, a zarr array; one region at a time.

A source is opened again for every region that is read, so that it holds no file, can be sent to
any dask worker, and never has more than one region in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput

Region = tuple[slice, slice, slice]
HDF5_SUFFIXES = (".hdf5", ".h5", ".hdf")
QUICKSTART = "quickstart"
"""The name that stands for the shipped grid."""


@dataclass(frozen=True)
class GridSource:
    """A density grid on disk: shape (nx, ny, nz) voxels, any real dtype, any positive unit."""

    path: Path
    kind: Literal["npy", "hdf5", "zarr"]
    dataset: str  # inside the HDF5 file or the zarr group; "" for a .npy file or a bare array
    index: int | None  # which grid of a file of several, (n, nx, ny, nz)
    shape: tuple[int, int, int]
    dtype: np.dtype
    chunk_bytes: int  # what is decoded at once, even for a smaller region
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        name = f"{self.path}:{self.dataset}" if self.dataset else str(self.path)
        return name if self.index is None else f"{name}[{self.index}]"

    def read(self, region: Region) -> NDArray:
        """One region as a C-contiguous array of the source's dtype. BadInput if it cannot be."""
        with _reading(self):
            if self.kind == "npy":
                return self._read_mapped(region)
            with _array(self.path, self.kind, self.dataset) as array:
                return np.ascontiguousarray(array[self._where(region)])

    def _read_mapped(self, region: Region) -> NDArray:
        # Plane by plane along the slowest axis, each from a mapping of its own: the pages of a
        # mapping count as memory of this process until it is closed.
        out = np.empty([cut.stop - cut.start for cut in region], self.dtype)
        with _array(self.path, "npy", "") as array:
            slow = int(np.argmax(array.strides[-3:]))
        first = region[slow].start
        for i in range(out.shape[slow]):
            plane = [*region]
            plane[slow] = slice(first + i, first + i + 1)
            with _array(self.path, "npy", "") as array:
                target = (slice(None),) * slow + (slice(i, i + 1),)
                out[target] = array[self._where((plane[0], plane[1], plane[2]))]
            del array
        return out

    def _where(self, region: Region) -> tuple[int | slice, ...]:
        return region if self.index is None else (self.index, *region)


def open_source(text: str, index: int | None = None) -> GridSource:
    """The source that a command line names: a path, ``path:/data/set``, or ``quickstart``.

    Raises BadInput when there is no such file or data set, when it is damaged, has the wrong rank,
    or does not hold real numbers.
    """
    if text == QUICKSTART:
        from bigbox.data import quickstart_grid

        text = str(quickstart_grid())
    path, dataset = _split(text)
    kind = _kind(path)
    if kind == "npy" and dataset:
        raise BadInput(f"{text}: a .npy file holds one array only; leave out ':{dataset}'")
    if kind != "npy" and not dataset:
        dataset = _only_grid(path, kind)
    probe = GridSource(path, kind, dataset, index, (0, 0, 0), np.dtype("f4"), 0)
    with _reading(probe), _array(path, kind, dataset) as array:
        shape, dtype = tuple(array.shape), np.dtype(array.dtype)
        chunks = getattr(array, "chunks", None) or ()
        attributes = {} if kind == "npy" else _plain(dict(array.attrs))
    if dtype.kind not in "fiu":
        raise BadInput(f"{text}: holds {dtype}, but a density is a real number (float or integer)")
    if len(shape) == 4 and index is None:
        raise BadInput(
            f"{text}: holds {shape[0]} grids of {_times(shape[1:])} voxels: "
            f"choose one with --index 0..{shape[0] - 1}"
        )
    if len(shape) == 3 and index is not None:
        raise BadInput(f"{text}: holds one grid of {_times(shape)} voxels; leave out --index")
    if len(shape) not in (3, 4) or 0 in shape:
        raise BadInput(f"{text}: has shape {shape}; a density grid has shape (nx, ny, nz)")
    if index is not None and not 0 <= index < shape[0]:
        raise BadInput(f"{text}: --index {index} is outside 0..{shape[0] - 1}")
    return GridSource(
        path,
        kind,
        dataset,
        index,
        shape[-3:],
        dtype,
        math.prod(chunks) * dtype.itemsize,
        attributes,
    )


def _split(text: str) -> tuple[Path, str]:
    path = Path(text)
    if not path.exists() and ":" in text:
        name, dataset = text.rsplit(":", 1)
        path, text = Path(name), dataset
    else:
        text = ""
    if not path.exists():
        raise BadInput(
            f"{path}: no such file; a source is a .npy file, an HDF5 file, a zarr array, or the "
            f"name '{QUICKSTART}'"
        )
    return path, text.strip("/")


def _kind(path: Path) -> Literal["npy", "hdf5", "zarr"]:
    if path.is_dir():
        return "zarr"
    if path.suffix == ".npy":
        return "npy"
    if path.suffix in HDF5_SUFFIXES:
        return "hdf5"
    raise BadInput(f"{path}: must be a .npy file, an HDF5 file (.hdf5, .h5) or a zarr folder")


@contextmanager
def _reading(source: GridSource) -> Iterator[None]:
    """Turns whatever the libraries raise about a damaged file into one line."""
    try:
        yield
    except BadInput:
        raise
    except MemoryError:
        raise
    except KeyError:
        raise BadInput(f"{source}: there is no data set of this name in the file") from None
    except Exception as error:
        why = " ".join(str(error).split())
        raise BadInput(
            f"{source}: cannot be read ({why}); is the file truncated or damaged? copy it again"
        ) from None


@contextmanager
def _array(path: Path, kind: str, dataset: str) -> Iterator[Any]:
    if kind == "npy":
        yield np.load(path, mmap_mode="r", allow_pickle=False)
    elif kind == "hdf5":
        import h5py

        with h5py.File(path, "r") as file:
            yield file[dataset]
    else:
        import zarr

        node: Any = zarr.open(path, mode="r")
        yield node[dataset] if dataset else node


def _only_grid(path: Path, kind: str) -> str:
    """The name of the only data set of rank 3 or 4; "" for a bare zarr array."""
    found: list[str] = []
    probe = GridSource(path, "npy", "", None, (0, 0, 0), np.dtype("f4"), 0)
    with _reading(probe):
        if kind == "hdf5":
            import h5py

            def look(name: str, node: Any) -> None:
                if isinstance(node, h5py.Dataset) and node.ndim in (3, 4):
                    found.append(name)

            with h5py.File(path, "r") as file:
                file.visititems(look)
        else:
            import zarr

            root: Any = zarr.open(path, mode="r")
            if isinstance(root, zarr.Array):
                return ""
            found = [name for name, array in root.arrays() if array.ndim in (3, 4)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(found)) or "none"
    raise BadInput(
        f"{path}: name the data set, as in {path.name}:/dm; those of rank 3 or 4 are: {names}"
    )


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


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
