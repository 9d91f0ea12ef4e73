"""A picture of a box: the same slab of its input and output side by side, as PNG.

    reads   dm[:, :, k:k+d]  ──mean over the slab──►  (nx, ny)  ──mean over f x f──►  at most 1024²

Only the chunks under the slab are read, a few at a time, so a slab of a box far larger than memory
can be shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import matplotlib
import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.store.box import AXES, Box

matplotlib.use("Agg")

PIXELS = 1024
"""Most pixels of a panel's side; larger slabs are averaged down to it."""

TITLES = {"dm": "dark matter", "tb": "21 cm brightness temperature"}
LABELS = {
    "dm": r"$1+\delta$",
    "halo": r"$\rho_h$  [$(M_\odot/h)\,/\,(\mathrm{Mpc}/h)^3$]",
    "tb": r"$T_b$  [mK]",
}
MAPS = {"dm": "cividis", "halo": "cividis", "tb": "magma"}  # readable by the colour-blind


@dataclass(frozen=True)
class Slab:
    """The voxels [first, first + count) on one axis of a box, 0 = x."""

    axis: int
    first: int
    count: int

    def cut(self) -> tuple[slice, slice, slice]:
        """The slab as slices of (nx, ny, nz)."""
        cut = [slice(None)] * 3
        cut[self.axis] = slice(self.first, self.first + self.count)
        return cut[0], cut[1], cut[2]


def slab_of(box: Box, axis: str, at: float | None, thickness: float | None) -> Slab:
    """The slab around ``at`` (its middle, Mpc/h; the box's if None), at least one voxel thick.

    BadInput for an axis, a place or a thickness (Mpc/h) outside the box.
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


def slab_image(array: Any, slab: Slab, pixels: int = PIXELS) -> NDArray[np.float32]:
    """Mean over a slab of a zarr array (nx, ny, nz), float32 (rows, columns) of the other two axes.

    Sides of more than ``pixels`` voxels are averaged down; a pixel with a NaN voxel is NaN.
    """
    data = da.from_array(array, chunks=array.chunks, asarray=True)[slab.cut()]
    image = data.mean(axis=slab.axis, dtype=np.float64)
    factor = max(1, -(-max(image.shape) // pixels))
    if factor > 1:
        image = da.coarsen(
            np.mean,
            image.rechunk(_aligned(image, factor)),
            {0: factor, 1: factor},
            trim_excess=True,
        )
    (done,) = dask.compute(image, num_workers=2)
    return np.asarray(done, dtype=np.float32)


def _aligned(image: Any, factor: int) -> tuple[int, ...]:
    """Chunks that hold whole pixels."""
    return tuple(max(factor, size[0] // factor * factor) for size in image.chunks)


def panels(box: Box, slab: Slab) -> dict[str, NDArray[np.float32]]:
    """What the box has to show, by the panel's name: dm, halo 0..3, tb."""
    box.require("dm")
    found = {"dm": slab_image(box.array("dm"), slab)}
    if box.has("halo"):
        halo = box.require("halo")
        for channel in range(halo.shape[0]):
            found[f"halo {channel}"] = slab_image(_Channel(halo, channel), slab)
    if box.has("tb"):
        found["tb"] = slab_image(box.require("tb"), slab)
    return found


class _Channel:
    """One channel of a (channels, nx, ny, nz) array, as an array of its own that dask can cut."""

    def __init__(self, array: Any, channel: int):
        self._array, self._channel = array, channel
        self.shape, self.chunks = array.shape[1:], array.chunks[1:]
        self.dtype, self.ndim = array.dtype, 3

    def __getitem__(self, cut: tuple[slice, ...]) -> NDArray[np.float32]:
        return np.asarray(self._array[(self._channel, *cut)])


def plot(
    box: Box,
    out: Path,
    *,
    axis: str = "z",
    at: float | None = None,
    thickness: float | None = None,
) -> list[str]:
    """Write the picture; returns the names of its panels. ``at``, ``thickness``: Mpc/h."""
    from matplotlib.figure import Figure

    slab = slab_of(box, axis, at, thickness)
    images = panels(box, slab)
    across, up = (i for i in range(3) if i != slab.axis)
    extent = (0.0, box.box_size[across], 0.0, box.box_size[up])
    figure = Figure(figsize=(5.2 * len(images), 5.2), layout="constrained")
    axes = figure.subplots(1, len(images), sharey=True, squeeze=False)[0]
    for place, (name, image) in zip(axes, images.items(), strict=True):
        kind = name.split()[0]
        shown = place.imshow(
            np.ma.masked_invalid(image.T),
            origin="lower",
            extent=extent,
            norm=_norm(kind, image),
            cmap=matplotlib.colormaps[MAPS[kind]].with_extremes(bad="0.75"),
            interpolation="nearest",
        )
        place.set_title(TITLES.get(name, f"haloes, mass bin {name.split()[-1]}"))
        place.set_xlabel(f"{AXES[across]}  [Mpc/h]")
        figure.colorbar(shown, ax=place, label=LABELS[kind], shrink=0.85, extend="both")
    axes[0].set_ylabel(f"{AXES[up]}  [Mpc/h]")
    low, high = slab.first * box.voxel, (slab.first + slab.count) * box.voxel
    unpainted = "tb" in images and bool(np.isnan(images["tb"]).any())
    figure.suptitle(
        f"{box.path.name}, z = {box.redshift:g}: mean over {axis} = {low:.4g} to {high:.4g} Mpc/h"
        + (" (grey: not painted yet)" if unpainted else "")
    )
    try:
        figure.savefig(out, dpi=110)
    except (OSError, ValueError) as error:
        raise BadInput(f"{out}: cannot be written ({error})") from None
    return list(images)


def _norm(kind: str, image: NDArray[np.float32]) -> Any:
    """The scale of a panel: logarithmic for densities, linear in the bulk of T_b."""
    from matplotlib.colors import AsinhNorm, LogNorm

    seen = image[np.isfinite(image)]
    if kind == "tb":
        if not seen.size:
            return None
        low, middle, high = np.percentile(seen, (0.5, 50, 99.8))
        width = max(float(middle - low), 1e-6)
        return AsinhNorm(linear_width=width, vmin=float(low), vmax=max(float(high), low + width))
    positive = seen[seen > 0]
    if not positive.size:
        return None
    low, high = np.percentile(positive, (1, 99.9))
    return LogNorm(float(low), max(float(high), 1.01 * float(low)), clip=True)
