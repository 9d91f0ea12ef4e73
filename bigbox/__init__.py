"""Paint 21 cm brightness temperature onto dark-matter boxes far larger than memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray

__version__ = "0.1.0"


def open(
    path: str | Path,
    chunks: Mapping[str, int] | None = None,
    realization: int = 0,
    grid: str = "dm",
) -> xarray.Dataset:
    """Open a box as an xarray data set backed by dask; see `bigbox.store.dataset.open_dataset`.

    Raises BadInput where `path` is no box.

    >>> import bigbox
    >>> box = bigbox.open("box.zarr")
    >>> box.tb.sel(z=1.2, method="nearest").mean().compute()  # mK, in one plane
    """
    # Here, so that `import bigbox`, and with it every command, stays quick.
    from bigbox.store.dataset import open_dataset

    return open_dataset(path, chunks, realization, grid)
