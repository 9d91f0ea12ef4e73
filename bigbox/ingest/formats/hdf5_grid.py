"""Density grids in HDF5 files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from bigbox.ingest.formats import only_grid


@contextmanager
def opened(path: Path, dataset: str) -> Iterator[h5py.Dataset]:
    """Open a data set of an HDF5 file; the only one of rank 3 or 4 where none is named."""
    ranks: dict[str, int] = {}

    def note(name: str, node: Any) -> None:
        ranks[name] = getattr(node, "ndim", 0)  # a group has none

    with h5py.File(path, "r") as file:
        if not dataset:
            file.visititems(note)
        yield file[dataset or only_grid(path, ranks)]
