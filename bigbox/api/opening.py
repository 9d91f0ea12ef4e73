"""`bigbox.open`: a box as an xarray data set, with spectra and pictures at `box.bigbox`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import xarray

    from bigbox.api.accessor import BoxAccessor

    class BoxDataset(xarray.Dataset):  # type: ignore[no-untyped-call]
        """An xarray data set of a box: for type checkers, who do not know of accessors."""

        @property
        def bigbox(self) -> BoxAccessor:
            """What a box knows and a data set does not."""


def open(
    path: str | Path,
    chunks: Mapping[str, int] | None = None,
    realization: int = 0,
    grid: str = "dm",
) -> BoxDataset:
    """Open a box as an `xarray.Dataset` backed by dask; nothing is read before it is asked for.

    It has the box's arrays over the voxel centres x, y, z in comoving Mpc/h: dm (1 + delta), halo
    ((M_sun/h) / (Mpc/h)^3, over `channel`, with `mass_lower` and `mass_upper` in M_sun/h), tb (mK).
    `box.bigbox` has its cosmology, spectra, pictures and tiles (`bigbox.api.accessor.BoxAccessor`).

    Parameters
    ----------
    chunks : Voxels of a dask block by dimension. None: a shard of the store, which reads fastest.
    realization : Of tb.
    grid : "dm": all arrays on the grid of dm, interpolated where they are on a painting grid.
        "painted": as they are stored, with coordinates x2, y2, z2 where one voxel stands for 2 of
        dm on each axis.

    Raises
    ------
    BadInput
        A ValueError: `path` is no box, or has no such realization.

    Examples
    --------
    >>> import bigbox
    >>> box = bigbox.open("small.zarr")
    >>> plane = box.dm.sel(z=1.2, method="nearest")
    >>> plane.dims, plane.x.attrs["units"]
    (('x', 'y'), 'Mpc/h')
    >>> spectrum = box.bigbox.power("dm")
    >>> spectrum.units
    '(Mpc/h)^3'
    """
    import bigbox.api.accessor  # noqa: F401  registers box.bigbox
    from bigbox.store.dataset import open_dataset

    return cast("BoxDataset", open_dataset(path, chunks, realization, grid))
