"""Cut a slab out of a box and average over it.

    reads   dm[:, :, k:k+d]  ──mean over the slab──►  (nx, ny)  ──mean over f x f──►  at most 1024²

Only the chunks under the slab are read, a few at a time, so a slab of a box far larger than memory
can be shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.store.absent import require_there
from bigbox.store.box import Box
from bigbox.store.fields import AXES, FIELDS, known_field

PIXELS = 1024
"""Most pixels of a panel's side; larger slabs are averaged down to it."""


@dataclass(frozen=True)
class Slab:
    """The voxels [first, first + count) on one axis of a box, 0 = x."""

    axis: int
    first: int
    count: int

    def cut(self) -> tuple[slice, slice, slice]:
        """Return the slab as slices of (nx, ny, nz)."""
        cut = [slice(None)] * 3
        cut[self.axis] = slice(self.first, self.first + self.count)
        return cut[0], cut[1], cut[2]

    def of_every(self, step: int) -> Slab:
        """Return those of every `step`-th voxel that lie in the slab, or the one before it."""
        first, end = (-(-place // step) for place in (self.first, self.first + self.count))
        if first == end:
            return Slab(self.axis, first - 1, 1)
        return Slab(self.axis, first, end - first)

    def extent(self, voxel: float) -> tuple[float, float]:
        """Return where the slab begins and ends, in the unit of `voxel`."""
        return self.first * voxel, (self.first + self.count) * voxel


def slab_of(box: Box, axis: str, at: float | None, thickness: float | None) -> Slab:
    """Return the slab around `at` (its middle, Mpc/h; the box's if None), one voxel thick or more.

    Raise BadInput for an axis, a place or a thickness (Mpc/h) outside the box.
    """
    if axis not in AXES:
        raise BadInput(f"axis {axis!r} is not one of x, y, z")
    index = AXES.index(axis)
    side, n, voxel = box.box_size[index], box.shape[index], box.voxel
    middle = side / 2 if at is None else at
    if not 0 <= middle < side:
        raise BadInput(
            f"{box.path}: at {middle:g} Mpc/h is outside the box, 0 to {side:g} on {axis}"
        )
    wanted = voxel if thickness is None else thickness
    if not 0 < wanted <= side:
        raise BadInput(f"{box.path}: a slab of {wanted:g} Mpc/h; must be above 0, at most {side:g}")
    count = max(1, round(wanted / voxel))
    first = math.floor(middle / voxel - (count - 1) / 2)
    return Slab(index, min(max(first, 0), n - count), count)


def slab_image(
    array: Any, slab: Slab, pixels: int = PIXELS, *, channel: int | None = None
) -> NDArray[np.float32]:
    """Return the mean over a slab of an array (nx, ny, nz), float32 (rows, columns).

    Sides of more than `pixels` voxels are averaged down. A pixel with a NaN voxel is NaN.
    channel: of an array (channels, nx, ny, nz).
    """
    cut = slab.cut() if channel is None else (channel, *slab.cut())
    data = da.from_array(array, chunks=array.chunks, asarray=True)[cut]
    image = data.mean(axis=slab.axis, dtype=np.float64)
    factor = max(1, -(-max(image.shape) // pixels))
    if factor > 1:
        # Chunks that hold whole pixels.
        aligned = tuple(max(factor, size[0] // factor * factor) for size in image.chunks)
        image = da.coarsen(
            np.mean, image.rechunk(aligned), {0: factor, 1: factor}, trim_excess=True
        )
    try:
        (done,) = dask.compute(image, num_workers=2)
    except (ValueError, OSError) as error:  # what zarr raises for a chunk that is damaged
        why = " ".join(str(error).split())
        raise BadInput(
            f"a chunk under the slab cannot be read ({why}): bigbox verify tells which"
        ) from None
    return np.asarray(done, dtype=np.float32)


def panels(
    box: Box, slab: Slab, arrays: Sequence[str] | None = None, grid: str = "dm"
) -> dict[str, NDArray[np.float32]]:
    """Return slabs by the panel's name, a channel a panel: of `arrays`, or of dm, halo and tb.

    grid: as for `Box.view`.
    """
    if arrays is None:
        box.require_input()
        arrays = [field.name for field in FIELDS if field.spans_box and box.has(field.name)]
    found = {}
    for name in arrays:
        array: Any = box.view(name, grid) if known_field(name) else box.array(name)
        step = box.step_of(array) if known_field(name) else 1
        if tuple(n * step for n in array.shape[-3:]) != box.shape or array.ndim > 4:
            raise BadInput(f"{box.path}/{name}: has shape {array.shape}, no field over the box")
        if "painting" not in box.array(name).attrs:  # what is being painted may lack voxels
            require_there(box, name, [*[slice(None)] * (array.ndim - 3), *slab.cut()])
        for channel in [None] if array.ndim == 3 else range(array.shape[0]):
            title = name if channel is None else f"{name} {channel}"
            found[title] = slab_image(array, slab.of_every(step), channel=channel)
    return found
