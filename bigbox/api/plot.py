"""`bigbox.plot`: the same slab of a box's input and output."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bigbox.errors import BadInput

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

    from bigbox.store.box import Box

PathLike = str | Path


@dataclass(frozen=True)
class Picture:
    """Slabs of a box, averaged; a notebook shows the picture that `bigbox plot` writes."""

    box: Path
    axis: str  # across which the slab is cut
    slab: tuple[float, float]  # where it begins and ends, Mpc/h
    extent: tuple[float, float, float, float]  # of the images, Mpc/h
    images: dict[str, npt.NDArray[np.float32]]  # by name of the panel: "dm", "halo 0", "tb"
    out: Path | None  # the file, where one was written
    drawn: dict[str, Any] = field(default_factory=dict, repr=False)  # what is shown
    look: dict[str, Any] = field(default_factory=dict, repr=False)  # and how

    def to_xarray(self) -> xarray.Dataset:
        """Return the images over the two axes in the slab, Mpc/h."""
        import xarray

        across, up = (name for name in "xyz" if name != self.axis)
        low, right, bottom, top = self.extent
        found = xarray.Dataset()
        for name, image in self.images.items():
            sides = zip((across, up), ((low, right), (bottom, top)), image.shape, strict=True)
            at = {
                axis: (axis, a + (np.arange(n) + 0.5) * (b - a) / n, {"units": "Mpc/h"})
                for axis, (a, b), n in sides
            }
            found[name.replace(" ", "_")] = xarray.DataArray(image, at, (across, up))
        return found.assign_attrs(slab=self.slab, axis=self.axis)

    def plot(self, ax: Axes | None = None, name: str | None = None, **more: Any) -> Axes:
        """Draw one of the images; return the axes, new ones if None.

        name: of the panel; the last one if None. more: as for `AxesImage.set`: cmap, norm, clim.
        """
        from bigbox.analysis.maps.panel import AXIS_LABELS, LABELS, draw_map, norm_of, ticks_of
        from bigbox.analysis.spectra.shown import axes_of

        chosen = name or list(self.images)[-1]
        chosen = "halo 0" if chosen == "halo" and "halo 0" in self.images else chosen
        if chosen not in self.images:
            raise BadInput(f"picture: has no {chosen!r}, but {', '.join(self.images)}")
        image, kind, place = self.images[chosen], chosen.split()[0], axes_of(ax)
        shown = draw_map(place, image, kind, norm_of(kind, image), self.extent)
        shown.set(**more)
        across, up = (i for i, axis in enumerate("xyz") if axis != self.axis)
        place.set(xlabel=AXIS_LABELS[across], ylabel=AXIS_LABELS[up])
        if place.figure is not None:
            label, ticks = LABELS.get(kind, kind), ticks_of(shown.norm)
            place.figure.colorbar(shown, ax=place, label=label, extend="both", ticks=ticks)
        return place

    def _repr_png_(self) -> bytes:
        """Return the picture for a notebook."""
        if self.out is not None and self.out.suffix == ".png":
            return self.out.read_bytes()
        from bigbox.store.box import Box

        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "picture.png"
            _draw(Box.open(self.box), out, self.drawn, self.look)
            return out.read_bytes()


def plot(
    box: PathLike,
    out: PathLike | None = None,
    *,
    realization: int = 0,
    axis: str = "z",
    at: float | None = None,
    thickness: float | None = None,
    window: tuple[tuple[float, float], tuple[float, float]] | None = None,
    array: Sequence[str] | None = None,
    frames: int | None = None,
    log: bool = False,
    mark_tiles: bool = False,
    grid: str = "dm",
    cmap: str | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    dpi: int = 110,
) -> Picture:
    """Cut a slab out of a box and average over it; write the picture where `out` is given.

    Only the slab is read. In a notebook what is returned shows itself.

    Parameters
    ----------
    box : The box.
    out : The picture's file, PNG, PDF or SVG. None: none is written.
    realization : Of tb.
    axis, at, thickness : Across which the slab is cut, its middle (None: the box's) and thickness
        (None: one voxel), Mpc/h.
    window : What is shown of it, Mpc/h on the two other axes: ((0, 5), (2.5, 7.5)).
    array : Names of the arrays. None: the box's input, and tb where there is one.
    frames : Of a film through the box along the axis; `out` is a GIF or MP4.
    log, cmap, vmin, vmax : Of the colours of all panels: logarithmic, name, ends.
    dpi : Dots an inch.
    mark_tiles : Mark where painted tiles meet.
    grid : "dm" or "painted", as for `bigbox.open`.

    Raises
    ------
    BadInput
        A ValueError: no such box, a slab outside of it, a file that cannot be written.

    Examples
    --------
    >>> import bigbox
    >>> picture = bigbox.plot("small.zarr", thickness=0.5, array=["dm"])
    >>> picture.to_xarray().dm.sizes["x"]
    64
    """
    from bigbox.analysis.maps.slab import panels, slab_of
    from bigbox.store.box import Box, realization_path

    opened = Box.open(realization_path(box, realization))
    if array is None:
        opened.require_input()
    drawn = {"axis": axis, "at": at, "thickness": thickness, "window": window, "arrays": array}
    look = {"log": log, "mark_tiles": mark_tiles, "grid": grid, "cmap": cmap}
    look |= {"vmin": vmin, "vmax": vmax, "dpi": dpi}
    if out is not None:
        _draw(opened, Path(out), {**drawn, "frames": frames}, look)
    slab = slab_of(opened, axis, at, thickness, window)
    left, right, bottom, top = slab.sides(opened)
    return Picture(
        opened.place,
        axis,
        slab.extent(opened.voxel),
        (left, right, bottom, top),
        panels(opened, slab, array, grid),
        None if out is None else Path(out),
        drawn,
        look,
    )


def _draw(box: Box, out: Path, drawn: dict[str, Any], look: dict[str, Any]) -> None:
    from bigbox.analysis.maps.picture import Look
    from bigbox.analysis.maps.picture import plot as draw

    draw(box, out, look=Look(**look), **drawn)
