"""An array of a painting grid as one on the grid of dm: interpolated where it is read.

    tb  (64, 64, 64) on disk   ──[region of dm's voxels]──►   what is read, float32 of that region

Only what a region needs is read, `bigbox.physics.interpolation.REACH` voxels round it, wrapped. The
bits of a voxel depend on no region. NaN, where nothing is painted yet, reaches as far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.physics.interpolation import REACH, Scale
from bigbox.scheduler.grid import Grid, triple
from bigbox.store.cutouts import read_cutout
from bigbox.store.fields import AXES

# Planes on x of which a region is interpolated at a time: bounds the temporary arrays.
PLANES = 64


class Interpolated:
    """An array (..., X, Y, Z) over dm's voxels, read-only, for numpy and dask.

    stored: zarr, one voxel for `step` of dm on each axis, periodic. chunks: that are read together
    well; shards: those of a dask block; dims: the names of the dimensions.
    """

    dtype = np.dtype("float32")

    def __init__(self, stored: Any, step: int) -> None:
        self.stored, self.step = stored, step
        self.ndim, lead = stored.ndim, stored.ndim - 3
        self.dims = (*(stored.metadata.dimension_names or ())[:lead], *AXES)
        self.shape = self._fine(stored.shape)
        self.size = int(np.prod(self.shape, dtype=np.int64))
        self.chunks = self._fine(stored.chunks)
        shards = stored.shards or stored.chunks
        # As many bytes as a shard on the disk, in whole chunks.
        many = (max(1, s // c) for s, c in zip(shards[lead:], self.chunks[lead:], strict=True))
        edges = (c * n for c, n in zip(self.chunks[lead:], many, strict=True))
        self.shards = (*stored.chunks[:lead], *edges)
        self.store_path = stored.store_path
        told = stored.attrs.asdict()
        self._scale = Scale.of(told)
        about = {"interpolated": f"from one voxel for {step} of dm on each axis"}
        self.attrs = {k: v for k, v in told.items() if k not in ("grid", "voxel_size")} | about

    def _fine(self, edges: Sequence[int]) -> tuple[int, ...]:
        lead = self.ndim - 3
        return (*edges[:lead], *(self.step * int(n) for n in edges[lead:]))

    def __dask_tokenize__(self) -> tuple[str, int]:
        return str(self.store_path), self.step

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        """Return a region: whole numbers and slices forward, as numpy takes them."""
        keys = _full(key, self.ndim)
        ranges = [_range(k, n) for k, n in zip(keys, self.shape, strict=True)]
        bounds = [(r.start, r[-1] + 1 if len(r) else r.start) for r in ranges]
        found = self._region(tuple(slice(*b) for b in bounds[:-3]), bounds[-3:])
        picked = found[tuple(slice(None, None, r.step) for r in ranges)]
        numbers = tuple(axis for axis, k in enumerate(keys) if not isinstance(k, slice))
        return np.array(picked.squeeze(numbers) if numbers else picked, order="C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)

    def _region(
        self, lead: tuple[slice, ...], bounds: Sequence[tuple[int, int]]
    ) -> NDArray[np.float32]:
        """Return voxels [low, high) of dm on each axis."""
        channels = tuple(cut.stop - cut.start for cut in lead)
        out = np.empty((*channels, *(high - low for low, high in bounds)), np.float32)
        if not out.size:
            return out
        (x0, x1), *rest = bounds
        for low in range(x0, x1, PLANES):
            high = min(low + PLANES, x1)
            out[..., low - x0 : high - x0, :, :] = self._part(lead, [(low, high), *rest])
        return out

    def _part(
        self, lead: tuple[slice, ...], bounds: Sequence[tuple[int, int]]
    ) -> NDArray[np.float32]:
        step = self.step
        first = [low // step for low, _ in bounds]
        cells = [(high - 1) // step + 1 - a for (_, high), a in zip(bounds, first, strict=True)]
        shape = triple(int(n) for n in self.stored.shape[-3:])
        block = read_cutout(
            lambda _, at: np.asarray(self.stored[(*lead, *at)], np.float32),
            Grid.regular(shape, max(shape)).axes,
            (True, True, True),
            [a - REACH + 1 for a in first],
            [n + 2 * REACH - 1 for n in cells],
            tuple(cut.stop - cut.start for cut in lead),
        )
        fine = self._scale.interpolated(block, step)
        cut = (
            slice(low - step * a, high - step * a)
            for (low, high), a in zip(bounds, first, strict=True)
        )
        x, y, z = cut
        return fine[..., x, y, z]


def _full(key: Any, ndim: int) -> tuple[Any, ...]:
    """Return one index for each axis."""
    keys = key if isinstance(key, tuple) else (key,)
    if dots := [at for at, k in enumerate(keys) if k is Ellipsis]:
        rest = (slice(None),) * (ndim - len(keys) + 1)
        keys = (*keys[: dots[0]], *rest, *keys[dots[0] + 1 :])
    return (*keys, *(slice(None),) * (ndim - len(keys)))


def _range(key: Any, n: int) -> range:
    """Return the places on an axis of n that an index names. Raises IndexError."""
    if not isinstance(key, slice):
        at = int(key)
        if not -n <= at < n:
            raise IndexError(f"index {at} is outside an axis of {n}")
        return range(at % n, at % n + 1)
    found = range(*key.indices(n))
    if found.step < 1:
        raise IndexError(f"{key}: interpolated arrays are read forward")
    return found
