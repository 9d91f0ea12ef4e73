"""A box as an xarray data set backed by dask, and what is known about how it was painted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import Lock, current_thread
from typing import TYPE_CHECKING, Any

import numpy as np

from bigbox.errors import BadInput
from bigbox.store.absent import Whole
from bigbox.store.box import Box, realization_path
from bigbox.store.fields import AXES, HALO, is_axis, known_field
from bigbox.store.geometry import open_array
from bigbox.store.interpolated import Interpolated
from bigbox.store.recorded import Recorded, haloes_of, is_painted, painting_of

if TYPE_CHECKING:
    import xarray


def require_whole(box: Box, name: str, grid: str = "dm") -> Any:
    """Return the array; raise BadInput where the painting that makes it is not at its end.

    grid: as for `Box.view`.
    """
    array, place = box.view(name, grid), box.place_of(name)
    if not is_painted(place):
        return array
    found: Recorded[Any] | None = haloes_of(box) if name == HALO.name else painting_of(box)
    made = (
        dict(zip((p.name for p in found.products), found.state.done, strict=True)) if found else {}
    )
    if name not in made or not made[name].all():
        many = {p.name: p.many for p in found.products} if found else {}
        there = (f"{int(done.sum()):,} of {len(done):,} {many[n]}" for n, done in made.items())
        raise BadInput(
            f"{place}: is not painted to its end: {' and '.join(there) or 'nothing'} there; run the"
            " same bigbox paint command to its end first"
        )
    return array


class Finite:
    """An array of a box, read only where its values are finite: else BadInput says where not."""

    def __init__(self, array: Any, place: Path) -> None:
        self._array, self._place = array, place

    def __getattr__(self, name: str) -> Any:
        """Return what the array has."""
        return getattr(self._array, name)

    def __getitem__(self, region: Any) -> Any:
        """Return values, all of them finite."""
        values = self._array[region]
        if not np.isfinite(values).all():
            first = tuple(s.start for s in region) if isinstance(region, tuple) else region
            raise BadInput(
                f"{self._place}: {int((~np.isfinite(values)).sum())} values are NaN or infinite in"
                f" the block from voxel {first} on: lost, or made so; find them with: bigbox verify"
            )
        return values


@cache
def _survive_forks() -> None:
    """Have forked processes (multiprocessing, a DataLoader) compute: dask's threads stay behind."""
    import dask.threaded

    def forget() -> None:
        dask.threaded.default_pool = None
        dask.threaded.pools.clear()
        dask.threaded.pools_lock = Lock()
        dask.threaded.main_thread = current_thread()

    os.register_at_fork(after_in_child=forget)


def open_dataset(
    path: str | Path,
    chunks: Mapping[str, int] | None = None,
    realization: int = 0,
    grid: str = "dm",
) -> xarray.Dataset:
    """Open a box as an `xarray.Dataset`; nothing is read before it is asked for.

    chunks: voxels of a dask block by dimension; a shard of the store if None, which reads fastest;
    realization: of tb; grid: "dm" gives all arrays on the grid of dm, interpolated block by block
    where they are on a painting grid, "painted" gives them as they are, with coordinates x2, y2, z2
    where one voxel stands for 2 of dm on each axis.

    The data set has the box's arrays (dm: 1; halo: (M_sun/h)/(Mpc/h)^3; tb: mK) over the voxel
    centres x, y, z in Mpc/h, and the box's attributes (box_size, redshift, cosmology, ...).
    Raises BadInput where `path` is no box.
    """
    import dask.array as da
    import xarray

    _survive_forks()
    box = Box.open(realization_path(path, realization))
    variables: dict[str, Any] = {}
    for name in box.names():
        array: Any = box.view(name, grid) if known_field(name) else box.array(name)
        interpolated = isinstance(array, Interpolated)
        dims = (array.dims if interpolated else array.metadata.dimension_names) or ()
        if len(dims) < 3 or not all(map(is_axis, dims[-3:])):
            continue
        edges = array.shards or array.chunks
        blocks = tuple(
            (chunks or {}).get(str(dim), edge) for dim, edge in zip(dims, edges, strict=True)
        )
        attributes = {k: v for k, v in array.attrs.items() if k != "_FillValue"}
        whole: Any = array if "painting" in array.attrs else Whole(box, name, array)
        variables[name] = (dims, da.from_array(whole, chunks=blocks, asarray=True), attributes)
    coordinates = {}
    for axis in dict.fromkeys((*AXES, *(d for v in variables.values() for d in v[0][-3:]))):
        group = box.place if (box.place / axis).exists() else box.path
        at = open_array(group / axis, "r")
        attributes = {k: v for k, v in at.attrs.items() if k != "_FillValue"}
        coordinates[axis] = ((axis,), at[:], attributes)
    return xarray.Dataset(variables, coordinates, box.attributes)
