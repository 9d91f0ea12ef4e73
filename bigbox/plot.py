"""A picture of a box: the same slab of its input and output side by side, as PNG.

    reads   dm[:, :, k:k+d]  ──mean over the slab──►  (nx, ny)  ──mean over f x f──►  at most 1024²

Only the chunks under the slab are read, a few at a time, so a slab of a box far larger than memory
can be shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import matplotlib
import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.physics.mass_bins import HALO_EDGES
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.store.fields import AXES, FIELDS, known_field
from bigbox.store.ledger import Ledger

matplotlib.use("Agg")

PIXELS = 1024
"""Most pixels of a panel's side; larger slabs are averaged down to it."""

TITLES = {"dm": "dark matter", "tb": "21 cm brightness temperature"}
LABELS = {
    "dm": r"$1+\delta$",
    "halo": r"$\rho_h$  [$(M_\odot/h)\,/\,(\mathrm{Mpc}/h)^3$]",
    "tb": r"$T_b$  [mK]",
}
COLUMNS = 3  # panels beside each other
MANY_DECADES = 100.0  # brightest T_b over the median, from which colours are logarithmic
MARK = "#00ff7f"  # tile corners: seen on every colour of the maps
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
    try:
        (done,) = dask.compute(image, num_workers=2)
    except (ValueError, OSError) as error:  # what zarr raises for a chunk that is damaged
        why = " ".join(str(error).split())
        raise BadInput(
            f"a chunk under the slab cannot be read ({why}): bigbox verify tells which"
        ) from None
    return np.asarray(done, dtype=np.float32)


def _aligned(image: Any, factor: int) -> tuple[int, ...]:
    """Chunks that hold whole pixels."""
    return tuple(max(factor, size[0] // factor * factor) for size in image.chunks)


def panels(
    box: Box, slab: Slab, arrays: Sequence[str] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Slabs by the panel's name, a channel a panel: of `arrays`, or of dm, halo and tb."""
    if arrays is None:
        box.require("dm")
        arrays = [field.name for field in FIELDS if field.spans_box and box.has(field.name)]
    found = {}
    for name in arrays:
        array = box.require(name) if known_field(name) else box.array(name)
        if tuple(array.shape[-3:]) != box.shape or array.ndim > 4:
            raise BadInput(f"{box.path}/{name}: has shape {array.shape}, no field over the box")
        if array.ndim == 3:
            found[name] = slab_image(array, slab)
            continue
        for channel in range(array.shape[0]):
            found[f"{name} {channel}"] = slab_image(Channel(array, channel), slab)
    return found


def owner_edges(tiling: Tiling, axis: int) -> NDArray[np.int64]:
    """First voxel of each run of voxels that one tile owns, along one axis: where seams would be.

    owners   0 0 0 0 1 1 2 2 2 3      edges  0 (a periodic box), 4, 6, 9
    """
    voxels = np.zeros((tiling.shape[axis], 3), np.int64)
    voxels[:, axis] = np.arange(tiling.shape[axis])
    owner = tiling.coords(tiling.owner(voxels))[:, axis]
    before = np.roll(owner, 1)
    if not tiling.periodic[axis]:
        before[0] = owner[0]
    return np.flatnonzero(owner != before).astype(np.int64)


class Channel:
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
    arrays: Sequence[str] | None = None,
    log: bool = False,
    mark_tiles: bool = False,
) -> list[str]:
    """Write the picture; returns the names of its panels. ``at``, ``thickness``: Mpc/h.

    arrays: names of arrays, dm, halo and tb if None; log: logarithmic colours for all of them;
    mark_tiles: crosses at the corners of the tiles that tb was painted in.
    """
    from matplotlib.figure import Figure

    slab = slab_of(box, axis, at, thickness)
    run = Ledger(box.place).run() if mark_tiles else None
    if mark_tiles and run is None:
        raise BadInput(f"{box.place}: is not painted, so it has no tiles to mark")
    images = panels(box, slab, arrays)
    across, up = (i for i in range(3) if i != slab.axis)
    extent = (0.0, box.box_size[across], 0.0, box.box_size[up])
    columns = min(len(images), COLUMNS)
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(5.2 * columns, 4.9 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for empty in grid.flat[len(images) :]:
        empty.remove()
    axes = grid.flat[: len(images)]
    for place, (name, image) in zip(axes, images.items(), strict=True):
        kind = name.split()[0]
        shown = place.imshow(
            np.ma.masked_invalid(image.T),
            origin="lower",
            extent=extent,
            norm=norm_of(kind, image, log),
            cmap=matplotlib.colormaps[MAPS.get(kind, "cividis")].with_extremes(bad="0.75"),
            interpolation="nearest",
        )
        place.set_title(_title(box, name))
        figure.colorbar(
            shown,
            ax=place,
            label=_label(box, kind),
            shrink=0.85,
            extend="both",
            ticks=ticks_of(shown.norm),
        )
        if run is not None:
            tiling = Tiling.from_dict(run["tiling"])
            corners = np.meshgrid(*(owner_edges(tiling, a) * box.voxel for a in (across, up)))
            mark_corners(place, corners[0], corners[1])
    for place in grid[-1]:
        place.set_xlabel(f"{AXES[across]}  [Mpc/h]")
    for place in grid[:, 0]:
        place.set_ylabel(f"{AXES[up]}  [Mpc/h]")
    low, high = slab.first * box.voxel, (slab.first + slab.count) * box.voxel
    unpainted = "tb" in images and bool(np.isnan(images["tb"]).any())
    figure.suptitle(
        f"{box.stem}{box.path.suffix}, redshift {box.redshift:g}: "
        f"mean over {axis} = {low:.4g} to {high:.4g} Mpc/h"
        + (" (grey: not painted yet)" if unpainted else "")
    )
    try:
        figure.savefig(out, dpi=110)
    except (OSError, ValueError) as error:
        raise BadInput(f"{out}: cannot be written ({error})") from None
    return list(images)


def _title(box: Box, name: str) -> str:
    if name == "tb" and (run := Ledger(box.place).run()):
        return f"{TITLES[name]} ({run['identity'].get('painter', 'unknown')} painter)"
    if name.startswith("halo "):
        return _mass_bin(box, int(name.split()[-1]))
    return TITLES.get(name, name)


def _mass_bin(box: Box, channel: int) -> str:
    """Which haloes a channel holds, in M_sun/h."""
    told: dict[str, Any] = box.array("halo").attrs.asdict()
    edges = told.get("mass_edges")
    if edges is None:
        return f"haloes, mass bin {channel}"
    lower = _mass(edges[channel])
    if channel == len(HALO_EDGES) - 1:
        return rf"haloes above {lower} $M_\odot/h$"
    return rf"haloes of {lower} to {_mass(edges[channel + 1])} $M_\odot/h$"


def _mass(value: float) -> str:
    power = math.floor(math.log10(value) + 1e-9)
    factor = round(value / 10**power, 2)
    return f"$10^{{{power}}}$" if factor == 1 else rf"{factor:g}$\times10^{{{power}}}$"


def _label(box: Box, kind: str) -> str:
    """What the colours mean, with its unit."""
    if kind in LABELS:
        return LABELS[kind]
    about = box.array(kind).attrs
    return f"{about.get('long_name') or kind}  [{about.get('units') or '1'}]"


def mark_corners(place: Any, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """Crosses at the corners of tiles (paper's figure 8), which leave the panel's limits alone."""
    limits = place.get_xlim(), place.get_ylim()
    place.plot(x.ravel(), y.ravel(), "+", color=MARK, markersize=6, markeredgewidth=1)
    place.set(xlim=limits[0], ylim=limits[1])


def ticks_of(norm: Any, apart: float = 0.08) -> list[float] | None:
    """Ticks of an arcsinh scale, at least `apart` of its length from each other; else None.

    Zero, and powers of ten of both signs, the larger ones first: near zero the scale is linear, and
    matplotlib's own ticks print over each other there.
    """
    from matplotlib.colors import AsinhNorm

    if not isinstance(norm, AsinhNorm) or norm.vmin is None or norm.vmax is None:
        return None
    largest = math.ceil(math.log10(max(abs(norm.vmin), abs(norm.vmax))))
    powers = [10.0**n for n in range(largest, largest - 6, -1)]
    wanted = [0.0, *(sign * power for power in powers for sign in (1, -1))]
    ticks: list[float] = []
    for tick in wanted:
        place = float(norm(tick))
        if norm.vmin <= tick <= norm.vmax and all(abs(place - norm(t)) >= apart for t in ticks):
            ticks.append(tick)
    return sorted(ticks)


def norm_of(kind: str, image: NDArray[np.float32], log: bool = False) -> Any:
    """The scale of a panel: logarithmic for densities, linear in the bulk of T_b, else linear.

    log: logarithmic whatever it is; values of zero and less get the colour of the least shown.
    """
    from matplotlib.colors import AsinhNorm, LogNorm, Normalize

    seen = image[np.isfinite(image)]
    if kind not in LABELS and not log:
        if not seen.size:
            return None
        low, high = np.percentile(seen, (0.5, 99.5))
        return Normalize(float(low), max(float(high), float(low) + 1e-30))
    if kind == "tb" and not log:
        if not seen.size:
            return None
        low, middle, high = np.percentile(seen, (0.5, 50, 99.8))
        if low >= 0 and high > MANY_DECADES * middle:  # haloes in empty space
            return LogNorm(1e-4 * float(high), float(high), clip=True)
        width = max(float(middle - low), 1e-6)
        return AsinhNorm(linear_width=width, vmin=float(low), vmax=max(float(high), low + width))
    positive = seen[seen > 0]
    if not positive.size:
        return None
    low, high = np.percentile(positive, (10, 99.9))
    if kind == "halo":  # what lies far under the densest is the smoothing's tail
        low = max(low, 1e-4 * high)
    return LogNorm(float(low), max(float(high), 1.01 * float(low)), clip=True)
