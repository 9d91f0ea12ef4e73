"""Draw the same slab of a box's input and output side by side: PNG, PDF, SVG, or a film."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bigbox.analysis.maps.panel import (
    AXIS_LABELS,
    LABELS,
    Edges,
    draw_map,
    norm_of,
    ticks_of,
    tile_edges,
)
from bigbox.analysis.maps.slab import Slab, panels, slab_of
from bigbox.analysis.maps.titles import halo_title, slab_words
from bigbox.errors import BadInput
from bigbox.ingest.workfolder import work_folder
from bigbox.store.box import Box
from bigbox.store.durable import DISK
from bigbox.store.fields import AXES
from bigbox.store.ledger import Ledger
from bigbox.store.recorded import painting_of

TITLES = {"dm": "dark matter", "tb": "21 cm brightness temperature"}
COLUMNS = 3  # panels beside each other
DPI = 110
STILLS, FILMS = (".png", ".pdf", ".svg"), (".gif", ".mp4")
FILM_PIXELS = 512  # most of a panel's side in a film, all of whose images are held
RATE = 12  # frames a second
Images = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Look:
    """How a picture looks; None: as the values ask for.

    log: logarithmic colours for all panels. mark_tiles: lines where tb's tiles meet. vmin, vmax:
    ends of the colours, of all panels. grid: "dm" or "painted", as for `Box.view`.
    """

    log: bool = False
    mark_tiles: bool = False
    grid: str = "dm"
    cmap: str | None = None
    vmin: float | None = None
    vmax: float | None = None
    dpi: int = DPI

    def __post_init__(self) -> None:
        if self.cmap is not None and self.cmap not in matplotlib.colormaps:
            raise BadInput(f"--cmap {self.cmap}: is no colour map of matplotlib; viridis is one")
        if self.vmin is not None and self.vmax is not None and self.vmin >= self.vmax:
            raise BadInput(f"--vmin {self.vmin:g}: must be below --vmax {self.vmax:g}")


def plot(
    box: Box,
    out: Path,
    *,
    axis: str = "z",
    at: float | None = None,
    thickness: float | None = None,
    window: tuple[tuple[float, float], tuple[float, float]] | None = None,
    arrays: Sequence[str] | None = None,
    frames: int | None = None,
    look: Look | None = None,
) -> list[str]:
    """Write the picture; return the names of its panels.

    at, thickness: middle and thickness of the slab, Mpc/h. window: what is shown of it, Mpc/h on
    the two other axes. arrays: the box's input and tb if None. frames: of a film through the box
    along the axis, a GIF or MP4.
    """
    look = look or Look()
    endings = STILLS if frames is None else FILMS
    if out.suffix.lower() not in endings:
        what = "picture is" if frames is None else "film (--frames) is"
        raise BadInput(f"{out}: a {what} one of {', '.join(e[1:].upper() for e in endings)}")
    slab = slab_of(box, axis, at, thickness, window)
    edges = _edges(box, slab) if look.mark_tiles else None
    if frames is None:
        images = panels(box, slab, arrays, look.grid)
        sheet = _Sheet(box, slab, images, look, edges)
        _written(out, lambda place: sheet.figure.savefig(place, dpi=look.dpi))
        return list(images)
    slabs = [
        Slab(slab.axis, int(first), slab.count, slab.window)
        for first in np.linspace(0, box.shape[slab.axis] - slab.count, frames).round()
    ]
    every = [panels(box, one, arrays, look.grid, FILM_PIXELS) for one in slabs]
    whole = {name: np.stack([images[name] for images in every]) for name in every[0]}
    sheet = _Sheet(box, slabs[0], every[0], look, edges, whole)
    _written(out, lambda place: _film(place, sheet, slabs, every, look.dpi))
    return list(whole)


def _written(out: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside its place, then put it there: an older one stays, or is replaced."""
    work = work_folder(out)
    try:
        work.mkdir()
        write(work / out.name)
        DISK.write_atomic(out, (work / out.name).read_bytes(), work / "whole")
    except BadInput:
        raise
    except (OSError, ValueError) as error:
        raise BadInput(f"{out}: cannot be written ({error})") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _film(
    out: Path, sheet: _Sheet, slabs: Sequence[Slab], every: Sequence[Images], dpi: int
) -> None:
    """Write the frames, one after the other."""
    from matplotlib import animation

    kind = animation.PillowWriter if out.suffix.lower() == ".gif" else animation.FFMpegWriter
    if not kind.isAvailable():
        raise BadInput(f"{out}: MP4 needs the program ffmpeg, which is not there; write a .gif")
    writer = kind(fps=RATE)
    with writer.saving(sheet.figure, str(out), dpi):
        for slab, images in zip(slabs, every, strict=True):
            sheet.show(slab, images)
            writer.grab_frame()


def _edges(box: Box, slab: Slab) -> Edges:
    found = painting_of(box)
    if found is None:
        raise BadInput(f"{box.place}: is not painted, so it has no tiles to mark")
    layout = found.layout
    return tile_edges(layout.tiling, slab.axis, box.voxel, layout.grid)


class _Sheet:
    """A figure of panels; whole: images that set the colours, by name, those shown if None."""

    def __init__(
        self,
        box: Box,
        slab: Slab,
        images: Images,
        look: Look,
        edges: Edges | None,
        whole: Images | None = None,
    ) -> None:
        self.box, self.look = box, look
        columns = min(len(images), COLUMNS)
        rows = -(-len(images) // columns)
        left, right, bottom, top = extent = slab.sides(box)
        # A panel is 3.8 inches wide; beside it stand its colours.
        height = 3.8 * min(2.0, max(0.4, (top - bottom) / (right - left)))
        size = (5.2 * columns, (height + 0.7) * rows + 0.4)
        self.figure = Figure(figsize=size, layout="constrained")
        places = self.figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for empty in places.flat[len(images) :]:
            empty.remove()
        norms = _norms(whole or images, look)
        self.shown = {}
        for place, (name, image) in zip(places.flat, images.items(), strict=False):
            kind = name.split()[0]
            shown = draw_map(place, image, kind, norms[name], extent, edges, look.cmap)
            place.set_title(_title(box, name))
            if kind == "halo" and not np.nansum(image) > 0 and whole is None:
                middle = {"ha": "center", "va": "center", "transform": place.transAxes}
                place.text(0.5, 0.5, "no haloes", color="0.85", **middle)
            label, ticks = _label(box, kind), ticks_of(shown.norm)
            self.figure.colorbar(
                shown, ax=place, label=label, shrink=0.85, extend="both", ticks=ticks
            )
            self.shown[name] = shown
        across, up = slab.across
        for place in places.flat[max(0, len(images) - columns) : len(images)]:
            place.set_xlabel(AXIS_LABELS[across])
            place.tick_params(labelbottom=True)
        for place in places[:, 0]:
            place.set_ylabel(AXIS_LABELS[up])
        self._head(slab, images)

    def show(self, slab: Slab, images: Images) -> None:
        """Put another slab in the place of the one that is shown."""
        for name, image in images.items():
            self.shown[name].set_data(np.ma.masked_invalid(image.T))
        self._head(slab, images)

    def _head(self, slab: Slab, images: Images) -> None:
        low, high = slab.extent(self.box.voxel)
        unpainted = "tb" in images and bool(np.isnan(images["tb"]).any())
        self.figure.suptitle(
            f"{self.box.stem}, redshift {self.box.redshift:g}; "
            f"mean over the {slab_words(AXES[slab.axis], low, high)}"
            + (" (grey: not painted yet, or lost)" if unpainted else "")
            + _forced(self.box, images),
            fontsize="medium",
        )


def _norms(images: Images, look: Look) -> dict[str, Any]:
    """Choose the colours of every panel: those of all mass bins are one scale."""
    haloes = [image.ravel() for name, image in images.items() if name.split()[0] == "halo"]
    together = np.concatenate(haloes) if haloes else np.empty(0, np.float32)
    ends = (look.log, look.vmin, look.vmax)
    return {
        name: norm_of("halo", together, *ends)
        if name.split()[0] == "halo"
        else norm_of(name.split()[0], image, *ends)
        for name, image in images.items()
    }


def _title(box: Box, name: str) -> str:
    if name == "tb" and (run := Ledger(box.place).run()):
        return f"{TITLES[name]} ({run['identity'].get('painter', 'unknown')} painter)"
    if not name.startswith("halo "):
        return TITLES.get(name, name)
    return halo_title(box, int(name.split()[-1]))


def _forced(box: Box, shown: Mapping[str, Any]) -> str:
    """Say on a line of its own where --force has passed over what the model knows."""
    names = {name.split()[0] for name in shown}
    told = (box.array(name).attrs.get("forced") for name in sorted(names) if box.has(name))
    return "".join(f"\n{words}" for words in dict.fromkeys(told) if words)


def _label(box: Box, kind: str) -> str:
    """Say what the colours mean, with its unit."""
    if kind in LABELS:
        return LABELS[kind]
    about = box.array(kind).attrs
    return f"{about.get('long_name') or kind}  [{about.get('units') or '1'}]"
