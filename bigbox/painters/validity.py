"""Refuse to paint boxes that a model was not trained for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bigbox.errors import BadInput
from bigbox.store.box import Box

SAME_VOXEL = 0.05  # relative difference of voxel sizes that a model may be used at
SAME_REDSHIFT = 0.05


def check_box(folder: Path, card: dict[str, Any], box: Box) -> None:
    """Refuse a box that the model in `folder`, with this card, was not trained for.

    A network knows one resolution, redshift and smoothing. At others it paints something else,
    without a sign of it.

    Raises
    ------
    BadInput
        One line with the box's value, the model's, and the way out.
    """
    what, way = f"model {folder}/{card['kind']}", "or --force, if you know better"
    if abs(box.voxel / card["voxel_size"] - 1) > SAME_VOXEL:
        raise BadInput(
            f"{box.path}: voxels of {box.voxel:.5g} Mpc/h, {what} was trained at "
            f"{card['voxel_size']:.5g} (within {SAME_VOXEL:.0%}); ingest with another --grid, {way}"
        )
    if abs(box.redshift - card["redshift"]) > SAME_REDSHIFT:
        raise BadInput(
            f"{box.path}: redshift {box.redshift:.4g}, {what} was trained at "
            f"{card['redshift']:.4g} (within {SAME_REDSHIFT}); train one for this redshift, {way}"
        )
    if card["kind"] != "lodi" or not box.has("halo"):
        return
    halo: dict[str, Any] = box.array("halo").attrs.asdict()
    radius = halo.get("smoothing")
    if radius is not None and abs(radius - card["smoothing"]) > 1e-3:
        raise BadInput(
            f"{box.path}/halo: smoothed over {radius:.4g} Mpc/h, {what} was trained on haloes "
            f"smoothed over {card['smoothing']:.4g}; ingest with that --smoothing, {way}"
        )
    edges = halo.get("mass_edges")
    lower = card["halo_mass_edges"]
    if edges is not None and not np.allclose(edges[: len(lower)], lower, rtol=1e-6):
        raise BadInput(
            f"{box.path}/halo: mass bins from {edges} M_sun/h, {what} was trained on {lower}; "
            f"ingest it again, {way}"
        )
