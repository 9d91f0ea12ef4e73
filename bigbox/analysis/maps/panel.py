"""Draw one panel: a map in its colours, the ticks of their scale, marks at the tiles' corners."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import AsinhNorm, LogNorm, Normalize
from numpy.typing import NDArray

from bigbox.analysis.seams.cells import Layers
from bigbox.scheduler.tiling import Tiling

Corners = tuple[NDArray[np.float64], NDArray[np.float64]]

LABELS = {
    "dm": r"$1+\delta$",
    "halo": r"$\rho_h$  [$(M_\odot/h)\,/\,(\mathrm{Mpc}/h)^3$]",
    "tb": r"$T_b$  [mK]",
}
MANY_DECADES = 100.0  # brightest T_b over the median, from which colours are logarithmic
MARK = "#00ff7f"  # tile corners: seen on every colour of the maps
MAPS = {"dm": "cividis", "halo": "cividis", "tb": "magma"}  # readable by the colour-blind


def tile_corners(tiling: Tiling, axis: int, voxel: float, grid: int = 1) -> Corners:
    """Return where tiles meet (Mpc/h) on a map across `axis`, as two grids.

    voxel: of dm, Mpc/h; grid: voxels of dm on an axis for one of the tiling's. Of these the first
    has the centre of the first of dm.
    """
    seams = (Layers.of(tiling, a).seams for a in range(3) if a != axis)
    across, up = ((grid * planes - (grid - 1) / 2) * voxel for planes in seams)
    x, y = np.meshgrid(across, up)
    return x, y


def draw_map(
    place: Any,
    image: NDArray[np.float32],
    kind: str,
    norm: Any,
    extent: tuple[float, float, float, float],
    corners: Corners | None,
) -> Any:
    """Draw a map (rows, columns) with crosses at `corners` (paper's figure 8), NaN in grey."""
    shown = place.imshow(
        np.ma.masked_invalid(image.T),
        origin="lower",
        extent=extent,
        norm=norm,
        cmap=matplotlib.colormaps[MAPS.get(kind, "cividis")].with_extremes(bad="0.75"),
        interpolation="nearest",
    )
    if corners is not None:
        limits = place.get_xlim(), place.get_ylim()
        x, y = corners
        place.plot(x.ravel(), y.ravel(), "+", color=MARK, markersize=6, markeredgewidth=1)
        place.set(xlim=limits[0], ylim=limits[1])
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


def norm_of(kind: str, image: NDArray[np.float32], log: bool = False) -> Any:
    """Choose a panel's scale: logarithmic for densities, linear in the bulk of T_b, else linear.

    log: logarithmic whatever it is; values of zero and less get the colour of the least shown.
    """
    seen = image[np.isfinite(image)]
    densities = log or kind in ("dm", "halo")
    if densities:
        seen = seen[seen > 0]
    if not seen.size:
        return None
    if densities:
        low, high = np.percentile(seen, (10, 99.9))
        if kind == "halo":  # what lies far under the densest is the smoothing's tail
            low = max(low, 1e-4 * high)
        return LogNorm(float(low), max(float(high), 1.01 * float(low)), clip=True)
    if kind != "tb":
        low, high = np.percentile(seen, (0.5, 99.5))
        return Normalize(float(low), max(float(high), float(low) + 1e-30))
    low, middle, high = np.percentile(seen, (0.5, 50, 99.8))
    if low >= 0 and high > MANY_DECADES * middle:  # haloes in empty space
        return LogNorm(1e-4 * float(high), float(high), clip=True)
    width = max(float(middle - low), 1e-6)
    return AsinhNorm(linear_width=width, vmin=float(low), vmax=max(float(high), low + width))
