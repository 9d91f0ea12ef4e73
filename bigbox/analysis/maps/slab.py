"""Cut a slab out of a box and average over it.

    reads   dm[:, :, k:k+d]  ──mean over the slab──►  (nx, ny)  ──mean over f x f──►  at most 1024²

Only the chunks under the slab are read, a few at a time, so a slab of a box far larger than memory
can be shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray

from bigbox.analysis.maps.titles import AXIS_WORDS
from bigbox.errors import BadInput
from bigbox.store.absent import require_there
from bigbox.store.box import Box
from bigbox.store.fields import AXES, known_field

Window = tuple[tuple[int, int], tuple[int, int]]

PIXELS = 1024
"""Most pixels of a panel's side; larger slabs are averaged down to it."""


@dataclass(frozen=True)
class Slab:
    """The voxels [first, first + count) on one axis of a box, 0 = x.

    window: the same of the two other axes, where not all of the slab is shown.
    """

    axis: int
    first: int
    count: int
    window: Window | None = None

    def cut(self) -> tuple[slice, slice, slice]:
        """Return the slab as slices of (nx, ny, nz)."""
        cut = [slice(None)] * 3
        cut[self.axis] = slice(self.first, self.first + self.count)
        for axis, (first, count) in zip(self.across, self.window or (), strict=False):
            cut[axis] = slice(first, first + count)
        return cut[0], cut[1], cut[2]

    def of_every(self, step: int) -> Slab:
        """Return those of every `step`-th voxel that lie in the slab, or the one before it."""
        window = self.window and (_every(*self.window[0], step), _every(*self.window[1], step))
        return Slab(self.axis, *_every(self.first, self.count, step), window)

    @property
    def across(self) -> tuple[int, int]:
        """Return the axes of the picture."""
        first, second = (axis for axis in range(3) if axis != self.axis)
        return first, second

    def sides(self, box: Box) -> tuple[float, float, float, float]:
        """Return where the picture begins and ends on its two axes, Mpc/h."""
        window = self.window or tuple((0, box.shape[axis]) for axis in self.across)
        (x, nx), (y, ny) = window
        voxel = box.voxel
        return x * voxel, (x + nx) * voxel, y * voxel, (y + ny) * voxel

    def extent(self, voxel: float) -> tuple[float, float]:
        """Return where the slab begins and ends, in the unit of `voxel`."""
        return self.first * voxel, (self.first + self.count) * voxel


def _every(first: int, count: int, step: int) -> tuple[int, int]:
    """Return first and count of those that are every `step`-th of the box, or the one before."""
    low, high = (-(-place // step) for place in (first, first + count))
    return (low - 1, 1) if low == high else (low, high - low)


def slab_of(
    box: Box,
    axis: str,
    at: float | None,
    thickness: float | None,
    window: tuple[tuple[float, float], tuple[float, float]] | None = None,
) -> Slab:
    """Return the slab around `at` (its middle, Mpc/h; the box's if None), one voxel thick or more.

    window: Mpc/h on the two other axes. Raise BadInput for an axis, a place or a thickness (Mpc/h)
    outside the box.
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
    slab = Slab(index, min(max(first, 0), n - count), count)
    if window is None:
        return slab
    cuts = []
    for number, (low, high) in zip(slab.across, window, strict=True):
        if not 0 <= low < high <= box.box_size[number] * (1 + 1e-9):
            raise BadInput(
                f"{box.path}: window {low:g}:{high:g} Mpc/h on the {AXIS_WORDS[AXES[number]]} axis;"
                f" must be two places in 0 to {box.box_size[number]:g}, the smaller first"
            )
        begin = min(math.floor(low / voxel + 1e-6), box.shape[number] - 1)
        end = min(math.ceil(high / voxel - 1e-6), box.shape[number])
        cuts.append((begin, max(1, end - begin)))
    return replace(slab, window=(cuts[0], cuts[1]))


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
    box: Box,
    slab: Slab,
    arrays: Sequence[str] | None = None,
    grid: str = "dm",
    pixels: int = PIXELS,
) -> dict[str, NDArray[np.float32]]:
    """Return slabs by the panel's name, a channel a panel: of `arrays`, or of its input and tb.

    grid: as for `Box.view`. pixels: most on a side.
    """
    if arrays is None:
        arrays = [box.require_input(), *(["tb"] if box.has("tb") else [])]
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
            found[title] = slab_image(array, slab.of_every(step), pixels, channel=channel)
    return found
