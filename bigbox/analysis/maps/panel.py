"""Draw one panel: a map in its colours, the ticks of their scale, lines where tiles meet."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import AsinhNorm, LogNorm, Normalize
from numpy.typing import NDArray

from bigbox.analysis.seams.cells import Layers
from bigbox.scheduler.tiling import Tiling

Edges = tuple[NDArray[np.float64], NDArray[np.float64]]

LABELS = {
    "dm": r"$1+\delta$",
    "halo": r"$\rho_h$  [$(M_\odot/h)\,/\,(\mathrm{Mpc}/h)^3$]",
    "tb": r"$T_b$  [mK]",
}
AXIS_LABELS = ("first axis  [Mpc/$h$]", "second axis  [Mpc/$h$]", "third axis  [Mpc/$h$]")
MANY_DECADES = 100.0  # brightest T_b over the median, from which colours are logarithmic
FLOOR = 1e-3  # of the brightest T_b: what is fainter has the colour of the least
MARK = "#00ff7f"  # where tiles meet: seen on every colour of the maps
MAPS = {"dm": "cividis", "halo": "cividis", "tb": "magma"}  # readable by the colour-blind
TILED = ("tb",)  # arrays that are made of tiles


def tile_edges(tiling: Tiling, axis: int, voxel: float, grid: int = 1) -> Edges:
    """Return where tiles meet (Mpc/h) on a map across `axis`, on each of the map's axes.

    voxel: of dm, Mpc/h; grid: voxels of dm on an axis for one of the tiling's. Of these the first
    has the centre of the first of dm.
    """
    seams = (Layers.of(tiling, a).seams for a in range(3) if a != axis)
    across, up = (
        np.asarray((grid * planes - (grid - 1) / 2) * voxel, np.float64) for planes in seams
    )
    return across, up


def draw_map(
    place: Any,
    image: NDArray[np.float32],
    kind: str,
    norm: Any,
    extent: tuple[float, float, float, float],
    edges: Edges | None = None,
    cmap: str | None = None,
) -> Any:
    """Draw a map (rows, columns), NaN in grey; with lines at `edges` where the field has tiles."""
    shown = place.imshow(
        np.ma.masked_invalid(image.T),
        origin="lower",
        extent=extent,
        norm=norm,
        cmap=matplotlib.colormaps[cmap or MAPS.get(kind, "cividis")].with_extremes(bad="0.75"),
        interpolation="nearest",
    )
    if edges is not None and kind in TILED:
        for lines, draw in zip(edges, (place.axvline, place.axhline), strict=True):
            for at in lines.tolist():
                draw(at, color=MARK, lw=0.6, alpha=0.8)
        place.set(xlim=extent[:2], ylim=extent[2:])
    return shown


def ticks_of(norm: Any, apart: float = 0.08) -> list[float] | None:
    """Choose ticks of an arcsinh scale, at least `apart` of its length from each other; else None.

    Zero, and powers of ten of both signs, the larger ones first: near zero the scale is linear, and
    matplotlib's own ticks print over each other there.
    """
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


def norm_of(
    kind: str,
    image: NDArray[np.float32],
    log: bool = False,
    vmin: float | None = None,
    vmax: float | None = None,
) -> Any:
    """Choose a panel's scale: logarithmic for densities, linear in the bulk of T_b, else linear.

    log: logarithmic whatever it is; values of zero and less get the colour of the least shown.
    vmin, vmax: the ends, in the place of those that the image has. None where nothing can be shown.
    """
    seen = image[np.isfinite(image)]
    densities = log or kind in ("dm", "halo")
    if densities:
        seen = seen[seen > 0]
    if not seen.size:
        return None

    def ends(low: float, high: float, least: float) -> tuple[float, float]:
        low = float(low) if vmin is None else vmin
        high = float(high) if vmax is None else vmax
        return low, max(high, low + least)

    if densities:
        low, high = np.percentile(seen, (10, 99.9))
        if kind == "halo":  # what lies far under the densest is the smoothing's tail
            low = max(low, 1e-4 * high)
        low, high = ends(low, high, 0.0)
        return LogNorm(low, max(high, 1.01 * low), clip=True) if low > 0 else Normalize(low, high)
    if kind != "tb":
        low, high = np.percentile(seen, (0.5, 99.5))
        return Normalize(*ends(low, high, 1e-30))
    low, middle, high = np.percentile(seen, (0.5, 50, 99.8))
    if low >= -1e-6 * high and high > MANY_DECADES * middle:  # haloes in empty space
        low, high = ends(FLOOR * high, high, 0.0)
        if low > 0:
            return LogNorm(low, max(high, 1.01 * low), clip=True)
    width = max(float(middle - low), 1e-6)
    low, high = ends(low, high, width)
    return AsinhNorm(linear_width=width, vmin=low, vmax=high)
