"""Density grids in zarr stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zarr

from bigbox.ingest.formats import only_grid


@contextmanager
def opened(path: Path, dataset: str) -> Iterator[Any]:
    """Open an array of a zarr store: the store itself, or the named or only one of its group."""
    node: Any = zarr.open(path, mode="r")
    if not dataset and isinstance(node, zarr.Group):
        dataset = only_grid(path, {name: array.ndim for name, array in node.arrays()})
    yield node[dataset] if dataset else node
