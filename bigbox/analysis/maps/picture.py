"""Draw the same slab of a box's input and output side by side, as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bigbox.analysis.maps.panel import LABELS, draw_map, norm_of, ticks_of, tile_corners
from bigbox.analysis.maps.slab import panels, slab_of
from bigbox.errors import BadInput
from bigbox.ingestion.workfolder import work_folder
from bigbox.physics.mass_bins import HALO_EDGES
from bigbox.store.box import Box
from bigbox.store.durable import DISK
from bigbox.store.fields import AXES
from bigbox.store.ledger import Ledger
from bigbox.store.recorded import painting_of

TITLES = {"dm": "dark matter", "tb": "21 cm brightness temperature"}
COLUMNS = 3  # panels beside each other


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
    grid: str = "dm",
) -> list[str]:
    """Write the picture; return the names of its panels.

    at, thickness: middle and thickness of the slab, Mpc/h. arrays: dm, halo and tb if None.
    log: logarithmic colours for all of them. mark_tiles: crosses at the corners of tb's tiles.
    grid: "dm" or "painted", as for `Box.view`.
    """
    slab = slab_of(box, axis, at, thickness)
    corners = None
    if mark_tiles:
        found = painting_of(box)
        if found is None:
            raise BadInput(f"{box.place}: is not painted, so it has no tiles to mark")
        layout = found.layout
        corners = tile_corners(layout.tiling, slab.axis, box.voxel, layout.grid)
    images = panels(box, slab, arrays, grid)
    across, up = (i for i in range(3) if i != slab.axis)
    extent = (0.0, box.box_size[across], 0.0, box.box_size[up])
    columns = min(len(images), COLUMNS)
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(5.2 * columns, 4.9 * rows + 0.3), layout="constrained")
    places = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for empty in places.flat[len(images) :]:
        empty.remove()
    for place, (name, image) in zip(places.flat, images.items(), strict=False):
        kind = name.split()[0]
        shown = draw_map(place, image, kind, norm_of(kind, image, log), extent, corners)
        place.set_title(_title(box, name))
        label, ticks = _label(box, kind), ticks_of(shown.norm)
        figure.colorbar(shown, ax=place, label=label, shrink=0.85, extend="both", ticks=ticks)
    for place in places[-1]:
        place.set_xlabel(f"{AXES[across]}  [Mpc/h]")
    for place in places[:, 0]:
        place.set_ylabel(f"{AXES[up]}  [Mpc/h]")
    low, high = slab.extent(box.voxel)
    unpainted = "tb" in images and bool(np.isnan(images["tb"]).any())
    figure.suptitle(
        f"{box.stem}, redshift {box.redshift:g}: "
        f"mean over {axis} = {low:.4g} to {high:.4g} Mpc/h"
        + (" (grey: not painted yet, or lost)" if unpainted else "")
        + _forced(box, images)
    )
    picture, kind = io.BytesIO(), out.suffix.lstrip(".").lower()
    try:
        figure.savefig(picture, dpi=110, format=kind or "png")
        DISK.write_atomic(out, picture.getvalue(), work_folder(out))
    except (OSError, ValueError) as error:
        work_folder(out).unlink(missing_ok=True)
        raise BadInput(f"{out}: cannot be written ({error})") from None
    return list(images)


def _title(box: Box, name: str) -> str:
    if name == "tb" and (run := Ledger(box.place).run()):
        return f"{TITLES[name]} ({run['identity'].get('painter', 'unknown')} painter)"
    if not name.startswith("halo "):
        return TITLES.get(name, name)
    channel = int(name.split()[-1])
    edges: Any = box.array("halo").attrs.get("mass_edges")
    if edges is None:
        return f"haloes, mass bin {channel}"
    lower = _mass(edges[channel])
    if channel == len(HALO_EDGES) - 1:
        return rf"haloes above {lower} $M_\odot/h$"
    return rf"haloes of {lower} to {_mass(edges[channel + 1])} $M_\odot/h$"


def _forced(box: Box, shown: Mapping[str, Any]) -> str:
    """Say on a line of its own where --force has passed over what the model knows."""
    names = {name.split()[0] for name in shown}
    told = (box.array(name).attrs.get("forced") for name in sorted(names) if box.has(name))
    return "".join(f"\n{words}" for words in dict.fromkeys(told) if words)


def _mass(value: float) -> str:
    power = math.floor(math.log10(value) + 1e-9)
    factor = round(value / 10**power, 2)
    return f"$10^{{{power}}}$" if factor == 1 else rf"{factor:g}$\times10^{{{power}}}$"


def _label(box: Box, kind: str) -> str:
    """Say what the colours mean, with its unit."""
    if kind in LABELS:
        return LABELS[kind]
    about = box.array(kind).attrs
    return f"{about.get('long_name') or kind}  [{about.get('units') or '1'}]"
